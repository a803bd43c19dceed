"""Every evaluation and every use of a method on a GPU, found right without one: see `fake_gpu`."""

import gen.data
from gen import tasks
from gen.data.codes import Codes

FACTORS = ",".join(gen.data.Heads(img_size=32).factor_names)
print(FACTORS, Codes, tasks)

# %% [markdown]
# # Train linear directions
#
# `LinearDirections` is the baseline of `StyleFunction`, see [its
# page](../methods/linear_directions.md). It trains in a few minutes; here 60 iterations have to
# do, from Python. A config and `gen fit` do the same.

# %%
import logging

import lightning
import torch

import gen
from gen import viz
from gen.data import Codes
from gen.inference import editing, generation
from gen.methods import LinearDirections

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
generator, judge = "stylegan2_heads64", "attribute_classifier_heads64"
method = LinearDirections(
    generator=generator,
    judge=judge,
    attributes="bear,cat,dog,mouth_open,dark_fur,spots",
    lr_iters=60,
)
trainer = lightning.Trainer(
    max_steps=60,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    limit_val_batches=0,
)
trainer.fit(method, Codes(batch_size=32))
print("accuracy of the hyperplanes:", round(float(trainer.logged_metrics["train/accuracy"]), 2))

# %% [markdown]
# One request has one edit: there is no noise.

# %%method.eval()
names, judge = method.attribute_names, gen.load(judge)
ws = method.map_latents(generation.latents(method, range(4)))  # (4, L, 128)
labels = editing.labels(method, judge, ws)
requests = ["cat", "dog", "dark_fur"]
seen = editing.known(method, judge, count=200)
images = [method.synthesize(ws).clamp(-1, 1)]
for text in requests:
    request = editing.parse(text, names)
    d = torch.stack([editing.wanted(y, request, seen) for y in labels])
    edited = method.edit(ws, d)
    right = (editing.labels(method, judge, edited) == d).float().mean()
    images.append(method.synthesize(edited).clamp(-1, 1))
    print(f"{text}: {right:.2f} of all attributes are as wanted")
viz.save_image(
    viz.grid([*zip(*images, strict=True)], headers=["image", *requests], lead=(0, 1)), "edits.png"
)

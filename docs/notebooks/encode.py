# %% [markdown]
# # Train an encoder
#
# `InversionEncoder` finds the code of an image in one pass, see [its
# page](../methods/inversion_encoder.md). A useful one takes 12,000 iterations; the 100 of here show
# how a run works, and its reconstructions have little more than the main colours.

# %%
import logging

import lightning
import torch

from gen import viz
from gen.data import Heads
from gen.methods import InversionEncoder

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
data = Heads(img_size=64, batch_size=4, num_workers=0, train_images=400, references=False)
method = InversionEncoder(
    generator="stylegan2_heads64",
    lambda_lpips=0.0,  # which would need other weights
    ema_decay=0.9,
)
trainer = lightning.Trainer(
    max_steps=100,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    limit_val_batches=0,
)
trainer.fit(method, data)

# %% [markdown]
# Images that it was not trained on, and what the generator makes of their codes. The mean code is
# what an encoder that sees nothing would give.

# %%
method.eval()
x = torch.stack([data.images("val")[k]["x"] for k in range(6)])  # (6, 3, 64, 64)
ws = method.encode(x)  # (6, L, 128)
mean = method.code_mean.expand_as(ws)
found, blind = (method.synthesize(w).clamp(-1, 1) for w in (ws, mean))
for name, made in (("encoder", found), ("mean code", blind)):
    print(f"{name}: squared error of pixels {(made - x).square().mean():.3f}")
viz.save_image(viz.grid([*zip(x, found, strict=True)], headers=["image", "code"]), "codes.png")

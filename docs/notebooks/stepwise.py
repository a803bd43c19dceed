# %% [markdown]
# # Train edits in steps
#
# `StepwiseEditor` is the nonlinear baseline of `StyleFunction`, see [its
# page](../methods/stepwise_editor.md). It needs 3,000 iterations; the 60 of here show how a run
# works, and hardly an edit succeeds.

# %%
import logging

import lightning
import torch

import gen
from gen import viz
from gen.data import Codes
from gen.inference import editing, generation
from gen.methods import StepwiseEditor

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
judge = "attribute_classifier_heads64"
method = StepwiseEditor(
    generator="stylegan2_heads64",
    judge=judge,
    attributes="bear,cat,dog,mouth_open,dark_fur,spots",
    lambda_lpips=0.0,  # which would need other weights
    ema_decay=0.9,
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
trainer.fit(method, Codes(batch_size=4))

# %% [markdown]
# An edit is several steps. Each has a size of its own, and goes on from where the last one ended.

# %%
method.eval()
names, judge = method.attribute_names, gen.load(judge)
ws = method.map_latents(generation.latents(method, range(4)))  # (4, L, 128)
labels = editing.labels(method, judge, ws)  # (4, 6)
seen = editing.known(method, judge, count=200)
images = [method.synthesize(ws).clamp(-1, 1)]
requests = ["cat", "dark_fur"]
for text in requests:
    request = editing.parse(text, names)
    edited = method.edit(ws, torch.stack([editing.wanted(y, request, seen) for y in labels]))
    images.append(method.synthesize(edited).clamp(-1, 1))
    print(f"{text}: codes move by {(edited - ws).norm(dim=2).mean():.2f}")
viz.save_image(
    viz.grid([*zip(*images, strict=True)], headers=["image", *requests], lead=(0, 1)), "steps.png"
)

# %% [markdown]
# # Train a translator
#
# A tiny `StarGAN` on drawn heads, 40 iterations: not enough to see a good image, but all that a
# run consists of. The method is the baseline of `SmoothI2I`, see [its
# page](../methods/stargan.md).

# %%
import logging

import lightning

from gen import viz
from gen.data import Heads
from gen.inference import common, translation
from gen.methods import StarGAN

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
data = Heads(img_size=32, batch_size=4, num_workers=0, train_images=400)
method = StarGAN(
    img_size=32,
    num_domains=3,
    base_channels=16,
    max_channels=32,
    style_dim=16,
    lr_mapping=1e-4,
    ema_decay=0.9,
    rgb_norm=False,
)


class Losses(lightning.Callback):
    """Prints the terms of the generator's loss every ten iterations."""

    def on_train_batch_end(self, trainer, method, outputs, batch, index):
        if index % 10 == 9:
            found = {k.removeprefix("g/"): v for k, v in trainer.logged_metrics.items()}
            shown = [f"{k} {float(v):.2f}" for k, v in found.items() if k.startswith("latent/")]
            print(f"iteration {index + 1}:", ", ".join(shown))


trainer = lightning.Trainer(
    max_steps=40,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    limit_val_batches=0,
    log_every_n_steps=1,
    callbacks=[Losses()],
)
trainer.fit(method, data)

# %% [markdown]
# `gen fit` adds what a long run needs: a folder with the config, checkpoints that resume to the
# bit, pictures and the report.

# %%
method.eval()
images = data.images("val")
x, _ = common.batch(method, images, common.pick(images, 1))
rows, headers = translation.latent_grid(method, x, seeds=[0])
viz.save_image(viz.grid(rows), "after_40_iterations.png")

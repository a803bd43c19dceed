# %% [markdown]
# # Translate and interpolate
#
# A drawing in four vendors' styles, the way from one style to another, and how gradual it is. The
# model is `SmoothI2I`, see [its page](../methods/smooth_i2i.md). It knows emoji of 64 px alone;
# we draw two that no vendor has.

# %%
import torch
from PIL import Image, ImageDraw

import gen
from gen import viz
from gen.inference import translation
from gen.metrics.smoothness import smoothness


def drawn(*shapes):
    """An image (1, 3, 64, 64) in [-1, 1] of shapes: (kind, box or points, colour)."""
    image = Image.new("RGB", (256, 256), "white")
    for kind, where, colour in shapes:
        getattr(ImageDraw.Draw(image), kind)(where, fill=colour)
    pixels = torch.tensor([*image.resize((64, 64), Image.Resampling.BOX).tobytes()])
    return (pixels.view(64, 64, 3) / 127.5 - 1).permute(2, 0, 1)[None]


face = drawn(
    ("ellipse", (16, 16, 240, 240), "#fc3"),
    ("ellipse", (76, 80, 104, 124), "#642"),
    ("ellipse", (152, 80, 180, 124), "#642"),
    ("ellipse", (96, 150, 160, 196), "#642"),
)
heart = drawn(
    ("ellipse", (24, 40, 136, 152), "#d34"),
    ("ellipse", (120, 40, 232, 152), "#d34"),
    ("polygon", ((34, 122), (222, 122), (128, 232)), "#d34"),
)
sources = torch.cat([face, heart])  # (2, 3, 64, 64)

model = gen.load("smooth_i2i_emoji64")
print("domains:", *model.domains)

# %% [markdown]
# Two style codes for each domain, each a function of its seed. They differ little: on emoji,
# colours belong to the content.

# %%
rows, headers = translation.latent_grid(model, sources, seeds=[0, 1])
viz.save_image(viz.grid(rows, headers=headers, lead=(0, 1)), "translations.png")

# %% [markdown]
# A path between two domains is a straight line of style codes. Each frame is one pass of the
# generator.

# %%
styles = [translation.style(model, model.domains.index(name), 0) for name in ("noto", "openmoji")]
[path] = translation.walk(model, sources, styles, frames=20)  # (2, 20, 3, 64, 64)
viz.save_image(viz.strip(path[0], ("noto", "openmoji"), shown=9), "path.png")
viz.save_gif(viz.palindrome([viz.enlarge(frame) for frame in path[0]]), "path.gif")

# %% [markdown]
# How gradual is it? Perceptual smoothness (`ps`) is 1 for equal steps. It says little alone: a
# path that hardly moves has a high one. `direct` is the distance from the first frame to the
# last, see [Evaluate](../evaluate.md). Here the distance is the mean difference of pixels, which
# needs no network; commands take LPIPS.

# %%
steps = path.diff(dim=1).abs().mean((2, 3, 4))  # (2, 19)
direct = (path[:, -1] - path[:, 0]).abs().mean((1, 2, 3))  # (2,)
values = smoothness(steps, direct)
for name in ("ps", "direct"):
    print(name, [round(value, 3) for value in values[name].tolist()])

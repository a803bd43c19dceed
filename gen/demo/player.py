"""A component that shows frames: a picture, a slider, the strip, and how large each step is."""

import base64
import io
import itertools
from collections.abc import Sequence
from importlib import resources

import gradio as gr
import numpy as np
from PIL import Image

from gen import viz

# of a page: what a player shows is of what was chosen before, till its next value comes
STALE = "() => document.querySelector('#{0} .player')?.classList.add('stale')"
MADE = itertools.count()


def source(name: str) -> str:
    """A file of this folder."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def component(name: str, value: dict | None = None, **options) -> gr.HTML:
    """A component of our own, made of name.html, name.css and name.js in this folder."""
    parts = dict(html_template=source(f"{name}.html"), css_template=source(f"{name}.css"))
    made = gr.HTML(value, **parts, js_on_load=source(f"{name}.js"), **options)
    made.api_info = lambda: {"type": "object"}
    return made


def frames(
    pictures: Sequence[viz.Picture],
    ends: tuple[str, str] = ("", ""),
    caption: str = "",
    steps: Sequence[float] = (),
    fps: float = 12,
    **more,
) -> dict:
    """The value of a player: T pictures of one size, the distance of each to the next one."""
    sheet = np.concatenate([np.asarray(viz.to_pil(p)) for p in pictures])  # (T H, W, 3)
    value = dict(sprite=data_url(Image.fromarray(sheet)), count=len(pictures), caption=caption)
    value["made"] = next(MADE)  # a page is told of it, be it like the one before
    return value | {"from": ends[0], "to": ends[1], "steps": list(steps), "fps": fps} | more


def data_url(image: Image.Image) -> str:
    """An image as text, in lossy WebP."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=92)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()

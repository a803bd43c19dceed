"""A component that shows frames: a picture, a slider, the strip, and the size of each step."""

import base64
import io
import itertools
from collections.abc import Sequence
from importlib import resources

import gradio as gr
import numpy as np
from PIL import Image

from gen import viz

# script of a page: marks the content of a player as outdated until its next value comes
STALE = "() => document.querySelector('#{0} .player')?.classList.add('stale')"
MADE = itertools.count()


def source(name: str) -> str:
    """Content of a file in this folder."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def component(name: str, value: dict | None = None, **options) -> gr.HTML:
    """A custom component, made of name.html, name.css and name.js in this folder."""
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
    """Value of a player: T pictures of one size, and the distance of each to the next one."""
    sheet = np.concatenate([np.asarray(viz.to_pil(p)) for p in pictures])  # (T H, W, 3)
    value = dict(sprite=data_url(Image.fromarray(sheet)), count=len(pictures), caption=caption)
    value["made"] = next(MADE)  # a new number, so that the page updates even if the value is equal
    return value | {"from": ends[0], "to": ends[1], "steps": list(steps), "fps": fps} | more


def data_url(image: Image.Image) -> str:
    """An image as a data URL, in lossy WebP, encoded in the fastest way that keeps it small."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=92, method=1)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()

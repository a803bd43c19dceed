"""Cutting objects out of a photo by clicks and boxes; the component itself is in cut.js."""

from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from gen.data.images import load_image
from gen.demo import downloads
from gen.demo.player import data_url
from gen.demo.validation import photo
from gen.inference import cutting

NAME = "cut_masks.png"  # file of the masks that are cut here
LONGEST = 500  # characters of the words for one object
SHOWN_PX = 640  # longer side of the photo on the page: names of objects are still read there


def opened(image: dict | None):
    """The component with an uploaded photo in which nothing is cut yet; hidden without one."""
    if image is None:
        return gr.HTML(visible=False)
    path = photo(image)
    pixels = np.array(load_image(path))
    ids = np.zeros(pixels.shape[:2], np.uint16)
    return gr.HTML(value=[], scene=scene(path, pixels, ids), visible=True)


def cut(image: dict | None, words: list | None, masks: dict | None):
    """The component with its objects outlined, and the file of their masks.

    Args:
        image: value of the photo's field.
        words: objects as `gen.inference.cutting.parse` reads them.
        masks: value of the masks' field; masks that a user uploaded stay if nothing is cut.
    """
    words = [] if words is None else words
    if not isinstance(words, list) or not all(
        isinstance(word, str) and len(word) <= LONGEST for word in words
    ):
        raise ValueError(
            f"objects: expected a list of texts of at most {LONGEST} characters, got {words!r:.100}"
        )
    if image is None:
        return gr.skip(), gr.skip()
    path = photo(image)
    pixels = np.array(load_image(path))
    if not words:
        ours = isinstance(masks, dict) and Path(str(masks.get("path"))).name == NAME
        ids = np.zeros(pixels.shape[:2], np.uint16)
        return gr.HTML(scene=scene(path, pixels, ids)), None if ours else gr.skip()
    ids = cutting.masks(pixels, [cutting.parse(one, pixels.shape[1::-1]) for one in words])
    file = downloads.place(NAME)
    Image.fromarray(ids).save(file)
    return gr.HTML(scene=scene(path, pixels, ids)), str(file)


def scene(path: Path, pixels: np.ndarray, ids: np.ndarray) -> dict:
    """The visible state of the component: the photo with its cut objects, and its size."""
    H, W = ids.shape
    image = data_url(cutting.overlay(pixels, ids, SHOWN_PX))
    return dict(
        image=image, width=W, height=H, kinds=[*cutting.SHAPES], photo=str(path.parent.name)
    )

"""Downloads: a file is made when it is asked for, in the demo's own folder."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from gen import viz
from gen.demo.inputs import QUIETLY

KEPT_S = 3600  # what a person made, after their last visit
CLICK = "() => document.querySelector('#{0} a, a#{0}, #{0}')?.click()"


class Shown(NamedTuple):
    """A handler, what it is given, and what shows what it returns."""

    handler: Callable
    inputs: list
    outputs: list


def kept(value) -> gr.State:
    """What is kept of a person between their requests."""
    return gr.State(value, time_to_live=KEPT_S)


def button(name: str, make: Callable[..., None], inputs: Sequence[gr.components.Component]) -> None:
    """A button that downloads the file `name`, which `make(path, *inputs)` writes at that moment.

    Gradio's own button needs its file before the click: a hidden one is clicked when it is there.
    """

    def write(*values) -> str:
        path = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])) / name
        make(path, *values)
        return str(path)

    id_ = "get-" + name.replace(".", "-")
    shown = gr.Button(name, size="sm", min_width=80, elem_id=f"make-{id_}")
    file = gr.DownloadButton(visible="hidden", elem_id=id_)
    made = shown.click(write, inputs, file, **QUIETLY)
    made.success(None, js=CLICK.format(id_))


def row(name: str, pictures: gr.State) -> None:
    """Buttons for a GIF, an MP4 and a strip of pictures."""
    with gr.Row():
        button(f"{name}.gif", lambda path, p: viz.save_gif(_loop(p), path), [pictures])
        button(f"{name}.mp4", lambda path, p: viz.save_mp4(_loop(p), path), [pictures])
        button(f"{name}.png", lambda path, p: viz.strip(_made(p), shown=8).save(path), [pictures])


def _loop(pictures: list) -> list:
    return viz.palindrome(_made(pictures))


def _made(pictures: list) -> list:
    if not pictures:
        raise ValueError("expected a picture to save, got none yet; make one first")
    return pictures

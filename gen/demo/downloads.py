"""Downloads: files that are made on request, in the demo's own folder."""

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from gen import viz
from gen.demo import busy
from gen.demo.validation import QUIETLY

MADE: deque[Path] = deque()  # folders of one file each
NEWEST = 300  # newest folders of all users to keep
CLICK = "() => document.querySelector('#{0} a, a#{0}, #{0}')?.click()"


def kept(value):
    """Returns the state that a page keeps for a user between requests, set when the page opens.

    Raises:
        ValueError: the state was dropped, since many other users came after.
    """
    if value is None:
        raise ValueError("expected what this page showed, which is gone by now; reload the page")
    return value


def place(name: str) -> Path:
    """Path for a file that a browser asks for, in its own folder; deletes the oldest folder."""
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    MADE.append(folder)
    while len(MADE) > NEWEST:
        shutil.rmtree(MADE.popleft(), ignore_errors=True)
    return folder / name


def button(name: str, make: Callable[..., None], inputs: list[gr.components.Component]) -> None:
    """A button that downloads the file `name`, which `make(path, *inputs)` writes on the click.

    Gradio's own button needs its file before the click, so a hidden one is clicked afterwards.
    """

    def write(*values) -> str:
        path = place(name)
        if isinstance(codec := make(path, *values), str):
            gr.Info(f"{name}: {codec}")
        return str(path)

    id_ = "get-" + name.replace(".", "-")
    shown = gr.Button(name, size="sm", min_width=80, elem_id=f"make-{id_}")
    file = gr.DownloadButton(visible="hidden", elem_id=id_)
    made = busy.on(f"make-{id_}", shown.click, write, inputs, file, **QUIETLY)
    made.success(None, js=CLICK.format(id_))


def row(name: str, pictures: gr.State, draw: Callable = viz.enlarge) -> None:
    """Buttons for a GIF, an MP4 and a strip of pictures, which `draw` enlarges."""

    def made(pictures: list | None) -> list:
        if not pictures:
            raise ValueError("expected a picture to save, got none yet; make one first")
        return [draw(picture) for picture in pictures]

    def save(write: Callable) -> Callable[..., None]:
        return lambda path, pictures: write(viz.palindrome(made(pictures)), path)

    with gr.Row(elem_classes="downloads"):
        button(f"{name}.gif", save(viz.save_gif), [pictures])
        button(f"{name}.mp4", save(viz.save_mp4), [pictures])
        button(f"{name}.png", lambda path, p: viz.strip(made(p), shown=8).save(path), [pictures])

"""Tab: edits the attributes of a generated image or a photo."""

from collections.abc import Sequence

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from gen import viz
from gen.data.images import resize, to_tensor
from gen.demo import downloads
from gen.demo.player import STALE, component, frames
from gen.demo.validation import FROM, QUIETLY, SEEDS, picture, whole
from gen.inference import common, editing, generation

FRAMES, STEPS, MOST = 16, 200, 6  # frames; projection steps of a photo; most variations

PROGRESS = gr.Progress(track_tqdm=True)  # for handlers, as default


def tab(page: gr.Blocks, method, judge, about: str) -> None:
    """Fills the tab with an editor of codes, and the judge that predicts its attributes; `about`
    is a text on both."""
    names, seen = judge.attribute_names, editing.known(method, judge)

    def vector(words: Sequence[str]) -> Tensor:
        if not isinstance(words, list) or any(word not in names for word in words):
            raise ValueError(f"expected attributes among {', '.join(names)}, got {words!r:.80}")
        return torch.tensor([float(name in words) for name in names], device=seen.device)

    def words(y: Tensor) -> list[str]:
        return [name for name, has in zip(names, y.tolist(), strict=True) if has]

    def of_seed(seed: float) -> Tensor:
        z = generation.latents(method, [whole(seed, "head number", 0, SEEDS)])
        return method.map_latents(z)  # (1, L, D)

    def of_photo(image: dict | None, progress=PROGRESS) -> Tensor:
        if image is None:
            raise ValueError("expected a photo, got none; upload one")
        x = to_tensor(resize(picture(image), method.img_size))[None].to(common.device(method))
        return method.encode(x, STEPS)

    def as_it_is(ws: Tensor) -> list[str]:
        return words(editing.labels(method, judge, downloads.kept(ws))[0])

    def choose(wanted: Sequence[str], click: gr.SelectData) -> list[str]:
        """Wanted attributes after a click: a dog that becomes a cat is no longer a dog."""
        (clicked,) = vector([click.value]).nonzero().flatten().tolist()
        return words(editing.wanted(vector(wanted), {clicked: bool(click.selected)}, seen))

    def draw(row: Sequence) -> Image.Image:
        return viz.grid([row], cell_px=192)

    def show(ws: Tensor, wanted: Sequence[str], count: float, first: float) -> tuple[dict, list]:
        """Frames of all variations, side by side."""
        ws = downloads.kept(ws)
        y, d = (
            editing.labels(method, judge, ws)[0],
            editing.wanted(vector(wanted), {}, seen),
        )  # (K,)
        count = whole(count, "variations", 1, MOST) if method.noise_dim else 1
        first = whole(first, "noise", 0, SEEDS)
        codes = editing.edits(method, ws, d[None, None], range(first, first + count))[0]
        paths = [viz.to_uint8(editing.walk(method, [ws, code], FRAMES)[0][0]) for code in codes]
        rows = [list(row) for row in zip(*paths, strict=True)]
        changed = [(new, name.replace("_", " "))
                   for name, old, new in zip(names, y, d, strict=True) if old != new]  # fmt: skip
        words = [("" if new else "no ") + name for new, name in sorted(changed, reverse=True)]
        ends = "as it is", ", ".join(words) or "as it was"
        return frames([draw(row) for row in rows], ends, wide=True), rows

    start = of_seed(0)
    y = editing.labels(method, judge, start)[0]
    first_lacking = int(y.argmin())
    gr.Markdown(about)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            with gr.Row():
                seed = gr.Number(
                    0, label="Head", precision=0, minimum=0, maximum=SEEDS, min_width=100
                )
                another = gr.Button("another", min_width=100)
            with gr.Accordion("or a photo", open=False):
                photo = gr.Image(label="Photo", height=180, sources=FROM, elem_id="photo")
                find = gr.Button("find its code", size="sm")
            wanted = gr.CheckboxGroup(
                [(name.replace("_", " "), name) for name in names],
                value=words(editing.wanted(y, {first_lacking: True}, seen)),
                label="It is to have",
            )
            reset = gr.Button("what it has now", size="sm")
            with gr.Row():
                count = gr.Slider(1, MOST, 3, step=1, label="Variations", min_width=200)
                first = gr.Number(0, label="First noise", precision=0, minimum=0, maximum=SEEDS)
        with gr.Column(scale=3, min_width=320):
            player, pictures = component("player", elem_id="edited"), gr.State()
            downloads.row("edit", pictures, draw)
    code = gr.State()
    shown = show, [code, wanted, count, first], [player, pictures]
    sources = [seed.change, wanted.select, reset.click, count.change, first.change]
    gr.on(sources, None, js=STALE.format("edited"), **QUIETLY)  # first: handlers run in turn
    another.click(None, seed, seed, js="(k) => (k || 0) + 1")
    found = seed.change(of_seed, seed, code, trigger_mode="always_last", **QUIETLY)
    waits = QUIETLY | {"show_progress": "full", "show_progress_on": player}
    looked = find.click(of_photo, photo, code, **waits)
    back = reset.click(as_it_is, code, wanted, **QUIETLY)
    clicked = wanted.select(choose, wanted, wanted, trigger_mode="always_last", **QUIETLY)
    looked = looked.success(as_it_is, code, wanted, **QUIETLY)
    for before in (found, looked, back, clicked):
        before.success(*shown, **QUIETLY)
    gr.on([count.change, first.change], *shown, trigger_mode="always_last", **QUIETLY)
    page.load(of_seed, seed, code, **QUIETLY).success(*shown, **QUIETLY)

"""Tab: translates an image, and walks from one style to another."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio as gr
import torch
from PIL import Image

from gen import viz
from gen.data import Heads
from gen.data.images import resize, to_tensor
from gen.demo import busy, downloads
from gen.demo.player import STALE, component, frames
from gen.demo.validation import FROM, QUIETLY, SEEDS, picture, whole
from gen.inference import common, translation
from gen.metrics.smoothness import path_distances, smoothness
from gen.networks.perceptual import LPIPS

FRAMES = 20  # as in the published metric
RESULT = "translation"  # id of the column that shows the result


def tab(page: gr.Blocks, method, about: str, lpips: LPIPS | None, examples: Sequence[str]) -> None:
    """Fills the tab; `about` is a text on the method; without LPIPS, paths have no numbers."""

    def tensor(image: Image.Image) -> torch.Tensor:
        return to_tensor(resize(image, method.img_size))[None].to(common.device(method))

    def style(name: str, seed: float, reference: dict | None) -> torch.Tensor:
        y, reference = translation.domain_index(method, name), picture(reference)
        known = whole(seed, "seed", 0, SEEDS) if reference is None else tensor(reference)
        return translation.style(method, y, known)  # (1, D)

    def show(image: dict | None, *ends) -> Iterator[tuple[dict | None, list]]:
        """Yields frames, then frames with the distances between them; nothing without an image."""
        if (image := picture(image)) is None:
            yield None, []
            return
        x = tensor(image)
        made = translation.walk(method, x, [style(*ends[:3]), style(*ends[3:])], FRAMES)[0]
        small, names = [viz.to_uint8(x) for x in made[0]], (ends[0], ends[3])
        pictures = [viz.enlarge(x) for x in small]
        value = frames(pictures, names, "measuring …")
        yield value, small
        yield value | measured(made), small  # the same frames, so not fresh if these are stale

    def measured(made: torch.Tensor) -> dict:
        if lpips is None:
            return {"caption": "no LPIPS weights here: smoothness is not measured"}
        steps, direct = path_distances(lpips, made)
        ps, straight = (smoothness(steps, direct)[key].item() for key in ("ps", "straight"))
        text = (
            f"perceptual smoothness {ps:.3f} and straightness {straight:.3f} of at most 1, over a "
        )
        text += f"distance of {direct.item():.3f}; bars: the size of each step"
        return {"caption": text, "steps": steps[0].tolist()}

    gr.Markdown(about)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            image = gr.Image(examples[0], label="Image", height=220, sources=FROM, elem_id="source")
            gr.Examples(list(examples), image, label="Examples", examples_per_page=12)
            ends = [*_end("From", method, 0), *_end("To", method, len(method.domains) // 2)]
        with gr.Column(scale=3, min_width=320, elem_id=RESULT, elem_classes="result"):
            player, pictures = component("player", elem_id="translated"), gr.State()
            downloads.row("path", pictures)
    fields, shown = [image, *ends], [player, pictures]
    changes = [part.change for part in fields]
    busy.on(RESULT, page.load, show, fields, shown, **QUIETLY)
    gr.on(changes, None, js=STALE.format("translated"), **QUIETLY)
    busy.on(RESULT, changes, show, fields, shown, trigger_mode="always_last", **QUIETLY)


def examples(folder: Path, made: Path, count: int = 10) -> list[str]:
    """Images of a folder of domains, evenly spaced, for emoji with a smiley first; without images,
    heads drawn into `made`."""
    found = sorted(folder.glob("[!.]*/[!.]*.png"), key=lambda path: path.name)
    smiley = [k for k, path in enumerate(found) if path.stem.startswith("1f60")]
    found = [*found[smiley[0] :], *found[: smiley[0]]] if smiley else found
    if found:
        return [str(found[k * len(found) // count]) for k in range(count)]
    heads = Heads(img_size=64).val
    for k in range(count):
        Image.fromarray(viz.to_uint8(heads[k]["x"])).save(made / f"head{k}.png")
    return [str(made / f"head{k}.png") for k in range(count)]


def _end(title: str, method, first: int) -> list[gr.components.Component]:
    with gr.Group():
        with gr.Row():
            name = gr.Dropdown(
                list(method.domains), value=method.domains[first], label=title, min_width=120
            )
            seed = gr.Number(0, label="seed", precision=0, minimum=0, maximum=SEEDS, min_width=80)
        with gr.Accordion("or the style of an image", open=False):
            reference = gr.Image(
                label=f"{title}: style of", height=140, sources=FROM, elem_id=f"style-{title}"
            )
    return [name, seed, reference]

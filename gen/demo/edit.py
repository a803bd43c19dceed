"""Tab: edits the attributes of a generated image or a photo, weaker and stronger than asked."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import gradio as gr
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen import viz
from gen.data.images import resize, to_tensor
from gen.demo import busy, downloads
from gen.demo.player import STALE, component, frames
from gen.demo.validation import FROM, QUIETLY, SEEDS, picture, whole
from gen.inference import common, editing, generation
from gen.networks.perceptual import LPIPS

STRENGTHS = [k / 8 for k in range(17)]  # of an edit, a frame each; 1 is the edit as asked
STEPS, REFINED, MOST = 200, 20, 6  # projection steps alone, after an encoder; most variations
CELL_PX, FONT_PX, COLUMNS = 192, 32, 3  # of a frame: an image, its words, variations in a row
SURE, FAR = "probability of the change", "distance from the original (LPIPS)"
RESULT = "edits"  # id of the column that shows the result

PROGRESS = gr.Progress(track_tqdm=True)  # for handlers, as default


class Frame(NamedTuple):
    """The original beside its variations at one strength, as 8-bit pixels (H, H, 3)."""

    strength: float
    original: np.ndarray
    variations: list

    def draw(self) -> Image.Image:
        """The picture, with words above it; further variations in further rows."""
        wide = min(len(self.variations), COLUMNS)
        cells = [*self.variations, *[None] * (-len(self.variations) % wide)]
        rows = [cells[k : k + wide] for k in range(0, len(cells), wide)]
        rows = [[None if k else self.original, *row] for k, row in enumerate(rows)]
        words = [("original", 1), (f"strength {self.strength:g}", wide)]
        return viz.grid(rows, headers=words, lead=(0, 1), cell_px=CELL_PX, font_px=FONT_PX)


class Handlers:
    """Event handlers of the tab: they take values of its fields and return values of its parts.

    Args:
        method: editor of codes.
        judge: classifier that predicts the editor's attributes.
        encoder: encoder of photos into the codes; None: photos are projected.
        lpips: LPIPS network; None: distances are not measured.
    """

    def __init__(self, method, judge, encoder, lpips: LPIPS | None):
        if encoder is not None:
            editing.check_encoder(encoder, method, "encoder")
        self.method, self.judge, self.encoder, self.lpips = method, judge, encoder, lpips
        self.names, self.seen = judge.attribute_names, editing.known(method, judge)

    def vector(self, words: Sequence[str]) -> Tensor:
        """Attributes (K,) of their names."""
        names = self.names
        if not isinstance(words, list) or any(word not in names for word in words):
            raise ValueError(f"expected attributes among {', '.join(names)}, got {words!r:.80}")
        return torch.tensor([float(name in words) for name in names], device=self.seen.device)

    def words(self, y: Tensor) -> list[str]:
        """Names of attributes (K,)."""
        return [name for name, has in zip(self.names, y.tolist(), strict=True) if has]

    def of_seed(self, seed: float) -> Tensor:
        """Code (1, L, D) of a head by its number."""
        z = generation.latents(self.method, [whole(seed, "head number", 0, SEEDS)])
        return self.method.map_latents(z)

    def of_photo(self, image: dict | None, progress=PROGRESS) -> Tensor:
        """Code (1, L, D) of a photo: by the encoder at once, else by a projection."""
        x = self.photo(image)
        return self.method.encode(x, STEPS) if self.encoder is None else self.encoder.encode(x)

    def refined(self, image: dict | None) -> Tensor:
        """Code (1, L, D) of a photo by the encoder, improved by steps of a projection."""
        return self.encoder.encode(self.photo(image), REFINED)

    def photo(self, image: dict | None) -> Tensor:
        """An uploaded photo, (1, 3, H, H)."""
        if image is None:
            raise ValueError("expected a photo, got none; upload one")
        x = to_tensor(resize(picture(image), self.method.img_size))[None]
        return x.to(common.device(self.method))

    def as_it_is(self, ws: Tensor) -> list[str]:
        """Names of the attributes that a code has now."""
        return self.words(editing.labels(self.method, self.judge, downloads.kept(ws))[0])

    def choose(self, wanted: Sequence[str], click: gr.SelectData) -> list[str]:
        """Wanted attributes after a click: a dog that becomes a cat is no longer a dog."""
        (clicked,) = self.vector([click.value]).nonzero().flatten().tolist()
        request = {clicked: bool(click.selected)}
        return self.words(editing.wanted(self.vector(wanted), request, self.seen))

    def show(
        self, ws: Tensor, wanted: Sequence[str], count: float, first: float
    ) -> Iterator[tuple[dict, list[Frame]]]:
        """Yields frames over the strength, then frames with the curves of what was measured."""
        method, ws = self.method, downloads.kept(ws)
        d = editing.wanted(self.vector(wanted), {}, self.seen)  # (K,)
        count = whole(count, "variations", 1, MOST) if method.noise_dim else 1
        first = whole(first, "noise", 0, SEEDS)
        z = editing.noises(method, range(first, first + count))  # (N, Z)
        parts = ws.expand(count, -1, -1), d.expand(count, -1), z
        codes = editing.at_strengths(method, *parts, STRENGTHS)  # (S, N, L, D)
        x = method.synthesize(ws).clamp(-1, 1)  # (1, 3, H, H)
        made = torch.stack([method.synthesize(at).clamp(-1, 1) for at in codes])
        original = viz.to_uint8(x[0])
        pictures = [
            Frame(strength, original, [*row])
            for strength, row in zip(STRENGTHS, viz.to_uint8(made), strict=True)
        ]
        value = frames(
            [frame.draw() for frame in pictures],
            ("0: as it is", "2: beyond"),
            "measuring …",
            wide=True,
            at=STRENGTHS.index(1),
            middle="1: as asked",
            label="strength of the edit",
            places=[f"strength {strength:g}" for strength in STRENGTHS],
        )
        yield value, pictures
        yield value | self.measured(made, x, d), pictures

    def measured(self, made: Tensor, x: Tensor, d: Tensor) -> dict:
        """Curves over the strength, and words on them, of images (S, N, 3, H, H) of the edit of
        x (1, 3, H, H) to attributes d (K,); nothing is measured where nothing is to change."""
        y = (self.judge.classify(x)[0] > 0).float()  # (K,)
        changed = [
            ("" if new else "no ") + name.replace("_", " ")
            for name, old, new in zip(self.names, y, d, strict=True)
            if old != new
        ]
        if not changed:
            return {"caption": "nothing is asked to change, so there is no curve"}
        asked = ", ".join(sorted(changed, key=lambda text: (text.startswith("no "), text)))
        sure = [editing.success(self.judge, at, y, d).mean() for at in made]
        curves, note = [{"name": SURE, "values": rounded(sure)}], ""
        if self.lpips is None:
            note = "; no LPIPS weights here: the distance is not measured"
        else:
            near, features = self.lpips.features(x), self.lpips.features
            far = [self.lpips.distance(features(at), near).mean() for at in made]
            curves.append({"name": FAR, "values": rounded(far)})
        of = f", means of {made.shape[1]} variations" if made.shape[1] > 1 else ""
        told = f"asked: {asked} (probability by the classifier{of}){note}"
        return {"caption": told, "curves": curves}


def rounded(values: Sequence[Tensor]) -> list[float]:
    """Numbers of a curve."""
    return [round(value.item(), 3) for value in values]


def tab(page: gr.Blocks, method, judge, encoder, about: str, lpips: LPIPS | None) -> None:
    """Fills the tab with an editor of codes, the judge that predicts its attributes, and perhaps
    an encoder of photos; `about` is a text on the editor."""
    handlers = Handlers(method, judge, encoder, lpips)
    y = editing.labels(method, judge, handlers.of_seed(0))[0]
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
                button = dict(size="sm", min_width=100, elem_classes=busy.starts(RESULT))
                with gr.Row():
                    find = gr.Button("find its code", **button)
                    refine = gr.Button("refine", visible=encoder is not None, **button)
            wanted = gr.CheckboxGroup(
                [(name.replace("_", " "), name) for name in handlers.names],
                value=handlers.words(editing.wanted(y, {first_lacking: True}, handlers.seen)),
                label="It is to have",
            )
            reset = gr.Button("what it has now", size="sm")
            with gr.Row():
                count = gr.Slider(1, MOST, 3, step=1, label="Variations", min_width=200)
                first = gr.Number(0, label="First noise", precision=0, minimum=0, maximum=SEEDS)
        with gr.Column(scale=3, min_width=320, elem_id=RESULT, elem_classes="result"):
            player, pictures = component("player", elem_id="edited"), gr.State()
            downloads.row("edit", pictures, Frame.draw)
    code = gr.State()
    shown = handlers.show, [code, wanted, count, first], [player, pictures]
    sources = [seed.change, wanted.select, reset.click, count.change, first.change]
    gr.on(sources, None, js=STALE.format("edited"), **QUIETLY)  # first: handlers run in turn
    another.click(None, seed, seed, js="(k) => (k || 0) + 1")
    last = dict(trigger_mode="always_last", **QUIETLY)
    found = busy.on(RESULT, seed.change, handlers.of_seed, seed, code, **last)
    waits = QUIETLY | {"show_progress": "full", "show_progress_on": player}
    looks = [(find, handlers.of_photo), *[(refine, handlers.refined)] * (encoder is not None)]
    looked = [busy.on(RESULT, one.click, fn, photo, code, **waits) for one, fn in looks]
    back = busy.on(RESULT, reset.click, handlers.as_it_is, code, wanted, **QUIETLY)
    clicked = busy.on(RESULT, wanted.select, handlers.choose, wanted, wanted, **last)
    read = [
        busy.on(RESULT, one.success, handlers.as_it_is, code, wanted, **QUIETLY) for one in looked
    ]
    for before in (found, *read, back, clicked):
        busy.on(RESULT, before.success, *shown, **QUIETLY)
    busy.on(RESULT, [count.change, first.change], *shown, **last)
    opened = busy.on(RESULT, page.load, handlers.of_seed, seed, code, **QUIETLY)
    busy.on(RESULT, opened.success, *shown, **QUIETLY)

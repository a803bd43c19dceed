"""Base of methods that edit codes of a frozen generator, with a classifier that judges its images.

Letters in shapes: N batch, T frames, L rows of a code, D its width, K attributes, Z noise, H image
side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from gen import checkpoint as files
from gen.devices import full_precision
from gen.files import WeightsError
from gen.interpolation import alphas, path
from gen.methods.base import Method, inference
from gen.methods.loading import Sketch, check_types, load
from gen.methods.projector import project
from gen.networks.stylegan2 import SIZES, Generator
from gen.weights import load_weights

OPEN = dict.fromkeys(SIZES, 0) | {"clamp": -1.0}  # defaults: take the size from the file
BOUNDS = dict.fromkeys(("z_dim", "w_dim", "map_layers"), (1, inf)) | {"clamp": (0, inf)}


class OnGenerator(Method):
    """Base of methods that work on the codes of a frozen generator.

    A subclass has the options `generator`, `psi` and those in `OPEN`, as `StyleFunction` has. It
    calls `build_generator` and gives the `bounds` of its other options, {name: (lowest, highest)}.
    """

    bounds: dict[str, tuple[float, float]]

    def build_generator(self) -> None:
        """Builds the frozen generator; `load_init`, or a checkpoint of this method, fills it.

        Sizes that are not given come from the file with the weights, and are saved.
        """
        h = self.hparams
        if left := [name for name, value in OPEN.items() if h[name] == value]:
            if torch.empty(0).is_meta:  # see `loading.load`: a checkpoint must not name other files
                raise ValueError(f"{left[0]}: expected the size in it, got {h[left[0]]}")
            h.update(self.read_generator(h.init_from or h.generator)[0])
        for name, (low, high) in (BOUNDS | self.bounds).items():
            if not low <= h[name] <= high:
                raise ValueError(f"expected {name} in {low} .. {high}, got {h[name]}")
        self.img_size, self.latent_dim, self.width = h.img_size, h.z_dim, h.w_dim
        self.generator = build({name: h[name] for name in OPEN}).requires_grad_(False)
        self.rows = self.generator.mapping.rows

    def load_init(self) -> None:
        if not self.hparams.init_from:
            self.load_generator(self.hparams.generator)
        super().load_init()

    def load_generator(self, path: str) -> None:
        """Loads the averaged generator of a checkpoint of `StyleGAN2`."""
        self.generator.load_state_dict(self.read_generator(path)[1].state_dict())
        rank_zero_info(f"generator: took over {path}")

    def read_generator(self, path: str) -> tuple[dict[str, Any], Generator]:
        """The sizes of the generator in a checkpoint, and the generator.

        The checkpoint is of `StyleGAN2` (its averaged generator) or, for `init_from`, of this
        method.

        Raises:
            ValueError: no path is given.
            WeightsError: the checkpoint is of another method or has classes, its weights do not fit
                its options, or its sizes differ from the given ones.
        """
        if not path:
            raise ValueError(
                "generator: expected a checkpoint of StyleGAN2, got none; give its path"
            )
        found = files.read(path)
        kinds = dict(conditional="with classes", grey="of grey images", alpha="with transparency")
        odd = [text for name, text in kinds.items() if found.hparams.get(name)]
        if odd or found.method != "StyleGAN2" and path != self.hparams.init_from:
            such = ", such as one trained with --model.init_from this file"
            raise WeightsError(
                f"{path}: expected a StyleGAN2 of colour images without classes or transparency, "
                f"got a {' '.join([found.method, *odd])}; give another generator"
                f"{such * (found.method == 'StyleGAN2')}"
            )
        sizes = {name: found.hparams.get(name, 0.0) for name in OPEN}
        state = found.network("generator")
        try:
            check_types(type(self), sizes)
            with Sketch(limit=3000 + 50 * len(state)):
                generator = build(sizes)
            load_weights(generator, state, path, "a generator")
        except Exception as error:  # options of strangers raise nearly anything
            raise WeightsError(
                f"{path}: expected sizes of a generator that has its weights, got {sizes!s:.300}: "
                f"{error!s:.300}; take the file as it was written"
            ) from error
        for name, value in sizes.items():
            if self.hparams[name] not in (OPEN[name], value):
                raise WeightsError(
                    f"{path}: expected a generator with {name} {self.hparams[name]}, as given, got "
                    f"{name} {value}; leave the option out, or give another generator"
                )
        return sizes, generator

    @inference
    def map_latents(self, z: Tensor, psi: float | None = None) -> Tensor:
        """Latents of the generator (N, z_dim) -> codes (N, L, D), truncated as in training."""
        return self.generator.mapping(z, psi=self.hparams.psi if psi is None else psi)

    @inference
    def synthesize(self, ws: Tensor) -> Tensor:
        """Codes (N, L, D) -> images (N, 3, H, H), unbounded."""
        return self.generator.synthesis(ws)


class Editor(OnGenerator):
    """Base of the editors.

    A subclass also has the options `judge` and `attributes`, as `StyleFunction` has, and `edit`
    and `noise_dim`.
    """

    task = "editor"
    learns_from = "codes"

    @property
    def attribute_names(self) -> list[str]:
        return self.hparams.attributes.split(",") if self.hparams.attributes else []

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if not (path := self.hparams.judge):
            raise ValueError("judge: expected a checkpoint of AttributeClassifier, got none")
        judge = load(path).to(self.device)
        names = getattr(judge, "attribute_names", None)
        if names != self.attribute_names or judge.img_size != self.img_size:
            raise ValueError(
                f"judge: expected the attributes {self.attribute_names} at {self.img_size} px, got "
                f"{names} at {judge.hparams.get('img_size')} px; set --model.attributes, or give "
                "an AttributeClassifier of these"
            )
        # In a tuple, so that the judge stays out of checkpoints, DDP and optimizers.
        self._judges = (judge,)

    def codes(self, batch: dict[str, Tensor]) -> Tensor:
        """The codes (N, L, D) of a batch: `ws` itself, or truncated codes of the latents `z`."""
        if not {"ws", "z"} & set(batch):
            got = ", ".join(batch)
            raise ValueError(f"data: expected latents `z` or codes `ws`, got {got}; --data=Codes")
        if "ws" not in batch:
            return self.generator.mapping(batch["z"], psi=self.hparams.psi)
        ws, rows, width = batch["ws"], self.rows, self.width
        if ws.shape[1:] != (rows, width):
            raise ValueError(
                f"ws: expected codes (N, {rows}, {width}) of the generator, got "
                f"{tuple(ws.shape)}; give the file of codes that were made with it"
            )
        return ws

    def labels(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, H) -> attributes (N, K) in {0, 1}, predicted by the judge."""
        return (self._judges[0].logits(x) > 0).float()

    # ---- inference: no gradients, full precision ------------------------------------------------

    def check_request(self, ws: Tensor, d: Tensor, z: Tensor | None) -> None:
        """Checks the arguments of `edit`."""
        N, Z = len(ws), self.noise_dim
        rows, width, K = self.rows, self.width, len(self.attribute_names)
        got = [None if t is None else tuple(t.shape) for t in (ws, d, z if Z else None)]
        if got != [(N, rows, width), (N, K), (N, Z) if Z else None]:
            raise ValueError(
                f"edit: expected codes (N, {rows}, {width}), attributes (N, {K}) and noise "
                f"(N, {Z}), got {', '.join(map(str, got))}"
            )
        if not ((d == 0) | (d == 1)).all():
            raise ValueError(f"d: expected attributes in {{0, 1}}, got {d.unique().tolist()}")

    def encode(self, x: Tensor, steps: int = 500) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> codes (N, L, D) whose images are nearest to them.

        Found by optimisation in the space of the edits; takes seconds an image and shows a progress
        bar. See `gen.methods.projector`.
        """
        self.checked(x)
        with full_precision(self.device):
            return project(self.generator, x, steps, self.hparams.get("space", "W+")).ws

    def translate(self, x: Tensor, d: Tensor, z: Tensor, steps: int = 500) -> Tensor:
        """Images (N, 3, H, H) -> images edited to attributes d (N, K) with noise z (N, Z)."""
        return self.synthesize(self.edit(self.encode(x, steps), d, z))

    def interpolate(
        self, ws: Tensor, d_a: Tensor, d_b: Tensor, z: Tensor, frames: int = 20
    ) -> Tensor:
        """Images (N, T, 3, H, H) on a straight line of codes, with both ends.

        The ends are the codes (N, L, D) edited to attributes d_a and d_b (N, K), both with noise z
        (N, Z).
        """
        a, b = (self.edit(ws, d, z) for d in (d_a, d_b))
        return path(self.synthesize, a, b, alphas(frames, "strict"))


def build(sizes: dict[str, Any]) -> Generator:
    """A generator with random weights; `sizes` are its options by name."""
    return Generator(**sizes | {"c_dim": 0, "clamp": sizes["clamp"] or None})


def rows_of(text: str, names: Sequence[str], count: int) -> Tensor:
    """`cat:0-3,spots:4-7` -> (K, L) bool: rows of each attribute; all rows if it is not named.

    Raises:
        ValueError: the text has another form, or names an unknown attribute or row.
    """
    mask = torch.zeros(len(names), count, dtype=torch.bool)
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"(.+):(\d+)-(\d+)", part, re.ASCII)
        if not found or found[1] not in names or not int(found[2]) <= int(found[3]) < count:
            known = f"NAME:FIRST-LAST, a name of {', '.join(names)}, rows of 0 .. {count - 1}"
            raise ValueError(f"rows: expected {known}, got {part!r}")
        mask[names.index(found[1]), int(found[2]) : int(found[3]) + 1] = True
    mask[~mask.any(1)] = True
    return mask

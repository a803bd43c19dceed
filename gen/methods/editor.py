"""The base of editors of a generator's codes: the frozen generator, the judge of its images.

Letters in shapes: N batch, T frames, L rows of a code, D its width, K attributes, Z noise, H image
side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from gen import checkpoint as files
from gen.devices import full_precision
from gen.files import WeightsError
from gen.interpolation import alphas, path
from gen.methods.base import Method, inference
from gen.methods.loading import load
from gen.methods.projector import project
from gen.networks.stylegan2 import Generator

SHAPE = ("img_size", "z_dim", "w_dim", "map_layers", "channel_base", "channel_max", "clamp")


class Editor(Method):
    """Base of the editors. A subclass has the options `generator`, `judge`, `attributes`, `psi` and
    those in `SHAPE`, as `StyleFunction`, calls `build_generator`, and has `edit`, `noise_dim`, and
    the `bounds` of its options, {name: (lowest, highest)}.
    """

    learns_from = "codes"
    bounds: dict[str, tuple[float, float]]

    def build_generator(self) -> None:
        """Makes the frozen generator; `start` fills it, or the checkpoint of this method."""
        h = self.hparams
        for name, (low, high) in self.bounds.items():
            if not low <= h[name] <= high:
                raise ValueError(f"expected {name} in {low} .. {high}, got {h[name]}")
        self.img_size, self.latent_dim = h.img_size, h.z_dim
        widths = h.w_dim, h.map_layers, h.channel_base, h.channel_max
        self.generator = Generator(h.img_size, h.z_dim, 0, *widths, h.clamp or None)
        self.generator.requires_grad_(False)

    @property
    def attribute_names(self) -> list[str]:
        return self.hparams.attributes.split(",") if self.hparams.attributes else []

    def load_init(self) -> None:
        if not self.hparams.init_from:
            self.load_generator(self.hparams.generator)
        super().load_init()

    def load_generator(self, path: str) -> None:
        """Fills the generator with the averaged one of a checkpoint of `StyleGAN2`."""
        if not path:
            raise ValueError(
                "generator: expected a checkpoint of StyleGAN2, got none; give its path"
            )
        found = files.read(path)
        expected = {key: self.hparams[key] for key in SHAPE} | {"conditional": False}
        got = {key: found.hparams.get(key, 0.0) for key in expected}
        if found.method != "StyleGAN2" or got != expected:
            raise WeightsError(
                f"{path}: expected a StyleGAN2 with {expected}, got a {found.method} "
                f"with {got}; give this method the options of that file, or it another generator"
            )
        averaged = {k.removeprefix("ema.module."): v for k, v in found.state.items()}
        prefix = "generator."
        state = {k.removeprefix(prefix): v for k, v in averaged.items() if k.startswith(prefix)}
        self.generator.load_state_dict(state)
        rank_zero_info(f"generator: took over {path}")

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
        # Measuring instruments, not parts: in a tuple, so out of checkpoints, DDP and optimizers.
        self._judges = (judge,)

    def codes(self, batch: dict[str, Tensor]) -> Tensor:
        """The codes (N, L, D) of a batch: `ws` as they are, or of the latents `z`, truncated."""
        if not {"ws", "z"} & set(batch):
            got = ", ".join(batch)
            raise ValueError(f"data: expected latents `z` or codes `ws`, got {got}; --data=Codes")
        if "ws" not in batch:
            return self.generator.mapping(batch["z"], psi=self.hparams.psi)
        ws, rows, width = batch["ws"], self.generator.mapping.rows, self.hparams.w_dim
        if ws.shape[1:] != (rows, width):
            raise ValueError(
                f"ws: expected codes (N, {rows}, {width}) of the generator, got "
                f"{tuple(ws.shape)}; give the file of codes that were made with it"
            )
        return ws

    def labels(self, x: Tensor) -> Tensor:
        """The attributes that the judge sees on images (N, 3, H, H): (N, K) in {0, 1}."""
        return (self._judges[0].logits(x) > 0).float()

    # ---- inference: no gradients, full precision ------------------------------------------------

    def check_request(self, ws: Tensor, d: Tensor, z: Tensor | None) -> None:
        """Checks the arguments of `edit`."""
        N, Z = len(ws), self.noise_dim
        rows, width, K = self.generator.mapping.rows, self.hparams.w_dim, len(self.attribute_names)
        got = [None if t is None else tuple(t.shape) for t in (ws, d, z if Z else None)]
        if got != [(N, rows, width), (N, K), (N, Z) if Z else None]:
            raise ValueError(
                f"edit: expected codes (N, {rows}, {width}), attributes (N, {K}) and noise "
                f"(N, {Z}), got {', '.join(map(str, got))}"
            )
        if not ((d == 0) | (d == 1)).all():
            raise ValueError(f"d: expected attributes in {{0, 1}}, got {d.unique().tolist()}")

    @inference
    def map_latents(self, z: Tensor, psi: float | None = None) -> Tensor:
        """Latents of the generator (N, z_dim) -> codes (N, L, D), truncated as in training."""
        return self.generator.mapping(z, psi=self.hparams.psi if psi is None else psi)

    @inference
    def synthesize(self, ws: Tensor) -> Tensor:
        """Codes (N, L, D) -> images (N, 3, H, H), unbounded."""
        return self.generator.synthesis(ws)

    def encode(self, x: Tensor, steps: int = 500) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> the codes (N, L, D) that come nearest to them.

        In the space that is edited, by optimisation, which takes seconds an image and shows a bar:
        see `gen.methods.projector`.
        """
        self.checked(x)
        with full_precision(self.device):
            return project(self.generator, x, steps, self.hparams.space).ws

    def translate(self, x: Tensor, d: Tensor, z: Tensor, steps: int = 500) -> Tensor:
        """Images (N, 3, H, H) -> the same with the attributes d (N, K), by noise z (N, Z)."""
        return self.synthesize(self.edit(self.encode(x, steps), d, z))

    def interpolate(
        self, ws: Tensor, d_a: Tensor, d_b: Tensor, z: Tensor, frames: int = 20
    ) -> Tensor:
        """Images (N, T, 3, H, H) on a straight line of codes, both ends shown.

        From the codes (N, L, D) edited to attributes d_a (N, K), to those edited to d_b, both by
        noise z (N, Z).
        """
        a, b = (self.edit(ws, d, z) for d in (d_a, d_b))
        return path(self.synthesize, a, b, alphas(frames, "strict"))


def rows_of(text: str, names: Sequence[str], count: int) -> Tensor:
    """`cat:0-3,spots:4-7` -> (K, L) bool: the rows of each attribute; all if it is not named.

    Raises:
        ValueError: not of this form, an attribute that is none, or rows that are not there.
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

"""Measures the outputs of a translator, with one function for each group of values.

A function takes the outputs for a block of sources and yields (name, protocol, one number per
source, better). It has the name of its group in `--metrics`, in the ledger and in the rows.

Letters in shapes: N sources, K outputs of each, H image side.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gen.evaluation.results import HIGHER, LOWER, NEITHER, Values
from gen.evaluation.translators.plan import Source
from gen.metrics.accuracy import domain_accuracy
from gen.metrics.identity import identity_similarity
from gen.metrics.nearest import NEAREST_PX
from gen.metrics.texture import texture_scores
from gen.metrics.translation import protocol_names, translation_scores

UNCHANGED = "the source left as it is"


class Outputs(NamedTuple):
    """The outputs for N sources, and the images to compare them with."""

    run: Any  # `Measurement`: the method, the judges, LPIPS, the nearest training images
    guide: str  # "latent" or "reference"
    block: Sequence[Source]
    x: Tensor  # sources (N, 3, H, H)
    y: Tensor  # their domains (N,)
    made: Tensor  # outputs (N, K, 3, H, H) in their target domains, clamped as in saved images

    @property
    def protocol(self) -> str:
        return f"{self.made.shape[1]} {self.guide}-guided outputs a source, clamped as when saved"

    @property
    def targets(self) -> list[int]:
        return [source.target for source in self.block]

    def twins(self) -> tuple[Tensor, Tensor]:
        """True targets (N, 3, H, H), and a mask (N,) of missing targets, replaced by the source."""
        return self.run.twins(self.block, self.x, self.targets)

    def nearest(self) -> Tensor | None:
        """Training image of the target domain that is nearest to each source, (N, 3, H, H)."""
        return self.run.nearest and self.run.nearest(self.x, self.targets)

    def named(self, name: str, shared: tuple[str, str] | None) -> tuple[str, str] | None:
        """Name and protocol. A value `shared` by both guides, (prefix, protocol), is named once."""
        if not shared:
            return f"{self.guide}/{name}", self.protocol
        return (f"{shared[0]}/{name}", shared[1]) if self.guide == "latent" else None


GROUPS: dict[str, Callable[[Outputs], Values]] = {}


def of_outputs(function: Callable[[Outputs], Values]) -> Callable[[Outputs], Values]:
    """Registers a function as a group of values."""
    GROUPS[function.__name__] = function
    return function


@of_outputs
def translation(o: Outputs) -> Values:
    """Diversity, content, and the error to the twin (NaN for a source without a twin)."""
    true, missing = o.twins()
    if missing.all():
        scores = translation_scores(o.run.lpips, o.x, o.made)
    else:
        scores = translation_scores(o.run.lpips, o.x, o.made, true, o.nearest())
    names = protocol_names(o.made.shape[1], o.run.net)
    near = f"training image nearest to the source at {NEAREST_PX} px"
    shared = {"unchanged": ("source", UNCHANGED), "nearest": ("nearest", near)}
    for key, value in scores.items():
        kind, _, how = key.partition("_")
        if kind not in ("diversity", "content"):
            value = value.masked_fill(missing, torch.nan)
        name = names[key].replace(kind, "paired") if kind in shared else names[key]
        better = HIGHER if kind == "diversity" or how == "ssim" else LOWER
        if found := o.named(name, shared.get(kind)):
            yield *found, value, better


@of_outputs
def accuracy(o: Outputs) -> Values:
    """Domain accuracy of the outputs, of the sources (as their own domain and as the target
    domain), and of the twins."""
    target = torch.tensor(o.targets, device=o.x.device)
    judge, (true, missing) = o.run.judges.classifier, o.twins()
    as_wanted = "the sources as they are, wanted as their target domains"
    of_twins = domain_accuracy(judge, true, target).masked_fill(missing, torch.nan)
    for value, shared in (
        (domain_accuracy(judge, o.made, target), None),
        (
            domain_accuracy(judge, o.x, o.y),
            ("real", "the sources themselves, held out from training"),
        ),
        (domain_accuracy(judge, o.x, target), ("source", as_wanted)),
        (of_twins, ("twin", "the true targets, held out from training")),
    ):
        if found := o.named(f"accuracy_{judge.hparams.model_name}", shared):
            yield *found, value, HIGHER


@of_outputs
def texture(o: Outputs) -> Values:
    """Texture compared with the twin, or without a twin with the nearest training image."""
    real, missing = o.twins()
    if missing.any() and o.run.nearest:
        real = torch.where(missing[:, None, None, None], o.nearest(), real)
        missing = torch.zeros_like(missing)
    scores = texture_scores(o.made, o.x, real)
    scores["detail_unchanged"] = texture_scores(o.x[:, None], o.x, real)["detail_ratio"]
    target = "the true target, without one the nearest training image"
    shared = {"real": ("twin", target), "unchanged": ("source", UNCHANGED)}
    for key, value in scores.items():
        where, _, what = key.partition("_")
        ratio = what in ("ratio", "unchanged")
        of = "of the whole image" if where == "detail" else "where source and true target are flat"
        how = f"{of}, over that of {target}" if ratio else f"levels of 255, {of}"
        better = LOWER if where != "detail" and not ratio else NEITHER
        if found := o.named(f"texture_{where}" + "_ratio" * ratio, shared.get(what)):
            name, protocol = found
            value = value.masked_fill(missing, torch.nan)
            yield name, f"{protocol}, {how}", value, better


@of_outputs
def identity(o: Outputs) -> Values:
    """Cosine between the face descriptors of source and output."""
    value = identity_similarity(o.run.judges.arcface, o.x, o.made)
    yield f"{o.guide}/identity_irse50", o.protocol, value, HIGHER

"""Warnings about values of an evaluation that are meaningless or worse than doing nothing."""

import re
from collections.abc import Iterator, Mapping, Sequence

from gen.metrics.controls import beside

STILL = 0.03  # LPIPS of the two ends of a path; people see hardly any change below
CONTROL = re.compile(r"\b(source|dissolve|nearest|twins|real)$")  # ends of paths of no model
UNSURE = 0.7  # accuracy on real images; a classifier is too unreliable below


def doubts(rows: Sequence[Mapping]) -> list[str]:
    """Warnings about the rows (with `metric` and `value`) of a translator's evaluation."""
    values = {row["metric"]: row["value"] for row in rows}
    return [*standing(rows), *_ghosts(values), *_idle(values), *_judge(values)]


def standing(rows: Sequence[Mapping]) -> list[str]:
    """One warning about all paths that hardly move, whose smoothness means nothing; or none."""
    far = [
        f"{where} {row['value']:.4f}"
        for row in rows
        for where, _, key in [row["metric"].rpartition("/")]
        if key.startswith("direct_") and row["value"] < STILL and not CONTROL.search(where)
    ]
    what = "Smoothness means nothing here: outputs hardly differ. Of paths that travel less than "
    what += f"{STILL} in LPIPS, PS, straightness and the sizes of steps say nothing: "
    return [f"{what}{', '.join(far)}."] if far else []


def _ghosts(values: Mapping[str, float]) -> Iterator[str]:
    """Warns of paths that are no better than a cross-dissolve of their own ends."""
    for name, own in beside(values).of.items():
        if name.startswith("inter/latent/gradual_") and "cross-dissolve" in own:
            gradual, mixed = values[name], values[own["cross-dissolve"]]
            if gradual <= mixed:
                yield (
                    f"{name}: {gradual:.3f}, no better than {mixed:.3f} of a cross-dissolve of the "
                    "same two ends: the frames in between are no more real than ghosts."
                )


def _idle(values: Mapping[str, float]) -> Iterator[str]:
    """Warns of outputs that are worse than the unchanged source."""
    for name, own in beside(values).of.items():
        if re.match(r"(fidelity/)?\w+/(paired_lpips|kd)_", name) and "source unchanged" in own:
            value, source = values[name], values[own["source unchanged"]]
            if value >= source:
                than = f"the source left unchanged, {source:.4f}"
                yield f"{name}: {value:.4f}, no better than {than}."


def _judge(values: Mapping[str, float]) -> Iterator[str]:
    """Warns of accuracy by a classifier that is unreliable on real images."""
    for name, value in values.items():
        if name.startswith("real/accuracy") and value < UNSURE:
            yield f"{name}: {value:.3f}, so the accuracies by this classifier say little."

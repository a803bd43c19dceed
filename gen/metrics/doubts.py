"""Warnings about values of an evaluation that are meaningless or worse than doing nothing."""

from collections.abc import Iterator, Mapping, Sequence

STILL = 0.03  # LPIPS of the two ends of a path; people see hardly any change below
UNSURE = 0.7  # accuracy on real images; a classifier is too unreliable below


def doubts(rows: Sequence[Mapping]) -> list[str]:
    """Warnings about the rows (with `metric` and `value`) of a translator's evaluation."""
    values = {row["metric"]: row["value"] for row in rows}
    return [*_standing(values), *_ghosts(values), *_idle(values), *_judge(values)]


def _standing(values: Mapping[str, float]) -> Iterator[str]:
    """Warns of smoothness values of paths that hardly move."""
    for name, direct in values.items():
        where, _, key = name.rpartition("/")
        if key.startswith("direct_") and direct < STILL and "source" not in where.split("/"):
            yield (
                f"{where}: the paths travel {direct:.4f} in LPIPS, less than {STILL}: hardly "
                "anything changes, so PS, straightness and the sizes of steps mean nothing."
            )


def _ghosts(values: Mapping[str, float]) -> Iterator[str]:
    """Warns of paths that are no better than a cross-dissolve of their own ends."""
    for name, gradual in values.items():
        where, _, key = name.rpartition("/")
        mixed = values.get(f"inter/dissolve/{key}")
        if where == "inter/latent" and key.startswith("gradual_") and mixed is not None:
            if gradual <= mixed:
                yield (
                    f"{name}: {gradual:.3f}, no better than {mixed:.3f} of a cross-dissolve of the "
                    "same two ends: the frames in between are no more real than ghosts."
                )


def _idle(values: Mapping[str, float]) -> Iterator[str]:
    """Warns of outputs that are worse than the unchanged source."""
    for name, value in values.items():
        guide, _, key = name.rpartition("/")
        source = None
        if guide in ("latent", "reference") and key.startswith("paired_lpips"):
            source = values.get(f"source/{key}")
        elif guide in ("fidelity/latent", "fidelity/reference") and key.startswith("kd_"):
            backbone = "_".join(key.split("_")[:2])
            source = next(
                (v for n, v in values.items() if n.startswith(f"fidelity/source/{backbone}")), None
            )
        if source is not None and value >= source:
            yield f"{name}: {value:.4f}, no better than the source left unchanged, {source:.4f}."


def _judge(values: Mapping[str, float]) -> Iterator[str]:
    """Warns of accuracy by a classifier that is unreliable on real images."""
    for name, value in values.items():
        if name.startswith("real/accuracy") and value < UNSURE:
            yield f"{name}: {value:.3f}, so the accuracies by this classifier say little."

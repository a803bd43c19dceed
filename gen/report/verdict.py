"""The verdict of a report: sentences that set values beside those of doing nothing."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

MARKS = {"better": "✓", "worse": "✗", "unclear": "≈"}


class Trial(NamedTuple):
    """A value and what it must beat; names are patterns of `metric`, `*` for any text."""

    what: str
    value: str
    than: str  # the trivial alternative, in words
    baseline: str
    ideal: str = ""  # name of what real data score


TRIALS = (
    Trial(
        "Translations by latent, kernel distance to the target domain",
        "fidelity/latent/kd_*", "sources left unchanged", "fidelity/source/kd_*",
        "fidelity/real/kd_*",
    ),
    Trial(
        "Translations by latent, LPIPS to the true images",
        "latent/paired_lpips_*", "sources left unchanged", "source/paired_lpips_*",
    ),
    Trial(
        "Translations by reference, LPIPS to the true images",
        "reference/paired_lpips_*", "sources left unchanged", "source/paired_lpips_*",
    ),
    Trial(
        "Frames between two domains, gradual and real",
        "inter/latent/gradual_*", "a cross-dissolve", "inter/dissolve/gradual_*",
    ),
    Trial(
        "Edits, attributes as wanted", "edits/accuracy_joint", "images left unchanged",
        "unchanged/accuracy_joint",
    ),
    Trial(
        "Attention, share on the object", "*/mass_on_object_alpha", "flat attention",
        "*/mass_on_object_flat_alpha",
    ),
    Trial(
        "Objects that nobody drags, error in the last frame, px", "user/fde_px",
        "nothing that moves", "still/fde_px",
    ),
    Trial(
        "The same from two frames", "user_previous/fde_px", "constant velocity, which sees two too",
        "velocity/fde_px",
    ),
    Trial(
        "Reactions to another drag, error, px", "user/change_px_velocity", "no reaction",
        "still/change_px_velocity",
    ),
    Trial(
        "Reactions to a removed object, error, px", "user/change_px_removed", "no reaction",
        "still/change_px_removed",
    ),
    Trial("Frames, PSNR, dB", "user/psnr", "the first frame, repeated", "copy/psnr"),
)  # fmt: skip


def verdict(rows: Sequence[Mapping]) -> list[tuple[str, str]]:
    """The judgements `better`, `worse` or `unclear`, each with its sentence, for rows of an
    evaluation.

    A value is better or worse than its baseline if its 95 % interval is; values without an interval
    are compared as they are. Values whose baseline was not measured are left out.
    """
    return [found for trial in TRIALS if (found := _judged(trial, rows))]


def _judged(trial: Trial, rows: Sequence[Mapping]) -> tuple[str, str] | None:
    row, other = _first(trial.value, rows), _first(trial.baseline, rows)
    if row is None or other is None or row.get("better") not in ("higher", "lower"):
        return None
    sign = 1 if row["better"] == "higher" else -1
    low, high = sorted(sign * v for v in row.get("ci95") or 2 * [row["value"]])
    least = sign * other["value"]
    judgement = "better" if low > least else "worse" if high < least else "unclear"
    words = {"better": "better than", "worse": "no better than", "unclear": "not clearly unlike"}
    text = (
        f"{trial.what}: {row['value']:.3g}, {words[judgement]} {trial.than}, {other['value']:.3g}"
    )
    if trial.ideal and (real := _first(trial.ideal, rows)):
        text += f" (real data: {real['value']:.3g})"
    return judgement, f"{text}."


def _first(pattern: str, rows: Sequence[Mapping]) -> Mapping | None:
    return next(_matching(pattern, rows), None)


def _matching(pattern: str, rows: Sequence[Mapping]) -> Iterator[Mapping]:
    """Rows of means, not of single pairs of domains."""
    return (r for r in rows if fnmatchcase(r["metric"], pattern) and ">" not in r["metric"])

"""The verdict of a report: sentences that set values beside those of doing nothing."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from gen.metrics.controls import beside
from gen.metrics.doubts import standing

MARKS = {"better": "✓", "worse": "✗", "unclear": "≈"}


class Trial(NamedTuple):
    """A value and what it must beat."""

    what: str
    value: str  # pattern of `metric`, `*` for any text
    than: str  # the trivial alternative, in words
    column: str  # of `gen.metrics.controls`


TRIALS = (
    Trial(
        "Translations by latent, kernel distance to the target domain",
        "fidelity/latent/kd_*", "sources left unchanged", "source unchanged",
    ),
    Trial(
        "Translations by latent, LPIPS to the true images",
        "latent/paired_lpips_*", "sources left unchanged", "source unchanged",
    ),
    Trial(
        "Translations by reference, LPIPS to the true images",
        "reference/paired_lpips_*", "sources left unchanged", "source unchanged",
    ),
    Trial(
        "Frames between two domains, gradual and real",
        "inter/latent/gradual_*", "a cross-dissolve", "cross-dissolve",
    ),
    Trial(
        "Edits, attributes as wanted",
        "edits/accuracy_joint", "images left unchanged", "source unchanged",
    ),
    Trial(
        "Attention, share on the object",
        "*/mass_on_object_alpha", "flat attention", "flat attention",
    ),
    Trial(
        "Objects that nobody drags, error in the last frame, px",
        "user/fde_px", "nothing that moves", "nothing moves",
    ),
    Trial(
        "The same from two frames",
        "user_previous/fde_px", "constant velocity, which sees two too", "constant velocity",
    ),
    Trial(
        "Reactions to another drag, error, px",
        "user/change_px_velocity", "no reaction", "nothing moves",
    ),
    Trial(
        "Reactions to a removed object, error, px",
        "user/change_px_removed", "no reaction", "nothing moves",
    ),
    Trial("Frames, PSNR, dB", "user/psnr", "the first frame, repeated", "nothing moves"),
)  # fmt: skip


def verdict(rows: Sequence[Mapping]) -> list[tuple[str, str]]:
    """The judgements `better`, `worse` or `unclear`, each with its sentence, for rows of an
    evaluation; first of all, that smoothness means nothing, if it does not.

    A value is better or worse than its baseline if its 95 % interval is; values without an interval
    are compared as they are. Values whose baseline was not measured are left out.
    """
    known = {row["metric"]: row for row in rows}
    of = beside(known).of
    found = [("worse", text) for text in standing(rows)]
    for trial in TRIALS:
        name = next((n for n in known if fnmatchcase(n, trial.value) and ">" not in n), "")
        if trial.column in of.get(name, {}) and known[name].get("better") in ("higher", "lower"):
            values = {column: known[row]["value"] for column, row in of[name].items()}
            found.append(_judged(trial, known[name], values))
    return found


def _judged(trial: Trial, row: Mapping, values: Mapping[str, float]) -> tuple[str, str]:
    sign = 1 if row["better"] == "higher" else -1
    low, high = sorted(sign * v for v in row.get("ci95") or 2 * [row["value"]])
    least = sign * values[trial.column]
    judgement = "better" if low > least else "worse" if high < least else "unclear"
    words = {"better": "better than", "worse": "no better than", "unclear": "not clearly unlike"}
    text = f"{trial.what}: {row['value']:.3g}, {words[judgement]} {trial.than}, "
    text += f"{values[trial.column]:.3g}"
    text += f" (real data: {values['real']:.3g})" if "real" in values else ""
    return judgement, f"{text}."

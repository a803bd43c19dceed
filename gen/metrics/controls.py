"""Controls: what real images score, and what doing nothing scores, beside the values of a method.

Evaluators write them as rows of their own; tables show them as columns, see `beside`.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

GUIDED = r"(inter/|middle/|fidelity/)?(?:latent|reference)(?:_psi[\d.]+)?/(.+)"
VIDEO = r"(?:nobody|user|oracle|no_edges)[^/]*/(.+)"
MAP = r"(.+)_(alpha|voc)"

# column, metrics that have it, and the metrics that may fill it: the first that was measured
CONTROLS = (
    ("real", GUIDED, r"\1twin/\2", r"\1real/\2"),
    ("real", r"((?:f|k)i?d_.+|precision_.+|recall_.+)", r"real/\1"),
    ("real", VIDEO, r"real/\1"),
    ("halves of real", GUIDED, r"\1halves/\2"),
    ("source unchanged", GUIDED, r"\1source/\2"),
    ("source unchanged", r"edits/(.+)", r"unchanged/\1"),
    ("nearest real", r"(?:latent|reference)/(.+)", r"nearest/\1"),
    ("nearest real", r"inter/latent/(.+)", r"inter/nearest/\1"),
    ("cross-dissolve", r"(inter|middle)/latent/(.+)", r"\1/dissolve/\2"),
    ("cross-dissolve of real", r"inter/(?:latent|reference)[^/]*/(.+)", r"inter/twins/\1"),
    ("nothing moves", VIDEO, r"still/\1", r"copy/\1"),
    ("nothing moves", r"removed/(.+)", r"copy_removed/\1"),
    ("constant velocity", VIDEO, r"velocity/\1"),
    ("warp by true flow", VIDEO, r"warp/\1"),
    ("flat attention", MAP, r"\1_flat_\2"),
    ("flat attention", r"(.+/jaccard)_t\d+(_.+)", r"\1_whole\2"),
    ("centred Gaussian", MAP, r"\1_centre_\2"),
    ("untrained", MAP, r"\1_untrained_\2"),
    ("untrained", r"(.+/norm_\w+)", r"\1_untrained"),
    ("projector alone", r"(?:encoded|refined)/(.+)", r"projected/\1"),
)


class Beside(NamedTuple):
    """Controls of the metrics of an evaluation."""

    columns: list[str]  # that any metric has, in the order of `CONTROLS`
    of: dict[str, dict[str, str]]  # metric -> column -> metric that fills it
    rows: set[str]  # metrics that fill a column, so that they need no row


def beside(metrics: Collection[str], among: Collection[str] | None = None) -> Beside:
    """Finds the controls of each metric in `among`, by default in the metrics themselves."""
    known = {_plain(name): name for name in (metrics if among is None else among)}
    of: dict[str, dict[str, str]] = {}
    for name in metrics:
        for column, pattern, *fill in CONTROLS:
            match = re.fullmatch(pattern, _plain(name))
            found = [known[row] for t in fill if match and (row := match.expand(t)) in known]
            if found:
                of.setdefault(name, {}).setdefault(column, found[0])
    seen = {column for own in of.values() for column in own}
    columns = [c for c in dict.fromkeys(row[0] for row in CONTROLS) if c in seen]
    return Beside(columns, of, {row for own in of.values() for row in own.values()})


def _plain(metric: str) -> str:
    """Name without the counts of images that differ between outputs and controls: subsets of KD,
    outputs a source, and the best of several outputs."""
    return re.sub(r"_s\d+(?=$|_\d+x$)|_\d+x$|(?<=paired_)best\d+_", "", metric)

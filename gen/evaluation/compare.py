"""Compares several models source by source, and along paths at equal distance.

A model that moves less takes shorter steps, so values of a path depend on the distance travelled.
The group `psi` gives, for each source and pair of ends, a curve of each value over `direct`.
Models are compared in the range of distances that all their curves cover.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from gen.metrics.translation import bootstrap

CURVE = re.compile(r"(intra|inter)/latent(?:_psi[\d.]+)?/(\w+)")
POINTS = 5  # points in the common range of distances
log = logging.getLogger(__name__)


class Difference(NamedTuple):
    """A value minus that of the first model, on the same sources."""

    mean: float
    low: float  # 95 % interval, bootstrap over sources
    high: float
    p: float  # two-sided Wilcoxon signed-rank test, not corrected for the number of metrics


class Compared(NamedTuple):
    """One metric of several models."""

    metric: str
    protocol: str
    better: str  # direction: higher, lower or none
    count: int  # sources, or pairs of domains, that all models were measured on
    values: list[float]
    differences: list[Difference]  # of all models but the first


def compare(runs: Sequence[Sequence[Mapping]], seed: int = 777) -> list[Compared]:
    """Compares evaluations that share their protocol.

    Args:
        runs: rows of `gen.evaluation.translators.evaluate`, of at least two models on the same
            images.
        seed: seed of the intervals.

    Returns:
        The metrics that all runs have with the same protocol, in the order of the first run, then
        those of `at_equal_distance`.

    Raises:
        ValueError: fewer than two runs, or no metric in common.
    """
    if len(runs) < 2:
        raise ValueError(f"compare: expected at least 2 runs, got {len(runs)}")
    equal = at_equal_distance(runs)
    runs = [[*rows, *more] for rows, more in zip(runs, equal, strict=True)]
    tables = [{(r["metric"], r["protocol"]): r["values"] for r in rows} for rows in runs]
    better = {r["metric"]: r.get("better", "none") for r in runs[0]}
    found = []
    for metric, protocol in tables[0]:
        if not all((metric, protocol) in table for table in tables):
            continue
        columns = [table[metric, protocol] for table in tables]
        units = sorted(set.intersection(*map(set, columns)))
        if len(units) < 2:
            continue  # nothing to test: a single pair of domains
        values = np.array([[column[u] for u in units] for column in columns])  # (runs, units)
        differences = []
        for d in values[1:] - values[0]:
            p = wilcoxon(d).pvalue if d.any() else 1.0
            differences.append(Difference(*bootstrap(d, seed), float(p)))
        means = values.mean(1).tolist()
        found.append(Compared(metric, protocol, better[metric], len(units), means, differences))
    if not found:
        raise ValueError("compare: expected metrics in common, got none: evaluate all alike")
    return found


def at_equal_distance(runs: Sequence[Sequence[Mapping]]) -> list[list[dict]]:
    """Computes rows of path values for each run, at distances that all runs reach.

    For each source, the values of a run at psi .5, 1 and 2 are points over the square root of the
    distance `direct`, joined by straight lines. A row holds the mean of 5 points, evenly spaced in
    the root, in the range that all runs reach. Sources without a common range are left out; a
    warning gives their number.

    Returns:
        One list for each run, of rows `inter/equal_distance/straight_t20_alex` and so on; empty
        where no run has values at several psi.
    """
    curves = [_curves(rows) for rows in runs]
    better = {r["metric"].rpartition("/")[2]: r.get("better", "none") for r in runs[0]}
    found: list[list[dict]] = [[] for _ in runs]
    for key in curves[0]:
        of_run = [curve.get(key, {}) for curve in curves]
        units = [
            unit
            for unit in sorted(set.intersection(*map(set, of_run)))
            if all(len(points[unit]) > 1 for points in of_run)
        ]
        values: list[dict[int, float]] = [{} for _ in runs]
        for unit in units:
            lines = [np.array(sorted(points[unit])) for points in of_run]  # each (psis, 2)
            low, high = max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines)
            if low <= high:
                at = np.linspace(low, high, POINTS)
                for of_unit, line in zip(values, lines, strict=True):
                    of_unit[unit] = float(np.interp(at, *line.T).mean())
        group, name, _ = key
        if units and len(values[0]) < len(units):
            apart = len(units) - len(values[0])
            what = f"{group}, {name}: {apart} of {len(units)} sources"
            log.warning("at equal distance: %s have no distance that all models travel", what)
        how = "latent-guided, psi 0.5 to 2, mean over the distances that all models travel"
        row = dict(metric=f"{group}/equal_distance/{name}", protocol=how, better=better[name])
        if values[0]:
            for rows, of_unit in zip(found, values, strict=True):
                rows.append(row | {"values": of_unit})
    return found


def _curves(rows: Sequence[Mapping]) -> dict[tuple[str, str, str], dict[int, list]]:
    """(group, name, protocols) -> source -> points (root of the distance, value) for each psi."""
    by_psi: dict[str, dict[str, Mapping]] = defaultdict(dict)
    for r in rows:
        if CURVE.fullmatch(r["metric"]):
            where, _, name = r["metric"].rpartition("/")
            by_psi[where][name] = r
    protocols: dict[tuple[str, str], str] = defaultdict(str)
    points: dict = defaultdict(lambda: defaultdict(list))
    for where, of_name in sorted(by_psi.items()):
        distance = next((r["values"] for n, r in of_name.items() if n.startswith("direct_")), {})
        for name, r in of_name.items():
            key = where.split("/")[0], name
            protocols[key] += r["protocol"]
            for unit in r["values"].keys() & distance.keys():
                points[key][unit].append((distance[unit] ** 0.5, r["values"][unit]))
    return {(*key, protocols[key]): of_unit for key, of_unit in points.items()}

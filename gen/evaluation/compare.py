"""Which of several models is better, source by source."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from gen.metrics.translation import bootstrap
from gen.page import Table, number


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
    count: int  # of the sources, or pairs of domains, that all models were measured on
    values: list[float]
    differences: list[Difference]  # of all models but the first


def compare(runs: Sequence[Sequence[Mapping]], seed: int = 777) -> list[Compared]:
    """Compares evaluations that share their protocol.

    Args:
        runs: rows of `gen.evaluation.evaluate`, of at least two models on the same images.
        seed: of the intervals.

    Returns:
        The metrics that all runs have with the same protocol, in the order of the first run.

    Raises:
        ValueError: fewer than two runs, or no metric in common.
    """
    if len(runs) < 2:
        raise ValueError(f"compare: expected at least 2 runs, got {len(runs)}")
    tables = [{(r["metric"], r["protocol"]): r["values"] for r in rows} for rows in runs]
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
        found.append(Compared(metric, protocol, len(units), means, differences))
    if not found:
        raise ValueError("compare: expected metrics in common, got none: evaluate all alike")
    return found


def to_table(found: Sequence[Compared], names: Sequence[str]) -> Table:
    """One column a model, and for each but the first its difference, interval and p."""
    heads = list(names)
    for name in names[1:]:
        heads += [f"{name} − {names[0]}", "95 % interval", "p"]
    lines = []
    for c in found:
        cells = [number(v) for v in c.values]
        for d in c.differences:
            cells += [f"{d.mean:+.4f}", f"{d.low:+.4f} – {d.high:+.4f}", f"{d.p:.2g}"]
        lines.append((c.metric, c.protocol, [*cells, f"{c.count:,}"]))
    return Table([*heads, "n"], lines)


def to_text(table: Table) -> str:
    """The same for a terminal."""
    grid = [["", *table.heads], *([metric, *cells] for metric, _, cells in table.lines)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for first, *rest in grid:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)

"""The table of a comparison of models, for a page and for a terminal."""

from collections.abc import Sequence

from gen.evaluation.compare import Compared
from gen.metrics.controls import beside
from gen.report.page import Table, number


def to_table(found: Sequence[Compared], names: Sequence[str]) -> Table:
    """One column per model; all but the first also have difference, interval and p.

    Controls that are equal for all models are columns, see `gen.metrics.controls`.
    """
    equal = {c.metric: c.values[0] for c in found if len(set(c.values)) == 1}
    columns, of, controls = beside([c.metric for c in found], equal)
    heads = list(names)
    for name in names[1:]:
        heads += [f"{name} − {names[0]}", "95 % interval", "p"]
    lines = []
    for c in (c for c in found if c.metric not in controls):
        cells = [number(v) for v in c.values]
        for d in c.differences:
            cells += [f"{d.mean:+.4f}", f"{d.low:+.4f} – {d.high:+.4f}", f"{d.p:.2g}"]
        own = of.get(c.metric, {})
        cells += [number(equal[own[column]]) if column in own else "" for column in columns]
        lines.append((c.metric, c.protocol, c.better, [*cells, f"{c.count:,}"]))
    return Table([*heads, *columns, "n"], lines)


def to_text(table: Table) -> str:
    """The comparison as text for a terminal."""
    grid = [["", *table.heads], *([metric, *cells] for metric, _, _, cells in table.lines)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for first, *rest in grid:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)

"""The table of a comparison of models, for a page and for a terminal."""

from collections.abc import Sequence

from gen.evaluation.compare import Compared
from gen.report.page import Table, number


def to_table(found: Sequence[Compared], names: Sequence[str]) -> Table:
    """One column per model; all but the first also have difference, interval and p."""
    heads = list(names)
    for name in names[1:]:
        heads += [f"{name} − {names[0]}", "95 % interval", "p"]
    lines = []
    for c in found:
        cells = [number(v) for v in c.values]
        for d in c.differences:
            cells += [f"{d.mean:+.4f}", f"{d.low:+.4f} – {d.high:+.4f}", f"{d.p:.2g}"]
        lines.append((c.metric, c.protocol, c.better, [*cells, f"{c.count:,}"]))
    return Table([*heads, "n"], lines)


def to_text(table: Table) -> str:
    """The comparison as text for a terminal."""
    grid = [["", *table.heads], *([metric, *cells] for metric, _, _, cells in table.lines)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for first, *rest in grid:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)

"""Tables of docs/export.md, made from lines of `benchmark.py export` in docs/export.jsonl."""

import json
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
LINES, PAGE = DOCS / "export.jsonl", DOCS / "export.md"
Line = dict  # what scripts/benchmark.py prints last


def read() -> list[Line]:
    """The lines, in the order of the page."""
    return [json.loads(line) for line in LINES.read_text("utf-8").splitlines()]


def add(line: Line) -> None:
    """Writes a line in the place of that of the same checkpoint, or last, and then the page."""
    found = {old["checkpoint"]: old for old in read()} | {line["checkpoint"]: line}
    LINES.write_text("".join(json.dumps(x) + "\n" for x in found.values()), "utf-8")
    PAGE.write_text(page([*found.values()]), "utf-8")


def page(lines: list[Line]) -> str:
    """The page with the tables of these lines."""
    text = PAGE.read_text("utf-8")
    for name, table in {"int8": int8(lines), "time": times(lines)}.items():
        begin, end = f"<!-- {name} of export.jsonl -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + table + end + rest.partition(end)[2]
    return text


def int8(lines: list[Line]) -> str:
    """Rows of graphs in int8."""
    rows = [["checkpoint", "graph", "LPIPS", "size", ""], ["---"] * 5]
    for line in lines:
        for row in line["int8"]:
            kept = "kept" if row["kept"] else "left out"
            rows.append(
                [
                    line["checkpoint"],
                    row["graph"],
                    f"{row['LPIPS']:.4f}",
                    f"{row['size']:.2f} x",
                    kept,
                ]
            )
    return markdown(rows)


def times(lines: list[Line]) -> str:
    """Rows of times."""
    rows = [["checkpoint", "graph", "threads", "eager ms", "compiled", "ONNX"], ["---"] * 6]
    for line in lines:
        for row in line["rows"]:
            ratios = (row[f"{way} x"] for way in ("compiled", "onnx"))
            shown = ("fails" if ratio is None else f"{ratio:.1f} x" for ratio in ratios)
            about = row["graph"], str(row["threads"]), f"{row['eager ms']:.1f}"
            rows.append([line["checkpoint"], *about, *shown])
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """A table of rows of the same length; a name is not repeated below itself."""
    last, lines = "", []
    for first, *rest in rows:
        lines.append(f"| {' | '.join(['' if first == last else first, *rest])} |\n")
        last = first
    return "".join(lines)

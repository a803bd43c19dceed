"""Prints the table of `style_function.sh`, from the folder of its runs."""

import sys
from pathlib import Path

import numpy as np

from gen.evaluation.statistics import mean_and_interval, read

SIDES = {
    "style_function": "style function",
    "linear_w": "linear in W",
    "linear_wplus": "linear in W+",
}


def table(out: Path, seeds: list[str]) -> str:
    """Means over seeds of every metric found, one column per side."""
    sides = [[read(out / f"{side}_{seed}" / "test.jsonl") for seed in seeds] for side in SIDES]
    names = dict.fromkeys(name for rows in sides for row in rows for name in row)
    lines = [f"{'':34}" + "".join(f"{title:>18}" for title in SIDES.values())]
    for name in names:
        cells = []
        for rows in sides:
            values = [row[name] for row in rows if name in row]
            whole = len(values) == len(seeds)
            cells.append(mean_and_interval(np.array(values)) if whole else "-")
        lines.append(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    out, *seeds = sys.argv[1:]
    print(f"{out}: seeds {', '.join(seeds)}; mean ± 95 % interval (Student's t over seeds)")
    print("edits/accuracy_joint is the question, with what it costs: single/kept and single/lpips;")
    print("linear directions know one way to edit: their diversity is 0")
    print(table(Path(out), seeds))


if __name__ == "__main__":
    main()

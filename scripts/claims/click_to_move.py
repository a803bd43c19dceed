"""Prints the table of `click_to_move.sh`, from the folder of its runs."""

import sys
from pathlib import Path

import numpy as np

from gen.evaluation.statistics import mean_and_interval, read

ACTING = ("collide", "push", "follow")


SIDES = ("with", "without")
OF_KIND = [
    *("user/fde_px_velocity", "user/fde_px_reacting", "user/fde_px", "still/fde_px_reacting"),
    *("still/fde_px", "velocity/fde_px", "user/change_px_velocity", "still/change_px_velocity"),
]


def table(out: Path, seeds: list[str]) -> str:
    """Means over seeds, with and without edges, and their difference and ratio for equal seeds."""
    sides = [[read(out / f"{s}_{seed}" / "test.jsonl") for seed in seeds] for s in SIDES]
    for row in (row for rows in sides for row in rows):
        row |= {f"{name}_acting": acting(row, name) for name in OF_KIND}
    single = [name for name in sides[0][0] if name.startswith(("user/", "still/", "velocity/"))]
    names = sorted(single, key=lambda name: not name.endswith("_acting"))
    lines = [f"{'':34}" + "".join(f"{title:>18}" for title in (*SIDES, "difference", "share"))]
    for name in names:
        a, b = (np.array([row[name] for row in rows]) for rows in sides)
        cells = [mean_and_interval(values) for values in (a, b, a - b)]
        cells.append(mean_and_interval(a / b) if (b > 0).all() else "-")
        lines.append(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def acting(row: dict[str, float], name: str) -> float:
    """Mean over collide, push and follow, which are equally frequent."""
    return float(np.mean([row[f"{name}_{kind}"] for kind in ACTING]))


def main() -> None:
    out, *seeds = sys.argv[1:]
    print(f"{out}: seeds {', '.join(seeds)}; mean ± 95 % interval (Student's t over seeds)")
    print(f"_acting: clips of {', '.join(ACTING)}. The question is user/fde_px_velocity_acting, of")
    print(
        "those that react when the dragged object goes another way; 0.8 was hoped for. Most others"
    )
    print("are bystanders, whose own speed no single frame shows: user/fde_px_acting")
    print(table(Path(out), seeds))


if __name__ == "__main__":
    main()

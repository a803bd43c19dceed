"""Makes the table and the pictures of `spatial_entropy.sh`, from the folder of its runs."""

import sys
from pathlib import Path

import numpy as np

from gen.commands import call
from gen.evaluation.statistics import mean_and_interval, read

METRICS = {
    "top1": "accuracy",
    "class_mean_top1": "accuracy, mean of classes",
    "jaccard_t60_alpha": "Jaccard, top 60 % of attention",
    "jaccard_t40_alpha": "Jaccard, top 40 %",
    "jaccard_whole_alpha": "Jaccard of every patch",
    "auroc_alpha": "area under ROC of attention",
    "mass_on_object_alpha": "attention on the object",
    "mass_on_object_flat_alpha": "that of flat attention",
    "spatial_entropy": "spatial entropy, nats",
    "components": "components a map",
}
SPLITS = {"val": "held-out emoji (val)", "test": "held-out emoji", "test_openmoji": "other vendor"}


def table(out: Path, seeds: list[str]) -> str:
    """Means over seeds, with and without the loss, and their difference for equal seeds."""
    sides = {s: [read(out / f"{s}_{k}" / "test.jsonl") for k in seeds] for s in ("with", "without")}
    lines = [f"{'':58}{'with':>16}{'without':>17}{'difference':>18}"]
    for split, place in SPLITS.items():
        for metric, name in METRICS.items():
            key = f"{split}/{metric}"
            if key in sides["with"][0]:
                a, b = (np.array([row[key] for row in rows]) for rows in sides.values())
                cells = "  ".join(mean_and_interval(values) for values in (a, b, a - b))
                lines.append(f"{place + ': ' + name:58}{cells}")
    return "\n".join(lines)


def main() -> None:
    out, data, *seeds = sys.argv[1:]
    out, data = Path(out), Path(data)
    print(f"{out}: seeds {', '.join(seeds)}; mean ± 95 % interval (Student's t over seeds)")
    print("accuracy of held-out emoji is the question; the other rows say why")
    print(table(out, seeds))
    emoji = sorted((data / "test").glob("*/noto_*.png"))
    chosen = emoji[:: max(1, len(emoji) // 6)][:6]
    picture = out / "attention.png"
    checkpoints = [f"{out}/{side}_{seeds[0]}/last.ckpt" for side in ("without", "with")]
    command = [sys.executable, "scripts/attention.py", *map(str, chosen), "--out", str(picture)]
    for checkpoint in checkpoints:
        command += ["--checkpoint", checkpoint]
    sys.exit(call(*command))


if __name__ == "__main__":
    main()

"""Measures a run of `smooth_i2i.sh`, or prints the table of all its runs."""

import argparse
import re
from pathlib import Path

import numpy as np

import gen
from gen.data import Heads
from gen.evaluation.compare import compare
from gen.evaluation.results import to_json
from gen.evaluation.statistics import mean_and_interval
from gen.evaluation.translators import Scorers, evaluate
from gen.files import write_atomic

GROUPS = ["inter", "psi", "middle", "translation", "accuracy", "fidelity"]
SHOWN = re.compile(  # the question, and possible costs
    r"inter/equal_distance/(straight|eq|ps|progress)_|inter/latent/(ps|straight|direct|gradual"
    r"|membership|realism)_|middle/latent/|latent/(accuracy|diversity|paired_lpips)_"
    r"|reference/accuracy_|fidelity/latent/kd_"
)
REFERENCE = "smooth"
REAL = 500  # training images per domain that outputs are compared with


def measure(run: Path, judge: Path, count: int) -> list[dict]:
    """Rows of a run, with values of single sources; measures only what its ledger lacks."""
    method = gen.load(run / "last.ckpt")
    data = Heads(img_size=method.img_size, train_images=REAL)
    judges = Scorers(data.train, classifier=gen.load(judge))
    files = dict(checkpoint=run / "last.ckpt", ledger=run / "values.jsonl")
    rows = evaluate(method, data.val, GROUPS, judges, max_sources=count, **files)
    write_atomic(run / "test.jsonl", to_json(rows).encode())
    return rows


def table(runs: dict[tuple[str, str, str], list[dict]]) -> str:
    """Differences between every arm and `smooth`, paired by seed, source and pair of ends.

    Args:
        runs: rows of each (generator, arm, seed).
    """
    lines = []
    for generator in dict.fromkeys(key[0] for key in runs):
        seeds = list(dict.fromkeys(s for g, a, s in runs if (g, a) == (generator, REFERENCE)))
        for arm in dict.fromkeys(a for g, a, _ in runs if g == generator and a != REFERENCE):
            found: dict[str, list[tuple[float, float]]] = {}  # value of smooth, difference
            both = [s for s in seeds if (generator, arm, s) in runs]
            for seed in both:
                pair = [runs[generator, a, seed] for a in (REFERENCE, arm)]
                for c in compare(pair):
                    if SHOWN.match(c.metric) and ">" not in c.metric:
                        row = c.values[0], c.differences[0].mean
                        found.setdefault(c.metric, []).append(row)
            lines.append(f"{generator} generator, {arm}: seeds {', '.join(both)}")
            for metric, values in found.items():
                if len(values) == len(both):
                    base, change = np.array(values).T
                    cells = f"{mean_and_interval(base):>18}{mean_and_interval(change):>18}"
                    lines.append(f"  {metric:52}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("count", type=int, help="number of sources")
    parser.add_argument("run", type=Path, nargs="?", help="default: the table of all runs")
    parser.add_argument("--seeds", nargs="+", default=[])
    args = parser.parse_args()
    judge = args.out / "judge" / "last.ckpt"
    if args.run:
        measure(args.run, judge, args.count)
        return
    runs = {}
    for file in sorted(args.out.glob("*_*_*/test.jsonl")):
        generator, rest = file.parent.name.split("_", 1)
        arm, _, seed = rest.rpartition("_")
        if seed in args.seeds:
            runs[generator, arm, seed] = measure(file.parent, judge, args.count)
    print(f"{args.out}: value of `{REFERENCE}`, and difference of each arm to it; mean ± 95 %")
    print("interval (Student's t over seeds). equal_distance is the question, the rest its price")
    print(table(runs))


if __name__ == "__main__":
    main()

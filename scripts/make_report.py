"""Writes RUN_DIR/report.html again: pictures of its checkpoint, its curves, metrics and config.

Metrics are taken from RUN_DIR/metrics.jsonl (`evaluate.py --out`), if it is there.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

import gen
from gen.commands import plain_errors
from gen.data import Domains, Heads
from gen.files import keep_inputs
from gen.networks.perceptual import LPIPS
from gen.report import build
from gen.weights import WeightsError, read_yaml


@plain_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, help="what `gen fit --out` wrote")
    parser.add_argument("--checkpoint", type=Path, help="default: RUN_DIR/last.ckpt")
    parser.add_argument("--data", help="a folder, a zip, or `heads`; default: that of the run")
    parser.add_argument("--shipped", type=Path, help="a checkpoint to show beside")
    args = parser.parse_args()
    print(report(args))


def report(args: argparse.Namespace) -> Path:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    root = args.data or data_of(args.run_dir / "config.yaml")
    keep_inputs((args.checkpoint, args.shipped, root), [args.run_dir / "report.html"], "RUN_DIR")
    method = gen.load(args.checkpoint or args.run_dir / "last.ckpt", device)
    size = dict(img_size=method.img_size)
    data = Heads(**size) if root == "heads" else Domains(root=root, **size)
    rows = args.run_dir / "metrics.jsonl"
    lines = rows.read_text().splitlines() if rows.exists() else []
    try:
        lpips = LPIPS("alex").to(device)
    except WeightsError as error:
        print(f"smoothness of the strips not measured: {error}", file=sys.stderr)
        lpips = None
    return build(
        method,
        data.val,
        args.run_dir,
        shipped=args.shipped and gen.load(args.shipped, device),
        metrics_rows=[json.loads(line) for line in lines if line],
        lpips=lpips,
    )


def data_of(config: Path) -> str:
    """What --data would say, from a saved config."""
    data = read_yaml(config)["data"]
    return "heads" if data["class_path"].endswith("Heads") else data["init_args"]["root"]


if __name__ == "__main__":
    main()

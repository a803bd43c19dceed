"""Writes RUN_DIR/report.html again: pictures of its checkpoint, its curves, metrics and config.

The page of a generator shows images; that of other methods says which command shows more.

Metrics are taken from RUN_DIR/metrics.jsonl (`evaluate.py --out`), if it is there.
"""

import argparse
import sys
from pathlib import Path

import torch

from gen.commands import METHOD, load_any, plain_errors
from gen.data import Domains, Heads
from gen.evaluation.results import from_json
from gen.files import WeightsError, keep_inputs
from gen.inference import translation
from gen.networks.perceptual import LPIPS
from gen.report import build, build_plain
from gen.runs import read_saved


@plain_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, help="what `gen fit --out` wrote")
    parser.add_argument("--checkpoint", type=Path, help="default: RUN_DIR/last.ckpt")
    parser.add_argument("--data", help="a folder, a zip, or `heads`; default: that of the run")
    parser.add_argument("--shipped", type=Path, help="a checkpoint to show beside")
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args()
    print(report(args))


def report(args: argparse.Namespace) -> Path:
    config = args.run_dir / "config.yaml"
    root = args.data or data_of(config)
    keep_inputs((args.checkpoint, args.shipped, root), [args.run_dir / "report.html"], "RUN_DIR")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    method = load_any(args.checkpoint or args.run_dir / "last.ckpt", device, args.method)
    rows = args.run_dir / "metrics.jsonl"
    metrics = from_json(rows) if rows.exists() else []
    if not hasattr(method, "encode_style"):
        return build_plain(method, args.run_dir, metrics_rows=metrics)
    if not root:
        raise ValueError(f"--data: expected a folder or a zip: {config} names none, got nothing")
    size = dict(img_size=method.img_size)
    data = Heads(**size) if root == "heads" else Domains(root=root, **size)
    shipped = args.shipped and load_any(args.shipped, device, args.method)
    if shipped:
        translation.check_translator(shipped, str(args.shipped))
    try:
        lpips = LPIPS("alex").to(device)
    except WeightsError as error:
        print(f"smoothness of the strips not measured: {error}", file=sys.stderr)
        lpips = None
    return build(
        method,
        data.val,
        args.run_dir,
        shipped=shipped,
        metrics_rows=metrics,
        lpips=lpips,
    )


def data_of(config: Path) -> str | None:
    """What --data would say, from a saved config; None: it names no data."""
    if not config.exists():
        return None
    saved = read_saved(config)
    return "heads" if saved.data.endswith("Heads") else saved.root or None


if __name__ == "__main__":
    main()

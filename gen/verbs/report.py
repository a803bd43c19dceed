"""Writes RUN_DIR/report.html again: pictures, curves, metrics and config of a run.

The page of a generator shows images; the pages of other methods name the command for pictures.

Metrics are read from RUN_DIR/metrics.jsonl (`gen evaluate --out`), if it exists.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gen import tasks
from gen.commands import METHOD, best_device, load_any, plain_errors
from gen.files import keep_inputs


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen report`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser("gen report", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="what `gen fit --out` wrote")
    parser.add_argument("--checkpoint", type=Path, help="default: RUN_DIR/last.ckpt")
    parser.add_argument("--data", help="a folder, a zip, or `heads`; default: that of the run")
    parser.add_argument("--shipped", type=Path, help="a checkpoint to show beside")
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    print(report(args))


def report(args: argparse.Namespace) -> Path:
    """Writes the page; returns its path."""
    from gen.evaluation.results import from_json
    from gen.report import write

    config = args.run_dir / "config.yaml"
    root = args.data or data_of(config)
    keep_inputs((args.checkpoint, args.shipped, root), [args.run_dir / "report.html"], "RUN_DIR")
    device = best_device()
    method = load_any(args.checkpoint or args.run_dir / "last.ckpt", device, args.method)
    rows = args.run_dir / "metrics.jsonl"
    metrics = from_json(rows) if rows.exists() else []
    shipped = args.shipped and load_any(args.shipped, device, args.method)
    if shipped:
        tasks.expect(shipped, "translator", source=str(args.shipped))
    return write(method, args.run_dir, metrics, root, shipped)


def data_of(config: Path) -> str | None:
    """Data of a saved config, in the form of --data; None if it names no data."""
    if not config.exists():
        return None
    from gen.runs import read_saved

    saved = read_saved(config)
    return "heads" if saved.data.endswith("Heads") else saved.root or None

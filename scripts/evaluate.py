"""Evaluates a checkpoint on a data set: one JSON line a metric, and a table."""

import argparse
import json
from pathlib import Path

import torch

import gen
from gen.data import Domains, Heads
from gen.evaluation import GROUPS, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="a .safetensors or .ckpt file")
    parser.add_argument("--data", required=True, help="a folder, a zip, or `heads`")
    parser.add_argument("--metrics", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--net", choices=("alex", "vgg"), default="alex", help="LPIPS network")
    parser.add_argument("--grid", choices=("released", "strict"), default="released")
    parser.add_argument("--max-sources", type=int, help="default: every validation image")
    parser.add_argument("--batch-size", type=int, default=16, help="sources at once")
    parser.add_argument("--seed", type=int, default=777)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ..")
    parser.add_argument("--out", type=Path, help="also write the JSON lines to this file")
    args = parser.parse_args()

    method = gen.load(args.checkpoint, args.device)
    if args.data == "heads":
        images = Heads(img_size=method.img_size).val
    else:
        images = Domains(root=args.data, img_size=method.img_size).val
    rows = evaluate(
        method,
        images,
        metrics=args.metrics,
        net=args.net,
        grid=args.grid,
        seed=args.seed,
        batch_size=args.batch_size,
        max_sources=args.max_sources,
        checkpoint=args.checkpoint,
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    print(lines)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(lines)
    width = max(len(row["metric"]) for row in rows)
    print(f"{'metric':{width}}  {'value':>8}  {'95 % interval':>17}  {'n':>5}  protocol")
    for r in rows:
        low, high = r["ci95"]
        interval = f"{low:.4f} .. {high:.4f}"
        numbers = f"{r['value']:8.4f}  {interval:>17}  {r['count']:5}"
        print(f"{r['metric']:{width}}  {numbers}  {r['protocol']}")


if __name__ == "__main__":
    main()

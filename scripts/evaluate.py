"""Evaluates a checkpoint on a data set: one JSON line a metric, and a table."""

import argparse
from pathlib import Path

import torch

import gen
from gen.data import Domains, Heads
from gen.evaluation import BASIC, GROUPS, Judges, evaluate
from gen.evaluation.rows import to_json, to_table
from gen.weights import write_atomic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="a .safetensors or .ckpt file")
    parser.add_argument("--data", required=True, help="a folder, a zip, or `heads`")
    parser.add_argument("--metrics", nargs="+", choices=("all", *GROUPS), default=BASIC)
    parser.add_argument("--classifier", help="checkpoint of a DomainClassifier, for accuracy")
    parser.add_argument("--arcface", help="IR-SE50 weights of your own, for identity")
    backbones = ("effnetlite0", "inception2048", "tvinception_stargan")
    parser.add_argument("--backbone", choices=backbones, default="effnetlite0", help="of fidelity")
    parser.add_argument("--net", choices=("alex", "vgg"), default="alex", help="LPIPS network")
    parser.add_argument("--grid", choices=("released", "strict"), default="released")
    parser.add_argument("--max-sources", type=int, help="default: every validation image")
    parser.add_argument("--batch-size", type=int, default=16, help="sources at once")
    parser.add_argument("--seed", type=int, default=777)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ..")
    parser.add_argument(
        "--out", type=Path, help="also write the JSON lines here; the same command then goes on"
    )
    args = parser.parse_args()

    method = gen.load(args.checkpoint, args.device)
    size = method.img_size
    data = Heads(img_size=size) if args.data == "heads" else Domains(args.data, img_size=size)
    classifier = gen.load(args.classifier, args.device) if args.classifier else None
    arcface = None
    if args.arcface:
        from gen.networks import arcface as network

        arcface = network.load(args.arcface).to(args.device)
    judges = Judges(data.train, args.backbone, classifier, arcface)
    groups = args.metrics
    if "all" in groups:
        groups = [group for group in GROUPS if group not in judges.missing()]
        for group in judges.missing():
            option = {"accuracy": "--classifier", "identity": "--arcface"}[group]
            print(f"left out: {group}, which needs {option} FILE")
    rows = evaluate(
        method,
        data.val,
        metrics=groups,
        judges=judges,
        net=args.net,
        grid=args.grid,
        seed=args.seed,
        batch_size=args.batch_size,
        max_sources=args.max_sources,
        checkpoint=args.checkpoint,
        ledger=args.out.with_suffix(".values.jsonl") if args.out else None,
    )
    if args.out:
        write_atomic(args.out, to_json(rows).encode())
    print(to_json(rows))
    print(to_table(rows))


if __name__ == "__main__":
    main()

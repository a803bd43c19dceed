"""What `scripts/quickstart.sh` runs once the package is installed; see there."""

import argparse
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

import gen
from gen.data import Domains, Heads
from gen.evaluation import check, evaluate
from gen.evaluation.rows import to_json
from gen.files import keep_inputs
from gen.networks.perceptual import LPIPS, fill_cache
from gen.report import build

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "checkpoints/smooth_i2i_emoji64.safetensors"
CONFIG = ROOT / "configs/smooth_i2i/emoji64_cpu.yaml"
STEPS_FINE_TUNED, STEPS_FROM_NOTHING = 200, 600
GENTLY = ("--model.lr", "5e-5")  # the shipped weights ended on a rate of 0
SOURCES = 24  # images evaluated


def run(*command: str | Path) -> int:
    print("$", *command, flush=True)
    return subprocess.run([str(part) for part in command], cwd=ROOT).returncode


def prepare() -> Domains | Heads:
    """The emoji data set, or without npm or its registry the embedded one."""
    code = run(sys.executable, "data_prep/emoji.py", "--size", "64", "--out", "data/emoji")
    if code == 0:
        return Domains("data/emoji", img_size=64)
    if code == 69:
        print("npm or its registry cannot be reached: going on with the embedded data set, Heads")
        return Heads(img_size=64)
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description="Install to pictures in ten minutes.")
    parser.add_argument("--steps", type=int, help="iterations of training")
    parser.add_argument("--data", type=Path, help="your images: a folder with a folder a domain")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--from-scratch", action="store_true", help="not from the shipped weights")
    args = parser.parse_args()

    try:
        keep_inputs([args.data], [args.out])
        data = Domains(str(args.data.resolve()), img_size=64) if args.data else prepare()
        trained = SimpleNamespace(domains=data.domains, img_size=data.img_size)
        check(trained, data.val, max_sources=SOURCES)  # what comes last is decided first
    except (OSError, ValueError) as error:
        parser.error(str(error))
    fill_cache(("alex",))
    shipped = gen.load(SHIPPED) if SHIPPED.exists() else None
    if shipped and shipped.domains != data.domains:
        shipped = None
    start = [] if args.from_scratch or not shipped else ["--model.init_from", SHIPPED, *GENTLY]
    steps = args.steps or (STEPS_FINE_TUNED if start else STEPS_FROM_NOTHING)
    last = args.out / "last.ckpt"
    resume = ["--ckpt_path", last] if last.exists() else []
    if resume and gen.checkpoint.read(last).iteration >= steps:
        print(f"{last} has its {steps} iterations already; --steps N or --out DIR trains on")
    else:
        source = (
            ["--data", "gen.data.Heads"] if isinstance(data, Heads) else ["--data.root", data.root]
        )
        fit = ["-m", "gen", "fit", "-c", CONFIG, *source, "--out", args.out, *start, *resume]
        if code := run(sys.executable, *fit, "--trainer.max_steps", str(steps)):
            sys.exit(code)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    method = gen.load(last, device)
    rows = evaluate(method, data.val, max_sources=SOURCES, checkpoint=last)
    shipped_rows = []
    if shipped:
        shipped = shipped.to(device)
        shipped_rows = evaluate(shipped, data.val, max_sources=SOURCES, checkpoint=SHIPPED)
    (args.out / "metrics.jsonl").write_text(to_json(rows))
    report = build(
        method,
        data.val,
        args.out,
        shipped=shipped,
        metrics_rows=rows,
        shipped_rows=shipped_rows,
        lpips=LPIPS("alex").to(device),
    )
    print(report)


if __name__ == "__main__":
    main()

"""Run by `scripts/quickstart.sh` once the package is installed; see there."""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

import gen
from gen.commands import call, plain_errors
from gen.data import Domains, Heads
from gen.devices import slow_bf16
from gen.evaluation.results import to_json
from gen.evaluation.translators import check, evaluate
from gen.files import keep_inputs, write_atomic
from gen.networks.perceptual import LPIPS, fill_cache
from gen.report import build
from gen.runs import read_saved

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "checkpoints/smooth_i2i_emoji64.safetensors"
CONFIG = ROOT / "configs/smooth_i2i/emoji64_cpu.yaml"
STEPS_FINE_TUNED, STEPS_FROM_NOTHING = 200, 600
GENTLY = ("--model.lr", "5e-5")  # the shipped weights ended at a learning rate of 0
SOURCES = 24  # number of evaluated images


def run(*command: str | Path) -> int:
    print("$", *command, flush=True)
    return call(*command, cwd=ROOT)


def prepare() -> Domains | Heads:
    """The emoji data set; without npm or its registry, the embedded data set."""
    code = run(sys.executable, "data_prep/emoji.py", "--size", "64", "--out", "data/emoji")
    if code == 0:
        return Domains(str(ROOT / "data/emoji"), img_size=64)
    if code == 69:
        print("npm or its registry cannot be reached: going on with the embedded data set, Heads")
        return Heads(img_size=64)
    sys.exit(code)


def name_run(data: Path | None, embedded: bool, from_scratch: bool) -> Path:
    """Folder of a run without --out, which depends on the data and the start."""
    parts = ["quickstart", "heads" if embedded else data and data.resolve().name]
    parts.append("from_scratch" if from_scratch else None)
    return ROOT / "runs" / "_".join(part for part in parts if part)


def check_run(out: Path, data: Domains | Heads, start: str) -> None:
    """Raises ValueError if `out` holds a run of other data, or from another start."""
    path = out / "config.yaml"
    if not path.exists():
        return
    saved = read_saved(path)
    was = str((ROOT / saved.root).resolve()) if saved.root else "Heads", saved.init_from
    root = getattr(data, "root", None)
    now = str(Path(root).resolve()) if root else "Heads", start
    for what, old, new in zip(("data", "weights to start from"), was, now, strict=True):
        if old != new:
            raise ValueError(
                f"{out}: expected a run of the same {what}, {new or 'none'}, got one of "
                f"{old or 'none'}; give another --out"
            )


def choose_precision(resumed: Path | None) -> list[str]:
    """Precision of a fit as options: that of the resumed run, or float32 if bfloat16 is slow.

    Args:
        resumed: folder of the resumed run, or None.
    """
    config = resumed and resumed / "config.yaml"
    if config and config.exists():
        return ["--trainer.precision", read_saved(config).precision or "32-true"]
    other = torch.cuda.is_available() or torch.backends.mps.is_available()
    if other or not (kind := slow_bf16(torch.device("cpu"))):
        return []
    print(f"precision: 32-true, since bfloat16 is slow on this CPU ({kind}, no AVX512)")
    return ["--trainer.precision", "32-true"]


@plain_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description="Install to pictures in ten minutes.")
    parser.add_argument("--steps", type=int, help="iterations of training")
    parser.add_argument("--data", type=Path, help="your images: a folder with a folder a domain")
    parser.add_argument("--out", type=Path, help="default: runs/quickstart, and of what data")
    parser.add_argument("--from-scratch", action="store_true", help="not from the shipped weights")
    args = parser.parse_args()

    if args.steps is not None and args.steps < 1:
        raise ValueError(f"--steps: expected at least 1, got {args.steps}")
    keep_inputs([args.data], [args.out])
    data = Domains(str(args.data.resolve()), img_size=64) if args.data else prepare()
    trained = SimpleNamespace(domains=data.domains, img_size=data.img_size)
    check(trained, data.val, max_sources=SOURCES)  # checks the last step first
    fill_cache(("alex",))
    shipped = gen.load(SHIPPED) if SHIPPED.exists() else None
    if shipped and shipped.domains != data.domains:
        shipped = None
    start = [] if args.from_scratch or not shipped else ["--model.init_from", str(SHIPPED)]
    steps = args.steps or (STEPS_FINE_TUNED if start else STEPS_FROM_NOTHING)
    out = args.out or name_run(args.data, isinstance(data, Heads), args.from_scratch)
    out = out.resolve()
    check_run(out, data, start[-1] if start else "")
    last = out / "last.ckpt"
    resume = ["--ckpt_path", last] if last.exists() else []
    if resume and gen.checkpoint.read(last).iteration >= steps:
        print(f"{last} has its {steps} iterations already; --steps N or --out DIR trains on")
    else:
        precision = choose_precision(out if resume else None)
        source = (
            ["--data", "gen.data.Heads"] if isinstance(data, Heads) else ["--data.root", data.root]
        )
        fit = ["-m", "gen", "fit", "-c", CONFIG, *source, "--out", out]
        fit += [
            *start,
            *GENTLY * bool(start),
            *precision,
            *resume,
            "--trainer.max_steps",
            str(steps),
        ]
        if code := run(sys.executable, *fit):
            sys.exit(code)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    method = gen.load(last, device)
    rows = evaluate(method, data.val, max_sources=SOURCES, checkpoint=last)
    shipped_rows = []
    if shipped:
        shipped = shipped.to(device)
        shipped_rows = evaluate(shipped, data.val, max_sources=SOURCES, checkpoint=SHIPPED)
    write_atomic(out / "metrics.jsonl", to_json(rows).encode())
    report = build(
        method,
        data.val,
        out,
        shipped=shipped,
        metrics_rows=rows,
        shipped_rows=shipped_rows,
        lpips=LPIPS("alex").to(device),
    )
    print("for the other commands of the README: source .venv/bin/activate")
    print(report)


if __name__ == "__main__":
    main()

"""What a short fixed run of each kind of method reaches stays within a recorded interval.

The losses of `test_watched.py` say that nothing has changed; this says that a change is no worse.
`python tests/methods/test_quality.py` records the interval of five seeds anew; say why in the
commit.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from conftest import ROOT
from gen.cli import main
from gen.verbs.evaluate import measure
from runs import QUIET, flags, rows

RECORDED = Path(__file__).with_name("quality")
SEEDS = range(1, 6)  # those recorded; the test takes another
FRESH = 6
HEADS = "--data.img_size=32 --data.num_workers=0"
RUNS = {  # method: config, options of `gen fit`, options of `gen evaluate`, metric
    "SmoothI2I": (
        "smooth_i2i/heads32_cpu",
        f"--model.base_channels=8 --model.max_channels=32 --trainer.max_steps=120 {HEADS}",
        "--data heads --metrics translation --max-sources 30",
        "latent/paired_lpips_alex",
    ),
    "StyleGAN2": (
        "stylegan2/heads64_cpu",
        f"--model.img_size=32 --model.channel_base=512 --trainer.max_steps=100 {HEADS}",
        "--data heads --metrics fidelity --count 300",
        "fidelity/fd_effnetlite0",
    ),
    "StyleFunction": (
        "style_function/heads64_cpu",
        "--model.d_channels=16 --model.lr_warmup_iters=10 --trainer.max_steps=60",
        "--classifier checkpoints/attribute_classifier_heads64.safetensors --metrics edits "
        "--count 60",
        "edits/accuracy",
    ),
    "SpatialEntropy": (
        "spatial_entropy/clutter_cpu",
        "--data=gen.data.Heads --data.batch_size=32 --model.img_size=32 --trainer.max_epochs=null "
        f"--trainer.max_steps=80 --trainer.limit_val_batches=0 {HEADS}",
        "--data heads --metrics accuracy --max-images 200",
        "val/top1",
    ),
} | rows("QUALITY")


def reached(method: str, seed: int, out: Path) -> float:
    """The value of a run with this seed, on one thread in float32."""
    config, options, evaluate, metric = RUNS[method]
    words = [*options.split(), f"--model.seed={seed}", f"--data.seed={seed}"]
    words += ["--trainer.precision=32-true", *flags("trainer", QUIET | dict(accelerator="cpu"))]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        main(["fit", "-c", str(ROOT / f"configs/{config}.yaml"), f"--out={out}", *words])
        found = measure(["--checkpoint", str(out / "last.ckpt"), *evaluate.split()])
    finally:
        torch.set_num_threads(threads)
    return {row["metric"]: row["value"] for row in found}[metric]


def interval(values: list[float]) -> tuple[float, float]:
    """99.9 % interval of Student's t for one more value."""
    n, spread = len(values), np.std(values, ddof=1)
    half = student.ppf(0.9995, n - 1) * spread * (1 + 1 / n) ** 0.5
    return float(np.mean(values) - half), float(np.mean(values) + half)


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_a_short_run_reaches_what_was_recorded(method, tmp_path, monkeypatch, lpips_cache):
    monkeypatch.chdir(ROOT)
    values = json.loads((RECORDED / f"{method}.json").read_text())
    low, high = interval(values)
    assert low <= reached(method, FRESH, tmp_path) <= high


def test_every_run_is_recorded():
    assert {path.stem for path in RECORDED.glob("*.json")} == set(RUNS)
    for path in RECORDED.glob("*.json"):
        assert len(json.loads(path.read_text())) == len(SEEDS)


if __name__ == "__main__":
    RECORDED.mkdir(exist_ok=True)
    for method in RUNS:
        values = []
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                values.append(reached(method, seed, Path(folder) / "run"))
                print(method, seed, values[-1], flush=True)
        (RECORDED / f"{method}.json").write_text(json.dumps(values) + "\n")

"""A fixed run of a minute of each method reaches the quality that five seeds reached.

The watched losses notice a change of arithmetic; this notices that a method learns worse. One
thread, float32. A recorded interval is mean +- 4 standard deviations over five seeds; after a
change that is meant to move it, `PYTHONPATH=tests python tests/methods/test_quality.py [METHOD]`
records it anew: say why in the commit.
"""

import json
import pkgutil
import statistics
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from gen import load
from gen.cli import main
from gen.losses.spatial_entropy import spatial_entropy  # as it is, also where a test breaks it
from runs import HEADS, flags, rows

RECORDED = Path(__file__).with_name("quality.json")
SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"
SEEDS = range(5)
IMAGES = HEADS | dict(batch_size=8, train_images=4000, val_images=100)


def images(domain: int | None = None) -> torch.Tensor:
    """All validation images, or those of a domain."""
    from gen.data import Heads

    val = Heads(**IMAGES).images("val")
    return torch.stack([val[i]["x"] for i in range(len(val)) if domain in (None, i // val.count)])


def distance_to_twins(method) -> float:
    """L1 between bears shown as cats, each in the style of its own twin, and that twin."""
    bears, cats = images(0), images(1)
    got = method.translate(bears, 1, x_ref=cats)
    return (got - cats).abs().mean().item()


def attention_entropy(method) -> float:
    """The loss that the method is named for, on images that it has not seen."""
    return spatial_entropy(method.attention(images())).item()


def wrong_attributes(method) -> float:
    """Share of attributes that are wrong in 200 edits, each to the labels of another image."""
    from gen.evaluation.editors import evaluate_editor

    judge = load(SHIPPED / "attribute_classifier_heads64.safetensors")
    found = evaluate_editor(method, judge, ["edits"], count=200, outputs=2)
    return 1 - next(row["value"] for row in found if row["metric"] == "edits/accuracy")


def distance_of_thumbnails(method) -> float:
    """Squared Frechet distance between generated and real images of 4 x 4 px."""
    z = torch.randn(300, method.latent_dim, generator=torch.Generator().manual_seed(0))
    made = torch.cat([method.generate(part) for part in z.split(50)])
    (a, b), (c, d) = map(moments, (made, images()))
    cross = torch.linalg.eigvals(b @ d).real.clamp(min=0).sqrt().sum()
    return ((a - c).square().sum() + b.trace() + d.trace() - 2 * cross).item()


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    small = torch.nn.functional.adaptive_avg_pool2d(x.double(), 4).flatten(1)
    return small.mean(0), small.T.cov()


RUNS = {  # method -> (options of its run, what is measured: less is better, a term of its loss)
    "SmoothI2I": (
        dict(
            model=dict(
                img_size=32, base_channels=16, max_channels=32, lambda_cont=0.0, lr=1e-3,
                lr_mapping=1e-4, ema_decay=0.95, r1_every=4,
            ),
            data=IMAGES | dict(batch_size=4),
            trainer=dict(max_steps=150),
        ),
        distance_to_twins,
        "gen.methods.stargan.l1",
    ),
    "StyleGAN2": (
        dict(
            model=dict(
                img_size=32, channel_base=512, channel_max=32, z_dim=32, w_dim=32, map_layers=2,
                r1_every=8, lambda_pl=0.0, noise="false", ema_kimg=0.2,
            ),
            data=IMAGES | dict(references="false"),
            trainer=dict(max_steps=250),
        ),
        distance_of_thumbnails,
        "torch.nn.functional.softplus",
    ),
    "StyleFunction": (  # goes on from the shipped one: from scratch it takes half an hour
        dict(
            model=dict(
                init_from=SHIPPED / "style_function_heads64.safetensors",
                generator=SHIPPED / "stylegan2_heads64.safetensors",
                judge=SHIPPED / "attribute_classifier_heads64.safetensors",
                attributes="bear,cat,dog,mouth_open,dark_fur,spots", psi=0.7, residual="true",
                lambda_cls=6.0, lambda_lpips=0.0, lambda_lpips_cyc=0.0, d_channels=32,
                d_max_channels=128, r1_every=8, lr=5e-4, lr_warmup_iters=0, ema_decay=0.9,
            ),
            data=dict(batch_size=4),
            trainer=dict(max_steps=100),
        ),
        wrong_attributes,
        "torch.nn.functional.binary_cross_entropy_with_logits",
    ),
    "SpatialEntropy": (
        dict(
            model=dict(
                model_name="test_vit", img_size=32, patch_size=4, lr=1e-3, lr_warmup_epochs=0,
                lambda_reg=0.2, lambda_warmup_epochs=0, mixup=0.0, cutmix=0.0, ema_decay=0.9,
            ),
            data=IMAGES | dict(references="false", batch_size=16),
            trainer=dict(max_steps=300),
        ),
        attention_entropy,
        "gen.losses.spatial_entropy.spatial_entropy",
    ),
} | rows("QUALITY")  # fmt: skip
DATA = {"StyleFunction": "Codes", "ClickToMove": "Movers"}  # else Heads


def quality(method: str, out: Path, seed: int = 0) -> float:
    options, measure, _ = RUNS[method]
    trainer = dict(accelerator="cpu", devices=1, precision="32-true", limit_val_batches=0)
    quiet = dict(enable_model_summary="false", enable_progress_bar="false")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        main([
            *("fit", f"--model={method}", *flags("model", options["model"] | dict(seed=seed))),
            *(f"--data={DATA.get(method, 'Heads')}", *flags("data", options["data"])),
            *flags("trainer", trainer | quiet | options["trainer"]),
            f"--out={out}",
        ])  # fmt: skip
        return measure(load(out / "last.ckpt"))
    finally:
        torch.set_num_threads(threads)


def interval(method: str) -> tuple[float, float]:
    values = json.loads(RECORDED.read_text())[method]
    spread = 4 * statistics.stdev(values)
    return statistics.mean(values) - spread, statistics.mean(values) + spread


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_a_short_run_reaches_its_quality(method, tmp_path):
    low, high = interval(method)
    assert low <= quality(method, tmp_path / "run") <= high


@pytest.mark.slow
@pytest.mark.parametrize("method", ["StyleGAN2", "SpatialEntropy"])  # the quickest
def test_a_turned_sign_costs_quality(method, tmp_path, monkeypatch):
    """A flipped sign of a term of the loss puts the quality above its interval.

    That of the losses is noticed in all methods, see test_watched.py.
    """
    place = RUNS[method][2]
    whole = pkgutil.resolve_name(place)
    monkeypatch.setattr(place, lambda *args, **kwargs: -whole(*args, **kwargs))
    assert quality(method, tmp_path / "run") > interval(method)[1]


if __name__ == "__main__":
    found = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for method in sys.argv[1:] or RUNS:
        found[method] = []
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                found[method].append(round(quality(method, Path(folder, "run"), seed), 5))
        print(method, found[method], flush=True)
        RECORDED.write_text(json.dumps(found, indent=1) + "\n")

"""Tiny runs of `gen` inside the test's own process, shared by the tests of training."""

import csv
import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from gen.callbacks import Last
from gen.cli import main
from gen.methods.base import Method
from gen.weights import save_safetensors

WIDTHS = dict(img_size=32, base_channels=4, max_channels=8, style_dim=8, latent_dim=4)
HEADS = dict(img_size=32, batch_size=2, num_workers=0, train_images=8, val_images=4)
TRAINER = dict(accelerator="cpu", devices=1, limit_val_batches=0, log_every_n_steps=1)
QUIET = dict(enable_model_summary="false", enable_progress_bar="false")
EVERYTHING = dict(  # every term of SmoothI2I that needs no downloaded weights
    lambda_cont=0.0, lambda_shr=0.1, shrink="centroid", ramp_start=-10, ramp_iters=20,
    lambda_mix=0.5, lambda_mix_image=0.5, lambda_mix_d=0.5, mixup_beta=0.4, mixup_phase="both",
    paper_intent=True, r1_every=3, ds_iters=10, lr=1e-3, lr_mapping=1e-4, ema_decay=0.9,
    lr_decay_start=2, lr_decay_iters=8,
)  # fmt: skip
CLASSIFIER = dict(model_name="test_resnet", img_size=32)
FALL = dict(lr_warmup_iters=2, lr_decay_start=3, lr_decay_iters=9)
VIT = dict(model_name="test_vit", img_size=32, patch_size=8)
GENERATOR = dict(
    img_size=32, channel_base=128, channel_max=16, z_dim=8, w_dim=8, map_layers=2, group=2,
    r1_every=2, pl_every=2, ada_target=0.6,
)  # fmt: skip
SIZES = ("img_size", "z_dim", "w_dim", "map_layers", "channel_base", "channel_max")
EDITED = {k: GENERATOR[k] for k in SIZES} | dict(clamp=0.0)
ENCODER = EDITED | dict(channels=4, max_channels=8)
EDITED |= dict(attributes="bear,cat,dog,mouth_open,dark_fur,spots")
STYLE_FUNCTION = EDITED | dict(noise_dim=4, d_channels=4, d_max_channels=8, lr_warmup_iters=0)
NO_LPIPS = dict(lambda_lpips=0.0, lambda_lpips_cyc=0.0)
CODES = dict(batch_size=4)


def rows(table: str) -> dict:
    """Rows of a table of the tests in rows_*.py, a file for each method that brings its own."""
    files = sorted(Path(__file__).parent.glob("rows_*.py"))
    tables = [getattr(importlib.import_module(file.stem), table, {}) for file in files]
    return {key: row for found in tables for key, row in found.items()}


DATA = rows("DATA") | {  # else Heads
    "StyleFunction": ("Codes", CODES),
    "LinearDirections": ("Codes", CODES),
    "StepwiseEditor": ("Codes", CODES),
    "InversionEncoder": ("Heads", HEADS | dict(references="false")),
}
OPTIONS = {
    "StyleFunction": STYLE_FUNCTION | NO_LPIPS | dict(r1_every=2, lr=1e-3, ema_decay=0.9),
    "LinearDirections": EDITED | dict(lr=0.1, lr_iters=20),
    "StepwiseEditor": EDITED | dict(hidden=16, steps=2, lambda_lpips=0.0, ema_decay=0.9),
    "InversionEncoder": ENCODER | dict(lambda_lpips=0.0, lr_iters=20, ema_decay=0.9),
    "StyleGAN2": GENERATOR,
    "StarGAN": WIDTHS | dict(r1_every=2, ds_iters=10, lr=1e-3),
    "SmoothI2I": WIDTHS | EVERYTHING,
    "SpatialEntropy": VIT | dict(lr=1e-2, lr_warmup_epochs=25, ema_decay=0.9, layer_decay=0.8),
    "DomainClassifier": CLASSIFIER | FALL,
    "AttributeClassifier": CLASSIFIER | FALL,
} | rows("OPTIONS")


def ship(method: Method, path: Path, domains: Sequence[str] = ()) -> Path:
    """Writes a method as `scripts/export.py` would, without a run."""
    hparams = json.dumps(dict(method.hparams))
    meta = dict(method=type(method).__name__, hparams=hparams, iteration="1")
    meta["domains"] = json.dumps(list(domains))
    state = {k: v for k, v in method.state_dict().items() if not k.startswith("ema.")}
    save_safetensors(state, path, meta)
    return path


def edited_files(folder: Path) -> dict[str, str]:
    """Options of editors of codes: files of a tiny untrained generator and judge that fit them."""
    from gen.methods.attribute_classifier import AttributeClassifier
    from gen.methods.stylegan2 import StyleGAN2

    generator, judge = StyleGAN2(**GENERATOR), AttributeClassifier(**CLASSIFIER)
    return dict(
        generator=str(ship(generator, folder / "generator.safetensors")),
        judge=str(ship(judge, folder / "judge.safetensors")),
    )


def flags(prefix: str, options: dict) -> list[str]:
    return [f"--{prefix}.{key}={value}" for key, value in options.items()]


def arguments(method: str, out: Path, *more: str, steps: int = 2, **model) -> list[str]:
    """The command line of a tiny `gen fit` into `out`."""
    data, options = DATA.get(method, ("Heads", HEADS))
    given = OPTIONS[method]
    if data == "Codes":  # their generator's file states its sizes
        given = {k: v for k, v in given.items() if k not in (*SIZES, "clamp")}
    return [
        *("fit", f"--model={method}", *flags("model", given | model)),
        *(f"--data={data}", *flags("data", options)),
        *flags("trainer", TRAINER | QUIET | dict(max_steps=steps)),
        *(f"--out={out}", *more),
    ]


def fit(method: str, out: Path, *more: str, steps: int = 2, **model) -> Path:
    """Runs it; the path of `last.ckpt`."""
    main(arguments(method, out, *more, steps=steps, **model))
    return Path(out, "last.ckpt")


def status(*words: str) -> int:
    """Exit status of `gen WORDS`, within this process; a mistake that it tells is an error."""
    try:
        main([*map(str, words)])
    except SystemExit as end:
        assert not isinstance(end.code, str), end.code
        return end.code or 0
    return 0


def cut_run(method: str, out: Path, *more: str, first: int = 3, steps: int = 7, **model) -> Path:
    """A run of `steps` iterations in `out`; `cut.ckpt` is what it wrote after the `first` ones."""
    save = Last.save

    def keep(self: Last, trainer: Trainer) -> None:
        save(self, trainer)
        if trainer.global_step == first:
            shutil.copy(self.path, out / "cut.ckpt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Last, "save", keep)
        fit(method, out, *more, steps=steps, **model)
    return out


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def losses(out: Path) -> list[dict[str, str]]:
    """Rows of the run's CSV log, one an iteration, all terms."""
    with open(max(Path(out).glob("*/version_*/metrics.csv")), newline="") as file:
        return list(csv.DictReader(file))


def differences(a, b, path: str = "") -> list[str]:
    """Where two nests of dicts, sequences, tensors and numbers are not equal bit for bit."""
    if isinstance(a, dict):
        missing = [f"{path}: keys {set(a) ^ set(b)}"] if set(a) != set(b) else []
        return missing + [d for k in a if k in b for d in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, list | tuple):
        missing = [f"{path}: {len(a)} and {len(b)}"] if len(a) != len(b) else []
        pairs = enumerate(zip(a, b, strict=False))
        return missing + [d for i, (p, q) in pairs for d in differences(p, q, f"{path}[{i}]")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if same else [path]


TINY = EDITED | dict(attributes="a,b,c", noise_dim=4, d_channels=4, d_max_channels=8, lr=1e-3)

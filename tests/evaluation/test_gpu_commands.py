"""Every evaluation and every command of inference on a GPU, found right without one: they mix no
devices, and give what the CPU gives; see `fake_gpu`."""

import io
import runpy
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

import gen
from conftest import ROOT
from fake_gpu import Fake, fake_gpu
from gen.evaluation import editors
from gen.inference import common
from gen.methods import (
    DomainClassifier,
    SmoothI2I,
    SpatialEntropy,
    StyleFunction,
    StyleGAN2,
)
from gen.metrics import smoothness
from gen.verbs.evaluate import measure
from gen.viz import save_image
from runs import CLASSIFIER, GENERATOR, STYLE_FUNCTION, VIT, WIDTHS, edited_files, rows, ship
from toys import noise

HEADS = ("bear", "cat", "dog")
LABELS = torch.tensor([0, 2])
LATENTS, CODES = common.normal(8, [0, 1]), common.normal(4, [0, 1])


def editor(folder: Path) -> Path:
    files = edited_files(folder)
    return ship(StyleFunction(**STYLE_FUNCTION | files), folder / "editor.safetensors")


def named(cls, options: dict, names=HEADS) -> Callable[[Path], Path]:
    return lambda folder: ship(cls(**options), folder / f"{cls.__name__}.safetensors", names)


MAKERS = {
    "translator": named(SmoothI2I, WIDTHS | dict(num_domains=3)),
    "generator": named(StyleGAN2, GENERATOR, ()),
    "classifier": named(DomainClassifier, CLASSIFIER | dict(num_domains=3)),
    "transformer": named(SpatialEntropy, VIT | dict(num_classes=3)),
    "editor": editor,
} | rows("MAKERS")
EVALUATED = {  # options of gen evaluate
    "translator": "--data toys.FewHeads --metrics inter middle translation "
    "accuracy texture --max-sources 2 --batch-size 2 --classifier classifier",
    "generator": "--data toys.FewHeads --metrics paths --max-sources 2 --batch-size 40",
    "classifier": "--data toys.FewHeads",
    "transformer": "--data toys.FewHeads",
    "editor": "--metrics edits paths --count 4 --batch-size 4 --classifier judge",
} | rows("EVALUATED")
COMMANDS = {  # script and options, without the checkpoint and --out
    "translator": "interpolate.py x.png --domains bear cat --frames 3",
    "reference": "translate.py --input x.png --domain dog --ref y.png",
    "generator": "generate.py --seeds 0-3 --mix 4 5 --first 1",
    "transformer": "attention.py x.png",
    "editor": "edit.py x.png --seeds 0 1 --set no-cat --steps 2 --frames 3 --classifier judge",
} | rows("COMMANDS")


@pytest.fixture
def files(tmp_path, monkeypatch, lpips_cache):
    """Gives the words of a line with tiny checkpoints in place of names; LPIPS sees 32 px."""
    monkeypatch.setattr(smoothness.path_distances, "__defaults__", (32, False, 8))
    monkeypatch.setattr(smoothness.all_distances, "__defaults__", (32, False, 8))
    monkeypatch.setattr(editors, "OTHERS", 32)
    monkeypatch.chdir(tmp_path)
    for name, seed in (("x.png", 0), ("y.png", 1)):
        save_image(noise(1, seed=seed)[0], tmp_path / name)

    def words(line: str, kind: str) -> list[str]:
        made = {}
        for name in {kind, *line.split()} & {*MAKERS, "judge"}:
            made[name] = str(MAKERS["editor" if name == "judge" else name](tmp_path))
        if "judge" in made:
            made["judge"] = str(tmp_path / "judge.safetensors")
        return [f"--checkpoint={made[kind]}", *(made.get(word, word) for word in line.split())]

    return words


@pytest.mark.parametrize("kind", EVALUATED)
def test_an_evaluation_mixes_no_devices(kind, files):
    """And asks MPS for no float64, which it has not."""
    words = files(EVALUATED[kind], kind)
    wanted = measure([*words, "--device=cpu"])
    assert len(wanted) > 1
    for device, name in {"cuda:0": "a fake GPU", "mps:0": "MPS"}.items():
        with fake_gpu(device) as gpu:
            found = measure([*words, f"--device={device}"])
        assert gpu.waits
        for a, b in zip(found, wanted, strict=True):
            assert a["metric"] == b["metric"] and a["versions"]["device"] == name
            assert a["values"].keys() == b["values"].keys()
            for value, of_cpu in zip(a["values"].values(), b["values"].values(), strict=True):
                assert value == pytest.approx(of_cpu, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_mixes_no_devices(name, files, tmp_path, monkeypatch):
    kind = dict(reference="translator").get(name, name)
    script, *line = COMMANDS[name].split()
    words, written = files(" ".join(line), kind), []
    for where in ("cpu", "gpu"):
        out = f"{where}.png" if script in ("generate.py", "attention.py") else where
        monkeypatch.setattr(sys, "argv", [script, *words, f"--out={out}"])
        with fake_gpu() if where == "gpu" else nullcontext() as gpu:
            with pytest.raises(SystemExit) if script == "translate.py" else nullcontext():
                runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        assert where == "cpu" or gpu.waits
        files_of = [Path(out)] if out.endswith(".png") else sorted(Path(out).rglob("*.*"))
        written.append([(path.name.replace("gpu", "cpu"), path.read_bytes()) for path in files_of])
    assert written[0] and [name for name, _ in written[0]] == [name for name, _ in written[1]]
    for (name, a), (_, b) in zip(*written, strict=True):
        if a != b:  # a kernel may round otherwise, by less than a picture shows
            a, b = (pixels(name, data, tmp_path) for data in (a, b))
            assert a.shape == b.shape and np.abs(a - b).mean() < 0.1, name


def pixels(name: str, data: bytes, folder: Path) -> np.ndarray:
    """Frames (T, H, W, 3) of a picture or video, 0 to 255."""
    if not name.endswith(".mp4"):
        with Image.open(io.BytesIO(data)) as image:
            frames = [np.asarray(f.convert("RGB"), float) for f in ImageSequence.Iterator(image)]
        return np.stack(frames)
    (folder / name).write_bytes(data)
    video, frames = cv2.VideoCapture(str(folder / name)), []
    while (read := video.read())[0]:
        frames.append(read[1].astype(float))
    return np.stack(frames)


def pictures(gpu, n: int = 2) -> Tensor:
    return gpu.send(noise(n))


USES = (
    {  # what a loop over images calls; labels and codes come from the host, in pinned memory
        "translator": lambda m, gpu: m.translate(
            pictures(gpu), gpu.send(LABELS), z=gpu.send(CODES)
        ),
        "reference": lambda m, gpu: m.encode_style(pictures(gpu), gpu.send(LABELS)),
        "generator": lambda m, gpu: m.generate(gpu.send(LATENTS)),
        "classifier": lambda m, gpu: m.classify(pictures(gpu)),
        "transformer": lambda m, gpu: m.attention(pictures(gpu)),
        "editor": lambda m, gpu: m.edit(
            m.map_latents(gpu.send(LATENTS)), gpu.send(torch.eye(6)[:2]), gpu.send(CODES)
        ),
        "images of codes": lambda m, gpu: m.synthesize(m.map_latents(gpu.send(LATENTS))),
    }
    | rows("USES")
)

CHECKS = {"translator": 4, "reference": 2}  # whose values are read: images, domains, both twice


@pytest.mark.parametrize("name", USES)
def test_a_use_waits_for_no_more_than_the_checks_of_its_arguments(name, tmp_path):
    kind = {"reference": "translator", "images of codes": "editor"}.get(name, name)
    path = MAKERS[kind](tmp_path)
    with fake_gpu() as gpu:
        method = gen.load(path, "cuda:0")
        gpu.waits.clear()
        found = USES[name](method, gpu)
        assert isinstance(found, Fake)
        assert gpu.waits.total() <= CHECKS.get(name, 1), gpu.waits


def test_the_steps_of_a_projection_wait_for_nothing(tmp_path, lpips_cache):
    path, waits = MAKERS["editor"](tmp_path), []
    for steps in (2, 5):
        with fake_gpu() as gpu:
            method = gen.load(path, "cuda:0")
            gpu.waits.clear()
            method.encode(pictures(gpu), steps=steps)
            waits.append(gpu.waits)
    assert waits[0] == waits[1]

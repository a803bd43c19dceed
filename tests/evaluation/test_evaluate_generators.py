"""Evaluation of a generator: its rows, their protocol, and that they repeat."""

import json
import runpy
import sys

import pytest
import torch

from conftest import ROOT
from cut import check_goes_on
from gen.data import Heads
from gen.evaluation.generators import evaluate_generator
from gen.methods.stylegan2 import StyleGAN2
from gen.metrics.smoothness import REPORTED
from gen.networks.backbones import cache_path
from runs import GENERATOR, HEADS, fit

DATA = Heads(**HEADS)
SMALL = dict(count=6, paths=3)


@pytest.fixture(scope="module")
def method():
    return StyleGAN2(**GENERATOR, num_domains=3)


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_paths_and_their_intervals(method, lpips_cache):
    rows = evaluate_generator(method, DATA.train, DATA.val, ["paths"], **SMALL)
    names = [f"{s}/{v}_t20_alex" for s in ("w", "z") for v in REPORTED]
    assert [row["metric"] for row in rows] == names
    for row in rows:
        low, high = row["ci95"]
        assert low <= row["value"] <= high and row["count"] == len(row["values"]) == 3
        assert "32 px" in row["protocol"] and row["seconds"] > 0
    again = evaluate_generator(method, DATA.train, DATA.val, ["paths"], batch_size=20, **SMALL)
    assert values(again) == pytest.approx(values(rows), abs=1e-5)
    other = evaluate_generator(method, DATA.train, DATA.val, ["paths"], seed=1, **SMALL)
    assert values(other) != pytest.approx(values(rows), abs=1e-5)


@pytest.mark.slow
def test_fidelity_beside_held_out_images():
    if not cache_path().exists():
        pytest.skip("no EfficientNet-Lite0 weights: python -m gen.networks.backbones fetches them")
    method = Same(DATA.val)
    rows = evaluate_generator(method, DATA.train, DATA.val, ["fidelity"], count=12)
    found = values(rows)
    assert found["fd_effnetlite0"] == pytest.approx(found["real/fd_effnetlite0"], rel=1e-4)
    counts = {row["metric"]: row["count"] for row in rows}
    assert counts["fd_effnetlite0"] == counts["real/fd_effnetlite0"] == 12
    assert all("24 training images" in row["protocol"] and row["ci95"] is None for row in rows)


class Same(torch.nn.Module):
    """A generator that knows the validation images by heart, in their order."""

    task = "generator"
    latent_dim, classes, img_size = 2, 0, 32

    def __init__(self, images):
        super().__init__()
        self.images, self.given = images, 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def generate(self, z, y):
        first, self.given = self.given, self.given + len(z)
        return torch.stack([self.images[i]["x"] for i in range(first, self.given)])


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(metrics=["fid"]), "metrics: expected some of"),
        (dict(metrics="paths"), "metrics: expected some of"),
        (dict(paths=0), "expected count, paths and batch_size >= 1, got 5000, 0 and 50"),
    ],
)
def test_doors(method, wrong, message):
    with pytest.raises(ValueError, match=message):
        evaluate_generator(method, DATA.train, DATA.val, **wrong)


def test_the_script_knows_a_generator(tmp_path, monkeypatch, capsys, lpips_cache):
    checkpoint = fit("StyleGAN2", tmp_path, steps=1)
    script = str(ROOT / "scripts/evaluate.py")
    options = ["--metrics", "paths", "--max-sources", "2", "--out", str(tmp_path / "x.jsonl")]
    command = [script, "--checkpoint", str(checkpoint), "--data", "heads", *options]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(script, run_name="__main__")
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [row["metric"] for row in rows][:2] == ["w/ps_t20_alex", "w/eq_t20_alex"]
    assert "w/ps_t20_alex" in capsys.readouterr().out
    for wrong, message in (
        (["--max-sources", "0"], "expected count, paths and batch_size >= 1, got 5000, 0 and 16"),
        (["--psi", "0.7"], "--psi: expected an editor of codes, got StyleGAN2"),
    ):
        monkeypatch.setattr(sys, "argv", [*command, *wrong])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(script, run_name="__main__")
        assert f"error: {message}" in f"{end.value.code} {capsys.readouterr().err}"


def test_an_evaluation_that_was_cut_goes_on(method, tmp_path, monkeypatch, lpips_cache):
    def evaluate(ledger):
        options = dict(count=4, paths=3, batch_size=20, backbone="effnetlite0")
        metrics = ["paths"]
        return evaluate_generator(method, DATA.train, DATA.val, metrics, ledger=ledger, **options)

    check_goes_on(evaluate, tmp_path, monkeypatch, after=2)

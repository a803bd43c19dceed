"""scripts/generate.py: what it draws and what it refuses, on untrained generators."""

import runpy
import sys

import pytest
import torch

import gen
from conftest import ROOT
from gen import viz
from gen.inference import common, generation
from gen.methods import StyleGAN2
from runs import GENERATOR, ship


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of three classes, whose images differ."""
    method = StyleGAN2(**GENERATOR, num_domains=3, conditional=True)
    return ship(method, tmp_path_factory.mktemp("generator") / "x.safetensors", "abc")


def generate(monkeypatch, checkpoint, out, *options: str) -> list[torch.Tensor]:
    """The images of the picture that it writes, row by row."""
    shown, grid = [], viz.grid

    def spy(cells, **how):
        shown.extend(cell for row in cells for cell in row if cell is not None)
        return grid(cells, **how)

    monkeypatch.setattr(viz, "grid", spy)
    script = str(ROOT / "scripts/generate.py")
    command = [script, "--checkpoint", str(checkpoint), "--out", str(out), *options]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(script, run_name="__main__")
    assert out.exists()
    return shown


def test_a_class_is_that_of_all_images_in_a_new_folder(checkpoint, tmp_path, monkeypatch):
    method = gen.load(checkpoint)
    z = generation.latents(method, [0, 1, 2])
    a, b, turns = (method.generate(z, y) for y in (0, 1, torch.arange(3)))
    assert (a - b).abs().amax((1, 2, 3)).min() > 0.01
    for k, (options, images) in enumerate(((["--class", "b"], b), ([], turns))):
        out = tmp_path / f"new{k}" / "x.png"
        shown = generate(monkeypatch, checkpoint, out, "--seeds", "0-2", *options)
        torch.testing.assert_close(torch.stack(shown), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--mix", "3", "--psi", "0.5", "1"], "--psi: expected one number with --mix, got 2"),
        (["--first", "2"], "--first: expected it with --mix SEEDS, got it alone"),
        (["--seeds", "0-99999999999"], "seeds: .* of 1 to 1000, as 3 or 0-7, got 0-99999999999"),
        (["--mix", "5-2"], "seeds: expected a number or a range .* got 5-2"),
        (["--cell-px", "0"], "grid: expected cells of at least 1 px"),
        (["--class", "d"], r"domains \(a, b, c\), got 'd'"),
    ],
)
def test_what_means_nothing_is_refused(checkpoint, tmp_path, monkeypatch, options, message):
    with pytest.raises(SystemExit, match=message):
        generate(monkeypatch, checkpoint, tmp_path / "x.png", *options)
    assert not (tmp_path / "x.png").exists()


def test_a_name_of_no_format_is_refused_before_the_work(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("gen.inference.generation.generated", pytest.fail)
    with pytest.raises(SystemExit, match="x.xyz: expected a name that ends in .png, .webp or .jpg"):
        generate(monkeypatch, checkpoint, tmp_path / "x.xyz")
    assert not list(tmp_path.iterdir())


def test_without_classes_none_is_chosen(edited, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="--class: expected a conditional generator"):
        generate(monkeypatch, edited["generator"], tmp_path / "x.png", "--class", "a")


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 10**30])
def test_a_seed_is_of_64_bits(seed):
    with pytest.raises(ValueError, match=f"seed: expected a number of 64 bits, got {seed}"):
        common.normal(3, [0, seed])
    assert common.normal(3, [-1, 2**63 - 1]).shape == (2, 3)


def test_seeds_are_numbers_and_ranges():
    assert common.seeds(["3", "5-7", "5-5"]) == [3, 5, 6, 7, 5]
    assert len(common.seeds([f"0-{common.MOST_SEEDS - 1}"])) == common.MOST_SEEDS
    for text in ("", "a", "-3", "3-", "1.5", "7-3", "0-1000", "9" * 30):
        with pytest.raises(ValueError, match="seeds: expected a number or a range"):
            common.seeds([text])

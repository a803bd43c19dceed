"""Runs of Click to Move through `gen` and its script: what they refuse."""

import runpy
import sys

import pytest

import gen.data
from conftest import ROOT
from gen.cli import main
from runs import OPTIONS, TRAINER, arguments, fit, flags


def test_its_script_finds_what_ships_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["click_to_move.py", "--scene", "1", "--list"])
    runpy.run_path(str(ROOT / "scripts/click_to_move.py"), run_name="__main__")
    assert " at " in capsys.readouterr().out


@pytest.mark.parametrize(
    "method, data, told",
    [
        (
            "StarGAN",
            "Movers",
            "images with references for StarGAN, as Attributes or Domains or Heads give, got",
        ),
        ("AttributeClassifier", "Movers", "expected images for .* got clips, from Movers"),
        ("ClickToMove", "Heads", "as Cityscapes or KITTI360 or Movers give, got images with"),
    ],
)
def test_data_of_another_kind_is_refused(tmp_path, method, data, told):
    command = f"fit --model={method} --data={data} --out={tmp_path / 'run'} --trainer.max_steps=1"
    with pytest.raises(ValueError, match=f"^--data: .*{told}"):
        main([*command.split(), *flags("model", OPTIONS[method]), *flags("trainer", TRAINER)])


@pytest.mark.parametrize(
    "source, kind, message",
    [
        ("movers", "classes", "expected a folder, a zip or `heads`, got `movers`"),
        ("heads", "clips", "expected a folder, a zip or `movers`, got `heads`"),
    ],
)
def test_generated_data_of_another_kind_is_not_opened(source, kind, message):
    with pytest.raises(ValueError, match=f"--data: .*{message}"):
        gen.data.open(source, kind)


def test_generated_clips_are_opened_by_their_name():
    data = gen.data.open("movers", "clips", height=32, width=64, max_objects=3)
    assert type(data).__name__ == "Movers"


@pytest.mark.parametrize("command", ["validate", "test"])
def test_what_no_callback_measures_is_refused_with_the_script_that_does(tmp_path, command):
    with pytest.raises(ValueError, match="ClickToMove; gen evaluate measures it"):
        main([command, *arguments("ClickToMove", tmp_path)[1:]])


def test_predict_refuses_it_with_the_script_that_makes_clips(tmp_path):
    got = "a translator or a classifier, got ClickToMove, .*; gen move"
    with pytest.raises(ValueError, match=got):
        main(["predict", *arguments("ClickToMove", tmp_path)[1:]])


def test_a_checkpoint_of_fewer_optimizers_is_refused_with_the_way_out(tmp_path):
    without = [
        f"--model.lambda_{kind}_{of}=0" for kind in ("gan", "fm") for of in ("image", "video")
    ]
    last = fit("ClickToMove", tmp_path, *without, steps=1)
    with pytest.raises(
        ValueError, match="expected a checkpoint of 4 optimizers, got 2; .*init_from"
    ):
        fit("ClickToMove", tmp_path, f"--ckpt_path={last}", steps=2)


def test_clips_of_another_size_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"clips: expected \(T, H, W\) = \(3, 32, 64\), got \(3, 48, 96\)"
    ):
        fit("ClickToMove", tmp_path, "--data.height=48", "--data.width=96")
    with pytest.raises(ValueError, match=r"got \(5, 32, 64\); give --data.frames"):
        fit("ClickToMove", tmp_path, "--data.frames=6")

"""A run is never overwritten, lost, or taken for another."""

import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer

import gen
from gen import runs
from gen.callbacks import Last, Predictions
from gen.cli import main
from gen.data import Heads
from gen.weights import WeightsError
from runs import HEADS, TRAINER, arguments, differences, fit, read

ONE_BATCH = [f"--trainer.limit_{name}_batches=1" for name in ("val", "test", "predict")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of 3 iterations; no test may change it."""
    out = tmp_path_factory.mktemp("used") / "run"
    fit("StarGAN", out, steps=3)
    return out


# ---- a used folder ------------------------------------------------------------------------------


def test_a_fit_into_a_used_folder_is_refused_and_says_how_to_resume(run, capsys):
    before, command = contents(run), arguments("StarGAN", run, steps=1)
    with pytest.raises(FileExistsError, match="holds a run.*--overwrite.*run.1") as refused:
        main(command)
    assert contents(run) == before
    resume = str(refused.value).splitlines()[-1].strip()
    assert shlex.split(resume) == ["gen", *command, "--ckpt_path", str(run / "last.ckpt")]


@pytest.mark.parametrize("kept", ["best.ckpt", "shipped.safetensors", "config.yaml"])
def test_a_folder_with_any_part_of_a_run_is_used(tmp_path, kept):
    (tmp_path / kept).touch()
    with pytest.raises(FileExistsError, match="holds a run") as refused:
        fit("StarGAN", tmp_path)
    assert os.listdir(tmp_path) == [kept] and "resume" not in str(refused.value)


def test_the_refusal_comes_before_anything_is_built(run, monkeypatch):
    monkeypatch.setattr("gen.data.Heads.__init__", lambda *_, **__: 1 / 0)
    with pytest.raises(FileExistsError, match="holds a run"):
        fit("StarGAN", run)


def test_overwrite_moves_the_old_run_to_a_free_name(tmp_path):
    out = tmp_path / "run"
    fit("StarGAN", out, steps=3)
    first = contents(out)
    fit("StarGAN", out, "--overwrite", steps=1)
    second = contents(out)
    fit("StarGAN", out, "--overwrite", steps=2)
    assert contents(tmp_path / "run.1") == first and contents(tmp_path / "run.2") == second
    assert read(out / "last.ckpt")["global_step"] == 2
    assert yaml.safe_load((out / "config.yaml").read_text())["overwrite"] is False


def test_overwrite_does_not_move_what_it_is_to_read(run):
    before, last = contents(run), run / "last.ckpt"
    for option in (f"--ckpt_path={last}", f"--model.init_from={last}", "--ckpt_path=last"):
        with pytest.raises(ValueError, match="--overwrite: expected nothing to be read from"):
            fit("StarGAN", run, "--overwrite", option)
    assert contents(run) == before


def test_a_folder_is_not_moved_by_a_fit_that_is_refused(run):
    before = contents(run)
    with pytest.raises(ValueError, match="--trainer.logger"):
        fit("StarGAN", run, "--overwrite", "--trainer.logger=false")
    assert contents(run) == before


def test_another_run_is_not_resumed_into_a_used_folder(run, tmp_path):
    (tmp_path / "last.ckpt").write_bytes((run / "last.ckpt").read_bytes())
    before = contents(run)
    with pytest.raises(FileExistsError, match=r"got that of another, .*last\.ckpt"):
        fit("StarGAN", run, f"--ckpt_path={tmp_path / 'last.ckpt'}", steps=4)
    assert contents(run) == before


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    out = tmp_path / "run"
    held = runs.lock(out)  # as long as this process keeps it open
    try:
        for more in ((), ("--overwrite",)):
            with pytest.raises(BlockingIOError, match="another process trains in now"):
                fit("StarGAN", out, *more)
    finally:
        os.close(held)
    assert os.listdir(tmp_path) == ["run"] and not os.listdir(out)
    fit("StarGAN", out)


def test_a_run_that_ended_before_it_saved_is_not_in_the_way(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("gen.methods.stargan.StarGAN.training_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit("StarGAN", tmp_path)
    assert os.listdir(tmp_path) == ["logs"]
    assert read(fit("StarGAN", tmp_path))["global_step"] == 2


@pytest.mark.parametrize("how", ["used", "new", "resumed"])
def test_fast_dev_run_writes_nothing_into_a_run(run, tmp_path, how):
    out, before = tmp_path if how == "new" else run, contents(run)
    more = ["--trainer.fast_dev_run=1", "--trainer.callbacks=Samples"]
    more += ["--trainer.callbacks.every_n_steps=1"]
    more += ["--ckpt_path=last"] if how == "resumed" else []
    main(arguments("StarGAN", out, *more, steps=1))
    assert contents(run) == before and not os.listdir(tmp_path)


# ---- the config ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_only_a_fit_writes_its_config(run, tmp_path, command):
    before = contents(run)
    main([command, *arguments("StarGAN", run, f"--ckpt_path={run / 'last.ckpt'}", steps=9)[1:]])
    after = contents(run)
    assert {name: after[name] for name in before} == before
    main(["fit", "-c", str(run / "config.yaml"), f"--out={tmp_path}", "--trainer.max_steps=1"])
    for new in set(after) - set(before):
        (run / new).unlink()


def test_the_config_of_a_resumed_run_begins_anew(run, tmp_path):
    fit("StarGAN", tmp_path / "a", f"--ckpt_path={run / 'last.ckpt'}", steps=4)
    config = yaml.safe_load((tmp_path / "a/config.yaml").read_text())
    assert config["ckpt_path"] is None and config["trainer"]["max_steps"] == 4


# ---- which weights ------------------------------------------------------------------------------


def first(state: dict) -> torch.Tensor:
    return next(iter(state.values())).clone()


def weights(method) -> torch.Tensor:
    return first(method.state_dict())


@pytest.fixture
def two(run, tmp_path) -> Path:
    """A run whose best checkpoint is that of iteration 2, and its last of iteration 3."""
    out = shutil.copytree(run, tmp_path / "two")
    saved = read(out / "last.ckpt")
    state = {k: v + 1 if v.is_floating_point() else v for k, v in saved["state_dict"].items()}
    torch.save(saved | dict(global_step=2, state_dict=state), out / "best.ckpt")
    return out


HOOKS = dict(fit="train", test="test", validate="validation", predict="predict")


@pytest.mark.parametrize("command, hook", HOOKS.items())
def test_last_and_best_mean_the_files_of_out(two, monkeypatch, command, hook):
    seen = []
    monkeypatch.setattr(
        Last, f"on_{hook}_start", lambda _, trainer, method: seen.append(weights(method))
    )
    monkeypatch.setattr(Predictions, "on_predict_batch_end", lambda *_: None)
    for given, file, steps in [("last", "last", 4), ("best", "best", 5), (two, "last", 6)]:
        meant = first(read(two / f"{file}.ckpt")["state_dict"])
        more = (f"--ckpt_path={given}", *ONE_BATCH)
        main([command, *arguments("StarGAN", two, *more, steps=steps)[1:]])
        assert torch.equal(seen.pop(), meant)


def test_what_was_trained_after_the_best_checkpoint_is_kept(two):
    last = read(two / "last.ckpt")
    fit("StarGAN", two, "--ckpt_path=best", steps=4)
    assert not differences(read(two / "last.ckpt.1"), last)


@pytest.mark.parametrize("command", ["fit", "test", "validate", "predict"])
@pytest.mark.parametrize("given", ["last", "best", "hpc", "none.ckpt", "folder"])
def test_a_checkpoint_that_is_missing_is_an_error_before_anything_is_built(
    tmp_path, monkeypatch, command, given
):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    monkeypatch.setattr("gen.data.Heads.__init__", lambda *_, **__: 1 / 0)
    with pytest.raises(WeightsError, match=f"^{given}: expected a checkpoint.*got no file"):
        main([command, *arguments("StarGAN", Path("run"), f"--ckpt_path={given}")[1:]])
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_random_weights_are_told_by_what_was_loaded(run, tmp_path, monkeypatch, command):
    """Not by the option: here it is given, and nothing comes of it."""
    monkeypatch.setattr("gen.methods.stargan.StarGAN.start", lambda self: None)
    with pytest.raises(ValueError, match="got random weights"):
        more = (f"--model.init_from={run / 'last.ckpt'}", *ONE_BATCH)
        main([command, *arguments("StarGAN", tmp_path, *more)[1:]])


def test_weights_that_were_loaded_or_trained_in_this_process_are_taken(run):
    Trainer(**TRAINER | dict(limit_val_batches=1), logger=False).validate(
        gen.load(run), Heads(**HEADS), verbose=False
    )

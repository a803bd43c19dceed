"""A run is never overwritten, lost, or taken for another."""

import csv
import os
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Union, get_args

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning import Trainer
from lightning.pytorch.cli import LightningCLI

import gen
from gen import runs
from gen.callbacks import Evaluate, Last, Lines, Predictions
from gen.checkpoint import AtomicCheckpointIO
from gen.cli import main
from gen.data import Heads
from gen.devices import slow_bf16
from gen.files import WeightsError
from gen.methods import SmoothI2I, SpatialEntropy, StarGAN
from gen.methods.schedules import half_cosine, linear_fall, ramp
from gen.report import read_curves
from runs import HEADS, OPTIONS, TRAINER, arguments, differences, fit, read

ONE_BATCH = [f"--trainer.limit_{name}_batches=1" for name in ("val", "test", "predict")]


@pytest.fixture(autouse=True)
def measured(monkeypatch) -> list[str]:
    """Evaluate only says that it was called, and of what."""
    seen: list[str] = []

    def say(self, trainer, method):
        seen.append(f"{trainer.state.fn.value} {type(method).__name__}")

    for hook in ("on_validation_epoch_end", "on_test_epoch_end"):
        monkeypatch.setattr(Evaluate, hook, say)
    return seen


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


@pytest.mark.parametrize("kept", ["best.ckpt", "shipped.safetensors"])
def test_a_folder_with_any_part_of_a_run_is_used(tmp_path, kept):
    (tmp_path / kept).touch()
    with pytest.raises(FileExistsError, match="holds a run") as refused:
        fit("StarGAN", tmp_path)
    assert os.listdir(tmp_path) == [kept] and "resume" not in str(refused.value)


def test_the_refusal_comes_before_anything_is_built(run, monkeypatch):
    monkeypatch.setattr(LightningCLI, "instantiate_classes", lambda _: 1 / 0)
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


def test_a_config_whose_checkpoint_was_never_written_is_not_in_the_way(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1")
    fit("StarGAN", tmp_path)
    assert "StarGAN" in (tmp_path / "config.yaml").read_text()


def test_overwrite_does_not_move_what_it_is_to_read(run):
    before, last = contents(run), run / "last.ckpt"
    options = (f"--ckpt_path={last}", f"--model.init_from={last}", "--ckpt_path=last")
    for option in (*options, f"--model.init_from={run}"):
        with pytest.raises(ValueError, match="--overwrite: expected nothing to be read from"):
            fit("StarGAN", run, "--overwrite", option)
    read_in_place = (
        "StarGAN --data=Domains --data.root",
        "StyleFunction --data=Codes --model.judge",
    )
    for words in read_in_place:
        with pytest.raises(ValueError, match=f"--overwrite: .* got {run}/logs; choose"):
            main(f"fit --overwrite --out={run} --model={words}={run}/logs".split())
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
    best = saved | dict(global_step=2, state_dict=state)
    AtomicCheckpointIO().save_checkpoint(best, out / "best.ckpt")
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
    monkeypatch.setattr(LightningCLI, "instantiate_classes", lambda _: 1 / 0)
    with pytest.raises(WeightsError, match=f"^{given}: expected a checkpoint.*got no file"):
        main([command, *arguments("StarGAN", Path("run"), f"--ckpt_path={given}")[1:]])
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_random_weights_are_told_by_what_was_loaded(run, tmp_path, monkeypatch, command):
    """Not by the option: here it is given, and nothing comes of it."""
    monkeypatch.setattr("gen.methods.stargan.StarGAN.load_init", lambda self: None)
    with pytest.raises(ValueError, match="got random weights"):
        more = (f"--model.init_from={run / 'last.ckpt'}", *ONE_BATCH)
        main([command, *arguments("StarGAN", tmp_path, *more)[1:]])


def test_weights_that_were_loaded_or_trained_in_this_process_are_taken(run):
    Trainer(**TRAINER | dict(limit_val_batches=1), logger=False).validate(
        gen.load(run), Heads(**HEADS), verbose=False
    )


# ---- what is measured, and what is predicted ----------------------------------------------------


def test_validate_and_test_measure_without_an_evaluate_callback(run, measured):
    """Also with a config whose fit does not validate."""
    for command in ("validate", "test"):
        main([command, *arguments("StarGAN", run, "--ckpt_path=last")[1:]])
    assert measured == ["validate StarGAN", "test StarGAN"]


def test_one_evaluate_callback_is_enough(run, measured):
    more = ("--ckpt_path=last", "--trainer.callbacks=Evaluate", "--trainer.callbacks.max_sources=2")
    main(["validate", *arguments("StarGAN", run, *more)[1:]])
    assert measured == ["validate StarGAN"]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_what_no_callback_measures_is_refused_with_the_script_that_does(tmp_path, edited, command):
    method = "LinearDirections"
    with pytest.raises(ValueError, match=f"{method}; gen evaluate measures it"):
        main([command, *arguments(method, tmp_path, **edited)[1:]])


def test_predict_refuses_what_it_cannot_with_the_script_that_does(tmp_path):
    got = "a translator or a classifier, got StyleGAN2, .*; gen generate"
    with pytest.raises(ValueError, match=got):
        main(["predict", *arguments("StyleGAN2", tmp_path)[1:]])


def test_names_of_classes_may_have_commas_and_quotes(tmp_path):
    names, path = ["cats, small", 'a "dog"'], tmp_path / "predictions.csv"
    shares, index = torch.tensor([[0.75, 0.25]]), torch.tensor([3])
    Predictions().write_shares(path, SimpleNamespace(domains=names), shares, index)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["index", "class", *names],
            ["3", names[0], "0.750000", "0.250000"],
        ]


def test_a_run_without_an_end_has_no_length(caplog):
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    for total, steps in ((float("inf"), (999, 1000, 1001, 20_000)), (50, (4, 5, 50))):
        for done in steps:
            run = SimpleNamespace(global_step=done, callback_metrics={})
            run.estimated_stepping_batches = total
            Lines().on_train_batch_end(run, None)
    said = ["iteration 1,000", "iteration 20,000", "iteration 5 of 50 (10%)"]
    assert [one.strip() for one in caplog.messages] == [*said, "iteration 50 of 50 (100%)"]


@pytest.mark.parametrize("method", ["DomainClassifier", "AttributeClassifier"])
def test_predictions_of_classifiers_are_a_table(tmp_path, method):
    last = fit(method, tmp_path, "--data.train_images=30", steps=1)
    main(["predict", *arguments(method, tmp_path, "--ckpt_path=last")[1:]])
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    model, images = gen.load(last), Heads(**HEADS).val
    logits = model.classify(torch.stack([images[i]["x"] for i in range(len(images))]))
    names = getattr(model, "attribute_names", model.domains)
    shares = logits.sigmoid() if method == "AttributeClassifier" else logits.softmax(1)
    assert [[float(row[name]) for name in names] for row in rows] == [
        pytest.approx(row, abs=1e-5) for row in shares.tolist()
    ]
    if method == "DomainClassifier":
        assert [row["class"] for row in rows] == [names[k] for k in logits.argmax(1)]
    else:
        assert "class" not in rows[0]


def test_measuring_a_run_leaves_its_curves(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    before = read_curves(out)
    log = out / "validate/version_0"
    main(["validate", *arguments("StarGAN", out, "--ckpt_path=last")[1:]])
    log.mkdir(parents=True, exist_ok=True)
    (log / "metrics.csv").write_text("step,val/x\n0,1\n")
    assert read_curves(out) == before and len(before) == 3
    assert not list(out.glob("logs/version_1"))


# ---- its length ---------------------------------------------------------------------------------


@pytest.mark.parametrize("max_steps, steps", [(50, 6), (4, 4)])
def test_of_max_steps_and_max_epochs_the_smaller_wins_and_is_told(
    tmp_path, caplog, max_steps, steps
):
    caplog.set_level("INFO")
    more = ("--data.batch_size=8", "--trainer.max_epochs=2")
    last = fit("DomainClassifier", tmp_path, *more, steps=max_steps)  # of 24 images
    assert read(last)["global_step"] == steps
    assert f"max_epochs 2 of 3 iterations, and max_steps {max_steps}: the smaller" in caplog.text


def test_after_a_resume_with_other_epochs_the_schedule_ends_with_the_run(tmp_path, monkeypatch):
    """What was done plus what remains: 12 iterations, then one epoch of 3."""
    seen, start = [], SpatialEntropy.on_train_batch_start

    def watch(self, *args):
        start(self, *args)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        seen.append((self.global_step, *self.clock(), rate))

    monkeypatch.setattr(SpatialEntropy, "on_train_batch_start", watch)
    short = dict(lr_warmup_epochs=0, layer_decay=1.0, lr=1e-2, lr_min=1e-4)
    more = ["--data.batch_size=4", "--trainer.max_epochs=2"]
    last = fit("SpatialEntropy", tmp_path, *more, steps=-1, **short)
    assert [row[:3] for row in seen] == [(i, 12, 2) for i in range(12)]
    seen.clear()
    more = ["--data.batch_size=8", "--trainer.max_epochs=3", f"--ckpt_path={last}"]
    assert read(fit("SpatialEntropy", tmp_path, *more, steps=-1, **short))["global_step"] == 15
    assert [row[:3] for row in seen] == [(i, 15, 3) for i in (12, 13, 14)]
    rates = [row[3] for row in seen]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-3


def test_no_schedule_leaves_its_last_value():
    assert [half_cosine(k, 10) for k in (10, 11, 25)] == [0, 0, 0]
    assert [ramp(k, 20) for k in (20, 21, 50)] == [0, 0, 0]
    assert [linear_fall(k, 5, 10) for k in (15, 16, 90)] == [0, 0, 0]
    for cls, name in [(StarGAN, "weights"), (SmoothI2I, "weights")]:
        method = cls(**OPTIONS[cls.__name__])
        assert getattr(method, name)(10**5) == getattr(method, name)(10**6)
    options = dict(lr=1.0, lr_min=0.1, lr_iters=9, lr_decay_start=1, lr_decay_iters=5)
    options |= dict(lr_warmup_iters=2, lr_warmup_epochs=1)
    run = SimpleNamespace(hparams=SimpleNamespace(**options), clock=lambda: (9, 3))
    for name in dir(gen.methods):
        factor = getattr(gen.methods, name).lr_factor
        assert factor(run, 9) == factor(run, 10) == factor(run, 99), name


def test_a_typed_integer_stays_one():
    """In whatever order a package that was imported before has written the union."""
    parser = ArgumentParser()
    parser.add_argument("--a", type=Union[float, int, None])  # noqa: UP007
    runs.put_integers_first(parser)
    assert [type(parser.parse_args([f"--a={v}"]).a) for v in ("1", "1.0")] == [int, float]
    (action,) = [a for a in parser._actions if a.dest == "a"]
    assert get_args(action._typehint) == (int, float, type(None))


def test_one_batch_is_one_batch(tmp_path, capsys, monkeypatch):
    """Also where another package has written the union the other way round."""
    add = LightningCLI.add_core_arguments_to_parser

    def float_first(self, parser):
        add(self, parser)
        for action in parser._actions:
            kinds = get_args(getattr(action, "_typehint", None))
            if {int, float} <= {*kinds}:
                action._typehint = float | int | None

    monkeypatch.setattr(LightningCLI, "add_core_arguments_to_parser", float_first)
    limits = [f"--trainer.{name}=1" for name in ("limit_val_batches", "val_check_interval")]
    (tmp_path / "x.yaml").write_text("trainer:\n  limit_train_batches: 1\n")
    with pytest.raises(SystemExit):
        main([*arguments("StarGAN", tmp_path, *limits), f"-c={tmp_path}/x.yaml", "--print_config"])
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    names = ("limit_train_batches", "limit_val_batches", "val_check_interval")
    assert [(trainer[name], type(trainer[name])) for name in names] == [(1, int)] * 3


def test_without_a_terminal_a_line_each_tenth_tells_how_far_it_is(tmp_path, caplog):
    caplog.set_level("INFO")
    fit("DomainClassifier", tmp_path, "--trainer.enable_progress_bar=true", steps=20)
    lines = [m for m in caplog.messages if m.startswith("iteration ")]
    assert [line.split("(")[0] for line in lines] == [
        f"iteration {done} of 20 " for done in range(2, 21, 2)
    ]
    assert "(10%) train/ce=" in lines[0] and "(100%)" in lines[-1]


def test_a_config_says_what_a_run_was_trained_on(run, tmp_path):
    out = runs.read_saved(run / "config.yaml")
    assert (out.data, out.root, out.init_from) == ("gen.data.Heads", "", "")
    assert out.model.endswith(".StarGAN") and out.out == str(run)
    config = tmp_path / "config.yaml"
    config.write_text("data: {init_args: {root: a/b}}\nmodel: {init_args: {init_from: c}}")
    assert runs.read_saved(config) == ("", "a/b", "c", "", "", "")
    for value in ("bf16-mixed", "32"):
        config.write_text(f"trainer: {{precision: {value}}}")
        assert runs.read_saved(config).precision == value
    for nothing in ("", "data:", "{}"):
        config.write_text(nothing)
        assert runs.read_saved(config) == ("", "", "", "", "", "")


ODD = [
    *("3", "[1]", "text", "data: x", "data: [1]", "data: {class_path: {a: 1}}"),
    "data: {init_args: 3}",
    "data: {init_args: {root: [1]}}", "data: {class_path: !!binary aaaa}",
    "model: {init_args: {init_from: 2}}", "trainer: {precision: [1]}",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_a_config_of_no_run_is_refused_in_words(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(WeightsError, match="config.yaml: expected the config of a run, with text"):
        runs.read_saved(tmp_path / "config.yaml")


# ---- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, precision, told",
    [("AVX2", "bf16-mixed", 1), ("AVX2", "32-true", 0), ("AVX512", "bf16-mixed", 0)],
)
def test_bfloat16_on_a_cpu_where_it_is_slow_is_told(
    tmp_path, monkeypatch, caplog, kind, precision, told
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kind)
    caplog.set_level("INFO")
    fit("StarGAN", tmp_path / "run", f"--trainer.precision={precision}", steps=1)
    lines = [m for m in caplog.messages if "--trainer.precision 32-true" in m]
    assert len(lines) == told and all("AVX2, no AVX512" in line for line in lines)


def test_bfloat16_is_slow_on_cpus_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert [slow_bf16(torch.device(d)) for d in ("cpu", "cuda", "mps")] == ["AVX2", "", ""]

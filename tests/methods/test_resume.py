"""A run that was cut and resumed is the run that was not: bit for bit, and by its command line."""

import shutil

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch.optim.optimizer import register_optimizer_step_post_hook

from gen.callbacks import Last
from gen.cli import main
from gen.files import WeightsError
from gen.methods import SpatialEntropy
from gen.methods.base import GANMethod
from runs import arguments, differences, fit, losses, read

FIRST, MORE = 3, 4  # iterations before and after the cut


VALIDATE = ("--trainer.limit_val_batches=1", f"--trainer.val_check_interval={FIRST}")
SAVES = {"StarGAN": VALIDATE, "SmoothI2I": (f"--save_every={FIRST}",)}  # what saves the cut


@pytest.fixture(scope="module", params=SAVES)
def whole(request, tmp_path_factory):
    """One run of FIRST + MORE iterations, and the checkpoint that it wrote in between."""
    out = tmp_path_factory.mktemp(request.param)
    save = Last.save

    def keep(self, trainer):
        save(self, trainer)
        if trainer.global_step == FIRST:
            shutil.copy(self.path, out / "cut.ckpt")

    samples = ["--trainer.callbacks=Samples", "--trainer.callbacks.every_n_steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Last, "save", keep)
        fit(request.param, out, *SAVES[request.param], *samples, steps=FIRST + MORE)
    return request.param, out


def assert_same_run(a, b):
    a, b = read(a), read(b)
    assert a["global_step"] == b["global_step"] == FIRST + MORE
    states = {k for k in a["state_dict"] if k.startswith("ema.module.generator")}
    moments = a["optimizer_states"][0]["state"][0]
    assert states and {"exp_avg", "exp_avg_sq"} <= set(moments)
    for part in ("state_dict", "optimizer_states", "hyper_parameters"):
        assert not differences(a[part], b[part], part)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, workers, tmp_path):
    method, out = whole
    cut = out / "cut.ckpt"
    assert read(cut)["global_step"] == FIRST
    more = (f"--ckpt_path={cut}", f"--data.num_workers={workers}", *SAVES[method])
    assert_same_run(out / "last.ckpt", fit(method, tmp_path, *more, steps=FIRST + MORE))
    resumed, uncut = losses(tmp_path), losses(out)[FIRST:]
    assert [int(row["step"]) for row in resumed] == list(range(FIRST, FIRST + MORE))
    for a, b in zip(resumed, uncut, strict=True):  # lazy R1, D's logits: last values are held
        assert {k: v for k, v in a.items() if v} == {k: v for k, v in b.items() if a.get(k)}


@pytest.mark.parametrize("unit", ["iterations", "epochs"])
def test_a_run_killed_while_it_validates_validates_when_it_is_resumed(unit, tmp_path, monkeypatch):
    first, options, longer = {  # how many iterations before a validation; then some more
        "iterations": (3, ["--trainer.val_check_interval=3"], "--trainer.max_steps=5"),
        "epochs": (12, ["--trainer.check_val_every_n_epoch=1"], "--trainer.max_epochs=3"),
    }[unit]
    end = ["--trainer.max_steps=4"] if unit == "iterations" else ["--trainer.max_epochs=2"]
    options = ["--trainer.limit_val_batches=1", f"--save_every={first}", *options]

    def run(name, *more):
        return fit("SpatialEntropy", tmp_path / name, *options, *more, steps=-1)

    def scores(name):
        rows = [(int(row["step"]), row.get("val/top1")) for row in losses(tmp_path / name)]
        return [row for row in rows if row[1]]

    whole = run("whole", *end)
    with monkeypatch.context() as patch:
        patch.setattr(SpatialEntropy, "validation_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("cut", *end)
    cut = tmp_path / "cut" / "last.ckpt"
    assert read(cut)["global_step"] == first
    more = run("more", f"--ckpt_path={cut}", *end)
    expected = {"iterations": [2], "epochs": [11, 23]}[unit]
    assert [step for step, _ in scores("whole")] == expected
    assert scores("more") == scores("whole")
    for part in ("state_dict", "optimizer_states", "loops"):
        assert not differences(read(whole)[part], read(more)[part], part)
    run("longer", f"--ckpt_path={whole}", longer)  # a validation that is done is not repeated
    assert [step for step, _ in scores("longer")] == {"iterations": [], "epochs": [35]}[unit]


def test_finished_run_that_is_extended_equals_the_longer_run(whole, tmp_path):
    method, out = whole
    first = fit(method, tmp_path / "first", steps=FIRST)
    more = fit(method, tmp_path / "more", f"--ckpt_path={first}", steps=FIRST + MORE)
    assert_same_run(out / "last.ckpt", more)


def test_a_run_writes_one_checkpoint_and_no_copies(whole):
    _, out = whole
    assert {p.name for p in out.rglob("*.ckpt")} == {"cut.ckpt", "last.ckpt"}


def test_the_comparison_sees_a_single_bit(whole):
    _, out = whole
    a, b = read(out / "last.ckpt"), read(out / "last.ckpt")
    assert not differences(a["optimizer_states"], b["optimizer_states"])
    moment = b["optimizer_states"][2]["state"][1]["exp_avg"]
    moment.view(-1)[-1] = torch.nextafter(moment.view(-1)[-1], torch.tensor(9.0))
    assert differences(a["optimizer_states"], b["optimizer_states"]) == ["[2].state.1.exp_avg"]


def test_the_saved_config_runs_again_to_the_same_losses(whole, tmp_path):
    _, out = whole
    main(["fit", "-c", str(out / "config.yaml"), f"--out={tmp_path}", "--trainer.max_steps=2"])
    first, again = losses(out)[:2], losses(tmp_path)
    assert len(first[0]) > 12  # all terms of all phases
    assert again == first
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["out"] == str(tmp_path) and config["trainer"]["callbacks"]


def test_the_command_line_wins_on_resume_and_the_difference_is_printed(tmp_path, caplog):
    r1 = dict(lr=1e-3, r1_every=1)
    first = fit("StarGAN", tmp_path / "a", steps=1, **r1)
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    new = dict(lr=2e-3, lambda_cyc=3.0, r1_every=1)
    last = read(fit("StarGAN", tmp_path / "b", f"--ckpt_path={first}", steps=2, **new))
    assert last["global_step"] == 2
    assert last["hyper_parameters"]["lr"] == 2e-3
    groups = [o["param_groups"][0] for o in last["optimizer_states"]]  # of G, F, E, D
    assert [group["lr"] for group in groups] == [2e-3, 1e-6, 2e-3, 2e-3]
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("resume:")]
    assert told == [
        "resume: lambda_cyc was 1.0, is now 3.0",
        "resume: lr was 0.001, is now 0.002",
        "resume: trainer.max_steps was 1, is now 2",
    ]


def test_what_differs_of_data_and_trainer_is_printed_too(tmp_path, caplog):
    first = fit("SpatialEntropy", tmp_path / "a", steps=1)
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    more = ["--data.batch_size=4", "--trainer.precision=bf16-mixed", "--save_every=7"]
    more += ["--trainer.callbacks=test_resume.Nothing", "--seed_everything=1"]
    fit("SpatialEntropy", tmp_path / "b", f"--ckpt_path={first}", *more, steps=1)
    told = [m for m in caplog.messages if m.startswith("resume:")]
    names = ["seed_everything", "trainer.precision", "trainer.callbacks", "save_every"]
    assert [m.split()[1] for m in told] == [*names[:3], "data.batch_size", "save_every"]
    assert told[3] == "resume: data.batch_size was 2, is now 4" and "Nothing" in told[2]
    caplog.clear()
    main(["fit", "-c", str(tmp_path / "a/config.yaml"), f"--ckpt_path={first}"])
    assert not [m for m in caplog.messages if m.startswith("resume:")]


class Nothing(Callback):
    pass


def test_other_groups_of_parameters_are_refused_with_the_way_out(tmp_path):
    first = fit("SpatialEntropy", tmp_path / "a", steps=1)
    for layer_decay, got in [(1.0, "2 groups of parameters.*got"), (0.8, "")]:
        more = (f"--ckpt_path={first}", f"--model.layer_decay={layer_decay}")
        if got:
            with pytest.raises(ValueError, match=f"expected a checkpoint with {got}.*init_from"):
                fit("SpatialEntropy", tmp_path / "b", *more, steps=2)
        main(["validate", *arguments("SpatialEntropy", tmp_path / "c", *more)[1:]])  # needs none
    assert not (tmp_path / "b/last.ckpt").exists()


def rates(checkpoint):
    return [o["param_groups"][0]["lr"] for o in read(checkpoint)["optimizer_states"]]  # G, F, E, D


def test_learning_rates_fall_as_a_function_of_the_iteration_also_after_a_resume(tmp_path):
    decay = dict(lr=1e-3, lr_mapping=1e-4, lr_decay_start=1, lr_decay_iters=4, r1_every=1)
    first = fit("StarGAN", tmp_path / "a", steps=2, **decay)  # iterations 0 and 1
    assert rates(first) == [1e-3, 1e-4, 1e-3, 1e-3]
    more = fit("StarGAN", tmp_path / "b", f"--ckpt_path={first}", steps=4, **decay)  # 2 and 3
    assert rates(more) == pytest.approx([5e-4, 5e-5, 5e-4, 5e-4])
    new = decay | dict(lr=2e-3)  # the command line wins
    last = fit("StarGAN", tmp_path / "c", f"--ckpt_path={more}", steps=5, **new)  # iteration 4
    assert rates(last) == pytest.approx([5e-4, 2.5e-5, 5e-4, 5e-4])


def test_resuming_with_another_method_is_printed(tmp_path, caplog):
    first = fit("StarGAN", tmp_path / "a", steps=1)
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    fit("SmoothI2I", tmp_path / "b", f"--ckpt_path={first}", steps=2)
    assert "resume: method was StarGAN, is now SmoothI2I" in caplog.messages


def test_resume_with_other_widths_or_domains_names_what_differs(tmp_path):
    first = fit("StarGAN", tmp_path / "a", steps=1)
    told = (
        r"^checkpoint: mapping_network\S+: expected shape \(16, 4\), got \(8, 4\); give the model"
    )
    with pytest.raises(WeightsError, match=told):
        fit("StarGAN", tmp_path / "b", f"--ckpt_path={first}", max_channels=16)
    checkpoint = read(first)
    torch.save(checkpoint | {"domains": ["a", "b", "c"]}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\], got \['bear', 'cat', 'dog'\]"):
        fit("StarGAN", tmp_path / "c", f"--ckpt_path={tmp_path / 'other.ckpt'}")


def test_max_steps_counts_iterations_not_optimizer_steps(tmp_path, monkeypatch):
    steps, iterations = [], []
    finish = GANMethod.finish

    def record(self, *args):
        finish(self, *args)
        iterations.append(self.global_step)

    monkeypatch.setattr(GANMethod, "finish", record)
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: steps.append(id(optimizer)))
    try:
        last = fit("StarGAN", tmp_path, steps=5)
    finally:
        hook.remove()
    assert iterations == [1, 2, 3, 4, 5] and read(last)["global_step"] == 5
    g, f, e, d = (steps.count(i) for i in dict.fromkeys(steps[k] for k in (2, 3, 4, 0)))
    assert (g, f, e, d) == (10, 5, 5, 10)
    moments = [o["state"][0]["step"].item() for o in read(last)["optimizer_states"]]
    assert moments == [10, 5, 5, 10]

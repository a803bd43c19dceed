"""The classifier of domains: its judgement, and the promises that every method keeps."""

import copy
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import gen
from classifier_runs import ALL, FIRST, NAME, batch, check_nan, check_resumed
from ddp import run
from gen.checkpoint import export
from gen.cli import main
from gen.data import Domains, Heads
from gen.files import WeightsError
from gen.methods.base import GANMethod, Method, NonFiniteLoss
from gen.methods.domain_classifier import DomainClassifier
from gen.methods.image_classifier import disturbed
from harness import bare
from runs import CLASSIFIER, HEADS, arguments, cut_run, differences, fit, flags, losses, read

ROOT = Path(__file__).resolve().parents[2]
TINY = CLASSIFIER | dict(num_domains=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return cut_run(NAME, tmp_path_factory.mktemp(NAME), *ALL)


# ---- judgement ----------------------------------------------------------------------------------


def test_it_learns_from_images_and_references():
    method = bare(DomainClassifier)(**TINY, lr=1e-2, lr_warmup_iters=0)
    images = batch(6)
    for key, y in (("x", "y"), ("x_ref", "y_ref"), ("x_ref2", "y_ref")):  # a domain has its colour
        images[key] = 0.3 * images[key] + 0.6 * F.one_hot(images[y], 3)[:, :, None, None]
    (optimizer,) = method.configure_optimizers()
    for method.global_step in range(25):
        optimizer.zero_grad()
        method.training_step(images).backward()
        optimizer.step()
    assert method.terms["train/accuracy"] == 1 and method.terms["train/ce"] < 0.7
    assert torch.equal(method.classify(images["x"]).argmax(1), images["y"])


def test_validation_counts_every_image_once(whole):
    images, method = Heads(**HEADS).val, gen.load(whole / "cut.ckpt")
    told = method.classify(torch.stack([images[i]["x"] for i in range(len(images))])).argmax(1)
    right = (told == images.labels).float()
    row = next(row for row in losses(whole) if row["val/accuracy"])
    assert float(row["val/accuracy"]) == pytest.approx(right.mean().item())
    for y, name in enumerate(images.domains):
        mean = right[images.labels == y].mean().item()
        assert float(row[f"val/accuracy_{name}"]) == pytest.approx(mean)
    assert 0 < right.mean() < 1


def test_domains_that_were_not_seen_have_no_accuracy(tmp_path):
    limit = ("--trainer.limit_val_batches=0.4", "--trainer.val_check_interval=1")
    fit(NAME, tmp_path, *limit, "--data.val_batch_size=4", steps=1)
    assert {k for k in losses(tmp_path)[0] if "val" in k} == {"val/accuracy", "val/accuracy_bear"}


def test_judgement_depends_on_the_image_alone():
    method, x = DomainClassifier(**TINY), batch(6)["x"]
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    before, kept = copy.deepcopy(method.state_dict()), x.clone()
    method.eval()
    told = method.classify(x)
    assert told.shape == (6, 3) and told.is_inference() and told.dtype == torch.float32
    method.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method.classify(x), told)
    assert all(module.training for module in method.net.modules())
    alone = torch.cat([method.classify(one) for one in x.split(1)])
    torch.testing.assert_close(alone, told, atol=1e-5, rtol=0)
    assert torch.equal(x, kept) and not differences(method.state_dict(), before)
    assert method.classify(torch.ones(1, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 64, 64), (1, 1, 32, 32), (1, 3, 32, 16)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 32, 32\), got"):
        DomainClassifier(**TINY).classify(torch.zeros(shape))


@pytest.mark.parametrize("name", ["resnet_nope", "hf-hub:some/model", "local-dir:/tmp", ""])
def test_networks_come_from_timm_alone(name):
    with pytest.raises(ValueError, match="expected a network of timm, got"):
        DomainClassifier(model_name=name)


def test_the_seed_decides_the_first_weights():
    a, b, c = DomainClassifier(**TINY), DomainClassifier(**TINY), DomainClassifier(**TINY, seed=1)
    assert not differences(a.state_dict(), b.state_dict())
    assert differences(a.state_dict(), c.state_dict())


# ---- disturbances -------------------------------------------------------------------------------


def test_disturbances_are_drawn_from_their_generator_and_change_no_input():
    x = batch(5)["x"]
    kept = x.clone()
    a, b, c = (disturbed(x, 1.0, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c) and torch.equal(x, kept)
    assert a.shape == x.shape and a.isfinite().all()
    weak = disturbed(x, 1e-4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weak, x, atol=5e-3, rtol=0)


def test_each_image_is_disturbed_in_its_own_way():
    x = batch(1)["x"].expand(8, -1, -1, -1)
    made = disturbed(x, 1.0, torch.Generator().manual_seed(0))
    assert not any(torch.allclose(p, q) for i, p in enumerate(made) for q in made[:i])


def test_no_disturbance_is_not_computed(monkeypatch):
    monkeypatch.setattr("gen.methods.image_classifier.disturbed", pytest.fail)
    images = batch()
    method = bare(DomainClassifier)(**TINY, disturb=0.0, label_smoothing=0.0)
    logits = copy.deepcopy(method.net)(torch.cat([images[k] for k in ("x", "x_ref", "x_ref2")]))
    y = torch.cat([images[k] for k in ("y", "y_ref", "y_ref")])
    torch.testing.assert_close(method.training_step(images), F.cross_entropy(logits, y))


# ---- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, workers, tmp_path):
    check_resumed(NAME, whole, tmp_path, workers)


def test_max_steps_counts_iterations_and_the_rate_depends_on_them_alone(whole):
    last = read(whole / "last.ckpt")  # the rate of iteration 6, the last
    assert {float(s["step"]) for s in last["optimizer_states"][0]["state"].values()} == {7.0}
    rates = [group["lr"] for group in last["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx([1e-3 * (1 - 3 / 9)] * 2)
    method = gen.load(whole / "last.ckpt")
    factors = [method.lr_factor(i) for i in (0, 1, 3, 6, 12, 99)]
    assert factors == pytest.approx([0.5, 1, 1, 2 / 3, 0, 0])
    assert DomainClassifier(**TINY, lr_warmup_iters=0).lr_factor(10**6) == 1


def test_the_command_line_wins_on_resume_and_the_difference_is_printed(whole, tmp_path, caplog):
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    new = dict(lr=2e-3, disturb=0.5, lr_decay_iters=0)
    last = read(fit(NAME, tmp_path, f"--ckpt_path={whole / 'cut.ckpt'}", steps=4, **new))
    assert [g["lr"] for g in last["optimizer_states"][0]["param_groups"]] == [2e-3, 2e-3]
    told = [m for m in caplog.messages if m.startswith("resume:") and "trainer." not in m]
    assert told == [
        "resume: lr was 0.001, is now 0.002",
        "resume: lr_decay_iters was 9, is now 0",
        "resume: disturb was 1.0, is now 0.5",
    ]
    with pytest.raises(WeightsError, match=r"^checkpoint: net\.\S+: expected shape .*, got"):
        fit(NAME, tmp_path / "b", f"--ckpt_path={whole / 'cut.ckpt'}", model_name="resnet10t")


def test_a_shipped_file_judges_as_the_run_did_and_can_be_tuned(whole, tmp_path):
    out = tmp_path / "x.safetensors"
    export(whole / "last.ckpt", out)
    a, b, x = gen.load(whole / "last.ckpt"), gen.load(out), batch()["x"]
    assert type(b) is DomainClassifier and b.domains == ["bear", "cat", "dog"]
    assert torch.equal(a.classify(x), b.classify(x)) and b.img_size == 32
    tuned = read(fit(NAME, tmp_path / "tuned", steps=1, init_from=out))
    assert tuned["global_step"] == 1
    main(["validate", *arguments(NAME, tmp_path / "val", *ALL, init_from=out)[1:]])
    row = next(row for row in losses(tmp_path / "val") if row["val/accuracy"])
    images = Heads(**HEADS).val
    told = b.classify(torch.stack([images[i]["x"] for i in range(len(images))])).argmax(1)
    assert float(row["val/accuracy"]) == pytest.approx((told == images.labels).float().mean())


def test_a_signal_saves_within_one_iteration(tmp_path, monkeypatch):
    step = DomainClassifier.training_step

    def interrupted(self, *args):
        if self.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(DomainClassifier, "training_step", interrupted)
    monkeypatch.setattr(DomainClassifier, "validation_step", lambda *_: pytest.fail("validated"))
    with pytest.raises(SystemExit) as stop:
        fit(NAME, tmp_path, "--trainer.limit_val_batches=1", steps=1000)
    assert stop.value.code == 128 + signal.SIGTERM
    assert read(tmp_path / "last.ckpt")["global_step"] == 3


def test_a_nan_stops_at_that_iteration_and_names_the_term(tmp_path, monkeypatch):
    check_nan(NAME, "train/ce", tmp_path, monkeypatch)


def test_weights_that_a_nan_gradient_has_touched_are_never_saved(tmp_path, monkeypatch):
    step = DomainClassifier.training_step

    def poisoned(self, *args):
        loss = step(self, *args)
        return loss + (loss - loss).sqrt() if self.global_step == 2 else loss  # infinite slope

    monkeypatch.setattr(DomainClassifier, "training_step", poisoned)
    with pytest.raises(NonFiniteLoss, match="iteration 3: expected finite weights.*net"):
        fit(NAME, tmp_path, "--save_every=1", steps=1000)
    assert read(tmp_path / "last.ckpt")["global_step"] == 2


def test_gathering_gradients_over_batches_is_refused():
    method = DomainClassifier(**TINY)
    method._trainer = SimpleNamespace(accumulate_grad_batches=2)
    with pytest.raises(ValueError, match="accumulate_grad_batches: expected 1, got 2: .*raise"):
        method.on_fit_start()


def test_it_carries_no_parts_of_a_gan():
    method = DomainClassifier(**TINY)
    assert isinstance(method, Method) and not isinstance(method, GANMethod)
    assert method.automatic_optimization and not hasattr(method, "ema")
    assert not [k for k in method.state_dict() if not k.startswith("net.")]


def test_two_processes_train_and_judge_as_one_also_with_unequal_shares(tmp_path):
    nine = dict(
        val_images=3, val_batch_size=4
    )  # images: 2 batches for one process, 1 for the other
    done = run(NAME, tmp_path, *ALL, *flags("data", nine), steps=FIRST)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (read(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert a["strategy"] == "DDPStrategy"
    assert not differences(a["state"], b["state"])
    last = read(tmp_path / "last.ckpt")
    assert last["global_step"] == FIRST and not differences(last["state_dict"], a["state"])
    draws = torch.cat([seen["draws"] for rank in (a, b) for seen in rank["seen"]])
    assert len(draws.unique()) == 6
    row = next(row for row in losses(tmp_path) if row["val/accuracy"])
    images, method = Heads(**HEADS | nine).val, gen.load(tmp_path / "last.ckpt")
    told = method.classify(torch.stack([images[i]["x"] for i in range(len(images))])).argmax(1)
    assert float(row["val/accuracy"]) == pytest.approx((told == images.labels).float().mean())


# ---- the shipped one ----------------------------------------------------------------------------


def test_the_shipped_classifier_knows_the_vendors():
    path = ROOT / "checkpoints/domain_classifier_emoji64.safetensors"
    if not (ROOT / "data/emoji").exists():
        pytest.skip("no emoji: `python data_prep/emoji.py --size 64 --out data/emoji`")
    images, method = Domains(str(ROOT / "data/emoji"), img_size=64).val, gen.load(path)
    assert path.stat().st_size < 8e6 and method.domains == images.domains
    some = range(0, len(images), 8)
    told = method.classify(torch.stack([images[i]["x"] for i in some])).argmax(1)
    assert (told == images.labels[some]).float().mean() > 0.9

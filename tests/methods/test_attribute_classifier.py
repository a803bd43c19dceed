"""The multi-label classifier: its judgement, its statistics, and the promises of every method."""

import copy

import pytest
import torch
import torch.nn.functional as F

import gen
from classifier_runs import ALL, FIRST, check_nan, check_resumed
from classifier_runs import batch as images_of
from ddp import run
from gen.checkpoint import export
from gen.cli import main
from gen.data import Heads
from gen.data.base import LabelledImages
from gen.data.heads import HeadImages
from gen.methods.attribute_classifier import AttributeClassifier
from harness import bare
from runs import CLASSIFIER, HEADS, arguments, cut_run, differences, fit, flags, losses, read

NAME = "AttributeClassifier"
K, FACTORS = 6, 22


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return cut_run(NAME, tmp_path_factory.mktemp(NAME), *ALL)


def batch(n=4, seed=0):
    """Images, attributes (N, 2) and factors (N, 1) that do not depend on one another."""
    rng, images = torch.Generator().manual_seed(seed), images_of(n, seed)
    for of in ("", "_ref", "_ref2"):
        images[f"attributes{of}"] = torch.randint(2, (n, 2), generator=rng).float()
        images[f"factors{of}"] = 5 + 2 * torch.randn(n, 1, generator=rng)
    return images


def small(**options):
    return bare(AttributeClassifier)(
        **CLASSIFIER, attributes="red,green", factors="blue", lr_warmup_iters=0, **options
    )


def validation(**options):
    images = Heads(**HEADS | options).val
    some = [images[i] for i in range(len(images))]
    return [torch.stack([one[k] for one in some]) for k in ("x", "attributes", "factors")]


# ---- judgement ----------------------------------------------------------------------------------


def test_it_learns_attributes_and_factors_of_all_three_images():
    method, images = small(lr=1e-2), batch(8)
    labels = []
    for of in ("", "_ref", "_ref2"):  # an attribute or factor is the level of a colour
        a, f = images[f"attributes{of}"], images[f"factors{of}"]
        level = torch.cat([a - 0.5, (f - 5) / 5], 1)  # (N, 3)
        images[f"x{of}"] = 0.3 * images[f"x{of}"] + level[:, :, None, None]
        labels += [dict(attributes=p, factors=q) for p, q in zip(a, f, strict=True)]
    method.measure(labels)
    (optimizer,) = method.configure_optimizers()
    for method.global_step in range(40):
        optimizer.zero_grad()
        method.training_step(images).backward()
        optimizer.step()
    assert method.terms["train/accuracy"] == 1
    for of in ("", "_ref", "_ref2"):
        assert torch.equal(
            (method.classify(images[f"x{of}"]) > 0).float(), images[f"attributes{of}"]
        )
        error = (method.regress(images[f"x{of}"]) - images[f"factors{of}"]).square().mean()
        assert error < 0.5 * 2**2  # a half of the variance, in the units of the data


def test_the_loss_is_weighted_cross_entropy_and_error_in_standard_deviations(monkeypatch):
    monkeypatch.setattr("gen.methods.image_classifier.disturbed", pytest.fail)
    method, images = small(disturb=0.0), batch()
    share, std = torch.tensor([0.25, 0.5]), 2.0
    values = [(1.0, 0.0, 3.0), (0.0, 1.0, 3.0), (0.0, 0.0, 7.0), (0.0, 1.0, 7.0)]
    method.measure(
        [dict(attributes=torch.tensor(v[:2]), factors=torch.tensor(v[2:])) for v in values]
    )
    assert method.pos_weight.tolist() == [3, 1] and method.factor_mean.tolist() == [5]
    assert float(method.factor_std) == pytest.approx(std * (4 / 3) ** 0.5)
    x, a, f = (
        torch.cat([images[name + of] for of in ("", "_ref", "_ref2")])
        for name in ("x", "attributes", "factors")
    )
    out = copy.deepcopy(method.net)(x)
    p = out[:, :2].sigmoid()
    bce = -(a * p.log() * (1 - share) / share + (1 - a) * (1 - p).log()).mean()
    mse = F.mse_loss(out[:, 2:], (f - 5) / method.factor_std)
    torch.testing.assert_close(method.training_step(images), bce + mse)
    assert set(method.terms) == {"train/bce", "train/mse", "train/accuracy"}


def test_judgement_is_logits_and_factors_in_the_units_of_the_data(whole):
    method, x = gen.load(whole / "last.ckpt"), images_of(5)["x"]
    assert method.attribute_names == HeadImages.attribute_names
    assert method.factor_names == HeadImages.factor_names and method.img_size == 32
    method.train()
    logits, factors = method.classify(x), method.regress(x)
    assert logits.shape == (5, K) and factors.shape == (5, FACTORS)
    assert logits.is_inference() and factors.dtype == torch.float32
    assert all(module.training for module in method.net.modules())
    method.net.eval()
    with torch.no_grad():
        out = method.net(x)
    torch.testing.assert_close(logits.clone(), out[:, :K])
    train = Heads(**HEADS).train
    known = torch.stack([train.annotations(i)["factors"] for i in range(8)])
    expected = out[:, K:] * known.repeat(3, 1).std(0) + known.mean(0)
    torch.testing.assert_close(factors.clone(), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method.regress(x), factors)
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 32, 32\), got"):
        method.regress(x[:, :1])


def check_validation(out, method, **options):
    """The first validation's row holds accuracy and R^2 of all images of the split."""
    x, a, f = validation(**options)
    row = next(row for row in losses(out) if row["val/accuracy"])
    right = (method.classify(x) > 0) == (a > 0)  # (N, K)
    error = (method.regress(x) - f).square().sum(0)  # (F,)
    r2 = 1 - error / (f - f.mean(0)).square().sum(0)
    expected = {"": right.float().mean(), "_joint": right.all(1).float().mean()}
    expected |= {f"_{n}": right[:, i].float().mean() for i, n in enumerate(method.attribute_names)}
    got = {k.removeprefix("val/accuracy"): v for k, v in row.items() if "val/accuracy" in k}
    assert {k: float(v) for k, v in got.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}
    )
    for i, name in enumerate(method.factor_names):
        assert float(row[f"val/r2_{name}"]) == pytest.approx(float(r2[i]), rel=2e-3, abs=1e-3)
    assert float(row["val/r2"]) == pytest.approx(float(r2.mean()), rel=2e-3, abs=1e-3)
    assert 0 < right.float().mean() < 1


def test_validation_counts_every_image_once(whole):
    check_validation(whole, gen.load(whole / "cut.ckpt"))


def test_jointly_right_means_that_no_attribute_is_wrong(monkeypatch):
    method = small()
    labels = torch.tensor([[1.0, 0], [0, 0], [1, 1], [0, 1]])
    factors = torch.tensor([[1.0], [2.0], [3.0], [6.0]])
    told = torch.tensor([[0.2, -0.1, 1], [-3, -3, 2], [0.9, -0.2, 3], [0.1, 0.1, 4]])
    for part in (slice(0, 1), slice(1, 4)):  # batches of unequal size
        monkeypatch.setattr(method, "judge", lambda x, part=part: told[part], raising=False)
        method.validation_step(dict(x=None, attributes=labels[part], factors=factors[part]))
    method.on_validation_epoch_end()
    expected = dict(accuracy=0.75, accuracy_joint=0.5, accuracy_red=0.75, accuracy_green=0.75)
    expected |= dict(r2=1 - 4 / 14, r2_blue=1 - 4 / 14)
    got = {k.removeprefix("val/"): float(v) for k, v in method.terms.items()}
    assert got == pytest.approx(expected)


def test_the_seed_decides_the_first_weights():
    a, b, c = (AttributeClassifier(**CLASSIFIER, seed=seed) for seed in (0, 0, 1))
    assert not differences(a.state_dict(), b.state_dict())
    assert differences(a.state_dict(), c.state_dict())
    rest = {k for k in a.state_dict() if not k.startswith("net.")}
    assert rest == {"pos_weight", "factor_mean", "factor_std"}


# ---- what the data must have --------------------------------------------------------------------


@pytest.mark.parametrize("option", ["attributes", "factors"])
def test_other_names_than_those_of_the_data_are_refused(option, tmp_path):
    expected = f"expected data with the {option} spots,bear, got Heads with .*, or --model.{option}"
    with pytest.raises(ValueError, match=expected):
        fit(NAME, tmp_path, **{option: "spots,bear"})


def test_data_without_exact_labels_are_refused(tmp_path, monkeypatch):
    for name in ("attribute_names", "factor_names", "annotations"):
        monkeypatch.setattr(HeadImages, name, getattr(LabelledImages, name))
    with pytest.raises(ValueError, match="expected data with the attributes bear,.*with none; "):
        fit(NAME, tmp_path)


def test_labels_that_never_change_are_refused():
    one = dict(attributes=torch.tensor([0.0, 1.0]), factors=torch.tensor([3.0]))
    other = dict(attributes=torch.tensor([1.0, 1.0]), factors=torch.tensor([3.0]))
    with pytest.raises(ValueError, match="got 2 that share green, blue; add images"):
        small().measure([one, other])


# ---- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, workers, tmp_path):
    check_resumed(NAME, whole, tmp_path, workers)


@pytest.mark.parametrize("term", ["train/bce", "train/mse"])
def test_a_nan_stops_at_that_iteration_and_names_the_term(term, tmp_path, monkeypatch):
    check_nan(NAME, term, tmp_path, monkeypatch)


def test_a_shipped_file_judges_as_the_run_did_and_can_be_tuned(whole, tmp_path):
    out = tmp_path / "x.safetensors"
    export(whole / "last.ckpt", out)
    a, b, x = gen.load(whole / "last.ckpt"), gen.load(out), images_of(5)["x"]
    assert type(b) is AttributeClassifier and b.domains == ["bear", "cat", "dog"]
    assert torch.equal(a.classify(x), b.classify(x)) and torch.equal(a.regress(x), b.regress(x))
    assert b.attribute_names == a.attribute_names and b.factor_names == a.factor_names
    more = flags("data", dict(train_images=20))  # the statistics of the file stay
    tuned = read(fit(NAME, tmp_path / "tuned", *more, steps=1, init_from=out))
    assert tuned["global_step"] == 1
    assert torch.equal(tuned["state_dict"]["factor_mean"], b.factor_mean)
    main(["validate", *arguments(NAME, tmp_path / "val", *ALL, init_from=out)[1:]])
    check_validation(tmp_path / "val", b)


def test_two_processes_train_and_judge_as_one_also_with_unequal_shares(tmp_path):
    nine = dict(val_images=3, val_batch_size=4)
    done = run(NAME, tmp_path, *ALL, *flags("data", nine), steps=FIRST)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (read(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert not differences(a["state"], b["state"])
    check_validation(tmp_path, gen.load(tmp_path / "last.ckpt"), **nine)

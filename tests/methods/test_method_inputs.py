"""What methods refuse: data of another size, and images, latents and domains that are none."""

import warnings

import numpy as np
import pytest
import torch

from gen.cli import main
from gen.methods.attribute_classifier import AttributeClassifier
from gen.methods.domain_classifier import DomainClassifier
from gen.methods.spatial_entropy import SpatialEntropy
from gen.methods.stargan import StarGAN
from gen.methods.stylegan2 import StyleGAN2
from gen.metrics.smoothness import InterpolationSmoothness
from pictures import write
from runs import CLASSIFIER, GENERATOR, OPTIONS, TRAINER, VIT, WIDTHS, fit, flags

X = torch.zeros(2, 3, 32, 32)
Z = torch.zeros(2, 4)


@pytest.fixture(scope="module")
def method():
    method = StarGAN(**WIDTHS, num_domains=3)
    method.domains = ["bear", "cat", "dog"]
    return method


CODES = "Codes --data.z_dim=8"
METHODS = ["StarGAN", "StyleGAN2", "SpatialEntropy", "DomainClassifier", "AttributeClassifier"]


@pytest.mark.parametrize("name", METHODS)
def test_data_of_another_size_is_refused_before_it_trains(tmp_path, name):
    told = "--data.img_size: expected 32 px, as --model.img_size, got 64; set both alike"
    with pytest.raises(ValueError, match=told):
        fit(name, tmp_path / "run", "--data.img_size=64")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    "method, data, told",
    [
        (
            "StarGAN",
            "Heads --data.references=false",
            "for StarGAN, as Attributes or Domains or Heads give, got images, from",
        ),
        ("AttributeClassifier", CODES, "expected images for .* got codes, from Codes"),
        ("StyleFunction", "Heads", "expected codes for StyleFunction, as Codes give, got images"),
    ],
)
def test_data_of_another_kind_is_refused(tmp_path, method, data, told):
    command = f"fit --model={method} --data={data} --out={tmp_path / 'run'} --trainer.max_steps=1"
    with pytest.raises(ValueError, match=f"^--data: .*{told}"):
        main([*command.split(), *flags("model", OPTIONS[method]), *flags("trainer", TRAINER)])


@pytest.mark.parametrize(
    "x, told",
    [
        (X + 255, r"x: expected values in \[-1, 1\], got \[255, 255\]"),
        (X.byte(), "x: expected a float tensor in .* got torch.uint8"),
        (X.numpy(), "x: expected a float tensor in .* got float32"),
        (X[0], r"x: expected \(N, 3, H, W\)"),
        (X[:, :1], r"x: expected \(N, 3, H, W\)"),
        (
            torch.zeros(2, 3, 64, 64),
            r"expected images of \(32, 32\) px, got \(64, 64\); gen.inference.common.read",
        ),
        (torch.zeros(2, 3, 32, 48), r"got \(32, 48\)"),
        (X * torch.nan, "x: expected finite values"),
    ],
)
def test_images_that_are_none_are_refused(method, x, told):
    for call in (method.encode, lambda x: method.translate(x, 0, z=Z)):
        with pytest.raises(ValueError, match=told):
            call(x)
    for call in (lambda x: method.translate(X, 0, x_ref=x), lambda x: method.encode_style(x, 0)):
        with pytest.raises(ValueError, match=told.removeprefix("x: ")):
            call(x)


@pytest.mark.parametrize(
    "y", [-1, 3, 1.0, True, None, "fox", ["cat", "fox"], [0, 1, 2], torch.tensor([0.0, 1]), X]
)
def test_domains_that_are_none_are_refused(method, y):
    told = r"y: expected one of 0 \.\. 2 or of \['bear', 'cat', 'dog'\], or 2 of them, got"
    for call in (
        lambda: method.translate(X, y, z=Z),
        lambda: method.translate(X, y, style=torch.zeros(2, 8)),
        lambda: method.encode_style(X, y),
        lambda: method.map_style(Z, y),
    ):
        with pytest.raises(ValueError, match=told):
            call()


def test_domains_have_names(method):
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    one = method.translate(X, 1, z=z)
    for y in ("cat", ["cat", "cat"], np.int64(1), [1, 1], torch.tensor([1, 1])):
        torch.testing.assert_close(method.translate(X, y, z=z), one)
    both = method.map_style(z, ["dog", "bear"])
    assert torch.equal(both, method.map_style(z, torch.tensor([2, 0])))
    assert torch.equal(method.mean_style("dog", 9), method.mean_style(2, 9))


@pytest.mark.parametrize(
    "guide, told",
    [
        (dict(z=torch.zeros(2, 5)), r"z: expected latents \(N, 4\), got \(2, 5\)"),
        (dict(z=Z.numpy()), "z: expected a float tensor, got float32"),
        (dict(z=Z.long()), "z: expected a float tensor, got torch.int64"),
        (dict(style=torch.zeros(2, 9)), r"style: expected \(N, 8\) .* got \(2, 9\) for 2 sources"),
        (dict(style=torch.zeros(3, 8)), r"style: .* for N sources or one, got \(3, 8\) for 2"),
        (dict(z=torch.zeros(3, 4)), r"style: .* got \(3, 8\) for 2 sources"),
    ],
)
def test_guides_that_do_not_fit_are_refused(method, guide, told):
    with pytest.raises(ValueError, match=told):
        method.translate(X, 0, **guide)


@pytest.mark.parametrize(
    "classifier, call",
    [(DomainClassifier(**CLASSIFIER), "classify"), (SpatialEntropy(**VIT), "classify")]
    + [(SpatialEntropy(**VIT), "attention")]
    + [(AttributeClassifier(**CLASSIFIER), call) for call in ("classify", "regress")],
)
def test_classifiers_refuse_what_are_no_images(classifier, call):
    assert getattr(classifier, call)(X).isfinite().all()
    other = [X[..., :16]] * (call != "attention")  # which takes any size
    for wrong in (X + 255, X * torch.nan, X.byte(), X.numpy(), X[0], *other):
        with pytest.raises(ValueError, match="expected"):
            getattr(classifier, call)(wrong)


def test_a_generator_takes_names_and_refuses_the_rest():
    method = StyleGAN2(**GENERATOR, num_domains=2, conditional=True)
    method.domains = ["cat", "dog"]
    z = torch.ones(2, 8)
    assert torch.equal(method.generate(z, "dog"), method.generate(z, 1))
    for wrong, y in ((z, "fox"), (z, 2), (z, None), (z[:, :4], 0), (z.numpy(), 0)):
        with pytest.raises(ValueError, match="[yz]: expected"):
            method.generate(wrong, y)


# ---- training that teaches nothing --------------------------------------------------------------


@pytest.mark.parametrize("name", ["StarGAN", "SpatialEntropy", "DomainClassifier", "StyleGAN2"])
def test_one_class_teaches_a_generator_alone(tmp_path, name):
    data = write(tmp_path / "data", [f"only/{i}.png" for i in range(6)])
    kind = "Classes" if name == "SpatialEntropy" else "Domains"
    more = [f"--data={kind}", f"--data.root={data}", "--data.img_size=32", "--data.batch_size=2"]
    if name == "StyleGAN2":
        assert fit(name, tmp_path / "run", *more, "--data.num_workers=0", steps=1).exists()
        return
    with pytest.raises(ValueError, match=f"at least 2 domains for {name}, got "):
        fit(name, tmp_path / "run", *more)


@pytest.mark.parametrize(
    "patch, options, refused",
    [
        (32, dict(), "1 x 1"),
        (16, dict(), "2 x 2"),
        (8, dict(), ""),
        (16, dict(lambda_reg=0), ""),
        (16, dict(regularizer="none"), ""),
        (16, dict(regularizer="total_variation"), ""),
        (32, dict(regularizer="total_variation"), "1 x 1"),
        (32, dict(regularizer="head_decorrelation"), ""),
    ],
)
def test_a_grid_on_which_the_term_is_always_0_is_refused(patch, options, refused):
    method = SpatialEntropy(**VIT | dict(patch_size=patch) | options)
    if not refused:
        method.check_grid()
        return
    with pytest.raises(ValueError, match=f"lambda_reg: expected .* grid .* got {refused}: .*0"):
        method.check_grid()


def test_the_grid_is_checked_before_training(tmp_path):
    with pytest.raises(ValueError, match="lambda_reg: expected .* got 2 x 2"):
        fit("SpatialEntropy", tmp_path / "run", patch_size=16)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_smoothness_of_images_from_0_to_1_is_remarked_once(lpips_cache):
    metric = InterpolationSmoothness(frames=2, resize=None)
    bright = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"expected values in \[-1, 1\], got none below 0") as told:
        metric.update(bright)
        metric.update(bright)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InterpolationSmoothness(frames=2, resize=None).update(2 * bright - 1)

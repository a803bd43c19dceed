"""The step of StarGAN and SmoothI2I: gradients of the literal step, and who is trained by what."""

import copy

import pytest
import torch

from gen.methods.smooth_i2i import SmoothI2I
from gen.methods.stargan import StarGAN
from literal_step import LiteralStep
from steps import PHASES, SMOOTH, latents, make, make_batch, sgd


@pytest.mark.parametrize("cls, options", [(StarGAN, {}), (SmoothI2I, SMOOTH)])
def test_gradients_of_every_phase_equal_the_literal_step(cls, options, monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", sgd)
    ours = make(cls, lambda_ds=0.5, lambda_sty=1.5, **options)
    if cls is SmoothI2I:
        ours._lpips = ()
    literal = LiteralStep(copy.deepcopy(ours))
    batch = make_batch()
    z, z2 = latents(ours)
    literal(batch, z, z2)
    ours.training_step(batch)
    assert len(ours.recorded) == 4
    for phase, got in zip(PHASES, ours.recorded, strict=True):
        want = literal.gradients[phase]
        assert got.keys() == want.keys()
        scale = max(gradient.abs().max() for gradient in want.values())  # some are exactly 0
        for key, gradient in want.items():
            assert (got[key] - gradient).abs().max() < 1e-13 * scale, (phase, key)


@pytest.mark.parametrize("single", [False, True])
def test_who_is_trained_by_what(single):
    method = make(SmoothI2I, single_d_step=single, **SMOOTH)
    method._lpips = ()
    method.training_step(make_batch())
    trained = [{key[0] for key, g in grads.items()} for grads in method.recorded]
    assert trained == [{"D"}] * (1 if single else 2) + [{"G", "F", "E"}, {"G"}]
    for grads in method.recorded:
        for key, gradient in grads.items():
            assert gradient is not None, key


def test_zero_weight_is_neither_computed_nor_logged():
    off = dict(lambda_sty=0.0, lambda_ds=0.0, lambda_cyc=0.0, lambda_reg=0.0)
    smooth_off = dict(lambda_tri=0.0, lambda_sr=0.0, lambda_cont=0.0)
    method = make(SmoothI2I, **off, **smooth_off)
    method.training_step(make_batch())
    assert set(method.terms) == {"d/real", "d/fake", "latent/adv", "ref/adv"}


EXTRAS = {
    "shrink origin": dict(lambda_shr=1.0, shrink="origin"),
    "shrink centroid": dict(lambda_shr=1.0, shrink="centroid"),
    "shrink pairwise": dict(lambda_shr=1.0, shrink="pairwise"),
    "style mixup": dict(lambda_mix=1.0),
    "style mixup, both phases, half": dict(
        lambda_mix=1.0, mixup_phase="both", mixup_fraction=0.5, mixup_beta=0.2
    ),
    "image mixup": dict(lambda_mix_image=1.0, lambda_mix_d=0.5),
    "paper intent": dict(paper_intent=True),
}


@pytest.mark.parametrize("name", EXTRAS)
def test_every_option_changes_the_gradients_it_should(name):
    options = SMOOTH | EXTRAS[name]
    plain, method = make(SmoothI2I, **SMOOTH), make(SmoothI2I, **options)
    for m in (plain, method):
        m._lpips = ()
        m.training_step(make_batch())
    new = set(method.terms) - set(plain.terms)
    expected = {
        "shr": {"latent/shr"} if "lambda_shr" in options else set(),
        "mix": {"d/mix", "latent/mix"} if "lambda_mix" in options else set(),
        "image": {"d/mix_d", "latent/mix_image"} if "lambda_mix_image" in options else set(),
    }
    both = {"ref/mix"} if options.get("mixup_phase") == "both" else set()
    assert new == set().union(both, *expected.values())
    changed = {
        key[0]
        for a, b in zip(plain.recorded, method.recorded, strict=True)
        for key in b
        if not torch.equal(a[key], b[key])
    }
    want = {"F", "E"} if "shr" in name else {"E"} if "paper" in name else set("GFED")
    assert changed >= want or name == "image mixup" and changed >= {"E", "D"}
    assert all(value.isfinite() for value in method.terms.values())


def test_lazy_r1_is_as_strong_on_average():
    every, lazy = (make(StarGAN, r1_every=k, single_d_step=True) for k in (1, 4))
    for m in (every, lazy):
        m.training_step(make_batch())
    torch.testing.assert_close(lazy.terms["d/reg"], 4 * every.terms["d/reg"])
    lazy.global_step = 1
    lazy.training_step(make_batch())
    assert "d/reg" not in lazy.terms


def test_schedules_are_functions_of_the_iteration_alone():
    method = make(SmoothI2I, lambda_ds=2.0, ramp_start=40_000, ramp_iters=60_000, lambda_sr=1.0)
    assert method.weights(0)["ds"] == -2.0
    assert method.weights(50_000)["ds"] == -1.0
    assert method.weights(100_000)["ds"] == method.weights(200_000)["ds"] == 0.0
    golden = {40_000: 0.0, 40_001: 1 / 60_000, 70_000: 0.5, 100_000: 1.0}
    for iteration, value in golden.items():
        assert method.weights(iteration)["sr"] == pytest.approx(value, abs=1e-9)

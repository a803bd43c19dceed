"""StyleGAN2: its step and schedules, and the promises that every method keeps."""

import math
import runpy
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook

import gen
from conftest import ROOT
from ddp import run
from gen import viz
from gen.checkpoint import export
from gen.inference import generation
from gen.losses.adversarial import r1
from gen.methods.stylegan2 import StyleGAN2
from harness import bare
from runs import GENERATOR, cut_run, differences, fit, losses, read

NAME, FIRST, MORE = "StyleGAN2", 3, 4
TINY = GENERATOR | dict(num_domains=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run of FIRST + MORE iterations, and the checkpoint that it wrote in between."""
    samples = ["--trainer.callbacks=Samples", "--trainer.callbacks.every_n_steps=7"]
    return cut_run(NAME, tmp_path_factory.mktemp(NAME), f"--save_every={FIRST}", *samples)


def batch(n=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, 32, 32, generator=rng) * 2 - 1
    return dict(x=x, y=torch.arange(n) % 3)


def latents(n=4):
    return torch.randn(n, TINY["z_dim"], generator=torch.Generator().manual_seed(5))


# ---- the step -----------------------------------------------------------------------------------


def test_the_rate_falls():
    made = StyleGAN2(**GENERATOR, lr_decay_start=10, lr_decay_iters=4)
    assert [made.lr_factor(i) for i in (0, 10, 11, 13, 14, 99)] == [1, 1, 0.75, 0.25, 0, 0]
    assert StyleGAN2(**GENERATOR).lr_factor(10**6) == 1


def test_phases_are_steps_of_their_own_at_their_intervals():
    method, steps = bare(StyleGAN2)(**TINY | dict(r1_every=4, pl_every=2)), []
    opt_g, opt_d = method.optimizers()
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: steps.append(optimizer is opt_g))
    try:
        for method.global_step in range(4):
            method.training_step(batch())
            due = {"g/pl"} if method.global_step % 2 == 0 else set()
            due |= {"d/reg"} if method.global_step == 0 else set()
            assert set(method.terms) == {"g/adv", "d/real", "d/fake", "ada/p"} | due
    finally:
        hook.remove()
    order = [[True, True, False, False], [True, False], [True, True, False], [True, False]]
    assert steps == sum(order, [])


def test_losses_are_logistic_and_the_real_images_logits_come_from_the_discriminator():
    method = bare(StyleGAN2)(**TINY | dict(ada_target=0.0, lambda_pl=0.0))
    method.global_step, images = 1, batch()
    before = [p.clone() for p in method.discriminator.parameters()]
    with torch.no_grad():
        real = method.discriminator(images["x"])
    method.training_step(images)
    assert method.terms["d/real"].item() == pytest.approx(F.softplus(-real).mean().item(), 1e-5)
    after = list(method.discriminator.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_weight_zero_is_not_computed(monkeypatch):
    method = bare(StyleGAN2)(**TINY | dict(lambda_pl=0.0, lambda_reg=0.0, ada_target=0.0))
    method.training_step(batch())
    assert set(method.terms) == {"g/adv", "d/real", "d/fake"}


def test_lazy_steps_keep_the_rate_and_memory_of_adam():
    method = StyleGAN2(**TINY | dict(lr=2e-3, r1_every=16, pl_every=4))
    (g,), (d,) = (o.param_groups for o in method.configure_optimizers())
    assert g["lr"] == pytest.approx(2e-3 * 4 / 5) and d["lr"] == pytest.approx(2e-3 * 16 / 17)
    assert g["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert d["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_gamma_scales_with_size_and_batch():
    assert StyleGAN2(**TINY).gamma(64) == pytest.approx(2e-4 * 32**2 / 64)
    assert StyleGAN2(**TINY | dict(lambda_reg=3.0)).gamma(64) == 3


def test_the_average_forgets_by_images():
    method = StyleGAN2(**TINY | dict(ema_kimg=1.0, ema_rampup=0.0))
    assert method.ema_decay(0, 100) == pytest.approx(0.5**0.1)
    ramp = StyleGAN2(**TINY | dict(ema_kimg=1.0, ema_rampup=0.05))
    decays = [ramp.ema_decay(i, 100) for i in (0, 1, 100, 10_000)]
    assert decays == pytest.approx([0, 0.5 ** (100 / 5), 0.5 ** (100 / 500), 0.5**0.1])
    tuned = StyleGAN2(**TINY | dict(ema_kimg=1.0, ema_rampup=0.05), init_from="x.safetensors")
    assert tuned.ema_decay(0, 100) == pytest.approx(0.5**0.1)  # what it starts from is kept
    method = bare(StyleGAN2)(**TINY)
    method.global_step = 0
    method.training_step(batch())  # nothing to remember yet: a copy
    own, average = method.generator.state_dict(), method.ema.module["generator"].state_dict()
    assert not differences(own, average)
    method.global_step = 1000
    method.training_step(batch(seed=1))
    key, buffer = "synthesis.b8.conv0.weight", "mapping.w_avg"
    moved = method.ema.module["generator"].state_dict()
    own = method.generator.state_dict()
    assert not torch.equal(moved[key], own[key]) and torch.equal(moved[buffer], own[buffer])


def test_codes_are_mixed_and_their_mean_is_followed():
    method, rng = StyleGAN2(**TINY | dict(mixing=0.5)), torch.Generator().manual_seed(0)
    rows = []
    for _ in range(200):
        ws = method.codes(2, None, rng)  # (2, L, D)
        changes = (ws[:, 1:] != ws[:, :-1]).any(2)
        assert torch.equal(changes[0], changes[1])  # one crossing for a batch
        rows.append(changes[0].nonzero().flatten().tolist())
    assert all(len(row) <= 1 for row in rows)
    assert 60 < sum(map(len, rows)) < 140
    assert {r[0] for r in rows if r} == set(range(ws.shape[1] - 1))
    plain = StyleGAN2(**TINY | dict(mixing=0.0))
    assert plain.generator.mapping.w_avg.abs().sum() == 0
    w = plain.codes(3, None, rng, average=True)
    torch.testing.assert_close(plain.generator.mapping.w_avg, 0.002 * w[:, 0].mean(0))
    assert (w[:, 1:] == w[:, :-1]).all()


def test_path_lengths_are_followed_and_saved():
    method = bare(StyleGAN2)(**TINY)
    for method.global_step in (0, 2):
        before = method.pl_mean.clone()
        method.training_step(batch())
        assert method.pl_mean != before and not method.pl_mean.requires_grad
    assert "pl_mean" in method.state_dict()


def test_augmentation_adapts_to_the_sign_of_real_logits():
    method = StyleGAN2(**TINY | dict(ada_target=0.6, ada_kimg=1.0))

    def iterate(iteration, logits):
        method.ask_signs(iteration)
        method.count_signs(torch.tensor(logits))
        method.adapt(5)

    iterate(3, [1.0, 2.0, 3.0, -1.0, 5.0])
    iterate(4, [1.0, 1.0, 1.0, 1.0, 1.0])
    assert method.ada_p == 0 and method.ada_signs.tolist() == [8, 10]  # not yet
    iterate(5, [-1.0, -1.0])  # mean of the iterations before: 8 / 10 > 0.6
    assert method.ada_p.item() == pytest.approx(5 * 4 / 1000)
    assert method.ada_on_host == method.ada_p and method.ada_signs.tolist() == [-2, 2]
    for iteration in (9, 13):
        iterate(iteration, [-1.0, -1.0])
    assert method.ada_p == 0  # not below
    method.ada_signs.zero_()
    iterate(17, [1.0])
    assert method.ada_p == 0  # nothing was counted


def test_a_step_draws_from_seed_and_iteration_alone():
    seen = []
    for iteration, noise in ((1, 1), (1, 2), (3, 1)):
        method = bare(StyleGAN2)(**TINY)
        torch.manual_seed(noise)
        method.global_step = iteration
        method.training_step(batch())
        seen.append(method.terms["g/adv"].item())
    assert seen[0] == seen[1] != seen[2]


def test_gradients_are_finite_at_the_corners():
    method = bare(StyleGAN2)(**TINY | dict(mixing=0.0))
    images = batch()
    images["x"][:] = 0.0
    for p in method.generator.mapping.parameters():
        p.data.zero_()  # all codes equal: constant images, no spread in the batch
    method.training_step(images)
    assert all(v.isfinite() for v in method.terms.values())
    assert all(p.isfinite().all() for p in method.parameters())


# ---- inference ----------------------------------------------------------------------------------


def test_inference_uses_the_average_and_the_same_noise():
    method, z = StyleGAN2(**TINY), latents()
    for p in method.generator.parameters():
        p.data.mul_(1.5)
    image = method.generate(z)
    assert image.shape == (4, 3, 32, 32) and image.is_inference()
    assert torch.equal(method.generate(z), image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method.generate(z), image)
    ws = method.map_latents(z)
    assert ws.shape[0] == 4 and torch.equal(method.synthesize(ws), image)
    alone = torch.cat([method.generate(one) for one in z.split(1)])
    torch.testing.assert_close(alone, image, atol=1e-5, rtol=0)


def test_without_noise_a_code_is_one_image(tmp_path):
    strengths = {}
    for noise in ("true", "false"):
        state = read(fit(NAME, tmp_path / noise, noise=noise))["state_dict"]
        strengths[noise] = [v for k, v in state.items() if k.endswith("noise_strength")]
    assert all(v != 0 for v in strengths["true"][:7])  # of the trained generator
    assert strengths["false"] and not any(strengths["false"])


def test_truncation_leads_to_the_mean_code():
    method, z = StyleGAN2(**TINY), latents()
    method.ema.module["generator"].mapping.w_avg.normal_(generator=torch.Generator().manual_seed(1))
    whole, half, mean = (method.map_latents(z, psi=psi) for psi in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (whole + mean) / 2)
    assert (mean == mean[0, 0]).all()
    cut = method.map_latents(z, psi=0.0, cutoff=2)
    assert torch.equal(cut[:, :2], mean[:, :2]) and torch.equal(cut[:, 2:], whole[:, 2:])


def test_classes_condition_both_networks():
    method = bare(StyleGAN2)(**TINY | dict(conditional=True))
    method.training_step(batch())
    z = latents()
    a, b = method.generate(z, 0), method.generate(z, torch.tensor([0, 1, 2, 0]))
    assert torch.equal(a[0], b[0]) and not torch.allclose(a[1], b[1])
    for y in (None, 3, -1, 0.5, torch.tensor([0, 1, 2, 7])):
        with pytest.raises(ValueError, match=r"y: expected one of 0 \.\. 2 or of"):
            method.generate(z, y)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("mixing", value) for value in (-0.1, 2.0, math.nan)),
        *((name, 0) for name in ("map_layers", "r1_every", "pl_every", "pl_shrink", "z_dim")),
        *((name, -1.0) for name in ("clamp", "group", "ema_rampup", "ema_kimg", "lambda_pl")),
        *(("ada_kimg", 0.0), ("ada_target", 1.5)),
    ],
)
def test_options_out_of_bounds_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"expected {name} in .* \.\. .*, got {value}"):
        StyleGAN2(**TINY | {name: value})


# ---- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, workers, tmp_path):
    more = (f"--ckpt_path={whole / 'cut.ckpt'}", f"--data.num_workers={workers}")
    a, b = read(whole / "last.ckpt"), read(fit(NAME, tmp_path, *more, steps=FIRST + MORE))
    assert a["global_step"] == b["global_step"] == FIRST + MORE
    state = a["state_dict"]  # everything that the run goes on from
    assert {"pl_mean", "ada_p", "ada_signs", "generator.mapping.w_avg"} <= set(state)
    assert state["pl_mean"] != 0 and state["generator.mapping.w_avg"].abs().sum() != 0
    for part in ("state_dict", "optimizer_states", "hyper_parameters"):
        assert not differences(a[part], b[part], part)
    resumed, uncut = losses(tmp_path), losses(whole)[FIRST:]
    for p, q in zip(resumed, uncut, strict=True):  # lazy terms: the log holds their last value
        assert {k: v for k, v in p.items() if v} == {k: v for k, v in q.items() if p.get(k)}


def test_samples_are_what_inference_gives(whole):
    method = gen.load(whole / "last.ckpt")
    rows = generation.generated(method, range(64))
    assert len(rows) == 8 and all(len(row) == 8 for row in rows)
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(rows[1][1], method.generate(z)[0], atol=1e-5, rtol=0)
    shown = Image.open(whole / "samples" / "000007.png")
    assert shown.tobytes() == viz.grid(rows, cell_px=96).tobytes()


def test_max_steps_counts_iterations_not_optimizer_steps(whole):
    last = read(whole / "last.ckpt")
    assert last["global_step"] == FIRST + MORE
    g, d = (o["state"][0]["step"].item() for o in last["optimizer_states"])
    assert (g, d) == (7 + 4, 7 + 4)  # 0, 2, 4, 6 have their lazy steps


def test_a_shipped_file_generates_what_the_run_did(whole, tmp_path):
    export(whole / "last.ckpt", tmp_path / "x.safetensors")
    a, b = gen.load(whole / "last.ckpt"), gen.load(tmp_path / "x.safetensors")
    z = latents()
    assert torch.equal(a.generate(z), b.generate(z)) and b.domains == ["bear", "cat", "dog"]
    tuned = fit(NAME, tmp_path / "tuned", steps=1, init_from=tmp_path / "x.safetensors")
    assert read(tuned)["global_step"] == 1


def test_it_trains_in_low_precision(tmp_path):
    fit(NAME, tmp_path, "--trainer.precision=bf16-mixed", steps=3)
    rows = losses(tmp_path)
    assert len(rows) == 3 and all(math.isfinite(float(row["g/adv"])) for row in rows)


def test_two_processes_train_as_one(tmp_path):
    done = run(NAME, tmp_path, steps=FIRST)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (read(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert a["strategy"] == "DDPStrategy"
    differ = differences(a["state"], b["state"])
    assert set(differ) <= {".ada_signs"}  # of the images of each, until they are averaged
    last = read(tmp_path / "last.ckpt")
    assert last["global_step"] == FIRST and last["state_dict"]["pl_mean"] != 0


# ---- scripts/generate.py ------------------------------------------------------------------------


def test_truncation_and_mixing_grids_hold_what_the_method_gives(whole):
    method = gen.load(whole / "last.ckpt")
    z = generation.latents(method, [3, 5])
    rows = generation.truncated(method, [3, 5], [0.0, 1.0])
    torch.testing.assert_close(rows[1][1], method.generate(z)[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(rows[0][0], rows[1][0], atol=1e-5, rtol=0)  # both the mean
    grid = generation.mixed(method, [3], [5, 7], first=2)
    a, b = method.map_latents(z)
    code = torch.cat([a[:2], b[2:]])[None]
    torch.testing.assert_close(grid[1][1], method.synthesize(code)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(grid[0][1], method.generate(z)[1], atol=1e-5, rtol=0)
    assert grid[0][0] is None and len(grid) == 2 and len(grid[0]) == 3
    with pytest.raises(ValueError, match="first: expected a row in 1 .. 7, got 8"):
        generation.mixed(method, [3], [5], first=8)


@pytest.mark.parametrize(
    "options",
    [
        ["--seeds", "0-2", "9"],
        ["--seeds", "0-2", "--psi", "0", "0.5", "1"],
        ["--seeds", "0", "1", "--mix", "4-6", "--first", "2"],
    ],
)
def test_generate_writes_a_picture(whole, tmp_path, options, monkeypatch):
    script, out = str(ROOT / "scripts/generate.py"), tmp_path / "x.png"
    command = [script, "--checkpoint", str(whole / "last.ckpt"), *options, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(script, run_name="__main__")
    assert Image.open(out).width > 3 * 128


# ---- options that are off as published -----------------------------------------------------------


def test_relativistic_pairs_real_and_fake_images_with_the_penalty_on_both(monkeypatch):
    penalties = []

    def recorded(*args):
        penalties.append(r1(*args))
        return penalties[-1]

    monkeypatch.setattr("gen.methods.stylegan2.r1", recorded)
    options = dict(adversarial="relativistic", ada_target=0.0, lambda_pl=0.0, mixing=0.0)
    method = bare(StyleGAN2)(**TINY | options | dict(lambda_reg=3.0, r1_every=2, conditional=True))
    images, inputs = batch(), []
    D, c = method.discriminator, F.one_hot(batch()["y"], 3).float()
    hook = D.register_forward_hook(lambda _, args, out: inputs.append((*args, out)))
    method.training_step(images)
    hook.remove()
    assert set(method.terms) == {"g/adv", "d/adv", "d/reg"}
    fake, real = inputs[0], inputs[1]  # of G's step
    assert torch.equal(real[0], images["x"]) and all(torch.equal(one[1], c) for one in inputs)
    torch.testing.assert_close(method.terms["g/adv"], F.softplus(real[2] - fake[2]).mean())
    real, fake = inputs[2], inputs[3]
    torch.testing.assert_close(method.terms["d/adv"], F.softplus(fake[2] - real[2]).mean())
    assert [len(inputs), len(penalties)] == [6, 2]
    assert torch.equal(inputs[4][0], images["x"]) and torch.equal(inputs[5][0], fake[0])
    torch.testing.assert_close(method.terms["d/reg"], 3.0 * 2 * sum(penalties))


def test_a_run_starts_from_a_file_of_another_size_and_says_what_is_new(whole, tmp_path, caplog):
    options = {"init_from": whole / "last.ckpt", "img_size": 64}
    with caplog.at_level("INFO"):
        last = fit(NAME, tmp_path / "run", "--data.img_size=64", steps=1, **options)
    assert "new, as drawn: discriminator.b64, generator.synthesis.b64" in caplog.text
    assert gen.load(last).generate(latents()).shape == (4, 3, 64, 64)
    with pytest.raises(gen.files.WeightsError, match="w_dim, channel_base and channel_max"):
        fit(NAME, tmp_path / "other", steps=1, init_from=whole / "last.ckpt", w_dim=12)


def test_a_grey_generator_trains_and_is_refused_by_editors(tmp_path):
    last = fit(NAME, tmp_path / "grey", steps=1, grey="true")
    image = gen.load(last).generate(latents())
    assert image.shape == (4, 3, 32, 32) and torch.equal(image[:, 0], image[:, 1])
    with pytest.raises(gen.files.WeightsError, match="of colour images without classes.*of grey"):
        gen.methods.LinearDirections(generator=str(last), attributes="cat")

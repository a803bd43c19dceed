"""Options of StarGAN and SmoothI2I that leave the published form: each does what its help says."""

import json

import pytest
import torch
import torch.nn.functional as F

from gen.files import WeightsError
from gen.losses.adversarial import bce, feature_matching, r1, relativistic
from gen.losses.style import moment_matching
from gen.methods.smooth_i2i import SmoothI2I
from gen.methods.stargan import StarGAN
from gen.networks.feature_discriminator import FeatureDiscriminator
from gen.networks.stargan import Affine, Discriminator, Generator, Skip, pool, upsample
from harness import bare
from runs import fit, losses, ship

TINY = dict(img_size=64, num_domains=3, style_dim=8, latent_dim=4, base_channels=4, max_channels=8)
PLAIN = dict(lambda_cont=0.0, lambda_tri=0.0, lambda_sr=0.0)
MENDED = dict(rgb_norm=False, skip_px=32, antialias=True)


def batch(n=6, size=64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(3, n, 3, size, size, generator=rng) * 2 - 1
    y = torch.randint(3, (2, n), generator=rng)
    return dict(x=images[0], x_ref=images[1], x_ref2=images[2], y=y[0], y_ref=y[1])


def stepped(cls=StarGAN, images=None, **options):
    """A tiny method after one step; `terms` are what it logged."""
    method = bare(cls)(**TINY | options)
    if cls is SmoothI2I:
        method._lpips = ()
    method.training_step(batch() if images is None else images)
    return method


# ---- the generator ----------------------------------------------------------------------------


def test_without_the_norm_palette_and_area_reach_rgb():
    x, s = batch()["x"], torch.randn(6, 8)
    x = x * torch.linspace(0.1, 1, 6)[:, None, None, None]
    spread = []
    for rgb_norm in (True, False):
        torch.manual_seed(0)
        net, seen = Generator(64, 8, base_channels=4, max_channels=8, rgb_norm=rgb_norm), []
        net.to_rgb[0].register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.clone()))
        net(x, s)
        spread.append(seen[0].mean((2, 3)).std(0).max().item())  # of means, between images
    assert spread[0] < 1e-5 and spread[1] > 1e-2


def test_affine_and_skip_are_their_formulas():
    h, c, s = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 5)
    affine, skip = Affine(3), Skip(3, 5)
    assert affine.scale.tolist() == pytest.approx([0.3] * 3)
    torch.nn.init.normal_(affine.shift)
    want = affine.scale[:, None, None] * h + affine.shift[:, None, None]
    torch.testing.assert_close(affine(h), want)
    g, b = skip.fc(s)[:, :, None, None].chunk(2, 1)
    want = (h + (1 + g) * skip.project(c) + b) / 2**0.5
    torch.testing.assert_close(skip(h, c, s), want)


def test_the_skip_begins_without_a_style_and_learns_one():
    method = StarGAN(**TINY, skip_px=32)
    skip = method.generator.skip
    assert not skip.fc.weight.any() and not skip.fc.bias.any() and skip.project.weight.any()
    method = stepped(skip_px=32)
    assert method.generator.skip.fc.weight.any()


@pytest.mark.parametrize("options", [dict(skip_px=8), dict(skip_px=64), dict(skip_px=32, w_hpf=1)])
def test_a_skip_where_there_is_none_is_refused(options):
    with pytest.raises(ValueError, match=r"skip_px: expected 0 or, with w_hpf 0, one of \[32"):
        Generator(64, 8, base_channels=4, max_channels=8, **options)


def test_antialiased_resampling_is_the_filter_1331():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    taps = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype) / 8
    kernel = torch.outer(taps, taps).expand(3, 1, 4, 4)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(pool(x, True), F.conv2d(padded, kernel, stride=2, groups=3))
    up = F.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=3)
    torch.testing.assert_close(upsample(x, True)[..., 1:-1, 1:-1], up[..., 1:-1, 1:-1])


def test_antialiasing_reaches_every_network_that_resamples():
    """A stripe pattern of 4 px hardly passes a halving, wherever its phase."""
    method = StarGAN(**TINY, antialias=True)
    blocks = [m for net in method.children() for m in net.modules() if hasattr(m, "antialias")]
    assert len(blocks) > 10 and all(m.antialias for m in blocks)
    stripes = torch.tensor([1.0, 1, -1, -1] * 4).expand(1, 1, 16, 16)
    energy = [pool(stripes.roll(1, -1), a)[..., 1:-1].abs().mean() for a in (False, True)]
    assert energy[0] == 0 and pool(stripes, False).abs().mean() == 1  # all or nothing by phase
    assert abs(pool(stripes, True)[..., 1:-1].abs().mean() - energy[1]) < 0.6


# ---- older files ------------------------------------------------------------------------------


def filled(tmp_path, source, **options):
    file = ship(source, tmp_path / "old.safetensors")
    method = StarGAN(**TINY, init_from=str(file), **options)
    method.load_init()
    return method


def test_an_older_file_begins_a_model_with_a_skip_unchanged(tmp_path):
    old = StarGAN(**TINY)
    new = filled(tmp_path, old, skip_px=32)
    x, s = batch()["x"], torch.randn(6, 8)
    torch.testing.assert_close(new.translate(x, 0, style=s), old.translate(x, 0, style=s))
    torch.testing.assert_close(new.generator(x, s), old.generator(x, s))
    assert new.generator.skip.gain == 1


def test_an_older_file_begins_a_model_without_the_norm(tmp_path):
    old = StarGAN(**TINY)
    torch.nn.init.normal_(old.generator.to_rgb[0].weight)
    new = filled(tmp_path, old, rgb_norm=False)
    wanted = 0.3 * old.generator.to_rgb[0].weight
    torch.testing.assert_close(new.generator.to_rgb[0].scale, wanted)
    torch.testing.assert_close(new.ema.module["generator"].to_rgb[0].scale, wanted)


def test_a_fresh_discriminator_begins_without_augmentation(tmp_path, caplog):
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    old = StarGAN(**TINY, ada_target=0.6)
    old.ada_p.fill_(0.5)
    assert filled(tmp_path, old, ada_target=0.6).ada_p == 0.5
    assert filled(tmp_path, old, ada_target=0.6, discriminator="features").ada_p == 0
    assert "starts with a fresh one" not in caplog.text  # nothing trains


def test_another_discriminator_and_no_augmentation_state_are_no_hindrance(tmp_path):
    new = filled(tmp_path, StarGAN(**TINY), discriminator="features", ada_target=0.6)
    assert new.ada_p == 0
    torch.testing.assert_close(
        new.generator.from_rgb.weight, StarGAN(**TINY).generator.from_rgb.weight
    )


def test_what_a_file_has_too_much_is_an_error_not_left_out(tmp_path):
    with pytest.raises(WeightsError, match=r"expected the options .* got others: .*skip"):
        filled(tmp_path, StarGAN(**TINY, skip_px=32))


def test_a_mended_model_is_saved_and_loaded(tmp_path):
    import gen

    torch.manual_seed(1)
    method = StarGAN(**TINY, **MENDED, discriminator="features", ada_target=0.6)
    loaded = gen.load(ship(method, tmp_path / "new.safetensors", ["a", "b", "c"]))
    x, s = batch()["x"], torch.randn(6, 8)
    torch.testing.assert_close(loaded.translate(x, 0, style=s), method.translate(x, 0, style=s))


# ---- losses -----------------------------------------------------------------------------------


def test_relativistic_pairing_is_its_formula_and_has_a_penalty_on_fakes():
    a, b = torch.randn(2, 5)
    torch.testing.assert_close(relativistic(a, b), torch.log1p((b - a).exp()).mean())
    assert relativistic(a + 9, b + 9) == pytest.approx(relativistic(a, b).item(), rel=1e-5)
    plain = stepped(lambda_reg=2.0, single_d_step=True)
    paired = stepped(lambda_reg=2.0, single_d_step=True, adversarial="relativistic")
    assert {"d/adv", "d/reg"} <= set(paired.terms) and "d/real" not in paired.terms
    assert plain.terms["d/reg"] != paired.terms["d/reg"]


def test_a_pair_has_one_domain():
    """D's logit of a fake is held against that of a real image of the fake's own domain."""
    seen = []
    method = bare(StarGAN)(**TINY, adversarial="relativistic", lambda_reg=0.0, single_d_step=True)
    head = method.discriminator.head
    method.discriminator.head = lambda h, y: seen.append(y) or head(h, y)
    images = batch()
    method.training_step(images)
    real, fakes = seen[:2]
    assert torch.equal(real.repeat(2), fakes) and torch.equal(real, images["y_ref"])


def test_the_penalty_of_places_is_that_of_their_mean():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    one = r1((x**2).sum((1, 2, 3)), x)
    many = r1(torch.stack([(x**2).sum((1, 2, 3))] * 5, 1), x)
    torch.testing.assert_close(many, one)
    weight, logits = torch.tensor([0.0, 2.0]), torch.randn(2, 5)
    want = 2 * F.softplus(-logits[1]).mean() / 2
    torch.testing.assert_close(bce(logits, True, weight), want)


def test_feature_matching_minds_all_blocks_and_trains_the_copy_alone():
    a = [torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 2, 2, requires_grad=True)]
    b = [(t.detach() + 1).requires_grad_() for t in a]
    loss = feature_matching(a, b)
    assert loss.item() == pytest.approx(1.0, abs=1e-6)
    loss.backward()
    assert a[0].grad is None and all(t.grad.any() for t in b)
    method = stepped(lambda_fm=1.0)
    assert {"latent/fm", "ref/fm"} <= set(method.terms)
    assert [m.shape[2] for m in method.discriminator.maps(batch()["x"])] == [32, 16, 8, 4]


def test_other_domains_real_images_are_fakes():
    images = batch()
    images["y_ref"] = images["y"]
    assert stepped(images=images, lambda_other=1.0).terms["d/other"] == 0
    images["y_ref"] = (images["y"] + 1) % 3
    for lambda_reg in (0.0, 1.0):
        method = stepped(images=images, lambda_other=1.0, lambda_reg=lambda_reg)
        assert method.terms["d/other"] > 0
    with pytest.raises(ValueError, match="lambda_other: expected 0 with relativistic"):
        StarGAN(**TINY, lambda_other=1.0, adversarial="relativistic")


def test_moments_match_without_a_bias():
    rng = torch.Generator().manual_seed(0)

    def draw(mean, spread, n=20_000):
        return mean + spread * torch.randn(2, n, 4, generator=rng)

    assert moment_matching(*draw(0, 1), *draw(0, 1)).abs() < 0.01  # a square of means has 2 / n
    assert moment_matching(*draw(2, 1), *draw(0, 1)) == pytest.approx(4, abs=0.1)
    assert moment_matching(*draw(0, 3), *draw(0, 1)) == pytest.approx(4, abs=0.1)
    codes = [s.requires_grad_() for s in (*draw(1, 1, 8), *draw(0, 1, 8))]
    moment_matching(*codes).backward()
    assert [s.grad is None for s in codes] == [False, False, True, True]


def test_references_styles_are_drawn_to_those_of_latents():
    method = stepped(SmoothI2I, lambda_match=1.0, **PLAIN)
    assert "latent/match" in method.terms


def test_mixed_fakes_share_the_weight_of_fakes():
    plain = stepped(SmoothI2I, **PLAIN, single_d_step=True)
    for weight in (1.0, 3.0):
        mixed = stepped(SmoothI2I, **PLAIN, single_d_step=True, lambda_mix=weight)
        share = 1 / (1 + weight)
        assert mixed.terms["d/fake"] == pytest.approx(share * plain.terms["d/fake"].item())
        assert mixed.terms["d/mix"] / (1 - share) == pytest.approx(0.7, abs=0.5)


def test_the_content_network_sees_both_images_moved_alike():
    method = SmoothI2I(**TINY, content_shift=3, content_scale=2)
    x = batch()["x"]

    class P:
        rng = torch.Generator().manual_seed(0)
        fake = x

    P.x = x
    a, b = method.seen(P)
    assert torch.equal(a, b) and a.shape == (6, 3, 128, 128)
    doubled = F.interpolate(x, scale_factor=2, mode="bilinear")
    shifts = set()
    for _ in range(40):
        a, _ = method.seen(P)
        found = [
            (d, r)
            for d in range(4)
            for r in range(4)
            if torch.equal(a[..., d:, r:], doubled[..., : 128 - d, : 128 - r])
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert {d for d, _ in shifts} == {r for _, r in shifts} == {0, 1, 2, 3}
    still = SmoothI2I(**TINY, content_shift=0)
    assert torch.equal(still.seen(P)[0], x)


def test_content_at_moved_phases_weighs_pixels_evenly(lpips_cache):
    """Gradients of a layer of stride 4 differ by phase; over moves they hardly do."""
    from gen.losses.perceptual import content
    from gen.networks.perceptual import LPIPS

    net, spread = LPIPS("alex"), []
    x = batch(2)["x"]
    for shift in (0, 7):
        method = SmoothI2I(**TINY, content_shift=shift)
        total = torch.zeros(64, 64)
        for seed in range(12):
            fake = (x + 0.1).requires_grad_()

            class P:
                rng = torch.Generator().manual_seed(seed)

            P.x, P.fake = x, fake
            content(*method.seen(P), net).backward()
            total += fake.grad.abs().mean((0, 1))
        phases = total[8:-8, 8:-8].reshape(12, 4, 12, 4).mean((0, 2))  # (4, 4)
        spread.append((phases.std() / phases.mean()).item())
    assert spread[1] < 0.5 * spread[0]


# ---- the discriminator on features --------------------------------------------------------------


def test_a_discriminator_on_features(features):
    D = FeatureDiscriminator(3)
    x, y = batch(2)["x"].requires_grad_(), torch.tensor([0, 2])
    with pytest.raises(RuntimeError, match=r"expected attach\(\)"):
        D(x, y)
    D.attach()
    logits = D(x, y)
    assert logits.shape == (2, 8 * 8 * 3 + 4 * 4)
    swapped = D(x, y.flip(0))
    assert not torch.allclose(logits, swapped)  # a head a domain
    logits.mean().backward()
    assert x.grad.any() and all(p.grad is not None for p in D.parameters())
    assert all(k.startswith(("across", "down", "heads.")) for k in D.state_dict())
    assert not any("classifier" in name for name, _ in D.named_parameters())


def test_a_discriminator_beside_counts_as_much_as_all_places(features):
    torch.manual_seed(0)
    own = Discriminator(64, 3, base_channels=4, max_channels=8)
    D = FeatureDiscriminator(3, own)
    D.attach()
    x, y = batch(2)["x"], torch.tensor([0, 2])
    logits = D(x, y)
    assert logits.shape == (2, 2 * (8 * 8 * 3 + 4 * 4))
    torch.testing.assert_close(logits[:, -1], own(x, y))
    mean = (logits[:, : logits.shape[1] // 2].mean(1) + own(x, y)) / 2
    torch.testing.assert_close(logits.mean(1), mean)


@pytest.mark.parametrize("kind, trained", [("features", {"heads"}), ("both", {"heads", "beside"})])
def test_training_against_features(features, kind, trained):
    images = batch()
    method = bare(SmoothI2I)(
        **TINY, **PLAIN, discriminator=kind, lambda_mix=1.0, lambda_other=0.5,
        single_d_step=True, lambda_fm=1.0, ada_target=0.6,
    )  # fmt: skip
    method._lpips = ()
    method.discriminator.attach()
    before = {k: v.clone() for k, v in method.discriminator.state_dict().items()}
    method.training_step(images)
    after = method.discriminator.state_dict()
    changed = {k.split(".")[0][:6] for k in after if not torch.equal(after[k], before[k])}
    assert changed == trained
    assert all(value.isfinite() for value in method.terms.values())


# ---- augmentation and overfitting ---------------------------------------------------------------


def test_augmentation_of_all_that_the_discriminator_sees(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "gen.methods.base.augment", lambda x, p, rng, groups, _: seen.append(groups) or x
    )
    method = stepped(SmoothI2I, **PLAIN, ada_target=0.6, lambda_mix=1.0, augment="bg")
    assert seen == ["bg"] * (3 + 2 + 1 + 2)  # D latent (real, fake, mix) and ref, G (2) and ref
    assert {"ada_p", "ada_signs"} <= set(method.state_dict()) and "ada/p" in method.terms
    assert "ada_p" not in StarGAN(**TINY).state_dict()


def test_augmentation_rises_where_the_discriminator_is_sure():
    method = bare(StarGAN)(**TINY, ada_target=0.6, ada_kimg=0.1)
    method.discriminator.main[-1].bias.data.fill_(50.0)
    for method.global_step in (0, 1):
        assert method.ada_p == 0
        method.training_step(batch())
    assert method.ada_p == pytest.approx(6 * 4 / 100)


def test_the_logit_of_validation_images_is_logged(tmp_path):
    fit("StarGAN", tmp_path, steps=2)
    first, second = losses(tmp_path)
    assert float(first["d/logit_val"]) != float(first["d/logit_train"])
    assert second["d/logit_val"] == first["d/logit_val"]  # the next look is after 50 iterations


def test_a_mended_run_is_resumed_bit_for_bit(tmp_path):
    from runs import cut_run, differences, read

    options = dict(
        img_size=32, rgb_norm="false", antialias="true", ada_target=0.6, ada_kimg=0.05,
        lambda_match=1.0, lambda_other=0.5, lambda_fm=0.5, ema_warmup="true", content_scale=2,
    )  # fmt: skip
    cut_run("SmoothI2I", tmp_path / "whole", "--save_every=1", first=2, steps=4, **options)
    again = fit(
        "SmoothI2I", tmp_path / "again", f"--ckpt_path={tmp_path / 'whole' / 'cut.ckpt'}", steps=4,
        **options,
    )  # fmt: skip
    whole, again = read(tmp_path / "whole" / "last.ckpt"), read(again)
    assert not differences(whole["state_dict"], again["state_dict"])
    assert json.dumps(sorted(whole["hyper_parameters"])) == json.dumps(
        sorted(again["hyper_parameters"])
    )

"""The smoothness metric and translation scores."""

import itertools

import numpy as np
import pytest
import torch

from gen.evaluation.translators.names import Protocol
from gen.metrics.smoothness import (
    InterpolationSmoothness,
    path_distances,
    pixel_steps,
    resize_frames,
    smoothness,
)
from gen.metrics.translation import (
    TranslationScores,
    bootstrap,
    l1,
    resampled_means,
    ssim,
    translation_scores,
)
from gen.networks import perceptual
from gen.networks.perceptual import LPIPS
from literal_scores import race, smoothness_ways, translation_ways
from toys import SIZE, frames, noise

STEPS = torch.tensor([[0.05, 0.02, 0.04, 0.01, 0.03, 0.02, 0.05, 0.03, 0.01]], dtype=torch.float64)


@pytest.fixture(scope="module")
def net():
    if not perceptual.cache_path("alex").is_file():
        pytest.skip("no LPIPS alex in the cache: run `python -m gen.networks.perceptual`")
    return LPIPS("alex")


# ---- smoothness -----------------------------------------------------------------------------


def value(steps, direct, key):
    return smoothness(steps, torch.tensor([direct], dtype=torch.float64))[key].item()


def test_published_check_values():
    """What the released code computes for these distances."""
    assert value(STEPS, 0.2, "ps") == pytest.approx(0.7426983829766496, abs=1e-12)
    assert value(STEPS, 0.2, "eq") == pytest.approx(1 - 0.28204151907562175, abs=1e-12)
    assert value(STEPS, 0.2, "eff") == pytest.approx(0.76920, abs=5e-6)
    assert value(STEPS / 2, 0.2, "ps") == pytest.approx(0.8358341268017204, abs=1e-7)
    assert value(STEPS / 2, 0.2, "eff") == 1
    even = torch.full((1, 19), 0.1 / 19, dtype=torch.float64)
    assert value(even, 0.1, "ps") == pytest.approx(0.9999050090241426, abs=1e-12)
    assert value(STEPS, 0.2, "pir") == pytest.approx(0.19999900000499996, abs=1e-12)
    assert value(STEPS, 0.2, "path_length") == pytest.approx(0.26 / 9)
    assert value(STEPS, 0.2, "pplsq") == pytest.approx(100 * 0.26 / 9)
    assert value(STEPS, 0.2, "peak") == pytest.approx(0.05 / (0.26 / 9), abs=1e-3)


def test_order_of_the_steps_does_not_matter_but_a_jump_does():
    shuffled = STEPS[:, torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    assert value(shuffled, 0.2, "ps") == pytest.approx(value(STEPS, 0.2, "ps"), abs=1e-12)
    jump = torch.zeros(1, 9).double()
    jump[0, 4] = 0.2
    assert value(jump, 0.2, "ps") < 0.3
    assert value(jump, 0.2, "peak") == pytest.approx(9, abs=1e-3)
    assert value(jump, 0.2, "pir") == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("n", [1, 19])
def test_a_constant_sequence_scores_zero(n):
    values = smoothness(torch.zeros(2, n), torch.zeros(2))
    assert values["ps"].tolist() == [0, 0]
    assert all(torch.isfinite(v).all() for v in values.values())


def test_distance_straightness_and_the_other_conventions_by_hand():
    pixels = torch.tensor([[0.1, 0.3, 0.1, 0.3, 0.1, 0.3, 0.1, 0.3, 0.2]], dtype=torch.float64)
    found = smoothness(STEPS, torch.tensor([0.2], dtype=torch.float64), pixels)
    d = STEPS[0].numpy()
    for key, expected in {
        "direct": 0.2,
        "straight": 0.2**0.5 / np.sqrt(d).sum(),
        "sum": 0.26,
        "max": 0.05,
        "pdv": d.std(),
        "istd": pixels.numpy().std(),
    }.items():
        assert found[key].item() == pytest.approx(expected, abs=1e-12), key
    assert "istd" not in smoothness(STEPS, torch.tensor([0.2]))
    with pytest.raises(ValueError, match=r"expected pixels \(1, 9\) as steps, got \(1, 8\)"):
        smoothness(STEPS, torch.tensor([0.2]), pixels[:, :8])


def test_straightness_sees_detours_where_ps_sees_none():
    """20 points as features, LPIPS is their squared distance: a line, a half circle, noise."""
    t = torch.linspace(0, 1, 20, dtype=torch.float64)
    arc = torch.stack([(torch.pi * t).cos(), (torch.pi * t).sin()], 1)
    g = torch.Generator().manual_seed(0)
    apart = torch.randn(20, 1000, generator=g, dtype=torch.float64)

    def measured(x):
        steps = (x[1:] - x[:-1]).square().sum(1)[None]
        return {
            k: v.item() for k, v in smoothness(steps, (x[-1] - x[0]).square().sum()[None]).items()
        }

    line, bent, noisy = (measured(x) for x in (t[:, None].expand(-1, 2), arc, apart))
    assert line["straight"] == pytest.approx(1) and line["ps"] > 0.999
    assert bent["straight"] == pytest.approx(2 / torch.pi, abs=0.01) and bent["ps"] > 0.999
    assert noisy["straight"] == pytest.approx(1 / 19, abs=0.01)
    assert smoothness(torch.zeros(1, 3), torch.zeros(1))["straight"] == 0


def test_pixel_steps_by_hand():
    x = torch.zeros(1, 3, 3, 4, 4)
    x[:, 1], x[:, 2, 0] = 0.5, 0.5
    expected = [[0.25, 0.25 * (2 / 3) ** 0.5]]
    torch.testing.assert_close(pixel_steps(x), torch.tensor(expected))


@pytest.mark.parametrize(
    "steps, direct",
    [
        (torch.rand(2, 0), torch.rand(2)),
        (torch.rand(0, 3), torch.rand(0)),
        (torch.rand(3), torch.rand(3)),
        (torch.rand(2, 3), torch.rand(3)),
        (torch.tensor([[0.1, torch.nan]]), torch.rand(1)),
        (torch.tensor([[0.1, -0.1]]), torch.rand(1)),
        (torch.rand(1, 3), torch.tensor([torch.inf])),
    ],
)
def test_smoothness_refuses_bad_distances(steps, direct):
    with pytest.raises(ValueError, match="expected"):
        smoothness(steps, direct)


def test_distances_are_lpips_of_neighbours_one_pass_a_frame(net, monkeypatch):
    x = frames(3, 4, size=40)
    seen = []
    features = net.features
    monkeypatch.setattr(net, "features", lambda v: seen.append(len(v)) or features(v))
    steps, direct = path_distances(net, x, resize=None, batch=2)
    assert sum(seen) == 3 * 4
    for t in range(3):
        torch.testing.assert_close(steps[:, t], net(x[:, t], x[:, t + 1]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(direct, net(x[:, 0], x[:, -1]), rtol=1e-4, atol=1e-6)


def test_smoothness_does_not_depend_on_the_batch(net):
    x = frames(3, 4)
    whole = smoothness(*path_distances(net, x, 64, batch=8))
    single = smoothness(*path_distances(net, x, 64, batch=1))
    for key in whole:
        torch.testing.assert_close(whole[key], single[key], atol=1e-5, rtol=1e-5)


def test_metric_names_say_the_protocol(net):
    def names(**options):
        metric = InterpolationSmoothness(net, frames=3, **options)
        metric.update(frames(1, 3))
        return list(metric.compute())

    keys = ["ps", "eq", "eff", "pir", "peak", "path_length", "pplsq"]
    keys += ["direct", "straight", "sum", "pdv", "max"]
    assert names() == [*(f"{key}_t3_alex" for key in keys), "istd_t3"]
    assert names(resize=None)[0] == "ps_t3_alex_native"
    assert names(resize=64, quantize=True)[0] == "ps_t3_alex_64px_8bit"


def test_metric_accumulates(net):
    x = frames(4, 3)
    whole = InterpolationSmoothness(net, 3, resize=64)
    parts = InterpolationSmoothness(net, 3, resize=64)
    whole.update(x)
    for part in x.split([1, 3]):
        parts.update(part)
    per_sequence = parts.sequences()
    for name, mean in whole.compute().items():
        assert per_sequence[name].shape == (4,)
        assert mean.item() == pytest.approx(parts.compute()[name].item(), abs=1e-5)
        assert parts.compute()[name] == per_sequence[name].mean()
    assert whole.compute() == whole.compute()
    whole.reset()
    with pytest.raises(ValueError, match="count > 0"):
        whole.compute()


def bad_frames():
    good = frames(2, 3)
    nan = good.clone()
    nan[1, 2, 0, 5, 5] = torch.nan
    return {
        "range": good * 1.5,
        "bytes": ((good + 1) * 127.5).to(torch.uint8),
        "0..255": (good + 1) * 127.5,
        "T": good[:, :2],
        "count": good[:0],
        "NaN": nan,
        "inf": nan.nan_to_num(torch.inf),
        "channels": good[:, :, :1],
        "no time": good[0],
        "numpy": good.numpy(),
    }


@pytest.mark.parametrize("name", bad_frames())
def test_doors_of_the_metrics(net, name):
    bad = bad_frames()[name]
    metric = InterpolationSmoothness(net, 3)
    with pytest.raises(ValueError, match="expected"):
        metric.update(bad)
    assert len(metric.steps) == 0
    scores = TranslationScores(net, 3)
    with pytest.raises(ValueError, match="expected"):
        scores.update(noise(2), bad)
    assert len(scores.content_l1) == 0


def test_inputs_are_not_modified(net):
    x, source = frames(2, 3), noise(2)
    kept, kept_source = x.clone(), source.clone()
    InterpolationSmoothness(net, 3, quantize=True).update(x)
    TranslationScores(net, 3).update(source, x, source)
    assert torch.equal(x, kept) and torch.equal(source, kept_source)


def test_quantize_rounds_to_8_bits_and_native_size_is_untouched():
    x = noise(2)
    assert torch.equal(resize_frames(x, SIZE, False), resize_frames(x, None, False))
    torch.testing.assert_close(resize_frames(x, None, False), x, atol=1e-6, rtol=0)
    levels = (resize_frames(x, 64, True) + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert (resize_frames(x, None, True) - x).abs().max() <= 0.5 / 127.5 + 1e-6


@pytest.mark.parametrize(
    "ways, least",  # on a machine that does nothing else above 3, and above 5
    [
        (lambda: smoothness_ways(frames(1, 20, size=64)), 1.2),
        (
            lambda: translation_ways(
                noise(1, size=64), noise(1, 10, size=64), noise(1, seed=2, size=64)
            ),
            2,
        ),
    ],
)
def test_equals_the_published_png_way_and_is_faster(net, ways, least):
    result = race(ways(), repeats=1)
    assert result["largest_difference"] < 1e-4
    assert result["ratio"] > least


# ---- translation ----------------------------------------------------------------------------


def test_diversity_is_the_mean_over_all_pairs(net):
    outputs, x, twin, near = noise(2, 4), noise(2, seed=1), noise(2, seed=2), noise(2, seed=3)
    scores = translation_scores(net, x, outputs, twin, near)
    for n in range(2):
        pairs = [net(a[None], b[None]) for a, b in itertools.combinations(outputs[n], 2)]
        expected = {
            "diversity": torch.cat(pairs).mean(),
            "content_lpips": net(outputs[n], x[n].expand(4, -1, -1, -1)).mean(),
            "content_l1": (outputs[n] - x[n]).abs().mean() / 2,
            "paired_lpips": net(outputs[n], twin[n].expand(4, -1, -1, -1)).mean(),
            "paired_l1": (outputs[n] - twin[n]).abs().mean() / 2,
            "paired_ssim": ssim(outputs[n], twin[n].expand(4, -1, -1, -1)).mean(),
            "best_lpips": net(outputs[n], twin[n].expand(4, -1, -1, -1)).min(),
            "best_l1": (outputs[n] - twin[n]).abs().mean((1, 2, 3)).min() / 2,
            "best_ssim": ssim(outputs[n], twin[n].expand(4, -1, -1, -1)).max(),
            "unchanged_lpips": net(x[n][None], twin[n][None])[0],
            "unchanged_l1": (x[n] - twin[n]).abs().mean() / 2,
            "unchanged_ssim": ssim(x[n][None], twin[n][None])[0],
            "nearest_lpips": net(near[n][None], twin[n][None])[0],
            "nearest_l1": (near[n] - twin[n]).abs().mean() / 2,
            "nearest_ssim": ssim(near[n][None], twin[n][None])[0],
        }
        assert set(scores) == set(expected)
        for key, reference in expected.items():
            torch.testing.assert_close(scores[key][n], reference, rtol=1e-4, atol=1e-6)


def test_no_diversity_and_no_error_score_zero(net):
    x = noise(2)
    same = x[:, None].expand(-1, 3, -1, -1, -1)
    for name, value in translation_scores(net, x, same, x, x).items():
        assert value.sub(float("ssim" in name)).abs().max() < 1e-6, name
    assert "diversity" not in translation_scores(net, x, same[:, :1])


def test_ssim_is_that_of_the_published_formula_and_one_for_equal_images():
    x, y = noise(2), noise(2, seed=1)
    assert ssim(x, x).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert ssim(x[:1], y[:1])[0] == pytest.approx(ssim(x, y)[0].item(), abs=1e-6)
    flat, flatter = torch.full((1, 3, 32, 32), 0.6), torch.full((1, 3, 32, 32), 0.2)
    a, b, c = 0.8, 0.6, 0.01**2  # means on [0, 1]: only the luminance term is left
    expected = (2 * a * b + c) / (a * a + b * b + c)
    assert ssim(flat, flatter).item() == pytest.approx(expected, abs=1e-3)


def test_l1_spans_zero_to_one():
    white = torch.ones(1, 3, 4, 4)
    assert l1(white, -white).item() == 1


def test_translation_metric_names_and_means(net):
    metric = TranslationScores(net, outputs=2)
    with pytest.warns(UserWarning, match="before"), pytest.raises(ValueError, match="count > 0"):
        metric.compute()
    x, outputs = noise(3), noise(3, 2, seed=1)
    metric.update(x[:1], outputs[:1])
    metric.update(x[1:], outputs[1:])
    values = metric.compute()
    assert list(values) == ["diversity_k2_alex", "content_lpips_alex", "content_l1"]
    expected = translation_scores(net, x, outputs)["diversity"].mean()
    assert values["diversity_k2_alex"].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("what", ["outputs", "twin"])
def test_translation_refuses_shapes_that_do_not_fit(net, what):
    outputs, twin = (noise(2, 3), noise(3)) if what == "twin" else (noise(3, 3), None)
    with pytest.raises(ValueError, match="expected .* as the sources"):
        translation_scores(net, noise(2), outputs, twin)


def test_bootstrap_interval():
    values = np.random.default_rng(0).standard_normal(400)
    mean, low, high = bootstrap(values, seed=1)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert (mean, low, high) == bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert bootstrap([0.5], seed=0) == (0.5, 0.5, 0.5)


def test_bootstrap_of_groups():
    rng = np.random.default_rng(0)
    of_group = rng.standard_normal(200)
    values, groups = of_group.repeat(3), np.arange(200).repeat(3)  # three times the same
    order = rng.permutation(600)
    mean, low, high = bootstrap(values[order], 1, groups=7 * groups[order])  # any numbers
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * of_group.std() / 200**0.5, rel=0.1)
    _, *narrow = bootstrap(values, seed=1)  # as if independent
    assert high - low == pytest.approx(3**0.5 * (narrow[1] - narrow[0]), rel=0.1)
    own = bootstrap(values, 1, groups=np.arange(600))
    assert own == bootstrap(values, seed=1)
    assert bootstrap([0.0, 1.0, 1.0], 0, groups=[5, 5, 5]) == pytest.approx((2 / 3,) * 3)
    sizes = resampled_means(np.array([0.0, 1, 1, 1]), np.array([0, 1, 1, 1]), rng, 4000)
    assert set(sizes) == {0.0, 0.75, 1.0} and (sizes == 0.75).mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("values", [[], [0.1, np.nan], [[0.1]]])
def test_bootstrap_refuses(values):
    with pytest.raises(ValueError, match="expected"):
        bootstrap(values, seed=0)


@pytest.mark.parametrize("cls", [InterpolationSmoothness, TranslationScores])
def test_metrics_take_the_keywords_of_torchmetrics(cls, lpips_cache):
    options = dict(compute_on_cpu=True, dist_sync_on_step=True, sync_on_compute=False)
    metric = cls("alex", 2, **options)
    assert {name: getattr(metric, name) for name in options} == options
    frames = torch.rand(1, 2, 3, 32, 32) * 2 - 1
    metric.update(*([frames] if cls is InterpolationSmoothness else [frames[:, 0], frames]))
    plain = cls("alex", 2)
    plain.update(*([frames] if cls is InterpolationSmoothness else [frames[:, 0], frames]))
    assert metric.compute() == plain.compute()
    with pytest.raises(ValueError, match="compute_on_gpu"):
        cls("alex", 2, compute_on_gpu=True)


def test_rows_say_that_outputs_are_clamped():
    how = Protocol([], 64, {"latent": 10}, "alex", "released", "", None, "", 777)
    assert how.made("latent") == "10 latent-guided outputs a source, clamped as when saved"
    assert "unclamped" in translation_scores.__doc__

"""Texture: a weave is found where all is flat, and its lattice is told from noise."""

import pytest
import torch

from gen.metrics.texture import flat_area, high_pass, texture_scores


def levels(x):
    return x / 127.5 - 1


@pytest.fixture
def scene():
    """A disc on a plain ground, (1, 3, 64, 64) in levels."""
    i = torch.arange(64.0) - 31.5
    disc = (i[:, None] ** 2 + i**2).sqrt() < 12
    return torch.where(disc, 60.0, 200.0).expand(1, 3, 64, 64).clone()


def weave(period, size=64):
    """+-1 along columns."""
    j = torch.arange(size)
    return ((j % period) < period / 2).float() * 2 - 1


@pytest.mark.parametrize("period", [2, 4])
def test_the_high_pass_keeps_patterns_of_strided_layers_whole(period):
    x = weave(period).expand(1, 3, 64, 64)
    inner = high_pass(x)[..., 4:-4, 4:-4]
    torch.testing.assert_close(inner, x[..., 4:-4, 4:-4])
    ramp = torch.arange(64.0).expand(1, 3, 64, 64)
    assert high_pass(ramp)[..., 4:-4].abs().max() < 1e-4


def test_flat_is_where_both_are(scene):
    flat = flat_area(levels(scene))[0, 0]
    assert flat[32, 32] and flat[2, 2] and not flat[32, 20] and not flat[32, 18]
    other = scene.clone()
    other[..., :10] += 9 * torch.arange(10) % 2
    other[..., :10, :10] += torch.arange(10) % 2 * 9
    assert not flat_area(levels(scene), levels(other))[0, 0, 5, 5]


def test_a_lattice_and_noise_of_equal_strength_differ_in_what_is_locked(scene):
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = noise / high_pass(noise).square().mean().sqrt()
    lattice = scene + 3 * weave(4)
    made = torch.stack([scene, lattice, scene + 3 * noise, scene + 3 * weave(8).roll(1)], 1)
    x = levels(scene)
    found = [texture_scores(levels(made[:, k : k + 1]), x, x) for k in range(4)]
    flat, locked, detail = (
        [f[key].item() for f in found] for key in ("flat", "locked", "detail_ratio")
    )
    assert flat[0] < 0.01 and flat[1] == pytest.approx(3, rel=0.05)
    assert flat[2] == pytest.approx(3, rel=0.05)
    assert locked[0] < 0.01 and locked[1] == pytest.approx(3, rel=0.05)
    assert locked[2] < 0.4 and locked[3] < 0.4  # another period is not locked to 4
    assert detail[0] == pytest.approx(1) and 1 < detail[1] < 1.5
    assert found[1]["flat_ratio"].item() == pytest.approx(flat[1] * 12**0.5)  # real: none at all
    assert found[1]["flat_real"].item() < 0.01
    both = texture_scores(levels(made[:, :2]), x, x)
    assert both["flat"].item() == pytest.approx((flat[0] + flat[1]) / 2)


def test_where_nothing_is_flat_there_is_no_value_and_odd_sizes_fit():
    busy = torch.rand(2, 3, 37, 41, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = texture_scores(busy[:, None], busy, busy)
    assert found["flat"].isnan().all() and found["locked_ratio"].isnan().all()
    assert found["detail_ratio"].tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="real: expected"):
        texture_scores(busy[:, None], busy, busy[:1])
    with pytest.raises(ValueError, match="NaN"):
        texture_scores(busy[:, None] * torch.nan, busy, busy)

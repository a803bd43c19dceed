"""Losses: published check values, and finite gradients at the corners."""

import numpy as np
import pytest
import torch

from gen.losses.adversarial import bce, r1
from gen.losses.perceptual import content
from gen.losses.style import compactness, l1, mixup_partner, shrinkage, style_triplet


def wave(function, frequency):
    values = function(frequency * np.arange(3 * 64, dtype=np.float64)).reshape(3, 64)
    return torch.from_numpy(values).float()


A, P, N = wave(np.sin, 0.5), wave(np.cos, 0.3), wave(np.sin, 0.11)
ALL = torch.ones(3, dtype=torch.bool)


def test_triplet_check_values():
    assert style_triplet(A, P, N, ALL).item() == pytest.approx(0.04625241, abs=1e-6)
    assert style_triplet(A, N, P, ALL).item() == pytest.approx(0.19622469, abs=1e-6)


def test_triplet_takes_valid_samples_only():
    one = torch.tensor([False, True, False])
    alone = style_triplet(A[1:2], N[1:2], P[1:2], ALL[:1])
    torch.testing.assert_close(style_triplet(A, N, P, one), alone)
    assert style_triplet(A, N, P, ~ALL).item() == 0


def test_compactness_check_value_and_sum():
    assert compactness(A).item() == pytest.approx(0.49832657, abs=1e-6)
    torch.testing.assert_close(compactness(A, P), compactness(A) + compactness(P))


def test_shrinkage_forms():
    y = torch.tensor([0, 1, 1])
    assert shrinkage(A, y, "origin").item() == pytest.approx(0.49832657, abs=1e-6)
    shift = torch.full((64,), 5.0)
    for kind in ("centroid", "pairwise"):
        torch.testing.assert_close(shrinkage(A + shift, y, kind), shrinkage(A, y, kind))
    by_hand = torch.stack([(A[0] - A[1]).square().mean(), (A[0] - A[2]).square().mean()]).mean()
    torch.testing.assert_close(shrinkage(A, y, "pairwise"), by_hand)
    assert shrinkage(A, torch.zeros(3, dtype=torch.long), "pairwise").item() == 0
    with pytest.raises(ValueError, match="origin, centroid or pairwise, got 'x'"):
        shrinkage(A, y, "x")


def test_bce_is_torch_bce_and_its_weights_multiply():
    logits = torch.tensor([-80.0, -1.0, 0.0, 2.0, 80.0])
    reference = torch.nn.functional.binary_cross_entropy_with_logits
    for real in (True, False):
        target = torch.full_like(logits, float(real))
        torch.testing.assert_close(bce(logits, real), reference(logits, target))
        w = torch.rand(5)
        torch.testing.assert_close(
            bce(logits, real, w), (reference(logits, target, reduction="none") * w).mean()
        )


def test_r1_of_a_linear_discriminator_is_half_its_squared_norm():
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    w = torch.randn(3, 8, 8, requires_grad=True)
    penalty = r1((x * w).sum((1, 2, 3)), x)
    torch.testing.assert_close(penalty, 0.5 * w.square().sum())
    penalty.backward()
    torch.testing.assert_close(w.grad, w.detach())


def test_mixup_partners_are_a_permutation_and_of_other_domains_where_possible():
    for seed in range(50):
        rng = torch.Generator().manual_seed(seed)
        y = torch.randint(4, (8,), generator=rng)
        partner = mixup_partner(y, rng)
        assert sorted(partner.tolist()) == list(range(8))
        largest = y.bincount().max().item()
        same = (y[partner] == y).sum().item()
        assert same == max(0, 2 * largest - 8)


@pytest.mark.parametrize("corner", ["zeros", "equal", "parallel"])
def test_gradients_are_finite_at_the_corners(corner):
    base = {"zeros": torch.zeros(4, 8), "equal": torch.ones(4, 8), "parallel": torch.ones(4, 8)}
    s = base[corner].clone().requires_grad_()
    other = s.detach() * (2 if corner == "parallel" else 1)
    y = torch.tensor([0, 0, 1, 1])
    valid = y.bool()
    total = style_triplet(s, other, other, valid) + compactness(s) + l1(s, other)
    for kind in ("origin", "centroid", "pairwise"):
        total = total + shrinkage(s, y, kind)
    total.backward()
    assert s.grad.isfinite().all()


def test_half_precision_is_summed_in_fp32():
    x = torch.full((1, 3, 256, 256), 0.001, dtype=torch.bfloat16)
    assert l1(x, torch.zeros_like(x)).item() == pytest.approx(0.001, rel=0.01)
    assert l1(x, x).dtype == torch.float32


def test_content_is_the_mean_distance():
    x, y = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    distance = lambda a, b: (a - b).abs().mean((1, 2, 3))  # noqa: E731
    torch.testing.assert_close(content(x, y, distance), l1(x, y))

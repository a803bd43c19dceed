"""Losses on motion: their values where they are known, their limits, their gradients."""

import math

import pytest
import torch

from gen.losses import motion as losses


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return noise(*shape, seed=seed).tanh()


def test_flow_loss_is_masked_and_divided_by_all():
    flow, target = noise(2, 5, 2, 4, 8), noise(2, 5, 2, 4, 8, seed=1)
    visible = torch.zeros(2, 5, 1, 4, 8)
    assert losses.flow_l1(flow, target, visible) == 0
    visible[..., :4] = 1
    expected = (flow - target)[..., :4].abs().sum() / flow.numel()
    torch.testing.assert_close(losses.flow_l1(flow, target, visible), expected)


def test_visibility_loss():
    visible = torch.tensor([0.0, 1.0, 1.0])
    logits = torch.tensor([0.0, 0.0, math.log(3)])
    expected = torch.tensor((2 * math.log(2) + math.log(4 / 3)) / 3)
    torch.testing.assert_close(losses.visibility_bce(logits, visible), expected)
    right = torch.tensor([-1e4, 1e4, 1e4])
    assert losses.visibility_bce(right, visible) == 0
    wrong = (-right).requires_grad_()
    losses.visibility_bce(wrong, visible).backward()
    torch.testing.assert_close(wrong.grad, torch.tensor([1, -1, -1]) / 3)


def test_warped_loss():
    a, b = images(2, 5, 3, 4, 8), images(2, 5, 3, 4, 8, seed=1)
    assert losses.warped_l1(a, a) == 0
    torch.testing.assert_close(losses.warped_l1(a, b), (a - b).abs().mean())


def test_smoothness_forgives_edges():
    flow, image = torch.zeros(1, 1, 2, 8, 8), torch.zeros(1, 1, 3, 8, 8)
    assert losses.flow_smoothness(flow + 3, images(1, 1, 3, 8, 8)) == 0
    flow[..., 4:] = 2  # one edge of 2 px in one of 7 differences along x
    torch.testing.assert_close(losses.flow_smoothness(flow, image), torch.tensor(2 / 7))
    image[..., 4:] = 1
    expected = torch.tensor(2 / 7 * math.exp(-1))
    torch.testing.assert_close(losses.flow_smoothness(flow, image), expected)
    torch.testing.assert_close(losses.flow_smoothness(flow.mT, image.mT), expected)


def test_divergence():
    zero = torch.zeros(4, 16)
    assert losses.kl(zero, zero) == 0
    assert losses.kl(zero, zero, free=0.1) == pytest.approx(0.1)
    mean, log_variance = noise(4, 16), noise(4, 16, seed=1)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    p = torch.distributions.Normal(zero, zero + 1)
    nats = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(losses.kl(mean, log_variance), nats.mean())
    expected = nats.mean(0).clamp(min=1.0).mean()
    torch.testing.assert_close(losses.kl(mean, log_variance, free=1.0), expected)


def test_free_bits_leave_small_elements_alone():
    mean = torch.tensor([[0.1, 2.0]]).requires_grad_()
    losses.kl(mean, torch.zeros(1, 2), free=0.5).backward()
    assert mean.grad[0, 0] == 0 and mean.grad[0, 1] > 0


def test_ssim_of_equal_and_of_opposite_images():
    x = images(2, 3, 8, 8).requires_grad_()
    loss = losses.ssim(x, x.detach())
    loss.backward()
    assert loss.abs() < 1e-6 and x.grad.isfinite().all()
    assert losses.ssim(x, -x) > 0.5
    flat = torch.zeros(1, 2, 3, 8, 8, requires_grad=True)
    losses.ssim(flat, flat.detach()).backward()
    assert flat.grad.isfinite().all()


def test_ssim_by_hand():
    x, y = images(1, 1, 3, 3), images(1, 1, 3, 3, seed=1)
    a, b = ((v.double().flatten() + 1) / 2 for v in (x, y))
    covariance = (a * b).mean() - a.mean() * b.mean()
    top = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
    spread = a.var(correction=0) + b.var(correction=0)
    ssim = top / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (spread + 9e-4))
    torch.testing.assert_close(losses.ssim(x, y), ((1 - ssim) / 2).float(), atol=1e-5, rtol=0)


def test_parts_of_a_motion():
    target = torch.eye(2, 3).repeat(2, 3, 4, 1, 1)
    theta, present = target.clone(), torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    theta[0, :, 0] += torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for loss, both in ((losses.scale, 6), (losses.rotation, 6), (losses.translation, 9)):
        expected = torch.tensor(3 * both / 4)  # 3 steps, 4 objects there
        torch.testing.assert_close(loss(theta, target, present), expected)
        absent = theta.clone()
        absent[~present[:, None].expand(2, 3, 4)] = torch.nan
        torch.testing.assert_close(loss(absent, target, present), expected)
        assert loss(theta, target, torch.zeros_like(present)) == 0


def test_critics_answer_counts_for_all_samples():
    logits = torch.ones(4, 1, 2, 4)
    assert losses.lsgan(logits, True) == 0 and losses.lsgan(logits, False) == 1
    for n in range(4):
        flipped = logits.clone()
        flipped[n] = 0
        assert losses.lsgan(flipped, True) == 0.25


def test_feature_matching_sums_levels_and_teaches_the_fake_alone():
    fake = [noise(2, 4, 4, 4).requires_grad_(), noise(2, 8, 2, 2).requires_grad_()]
    real = [noise(2, 4, 4, 4, seed=1).requires_grad_(), noise(2, 8, 2, 2, seed=1).requires_grad_()]
    loss = losses.feature_matching(fake, real)
    torch.testing.assert_close(
        loss, sum((a - b).abs().mean() for a, b in zip(fake, real, strict=True))
    )
    loss.backward()
    assert all(f.grad is not None for f in fake) and all(r.grad is None for r in real)
    with pytest.raises(ValueError, match="shorter"):
        losses.feature_matching(fake, real[:1])


def test_half_precision_is_computed_in_fp32():
    flow, visible = (300 * noise(1, 1, 2, 4, 4)).half(), torch.ones(1, 1, 1, 4, 4)
    for loss in (
        losses.flow_l1(flow, torch.zeros_like(flow), visible),
        losses.flow_smoothness(flow, images(1, 1, 3, 4, 4).half()),
        losses.lsgan(flow, True),
        losses.kl(flow.flatten(1), torch.zeros(1, 32).half()),
        losses.ssim(*(images(1, 3, 4, 4).half() for _ in range(2))),
    ):
        assert loss.dtype == torch.float32 and loss.isfinite()

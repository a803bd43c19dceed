"""Interpolation of codes and paths of frames."""

import pytest
import torch

from gen.interpolation import alphas, lerp, path, slerp


def test_grids():
    assert alphas(20).tolist() == pytest.approx([t / 20 for t in range(20)])
    assert alphas(20, "strict")[[0, -1]].tolist() == [0.0, 1.0]
    for frames in (1, -3, 10**8):
        with pytest.raises(ValueError, match=f"at least 2 and at most 1000, got {frames}"):
            alphas(frames)


def test_a_uniform_grid_steps_evenly_as_seen():
    def place(t):  # of a path in a feature space: fast at its start, for each sequence otherwise
        return torch.stack([t.double().sqrt(), t.double() ** 2])  # (2, T)

    def steps(places):
        return (places[:, 1:] - places[:, :-1]).square()  # LPIPS is a square

    first = steps(place(alphas(101, "strict")))
    grid = alphas(6, "uniform", first)  # (2, 6)
    assert grid[:, 0].tolist() == [0, 0] and grid[:, -1].tolist() == [1, 1]
    expected = torch.linspace(0, 1, 6)
    torch.testing.assert_close(grid, torch.stack([expected**2, expected.sqrt()]), atol=2e-3, rtol=0)
    frames = path(lambda s: s[:, :, None, None], torch.zeros(2, 3), torch.ones(2, 3), grid)
    torch.testing.assert_close(frames[:, :, 0, 0, 0], grid)
    still, jump = torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    torch.testing.assert_close(alphas(5, "uniform", still)[0], alphas(5, "strict"))
    torch.testing.assert_close(alphas(3, "uniform", jump), torch.tensor([[0.0, 0.625, 1.0]]))
    for wrong in (dict(protocol="uniform"), dict(steps=still)):
        with pytest.raises(ValueError, match="expected with uniform and with it alone"):
            alphas(5, **wrong)
    with pytest.raises(ValueError, match="finite"):
        alphas(5, "uniform", -jump)


def test_ends_are_exact():
    a, b = torch.randn(2, 5, 8)
    assert torch.equal(lerp(a, b, 0.0), a) and torch.equal(lerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_slerp_keeps_length_and_angle():
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, 8), dim=-1)
    middle = slerp(a, b, 0.3)
    torch.testing.assert_close(middle.norm(dim=-1), torch.ones(5))
    whole, part = (a * b).sum(-1).acos(), (a * middle).sum(-1).acos()
    torch.testing.assert_close(part, 0.3 * whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_slerp_is_lerp_on_collinear_codes_with_finite_gradients(factor):
    a = torch.randn(3, 8).requires_grad_()
    b = factor * a.detach()
    torch.testing.assert_close(slerp(a, b, 0.25), lerp(a, b, 0.25))
    slerp(a, b, 0.25).sum().backward()
    assert a.grad.isfinite().all()


def test_path_renders_every_sequence_at_every_step():
    s_a, s_b = torch.zeros(2, 4), torch.ones(2, 4)
    frames = path(lambda s: s[:, :1, None, None].expand(-1, 3, 2, 2), s_a, s_b, alphas(4))
    assert frames.shape == (2, 4, 3, 2, 2)
    assert frames[0, :, 0, 0, 0].tolist() == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="equal"):
        path(lambda s: s, s_a, s_b[:1], alphas(4))

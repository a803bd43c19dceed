"""The networks of the implicit style function, against values of the published code."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gen.networks.style_function import AttributeDiscriminator, StyleFunction

GOLDEN = [  # pre_norm, norm, residual, mean, deviation, first four, last
    (1, "adaln", 0, -0.002458, 1.697999, [-2.03527, -1.29447, -0.25505, 0.86023], -2.06844),
    (1, "adain", 0, -0.005040, 1.681744, [-2.21530, -1.57307, -0.60406, 0.48493], -2.17109),
    (1, "none", 0, -0.005506, 1.642315, [-2.17108, -1.52653, -0.56712, 0.50063], -2.19225),
    (0, "adaln", 0, -0.004908, 1.656909, [-2.21481, -1.58483, -0.62554, 0.45833], -2.14959),
    (0, "adain", 0, -0.005479, 1.640758, [-2.16708, -1.51195, -0.54508, 0.52541], -2.20649),
    (0, "none", 0, -0.002509, 1.678272, [-2.04571, -1.35387, -0.35100, 0.74767], -2.03326),
    (1, "adaln", 1, -0.001197, 1.839799, [-1.93544, -1.12529, -0.01735, 1.16529], -1.27007),
]


def wave(shape: tuple[int, ...], a: float, k: float) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.sin(a * torch.arange(count, dtype=torch.float64) + k).float().view(shape)


def fill(net: nn.Module, order: Callable[[str], str] = str) -> None:
    """Parameters by rule, in the order of their published names."""
    state = net.state_dict()
    for k, key in enumerate(sorted(state, key=order)):
        v = 0.1 * wave(state[key].shape, 0.05, k)
        state[key].copy_(1 + v if v.ndim == 1 and key.endswith("weight") else v)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("pre, norm, residual, mean, deviation, first, last", GOLDEN)
def test_published_values_of_the_function(pre, norm, residual, mean, deviation, first, last):
    net = StyleFunction(18, 4, pre_norm=bool(pre), norm=norm, residual=bool(residual))
    fill(net)
    w, z = wave((2, 18, 512), 0.07, 0.1), wave((2, 64), 0.9, 0.2)
    out = net(w, z, torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]])).detach()
    assert out.shape == w.shape
    expected = torch.tensor([mean, deviation, *first, last])
    values = [out.mean(), out.std(correction=0), *out[0, 0, :4], out[-1, -1, -1]]
    torch.testing.assert_close(torch.stack(values), expected, atol=1e-4, rtol=0)


def test_published_values_of_the_discriminator():
    net = AttributeDiscriminator(64, 4)
    fill(net, lambda key: key.replace("main", "a"))  # its body is named to come before its heads
    cls, src = net(wave((2, 3, 64, 64), 0.011, 0.2))
    expected = [[-1.46005, -1.48245, -1.16991, -0.59007], [-1.46025, -1.48262, -1.17002, -0.59009]]
    torch.testing.assert_close(cls, torch.tensor(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(src, torch.tensor([-1.43826, -1.43835]), atol=1e-4, rtol=0)


def test_published_sizes():
    with torch.device("meta"):
        faces = StyleFunction(18, 4)
        assert size(faces) == 16_327_168
        parts = [size(m) for m in (faces.z_net.shared, faces.z_net.unshared, faces.adain, faces.fc)]
        assert parts == [826_368, 14_183_424, 526_336, 791_040]
        assert size(StyleFunction(18, 4, pre_norm=False)) == 16_326_144
        assert size(StyleFunction(14, 1)) == 13_173_760
        assert size(StyleFunction(1, 4)) == 2_931_712
        counts = {s: size(AttributeDiscriminator(s, 4)) for s in (256, 128, 64, 32)}
    assert counts == {256: 25_048_645, 128: 24_931_461, 64: 24_459_525, 32: 22_565_381}


def test_published_names():
    names = set(StyleFunction(2, 4, dim=8).state_dict())
    linear = [f"z_net.shared.{i}" for i in (0, 2, 3, 5, 6, 8, 9)] + ["adain.norm", "adain.fc"]
    linear += [f"z_net.unshared.{n}.{i}" for n in (0, 1) for i in (0, 2, 4)]
    linear += [f"fc.{i}" for i in (0, 1, 3, 4, 6, 7)]
    assert names == {f"{name}.{p}" for name in linear for p in ("weight", "bias")}


@pytest.mark.parametrize("norm", ["adaln", "adain", "none"])
def test_gradients_are_finite_at_the_corners(norm):
    net = StyleFunction(3, 2, dim=16, noise_dim=4, norm=norm)
    w = torch.zeros(2, 3, 16, requires_grad=True)  # LayerNorm of a constant row
    net(w, torch.zeros(2, 4), torch.zeros(2, 2)).sum().backward()
    assert all(t.grad.isfinite().all() for t in (w, *net.parameters()))


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm: expected adaln, adain or none, got 'batch'"):
        StyleFunction(2, 1, norm="batch")

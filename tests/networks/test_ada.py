"""ADA: golden numbers, derivatives, what is drawn."""

import inspect
import math
from typing import Literal

import numpy as np
import pytest
import torch

from gen.methods.stylegan2 import StyleGAN2
from gen.networks import ada
from gen.networks.ada import SYM6, Draws, augment, transform

X = torch.from_numpy(np.sin(0.011 * np.arange(2 * 3 * 32 * 32) + 0.2)).float().view(2, 3, 32, 32)
BGC = "blit", "geom", "color"


class Quantiles(Draws):
    """Spec 7.2: each number is its quantile q, every operation is done, the last turn is 0."""

    def __init__(self, q, N=2):
        self.q, self.N, self.turned = q, N, False

    def uniform(self, low, high, count=1):
        return torch.full((self.N, count), low + (high - low) * self.q)

    def normal(self, std, count=1):
        return torch.erfinv(torch.full((self.N, count), 2 * self.q - 1)) * std

    def maybe(self, value, neutral, p=None):
        return value.unbind(1)

    def rotation(self):
        first, self.turned = not self.turned, True
        return self.uniform(-math.pi, math.pi)[:, 0] if first else torch.zeros(self.N)


@pytest.mark.parametrize(
    "names, q, first, golden",
    [
        (("blit",), 0.3, [0.93960, 1.00001, 0.93778, 0.76056], {}),
        (("geom",), 0.3, [0.09175, 0.44892, 0.74359, 0.93479], {"last": 0.93352}),
        (("geom",), 0.8, [0.34217, 0.06322, -0.22084, -0.48705], {}),
        (("color",), 0.3, [-0.41037, -0.40150, -0.39258, -0.38362], {"last": 0.08722}),
        (("color",), 0.8, [], {"std": 1.220004}),
        (("filter",), 0.3, [0.18899, 0.19923, 0.20945, 0.21965], {}),
        (BGC, 0.3, [-0.23569, -0.32647, -0.34921, -0.27128], {"mean": -0.078616, "std": 0.519936}),
        (BGC, 0.8, [-2.11044, -2.09961, -2.06418, -2.01401], {"std": 1.217132}),
    ],
)
def test_golden_values(names, q, first, golden):
    out = transform(X, Quantiles(q), names)
    assert out.shape == X.shape
    assert out.flatten()[: len(first)].tolist() == pytest.approx(first, abs=1e-4)
    got = {"last": out.flatten()[-1], "mean": out.mean(), "std": out.std(correction=0)}
    assert {k: got[k].item() for k in golden} == pytest.approx(golden, abs=1e-4)


def test_the_filter_is_orthonormal_to_its_even_shifts():
    h = np.array(SYM6)
    assert h.sum() == pytest.approx(math.sqrt(2))
    for shift in range(0, 12, 2):
        assert h[shift:] @ h[: 12 - shift] == pytest.approx(float(shift == 0), abs=1e-9)


def test_p_0_changes_nothing():
    assert augment(X, 0, torch.Generator()) is X
    assert augment(X, torch.zeros(()), torch.Generator()) is X


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(p, N=2):
    return Draws(N, p, generator(), generator(1))


def test_samples_are_drawn_from_the_generator_each_for_itself():
    x, before = X[:1, :, :12, :12].expand(8, -1, -1, -1), torch.get_rng_state()
    out = augment(x, 0.8, generator())
    torch.testing.assert_close(out, augment(x, 0.8, generator()), rtol=0, atol=0)
    assert (out - augment(x, 0.8, generator(1))).abs().mean() > 0.01
    assert len({round(v, 4) for v in out.mean((1, 2, 3)).tolist()}) == 8
    assert torch.equal(torch.get_rng_state(), before)


def test_each_operation_is_done_with_probability_p():
    some = draws(0.3, 4000)
    (chosen,) = some.maybe(torch.ones(4000, 1), 0.0)
    assert chosen.mean().item() == pytest.approx(0.3, abs=0.03)
    turned = (some.rotation() != 0) | (some.rotation() != 0)
    assert turned.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert draws(1.5, 9).rotation().all()  # p is not limited to 1


def test_what_is_not_chosen_is_nearly_kept():
    smooth = 0.5 * X
    out = augment(smooth, 1e-9, generator())
    assert 0 < (out - smooth).abs().max() < 0.01  # the filter, up and down
    for kind in ("filter", "noise", "cutout"):
        torch.testing.assert_close(augment(X, 1e-9, generator(), kind), X, rtol=0, atol=1e-6)


def test_filters_of_the_bands():
    bank = ada.bands()
    assert bank.shape == (4, 43) and bank[:, 21].tolist() == [0.125, 0.125, 0.25, 0.5]
    assert bank[3, 18:25].tolist() == [0.03125, 0, -0.28125, 0.5, -0.28125, 0, 0.03125]
    assert torch.equal(bank.sum(0), torch.eye(43)[21])
    power = torch.fft.rfft(bank, 256).abs().square()  # 0 .. half the sampling rate
    octaves = power[:, :16], power[:, 16:32], power[:, 32:64], power[:, 64:]
    share = torch.stack([octave.mean(1) for octave in octaves], 1)
    assert share.argmax(0).tolist() == share.argmax(1).tolist() == [0, 1, 2, 3]


def test_the_filter_multiplies_each_band_by_its_gain():
    turn = math.pi * torch.arange(64)
    fast, slow = (turn + 0.0).cos().expand(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    gains = torch.tensor([[0.5, 1.0, 1.0, 3.0]])
    inner = ..., slice(22, -22), slice(22, -22)
    torch.testing.assert_close(ada.amplify(fast, gains)[inner], 1.5 * fast[inner])  # 3 by 0.5
    torch.testing.assert_close(ada.amplify(slow, gains), 0.25 * slow)  # mirrored at the edges


def test_the_gain_of_one_band_leaves_the_power_as_it_was():
    some = ada.gains(draws(0.1, 4000))
    changed = (some - 1).abs().amax(1) > 1e-4
    assert changed.float().mean().item() == pytest.approx(1 - 0.9**4, abs=0.03)
    kept = (some.square() @ torch.tensor(ada.POWER) - 1).abs() < 1e-5
    assert kept.float().mean().item() == pytest.approx(0.9**4 + 4 * 0.1 * 0.9**3, abs=0.02)


def test_statistics_of_noise():
    x, some = torch.zeros(2000, 3, 8, 8), draws(0.5, 2000)
    std = transform(x, some, ("noise",)).std((1, 2, 3))
    assert (std > 0).float().mean().item() == pytest.approx(0.5, abs=0.04)
    noisy = std[std > 0]
    assert noisy.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.06)  # |N(0, 0.1)|
    assert noisy.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.06)
    out = transform(x[:2], draws(1), ("noise",))
    assert out.mean().abs() < 0.02 and (out[:, 0] - out[:, 1]).abs().max() > 0


def test_statistics_of_cutout():
    x = torch.rand(2000, 3, 16, 20) + 1
    out = transform(x, draws(0.5, 2000), ("cutout",))
    gone = out == 0
    assert torch.equal(out[~gone], x[~gone])
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    area = gone[:, 0].float().mean((1, 2))
    assert (area > 0).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert 1 / 16 <= area[area > 0].min() and area.max().item() == pytest.approx(1 / 4)
    assert area[area > 0].mean().item() == pytest.approx((7 / 16) ** 2, rel=0.03)
    columns, rows = gone[:, 0].any(1), gone[:, 0].any(2)
    assert torch.equal(gone[:, 0], columns[:, None] & rows[:, :, None])  # a rectangle
    assert columns.sum(1).max() == 10 and rows.sum(1).max() == 8


def test_a_sample_is_filtered_as_if_alone():
    gains = ada.gains(draws(0.9))
    whole = ada.amplify(X, gains)
    alone = torch.cat([ada.amplify(X[i : i + 1], gains[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-6)


CLOSE = dict(rtol=0, atol=0.06)  # sym6 is only nearly symmetric


def test_a_flip_and_quarter_turns_by_themselves():
    class Turns(Quantiles):
        def __init__(self, flip, turns):
            self.N, self.next = 2, iter([flip + 0.5, turns + 0.5])

        def uniform(self, low, high, count=1):
            return torch.full((2, count), next(self.next, 0.0))

    plain = transform(X, Turns(0, 0), ("blit",))
    flipped = transform(X, Turns(1, 0), ("blit",))
    torch.testing.assert_close(flipped, transform(X.flip(3), Turns(0, 0), ("blit",)), **CLOSE)
    for k in range(1, 4):
        turned = transform(X, Turns(0, k), ("blit",))
        assert (turned - plain).abs().max() > 0.3
        want = transform(X.rot90(-k, (3, 2)), Turns(0, 0), ("blit",))
        torch.testing.assert_close(turned, want, **CLOSE)


def clear():
    """Images with opacity, a colour at most as large, (2, 4, 32, 32) in [0, 2]."""
    opacity = 1 + X[:, :1].roll(7, 3)
    return torch.cat([(1 + X) / 2 * opacity, opacity], 1)


def test_nothing_stays_nothing_and_lies_beyond_the_edges():
    nothing = -torch.ones(2, 4, 16, 16)
    for kind in ("blit", "geom", "color", "filter", "cutout", "bgc"):
        torch.testing.assert_close(augment(nothing, 1.0, generator(), kind), nothing, **CLOSE)
    full = 2 * torch.ones(1, 4, 32, 32)
    moved = ada.move(full, ada.shift2d(torch.full((1,), 8.0), 0))
    want = torch.cat([full[..., 8:], torch.zeros(1, 4, 32, 8)], 3)
    torch.testing.assert_close(moved, want, **CLOSE)
    moved = ada.move(full[:, :3], ada.shift2d(torch.full((1,), 8.0), 0))
    torch.testing.assert_close(moved, full[:, :3], **CLOSE)  # without opacity they are mirrored
    far = ada.move(full[:, :3], ada.shift2d(torch.full((1,), 80.0), 0))  # beyond the mirror image
    assert torch.equal(far, torch.zeros_like(far))
    cut = augment(torch.ones(2, 4, 16, 16), 1.0, generator(), "cutout")
    assert set(cut.unique().tolist()) == {-1.0, 1.0} and (cut == cut[:, :1]).all()


def test_opacity_moves_with_the_colours():
    for names in (("blit",), ("geom",), ("filter",)):
        moved = transform(clear(), Quantiles(0.3), names)
        for k in range(4):
            alone = transform(clear()[:, [k] * 4], Quantiles(0.3), names)
            torch.testing.assert_close(moved[:, k], alone[:, 0], **CLOSE)


def test_colours_change_where_there_are_some_and_opacity_stays():
    x = clear()
    half = x[:, 3:] / 2
    seen = transform(x[:, :3] / half - 1, Quantiles(0.3), ("color",))  # of the straight colours
    got = transform(x, Quantiles(0.3), ("color",))
    torch.testing.assert_close(got[:, :3], (seen + 1) * half, **CLOSE)
    assert torch.equal(got[:, 3], x[:, 3])
    opaque = torch.cat([X, torch.ones(2, 1, 32, 32)], 1)
    torch.testing.assert_close(
        augment(opaque, 1.0, generator(), "color")[:, :3], augment(X, 1.0, generator(), "color"),
        **CLOSE,
    )  # fmt: skip


@pytest.mark.parametrize("channels", [3, 4])
def test_two_derivatives(channels):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 6, 5).double().requires_grad_()

    def square(x):
        return augment(x, 0.9, generator(3)).square()

    assert torch.autograd.gradcheck(square, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(square, x, fast_mode=True)


@pytest.mark.parametrize("kind", ["filter", "noise", "cutout", "bgcfnc"])
def test_two_derivatives_of_every_kind(kind):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 5).double().requires_grad_()

    def square(x):
        return augment(x, 0.9, generator(3), kind).square()

    assert torch.autograd.gradcheck(square, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(square, x, fast_mode=True)


def test_autocast_leaves_images_in_fp32():
    with torch.autocast("cpu", torch.bfloat16):
        low = augment(X, 0.7, generator())
    torch.testing.assert_close(low, augment(X, 0.7, generator()), rtol=0, atol=0)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="one of blit, .*, bgcfn, bgcfnc, got 'bgf'"):
        augment(X, 0.5, generator(), "bgf")
    with pytest.raises(ValueError, match=r"p >= 0 and images \(N, 3 or 4, H, W\), got -1.0 and"):
        augment(X, -1, generator())
    with pytest.raises(ValueError, match=r"got 0.5 and \(2, 1, 32, 32\)"):
        augment(X[:, :1], 0.5, generator())
    offered = inspect.signature(StyleGAN2.__init__).parameters["augment"].annotation
    assert eval(offered, {"Literal": Literal}) == ada.Groups
    for kind in ada.Groups.__args__:
        assert augment(X, 0.5, generator(), kind).shape == X.shape

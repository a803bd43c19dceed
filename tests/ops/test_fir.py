"""FIR resampling: golden numbers, the literal form, derivatives, formats."""

import math

import numpy as np
import pytest
import torch

from gen.ops.fir import downsample2d, setup_filter, upfirdn2d, upsample2d
from literal_fir import CASES, fir_rows, literal_upfirdn2d

F4 = setup_filter((1, 3, 3, 1))


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_golden_values():  # spec 7.2
    x = torch.from_numpy(np.sin(0.3 * np.arange(32.0))).float().view(1, 2, 4, 4)
    up, down, same = upsample2d(x, F4), downsample2d(x, F4), upfirdn2d(x, F4, pad=(2, 1, 2, 1))
    assert [*up.shape, *down.shape, *same.shape] == [1, 2, 8, 8, 1, 2, 2, 2, 1, 2, 4, 4]
    assert up.mean().item() == pytest.approx(0.204806, abs=1e-4)
    assert up.std(correction=0).item() == pytest.approx(0.513868, abs=1e-4)
    first, last = [0, 0.05541, 0.16623, 0.27210], 0.07001
    assert [*up.flatten()[:4], up.flatten()[-1]] == pytest.approx([*first, last], abs=1e-4)
    first, last = [0.43892, 0.51440, 0.06756, -0.17288], 0.46929
    assert [*down.flatten()[:4], down.flatten()[-1]] == pytest.approx([*first, last], abs=1e-4)
    assert same.flatten()[:4].tolist() == pytest.approx(
        [0.07313, 0.17369, 0.27814, 0.30511], abs=1e-4
    )


def test_filters():
    assert F4.shape == (4, 4) and F4.sum() == 1 and F4[0, 1] == 3 / 64
    long = setup_filter(range(8))
    torch.testing.assert_close(long, torch.arange(8.0) / 28)


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (3, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize(
    "pad", [(0, 0, 0, 0), (1, 1, 2, 2), (2, 1, 1, 0), (5, 0, 3, 7), (-1, 2, -2, -1), (4, 4, 4, 4)]
)
def test_equals_the_literal_form(up, down, pad):
    x, f = random(2, 3, 7, 6).requires_grad_(), random(4, 3)
    got, want = (
        function(x, f, up, down, pad, gain=1.7) for function in (upfirdn2d, literal_upfirdn2d)
    )
    torch.testing.assert_close(got, want)
    g = random(*want.shape)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, g)[0] for y in (got, want)))


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
def test_a_long_filter_acts_on_one_axis_after_the_other(up, down):
    x, f = random(2, 3, 9, 8), random(12)
    both = literal_upfirdn2d(x, torch.outer(f, f), up, down, (6, 5, 7, 4), gain=3.0)
    torch.testing.assert_close(upfirdn2d(x, f, up, down, (6, 5, 7, 4), gain=3.0), both)
    if up == 2:
        assert upsample2d(x, f).shape == (2, 3, 18, 16)
    assert downsample2d(x, f).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("function", [upsample2d, downsample2d])
def test_two_derivatives(function):
    f = random(3, 4)  # not symmetric: a filter that is not turned would show

    def square(x):
        return function(x, f).square()

    x = random(1, 2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(square, x) and torch.autograd.gradgradcheck(square, x)


def test_a_constant_stays_constant_inside():
    x = torch.ones(1, 1, 8, 8)
    for y in (upsample2d(x, F4), downsample2d(x, F4)):
        torch.testing.assert_close(y[..., 2:-2, 2:-2], torch.ones_like(y[..., 2:-2, 2:-2]))


@pytest.mark.parametrize("options, size", CASES.values(), ids=CASES)
def test_the_memory_format_and_dtype_of_the_input_are_kept(options, size):
    x = random(2, 5, size // 8, size // 8).float()
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = upfirdn2d(last, F4, **options)
    (grad,) = torch.autograd.grad(y.square().sum(), last)
    for t in (y, grad):
        assert t.is_contiguous(memory_format=torch.channels_last)
    assert upfirdn2d(x, F4, **options).is_contiguous()
    with torch.autocast("cpu", torch.bfloat16):
        assert upfirdn2d(x, F4, **options).dtype == torch.float32
    low = upfirdn2d(x.bfloat16(), F4, **options)
    assert low.dtype == torch.bfloat16
    exact = upfirdn2d(x.bfloat16().float(), F4, **options)
    torch.testing.assert_close(low.float(), exact, rtol=2**-7, atol=1e-3)  # sums are in fp32


def test_the_race():
    rows = fir_rows(2, "cpu", repeats=3)
    assert [row["derivative"] for row in rows] == [1, 2] * len(CASES)
    assert max(row["largest_difference"] for row in rows) < 1e-5

    def mean(form: str, *uses: str) -> float:
        ratios = [row[f"x {form}"] for row in rows if not uses or row["resampling"] in uses]
        return math.prod(ratios) ** (1 / len(ratios))

    assert mean("literal", "upsample2d") > 2 and mean("literal", "downsample2d") > 2
    assert mean("literal last") > 1 and mean("separable") > 1


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected x \(N, C, H, W\) .* got \(3, 4, 4\) and"):
        upfirdn2d(torch.zeros(3, 4, 4), F4)

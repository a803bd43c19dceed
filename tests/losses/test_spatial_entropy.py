"""Spatial entropy: components as two judges see them, values and slopes as released, no NaN."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from gen.losses.spatial_entropy import (
    excess,
    head_decorrelation,
    spatial_entropy,
    total_variation,
)
from gen.ops import components
from gen.ops.components import component_count, component_ids, component_sums
from literal_scores import entropy_rows, entropy_ways, published_entropy, race

GRIDS = [(14, 14), (7, 7), (28, 28), (12, 16), (15, 13), (1, 9), (2, 5)]
CONNECTIVITY = pytest.mark.parametrize("connectivity", [8, 4])


@pytest.fixture(params=["opencv", "closure"])
def back_end(request, monkeypatch):
    """Both, on the CPU."""
    if request.param == "closure":
        monkeypatch.setattr(components, "_on_host", lambda mask: False)
    return request.param


# ---- maps and judges


def by_flood(mask, connectivity):
    """Ids of one map (H, W), by a stack of pixels to visit."""
    near = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    near += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if connectivity == 8 else []
    left, ids, count = {tuple(p) for p in np.argwhere(mask)}, np.zeros(mask.shape, int), 0
    for pixel in sorted(left):
        if pixel in left:
            count += 1
            left.remove(pixel)
            stack = [pixel]
            while stack:
                r, c = stack.pop()
                ids[r, c] = count
                found = {(r + i, c + j) for i, j in near} & left
                left -= found
                stack += found
    return ids


def by_scipy(masks, connectivity):
    """Ids of maps (M, H, W), each numbered in the order of first pixels."""
    flat = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    labels, count = ndimage.label(masks, np.stack([0 * flat, flat, 0 * flat]))
    found, first = np.unique(labels.ravel(), return_index=True)
    number = np.zeros(count + 1, int)
    number[found[found > 0][first[found > 0].argsort()]] = 1 + np.arange(count)
    ids = number[labels]
    before = np.maximum.accumulate(ids.max((1, 2), initial=0))
    before = np.concatenate([[0], before[:-1]])[:, None, None]
    return np.where(labels > 0, ids - before, 0)


def maze(rng, H, W, rows=2, columns=2):
    """A random spanning tree of the lattice of odd pixels: long, thin and without loops."""
    mask = np.zeros((H, W), bool)
    path, mask[0, 0] = [(0, 0)], True
    while path:
        r, c = path[-1]
        ways = [(rows, 0), (-rows, 0), (0, columns), (0, -columns)]
        ways = [(i, j) for i, j in ways if 0 <= r + i < H and 0 <= c + j < W]
        ways = [(i, j) for i, j in ways if not mask[r + i, c + j]]
        if ways:
            i, j = ways[rng.integers(len(ways))]
            mask[r + i // 2, c + j // 2] = mask[r + i, c + j] = True
            path.append((r + i, c + j))
        else:
            path.pop()
    return mask


def spiral(H, W):
    mask, (r, c), (i, j) = np.zeros((H, W), bool), (0, 0), (0, 1)

    def free(r, c):
        return 0 <= r < H and 0 <= c < W and not mask[r, c]

    for _ in range(H * W):
        mask[r, c] = True
        ahead = (
            free(r + i, c + j),
            free(r + 2 * i, c + 2 * j) or not (0 <= r + 2 * i < H and 0 <= c + 2 * j < W),
        )
        if not all(ahead):
            i, j = j, -i
            if not free(r + i, c + j) or not free(r + i + j, c + j - i):
                break
        r, c = r + i, c + j
    return mask


def masks_of(H, W, count, seed=0):
    """At least `count` maps (M, H, W): adversarial, their mirror images, and random densities."""
    rng = np.random.default_rng(seed)
    r, c = np.mgrid[:H, :W]
    ends = np.where(r % 4 == 1, c == W - 1, c == 0)
    snake = (r % 2 == 0) | ends
    maps = [
        snake,
        (r % 2 == 0) | ((c == 0) & (r % 4 == 1)) | ((c == W - 1) & (r % 4 == 3)),  # cut snakes
        (r % 2 == 0) | (c == W - 1),  # comb
        (c % 2 == 0) | (r == H - 1),
        (r + c) % 2 == 0,  # one component of 8, many of 4
        (r + c) % 3 == 0,
        (r % 2 == 0) & (c % 2 == 0),  # isolated pixels
        (r % 2 == 1) & (c % 2 == 1),
        r == c,
        spiral(H, W),
        r < 0,
        r >= 0,
        r + c == 0,
        (r == H - 1) & (c == W - 1),
        (r == 0) | (c == 0) | (r == H - 1) | (c == W - 1),
        np.minimum(np.minimum(r, H - 1 - r), np.minimum(c, W - 1 - c)) % 2 == 0,  # rings
    ]
    for _ in range(count // 12):
        maps.append(maze(rng, H, W))
        maps.append(maps[-1] ^ (rng.random((H, W)) < 0.03))
        maps.append(snake ^ (rng.random((H, W)) < 0.02))
    maps = np.stack(maps)
    maps = np.concatenate([maps, maps[:, ::-1], maps[:, :, ::-1]])
    density = np.linspace(0.05, 0.95, max(count - len(maps), 19))
    return np.concatenate([maps, rng.random((len(density), H, W)) < density[:, None, None]])


def every_4x4():
    return (np.arange(2**16)[:, None] >> np.arange(16) & 1).astype(bool).reshape(-1, 4, 4)


def chunks(x, size=512):
    return np.array_split(x, math.ceil(len(x) / size))


def ids_of(masks, connectivity):
    """(M, H, W) in numpy, a few at a time: closure takes n H W numbers a map."""
    ids = [component_ids(torch.from_numpy(m.copy()), connectivity) for m in chunks(masks)]
    return torch.cat(ids).numpy()


# ---- components


@CONNECTIVITY
@pytest.mark.parametrize("H, W", GRIDS)
def test_ids_as_scipy_numbers_them(back_end, H, W, connectivity):
    masks = masks_of(H, W, 250)
    masks = masks[::6] if back_end == "closure" and H == 28 else masks
    assert (ids_of(masks, connectivity) == by_scipy(masks, connectivity)).all()


@CONNECTIVITY
def test_ids_as_a_flood_finds_them(back_end, connectivity):
    for H, W in [(14, 14), (5, 4)]:
        masks = masks_of(H, W, 100, seed=1)[::3]
        expected = np.stack([by_flood(mask, connectivity) for mask in masks])
        assert (ids_of(masks, connectivity) == expected).all()
        assert (by_scipy(masks, connectivity) == expected).all()


@CONNECTIVITY
def test_ids_of_every_map_of_4x4(back_end, connectivity):
    masks = every_4x4()
    expected = by_scipy(masks, connectivity)
    ids = torch.cat([component_ids(torch.from_numpy(m), connectivity) for m in chunks(masks, 8192)])
    assert (ids.numpy() == expected).all()


@pytest.mark.slow
@CONNECTIVITY
@pytest.mark.parametrize("H, W", [(14, 14), (7, 7), (28, 28), (12, 16), (15, 13), (31, 17)])
def test_ids_of_very_many_maps(back_end, H, W, connectivity):
    masks = masks_of(H, W, 12_000 if back_end == "opencv" else 300, seed=2)
    assert (ids_of(masks, connectivity) == by_scipy(masks, connectivity)).all()


def test_the_longest_way_through_a_map_is_found(back_end):
    """The spiral of 28x28 and a snake of 20x40: pool flooding of 100 rounds falls short."""
    for H, W in [(28, 28), (20, 40)]:
        r, c = np.mgrid[:H, :W]
        snake = (r % 2 == 0) | np.where(r % 4 == 1, c == W - 1, c == 0)
        for mask in (spiral(H, W), snake, snake[::-1], snake[:, ::-1]):
            labels = torch.from_numpy(np.where(mask, r * W + c + 1.0, 0))[None]
            inside = torch.from_numpy(mask.copy())
            for _ in range(100):
                labels = torch.max_pool2d(labels, 3, 1, 1) * inside
            assert len(labels.unique()) > 2
            assert component_count(inside) == 1
            assert (component_ids(inside) == inside).all()


def test_counts_and_shapes(back_end):
    masks = torch.from_numpy(masks_of(6, 8, 60)[:60]).view(3, 4, 5, 6, 8)
    ids = component_ids(masks)
    assert ids.shape == masks.shape and ids.dtype == torch.int64
    assert (component_count(masks) == ids.flatten(-2).max(-1).values).all()
    assert component_count(masks).shape == (3, 4, 5)
    assert (component_ids(masks[0, 0, 0]) == ids[0, 0, 0]).all()
    apart = masks.transpose(-1, -2)
    assert (component_count(apart) == component_count(masks)).all()
    sums = component_sums(ids.double() ** 2, masks)
    assert sums.shape[:3] == (3, 4, 5)
    assert (sums.sum(-1) == (ids**2).sum((-1, -2))).all()
    assert component_sums(masks[0, 0, 0].float(), masks[0, 0, 0]).ndim == 1


def test_the_count_of_threads_is_no_matter():
    import cv2

    masks, before = torch.from_numpy(masks_of(14, 14, 3000)), cv2.getNumThreads()
    try:
        ids = []
        for threads in (1, 2, 7):
            cv2.setNumThreads(threads)
            ids.append(component_ids(masks))
    finally:
        cv2.setNumThreads(before)
    assert (ids[0] == ids[1]).all() and (ids[0] == ids[2]).all()


def test_wrong_masks_are_refused():
    with pytest.raises(ValueError, match=r"expected bool \(..., H, W\) with pixels, got torch.int"):
        component_ids(torch.ones(2, 2, dtype=torch.int32))
    for shape in [(4,), (0, 4, 4), (2, 0, 4)]:
        with pytest.raises(ValueError, match="expected bool"):
            component_sums(torch.ones(shape), torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match="connectivity: expected 8 or 4, got 6"):
        spatial_entropy(torch.rand(1, 1, 4, 4), connectivity=6)


# ---- values and slopes


def with_foreground(masks, dtype=torch.float64, seed=0):
    """Similarities (M, 1, H, W) above their mean, 0 but for rounding, in the masks exactly."""
    rng = np.random.default_rng(seed)
    s = masks * rng.uniform(0.5, 1.5, masks.shape)
    outside = np.maximum((~masks).sum((1, 2), keepdims=True), 1)
    s = np.where(masks, s, -s.sum((1, 2), keepdims=True) / outside)
    return torch.from_numpy(s[:, None]).to(dtype)


def reference(s, ids, factor=1.0):
    """H (M,) and dH/ds (M, H, W) of s (M, H, W) in fp64, its components known."""
    M, H, W = s.shape
    K = ids.max() + 1
    w = np.where(ids > 0, s - factor * s.mean((1, 2), keepdims=True) + 1e-9, 0)
    slots = ids + K * np.arange(M)[:, None, None]
    mass = np.bincount(slots.ravel(), w.ravel(), M * K).reshape(M, K)
    total = np.maximum(mass.sum(1, keepdims=True), 1e-30)
    log_p = np.log(np.where(mass > 0, mass / total, 1))
    entropy = -(mass / total * log_p).sum(1, keepdims=True)
    slope = (-(log_p + entropy) / total).ravel()[slots] * (ids > 0)
    return entropy[:, 0], slope - factor * slope.mean((1, 2), keepdims=True)


def agree(masks, connectivity, tolerance=1e-10):
    masks = masks[~masks.all((1, 2))]  # not all pixels can be above their mean
    for chunk in chunks(masks, 4096 // masks.shape[1]):
        s = with_foreground(chunk).requires_grad_()
        expected, slope = reference(s.detach().numpy()[:, 0], by_scipy(chunk, connectivity))
        entropy = spatial_entropy(s, connectivity, per_map=True)
        (grad,) = torch.autograd.grad(entropy.sum(), s)
        assert np.abs(entropy.detach().numpy()[:, 0] - expected).max() < tolerance
        assert np.abs(grad.numpy()[:, 0] - slope).max() < tolerance
    return len(masks)


@CONNECTIVITY
def test_values_and_slopes_of_ten_thousand_maps(connectivity):
    shapes = {(14, 14): 4000, (7, 7): 2500, (28, 28): 400, (12, 16): 2500, (15, 13): 1500}
    assert sum(agree(masks_of(*g, n, 3), connectivity) for g, n in shapes.items()) >= 10_000


@CONNECTIVITY
def test_values_and_slopes_of_every_map_of_4x4(back_end, connectivity):
    assert agree(every_4x4(), connectivity) == 2**16 - 1


@CONNECTIVITY
def test_values_and_slopes_by_closure(monkeypatch, connectivity):
    monkeypatch.setattr(components, "_on_host", lambda mask: False)
    for H, W in [(14, 14), (12, 16), (15, 13)]:
        agree(masks_of(H, W, 150, seed=4), connectivity)


def hand(*pixels):
    """4x4 of -1 in the background, less what makes the mean 0."""
    s = torch.zeros(4, 4)
    for r, c, value in pixels:
        s[r, c] = value
    assert s.sum() == (s == 0).sum()
    return torch.where(s > 0, s, -1.0)[None, None]


L = [(0, 0), (0, 1), (1, 0)]
HAND = {
    "two equal": ([(*p, 2) for p in L] + [(3, 3, 6)], math.log(2)),
    "two unequal": ([(*p, 3) for p in [*L, (3, 3)]], 0.5623351446188083),
    "one": ([(*p, 3) for p in [*L, (1, 1)]], 0.0),
    "diagonal": ([(0, 0, 7), (1, 1, 7)], 0.0),
    "three": ([(0, 0, 6.5), (0, 3, 3.25), (3, 0, 3.25)], 1.5 * math.log(2)),
}


@pytest.mark.parametrize("name", HAND)
def test_values_by_hand(back_end, name):
    pixels, value = HAND[name]
    assert spatial_entropy(hand(*pixels)).item() == pytest.approx(value, abs=1e-6)


def test_slope_by_hand(back_end):
    s = hand(*HAND["two unequal"][0]).requires_grad_()
    spatial_entropy(s).backward()
    slope = torch.zeros(4, 4)
    slope[0, 0] = slope[0, 1] = slope[1, 0] = -0.022888
    slope[3, 3] = 0.068663
    torch.testing.assert_close(s.grad[0, 0], slope, atol=1e-6, rtol=0)


def test_four_neighbours_part_a_diagonal(back_end):
    s = hand(*HAND["diagonal"][0])
    assert spatial_entropy(s, connectivity=4).item() == pytest.approx(math.log(2))


def golden(specs):
    for case in json.loads((specs / "sar_golden.json").read_text())["cases"]:
        s = torch.tensor(case["sim"], dtype=getattr(torch, case["dtype"]))
        yield case, s.unflatten(2, (case["H"], case["W"])).requires_grad_()


def test_the_released_values_and_slopes(back_end, specs):
    for case, s in golden(specs):
        official, half = case["official"], case["dtype"] == "float16"
        loss = spatial_entropy(s)
        (grad,) = torch.autograd.grad(loss, s)
        assert loss.dtype == torch.float32
        per_map = spatial_entropy(s, per_map=True)
        exact = torch.tensor(case["ref64_per_map_entropy"]).view_as(per_map)
        torch.testing.assert_close(per_map, exact, atol=1e-6, rtol=0, msg=case["name"])
        assert loss.item() == pytest.approx(per_map.mean().item(), abs=1e-7)
        counts = component_count(s > s.float().mean((2, 3), keepdim=True))
        assert counts.flatten().tolist() == case["components_per_map"]
        if "loss" in official:
            tolerance = 2e-3 if half else 1e-6
            assert loss.item() == pytest.approx(official["loss"], abs=tolerance), case["name"]
        else:  # the release fails where no map has a component
            assert loss == 0 and (grad == 0).all()
        if "grad" in official:
            expected = torch.tensor(official["grad"]).view_as(grad)
            torch.testing.assert_close(grad, expected, atol=1e-6, rtol=0, msg=case["name"])
        if case["hand_value"] is not None:
            assert loss.item() == pytest.approx(case["hand_value"], abs=1e-6)


def test_the_published_loop_of_the_benchmark_is_the_release(specs):
    for case, s in golden(specs):
        if case["dtype"] == "float32" and "grad" in case["official"]:
            loss = published_entropy(s)
            (grad,) = torch.autograd.grad(loss, s)
            assert loss.item() == pytest.approx(case["official"]["loss"], abs=1e-6)
            expected = torch.tensor(case["official"]["grad"]).view_as(grad)
            torch.testing.assert_close(grad, expected, atol=1e-6, rtol=0)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_threshold_factor(back_end, factor):
    s = (noise(6, 2, 9, 10, dtype=torch.float64) + 0.5).requires_grad_()
    flat = s.detach().numpy().reshape(12, 9, 10)
    masks = flat > factor * flat.mean((1, 2), keepdims=True)
    value, slope = reference(flat, by_scipy(masks, 8), factor)
    entropy = spatial_entropy(s, threshold_factor=factor, per_map=True)
    entropy.sum().backward()
    assert np.abs(entropy.detach().numpy().ravel() - value).max() < 1e-12
    assert np.abs(s.grad.numpy().reshape(flat.shape) - slope).max() < 1e-12


def test_slopes_as_differences(back_end):
    s = noise(2, 2, 5, 6, dtype=torch.float64).requires_grad_()
    weights = noise(2, 2, seed=1, dtype=torch.float64)  # slopes into each map differ
    for factor, connectivity in ((1.0, 8), (0.7, 4)):

        def weighted(s, factor=factor, connectivity=connectivity):
            return (spatial_entropy(s, connectivity, factor, per_map=True) * weights).sum()

        assert torch.autograd.gradcheck(weighted, s, eps=1e-7)
        assert torch.autograd.gradgradcheck(weighted, s, eps=1e-7)


def test_shift_and_scale_change_nothing_and_slopes_sum_to_zero(back_end):
    s = noise(4, 3, 14, 14).requires_grad_()
    loss = spatial_entropy(s)
    (grad,) = torch.autograd.grad(loss, s)
    assert grad.sum((2, 3)).abs().max() < 1e-8 and grad.abs().max() > 1e-4
    assert spatial_entropy(3 * s - 2).item() == pytest.approx(loss.item(), abs=1e-6)


def test_a_grid_is_read_row_by_row(back_end):
    """A column of 12x16 is one component; read as 16x12 its pixels lie apart."""
    s = torch.zeros(1, 1, 12, 16)
    s[..., 5] = 1
    assert spatial_entropy(s) == 0
    assert spatial_entropy(s.reshape(1, 1, 16, 12)) > 1


# ---- robustness


EDGES = {
    "zeros": torch.zeros(6, 6),
    "a constant whose mean is rounded": torch.full((6, 6), 0.1),
    "a large constant": torch.full((6, 6), 12345.678),
    "one pixel": torch.eye(36)[14].view(6, 6),
    "all but one pixel": 1 - torch.eye(36)[14].view(6, 6),
    "isolated pixels": torch.tensor([[1.0, 0.0], [0.0, 0.0]]).tile(3, 3),
    "huge": noise(6, 6) * 1e30,
    "tiny": noise(6, 6) * 1e-30,
    "denormal": noise(6, 6) * 1e-40,
    "one of 1e30 and one of 1e-9": torch.tensor([1e30] + [0] * 34 + [1e29]).view(6, 6),
    "a step of rounding": 1 + torch.finfo(torch.float32).eps * (noise(6, 6) > 0),
}


def test_nothing_of_a_constant_is_above_its_mean():
    for name, s in EDGES.items():
        over = excess(s[None, None].half() if name == "zeros" else s[None, None])
        assert over.dtype == torch.float32
        assert ("constant" in name or name == "zeros") == (over <= 0).all(), name
    s = noise(2, 3, 5, 7)
    torch.testing.assert_close(excess(s, 2.0), s - 2 * s.mean((2, 3), keepdim=True))


@CONNECTIVITY
@pytest.mark.parametrize("factor", [1.0, 2.0, 0.0])
def test_no_nan_at_the_corners(back_end, connectivity, factor):
    s = torch.stack(list(EDGES.values()))[:, None].requires_grad_()
    entropy = spatial_entropy(s, connectivity, factor, per_map=True)
    entropy.sum().backward()
    assert entropy.isfinite().all() and s.grad.isfinite().all()
    assert (entropy >= 0).all() and entropy.max() <= math.log(36)
    for name, h, grad in zip(EDGES, entropy, s.grad, strict=True):
        if "constant" in name or "zeros" in name or ("one pixel" in name and factor == 1):
            assert h == 0 and (grad == 0).all(), name
    alone = torch.zeros(2, 3, 1, 1, requires_grad=True)
    loss = spatial_entropy(alone)
    loss.backward()
    assert loss == 0 and (alone.grad == 0).all()


def test_an_empty_map_counts(back_end):
    s = hand(*HAND["two equal"][0])
    both = torch.cat([s, torch.zeros_like(s)], 1)
    assert spatial_entropy(both).item() == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(back_end, bad):
    s = noise(2, 2, 4, 4)
    s[1, 0, 2, 3] = bad
    entropy = spatial_entropy(s, per_map=True)
    assert entropy.isnan().tolist() == [[False, False], [True, False]]
    assert spatial_entropy(s).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fp32_inside_whatever_the_precision(back_end, dtype):
    s = noise(3, 2, 14, 14).to(dtype)
    exact = s.float().requires_grad_()
    half = s.requires_grad_()
    expected = spatial_entropy(exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, plain = spatial_entropy(half), spatial_entropy(exact)
        assert torch.equal(plain, expected) and torch.equal(cast, expected)
    (grad,) = torch.autograd.grad(cast, half)
    assert grad.dtype == dtype
    (slope,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(grad, slope.to(dtype))
    assert spatial_entropy(s.double()).dtype == torch.float64


def test_used_twice_and_backward_twice(back_end):
    s = noise(2, 2, 8, 8).requires_grad_()
    before = s.detach().clone()
    (once,) = torch.autograd.grad(spatial_entropy(s), s)
    loss = spatial_entropy(s) + 2 * spatial_entropy(s)
    for _ in range(2):
        (grad,) = torch.autograd.grad(loss, s, retain_graph=True)
        torch.testing.assert_close(grad, 3 * once)
    with torch.inference_mode():
        assert spatial_entropy(s) == spatial_entropy(before)
    assert torch.equal(s, before)


def test_any_layout_and_any_batch(back_end):
    s = noise(4, 3, 10, 8)
    whole = spatial_entropy(s, per_map=True)
    strided = s.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    torch.testing.assert_close(spatial_entropy(strided, per_map=True), whole)
    parts = torch.cat([spatial_entropy(x[None], per_map=True) for x in s])
    torch.testing.assert_close(parts, whole)
    with pytest.raises(ValueError, match=r"expected \(B, heads, H, W\), got \(4, 3, 80\)"):
        spatial_entropy(s.flatten(2))


@CONNECTIVITY
def test_off_the_host_nothing_reads_data(connectivity):
    """Tensors of the meta device have none: a sync or a branch on a value would raise."""
    s = torch.randn(2, 3, 15, 13, device="meta", requires_grad=True)
    spatial_entropy(s, connectivity, 2.0).backward()
    assert s.grad.shape == s.shape
    assert component_count(s > 0, connectivity).shape == (2, 3)
    with pytest.raises(RuntimeError, match="meta"):
        s.max().item()


@pytest.mark.slow
@CONNECTIVITY
def test_compiled_whole(connectivity):
    def loss(s):
        return spatial_entropy(s, connectivity, per_map=True)

    compiled = torch.compile(loss, fullgraph=True)
    s = noise(3, 2, 14, 13).requires_grad_()
    values, expected = compiled(s), loss(s)
    torch.testing.assert_close(values, expected)
    (grad,), (slope,) = (torch.autograd.grad(v.sum(), s) for v in (values, expected))
    torch.testing.assert_close(grad, slope)
    ids = torch.compile(component_ids, fullgraph=True)
    assert (ids(s > 0, connectivity) == component_ids(s > 0, connectivity)).all()


# ---- on a GPU

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@cuda
@CONNECTIVITY
@pytest.mark.parametrize("H, W", GRIDS)
def test_cuda_ids_equal_those_of_the_cpu(H, W, connectivity):
    for chunk in chunks(masks_of(H, W, 600, seed=5), 128):
        masks = torch.from_numpy(chunk)
        ids = component_ids(masks.cuda(), connectivity).cpu()
        assert (ids == component_ids(masks, connectivity)).all()


@cuda
@CONNECTIVITY
def test_cuda_loss_equals_that_of_the_cpu_without_a_sync(connectivity):
    s = noise(8, 6, 14, 14).requires_grad_()
    on_gpu = s.detach().cuda().requires_grad_()
    spatial_entropy(on_gpu, connectivity)  # the first call may set up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = spatial_entropy(on_gpu, connectivity)
        loss.backward()
        count = component_count(on_gpu > 0, connectivity)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = spatial_entropy(s, connectivity)
    expected.backward()
    torch.testing.assert_close(loss.cpu(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(on_gpu.grad.cpu(), s.grad, atol=1e-6, rtol=0)
    assert (count.cpu() == component_count(s > 0, connectivity)).all()


# ---- baselines


def test_total_variation():
    s = noise(2, 3, 4, 5)
    expected = 0.0
    for r in range(4):
        for c in range(5):
            expected += (s[..., r, c] - s[..., r - 1, c]).square().mean().item() if r else 0
            expected += (s[..., r, c] - s[..., r, c - 1]).square().mean().item() if c else 0
    assert total_variation(s).item() == pytest.approx(expected / 2, rel=1e-5)
    assert total_variation(torch.ones(1, 1, 3, 3)) == 0
    assert total_variation(torch.ones(1, 1, 1, 1)) == 0
    assert total_variation(s.half()).dtype == torch.float32


def test_head_decorrelation():
    o = noise(3, 4, 16).requires_grad_()
    pairs = [torch.cosine_similarity(o[:, a], o[:, b], dim=1) for a in range(4) for b in range(a)]
    torch.testing.assert_close(head_decorrelation(o), torch.stack(pairs).mean())
    same = o[:, :1].expand(3, 5, 16)
    assert head_decorrelation(same).item() == pytest.approx(1)
    assert head_decorrelation(torch.stack([o[:, 0], -o[:, 0]], 1)).item() == pytest.approx(-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head_decorrelation(o), head_decorrelation(o.float()))
    zeros = torch.zeros(2, 3, 8, requires_grad=True)
    head_decorrelation(zeros).backward()
    assert zeros.grad.isfinite().all() and head_decorrelation(zeros) == 0
    with pytest.raises(ValueError, match="2 heads or more, got 1"):
        head_decorrelation(o[:, :1])


# ---- time


def test_the_race_compares_equal_slopes():
    result = race(entropy_ways(noise(4, 6, 14, 14)), repeats=1)
    assert result["largest_difference"] < 1e-8 and result["ratio"] > 0


@pytest.mark.slow
def test_five_times_faster_than_one_call_a_map():
    """In processor time, forward and backward, for 64 images of 6 heads."""
    ways = entropy_ways(noise(64, 6, 14, 14))
    assert max(race(ways, 20, time.process_time)["ratio"] for _ in range(3)) >= 5


def test_rows_of_the_benchmark():
    rows = entropy_rows(2, "cpu")
    assert [row["maps"] for row in rows] == ["noise", "smooth"]
    for row in rows:
        assert row["largest_difference"] < 1e-7
        assert row["ratio"] == pytest.approx(row["ours_per_s"] / row["published_per_s"])


@pytest.mark.slow
def test_the_benchmark_prints_its_share_of_a_step():
    script = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"
    command = [sys.executable, script, "entropy", "--batch-size", "1", "--step"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout.splitlines()[-1])["rows"]:
        assert 0 < row["share"] < 0.05 and row["step s"] > 0

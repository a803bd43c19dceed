"""Attention as foreground, its Jaccard with masks, entropy and parts, and how it moves."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from gen.losses.spatial_entropy import excess
from gen.metrics.attention import (
    attention,
    auroc,
    foreground,
    jaccard,
    map_frames,
    map_statistics,
    map_variation,
    shift_path,
    shifted,
)
from gen.metrics.smoothness import InterpolationSmoothness
from gen.ops.components import component_ids
from gen.verbs import attention as verb
from gen.viz import attention as attention_viz

# The example of the release, as similarities; prefix already dropped.
SHARES = torch.tensor(
    [
        [0.02, 0.03, 0.05, 0.20, 0.30, 0.05, 0.05, 0.20, 0.10],
        [0.30, 0.25, 0.25, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01],
    ]
).view(1, 2, 3, 3)
TARGET = torch.tensor([[[15, 15, 255], [15, 0, 0], [7, 7, 0]]])


def maps(n=2, heads=3, h=6, w=8, seed=0):
    return torch.randn(n, heads, h, w, generator=torch.Generator().manual_seed(seed))


# ---- foreground and Jaccard ---------------------------------------------------------------------


def test_values_of_the_release():
    masks = foreground(SHARES.log(), 0.6)
    assert masks.int().tolist() == [
        [[[0, 0, 0], [1, 1, 0], [0, 1, 0]], [[1, 1, 1], [0] * 3, [0] * 3]]
    ]
    for ignore_void, expected in ((False, 0.375), (True, 0.25 / 2 + 2 / 3 / 2)):
        values, shown = jaccard(masks, TARGET, ignore_void)
        assert values.tolist() == pytest.approx([expected], abs=1e-12) and shown.tolist() == [True]


def test_values_of_the_release_as_they_were_written_down(specs):
    golden = json.loads((specs / "sar_golden.json").read_text())["segmentation"]
    similarity = torch.tensor(golden["attn_cls_row"])[:, 1:].log().view(1, 2, *golden["grid"])
    masks = foreground(similarity, golden["threshold"])
    assert torch.equal(masks[0].float(), torch.tensor(golden["masks"]))
    target = torch.tensor([golden["target"]])
    assert jaccard(masks, target, False)[0].item() == pytest.approx(golden["official_jaccard"])
    really = golden["jaccard_with_void_really_ignored"]
    assert jaccard(masks, target)[0].item() == pytest.approx(really)


@pytest.mark.parametrize("mass", [0.05, 0.4, 0.6, 0.9, 1])
def test_the_foreground_is_the_fewest_patches_with_the_mass(mass):
    s = maps(seed=1)
    share, mask = attention(s), foreground(s * 1.0, mass)
    assert torch.allclose(share.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64))
    for p, kept in zip(share.flatten(0, 1), mask.flatten(0, 1), strict=True):
        inside = p[kept]
        assert inside.sum() >= mass - 1e-12  # enough ..
        assert inside.sum() - inside.min() < mass  # .. and not without the least of them
        assert kept.all() or inside.min() >= p[~kept].max()
    assert torch.equal(mask, foreground(3 + s, mass))  # a softmax does not see shifts


def test_equal_patches_are_no_error():
    mask = foreground(torch.zeros(1, 1, 4, 5), 0.6)
    assert mask.sum() == 12 and mask[0, 0, -1].all() and not mask[0, 0, 0].any()


def pixels(mask):
    return set(map(tuple, mask.nonzero().tolist()))


def test_jaccard_against_sets_of_pixels():
    g = torch.Generator().manual_seed(3)
    masks = torch.rand(4, 3, 4, 3, generator=g) < 0.5
    truth = torch.randint(0, 4, (4, 8, 9), generator=g) * 85  # 0, 85, 170, 255
    big = masks.repeat_interleave(2, 2).repeat_interleave(3, 3)
    for ignore_void in (True, False):
        expected = []
        for n in range(4):
            best = []
            for c in (85, 170):
                wanted = pixels(truth[n] == c)
                void = pixels(truth[n] == 255) if ignore_void else set()
                found = [pixels(m) - void for m in big[n]]
                best.append(max(len(f & wanted) / len(f | wanted) for f in found))
            expected.append(sum(best) / 2)
        assert jaccard(masks, truth, ignore_void)[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_one_object_is_one_class_and_an_image_without_is_left_out():
    masks = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    masks[:, :, 0] = True
    alpha = torch.zeros(3, 4, 4, dtype=torch.bool)
    alpha[0, :2], alpha[2, :, :2] = True, True
    values, shown = jaccard(masks, alpha.long())
    assert values.tolist() == pytest.approx([1, 1 / 3]) and shown.tolist() == [True, False, True]
    only_void = torch.full((3, 4, 4), 255)
    values, shown = jaccard(masks, only_void)
    assert values.shape == (0,) and not shown.any()


S, T = torch.zeros(1, 2, 3, 3), torch.zeros(1, 6, 6, dtype=torch.int64)


@pytest.mark.parametrize(
    "call, why",
    [
        (lambda: foreground(S.int()), "expected float"),
        (lambda: foreground(S[0]), r"got torch.float32 \(2, 3, 3\)"),
        (lambda: foreground(S[:0]), "not empty"),
        (lambda: foreground(S * torch.nan), "NaN"),
        (lambda: foreground(S, 0.0), r"\(0, 1\], got 0.0"),
        (lambda: foreground(S, 60), "got 60"),
        (lambda: jaccard(S, T), "expected bool"),
        (lambda: jaccard(S[0] > 0, T), "masks: expected"),
        (lambda: jaccard(S > 0, T.int()), "expected int64"),
        (lambda: jaccard(S > 0, T[0]), "segmentation: expected"),
        (lambda: jaccard(S > 0, T.repeat(2, 1, 1)), "expected 1 images, as maps, got 2"),
        (lambda: jaccard(S > 0, T - 1), r"0 .. 255, got -1 .. -1"),
        (lambda: jaccard(S > 0, T + 256), "got 256 .. 256"),
        (lambda: map_statistics(S * math.inf), "infinity"),
        (lambda: shifted(S, -1), "got -1"),
        (lambda: shift_path(lambda x: x, S, 1, frames=1), "at least 2"),
    ],
)
def test_doors(call, why):
    with pytest.raises(ValueError, match=why):
        call()


# ---- statistics ---------------------------------------------------------------------------------


def test_entropy_and_components_of_a_map_by_hand():
    s = torch.full((1, 2, 4, 4), -1.0)
    s[0, 0, 0, 0] = s[0, 0, 0, 1] = s[0, 0, 1, 0] = s[0, 0, 3, 3] = 3  # masses 9 and 3
    s[0, 1, 1:3, 1:3] = 3  # one block
    found = map_statistics(s)
    assert found["components"].tolist() == [[2, 1]]
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["spatial_entropy"].tolist()[0] == pytest.approx([expected, 0], abs=1e-6)


def test_the_parts_are_those_of_the_loss():
    found = map_statistics(maps(50, 3, 8, 8))
    assert (found["spatial_entropy"] <= found["components"].log() + 1e-6).all()
    flat = map_statistics(torch.full((1, 1, 5, 5), 0.5))  # nothing is above the mean
    assert flat["components"].item() == flat["spatial_entropy"].item() == 0


def test_the_script_weighs_parts_as_the_loss_does(monkeypatch):
    s, drawn = maps(1).half(), []  # halves are rounded where the loss does not
    told = dict(domains=["cat"], attention=lambda x: s, classify=lambda x: torch.zeros(1, 1))
    monkeypatch.setattr(attention_viz, "parts", lambda *args: drawn.append(args))
    verb.row(SimpleNamespace(**told), torch.zeros(1, 3, 12, 16), 32)
    for k, (_, ids, mass, _) in enumerate(drawn):
        assert torch.equal(mass, excess(s)[0, k].clamp(min=0))
        assert torch.equal(ids, component_ids(mass > 0))
    assert len(drawn) == 3


# ---- shifts -------------------------------------------------------------------------------------


def test_a_shift_moves_to_the_right_and_repeats_the_edge():
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    assert torch.equal(shifted(x, 0), x)
    assert shifted(x, 1).tolist() == [[1, 1, 2, 4]]
    assert shifted(x, 2.25).tolist() == [[1, 1, 1, 1.75]]
    assert shifted(x, 9).tolist() == [[1, 1, 1, 1]]


def bright(x):
    """Looks where it is bright: every patch of 4 px by itself. (N, 2 heads, H / 4, W / 4)"""
    s = 4 * torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4)
    return torch.cat([s, s], 1)


def jumping(x):
    """The same of the image at the nearest whole patch: its maps stand still, then jump."""
    at = int(x.mean((0, 1, 2)).argmax())  # where the bar is
    return bright(torch.roll(x, at // 4 * 4 - at, -1))


def bar():
    x = torch.full((1, 3, 32, 32), -1.0)
    x[..., 4:28, 12:16] = 1
    return x


def test_the_path_of_maps_begins_with_the_image_and_ends_one_cell_on():
    path = shift_path(bright, bar(), 4, frames=5)
    assert path.shape == (1, 5, 8, 8) and path.dtype == torch.float64
    assert torch.equal(path[:, 0], attention(bright(bar())).mean(1))
    assert torch.allclose(path[:, 4], path[:, 0].roll(1, -1), atol=1e-12)
    assert torch.allclose(path.sum((2, 3)), torch.ones(1, 5, dtype=torch.float64))


def test_variation_by_hand():
    a, b = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    a[0, 0, 0], b[0, 1, 1] = 1, 1
    half = (a + b) / 2
    path = torch.stack([a, half, b, b], 1)  # moves 0.5, 0.5, 0
    assert map_variation(path).tolist() == pytest.approx([1 / 3])
    assert map_variation(path[:, 2:]).item() == 0


def test_frames_share_the_scale_of_the_first():
    path = torch.tensor([0.5, 0.25, 0.75]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert map_frames(path)[0, :, :, 0, 0].tolist() == [[1] * 3, [0] * 3, [1] * 3]


def test_a_map_that_jumps_is_less_smooth_than_one_that_glides(lpips_cache):
    values = {}
    for name, looks in (("glides", bright), ("jumps", jumping)):
        metric = InterpolationSmoothness()
        metric.update(map_frames(shift_path(looks, bar(), 4)))
        values[name] = metric.compute()["ps_t20_alex"].item()
    assert values["glides"] > values["jumps"] + 0.3


# ---- without a threshold ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(12, 16), (13, 9), (6, 8)])
def test_auroc_is_that_of_torchmetrics_of_the_enlarged_maps(size):
    s = maps().round(decimals=1)  # with ties
    truth = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(1))
    truth[truth == 3] = 255
    big = torch.nn.functional.interpolate(s, size, mode="nearest")
    for n in range(2):
        seen = truth[n] != 255
        best = [
            max(binary_auroc(b[seen].sigmoid(), (truth[n] == c)[seen]).item() for b in big[n])
            for c in (1, 2)
        ]
        value, shown = auroc(s[n : n + 1], truth[n : n + 1])
        assert value.item() == pytest.approx(sum(best) / 2, abs=1e-6) and shown.all()


def test_auroc_does_not_reward_flat_maps():
    truth = torch.zeros(1, 12, 16, dtype=torch.int64)
    truth[:, :10] = 1  # nearly all of the picture
    flat = torch.zeros(1, 2, 6, 8)
    assert auroc(flat, truth)[0] == 0.5
    assert jaccard(foreground(flat, 0.6), truth)[0] > 0.4
    exact = torch.nn.functional.interpolate((truth > 0).float()[None], (6, 8))
    assert auroc(exact, truth)[0] > 0.9 and auroc(-exact, truth)[0] < 0.1


def test_auroc_needs_an_object_and_something_else():
    truth = torch.ones(4, 6, 8, dtype=torch.int64)
    truth[0] = 0
    truth[2] = 255
    truth[3, 0] = 0
    values, shown = auroc(maps(4), truth)
    assert shown.tolist() == [False, False, False, True] and len(values) == 1
    assert auroc(maps(1), truth[:1])[0].shape == (0,)
    with pytest.raises(ValueError, match="expected 2 images, as maps, got 4"):
        auroc(maps(2), truth)
    with pytest.raises(ValueError, match="expected finite values"):
        auroc(maps(4) / 0, truth)

"""Localization by one map of an image, and outlying norms, on maps and tokens made by hand."""

import math

import pytest
import torch

from gen.metrics.attention import attention, auroc, mass_on_object
from gen.metrics.localization import (
    centre_map,
    corloc,
    largest_norm,
    mean_map,
    norm_outliers,
    pointing,
)


def truth(*box, size=(16, 16), count=1, c=1):
    """Segmentation with class c in the box (top, left, bottom, right)."""
    made = torch.zeros(count, *size, dtype=torch.int64)
    made[:, box[0] : box[2], box[1] : box[3]] = c
    return made


def bright(*cells, size=(4, 4)):
    made = torch.zeros(1, *size)
    for r, c in cells:
        made[0, r, c] = 1
    return made


def test_the_mean_map_is_the_mean_of_shares_and_no_head_counts_more():
    s = torch.zeros(1, 2, 2, 2)
    s[0, 0, 0, 0], s[0, 1, 1, 1] = 100, math.log(3)  # all in one patch; half there
    found = mean_map(s)
    assert found.shape == (1, 2, 2) and found.dtype == torch.float64
    assert torch.allclose(found[0], torch.tensor([[7 / 12, 1 / 12], [1 / 12, 1 / 4]]).double())
    shifted = s + torch.tensor([5.0, -3.0]).view(1, 2, 1, 1)  # a softmax does not see this
    assert torch.allclose(mean_map(shifted), found)
    target = truth(0, 0, 2, 2, size=(4, 4))
    of_mean, of_heads = (mass_on_object(m, target)[0] for m in (found.log()[:, None], s))
    assert torch.allclose(of_mean, of_heads)  # the mass is the same either way


def test_the_centre_map_is_a_gaussian():
    found = centre_map(4, 8)
    assert found.sum().item() == pytest.approx(1) and found.shape == (4, 8)
    assert torch.allclose(found, found.flip(0)) and torch.allclose(found, found.flip(1))
    # from y = 0.125 to 0.375 of the side around the centre, sigma 0.25
    assert (found[0, 0] / found[1, 0]).item() == pytest.approx(math.exp(-(1.5**2 - 0.5**2) / 2))
    assert (found[0, 0] / found[0, 1]).item() == pytest.approx(math.exp(-(1.75**2 - 1.25**2) / 2))


@pytest.mark.parametrize(
    "cells, box, hit",
    [
        ([(1, 1), (1, 2), (2, 1), (2, 2)], (4, 4, 12, 12), 1),  # exact
        ([(1, 1), (2, 2)], (4, 4, 12, 12), 1),  # joined by a corner: the same box
        ([(1, 1), (1, 2)], (4, 4, 12, 12), 0),  # exactly half is not more than half
        ([(1, 1), (1, 2)], (4, 4, 11, 12), 1),  # 32 of 56 pixels
        ([(0, 0), (0, 1), (3, 3)], (0, 0, 4, 8), 1),  # the larger part counts
        ([(0, 0), (0, 1), (3, 3)], (12, 12, 16, 16), 0),
        ([(0, 0), (3, 3)], (0, 0, 4, 4), 1),  # of equal parts the first
        ([(0, 0), (3, 3)], (12, 12, 16, 16), 0),
        ([], (0, 0, 16, 9), 1),  # flat: the whole image
        ([], (0, 0, 16, 8), 0),
    ],
)
def test_corloc_by_hand(cells, box, hit):
    values, shown = corloc(bright(*cells), truth(*box))
    assert values.tolist() == [hit] and values.dtype == torch.float64 and shown.tolist() == [True]


def test_corloc_takes_the_part_with_most_patches_not_the_heaviest_and_any_value_above_the_mean():
    maps = bright((0, 0), (0, 1))
    maps[0, 3, 3] = 3
    assert corloc(maps, truth(0, 0, 4, 8))[0].item() == 1
    assert corloc(maps * 7 - 2, truth(0, 0, 4, 8))[0].item() == 1
    maps[0, 3, 3] = 100  # now the mean is above the others
    assert corloc(maps, truth(12, 12, 16, 16))[0].item() == 1


def test_corloc_does_not_reward_spread():
    target = truth(2, 3, 9, 10, count=3)
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) * 1e-6 + 1
    flat = corloc(torch.ones(3, 4, 4), target)[0]
    assert flat.tolist() == [0, 0, 0] and corloc(maps, target)[0].sum() == 0
    tiny = truth(0, 0, 16, 16)  # the object is the image: here flat maps are right
    assert corloc(torch.ones(1, 4, 4), tiny)[0].item() == 1


def test_corloc_with_classes_void_and_images_without():
    target = torch.zeros(4, 16, 16, dtype=torch.int64)
    target[0, 0:4, 0:4], target[0, 8:16, 8:16] = 3, 7  # the box of one class of them is enough
    target[1, 8:16, 8:16], target[1, 0:8] = 3, 255  # void is in no box
    target[3] = 255
    maps = bright((2, 2), (2, 3), (3, 2), (3, 3)).expand(4, 4, 4)
    values, shown = corloc(maps, target)
    assert values.tolist() == [1, 1] and shown.tolist() == [True, True, False, False]
    values, shown = corloc(maps[2:], target[2:])
    assert values.shape == (0,) and values.dtype == torch.float64 and not shown.any()


def test_pointing_by_hand():
    maps = torch.cat(
        [bright((0, 0)), 2 * bright((3, 3)), bright((0, 0), (3, 3)), torch.ones(1, 4, 4)]
    )
    maps[0, 3, 3] = 0.9  # only the largest counts
    target = truth(0, 0, 4, 2, count=4)  # half of the first patch, 8 of 256 pixels
    values, shown = pointing(maps, target)
    assert values.tolist() == pytest.approx([1 / 2, 0, 1 / 4, 8 / 256]) and shown.all()
    target[0, :2, :4] = 255  # of the 8 pixels of the patch that are left, 4 are the object
    target[2] = 0
    target[3] = 255
    values, shown = pointing(maps, target)
    assert values.tolist() == pytest.approx([1 / 2, 0]) and shown.tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_a_flat_map_has_nothing_in_any_measure():
    target = truth(4, 4, 12, 12)
    s = torch.zeros(1, 3, 4, 4)
    flat = mean_map(s)
    assert pointing(flat, target)[0].item() == mass_on_object(s, target)[0].item() == 0.25
    assert corloc(flat, target)[0].item() == 0 and auroc(flat[:, None], target)[0].item() == 0.5
    centre = centre_map(4, 4)[None]  # where the centre is the object, it wins
    assert pointing(centre, target)[0].item() == corloc(centre, target)[0].item() == 1
    assert auroc(centre[:, None], target)[0].item() == 1
    assert torch.allclose(attention(centre.log()[:, None])[:, 0], centre)


def test_norms_of_tokens_by_hand():
    tokens = torch.zeros(3, 8, 5)
    tokens[..., 0] = 2
    tokens[0, 3, 1:3] = torch.tensor([6.0, 3.0])  # norm 7
    tokens[0, 4, 0] = -6  # 3 medians are not more than 3
    tokens[1] *= 100
    tokens[2, :, 0] = torch.arange(8.0)  # median 3.5
    assert norm_outliers(tokens).tolist() == [1 / 8, 0, 0]
    assert largest_norm(tokens).tolist() == pytest.approx([3.5, 1, 2])
    assert norm_outliers(tokens, 2.9).tolist() == [2 / 8, 0, 0]
    assert norm_outliers(1e4 * tokens).tolist() == [1 / 8, 0, 0]  # no number for each network
    assert norm_outliers(torch.zeros(1, 4, 5)).tolist() == [0]


MAPS, TARGET = torch.zeros(1, 3, 3), torch.zeros(1, 6, 6, dtype=torch.int64)


@pytest.mark.parametrize("score", [corloc, pointing])
@pytest.mark.parametrize(
    "change, why",
    [
        (
            lambda m, t: (m[None], t),
            r"expected float \(N, Hg, Wg\), not empty, got .* \(1, 1, 3, 3\)",
        ),
        (lambda m, t: (m.int(), t), "got torch.int32"),
        (lambda m, t: (m / 0, t), "finite values, got NaN"),
        (lambda m, t: (m, t.int()), "segmentation: expected int64"),
        (lambda m, t: (m, t.repeat(2, 1, 1)), "expected 1 images, as maps, got 2"),
        (lambda m, t: (m, t + 256), "got 256 .. 256"),
    ],
)
def test_doors(score, change, why):
    with pytest.raises(ValueError, match=why):
        score(*change(MAPS, TARGET))


def test_doors_of_tokens():
    with pytest.raises(ValueError, match=r"expected float \(N, P, D\), not empty, got"):
        norm_outliers(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="finite values, got NaN"):
        largest_norm(torch.full((1, 4, 5), torch.nan))

"""Accuracy of a translation, as a classifier of domains tells it."""

import pytest
import torch

from gen.metrics.accuracy import domain_accuracy

SIZE = 8


class Brightest:
    """Takes an image for the domain of its brightest colour; writes down how many it saw."""

    def __init__(self, factor: float = 1.0):
        self.factor, self.seen = factor, []

    def classify(self, x):
        self.seen.append(len(x))
        return x.mean((2, 3)) * self.factor


def colours(*rows):
    """Nested lists of domains -> images of their colours in [-1, 1]."""
    y = torch.tensor(rows)
    x = torch.full((*y.shape, 3, SIZE, SIZE), -0.5)
    x.scatter_(y.ndim, y[..., None, None, None].expand(*y.shape, 1, SIZE, SIZE), 0.5)
    return x


def test_share_of_outputs_in_the_target_domain():
    images = colours([0, 0, 1, 2], [1, 1, 1, 1], [0, 0, 0, 0])  # (3, 4, 3, H, W)
    y = torch.tensor([0, 1, 2])
    kept = images.clone()
    got = domain_accuracy(Brightest(), images, y)
    assert got.tolist() == [0.5, 1.0, 0.0] and got.dtype == torch.float32
    assert torch.equal(images, kept) and y.tolist() == [0, 1, 2]


def test_real_images_count_one_each():
    got = domain_accuracy(Brightest(), colours(0, 1, 2, 2), torch.tensor([0, 0, 2, 1]))
    assert got.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_batch_changes_nothing_and_each_image_is_seen_once(batch):
    judge, images = Brightest(), colours([0, 1], [1, 1], [2, 0])
    got = domain_accuracy(judge, images, torch.tensor([0, 1, 2]), batch)
    assert got.tolist() == [0.5, 1.0, 0.5]
    assert sum(judge.seen) == 6 and max(judge.seen) == min(batch, 6)


GOOD = colours([0, 1], [1, 1])
Y = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "images, y, why",
    [
        (GOOD * 3, Y, r"expected values in \[-1, 1\]"),
        (GOOD * torch.nan, Y, "expected finite values"),
        (GOOD.byte(), Y, "expected a float tensor"),
        ([1], Y, "expected a float tensor"),
        (GOOD[:0], Y[:0], "N >= 1"),
        (GOOD[0, 0], Y, r"expected \(N, 3, H, W\)"),
        (GOOD, Y[:1], r"expected int64 \(2,\), .* got torch.int64 \(1,\)"),
        (GOOD, Y.float(), "expected int64"),
        (GOOD, torch.tensor([0, 3]), r"expected domains 0 .. 2, .* got 0 .. 3"),
        (GOOD, torch.tensor([-1, 0]), "got -1 .. 0"),
    ],
)
def test_doors(images, y, why):
    with pytest.raises(ValueError, match=why):
        domain_accuracy(Brightest(), images, y)


def test_what_is_no_classifier_is_refused():
    with pytest.raises(ValueError, match="classifier: expected a classifier, got Linear"):
        domain_accuracy(torch.nn.Linear(1, 1), GOOD, Y)


def test_a_classifier_that_gives_nan_is_refused():
    with pytest.raises(ValueError, match="expected finite logits"):
        domain_accuracy(Brightest(torch.nan), GOOD, Y)

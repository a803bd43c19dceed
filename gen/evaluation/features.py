"""Features of images by a backbone; the features of real images are computed once."""

import logging
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Subset

from gen.metrics.checks import FEWEST

SECOND = 3  # outputs per source for the second backbone, of 10
HELD = 200  # validation images per domain for KD of real images
MOST = 1000  # training images per domain for the second backbone

log = logging.getLogger(__name__)


def better(name: str) -> str:
    """Better direction of a score of `fidelity_scores`: lower for distances."""
    return "higher" if name.startswith(("precision", "recall")) else "lower"


class Backbone:
    """A feature extractor, and the features of the real images of each domain.

    Args:
        name: name of a backbone, see `gen.metrics.extractors.load_backbone`.
        train: data set of training images.
        val: data set of validation images.
        device: device on which the backbone runs.
        most: largest number of training images per domain, evenly spaced; None is all.
    """

    def __init__(self, name: str, train, val, device, most: int | None = None) -> None:
        self.name, self.train, self.val = name, train, val
        self.device, self.most = device, most
        self.known: dict[tuple[str, int], Tensor] = {}

    @cached_property
    def extractor(self):
        from gen.metrics.extractors import load_backbone  # slow to import

        return load_backbone(self.name, device=self.device)

    def real(self, y: int) -> Tensor:
        """Features (M, D) of the training images of a domain."""
        return self._of(self.train, "training", y, self.most)

    def unseen(self, y: int) -> Tensor:
        """Features (M, D) of the validation images of a domain."""
        return self._of(self.val, "validation", y, HELD)

    def _of(self, images, split: str, y: int, most: int | None) -> Tensor:
        if (split, y) not in self.known:
            from gen.metrics.fidelity import real_features

            members = spread((images.labels == y).nonzero().flatten().tolist(), most)
            name = f"{split} images of {images.domains[y]}"
            self.known[split, y] = real_features(self.extractor, Subset(images, members), name=name)
        return self.known[split, y]

    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) of images (N, 3, H, W) in [-1, 1]."""
        from gen.metrics.fidelity import image_features

        return image_features(self.extractor, images)

    def floor(self, what: str, a: int, b: int) -> dict[str, float]:
        """KD of real images to the training images of domain b; empty if there are too few.

        `source`: validation images of a. `real`: validation images of b. `halves`: one half of the
        training images against the other half.
        """
        split, y = (self.train, b) if what == "halves" else (self.val, b if what == "real" else a)
        count, needed = int((split.labels == y).sum()), FEWEST * (2 if what == "halves" else 1)
        if count < needed:
            name = split.domains[y]
            log.warning("KD of %s: expected %d images of %s, got %d", what, needed, name, count)
            return {}
        real = self.real(b)
        sides = (real[::2], real[1::2]) if what == "halves" else (self.unseen(y), real)
        return self.scores(*sides)

    def scores(self, fake: Tensor, real: Tensor, which: Sequence[str] = ("kid",)) -> dict:
        """See `gen.metrics.fidelity.fidelity_scores`."""
        from gen.metrics.fidelity import fidelity_scores

        return fidelity_scores(fake, real, self.name, which)


def spread(members: list[int], most: int | None) -> list[int]:
    """At most `most` of the members, evenly spaced; all of them for None."""
    if most is None or len(members) <= most:
        return members
    return [members[int(i)] for i in torch.linspace(0, len(members) - 1, most)]

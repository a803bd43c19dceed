"""Heads: an endless, exactly labelled set of cartoon animal heads that needs no download.

Picture `index` of a seed shows one content (pose, gaze, expression, colours, background; see
`Factors`) as a bear, a cat or a dog: the three are exact twins. Its attributes are multi-label:
three for the species, and three binary ones, whose factors leave a gap between 0 and 1, so that
they can be told apart even at 64 px.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen.data.base import I2IData, LabelledImages
from gen.data.heads.drawing import SPECIES, draw
from gen.data.heads.factors import (
    ATTRIBUTES,
    FACTORS,
    Factors,
    attributes,
    factors,
    vector,
)
from gen.data.images import to_tensor

DOMAINS = tuple(SPECIES)
FIRST_VAL = 2**31  # index of the first validation picture


def render(f: Factors, domain: str, size: int) -> np.ndarray:
    """Picture (size, size, 3) uint8 RGB; sizes differ in resolution alone.

    Raises:
        ValueError: an unknown domain, or a size outside 16 .. 1024.
    """
    if domain not in DOMAINS:
        raise ValueError(f"expected a domain of {', '.join(DOMAINS)}, got {domain!r}")
    if not 16 <= size <= 1024:
        raise ValueError(f"expected a size of 16 to 1024 pixels, got {size}")
    return draw(f, domain, size)


class HeadImages(LabelledImages):
    """`count` contents in every domain, domain by domain, drawn on demand.

    Args:
        seed, first: seed of the contents, and index of the first content; the last index is first +
            count - 1.
        count: number of images per domain.
        img_size: side of the images, px.

    Attributes:
        keys: index of the content, equal for twins.
    """

    paired = True
    attribute_names = [*DOMAINS, *ATTRIBUTES]
    factor_names = [*FACTORS]

    def __init__(self, seed: int, first: int, count: int, img_size: int) -> None:
        labels = torch.arange(len(DOMAINS)).repeat_interleave(count)  # (N,)
        super().__init__(list(DOMAINS), labels, img_size)
        self.seed, self.first, self.count = seed, first, count

    @property
    def keys(self) -> list[str]:
        return [str(self.first + i) for i in range(self.count)] * len(DOMAINS)

    def twin(self, index: int, domain: int) -> int:
        """Index of the same content in `domain`."""
        return domain * self.count + index % self.count

    def factors(self, index: int) -> Factors:
        return factors(self.seed, self.first + index % self.count)

    def annotations(self, index: int) -> dict[str, Tensor]:
        f, labels = self.factors(index), torch.zeros(len(self.attribute_names))
        labels[self.labels[index]] = 1
        labels[len(DOMAINS) :] = torch.from_numpy(attributes(f))
        return {"attributes": labels, "factors": torch.from_numpy(vector(f))}

    def read(self, index: int, train: bool = False) -> Image.Image:
        domain = DOMAINS[self.labels[index]]
        return Image.fromarray(render(self.factors(index), domain, self.img_size))

    def draw(self, index: int, rng: np.random.Generator) -> Tensor:
        """The plain image `[index]`: place and size are factors, so a crop would only blur."""
        return to_tensor(self.read(index))


class Heads(I2IData):
    """Cartoon heads of bears, cats and dogs for image-to-image translation; needs no files.

    Batches also hold attributes (N, K) and factors (N, F) of x; training batches also those of
    x_ref and x_ref2, with names that end in `_ref` and `_ref2`.

    Args:
        img_size: side of the images, px, 16 to 1024.
        batch_size: training elements per step on one device.
        val_batch_size: images per validation batch.
        num_workers: processes that draw; 0 draws in the training process.
        seed: seed of every image and every draw.
        train_images: number of contents in the training set; each is drawn in every domain.
        val_images: number of contents in the validation set, disjoint from the training set.
        references: put x_ref, x_ref2 and y_ref into training batches. False saves two thirds of the
            time, for a generator of images, which needs no references; x and y stay the same.
    """

    def __init__(
        self,
        img_size: int = 64,
        batch_size: int = 8,
        val_batch_size: int = 32,
        num_workers: int = 2,
        seed: int = 777,
        train_images: int = 5000,
        val_images: int = 200,
        references: bool = True,
    ) -> None:
        super().__init__(img_size, batch_size, val_batch_size, num_workers, seed)
        for name, count in (("train_images", train_images), ("val_images", val_images)):
            if not 1 <= count <= FIRST_VAL:
                raise ValueError(f"expected {name} in 1 .. 2**31, got {count}")
        self.train_images, self.val_images = train_images, val_images
        self.references, self.kind = references, self.kind if references else "images"

    @property
    def domains(self) -> list[str]:
        return list(DOMAINS)

    def images(self, split: str) -> HeadImages:
        first, count = {"train": (0, self.train_images), "val": (FIRST_VAL, self.val_images)}[split]
        return HeadImages(self.seed, first, count, self.img_size)

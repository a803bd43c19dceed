"""Folders of images, one per class, for classification: each image once an epoch, DeiT's recipe."""

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment as policies
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gen.data.base import ImageData
from gen.data.domains import DomainImages
from gen.data.images import load_alpha, load_image
from gen.data.layout import Files, Root, as_root, find_images, mask_of, of_split
from gen.data.sampler import index_at, position_rng

MIN_RATIO = 3 / 4  # aspect ratio of the narrowest training crop
HALF = dict(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")  # x in [-1, 1]
EACH = dict(mean=(0.5,), std=(0.5,))  # of every channel, three or four


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    return ImageOps.posterize(image, max(1, bits)) if bits < 8 else image


# timm asks for 0 bits at the highest magnitude: black with Pillow < 13, an error since 13.
policies.NAME_TO_OP |= {n: _posterize for n in policies.NAME_TO_OP if n.startswith("Posterize")}


def plain(img_size: int, crop_pct: float = 1.0) -> Callable[[Image.Image], Tensor]:
    """Picture of any size -> (3, S, S): short side S / crop_pct, bicubic, centre crop."""
    return create_transform(img_size, crop_pct=crop_pct, **HALF | EACH)


class ClassImages(DomainImages):
    """The images of one split: `[i]` is {"x": (3, S, S) in [-1, 1], "y", "index"}.

    The short side is resized to S / crop_pct, bicubic, then the centre is cropped.

    Args:
        root: folder, zip or shards that hold the images.
        files: paths of the images of each class, as (key, path relative to the root).
        img_size: side S of the images, px.
        crop_pct: share of the short side that the centre crop keeps.
        augment: function that turns a picture of any size into (3, S, S), with random numbers of
            the global generators of Python, NumPy and torch.
        min_scale: smallest share of the area that `augment` crops.
        alpha: read colours times opacity, and opacity: x is (4, S, S).
    """

    def __init__(
        self,
        root: Root,
        files: Files,
        img_size: int,
        crop_pct: float,
        augment: Callable[[Image.Image], Tensor],
        min_scale: float,
        alpha: bool = False,
    ) -> None:
        super().__init__(root, files, img_size, alpha=alpha)
        self.plain, self.crop_pct = plain(img_size, crop_pct), crop_pct
        self.augment, self.min_crop = augment, (min_scale * MIN_RATIO) ** 0.5

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        return {"x": self.plain(self.read(index)), "y": int(self.labels[index]), "index": index}

    def draw(self, index: int, rng: np.random.Generator) -> Tensor:
        """Image `index`, augmented, (3, S, S); the global generators keep their states."""
        image = self.read(index, train=True)
        with _seeded(rng):
            return self.augment(image)

    def mask(self, index: int) -> Tensor | None:
        """Pixels of the object in the frame of x, (S, S) bool; None where they are not known.

        They come from `masks/<path of the image, ending in .png>` beside the splits, of the size of
        the image, at least half white; without it from the alpha channel, at least half opaque.

        Raises:
            ValueError: a mask of another size than its image.
        """
        found = self._mask(index)
        return None if found is None else self.plain(found.convert("RGB"))[0] >= 0

    def _mask(self, index: int) -> Image.Image | None:
        path = mask_of(self.root, self.paths[index])
        if path is None:
            return self._load(index, load_alpha)
        mask, size = self._load_file(path, load_image), self.read(index).size
        if mask.size != size:
            got = "a mask of {} x {} px for an image of {} x {} px".format(*mask.size, *size)
            raise ValueError(
                f"{self.root / path}: expected equal sizes, got {got}; save the mask again"
            )
        return mask

    @cached_property
    def has_masks(self) -> bool:
        """True if the mask of the first image of some class is known."""
        _, first = np.unique(self.labels.numpy(), return_index=True)
        return any(self._mask(i) is not None for i in first.tolist())


class Epochs(Dataset):
    """Training element p as a function of (seed, p): {"x": (3, S, S), "y"}, for every p >= 0.

    Each of the n images has one of the positions [k n, (k + 1) n), in an order that is a
    function of (seed, k): no image is dropped, whatever the batch size.
    """

    def __init__(self, images: ClassImages, seed: int) -> None:
        self.images, self.seed = images, seed

    def index(self, position: int) -> int:
        """Index of the image of element `position`."""
        return index_at(self.seed, position, len(self.images))

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        index = self.index(position)
        x = self.images.draw(index, position_rng(self.seed, position))
        return {"x": x, "y": int(self.images.labels[index])}


class Classes(ImageData):
    """A folder of images, one sub-folder per class, for classification.

    Layout: `root/{train,val}/<class>/**.{png,jpg,jpeg,webp,bmp}` or a zip of it, read in place;
    any further folder beside them, such as `test`, is one more split with some of the classes. A
    folder of class folders alone is split by a hash, about one image in ten for validation.
    `gen.data.layout` lists the other layouts.

    Training batches: x (B, 3, S, S), y (B,). Validation and test batches: x, y, index. x is in
    [-1, 1], except erased rectangles, which hold normal noise of standard deviation 1.

    Args:
        root: folder or zip that holds the images, or the path or http(s) address of shards with
            braces, as "shards/{0000..0099}.tar"; see `gen.data.shards`.
        img_size: side S of the images, px.
        batch_size: training images per step on one device.
        val_batch_size: images per validation batch.
        num_workers: processes that decode; 0 decodes in the training process.
        seed: seed of the order and of every augmentation.
        share: share of the training images to use in every class, at least one of each. A
            smaller share is a subset of a larger one, whatever the seed.
        auto_augment: policy in timm's notation; empty: none.
        color_jitter: strength of changes of brightness, contrast and saturation, if auto_augment is
            empty (timm does not combine jitter with a policy).
        random_erasing: probability that a rectangle of the image becomes noise.
        hflip: probability that an image is mirrored.
        min_scale: smallest share of the area that a random crop keeps; 1: the largest central
            square.
        crop_pct: share of the short side that the centre crop keeps in evaluation; 0.875 is usual
            for photographs.
        alpha: keep the transparency of PNG and WebP files: x then holds red, green and blue, each
            times opacity, and opacity, in [-1, 1]; other files are opaque. False lays images on
            white. Training needs auto_augment, color_jitter and random_erasing off.
    """

    def __init__(
        self,
        root: str = "data/emoji_groups",
        img_size: int = 64,
        batch_size: int = 64,
        val_batch_size: int = 256,
        num_workers: int = 2,
        seed: int = 777,
        share: float = 1.0,
        auto_augment: str = "rand-m9-mstd0.5-inc1",
        color_jitter: float = 0.4,
        random_erasing: float = 0.25,
        hflip: float = 0.5,
        min_scale: float = 0.08,
        crop_pct: float = 1.0,
        alpha: bool = False,
    ) -> None:
        super().__init__(img_size, batch_size, val_batch_size, num_workers, seed)
        for name in ("share", "min_scale", "crop_pct", "random_erasing", "hflip", "color_jitter"):
            value, open_end = locals()[name], name in ("share", "min_scale", "crop_pct")
            if not (0 < value if open_end else 0 <= value) or value > 1:
                raise ValueError(f"expected {name} in {'(' if open_end else '['}0, 1], got {value}")
        self.root, self.share, self.alpha = as_root(root), share, alpha
        self.kind = f"transparent {self.kind} (--data.alpha)" if alpha else self.kind
        self.disturbs = bool(auto_augment or color_jitter or random_erasing)
        self.crop_pct, self.min_scale = crop_pct, min_scale
        try:
            self.augment = create_transform(
                img_size,
                is_training=True,
                scale=(min_scale, 1.0),
                ratio=(MIN_RATIO, 1 / MIN_RATIO) if min_scale < 1 else (1.0, 1.0),
                hflip=hflip,
                auto_augment=auto_augment or None,
                color_jitter=color_jitter or None,
                re_prob=random_erasing,
                re_mode="pixel",
                **HALF | (EACH if alpha else {}),
            )
        except (AssertionError, ValueError) as error:
            raise ValueError(
                "auto_augment: expected a policy of timm, as rand-m9-mstd0.5-inc1, or nothing, got "
                f"{auto_augment!r} ({error})"
            ) from error

    @cached_property
    def files(self) -> dict[str, Files]:
        """{split: {class: [(key, path)]}}; reads names only and opens no image."""
        return find_images(self.root)

    @property
    def domains(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return list(self.files["train"])

    @property
    def splits(self) -> tuple[str, ...]:
        """train, val, and then the further splits by name."""
        return tuple(self.files)

    def images(self, split: str) -> ClassImages:
        files = of_split(self.root, self.files, split)
        if split == "train":
            files = {name: subset(images, self.share) for name, images in files.items()}
        options = (self.img_size, self.crop_pct, self.augment, self.min_scale, self.alpha)
        return ClassImages(self.root, files, *options)

    def draws(self) -> Epochs:
        if self.alpha and self.disturbs:
            raise ValueError(
                "alpha: expected augmentation that knows transparency, got others; set "
                "--data.auto_augment '' --data.color_jitter 0 --data.random_erasing 0"
            )
        return Epochs(self.train, self.seed)

    def test_dataloader(self) -> DataLoader:
        """Loader of the split `test`, or of `val` where there is no `test`."""
        return (
            self.in_order(self.images("test")) if "test" in self.splits else self.val_dataloader()
        )


def subset(images: list[tuple[str, str]], share: float) -> list[tuple[str, str]]:
    """The first `share` of `images` by the hash of their keys, at least one, sorted again."""
    ranked = sorted(images, key=lambda image: hashlib.sha256(os.fsencode(image[0])).digest())
    return sorted(ranked[: max(1, round(share * len(images)))])


@contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    """Context in which the global generators that timm uses are seeded by `rng`."""
    cpu = torch.default_generator  # torch.manual_seed would queue a call on every GPU
    states = random.getstate(), np.random.get_state(), cpu.get_state()  # noqa: NPY002
    a, b, c = rng.integers(2**32, size=3).tolist()
    random.seed(a)
    np.random.seed(b)  # noqa: NPY002
    cpu.manual_seed(c)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        cpu.set_state(states[2])


GENERATED = "heads"  # data set that is generated instead, as commands name it


def reader(root: Path) -> str:
    """Name of the class that reads a folder or zip of this kind, see `gen.data.open`."""
    return "Classes"

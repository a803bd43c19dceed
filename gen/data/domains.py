"""Folders of images, one per domain, or a zip or shards of them read in place."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from gen.data.base import I2IData, LabelledImages
from gen.data.images import MIN_CROP, ImageError, load_image, load_rgba
from gen.data.layout import Files, Root, as_root, find_images, is_paired, of_split, source

NUMBER = re.compile(r"(.*/)?[A-Za-z]*[\d ()_.-]*\d\)?")  # a key that is only a counter
T = TypeVar("T")
log = logging.getLogger(__name__)


class DomainImages(LabelledImages):
    """The images of one split, in the order of their paths.

    Args:
        root: folder, zip or shards that hold the images.
        files: paths of the images of each domain, as (key, path relative to the root).
        img_size: side of the images, px.
        cache: keep the images in memory as uint8, shrunk to the size that the tightest crop needs.
        alpha: read colours times opacity, and opacity.

    Attributes:
        keys: path of each image without split, domain and suffix. Images of two domains with equal
            keys are twins (same content), unless all their keys are plain numbers such as 0001 or
            IMG_12; `"paired": true` or `false` in manifest.json overrides this rule.
        min_crop: smallest side of a training crop relative to the short side.
    """

    min_crop = MIN_CROP

    def __init__(
        self, root: Root, files: Files, img_size: int, cache: bool = False, alpha: bool = False
    ) -> None:
        rows = [(y, *file) for y, domain in enumerate(files) for file in files[domain]]
        labels, self.keys, self.paths = (list(column) for column in zip(*rows, strict=True))
        super().__init__(list(files), torch.tensor(labels), img_size)
        self.root, self.alpha = root, alpha
        self._cache: list[np.ndarray] = []
        if cache:
            self._fill_cache()

    def twin(self, index: int, domain: int) -> int | None:
        """Index of the twin of an image in `domain`, None without a twin; `index` itself in the
        image's own domain."""
        if domain == self.labels[index]:
            return index
        return self._twins.get((self.keys[index], domain))

    @property
    def paired(self) -> bool:
        """True if every image has its twin in every other domain."""
        return len(self._twins) == len(set(self.keys)) * len(self.domains)

    @cached_property
    def _twins(self) -> dict[tuple[str, int], int]:
        """(key, domain) -> index; empty where names do not pair images."""
        pairs = zip(self.keys, self.labels.tolist(), strict=True)
        index = {(key, y): i for i, (key, y) in enumerate(pairs)}
        paired = is_paired(self.root, self.paths)
        counts = Counter(key for key, _ in index)
        shared = [key for key, count in counts.items() if count > 1]
        if paired is None and shared and all(map(NUMBER.fullmatch, shared)):
            paired = False
            log.warning(
                "%s: images of one name, as %s, in several domains are not taken for pairs, as all "
                'such names are numbers; {"paired": true} in manifest.json beside them says that '
                "they are", self.root, shared[0],
            )  # fmt: skip
        return index if paired is not False else {}

    def read(self, index: int, train: bool = False) -> Image.Image:
        if train and self._cache:
            pixels = self._cache[index]  # (H, W, C); Pillow would take four channels for RGBA
            size = pixels.shape[1::-1]
            return Image.frombytes("RGBa" if self.alpha else "RGB", size, pixels.tobytes())
        load = load_rgba if self.alpha else load_image
        return self._load(index, load, self._crop_px if train else 0)

    def _load(self, index: int, load: Callable[..., T], *args: int) -> T:
        """Applies `load` (of gen.data.images) to image `index`."""
        return self._load_file(self.paths[index], load, *args)

    def _load_file(self, path: str, load: Callable[..., T], *args: int) -> T:
        """Applies `load` to the file at `path`; its errors name the way out."""
        try:
            return load(source(self.root, path), f"{self.root / path}", *args)
        except ImageError as error:
            way_out = f"`gen verify {self.root}` lists every unusable image"
            raise ImageError(f"{error}; {way_out}") from error

    @property
    def _crop_px(self) -> int:
        """Short side at which the smallest crop still has img_size pixels."""
        return -int(-self.img_size // self.min_crop)

    def _fill_cache(self) -> None:
        need = (3 + self.alpha) * len(self) * self._crop_px**2
        free = _free_bytes()
        if need > 0.8 * free:
            raise MemoryError(
                f"cache=True: expected at least {need / 0.8e9:.1f} GB of free memory for "
                f"{len(self)} images, got {free / 1e9:.1f} GB; use cache=False"
            )

        def small(index: int) -> np.ndarray:
            image = self.read(index, train=True)
            scale = self._crop_px / min(image.size)
            if scale < 1:
                size = (round(image.width * scale), round(image.height * scale))
                image = image.resize(size, Image.Resampling.BILINEAR)
            return np.array(image)

        with ThreadPoolExecutor() as pool:
            self._cache = list(pool.map(small, range(len(self))))
        used = sum(a.nbytes for a in self._cache)
        log.info("cached %d images in %.0f MB", len(self), used / 1e6)


def _free_bytes() -> int:
    """Memory that is free without swapping (all memory on macOS, which does not tell)."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        text = meminfo.read_text("utf-8")
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    if not hasattr(os, "sysconf"):  # Windows
        import ctypes

        state = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: its size, .., free bytes, ..
        ctypes.windll.kernel32.GlobalMemoryStatusEx(state)
        return state[2]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Domains(I2IData):
    """A folder of images, one sub-folder per domain, for image-to-image translation.

    Layout: `root/{train,val}/<domain>/**.{png,jpg,jpeg,webp,bmp}` or a zip of it, read in place;
    labels follow the sorted domain names. A folder of folders without train/ and val/ is split
    by a stable hash of each image's key: about one image in ten for validation, and at least 3 in
    a domain of 6 or more. `gen.data.layout` lists the other layouts.

    Args:
        root: folder or zip that holds the images, or the path or http(s) address of shards with
            braces, as "shards/{0000..0099}.tar"; see `gen.data.shards`.
        img_size: side of the images, px; they are resized to a square.
        batch_size: training elements per step on one device.
        val_batch_size: images per validation batch.
        num_workers: processes that decode; 0 decodes in the training process.
        seed: seed of every draw and augmentation.
        cache: keep the training images in memory as uint8, shared by the workers. Larger files are
            shrunk until the tightest crop has img_size px (short side 1.18 img_size): no resolution
            is lost, but the second resampling makes images slightly softer.
        alpha: keep the transparency of PNG and WebP files: x then holds red, green and blue, each
            times opacity, and opacity, in [-1, 1]; other files are opaque. False lays images on
            white.
    """

    def __init__(
        self,
        root: str = "data/emoji",
        img_size: int = 64,
        batch_size: int = 8,
        val_batch_size: int = 32,
        num_workers: int = 2,
        seed: int = 777,
        cache: bool = False,
        alpha: bool = False,
    ) -> None:
        super().__init__(img_size, batch_size, val_batch_size, num_workers, seed)
        self.root, self.cache, self.alpha = as_root(root), cache, alpha
        self.kind = f"transparent {self.kind} (--data.alpha)" if alpha else self.kind

    @cached_property
    def files(self) -> dict[str, Files]:
        """{split: {domain: [(key, path)]}}; reads names only and opens no image."""
        return find_images(self.root)

    @property
    def domains(self) -> list[str]:
        return list(self.files["train"])

    def images(self, split: str) -> DomainImages:
        files = of_split(self.root, self.files, split)
        cache = self.cache and split == "train"
        return DomainImages(self.root, files, self.img_size, cache, self.alpha)


GENERATED = "heads"  # data set that is generated instead, as commands name it


def reader(root: Path) -> str:
    """Name of the class that reads a folder or zip of this kind, see `gen.data.open`."""
    return "Domains"

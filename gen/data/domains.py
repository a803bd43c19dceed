"""Folders of images, one a domain, or a zip of them read in place."""

import hashlib
import logging
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from gen.data.base import I2IData, LabelledImages
from gen.data.images import MAX_BYTES, MIN_CROP, SUFFIXES, ImageError, load_image

Files = dict[str, list[tuple[str, str]]]  # domain -> (key, path relative to the root)
T = TypeVar("T")
log = logging.getLogger(__name__)
SPLITS = ("train", "val")
VAL_SHARE = 0.1  # of a folder without train/ and val/


class DomainImages(LabelledImages):
    """The images of one split, in the order of their paths.

    Args:
        root: folder or zip.
        files: for each domain the (key, path relative to the root) of its images.
        img_size: side in pixels.
        cache: keep the images in memory as uint8, shrunk to what the tightest crop needs.

    Attributes:
        keys: path of each image without split, domain and suffix. Images of two domains with
            the same key are twins: the same content.
        min_crop: smallest side of a training crop relative to the short side.
    """

    min_crop = MIN_CROP

    def __init__(self, root: Path, files: Files, img_size: int, cache: bool = False) -> None:
        rows = [(y, *file) for y, domain in enumerate(files) for file in files[domain]]
        labels, self.keys, self.paths = (list(column) for column in zip(*rows, strict=True))
        super().__init__(list(files), torch.tensor(labels), img_size)
        self.root = root
        self._index = {(key, y): i for i, (y, key, _) in enumerate(rows)}
        self._cache: list[np.ndarray] = []
        if cache:
            self._fill_cache()

    def twin(self, index: int, domain: int) -> int | None:
        """Index of the image with the same key in `domain`, None where there is none."""
        return self._index.get((self.keys[index], domain))

    @property
    def paired(self) -> bool:
        """Whether every image has its twin in every other domain."""
        return len(self._index) == len(set(self.keys)) * len(self.domains)

    def read(self, index: int, train: bool = False) -> Image.Image:
        if train and self._cache:
            return Image.fromarray(self._cache[index])
        return self._load(index, load_image, self._crop_px if train else 0)

    def _load(self, index: int, load: Callable[..., T], *args: int) -> T:
        """`load` (of gen.data.images) applied to file `index`; its errors say what to do."""
        path = self.paths[index]
        try:
            source = _read_zip(self.root, path) if self.root.is_file() else self.root / path
            return load(source, f"{self.root / path}", *args)
        except ImageError as error:
            way_out = f"`python data_prep/verify.py {self.root}` lists every unusable image"
            raise ImageError(f"{error}; {way_out}") from error

    @property
    def _crop_px(self) -> int:
        """Short side from which the smallest crop still has img_size pixels."""
        return -int(-self.img_size // self.min_crop)

    def _fill_cache(self) -> None:
        need = 3 * len(self) * self._crop_px**2
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
    """Memory that can be used without swapping (all memory where the system does not say)."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return int(meminfo.read_text().split("MemAvailable:")[1].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Domains(I2IData):
    """A folder of images, one sub-folder a domain, for image-to-image translation.

    Layout: `root/{train,val}/<domain>/**.{png,jpg,jpeg,webp,bmp}` or a zip of it, read in place;
    labels follow the sorted domain names. A folder of folders without train/ and val/ is split
    by a stable hash of each image's key, about one image in ten for validation.

    Args:
        root: folder or zip.
        img_size: side of the images in pixels; they are resized to a square.
        batch_size: training elements a step on one device.
        val_batch_size: images a validation batch.
        num_workers: processes that decode; 0 decodes in the training process.
        seed: with the position it determines every draw and augmentation.
        cache: keep the training images in memory as uint8, shared by the workers. Larger files
            are shrunk until the tightest crop has img_size pixels (short side 1.18 img_size):
            no resolution is lost, but resampling twice is slightly softer.
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
    ) -> None:
        super().__init__(img_size, batch_size, val_batch_size, num_workers, seed)
        self.root, self.cache = Path(root), cache

    @cached_property
    def files(self) -> dict[str, Files]:
        """{split: {domain: [(key, path)]}}; lists names only, no image is opened."""
        return find_images(self.root)

    @property
    def domains(self) -> list[str]:
        return list(self.files["train"])

    def images(self, split: str) -> DomainImages:
        return DomainImages(
            self.root, self.files[split], self.img_size, self.cache and split == "train"
        )


def find_images(root: Path) -> dict[str, Files]:
    """List the images of a folder or zip as {split: {domain: [(key, path)]}}, sorted.

    The splits are train, val, and any folder beside them with some of the same domains.

    Raises:
        FileNotFoundError: no such folder or zip.
        ValueError: no domains, an empty domain, splits whose domains differ, an unsafe zip.
    """
    if not root.exists():
        raise FileNotFoundError(
            f"{root}: expected a folder or zip with {{train,val}}/<domain>/*.png, found nothing; "
            "check --data.root, or make the emoji set: `python data_prep/emoji.py --out data/emoji`"
        )
    names, top = (_zip_names if root.is_file() else _folder_names)(root)
    parts = sorted(p for n in names if not _hidden(p := n.removeprefix(top).split("/")))
    folders = {p[0] for p in parts if len(p) > 1}
    if folders & set(SPLITS):
        if missing := set(SPLITS) - folders:
            raise ValueError(
                f"{root}: expected both train/ and val/, {missing.pop()}/ is missing; rename or "
                "add it, or put the domains directly below the root to have them split"
            )
        inside = {s: [p[1:] for p in parts if p[0] == s and len(p) > 1] for s in folders}
        splits = {s: _by_domain(root, top, s + "/", inside[s]) for s in SPLITS}
        for name in sorted(folders - set(SPLITS)):
            if {p[0] for p in inside[name] if len(p) > 1} & set(splits["train"]):
                splits[name] = _by_domain(root, top, name + "/", inside[name])
    else:
        splits = _split(root, _by_domain(root, top, "", parts))
    train, val = (list(splits[s]) for s in SPLITS)
    if train != val:
        raise ValueError(
            f"{root}: expected the same domains in train/ and val/, got {train} and {val}"
        )
    for name, domains in splits.items():
        if strange := sorted(set(domains) - set(train)):
            raise ValueError(
                f"{root}: expected in {name}/ some of the domains of train/, got also {strange}; "
                "rename them, or move the folder elsewhere"
            )
    return splits


def _by_domain(root: Path, top: str, split: str, parts: list[list[str]]) -> Files:
    domains: Files = {p[0]: [] for p in parts if len(p) > 1}
    skipped: Counter[str] = Counter()
    for domain, *rest in parts:
        name = PurePosixPath(*rest)
        if rest and name.suffix.lower() in SUFFIXES:
            path = f"{top}{split}{domain}/{name}"
            domains[domain].append((str(name.with_suffix("")), path))
        elif rest and rest[-1]:
            skipped[name.suffix] += 1
    if skipped:
        log.warning("%s/%s: skipped files that are not images: %s", root, split, dict(skipped))
    if not domains:
        raise ValueError(f"{root}: expected {split}<domain>/ folders with images, got none")
    for domain, images in domains.items():
        if not images:
            raise ValueError(
                f"{root}: expected images ({', '.join(SUFFIXES)}) in {split}{domain}/, got none; "
                "add some or remove the folder"
            )
    return domains


def _split(root: Path, domains: Files) -> dict[str, Files]:
    """Validation = the keys whose hash falls in the lowest tenth; neither part stays empty."""
    splits: dict[str, Files] = {s: {} for s in SPLITS}
    for domain, images in domains.items():
        if len(images) < 2:
            raise ValueError(f"{root}: expected at least 2 images in {domain}/, got {len(images)}")
        rank = {key: int(hashlib.sha256(key.encode()).hexdigest(), 16) for key, _ in images}
        order = sorted(images, key=lambda image: rank[image[0]])
        count = sum(rank[key] < VAL_SHARE * 2**256 for key, _ in images)
        count = min(max(count, 1), len(images) - 1)
        splits["val"][domain], splits["train"][domain] = (
            sorted(order[:count]),
            sorted(order[count:]),
        )
    return splits


def _hidden(parts: list[str]) -> bool:
    return any(p.startswith((".", "__MACOSX")) for p in parts)


def _folder_names(root: Path) -> tuple[list[str], str]:
    """Relative paths of the files and (ending in /) folders below `root`."""
    names, seen = [], set()
    for here, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            raise ValueError(
                f"{here}: a link to {real}, which is already part of {root}; remove it"
            )
        seen.add(real)
        base = Path(here).relative_to(root)
        names += [f"{(base / f).as_posix()}/" for f in folders]
        names += [(base / f).as_posix() for f in files]
    return names, ""


def _zip_names(root: Path) -> tuple[list[str], str]:
    """Names in the archive, and the one folder that holds them all, if there is one."""
    _archive.cache_clear()  # the file may have been replaced
    try:
        entries = _archive(root, os.getpid()).infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{root}: expected a folder or a zip, got neither ({error})") from error
    for entry in entries:
        name = entry.orig_filename
        if problem := (
            "an absolute path" if name.startswith("/") or name[1:2] == ":"
            else "a path with `..`" if ".." in name.split("/")
            else "an odd character" if "\\" in name or not name.isprintable()
            else "a link" if stat.S_ISLNK(entry.external_attr >> 16)
            else "an encrypted file" if entry.flag_bits & 1
            else f"{entry.file_size} bytes" if entry.file_size > MAX_BYTES
            else ""
        ):  # fmt: skip
            raise ValueError(f"{root}: refused, {name!r} is {problem}; zip the plain folder again")
    names = [entry.filename for entry in entries]
    tops = {n.split("/")[0] for n in names if not _hidden(n.split("/"))}
    return names, f"{tops.pop()}/" if len(tops) == 1 and not tops & set(SPLITS) else ""


@lru_cache(maxsize=4)
def _archive(root: Path, pid: int) -> zipfile.ZipFile:
    """One handle a process: forked workers must not share a file position."""
    return zipfile.ZipFile(root)


def _read_zip(root: Path, name: str) -> bytes:
    try:
        return _archive(root, os.getpid()).read(name)
    except Exception as error:  # damaged archives raise nearly anything
        raise ImageError(f"{root / name}: {type(error).__name__}: {error}") from error

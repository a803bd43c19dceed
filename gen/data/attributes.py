"""Images with attributes of your own: labels in `labels.csv`, or one folder an attribute.

    file,species:cat,species:dog,spots
    train/001.png,1,0,
    train/002.png,,,1

A label is 1, 0, or blank where it is unknown. Columns with one name before the colon are a group:
they exclude each other, so a 1 says 0 for the others. Files below train/ and val/ belong to that
split; otherwise a hash of the names keeps one in ten for validation.

Without `labels.csv`, each folder is an attribute: an image has the attributes of all the folders
that hold a file of its name, and no others. If no image lies in two folders, all of them exclude
each other. An image in no folder is refused.
"""

import csv
import io
import logging
import re
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor

from gen.data.base import I2IData
from gen.data.domains import DomainImages
from gen.data.layout import (
    SPLITS,
    Root,
    as_root,
    file_names,
    has_file,
    is_image,
    read_file,
    split_by_hash,
)

NAME = "labels.csv"
COLUMN = re.compile(r"(?:([\w-]+):)?((?!no-)\w[\w-]*)", re.ASCII)
VALUES = {"0": 0.0, "1": 1.0, "": float("nan")}
ALL = "all"  # the one domain
log = logging.getLogger(__name__)


class Labels(NamedTuple):
    """Attributes of the images of a data set."""

    names: list[str]
    groups: list[list[str]]  # of attributes that exclude each other
    rows: dict[str, list[float]]  # path -> labels, NaN where unknown


def is_labelled(root: Root) -> bool:
    """True for a data set whose `labels.csv` begins with `file,`.

    Another program's file of this name is left aside, with a warning.
    """
    if not has_file(root, NAME):
        return False
    file_names(root)  # refuses an unsafe zip before a file of it is read
    head = read_file(root, NAME)[:100]
    if not (ours := bool(re.match(rb'(\xef\xbb\xbf)?"?file"?,', head))):
        told = f"expected a header that begins with `file,`, got {head!r}: left aside"
        log.warning("%s/%s: %s", root, NAME, told)
    return ours


def read_labels(root: Root, problems: list[str] | None = None) -> Labels:
    """Reads `labels.csv`, or one folder an attribute; see the module.

    With `problems`, a list, lines that say nothing clear are left out and added to it.

    Raises:
        FileNotFoundError: no such folder or zip.
        ValueError: a header, a line or a layout that says nothing clear; what was found, and where.
    """
    if isinstance(root, Path) and not root.exists():
        raise FileNotFoundError(f"{root}: expected a folder or zip of images, found nothing")
    return _from_csv(root, problems) if has_file(root, NAME) else _from_folders(root)


def _from_csv(root: Root, problems: list[str] | None) -> Labels:
    present, rows = {*file_names(root)}, {}
    try:
        text = read_file(root, NAME).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""))
        (_, (first, *head)), *lines = [(reader.line_num, line) for line in reader if line]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{root}: expected {NAME} of lines in UTF-8, got: {error}") from error
    found = [COLUMN.fullmatch(column) for column in head]
    names = [match[2] for match in found if match]
    if first != "file" or not names or None in found or len({*names}) < len(names):
        raise ValueError(
            f"{root}: expected a header as file,spots,species:cat,species:dog in {NAME}, each name "
            f"once, of letters, digits, _ and -, and not beginning with no-, got "
            f"{','.join([first, *head])!r:.200}"
        )
    groups: dict[str, list[str]] = {}
    for match in found:
        if match[1]:
            groups.setdefault(match[1], []).append(match[2])
    for number, (file, *values) in lines:
        problem = (
            f"{len(values)} labels"
            if len(values) != len(names)
            else f"the label {odd[0]!r:.40}"
            if (odd := [value for value in values if value.strip() not in VALUES])
            else "a file that is not there"
            if file not in present or not is_image(file)
            else "a file that stands there twice"
            if file in rows
            else ""
        )
        try:
            if problem:
                raise ValueError(
                    f"{root}: expected in {NAME} a file of an image and {len(names)} labels of 1, "
                    f"0 or nothing a line, got {problem}: {file!r:.100}, line {number}"
                )
            labels = [VALUES[value.strip()] for value in values]
            rows[file] = _exclusive(root, file, labels, names, [*groups.values()])
        except ValueError as error:
            if problems is None:
                raise
            problems.append(str(error))
    if not rows and not problems:
        raise ValueError(f"{root}: expected labels of images in {NAME}, got none")
    return Labels(names, [group for group in groups.values() if len(group) > 1], rows)


def _exclusive(
    root: Root, file: str, labels: list[float], names: list[str], groups: list[list[str]]
) -> list[float]:
    """The labels, with 0 for what a 1 of the same group excludes."""
    made = dict(zip(names, labels, strict=True))
    for group in groups:
        has = [name for name in group if made[name] == 1]
        if len(has) > 1:
            raise ValueError(
                f"{root}: expected at most one of {', '.join(group)}, which exclude each other, "
                f"got {' and '.join(has)} of {file} in {NAME}"
            )
        if has:
            made |= {name: float(name == has[0]) for name in group}
    return [*made.values()]


def _from_folders(root: Root) -> Labels:
    """Labels by folders; of an image in several folders the first file is taken."""
    of: dict[str, dict[str, str]] = {}  # split and name of the image -> {attribute: path}
    beside = []
    for path in sorted(name for name in file_names(root) if is_image(name)):
        split, folder, rest = _parts(path)
        if folder:
            of.setdefault(split + rest, {})[folder] = path
        else:
            beside.append(path)
    names = sorted({name for folders in of.values() for name in folders})
    if bad := [name for name in names if not COLUMN.fullmatch(name) or ":" in name]:
        raise ValueError(
            f"{root}: expected folders whose names are attributes, of letters, digits, _ and -, "
            f"got {bad[0]!r:.100}; rename it"
        )
    if len(names) < 2:
        raise ValueError(
            f"{root}: expected {NAME}, or one folder an attribute with images, at least 2, got "
            f"{', '.join(names) or 'none'}"
        )
    if beside:
        raise ValueError(
            f"{root}: expected every image in the folder of an attribute, got {len(beside)} in "
            f"none, such as {beside[0]}; move or remove them, or write {NAME}"
        )
    rows = {}
    for folders in of.values():
        path, *others = folders.values()
        if any(read_file(root, other) != read_file(root, path) for other in others):
            raise ValueError(
                f"{root}: expected one picture in files of one name, which then has several "
                f"attributes, got others in {path} and {others[0]}; rename one"
            )
        rows[path] = [float(name in folders) for name in names]
    alone = all(len(folders) == 1 for folders in of.values())
    return Labels(names, [names] if alone else [], rows)


def split(root: Root, labels: Labels) -> dict[str, list[tuple[str, str]]]:
    """{split: [(key, path)]} of the images that have labels, by their folders or by a hash.

    Raises:
        ValueError: images in one split alone, or in a split and elsewhere.
    """
    images = [(str(PurePosixPath(path).with_suffix("")), path) for path in labels.rows]
    of = {split: [i for i in images if i[1].startswith(f"{split}/")] for split in SPLITS}
    outside = len(images) - sum(map(len, of.values()))
    if all(of.values()) and not outside:
        return of
    if any(of.values()):
        counts = ", ".join(f"{len(some)} in {split}/" for split, some in of.items())
        raise ValueError(
            f"{root}: expected labelled images in train/ and val/, or in neither, got {counts} "
            f"and {outside} elsewhere; move them"
        )
    return {s: files[ALL] for s, files in split_by_hash(root, {ALL: images}).items()}


def _parts(path: str) -> tuple[str, str, str]:
    """Split with a slash or nothing, folder or nothing, and the rest of the path of an image."""
    split, _, rest = path.partition("/")
    split, rest = (f"{split}/", rest) if rest and split in SPLITS else ("", path)
    folder, _, name = rest.partition("/")
    return (split, folder, name) if name else (split, "", rest)


class AttributeImages(DomainImages):
    """Images of one domain, each with attributes (K,): 1, 0, or NaN where unknown.

    Args:
        root: folder or zip that holds the images.
        files: paths of the images, as (key, path relative to the root), by the only domain.
        labels: labels of the data set.
        img_size: side of the images, px.
        cache: keep the images in memory as uint8.
        alpha: read colours times opacity, and opacity.
    """

    def __init__(
        self,
        root: Root,
        files: dict[str, list[tuple[str, str]]],
        labels: Labels,
        img_size: int,
        cache: bool = False,
        alpha: bool = False,
    ) -> None:
        super().__init__(root, files, img_size, cache, alpha)
        self.attribute_names, self.exclusive = labels.names, labels.groups
        self.values = torch.tensor([labels.rows[path] for path in self.paths])  # (N, K)

    def annotations(self, index: int) -> dict[str, Tensor]:
        return {"attributes": self.values[index], "factors": torch.zeros(0)}


class Attributes(I2IData):
    """A folder of images with attributes of your own, for a generator and its editors.

    `labels.csv` in the folder has a line `file,NAME,NAME,..`, then one for each image with 1, 0 or
    nothing; `GROUP:NAME` declares attributes that exclude each other. Without it, each folder is an
    attribute, or each one in train/ and val/. See `gen.data.attributes`.

    Batches also hold attributes (N, K); training batches also those of x_ref and x_ref2.

    Args:
        root: folder or zip that holds the images.
        img_size: side of the images, px; they are resized to a square.
        batch_size: training elements per step on one device.
        val_batch_size: images per validation batch.
        num_workers: processes that decode; 0 decodes in the training process.
        seed: seed of every draw and augmentation.
        cache: keep the training images in memory as uint8, shared by the workers.
        references: put x_ref and x_ref2 into training batches, which an AttributeClassifier needs;
            false saves two thirds of the time for a generator of images.
        alpha: keep the transparency of PNG and WebP files: x then holds red, green and blue, each
            times opacity, and opacity, in [-1, 1]; other files are opaque. False lays images on
            white.
    """

    def __init__(
        self,
        root: str = "data/avatars",
        img_size: int = 64,
        batch_size: int = 8,
        val_batch_size: int = 32,
        num_workers: int = 2,
        seed: int = 777,
        cache: bool = False,
        references: bool = True,
        alpha: bool = False,
    ) -> None:
        super().__init__(img_size, batch_size, val_batch_size, num_workers, seed)
        self.root, self.cache, self.alpha = as_root(root), cache, alpha
        self.references, self.kind = references, self.kind if references else "images"
        self.kind = f"transparent {self.kind} (--data.alpha)" if alpha else self.kind

    @property
    def domains(self) -> list[str]:
        return [ALL]

    @cached_property
    def labels(self) -> Labels:
        """Labels of all images; reads `labels.csv`, or names only."""
        return read_labels(self.root)

    @cached_property
    def files(self) -> dict[str, list[tuple[str, str]]]:
        """{split: [(key, path)]} of the images that have labels."""
        return split(self.root, self.labels)

    def images(self, split: str) -> AttributeImages:
        files = {ALL: self.files[split]}
        cache = self.cache and split == "train"
        return AttributeImages(self.root, files, self.labels, self.img_size, cache, self.alpha)

"""Checks every image or clip of a data set once, and lists those that are unusable or doubtful.

    gen verify data/emoji

reads a folder (or a zip, or shards) in a layout of `gen.data.Domains` and `gen.data.Classes`, or
with attributes, as `gen.data.Attributes` reads them; wrong lines of `labels.csv` are listed, too.
Unusable are images that the data set refuses to decode, images with a side below 8 px, and shards
that are not those of their index; remote shards are fetched into the cache. Warnings are given
for near-constant images, training images that are also in another split, small domains, a single
domain, and skipped files that are no images. A folder that holds something else is given to the
file `verify_*.py` beside this one whose `fits` knows it.

Exit codes: 0 all usable, warnings or not; 1 something is unusable, or the layout is wrong.
"""

import argparse
import hashlib
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from gen.data import attributes
from gen.data.images import SUFFIXES, load_image
from gen.data.layout import (
    FEWEST_VAL,
    Files,
    Root,
    as_root,
    file_names,
    find_images,
    has_file,
    is_image,
    source,
)
from gen.data.shards import Shards
from gen.files import WeightsError, show_any_name

MIN_SIDE = 8  # pixels
FLAT_LEVELS = 8  # of 255: an image whose channels all vary less is near-constant
SMALL_DOMAIN = 100  # training images


class Seen(NamedTuple):
    """One checked image."""

    split: str
    domain: str
    path: str
    error: str = ""  # reason why it is unusable
    flat: bool = False
    pixels: bytes = b""  # hash of the decoded image


def find(root: Root) -> tuple[list[tuple[str, str, str]], str]:
    """(split, domain, path) of every image, and the error in the layout, or an empty text.

    For a folder with a wrong layout, the images have an empty split and domain. Several errors are
    several lines.
    """
    try:
        return [
            (split, domain, path)
            for split, domains in _splits(root).items()
            for domain, images in domains.items()
            for _, path in images
        ], ""
    except (ValueError, FileNotFoundError, WeightsError) as error:
        try:
            names = sorted(file_names(root))
        except (
            ValueError,
            OSError,
            WeightsError,
        ):  # no such folder, links in a circle, an unsafe zip
            names = []
        return [("", "", n) for n in names if is_image(n)], str(error)


def _splits(root: Root) -> dict[str, Files]:
    """Images by split and domain; all that have attributes are of one domain."""
    if attributes.is_labelled(root):
        labels = attributes.read_labels(root, problems := [])
        if problems:
            raise ValueError("\n".join(problems))
    else:
        try:
            return find_images(root)
        except ValueError:
            try:
                labels = attributes.read_labels(root)
            except (ValueError, OSError, WeightsError):
                labels = None
            if labels is None or labels.groups:  # no image lies in two folders, as attributes would
                raise
    return {s: {attributes.ALL: files} for s, files in attributes.split(root, labels).items()}


def inspect(root: Root, rows: list[tuple[str, str, str]]) -> list[Seen]:
    """Decodes every image once, as the data set does, several at a time."""

    def look(row: tuple[str, str, str]) -> Seen:
        path = row[-1]
        try:
            image = load_image(source(root, path), path)
        except Exception as error:  # besides ImageError, a damaged zip raises nearly anything
            return Seen(*row, error=str(error).removeprefix(f"{path}: "))
        if min(image.size) < MIN_SIDE:
            got = "x".join(map(str, image.size))
            return Seen(*row, error=f"expected at least {MIN_SIDE} pixels a side, got {got}")
        flat = max(high - low for low, high in image.getextrema()) < FLAT_LEVELS
        pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
        return Seen(*row, flat=flat, pixels=pixels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(look, rows), "verify", len(rows), disable=not rows, mininterval=1)
        return list(bar)


def warnings(root: Root, seen: list[Seen]) -> list[str]:
    """Warnings about data that can be trained on but deserves a look."""
    lines = [f"{s.path}: near-constant, all pixels nearly equal" for s in seen if s.flat]
    train = {s.pixels: s.path for s in seen if s.split == "train" and s.pixels}
    same = [s for s in seen if s.split != "train" and s.pixels in train]
    lines += [f"{s.path}: the same image as {train[s.pixels]}" for s in same]
    for domain, count in Counter(s.domain for s in seen if s.split == "train").items():
        if count < SMALL_DOMAIN:
            lines.append(f"train/{domain}: {count} images, expected {SMALL_DOMAIN} and more")
    for domain, count in Counter(s.domain for s in seen if s.split == "val").items():
        if count < FEWEST_VAL:
            few = f"{count} images, expected {FEWEST_VAL} and more"
            lines.append(f"val/{domain}: {few}: references are not evaluated")
    if (domains := {s.domain for s in seen}) == {attributes.ALL} and has_file(
        root, attributes.NAME
    ):
        rest = {*filter(is_image, file_names(root))} - {s.path for s in seen}
        if rest:
            lines.append(f"{len(rest)} images have no line in labels.csv, such as {min(rest)}")
    elif len(domains) == 1:
        lines.append("one domain: enough for a generator; a translator or classifier needs two")
    else:
        try:
            attributes.read_labels(root)
        except (ValueError, OSError, WeightsError) as error:
            lines.append(f"domains, but no attributes of gen.data.Attributes: {error}")
    kinds = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in _names(root))
    if other := {kind: count for kind, count in kinds.items() if kind not in SUFFIXES}:
        lines.append(f"passed over, expected {', '.join(SUFFIXES)}: {other}")
    return lines


def _names(root: Root) -> list[str]:
    """Relative paths of all files in the folders of `root`, without hidden ones."""
    return sorted(n for n in file_names(root) if "/" in n and n[-1] != "/")


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("root", help="folder, zip, or shards: their path or address with braces")
    others = [import_module(p.stem) for p in sorted(Path(__file__).parent.glob("verify_*.py"))]
    for other in others:
        other.add_arguments(parser)
    args = parser.parse_args(argv)
    root = as_root(args.root)
    show_any_name()
    for other in others:
        if isinstance(root, Path) and other.fits(root):
            return other.verify(root, args)
    rows, layout = find(root)
    seen = inspect(root, rows)
    bad = [s for s in seen if s.error]
    unusable = Counter((s.split, s.domain) for s in bad)
    for (split, domain), count in Counter(row[:2] for row in rows).items():
        where = f"{split}/{domain}" if split else "all"
        print(f"{where:24} {count:8} images {unusable[split, domain]:6} unusable")
    for s in bad:
        print(f"unusable: {s.path}: {s.error}")
    for line in layout.splitlines():
        print(f"layout: {line}")
    if layout:
        return 1
    damaged = root.check() if isinstance(root, Shards) else []
    for line in damaged:
        print(f"unusable: {line}")
    for line in warnings(root, seen):
        print(f"warning: {line}")
    print(f"{root}: {len(seen) - len(bad)} of {len(seen)} images are usable")
    return int(bool(bad or damaged))


if __name__ == "__main__":
    sys.exit(main())

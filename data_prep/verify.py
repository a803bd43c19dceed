"""Look at every image of a data set once and list what cannot, or should not, be trained on.

    python data_prep/verify.py data/emoji

reads a folder (or zip) laid out as `gen.data.Domains` expects it. Unusable: what the data set
refuses to decode, and images smaller than 8 px. Warnings: near-constant images, equal images in
train and val, small domains, files of other kinds.

Exit codes: 0 all usable (warnings or not); 1 something unusable, or the layout is wrong.
"""

import argparse
import hashlib
import os
import sys
import zipfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from gen.data.domains import find_images
from gen.data.images import SUFFIXES, ImageError, load_image

MIN_SIDE = 8  # pixels
FLAT_LEVELS = 8  # of 255: an image whose channels vary less is called near-constant
SMALL_DOMAIN = 100  # training images


class File(NamedTuple):
    """One image of a data set, looked at."""

    split: str
    domain: str
    path: str
    error: str = ""  # why it is unusable
    flat: bool = False
    pixels: bytes = b""  # hash of the decoded image


def inspect(root: Path) -> list[File]:
    """Decode every image of `root` once, several at a time.

    Raises:
        FileNotFoundError, ValueError: the layout is wrong, so nothing was looked at.
    """
    found = find_images(root)
    rows = [
        (split, domain, path)
        for split, domains in found.items()
        for domain, images in domains.items()
        for _, path in images
    ]
    archive = zipfile.ZipFile(root) if root.is_file() else None

    def look(row: tuple[str, str, str]) -> File:
        path = row[2]
        try:
            image = load_image(archive.read(path) if archive else root / path, path)
        except (ImageError, zipfile.BadZipFile, OSError) as error:
            return File(*row, error=str(error).removeprefix(f"{root / path}: ").removeprefix(f"{path}: "))
        if min(image.size) < MIN_SIDE:
            w, h = image.size
            return File(*row, error=f"expected at least {MIN_SIDE}x{MIN_SIDE} pixels, got {w}x{h}")
        flat = max(high - low for low, high in image.getextrema()) < FLAT_LEVELS
        digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
        return File(*row, flat=flat, pixels=digest)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(look, rows), "verify", len(rows), unit="image", mininterval=1))

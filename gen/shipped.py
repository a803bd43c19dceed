"""Checkpoints by name: those that come with this package, and those on the Hugging Face Hub.

The former are looked for in the repository, the cache, and the release.

`checkpoints/manifest.json` lists them: name -> file, sha256, size in bytes, and url in the
release or on the Hub (hf://owner/name@COMMIT), which is null before one of them has the file.
"""

from __future__ import annotations

import difflib
import functools
import json
from pathlib import Path
from typing import NamedTuple

from gen import files, hub
from gen.data.remote import fetch
from gen.files import PACKAGE, WeightsError, cache_dir, sha256, verify, without_suffix


class Shipped(NamedTuple):
    """An entry of the manifest."""

    file: str
    sha256: str
    size: int  # bytes
    url: str | None


@functools.cache
def manifest() -> dict[str, Shipped]:
    """All checkpoints by name."""
    found = json.loads(files.own("checkpoints.json").read_bytes())
    return {name: Shipped(**entry) for name, entry in found.items()}


def describe(file: Path, url: str | None = None) -> Shipped:
    """The entry that a file must have in the manifest."""
    return Shipped(file.name, sha256(file), file.stat().st_size, url)


def name_of(path: str | Path) -> str:
    """Name of the shipped checkpoint that a path means, `NAME` or `checkpoints/NAME.safetensors`.

    Empty for any other path.
    """
    text = Path(path).as_posix()
    known = {f"checkpoints/{entry.file}": name for name, entry in manifest().items()}
    return known.get(text, text if text in manifest() else "")


def nearest(path: str | Path) -> str:
    """Name of the shipped checkpoint that is spelt nearly like a path; empty if there is none."""
    return next(iter(difflib.get_close_matches(str(path), manifest(), 1, 0.75)), "")


def places(name: str) -> tuple[Path, Path]:
    """Paths of a checkpoint in the repository and in the cache."""
    file = manifest()[name].file
    return PACKAGE.parent / "checkpoints" / file, cache_dir() / "checkpoints" / file


def is_name(path: str | Path) -> bool:
    """True for the name of a checkpoint, shipped or on the Hub, that no file or folder has."""
    return hub.is_name(path) or bool(name_of(path)) and not Path(path).exists()


def stem(path: str | Path) -> Path:
    """Path of a checkpoint without suffix, for files beside it; of a name, in this folder."""
    return without_suffix(Path(path).name if is_name(path) else path)


def find_named(name: str | Path) -> Path:
    """Path of a checkpoint for which `is_name` is true; errors as in `find` and `hub.find`."""
    return hub.find(name) if hub.is_name(name) else find(name_of(name))


def find(name: str) -> Path:
    """Path of a shipped checkpoint, which is fetched into the cache if it is in no other place.

    Raises:
        WeightsError: the file in the cache, the release or on the Hub has another sha256, or there
            is none; where it was looked for and where to put it.
    """
    own, cached = places(name)
    if own.is_file():
        return own
    entry = manifest()[name]
    if cached.is_file():
        return verify(cached, entry.sha256)
    if entry.url and hub.is_name(entry.url):
        found = hub.find(entry.url)
        if (got := sha256(found)) != entry.sha256:
            raise WeightsError(
                f"{name}: expected sha256 {entry.sha256}, got {got} from {entry.url}: the Hub has "
                f"another version; put the file with this sha256 into {cached.parent}"
            )
        return found
    if entry.url:
        return fetch(entry.url, entry.size, entry.size, entry.sha256, cached)
    raise WeightsError(
        f"{name}: expected the file {own} or {cached}, got neither, and no release has it yet; put "
        f"the file with sha256 {entry.sha256} into {cached.parent}"
    )

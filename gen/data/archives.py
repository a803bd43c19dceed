"""Zips of images, read in place; and which names in an archive are refused."""

import os
import stat
import zipfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from unicodedata import category

from gen.data.images import MAX_BYTES, ImageError

ODD = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, ends of lines and paragraphs
MAX_NAME = 1000  # characters of a path


def find_problem(name: str, size: int) -> str:
    """Reason why a file of an archive is refused by its path or its size in bytes, or ""."""
    odd = "\\" in name or (not name.isprintable() and ODD & {*map(category, name)})
    return (
        "an absolute path" if name.startswith("/") or name[1:2] == ":"
        else "a path with `..`" if ".." in name.split("/")
        else "a name with an odd character" if odd
        else "too long a name" if len(name) > MAX_NAME
        else f"{size} bytes" if size > MAX_BYTES
        else ""
    )  # fmt: skip


def zip_names(root: Path) -> list[str]:
    """Paths in a zip, without a leading "./"; folders end with a slash.

    Raises:
        ValueError: no zip, or one with unsafe names, links, encrypted or too large files.
    """
    archive.cache_clear()  # the file may have been replaced
    entries = _opened(root).infolist()
    names = [entry.filename.removeprefix("./") for entry in entries]  # bsdtar writes these
    counts = Counter(names)
    for entry, stripped in zip(entries, names, strict=True):
        name = entry.orig_filename
        if problem := (
            find_problem(name, entry.file_size)
            or "a link" * stat.S_ISLNK(entry.external_attr >> 16)
            or "an encrypted file" * (entry.flag_bits & 1)
            or "there twice" * (counts[stripped] > 1)
        ):
            told = f"{name!r:.100} is {problem}"
            raise ValueError(f"{root}: refused, {told}; zip the plain folder again")
    return [name for name in names if name]


@lru_cache(maxsize=4)
def archive(root: Path, pid: int) -> zipfile.ZipFile:
    """Opens one handle per process: forked workers must not share a file position."""
    return zipfile.ZipFile(root)


def _opened(root: Path) -> zipfile.ZipFile:
    try:
        return archive(root, os.getpid())
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged archives raise nearly anything
        raise ValueError(f"{root}: expected a folder or a zip, got neither ({error})") from error


def zip_has(root: Path, name: str) -> bool:
    """True if a zip has this file; ValueError for no zip."""
    return not {name, f"./{name}"}.isdisjoint(_opened(root).NameToInfo)


def read_zip(root: Path, name: str) -> bytes:
    """Bytes of a file in a zip.

    Raises:
        ImageError: the file is damaged.
    """
    try:
        of = archive(root, os.getpid())
        return of.read(name if name in of.NameToInfo else f"./{name}")
    except Exception as error:  # damaged archives raise nearly anything
        raise ImageError(f"{root / name}: {type(error).__name__}: {error}") from error

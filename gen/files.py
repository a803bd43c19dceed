"""Paths of files that commands read and write."""

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path

KINDS = (".safetensors", ".ckpt", ".jsonl", ".json", ".txt")  # of files that are written
Names = Iterable[str | Path | None]


def keep_inputs(reads: Names, writes: Names, option: str = "--out") -> None:
    """Refuses, before any work, to write to a file that is read, or into a folder that is.

    After it, `print` shows any name. Links are followed, of files that are given hard ones too. Of
    the folder of a run its checkpoints and its config are read, no more. What does not exist, and
    None, is left aside.

    Args:
        reads: files and folders.
        writes: files and folders.
        option: that says where to write.

    Raises:
        ValueError: naming both paths.
    """
    show_any_name()  # of what was read and written, which every caller prints
    read = {}  # real path or, of a file, (device, inode) -> as it was given
    for path in (str(p) for p in reads if p is not None and os.path.exists(p)):
        for name in _run(path) or (_folders(path) if os.path.isdir(path) else [path]):
            read |= dict.fromkeys(_keys(name), path)
    for path in (str(p) for p in writes if p is not None):
        above = map(str, Path(os.path.realpath(path)).parents)
        for key in (k for k in (*_keys(path), *above) if k in read):
            raise ValueError(
                f"{option}: expected to write elsewhere than to what is read, {read[key]}, got "
                f"{path}; choose another place"
            )


def without_suffix(path: str | Path) -> Path:
    """The path without the suffix of a kind of file: a dot in `tri_0.1` begins none."""
    path = Path(path)
    return path.with_suffix("") if path.suffix in KINDS and not path.is_dir() else path


def checkpoint_names(paths: Iterable[str | Path]) -> list[str]:
    """What results of checkpoints are called: the names of files and folders, without suffixes.

    The last.ckpt or best.ckpt of a run has the name of the run, with _last or _best where other
    names would be the same. Names that are still the same are the caller's to refuse.
    """
    files = [Path(os.path.abspath(path)) for path in paths]
    of_run = [file.name in ("last.ckpt", "best.ckpt") for file in files]
    names = [
        file.parent.name if of else without_suffix(file).name
        for file, of in zip(files, of_run, strict=True)
    ]
    if len(set(names)) < len(names):
        parts = zip(names, files, of_run, strict=True)
        names = [f"{name}_{file.stem}" if of else name for name, file, of in parts]
    return names


def show_any_name() -> None:
    """Lets `print` show a name that is not UTF-8, escaped, where it would raise."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _keys(path: str) -> list:
    inode = [(s.st_dev, s.st_ino) for s in [os.stat(path)]] if os.path.isfile(path) else []
    return [os.path.realpath(path), *inode]


def _run(path: str) -> list[str]:
    """What is read of the folder of a run; of anything else nothing."""
    if not all(os.path.isfile(os.path.join(path, n)) for n in ("last.ckpt", "config.yaml")):
        return []
    names = (n for n in os.listdir(path) if n.endswith(".ckpt") or n == "config.yaml")
    return [os.path.join(path, name) for name in names]


def _folders(path: str) -> set[str]:
    """The real paths of a folder and all folders in it, through links."""
    found, rest = set(), [path]
    while rest:
        if (real := os.path.realpath(rest.pop())) not in found:
            found.add(real)
            rest += [entry.path for entry in os.scandir(real) if entry.is_dir()]
    return found

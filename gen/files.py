"""Files: read with limits, verified, written whole or not at all; and which ones commands touch."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KINDS = (".safetensors", ".ckpt", ".jsonl", ".json", ".txt")  # of files that are written
MAX_VALUES, MAX_TEXT = 10_000, 2**18  # of a config: values in it, and characters
Names = Iterable[str | Path | None]


class WeightsError(RuntimeError):
    """A file is missing, wrong or unsafe. The message has expected, got and the way out."""


class UnavailableError(WeightsError):
    """The registry client is not installed, or its registry does not answer with the file."""


def cache_dir() -> Path:
    """Folder for fetched files: `$GEN_CACHE`, else `~/.cache/gen`. Not created here."""
    return Path(os.environ.get("GEN_CACHE") or "~/.cache/gen").expanduser()


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def verify(path: str | Path, expected: str) -> Path:
    """Return `path` if its sha256 is `expected`.

    Raises:
        WeightsError: the file is missing or differs. It is left where it is.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"{path}: expected a file with sha256 {expected}, got none")
    if (got := sha256(path)) != expected:
        raise WeightsError(
            f"{path}: expected sha256 {expected}, got {got}: damaged, or another version; "
            "delete it and run the same command again"
        )
    return Path(path)


def write_atomic(path: str | Path, data: bytes, fsync: bool = True) -> None:
    """Write `path` whole or leave what was there; `fsync` makes that hold in a power cut too.

    What earlier writers of `path` left behind when they were killed is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if fsync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk names no file
        raise


def sweep(path: Path) -> None:
    """Removes what `write_atomic` began for `path` in processes of this computer that are dead."""
    for left in path.parent.glob(f".{glob.escape(f'{path.name}.{platform.node()}')}.*.tmp"):
        writer = left.name.split(".")[-2]
        if writer.isdecimal():
            try:
                os.kill(int(writer), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except (OSError, OverflowError):
                pass  # it lives, as another user


def read_yaml(path: str | Path) -> Any:
    """The content of a config file; see `parse_yaml`.

    Raises:
        WeightsError: also no such file, or not in UTF-8.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(4 * MAX_TEXT + 1).decode()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected YAML in UTF-8, got: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, source: str | Path) -> Any:
    """Parses YAML; aliases count as often as they are used. `source` is named in errors.

    Raises:
        WeightsError: not YAML, or too much of it, or values without an end.
    """
    import yaml

    sizes: dict[int, int] = {}

    def size(node: yaml.Node | tuple) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES  # what holds itself has no end
            inner = node if isinstance(node, tuple) else node.value
            sizes[id(node)] = 1 + sum(map(size, inner)) if not isinstance(inner, str) else 1
        return sizes[id(node)]

    try:
        if len(text) > MAX_TEXT:
            raise WeightsError(f"more than {MAX_TEXT} characters")
        loader = yaml.SafeLoader(text)
        if (root := loader.get_single_node()) and size(root) >= MAX_VALUES:
            raise WeightsError(f"more than {MAX_VALUES} values")
        return root and loader.construct_document(root)
    except Exception as error:  # YAML nested too deeply raises more than its own errors
        raise WeightsError(
            f"{source}: expected YAML in UTF-8, got {type(error).__name__}: {error!s:.300}"
        ) from error


def keep_inputs(reads: Names, writes: Names, option: str = "--out") -> None:
    """Refuses, before any work, to write to a file that is read, or into a folder that is.

    Links are followed, of files that are given hard ones too. Of
    the folder of a run its checkpoints and its config are read, no more. What does not exist, and
    None, is left aside.

    Args:
        reads: files and folders that are read.
        writes: files and folders to be written.
        option: name of the option that says where to write.

    Raises:
        ValueError: naming both paths.
    """
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
    """Names of results of checkpoints: the names of files and folders, without suffixes.

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
    """The files that are read of the folder of a run; of anything else nothing."""
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

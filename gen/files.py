"""Files: reading with limits, verification, atomic writing; and checks of inputs and outputs."""

from __future__ import annotations

import functools
import glob
import hashlib
import io
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

KINDS = (".safetensors", ".ckpt", ".jsonl", ".json", ".txt")  # suffixes of written files
PACKAGE = Path(__file__).resolve().parent
WINDOWS = os.name == "nt"
LEFT_S = 3600  # age of an unfinished file on Windows, which tells no process of it
MAX_VALUES, MAX_TEXT = 10_000, 2**18  # of a config: number of values, and of characters
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
    """Returns `path` if its sha256 is `expected`.

    Raises:
        WeightsError: the file is missing or differs. It is not changed.
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
    """Writes `path` atomically; with `fsync`, a power cut is safe, too.

    Removes the leftovers of earlier, killed writers of `path`.
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
            error.filename = str(path)  # the error of a full disk names no file
        raise


def sweep(path: Path) -> None:
    """Removes unfinished files of `write_atomic` for `path` by dead processes of this computer."""
    for left in path.parent.glob(f".{glob.escape(f'{path.name}.{platform.node()}')}.*.tmp"):
        writer = left.name.split(".")[-2]
        if WINDOWS:  # where os.kill(.., 0) sends a Ctrl-C
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > LEFT_S:
                    left.unlink()
        elif writer.isdecimal():
            try:
                os.kill(int(writer), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except (OSError, OverflowError):
                pass  # a live process of another user


def lock(descriptor: int, wait: bool = True) -> None:
    """Locks an open file for this process, until it is closed; other processes wait, or fail.

    Raises:
        BlockingIOError: another process has locked it, and `wait` is false.
    """
    if not WINDOWS:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    import msvcrt

    while True:
        try:
            return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if not wait:
                raise BlockingIOError(*error.args) from error
        time.sleep(0.2)


@contextmanager
def only_writer(path: str | Path) -> Iterator[None]:
    """Context in which no other process writes `path`; a process that dies does not stay in it.

    `.NAME.lock` beside the file holds the number of the process. Folders that it makes are gone
    afterwards if nothing was written into them.

    Raises:
        BlockingIOError: another process is in this context.
    """
    place = Path(path).with_name(f".{Path(path).name}.lock")
    made = [folder for folder in place.parents if not folder.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(place, "a+", encoding="utf-8") as file:
            file.seek(0)
            try:
                lock(file.fileno(), wait=False)
            except BlockingIOError:
                other = "" if WINDOWS else file.read()  # Windows lets nobody read it
                told = f"{path}: expected to write it alone, got another process, {other}, at it"
                raise BlockingIOError(f"{told}; wait for it, or choose another --out") from None
            if not place.exists() or not os.path.samestat(os.fstat(file.fileno()), place.stat()):
                continue  # the process before has just removed it
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):  # Windows keeps what is open
                    place.unlink()
                    for folder in made:  # of a mistake that wrote nothing
                        folder.rmdir()
            return


def own(name: str) -> Path:
    """Path of a file or folder that the package brings: configs, data_prep or checkpoints.json.

    In a clone each is a link. Where git makes no links, as on Windows by default, it writes a file
    with the text of the link.

    Raises:
        WeightsError: the package was built from such files, so what they point to is missing.
    """
    found = path = PACKAGE / name
    if path.is_file() and path.stat().st_size <= 100:  # bytes; the manifest has more
        found = (PACKAGE / path.read_text("utf-8").strip()).resolve()
    if not found.exists():
        raise WeightsError(
            f"{path}: expected what the package brings, got none, or the text of a link to it; in "
            "the clone: git config core.symlinks true, git checkout -- gen, then install again"
        )
    return found


def read_yaml(path: str | Path) -> Any:
    """Content of a config file; see `parse_yaml`.

    Raises:
        WeightsError: as `parse_yaml`, or no such file, or not in UTF-8.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(4 * MAX_TEXT + 1).decode()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected YAML in UTF-8, got: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, source: str | Path) -> Any:
    """Parses YAML; every use of an alias counts towards the limit. Errors name `source`.

    As in YAML 1.2, and as `gen fit` reads it, 1e-4 is a number and 2026-01-31 is text.

    Raises:
        WeightsError: not YAML, too many values or characters, or a value that contains itself.
    """
    import yaml

    sizes: dict[int, int] = {}

    def size(node: yaml.Node | tuple) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES  # a value that contains itself has no end
            inner = node if isinstance(node, tuple) else node.value
            sizes[id(node)] = 1 + sum(map(size, inner)) if not isinstance(inner, str) else 1
        return sizes[id(node)]

    try:
        if len(text) > MAX_TEXT:
            raise WeightsError(f"more than {MAX_TEXT} characters")
        loader = _yaml_loader()(text)
        if (root := loader.get_single_node()) and size(root) >= MAX_VALUES:
            raise WeightsError(f"more than {MAX_VALUES} values")
        return root and loader.construct_document(root)
    except Exception as error:  # YAML nested too deeply raises more than its own errors
        raise WeightsError(
            f"{source}: expected YAML in UTF-8, got {type(error).__name__}: {error!s:.300}"
        ) from error


@functools.cache
def _yaml_loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
            for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    number = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, [*"-+.0123456789"])
    return Loader


def keep_inputs(reads: Names, writes: Names, option: str = "--out") -> None:
    """Refuses, before any work, to write to an input file or into an input folder.

    Links are followed; for files, hard links, too. Braces, as of shards, mean any text. Of a run's
    folder, only the checkpoints and the config count as inputs. None and missing files are ignored.

    Args:
        reads: input files and folders.
        writes: output files and folders.
        option: name of the option that says where to write.

    Raises:
        ValueError: an output is an input; the message names both paths.
    """
    read = {}  # real path or, for a file, (device, inode) -> path as given
    for path in (found for p in reads if p is not None for found in _existing(str(p))):
        for name in _run(path) or (_folders(path) if os.path.isdir(path) else [path]):
            read |= dict.fromkeys(_keys(name), path)
    for path in (str(p) for p in writes if p is not None):
        above = map(str, Path(os.path.realpath(path)).parents)
        for key in (k for k in (*_keys(path), *above) if k in read):
            raise ValueError(
                f"{option}: expected to write elsewhere than to what is read, {read[key]}, got "
                f"{path}; choose another place"
            )


def packaged(path: str | Path) -> Path:
    """The path; a `configs/..` that does not exist here is that of the package, if it has it."""
    path = Path(path)
    if path.parts[:1] != ("configs",) or path.exists():
        return path
    found = own("configs").joinpath(*path.parts[1:])
    return found if found.exists() else path


def without_suffix(path: str | Path) -> Path:
    """Path without the suffix of a kind of file; the dot in `tri_0.1` is kept."""
    path = Path(path)
    return path.with_suffix("") if path.suffix in KINDS and not path.is_dir() else path


def checkpoint_names(paths: Iterable[str | Path]) -> list[str]:
    """Names for the results of checkpoints: names of files and folders, without suffixes.

    The last.ckpt or best.ckpt of a run gets the name of the run, with _last or _best if names
    would be equal otherwise. The caller refuses names that are still equal.
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
    """Lets `print` escape a name that is not UTF-8, in place of raising."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _existing(path: str) -> list[str]:
    """The path, if it exists; of a pattern with braces, all that may be meant."""
    if os.path.exists(path) or "{" not in path:
        return [path] if os.path.exists(path) else []
    return glob.glob("*".join(map(glob.escape, re.split(r"\{[^{}]*\}", path))))


def _keys(path: str) -> list:
    inode = [(s.st_dev, s.st_ino) for s in [os.stat(path)]] if os.path.isfile(path) else []
    return [os.path.realpath(path), *inode]


def _run(path: str) -> list[str]:
    """Input files in the folder of a run; none for other paths."""
    if not all(os.path.isfile(os.path.join(path, n)) for n in ("last.ckpt", "config.yaml")):
        return []
    names = (n for n in os.listdir(path) if n.endswith(".ckpt") or n == "config.yaml")
    return [os.path.join(path, name) for name in names]


def _folders(path: str) -> set[str]:
    """Real paths of a folder and of all folders in it, through links."""
    found, rest = set(), [path]
    while rest:
        if (real := os.path.realpath(rest.pop())) not in found:
            found.add(real)
            rest += [entry.path for entry in os.scandir(real) if entry.is_dir()]
    return found

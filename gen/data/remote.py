"""Files of a web server, fetched into the cache when they are first read, and verified there."""

import hashlib
import logging
import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from gen import files
from gen.files import UnavailableError, WeightsError, cache_dir

log = logging.getLogger(__name__)
TIMEOUT = 60  # seconds without an answer
PAUSES = (1, 4)  # seconds before each further try
HANDLERS = (  # http and https alone; those of urllib by default also open local files
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
)


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def cached(url: str) -> Path:
    """Where the file at `url` is in the cache: the files of one web folder lie in one folder."""
    folder, _, name = url.rpartition("/")
    return cache_dir() / "shards" / hashlib.sha256(folder.encode()).hexdigest()[:16] / name


def fetch(
    url: str, most: int, size: int | None = None, sha256: str = "", to: Path | None = None
) -> Path:
    """Path of the file at `url` on this disk. One process downloads it while others wait.

    Args:
        url: http or https address.
        most: largest number of bytes that is read.
        size: number of bytes that the file must have; None: any.
        sha256: hash that the file must have; empty: any.
        to: path to write; default: `cached(url)`.

    Raises:
        UnavailableError: the server does not answer with the file, after three tries.
        WeightsError: the file is larger than `most`, or has another size or hash.
    """
    path = to or cached(url)
    if path.is_file() and size in (None, path.stat().st_size):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "wb") as lock:
        files.lock(lock.fileno())
        if path.is_file() and size in (None, path.stat().st_size):
            return path  # another process has fetched it
        log.info("fetching %s into %s", url, path)
        part = path.with_name(f".{path.name}.part")
        try:
            got_size, got = _download(url, part, most if size is None else size)
            if size not in (None, got_size) or sha256 not in ("", got):
                raise WeightsError(
                    f"{url}: expected {size} bytes with sha256 {sha256}, got {got_size} bytes "
                    f"with {got}: the server has another version; delete {path.parent} and run "
                    "the same command again"
                )
            os.replace(part, path)
        except OSError as error:
            error.filename = error.filename or str(path)  # the error of a full disk names no file
            raise
        finally:
            part.unlink(missing_ok=True)
    return path


def _download(url: str, path: Path, most: int) -> tuple[int, str]:
    """Writes the file at `url` to `path`; returns its size and sha256."""
    opener = urllib.request.OpenerDirector()
    for handler in HANDLERS:
        opener.add_handler(handler())
    for pause in (*PAUSES, None):
        try:
            return _read(opener, url, path, most)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if final or pause is None:
                raise UnavailableError(
                    f"{url}: expected a file, got {error!s:.200}; check the address and the "
                    f"network, or put the file into {path.parent}"
                ) from error
        time.sleep(pause)
    raise AssertionError


def _read(
    opener: urllib.request.OpenerDirector, url: str, path: Path, most: int
) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with opener.open(url, timeout=TIMEOUT) as answer, open(path, "wb") as file:
        whole = answer.headers.get("Content-Length")
        while block := answer.read(2**20):
            digest.update(block)
            if (size := size + len(block)) > most:
                raise WeightsError(f"{url}: expected at most {most} bytes, got more")
            file.write(block)
        if whole is not None and size != int(whole):
            raise ConnectionError(f"{size} of {whole} bytes")
    return size, digest.hexdigest()

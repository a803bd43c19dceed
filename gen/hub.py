"""Checkpoints on the Hugging Face Hub: `hf://owner/name`, or `hf://owner/name@revision`.

A repository holds one checkpoint, `model.safetensors`, which is the only file that is read. It is
kept in the cache, and trusted no more than a file of this disk. HF_ENDPOINT names another server,
HF_TOKEN or `hf auth login` says who asks.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gen.files import UnavailableError, WeightsError, cache_dir, sha256

log = logging.getLogger(__name__)
FILE = "model.safetensors"
MAX_BYTES = 2**33  # of a file that is fetched
TIMEOUT = 10  # seconds without an answer
START = "hf:/"  # a Path has one slash of two
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_name(path: str | Path) -> bool:
    """True for a checkpoint on the Hub, also if it is misspelt."""
    return Path(path).as_posix().startswith(START)


def parse(name: str | Path) -> tuple[str, str]:
    """(repository, revision) of `hf://owner/name@revision`; the default revision is main.

    Raises:
        WeightsError: the name has another form.
    """
    text = Path(name).as_posix()
    found = re.fullmatch(rf"{START}(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", text, re.ASCII)
    if found is None or ".." in text:
        raise WeightsError(
            f"{text.replace(START, f'{START}/', 1)}: expected hf://OWNER/NAME or "
            "hf://OWNER/NAME@REVISION, got another form"
        )
    return found[1], found[2] or "main"


def find(name: str | Path) -> Path:
    """Path of the checkpoint in the cache, fetched if the cache has not this revision of it.

    A revision that is a whole commit hash and in the cache needs no network. Without an answer of
    the Hub, the revision that was fetched last is used, with a warning.

    Raises:
        UnavailableError: the Hub does not answer, and the cache has no such file.
        WeightsError: there is no such repository, revision or file, or it may not be read, is too
            large, or is another file than the Hub says.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    repo, revision = parse(name)
    hf, name = library(), f"hf://{repo}" + f"@{revision}" * (revision != "main")
    place: dict[str, Any] = dict(repo_id=repo, filename=FILE, revision=revision)
    place["cache_dir"] = cache_dir() / "hub"
    kept = hf.try_to_load_from_cache(**place)
    if isinstance(kept, str) and re.fullmatch("[0-9a-f]{40}", revision):
        return Path(kept)
    try:
        info = _api(hf).model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except Exception as error:  # the library has a class of its own for nearly every mistake
        if told := _explain(error, hf, name):
            raise WeightsError(told) from error
        if not isinstance(kept, str):
            raise _unavailable(name, error) from error
        log.warning(
            "%s: the Hub does not answer (%s); taken from the cache: commit %s",
            *(name, _first_line(error), Path(kept).parent.name),
        )
        return Path(kept)
    entry = _entry(name, info)
    try:
        path = Path(hf.hf_hub_download(**place, endpoint=_endpoint()))
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # of this disk
            raise
        raise _unavailable(name, error) from error
    return _verify(path, name, entry)


def push(repo: str, files: Mapping[str, Path | bytes], message: str, private: bool = False) -> str:
    """Uploads files, by their names in the repository, in one commit; returns its hash.

    The repository is made if there is none. What it has already is not sent again, and an
    interrupted upload changes nothing in it.

    Raises:
        UnavailableError: the Hub does not answer.
        WeightsError: it refuses the files, or who sends them.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    hf, name = library(), f"hf://{repo}"
    try:
        api = _api(hf)
        api.create_repo(repo, private=private or None, exist_ok=True)
        added = [hf.CommitOperationAdd(path, content) for path, content in files.items()]
        return api.create_commit(repo, added, commit_message=message).oid
    except Exception as error:
        if told := _explain(error, hf, name):
            raise WeightsError(told) from error
        raise _unavailable(name, error, "run the same command again") from error


def url(repo: str) -> str:
    """Address of the page of a repository."""
    return f"{_endpoint() or 'https://huggingface.co'}/{repo}"


def library() -> ModuleType:
    """The module huggingface_hub, which is imported when it is first needed.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "hf:// expects huggingface_hub, got none; pip install huggingface-hub",
            name="huggingface_hub",
        ) from error
    return huggingface_hub


def _endpoint() -> str | None:
    """Address of another server than the public one; the library itself reads it but once."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _api(hf: ModuleType) -> Any:
    return hf.HfApi(endpoint=_endpoint(), library_name="gen")


def _entry(name: str, info: Any) -> Any:
    """Entry of the file in the list of the Hub: its size and its hash."""
    names = [entry.rfilename for entry in info.siblings or ()]
    entry = next((entry for entry in info.siblings or () if entry.rfilename == FILE), None)
    if entry is None:
        raise WeightsError(
            f"{name}: expected {FILE}, as gen push uploads it, got {names!s:.200}; files of other "
            "kinds are not read, pickles least of all: ask its owner, or see gen import"
        )
    if not isinstance(entry.size, int) or entry.size > MAX_BYTES:
        raise WeightsError(
            f"{name}: expected {FILE} of at most {MAX_BYTES} bytes, got {entry.size}; fetch it by "
            "`hf download`, and give the path of the file"
        )
    return entry


def _verify(path: Path, name: str, entry: Any) -> Path:
    """The path of a file with the hash that the Hub has; any other file leaves the cache."""
    if entry.lfs:
        expected, got = entry.lfs.sha256, sha256(path)
    else:  # a small file is in git itself
        data = path.read_bytes()
        expected, got = entry.blob_id, hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if got != expected:
        path.resolve().unlink()
        path.unlink(missing_ok=True)  # a link to it, where the system has links
        raise WeightsError(
            f"{name}: expected {FILE} with hash {expected}, as the Hub says, got {got}: damaged on "
            "its way, or just replaced; it is deleted here, run the same command again"
        )
    return path


def _explain(error: Exception, hf: ModuleType, name: str) -> str:
    """One line about an answer of the Hub that a user can change; empty for other errors."""
    known, error = hf.errors, _cause(error)
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, known.GatedRepoError):
        return (
            f"{name}: expected a repository that you may read, got one whose conditions you have "
            f"to accept on its page first; then {LOG_IN}"
        )
    if isinstance(error, known.RepositoryNotFoundError) or status == 401:
        return (
            f"{name}: expected a repository that you may use, got none of this name, or one that "
            f"is not open to you; check the name, or {LOG_IN}"
        )
    if isinstance(error, known.RevisionNotFoundError):
        return f"{name}: expected a branch, tag or commit after @, got one that does not exist"
    if status == 403:
        return (
            f"{name}: expected a token with the right to do this, got another, "
            f"{_first_line(error)}; {LOG_IN}"
        )
    if 400 <= status < 500 and status not in (408, 429):
        return f"{name}: expected the Hub to take this, got {status}, {_first_line(error)}"
    return ""


def _unavailable(name: str, error: Exception, way_out: str = "") -> UnavailableError:
    way_out = way_out or "nothing of it is in the cache; run the same command again"
    server = _endpoint() or "https://huggingface.co"
    return UnavailableError(
        f"{name}: expected {server} to answer, got {_first_line(error)}; check the network: "
        f"{way_out}"
    )


def _cause(error: BaseException) -> BaseException:
    """The answer of the Hub that led to an error, or the error that lies deepest."""
    while error.__cause__ is not None and not hasattr(error, "server_message"):
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    """Class and first line of what led to an error."""
    error = _cause(error)
    lines = str(getattr(error, "server_message", None) or error).strip().splitlines()
    return f"{type(error).__name__}" + (f": {lines[0]:.200}" if lines else "")

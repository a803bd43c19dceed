"""Plain tar files that hold one data set together, read in place by the offsets of their files.

A data set of shards is given by the path or the http(s) address of all, with braces as a shell
expands them: `shards/{0000..0099}.tar`, `/disk{1,2}/{00..49}.tar`. `data_prep/shards.py` writes
them, and `index.json` beside them: size and sha256 of every shard, and name, offset and size of
every file. Local tar files of another program need no index: their headers are read instead.
Remote shards need one. They are fetched into the cache when one of their files is first read.
"""

import json
import logging
import os
import re
import tarfile
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NamedTuple

from gen.data.archives import find_problem
from gen.data.images import MAX_BYTES, ImageError
from gen.data.remote import cached, fetch, is_url
from gen.files import WeightsError, verify

log = logging.getLogger(__name__)
INDEX, FORMAT = "index.json", "gen shards 1"
MAX_SHARDS, MAX_INDEX = 100_000, 2**30  # the latter in bytes
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
ENCODING = "utf-8", "surrogateescape"  # of names
BLOCK = tarfile.BLOCKSIZE  # bytes of a header in a tar
HASH = re.compile("[0-9a-f]{64}")


class Member(NamedTuple):
    """A file in a shard."""

    shard: int
    offset: int  # of its first byte
    size: int


class Shard(NamedTuple):
    """A tar file; without an index, nothing but its place is known before it is read."""

    place: str  # path or address
    size: int = -1
    sha256: str = ""


def expand(pattern: str) -> list[str]:
    """Paths of a pattern with braces: {00..99} counts, with leading zeros; {a,b} lists.

    Raises:
        ValueError: other braces, a range that counts down, or more than MAX_SHARDS paths.
    """
    parts, places, end = [], [], 0
    for found in BRACES.finditer(pattern):
        first, last, words = found.groups()
        values = words.split(",") if words else _count(pattern, first, last)
        parts += [pattern[end : found.start()]]
        places, end = [*places, values], found.end()
    texts = [*parts, pattern[end:]]
    if any("{" in text or "}" in text for text in texts):
        raise ValueError(f"{pattern}: expected braces as {{00..99}} or {{a,b}}, got others")
    if (many := prod(map(len, places))) > MAX_SHARDS:
        raise ValueError(f"{pattern}: expected at most {MAX_SHARDS} shards, got {many}")
    paths = [texts[0]]
    for values, text in zip(places, texts[1:], strict=True):
        paths = [path + value + text for path in paths for value in values]
    return paths


def _count(pattern: str, first: str, last: str) -> list[str]:
    padded = any(len(text) > 1 and text[0] == "0" for text in (first, last))
    width = max(len(first), len(last)) if padded else 0
    low, high = (int(text[:12]) for text in (first, last))
    if not 0 <= high - low < MAX_SHARDS:
        raise ValueError(
            f"{pattern}: expected a range that counts up, to at most {MAX_SHARDS} shards, got "
            f"{{{first}..{last}}}"
        )
    return [f"{n:0{width}}" for n in range(low, high + 1)]


class Shards:
    """The files of all shards of a pattern, by name; opens nothing before they are needed.

    Args:
        pattern: path or http(s) address of the shards, with braces.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __str__(self) -> str:
        return self.pattern

    def __truediv__(self, name: str) -> str:
        """Path of a file, for messages."""
        member = self._found[1].get(name)
        return f"{self._found[0][member.shard].place if member else self.pattern}/{name}"

    def names(self) -> list[str]:
        """Names of all files, in the order of the shards.

        Raises:
            FileNotFoundError: no such shard.
            ValueError: bad braces, a shard that is no whole tar or not that of its index, or an
                unsafe name.
            WeightsError: the index of remote shards cannot be fetched.
        """
        return list(self._found[1])

    def has(self, name: str) -> bool:
        """True if a shard has this file; raises as `names`."""
        return name in self._found[1]

    def read(self, name: str) -> bytes:
        """Bytes of a file; fetches its shard first if that is remote.

        Raises:
            ImageError: the shard does not hold this file at this place.
            WeightsError: the shard cannot be fetched, or is not that of the index.
        """
        shards, members = self._found
        index, offset, size = members[name]
        shard = shards[index]
        where, problem = f"{shard.place}/{name}", ""
        try:
            with open(_local(shard), "rb") as file:
                file.seek(offset - BLOCK)
                data = file.read(BLOCK + size)
            head = tarfile.TarInfo.frombuf(data[:BLOCK], *ENCODING)
        except tarfile.HeaderError as error:
            problem = f"none ({error})"
        except OSError as error:
            raise ImageError(f"{where}: cannot be read ({error.strerror})") from error
        else:
            wanted, got = (text.encode(*ENCODING) for text in (name, head.name))
            wrong = shard.sha256 and got != wanted[: tarfile.LENGTH_NAME]
            if head.size != size or len(data) < BLOCK + size or wrong:
                problem = f"{head.name!r:.100} of {min(head.size, len(data) - BLOCK)}"
        if problem:
            raise ImageError(
                f"{where}: expected a file of {size} bytes at byte {offset}, got {problem}: "
                f"another shard than that of {_beside(shard.place)}; write or bring both again"
            )
        return data[BLOCK:]

    def check(self) -> list[str]:
        """Fetches and hashes every shard; returns the errors of those that differ from the index.

        Shards without an index are not hashed.
        """
        errors = []
        for shard in self._found[0]:
            try:
                if shard.sha256:
                    verify(_local(shard), shard.sha256)
            except WeightsError as error:
                errors.append(str(error))
        return errors

    @cached_property
    def _found(self) -> tuple[list[Shard], dict[str, Member]]:
        shards, members = [], {}
        indices: dict[str, dict[str, tuple[Shard, dict[str, Member]]]] = {}
        for place in expand(self.pattern):
            folder, _, name = place.rpartition("/")
            if not name.endswith(".tar") or "?" in name or "#" in name:
                raise ValueError(f"{place}: expected the path of a .tar file, got another")
            if not is_url(place) and not os.path.isfile(place):
                raise FileNotFoundError(
                    f"{place}: expected a shard of {self.pattern}, found nothing; correct "
                    "--data.root, or bring the file"
                )
            if folder not in indices:
                indices[folder] = _read_index(_beside(place))
            shard, inside = _open(place, indices[folder])
            for path, member in inside.items():
                if path in members:
                    raise ValueError(f"{place}: refused, {path!r:.100} is in two shards")
                members[path] = member._replace(shard=len(shards))
            shards.append(shard)
        if (listed := sum(map(len, indices.values()))) > len(shards):
            log.warning("%s: only %d of the %d shards in %s", self, len(shards), listed, INDEX)
        return shards, members


def _beside(place: str) -> str:
    """Place of the index of the shard at `place`."""
    folder, slash, _ = place.rpartition("/")
    return f"{folder}{slash}{INDEX}"


def _local(shard: Shard) -> str | Path:
    if not is_url(shard.place):
        return shard.place
    return fetch(shard.place, shard.size, shard.size, shard.sha256)


def _open(place: str, index: dict[str, tuple[Shard, dict[str, Member]]]):
    """A shard and its members, by the index, or by the headers of the tar without an index."""
    if not index:
        return Shard(place), scan(place)
    name = place.rpartition("/")[2]
    if name not in index:
        few = ", ".join([*index][:8])
        known = f"; delete {cached(place).parent} if it is new" if is_url(place) else ""
        raise ValueError(
            f"{place}: expected a shard of {_beside(place)}, got one beside {few:.200}{known}"
        )
    shard, members = index[name]
    if not is_url(place) and (size := os.path.getsize(place)) != shard.size:
        raise ValueError(
            f"{place}: expected {shard.size} bytes as {_beside(place)} says, got {size}: cut, or "
            "another version; bring it again"
        )
    return shard._replace(place=place), members


def scan(path: str | Path) -> dict[str, Member]:
    """The files of a tar by its headers, without their contents; folders are left out.

    Raises:
        ValueError: not a whole, uncompressed tar, or one with links, devices or unsafe names.
    """
    members: dict[str, Member] = {}
    try:
        with tarfile.open(path, "r:", encoding=ENCODING[0], errors=ENCODING[1]) as archive:
            for info in archive:
                name, plain = info.name.removeprefix("./"), info.type in (b"0", b"\0")
                if info.isdir():
                    continue
                problem = "no plain file" if not plain or info.issparse() else ""
                problem = problem or find_problem(name, info.size)
                if problem := problem or "there twice" * (name in members):
                    told = f"{info.name!r:.100} is {problem}"
                    raise ValueError(f"{path}: refused, {told}; write the tar again")
                members[name] = Member(0, info.offset_data, info.size)
            end = archive.offset
        with open(path, "rb") as file:  # tarfile takes a damaged header for the end
            file.seek(end)
            block = file.read(BLOCK)
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise ValueError(f"{path}: expected a whole, plain tar, got: {error}") from error
    if block != bytes(BLOCK):
        raise ValueError(
            f"{path}: expected a whole, plain tar, got one that is damaged or cut at byte {end}; "
            "bring it again"
        )
    return members


def _read_index(place: str) -> dict[str, tuple[Shard, dict[str, Member]]]:
    """Shards and their members by name of the shard; {} where a local folder has no index.

    Raises:
        ValueError: an index with other values, or unsafe names.
        WeightsError: a remote index that cannot be fetched.
    """
    remote = is_url(place)
    path = fetch(place, MAX_INDEX) if remote else Path(place)
    if not path.is_file():
        return {}
    found = {}
    try:
        if (size := path.stat().st_size) > MAX_INDEX:
            raise ValueError(f"{size} bytes")
        if (data := json.loads(path.read_bytes()))["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r:.40}")
        for row in data["shards"]:
            shard = Shard(str(row["name"]), int(row["bytes"]), row["sha256"])
            if (
                find_problem(shard.place, 0)
                or shard.place in found
                or not HASH.fullmatch(shard.sha256)
            ):
                raise ValueError(f"shard {shard.place!r:.100}, unsafe, twice or without a sha256")
            members = {str(name): Member(0, int(at), int(size)) for name, at, size in row["files"]}
            for name, member in members.items():
                if problem := _problem(name, member, shard.size):
                    raise ValueError(f"{name!r:.100}, which is {problem}")
            if len(members) < len(row["files"]):
                raise ValueError(f"a file of {shard.place} twice")
            found[shard.place] = shard, members
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        if remote:
            path.unlink(missing_ok=True)
        raise ValueError(
            f"{place}: expected the index of shards that data_prep/shards.py writes, got "
            f"{type(error).__name__}: {error!s:.200}; write the shards again"
        ) from error
    return found


def _problem(name: str, member: Member, size: int) -> str:
    if problem := find_problem(name, member.size):
        return problem
    inside = BLOCK <= member.offset <= size - member.size and 0 <= member.size <= MAX_BYTES
    return "" if inside else f"at bytes {member.offset} to {member.offset + member.size} of {size}"

"""Writes the files of a data set into tar shards, which training reads in place.

    gen prepare shards data/celeba_hq data/celeba_hq_shards --size 512
    gen fit ... --data.root "data/celeba_hq_shards/{0000..0011}.tar"

SRC is a folder, a zip, or shards, in a layout of `gen.data.Domains` and `gen.data.Classes`, or with
the `labels.csv` of `gen.data.Attributes`. Names, labels and bytes are kept, so a run is the same
from SRC and from OUT; links become files. OUT also gets `index.json`: size and sha256 of each
shard, and the place of each file. Put both on a web server to train from it:
`--data.root "https://host/celeba_hq/{0000..0011}.tar"`.

Exit codes: 0 done; 1 failed; 130 interrupted. The same command then starts again.
"""

import argparse
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from recipe import run

from gen.data.archives import find_problem
from gen.data.attributes import is_labelled, read_labels
from gen.data.layout import Root, as_root, file_names, find_images, read_file
from gen.data.shards import FORMAT, INDEX, scan
from gen.files import keep_inputs, sha256, write_atomic

DIGITS = 4  # of the number of a shard
UNFINISHED = ".unfinished"  # in a folder whose shards are being written


def write_shards(source: Root, out: Path, size: int) -> str:
    """Writes the shards and their index; returns the pattern of the shards.

    Args:
        source: data set.
        out: new or empty folder, or what an interrupted call has left.
        size: bytes after which the next shard begins.

    Raises:
        ValueError: `out` holds something else or is in `source`, or `source` has no layout of a
            data set, or a name that archives may not have.
    """
    keep_inputs([source], [out], "OUT")
    (read_labels if is_labelled(source) else find_images)(source)
    names = sorted(name for name in file_names(source) if name[-1] != "/")
    for name in names:
        if problem := find_problem(name, 0):
            raise ValueError(f"{source}: refused, {name!r:.100} is {problem}; rename the file")
    number = 0
    _claim(out)
    shards, left = [], iter(names)
    while (name := next(left, None)) is not None:
        if number == 10**DIGITS:
            raise ValueError(f"--size: expected at most {number} shards, got more; choose a larger")
        path, part = (out / f"{number:0{DIGITS}}.{kind}" for kind in ("tar", "part"))
        with tarfile.open(part, "w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
            _add(archive, source, name)
            for name in _until(archive, size, left):
                _add(archive, source, name)
        os.replace(part, path)
        files = [[name, member.offset, member.size] for name, member in scan(path).items()]
        row = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        shards.append(row | {"files": files})
        number += 1
    write_atomic(out / INDEX, json.dumps({"format": FORMAT, "shards": shards}).encode())
    (out / UNFINISHED).unlink()
    first, last = (f"{n:0{DIGITS}}" for n in (0, number - 1))
    return f"{out}/{{{first}..{last}}}.tar"


def _until(archive: tarfile.TarFile, size: int, names: Iterator[str]) -> Iterator[str]:
    """The next names, until the shard is full."""
    while archive.offset < size and (name := next(names, None)) is not None:
        yield name


def _add(archive: tarfile.TarFile, source: Root, name: str) -> None:
    data = read_file(source, name)
    info = tarfile.TarInfo(name)  # without owner and time: the same files give the same shards
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _claim(out: Path) -> None:
    """Makes the folder; removes only what an interrupted call of this program has left in it."""
    out.mkdir(parents=True, exist_ok=True)
    found = sorted(path.name for path in out.iterdir())
    if found and (UNFINISHED not in found or INDEX in found):
        other = INDEX if INDEX in found else found[0]
        raise ValueError(f"{out}: expected a new or empty folder, got {other}; choose another")
    (out / UNFINISHED).touch()
    for path in out.iterdir():
        if path.suffix in (".tar", ".part") and path.stem.isdecimal():
            path.unlink()


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("source", metavar="SRC", help="folder, zip, or shards")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder")
    parser.add_argument("--size", type=float, default=512, metavar="N_MB", help="MB of a shard")
    args = parser.parse_args(argv)
    if not args.size > 0:
        parser.error(f"--size: expected more than 0 MB, got {args.size}")

    def work() -> str:
        pattern = write_shards(as_root(args.source), args.out, int(args.size * 10**6))
        return f'--data.root "{pattern}"'

    return run("shards", work)


if __name__ == "__main__":
    sys.exit(main())

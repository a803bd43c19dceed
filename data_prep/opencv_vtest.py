"""Pedestrians seen by a camera that stands still: 795 frames as clips for Click to Move.

    gen prepare opencv_vtest --out data/vtest

takes `vtest.avi` (768 x 576 px, 10 Hz) from the Debian package `opencv-doc` with
`apt-get download`, which needs no root (96 MB), keeps the 8 MB of the video in the cache, and
prepares it as video.py does. The origin of the footage is unclear: use it, do not redistribute it.
Exit codes: see recipe.py.
"""

import argparse
import gzip
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cv2
from recipe import run
from video import HELD_OUT, describe, prepare

from gen.files import UnavailableError, WeightsError, cache_dir, verify, write_atomic

PACKAGE = "opencv-doc"  # the video is equal in all versions, so its sha256 is pinned
MEMBER = "usr/share/doc/opencv-doc/examples/data/vtest.avi"
SHA256 = "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"
MAX_BYTES = 64 * 2**20


def fetch() -> Path:
    """Path of the video, in the cache or from the package.

    Raises:
        UnavailableError: apt-get or dpkg-deb is missing, or no archive offers the package.
        WeightsError: the package has no such video, or another one.
    """
    path = cache_dir() / "apt" / PACKAGE / Path(MEMBER).name
    if path.exists():
        return verify(path, SHA256)
    by_hand = f"or put vtest.avi of OpenCV's samples, sha256 {SHA256}, into {path.parent}"
    with tempfile.TemporaryDirectory(prefix="vtest-") as folder:
        try:
            command = ["apt-get", "download", PACKAGE]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            packages = list(Path(folder).glob("*.deb"))
            if done.returncode or not packages:
                said = (done.stderr.strip() or "no file").splitlines()[-1]
                raise UnavailableError(
                    f"{PACKAGE} cannot be fetched ({said}): run `apt-get update` and make its "
                    f"archive reachable, {by_hand}"
                )
            data = _member(packages[0])
        except FileNotFoundError as error:
            raise UnavailableError(
                f"{PACKAGE} comes through `{error.filename}`, which is not installed: use a "
                f"Debian or Ubuntu system, {by_hand}"
            ) from None
    write_atomic(path, data)
    try:
        return verify(path, SHA256)
    except WeightsError:
        path.unlink()
        raise


def _member(package: Path) -> bytes:
    """Reads the video from a .deb, compressed with gzip in newer releases; unpacks nothing else."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as unpacked:
        try:
            with tarfile.open(fileobj=unpacked.stdout, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if name.removesuffix(".gz") == MEMBER and member.size <= MAX_BYTES:
                        data = archive.extractfile(member).read()
                        return gzip.decompress(data) if name.endswith(".gz") else data
        except tarfile.TarError as error:
            raise WeightsError(f"{package.name}: expected a Debian package, got: {error}") from None
        finally:
            unpacked.kill()
    raise WeightsError(f"{package.name}: expected {MEMBER} in it, got none; get it by hand")


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("data/vtest"))
    parser.add_argument("--height", type=int, default=128, help="in pixels")
    parser.add_argument("--width", type=int, help="in pixels; default: twice the height")
    parser.add_argument("--stride", type=int, default=6, help="frames from clip to clip, of 6 each")
    parser.add_argument(
        "--held-out", choices=HELD_OUT, default="end", help="the tenth that is for validation"
    )
    args = parser.parse_args(argv)

    def work() -> str:
        source = {"package": PACKAGE, "member": MEMBER, "sha256": SHA256, "licence": "unclear"}
        options = {"height": args.height, "width": args.width or 2 * args.height}
        options |= {"stride": args.stride, "held_out": args.held_out}
        return describe(args.out, prepare(fetch(), args.out, **options, source=source))

    return run("opencv_vtest", work)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())

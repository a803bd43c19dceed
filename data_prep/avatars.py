"""Avatars with exact attributes, drawn from options of the style micah by DiceBear.

    gen prepare avatars --size 64 --out data/avatars

writes `train|val/<number>.png`, `labels.csv` with options as attributes, which
`gen.data.Attributes` reads, and `manifest.json`. The options of avatar i are a function of (seed,
i). Fetches 0.2 MB with `npm pack` into the cache, and draws with Node.js, which comes with npm. The
art is by Micah Lanier, CC BY 4.0. It can be interrupted at any time: the same command resumes, and
does nothing once the folder is complete. Exit codes: see recipe.py.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from recipe import found, run, write_manifest, write_png
from tqdm import tqdm

from gen.fetch import fetch_npm, read_archive
from gen.files import UnavailableError, WeightsError, write_atomic

PACKAGES = {  # npm package: version, sha256 of the tarball
    "@dicebear/core": [
        "9.4.3",
        "6ca7dae651c74ad547e548fbe7c41f49aaa377cf4617259277518389bf6b1a3d",
    ],
    "@dicebear/micah": [
        "9.4.3",
        "b948931f01e97147ce8cdcfc4dfdad5c029bcb1ad57420dc0b22bc0aeb1d3fa7",
    ],
}
MEMBERS = {
    "@dicebear/core": "core index schema types utils/color utils/escape utils/license utils/options"
    " utils/prng utils/svg",
    "@dicebear/micah": "index schema types components/base components/earrings components/ears"
    " components/eyebrows components/eyes components/facialHair components/glasses components/hair"
    " components/index components/mouth components/nose components/shirt hooks/onPostCreate"
    " hooks/onPreCreate utils/convertColor utils/getColors utils/getComponents"
    " utils/pickComponent",
}  # files of code, below package/lib, without .js
DRAW = """
import { readFileSync } from "fs";
import { createAvatar } from "@dicebear/core";
import * as micah from "@dicebear/micah";
for (const options of JSON.parse(readFileSync(0, "utf8")))
    console.log(JSON.stringify(createAvatar(micah, options).toString()));
"""
SKIN = {"light": "f9c9b6", "brown": "ac6651", "dark": "77311d"}
MOUTH = {"smile": "smile", "sad": "sad", "surprised": "surprised"}
HAIR = ("fonze", "mrT", "dougFunny", "mrClean", "dannyPhantom", "full", "turban", "pixie")
COLOURS = ("000000", "6bd9e9", "9287ff", "d2eff3", "e0ddff", "f4d150", "fc909f", "ffeba4", "ffffff")
GROUNDS = ("b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf", "ffffff")
COLUMNS = [f"skin:{name}" for name in SKIN] + [f"mouth:{name}" for name in MOUTH]
COLUMNS += ["glasses", "earrings", "beard"]
AT_ONCE = 250  # avatars that one run of Node.js draws
FIRST_VAL = 2**31  # number of the first avatar for validation


def options_of(seed: int, index: int) -> tuple[dict, list[int]]:
    """Options of an avatar for DiceBear, and its labels in the order of `COLUMNS`."""
    rng = np.random.default_rng([seed, index])

    def one(names: Sequence[str]) -> str:
        return names[rng.integers(len(names))]

    skin, mouth = one([*SKIN]), one([*MOUTH])
    has = dict(zip(("glasses", "earrings", "beard"), rng.integers(2, size=3).tolist(), strict=True))
    chosen = dict(
        baseColor=SKIN[skin], mouth=MOUTH[mouth], hair=one(HAIR), hairColor=one(COLOURS),
        shirt=one(("open", "crew", "collared")), shirtColor=one(COLOURS), ears="detached",
        eyes=one(("eyes", "round", "smiling")), eyebrows=one(("up", "down")),
        nose=one(("curve", "pointed")), glasses=one(("round", "square")),
        glassesColor=one(COLOURS[1:4]), earrings=one(("hoop", "stud")),
        earringColor=one(COLOURS[1:]), backgroundColor=one(GROUNDS),
        facialHair="beard", facialHairColor="c9c9c9",  # so that the mouth is seen
    )  # fmt: skip
    options = {"seed": str(index), **{name: [value] for name, value in chosen.items()}}
    options |= {"hairProbability": 100, "glassesProbability": 100 * has["glasses"]}
    options |= {"earringsProbability": 100 * has["earrings"]}
    options |= {"facialHairProbability": 100 * has["beard"]}
    labels = [int(name == skin) for name in SKIN] + [int(name == mouth) for name in MOUTH]
    return options, [*labels, *has.values()]


def unpack(folder: Path) -> None:
    """Writes the checked packages into `folder` as Node.js finds them."""
    for package, pin in PACKAGES.items():
        names = [f"package/lib/{name}.js" for name in MEMBERS[package].split()]
        files = read_archive(fetch_npm(package, *pin), ["package/package.json", *names])
        for name, data in files.items():
            path = folder / "node_modules" / package / name.removeprefix("package/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def drawings(folder: Path, options: list[dict]) -> Iterator[str]:
    """SVG of each avatar, drawn by Node.js in `folder`.

    Raises:
        UnavailableError: there is no Node.js.
        WeightsError: the packages did not draw what was asked for.
    """
    command = ["node", "--input-type=module", "-e", DRAW]
    how = dict(input=json.dumps(options), capture_output=True, text=True, cwd=folder)
    try:
        done = subprocess.run(command, **how)
    except FileNotFoundError:
        raise UnavailableError(
            "avatars are drawn by `node`, which is not installed: install Node.js 18 or later"
        ) from None
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != len(options):
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise WeightsError(
            f"expected {len(options)} avatars of Node.js 18 or later, got {len(lines)}: {said:.200}"
        )
    return map(json.loads, lines)


def render(svg: str, size: int) -> Image.Image:
    """Picture (size, size), RGB on white."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def prepare(
    out: str | Path, size: int = 64, train: int = 6000, val: int = 600, seed: int = 777
) -> dict:
    """Makes the data set in `out`, or completes it, and returns its manifest.

    Args:
        out: folder for the splits, `labels.csv` and `manifest.json`.
        size: side of the images in pixels, 32 to 512.
        train: number of training images.
        val: number of validation images.
        seed: seed of the options.

    Raises:
        UnavailableError: npm, its registry or Node.js is not available.
        WeightsError: a package has a wrong sha256, or does not draw.
        ValueError: no such size or numbers, or `out` holds something else.
        ImportError: resvg-py is missing.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    if not 32 <= size <= 512 or not 1 <= min(train, val) or max(train, val) > FIRST_VAL:
        got = f"{size}, {train} and {val}"
        raise ValueError(f"expected 32 to 512 pixels and at least 1 image a split, got {got}")
    recipe = dict(size=size, train=train, val=val, seed=seed, packages=PACKAGES)
    manifest = found(out, recipe, "a set of avatars")
    numbers = {f"train/{i:05}.png": i for i in range(train)}
    numbers |= {f"val/{i:05}.png": FIRST_VAL + i for i in range(val)}
    missing = [name for name in numbers if not (out / name).is_file()]
    if manifest.get("complete") and not missing and (out / "labels.csv").is_file():
        return manifest
    import resvg_py  # noqa: F401  before the work

    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(folder))
        for split in ("train", "val"):
            (out / split).mkdir(parents=True, exist_ok=True)
        manifest = dict(recipe=recipe, licence="CC BY 4.0, Micah Lanier", attributes=COLUMNS)
        write_manifest(out, manifest)
        for first in tqdm(range(0, len(missing), AT_ONCE), "avatars", unit=f"{AT_ONCE} images"):
            some = missing[first : first + AT_ONCE]
            options = [options_of(seed, numbers[name])[0] for name in some]
            for name, svg in zip(some, drawings(Path(folder), options), strict=True):
                write_png(out / name, render(svg, size))
    rows = [",".join(["file", *COLUMNS])]
    rows += [",".join([n, *map(str, options_of(seed, i)[1])]) for n, i in numbers.items()]
    write_atomic(out / "labels.csv", ("\n".join(rows) + "\n").encode())
    write_manifest(out, manifest | {"complete": True})
    return manifest | {"complete": True}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data/avatars"))
    parser.add_argument("--size", type=int, default=64, help="side of the images, px")
    parser.add_argument("--train", type=int, default=6000, help="training images")
    parser.add_argument("--val", type=int, default=600, help="validation images")
    parser.add_argument("--seed", type=int, default=777, help="seed of the options")
    args = parser.parse_args(argv)

    def work() -> str:
        prepare(args.out, args.size, args.train, args.val, args.seed)
        return f"{args.out}: {args.train} + {args.val} avatars of {args.size} px"

    return run("avatars", work)


if __name__ == "__main__":
    sys.exit(main())

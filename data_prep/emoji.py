"""Four emoji styles as image domains, paired emoji by emoji; or emoji groups as classes.

    gen prepare emoji --size 64 --out data/emoji

writes `train|val/<domain>/<codepoints>.png`, `extra/<domain>/` (flags and keycaps, which all
vendors draw alike) and `manifest.json`.

    gen prepare emoji --layout classes --holdout openmoji --out data/emoji_groups

writes `train|val/<group>/<vendor>_<codepoints>.png` with transparency, `test/` with the emoji that
the first layout uses for validation, and `test_openmoji/` with the drawings of these emoji by a
held-out vendor; `groups.csv` says which images show one emoji or its variants. With
`--ground clutter` every emoji lies on a street, heads or noise among other emoji of its split, see
clutter.py, and `masks/<split>/..` holds the exact masks. Fetches 7 MB with `npm pack` into the
cache. It can be interrupted at any time: the same command resumes, and does
nothing once the folder is complete. Exit codes: see recipe.py.
"""

import argparse
import hashlib
import io
import json
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from PIL import Image
from recipe import found, run, write_manifest, write_png
from tqdm import tqdm

from gen.fetch import fetch_npm, read_archive
from gen.files import write_atomic

HASH_SIZE = 64  # duplicates are found at one size, so that every --size has the same emoji
VAL_PERCENT = 10
SKIN_TONE = re.compile("1f3f[b-f]")
PACKAGES = {  # domain: npm package, version, sha256 of the tarball
    "noto": [
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ],
    "twemoji": [
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ],
    "openmoji": [
        "@iconify-json/openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ],
    "fluent": [
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ],
}
SAME_BASE = {  # code points that draw one emoji for another gender or number of people
    **dict.fromkeys("1f468 1f469 1f46a 1f46b 1f46c 1f46d 1f470 1f48f 1f491 1f935".split(), "1f9d1"),
    **dict.fromkeys("1f466 1f467".split(), "1f9d2"),  # boy, girl: child
    **dict.fromkeys("1f474 1f475".split(), "1f9d3"),  # old man, woman: older person
    **dict.fromkeys("1f478 1fac5".split(), "1f934"),  # princess, person with crown: prince
    **dict.fromkeys("1fac3 1fac4".split(), "1f930"),  # pregnant man, person: woman
    "1f936": "1f385",  # Mrs. Claus: Santa Claus
    "1f483": "1f57a",  # woman dancing: man dancing
}


GROUNDS = ("none", "clutter")
LEFT_OUT = {"Flags", "Component"}  # groups that are not used as classes


class Style:
    """One vendor's drawings, read from its tarball: code points -> name, group, SVG."""

    def __init__(self, path: Path):
        names = [f"package/{name}.json" for name in ("icons", "chars", "metadata", "info")]
        files = read_archive(path, names).values()
        icons, chars, metadata, self.info = (json.loads(file) for file in files)
        self.icons, self.aliases = icons["icons"], icons.get("aliases", {})
        self.default = {key: icons.get(key, 16) for key in ("width", "height")}
        self.names = {re.sub("-?fe0f", "", code): name for code, name in chars.items()}
        self.groups = {n: group for group, names in metadata["categories"].items() for n in names}

    def svg(self, code: str) -> str:
        """The drawing on the vendor's own canvas."""
        icon, flip = self.names[code], False
        while icon not in self.icons:
            alias = self.aliases[icon]
            icon, flip = alias["parent"], flip ^ alias.get("hFlip", False)
        icon = self.default | self.icons[icon]
        left, top, width, height = (icon.get(k, 0) for k in ("left", "top", "width", "height"))
        body = icon["body"]
        if flip:
            body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{body}</svg>'
        )


def base(code: str) -> str:
    """The code point that all skin tones, genders and joined variants of one emoji share."""
    first = code.split("-")[0]
    return SAME_BASE.get(first, first)


def percent(code: str) -> int:
    """0 to 99 by a hash of the base, so variants of one emoji are in the same split."""
    digest = hashlib.sha256(f"gen-emoji-{base(code)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100


def split(code: str, layout: str = "domains") -> str:
    """`train` or `val`; for classes also `test`, which is the `val` of domains."""
    if percent(code) < VAL_PERCENT:
        return "val" if layout == "domains" else "test"
    return "val" if layout == "classes" and percent(code) < 2 * VAL_PERCENT else "train"


def folder(group: str) -> str:
    """Class of a CLDR group: "Smileys & Emotion" -> "smileys_emotion"."""
    return re.sub("[^a-z0-9]+", "_", group.lower())


def render(svg: str, size: int, background: str | None = "#ffffff") -> Image.Image:
    """`(size, size)`, the whole canvas, antialiased: RGB, or RGBA without a background."""
    import resvg_py

    svg = svg.replace("<svg ", f'<svg width="{size}" height="{size}" ', 1)
    png = resvg_py.svg_to_bytes(svg_string=svg, background=background, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB" if background else "RGBA")


def prepare(
    out: str | Path,
    size: int = 64,
    groups: list[str] | None = None,
    layout: str = "domains",
    holdout: str | None = None,
    ground: str = "none",
    seed: int = 777,
) -> dict:
    """Makes the data set in `out`, or completes it, and returns its manifest.

    Args:
        out: folder for the splits and `manifest.json`, for classes also `groups.csv`.
        size: side of the images in pixels, 32 to 512.
        groups: CLDR groups to keep, None for all.
        layout: "domains": one folder per vendor; "classes": one folder per group.
        holdout: for classes, the vendor that is only in a test split of its own.
        ground: "none": transparency for classes, white for domains; "clutter": for classes, a
            street, heads or noise with other emoji of the same split, and masks.
        seed: seed of the clutter.

    Raises:
        UnavailableError: npm or its registry is not available.
        WeightsError: a package has a wrong sha256, or is unsafe to read.
        ValueError: no such size, group, hold-out or ground, or `out` holds something else.
        ImportError: resvg-py is missing.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    if not 32 <= size <= 512:
        raise ValueError(f"size: expected 32 to 512 pixels, got {size}")
    if holdout and (layout != "classes" or holdout not in PACKAGES):
        raise ValueError(
            f"holdout: expected one of {sorted(PACKAGES)} with --layout classes, got {holdout} "
            f"with --layout {layout}"
        )
    if ground not in GROUNDS or (ground == "clutter" and layout != "classes"):
        raise ValueError(
            f"ground: expected one of {GROUNDS}, clutter with --layout classes, got {ground} with "
            f"--layout {layout}"
        )
    recipe = {"size": size, "groups": sorted(groups) if groups else "all", "packages": PACKAGES}
    if layout == "classes":
        recipe |= {"layout": layout, "holdout": holdout}
    if ground == "clutter":
        recipe |= {"ground": ground, "seed": seed}
    manifest = found(out, recipe, "an emoji set")
    if manifest.get("complete"):
        images = (_paths(recipe, image) for image in manifest["images"])
        if all(_written(out, recipe, path) for paths in images for path in paths.values()):
            _write_groups(out, manifest)
            return manifest
    import resvg_py

    with tqdm(PACKAGES.items(), "emoji packages", unit="package") as packages:
        styles = {domain: Style(fetch_npm(*pin)) for domain, pin in packages}
    known = set(next(iter(styles.values())).groups.values())
    if layout == "classes":
        known -= LEFT_OUT
    if unknown := set(groups or []) - known:
        raise ValueError(f"groups: expected some of {sorted(known)}, got {sorted(unknown)}")
    manifest = {"recipe": recipe, "complete": False, "resvg_py": resvg_py.__version__}
    manifest["paired"] = layout == "domains"
    write_manifest(out, manifest)
    place = "on white" if layout == "domains" else "on other pictures" if ground != "none" else ""
    changes = f"rasterised, composited {place}" if place else "rasterised"
    credits = {domain: _credit(domain, style, changes) for domain, style in styles.items()}
    manifest["domains"] = credits
    manifest["images"], manifest["duplicates"] = _write_images(out, styles, recipe, groups)
    if ground == "clutter":
        _write_clutter(out, styles, recipe, manifest["images"])
    _write_groups(out, manifest)
    manifest["complete"] = True
    write_manifest(out, manifest)
    return manifest


def _paths(recipe: dict, image: dict) -> dict[str, str]:
    """{vendor: path of its drawing of `image`}."""
    where, code = image["split"], image["codepoints"]
    if "layout" not in recipe:
        return {domain: f"{where}/{domain}/{code}.png" for domain in PACKAGES}
    name, holdout = folder(image["group"]), recipe["holdout"]
    paths = {d: f"{where}/{name}/{d}_{code}.png" for d in PACKAGES if d != holdout}
    if holdout and where == "test":
        paths[holdout] = f"test_{holdout}/{name}/{holdout}_{code}.png"
    return paths


def _mask(path: str) -> str:
    """Path of the mask of the image at `path`."""
    return f"masks/{path}"


def _written(out: Path, recipe: dict, path: str) -> bool:
    """True if the image at `path` exists, and its mask where the recipe has masks."""
    return (out / path).exists() and ("ground" not in recipe or (out / _mask(path)).exists())


def _write_clutter(out: Path, styles: dict, recipe: dict, images: list[dict]) -> None:
    """Writes every missing image on its ground, and its mask.

    Scattered emoji are drawn by vendors of the same split and are no variants of the object.
    """
    from clutter import SCENES, compose, rng_of  # with torch, which --help need not wait for

    drawings = {}  # split -> [(path, base, function that draws)]
    for image in images:
        for vendor, path in _paths(recipe, image).items():
            draw = partial(_draw, styles[vendor], image["codepoints"])
            drawings.setdefault(path.split("/")[0], []).append((path, image["base"], draw))
    for rank, (where, rows) in enumerate(sorted(drawings.items())):
        for path, own, draw in tqdm(rows, f"{where} on clutter", unit="image", mininterval=1):
            if _written(out, recipe, path):
                continue
            others = [other for _, other_base, other in rows if other_base != own]
            rng = rng_of(recipe["seed"], path)
            picture, mask = compose(rng, recipe["size"], draw, others, rank * SCENES)
            write_png(out / _mask(path), mask)
            write_png(out / path, picture)


def _draw(style: Style, code: str, side: int) -> Image.Image:
    return render(style.svg(code), side, background=None)


def _write_groups(out: Path, manifest: dict) -> None:
    """Writes `groups.csv` of the classes if it is missing: images of one base are one group."""
    from gen.data.groups import NAME

    if "layout" in manifest["recipe"] and not (out / NAME).exists():
        rows = ["path,group"]
        for image in manifest["images"]:
            paths = _paths(manifest["recipe"], image).values()
            rows += [f"{path},{image['base']}" for path in paths]
        write_atomic(out / NAME, "".join(f"{row}\n" for row in rows).encode())


def _credit(domain: str, style: Style, changes: str) -> dict:
    package, version, digest = PACKAGES[domain]
    name, author, licence = (style.info[k] for k in ("name", "author", "license"))
    return {
        "package": package,
        "version": version,
        "sha256": digest,
        "licence": licence["spdx"],
        "licence_url": licence["url"],
        "attribution": f"{name} by {author['name']} ({author['url']}), {licence['title']}",
        "changes": changes,
    }


def _write_images(out: Path, styles: dict, recipe: dict, groups: list[str] | None):
    """Writes every missing image, but of clutter; returns the images and the duplicates."""
    size, layout = recipe["size"], recipe.get("layout", "domains")
    first = next(iter(styles.values()))
    codes = set.intersection(*(set(style.names) for style in styles.values()))
    group = {code: first.groups[first.names[code]] for code in codes}
    codes = [c for c in codes if not groups or group[c] in groups]
    alike = {c for c in codes if group[c] == "Flags" or c.endswith("20e3")}
    if layout == "classes":  # components are parts of emoji; skin tones are near copies
        whole = [c for c in codes if group[c] not in LEFT_OUT and not SKIN_TONE.search(c)]
        codes = [c for c in whole if c not in alike]
    codes.sort(key=lambda c: (c.count("-"), c))  # the plain emoji before its variants
    images, duplicates, seen = [], [], {domain: {} for domain in styles}
    with tqdm(codes, f"emoji {size} px", unit="emoji", mininterval=1) as bar:
        for code in bar:
            svgs = {domain: style.svg(code) for domain, style in styles.items()}
            small = {domain: render(svg, HASH_SIZE) for domain, svg in svgs.items()}
            hashes = {d: hashlib.sha256(image.tobytes()).digest() for d, image in small.items()}
            entry = {"codepoints": code, "name": first.names[code], "group": group[code]}
            if same := {d: seen[d][h] for d, h in hashes.items() if h in seen[d]}:
                duplicates.append(entry | {"duplicate_of": same})
                continue
            for domain, digest in hashes.items():
                seen[domain][digest] = code
            where = "extra" if code in alike else split(code, layout)
            images.append(entry | {"base": base(code), "split": where})
            for domain, name in _paths(recipe, images[-1]).items():
                if "ground" not in recipe and not (out / name).exists():
                    if layout == "classes":
                        image = render(svgs[domain], size, background=None)
                    else:
                        image = small[domain] if size == HASH_SIZE else render(svgs[domain], size)
                    write_png(out / name, image)
    return images, duplicates


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("data/emoji"))
    parser.add_argument("--size", type=int, default=64, help="side in pixels, 32 to 512")
    parser.add_argument("--groups", help='CLDR groups to keep: "Smileys & Emotion,Food & Drink"')
    parser.add_argument("--layout", choices=["domains", "classes"], default="domains")
    parser.add_argument("--holdout", choices=PACKAGES, help="vendor with a test split of its own")
    parser.add_argument(
        "--ground",
        choices=GROUNDS,
        default="none",
        help="clutter: other emoji, streets, heads, noise",
    )
    parser.add_argument("--seed", type=int, default=777, help="seed of the clutter")
    args = parser.parse_args(argv)
    groups = [g.strip() for g in args.groups.split(",")] if args.groups else None

    def work() -> str:
        options = (args.layout, args.holdout, args.ground, args.seed)
        manifest = prepare(args.out, args.size, groups, *options)
        paths = [p for i in manifest["images"] for p in _paths(manifest["recipe"], i).values()]
        count = Counter(path.split("/")[0] for path in paths)
        counts = ", ".join(f"{split} {count[split]}" for split in sorted(count))
        folders = len({path.split("/")[1] for path in paths})
        return f"{args.out}: {folders} {args.layout}, images: {counts}"

    return run("emoji", work)


if __name__ == "__main__":
    sys.exit(main())

"""Four emoji styles as four image domains, paired emoji by emoji.

    python data_prep/emoji.py --size 64 --out data/emoji

writes `train|val/<domain>/<codepoints>.png`, `extra/<domain>/` (flags and keycaps, which all
vendors draw alike) and `manifest.json`. Fetches 7 MB with `npm pack` into the cache. Interrupt it
at will: the same command continues, and does nothing once the folder is complete.

Exit codes: 0 done; 1 failed; 69 npm is missing or its registry cannot be reached; 130 interrupted.
"""

import argparse
import errno
import hashlib
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from gen.weights import UnavailableError, WeightsError, fetch_npm, read_archive, write_atomic

EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
HASH_SIZE = 64  # duplicates are found at one size, so that every --size holds the same emoji
VAL_PERCENT = 10
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
        """The drawing on its vendor's own canvas."""
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


def split(code: str) -> str:
    """`train` or `val`, by a hash of the base: variants of one emoji are never torn apart."""
    digest = hashlib.sha256(f"gen-emoji-{base(code)}".encode()).digest()
    return "val" if int.from_bytes(digest[:4], "big") % 100 < VAL_PERCENT else "train"


def render(svg: str, size: int) -> Image.Image:
    """RGB image `(size, size)`: the whole canvas, antialiased, on white."""
    import resvg_py

    svg = svg.replace("<svg ", f'<svg width="{size}" height="{size}" ', 1)
    png = resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def prepare(out: str | Path, size: int = 64, groups: list[str] | None = None) -> dict:
    """Make the data set in `out`, or complete it, and return its manifest.

    Args:
        out: folder for `train`, `val`, `extra` and `manifest.json`.
        size: side of the images in pixels, 32 to 512.
        groups: CLDR groups to keep, None for all.

    Raises:
        UnavailableError: npm or its registry is not there.
        WeightsError: a package has a wrong sha256, or is unsafe to read.
        ValueError: no such size or group, or `out` holds something else.
        ImportError: resvg-py is missing.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    if not 32 <= size <= 512:
        raise ValueError(f"size: expected 32 to 512 pixels, got {size}")
    recipe = {"size": size, "groups": sorted(groups) if groups else "all", "packages": PACKAGES}
    manifest = _found(out, recipe)
    if manifest.get("complete") and all(path.exists() for path in _paths(out, manifest)):
        return manifest
    import resvg_py

    with tqdm(PACKAGES.items(), "emoji packages", unit="package") as packages:
        styles = {domain: Style(fetch_npm(*pin)) for domain, pin in packages}
    known = set(next(iter(styles.values())).groups.values())
    if unknown := set(groups or []) - known:
        raise ValueError(f"groups: expected some of {sorted(known)}, got {sorted(unknown)}")
    manifest = {"recipe": recipe, "complete": False, "resvg_py": resvg_py.__version__}
    write_atomic(out / "manifest.json", json.dumps(manifest).encode())  # claims the folder
    manifest["domains"] = {domain: _credit(domain, style) for domain, style in styles.items()}
    manifest["images"], manifest["duplicates"] = _write_images(out, styles, size, groups)
    manifest["complete"] = True
    write_atomic(out / "manifest.json", json.dumps(manifest, indent=1).encode())
    return manifest


def _found(out: Path, recipe: dict) -> dict:
    """The manifest of `out`, {} for a new or empty folder; anything else is refused."""
    if not out.exists() or (out.is_dir() and all(p.name[0] == "." for p in out.iterdir())):
        return {}
    try:
        manifest = json.loads((out / "manifest.json").read_bytes())
        got = manifest["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        way_out = "choose another --out, or delete it"
        raise ValueError(f"{out}: expected a new folder or an emoji set; {way_out}") from None
    for key, expected in recipe.items():
        if got.get(key) != expected:
            raise ValueError(
                f"{out} holds another emoji set: expected {key} {expected}, got {got.get(key)}; "
                "choose another --out, or delete it"
            )
    return manifest


def _paths(out: Path, manifest: dict) -> Iterator[Path]:
    for image in manifest["images"]:
        for domain in manifest["domains"]:
            yield out / image["split"] / domain / f"{image['codepoints']}.png"


def _credit(domain: str, style: Style) -> dict:
    package, version, digest = PACKAGES[domain]
    name, author, licence = (style.info[k] for k in ("name", "author", "license"))
    return {
        "package": package,
        "version": version,
        "sha256": digest,
        "licence": licence["spdx"],
        "licence_url": licence["url"],
        "attribution": f"{name} by {author['name']} ({author['url']}), {licence['title']}",
        "changes": "rasterised, composited on white",
    }


def _write_images(out: Path, styles: dict, size: int, groups: list[str] | None):
    """Write every image that is not there yet; return the images and the duplicates."""
    first = next(iter(styles.values()))
    codes = set.intersection(*(set(style.names) for style in styles.values()))
    group = {code: first.groups[first.names[code]] for code in codes}
    codes = [c for c in codes if not groups or group[c] in groups]
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
            alike = group[code] == "Flags" or code.endswith("20e3")
            images.append(entry | {"base": base(code), "split": "extra" if alike else split(code)})
            for domain, svg in svgs.items():
                path = out / images[-1]["split"] / domain / f"{code}.png"
                if not path.exists():
                    image = small[domain] if size == HASH_SIZE else render(svg, size)
                    buffer = io.BytesIO()
                    image.save(buffer, "png")
                    write_atomic(path, buffer.getvalue(), fsync=False)
    return images, duplicates


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("data/emoji"))
    parser.add_argument("--size", type=int, default=64, help="side in pixels, 32 to 512")
    parser.add_argument("--groups", help='CLDR groups to keep: "Smileys & Emotion,Food & Drink"')
    args = parser.parse_args(argv)
    groups = [g.strip() for g in args.groups.split(",")] if args.groups else None
    try:
        manifest = prepare(args.out, args.size, groups)
    except UnavailableError as error:
        return _stop(str(error), EXIT_UNAVAILABLE)
    except ImportError as error:
        return _stop(f'{error}: pip install -e ".[prep]" brings resvg-py')
    except (WeightsError, ValueError) as error:
        return _stop(str(error))
    except OSError as error:
        way = "free some space, then " if error.errno == errno.ENOSPC else ""
        return _stop(f"{error}: {way}run the same command again, it continues")
    except KeyboardInterrupt:
        return _stop("interrupted: run the same command again, it continues", 130)
    count = Counter(image["split"] for image in manifest["images"])
    counts = ", ".join(f"{split} {count[split]}" for split in sorted(count))
    print(f"{args.out}: {len(manifest['domains'])} domains, images a domain: {counts}")
    return 0


def _stop(message: str, code: int = 1) -> int:
    print(f"emoji: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

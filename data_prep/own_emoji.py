"""Draws twelve new emoji: sources that no vendor drew and no model was trained on.

    gen prepare own_emoji --out data/own_emoji
    gen translate --checkpoint checkpoints/smooth_i2i_emoji64.safetensors \
        --input data/own_emoji --out runs/own_emoji --domain openmoji
"""

import argparse
import sys
from pathlib import Path

FACE = '<circle cx="32" cy="32" r="27" fill="#ffd34e"/>'
LEFT = '<circle cx="23" cy="27" r="3.6" fill="#4a3520"/>'
EYES = f'{LEFT}<circle cx="41" cy="27" r="3.6" fill="#4a3520"/>'
LINE = 'fill="none" stroke="#4a3520" stroke-width="3.5" stroke-linecap="round"'
DRAWINGS = {  # bodies of SVG, 64 x 64
    "smile": f'{FACE}{EYES}<path d="M20 38q12 13 24 0" {LINE}/>',
    "frown": f'{FACE}{EYES}<path d="M21 46q11-11 22 0" {LINE}/>',
    "wink": f'{FACE}{LEFT}<path d="M36 28h10M20 38q12 13 24 0" {LINE}/>',
    "cat": '<path d="M10 8l14 10h16L54 8v30a22 20 0 0 1-44 0z" fill="#9aa3ad"/>'
    '<circle cx="23" cy="33" r="3.6" fill="#2b2f36"/>'
    '<circle cx="41" cy="33" r="3.6" fill="#2b2f36"/>'
    '<path d="M28 41h8l-4 5z" fill="#f08fa0"/>',
    "heart": '<path d="M32 56C-10 30 14-2 32 18 50-2 74 30 32 56z" fill="#e23b4a"/>',
    "star": '<path d="M32 5l8 18 19 2-14 13 4 19-17-10-17 10 4-19L5 25l19-2z" fill="#f7b618"/>',
    "sun": '<path d="M32 2l6 12 13-5-5 13 13 6-13 6 5 13-13-5-6 12-6-12-13 5 5-13-13-6 13-6-5-13'
    ' 13 5z" fill="#ff9d2e"/><circle cx="32" cy="29" r="14" fill="#ffd34e"/>',
    "apple": '<path d="M32 20c20-12 32 8 20 28-7 11-12 10-20 7-8 3-13 4-20-7C0 28 12 8 32 20z"'
    ' fill="#d8352f"/><path d="M32 19c0-8 4-12 9-14" fill="none" stroke="#6b4426"'
    ' stroke-width="4"/>'
    '<path d="M34 14c4-9 13-9 18-8-2 8-10 11-18 8z" fill="#58a83c"/>',
    "tree": '<path d="M27 44h10v16H27z" fill="#7a5230"/><path d="M32 3l22 28H44l12 16H8l12-16H10z"'
    ' fill="#3f9a4a"/>',
    "house": '<path d="M12 30h40v29H12z" fill="#f2d9a8"/><path d="M32 5l28 27H4z" fill="#b8473a"/>'
    '<path d="M27 42h11v17H27z" fill="#7a5230"/>',
    "car": '<path d="M4 32h8l8-13h24l8 13h8v15H4z" fill="#3d7fd6"/>'
    '<path d="M23 23h8v9H17zM34 23h8l5 9H34z" fill="#d9edf9"/>'
    '<circle cx="18" cy="47" r="7" fill="#30343b"/>'
    '<circle cx="46" cy="47" r="7" fill="#30343b"/>',
    "fish": '<path d="M3 32c12-20 34-18 42-4l15-12v32L45 36c-8 14-30 16-42-4z" fill="#35aeb5"/>'
    '<circle cx="17" cy="29" r="3.4" fill="#16393c"/>',
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data/own_emoji"))
    parser.add_argument("--size", type=int, default=64, help="side of the images, px")
    args = parser.parse_args(argv)
    try:
        import resvg_py
    except ImportError:
        sys.exit("error: expected the package resvg-py, got none: pip install resvg-py")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, body in DRAWINGS.items():
        head = 'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"'
        svg = f'<svg {head} width="{args.size}" height="{args.size}">{body}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, background="white", skip_system_fonts=True)
        (args.out / f"{name}.png").write_bytes(bytes(png))
    print(f"{args.out}: {len(DRAWINGS)} emoji of {args.size} px")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Draws images from a generator, as one picture, or as one file a seed.

of seeds                 gen generate --checkpoint C --seeds 0-31 --psi 0.7
by truncation            gen generate --checkpoint C --seeds 0-5 --psi 0 0.3 0.5 0.7 1
two codes mixed          gen generate --checkpoint C --seeds 0-3 --mix 10-15 --first 4
a file a seed            gen generate --checkpoint C --seeds 0-31 --out images

Mixing: a row of the picture has the code of one of --seeds, with rows of --mix from --first on.
Images with transparency are on white in the picture; files of single images keep it.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import gen
from gen import tasks
from gen.commands import METHOD, best_device, number, plain_errors
from gen.files import keep_inputs


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen generate`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser(
        "gen generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="of a StyleGAN2")
    parser.add_argument("--seeds", nargs="+", default=["0-31"], help="as 3 or 0-7")
    parser.add_argument("--psi", type=number, nargs="+", default=[1.0], help="truncation")
    parser.add_argument("--mix", nargs="+", help="seeds of the columns")
    parser.add_argument("--first", type=int, help="first row of a code that is mixed; default 4")
    parser.add_argument("--class", dest="name", help="of a conditional generator")
    parser.add_argument("--cell-px", type=int, default=128, help="width of an image")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("generated.png"),
        help="picture; without a suffix a folder, for SEED.png of each seed",
    )
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    from gen import viz
    from gen.inference import common

    alone = not args.out.suffix
    files = [args.out / f"{seed}.png" for seed in common.seeds(args.seeds)] if alone else [args.out]
    keep_inputs([args.checkpoint], files)
    if alone and (args.mix or len(args.psi) > 1):
        raise ValueError(f"--out: expected a picture with --mix or several --psi, got {args.out}")
    viz.image_format(files[0])  # checked before the work
    cells, layout = draw(args)
    if not alone:
        print(viz.save_image(viz.grid(cells, cell_px=args.cell_px, **layout), args.out))
        return
    for image, file in zip(itertools.chain(*cells), files, strict=False):  # the last row is padded
        viz.save_image(image, file)
    print(f"{args.out}/ {len(files)} images")


def draw(args: argparse.Namespace) -> tuple[list[list], dict]:
    """Images, row by row, and how `viz.grid` lays them out."""
    from gen.inference import common, generation, translation

    if args.mix and len(args.psi) > 1:
        raise ValueError(f"--psi: expected one number with --mix, got {len(args.psi)}")
    if args.first is not None and not args.mix:
        raise ValueError("--first: expected it with --mix SEEDS, got it alone")
    rows, columns, texts = common.seeds(args.seeds), common.seeds(args.mix or []), {}
    method = gen.load(args.checkpoint, best_device(), args.method)
    tasks.expect(method, "generator", source=args.checkpoint)
    if args.name and not method.classes:
        raise ValueError("--class: expected a conditional generator, got one without classes")
    y = translation.domain_index(method, args.name) if args.name else None
    if args.mix:
        first = 4 if args.first is None else args.first
        cells = generation.mixed(method, rows, columns, first, args.psi[0], y or 0)
        texts = dict(lead=(1, 1))
    elif len(args.psi) > 1:
        cells = generation.truncated(method, rows, args.psi, y or 0)
        headers = [f"psi {psi:g}" for psi in args.psi]
        texts = dict(headers=headers, captions=[f"seed {seed}" for seed in rows])
    else:
        cells = generation.generated(method, rows, psi=args.psi[0], y=y)
    return cells, texts

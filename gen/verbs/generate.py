"""Draws images from a generator, as one picture.

of seeds                 gen generate --checkpoint C --seeds 0-31 --psi 0.7
by truncation            gen generate --checkpoint C --seeds 0-5 --psi 0 0.3 0.5 0.7 1
two codes mixed          gen generate --checkpoint C --seeds 0-3 --mix 10-15 --first 4

Mixing: a row of the picture has the code of one of --seeds, with rows of --mix from --first on.
"""

import argparse
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
    parser.add_argument("--out", type=Path, default=Path("generated.png"))
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    keep_inputs([args.checkpoint], [args.out])
    from gen import viz

    viz.image_format(args.out)  # checked before the work
    print(viz.save_image(draw(args), args.out))


def draw(args: argparse.Namespace):
    """The picture, a PIL image."""
    from gen import viz
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
    return viz.grid(cells, cell_px=args.cell_px, **texts)

"""Translates an image, or a folder of images, into a domain.

Writes PNG files of the size that the model makes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import gen
from gen import tasks
from gen.commands import METHOD, best_device, number, plain_errors
from gen.files import keep_inputs


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen translate`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser("gen translate", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="a .safetensors or .ckpt file")
    parser.add_argument("--input", type=Path, required=True, help="an image, or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="folder; keeps sub-folders")
    parser.add_argument("--domain", required=True, help="into which domain")
    guide = parser.add_mutually_exclusive_group()
    guide.add_argument("--seed", type=int, default=0, help="of the style, drawn in the domain")
    guide.add_argument("--ref", type=Path, help="an image of the domain whose style to take")
    parser.add_argument("--psi", type=number, default=1.0, help="< 1: nearer to the mean style")
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    sys.exit(translate(args))


def translate(args: argparse.Namespace) -> int:
    """Returns 1 if an image could not be used (each is named), otherwise 0."""
    import torch

    from gen import viz
    from gen.data.images import ImageError
    from gen.inference import common, translation

    files = outputs(args.input, args.out)
    keep_inputs((args.input, args.ref, args.checkpoint, *files), files.values())
    method = gen.load(args.checkpoint, best_device(), args.method)
    tasks.expect(method, "translator", source=args.checkpoint)
    y = translation.domain_index(method, args.domain)
    seed_or_ref = common.read(method, args.ref) if args.ref else args.seed
    style = translation.style(method, y, seed_or_ref, args.psi)  # (1, D)
    refused = 0
    for source, target in files.items():
        try:
            x = common.read(method, source)  # (1, 3, S, S)
        except ImageError as error:
            print(error, file=sys.stderr)
            refused += 1
            continue
        fake = method.translate(x, torch.tensor([y], device=x.device), style=style)
        viz.save_image(fake[0], target)
    print(f"{len(files) - refused} of {len(files)} images written to {args.out}")
    return int(refused > 0)


def outputs(source: Path, out: Path) -> dict[Path, Path]:
    """{image: PNG to write}; ValueError without an image, or if two would share a file."""
    from gen.data.images import SUFFIXES
    from gen.data.layout import images_below

    if source.is_dir():
        below = images_below(source)
        files = {p: out / p.relative_to(source).with_suffix(".png") for p in below}
    else:
        files = {source: out / f"{source.stem}.png"}
    if not files:
        raise ValueError(f"{source}: expected images ({', '.join(SUFFIXES)}), got none")
    if len(set(files.values())) < len(files):
        taken = [p for p in files if list(files.values()).count(files[p]) > 1]
        raise ValueError(
            f"{source}: expected different names, got {taken[0].name} and {taken[1].name}, which "
            "would both be written to one .png; rename one"
        )
    return files

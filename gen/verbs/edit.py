"""Edits images of a generator, or photos: a picture and GIFs.

images of seeds    gen edit --checkpoint C --classifier J --seeds 0-5 --set cat --set no-spots
photos             gen edit --checkpoint C --classifier J a.png b.png --set cat --noises 3

Each request is made several times. Attributes that it does not name stay, unless they exclude a
named one. A GIF shows the image, its edits in the order of --set, and the way back. Photos are
first projected into W+.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gen import tasks
from gen.commands import METHOD, best_device, load_any, number, plain_errors
from gen.files import keep_inputs


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen edit`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser(
        "gen edit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="*", help="photos; none: images of --seeds")
    parser.add_argument("--checkpoint", required=True, help="of an editor, e.g. StyleFunction")
    parser.add_argument("--classifier", required=True, help="of an AttributeClassifier")
    parser.add_argument("--seeds", nargs="+", default=["0-5"], help="as 3 or 0-7")
    parser.add_argument("--set", action="append", required=True, help="a request: cat,no-spots")
    parser.add_argument("--noises", type=int, default=2, help="edits for each request")
    parser.add_argument("--psi", type=number, help="truncation of --seeds; default: as in training")
    parser.add_argument("--steps", type=int, default=500, help="of projecting a photo")
    parser.add_argument("--frames", type=int, default=12, help="of a GIF for each edit; 0: no GIF")
    parser.add_argument("--cell-px", type=int, default=128, help="width of an image")
    parser.add_argument("--out", type=Path, default=Path("edits"), help="folder")
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    edit(args)


def edit(args: argparse.Namespace) -> None:
    """Edits the images and writes the picture and the GIFs."""
    import torch

    from gen import viz
    from gen.inference import common, editing, generation

    seeds = common.seeds(args.seeds)
    names = [image.stem for image in args.images] or seeds
    gifs = [args.out / f"{k:02d}-{name}.gif" for k, name in enumerate(names)]
    reads = (*args.images, args.checkpoint, args.classifier)
    keep_inputs(reads, [args.out / "edits.png", *gifs])
    if not 1 <= args.noises <= 100 or args.frames < 0 or args.frames == 1:
        got = f"{args.noises} and {args.frames}"
        raise ValueError(f"expected --noises in 1 .. 100 and --frames 0 or >= 2, got {got}")
    device = best_device()
    method = load_any(args.checkpoint, device, args.method)
    judge = load_any(args.classifier, device, args.method)
    tasks.expect(method, "editor", source=args.checkpoint)
    tasks.expect(judge, "classifier", source=args.classifier)
    requests = [editing.parse(text, method.attribute_names) for text in args.set]
    photos = [common.read(method, image) for image in args.images]  # each (1, 3, S, S)
    seen = editing.known(method, judge)  # first, since it refuses a classifier that does not fit
    shown, texts = [], []
    if photos:
        x = torch.cat(photos)
        ws = method.encode(x, args.steps)  # (N, L, D)
        shown, texts = [x], [("photo", 1)]
    else:
        ws = method.map_latents(generation.latents(method, seeds), psi=args.psi)  # (N, L, D)
    y = editing.labels(method, judge, ws)
    d = torch.stack([torch.stack([editing.wanted(of, r, seen) for of in y]) for r in requests])
    repeats = args.noises if method.noise_dim else 1
    codes = editing.edits(method, ws, d, range(repeats))  # (R, S, N, L, D)
    shown += [method.synthesize(one) for one in (ws, *codes.flatten(0, 1))]
    texts += [("projected" if args.images else "image", 1), *((s, repeats) for s in args.set)]
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [[image.clamp(-1, 1).cpu() for image in row] for row in zip(*shown, strict=True)]
    lead = (0, 2 if args.images else 1)
    picture = viz.grid(rows, headers=texts, lead=lead, cell_px=args.cell_px)
    print(viz.save_image(picture, args.out / "edits.png"))
    if args.frames:
        legs = editing.walk(method, [ws, *codes[:, 0]], args.frames)
        for file, own in zip(gifs, common.join(legs).cpu(), strict=True):
            viz.save_gif(viz.palindrome([viz.enlarge(frame) for frame in own]), file)
            print(file)

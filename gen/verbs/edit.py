"""Edits images of a generator, or photos: a picture, single images, GIFs and MP4s.

images of seeds    gen edit --checkpoint C --classifier J --seeds 0-5 --set cat --set no-spots
photos             gen edit --checkpoint C --classifier J a.png b.png --set cat --noises 3
photos, at once    gen edit --checkpoint C --classifier J folder --encoder E --set cat
codes              gen edit --checkpoint C --classifier J --codes edits/codes.safetensors --set cat

Each request is made several times. Attributes that it does not name stay, unless they exclude a
named one. A GIF, and an MP4, show the image, its edits in the order of --set, and the way back.
Photos are first projected into W+, or encoded by --encoder. `codes.safetensors` keeps the codes of
what is edited, from the moment that they are known.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gen import tasks
from gen.commands import METHOD, best_device, load_any, number, plain_errors
from gen.files import keep_inputs

AT_ONCE = 8  # images that go through a network together, however many there are


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen edit`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser(
        "gen edit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", type=Path, nargs="*", help="photos, or folders of them; none: images of --seeds"
    )
    parser.add_argument("--checkpoint", required=True, help="of an editor, e.g. StyleFunction")
    parser.add_argument("--classifier", required=True, help="of an AttributeClassifier")
    parser.add_argument("--encoder", help="of an InversionEncoder: photos without a projection")
    parser.add_argument("--refine", type=int, default=0, help="projector steps after --encoder")
    parser.add_argument("--codes", type=Path, help="instead of photos: a file of codes (N, L, D)")
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
    """Edits the images and writes the codes, the single images, the clips and the picture."""
    import torch
    from PIL import Image

    from gen import viz
    from gen.inference import common, editing

    photos, names = find(args)
    stems = [args.out / f"{k:02d}-{name}" for k, name in enumerate(names)]
    singles = editing.single_names(args.set, max(1, args.noises))
    clips = [stem.with_name(f"{stem.name}.{kind}") for stem in stems for kind in ("gif", "mp4")]
    images = [stem.with_name(f"{stem.name}_{one}.png") for stem in stems for one in singles]
    sheet, codes_file = args.out / "edits.png", args.out / "codes.safetensors"
    if args.codes and codes_file.exists() and codes_file.samefile(args.codes):
        codes_file = None  # it has them already
    reads = (*args.images, args.checkpoint, args.classifier, args.encoder, args.codes)
    keep_inputs(reads, [sheet, codes_file, *clips, *images])
    check(args)
    device = best_device()
    method = load_any(args.checkpoint, device, args.method)
    judge = load_any(args.classifier, device, args.method)
    tasks.expect(method, "editor", source=args.checkpoint)
    tasks.expect(judge, "classifier", source=args.classifier)
    encoder = method
    if args.encoder:
        encoder = load_any(args.encoder, device, args.method)
        tasks.expect(encoder, "encoder", source=args.encoder)
        editing.check_encoder(encoder, method, f"--encoder {args.encoder}")
    requests = [editing.parse(text, method.attribute_names) for text in args.set]
    repeats, lead = args.noises if method.noise_dim else 1, 2 if photos else 1
    columns = lead + len(requests) * repeats
    most = Image.MAX_IMAGE_PIXELS // (columns * args.cell_px**2)  # rows of the picture
    if not most:
        raise ValueError(f"--cell-px: expected less for {columns} columns, got {args.cell_px}")
    for photo in photos:
        common.read(method, photo)  # one that cannot be used is told before the work
    seen = editing.known(method, judge)  # first, since it refuses a classifier that does not fit
    ws = find_codes(args, photos, method, encoder, codes_file)  # (N, L, D)
    y = editing.labels(method, judge, ws)
    d = torch.stack([torch.stack([editing.wanted(of, r, seen) for of in y]) for r in requests])
    args.out.mkdir(parents=True, exist_ok=True)
    cells = []
    for first in range(0, len(ws), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        codes = editing.edits(method, ws[some], d[:, some], range(repeats))  # (R, S, n, L, D)
        shown = [read(method, photos[some])] if photos else []
        shown += [method.synthesize(one) for one in (ws[some], *codes.flatten(0, 1))]
        for k, (stem, *row) in enumerate(zip(stems[some], *shown, strict=True)):
            row = [image.clamp(-1, 1).cpu() for image in row]
            for one, image in zip(editing.single_names(args.set, repeats), row[lead:], strict=True):
                viz.save_image(image, stem.with_name(f"{stem.name}_{one}.png"))
            if args.frames:
                write_clip(method, [ws[some][[k]], *codes[:, 0, [k]]], args.frames, stem)
            if len(cells) < most:
                px, how = args.cell_px, Image.Resampling.LANCZOS
                cells.append([viz.enlarge(image, px).resize((px, px), how) for image in row])
    texts = [("photo", 1), ("in codes", 1)] if photos else [("image", 1)]
    texts += [(text, repeats) for text in args.set]
    picture = viz.grid(cells, headers=texts, lead=(0, lead), cell_px=args.cell_px)
    left = f", the first {most} of {len(ws)}" if len(ws) > most else ""
    print(f"{viz.save_image(picture, sheet)}{left}")


def read(method, photos: Sequence[Path]):
    """Photos at the generator's size, (N, 3, S, S)."""
    import torch

    from gen.inference import common

    return torch.cat([common.read(method, photo) for photo in photos])


def find_codes(args: argparse.Namespace, photos: Sequence[Path], method, encoder, out: Path | None):
    """Codes (N, L, D) to edit, which are written to `out` as they come."""
    import torch

    from gen.inference import editing

    if not photos:
        parts = [editing.source_codes(method, args.codes, args.seeds, args.psi)]
    else:
        steps = args.refine if args.encoder else args.steps
        blocks = (photos[k : k + AT_ONCE] for k in range(0, len(photos), AT_ONCE))
        parts = (encoder.encode(read(method, some), steps) for some in blocks)
    found = []
    for part in parts:
        found.append(part)
        if out:
            editing.write_codes(out, torch.cat(found))
    return torch.cat(found)


def write_clip(method, keys: Sequence, frames: int, stem: Path) -> None:
    """Writes a GIF and an MP4 from one code (1, L, D) to the next, and back."""
    from gen import viz
    from gen.inference import common, editing

    own = common.join(editing.walk(method, keys, frames)).cpu()[0]  # (T, 3, H, H)
    loop = viz.palindrome([viz.enlarge(frame) for frame in own])
    viz.save_gif(loop, gif := stem.with_name(f"{stem.name}.gif"))
    print(gif, f".mp4 ({viz.save_mp4(loop, stem.with_name(f'{stem.name}.mp4'))})")


def find(args: argparse.Namespace) -> tuple[list[Path], list]:
    """Photos, those below folders included, and the name of each edited image: stem or seed."""
    from gen.data.layout import images_below
    from gen.inference import common, editing

    if args.images and args.codes:
        raise ValueError("--codes: expected it without photos, got both")
    seeds, photos = common.seeds(args.seeds), []
    for place in args.images:
        below = images_below(place) if place.is_dir() else [place]
        if not below:
            raise ValueError(f"{place}: expected images in the folder, got none")
        photos += below
    if args.codes:
        return [], [f"code{k}" for k in range(editing.count_codes(args.codes))]
    return photos, [photo.stem for photo in photos] or seeds


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for numbers that make no edit, before any work."""
    if not 1 <= args.noises <= 100 or args.frames < 0 or args.frames == 1:
        got = f"{args.noises} and {args.frames}"
        raise ValueError(f"expected --noises in 1 .. 100 and --frames 0 or >= 2, got {got}")
    if args.refine < 0 or (args.refine and not args.encoder):
        got = f"{args.refine}{'' if args.encoder else ' without one'}"
        raise ValueError(f"--refine: expected 0 or more steps after --encoder, got {got}")
    if args.cell_px < 1:
        raise ValueError(f"--cell-px: expected at least 1 px, got {args.cell_px}")
    if args.encoder and not args.images:
        raise ValueError("--encoder: expected photos, got none; name them, or leave it out")

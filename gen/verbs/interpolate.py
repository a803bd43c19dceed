"""Walks images between styles: a strip, a GIF, an MP4, and the smoothness of each leg.

between domains    gen interpolate --checkpoint C a.png --domains cat dog
within a domain    gen interpolate --checkpoint C a.png --domains cat --seeds 3 8
over a third       gen interpolate --checkpoint C a.png --domains cat dog --via bear
between images     gen interpolate --checkpoint C a.png --refs cat/1.png dog/7.png

The domain of a reference is the name of its folder, or is given by --domains in the same order.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import gen
from gen import tasks
from gen.commands import METHOD, best_device, plain_errors
from gen.files import WeightsError, keep_inputs


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen interpolate`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser(
        "gen interpolate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="+", help="what to translate")
    parser.add_argument("--checkpoint", required=True, help="a .safetensors or .ckpt file")
    parser.add_argument("--domains", nargs="+", default=[], help="of the styles on the way")
    guide = parser.add_mutually_exclusive_group()
    guide.add_argument("--seeds", type=int, nargs="+", default=[0], help="of these styles")
    guide.add_argument("--refs", type=Path, nargs="+", default=[], help="images, for their styles")
    parser.add_argument(
        "--via", help="a domain (with the first seed) or an image, second on the way"
    )
    parser.add_argument("--frames", type=int, default=20, help="of each leg, both ends included")
    parser.add_argument("--out", type=Path, default=Path("interpolation"), help="folder")
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    interpolate(args)


def interpolate(args: argparse.Namespace) -> None:
    """Writes the picture and the videos of each image, and prints the smoothness of its legs."""
    from gen import viz
    from gen.inference import common, translation
    from gen.metrics.smoothness import InterpolationSmoothness

    names = [image.stem for image in args.images]
    if len(names) > 1:
        names = [f"{k:02d}-{name}" for k, name in enumerate(names)]
    bases = [args.out / name for name in names]
    writes = [f"{base}.{kind}" for base in bases for kind in ("png", "gif", "mp4")]
    keep_inputs((*args.images, *args.refs, args.via, args.checkpoint), writes)
    method = gen.load(args.checkpoint, best_device(), args.method)
    tasks.expect(method, "translator", source=args.checkpoint)
    names, keys = translation.route(method, args.domains, args.refs or args.seeds, args.via)
    for image in args.images:
        common.read(method, image)  # one that cannot be used is told before the work
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        metric = InterpolationSmoothness(frames=args.frames).to(common.device(method))
    except WeightsError as error:
        print(f"smoothness not measured: {error}", file=sys.stderr)
        metric = None
    for image, base in zip(args.images, bases, strict=True):  # one by one, for memory
        x = common.read(method, image)
        legs = translation.walk(method, x, keys, args.frames)  # each (1, T, 3, S, S)
        own = common.join(legs)[0].cpu()  # (T', 3, S, S)
        shown = 1 + len(legs) * 8 if args.frames > 9 else None
        viz.save_image(viz.strip(own, (names[0], names[-1]), shown), f"{base}.png")
        moving = viz.palindrome([viz.enlarge(frame) for frame in own])
        viz.save_gif(moving, f"{base}.gif")
        codec = viz.save_mp4(moving, f"{base}.mp4")
        print(f"{base}.png .gif .mp4 ({codec})")
        for leg, a, b in zip(legs, names[:-1], names[1:], strict=True) if metric else ():
            metric.reset()
            metric.update(leg)
            row = {"image": str(image), "from": a, "to": b}
            values = {f"{n}_strict": round(v.item(), 4) for n, v in metric.sequences().items()}
            print(json.dumps(row | values))

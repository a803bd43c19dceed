"""Draws a grid of translations, and strips between domains, beside a checkpoint."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import gen
from gen import shipped, tasks
from gen.commands import METHOD, plain_errors
from gen.files import keep_inputs

EMOJI = Path(__file__).resolve().parents[2] / "data/emoji"


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen pictures`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser("gen pictures", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    where = "a folder, a zip or `heads`; default: data/emoji"
    parser.add_argument("--data", default=str(EMOJI), help=where)
    parser.add_argument("--sources", type=int, default=8, help="rows of the grid")
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    draw(args)


def draw(args: argparse.Namespace) -> None:
    """Draws both pictures beside the checkpoint."""
    from gen import viz
    from gen.inference import common, translation

    stem = shipped.stem(args.checkpoint)
    writes = [f"{stem}_grid.png", f"{stem}_strips.png"]
    keep_inputs([args.data], writes, "--checkpoint")
    if args.sources < 1:
        raise ValueError(f"--sources: expected at least 1, got {args.sources}")
    method = gen.load(args.checkpoint, "cpu", args.method)
    tasks.expect(method, "translator", source=str(args.checkpoint))
    S, images = len(method.domains), gen.data.open(args.data, img_size=method.img_size).val

    x, _ = common.batch(method, images, common.pick(images, -(-args.sources // S)))
    rows, headers = translation.latent_grid(method, x, seeds=(0, 1))
    viz.save_image(viz.grid(rows, headers=headers, lead=(0, 1), cell_px=96), writes[0])

    x, y = common.batch(method, images, common.pick(images, 1, shift=0.25))
    names, strips = [], []
    for k in range(S):
        ends = [translation.style(method, domain, 0) for domain in (k, (k + 1) % S)]
        (frames,) = translation.walk(method, x[k : k + 1], ends, frames=9)  # (1, T, 3, H, W)
        strips.append([x[k], *frames[0]])
        names.append(f"{method.domains[k]} to {method.domains[(k + 1) % S]}")
    viz.save_image(viz.grid(strips, captions=names, lead=(0, 1), cell_px=96), writes[1])

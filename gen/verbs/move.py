"""Moves objects of an image and shows how the others react: a video, and arrows.

an image with masks    gen move --frame F.png --masks M.png --drag 13001:8,0 --pin 11001
a drawn scene          gen move --scene 3 --drag 40,30:8,-2 --camera -3,0,1
an earlier request     gen move --scene 3 --request before/request.json --out again

--list lists the objects; --suggest predicts the motion without the video. Masks are one PNG of 16
bits, trainId * 1000 + number for things, e.g. 13001 for a car, and trainId for other pixels, as in
data_prep/video.py. Positions and paths are px of the image as given, which is cropped to the
model's proportions and resized; a note tells what is lost. --out also gets request.json, and
tracks.npy (M, T, 2) and visible.npy (M, T), the centres of all objects in the first clip.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gen
from gen import tasks
from gen.commands import METHOD, best_device, number, plain_errors
from gen.files import keep_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from gen.inference import dragging, scenes

SHIPPED = "click_to_move_movers"


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen move`; `words` default to those of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("gen move", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--checkpoint", default=SHIPPED, help=f"default: {SHIPPED}")
    add("--frame", type=Path, help="an image")
    add("--masks", type=Path, help="its masks")
    add("--scene", type=int, help="instead of them: the number of a scene of Movers")
    add("--drag", action="append", default=[], help="ID:DX,DY, or X,Y:DX,DY for what is at X,Y")
    add(
        "--pin",
        action="append",
        default=[],
        help="ID or X,Y: it stays, with --camera on the ground",
    )
    add("--scale", action="append", default=[], help="ID:S or X,Y:S: its size in the last frame")
    add("--camera", help="DX,DY,ZOOM: where the ground goes; default: the model invents it")
    add("--seed", type=int, help="of all that is not asked for; default 0, or the request's")
    add("--tracks", type=Path, help="points that move their objects, .npy (K, T, 2) px")
    add("--visible", type=Path, help="where these points are seen, .npy (K, T)")
    add("--request", type=Path, help="instead of these: JSON, see gen/inference/dragging.py")
    add("--speed", type=number, default=1.0, help="all goes so many times as far")
    add("--samples", type=int, default=1, help="so many seeds, side by side")
    add("--suggest", action="store_true", help="only arrows.png and the table: fast")
    add("--list", action="store_true", help="only say which objects there are")
    add("--out", type=Path, default=Path("click_to_move"), help="folder")
    given = sys.argv[1:] if words is None else words
    # argparse takes -3,0,1 for an option, unless a blank precedes it
    words = [f" {word}" if re.match(r"-[\d.]", word) else word for word in given]
    parser.add_argument("--method", **METHOD)
    move(parser.parse_args(words))


def move(args: argparse.Namespace) -> None:
    """Predicts, draws and writes what the options ask for."""
    files = args.frame, args.masks
    given = [value is not None for value in (args.scene, *files)]
    if given not in ([True, False, False], [False, True, True]) or not 0 < args.samples <= 100:
        raise ValueError("expected --frame and --masks, or --scene; and --samples of 1 to 100")
    import numpy as np
    import torch

    from gen import viz
    from gen.inference import dragging, scenes
    from gen.viz import motion as motion_viz

    if not args.list:
        pictures = [f"{n}.png" for n in ("arrows", "flow", "visible", "frames")]
        arrays = ("request.json", "tracks.npy", "visible.npy", "video.gif", "video.mp4")
        reads = (*files, args.request, args.tracks, args.visible, args.checkpoint)
        keep_inputs(reads, [args.out / n for n in (*pictures, *arrays)])
    device = best_device()
    method = gen.load(args.checkpoint, device, args.method)
    tasks.expect(method, "animator", source=args.checkpoint)
    steps, *size = method.shape
    if given[1]:
        still = scenes.read(*files, size, method.hparams.fit)
    else:
        still = scenes.drawn(args.scene, size, steps + 1)
    if still.note:
        print(f"note: {args.frame}: {still.note}")
    if args.list:
        if not scenes.objects(still):
            print(scenes.NOTHING)
        for id_, name, x, y in scenes.objects(still):
            print(f"{id_}  {name:10}  at {x},{y}")
        return
    request = dragging.faster(wanted(args, still), args.speed)
    image = [part.to(device) for part in (still.frame, still.semantic, still.instance)]
    seeds = range(request.seed, request.seed + args.samples)
    asked = [dragging.resized(request._replace(seed=seed), *still.scale) for seed in seeds]
    try:
        clips = [] if args.suggest else [dragging.animate(method, *image, one) for one in asked]
        thetas = [clip.theta for clip in clips] or [
            dragging.predict(method, *image, a) for a in asked
        ]
    except ValueError as error:
        raise ValueError(
            f"{error} (px of the model; {still.note})" if still.note else error
        ) from error
    scene, arrows = dragging.scene(*image), []
    by, ids = scenes.moved_by(request, scene), scene.ids[scene.present].tolist()
    way = "" if request.camera is None else "camera {:g}, {:g}, zoom {:g}, ".format(*request.camera)
    for seed, theta in zip(seeds, thetas, strict=True):
        boxes = dragging.positions(scene, theta)[:, : len(ids)]  # (T + 1, M, 4) px
        print(f"seed {seed}\n{scenes.table(still, ids, boxes, by)}")
        where = still.frame, scene.instance[0], boxes
        arrows.append(motion_viz.arrows(*where, by, ids, f"{way}seed {seed}"))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "request.json").write_text(dragging.dump(request) + "\n")
    centres, seen = scenes.from_motion(still, scene, thetas[0])
    np.save(args.out / "tracks.npy", centres)
    np.save(args.out / "visible.npy", seen)
    viz.save_image(np.concatenate([np.asarray(a) for a in arrows]), args.out / "arrows.png")
    if clips:
        video = torch.stack([torch.cat([still.frame[None], c.video[0].cpu()]) for c in clips])
        texts = [f"seed {seed}" for seed in seeds if len(seeds) > 1]
        codec = save(args.out, video, clips, arrows, texts)
        print(f"{args.out / 'video.gif'} .mp4 ({codec})")
    else:
        print(args.out / "arrows.png")


def save(out: Path, video: Tensor, clips: list, arrows: list, texts: list[str]) -> str:
    """Saves pictures and videos of clips (S, T + 1, 3, H, W), with the texts as names for S > 1.

    The GIF begins with one second of the arrows. Returns the codec of the MP4.
    """
    import torch

    from gen import viz
    from gen.viz import motion as motion_viz

    flow, visible = torch.cat([c.flow for c in clips]), torch.cat([c.visible for c in clips])
    viz.save_image(motion_viz.flow_sheet(flow, texts), out / "flow.png")
    viz.save_image(
        motion_viz.hidden_sheet(video[:, 1:], visible.sigmoid(), texts), out / "visible.png"
    )
    viz.save_image(motion_viz.frames_sheet(video, texts), out / "frames.png")
    shown = [viz.enlarge(frame, motion_viz.ARROWS_PX) for frame in video[0]]
    asked = [ways.crop((0, 0, *shown[0].size)) for ways in arrows]  # without the legend
    if texts:
        shown = [viz.grid([column], headers=texts) for column in video.unbind(1)]
        small = viz.enlarge(video[0, 0]).size
        asked = [viz.grid([[ways.resize(small) for ways in asked]], headers=texts)]
    loop, fps = motion_viz.looped(shown), 8
    viz.save_gif(asked[:1] * fps + loop, out / "video.gif", fps)
    return viz.save_mp4(loop, out / "video.mp4", fps)


def wanted(args: argparse.Namespace, still: scenes.Still) -> dragging.Request:
    """The request that the options make, or that of the file --request."""
    from gen.inference import dragging, scenes, tracks

    words = args.drag, args.pin, args.scale, args.camera
    if args.request and (any(words) or args.tracks):
        raise ValueError("expected --request, or --drag, --pin, --scale and --camera, got both")
    if args.visible and not args.tracks:
        raise ValueError("--visible: expected --tracks as well")
    if args.request:
        request = dragging.read(args.request)
        return request if args.seed is None else request._replace(seed=args.seed)
    if not any(words) and not args.tracks:
        raise ValueError(f"expected a --drag or --camera; objects: {scenes.listed(still)}")
    request = scenes.parse_request(still, *words, args.seed or 0)
    if args.tracks:
        points = tracks.load(args.tracks, args.visible)
        request = request._replace(tracks=scenes.to_tracks(still, points))
    return request

"""Moves objects of an image and shows how the others react: a video, and arrows.

an image with masks    gen move --frame F.png --masks M.png --drag 13001:8,0 --pin 11001
a drawn scene          gen move --scene 3 --drag 40,30:8,-2 --camera -3,0,1
without an object      gen move --scene 3 --remove 40,30
an earlier request     gen move --scene 3 --request before/request.json --out again

--list lists the objects; --suggest predicts the motion without the video. Masks are one PNG of 16
bits, trainId * 1000 + number for things, e.g. 13001 for a car, and trainId for other pixels, as in
data_prep/video.py. Positions and paths are px of the image as given, which is resized, and cropped
to proportions that the model takes; a note tells what is lost. --out also gets request.json, and
tracks.npy (M, T, 2) and visible.npy (M, T), the centres of all objects in the first clip; those of
a removed object are NaN and False.
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
MOST_FRAMES = 64


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen move`; `words` default to those of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("gen move", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--checkpoint", default=SHIPPED, help=f"default: {SHIPPED}")
    add("--frame", type=Path, help="an image")
    add("--masks", type=Path, help="its masks")
    add(
        "--previous",
        type=Path,
        help="the frame before --frame, which shows how fast objects move; needs a model trained "
        "with --model.past",
    )
    add("--scene", type=int, help="instead of them: the number of a scene of Movers")
    add("--drag", action="append", default=[], help="ID:DX,DY, or X,Y:DX,DY for what is at X,Y")
    add(
        "--pin",
        action="append",
        default=[],
        help="ID or X,Y: it stays, with --camera on the ground",
    )
    add(
        "--remove",
        action="append",
        default=[],
        help="ID or X,Y: it leaves the image, the others react and the hole is filled",
    )
    add("--scale", action="append", default=[], help="ID:S or X,Y:S: its size in the last frame")
    add(
        "--confidence",
        action="append",
        default=[],
        help="ID:C or X,Y:C: trust in its drag, 1 (default): follow it exactly, 0: hardly at all; "
        "needs a model trained with --model.unsure",
    )
    add("--camera", help="DX,DY,ZOOM: where the ground goes; default: the model invents it")
    add("--seed", type=int, help="of all that is not asked for; default 0, or the request's")
    add("--tracks", type=Path, help="points that move their objects, .npy (K, T, 2) px")
    add("--visible", type=Path, help="where these points are seen, .npy (K, T)")
    add("--request", type=Path, help="instead of these: JSON, see gen/inference/dragging.py")
    add("--frames", type=int, help="so many after the first; default: those of the model")
    add(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="of the frames, px; default: near that of the model, in the image's proportions if "
        "it takes them",
    )
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
    if args.previous and not given[1]:
        raise ValueError("--previous: expected --frame and --masks as well")
    import numpy as np
    import torch

    from gen import viz
    from gen.inference import dragging, scenes
    from gen.viz import motion as motion_viz

    if not args.list:
        pictures = [f"{n}.png" for n in ("arrows", "flow", "visible", "frames")]
        arrays = ("request.json", "tracks.npy", "visible.npy", "video.gif", "video.mp4")
        reads = (*files, args.previous, args.request, args.tracks, args.visible, args.checkpoint)
        keep_inputs(reads, [args.out / n for n in (*pictures, *arrays)])
    device = best_device()
    method = gen.load(args.checkpoint, device, args.method)
    tasks.expect(method, "animator", source=args.checkpoint)
    still = opened(args, method)
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
    asked = [scenes.to_model(request._replace(seed=seed), still) for seed in seeds]
    try:
        run = dragging.predict if args.suggest else dragging.animate
        made = [run(method, *image, one, still.previous, args.frames) for one in asked]
    except ValueError as error:
        raise ValueError(
            f"{error} (px of the model; {still.note})" if still.note else error
        ) from error
    clips = [] if args.suggest else made
    thetas = [clip.theta for clip in clips] or made
    scene, arrows = dragging.scene(*image), []
    by, ids = scenes.moved_by(request, scene), scene.ids[scene.present].tolist()
    way = "" if request.camera is None else "camera {:g}, {:g}, zoom {:g}, ".format(*request.camera)
    for seed, theta in zip(seeds, thetas, strict=True):
        boxes = dragging.positions(scene, theta)[:, : len(ids)]  # (T + 1, M, 4) px
        print(f"seed {seed}\n{scenes.table(still, ids, boxes, by)}")
        where = still.frame, scene.instance[0], boxes
        arrows.append(motion_viz.arrows(*where, by, ids, f"{way}seed {seed}"))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "request.json").write_text(dragging.dump(request) + "\n", "utf-8")
    centres, seen = scenes.from_motion(still, scene, thetas[0], request.remove)
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


def opened(args: argparse.Namespace, method) -> scenes.Still:
    """The image or the scene that the options name."""
    from gen.inference import scenes

    if args.frames is not None and not 1 <= args.frames <= MOST_FRAMES:
        raise ValueError(f"--frames: expected 1 to {MOST_FRAMES}, got {args.frames}")
    size = args.size or scenes.best_size(method, args.frame)
    if args.scene is not None:
        return scenes.drawn(args.scene, size, method.shape[0] + 1)
    return scenes.read(args.frame, args.masks, size, method.hparams.fit, args.previous)


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
    more = dict(remove=args.remove, confidence=args.confidence)
    asked = any(words) or any(more.values()) or args.tracks
    if args.request and asked:
        raise ValueError(
            "expected --request, or --drag, --pin, --remove, --scale, --confidence, --camera and "
            "--tracks, got both"
        )
    if args.visible and not args.tracks:
        raise ValueError("--visible: expected --tracks as well")
    if args.request:
        request = dragging.read(args.request)
        return request if args.seed is None else request._replace(seed=args.seed)
    if not asked:
        raise ValueError(f"expected a --drag or --camera; objects: {scenes.listed(still)}")
    request = scenes.parse_request(still, *words, args.seed or 0, **more)
    if args.tracks:
        points = tracks.load(args.tracks, args.visible)
        request = request._replace(tracks=scenes.to_tracks(still, points))
    return request

"""Turns your own video into clips to train Click to Move on, in the layout of Cityscapes sequences.

    gen prepare video street.mp4 --out data/street

writes `train*/` and `val*/` folders as `gen.data.clips.cityscapes` describes them
(`Cityscapes(root)` reads them), `manifest.json`, and `contact_sheet.png` to look at. The last tenth
of the frames is for validation, or another one by `--held-out`; no clip spans a cut.
Without `--masks` the camera must stand still and objects must move: an object is what differs from
the background before and after it. Masks are as for gen move: trainId * 1000 + number for things,
e.g. 13001 for a car, trainIds for other pixels.
Flow, visibility and tracks are computed here, without weights. Exit codes: see recipe.py.
"""

import argparse
import re
import sys
from pathlib import Path

import cv2
import numpy as np
from cityscapes_layout import write_clip
from PIL import Image
from recipe import found, run, write_manifest, write_png
from tqdm import tqdm
from video_flow import dis
from video_masks import CLASSES, FIRST_THING, MIN_AREA, clip_of_tracks, moving_masks, shots
from video_tracks import doubtful, track

from gen.data.clips.cityscapes import CityscapesClips
from gen.data.clips.decoding import Video, kept, read_masks
from gen.files import keep_inputs, sha256
from gen.viz import grid, to_uint8

SIZE = 128, 256  # height and width; swapped for a portrait video
ROAD = 0  # trainId of the background
VAL_SHARE = 0.1  # of the frames
HELD_OUT = {"end": 1.0, "middle": 0.5, "begin": 0.0}  # where these frames are, of what is left
SHEET = "contact_sheet.png"
SHOWN = 4  # clips on the contact sheet
ENLARGED = 2  # factor


def prepare(
    path: Path,
    out: Path,
    height: int | None = None,
    width: int | None = None,
    every: int = 1,
    frames: int = 6,
    stride: int = 6,
    masks: Path | None = None,
    kind: str | None = None,
    min_area: float = MIN_AREA,
    source: dict | None = None,
    held_out: str = "end",
) -> dict:
    """Makes the data set in `out`, or completes it, and returns its manifest.

    Args:
        path: path of the video.
        out: folder of the layout.
        height, width: size of the frames, px; None: 128 x 256, or 256 x 128 for a portrait video.
            The middle of the video is cropped to these proportions.
        every: step k: every k-th frame of the video is used.
        frames: number of frames per clip.
        stride: frames from the first frame of a clip to that of the next.
        masks: folder of PNGs as `gen.data.clips.cityscapes.read_ids` reads them, one per frame, as
            large as the video; None takes moving objects.
        kind: class of the moving objects, one of CLASSES, None: persons; unused with masks.
        min_area: least area of an object, share of the image.
        source: origin of the video, for the manifest.
        held_out: part of the video for validation, one of HELD_OUT.

    Raises:
        ValueError: a number is out of range, the video or the masks cannot be used, nothing could
            be tracked, or `out` holds something else.
        OSError: `out` cannot be written.
    """
    opened = Video(path)
    size = SIZE[:: -1 if opened.size[0] > opened.size[1] else 1]
    height, width = (b if a is None else a for a, b in zip((height, width), size, strict=True))
    options = {"height": height, "width": width, "every": every, "frames": frames, "stride": stride}
    check(options, masks, kind, min_area)
    keep_inputs([path, masks], [out])
    of = {"masks": str(masks)} if masks else {"class": kind or CLASSES[0]}
    recipe = {"video": path.name, "sha256": sha256(path)} | options | of
    recipe |= {"min_area": min_area, "fit": "crop"}
    if held_out != "end":  # which older manifests do not name
        recipe |= {"held_out": held_out}
    manifest = found(out, recipe, "clips of a video")
    if manifest.get("complete"):
        return manifest
    video = opened.read(2 * height, 2 * width, every)
    windows(path, [slice(0, len(video))], len(video), frames, stride, held_out)  # long enough
    part = kept(opened.size, height, width)
    manifest = {"recipe": recipe, "complete": False, "source": source, "read": len(video)}
    manifest |= {"size": opened.size[::-1], "kept": [part.width, part.height], "left_out": {}}
    if masks:
        labels, lost = read_masks(masks, opened, len(video), 2 * height, 2 * width, every)
        parts = shots(video)
        manifest["left_out"]["are cut off or too small, counted in each frame"] = lost
    else:
        trainid = FIRST_THING + CLASSES.index(of["class"])
        labels, parts = moving_masks(video, shots(video), trainid, min_area)
    if not (labels >= 1000).any():
        got = f"only {', '.join(map(str, np.unique(labels)[:5]))} in {masks}" if masks else "none"
        raise ValueError(
            f"{path}: expected objects, got {got} in {len(video)} frames; lower --min-area from "
            f"{min_area}, or bring other --masks, whose things are trainId * 1000 + number"
        )
    starts, reach = windows(path, parts, len(video), frames, stride, held_out)
    write_manifest(out, manifest)
    maps = tracked(video, labels, parts, manifest["left_out"], bool(masks))
    city = re.sub("[^A-Za-z0-9]+", "-", path.stem)
    for split, at in starts.items():
        clips = objects = 0
        for start in tqdm(at, split, disable=None):
            now = slice(start, start + frames)
            clip = clip_of_tracks(video[now], maps[now], labels[now], min_area)
            if clip:
                write_clip(clip, out, split, (city, f"{clips:06d}", start))
                clips, objects = clips + 1, objects + len(clip["ids"])
        if not clips:
            where = " and ".join(f"{first} to {last}" for first, last in reach[split])
            raise ValueError(
                f"{path}: expected an object that is seen in all {frames} frames of a clip, got "
                f"none in frames {where}, which are for {split}; take smaller --frames, "
                f"--stride or --min-area, or another part of the video{left_out(manifest)}"
            )
        manifest[split] = {"clips": clips, "objects": objects, "frames": reach[split]}
    write_png(out / SHEET, sheet(out, height, width, frames))
    manifest |= {"parts": [[p.start, p.stop - 1] for p in parts], "complete": True}
    write_manifest(out, manifest)
    return manifest


def check(options: dict[str, int], masks: Path | None, kind: str | None, min_area: float) -> None:
    """Refuses numbers that are out of range."""
    for name, low in {"height": 16, "width": 16, "every": 1, "frames": 2, "stride": 1}.items():
        if options[name] < low:
            raise ValueError(f"expected --{name} >= {low}, got {options[name]}")
    if kind not in (None, *CLASSES) or not 0 < min_area < 1:
        raise ValueError(
            f"expected --class of {CLASSES} and --min-area in (0, 1), got {kind}, {min_area}"
        )
    if masks and kind:
        raise ValueError(f"expected no --class with --masks, whose numbers say it, got {kind}")


def windows(
    path: Path, parts: list[slice], total: int, frames: int, stride: int, held_out: str = "end"
) -> tuple[dict[str, list[int]], dict[str, list[list[int]]]]:
    """First frames of the clips of both splits, and the ranges [first, last] of frames of each.

    No clip leaves its part or reaches into the other split.

    Raises:
        ValueError: the parts are too short for a clip in each split.
    """
    long = [p for p in parts if p.stop - p.start >= frames]
    count = round(VAL_SHARE * total)
    low = round(HELD_OUT[held_out] * (total - count))
    if long and not any(min(p.stop, low + count) - max(p.start, low) >= frames for p in long):
        near = min(long, key=lambda p: max(p.start - low, low - p.stop))
        low = min(max(near.start, low), near.stop - frames)
        count = max(count, frames)
    high = total if held_out == "end" else min(total, low + count)
    spans = {"train": [(0, low), (high, total)], "val": [(low, high)]}
    starts: dict[str, list[int]] = {}
    for split, some in spans.items():
        ranges = [(max(p.start, a), min(p.stop, b) - frames + 1) for a, b in some for p in long]
        starts[split] = [k for first, end in ranges for k in range(first, end, stride)]
    reach = {split: [[a, b - 1] for a, b in some if a < b] for split, some in spans.items()}
    if not all(starts.values()):
        longest = max((p.stop - p.start for p in parts), default=0)
        raise ValueError(
            f"{path}: expected {2 * frames} frames or more without a cut or a sudden change of "
            f"light, for a clip of {frames} to train on and one for validation, got {total}, at "
            f"most {longest} in a row; take a smaller --frames or --every, or another video"
        )
    return starts, reach


def tracked(
    video: np.ndarray, labels: np.ndarray, parts: list[slice], out: dict[str, int], given: bool
) -> np.ndarray:
    """Maps of tracks, numbered anew in each part, without doubtful objects, which `out` counts.
    With given masks, an object that hardly moves is kept."""
    maps = np.zeros_like(labels)
    for part in parts:
        some, things = video[part], np.where(labels[part] >= 1000, labels[part], 0)
        pairs = tqdm(zip(some, some[1:], strict=False), "tracks", len(some) - 1, disable=None)
        maps[part] = track(things, (dis(frame, before) for before, frame in pairs))
        for reason, numbers in doubtful(maps[part]).items():
            if numbers and not (given and reason == "hardly move"):
                out[reason] = out.get(reason, 0) + len(numbers)
                gone = np.isin(maps[part], numbers)
                maps[part][gone] = 0
                labels[part][gone & (not given)] = ROAD
    return maps


def sheet(root: Path, height: int, width: int, frames: int) -> Image.Image:
    """Some of the written clips, as the data set reads them: outlines, flow, visibility."""
    rows, names = [], []
    for split, shown in (("train", SHOWN - 1), ("val", 1)):
        clips = CityscapesClips(root, split, height, width, frames, max_objects=99)
        for index in np.unique(np.linspace(0, len(clips) - 1, shown + 2)[1:-1].round().astype(int)):
            clip = clips[int(index)]
            video, instance = to_uint8(clip["video"]), clip["instance"].numpy()
            rows.append([_outlined(*pair) for pair in zip(video, instance, strict=True)])
            flow = clip["flow"].permute(0, 2, 3, 1).numpy()
            most = float(np.quantile(np.hypot(*flow[instance[1:] > 0].T), 0.95))
            rows.append([None] + [_coloured(step, most) for step in flow])
            seen = clip["visible"][:, 0].numpy().astype(np.uint8)[..., None] * 255
            rows.append([None] + [_large(step.repeat(3, -1)) for step in seen])
            names += [f"{split} {index}", f"flow, {most:.1f} px", "visible"]
    headers = [f"frame {t}" for t in range(frames)]
    return grid(rows, captions=names, headers=headers, cell_px=ENLARGED * width)


def _large(image: np.ndarray) -> np.ndarray:
    return image.repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def _outlined(image: np.ndarray, instance: np.ndarray) -> np.ndarray:
    """Outlines each object in its own colour."""
    image, instance = _large(image), _large(instance)
    for number in np.unique(instance[instance > 0]):
        hue = np.uint8([[[int(number) * 67 % 180, 255, 255]]])
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        mask = (instance == number).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, lines, -1, colour, 1)
    return image


def _coloured(flow: np.ndarray, most: float) -> np.ndarray:
    """Flow as colours: direction is hue, length is saturation, full at `most` px."""
    angle = np.arctan2(flow[..., 1], flow[..., 0]) * (90 / np.pi) % 180
    length = (255 * np.hypot(*flow.transpose(2, 0, 1)) / max(most, 1e-6)).clip(max=255)
    hsv = np.stack([angle, length, np.full_like(angle, 255)], -1).astype(np.uint8)
    return _large(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def left_out(manifest: dict) -> str:
    """Describes the parts of the video that are in no clip."""
    reasons = manifest["left_out"].items()
    words = [f"{count} that {reason}" for reason, count in reasons if count]
    return f"; objects left out: {', '.join(words)}" if words else ""


def describe(out: Path, manifest: dict) -> str:
    """Describes the content of `out` in one line."""
    parts = [f"{s} {manifest[s]['clips']} ({manifest[s]['objects']})" for s in ("train", "val")]
    lines = [f"{out}: clips (objects in them): {', '.join(parts)}; look at {out / SHEET}"]
    (w, h), (wide, high) = manifest["size"], manifest["kept"]
    if (w, h) != (wide, high):
        lines.append(f"cut to the middle {wide} x {high} px of {w} x {h} px")
    if len(manifest["parts"]) > 1:
        lines.append(f"{len(manifest['parts'])} parts between cuts and sudden changes of light")
    return "\n".join(lines) + left_out(manifest)


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("video", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--height", type=int, help="in pixels; 128, or 256 of a portrait video")
    parser.add_argument("--width", type=int, help="in pixels; 256, or 128 of a portrait video")
    parser.add_argument("--every", type=int, default=1, help="take every k-th frame")
    parser.add_argument("--frames", type=int, default=6, help="a clip")
    parser.add_argument("--stride", type=int, default=6, help="frames from clip to clip")
    parser.add_argument("--masks", type=Path, help="PNGs of trainId * 1000 + number, one a frame")
    parser.add_argument("--class", dest="kind", choices=CLASSES, help="of what moves; person")
    parser.add_argument("--min-area", type=float, default=MIN_AREA, help="share of the image")
    parser.add_argument(
        "--held-out", choices=HELD_OUT, default="end", help="the tenth that is for validation"
    )
    args = vars(parser.parse_args(argv))
    path, out = args.pop("video"), args.pop("out")
    return run("video", lambda: describe(out, prepare(path, out, **args)))


if __name__ == "__main__":
    cv2.setNumThreads(1)  # more threads make DIS no faster on small frames
    sys.exit(main())

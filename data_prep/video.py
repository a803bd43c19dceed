"""A video of your own as clips to train Click to Move on, in the layout of Cityscapes sequences.

    python data_prep/video.py street.mp4 --out data/street

writes `train*/` and `val*/` folders as `gen.data.cityscapes` describes them (`Cityscapes(root)`
reads them), `manifest.json`, and `contact_sheet.png`: look at it. The last tenth of the frames is
for validation. Without `--masks` the camera must stand still and objects must move: they are what
differs from the median of all frames. Flow, visibility and tracks are computed here, with no
weights. Exit codes: see recipe.py.
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

from gen.data.cityscapes import CityscapesClips
from gen.data.flow import dis
from gen.data.tracks import track
from gen.data.video import (
    CLASSES,
    MIN_AREA,
    clip_of_tracks,
    moving_masks,
    read_masks,
    read_video,
)
from gen.files import keep_inputs
from gen.viz import grid, to_uint8
from gen.weights import sha256

ROAD, FIRST_THING = 0, 11  # trainIds of the background and of the first of CLASSES
VAL_SHARE = 0.1  # of the frames
SHEET = "contact_sheet.png"
SHOWN = 4  # clips on it
ENLARGED = 2  # times


def prepare(
    path: Path,
    out: Path,
    height: int = 128,
    width: int = 256,
    every: int = 1,
    frames: int = 6,
    stride: int = 6,
    masks: Path | None = None,
    kind: str = "person",
    min_area: float = MIN_AREA,
    source: dict | None = None,
) -> dict:
    """Make the data set in `out`, or complete it, and return its manifest.

    Args:
        path: the video.
        out: folder of the layout.
        height, width: of the frames in px; the middle of the video is cut to this aspect.
        every: take every k-th frame of the video.
        frames: frames a clip.
        stride: frames from the beginning of a clip to that of the next.
        masks: folder of PNGs with the numbers of objects, one a frame, as large as the video;
            None takes what moves.
        kind: of the objects, one of CLASSES.
        min_area: of an object, share of the image.
        source: where the video is from, for the manifest.

    Raises:
        ValueError: a number is out of range, the video or the masks cannot be used, nothing could
            be tracked, or `out` holds something else.
        OSError: `out` cannot be written.
    """
    options = {"height": height, "width": width, "every": every, "frames": frames, "stride": stride}
    for name, low in {"height": 16, "width": 16, "every": 1, "frames": 2, "stride": 1}.items():
        if options[name] < low:
            raise ValueError(f"expected --{name} >= {low}, got {options[name]}")
    if kind not in CLASSES or not 0 < min_area < 1:
        raise ValueError(
            f"expected --class of {CLASSES} and --min-area in (0, 1), got {kind}, {min_area}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: expected a video file, got none")
    keep_inputs([path, masks], [out])
    given = {"masks": masks and str(masks), "class": kind, "min_area": min_area}
    recipe = {"video": path.name, "sha256": sha256(path)} | options | given
    manifest = found(out, recipe, "clips of a video")
    if manifest.get("complete"):
        return manifest
    video = read_video(path, 2 * height, 2 * width, every)
    if len(video) < 2 * frames:
        raise ValueError(
            f"{path}: expected {2 * frames} frames or more, for a clip of {frames} to train on and "
            f"one for validation, got {len(video)} with --every {every}; take a longer video, or "
            "a smaller --frames or --every"
        )
    if masks:
        labels = read_masks(masks, path, len(video), 2 * height, 2 * width, every)
    else:
        labels = moving_masks(video, min_area)
    if not labels.any():
        raise ValueError(
            f"{masks or path}: expected objects, got none in {len(video)} frames; lower --min-area "
            f"from {min_area}, or bring other masks with --masks"
        )
    write_manifest(out, {"recipe": recipe, "complete": False})
    steps = tqdm(zip(video, video[1:], strict=False), "tracks", len(video) - 1, disable=None)
    maps = track(labels, (dis(frame, before) for before, frame in steps))
    manifest = {"recipe": recipe, "complete": True, "source": source, "read": len(video)}
    city = re.sub("[^A-Za-z0-9]+", "-", path.stem)
    val = len(video) - max(frames, round(VAL_SHARE * len(video)))
    for split, first, end in (("train", 0, val), ("val", val, len(video))):
        clips = objects = 0
        for start in tqdm(range(first, end - frames + 1, stride), split, disable=None):
            now = slice(start, start + frames)
            clip = clip_of_tracks(
                video[now], maps[now], FIRST_THING + CLASSES.index(kind), ROAD, min_area
            )
            if clip:
                write_clip(clip, out, split, (city, f"{clips:06d}", start))
                clips, objects = clips + 1, objects + len(clip["ids"])
        if not clips:
            raise ValueError(
                f"{path}: expected an object that is seen in all {frames} frames of a clip, got "
                f"none in frames {first} to {end - 1}, which are for {split}; take smaller "
                "--frames, --stride or --min-area, or another part of the video"
            )
        manifest[split] = {"clips": clips, "objects": objects, "frames": [first, end - 1]}
    write_png(out / SHEET, sheet(out, height, width, frames))
    write_manifest(out, manifest)
    return manifest


def sheet(root: Path, height: int, width: int, frames: int) -> Image.Image:
    """Some clips of what was written, as the data set reads them: outlines, flow, visibility."""
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
    """Each object with an outline of a colour of its own."""
    image, instance = _large(image), _large(instance)
    for number in np.unique(instance[instance > 0]):
        hue = np.uint8([[[int(number) * 67 % 180, 255, 255]]])
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        mask = (instance == number).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, lines, -1, colour, 1)
    return image


def _coloured(flow: np.ndarray, most: float) -> np.ndarray:
    """Direction as hue, length as saturation, full at `most` px."""
    angle = np.arctan2(flow[..., 1], flow[..., 0]) * (90 / np.pi) % 180
    length = (255 * np.hypot(*flow.transpose(2, 0, 1)) / max(most, 1e-6)).clip(max=255)
    hsv = np.stack([angle, length, np.full_like(angle, 255)], -1).astype(np.uint8)
    return _large(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def say(out: Path, manifest: dict) -> str:
    """What is in `out`, in a line."""
    parts = [f"{s} {manifest[s]['clips']} ({manifest[s]['objects']})" for s in ("train", "val")]
    return f"{out}: clips (objects in them): {', '.join(parts)}; look at {out / SHEET}"


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("video", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--height", type=int, default=128, help="in pixels")
    parser.add_argument("--width", type=int, default=256, help="in pixels")
    parser.add_argument("--every", type=int, default=1, help="take every k-th frame")
    parser.add_argument("--frames", type=int, default=6, help="a clip")
    parser.add_argument("--stride", type=int, default=6, help="frames from clip to clip")
    parser.add_argument("--masks", type=Path, help="PNGs with numbers of objects, one a frame")
    parser.add_argument("--class", dest="kind", default="person", choices=CLASSES)
    parser.add_argument("--min-area", type=float, default=MIN_AREA, help="share of the image")
    args = vars(parser.parse_args(argv))
    path, out = args.pop("video"), args.pop("out")
    return run("video", lambda: say(out, prepare(path, out, **args)))


if __name__ == "__main__":
    cv2.setNumThreads(1)  # DIS on frames this small is no faster with more
    sys.exit(main())

"""From a video to clips: decoding, masks of what moves, and clips of its frames and tracks.

All is computed at twice the size of the model, which halves the error of the flow, and brought
down by area. Frames are uint8 RGB (H, W, 3), maps of objects uint16 (H, W), 0: none. Flow and
visibility are in flow.py, tracks in tracks.py.
"""

import re
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen.data.flow import DOUBLED, flow_to_first, visible
from gen.data.images import to_tensor

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")  # 11 .. 18
MAX_BYTES = 4 * 2**30  # of decoded frames: all are held in memory
ANNOUNCED = 0.95  # share of the frames in a video's header that must come: some count wrongly
SAMPLES = 64  # frames that the background is the median of
CHANGE = 30  # of 255: a pixel this far from the background, in any channel, has changed
SPREAD = 6  # and this many times as far as it usually is: what swings is background
MOVING = 0.3  # share of changed pixels from which on it is the camera that moves
SHADOW = (0.5, 0.12)  # least brightness of a shadow, relative to the background, and most tint
CLOSING = 64  # the gaps that are closed are this part of the height
MIN_AREA = 0.0005  # of an object, share of the image
MAX_CHANGE = 1.8  # times an area grows or shrinks by in a frame; two who part halve it


# ---- decoding -----------------------------------------------------------------------------------


def read_video(path: Path, height: int, width: int, every: int = 1) -> np.ndarray:
    """Every k-th frame, the middle of it, (F, height, width, 3) uint8 RGB, resized by area.

    Raises:
        ValueError: no video, truncated, empty, or too long to be held; it names the file.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a video file, got none")
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise ValueError(
            f"{path}: expected a video that OpenCV decodes (.avi, .mp4), got something else or a "
            "truncated one; convert it, or fetch it again"
        )
    announced, frames, most = video.get(cv2.CAP_PROP_FRAME_COUNT), [], MAX_BYTES // (height * width)
    seen = 0
    while video.grab():
        if seen % every == 0:
            ok, frame = video.retrieve()
            if not ok:
                break
            if 3 * len(frames) >= most:
                raise ValueError(
                    f"{path}: expected at most {most // 3} frames of {width}x{height}, got more; "
                    "cut the video, or take fewer with --every"
                )
            frames.append(cv2.cvtColor(crop(frame, height, width), cv2.COLOR_BGR2RGB))
        seen += 1
    video.release()
    if seen < ANNOUNCED * announced or not frames:
        raise ValueError(
            f"{path}: expected {max(1, int(announced))} frames as its header says, got {seen}: "
            "truncated or damaged; fetch it again"
        )
    return np.stack(frames)


def crop(image: np.ndarray, height: int, width: int, by: int = cv2.INTER_AREA) -> np.ndarray:
    """The largest part in the middle that has the aspect, at this size."""
    h, w = image.shape[:2]
    side = min(h / height, w / width)
    high, wide = max(1, round(height * side)), max(1, round(width * side))
    top, left = (h - high) // 2, (w - wide) // 2
    image = image[top : top + high, left : left + wide]
    if by == cv2.INTER_AREA and side < 1:
        by = cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=by)


def read_masks(
    folder: Path, path: Path, count: int, height: int, width: int, every: int = 1
) -> np.ndarray:
    """Maps (F, height, width) of objects from PNGs, one a frame of the video in order of names,
    9.png before 10.png.

    Numbers are those of objects in one frame (0: none); they need not be the same in the next.

    Args:
        folder: with the PNGs, grey of 8 or 16 bits or with a palette, as large as the video.
        path: of the video.
        count: frames that were read of it, every k-th.
        height, width, every: as they were read.

    Raises:
        ValueError: another number of them or another size, or not maps of numbers.
    """
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    size = tuple(int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    files = sorted(folder.glob("*.png"), key=_in_words_and_numbers)
    taken = files[::every]
    if len(taken) != count:
        raise ValueError(
            f"{folder}: expected a .png for each frame of {path.name}, {count} of them to read "
            f"with --every {every}, got {len(taken)} of {len(files)}"
        )
    maps = []
    for file in taken:
        try:
            with Image.open(file, formats=("PNG",)) as image:
                values = np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{file}: expected a PNG, got a damaged one ({error})") from error
        if values.ndim != 2:
            raise ValueError(
                f"{file}: expected one channel, the number of the object at each pixel, got "
                f"{values.shape[2]}"
            )
        if values.shape[::-1] != size:
            raise ValueError(
                f"{file}: expected {size[0]}x{size[1]} px as the video has, got "
                f"{values.shape[1]}x{values.shape[0]}"
            )
        maps.append(crop(values.astype(np.uint16), height, width, cv2.INTER_NEAREST))
    return np.stack(maps)


def _in_words_and_numbers(path: Path) -> list:
    """Sorts frame9.png before frame10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


# ---- what moves ---------------------------------------------------------------------------------


def moving_masks(frames: np.ndarray, min_area: float = MIN_AREA) -> np.ndarray:
    """Maps (F, H, W) of what differs from the median of all frames, of a camera that stands still.

    Shadows are left out, thin lines opened away, gaps closed; each connected part of `min_area`
    and more (share of the image) is an object.

    Raises:
        ValueError: much of the image changes, as when the camera moves.
    """
    height, width = frames.shape[1:3]
    some = frames[np.linspace(0, len(frames) - 1, SAMPLES).astype(int)]
    background = np.median(some, 0).astype(np.uint8)
    usual = np.median([cv2.absdiff(f, background) for f in some], 0)
    least = np.maximum(CHANGE, SPREAD * usual).clip(max=255).astype(np.uint8)
    side = max(3, height // CLOSING | 1)
    closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    maps, shares = np.zeros(frames.shape[:3], np.uint16), []
    for frame, out in zip(frames, maps, strict=True):
        change = cv2.absdiff(frame, background)
        shares.append((change > CHANGE).any(-1).mean())
        mask = (change > least).any(-1)
        ratio = (frame[mask] + np.float32(1)) / (background[mask] + np.float32(1))  # (P, 3)
        low, high = ratio.min(-1), ratio.max(-1)
        mask[mask] = (low < SHADOW[0]) | (high > 1) | (high - low > SHADOW[1])
        mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, closing)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
        large = stats[:, cv2.CC_STAT_AREA] >= min_area * height * width
        large[0] = False
        out[:] = np.where(large, np.cumsum(large), 0)[labels]
    if np.median(shares) > MOVING:
        raise ValueError(
            f"expected a camera that stands still, got {np.median(shares):.0%} of the pixels "
            "changing; bring masks of the objects with --masks"
        )
    return maps


# ---- clips --------------------------------------------------------------------------------------


def clip_of_tracks(
    frames: np.ndarray, maps: np.ndarray, kind: int, stuff: int, min_area: float = MIN_AREA
) -> dict[str, Tensor] | None:
    """A clip as in `gen.data.clips`, without boxes and motions; None where no track goes through.

    Tracks are left out that are missing in a frame, smaller than `min_area` in one, or grow or
    shrink by more than `MAX_CHANGE` from one to the next.

    Args:
        frames: (T, 2 H, 2 W, 3) uint8.
        maps: (T, 2 H, 2 W) of tracks.
        kind: trainId of all objects.
        stuff: trainId of the rest.
    """
    height, width = (side // 2 for side in frames.shape[1:3])
    instance = np.zeros((len(maps), height, width), np.int64)
    things, number = _down((maps > 0).astype(np.float32)) >= 0.5, 0
    for track in np.unique(maps[maps > 0]):
        mask = _down((maps == track).astype(np.float32)) >= 0.5  # (T, H, W)
        area = mask.mean((1, 2))
        change = np.maximum(area[1:], area[:-1]) / np.maximum(np.minimum(area[1:], area[:-1]), 1e-9)
        if area.min() >= min_area and change.max(initial=1) <= MAX_CHANGE:
            number += 1
            instance[mask] = number
    if not number:
        return None
    pairs = flow_to_first(frames, maps)
    flow = np.stack([_down(back[None])[0] / DOUBLED for back, _ in pairs])
    seen = _down(np.stack([visible(*pair) for pair in pairs]).astype(np.float32)) >= 0.5
    small = _down(frames.astype(np.float32)).round().astype(np.uint8)
    return {
        "video": torch.stack([to_tensor(frame) for frame in small]),
        "semantic": torch.from_numpy(np.where(things, kind, stuff).astype(np.int64)),
        "instance": torch.from_numpy(instance),
        "flow": torch.from_numpy(flow.transpose(0, 3, 1, 2).copy()),
        "visible": torch.from_numpy(seen[:, None].astype(np.float32)),
        "ids": torch.arange(1, number + 1) + 1000 * kind,
        "present": torch.ones(number, dtype=torch.bool),
    }


def _down(x: np.ndarray) -> np.ndarray:
    """Maps (T, 2 H, 2 W, ...) at half the size: means of 2 x 2."""
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

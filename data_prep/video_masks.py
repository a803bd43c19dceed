"""From the frames of a video to clips: shots, masks of moving objects, frames and tracks of clips.

Everything is computed at twice the size of the model, which halves the error of the flow, and
averaged down. Frames are uint8 RGB (H, W, 3), labels uint16 (H, W) as in
`gen.data.clips.cityscapes.read_ids`, maps of tracks uint16 (H, W), 0: none. Decoding is in
gen.data.clips.decoding, flow and visibility in video_flow.py, tracks in video_tracks.py.
"""

from bisect import bisect_left, bisect_right
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from video_flow import DOUBLED, flow_to_first, visible

from gen.data.images import to_tensor

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")  # 11 .. 18
FIRST_THING = 11  # trainId of the first class
SMALL = 32, 16  # width and height, px, at which jumps are detected
JUMP, TIMES, AROUND = 6, 4, 8  # a jump: change of 255, its ratio to the usual change, frames around
LOCAL = 24, 96  # frames in the median of a background, least and most; otherwise half a shot
SAMPLES = 32  # most frames that are sampled
CHANGE = 30  # of 255: a pixel this far from the background, in any channel, has changed
SPREAD = 6  # and this many times its usual distance: swinging things are background
MOVING = 0.3  # share of changed pixels above which the camera or the light changes
SHADOW = (0.5, 0.12)  # least brightness of a shadow, relative to the background, and most tint
CLOSING = 64  # closed gaps are this part of the height
MIN_AREA = 0.0005  # least area of an object, share of the image
MAX_CHANGE = 1.8  # largest factor of an area between frames; two objects that part halve it


# ---- shots --------------------------------------------------------------------------------------


def shots(frames: np.ndarray) -> list[slice]:
    """Splits the frames at jumps, which are cuts and sudden changes of light."""
    small = np.stack([cv2.resize(f, SMALL, interpolation=cv2.INTER_AREA) for f in frames])
    change = np.abs(np.diff(small.astype(np.float32), axis=0)).mean((1, 2, 3))  # (F - 1,)
    padded = np.pad(change, AROUND, mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1), -1)
    jumps = np.flatnonzero((change > JUMP) & (change > TIMES * usual)) + 1
    return _between([0, *jumps.tolist(), len(frames)])


def _between(edges: list[int]) -> list[slice]:
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]


# ---- moving objects -----------------------------------------------------------------------------


def moving_masks(
    frames: np.ndarray, parts: list[slice], kind: int, min_area: float = MIN_AREA
) -> tuple[np.ndarray, list[slice]]:
    """Labels (F, H, W) of moving objects before a still camera, and the usable parts of the shots:
    frames with much change, as in a jolt or a fade, end a part.

    A moving object differs from two backgrounds, of the frames before and of the frames after it,
    so an object that stood still for long and then leaves makes no false mask. Backgrounds get the
    brightness of the frame. Shadows are left out, thin lines removed, gaps closed; each connected
    part of at least `min_area` is an object.

    Args:
        frames: frames (F, H, W, 3) uint8.
        parts: shots of the video.
        kind: trainId of moving objects; all else is road.
        min_area: least area of an object, share of the image.

    Raises:
        ValueError: much of the image changes, as when the camera moves.
    """
    labels, shares = np.zeros(frames.shape[:3], np.uint16), np.zeros(len(frames))
    for part in parts:
        local = _backgrounds(frames[part])
        for t in range(part.start, part.stop):
            found = [_changed(frames[t], *of) for of in local(t - part.start)]
            shares[t] = min(share for share, _ in found)
            mask = np.logical_and.reduce([changed for _, changed in found])
            numbers = _components(mask, min_area)
            labels[t] = np.where(numbers > 0, 1000 * kind + numbers, 0)
    if np.median(shares) > MOVING:
        raise ValueError(
            f"expected a camera that stands still, got {np.median(shares):.0%} of the pixels "
            "changing; bring masks of the objects with --masks"
        )
    steady = shares <= MOVING
    labels[~steady] = 0
    edges = [np.flatnonzero(np.diff(steady[p], prepend=False, append=False)) for p in parts]
    pairs = zip(parts, edges, strict=True)
    return labels, [
        slice(p.start + a, p.start + b)
        for p, at in pairs
        for a, b in zip(at[::2].tolist(), at[1::2].tolist(), strict=True)
    ]


def _backgrounds(frames: np.ndarray):
    """Function of t for a shot that returns the backgrounds before and after frame t."""
    length = min(len(frames), max(LOCAL[0], min(LOCAL[1], len(frames) // 2)))
    starts = [*range(0, len(frames) - length, max(1, length // 3)), len(frames) - length]

    @lru_cache(maxsize=4)
    def at(k: int) -> tuple[np.ndarray, np.ndarray]:
        """A background, and the distance from it that unchanged pixels may have."""
        picked = np.linspace(starts[k], starts[k] + length - 1, min(length, SAMPLES))
        some = frames[picked.astype(int)]
        background = np.median(some, 0).astype(np.uint8)
        usual = np.median([cv2.absdiff(f, _lit(background, f)) for f in some], 0)
        return background, np.maximum(CHANGE, SPREAD * usual).clip(max=255).astype(np.uint8)

    def around(t: int) -> list[tuple[np.ndarray, np.ndarray]]:
        before = max(0, bisect_right(starts, t - length) - 1)
        after = min(len(starts) - 1, bisect_left(starts, t))
        return [at(k) for k in sorted({before, after})]

    return around


def _changed(
    frame: np.ndarray, background: np.ndarray, least: np.ndarray
) -> tuple[float, np.ndarray]:
    """Share of pixels that differ from a background, and mask of those that are no shadow."""
    background = _lit(background, frame)
    change = cv2.absdiff(frame, background)
    mask = (change > least).any(-1)
    ratio = (frame[mask] + np.float32(1)) / (background[mask] + np.float32(1))  # (P, 3)
    low, high = ratio.min(-1), ratio.max(-1)
    mask[mask] = (low < SHADOW[0]) | (high > 1) | (high - low > SHADOW[1])
    return float((change > CHANGE).any(-1).mean()), mask


def _lit(background: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """A background with the brightness of a frame, in each channel."""
    some = ((image[::4, ::4].reshape(-1, 3) + np.float32(1)) for image in (frame, background))
    light = np.median(np.divide(*some), 0)  # (3,)
    return (background * light).clip(max=255).astype(np.uint8)


def _components(mask: np.ndarray, min_area: float) -> np.ndarray:
    """Numbers, from 1, of the connected parts of a mask, (H, W), at most 999."""
    height, width = mask.shape
    side = max(3, height // CLOSING | 1)
    closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, closing)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    large = (areas >= min_area * height * width) & (areas.argsort().argsort() >= len(areas) - 999)
    return np.where(large, np.cumsum(large), 0)[labels]


# ---- clips --------------------------------------------------------------------------------------


def clip_of_tracks(
    frames: np.ndarray, maps: np.ndarray, labels: np.ndarray, min_area: float = MIN_AREA
) -> dict[str, Tensor] | None:
    """A clip as in `gen.data.clips`, without boxes and motions; None without a complete track.

    A track is left out if it is missing in a frame, smaller than `min_area` in a frame, or grows
    or shrinks by more than `MAX_CHANGE` between two frames.

    Args:
        frames: frames (T, 2 H, 2 W, 3) uint8.
        maps: maps (T, 2 H, 2 W) of tracks.
        labels: labels (T, 2 H, 2 W); a track has the commonest label in it.
    """
    height, width = (side // 2 for side in frames.shape[1:3])
    instance = np.zeros((len(maps), height, width), np.int64)
    quarters = np.stack([labels[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    things = _down((labels >= 1000).astype(np.float32)) >= 0.5
    semantic = np.where(things, quarters.max(0) // 1000, quarters.min(0)).astype(np.int64)
    ids = []
    for track in np.unique(maps[maps > 0]):
        mask = _down((maps == track).astype(np.float32)) >= 0.5  # (T, H, W)
        area = mask.mean((1, 2))
        change = np.maximum(area[1:], area[:-1]) / np.maximum(np.minimum(area[1:], area[:-1]), 1e-9)
        kinds = np.bincount(labels[(maps == track) & (labels >= 1000)] // 1000)
        if len(kinds) and area.min() >= min_area and change.max(initial=1) <= MAX_CHANGE:
            ids.append(int(kinds.argmax()) * 1000 + len(ids) + 1)
            instance[mask], semantic[mask] = len(ids), ids[-1] // 1000
    if not ids:
        return None
    pairs = flow_to_first(frames, maps)
    flow = np.stack([_down(back[None])[0] / DOUBLED for back, _ in pairs])
    seen = _down(np.stack([visible(*pair) for pair in pairs]).astype(np.float32)) >= 0.5
    small = _down(frames.astype(np.float32)).round().astype(np.uint8)
    return {
        "video": torch.stack([to_tensor(frame) for frame in small]),
        "semantic": torch.from_numpy(semantic),
        "instance": torch.from_numpy(instance),
        "flow": torch.from_numpy(flow.transpose(0, 3, 1, 2).copy()),
        "visible": torch.from_numpy(seen[:, None].astype(np.float32)),
        "ids": torch.tensor(ids),
        "present": torch.ones(len(ids), dtype=torch.bool),
    }


def _down(x: np.ndarray) -> np.ndarray:
    """Maps (T, 2 H, 2 W, ...) at half the size: means of 2 x 2."""
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

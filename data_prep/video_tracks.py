"""Tracking: maps of objects in, maps of tracks with one number per object in all frames out.

A map is uint16 (H, W), 0: no object. A flow is float32 (H, W, 2) px, x first.
"""

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

MIN_IOU = 0.3  # of a track, moved by the flow, with the mask that continues it
INSIDE = 0.6  # least share of a track inside a mask to count as a part of the mask
IN_SIGHT = 0.7  # least visible share of a part's area to locate the track
MAX_GAP = 2  # frames that a track may miss
STILL = 0.2  # of its size (root of the area): a track that stays closer hardly moves
FILLS = 0.5  # share of the frame above which a track fills it


def look_up(image: np.ndarray, flow: np.ndarray, by: int = cv2.INTER_LINEAR) -> np.ndarray:
    """`image` at p + flow(p); its border is repeated."""
    h, w = flow.shape[:2]
    at = flow + np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    return cv2.remap(image, at, None, by, borderMode=cv2.BORDER_REPLICATE)


class Seen(NamedTuple):
    """A track where it was last visible."""

    frame: int
    mask: np.ndarray  # (H, W) bool
    motion: np.ndarray  # (2,) px per frame, the median of its flow
    alone: int  # frames with its own mask, minus frames with a part of a mask
    found: int  # last frame with a part of it

    def at(self, frame: int) -> np.ndarray:
        """The mask in a later frame, if the motion continues."""
        move = np.eye(2, 3)
        move[:, 2] = (frame - self.frame) * self.motion
        size = self.mask.shape[::-1]
        return cv2.warpAffine(self.mask.astype(np.uint8), move, size, flags=cv2.INTER_NEAREST) > 0


def track(labels: np.ndarray, backs: Iterable[np.ndarray]) -> np.ndarray:
    """Maps in which an object has one number in all frames, counted from 1.

    Each track moves to the next frame by the flow or, where other objects hide it, by its last
    motion. A mask that holds several tracks is cut among them, each pixel to the nearest track,
    for at most as many frames as the tracks were apart, so that an object that was in pieces for a
    moment becomes whole again. Then tracks and masks are paired for the largest sum of IoU (the
    Hungarian method), with at least `MIN_IOU`; other masks begin a track. A track that is missing
    in at most `MAX_GAP` frames is filled in at its expected place, behind the other tracks.

    Args:
        labels: labels (F, H, W), one map per frame.
        backs: flow from each frame but the first to the frame before.
    """
    seen: dict[int, Seen] = {}
    maps, count = np.zeros_like(labels), 0
    gaps: list[tuple[int, int, np.ndarray]] = []  # frame, track, mask if the track comes back
    still = np.zeros((*labels[0].shape, 2), np.float32)
    for frame, (whole, back) in enumerate(zip(labels, chain([still], backs), strict=True)):
        there = _expected(frame, seen, back)
        prior = np.zeros_like(whole)
        for number, mask in reversed(there.items()):
            prior[mask] = number
        parts, of = _cut(whole, {k: m for k, m in there.items() if seen[k].alone > 0})
        tracks, areas = _numbers(prior)
        pieces, sizes = _numbers(parts)
        shared = _shared(prior, parts, tracks, pieces)
        iou = shared / np.maximum(areas[:, None] + sizes - shared, 1)  # (tracks, pieces)
        iou[np.isin(tracks, list(of.values()))] = 0
        iou[:, np.isin(pieces, list(of))] = 0
        pairs = zip(*linear_sum_assignment(-iou), strict=True)
        known = {pieces[c]: tracks[r] for r, c in pairs if iou[r, c] >= MIN_IOU} | of
        for piece, size in zip(pieces, sizes, strict=True):
            count += piece not in known
            number, mask = known.get(piece, count), parts == piece
            maps[frame][mask] = number
            own, last = (whole[mask] == piece).all(), seen.get(number)
            alone = (last.alone if last else 0) + (1 if own else -1)
            if last and not own and size < IN_SIGHT * last.mask.sum():
                seen[number] = last._replace(alone=alone, found=frame)
            else:
                seen[number] = Seen(frame, mask, -np.median(back[mask], 0), alone, frame)
        gone = {k for k, s in seen.items() if frame - s.found > MAX_GAP}
        seen = {k: s for k, s in seen.items() if k not in gone}
        gaps += [(frame, k, s.at(frame)) for k, s in seen.items() if s.found < frame]
        again = {k for k, s in seen.items() if s.found == frame}
        for past, number, mask in gaps:
            if number in again:
                maps[past][mask & (maps[past] == 0)] = number
        gaps = [gap for gap in gaps if gap[1] not in gone | again]
    return maps


def doubtful(maps: np.ndarray) -> dict[str, list[int]]:
    """Doubtful tracks by reason: those that hardly move, and those that fill the frame.

    Args:
        maps: maps (F, H, W) of tracks.
    """
    count, (y, x) = int(maps.max()) + 1, np.indices(maps.shape[1:])
    areas, far = np.zeros((len(maps), count)), np.zeros(count)
    first = np.full((2, count), np.nan)
    for frame, of in zip(maps, areas, strict=True):
        flat = frame.ravel()
        of[:] = np.bincount(flat, minlength=count)
        sums = [np.bincount(flat, axis.ravel(), count) for axis in (x, y)]
        centre = np.stack(sums) / np.where(of > 0, of, np.nan)  # (2, count)
        first = np.where(np.isnan(first), centre, first)
        far = np.fmax(far, np.hypot(*(centre - first)))
    side = np.sqrt(areas.sum(0) / np.maximum((areas > 0).sum(0), 1))
    fill = areas.max(0) > FILLS * maps[0].size
    reasons = {"hardly move": (far < STILL * side) & ~fill, "fill the frame": fill}
    there = areas.any(0) & (np.arange(count) > 0)
    return {reason: np.flatnonzero(of & there).tolist() for reason, of in reasons.items()}


def _expected(frame: int, seen: dict[int, Seen], back: np.ndarray) -> dict[int, np.ndarray]:
    """Expected masks of the tracks in a frame, in order from the lowest (nearest) in the image."""
    there = {}
    for number, last in seen.items():
        if last.frame < frame - 1:
            mask = last.at(frame)
        else:
            mask = look_up(last.mask.astype(np.uint8), back, cv2.INTER_NEAREST) > 0
        if mask.any():
            there[number] = mask
    return dict(sorted(there.items(), key=lambda pair: -np.flatnonzero(pair[1].any(1)).max()))


def _cut(labels: np.ndarray, there: dict[int, np.ndarray]) -> tuple[np.ndarray, dict[int, int]]:
    """The map, with masks of several tracks cut among them, and the track of each new number."""
    parts, count = labels.astype(np.int32), int(labels.max())
    groups: dict[int, dict[int, np.ndarray]] = {}
    of: dict[int, int] = {}
    for number, mask in there.items():
        counts = np.bincount(labels[mask])
        counts[0] = 0
        if counts.max() >= INSIDE * mask.sum():
            groups.setdefault(int(counts.argmax()), {})[number] = mask
    for piece, masks in groups.items():
        if len(masks) > 1:
            far = [
                cv2.distanceTransform((~m).astype(np.uint8), cv2.DIST_L2, 5) for m in masks.values()
            ]
            mask = labels == piece
            parts[mask] = count + 1 + np.argmin(far, 0)[mask]
            of |= dict(enumerate(masks, start=count + 1))
            count += len(masks)
    return parts, of


def _numbers(labels: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The numbers in a map except 0, and their areas in pixels."""
    numbers, areas = np.unique(labels, return_counts=True)
    return numbers[numbers > 0].tolist(), areas[numbers > 0]


def _shared(a: np.ndarray, b: np.ndarray, of_a: list[int], of_b: list[int]) -> np.ndarray:
    """Number of pixels that each object of map a shares with each object of map b."""
    both = np.isin(a, of_a) & np.isin(b, of_b)
    shared = np.zeros((len(of_a), len(of_b)))
    np.add.at(shared, (np.searchsorted(of_a, a[both]), np.searchsorted(of_b, b[both])), 1)
    return shared

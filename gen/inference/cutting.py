"""Masks for a still photo: objects are cut out at clicks or in boxes, by OpenCV's GrabCut.

Images are uint8 RGB (H, W, 3). A place is an array: clicks (K, 2), or a box (4,) left, top, right,
bottom; px of the photo, x first. Masks become ids as `gen.data.clips.cityscapes.read_ids` reads
them: trainId * 1000 + number for things, in the order given; all else is `GROUND`.

GrabCut: Rother et al., "GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts",
SIGGRAPH 2004. From a click, the size of an object is unknown: boxes of many sizes are tried, and
the mask with the clearest outline is taken. That goes wrong more often than a box does.

Mean IoU with the exact masks of all 104 objects in scenes 20 to 39 of Movers' test split (the way
from a click was chosen on scenes 0 to 19), at 64 x 128 and at 256 x 512 px; in brackets without
cutting, the box filled or a disc: box that fits .87 (.71), .95 (.70); box up to 15 % and 1 px too
large on each side .80 (.37), .93 (.45); three clicks .78, .87; one click .71 (.36), .80 (.35). One
click stays at .7 or less for 41 % of the objects at the small size, 33 % at the large one. A box
takes 0.1 s of one core, a click 0.8 s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_fill_holes

from gen.inference.dragging import MOST
from gen.inference.scenes import CLASSES

GROUND = 0  # trainId of all that is no object: road, as of `gen prepare video` without masks
SHAPES = {
    "person": 0.42, "rider": 0.7, "car": 2.1, "truck": 2.2, "bus": 2.3, "train": 3.0,
    "motorcycle": 1.6, "bicycle": 1.5,
}  # things -> usual width by height, which decides between masks from a click  # fmt: skip
LARGEST = 0.9  # share of the photo above which a mask is refused
AROUND = 0.2  # background around a box that GrabCut sees, relative to the box's longer side
FINE_PX, COARSE_PX = 256, 96  # longer side of the part that GrabCut sees: for a result, a trial
SEARCH_PX = 640  # longer side of the photo while boxes around a click are tried
SIZES = 0.03, 0.5, 1.5  # of tried boxes: least and most half side by the photo's, and their step
SEED = 0.03  # radius of what surely belongs to the object around a click, share of the part
MIN_PART = 0.1  # smallest part of an object that is kept, share of its largest
WEAK = 12  # of 255: an outline between px that differ less is no edge
OVERLAY_PX, ENLARGED = 1600, 4  # usual px of the longer side of a picture, largest factor
Place = np.ndarray
Segmenter = Callable[[np.ndarray, Place], np.ndarray]


class Wanted(NamedTuple):
    """An object to cut out: the name of its class, its place, and the words that asked for it."""

    name: str
    place: Place
    words: str


def parse(words: str, size: tuple[int, int]) -> Wanted:
    """An object from words: `car:120,80`, clicks `person:40,20+44,60`, a box `bus:40,20,90,130`.

    Args:
        words: class and place.
        size: width and height of the photo, px.

    Raises:
        ValueError: an unknown class, another form, or a place that is not in the photo.
    """
    name, _, text = words.partition(":")
    if name not in SHAPES:
        raise ValueError(f"object: expected a class of {', '.join(SHAPES)}, got {name!r}")
    try:
        points = [[float(value) for value in point.split(",")] for point in text.split("+")]
    except ValueError:
        points = []
    lengths = {len(point) for point in points}
    if not (lengths == {2} or (lengths == {4} and len(points) == 1)):
        raise ValueError(
            f"object: expected CLASS:X,Y for a click, CLASS:X,Y+X,Y for more, or CLASS:LEFT,TOP,"
            f"RIGHT,BOTTOM for a box, got {words!r}"
        )
    (w, h), place = size, np.array(points)
    if lengths == {2}:
        inside = (place >= 0).all() and (place < (w, h)).all()
    else:
        place = place[0]
        left, top, right, bottom = place
        inside = 0 <= left <= right - 1 and right <= w and 0 <= top <= bottom - 1 and bottom <= h
    if not inside:  # NaN neither
        form = "clicks" if lengths == {2} else "LEFT,TOP,RIGHT,BOTTOM"
        raise ValueError(f"{words}: expected {form} in the photo of {w} x {h} px; it is not")
    return Wanted(name, place, words)


# ---- GrabCut ------------------------------------------------------------------------------------


def grabcut(image: np.ndarray, place: Place, shape: float = 1.0) -> np.ndarray:
    """Mask (H, W) bool of the object at clicks or in a box. Equal inputs give equal masks.

    Args:
        image: photo of any size; what GrabCut sees of it is resized to `FINE_PX`.
        place: clicks on the object, or a box around it.
        shape: usual width by height of such objects; only used with clicks.

    Raises:
        ValueError: a box that leaves no background around it.
    """
    if place.ndim == 1:
        return _cut(image, place, np.empty((0, 2)), FINE_PX)
    k = min(1.0, SEARCH_PX / max(image.shape[:2]))
    small = image if k == 1 else cv2.resize(image, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
    trials = _trials(small, (place + 0.5) * k - 0.5, shape)
    if not trials:
        return np.zeros(image.shape[:2], bool)
    box = _tight(max(trials, key=lambda trial: trial[0])[1]) / k
    return _cut(image, _grown(box, image.shape), place, FINE_PX)


def _trials(image: np.ndarray, clicks: Place, shape: float) -> list[tuple[float, np.ndarray]]:
    """Masks from boxes of all `SIZES`, square or of a shape, around clicks, each with its score.

    A box that was guessed gives a mask, and the box of that mask gives the mask that counts.
    """
    low, high = clicks.min(0) + 0.5, clicks.max(0) + 0.5
    side, (least, most, step), found = min(image.shape[:2]), SIZES, []
    for half in side * most * step ** -np.arange(1 + np.log(most / least) / np.log(step)):
        for form in dict.fromkeys((1.0, shape)):
            reach = np.array([form**0.5, form**-0.5]) * max(half, 1)
            box, mask = np.concatenate([low - reach, high + reach]), None
            for again in range(2):
                box = box if again == 0 else _grown(_tight(mask), image.shape)
                inside = box.clip(0, np.tile(image.shape[1::-1], 2))
                if _covers(inside, image.shape):
                    break
                mask = _cut(image, inside, clicks, COARSE_PX, rounds=2)
                if not mask.any():
                    break
                if again:
                    found.append((_score(image, mask, inside, shape), mask))
    return found


def _cut(image: np.ndarray, box: Place, clicks: Place, work_px: int, rounds: int = 3) -> np.ndarray:
    """Mask (H, W) bool of an object in a box, of the parts at the clicks, if there are some.

    Without background around the box, as small as GrabCut sees it, clicks give an empty mask.
    """
    around = max(2.0, AROUND * max(box[2:] - box[:2]))
    low = np.floor(box[:2] - around).astype(int).clip(0)
    high = np.ceil(box[2:] + around).astype(int).clip(None, image.shape[1::-1])
    part = image[low[1] : high[1], low[0] : high[0]]
    k = work_px / max(part.shape[:2])
    size = tuple(max(1, round(n * k)) for n in part.shape[1::-1])
    way = cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC
    small, scale = cv2.resize(part, size, interpolation=way), size / (high - low)
    marks = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    left, top = np.floor((box[:2] - low) * scale).astype(int)
    right, bottom = np.ceil((box[2:] - low) * scale).astype(int)
    marks[top:bottom, left:right] = cv2.GC_PR_FGD
    seeds = np.floor((clicks + 0.5 - low) * scale).astype(int)
    for seed in seeds:
        cv2.circle(marks, seed.tolist(), max(1, round(SEED * work_px)), cv2.GC_FGD, -1)
    if _covers(box, image.shape) or not (marks == cv2.GC_BGD).any():
        if len(clicks):
            return np.zeros(image.shape[:2], bool)
        raise ValueError("expected a box with background around it, got nearly all of the photo")
    cv2.setRNGSeed(0)  # it begins with random colours
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, marks, None, *models, rounds, cv2.GC_INIT_WITH_MASK)
    mask = _parts((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD), seeds)
    way = cv2.INTER_AREA if k > 1 else cv2.INTER_LINEAR
    share = cv2.resize(mask.astype(np.float32), tuple(high - low), interpolation=way)
    whole = np.zeros(image.shape[:2], bool)
    whole[low[1] : high[1], low[0] : high[0]] = share >= 0.5
    return whole


def _parts(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The connected parts of a mask at the seeds; without seeds, its large ones. Without holes."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    area = stats[:, cv2.CC_STAT_AREA] * (np.arange(len(stats)) > 0)  # 0: the background
    kept = np.flatnonzero((area > 0) & (area >= MIN_PART * area.max()))
    if len(seeds):
        x, y = seeds.clip(0, np.array(mask.shape[::-1]) - 1).T
        kept = np.setdiff1d(parts[y, x], 0)
    return binary_fill_holes(np.isin(parts, kept))


def _score(image: np.ndarray, mask: np.ndarray, box: Place, shape: float) -> float:
    """Rates a mask from a click: its outline lies on edges and within its box, it is large but not
    nearly all, and its proportions are usual. Found on drawn streets."""
    weak = crossed = 0
    for axis in (0, 1):
        outline = np.diff(mask, axis=axis)
        step = np.abs(np.diff(image.astype(np.int16), axis=axis)).max(-1)[outline]
        weak, crossed = weak + (step < WEAK).sum(), crossed + len(step)
    h, w = mask.shape
    left, top, right, bottom = np.round(box).astype(int)
    cut = mask[:, left].sum() * (left > 0) + mask[top].sum() * (top > 0)
    cut += mask[:, right - 1].sum() * (right < w) + mask[bottom - 1].sum() * (bottom < h)
    length, area = max(crossed, 1), mask.mean()
    wide, high = _tight(mask)[2:] - _tight(mask)[:2]
    usual = np.exp(-abs(np.log(wide / high / shape)))
    clear = (1 - weak / length) ** 2 * max(1 - cut / length, 0)
    return float(clear * area**0.35 * (1 - area) ** 12 * usual)


def _covers(box: Place, shape: Sequence[int]) -> bool:
    """True if a box leaves no px of the photo outside."""
    return bool((box[:2] < 1).all() and (box[2:] > np.array(shape[1::-1]) - 1).all())


def _tight(mask: np.ndarray) -> Place:
    """Box of a mask with some px."""
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], float)


def _grown(box: Place, shape: Sequence[int]) -> Place:
    """A box that is larger by a tenth and one px on each side, within the photo."""
    more = 1 + 0.1 * (box[2:] - box[:2])
    return np.concatenate([box[:2] - more, box[2:] + more]).clip(0, np.tile(shape[1::-1], 2))


# ---- masks of a photo ---------------------------------------------------------------------------


def masks(
    image: np.ndarray, wanted: Sequence[Wanted], segment: Segmenter | None = None
) -> np.ndarray:
    """Ids (H, W) uint16 of a photo whose objects are cut out; a later one lies in front.

    Args:
        image: photo (H, W, 3), uint8.
        wanted: objects in order, the farthest first.
        segment: function (image, place) -> mask (H, W) bool; None takes `grabcut`.

    Raises:
        ValueError: no object or too many; a mask that is empty, hidden by later ones, or nearly
            the whole photo; or a function that returns something else.
    """
    if not 0 < len(wanted) <= MOST:
        raise ValueError(f"expected 1 to {MOST} objects, got {len(wanted)}")
    ids, numbers, given = np.full(image.shape[:2], GROUND, np.uint16), Counter(), {}
    for name, place, words in wanted:
        try:
            mask = segment(image, place) if segment else grabcut(image, place, SHAPES[name])
            _check(mask, image.shape[:2])
        except ValueError as error:
            raise ValueError(f"{words}: {error}") from error
        numbers[name] += 1
        id_ = CLASSES.index(name) * 1000 + numbers[name]
        ids[mask], given[id_] = id_, words
    for id_ in given.keys() - {*np.unique(ids).tolist()}:
        raise ValueError(
            f"{given[id_]}: expected an object that shows, got one that later objects hide; give "
            "the farthest first, and smaller boxes"
        )
    return ids


def _check(mask: np.ndarray, size: tuple[int, int]) -> None:
    """Refuses what is no mask of an object."""
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != size:
        got = getattr(mask, "dtype", type(mask).__name__), getattr(mask, "shape", "")
        raise ValueError(f"expected a bool array {size} of the segmenter, got {got[0]} {got[1]}")
    if not mask.any():
        raise ValueError("expected an object there, got an empty mask; give a box around it")
    if mask.mean() > LARGEST:
        raise ValueError(
            f"expected an object, got a mask of {mask.mean():.0%} of the photo; give a box around "
            "the object, or a smaller one"
        )


def overlay(image: np.ndarray, ids: np.ndarray, most_px: int = OVERLAY_PX) -> Image.Image:
    """The photo with each object tinted, outlined and named; its longer side has `most_px`, or
    less after an enlargement by `ENLARGED`."""
    k = min(most_px / max(ids.shape), ENLARGED)
    size = tuple(max(1, round(n * k)) for n in ids.shape[::-1])
    sheet = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    ids = cv2.resize(ids, sheet.size, interpolation=cv2.INTER_NEAREST_EXACT)
    pixels, found = np.array(sheet), np.unique(ids[ids >= 1000]).tolist()
    for k, id_ in enumerate(found):
        hue = np.uint8([[[k * 67 % 180, 230, 255]]])
        colour, mask = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0], (ids == id_).astype(np.uint8)
        pixels[mask > 0] = (0.65 * pixels[mask > 0] + 0.35 * colour).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, lines, -1, colour.tolist(), 2)
    sheet, font = Image.fromarray(pixels), ImageFont.load_default(size=14)
    draw = ImageDraw.Draw(sheet)
    for id_ in found:
        left, top, right, _ = _tight(ids == id_)
        text = f"{id_} {CLASSES[id_ // 1000]}"
        half = font.getlength(text) / 2 + 2
        x = min(max((left + right) / 2, half), max(sheet.width - half, half))
        at = x, max(top - 4, 18)
        draw.text(at, text, "white", font, anchor="mb", stroke_width=2, stroke_fill="black")
    return sheet

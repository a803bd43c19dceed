"""A still image with masks, from files or drawn, and requests to it from a command line.

Masks are one PNG of 16 bits as `gen.data.clips.cityscapes.read_ids` reads it, here and in
data_prep: things are trainId * 1000 + number, other pixels are their trainId, 255 is unknown.
Positions are px of the image as given, x first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gen.data.clips.cityscapes import read_ids
from gen.data.clips.decoding import NEAREST, Part, fitted, kept
from gen.data.images import load_image, to_tensor
from gen.data.movers import BRANCHES, Movers
from gen.inference.dragging import NEAR_PX, Drag, Request, pick, positions, resized
from gen.inference.tracks import Track
from gen.networks.click_to_move.animator import Scene
from gen.networks.click_to_move.layers import STEP
from gen.ops.motion import nearness, object_masks, rasterise

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip


MOST_ASPECT = 4.0
NOTHING = "none: things are trainId * 1000 + number in its masks, as 13001 for a car"


class Still(NamedTuple):
    """An image at a model's size, and its masks as given."""

    frame: Tensor  # (3, H, W) in [-1, 1]
    semantic: Tensor  # (H, W) trainIds, 255 void
    instance: Tensor  # (H, W) ids, below 1000 where no object is
    given: Tensor  # (h, w) ids
    note: str  # text on the fitting
    scale: tuple[float, float] = (1.0, 1.0)  # px of the model per given px, along x and y
    corner: tuple[float, float] = (0.0, 0.0)  # given px, left and top of what the model sees
    previous: Tensor | None = None  # (3, H, W), the frame before


def read(
    frame: str | Path,
    masks: str | Path,
    size: tuple[int, int],
    fit: str = "crop",
    previous: str | Path | None = None,
) -> Still:
    """An image file and its masks, as a frame of (H, W) px.

    Args:
        frame: file of the image.
        masks: file of its masks.
        size: height and width (H, W), px.
        fit: way to fit the image, see `gen.data.clips.decoding.kept`; choose the one that the model
            was trained with.
        previous: file of the frame before the image, of the same size.

    Raises:
        ValueError: files that are missing, damaged, of different sizes, or not masks.
    """
    image = load_image(frame)
    before = None if previous is None else load_image(previous)
    if before is not None and before.size != image.size:
        raise ValueError(
            f"{previous}: expected the width and height of {frame}, {image.size}, got {before.size}"
        )
    try:
        ids = read_ids(Path(masks), image.size).astype(np.uint16)
    except ValueError as error:
        raise ValueError(f"{error}; masks need one number for each px of {frame}") from error
    part = kept(ids.shape, *size, fit)
    small = fitted(ids, *size, fit, NEAREST)
    pixels, past = (
        x if x is None else to_tensor(fitted(np.asarray(x), *size, fit)) for x in (image, before)
    )
    given, maps = (torch.from_numpy(x.astype(np.int64)) for x in (ids, small))
    semantic = (maps // 1000).where(maps >= 1000, maps)
    scale = size[1] / part.width, size[0] / part.height
    note, corner = _note(ids, small, part), (float(part.left), float(part.top))
    return Still(pixels, semantic, maps, given, note, scale, corner, past)


def best_size(method, frame: str | Path | None = None) -> tuple[int, int]:
    """Height and width, px, of the frames that a `ClickToMove` should make of an image file."""
    if frame is None:
        return tuple(method.shape[1:])
    return size_near(method, *load_image(frame).size)


def size_near(method, wide: int, high: int) -> tuple[int, int]:
    """Height and width, px, of the frames of a `ClickToMove` for an image of wide x high px.

    Those of the model; if it takes any size, one of about the same area in proportions as near to
    those of the image as multiples of 16 px come, but at most 4 : 1.
    """
    steps, height, width = method.shape
    aspect = min(max(wide / high, 1 / MOST_ASPECT), MOST_ASPECT)
    middle = round(math.sqrt(height * width / aspect) / STEP)
    sizes = []
    for h in (STEP * k for k in range(max(2, middle - 1), middle + 2)):
        size = h, STEP * max(2, round(h * aspect / STEP))
        if method.takes_size((steps, *size)):
            sizes.append(size)

    def loss(size: tuple[int, int]) -> float:
        h, w = size
        return 2 * abs(math.log(w / h / aspect)) + abs(math.log(h * w / (height * width)))

    return min(sizes, key=loss, default=(height, width))


def _note(ids: np.ndarray, small: np.ndarray, part: Part) -> str:
    """A note on the effect of fitting on an image and its objects."""
    (h, w), (H, W), notes = ids.shape, small.shape, []
    if part[2:] != (h, w):
        notes.append(f"cut to the middle {part.width} x {part.height} of {w} x {h} px")
    if part[2:] != (H, W):
        notes.append(f"resized from {part.width} x {part.height} to {W} x {H} px")
        if abs(part.width / part.height / (W / H) - 1) > 0.02:
            notes.append("which changes its proportions")
    top, left, high, wide = part
    inside = ids[top : top + high, left : left + wide]
    outside = ids.copy()
    outside[top : top + high, left : left + wide] = 0
    every, there, beyond, stay = ({*np.unique(x[x >= 1000]).tolist()}
                                  for x in (ids, inside, outside, small))  # fmt: skip
    lost = {
        "cut off": every - there,
        "too small to stay": there - stay,
        "cut in two": stay & beyond,
    }
    notes += [f"{how}: {', '.join(map(str, sorted(ids)))}" for how, ids in lost.items() if ids]
    return ", ".join(notes)


def drawn(number: int, size: tuple[int, int], frames: int) -> Still:
    """The first frame of a scene in the test split of `Movers`, (H, W) px."""
    clips = Movers(*size, frames, num_workers=0).clips("test")
    if not 0 <= number < clips.count:
        raise ValueError(f"scene: expected a number in 0 .. {clips.count - 1}, got {number}")
    clip = clips[number * len(BRANCHES)]  # the unchanged branch
    numbers, semantic = clip["instance"][0], clip["semantic"][0]
    ids = clip["ids"][(numbers - 1).clamp(min=0)].where(numbers > 0, semantic)
    return Still(clip["video"][0], semantic, ids, ids, "")


def objects(still: Still) -> list[tuple[int, str, int, int]]:
    """Id, class and centre x, y px of all objects that the model sees."""
    found = []
    for id_ in still.instance[still.instance >= 1000].unique().tolist():
        y, x = (still.given == id_).nonzero(as_tuple=True)
        centre = (int((axis.min() + axis.max()) / 2) for axis in (x, y))
        found.append((id_, CLASSES[id_ // 1000], *centre))
    return found


def listed(still: Still) -> str:
    """The objects of a scene, as text."""
    return ", ".join(f"{id_} ({name} at {x},{y})" for id_, name, x, y in objects(still)) or NOTHING


def table(still: Still, ids: Sequence[int], boxes: Tensor, moved_by: Sequence[str]) -> str:
    """A table of the motion of objects up to the last frame, one line each.

    Args:
        still: image that holds the objects.
        ids: ids of the M objects.
        boxes: boxes (T + 1, M, 4), px of the model, see `gen.inference.dragging.positions`.
        moved_by: words for the M objects, see the function `moved_by`.
    """
    lines = [f"{'id':>6}  {'class':10}  {'moved by':8}  {'dx px':>6}  {'dy px':>6}  scale"]
    ways = ((boxes[-1] - boxes[0])[:, :2].cpu() / torch.tensor(still.scale)).tolist()
    grown = (boxes[-1] / boxes[0])[:, 2:].prod(1).sqrt().tolist()
    for id_, by, (dx, dy), s in zip(ids, moved_by, ways, grown, strict=True):
        way = f"{'-':>6}  {'-':>6}  {'-':>5}"
        if by != "removed":
            way = f"{dx:+6.1f}  {dy:+6.1f}  {s:5.2f}"
        lines.append(f"{id_:6d}  {CLASSES[id_ // 1000]:10}  {by:8}  {way}")
    return "\n".join(lines)


def moved_by(request: Request, scene: Scene) -> list[str]:
    """Mover of each object in a scene (N = 1): `you`, or `reacts` for the model; else `pinned` or
    `removed`."""
    groups = {"you": request.moved, "pinned": request.pins, "removed": request.remove}
    who = {id_: word for word, ids in groups.items() for id_ in ids}
    return [who.get(id_, "reacts") for id_ in scene.ids[scene.present].tolist()]


def to_tracks(still: Still, points: np.ndarray) -> tuple[Track, ...]:
    """Tracks of objects from positions (K, T, 2), given px: of each point that begins on one.

    Raises:
        ValueError: no point begins on an object that the model sees.
    """
    (h, w), seen = still.given.shape, {id_ for id_, *_ in objects(still)}
    found: dict[int, list] = {}
    for way in points:
        x, y = np.round(way[0]).astype(int).clip(-1, 2**30)
        id_ = int(still.given[y, x]) if 0 <= x < w and 0 <= y < h else 0
        if id_ in seen:
            found.setdefault(id_, []).append(tuple(map(tuple, way.tolist())))
    if not found:
        raise ValueError(
            f"tracks: expected points that begin on an object, got none of {len(points)}; there "
            f"are {listed(still)}"
        )
    return tuple(Track(id_, tuple(ways)) for id_, ways in sorted(found.items()))


def to_model(request: Request, still: Still) -> Request:
    """A request in px of the image as given, in px of the model."""
    left, top = still.corner
    return resized(_shifted(request, -left, -top), *still.scale)


def to_given(request: Request, still: Still) -> Request:
    """A request in px of the model, in px of the image as given."""
    return _shifted(resized(request, *(1 / k for k in still.scale)), *still.corner)


def _shifted(request: Request, dx: float, dy: float) -> Request:
    """A request of which all places are (dx, dy) px farther; paths and the camera are no places."""
    tracks = tuple(
        Track(id_, tuple(tuple((x + dx, y + dy) for x, y in way) for way in points))
        for id_, points in request.tracks
    )
    return request._replace(tracks=tracks)


def from_motion(
    still: Still, scene: Scene, theta: Tensor, removed: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the objects, given px (M, T + 1, 2), and where an object shows, bool (M, T + 1).

    The centres of removed objects are NaN; they show nowhere.

    Args:
        still: image that holds the objects.
        scene: that image as a scene (N = 1).
        theta: motion (1, T, M, 2, 3) of all objects.
        removed: ids of the removed objects.
    """
    gone = torch.isin(scene.ids[0], scene.ids.new_tensor(removed))  # (M,)
    M = int(scene.present.sum())
    masks = object_masks(scene.instance, theta.shape[2]) * ~gone[:, None, None]
    owner = rasterise(masks, theta, nearness(scene.boxes, theta))[1][0]  # (T, H, W)
    numbers = torch.arange(1, M + 1, device=owner.device)[:, None, None, None]
    seen = (owner == numbers).flatten(2).any(2)  # (M, T)
    centres = positions(scene, theta)[:, :M, :2].movedim(0, 1).cpu().numpy()
    places = centres / np.array(still.scale) + np.array(still.corner)
    shown = np.pad(seen.cpu().numpy(), ((0, 0), (1, 0)), constant_values=True)
    places[gone[:M].cpu().numpy()], shown[gone[:M].cpu().numpy()] = np.nan, False
    return places.astype(np.float32), shown


def parse_request(
    still: Still,
    drags: Sequence[str] = (),
    pins: Sequence[str] = (),
    scales: Sequence[str] = (),
    camera: str | None = None,
    seed: int = 0,
    remove: Sequence[str] = (),
    confidence: Sequence[str] = (),
) -> Request:
    """A request from words: drags `13001:8,-2`, pins `13002`, scales `13001:1.5`, camera `4,0,1.1`,
    objects to remove `13003`, confidence in drags `13001:0.5`.

    A position x,y in the object can replace its id, as in `40,22:8,-2`.

    Raises:
        ValueError: other words, or a position without an object; expected, got, and all objects.
    """
    form = "ID:DX,DY or X,Y:DX,DY"
    ways = [(_whose(still, "drag", text, form), _numbers("drag", text, 2, form)) for text in drags]
    sizes, sure = _each(still, "scale", scales), _each(still, "confidence", confidence)
    ways += [(id_, (0.0, 0.0)) for id_ in sizes if id_ not in dict(ways)]
    if free := [id_ for id_ in sure if id_ not in dict(ways)]:
        raise ValueError(f"confidence: expected a drag or scale of {free[0]} as well, got none")
    return Request(
        tuple(
            Drag(id_, ((0.0, 0.0), way), sizes.get(id_, 1.0), sure.get(id_, 1.0))
            for id_, way in ways
        ),
        _those(still, "pin", pins),
        None if camera is None else _numbers("camera", f":{camera}", 3, "DX,DY,ZOOM"),
        seed,
        remove=_those(still, "remove", remove),
    )


def _each(still: Still, what: str, words: Sequence[str]) -> dict[int, float]:
    """One number for each object named."""
    form = f"ID:{what.upper()} or X,Y:{what.upper()}"
    found = {_whose(still, what, text, form): _numbers(what, text, 1, form)[0] for text in words}
    if len(found) < len(words):
        raise ValueError(f"{what}: expected one for an object, got {', '.join(words)}")
    return found


def _those(still: Still, what: str, words: Sequence[str]) -> tuple[int, ...]:
    """Ids of the objects named."""
    if wrong := [text for text in words if ":" in text]:
        raise ValueError(f"{what}: expected ID or X,Y, got {wrong[0]!r}")
    return tuple(_whose(still, what, f"{text}:", "ID or X,Y") for text in words)


def _numbers(what: str, text: str, count: int, form: str) -> tuple[float, ...]:
    """The numbers after the colon."""
    try:
        values = tuple(float(v) for v in text.partition(":")[2].split(","))
    except ValueError:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise ValueError(f"{what}: expected {form} of finite numbers, got {text.strip(':')!r}")
    return values


def _whose(still: Still, what: str, text: str, form: str) -> int:
    """Id before the colon, or id of the object at the position before the colon."""
    who = text.partition(":")[0]
    if "," not in who:
        if not who.isdecimal():
            raise ValueError(f"{what}: expected {form}, got {text.strip(':')!r}")
        if (id_ := int(who)) not in {known for known, *_ in objects(still)}:
            raise ValueError(f"{what}: expected an id of {listed(still)}, got {id_}")
        return id_
    (x, y), (h, w) = _numbers(what, f":{who}", 2, "X,Y"), still.given.shape
    if not (0 <= x < w and 0 <= y < h):
        raise ValueError(f"{what}: expected a place in the image of {w} x {h} px, got {who}")
    id_ = pick(still.given, x, y)
    if id_ not in {known for known, *_ in objects(still)}:
        got = "none" if id_ is None else f"{id_}, which is cut off or too small"
        raise ValueError(
            f"{what}: expected an object within {NEAR_PX} px of {who}, got {got}; there are "
            f"{listed(still)}"
        )
    return id_

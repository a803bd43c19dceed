"""Requests to a scene: drags of objects, pins, removals, a motion of the camera.

As JSON: {"drags": [{"id": 13001, "path": [[x, y], ...], "scale": 1.0, "confidence": 1.0}],
"pins": [13002], "remove": [13004], "camera": [dx, dy, zoom], "seed": 0,
"tracks": [{"id": 13003, "points": [[[x, y], ...], ...]}]}. All keys are optional, and of a drag
`scale` and `confidence`. Positions are px of the frame, x first; only differences along a path
matter, so [[0, 0], [dx, dy]] is a drag by (dx, dy). `tracks` are points of an object at even times,
see `gen.inference.tracks`: a drag whose speed varies or that turns.
A drag of `confidence` 1 is followed exactly; with less, down to 0, it is a hint that the model may
correct. Objects to `remove` leave the image: the others react, and the model fills the holes.
`scale` and `zoom` refer to the last frame. The camera moves the ground, and pinned objects stay on
it; without `camera` the model invents the motion, and a pinned object stays in place in the image.

Letters in shapes: N batch, T frames after the first, M objects, H height, W width.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from gen.devices import float64, send
from gen.inference import past
from gen.inference.tracks import Track, normalised, similarities
from gen.inference.tracks import faster as quicker
from gen.networks.click_to_move.animator import Animation, Motion, Scene
from gen.ops.motion import move_boxes, theta_from_boxes

MOST = 40  # largest number of objects
FARTHEST = 4  # longest drag, in image sides
ZOOMS = 0.25, 4.0  # least and largest scale and zoom
NEAR_PX = 8  # a click within this distance selects an object
LACKS = "{0}: expected none of a model that was trained without; leave it out, or train with {1}"
TRAINED = {  # option that trains a model to take an input, and the name of the input
    "camera": ("--model.camera 0.5", "camera"),
    "confidence": ("--model.unsure 0.2", "confidence below 1"),
    "past": ("--model.past 0.5", "previous frame"),
}


class Drag(NamedTuple):
    """An object's id, its path (x, y) px, its scale in the last frame, and how far to trust it."""

    id: int
    path: tuple[tuple[float, float], ...]
    scale: float = 1.0
    confidence: float = 1.0


class Request(NamedTuple):
    """Drags, ids of pinned objects, the camera's (dx, dy, zoom) in the last frame, a seed of all
    motion that is not requested, tracks of points, and ids of objects to remove."""

    drags: tuple[Drag, ...] = ()
    pins: tuple[int, ...] = ()
    camera: tuple[float, float, float] | None = None
    seed: int = 0
    tracks: tuple[Track, ...] = ()
    remove: tuple[int, ...] = ()

    @property
    def moved(self) -> list[int]:
        """Ids of the objects that the user moves."""
        return [one.id for one in (*self.drags, *self.tracks)]


def parse(text: str | dict[str, Any]) -> Request:
    """A request from JSON, as above, or from the parsed JSON.

    Raises:
        ValueError: not a request; expected and got.
    """
    try:
        data = json.loads(text) if isinstance(text, str) else text
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"request: expected JSON, got {error}") from None
    _only(data, {"drags", "pins", "remove", "camera", "seed", "tracks"}, "request")
    try:
        drags = []
        for item in _list(data.get("drags", [])):
            _only(item, {"id", "path", "scale", "confidence"}, "a drag")
            path = tuple((_number(x), _number(y)) for x, y in _list(item["path"]))
            more = (_number(item.get(key, 1.0)) for key in ("scale", "confidence"))
            drags.append(Drag(_whole(item["id"]), path, *more))
        pins, remove = (
            tuple(_whole(id_) for id_ in _list(data.get(key, []))) for key in ("pins", "remove")
        )
        tracks = tuple(_track(item) for item in _list(data.get("tracks", [])))
        camera, seed = data.get("camera"), _whole(data.get("seed", 0))
        if camera is not None:
            dx, dy, zoom = (_number(v) for v in _list(camera))
            camera = (dx, dy, zoom)
        return Request(tuple(drags), pins, camera, seed, tracks, remove)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            'request: expected {"drags": [{"id": 13001, "path": [[x, y], ...], "scale": 1.0, '
            '"confidence": 1.0}], "pins": [ids], "remove": [ids], "camera": [dx, dy, zoom], '
            '"seed": 0, "tracks": [{"id": 13003, '
            f'"points": [[[x, y], ...], ...]}}]}}, got {data!s:.200} '
            f"({type(error).__name__}: {error})"
        ) from None


def _track(item: Any) -> Track:
    _only(item, {"id", "points"}, "a track")
    ways = _list(item["points"])
    points = tuple(tuple((_number(x), _number(y)) for x, y in _list(way)) for way in ways)
    return Track(_whole(item["id"]), points)


def read(path: str | Path) -> Request:
    """The request in a JSON file; see `parse`."""
    try:
        return parse(Path(path).read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: request: expected JSON in UTF-8, got other bytes") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def dump(request: Request) -> str:
    """JSON from which `parse` makes an equal request."""
    named = {key: [one._asdict() for one in getattr(request, key)] for key in ("drags", "tracks")}
    return json.dumps(request._asdict() | named)


def faster(request: Request, speed: float) -> Request:
    """Makes all motions `speed` times as far; sizes and zoom are raised to the power `speed`."""
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"speed: expected a number above 0, got {speed}")
    out = resized(request, speed, speed)
    drags = tuple(drag._replace(scale=_power(drag.scale, speed)) for drag in out.drags)
    camera = out.camera and (*out.camera[:2], _power(out.camera[2], speed))
    tracks = request.tracks if speed == 1 else tuple(_quicker(t, speed) for t in request.tracks)
    return out._replace(drags=drags, camera=camera, tracks=tracks)


def _quicker(track: Track, speed: float) -> Track:
    ways = quicker(_points(track), speed).tolist()
    return Track(track.id, tuple(tuple(map(tuple, way)) for way in ways))


def _power(scale: float, speed: float) -> float:
    """scale ** speed; NaN, which `motion` refuses, if there is no such number."""
    with np.errstate(all="ignore"):
        return float(np.float64(scale) ** speed)


def resized(request: Request, x: float, y: float) -> Request:
    """Scales a request to an image that is x times as wide and y times as high."""
    drags = tuple(
        drag._replace(path=tuple((a * x, b * y) for a, b in drag.path)) for drag in request.drags
    )
    tracks = tuple(
        Track(id_, tuple(tuple((a * x, b * y) for a, b in way) for way in points))
        for id_, points in request.tracks
    )
    camera = request.camera and (request.camera[0] * x, request.camera[1] * y, request.camera[2])
    return request._replace(drags=drags, camera=camera, tracks=tracks)


def _is(value: Any, kinds: tuple[type, ...], what: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"expected {what}, got {value!r:.100}")
    return value


def _list(value: Any) -> list:
    return list(_is(value, (list, tuple), "a list"))


def _number(value: Any) -> float:
    return float(_is(value, (int, float), "a number"))


def _whole(value: Any) -> int:
    if not _number(value).is_integer():
        raise TypeError(f"expected a whole number, got {value!r:.100}")
    return int(value)


def _only(data: Any, names: set[str], what: str) -> None:
    got = sorted(set(data) - names) if isinstance(data, dict) else data
    if got or not isinstance(data, dict):
        raise ValueError(f"{what}: expected an object of {', '.join(sorted(names))}, got {got}")


def scene(frame: Tensor, semantic: Tensor, instance: Tensor) -> Scene:
    """A scene (N = 1) of one image with its masks; without objects, M = 1 and `present` is False.

    Args:
        frame: image (3, H, W) in [-1, 1].
        semantic: labels (H, W), trainIds, 255 void.
        instance: instance ids (H, W), trainId * 1000 + number for things, below 1000 elsewhere.

    Raises:
        ValueError: maps of another size than the frame, unknown classes, or more than 40 objects.
    """
    H, W = size = tuple(frame.shape[-2:])
    for name, got in (("semantic", semantic.shape), ("instance", instance.shape)):
        if tuple(got) != size or tuple(frame.shape) != (3, H, W):
            raise ValueError(
                f"{name}: expected maps {size} of a frame (3, {H}, {W}), got {tuple(got)} of "
                f"{tuple(frame.shape)}"
            )
    found = instance[instance >= 1000].unique()  # (K,), sorted
    if len(found) > MOST or (len(found) and found[-1] >= 19000):
        raise ValueError(
            f"instance: expected at most {MOST} objects of ids 1000 .. 18999, trainId * 1000 + "
            f"number, got {len(found)} up to {int(found[-1])}; merge or remove some"
        )
    M = max(len(found), 1)
    numbered, boxes = torch.zeros_like(instance), torch.zeros(M, 4, device=frame.device)
    for k, id_ in enumerate(found):
        mask = instance == id_
        numbered[mask] = k + 1
        for axis, n in ((0, W), (1, H)):
            line = mask.any(axis).nonzero()
            low, high = line[0, 0], line[-1, 0]
            boxes[k, axis], boxes[k, 2 + axis] = (low + high) / (n - 1) - 1, (high - low + 1) / n
    ids, present = boxes.new_zeros(M, dtype=torch.int64), boxes.new_zeros(M, dtype=torch.bool)
    ids[: len(found)], present[: len(found)] = found, True
    one = (frame, semantic, numbered, boxes, ids // 1000, ids, present)
    return Scene(*(value[None] for value in one))


def pick(instance: Tensor, x: float, y: float) -> int | None:
    """Id at a click in a map (H, W), or of the nearest object within 8 px; None: background."""
    row, column = (instance >= 1000).nonzero(as_tuple=True)
    distance = (column - x).square() + (row - y).square()
    if not len(row) or distance.min() > NEAR_PX**2:
        return None
    return int(instance[row, column][distance.argmin()])


def motion(request: Request, scene: Scene, steps: int) -> Motion:
    """Motion that a request means for a scene (N = 1), over T = `steps` further frames.

    An object's centre follows its path at constant speed; between the given points, a monotone
    cubic over the path length (PCHIP) interpolates. Its size changes evenly. Tracked points move
    their object as `gen.inference.tracks.similarities` fits them.

    Raises:
        ValueError: ids that are absent or requested twice; numbers that are not finite or out of
            range; an object that is dragged out of the image.
    """
    H, W = scene.frame.shape[-2:]
    there = _there(request, scene)
    image = scene.boxes.new_tensor([[0, 0, 1, 1]])  # moves with the camera, like one more object
    boxes = float64(torch.cat([scene.boxes[0], image]))
    boxes = boxes.repeat(steps + 1, 1, 1)  # (T + 1, M + 1, 4)
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=boxes.device)[:, None]
    px = boxes.new_tensor([2 / (W - 1), 2 / (H - 1)])

    def move(k: int, way: Tensor, scale: float) -> None:  # `way` (T + 1, 2) px
        boxes[:, k, :2] += way * px
        boxes[:, k, 2:] *= 1 + (scale - 1) * share

    for drag in request.drags:
        k = there[drag.id]
        _check(f"drag of {drag.id}", drag.path, drag.scale, FARTHEST * max(H, W))
        move(k, torch.from_numpy(resample(drag.path, steps)).to(boxes), drag.scale)
        _check_inside(drag.id, boxes[:, k], (H, W))
    *way, zoom = request.camera or (0.0, 0.0, 1.0)
    _check("camera", ((0, 0), way), zoom, FARTHEST * max(H, W))
    move(-1, share * boxes.new_tensor(way), zoom)
    theta = theta_from_boxes(boxes).to(scene.boxes)[None]  # (1, T, M + 1, 2, 3)
    theta, camera = theta[:, :, :-1], theta[:, :, -1]
    for track in request.tracks:
        k, moved = there[track.id], _tracked(track, steps, (H, W))
        theta[0, :, k] = torch.from_numpy(moved).to(theta)
        _check_inside(track.id, move_boxes(scene.boxes[0], theta[0])[:, k], (H, W))
    theta[:, :, [there[id_] for id_ in request.pins]] = camera[:, :, None]
    user, removed = (
        torch.isin(scene.ids, scene.ids.new_tensor(ids))
        for ids in ([*request.moved, *request.pins], request.remove)
    )
    known = torch.full_like(user[:, 0], request.camera is not None)
    made = Motion(user, theta, known, camera, confidence=_confidence(request, scene, there))
    return made._replace(removed=removed) if request.remove else made


def _there(request: Request, scene: Scene) -> dict[int, int]:
    """Number of each object by its id; checks the ids of a request."""
    there = {int(id_): k for k, id_ in enumerate(scene.ids[0]) if scene.present[0, k]}
    asked = [*request.moved, *request.pins, *request.remove]
    for id_ in asked:
        if id_ not in there:
            raise ValueError(f"expected ids among {sorted(there)}, got {id_}")
        if asked.count(id_) > 1:
            raise ValueError(f"id {id_}: expected one drag, pin or removal of an object, got more")
    return there


def _confidence(request: Request, scene: Scene, there: dict[int, int]) -> Tensor | None:
    """Confidence (1, M) in the motion of each object; None if it is 1 everywhere."""
    for drag in request.drags:
        if not 0 <= drag.confidence <= 1:
            raise ValueError(
                f"drag of {drag.id}: expected a confidence in 0 .. 1, got {drag.confidence}"
            )
    if not unsure(request):
        return None
    sure = torch.ones_like(scene.boxes[..., 0])  # (1, M)
    for drag in request.drags:
        sure[0, there[drag.id]] = drag.confidence
    return sure


def unsure(request: Request) -> bool:
    """True if a drag has a confidence below 1."""
    return any(drag.confidence != 1 for drag in request.drags)


def _points(track: Track) -> np.ndarray:
    """Positions (K, T, 2) of an object's points; ValueError if they have not equally many times."""
    if not track.points or not track.points[0] or len({len(way) for way in track.points}) > 1:
        raise ValueError(
            f"tracks of {track.id}: expected one or more points at equal times, got {track!s:.100}"
        )
    return np.array(track.points, np.float64)


def _tracked(track: Track, steps: int, size: tuple[int, int]) -> np.ndarray:
    """Motion (T, 2, 3) of an object with tracked points, back to frame 0, normalised."""
    what, points = f"tracks of {track.id}", _points(track)
    for way in track.points:
        _check(what, way, 1.0, FARTHEST * max(size))
    forth = similarities(points, steps)
    scales = np.linalg.norm(forth[:, 0, :2], axis=1)
    if not (ZOOMS[0] <= scales.min() and scales.max() <= ZOOMS[1]):
        _check(what, track.points[0], scales[abs(np.log(scales)).argmax()], FARTHEST * max(size))
    return normalised(forth, size)


def _check_inside(id_: int, boxes: Tensor, size: tuple[int, int]) -> None:
    """Raises ValueError if an object, boxes (.., 4), leaves the image; a box is 2 w / W wide."""
    out = (boxes[:, :2].abs() - boxes[:, 2:] >= 1).any(1)
    if out.any():
        H, W = size
        x, y = ((boxes[out][0, :2] + 1) * boxes.new_tensor([(W - 1) / 2, (H - 1) / 2])).tolist()
        raise ValueError(
            f"drag of {id_}: expected a part of it to stay in the image of {W} x {H} px, got a "
            f"drag of its centre to ({x:.0f}, {y:.0f}); shorten it"
        )


def _check(what: str, path: tuple, scale: float, most: float) -> None:
    points = np.asarray(path, np.float64)
    if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise ValueError(f"{what}: expected two or more finite points (x, y), got {path!s:.100}")
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    if length > most:
        raise ValueError(f"{what}: expected at most {most} px, got {length:.0f} px")
    if not (math.isfinite(scale) and ZOOMS[0] <= scale <= ZOOMS[1]):
        raise ValueError(f"{what}: expected a scale in {ZOOMS[0]} .. {ZOOMS[1]}, got {scale}")


def resample(path: tuple[tuple[float, float], ...], steps: int) -> np.ndarray:
    """Points (T + 1, 2), evenly spaced along a path, relative to its start."""
    points = np.asarray(path, np.float64)
    steps_px = np.linalg.norm(np.diff(points, axis=0), axis=1)
    far = steps_px > 1e-9 * max(1.0, steps_px.sum())  # steps that add to the path length
    points = points[np.concatenate([[True], far])] - points[0]
    if len(points) == 1:
        return np.zeros((steps + 1, 2))
    gone = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    return PchipInterpolator(gone, points)(np.linspace(0, gone[-1], steps + 1))


def animate(
    method,
    frame: Tensor,
    semantic: Tensor,
    instance: Tensor,
    request: Request,
    previous: Tensor | None = None,
    frames: int | None = None,
) -> Animation:
    """Video of a trained `ClickToMove` from one image (N = 1); see `scene` and `motion`.

    `previous` (3, H, W) is the frame before the image: it shows how fast objects move already.
    `frames` is the number T of frames to make; a model with layers makes any number, and the drags
    reach their ends in the last one.
    """
    given = _given(method, frame, semantic, instance, request, previous, frames)
    return method.animate(*given)


def predict(
    method,
    frame: Tensor,
    semantic: Tensor,
    instance: Tensor,
    request: Request,
    previous: Tensor | None = None,
    frames: int | None = None,
) -> Tensor:
    """Motion (1, T, M, 2, 3) of the objects in the video of `animate`, without rendering it.

    A removed object, which `animate` moves out of the image, gets the identity.
    """
    given = _given(method, frame, semantic, instance, request, previous, frames)
    what, moved, _, object_z = given
    return method.predict_motion(what, moved, object_z)


def _given(
    method,
    frame: Tensor,
    semantic: Tensor,
    instance: Tensor,
    request: Request,
    previous: Tensor | None,
    frames: int | None,
) -> tuple[Scene, Motion, Tensor, Tensor]:
    steps, got = frames or method.shape[0], [*frame.shape[-2:]]
    if not method.takes_size((steps, *got)):
        T, *size = method.shape
        raise ValueError(
            f"frames: expected {T}, as the model was trained, got {steps}"
            if got == size
            else f"frame: expected (H, W) = {size} px{method.or_sides}, got {got}; resize it"
        )
    if not 0 <= request.seed < 2**63:
        raise ValueError(f"seed: expected a number in 0 .. 2^63 - 1, got {request.seed}")
    what = scene(frame, semantic, instance)
    moved = motion(request, what, steps)
    asked = dict(
        camera=request.camera is not None, confidence=unsure(request), past=previous is not None
    )
    for name, (option, words) in TRAINED.items():
        if asked[name] and name not in method.takes:
            raise ValueError(LACKS.format(words, option))
    if previous is not None:
        if previous.shape != frame.shape:
            raise ValueError(
                f"previous frame: expected the shape of the frame, {(*frame.shape,)}, got "
                f"{(*previous.shape,)}"
            )
        known = past.steps(frame, what.instance[0], send(previous, frame), what.boxes.shape[1])
        moved = moved._replace(past=known[None])
    z, object_z = method.latents(tuple(what.present.shape), request.seed, steps)
    return what, moved, z, object_z


def positions(scene: Scene, theta: Tensor) -> Tensor:
    """Boxes of objects (N = 1), (T + 1, M, 4) px: centre x, y, width, height in all frames."""
    H, W = scene.frame.shape[-2:]
    boxes = torch.cat([scene.boxes[:, None], move_boxes(scene.boxes, theta)], 1)[0]
    centre = (boxes[..., :2] + 1) * boxes.new_tensor([(W - 1) / 2, (H - 1) / 2])
    return torch.cat([centre, boxes[..., 2:] * boxes.new_tensor([W, H])], -1)

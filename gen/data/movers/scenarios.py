"""Casting of `gen.data.movers`: draws the movers of a scene, their places and their interaction."""

from dataclasses import replace

import numpy as np

from gen.data.movers.dynamics import (
    CELLS,
    DEPTH,
    DURATION,
    INTERACTIONS,
    SADDLE,
    Camera,
    Course,
    Mover,
    Scene,
    frame_time,
    simulate,
    with_velocity,
)
from gen.data.movers.sprites import KINDS

LANES = (0.14, 0.25, 0.36)  # heights of wheels in the image; the far lane leads to the left
FREE_SHARE = 0.2
STRAY_SHARE = 0.15  # share of the other clips in which the target has the velocity of do()
ATTEMPTS = 100
MIN_EFFECT = 0.035  # image heights, least effect on the responder in a clip of full length
CARS = ("car", "car", "car", "truck", "bus", "motorcycle")


def cast(rng: np.random.Generator, frames: int, max_objects: int, aspect: float) -> Scene:
    """Draws a scene; `aspect` is the width of the image over its height."""
    law = 0 if rng.random() < FREE_SHARE else int(rng.integers(1, len(INTERACTIONS)))
    count = int(rng.integers(2, max_objects + 1))
    camera = _camera(rng)
    for _ in range(ATTEMPTS):
        scene = replace(DESIGNS[law](rng, frames), interaction=law, camera=camera)
        if len(scene.movers) > max_objects:
            continue
        course = simulate(scene, frames) if law else None
        if law and not _legible(scene, course, aspect, frames):
            continue
        if law and rng.random() < STRAY_SHARE:
            usual = scene.movers[scene.target].v
            scene = replace(with_velocity(scene, scene.target, scene.other), other=usual)
            course = simulate(scene, frames)
        movers = _crowd(rng, scene, course, count, aspect, frames)
        if len(movers) > 1 and (law or any(m.v.any() for m in movers)):
            break
    else:
        raise RuntimeError(
            f"expected a scene within {ATTEMPTS} attempts, got none of {INTERACTIONS[law]!r}; "
            "use a wider image"
        )
    scene = replace(scene, movers=tuple(movers), phase=rng.uniform(0, 6.28))
    if not law:
        target = max(range(len(movers)), key=lambda k: abs(movers[k].v[0]))
        scene = replace(scene, target=target, other=movers[target].v * _factor(rng))
    return _sorted(scene)


def _factor(rng: np.random.Generator) -> float:
    """Factor of a velocity under do(): backwards or nearly still, or faster."""
    return rng.uniform(-0.5, 0.1) if rng.random() < 0.6 else rng.uniform(1.45, 1.7)


def _camera(rng: np.random.Generator) -> Camera:
    pan = rng.choice([-1, 1]) * rng.uniform(0.008, 0.03) * (rng.random() < 0.65)
    zoom = rng.uniform(0.006, 0.018) if rng.random() < 0.35 else rng.uniform(-0.003, 0.003)
    return Camera(
        velocity=np.array([pan, rng.uniform(-0.002, 0.002)]),
        swing=rng.uniform(-1, 1, 2) * (0.012, 0.006),
        zoom=zoom,
        roll=rng.uniform(-0.012, 0.012),
        phase=rng.uniform(0, 6.28),
    )


def _mover(rng, kind, x, height, speed, facing, **law) -> Mover:
    """A mover in the lane at `height` of the image, driving forwards at `speed`."""
    at, v = np.array([x, DEPTH * height]), np.array([facing * speed, 0.0])
    small = kind in ("person", "rider")
    size = rng.uniform(0.95, 1.1) if small else rng.uniform(0.9, 1.05)
    return Mover(str(kind), at, v, facing, size=size, look=rng.random(6), **law)


def _moved(mover: Mover, x: float) -> Mover:
    return replace(mover, x=np.array([x, mover.x[1]]))


def _lane(rng: np.random.Generator) -> tuple[float, int]:
    """Height of a lane, and the direction of its traffic."""
    lane = int(rng.integers(3))
    facing = (-1, int(rng.choice([-1, 1])), 1)[lane]
    return LANES[lane] + rng.uniform(-0.012, 0.012), facing


def _ends(mover: Mover, speed: float) -> dict:
    """Options of a mover that strives for another speed in its direction."""
    return {"wish": np.array([mover.facing * speed, 0.0])}


def _collide(rng: np.random.Generator, frames: int) -> Scene:
    """One mover runs into another, from behind or head-on."""
    height, s = _lane(rng)
    v, time = rng.uniform(0.05, 0.085), _when(rng, frames)
    head_on = rng.random() < 0.35
    other = rng.uniform(0.015, 0.04) if head_on else rng.uniform(0, 0.25) * v
    first = _mover(rng, rng.choice(CARS), 0, height, v, s, friction=0.004)
    side = -s if head_on else s
    second = _mover(rng, rng.choice(CARS), 0, height, other, side, friction=0.004)
    second = replace(second, x=second.x + (0, rng.uniform(-0.03, 0.03)))
    at = rng.uniform(-0.4, 0.4)
    first = _moved(first, at - s * (first.half + v * time))
    second = _moved(second, at + s * second.half - second.v[0] * time)
    return Scene(1, (first, second), ((0, 1),), 0, first.v * _factor(rng), rng.uniform(0.6, 1))


def _follow(rng: np.random.Generator, frames: int) -> Scene:
    """One or two movers come up behind a slow or braking one."""
    height, s = _lane(rng)
    v, slow = rng.uniform(0.06, 0.085), rng.uniform(0, 0.02)
    lead = _mover(rng, rng.choice(CARS), 0, height, rng.choice([slow, 0.8 * v]), s, drive=0.9)
    movers = [replace(lead, **_ends(lead, slow))]
    for _ in range(int(rng.integers(1, 3))):
        small = rng.choice(("car", "car", "motorcycle", "truck"))
        next_ = _mover(rng, small, 0, height, v, s)
        back = movers[-1].x[0] - s * (movers[-1].half + next_.half + rng.uniform(0.12, 0.26))
        movers.append(_moved(next_, back))
    shift = rng.uniform(-0.1, 0.35) * s - (movers[0].x[0] + movers[-1].x[0]) / 2 - s * 0.15
    movers = [_moved(m, m.x[0] + shift) for m in movers]
    speed = rng.uniform(0.09, 0.11) if rng.random() < 0.75 else rng.uniform(-0.04, -0.02)
    pairs = tuple((k, k + 1) for k in range(len(movers) - 1))
    return Scene(2, tuple(movers), pairs, 0, np.array([s * speed, 0.0]))


def _avoid(rng: np.random.Generator, frames: int) -> Scene:
    """People walk towards each other and step aside."""
    height, s = rng.uniform(0.17, 0.4), int(rng.choice([-1, 1]))
    time, at = rng.uniform(0.45, 0.75) * _clip(frames), rng.uniform(-0.4, 0.4)
    v, w = rng.uniform(0.04, 0.065, 2)
    first = _mover(rng, "person", at - s * v * time, height, v, s, drive=0.35)
    second = _mover(rng, "person", at + s * w * time, height, w, -s, drive=0.35)
    second = replace(second, x=second.x + (0, rng.uniform(-0.05, 0.05)))
    movers, pairs = [first, second], [(0, 1)]
    if rng.random() < 0.4:  # a companion of the second
        apart = rng.choice([-1, 1]) * rng.uniform(0.15, 0.2)
        third = _mover(rng, "person", second.x[0] + s * 0.07, height + apart / 3, w, -s, drive=0.35)
        movers, pairs = [*movers, third], [*pairs, (0, 2)]
    return Scene(3, tuple(movers), tuple(pairs), 0, first.v * rng.uniform(-1.2, -0.6))


def _yield(rng: np.random.Generator, frames: int) -> Scene:
    """A walker crosses the road before a car; the one with the other on the right goes second."""
    height, s = _lane(rng)
    side = int(rng.choice([-1, 1]))  # direction of the walker, 1 towards the viewer
    at, time = rng.uniform(-0.3, 0.3), rng.uniform(0.45, 0.8) * _clip(frames)
    v, w = rng.uniform(0.06, 0.085), rng.uniform(0.11, 0.17)
    car = _mover(rng, rng.choice(CARS), 0, height, v, s, drive=0.5)
    walker = _mover(rng, "person", at, height, 0, int(rng.choice([-1, 1])), drive=0.5)
    walker_first = side == -s
    late = rng.uniform(-0.3, 0.5)
    car_time = time + late if walker_first else time
    car = _moved(car, at - s * (v * car_time + car.half))
    z = walker.x[1] - side * w * (time if walker_first else time + late)
    walker = replace(walker, x=np.array([at, z]), v=np.array([0.0, side * w]))
    pair = (walker, car) if walker_first else (car, walker)
    other = pair[0].v * rng.uniform(-0.9, -0.3)
    return Scene(4, pair, ((0, 1),), 0, other, crossing=np.array([at, DEPTH * height]))


def _push(rng: np.random.Generator, frames: int) -> Scene:
    """One mover shoves another that stands or hardly rolls, and keeps pushing."""
    height, s = _lane(rng)
    v, time = rng.uniform(0.055, 0.08), _when(rng, frames)
    strong, weak = ("truck", "bus", "car"), ("car", "car", "motorcycle", "truck")
    kinds = ("person", "bicycle") if rng.random() < 0.15 else (rng.choice(strong), rng.choice(weak))
    v *= 0.75 if kinds[0] == "person" else 1
    first = _mover(rng, kinds[0], 0, height, v, s, drive=0.8)
    second = _mover(rng, kinds[1], 0, height, 0, int(rng.choice([-1, 1])), friction=0.008)
    at = rng.uniform(-0.35, 0.2) * s
    first = _moved(first, at - s * (first.half + v * time))
    second = _moved(second, at + s * second.half)
    return Scene(5, (first, second), ((0, 1),), 0, first.v * _factor(rng))


def _tether(rng: np.random.Generator, frames: int) -> Scene:
    """One mover tows another by a springy bar, or carries its rider."""
    height, s = _lane(rng)
    slow, fast = rng.uniform(0, 0.03), rng.uniform(0.06, 0.085)
    start, end = (slow, fast) if rng.random() < 0.75 else (fast, slow)
    if rng.random() < 0.4:
        kind = rng.choice(("bicycle", "motorcycle"))
        first = _mover(rng, kind, 0, height, start, s, drive=0.7)
        second = _mover(rng, "rider", 0, height, start, s)
        second = replace(second, size=first.size, x=second.x + (0, SADDLE))
        rest = 0.0
    else:
        first = _mover(rng, rng.choice(("truck", "car", "bus")), 0, height, start, s, drive=0.7)
        kind = rng.choice(("car", "car", "motorcycle"))
        second = _mover(rng, kind, 0, height, start, s, friction=0.003, hitch=5.5)
        rest = first.half + second.half + 4 / CELLS * second.scale
    middle = rng.uniform(-0.4, 0.4) - s * (start + end) / 2 * _clip(frames) / 2
    first, second = _moved(first, middle + s * rest / 2), _moved(second, middle - s * rest / 2)
    movers = (replace(first, **_ends(first, end)), second)
    return Scene(6, movers, ((0, 1),), 0, np.array([s, 0]) * fast * _factor(rng), rest=rest)


DESIGNS = (lambda rng, frames: Scene(0, ()), _collide, _follow, _avoid, _yield, _push, _tether)


def _clip(frames: int) -> float:
    """Length of the clip in frames of `dynamics`."""
    return frame_time(frames) * (frames - 1)


def _when(rng: np.random.Generator, frames: int) -> float:
    return rng.uniform(0.1, 0.55) * _clip(frames)


def _centre(camera: Camera, frames: int) -> np.ndarray:
    """Approximate ground position in the middle of the image: (T,)."""
    return camera.velocity[0] * frame_time(frames) * np.arange(frames)


def _legible(scene: Scene, course: Course, aspect: float, frames: int) -> bool:
    """True if the interaction happens in view and visibly moves the responder."""
    zoom = np.exp(max(scene.camera.zoom, 0) * DURATION)
    seen = np.abs(course.x[..., 0] - _centre(scene.camera, frames)[:, None]) * zoom
    half = np.array([m.half for m in scene.movers])
    height = course.x[..., 1] / DEPTH
    if (seen + 0.6 * half > aspect / 2).any() or height.min() < -0.03 or height.max() > 0.46:
        return False
    answering = [j for _, j in scene.pairs]
    start = np.array([scene.movers[j].v for j in answering])
    off = course.x[-1, answering] - course.x[0, answering] - start * _clip(frames)
    effect = MIN_EFFECT * (_clip(frames) / DURATION) ** 2
    return course.impact > 0 and (np.hypot(off[:, 0], off[:, 1] / DEPTH) > effect).all()


def _crowd(rng, scene: Scene, course: Course | None, count: int, aspect, frames) -> list[Mover]:
    """The movers of a scene, filled up to `count` with movers that touch nobody."""
    movers, time = list(scene.movers), frame_time(frames) * np.arange(frames)[:, None]
    paths = [course.x[:, k] for k in range(len(movers))]
    for _ in range(6 * count):
        if len(movers) >= count:
            break
        lively = scene.interaction == 0 and rng.random() < 0.75
        if rng.random() < 0.5:
            height = rng.uniform(-0.01, 0.045) if rng.random() < 0.7 else rng.uniform(0.445, 0.48)
            speed, facing = rng.uniform(0.012, 0.045), int(rng.choice([-1, 1]))
            kind = "person"
        else:
            (height, facing), kind = _lane(rng), rng.choice(CARS)
            speed = rng.uniform(0.03, 0.075) * (rng.random() < (0.95 if lively else 0.7))
        x = rng.uniform(-1, 1) * (aspect / 2 - 0.08)
        mover = _mover(rng, kind, x, height, speed, facing)
        path = mover.x + mover.v * time  # (T, 2)
        if all(_apart(mover, path, m, p) for m, p in zip(movers, paths, strict=True)):
            movers.append(mover)
            paths.append(path)
    return movers


def _apart(one: Mover, path: np.ndarray, other: Mover, beside: np.ndarray) -> bool:
    """True if two movers never touch, and neither mostly hides the other at the start or end."""
    dx, dz = np.abs(path - beside).T  # (T,)
    width = KINDS[one.kind].width * one.scale + KINDS[other.kind].width * other.scale
    if ((dx < one.half + other.half + 0.06) & (dz < width + 0.04)).any():
        return False
    tall = [KINDS[m.kind].height * m.scale / CELLS for m in (one, other)]
    for t in (0, -1):
        over = min(one.half + other.half - dx[t], 2 * one.half, 2 * other.half)
        feet, its_feet = path[t, 1] / DEPTH, beside[t, 1] / DEPTH
        high = min(feet, its_feet) - max(feet - tall[0], its_feet - tall[1])
        area = min(2 * one.half * tall[0], 2 * other.half * tall[1])
        if over > 0 and high > 0 and over * high > 0.3 * area:
            return False
    return True


def _sorted(scene: Scene) -> Scene:
    """Sorts the movers by id."""
    order = sorted(range(len(scene.movers)), key=lambda k: KINDS[scene.movers[k].kind].train_id)
    place = {k: i for i, k in enumerate(order)}
    return replace(
        scene,
        movers=tuple(scene.movers[k] for k in order),
        pairs=tuple((place[i], place[j]) for i, j in scene.pairs),
        target=place[scene.target],
    )

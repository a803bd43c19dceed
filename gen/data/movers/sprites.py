"""Moving things of `gen.data.movers`: seven kinds of sprites made of signed distances.

Sprite coordinates: a to the front, b up, origin on the ground below the middle. The unit is a
cell, 1/64 of the image's height at scale 1. A sprite is a list of parts, painted in order; its
outline is the union of the solid parts. Colours are functions of (a, b), so they move along.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (a, b) -> cells, < 0 inside


@dataclass(frozen=True)
class Kind:
    """Class of a mover: Cityscapes trainId, half length and half height in cells, half width of the
    footprint in image heights."""

    train_id: int
    half: float
    height: float
    width: float


KINDS = {
    "person": Kind(11, 2.6, 13.8, 0.035),
    "rider": Kind(12, 4.8, 15.8, 0.04),
    "car": Kind(13, 11.3, 10.0, 0.075),
    "truck": Kind(14, 15.0, 14.0, 0.085),
    "bus": Kind(15, 17.5, 14.0, 0.085),
    "motorcycle": Kind(17, 8.7, 9.6, 0.04),
    "bicycle": Kind(18, 8.6, 9.8, 0.04),
}


def rgb(codes: str) -> np.ndarray:
    """Hex colours, separated by blanks, as (K, 3) in [0, 1]."""
    return np.array([list(bytes.fromhex(code)) for code in codes.split()]) / 255


BODY = rgb("e4705c e9a23f f0c75a 7fae78 4f9e98 5b8fc7 7a79c0 c987b4 d9dde0 b9545f 3f5f87 f3efe4")
CLOTH = rgb("d8604f e5973b f2cf63 6ba87f 4b8fa8 5a6fb0 a974ae ece6da c4505f 3c4a63")
LEGS = rgb("39435e 5c4a44 2f3a3f 6d6a78 4a5a80")
SKIN = rgb("f2cdae dba983 a8744f 7a4f38")
HAIR = rgb("3a2a22 6a4529 b98a4a 23222a 8c8480")
FIXED = dict(
    zip(
        ("tyre", "hub", "spokes", "glass", "glare", "lamp", "tail", "dark", "white"),
        rgb("2b2e38 c9cdd2 b4bfc8 3d5266 86a5b8 ffe9a8 d8433f 363a46 f4f1ea"),
        strict=True,
    )
)


def box(a0: float, b0: float, half_a: float, half_b: float, r: float = 0.0) -> Distance:
    """Rounded box, with r included in the half sides; a disc where both equal r."""

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        p, q = np.abs(a - a0) - (half_a - r), np.abs(b - b0) - (half_b - r)
        outside = np.hypot(np.maximum(p, 0), np.maximum(q, 0))
        return outside + np.minimum(np.maximum(p, q), 0) - r

    return distance


def disc(a0: float, b0: float, r: float) -> Distance:
    return lambda a, b: np.hypot(a - a0, b - b0) - r


def line(a0: float, b0: float, a1: float, b1: float, r: float) -> Distance:
    """A stroke with round ends."""
    da, db = a1 - a0, b1 - b0
    norm = 1 / (da * da + db * db)

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        p, q = a - a0, b - b0
        s = np.clip((p * da + q * db) * norm, 0, 1)
        return np.hypot(p - s * da, q - s * db) - r

    return distance


def poly(*corners: tuple[float, float]) -> Distance:
    """A convex polygon with corners in clockwise order (b is up)."""
    start = np.array(corners)
    edge = np.roll(start, -1, 0) - start
    normal = np.stack([-edge[:, 1], edge[:, 0]], 1) / np.hypot(*edge.T)[:, None]
    planes = [(*n, n @ s) for n, s in zip(normal, start, strict=True)]

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = planes[0][0] * a + planes[0][1] * b - planes[0][2]
        for na, nb, c in planes[1:]:
            np.maximum(d, na * a + nb * b - c, out=d)
        return d

    return distance


Part = tuple[Distance, str, bool]  # (where, colour, solid)


def wheels(r: float, inner: str, *centres: float) -> list[Part]:
    parts = []
    for a in centres:
        parts += [(disc(a, r, r), "tyre", True), (disc(a, r, 0.5 * r), inner, False)]
    return parts


def _person() -> list[Part]:
    return [
        (line(-0.9, 5.6, -1.5, 0.8, 0.85), "legs", True),
        (line(0.1, 5.6, 1.5, 0.8, 0.85), "legs", True),
        (line(0, 6.3, 0, 9.1, 1.9), "body", True),
        (line(0.2, 9.4, 0.9, 6.2, 0.6), "shade", False),
        (disc(0.1, 12.0, 1.75), "skin", True),
        (line(-0.7, 12.2, 0.2, 13.1, 0.85), "hair", False),
    ]


def _rider() -> list[Part]:
    return [
        (line(-2.0, 7.4, 1.0, 5.4, 0.95), "legs", True),
        (line(1.0, 5.4, 0.4, 2.0, 0.8), "legs", True),
        (line(-1.8, 7.9, 0.7, 10.9, 1.6), "body", True),
        (line(0.9, 10.9, 4.0, 8.9, 0.65), "shade", True),
        (disc(1.9, 13.5, 1.6), "skin", True),
        (line(1.0, 14.2, 2.3, 14.5, 1.1), "trim", True),
    ]


def _car(variant: int) -> list[Part]:
    rear, roof, front, nose, top = (
        (-8.4, -5.6, 2.2, 6.4, 9.8),
        (-10.6, -9.4, 2.6, 6.6, 10.0),
        (-9.4, -7.0, 0.4, 4.8, 9.6),
    )[variant]
    cabin = poly((rear, 5.8), (roof, top), (front, top), (nose, 5.8))
    low, high, post = 6.3, top - 0.9, -2.4
    back = poly((rear + 1.4, low), (roof + 0.7, high), (post, high), (post, low))
    ahead = poly((post + 0.9, low), (post + 0.9, high), (front - 0.2, high), (nose - 1.6, low))
    return [
        (cabin, "body", True),
        (box(0, 4.3, 11.2, 2.4, 1.6), "body", True),
        (back, "glass", False),
        (ahead, "glass", False),
        (line(post + 2.2, low + 0.4, front - 0.6, high - 0.2, 0.4), "glare", False),
        (box(0, 4.9, 10.8, 0.4), "trim", False),
        (box(0, 2.0, 9.5, 0.7, 0.4), "dark", True),
        (box(post + 0.4, 4.6, 0.2, 1.6), "shade", False),
        (box(10.4, 4.9, 0.8, 0.7, 0.5), "lamp", False),
        (box(-10.6, 4.9, 0.6, 0.8, 0.4), "tail", False),
        *wheels(2.3, "hub", -6.7, 6.7),
    ]


def _truck() -> list[Part]:
    return [
        (box(0, 2.8, 14.6, 0.9, 0.4), "dark", True),
        (box(-4.0, 8.7, 11.0, 5.3, 0.7), "white", True),
        (box(-4.0, 8.7, 11.0, 1.3), "trim", False),
        (box(-4.0, 13.2, 10.6, 0.4), "hub", False),
        (box(11.2, 6.5, 3.7, 4.3, 1.4), "body", True),
        (poly((10.4, 6.9), (10.4, 9.8), (12.8, 9.8), (14.2, 6.9)), "glass", False),
        (line(11.4, 7.5, 12.6, 9.2, 0.4), "glare", False),
        (box(14.2, 4.2, 0.6, 0.7, 0.4), "lamp", False),
        (box(-14.5, 4.2, 0.4, 0.7, 0.3), "tail", False),
        *wheels(2.4, "hub", -10.8, -5.4, 10.2),
    ]


def _bus() -> list[Part]:
    panes = [(box(a, 9.5, 2.0, 1.9, 0.5), "glass", False) for a in (-14.2, -9.4, -4.6, 0.2, 5.0)]
    glares = [(line(a - 0.6, 8.6, a + 0.6, 10.4, 0.4), "glare", False) for a in (-9.4, 0.2)]
    return [
        (box(0, 2.2, 16.0, 1.0, 0.5), "dark", True),
        (box(0, 7.8, 17.4, 6.0, 1.8), "body", True),
        (box(0, 13.0, 15.6, 0.6, 0.5), "white", False),
        *panes,
        *glares,
        (box(9.8, 7.4, 1.6, 4.2, 0.5), "glass", False),
        (box(9.8, 7.4, 0.25, 4.2), "shade", False),
        (box(15.4, 8.8, 1.6, 2.6, 0.8), "glass", False),
        (box(-3.6, 5.6, 11.6, 0.6), "trim", False),
        (box(16.7, 4.0, 0.6, 0.8, 0.4), "lamp", False),
        (box(-17.0, 4.2, 0.4, 0.8, 0.3), "tail", False),
        *wheels(2.5, "hub", -11.0, 6.0),
    ]


def _motorcycle() -> list[Part]:
    return [
        (disc(-5.6, 3, 3), "tyre", True),
        (disc(5.6, 3, 3), "tyre", True),
        (disc(-5.6, 3, 1.5), "hub", False),
        (disc(5.6, 3, 1.5), "hub", False),
        (line(3.3, 8.4, 5.6, 3, 0.6), "hub", True),
        (box(-0.4, 4.6, 3.2, 1.7, 1.0), "dark", True),
        (line(-5.4, 3.4, -0.6, 2.8, 0.6), "hub", True),
        (line(-5.6, 6.6, -1.2, 6.6, 0.8), "dark", True),
        (line(-0.6, 6.9, 2.4, 7.3, 1.4), "body", True),
        (line(2.4, 9.2, 3.6, 8.4, 0.5), "dark", True),
        (disc(4.4, 7.6, 0.95), "lamp", True),
        (disc(-6.0, 6.4, 0.7), "tail", True),
    ]


def _bicycle() -> list[Part]:
    tubes = [(-5.1, 3.4, -0.3, 3.0), (-0.3, 3.0, 3.1, 7.0), (-0.3, 3.0, -2.0, 7.6)]
    tubes += [(-5.1, 3.4, -1.8, 6.9), (-1.8, 6.9, 3.1, 7.0), (5.1, 3.4, 3.0, 8.6)]
    return [
        (disc(-5.1, 3.4, 3.4), "tyre", True),
        (disc(5.1, 3.4, 3.4), "tyre", True),
        (disc(-5.1, 3.4, 2.5), "spokes", False),
        (disc(5.1, 3.4, 2.5), "spokes", False),
        *[(line(*tube, 0.5), "body", True) for tube in tubes],
        (line(-3.0, 8.0, -1.2, 8.1, 0.5), "tyre", True),
        (line(3.0, 8.9, 4.4, 9.2, 0.5), "tyre", True),
    ]


PARTS = {
    "person": [_person()],
    "rider": [_rider()],
    "car": [_car(0), _car(1), _car(2)],
    "truck": [_truck()],
    "bus": [_bus()],
    "motorcycle": [_motorcycle()],
    "bicycle": [_bicycle()],
}


class Sprite:
    """The looks of one mover.

    Args:
        kind: name of a kind, a key of `KINDS`.
        look: random numbers (6,) in [0, 1) that decide shape and colours.
        soft: width of the edges between parts, in cells.
        hitch: length, in cells, of a tow bar at the front; 0 for none.
    """

    def __init__(self, kind: str, look: np.ndarray, soft: float, hitch: float = 0.0) -> None:
        def pick(colours: np.ndarray, u: float) -> np.ndarray:
            return colours[int(u * len(colours))]

        self.parts = list(PARTS[kind][int(look[0] * len(PARTS[kind]))])
        half, height = KINDS[kind].half, KINDS[kind].height
        if hitch:
            self.parts.insert(0, (line(half - 3, 2.8, half + hitch, 2.8, 0.6), "dark", True))
        self.soft, self.height = soft, height
        self.bounds = (-half - 0.5, half + 0.5 + hitch, -0.5, height + 0.7)  # a, a, b, b
        body = pick(CLOTH if kind in ("person", "rider") else BODY, look[1])
        trim = pick(BODY, look[2])
        self.colours = FIXED | {
            "body": body,
            "trim": 0.5 * body + 0.5 * trim if kind == "car" else trim,
            "shade": 0.78 * body,
            "skin": pick(SKIN, look[3]),
            "hair": pick(HAIR, look[4]),
            "legs": pick(LEGS, look[5]),
        }

    def outline(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Signed distance to the sprite in cells, < 0 inside."""
        solid = [where(a, b) for where, _, solid in self.parts if solid]
        return np.minimum.reduce(solid)

    def colour(self, a: np.ndarray, b: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Colours (3, n) in [0, 1]; `distance` is the result of `outline` at the points."""
        rgb = np.empty((3, len(a)))
        rgb[:] = self.colours[next(name for _, name, solid in self.parts if solid)][:, None]
        for where, name, _ in self.parts:
            cover = np.clip(0.5 - where(a, b) / self.soft, 0, 1)
            rgb += cover * (self.colours[name][:, None] - rgb)
        light = 0.96 + 0.12 * np.tanh(3 * b / self.height - 1.5)  # from above
        light *= 1 - 0.3 * np.clip(1 + distance / 0.9, 0, 1)  # a darker rim
        rgb *= light
        return np.minimum(rgb, 1, out=rgb)

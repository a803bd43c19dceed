"""Filled curves on an antialiased canvas: the tools of `gen.data.heads.drawing`.

Units: 1 = half the width of a head, x right, y down, origin between the eyes. Shapes are filled
`OVERSAMPLE` times too large and averaged down; the soft light is added at the final size. Corners
are rounded to 1/16 px before filling, so that all machines draw the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from gen.data.heads.factors import Factors

OVERSAMPLE = 4
UNIT = 0.335  # share of the image's side, at scale 1
TURN = np.arange(40) * (np.pi / 20)
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], 1)  # (40, 2)


def rgb(*codes: str) -> np.ndarray:
    """Hex colours as floats: (3,) of one code, (K, 3) of several."""
    colours = np.array([list(bytes.fromhex(code)) for code in codes], float)
    return colours if len(codes) > 1 else colours[0]


def mix(a: np.ndarray, b: np.ndarray, t: float | np.ndarray) -> np.ndarray:
    return a + (b - a) * t


def ramp(colours: np.ndarray, t: float) -> np.ndarray:
    """Colour at t in [0, 1] along colours (K, 3)."""
    i = min(int(t * (len(colours) - 1)), len(colours) - 2)
    return mix(colours[i], colours[i + 1], t * (len(colours) - 1) - i)


@lru_cache(maxsize=64)
def _weights(count: int, closed: bool, steps: int = 8) -> np.ndarray:
    """Catmull-Rom weights (samples, count) of a curve through count points."""
    t = np.arange(steps) / steps
    cubic = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    spans = count if closed else count - 1
    weights = np.zeros((spans * steps + (not closed), count))
    for i in range(spans):
        for k in range(4):
            j = (i + k - 1) % count if closed else min(max(i + k - 1, 0), count - 1)
            weights[i * steps : (i + 1) * steps, j] += cubic[k] / 2
    if not closed:
        weights[-1, -1] = 1
    return weights


def curve(*points: tuple[float, float]) -> np.ndarray:
    """Smooth line through M points -> (8 M - 7, 2)."""
    return _weights(len(points), False) @ np.array(points, float)


def shape(*points: tuple[float, float]) -> np.ndarray:
    """Smooth closed outline through M points -> (8 M, 2)."""
    return _weights(len(points), True) @ np.array(points, float)


def symmetric(*half: tuple[float, float]) -> np.ndarray:
    """Closed outline from its right half, given top to bottom, first and last point at x = 0."""
    return shape(*half, *[(-x, y) for x, y in half[-2:0:-1]])


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return CIRCLE * (rx, ry) + (x, y)


def stroke(line: np.ndarray, width: float, taper: float = 0.0) -> np.ndarray:
    """Outline of a brush stroke along line (N, 2); taper 1 = pointed at its end."""
    step = np.gradient(line, axis=0)
    normal = step[:, ::-1] * (-1, 1) / np.hypot(step[:, :1], step[:, 1:])
    reach = normal * (width / 2 * (1 - taper * np.linspace(0, 1, len(line))[:, None] ** 2))
    return np.concatenate([line + reach, (line - reach)[::-1]])


class Brush:
    """Fills outlines over a backdrop (size, size, 3), in the pose of the factors."""

    def __init__(self, backdrop: np.ndarray, f: Factors) -> None:
        side = len(backdrop) * OVERSAMPLE
        self.canvas = cv2.resize(backdrop, (side, side), interpolation=cv2.INTER_NEAREST)
        self.figure = np.zeros((side, side), np.uint8)  # 255 = not background
        self.unit = UNIT * f.scale * side
        self.centre = ((0.5 + f.x) * side, (0.52 + f.y) * side)
        cos, sin = np.cos(f.roll), np.sin(f.roll)
        self.roll = np.array([[cos, sin], [-sin, cos]])
        self.sin, self.cos = np.sin([f.yaw, f.pitch]), np.cos([f.yaw, f.pitch])

    def body(self, points: np.ndarray) -> np.ndarray:
        """Head units -> canvas in 1/16 px, upright like the shoulders."""
        return np.rint((points * self.unit + self.centre) * 16 - 8).astype(np.int32)  # centres = 0

    def flat(self, points: np.ndarray, z: float | np.ndarray = 0.0) -> np.ndarray:
        """Places points like `body`, turned with the head; z is depth, larger is nearer."""
        return self.body((points * self.cos + z * self.sin) @ self.roll)

    def face(self, points: np.ndarray, z: float = 0.0) -> np.ndarray:
        """Places points like `flat`, on the front of a ball, raised by z."""
        ball = np.sqrt(np.maximum(1.2 - (points**2).sum(1)[:, None], 0)) - 0.1
        return self.flat(points, ball + z)

    def fill(self, placed: np.ndarray, colour: np.ndarray, solid: bool = False) -> None:
        """Fills one outline; a solid outline belongs to the figure and gets a darker edge."""
        if solid:
            edge, width = (0.66 * colour).tolist(), round(0.05 * self.unit)
            cv2.polylines(self.canvas, [placed], True, edge, width, cv2.LINE_8, 4)
            cv2.fillPoly(self.figure, [placed], 255, cv2.LINE_8, 4)
        cv2.fillPoly(self.canvas, [placed], colour.tolist(), cv2.LINE_8, 4)

    @contextmanager
    def inside(self, placed: np.ndarray) -> Iterator[None]:
        """Context in which filling is limited to the inside of the outline."""
        mask = np.zeros_like(self.figure)
        cv2.fillPoly(mask, [placed], 255, cv2.LINE_8, 4)
        below, self.canvas = self.canvas, self.canvas.copy()
        yield
        cv2.copyTo(self.canvas, mask, below)
        self.canvas = below

    def finish(self, size: int) -> np.ndarray:
        """Picture (size, size, 3): light from the upper left, a soft shadow on the backdrop."""
        image, cover = (
            cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA)
            for a in (self.canvas, self.figure)
        )
        k = size // 6 | 1
        shadow = cv2.blur(cover, (k, k), anchor=(k * 2 // 3, k * 2 // 3))  # moved right and down
        pixel = (np.arange(size, dtype=np.float32) + 0.5) * OVERSAMPLE
        x, y = ((pixel - c) / self.unit for c in self.centre)
        away = np.minimum((x + 0.4) ** 2 + ((y + 0.55) ** 2)[:, None], 5)  # (size, size)
        cover = cover / np.float32(255)
        gain = cover * (1.08 - 0.065 * away) + (1 - cover) * (1 - shadow * np.float32(0.2 / 255))
        return np.clip(np.rint(image * gain[..., None]), 0, 255).astype(np.uint8)

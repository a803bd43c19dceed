"""Drawing for `gen.data.heads`: cartoon animal heads as filled curves, shaded and antialiased.

Units: 1 = half the width of a head, x right, y down, origin between the eyes. Shapes are filled
`OVERSAMPLE` times too large and averaged down; the soft light is added at the final size. Corners
become integers (1/16 px) before anything is filled, so that machines agree on the picture.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import cv2
import numpy as np

OVERSAMPLE = 4
UNIT = 0.335  # of the image's side


def rgb(*codes):
    """Colours as float arrays: (3,) of one hex code, (K, 3) of several."""
    colours = np.array([list(bytes.fromhex(code)) for code in codes], float)
    return colours if len(codes) > 1 else colours[0]


def mix(a, b, t):
    return a + (b - a) * t


def ramp(colours, t):
    """Colour at t in [0, 1] along colours (K, 3)."""
    i = min(int(t * (len(colours) - 1)), len(colours) - 2)
    return mix(colours[i], colours[i + 1], t * (len(colours) - 1) - i)


INK, WHITE, CREAM, PINK = rgb("2e222a"), rgb("ffffff"), rgb("fff4e2"), rgb("f2868c")
MOUTH, TONGUE = rgb("7a2634"), rgb("f27884")
LIGHT_FUR = rgb("f59d5c", "f9cd84", "e0b48c", "d8d2d2", "a9c4e4")  # ginger gold tan grey slate
DARK_FUR = rgb("9a4526", "91602b", "634036", "4f4c5a", "394e74")
IRIS = rgb("7a4a2c", "d08a22", "5fa04e", "3f8ed0")
SKY = rgb("f58f86", "f9b66f", "f6d86b", "8fd6a0", "7fc8ee", "a79cf0", "ee9fd0")


@lru_cache(maxsize=64)
def _weights(count, closed, steps):
    """Catmull-Rom weights (samples, count) of a curve through count points."""
    t = np.arange(steps) / steps
    cubic = np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3,
                      t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1) / 2  # fmt: skip
    spans = count if closed else count - 1
    weights = np.zeros((spans * steps + (not closed), count))
    for i in range(spans):
        for k in range(4):
            j = (i + k - 1) % count if closed else min(max(i + k - 1, 0), count - 1)
            weights[i * steps : (i + 1) * steps, j] += cubic[:, k]
    if not closed:
        weights[-1, -1] = 1
    return weights


def curve(*points, closed=False, steps=8):
    """Smooth line through points (M, 2) -> (N, 2)."""
    return _weights(len(points), closed, steps) @ np.array(points, float)


def shape(*points):
    return curve(*points, closed=True)


def symmetric(*half):
    """Closed shape from its right half, given from top to bottom (both at x = 0)."""
    return shape(*half, *[(-x, y) for x, y in half[-2:0:-1]])


def ellipse(x, y, rx, ry):
    return _CIRCLE * (rx, ry) + (x, y)


_CIRCLE = np.stack([f(np.arange(40) * (np.pi / 20)) for f in (np.cos, np.sin)], 1)


def stroke(line, width, taper=0.0):
    """Outline of a brush stroke along line (N, 2); taper 1 = pointed at its end."""
    step = np.gradient(line, axis=0)
    normal = step[:, ::-1] * (-1, 1) / np.hypot(step[:, :1], step[:, 1:])
    reach = normal * (width / 2 * (1 - taper * np.linspace(0, 1, len(line))[:, None] ** 2))
    return np.concatenate([line + reach, (line - reach)[::-1]])


class Brush:
    """Fills shapes of a posed head on an RGB canvas (S, S, 3)."""

    def __init__(self, canvas, f):
        self.canvas = canvas
        self.figure = np.zeros(canvas.shape[:2], np.uint8)  # (S, S) 255 = not background
        side = len(canvas)
        self.unit = UNIT * f.scale * side
        self.centre = np.array([0.5 + f.x, 0.52 + f.y]) * side
        cos, sin = np.cos(f.roll), np.sin(f.roll)
        self.roll = np.array([[cos, sin], [-sin, cos]])
        self.sin, self.cos = np.sin([f.yaw, f.pitch]), np.cos([f.yaw, f.pitch])

    def body(self, points):
        """Head units -> canvas, 1/16 px: upright, as the shoulders are."""
        return np.rint((points * self.unit + self.centre) * 16).astype(np.int32)

    def flat(self, points, z=0.0):
        """As `body`, turned with the head: points in the plane at depth z (nearer = larger)."""
        return self.body((points * self.cos + z * self.sin) @ self.roll)

    def face(self, points, z=0.0):
        """As `flat`, points on the front of a ball, raised by z."""
        return self.flat(points, np.sqrt(np.maximum(1 - (points**2).sum(1)[:, None], 0)) + z)

    def fill(self, placed, colour, solid=False):
        cv2.fillPoly(self.canvas, [placed], colour.tolist(), cv2.LINE_8, 4)
        if solid:
            cv2.fillPoly(self.figure, [placed], 255, cv2.LINE_8, 4)

    @contextmanager
    def inside(self, placed):
        """What is filled in this block shows inside the shape only."""
        mask = np.zeros_like(self.figure)
        cv2.fillPoly(mask, [placed], 255, cv2.LINE_8, 4)
        below, self.canvas = self.canvas, self.canvas.copy()
        yield
        cv2.copyTo(self.canvas, mask, below)
        self.canvas = below


@dataclass(frozen=True)
class Species:
    """Proportions of a domain: the right half of its outline, places and radii."""

    head: tuple
    eye: tuple      # x, y, rx, ry
    pupil: tuple    # iris / eye, pupil width / height
    muzzle: tuple   # x, y, rx, ry of the right puff
    nose: tuple     # y, rx, ry
    mouth: tuple    # y, half width, depth when open


SPECIES = {
    "bear": Species(
        head=((0, -0.86), (0.52, -0.78), (0.92, -0.36), (1.06, 0.16), (0.96, 0.56), (0.56, 0.84), (0, 0.91)),
        eye=(0.43, -0.06, 0.165, 0.19), pupil=(0.84, 1.0),
        muzzle=(0.08, 0.42, 0.40, 0.31), nose=(0.23, 0.20, 0.13), mouth=(0.44, 0.25, 0.26),
    ),
    "cat": Species(
        head=((0, -0.74), (0.46, -0.72), (0.85, -0.34), (0.98, 0.08), (1.10, 0.36), (0.86, 0.54), (0.62, 0.72), (0.30, 0.83), (0, 0.85)),
        eye=(0.45, 0.00, 0.25, 0.255), pupil=(0.90, 0.62),
        muzzle=(0.16, 0.46, 0.23, 0.17), nose=(0.30, 0.11, 0.08), mouth=(0.41, 0.25, 0.26),
    ),
    "dog": Species(
        head=((0, -0.86), (0.48, -0.80), (0.82, -0.42), (0.90, 0.10), (0.84, 0.48), (0.54, 0.82), (0, 0.92)),
        eye=(0.40, -0.10, 0.20, 0.22), pupil=(0.82, 1.0),
        muzzle=(0.19, 0.42, 0.33, 0.34), nose=(0.20, 0.22, 0.15), mouth=(0.48, 0.30, 0.28),
    ),
}


def coat(f):
    """Colours of the fur and of what goes with it."""
    light, dark = ramp(LIGHT_FUR, f.fur_hue), ramp(DARK_FUR, f.fur_hue)
    fur = mix(light, dark, f.fur_dark)
    return SimpleNamespace(
        fur=fur,
        deep=mix(fur, INK, 0.40),
        pale=mix(fur, CREAM, 0.78),
        ear=mix(fur, PINK, 0.60),
        spot=mix(fur, CREAM, 0.85) if f.fur_dark > 0.5 else mix(dark, INK, 0.25),
    )


def backdrop(f, size):
    """Gradient (size, size, 3) uint8."""
    t = (np.arange(size) + 0.5) / size - 0.5
    slope = (t[None] * f.bg_dx + t[:, None] * f.bg_dy)[..., None]  # (size, size, 1)
    near, far = ramp(SKY, 0.85 * f.bg_hue), ramp(SKY, 0.85 * f.bg_hue + 0.15)
    colour = mix(mix(near, far, 0.5 + 0.5 * slope), WHITE, 0.05 + 0.45 * f.bg_light)
    return np.rint(colour * (0.94 + 0.06 * slope)).astype(np.uint8)


def draw_shoulders(b, c, head, domain):
    body = b.body(symmetric((0, 0.5), (0.5, 0.62), (0.84, 1.0), (1.02, 1.7), (1.1, 3), (0, 3.2)))
    b.fill(body, c.fur, solid=True)
    with b.inside(body):
        b.fill(b.body(symmetric((0, 0.6), (0.38, 0.9), (0.44, 1.3), (0.2, 1.8), (0, 2))), c.pale)
        b.fill(b.flat(head + (0.02, 0.15)), c.deep)


def draw_ears(b, c, domain, perk):
    for s in (-1, 1):
        if domain == "cat":
            x, y = 0.84 + 0.20 * (1 - perk), -1.40 + 0.22 * (1 - perk)
            ear = shape((0.16, -0.64), (0.46, -1.08), (x, y), (1.04, -0.72), (0.96, -0.1), (0.5, 0))
            b.fill(b.flat(ear * (s, 1), -0.3), c.fur, solid=True)
            middle = ear.mean(0)
            inner = (ear - middle) * 0.66 + middle + (0, -0.02)
            b.fill(b.flat(inner * (s, 1), -0.25), c.ear)
        elif domain == "bear":
            r = 0.33 + 0.08 * perk
            b.fill(b.flat(ellipse(s * 0.74, -0.68, r, r), -0.3), c.fur, solid=True)
            b.fill(b.flat(ellipse(s * 0.72, -0.64, 0.6 * r, 0.6 * r), -0.25), c.ear)


def draw_flaps(b, c, perk):
    up = 0.3 * perk
    flap = shape((0.44, -0.78), (0.72, -0.88), (1.02, -0.62), (1.20, -0.10 - up), (1.18, 0.40 - up),
                 (0.98, 0.52 - up), (0.84, 0.24 - up), (0.76, -0.24))
    for s in (-1, 1):
        b.fill(b.flat(flap * (s, 1), -0.1), c.deep, solid=True)


def draw_marks(b, c, f, domain):
    if domain == "cat":
        for x, end in ((0, -0.34), (-0.24, -0.42), (0.24, -0.42)):
            line = curve((x * 1.3, -0.95), (x, -0.66), (x * 0.8, end))
            b.fill(b.face(stroke(line, 0.13, 1)), c.deep)
        for s in (-1, 1):
            for y in (0.08, 0.28):
                line = curve((s * 1.3, y - 0.1), (s * 1.0, y), (s * 0.76, y + 0.03))
                b.fill(b.face(stroke(line, 0.12, 1)), c.deep)
    elif domain == "dog":
        blaze = symmetric((0, -1), (0.17, -0.95), (0.10, -0.3), (0.26, 0.2), (0, 0.5))
        b.fill(b.face(blaze), c.pale)
    for s in (-1, 1):
        b.fill(b.face(ellipse(s * 0.66, 0.30, 0.16, 0.10)), mix(c.fur, PINK, 0.3))
    if f.spots:
        for x, y, rx, ry in ((-0.43, -0.04, 0.37, 0.39), (0.40, -0.60, 0.27, 0.19),
                             (0.74, 0.42, 0.2, 0.18), (-0.66, 0.6, 0.17, 0.13)):
            b.fill(b.face(ellipse(x * f.spot_side, y, rx, ry)), c.spot)


def draw_eyes(b, f, c, species):
    x, y, rx, ry = species.eye
    part, slit = species.pupil
    r = ry * part
    iris = ramp(IRIS, f.iris)
    for s in (-1, 1):
        b.fill(b.face(ellipse(s * x, y - 0.02, rx * 1.13, ry * 1.1)), INK)
        eye = b.face(ellipse(s * x, y, rx, ry))
        gx, gy = s * x + f.gaze_x * rx * 0.36, y + f.gaze_y * ry * 0.28
        with b.inside(eye):
            b.fill(eye, WHITE)
            b.fill(b.face(ellipse(gx, gy, r, r)), mix(iris, INK, 0.4))
            b.fill(b.face(ellipse(gx, gy + 0.14 * r, 0.9 * r, 0.82 * r)), iris)
            b.fill(b.face(ellipse(gx, gy, 0.64 * r * slit, 0.64 * r)), INK)
            b.fill(b.face(ellipse(gx - 0.32 * r, gy - 0.36 * r, 0.28 * r, 0.28 * r)), WHITE)
            b.fill(b.face(ellipse(gx + 0.34 * r, gy + 0.4 * r, 0.14 * r, 0.14 * r)), WHITE)
            if f.lid:
                low = y - ry * (1 - 2 * f.lid)
                edge = curve((-1.2 * rx, low + 0.04), (0, low - 0.01), (1.2 * rx, low + 0.04))
                lid = np.concatenate([edge, [(1.2 * rx, low - 1), (-1.2 * rx, low - 1)]])
                b.fill(b.face(lid + (s * x, 0)), INK)
                b.fill(b.face(lid + (s * x, -0.05)), mix(c.fur, c.deep, 0.4))


def draw_muzzle(b, f, c, species, domain):
    x, y, rx, ry = species.muzzle
    my, mw, depth = species.mouth
    jaw, dip = f.mouth * depth, 0.055 + 0.035 * f.smile
    b.fill(b.face(ellipse(0, my + 0.05 + jaw, mw * 0.8, 0.17)), mix(c.pale, c.fur, 0.2))
    for s in (-1, 1):
        b.fill(b.face(ellipse(s * x, y, rx, ry), 0.05), c.pale)
    end = my + 0.03 - 0.13 * f.smile
    lip = curve((0, my), (0.30 * mw, my + dip), (0.68 * mw, my + 0.85 * dip), (mw, end))
    if f.mouth:
        low = my + dip + jaw
        half = ((0.85 * mw, my + 0.6 * dip), (0.62 * mw, low - 0.22 * jaw), (0, low))
        bottom = curve(*half, *[(-x, y) for x, y in half[-2::-1]])
        mouth = np.concatenate([(lip * (-1, 1))[-6::-1], lip[:-5], bottom])
        with b.inside(b.face(mouth, 0.08)):
            b.fill(b.face(mouth, 0.08), MOUTH)
            b.fill(b.face(ellipse(0, low, mw * 0.5, 0.6 * jaw), 0.08), TONGUE)
            if domain == "cat":
                for s in (-1, 1):
                    fang = np.array([(0.60, my), (0.28, my), (0.42, my + dip + 0.1)]) * (s * mw, 1)
                    b.fill(b.face(fang, 0.08), WHITE)
    for s in (-1, 1):
        b.fill(b.face(stroke(lip * (s, 1), 0.045), 0.08), INK)
    ny, nx, nr = species.nose
    b.fill(b.face(stroke(np.array([(0, ny), (0, my + 0.02)]), 0.045), 0.08), INK)
    nose = symmetric((0, ny - nr), (nx * 0.8, ny - nr * 0.85), (nx, ny - nr * 0.2), (nx * 0.45, ny + nr * 0.75), (0, ny + nr))
    colour = mix(PINK, INK, 0.1 + 0.3 * f.fur_dark) if domain == "cat" else mix(INK, c.fur, 0.1)
    b.fill(b.face(nose, 0.14), colour)
    b.fill(b.face(ellipse(-0.3 * nx, ny - 0.45 * nr, nx * 0.3, nr * 0.22), 0.14), mix(colour, WHITE, 0.5))


def draw_whiskers(b, c):
    for s in (-1, 1):
        for k in (-1, 0, 1):
            line = curve((0.30, 0.46 + 0.05 * k), (0.75, 0.42 + 0.10 * k), (1.25, 0.46 + 0.19 * k))
            b.fill(b.flat(stroke(line * (s, 1), 0.035, 0.8), 0.8), mix(c.pale, WHITE, 0.7))


def shade(image, figure, b):
    """Soft light from the upper left on the figure and its shadow on the backdrop."""
    size = len(image)
    cover = cv2.resize(figure, (size, size), interpolation=cv2.INTER_AREA)
    k = size // 6 | 1
    shadow = cv2.blur(cover, (k, k), anchor=(k * 2 // 3, k * 2 // 3))
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    cx, cy = b.centre / len(figure)
    u = len(figure) / b.unit
    q = np.minimum((((grid - cx) * u + 0.4) ** 2)[None] + (((grid - cy) * u + 0.55) ** 2)[:, None], 5.0)
    light = 1.08 - 0.065 * q
    cover = cover / np.float32(255)
    gain = cover * light + (1 - cover) * (1 - shadow * np.float32(0.2 / 255))
    return np.clip(np.rint(image * gain[..., None]), 0, 255).astype(np.uint8)


def draw(f, domain, size):
    species, c = SPECIES[domain], coat(f)
    side = size * OVERSAMPLE
    b = Brush(cv2.resize(backdrop(f, size), (side, side), interpolation=cv2.INTER_NEAREST), f)
    head = symmetric(*species.head)
    draw_shoulders(b, c, head, domain)
    draw_ears(b, c, domain, f.ear)
    b.fill(b.flat(head), c.fur, solid=True)
    with b.inside(b.flat(head)):
        draw_marks(b, c, f, domain)
    if domain == "dog":
        draw_flaps(b, c, f.ear)
    draw_muzzle(b, f, c, species, domain)
    draw_eyes(b, f, c, species)
    if domain == "cat":
        draw_whiskers(b, c)
    image = cv2.resize(b.canvas, (size, size), interpolation=cv2.INTER_AREA)
    return shade(image, b.figure, b)

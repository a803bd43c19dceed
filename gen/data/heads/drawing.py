"""Drawing of `gen.data.heads`: turns factors into a bear, a cat or a dog."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gen.data.heads.brush import Brush, curve, ellipse, mix, ramp, rgb, shape, stroke, symmetric

if TYPE_CHECKING:
    from gen.data.heads.factors import Factors

INK, WHITE, CREAM, PINK = rgb("2e222a"), rgb("ffffff"), rgb("fff4e2"), rgb("f2868c")
MOUTH, TONGUE = rgb("7a2634"), rgb("f27884")
LIGHT_FUR = rgb("f59d5c", "f9cd84", "e0b48c", "d8d2d2", "a9c4e4")  # ginger gold tan grey slate
DARK_FUR = rgb("9a4526", "91602b", "634036", "4f4c5a", "394e74")
IRIS = rgb("7a4a2c", "d08a22", "5fa04e", "3f8ed0")
SKY = rgb("f58f86", "f9b66f", "f6d86b", "8fd6a0", "7fc8ee", "a79cf0", "ee9fd0")


class Species(NamedTuple):
    """Proportions of a domain."""

    head: tuple[tuple[float, float], ...]  # right half of the outline, top to bottom
    eye: tuple[float, float, float, float]  # x, y, rx, ry
    iris: float  # its radius / ry
    pupil: float  # width / height
    muzzle: tuple[float, float, float, float]  # x, y, rx, ry of the right puff
    nose: tuple[float, float, float]  # y, rx, ry
    mouth: tuple[float, float, float]  # y, half width, depth when open


# fmt: off
SPECIES = {
    "bear": Species(
        head=((0, -0.86), (0.52, -0.78), (0.92, -0.36), (1.06, 0.16), (0.96, 0.56), (0.56, 0.84),
              (0, 0.91)),
        eye=(0.43, -0.06, 0.165, 0.19), iris=0.84, pupil=1.0,
        muzzle=(0.08, 0.42, 0.40, 0.31), nose=(0.23, 0.20, 0.13), mouth=(0.44, 0.25, 0.26),
    ),
    "cat": Species(
        head=((0, -0.74), (0.46, -0.72), (0.85, -0.34), (0.98, 0.08), (1.10, 0.36), (0.86, 0.54),
              (0.62, 0.72), (0.30, 0.83), (0, 0.85)),
        eye=(0.45, 0.00, 0.25, 0.255), iris=0.90, pupil=0.62,
        muzzle=(0.16, 0.46, 0.23, 0.17), nose=(0.30, 0.11, 0.08), mouth=(0.41, 0.25, 0.26),
    ),
    "dog": Species(
        head=((0, -0.86), (0.48, -0.80), (0.82, -0.42), (0.90, 0.10), (0.84, 0.48), (0.54, 0.82),
              (0, 0.92)),
        eye=(0.40, -0.10, 0.20, 0.22), iris=0.82, pupil=1.0,
        muzzle=(0.19, 0.42, 0.33, 0.34), nose=(0.20, 0.22, 0.15), mouth=(0.48, 0.30, 0.28),
    ),
}
SPOTS = (  # x, y, rx, ry; the first is the patch around an eye
    (-0.43, -0.04, 0.37, 0.39), (0.40, -0.58, 0.27, 0.19), (0.68, 0.42, 0.20, 0.18),
    (-0.56, 0.58, 0.18, 0.14),
)
# fmt: on


class Coat:
    """Colours of the fur and of matching parts."""

    def __init__(self, f: Factors) -> None:
        dark = ramp(DARK_FUR, f.fur_hue)
        self.fur = mix(ramp(LIGHT_FUR, f.fur_hue), dark, f.fur_dark)
        self.deep, self.lid = mix(self.fur, INK, 0.40), mix(self.fur, INK, 0.16)
        self.pale, self.chin = mix(self.fur, CREAM, 0.78), mix(self.fur, CREAM, 0.62)
        self.ear, self.blush = mix(self.fur, PINK, 0.60), mix(self.fur, PINK, 0.30)
        self.spot = mix(self.fur, CREAM, 0.85) if f.fur_dark > 0.5 else mix(dark, INK, 0.25)


def draw(f: Factors, domain: str, size: int) -> np.ndarray:
    """Picture (size, size, 3) uint8 RGB of the factors in a domain of `SPECIES`."""
    species, coat, head = SPECIES[domain], Coat(f), symmetric(*SPECIES[domain].head)
    brush = Brush(_backdrop(f, size), f)
    _shoulders(brush, coat, head)
    _upright_ears(brush, coat, domain, f.ear)
    brush.fill(brush.flat(head), coat.fur, solid=True)
    with brush.inside(brush.flat(head)):
        _markings(brush, coat, f, domain)
    if domain == "dog":
        _floppy_ears(brush, coat, f.ear)
    _muzzle(brush, coat, f, domain)
    _eyes(brush, coat, f, species)
    if domain == "cat":
        _whiskers(brush, coat)
    return brush.finish(size)


def _backdrop(f: Factors, size: int) -> np.ndarray:
    """Gradient (size, size, 3) uint8 between two neighbouring hues."""
    t = (np.arange(size) + 0.5) / size - 0.5
    slope = (t[None] * f.bg_dx + t[:, None] * f.bg_dy)[..., None]  # (size, size, 1)
    near, far = ramp(SKY, 0.85 * f.bg_hue), ramp(SKY, 0.85 * f.bg_hue + 0.15)
    colour = mix(mix(near, far, 0.5 + 0.5 * slope), WHITE, 0.05 + 0.40 * f.bg_light)
    return np.rint(colour * (0.95 + 0.05 * slope)).astype(np.uint8)


def _shoulders(b: Brush, c: Coat, head: np.ndarray) -> None:
    body = symmetric((0, 0.5), (0.5, 0.62), (0.84, 1.0), (1.02, 1.7), (1.1, 3), (0, 3.2))
    chest = symmetric((0, 0.6), (0.38, 0.9), (0.44, 1.3), (0.2, 1.8), (0, 2))
    b.fill(b.body(body), c.fur, solid=True)
    with b.inside(b.body(body)):
        b.fill(b.body(chest), c.pale)
        b.fill(b.flat(head + (0.02, 0.15)), c.deep)  # shadow of the head


def _upright_ears(b: Brush, c: Coat, domain: str, perk: float) -> None:
    for s in (-1, 1):
        if domain == "cat":
            tip = (1.04 - 0.20 * perk, -1.14 - 0.22 * perk)
            ear = shape((0.16, -0.64), (0.46, -1.06), tip, (1.04, -0.72), (0.96, -0.1), (0.5, 0))
            inner = mix(ear.mean(0) - (0, 0.02), ear, 0.66)
            b.fill(b.flat(ear * (s, 1), -0.3), c.fur, solid=True)
            b.fill(b.flat(inner * (s, 1), -0.25), c.ear)
        elif domain == "bear":
            r = 0.33 + 0.08 * perk
            b.fill(b.flat(ellipse(s * 0.74, -0.68, r, r), -0.3), c.fur, solid=True)
            b.fill(b.flat(ellipse(s * 0.72, -0.64, 0.6 * r, 0.6 * r), -0.25), c.ear)


def _floppy_ears(b: Brush, c: Coat, perk: float) -> None:
    tip = 0.5 - 0.3 * perk
    low = ((1.20, tip - 0.6), (1.18, tip - 0.1), (0.98, tip), (0.84, tip - 0.28))
    flap = shape((0.44, -0.78), (0.72, -0.88), (1.02, -0.62), *low, (0.76, -0.24))
    for s in (-1, 1):
        b.fill(b.flat(flap * (s, 1), -0.1), c.deep, solid=True)


def _markings(b: Brush, c: Coat, f: Factors, domain: str) -> None:
    for s in (-1, 1):
        b.fill(b.face(ellipse(s * 0.66, 0.30, 0.16, 0.10)), c.blush)
    if domain == "cat":
        lines = [curve((0, -0.95), (0, -0.66), (0, -0.34))]
        for s in (-1, 1):
            lines.append(curve((s * 0.31, -0.95), (s * 0.24, -0.66), (s * 0.19, -0.42)))
            lines.append(curve((s * 1.3, -0.02), (s * 1.0, 0.08), (s * 0.76, 0.11)))
            lines.append(curve((s * 1.3, 0.18), (s * 1.0, 0.28), (s * 0.76, 0.31)))
        for line in lines:
            b.fill(b.face(stroke(line, 0.13, 1)), c.deep)
    elif domain == "dog":
        blaze = symmetric((0, -1), (0.17, -0.95), (0.10, -0.3), (0.26, 0.2), (0, 0.5))
        b.fill(b.face(blaze), c.pale)
    if f.spots:
        for x, y, rx, ry in SPOTS:
            spot = ellipse(x * f.spot_side, y, rx * f.spot_size, ry * f.spot_size)
            b.fill(b.face(spot), c.spot)


def _muzzle(b: Brush, c: Coat, f: Factors, domain: str) -> None:
    x, y, rx, ry = SPECIES[domain].muzzle
    top, width, depth = SPECIES[domain].mouth
    jaw, dip = f.mouth * depth, 0.055 + 0.035 * f.smile
    b.fill(b.face(ellipse(0, top + 0.05 + jaw, 0.8 * width, 0.17)), c.chin)
    for s in (-1, 1):
        b.fill(b.face(ellipse(s * x, y, rx, ry), 0.05), c.pale)
    lip = curve(  # right half
        (0, top),
        (0.30 * width, top + dip),
        (0.68 * width, top + 0.85 * dip),
        (width, top + 0.03 - 0.13 * f.smile),
    )
    if f.mouth:
        low = top + dip + jaw
        sides = [(s * 0.62 * width, low - 0.22 * jaw) for s in (1, -1)]
        ends = [(s * 0.85 * width, top + 0.6 * dip) for s in (1, -1)]
        bottom = curve(ends[0], sides[0], (0, low), sides[1], ends[1])
        mouth = b.face(np.concatenate([(lip * (-1, 1))[-6::-1], lip[:-5], bottom]), 0.08)
        with b.inside(mouth):
            b.fill(mouth, MOUTH)
            b.fill(b.face(ellipse(0, low, 0.5 * width, 0.6 * jaw), 0.08), TONGUE)
            for s in (-1, 1) if domain == "cat" else ():
                fang = np.array([(0.60, top), (0.28, top), (0.42, top + dip + 0.1)])
                b.fill(b.face(fang * (s * width, 1), 0.08), WHITE)
    for s in (-1, 1):
        b.fill(b.face(stroke(lip * (s, 1), 0.045), 0.08), INK)
    ny, nx, nr = SPECIES[domain].nose
    b.fill(b.face(stroke(np.array([(0, ny), (0, top + 0.02)]), 0.045), 0.08), INK)
    upper = ((0, ny - nr), (0.8 * nx, ny - 0.85 * nr), (nx, ny - 0.2 * nr))
    nose = symmetric(*upper, (0.45 * nx, ny + 0.75 * nr), (0, ny + nr))
    colour = mix(PINK, INK, 0.1 + 0.3 * f.fur_dark) if domain == "cat" else mix(INK, c.fur, 0.1)
    b.fill(b.face(nose, 0.14), colour)
    gleam = ellipse(-0.3 * nx, ny - 0.45 * nr, 0.3 * nx, 0.22 * nr)
    b.fill(b.face(gleam, 0.14), mix(colour, WHITE, 0.5))


def _eyes(b: Brush, c: Coat, f: Factors, species: Species) -> None:
    x, y, rx, ry = species.eye
    r, iris = ry * species.iris, ramp(IRIS, f.iris)
    low = y - ry * (1 - 2 * f.lid)
    edge = curve((-1.2 * rx, low + 0.04), (0, low - 0.01), (1.2 * rx, low + 0.04))
    lid = np.concatenate([edge, [(1.2 * rx, low - 1), (-1.2 * rx, low - 1)]])
    for s in (-1, 1):
        b.fill(b.face(ellipse(s * x, y - 0.02, 1.13 * rx, 1.1 * ry)), INK)
        eye = b.face(ellipse(s * x, y, rx, ry))
        gx, gy = s * x + f.gaze_x * rx * 0.36, y + f.gaze_y * ry * 0.28
        with b.inside(eye):
            b.fill(eye, WHITE)
            b.fill(b.face(ellipse(gx, gy, r, r)), mix(iris, INK, 0.4))
            b.fill(b.face(ellipse(gx, gy + 0.14 * r, 0.9 * r, 0.82 * r)), iris)
            b.fill(b.face(ellipse(gx, gy, 0.64 * r * species.pupil, 0.64 * r)), INK)
            b.fill(b.face(ellipse(gx - 0.32 * r, gy - 0.36 * r, 0.28 * r, 0.28 * r)), WHITE)
            b.fill(b.face(ellipse(gx + 0.34 * r, gy + 0.4 * r, 0.14 * r, 0.14 * r)), WHITE)
            if f.lid:
                b.fill(b.face(lid + (s * x, 0)), INK)
                b.fill(b.face(lid + (s * x, -0.05)), c.lid)


def _whiskers(b: Brush, c: Coat) -> None:
    colour = mix(c.pale, WHITE, 0.7)
    for s in (-1, 1):
        for k in (-1, 0, 1):
            line = curve((0.30, 0.46 + 0.05 * k), (0.75, 0.42 + 0.10 * k), (1.25, 0.46 + 0.19 * k))
            b.fill(b.flat(stroke(line * (s, 1), 0.035, 0.8), 0.8), colour)

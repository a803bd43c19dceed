"""Factors of a picture of `gen.data.heads`: numbers drawn from (seed, index), and their labels."""

from dataclasses import astuple, dataclass, fields, replace

import numpy as np

ATTRIBUTES = ("mouth_open", "dark_fur", "spots")


@dataclass(frozen=True)
class Factors:
    """The factors of a picture, shared by its twins. Each is uniform over its range.

    No factor is cyclic, so a regressor can predict each of them.
    """

    x: float  # -.05 .. .05 of the side, right
    y: float  # -.04 .. .04 of the side, down
    scale: float  # .85 .. 1.05
    roll: float  # -.3 .. .3 rad, clockwise
    yaw: float  # -.35 .. .35 rad, to the right
    pitch: float  # -.15 .. .15 rad, down
    gaze_x: float  # -1 .. 1
    gaze_y: float  # -1 .. 1
    lid: float  # share of the eye covered: 0 for about half, else up to .35
    mouth: float  # 0 (closed) for half, else .5 .. 1
    smile: float  # 0 .. 1
    fur_hue: float  # 0 .. 1: ginger, gold, tan, grey, slate
    fur_dark: float  # 0 .. .25 for half, else .75 .. 1
    iris: float  # 0 .. 1: brown, amber, green, blue
    ear: float  # 0 .. 1: how perky, or how large
    spots: float  # 0 or 1
    spot_side: float  # -1 or 1: side of the patch around an eye; 0 without spots
    spot_size: float  # .75 .. 1.1; 0 without spots
    bg_hue: float  # 0 .. 1: coral, orange, yellow, green, blue, violet, pink
    bg_light: float  # 0 .. 1
    bg_dx: float  # -1 .. 1, gradient to the right
    bg_dy: float  # -1 .. 1, gradient downwards


FACTORS = tuple(field.name for field in fields(Factors))
LOW, HIGH = np.array(
    [
        (-0.05, 0.05), (-0.04, 0.04), (0.85, 1.05), (-0.3, 0.3), (-0.35, 0.35), (-0.15, 0.15),
        (-1, 1), (-1, 1), (-0.35, 0.35), (-1, 1), (0, 1), (0, 1), (0, 0.5), (0, 1), (0, 1),
        (-1, 1), (-1, 1), (0.75, 1.1), (0, 1), (0, 1), (-1, 1), (-1, 1),
    ]
).T  # fmt: skip


def factors(seed: int, index: int) -> Factors:
    """Content of picture `index`: a function of two integers >= 0 alone."""
    raw = np.random.PCG64(np.random.SeedSequence([seed, index])).random_raw(len(FACTORS))
    f = Factors(*(LOW + (HIGH - LOW) * ((raw >> 11) * 2.0**-53)).tolist())
    spots = float(f.spots > 0)
    return replace(
        f,
        lid=max(f.lid, 0.0),
        mouth=0.5 + f.mouth / 2 if f.mouth > 0 else 0.0,
        fur_dark=f.fur_dark + 0.5 if f.fur_dark > 0.25 else f.fur_dark,
        spots=spots,
        spot_side=spots if f.spot_side > 0 else -spots,
        spot_size=spots * f.spot_size,
    )


def vector(f: Factors) -> np.ndarray:
    """The factors as float32 (len(FACTORS),), in the order of `FACTORS`."""
    return np.array(astuple(f), np.float32)


def attributes(f: Factors) -> np.ndarray:
    """The binary labels `ATTRIBUTES` as int64 (3,); each is 1 for half of the pictures."""
    return np.array([f.mouth > 0, f.fur_dark > 0.5, f.spots > 0], np.int64)

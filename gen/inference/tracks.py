"""Tracks of points as a request: the arrays that point trackers write, read and written here.

`tracks.npy` holds positions (K, T, 2) px, x first, of K points at T even times; `visible.npy`,
bool (K, T), says where a point is seen. One point of an object shifts it; two or more also turn it
and change its size.

Letters in shapes: K points, T frames after the first, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

MOST_POINTS = 10_000


class Track(NamedTuple):
    """An object's id, and the ways (x, y) px of some of its points, of equal length."""

    id: int
    points: tuple[tuple[tuple[float, float], ...], ...]


def load(path: str | Path, visible: str | Path | None = None) -> np.ndarray:
    """Positions (K, T, 2) of a file, float64; those that nobody sees are filled in.

    A gap is filled evenly, the ends are held. Points that are never seen are left out.

    Raises:
        ValueError: no such arrays; expected and got.
    """
    tracks = _array(path, "tracks", lambda x: x.ndim == 3 and x.shape[2] == 2, "(K, T, 2)")
    tracks = tracks.astype(np.float64)
    seen = np.isfinite(tracks).all(2)
    if visible is not None:
        shape = tracks.shape[:2]
        given = _array(visible, "visible", lambda x: x.shape == shape, f"{shape}")
        seen &= given.astype(bool)
    if not seen.any():
        raise ValueError(f"{path}: expected points that are seen, got none")
    times = np.arange(tracks.shape[1])
    for point, there in zip(tracks, seen, strict=True):
        if there.any():
            for axis in (0, 1):
                point[:, axis] = np.interp(times, times[there], point[there, axis])
    return tracks[seen.any(1)]


def _array(path: str | Path, name: str, fits, shape: str) -> np.ndarray:
    """A NumPy file, without pickles, of numbers of the wanted shape."""
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected {name} {shape} as .npy, got {error}") from error
    real = isinstance(found, np.ndarray) and found.dtype.kind in "fiub"
    if not real or not fits(found) or not 0 < len(found) <= MOST_POINTS or found.shape[1] < 2:
        got = f"{found.shape} of {found.dtype}" if real else type(found).__name__
        raise ValueError(
            f"{path}: expected {name} {shape} of numbers, 1 to {MOST_POINTS} points at two times "
            f"or more, got {got}"
        )
    return np.array(found)


def similarities(points: np.ndarray, steps: int) -> np.ndarray:
    """Shifts, turns and growths that fit points (K, T', 2) best: (T, 2, 3), from frame 0 to t, px.

    Least squares over the points: p_t = s R(a) p_0 + d. One point, or points at one place, give a
    shift. Times between the given ones are filled in evenly.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", PAMI 1991, in the plane, where complex numbers give it at once.
    """
    given = np.linspace(0, 1, points.shape[1])
    times = np.linspace(0, 1, steps + 1)
    z = points[..., 0] + 1j * points[..., 1]  # (K, T')
    z = np.stack([np.interp(times, given, way.real) + 1j * np.interp(times, given, way.imag)
                  for way in z])  # (K, T + 1)  # fmt: skip
    centre = z.mean(0)
    arms = z - centre
    spread = (abs(arms[:, 0]) ** 2).sum()
    turn = np.ones(steps, complex)
    if spread > 1e-9:
        turn = (arms[:, :1].conj() * arms[:, 1:]).sum(0) / spread  # s e^(i a)
    shift = centre[1:] - turn * centre[0]
    rows = (turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag)
    return np.stack([np.stack(row, -1) for row in rows], -2)


def faster(points: np.ndarray, speed: float) -> np.ndarray:
    """Points (K, T, 2) that shift and turn `speed` times as far; growth to the power `speed`."""
    z = points[..., 0] + 1j * points[..., 1]  # (K, T)
    fits = similarities(points, points.shape[1] - 1)  # (T - 1, 2, 3)
    turn = np.concatenate([[1], fits[:, 0, 0] + 1j * fits[:, 1, 0]])  # s e^(i a)
    log = np.log(abs(turn)) + 1j * np.unwrap(np.angle(turn))
    centre = z.mean(0)
    moved = centre[0] + speed * (centre - centre[0])
    z = moved + (z[:, :1] - centre[0]) * np.exp(speed * log)
    return np.stack([z.real, z.imag], -1)


def normalised(forth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Motions (T, 2, 3) from frame 0 to t, px, as motions back to frame 0, -1 .. 1, of (H, W)."""
    half = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    whole = np.tile(np.eye(3), (len(forth), 1, 1))
    whole[:, :2] = forth
    px = np.diag([*half, 1.0])
    px[:2, 2] = half  # p = half n + half
    return (np.linalg.inv(px) @ np.linalg.inv(whole) @ px)[:, :2]

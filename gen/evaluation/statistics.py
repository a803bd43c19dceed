"""Statistics over runs with several seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student


class Interval(NamedTuple):
    """A mean over seeds, and half of its 95 % interval; NaN for a single seed."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + (f" ± {self.half:.3f}" if np.isfinite(self.half) else "")


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of Student's t, one value per seed."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return Interval(float(values.mean()), float("nan"))
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return Interval(float(values.mean()), float(half))


def p_paired(differences: Sequence[float]) -> float:
    """Two-sided p of Student's paired t-test; NaN for a single seed, or if no pair differs."""
    d = np.asarray(differences, float)
    if len(d) < 2 or not d.any():
        return float("nan")
    spread = d.std(ddof=1) / len(d) ** 0.5
    if spread == 0:
        return 0.0
    return float(2 * student.sf(abs(d.mean()) / spread, len(d) - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm, 1979); NaN stays and is not counted.

    Sorted p values are multiplied by n, n - 1, .. 1, made monotone and limited to 1.
    """
    ps = np.asarray(ps, float)
    known = np.flatnonzero(np.isfinite(ps))
    order = known[np.argsort(ps[known], kind="stable")]
    corrected = np.full(len(ps), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(ps[order] * factors), 1)
    return corrected.tolist()

"""Schedules of weights and learning rates in training: pure functions of the step."""

import math


def ramp(epoch: int, epochs: int, warmup: int = 10) -> float:
    """Share of lambda: 0 to 1 in equal steps over the warm-up, then half a cosine to 0.

    As released for 20 epochs and more; in shorter runs half the epochs warm up, so that 2 epochs
    have 0 and 1, and a single one has 1.
    """
    rise = min(warmup, epochs // 2)
    return epoch / max(rise - 1, 1) if epoch < rise else half_cosine(epoch - rise, epochs - rise)


def half_cosine(step: int, steps: int) -> float:
    """Half a cosine: 1 at step 0, 0 at `steps` and later."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def linear_fall(step: int, start: int, steps: int) -> float:
    """1 up to step `start`, then evenly down to 0 over `steps`; 0 steps: 1 for ever."""
    return min(1.0, max(0.0, 1 - (step - start) / steps)) if steps else 1.0

"""Schedules of weights and learning rates in training: pure functions of the step."""

import math


def ramp(epoch: int, epochs: int, warmup: int = 10) -> float:
    """Factor of lambda: rises linearly from 0 to 1 in the warm-up, then half a cosine to 0.

    For 20 epochs or more as released. In shorter runs half of the epochs are warm-up: 2 epochs have
    factors 0 and 1, and a single epoch has 1.
    """
    rise = min(warmup, epochs // 2)
    return epoch / max(rise - 1, 1) if epoch < rise else half_cosine(epoch - rise, epochs - rise)


def half_cosine(step: int, steps: int) -> float:
    """Half a cosine: 1 at step 0, 0 at `steps` and later."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def linear_fall(step: int, start: int, steps: int) -> float:
    """1 up to step `start`, then linearly down to 0 over `steps`; always 1 if steps is 0."""
    return min(1.0, max(0.0, 1 - (step - start) / steps)) if steps else 1.0

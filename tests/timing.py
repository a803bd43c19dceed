"""Processor time in units of a fixed piece of work: a bar that holds on fast and slow machines."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np

SCRIPT = Path(__file__).resolve().parents[1] / "scripts/benchmark.py"
PICTURE = np.random.default_rng(0).random((128, 256, 3), dtype=np.float32)


def yard() -> None:
    """The kind of work that scenes are drawn with: numpy, a loop of Python, a little OpenCV."""
    for _ in range(6):
        image = np.clip(np.sqrt(PICTURE * PICTURE + 0.5), 0, 1)
        mask = image[..., 0] > 0.7
        image[mask] = image[mask] * 0.5
        image.sum(0)
    sum(i * i for i in range(60_000))
    for _ in range(3):
        cv2.GaussianBlur(PICTURE, (0, 0), 3)


def yards(work: Callable[[int], object], repeats: int = 15) -> float:
    """Median processor time of `work(i)` on one thread, in yards (15 to 23 ms on our machines).

    A yard is timed before each call, so that a slow processor and its neighbours slow down both.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yard()
        work(0)
        ratios = []
        for i in range(repeats):
            began = time.process_time()
            yard()
            between = time.process_time()
            work(i)
            ratios.append((time.process_time() - between) / (between - began))
    finally:
        cv2.setNumThreads(threads)
    return median(ratios)


def benchmark(*args: str) -> list[dict]:
    """Rows of a command of scripts/benchmark.py."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *args], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["rows"]

"""Statistics for the tables of scripts/claims."""

from pathlib import Path

import numpy as np
from scipy.stats import t as student

from gen.evaluation.results import from_json


def read(path: Path) -> dict[str, float]:
    """Values by metric name, from the JSON lines of `scripts/evaluate.py`."""
    return {row["metric"]: row["value"] for row in from_json(path)}


def mean_and_interval(values: np.ndarray) -> str:
    """Mean and 95 % interval of Student's t over seeds."""
    if len(values) < 2:
        return f"{values.mean():8.3f}        "
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():8.3f} ± {half:.3f}"

"""The tables of scripts/claims: means, intervals, and differences of equal seeds."""

import json
import runpy

import pytest
from scipy.stats import ttest_rel

from conftest import ROOT


def test_differences_are_paired_by_seed(tmp_path):
    claim = runpy.run_path(str(ROOT / "scripts/claims/spatial_entropy.py"))
    values = {"with": [0.60, 0.55, 0.71], "without": [0.58, 0.50, 0.66], "other": [9, 9, 9]}
    for side, of_seed in values.items():
        for seed, value in zip((1, 2, 10), of_seed, strict=True):
            folder = tmp_path / f"{side}_{seed}"
            folder.mkdir()
            row = dict(metric="val/top1", value=value)
            (folder / "test.jsonl").write_text(json.dumps(row) + "\n")
    head, row = claim["table"](tmp_path, ["1", "2", "10"]).splitlines()
    assert head.split() == ["with", "without", "difference"]
    numbers = [
        float(word) for word in row.split(":")[1].replace("accuracy", "").split() if word != "±"
    ]
    test = ttest_rel(values["with"], values["without"])
    low, high = test.confidence_interval(0.95)
    expected = [0.62, None, 0.58, None, 0.04, (high - low) / 2]
    for number, wanted in zip(numbers, expected, strict=True):
        assert wanted is None or number == pytest.approx(wanted, abs=1e-3)
    one = claim["table"](tmp_path, ["1"]).splitlines()[1]  # no interval of a single seed
    assert "±" not in one and "0.600" in one

"""Every claim of the repository runs from its data to its page, in a short trial of all arms."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT
from gen.bench import claim as claims

FILES = sorted((ROOT / "configs/claims").glob("*.yaml"))
NEEDS = {
    "spatial_entropy": "data/emoji_groups",
    "spatial_entropy_parts": "data/emoji_clutter",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_arm_is_trained_measured_compared_and_shown(path, tmp_path, lpips_cache):
    if (need := NEEDS.get(path.stem)) and not (ROOT / need).exists():
        pytest.skip(f"no {need}, see scripts/test.sh")
    claim = claims.read(path)
    command = [sys.executable, "-m", "gen", "bench", path.stem, "--smoke", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    logs = {log.parent.name: log.read_text()[-600:] for log in tmp_path.glob("*/log.txt")}
    assert done.returncode == 0, (done.stderr, logs)
    lines = [json.loads(x) for x in (tmp_path / "results.jsonl").read_text().splitlines()]
    measured = {(line["arm"], line["metric"]) for line in lines}
    assert {arm for arm, _ in measured} == set(claim.arms)
    for goal in claim.goals:  # also where the trial is too short to say anything
        assert (goal.arm, goal.metric) in measured
        assert f"Goal: {goal}" in (tmp_path / "table.md").read_text()
    assert ("Pictures" in (tmp_path / "page.html").read_text()) == bool(claim.picture)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "running" not in again.stdout  # nothing is left to do

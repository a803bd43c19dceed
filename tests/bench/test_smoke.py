"""Every claim of the repository runs from its data to its page, in a short trial of all arms.

The runs of one claim are processes, as a user has them. Those of the others, and their trainings,
are calls within this process, which spares each of them the seconds of importing torch.
"""

import json
import subprocess
import sys

import pytest

from conftest import ROOT
from gen.bench import claim as claims
from gen.bench import jobs
from runs import status

FILES = sorted((ROOT / "configs/claims").glob("*.yaml"))
NEEDS = {
    "spatial_entropy": "data/emoji_groups",
    "spatial_entropy_parts": "data/emoji_clutter",
}
PROCESSES = "click_to_move"  # of two arms


def process(*words: str) -> tuple[int, str]:
    """Exit status and output of `gen`, as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "gen", *words], cwd=ROOT, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def call(*command: str) -> int:
    """Exit status of `python -m gen ..`, within this process."""
    assert command[:3] == (sys.executable, "-m", "gen")
    return status(*command[3:])


@pytest.fixture
def within(monkeypatch, capfd):
    """`process`, but within this one."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(jobs, "call", call)
    monkeypatch.setattr(
        jobs, "run_here", lambda commands, _: max((call(*c) for c in commands), default=0)
    )

    def run(*words: str) -> tuple[int, str]:
        code = status(*words)
        return code, "".join(capfd.readouterr())

    return run


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_arm_is_trained_measured_compared_and_shown(path, tmp_path, lpips_cache, request):
    if (need := NEEDS.get(path.stem)) and not (ROOT / need).exists():
        pytest.skip(f"no {need}, see scripts/test.sh")
    gen = process if path.stem == PROCESSES else request.getfixturevalue("within")
    claim = claims.read(path)
    command = ["bench", path.stem, "--smoke", "--out", str(tmp_path)]
    code, said = gen(*command)
    logs = {log.parent.name: log.read_text()[-600:] for log in tmp_path.glob("*/log.txt")}
    assert code == 0 and said.count("running, see") == len(claim.arms) + bool(claim.judge), (
        said,
        logs,
    )
    lines = [json.loads(x) for x in (tmp_path / "results.jsonl").read_text().splitlines()]
    measured = {(line["arm"], line["metric"]) for line in lines}
    assert {arm for arm, _ in measured} == set(claim.arms)
    for goal in claim.goals:  # also where the trial is too short to say anything
        assert (goal.arm, goal.metric) in measured
        assert f"Goal: {goal}" in (tmp_path / "table.md").read_text()
    assert ("Pictures" in (tmp_path / "page.html").read_text()) == bool(claim.picture)
    code, said = gen(*command)
    assert code == 0 and "running" not in said  # nothing is left to do

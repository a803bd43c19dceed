"""Thousands of damaged and hostile files, the same each time: see attack.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runs import rows

ATTACK = Path(__file__).with_name("attack.py")
DOORS = (
    *("checkpoint", "safetensors", "options", "starganv2", "stylegan2", "weights", "arrays"),
    *("images", "archives", "codes", "config", "sets", "tars", "shards", *rows("DOORS")),
)


def attack(cases: int, seed: int, *doors: str) -> dict[str, list[str]]:
    command = [sys.executable, ATTACK, str(cases), str(seed), *doors]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{[row['door'] for row in rows]} and then {done.stderr[-2000:]}"
    return {row["door"]: row["wrong"] for row in rows}


@pytest.fixture(scope="module")
def found():
    """200 files for each door, in one process."""
    return attack(200, 1)


@pytest.mark.parametrize("door", DOORS)
def test_damaged_files_are_read_or_refused_in_words(found, door):
    assert found[door] == []


def test_every_door_is_attacked(found):
    assert set(found) == {*DOORS, *BROKEN}


@pytest.mark.slow
@pytest.mark.parametrize("doors", [DOORS[:3], DOORS[3:]], ids=["first", "others"])
def test_thousands_of_damaged_files_are_read_or_refused_in_words(doors):
    """600 files for each door, in two processes that take about equally long."""
    assert attack(600, 2, *doors) == dict.fromkeys(doors, [])


BROKEN = dict(slow="Timeout", large="MiB", rude="KeyError", silent="said", runs="os.system")


@pytest.mark.parametrize("door", BROKEN)
def test_the_attack_sees_what_goes_wrong(found, door):
    """On doors that break its limits, each in its way."""
    [said] = found[door]
    assert BROKEN[door] in said

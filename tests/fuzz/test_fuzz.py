"""Thousands of damaged and hostile files, the same each time: see attack.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ATTACK = Path(__file__).with_name("attack.py")
DOORS = (
    *("checkpoint", "safetensors", "options", "starganv2", "stylegan2", "weights", "arrays"),
    *("images", "archives", "codes"),
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
    """200 files for each door."""
    return attack(200, 1)


@pytest.mark.parametrize("door", DOORS)
def test_damaged_files_are_read_or_refused_in_words(found, door):
    assert found[door] == []


def test_every_door_is_attacked(found):
    assert set(found) == set(DOORS)


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_thousands_of_damaged_files_are_read_or_refused_in_words(door):
    assert attack(3000, 2, door)[door] == []


def test_the_attack_sees_what_goes_wrong(tmp_path):
    """Its limits hold: doors that break them, each in its way, are told."""
    code = """
import os, sys
from pathlib import Path
import attack

def slow(path):
    while True:
        pass

def large(path):
    return len(bytearray(600 * 2**20))

def rude(path):
    raise KeyError("x")

def silent(path):
    raise ValueError("no path in it")

def runs(path):
    os.system("true")

attack.SECONDS = 0.5
attack.begin()
for read in (slow, large, rude, silent, runs):
    door = attack.Door(".x", [b"abc"], [attack.damage], read)
    print(attack.attack(door, "x", 1, 1, Path(sys.argv[1])))
"""
    env = os.environ | {"PYTHONPATH": str(ATTACK.parent)}
    command = [sys.executable, "-c", code, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    lines = done.stdout.splitlines()
    for said, line in zip(("Timeout", "MiB", "KeyError", "said", "os.sys"), lines, strict=True):
        assert said in line, done.stdout + done.stderr[-1000:]

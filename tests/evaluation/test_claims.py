"""The claims: their tables, with intervals and differences of equal seeds, and Ctrl-C."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys

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


def test_every_metric_of_editors_has_a_row_and_every_side_a_column(tmp_path):
    claim = runpy.run_path(str(ROOT / "scripts/claims/style_function.py"))
    values = {"style_function": [0.9, 0.8], "linear_w": [0.5, 0.5], "linear_wplus": [0.7, 0.6]}
    for side, of_seed in values.items():
        for seed, value in zip((1, 2), of_seed, strict=True):
            folder = tmp_path / f"{side}_{seed}"
            folder.mkdir()
            rows = [dict(metric="edits/accuracy_joint", value=value)]
            if side != "linear_w":
                rows.append(dict(metric="single/kept", value=0.25))
            (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head, joint, kept = claim["table"](tmp_path, ["1", "2"]).splitlines()
    titles = list(claim["SIDES"].values())
    assert list(claim["SIDES"]) == list(values) and head.split() == " ".join(titles).split()
    ends = [head.index(title) + len(title) for title in titles]  # cells end where titles do
    cells = [[line[end - 18 : end].strip() for end in ends] for line in (joint, kept)]
    assert joint.startswith("edits/accuracy_joint ") and kept.startswith("single/kept ")
    half = 12.7062 * 0.1 / 2  # t of one degree of freedom, two values 0.1 apart
    assert cells[0] == [f"0.850 ± {half:.3f}", "0.500 ± 0.000", f"0.650 ± {half:.3f}"]
    assert cells[1] == ["0.250 ± 0.000", "-", "0.250 ± 0.000"]


def test_what_edges_are_worth_where_objects_act_on_each_other(tmp_path):
    claim = runpy.run_path(str(ROOT / "scripts/claims/click_to_move.py"))
    kinds = {"collide": 4.0, "push": 5.0, "follow": 6.0}  # their mean is 5
    for side, factor in (("with", 0.7), ("without", 1.0)):
        for seed in (1, 2):
            folder = tmp_path / f"{side}_{seed}"
            folder.mkdir()
            values = {"nobody/fde_px": 9.0}
            for name in claim["OF_KIND"]:
                own = (factor if name.startswith("user") else 1) * seed
                values |= {name: 9.0 * own} | {f"{name}_{k}": v * own for k, v in kinds.items()}
            rows = [json.dumps(dict(metric=k, value=v)) + "\n" for k, v in values.items()]
            (folder / "test.jsonl").write_text("".join(rows))
    head, *lines = claim["table"](tmp_path, ["1", "2"]).splitlines()
    assert head.split() == ["with", "without", "difference", "share"]
    rows = {line.split()[0]: [word for word in line.split()[1:] if word != "±"] for line in lines}
    assert rows["user/fde_px_acting"][::2] == ["5.250", "7.500", "-2.250", "0.700"]
    assert rows["user/fde_px_acting"][-1] == "0.000"  # the share is the same for both seeds
    assert rows["still/change_px_velocity_acting"][-2:] == ["1.000", "0.000"]
    assert not any(name.startswith("nobody") for name in rows)
    assert all(name.endswith("_acting") for name in list(rows)[: len(claim["OF_KIND"])])


def test_arms_are_held_against_the_smoothing_losses_of_their_seed(tmp_path):
    claim = runpy.run_path(str(ROOT / "scripts/claims/smooth_i2i.py"))

    def rows(straight, accuracy):
        """Paths that are as straight at every distance, of two sources."""
        found = []
        for psi, direct in (("_psi0.5", 0.1), ("", 0.2), ("_psi2", 0.4)):
            for name, value in (("direct", direct), ("straight", straight)):
                of_source = {0: value, 1: value}
                metric = f"inter/latent{psi}/{name}_t20_alex"
                found.append(dict(metric=metric, protocol="", values=of_source))
        of_source = {0: accuracy, 1: accuracy}
        return [*found, dict(metric="latent/accuracy_x", protocol="", values=of_source)]

    runs = {}
    for seed, base in (("1", 0.30), ("2", 0.34)):
        runs["mended", "smooth", seed] = rows(base, 0.8)
        runs["mended", "both", seed] = rows(base + 0.1, 0.7)
        runs["published", "smooth", seed] = rows(base, 0.5)
    head, *lines = claim["table"](runs).splitlines()
    assert head == "mended generator, both: seeds 1, 2"  # and no other arm
    found = {line.split()[0]: [w for w in line.split()[1:] if w != "±"] for line in lines}
    assert found["inter/equal_distance/straight_t20_alex"][::2] == ["0.320", "0.100"]
    assert found["inter/equal_distance/straight_t20_alex"][3] == "0.000"  # in both seeds alike
    assert found["latent/accuracy_x"][::2] == ["0.800", "-0.100"]


# ---- Ctrl-C -------------------------------------------------------------------------------------

FIT = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(1))
print("began", *sys.argv[1:], flush=True)
while not got: time.sleep(0.01)
time.sleep(0.6)  # it saves
print("saved", *sys.argv[1:], flush=True)
open(" ".join(["saved", *sys.argv[1:]]), "w")
sys.exit(130)
"""
CLAIM = """
set -euo pipefail
. "$(dirname "$0")/runs.sh"
one() {{
  .venv/bin/python -c "$FIT" "$@"
  echo evaluated
}}
export JOBS=2
{each}
echo table
"""


def claim(tmp_path, each: str, fit: str = FIT) -> subprocess.Popen:
    """A script as those of scripts/claims, in a session of its own, as of a terminal."""
    folder = tmp_path / "scripts/claims"
    shutil.copytree(ROOT / "scripts/claims", folder, dirs_exist_ok=True)
    (tmp_path / "scripts/install.sh").touch()  # all is installed
    (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / "x.sh").write_text(CLAIM.format(each=each))
    return subprocess.Popen(
        ["bash", folder / "x.sh"], text=True, env=os.environ | dict(FIT=fit, SEEDS="1 2"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_at_a_claim_waits_till_all_that_runs_has_saved(tmp_path, number):
    script = claim(tmp_path, 'each "with without" --a "b c"')
    began = {script.stdout.readline() for _ in range(2)}
    assert began == {f"began {side} 1 --a b c\n" for side in ("with", "without")}
    if number == signal.SIGHUP:
        script.stderr.close()  # as of a terminal that is closed
    os.killpg(script.pid, number)
    saved = {f"saved {side} 1 --a b c" for side in ("with", "without")}
    if number == signal.SIGINT:
        assert script.wait(timeout=60) == 130
        assert {path.name for path in tmp_path.glob("saved*")} == saved
        assert "is waited for" in script.stderr.read()
    assert {*script.stdout.read().splitlines()} == saved  # it ends when nobody can write any more


SAY = r"import sys; sys.stdout.write(' '.join(sys.argv[1:]) + '\n')"  # a line in one piece


def test_a_claim_runs_all_and_ends_at_what_failed(tmp_path):
    said, _ = claim(tmp_path, "each 'a b'", SAY).communicate()
    lines = said.splitlines()
    assert sorted(set(lines[:-1])) == ["a 1", "a 2", "b 1", "b 2", "evaluated"]
    assert lines[-1] == "table"
    script = claim(tmp_path, "JOBS=1 each 'a b'", f"{SAY}; sys.exit(255)")
    assert script.communicate()[0] == "a 1\n" and script.returncode == 255
    fails = f"{SAY}; sys.exit(sys.argv[1] == 'a')"
    script = claim(tmp_path, "each 'a b'", fails)
    said = script.communicate()[0].splitlines()
    assert said.count("evaluated") == 2 and script.returncode == 1 and "table" not in said

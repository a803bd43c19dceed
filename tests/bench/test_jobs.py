"""Runs of a claim: planned, refused, resumed, interrupted, submitted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gen.bench import jobs
from gen.bench.claim import Arm, Claim
from gen.verbs import bench, evaluate

ROW = dict(metric="a", value=1.0, protocol="p", better="higher", count=1, values={"0": 1.0})


@pytest.fixture
def claim(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("# comment\nmodel: {x: 1}\n")
    arms = {"without": Arm(str(config)), "with": Arm(str(config), {"model.x": 2}, "without")}
    judge = Arm(str(config), {"model.y": 1})
    evaluate = {"classifier": "{judge}", "count": 3}
    return Claim(
        tmp_path / "mine.yaml", "Does it help?", str(config), 1.0, [1, 2], arms, evaluate, ["a"],
        [], {}, judge=judge,
    )  # fmt: skip


@pytest.fixture
def fit(monkeypatch):
    """A training and an evaluation that note their words; `codes` are the next exit statuses."""
    said, codes = [], []

    def call(*command, **_):
        said.append([*map(str, command)])
        out = Path(command[command.index("--out") + 1])
        (out / "last.ckpt").touch()
        return codes.pop() if codes else 0

    def measure(words):
        said.append(["evaluate", *words])
        return [ROW]

    monkeypatch.setattr(jobs, "call", call)
    monkeypatch.setattr(evaluate, "measure", measure)
    call.said, call.codes = said, codes
    return call


def test_the_judge_comes_first_then_all_arms_of_a_seed(claim, tmp_path):
    runs = jobs.plan(claim, tmp_path / "o", ["--model.z", "3"])
    names = ["judge", "without_1", "with_1", "without_2", "with_2"]
    assert [run.name for run in runs] == names
    assert runs[1].evaluate == ("--classifier", f"{tmp_path}/o/judge/last.ckpt", "--count", "3")
    assert runs[0].seed is None and runs[0].more == () and runs[1].more == ("--model.z", "3")
    some = jobs.plan(claim, tmp_path, seeds=[7], arms=["with"])
    assert [run.name for run in some] == ["judge", "with_7"]
    with pytest.raises(ValueError, match="without with, got wiht"):
        jobs.plan(claim, tmp_path, arms=["wiht"])


def test_small_numbers_and_odd_letters_are_no_other_run(claim, tmp_path):
    Path(claim.config).write_text("model: {lr: 1.0e-05, name: \U0001f600, on: 2026-01-31}\n")
    claim.arms["with"].options["model.lr"] = 1e-7
    runs = jobs.plan(claim, tmp_path / "o")
    jobs.begin(runs)
    assert all(jobs.begun(run) == jobs.identity(run) for run in runs)
    jobs.begin(runs)
    (runs[0].folder / "claim.json").write_text("[1]")
    with pytest.raises(ValueError, match="claim.json: expected JSON .* choose another --out"):
        jobs.begin(runs)


def test_a_run_is_trained_then_measured_and_only_once(claim, tmp_path, fit):
    run = jobs.plan(claim, tmp_path / "o")[2]
    jobs.begin([run])
    jobs.perform(run)
    train, test = fit.said
    assert train[1:6] == ["-m", "gen", "fit", "-c", claim.config]
    assert train[train.index("--model.seed") + 1] == train[train.index("--data.seed") + 1] == "1"
    assert train[-2:] == ["--model.x", "2"] and "--ckpt_path" not in train
    assert test[1:3] == ["--checkpoint", str(run.checkpoint)] and test[-1] == "3"
    assert json.loads((run.folder / jobs.ROWS).read_text()) == ROW and run.is_done()
    jobs.perform(run)
    assert len(fit.said) == 2
    assert json.loads((run.folder / jobs.COST).read_text())["core_seconds"] >= 0


def test_a_training_that_was_cut_goes_on(claim, tmp_path, fit):
    run = jobs.plan(claim, tmp_path / "o")[1]
    jobs.begin([run])
    fit.codes.append(130)
    with pytest.raises(RuntimeError, match="without_1: the training ended with 130"):
        jobs.perform(run)
    assert not run.is_done() and len(fit.said) == 1  # nothing is measured
    jobs.begin([run])
    jobs.perform(run)
    assert fit.said[1][-2:] == ["--ckpt_path", str(run.checkpoint)] and run.is_done()
    assert len((run.folder / jobs.COST).read_text().splitlines()) == 2


def test_a_run_of_another_config_is_refused_and_one_of_a_comment_is_not(claim, tmp_path, fit):
    config, runs = Path(claim.config), jobs.plan(claim, tmp_path / "o")
    jobs.begin(runs)
    config.write_text("# another comment\nmodel: {x: 1}\n")
    jobs.begin(runs)
    config.write_text("model: {x: 3}\n")
    more = jobs.plan(claim, tmp_path / "o", seeds=[1, 5])
    with pytest.raises(ValueError, match="judge: expected a run of config .*'x': 3.*choose"):
        jobs.begin(more)
    assert not (tmp_path / "o/with_5").exists()  # nothing is written
    config.write_text("model: {x: 1}\n")
    with pytest.raises(ValueError, match=r"without_1: expected a run of more \['--model.x', '4'\]"):
        jobs.begin(jobs.plan(claim, tmp_path / "o", ["--model.x", "4"]))


def test_a_folder_of_something_else_is_refused(claim, tmp_path):
    with pytest.raises(ValueError, match="a new folder, or one with runs of a claim, got"):
        jobs.check_folder(tmp_path)  # holds a config
    jobs.check_folder(tmp_path / "new")
    jobs.begin(jobs.plan(claim, tmp_path / "new"))
    jobs.check_folder(tmp_path / "new")


def test_a_run_of_another_generator_is_refused(claim, tmp_path):
    weights = tmp_path / "g.safetensors"
    weights.write_bytes(b"1")
    Path(claim.config).write_text(f"model: {{generator: {weights}}}\n")
    runs = jobs.plan(claim, tmp_path / "o")
    jobs.begin(runs)
    weights.write_bytes(b"2")
    with pytest.raises(ValueError, match="expected a run of files"):
        jobs.begin(runs)


def test_other_options_of_evaluate_measure_anew_and_train_nothing(claim, tmp_path, fit):
    run = jobs.plan(claim, tmp_path / "o")[1]
    jobs.begin([run])
    jobs.perform(run)
    (run.folder / "test.values.val.jsonl").touch()  # of a classifier's split
    run = jobs.plan(replace(claim, evaluate={"count": 4}), tmp_path / "o")[1]
    jobs.begin([run])
    assert not run.is_done() and not [*run.folder.glob("test.values*")]
    jobs.perform(run)
    assert [words[0] for words in fit.said] == [sys.executable, "evaluate", "evaluate"]


# ---- Ctrl-C -------------------------------------------------------------------------------------

FIT = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda *_: got.append(1))
sys.stdout.write(" ".join(["began", *sys.argv[1:]]) + "\\n"); sys.stdout.flush()
while not got: time.sleep(0.01)
time.sleep(0.6)  # it saves
sys.stdout.write(" ".join(["saved", *sys.argv[1:]]) + "\\n"); sys.stdout.flush()
open(" ".join(["saved", *sys.argv[1:]]), "w")
sys.exit(130)
"""
START = """
import sys
from gen.bench.jobs import run_here
commands = [[sys.executable, "-c", sys.argv[1], *words.split()] for words in sys.argv[3:]]
sys.exit(run_here(commands, int(sys.argv[2])))
"""


def start(tmp_path, fit: str, n: int, *runs: str) -> subprocess.Popen:
    """`run_here` in a session of its own, as of a terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", START, fit, str(n), *runs], text=True, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | dict(PYTHONPATH=str(Path(jobs.__file__).parents[2])),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_waits_till_all_that_runs_has_saved(tmp_path, number):
    script = start(tmp_path, FIT, 2, "with 1", "without 1", "with 2")
    began = {script.stdout.readline() for _ in range(2)}
    assert began == {f"began {side} 1\n" for side in ("with", "without")}
    if number == signal.SIGHUP:
        script.stderr.close()  # as of a terminal that is closed
    os.killpg(script.pid, number)
    saved = {f"saved {side} 1" for side in ("with", "without")}
    if number == signal.SIGINT:
        assert script.wait(timeout=60) == 130
        assert {path.name for path in tmp_path.glob("saved*")} == saved
        assert "is waited for" in script.stderr.read()
    assert {*script.stdout.read().splitlines()} == saved  # it ends when nobody can write any more


def test_all_runs_begin_and_one_that_failed_is_told(tmp_path):
    said = r"import sys; sys.stdout.write(' '.join(sys.argv[1:]) + '\n'); "
    script = start(tmp_path, said + "sys.exit(sys.argv[1] == 'a')", 1, "a 1", "b 1", "a 2")
    assert script.communicate()[0].split("\n") == ["a 1", "b 1", "a 2", ""]
    assert script.returncode == 1


# ---- submitit -----------------------------------------------------------------------------------

RUN = """
import os, signal, sys, time
here = sys.argv[1]
def save(*_):
    open(os.path.join(here, "saved"), "w").close()
    sys.exit(130)
signal.signal(signal.SIGINT, save)
if os.path.exists(os.path.join(here, "saved")):
    open(os.path.join(here, "done"), "w").close()
    sys.exit(0)
open(os.path.join(here, "began"), "w").close()
while True: time.sleep(0.01)
"""


def wait_for(path: Path) -> None:
    end = time.time() + 120
    while not path.exists():
        assert time.time() < end, f"no {path.name}"
        time.sleep(0.05)


@pytest.fixture
def submitted(tmp_path):
    """A job of submitit's local executor that has begun: {folder of its run: job}."""
    pytest.importorskip("submitit")
    run = tmp_path / "run"
    run.mkdir()
    command = [sys.executable, "-c", RUN, str(run)]
    found = jobs.submit({run: command}, "local", tmp_path / "jobs", {"timeout_min": 60})
    wait_for(run / "began")
    return found


def test_a_preempted_job_saves_is_requeued_and_goes_on(submitted):
    (run,) = submitted
    controller = submitted[run].job_id  # a process, which starts the job
    (job,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(job), signal.SIGUSR2)  # the signal that SLURM sends before it takes the node
    assert bench.wait(submitted) == 0
    assert (run / "saved").exists() and (run / "done").exists()


def test_ctrl_c_stops_jobs_of_this_machine(submitted, monkeypatch):
    (run,) = submitted

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(submitted[run]), "exception", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.wait(submitted)
    wait_for(run / "saved")
    assert not (run / "done").exists()


def test_a_job_that_fails_is_told(tmp_path, capsys):
    pytest.importorskip("submitit")
    run = tmp_path / "run"
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    assert bench.wait(jobs.submit({run: command}, "local", tmp_path / "jobs", {})) == 1
    assert f"{run}: failed" in capsys.readouterr().err


def test_what_slurm_would_get(tmp_path, monkeypatch):
    """A stub of sbatch keeps the file that it is given."""
    pytest.importorskip("submitit")
    stubs = tmp_path / "bin"
    stubs.mkdir()
    kept = tmp_path / "kept.sh"
    for name, text in (("sbatch", f'cp "$1" {kept}\necho "Submitted batch job 12"'), ("srun", "")):
        (stubs / name).write_text(f"#!/bin/sh\n{text}\n")
        (stubs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{stubs}{os.pathsep}{os.environ['PATH']}")
    options = dict(timeout_min=90, slurm_partition="gpu", gpus_per_node=1)
    run = tmp_path / "run"
    submitted = jobs.submit({run: ["gen", "bench", "x"]}, "slurm", tmp_path / "jobs", options)
    assert submitted[run].job_id == "12"
    text = kept.read_text()
    for flag in ("--time=90", "--partition=gpu", "--gpus-per-node=1", "--job-name=gen-bench"):
        assert f"#SBATCH {flag}" in text, flag
    assert re.search(r"#SBATCH --signal=USR2@\d+", text) and "#SBATCH --open-mode=append" in text
    assert "srun" in text and "submitit.core._submit" in text
    note = json.loads((run / "job.json").read_text())
    assert note == dict(folder=str(tmp_path / "jobs"), id="12")
    for state, expected in (("RUNNING", "12"), ("FAILED", "13")):
        (stubs / "sacct").write_text(f"#!/bin/sh\necho 'JobID|State|NodeList\n12|{state}|n1'\n")
        (stubs / "sacct").chmod(0o755)
        (stubs / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 13\n")
        again = jobs.submit({run: ["gen"]}, "slurm", tmp_path / "jobs", options)
        assert again[run].job_id == expected  # a job that runs is not submitted twice
        type(again[run]).watcher.clear()
    from submitit.core.utils import DelayedSubmission

    (pickled,) = (tmp_path / "jobs").glob("12_submitted.pkl")
    assert DelayedSubmission.load(pickled).function.command == ["gen", "bench", "x"]


def test_a_launcher_that_does_not_exist_is_named(tmp_path):
    pytest.importorskip("submitit")
    for launcher, options in (("slrum", {}), ("local", {"timeout": 3})):
        with pytest.raises(ValueError, match=f"--launcher {launcher}: expected a cluster and"):
            jobs.submit({}, launcher, tmp_path / "jobs", options)

"""The runs of a claim: trained and measured, resumed after an interruption, here or by submitit."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gen import hub, shipped
from gen.bench.claim import FOLDER, Arm, Claim, command, fill, read, words
from gen.commands import call, call_each
from gen.files import packaged, read_yaml, sha256, write_atomic

RESULTS = Path("results")  # of a clone: the published results of claims
ROWS = "rows.jsonl"  # the rows of an evaluation, with the values of single units
COST = "cost.jsonl"  # a line for each training process
JUDGE = "judge"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"}
ENDED |= {"DEADLINE", "PREEMPTED", "FINISHED", "DONE"}


class Run(NamedTuple):
    """One arm with one seed.

    Args:
        name: name of the run, such as `with_1`.
        folder: folder of the run.
        arm: arm that is trained.
        seed: seed of the weights and of the data; None keeps the seeds of the config.
        more: further options of `gen fit`, as words.
        evaluate: options of `gen evaluate`; None measures nothing.
    """

    name: str
    folder: Path
    arm: Arm
    seed: int | None
    more: tuple[str, ...]
    evaluate: tuple[str, ...] | None

    @property
    def checkpoint(self) -> Path:
        return self.folder / "last.ckpt"

    def is_done(self) -> bool:
        """True if nothing is left to do."""
        end = "trained" if self.evaluate is None else ROWS
        return (self.folder / end).exists()


def plan(
    claim: Claim,
    out: Path,
    more: Sequence[str] = (),
    seeds: Sequence[int] = (),
    arms: Sequence[str] = (),
) -> list[Run]:
    """Runs of a claim below `out`: its judge, then all arms of the first seed, and so on.

    Args:
        more: options of `gen fit` for all arms.
        seeds: seeds in place of those of the claim.
        arms: names of some arms; default all.

    Raises:
        ValueError: an arm that the claim does not have.
    """
    if wrong := {*arms} - {*claim.arms}:
        raise ValueError(
            f"--arms: expected some of {' '.join(claim.arms)}, got {' '.join(sorted(wrong))}"
        )
    runs, judge = [], out / JUDGE
    if claim.judge:
        runs.append(Run(JUDGE, judge, claim.judge, None, (), None))
    evaluate = [fill(word, judge=judge / "last.ckpt") for word in words(claim.evaluate)]
    for seed in seeds or claim.seeds:
        for name in arms or claim.arms:
            folder = out / f"{name}_{seed}"
            arm = claim.arms[name]
            runs.append(Run(folder.name, folder, arm, seed, (*more,), (*evaluate,)))
    return runs


def identity(run: Run) -> dict[str, Any]:
    """Everything that decides the result of a training: config, options and input files."""
    options = dict(run.arm.options)
    config = read_yaml(packaged(run.arm.config))
    texts = [v for v in (*options.values(), *_leaves(config), *run.more) if isinstance(v, str)]
    found = dict(config=config, options=options, more=[*run.more], files=_digests(texts))
    return json.loads(json.dumps(found))


def evaluation(run: Run) -> str:
    """Everything that decides the values of a trained run: options and input files."""
    texts = run.evaluate or ()
    return " ".join([*texts, *map("=".join, _digests(texts).items())])


def fingerprint(run: Run) -> str:
    """A name for everything that decides the values of a run: config, options and input files."""
    text = json.dumps([identity(run), evaluation(run)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digests(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in sorted({*texts}):
        if text.endswith(".safetensors") and os.path.isfile(text):
            found[text] = sha256(text)
        elif name := shipped.name_of(text):
            found[text] = shipped.manifest()[name].sha256
        elif hub.is_name(text):
            found[text] = sha256(hub.find(text))
    return found


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]


def published(claim: Claim, runs: Sequence[Run]) -> list[dict]:
    """Published lines of all seeds of which every run is published, with the same fingerprint.

    So a claim can grow over several machines: these seeds need not be trained again.
    """
    file = RESULTS / f"{claim.name}.jsonl"
    text = file.read_text("utf-8") if file.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    measured = {run.name: run for run in runs if run.evaluate is not None}
    names = [f"{line['arm']}_{line['seed']}" for line in lines]
    known = {*zip(names, (line.get("run") for line in lines), strict=True)}
    missing = {r.seed for r in measured.values() if (r.name, fingerprint(r)) not in known}
    return [
        line
        for name, line in zip(names, lines, strict=True)
        if name in measured and line["seed"] not in missing
    ]


def begin(runs: Sequence[Run]) -> None:
    """Writes `claim.json` into the folder of each run; an evaluation of other options is undone.

    Raises:
        ValueError: a run was begun with another config or other options; nothing is written.
    """
    for run in runs:
        found = begun(run)
        for key, value in identity(run).items() if found else ():
            if found.get(key) != value:
                raise ValueError(
                    f"{run.folder}: expected a run of {key} {value}, got one that was begun "
                    f"with {found.get(key)}; choose another --out"
                )
    for run in runs:
        write_atomic(run.folder / "claim.json", json.dumps(identity(run), indent=1).encode())
        if not is_measured_so(run):
            for old in (run.folder / ROWS, *run.folder.glob("test.values*.jsonl")):
                old.unlink(missing_ok=True)
            write_atomic(run.folder / "evaluate.txt", evaluation(run).encode())


def begun(run: Run) -> dict[str, Any]:
    """The identity with which a run was begun; empty if it was not.

    Raises:
        ValueError: its claim.json is no JSON object.
    """
    file = run.folder / "claim.json"
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_bytes()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: expected JSON as gen bench wrote it, got {error}; choose another --out"
        ) from error


def is_measured_so(run: Run) -> bool:
    """True if the values of a run are those of its present options of `gen evaluate`."""
    file = run.folder / "evaluate.txt"
    return file.exists() and file.read_text("utf-8") == evaluation(run)


def perform(run: Run) -> None:
    """Trains and measures a run, or what is left of it; all that is printed goes to its log.txt.

    Raises:
        RuntimeError: the training ended early.
    """
    if run.is_done():
        return
    with _log(run.folder / "log.txt"):
        fit = [sys.executable, "-m", "gen", "fit", "-c", run.arm.config, "--out", str(run.folder)]
        if run.seed is not None:
            fit += ["--model.seed", str(run.seed), "--data.seed", str(run.seed)]
        fit += ["--trainer.enable_model_summary", "false", *words(run.arm.options), *run.more]
        if run.checkpoint.exists():
            fit += ["--ckpt_path", str(run.checkpoint)]
        if not (run.folder / "trained").exists():
            before, began = _children(), time.time()
            code = call(*fit)
            seconds = time.time() - began
            spent = dict(core_seconds=_children() - before or seconds, seconds=seconds)
            with (run.folder / COST).open("a", encoding="utf-8") as file:
                file.write(json.dumps({k: round(v, 1) for k, v in spent.items()}) + "\n")
            if code:
                raise RuntimeError(f"{run.name}: the training ended with {code}, see its log.txt")
            write_atomic(run.folder / "trained", b"")
        if run.evaluate is not None:
            from gen.verbs.evaluate import measure

            out = run.folder / "test.jsonl"
            rows = measure(["--checkpoint", str(run.checkpoint), "--out", str(out), *run.evaluate])
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_atomic(run.folder / ROWS, text.encode())


def _children() -> float:
    """Seconds of all cores that ended children used; always 0 on Windows, which tells none."""
    used = os.times()
    return used.children_user + used.children_system


@contextmanager
def _log(path: Path):
    """Context in which all output of this process and its children is added to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, number)
            os.close(saved)


def check_folder(out: Path) -> None:
    """Refuses a folder that holds something other than the runs of a claim, with ValueError."""
    own = [*out.glob("*/claim.json"), *out.glob("results.jsonl")]
    if out.is_dir() and any(out.iterdir()) and not own:
        raise ValueError(
            f"--out: expected a new folder, or one with runs of a claim, got {out}, which holds "
            "something else"
        )


def prepare_data(claim: Claim) -> int:
    """Runs the command that makes the data; returns its exit status."""
    return call(sys.executable, *command(claim.data)) if claim.data else 0


def run_here(commands: Sequence[Sequence[str]], jobs: int) -> int:
    """Runs commands on this machine, `jobs` at once; returns the worst exit status."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return max(call_each(commands, jobs), key=abs, default=0)


def listing(root: Path) -> str:
    """All claims of `configs/claims`, with the number of runs measured below `root`."""
    lines = [f"{'claim':24} {'runs':>9}  {'core-hours':>10}  question"]
    for path in sorted(packaged(FOLDER).glob("*.yaml")):
        claim = read(path)
        count = len(claim.arms) * len(claim.seeds)
        runs = [run for run in plan(claim, root / claim.name) if run.evaluate is not None]
        known = {line["seed"] for line in published(claim, runs)}
        done = sum(run.is_done() or run.seed in known for run in runs)
        state, hours = f"{done} of {count}", claim.cost * (count - done)
        lines.append(f"{claim.name:24} {state:>9}  {hours:10.1f}  {claim.question}")
    if len(lines) == 1:
        raise ValueError(f"gen bench: expected claims in {FOLDER}, got none; run it in a clone")
    return "\n".join([*lines, "core-hours: of what is left"])


def cores() -> int:
    """Number of commands to run at once: one on a GPU, else one per CPU core."""
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


class Job:
    """A command as a job of submitit: a job that is preempted or out of time is requeued, and the
    run that it trains is resumed."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = [*command]
        self.child: subprocess.Popen | None = None

    def __call__(self) -> None:
        def ignore() -> None:  # the signal before preemption reaches all processes of a job
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)

        more = dict(stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=ignore)
        self.child = subprocess.Popen(self.command, **more)
        try:
            while self.child.poll() is None:
                time.sleep(0.1)
        except KeyboardInterrupt:
            self.stop()
            raise
        if self.child.returncode:
            raise RuntimeError(f"{' '.join(self.command)}: ended with {self.child.returncode}")

    def stop(self) -> None:
        """Lets the run save itself, and waits for its end; also within a signal handler."""
        if self.child is not None and self.child.returncode is None:
            os.killpg(self.child.pid, signal.SIGINT)
            os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)

    def checkpoint(self):
        """Stops the run, and returns the job that resumes it."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        return DelayedSubmission(Job(self.command))


def submit(
    commands: dict[Path, Sequence[str]], launcher: str, folder: Path, options: dict[str, Any]
) -> dict[Path, Any]:
    """Submits the command of each run's folder as a job, unless SLURM has such a job already.

    Args:
        launcher: cluster of submitit: slurm, local, ..
        folder: folder for the files of submitit.
        options: parameters of its executor, such as {"timeout_min": 60}.

    Returns:
        The job of each folder, old or new.

    Raises:
        ModuleNotFoundError: submitit is not installed.
        ValueError: no such launcher, or an option that it does not know.
    """
    import submitit

    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=launcher)
        executor.update_parameters(**dict(name="gen-bench", timeout_min=24 * 60) | options)
    except (AssertionError, KeyError, NameError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"--launcher {launcher}: expected a cluster and options of submitit, got {error}"
        ) from error
    jobs = {}
    for run, words_of_run in commands.items():
        note = run / "job.json"
        if launcher == "slurm" and note.exists():  # local jobs end with their `gen bench`
            old = json.loads(note.read_bytes())
            job = submitit.SlurmJob(folder=old["folder"], job_id=old["id"])
            if job.state.split()[0] not in ENDED:  # such as UNKNOWN, before SLURM lists it
                jobs[run] = job
                continue
        jobs[run] = executor.submit(Job(words_of_run))
        about = dict(folder=str(folder), id=jobs[run].job_id)
        write_atomic(note, json.dumps(about).encode())
    return jobs

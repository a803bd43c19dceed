"""Trains, measures and compares the arms of a claim; continues what was interrupted.

    gen bench smooth_i2i                     all arms and seeds of configs/claims/smooth_i2i.yaml
    gen bench smooth_i2i --smoke             each arm for a few iterations, to see that all works
    gen bench --list                         all claims, what is done, what they cost
    gen bench --publish                      RESULTS.md and the tables in README and cards

Options with a dot, such as --model.lambda_shr 0.3, go to `gen fit` for all arms.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gen.bench import claim as claims
from gen.bench import jobs
from gen.commands import plain_errors
from gen.files import keep_inputs

RUNS = Path("runs/bench")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the options."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "gen bench", description=__doc__, formatter_class=how, allow_abbrev=False
    )
    parser.add_argument(
        "claim",
        nargs="?",
        help="name of a file in configs/claims, or a path; before options with a dot",
    )
    parser.add_argument("--list", action="store_true", help="show all claims and end")
    parser.add_argument("--publish", action="store_true", help="write the tables of all results")
    parser.add_argument("--out", type=Path, help=f"folder of the runs, default {RUNS}/NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="default: of the claim")
    parser.add_argument("--arms", nargs="+", default=[], help="default: all of the claim")
    parser.add_argument("--jobs", type=int, help="runs at once; default: CPU cores, 1 with a GPU")
    parser.add_argument(
        "--launcher",
        default="",
        help="cluster of submitit that runs the jobs, such as slurm or local; default: none",
    )
    parser.add_argument(
        "--launcher-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="parameters of submitit, such as timeout_min=600 slurm_partition=gpu",
    )
    parser.add_argument("--smoke", action="store_true", help="a short trial of every arm")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the name of one run, in a job
    return parser


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen bench`; `words` default to those of the command line."""
    parser = make_parser()
    args, more = parser.parse_known_args(words)
    for word in more:
        if word.startswith("--") and "." not in word:
            parser.error(f"expected options of gen bench, or of gen fit with a dot, got {word}")
        if word.startswith(("--model.seed", "--data.seed")):
            parser.error(f"expected seeds as --seeds 1 2 3, got {word}")
    if args.list:
        print(jobs.listing(RUNS))
    elif args.publish:
        from gen.bench import publish  # torch takes seconds to load

        for path in publish.publish(RUNS):
            print(f"wrote {path}")
    elif not args.claim:
        parser.error("expected the name of a claim; gen bench --list shows all")
    elif args.jobs is not None and args.jobs < 1:
        parser.error(f"--jobs: expected at least 1, got {args.jobs}")
    else:
        with tempfile.TemporaryDirectory(prefix="gen-bench-") as scratch:
            sys.exit(run(args, more, Path(scratch)))


def run(args: argparse.Namespace, more: Sequence[str], scratch: Path) -> int:
    """Runs a claim, or one of its runs; returns the exit status."""
    from gen.bench import table
    from gen.runs import lock

    path = claims.find(args.claim)
    claim = claims.read(path)
    claim = claims.shorten(claim) if args.smoke else claim
    out = args.out or (scratch if args.smoke else RUNS / claim.name)
    runs = jobs.plan(claim, out, more, args.seeds, args.arms)
    if args.only:
        one = next(run for run in runs if run.name == args.only)
        print(f"{one.folder}: running, see {one.folder / 'log.txt'}", flush=True)
        jobs.perform(one)
        return 0
    keep_inputs([path, *{arm.config for arm in claim.arms.values()}], [out])
    jobs.check_folder(out)
    descriptor = lock(out)
    try:
        here = not (args.smoke or args.out or more)  # else it is another claim than the published
        known = jobs.published(claim, runs) if here else []
        if seeds := sorted({line["seed"] for line in known}):
            print(f"{jobs.RESULTS}/{claim.name}.jsonl has seeds {' '.join(map(str, seeds))}")
        runs = [run for run in runs if run.seed not in seeds]
        if all(run.evaluate is None for run in runs):  # no judge without anything to judge
            runs = []
        if runs and (code := jobs.prepare_data(claim)):
            return code
        jobs.begin(runs)
        same = [str(path), "--out", str(out), *["--smoke"] * args.smoke, *more]
        for option, values in (("--seeds", args.seeds), ("--arms", args.arms)):
            same += [option, *map(str, values)] if values else []
        code = work(runs, same, args)
        found = table.collect(claim, out, more)
        own = {line["seed"] for line in found}
        found += [line for line in known if line["seed"] not in own]
        found.sort(key=lambda line: ([*claim.arms].index(line["arm"]), line["seed"]))
        if found:
            print(table.write(claim, found, out))
        return code or int(not found)
    finally:
        os.close(descriptor)


def work(runs: Sequence[jobs.Run], same: Sequence[str], args: argparse.Namespace) -> int:
    """Runs all that is not done, the judge first; returns the worst exit status."""
    for stage in ([r for r in runs if r.evaluate is None], [r for r in runs if r.evaluate]):
        left = [run for run in stage if not run.is_done()]
        base = [sys.executable, "-m", "gen", "bench", *same]
        commands = {run.folder: [*base, "--only", run.name] for run in left}
        if not args.launcher:
            code = jobs.run_here([*commands.values()], args.jobs or jobs.cores())
        else:
            options = dict(_option(word) for word in args.launcher_options)
            folder = runs[-1].folder.parent / "jobs"
            code = wait(jobs.submit(commands, args.launcher, folder, options))
        if code:
            print(
                "not all runs ended well; run the same command again to continue", file=sys.stderr
            )
            return code
    return 0


def wait(submitted: dict) -> int:
    """Waits for jobs of submitit; returns 1 if one failed.

    Ctrl-C stops jobs of this machine, which save themselves; those of a cluster go on.
    """
    try:
        failed = [run for run, job in submitted.items() if job.exception() is not None]
    except KeyboardInterrupt:
        for job in submitted.values():
            if type(job).__name__ in ("LocalJob", "DebugJob"):
                job.cancel()
            else:
                sys.stderr.write(f"job {job.job_id} goes on; the same command, run again, waits\n")
        raise
    for run in failed:
        print(f"{run}: failed, see {run / 'log.txt'}", file=sys.stderr)
    return int(bool(failed))


def _option(word: str) -> tuple[str, int | str]:
    key, sep, value = word.partition("=")
    if not sep:
        raise ValueError(f"--launcher-options: expected KEY=VALUE, got {word}")
    return key, int(value) if value.isdigit() else value

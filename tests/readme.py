"""Commands and code of the README, and what makes them short."""

import re
import shlex
from pathlib import Path

import pytest

from conftest import ROOT

TEXT = (ROOT / "README.md").read_text()
SHORT = {  # what makes a command of the README short; the rest of it runs as printed
    "gen evaluate": "--max-sources 2 --batch-size 2",
    "gen compare": "--metrics translation --max-sources 2 --out runs/compare",
    "python scripts/benchmark.py": "--img-size 32 --base-channels 4 --iterations 1",
}

ELSEWHERE = {  # part of a command of the README that a wheel does not run -> why
    "bash ": "a script of the repository",
    "source ": "of the environment of the repository",
    "python ": "a script of the repository",
    "photos": "files of a user",
    "gen prepare emoji": "needs npm and the extra prep",
    "gen bench click_to_move": "trains for hours",
    "gen bench --publish": "writes into the repository",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def of_the_package() -> list[str]:
    """Commands that need the installed package alone."""
    return [line for line in commands() if not any(part in line for part in ELSEWHERE)]


def shorten(command: str, folder: Path, runs: str) -> list[list[str]]:
    """Words of a short form of a command, after those of the commands that it goes on from.

    Args:
        command: one of `commands()`; without its data set, the test skips.
        folder: where it will run.
        runs: replaces `runs`, which is not there, as in a fresh clone.
    """
    for data in ("data/emoji", "data/emoji_groups"):
        if "emoji" in command and not (ROOT / data / "manifest.json").exists():
            pytest.skip(f"no {data}: bash scripts/test.sh makes it")
    before, words = [], []
    for word in shlex.split(command):  # as a shell does
        words += sorted(map(str, folder.glob(word))) if "*" in word else [word]
    program = " ".join(words[:2])
    if program == "gen fit" and "--model.help" not in words:
        if "--model.init_from" not in words:
            small = ["model_name", "test_vit"] if "vit" in command else ["base_channels", "4"]
            words += [f"--model.{small[0]}", small[1]]
        words += ["--trainer.max_steps", "2"]
        if "--ckpt_path" in words:  # what the command before it left
            drop = words.index("--ckpt_path")
            before = [[*words[:drop], *words[drop + 2 :]]]
            words[-1] = "4"
    elif program in SHORT:
        words += SHORT[program].split()
        if "evaluate" in program and "i2i" in command:
            words += ["--metrics", "translation", "accuracy"]
    if program == "gen compare":  # with what `gen fit` leaves
        fit = next(c for c in commands() if "init_from" in c).replace("runs/tuned", "runs/mine")
        before = [shlex.split(f"{fit} --trainer.max_steps 1")]
    return [[word.replace("runs", runs) for word in line] for line in [*before, words]]

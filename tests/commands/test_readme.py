"""The README: its links lead somewhere, its Python runs, its commands do what they say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gen
from conftest import ROOT
from gen.cli import main
from runs import HEADS, QUIET, TRAINER, WIDTHS, flags, losses, status

TEXT = (ROOT / "README.md").read_text()
SHORT = {  # what makes a command of the README short; the rest of it runs as printed
    "gen evaluate": "--max-sources 2 --batch-size 2",
    "gen compare": "--metrics translation --max-sources 2 --out runs/compare",
    "python scripts/benchmark.py": "--img-size 32 --base-channels 4 --iterations 1",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_script_and_config_that_it_names_exists():
    for path in re.findall(r"(?:scripts|configs|data_prep|checkpoints|gen)/[\w/.]+\.\w+", TEXT):
        assert (ROOT / path).exists(), path


def test_python_blocks_run(lpips_cache):
    code, attention, *_ = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ps, shrinkage = (float(re.search(r"[\d.]+", s)[0]) for s in done.stdout.splitlines())
    assert 0 <= ps <= 1 and shrinkage > 0
    names: dict = {}
    exec(attention, names)
    assert names["logits"].shape == (2, 1000) and names["loss"].requires_grad


@pytest.mark.parametrize("card", sorted((ROOT / "checkpoints").glob("*.md")), ids=lambda p: p.stem)
def test_python_of_the_cards_runs(card, monkeypatch):
    [code] = re.findall(r"```python\n(.*?)```", card.read_text(), re.S)
    monkeypatch.chdir(ROOT)
    exec(code, {"x": torch.zeros(1, 3, 64, 64)})


def test_the_environment_is_activated_before_it_is_needed():
    """`python` and `gen` are those of .venv, where there may be no other."""
    words = [command.split()[0] for command in commands()]
    assert set(words) <= {"bash", "source", "python", "gen"}
    assert words.index("source") < min(words.index("python"), words.index("gen"))
    [activate] = [command for command in commands() if command.startswith("source")]
    assert activate == "source .venv/bin/activate"
    file = Path(sys.prefix, "bin/activate")
    if not file.exists():
        pytest.skip("these tests do not run in a virtual environment")
    for name in ("python", "gen"):
        found = subprocess.run(
            ["bash", "-c", f"source {file} && command -v {name}"], capture_output=True, text=True
        )
        assert Path(found.stdout.strip()).parent == file.parent


def test_the_method_that_it_shows_trains(tmp_path, monkeypatch):
    [mine] = [block for block in blocks("python") if "class Mine" in block]
    (tmp_path / "readme_mine.py").write_text(mine)
    monkeypatch.syspath_prepend(tmp_path)
    assert len(mine.strip().splitlines()) <= 25
    small = flags("model", WIDTHS | dict(lambda_small=1)) + flags("data", HEADS)
    trainer = flags("trainer", TRAINER | QUIET | dict(max_steps=2))
    model = ["--model=readme_mine.Mine", "--data=Heads"]
    main(["fit", *model, *small, *trainer, f"--out={tmp_path / 'run'}"])
    assert all(float(row["latent/small"]) > 0 for row in losses(tmp_path / "run"))
    assert type(gen.load(tmp_path / "run", method="readme_mine.Mine")).__name__ == "Mine"


PROCESSES = "gen translate", "gen interpolate", "python "  # the other commands run within this one
ELSEWHERE = "bash", "source", "gen bench click_to_move", "gen bench --publish"  # see tests/bench


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for c in commands() if not c.startswith(ELSEWHERE) and "photos" not in c]
)
def test_commands_run(command, tmp_path, monkeypatch, lpips_cache):
    monkeypatch.chdir(ROOT)
    for data in ("data/emoji", "data/emoji_groups"):
        if "emoji" in command and not (ROOT / data / "manifest.json").exists():
            pytest.skip(f"no {data}: bash scripts/test.sh makes it")
    words, runs = [], str(tmp_path / "runs")  # which is not there, as in a fresh clone
    for word in shlex.split(command):  # as a shell does
        words += sorted(map(str, ROOT.glob(word))) if "*" in word else [word]
    program = " ".join(words[:2])
    if program == "gen fit" and "--model.help" not in words:
        if "--model.init_from" not in words:
            small = ["model_name", "test_vit"] if "vit" in command else ["base_channels", "4"]
            words += [f"--model.{small[0]}", small[1]]
        words += ["--trainer.max_steps", "2"]
        if "--ckpt_path" in words:  # what the command before it left
            first = [w.replace("runs", runs) for w in words]
            drop = first.index("--ckpt_path")
            run([*first[:drop], *first[drop + 2 :]])
            words[-1] = "4"
    elif program in SHORT:
        words += SHORT[program].split()
        if "evaluate" in program and "i2i" in command:
            words += ["--metrics", "translation", "accuracy"]
    if program == "gen compare":  # with what `gen fit` leaves
        fit = next(c for c in commands() if "init_from" in c).replace("runs/tuned", "runs/mine")
        fit += " --trainer.max_steps 1"
        run([w.replace("runs", runs) for w in shlex.split(fit)])
    run([w.replace("runs", runs) for w in words])


def run(words: list[str]) -> None:
    if not " ".join(words).startswith(PROCESSES):
        assert status(*words[1:]) == 0
        return
    words[0] = str(Path(sys.executable).with_name(words[0]))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

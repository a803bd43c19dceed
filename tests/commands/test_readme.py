"""The README: its links lead somewhere, its Python runs, its commands do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gen
from conftest import ROOT
from gen.cli import main
from readme import TEXT, blocks, commands, of_the_package, shorten
from runs import HEADS, QUIET, TRAINER, WIDTHS, flags, losses


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


# see tests/bench and test_benchmark.py
TESTED = "gen bench click_to_move", "gen bench --publish", "python scripts/benchmark.py"


@pytest.mark.slow
@pytest.mark.parametrize("command", [
    c for c in commands() if c not in of_the_package()
    and not c.startswith(("bash", "source", *TESTED)) and "photos" not in c
])  # fmt: skip
def test_commands_run(command, tmp_path, monkeypatch, lpips_cache):
    """Those that need a clone; tests/commands/test_packaging.py runs the others with a wheel."""
    monkeypatch.chdir(ROOT)
    for words in shorten(command, ROOT, str(tmp_path / "runs")):
        words[0] = str(Path(sys.executable).with_name(words[0]))
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

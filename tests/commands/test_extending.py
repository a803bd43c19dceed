"""The README's ways to add a metric, a loss and a data set, as they are written there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gen
from conftest import ROOT
from gen import tasks, verbs
from gen.cli import main
from gen.evaluation.results import HIGHER, LOWER, NEITHER
from runs import TRAINER, WIDTHS, flags

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def block(mark: str) -> str:
    [found] = [text for text in BLOCKS if mark in text]
    return found


def python(folder: Path, *words: str, cwd: Path) -> str:
    paths = os.pathsep.join([str(folder), str(ROOT / "tests")])
    env = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


EVALUATE = """
import json
from gen.evaluation.results import to_json
from gen.evaluation.translators import evaluate
from gen.report.page import metrics_table, write_report
from toys import Images, Translator
rows = evaluate(Translator(), Images(), ["brightness"], max_sources=3, ledger="values.jsonl")
write_report("r.html", title="t", metrics=metrics_table(rows))
print(to_json(rows))
"""


def test_a_metric_is_one_function(tmp_path):
    shutil.copytree(ROOT / "gen", tmp_path / "gen", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "gen/evaluation/translators/outputs.py"
    added = block("def brightness").replace("NEITHER", "HIGHER")
    file.write_text(file.read_text() + "\n\n" + added)
    rows = [json.loads(line) for line in python(tmp_path, "-c", EVALUATE, cwd=tmp_path).split("\n")
            if line]  # fmt: skip
    assert [row["metric"] for row in rows] == ["latent/brightness", "reference/brightness"]
    assert rows[0]["count"] == 3 and rows[0]["better"] == HIGHER and rows[0]["ci95"]
    assert "brightness" in (tmp_path / "values.jsonl").read_text()
    page = (tmp_path / "r.html").read_text()
    assert re.search(r"brightness <abbr[^>]*>↑", page)
    script = str(ROOT / "scripts/evaluate.py")
    assert "brightness" in python(tmp_path, script, "--help", cwd=tmp_path)


def test_a_loss_is_one_function_in_a_file(tmp_path):
    shutil.copytree(ROOT / "gen", tmp_path / "gen", ignore=shutil.ignore_patterns("__pycache__"))
    text = 'def small(s):\n    """Mean square of styles (N, D)."""\n    return s.square().mean()\n'
    (tmp_path / "gen/losses/small.py").write_text(text)
    code = "import gen, torch; print(gen.losses.small.small(torch.ones(2, 3)).item())"
    assert python(tmp_path, "-c", code, cwd=tmp_path) == "1.0\n"


def test_a_data_set_and_a_method_in_a_file_train_load_are_evaluated_and_reported(
    tmp_path, monkeypatch, lpips_cache
):
    (tmp_path / "stripes.py").write_text(block("class Stripes"))
    (tmp_path / "own.py").write_text(block("class Mine"))
    monkeypatch.chdir(tmp_path)
    small = [*flags("model", WIDTHS), *flags("trainer", TRAINER | dict(max_steps=1))]
    size = ["--data.img_size=32", "--data.batch_size=2"]
    main(["fit", "--model=own.Mine", *small, "--data=stripes.Stripes", *size, "--out=run"])
    assert gen.load("run", method="own.Mine").domains == ["standing", "lying"]
    words = ["--data", "stripes.Stripes", "--method", "own.Mine"]
    script, paths = str(ROOT / "scripts/evaluate.py"), ("--metrics", "translation")
    python(ROOT, script, "--checkpoint", "run", *words, *paths, "--max-sources", "2",
           "--out", "run/metrics.jsonl", cwd=tmp_path)  # fmt: skip
    python(ROOT, str(ROOT / "scripts/make_report.py"), "run", *words, cwd=tmp_path)
    assert "diversity" in Path("run/report.html").read_text()


# ---- the table of tasks -------------------------------------------------------------------------


@pytest.mark.parametrize("name", dir(gen.methods))
def test_every_method_has_a_task(name):
    assert getattr(gen.methods, name).task in tasks.TASKS


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_task_has_all_that_its_row_names(task):
    row, method = tasks.TASKS[task], type("Some", (), {"task": task})()
    module = tasks.evaluator(method, "x")
    assert module.__name__ == row.evaluator and module.GROUPS and callable(module.from_options)
    assert not row.tab or (ROOT / f"{row.tab.module.replace('.', '/')}.py").exists()
    named = re.findall(r"\bgen (\w+)", row.command)
    assert named and {*named} <= {*verbs.FILES, *verbs.TRAINING}


def test_another_task_is_told_with_the_command_that_fits():
    method = type("Some", (), {"task": "editor"})()
    got = r"got Some, an editor of codes; gen edit"
    with pytest.raises(ValueError, match=f"x: expected a translator .*, {got}"):
        tasks.expect(method, "translator", source="x")
    with pytest.raises(ValueError, match="x: expected a translator .* or .*, got object$"):
        tasks.evaluator(object(), "x")
    assert {HIGHER, LOWER, NEITHER} == {"higher", "lower", "none"}


@pytest.mark.parametrize(
    "source, kind, message",
    [
        ("", "domains", "expected a folder, a zip or `heads`, got nothing"),
        ("codes", "classes", "expected a folder, a zip or `heads`, got `codes`"),
        ("no.Such", "domains", "package.Class of a DataModule, got no.Such: No module"),
    ],
)
def test_data_that_cannot_be_opened(source, kind, message):
    with pytest.raises(ValueError, match=f"--data: .*{message}"):
        gen.data.open(source, kind)


def test_data_is_opened_by_what_a_person_types():
    heads = gen.data.open("heads", "classes", img_size=32, crop_pct=1.0)
    assert type(heads).__name__ == "Heads" and heads.img_size == 32
    with pytest.raises(
        ValueError, match="--crop-pct: expected 1, as heads is not cropped, got 0.5"
    ):
        gen.data.open("heads", "classes", img_size=32, crop_pct=0.5)

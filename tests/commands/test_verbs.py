"""Commands of `gen` besides those of training: their list, their help, a misspelt name."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

from conftest import ROOT
from gen import tasks, verbs
from gen.cli import main
from gen.evaluation import read_names

HEAVY = ("torch", "lightning", "timm", "numpy", "gradio", "wandb")
MORE = (["bench", "--list"], ["prepare", "emoji", "--help"])
ALL = """
import io, json, sys
from contextlib import redirect_stdout
from gen.cli import main
from gen import verbs
said = {}
for words in (["--help"], *([name, "--help"] for name in verbs.FILES), *%r):
    with redirect_stdout(io.StringIO()) as out:
        try:
            main(words)
        except SystemExit as end:
            assert not end.code, words
    said[" ".join(words)] = [out.getvalue(), [name for name in %r if name in sys.modules]]
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def said() -> dict[str, tuple[str, list[str]]]:
    """Words of a command that only prints -> what it prints, and the heavy modules it loads."""
    done = subprocess.run(
        [sys.executable, "-c", ALL % (MORE, HEAVY)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_of_every_command_needs_no_torch(said):
    assert len(said) > 14
    assert {words: heavy for words, (_, heavy) in said.items() if heavy} == {}


def test_help_of_every_command_names_it(said):
    for name in verbs.FILES:
        text = said[f"{name} --help"][0]
        assert text.startswith(f"usage: gen {name} [-h]"), name
        assert verbs.summary(verbs.FILES[name])[:40] in " ".join(text.split()), name


def test_help_lists_all_commands_one_line_each(said):
    text = said["--help"][0]
    assert all(len(line) <= 100 for line in text.splitlines())
    for name in (*verbs.TRAINING, *verbs.FILES):
        [line] = [line for line in text.splitlines() if line.startswith(f" {name} ")]
        assert line.endswith(".") and len(line.split()) > 3, line


def test_a_name_that_python_reserves_has_an_underscore_in_its_file():
    assert verbs.FILES["import"].name == "import_.py"


@pytest.mark.parametrize(
    "word, told",
    [
        ("benhc", "did you mean bench?"),
        ("fitt", "did you mean fit?"),
        ("trnaslate", "did you mean translate?"),
        ("zzz", "they are fit validate test predict attention bench compare"),
    ],
)
def test_a_misspelt_command_names_the_nearest(word, told, capsys):
    with pytest.raises(SystemExit) as end:
        main([word, "--out", "x"])
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith(f"error: expected a command of gen, got {word!r}; ") and told in line


@pytest.mark.parametrize("task", tasks.TASKS)
def test_names_of_groups_are_read_as_they_are(task):
    module = tasks.TASKS[task].evaluator
    assert read_names(module) == [*import_module(module).GROUPS]


def test_groups_of_a_translator_that_are_measured_by_default_are_read():
    module = "gen.evaluation.translators"
    assert read_names(module, "BASIC") == [*import_module(module).BASIC]

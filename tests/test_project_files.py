"""Files beside the code: citation, changelog, contributing, pre-commit, Dockerfile."""

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import gen
from conftest import ROOT

README = (ROOT / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PAPERS = "2106.09016 2210.00841 2109.12492 2206.04636 2108.08815".split()


def test_the_citation_names_all_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["authors"]
    assert str(cited["version"]) == SETUP["metadata"]["version"] == gen.__version__
    assert cited["license"] == SETUP["metadata"]["license"]
    found = " ".join(i["value"] for paper in cited["references"] for i in paper["identifiers"])
    assert [paper for paper in PAPERS if paper not in found] == []
    for paper in cited["references"]:
        assert paper["title"] and paper["year"] and len(paper["authors"]) > 1, paper["title"]
        venue = "conference" if paper["type"] == "conference-paper" else "identifiers"
        assert paper[venue], paper["title"]


def test_methods_with_a_paper_are_cited():
    """The comment behind the type of each reference names the method."""
    named = re.findall(r"- type: [\w-]+  # (\w+)", (ROOT / "CITATION.cff").read_text())
    rows = re.findall(r"^\| `([A-Z]\w+)` \|", README.partition("## Methods")[2], re.M)
    assert set(named) == set(rows) - {"LinearDirections"}  # a baseline after InterFaceGAN


def test_the_changelog_has_what_comes_and_what_is():
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heads[:2] == ["Unreleased", gen.__version__]


def test_contributing_is_ten_lines():
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    assert [line.partition(".")[0] for line in lines if line[:1].isdigit()] == [
        str(k) for k in range(1, 11)
    ]
    assert len(lines) == 12


def test_hooks_are_local_with_the_range_of_ruff(tmp_path):
    """And do what they are named: a file that both would change."""
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    wanted = [line for line in SETUP["options.extras_require"]["test"].split() if "ruff" in line]
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("no ruff beside this Python")
    shutil.copy(ROOT / "ruff.toml", tmp_path)
    file = tmp_path / "a.py"
    file.write_text("import sys\nimport os\nprint( os, sys )\n")
    for hook in repo["hooks"]:
        assert hook["additional_dependencies"] == wanted
        program, *options = hook["entry"].split()
        assert program == "ruff"
        subprocess.run([ruff, *options, "--no-cache", file], check=True, capture_output=True)
    assert file.read_text() == "import os\nimport sys\n\nprint(os, sys)\n"


def test_what_the_image_copies_exists_and_is_all_of_the_tree():
    copied = [
        name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M) for name in line.split()
    ]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {*copied} & {*ignored}
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the list of files comes from git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    tops = {name.partition("/")[0] for name in listed.splitlines()}
    assert tops - {*copied} <= {".gitignore"}, "expected a COPY of every file of the repository"


def test_the_image_runs_the_commands_of_the_readme():
    command = " ".join(json.loads(re.search(r"^CMD (.+)$", DOCKERFILE, re.M)[1]))
    assert command == "bash scripts/quickstart.sh --demo" and command in README
    tests = re.search(r"docker run --rm gen (.+)", DOCKERFILE)[1]
    assert tests == "bash scripts/test.sh" and tests in README
    extras = {
        extra
        for words in re.findall(r"install\.sh ([\w,]+)", DOCKERFILE)
        for extra in words.split(",")
    }
    assert extras == {"prep", "demo", "test"} <= {*SETUP["options.extras_require"]}
    wanted = SETUP["options"]["python_requires"].removeprefix(">=")
    image = re.search(r"^FROM python:([\d.]+)", DOCKERFILE, re.M)[1]
    assert [*map(int, image.split("."))] >= [*map(int, wanted.split("."))]

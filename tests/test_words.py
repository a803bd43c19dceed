"""Words of docstrings in gen/: a line of `Args:` stands alone, openings say what a thing is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "gen").rglob("*.py"))
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
BARRED_FIRST = {"of", "and", "which", "so", "the"}  # words that lean on the line before
OPENINGS = re.compile(r"(What|Who|Which|Of|Those|The same)\b")


def docstrings() -> Iterator[tuple[str, str]]:
    """(where, docstring) of every module, class and function."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'name', 'module')}", text


DOCSTRINGS = list(docstrings())


def arguments(text: str) -> list[tuple[str, str]]:
    """(names, what it says) of each entry of an `Args:` block; a deeper line goes on with it."""
    found, lines = [], iter(text.split("\n"))
    if not any(line.strip() == "Args:" for line in lines):
        return found
    for line in lines:
        if not line.startswith(" "):  # blank, or the next heading
            break
        if line.startswith(" " * 8):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return [(names, said.strip()) for names, _, said in (entry.partition(":") for entry in found)]


def leans(said: str) -> bool:
    """True if an entry needs the line before or after it to be understood."""
    words = said.lower().split()
    first = re.match(r"\w*", said.lower())[0]
    return first in BARRED_FIRST or said.endswith(",") or len(words) < 3 or "likewise" in words


@pytest.mark.parametrize(
    "said, expected",
    [
        ("of the frames H, px.", True),
        ("Of latents and labels.", True),
        ("and of their rotation and shear.", True),
        ("weight of the error of objects' shifts,", True),
        ("number K.", True),
        ("weight of the discriminator of clips, likewise", True),
        ("height H of the frames, px.", False),
        ("often the same, but of three words or more", False),
    ],
)
def test_a_line_that_leans_is_found(said, expected):
    assert leans(said) is expected


def test_entries_are_read_with_their_continuations():
    text = (
        "Head.\n\nArgs:\n    a, b: one\n        and two.\n    c: three: four.\n\nReturns:\n    x: y"
    )
    assert arguments(text) == [("a, b", "one and two."), ("c", "three: four.")]
    assert arguments("Head.\n\nReturns:\n    x: y") == []


def test_every_argument_stands_alone():
    entries = [(where, *entry) for where, text in DOCSTRINGS for entry in arguments(text)]
    assert len(entries) > 500, "expected the arguments of the whole package"
    bad = [f"{where}: {names}: {said}" for where, names, said in entries if leans(said)]
    assert not bad, "expected lines that stand alone, got\n" + "\n".join(bad)


def test_every_docstring_begins_with_what_the_thing_is_or_does():
    bad = [f"{where}: {text[:60]!r}" for where, text in DOCSTRINGS if OPENINGS.match(text)]
    assert not bad, "expected a noun or a verb first, got\n" + "\n".join(bad)

"""The tasks of methods, one row each; no other list of them exists.

`Method.task` names the row. It says which module evaluates the method, which function draws its
report, which tab of the demo shows it and which command shows more. Modules are named, not
imported, so a row costs nothing. To delete a task, delete its files and its row.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple


class Task(NamedTuple):
    """A kind of method, with all its modules."""

    what: str  # description of the method
    evaluator: str  # module with `GROUPS` and `from_options(method, options, ledger)`
    page: str  # function that writes the report of a run
    tab: str  # tab of the demo, a row of `gen.demo.TABS`; empty: none
    command: str  # command that shows more


TASKS = {
    "translator": Task(
        "a translator between domains",
        "gen.evaluation.translators",
        "gen.report.of_translator",
        "translate",
        "python scripts/translate.py translates images of your own",
    ),
    "generator": Task(
        "a generator of images",
        "gen.evaluation.generators",
        "gen.report.of_others",
        "",
        "python scripts/generate.py shows truncation and mixing",
    ),
    "editor": Task(
        "an editor of codes",
        "gen.evaluation.editors",
        "gen.report.of_others",
        "edit",
        "python scripts/edit.py shows its edits",
    ),
    "classifier": Task(
        "a classifier",
        "gen.evaluation.classifiers",
        "gen.report.of_others",
        "",
        "gen predict writes what it says; python scripts/attention.py draws maps, if it has any",
    ),
    "animator": Task(
        "an animator of frames",
        "gen.evaluation.animators",
        "gen.report.of_others",
        "move",
        "python scripts/click_to_move.py shows its clips",
    ),
}


def of(method) -> str:
    """The task of a method; empty if the method declares none."""
    return getattr(method, "task", "")


def expect(method, *tasks: str, source: str) -> None:
    """Raises ValueError, which names `source`, if a method has none of these tasks."""
    if of(method) not in tasks:
        wanted = " or ".join(TASKS[task].what for task in tasks)
        got = type(method).__name__
        if row := TASKS.get(of(method)):
            got += f", {row.what}; {row.command}"
        raise ValueError(f"{source}: expected {wanted}, got {got}")


def evaluator(method, source: str) -> ModuleType:
    """The module that evaluates a method; ValueError if the method declares no task."""
    expect(method, *TASKS, source=source)
    return importlib.import_module(TASKS[of(method)].evaluator)


def page(method):
    """The function that writes the report of a method, with or without a task."""
    row = TASKS.get(of(method)) or TASKS["classifier"]
    module, _, name = row.page.rpartition(".")
    return getattr(importlib.import_module(module), name)

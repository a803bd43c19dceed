"""The tasks of methods, one row each; no other list of them exists.

`Method.task` names the row. It says which modules evaluate and export the method, which
tab of the demo shows it and which command shows more. Modules are named, not
imported, so a row costs nothing. To delete a task, delete its files and its row.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

from gen import import_name


class Role(NamedTuple):
    """A method that a tab of the demo shows."""

    checkpoint: str  # shipped checkpoint; empty: none, and the tab works without the method
    task: str  # row of `TASKS`
    has: str = "domains"  # attribute that the tab needs, where the task alone does not decide

    @property
    def what(self) -> str:
        """Description of the method."""
        named = {"attribute_names": "an AttributeClassifier"}
        return named.get(self.has, TASKS[self.task].what)


class Tab(NamedTuple):
    """A tab of the demo."""

    module: str  # module with the function `tab`
    title: str
    roles: dict[str, Role]  # option of gen demo -> the method that it gives


class Task(NamedTuple):
    """A kind of method, with all its modules."""

    what: str  # description of the method
    hub: str  # task that the Hugging Face Hub files it under
    evaluator: str  # module with `GROUPS` and `from_options(method, options, ledger)`
    exporter: str  # module with `graphs(method)` and, if it makes images, `pictures`
    tab: Tab | None  # tab of the demo
    command: str  # command that shows more
    adaptor: str = ""  # class that makes a method of a function, for gen evaluate --function


TASKS = {
    "translator": Task(
        "a translator between domains",
        "image-to-image",
        "gen.evaluation.translators",
        "gen.export.translators",
        Tab(
            "gen.demo.translate",
            "Translate",
            {"translator": Role("smooth_i2i_emoji64", "translator")},
        ),
        "gen translate translates images of your own",
    ),
    "generator": Task(
        "a generator of images",
        "unconditional-image-generation",
        "gen.evaluation.generators",
        "gen.export.generators",
        None,
        "gen generate shows truncation and mixing",
    ),
    "editor": Task(
        "an editor of codes",
        "image-to-image",
        "gen.evaluation.editors",
        "gen.export.editors",
        Tab(
            "gen.demo.edit",
            "Edit",
            {
                "editor": Role("style_function_heads64", "editor"),
                "judge": Role("attribute_classifier_heads64", "classifier", "attribute_names"),
                "encoder": Role("", "encoder"),
            },
        ),
        "gen edit shows its edits",
    ),
    "encoder": Task(
        "an encoder of photos into codes",
        "image-feature-extraction",
        "gen.evaluation.encoders",
        "gen.export.encoders",
        None,
        "gen edit --encoder edits photos by it",
    ),
    "classifier": Task(
        "a classifier",
        "image-classification",
        "gen.evaluation.classifiers",
        "gen.export.classifiers",
        None,
        "gen predict writes what it says; gen attention draws maps, if it has any",
    ),
    "animator": Task(
        "an animator of frames",
        "image-to-video",
        "gen.evaluation.animators",
        "gen.export.animators",
        Tab("gen.demo.move", "Click to move", {"mover": Role("click_to_move_movers", "animator")}),
        "gen move shows its clips",
        "gen.evaluation.adaptor.Adaptor",
    ),
}
TABS = [row.tab for row in TASKS.values() if row.tab]


def of(method) -> str:
    """The task of a method; empty if the method declares none."""
    return getattr(method, "task", "")


def describe(method) -> str:
    """Class of a method, its task, and the command that shows more."""
    row = TASKS.get(of(method))
    return type(method).__name__ + (f", {row.what}; {row.command}" if row else "")


def expect(method, *tasks: str, source: str) -> None:
    """Raises ValueError, which names `source`, if a method has none of these tasks."""
    if of(method) not in tasks:
        wanted = " or ".join(TASKS[task].what for task in tasks)
        raise ValueError(f"{source}: expected {wanted}, got {describe(method)}")


def adapted(function: str):
    """A method made of a function outside this package, named as "mine.animate".

    Raises:
        ValueError: no such function.
    """
    (adaptor,) = (row.adaptor for row in TASKS.values() if row.adaptor)
    found = import_name(function, "package.name of a function")
    if not callable(found) or isinstance(found, type):
        raise ValueError(
            f"--function: expected a function, got {function}, a {type(found).__name__}"
        )
    return import_name(adaptor, "an adaptor")(found)


def evaluator(method, source: str) -> ModuleType:
    """The module that evaluates a method; ValueError if the method declares no task."""
    expect(method, *TASKS, source=source)
    return importlib.import_module(TASKS[of(method)].evaluator)


def exporter(method, source: str) -> ModuleType:
    """The module that cuts a method into graphs; ValueError if the method declares no task."""
    expect(method, *TASKS, source=source)
    return importlib.import_module(TASKS[of(method)].exporter)

"""Evaluators, one for each task: they measure a method and return rows, one for each metric."""

from __future__ import annotations

import ast
from pathlib import Path


def read_names(module: str, name: str = "GROUPS") -> list[str]:
    """Reads a tuple of names from the source of an evaluator; to import it takes seconds.

    Args:
        module: name of the evaluator, a module or a package of this package.
        name: name of the tuple. A starred name in it is another tuple or, such as `*OF_OUTPUTS`,
            all functions with the decorator `of_outputs`.
    """
    place = Path(__file__).parent.joinpath(*module.removeprefix(f"{__name__}.").split("."))
    files = sorted(place.glob("*.py")) or [place.parent / f"{place.name}.py"]
    known: dict[str, list[ast.expr]] = {}
    for node in (node for file in files for node in ast.parse(file.read_text("utf-8")).body):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            known[ast.unparse(node.targets[0])] = node.value.elts
        elif isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                known.setdefault(ast.unparse(mark).upper(), []).append(ast.Constant(node.name))

    def names(elements: list[ast.expr]) -> list[str]:
        found = []
        for one in elements:
            starred = isinstance(one, ast.Starred)
            found += names(known[ast.unparse(one.value)]) if starred else [ast.literal_eval(one)]
        return found

    return names(known[name])

"""Makes a data set by one of the recipes, or from files of your own.

    gen prepare emoji --size 64 --out data/emoji
    gen prepare RECIPE --help

data_prep/README.md describes the recipes.
"""

import argparse
import ast
import importlib.util
import sys
from collections.abc import Sequence

from gen.commands import plain_errors
from gen.files import own


def recipes() -> dict[str, str]:
    """Name of each recipe -> the first line of its docstring; none is imported."""
    found = {}
    for path in sorted(own("data_prep").glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    found.pop("verify", None)  # `gen verify`
    return found


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen prepare`; `words` default to those of the command line."""
    words = sys.argv[1:] if words is None else words
    known = recipes()
    lines = "\n".join(f"  {name:18} {line}" for name, line in known.items())
    parser = argparse.ArgumentParser(
        "gen prepare",
        description=f"{__doc__}\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", choices=known, metavar="RECIPE", help="one of the above")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="those of the recipe")
    args = parser.parse_args(words)
    run(args.recipe, args.options)


def run(name: str, words: Sequence[str]) -> None:
    """Runs a recipe as `python data_prep/NAME.py` does; ends with its exit code."""
    folder = own("data_prep")  # whose files find each other when this is where Python looks
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    command, path = sys.argv[0], [*sys.path]
    sys.argv[0], sys.path[:0] = f"gen {'' if name == 'verify' else 'prepare '}{name}", [str(folder)]
    try:
        spec.loader.exec_module(module)
        sys.exit(module.main([*words]))
    finally:
        sys.argv[0], sys.path[:] = command, path

"""Commands of `gen` besides those of training: `gen NAME ..` calls `gen.verbs.NAME.main`."""

import importlib
from collections.abc import Sequence

VERBS = ("bench", "evaluate")


def run(words: Sequence[str]) -> None:
    """Runs the command that the first word names, with the other words."""
    importlib.import_module(f"{__name__}.{words[0]}").main(words[1:])

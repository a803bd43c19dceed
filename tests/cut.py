"""An evaluation that is cut and goes on: the same test for every kind of method."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gen.evaluation.results import Results


class Cut(Exception):
    """The machine goes down."""


def check_goes_on(
    evaluate: Callable[[Path | None], list[dict]], folder: Path, monkeypatch, after: int
) -> None:
    """Asserts that `evaluate(ledger)`, cut after `after` writes, ends with the rows of a whole run,
    that nothing is measured twice, and that each row says which direction is better."""
    whole, path, written = evaluate(None), folder / "new" / "values.jsonl", []
    add = Results.add

    def counted(self, group, *args, **kwargs):
        if len(written) == after:
            raise Cut
        written.append(group)
        add(self, group, *args, **kwargs)

    monkeypatch.setattr(Results, "add", counted)
    with pytest.raises(Cut):
        evaluate(path)
    text = path.read_text()
    path.write_text(text + text.splitlines()[-1][:30])  # in the middle of a line
    after = None  # no more cuts
    assert known(evaluate(path)) == known(whole)
    total = len(written)
    assert known(evaluate(path)) == known(whole) and len(written) == total
    written.clear()
    evaluate(None)
    assert len(written) == total  # of one run: so nothing was measured twice
    assert {row["better"] for row in whole} <= {"higher", "lower", "none"}


def known(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

"""The card of a checkpoint on the Hugging Face Hub: README.md with metrics as its `model-index`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gen import tasks
from gen.report.page import metrics_table
from gen.report.verdict import verdict


class About(NamedTuple):
    """Facts about a checkpoint that its card states."""

    repo: str  # owner/name
    method: Any
    iteration: int
    data: str  # what the rows were measured on
    licence: str  # name that the Hub has for it; empty: not stated
    files: Sequence[str]  # names in the repository, besides the card
    text: str  # text of a card of one's own; empty: the text is made from the facts


def write(about: About, rows: Sequence[Mapping]) -> str:
    """Text of the card; `rows` are those that `gen evaluate` wrote.

    Raises:
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    rows = [row for row in rows if ">" not in row["metric"]]  # not the single pairs of domains
    body = re.sub(r"\A---\n.*?\n---\n", "", about.text, flags=re.S) or _body(about, rows)
    return f"---\n{_metadata(about, rows)}\n---\n\n{body.strip()}\n"


def _metadata(about: About, rows: Sequence[Mapping]) -> str:
    """YAML at the top of the card, which the Hub reads."""
    from gen import hub

    hf, task = hub.library(), tasks.TASKS[about.method.task]
    results = [
        hf.EvalResult(
            task_type=task.hub,
            dataset_type=about.data,
            dataset_name=about.data,
            metric_type=row["metric"],
            metric_value=row["value"],
            metric_config=row.get("protocol"),
            metric_args={k: row[k] for k in ("count", "ci95", "seed", "better") if row.get(k)},
        )
        for row in rows
    ]
    data = hf.ModelCardData(
        license=about.licence or None,
        library_name="gen",
        pipeline_tag=task.hub,
        tags=["gen", type(about.method).__name__],
        model_name=about.repo.split("/")[1],
        eval_results=results or None,
    )
    return data.to_yaml()


def _body(about: About, rows: Sequence[Mapping]) -> str:
    method, name = about.method, type(about.method).__name__
    known = f" between {', '.join(method.domains)}" if method.domains else ""
    count = sum(p.numel() for p in method.parameters()) / 1e6
    what = tasks.TASKS[method.task].what.removesuffix(" between domains") + known
    lines = [
        f"# {about.repo.split('/')[1]}\n",
        f"`{name}`, {what}: {count:.1f} million parameters, iteration {about.iteration}.\n",
        *(f"![{file}]({file})\n" for file in about.files if file.endswith((".png", ".gif"))),
        "```python",
        f'import gen\n\nmodel = gen.load("hf://{about.repo}")',
        "```\n",
        f"{tasks.TASKS[method.task].command}.",
    ]
    if rows:
        lines += [f"\n## Evaluation\n\nMeasured on {about.data}.\n", _table(rows)]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping]) -> str:
    table = metrics_table(rows)
    lines = [f"| {' | '.join(['metric', *table.heads, 'better'])} |"]
    lines.append("|---" * (len(table.heads) + 2) + "|")
    for metric, _, better, cells in table.lines:
        lines.append(f"| {' | '.join([f'`{metric}`', *cells, better])} |")
    return "\n".join([*(f"- {text}" for _, text in verdict(rows)), "", *lines])

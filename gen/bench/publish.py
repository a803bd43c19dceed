"""Published results: RESULTS.md and the tables in README and cards, made from results files.

`results/NAME.jsonl` holds the lines of a claim, `checkpoints/NAME.jsonl` the rows of a shipped
checkpoint. A table between these two comments is written from them:

    <!-- results FILE: METRIC = title; METRIC = title -->
    <!-- end of results -->
"""

import re
from collections.abc import Sequence
from pathlib import Path

from gen.bench import table
from gen.bench.claim import FOLDER, read
from gen.bench.jobs import RESULTS
from gen.evaluation.results import from_json
from gen.files import write_atomic

PAGE = Path("RESULTS.md")
BLOCK = re.compile(
    r"(<!-- results (?P<file>\S+?): (?P<rows>[^>]*?)-->\n).*?(<!-- end of results -->)", re.DOTALL
)
HEAD = """# Results

Each claim is a file of `configs/claims`: what is trained, with which seeds, and what is hoped for.
`gen bench NAME` trains, measures and compares; `gen bench --publish` writes this page from
`results/*.jsonl`. Do not edit it.

Values are means over seeds with the 95 % interval of Student's t. Differences and shares are paired
by seed. p in a table is that of the paired t-test, corrected by Holm over all rows of one claim.

A goal *holds* if the one-sided t-test against its bound has p < 0.05, corrected by Holm over the
goals of the claim. It *holds in part* if the mean is within the bound and the interval excludes no
effect. A claim holds if all of its goals do.

README and cards also tell numbers of claims that were run before this page existed, with the seeds
and intervals given there; the files of those runs are not kept, so they are not on this page.
"""


def publish(runs: Path) -> list[Path]:
    """Takes the results of all claims below `runs`, then writes all published tables.

    Returns:
        The files that changed.

    Raises:
        ValueError: this is no clone of the repository, a claim has fewer runs than its published
            results, or a table names a file or a metric that does not exist.
    """
    if not (FOLDER.is_dir() and Path("README.md").is_file()):
        raise ValueError("gen bench --publish: expected to run in a clone of the repository")
    changed = []
    for path in sorted(FOLDER.glob("*.yaml")):
        new, old = runs / path.stem / "results.jsonl", RESULTS / path.name.replace("yaml", "jsonl")
        if new.exists():
            if more := next((line["more"] for line in from_json(new) if line.get("more")), None):
                raise ValueError(
                    f"{new}: expected runs of the claim as it is, got some with {' '.join(more)}"
                )
            few, many = (len(_runs(p)) if p.exists() else 0 for p in (new, old))
            if few < many:
                raise ValueError(
                    f"{new}: expected at least the {many} runs of {old}, got {few}; finish the "
                    "claim, or delete the folder of its runs"
                )
            changed += _write(old, new.read_text("utf-8"))
    for path, text in pages().items():
        changed += _write(path, text)
    return changed


def pages() -> dict[Path, str]:
    """All published pages, as they should be."""
    found = {PAGE: results_page()}
    for path in (Path("README.md"), *sorted(Path("checkpoints").glob("*.md"))):
        text = path.read_text("utf-8")
        found[path] = BLOCK.sub(lambda m: m[1] + block(m["file"], m["rows"]) + m[4], text)
    return found


def results_page() -> str:
    """The text of RESULTS.md."""
    index = ["| claim | question | verdict | runs | core-hours |", "|---|---|---|---|---|"]
    sections = []
    for path in sorted(FOLDER.glob("*.yaml")):
        claim, file = read(path), RESULTS / f"{path.stem}.jsonl"
        if not file.exists():
            index.append(f"| {claim.name} | {claim.question} | not run yet | 0 | |")
            continue
        lines = from_json(file)
        found = table.summarise(lines)
        hours = sum(line["value"] for line in lines if line["metric"] == table.HOURS)
        link = f"[{claim.name}](#{claim.name})"
        about = (claim.question, table.verdict(claim, found), len(_runs(file)), f"{hours:.1f}")
        index.append(f"| {' | '.join(map(str, (link, *about)))} |")
        sections.append(f"\n## {claim.name}\n\n{table.to_markdown(claim, found)}")
    return HEAD + "\n" + "\n".join(index) + "\n" + "".join(sections)


def block(file: str, rows: str) -> str:
    """A table of some metrics of a results file, by title."""
    named = [[part.strip() for part in row.split("=", 1)] for row in rows.split(";")]
    if bad := [row for row in named if len(row) < 2]:
        raise ValueError(f"results {file}: expected METRIC = title; .., got {bad[0][0]}")
    lines = from_json(file)
    titles = {metric: title for metric, title in named}
    if missing := titles.keys() - {line["metric"] for line in lines}:
        raise ValueError(f"results {file}: expected its metrics, got {sorted(missing)}")
    if "arm" not in lines[0]:
        rows_of = {line["metric"]: line for line in lines}
        return _table(["", "value", "95 % interval"], [
            [title, f"{rows_of[m]['value']:.3f}", _interval(rows_of[m])]
            for m, title in titles.items()
        ])  # fmt: skip
    found = table.summarise(lines)
    arms = [*dict.fromkeys(c.arm for c in found)]
    of = {(c.arm, c.metric): c for c in found}
    against = {c.arm: c.against for c in found if c.against}
    body = []
    for metric, title in titles.items():
        values = [str(of[arm, metric].value) if (arm, metric) in of else "" for arm in arms]
        changes = [of[arm, metric].difference if (arm, metric) in of else None for arm in against]
        body.append([title, *values, *("" if c is None else str(c) for c in changes)])
    heads = ["", *arms, *(f"{arm} − {against[arm]}" for arm in arms if arm in against)]
    return _table(heads, body)


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _interval(line: dict) -> str:
    return "{:.3f} to {:.3f}".format(*line["ci95"]) if line.get("ci95") else ""


def _runs(file: Path) -> set[tuple[str, int]]:
    return {(line["arm"], line["seed"]) for line in from_json(file)}


def _write(path: Path, text: str) -> list[Path]:
    if path.exists() and path.read_text("utf-8") == text:
        return []
    write_atomic(path, text.encode())
    return [path]

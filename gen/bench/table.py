"""Results of a claim: one line per arm, seed and value; their comparison, tables and page."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen.bench import jobs
from gen.bench.claim import FOLDER, Claim, Goal, command, read
from gen.commands import call
from gen.evaluation.compare import at_equal_distance
from gen.evaluation.results import from_json
from gen.evaluation.statistics import Interval, holm, over_seeds, p_paired
from gen.files import write_atomic
from gen.report import charts
from gen.report.page import ARROWS, Figure, Panel, Table, write_report

HOURS = "cost/core_hours"
FEWEST_SEEDS = 3


class Compared(NamedTuple):
    """One value of one arm, over seeds.

    Args:
        seeds: number of seeds.
        value: mean over seeds.
        base: value of the arm that it is compared with; None for a baseline.
        difference: difference to `base`, paired by seed.
        share: ratio to `base`, paired by seed; None if `base` is not positive.
        p: p value of the paired t-test, corrected by Holm over all rows; NaN if unknown.
    """

    arm: str
    against: str
    metric: str
    protocol: str
    better: str
    seeds: int
    value: Interval
    base: Interval | None
    difference: Interval | None
    share: Interval | None
    p: float


# ---- lines of results.jsonl ----------------------------------------------------------------------


def collect(claim: Claim, out: Path) -> list[dict]:
    """Lines of all measured runs below `out`: claim, arm, seed, metric, protocol, better, value,
    count; and, for arms that are compared, `against` and the value `base` of the same seed."""
    runs = {}
    for name in claim.arms:
        for file in out.glob(f"{name}_*/{jobs.ROWS}"):
            seed = file.parent.name.removeprefix(f"{name}_")
            if seed.lstrip("-").isdigit():
                runs[name, int(seed)] = file
    lines = []
    for (name, seed), file in sorted(runs.items(), key=_order(claim)):
        against = claim.arms[name].against
        base = runs.get((against, seed))
        own, other = _rows(claim, file), _rows(claim, base) if base else []
        if base:
            equal = at_equal_distance([other, own])
            other, own = other + _means(equal[0]), own + _means(equal[1])
        values, known = ({row["metric"]: row for row in rows} for rows in (own, other))
        wanted = [m for pattern in claim.metrics for m in values if fnmatchcase(m, pattern)]
        for metric in dict.fromkeys(wanted):
            row, line = values[metric], dict(claim=claim.name, arm=name, seed=seed, metric=metric)
            line |= {k: row.get(k) for k in ("protocol", "better", "value", "count")}
            if metric in known:
                line |= dict(against=against, base=known[metric]["value"])
            lines.append(line)
        lines.append(_cost(claim, name, seed, file.parent))
    return lines


def _order(claim: Claim):
    arms = [*claim.arms]
    return lambda item: (arms.index(item[0][0]), item[0][1])


def _rows(claim: Claim, file: Path) -> list[dict]:
    rows = from_json(file)
    values = {row["metric"]: row for row in rows}
    for name, parts in claim.means.items():
        if all(part in values for part in parts):
            mean = float(np.mean([values[part]["value"] for part in parts]))
            protocol = f"mean of {', '.join(parts)}"
            rows.append(values[parts[0]] | dict(metric=name, value=mean, protocol=protocol))
    return rows


def _means(rows: Iterable[Mapping]) -> list[dict]:
    """Rows of `at_equal_distance`, with the mean of their units."""
    return [
        {**row, "value": float(np.mean([*row["values"].values()])), "count": len(row["values"])}
        for row in rows
    ]


def _cost(claim: Claim, arm: str, seed: int, folder: Path) -> dict:
    file = folder / jobs.COST
    spent = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    hours = sum(line["core_seconds"] for line in spent) / 3600
    line = dict(claim=claim.name, arm=arm, seed=seed, metric=HOURS, better="lower")
    return line | dict(protocol="processor time of the training", value=round(hours, 3), count=1)


# ---- comparison ----------------------------------------------------------------------------------


def summarise(lines: Sequence[Mapping]) -> list[Compared]:
    """Means over seeds, and differences between arms and their baselines, in the order of lines."""
    groups: dict[tuple[str, str], list[Mapping]] = {}
    for line in lines:
        groups.setdefault((line["metric"], line["arm"]), []).append(line)
    found, ps = [], []
    for (metric, arm), some in groups.items():
        first, paired = some[0], [line for line in some if "base" in line]
        base = difference = share = None
        p = float("nan")
        if paired:
            own, other = (np.array([line[k] for line in paired]) for k in ("value", "base"))
            base, difference = over_seeds(other), over_seeds(own - other)
            share = over_seeds(own / other) if (other > 0).all() else None
            p = p_paired(own - other)
        value = over_seeds([line["value"] for line in some])
        about = (metric, first["protocol"] or "", first["better"] or "none", len(some))
        against = paired[0]["against"] if paired else ""
        found.append(Compared(arm, against, *about, value, base, difference, share, p))
        ps.append(p)
    return [c._replace(p=p) for c, p in zip(found, holm(ps), strict=True)]


def judge(goal: Goal, found: Sequence[Compared]) -> str:
    """Verdict on one goal: holds, holds in part, not seen, or too few seeds.

    It holds if the whole 95 % interval is within the bound and, for a comparison, the corrected p
    is below 0.05; in part if the mean is within the bound.
    """
    row = next((c for c in found if (c.arm, c.metric) == (goal.arm, goal.metric)), None)
    interval = row and getattr(row, goal.measure)
    if interval is None or row.seeds < FEWEST_SEEDS:
        return f"too few seeds ({row.seeds if row else 0} of {FEWEST_SEEDS})"

    def within(value: float) -> bool:
        return value >= goal.at_least if goal.at_most is None else value <= goal.at_most

    sure = within(interval.low) and within(interval.high)
    if sure and (goal.measure == "value" or row.p < 0.05):
        return "holds"
    return "holds in part" if within(interval.mean) else "not seen"


def verdict(claim: Claim, found: Sequence[Compared]) -> str:
    """Verdict on the whole claim: `holds` if all of its goals hold."""
    each = [judge(goal, found) for goal in claim.goals]
    for answer in each:
        if answer.startswith("too few"):
            return answer
    if set(each) == {"holds"}:
        return "holds"
    return "not seen" if set(each) == {"not seen"} else "holds in part"


def sentences(claim: Claim, found: Sequence[Compared]) -> list[str]:
    """The verdict in words, and one sentence per goal with its number."""
    told = [f"{claim.question} Verdict: {verdict(claim, found)}."]
    for goal in claim.goals:
        row = next((c for c in found if (c.arm, c.metric) == (goal.arm, goal.metric)), None)
        number = getattr(row, goal.measure) if row else None
        told.append(f"Goal: {goal}; got {number or 'nothing'}: {judge(goal, found)}.")
    return told


# ---- tables --------------------------------------------------------------------------------------


def cells(claim: Claim, c: Compared) -> list[str]:
    """Cells of a row: value, baseline, difference, share (if a goal asks for it), p, seeds."""
    found = [str(c.value)]
    shown = [c.base, c.difference] + [c.share] * _shares(claim)
    found += ["" if interval is None else str(interval) for interval in shown]
    p = f"{c.p:.2g}" if np.isfinite(c.p) else ""
    return [*found, p, str(c.seeds)]


def heads(claim: Claim) -> list[str]:
    return ["value", "baseline", "difference", *["share"] * _shares(claim), "p (Holm)", "seeds"]


def _shares(claim: Claim) -> bool:
    return any(goal.measure == "share" for goal in claim.goals)


def by_metric(found: Sequence[Compared]) -> list[Compared]:
    """Rows of one metric together, in the order of their first appearance."""
    names = [*dict.fromkeys(c.metric for c in found if c.metric != HOURS), HOURS]
    return sorted(found, key=lambda c: names.index(c.metric))


def to_markdown(claim: Claim, found: Sequence[Compared]) -> str:
    """Verdict and table in Markdown. Intervals are 95 % of Student's t over seeds."""
    lines = [*(f"{s}\n" for s in sentences(claim, found))]
    columns = ["metric", "arm", *heads(claim)]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    last = ""
    for c in by_metric(found):
        arrow = f" {ARROWS[c.better]}" if c.better in ARROWS else ""
        name = f"`{c.metric}`{arrow}" if c.metric != last else ""
        arm = f"{c.arm} (to {c.against})" if c.against else c.arm
        lines.append(f"| {' | '.join([name, arm, *cells(claim, c)])} |")
        last = c.metric
    return "\n".join(lines) + "\n"


def write(claim: Claim, lines: Sequence[Mapping], out: Path) -> str:
    """Writes results.jsonl, table.md and page.html into `out`; returns the text of the table."""
    found = summarise(lines)
    text = to_markdown(claim, found)
    write_atomic(out / "results.jsonl", to_json(lines).encode())
    write_atomic(out / "table.md", f"# {claim.name}\n\n{text}".encode())
    rows = [
        (f"{c.metric}/{c.arm}", c.protocol, c.better, cells(claim, c)) for c in by_metric(found)
    ]
    write_report(
        out / "page.html",
        title=claim.name,
        subtitle=f"{len(claim.arms)} arms, seeds {', '.join(map(str, claim.seeds))}",
        abstract=sentences(claim, found),
        plots=frontiers(claim, found),
        sections=pictures(claim, lines, out),
        metrics=Table(heads(claim), rows),
        config_text=claim.path.read_text(),
    )
    return text


def to_json(lines: Iterable[Mapping]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def frontiers(claim: Claim, found: Sequence[Compared]) -> list[str]:
    """Charts of one value against another, one point with its intervals per arm."""
    of = {(c.arm, c.metric): c.value for c in found}
    drawn = []
    for x, y in claim.frontiers:
        arms = [arm for arm in claim.arms if (arm, x) in of and (arm, y) in of]
        if len(arms) > 1:
            points = [(arm, *of[arm, x], *of[arm, y]) for arm in arms]
            drawn.append(charts.scatter(points, x, y))
    return drawn


def pictures(claim: Claim, lines: Sequence[Mapping], out: Path) -> dict[str, list[Figure]]:
    """Pictures of each arm's first seed, by the claim's command; drawn once per checkpoint."""
    panels = []
    for arm in claim.arms if claim.picture else ():
        seeds = [line["seed"] for line in lines if line["arm"] == arm]
        if not seeds:
            continue
        folder = out / f"{arm}_{seeds[0]}"
        checkpoint, picture = folder / "last.ckpt", folder / "picture"
        if checkpoint.exists() and not _pngs(folder):
            call(sys.executable, *command(claim.picture, checkpoint=checkpoint, out=picture))
        panels += [Panel(file, arm) for file in _pngs(folder)]
    caption = f"Seed {claim.seeds[0]} of each arm, the same inputs: `{claim.picture}`"
    return {"Pictures": [Figure(caption, panels)]} if panels else {}


def _pngs(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.png"), *folder.glob("picture/*.png")])


def listing(root: Path) -> str:
    """All claims of `configs/claims`, with the number of runs measured below `root`."""
    lines = [f"{'claim':24} {'runs':>9}  {'core-hours':>10}  question"]
    for path in sorted(FOLDER.glob("*.yaml")):
        claim = read(path)
        count = len(claim.arms) * len(claim.seeds)
        runs = [(arm, seed) for arm in claim.arms for seed in claim.seeds]
        done = sum((root / claim.name / f"{a}_{s}" / jobs.ROWS).exists() for a, s in runs)
        state, hours = f"{done} of {count}", claim.cost * (count - done)
        lines.append(f"{claim.name:24} {state:>9}  {hours:10.1f}  {claim.question}")
    if len(lines) == 1:
        raise ValueError(f"gen bench: expected claims in {FOLDER}, got none; run it in a clone")
    return "\n".join([*lines, "core-hours: of what is left"])

"""Results of a claim: one line per arm, seed and value; their comparison, tables and page."""

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from gen.bench import jobs
from gen.bench.claim import Claim, Goal, command
from gen.evaluation.compare import at_equal_distance
from gen.evaluation.results import from_json
from gen.evaluation.statistics import Interval, holm, over_seeds, p_paired
from gen.files import write_atomic
from gen.report import charts
from gen.report.page import ARROWS, Figure, Panel, Table, write_report

HOURS = "cost/core_hours"
FEWEST_SEEDS = 3
log = logging.getLogger(__name__)


class Compared(NamedTuple):
    """One value of one arm, over seeds.

    Args:
        seeds: number of seeds.
        value: mean over seeds.
        base: value of the arm that it is compared with; None for a baseline.
        difference: difference to `base`, paired by seed.
        share: ratio to `base`, paired by seed; None if `base` is not positive.
        p: p value of the paired t-test, corrected by Holm over all rows; NaN if unknown.
        pairs: differences of the single seeds.
        shares: ratios of the single seeds.
        values: values of the single seeds.
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
    pairs: list[float]
    shares: list[float]
    values: list[float]


# ---- lines of results.jsonl ----------------------------------------------------------------------


def collect(claim: Claim, out: Path, more: Sequence[str] = ()) -> list[dict]:
    """Lines of all measured runs below `out`.

    A line has claim, arm, seed, run, metric, protocol, better, value, count; for an arm that is
    compared, `against` and the value `base` of the same seed; and `more`, the options of `gen fit`
    that its run had besides those of the claim. Runs that were begun with other options, or
    measured with others, are left out with a warning. `run` is the fingerprint of the run.
    """
    runs, names = {}, {}
    for run in _found(claim, out, more):
        if jobs.begun(run) != jobs.identity(run) or not jobs.is_measured_so(run):
            log.warning("left out: %s, which had other options", run.folder)
        else:
            key = run.name.rpartition("_")[0], run.seed
            runs[key], names[key] = run.folder / jobs.ROWS, jobs.fingerprint(run)
    lines = []
    for (name, seed), file in runs.items():
        against = claim.arms[name].against
        base = runs.get((against, seed))
        own, other = _rows(claim, file), _rows(claim, base) if base else []
        if base:
            equal = at_equal_distance([other, own])
            other, own = other + _means(equal[0]), own + _means(equal[1])
        values, known = ({row["metric"]: row for row in rows} for rows in (own, other))
        wanted = [m for pattern in claim.metrics for m in values if fnmatchcase(m, pattern)]
        about = dict(claim=claim.name, arm=name, seed=seed, run=names[name, seed])
        about |= dict(more=[*more]) if more else {}
        for metric in dict.fromkeys(wanted):
            row, line = values[metric], about | dict(metric=metric)
            line |= {k: row.get(k) for k in ("protocol", "better", "value", "count")}
            if metric in known:
                line |= dict(against=against, base=known[metric]["value"])
            lines.append(line)
        lines.append(about | _cost(file.parent))
    return lines


def _found(claim: Claim, out: Path, more: Sequence[str]) -> list[jobs.Run]:
    """Runs below `out` that have rows, by arm in the order of the claim, then by seed."""
    seeds: dict[str, list[int]] = {}
    for name in claim.arms:
        for file in out.glob(f"{name}_*/{jobs.ROWS}"):
            seed = file.parent.name.removeprefix(f"{name}_")
            if seed.lstrip("-").isdigit():
                seeds.setdefault(name, []).append(int(seed))
    plans = (jobs.plan(claim, out, more, sorted(found), [arm]) for arm, found in seeds.items())
    return [run for runs in plans for run in runs if run.evaluate is not None]


def _rows(claim: Claim, file: Path) -> list[dict]:
    rows = from_json(file)
    values = {row["metric"]: row for row in rows}
    for name, parts in claim.means.items():
        if all(part in values for part in parts):
            mean = float(np.mean([values[part]["value"] for part in parts]))
            protocol = f"mean of {', '.join(parts)}"
            count = sum(values[part].get("count") or 0 for part in parts)
            row = dict(metric=name, value=mean, protocol=protocol, count=count)
            rows.append(row | {"better": values[parts[0]].get("better"), "values": {}})
    return rows


def _means(rows: Iterable[Mapping]) -> list[dict]:
    """Rows of `at_equal_distance`, with the mean of their units."""
    return [
        {**row, "value": float(np.mean([*row["values"].values()])), "count": len(row["values"])}
        for row in rows
    ]


def _cost(folder: Path) -> dict:
    file = folder / jobs.COST
    spent = [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []
    hours = sum(line["core_seconds"] for line in spent) / 3600
    about = dict(metric=HOURS, better="lower", protocol="processor time of the training")
    return about | dict(value=round(hours, 3), count=1)


# ---- comparison ----------------------------------------------------------------------------------


def summarise(lines: Sequence[Mapping]) -> list[Compared]:
    """Means over seeds, and differences between arms and their baselines, in the order of lines."""
    groups: dict[tuple[str, str], list[Mapping]] = {}
    for line in lines:
        groups.setdefault((line["metric"], line["arm"]), []).append(line)
    found = []
    for (metric, arm), some in groups.items():
        paired, p = [line for line in some if "base" in line], float("nan")
        own, other = (np.array([line[k] for line in paired]) for k in ("value", "base"))
        shares = own / other if paired and (other > 0).all() else np.array([])
        base = difference = None
        if paired:
            some = paired  # so that value - base is the difference
            base, difference, p = over_seeds(other), over_seeds(own - other), p_paired(own - other)
        values = [line["value"] for line in some]
        about = (metric, some[0]["protocol"] or "", some[0]["better"] or "none", len(some))
        share = over_seeds(shares) if len(shares) else None
        found.append(
            Compared(
                arm, paired[0]["against"] if paired else "", *about, over_seeds(values), base,
                difference, share, p, (own - other).tolist(), shares.tolist(), values,
            )
        )  # fmt: skip
    return [c._replace(p=p) for c, p in zip(found, holm([c.p for c in found]), strict=True)]


class Verdict(NamedTuple):
    """The answer to one goal, the interval that it comes from, and p against the goal's bound."""

    answer: str
    interval: Interval | None
    p: float


def judge(claim: Claim, found: Sequence[Compared]) -> list[Verdict]:
    """Verdicts on the goals of a claim: holds, holds in part, not seen, or what is missing.

    A goal holds if the one-sided t-test against its own bound gives p < 0.05, corrected by Holm
    over the goals of the claim. It holds in part if the mean is within the bound and the 95 %
    interval excludes no effect (a difference of 0, a share of 1).
    """
    rows = {(c.arm, c.metric): c for c in found}
    seen = [rows.get((goal.arm, goal.metric)) for goal in claim.goals]
    pairs = [*zip(claim.goals, seen, strict=True)]
    ps = [p_bound(_units(goal, c), goal) if c else float("nan") for goal, c in pairs]
    verdicts = []
    for (goal, c), p in zip(pairs, holm(ps), strict=True):
        interval = c and getattr(c, goal.measure)
        verdicts.append(Verdict(_answer(goal, c, interval, p), interval, p))
    return verdicts


def _units(goal: Goal, c: Compared) -> list[float]:
    return {"value": c.values, "difference": c.pairs, "share": c.shares}[goal.measure]


def p_bound(values: Sequence[float], goal: Goal) -> float:
    """p of the one-sided t-test that the mean is within the bound of a goal; NaN for one value."""
    v = np.asarray(values, float)
    if len(v) < 2:
        return float("nan")
    distance = v - goal.at_least if goal.at_most is None else goal.at_most - v
    spread = v.std(ddof=1) / len(v) ** 0.5
    if spread == 0:
        return float(distance.mean() <= 0)
    return float(student.sf(distance.mean() / spread, len(v) - 1))


def _answer(goal: Goal, c: Compared | None, interval: Interval | None, p: float) -> str:
    if c is None:
        return "not measured"
    if interval is None:
        return "not compared" if goal.measure == "difference" or not c.pairs else "no ratio to 0"
    if c.seeds < FEWEST_SEEDS:
        return f"too few seeds ({c.seeds} of {FEWEST_SEEDS})"
    if p < 0.05:
        return "holds"
    up = goal.at_most is None
    within = interval.mean >= goal.at_least if up else interval.mean <= goal.at_most
    none = {"value": None, "difference": 0.0, "share": 1.0}[goal.measure]
    effect = none is None or (interval.low > none if up else interval.high < none)
    return "holds in part" if within and effect else "not seen"


def verdict(claim: Claim, found: Sequence[Compared]) -> str:
    """Verdict on the whole claim: `holds` if all of its goals hold."""
    each = {v.answer for v in judge(claim, found)}
    if open_ones := each - {"holds", "holds in part", "not seen"}:
        return min(open_ones)
    if each == {"holds"}:
        return "holds"
    return "not seen" if each == {"not seen"} else "holds in part"


def sentences(claim: Claim, found: Sequence[Compared]) -> list[str]:
    """The verdict in words, and one sentence per goal with its number."""
    told = [f"{claim.question} Verdict: {verdict(claim, found)}."]
    for goal, v in zip(claim.goals, judge(claim, found), strict=True):
        p = f", p {v.p:.2g}" if np.isfinite(v.p) else ""
        told.append(f"Goal: {goal}; got {v.interval or 'nothing'}{p}: {v.answer}.")
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
    protocols: dict[str, str] = {}  # that of the first arm, so that all arms stand together
    rows = [
        (
            f"{c.metric}/{c.arm}", protocols.setdefault(c.metric, c.protocol), c.better,
            cells(claim, c),
        )
        for c in by_metric(found)
    ]  # fmt: skip
    write_report(
        out / "page.html",
        title=claim.name,
        subtitle=f"{len(claim.arms)} arms, seeds {', '.join(map(str, claim.seeds))}",
        abstract=sentences(claim, found),
        plots=frontiers(claim, found),
        sections=pictures(claim, lines, out),
        metrics=Table(heads(claim), rows),
        config_text=claim.path.read_text("utf-8"),
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
    seeds: dict[str, int] = {}
    for line in lines if claim.picture else ():
        seeds.setdefault(line["arm"], line["seed"])
    folders = {arm: out / f"{arm}_{seeds[arm]}" for arm in claim.arms if arm in seeds}
    missing = [f for f in folders.values() if (f / "last.ckpt").exists() and not _pngs(f)]
    files = [dict(checkpoint=f / "last.ckpt", out=f / "picture") for f in missing]
    jobs.run_here([[sys.executable, *command(claim.picture, **one)] for one in files], jobs.cores())
    for folder in missing:
        if not _pngs(folder):
            log.warning("no picture of %s: its command failed", folder)
    panels = [
        Panel(file, f"{arm}, seed {seeds[arm]}")
        for arm, folder in folders.items()
        for file in _pngs(folder)
    ]
    caption = f"The same inputs for all arms: `{claim.picture.strip()}`"
    return {"Pictures": [Figure(caption, panels, width_px=640)]} if panels else {}


def _pngs(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.png"), *folder.glob("picture/*.png")])

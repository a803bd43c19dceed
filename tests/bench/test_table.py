"""From the rows of runs to lines, differences of equal seeds, verdicts, tables and the page."""

import json
from dataclasses import replace

import pytest

from gen.bench import table
from gen.bench.claim import Arm, Claim, Goal
from gen.bench.jobs import COST, ROWS
from gen.evaluation.statistics import over_seeds

ARMS = {"without": Arm("c.yaml"), "with": Arm("c.yaml", {}, "without")}


@pytest.fixture
def claim(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("question: Does it help?\n")
    goals = [Goal("with", "val/top1", "difference", at_least=0.0)]
    return Claim(
        path, "Does it help?", "c.yaml", 1.0, [1, 2, 10], ARMS, {}, ["val/*"], goals, {}
    )  # fmt: skip


def write_runs(out, values, metric="val/top1", better="higher"):
    """Rows of runs from {arm: values of the seeds 1, 2, 10}."""
    for arm, of_seed in values.items():
        for seed, value in zip((1, 2, 10), of_seed, strict=False):
            folder = out / f"{arm}_{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            row = dict(metric=metric, value=value, protocol="p", better=better, count=5)
            with (folder / ROWS).open("a") as file:
                file.write(json.dumps(row | {"values": {"0": value}}) + "\n")


HELPED = {"with": [0.60, 0.55, 0.71], "without": [0.58, 0.50, 0.66], "other": [9, 9, 9]}


def test_differences_are_paired_by_seed(claim, tmp_path):
    write_runs(tmp_path, HELPED)
    (tmp_path / "with_1" / COST).write_text('{"core_seconds": 1800}\n{"core_seconds": 1800}\n')
    lines = table.collect(claim, tmp_path)
    assert {line["arm"] for line in lines} == {"with", "without"}
    assert [line["seed"] for line in lines if line["metric"] == "val/top1"] == [1, 2, 10] * 2
    found = {(c.arm, c.metric): c for c in table.summarise(lines)}
    c = found["with", "val/top1"]
    assert c.difference == pytest.approx(
        over_seeds([0.02, 0.05, 0.05])
    ) and c.base.mean == pytest.approx(0.58)
    assert c.share.mean == pytest.approx((0.60 / 0.58 + 0.55 / 0.5 + 0.71 / 0.66) / 3)
    assert found["without", "val/top1"].difference is None
    assert found["with", table.HOURS].value.mean == pytest.approx(1 / 3)  # one run of three


def test_a_seed_without_a_partner_is_not_compared(claim, tmp_path):
    write_runs(tmp_path, {"with": [0.6, 0.5, 0.7], "without": [0.5, 0.5]})
    lines = table.collect(claim, tmp_path)
    c = next(c for c in table.summarise(lines) if c.arm == "with")
    assert c.seeds == 3 and c.base.mean == 0.5
    assert c.difference == pytest.approx(over_seeds([0.1, 0.0]))


@pytest.mark.parametrize(
    "values, told",
    [
        ([0.70, 0.61, 0.77], "holds"),  # differences 0.12, 0.11, 0.11
        (HELPED["with"], "holds in part"),
        ([0.58, 0.40, 0.60], "not seen"),
    ],
)
def test_a_verdict_says_what_the_interval_says(claim, tmp_path, values, told):
    write_runs(tmp_path, HELPED | {"with": values})
    found = table.summarise(table.collect(claim, tmp_path))
    assert table.verdict(claim, found) == told
    text = " ".join(table.sentences(claim, found))
    assert f"Verdict: {told}." in text and "at least 0.0; got" in text


def test_a_verdict_needs_three_seeds_and_all_of_its_goals(claim, tmp_path):
    write_runs(tmp_path, {k: v[:2] for k, v in HELPED.items()})
    found = table.summarise(table.collect(claim, tmp_path))
    assert table.verdict(claim, found) == "too few seeds (2 of 3)"
    assert table.verdict(claim, []) == "too few seeds (0 of 3)"
    write_runs(tmp_path / "all", HELPED | {"with": [0.70, 0.61, 0.77]})
    goals = [*claim.goals, Goal("with", "val/top1", "value", at_least=0.9)]
    claim = replace(claim, goals=goals)
    found = table.summarise(table.collect(claim, tmp_path / "all"))
    assert [table.judge(g, found) for g in goals] == ["holds", "not seen"]
    assert table.verdict(claim, found) == "holds in part"


def test_p_values_are_corrected_over_all_rows(claim, tmp_path):
    write_runs(tmp_path, HELPED)
    (alone,) = (c.p for c in table.summarise(table.collect(claim, tmp_path)) if c.p == c.p)
    write_runs(tmp_path, {"with": [1, 2, 3], "without": [1, 2, 4]}, "val/loss")
    first, _ = (c.p for c in table.summarise(table.collect(claim, tmp_path)) if c.p == c.p)
    assert first == pytest.approx(2 * alone)


def test_means_of_values_are_values(claim, tmp_path):
    write_runs(tmp_path, {"with": [1, 2, 3]}, "x/a")
    write_runs(tmp_path, {"with": [3, 4, 5]}, "x/b")
    claim = replace(claim, means={"val/both": ["x/a", "x/b"], "val/no": ["x/a", "x/c"]})
    lines = [line for line in table.collect(claim, tmp_path) if line["metric"] != table.HOURS]
    assert [(line["metric"], line["value"]) for line in lines] == [
        ("val/both", 2), ("val/both", 3), ("val/both", 4)
    ]  # fmt: skip


def test_paths_are_compared_at_equal_distance(claim, tmp_path):
    """Paths that are as straight at every distance, of two sources; the arms differ by 0.1."""
    for arm, more in (("with", 0.1), ("without", 0.0)):
        for seed, base in ((1, 0.30), (2, 0.34)):
            rows = []
            for psi, direct in (("_psi0.5", 0.1), ("", 0.2), ("_psi2", 0.4)):
                for name, value in (("direct", direct), ("straight", base + more)):
                    metric = f"inter/latent{psi}/{name}_t20_alex"
                    row = dict(metric=metric, value=value, protocol="", better="higher", count=2)
                    rows.append(row | dict(values={"0": value, "1": value}))
            folder = tmp_path / f"{arm}_{seed}"
            folder.mkdir()
            (folder / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    claim = replace(claim, metrics=["inter/equal_distance/straight_*"])
    c = next(c for c in table.summarise(table.collect(claim, tmp_path)) if c.difference)
    assert c.metric == "inter/equal_distance/straight_t20_alex" and c.arm == "with"
    assert c.base.mean == pytest.approx(0.32)
    assert c.difference.mean == pytest.approx(0.1) and c.difference.half == pytest.approx(0)


def test_tables_and_page_hold_every_arm(claim, tmp_path):
    write_runs(tmp_path, HELPED)
    write_runs(tmp_path, {"with": [1, 2, 3], "without": [1, 2, 4]}, "val/loss", "lower")
    claim = replace(claim, frontiers=[["val/loss", "val/top1"], ["val/top1", "nothing"]])
    lines = table.collect(claim, tmp_path)
    text = table.write(claim, lines, tmp_path)
    assert "| `val/top1` ↑ | without | 0.580 ± 0.199 |" in text and "| `val/loss` ↓ |" in text
    assert "with (to without)" in text
    assert [json.loads(x) for x in (tmp_path / "results.jsonl").read_text().splitlines()] == lines
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="chart plot"') == 1 and "Verdict: holds in part." in page
    assert (tmp_path / "table.md").read_text().startswith("# mine\n")
    share = [Goal("with", "val/top1", "share", at_least=1.0)]
    assert " share |" in table.to_markdown(replace(claim, goals=share), table.summarise(lines))

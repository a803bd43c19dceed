"""From the rows of runs to lines, differences of equal seeds, verdicts, tables and the page."""

import json
from dataclasses import replace

import pytest

from gen.bench import table
from gen.bench.claim import Arm, Claim, Goal
from gen.bench.jobs import COST, ROWS, begin, plan
from gen.evaluation.statistics import over_seeds


@pytest.fixture
def claim(tmp_path):
    path, config = tmp_path / "mine.yaml", tmp_path / "c.yaml"
    path.write_text("question: Does it help?\n")
    config.write_text("model: {}\n")
    arms = {"without": Arm(str(config)), "with": Arm(str(config), {}, "without")}
    goals = [Goal("with", "val/top1", "difference", at_least=0.0)]
    return Claim(
        path, "Does it help?", str(config), 1.0, [1, 2, 10], arms, {"count": 3}, ["val/*"], goals,
        {},
    )  # fmt: skip


def write_runs(claim, out, values, metric="val/top1", better="higher"):
    """Rows of runs from {arm: values of the seeds 1, 2, 10}."""
    for arm, of_seed in values.items():
        for seed, value in zip((1, 2, 10), of_seed, strict=False):
            folder = out / f"{arm}_{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            if arm in claim.arms:
                begin(plan(claim, out, seeds=[seed], arms=[arm]))
            row = dict(metric=metric, value=value, protocol="p", better=better, count=5)
            with (folder / ROWS).open("a") as file:
                file.write(json.dumps(row | {"values": {"0": value}}) + "\n")


HELPED = {"with": [0.60, 0.55, 0.71], "without": [0.58, 0.50, 0.66], "other": [9, 9, 9]}


def test_differences_are_paired_by_seed(claim, tmp_path):
    write_runs(claim, tmp_path, HELPED)
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
    write_runs(claim, tmp_path, {"with": [0.6, 0.5, 0.7], "without": [0.5, 0.5]})
    lines = table.collect(claim, tmp_path)
    c = next(c for c in table.summarise(lines) if c.arm == "with")
    assert c.seeds == 2 and c.base.mean == 0.5 and c.value.mean == pytest.approx(0.55)
    assert c.difference == pytest.approx(over_seeds([0.1, 0.0]))
    assert table.verdict(claim, table.summarise(lines)) == "too few seeds (2 of 3)"


def test_runs_of_other_options_are_left_out(claim, tmp_path, caplog):
    write_runs(claim, tmp_path, HELPED)
    assert table.collect(claim, tmp_path, ["--trainer.max_steps", "5"]) == []
    assert "with_1, which had other options" in caplog.text
    other = replace(claim, evaluate={"count": 4})
    begin(plan(other, tmp_path, seeds=[1], arms=["with"]))  # measures it anew
    assert not (tmp_path / "with_1" / ROWS).exists()
    lines = table.collect(other, tmp_path)
    assert lines == []  # all others were measured with 3
    more = ["--model.x", "1"]
    begin(plan(claim, tmp_path / "o", more, [1], ["with"]))
    (tmp_path / "o/with_1" / ROWS).write_text(json.dumps(dict(metric="val/a", value=1)) + "\n")
    assert {tuple(line["more"]) for line in table.collect(claim, tmp_path / "o", more)} == {
        ("--model.x", "1")
    }


@pytest.mark.parametrize(
    "bounds, differences, told",
    [
        (dict(at_least=0.0), [0.12, 0.11, 0.11], "holds"),
        (dict(at_least=0.0), [0.02, 0.05, -0.05], "not seen"),  # a mean above 0 says nothing
        (dict(at_least=0.1), [0.09, 0.12, 0.10], "holds in part"),  # an effect, not sure of 0.1
        (dict(at_least=0.2), [0.12, 0.11, 0.11], "not seen"),
        (dict(at_least=-0.03), [0.01, -0.01, 0.0], "holds"),  # no worse
        (dict(at_least=0.0), [0.0, 0.0, 0.0], "not seen"),  # the option does nothing
        (dict(at_most=0.0), [-0.12, -0.11, -0.11], "holds"),
    ],
)
def test_a_goal_is_tested_against_its_own_bound(claim, tmp_path, bounds, differences, told):
    base = HELPED["without"]
    values = [b + d for b, d in zip(base, differences, strict=True)]
    write_runs(claim, tmp_path, {"with": values, "without": base})
    claim = replace(claim, goals=[Goal("with", "val/top1", "difference", **bounds)])
    found = table.summarise(table.collect(claim, tmp_path))
    assert table.verdict(claim, found) == told
    text = " ".join(table.sentences(claim, found))
    assert f"Verdict: {told}." in text and "; got" in text


def test_p_of_a_goal_is_that_of_the_one_sided_test():
    from scipy.stats import ttest_1samp

    values, goal = [0.12, 0.10, 0.13], Goal("a", "m", "difference", at_least=0.1)
    expected = ttest_1samp(values, 0.1, alternative="greater").pvalue
    assert table.p_bound(values, goal) == pytest.approx(expected)
    goal = Goal("a", "m", "difference", at_most=0.1)
    expected = ttest_1samp(values, 0.1, alternative="less").pvalue
    assert table.p_bound(values, goal) == pytest.approx(expected)


def test_a_claim_holds_if_all_of_its_goals_do(claim, tmp_path):
    assert table.verdict(claim, []) == "not measured"
    write_runs(claim, tmp_path, HELPED | {"with": [0.70, 0.61, 0.77]})
    goals = [*claim.goals, Goal("with", "val/top1", "value", at_least=0.9)]
    claim = replace(claim, goals=goals)
    found = table.summarise(table.collect(claim, tmp_path))
    assert [v.answer for v in table.judge(claim, found)] == ["holds", "not seen"]
    assert table.verdict(claim, found) == "holds in part"
    same = replace(claim, goals=[claim.goals[0]] * 40)  # as many tests
    first = table.judge(same, found)[0]
    assert first.p == pytest.approx(40 * table.judge(claim, found)[0].p / 2)


def test_p_values_are_corrected_over_all_rows(claim, tmp_path):
    write_runs(claim, tmp_path, HELPED)
    (alone,) = (c.p for c in table.summarise(table.collect(claim, tmp_path)) if c.p == c.p)
    write_runs(claim, tmp_path, {"with": [1, 2, 3], "without": [1, 2, 4]}, "val/loss")
    first, _ = (c.p for c in table.summarise(table.collect(claim, tmp_path)) if c.p == c.p)
    assert first == pytest.approx(2 * alone)


def test_means_of_values_are_values(claim, tmp_path):
    write_runs(claim, tmp_path, {"with": [1, 2, 3]}, "x/a")
    write_runs(claim, tmp_path, {"with": [3, 4, 5]}, "x/b")
    claim = replace(claim, means={"val/both": ["x/a", "x/b"], "val/no": ["x/a", "x/c"]})
    lines = [line for line in table.collect(claim, tmp_path) if line["metric"] != table.HOURS]
    assert [(line["metric"], line["value"]) for line in lines] == [
        ("val/both", 2), ("val/both", 3), ("val/both", 4)
    ]  # fmt: skip
    assert lines[0]["count"] == 10


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
            begin(plan(claim, tmp_path, seeds=[seed], arms=[arm]))
            (folder / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    claim = replace(claim, metrics=["inter/equal_distance/straight_*"])
    c = next(c for c in table.summarise(table.collect(claim, tmp_path)) if c.difference)
    assert c.metric == "inter/equal_distance/straight_t20_alex" and c.arm == "with"
    assert c.base.mean == pytest.approx(0.32)
    assert c.difference.mean == pytest.approx(0.1) and c.difference.half == pytest.approx(0)


def test_tables_and_page_hold_every_arm(claim, tmp_path):
    write_runs(claim, tmp_path, HELPED)
    write_runs(claim, tmp_path, {"with": [1, 2, 3], "without": [1, 2, 4]}, "val/loss", "lower")
    claim = replace(claim, frontiers=[["val/loss", "val/top1"], ["val/top1", "nothing"]])
    lines = table.collect(claim, tmp_path)
    text = table.write(claim, lines, tmp_path)
    assert "| `val/top1` ↑ | without | 0.580 ± 0.199 |" in text and "| `val/loss` ↓ |" in text
    assert "with (to without)" in text
    assert [json.loads(x) for x in (tmp_path / "results.jsonl").read_text().splitlines()] == lines
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="chart plot"') == 1 and "Verdict: holds." in page
    assert (tmp_path / "table.md").read_text().startswith("# mine\n")
    share = [Goal("with", "val/top1", "share", at_least=1.0)]
    assert " share |" in table.to_markdown(replace(claim, goals=share), table.summarise(lines))


DRAWS = """import sys; from pathlib import Path; from PIL import Image
checkpoint, out = map(Path, sys.argv[1:])
Image.new("RGB", (4, 4)).save(f"{out}.png") if "with_" in str(out) else sys.exit(3)
"""


def test_each_arm_is_drawn_once_and_a_failure_is_told(claim, tmp_path, caplog):
    write_runs(claim, tmp_path, HELPED)
    for arm in claim.arms:
        (tmp_path / f"{arm}_1/last.ckpt").touch()
    (tmp_path / "draw.py").write_text(DRAWS)
    claim = replace(claim, picture=f"{tmp_path}/draw.py {{checkpoint}} {{out}}")
    lines = table.collect(claim, tmp_path)
    (figure,) = table.pictures(claim, lines, tmp_path)["Pictures"]
    assert [panel.title for panel in figure.panels] == ["with, seed 1"]
    assert f"no picture of {tmp_path}/without_1" in caplog.text
    drawn = (tmp_path / "with_1/picture.png").stat().st_mtime_ns
    table.pictures(claim, lines, tmp_path)
    assert (tmp_path / "with_1/picture.png").stat().st_mtime_ns == drawn

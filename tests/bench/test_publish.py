"""Published tables are those of the results files."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from gen.bench import jobs, publish
from gen.verbs import bench

CLAIM = """
question: Does it help?
config: configs/smooth_i2i/heads32_cpu.yaml
cost: 0.5
seeds: [1, 2, 3]
arms:
  without: {}
  with: {against: without}
evaluate: {data: heads}
metrics: [val/top1]
goals: [{arm: with, metric: val/top1, measure: difference, at_least: 0.0}]
smoke: {options: {trainer.max_steps: 1}}
"""
CARD = """# Card
<!-- results results/mine.jsonl: val/top1 = accuracy -->
old
<!-- end of results -->
Between.
<!-- results checkpoints/net.jsonl: a/x = first; a/y = second -->
<!-- end of results -->
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A repository with one claim, its runs, one shipped checkpoint and its card."""
    monkeypatch.chdir(tmp_path)
    for folder in ("configs/claims", "checkpoints", "runs/mine"):
        (tmp_path / folder).mkdir(parents=True)
    Path("configs/claims/mine.yaml").write_text(CLAIM)
    Path("README.md").write_text("# gen\n")
    Path("checkpoints/net.md").write_text(CARD)
    rows = [dict(metric="a/x", value=0.25, ci95=[0.2, 0.3]), dict(metric="a/y", value=3, ci95=None)]
    Path("checkpoints/net.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    write_results(3)
    return tmp_path


def write_results(seeds: int) -> None:
    lines = []
    for seed in range(seeds):
        for arm, value in (("without", 0.5 + seed / 10), ("with", 0.6 + seed / 10 + seed / 1e3)):
            line = dict(claim="mine", arm=arm, seed=seed, metric="val/top1", value=value)
            line |= dict(protocol="p", better="higher", count=5)
            lines.append(line | dict(metric="cost/core_hours", value=0.5))
            if arm == "with":
                line |= dict(against="without", base=0.5 + seed / 10)
            lines.append(line)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    Path("runs/mine/results.jsonl").write_text(text)


def test_results_are_taken_and_all_tables_written(house):
    changed = publish.publish(house / "runs")
    names = {"results/mine.jsonl", "RESULTS.md", "checkpoints/net.md"}
    assert {path.as_posix() for path in changed} == names
    page, card = Path("RESULTS.md").read_text(), Path("checkpoints/net.md").read_text()
    assert "| [mine](#mine) | Does it help? | holds | 6 | 3.0 |" in page
    assert "| `val/top1` ↑ | without | 0.600 ± 0.248 |" in page
    assert "old" not in card and "\nBetween.\n" in card
    assert "|  | without | with | with − without |\n" in card
    assert "| accuracy | 0.600 ± 0.248 | 0.701 ± 0.251 | 0.101 ± 0.002 |\n" in card
    assert "| first | 0.250 | 0.200 to 0.300 |\n| second | 3.000 |  |\n" in card
    assert publish.publish(house / "runs") == []  # nothing to do


def test_fewer_runs_than_published_are_refused(house):
    publish.publish(house / "runs")
    write_results(2)
    with pytest.raises(ValueError, match="at least the 6 runs of results/mine.jsonl, got 4"):
        publish.publish(house / "runs")


def test_a_table_of_what_does_not_exist_is_refused(house):
    publish.publish(house / "runs")
    Path("checkpoints/net.md").write_text(CARD.replace("a/x", "a/z"))
    with pytest.raises(ValueError, match=r"net.jsonl: expected its metrics, got \['a/z'\]"):
        publish.pages()
    Path("checkpoints/net.md").write_text(CARD.replace("a/x = first", "a/x"))
    with pytest.raises(ValueError, match="expected METRIC = title; .., got a/x"):
        publish.pages()


def test_only_a_clone_publishes(house):
    Path("README.md").unlink()
    with pytest.raises(ValueError, match="expected to run in a clone"):
        publish.publish(house / "runs")


def test_a_claim_without_results_is_listed(house):
    shutil.rmtree("runs/mine")
    Path("checkpoints/net.md").unlink()
    publish.publish(house / "runs")
    assert "| mine | Does it help? | not run yet | 0 | |" in Path("RESULTS.md").read_text()


def test_published_pages_are_those_of_the_results_files(monkeypatch):
    """If this fails, a results file or a claim was changed: run `gen bench --publish`."""
    monkeypatch.chdir(ROOT)
    for path, text in publish.pages().items():
        assert path.read_text() == text, f"{path}: run `gen bench --publish`"


def test_seeds_that_are_published_are_not_run_again(house, monkeypatch, capsys):
    """A claim grows over several machines: a second one has no folder of the first one's runs."""
    trained = []

    def work(runs, *_):
        for run in runs:
            trained.append(run.name)
            row = dict(metric="val/top1", value=0.5 + run.seed / 10, protocol="p", count=5)
            row |= dict(better="higher", values={})
            (run.folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
        return 0

    monkeypatch.setattr(bench, "work", work)
    monkeypatch.setattr(jobs, "prepare_data", lambda claim: 0)
    shutil.copytree(ROOT / "configs/smooth_i2i", "configs/smooth_i2i")

    def run(*words):
        trained.clear()
        with pytest.raises(SystemExit) as end:
            bench.main(["mine", *words])
        assert not end.value.code
        return [*trained]

    assert run("--seeds", "1", "2") == ["without_1", "with_1", "without_2", "with_2"]
    publish.publish(Path("runs/bench"))
    shutil.rmtree("runs/bench")
    assert "mine                        4 of 6" in jobs.listing(Path("runs/bench"))
    assert run() == ["without_3", "with_3"] and "has seeds 1 2" in capsys.readouterr().out
    lines = Path("runs/bench/mine/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1, 1, 2, 2, 3, 3] * 2
    publish.publish(Path("runs/bench"))
    assert "| 6 | " in Path("RESULTS.md").read_text()
    shutil.rmtree("runs/bench")
    assert run() == []  # all is published: nothing is trained, the table is written
    assert run("--out", "runs/elsewhere") != []  # elsewhere is another experiment
    claim = Path("configs/claims/mine.yaml")
    claim.write_text(CLAIM.replace("with: {against", "with: {options: {model.lr: 1}, against"))
    assert run("--seeds", "1") == ["without_1", "with_1"]  # another question: run anew

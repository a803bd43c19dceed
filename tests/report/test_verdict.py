"""The verdict of a report says what values mean beside doing nothing, whatever a model scores."""

import json

import pytest

from conftest import ROOT
from gen.report.page import metrics_table, write_report
from gen.report.verdict import TRIALS, verdict


def row(metric, value, ci95=None, better="lower"):
    return dict(metric=metric, value=value, ci95=ci95, better=better, protocol="p", count=3)


@pytest.mark.parametrize(
    "value, ci95, better, expected",
    [
        (5.0, [4.0, 6.0], "lower", "better"),
        (12.0, [10.5, 13.0], "lower", "worse"),
        (9.0, [8.0, 11.0], "lower", "unclear"),
        (12.0, [10.5, 13.0], "higher", "better"),
        (5.0, [4.0, 6.0], "higher", "worse"),
        (9.0, None, "lower", "better"),
        (10.0, None, "lower", "unclear"),
    ],
)
def test_a_value_is_better_if_its_interval_is(value, ci95, better, expected):
    rows = [row("user/fde_px", value, ci95, better), row("still/fde_px", 10.0, better=better)]
    [(judgement, text)] = verdict(rows)
    assert judgement == expected and f"{value:.3g}" in text and "nothing that moves, 10" in text


def test_without_a_baseline_nothing_is_said():
    assert verdict([row("user/fde_px", 1.0)]) == verdict([]) == []
    assert verdict([row("user/fde_px", 1.0, better="none"), row("still/fde_px", 2.0)]) == []


def test_it_begins_with_smoothness_that_means_nothing():
    rows = [
        row("latent/paired_lpips_alex", 0.1),
        row("source/paired_lpips_alex", 0.2),
        row("intra/latent/direct_t20_alex", 0.01),
        row("inter/latent/direct_t20_alex", 0.2),
        row("inter/source/direct_t20_alex", 0.0),  # controls are judged by nobody
        row("inter/dissolve/direct_t20_alex", 0.01),
    ]
    (first, text), (second, _) = verdict(rows)
    assert text.startswith("Smoothness means nothing here: outputs hardly differ.")
    assert text.endswith(": intra/latent 0.0100.") and (first, second) == ("worse", "better")


def test_it_is_not_said_twice(tmp_path):
    rows = [row("intra/latent/direct_t20_alex", 0.01)]
    page = write_report(
        tmp_path / "a.html", title="x", metrics=metrics_table(rows), verdict=verdict(rows)
    ).read_text()
    assert page.count("Smoothness means nothing") == 1


def test_means_are_judged_not_pairs_of_domains():
    rows = [
        row("fidelity/latent/kd_net_10x/a>b", 9.0), row("fidelity/latent/kd_net_10x", 0.1),
        row("fidelity/source/kd_net", 0.04), row("fidelity/real/kd_net", 0.013),
    ]  # fmt: skip
    [(judgement, text)] = verdict(rows)
    assert judgement == "worse" and "0.1, no better" in text and "(real data: 0.013)" in text


def test_the_names_are_those_of_our_evaluations():
    """Every value that a shipped file of results has, and whose baseline it has, is judged."""
    files = sorted((ROOT / "checkpoints").glob("*.jsonl"))
    rows = [[json.loads(line) for line in file.open()] for file in files]
    judged = " ".join(text for some in rows for _, text in verdict(some))
    seen = {trial.what for trial in TRIALS if trial.what in judged}
    assert len(seen) >= 6
    assert "Reactions to a removed object, error, px: 6.58, better than no reaction, 9.99" in judged


def test_a_page_opens_with_it_as_text(tmp_path):
    rows = [row("user/fde_px", 5.0, [4.0, 6.0]), row("still/fde_px", 10.0)]
    page = write_report(
        tmp_path / "a.html", title="<x>", metrics=metrics_table(rows, ()), verdict=verdict(rows),
        sections={"Pictures": []},
    ).read_text()  # fmt: skip
    assert page.index("<h2>Verdict</h2>") < page.index("<h2>Pictures</h2>")
    assert '<li class="better"><span aria-hidden="true">✓</span>Objects that nobody drags' in page

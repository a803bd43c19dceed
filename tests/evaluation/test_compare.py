"""Comparing models: paired by source, with intervals and a test, on a page of their own."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import gen
import gen.data
from gen.evaluation.compare import compare
from gen.report.comparison import to_table, to_text
from toys import Images, Translator

SCRIPT = Path("scripts/compare.py").resolve()
PROTOCOL = "10 outputs a source"


def row(metric, values):
    units = dict(enumerate(values)) if not isinstance(values, dict) else values
    return dict(metric=metric, protocol=PROTOCOL, values=units)


def test_differences_are_paired_by_source():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 40)  # sources differ far more than models do
    a, b = hard, hard + 0.1 + rng.normal(0, 0.05, 40)
    (found,) = compare([[row("ps", a)], [row("ps", b)]])
    (d,) = found.differences
    assert found.count == 40 and found.values == pytest.approx([a.mean(), b.mean()])
    assert d.mean == pytest.approx((b - a).mean())
    assert 0.05 < d.low < d.mean < d.high < 0.15 and d.p < 1e-6
    unpaired = [row("ps", dict(enumerate(b[::-1])))]
    assert compare([[row("ps", a)], unpaired])[0].differences[0].p > 0.1


def test_only_common_sources_and_metrics_of_one_protocol_are_compared():
    first = [row("ps", {1: 0.1, 2: 0.2, 3: 0.3}), row("pir", [1, 2]), row("single", {0: 1.0})]
    second = [row("ps", {2: 0.4, 3: 0.5, 9: 9.0}), row("single", {0: 2.0})]
    (found,) = compare([first, second])
    assert (found.metric, found.count) == ("ps", 2)
    assert found.values == pytest.approx([0.25, 0.45])
    with pytest.raises(ValueError, match="expected metrics in common, got none"):
        compare([first, [second[0] | {"protocol": "another"}]])
    with pytest.raises(ValueError, match="at least 2 runs, got 1"):
        compare([first])


def curve(scale, worth, count=12, psis=(0.5, 1, 2)):
    """Rows of a model: distances grow with psi squared, values fall with the distance."""
    rows, rng = [], np.random.default_rng(0)
    far = rng.uniform(0.1, 0.2, count) * scale
    for psi in psis:
        of = "latent" if psi == 1 else f"latent_psi{psi:g}"
        direct = far * psi**2
        rows += [row(f"inter/{of}/direct_t20_alex", direct)]
        rows += [row(f"inter/{of}/straight_t20_alex", worth - direct**0.5)]
    return rows


def at_equal(found):
    return {c.metric: c for c in found if "equal_distance" in c.metric}


def test_models_are_compared_at_equal_distance_and_not_at_their_own():
    """One is better at each distance, but goes twice as far, where all are worse."""
    timid, better = curve(0.5, 0.9), curve(2.0, 1.0)
    found = compare([timid, better])
    (own,) = [c for c in found if c.metric == "inter/latent/straight_t20_alex"]
    assert own.differences[0].high < 0  # at its own distance it seems to be worse
    equal = at_equal(found)
    (d,) = equal["inter/equal_distance/straight_t20_alex"].differences
    assert d[:3] == pytest.approx((0.1, 0.1, 0.1)) and d.p < 0.01
    far = equal["inter/equal_distance/direct_t20_alex"]
    assert far.differences[0].mean == pytest.approx(0)
    assert far.count == 12 and far.values[0] == pytest.approx(far.values[1])


def test_sources_without_a_common_distance_are_left_out_and_told(caplog):
    near, far = curve(0.1, 1), curve(10, 1)
    assert not at_equal(compare([near, far]))
    assert "12 of 12 sources have no distance that all models travel" in caplog.text
    for of in far:  # but for two
        for unit in (3, 7):
            of["values"][unit] = next(r for r in near if r["metric"] == of["metric"])["values"][
                unit
            ]
    found = at_equal(compare([near, far]))["inter/equal_distance/straight_t20_alex"]
    assert found.count == 2 and found.differences[0].mean == pytest.approx(0)


def test_equal_distance_is_of_one_protocol():
    other = [r | {"protocol": "another"} if "psi2" in r["metric"] else r for r in curve(1, 1)]
    assert at_equal(compare([curve(1, 1), curve(1, 1)]))
    assert not at_equal(compare([curve(1, 1), other]))


def test_without_several_psi_nothing_is_said_of_equal_distance(caplog):
    assert not at_equal(compare([curve(1, 1, psis=(1,)), curve(2, 1, psis=(1,))]))
    assert not caplog.records


def test_equal_models_do_not_differ():
    rows = [row("ps", [0.1, 0.2, 0.3])]
    (found,) = compare([rows, rows, rows])
    assert [tuple(d) for d in found.differences] == [(0, 0, 0, 1)] * 2
    table = to_table([found], ["a", "b", "c"])
    assert table.heads[:3] == ["a", "b", "c"] and table.heads[3] == "b − a"
    assert all(len(cells) == len(table.heads) for _, _, _, cells in table.lines)
    assert to_text(table).splitlines()[1].startswith("ps  ")


def test_controls_that_all_models_share_are_columns():
    def run(scale):
        values = [0.1 * scale, 0.2 * scale]
        names = "latent/paired_l1", "inter/latent/ps", "inter/dissolve/ps"
        return [row("source/paired_l1", [0.5, 0.7]), *(row(name, values) for name in names)]

    table = to_table(compare([run(1), run(2)]), ["a", "b"])
    assert table.heads[-2:] == ["source unchanged", "n"]
    cells = {metric: cells[-2] for metric, _, _, cells in table.lines}
    assert cells == {
        "latent/paired_l1": "0.6000", "inter/latent/ps": "", "inter/dissolve/ps": ""
    }  # fmt: skip
    assert "source unchanged" in to_text(table).splitlines()[0]


class Data:
    domains, train, val = Images.domains, Images(), Images()


def test_the_script_writes_a_page_with_both_on_the_same_sources(
    lpips_cache, tmp_path, monkeypatch, capsys
):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    spreads = {"a": 0.3, "b": 0.0}
    monkeypatch.setattr(gen, "load", lambda path, *_: Translator(spreads[path.stem]))
    monkeypatch.setattr(gen.data, "Domains", lambda *_, **__: Data)
    files = [str(tmp_path / f"{name}.safetensors") for name in spreads]
    options = ["--metrics", "translation", "--max-sources", "4", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["compare", *files, "--data", "x", *options])
    runpy.run_path("scripts/compare.py", run_name="__main__")
    page = (tmp_path / "out" / "compare.html").read_text()
    for text in ("b − a", "diversity_k10_alex", "Guided by references"):
        assert text in page
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(tmp_path / "out" / "compare.html")
    (line,) = [line for line in printed.splitlines() if line.startswith("latent/diversity")]
    assert float(line.split()[1]) > float(line.split()[2]) == 0
    before = (tmp_path / "out" / "a.values.jsonl").read_bytes()
    runpy.run_path("scripts/compare.py", run_name="__main__")  # nothing is measured again
    assert (tmp_path / "out" / "a.values.jsonl").read_bytes() == before
    monkeypatch.setattr(sys, "argv", ["compare", files[0], files[0], "--data", "x"])
    with pytest.raises(SystemExit):
        runpy.run_path("scripts/compare.py", run_name="__main__")
    assert "2 runs with different names" in capsys.readouterr().err


def test_the_last_checkpoints_of_two_runs_are_compared(tmp_path, monkeypatch, capsys):
    """Given as files, not as folders; two runs of one name are refused, with the way out."""
    monkeypatch.chdir(tmp_path)
    loaded = []

    def load(path, *_):
        loaded.append(str(path))
        raise ValueError("names are known")

    monkeypatch.setattr(gen, "load", load)
    for paths, told in [
        (["a/last.ckpt", "b/last.ckpt"], "names are known"),
        (["a/best.ckpt", "a/last.ckpt"], "names are known"),
        (["x/a/last.ckpt", "y/a/last.ckpt"], "2 runs with different names, got .*; give others"),
    ]:
        monkeypatch.setattr(sys, "argv", ["compare", *paths, "--data", "x"])
        with pytest.raises((ValueError, SystemExit)) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert re.search(told, f"{end.value} {capsys.readouterr().err}")
    assert loaded == ["a/last.ckpt", "a/best.ckpt"]

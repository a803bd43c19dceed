"""scripts/benchmark.py at tiny widths: its table is whole and its numbers fit together."""

import pytest

from gen.methods import DomainClassifier
from runs import CLASSIFIER, ship
from timing import benchmark

TINY = ["--img-size", "32", "--base-channels", "4", "--max-channels", "8", "--device", "cpu"]


def test_train_beside_the_literal_step():
    rows = benchmark("train", "--method", "StarGAN", "--vs", "literal", "--iterations", "2", *TINY)
    sides = ["literal, fp32", "ours, fp32", "ours, bf16, R1 every 16, one D step"]
    assert [row["side"] for row in rows] == sides
    for row in rows:
        assert row["q1"] <= row["s/it"] <= row["q3"]
        assert row["images/s"] == pytest.approx(4 / row["s/it"])
        assert min(row[phase] for phase in ("D", "G latent", "G ref", "update")) > 0
        assert 100 < row["peak MB"] < 10_000
        assert row["memory x"] == pytest.approx(row["peak MB"] / rows[0]["peak MB"])
    assert rows[0]["time x"] == rows[0]["memory x"] == 1


def test_train_with_options_beside_without():
    options = ["rgb_norm=false", "lambda_other=0.5"]
    args = ["train", "--method", "StarGAN", "--iterations", "1", *TINY]
    rows = benchmark(*args, "--vs", "plain", "--option", *options)
    assert [row["side"] for row in rows] == [
        "ours, fp32",
        "ours, fp32, rgb_norm=false, lambda_other=0.5",
    ]
    assert rows[0]["time x"] == 1 and rows[1]["time x"] > 0


def test_data():
    (row,) = benchmark("data", "--data", "heads", "--workers", "0", "--batches", "2")
    assert row["workers"] == 0 and row["images/s"] > 1


def test_scoring(lpips_cache):
    rows = benchmark("scoring", "--sources", "1", *TINY)
    assert [row["scored"] for row in rows] == ["path", "translation"]
    for row in rows:
        assert row["ratio"] > 1 and row["largest_difference"] < 1e-4


def test_entropy_is_faster_on_noise_and_on_maps_of_few_components():
    noise, smooth = benchmark("entropy", "--device", "cpu")
    assert smooth["components"] < 2.5 < 3.5 < noise["components"]
    assert noise["ratio"] > 4 and smooth["ratio"] > 2.5  # medians; 5.4 and 3.9 on an idle core


@pytest.mark.slow  # a compiler, too
def test_export(tmp_path):
    file = ship(DomainClassifier(**CLASSIFIER), tmp_path / "judge.safetensors", ["a", "b"])
    rows = benchmark("export", str(file), "--rounds", "3")
    assert [(row["graph"], row["threads"]) for row in rows] == [("classify", 1), ("classify", 2)]
    assert all(row["eager ms"] > 0 and row["compiled x"] > 0 and row["onnx x"] > 0 for row in rows)


@pytest.mark.slow
def test_no_ratio_is_below_its_floor():
    rows = benchmark("floors")
    assert len(rows) >= 7 and all(row["holds"] for row in rows)
    assert all(row["ratio"] >= row["floor"] for row in rows)


def test_fir_is_faster_than_zeros_and_a_whole_convolution_and_than_axis_by_axis():
    rows = benchmark("fir", "--batch-size", "2", "--device", "cpu")
    assert {row["derivative"] for row in rows} == {1, 2} and len(rows) == 8
    for row in rows:
        assert row["largest_difference"] < 1e-5 and row["x literal"] > 1
        assert {"x literal last", "x separable"} <= set(row)

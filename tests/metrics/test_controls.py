"""Controls become columns: each value stands beside what real images or doing nothing score."""

import json

import pytest

from conftest import ROOT
from gen.evaluation.translators.names import CONTROLS, FLOORS
from gen.metrics.controls import beside

PS, KD = "ps_t20_alex", "kd_effnetlite0"


@pytest.mark.parametrize(
    "metric, expected",
    [
        ("latent/accuracy_x", {"real": "twin/accuracy_x", "source unchanged": "source/accuracy_x"}),
        ("reference/paired_best10_l1", {"nearest real": "nearest/paired_l1"}),
        ("fidelity/latent/kd_x_10x", {"real": "fidelity/real/kd_x_s200"}),
        ("inter/reference_psi0.5/ps", {"source unchanged": "inter/source/ps"}),
        ("middle/latent/kd_x", {"cross-dissolve": "middle/dissolve/kd_x"}),
        ("precision_x", {"real": "real/precision_x"}),
        ("edits/accuracy_cat", {"source unchanged": "unchanged/accuracy_cat"}),
        (
            "val/mass_on_object_voc",
            {
                "flat attention": "val/mass_on_object_flat_voc",
                "centred Gaussian": "val/mass_on_object_centre_voc",
                "untrained": "val/mass_on_object_untrained_voc",
            },
        ),
        ("val/jaccard_t60_keepvoid_voc", {"flat attention": "val/jaccard_whole_keepvoid_voc"}),
        ("val/norm_outliers", {"untrained": "val/norm_outliers_untrained"}),
        ("user_best5/psnr", {"nothing moves": "copy/psnr", "warp by true flow": "warp/psnr"}),
        (
            "user_previous/fde_px",
            {"nothing moves": "still/fde_px", "constant velocity": "velocity/fde_px"},
        ),
        ("removed/ghost", {"nothing moves": "copy_removed/ghost"}),
        ("refined/pixel", {"projector alone": "projected/pixel"}),
        ("user/found_px", {"real": "real/found_px"}),
    ],
)
def test_a_value_of_each_task_has_its_controls(metric, expected):
    found = beside([metric, *expected.values()])
    assert found.of == {metric: expected} and found.rows == {*expected.values()}
    assert found.columns == [*expected]
    assert beside([metric]) == ([], {}, set())  # not measured


def test_true_images_come_before_real_ones_of_the_domain():
    names = ["latent/accuracy_x", "real/accuracy_x", "twin/accuracy_x"]
    assert beside(names).of[names[0]] == {"real": "twin/accuracy_x"}
    assert beside(names[:2]).of[names[0]] == {"real": "real/accuracy_x"}


def test_a_dissolve_of_latent_frames_is_beside_these_alone():
    names = [f"inter/{g}/{PS}" for g in ("latent", "latent_psi2", "reference", "dissolve")]
    assert [*beside(names).of] == names[:1]


def test_every_control_of_translators_becomes_a_column():
    """A control that is added or renamed in the evaluator is noticed here."""
    for side in CONTROLS:
        assert beside([f"inter/latent/{PS}", f"inter/{side}/{PS}"]).rows, side
    for side in FLOORS:
        assert beside([f"fidelity/latent/{KD}_10x", f"fidelity/{side}/{KD}_s90"]).rows, side


def test_no_control_of_our_evaluations_is_left_as_a_row():
    sides = "source nearest twin still velocity copy warp copy_removed unchanged projected".split()
    for file in sorted((ROOT / "checkpoints").glob("*.jsonl")):
        names = [json.loads(line)["metric"] for line in file.open()]
        left = {*names} - beside(names).rows
        bad = [n for n in left if {*sides} & {*n.split("/")} or "_flat_a" in n or "_whole" in n]
        assert not bad, file

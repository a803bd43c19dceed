"""Each method's losses, on a fixed tiny run of one thread, stay what they were.

So nothing that should change no result changes one unseen. After a change that is meant to,
`PYTHONPATH=tests python tests/methods/test_watched.py` records the losses anew; say why in the
commit.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from runs import OPTIONS, edited_files, fit, losses, rows

RECORDED = Path(__file__).with_name("watched")
ITERATIONS = 8
FARTHEST = 1e-4  # of a loss, or of 1 where it is smaller: other processors round otherwise
STEADY = {  # at the usual rate Adam's first steps, signs of gradients near 0, part processors
    "StarGAN": dict(lr=1e-5, lr_mapping=1e-6),
    "SmoothI2I": dict(lr=2e-6, lr_mapping=2e-7),
}
BROKEN = {  # method -> a term of its loss, whose sign is turned
    "StarGAN": "gen.methods.stargan.l1",
    "SmoothI2I": "gen.methods.smooth_i2i.shrinkage",
    "StyleGAN2": "gen.methods.stylegan2.path_length",
    "StyleFunction": "gen.methods.style_function.neighbourhood",
    "LinearDirections": "torch.nn.functional.binary_cross_entropy_with_logits",
    "StepwiseEditor": "gen.methods.stepwise_editor.neighbourhood",
    "InversionEncoder": "gen.methods.inversion_encoder.weighted_sum",
    "DomainClassifier": "torch.nn.functional.cross_entropy",
    "AttributeClassifier": "torch.nn.functional.mse_loss",
    "SpatialEntropy": "gen.losses.spatial_entropy.spatial_entropy",
} | rows("BROKEN")


def watched(method: str, out: Path) -> list[dict[str, float]]:
    """All terms of the first and of the last iterations."""
    given = STEADY.get(method, {})
    if method in ("StyleFunction", "LinearDirections", "StepwiseEditor"):
        given = edited_files(out)
    if method == "InversionEncoder":
        given = {"generator": edited_files(out)["generator"]}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(method, out / "run", "--trainer.precision=32-true", steps=ITERATIONS, **given)
    finally:
        torch.set_num_threads(threads)
    logged = losses(out / "run")
    terms = [{k: float(v) for k, v in row.items() if v and k != "epoch"} for row in logged]
    return [terms[0], *terms[-2:]]


def recorded(method: str) -> list[dict[str, float]]:
    return json.loads((RECORDED / f"{method}.json").read_text())


def differing(got: list[dict[str, float]], wanted: list[dict[str, float]]) -> list[str]:
    found = []
    for a, b in zip(got, wanted, strict=True):
        found += [f"{b['step']:.0f}: terms {set(a) ^ set(b)}"] * (set(a) != set(b))
        for name in a.keys() & b.keys():
            if not abs(a[name] - b[name]) <= FARTHEST * max(1.0, abs(b[name])):
                found.append(f"{b['step']:.0f}: {name} {a[name]:.6g}, recorded {b[name]:.6g}")
    return found


@pytest.mark.parametrize("method", OPTIONS)
def test_the_losses_of_a_fixed_run_are_those_recorded(method, tmp_path):
    assert differing(watched(method, tmp_path), recorded(method)) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", BROKEN)
def test_a_turned_sign_is_noticed(method, tmp_path, monkeypatch):
    place, _, name = BROKEN[method].rpartition(".")
    whole = getattr(pytest.importorskip(place), name)
    monkeypatch.setattr(BROKEN[method], lambda *args, **kwargs: turned(whole(*args, **kwargs)))
    assert differing(watched(method, tmp_path), recorded(method))


def turned(value):
    """Minus a loss, also where it comes with something else."""
    return (-value[0], *value[1:]) if isinstance(value, tuple) else -value


def test_every_method_is_watched_and_broken():
    assert {path.stem for path in RECORDED.iterdir()} == set(BROKEN) == set(OPTIONS)


if __name__ == "__main__":
    for method in OPTIONS:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(watched(method, Path(folder)), indent=1)
        (RECORDED / f"{method}.json").write_text(text + "\n")

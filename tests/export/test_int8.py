"""Graphs in int8: kept where images stay what they were, and only there."""

import pytest
import torch
import torch.nn.functional as F

from gen.export import int8, runtimes
from gen.export.graph import Graph
from runs import ship

pytestmark = pytest.mark.usefixtures("lpips_cache")


class Steep(torch.nn.Module):
    """Images of squares, whose colours a large gain makes sensitive to small errors."""

    def __init__(self, gain: float):
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(64, 3 * 32 * 32, bias=False)
        self.gain = gain

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        squares = 8 * self.fc(z).view(-1, 3, 4, 4, 64).mean(-1)
        return F.interpolate((self.gain * squares).sin(), scale_factor=8.0)


def pictures(method, run, count):
    z = torch.randn(count, 64, generator=torch.Generator().manual_seed(0))
    return run("draw", {"z": z})["image"]


@pytest.mark.parametrize("gain, kept", [(1.0, True), (60.0, False)])
def test_a_graph_is_kept_where_its_images_stay(tmp_path, gain, kept):
    graph = Graph("draw", Steep(gain).eval(), {"z": "N 64"}, {"image": "N 3 32 32"},
                  lambda rng, n: {"z": torch.randn(n["N"], 64, generator=rng)})  # fmt: skip
    runtimes.save(graph, tmp_path / "draw.onnx", "onnx")
    (row,) = int8.write(None, pictures, [graph], tmp_path)
    assert row["graph"] == "draw" and row["kept"] is kept
    assert (row["LPIPS"] <= int8.MOST) is kept and row["size"] < 0.5
    assert (tmp_path / "draw.int8.onnx").exists() is kept
    if kept:
        run = runtimes.runner(graph, tmp_path / "draw.int8.onnx")
        assert 0 < runtimes.difference(graph, run) < 0.2


def test_a_classifier_has_no_images_to_compare(tmp_path):
    from gen.methods import DomainClassifier
    from gen.verbs.export import main
    from runs import CLASSIFIER

    file = ship(DomainClassifier(**CLASSIFIER), tmp_path / "judge.safetensors", ["a", "b"])
    with pytest.raises(SystemExit, match="expected a method that makes images, got DomainCl"):
        main([str(file), "--to", "onnx", "--int8", "--out", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()

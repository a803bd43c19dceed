"""The graph of Click to Move: what it gives is what the method gives, for any number of objects."""

import pytest
import torch

from gen.export import runtimes
from gen.export.animators import rasterise_at_once
from gen.methods import ClickToMove
from gen.networks.click_to_move.animator import Motion, Scene
from gen.ops.motion import nearness, object_masks, rasterise
from runs import OPTIONS


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    method = ClickToMove(**OPTIONS["ClickToMove"] | {"steps": 2}).eval().requires_grad_(False)
    torch.nn.init.normal_(method.ema.module["animator"].graph.last.weight, std=0.02)
    return method, *runtimes.cut(method)


def test_it_gives_what_the_method_gives(made):
    method, graph = made
    given = graph.random(N=2, M=3)
    scene = Scene(*(given[k] for k in Scene._fields[:5]), given["classes"], given["present"])
    motion = Motion(*(given[k] for k in Motion._fields))
    want = method.animate(scene, motion, given["z"], given["object_z"])
    got = graph.run(given)
    for value, name in zip(want, got, strict=True):
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=2e-5)
        shape = graph.outputs[name].replace("N", "2").replace("M", "3")
        assert [*map(int, shape.split())] == list(value.shape)


def test_objects_are_drawn_at_once_as_one_by_one(made):
    given = made[1].random(N=2, M=4)
    masks = object_masks(given["instance"], 4)
    order = nearness(given["boxes"], given["theta"])
    for depth in (order, torch.zeros_like(order)):  # of equals the last one is seen
        want = rasterise(masks, given["theta"], depth)
        got = rasterise_at_once(masks, given["theta"], depth)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_other_runtimes_give_the_same(made, tmp_path, to):
    _, graph = made
    path = tmp_path / f"animate{runtimes.SUFFIX[to]}"
    runtimes.save(graph, path, to)
    assert runtimes.difference(graph, runtimes.runner(graph, path, threads=1)) <= 1e-4

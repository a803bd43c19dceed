"""The graph of Click to Move: what it gives is what the method gives, for any number of objects."""

import re

import pytest
import torch
from torch import nn

from gen.export import runtimes
from gen.export.animators import FREE, PoolByProduct, carry_at_once, inputs, rasterise_at_once
from gen.inference import dragging, scenes
from gen.methods import ClickToMove
from gen.networks.click_to_move.animator import Motion, Scene
from gen.networks.click_to_move.layers import carry
from gen.ops.motion import nearness, object_masks, rasterise
from runs import OPTIONS


@pytest.fixture(scope="module", params=["warp", "layered"])
def made(request):
    torch.manual_seed(0)
    options = OPTIONS["ClickToMove"] | {"steps": 2, "generator": request.param}
    method = ClickToMove(**options).eval().requires_grad_(False)
    net = method.ema.module["animator"]
    torch.nn.init.normal_(net.graph.last.weight, std=0.02)
    if request.param == "layered":
        for last in (net.generator.follow, net.generator.way[-1], net.generator.repair[-1]):
            torch.nn.init.normal_(last.weight, std=0.02)
    return method, *runtimes.cut(method)


@pytest.mark.parametrize("number", [1, 2, 4])  # of the size of training, and of others
def test_it_gives_what_the_method_gives(made, number):
    method, graph = made
    assert [*graph.sizes(1)] == (list("NHWMT") if method.animator.layered and FREE else ["N", "M"])
    sizes = graph.sizes(number) | {"N": 2, "M": 3}
    given = graph.random(**sizes)
    scene = Scene(*(given[k] for k in Scene._fields[:5]), given["classes"], given["present"])
    motion = Motion(*(given[k] for k in Motion._fields[:4]))
    want = method.animate(scene, motion, given["z"], given["object_z"])
    got = graph.run(given)
    for value, name in zip(want, got, strict=True):
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=2e-5)
        words = re.findall(r"(\d*)([A-Z]?)(?: |$)", graph.outputs[name])
        shape = [int(k or 1) * sizes.get(letter, 1) for k, letter in words if k or letter]
        assert shape == list(value.shape)


def test_an_object_that_is_not_present_is_removed(made):
    method, graph = made
    given = graph.random(N=2, M=3)
    scene = Scene(*(given[k] for k in Scene._fields[:5]), given["classes"], given["present"])
    motion = Motion(*(given[k] for k in Motion._fields[:4]))
    all_there = graph.run(given)
    motion = motion._replace(removed=torch.tensor([[True, False, False], [False, False, True]]))
    want = method.animate(scene, motion, given["z"], given["object_z"])
    got = graph.run(given | {"present": motion.left(scene)})
    for value, name in zip(want, got, strict=True):
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=2e-5)
    assert (got["visible"] - all_there["visible"]).abs().max() > 1e-3


def test_inputs_of_a_request_leave_removed_objects_out(made):
    method, _ = made
    T, H, W = method.shape
    still = scenes.drawn(0, (H, W), T + 1)
    scene = dragging.scene(still.frame, still.semantic, still.instance)
    ids = scene.ids[0].tolist()
    motion = dragging.motion(dragging.Request(remove=(ids[1],)), scene, T)
    assert inputs(method, scene, motion)["present"].tolist() == [[id_ != ids[1] for id_ in ids]]


def test_objects_are_drawn_at_once_as_one_by_one(made):
    given = made[1].random(N=2, M=4)
    masks = object_masks(given["instance"], 4)
    order = nearness(given["boxes"], given["theta"])
    for depth in (order, torch.zeros_like(order)):  # of equals the last one is seen
        want = rasterise(masks, given["theta"], depth)
        got = rasterise_at_once(masks, given["theta"], depth)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)


def test_objects_are_carried_at_once_as_one_by_one(made):
    given = made[1].random(N=2, M=4)
    masks, frame = object_masks(given["instance"], 4), given["frame"]
    order, removed = nearness(given["boxes"], given["theta"]), torch.eye(4)[:2] > 0
    for depth, gone in ((order, None), (0 * order, None), (order[:, :, [2, 0, 1, 3]], removed)):
        want = carry(frame, frame.flip(3), masks, given["theta"], depth, gone)
        got = carry_at_once(frame, frame.flip(3), masks, given["theta"], depth, gone)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [(2, 4), (1, 2), (3, 7), (6, 10)])
def test_a_pool_by_product_gives_the_same(size):
    x = torch.randn(2, 3, *size)
    want = nn.AdaptiveAvgPool2d((2, 4))(x)
    torch.testing.assert_close(PoolByProduct((2, 4))(x), want)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_other_runtimes_give_the_same(made, tmp_path, to):
    _, graph = made
    path = tmp_path / f"animate{runtimes.SUFFIX[to]}"
    runtimes.save(graph, path, to)
    assert runtimes.difference(graph, runtimes.runner(graph, path, threads=1)) <= 1e-4

"""The generator of Click to Move in layers: what may change and what may not."""

import pytest
import torch
from torch import Tensor

from gen.networks.click_to_move.animator import Animator, Motion, Scene
from gen.networks.click_to_move.encoders import label_maps
from gen.networks.click_to_move.layers import (
    REACH,
    LayeredGenerator,
    carry,
    look,
    margin,
    spread,
)
from gen.ops.motion import affine_flow, warp

H, W, T = 32, 48, 3
PX = torch.tensor([2 / (W - 1), 2 / (H - 1)])  # one px, normalised
EYE = torch.eye(2, 3)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(random: bool = True) -> LayeredGenerator:
    """A small generator; with `random`, no layer is still zero."""
    torch.manual_seed(0)
    net = LayeredGenerator(4, inner=8, z_dim=6, steps=T, max_width=16, norm="group")
    for p in net.parameters() if random else ():
        torch.nn.init.normal_(p, std=0.2)
    return net.eval()


def squares(*corners: tuple[int, int, int]) -> Tensor:
    """Masks (1, M, H, W) of squares of top, left, side."""
    masks = torch.zeros(1, len(corners), H, W)
    for k, (top, left, side) in enumerate(corners):
        masks[0, k, top : top + side, left : left + side] = 1
    return masks


def moved(*shifts: tuple[float, float]) -> Tensor:
    """Backward motion (1, T, M, 2, 3) of objects that move by (x, y) px a frame."""
    theta = EYE.repeat(1, T, len(shifts), 1, 1)
    for t in range(T):
        for k, shift in enumerate(shifts):
            theta[0, t, k, :, 2] = -(t + 1) * torch.tensor(shift) * PX
    return theta


def rendered(net, masks, theta, camera=None, known=True, order=None, removed=None, frame=None):
    frame = noise(1, 3, H, W).clamp(-1, 1) if frame is None else frame
    labels = label_maps(torch.zeros(1, H, W, dtype=torch.int64), masks.argmax(1))
    camera = EYE.repeat(1, T, 1, 1) if camera is None else camera
    order = torch.zeros(theta.shape[:3]) if order is None else order
    with torch.no_grad():
        return frame, net(
            frame, labels, masks, theta, order, camera, torch.tensor([known]),
            noise(1, 6), noise(1, 8, 2, 3), removed,
        )  # fmt: skip


MASKS = squares((8, 10, 8), (20, 30, 6))


def test_what_does_not_move_is_the_frame_bit_for_bit():
    net = build()
    frame, made = rendered(net, MASKS, moved((0, 0), (0, 0)))
    assert torch.equal(made.video, frame[:, None].expand(1, T, 3, H, W))
    assert not made.flow.any()
    frame, made = rendered(net, MASKS, moved((2, 0), (0, 0)))
    same = (made.video == frame[:, None]).all(2)  # (1, T, H, W)
    far = 1 + REACH // 2  # a soft edge, and the window
    for t in range(T):
        near = torch.zeros(H, W, dtype=torch.bool)
        near[8 - far : 16 + far, 10 - far : 18 + far + 2 * (t + 1)] = True
        assert same[0, t][~near].all() and not same[0, t][near].all()
    _, free = rendered(net, MASKS, moved((0, 0), (0, 0)), known=False)
    assert not torch.equal(free.video, made.video)  # a camera that is not known may move


def test_an_object_carries_its_pixels_and_leaves_the_ground():
    net = build(random=False)
    masks, theta = squares((8, 10, 8)), moved((3, 1))
    frame, made = rendered(net, masks, theta)
    inner = frame[0, :, 9:15, 11:17]
    for t in range(T):
        x, y = 3 * (t + 1), t + 1
        torch.testing.assert_close(made.video[0, t, :, 9 + y : 15 + y, 11 + x : 17 + x], inner)
        there = torch.tensor([-x, -y])[:, None, None].float().expand(2, 6, 6)
        torch.testing.assert_close(made.flow[0, t, :, 9 + y : 15 + y, 11 + x : 17 + x], there)
    hole = made.video[0, -1, :, 9:15, 11:17]
    torch.testing.assert_close(hole, made.ground[0, :, 9:15, 11:17])
    assert (hole - inner).abs().mean() > 0.1
    assert (made.visible[0, -1, 0, 9:15, 11:17] < 0).all()
    assert (made.visible[0, -1, 0, :6] > 0).all()
    outside = torch.ones(H, W, dtype=torch.bool)
    outside[7:17, 9:19] = False
    assert torch.equal(made.ground[0][:, outside], frame[0][:, outside])


def test_a_removed_object_is_ground():
    net = build(random=False)
    removed = torch.tensor([[True, False]])
    frame, made = rendered(net, MASKS, moved((0, 0), (0, 0)), removed=removed)
    empty = made.ground[:, :, 8:16, 10:18].expand(T, 3, 8, 8)
    torch.testing.assert_close(made.video[0, :, :, 8:16, 10:18], empty)
    assert torch.equal(made.video[0, 0, :, 19:27, 29:37], frame[0, :, 19:27, 29:37])


def test_the_nearer_object_is_in_front():
    masks, theta = squares((8, 8, 8), (8, 24, 8)), moved((16 / T, 0), (0, 0))
    frame, ground = noise(1, 3, H, W), torch.zeros(1, 3, H, W)
    for nearer in (0, 1):
        order = torch.zeros(1, T, 2)
        order[..., nearer] = 1
        made = carry(frame, ground, masks, theta, order)
        left = 8 if nearer == 0 else 24
        got = made.colour[0, -1, :, 9:15, 25:31]
        torch.testing.assert_close(got, frame[0, :, 9:15, left + 1 : left + 7], atol=1e-5, rtol=0)


def test_layers_add_up_to_the_frame():
    frame, ground = noise(1, 3, H, W), noise(1, 3, H, W)
    ground[:, :, 7:17, 9:19] = noise(10, 10, seed=1)  # the hole: an object and 1 px around
    made = carry(frame, ground, squares((8, 10, 8)), moved((0, 0)), torch.zeros(1, T, 1))
    whole = made.colour + (1 - made.alpha) * ground[:, None]
    torch.testing.assert_close(whole, frame[:, None].expand(1, T, 3, H, W))
    assert not made.touched.any()


def test_holes_are_filled_with_what_is_near():
    x, open_ = noise(1, 3, 48, 32), torch.ones(1, 1, 48, 32)
    open_[:, :, 10:30, 5:20] = 0
    assert torch.equal(spread(x, torch.ones_like(open_)), x)
    flat = torch.full_like(x, 0.3).where(open_ > 0, 7.0)
    torch.testing.assert_close(spread(flat, open_), torch.full_like(x, 0.3))
    halves = torch.where(torch.arange(32) < 12, -1.0, 1.0).expand(1, 3, 48, 32)
    filled = spread(halves.where(open_ > 0, 7.0), open_)
    assert filled.abs().max() <= 1
    assert (filled[..., 15:25, 5] < -0.5).all() and (filled[..., 15:25, 19] > 0.5).all()
    nothing = spread(x, 0 * open_)
    assert torch.equal(nothing, torch.zeros_like(x))
    frame = 0.2 * torch.ones(1, 3, H, W)  # an untrained network fills with it
    frame[:, :, 8:16, 10:18] = -0.9
    _, made = rendered(build(random=False), squares((8, 10, 8)), moved((9, 0)), frame=frame)
    torch.testing.assert_close(made.ground, torch.full_like(frame, 0.2))


def test_the_camera_shows_the_margin():
    canvas, m = noise(1, 2, H + 32, W + 32), margin(H)
    flow = torch.zeros(1, 1, 2, H, W)
    assert m == 16 and torch.equal(look(canvas, flow, m)[:, 0], canvas[:, :, 16:-16, 16:-16])
    flow[:, :, 0], flow[:, :, 1] = 5, -3
    torch.testing.assert_close(look(canvas, flow, m)[:, 0], canvas[:, :, 13:-19, 21:-11])
    whole = torch.nn.functional.pad(flow[:, 0] + 0.25, (16,) * 4, "replicate")
    wanted = warp(canvas, whole)[:, :, 16:-16, 16:-16]
    torch.testing.assert_close(look(canvas, flow + 0.25, m)[:, 0], wanted)
    assert margin(128) == 32 and margin(48) == 16


def test_the_ground_follows_the_camera_each_place_by_its_share():
    camera = EYE.repeat(1, T, 1, 1)
    camera[..., 2] = torch.tensor([0.1, 0.02])
    camera[..., 0, 0] = camera[..., 1, 1] = 1.05
    follow = torch.ones(1, 2, H + 32, W + 32)
    flow = LayeredGenerator.ground_flow(follow, camera, 16, (H, W))
    torch.testing.assert_close(flow, affine_flow(camera, (H, W)))
    follow[:, 0] = 0.5  # half as far, but zoomed as much
    half = LayeredGenerator.ground_flow(follow, camera, 16, (H, W))
    shift = affine_flow(torch.cat([camera[..., :2] * 0 + EYE[:, :2], camera[..., 2:]], -1), (H, W))
    torch.testing.assert_close(half, flow - shift / 2)
    still = LayeredGenerator.ground_flow(follow, EYE.repeat(1, T, 1, 1), 16, (H, W))
    assert not still.any()
    follow.requires_grad_()
    LayeredGenerator.ground_flow(follow, camera, 16, (H, W)).sum().backward()
    assert (follow.grad != 0).any((2, 3)).all()


def scene(height: int, width: int) -> tuple[Scene, Motion]:
    instance = torch.zeros(1, height, width, dtype=torch.int64)
    instance[:, 8:16, 8:16] = 1
    boxes = torch.tensor([[[-0.5, -0.3, 0.2, 0.2]]])
    one = torch.ones(1, 1, dtype=torch.int64)
    what = Scene(
        noise(1, 3, height, width).tanh(), 0 * instance, instance, boxes, one, one, one > 0
    )
    theta = EYE.repeat(1, T, 1, 1, 1)
    return what, Motion(one > 0, theta, torch.tensor([True]), theta[:, :, 0])


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (64, 64), (80, 176)])
def test_any_sides_that_are_multiples_of_16_px(size):
    torch.manual_seed(0)
    sizes = dict(channels=4, levels=4, max_channels=16, norm="group", z_dim=8, object_z_dim=4)
    net = Animator(**sizes, generator="layered", graph_dim=8, feature_dim=6, steps=T).eval()
    what, motion = scene(*size)
    with torch.no_grad():
        made = net(what, motion, noise(1, 8), noise(1, 1, T, 4))
    assert made.video.shape == (1, T, 3, *size)
    assert torch.equal(made.video, what.frame[:, None].expand_as(made.video))


@pytest.mark.parametrize("size", [(40, 64), (16, 64)])
def test_other_sides_are_refused(size):
    net = Animator(
        4, 4, 16, "group", "layered", graph_dim=8, feature_dim=6, z_dim=8, object_z_dim=4
    )
    with pytest.raises(ValueError, match=f"multiples of 16 px, got {size[0]} x {size[1]}"):
        net.features(scene(*size)[0])

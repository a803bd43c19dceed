"""Warping, affine motion and coverage: the deterministic checks of the method's specification."""

import pytest
import torch

from gen.ops.motion import (
    about_centres,
    affine_flow,
    fit_camera,
    invert,
    move_boxes,
    nearness,
    object_masks,
    rasterise,
    resize_flow,
    splat_coverage,
    theta_from_boxes,
    warp,
    with_camera,
)

IDENTITY = torch.eye(2, 3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def constant(u: float, v: float, H: int, W: int) -> torch.Tensor:
    return torch.tensor([u, v]).view(1, 2, 1, 1).expand(1, 2, H, W)


@pytest.mark.parametrize("size, tolerance", [((128, 256), 0), ((33, 50), 3e-5)])
def test_no_flow_is_the_identity(size, tolerance):
    x = noise(2, 3, *size)
    assert (warp(x, torch.zeros(2, 2, *size)) - x).abs().max() <= tolerance


def test_a_ramp_shifts_by_the_flow():
    x = torch.arange(256.0).expand(1, 1, 128, 256)
    y = torch.arange(128.0)[:, None].expand(1, 1, 128, 256)
    shifted = warp(torch.cat([x, y], 1), constant(2.25, -3.5, 128, 256))
    torch.testing.assert_close(shifted[:, :1], (x + 2.25).clamp(max=255), atol=1e-4, rtol=0)
    torch.testing.assert_close(shifted[:, 1:], (y - 3.5).clamp(min=0), atol=1e-4, rtol=0)


def test_a_clip_is_its_frames_warped_one_by_one():
    x, flow = noise(2, 3, 8, 16), 3 * noise(2, 4, 2, 8, 16, seed=1)
    one_by_one = [warp(x, flow[:, t]) for t in range(4)]
    torch.testing.assert_close(warp(x, flow), torch.stack(one_by_one, 1))


def test_warp_refuses_a_flow_of_another_size():
    with pytest.raises(ValueError, match="expected 2 maps of the size of x"):
        warp(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 4, 8))


def test_a_resized_flow_is_in_its_own_pixels():
    small = resize_flow(constant(8.0, 4.0, 128, 256), (16, 32))
    torch.testing.assert_close(small, constant(1.0, 0.5, 16, 32))
    small = resize_flow(constant(8.0, 4.0, 128, 256)[:, None].expand(1, 3, 2, 128, 256), (128, 32))
    torch.testing.assert_close(small[:, 2], constant(1.0, 4.0, 128, 32))


def test_a_block_that_moves_leaves_its_holes():
    flow = torch.zeros(1, 2, 16, 32)
    flow[:, 0, 4:8, 8:12] = 4
    covered = splat_coverage(flow)
    holes = torch.zeros(1, 1, 16, 32, dtype=torch.bool)
    holes[..., 4:8, 8:12] = True
    assert torch.equal(covered == 0, holes) and holes.sum() == 16
    assert (covered[~holes] == 1).all()


def test_coverage_counts_parts_and_drops_what_leaves():
    covered = splat_coverage(constant(0.25, 0.0, 4, 8))
    assert (covered[..., 0] == 0.75).all() and (covered[..., 1:] == 1).all()
    assert (splat_coverage(constant(1e9, -1e9, 4, 8)) == 0).all()


def test_the_identity_moves_nothing():
    assert (affine_flow(IDENTITY, (128, 256)) == 0).all()
    back = invert(IDENTITY)
    assert (back == IDENTITY).all()


def test_boxes_give_the_motion_back():
    a = torch.tensor([-0.4, 0.2, 0.10, 0.20])  # grows by 25 % while it moves
    b = torch.tensor([-0.1, 0.3, 0.125, 0.25])
    boxes = torch.stack([a, b])[:, None]  # (2, 1, 4)
    theta = theta_from_boxes(boxes)  # (1, 1, 2, 3)
    torch.testing.assert_close(theta[0, 0] @ torch.tensor([-0.1, 0.3, 1.0]), a[:2])
    corner = torch.tensor([-0.1 + 0.125, 0.3 + 0.25, 1.0])
    torch.testing.assert_close(theta[0, 0] @ corner, a[:2] + a[2:])
    torch.testing.assert_close(move_boxes(boxes[0], theta), boxes[1:])
    torch.testing.assert_close(nearness(boxes[0], theta), torch.tensor([[0.55]]))
    torch.testing.assert_close(invert(invert(theta)), theta)


def test_flow_at_a_boxes_centre_leads_to_where_it_was():
    H, W = 33, 65  # centres on pixels
    first, later = torch.tensor([20.0, 10.0]), torch.tensor([44.0, 20.0])
    last = torch.tensor([W - 1.0, H - 1.0])
    boxes = torch.zeros(2, 1, 4)
    boxes[0, 0], boxes[1, 0] = (
        torch.cat([2 * c / last - 1, s]) for c, s in ((first, last / 200), (later, last / 150))
    )
    flow = affine_flow(theta_from_boxes(boxes)[0, 0], (H, W))[:, 20, 44]
    torch.testing.assert_close(flow, first - later, atol=1e-4, rtol=0)


@pytest.mark.parametrize("gone", [0, 1])
def test_absent_boxes_stay(gone):
    boxes = torch.tensor([[[0.1, 0.2, 0.3, 0.4]], [[0.2, 0.2, 0.3, 0.3]]])
    boxes[gone] = 0
    assert torch.equal(theta_from_boxes(boxes), IDENTITY.expand(1, 1, 2, 3))


def dragged(drag, steps: int, size: tuple, scale: float = 1.0, centre=(0.0, 0.0)) -> torch.Tensor:
    """(T, M, 2, 3) of objects at `centre`, dragged evenly by `drag` (M, 2) px as they grow."""
    last = torch.tensor(size[::-1]) - 1
    share = torch.arange(steps + 1)[:, None, None] / steps
    moved = torch.tensor(centre) + share * 2 * torch.tensor(drag) / last
    grown = (1 + (scale - 1) * share).expand_as(moved)
    return theta_from_boxes(torch.cat([moved, grown], -1))


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Two squares of 4 px: object 0 at columns 4..7, object 1 at 12..15; rows 4..7 of 16 x 32."""
    instance = torch.zeros(1, 16, 32, dtype=torch.int64)
    instance[:, 4:8, 4:8], instance[:, 4:8, 12:16] = 1, 2
    drag = [[8.0, 0.0], [0.0, 0.0], [9.0, 9.0]]  # object 0 comes to lie on object 1
    return object_masks(instance, 3), dragged(drag, 2, (16, 32))[None]


def test_objects_that_stay_have_no_flow():
    masks, theta = scene()
    flow, owner, visible = rasterise(masks, IDENTITY.expand_as(theta), torch.zeros(1, 2, 3))
    assert (flow == 0).all() and (visible == 1).all()
    assert torch.equal(owner[0, 1], masks[0, 0].long() + 2 * masks[0, 1].long())


@pytest.mark.parametrize("nearer", [0, 1])
def test_objects_that_move(nearer):
    masks, theta = scene()
    order = torch.tensor([1.0, 0.0, 9.0] if nearer == 0 else [0.0, 1.0, 9.0]).expand(1, 2, 3)
    flow, owner, visible = rasterise(masks, theta, order)
    expected = torch.zeros(2, 16, 32, dtype=torch.int64)
    expected[:, 4:8, 12:16] = 2
    expected[0, 4:8, 8:12], expected[1, 4:8, 12:16] = 1, nearer + 1
    assert torch.equal(owner[0], expected)
    u = torch.zeros(2, 16, 32)
    u[0, 4:8, 8:12], u[1, 4:8, 12:16] = -4, (-8 if nearer == 0 else 0)
    torch.testing.assert_close(flow[0, :, 0], u, atol=1e-5, rtol=0)
    assert (flow[0, :, 1] == 0).all()
    holes = torch.zeros(2, 1, 16, 32, dtype=torch.bool)
    holes[..., 4:8, 4:8] = True  # only where object 0 was: it went over object 1, which stayed
    assert torch.equal(visible[0] == 0, holes)


def test_equal_depth_is_settled_by_number():
    masks, theta = scene()
    owner = rasterise(masks, theta, torch.zeros(1, 2, 3))[1]
    assert (owner[0, 1, 4:8, 12:16] == 2).all()


def test_what_grows_has_no_holes_inside():
    masks = scene()[0][:, :1]
    theta = dragged([[0.0, 0.0]], 1, (16, 32), 2.5, (2 * 5.5 / 31 - 1, 2 * 5.5 / 15 - 1))
    _, owner, visible = rasterise(masks, theta[None], torch.zeros(1, 1, 1))
    assert (owner == 1).sum() >= 64 and (visible == 1).all()


def test_half_a_pixel_does_not_erode():
    masks, _ = scene()
    theta = dragged([[0.5, 0.0]] * 3, 1, (16, 32))
    owner = rasterise(masks, theta[None], torch.zeros(1, 1, 3))[1]
    assert (owner == 1).sum() >= 16


def test_samples_are_rasterised_apart_and_without_gradient():
    masks = (noise(3, 4, 16, 32) > 0.8).float()
    theta = (IDENTITY + 0.1 * noise(3, 2, 4, 2, 3, seed=1)).requires_grad_()
    order = noise(3, 2, 4, seed=2)
    whole = rasterise(masks, theta, order)
    for n in range(3):
        alone = rasterise(masks[n : n + 1], theta[n : n + 1], order[n : n + 1])
        for a, b in zip(whole, alone, strict=True):
            assert torch.equal(a[n : n + 1], b) and not a.requires_grad
    with pytest.raises(ValueError, match="expected theta"):
        rasterise(masks, theta[:, :, :3], order)


def test_no_object_at_all():
    flow, owner, visible = rasterise(
        torch.zeros(1, 0, 8, 8), torch.zeros(1, 2, 0, 2, 3), torch.zeros(1, 2, 0)
    )
    assert (flow == 0).all() and (owner == 0).all() and (visible == 1).all()


# ---- the camera ---------------------------------------------------------------------------------


def camera(zoom: float, dx: float, dy: float) -> torch.Tensor:
    """(N, T, 2, 3) of a drag of the background, over four frames of 33 x 50 px."""
    return dragged([[dx, dy]], 4, (33, 50), zoom)[None, :, 0]


def test_a_camera_is_found_in_its_flow():
    theta = camera(1.3, 5.0, -2.0)
    flow = affine_flow(theta, (33, 50))
    torch.testing.assert_close(fit_camera(flow, torch.ones(1, 4, 1, 33, 50)), theta)
    weight = (noise(1, 4, 1, 33, 50) > 0).float()  # pixels without weight do not count
    torch.testing.assert_close(fit_camera(flow + 100 * (1 - weight), weight), theta)
    still = fit_camera(flow, torch.zeros(1, 4, 1, 33, 50))
    torch.testing.assert_close(still, IDENTITY.expand_as(still), atol=0, rtol=0)


def test_the_middle_of_the_image_goes_where_the_camera_is_dragged():
    flow = affine_flow(camera(2.0, 6.0, -4.0), (33, 50))[0, -1]
    x, y = 24.5 + 6.0, 16.0 - 4.0  # where the middle is in the last frame
    at = flow[:, int(y), int(x) : int(x) + 2].mean(1)
    torch.testing.assert_close(at, torch.tensor([-6.0, 4.0]))


def test_the_camera_moves_what_no_object_covers():
    masks = torch.zeros(1, 1, 33, 50)
    masks[..., 10:20, 10:20] = 1
    theta = IDENTITY.expand(1, 4, 1, 2, 3)
    parts = rasterise(masks, theta, torch.zeros(1, 4, 1))
    way = camera(1.0, 8.0, 0.0)
    flow, visible = with_camera(*parts, masks, way, torch.tensor([True]))
    assert (flow[0, -1, :, 10:20, 10:20] == 0).all()  # a pinned object
    outside = parts[1][0, -1] == 0
    torch.testing.assert_close(
        flow[0, -1, :, outside], affine_flow(way, (33, 50))[0, -1, :, outside], atol=0, rtol=0
    )
    hidden = torch.zeros(33, 50)
    hidden[:, :8] = 1  # from outside of frame 0
    hidden[10:20, 20:28] = 1  # was behind the object
    torch.testing.assert_close(visible[0, -1, 0], 1 - hidden, atol=0, rtol=0)
    same = with_camera(*parts, masks, way, torch.tensor([False]))
    assert torch.equal(same[0], parts[0]) and torch.equal(same[1], parts[2])


def test_motions_about_the_centres_of_objects():
    """Where the centre comes from, and nothing of that where it only grows."""
    rng = torch.Generator().manual_seed(0)
    theta = torch.eye(2, 3) + 0.2 * torch.randn(2, 3, 4, 2, 3, generator=rng)
    boxes = torch.rand(2, 4, 4, generator=rng) - 0.5
    c = boxes[:, None, :, :2]  # (N, 1, M, 2)
    came = (theta[..., :2] @ c[..., None])[..., 0] + theta[..., 2]
    about = about_centres(theta, boxes)
    torch.testing.assert_close(about[..., 2], came - c)
    assert torch.equal(about[..., :2], theta[..., :2])
    grown = theta_from_boxes(
        torch.stack([boxes.abs(), boxes.abs() * torch.tensor([1, 1, 2, 2])], 1)
    )
    torch.testing.assert_close(about_centres(grown, boxes.abs())[..., 2], torch.zeros(2, 1, 4, 2))
    assert grown[..., 2].abs().min() > 0

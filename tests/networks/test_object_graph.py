"""The object graph: who reaches whom, and what may not matter."""

import pytest
import torch

from gen.networks.click_to_move.object_graph import UNIT, ObjectGraph, centred, travel

IDENTITY = torch.eye(2, 3)
NAMES = ("boxes", "classes", "features", "present", "user", "theta", "latent")


def build(zero_head: bool = False, **options) -> ObjectGraph:
    torch.manual_seed(0)
    net = ObjectGraph(feature_dim=6, z_dim=5, dim=16, **options)
    if not zero_head:
        torch.nn.init.normal_(net.last.weight, std=0.05)
    return net


def scenes(N: int = 2, M: int = 5, T: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    """Scenes with object 0 the user's and the last one absent (if there is another)."""
    rng = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng)

    batch = {
        "boxes": torch.cat([noise(N, M, 2).tanh(), 0.2 * noise(N, M, 2).sigmoid()], 2),
        "classes": torch.randint(11, 19, (N, M), generator=rng),
        "features": noise(N, M, 6),
        "present": torch.ones(N, M, dtype=torch.bool),
        "user": torch.zeros(N, M, dtype=torch.bool),
        "theta": IDENTITY + 0.1 * noise(N, T, M, 2, 3),
        "latent": noise(N, M, T, 5),
    }
    batch["user"][:, 0] = True
    batch["present"][:, 1:][:, -1:] = False
    return batch


def changed(batch: dict, **values: torch.Tensor) -> dict:
    return batch | values


def taken(batch: dict, order: torch.Tensor) -> dict:
    """The objects in another order."""
    return {k: v[:, :, order] if k == "theta" else v[:, order] for k, v in batch.items()}


def test_at_first_all_stay_but_what_the_user_moves():
    batch = scenes()
    theta = build(zero_head=True)(**batch)
    assert torch.equal(theta[:, :, 1:], IDENTITY.expand(2, 3, 4, 2, 3))
    assert torch.equal(theta[:, :, 0], batch["theta"][:, :, 0])


@pytest.mark.parametrize("edges", [True, False])
def test_users_motion_comes_back_bit_by_bit_and_absent_objects_stay(edges):
    batch = scenes()
    batch["user"][1] = torch.tensor([False, True, True, False, True])
    theta = build(edges=edges)(**batch)
    kept = batch["user"] & batch["present"]
    for n in range(2):
        assert torch.equal(theta[n][:, kept[n]], batch["theta"][n][:, kept[n]])
        assert (theta[n][:, ~batch["present"][n]] == IDENTITY).all()
    others = batch["present"] & ~batch["user"]
    assert (theta.transpose(1, 2)[others] - IDENTITY).abs().amax((1, 2, 3)).min() > 1e-4


def test_order_of_objects_does_not_matter():
    net, batch = build(), scenes()
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(net(**taken(batch, order)), net(**batch)[:, :, order])


@pytest.mark.parametrize("training", [True, False])
def test_scenes_do_not_touch_each_other(training):
    net, batch, other = build().train(training), scenes(), scenes(seed=7)
    mixed = {k: torch.cat([batch[k][:1], other[k][1:]]) for k in NAMES}
    assert torch.equal(net(**mixed)[0], net(**batch)[0])
    assert not torch.equal(net(**mixed)[1], net(**batch)[1])


@pytest.mark.parametrize("what", ["theta", "latent"])
@pytest.mark.parametrize("edges", [True, False])
def test_motion_of_one_reaches_the_others_along_edges_alone(what, edges):
    """The user's motion of object 0, or the latent of object 1, reaches objects 2 and 3."""
    net, batch = build(edges=edges), scenes()
    value = batch[what].clone()
    if what == "theta":
        value[0, :, 0] += 0.1
    else:
        value[0, 1] += 1
    moved = (net(**changed(batch, **{what: value})) - net(**batch)).abs().amax((1, 3, 4))  # (N, M)
    assert (moved[1] == 0).all()
    if edges:
        assert (moved[0, [2, 3]] > 1e-6).all()
    else:
        assert (moved[0, [2, 3]] == 0).all()
    if what == "latent":
        assert moved[0, 1] > 1e-5 and moved[0, 0] == 0


def test_causes_come_before_effects():
    """What the user does at step 2 changes no motion of step 1."""
    net, batch = build(), scenes()
    later = batch["theta"].clone()
    later[:, 1:, 0] += 0.1
    a, b = net(**batch), net(**changed(batch, theta=later))
    assert torch.equal(a[:, 0], b[:, 0]) and not torch.equal(a[:, 1, 1:], b[:, 1, 1:])
    first = {"theta": batch["theta"][:, :2], "latent": batch["latent"][:, :, :2]}
    torch.testing.assert_close(net(**changed(batch, **first)), a[:, :2])


def test_what_is_not_to_be_read_is_not_read():
    net, batch = build(), scenes()
    theta, latent = batch["theta"].clone(), batch["latent"].clone()
    theta[:, :, 1:], latent[:, 0] = torch.nan, 1e9
    assert torch.equal(net(**changed(batch, theta=theta, latent=latent)), net(**batch))


def test_absent_objects_change_nothing():
    net, batch = build(), scenes()
    other = {k: v.clone() for k, v in batch.items()}
    for key in ("boxes", "features", "latent"):
        other[key][:, -1] = torch.nan
    other["classes"][:, -1], other["user"][:, -1], other["theta"][:, :, -1] = -1, True, 1e9
    a, b = net(**batch), net(**other)
    assert torch.equal(a, b)
    short = {k: v[:, :, :4] if k == "theta" else v[:, :4] for k, v in batch.items()}
    torch.testing.assert_close(net(**short), a[:, :, :4])  # another padding


@pytest.mark.parametrize("M, T", [(1, 1), (1, 5), (40, 5), (3, 12)])
@pytest.mark.parametrize("edges", [True, False])
def test_any_number_of_objects_and_steps(M, T, edges):
    theta = build(edges=edges)(**scenes(1, M, T))
    assert theta.shape == (1, T, M, 2, 3) and theta.isfinite().all()


def test_nobody_there():
    batch = scenes()
    batch["present"][:] = False
    assert torch.equal(build()(**batch), IDENTITY.expand(2, 3, 5, 2, 3))


def test_a_pinned_object_is_one_that_the_user_holds():
    net, batch = build(), scenes()
    batch["theta"][:, :, 0] = IDENTITY
    theta = net(**batch)
    assert (theta[:, :, 0] == IDENTITY).all()
    free = net(**changed(batch, user=torch.zeros_like(batch["user"])))
    assert not torch.equal(theta[:, :, 1], free[:, :, 1])


@pytest.mark.parametrize("edges", [True, False])
def test_all_parameters_learn(edges):
    net = build(edges=edges)
    net(**scenes()).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


def test_gradients_are_finite_at_the_corners():
    """Equal boxes on the same spot, motions that squeeze all to a point, one object alone."""
    for M in (1, 3):
        net, batch = build(), scenes(1, M)
        batch["boxes"][:] = 0
        batch["theta"][:] = 0
        out = net(**batch)
        out.sum().backward()
        assert out.isfinite().all() and all(p.grad.isfinite().all() for p in net.parameters())


def test_motion_is_about_the_centre_of_an_object():
    boxes = torch.tensor([[[0.5, -0.25, 0.1, 0.1]]])
    change = torch.tensor([[[0.2, 0.0, 0.0, 0.1, 0.3, -0.1]]])
    theta = centred(change, boxes)  # (1, 1, 2, 3)
    back = theta[0, 0] @ torch.tensor([0.5, -0.25, 1.0])
    torch.testing.assert_close(back, torch.tensor([0.5 + 0.3, -0.25 - 0.1]))
    torch.testing.assert_close(travel(theta[None], boxes)[0, 0, 0, :6], UNIT * change[0, 0])


def pushes(N: int, rng: torch.Generator) -> tuple[dict, torch.Tensor]:
    """Scenes of three in which what is right of object 0 moves as that does; and the truth."""
    side = torch.randint(0, 2, (N,), generator=rng) * 2 - 1
    boxes = torch.full((N, 3, 4), 0.1)
    boxes[..., :2] = 0
    boxes[:, 1, 0], boxes[:, 2, 0] = 0.3 * side, -0.3 * side
    moves = torch.stack([torch.ones(N), side == 1, side == -1], 1)  # (N, 3)
    truth = IDENTITY.repeat(N, 1, 3, 1, 1)
    truth[..., 2] = (0.1 * torch.randn(N, 1, 2, generator=rng) * moves[..., None])[:, None]
    user = torch.tensor([True, False, False]).expand(N, 3)
    batch = dict(boxes=boxes, classes=torch.full((N, 3), 13), features=torch.zeros(N, 3, 6))
    batch |= dict(present=torch.ones(N, 3, dtype=torch.bool), user=user, theta=truth)
    return batch | dict(latent=torch.zeros(N, 3, 1, 5)), truth


def test_it_learns_who_is_pushed():
    """Small motions, as of real objects, in few iterations: without UNIT nothing is learnt yet."""
    torch.manual_seed(0)
    net, rng = ObjectGraph(6, 5, dim=64), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)

    def errors(N: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch, truth = pushes(N, rng)
        return tuple((t - truth)[:, :, 1:].abs().mean() for t in (net(**batch), IDENTITY))

    for _ in range(40):
        optimizer.zero_grad()
        errors(32)[0].backward()
        optimizer.step()
    own, standstill = errors(128)
    assert own < 0.7 * standstill, (own, standstill)


def test_refuses_shapes_that_do_not_fit():
    batch = scenes()
    with pytest.raises(ValueError, match=r"expected theta \(N, T, M, 2, 3\) and latent"):
        build()(**changed(batch, latent=batch["latent"][:, :, :2]))
    with pytest.raises(ValueError, match="dim: expected a multiple of heads = 4, got 18"):
        ObjectGraph(dim=18)


def test_camera_moves_all_objects_where_it_is_known():
    net, batch = build(camera=True), scenes()
    camera = IDENTITY + 0.1 * torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(3))
    batch |= {"camera": camera, "known": torch.tensor([True, False])}
    theta = net(**batch)
    unknown = net(**changed(batch, known=torch.tensor([False, False])))
    other = net(**changed(batch, camera=camera + 0.1))
    assert torch.equal(theta[1], unknown[1]) and torch.equal(theta[1], other[1])
    free = batch["present"][0] & ~batch["user"][0]
    for changed_ in (unknown, other):
        assert (theta - changed_)[0][:, free].abs().amax((2, 3)).min() > 1e-5
        assert torch.equal(theta[0][:, ~free], changed_[0][:, ~free])
    without = {k: v for k, v in batch.items() if k not in ("camera", "known")}
    assert torch.equal(net(**without), unknown)
    deaf = build()
    assert torch.equal(deaf(**batch), deaf(**without))

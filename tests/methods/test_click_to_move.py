"""Click to Move: its step, what learns from what, what a user's motion does, runs of it."""

import copy
from functools import cache

import pytest
import torch
from torch.utils.data import default_collate

from ddp import run
from gen import load
from gen.checkpoint import export
from gen.data import Movers
from gen.data.movers import MoverClips
from gen.losses import motion as losses_of_motion
from gen.methods.click_to_move import ClickToMove
from gen.networks.click_to_move.animator import Animator, Motion, Scene, true_camera
from gen.ops.motion import move_boxes, rasterise
from harness import bare
from rows_click_to_move import CLICK_TO_MOVE
from runs import cut_run, differences, fit, losses, read, ship

NAME, FIRST, MORE = "ClickToMove", 3, 4
CLIPS = MoverClips(777, 0, 8, 32, 64, frames=4, max_objects=4)
EVERY = {
    *("g/flow", "g/visible", "g/warped", "g/smooth", "g/kl_stuff", "g/kl_things", "g/rec"),
    *("g/ssim", "g/perceptual", "g/translation", "g/scale", "g/rotation"),
    *("g/gan_image", "g/fm_image", "g/gan_video", "g/fm_video"),
    *("d/real_image", "d/fake_image", "d/real_video", "d/fake_video"),
}
LAMBDAS = {name: 0.0 for name in ClickToMove(**CLICK_TO_MOVE).hparams if name[:7] == "lambda_"}


def distance(x, y):
    return (x - y).square().mean((1, 2, 3))


def method(**options):
    made = bare(ClickToMove)(**CLICK_TO_MOVE | options)
    made._lpips = (distance,)
    made.backward = []  # parameters that each backward reached, and how much

    def manual_backward(loss):
        loss.backward()
        grads = {n: p.grad for n, p in made.named_parameters() if p.grad is not None}
        made.backward.append({n: g.abs().max().item() for n, g in grads.items()})

    made.manual_backward = manual_backward
    return made


def everything(**options):
    return method(**dict(lambda_perceptual=1.0, lambda_smooth=1.0) | options)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Such small networks are faster so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def clips(n=2):
    return default_collate([CLIPS[i] for i in range(n)])


def known(batch, users="all", camera=False):
    """The true motion, as a user's."""
    scene = Scene.of(batch)
    user = scene.present if users == "all" else torch.zeros_like(scene.present)
    if users == "one":
        user = user.clone()
        user[:, 0] = scene.present[:, 0]
    N, T = batch["theta"].shape[:2]
    still = torch.eye(2, 3).expand(N, T, 2, 3)
    return Motion(user, batch["theta"], torch.full((N,), camera), still)


# ---- the step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", ["warp", "spade", "layered"])
@pytest.mark.parametrize("edges", [True, False])
def test_every_parameter_learns_and_every_term_is_logged(generator, edges):
    made = everything(generator=generator, edges=edges)
    reached = {}
    for made.global_step in range(3):  # the last layer of the graph is zero before the first
        made.training_step(clips())
        for grads in made.backward:
            reached |= {name: max(value, reached.get(name, 0)) for name, value in grads.items()}
    wanted = {name for name, p in made.named_parameters() if p.requires_grad}
    assert {name for name, value in reached.items() if value > 0} == wanted
    assert set(made.terms) == EVERY and all(v.isfinite() for v in made.terms.values())
    assert not (made.animator.graph.attention is None) == edges


def test_each_step_reaches_what_it_trains_alone():
    made = everything()
    made.training_step(clips())
    image, video, rest = made.backward
    assert {n.split(".")[1] for n in image} == {"image"}
    assert {n.split(".")[1] for n in video} == {"video"}
    assert {n.split(".")[0] for n in rest} == {"animator"}
    assert all(p.grad is None and p.requires_grad for p in made.discriminators.parameters())


def test_discriminators_step_from_real_and_detached_frames():
    """Their gradients are those of their own losses alone, of all samples."""
    made, twin = everything(), everything(lambda_fm_image=0.0, lambda_fm_video=0.0)
    made.training_step(clips())
    twin.training_step(clips())
    assert made.backward[:2] == twin.backward[:2]
    other = copy.deepcopy(clips())
    other["video"][0] = other["video"][0].flip(-1)  # not the last sample of the batch
    third = everything()
    third.training_step(other)
    assert third.terms["d/real_image"] != made.terms["d/real_image"]


def test_weight_zero_is_not_computed():
    made = method(**LAMBDAS, camera=0.0, mix=0.0)
    made.hparams.lambda_rec = 1.0
    made._lpips = ()
    for judge in made.discriminators.values():
        judge.forward = lambda *_: pytest.fail("computed")
    made.training_step(clips())
    assert set(made.terms) == {"g/rec"} and len(made.optimizers()) == 2
    assert made.animator.camera is None
    for name in ("kl", "flow", "perceptual", "gan_video", "fm_image"):
        made = everything(**{f"lambda_{name}": 0.0})
        made.training_step(clips())
        gone = {"kl": {"g/kl_stuff", "g/kl_things"}}.get(name, {f"g/{name}"})
        if name == "gan_video":
            gone |= {"g/fm_video", "d/real_video", "d/fake_video"}
        assert EVERY - set(made.terms) == gone


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_mixed_clips_are_rendered_with_predicted_motion(mix):
    made, batch, seen = method(mix=mix), clips(), []
    render = made.animator.render
    made.animator.render = lambda *given: seen.append(given[3]) or render(*given)
    user = made.draws(batch)[1].user[:, None, :, None, None]
    made.training_step(batch)
    first = batch["theta"].where(user, torch.eye(2, 3))  # before training all others stay
    assert not torch.equal(first, batch["theta"])
    assert torch.equal(seen[0], first if mix else batch["theta"])


def test_objects_are_judged_about_their_centres():
    """One that grows where it is does not go."""
    made, batch = method(**LAMBDAS | dict(lambda_translation=1.0, lambda_scale=1.0)), clips()
    centre = batch["boxes"][:, :1, :, :2, None].expand(2, 3, 4, 2, 1)
    theta = torch.cat([2 * torch.eye(2).expand(2, 3, 4, 2, 2), -centre], -1)
    assert 0 < made.draws(batch)[1].user.sum() < batch["present"].sum()
    made.training_step(batch | {"theta": theta})
    assert made.terms["g/translation"] < 1e-5 and made.terms["g/scale"] > 1


def test_critics_see_real_frames_of_the_times_of_the_made_ones():
    made, seen = everything(), {"image": [], "video": []}
    for name, calls in seen.items():
        critic = made.discriminators[name]
        critic.register_forward_pre_hook(lambda _, given, calls=calls: calls.append(given[0]))
    made.training_step(clips())
    video = clips()["video"]
    for name, real in (("image", video[:, 1:]), ("video", video)):
        assert [x.shape == real.shape and torch.equal(x, real) for x in seen[name]] == (
            [True, False, False, True]  # its own step, and that of the others
        )


def test_each_part_has_its_own_rate():
    made = method(lr=1.0, lr_graph=2.0, lr_d=3.0)
    names = {id(p): name.split(".")[1] for name, p in made.named_parameters()}
    groups = [group for optimizer in made.optimizers() for group in optimizer.param_groups]
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rates == dict.fromkeys(rates, 1.0) | dict(graph=2.0, image=3.0, video=3.0)


def test_nothing_is_rendered_where_motion_alone_is_judged():
    made = method(**LAMBDAS, mix=0.0)
    made.hparams.lambda_translation = made.hparams.lambda_scale = 1.0
    for name in ("encode", "render"):
        setattr(made.animator, name, lambda *_: pytest.fail("computed"))
    made.training_step(clips())
    assert set(made.terms) == {"g/translation", "g/scale"}
    assert {name.split(".")[1] for name in made.backward[0]} == {"appearance", "graph"}


def test_no_network_is_loaded_without_its_loss(monkeypatch):
    monkeypatch.setattr("gen.methods.click_to_move.LPIPS", lambda _: pytest.fail("loaded"))
    monkeypatch.setattr("gen.methods.base.GANMethod.on_fit_start", lambda _: None)
    made = ClickToMove(**CLICK_TO_MOVE)
    made.on_fit_start()
    assert made._lpips == ()


def test_the_network_of_its_loss_is_loaded_and_asked(monkeypatch):
    class Seven(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            assert net == "vgg"

        def forward(self, x, y):
            return 7 + 0 * distance(x, y)

    monkeypatch.setattr("gen.methods.click_to_move.LPIPS", Seven)
    monkeypatch.setattr("gen.methods.base.GANMethod.on_fit_start", lambda _: None)
    made = method(lambda_perceptual=1.0)
    made._lpips = ()
    made.on_fit_start()
    made.training_step(clips())
    assert made.terms["g/perceptual"] == 7


def test_overfits_four_clips():
    names = dict(lambda_gan_image=0.0, lambda_gan_video=0.0, lambda_kl=1.0)
    rates = dict(lr=4e-3, lr_graph=2e-3, camera=0.5, mix=0.0)
    made, batch, seen = method(**names | rates, channels=8, max_channels=16), clips(4), []
    for made.global_step in range(30):
        made.training_step(batch)
        seen.append({name: value.item() for name, value in made.terms.items()})
    first, last = (
        {k: sum(s[k] for s in part) / 5 for k in seen[0]} for part in (seen[:5], seen[-5:])
    )
    copied = (batch["video"][:, 1:] - batch["video"][:, :1]).abs().mean().item()
    assert last["g/warped"] < 0.9 * copied  # better than not to move
    for name, share in (("flow", 0.8), ("visible", 0.5), ("rec", 0.5), ("translation", 0.6)):
        assert last[f"g/{name}"] < share * first[f"g/{name}"], name


def test_users_are_any_number_of_what_is_there():
    made, counts = method(camera=0.25, mix=0.5, mix_start=100), []
    batch = {k: v.repeat_interleave(64, 0) for k, v in clips().items()}
    batch["present"] = batch["present"].clone()
    batch["present"][:, 3] = False
    shares = []
    for made.global_step in (0, 100):
        scene, motion, mixed, noise, object_z = made.draws(batch)
        shares.append(mixed.float().mean().item())
        assert not (motion.user & ~scene.present).any()
        counts.append(motion.user.sum(1))
        assert 0.1 < motion.known.float().mean() < 0.4
    there = scene.present.sum(1)
    assert shares[0] == 0 and 0.35 < shares[1] < 0.65
    for count in range(4):
        assert (counts[1] == count)[there == 3].float().mean() > 0.12
    assert noise.shape == (128, 8) and object_z.shape == (128, 4, 3, 4)


def test_a_step_draws_from_seed_and_iteration_alone():
    values = []
    for iteration, noise in ((1, 1), (1, 2), (2, 1)):
        made = method()
        torch.manual_seed(noise)
        made.global_step = iteration
        made.training_step(clips())
        values.append(made.terms["g/kl_stuff"].item() + made.terms["g/rec"].item())
    assert values[0] == values[1] != values[2]


def test_the_posteriors_weight_rises():
    made = method(lambda_kl=8.0, kl_iters=4)
    weights = []
    for made.global_step in range(6):
        weights.append(made.weights()["kl_stuff"])
    assert weights == [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]


def test_motion_is_in_full_precision_under_autocast():
    made, batch = method(), clips()
    scene, motion, _, _, object_z = made.draws(batch)
    exact = made.animator.predict(scene, made.animator.features(scene), motion, object_z)
    with torch.autocast("cpu", torch.bfloat16):
        features = made.animator.features(scene)
        assert features[0].dtype == torch.bfloat16
        theta = made.animator.predict(scene, features, motion, object_z)
        out = made.animator.render(scene, features, motion, batch["theta"], torch.randn(2, 8))
        made.training_step(batch)
    assert theta.dtype == out.boxes.dtype == torch.float32 == out.flow.dtype
    assert torch.equal(
        theta[motion.user[:, None].expand(theta.shape[:3])],
        batch["theta"][motion.user[:, None].expand(theta.shape[:3])],
    )
    torch.testing.assert_close(theta, exact, atol=1e-2, rtol=0)
    assert all(v.isfinite() for v in made.terms.values())


# ---- inference ----------------------------------------------------------------------------------


# ---- other branches -----------------------------------------------------------------------------


LEARNS = dict(lambda_change=100.0, past=0.5, unsure=0.5)


def test_with_branches_every_parameter_learns():
    made = method(**LAMBDAS | LEARNS | dict(lambda_translation=100.0))
    reached = {}
    for made.global_step in range(12):
        made.training_step(clips())
        for grads in made.backward:
            reached |= {name: max(value, reached.get(name, 0)) for name, value in grads.items()}
    graph = {n for n, _ in made.named_parameters() if n.startswith("animator.graph.")}
    assert {n for n in graph if reached.get(n, 0) == 0} == set()
    assert set(made.terms) == {"g/translation", "g/change"}


def test_change_compares_the_difference_of_two_branches():
    a, b = torch.zeros(2, 1, 3, 2, 2, 3)  # (N, T, M, 2, 3): predicted and true, of one object pair
    here, there = (a, a + 1.0), (b + 0.5, b + 1.5)  # both change by .5: no error
    others = torch.tensor([[True, True], [True, False]])[:1]
    assert losses_of_motion.change((*here, None), (*there, None), others).item() == 0
    moved = b.clone()
    moved[..., 0, 2] = 2.0
    wrong = losses_of_motion.change((*here, None), (moved, b + 1.0), others[:, :2])
    assert wrong.item() == pytest.approx(3 * 2.0)  # three frames, true change 0
    assert losses_of_motion.change((*here, None), (moved, b), ~others | others == 0).item() >= 0
    assert losses_of_motion.change((*here, None), (moved, b), torch.zeros(1, 2).bool()).item() == 0


def test_the_other_branch_moves_the_target_or_takes_it_away():
    made, batch = method(**LEARNS), clips(4)
    scene, motion, *_ = made.draws(batch)
    other, truth = made.other_branch(batch, scene, motion)
    target = torch.zeros_like(scene.present)
    target[torch.arange(4), batch["target"]] = True
    assert not (other.removed & ~target).any() and not (other.removed & other.user).any()
    error = motion.theta - batch["theta"]  # of uncertain drags, in both branches
    for i in range(4):
        name = "theta_removed" if other.removed[i].any() else "theta_velocity"
        torch.testing.assert_close(truth[i], batch[name][i])
        torch.testing.assert_close(other.theta[i], batch[name][i] + error[i])
        assert other.removed[i].any() == (i % 2 == 0 or not (motion.user & target)[i].any())


def test_wrong_drags_leave_the_truth_of_both_branches_as_it_is():
    ways = "translation", "scale", "rotation", "change"
    made = method(**LAMBDAS | LEARNS | {f"lambda_{way}": 1.0 for way in ways} | dict(unsure=1.0))
    batch = clips(4)

    def right(scene, features, motion, object_z):
        if motion.removed is None:
            return batch["theta"]
        gone = motion.removed.any(1)[:, None, None, None, None]
        return batch["theta_removed"].where(gone, batch["theta_velocity"])

    made.animator.predict = right
    assert {k: v.item() for k, v in made.training_terms(batch, made.weights())[1].items()} == (
        dict.fromkeys(ways, 0.0)
    )


def test_uncertain_drags_are_wrong_and_certain_ones_exact():
    made, batch = method(**LEARNS | dict(unsure=0.5)), clips(8)
    _, motion, *_ = made.draws(batch)
    off = (motion.theta - batch["theta"]).abs().sum((1, 3, 4))  # (N, M)
    sure = motion.confidence == 1
    assert sure.any() and (~sure).any()
    assert (off[sure] == 0).all() and (off[~sure] > 0).all()


def test_a_step_before_is_nearly_the_true_one_or_unknown():
    made, batch = method(**LEARNS | dict(past=1.0)), clips(8)
    scene, motion, *_ = made.draws(batch)
    true = scene.boxes[..., :2] - move_boxes(scene.boxes, batch["past"][:, None])[:, 0, :, :2]
    there = scene.present & ~motion.past.isnan().any(2)
    error = ((motion.past - true) * torch.tensor([31.5, 15.5]))[there]
    assert 0.05 < error.std() < 0.3 and there.sum() > 0.7 * scene.present.sum()
    none = method(**LEARNS | dict(past=1e-9)).draws(batch)[1].past
    assert none.isnan().all()


def test_clips_without_branches_are_refused():
    batch = {name: value for name, value in clips().items() if name != "theta_removed"}
    with pytest.raises(ValueError, match="expected clips with branches.*lambda_change 0"):
        method(**LEARNS).training_step(batch)


def test_frames_are_not_learnt_from_clips_without(tmp_path):
    made = method()
    with pytest.raises(ValueError, match="only_motion: expected false"):
        made.check_data(Movers(32, 64, 4, 4, num_workers=0, only_motion=True), "fit")
    method(**LAMBDAS | dict(lambda_translation=1.0)).check_data(
        Movers(32, 64, 4, 4, num_workers=0, only_motion=True), "fit"
    )


def test_who_is_removed_moves_nobody_and_leaves_a_hole(trained):
    batch = clips()
    scene, motion, latents = Scene.of(batch), known(batch, "one"), trained.latents((2, 4), 3)
    gone = torch.zeros_like(scene.present)
    gone[:, 1] = scene.present[:, 1]
    theta = trained.predict_motion(scene, motion._replace(removed=gone), latents[1])
    absent = scene._replace(present=scene.present & ~gone)
    torch.testing.assert_close(theta, trained.predict_motion(absent, motion, latents[1]))
    assert not torch.equal(theta, trained.predict_motion(scene, motion, latents[1]))

    seen = {}
    trained.ema.module["animator"].rasterise = lambda *args: seen.setdefault(
        "maps", rasterise(*args)
    )
    try:
        trained.animate(scene, motion._replace(removed=gone), *latents)
    finally:
        del trained.ema.module["animator"].rasterise
    flow, owner, visible = seen["maps"]
    where = (scene.instance == 2)[:, None].expand_as(owner) & (owner == 0)
    assert (
        gone.any()
        and not (owner == 2).any()
        and where.any()
        and (visible[:, :, 0][where] == 0).all()
    )


def test_confidence_and_a_step_before_reach_others_and_one_is_as_without():
    made = method(**LEARNS)
    torch.nn.init.normal_(made.animator.graph.last.weight, std=0.1)
    made.ema.module["animator"].load_state_dict(made.animator.state_dict())
    batch = clips()
    scene, motion, (_, z) = Scene.of(batch), known(batch, "one"), made.latents((2, 4), 3)
    plain = made.predict_motion(scene, motion, z)

    def predict(**more):
        return made.predict_motion(scene, motion._replace(**more), z)

    ones = torch.ones(2, 4)
    assert torch.equal(predict(confidence=ones), plain)
    assert torch.equal(predict(past=torch.full((2, 4, 2), torch.nan)), plain)
    hint = predict(confidence=0.5 * ones)
    user = motion.user[:, None, :, None, None].expand_as(plain)
    assert torch.equal(plain[user], motion.theta[user]) and not torch.equal(hint[user], plain[user])
    assert not torch.equal(predict(confidence=0.2 * ones)[user], hint[user])
    past = torch.full((2, 4, 2), torch.nan)
    past[:, 1] = 0.1
    others = ~motion.user[:, None, :, None, None].expand_as(plain)
    assert not torch.equal(predict(past=past)[others], plain[others])
    assert made.takes == {"removed", "camera", "past", "confidence"} and method().takes == {
        "removed", "camera",
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    """A few steps, and averages that differ from the trained networks."""
    made = method(lr=2e-3, lr_graph=2e-3)
    for made.global_step in range(1, 4):
        made.training_step(clips())
    return made


def test_the_users_motion_is_taken_exactly_and_reaches_others(trained):
    batch, scene = clips(), Scene.of(clips())
    _, object_z = trained.latents(scene.present.shape, 0)
    motion = known(batch, "one")
    theta = trained.predict_motion(scene, motion, object_z)
    assert torch.equal(theta[:, :, 0], batch["theta"][:, :, 0])
    moved = motion._replace(theta=batch["theta"] + 0.1)
    other = trained.predict_motion(scene, moved, object_z)
    assert (other[:, :, 1:] - theta[:, :, 1:]).abs().max() > 1e-6
    out = trained.animate(scene, motion, *trained.latents(scene.present.shape, 0))
    assert torch.equal(out.theta, theta)


def test_inference_is_what_training_shows(trained):
    """With the same weights, latents and motion: the same frames."""
    made, batch = copy.deepcopy(trained), clips()
    made.ema.module["animator"].load_state_dict(made.animator.state_dict())
    scene, motion, _, noise, object_z = made.draws(batch)
    features = made.animator.features(scene)
    theta = made.animator.predict(scene, features, motion, object_z)
    shown = made.animator.render(scene, features, motion, theta, noise)
    out = made.animate(scene, motion, noise, object_z)
    for a, b in zip(shown, out, strict=True):
        assert torch.equal(a, b)
    assert out.video.shape == (2, 3, 3, 32, 64) and out.flow.shape == (2, 3, 2, 32, 64)
    assert (
        out.boxes.shape == (2, 3, 4, 4)
        and out.video.abs().max() <= 1
        and not out.video.requires_grad
    )


def test_equal_seeds_give_equal_videos_in_any_mode(trained):
    scene, motion = Scene.of(clips()), known(clips(), "none")
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    videos = []
    for seed, mode in ((0, True), (0, False), (1, False)):
        trained.train(mode)
        with torch.autocast("cpu", torch.bfloat16, enabled=mode):
            videos.append(trained.animate(scene, motion, *trained.latents((2, 4), seed)).video)
    assert torch.equal(videos[0], videos[1]) and not torch.equal(videos[0], videos[2])
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())


def test_batch_norm_is_judged_by_running_statistics():
    made = method(norm="batch")
    made.training_step(clips(4))
    scene, motion, latents = Scene.of(clips()), known(clips()), made.latents((2, 4), 0)
    made.train()
    both = made.animate(scene, motion, *latents).video
    given = Scene(*(v[:1] for v in scene)), Motion(*(v[:1] for v in motion[:4]))
    one = made.animate(*given, *(v[:1] for v in latents))
    torch.testing.assert_close(both[:1], one.video, atol=1e-4, rtol=0)


def test_a_camera_is_obeyed_and_refused_where_it_was_not_trained(trained):
    scene, latents = Scene.of(clips()), trained.latents((2, 4), 0)
    still = known(clips(), camera=True)
    way = still._replace(camera=still.camera + torch.tensor([[0, 0, -0.25], [0, 0, 0]]))
    out = [trained.animate(scene, motion, *latents) for motion in (still, way, known(clips()))]
    background = (scene.instance == 0)[:, None].expand(-1, 3, -1, -1)
    flow = (out[1].flow - out[0].flow)[:, :, 0]  # 0.25 of half a width, to the right
    assert -12 < flow[background].median() < -4
    assert not torch.equal(out[0].video, out[2].video)
    z = torch.cat([latents[0][:, :4] + 1, latents[0][:, 4:]], 1)  # of stuff
    assert torch.equal(trained.animate(scene, still, z, latents[1]).video, out[0].video)
    other = method(camera=0.0)
    assert torch.equal(*(other.latents((2, 4), 0)[0], latents[0]))
    other.animate(scene, known(clips()), *latents)
    with pytest.raises(ValueError, match="camera: expected none, .* train with"):
        other.animate(scene, still, *latents)


def test_the_true_camera_is_that_of_the_ground():
    batch = {k: v.clone() for k, v in clips().items()}
    batch["instance"][:], batch["visible"][:] = 0, 1
    batch["semantic"][:] = 10  # sky
    batch["semantic"][:, :, 16:] = 0  # road
    batch["flow"][:] = 0
    batch["flow"][:, :, 0, 16:] = -3.0  # which goes to the right
    camera = true_camera(batch)
    wanted = torch.tensor([[1.0, 0, -6 / 63], [0, 1, 0]]).expand(2, 3, 2, 3)
    torch.testing.assert_close(camera, wanted, atol=1e-5, rtol=0)
    batch["semantic"][:] = 10  # no ground: all counts
    assert -6 / 63 < true_camera(batch)[..., 0, 2].mean() < -1 / 63


def test_without_a_camera_the_sizes_are_those_of_the_release():
    with torch.device("meta"):
        with_, without = Animator(), Animator(camera=False)
    a, b = ({k: v.shape for k, v in net.state_dict().items()} for net in (with_, without))
    assert {name.removeprefix("graph.").split(".")[0] for name in set(a) - set(b)} == {"camera"}
    assert all(a[k] == b[k] for k in b)


def test_in_bf16_it_is_nearly_the_same(trained):
    batch = clips()
    given = Scene.of(batch), known(batch), *trained.latents((2, 4), 0)
    full, fast = trained.animate(*given), trained.animate(*given, precision="bf16")
    assert all(v.dtype == torch.float32 for v in fast)
    assert 0 < (full.video - fast.video).abs().max() < 0.1


def test_the_mean_latent_of_a_clip(trained):
    z = trained.encode(clips())
    assert z.shape == (2, 8) and torch.equal(z, trained.encode(clips()))


def test_clips_are_encoded_by_the_averages(trained):
    made = copy.deepcopy(trained)
    for parameter in made.animator.posterior.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(made.encode(clips()), trained.encode(clips()))


@pytest.mark.parametrize("count", [0, 1])
def test_few_objects(count):
    batch = {k: v.clone() for k, v in clips().items()}
    batch["present"][:, count:] = False
    batch["instance"][batch["instance"] > count] = 0
    made = method()
    made.training_step(batch)
    assert all(v.isfinite() for v in made.terms.values())
    assert all(p.isfinite().all() for p in made.parameters())
    out = made.animate(Scene.of(batch), known(batch), *made.latents((2, 4), 0))
    assert out.video.isfinite().all()


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return cut_run(NAME, tmp_path_factory.mktemp(NAME), f"--save_every={FIRST}")


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, workers, tmp_path):
    more = (f"--ckpt_path={whole / 'cut.ckpt'}", f"--data.num_workers={workers}")
    last = fit(NAME, tmp_path, *more, steps=FIRST + MORE)
    a, b = read(whole / "last.ckpt"), read(last)
    assert a["global_step"] == b["global_step"] == FIRST + MORE
    assert len(a["optimizer_states"]) == 4
    for part in ("state_dict", "optimizer_states", "hyper_parameters"):
        assert not differences(a[part], b[part], part)
    assert losses(tmp_path) == losses(whole)[FIRST:]


def test_new_inputs_begin_without_effect_in_an_older_file(whole, tmp_path):
    file = tmp_path / "old.safetensors"
    export(whole / "last.ckpt", file, half=True)  # the averages alone, without discriminators
    old, batch = load(file), clips()
    made = method(**LAMBDAS | LEARNS | dict(init_from=str(file), lr=0.0))
    made.load_init()
    scene, motion, (_, z) = Scene.of(batch), known(batch, "one"), old.latents((2, 4), 3)
    extra = motion._replace(past=torch.full((2, 4, 2), 0.1), confidence=torch.ones(2, 4))
    expected = old.predict_motion(scene, motion, z)
    assert torch.equal(made.predict_motion(scene, extra, z), expected)
    made.training_step(batch)  # at rate 0 only the graph learns
    assert made.animator.appearance.downs[0][0].weight.grad is None


def test_layers_begin_fresh_in_a_file_without_and_are_kept_in_one_with(whole, tmp_path):
    file = tmp_path / "warp.safetensors"
    export(whole / "last.ckpt", file)
    old, options = load(file), dict(generator="layered", init_from=str(file), lr_graph=0.0)
    made, fresh = method(**options), method(**options)
    made.load_init()
    for name, value in made.animator.state_dict().items():
        kept = fresh.animator if name.startswith("generator.") else old.ema.module["animator"]
        assert torch.equal(value, kept.state_dict()[name]), name
    layers = ship(made, tmp_path / "layers.safetensors")
    again = method(**options | dict(init_from=str(layers), seed=3))
    again.load_init()
    assert torch.equal(
        again.animator.generator.colour.weight, made.animator.generator.colour.weight
    )


def test_layers_take_clips_of_other_sizes_and_learn_from_the_empty_ground():
    made = everything(generator="layered")
    batch = default_collate([MoverClips(777, i, 1, 48, 96, 4, 4)[0] for i in range(2)])
    made.training_step(batch)
    with_ground = made.terms["g/rec"]
    del batch["ground"]
    made = everything(generator="layered")
    made.training_step(batch)
    assert made.terms["g/rec"] != with_ground
    with pytest.raises(
        ValueError, match=r"expected \(T, H, W\) = \(3, 32, 64\), got \(3, 48, 96\)"
    ):
        everything().training_step(batch)
    odd = {**batch, "video": batch["video"][..., :40, :]}
    with pytest.raises(ValueError, match=r"got \(3, 40, 96\)"):
        everything(generator="layered").training_step(odd)


def test_what_is_shipped_animates_as_the_run_did(whole, tmp_path):
    export(whole / "last.ckpt", tmp_path / "c2m.safetensors")
    a, b = load(whole / "last.ckpt"), load(tmp_path / "c2m.safetensors")
    scene, motion = Scene.of(clips()), known(clips(), "one")
    videos = [m.animate(scene, motion, *m.latents((2, 4), 0)).video for m in (a, b)]
    assert torch.equal(*videos)


def test_two_processes_end_with_equal_weights(tmp_path):
    done = run(NAME, tmp_path, steps=2)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (read(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert a["strategy"] == "DDPStrategy" and not differences(a["state"], b["state"])
    assert not torch.equal(a["seen"][0]["video"], b["seen"][0]["video"])
    assert read(tmp_path / "last.ckpt")["global_step"] == 2


@pytest.mark.parametrize("option", ["height=16", "width=80", "frames=5"])
def test_clips_of_another_size_are_refused_before_training(tmp_path, monkeypatch, option):
    monkeypatch.setattr(ClickToMove, "training_terms", None)
    with pytest.raises(ValueError, match=r"clips: expected \(T, H, W\) = \(3, 32, 64\), got "):
        fit("ClickToMove", tmp_path / "run", f"--data.{option}")

"""Clips longer than the object graph predicts at once."""

import pytest
import torch

from gen.data.movers import MoverClips
from gen.inference import dragging, scenes
from gen.methods.click_to_move import ClickToMove
from gen.networks.click_to_move.animator import Motion, Scene
from gen.networks.click_to_move.rolling import roll_on
from gen.ops.motion import about_centres, compose, identity, invert, move_boxes
from rows_click_to_move import CLICK_TO_MOVE

EYE = torch.eye(2, 3)
BOXES = torch.tensor([[[-0.3, 0.1, 0.2, 0.3], [0.4, -0.2, 0.1, 0.2]]])


def steady(speed: torch.Tensor, frames: int) -> torch.Tensor:
    """Backward motion (1, T, 2, 2, 3) at constant speeds (2, 2), normalised, a frame."""
    theta = EYE.repeat(1, frames, 2, 1, 1)
    theta[0, ..., 2] = -torch.arange(1, frames + 1)[:, None, None] * speed
    return theta


def test_compose_and_invert():
    a, b = (torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    p = torch.randn(4, 2, 1)
    at_b = b[..., :2] @ p + b[..., 2:]
    torch.testing.assert_close(
        compose(a, b)[..., :2] @ p + compose(a, b)[..., 2:], a[..., :2] @ at_b + a[..., 2:]
    )
    torch.testing.assert_close(compose(invert(a), a), identity(a).expand_as(a), atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", [3, 5, 12])
def test_speeds_are_kept_and_the_user_is_followed(frames):
    """A predictor that keeps each object's last speed goes on for ever at the first one."""
    speed = torch.tensor([[0.02, 0.01], [-0.03, 0.0]])
    seen = []

    def predict(boxes, motion, object_z):
        seen.append((boxes, motion.past, object_z.shape[2]))
        theta = identity(motion.theta).expand_as(motion.theta).clone()
        time = torch.arange(1, theta.shape[1] + 1)[:, None, None]
        theta[0, ..., 2] = -time * motion.past[0]
        return motion.theta.where(motion.user[:, None, :, None, None], theta)

    user = torch.tensor([[False, True]])
    given = steady(torch.tensor([[0.0, 0.0], [0.01, 0.02]]), frames)
    camera = EYE.repeat(1, frames, 1, 1)
    motion = Motion(user, given, torch.tensor([False]), camera, past=speed[None])
    theta = roll_on(predict, BOXES, motion, torch.zeros(1, 2, frames, 3), 3, speeds=True)
    wanted = steady(torch.stack([speed[0], torch.tensor([0.01, 0.02])]), frames)
    torch.testing.assert_close(theta, wanted, atol=1e-6, rtol=0)
    assert [n for *_, n in seen] == [3] * (frames // 3) + [frames % 3] * (frames % 3 > 0)
    for i, (boxes, past, _) in enumerate(seen):
        moved = BOXES if i == 0 else move_boxes(BOXES, wanted[:, 3 * i - 1 : 3 * i])[:, 0]
        torch.testing.assert_close(boxes, moved, atol=1e-6, rtol=0)
        if i:
            torch.testing.assert_close(past[0, 1], torch.tensor([0.01, 0.02]), atol=1e-6, rtol=0)


def test_sizes_and_cameras_add_up():
    """Growth by a factor a step is a power of it, and the camera is given from where it is."""
    cameras = []

    def predict(boxes, motion, object_z):
        cameras.append(motion.camera)
        theta = identity(motion.theta).expand_as(motion.theta).clone()
        for t in range(theta.shape[1]):
            theta[:, t, :, :, :2] *= 0.9 ** (t + 1)
        centre = boxes[:, None, :, :, None][..., :2, :]
        theta[..., 2:] = centre - theta[..., :2] @ centre  # in place
        return theta

    camera = EYE.repeat(1, 4, 1, 1)
    camera[0, :, 0, 2] = 0.1 * torch.arange(1, 5)
    still = EYE.repeat(1, 4, 2, 1, 1)
    motion = Motion(torch.zeros(1, 2, dtype=torch.bool), still, torch.tensor([True]), camera)
    theta = roll_on(predict, BOXES, motion, torch.zeros(1, 2, 4, 3), 2, speeds=False)
    about = about_centres(theta, BOXES)
    sizes = about[0, :, 0, 0, 0]
    torch.testing.assert_close(sizes, 0.9 ** torch.arange(1.0, 5))
    assert about[..., 2].abs().max() < 1e-6
    for part in cameras:  # each begins at zero
        torch.testing.assert_close(part[0, :, 0, 2], torch.tensor([0.1, 0.2]))


def model(**options) -> ClickToMove:
    torch.manual_seed(0)
    made = ClickToMove(**CLICK_TO_MOVE | dict(generator="layered") | options)
    for p in made.animator.graph.last.parameters():
        torch.nn.init.normal_(p, std=0.05)
    made.ema.module["animator"].load_state_dict(made.animator.state_dict())
    return made


def test_a_long_video_begins_like_a_short_one():
    made = model()
    still = scenes.drawn(3, (32, 64), 4)
    what = still.frame, still.semantic, still.instance
    one = scenes.objects(still)[0][0]
    request = dragging.parse({"pins": [one], "camera": [2, 0, 1]})
    short = dragging.animate(made, *what, request)
    pinned = dragging.animate(made, *what, dragging.parse({"pins": [one]}), None, 8)
    assert pinned.video.shape == (1, 8, 3, 32, 64) and pinned.theta.shape[1] == 8
    first = dragging.animate(made, *what, dragging.parse({"pins": [one]}), None, 3)
    torch.testing.assert_close(pinned.theta[:, :3], first.theta)
    torch.testing.assert_close(pinned.video[:, :3], first.video, atol=1e-5, rtol=0)
    assert short.video.shape[1] == 3
    drag = dragging.parse({"drags": [{"id": one, "path": [[0, 0], [8, 0]]}]})
    ends = []
    for frames in (2, 3, 10):
        clip = dragging.animate(made, *what, drag, None, frames)
        scene = dragging.scene(*what)
        way = dragging.positions(scene, clip.theta)[:, scene.ids[0] == one, :2]
        ends.append((way[-1] - way[0])[0])
        assert torch.equal(clip.theta, dragging.predict(made, *what, drag, None, frames))
    torch.testing.assert_close(torch.stack(ends), torch.tensor([[8.0, 0.0]] * 3), atol=1e-4, rtol=0)


def test_other_models_make_their_own_length_and_size():
    made, still = model(generator="warp"), scenes.drawn(3, (32, 64), 4)
    what = still.frame, still.semantic, still.instance
    with pytest.raises(ValueError, match="frames: expected 3, as the model was trained, got 8"):
        dragging.animate(made, *what, dragging.Request(), None, 8)
    larger = scenes.drawn(3, (48, 96), 4)
    what = larger.frame, larger.semantic, larger.instance
    with pytest.raises(ValueError, match=r"expected \(H, W\) = \[32, 64\] px, got \[48, 96\]"):
        dragging.animate(made, *what, dragging.Request())
    assert dragging.animate(model(), *what, dragging.Request()).video.shape[3:] == (48, 96)


def test_latents_of_more_frames_begin_alike():
    made = model()
    (z, short), (same, long) = made.latents((1, 2), 5), made.latents((1, 2), 5, 7)
    assert torch.equal(z, same) and torch.equal(short, long[:, :, :3]) and long.shape[2] == 7


def test_training_keeps_its_length():
    batch = {k: torch.as_tensor(v)[None] for k, v in MoverClips(7, 0, 1, 32, 64, 6, 4)[0].items()}
    with pytest.raises(ValueError, match=r"got \(5, 32, 64\)"):
        model().training_terms(batch, {})
    assert Scene.of(batch).frame.shape == (1, 3, 32, 64)

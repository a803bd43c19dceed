"""What users ask for: its JSON, its mistakes, and the motion that it means."""

import json

import numpy as np
import pytest
import torch

from gen.inference import dragging, scenes
from gen.inference.dragging import Drag, Request
from gen.methods.click_to_move import ClickToMove
from gen.ops.motion import affine_flow, move_boxes
from rows_click_to_move import CLICK_TO_MOVE

H, W = 32, 64
FULL = {
    "drags": [{"id": 13001, "path": [[5, 6], [9, 6]], "scale": 1.5, "confidence": 0.5}],
    "pins": [11002],
    "remove": [12003],
    "camera": [1, -2, 1.1],
    "seed": 4,
}


def image(objects=((13001, 4, 4), (11002, 20, 30))):
    """A frame and its maps; an object has its id and the left upper corner (y, x) of 8 x 10 px."""
    frame = torch.rand(3, H, W, generator=torch.Generator().manual_seed(0)) * 2 - 1
    semantic, instance = torch.zeros(2, H, W, dtype=torch.int64)
    for id_, y, x in objects:
        instance[y : y + 8, x : x + 10] = id_
        semantic[y : y + 8, x : x + 10] = id_ // 1000
    return frame, semantic, instance


def meant(*objects, **request):
    scene = dragging.scene(*image())
    return dragging.motion(Request(tuple(objects), **request), scene, 5), scene


def drag(id_=13001, path=((0, 0), (10, 5)), scale=1.0, confidence=1.0):
    return Drag(id_, path, scale, confidence)


def test_json_there_and_back():
    request = dragging.parse(json.dumps(FULL))
    drags = (Drag(13001, ((5, 6), (9, 6)), 1.5, 0.5),)
    expected = Request(drags, (11002,), (1, -2, 1.1), 4, remove=(12003,))
    assert request == expected == dragging.parse(FULL) == dragging.parse(dragging.dump(request))
    assert dragging.parse("{}") == Request() == dragging.parse(dragging.dump(Request()))


@pytest.mark.parametrize(
    "wrong, told",
    [
        ("{", "request: expected JSON"),
        ("[1]", "request: expected an object of camera, drags, pins, remove, seed, tracks, got"),
        ({"drag": []}, r"request: expected an object of .*, got \['drag'\]"),
        ({"drags": [{"id": 1, "path": [[0, 0]], "speed": 2}]}, r"a drag: .* got \['speed'\]"),
        ({"drags": [{"path": [[0, 0], [1, 1]]}]}, r"request: expected .*KeyError: 'id'"),
        ({"drags": [{"id": 1, "path": [0, 1]}]}, "request: expected .*TypeError"),
        ({"camera": [1, 2]}, "request: expected .*ValueError"),
        ({"pins": ["a"]}, "request: expected .*a number, got 'a'"),
        ({"pins": "12"}, "request: expected .*a list, got '12'"),
        ({"remove": 13001}, "request: expected .*a list, got 13001"),
        ({"drags": [{"id": 1, "path": [], "confidence": "no"}]}, "a number, got 'no'"),
        ({"camera": "123"}, "request: expected .*a list, got '123'"),
        ({"drags": [{"id": 13001.9, "path": [[0, 0], [1, 1]]}]}, "a whole number, got 13001.9"),
        ({"drags": [{"id": True, "path": [[0, 0], [1, 1]]}]}, "a number, got True"),
        ({"seed": 1.7}, "a whole number, got 1.7"),
        ({"seed": float("inf")}, "a whole number, got inf"),
    ],
)
def test_wrong_json(wrong, told):
    with pytest.raises(ValueError, match=told):
        dragging.parse(wrong)


@pytest.mark.parametrize(
    "objects, request_, told",
    [
        ([drag(13002)], {}, r"expected ids among \[11002, 13001\], got 13002"),
        ([], {"pins": (7,)}, r"expected ids among \[11002, 13001\], got 7"),
        ([], {"remove": (13009,)}, r"expected ids among \[11002, 13001\], got 13009"),
        ([drag(), drag()], {}, "id 13001: expected one drag, pin or removal of an object"),
        ([drag()], {"pins": (13001,)}, "id 13001: expected one drag, pin or removal"),
        ([drag()], {"remove": (13001,)}, "id 13001: expected one drag, pin or removal"),
        ([], {"pins": (11002,), "remove": (11002,)}, "id 11002: expected one drag, pin or rem"),
        ([drag(confidence=1.5)], {}, r"drag of 13001: expected a confidence in 0 .. 1, got 1.5"),
        ([drag(confidence=float("nan"))], {}, r"expected a confidence in 0 .. 1, got nan"),
        ([drag(path=((0, 0), (float("nan"), 0)))], {}, "drag of 13001: .*finite"),
        ([drag(path=((0, 0),))], {}, "drag of 13001: expected two or more"),
        ([drag(path=((0, 0), (300, 0)))], {}, "expected at most 256 px, got 300 px"),
        ([drag(path=((0, 0), (150, 0), (0, 0)))], {}, "expected at most 256 px, got 300 px"),
        ([drag(scale=0.0)], {}, r"expected a scale in 0.25 .. 4.0, got 0.0"),
        ([], {"camera": (0.0, float("inf"), 1.0)}, "camera: .*finite"),
        ([], {"camera": (0.0, 0.0, 9.0)}, "camera: expected a scale in"),
    ],
)
def test_wrong_requests(objects, request_, told):
    with pytest.raises(ValueError, match=told):
        meant(*objects, **request_)


@pytest.mark.parametrize("path", [(60, 0), (-20, 0), (0, -14), (0, 30)])
def test_a_drag_out_of_the_image(path):
    with pytest.raises(ValueError, match=r"drag of 13001: .* stay in the image of 64 x 32 px, got"):
        meant(drag(path=((0, 0), path)))
    meant(drag(path=((0, 0), (0.6 * path[0], 0.6 * path[1]))))


def test_faster_is_farther_in_the_same_frames():
    request = Request((drag(path=((1, 1), (5, 3)), scale=2.0),), (7,), (4.0, -2.0, 0.5), 3)
    twice = dragging.faster(request, 2.0)
    assert twice == Request((drag(path=((2, 2), (10, 6)), scale=4.0),), (7,), (8, -4, 0.25), 3)
    assert dragging.faster(request, 1.0) == request
    for speed in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="speed: expected a number above 0, got"):
            dragging.faster(request, speed)


def test_a_request_of_another_size():
    request = Request((drag(path=((1, 1), (5, 3)), scale=2.0),), (7,), (4.0, -2.0, 1.5), 3)
    wide = dragging.resized(request, 2.0, 0.5)
    assert wide.drags[0].path == ((2, 0.5), (10, 1.5)) and wide.camera == (8, -1, 1.5)
    assert dragging.resized(wide, 0.5, 2.0) == request


def test_what_moves_is_predicted_as_it_is_animated():
    method, what = ClickToMove(**CLICK_TO_MOVE), image()
    request = Request((drag(path=((0, 0), (6, 2)), scale=1.2),), seed=3)
    theta = dragging.predict(method, *what, request)
    assert torch.equal(theta, dragging.animate(method, *what, request).theta)
    scene = dragging.scene(*what)
    assert scenes.moved_by(request, scene) == ["reacts", "you"]
    boxes = dragging.positions(scene, theta)
    assert boxes.shape == (4, 2, 4)
    torch.testing.assert_close(boxes[0, 1], torch.tensor([8.5, 7.5, 10, 8]))
    torch.testing.assert_close(boxes[-1, 1], torch.tensor([14.5, 9.5, 12, 9.6]))


def test_the_scene_of_an_image():
    scene = dragging.scene(*image())
    assert scene.ids.tolist() == [[11002, 13001]] and scene.classes.tolist() == [[11, 13]]
    assert scene.present.all() and scene.instance.unique().tolist() == [0, 1, 2]
    centre = [(2 * 30 + 9) / 63 - 1, (2 * 20 + 7) / 31 - 1, 10 / 64, 8 / 32]
    torch.testing.assert_close(scene.boxes[0, 0], torch.tensor(centre))
    empty = dragging.scene(*image(()))
    assert empty.boxes.shape == (1, 1, 4) and not empty.present.any()


def test_wrong_images():
    frame, semantic, instance = image()
    for maps, name in (
        ((semantic[1:], instance), "semantic"),
        ((semantic, instance.T), "instance"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: expected maps \(32, 64\)"):
            dragging.scene(frame, *maps)
    with pytest.raises(ValueError, match="instance: expected at most 40 objects .*got 41 "):
        dragging.scene(frame, semantic, 13000 + torch.arange(H * W).view(H, W) // 50)
    with pytest.raises(ValueError, match="ids 1000 .. 18999.*up to 26001"):
        dragging.scene(frame, semantic, instance + 13000)


def test_a_plain_request_sets_no_optional_input():
    motion, _ = meant(drag(), pins=(11002,))
    assert motion.past is None and motion.confidence is None and motion.removed is None


def test_a_removed_object_and_a_confidence_are_inputs_of_their_objects():
    motion, scene = meant(drag(confidence=0.25), remove=(11002,))
    assert motion.removed.tolist() == [[True, False]] and motion.user.tolist() == [[False, True]]
    assert motion.confidence.tolist() == [[1, 0.25]]
    assert motion.left(scene).tolist() == [[False, True]]
    exact, _ = meant(drag())
    assert torch.equal(motion.theta, exact.theta)


def test_a_removed_object_leaves_a_hole_and_the_others_react():
    method, what = learnt(), image()
    plain, gone = (
        dragging.animate(method, *what, Request(remove=ids, seed=3)) for ids in ((), (11002,))
    )
    assert not torch.equal(plain.theta[:, :, 1], gone.theta[:, :, 1])  # the other one reacts
    assert gone.boxes[0, :, 0, :2].abs().min() > 1  # outside the image
    seen, animator = [], method.ema.module["animator"]
    animator.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[4]))
    dragging.animate(method, *what, Request(remove=(11002,), pins=(13001,)))
    hole = what[2] == 11002
    assert (seen[0][0, :, 0] == ~hole).all()  # visible everywhere else


def test_a_hint_is_not_followed_exactly():
    method, what = learnt(), image()
    exact, hint = (
        dragging.predict(method, *what, Request((drag(path=((0, 0), (6, 2)), confidence=c),)))
        for c in (1.0, 0.5)
    )
    wanted = dragging.motion(Request((drag(path=((0, 0), (6, 2))),)), dragging.scene(*what), 3)
    assert torch.equal(exact[:, :, 1], wanted.theta[:, :, 1])
    assert not torch.equal(hint[:, :, 1], wanted.theta[:, :, 1])


def test_a_previous_frame_shows_how_fast_objects_move():
    method, (_, *maps) = learnt(), image()
    frame = torch.nn.functional.interpolate(
        torch.rand(1, 3, H // 4, W // 4, generator=torch.Generator().manual_seed(0)) * 2 - 1,
        (H, W),
        mode="bicubic",
    )[0].clamp(-1, 1)
    before, given = frame.roll(-2, 2), []  # all moved 2 px to the right
    graph = method.ema.module["animator"].graph
    graph.register_forward_pre_hook(lambda _, args: given.append(args[9]))
    still = dragging.predict(method, frame, *maps, Request())
    moving = dragging.predict(method, frame, *maps, Request(), before)
    assert given[0] is None and not torch.equal(still, moving)
    torch.testing.assert_close(given[1], torch.tensor([[[4 / 63, 0.0]] * 2]), atol=5e-3, rtol=0)
    clip = dragging.animate(method, frame, *maps, Request(), before)
    assert torch.equal(clip.theta, moving)
    with pytest.raises(
        ValueError, match=r"previous frame: expected the shape .*\(3, 32, 64\), got"
    ):
        dragging.animate(method, frame, *maps, Request(), before[:, :16])


@pytest.mark.parametrize(
    "request_, previous, told",
    [
        (Request(camera=(1.0, 0.0, 1.0)), False, "camera: expected none .* --model.camera 0.5"),
        (Request((drag(confidence=0.5),)), False, "confidence below 1: .* --model.unsure 0.2"),
        (Request(), True, "previous frame: expected none of .* --model.past 0.5"),
    ],
)
def test_a_model_refuses_what_it_was_not_trained_with(request_, previous, told):
    method, what = ClickToMove(**CLICK_TO_MOVE | {"camera": 0.0}), image()
    for run in (dragging.animate, dragging.predict):
        with pytest.raises(ValueError, match=told):
            run(method, *what, request_, what[0] if previous else None)


def learnt() -> ClickToMove:
    """A model that takes all optional inputs, and whose objects react."""
    method = ClickToMove(**CLICK_TO_MOVE, past=0.5, unsure=0.2)
    last, rng = method.ema.module["animator"].graph.last.weight, torch.Generator().manual_seed(0)
    torch.nn.init.normal_(last, std=0.02, generator=rng)
    return method


def test_a_drag_moves_the_box_evenly_and_a_pin_holds_it():
    motion, scene = meant(drag(scale=2.0), pins=(11002,))
    assert motion.user.all() and not motion.known.any()
    boxes = move_boxes(scene.boxes, motion.theta)[0]  # (T, M, 4)
    moved = (boxes[:, 1, :2] - scene.boxes[0, 1, :2]) * torch.tensor([31.5, 15.5])
    share = torch.arange(1, 6)[:, None] / 5
    torch.testing.assert_close(moved, share * torch.tensor([10.0, 5.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[:, 1, 2:], scene.boxes[0, 1, 2:] * (1 + share))
    assert torch.equal(motion.theta[0, :, 0], torch.eye(2, 3).expand(5, 2, 3))


@pytest.mark.parametrize("y, u", [(13, -20), (7, 0)])
def test_of_objects_that_cross_the_lower_is_in_front(y, u):
    """The flow from which the video is made: that of the dragged one, or 0 of the one that stays.

    The dragged one comes to lie on the other, which has the higher id, 3 px lower or higher.
    """
    method, seen = ClickToMove(**CLICK_TO_MOVE), []
    sparse = method.ema.module["animator"].sparse
    sparse.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    what = image(((11002, y, 10), (13001, 10, 30)))
    dragging.animate(method, *what, Request((drag(11002, ((0, 0), (20, 0))),)))
    both = seen[0][0, -1, :, max(y, 10) : min(y, 10) + 8, 30:40]  # (2, 5, 10), of the last frame
    torch.testing.assert_close(both, torch.tensor([u, 0.0])[:, None, None].expand_as(both))


def test_a_path_is_gone_along_at_even_speed():
    way = dragging.resample(((3, 3), (3, 3), (7, 3), (7, 3), (7, 15)), 4)  # 4 right, 12 down
    assert way.shape == (5, 2) and (way[0] == 0).all()
    np.testing.assert_allclose(way[[1, 4]], [[4, 0], [4, 12]], atol=1e-9)
    assert (np.diff(way[:, 1]) > -1e-9).all() and (way[:, 0] <= 4 + 1e-9).all()
    assert (dragging.resample(((3, 3), (3, 3)), 4) == 0).all()
    way = dragging.resample(((0, 0), (1e6, 0), (1e6, 1e-11)), 2)  # a hand that trembles
    np.testing.assert_allclose(way, [[0, 0], [5e5, 0], [1e6, 0]], atol=1e-4)


def test_a_camera_is_known_and_leads_the_background():
    motion, _ = meant(camera=(6.0, -3.0, 1.0))
    assert motion.known.all() and not motion.user.any()
    flow = affine_flow(motion.camera, (H, W))[0]
    for t in range(5):
        u, v = flow[t].unbind(0)
        torch.testing.assert_close(u, torch.full_like(u, -6.0 * (t + 1) / 5))
        torch.testing.assert_close(v, torch.full_like(v, 3.0 * (t + 1) / 5))


def test_what_is_pinned_stays_on_the_ground():
    motion, scene = meant(pins=(11002,), camera=(6.0, -3.0, 1.2))
    pinned = scene.ids[0].tolist().index(11002)
    assert torch.equal(motion.theta[:, :, pinned], motion.camera)
    view = move_boxes(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), motion.camera[0, :, None])[:, 0]
    share = torch.arange(1, 6)[:, None] / 5  # the middle of the image goes, and its size grows
    torch.testing.assert_close(view[:, :2], share * 2 * torch.tensor([6 / (W - 1), -3 / (H - 1)]))
    torch.testing.assert_close(view[:, 2:], (1 + 0.2 * share).expand(5, 2))
    assert motion.user[0].tolist() == [k == pinned for k in range(2)]


def test_a_click_near_an_object_means_it():
    instance = image()[2]
    assert dragging.pick(instance, 5, 5) == 13001 and dragging.pick(instance, 20, 6) == 13001
    assert dragging.pick(instance, 60, 2) is None
    assert dragging.pick(image(())[2], 5, 5) is None


@pytest.mark.parametrize("count", [0, 1, 2])
def test_from_an_image_to_a_video(count):
    method = ClickToMove(**CLICK_TO_MOVE)
    what = image(((13001, 4, 4), (11002, 20, 30))[:count])
    asked = (drag(path=((0, 0), (6, 0))),) if count else ()
    request = Request(asked, camera=(0.0, 0.0, 1.0), seed=3)
    out, again = (dragging.animate(method, *what, request) for _ in range(2))
    assert out.video.shape == (1, 3, 3, H, W) and torch.equal(out.video, again.video)
    other = dragging.animate(method, *what, request._replace(seed=4))
    assert not torch.equal(out.video, other.video)
    if count:
        moved = (out.boxes[0, -1, -1, 0] - dragging.scene(*what).boxes[0, -1, 0]) * 31.5
        assert moved.item() == pytest.approx(6, abs=1e-3)
    with pytest.raises(ValueError, match=r"frame: expected \(H, W\) = \[32, 64\] px, got \[32, 32"):
        dragging.animate(method, what[0][..., :32], *what[1:], request)

"""Motion as pictures: colours of flow, arrows where objects go, what was hidden, loops."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from gen import viz
from gen.viz import motion as motion_viz

H, W = 32, 64


def scene(dx=20.0, moved_by=("reacts", "you", "pinned")):
    """A grey frame with three squares of 6 px, the second of which goes `dx` to the right."""
    instance = torch.zeros(H, W, dtype=torch.int64)
    boxes = torch.zeros(6, 3, 4)
    for k, (x, y) in enumerate([(5, 5), (20, 15), (50, 24)]):
        instance[y - 3 : y + 3, x - 3 : x + 3] = k + 1
        boxes[:, k] = torch.tensor([x - 0.5, y - 0.5, 6, 6])
    boxes[:, 1, 0] += torch.linspace(0, dx, 6)
    return torch.zeros(3, H, W), instance, boxes, moved_by, [11001, 13001, 14001]


def drawn(*args, **options) -> np.ndarray:
    return np.asarray(motion_viz.arrows(*args, **options)).astype(int)


def near(picture, colour, x, y, k=12, reach=3):
    """How much of the surroundings of the point (x, y) px has the colour."""
    middle = round((x + 0.5) * k), round((y + 0.5) * k)
    part = picture[middle[1] - reach : middle[1] + reach, middle[0] - reach : middle[0] + reach]
    return (np.abs(part - ImageColor.getrgb(colour)).max(-1) < 40).mean()


def test_directions_have_the_colours_of_the_wheel():
    flow = np.zeros((2, 1, 6))
    flow[:, 0] = [[0, 4, -4, 0, 0, 99], [0, 0, 0, 4, -4, 0]]  # none, right, left, down, up, far
    none, right, left, down, up, far = motion_viz.flow_colours(flow, 4.0)[0].tolist()
    assert none == [255, 255, 255] and right == far == [255, 0, 0]
    assert left[0] == 0 and left[1] > 150 and left[2] == 255
    assert down[0] == 255 and down[1] > 200 and down[2] == 0
    assert up[0] > 60 and up[1] == 0 and up[2] == 255
    half = motion_viz.flow_colours(flow, 8.0)[0, 1].tolist()
    assert half == [255, 128, 128]


def test_the_key_shows_the_wheel():
    key = motion_viz.flow_key(100, 200)
    assert key.shape == (100, 200, 3) and (key[0] == 255).all() and (key[:, :50] == 255).all()
    assert key[50, 143, 0] == 255 and key[50, 143, 1] < 40  # to the right: red
    assert key[48:52, 98:102].min() > 230  # hardly any motion in the middle
    assert key[50, 57, 0] < 40


def test_flow_is_shown_forth_at_one_scale():
    flow = torch.zeros(2, 3, 2, H, W)
    flow[1, :, 0] = -5.0  # all of the second clip came from the left: it went to the right
    sheet = motion_viz.flow_sheet(flow, ["a", "b"])
    pixels = np.asarray(sheet).astype(int)
    red = (np.abs(pixels - (255, 0, 0)).max(-1) < 10).any(1)
    rows = np.flatnonzero(red)
    assert len(rows) and rows.min() > 0 and pixels.shape[1] > 4 * 384
    lower = pixels[-100:, 900:1200]
    assert (np.abs(lower - (255, 0, 0)).max(-1) < 10).mean() > 0.5
    still = np.asarray(motion_viz.flow_sheet(torch.zeros(1, 3, 2, H, W)))
    assert np.ptp(still[:, 600:], -1).max() < 5  # white, and grey letters


def test_arrows_are_where_objects_go():
    picture = drawn(*scene())
    k = motion_viz.ARROWS_PX // H
    assert picture.shape[1] == W * k and picture.shape[0] > H * k  # a legend below
    colours = motion_viz.COLOURS
    assert near(picture, colours["you"], 25, 14.5) > 0.5  # on the way
    assert near(picture, colours["you"], 38.5, 14.5) > 0.5  # its head
    assert near(picture, colours["you"], 25, 25) == 0
    assert near(picture, colours["reacts"], 4.5, 4.5) > 0.9  # a dot
    assert near(picture, "#FFFFFF", 49.5, 23.5) > 0.9  # a ring
    assert near(picture, colours["pinned"], 49.5, 23.0, reach=1) > 0.5
    still = drawn(*scene(dx=0.2))
    assert near(still, colours["you"], 25, 14.5) == 0


def test_colours_say_who_moves_what_and_equal_inputs_give_equal_pictures():
    first = motion_viz.arrows(*scene(), note="seed 3")
    assert first.tobytes() == motion_viz.arrows(*scene(), note="seed 3").tobytes()
    other = drawn(*scene(moved_by=("reacts", "reacts", "pinned")))
    assert near(other, motion_viz.COLOURS["you"], 25, 14.5) == 0
    assert near(other, motion_viz.COLOURS["reacts"], 25, 14.5) > 0.5


def test_a_removed_object_has_a_cross_and_no_arrow():
    frame, instance, boxes, _, ids = scene()
    boxes[1:, 1] += 500  # wherever the renderer puts it
    colour = motion_viz.COLOURS["removed"]
    picture = drawn(frame, instance, boxes, ("reacts", "removed", "pinned"), ids)
    for x, y in ((19.5, 14.5), (19, 14), (20, 15), (19, 15), (20, 14)):  # both strokes
        assert near(picture, colour, x, y, reach=1) == 1, (x, y)
    assert near(picture, colour, 19.5, 13.5, reach=1) < 1 and near(picture, colour, 30, 20) == 0
    still = drawn(
        frame, instance, boxes[:1].expand(6, -1, -1), ("reacts", "removed", "pinned"), ids
    )
    assert (picture == still).all()


def test_labels_hide_each_other_only_where_they_must():
    room, side = (400.0, 300.0), (40.0, 16.0)
    taken = []
    for _ in range(6):  # six objects at one place
        middle, box = np.array([200.0, 150.0]), np.array([30.0, 30.0])
        taken.append(motion_viz._place(side, middle, box, middle[None], taken, room, 1.0))
    pairs = [(a, b) for i, a in enumerate(taken) for b in taken[:i]]
    assert all(motion_viz._overlap(a, b) == 0 for a, b in pairs)
    corner = motion_viz._place(side, np.zeros(2), np.ones(2), np.zeros((0, 2)), [], room, 1.0)
    assert corner[0] >= 0 and corner[1] >= 0


def test_no_object_one_object_and_one_that_is_lost():
    frame, instance, boxes, *_ = scene()
    nothing = (frame, torch.zeros_like(instance), boxes[:, :0], [], [])
    assert motion_viz.arrows(*nothing).size == motion_viz.arrows(*scene()).size
    gone = boxes[:, :1].clone()
    gone[-1] += 500  # far out of the picture
    motion_viz.arrows(frame, instance, gone, ["reacts"], [18999])
    flat = boxes[:, :1].clone()
    flat[..., 2:] = 0
    motion_viz.arrows(frame, instance, flat, ["you"], [11001])


def test_an_arrow_of_a_way_that_turns_back():
    frame, instance, boxes, by, ids = scene()
    boxes[:, 1, 0] = torch.tensor([19.5, 30, 40, 45, 40, 36])
    picture = drawn(frame, instance, boxes, by, ids)
    assert near(picture, motion_viz.COLOURS["you"], 28, 14.5) > 0.5


def test_what_was_hidden_is_coloured():
    visible = torch.ones(1, 1, 1, H, W)
    visible[..., W // 2 :] = 0
    sheet = np.asarray(motion_viz.hidden_sheet(torch.zeros(1, 1, 3, H, W), visible)).astype(int)
    colour = np.abs(sheet - ImageColor.getrgb(motion_viz.INVENTED)).max(-1) < 10
    left, right = np.array_split(colour, 2, 1)
    assert right.mean() > 0.4 and left.mean() < 0.02
    grey = sheet[sheet.shape[0] * 2 // 3, sheet.shape[1] // 4]
    assert grey.max() - grey.min() == 0


def test_frames_stand_in_rows():
    video = torch.zeros(2, 4, 3, H, W)
    one, two = (motion_viz.frames_sheet(video[:n]) for n in (1, 2))
    assert one.width == two.width and two.height > 1.5 * one.height


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_loop_rests_at_its_ends(count):
    frames = list(range(count))
    loop = motion_viz.looped(frames, hold=4)
    assert loop[:4] == [0] * 4 and loop.count(count - 1) == 4 and loop.count(0) == 4
    assert all(abs(a - b) <= 1 for a, b in zip(loop, loop[1:] + loop[:1], strict=True))


def test_pictures_can_be_saved(tmp_path):
    pictures = [motion_viz.arrows(*scene()), viz.enlarge(torch.zeros(3, H, W), 384)]
    for k, picture in enumerate(pictures):
        picture.save(tmp_path / f"{k}.png")
        assert Image.open(tmp_path / f"{k}.png").size[0] == 768

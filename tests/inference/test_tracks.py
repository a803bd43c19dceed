"""Tracks of points: read, fitted, asked for and written."""

import numpy as np
import pytest
import torch

from gen.inference import dragging, scenes, tracks
from gen.inference.dragging import Request
from gen.inference.tracks import Track, load, similarities
from gen.ops.motion import move_boxes

H, W, T = 32, 64, 4


def still():
    """Two objects on a street: 13001 at 8 .. 17, 8 .. 15; 11002 at 40 .. 49, 18 .. 25."""
    instance = torch.zeros(H, W, dtype=torch.int64)
    instance[8:16, 8:18], instance[18:26, 40:50] = 13001, 11002
    semantic = (instance // 1000).where(instance > 0, torch.tensor(0))
    return scenes.Still(torch.zeros(3, H, W), semantic, instance, instance, "")


def turned(points, angle, growth, shift, times=T + 1):
    """Points (K, 2) that turn about the origin, grow and shift evenly: (K, times, 2)."""
    t = np.linspace(0, 1, times)
    turn = (1 + (growth - 1) * t) * np.exp(1j * angle * t)
    z = turn * (points[:, :1] + 1j * points[:, 1:]) + t * complex(*shift)
    return np.stack([z.real, z.imag], -1)


def motion(*given):
    scene = dragging.scene(*still()[:3])
    return dragging.motion(Request(tracks=given), scene, T), scene


def track(points, id_=13001):
    return Track(id_, tuple(tuple(map(tuple, way)) for way in np.asarray(points).tolist()))


def test_a_shift_a_turn_and_a_growth_are_found_again():
    points = np.array([[10.0, 9.0], [14.0, 12.0], [9.0, 14.0]])
    ways = turned(points, 0.4, 1.3, (5, -2))
    forth = similarities(ways, T)
    for t in range(1, T + 1):
        moved = points @ forth[t - 1, :, :2].T + forth[t - 1, :, 2]
        assert moved == pytest.approx(ways[:, t], abs=1e-9)
    assert similarities(ways[:1], T)[:, :, :2] == pytest.approx(np.eye(2)[None].repeat(T, 0))
    finer = turned(points, 0.4, 1.3, (5, -2), 4 * T + 1)
    assert similarities(finer, T) == pytest.approx(forth, abs=1e-9)


def test_an_object_moves_as_its_points():
    points = np.array([[10.0, 9.0], [14.0, 12.0], [9.0, 14.0]])
    ways = turned(points, 0.4, 1.1, (6, 1))
    asked, scene = motion(track(ways))
    assert asked.user[0].tolist() == [False, True]  # sorted by id
    half = torch.tensor([(W - 1) / 2, (H - 1) / 2])
    for t in range(1, T + 1):
        at = torch.tensor(ways[:, t], dtype=torch.float32) / half - 1  # back to frame 0
        back = at @ asked.theta[0, t - 1, 1, :, :2].T + asked.theta[0, t - 1, 1, :, 2]
        assert ((back + 1) * half).numpy() == pytest.approx(points, abs=1e-3)


def test_one_point_is_a_drag_whose_speed_may_vary():
    ways = np.array([[[12, 12], [12, 12], [13, 12], [16, 12], [22, 12]]])
    asked, scene = motion(track(ways))
    centres = (move_boxes(scene.boxes[0], asked.theta[0])[:, 1, 0] + 1) * (W - 1) / 2
    assert (centres - 12.5).tolist() == pytest.approx([0, 1, 4, 10], abs=1e-4)


def test_a_track_of_twice_the_speed_shifts_and_turns_twice_as_far_and_grows_twice():
    """Turned by 0.7 and grown by 1.2 about its own middle, which is far from the corner."""
    points = np.array([[40.0, 20.0], [48.0, 26.0], [41.0, 23.0]])
    t = np.linspace(0, 1, 5)
    for speed in (2.0, 0.5):
        ways, wanted = (
            np.exp(np.log(1.2) * k * t + 0.7j * k * t)
            * (points[:, :1] + 1j * points[:, 1:] - (43 + 23j))
            + (43 + 23j) + k * t * (6 - 2j)
            for k in (1, speed)
        )  # fmt: skip
        (made,) = dragging.faster(Request(tracks=(track(as_xy(ways)),)), speed).tracks
        fits = similarities(np.array(made.points), 4), similarities(as_xy(wanted), 4)
        moved = [(fit[:, :, :2] @ [43.0, 23.0] + fit[:, :, 2], fit[:, :, :2]) for fit in fits]
        for got, expected in zip(*moved, strict=True):
            assert got == pytest.approx(expected, abs=1e-6)


def as_xy(z):
    return np.stack([z.real, z.imag], -1)


def test_a_track_in_an_image_that_was_cut_turns_about_the_same_place():
    """What the demo writes in px of the image as given, gen move reads."""
    cut = still()._replace(scale=(0.5, 0.5), corner=(30.0, 10.0))
    points = np.array([[10.0, 9.0], [14.0, 12.0]])
    request = Request(tracks=(track(turned(points, 0.4, 1.1, (6, 1))),))
    given = scenes.to_given(request, cut)
    assert given.tracks[0].points[0][0] == (50.0, 28.0)
    (again,) = scenes.to_model(given, cut).tracks
    assert np.allclose(again.points, request.tracks[0].points)
    drag = Request((dragging.Drag(13001, ((1, 1), (3, 5))),), camera=(2.0, 4.0, 1.1))
    assert scenes.to_model(drag, cut) == dragging.resized(drag, 0.5, 0.5)


def test_json_and_other_sizes():
    request = Request(tracks=(track([[[1, 2], [3, 4]]]),))
    assert dragging.parse(dragging.dump(request)) == request and request.moved == [13001]
    assert dragging.resized(request, 2, 3).tracks[0].points == (((2, 6), (6, 12)),)


@pytest.mark.parametrize(
    "given, told",
    [
        ([track([[[0, 0], [1, 1]]], 5)], "expected ids among .* got 5"),
        (
            [track([[[0, 0], [1, 1]]]), track([[[0, 0], [1, 1]]])],
            "one drag, pin or removal of an object",
        ),
        ([Track(13001, ((),))], "tracks of 13001: expected one or more points"),
        ([Track(13001, ())], "tracks of 13001: expected one or more points"),
        ([Track(13001, (((0, 0), (1, 1)), ((0, 0), (1, 1), (2, 2))))], "at equal times"),
        ([track([[[0, 0], [1e9, 1]]])], "tracks of 13001: expected at most"),
        ([track([[[0, 0], [90, 0]]])], "drag of 13001: expected a part of it to stay"),
        ([track([[[0, 0], [0, 0]], [[1, 0], [9, 0]]])], "tracks of 13001: expected a scale"),
    ],
)
def test_wrong_tracks_are_named(given, told):
    with pytest.raises(ValueError, match=told):
        motion(*given)


def test_files(tmp_path):
    ways = np.arange(12.0).reshape(2, 3, 2)
    np.save(tmp_path / "t.npy", ways)
    assert load(tmp_path / "t.npy") == pytest.approx(ways)
    np.save(tmp_path / "v.npy", np.array([[True, False, True], [False] * 3]))
    assert load(tmp_path / "t.npy", tmp_path / "v.npy") == pytest.approx(ways[:1])  # evenly filled
    np.save(tmp_path / "bad.npy", np.zeros((2, 3)))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("x")
    for name in ("bad.npy", "pickled.npy", "text.npy", "none.npy"):
        with pytest.raises(ValueError, match=rf"{name}: expected tracks \(K, T, 2\)"):
            load(tmp_path / name)
    with pytest.raises(ValueError, match=r"bad.npy: expected visible \(2, 3\)"):
        np.save(tmp_path / "bad.npy", np.ones((3, 2)))
        load(tmp_path / "t.npy", tmp_path / "bad.npy")
    np.save(tmp_path / "nan.npy", np.full((2, 3, 2), np.nan))
    with pytest.raises(ValueError, match="expected points that are seen"):
        load(tmp_path / "nan.npy")


def test_points_belong_to_the_objects_that_they_begin_on():
    ways = np.array(
        [[[12, 12], [13, 12]], [[45, 20], [45, 21]], [[1, 1], [1, 1]], [[9, 9], [9, 9]]]
    )
    found = scenes.to_tracks(still(), ways.astype(float))
    assert [(one.id, len(one.points)) for one in found] == [(11002, 1), (13001, 2)]
    with pytest.raises(ValueError, match="begin on an object, got none of 1; there are 11002"):
        scenes.to_tracks(still(), np.zeros((1, 2, 2)))


def test_what_is_written_is_read_again():
    ways = turned(np.array([[12.0, 12.0]]), 0, 1, (8, 2))
    asked, scene = motion(track(ways), track([[[45, 20], [64, 20]]], 11002))
    places, seen = scenes.from_motion(still(), scene, asked.theta)
    assert places.shape == (2, T + 1, 2) and seen.shape == (2, T + 1) and seen.all()
    assert places[1, -1] - places[1, 0] == pytest.approx([8, 2], abs=1e-3)
    large = still()._replace(scale=(0.5, 0.25), corner=(3.0, 5.0))
    wide, _ = scenes.from_motion(large, scene, asked.theta)
    assert wide == pytest.approx(places / [0.5, 0.25] + [3, 5], abs=1e-4)
    assert tracks.MOST_POINTS >= len(places)

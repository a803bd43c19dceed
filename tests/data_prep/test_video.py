"""From a video to clips: flow, visibility, masks and tracks of rectangles whose motion is known."""

import io
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from video_flow import background, better, dis, flow_to_first, visible
from video_masks import clip_of_tracks, moving_masks, shots
from video_tracks import doubtful, track

from gen.data import Cityscapes
from gen.data.clips.decoding import Video, fitted, read_masks
from gen.files import UnavailableError, WeightsError, cache_dir
from gen.methods.click_to_move import ClickToMove
from gen.ops.motion import warp
from rows_click_to_move import CLICK_TO_MOVE

ROOT = Path(__file__).resolve().parents[2]
import opencv_vtest  # noqa: E402
import video as recipe  # noqa: E402

H, W, FRAMES = 128, 256, 16  # of the video, twice the model
SIZE = {"height": 64, "width": 128}
NEXT = np.ones((3, 3), np.uint8)
BOXES = [(30, 40, 20, 24, 6), (140, 46, 20, 24, -6), (60, 90, 26, 22, 5)]  # x, y, w, h, px a frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def texture(rng, height, width, low, high):
    noise = rng.uniform(low, high, (height // 4 + 1, width // 4 + 1, 3)).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def scene():
    """Frames (F, H, W, 3) uint8 and maps of the objects: the first two cross."""
    rng = np.random.default_rng(3)
    background = texture(rng, H, W, 60, 120)
    looks = [texture(rng, h, w, *r) for (_, _, w, h, _), r in zip(
        BOXES, [(150, 255), (0, 40), (170, 255)], strict=True)]  # fmt: skip
    frames, maps = [], []
    for t in range(FRAMES):
        frame, owner = background.copy(), np.zeros((H, W), np.uint16)
        for k, ((x, y, w, h, v), look) in enumerate(zip(BOXES, looks, strict=True)):
            frame[y : y + h, x + v * t : x + v * t + w] = look
            owner[y : y + h, x + v * t : x + v * t + w] = k + 1
        frames.append(frame.clip(0, 255).astype(np.uint8))
        maps.append(owner)
    return np.stack(frames), np.stack(maps)


def write(path, frames, codec="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, frames.shape[2:0:-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1].copy())
    writer.release()
    return path


@pytest.fixture(scope="module")
def movie(scene, tmp_path_factory):
    return write(tmp_path_factory.mktemp("movie") / "two_walks.avi", scene[0])


def backs(frames):
    return [dis(b, a) for a, b in zip(frames, frames[1:], strict=False)]


def moving(frames, **options):
    """Numbers of what moves, 0: nothing, in a video without cuts."""
    labels, parts = moving_masks(frames, [slice(0, len(frames))], 11, **options)
    assert parts == [slice(0, len(frames))]
    return np.where(labels > 0, labels.astype(int) - 11000, 0).astype(np.uint16)


def clip_of(frames, maps, kind=11, stuff=0, **options):
    return clip_of_tracks(frames, maps, np.where(maps > 0, 1000 * kind + 1, stuff), **options)


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def truth(maps, t):
    """Of frame t: flow (H, W, 2) to frame 0 and what is visible there (H, W)."""
    speed = np.array([0] + [box[4] for box in BOXES])[maps[t]]
    x = np.arange(W) - t * speed
    rows = np.arange(H)[:, None]
    inside = (x >= 0) & (x < W)
    seen = inside & (maps[0][rows, x.clip(0, W - 1)] == maps[t])
    return np.stack([-t * speed, 0 * speed], -1), seen


# ---- decoding -----------------------------------------------------------------------------------


def test_frames_come_back_in_rgb_and_order(scene, movie):
    read = Video(movie).read(H, W)
    assert read.shape == scene[0].shape and read.dtype == np.uint8
    assert np.abs(read.astype(float) - scene[0]).mean() < 6  # JPEG
    assert np.array_equal(Video(movie).read(H, W, every=5), read[::5])


# ---- flow and visibility ------------------------------------------------------------------------


def test_flow_follows_objects_to_frame_0(scene):
    frames, maps = scene
    clip = clip_of(frames[:6], maps[:6])
    assert clip["ids"].tolist() == [11001, 11002, 11003]
    for t in range(1, 6):
        flow, _ = truth(maps, t)
        flow, owner = flow[::2, ::2] / 2, clip["instance"][t].numpy()
        owner = owner * (cv2.morphologyEx(owner.astype(np.uint8), cv2.MORPH_GRADIENT, NEXT) == 0)
        error = np.linalg.norm(clip["flow"][t - 1].permute(1, 2, 0).numpy() - flow, axis=-1)
        for k in (1, 2, 3):
            assert (owner == k).sum() > 60 and error[owner == k].mean() < 0.5, (t, k)


def test_the_uncovered_strip_is_not_visible(scene):
    frames, maps = scene
    clip = clip_of(frames[:6], maps[:6])
    for t in (3, 5):
        seen = clip["visible"][t - 1, 0].numpy() > 0
        expected = truth(maps, t)[1][::2, ::2]
        uncovered = (~expected & (maps[t][::2, ::2] == 0)).astype(np.uint8)
        uncovered = cv2.erode(uncovered, NEXT) > 0
        inner = cv2.erode(expected.astype(np.uint8), np.ones((5, 5))) > 0
        assert uncovered.sum() > 60
        assert seen[uncovered].mean() < 0.1 and seen[inner].mean() > 0.95


@pytest.fixture(scope="module")
def walker():
    """A walker on ground of little contrast, 6 px a frame for 5 frames, and the maps."""
    rng = np.random.default_rng(5)
    ground, look = texture(rng, H, W, 120, 140), texture(rng, 48, 24, 0, 255)
    frames, maps = [], []
    for t in range(5):
        frame, owner = ground + rng.normal(0, 2, (H, W, 3)), np.zeros((H, W), np.uint16)
        frame[50:98, 40 + 6 * t : 64 + 6 * t] = look
        owner[50:98, 40 + 6 * t : 64 + 6 * t] = 7
        frames.append(frame.clip(0, 255).astype(np.uint8))
        maps.append(owner)
    return np.stack(frames), np.stack(maps)


def test_surroundings_do_not_move_with_an_object_nor_it_with_them(walker):
    frames, maps = walker
    here = maps[4] == 7
    ring = (cv2.dilate(here.astype(np.uint8), np.ones((25, 25))) > 0) & ~here
    plain, (back, forth) = dis(frames[4], frames[0]), flow_to_first(frames, maps)[-1]
    assert np.abs(plain[ring]).mean() > 0.5 and np.abs(back[ring]).mean() < 0.1
    errors = [np.linalg.norm(flow - [-24, 0], axis=-1)[here].mean() for flow in (plain, back)]
    assert errors[0] > 10 and errors[1] < 0.2
    seen, left = visible(back, forth), (maps[0] == 7) & ~here
    assert seen[here].mean() > 0.95 and seen[ring & ~left].mean() > 0.95
    assert seen[left].mean() < 0.05


def test_an_object_that_was_not_there_has_no_match(walker):
    frames, maps = walker
    maps = maps.copy()
    maps[0] = 0
    assert np.isfinite(flow_to_first(frames, maps)[-1][0]).all()


def test_flow_to_the_same_object_is_preferred():
    plain, flow = np.full((20, 40, 3), 90, np.uint8), np.zeros((20, 40, 2), np.float32)
    moved, of_a = flow + np.float32([10, 0]), np.zeros((20, 40), np.uint16)
    of_b = of_a.copy()
    of_a[5:15, 5:15], of_b[5:15, 15:25] = 1, 1
    assert not better(plain, plain, [flow, moved]).any()
    assert (better(plain, plain, [flow, moved], of_a, of_b)[of_a > 0] == [10, 0]).all()


def test_the_background_takes_its_motion_from_away_of_things():
    flow = np.full((100, 200, 2), 3, np.float32)
    things = np.zeros((100, 200), bool)
    things[40:60, 90:110] = True
    flow[30:70, 80:120] = 50
    assert (background(flow, things) == 3).all()
    assert np.array_equal(background(flow, things | True), flow)


def test_visibility_is_measured_in_px_of_the_model():
    """0.5 px^2 there are 2 px^2 here, and 1 % of the squares."""
    still, off = np.zeros((4, 6, 2), np.float32), np.float32([[[0, 1]]]).repeat(6, 1).repeat(4, 0)
    assert visible(still, 1.4 * off).all() and not visible(still, 1.45 * off).any()


def test_what_comes_from_outside_is_not_visible():
    flow = np.zeros((4, 6, 2), np.float32)
    assert visible(flow, flow).all()
    flow[..., 0] = 2
    assert visible(flow, -flow).tolist() == [[True] * 4 + [False] * 2] * 4
    assert not visible(flow, 0 * flow).any()


# ---- masks and tracks ---------------------------------------------------------------------------


def test_masks_are_what_moves(scene):
    frames, maps = scene
    labels = moving(frames)
    for t in (0, 2, 15):
        assert labels[t].max() == 3
        assert iou(labels[t] > 0, maps[t] > 0) > 0.85
    assert not moving(frames, min_area=0.1).any()


def test_shadows_are_no_objects():
    rng = np.random.default_rng(0)
    ground = texture(rng, 64, 128, 150, 220).clip(0, 255)
    frames = np.stack([ground] * 9)
    for t in range(9):
        frames[t, 20:40, 12 * t : 12 * t + 12] *= 0.7
        frames[t, 44:60, 12 * t : 12 * t + 12] *= 0.3
    labels = moving(frames.astype(np.uint8))
    assert not labels[:, 20:40].any() and (labels[:, 44:60] > 0).any((1, 2)).all()


def test_a_cut_and_a_sudden_change_of_light_end_a_shot(scene):
    frames = scene[0].copy()
    assert shots(frames) == [slice(0, FRAMES)]
    frames[5:] = frames[5:, ::-1, :, ::-1]  # another place
    frames[11:] = (frames[11:] * 1.3).clip(max=255)
    assert shots(frames) == [slice(0, 5), slice(5, 11), slice(11, FRAMES)]


def test_light_that_changes_slowly_is_no_object(scene):
    frames, maps = scene
    light = np.linspace(0.75, 1.25, FRAMES)[:, None, None, None]
    labels = moving((frames * light).clip(max=255).astype(np.uint8))
    for t in range(FRAMES):
        assert iou(labels[t] > 0, maps[t] > 0) > 0.7


def test_frames_of_which_much_changes_end_a_part(scene):
    frames = np.concatenate([scene[0], scene[0][::-1]])
    frames[15:18] = np.roll(frames[15:18], 9, 1)  # a jolt
    labels, parts = moving_masks(frames, [slice(0, 32)], 11)
    assert parts == [slice(0, 15), slice(18, 32)] and not labels[15:18].any()


@pytest.fixture(scope="module")
def lingers():
    """Frames (80, 64, 128, 3), and maps: one stands for long, then leaves at 8 px a frame."""
    rng = np.random.default_rng(8)
    ground, look = texture(rng, 64, 128, 90, 130), texture(rng, 24, 12, 180, 255)
    maps = np.zeros((80, 64, 128), np.uint16)
    for t, owner in enumerate(maps):
        left = 10 + 8 * max(0, t - 48)
        owner[20:44, left : left + 12] = 1
    frames = np.stack([ground] * 80)
    for frame, owner in zip(frames, maps, strict=True):
        frame[owner > 0] = look.reshape(-1, 3)[: (owner > 0).sum()]
    return frames.clip(0, 255).astype(np.uint8), maps


def test_who_leaves_after_long_leaves_nothing_behind(lingers):
    frames, maps = lingers
    labels = moving(frames)
    for t in (50, 52, 55, 60):
        assert iou(labels[t] > 0, maps[t] > 0) > 0.7, t
    assert not labels[78:].any()


def test_what_hardly_moves_or_fills_the_frame_is_no_object(lingers, scene):
    frames, maps = (part[34:58] for part in lingers)  # too short for a background of its own
    labels = moving(frames)
    assert iou(labels[-1] > 0, maps[0] > 0) > 0.3  # where it stood
    tracks = track(labels, backs(frames))
    (still,) = doubtful(tracks)["hardly move"]
    assert iou(tracks[-1] == still, maps[0] > 0) > 0.7
    assert doubtful(scene[1]) == {"hardly move": [], "fill the frame": []}
    large = np.where(
        np.arange(H)[:, None] > 20 + np.arange(FRAMES)[:, None, None], 2, scene[1] == 1
    )
    assert doubtful(large.astype(np.uint16)) == {"hardly move": [], "fill the frame": [2]}


def test_ids_are_kept_where_objects_cross(scene):
    frames, maps = scene
    labels = moving(frames)
    merged = [t for t in range(FRAMES) if labels[t].max() < 3]
    assert 2 <= len(merged) and 0 < min(merged) and max(merged) < FRAMES - 1
    tracks = track(labels, backs(frames))
    for k in (1, 2, 3):
        ids = {t: np.bincount(tracks[t][maps[t] == k]).argmax() for t in (0, FRAMES - 1)}
        assert ids[0] == ids[FRAMES - 1] > 0
        assert iou(tracks[-1] == ids[0], maps[-1] == k) > 0.8
    assert tracks.max() == 3


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_gaps_are_bridged_up_to_two_frames(scene, gap):
    frames, maps = scene
    labels = np.where(maps == 3, maps, 0)
    labels[4 : 4 + gap] = 0
    tracks = track(labels, backs(frames))
    if gap == 3:
        assert not tracks[4:7].any() and (tracks[7] == 2).any() and tracks.max() == 2
    else:
        assert tracks.max() == 1
        assert all(iou(tracks[t] == 1, maps[t] == 3) > 0.8 for t in range(FRAMES))


def test_a_track_that_does_not_come_back_is_not_prolonged(scene):
    frames, maps = scene
    labels = np.where(maps == 3, maps, 0)
    labels[14:] = 0
    assert not track(labels, backs(frames))[14:].any()


def test_tracks_that_jump_in_size_or_are_small_are_left_out(scene):
    frames, maps = scene[0][:3], scene[1][:3].copy()
    maps[1][maps[1] == 3] = 0
    maps[1, 90:96, 70:80] = 3  # a tenth
    assert len(clip_of(frames, maps)["ids"]) == 2
    clip = clip_of(frames, scene[1][:3], 13, 1, min_area=0.0160)
    assert clip["ids"].tolist() == [13001] and int(clip["instance"].max()) == 1
    assert (clip["semantic"] == 13).sum() > (clip["instance"] > 0).sum()  # still cars
    assert clip_of(frames, scene[1][:3], 13, 1, min_area=0.5) is None


# ---- the recipe ---------------------------------------------------------------------------------


def test_the_recipe_writes_what_cityscapes_reads(scene, movie, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(movie), "--out", str(out), "--height", "64", "--width", "128", "--frames", "4",
               "--stride", "3", "--class", "car"]  # fmt: skip
    assert recipe.main(command) == 0
    assert "look at" in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] and manifest["train"]["frames"] == [[0, 11]]
    data = Cityscapes(str(out), frames=4, max_objects=4, num_workers=0, **SIZE)
    assert [len(data.clips(s)) for s in ("train", "val")] == [3, 1]
    clip = data.clips("train")[0]
    assert clip["video"].shape == (4, 3, 64, 128) and clip["flow"].shape == (3, 2, 64, 128)
    assert clip["ids"].tolist() == [13001, 13002, 13003, 0]
    small = scene[1][:4, ::2, ::2]
    order = [int(clip["instance"][0][torch.from_numpy(small[0] == k)].mode()[0]) for k in (1, 2, 3)]
    assert sorted(order) == [1, 2, 3]
    for k, number in enumerate(order):
        assert iou(clip["instance"].numpy() == number, small == k + 1) > 0.8
        x, _, _, _, v = BOXES[k]
        moved = (clip["boxes"][3, number - 1, 0] - clip["boxes"][0, number - 1, 0]) * 127 / 2
        assert moved == pytest.approx(3 * v / 2, abs=1.5)
    assert Image.open(out / recipe.SHEET).width > 4 * 256
    before = (out / recipe.SHEET).stat().st_mtime_ns
    assert recipe.main(command) == 0 and (out / recipe.SHEET).stat().st_mtime_ns == before
    assert recipe.main([*command[:-1], "bus"]) == 1  # not over another data set
    assert "holds another data set: expected class bus, got car" in capsys.readouterr().err


def test_no_clip_spans_a_cut(scene, tmp_path, capsys):
    """In the tenth for validation, too, which begins earlier where the last part is short."""
    frames = np.concatenate([scene[0], 255 - scene[0][:, ::-1], scene[0][:3]])
    path, out = write(tmp_path / "cut.avi", frames), tmp_path / "out"
    assert recipe.main([str(path), "--out", str(out), "--height", "64", "--width", "128",
                        "--frames", "5", "--stride", "3"]) == 0  # fmt: skip
    assert "3 parts between cuts" in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["parts"] == [[0, 15], [16, 31], [32, 34]]
    assert manifest["val"]["frames"] == [[27, 34]] and manifest["val"]["clips"] == 1
    firsts = {int(p.stem.split("_")[2]) for p in out.glob("*_instance_tracking_test/*/*.txt")}
    assert firsts == {0, 3, 6, 9, 16, 19, 22, 27}
    with pytest.raises(ValueError, match="without a cut or a sudden change .* at most 16 in a row"):
        recipe.prepare(path, tmp_path / "no", 64, 128, frames=17)


@pytest.mark.parametrize(
    "held_out, val, train",
    [
        ("end", [36, 39], [[0, 35]]),
        ("middle", [18, 21], [[0, 17], [22, 39]]),
        ("begin", [0, 3], [[4, 39]]),
    ],
)
def test_another_tenth_is_held_out(held_out, val, train):
    whole = [slice(0, 40)]
    starts, reach = recipe.windows("a.mp4", whole, 40, 4, 2, held_out)
    assert reach == {"train": train, "val": [val]} and starts["val"] == [val[0]]
    for start in starts["train"]:  # no frame is in both
        assert not set(range(start, start + 4)) & set(range(val[0], val[1] + 1))
    assert len(starts["train"]) >= 15
    cut = [slice(0, 19), slice(19, 40)]  # the part around the middle has another beginning
    starts, reach = recipe.windows("a.mp4", cut, 40, 4, 2, held_out)
    for start in (*starts["train"], *starts["val"]):
        assert any(part.start <= start and start + 4 <= part.stop for part in cut)
    assert starts["train"] and starts["val"]


def test_what_is_no_object_is_left_out_and_told(lingers, tmp_path):
    frames = lingers[0][34:58].repeat(2, 1).repeat(2, 2)
    path = write(tmp_path / "stands.avi", frames)
    manifest = recipe.prepare(path, tmp_path / "out", 64, 128, frames=4, stride=4)
    assert manifest["left_out"] == {"hardly move": 1}
    assert "objects left out: 1 that hardly move" in recipe.describe(tmp_path / "out", manifest)
    clips = Cityscapes(str(tmp_path / "out"), frames=4, num_workers=0, **SIZE)
    for split in ("train", "val"):
        for k in range(len(clips.clips(split))):
            clip = clips.clips(split)[k]
            assert int(clip["present"].sum()) == 1
            thing = clip["semantic"] == 11
            assert torch.equal(thing, clip["instance"] > 0)  # and no person stands where it stood


def test_a_portrait_video_keeps_its_height(scene, tmp_path, monkeypatch):
    assert recipe.SIZE == (128, 256)
    monkeypatch.setattr(recipe, "SIZE", (32, 64))
    frames = np.rot90(scene[0], 1, (1, 2))  # 256 high, 128 wide
    path, out = write(tmp_path / "portrait.avi", frames), tmp_path / "out"
    manifest = recipe.prepare(path, out, frames=4, stride=4)
    assert (manifest["recipe"]["height"], manifest["recipe"]["width"]) == (64, 32)
    assert manifest["kept"] == [128, 256] and "cut to" not in recipe.describe(out, manifest)
    data = Cityscapes(str(out), 64, 32, frames=4, max_objects=4, batch_size=2, num_workers=0)
    method = ClickToMove(**CLICK_TO_MOVE | {"height": 64, "width": 32})
    video, terms = method.training_terms(next(iter(data.train_dataloader())), method.weights())
    assert video.shape == (2, 3, 3, 64, 32) and all(map(torch.isfinite, terms.values()))
    manifest |= {"kept": [128, 16]}
    assert "cut to the middle 128 x 16 px of 128 x 256 px" in recipe.describe(out, manifest)


@pytest.fixture
def masks(scene, tmp_path):
    """Masks with other numbers in every frame, as a segmenter gives them."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for t, owner in enumerate(scene[1]):
        values = np.where(owner > 0, 13000 + (owner + t) % 3 + 1 + 300 * (t % 2), 1)
        values[owner == 2] -= 2000  # a person
        values = values.astype(np.uint16)
        Image.fromarray(values).save(folder / f"{t:04}.png")
    return folder


def test_masks_of_the_user_are_tracked(scene, movie, masks, tmp_path):
    out = tmp_path / "out"
    manifest = recipe.prepare(movie, out, 64, 128, frames=4, stride=4, masks=masks)
    assert manifest["train"] == {"clips": 3, "objects": 8, "frames": [[0, 11]]}  # one pair crosses
    clip = Cityscapes(str(out), frames=4, num_workers=0, **SIZE).clips("train")[0]
    owner = scene[1][:4, ::2, ::2]
    expected = np.array([0, 3, 1, 2])[owner]  # in the order of classes and frame 0's numbers
    assert (clip["instance"].numpy() == expected).mean() > 0.98
    assert clip["ids"].tolist()[:3] == [11001, 13002, 13003]
    assert (clip["semantic"].numpy() == np.array([1, 13, 11, 13])[owner]).mean() > 0.98


def test_masks_are_read_in_the_order_of_their_numbers(movie, masks, tmp_path):
    padded = read_masks(masks, Video(movie), 16, 64, 128)[0]
    for file in masks.glob("*.png"):
        file.rename(file.with_name(f"{int(file.stem)}.png"))
    assert np.array_equal(read_masks(masks, Video(movie), 16, 64, 128)[0], padded)


def test_objects_of_masks_that_get_lost_are_counted(movie, masks):
    whole = read_masks(masks, Video(movie), 16, 128, 256)
    maps, lost = read_masks(masks, Video(movie), 16, 128, 128)
    assert np.array_equal(maps, whole[0][:, :, 64:192])  # cut as its frames are
    numbers = [[len(np.unique(m[m >= 1000])) for m in some] for some in (whole[0], maps)]
    assert whole[1] == 0 < lost == sum(numbers[0]) - sum(numbers[1])


def complains(capsys, *command):
    assert recipe.main([str(c) for c in command]) == 1
    return capsys.readouterr().err


def test_what_is_wrong_with_a_video_is_named(scene, movie, tmp_path, capsys):
    frames, out = scene[0], ("--out", tmp_path / "out", "--height", 64, "--width", 128)
    path = tmp_path / "x.avi"
    assert f"{path}: expected a video file, got none" in complains(capsys, path, *out)
    for data in (b"", b"no video" * 99, movie.read_bytes()[:300]):
        path.write_bytes(data)
        error = complains(capsys, path, *out)
        assert f"{path}: expected" in error and ("decodes" in error or "truncated" in error)
    path.write_bytes(movie.read_bytes()[: movie.stat().st_size // 2])
    error = complains(capsys, path, *out)
    assert "more bytes after 8 frames, got a truncated video; fetch it again" in error
    write(path, frames[:7])
    error = complains(capsys, path, *out)
    assert "expected 12 frames or more" in error and "got 7, at most 7 in a row" in error
    error = complains(capsys, movie, *out, "--every", 2)
    assert "got 8, at most 8 in a row" in error
    for every, count in ((3, 6), (100, 1)):
        error = complains(capsys, movie, *out, "--every", every)
        assert f"{movie}: expected 12 frames or more" in error and f"got {count}, at" in error
    write(path, np.repeat(frames[:1], 14, 0))
    error = complains(capsys, path, *out)
    assert "expected objects, got none in 14 frames" in error and "--masks" in error
    noise = np.random.default_rng(0).integers(0, 256, (14, 16, 32, 3), np.uint8)
    write(path, noise.repeat(8, 1).repeat(8, 2))
    error = complains(capsys, path, *out)
    assert "expected a camera that stands still" in error and "--masks" in error
    error = complains(capsys, movie, *out, "--min-area", 0.05)
    assert "lower --min-area from 0.05" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "held_out, empty, told",
    [
        ("end", range(12, 16), "12 to 15, which are for val"),
        ("middle", [*range(6), *range(10, 16)], "0 to 6 and 11 to 15, which are for train"),
    ],
)
def test_a_video_in_which_nothing_stays_is_refused(scene, tmp_path, capsys, held_out, empty, told):
    frames = scene[0].copy()
    frames[empty] = np.median(scene[0], 0).astype(np.uint8)
    path = write(tmp_path / "empty_end.avi", frames)
    error = complains(capsys, path, "--out", tmp_path / "out", "--height", 64, "--width", 128,
                      "--frames", 4, "--held-out", held_out)  # fmt: skip
    assert f"got none in frames {told}" in error
    assert not json.loads((tmp_path / "out/manifest.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("option", "expected"),
    [("--every", "--every >= 1"), ("--frames", "--frames >= 2"), ("--stride", "--stride >= 1"),
     ("--height", "--height >= 16"), ("--min-area", "in (0, 1)")],
)  # fmt: skip
def test_options_out_of_range(movie, tmp_path, capsys, option, expected):
    assert expected in complains(capsys, movie, "--out", tmp_path, option, 0)


def test_what_is_wrong_with_masks_is_named(movie, masks, tmp_path, capsys):
    command = (movie, "--out", tmp_path / "out", "--height", 64, "--width", 128, "--masks", masks)
    one = masks / "0003.png"
    good = one.read_bytes()
    one.write_bytes(good[:50])
    assert f"{one}: expected a PNG, got a damaged one" in complains(capsys, *command)
    Image.new("L", (128, 64)).save(one)
    assert f"{one}: expected width and height (256, 128), got (128, 64)" in complains(
        capsys, *command
    )
    Image.new("RGB", (256, 128)).save(one)
    assert f"{one}: expected one channel" in complains(capsys, *command)
    one.unlink()
    error = complains(capsys, *command)
    assert f"{masks}: expected a .png for each frame" in error and "16 of them" in error
    assert "got 15 of 15" in error
    one.write_bytes(good)
    for odd in (24001, 33, 13000):  # of a label id, no trainId, of no number
        Image.fromarray(np.where(np.asarray(Image.open(io.BytesIO(good))) > 1, odd, 0)
                        .astype(np.uint16)).save(one)  # fmt: skip
        told = complains(capsys, *command)
        assert f"{one}: expected trainIds 0 .. 18, 255, or trainId * 1000" in told
        assert f"got {odd}; a label id, as 24 of persons" in told
    for file in masks.glob("*.png"):
        Image.new("L", (256, 128), 255).save(file)
    assert f"expected objects, got only 255 in {masks}" in complains(capsys, *command)
    for file in masks.glob("*.png"):
        Image.new("L", (256, 128)).save(file)
    assert f"expected objects, got only 0 in {masks}" in complains(capsys, *command)


# ---- vtest --------------------------------------------------------------------------------------


def test_vtest_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="apt-get.*not installed.*or put vtest.avi"):
        opencv_vtest.fetch()
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package opencv-doc\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(UnavailableError, match="Unable to locate.*apt-get update.*or put"):
        opencv_vtest.fetch()
    path = tmp_path / "apt/opencv-doc/vtest.avi"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another")
    with pytest.raises(WeightsError, match="expected sha256 45cddc"):
        opencv_vtest.fetch()


def test_vtest_end_to_end(tmp_path, monkeypatch):
    """The first frames: pedestrians are found and tracked, and the flow explains how they look."""
    if not (cache_dir() / "apt/opencv-doc/vtest.avi").exists():
        pytest.skip("no vtest.avi in the cache: python data_prep/opencv_vtest.py fetches it")
    path = opencv_vtest.fetch()
    reader, frames = cv2.VideoCapture(str(path)), []
    while len(frames) < 24:
        frames.append(fitted(reader.read()[1], 128, 256)[..., ::-1])
    monkeypatch.setattr(Video, "read", lambda *a: np.stack(frames))
    out = tmp_path / "out"
    manifest = recipe.prepare(path, out, 64, 128, frames=4, stride=4)
    assert manifest["train"]["clips"] == 5 and manifest["train"]["objects"] >= 10
    clips = Cityscapes(str(out), frames=4, num_workers=0, **SIZE).clips("train")
    before = after = 0.0
    for i in range(5):
        clip = clips[i]
        last, first = clip["video"][3:], clip["video"][:1]
        moved = ((clip["instance"][3] > 0) & (clip["visible"][2, 0] > 0)).float()
        before += float(((last - first).abs() * moved).sum())
        after += float(((last - warp(first, clip["flow"][2:])).abs() * moved).sum())
    assert after < 0.6 * before

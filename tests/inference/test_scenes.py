"""Images with masks from files, words of a command line, and scripts/click_to_move.py."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from gen import viz
from gen.data.clips.decoding import fitted
from gen.inference import dragging, scenes
from gen.inference.dragging import Drag, Request
from gen.methods.click_to_move import ClickToMove
from gen.methods.domain_classifier import DomainClassifier
from rows_click_to_move import CLICK_TO_MOVE
from runs import CLASSIFIER, ship

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/click_to_move.py"
H, W = 32, 64


def labels(objects=((13001, 4, 4), (11002, 20, 30)), k=1) -> np.ndarray:
    """Ids (k H, k W): road, and objects of an id and left upper corner (y, x) of 8 x 10 px."""
    ids = np.zeros((H, W), np.uint16)
    ids[0] = 255
    for id_, y, x in objects:
        ids[y : y + 8, x : x + 10] = id_
    return ids.repeat(k, 0).repeat(k, 1)


@pytest.fixture
def write(tmp_path):
    """A frame and masks as files; their paths."""

    def files(ids=None, size=None):
        ids = labels() if ids is None else ids
        rng = np.random.default_rng(0)
        height, width = size or ids.shape[:2]
        blocks = Image.fromarray(rng.integers(0, 256, (2, 4, 3), np.uint8))
        blocks.resize((width, height), Image.Resampling.NEAREST).save(tmp_path / "f.png")
        Image.fromarray(ids).save(tmp_path / "m.png")
        return tmp_path / "f.png", tmp_path / "m.png"

    return files


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "model.safetensors"
    return ship(ClickToMove(**CLICK_TO_MOVE), path)


@pytest.fixture
def run(checkpoint, monkeypatch, capsys, tmp_path):
    """Runs the script; what it prints, its exit status, and its folder."""

    def script(*words):
        out = tmp_path / "out"
        command = [str(SCRIPT), "--checkpoint", str(checkpoint), "--out", str(out), *words]
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        status, told = 0, ""
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stop:  # its code is what Python then prints
            status, told = 1, stop.code
        said = capsys.readouterr()
        return said.out + said.err + told, status, out

    return script


# ---- images and masks ---------------------------------------------------------------------------


def test_files_are_read_as_they_are(write):
    still = scenes.read(*write(), (H, W))
    assert still.note == "" and still.scale == (1.0, 1.0)
    assert torch.equal(still.instance, torch.from_numpy(labels().astype(np.int64)))
    assert still.semantic.unique().tolist() == [0, 11, 13, 255]
    pixels = np.asarray(Image.open(write()[0]))
    assert np.array_equal(viz.to_uint8(still.frame), pixels)
    scene = dragging.scene(still.frame, still.semantic, still.instance)
    assert scene.ids.tolist() == [[11002, 13001]]


def test_another_size_is_resized_with_a_note(write):
    still = scenes.read(*write(labels(k=3)), (H, W))
    assert torch.equal(still.instance, torch.from_numpy(labels().astype(np.int64)))
    assert still.note == "resized from 192 x 96 to 64 x 32 px" and still.given.shape == (96, 192)
    assert still.scale == (1 / 3, 1 / 3) and scenes.objects(still)[1] == (13001, "car", 26, 23)


def test_other_proportions_are_cut_as_training_cuts_them(write):
    high = np.zeros((96, 64), np.uint16)
    high[32:64] = labels()
    high[4:10, 4:10], high[60:70, 50:60], high[50, 5] = 13007, 13008, 13009
    frame, masks = write(high)
    still = scenes.read(frame, masks, (H // 2, W // 2))
    assert still.note == (
        "cut to the middle 64 x 32 of 64 x 96 px, resized from 64 x 32 to 32 x 16 px, cut off: "
        "13007, too small to stay: 13009, cut in two: 13008"
    )
    assert still.scale == (0.5, 0.5) and scenes.objects(still)[1][:2] == (13001, "car")
    pixels = np.asarray(Image.open(frame))
    assert np.array_equal(viz.to_uint8(still.frame), fitted(pixels, H // 2, W // 2))
    assert scenes.parse_request(still, ["8,38:4,0"]).drags[0].id == 13001  # px of what was given
    with pytest.raises(ValueError, match="got 13007, which is cut off or too small; there are"):
        scenes.parse_request(still, ["6,6:4,0"])
    still = scenes.read(frame, masks, (H, W), "stretch")
    assert still.note.startswith(
        "resized from 64 x 96 to 64 x 32 px, which changes its proportions"
    )
    assert still.scale == (1, 1 / 3)


def test_objects_that_get_lost_are_named(write):
    ids = labels(k=4)
    ids[100, 100] = 18001
    still = scenes.read(*write(ids), (H, W))
    assert still.note.endswith("too small to stay: 18001")
    assert "18001" not in scenes.listed(still)


@pytest.mark.parametrize(
    "ids, size, told",
    [
        (labels()[:, :32], (H, W), r"m.png: expected width and height \(64, 32\), got \(32, 32\)"),
        (
            np.full((H, W), 20, np.uint8),
            None,
            r"m.png: expected trainIds 0 .. 18, 255, or .*, got 20",
        ),
        (labels([(26001, 4, 4)]), None, r"m.png: expected trainIds .* got 26001; a label id"),
        (np.zeros((H, W, 3), np.uint8), None, "m.png: expected one channel, got 3"),
    ],
)
def test_wrong_masks(write, ids, size, told):
    with pytest.raises(ValueError, match=told):
        scenes.read(*write(ids, size), (H, W))


def test_wrong_files(write, tmp_path):
    frame, masks = write()
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(ValueError, match="text.png: expected PNG, JPEG, WebP or BMP"):
        scenes.read(text, masks, (H, W))
    with pytest.raises(ValueError, match="text.png: expected a PNG, got a damaged one"):
        scenes.read(frame, text, (H, W))
    with pytest.raises(ValueError, match="none.png: expected this file, got none"):
        scenes.read(frame, tmp_path / "none.png", (H, W))
    cut = tmp_path / "cut.png"
    cut.write_bytes(masks.read_bytes()[:70])
    with pytest.raises(ValueError, match="cut.png: expected a PNG, got a damaged one"):
        scenes.read(frame, cut, (H, W))


def test_the_frame_before_is_fitted_as_the_frame(write, tmp_path):
    frame, masks = write(np.repeat(labels(k=2), 2, 0))
    assert scenes.read(frame, masks, (H, W)).previous is None
    for fit in ("crop", "stretch"):
        still = scenes.read(frame, masks, (H, W), fit, frame)
        assert torch.equal(still.previous, still.frame) and still.previous.shape == (3, H, W)
    Image.open(frame).crop((0, 0, 128, 127)).save(tmp_path / "before.png")
    told = r"before.png: expected the width and height of .*f.png, \(128, 128\), got \(128, 127\)"
    with pytest.raises(ValueError, match=told):
        scenes.read(frame, masks, (H, W), previous=tmp_path / "before.png")


def test_a_drawn_scene():
    still = scenes.drawn(2, (H, W), 4)
    assert still.frame.shape == (3, H, W) and len(scenes.objects(still)) >= 1
    dragging.scene(still.frame, still.semantic, still.instance)
    assert torch.equal(still.instance, scenes.drawn(2, (H, W), 4).instance)
    with pytest.raises(ValueError, match="scene: expected a number in 0 .. 199, got 200"):
        scenes.drawn(200, (H, W), 4)


# ---- words --------------------------------------------------------------------------------------


def test_words_are_a_request(write):
    still = scenes.read(*write(), (H, W))
    got = scenes.parse_request(still, ["13001:8,-2"], ["11002"], ["13001:1.5"], "-4,0,1.1", 3)
    way = ((0.0, 0.0), (8.0, -2.0))
    assert got == Request((Drag(13001, way, 1.5),), (11002,), (-4.0, 0.0, 1.1), 3)
    clicked = scenes.parse_request(still, ["5,6:8,-2"], ["33,24"], ["6,6:1.5"], "-4,0,1.1", 3)
    assert clicked == got
    gone = scenes.parse_request(still, ["13001:8,-2"], remove=["33,24"], confidence=["5,6:0.5"])
    assert gone == Request((Drag(13001, way, 1.0, 0.5),), remove=(11002,))
    grown = scenes.parse_request(still, scales=["13001:2"])
    assert grown == Request((Drag(13001, ((0.0, 0.0), (0.0, 0.0)), 2.0),))


@pytest.mark.parametrize(
    "words, told",
    [
        ({"drags": ["13001"]}, "drag: expected ID:DX,DY or X,Y:DX,DY of finite numbers"),
        ({"drags": ["13001:1"]}, "drag: expected ID:DX,DY .*got '13001:1'"),
        ({"drags": ["13001:nan,1"]}, "drag: expected .*finite"),
        ({"drags": ["car:1,1"]}, "drag: expected ID:DX,DY .*got 'car:1,1'"),
        ({"drags": ["7:1,1"]}, r"drag: expected an id of 11002 \(person at 34,23\), 13001 .*got 7"),
        ({"drags": ["70,2:1,1"]}, "drag: expected a place in the image of 64 x 32 px, got 70,2"),
        ({"drags": ["60,4:1,1"]}, "drag: expected an object within 8 px of 60,4, got none"),
        ({"pins": ["a"]}, "pin: expected ID or X,Y, got 'a'"),
        ({"pins": ["13001:3"]}, "pin: expected ID or X,Y, got '13001:3'"),
        ({"scales": ["13001:1,2"]}, "scale: expected ID:SCALE"),
        ({"scales": ["13001:1", "13001:2"]}, "scale: expected one for an object"),
        ({"remove": ["13001:3"]}, "remove: expected ID or X,Y, got '13001:3'"),
        ({"remove": ["7"]}, r"remove: expected an id of 11002 .*got 7"),
        ({"confidence": ["13001"]}, "confidence: expected ID:CONFIDENCE or X,Y:CONFIDENCE"),
        ({"confidence": ["13001:1"]}, "confidence: expected a drag or scale of 13001 as well"),
        ({"camera": "1,2"}, "camera: expected DX,DY,ZOOM of finite numbers, got '1,2'"),
    ],
)
def test_wrong_words(write, words, told):
    with pytest.raises(ValueError, match=told):
        scenes.parse_request(scenes.read(*write(), (H, W)), **words)


def test_a_table_is_in_px_of_the_image_given(write):
    still = scenes.read(*write(labels(k=3)), (H, W))
    boxes = torch.tensor([[[8.5, 7.5, 10, 8]], [[10.5, 6.5, 20, 16]]])
    line = scenes.table(still, [13001], boxes, ["you"]).splitlines()[1]
    assert line.split() == ["13001", "car", "you", "+6.0", "-3.0", "2.00"]
    line = scenes.table(still, [13001], boxes, ["removed"]).splitlines()[1]
    assert line.split() == ["13001", "car", "removed", "-", "-", "-"]


# ---- the script ---------------------------------------------------------------------------------


def test_the_script_makes_a_video_of_files_and_again_of_its_request(write, run, tmp_path):
    frame, masks = write(labels(k=2))
    image = ["--frame", frame, "--masks", masks]
    words = ["--drag", "13001:16,2", "--pin", "11002", "--camera", "-4,0,1.1", "--seed", "5"]
    said, status, out = run(*image, *words, "--speed", "1.5")
    assert not status, said
    assert "resized from 128 x 64 to 64 x 32 px" in said and "+24.0" in said
    assert re.search(r"video\.gif \.mp4 \((H\.264|VP9)\)", said)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    pictures = {f"{name}.png" for name in ("arrows", "flow", "visible", "frames")}
    arrays = {"tracks.npy", "visible.npy"}
    assert set(files) == pictures | arrays | {"video.gif", "video.mp4", "request.json"}
    asked = json.loads(files["request.json"])
    assert asked["drags"] == [
        {"id": 13001, "path": [[0, 0], [24, 3]], "scale": 1.0, "confidence": 1.0}
    ]
    assert asked["pins"] == [11002] and asked["seed"] == 5 and asked["remove"] == []
    assert asked["camera"] == pytest.approx([-6, 0, 1.1**1.5])
    gif = Image.open(out / "video.gif")
    assert gif.size == (768, 384) and gif.n_frames == 7  # the arrows; 4 frames, there and back
    first = np.asarray(gif.convert("RGB")).astype(int)
    arrows = np.asarray(Image.open(out / "arrows.png").convert("RGB"))[:384]
    assert abs(first - arrows).mean() < 3 and gif.info["duration"] == 960
    out.rename(asked := tmp_path / "asked")
    said, status, _ = run(*image, "--request", asked / "request.json")
    assert not status, said
    assert files == {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_script_follows_tracks_and_writes_them(write, run, tmp_path):
    frame, masks = write(labels(k=2))
    image = ["--frame", frame, "--masks", masks]
    said, status, out = run(*image, "--drag", "13001:16,2", "--suggest")
    assert not status, said
    ways, seen = np.load(out / "tracks.npy"), np.load(out / "visible.npy")
    assert ways.shape == (*seen.shape, 2) and seen.all()
    (k,) = (k for k, way in enumerate(ways) if way[-1, 0] - way[0, 0] == pytest.approx(16))
    np.save(tmp_path / "one.npy", ways[k : k + 1])
    np.save(tmp_path / "seen.npy", seen[k : k + 1])
    words = ["--tracks", tmp_path / "one.npy", "--visible", tmp_path / "seen.npy", "--suggest"]
    said, status, _ = run(*image, *words)
    assert not status and re.search(r"13001  car +you +\+16.0 +\+2.0", said), said
    assert np.load(out / "tracks.npy") == pytest.approx(ways, abs=0.05)
    said, status, _ = run(*image, "--drag", "11002:1,1", *words[2:])
    assert status and "--visible: expected --tracks as well" in said


def test_the_script_removes_an_object(write, run):
    frame, masks = write()
    words = ["--frame", frame, "--masks", masks, "--remove", "13001"]
    results = []
    for more in ([], ["--suggest"]):
        said, status, out = run(*words, *more)
        assert not status and re.search(r"13001  car +removed +- +- +-\n", said), said
        ways, seen = np.load(out / "tracks.npy"), np.load(out / "visible.npy")
        assert np.isnan(ways[1]).all() and not seen[1].any()
        assert np.isfinite(ways[0]).all() and seen[0].all()
        results.append((ways, (out / "arrows.png").read_bytes()))
    assert np.array_equal(*(ways for ways, _ in results), equal_nan=True)
    assert results[0][1] == results[1][1]
    assert json.loads((out / "request.json").read_text())["remove"] == [13001]


def test_the_script_takes_a_hint_and_the_frame_before(write, run, tmp_path):
    path = ship(ClickToMove(**CLICK_TO_MOVE, past=0.5, unsure=0.2), tmp_path / "model.safetensors")
    frame, masks = write()
    words = ["--frame", frame, "--masks", masks, "--drag", "13001:3,0", "--suggest"]
    more = ["--confidence", "13001:0.5", "--previous", frame]
    said, status, _ = run("--scene", "1", "--drag", "1:1,1", "--previous", frame)
    assert status == 1 and "--previous: expected --frame and --masks as well" in said
    said, status, out = run("--checkpoint", path, *words, *more)
    assert not status, said
    assert json.loads((out / "request.json").read_text())["drags"][0]["confidence"] == 0.5
    for part, told in (more[:2], "--model.unsure 0.2"), (more[2:], "--model.past 0.5"):
        said, status, _ = run(*words, *part)
        assert status == 1 and told in said and "trained without" in said


def test_a_checkpoint_says_how_an_image_is_fitted(write, run, tmp_path):
    frame, masks = write(np.repeat(labels(k=2), 2, 0))
    words = ["--frame", frame, "--masks", masks, "--list"]
    assert "cut to the middle 128 x 64 of 128 x 128 px" in run(*words)[0]
    path = ship(ClickToMove(**CLICK_TO_MOVE, fit="stretch"), tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["hparams"])["fit"] == "stretch"
    said = run("--checkpoint", path, *words)[0]
    assert "resized from 128 x 128 to 64 x 32 px, which changes its proportions" in said


def test_the_script_suggests_what_the_video_shows(run):
    def table(said):
        return [line for line in said.splitlines() if line[:6].strip().isdigit()]

    listed, _, _ = run("--scene", "2", "--list")
    id_, name, _, place = listed.splitlines()[0].split()
    suggested, status, out = run("--scene", "2", "--drag", f"{id_}:3,0", "--suggest")
    written = ["arrows.png", "request.json", "tracks.npy", "visible.npy"]
    assert not status and sorted(p.name for p in out.iterdir()) == written
    arrows = (out / "arrows.png").read_bytes()
    made, _, _ = run("--scene", "2", "--drag", f"{place}:3,0")
    assert table(made) == table(suggested) and arrows == (out / "arrows.png").read_bytes()
    assert len(table(made)) == len(listed.splitlines()) and name in made


def test_the_script_shows_seeds_side_by_side(write, run):
    frame, masks = write(labels([(13001, 4, 4)]))
    words = ["--frame", frame, "--masks", masks, "--drag", "13001:3,0", "--samples", "2"]
    said, status, out = run(*words)
    assert not status and "seed 0" in said and "seed 1" in said
    width, height = Image.open(out / "video.gif").size
    assert width > 2 * 384 and height < 500


def test_an_image_without_objects_has_a_camera(write, run):
    frame, masks = write(labels([]))
    words = ["--frame", frame, "--masks", masks]
    said, status, out = run(*words, "--camera", "-3,0,1")
    assert not status and (out / "video.mp4").exists(), said
    said, status, _ = run(*words)
    assert status == 1 and "expected a --drag or --camera; objects: none" in said
    for words in (["--list"], ["--drag", "1:4,0"]):
        said, _, _ = run("--frame", frame, "--masks", masks, *words)
        assert "none: things are trainId * 1000 + number in its masks, as 13001" in said


@pytest.mark.parametrize(
    "words, told",
    [
        ([], r"objects: 11002 \(person at 34,23\), 13001 \(car at 8,7\)"),
        (["--drag", "13002:1,1"], r"expected an id of 11002 .*got 13002"),
        (["--drag", "13001:60,0"], "drag of 13001: expected a part of it to stay in the image"),
        (["--drag", "13001:0,-900"], "drag of 13001: expected at most 256 px, got 900 px"),
        (["--drag", "13001:1,1", "--pin", "13001"], "expected one drag, pin or removal"),
        (["--drag", "13001:1,1", "--remove", "13001"], "expected one drag, pin or removal"),
        (["--remove", "13001", "--request", "r"], "expected --request, or --drag"),
        (["--confidence", "13001:0.5"], "confidence: expected a drag or scale of 13001 as well"),
        (["--drag", "13001:1,1", "--scale", "13001:9"], "expected a scale in 0.25 .. 4.0, got 9.0"),
        (["--drag", "13001:1,1", "--speed", "0"], "speed: expected a number above 0"),
        (["--drag", "13001:1,1", "--seed", "-1"], "seed: expected a number in 0"),
        (["--scene", "1"], "expected --frame and --masks, or --scene"),
        (["--previous", "none.png", "--drag", "13001:1,1"], "none.png: cannot be read"),
        (["--drag", "13001:1,1", "--samples", "0"], "--samples of 1 to 100"),
        (["--drag", "13001:1,1", "--samples", "1000000000000"], "--samples of 1 to 100"),
        (["--drag", "13001:1,1", "--request", "r"], "expected --request, or --drag"),
        (["--request", "none.json"], "none.json"),
        (["--checkpoint", "none.safetensors", "--list"], "none.safetensors"),
    ],
)
def test_the_script_says_what_is_wrong_in_one_line(write, run, words, told):
    frame, masks = write()
    said, status, out = run("--frame", frame, "--masks", masks, *words)
    assert status == 1 and len(said.splitlines()) == 1 and not out.exists()
    assert said.startswith("error: ")
    with pytest.raises(ValueError, match=told):
        raise ValueError(said)


@pytest.mark.parametrize(
    "text, told",
    [
        (b"{", "r.json: request: expected JSON"),
        (b"\xff\xfe{}", "r.json: request: expected JSON in UTF-8, got other"),
        (b'{"drags": [{"id": 13001}]}', "KeyError: 'path'"),
        (b'{"drags": [{"id": 13009, "path": [[0, 0], [1, 1]]}]}', "expected ids among .*got 13009"),
        (b'{"drags": [{"id": 1e999, "path": []}]}', "a whole number, got inf"),
        (b'{"seed": 1e30}', "seed: expected a number in 0"),
    ],
)
def test_the_script_says_what_is_wrong_with_a_request(write, run, tmp_path, text, told):
    frame, masks = write()
    (tmp_path / "r.json").write_bytes(text)
    said, status, _ = run("--frame", frame, "--masks", masks, "--request", tmp_path / "r.json")
    assert status == 1 and len(said.splitlines()) == 1
    with pytest.raises(ValueError, match=told):
        raise ValueError(said)


def test_the_script_wants_a_model_that_moves(write, run, tmp_path):
    path = ship(DomainClassifier(**CLASSIFIER), tmp_path / "judge.safetensors")
    frame, masks = write()
    said, status, _ = run("--checkpoint", path, "--frame", frame, "--masks", masks, "--list")
    assert status == 1 and "expected an animator of frames, got DomainClassifier" in said


def test_a_model_without_a_camera_refuses_one(write, run, tmp_path):
    path = ship(ClickToMove(**CLICK_TO_MOVE | {"camera": 0.0}), tmp_path / "model.safetensors")
    frame, masks = write()
    words = ["--checkpoint", path, "--frame", frame, "--masks", masks, "--camera", "1,0,1"]
    for more in ([], ["--suggest"]):
        said, status, _ = run(*words, *more)
        assert status == 1 and "camera: expected none of a model that was trained without" in said


LAYERED = CLICK_TO_MOVE | dict(generator="layered")


def test_the_script_makes_clips_of_any_length_and_size_in_layers(write, run, tmp_path):
    path = ship(ClickToMove(**LAYERED), tmp_path / "model.safetensors")
    frame, masks = write(labels(k=3)[:, :96])  # 96 x 96
    words = ["--frame", frame, "--masks", masks, "--drag", "13001:12,3"]
    said, status, out = run("--checkpoint", path, *words, "--frames", "7")
    assert not status and "resized from 96 x 96 to 48 x 48 px" in said, said
    assert "+12.0" in said and np.load(out / "tracks.npy").shape == (2, 8, 2)
    gif = Image.open(out / "video.gif")
    assert gif.size[0] == gif.size[1] and gif.n_frames == 15  # the arrows; 8 there and back
    said, status, out = run("--checkpoint", path, *words, "--size", "32", "64")
    assert not status and "cut to the middle 96 x 48" in said, said
    for more, told in (
        (["--frames", "0"], "--frames: expected 1 to 64, got 0"),
        (["--size", "40", "64"], "or sides that are multiples of 16 px, got [40, 64]"),
    ):
        said, status, _ = run("--checkpoint", path, *words, *more)
        assert status and told in said, said
    said, status, _ = run(*words, "--frames", "7")
    assert status and "frames: expected 3, as the model was trained, got 7" in said


@pytest.mark.parametrize(
    "given, size",
    [((128, 64), (32, 64)), ((300, 300), (48, 48)), ((640, 480), (48, 64)), ((900, 100), (32, 128)),
     ((400, 900), (64, 32)), ((1920, 1080), (32, 64))],
)  # fmt: skip
def test_frames_are_near_the_images_proportions(tmp_path, given, size):
    Image.new("RGB", given).save(tmp_path / "a.png")
    made = ClickToMove(**LAYERED)
    assert scenes.best_size(made, tmp_path / "a.png") == size
    assert scenes.best_size(made) == (32, 64)
    assert scenes.best_size(ClickToMove(**CLICK_TO_MOVE), tmp_path / "a.png") == (32, 64)

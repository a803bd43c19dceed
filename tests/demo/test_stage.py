"""The component of the demo in which objects are dragged: what it is given, and its tab."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", reason="the extra demo is not installed")

import gradio as gr

from gen import viz
from gen.demo import app, cut, move, player, stage  # noqa: F401  (app sets the folder of uploads)
from gen.inference import cutting, dragging, scenes
from gen.methods.click_to_move import ClickToMove
from gen.viz.motion import COLOURS
from rows_click_to_move import CLICK_TO_MOVE

FIELDS = 0, 1, True, 1  # seed, speed, steady camera, zoom


def test_a_scene_says_whose_each_px_is():
    still = scenes.drawn(0, (32, 64), 6)
    shown = stage.scene(still)
    assert len(shown["ids"]) == 32 * 64 and (shown["width"], shown["height"]) == (64, 32)
    for k, id_ in enumerate(shown["numbers"]):
        mine = [letter == chr(49 + k) for letter in shown["ids"]]
        assert torch.equal(torch.tensor(mine), (still.instance == id_).flatten())


def test_colours_are_those_of_the_arrows():
    (line,) = re.findall(r"const COLOURS = {(.*)};", player.source("stage.js"))
    assert dict(re.findall(r'(\w+): "(#\w+)"', line)) == COLOURS


def learnt(**options) -> ClickToMove:
    """An untrained model whose objects move."""
    method = ClickToMove(**CLICK_TO_MOVE, **options)
    last, rng = method.ema.module["animator"].graph.last.weight, torch.Generator().manual_seed(0)
    torch.nn.init.normal_(last, std=0.02, generator=rng)
    return method.eval()


def test_a_removed_object_is_neither_suggested_nor_moved():
    handlers = move.Handlers(learnt())
    still = handlers.drawn(0)
    ids = [id_ for id_, *_ in scenes.objects(still)]
    request = {"remove": ids[:-1]}
    suggested = handlers.suggest(still, request, *FIELDS).value
    assert suggested["remove"] == ids[:-1] and [d["id"] for d in suggested["drags"]] == ids[-1:]
    with pytest.raises(ValueError, match="expected an object that is free, got none"):
        handlers.suggest(still, {"remove": ids}, *FIELDS)
    *_, clip, _, _ = handlers.render(still, 3, request, *FIELDS)
    assert clip.request.remove == tuple(ids[:-1])


def test_a_frame_before_changes_what_is_predicted(tmp_path):
    handlers, still = move.Handlers(learnt(past=0.5)), scenes.drawn(2, (32, 64), 4)
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    Image.fromarray(viz.to_uint8(still.frame)).save(folder / "now.png")
    Image.fromarray(viz.to_uint8(still.frame.roll(-3, 2))).save(folder / "before.png")
    Image.fromarray(still.given.numpy().astype(np.uint16)).save(folder / "masks.png")
    sent = [{"path": str(folder / f"{name}.png")} for name in ("now", "masks", "before")]
    (alone, _), (after, _) = handlers.of_files(*sent[:2]), handlers.of_files(*sent)
    assert alone.previous is None and after.previous.shape == (3, 32, 64)
    paths = [handlers.predict(one, 3, {}, *FIELDS).props["paths"] for one in (alone, after)]
    assert paths[0] != paths[1]
    made = handlers.render(after, 3, {}, *FIELDS)
    theta = dragging.predict(
        handlers.method, *handlers.parts(after), handlers.wanted({}, *FIELDS), after.previous
    )
    assert torch.equal(handlers.predicted(after, handlers.wanted({}, *FIELDS)), theta)
    assert len(made[4].pictures) == 4


@pytest.mark.parametrize("options, count", [({}, 2), ({"past": 0.5}, 3)])
def test_only_a_model_that_takes_a_frame_before_asks_for_it(options, count):
    with gr.Blocks() as page:
        move.tab(page, learnt(**options), "about")
    labels = [part.label for part in page.blocks.values() if isinstance(part, gr.File)]
    assert len(labels) == count and ("Previous" in str(labels)) == (count == 3)


def test_a_model_in_layers_makes_longer_clips():
    handlers = move.Handlers(learnt(generator="layered"))
    still = handlers.drawn(1)
    for frames in (2, 3, 8):
        made = handlers.render(still, frames, {}, *FIELDS)
        assert len(made[4].pictures) == frames + 1
        paths = handlers.predict(still, frames, {}, *FIELDS).props["paths"]
        assert {len(way) for way in paths.values()} == {frames + 1}
    short = move.Handlers(learnt())
    assert (short.most, handlers.most) == (3, 24)
    for one, most in ((short, 3), (handlers, 24)):
        with pytest.raises(ValueError, match=f"frames: expected .* {most}"):
            one.render(still, most + 1, {}, *FIELDS)


# ---- cutting out, and tracks ---------------------------------------------------------------------


def sent(name: str, image: Image.Image) -> dict:
    """The value of a field with an uploaded image."""
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / name
    image.save(path)
    return {"path": str(path)}


@pytest.fixture
def photo() -> Image.Image:
    frame = scenes.drawn(2, (64, 128), 2).frame
    return Image.fromarray(viz.to_uint8(frame)).resize((256, 128))


def test_words_become_masks_and_their_outlines(photo):
    image, words = sent("photo.png", photo), ["car:20,60,100,110", "person:150,64+152,70"]
    empty = cut.opened(image)
    assert empty.value == [] and empty.visible
    assert (empty.props["scene"]["width"], empty.props["scene"]["height"]) == (256, 128)
    shown, file = cut.cut(image, words, None)
    wanted = [cutting.parse(one, (256, 128)) for one in words]
    ids = cutting.masks(np.array(photo), wanted)
    assert np.array_equal(np.array(Image.open(file)), ids) and {13001, 11001} <= {*ids.flat}
    assert shown.props["scene"]["image"] != empty.props["scene"]["image"]
    assert cut.opened(None).visible is False


def test_only_masks_that_were_cut_are_taken_away_again(photo):
    image = sent("photo.png", photo)
    cleared = cut.cut(image, [], {"path": f"/a/{cut.NAME}"})
    assert cleared[1] is None
    for masks in (None, {"path": "/a/own.png"}):
        assert cut.cut(image, [], masks)[1] == gr.skip()


@pytest.mark.parametrize(
    "words, told",
    [
        ("car:1,1", "objects: expected a list of texts"),
        ([3], "objects: expected a list of texts"),
        (["car:" + "1,1+" * 400], "objects: expected a list of texts of at most 500 characters"),
        (["boat:1,1"], "expected a class of person"),
        (["car:900,1"], "expected clicks in the photo of 256 x 128 px"),
        (["car:1,1"] * 41, "expected 1 to 40 objects, got 41"),
    ],
)
def test_other_words_are_refused(photo, words, told):
    with pytest.raises(ValueError, match=told):
        cut.cut(sent("photo.png", photo), words, None)


def test_tracks_in_an_image_that_is_cut_to_shape_are_written_in_its_px(photo):
    """The masks cover 64 x 32 of the model as the middle of a photo that is too wide."""
    wide, ids = Image.new("RGB", (356, 128)), np.zeros((128, 356), np.uint16)
    wide.paste(photo, (50, 0))
    ids[60:90, 130:190] = 13001
    handlers = move.Handlers(learnt())
    masks = sent("masks.png", Image.fromarray(ids))
    still, _ = handlers.of_files(sent("wide.png", wide), masks)
    assert still.corner == (50.0, 0.0) and still.scale == (0.25, 0.25)
    points = [[[22.0, 17.0], [24.0, 17.0]], [[30.0, 17.0], [24.0, 25.0]]]
    request = {"tracks": [{"id": 13001, "points": points}]}
    *_, clip, _, _ = handlers.render(still, 3, request, *FIELDS)
    assert clip.request.tracks[0].points[0] == ((138.0, 68.0), (146.0, 68.0))
    again = scenes.to_model(clip.request, still)
    theta = handlers.predicted(still, handlers.wanted(request, *FIELDS))
    assert dragging.motion(again, dragging.scene(*handlers.parts(still)), 3) is not None
    assert np.allclose(handlers.predicted(still, again).numpy(), theta.numpy(), atol=1e-6)

"""Handlers of the Edit tab, on stand-ins whose images show their codes, and on an encoder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

gr = pytest.importorskip("gradio", reason="the extra demo is not installed")

import gen  # noqa: E402
from gen import tasks, viz  # noqa: E402
from gen.demo import app, edit  # noqa: E402
from gen.methods.inversion_encoder import InversionEncoder  # noqa: E402
from gen.methods.style_function import StyleFunction  # noqa: E402
from gen.verbs import demo  # noqa: E402
from runs import ENCODER, GENERATOR, STYLE_FUNCTION, ship  # noqa: E402

NAMES = ["bear", "cat", "dog", "dark_fur"]


class Editor(torch.nn.Module):
    """Its code is its attributes, 8 columns of its image show each of them."""

    attribute_names, noise_dim, latent_dim, img_size = NAMES, 4, 4, 32

    def __init__(self):
        super().__init__()
        self.seen = torch.nn.Parameter(torch.zeros(1))  # says on which device

    def map_latents(self, z, psi=None):
        species = torch.nn.functional.one_hot(z[:, :3].argmax(1), 3).float()
        return torch.cat([species, (z[:, 3:] > 0).float()], 1)[:, None]  # (N, 1, 4)

    def synthesize(self, ws):
        columns = (ws - 0.5).repeat_interleave(8, 2)  # (N, 1, 32)
        return columns[:, :, None].expand(-1, 3, 32, -1)

    def edit(self, ws, d, z):
        return d[:, None] + 1e-3 * z[:, None]


class Judge:
    attribute_names, img_size, exclusive = NAMES, 32, [NAMES[:3]]

    def classify(self, x):
        return 10 * x[:, 0, 0, ::8]


class Distance:
    """In place of LPIPS: the mean squared difference of pixels."""

    def features(self, x):
        return [x]

    def distance(self, a, b):
        return (a[0] - b[0]).square().mean((1, 2, 3))


@pytest.fixture
def handlers() -> edit.Handlers:
    return edit.Handlers(Editor(), Judge(), None, Distance())


CAT, DOG = torch.tensor([[[0.0, 1, 0, 0]]]), torch.tensor([[[0.0, 0, 1, 0]]])


def test_the_original_stays_beside_what_changes(handlers):
    *_, (value, frames) = handlers.show(CAT, ["dog"], 5, 0)
    assert value["count"] == len(frames) == 17 and value["at"] == 8
    assert [frame.strength for frame in frames] == [k / 8 for k in range(17)]
    assert value["places"][9] == "strength 1.125" and value["middle"] == "1: as asked"
    source, end = (viz.to_uint8(Editor().synthesize(ws))[0] for ws in (CAT, DOG))
    drawn = [np.asarray(frame.draw()).astype(int) for frame in frames]
    for frame, picture in zip(frames, drawn, strict=True):
        assert np.array_equal(frame.original, source) and len(frame.variations) == 5
        assert np.array_equal(picture[:, :220], drawn[0][:, :220])
    assert all(np.array_equal(image, source) for image in frames[0].variations)
    assert np.abs(frames[8].variations[4].astype(int) - end).max() < 2
    assert (drawn[0][50:250, 240:] != drawn[8][50:250, 240:]).any()
    assert (drawn[0][290:] != drawn[8][290:]).any()  # the second row
    assert (drawn[0][:60, 240:] != drawn[8][:60, 240:]).any()  # the strength in words


def test_the_curves_are_what_judge_and_distance_say(handlers):
    first, (value, _) = handlers.show(CAT, ["dog"], 3, 0)
    assert first[0]["caption"] == "measuring …" and "curves" not in first[0]
    assert value["made"] == first[0]["made"]  # no other frames
    assert value["caption"] == (
        "asked: dog, no cat (probability by the classifier, means of 3 variations)"
    )
    sure, far = value["curves"]
    strengths = torch.tensor(edit.STRENGTHS)
    expected = torch.sigmoid(10 * (strengths.clamp(max=1.5) - 0.5)).tolist()  # of pixels in [-1, 1]
    assert sure["values"] == pytest.approx(expected, abs=5e-3)
    expected = (strengths.clamp(max=1.5).square() / 2).tolist()  # two of four attributes
    assert far["values"] == pytest.approx(expected, abs=1e-2)


def test_without_weights_of_lpips_or_without_a_change_it_says_so(handlers):
    handlers.lpips = None
    *_, (value, _) = handlers.show(CAT, ["dog"], 1, 0)
    assert [curve["name"] for curve in value["curves"]] == ["probability of the change"]
    assert value["caption"].endswith("no LPIPS weights here: the distance is not measured")
    *_, (value, _) = handlers.show(CAT, ["cat"], 1, 0)
    assert "curves" not in value
    assert value["caption"] == "nothing is asked to change, so there is no curve"


@pytest.mark.parametrize(
    "wanted, count, first, told",
    [
        (["cow"], 3, 0, "attributes among bear, cat, dog, dark_fur, got"),
        ("dog", 3, 0, "attributes among"),
        (["dog"], 0, 0, "variations: expected a number in 1 .. 6, got 0"),
        (["dog"], 7, 0, "variations: expected a number in 1 .. 6, got 7"),
        (["dog"], None, 0, "variations: expected a number"),
        (["dog"], 3, -1, "noise: expected a number"),
        (["dog"], 3, float("nan"), "noise: expected a number"),
    ],
)
def test_wrong_values_are_refused(handlers, wanted, count, first, told):
    with pytest.raises(ValueError, match=told):
        next(handlers.show(CAT, wanted, count, first))


@pytest.fixture
def editor(edited) -> StyleFunction:
    method = StyleFunction(**STYLE_FUNCTION)
    method.load_generator(edited["generator"])
    return method.eval()


def an_encoder(generator: str) -> InversionEncoder:
    method = InversionEncoder(**ENCODER, generator=generator)
    method.load_init()
    return method.eval()


def test_an_encoder_finds_the_code_of_a_photo_and_refines_it(editor, edited, monkeypatch):
    encoder, steps = an_encoder(edited["generator"]), []
    handlers = edit.Handlers(editor, gen.load(edited["judge"]), encoder, None)
    path = Path(os.environ["GRADIO_TEMP_DIR"], "encoded.png")
    Image.new("RGB", (32, 32), "orange").save(path)
    sent = {"path": str(path)}
    found = handlers.of_photo(sent)
    x = viz.to_uint8(handlers.photo(sent))
    assert (x == (255, 165, 0)).all()
    assert torch.equal(found, encoder.encode(handlers.photo(sent)))

    def project(x, count, start):
        steps.append(count)
        return start + 1

    monkeypatch.setattr(encoder, "project", project)
    assert torch.equal(handlers.refined(sent), found + 1) and steps == [edit.REFINED]
    for fn in (handlers.of_photo, handlers.refined):
        with pytest.raises(ValueError, match="expected a photo, got none"):
            fn(None)
        with pytest.raises(ValueError, match="expected an uploaded file"):
            fn({"path": "/etc/passwd"})


def test_an_encoder_of_another_generator_is_refused(editor, edited, tmp_path):
    other = ship(gen.methods.StyleGAN2(**GENERATOR | dict(seed=3)), tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match="^encoder: expected an encoder of the editor's .* got"):
        edit.Handlers(editor, gen.load(edited["judge"]), an_encoder(str(other)), None)
    with pytest.raises(
        ValueError, match="--encoder .*: expected an encoder of photos .* got Attri"
    ):
        demo.load("encoder", edited["judge"], "cpu")


@pytest.mark.parametrize(
    "role, told",
    [
        ("encoder", "encoder: expected an encoder of the editor's"),
        ("judge", "classifier: expected the attributes"),
    ],
)
def test_files_that_do_not_fit_the_editor_are_named(edited, tmp_path, monkeypatch, role, told):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    encoder = ship(an_encoder(edited["generator"]), tmp_path / "own.safetensors")
    path = {"encoder": encoder, "judge": edited["judge"]}[role]
    with pytest.raises(SystemExit, match=f"^error: --{role} {path}: {told}"):
        demo.main([f"--{role}", str(path)])


def test_the_encoder_may_be_left_out_and_no_other_role(capsys, monkeypatch):
    roles = {name: role for tab in tasks.TABS for name, role in tab.roles.items()}
    assert [name for name, role in roles.items() if not role.checkpoint] == ["encoder"]
    with pytest.raises(KeyError):
        app.build({"encoder": None}, {name: "" for name in roles}, None)
    with pytest.raises(SystemExit):
        demo.main(["--help"])
    assert "checkpoint of an encoder of photos into codes; default: none" in " ".join(
        capsys.readouterr().out.split()
    )

"""The page of the demo without a browser: what it is sent, what it says, what it is made of."""

import asyncio
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

gr = pytest.importorskip("gradio", reason="the extra demo is not installed")

import gen  # noqa: E402
from gen.checkpoint import read  # noqa: E402
from gen.demo import app, player, translate  # noqa: E402
from gen.demo import downloads as files  # noqa: E402
from gen.demo import validation as inputs  # noqa: E402
from gen.demo.middleware import RequestLimits  # noqa: E402
from gen.verbs import demo  # noqa: E402
from gen.verbs.demo import knows  # noqa: E402
from memory import peak_mebibytes, reset_peak  # noqa: E402
from runs import rows  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Path:
    """Where uploads lie."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def test_an_upload_is_read_and_nothing_else(folder, tmp_path):
    Image.new("RGB", (8, 4), "red").save(folder / "a.png")
    assert inputs.photo({"path": str(folder / "a.png")}) == folder / "a.png"
    Image.new("RGB", (8, 4)).save(tmp_path / "b.png")
    (folder / "link.png").symlink_to(tmp_path / "b.png")
    outside = [tmp_path / "b.png", folder / "link.png", folder / ".." / "etc", folder, None, ""]
    for path in outside:
        with pytest.raises(ValueError, match="expected an uploaded file, got none"):
            inputs.photo({"path": path and str(path)})


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is of side x side px."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", b"x"))
    chunks = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_large_image_is_refused_before_it_is_decoded(folder):
    for side, got in ((9000, "9000 x 9000 px"), (40_000, "far more")):
        (folder / "bomb.png").write_bytes(bomb(side))
        with pytest.raises(ValueError, match=f"at most 64 million px, got {got}; shrink it"):
            inputs.photo({"path": str(folder / "bomb.png")})
    (folder / "heavy.png").write_bytes(bytes(inputs.MAX_BYTES + 1))
    with pytest.raises(ValueError, match="at most 10 MB, got more"):
        inputs.photo({"path": str(folder / "heavy.png")})


def test_a_photo_of_a_camera_is_shrunk_on_arrival(folder):
    Image.new("RGB", (5000, 4000), "teal").save(folder / "photo.jpg")
    image = inputs.picture({"path": str(folder / "photo.jpg")})
    assert min(image.size) >= inputs.ENOUGH_PX and max(image.size) < 2048
    Image.new("RGB", (2100, 30)).save(folder / "wide.png")
    assert inputs.picture({"path": str(folder / "wide.png")}).size == (2100, 30)


@pytest.mark.parametrize("progressive, most", [(False, 60), (True, 250)])
def test_a_photo_of_48_million_px_is_taken_with_little_memory(folder, progressive, most):
    """MiB; as a whole it has 140, and Pillow holds the coefficients of progressive ones."""
    Image.new("RGB", (8064, 6048), "teal").save(folder / "p.jpg", progressive=progressive)
    before = reset_peak()
    assert inputs.picture({"path": str(folder / "p.jpg")}).size == (1008, 756)
    assert peak_mebibytes() - before < most


def test_the_page_says_what_its_models_know(tmp_path):
    """In words of the card; without one, in words of the file and of its run's folder."""
    method = SimpleNamespace(domains=["cat", "dog"], hparams={"img_size": 64})
    path, end = (
        tmp_path / "a.safetensors",
        ("It has seen nothing else: another kind of image, say a photograph, will look wrong."),
    )
    assert knows(str(path), method, 1500) == (
        "A SimpleNamespace (a) that knows cat, dog.\n\nTrained in 1,500 iterations at 64 px on "
        f"data that neither a card beside the file nor a config.yaml names. {end}"
    )
    card = "# a\n\n![p](p.png)\n\nDraws cats\nand dogs.\n\n"
    card += "- **File**: a.\n- **Data**: `x`: 20\n  cats. By Y.\n- b"
    path.with_suffix(".md").write_text(card)
    wide = SimpleNamespace(domains=[], hparams={"height": 64, "width": 128})
    assert knows(str(path), wide, 20) == (
        f"Draws cats and dogs.\n\nTrained in 20 iterations at 64 x 128 px on `x`: 20 cats. {end}"
    )
    run = tmp_path / "mine"
    run.mkdir()
    for line, told in (("{root: data/a}", "gen.data.X of data/a."), ("{}", "gen.data.X, drawn on")):
        (run / "config.yaml").write_text(f"data: {{class_path: gen.data.X, init_args: {line}}}")
        for name in ("mine", "mine/last.ckpt"):
            assert f"px on {told}" in knows(str(tmp_path / name), method, 1)
    assert "(mine) that knows cat" in knows(str(run / "last.ckpt"), method, 1)


def test_the_shipped_models_say_what_they_were_trained_on():
    told = rows("KNOWS") | {
        "smooth_i2i_emoji64": "10,000 iterations at 64 px on `gen prepare emoji --size 64`: 2,651",
        "style_function_heads64": "on latents of the generator, drawn on the fly",
    }
    for name, words in told.items():
        assert words in knows(name, gen.load(name), read(name).iteration)


@pytest.mark.parametrize(
    "value", [None, "3", True, 11, -1, float("nan"), float("inf"), [1], 10**400]
)
def test_a_field_holds_a_number_in_its_range(value):
    with pytest.raises(ValueError, match="seed: expected a number in 0 .. 10, got"):
        inputs.whole(value, "seed", 0, 10)
    assert inputs.whole(3.0, "seed", 0, 10) == 3


def test_hidden_files_are_no_examples(tmp_path):
    """As the copies that macOS leaves beside images."""
    for name in ("cat/a.png", "cat/._a.png", ".trash/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert set(translate.examples(tmp_path, tmp_path)) == {str(tmp_path / "cat/a.png")}


def test_what_is_measured_of_translated_frames_does_not_make_them_fresh(folder):
    method = gen.load("smooth_i2i_emoji64")
    with inputs.Page() as page:
        translate.tab(page, method, "", None, translate.examples(folder / "none", folder))
    show = next(one.fn for one in page.fns.values() if one.name == "show")
    Image.new("RGB", (64, 64), "teal").save(folder / "plain.png")
    end = method.domains[0], 0, None
    first, last = (value for value, _ in show({"path": str(folder / "plain.png")}, *end, *end))
    assert first["made"] == last["made"] and first["caption"] != last["caption"]


def test_errors_in_words(folder, capsys):
    told = inputs.in_words(ValueError(f"{folder}/sub/a.png: expected PNG, got none"))
    assert isinstance(told, gr.Error) and told.message == "a.png: expected PNG, got none"
    ours = inputs.in_words(TypeError("'NoneType' object is not subscriptable"))
    assert "NoneType" not in ours.message and "NoneType" in capsys.readouterr().err


def test_frames_lie_below_each_other():
    pictures = [Image.new("RGB", (12, 8), colour) for colour in ("red", "green", "blue")]
    value = player.frames(pictures, ("a", "b"), "text", [0.5, 0.25])
    sheet = Image.open(player_bytes(value["sprite"])).convert("RGB")
    assert sheet.size == (12, 24) and value["count"] == 3 and value["from"] == "a"
    middle = np.asarray(sheet)[4::8, 6].astype(int)
    assert np.abs(middle - [(255, 0, 0), (0, 128, 0), (0, 0, 255)]).max() < 12


def player_bytes(url: str):
    import base64
    import io

    head, data = url.split(",")
    assert head == "data:image/webp;base64"
    return io.BytesIO(base64.b64decode(data))


def test_the_newest_files_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "NEWEST", 3)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    made = [files.place("a.gif") for _ in range(5)]
    assert [path.parent.exists() for path in made] == [False, False, True, True, True]
    assert made[-1].parent.parent == tmp_path


def test_uploads_of_an_hour_have_an_end(monkeypatch):
    """What was taken counts, not what a stranger sent."""
    monkeypatch.setattr("gen.demo.middleware.MOST_BYTES", 1000)
    body = b'content-disposition: form-data; name="files"; filename="a.png"\r\n' + bytes(400)
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload"}

    def upload(status: int) -> int:
        """What the server behind the doors would say, and what is said."""
        said = []

        async def app(scope, receive, send) -> None:
            assert (await receive())["body"] == body
            await send({"type": "http.response.start", "status": status})

        async def receive() -> dict:
            return {"type": "http.request", "body": body}

        async def send(message: dict) -> None:
            said.append(message.get("status"))

        doors.app = app
        asyncio.run(doors(scope, receive, send))
        return said[0]

    doors = RequestLimits(None)
    assert [upload(401) for _ in range(3)] == [401, 401, 401]
    assert [upload(200) for _ in range(3)] == [200, 200, 507]
    monkeypatch.setattr("gen.demo.middleware.KEPT_S", -1)
    assert upload(200) == 200  # those before are gone


def test_the_page_is_not_shared_without_a_password():
    for auth in ("", "someone", "someone:", ":secret"):
        with pytest.raises(ValueError, match="auth: expected USER:PASSWORD with --share"):
            app.serve(None, None, share=True, auth=auth)
    command = [sys.executable, "scripts/demo.py", "--share"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "--share: expected --auth" in done.stderr


def test_what_is_loaded_is_told_before_the_seconds_that_it_takes(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gen.demo", None)  # the first of the slow imports
    monkeypatch.setattr("gen.commands.EXTRAS", {"gen": "demo"})
    with pytest.raises(SystemExit):
        demo.main(["--translator", "runs/mine/last.ckpt"])
    told = capsys.readouterr().err
    assert told.startswith("loading mine, style_function_heads64, attribute_classifier_heads64")
    assert told.endswith("; then comes the address\n")


def test_importing_the_demo_writes_nothing_here():
    assert not list((ROOT / "gen" / "demo").glob("*.pyi"))  # Gradio would, beside subclasses

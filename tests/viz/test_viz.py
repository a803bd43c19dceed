"""Pictures: the exit is exact, files hold the frames they were given, equal inputs equal bytes."""

import importlib.util
import io
import os
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from gen import viz
from gen.data.images import to_tensor
from gen.report import charts
from gen.viz import attention as attention_viz
from pictures import sprite


def moving(frames=7, h=32, w=32, colours=40):
    """A disc of growing redness that crosses a gradient: uint8 (T, H, W, 3)."""
    out = np.full((frames, h, w, 3), 255, np.uint8)
    for t in range(frames):
        out[t, h // 2 :, :, 1] = np.linspace(0, colours, w).astype(np.uint8)
        cv2.circle(out[t], (4 + t * (w - 8) // frames, h // 3), 5, (200, 10 + t * 9, 30), -1)
    return out


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


# ---- the exit ------------------------------------------------------------------------------------


def test_every_level_returns_exactly():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(viz.to_uint8(to_tensor(levels)), levels)
    assert np.array_equal(viz.to_uint8(to_tensor(levels).double()), levels)


def test_to_uint8_rounds_and_clamps():
    values = torch.tensor([-7.0, -1.0, -0.9999, 0.0, 1 / 255, 0.9961, 1.0, 1.5])
    x = values.expand(2, 3, 1, 8)  # (N, 3, H, W)
    out = viz.to_uint8(x)
    assert out.dtype == np.uint8 and out.shape == (2, 1, 8, 3)
    assert out[1, 0, :, 2].tolist() == [0, 0, 0, 128, 128, 255, 255, 255]
    assert values[0] == -7.0  # inputs stay as they are


@pytest.mark.parametrize(
    "x, names",
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.zeros(4, 4, 3), r"\(4, 4, 3\)"),
        (torch.full((3, 2, 2), float("nan")), "12 NaN or infinite of 12"),
    ],
)
def test_to_uint8_refuses(x, names):
    with pytest.raises(ValueError, match=names):
        viz.to_uint8(x)


# ---- sheets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side, expected", [(64, 192), (100, 200), (192, 192), (256, 256)])
def test_enlarge_by_whole_factors(side, expected):
    assert viz.enlarge(torch.zeros(3, side, side)).size == (expected, expected)


def test_a_picture_has_an_end():
    with pytest.raises(ValueError, match="at most 89478485 px, got 100000 x 100000; ask for"):
        viz.enlarge(torch.zeros(3, 8, 8), 100_000)
    with pytest.raises(ValueError, match="at most 89478485 px"):
        attention_viz.heat(torch.zeros(3, 8, 8), torch.ones(2, 2), 100_000)


def test_grid_places_every_cell():
    colours = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9), None, (255, 255, 0)]]
    rows = [[None if c is None else Image.new("RGB", (32, 32), c) for c in row] for row in colours]
    sheet = np.asarray(viz.grid(rows, lead=(1, 1), cell_px=64, background=None))
    xs, ys = viz.edges(3, 1), viz.edges(2, 1)
    assert sheet.shape == (round(ys[-1] * 64), round(xs[-1] * 64), 4)
    for y, row in zip(ys, colours, strict=False):
        for x, colour in zip(xs, row, strict=False):
            pixel = sheet[round(y * 64) + 32, round(x * 64) + 32]
            assert pixel.tolist() == ([*colour, 255] if colour else [255, 255, 255, 0])
    assert sheet[0, 0, 3] == 0 and sheet[2, 32, 3] == 255  # round corners, straight edges
    assert (sheet[:, 66:70, 3] == 0).all()  # the lead's gutter


def test_grid_captions_take_room_and_ink():
    cell = [[torch.ones(3, 64, 64)] * 2]
    plain, headed = viz.grid(cell), viz.grid(cell, headers=["cat", ("dog", 1)])
    named = viz.grid(cell, headers=[("cats and dogs", 2)], captions=["reference"])
    large = viz.grid(cell, headers=["cat", ("dog", 1)], font_px=60)
    assert large.height == plain.height + round(60 * 1.8)
    assert headed.height > plain.height and headed.width == plain.width
    assert named.width > plain.width and np.asarray(named).min() < 80
    assert np.asarray(plain).min() == 255


@pytest.mark.parametrize(
    "wrong", [dict(headers=["a"]), dict(captions=["a", "b"]), dict(headers=[("a", 3)])]
)
def test_grid_refuses_what_does_not_add_up(wrong):
    with pytest.raises(ValueError, match="expected . (columns under headers|row captions), got"):
        viz.grid([[torch.zeros(3, 8, 8)] * 2], **wrong)
    with pytest.raises(ValueError, match="expected 1 columns in a row, got 2"):
        viz.grid([[torch.zeros(3, 8, 8)], [torch.zeros(3, 8, 8)] * 2])


@pytest.mark.parametrize("px", [0, -1, 7000, 10**9])
def test_grid_refuses_a_sheet_of_no_size_or_too_large_before_it_takes_memory(px):
    with pytest.raises(ValueError, match=f"at most 89478485 px, got .*{px} x {px} px; ask for"):
        viz.grid([[torch.zeros(3, 8, 8)] * 2], cell_px=px)


def test_strip_shows_both_ends():
    frames = [torch.full((3, 8, 8), v) for v in torch.linspace(-1, 1, 20).tolist()]
    sheet = np.asarray(viz.strip(frames, shown=5, cell_px=40, background=None))
    at = [sheet[20, round(x * 40) + 20, 0] for x in viz.edges(5)[:-1]]
    assert at == [0, 67, 134, 188, 255] or at == [0, 67, 121, 188, 255]  # frames 0 5 10|9 14 19
    captioned = viz.strip(frames, ("from", "to"), shown=5)
    assert captioned.height > viz.strip(frames, shown=5).height


# ---- motion --------------------------------------------------------------------------------------


def test_gif_holds_every_frame_in_its_colours(tmp_path):
    frames = moving()
    viz.save_gif(frames, tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == len(frames)
        assert gif.info["duration"] == 100 and gif.info["loop"] == 0
        for frame, read in zip(frames, ImageSequence.Iterator(gif), strict=True):
            assert np.array_equal(np.asarray(read.convert("RGB")), frame)  # few colours: exact


def test_gif_of_many_colours_keeps_white_and_does_not_flicker():
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    frames = np.stack([noise] * 5)
    frames[:, :8] = 255
    for t in range(5):
        frames[t, 20, t] = (1, 2, 3)
    buffer = io.BytesIO()
    viz.save_gif(frames, buffer)
    with Image.open(buffer) as gif:
        read = np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(gif)])
    assert len(read) == 5 and (read[:, :8] == 255).all()
    still = np.ones((32, 32), bool)
    still[20, :5] = False
    assert (read[:, still] == read[:1, still]).all()  # what does not move does not change
    assert psnr(read, frames) > 25


def test_palindrome_is_seamless():
    assert viz.palindrome(range(4)) == [0, 1, 2, 3, 2, 1]
    assert viz.palindrome([5]) == [5]


def has_av() -> bool:
    return importlib.util.find_spec("av") is not None


@pytest.mark.parametrize("codec", ["H.264", "VP9"])
@pytest.mark.parametrize("h, w", [(64, 64), (63, 97)])
def test_mp4_decodes_to_its_frames(tmp_path, monkeypatch, codec, h, w):
    """It says which codec it used: H.264 where PyAV is, else VP9; Chromium plays either."""
    if codec == "VP9":
        monkeypatch.setitem(sys.modules, "av", None)
    elif not has_av():
        pytest.skip("PyAV is not installed")
    frames, path = moving(9, h, w), tmp_path / "a.mp4"
    assert viz.save_mp4(frames, path, fps=8) == codec
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == 8
    assert {"H.264": b"avc1", "VP9": b"vp09"}[codec] in path.read_bytes()
    read = []
    while (got := video.read())[0]:
        read.append(cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB))
    assert len(read) == 9
    assert read[0].shape == (h + h % 2, w + w % 2, 3)
    assert psnr(np.stack(read)[:, :h, :w], frames) > 25


def test_mp4_says_why_it_cannot(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="missing/a.mp4"):
        viz.save_mp4(moving(2), tmp_path / "missing" / "a.mp4")
    monkeypatch.setattr(viz, "_h264", lambda *_: "")
    monkeypatch.setattr(cv2, "VideoWriter_fourcc", lambda *_: 0)
    monkeypatch.setattr(cv2, "VideoWriter", lambda *_: SimpleNamespace(isOpened=lambda: False))
    with pytest.raises(RuntimeError, match="expected PyAV, or an OpenCV that encodes VP9"):
        viz.save_mp4(moving(2), tmp_path / "a.mp4")


@pytest.mark.parametrize("av", [True, False])
def test_an_mp4_goes_to_any_path(tmp_path, monkeypatch, av):
    """One whose name is no UTF-8 ended Python with a segmentation fault."""
    if not av:
        monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    viz.save_mp4(moving(2), path)
    assert path.stat().st_size > 500


def test_equal_inputs_give_equal_bytes(tmp_path):
    x = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    files = []
    for name in "ab":
        viz.save_gif(x, tmp_path / f"{name}.gif")
        viz.save_mp4(x, tmp_path / f"{name}.mp4")
        viz.grid([list(x)], captions=["c"]).save(tmp_path / f"{name}.png")
        files.append([(tmp_path / f"{name}.{e}").read_bytes() for e in ("gif", "mp4", "png")])
    assert files[0] == files[1]


# ---- charts --------------------------------------------------------------------------------------


def test_curves_are_one_chart_a_column():
    rows = [
        {"epoch": "0", "step": str(k), "d/real": str(1 / (k + 1)), "val/ps": "", "once": ""}
        for k in range(50)
    ]
    rows[3]["once"] = "1"
    rows[10]["val/ps"], rows[40]["val/ps"] = "0.5", "0.7"
    drawn = charts.plot_curves(rows)
    assert len(drawn) == 2 and "d/real" in drawn[0] and "val/ps" in drawn[1]
    assert all(svg.startswith("<svg") and svg.endswith("</svg>") for svg in drawn)


def test_chart_smooths_without_shifting_and_counts_what_is_not_finite():
    x = np.arange(500)
    y = np.where(x < 250, 0.0, 1.0)
    y[7] = np.nan
    svg = charts.line_chart(x, y, "a<b")
    assert "1 not finite" in svg and "a&lt;b" in svg
    mean = svg.split('class="mean" points="')[1].split('"')[0]
    points = np.array([p.split(",") for p in mean.split()], float)
    half = points[np.abs(points[:, 1] - points[:, 1].mean()).argmin(), 0]
    assert abs(half - points[:, 0].mean()) < 3  # the step stands in the middle


@pytest.mark.parametrize("lo, hi", [(0, 1), (0.3, 2.6), (-4e-5, 3e-5), (1200, 90000), (7, 7)])
def test_ticks_are_few_and_inside(lo, hi):
    ticks = charts._ticks(lo, hi)
    assert (1 if lo == hi else 3) <= len(ticks) <= 11
    assert ticks[0] >= lo - 1e-9 and ticks[-1] <= hi + 1e-9 * max(1, hi)


def test_pictures_are_written_whole_in_the_format_of_their_name(tmp_path, monkeypatch):
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    path = viz.save_image(picture, tmp_path / "new" / "x.PNG")
    assert np.array_equal(np.asarray(Image.open(path)), picture)
    assert Image.open(viz.save_image(picture, tmp_path / "x.webp")).format == "WEBP"
    with pytest.raises(ValueError, match="x.xyz: expected a name that ends in .png"):
        viz.save_image(picture, tmp_path / "x.xyz")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left on device: .*x.PNG'"):
        viz.save_image(picture[::-1], path)
    assert np.array_equal(np.asarray(Image.open(path)), picture)
    assert [p.name for p in path.parent.iterdir()] == ["x.PNG"]


# ---- transparency -------------------------------------------------------------------------------


def disc():
    """A disc with soft edges, (4, 40, 40): colours times opacity, and opacity, in [-1, 1]."""
    return to_tensor(sprite().convert("RGBa"))


def test_opacity_lies_on_white():
    x = torch.tensor([[-1.0, -1, -1, -1], [1, 0, -1, 1], [-1, -1, -1, 0]])[..., None, None]
    want = torch.tensor([[1.0, 1, 1], [1, 0, -1], [0, 0, 0]])[..., None, None]
    assert torch.equal(viz.over_white(x), want)
    assert viz.over_white(want) is want
    wild = torch.tensor([3.0, 1, -3, -1])[:, None, None]  # no such colour: white at most
    assert torch.equal(viz.over_white(wild), torch.ones(3, 1, 1))


def test_single_images_keep_transparency_and_sheets_do_not(tmp_path):
    x, want = disc(), np.asarray(sprite())
    for name in ("a.png", "a.webp"):
        viz.save_image(x, tmp_path / name)
    seen = Image.open(tmp_path / "a.png")
    got = np.asarray(seen)
    assert seen.mode == "RGBA" and Image.open(tmp_path / "a.webp").mode == "RGBA"
    assert np.array_equal(got[..., 3], want[..., 3])
    solid = want[..., 3] > 200
    assert np.abs(got[solid].astype(int) - want[solid]).max() <= 1
    white = Image.new("RGBA", seen.size, "white")
    flat = np.asarray(Image.alpha_composite(white, seen).convert("RGB")).astype(int)
    for picture in (viz.to_pil(x), Image.open(viz.save_image(x, tmp_path / "a.bmp"))):
        assert picture.mode == "RGB"
        assert np.abs(np.asarray(picture).astype(int) - flat).max() <= 2
    sheet = viz.grid([[x, x]], cell_px=40)
    assert sheet.mode == "RGB" and sheet.getpixel((20, 22)) != (255, 0, 255)
    with pytest.raises(ValueError, match="to_uint8 expected floating images"):
        viz.to_uint8(x)

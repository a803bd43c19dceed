"""One image: odd files become RGB or are refused, augmentation has the stated statistics."""

import re
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from gen.data import images
from gen.data.images import ImageError, augment, image_size, load_image, random_crop
from pictures import encode, picture, with_scans


def test_odd_images_load_as_rgb():
    half = np.full((4, 4), 128, np.uint8)
    deep = np.full((4, 4), 128 * 257, np.uint16)
    white, black = (255, 255, 255), (0, 0, 0)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    cases = {
        "grey": (encode(Image.fromarray(half)), (128, 128, 128)),
        "grey 16": (encode(Image.fromarray(deep)), (128, 128, 128)),
        "rgb 16": (cv2.imencode(".png", np.stack([deep] * 3, 2))[1].tobytes(), (128, 128, 128)),
        "cmyk": (encode(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "JPEG"), black),
        "clear": (encode(Image.new("RGBA", (4, 4), (10, 20, 30, 0))), white),
        "half clear": (encode(Image.new("RGBA", (4, 4), (0, 0, 0, 128))), (127, 127, 127)),
        "grey clear": (encode(Image.new("LA", (4, 4), (0, 0))), white),
        "palette": (encode(palette), (10, 20, 30)),
        "palette clear": (encode(palette, transparency=1), white),
        "rgb key": (encode(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)), white),
        "bilevel": (encode(Image.new("1", (4, 4), 1)), white),
        "webp": (
            encode(Image.new("RGB", (4, 4), (10, 20, 30)), "WEBP", lossless=True),
            (10, 20, 30),
        ),
        "bmp": (encode(Image.new("RGB", (4, 4), (10, 20, 30)), "BMP"), (10, 20, 30)),
    }
    for name, (data, colour) in cases.items():
        image = load_image(data)
        assert image.mode == "RGB" and image.size == (4, 4), name
        assert (np.asarray(image) == colour).all(), (name, image.getpixel((0, 0)), colour)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste("white", (0, 0, 16, 8))  # top left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # inverse of each orientation
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    image = load_image(encode(stored, "JPEG", exif=exif, quality=95))
    assert image.size == upright.size
    assert np.abs(np.asarray(image, int) - np.asarray(upright, int)).mean() < 4


def test_a_missing_image_is_refused_with_its_path(tmp_path):
    with pytest.raises(ImageError, match="gone.png: cannot be read .No such file"):
        load_image(tmp_path / "gone.png")


def test_jpeg_draft_keeps_enough_pixels():
    data = encode(picture(size=(640, 400)), "JPEG")
    assert load_image(data).size == (640, 400)
    assert load_image(data, draft_px=151).size == (320, 200)


def test_augmentation_statistics():
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[:, :, 0] = np.arange(50, 150)  # column
    ramp[:, :, 1] = np.arange(50, 150)[:, None]  # row
    ramp = Image.fromarray(ramp)
    whole = np.asarray(ramp.resize((50, 50), Image.Resampling.BILINEAR), int)
    full = np.ptp(whole[..., 0])
    mirrored = uncropped = 0
    for seed in range(1000):
        out = np.asarray(augment(ramp, 50, np.random.default_rng(seed)), int)
        flip = out[0, 0, 0] > out[0, -1, 0]
        mirrored += flip
        uncropped += np.array_equal(out[:, ::-1] if flip else out, whole)
        width, height = np.ptp(out[..., 0]) / full, np.ptp(out[..., 1]) / full
        assert 0.78 < width * height <= 1.01 and 0.88 < width / height < 1.13
    assert abs(mirrored / 1000 - 0.5) < 0.065 and abs(uncropped / 1000 - 0.5) < 0.065


def test_crops_cover_the_range_and_stay_inside():
    rng = np.random.default_rng(0)
    for width, height in ((100, 100), (130, 100), (500, 20), (1, 1), (1, 300)):
        for _ in range(200):
            left, top, right, bottom = random_crop(width, height, rng)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert random_crop(500, 20, rng) == (239, 0, 261, 20)  # too wide: the middle, ratio 1.1
    for size in (50, 64, 1000):  # the same part of the picture at any resolution
        box = random_crop(size, size, np.random.default_rng(3))
        assert np.allclose(np.divide(box, size), random_crop(1, 1, np.random.default_rng(3)))
    boxes = np.array([random_crop(100, 100, rng) for _ in range(2000)])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert 84.8 < sides.min() < 88 and 99 < sides.max() <= 100  # sqrt(0.8 * 0.9) = 0.849
    assert boxes[:, 0].min() < 0.1 and boxes[:, 0].max() > 10


# ---- metadata -----------------------------------------------------------------------------------

BOMB = zlib.compress(bytes(70 * 2**20))


@pytest.mark.parametrize(
    "name, body",
    [(b"eXIf", b"junk"), (b"eXIf", b"MM\0*\0\0\0\x08\0\x05" + b"\xff" * 30)]
    + [(b"iCCP", b"x\0\0junk"), (b"zTXt", b"k\0\0" + BOMB), (b"iTXt", b"k\0\1\0\0\0junk")]
    + [(name, b"") for name in (b"gAMA", b"pHYs", b"sRGB", b"cHRM", b"tIME", b"gone")],
)
def test_metadata_of_a_png_refuse_no_pixels(name, body):
    plain = encode(picture())
    for wrong in (0, 1):  # a wrong checksum, too
        crc = (zlib.crc32(name + body) + wrong) % 2**32
        chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)
        image = load_image(plain[:33] + chunk + plain[33:])
        assert np.array_equal(np.asarray(image), np.asarray(picture()))


@pytest.mark.parametrize(
    "marker, body",
    [(0xE1, b"Exif\0\0MM\0*junkjunk"), (0xE1, b""), (0xE2, b"ICC_PROFILE\0\1\2junk")]
    + [(0xE2, b"MPF\0MM\0*junkjunkjunk"), (0xED, b"Photoshop 3.0\0008BIM\4\4junk")]
    + [(0xE0, b"JFIF\0"), (0xEE, b"Adobe"), (0xFE, b"\xff\xd8")],
)
@pytest.mark.filterwarnings("ignore:.*(EXIF|MPO)")
def test_metadata_of_a_jpeg_refuse_no_pixels(marker, body):
    plain = encode(picture(), "JPEG")
    part = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    image = load_image(plain[:2] + part + plain[2:])
    assert np.array_equal(np.asarray(image), np.asarray(load_image(plain)))


def test_a_broken_orientation_is_none(monkeypatch):
    def broken(*_, **__):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
    assert load_image(encode(picture())).size == (24, 24)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("most, told", [(4095, True), (1023, True), (65535, False)])
def test_twelve_bits_in_sixteen_are_remarked_once_a_folder(tmp_path, caplog, channels, most, told):
    deep = np.linspace(0, most, 64, dtype=np.uint16).reshape(8, 8)
    path = str(tmp_path / "deep.png")
    cv2.imwrite(path, deep if channels == 1 else np.stack([deep] * 3, 2))
    for _ in range(2):
        assert load_image(path).size == (8, 8)
    expected = f"{path}: black: expected 16 bits that go up to 65535, got at most 4112"
    assert caplog.text.count(expected) == told


# ---- files that take far more than they are ------------------------------------------------------


def test_a_jpeg_of_more_than_100_scans_is_refused():
    assert load_image(with_scans(100)).size == (24, 24)
    for count in (101, 3000):
        with pytest.raises(
            ImageError, match="x.jpg: expected a JPEG of at most 100 scans, got more"
        ):
            load_image(with_scans(count), "x.jpg")


def test_images_come_in_through_one_door():
    """Elsewhere Pillow opens masks, which are PNGs, and what we have made."""
    for path in (*(ROOT / "gen").rglob("*.py"), *ROOT.glob("scripts/**/*.py")):
        others = re.sub(r"Image\.open\(\w+, formats=\(\"PNG\",\)\)", "", path.read_text())
        known = path.name in ("images.py", "page.py")
        assert known or not re.search(r"Image\.open|imread|imdecode", others), path


def test_marks_of_scans_within_metadata_are_none():
    data = encode(picture(), "JPEG", comment=b"\xff\xda" * 500)
    assert data.count(b"\xff\xda") > 500 and load_image(data).size == (24, 24)
    endless = data[:2] + b"\xff\xfe\0\2" * 300_000 + data[2:]
    with pytest.raises(ImageError, match="scans"):
        load_image(endless)


def test_a_large_jpeg_may_have_fewer_scans(monkeypatch):
    monkeypatch.setattr(images, "MAX_PASSES", 24 * 24 * 20)
    assert load_image(with_scans(20)).size == (24, 24)
    with pytest.raises(ImageError, match="at most 20 scans"):
        load_image(with_scans(21))


def wide_webp(side: int, animated: bool) -> bytes:
    """A small WebP whose header says that its canvas is so large."""
    more = dict(save_all=True, append_images=[picture(1)]) if animated else dict(exif=b"Exif\0\0II")
    data = bytearray(encode(picture(), "WEBP", **more))
    assert data[12:16] == b"VP8X"
    data[24:27] = data[27:30] = (side - 1).to_bytes(3, "little")
    return bytes(data)


@pytest.mark.parametrize("animated, most", [(True, 16_000_000), (False, 32_000_000)])
def test_what_decodes_to_several_planes_may_have_fewer_pixels(monkeypatch, animated, most):
    """And it is refused before Pillow takes memory for the canvas."""
    monkeypatch.setattr(images.Image, "open", lambda *_, **__: pytest.fail("opened"))
    side = int(most**0.5) + 1
    with pytest.raises(ImageError, match=f"x.webp: expected at most {most} pixels.*{side}x{side}"):
        load_image(wide_webp(side, animated), "x.webp")


def test_transparent_pictures_may_have_half_the_pixels(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 24)
    assert load_image(encode(picture())).size == (24, 24)
    for clear in (picture().convert("RGBA"), Image.fromarray(np.zeros((24, 24), np.uint16))):
        with pytest.raises(
            ImageError, match="expected at most 288 pixels with transparency, of 16"
        ):
            load_image(encode(clear))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "WEBP", "VP8X", "VP8L"])
def test_sizes_are_read_without_pixels(tmp_path, monkeypatch, format):
    image = picture(size=(37, 19))
    if format == "VP8X":
        data = encode(image, "WEBP", exif=b"Exif\0\0II")
    else:
        lossless = dict(lossless=True) if format == "VP8L" else {}
        data = encode(image, "WEBP" if format == "VP8L" else format, **lossless)
    assert format not in ("VP8X", "VP8L") or data[12:16] == format.encode()
    (tmp_path / "x").write_bytes(data)
    assert image_size(tmp_path / "x") == (37, 19)


def test_large_pictures_are_decoded_one_after_another(monkeypatch):
    now, most, transpose = [], [], images.ImageOps.exif_transpose

    def slow(*args, **options):
        now.append(1)
        most.append(len(now))
        time.sleep(0.05)
        now.pop()
        return transpose(*args, **options)

    monkeypatch.setattr(images.ImageOps, "exif_transpose", slow)
    for limit, expected in ((24 * 24 - 1, {1}), (24 * 24, {1, 2, 3})):
        most.clear()
        monkeypatch.setattr(images, "LARGE_PIXELS", limit)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(load_image, [encode(picture())] * 6))
        assert set(most) <= expected and (max(most) == 1) == (expected == {1})

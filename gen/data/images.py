"""Image files -> RGB -> float tensors in [-1, 1]: robust decoding, augmentation, conversion."""

import io
import logging
import os
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
T = TypeVar("T")
MAX_PIXELS = 64_000_000  # a larger picture is refused before it is decoded
MAX_BYTES = 256 * 2**20  # a larger file is refused, too
LARGE_PIXELS = MAX_PIXELS // 4  # larger pictures are decoded one by one, whatever the threads
MAX_SCANS, MAX_SEGMENTS = 100, 20_000  # of a JPEG file; progressive ones have about 10 scans
MAX_PASSES = 16 * MAX_PIXELS  # pixels times scans
MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # of a part of a JPEG file with a length
SCALE, RATIO = (0.8, 1.0), (0.9, 1.1)  # random crop: share of the area, aspect ratio
MIN_CROP = (SCALE[0] * RATIO[0]) ** 0.5  # smallest side of a crop relative to the short side


class ImageError(ValueError):
    """An image that cannot be used; the message starts with its path."""


def load_image(source: Path | str | bytes, name: str = "", draft_px: int = 0) -> Image.Image:
    """Decodes one image file to 8-bit RGB.

    Converts grey, palette and CMYK, scales 16 bits to 8, composites transparency on white, and
    applies the EXIF orientation. Of an animation, it takes the first frame.

    Args:
        source: path of a file, or the bytes of a file.
        name: name of the image in errors (default: the path).
        draft_px: side, px; above 0, JPEG may decode at 1/2, 1/4 or 1/8 of its size as long as both
            sides keep at least this length: several times faster on large photographs, but not
            bit-exact.

    Raises:
        ImageError: empty, truncated, damaged, too large, or not PNG, JPEG, WebP or BMP.
    """
    return _decode(source, name, draft_px, _to_rgb)


def load_rgba(source: Path | str | bytes, name: str = "", draft_px: int = 0) -> Image.Image:
    """Decodes one image file to 8-bit colours times opacity, and opacity: Pillow's mode RGBa.

    So resizing does not mix in colours that nobody sees. A file without transparency is opaque.
    Arguments and errors are those of `load_image`.
    """
    return _decode(source, name, draft_px, _to_rgba)


def load_alpha(source: Path | str | bytes, name: str = "") -> Image.Image | None:
    """Transparency of an image file as 8-bit grey, 255 is opaque; None without transparency.

    Raises as `load_image`.
    """
    return _decode(source, name, 0, _to_alpha)


def _decode(
    source: Path | str | bytes, name: str, draft_px: int, convert: Callable[[Image.Image], T]
) -> T:
    name = name or (str(source) if not isinstance(source, bytes) else "image")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror})") from error
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name}: expected at most {MAX_BYTES} bytes, got more")
    try:
        with ExitStack() as turn:
            try:
                image = _open(data, name, draft_px, turn)
            except ImageError:
                raise
            except Exception:  # bad metadata are no reason to refuse pixels
                image = _open(_pixels_alone(data), name, draft_px, turn)
            with suppress(Exception):  # an unreadable orientation counts as none
                ImageOps.exif_transpose(image, in_place=True)
            made = convert(image)
        if convert is _to_rgb and data[:4] == b"\x89PNG" and data[24:25] == b"\x10":
            _say_dark(name, made)
        return made
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: expected PNG, JPEG, WebP or BMP, got none of them") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(f"{name}: damaged ({type(error).__name__}: {error})") from error


def _open(data: bytes, name: str, draft_px: int, turn: ExitStack) -> Image.Image:
    if canvas := _webp_canvas(data):  # Pillow takes memory for the canvas before it tells the size
        _check_size(name, *canvas)
    image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP"))
    deep = image.has_transparency_data or image.mode.startswith("I")
    planes = canvas[2] if canvas else 1 + deep
    _check_size(name, image.width, image.height, planes)
    if data[:2] == b"\xff\xd8":
        scans, most = _jpeg_scans(data), MAX_PASSES // (image.width * image.height)
        if scans > min(most, MAX_SCANS):
            raise ImageError(
                f"{name}: expected a JPEG of at most {min(most, MAX_SCANS)} scans, got more; "
                "save it again"
            )
    if draft_px and image.format == "JPEG":
        image.draft(None, (draft_px, draft_px))
    if image.width * image.height * planes > LARGE_PIXELS:
        turn.enter_context(_large)
    image.load()
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, px, read without memory for its pixels.

    Raises:
        Exception: nearly any, for a damaged file.
    """
    with open(path, "rb") as file:
        canvas = _webp_canvas(file.read(32))
    if canvas:
        return canvas[:2]
    with Image.open(path, formats=("PNG", "JPEG", "BMP")) as image:
        return image.size


def _check_size(name: str, width: int, height: int, planes: int) -> None:
    """Refuses a picture that is too large; `planes`: its memory relative to a plain picture."""
    if width * height > (most := MAX_PIXELS // planes):
        kind = {1: "", 2: " with transparency, of 16 bits or in WebP", 4: " of an animation"}[
            planes
        ]
        got = f"{width}x{height}"
        raise ImageError(f"{name}: expected at most {most} pixels{kind}, got {got}; shrink it")


def _webp_canvas(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and planes of a WebP file, from its first bytes; None for another file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    number = int.from_bytes
    if data[12:16] == b"VP8X":
        sides = number(data[24:27], "little"), number(data[27:30], "little")
        return sides[0] + 1, sides[1] + 1, 4 if data[20] & 2 else 2
    if data[12:16] == b"VP8L":
        bits = number(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 2
    return number(data[26:28], "little") & 0x3FFF, number(data[28:30], "little") & 0x3FFF, 2


def _jpeg_scans(data: bytes) -> int:
    """Number of passes of a decoder over all pixels; stops counting above MAX_SCANS."""
    at, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        if scans > MAX_SCANS or not (found := MARKER.search(data, at)) or found[0] == b"\xff\xd9":
            return scans
        scans += found[0] == b"\xff\xda"
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return MAX_SCANS + 1


def _pixels_alone(data: bytes) -> bytes:
    """A PNG or JPEG without the parts that do not change its pixels."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at, kept = 8, [data[:8]]
        while len(head := data[at : at + 8]) == 8:
            end = at + 12 + int.from_bytes(head[:4], "big")
            if head[4:] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
                kept.append(data[at:end])
            at = end
        return b"".join(kept)
    if data.startswith(b"\xff\xd8"):
        at, kept = 2, [data[:2]]
        while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b""):
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            marker = data[at + 1]  # of APPn, only JFIF's and Adobe's parts change the decoding
            decides = marker in (0xE0, 0xEE) and end - at >= 16
            if decides or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                kept.append(data[at:end])
            at = end
        return b"".join([*kept, data[at:]])
    return data


_large = threading.RLock()  # the same thread may open a file twice
_dark: set[str] = set()  # folders that the warning was given for


def _say_dark(name: str, image: Image.Image) -> None:
    """Warns once per folder of a 16-bit file with 12 bits or less, which is black as RGB."""
    folder = os.path.dirname(name)
    if max(high for _, high in image.getextrema()) <= 16 and folder not in _dark:
        _dark.add(folder)
        log.warning(
            "%s: black: expected 16 bits that go up to 65535, got at most 4112 (said once a "
            "folder); multiply 12-bit data by 16", name,
        )  # fmt: skip


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip at 255
        grey = np.rint(np.asarray(image, np.float32) / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_rgba(image: Image.Image) -> Image.Image:
    clear = image.has_transparency_data and not image.mode.startswith("I")
    return (image if clear else _to_rgb(image)).convert("RGBA").convert("RGBa")


def _to_alpha(image: Image.Image) -> Image.Image | None:
    return image.convert("RGBA").getchannel("A") if image.has_transparency_data else None


def resize(
    image: Image.Image, size: int, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """The part `box` (left, top, right, bottom; default all), size x size, antialiased bilinear."""
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


def augment(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """StarGAN v2's augmentation: half the time a random crop, resize, half the time a mirror."""
    cropped, mirrored = rng.random(2) < 0.5
    image = resize(image, size, random_crop(image.width, image.height, rng) if cropped else None)
    return ImageOps.mirror(image) if mirrored else image


def random_crop(
    width: int, height: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """The box of torchvision's RandomResizedCrop: 10 tries, then the largest central box.

    Not rounded to pixels, so a file draws the same part at every resolution.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*SCALE)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        w, h = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            break
    else:
        w, h = min(width, height * RATIO[1]), min(height, width / RATIO[0])
        left, top = (width - w) / 2, (height - h) / 2
    return left, top, min(left + w, width), min(top + h, height)


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """8-bit RGB (H, W, 3) or RGBa (H, W, 4) -> float32 (3 or 4, H, W) in [-1, 1]."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # (C, H, W)
    return x.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)

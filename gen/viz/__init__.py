"""Pictures: conversion of tensors to pixels; grids, strips, GIF and MP4.

This module takes plain images and uses no network and no method. Equal inputs give equal bytes.
"""

import io
import math
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree
from torch import Tensor

from gen.files import write_atomic

Picture = Tensor | np.ndarray | Image.Image  # (3 or 4, H, W) in [-1, 1], uint8 (H, W, 3), or PIL
DISPLAY_PX = 192  # small images are enlarged by a whole factor to at least this, see `enlarge`
GUTTER, APART, ROUND = 0.05, 0.16, 0.06  # gap, gap after a lead, corner radius; in cells
INK = "#333333"


def to_uint8(x: Tensor) -> np.ndarray:
    """Converts images in [-1, 1] to 8-bit pixels: clamp, then round((x + 1) * 127.5).

    The inverse of u / 127.5 - 1: all 256 levels are restored exactly.

    Args:
        x: floats (..., 3, H, W), any device, any float type.

    Returns:
        uint8 array (..., H, W, 3).

    Raises:
        ValueError: not floating, not three channels, or not finite.
    """
    if x.ndim < 3 or x.shape[-3] != 3 or not x.is_floating_point():
        raise ValueError(
            f"to_uint8 expected floating images (..., 3, H, W) in [-1, 1], got {x.dtype} "
            f"{tuple(x.shape)}; divide bytes by 127.5 and subtract 1, and put channels third-last"
        )
    x = x.detach().to("cpu", torch.float32)
    if not x.isfinite().all():
        bad = int((~x.isfinite()).sum())
        raise ValueError(
            f"to_uint8 expected finite values, got {bad} NaN or infinite of {x.numel()}; "
            "look for the term that diverged, or at half-precision overflow"
        )
    return x.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(-3, -1).numpy()


def over_white(x: Tensor) -> Tensor:
    """Lays images with opacity (..., 4, H, W) on white, (..., 3, H, W); returns others unchanged.

    The channels are red, green and blue, each times opacity, and opacity, in [-1, 1] (clamped).
    """
    if x.shape[-3] != 4:
        return x
    colours, opacity = x.clamp(-1, 1).split((3, 1), -3)
    return (colours - opacity + 1).clamp(max=1)


def to_pil(picture: Picture) -> Image.Image:
    """An RGB PIL image of one picture of any accepted kind; opacity is laid on white."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    pixels = to_uint8(over_white(picture)) if isinstance(picture, Tensor) else picture
    return Image.fromarray(pixels)


def to_rgba(x: Tensor) -> Image.Image:
    """An RGBA PIL image of one image (4, H, W) as `over_white` takes it."""
    share = x.clamp(-1, 1).add(1) / 2
    colours = (share[:3] / share[3:].clamp(min=1 / 255)).clamp(max=1)
    opaque = Image.fromarray(to_uint8(colours * 2 - 1))
    opaque.putalpha(Image.fromarray(to_uint8(x[3:].expand(3, -1, -1))[..., 0]))
    return opaque


def image_format(path: str | Path) -> str:
    """Format of a picture file, by the suffix of its name.

    Raises:
        ValueError: no format that can be written has this suffix.
    """
    found = Image.registered_extensions().get(Path(path).suffix.lower())
    if found not in Image.SAVE:
        raise ValueError(f"{path}: expected a name that ends in .png, .webp or .jpg; choose one")
    return found


def save_image(picture: Picture, path: str | Path) -> Path:
    """Writes a picture atomically, in the format of its suffix; creates its folder.

    PNG and WebP keep the transparency of a tensor (4, H, W).

    Raises:
        ValueError: no format that can be written has this suffix.
        OSError: the file cannot be written, e.g. on a full disk; the message names the path.
    """
    buffer, kind = io.BytesIO(), image_format(path)
    clear = isinstance(picture, Tensor) and len(picture) == 4 and kind in ("PNG", "WEBP")
    (to_rgba(picture) if clear else to_pil(picture)).save(buffer, kind)
    write_atomic(path, buffer.getvalue(), fsync=False)
    return Path(path)


def enlarge(picture: Picture, at_least_px: int = DISPLAY_PX) -> Image.Image:
    """Enlarges by the smallest whole factor that makes the shorter side `at_least_px`, LANCZOS.

    64 px become 192 px (x3). For display only: metrics and saved translations stay at the
    model's size. LANCZOS keeps edges crisp where bicubic is soft and nearest is blocky.

    Raises:
        ValueError: the result is so large that Pillow would warn of it.
    """
    image = to_pil(picture)
    k = max(1, math.ceil(at_least_px / min(image.size)))
    size = (image.width * k, image.height * k)
    if k > 1 and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"expected a picture of at most {Image.MAX_IMAGE_PIXELS} px, got {size[0]} x "
            f"{size[1]}; ask for a smaller one"
        )
    return image if k == 1 else image.resize(size, Image.Resampling.LANCZOS)


def edges(n: int, lead: int = 0) -> list[float]:
    """Left edges of n columns (or rows) and the right end, in cells; the first `lead` set apart."""
    return [k * (1 + GUTTER) + APART * (0 < lead <= k) for k in range(n)] + [
        n * (1 + GUTTER) - GUTTER + APART * (0 < lead < n)
    ]


def grid(
    rows: Sequence[Sequence[Picture | None]],
    *,
    headers: Sequence[str | tuple[str, int]] = (),
    captions: Sequence[str] = (),
    labels: Sequence[Sequence[str]] = (),
    lead: tuple[int, int] = (0, 0),
    cell_px: int | None = None,
    font_px: int | None = None,
    background: str | None = "white",
) -> Image.Image:
    """Lays pictures out in rows, with domain names above and row names at the left.

    Args:
        rows: rows of pictures of one size, equally long; None leaves a cell empty.
        headers: texts, one per column, or (text, span) for one text over several columns.
        captions: texts, one per row.
        labels: texts, one under each cell.
        lead: number of first rows and columns (references, sources) that are set apart.
        cell_px: width of a cell, px; default: that of the enlarged pictures, see `enlarge`.
        font_px: height of the texts; default: a tenth of a cell, at least 11 px.
        background: colour for PIL; None: cells on a transparent ground (RGBA).

    Raises:
        ValueError: ragged rows, texts that do not match the columns, rows or cells, or a sheet so
            large that Pillow would warn of it.
    """
    px, count = DISPLAY_PX if cell_px is None else cell_px, len(rows) * len(rows[0])
    if px < 1 or count * px**2 > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"grid: expected cells of at least 1 px, and together at most {Image.MAX_IMAGE_PIXELS} "
            f"px, got {count} of {px} x {px} px; ask for fewer or other ones"
        )
    spans = [(h, 1) if isinstance(h, str) else h for h in headers]
    n, under = len(rows[0]), sum(span for _, span in spans)
    for what, expected, got in [
        *(("columns in a row", n, len(row)) for row in rows),
        ("columns under headers", n, under if spans else n),
        ("row captions", len(rows), len(captions) or len(rows)),
        *(("labels in a row", n, len(row)) for row in labels),
        ("rows of labels", len(rows), len(labels) or len(rows)),
    ]:
        if expected != got:
            raise ValueError(f"grid expected {expected} {what}, got {got}; pad with None or ''")
    cells = [[None if p is None else enlarge(p, px) for p in r] for r in rows]
    w, h = next(cell.size for row in cells for cell in row if cell)
    w, h = cell_px or w, round(h * (cell_px or w) / w)
    font = ImageFont.load_default(size=font_px or max(11, round(w * 0.1)))
    margin = 0 if background is None else round(w * 2 * GUTTER)
    left = round(max(map(font.getlength, captions)) + font.size) if captions else 0
    top = round(font.size * 1.8) if spans else 0
    xs = [margin + left + round(e * w) for e in edges(n, lead[1])]
    below = round(font.size * 1.5) if labels else 0
    ys = [
        margin + top + round(e * w) + k * (h - w + below)
        for k, e in enumerate(edges(len(rows), lead[0]))
    ]
    ground = (255, 255, 255, 0) if background is None else background
    sheet = Image.new("RGBA", (xs[-1] + margin, ys[-1] + margin), ground)
    draw, mask = ImageDraw.Draw(sheet), _rounded((w, h), w * ROUND)
    for y, row in zip(ys, cells, strict=False):
        for x, cell in zip(xs, row, strict=False):
            if cell:
                sheet.paste(cell.resize((w, h), Image.Resampling.LANCZOS), (x, y), mask)
    for y, text in zip(ys, captions, strict=False):
        draw.text((margin + left - font.size, y + h / 2), text, INK, font, anchor="rm")
    for y, row in zip(ys, labels, strict=False):
        for x, text in zip(xs, row, strict=False):
            draw.text((x + w / 2, y + h + font.size * 1.2), text, INK, font, anchor="ms")
    column = 0
    for text, span in spans:
        middle = (xs[column] + xs[column + span - 1] + w) / 2
        draw.text((middle, margin + top - font.size * 0.7), text, INK, font, anchor="ms")
        column += span
    return sheet if background is None else sheet.convert("RGB")


def strip(
    frames: Iterable[Picture], captions: Sequence[str] = (), shown: int | None = None, **layout
) -> Image.Image:
    """One row of frames, e.g. of a path; `shown` of them, evenly spaced, with both ends.

    Args:
        captions: texts, one per shown frame ('' for none), or exactly two: first and last.
        layout: options of `grid`, as keyword arguments.
    """
    frames = list(frames)
    keep = np.linspace(0, len(frames) - 1, shown or len(frames)).round().astype(int)
    if len(captions) == 2 < len(keep):
        captions = [captions[0], *[""] * (len(keep) - 2), captions[1]]
    return grid([[frames[k] for k in keep]], headers=captions, **layout)


def palindrome(frames: Iterable[Picture]) -> list:
    """Forth and back without repeating either end: T frames become 2T - 2, a seamless loop."""
    frames = list(frames)
    return frames + frames[-2:0:-1]


def save_gif(frames: Iterable[Picture], path: str | Path | IO[bytes], fps: float = 12) -> None:
    """Saves an endlessly looping GIF with one palette for all frames and no dither: no flicker.

    The palette holds up to 256 colours exactly; if there are more, the 32 commonest exactly
    (white stays white) and 224 fitted ones, of which each pixel takes the nearest. GIF counts
    time in 10 ms: 12 fps plays at 12.5. A frame equal to the frame before prolongs that frame
    and is not stored again.
    """
    pixels = np.stack([np.asarray(to_pil(f)) for f in frames])  # (T, H, W, 3)
    codes = pixels @ np.array([65536, 256, 1])  # (T, H, W)
    counts = np.bincount(codes.ravel(), minlength=2**24)
    found = np.flatnonzero(counts)  # (C,) codes of the colours that occur
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], 1)  # (C, 3)
    palette = _palette(pixels, colours, counts[found])  # (<= 256, 3)
    index = np.zeros(2**24, np.uint8)
    index[found] = cKDTree(palette).query(colours)[1]
    images = [Image.fromarray(index[code]) for code in codes]  # grey ..
    for image in images:
        image.putpalette(palette.tobytes())  # .. now indices
    ms = max(20, round(100 / fps) * 10)  # browsers slow anything below 20 ms down to 100 ms
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=ms, loop=0)


def _palette(pixels: np.ndarray, colours: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Up to 256 colours: the 32 commonest, and an octree's, refined by four rounds of k-means."""
    palette = colours[np.argsort(-counts, kind="stable")[: 32 if len(colours) > 256 else 256]]
    if len(colours) > 256:
        sheet = Image.fromarray(pixels.reshape(1, -1, 3))
        octree = sheet.quantize(224, Image.Quantize.FASTOCTREE).getpalette()
        palette = np.concatenate([palette, np.reshape(octree, (-1, 3))]).astype(float)  # (K, 3)
        for _ in range(4):
            near = cKDTree(palette).query(colours)[1]  # (C,)
            n = np.bincount(near, counts, len(palette))  # (K,)
            sums = np.stack([np.bincount(near, counts * c, len(palette)) for c in colours.T], 1)
            moved = np.arange(len(palette)) * (n > 0) >= 32
            palette[moved] = sums[moved] / n[moved, None]
    return palette.round().astype(np.uint8)


def save_mp4(frames: Iterable[Picture], path: str | Path, fps: float = 12) -> str:
    """Saves an MP4 that browsers play, 4:2:0, and returns its codec: `H.264` or `VP9`.

    H.264 plays everywhere and needs PyAV (`pip install av`, whose wheel has the encoder). Without
    PyAV the codec is VP9, whose encoder is in the wheel of OpenCV. Odd sizes gain one repeated
    row or column, since 4:2:0 needs even sizes.

    Raises:
        RuntimeError: neither encoder is available.
        OSError: the path cannot be written.
    """
    images = [np.asarray(to_pil(f)) for f in frames]
    h, w = images[0].shape[:2]
    sides = 0, h % 2, 0, w % 2
    images = [cv2.copyMakeBorder(image, *sides, cv2.BORDER_REPLICATE) for image in images]
    with tempfile.TemporaryDirectory() as folder:  # OpenCV ends Python on a path that is not UTF-8
        made = Path(folder, "a.mp4")
        codec = _h264(images, made, fps) or _vp9(images, made, fps)
        Path(path).write_bytes(made.read_bytes())
    return codec


def _h264(images: Sequence[np.ndarray], path: Path, fps: float) -> str:
    """Writes an MP4; returns an empty text if there is no encoder."""
    try:
        import av  # optional
    except ModuleNotFoundError:
        return ""
    names = sorted({"libx264", "libopenh264"} & av.codecs_available, reverse=True)
    if not names:
        return ""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as video:
        options = {"crf": "18", "threads": "1"} if names[0] == "libx264" else {"b": "4M"}
        stream = video.add_stream(names[0], Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in [*images, None]:  # None flushes the encoder
            frame = None if image is None else av.VideoFrame.from_ndarray(image)
            video.mux(stream.encode(frame))
    return "H.264"


def _vp9(images: Sequence[np.ndarray], path: Path, fps: float) -> str:
    size = images[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"vp09"), fps, size)
    if not writer.isOpened():
        raise RuntimeError(
            "save_mp4 expected PyAV, or an OpenCV that encodes VP9, got neither: OpenCV "
            f"{cv2.__version__}; pip install av, or opencv-python-headless"
        )
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return "VP9"


def _rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """An antialiased mask of a rounded rectangle (drawn at 4x)."""
    big = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(big).rounded_rectangle((0, 0, big.width - 1, big.height - 1), radius * 4, 255)
    return big.resize(size, Image.Resampling.LANCZOS)

"""Pictures out: the one exit from tensors to pixels, grids, strips, GIF, MP4 and small charts.

Everything here takes plain images and numbers and knows no network and no method. Equal inputs
give equal bytes.
"""

import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Picture = Tensor | np.ndarray | Image.Image  # (3, H, W) in [-1, 1], uint8 (H, W, 3), or PIL
DISPLAY_PX = 192  # small images are enlarged by a whole factor to at least this, see `enlarge`
GUTTER = 0.05  # gap between the cells of a grid, in cells
INK = "#333333"


def to_uint8(x: Tensor) -> np.ndarray:
    """Turn images in [-1, 1] into 8-bit pixels: clamp, then round((x + 1) * 127.5).

    The inverse of u / 127.5 - 1: all 256 levels come back exactly.

    Args:
        x: floating (..., 3, H, W), any device, any float type.

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


def to_pil(picture: Picture) -> Image.Image:
    """One picture of any accepted kind as an RGB PIL image."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    return Image.fromarray(to_uint8(picture) if isinstance(picture, Tensor) else picture)


def enlarge(picture: Picture, at_least_px: int = DISPLAY_PX) -> Image.Image:
    """Enlarge by the smallest whole factor that makes the shorter side `at_least_px`, LANCZOS.

    64 px becomes 192 px (x3). For looking only: metrics and saved translations stay at the
    model's size. LANCZOS keeps edges crisp where bicubic goes soft and nearest goes blocky.
    """
    image = to_pil(picture)
    k = max(1, math.ceil(at_least_px / min(image.size)))
    size = (image.width * k, image.height * k)
    return image if k == 1 else image.resize(size, Image.Resampling.LANCZOS)


def grid(
    rows: Sequence[Sequence[Picture | None]],
    *,
    headers: Sequence[str | tuple[str, int]] = (),
    captions: Sequence[str] = (),
    cell_px: int | None = None,
    gutter: float = GUTTER,
    radius: float = 0.06,
    background: str | None = "white",
) -> Image.Image:
    """Lay pictures out in rows, with domain names above and row names at the left.

    Args:
        rows: equal-length rows of pictures of one size; None leaves a cell empty.
        headers: one text a column, or (text, span) for one text over several columns.
        captions: one text a row.
        cell_px: cell width; default: the pictures, enlarged to look at (see `enlarge`).
        gutter, radius: gap and corner radius as fractions of the cell's width.
        background: any PIL colour, or None for transparent gutters (RGBA result).

    Raises:
        ValueError: ragged rows, or headers / captions that do not add up to the columns / rows.
    """
    columns, spans = len(rows[0]), [(h, 1) if isinstance(h, str) else h for h in headers]
    covered = sum(span for _, span in spans)
    for what, expected, got in [
        *(("columns in a row", columns, len(row)) for row in rows),
        ("columns under headers", columns, covered if spans else columns),
        ("row captions", len(rows), len(captions) or len(rows)),
    ]:
        if expected != got:
            raise ValueError(f"grid expected {expected} {what}, got {got}; pad with None or ''")
    cells = [[None if p is None else enlarge(p, cell_px or DISPLAY_PX) for p in r] for r in rows]
    w, h = next(c.size for row in cells for c in row if c)
    if cell_px and w != cell_px:
        w, h = cell_px, round(h * cell_px / w)
    gap, font = max(2, round(w * gutter)), ImageFont.load_default(size=max(11, round(w * 0.1)))
    top = round(font.size * 1.9) if spans else 0
    left = round(max((font.getlength(c) for c in captions), default=-font.size) + font.size)
    size = (left + columns * (w + gap) - gap, top + len(rows) * (h + gap) - gap)
    margin = 0 if background is None else gap * 2
    sheet = Image.new(
        "RGBA",
        (size[0] + 2 * margin, size[1] + 2 * margin),
        (255, 255, 255, 0) if background is None else background,
    )
    mask, draw = _rounded((w, h), radius * w), ImageDraw.Draw(sheet)
    for r, row in enumerate(cells):
        y = margin + top + r * (h + gap)
        for c, cell in enumerate(row):
            if cell:
                tile = cell if cell.size == (w, h) else cell.resize((w, h), Image.LANCZOS)
                sheet.paste(tile, (margin + left + c * (w + gap), y), mask)
        if captions:
            xy = (margin + left - font.size, y + h / 2)
            draw.text(xy, captions[r], INK, font, anchor="rm")
    column = 0
    for text, span in spans:
        x = margin + left + column * (w + gap) + (span * (w + gap) - gap) / 2
        draw.text((x, margin + top - font.size * 0.6), text, INK, font, anchor="ms")
        column += span
    return sheet if background is None else sheet.convert("RGB")


def strip(
    frames: Iterable[Picture], captions: Sequence[str] = (), shown: int | None = None, **layout
) -> Image.Image:
    """One row of frames, `shown` of them evenly spaced with both ends, e.g. of a path.

    Args:
        captions: one text a shown frame ('' for none), or exactly two: first and last.
        layout: as `grid` takes it.
    """
    frames = list(frames)
    keep = np.linspace(0, len(frames) - 1, shown or len(frames)).round().astype(int)
    if len(captions) == 2 < len(keep):
        captions = [captions[0], *[""] * (len(keep) - 2), captions[1]]
    return grid([[frames[k] for k in keep]], headers=captions, **layout)


def palindrome(frames: Iterable[Picture]) -> list:
    """There and back without repeating either end: T frames become 2T - 2, a seamless loop."""
    frames = list(frames)
    return frames + frames[-2:0:-1]


def save_gif(frames: Iterable[Picture], path: str | Path, fps: float = 12) -> None:
    """Save an endlessly looping GIF with one palette for all frames and no dither: no flicker.

    The palette is fitted to all frames together. GIF counts time in 10 ms: 12 fps plays at 12.5.
    A frame equal to the one before it prolongs that one instead of being stored again.
    """
    images = [to_pil(f) for f in frames]
    every = Image.fromarray(np.concatenate([np.asarray(i) for i in images]))
    palette = every.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
    images = [i.quantize(palette=palette, dither=Image.Dither.NONE) for i in images]
    ms = max(20, round(100 / fps) * 10)  # browsers slow anything below 20 ms down to 100 ms
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=ms, loop=0)


def save_mp4(frames: Iterable[Picture], path: str | Path, fps: float = 12) -> None:
    """Save an MP4 (VP9, 4:2:0) that Chromium, Firefox, Edge and Safari >= 14.1 play.

    VP9 because the encoder is inside the opencv-python wheel (H.264 is not); odd sizes gain one
    repeated row or column, as 4:2:0 needs even ones.

    Raises:
        RuntimeError: OpenCV has no VP9 encoder, or the path cannot be written.
    """
    images = [np.asarray(to_pil(f)) for f in frames]
    h, w = images[0].shape[:2]
    size = (w + w % 2, h + h % 2)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"vp09"), fps, size)
    if not writer.isOpened():
        raise RuntimeError(
            f"save_mp4 expected to open {path} with a VP9 encoder, got a refusal from OpenCV "
            f"{cv2.__version__}; check the folder, or `pip install 'opencv-python>=4.10'`"
        )
    for image in images:
        image = cv2.copyMakeBorder(image, 0, h % 2, 0, w % 2, cv2.BORDER_REPLICATE)
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()


def bars(values: Sequence[float], label: str = "") -> str:
    """An inline SVG of bars from zero with a line at their mean: equal steps are a flat comb.

    As wide as its container, so that it lies under the strip whose steps it shows.
    """
    values = np.asarray(values, float)
    top = max(values.max(), 1e-12) * 1.05
    n, mean = len(values), 30 - 30 * values.mean() / top
    rects = "".join(
        f'<rect x="{i + 0.12:.2f}" y="{30 - 30 * v / top:.2f}" width=".76" '
        f'height="{30 * v / top:.2f}"/>'
        for i, v in enumerate(values)
    )
    return (
        f'<svg class="bars" viewBox="0 0 {n} 30" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(label)}">{rects}<path d="M0 {mean:.2f}H{n}"/></svg>'
    )


def line_chart(x: Sequence[float], y: Sequence[float], title: str, width=260, height=132) -> str:
    """An inline SVG line chart: the values thin, a running mean over 4 % of them on top.

    The y axis spans the 1st to 99th percentile (a spike at the start does not flatten the rest);
    the last smoothed value stands in the title line. Not-finite values are counted there.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    ok = np.isfinite(y)
    if ok.sum() < 2:
        raise ValueError(f"line_chart expected at least 2 finite values of {title}, got {ok.sum()}")
    lost = f", {(~ok).sum()} not finite" if not ok.all() else ""
    x, y = x[ok], y[ok]
    k = max(1, len(y) // 25) | 1  # odd, so that the mean is centred
    pad = np.pad(y, k // 2, mode="edge")
    smooth = np.convolve(pad, np.full(k, 1 / k), mode="valid")
    lo, hi = np.percentile(y, [1, 99])
    lo, hi = min(lo, smooth[-1]), max(hi, smooth[-1])
    ticks = _ticks(lo, hi)
    lo, hi = min(lo, ticks[0]), max(hi, ticks[-1])
    left, right, top, bottom = 38, width - 8, 24, height - 20

    def px(v):
        return left + (right - left) * (np.asarray(v) - x[0]) / max(x[-1] - x[0], 1e-12)

    def py(v):
        return bottom - (bottom - top) * (np.clip(v, lo, hi) - lo) / max(hi - lo, 1e-12)

    def line(v, css):
        keep = np.linspace(0, len(v) - 1, min(len(v), 300)).round().astype(int)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px(x)[keep], py(v)[keep], strict=True))
        return f'<polyline class="{css}" points="{points}"/>'

    rules = "".join(
        f'<path class="rule" d="M{left} {py(t):.1f}H{right}"/>'
        f'<text x="{left - 5}" y="{py(t) + 3.5:.1f}" text-anchor="end">{_short(t)}</text>'
        for t in ticks
    )
    ends = "".join(
        f'<text x="{px(v):.1f}" y="{height - 6}" text-anchor="{a}">{_short(v)}</text>'
        for v, a in [(x[0], "start"), (x[-1], "end")]
    )
    name = html.escape(title)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
        f'<text class="name" x="0" y="12">{name}</text>'
        f'<text class="last" x="{right}" y="12" text-anchor="end">{smooth[-1]:.3g}{lost}</text>'
        f"{rules}{ends}{line(y, 'raw') if k > 1 else ''}{line(smooth, 'mean')}</svg>"
    )


def plot_curves(rows: Sequence[dict[str, str]], step: str = "step") -> list[str]:
    """One `line_chart` a column of a Lightning metrics.csv, in the order of the file.

    Args:
        rows: as csv.DictReader gives them; empty cells are other loggers' turns.
        step: the column along x; it and `epoch` are not drawn, nor is a column of < 2 values.
    """
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in (step, "epoch")]
    charts = []
    for name in names:
        points = [(float(r[step]), float(r[name])) for r in rows if r.get(name) not in (None, "")]
        if sum(math.isfinite(v) for _, v in points) >= 2:
            charts.append(line_chart(*zip(*points, strict=True), title=name))
    return charts


def _rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """An antialiased mask of a rounded rectangle (drawn at 4x)."""
    big = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(big).rounded_rectangle((0, 0, big.width - 1, big.height - 1), radius * 4, 255)
    return big.resize(size, Image.Resampling.LANCZOS)


def _ticks(lo: float, hi: float) -> np.ndarray:
    """Two to four round numbers inside [lo, hi] (1, 2 or 5 times a power of ten apart)."""
    raw = max(hi - lo, 1e-9, abs(hi) * 1e-6) / 3
    unit = 10 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    ticks = np.arange(math.ceil(lo / step), math.floor(hi / step) + 1) * step
    return ticks if len(ticks) else np.array([lo])


def _short(v: float) -> str:
    """12000 -> 12k, 0.05 -> 0.05."""
    return f"{v / 1000:g}k" if abs(v) >= 1000 else f"{round(float(v), 9):g}"

"""Motion as pictures: arrows for the paths of objects, flow in colours, parts that were invented.

No network is used. Frames are float (3, H, W) in [-1, 1], positions px with the centre of the first
pixel at (0, 0), flow (u, v) px, x first.

Letters in shapes: S samples, T frames after the first, M objects, H height, W width.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from gen import viz

COLOURS = {  # who moves an object
    "you": "#F26B0F",
    "pinned": "#C2278F",
    "removed": "#101418",
    "reacts": "#0B84D8",
}
INVENTED = "#E0218A"
ARROWS_PX = 384  # least side of a picture with arrows
FINE = 3  # factor by which the drawing is larger before it is scaled down
HUES = (15, 6, 4, 11, 13, 6)  # steps from red to yellow, green, cyan, blue, magenta and red
CORNERS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
Point = tuple[float, float]
Plate = tuple[float, float, float, float]  # left, top, right, bottom


# ---- arrows -------------------------------------------------------------------------------------


def arrows(
    frame: Tensor,
    instance: Tensor,
    boxes: Tensor,
    moved_by: Sequence[str],
    ids: Sequence[int],
    note: str = "",
) -> Image.Image:
    """The enlarged frame with the path of each object; below, a legend of the colours.

    An object is tinted; a thin outline shows its place and size in the last frame; a dot on its
    arrow is a frame. An object that hardly moves has a dot, a pinned object a ring, a removed
    object a cross.

    Args:
        frame: image (3, H, W) to draw on.
        instance: instances (H, W), k + 1 for object k, 0: no object.
        boxes: boxes (T + 1, M, 4), px: centre x, y, width, height in each frame.
        moved_by: list of M keys of `COLOURS`.
        ids: numbers of the M objects, written beside them.
        note: text below, at the right.
    """
    base = viz.enlarge(frame, ARROWS_PX)
    k, unit = base.height * FINE / frame.shape[1], base.height * FINE / ARROWS_PX  # fine px
    boxes, instance = boxes.cpu().double().numpy(), instance.cpu().numpy()
    gone = np.array([by == "removed" for by in moved_by], bool)  # (M,)
    boxes = np.where(gone[:, None], boxes[:1], boxes)
    ways = (boxes[..., :2] + 0.5) * k  # (T + 1, M, 2)
    band = round(30 * unit)
    size = (base.width * FINE, base.height * FINE + band)
    layer = Image.new("RGBA", size)
    draw = ImageDraw.Draw(layer)
    order = sorted(range(len(ids)), key=lambda m: list(COLOURS).index(moved_by[m]))
    for m in order[::-1]:  # the user's come last, on top
        _silhouettes(draw, instance == m + 1, boxes[[0, -1], m], k, COLOURS[moved_by[m]], unit)
    for m in order[::-1]:
        _way(draw, [(x, y) for x, y in ways[:, m]], COLOURS[moved_by[m]], moved_by[m], unit)
    font = ImageFont.load_default(size=14 * unit)
    steps = ways[:-1, :, None] + np.diff(ways, axis=0)[:, :, None] * np.linspace(0, 1, 8)[:, None]
    inside = np.stack(np.meshgrid(*[np.linspace(-0.4, 0.4, 5)] * 2), -1).reshape(25, 1, 2)
    inside = ways[0] + inside * boxes[0, :, 2:] * k  # (25, M, 2)
    avoid = np.concatenate([steps.reshape(-1, 2), inside.reshape(-1, 2)])
    room, taken = (size[0], size[1] - band), []
    for m in order:
        side = font.getlength(str(ids[m])) + 10 * unit, font.size + 5 * unit
        plate = _place(side, ways[0, m], boxes[0, m, 2:] * k, avoid, taken, room, unit)
        taken.append(plate)
        draw.rounded_rectangle(plate, 4 * unit, COLOURS[moved_by[m]], "white", round(1.2 * unit))
        middle = (plate[0] + plate[2]) / 2, (plate[1] + plate[3]) / 2
        draw.text(middle, str(ids[m]), "white", font, anchor="mm", stroke_width=round(0.2 * unit))
    _legend(draw, [by for by in COLOURS if by in moved_by], note, size, band, font, unit)
    small = (base.width, size[1] // FINE)
    sheet = Image.new("RGB", small, "white")
    sheet.paste(base)
    layer = layer.resize(small, Image.Resampling.LANCZOS)
    return Image.alpha_composite(sheet.convert("RGBA"), layer).convert("RGB")


def _silhouettes(
    draw: ImageDraw.ImageDraw,
    mask: np.ndarray,
    ends: np.ndarray,
    k: float,
    colour: str,
    unit: float,
) -> None:
    """Tints and outlines an object at its start (mask (H, W)), and outlines it at its end."""
    if not mask.any():
        return
    rgb = ImageColor.getrgb(colour)
    big = cv2.resize(mask.astype(np.float32), None, fx=k, fy=k, interpolation=cv2.INTER_LINEAR)
    big = cv2.GaussianBlur(big, (0, 0), 0.35 * k)
    big = cv2.copyMakeBorder(big, 1, 1, 1, 1, cv2.BORDER_CONSTANT)  # closes it at the border
    kind = cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    for points in cv2.findContours((big >= 0.5).astype(np.uint8), *kind)[0]:
        outline = points[:, 0].astype(float) - 1  # (P, 2)
        if len(outline) < 3:
            continue
        draw.polygon([(x, y) for x, y in outline], fill=(*rgb, 64))
        _line(draw, [*outline, outline[0]], (*rgb, 255), 1.6 * unit)
        (first, last), half = (ends[:, :2] + 0.5) * k, np.maximum(ends[:, 2:], 1e-6)
        moved = (outline - first) * (half[1] / half[0]) + last
        if np.abs(moved - outline).max() > 2 * unit:
            _line(draw, [*moved, moved[0]], (255, 255, 255, 255), 2.6 * unit)
            _line(draw, [*moved, moved[0]], (*rgb, 255), 1.2 * unit)


def _way(draw: ImageDraw.ImageDraw, points: list[Point], colour: str, by: str, unit: float) -> None:
    """An arrow through points, with a white rim; a dot, a ring or a cross for an object without."""
    way = np.asarray(points)
    length = np.linalg.norm(np.diff(way, axis=0), axis=1).sum()
    gone = np.linalg.norm(way[-1] - way[0])
    if by == "removed":
        for width, fill in ((9, "white"), (5, colour)):
            for arm in (11 * unit, 11 * unit), (11 * unit, -11 * unit):
                _line(draw, [way[0] - arm, way[0] + arm], fill, width * unit)
        return
    if by == "pinned":
        for radius, fill in ((10, "white"), (8.5, colour), (4, "white")):
            _disc(draw, way[0], radius * unit, fill)
        return
    if gone < 5 * unit:
        _disc(draw, way[0], 5.5 * unit, "white")
        _disc(draw, way[0], 4 * unit, colour)
        return
    head = min(19 * unit, 0.75 * gone)
    share = np.linspace(0, 1, 32, endpoint=False)[:, None]
    fine = np.concatenate([a + (b - a) * share for a, b in zip(way[:-1], way[1:], strict=True)])
    far = np.linalg.norm(fine - way[-1], axis=1)
    last = max(np.flatnonzero(far >= min(1.7 * head, far[0]))[-1], 0)  # straight from there on
    forth = (way[-1] - fine[last]) / far[last]
    side = np.array([-forth[1], forth[0]])
    kept = way[: last // len(share) + 1]
    line = [*kept, fine[last], way[-1] - forth * 0.8 * head]
    thick = min(5 * unit, head / 2.4)
    for rim, fill in ((2 * unit, "white"), (0, colour)):
        base = way[-1] - forth * (head + rim)
        wide = side * (0.46 * head + 1.35 * rim)
        _line(draw, line, fill, thick + 2 * rim)
        tip = way[-1] + forth * 1.6 * rim
        draw.polygon([tuple(p) for p in (tip, base + wide, base - wide)], fill=fill)
    if length > 8 * len(way) * unit:
        for point in kept:
            _disc(draw, point, 1.5 * unit, "white")


def _place(
    side: Point,
    middle: np.ndarray,
    box: np.ndarray,
    avoid: np.ndarray,
    taken: Sequence[Plate],
    room: Point,
    unit: float,
) -> Plate:
    """Place beside a box where a plate hides least of points (P, 2) to avoid and other plates."""
    (w, h), (x, y), gap = side, middle, 4 * unit
    left, right = (x + sign * (box[0] / 2 + gap + w / 2) for sign in (-1, 1))
    up, down = (y + sign * (box[1] / 2 + gap + h / 2) for sign in (-1, 1))
    places = [(x, up), (x, down), (left, y), (right, y)]
    places += [(a, b) for b in (up, down) for a in (left, right)]
    places += [(x, up - h - gap), (x, down + h + gap), (x, y)]
    best: tuple[float, Plate] = (np.inf, (0, 0, 0, 0))
    for rank, (a, b) in enumerate(places):
        a = min(max(a, (w + gap) / 2), room[0] - (w + gap) / 2)
        b = min(max(b, (h + gap) / 2), room[1] - (h + gap) / 2)
        plate = a - w / 2, b - h / 2, a + w / 2, b + h / 2
        hidden = sum(_overlap(plate, other) for other in taken) / (w * h)
        near = (np.abs(avoid - (a, b)) < ((w + gap) / 2, (h + gap) / 2)).all(1).sum()
        best = min(best, (20 * hidden + 0.05 * near + 0.02 * rank, plate))
    return best[1]


def _overlap(a: Plate, b: Plate) -> float:
    """Area of the intersection of two plates."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0)


def _legend(
    draw: ImageDraw.ImageDraw,
    kinds: Sequence[str],
    note: str,
    size: tuple[int, int],
    band: int,
    font: ImageFont.FreeTypeFont,
    unit: float,
) -> None:
    draw.rectangle((0, size[1] - band, *size), "white")  # over drawings that left the frame
    x, y = 16 * unit, size[1] - band / 2
    for by in kinds:
        _disc(draw, (x, y), 5.5 * unit, COLOURS[by])
        text = {"you": "moved by you"}.get(by, by)
        draw.text((x + 11 * unit, y), text, viz.INK, font, anchor="lm")
        x += font.getlength(text) + 36 * unit
    draw.text((size[0] - 10 * unit, y), note, viz.INK, font, anchor="rm")


def _line(draw: ImageDraw.ImageDraw, points: Sequence, fill, width: float) -> None:
    """A polyline with round corners and ends."""
    width = max(1, round(width))
    draw.line([(x, y) for x, y in points], fill, width, joint="curve")
    for end in (points[0], points[-1]):
        _disc(draw, end, width / 2, fill)


def _disc(draw: ImageDraw.ImageDraw, at: Sequence[float], radius: float, fill) -> None:
    x, y = at
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)


# ---- flow and visibility ------------------------------------------------------------------------


def flow_colours(flow: np.ndarray, most_px: float) -> np.ndarray:
    """Flow (..., 2, H, W) px as colours (..., H, W, 3) uint8: 0 is white, `most_px` saturated.

    Source: the colour wheel of Baker et al., "A Database and Evaluation Methodology for Optical
    Flow", IJCV 2011. Right is red, down yellow, left cyan, up violet.
    """
    stops = np.cumsum((0, *HUES))
    hues = np.arange(stops[-1])
    wheel = np.stack([np.interp(hues, stops, c) for c in zip(*CORNERS, strict=True)], 1)  # (55, 3)
    u, v = np.moveaxis(flow / most_px, -3, 0)
    turn = np.arctan2(v, u) / (2 * np.pi) % 1 * len(wheel)  # in steps of the wheel
    low = turn.astype(int) % len(wheel)
    share = (turn - np.floor(turn))[..., None]
    full = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]
    level = 1 - np.hypot(u, v).clip(max=1)[..., None] * (1 - full)
    return (level * 255).round().astype("uint8")


def flow_key(height: int, width: int) -> np.ndarray:
    """The wheel as a picture (H, W, 3): colour of the motion from the middle to each place."""
    far = np.arange(-height, height, 2) + 1  # -H + 1 .. H - 1
    wide = np.arange(-width, width, 2) + 1
    flow = np.stack(np.broadcast_arrays(wide, far[:, None])) / (0.9 * height)  # (2, H, W)
    inside = np.clip((1 - np.hypot(*flow)) * 0.45 * height + 0.5, 0, 1)[..., None]
    return (flow_colours(flow, 1.0) * inside + 255 * (1 - inside)).round().astype("uint8")


def flow_sheet(flow: Tensor, captions: Sequence[str] = ()) -> Image.Image:
    """The wheel, and the flow (S, T, 2, H, W) of clips, one row each.

    The flow of a frame leads back to the first frame; its colours show the opposite direction,
    that of the arrows. All have one scale, the largest flow without the largest 0.5 %.
    """
    forth = -flow.cpu().float().numpy()
    most = max(float(np.percentile(np.hypot(forth[:, :, 0], forth[:, :, 1]), 99.5)), 0.5)
    rows = [[None, *clip] for clip in flow_colours(forth, most)]
    size = viz.enlarge(rows[0][1]).size
    rows[0][0] = Image.fromarray(flow_key(*(4 * n for n in forth.shape[-2:]))).resize(size)
    headers = [f"{most:.1f} px", *_frames(1, forth.shape[1])]
    return viz.grid(rows, headers=headers, captions=captions, lead=(0, 1))


def hidden_sheet(video: Tensor, visible: Tensor, captions: Sequence[str] = ()) -> Image.Image:
    """Clips (S, T, 3, H, W) in grey, one row each; in colour the parts that were not `visible`
    (S, T, 1, H, W; 0 .. 1) in the first frame."""
    clips = zip(video, visible, strict=True)
    rows = [[_hidden(*of) for of in zip(*clip, strict=True)] for clip in clips]
    return viz.grid(rows, headers=_frames(1, video.shape[1]), captions=captions)


def frames_sheet(video: Tensor, captions: Sequence[str] = ()) -> Image.Image:
    """Clips (S, T + 1, 3, H, W), one row each; the given frame is set apart."""
    headers = _frames(0, video.shape[1])
    return viz.grid([[*clip] for clip in video], headers=headers, captions=captions, lead=(0, 1))


def _hidden(frame: Tensor, visible: Tensor) -> Image.Image:
    grey = np.asarray(viz.enlarge(frame).convert("L"), np.float32)[..., None]
    seen = cv2.resize(visible[0].cpu().float().numpy(), grey.shape[1::-1])[..., None].clip(0, 1)
    colour = np.array(ImageColor.getrgb(INVENTED), np.float32)
    out = (70 + grey * 185 / 255) * seen + colour * (1 - seen)
    return Image.fromarray(out.round().astype("uint8"))


def _frames(first: int, count: int) -> list[str]:
    return [f"frame {first + t}" for t in range(count)]


def looped(frames: Sequence, hold: int = 4) -> list:
    """Forth and back, with a rest at both ends: the loop of a short video."""
    frames, ends = list(frames), hold - 1
    return frames[:1] * ends + frames + frames[-1:] * ends + frames[-2:0:-1]

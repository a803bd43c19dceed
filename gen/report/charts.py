"""Small charts as inline SVG: bars under a strip, loss curves. `page.css` sets their colours."""

import html
import math
from collections.abc import Sequence

import numpy as np


def bars(values: Sequence[float], label: str = "") -> str:
    """An inline SVG of bars from zero with a line at their mean; equal steps have equal bars.

    The chart is as wide as its container, so it lies under the strip whose steps it shows.
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


def line_chart(x: Sequence[float], y: Sequence[float], title: str, width=210, height=120) -> str:
    """An inline SVG line chart: thin values, with a running mean over 4 % of them on top.

    The y axis spans the 1st to 99th percentile (a spike at the start does not flatten the rest);
    the title has the last smoothed value and the number of non-finite values.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    ok = np.isfinite(y)
    if ok.sum() < 2:
        raise ValueError(f"line_chart expected at least 2 finite values of {title}, got {ok.sum()}")
    lost = f", {(~ok).sum()} not finite" if not ok.all() else ""
    x, y = x[ok], y[ok]
    k = max(1, len(y) // 25) | 1  # odd, so that the mean is centred
    smooth = np.convolve(y, np.ones(k), "same") / np.convolve(np.ones_like(y), np.ones(k), "same")
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


def scatter(
    points: Sequence[tuple[str, float, float, float, float]],
    x_name: str,
    y_name: str,
    width: int = 560,
    height: int = 300,
) -> str:
    """An inline SVG of named points with error bars.

    Args:
        points: (name, x, half interval of x, y, half interval of y); a half of NaN is not drawn.
        x_name: title of the x axis.
        y_name: title of the y axis.
    """
    halves = [[0.0 if not math.isfinite(p[k]) else p[k] for p in points] for k in (2, 4)]
    left, right, top, bottom = 52, width - 96, 26, height - 36

    def axis(k: int, half: Sequence[float], start: float, end: float):
        low = min(p[k] - h for p, h in zip(points, half, strict=True))
        high = max(p[k] + h for p, h in zip(points, half, strict=True))
        ticks = _ticks(low, high)
        low, high = min(low, ticks[0]), max(high, ticks[-1])
        return lambda v: start + (end - start) * (v - low) / max(high - low, 1e-12), ticks

    px, xs = axis(1, halves[0], left, right)
    py, ys = axis(3, halves[1], bottom, top)
    parts = [
        f'<path class="rule" d="M{left} {py(t):.1f}H{right}"/>'
        f'<text x="{left - 5}" y="{py(t) + 3.5:.1f}" text-anchor="end">{_short(t)}</text>'
        for t in ys
    ]
    parts += [
        f'<text x="{px(t):.1f}" y="{bottom + 15}" text-anchor="middle">{_short(t)}</text>'
        for t in xs
    ]
    for (name, x, _, y, _), h, v in zip(points, *halves, strict=True):
        parts.append(
            f'<path class="bar" d="M{px(x - h):.1f} {py(y):.1f}H{px(x + h):.1f}'
            f'M{px(x):.1f} {py(y - v):.1f}V{py(y + v):.1f}"/>'
            f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="3.5"/>'
            f'<text class="name" x="{px(x) + 6:.1f}" y="{py(y) - 5:.1f}">{html.escape(name)}</text>'
        )
    title = f"{html.escape(y_name)} over {html.escape(x_name)}"
    return (
        f'<svg class="chart plot" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
        f'<text class="name" x="0" y="12">{html.escape(y_name)}</text>{"".join(parts)}'
        f'<text x="{right}" y="{height - 5}" text-anchor="end">{html.escape(x_name)}</text></svg>'
    )


def plot_curves(rows: Sequence[dict[str, str]], step: str = "step") -> list[str]:
    """One `line_chart` per column of a Lightning metrics.csv, in the order of the file.

    Args:
        rows: rows as csv.DictReader gives them; cells are empty where another logger wrote.
        step: column along x; this column, `epoch` and columns of < 2 values are not drawn.
    """
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in (step, "epoch")]
    charts = []
    for name in names:
        points = [(float(r[step]), float(r[name])) for r in rows if r.get(name) not in (None, "")]
        if sum(math.isfinite(v) for _, v in points) >= 2:
            charts.append(line_chart(*zip(*points, strict=True), title=name))
    return charts


def _ticks(lo: float, hi: float) -> np.ndarray:
    """Three or more round numbers inside [lo, hi] (steps of 1, 2 or 5 times a power of ten)."""
    if hi - lo < max(abs(hi) * 1e-6, 1e-12):
        return np.array([lo])
    unit = 10 ** math.floor(math.log10(hi - lo))
    for step in (unit * m for m in (1, 0.5, 0.2, 0.1)):
        first, last = math.ceil(lo / step), math.floor(hi / step)
        if last - first >= 2:
            break
    return np.arange(first, last + 1) * step


def _short(v: float) -> str:
    """Shortens a number: 12000 -> 12k, 0.05 -> 0.05."""
    return f"{v / 1000:g}k" if abs(v) >= 1000 else f"{round(float(v), 9):g}"

"""One HTML page of pictures, numbers and curves: all inlined, no scripts, light and dark.

The page knows no method; equal inputs give equal bytes.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from gen import viz
from gen.files import write_atomic
from gen.metrics.controls import beside
from gen.metrics.doubts import doubts
from gen.report import charts
from gen.report.verdict import MARKS

CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
FEW = 4  # columns of numbers that a narrow table holds
MOST_BYTES = 4_800_000  # of all pictures, so that a page has less than 5 MB
QUALITIES = (85, 70, 50, 30, 10)  # of WebP; the first that is small enough
FRAME_MS = 83  # time of a frame of a moving picture
ARROWS = {"higher": "↑", "lower": "↓"}  # the better direction of a value

Media = Image.Image | Sequence[Image.Image] | Path | bytes


@dataclass
class Panel:
    """One picture of a figure, with its texts and numbers.

    Args:
        picture: PIL image, or several as the frames of a moving picture, which are stored as WebP;
            or the path or bytes of a PNG, GIF, JPEG or WebP.
        title: line of text above the picture.
        headers: column heads of a `viz.grid` as (text, span), set as text over the picture.
        lead: number of the grid's columns that are set apart.
        notes: (name, value) pairs beside the title.
        steps: numbers drawn as bars below, e.g. the distance between consecutive frames.
        motion: small moving picture at the left.
    """

    picture: Media
    title: str = ""
    headers: Sequence[tuple[str, int]] = ()
    lead: int = 0
    notes: Sequence[tuple[str, str]] = ()
    steps: Sequence[float] = ()
    motion: Media | None = None


@dataclass
class Figure:
    """Panels with one caption; `beside` sets two panels side by side if there is room.

    `width_px` > 0 limits the width.
    """

    caption: str
    panels: Sequence[Panel]
    beside: bool = False
    width_px: int = 0


@dataclass
class Table:
    """Heads of columns, and lines: a metric ("group/../name"), its protocol, its better direction,
    its cells."""

    heads: Sequence[str]
    lines: Sequence[tuple[str, str, str, Sequence[str]]]
    warnings: Sequence[str] = ()  # why some of the values mean nothing
    notes: Sequence[tuple[str, str]] = ()  # columns and what they are


def write_report(
    out_html: str | Path,
    *,
    title: str,
    subtitle: str = "",
    abstract: Sequence[str] = (),
    sections: Mapping[str, Sequence[Figure | tuple[str, Media]]] | None = None,
    metrics: Table | None = None,
    verdict: Sequence[tuple[str, str]] = (),
    plots: Sequence[str] = (),
    curves: Sequence[Mapping[str, str]] = (),
    config_text: str = "",
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Writes a self-contained HTML page.

    Args:
        abstract: paragraphs of plain text under the title.
        sections: heading -> figures; (caption, picture) is a figure of one picture.
        metrics: table of measured rows, see `metrics_table`.
        verdict: judgements and sentences that open the page, see `gen.report.verdict`.
        plots: SVG text of charts that compare values.
        curves: rows of a Lightning metrics.csv, see `gen.report.read_curves`.
        config_text: text of the exact configuration.
    """
    body = [f"<header><h1>{escape(title)}</h1>", *_paragraphs([subtitle] * bool(subtitle), "sub")]
    body += [*_paragraphs(abstract, "abstract"), "</header>"]
    if verdict:
        body += _section("Verdict", _verdict(verdict))
    body += _pictures(sections or {})
    if metrics and metrics.lines:
        new = (text for text in metrics.warnings if text not in [told for _, told in verdict])
        body += _section("Measured", *_paragraphs(new, "warning"), _table(metrics))
    if plots:
        body += _section("Compared", f'<figure class="wide">{"".join(plots)}</figure>')
    if drawn := charts.plot_curves(curves):
        caption = "Loss terms over iterations: each value thin, a running mean over 4&thinsp;% on "
        caption += "top; the number is where the mean ends."
        inner = f'<div class="charts">{"".join(drawn)}</div><figcaption>{caption}</figcaption>'
        body += _section("Training", f'<figure class="wide">{inner}</figure>')
    if config_text:
        lines = len(config_text.splitlines())
        body += _section(
            "Configuration",
            f"<details><summary>All {lines} lines, as they ran</summary>"
            f"<pre>{escape(config_text.strip())}</pre></details>",
        )
    if versions:
        pairs = "".join(
            f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in versions.items()
        )
        body += _section("Versions", f'<dl class="versions">{pairs}</dl>')
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )
    write_atomic(out_html, page.encode(errors="backslashreplace"), fsync=False)
    return Path(out_html)


def _section(heading: str, *inner: str) -> list[str]:
    return ["<section>", f"<h2>{escape(heading)}</h2>", *inner, "</section>"]


def _pictures(sections: Mapping[str, Sequence[Figure | tuple[str, Media]]]) -> list[str]:
    """Sections of figures, in the best quality of which they have at most `MOST_BYTES`."""
    for quality in QUALITIES:
        body: list[str] = []
        for heading, figures in sections.items():
            all_of = (f if isinstance(f, Figure) else Figure(f[0], [Panel(f[1])]) for f in figures)
            body += _section(heading, *(_figure(figure, quality) for figure in all_of))
        if sum(map(len, body)) <= MOST_BYTES:
            break
    return body


def _paragraphs(texts: Iterable[str], css: str) -> list[str]:
    return [f'<p class="{css}">{escape(t)}</p>' for t in texts]


def _verdict(sentences: Sequence[tuple[str, str]]) -> str:
    items = (
        f'<li class="{judgement}"><span aria-hidden="true">{MARKS[judgement]}</span>{escape(text)}'
        "</li>"
        for judgement, text in sentences
    )
    return f'<ul class="verdict">{"".join(items)}</ul>'


def _figure(figure: Figure, quality: int) -> str:
    panels = "".join(_panel(p, figure.caption, quality) for p in figure.panels)
    css = "wide beside" if figure.beside and len(figure.panels) > 1 else "wide"
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>"
    limit = f' style="max-width:{figure.width_px}px"' if figure.width_px else ""
    return f'<figure class="{css}"{limit}><div class="panels">{panels}</div>{caption}</figure>'


def _panel(panel: Panel, alt: str, quality: int) -> str:
    notes = "".join(f"<span><i>{escape(k)}</i> {escape(v)}</span>" for k, v in panel.notes)
    title = f'<h3><span>{escape(panel.title)}</span><span class="notes">{notes}</span></h3>'
    heads = _heads(panel.headers, panel.lead)
    steps = charts.bars(panel.steps, "distance between frames") if len(panel.steps) else ""
    motion = panel.motion and _img(panel.motion, f"{panel.title}, moving", "motion", quality)
    picture = _img(panel.picture, panel.title or alt, "still", quality)
    still = f'<div class="scroll"><div class="sheet">{heads}{picture}{steps}</div></div>'
    has_title = title if panel.title or notes else ""
    return f'<div class="panel">{has_title}<div class="row">{motion or ""}{still}</div></div>'


def _heads(headers: Sequence[tuple[str, int]], lead: int) -> str:
    """Column heads over a grid, centred on their columns, in % of the picture's width."""
    n, column, heads = sum(span for _, span in headers), 0, ""
    at = viz.edges(n, lead)
    for text, span in headers:
        x, width = at[column], at[column + span - 1] + 1 - at[column]
        where = f"left:{100 * x / at[-1]:.3f}%;width:{100 * width / at[-1]:.3f}%"
        heads += f'<b style="{where}">{escape(text)}</b>'
        column += span
    return heads and f'<div class="heads">{heads}</div>'


def _img(media: Media, alt: str, css: str, quality: int) -> str:
    if not isinstance(media, Path | bytes):
        first, *rest = [media] if isinstance(media, Image.Image) else media
        more = dict(save_all=True, append_images=rest, duration=FRAME_MS, loop=0) if rest else {}
        first.save(buffer := io.BytesIO(), "WEBP", quality=quality, method=4, **more)
        media = buffer.getvalue()
    data = media if isinstance(media, bytes) else Path(media).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        size, mime = image.size, Image.MIME[image.format]
    code = base64.b64encode(data).decode()
    return (
        f'<img class="{css}" width="{size[0]}" height="{size[1]}" alt="{escape(alt)}" '
        f'src="data:{mime};base64,{code}">'
    )


def metrics_table(rows: Sequence[Mapping], compare: Sequence[Mapping] = ()) -> Table:
    """Table of the rows of an evaluation, and of another evaluation to compare it with.

    Controls are columns, see `gen.metrics.controls`.
    """
    known = {r["metric"]: r for r in rows}
    columns, of, controls = beside(known)
    other = {(r["metric"], r.get("protocol")): r["value"] for r in compare}
    lines = []
    for r in (r for r in rows if r["metric"] not in controls):
        key = (r["metric"], r.get("protocol"))
        cells = [number(r["value"]), " – ".join(map(number, r.get("ci95") or ())) or "–"]
        cells += [number(other[key]) if key in other else "–"] * bool(compare)
        own = of.get(r["metric"], {})
        cells += [number(known[own[c]]["value"]) if c in own else "" for c in columns]
        cells.append(f"{r['count']:,}" if "count" in r else "–")
        lines.append((r["metric"], r.get("protocol") or "", r.get("better", "none"), cells))
    heads = ["value", "95 % interval", *["shipped"] * bool(compare), *columns, "n"]
    notes: dict[str, dict[str, None]] = {column: {} for column in columns}
    for name, own in of.items():
        for column, row in own.items():
            how = known[row].get("protocol") or row
            if how != known[name].get("protocol"):  # nothing to tell but what the heading says
                notes[column][how] = None
    told = [(column, "; ".join(how)) for column, how in notes.items() if how]
    return Table(heads, lines, doubts(rows), told)


def _table(table: Table) -> str:
    """One block per group of metrics with its protocol, one line per metric."""
    blocks: dict[tuple[str, str], list[str]] = {}
    for metric, protocol, better, cells in table.lines:
        group, _, name = metric.rpartition("/")
        columns = "</td><td>".join(escape(cell) for cell in cells)
        line = f"<tr><th>{escape(name)}{_arrow(better)}</th><td>{columns}</td></tr>"
        blocks.setdefault((group, protocol), []).append(line)
    body = ""
    for (group, protocol), lines in blocks.items():
        head = escape(group.replace("/", ", ").capitalize())
        body += f'<tr class="block"><th colspan="{len(table.heads) + 1}"><div>{head} '
        body += f"<small>{escape(protocol)}</small></div></th></tr>{''.join(lines)}"
    heads = "".join(f"<th>{escape(name)}</th>" for name in ("", *table.heads))
    notes = "".join(
        f'<p class="note"><i>{escape(column)}</i> {escape(text)}</p>'
        for column, text in table.notes
    )
    css = "wide table" if len(table.heads) > FEW else "table"
    return (
        f'<figure class="{css}"><div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{notes}</figure>"
    )


def _arrow(better: str) -> str:
    """An arrow up or down; empty if neither direction is better, or an old file has none."""
    arrow = ARROWS.get(better)
    return f' <abbr title="{better} is better">{arrow}</abbr>' if arrow else ""


def number(v: float) -> str:
    return f"{v:.4f}" if abs(v) < 100 else f"{v:.4g}"

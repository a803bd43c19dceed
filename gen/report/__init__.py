"""The report of a run: pictures and metrics of its method, curves, configuration, versions."""

import csv
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from torch import Tensor

import gen.data
from gen import tasks, viz
from gen.evaluation.results import versions
from gen.files import WeightsError
from gen.inference import common, generation, translation
from gen.metrics.doubts import STILL
from gen.metrics.smoothness import path_distances, smoothness
from gen.networks.perceptual import LPIPS
from gen.report import charts
from gen.report.page import Figure, Panel, metrics_table, write_report
from gen.report.verdict import verdict

FRAMES, SHOWN = 20, 10  # frames of a path: rendered and measured, shown in the strip
CELL_PX, MOVING_PX = 192, 128  # width of a picture in grids and strips, and of a moving one
ALONE_PX = 900  # largest width of a grid without another beside it
SEEDS = (0, 1)  # styles per domain in the grids; paths go from the first to the second


log = logging.getLogger(__name__)


def read_curves(run_dir: str | Path) -> list[dict[str, str]]:
    """Rows of every logs/*/metrics.csv below a run's folder, in the order of steps.

    The oldest file comes first. A resumed run has several; where they overlap, newer rows win.
    """
    files = sorted(Path(run_dir).rglob("logs/*/metrics.csv"), key=lambda p: (p.stat().st_mtime, p))
    rows: list[dict[str, str]] = []
    for file in files:
        with file.open(newline="", encoding="utf-8") as lines:
            new = list(csv.DictReader(lines))
        start = min((int(r["step"]) for r in new), default=0)
        rows = [r for r in rows if int(r["step"]) < start] + new
    return sorted(rows, key=lambda r: int(r["step"]))


def build(
    method,
    images,
    run_dir: str | Path,
    *,
    title: str = "",
    shipped=None,
    metrics_rows: Sequence[Mapping] = (),
    shipped_rows: Sequence[Mapping] = (),
    lpips=None,
) -> Path:
    """Renders the pictures of a method and writes `run_dir/report.html`.

    Args:
        method: method that `gen.load` returns, or a method in training.
        images: validation images, a `DomainImages` (`data.val`).
        run_dir: folder that holds metrics.csv and config.yaml, at any depth; the newest config
            is used.
        title: title of the report; default: the method's name.
        shipped: another method with the same domains, shown beside this one.
        metrics_rows, shipped_rows: rows of `gen.evaluation.translators.evaluate`.
        lpips: network `gen.networks.perceptual.LPIPS` that measures the strips; None: no
            measurement.

    Raises:
        ValueError: `shipped` or the images have other domains than the method.
    """
    run_dir, curves = Path(run_dir), read_curves(run_dir)
    for what, domains in [("images", images.domains), ("shipped", getattr(shipped, "domains", 0))]:
        if domains and list(domains) != list(method.domains):
            raise ValueError(
                f"build expected {what} with the method's domains {list(method.domains)}, "
                f"got {list(domains)}; give the data it was trained on, or no shipped checkpoint"
            )
    names, size = method.domains, method.img_size
    sentences = [
        f"A translation keeps what an image shows and gives it the style of one of {len(names)} "
        "domains.",
        f"The curves of this run end at iteration {int(curves[-1]['step']):,}." if curves else "",
        "Every picture was rendered from the averaged weights through the interface that gen.load "
        "gives, and every source and reference is a validation image: training has not seen it.",
    ]
    both = {"This run": method} | ({"The shipped checkpoint": shipped} if shipped else {})
    return write_report(
        run_dir / "report.html",
        title=title or type(method).__name__,
        subtitle=f"{', '.join(names)}, {size} × {size} px",
        abstract=[" ".join(s for s in sentences if s)],
        sections=_walk(method, images)
        | samples(both, images)
        | _truth(method, images)
        | paths({"": method}, images, lpips),
        metrics=metrics_table(metrics_rows, shipped_rows),
        verdict=verdict(metrics_rows),
        curves=curves,
        config_text=read_config(run_dir),
        versions=versions(),
    )


def read_config(run_dir: Path) -> str:
    """Text of the run's config.yaml, or of the newest one in a folder below; empty without one."""
    found = sorted(run_dir.rglob("config.yaml"), key=lambda p: (p.stat().st_mtime, p))
    found += [run_dir / "config.yaml"] if (run_dir / "config.yaml").exists() else []
    return found[-1].read_text("utf-8", "backslashreplace") if found else ""


def write(method, run_dir: Path, metrics_rows, root: str | None, shipped=None) -> Path:
    """Writes `run_dir/report.html` of any method.

    Args:
        method: method that `gen.load` returns.
        run_dir: folder of the run.
        metrics_rows: rows of its evaluator.
        root: `--data` of the validation images that a translator is shown with; LPIPS, if it has
            weights, measures them.
        shipped: another translator, shown beside.
    """
    if tasks.of(method) != "translator":
        return build_plain(method, run_dir, metrics_rows)
    data = gen.data.open(root, img_size=method.img_size)
    try:
        lpips = LPIPS("alex").to(common.device(method))
    except WeightsError as error:
        log.warning("smoothness of the strips not measured: %s", error)
        lpips = None
    more = dict(shipped=shipped, metrics_rows=metrics_rows, lpips=lpips)
    return build(method, data.val, run_dir, **more)


def build_plain(method, run_dir: Path, metrics_rows: Sequence[Mapping]) -> Path:
    """Writes `run_dir/report.html` of a method that is no translator: curves, metrics and config.

    The page of a generator has images; other pages name the command that makes pictures.
    """
    curves, sections = read_curves(run_dir), {}
    if tasks.of(method) == "generator":
        sheet = viz.grid(generation.generated(method, range(32)), cell_px=CELL_PX, background=None)
        caption = "Images of the seeds 0 to 31, from the averaged weights, without truncation."
        sections["Generated"] = [Figure(caption, [Panel(sheet)], width_px=ALONE_PX)]
    row = tasks.TASKS.get(tasks.of(method))
    sentences = [
        f"The curves of this run end at iteration {int(curves[-1]['step']):,}." if curves else "",
        f"More pictures: {row.command}." if row else "",
        "" if metrics_rows else "Not measured yet: gen evaluate --out RUN_DIR/metrics.jsonl.",
    ]
    return write_report(
        run_dir / "report.html",
        title=type(method).__name__,
        subtitle=", ".join(method.domains),
        abstract=[" ".join(s for s in sentences if s)],
        sections=sections,
        metrics=metrics_table(metrics_rows, ()) if metrics_rows else None,
        verdict=verdict(metrics_rows),
        plots=strength_curve(metrics_rows),
        curves=curves,
        config_text=read_config(run_dir),
        versions=versions(),
    )


def strength_curve(rows: Sequence[Mapping]) -> list[str]:
    """A chart of an editor's success against its distance, a point a strength, if measured."""
    found = {row["metric"]: row for row in rows}
    points = []
    for name, row in found.items():
        of = re.fullmatch(r"curves/lpips_(\w+?)_s([\d.]+)", name)
        hits = found.get(f"curves/success_s{of[2]}") if of else None
        if hits:
            halves = [(r["ci95"][1] - r["ci95"][0]) / 2 if r.get("ci95") else math.nan
                      for r in (row, hits)]  # fmt: skip
            points.append((f"strength {of[2]}", row["value"], halves[0], hits["value"], halves[1]))
    return [charts.scatter(points, "LPIPS to the source", "all labels right")] if points else []


def samples(methods: Mapping[str, Any], images) -> dict[str, list[Figure]]:
    """Grids of the named methods, guided by latents and by references."""
    first, alone = next(iter(methods.values())), len(methods) == 1
    indices = common.pick(images, 2 if len(first.domains) <= 4 else 1)
    x, _ = common.batch(first, images, indices)
    refs, y_refs = common.batch(first, images, common.pick(images, 2, shift=0.5))

    def figure(caption: str, render) -> list[Figure]:
        panels = []
        for name, method in methods.items():
            rows, headers = render(method)
            lead = (int(rows[0][0] is None), 1)
            sheet = viz.grid(rows, lead=lead, cell_px=CELL_PX, background=None)
            panels.append(Panel(sheet, "" if alone else name, headers, lead=1))
        if not alone:
            caption += " Sources, seeds and references are the same for all."
        return [Figure(caption, panels, beside=True, width_px=ALONE_PX if alone else 0)]

    return {
        "Guided by latents": figure(
            "Sources in the first column; each other column is one latent code, mapped to a "
            "style of its domain and given to every source.",
            lambda method: translation.latent_grid(method, x, SEEDS),
        ),
        "Guided by references": figure(
            "Each translation takes its content from the image at its left and its style from "
            "the image above.",
            lambda method: translation.reference_grid(method, x, refs, y_refs),
        ),
    }


def _truth(method, images) -> dict[str, list[Figure]]:
    """Translations beside the true twins, for paired data."""
    indices = common.pick(images, 2 if len(method.domains) <= 4 else 1)
    twins = ((i, images.twin(i, y)) for i in indices for y in range(len(method.domains)))
    if all(twin in (None, i) for i, twin in twins):
        return {}
    rows, headers = translation.paired_grid(method, images, indices, SEEDS[0])
    sheet = viz.grid(rows, lead=(0, 1), cell_px=CELL_PX, background=None)
    caption = "In each pair the translation, and the true image of that content and domain."
    panel = Panel(sheet, "", headers, lead=1)
    return {"Against the true images": [Figure(caption, [panel], width_px=ALONE_PX)]}


def _walk(method, images) -> dict[str, list[Figure]]:
    """Up to twelve sources in motion, whose style makes one round through all domains."""
    S = len(method.domains)
    x, _ = common.batch(method, images, common.pick(images, -(-12 // S))[:12])
    ring = [translation.style(method, y % S, SEEDS[0]) for y in range(S + 1)]
    frames = common.join(translation.walk(method, x, ring, 12))[:, :-1].cpu()  # (N, T, 3, H, W)
    c = -(-len(x) // 2)  # columns of two rows
    tiles = [[list(t[:c]), [*t[c:], *[None] * (-len(t) % 2)]] for t in frames.unbind(1)]
    motion = _moving(viz.grid(rows, cell_px=MOVING_PX) for rows in tiles)
    caption = "Each source in the style of one latent code, on the straight line from each domain "
    caption += f"to the next: {', '.join(method.domains)} and back."
    return {
        "A walk through all domains": [Figure(caption, [Panel(motion)], width_px=c * MOVING_PX)]
    }


def paths(methods: Mapping[str, Any], images, lpips) -> dict[str, list[Figure]]:
    """Strips of the named methods within and between domains, with their smoothness."""
    some = next(iter(methods.values()))
    S = len(some.domains)
    x, _ = common.batch(some, images, common.pick(images, 1, shift=0.25))

    def strips(far: int, seeds: tuple[int, int]) -> list[Panel]:
        """Strips from each domain to the domain `far` places after it."""
        panels = []
        for y in range(min(S, 4)):
            for name, method in methods.items():
                end = (y + far) % S
                ends = [
                    translation.style(method, y, seeds[0]),
                    translation.style(method, end, seeds[1]),
                ]
                frames = translation.walk(method, x[y : y + 1], ends, FRAMES)[0]  # (1, T, 3, H, W)
                way = some.domains[y] + (f" → {some.domains[end]}" if far else "")
                panels.append(_strip(f"{way}, {name}".removesuffix(", "), frames, lpips))
        return panels

    intra, inter = strips(0, SEEDS), strips(1, SEEDS[:1] * 2)
    caption = (
        f"{SHOWN} of {FRAMES} frames on the straight line between two styles, both ends shown."
    )
    measured = (
        " Bars are LPIPS between consecutive frames, the line is their mean; equal bars are a "
        "gradual change. Distance is LPIPS of the first and the last frame; straightness, best at "
        "1, the straight way over the way taken, in roots of LPIPS; PS, best at 1, says whether "
        "the bars are equal, and nothing where hardly any distance is travelled; PIR, best at 0, "
        "is their spread."
    )
    return {
        "Within a domain": [Figure(caption + measured * bool(lpips), intra)],
        "Between domains": [Figure("The same between the styles of two domains.", inter)],
    }


def _strip(name: str, frames: Tensor, lpips) -> Panel:
    notes, bars = [], []
    if lpips:
        steps, direct = path_distances(lpips, frames)
        values = smoothness(steps, direct)
        keys = {"direct": "distance", "straight": "straightness", "ps": "PS", "pir": "PIR"}
        notes = [(label, f"{values[key].item():.3f}") for key, label in keys.items()]
        if direct.item() < STILL:
            notes = [notes[0], ("hardly anything moves:", "PS and straightness mean nothing")]
        bars = steps[0].tolist()
    frames = list(frames[0].cpu())
    still = viz.strip(frames, shown=SHOWN, cell_px=CELL_PX, background=None)
    box = MOVING_PX, MOVING_PX
    small = [ImageOps.contain(viz.enlarge(f, MOVING_PX), box) for f in frames]
    return Panel(still, name, notes=notes, steps=bars, motion=_moving(viz.palindrome(small)))


def _moving(frames: Iterable[viz.Picture]) -> list[Image.Image]:
    return [viz.to_pil(frame) for frame in frames]

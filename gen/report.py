"""The report of a run of an image translator: its pictures, its numbers, what produced them."""

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from gen import gallery, viz
from gen.page import Figure, Panel, write_report

PACKAGES = ("torch", "torchvision", "lightning", "timm", "lpips", "torch-fidelity", "opencv-python")
FRAMES, SHOWN = 20, 10  # of a path: rendered and measured, standing in the strip
SEEDS = (0, 1)  # styles a domain in the grids; the paths go from the first to the second


def versions() -> dict[str, str]:
    """Versions of what produced a result, and the machine's kind (no names, no paths)."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["system"] = f"{platform.system()} {platform.machine()}"
    gpu = torch.cuda.is_available()
    found["device"] = (
        torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    )
    return found


def read_curves(run_dir: str | Path) -> list[dict[str, str]]:
    """Rows of every metrics.csv below a run's folder, oldest file first, in the order of steps.

    A resumed run has several; where they overlap the newer rows win.
    """
    files = sorted(Path(run_dir).rglob("metrics.csv"), key=lambda p: (p.stat().st_mtime, p))
    rows: list[dict[str, str]] = []
    for file in files:
        with file.open(newline="") as lines:
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
    """Render a method's pictures and write `run_dir/report.html`.

    Args:
        method: what `gen.load` gives, or a method in training.
        images: validation images, a `DomainImages` (`data.val`).
        run_dir: holds metrics.csv and config.yaml, at any depth; the newest config counts.
        title: default: the method, its domains and size.
        shipped: another method with the same domains, shown beside this one.
        metrics_rows, shipped_rows: see `gen.page.write_report`.
        lpips: `gen.networks.perceptual.LPIPS`, measures the strips shown; None leaves that out.

    Raises:
        ValueError: `shipped` knows other domains, or the images have others than the method.
    """
    run_dir, curves = Path(run_dir), read_curves(run_dir)
    for what, domains in [("images", images.domains), ("shipped", getattr(shipped, "domains", 0))]:
        if domains and list(domains) != list(method.domains):
            raise ValueError(
                f"build expected {what} with the method's domains {list(method.domains)}, "
                f"got {list(domains)}; pass the data it was trained on, or shipped=None"
            )
    names, size = method.domains, method.img_size
    sentences = [
        f"{type(method).__name__} translates images between {len(names)} domains, "
        f"{', '.join(names[:-1])} and {names[-1]}, at {size} × {size} pixels.",
        f"The run ended at iteration {int(curves[-1]['step']) + 1:,}." if curves else "",
        "Every picture was rendered from the averaged weights through the interface that gen.load "
        "gives, and every source and reference is a validation image: training has not seen it.",
    ]
    configs = sorted(run_dir.rglob("config.yaml"), key=lambda p: (p.stat().st_mtime, p))
    return write_report(
        run_dir / "report.html",
        title=title or f"{type(method).__name__}, {', '.join(names)}, {size} px",
        abstract=[" ".join(s for s in sentences if s)],
        sections=_samples(method, shipped, images) | _paths(method, images, lpips),
        metrics_rows=metrics_rows,
        compare_rows=shipped_rows,
        curves=curves,
        config_text=configs[-1].read_text(encoding="utf-8") if configs else "",
        versions=versions(),
    )


def _samples(method, shipped, images) -> dict[str, list[Figure]]:
    """Grids guided by latents and by references, of both methods, and against true twins."""
    indices = gallery.pick(images, 2 if len(method.domains) <= 4 else 1)
    x, _ = gallery.batch(method, images, indices)
    refs = gallery.batch(
        method, images, gallery.pick(images, 3)[1::3] + gallery.pick(images, 3)[2::3]
    )
    order = refs[1].argsort(stable=True)
    refs = refs[0][order], refs[1][order]
    both = {"this run": method} | ({"the shipped checkpoint": shipped} if shipped else {})

    def panels(render) -> list[Panel]:
        found = []
        for name, m in both.items():
            rows, headers = render(m)
            sheet = viz.grid(rows, background=None)
            found.append(Panel(sheet, name.capitalize() if shipped else "", headers))
        return found

    beside = " Left this run, right the shipped checkpoint: equal sources and seeds." * bool(
        shipped
    )
    sections = {
        "Guided by latents": [
            Figure(
                "Sources in the first column; each other column is one latent code, mapped to a "
                "style of its domain and given to every source." + beside,
                panels(lambda m: gallery.latent_grid(m, x, SEEDS)),
                beside=True,
            )
        ],
        "Guided by references": [
            Figure(
                "Each translation takes its content from the image at its left and its style from "
                "the image above." + beside,
                panels(lambda m: gallery.reference_grid(m, x, *refs)),
                beside=True,
            )
        ],
    }
    if any(images.twin(i, y) is not None for i in indices for y in range(len(method.domains))):
        rows, headers = gallery.paired_grid(method, images, indices, SEEDS[0])
        caption = "Each translation beside the true image of the same content in that domain, "
        caption += "which neither training nor translation has seen."
        sections["Against the true images"] = [
            Figure(caption, [Panel(viz.grid(rows, background=None), "", headers)])
        ]
    return sections


def _paths(method, images, lpips) -> dict[str, list[Figure]]:
    """A closed walk through all domains, and measured strips within and between domains."""
    S = len(method.domains)
    x, _ = gallery.batch(method, images, gallery.pick(images, -(-8 // S))[:8])
    ring = [gallery.style(method, y % S, SEEDS[0]) for y in range(S + 1)]
    tour = gallery.tile(gallery.join(gallery.walk(method, x, ring, 12)).cpu(), 4)
    hero = _gif([viz.enlarge(frame, 256) for frame in tour[:-1]])

    def strips(leg) -> list[Panel]:
        found = []
        for y in range(min(S, 4)):
            (a, seed_a), (b, seed_b) = leg(y)
            keys = [gallery.style(method, a, seed_a), gallery.style(method, b, seed_b)]
            frames = gallery.walk(method, x[y : y + 1], keys, FRAMES)[0]  # (1, T, 3, H, W)
            name = method.domains[a] if a == b else f"{method.domains[a]} → {method.domains[b]}"
            found.append(_strip(name, frames, lpips))
        return found

    intra, inter = [
        strips(lambda y: ((y, 0), (y, 1))),
        strips(lambda y: ((y, 0), ((y + 1) % S, 0))),
    ]
    caption = (
        f"{SHOWN} of {FRAMES} frames on a straight line between two styles of one source"
        + "; bars: LPIPS between consecutive frames, the line their mean. Equal bars are a gradual "
        "change; efficiency is the way straight through over the way taken. PS is the harmonic "
        "mean of equality and efficiency, best at 1; PIR the spread of the bars, best at 0."
    )
    return {
        "A walk through all domains": [("Eight sources, one latent code; the domain moves.", hero)],
        "Within a domain": [Figure(caption if lpips else caption.split(";")[0] + ".", intra)],
        "Between domains": [Figure("The same between the styles of two domains.", inter)],
    }


def _strip(name: str, frames: Tensor, lpips) -> Panel:
    notes, bars = [], []
    if lpips:
        steps, direct = step_distances(lpips, frames)
        values = smoothness(steps, direct)
        keys = {"ps": "PS", "eq": "equality", "eff": "efficiency", "pir": "PIR"}
        notes = [(label, f"{values[key].item():.3f}") for key, label in keys.items()]
        bars = steps[0].tolist()
    frames = [viz.enlarge(frame, 128) for frame in frames[0].cpu()]
    still = viz.strip(frames, shown=SHOWN, background=None)
    return Panel(still, name, notes=notes, steps=bars, motion=_gif(viz.palindrome(frames)))


def _gif(frames) -> bytes:
    buffer = io.BytesIO()
    viz.save_gif(frames, buffer)
    return buffer.getvalue()

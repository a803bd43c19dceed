"""Evaluation of a translator on a data set: one row a metric, with its protocol and interval.

`plan`: what is translated to what. `outputs`: what is measured of translations, one function a
group. `paths`: what is measured of paths. `measure`: the order of it all. `names`: what values of
paths and sets are called.
"""

import logging
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

import gen.data
from gen import tasks
from gen.data.layout import FEWEST_VAL
from gen.evaluation.features import SECOND
from gen.evaluation.results import Results, head, provenance
from gen.evaluation.translators.measure import (
    BASIC,
    GROUPS,
    LOOK_AT_TRAINING,
    NEEDS,
    OF_PATHS,
    OUTPUTS,
    Measurement,
    Scorers,
)
from gen.evaluation.translators.plan import GUIDES, plan
from gen.metrics.checks import FEWEST
from gen.networks import arcface

log = logging.getLogger(__name__)


def evaluate(
    method,
    images,
    metrics: Collection[str] = BASIC,
    judges: Scorers | None = None,
    net: str | Sequence[str] = "alex",
    grid: Literal["released", "strict", "uniform"] = "released",
    seed: int = 777,
    batch_size: int = 16,
    max_sources: int | None = None,
    checkpoint: str | Path | None = None,
    ledger: str | Path | None = None,
) -> list[dict]:
    """Evaluates latent- and reference-guided translation.

    - `intra`: smoothness of paths from one style of the target domain to another.
    - `inter`: the same between two domains, all ordered pairs equally often.
    - `controls`: the same of paths that no model makes, for latents: a cross-dissolve of the two
      ends, the training images nearest to each frame, a cross-dissolve of the true images, the
      source left unchanged.
    - `psi`: intra and inter with styles at half and at twice their distance from the domain's
      centre: with these two a curve over the distance travelled, for `compare`.
    - `middle`: frames halfway between two domains: whether they look real and belong to one of
      the two, and their KD to the real images of both; so for the cross-dissolve, and for
      validation images. With `inter` it gives `gradual`; all words are in `gen.metrics.gradual`.
    - `translation`: of 10 outputs a source, diversity, content, and where the data is paired the
      error to the true target, beside that of the source left unchanged and, given the training
      images, of the nearest of them.
    - `accuracy`: share of these outputs that a classifier takes for the target domain, beside its
      accuracy on the sources and their twins, and what the unchanged source scores.
    - `texture`: of these outputs where source and true target are flat, and how far it is a
      lattice; see `gen.metrics.texture`.
    - `identity`: cosine of the face descriptors of source and output.
    - `fidelity`: distribution of 10 outputs a source against the training images, for every
      ordered pair of domains, and KD of the first 3 by a backbone that no loss has seen; beside
      them KD of the sources left unchanged, of real images, and of half the training images.
    - `ppl`: StyleGAN's perceptual path length of latents, 4 paths a source.

    Each source is encoded once for the first five. Its latents and references are a function of
    (seed, index), so results depend neither on the batch size nor, under `torch.distributed`, on
    the number of processes: they share the sources, and each gets all rows. References are
    validation images of the wanted domain without the source's twin; where a domain has too few, a
    source has fewer outputs, and the names say so. What so few images cannot give is left out, and
    that is said; `check` says it beforehand.

    Args:
        method: translator with `encode`, `decode`, `map_style`, `encode_style`, `domains`,
            `img_size` and `latent_dim`; an nn.Module on the device to use.
        images: validation images (`data.val`) with the domains and the size of the method.
        metrics: groups to measure, from `GROUPS`.
        judges: models and images that some groups need, see `Scorers`.
        net: name of the LPIPS network; of several, those after the first see the paths as well.
        grid: kind of grid of the paths, see `gen.interpolation.alphas`: released 0 .. 0.95, strict
            or uniform 0 .. 1 (`.._strict`); uniform renders each path twice.
        seed: seed of the order of sources, of latents, references and intervals.
        batch_size: number of sources at once.
        max_sources: upper limit for the number of sources, spread over the domains; None is all.
        checkpoint: file whose sha256 the rows state.
        ledger: file of single values; an evaluation that was cut goes on from it.

    Returns:
        Rows of metric, value, ci95 (bootstrap over sources, or over pairs of domains; None for a
        single pair), protocol, count, values (of single sources or pairs; `rows.to_json` leaves
        them out), seed, checkpoint_sha256, versions, seconds (of group and guide, shared by their
        rows).

    Raises:
        ValueError: images that do not fit the method, an unknown group or one whose judge is
            missing, fewer than 2 domains, a domain without images, or a method that gives NaN.
    """
    judges = judges or Scorers()
    metrics, outputs = check(method, images, metrics, judges, batch_size, max_sources, seed)
    options = (outputs, net, grid, seed, batch_size, max_sources)
    run = Measurement(method, images, metrics, judges, *options)
    parallel = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    begins = head(checkpoint, seed, images)
    book = Results(ledger if rank == 0 else None, begins, run.names())
    run.measure_sources(book, rank, world)
    run.measure_middle(book, rank, world)
    run.measure_pairs(book, rank, world)
    run.measure_lengths(book, rank, world)
    if parallel:
        parts: list = [None] * world
        dist.all_gather_object(parts, book)
        for part in parts:
            book.update(part)
    common = provenance(seed, checkpoint=checkpoint)
    return [
        row | common | {"seconds": round(book.seconds[group, guide], 2)}
        for group, guide, row in run.protocol().rows(book, run.groups)
    ]


def check(
    method,
    images,
    metrics: Collection[str] = BASIC,
    judges: Scorers | None = None,
    batch_size: int = 16,
    max_sources: int | None = None,
    seed: int = 777,
) -> tuple[list[str], dict[str, int]]:
    """The plan of `evaluate`: groups, and outputs a source for each guide.

    It says what is left out. To be called before the hours of training that an evaluation ends.

    Raises:
        ValueError: as `evaluate`, or nothing is left.
    """
    judges = judges or Scorers()
    _check_fit(method, images, metrics, judges, batch_size, max_sources)
    counts = _counts(images.labels, images)
    got = f"got {dict(zip(images.domains, counts, strict=True))}"
    if len(counts) < 2 or not min(counts):
        raise ValueError(f"expected at least 2 domains with validation images, {got}")
    paths = not set(metrics) - {*OF_PATHS, "middle"}  # outputs are the two ends of a path
    outputs = dict.fromkeys(GUIDES, 2) if paths else {"latent": OUTPUTS}
    if min(counts) < FEWEST_VAL:
        outputs.pop("reference", None)
        _notice(
            f"left out: what references guide, which needs {FEWEST_VAL} validation images a domain "
            f"(a source and two references), {got}"
        )
    elif not paths:
        outputs["reference"] = min(OUTPUTS, min(counts) - 1)
    sources = _counts(images.labels[[s.index for s in plan(images, seed, max_sources)]], images)
    few = {"ppl": "sources of every domain"} if not min(sources) else {}
    if "middle" in metrics and min(_counts(judges.train.labels, images)) < FEWEST:
        few["middle"] = f"{FEWEST} training images a domain"
    if "fidelity" in metrics:
        train = min(_counts(judges.train.labels, images))
        if min(train, min(sources) * min(SECOND, *outputs.values())) < FEWEST:
            few["fidelity"] = f"{FEWEST} training images and {FEWEST} outputs a domain"
    for group in [group for group in few if group in metrics]:
        _notice(f"left out: {group}, which needs {few[group]}; {got}, {sum(sources)} sources")
    groups = [group for group in GROUPS if group in metrics and group not in few]
    if not groups:
        raise ValueError(f"metrics: expected images enough for one of {[*metrics]}, {got}")
    return groups, outputs


def _check_fit(method, images, metrics, judges: Scorers, batch_size, max_sources) -> None:
    """Raises what `check` raises of its arguments alone, whatever images there are."""
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if missing := [f"{g} ({NEEDS[g]})" for g in judges.missing() if g in metrics]:
        raise ValueError(f"metrics: expected what they need, got nothing for {', '.join(missing)}")
    if batch_size < 1 or (max_sources is not None and max_sources < 1):
        raise ValueError(
            f"expected batch_size and max_sources >= 1, got {batch_size} and {max_sources}"
        )
    if list(images.domains) != list(method.domains):
        raise ValueError(f"expected the domains {method.domains}, got {images.domains}")
    for what in (judges.classifier, judges.train):
        if what is not None and list(what.domains) != list(method.domains):
            name = type(what).__name__
            raise ValueError(f"{name}: expected the domains {method.domains}, got {what.domains}")
    if images.img_size != method.img_size:
        raise ValueError(f"expected images of {method.img_size} px, got {images.img_size}")


def _counts(labels: torch.Tensor, images) -> list[int]:
    return torch.bincount(labels, minlength=len(images.domains)).tolist()


@cache
def _notice(text: str) -> None:
    """Says each thing once, however often a training evaluates."""
    log.warning(text)


def from_options(method, o, ledger: Path | None = None) -> list[dict]:
    """The rows of what `scripts/evaluate.py` asks for with the options `o`."""
    data = gen.data.open(o.data, img_size=method.img_size)
    classifier = o.load(o.classifier) if o.classifier else None
    if classifier:
        tasks.expect(classifier, "classifier", source=f"--classifier {o.classifier}")
    face = arcface.load(o.arcface).to(o.device) if o.arcface else None
    second = o.backbone[1] if len(o.backbone) > 1 else None
    judges = Scorers(data.train, o.backbone[0], classifier, face, second)
    groups = o.metrics or BASIC
    if "all" in groups:
        groups = [group for group in GROUPS if group not in judges.missing()]
        for group in judges.missing():
            option = {"accuracy": "--classifier", "identity": "--arcface"}[group]
            log.warning("left out: %s, which needs %s FILE", group, option)
    sizes = dict(batch_size=o.batch_size, max_sources=o.max_sources)
    files = dict(checkpoint=o.checkpoint, ledger=ledger)
    return evaluate(method, data.val, groups, judges, o.net, o.grid, o.seed, **sizes, **files)


def in_training(method, data, metrics, counts: tuple[int, int], seed: int, checked: bool):
    """The rows of `gen.callbacks.Evaluate`, or with `checked` only whether its arguments fit."""
    groups = metrics or BASIC
    judges = Scorers(data.train if not {*groups}.isdisjoint(LOOK_AT_TRAINING) else None)
    run = check if checked else evaluate
    return run(method, data.val, groups, judges, seed=seed, max_sources=counts[0])

"""Evaluates a translator on a data set: one row per metric, with its protocol and interval.

`plan`: sources, their target domains and styles. `outputs`: metrics of translations, one function
per group. `paths`: metrics of paths. `measure`: runs all measurements. `names`: names of the values
of paths and sets.
"""

import logging
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import torch

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

    - `intra`: smoothness of paths between two styles of the target domain.
    - `inter`: smoothness of paths between two domains; all ordered pairs are equally frequent.
    - `controls`: smoothness of paths that no model makes, for latents: a cross-dissolve of the two
      ends, the training images nearest to each frame, a cross-dissolve of the true images, and the
      unchanged source.
    - `psi`: `intra` and `inter` with styles at half and at twice their distance from the centre of
      their domain. With psi = 1 they give a curve over the distance travelled, for `compare`.
    - `middle`: frames halfway between two domains: whether they look real and belong to one of the
      two domains, and their KD to the real images of both; the same for the cross-dissolve and for
      validation images. With `inter`, also `gradual`. `gen.metrics.gradual` defines all terms.
    - `translation`: diversity and content of 10 outputs per source; for paired data also the error
      to the true target, compared with the unchanged source and the nearest training image.
    - `accuracy`: share of the 10 outputs that a classifier assigns to the target domain, compared
      with its accuracy on sources and twins, and with the score of the unchanged source.
    - `texture`: texture of the 10 outputs where source and true target are flat, and how far the
      texture is a lattice; see `gen.metrics.texture`.
    - `identity`: cosine between the face descriptors of source and output.
    - `fidelity`: distribution of 10 outputs per source against the training images, for every
      ordered pair of domains, and KD of the first 3 outputs by a backbone that no loss has used.
      For comparison, KD of unchanged sources, of real images, and of half the training images.
    - `ppl`: StyleGAN's perceptual path length of latents, 4 paths per source.

    The first five groups encode each source once. Latents and references are functions of
    (seed, index), so results depend neither on the batch size nor on the number of processes:
    under `torch.distributed` the processes share the sources, and each gets all rows. References
    are validation images of the wanted domain, without the twin of the source. If a domain has too
    few of them, a source has fewer outputs, and the names say so. Values that need more images are
    left out with a warning; `check` gives the same warning beforehand.

    Args:
        method: translator with `encode`, `decode`, `map_style`, `encode_style`, `domains`,
            `img_size` and `latent_dim`; an nn.Module on the device to use.
        images: validation images (`data.val`) with the domains and the size of the method.
        metrics: groups to measure, from `GROUPS`.
        judges: models and images that some groups need, see `Scorers`.
        net: name of the LPIPS network; further names add networks that measure paths alone.
        grid: kind of grid of the paths, see `gen.interpolation.alphas`: released 0 .. 0.95, strict
            or uniform 0 .. 1 (`.._strict`). The uniform grid renders each path twice.
        seed: seed of the order of sources, of latents, references and intervals.
        batch_size: number of sources per batch.
        max_sources: largest number of sources, spread over the domains; None takes all sources.
        checkpoint: file whose sha256 the rows state.
        ledger: file of single values, from which an interrupted evaluation resumes.

    Returns:
        Rows of metric, value, ci95 (bootstrap over sources, or over pairs of domains; None for a
        single pair), protocol, count, values (of single sources or pairs; `results.to_json` leaves
        them out), seed, checkpoint_sha256, versions, seconds (of a group and guide; all rows of
        both state the same number).

    Raises:
        ValueError: images that do not fit the method, an unknown group or one whose judge is
            missing, fewer than 2 domains, a domain without images, or a method that gives NaN.
    """
    judges = judges or Scorers()
    metrics, outputs = check(method, images, metrics, judges, batch_size, max_sources, seed)
    options = (outputs, net, grid, seed, batch_size, max_sources)
    run = Measurement(method, images, metrics, judges, *options)
    book = Results(ledger, head(checkpoint, seed, images), run.names())
    share = book.rank, book.world
    run.measure_sources(book, *share)
    run.measure_middle(book, *share)
    run.measure_pairs(book, *share)
    run.measure_lengths(book, *share)
    book.share()
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
    """Plans `evaluate`: its groups, and the number of outputs per source for each guide.

    Warns of values that will be left out. Call it before a training that ends in an evaluation.

    Raises:
        ValueError: as `evaluate`, or no group is left.
    """
    judges = judges or Scorers()
    _check_fit(method, images, metrics, judges, batch_size, max_sources)
    counts = _counts(images.labels, images)
    got = f"got {dict(zip(images.domains, counts, strict=True))}"
    if len(counts) < 2 or not min(counts):
        raise ValueError(f"expected at least 2 domains with validation images, {got}")
    paths = not set(metrics) - {*OF_PATHS, "middle"}  # a path needs two outputs as its ends
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
    """Raises the errors of `check` that the arguments alone decide, whatever the images."""
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
    """Warns once of each text, however often a training evaluates."""
    log.warning(text)


def from_options(method, o, ledger: Path | None = None) -> list[dict]:
    """Rows for the options `o` of `gen evaluate`."""
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
    """Rows for `gen.callbacks.Evaluate`; with `checked`, only checks that its arguments fit."""
    groups = metrics or BASIC
    judges = Scorers(data.train if not {*groups}.isdisjoint(LOOK_AT_TRAINING) else None)
    run = check if checked else evaluate
    return run(method, data.val, groups, judges, seed=seed, max_sources=counts[0])

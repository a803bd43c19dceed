"""Evaluates a generator: are its images like real images, and how gradual are its paths."""

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

import gen.data
from gen import viz
from gen.evaluation.features import better
from gen.evaluation.results import FRAMES, LOWER, Results, SetValues, Values, head
from gen.inference import common, generation
from gen.interpolation import alphas, path
from gen.metrics.checks import FEWEST
from gen.metrics.extractors import load_backbone
from gen.metrics.fidelity import fake_features, fidelity_scores, real_features
from gen.metrics.path_length import perceptual_path_length
from gen.metrics.smoothness import BETTER, REPORTED, path_distances, smoothness
from gen.networks.perceptual import LPIPS

log = logging.getLogger(__name__)
GROUPS = ("fidelity", "paths", "ppl")
SPACES = ("w", "z")  # spaces of paths: straight lines of codes, great circles of latents


def evaluate_generator(
    method,
    train: Dataset,
    val: Dataset,
    metrics: Collection[str] = GROUPS,
    count: int = 5000,
    paths: int = 200,
    backbone: str = "effnetlite0",
    net: str = "alex",
    seed: int = 777,
    batch_size: int = 50,
    checkpoint: str | Path | None = None,
    ledger: str | Path | None = None,
) -> list[dict]:
    """Evaluates a generator of images, without truncation.

    - `fidelity`: `count` images against all training images; for comparison, the validation images
      against the training images, the score of real images that training has not seen (left out
      with a warning for fewer than 4). Both depend on the number of images, which the rows state;
      compare them at equal counts.
    - `paths`: smoothness of paths between two random images, of codes and of latents.
    - `ppl`: StyleGAN's perceptual path length.

    Image i is a function of (seed, i). Images with transparency, generated and real ones alike, are
    laid on white first, as the rows say.

    Args:
        method: generator with `generate`, `map_latents`, `synthesize`, `latent_dim`, `classes`.
        train, val: data sets of real images: `[i]["x"]`.
        metrics: groups to measure, from `GROUPS`.
        count: number of images for fidelity.
        paths: number of paths for smoothness; 5 times as many for PPL.
        backbone: name of the backbone for fidelity.
        net: name of the LPIPS network for smoothness.
        seed: seed of latents and intervals.
        batch_size: number of images per batch.
        checkpoint: file whose sha256 the rows state.
        ledger: file of single values, from which an interrupted evaluation resumes.

    Returns:
        Rows as of `gen.evaluation.translators.evaluate`; ci95 is a bootstrap over paths for
        `paths`, otherwise None.

    Raises:
        ValueError: an unknown group, counts below the needs of a metric, or NaN.
    """
    check(train, metrics, count, paths, batch_size)
    run = _Generator(method, seed, batch_size)
    groups = [group for group in GROUPS if group in metrics]
    judges = {"fidelity": f"{backbone}, {count} images", "paths": net, "ppl": f"{paths} paths"}
    found = Results(ledger, head(checkpoint, seed, train, val), judges)
    if "fidelity" in groups and not found.done("fidelity"):
        found.take_set_values("fidelity", run.fidelity(train, val, count, backbone))
    if "paths" in groups:
        run.lpips = LPIPS(net).to(common.device(method))
        few = max(1, batch_size // FRAMES)
        found.measure(["paths"], range(paths), few, lambda block: block, run.paths)
    if "ppl" in groups and not found.done("ppl"):
        found.take_set_values("ppl", run.path_length(5 * paths))
    seen = f"{method.img_size} px{', transparency on white' * run.clear}"
    return found.rows(groups, range(paths), seen, seed, checkpoint=checkpoint)


def check(
    train: Dataset, metrics: Collection[str], count: int, paths: int, batch_size: int = 50
) -> None:
    """Raises the errors of `evaluate_generator` for its arguments, before any other work."""
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if min(count, paths, batch_size) < 1:
        got = f"{count}, {paths} and {batch_size}"
        raise ValueError(f"expected count, paths and batch_size >= 1, got {got}")
    if "fidelity" in metrics and min(count, len(train)) < FEWEST:
        got = f"{count} and {len(train)}"
        raise ValueError(f"fidelity: expected {FEWEST} generated and training images, got {got}")


class _OnWhite(Dataset):
    """Real images (3, H, W), transparent ones laid on white."""

    def __init__(self, images: Dataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return viz.over_white(self.images[index]["x"])


class _Generator:
    """Measures a generator group by group."""

    lpips: LPIPS

    def __init__(self, method, seed: int, batch_size: int) -> None:
        self.method, self.seed, self.batch_size = method, seed, batch_size
        self.clear = getattr(method, "alpha", False)

    def generate(self, z: Tensor, y: Tensor | int = 0) -> Tensor:
        """Latents (N, Z) and classes -> images (N, 3, H, H) in [-1, 1]."""
        return viz.over_white(self.method.generate(z, y)).clamp(-1, 1)

    def latents(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Latents (N, Z) and classes (N,) of images first .. first + count - 1."""
        numbers = range(first, first + count)
        z = generation.latents(self.method, [self.seed * 10**6 + i for i in numbers])
        return z, torch.tensor(numbers, device=z.device) % max(1, self.method.classes)

    def images(self, count: int) -> Iterator[Tensor]:
        for first in range(0, count, self.batch_size):
            z, y = self.latents(first, min(self.batch_size, count - first))
            yield self.generate(z, y)

    def fidelity(self, train: Dataset, val: Dataset, count: int, backbone: str) -> SetValues:
        extractor = load_backbone(backbone, None, common.device(self.method))
        real = real_features(extractor, _OnWhite(train), self.batch_size, "training images")
        fake = fake_features(extractor, self.images(count), count, self.batch_size)
        against = f"against {len(real)} training images"
        sides = [("", "generated", fake)]
        if len(val) >= FEWEST:
            real_val = real_features(extractor, _OnWhite(val), self.batch_size, "validation images")
            sides.append(("real/", "validation", real_val))
        else:
            got = f"left out: real/ rows, which need {FEWEST} validation images, got {len(val)}"
            log.warning(got)
        for prefix, what, features in sides:
            protocol = f"{len(features)} {what} images {against}"
            for name, value in fidelity_scores(features, real, backbone).items():
                yield prefix + name, protocol, value, len(features), better(name)

    def paths(self, _: str, numbers: Sequence[int]) -> Values:
        t, (first, n) = alphas(FRAMES), (numbers[0], len(numbers))
        (z, y), (z2, _) = self.latents(first, n), self.latents(10**5 + first, n)
        for space in SPACES:
            frames = self.path(space, z, z2, y, t)  # (N, T, 3, H, H)
            found = smoothness(*path_distances(self.lpips, frames.clamp(-1, 1)))
            line = "straight lines of codes" if space == "w" else "great circles of latents"
            what = f"{line}, alpha 0..{1 - 1 / FRAMES:g}, seen at 256 px"
            for name in REPORTED:
                named = f"{space}/{name}_t{FRAMES}_{self.lpips.net}"
                yield named, what, found[name], BETTER[name]

    def path(self, space: str, z: Tensor, z2: Tensor, y: Tensor, t: Tensor) -> Tensor:
        method = self.method
        if space == "w":
            ends = (method.map_latents(latents, y) for latents in (z, z2))  # (N, L, D)
            return path(lambda ws: viz.over_white(method.synthesize(ws)), *ends, t)
        return path(lambda z: self.generate(z, y), z, z2, t, "slerp")

    def path_length(self, count: int) -> SetValues:
        method, half = self.method, max(1, self.batch_size // 2)
        options = (count, method.classes, self.seed, half, common.device(method))
        found = perceptual_path_length(self.generate, method.latent_dim, *options)
        for name, value in found.items():
            yield name, f"{count} paths", value, count, LOWER


def from_options(method, o, ledger: Path | None = None) -> list[dict]:
    """Rows for the options `o` of `gen evaluate`."""
    clear = dict(alpha=True) if getattr(method, "alpha", False) else {}
    options = dict(img_size=method.img_size, crop_pct=o.crop_pct) | clear
    data = gen.data.open(o.data, "classes", **options)
    groups = o.metrics or ["all"]
    return evaluate_generator(
        method,
        data.train,
        data.val,
        metrics=GROUPS if "all" in groups else groups,
        count=5000 if o.count is None else o.count,
        paths=200 if o.max_sources is None else o.max_sources,
        backbone=o.backbone[0],
        net=o.net[0],
        seed=o.seed,
        batch_size=o.batch_size,
        checkpoint=o.checkpoint,
        ledger=ledger,
    )


def in_training(method, data, metrics, counts: tuple[int, int], seed: int, checked: bool):
    """Rows for `gen.callbacks.Evaluate`; with `checked`, only checks that its arguments fit."""
    groups, (paths, images) = metrics or ("fidelity",), counts
    if checked:
        return check(data.train, groups, images, paths)
    return evaluate_generator(method, data.train, data.val, groups, images, paths, seed=seed)

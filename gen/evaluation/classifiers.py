"""Evaluation of a classifier: is it right, and what does its attention look at. Rows as `evaluate`.

Names carry their protocol: `val/top1`, `test/jaccard_t60_alpha`, `voc/jaccard_t60_voc`.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gen.checkpoint import find
from gen.data.groups import read_groups
from gen.data.voc import VOC
from gen.devices import float64
from gen.evaluation.results import FRAMES, versions
from gen.files import sha256
from gen.inference import common
from gen.metrics import attention as maps_of
from gen.metrics.checks import check_images
from gen.metrics.smoothness import REPORTED, path_distances, smoothness
from gen.metrics.translation import bootstrap, resampled_means
from gen.networks.perceptual import LPIPS

GROUPS = ("accuracy", "segmentation", "entropy", "shift")
MASSES = (0.6, 0.4)  # shares of the attention that are the foreground
RESAMPLED = 1000  # as `bootstrap`


def possible(method, images) -> list[str]:
    """Groups that this method and these images allow."""
    try:
        maps = hasattr(method, "attention")
        if maps:
            size = method.img_size
            method.attention(torch.zeros(1, 3, size, size, device=common.device(method)))
    except ValueError:  # a model without a map, as a ResNet
        maps = False
    masks = getattr(images, "has_masks", False)
    allowed = (hasattr(images, "labels"), maps and masks, maps, maps)
    return [group for group, ok in zip(GROUPS, allowed, strict=True) if ok]


def evaluate_classifier(
    method,
    images,
    split: str = "val",
    metrics: Collection[str] | None = None,
    net: str = "alex",
    seed: int = 777,
    batch_size: int = 64,
    max_images: int | None = None,
    checkpoint: str | Path | None = None,
    ignore_void: bool = True,
) -> list[dict]:
    """Evaluates a classifier on labelled images, or its attention on VOC.

    - `accuracy`: `top1`, `top5` of more than 5 classes, `class_mean_top1` where every class counts
      the same; `top1_raw` of the weights as trained beside the averaged ones that all else uses,
      unless the checkpoint holds averages alone.
    - `segmentation`: `gen.metrics.attention.jaccard` with the masks of the images, for the patches
      of the top 60 % and 40 % of attention, beside what keeping every patch would score; `auroc`,
      which needs no threshold; `mass_on_object`, which chooses no head, beside that of a flat map.
    - `entropy`: spatial entropy of the maps, and their components.
    - `shift`: how a map moves while the image moves by one patch, see `shift_path`.

    Args:
        method: classifier: `classify(x)` gives logits (N, S). With `attention(x)`, similarities (N,
            heads, Hg, Wg), the maps are measured too, and both take `averaged`.
        images: split of `gen.data.Classes` or `Domains`, or a `VOC`: `[i]["x"]`, `labels`,
            `domains`, `img_size`; `mask(i)`, bool or classes, or None.
        split: first part of the names, such as "val".
        metrics: groups to measure; None is all that are `possible`.
        net: name of the LPIPS network for smoothness.
        seed: seed of the intervals, and of the choice of images under `max_images`.
        batch_size: images at once; changes no value beyond rounding.
        max_images: upper limit for the number of images, which are drawn uniformly.
        checkpoint: file whose sha256 the rows state.
        ignore_void: leave void pixels out, see `jaccard`; False is the release's way
            (`.._keepvoid`).

    Returns:
        Rows of metric, value, ci95 (bootstrap over images, or over whole groups of them where the
        data has a `groups.csv`; of `class_mean_top1` over those of each class), protocol, count,
        values (of single images, or classes), seed, checkpoint_sha256, versions, seconds (of the
        group).

    Raises:
        ValueError: images that do not fit the method, a group that is unknown or not possible, no
            mask that shows an object, NaN.
    """
    allowed = possible(method, images)
    metrics = allowed if metrics is None else metrics
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if refused := [group for group in metrics if group not in allowed]:
        raise ValueError(
            f"metrics: expected some of {tuple(allowed)}, got {', '.join(refused)}: accuracy needs "
            "labels, the others a method with attention maps, segmentation also images with masks"
        )
    if batch_size < 1 or (max_images is not None and max_images < 1):
        raise ValueError(
            f"expected batch_size and max_images >= 1, got {batch_size} and {max_images}"
        )
    if hasattr(images, "labels"):
        if list(images.domains) != list(method.domains):
            raise ValueError(f"expected the classes {method.domains}, got {images.domains}")
        if images.img_size != method.img_size:
            raise ValueError(f"expected images of {method.img_size} px, got {images.img_size}")
    groups = [group for group in GROUPS if group in metrics]
    run = _Run(method, images, net, ignore_void, "shift" in groups)
    run.measure(groups, sorted(_drawn(len(images), seed, max_images)), batch_size)
    common = {"seed": seed, "checkpoint_sha256": sha256(find(checkpoint)) if checkpoint else None}
    common["versions"] = versions()
    return [
        {"metric": f"{split}/{row.pop('metric')}"}
        | row
        | common
        | {"seconds": round(run.seconds[group], 2)}
        for group, row in run.rows(groups, seed)
    ]


def _drawn(count: int, seed: int, at_most: int | None) -> list[int]:
    """Draws numbers of images; fewer are the first of more."""
    return np.random.default_rng(seed).permutation(count)[:at_most].tolist()


class _Run:
    """Values of single images: `values[group, name][index]`."""

    def __init__(self, method, images, net: str, ignore_void: bool, shift: bool) -> None:
        self.method, self.images, self.ignore_void = method, images, ignore_void
        self.device, self.net = common.device(method), net
        self.lpips = LPIPS(net).to(self.device) if shift else None
        has_files = hasattr(images, "paths")
        self.groups = read_groups(images.root, images.paths) if has_files else None  # (N,)
        self.values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        self.seconds: dict[str, float] = defaultdict(float)
        self.grid, self.patch = (0, 0, 0), 0.0  # heads, Hg, Wg; px

    def measure(self, groups: list[str], indices: list[int], batch_size: int) -> None:
        self.measured = len(indices)
        for i in tqdm(range(0, len(indices), batch_size), "evaluate", disable=None):
            block = indices[i : i + batch_size]
            x = torch.stack([self.images[k]["x"] for k in block]).to(self.device)
            check_images(x, "images")
            began, maps = time.perf_counter(), None
            for group in groups:
                if group != "accuracy" and maps is None:
                    maps = self.method.attention(x)  # (N, heads, Hg, Wg)
                    self.grid, self.patch = tuple(maps.shape[1:]), x.shape[-1] / maps.shape[-1]
                for name, of_image in getattr(self, group)(x, block, maps):
                    self.values[group, name].update(of_image)
                self.seconds[group] += time.perf_counter() - began
                began = time.perf_counter()

    # ---- one group of a batch: (name, {index: value}) --------------------------------------------

    def accuracy(self, x: Tensor, block: list[int], _) -> Iterator[tuple[str, dict[int, float]]]:
        y = torch.as_tensor(self.images.labels)[block].to(self.device)
        told = {"": self.method.classify(x)}  # (N, S)
        if hasattr(self.method, "attention"):
            raw = self.method.classify(x, averaged=False)
            if not torch.equal(raw, told[""]):  # else the file holds averages alone
                told["_raw"] = raw
        for which, logits in told.items():
            if not logits.isfinite().all():
                raise ValueError("classify: expected finite logits, got NaN or infinity")
            yield f"top1{which}", _by_image(block, logits.argmax(1) == y)
            if logits.shape[1] > 5:
                hits = (logits.topk(5).indices == y[:, None]).any(1)
                yield f"top5{which}", _by_image(block, hits)

    def segmentation(self, x: Tensor, block: list[int], maps: Tensor):
        masks = {k: mask for k in block if (mask := self.images.mask(k)) is not None}
        if not masks:
            return
        truth = torch.stack(list(masks.values())).to(self.device, torch.int64)  # (M, H, W)
        maps = maps[[block.index(k) for k in masks]]
        ways = {
            maps_of.jaccard_name(m, self.ignore_void): maps_of.foreground(maps, m) for m in MASSES
        }
        ways["jaccard_whole" + ("" if self.ignore_void else "_keepvoid")] = maps[:, :1].isfinite()
        scores = {k: maps_of.jaccard(found, truth, self.ignore_void) for k, found in ways.items()}
        scores["auroc"] = maps_of.auroc(maps, truth)
        flat = torch.zeros_like(maps[:, :1])
        for name, of_map in {"mass_on_object": maps, "mass_on_object_flat": flat}.items():
            scores[name] = maps_of.mass_on_object(of_map, truth)
        for name, (values, shown) in scores.items():
            keys = [k for k, ok in zip(masks, shown.tolist(), strict=True) if ok]
            yield name, _by_image(keys, values)

    def entropy(self, x: Tensor, block: list[int], maps: Tensor):
        for name, value in maps_of.map_statistics(maps).items():
            yield name, _by_image(block, float64(value).mean(1))

    def shift(self, x: Tensor, block: list[int], maps: Tensor):
        moved = maps_of.shift_path(self.method.attention, x, self.patch, FRAMES)  # (N, T, Hg, Wg)
        found = smoothness(*path_distances(self.lpips, maps_of.map_frames(moved).to(x.device)))
        for name in REPORTED:
            yield f"{name}_t{FRAMES}_{self.net}_shift", _by_image(block, found[name])
        yield f"tv_t{FRAMES}_shift", _by_image(block, maps_of.map_variation(moved))

    # ---- rows ------------------------------------------------------------------------------------

    def rows(self, groups: list[str], seed: int) -> Iterator[tuple[str, dict]]:
        """(group, row) of all that was measured."""
        labels = getattr(self.images, "labels", None)
        for group in groups:
            names = [name for g, name in self.values if g == group]
            if not names:
                raise ValueError(f"{group}: expected masks that show an object, got none")
            for name in names:
                of_image = self.values[group, name]
                together = self.together(of_image)
                mean, *ci95 = bootstrap(list(of_image.values()), seed, RESAMPLED, together)
                protocol = self.protocol(group, name, len(of_image)) + _count(together)
                row = dict(metric=self.named(name), value=mean, ci95=ci95, protocol=protocol)
                row |= dict(count=len(of_image))
                yield group, row | {"values": of_image}
                if name == "top1":
                    yield group, self.class_mean(of_image, labels, seed)

    def together(self, indices: Iterable[int]) -> np.ndarray | None:
        """The groups of these images."""
        return None if self.groups is None else self.groups[list(indices)].numpy()

    def named(self, name: str) -> str:
        kind = "voc" if isinstance(self.images, VOC) else "alpha"
        return f"{name}_{kind}" if name.startswith(("jaccard", "auroc", "mass")) else name

    def protocol(self, group: str, name: str, count: int) -> str:
        (heads, *grid), px = self.grid, self.size()
        seen = f"{heads} heads, {grid[0]} x {grid[1]} patches, {px}"
        if group == "accuracy":
            return self.weights(name) + px
        if group == "entropy":
            return f"{'nats, ' * (name != 'components')}mean over {seen}"
        if group == "shift":
            return f"image moved by 0 .. {self.patch:g} px to the right, mean map of {seen}"
        if "whole" in name or "flat" in name:
            what = f"every patch {'kept' if 'whole' in name else 'alike'}, {px}"
        else:
            what = f"{'mean over' if 'mass' in name else 'best head a class,'} {seen}"
        out = self.measured - count
        return what + f", without {out} images that show none" * bool(out)

    def size(self) -> str:
        crop = getattr(self.images, "crop_pct", 1.0)
        return f"{self.images.img_size} px" + (f", centre crop {crop:g}" if crop != 1 else "")

    def weights(self, name: str) -> str:
        if not hasattr(self.method, "attention"):
            return ""  # it has one set of them
        return "raw weights, " if name.endswith("_raw") else "averaged weights, "

    def class_mean(self, hits: dict[int, float], labels: Tensor, seed: int) -> dict:
        """The row of the mean over classes; resampled hits of n images are binomial.

        Where there are groups, those of each class are resampled.
        """
        of_class, rng = defaultdict(dict), np.random.default_rng(seed)
        for index, hit in hits.items():
            of_class[int(labels[index])][index] = hit
        classes = [told for _, told in sorted(of_class.items())]
        means, n = [np.mean(list(told.values())) for told in classes], list(map(len, classes))
        values = dict(zip(sorted(of_class), map(float, means), strict=True))
        if self.groups is None:
            drawn = rng.binomial(n, means, (RESAMPLED, len(n))) / n  # (1000, S)
        else:
            told = [(list(told.values()), self.together(told)) for told in classes]
            drawn = np.stack([resampled_means(*one, rng, RESAMPLED) for one in told], 1)
        ci95 = np.percentile(drawn.mean(1), [2.5, 97.5]).tolist()
        row = dict(metric="class_mean_top1", value=float(np.mean(means)), ci95=ci95)
        protocol = f"mean over {len(n)} classes, {self.weights('')}{self.size()}"
        protocol += _count(self.together(hits))
        return row | dict(protocol=protocol, count=len(hits), values=values)


def _count(groups: np.ndarray | None) -> str:
    """The number of draws (groups) that the images are, as text for a protocol."""
    return "" if groups is None else f", {len(groups)} images in {len(set(groups))} groups"


def _by_image(block: list[int], values: Tensor) -> dict[int, float]:
    return dict(zip(block, float64(values).tolist(), strict=True))

"""Evaluates a classifier: is the class right, and does the attention find the object.

Names of metrics carry their protocol: `val/top1`, `test/jaccard_t60_alpha`, `voc/jaccard_t60_voc`.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import gen.data
from gen.data.groups import read_groups
from gen.data.voc import VOC
from gen.devices import float64
from gen.evaluation.results import FRAMES, HIGHER, LOWER, NEITHER, Results, Values, head
from gen.inference import common
from gen.metrics import attention as maps_of
from gen.metrics.checks import check_images
from gen.metrics.localization import (
    centre_map,
    corloc,
    largest_norm,
    mean_map,
    norm_outliers,
    pointing,
)
from gen.metrics.smoothness import BETTER, REPORTED, path_distances, smoothness
from gen.metrics.translation import resampled_means
from gen.networks.perceptual import LPIPS

GROUPS = ("accuracy", "segmentation", "localization", "entropy", "norms", "shift")
MASSES = (0.6, 0.4)  # shares of the attention that count as foreground
RESAMPLED = 1000  # resamples of the bootstrap, as in `bootstrap`

log = logging.getLogger(__name__)


def possible(method, images) -> list[str]:
    """Groups that can be measured with this method and these images."""
    maps, tokens = (_gives(method, name) for name in ("attention", "tokens"))
    masks = maps and getattr(images, "has_masks", False)
    allowed = (hasattr(images, "labels"), masks, masks, maps, maps and tokens, maps)
    return [group for group, ok in zip(GROUPS, allowed, strict=True) if ok]


def _gives(method, name: str) -> bool:
    """True if the function of the method accepts an image; a ResNet has no attention, say."""
    try:
        size = 2 * (method.img_size,)
        getattr(method, name)(torch.zeros(1, 3, *size, device=common.device(method)))
    except (AttributeError, ValueError):
        return False
    return True


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
    ledger: str | Path | None = None,
) -> list[dict]:
    """Evaluates a classifier on labelled images, or its attention on VOC.

    - `accuracy`: `top1`; `top5` for more than 5 classes; `class_mean_top1`, in which every class
      has equal weight; `top1_raw` of the raw weights, if the checkpoint holds them. All other
      values use the averaged weights.
    - `segmentation`: `gen.metrics.attention.jaccard` between the masks of the images and the
      patches of the top 60 % and 40 % of attention, and for comparison all patches; `auroc`, which
      needs no threshold; `mass_on_object`, which selects no head, also for a uniform map.
    - `localization`: measures of `gen.metrics.localization` that select no head, of the mean map:
      `corloc`, `pointing`, `auroc_mean` and the mass on the object. Also of a flat map (`.._flat`),
      of a Gaussian in the centre (`.._centre`), and of the network with its first weights
      (`.._untrained`), if the method has `untrained()`.
    - `entropy`: spatial entropy and number of components of the maps.
    - `norms`: patches with outlying norms, see `norm_outliers`; needs `tokens(x)`.
    - `shift`: change of a map while the image moves by one patch, see `shift_path`.

    Args:
        method: classifier; `classify(x)` gives logits (N, S). With `attention(x)`, similarities (N,
            heads, Hg, Wg), the maps are measured too, and both functions accept `averaged`.
        images: split of `gen.data.Classes` or `Domains`, or a `VOC`; has `[i]["x"]`, `labels`,
            `domains`, `img_size` and `mask(i)`, which is bool, classes, or None.
        split: first part of the names, such as "val".
        metrics: groups to measure; None measures all groups of `possible`.
        net: name of the LPIPS network for smoothness.
        seed: seed of the intervals, and of the choice of images under `max_images`.
        batch_size: images per batch; changes values by rounding alone.
        max_images: upper limit for the number of images, which are drawn uniformly.
        checkpoint: file whose sha256 the rows state.
        ignore_void: leave void pixels out, see `jaccard`; False keeps them, as the release does
            (`.._keepvoid`).
        ledger: file of single values, from which an interrupted evaluation resumes.

    Returns:
        Rows of metric, value, ci95, protocol, count, values (of single images, or classes), seed,
        checkpoint_sha256, versions, seconds (of the group). ci95 is a bootstrap over images, or
        over whole groups if the data has a `groups.csv`; for `class_mean_top1`, within each class.

    Raises:
        ValueError: images that do not fit the method, a group that is unknown or not possible, no
            mask that shows an object, or NaN.
    """
    allowed = possible(method, images)
    metrics = allowed if metrics is None else metrics
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if refused := [group for group in metrics if group not in allowed]:
        raise ValueError(
            f"metrics: expected some of {tuple(allowed)}, got {', '.join(refused)}: accuracy needs "
            "labels, the others a method with attention maps, segmentation and localization also "
            "images with masks, norms also a method with tokens"
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
    units = sorted(_drawn(len(images), seed, max_images))
    run = _Run(method, images, net, ignore_void, groups)
    found = Results(ledger, head(checkpoint, seed, images), run.judges())
    found.measure(groups, units, batch_size, run.block, lambda group, b: getattr(run, group)(b))
    rows = []
    for group in groups:
        shown = dict(groups_of=run.groups_of, unit_name="images that show none")
        mine = found.rows([group], units, "", seed, checkpoint=checkpoint, **shown)
        if not mine:
            raise ValueError(f"{group}: expected masks that show an object, got none")
        for row in mine:
            rows.append(row)
            if row["metric"] == "top1":
                rows.append(row | run.class_mean(row["values"], seed))
    return [row | {"metric": f"{split}/{row['metric']}"} for row in rows]


def _drawn(count: int, seed: int, at_most: int | None) -> list[int]:
    """Draws indices of images; a smaller draw is the beginning of a larger one."""
    return np.random.default_rng(seed).permutation(count)[:at_most].tolist()


class _Block(NamedTuple):
    """A block of images, and their maps once a group has asked for them."""

    indices: Sequence[int]
    x: Tensor  # (N, 3, H, W)
    maps: list[Tensor]  # empty, or one tensor (N, heads, Hg, Wg)


class _Run:
    """Measures a classifier group by group; see `evaluate_classifier` for the arguments."""

    def __init__(self, method, images, net: str, ignore_void: bool, groups: list[str]) -> None:
        self.method, self.images, self.ignore_void = method, images, ignore_void
        self.device, self.net = common.device(method), net
        self.lpips = LPIPS(net).to(self.device) if "shift" in groups else None
        compared = {"localization", "norms"} & {*groups} and hasattr(method, "untrained")
        self.untrained = method.untrained() if compared else None
        has_files = hasattr(images, "paths")
        self.groups = read_groups(images.root, images.paths) if has_files else None  # (N,)
        self.grid, self.patch = (0, 0, 0), 0.0  # heads, Hg, Wg; px

    def judges(self) -> dict[str, str]:
        """Settings that decide the values of each group, see `judges` of `Results`."""
        void = "" if self.ignore_void else "void pixels kept"
        return dict.fromkeys(GROUPS, "") | {"segmentation": void, "shift": self.net}

    def block(self, indices: Sequence[int]) -> _Block:
        x = torch.stack([self.images[k]["x"] for k in indices]).to(self.device)
        check_images(x, "images")
        return _Block(indices, x, [])

    def maps(self, block: _Block) -> Tensor:
        """Attention maps (N, heads, Hg, Wg) of a block, computed once."""
        if not block.maps:
            maps = self.method.attention(block.x)
            block.maps.append(maps)
            self.grid, self.patch = tuple(maps.shape[1:]), block.x.shape[-1] / maps.shape[-1]
        return block.maps[0]

    def truth(self, block: _Block) -> tuple[list[int], Tensor | None]:
        """Positions in the block of its images with a mask, and their masks (M, H, W) int64."""
        masks = {
            n: m for n, k in enumerate(block.indices) if (m := self.images.mask(k)) is not None
        }
        truth = torch.stack([*masks.values()]).to(self.device, torch.int64) if masks else None
        return [*masks], truth

    # ---- one group of a block --------------------------------------------------------------------

    def accuracy(self, block: _Block) -> Values:
        y = torch.as_tensor(self.images.labels)[block.indices].to(self.device)
        logits_of = {"": self.method.classify(block.x)}  # (N, S)
        if self.has_maps():
            raw = self.method.classify(block.x, averaged=False)
            if not torch.equal(raw, logits_of[""]):  # equal if the checkpoint holds averages alone
                logits_of["_raw"] = raw
        for which, logits in logits_of.items():
            if not logits.isfinite().all():
                raise ValueError("classify: expected finite logits, got NaN or infinity")
            how = self.weights(which) + self.size()
            yield f"top1{which}", how, logits.argmax(1) == y, HIGHER
            if logits.shape[1] > 5:
                hits = (logits.topk(5).indices == y[:, None]).any(1)
                yield f"top5{which}", how, hits, HIGHER

    def segmentation(self, block: _Block) -> Values:
        """Agreement of the maps of single heads and masks."""
        maps = self.maps(block)
        shown, truth = self.truth(block)
        if not shown:
            return
        maps, void = maps[shown], "" if self.ignore_void else "_keepvoid"
        flat, every = torch.zeros_like(maps[:, :1]), maps[:, :1].isfinite()
        best, alike = f"best head a class, {self.seen()}", f"every patch alike, {self.size()}"
        of = {m: maps_of.jaccard_name(m, self.ignore_void) for m in MASSES}
        scores = [
            (name, best, maps_of.jaccard(maps_of.foreground(maps, m), truth, self.ignore_void))
            for m, name in of.items()
        ]
        kept = maps_of.jaccard(every, truth, self.ignore_void)
        scores.append((f"jaccard_whole{void}", f"every patch kept, {self.size()}", kept))
        scores.append(("auroc", best, maps_of.auroc(maps, truth)))
        what = f"mean over {self.seen()}"
        scores.append(("mass_on_object", what, maps_of.mass_on_object(maps, truth)))
        scores.append(("mass_on_object_flat", alike, maps_of.mass_on_object(flat, truth)))
        for name, how, found in scores:
            yield f"{name}_{self.kind()}", how, _spread(*found, shown, len(block.x)), HIGHER

    def localization(self, block: _Block) -> Values:
        """Agreement of one map of an image and its mask, and of maps that know nothing."""
        maps = {"": mean_map(self.maps(block))}
        shown, truth = self.truth(block)
        if not shown:
            return
        how = {"": f"mean map of {self.seen()}", "_flat": f"every patch alike, {self.size()}"}
        how["_centre"] = f"Gaussian of sigma 0.25 of the side, {self.size()}"
        one = maps[""][:1]
        maps["_flat"] = torch.full_like(one, 1 / one[0].numel()).expand_as(maps[""])
        maps["_centre"] = centre_map(*one.shape[1:]).to(one).expand_as(maps[""])
        if self.untrained is not None:
            maps["_untrained"] = mean_map(self.untrained.attention(block.x))
            how["_untrained"] = f"first weights, {how['']}"
        for which, some in maps.items():
            some, scores = some[shown], {"corloc": corloc, "pointing": pointing}
            found = {name: score(some, truth) for name, score in scores.items()}
            found["auroc_mean"] = maps_of.auroc(some[:, None], truth)
            if which not in ("", "_flat"):  # these are in `segmentation`
                found["mass_on_object"] = maps_of.mass_on_object(
                    some.clamp(min=1e-300).log()[:, None], truth
                )
            for name, values in found.items():
                out = _spread(*values, shown, len(block.x))
                yield f"{name}{which}_{self.kind()}", how[which], out, HIGHER

    def entropy(self, block: _Block) -> Values:
        for name, value in maps_of.map_statistics(self.maps(block)).items():
            how = f"{'nats, ' * (name != 'components')}mean over {self.seen()}"
            yield name, how, float64(value).mean(1), NEITHER

    def norms(self, block: _Block) -> Values:
        for which, method in {"": self.method, "_untrained": self.untrained}.items():
            if method is not None:
                tokens = method.tokens(block.x)
                how = f"patches of the last block, before the last norm, {self.size()}"
                yield f"norm_outliers{which}", f"> 3 medians, {how}", norm_outliers(tokens), LOWER
                yield f"norm_largest{which}", f"/ median, {how}", largest_norm(tokens), LOWER

    def shift(self, block: _Block) -> Values:
        self.maps(block)  # sets the size of a patch
        moved = maps_of.shift_path(self.method.attention, block.x, self.patch, FRAMES)
        frames = maps_of.map_frames(moved).to(self.device)  # maps (N, T, Hg, Wg) as frames
        found = smoothness(*path_distances(self.lpips, frames))
        how = f"image moved by 0 .. {self.patch:g} px to the right, mean map of {self.seen()}"
        for name in REPORTED:
            yield f"{name}_t{FRAMES}_{self.net}_shift", how, found[name], BETTER[name]
        yield f"tv_t{FRAMES}_shift", how, maps_of.map_variation(moved), LOWER

    # ---- parts of the rows -----------------------------------------------------------------------

    def groups_of(self, indices: Iterable[int]) -> np.ndarray | None:
        """Group of each image; None if the data has no groups."""
        return None if self.groups is None else self.groups[list(indices)].numpy()

    def has_maps(self) -> bool:
        return hasattr(self.method, "attention")

    def kind(self) -> str:
        return "voc" if isinstance(self.images, VOC) else "alpha"

    def seen(self) -> str:
        heads, *grid = self.grid
        return f"{heads} heads, {grid[0]} x {grid[1]} patches, {self.size()}"

    def size(self) -> str:
        crop = getattr(self.images, "crop_pct", 1.0)
        return f"{self.images.img_size} px" + (f", centre crop {crop:g}" if crop != 1 else "")

    def weights(self, which: str) -> str:
        if not self.has_maps():
            return ""  # a model without maps has one set of weights
        return "raw weights, " if which else "averaged weights, "

    def class_mean(self, hits: dict[int, float], seed: int) -> dict:
        """Row of the mean over classes; replaces the row of top1.

        For the interval, the hits of a class of n images are drawn from a binomial distribution, or
        the groups of each class are resampled if the data has groups.
        """
        of_class, rng = defaultdict(dict), np.random.default_rng(seed)
        for index, hit in hits.items():
            of_class[int(self.images.labels[index])][index] = hit
        classes = [of_image for _, of_image in sorted(of_class.items())]
        means, n = [np.mean([*of.values()]) for of in classes], list(map(len, classes))
        values = dict(zip(sorted(of_class), map(float, means), strict=True))
        if self.groups is None:
            drawn = rng.binomial(n, means, (RESAMPLED, len(n))) / n  # (1000, S)
        else:
            each = [([*of.values()], self.groups_of(of)) for of in classes]
            drawn = np.stack([resampled_means(*one, rng, RESAMPLED) for one in each], 1)
        ci95 = np.percentile(drawn.mean(1), [2.5, 97.5]).tolist()
        protocol = f"mean over {len(n)} classes, {self.weights('')}{self.size()}"
        if self.groups is not None:
            protocol += f", {len(hits)} images in {len(set(self.groups_of(hits)))} groups"
        value = float(np.mean(means))
        return dict(
            metric="class_mean_top1", value=value, ci95=ci95, protocol=protocol, values=values
        )


def _spread(values: Tensor, kept: Tensor, of: list[int], count: int) -> Tensor:
    """Values of those images `of` a block that are `kept`, (count,) float64; NaN for the others."""
    out = torch.full((count,), torch.nan, dtype=torch.float64)
    out[torch.tensor(of)[kept.cpu()]] = float64(values).cpu()
    return out


def from_options(method, o, ledger: Path | None = None) -> list[dict]:
    """Rows for the options `o` of `gen evaluate`."""
    maps = hasattr(method, "attention")
    if o.voc and maps:  # a wrong size is reported before any other work
        method.attention(torch.zeros(1, 3, o.voc_size, o.voc_size, device=o.device))
    if not o.data and not o.voc:
        raise ValueError("--data: expected a folder, a zip or `heads`, or --voc, got nothing")
    sets = {}
    if o.data:
        crop = {"crop_pct": o.crop_pct} if maps else {}
        kind = "classes" if maps else "domains"
        data = gen.data.open(o.data, kind, img_size=method.img_size, **crop)
        sets = {split: data.images(split) for split in o.split or ["val"]}
    asked = []  # split, images, groups
    for split, images in sets.items():
        groups = o.metrics or ["all"]
        if "all" in groups:
            groups = possible(method, images)
            if missing := [group for group in GROUPS if group not in groups]:
                why = "no attention maps, or no masks"
                log.warning("%s: left out %s: %s", split, ", ".join(missing), why)
        asked.append((split, images, groups))
    if o.voc:
        alone = not o.data and o.metrics and "all" not in o.metrics
        groups = o.metrics if alone else ["segmentation"]
        asked.append(("voc", VOC(o.voc, o.voc_size), groups))
    rows = []
    for split, images, groups in asked:
        rows += evaluate_classifier(
            method,
            images,
            split,
            metrics=groups,
            net=o.net[0],
            seed=o.seed,
            batch_size=o.batch_size,
            max_images=o.max_sources,
            checkpoint=o.checkpoint,
            ignore_void=not (split == "voc" and o.keep_void),
            ledger=ledger and ledger.with_name(f"{ledger.stem}.{split}.jsonl"),
        )
    return rows

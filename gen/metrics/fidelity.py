"""Distance of generated and real images: Fréchet and kernel distance, precision, recall.

torch-fidelity computes all values. This module adds backbones that need no hub, input checks, names
that contain the protocol, and a cache of features of real images in safetensors (torch-fidelity's
own cache contains pickles). Images are rounded to 8 bits as `viz.to_uint8` does.
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import islice

import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.utils import (
    get_featuresdict_from_dataset,
    get_featuresdict_from_generative_model,
)

from gen import files, viz, weights
from gen.metrics.checks import FEWEST, check_images
from gen.metrics.extractors import repeatable
from gen.networks.backbones import PACKAGES
from gen.networks.perceptual import digest

log = logging.getLogger(__name__)

SCORES = ("fid", "kid", "prc")
KID_SUBSET = 1000  # images, torch-fidelity's default; another number is part of the name
PREPROCESSING = 1  # part of the cache key; increase it when the preprocessing changes


def real_features(
    extractor: FeatureExtractorBase,
    images: Dataset,
    batch_size: int = 32,
    name: str = "real images",
) -> Tensor:
    """Features (N, D) of real images, cached.

    The cache key is a hash of all pixels, the backbone, its weights and preprocessing. So every
    call reads the images, but only the first one runs the network.

    Args:
        extractor: feature extractor that `load_backbone` gives.
        images: data set: `[i]` is float (3, H, W) in [-1, 1], or a dict with this tensor as `x`. A
            domain is `Subset(data.train, (data.train.labels == y).nonzero().flatten().tolist())`.
        batch_size: images per forward pass; changes values only by rounding.
        name: name of the images in errors.

    Raises:
        ValueError: fewer than 4 images, several sizes, wrong dtype or range, NaN.
    """
    _enough(name, len(images))
    pixels = _Pixels(images, name)
    network = digest({key: value.cpu() for key, value in extractor.state_dict().items()})
    parts = [extractor.get_name(), network, str(PREPROCESSING), pixels.sha256()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    file = files.cache_dir() / "fidelity" / f"{extractor.get_name()}_{key}.safetensors"
    if file.exists():
        return weights.load_safetensors(file)[0]["features"]
    device = _device(extractor)
    with torch.random.fork_rng(devices=()), repeatable(device):  # a seed that nothing uses is drawn
        found = get_featuresdict_from_dataset(
            pixels, extractor, batch_size, device.type == "cuda", save_cpu_ram=True, verbose=False
        )  # saving RAM means no worker processes
    (features,) = found.values()
    weights.save_safetensors({"features": features}, file)
    return features


def fake_features(
    extractor: FeatureExtractorBase, batches: Iterable[Tensor], count: int, batch_size: int = 32
) -> Tensor:
    """Features (count, D) of images from an iterator, in its order.

    Args:
        extractor: feature extractor that `load_backbone` gives.
        batches: iterator of float (n, 3, H, W) in [-1, 1], any n, `count` images in all.
        count: number of images to expect.
        batch_size: images per forward pass; changes values only by rounding.

    Raises:
        ValueError: number of images is not `count` or below 4, several sizes, wrong dtype or
            range, NaN.
    """
    _enough("generated images", count)
    stream, device = _Stream(batches, count), _device(extractor)
    with repeatable(device):
        found = get_featuresdict_from_generative_model(
            stream, extractor, count, batch_size, device.type == "cuda", rng_seed=0, verbose=False
        )
    next(stream.images, None)  # raises if there are more
    (features,) = found.values()
    return features


@torch.no_grad()
def image_features(extractor: FeatureExtractorBase, images: Tensor, batch_size: int = 32) -> Tensor:
    """Features (N, D), on the CPU, of any number of images (N, 3, H, W) in [-1, 1].

    Raises:
        ValueError: wrong dtype, shape, count or range, NaN.
    """
    check_images(images, "images")
    pixels = torch.from_numpy(viz.to_uint8(images)).movedim(-1, 1).contiguous()
    device = _device(extractor)
    with repeatable(device):
        parts = [extractor(part.to(device))[0].cpu() for part in pixels.split(batch_size)]
    return torch.cat(parts)


def fidelity_scores(
    fake: Tensor,
    real: Tensor,
    backbone: str,
    scores: Collection[str] = SCORES,
    seed: int = 2020,
) -> dict[str, float]:
    """Scores of features, named with their protocol.

    Names are `fid_inception2048`, `kid_inception2048`, `precision_inception2048`,
    `recall_inception2048`, likewise for `tvinception_stargan`; `fd_effnetlite0`, `kd_effnetlite0`,
    `precision_effnetlite0`, `recall_effnetlite0`, likewise for `mobilenetv2`. With fewer than 1000
    images, KID uses subsets of all images and its name says so: `kd_effnetlite0_s200`. Sources:
    Heusel et al. 2017 (FID), Bińkowski et al. 2018 (KID, mean of 100 subsets), Kynkäänniemi et al.
    2019 (precision and recall, third neighbour).

    Args:
        fake: features (N, D) of generated images.
        real: features (M, D) of real images.
        backbone: name of the backbone that gave the features.
        scores: names of scores, some of `fid`, `kid`, `prc`.
        seed: seed of the subsets of KID; torch-fidelity's own default.

    Raises:
        ValueError: shapes that do not fit, fewer than 4 images, NaN, an unknown score.
    """
    _check_scores(scores)
    if fake.ndim != 2 or real.ndim != 2 or fake.shape[1] != real.shape[1]:
        shapes = f"{tuple(fake.shape)} and {tuple(real.shape)}"
        raise ValueError(f"features: expected (N, D) and (M, D), got {shapes}")
    for side, features in (("generated", fake), ("real", real)):
        _enough(f"{side} features", len(features))
        if not features.isfinite().all():
            raise ValueError(f"{side} features: expected finite values, got NaN or infinity")
    n, found = min(len(fake), len(real)), {}
    kind = "d" if backbone in PACKAGES else "id"  # FD or FID: I is for Inception
    if "fid" in scores:
        key = f"f{kind}_{backbone}"
        if n <= fake.shape[1]:
            _notice(
                f"{key}: {n} images for {fake.shape[1]} features, so it is biased upwards; compare "
                "it at equal counts only"
            )
        statistics = (fid_features_to_statistics(features) for features in (fake, real))
        value = fid_statistics_to_metric(*statistics, verbose=False)
        found[key] = value[torch_fidelity.KEY_METRIC_FID]
    if "kid" in scores:
        key, size = f"k{kind}_{backbone}", min(KID_SUBSET, n)
        if size < KID_SUBSET:
            key += f"_s{size}"
            _notice(f"{key}: subsets of {size} images, as there are fewer than {KID_SUBSET}")
        value = kid_features_to_metric(
            fake, real, kid_subset_size=size, rng_seed=seed, verbose=False
        )
        found[key] = value[torch_fidelity.KEY_METRIC_KID_MEAN]
    if "prc" in scores:
        value = prc_features_to_metric(fake, real, verbose=False)
        found[f"precision_{backbone}"] = value[torch_fidelity.KEY_METRIC_PRECISION]
        found[f"recall_{backbone}"] = value[torch_fidelity.KEY_METRIC_RECALL]
    return found


class _Pixels(Dataset):
    """Data set of real images for torch-fidelity: uint8 (3, H, W), all of one size."""

    def __init__(self, images: Dataset, name: str):
        self.images, self.name, self.shape = images, name, None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        item = self.images[index]
        x = item["x"] if isinstance(item, dict) else item
        check_images(x[None], f"{self.name}, image {index}")
        self.shape = _same(self.name, self.shape, x.shape)
        return torch.from_numpy(viz.to_uint8(x)).movedim(-1, 0).contiguous()

    def sha256(self) -> str:
        """Hash (sha256) of all pixels in order, the number of images and their size."""
        total = hashlib.sha256()
        for index in range(len(self)):
            total.update(self[index].numpy())
        total.update(f"{len(self)} {tuple(self.shape)}".encode())
        return total.hexdigest()


class _Stream(torch_fidelity.GenerativeModelBase):
    """torch-fidelity's generator interface for an iterator; noise only gives the batch size."""

    z_size, z_type, num_classes = 1, "normal", 0

    def __init__(self, batches: Iterable[Tensor], count: int):
        super().__init__()
        self.images = self._unpack(batches, count)

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack(list(islice(self.images, len(z)))).to(z.device)

    @staticmethod
    def _unpack(batches: Iterable[Tensor], count: int) -> Iterator[Tensor]:
        seen, shape = 0, None
        for batch in batches:
            check_images(batch, "generated images")
            shape = _same("generated images", shape, batch.shape[1:])
            seen += len(batch)
            if seen > count:
                raise ValueError(f"generated images: expected {count}, got at least {seen}")
            yield from torch.from_numpy(viz.to_uint8(batch)).movedim(-1, 1)
        if seen < count:
            raise ValueError(f"generated images: expected {count}, got {seen}")


def _check_scores(scores: Collection[str]) -> None:
    if isinstance(scores, str) or not scores or set(scores) - set(SCORES):
        raise ValueError(f"scores: expected some of {SCORES}, got {scores!r}")


def _enough(name: str, count: int) -> None:
    if count < FEWEST:
        raise ValueError(f"{name}: expected at least {FEWEST}, got {count}")


def _same(name: str, shape: torch.Size | None, now: torch.Size) -> torch.Size:
    if shape not in (None, now):
        raise ValueError(f"{name}: expected all of {tuple(shape)} as the first, got {tuple(now)}")
    return now


def _device(extractor: FeatureExtractorBase) -> torch.device:
    return next((v.device for v in extractor.state_dict().values()), torch.device("cpu"))


@cache
def _notice(text: str) -> None:
    """Logs each text once, for any number of pairs of domains."""
    log.warning(text)

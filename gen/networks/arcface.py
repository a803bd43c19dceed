"""IR-SE50, a face recognition network: photographs of one person have similar outputs.

Sources: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019
(improved residual units, the output layer); Hu et al., "Squeeze-and-Excitation Networks", CVPR
2018. Weights are not here: `load` reads the file that the user brings, commonly
`model_ir_se50.pth`. Layers are named as that file's keys are generally known to be; the file itself
was not at hand, so the layout could not be checked against it, and `load` checks every key and
shape.

Letters in shapes: N batch, C channels, H height = width.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from gen.devices import full_precision
from gen.pickles.files import read_state
from gen.weights import load_weights

SIZE_PX = 112  # of the input
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # width, units; the first unit halves the side
LAYOUT = "IR-SE50 weights (input_layer.*, body.0 .. body.23, output_layer.*)"


class SqueezeExcitation(nn.Module):
    """Weights the channels of (N, C, H, H) by a function of their means."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        return x * self.fc2(self.fc1(mean).relu()).sigmoid()


class Unit(nn.Module):
    """Improved residual unit: BN, conv, PReLU, conv (with the stride), BN; here with SE."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        if c_in == c_out:
            self.shortcut_layer = nn.MaxPool2d(1, stride)  # every stride-th pixel
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
            nn.PReLU(c_out),
            nn.Conv2d(c_out, c_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            SqueezeExcitation(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class IRSE50(nn.Module):
    """Faces (N, 3, 112, 112) in [-1, 1] -> embeddings (N, 512), not normalised. 43.8 M weights."""

    def __init__(self):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        units, c_in = [], 64
        for width, count in STAGES:
            for i in range(count):
                units.append(Unit(c_in, width, stride=1 if i else 2))
                c_in = width
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(512 * (SIZE_PX // 16) ** 2, 512),
            nn.BatchNorm1d(512),
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != (3, SIZE_PX, SIZE_PX):
            raise ValueError(f"IRSE50: expected (N, 3, 112, 112), got {tuple(x.shape)}")
        with full_precision(x.device):
            x = self.input_layer(x.to(self.output_layer[3].weight.dtype))
            return self.output_layer(self.body(x))


def load(path: str | Path) -> IRSE50:
    """Loads the network from a file, frozen, in eval mode; executes nothing in the file.

    Raises:
        WeightsError: no such file, not a state dict, or a key or shape that differs: the first.
    """
    with torch.device("meta"):
        net = IRSE50()
    return load_weights(net, read_state(path, LAYOUT), path, LAYOUT)

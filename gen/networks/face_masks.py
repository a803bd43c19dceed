"""Masks of the parts of a face that a translation keeps, from shifted and sharpened landmark maps.

Sources: Choi et al., "StarGAN v2", CVPR 2020: the two masks that gate the high-pass skip of
`Generator`, from the 98 landmarks of WFLW. Wang et al., "Adaptive Wing Loss for Robust Face
Alignment via Heatmap Regression", ICCV 2019: the network that draws the maps, an hourglass. Layer
names follow the published state dict, so official weights load without a key map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.files import WeightsError

THRESHOLD = 0.1  # of the raw maps
PARTS = {  # first landmark, last + 1, rows up at 256 px (negative: down), exponent
    "chin": (8, 25, 0, 3),
    "eyebrows": (33, 51, -7, 2),
    "nose": (52, 55, 4, 1),
    "nostrils": (55, 60, 8, 4),
    "upper lip": (77, 82, -8, 4),
    "lower lip": (83, 88, 8, 4),
    "inner lip": (88, 96, -2, 3),
}
EYES = slice(60, 76)
UNUSED = {*range(8), *range(25, 33), 33, 46, 76, 82}
COARSE = [k for k in range(98) if k not in UNUSED]
FINE = [k for k in COARSE if k not in {*range(8, 25), *range(33, 51), *range(76, 96)}]


def face_masks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Landmark maps (N, 98, H, W) -> masks (N, 1, H, W) in [0, 1] of the face, of eyes and nose.

    Shifted rows wrap around. Below 256 px only the eyes are shifted, always by 8 and 24 rows, as
    published. Unlike the published code, NaN becomes 0 in both masks.
    """
    if heatmaps.ndim != 4 or heatmaps.shape[1] != 98:
        raise ValueError(f"heatmaps: expected (N, 98, H, W), got {tuple(heatmaps.shape)}")
    maps = heatmaps.masked_fill(heatmaps < THRESHOLD, 0)  # (N, 98, H, W)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    maps = (maps - low) / (high - low + 1e-6)
    for start, stop, up, power in PARTS.values():
        rows = up * (maps.shape[2] // 256)
        maps[:, start:stop] = maps[:, start:stop].roll(-rows, 2) ** power
    eyes = maps[:, EYES]
    maps[:, EYES] = eyes.roll(8, 2) ** 3 + eyes.roll(24, 2)
    coarse, fine = (  # (N, 1, H, W); not indexed by a list, for which a GPU would be waited for
        torch.cat([maps[:, k : k + 1] for k in kept], 1).sum(1, keepdim=True)
        for kept in (COARSE, FINE)
    )
    return coarse.nan_to_num(0).clamp(0, 1), fine.nan_to_num(0).clamp(0, 1)


class CoordConv(nn.Module):
    """A convolution with coordinates: its last three inputs are row, column and radius.

    Rows and columns run over [-1, 1] (the published "x" is the row), radii over [0, 1].
    """

    def __init__(self, cin: int, cout: int, size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(cin + 3, cout, size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        lines = [torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[2:]]
        row, column = torch.meshgrid(*lines, indexing="ij")  # (H, W)
        radius = torch.hypot(row, column) / 2**0.5
        place = torch.stack([row, column, radius]).expand(x.shape[0], -1, -1, -1)  # (N, 3, H, W)
        return self.conv(torch.cat([x, place], 1))


class ConvBlock(nn.Module):
    """Three pre-activated convolutions in a chain, their outputs concatenated, and a shortcut."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        half, quarter = cout // 2, cout // 4
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        skip = nn.BatchNorm2d(cin), nn.ReLU(), nn.Conv2d(cin, cout, 1, bias=False)
        self.downsample = nn.Sequential(*skip) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv1(F.relu(self.bn1(x)))  # (N, C/2, H, W)
        b = self.conv2(F.relu(self.bn2(a)))  # (N, C/4, H, W)
        c = self.conv3(F.relu(self.bn3(b)))  # (N, C/4, H, W)
        return torch.cat([a, b, c], 1) + self.downsample(x)


class Hourglass(nn.ModuleDict):
    """(N, C, H, W) down to H / 2**depth and up again, with a skip connection at every level."""

    def __init__(self, channels: int = 256, depth: int = 4):
        names = [f"b{i}_{n}" for n in range(depth, 0, -1) for i in (1, 2)]
        names += ["b2_plus_1", *(f"b3_{n}" for n in range(1, depth + 1))]
        blocks = {name: ConvBlock(channels, channels) for name in names}
        super().__init__({"coordconv": CoordConv(channels, channels, 1), **blocks})
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        return self.level(self["coordconv"](x), self.depth)

    def level(self, x: Tensor, n: int) -> Tensor:
        low = self[f"b2_{n}"](F.avg_pool2d(x, 2))
        low = self.level(low, n - 1) if n > 1 else self["b2_plus_1"](low)
        return self[f"b1_{n}"](x) + F.interpolate(self[f"b3_{n}"](low), scale_factor=2)


class FAN(nn.Module):
    """Face alignment network: a face -> 98 landmark maps; frozen, always in evaluation mode.

    It is not trained here, and no registry has its weights: they come inside the published StarGAN
    v2 checkpoint of CelebA-HQ.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = CoordConv(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = ConvBlock(64, 128)
        self.conv3 = ConvBlock(128, 128)
        self.conv4 = ConvBlock(128, 256)
        self.m0 = Hourglass(256)
        self.top_m_0 = ConvBlock(256, 256)
        self.conv_last0 = nn.Conv2d(256, 256, 1)
        self.bn_end0 = nn.BatchNorm2d(256)
        self.l0 = nn.Conv2d(256, 99, 1)
        self.requires_grad_(False).eval()
        self.loaded = False
        self.register_load_state_dict_post_hook(FAN._note_weights)

    def _note_weights(self, _) -> None:
        self.loaded = True

    def train(self, mode: bool = True) -> "FAN":
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Faces (N, 3, 256, 256) in [0, 1] -> maps (N, 99, 64, 64); the last is of all outlines."""
        h = F.relu(self.bn1(self.conv1(x)))  # (N, 64, 128, 128)
        h = self.conv3(F.avg_pool2d(self.conv2(h), 2))  # (N, 128, 64, 64)
        h = self.top_m_0(self.m0(self.conv4(h)))  # (N, 256, 64, 64)
        return self.l0(F.relu(self.bn_end0(self.conv_last0(h))))

    @torch.no_grad()
    def masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Faces (N, 3, H, W) in [-1, 1] -> `face_masks`, each (N, 1, 256, 256).

        Raises:
            WeightsError: no weights were loaded; says where they come from.
        """
        if not self.loaded:
            raise WeightsError(
                "w_hpf > 0 expected the weights of the face network, got none: import the "
                "published CelebA-HQ checkpoint with gen import and start from it, "
                "--model.init_from FILE.safetensors; or train with --model.w_hpf 0"
            )
        x = F.interpolate(x, size=(256, 256), mode="bilinear")
        maps = self((x + 1) / 2)[:, :98].float()  # (N, 98, 64, 64)
        maps = F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=True)
        return face_masks(maps)

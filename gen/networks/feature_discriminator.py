"""A discriminator on features of a frozen classifier, alone or with a second discriminator.

Sources: Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021 (random projections mix the
features of four scales, a small head judges each); Kumari et al., "Ensembling Off-the-shelf Models
for GAN Training", CVPR 2022 (with a discriminator trained from scratch). Deviations: a head has one
output for each domain, as in StarGAN v2, and only spectral normalisation.

The classifier is EfficientNet-Lite0 (ImageNet): evaluate models with another backbone.

Letters in shapes: N batch, C channels, H image side, S domains, P positions of all scales.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gen.networks.backbones import EfficientNetLite0

# blocks of the classifier, of strides 4 8 16 32: channels, and RMS of emoji and of drawn heads
STAGES = {1: (24, 9.0), 2: (40, 9.0), 4: (112, 7.3), 6: (320, 3.0)}
SEEN_PX = 128  # smaller images are enlarged by 2


class FeatureDiscriminator(nn.Module):
    """D(x, y): images (N, 3, H, H) in [-1, 1], domains (N,) -> logits (N, P), one per position.

    Args:
        num_domains: number S of domains.
        beside: discriminator (N, 3, H, H), (N,) -> (N,) whose logit counts as much as all others.
        channels: width of the projections and of the heads.
    """

    def __init__(self, num_domains: int, beside: nn.Module | None = None, channels: int = 64):
        super().__init__()
        self.beside = beside
        for i, (width, _) in enumerate(STAGES.values()):  # fixed: they are saved, not trained
            self.register_buffer(f"across{i}", fixed(channels, width, 1))
            self.register_buffer(f"down{i}", fixed(channels, channels, 3))
        downs = (2, 1, 0, 0)
        self.heads = nn.ModuleList(head(channels, num_domains, down) for down in downs)
        self._classifier: tuple[nn.Module, ...] = ()  # not a part: out of checkpoints and DDP

    def attach(self) -> None:
        """Loads the classifier once, to the device of the heads; only training needs it.

        Raises:
            WeightsError: no weights, or not the published ones.
        """
        if not self._classifier:
            self._classifier = (EfficientNetLite0().net.to(self.across0.device),)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.features(x), y)

    def features(self, x: Tensor) -> list[Tensor]:
        """Features for all domains: the mixed maps (N, C, h, h), from fine to coarse.

        The last item is the features of the second discriminator, if there is one.
        """
        own = [] if self.beside is None else [self.beside.features(x)]
        mixed, above = [], None
        for i, h in reversed(list(enumerate(self.maps(x)))):
            h = F.conv2d(h, getattr(self, f"across{i}"))
            if above is not None:
                above = F.interpolate(above, h.shape[2:], mode="nearest")
                h = (h + F.conv2d(above, getattr(self, f"down{i}"), padding=1)) * 0.5**0.5
            mixed.append(h)
            above = h
        return mixed[::-1] + own

    def maps(self, x: Tensor) -> list[Tensor]:
        """Features of the classifier (N, C, h, h), four scales, of RMS about 1."""
        if not self._classifier:
            raise RuntimeError("FeatureDiscriminator: expected attach() before the first image")
        if x.shape[2] < SEEN_PX:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        net, found = self._classifier[0], []
        h = (x * 127.5 + 0.5) / 128  # as (0..255 - 127) / 128
        h = net.bn1(net.conv_stem(h.contiguous(memory_format=torch.channels_last)))
        for i, block in enumerate(net.blocks):
            h = block(h)
            if i in STAGES:
                found.append(h / STAGES[i][1])
        return found

    def head(self, mixed: list[Tensor], y: Tensor) -> Tensor:
        """Logits (N, P) of the heads of domains y (N,)."""
        rows = torch.arange(len(y), device=y.device)
        out = [head(h)[rows, y].flatten(1) for head, h in zip(self.heads, mixed, strict=False)]
        places = torch.cat(out, 1)  # (N, P)
        if self.beside is None:
            return places
        own = self.beside.head(mixed[-1], y)  # (N,)
        return torch.cat([places, own[:, None].expand_as(places)], 1)  # (N, 2 P)


def fixed(cout: int, cin: int, size: int) -> Tensor:
    """A random kernel (cout, cin, size, size) that keeps the magnitude of features."""
    return torch.randn(cout, cin, size, size) / (cin * size * size) ** 0.5


def head(channels: int, num_domains: int, downs: int) -> nn.Sequential:
    """Maps (N, C, h, h) -> logits (N, S, h', h'), h' = h / 2**downs."""
    layers: list[nn.Module] = []
    for _ in range(downs):
        layers += [spectral_norm(nn.Conv2d(channels, channels, 4, 2, 1)), nn.LeakyReLU(0.2)]
    layers += [spectral_norm(nn.Conv2d(channels, channels, 3, padding=1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, num_domains, 1)))

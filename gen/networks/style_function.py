"""Networks of the implicit style function, which moves codes of a frozen StyleGAN generator.

Source: Liu et al., "ISF-GAN: An Implicit Style Function for High-Resolution Image-to-Image
Translation", arXiv 2109.12492. Layer names follow the published state dicts.

Letters in shapes: N batch, L layers of the generator, D width of its codes, K attributes, Z noise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gen.networks.stargan import trunk


class StyleTrunk(nn.Module):
    """Noise and wanted attributes -> a style for each layer of the generator."""

    def __init__(self, num_layers: int, num_attributes: int, dim: int, noise_dim: int, pre: bool):
        super().__init__()
        first = [nn.Linear(noise_dim + num_attributes, dim), nn.ReLU()]
        self.shared = nn.Sequential(*first, *(m for _ in range(3) for m in block(dim, pre)))
        self.unshared = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
            )
            for _ in range(num_layers)
        )

    def forward(self, z: Tensor, d: Tensor) -> Tensor:
        h = self.shared(torch.cat([z, d], 1))  # (N, D)
        return torch.stack([head(h) for head in self.unshared], 1)  # (N, L, D)


def block(dim: int, pre: bool) -> list[nn.Module]:
    """A linear layer and ReLU, with LayerNorm before or after them."""
    norm, layers = nn.LayerNorm(dim), [nn.Linear(dim, dim), nn.ReLU()]
    return [norm, *layers] if pre else [*layers, norm]


class Modulation(nn.Module):
    """h = (1 + gamma(s)) Norm(w) + beta(s), row by row; without a norm h = w + s."""

    def __init__(self, dim: int, norm: Literal["adaln", "adain", "none"]):
        super().__init__()
        if norm not in ("adaln", "adain", "none"):
            raise ValueError(f"norm: expected adaln, adain or none, got {norm!r}")
        if norm != "none":  # adain: of each row, that is LayerNorm without scale and shift
            self.norm = nn.LayerNorm(dim, elementwise_affine=norm == "adaln")
            self.fc = nn.Linear(dim, 2 * dim)

    def forward(self, w: Tensor, s: Tensor) -> Tensor:
        if not hasattr(self, "fc"):
            return w + s
        gamma, beta = self.fc(s).chunk(2, -1)
        return (1 + gamma) * self.norm(w) + beta


class StyleFunction(nn.Module):
    """M(w, z, d): a code (N, L, D), noise (N, Z), attributes (N, K) in {0, 1} -> a code (N, L, D).

    Args:
        num_layers: number L of rows; 1 edits codes of W.
        num_attributes: number K of attributes.
        dim: width D of a code.
        noise_dim: width Z of the noise.
        pre_norm: put LayerNorm before each linear layer; false: after it.
        norm: normalisation: `adaln` LayerNorm with, `adain` without learnt scale and shift, `none`.
        residual: add the code to the output; as published it is not added.
    """

    def __init__(
        self,
        num_layers: int = 10,
        num_attributes: int = 1,
        dim: int = 512,
        noise_dim: int = 64,
        pre_norm: bool = True,
        norm: Literal["adaln", "adain", "none"] = "adaln",
        residual: bool = False,
    ):
        super().__init__()
        self.z_net = StyleTrunk(num_layers, num_attributes, dim, noise_dim, pre_norm)
        self.adain = Modulation(dim, norm)
        blocks = [m for _ in range(2) for m in block(dim, pre_norm)]
        last = [nn.LayerNorm(dim)] if pre_norm else []
        self.fc = nn.Sequential(*blocks, *last, nn.Linear(dim, dim))
        self.residual = residual

    def forward(self, w: Tensor, z: Tensor, d: Tensor) -> Tensor:
        out = self.fc(self.adain(w, self.z_net(z, d.to(z.dtype))))
        return w + out if self.residual else out


class AttributeDiscriminator(nn.Module):
    """D(x): image (N, 3, H, H) -> attribute logits (N, K) and real/fake logit (N,).

    Args:
        img_size: side H of the images, px, a power of two.
        num_attributes: number K of attributes.
        base_channels: channels of the first layer; None is 2**14 / img_size, as published.
        max_channels: upper limit for the channels of a layer.
    """

    def __init__(
        self,
        img_size: int = 256,
        num_attributes: int = 1,
        base_channels: int | None = None,
        max_channels: int = 512,
    ):
        super().__init__()
        *blocks, _, last, _ = trunk(img_size, base_channels, max_channels)
        width = last.in_channels
        self.main = nn.Sequential(*blocks)
        self.cls, self.src = (
            nn.Sequential(
                nn.LeakyReLU(0.2), nn.Conv2d(width, width, 4), nn.LeakyReLU(0.2),
                nn.Conv2d(width, outputs, 1),
            )
            for outputs in (num_attributes, 1)
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.main(x)  # (N, C, 4, 4)
        return self.cls(h).flatten(1), self.src(h).flatten()

"""Finds the code whose generated image is nearest to a given image.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, appendix
D, with the constants of the ADA release. Works in W, and in W+ with one row for each layer.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from gen.metrics.checks import check_images
from gen.networks.perceptual import LPIPS
from gen.networks.stylegan2 import Generator

Features = Callable[[Tensor], list[Tensor]]  # images -> feature maps that are compared
NOISE_WEIGHT = 1e5  # weight of the autocorrelation of noise maps
MAX_PX = 256  # larger images are compared at this size


class Projection(NamedTuple):
    """Codes (N, L, D), their noise maps, and the distance (N,) of each image."""

    ws: Tensor
    noise: list[Tensor]
    distance: Tensor


@torch.inference_mode(False)
@torch.enable_grad()
def project(
    generator: Generator,
    x: Tensor,
    steps: int = 1000,
    space: Literal["W", "W+"] = "W+",
    fit_noise: bool = False,
    features: Features | None = None,
    seed: int = 0,
    lr: float = 0.1,
    bar: bool = True,
    start: Tensor | None = None,
) -> Projection:
    """Minimises the distance between G(w) and x over w with Adam, from the mean code.

    Noise on w decreases over the first three quarters of the steps. The learning rate rises over
    the first twentieth of the steps and falls over the last quarter. Images do not influence each
    other. Works under `torch.no_grad` and `torch.inference_mode`, too.

    Args:
        generator: frozen generator; gradients are taken with respect to codes only.
        x: images (N, 3, H, H) in [-1, 1], of the generator's size.
        steps: number of steps of Adam; 1000 as released.
        space: space of the codes: `W` has one row for all layers; `W+` has a row for each layer:
            it fits real images better, but edits get worse as the rows drift apart.
        fit_noise: also fit the noise maps, as released. Do not edit such codes: editors synthesise
            images with the stored maps.
        features: network whose features are compared; default LPIPS with VGG-16, as released.
        seed: seed of the mean code, of the noise on w and of the first noise maps.
        lr: highest learning rate of Adam.
        bar: show a progress bar.
        start: codes (N, L, D) to start from in W+, such as an encoder's: without noise on w, and
            with a tenth of the learning rate, so that little is unlearnt.

    Raises:
        ValueError: x or start has another shape, dtype or range, or NaN; steps < 1.
    """
    size, device = generator.synthesis.sizes[-1], x.device
    if x.ndim != 4 or x.shape[1:] != (3, size, size) or steps < 1:
        raise ValueError(
            f"expected images (N, 3, {size}, {size}) and steps >= 1, got {tuple(x.shape)}, {steps}"
        )
    check_images(x, "x")
    wanted = (len(x), generator.mapping.rows, len(generator.mapping.w_avg))
    if start is not None and (start.shape != wanted or space != "W+"):
        got = f"{tuple(start.shape)} in {space}"
        raise ValueError(f"start: expected codes {wanted} in W+, got {got}")
    if start is not None and not (start.is_floating_point() and start.isfinite().all()):
        raise ValueError(f"start: expected finite floats, got {start.dtype} or NaN or infinity")
    x = x.detach().clone()  # x may come from inference mode
    features = features or LPIPS("vgg").to(device).features
    rng = torch.Generator(device).manual_seed(seed)
    mapping, synthesis = generator.mapping, generator.synthesis
    with torch.no_grad():
        z = torch.randn(10_000, mapping.z_dim, generator=rng, device=device)
        w = mapping(z)[:, 0]  # (10000, D); one row: all are equal
        mean = w.mean(0)
        spread = (w - mean).square().sum(1).mean().sqrt()
        wanted = features(small(x))
    rows = mapping.rows if space == "W+" else 1
    first_code = mean.expand(len(x), rows, -1) if start is None else start.detach()
    code = first_code.clone().requires_grad_()  # (N, rows, D)
    lr, spread = (lr, spread) if start is None else (lr / 10, 0 * spread)
    first = synthesis.noise_maps(1, rng if fit_noise else "const")
    noise = [n.detach().repeat(len(x) if fit_noise else 1, 1, 1, 1) for n in first]
    fitted = [n.requires_grad_() for n in noise] if fit_noise else []
    optimizer = torch.optim.Adam([code, *fitted], lr, betas=(0.9, 0.999))

    for step in tqdm(range(steps), "project", disable=None if bar else True):
        t = step / steps
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))
        optimizer.param_groups[0]["lr"] = lr * fall * min(1.0, t / 0.05)
        scale = 0.05 * spread * max(0.0, 1 - t / 0.75) ** 2
        moved = code + scale * torch.randn(code[:1].shape, generator=rng, device=device)
        image = synthesis(moved.expand(-1, mapping.rows, -1), noise)
        loss = apart(features(small(image)), wanted).sum()
        if fit_noise:
            loss = loss + NOISE_WEIGHT * sum(map(autocorrelation, fitted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for n in fitted:
                n.sub_(n.mean((2, 3), keepdim=True))
                n.div_(n.square().mean((2, 3), keepdim=True).sqrt())

    with torch.no_grad():
        ws = code.detach().expand(-1, mapping.rows, -1).contiguous()
        distance = apart(features(small(synthesis(ws, noise))), wanted)
    return Projection(ws, [n.detach() for n in noise], distance)


def small(x: Tensor) -> Tensor:
    """Images (N, 3, H, W), averaged down to 256 px if they are larger."""
    return F.interpolate(x, size=(MAX_PX, MAX_PX), mode="area") if x.shape[-1] > MAX_PX else x


def apart(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Squared distance (N,) of two lists of feature maps."""
    return sum((p - q).square().flatten(1).sum(1) for p, q in zip(a, b, strict=True))


def autocorrelation(noise: Tensor) -> Tensor:
    """The autocorrelation of a noise map (N, 1, H, H) at every scale: near 0 for white noise."""
    total = noise.new_zeros(())
    while True:
        for dim in (2, 3):
            total = total + (noise * noise.roll(1, dim)).mean((1, 2, 3)).square().sum()
        if noise.shape[-1] <= 8:
            return total
        noise = F.avg_pool2d(noise, 2)

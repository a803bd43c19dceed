"""Smoothness of interpolation: perceptual smoothness (PS), its factors, and what PS misses.

Source: Liu et al., CVPR 2021 (PS); the ISF-GAN evaluation (PIR, mean d); the morphing literature
(sum and deviation of steps, ISTD). Distances are LPIPS of consecutive frames; every frame passes
the network once. Constant paths and noise also have a high PS: read PS together with `direct` and
`straight`.
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gen.devices import float64
from gen.metrics.checks import check_images
from gen.networks.perceptual import LPIPS

EPS = 1e-6
REPORTED = ("ps", "eq", "eff", "pir", "direct", "straight")  # short selection of values
BETTER = dict.fromkeys(("ps", "eq", "eff", "straight"), "higher")
BETTER |= dict.fromkeys(("pir", "peak"), "lower")
# no direction for the distance of a path, nor for values that grow with it
BETTER |= dict.fromkeys(("path_length", "pplsq", "direct", "sum", "max", "pdv", "istd"), "none")


def smoothness(steps: Tensor, direct: Tensor, pixels: Tensor | None = None) -> dict[str, Tensor]:
    """Smoothness of sequences from their distances; n = T - 1 steps d_1..d_n.

    With d_(i) ascending and D = direct:

        gini     = sum_i (2 i - n - 1) d_(i) / (n sum d)
        eq       = 1 - gini               equal steps, in (0, 1]
        eff      = min(1, D / sum d)      1 for even paths up to sqrt(n) times the straight one
        ps       = 2 eq eff / (eq + eff)  in [0, 1], higher is better; 0 if nothing moves
        pir      = (max d - min d) / (D + 1e-6)   lower is better
        peak     = max d / mean d         >= 1, 1 is even
        path_length = mean d              the ppl of ISF-GAN in torch; not StyleGAN's
        pplsq    = T^2 mean d             as ISF-GAN in TF, there with net="vgg"; not StyleGAN's
        direct   = D                      distance of both ends; needed to interpret ps
        straight = sqrt(D) / sum sqrt(d)  chord over arc, in [0, 1], not clamped; 0 if nothing
                                          moves
        sum, max = sum d, max d           the first is the PPL of morphing papers
        pdv      = deviation of d         the PDV of morphing papers, n in the denominator
        istd     = deviation of pixels    ISTD, the deviation of pixel distances of frames

    ps, eq, eff and peak use d + 1e-6, as released. LPIPS is a squared distance of features, so its
    root is a distance, and roots add up along a straight line.

    Args:
        steps: distances (N, T-1) of consecutive frames.
        direct: distance (N,) of the first and the last frame.
        pixels: distances of pixels (N, T-1), see `pixel_steps`; needed for `istd` only.

    Returns:
        The values, each (N,) float64.

    Raises:
        ValueError: shapes that do not fit, negative or non-finite distances.
    """
    if steps.ndim != 2 or 0 in steps.shape or direct.shape != steps.shape[:1]:
        raise ValueError(
            "smoothness: expected steps (N, T-1) and direct (N,), not empty, "
            f"got {tuple(steps.shape)} and {tuple(direct.shape)}"
        )
    if pixels is not None and pixels.shape != steps.shape:
        raise ValueError(
            f"smoothness: expected pixels {tuple(steps.shape)} as steps, got {tuple(pixels.shape)}"
        )
    raw, direct = float64(steps), float64(direct)
    pixels = None if pixels is None else float64(pixels)
    for name, value in (("steps", raw), ("direct", direct), ("pixels", pixels)):
        if value is not None and not (torch.isfinite(value).all() and (value >= 0).all()):
            raise ValueError(f"smoothness: expected finite {name} >= 0, got {value.min().item()}")
    n = raw.shape[1]
    d = raw + EPS  # (N, n)
    rank = 2 * torch.arange(1, n + 1, device=d.device) - n - 1  # (n,)
    total = d.sum(1)  # (N,)
    eq = 1 - (rank * d.sort(1).values).sum(1) / (n * total)  # (N,)
    eff = (direct / total).clamp(max=1)  # (N,)
    arc = raw.sqrt().sum(1)  # (N,)
    values = {
        "ps": 2 * eq * eff / (eq + eff),
        "eq": eq,
        "eff": eff,
        "pir": (raw.amax(1) - raw.amin(1)) / (direct + EPS),
        "peak": d.amax(1) / d.mean(1),
        "path_length": raw.mean(1),
        "pplsq": raw.mean(1) * (n + 1) ** 2,
        "direct": direct,
        "straight": direct.sqrt() / arc.where(arc > 0, torch.ones_like(arc)),
        "sum": raw.sum(1),
        "pdv": raw.std(1, correction=0),
        "max": raw.amax(1),
    }
    return values if pixels is None else values | {"istd": pixels.std(1, correction=0)}


def pixel_steps(frames: Tensor) -> Tensor:
    """Frames (N, T, 3, H, W) in [-1, 1] -> RMS difference of neighbours (N, T-1), on [0, 1]."""
    return (frames[:, 1:] - frames[:, :-1]).square().mean((2, 3, 4)).sqrt() / 2


def value_name(key: str, frames: int, net: str, suffix: str = "") -> str:
    """Name of a value of `smoothness` with protocol: `ps_t20_alex`; `istd_t20` has no network."""
    return f"{key}_t{frames}" + ("" if key == "istd" else f"_{net}{suffix}")


def resize_frames(x: Tensor, size: int | None, quantize: bool) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] -> (N, 3, size, size), bilinear with antialias, as PIL does.

    `quantize` also rounds to 8 bits as PNG and PIL do: at first, after the columns, after the rows.
    """
    height, width = (size, size) if size else x.shape[-2:]
    x = x.float() * 127.5 + 127.5  # 0..255, so halves round as in PIL
    if quantize:
        x = x.add_(0.5).floor_().clamp_(0, 255)
    for shape in ((x.shape[-2], width), (height, width)):
        if x.shape[-2:] != shape:
            x = F.interpolate(x, shape, mode="bilinear", antialias=True)
            x = x.add_(0.5).floor_() if quantize else x
    return x.div_(127.5).sub_(1)


def path_distances(
    net: LPIPS,
    frames: Tensor,
    resize: int | None = 256,
    quantize: bool = False,
    batch: int = 8,
) -> tuple[Tensor, Tensor]:
    """LPIPS along each sequence, with T instead of 2 T forward passes for each sequence.

    Memory holds the features of four frames of `batch` sequences, for any N and T.

    Args:
        net: LPIPS network on the device of `frames`.
        frames: sequences (N, T, 3, H, W) in [-1, 1], T >= 2.
        resize: side, px, of the network's input; None: native size.
        quantize: round to 8 bits before and after resizing, as PNG files and PIL do.
        batch: sequences per forward pass; changes values only by rounding.

    Returns:
        steps (N, T-1) and direct (N,).
    """
    steps, first, _ = all_distances(net, frames, resize, quantize, batch)
    return steps, first[:, -1]


def all_distances(
    net: LPIPS,
    frames: Tensor,
    resize: int | None = 256,
    quantize: bool = False,
    batch: int = 8,
) -> tuple[Tensor, Tensor, Tensor]:
    """Steps (N, T-1) of `path_distances`, and distances (N, T) to the first and the last frame."""
    found = []
    for block in frames.split(batch):
        first, last = (net.features(resize_frames(block[:, t], resize, quantize)) for t in (0, -1))
        before, rows = first, [(net.distance(first, first), net.distance(first, last))]
        steps = []
        for t in range(1, block.shape[1]):
            at_end = t == block.shape[1] - 1
            now = last if at_end else net.features(resize_frames(block[:, t], resize, quantize))
            steps.append(net.distance(before, now))
            rows.append((net.distance(first, now), net.distance(now, last)))
            before = now
        ends = (torch.stack(column, 1) for column in zip(*rows, strict=True))
        found.append((torch.stack(steps, 1), *ends))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


class InterpolationSmoothness(Metric):
    """Smoothness of interpolations, directly from generated tensors.

    `update(frames)` takes (N, T, 3, H, W) in [-1, 1]. `compute()` returns means over sequences of
    all values of `smoothness`, named with their protocol: `ps_t20_alex`, `eq_t20_alex`, ...

    Args:
        net: network: `alex` (published protocol), `vgg`, or an LPIPS that several metrics share.
        frames: number T of frames that every update must have.
        resize: side, px, of LPIPS's input; 256 is the published protocol, None the native size.
            Names show sizes other than 256 (`ps_t20_alex_native`).
        quantize: round to 8 bits as the published evaluation's PNG files do (`.._8bit`).
        options: options of torchmetrics, such as `compute_on_cpu`.

    Raises:
        ValueError: in `update` for wrong dtype, shape, T, range, NaN; in `compute` without updates.
        WeightsError: the published LPIPS weights are missing.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self,
        net: str | LPIPS = "alex",
        frames: int = 20,
        resize: int | None = 256,
        quantize: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        if frames < 2:
            raise ValueError(f"frames: expected at least 2, got {frames}")
        self.lpips = LPIPS(net) if isinstance(net, str) else net
        self.frames, self.resize, self.quantize = frames, resize, quantize
        size = {256: "", None: "_native"}.get(resize, f"_{resize}px")
        self.suffix = f"{size}{'_8bit' if quantize else ''}"
        self.warned = False  # has warned that images are in [0, 1]
        # Flat float32, like the empty tensor that torchmetrics sends for a rank without updates
        self.add_state("steps", [], dist_reduce_fx="cat")  # of (N (T-1),)
        self.add_state("direct", [], dist_reduce_fx="cat")  # of (N,)
        self.add_state("pixels", [], dist_reduce_fx="cat")  # of (N (T-1),)

    @torch.no_grad()
    def update(self, frames: Tensor) -> None:
        """Adds N sequences (N, T, 3, H, W) in [-1, 1]."""
        check_images(frames, "InterpolationSmoothness", ndim=5, frames=self.frames)
        if not self.warned and frames.min() >= 0:
            self.warned = True
            warnings.warn(
                "InterpolationSmoothness: expected values in [-1, 1], got none below 0: images in "
                "[0, 1] are to be doubled, minus 1",
                stacklevel=2,
            )
        steps, direct = path_distances(self.lpips, frames, self.resize, self.quantize)
        self.steps.append(steps.flatten().float())
        self.direct.append(direct.float())
        self.pixels.append(pixel_steps(frames).flatten().float())

    def sequences(self) -> dict[str, Tensor]:
        """All values of all sequences, (N,) float64, for intervals and histograms."""
        if len(self.direct) == 0:
            raise ValueError("InterpolationSmoothness: expected count > 0, got no update()")
        steps, direct, pixels = map(dim_zero_cat, (self.steps, self.direct, self.pixels))
        n = self.frames - 1
        values = smoothness(steps.view(-1, n), direct, pixels.view(-1, n))
        how = self.frames, self.lpips.net, self.suffix
        return {value_name(key, *how): value for key, value in values.items()}

    def compute(self) -> dict[str, Tensor]:
        """Means over sequences."""
        return {name: value.mean() for name, value in self.sequences().items()}

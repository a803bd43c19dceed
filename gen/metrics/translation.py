"""Scores of translations: diversity, similarity to the source, error to the true target."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.utilities import dim_zero_cat

from gen.devices import float64, full_precision
from gen.metrics.checks import check_images
from gen.networks.perceptual import LPIPS


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean |x - y| (N,) of images (N, 3, H, W) in [-1, 1], on the [0, 1] scale."""
    return (x - y).abs().mean((1, 2, 3)) / 2


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (N,) of images (N, 3, H, W) in [-1, 1]; higher is better.

    Wang et al. 2004, by torchmetrics: an 11 x 11 Gaussian window of sigma 1.5, on the [0, 1] scale.
    """
    with full_precision(x.device):  # a variance is a small difference of large numbers
        score = structural_similarity_index_measure(
            (x.float() + 1) / 2, (y.float() + 1) / 2, data_range=1.0, reduction="none"
        )
    return score.reshape(len(x))  # for one image the score has no dimension


@torch.no_grad()
def translation_scores(
    net: LPIPS,
    x: Tensor,
    outputs: Tensor,
    twin: Tensor | None = None,
    nearest: Tensor | None = None,
) -> dict[str, Tensor]:
    """Scores of K outputs for each source; every image passes the network once.

        diversity = mean LPIPS over the K (K - 1) / 2 pairs of outputs    (StarGAN v2, CVPR 2020;
                    its release takes unclamped outputs: up to 2.5 % difference)
        content   = mean distance of source and outputs
        paired    = mean distance of the true target and outputs
        best      = distance of the true target and the best of the K outputs
        unchanged = distance of the true target and the source: the score of doing nothing
        nearest   = distance of the true target and `nearest`: the score of copying

    LPIPS is a squared distance of features, so the mean over pairs is twice their variance.

    Args:
        net: network on the device of the images; images keep their resolution.
        x: sources (N, 3, H, W) in [-1, 1].
        outputs: translations (N, K, 3, H, W) in [-1, 1].
        twin: true targets (N, 3, H, W), on paired data.
        nearest: training images (N, 3, H, W) of the target domain, each nearest to its source.

    Returns:
        Tensors (N,): `diversity` if K > 1; `content_lpips`, `content_l1`; with `twin` also
        `paired_..`, `best_..`, `unchanged_..` and with `nearest` `nearest_..`, each `lpips`, `ssim`
        and `l1`. L1 is in [0, 1]; SSIM is 1 for equal images.

    Raises:
        ValueError: wrong dtype, shape, count or range; NaN.
    """
    check_images(x, "sources")
    check_images(outputs, "outputs", ndim=5)
    others = {"twins": twin, "nearest": nearest}
    for name, other in {"outputs": outputs[:, 0], **others}.items():
        if other is None:
            continue
        check_images(other, name)
        if other.shape != x.shape:
            raise ValueError(
                f"{name}: expected {tuple(x.shape)} as the sources, got {tuple(other.shape)}"
            )
    rows = []
    for n, images in enumerate(outputs):  # (K, 3, H, W)
        source = x[n : n + 1]  # (1, 3, H, W)
        f, fx = net.features(images), net.features(source)
        row = {
            "content_lpips": net.distance(f, fx).mean(),
            "content_l1": l1(images, source).mean(),
        }
        if len(images) > 1:
            row["diversity"] = 2 * sum(layer.var(0).sum() for layer in f)
        if twin is not None:
            target, ft = twin[n : n + 1], net.features(twin[n : n + 1])

            def errors(a: Tensor, fa: list[Tensor], b=target, fb=ft) -> dict[str, Tensor]:  # (K,)
                return {
                    "lpips": net.distance(fa, fb),
                    "ssim": ssim(a, b.expand(len(a), -1, -1, -1)),
                    "l1": l1(a, b),
                }

            for name, error in errors(images, f).items():
                row[f"paired_{name}"] = error.mean()
                row[f"best_{name}"] = error.max() if name == "ssim" else error.min()
            row |= {f"unchanged_{k}": v[0] for k, v in errors(source, fx).items()}
            if nearest is not None:
                copy = nearest[n : n + 1]
                row |= {f"nearest_{k}": v[0] for k, v in errors(copy, net.features(copy)).items()}
        rows.append(row)
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class TranslationScores(Metric):
    """`translation_scores` over a data set: means over sources.

    `compute()` names values with their protocol: `diversity_k10_alex`, `content_lpips_alex`,
    `content_l1`, and with twins `paired_..`, `paired_best10_..`, `unchanged_..`, `nearest_..`.

    Args:
        net: network: `alex`, `vgg`, or an LPIPS that several metrics share.
        outputs: number K of outputs that every update must have.
        options: options of torchmetrics, such as `compute_on_cpu`.

    Raises:
        ValueError: in `update` for dtype, shape, K, range, NaN; in `compute` without updates.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self, net: str | LPIPS = "alex", outputs: int = 10, **options: Any):
        super().__init__(**options)
        self.lpips = LPIPS(net) if isinstance(net, str) else net
        self.outputs = outputs
        for key in protocol_names(outputs, self.lpips.net):
            self.add_state(key, [], dist_reduce_fx="cat")  # of (N,)

    def update(
        self,
        x: Tensor,
        outputs: Tensor,
        twin: Tensor | None = None,
        nearest: Tensor | None = None,
    ) -> None:
        """Adds sources (N, 3, H, W), outputs (N, K, 3, H, W) and optional reference images."""
        check_images(outputs, "outputs", ndim=5, frames=self.outputs)
        for key, value in translation_scores(self.lpips, x, outputs, twin, nearest).items():
            getattr(self, key).append(value.float())

    def compute(self) -> dict[str, Tensor]:
        """Means over sources."""
        names = protocol_names(self.outputs, self.lpips.net)
        found = {name: getattr(self, key) for key, name in names.items() if len(getattr(self, key))}
        if not found:
            raise ValueError("TranslationScores: expected count > 0, got no update()")
        return {name: float64(dim_zero_cat(values)).mean() for name, values in found.items()}


def protocol_names(outputs: int, net: str) -> dict[str, str]:
    """Keys of `translation_scores` -> names with the number of outputs and the network."""
    names = {"diversity": f"diversity_k{outputs}_{net}"}
    for what in ("content", "paired", "best", "unchanged", "nearest"):
        for how in ("lpips", "l1") if what == "content" else ("lpips", "ssim", "l1"):
            name = f"{what}_{how}".replace("lpips", f"lpips_{net}")
            names[f"{what}_{how}"] = name.replace("best", f"paired_best{outputs}")
    return names


def bootstrap(
    values: np.ndarray, seed: int, n: int = 1000, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Mean of values (N,) and its 95 % interval: percentiles of `n` resampled means.

    With `groups` (N,), whole groups of values are resampled, see `resampled_means`.

    Raises:
        ValueError: no values, or not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"bootstrap: expected finite values (N,), N >= 1, got {values.shape}")
    groups = np.arange(len(values)) if groups is None else groups
    means = resampled_means(values, groups, np.random.default_rng(seed), n)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def resampled_means(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator, n: int
) -> np.ndarray:
    """Resamples whole groups of values (N,) with replacement: `n` means (n,).

    The cluster bootstrap (Davison and Hinkley, 1997, section 3.8): values of one group may be
    dependent. A mean is over all drawn values, so larger groups have more weight.
    """
    groups = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    drawn = (rng.integers(len(sums), size=len(sums)) for _ in range(n))
    return np.array([sums[i].sum() / counts[i].sum() for i in drawn])

"""Accuracy of translation: share of outputs that a classifier assigns to the target domain."""

from typing import Protocol

import torch
from torch import Tensor

from gen.metrics.checks import check_images


class Classifier(Protocol):
    """Interface of a classifier, such as `gen.methods.DomainClassifier`."""

    def classify(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] -> logits (N, S)."""


@torch.no_grad()
def domain_accuracy(classifier: Classifier, images: Tensor, y: Tensor, batch: int = 128) -> Tensor:
    """Share of the images of each row that the classifier assigns to domain `y`.

    Outputs and target domains give the accuracy of a translation. Held-out real images and their
    own domains give the reliability of the classifier.

    Args:
        classifier: classifier of domains, on the device of the images, for images of this size.
        images: outputs (N, K, 3, H, W), K for each source, or (N, 3, H, W), in [-1, 1].
        y: domains (N,) int64.
        batch: images per forward pass; changes no value.

    Returns:
        (N,) float32 in [0, 1].

    Raises:
        ValueError: wrong dtype, shape, count or range; NaN; a domain that the classifier does not
            know; logits that are not finite; no classifier.
    """
    if not hasattr(classifier, "classify"):
        raise ValueError(f"classifier: expected a classifier, got {type(classifier).__name__}")
    ndim = images.ndim if isinstance(images, Tensor) and images.ndim == 5 else 4
    check_images(images, "images", ndim=ndim)
    if y.shape != images.shape[:1] or y.dtype != torch.int64:
        raise ValueError(
            f"y: expected int64 ({len(images)},), one domain for each row of images, got "
            f"{y.dtype} {tuple(y.shape)}"
        )
    flat = images.flatten(0, -4)  # (N K, 3, H, W)
    logits = torch.cat([classifier.classify(part) for part in flat.split(batch)])  # (N K, S)
    if not logits.isfinite().all():
        raise ValueError("classifier: expected finite logits, got NaN or infinity")
    if y.min() < 0 or y.max() >= logits.shape[1]:
        low, high = torch.aminmax(y)
        raise ValueError(
            f"y: expected domains 0 .. {logits.shape[1] - 1}, those of the classifier, got "
            f"{int(low)} .. {int(high)}"
        )
    predicted = logits.argmax(1).view(len(images), -1)  # (N, K)
    return (predicted == y[:, None].to(predicted.device)).float().mean(1)

"""Similarity of faces before and after translation: cosine of ArcFace embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.metrics.checks import check_images
from gen.metrics.smoothness import resize_frames

ROWS, COLUMNS = slice(35, 223), slice(32, 220)  # the face in an aligned image of 256 px
INPUT_PX = 112


def face_crop(x: Tensor) -> Tensor:
    """Aligned faces (N, 3, H, H) in [-1, 1] -> inputs (N, 3, 112, 112) of the network."""
    if x.shape[2] != 256:
        x = resize_frames(x, 256, quantize=False)
    return F.adaptive_avg_pool2d(x[:, :, ROWS, COLUMNS], INPUT_PX)


@torch.no_grad()
def identity_similarity(net: nn.Module, x: Tensor, outputs: Tensor) -> Tensor:
    """Face recognition similarity (FRS): mean cosine of source and outputs, in [-1, 1].

    Images of another size are resized to 256 px (bilinear, antialiased), then rows 35:223 and
    columns 32:220 are averaged down to 112 px. Meaningful for aligned faces only.

    Args:
        net: network `gen.networks.arcface.load(path)`, on the device of the images.
        x: sources (N, 3, H, H) in [-1, 1].
        outputs: translations (N, K, 3, H, H) in [-1, 1].

    Returns:
        Similarities (N,); 1 if the outputs equal the source.

    Raises:
        ValueError: wrong dtype, shape, count or range; NaN; a network in training mode.
    """
    check_images(x, "sources")
    check_images(outputs, "outputs", ndim=5)
    if outputs[:, 0].shape != x.shape or x.shape[2] != x.shape[3]:
        raise ValueError(
            "identity_similarity: expected sources (N, 3, H, H) and outputs (N, K, 3, H, H), got "
            f"{tuple(x.shape)} and {tuple(outputs.shape)}"
        )
    if net.training:
        raise ValueError("identity_similarity: expected a network in eval mode, got training mode")
    rows = []
    for source, images in zip(x, outputs, strict=True):
        faces = face_crop(torch.cat([source[None], images]))  # (1 + K, 3, 112, 112)
        codes = F.normalize(net(faces))  # (1 + K, 512)
        cosines = (codes[1:] * codes[0]).sum(1)  # no matmul: autocast would round it
        rows.append(cosines.clamp(-1, 1).mean())
    return torch.stack(rows)

"""Fréchet video distance of generated and real videos, by the logits of I3D.

Source: Unterthiner et al., "Towards Accurate Generative Models of Video", 2018. Protocol of
`fvd_i3d400`: all frames, resized to 224 x 224 px (bilinear, not antialiased, aspect ratio ignored),
in [-1, 1]; 400 logits of I3D trained on Kinetics-400, as usual, averaged over time;
torch-fidelity's Fréchet distance. Videos of fewer than 10 frames are mirrored in time.

Values are not comparable with the release of Click to Move. The release uses the TF-Hub network of
Kinetics-600, swaps height and width, and extends its 6 frames to 12 by a copy that is flipped over
the colour channels, not over time.

Letters in shapes: N, M videos, T frames, D classes of the network.
"""

import torch
import torch.nn.functional as F
import torch_fidelity
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from gen.metrics.checks import check_images
from gen.metrics.extractors import repeatable

SIZE_PX = 224
FEWEST_FRAMES = 10  # I3D needs 9, other implementations require 10
AT_ONCE = 4  # videos per forward pass; a video of 12 frames takes 70 MB


def mirrored(video: Tensor) -> Tensor:
    """Appends the reversed video to (N, T, ..) until there are 10 frames."""
    while video.shape[1] < FEWEST_FRAMES:
        video = torch.cat([video, video.flip(1)], 1)
    return video


@torch.no_grad()
def video_features(net: nn.Module, video: Tensor) -> Tensor:
    """Features (N, D) of videos, each independent of the other videos.

    Args:
        net: network `gen.networks.i3d.load(path)`, on the device of the videos.
        video: videos (N, T, 3, H, W) in [-1, 1], the first frame included.

    Raises:
        ValueError: wrong dtype, shape or range; NaN; a network in training mode.
    """
    check_images(video, "video", ndim=5)
    if net.training:
        raise ValueError("video_features: expected a network in eval mode, got training mode")
    found = []
    with repeatable(video.device):
        for some in video.float().split(AT_ONCE):
            some = mirrored(some)
            frames = F.interpolate(some.flatten(0, 1), (SIZE_PX, SIZE_PX), mode="bilinear")
            found.append(net(frames.unflatten(0, some.shape[:2])))
    return torch.cat(found)


def fvd(fake: Tensor, real: Tensor) -> float:
    """|mean - mean'|^2 + tr(C + C' - 2 (C C')^(1/2)) of features, >= 0 up to rounding; 0 is best.

    Few videos bias it upwards: compare values of equal counts only.

    Args:
        fake: features (N, D) of generated videos.
        real: features (M, D) of real videos.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 videos, NaN.
    """
    if fake.ndim != 2 or real.ndim != 2 or fake.shape[1] != real.shape[1]:
        shapes = f"{tuple(fake.shape)} and {tuple(real.shape)}"
        raise ValueError(f"features: expected (N, D) and (M, D), got {shapes}")
    if (n := min(len(fake), len(real))) < 2:
        raise ValueError(f"fvd: expected at least 2 videos a side, got {n}")
    if not (fake.isfinite().all() and real.isfinite().all()):
        raise ValueError("fvd: expected finite features, got NaN or infinity")
    sides = (fid_features_to_statistics(features.cpu().double()) for features in (fake, real))
    return fid_statistics_to_metric(*sides, verbose=False)[torch_fidelity.KEY_METRIC_FID]

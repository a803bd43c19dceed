"""The published way to score interpolations and translations, to compare values and time against.

Every image is written to an 8-bit PNG; a folder is then scored pair by pair with the pip package
`lpips`, one image at a time, both files read for each pair: 40 feature passes for the 20 frames of
a path, 130 for the 10 outputs of a source where 12 do.
"""

import itertools
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from gen import viz
from gen.data.images import load_image, resize, to_tensor
from gen.metrics.smoothness import path_distances, resize_frames, smoothness
from gen.metrics.translation import translation_scores
from gen.networks import perceptual


def pip_lpips(net: str = "alex") -> nn.Module:
    """The package's own class, with the trunk weights of our cache instead of a download."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in an old way
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    tensors = perceptual.load(net)
    for name, module in model.net.named_modules():
        if isinstance(module, nn.Conv2d):
            i = name.split(".")[-1]
            module.weight.data = tensors[f"convs.{i}.weight"]
            module.bias.data = tensors[f"convs.{i}.bias"]
    return model.eval().requires_grad_(False)


def write_images(images: Tensor, folder: Path) -> list[Path]:
    """(T, 3, H, W) -> folder/00.png, 01.png, .."""
    folder.mkdir(parents=True)
    files = [folder / f"{t:02}.png" for t in range(len(images))]
    for image, file in zip(viz.to_uint8(images), files, strict=True):
        Image.fromarray(image).save(file)
    return files


def distance(a: Path, b: Path, model: nn.Module, size: int) -> float:
    """LPIPS of two files, seen at `size` px."""
    device = next(model.parameters()).device
    x, y = (to_tensor(resize(load_image(f), size))[None].to(device) for f in (a, b))
    return model(x, y).item()


@torch.inference_mode()
def published_ps(frames: Tensor, model: nn.Module) -> Tensor:
    """PS (N,) of (N, T, 3, H, W), by way of one folder of PNG files a sequence."""
    steps, direct = [], []
    with tempfile.TemporaryDirectory() as root:
        for n, sequence in enumerate(frames):
            files = write_images(sequence, Path(root, f"{n:05}"))
            pairs = [*zip(files, files[1:], strict=False), (files[0], files[-1])]
            found = [distance(a, b, model, 256) for a, b in pairs]
            steps.append(found[:-1])
            direct.append(found[-1])
    return smoothness(torch.tensor(steps), torch.tensor(direct))["ps"]


@torch.inference_mode()
def published_scores(x: Tensor, outputs: Tensor, twin: Tensor, model: nn.Module) -> Tensor:
    """Diversity, content and error to the true target (N, 3) of (N, K, 3, H, W) outputs."""
    rows, size = [], x.shape[-1]
    with tempfile.TemporaryDirectory() as root:
        for n, made in enumerate(outputs):
            source, target, *files = write_images(
                torch.cat([x[n : n + 1], twin[n : n + 1], made]), Path(root, f"{n:05}")
            )
            pairs = [
                itertools.combinations(files, 2),
                itertools.product([source], files),
                itertools.product([target], files),
            ]
            rows.append([mean(distance(a, b, model, size) for a, b in p) for p in pairs])
    return torch.tensor(rows)


class Way(NamedTuple):
    """Two ways from images in memory to the same values."""

    published: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    count: int  # sequences, or sources


def smoothness_ways(frames: Tensor, net: str = "alex") -> Way:
    """PS of (N, T, 3, H, W)."""
    ours, theirs = perceptual.LPIPS(net).to(frames.device), pip_lpips(net).to(frames.device)
    return Way(
        lambda: published_ps(frames, theirs),
        lambda: smoothness(*path_distances(ours, frames, quantize=True))["ps"],
        len(frames),
    )


def translation_ways(x: Tensor, outputs: Tensor, twin: Tensor, net: str = "alex") -> Way:
    """Scores of (N, K, 3, H, W) translations of (N, 3, H, W), beside true targets."""
    ours, theirs = perceptual.LPIPS(net).to(x.device), pip_lpips(net).to(x.device)
    keys = ("diversity", "content_lpips", "paired_lpips")

    def score() -> Tensor:
        made = resize_frames(outputs.flatten(0, 1), None, quantize=True).view_as(outputs)
        source, target = (resize_frames(images, None, quantize=True) for images in (x, twin))
        scores = translation_scores(ours, source, made, target)
        return torch.stack([scores[key] for key in keys], 1)

    return Way(lambda: published_scores(x, outputs, twin, theirs), score, len(x))


def race(way: Way, repeats: int = 3) -> dict[str, float]:
    """Both ways in turn, in one process.

    Returns:
        Sequences or sources a second of both (median of `repeats`), from images in memory to
        scores, so the published way pays for its PNG files; the ratio; the largest difference.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    seconds: dict[str, list[float]] = {"published": [], "ours": []}
    for _ in range(repeats + 1):  # the first round warms up
        began = time.perf_counter()
        published = way.published()
        between = time.perf_counter()
        with torch.inference_mode():
            mine = way.ours().cpu()
        seconds["published"].append(between - began)
        seconds["ours"].append(time.perf_counter() - between)
    rate = {k: way.count / sorted(v[1:])[repeats // 2] for k, v in seconds.items()}
    return {
        "published_per_s": rate["published"],
        "ours_per_s": rate["ours"],
        "ratio": rate["ours"] / rate["published"],
        "largest_difference": (mine - published).abs().max().item(),
    }

"""The published way to score an interpolation, kept to compare values and time against.

Every frame is written to an 8-bit PNG; a folder is then scored pair by pair with the pip package
`lpips`: 40 feature passes for 20 frames, one image at a time, each file read twice.
"""

import tempfile
import time
import warnings
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from gen import viz
from gen.data.images import load_image, resize, to_tensor
from gen.metrics.smoothness import path_distances, smoothness
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


def write_frames(frames: Tensor, folder: Path) -> None:
    """One sequence (T, 3, H, W) -> folder/00.png, 01.png, .."""
    folder.mkdir(parents=True)
    for t, image in enumerate(viz.to_uint8(frames)):
        Image.fromarray(image).save(folder / f"{t:02}.png")


def score_folder(folder: Path, model: nn.Module, size: int = 256) -> tuple[Tensor, Tensor]:
    """Distances (1, T-1) of consecutive files of a folder and (1,) of the first and the last."""
    files = sorted(folder.glob("*.png"))
    device = next(model.parameters()).device

    def distance(a: Path, b: Path) -> float:
        x, y = (to_tensor(resize(load_image(f), size))[None].to(device) for f in (a, b))
        return model(x, y).item()

    steps = [distance(a, b) for a, b in zip(files, files[1:], strict=False)]
    return torch.tensor([steps]), torch.tensor([distance(files[0], files[-1])])


@torch.inference_mode()
def published_ps(frames: Tensor, model: nn.Module) -> Tensor:
    """PS (N,) of (N, T, 3, H, W), by way of one folder of PNG files a sequence."""
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root, f"{n:05}") for n in range(len(frames))]
        for sequence, folder in zip(frames, folders, strict=True):
            write_frames(sequence, folder)
        scored = [score_folder(folder, model) for folder in folders]
    steps, direct = (torch.cat(part) for part in zip(*scored, strict=True))
    return smoothness(steps, direct)["ps"]


def race(frames: Tensor, net: str = "alex", repeats: int = 3) -> dict[str, float]:
    """Our scoring of (N, T, 3, H, W) against the published one, in turn, in one process.

    Returns:
        Sequences a second of both (median of `repeats`), from frames in memory to their PS, so
        the published way pays for its PNG files; the ratio; the largest difference of PS.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    ours, theirs = perceptual.LPIPS(net).to(frames.device), pip_lpips(net).to(frames.device)
    seconds: dict[str, list[float]] = {"published": [], "ours": []}
    for _ in range(repeats + 1):  # the first round warms up
        began = time.perf_counter()
        published = published_ps(frames, theirs)
        between = time.perf_counter()
        with torch.inference_mode():
            mine = smoothness(*path_distances(ours, frames, quantize=True))["ps"].cpu()
        seconds["published"].append(between - began)
        seconds["ours"].append(time.perf_counter() - between)
    rate = {k: len(frames) / sorted(v[1:])[repeats // 2] for k, v in seconds.items()}
    return {
        "published_sequences_per_s": rate["published"],
        "ours_sequences_per_s": rate["ours"],
        "ratio": rate["ours"] / rate["published"],
        "largest_ps_difference": (mine - published).abs().max().item(),
    }

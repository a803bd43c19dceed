"""The published ways to score images and to compute a loss, to compare values and time against.

Scores: every image is written to an 8-bit PNG; a folder is then scored pair by pair with the pip
package `lpips`, one image at a time, both files read for each pair: 40 feature passes for the 20
frames of a path, 130 for the 10 outputs of a source where 12 do.
"""

import itertools
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import cv2
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from gen import viz
from gen.data.images import load_image, resize, to_tensor
from gen.devices import float64
from gen.losses.spatial_entropy import excess, spatial_entropy
from gen.metrics.smoothness import path_distances, resize_frames, smoothness
from gen.metrics.translation import translation_scores
from gen.networks import perceptual
from gen.ops.components import component_count


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


def published_entropy(similarity: Tensor) -> Tensor:
    """`spatial_entropy` of (B, heads, H, W); refuses a batch in which no map has a component."""
    s = similarity.flatten(0, 1).flatten(1)  # (M, N)
    excess = s - s.mean(1, keepdim=True)
    weights = excess.relu() + 1e-9
    masks = (excess > 0).view(-1, *similarity.shape[2:]).cpu().numpy().astype("uint8")
    members, owners = [], []
    for m, mask in enumerate(masks):
        count, ids = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_16U)
        for j in range(1, count):
            members.append(torch.tensor(ids == j, dtype=s.dtype).flatten())
            owners.append(m)
    owner = torch.tensor(owners).to(s.device)  # (K,)
    mass = (weights[owner] * torch.stack(members).to(s.device)).sum(1)  # (K,)
    p = mass / torch.zeros_like(s[:, 0]).index_add(0, owner, mass)[owner]
    return -(p * p.log()).sum() / len(s)


class Way(NamedTuple):
    """Two ways from tensors in memory to the same values."""

    published: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    count: int  # sequences, sources or maps


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


def entropy_ways(similarity: Tensor) -> Way:
    """The gradient of spatial entropy for (B, heads, H, W), forward and backward."""
    leaf = similarity.clone().requires_grad_()

    @torch.inference_mode(False)  # where the race has it on
    def run(loss: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(loss(leaf), leaf)[0].cpu()

    count = similarity.shape[0] * similarity.shape[1]
    return Way(lambda: run(published_entropy), lambda: run(spatial_entropy), count)


def entropy_rows(batch_size: int, device: str, step: bool = False) -> list[dict]:
    """The race on maps of 6 heads and 14x14 patches: white noise, and smooth maps.

    The smooth ones have about as few components as maps of trained networks. The published way
    pays for each map and component, ours hardly: fewer of them, or fewer heads, is a lower ratio.

    Timed in processor time on the CPU, which other processes disturb less, in wall time elsewhere.
    With `step` also the seconds of a training step of ViT-S/16 at 224 px, in bf16 on a GPU, and the
    share of it that the loss takes, forward and backward.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(batch_size, 6, 14, 14, generator=rng).to(device)
    rows = []
    smooth = F.interpolate(noise[..., :4, :4], noise.shape[2:], mode="bicubic")
    for name, maps in {"noise": noise, "smooth": smooth}.items():
        count = float64(component_count(excess(maps) > 0)).mean().item()
        row = {"maps": name, "components": count}
        rows.append(row | race(entropy_ways(maps), 20, clock))
        if step:
            leaf = maps.clone().requires_grad_()
            loss = seconds(lambda leaf=leaf: spatial_entropy(leaf).backward(), 20, clock)
            rows[-1]["step s"] = seconds(vit_step(batch_size, device), 3, clock)
            rows[-1]["share"] = loss / rows[-1]["step s"]
    return rows


def vit_step(batch_size: int, device: str) -> Callable[[], None]:
    """A training step of ViT-S/16 on random images."""
    import timm

    vit = timm.create_model("vit_small_patch16_224").to(device).train()
    optimizer = torch.optim.AdamW(vit.parameters(), lr=1e-5)
    x = torch.randn(batch_size, 3, 224, 224, device=device)
    y = torch.zeros(batch_size, dtype=torch.int64, device=device)

    def run() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            loss = F.cross_entropy(vit(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], None], repeats: int, clock: Callable[[], float]) -> float:
    """Mean seconds of a call after a first one, launched one after another on a GPU."""
    sync = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for i in range(repeats + 1):
        run()
        if i == 0:
            sync()
            began = clock()
    sync()
    return (clock() - began) / repeats


def race(
    way: Way, repeats: int = 3, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Both ways in turn, in one process, timed by `clock`.

    Returns:
        Items a second of both (median of `repeats`), from tensors in memory to values, so the
        published way pays for its PNG files; the ratio; the largest difference.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    seconds: dict[str, list[float]] = {"published": [], "ours": []}
    for _ in range(repeats + 1):  # the first round warms up
        began = clock()
        published = way.published()
        between = clock()
        with torch.inference_mode():
            mine = way.ours().cpu()
        seconds["published"].append(between - began)
        seconds["ours"].append(clock() - between)
    rate = {k: way.count / sorted(v[1:])[repeats // 2] for k, v in seconds.items()}
    return {
        "published_per_s": rate["published"],
        "ours_per_s": rate["ours"],
        "ratio": rate["ours"] / rate["published"],
        "largest_difference": (mine - published).abs().max().item(),
    }

"""Measures paths between styles: smoothness, and the values of `gen.metrics.gradual`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gen.devices import float64
from gen.evaluation.features import MOST, Backbone, spread
from gen.evaluation.results import FRAMES
from gen.interpolation import alphas, lerp, path
from gen.metrics.checks import check_images
from gen.metrics.gradual import MIDDLE, Realism, gradual, progress, travel
from gen.metrics.nearest import Nearest
from gen.metrics.smoothness import all_distances, path_distances, pixel_steps, smoothness
from gen.networks.perceptual import LPIPS

Pairs = Sequence[tuple[int, int]]  # domains of the two ends of each of N paths


class Middle:
    """Scorers mid-path frames against real images of the two end domains.

    Args:
        backbone: network that gives features, and that no loss has used.
        classifier: classifier of domains for `membership`; None leaves `membership` out.
    """

    def __init__(self, backbone: Backbone, classifier) -> None:
        self.backbone, self.classifier = backbone, classifier
        self.known: dict[tuple[int, ...], Realism] = {}

    def real(self, a: int, b: int) -> Tensor:
        """Features (M, D) of at most 1000 training images of each of the two domains."""
        sides = (self.backbone.real(y) for y in sorted((a, b)))
        return torch.cat([side[spread(list(range(len(side))), MOST)] for side in sides])

    def realism(self, features: Tensor, a: int, b: int) -> Tensor:
        """Realism (N,) of features (N, D), compared with domains a and b."""
        key = tuple(sorted((a, b)))
        if key not in self.known:
            self.known[key] = Realism(self.real(*key))
        return self.known[key](features)

    def scores(
        self, frames: Tensor, pairs: Pairs, features: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Frames (N, F, 3, H, W) -> `realism` and, with a classifier, `membership`, each (N,)."""
        if features is None:
            features = self.backbone.features(frames.flatten(0, 1))  # (N F, D)
        of_path = features.unflatten(0, frames.shape[:2])  # (N, F, D)
        real = [self.realism(f, a, b).mean() for f, (a, b) in zip(of_path, pairs, strict=True)]
        found = {"realism": float64(torch.stack(real).to(frames.device))}
        if self.classifier is not None:
            logits = self.classifier.classify(frames.flatten(0, 1))
            p = logits.softmax(1).unflatten(0, frames.shape[:2]).mean(1)  # (N, S)
            both = torch.tensor([(a, b) for a, b in pairs], device=p.device)
            found["membership"] = float64(p.gather(1, both).sum(1))
        return found


class Paths:
    """Measures paths. The main LPIPS network sees all paths, the others only the model's paths.

    Args:
        lpips, others: main LPIPS network, and a sequence of other LPIPS networks.
        grid: kind of grid, see `gen.interpolation.alphas`.
        middle: scorer of mid-path frames; None leaves them out.
    """

    def __init__(
        self, lpips: LPIPS, others: Sequence[LPIPS], grid: str, middle: Middle | None
    ) -> None:
        self.lpips, self.others, self.grid, self.middle = lpips, others, grid, middle
        at = alphas(FRAMES, "released" if grid == "released" else "strict")  # (T,)
        self.at = [int((at - alpha).abs().argmin()) for alpha in MIDDLE]

    def frames(self, decode: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
        """Renders a path from styles a to b (N, D): (N, T, 3, H, W)."""

        def render(grid: Tensor) -> Tensor:
            frames = path(decode, a, b, grid)
            check_images(frames, "frames of a path", ndim=5, frames=FRAMES)
            return frames

        if self.grid != "uniform":
            return render(alphas(FRAMES, self.grid))
        steps, _ = path_distances(self.lpips, render(alphas(FRAMES, "strict")))
        return render(alphas(FRAMES, "uniform", steps))

    def scores(
        self, frames: Tensor, requested: Tensor | None = None, pairs: Pairs | None = None
    ) -> dict[str, Tensor]:
        """Values (N,) of paths (N, T, 3, H, W); `ps@vgg` is a value of the other network `vgg`.

        Args:
            requested: LPIPS (N,) between the true images at the two ends, for `travel`.
            pairs: domains of both ends, with whose real images mid-path frames are compared; adds
                `realism`, `membership` and, with `requested`, `gradual`.
        """
        steps, first, last = all_distances(self.lpips, frames)
        found = smoothness(steps, first[:, -1], pixel_steps(frames))
        found["progress"] = progress(first, last)
        if requested is not None:
            found["travel"] = travel(first[:, -1], requested)
        if pairs is not None and self.middle:
            found |= self.middle.scores(frames[:, self.at], pairs)
            if requested is not None:
                factors = ("travel", "progress", "realism")
                found["gradual"] = gradual(*(found[key] for key in factors))
        for lpips in self.others:
            seen = smoothness(*path_distances(lpips, frames))
            found |= {f"{key}@{lpips.net}": value for key, value in seen.items()}
        return found

    def standing(self, requested: Tensor) -> dict[str, Tensor]:
        """Values of N paths whose frames are all equal, computed without a network."""
        still = torch.zeros(len(requested), FRAMES - 1, device=requested.device)
        found = smoothness(still, still[:, 0], still) | {"progress": float64(still[:, 0])}
        return found | {"travel": travel(still[:, 0], requested)}

    def control(
        self, kind: str, frames: Tensor, ends: Sequence[Tensor], near: Nearest, pairs: Pairs
    ) -> Tensor:
        """Frames (N, T, 3, H, W) of a path made without the model, to compare with its `frames`.

        - `dissolve`: the first and last of `frames`, mixed pixel by pixel.
        - `nearest`: for each frame, the nearest training image of the two domains.
        - `twins`: the true images of the two `ends`, each (N, 3, H, W), mixed pixel by pixel.
        """
        if kind == "nearest":
            each = zip(frames, pairs, strict=True)
            return torch.stack([near(own, [pair] * FRAMES) for own, pair in each])
        a, b = (frames[:, 0], frames[:, -1]) if kind == "dissolve" else ends
        return torch.stack([lerp(a, b, t) for t in torch.linspace(0, 1, FRAMES).tolist()], 1)

"""Evaluates an encoder into W+: how near its reconstructions are, beside a projection's.

Letters in shapes: N images, L rows of a code, D its width, H image side.
"""

import time
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

import gen.data
from gen.evaluation.features import spread
from gen.evaluation.results import LOWER, NEITHER, Results, Values, head
from gen.inference import common, generation
from gen.networks.perceptual import LPIPS

GROUPS = ("encoded", "generated", "refined", "projected")
REFINED, PROJECTED = 20, 200  # steps of the projector


@torch.no_grad()
def evaluate_encoder(
    method,
    val: Dataset,
    project,
    metrics: Collection[str] = GROUPS,
    count: int = 50,
    net: str = "alex",
    seed: int = 777,
    batch_size: int = 16,
    checkpoint: str | Path | None = None,
    ledger: str | Path | None = None,
) -> list[dict]:
    """Evaluates an encoder of images into the codes of a generator.

    - `encoded`: reconstructions of real images. `encoded/lpips_NET` and `encoded/pixel`, the mean
      squared error of pixels in [-1, 1]; `encoded/rows`, the root mean square distance of a code's
      rows from their mean, in the spread of codes in W: edits fit where it is small.
    - `generated`: the same of images of the generator, and `generated/code`, the distance of the
      predicted code from the true one, in the same spread.
    - `refined`: as `encoded`, after 20 steps of the projector from the encoder's code.
    - `projected`: as `encoded`, by 200 steps of the projector from the mean code.

    The time of one image alone is told for each group, and is no row: it is another each time.

    Args:
        method: encoder with `encode`, `synthesize`, `map_latents`, `code_std`, `latent_dim`.
        val: data set of real images: `[i]["x"]`.
        project: function of images and a number of steps that returns codes in W+.
        metrics: groups to measure, from `GROUPS`.
        count: number of images, evenly spaced over the data set.
        net: name of the LPIPS network.
        seed: seed of generated images and intervals.
        batch_size: images per batch; changes values by rounding alone.
        checkpoint: file whose sha256 the rows state.
        ledger: file of single values, from which an interrupted evaluation resumes.

    Returns:
        Rows as of `gen.evaluation.translators.evaluate`; ci95 is a bootstrap over images.

    Raises:
        ValueError: an unknown group, or a count below 1.
    """
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if min(count, batch_size) < 1:
        raise ValueError(f"expected count and batch_size >= 1, got {count} and {batch_size}")
    units = spread([*range(len(val))], count)
    run = _Encoder(method, val, project, net, seed)
    found = Results(ledger, head(checkpoint, seed, val), dict.fromkeys(GROUPS, net))
    groups = [group for group in GROUPS if group in metrics]
    found.measure(groups, units, batch_size, lambda some: some, run.values)
    return found.rows(groups, units, f"{method.img_size} px", seed, checkpoint=checkpoint)


class _Encoder:
    """Measures an encoder group by group."""

    def __init__(self, method, val: Dataset, project, net: str, seed: int) -> None:
        self.method, self.val, self.project, self.seed = method, val, project, seed
        self.lpips, self.timed = LPIPS(net).to(common.device(method)), set()

    def values(self, group: str, units: Sequence[int]) -> Values:
        known = None
        if group == "generated":
            z = generation.latents(self.method, [self.seed * 10**6 + i for i in units])
            known = self.method.map_latents(z)
            x = self.method.synthesize(known).clamp(-1, 1)
        else:
            x, _ = common.batch(self.method, self.val, units)
        ways = {
            "refined": (lambda x: self.method.encode(x, REFINED), f", {REFINED} steps refined"),
            "projected": (lambda x: self.project(x, PROJECTED), f": {PROJECTED} steps alone"),
        }
        encode, how = ways.get(group, (self.method.encode, ""))
        what = f"{'generated' if group == 'generated' else 'validation'} images{how}"
        ws = encode(x)  # (N, L, D)
        back = self.method.synthesize(ws).clamp(-1, 1)
        if group not in self.timed:
            self.timed.add(group)
            back[0, 0, 0, 0].item()  # waits for what a GPU has still to do
            began = time.perf_counter()
            encode(x[:1]).cpu()
            rank_zero_info(f"{group}: {time.perf_counter() - began:.3g} s for one image alone")
        yield f"{group}/lpips_{self.lpips.net}", what, self.lpips(x, back), LOWER
        yield f"{group}/pixel", what, (back - x).square().mean((1, 2, 3)), LOWER
        yield f"{group}/rows", what, self.far(ws, ws.mean(1, keepdim=True)), NEITHER
        if known is not None:
            yield f"{group}/code", what, self.far(ws, known), LOWER

    def far(self, a: Tensor, b: Tensor) -> Tensor:
        """Root mean square distance (N,) of codes, in the spread of codes in W."""
        return ((a - b) / self.method.code_std).square().mean((1, 2)).sqrt()


def from_options(method, o, ledger: Path | None = None) -> list[dict]:
    """Rows for the options `o` of `gen evaluate`."""
    data = gen.data.open(o.data, "classes", img_size=method.img_size, crop_pct=o.crop_pct)
    groups = o.metrics or ["all"]
    return evaluate_encoder(
        method,
        data.val,
        method.project,
        metrics=GROUPS if "all" in groups else groups,
        count=50 if o.max_sources is None else o.max_sources,
        net=o.net[0],
        seed=o.seed,
        batch_size=o.batch_size,
        checkpoint=o.checkpoint,
        ledger=ledger,
    )

"""Makes the two moving pictures at the top of the README that no card makes.

Each shows the first three heads, not selected: held-out bear 0, cat 1 and dog 2, and seeds 0 to 2
of the generator.

    python docs/hero.py
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import gen
from gen import viz
from gen.data import Heads
from gen.inference import common, editing, generation, translation

FRAMES, HOLD = 12, 6  # frames of each part of the way, and for which its ends are shown
CELL = 112  # px
TO = Path(__file__).resolve().parents[1] / "checkpoints"


def translated() -> None:
    """Held-out heads (top), and on their way through the domains and back (bottom)."""
    method, images = gen.load("smooth_i2i_heads64"), Heads(num_workers=0).images("val")
    x = torch.stack([images[y * len(images) // 3 + y]["x"] for y in range(3)])
    there = [*method.domains, method.domains[0]]
    _, keys = translation.route(method, there, [0], None)
    ways = common.join(translation.walk(method, x, keys, FRAMES))  # (3, T, 3, H, W)
    save("smooth_i2i_heads64_path.gif", ([list(x), list(y)] for y in ways.swapaxes(0, 1)))


def edited() -> None:
    """Generated heads become cats, dogs and bears, and what they were."""
    method, judge = gen.load("style_function_heads64"), gen.load("attribute_classifier_heads64")
    ws = method.map_latents(generation.latents(method, range(3)))  # (3, L, D)
    seen = editing.known(method, judge)
    d = torch.tensor([
        [editing.wanted(y, editing.parse(name, judge.attribute_names), seen).tolist()
         for y in editing.labels(method, judge, ws)]
        for name in ("cat", "dog", "bear")
    ])  # (3, 3, K)  # fmt: skip
    codes = editing.edits(method, ws, d, [0])[:, 0]  # (3, 3, L, D)
    ways = common.join(editing.walk(method, [ws, *codes, ws], FRAMES))  # (3, T, 3, H, W)
    save("style_function_heads64_edits.gif", ([list(x)] for x in ways.swapaxes(0, 1)))


def save(name: str, grids: Iterable[Sequence[Sequence[Tensor]]]) -> None:
    """Writes a GIF that rests where a part of the way ends."""
    frames = [viz.grid(rows, cell_px=CELL) for rows in grids]
    rests = (HOLD if k % (FRAMES - 1) == 0 else 1 for k in range(len(frames)))
    frames = [frame for frame, rest in zip(frames, rests, strict=True) for _ in range(rest)]
    viz.save_gif(frames, TO / name)
    print(TO / name)


if __name__ == "__main__":
    translated(), edited()

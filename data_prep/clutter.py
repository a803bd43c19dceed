"""Drawings pasted over cluttered grounds, with exact masks: where a classifier has to look.

The ground is a street, heads or noise, with 6 to 12 small drawings over it. The object is larger,
0.4 to 0.6 of the side, lies wholly inside, more often near an edge than near the centre (else a
blob in the centre would find it), and is pasted last.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from gen.data.heads import DOMAINS, render
from gen.data.heads.factors import factors

Draw = Callable[[int], Image.Image]  # side, px -> RGBA drawing
KINDS = ("street", "heads", "noise")
SCENES = 2**28  # streets and heads that a split can draw from, apart from those of other splits
SCATTERED, SMALL, LARGE = (6, 13), (0.15, 0.3), (0.4, 0.6)  # number; sides, shares of the image's


def rng_of(seed: int, path: str) -> np.random.Generator:
    """Random generator of the image at `path`, a function of both alone."""
    digest = hashlib.sha256(path.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def compose(
    rng: np.random.Generator, size: int, obj: Draw, others: Sequence[Draw], scenes: int = 0
) -> tuple[Image.Image, Image.Image]:
    """Draws an object on clutter.

    Args:
        rng: source of all random numbers.
        size: side of the image, px.
        obj: function that draws the object.
        others: functions that draw what may be scattered over the ground.
        scenes: index of the first street and head that may be drawn; the last is `SCENES` - 1 on.

    Returns:
        RGB image and mask "L", which is the opacity of the object, both `size` x `size`.
    """
    image = ground(rng, size, scenes)
    for k in rng.integers(len(others), size=rng.integers(*SCATTERED)) if others else ():
        side = round(size * rng.uniform(*SMALL))
        small = others[k](side)
        image.paste(small, tuple(rng.integers(-side // 2, size - side // 2, 2).tolist()), small)
    drawing = obj(round(size * rng.uniform(*LARGE)))
    free = size - drawing.width  # px, of which the place takes a share by the arcsine law
    place = tuple((rng.beta(0.5, 0.5, 2) * free).round().astype(int).tolist())
    image.paste(drawing, place, drawing)
    mask = Image.new("L", image.size)
    mask.paste(drawing.getchannel("A"), place)
    return image, mask


def ground(rng: np.random.Generator, size: int, scenes: int = 0) -> Image.Image:
    """RGB ground of one of `KINDS`, without drawings; see `compose`."""
    kind, index = rng.choice(KINDS), scenes + int(rng.integers(SCENES))
    if kind == "street":
        from gen.data.movers import MoverClips  # the one part that Click to Move brings

        _, _, stage = MoverClips(0, index, 1, size, 2 * size, 2).scene(0)
        x, y = stage.grid()
        rgb = stage.trace(x[:1], y[:1], antialias=True)[1].reshape(3, size, 2 * size)
        left = int(rng.integers(size + 1))
        pixels = rgb[:, :, left : left + size].transpose(1, 2, 0)
        return Image.fromarray((255 * pixels).round().astype(np.uint8))
    if kind == "noise":
        return _noise(rng, size)
    count = int(rng.integers(1, 3))  # heads a side
    side, image = -(-size // count), Image.new("RGB", (size, size))
    for k in range(count**2):
        head = render(factors(k, index), DOMAINS[rng.integers(len(DOMAINS))], max(side, 16))
        image.paste(Image.fromarray(head), (k % count * side, k // count * side))
    return image


def _noise(rng: np.random.Generator, size: int) -> Image.Image:
    """Coloured noise: a random sum of octaves, from 2 cells a side to single pixels."""
    cells, total = [c for c in (2, 4, 8, 16, 32) if c < size] + [size], 0.0
    for c, weight in zip(cells, rng.dirichlet(np.ones(len(cells))), strict=True):
        octave = Image.fromarray(rng.integers(256, size=(c, c, 3), dtype=np.uint8))
        total = total + weight * np.asarray(octave.resize((size, size), Image.Resampling.BICUBIC))
    low, high = total.min((0, 1)), total.max((0, 1))
    return Image.fromarray((255 * (total - low) / (high - low)).round().astype(np.uint8))

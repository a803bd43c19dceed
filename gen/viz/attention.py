"""Attention maps as pictures: heat over a grey image, and the components of a map in colours.

No network is used. A picture here is float (3, H, W) in [-1, 1]; a map (Hg, Wg) covers all of it.
"""

import cv2
import numpy as np
from PIL import Image, ImageColor
from torch import Tensor

from gen import viz

# Distinct for most eyes (Okabe and Ito), the largest part first; after the eighth they repeat.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#9467BD")
INK = 0.7  # share of a part's colour over the image


def heat(picture: Tensor, share: Tensor, px: int = viz.DISPLAY_PX) -> Image.Image:
    """The picture in dark grey, which glows where a map (Hg, Wg) >= 0 is high, most at its maximum.

    The colours are inferno's; the map is enlarged smoothly; px is the least side, see `enlarge`.
    """
    grey = _grey(picture, px, 18, 125)  # (H, W, 3)
    level = (share / share.max().clamp(min=1e-12)).cpu().numpy().astype(np.float32)
    level = cv2.resize(level, grey.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    glow = cv2.applyColorMap((level * 255).round().astype("uint8"), cv2.COLORMAP_INFERNO)
    level = 0.95 * level[..., None]
    return _picture(grey * (1 - level) + glow[..., ::-1] * level)


def parts(picture: Tensor, ids: Tensor, mass: Tensor, px: int = viz.DISPLAY_PX) -> Image.Image:
    """The picture in grey, with each component of a map on it in its colour, outlined.

    Args:
        picture: image (3, H, W) to show.
        ids: component ids (Hg, Wg), 0 for none, see `gen.ops.components.component_ids`.
        mass: weight (Hg, Wg) of each patch; the largest component comes first.
        px: least side of the picture, px.
    """
    grey = _grey(picture, px, 153, 243)  # (H, W, 3)
    ids = ids.cpu().numpy()
    sums = np.bincount(ids.ravel(), mass.cpu().numpy().ravel())[1:]  # (K,)
    h, w = grey.shape[:2]
    rows, columns = np.arange(h) * ids.shape[0] // h, np.arange(w) * ids.shape[1] // w
    big = ids[rows[:, None], columns]  # (H, W)
    edge = cv2.morphologyEx(big.astype(np.uint16), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    out = grey.copy()
    for rank, k in enumerate(np.argsort(-sums, kind="stable") + 1):
        colour = np.array(ImageColor.getrgb(COLOURS[rank % len(COLOURS)]), np.float32)
        inside = big == k
        out[inside] = (1 - INK) * out[inside] + INK * colour
        out[inside & (edge > 0)] = 0.75 * colour
    return _picture(out)


def _grey(picture: Tensor, px: int, black: int, white: int) -> np.ndarray:
    """Grey levels between black and white, float32 (H, W, 3)."""
    grey = np.asarray(viz.enlarge(picture, px).convert("L"), np.float32)
    return (black + (white - black) / 255 * grey)[..., None].repeat(3, 2)


def _picture(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.clip(0, 255).round().astype("uint8"))

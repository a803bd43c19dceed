"""Masks of what a translation keeps of a face: landmark maps, moved and sharpened part by part.

Source: Choi et al., "StarGAN v2", CVPR 2020: the two masks that gate the high-pass skip of
`Generator`, from the 98 landmarks of WFLW. The network that draws the maps is not here.
"""

from torch import Tensor

THRESHOLD = 0.1  # of the raw maps
PARTS = {  # first landmark, last + 1, rows up at 256 px (negative: down), exponent
    "chin": (8, 25, 0, 3),
    "eyebrows": (33, 51, -7, 2),
    "nose": (52, 55, 4, 1),
    "nostrils": (55, 60, 8, 4),
    "upper lip": (77, 82, -8, 4),
    "lower lip": (83, 88, 8, 4),
    "inner lip": (88, 96, -2, 3),
}
EYES = slice(60, 76)
UNUSED = {*range(8), *range(25, 33), 33, 46, 76, 82}
COARSE = [k for k in range(98) if k not in UNUSED]
FINE = [k for k in COARSE if k not in {*range(8, 25), *range(33, 51), *range(76, 96)}]


def face_masks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Landmark maps (N, 98, H, W) -> masks (N, 1, H, W) in [0, 1]: of the face, of eyes and nose.

    Rows that leave at one edge come in at the other. Below 256 px nothing moves but the eyes, which
    always move by 8 and 24 rows, as published. Unlike there, NaN becomes 0 in both masks.
    """
    if heatmaps.ndim != 4 or heatmaps.shape[1] != 98:
        raise ValueError(f"heatmaps: expected (N, 98, H, W), got {tuple(heatmaps.shape)}")
    maps = heatmaps.masked_fill(heatmaps < THRESHOLD, 0)  # (N, 98, H, W)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    maps = (maps - low) / (high - low + 1e-6)
    for start, stop, up, power in PARTS.values():
        rows = up * (maps.shape[2] // 256)
        maps[:, start:stop] = maps[:, start:stop].roll(-rows, 2) ** power
    eyes = maps[:, EYES]
    maps[:, EYES] = eyes.roll(8, 2) ** 3 + eyes.roll(24, 2)
    coarse, fine = (maps[:, kept].sum(1, keepdim=True) for kept in (COARSE, FINE))  # (N, 1, H, W)
    return coarse.nan_to_num(0).clamp(0, 1), fine.nan_to_num(0).clamp(0, 1)

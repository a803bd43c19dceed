"""Steps of objects from a previous frame: true shifts are found, also parts of a pixel."""

import torch
import torch.nn.functional as F

from gen.data.movers import MoverClips
from gen.inference.past import steps
from gen.ops.motion import move_boxes

HALF = torch.tensor([63.5, 31.5])


def picture() -> torch.Tensor:
    """A smooth random picture (3, 64, 128) in [-1, 1]."""
    noise = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    return 2 * F.interpolate(noise, (64, 128), mode="bicubic").clamp(0, 1)[0] - 1


def shifted(x: torch.Tensor, px: tuple[float, float]) -> torch.Tensor:
    """x(p + px)."""
    theta = torch.eye(2, 3)[None].clone()
    theta[0, :, 2] = torch.tensor(px) / HALF
    grid = F.affine_grid(theta, (1, *x.shape), align_corners=True)
    return F.grid_sample(x[None], grid, padding_mode="border", align_corners=True)[0]


def test_a_shift_is_found_to_parts_of_a_pixel():
    first, instance = picture(), torch.zeros(64, 128, dtype=torch.int64)
    instance[20:40, 30:60] = 1
    instance[44:50, 100:110] = 2
    for way in ((3.0, -1.0), (-2.4, 0.3), (0.0, 0.0), (9.6, 2.2)):
        found = steps(first, instance, shifted(first, way), 3) * HALF
        assert (found[:2] - torch.tensor(way)).abs().max() < 0.1
        assert found[2].isnan().all()  # there is no third object


def test_what_is_not_in_the_frame_before_is_unknown():
    first, instance = picture(), torch.zeros(64, 128, dtype=torch.int64)
    instance[20:40, 30:60] = 1
    assert steps(first, instance, torch.ones(3, 64, 128), 1).isnan().all()


def test_steps_of_drawn_objects_are_found():
    errors, still = [], []
    for clip in (MoverClips(777, 2**31, 40, branches=True)[3 * i] for i in range(12)):
        boxes = clip["boxes"][0]
        true = (boxes[:, :2] - move_boxes(boxes, clip["past"][None])[0, :, :2]) * HALF
        found = steps(clip["video"][0], clip["instance"][0], clip["previous"], 8) * HALF
        large = clip["instance"][0].flatten().bincount(minlength=9)[1:] > 20
        errors += (found - true).norm(dim=1)[large].tolist()
        still += true.norm(dim=1)[large].tolist()
    errors, still = torch.tensor(errors), torch.tensor(still)
    assert errors.nanmedian() < 0.15 < 1.5 < still.median()
    assert errors.isnan().float().mean() < 0.1

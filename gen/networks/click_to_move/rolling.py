"""Motion over more frames than the object graph predicts at once.

Own choice. The graph goes on from the places and speeds that it has reached; all motion is then
expressed relative to the first frame, from which every frame is rendered. So no picture is made of
a picture, and nothing blurs with time.

Letters in shapes: N batch, T frames after the first, M objects, O latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gen.ops.motion import compose, identity, invert, move_boxes


def roll_on(
    predict: Callable[[Tensor, Any, Tensor], Tensor],
    boxes: Tensor,
    motion: Any,
    object_z: Tensor,
    steps: int,
    speeds: bool,
) -> Tensor:
    """Motion of all objects (N, T, M, 2, 3), predicted `steps` frames at a time.

    Args:
        predict: function of boxes (N, M, 4), of the user's motion relative to them, and of latents
            (N, M, t, O), that returns the motion (N, t, M, 2, 3) of all objects in t <= `steps`
            frames.
        boxes: boxes (N, M, 4) of the first frame.
        motion: `gen.networks.click_to_move.animator.Motion` that the user gives for all T frames.
        object_z: latents (N, M, T, O).
        steps: number of frames that are predicted at once.
        speeds: give `predict` the speed that objects have reached, as a previous frame would.
    """
    T, place = motion.theta.shape[1], boxes
    begin = identity(boxes).expand(*boxes.shape[:2], 2, 3)  # motion so far
    camera = identity(boxes).expand(len(boxes), 2, 3)
    past, centres, out = motion.past, [boxes[..., :2]], []
    for first in range(0, T, steps):
        part = slice(first, first + steps)
        given = motion._replace(
            theta=compose(invert(begin)[:, None], motion.theta[:, part]),
            camera=compose(invert(camera)[:, None], motion.camera[:, part]),
            past=past,
        )
        theta = compose(begin[:, None], predict(place, given, object_z[:, :, part]))
        out.append(theta)
        begin, camera = theta[:, -1], motion.camera[:, part][:, -1]
        moved = move_boxes(boxes, theta)
        centres += moved[..., :2].unbind(1)
        place, past = moved[:, -1], centres[-1] - centres[-2] if speeds else None
    return torch.cat(out, 1)

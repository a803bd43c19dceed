"""Lets any model of moving objects take the test of `gen.data.Movers`: a function is enough.

    def animate(frame, masks, drags):
        ...
        return paths                    # or a video
    rows = evaluate_animator(Adaptor(animate), Movers().clips("test"))

`docs/movers.md` explains the test.

Letters in shapes: N scenes, T frames after the first, M objects, H height, W width.
"""

import inspect
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from gen.metrics.video import locate
from gen.networks.click_to_move.animator import Animation, Motion, Scene
from gen.ops.motion import identity, move_boxes
from gen.viz import to_uint8

Animate = Callable[[np.ndarray, np.ndarray, dict[int, np.ndarray]], np.ndarray]


class Adaptor(nn.Module):
    """A model for `evaluate_animator`, made of a function.

    The function gets

        frame  first frame, uint8 (H, W, 3), RGB
        masks  one mask for each object, bool (M, H, W); empty where an object is hidden
        drags  {k: path} of the objects that the user moves, each (T + 1, 2) px: x and y of the
               centre of mask k's box in all frames, the first included

    and returns the places of all objects in frames 1 .. T, float (T, M, 2) px, centres of boxes as
    in `drags`; or these frames, uint8 (T, H, W, 3), in which objects are found by their looks in
    the first frame.

    Args:
        animate: function, as above.
        shape: T, H and W of the clips.
    """

    task = "animator"
    takes = frozenset()  # optional inputs

    def __init__(self, animate: Animate, shape: tuple[int, int, int] = (5, 64, 128)) -> None:
        super().__init__()
        self.animate_one, self.shape = animate, shape
        self.source = inspect.getsourcefile(inspect.unwrap(animate))  # so that a change is noticed
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # says which device
        self.hparams = SimpleNamespace(camera=0.0)

    def latents(self, shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
        """Empty latents: the function draws nothing."""
        return torch.empty(shape[0], 0), torch.empty(*shape, self.shape[0], 0)

    def predict_motion(self, scene: Scene, motion: Motion, object_z: Tensor) -> Tensor:
        """Motion of all objects (N, T, M, 2, 3): shifts by what the function says."""
        theta, half = identity(motion.theta).expand_as(motion.theta).clone(), self.half(scene)
        for i, begin in enumerate(half * (1 + scene.boxes[..., :2])):  # (M, 2) px
            said = self.ask(scene, motion, i)
            shifts = said - begin if said.ndim == 3 else self.found(scene, i, said)  # (T, M, 2)
            theta[i, ..., 2] = -shifts.where(scene.present[i, :, None], 0.0) / half
        return theta

    def animate(self, scene: Scene, motion: Motion, z: Tensor, object_z: Tensor) -> Animation:
        """The function's frames, without flow; ValueError if it returns places."""
        videos = [self.ask(scene, motion, i) for i in range(len(scene.frame))]
        if videos[0].ndim == 3:
            raise ValueError(
                "frames: expected a function that returns frames, got one that returns places; "
                "measure --metrics motion response"
            )
        return Animation(torch.stack(videos), None, None, motion.theta, None)

    def half(self, scene: Scene) -> Tensor:
        """Half the width and height of a frame, px, (2,): places are -1 .. 1 in boxes."""
        H, W = scene.frame.shape[2:]
        return scene.boxes.new_tensor([(W - 1) / 2, (H - 1) / 2])

    def ask(self, scene: Scene, motion: Motion, i: int) -> Tensor:
        """Answer of the function for scene i: places (T, M, 2), or frames (T, 3, H, W)."""
        (T, H, W), M = self.shape, scene.present.shape[1]
        frame = to_uint8(scene.frame[i])
        objects = torch.arange(1, M + 1, device=scene.instance.device)[:, None, None]
        masks = (scene.instance[i] == objects).cpu().numpy()
        begin, half = scene.boxes[i, None, :, :2], self.half(scene)
        way = torch.cat([begin, move_boxes(scene.boxes[i], motion.theta[i])[..., :2]])
        way = half * (1 + way)  # (T + 1, M, 2) px
        chosen = motion.user[i].nonzero().flatten().tolist()
        drags = {k: way[:, k].cpu().numpy() for k in chosen}
        got = np.asarray(self.animate_one(frame, masks, drags))
        if got.shape == (T, M, 2):
            return torch.from_numpy(got.astype(np.float32)).to(scene.boxes)
        if got.shape == (T, H, W, 3) and got.dtype == np.uint8:
            return torch.from_numpy(got).to(scene.boxes).movedim(3, 1) / 127.5 - 1
        raise ValueError(
            f"animate: expected places ({T}, {M}, 2) or frames ({T}, {H}, {W}, 3) of uint8, got "
            f"{got.shape} of {got.dtype}"
        )

    def found(self, scene: Scene, i: int, video: Tensor) -> Tensor:
        """Shifts (T, M, 2) px of objects, found by their looks in the frames (T, 3, H, W)."""
        shifts = scene.boxes.new_zeros(len(video), scene.present.shape[1], 2)
        for k in scene.present[i].nonzero().flatten().tolist():
            if (mask := scene.instance[i] == k + 1).any():
                places = [locate(scene.frame[i], mask, frame) for frame in video]
                shifts[:, k] = torch.stack(places)
        return shifts

"""Click to Move with its frames one by one, and the race of that with `ClickToMove.animate`."""

import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.utils.data import default_collate

from gen.data import Movers
from gen.methods import ClickToMove
from gen.networks.click_to_move.animator import Motion, Scene
from literal_scores import Way, race

CONFIGS = Path(__file__).resolve().parents[1] / "configs/click_to_move"
PRESETS = {"tiny": "movers_tiny", "small": "movers_small", "full": "cityscapes256"}


@contextmanager
def frame_by_frame(decoder: nn.Module, generator: nn.Module):
    """Convolutions of images see one at a time, and the generator makes one frame a call: as in
    the release it encodes frame 0 for each."""

    def alone(conv: nn.Conv2d, frames: torch.Tensor) -> torch.Tensor:
        return torch.cat([nn.Conv2d.forward(conv, frame) for frame in frames.split(1)])

    def each(frame: torch.Tensor, *maps: torch.Tensor) -> torch.Tensor:
        steps = zip(*(m.split(1, 1) for m in maps), strict=True)
        return torch.cat([type(generator).forward(generator, frame, *one) for one in steps], 1)

    convs = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    for conv in convs:
        conv.forward = partial(alone, conv)
    generator.forward = each
    try:
        yield
    finally:
        for net in (*convs, generator):
            del net.forward


def add_command(commands) -> None:
    """Adds `video` to the commands of scripts/benchmark.py."""
    about = "a clip of Click to Move: ours, also in bf16, against frames one by one"
    p = commands.add_parser("video", help=about)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--batch-size", type=int, default=1)
    p.add_argument("--preset", nargs="+", choices=PRESETS, default=[*PRESETS])
    p.set_defaults(run=lambda args: video_rows(args.batch_size, args.device, args.preset))
    # in float32 both ways take nearly as long: 1.06 to 1.16 measured
    p.set_defaults(floors=[("video --device cpu --preset small", 0, "ratio", 0.9)])


def video_rows(batch_size: int, device: str, presets: list[str], repeats: int = 3) -> list[dict]:
    """The race of each preset and precision, for clips of five frames, weights random.

    In processor time on the CPU, which other processes disturb less, else in wall time.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    rows = []
    for name in presets:
        config = yaml.safe_load((CONFIGS / f"{PRESETS[name]}.yaml").read_text())
        method = ClickToMove(**config["model"]["init_args"]).to(device)
        data = Movers(*method.shape[1:], num_workers=0)
        clip = {
            k: v.to(device)
            for k, v in default_collate([data.test[i] for i in range(batch_size)]).items()
        }
        scene = Scene.of(clip)
        camera = torch.eye(2, 3, device=device).expand(batch_size, 5, 2, 3)
        known = torch.zeros(batch_size, dtype=torch.bool, device=device)
        motion = Motion(scene.present, clip["theta"], known, camera)
        given = scene, motion, *method.latents(tuple(scene.present.shape), 0)
        animator = method.ema.module["animator"]

        def literal(method=method, animator=animator, given=given):
            with frame_by_frame(animator.decoder, animator.generator):
                return method.animate(*given).video.cpu()

        for precision in ("fp32", "bf16"):

            def ours(method=method, given=given, precision=precision):
                return method.animate(*given, precision=precision).video

            row = race(Way(literal, ours, batch_size), repeats, clock)
            row = {"s a clip" if k == "ours_per_s" else k: v for k, v in row.items()}
            row["s a clip"] = 1 / row["s a clip"]
            row["literal s a clip"] = 1 / row.pop("published_per_s")
            rows.append({"video": name, "ours": precision} | row)
    return rows

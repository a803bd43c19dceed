"""Rows of Click to Move in the tables of the general tests, see `runs.rows`."""

import torch
from torch.utils.data import default_collate

from harness import bare

CLICK_TO_MOVE = dict(
    height=32, width=64, steps=3, channels=4, levels=4, max_channels=8, norm="group", blocks=1,
    d_channels=4, d_levels=2, graph_dim=16, feature_dim=4, z_dim=8, object_z_dim=4,
    lambda_perceptual=0.0,
)  # fmt: skip
MOVERS = dict(
    height=32, width=64, frames=4, max_objects=4, batch_size=2, num_workers=0, train_clips=8,
    val_clips=4, test_scenes=1,
)  # fmt: skip
RUN = dict(mix_start=2, kl_iters=5, lambda_smooth=0.1, ema_decay=0.9)


def clips(count: int) -> dict[str, torch.Tensor]:
    """A batch of small clips."""
    from gen.data.movers import MoverClips

    drawn = MoverClips(777, 0, count, 32, 64, frames=4, max_objects=4)
    return default_collate([drawn[i] for i in range(count)])


def predicted() -> torch.Tensor:
    """Motion of objects, in training, where autocast and TF32 are allowed elsewhere."""
    from gen.methods import ClickToMove

    method = bare(ClickToMove)(**CLICK_TO_MOVE)
    torch.nn.init.ones_(method.animator.graph.last.weight)
    scene, motion, _, _, object_z = method.draws(clips(1))
    rng = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, 16 >> i, 16 >> i, generator=rng) * 2 - 1 for i in range(4)]
    features = [x[:, :1].expand(-1, 8 >> (i == 0), -1, -1) for i, x in enumerate(images)]
    return method.animator.predict(scene, features, motion, object_z)


def dragged(gpu) -> torch.Tensor:
    """Motion of a request, for a scene on a fake device."""
    from gen.inference import dragging

    drag = dragging.Request((dragging.Drag(13001, ((0, 0), (2, 1)), 1.0),), camera=(1.0, 0.0, 1.0))
    instance = torch.zeros(32, 64, dtype=torch.int64)
    instance[4:12, 4:14] = 13001
    scene = dragging.scene(
        gpu.send(torch.zeros(3, 32, 64)), *gpu.send((instance // 1000, instance))
    )
    return dragging.motion(drag, scene, 3).theta


def drawn_clips(folder):
    from gen.data import Movers

    return Movers(**MOVERS)


def exported_clips(folder):
    """The same clips in the layout of Cityscapes."""
    import cityscapes_layout

    from gen.data import Cityscapes

    assert cityscapes_layout.main([f"--out={folder / 'clips'}", "--height=32", "--clips=2"]) == 0
    return Cityscapes(root=str(folder / "clips"), height=32, width=64, num_workers=0)


VIDEO = CLICK_TO_MOVE | dict(lambda_smooth=0.1, lambda_perceptual=1.0)
SPADE = CLICK_TO_MOVE | dict(generator="spade", norm="batch", camera=0.0)


def shipped(folder):
    """File of an untrained model."""
    from gen.methods import ClickToMove
    from runs import ship  # which reads the tables of this file

    return ship(ClickToMove(**CLICK_TO_MOVE), folder / "animator.safetensors")


MAKERS = {"animator": shipped}
EVALUATED = {"animator": "--data movers --metrics motion response frames --count 3 --batch-size 3"}


def moved(method, gpu) -> torch.Tensor:
    """Frames of a batch of clips, on a fake device."""
    scene, motion, _, z, object_z = method.draws(gpu.send(clips(2)))
    return method.animate(scene, motion, z, object_z).video


SPAWNED = {"movers": drawn_clips, "clips": exported_clips}
USES = {"animator": moved}
COMMANDS = {"animator": "click_to_move.py --scene 1 --drag 16,16:8,-2"}
DATA = {"ClickToMove": ("Movers", MOVERS)}
OPTIONS = {"ClickToMove": CLICK_TO_MOVE | RUN}
CONFIGS = {"ClickToMove": (CLICK_TO_MOVE, {"g/translation", "g/scale", "g/rotation"})}
GRAPH_ALONE = CLICK_TO_MOVE | dict(
    graph_dim=32, lr=2e-3, lr_graph=2e-3, mix=0.0, lambda_flow=0.0, lambda_visible=0.0,
    lambda_warped=0.0, lambda_kl=0.0, lambda_rec=0.0, lambda_ssim=0.0, lambda_gan_image=0.0,
    lambda_gan_video=0.0, lambda_fm_image=0.0, lambda_fm_video=0.0, ema_decay=0.95,
)  # fmt: skip


def error_of_others(method) -> float:
    """Distance of objects that nobody drags from their places in the last frame, px."""
    from gen.data import Movers
    from gen.evaluation.animators import evaluate_animator

    clips = Movers(**MOVERS | dict(test_scenes=60)).clips("test")
    found = evaluate_animator(method, clips, ["motion"], samples=1)
    return next(row["value"] for row in found if row["metric"] == "user/fde_px")


QUALITY = {
    "ClickToMove": (
        dict(
            model=GRAPH_ALONE,
            data=MOVERS | dict(train_clips=4000, batch_size=8),
            trainer=dict(max_steps=200),
        ),
        error_of_others,
        "gen.losses.motion.translation",
    )
}
BROKEN = {"ClickToMove": "gen.losses.motion.flow_l1"}
STEPS = {
    "ClickToMove": ("ClickToMove", VIDEO, lambda: clips(2)),
    "spade": ("ClickToMove", SPADE, lambda: clips(2)),
    "layered": ("ClickToMove", VIDEO | dict(generator="layered"), lambda: clips(2)),
}
UNORDERED = dict.fromkeys(STEPS, True)
INFERENCE = {"motion of objects": predicted}
ON_MPS = {"drag": dragged}
DOORS = dict.fromkeys(("videos", "tracks", "masks", "flow"), "click_to_move_doors")
TABS = {"Click to move": ("#stage .scene", 900)}
KNOWS = {"click_to_move_movers": "at 64 x 128 px on `gen.data.Movers`, drawn on the fly"}
HANDLERS = {"predict": ("arrows",), "render": ("video",)}
WRONG = {
    "no drags": {"drags": 3},
    "no object": {"drags": [{"id": 99999, "path": [[0, 0], [5, 5]]}]},
    "far": {"drags": [{"id": 13001, "path": [[0, 0], [1e300, 0]]}], "pins": ["x"]},
    "no id": {"drags": [{"path": [[0, 0]]}]},
    "no pin": {"pins": [99999]},
    "none to remove": {"remove": [99999]},
    "removed twice": {"remove": [13001], "pins": [13001]},
    "confidence": {"drags": [{"id": 13001, "path": [[0, 0], [1, 1]], "confidence": "x"}]},
    "camera": {"camera": [1e9, 0, 0]},
}
PAGES = {"ClickToMove": "More pictures: gen move"}
SCRIPTS = {"click_to_move.py": "--scene 1"}
KINDS = {"click_to_move.py": ["StarGAN"]}
WRITES = {
    "click_to_move": [
        "--frame frames.png --masks photos/cat/a.png --drag 1:1,1 --out .",
        "--scene 1 --request request.json --out .",
    ],
    "video": ["photos/cat/a.png --masks photos --out photos/clips"],
}

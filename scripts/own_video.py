"""Run by `scripts/own_video.sh` once the package is installed; see there."""

import argparse
import json
import sys
from pathlib import Path

import cv2
import torch

import gen
from gen import viz
from gen.commands import call, plain_errors
from gen.data import Cityscapes
from gen.data.clips.decoding import Video
from gen.evaluation.animators import evaluate_animator
from gen.evaluation.results import to_json
from gen.files import keep_inputs, write_atomic
from gen.inference import scenes
from gen.networks.click_to_move.animator import Motion, Scene
from gen.ops.motion import identity

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/click_to_move/own_video.yaml"
SHIPPED = "click_to_move_movers"
STEPS = 600
SHOWN = 6  # clips of the sheet
SIDES = {  # first part of a row's name: words
    "still": "nothing moves",
    "velocity": "constant velocity (sees a second frame)",
    "before": "the model before",
    "user": "trained on your video",
}


def run(*command: str | Path) -> None:
    print("$", *command, flush=True)
    if code := call(*command):
        sys.exit(code)


def fine_tune(start: str, out: Path, size: tuple[int, int], steps: int) -> Path:
    """Trains from the model `start`, or goes on; path of the checkpoint."""
    last = out / "run" / "last.ckpt"
    if last.exists() and gen.checkpoint.read(last).iteration >= steps:
        print(f"{last} has its {steps} iterations already; --steps N trains on")
        return last
    sizes = [f"--{side}.{name}={n}" for side in ("model", "data")
             for name, n in zip(("height", "width"), size, strict=True)]  # fmt: skip
    run(
        *(sys.executable, "-m", "gen", "fit", "-c", CONFIG, *sizes),
        *(f"--data.root={out / 'clips'}", f"--trainer.max_steps={steps}"),
        *(f"--model.init_from={start}", f"--out={last.parent}", "--save_every=100"),
        *([f"--ckpt_path={last}"] if last.exists() else []),
    )
    return last


def evaluate(start: str, out: Path, data: Cityscapes, checkpoint: Path) -> dict[str, float]:
    """Values of both models on the part of the video that was held out; writes metrics.jsonl."""
    clips, values = data.clips("val"), {}
    before = evaluate_animator(gen.load(start), clips, ["motion", "frames"], samples=1)
    after = evaluate_animator(
        gen.load(checkpoint), clips, ["motion", "frames"], samples=1, checkpoint=checkpoint
    )
    write_atomic(out / "metrics.jsonl", to_json(after).encode())
    for rows, own in ((before, "before"), (after, "user")):
        values |= {row["metric"].replace("user/", f"{own}/"): row["value"] for row in rows}
    return values


def table(values: dict[str, float]) -> str:
    """A line for each way to guess what the others do."""
    columns = "fde_px", "ade_px"
    if "still/fde_px" not in values:
        return "the part that was held out shows nobody beside the dragged object: nobody can react"
    lines = [f"{'px from the true place, others':42}  last frame  mean over frames"]
    for side, words in SIDES.items():
        last, mean = (values[f"{side}/{name}"] for name in columns)
        lines.append(f"{words:42}  {last:10.2f}  {mean:16.2f}")
    return "\n".join(lines)


def sheet(out: Path, data: Cityscapes, checkpoint: Path) -> Path:
    """Clips that were held out, true and made: one object is dragged along its true path."""
    method, clips = gen.load(checkpoint), data.clips("val")
    rows, names, films = [], [], []
    for i in range(0, len(clips), max(1, len(clips) // SHOWN)):
        clip = {name: torch.as_tensor(value)[None] for name, value in clips[i].items()}
        scene, still = Scene.of(clip), identity(clip["theta"])
        way = (clip["theta"] - still)[:, -1, :, :, 2].norm(dim=2).where(scene.present, -1)
        user = torch.zeros_like(scene.present).scatter_(1, way.argmax(1, keepdim=True), True)
        camera = still.expand(1, data.options[2] - 1, 2, 3)
        known = torch.tensor(["camera" in method.takes])
        motion = Motion(user & scene.present, clip["theta"], known, camera)
        made = method.animate(scene, motion, *method.latents((1, user.shape[1]), 0)).video[0]
        true = clip["video"][0]
        for name, video in (("true", true), ("made", torch.cat([true[:1], made]))):
            rows.append([viz.to_uint8(frame) for frame in video])
            names.append(f"{name}, clip {i}")
        films.append((true, torch.cat([true[:1], made])))
    headers = [f"frame {t}" for t in range(len(rows[0]))]
    viz.save_image(viz.grid(rows, captions=names, headers=headers), out / "sheet.png")
    pairs = [torch.cat(film, 3) for film in films]
    frames = [torch.cat([pair[t] for pair in pairs], 1) for t in range(len(pairs[0]))]
    viz.save_gif([viz.enlarge(f, 2 * f.shape[2]) for f in frames], out / "sheet.gif", 6)
    return out / "sheet.png"


@plain_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description="Your video to a model that moves what is in it.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--masks", type=Path, help="PNGs of trainId * 1000 + number, one a frame")
    parser.add_argument("--class", dest="kind", help="of what moves, if there are no masks; person")
    parser.add_argument("--held-out", default="end", help="part for the evaluation; end")
    parser.add_argument("--checkpoint", default=SHIPPED, help=f"to start from; {SHIPPED}")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"iterations; {STEPS}")
    parser.add_argument("--out", type=Path, help="default: runs/ and the name of the video")
    args = parser.parse_args()
    if args.steps < 1:
        raise ValueError(f"--steps: expected at least 1, got {args.steps}")
    out = args.out or Path("runs", args.video.stem)
    keep_inputs([args.video, args.masks], [out])
    high, wide = Video(args.video).size
    size = scenes.size_near(gen.load(args.checkpoint), wide, high)
    words = ["--held-out", args.held_out, "--height", size[0], "--width", size[1]]
    words += ["--masks", args.masks] if args.masks else []
    words += ["--class", args.kind] if args.kind else []
    prepare = ROOT / "data_prep/video.py"
    run(sys.executable, prepare, args.video, "--out", out / "clips", *map(str, words))
    run(sys.executable, ROOT / "data_prep/verify.py", out / "clips")
    data = Cityscapes(str(out / "clips"), *size, num_workers=0)
    last = fine_tune(args.checkpoint, out, size, args.steps)
    values = evaluate(args.checkpoint, out, data, last)
    (out / "values.json").write_text(json.dumps(values, indent=1), "utf-8")
    print(table(values))
    print(sheet(out, data, last))


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()

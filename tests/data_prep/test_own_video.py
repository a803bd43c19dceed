"""scripts/own_video.py on a small video: from the file to a trained model, numbers and pictures."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from gen.methods.click_to_move import ClickToMove
from runs import ship

SCRIPT = ROOT / "scripts/own_video.py"
H, W = 128, 256
BOXES = [(30, 40, 20, 24, 6), (140, 46, 20, 24, -6), (60, 90, 26, 22, 5)]  # x, y, w, h, px a frame
OPTIONS = dict(
    height=64, width=128, channels=16, levels=5, max_channels=128, norm="group", d_channels=16,
    generator="layered", d_levels=3, graph_dim=128, feature_dim=32, z_dim=64, object_z_dim=16,
    past=0.5, unsure=0.2,
)  # fmt: skip


def texture(rng, height, width, low, high):
    noise = rng.uniform(low, high, (height // 4 + 1, width // 4 + 1, 3)).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def street(tmp_path):
    """A video of 40 frames in which rectangles go to and fro, and a model to begin with."""
    rng, frames = np.random.default_rng(3), []
    background = texture(rng, H, W, 60, 120)
    looks = [texture(rng, h, w, 170, 255) for _, _, w, h, _ in BOXES]
    for t in range(40):
        frame = background.copy()
        for (x, y, w, h, v), look in zip(BOXES, looks, strict=True):
            left = x + v * (t if t < 14 else 28 - t if t < 28 else t - 28)
            frame[y : y + h, left : left + w] = look
        frames.append(frame.clip(0, 255).astype(np.uint8))
    start = ship(ClickToMove(**OPTIONS), tmp_path / "start.safetensors")
    path = tmp_path / "street.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (W, H))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path, start


def run(street, out, *words):
    video, start = street
    command = [sys.executable, SCRIPT, video, "--checkpoint", start, "--out", out, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=out.parent)


@pytest.mark.slow
def test_from_a_video_to_a_model_and_on(street, tmp_path):
    out = tmp_path / "mine"
    done = run(street, out, "--steps", 2, "--held-out", "middle")
    assert done.returncode == 0, done.stderr[-2000:]
    values = json.loads((out / "values.json").read_text())
    assert values["before/psnr"] > 5 and values["user/psnr"] > 5
    if "still/fde_px" in values:  # somebody beside the dragged object was tracked
        words = "nothing moves", "constant velocity", "the model before", "trained on your video"
        assert all(word in done.stdout for word in words)
    else:
        assert "nobody can react" in done.stdout
    picture = Image.open(out / "sheet.png")
    assert picture.width > 6 * 128 and Image.open(out / "sheet.gif").n_frames >= 6
    manifest = json.loads((out / "clips/manifest.json").read_text())
    assert manifest["recipe"]["held_out"] == "middle"
    first = (out / "run/last.ckpt").stat().st_mtime_ns
    again = run(street, out, "--steps", 2, "--held-out", "middle")
    assert again.returncode == 0 and "has its 2 iterations already" in again.stdout
    assert (out / "run/last.ckpt").stat().st_mtime_ns == first
    more = run(street, out, "--steps", 3, "--held-out", "middle")
    assert more.returncode == 0 and (out / "run/last.ckpt").stat().st_mtime_ns != first


def test_mistakes_are_told_in_one_line(street, tmp_path):
    done = run(street, tmp_path / "mine", "--steps", 0)
    assert done.returncode == 1 and "--steps: expected at least 1, got 0" in done.stderr
    done = run((tmp_path / "none.mp4", street[1]), tmp_path / "mine")
    assert done.returncode == 1 and "none.mp4" in done.stderr and "Traceback" not in done.stderr

"""Clips in the layout of KITTI-360, written here as it says, path by path."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from gen.data import KITTI360

ROOT = Path(__file__).resolve().parents[2]
from verify import main as verify  # noqa: E402

DRIVE = "2013_05_28_drive_0000_sync"
H, W, T = 16, 32, 3
CARS = {13001: (4, 6), 13002: (20, 2)}  # x, y in frame 0; 6 x 4 px, 1 px to the right a frame
SIZE = {"height": H, "width": W, "frames": T, "max_objects": 4, "num_workers": 0}
FIRST = (0, 3)  # windows that do not overlap


def frame_path(root: Path, kind: str, frame: int) -> Path:
    folder, inner = {
        "frame": ("train32_16", "image_00/data_rect"),
        "semantic": ("train_semantic_segmask32x16", "image_02/data"),
        "instance": ("train_instance32x16", "image_02/data"),
    }[kind]
    return root / folder / DRIVE / inner / f"{frame:010d}.png"


def flow_path(root: Path, first: int, t: int) -> Path:
    name = f"{first:010d}_{first + t:010d}_flow_backward.flow"
    return root / "train_bw_optical_flow_16x32" / DRIVE / name


def occlusion_path(root: Path, first: int, t: int) -> Path:
    name = f"{first:010d}_{first + t:010d}_occlusion_bw.png"
    return root / "train_bw_occlusion_16x32" / DRIVE / name


def track_path(root: Path, first: int, number: int) -> Path:
    return root / "train_instance_tracking_test" / DRIVE / f"{DRIVE}_{first:010d}_{number}.txt"


def save(path: Path, data: np.ndarray | bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, np.ndarray):
        Image.fromarray(data).save(path)
    else:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


def names(t: int) -> np.ndarray:
    """Instances of a frame: their numbers change, but for those of a window's first frame."""
    out = np.zeros((H, W), np.uint16)
    for number, (x, y) in CARS.items():
        out[y : y + 4, x + t : x + t + 6] = number + 10 * t
    return out


@pytest.fixture
def root(tmp_path) -> Path:
    for first in FIRST:
        for t in range(T):
            instance = names(t)
            semantic = np.where(instance > 0, 13, 0).astype(np.uint8)
            semantic[:2] = 255
            save(frame_path(tmp_path, "instance", first + t), instance)
            save(frame_path(tmp_path, "semantic", first + t), semantic)
            picture = np.full((H, W, 3), 10 * (first + t), np.uint8)
            save(frame_path(tmp_path, "frame", first + t), picture)
            if t:
                flow = np.where(instance > 0, -t, 0)[..., None] * np.array([1.0, 0])
                header = b"PIEH" + np.array([W, H], "<i4").tobytes()
                save(flow_path(tmp_path, first, t), header + flow.astype("<f4").tobytes())
                seen = np.full((H, W), 255, np.uint8)
                seen[:, :first] = 0
                save(occlusion_path(tmp_path, first, t), seen)
        for number, (x, y) in CARS.items():
            scale = np.array([1408 / W, 376 / H] * 2)
            rows = [np.array([x + t, y, 6, 4]) * scale for t in range(T)]
            lines = [",".join(map(str, [*r, number + 10 * t])) for t, r in enumerate(rows)]
            save(track_path(tmp_path, first, number), "\n".join(lines))
    return tmp_path


def load(root: Path, index: int = 0, **options) -> dict:
    return KITTI360(str(root), **(SIZE | options)).clips("train")[index]


def test_windows_of_a_drive_are_read(root):
    clips = KITTI360(str(root), **SIZE).clips("train")
    assert len(clips) == 2
    for index, first in enumerate(FIRST):
        clip = clips[index]
        levels = ((clip["video"][:, 0, 0, 0] + 1) * 127.5).round().tolist()
        assert levels == [10 * (first + t) for t in range(T)]
        assert clip["ids"].tolist() == [13001, 13002, 0, 0]
        assert clip["classes"].tolist() == [13, 13, 0, 0]
        assert clip["present"].tolist() == [True, True, False, False]
        assert (clip["semantic"][:, :2] == 255).all()
        for t in range(T):  # the track says which number is meant
            expected = names(t).astype(int)
            expected = np.where(expected > 0, (expected - 10 * t) % 1000, 0)
            assert np.array_equal(clip["instance"][t], expected)
        assert (clip["visible"][:, 0, :, :first] == 0).all()
        assert (clip["visible"][:, 0, :, first:] == 1).all()
        assert (clip["flow"][1, 0][clip["instance"][2] > 0] == -2).all()
        assert not clip["flow"][:, 1].any()


def test_a_spawned_worker_gets_the_clips(root):
    clips = KITTI360(str(root), **SIZE).clips("train")
    how = dict(num_workers=1, multiprocessing_context="spawn")
    sent = list(DataLoader(clips, batch_size=None, **how))
    assert len(sent) == len(clips) and sent[0]["video"].equal(clips[0]["video"])


def test_boxes_are_those_of_a_tracker(root):
    """Of 1408 x 376 px, whole: x .. x + w is the box, not x .. x + w + 1."""
    clip = load(root)
    for k, (x, y) in enumerate(CARS.values()):
        for t in range(T):
            centre = [2 * (x + t + 2.5) / (W - 1) - 1, 2 * (y + 1.5) / (H - 1) - 1]
            expected = torch.tensor([*centre, 6 / W, 4 / H])
            assert torch.allclose(clip["boxes"][t, k], expected, atol=1e-6)
        shift = clip["theta"][:, k] - torch.eye(2, 3)
        expected = -2 / (W - 1) * torch.arange(1, T)
        assert torch.allclose(shift[:, 0, 2], expected, atol=1e-6)
        assert shift[..., :2].abs().max() < 1e-5 and shift[:, 1].abs().max() < 1e-6


def test_batches_and_splits(root):
    data = KITTI360(str(root), batch_size=2, **SIZE)
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == (2, T, 3, H, W) and batch["theta"].shape == (2, T - 1, 4, 2, 3)
    with pytest.raises(ValueError, match=r"val_instance_tracking_test: expected tracks <drive>/"):
        data.clips("test")


def test_what_is_wrong_is_named(root, tmp_path):
    def complains(path: Path, expected: str, data: np.ndarray | bytes | None = None) -> None:
        good = path.read_bytes()
        path.unlink()
        if data is not None:
            save(path, data)
        with pytest.raises(ValueError, match=expected) as error:
            load(root, 1)
        assert str(path) in str(error.value)
        path.write_bytes(good)

    complains(frame_path(root, "frame", 4), "cannot be read")
    complains(frame_path(root, "semantic", 5), "expected this file, got none")
    small = np.zeros((8, 8), np.uint8)
    complains(frame_path(root, "instance", 3), r"expected width and height \(32, 16\)", small)
    foreign = np.full((H, W), 26, np.uint8)
    complains(frame_path(root, "semantic", 3), "expected trainIds 0 .. 18 or 255, got 26", foreign)
    complains(flow_path(root, 3, 2), "expected this file, got none")
    complains(flow_path(root, 3, 1), "expected the first bytes b'PIEH', got b'NOPE'", b"NOPE")
    complains(occlusion_path(root, 3, 1), "expected a PNG, got a damaged one", b"\x89PNG")
    complains(track_path(root, 3, 13001), "expected 3 lines or more, got 1", b"1,2,3,4,13001")
    load(root, 1)
    save(track_path(root, 3, 13001).with_name("notes.txt"), "")
    with pytest.raises(ValueError, match=r"notes.txt: expected a name <drive>_<start>_<id>.txt"):
        load(root)


def test_verify_lists_all_clips_that_are_damaged(root, capsys):
    command = [str(root), "--frames", str(T)]
    assert verify(command) == 0
    out = capsys.readouterr().out
    assert "train 32x16" in out and f"{root}: 2 of 2 clips are usable" in out
    for path in (flow_path(root, 0, 1), frame_path(root, "frame", 4)):
        path.write_bytes(b"")
    assert verify(command) == 1
    out = capsys.readouterr().out
    assert out.count("unusable: ") == 2 and str(flow_path(root, 0, 1)) in out
    assert f"{root}: 0 of 2 clips are usable" in out
    (root / "train32_16").rename(root / "elsewhere")
    assert verify(command) == 1
    out = capsys.readouterr().out
    assert "expected train<width>_<height>/ with frames, got none" in out


def test_options_are_checked():
    with pytest.raises(ValueError, match="expected frames >= 2, got 1"):
        KITTI360("x", frames=1)

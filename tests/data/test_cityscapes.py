"""Clips from files: exported Movers come back as they were, and what is wrong is named."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gen.data import Cityscapes, Movers
from gen.data.clips.cityscapes import box_motion

ROOT = Path(__file__).resolve().parents[2]
from cityscapes_layout import export, main  # noqa: E402
from verify import main as verify  # noqa: E402

SIZE = {"height": 32, "width": 64, "max_objects": 8, "num_workers": 0}


def seen_throughout(clip: dict) -> torch.Tensor:
    return (clip["boxes"][..., 2] > 0).all(0)


@pytest.fixture
def clips() -> list[dict]:
    drawn = Movers(train_clips=12, **SIZE).clips("train")
    clips = [drawn[i] for i in range(12)]
    return [c for c in clips if torch.equal(seen_throughout(c), c["present"])][:3]


@pytest.fixture
def root(clips, tmp_path) -> Path:
    export(clips, tmp_path, "train")
    return tmp_path


def load(root: Path, split: str = "train", **options) -> dict:
    return Cityscapes(str(root), **(SIZE | options)).clips(split)[0]


def test_exported_clips_come_back(clips, root):
    data = Cityscapes(str(root), batch_size=2, **SIZE)
    back = data.clips("train")
    assert len(back) == len(clips) == 3
    for clip, read in zip(clips, (back[i] for i in range(3)), strict=True):
        assert (clip["video"] - read["video"]).abs().max() <= 1 / 255 + 1e-6
        for name in ("semantic", "instance", "flow", "visible", "classes", "ids", "present"):
            assert torch.equal(clip[name], read[name]), name
            assert clip[name].dtype == read[name].dtype
        assert torch.allclose(clip["boxes"], read["boxes"], atol=1e-5)
        expected = box_motion(clip["boxes"].double().numpy())
        assert np.allclose(read["theta"], expected, atol=1e-4)
    assert next(iter(data.train_dataloader()))["theta"].shape == (2, 5, 8, 2, 3)


def test_theta_maps_the_box_of_frame_t_on_that_of_frame_0(root):
    clip = load(root)
    for k in clip["present"].nonzero()[:, 0]:
        centre = torch.cat([clip["boxes"][1:, k, :2], torch.ones(5, 1)], 1)  # (5, 3)
        first = torch.einsum("tij,tj->ti", clip["theta"][:, k], centre)
        assert torch.allclose(first, clip["boxes"][0, k, :2].expand(5, 2), atol=1e-5)
        scale = clip["theta"][:, k].diagonal(dim1=1, dim2=2)
        assert torch.allclose(scale * clip["boxes"][1:, k, 2:], clip["boxes"][:1, k, 2:], atol=1e-5)


def test_ids_may_change_from_frame_to_frame(clips, root):
    """The track says which instance of frame t is meant."""
    track = sorted((root / "train_instance_tracking_test/movers").glob("movers_000000_*.txt"))[0]
    number = int(track.stem.split("_")[-1])
    picture = root / "train_instance64x32/movers/movers_000000_000003_gtFine_instanceIds.png"
    values = np.asarray(Image.open(picture)).copy()
    values[values == number] = number + 500
    Image.fromarray(values).save(picture)
    lines = track.read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + f",{number + 500}"
    track.write_text("\n".join(lines))
    assert torch.equal(load(root)["instance"], clips[0]["instance"])


def test_who_is_not_seen_for_a_while_goes_on_as_before(root):
    whole = load(root)
    track = sorted((root / "train_instance_tracking_test/movers").glob("movers_000000_*.txt"))[0]
    lines = track.read_text().splitlines()
    lines[3] = "0,0,0,0," + lines[3].rsplit(",", 1)[1]
    track.write_text("\n".join(lines))
    clip, k = load(root), 0
    assert not clip["boxes"][3, k].any() and whole["boxes"][3, k].any()
    assert torch.equal(clip["theta"][2, k], whole["theta"][1, k])
    assert torch.equal(clip["theta"][3:], whole["theta"][3:])


def test_the_largest_tracks_are_kept(clips, root):
    clip, full = load(root, max_objects=1), clips[0]
    largest = (full["boxes"][0, :, 2] * full["boxes"][0, :, 3]).argmax()
    assert clip["ids"].tolist() == [int(full["ids"][largest])]
    assert torch.equal(clip["instance"] > 0, full["instance"] == largest + 1)


def test_things_without_a_track_belong_to_no_object(clips, root):
    tracks = sorted((root / "train_instance_tracking_test/movers").glob("movers_000000_*.txt"))
    tracks[0].unlink()
    clip = load(root)
    assert int(clip["present"].sum()) == int(clips[0]["present"].sum()) - 1
    assert torch.equal(clip["semantic"], clips[0]["semantic"])
    assert (clip["instance"] > 0).sum() < (clips[0]["instance"] > 0).sum()


def test_what_is_wrong_is_named(root, tmp_path):
    stem = "movers/movers_000000_000002_"
    flow = root / f"train_bw_optical_flow_32x64/{stem}leftImg8bit_flow_backward.flow"
    mask = root / f"train_semantic_segmask64x32/{stem}ssmask.png"
    frame = root / f"train64_32/{stem}leftImg8bit.png"
    track = sorted((root / "train_instance_tracking_test/movers").glob("movers_000000_*.txt"))[0]

    def complains(path: Path, data: bytes | None, expected: str) -> None:
        good = path.read_bytes()
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ValueError, match=expected) as error:
            load(root)
        assert str(path) in str(error.value)
        path.write_bytes(good)

    def png(array: np.ndarray) -> bytes:
        Image.fromarray(array).save(tmp_path / "x.png")
        return (tmp_path / "x.png").read_bytes()

    whole = flow.read_bytes()
    complains(flow, b"NOPE" + whole[4:], "expected the first bytes b'PIEH', got b'NOPE'")
    complains(flow, whole[:-8], "expected 16396 bytes, got 16388")
    complains(flow, whole[:4] + whole[8:12] + whole[4:8], r"expected width and height \(64, 32\)")
    complains(flow, whole[:12] + b"\xff" * 16384, "expected finite flow")
    complains(flow, b"", "expected the first bytes")
    complains(flow, None, "expected this file, got none")
    complains(mask, None, "expected this file, got none")
    complains(mask, png(np.zeros((16, 64), "u1")), r"expected width and height .*got \(64, 16\)")
    complains(mask, png(np.full((32, 64), 26, "u1")), "expected trainIds 0 .. 18 or 255, got 26")
    complains(mask, png(np.zeros((32, 64, 3), "u1")), "expected one channel, got 3")
    complains(mask, b"", "expected a PNG, got a damaged one")
    good = png(np.zeros((32, 64), "u1"))
    for chunk in (b"pHYs\0", b"zTXtx\0\0" + zlib.compress(bytes(2**24)), b"acTL\0"):
        made = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        complains(mask, good[:33] + made + good[33:], "expected a PNG, got a damaged one")
    complains(frame, None, "cannot be read")
    complains(frame, png(np.zeros((32, 32, 3), "u1")), "expected width and height")
    complains(track, b"", "expected 6 lines or more, got 0")
    complains(track, b"1,2,3\n" * 6, "expected lines x,y,w,h,id")
    complains(track, b"a,2,3,4,5\n" * 6, "of numbers")
    complains(track, b"nan,2,3,4,5\n" * 6, "expected lines x,y,w,h,id with")
    complains(track, bytes(range(128, 256)) * 9, "expected lines x,y,w,h,id, got no text")
    complains(track, b"\0\1,\n" * 9, "of numbers")
    for box in (b"1e308,2,3,4,5", b"1,-1e9,3,4,5", b"1,2,3,1e18,5", b"1,2,1e-320,4,5"):
        complains(track, (box + b"\n") * 6, "expected boxes within 4 sides")
    complains(track, b"x" * 5000 + b",2,3,4,5\n" * 6, r"of numbers \(.{,200}\)$")
    complains(track, b" " * 5000 + b"1,2,3,-4,5\n" * 6, r"with w, h >= 0, got .{,100}$")
    other = track.rename(track.with_name("movers_000000_000000_26001.txt"))
    with pytest.raises(ValueError, match=r"_26001.txt: expected an id .* got 26001; a label id"):
        load(root)
    other.rename(track)
    load(root)


def test_parts_that_contradict_each_other_are_refused(root, capsys):
    """By training, and all of them by verify."""
    stem = "movers/movers_000000_00000{}_"
    found = root / "train_instance_tracking_test/movers"
    track = sorted(found.glob("movers_000000_*.txt"))[0]
    lines, number = track.read_text().splitlines(), int(track.stem.split("_")[-1])

    def edit(path: Path, values) -> None:
        Image.fromarray(values).save(path)

    def refused(*told: str) -> None:
        with pytest.raises(ValueError) as error:
            load(root)
        assert verify([str(root)]) == 1
        said = capsys.readouterr().out
        assert all(text in str(error.value) and text in said for text in told), (told, said)

    def track_of(way) -> None:
        track.write_text("\n".join(way(*map(float, line.split(","))) for line in lines))

    wrong = f"{track}: expected px of its instance in its boxes, got none in 6 frames"
    track_of(lambda x, y, w, h, k: f"{x},{y},{w},{h},{k + 500}")  # of no instance
    refused(wrong)
    track_of(lambda x, y, w, h, k: f"{(x + 1024) % 2048},{(y + 512) % 1024},{w},{h},{k}")
    refused(wrong)
    track_of(lambda x, y, w, h, k: f"{x}, {y} ,{w},\t{h}, {k:.0f} \n")  # blanks do no harm
    assert number in load(root)["ids"]
    masks = [root / f"train_semantic_segmask64x32/{stem.format(t)}ssmask.png" for t in range(6)]
    good = [np.asarray(Image.open(path)) for path in masks]
    for path, values in zip(masks, good, strict=True):
        edit(path, np.where(values == number // 1000, 0, values).astype("u1"))
    refused(f"{track}: expected px of its class where its instance is, got none")
    for path, values in zip(masks, good, strict=True):
        edit(path, values)
    path = root / f"train_bw_occlusion_32x64/{stem.format(2)}leftImg8bit_occlusion_bw.png"
    values = np.asarray(Image.open(path))
    edit(path, values // 255)
    refused(f"{path}: expected 255 where visible and 0 elsewhere, got at most 1; multiply by 255")
    edit(path, values)
    path = root / f"train_bw_optical_flow_32x64/{stem.format(3)}leftImg8bit_flow_backward.flow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + np.float32(1e9).tobytes())
    refused(f"{path}: expected flow of at most 4 sides of the frame, got 1e+09 px")
    path.write_bytes(whole)
    assert verify([str(root)]) == 0


def test_copies_that_macos_leaves_are_no_tracks(root, capsys):
    found = root / "train_instance_tracking_test"
    for path in list(found.glob("*/*.txt")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    (root / f"._{found.name}").write_bytes(b"\0\5\x16\7")
    assert len(Cityscapes(str(root), **SIZE).clips("train")) == 3
    assert verify([str(root)]) == 0 and "3 of 3 clips" in capsys.readouterr().out


def test_no_tracks_and_odd_names(root):
    with pytest.raises(ValueError, match="val_instance_tracking_test: expected tracks"):
        load(root, "val")
    (root / "train_instance_tracking_test/movers/notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes.txt: expected a name <city>_<seq>_<frame>_<id>"):
        load(root)
    with pytest.raises(ValueError, match="expected frames >= 2, got 1"):
        Cityscapes("x", frames=1)


def test_the_recipe(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--height", "32", "--clips", "2"]) == 0
    assert "2 clips to train on, 1 for validation" in capsys.readouterr().out
    data = Cityscapes(str(tmp_path), **SIZE)
    assert len(data.train) == 2 and len(data.test) == 1
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["classes"]["car"] == 13 and len(manifest["classes"]) == 7
    assert {"interaction", "impact", "branch"} <= set(manifest["train"][0])
    assert verify([str(tmp_path)]) == 0
    assert "3 of 3 clips are usable" in capsys.readouterr().out

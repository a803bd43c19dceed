"""Video files as frames: whatever the container says, however they are turned, whoever cut them."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from gen.data.clips import decoding
from gen.data.clips.decoding import Video, fitted, kept

H, W, COUNT = 64, 128, 12
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n"
RIGHT, HALF, LEFT = (  # the matrix of a track that is to be turned clockwise, on its head, back
    (0, 1, 0, -1, 0, 0, 0, 0), (-1, 0, 0, 0, -1, 0, 0, 0), (0, -1, 0, 1, 0, 0, 0, 0)
)  # fmt: skip


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """(F, H, W, 3) RGB: smooth colours, and a square that moves."""
    y, x = np.mgrid[:H, :W]
    frames = np.stack([np.stack([2 * x, 4 * y, 0 * x + 60], -1)] * COUNT)
    for t, frame in enumerate(frames):
        frame[20:40, 10 + 4 * t : 30 + 4 * t] = 250, 250, 30
    return frames.astype(np.uint8)


def write(path: Path, frames: np.ndarray, codec: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, frames.shape[2:0:-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def patch(path: Path, after: bytes, offset: int, new: bytes) -> None:
    """Overwrite bytes so many px behind the first place of others."""
    data = bytearray(path.read_bytes())
    at = data.index(after) + offset
    data[at : at + len(new)] = new
    path.write_bytes(data)


def turn(path: Path, matrix: tuple[int, ...]) -> Path:
    patch(path, b"tkhd", 44, struct.pack(">9i", *(v << 16 for v in matrix), 1 << 30))
    return path


def widen(path: Path, shape: tuple[int, int]) -> Path:
    """Pixels of another shape: a box at the end of the description of the video's samples."""
    box, data = struct.pack(">I4sII", 16, b"pasp", *shape), bytearray(path.read_bytes())
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):  # behind all samples
        at = data.rindex(name) - 4
        if name == b"stsd":
            end = at + 16 + struct.unpack(">I", data[at + 16 : at + 20])[0]
            data[at + 16 : at + 20] = struct.pack(">I", end - at - 16 + len(box))
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + len(box))
    data[end:end] = box
    path.write_bytes(data)
    return path


def far(path: Path, scene: np.ndarray) -> float:
    """Mean difference in grey levels from the scene."""
    read = Video(path).read(H, W)
    assert read.shape == scene.shape
    return float(np.abs(read.astype(int) - scene).mean())


# ---- frames that decode are what counts ---------------------------------------------------------


def test_a_trim_by_an_edit_list_is_whole(scene, tmp_path):
    path = write(tmp_path / "trimmed.mp4", scene)
    patch(path, b"elst", 12, struct.pack(">I", 500))  # ms of 1200
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == COUNT
    assert 4 <= len(Video(path).read(H, W)) <= 6


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "MJPG"), ("a.webm", "VP80")])
def test_a_duration_by_which_frames_are_estimated_is_no_promise(scene, tmp_path, name, codec):
    """As of variable frame rate."""
    path = write(tmp_path / name, scene, codec)
    patch(path, b"\x44\x89\x88", 3, struct.pack(">d", 9000.0))
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) > 2 * COUNT
    assert far(path, scene) < 6


def test_an_old_index_is_no_promise(scene, tmp_path):
    path = write(tmp_path / "a.avi", scene, "MJPG")
    for name, offset in ((b"avih", 24), (b"strh", 40)):
        patch(path, name, offset, struct.pack("<I", 5 * COUNT))
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 5 * COUNT
    assert far(path, scene) < 6
    whole = write(path, scene, "MJPG").read_bytes()
    path.write_bytes(whole[: whole.index(b"idx1")])  # it is missing, and no frame is
    assert far(path, scene) < 6


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "MJPG"), ("a.mkv", "MJPG"), ("a.webm", "VP80"), ("a.mp4", "mp4v")]
)
def test_a_file_that_ends_early_is_refused(scene, tmp_path, name, codec):
    path = write(tmp_path / name, scene, codec)
    data = path.read_bytes()
    if name == "a.mp4":  # with its table in front, as for the web; else it does not open at all
        table, start = data[(at := data.rindex(b"moov") - 4) :], data.index(b"mdat") - 4
        moved = bytearray(table)
        chunks = moved.index(b"stco")
        count = struct.unpack(">I", moved[chunks + 8 : chunks + 12])[0]
        for k in range(chunks + 12, chunks + 12 + 4 * count, 4):
            place = struct.unpack(">I", moved[k : k + 4])[0] + len(table)
            moved[k : k + 4] = struct.pack(">I", place)
        data = data[:start] + moved + data[start:at]
        path.write_bytes(data)
        assert far(path, scene) < 6
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(ValueError, match=rf"{name}: expected .*truncated.*fetch it again"):
        Video(path).read(H, W)


def test_a_download_that_was_broken_off_is_refused(scene, tmp_path):
    """Its size is right, its end is not there."""
    path = write(tmp_path / "a.avi", scene, "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(ValueError, match="expected 12 frames .*an empty end: .*fetch it again"):
        Video(path).read(H, W)


def test_a_codec_that_does_not_decode_is_named(scene, tmp_path):
    path = write(tmp_path / "my street.avi", scene, "MJPG")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"VP90"))
    told = r"my street.avi: .*decodes no VP90 here.*ffmpeg -i '.*my street.avi' .*_h264.mp4"
    with pytest.raises(ValueError, match=told):
        Video(path).read(H, W)


@pytest.mark.parametrize("wide", [False, True])
def test_frames_that_are_too_large_are_refused_before_one_decodes(
    scene, tmp_path, monkeypatch, wide
):
    path = write(tmp_path / "a.mp4", scene)
    if wide:
        widen(path, (3, 1))
    monkeypatch.setattr(decoding, "MAX_PIXELS", H * W * (3 if wide else 1))
    assert Video(path).read(H, W).shape == scene.shape
    monkeypatch.setattr(decoding, "MAX_PIXELS", H * W * (3 if wide else 1) - 1)
    told = rf"a.mp4: expected frames of at most .* px, got {W * (3 if wide else 1)} x {H}; .*ffmpeg"
    with pytest.raises(ValueError, match=f"{told} -i .* -vf scale="):
        Video(path)


@pytest.mark.parametrize("head", ["ffconcat version 1.0\nfile b.mkv", HLS])
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8"])
def test_a_list_of_other_files_opens_none_of_them(scene, tmp_path, head, name):
    other = write(tmp_path / "b.mkv", scene, "MJPG")
    (tmp_path / name).write_text(head.format(other))
    with pytest.raises(ValueError, match=f"{name}: expected a video, got a list of other files"):
        Video(tmp_path / name)


# ---- one scene, however it is stored ------------------------------------------------------------


@pytest.mark.parametrize(("matrix", "back"), [(RIGHT, 1), (HALF, 2), (LEFT, 3)])
@pytest.mark.parametrize("wide", [False, True])
def test_turned_frames_and_wide_pixels_come_out_alike(scene, tmp_path, matrix, back, wide):
    stored = np.rot90(scene, back, (1, 2))
    path = write(tmp_path / "a.mp4", stored[:, :, :: 2 if wide else 1])
    turn(path, matrix)
    if wide:
        widen(path, (2, 1))
    video = Video(path)
    assert video.size == (H, W) and far(path, scene) < 6


def test_wide_pixels(scene, tmp_path):
    path = write(tmp_path / "a.mp4", scene[:, :, ::2])
    assert Video(path).size == (H, W // 2)
    assert Video(widen(path, (2, 1))).size == (H, W) and far(path, scene) < 6
    path = widen(write(tmp_path / "b.mp4", scene), (1, 1000))  # a mistake
    assert Video(path).size == (H, W)


# ---- one way to fit a frame ---------------------------------------------------------------------


def test_the_middle_is_cut_to_the_proportions():
    image = np.zeros((60, 40, 3), np.uint8)
    image[20:40] = 200  # the middle 2:1
    assert kept((60, 40), 10, 20) == (20, 0, 20, 40)
    assert (fitted(image, 10, 20) == 200).all()
    assert (fitted(image, 40, 80) == 200).all()
    wide = np.repeat(np.arange(90, dtype=np.uint16)[None], 30, 0)
    assert fitted(wide, 30, 30, by=cv2.INTER_NEAREST)[0].tolist() == list(range(30, 60))


def test_frames_of_a_video_are_cut_and_not_squashed(scene, tmp_path):
    read = Video(write(tmp_path / "a.avi", scene, "MJPG")).read(H, W // 2)
    assert np.abs(read.astype(int) - scene[:, :, W // 4 : -W // 4]).mean() < 6


def test_stretched_all_of_it_stays():
    image = np.zeros((60, 40, 3), np.uint8)
    image[:20], image[40:] = 100, 200
    assert kept((60, 40), 10, 20, "stretch") == (0, 0, 60, 40)
    rows = fitted(image, 6, 20, "stretch")[:, 0, 0].tolist()
    assert rows == [100, 100, 0, 0, 200, 200]

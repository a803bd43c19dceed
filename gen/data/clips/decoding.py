"""Video files as frames: upright, with square pixels, cropped to a size; and their masks.

Only `fit` turns images of any size into frames of a model.
"""

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gen.data.clips.cityscapes import read_ids

MAX_BYTES = 4 * 2**30  # of decoded frames, which all stay in memory
MAX_PIXELS = 36_000_000  # of a displayed frame: 8K; decoders hold several of them
ANNOUNCED = 0.95  # least share of the frames of the header, if the end of the file is empty
LISTS = b"#EXTM3U", b"ffconcat"  # first bytes of playlists, whose files would be opened
TAIL = 1024  # last bytes, all 0 in an incomplete download
SHAPES = 0.1, 10  # width by height of a pixel; other values are a mistake in the file
NEAREST = cv2.INTER_NEAREST_EXACT  # for maps: a px takes the value at its middle
TURNS = cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE


class Part(NamedTuple):
    """The part of an image to keep, px of the image."""

    top: int
    left: int
    height: int
    width: int


def kept(size: tuple[int, int], height: int, width: int, fit: str = "crop") -> Part:
    """Part of an image (h, w) that becomes a frame (height, width).

    Args:
        fit: way to fit: `crop` keeps the largest part in the middle with the frame's proportions,
            `stretch` keeps the whole image.
    """
    h, w = size
    side = min(h / height, w / width)
    high, wide = max(1, round(height * side)), max(1, round(width * side))
    if fit == "stretch":
        high, wide = h, w
    return Part((h - high) // 2, (w - wide) // 2, high, wide)


def fitted(
    image: np.ndarray, height: int, width: int, fit: str = "crop", by: int = cv2.INTER_AREA
) -> np.ndarray:
    """Resizes the part of an image given by `kept`: by area, or maps by `NEAREST`."""
    top, left, high, wide = kept(image.shape[:2], height, width, fit)
    if by == cv2.INTER_AREA and min(high / height, wide / width) < 1:
        by = cv2.INTER_LINEAR
    part = image[top : top + high, left : left + wide]
    return cv2.resize(part, (width, height), interpolation=by)


class Video:
    """An open video file: its displayed size, and its frames."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: expected a video file, got none")
        with open(path, "rb") as file:
            if file.read(8).startswith(LISTS):
                raise ValueError(f"{path}: expected a video, got a list of other files; join them")
        self.path, self.stream = path, cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self.stream.isOpened():
            got = "a truncated one; fetch it again" if _missing(path) else "something else"
            raise ValueError(
                f"{path}: expected a video that OpenCV decodes (.avi, .mp4, .mkv, .webm), got {got}"
                f"; or {self._convert()}"
            )
        get = self.stream.get
        self.stream.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # some releases of OpenCV do not rotate
        self.turn = round(get(cv2.CAP_PROP_ORIENTATION_META) / 90) % 4
        sides = get(cv2.CAP_PROP_SAR_NUM), get(cv2.CAP_PROP_SAR_DEN)
        shape = sides[0] / sides[1] if min(sides) > 0 else 1.0
        self.shape = shape if SHAPES[0] <= shape <= SHAPES[1] else 1.0  # of a stored pixel
        size = [round(get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
        self.stored = tuple(size[:: -1 if self.turn % 2 else 1])  # (h, w), upright
        h, w = size[0], max(1, round(size[1] * self.shape))
        self.size = (w, h) if self.turn % 2 else (h, w)  # upright, of square pixels
        if max(w, size[1]) * h > MAX_PIXELS:
            raise ValueError(
                f"{path}: expected frames of at most {MAX_PIXELS} px, got {max(w, size[1])} x {h}; "
                f"{self._convert('-vf scale=1920:-2 ')}"
            )

    def read(self, height: int, width: int, every: int = 1) -> np.ndarray:
        """Every k-th frame, resized by `fitted`: (F, height, width, 3) uint8 RGB.

        Raises:
            ValueError: no frame decodes, the end is missing, or the frames take too much memory.
        """
        frames, most, seen = [], MAX_BYTES // (3 * height * width), 0
        while self.stream.grab():
            if seen % every == 0:
                ok, frame = self.stream.retrieve()
                if not ok:
                    break
                if len(frames) >= most:
                    raise ValueError(
                        f"{self.path}: expected at most {most} frames of {width}x{height}, got "
                        "more; cut the video, or take fewer with --every"
                    )
                if self.turn:
                    frame = cv2.rotate(frame, TURNS[self.turn - 1])
                image = fitted(self.square(frame), height, width)
                frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            seen += 1
        announced = max(1, int(self.stream.get(cv2.CAP_PROP_FRAME_COUNT)))
        code = int(self.stream.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin1")
        self.stream.release()
        missing = _missing(self.path)
        if missing and not (seen >= announced and self.path.suffix.lower() == ".avi"):  # its index
            raise ValueError(
                f"{self.path}: expected {missing} more bytes after {seen} frames, got a truncated "
                "video; fetch it again"
            )
        if not frames:
            raise ValueError(
                f"{self.path}: expected frames, got none: OpenCV {cv2.__version__} decodes no "
                f"{ {'AV01': 'AV1'}.get(code, code) } here, or the file is damaged; "
                f"{self._convert()}"
            )
        if seen < ANNOUNCED * announced and _ends_empty(self.path):
            raise ValueError(
                f"{self.path}: expected {announced} frames as its header says, got {seen} and an "
                "empty end: a truncated video; fetch it again"
            )
        return np.stack(frames)

    def square(self, image: np.ndarray, by: int = cv2.INTER_LINEAR) -> np.ndarray:
        """An upright frame, or a map of one, with square pixels."""
        if image.shape[:2] == self.size:
            return image
        return cv2.resize(image, self.size[::-1], interpolation=by)

    def _convert(self, smaller: str = "") -> str:
        names = self.path, self.path.with_name(f"{self.path.stem}_h264.mp4")
        old, new = (shlex.quote(str(name)) for name in names)
        return f"convert it: ffmpeg -i {old} {smaller}-c:v libx264 -crf 16 -pix_fmt yuv420p {new}"


def _missing(path: Path) -> int:
    """Number of bytes that a file lacks by its container: AVI, MP4, MOV, Matroska and WebM."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        end, sizes = 0, {b"RIFF": _riff, b"\x1a\x45\xdf\xa3": _matroska}.get(head[:4])
        if sizes is None and head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            sizes = _boxes
        while sizes and end + 8 <= size:
            file.seek(end)
            if (length := sizes(file.read(20))) is None:
                return 0
            end += length
    return max(0, end - size)


def _riff(head: bytes) -> int | None:
    """Size in bytes of a chunk of an AVI; None if it is unknown, or no chunk begins."""
    length = int.from_bytes(head[4:8], "little")
    return 8 + length if head[:4] == b"RIFF" and length else None


def _boxes(head: bytes) -> int | None:
    """Size in bytes of a box of an MP4; None as in `_riff`."""
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:16], "big")
    return length if length >= 8 and re.fullmatch(rb"[\w\- ]{4}", head[4:8]) else None


def _matroska(head: bytes) -> int | None:
    """Size in bytes of a Matroska element, header or segment; None as in `_riff`."""
    if head[:4] not in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        return None
    width = 9 - head[4].bit_length()  # bytes of the length; the first byte gives their number
    length = int.from_bytes(head[4 : 4 + width], "big") & (most := 2 ** (7 * width) - 1)
    return None if width > 8 or length == most else 4 + width + length


def _ends_empty(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TAIL))
        return not any(file.read())


def read_masks(
    folder: Path, video: Video, count: int, height: int, width: int, every: int = 1
) -> tuple[np.ndarray, int]:
    """Masks (F, height, width) uint16 of the decoded frames, see `read_ids`, and the number of
    their objects that were cropped away or became too small.

    The number of a thing holds for one frame; it may change in the next.

    Args:
        folder: folder with PNGs, one for each frame of the video in order of names, 9.png before
            10.png; as large as the upright frames.
        video: video that the masks belong to.
        count: number of frames that were read of the video, every k-th.
        height, width, every: arguments with which the frames were read.

    Raises:
        ValueError: another number or size of masks, or files that are no masks.
    """
    files = sorted(folder.glob("[!.]*.png"), key=_in_words_and_numbers)
    taken = files[::every]
    if len(taken) != count:
        raise ValueError(
            f"{folder}: expected a .png for each frame of {video.path.name}, {count} of them to "
            f"read with --every {every}, got {len(taken)} of {len(files)}"
        )
    maps, lost = np.zeros((count, height, width), np.uint16), 0
    for file, out in zip(taken, maps, strict=True):
        ids = read_ids(file, video.stored[::-1]).astype(np.uint16)
        out[:] = fitted(video.square(ids, NEAREST), height, width, by=NEAREST)
        lost += len(np.setdiff1d(ids[ids >= 1000], out))
    return maps, lost


def _in_words_and_numbers(path: Path) -> list:
    """Sort key that puts frame9.png before frame10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

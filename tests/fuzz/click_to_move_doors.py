"""Ways in for files of clips, see attack.py, and the makers of damaged ones."""

import io
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from cityscapes_layout import write_clip
from makers import ODD, chunked, damage

from gen.data.clips.cityscapes import CityscapesClips, Layout, read_flow, read_ids
from gen.data.clips.decoding import Video

SIZE = 32, 16  # of frames
BOXES = [  # of MP4, AVI and Matroska
    *(b"ftyp", b"moov", b"mvhd", b"tkhd", b"elst", b"mdhd", b"hdlr", b"stsd", b"avc1", b"avcC"),
    *(b"pasp", b"colr", b"stts", b"stss", b"stsc", b"stsz", b"stco", b"ctts", b"mdat", b"RIFF"),
    *(b"avih", b"strh", b"strf", b"movi", b"00dc", b"idx1", b"\x2a\xd7\xb1", b"\xe0", b"\xb0"),
    *(b"\xba", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75", b"\xa3", b"\x63\xa2", b"\x44\x89"),
]


def claimed(data: bytes, rng: random.Random) -> bytes:
    """A video with other numbers in or behind the head of a box or an element."""
    names, data = [name for name in BOXES if name in data], bytearray(data)
    if not names:
        return damage(bytes(data), rng)
    for _ in range(rng.choice((1, 1, 2, 5))):
        name, size = rng.choice(names), rng.choice((1, 2, 4))
        at = max(0, data.find(name))  # an earlier change may have hit it
        number = rng.choice((0, 1, 2, 255, 2**15, 2**16 - 1, 2**24, 2**31, 2**32 - 1))
        at += rng.choice((-4, len(name), len(name) + rng.randrange(60)))
        data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "big")
    return bytes(data)


def numbered(data: bytes, rng: random.Random) -> bytes:
    """Lines of numbers with some of them, or lines, changed."""
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        line = lines[at].split(",")
        odd = rng.choice((*map(str, ODD), "1_0", "\u0661", "-1e308", "1e18", " "))
        line[rng.randrange(len(line))] = odd
        new = ",".join(line)
        new = rng.choice(([new], [new], [new], [new] * 3, ["", new], [f"{new},1"], [new[:9]]))
        lines[at : at + 1] = new
    return "\n".join(lines).encode("utf-8", "replace")


def videos() -> list[bytes]:
    """Six frames of 48 x 32 px, with wide pixels, in the usual containers and codecs."""
    made = []
    for container, codec in (
        ("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mov", "mjpeg"),
        ("webm", "libvpx-vp9"),
    ):  # fmt: skip
        file = io.BytesIO()
        with av.open(file, "w", format=container) as video:
            stream = video.add_stream(codec, 10)
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
            for shade in (*range(0, 240, 40), None):  # None: what the encoder still holds
                image = None if shade is None else np.full((32, 48, 3), shade, np.uint8)
                frame = None if image is None else av.VideoFrame.from_ndarray(image)
                video.mux(stream.encode(frame))
        made.append(file.getvalue())
    return [*made, b"ffconcat version 1.0\nfile x.mp4\n"]


def write_clips(folder: Path) -> list[Path]:
    """A data set of one clip; its track, a mask and a flow."""
    instance = torch.zeros(2, SIZE[1], SIZE[0], dtype=torch.int64)
    instance[:, 4:10, 8:20] = 1
    clip = dict(
        video=torch.zeros(2, 3, *SIZE[::-1]), semantic=13 * instance, instance=instance,
        flow=torch.zeros(1, 2, *SIZE[::-1]), visible=torch.ones(1, 1, *SIZE[::-1]),
        ids=torch.tensor([13001]), present=torch.tensor([True]),
    )  # fmt: skip
    start, layout = ("x", "000000", 0), Layout(folder, "val", *SIZE[::-1])
    write_clip(clip, folder, "val", start)
    return [
        layout.track(start, 13001),
        *(layout.path(kind, start, 1) for kind in ("instance", "flow")),
    ]


def parts(name: str, folder: Path) -> tuple[str, list[bytes], list[Callable], Callable]:
    """Arguments of a `Door`."""
    if name == "videos":
        return ".mp4", videos(), [damage, claimed], lambda path: Video(path).read(32, 32)
    track, mask, flow = write_clips(folder)
    if name == "masks":
        return ".png", [mask.read_bytes()], [damage, chunked], lambda path: read_ids(path, SIZE)
    if name == "flow":
        return ".flow", [flow.read_bytes()], [damage], lambda path: read_flow(path, SIZE)

    def read_clip(path: Path) -> None:
        CityscapesClips(folder, "val", *SIZE[::-1], frames=2, max_objects=4)[0]

    return str(track.relative_to(folder)), [track.read_bytes()], [damage, numbered], read_clip

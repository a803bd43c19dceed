"""Pictures, folders and archives of them, for tests of data."""

import io
import zipfile

import numpy as np
from PIL import Image


def picture(index=0, size=(24, 24)):
    return Image.fromarray(
        np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), np.uint8)
    )


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def sprite(colour=(250, 200, 0), side=40) -> Image.Image:
    """A disc with soft edges on nothing; the colour that nobody sees there is magenta."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    opacity = ((side / 3 - np.hypot(x, y)) / 4 + 0.5).clip(0, 1)[..., None]  # (H, W, 1)
    rgb = np.where(opacity > 0, colour, (255, 0, 255))
    return Image.fromarray(np.concatenate([rgb, opacity * 255], 2).round().astype(np.uint8))


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encode(picture(), "JPEG", progressive=True, quality=95)
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 5 and data.endswith(b"\xff\xd9")
    return data[:-2] + data[starts[-1] : -2] * (count - len(starts)) + b"\xff\xd9"


def write(root, names, start=0):
    for index, name in enumerate(names, start):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(index)))
    return root


def zipped(root, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, prefix + file.relative_to(root).as_posix())
    return path

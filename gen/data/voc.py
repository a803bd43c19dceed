"""PASCAL VOC 2012, whose masks serve to evaluate attention maps."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import VOCSegmentation

from gen.data.images import load_image, resize, to_tensor


class VOC:
    """The 1,449 images of `val` and the classes of their pixels, both resized to a square.

    `[i]` is {"x": (3, S, S) in [-1, 1], "index": i}, `.mask(i)` int64 (S, S): 0 background, 1 .. 20
    classes, 255 void. Images are bilinear, masks nearest. The release of SAR uses 480 px.

    Args:
        root: folder that holds VOCdevkit/VOC2012, as the published archive unpacks.
        img_size: side S of the images, px.

    Raises:
        ValueError: no such folder in root.
    """

    has_masks = True

    def __init__(self, root: str | Path, img_size: int = 480) -> None:
        folder = Path(root, "VOCdevkit", "VOC2012")
        if not folder.is_dir():
            raise ValueError(
                f"VOC: expected the folder {folder}, got none; unpack VOCtrainval_11-May-2012.tar "
                f"into {root}"
            )
        self.files = VOCSegmentation(root, year="2012", image_set="val", download=False)
        self.img_size = img_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        image = load_image(self.files.images[index])
        return {"x": to_tensor(resize(image, self.img_size)), "index": index}

    def mask(self, index: int) -> Tensor:
        """Class of each pixel."""
        path = self.files.masks[index]
        with Image.open(path, formats=("PNG",)) as mask:  # with a palette: pixels are classes
            small = mask.resize((self.img_size, self.img_size), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(small, np.int64))

"""Groups of images that belong together, such as drawings of one thing; bootstraps draw groups."""

import csv

import numpy as np
import torch
from torch import Tensor

from gen.data.layout import Root, read_beside

NAME = "groups.csv"


def read_groups(root: Root, paths: list[str]) -> Tensor | None:
    """Group of each image (N,) int64, from `groups.csv` beside the splits; None without this file.

    The header and the lines are `path,group`. A path starts at the folder of the file; a group is
    any word. Names of images do not matter.

    Args:
        root: folder, zip or shards of the data set.
        paths: paths of the images, relative to the root; also below its only folder.

    Raises:
        ValueError: the file has other lines, two groups for an image, or none of `paths`.
    """
    top, text = read_beside(root, NAME, paths)
    if text is None:
        return None
    try:
        head, *rows = list(csv.reader(text.decode("utf-8-sig").splitlines())) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{root}: expected {NAME} in UTF-8, got: {error}; save it so") from error
    if head != ["path", "group"] or any(len(row) != 2 for row in rows):
        odd = next((row for row in rows if len(row) != 2), head)
        raise ValueError(f"{root}: expected lines of path,group in {NAME}, got {odd}")
    group = dict(rows)
    missing = [path for path in paths if path.removeprefix(top) not in group]
    if missing or len(group) < len({tuple(row) for row in rows}):
        got = f"none of {missing[0]}" if missing else "two groups of one image"
        raise ValueError(
            f"{root}: expected a group of every image in {NAME}, got {got}; correct it, or remove "
            "it: then every image counts as a draw of its own"
        )
    names = [group[path.removeprefix(top)] for path in paths]
    return torch.from_numpy(np.unique(names, return_inverse=True)[1])

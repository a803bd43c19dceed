"""Checks folders of clips; `verify.py` calls it for a folder with tracks."""

import re
from pathlib import Path

from tqdm import tqdm

from gen.data.clips.cityscapes import CityscapesClips
from gen.data.clips.kitti360 import Kitti360Clips, is_kitti360


def verify_clips(root: Path, frames: int, tracks: str) -> int:
    """Reads all clips of every split and size, reports unreadable ones, returns the exit code.

    Args:
        root: folder for `gen.data.Cityscapes` or `gen.data.KITTI360`.
        frames: number of frames per clip.
        tracks: suffix of the folders that list clips; the rest of their names is the split.
    """
    total = usable = 0
    for folder in sorted(root.glob(f"[!.]*{tracks}")):
        split = folder.name.removesuffix(tracks)
        found = [re.fullmatch(rf"{split}(\d+)_(\d+)", f.name) for f in root.iterdir()]
        sizes = [(int(size[2]), int(size[1])) for size in found if size]
        if not sizes:
            print(f"layout: {root}: expected {split}<width>_<height>/ with frames, got none")
            total += 1
        for height, width in sizes:
            try:
                reader = Kitti360Clips if is_kitti360(root) else CityscapesClips
                clips = reader(root, split, height, width, frames, max_objects=999)
            except ValueError as error:
                print(f"layout: {error}")
                total += 1
                continue
            bad = []
            for index in tqdm(range(len(clips)), split, disable=None):
                try:
                    clips[index]
                except (ValueError, OSError) as error:
                    bad.append(str(error))
            total, usable = total + len(clips), usable + len(clips) - len(bad)
            where = f"{split} {width}x{height}"
            print(f"{where:24} {len(clips):8} clips {len(bad):6} unusable")
            for error in bad:
                print(f"unusable: {error}")
    print(f"{root}: {usable} of {total} clips are usable")
    return int(usable < total)

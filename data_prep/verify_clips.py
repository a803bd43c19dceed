"""Checks folders of clips for `verify.py`: those of `gen.data.Cityscapes` or `gen.data.KITTI360`,
which read every clip of `--frames` frames."""

import argparse
import re
from pathlib import Path

from tqdm import tqdm

from gen.data.clips import is_kitti360
from gen.data.clips.cityscapes import CityscapesClips
from gen.data.clips.kitti360 import Kitti360Clips

TRACKS = "_instance_tracking_test"  # suffix of the folders that list clips, after their split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=6, help="of a clip")


def fits(root: Path) -> bool:
    """True for a folder with tracks."""
    return any(root.glob(f"[!.]*{TRACKS}"))


def verify(root: Path, args: argparse.Namespace) -> int:
    """Reads all clips of every split and size, reports unreadable ones, returns the exit code."""
    total = usable = 0
    for folder in sorted(root.glob(f"[!.]*{TRACKS}")):
        split = folder.name.removesuffix(TRACKS)
        found = [re.fullmatch(rf"{split}(\d+)_(\d+)", f.name) for f in root.iterdir()]
        sizes = [(int(size[2]), int(size[1])) for size in found if size]
        if not sizes:
            print(f"layout: {root}: expected {split}<width>_<height>/ with frames, got none")
            total += 1
        for height, width in sizes:
            try:
                reader = Kitti360Clips if is_kitti360(root) else CityscapesClips
                clips = reader(root, split, height, width, args.frames, max_objects=999)
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

"""Clips of Movers as files in the layout of Cityscapes sequences, to look at or to read elsewhere.

    python data_prep/cityscapes_layout.py --out data/movers --clips 20

writes `train*/` and `val*/` folders as `gen.data.cityscapes` describes them, and `manifest.json`.
Tracks hold the objects that are seen in every frame. Exit codes: see recipe.py.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from recipe import run
from tqdm import tqdm

from gen.data.cityscapes import MAGIC, SOURCE, CityscapesClips
from gen.data.movers import Movers
from gen.data.movers_world import INTERACTIONS
from gen.viz import to_uint8

CITY = "movers"


def export(clips: Iterable[dict], out: Path, split: str) -> list[dict]:
    """Write clips, each a sequence of its own that begins with frame 0; returns what each is.

    Raises:
        ValueError: a clip without an object that is seen in every frame: it could not be listed.
    """
    notes = []
    for seq, clip in enumerate(clips):
        frames, _, height, width = clip["video"].shape
        layout = object.__new__(CityscapesClips)
        layout.folders = CityscapesClips.layout(out, split, height, width)
        start = (CITY, f"{seq:06d}", 0)
        ids = np.concatenate([[0], clip["ids"].numpy()])[clip["instance"].numpy()]  # (T, H, W)
        semantic = clip["semantic"].numpy()
        ids = np.where(ids > 0, ids, semantic)
        for t in range(frames):
            labels = [("frame", to_uint8(clip["video"][t])), ("semantic", semantic[t].astype("u1"))]
            labels += [("instance", ids[t].astype("u2"))]
            if t:
                visible = clip["visible"][t - 1, 0].numpy() * 255
                labels += [("occlusion", visible.astype("u1"))]
                path = layout.path("flow", start, t)
                path.parent.mkdir(parents=True, exist_ok=True)
                header = MAGIC + np.array([width, height], "<i4").tobytes()
                flow = clip["flow"][t - 1].permute(1, 2, 0).numpy().astype("<f4")
                path.write_bytes(header + flow.tobytes())
            for kind, array in labels:
                path = layout.path(kind, start, t)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)

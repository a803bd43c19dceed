"""Clips of Movers as files in the layout of Cityscapes sequences, to look at or to read elsewhere.

    gen prepare cityscapes_layout --out data/movers --clips 20

writes `train*/` and `val*/` folders as `gen.data.clips.cityscapes` describes them, and
`manifest.json`.
Tracks hold the objects that are visible in every frame. Exit codes: see recipe.py.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from recipe import run, write_manifest, write_png
from tqdm import tqdm

from gen.data.clips.cityscapes import MAGIC, Layout, Start
from gen.data.movers import Movers
from gen.data.movers.dynamics import INTERACTIONS
from gen.data.movers.sprites import KINDS
from gen.files import write_atomic
from gen.inference.scenes import CLASSES
from gen.viz import to_uint8

CITY = "movers"


def export(clips: Iterable[dict], out: Path, split: str) -> list[dict]:
    """Writes clips, each as a sequence that begins with frame 0; returns a description of each.

    Raises:
        ValueError: no object of a clip is visible in every frame, so the clip could not be listed.
    """
    notes = []
    for seq, clip in enumerate(clips):
        start = (CITY, f"{seq:06d}", 0)
        write_clip(clip, out, split, start)
        named = {"sequence": start[1], "interaction": INTERACTIONS[clip["interaction"]]}
        notes.append(named | {key: clip[key] for key in ("impact", "branch", "target", "index")})
    return notes


def write_clip(clip: dict, out: Path, split: str, start: Start) -> None:
    """Writes one clip of `gen.data.clips` without boxes and motions; writes the tracks last.

    Raises:
        ValueError: no object is visible in every frame, so the clip could not be listed.
    """
    frames, _, height, width = clip["video"].shape
    layout = Layout(out, split, height, width)
    semantic, instance = clip["semantic"].numpy(), clip["instance"].numpy()
    ids = np.concatenate([[0], clip["ids"].numpy()])[instance]  # (T, H, W)
    ids = np.where(instance > 0, ids, semantic)
    tracks = {k: _track(instance == k + 1, layout) for k in np.flatnonzero(clip["present"])}
    tracks = {int(clip["ids"][k]): rows for k, rows in tracks.items() if rows}
    if not tracks:
        raise ValueError(f"clip {start}: expected an object in every frame, got none; leave it")
    for t in range(frames):
        write_png(layout.path("frame", start, t), Image.fromarray(to_uint8(clip["video"][t])))
        write_png(layout.path("semantic", start, t), Image.fromarray(semantic[t].astype("u1")))
        write_png(layout.path("instance", start, t), Image.fromarray(ids[t].astype("u2")))
        if t:
            visible = (clip["visible"][t - 1, 0].numpy() * 255).astype("u1")
            write_png(layout.path("occlusion", start, t), Image.fromarray(visible))
            header = MAGIC + np.array([width, height], "<i4").tobytes()
            flow = clip["flow"][t - 1].permute(1, 2, 0).numpy().astype("<f4")
            write_atomic(layout.path("flow", start, t), header + flow.tobytes(), fsync=False)
    for number, rows in tracks.items():
        data = "".join(f"{row},{number}\n" for row in rows).encode()
        write_atomic(layout.track(start, number), data, fsync=False)


def _track(masks: np.ndarray, layout: Layout) -> list[str]:
    """x,y,w,h in source pixels of masks (T, H, W); empty if one of the masks is empty."""
    rows, scale = [], np.array(layout.source) / masks.shape[:0:-1]
    for mask in masks:
        if not mask.any():
            return []
        y, x = mask.nonzero()
        low = np.array([x.min(), y.min()]) * scale
        side = np.array([x.max() + 1, y.max() + 1]) * scale - layout.missing - low
        rows.append(",".join(f"{v:g}" for v in (*low, *side)))
    return rows


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("data/movers"))
    parser.add_argument("--height", type=int, default=64, help="in pixels; the width is twice it")
    parser.add_argument("--clips", type=int, default=20, help="in train; val has a tenth")
    parser.add_argument("--seed", type=int, default=777)
    args = parser.parse_args(argv)

    def work() -> str:
        data = Movers(args.height, 2 * args.height, num_workers=0, seed=args.seed)
        counts = {"train": args.clips, "val": max(1, args.clips // 10)}
        classes = sorted({kind.train_id for kind in KINDS.values()})
        manifest = {"seed": args.seed, "classes": {CLASSES[k]: k for k in classes}}
        for split, count in counts.items():
            clips = (data.clips(split)[i] for i in tqdm(range(count), split, disable=None))
            manifest[split] = export(clips, args.out, split)
        write_manifest(args.out, manifest)
        return f"{args.out}: {counts['train']} clips to train on, {counts['val']} for validation"

    return run("cityscapes_layout", work)


if __name__ == "__main__":
    sys.exit(main())

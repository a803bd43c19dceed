"""Draws where classifiers look: the attention of each head, and its components.

One row per image and checkpoint: the image with its predicted class, then for each head the
attention over the image with its spatial entropy, and the components above the mean, each in
its own colour.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gen.commands import METHOD, best_device, load_any, number, plain_errors
from gen.files import checkpoint_names, keep_inputs, without_suffix


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen attention`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser("gen attention", description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="+", type=Path, help="image files")
    parser.add_argument(
        "--checkpoint", action="append", required=True, help="give it again for one more row"
    )
    parser.add_argument("--out", type=Path, required=True, help="a .png file")
    parser.add_argument("--cell-px", type=int, default=128, help="width of a picture")
    parser.add_argument("--crop-pct", type=number, default=1.0, help="as of the data: Classes")
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args(words)
    keep_inputs((*args.images, *args.checkpoint), [args.out])
    from gen import viz

    viz.image_format(args.out)  # checked before the work
    picture = draw(args.images, args.checkpoint, args.cell_px, args.crop_pct, args.method)
    print(viz.save_image(picture, args.out))


def draw(images: list[Path], checkpoints: list[str], px: int, crop_pct: float, method: str):
    """The sheet, a PIL image."""
    from gen import viz
    from gen.data.classes import plain
    from gen.data.images import load_image

    if px < 1 or not 0 < crop_pct <= 1:
        raise ValueError(
            f"expected --cell-px >= 1 and --crop-pct in (0, 1], got {px} and {crop_pct:g}"
        )
    device = best_device()
    methods = [load_any(path, device, method) for path in checkpoints]
    for path, method in zip(checkpoints, methods, strict=True):
        if not hasattr(method, "attention"):
            name = type(method).__name__
            raise ValueError(f"{path}: expected a method with attention maps, got a {name}")
    rows, labels = [], []
    for image in images:
        for method in methods:
            x = plain(method.img_size, crop_pct)(load_image(image))  # as `Classes` shows it
            cells, texts = row(method, x[None].to(device), px)
            rows.append(cells)
            labels.append(texts)
    columns = max(map(len, rows))
    headers = [("image", 1), *((f"head {k + 1}", 2) for k in range(columns // 2))]
    return viz.grid(
        [cells + [None] * (columns - len(cells)) for cells in rows],
        headers=headers,
        captions=names(checkpoints) * len(images) if len(checkpoints) > 1 else (),
        labels=[texts + [""] * (columns - len(texts)) for texts in labels],
        lead=(0, 1),
        cell_px=px,
    )


def row(method, x, px: int) -> tuple[list, list[str]]:
    """Pictures and labels of an image x (1, 3, S, S)."""
    from gen import viz
    from gen.losses.spatial_entropy import excess
    from gen.metrics.attention import attention, map_statistics
    from gen.ops.components import component_ids
    from gen.viz import attention as attention_viz

    similarity = method.attention(x)  # (1, heads, Hg, Wg)
    share = attention(similarity)[0]
    over = excess(similarity)
    found = {name: values[0].tolist() for name, values in map_statistics(similarity).items()}
    chance, y = method.classify(x).softmax(1).max(1)
    cells = [viz.enlarge(x[0], px)]
    texts = [f"{method.domains[int(y)]} {100 * float(chance):.0f} %"]
    for k, ids in enumerate(component_ids(over > 0)[0]):
        count, entropy = found["components"][k], abs(found["spatial_entropy"][k])
        cells.append(attention_viz.heat(x[0], share[k], px))
        cells.append(attention_viz.parts(x[0], ids, over[0, k].clamp(min=0), px))
        texts += [f"entropy {entropy:.2f}", f"{count} part{'s' * (count != 1)}"]
    return cells, texts


def names(checkpoints: list[str]) -> list[str]:
    """Distinct names of the checkpoints: of the files, or otherwise of their folders."""
    short = checkpoint_names(checkpoints)
    if len(set(short)) < len(short):
        short = [
            f"{Path(path).absolute().parent.name}/{without_suffix(path).name}"
            for path in checkpoints
        ]
    return short

"""Cuts objects out of a photo, at clicks or in boxes, as masks for `gen move`.

a box                  gen cut street.jpg --object car:120,80,260,150 --out street_ids.png
a click, two clicks    gen cut street.jpg --object bus:300,90 --object person:40,20+44,60
another segmenter      gen cut street.jpg --object car:120,80 --segmenter mine.segment

A box is left, top, right, bottom; positions are px of the photo as it is shown, upright. A box is
safer than a click; more clicks say which parts belong to an object. Give the farthest object first:
a later one lies in front. The masks are one PNG of 16 bits as gen move takes it; all that is no
object becomes road. The picture beside it, whose name ends in _overlay.png, shows what was cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import gen
from gen.commands import plain_errors
from gen.files import keep_inputs, write_atomic


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen cut`; `words` default to those of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("gen cut", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("photo", type=Path, help="PNG, JPEG, WebP or BMP")
    form = "CLASS:X,Y, CLASS:X,Y+X,Y or CLASS:LEFT,TOP,RIGHT,BOTTOM, px; one for each object"
    add("--object", action="append", required=True, dest="objects", metavar="WORDS", help=form)
    own = "a function (image uint8 (H, W, 3), clicks (K, 2) or box (4,)) -> bool mask (H, W)"
    add("--segmenter", metavar="PKG.NAME", help=f"instead of OpenCV's GrabCut: {own}")
    add("--out", type=Path, default=Path("masks.png"), help="default: masks.png")
    cut(parser.parse_args(words))


def cut(args: argparse.Namespace) -> None:
    """Cuts, writes the masks and their picture, and says what was found."""
    import io

    import numpy as np
    from PIL import Image

    from gen import viz
    from gen.data.images import load_image
    from gen.inference import cutting

    if args.out.suffix.lower() != ".png":
        raise ValueError(f"--out: expected a name that ends in .png, got {args.out}")
    shown = args.out.with_name(f"{args.out.stem}_overlay.png")
    keep_inputs([args.photo], [args.out, shown])
    segment = None
    if args.segmenter:
        segment = gen.import_name(args.segmenter, "--segmenter: package.name of a function")
        if not callable(segment):
            got = type(segment).__name__
            raise ValueError(f"--segmenter: expected a function, got {args.segmenter}, a {got}")
    image = np.array(load_image(args.photo))
    wanted = [cutting.parse(words, image.shape[1::-1]) for words in args.objects]
    ids = cutting.masks(image, wanted, segment)
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, "png")
    write_atomic(args.out, buffer.getvalue(), fsync=False)
    viz.save_image(cutting.overlay(image, ids), shown)
    for id_, area in zip(*np.unique(ids[ids >= 1000], return_counts=True), strict=True):
        print(f"{id_}  {cutting.CLASSES[id_ // 1000]:10}  {area / ids.size:6.2%} of the photo")
    print(f"look at {shown}; then: gen move --frame {args.photo} --masks {args.out} --list")

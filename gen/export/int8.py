"""ONNX graphs in int8, kept where the images stay what they were."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gen import viz
from gen.export.graph import Graph, Run
from gen.export.runtimes import runner
from gen.networks.perceptual import LPIPS

MOST = 0.01  # largest mean LPIPS to the images of the float graphs
LEAST = 0.95  # largest size, as a share of the float file, that is worth a file
COUNT = 16  # pictures


def quantize(source: Path, target: Path) -> None:
    """Writes an ONNX file whose products and convolutions are of 8 bits.

    Ranges of maps are measured while it runs; each weight has one scale.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns of what is done here
    try:
        with tempfile.TemporaryDirectory() as folder:
            ready = Path(folder, "ready.onnx")
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            kind = quantization.QuantType.QUInt8  # CPUs have no convolution by signed weights
            quantization.quantize_dynamic(ready, target, weight_type=kind)
    finally:
        root.setLevel(level)


@torch.no_grad()
def write(
    method, pictures: Callable[..., Tensor], graphs: Sequence[Graph], folder: Path
) -> list[dict]:
    """Makes NAME.int8.onnx beside the files NAME.onnx in a folder, where it may.

    Args:
        method: method that was cut into the graphs.
        pictures: function of the exporter that makes images with the graphs.
        graphs: graphs whose ONNX files are in the folder.
        folder: folder of the files.

    Returns:
        A row for each graph that makes images: mean LPIPS of these to those of float graphs, with
        all graphs in int8 that were kept before; size as a share of the float file; whether it was
        kept.
    """
    runs = {graph.name: runner(graph, folder / f"{graph.name}.onnx") for graph in graphs}
    used = set()

    def drawn(run: dict[str, Run]) -> Tensor:
        def one(name: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            used.add(name)
            return run[name](inputs)

        return viz.over_white(pictures(method, one, COUNT).clamp(-1, 1))

    want, lpips, kept, rows = drawn(runs), LPIPS("alex"), {}, []
    for graph in (g for g in graphs if g.name in used):
        source, target = folder / f"{graph.name}.onnx", folder / f"{graph.name}.int8.onnx"
        quantize(source, target)
        made = {graph.name: runner(graph, target)}
        off = float(lpips(want, drawn(runs | kept | made)).mean())
        size = target.stat().st_size / source.stat().st_size
        rows.append(
            {"graph": graph.name, "LPIPS": off, "size": size, "kept": off <= MOST and size <= LEAST}
        )
        if rows[-1]["kept"]:
            kept |= made
        else:
            target.unlink()
    return rows

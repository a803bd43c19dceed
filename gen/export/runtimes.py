"""Graphs as files of torch.export (.pt2) and ONNX, and what these runtimes make of them."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen import tasks
from gen.export.graph import Graph
from gen.files import sha256, write_atomic

OPSET = 18  # of ONNX
SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
BATCHES = (1, 3)  # sizes of the free axes at which a file is compared; exported with others
MOST = 1e-4  # largest difference of a file that is written
Runner = Callable[[dict[str, Tensor]], dict[str, Tensor]]


class _Listed(nn.Module):
    """A module whose inputs are one list, so that all have the same form of shapes."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


def cut(method) -> list[Graph]:
    """The graphs of a method, on the CPU; ValueError if its task has none."""
    return tasks.exporter(method, "export").graphs(method.cpu().eval())


def program(graph: Graph) -> torch.export.ExportedProgram:
    """The graph of torch.export, with the letters of its shapes as free axes."""
    example = graph.random()
    dims = {
        letter: torch.export.Dim(letter, min=graph.own.get(letter, (1, 1))[0])
        for letter in graph.sizes(1)
    }

    def free(shape: str) -> dict[int, Any]:
        words = ((axis, w[:-1], w[-1]) for axis, w in enumerate(shape.split()) if w[-1] in dims)
        return {axis: int(k) * dims[letter] if k else dims[letter] for axis, k, letter in words}

    axes = tuple(free(shape) for shape in graph.inputs.values())
    inputs = tuple(example[name] for name in graph.inputs)
    with torch.no_grad(), _quietly():
        made = _Listed(graph.module).eval()
        made = torch.export.export(made, inputs, dynamic_shapes=(axes,), strict=False)
    for part in made.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # of the code: half of a small file, and paths
    return made


def save(graph: Graph, path: Path, to: str) -> None:
    """Writes a graph as `torch` or `onnx`; the file holds all its weights."""
    made, buffer = program(graph), io.BytesIO()
    if to == "torch":
        torch.export.save(made, buffer)
    else:
        buffer.write(to_onnx(graph, made))
    write_atomic(path, buffer.getvalue())


def to_onnx(graph: Graph, made: torch.export.ExportedProgram) -> bytes:
    """An ONNX model with the names of the graph."""
    with torch.no_grad(), _quietly():
        model = torch.onnx.export(
            made,
            tuple(graph.random()[name] for name in graph.inputs),
            input_names=[*graph.inputs],
            output_names=[*graph.outputs],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        ).model_proto
    del model.metadata_props[:]
    _strip(model.graph)
    return model.SerializeToString()


def _strip(graph: Any) -> None:
    """Takes traces of the code out of an ONNX graph and of those within its operators."""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            _strip(attribute.g)
    for value in (*graph.value_info, *graph.input, *graph.output):
        del value.metadata_props[:]


@contextmanager
def _quietly() -> Iterator[None]:
    """Context without the warnings of exporters about what they do inside."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def runner(graph: Graph, path: Path, threads: int = 0) -> Runner:
    """A function that runs a file of `save`; `threads` 0: as many as the runtime likes."""
    if path.suffix == SUFFIX["torch"]:
        module = torch.export.load(path).module()

        def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            with torch.no_grad():
                return graph.named(module(*(inputs[name] for name in graph.inputs)))

        return run
    session = onnx_session(path, threads)

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        given = {name: inputs[name].numpy() for name in graph.inputs}
        return graph.named([torch.from_numpy(x) for x in session.run(None, given)])

    return run


def onnx_session(path: Path, threads: int = 0):
    """A session of onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(graph: Graph, run: Runner, sizes: Sequence[int] = BATCHES) -> float:
    """Largest |a - b| between a runtime and eager torch, on random inputs of several sizes.

    Of an output with values above 1, such as a flow in px, as a share of the largest one. NaN if a
    value is not a number.
    """
    found = []
    for seed, size in enumerate(sizes):
        inputs = graph.random(seed + 1, **graph.sizes(size))
        want, got = graph.run(inputs), run(inputs)
        for name, value in want.items():
            scale = max(1.0, float(value.abs().max()))
            found.append(float((value - got[name]).abs().max()) / scale)
    return float(torch.tensor(found).max())


def describe(source: Path, method, made: Sequence[Graph], rows: Sequence[dict]) -> bytes:
    """JSON on a folder of graphs: names, shapes and types of all inputs and outputs."""
    graphs = []
    for graph, row in zip(made, rows, strict=True):
        inputs = graph.random()
        outputs = graph.run(inputs)
        graphs.append(row | {
            "inputs": {k: [str(inputs[k].dtype)[6:], v] for k, v in graph.inputs.items()},
            "outputs": {k: [str(outputs[k].dtype)[6:], v] for k, v in graph.outputs.items()},
        })  # fmt: skip
    about = dict(source=source.name, sha256=sha256(source), method=type(method).__name__)
    about |= dict(domains=getattr(method, "domains", []), torch=version("torch"))
    about["attributes"] = getattr(method, "attribute_names", [])
    return json.dumps(about | {"graphs": graphs}, indent=1).encode()

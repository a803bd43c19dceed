"""A folder that runs the shipped methods in a browser: any static host shows it, without a server.

Beside the page in `web/` it holds ONNX files with weights in float16, packed by gzip; examples that
are drawn here; and onnxruntime-web of npm, at one version with its sha256. Each tab of the demo is
a tab of the page, with the module of its name.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gen
from gen import tasks
from gen.export import runtimes
from gen.export.graph import Graph
from gen.fetch import fetch_npm, read_archive
from gen.files import write_atomic

RUNTIME = "onnxruntime-web"
VERSION = "1.22.0"
SHA256 = "e293551f9d36d003e293d0f2937fee7b3dfdcef76d71d1449b55e2d4157c7aea"
MEMBERS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = Path(__file__).parent / "web"
SMALL = 256  # numbers; tensors with fewer stay in float32
ABOUT = f"{RUNTIME} {VERSION} of npm, by Microsoft, under the MIT License (package.json)\n"


def write(out: Path, tell: Callable[[str], None] = lambda text: None) -> None:
    """Writes the whole folder, and calls `tell` with a line for each model."""
    files = {f"ort/{name}": data for name, data in runtime().items()}
    files |= {path.name: path.read_bytes() for path in PAGE.iterdir() if path.is_file()}
    site, packed, data = {"tabs": [], "arrays": {}}, 0, []
    for tab in tasks.TABS:
        roles = {role: row.checkpoint for role, row in tab.roles.items() if row.checkpoint}
        methods = {role: gen.load(checkpoint) for role, checkpoint in roles.items()}
        names, exporters = [], {r: tasks.exporter(m, r) for r, m in methods.items()}
        for role, method in methods.items():
            for graph in runtimes.cut(method):
                if graph.name in exporters[role].ON_PAGE:
                    names.append(f"{role}_{graph.name}")
                    model = squeezed(model_of(graph))
                    files[f"models/{names[-1]}.onnx.gz"] = model
                    tell(f"{names[-1]:22} {len(model) / 1e6:5.2f} MB")
        about, arrays = exporters[next(iter(methods))].page(*methods.values())
        name = tab.module.rpartition(".")[2]
        site["tabs"].append({"name": name, "title": tab.title, "models": names, "data": about})
        for key, value in arrays.items():
            site["arrays"][key] = [packed, list(value.shape)]
            data.append(value.tobytes())
            packed += value.size
    files |= {"site.json": json.dumps(site).encode(), "data.bin": b"".join(data)}
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out / name, content, fsync=False)


def runtime() -> dict[str, bytes]:
    """Files of onnxruntime-web, from the cache or npm; the largest is packed."""
    archive = fetch_npm(RUNTIME, VERSION, SHA256)
    found = read_archive(archive, [f"package/dist/{name}" for name in MEMBERS])
    files = {name.rpartition("/")[2]: data for name, data in found.items()}
    wasm = MEMBERS[-1]
    return files | {f"{wasm}.gz": squeezed(files.pop(wasm)), "ABOUT.txt": ABOUT.encode()}


def squeezed(data: bytes) -> bytes:
    """gzip; the same bytes give the same file."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def model_of(graph: Graph) -> bytes:
    """The ONNX file of a graph, its weights in float16; it computes in float32."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        runtimes.save(graph, path := Path(folder, "graph.onnx"), "onnx")
        return halved(onnx.load(path)).SerializeToString()


def halved(model: Any) -> Any:
    """An ONNX model whose large tensors are stored in float16 and cast when it is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and value.size >= SMALL:
            name, half = tensor.name, f"{tensor.name}_half"
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), half))
            casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *rest])
    return model

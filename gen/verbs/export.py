"""Exports a checkpoint: weights, graphs for ONNX or torch.export, a page for any browser.

gen export runs/mine/last.ckpt --out mine.safetensors     averaged weights and options
gen export FILE --to onnx --out DIR                       an .onnx for each part of the method
gen export FILE --to torch --out DIR                      the same as .pt2, for torch.export.load
gen export --to web DIR                                   a folder for any static host
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from gen import shipped
from gen.commands import METHOD, plain_errors
from gen.files import keep_inputs, sha256, write_atomic


def make_parser() -> argparse.ArgumentParser:
    """The parser of the options."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("gen export", description=__doc__, formatter_class=raw)
    parser.add_argument(
        "path",
        type=Path,
        nargs="?",
        help="checkpoint, or the name of a shipped one; of --to web, the folder",
    )
    parser.add_argument("--checkpoint", type=Path, help="the same as the first word")
    parser.add_argument("--to", choices=("safetensors", "onnx", "torch", "web"),
                        default="safetensors", help="default: safetensors")  # fmt: skip
    parser.add_argument(
        "--out", type=Path, help="file or folder to write; default: FILE_onnx, FILE_torch"
    )
    parser.add_argument("--half", action="store_true", help="safetensors in float16: half the size")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also each graph of onnx in int8, if its images stay within LPIPS 0.01",
    )
    parser.add_argument("--method", **METHOD)
    return parser


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen export`; `words` default to those of the command line."""
    parser = make_parser()
    args = parser.parse_args(words)
    if (args.path is None) == (args.checkpoint is None):
        parser.error("expected one checkpoint (of --to web, one folder), got none or two")
    path = args.path or args.checkpoint
    if args.half and args.to != "safetensors" or args.int8 and args.to != "onnx":
        parser.error("expected --half with --to safetensors and --int8 with --to onnx, got others")
    if args.to == "web":
        return page(path)
    if args.to == "safetensors":
        if args.out is None:
            parser.error("--out: expected a .safetensors file to write, got none")
        return share(path, args.out, args.half)
    graphs(path, args.to, args.out, args.int8, args.method)


def page(out: Path) -> None:
    """Writes a folder that runs the shipped methods in a browser."""
    import onnx  # noqa: F401  (what lacks is told before the work)
    import onnxscript  # noqa: F401

    from gen.export import site

    if out.is_dir() and any(out.iterdir()) and not (out / "site.json").exists():
        raise ValueError(f"{out}: expected a new folder, or one of this command, got another")
    site.write(out, lambda text: print(text, flush=True))
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}/ {total / 1e6:.1f} MB, for any static host; here:")
    print(f"python -m http.server -d {out} 8000")


def share(path: Path, out: Path, half: bool) -> None:
    """Writes averaged weights and options of a checkpoint."""
    from gen.checkpoint import export

    keep_inputs([path], [out])
    export(path, out, half)
    print(f"{out}  {out.stat().st_size / 2**20:.1f} MiB  sha256 {sha256(out)}")


def graphs(path: Path, to: str, out: Path | None, int8: bool, method: str) -> None:
    """Writes the graphs of a checkpoint into a folder, and graphs.json about them."""
    if to == "onnx":
        import onnxruntime  # noqa: F401  (what lacks is told before the work)
        import onnxscript  # noqa: F401

    import gen
    from gen import tasks
    from gen.checkpoint import find
    from gen.export import runtimes

    out = out or Path(f"{shipped.stem(path)}_{to}")
    path = find(path)
    made = gen.load(path, "cpu", method)
    pictures = getattr(tasks.exporter(made, str(path)), "pictures", None)
    if int8 and pictures is None:
        raise ValueError(f"--int8: expected a method that makes images, got {type(made).__name__}")
    cut, rows = runtimes.cut(made), []
    print(f"{type(made).__name__} of {path} to {out}/")
    with TemporaryDirectory() as name:  # `out` gets all files or, after an error, none
        folder = Path(name)
        for graph in cut:
            file = folder / f"{graph.name}{runtimes.SUFFIX[to]}"
            runtimes.save(graph, file, to)
            off = runtimes.difference(graph, runtimes.runner(graph, file))
            if not off <= runtimes.MOST:  # also if it is no number
                raise ValueError(
                    f"{file.name}: expected values within {runtimes.MOST:g} of PyTorch's, got "
                    f"{off:.1e}; nothing was written. Try another --to, or another version of it"
                )
            rows.append({"file": file.name, "difference": off})
            shapes = (", ".join(f"{k} ({v.replace(' ', ', ')})" for k, v in part.items())
                      for part in (graph.inputs, graph.outputs))  # fmt: skip
            size = file.stat().st_size / 1e6
            print(f"{file.name:20} {size:6.2f} MB  off by {off:.1e}  {' -> '.join(shapes)}",
                  flush=True)  # fmt: skip
        if int8:
            from gen.export import int8 as smaller

            for row in smaller.write(made, pictures, cut, folder):
                kept = "kept" if row["kept"] else "left out"
                print(f"{row['graph']}.int8.onnx: LPIPS {row['LPIPS']:.4f}, {row['size']:.2f} x, "
                      f"{kept}")  # fmt: skip
        out.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            write_atomic(out / file.name, file.read_bytes())
    write_atomic(out / "graphs.json", runtimes.describe(path, made, cut, rows))

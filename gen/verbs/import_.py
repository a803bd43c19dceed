"""Converts published weights to a `.safetensors` file, and writes a card."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from gen.commands import plain_errors
from gen.files import keep_inputs, sha256, without_suffix

METHODS = ("starganv2", "stylegan2", "isf")  # modules of gen.convert with `import_NAME`, `LICENCE`


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen import`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser("gen import", description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("file", type=Path, help="such as 100000_nets_ema.ckpt, ffhq.pkl")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--domains", nargs="+", default=(), help="their names, sorted as folders")
    parser.add_argument("--generator", help="of isf, whose --domains are attributes: a StyleGAN2")
    args = parser.parse_args(words)
    if bool(args.generator) != (args.method == "isf"):
        parser.error("--generator: expected a checkpoint of StyleGAN2 with isf, and with it alone")
    more = [args.generator] if args.generator else []
    keep_inputs([args.file, *more], [args.out, f"{without_suffix(args.out)}.md"])
    reader = importlib.import_module(f"gen.convert.{args.method}")
    read = getattr(reader, f"import_{args.method}")
    card = read(args.file, args.out, args.domains, *more)
    size_mib = args.out.stat().st_size / 2**20
    print(f"{args.out}  {size_mib:.1f} MiB  sha256 {sha256(args.out)}  card {card}")
    print(reader.LICENCE)

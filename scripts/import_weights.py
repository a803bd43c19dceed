"""Converts published weights to a `.safetensors` file for `gen.load`, and writes a card."""

import argparse
from pathlib import Path

from gen.commands import plain_errors
from gen.convert import isf as official_isf
from gen.convert import starganv2 as official
from gen.convert import stylegan2 as official_stylegan2
from gen.files import keep_inputs, sha256, without_suffix

IMPORT = {  # method: reader of its files, and their licence
    "starganv2": (official.import_starganv2, official.LICENCE),
    "stylegan2": (official_stylegan2.import_stylegan2, official_stylegan2.LICENCE),
    "isf": (official_isf.import_isf, official_isf.LICENCE),
}


@plain_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=IMPORT)
    parser.add_argument("file", type=Path, help="such as 100000_nets_ema.ckpt, ffhq.pkl")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--domains", nargs="+", default=(), help="their names, sorted as folders")
    parser.add_argument("--generator", help="of isf, whose --domains are attributes: a StyleGAN2")
    args = parser.parse_args()
    if bool(args.generator) != (args.method == "isf"):
        parser.error("--generator: expected a checkpoint of StyleGAN2 with isf, and with it alone")
    read, licence = IMPORT[args.method]
    more = [args.generator] if args.generator else []
    keep_inputs([args.file, *more], [args.out, f"{without_suffix(args.out)}.md"])
    card = read(args.file, args.out, args.domains, *more)
    size_mib = args.out.stat().st_size / 2**20
    print(f"{args.out}  {size_mib:.1f} MiB  sha256 {sha256(args.out)}  card {card}\n{licence}")


if __name__ == "__main__":
    main()

"""Exports a Lightning checkpoint to a `.safetensors` file to share: averaged weights, options."""

import argparse
from pathlib import Path

from gen.checkpoint import export
from gen.commands import plain_errors
from gen.files import keep_inputs, sha256


@plain_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a .ckpt of `gen fit`")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--half", action="store_true", help="float16: half the size")
    args = parser.parse_args()
    keep_inputs([args.checkpoint], [args.out])
    export(args.checkpoint, args.out, args.half)
    size_mib = args.out.stat().st_size / 2**20
    print(f"{args.out}  {size_mib:.1f} MiB  sha256 {sha256(args.out)}")


if __name__ == "__main__":
    main()

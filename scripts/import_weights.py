"""Published weights to a `.safetensors` file for `gen.load`, with a card beside it."""

import argparse
import sys
from pathlib import Path

from gen.official import LICENCE, import_starganv2
from gen.weights import sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=["starganv2"])
    parser.add_argument("file", type=Path, help="such as 100000_nets_ema.ckpt")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to write")
    parser.add_argument("--domains", nargs="+", default=(), help="their names, sorted as folders")
    args = parser.parse_args()
    try:
        card = import_starganv2(args.file, args.out, args.domains)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
    size_mib = args.out.stat().st_size / 2**20
    print(f"{args.out}  {size_mib:.1f} MiB  sha256 {sha256(args.out)}  card {card}\n{LICENCE}")


if __name__ == "__main__":
    main()

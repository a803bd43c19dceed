"""Opens one page in the browser: translate and interpolate, edit, click to move.

It is served to this machine alone; --share lets others in, who know the password of --auth.
Needs the extra `demo`: pip install -e ".[demo]", or bash scripts/quickstart.sh --demo.
"""

import argparse
import signal
import sys
from pathlib import Path

import torch

import gen
from gen.networks.perceptual import LPIPS
from gen.weights import WeightsError

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
SHOWN = {
    "translator": "smooth_i2i_emoji64",
    "editor": "style_function_heads64",
    "judge": "attribute_classifier_heads64",
    "mover": "click_to_move_movers",
}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    for role, name in SHOWN.items():
        parser.add_argument(f"--{role}", default=str(SHIPPED / f"{name}.safetensors"))
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="a public link; demands --auth")
    parser.add_argument("--auth", default="", metavar="USER:PASSWORD")
    args = parser.parse_args()
    if args.share and not args.auth:
        sys.exit("error: --share: expected --auth USER:PASSWORD with it, got none")
    if args.share:
        print("warning: whoever has the link and the password can use this machine's processor")
    try:
        from gen.demo import app
    except ModuleNotFoundError as error:
        sys.exit(f'error: expected the extra demo, got no {error.name}; pip install -e ".[demo]"')
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        methods = [gen.load(getattr(args, role), device) for role in SHOWN]
        try:
            lpips = LPIPS("alex").to(device)
        except WeightsError as error:
            print(f"note: {error}", file=sys.stderr)
            lpips = None
        page = app.build(*methods, lpips)
        print(*app.serve(page, args.port, args.share, args.auth), flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # its folder is removed, too
        page.block_thread()
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Opens a page in the browser: translate and interpolate, edit, click to move.

Only this machine can open it; --share lets others in who know the password of --auth.
Needs the extra `demo`: pip install -e ".[demo]", or bash scripts/quickstart.sh --demo.
"""

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from getpass import getpass
from pathlib import Path

from gen import shipped, tasks
from gen.commands import METHOD, best_device, load_any, plain_errors
from gen.files import WeightsError, checkpoint_names, without_suffix

ROLES = {name: role for tab in tasks.TABS for name, role in tab.roles.items()}


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen demo`; `words` default to those of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("gen demo", description=__doc__, formatter_class=raw)
    for name, role in ROLES.items():
        about = f"checkpoint of {role.what}; default: {role.checkpoint}"
        parser.add_argument(f"--{name}", default=role.checkpoint, help=about)
    own = METHOD | dict(help="of the checkpoint whose method gen.methods has not")
    parser.add_argument("--method", **own)
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="a public link; demands --auth")
    parser.add_argument(
        "--auth", default="", metavar="USER[:PASSWORD]", help="who is let in; the password is asked"
    )
    args = parser.parse_args(words)
    if args.share and not args.auth:
        sys.exit("error: --share: expected --auth USER:PASSWORD with it, got none")
    if args.auth and ":" not in args.auth and sys.stdin.isatty():
        args.auth += ":" + getpass()
    if args.share:
        print("warning: whoever has the link and the password can use this machine's processor")
    from gen.demo import app
    from gen.networks.perceptual import LPIPS

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # then its folder is removed, too
            signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
    device = best_device()
    paths = {name: getattr(args, name) for name in ROLES}
    methods = {name: load(name, path, device, args.method) for name, path in paths.items()}
    try:
        lpips = LPIPS("alex").to(device)
    except WeightsError as error:
        print(f"note: {error}", file=sys.stderr)
        lpips = None
    about = {name: knows(path, methods[name]) for name, path in paths.items()}
    page = app.build(methods, about, lpips)
    print(*app.serve(page, args.port, args.share, args.auth), flush=True)
    page.block_thread()


def knows(path: str, method) -> str:
    """Describes a model: the first words of the card beside its file, or the kind of the model."""
    if not Path(path).exists() and (name := shipped.name_of(path)):
        path = str(shipped.find(name))
    card, known = Path(f"{without_suffix(path)}.md"), ""
    if card.is_file():
        parts = re.split(r"\n\s*\n", card.read_text("utf-8").strip())
        known = next((" ".join(part.split()) for part in parts if part[0] not in "#!`|<"), "")
    if not known:
        of = ", ".join(method.domains) or "what it was trained on"
        known = f"A {type(method).__name__} ({checkpoint_names([path])[0]}) that knows {of}."
    return f"{known} It has seen nothing else: of a photograph, say, it makes what it knows."


def load(name: str, path: str, device: str, method: str = ""):
    """The method for the option --`name`; ValueError if a tab cannot use it."""
    loaded, role = load_any(path, device, method), ROLES[name]
    tasks.expect(loaded, role.task, source=f"--{name} {path}")
    if not hasattr(loaded, role.has):
        raise ValueError(f"--{name} {path}: expected {role.what}, got a {type(loaded).__name__}")
    return loaded

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
from gen.files import WeightsError, checkpoint_names, parse_yaml, without_suffix

ROLES = {name: role for tab in tasks.TABS for name, role in tab.roles.items()}


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen demo`; `words` default to those of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("gen demo", description=__doc__, formatter_class=raw)
    for name, role in ROLES.items():
        about = f"checkpoint of {role.what}; default: {role.checkpoint or 'none'}"
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
    given = {name: getattr(args, name) for name in ROLES}
    paths = {name: path for name, path in given.items() if path or ROLES[name].checkpoint}
    told = ", ".join(checkpoint_names(paths.values()))
    print(f"loading {told}; then comes the address", file=sys.stderr, flush=True)
    from gen.checkpoint import read
    from gen.demo import app
    from gen.networks.perceptual import LPIPS

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # then its folder is removed, too
            signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
    device = best_device()
    methods = {name: load(name, path, device, args.method) for name, path in paths.items()}
    try:
        lpips = LPIPS("alex").to(device)
    except WeightsError as error:
        print(f"note: {error}", file=sys.stderr)
        lpips = None
    about = {name: knows(path, methods[name], read(path).iteration) for name, path in paths.items()}
    try:
        page = app.build(methods, about, lpips)
    except ValueError as error:  # such as of files that do not fit together
        own = [f"--{k} {path}" for k, path in paths.items() if path != ROLES[k].checkpoint]
        error.args = (": ".join([" ".join(own), str(error)] if own else [str(error)]),)
        raise
    print(*app.serve(page, args.port, args.share, args.auth), flush=True)
    page.block_thread()


def knows(path: str, method, iteration: int) -> str:
    """Describes a model in two paragraphs, from its card, its run's folder and its options.

    Args:
        path: path or name of the checkpoint.
        method: method of the checkpoint.
        iteration: iterations of its training.
    """
    [given] = checkpoint_names([path])
    if shipped.is_name(path):
        path = str(shipped.find_named(path))
    card = Path(f"{without_suffix(path)}.md")
    text = card.read_text("utf-8").strip() if card.is_file() else ""
    parts = [
        " ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part[:1] not in "#!`|<"
    ]
    of = ", ".join(method.domains) or "what it was trained on"
    known = parts[0] if parts else f"A {type(method).__name__} ({given}) that knows {of}."
    sides = ("img_size", "height", "width")
    size = " x ".join(str(method.hparams[name]) for name in sides if name in method.hparams)
    learnt = trained_on(text, Path(path) if Path(path).is_dir() else Path(path).parent)
    at = f" at {size} px" if size else ""
    return (
        f"{known}\n\nTrained in {iteration:,} iterations{at} on {learnt} "
        "It has seen nothing else: another kind of image, say a photograph, will look wrong."
    )


def trained_on(card: str, folder: Path) -> str:
    """The data of a model as a sentence: from the text of its card, else from its run's folder."""
    told = re.search(r"^- \*\*Data\*\*:(.+?)(?=^\s*$|^- |\Z)", card, re.MULTILINE | re.DOTALL)
    if told:
        return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(told[1].split()))[0]
    config = folder / "config.yaml"
    data = parse_yaml(config.read_text("utf-8"), str(config)).get("data") if config.is_file() else 0
    if not isinstance(data, dict):
        return "data that neither a card beside the file nor a config.yaml names."
    root = (data.get("init_args") or {}).get("root")
    return f"{data.get('class_path')}{f' of {root}' if root else ', drawn on the fly'}."


def load(name: str, path: str, device: str, method: str = ""):
    """The method for the option --`name`; ValueError if a tab cannot use it."""
    loaded, role = load_any(path, device, method), ROLES[name]
    tasks.expect(loaded, role.task, source=f"--{name} {path}")
    if not hasattr(loaded, role.has):
        raise ValueError(f"--{name} {path}: expected {role.what}, got a {type(loaded).__name__}")
    return loaded

"""Shared parts of commands: mistakes reported in one line, and child processes that end cleanly."""

from __future__ import annotations

import argparse
import atexit
import difflib
import errno
import importlib
import inspect
import math
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gen.files import PACKAGE, WINDOWS, show_any_name

if TYPE_CHECKING:
    from gen.methods.base import Method

METHOD = dict(default="", metavar="PKG.CLASS", help="of a checkpoint, where gen.methods has none")
MISCONFIGURED = "MisconfigurationException"  # of Lightning, which takes seconds to import
HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
OURS = PACKAGE, PACKAGE.parent / "scripts"
EXTRAS = {
    "gradio": "demo",
    "resvg_py": "prep",
    "playwright": "test",
    "submitit": "bench",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "huggingface_hub": "hub",
}  # module -> extra


@contextmanager
def plain_errors(ours_alone: bool = False) -> Iterator[None]:
    """Ends the process with one line of text on a user's mistake or Ctrl-C.

    From then on, `print` shows any file name, see `show_any_name`.

    Args:
        ours_alone: show the traceback of ValueError and RuntimeError of other packages, which may
            come from a method under development. Set wherever `--method` is given.
    """
    show_any_name()
    ours_alone = ours_alone or any(word.startswith("--method") for word in sys.argv)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(128 + signal.SIGINT)
    except (FileExistsError, IsADirectoryError) as error:
        file = isinstance(error, FileExistsError)
        wanted = "a folder, got a file" if file else "a file, got a folder"
        told = f"{error.filename}: expected {wanted}; choose another place"
        sys.exit(f"error: {told if error.filename else error}")  # one of ours tells it all
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        clone = (PACKAGE.parent / "setup.cfg").exists()
        way_out = f'-e ".[{extra}]"' if clone else error.name.replace("_", "-")
        sys.exit(f"error: expected the extra {extra}, got no {error.name}; pip install {way_out}")
    except Exception as error:
        usual = isinstance(error, OSError | RuntimeError | ValueError)
        found = find_told(error) if usual or type(error).__name__ == MISCONFIGURED else None
        if found is None and (ours_alone or not usual):
            raise
        if isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT):
            path = f"{found.filename}: " if found.filename else ""
            sys.exit(
                f"error: {path}expected space on the disk, got none; free some, then run again"
            )
        sys.exit(f"error: {found or error}")


def join_processes(device: str) -> str:
    """Joins the processes that torchrun has started beside this one, if it has started this one.

    Returns:
        The device of this process: of `cuda` the GPU with its number on the machine.

    Raises:
        ValueError: one GPU is named for all processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "LOCAL_RANK" not in os.environ:
        return device
    import torch
    import torch.distributed as dist

    if device.startswith("cuda:"):
        raise ValueError(f"--device: expected cuda or cpu for several processes, got {device}")
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    atexit.register(dist.destroy_process_group)
    return device


def is_first() -> bool:
    """True in the process that prints and writes: the only one, or the first of torchrun's."""
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized() and dist.get_rank())


def number(text: str) -> float:
    """Parses a finite number for `type=` of an option; NaN would only show in the results."""
    if not math.isfinite(value := float(text)):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text}")
    return value


def best_device() -> str:
    """`cuda` for a GPU of NVIDIA or AMD, `mps` for one of Apple, else `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_any(path: str | Path, device: str, method: str) -> Method:
    """`gen.load` of one of several checkpoints; `method` is for those that gen.methods lacks."""
    import gen.methods
    from gen.checkpoint import read

    ours = method and hasattr(gen.methods, read(path).method)
    return gen.load(path, device, "" if ours else method)


def find_told(error: BaseException | None) -> BaseException | None:
    """The error, or its cause, that was written for a user; None: it comes from other code."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = bool(frames) and not {*OURS}.isdisjoint(Path(frames[-1].filename).parents)
        if isinstance(error, OSError) or type(error).__name__ == MISCONFIGURED:
            return error
        if ours and isinstance(error, RuntimeError | ValueError):
            return error
        error = error.__cause__ or error.__context__
    return None


def explain(
    message: str, options: Iterable[str], classes: Iterable[str], words: Iterable[str] = ()
) -> str:
    """Explains the misspelt word in a parser's error, with the nearest name; empty: other error.

    Args:
        options: names of all options except those of classes, such as trainer.max_steps.
        classes: names of methods and data sets.
        words: words of the command line.
    """
    if odd := "surrogates not allowed" in message and [w for w in words if not _is_text(w)]:
        return f"expected options in UTF-8, got {odd[0]!a}; rename it, or give a link to it (ln -s)"
    found = re.search(r"key \"([\w.]+)\":\s+Expected an? <class '(\w+)'>. Got value: (.*)", message)
    if found:
        return f"{found[1]}: expected {found[2]}, got {found[3]}"
    if found := re.search(r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message):
        module, _, owner = found[1].rpartition(".")
        cls = getattr(sys.modules.get(module), owner, None)
        known, word, what = ["class_path", "init_args"], found[2], f"an option of {owner}"
        for base in cls.__mro__ if cls else ():  # the baseline takes **options
            known += inspect.signature(base.__init__).parameters
    elif found := re.search(r"(?:accept option '|unrecognized arguments: --)([\w.]+)", message):
        known, word, what = [*options], found[1], "an option of gen"
    elif found := re.search(r"Expected a dot import path string: ([\w.]+)", message):
        known, word, what = [*classes], found[1], "a method or a data set"
    else:
        return ""
    near = difflib.get_close_matches(word, known, 1, 0.75)
    way_out = f"did you mean {near[0]}?" if near else "--help and --model.help NAME list them"
    return f"expected {what}, got {word!r}; {way_out}"


def _is_text(word: str) -> bool:
    """True if a text is valid UTF-8; the name of a file need not be."""
    return not any("\udc80" <= letter <= "\udcff" for letter in word)


def import_modules(*packages: ModuleType) -> None:
    """Imports every module directly in the packages, without packages inside them."""
    for package in packages:
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def call(*command: str | Path, cwd: str | Path | None = None) -> int:
    """Runs a command and returns its exit status, or minus the number of the signal that ended it.

    Forwards SIGINT and SIGTERM to the command, once each, and SIGHUP as SIGTERM, then waits for it.
    """
    signals: list[int] = []
    child: subprocess.Popen | None = None

    def hand_on(number: int) -> None:
        signals.append(signal.SIGTERM if number == HANGUP else number)
        if child is not None:
            tell(child, signals.pop())

    def tell(child: subprocess.Popen, number: int) -> None:
        if not (WINDOWS and number == signal.SIGINT):  # there, Ctrl-C reaches it by itself
            child.send_signal(number)

    with caught(hand_on):  # in a session of its own, or a terminal would send Ctrl-C a second time
        child = subprocess.Popen([*map(str, command)], cwd=cwd, start_new_session=True)
        for number in signals:
            tell(child, number)
        return child.wait()


def call_each(commands: Iterable[Sequence[str]], jobs: int) -> list[int]:
    """Runs commands, `jobs` at once; returns the exit statuses of the started commands.

    After an exit status of 255, as in `xargs`, or after SIGINT, SIGTERM or SIGHUP, no other
    command starts. Running commands and their children get such a signal as SIGINT, and are
    waited for.
    """
    waiting, running, codes, signals = [*commands][::-1], [], [], []

    def tell(child: subprocess.Popen) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            if not WINDOWS:  # there, Ctrl-C reaches it by itself
                os.killpg(child.pid, signal.SIGINT)

    def hand_on(number: int) -> None:
        signals.append(number)
        for child in running:
            tell(child)
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write("stopping: what runs is waited for till it has saved\n")

    with caught(hand_on):
        while running or (waiting and not signals and 255 not in codes):
            if waiting and len(running) < jobs and not signals and 255 not in codes:
                again = dict(stdin=subprocess.DEVNULL, start_new_session=True)
                running.append(subprocess.Popen(waiting.pop(), **again))
                if signals:  # signalled while it started
                    tell(running[-1])
                continue
            time.sleep(0.05)
            ended = [child for child in running if child.poll() is not None]
            codes += [child.returncode for child in ended]
            running = [child for child in running if child not in ended]
    return codes + [128 + signal.SIGINT] * bool(signals)


@contextmanager
def caught(tell: Callable[[int], None]) -> Iterator[None]:
    """Context in which SIGINT, SIGTERM and SIGHUP are passed to `tell` and end nothing."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN:  # nohup ignores it
        signals.append(HANGUP)
    previous = {number: signal.signal(number, lambda n, _: tell(n)) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

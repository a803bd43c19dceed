"""What commands share: mistakes told in one line, and children that may end what they do."""

from __future__ import annotations

import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
EXTRAS = {"gradio": "demo", "resvg_py": "prep", "playwright": "test"}  # module -> extra


@contextmanager
def plain_errors(ours_alone: bool = False) -> Iterator[None]:
    """Ends the process with one line where it met a user's mistake, or Ctrl-C.

    Args:
        ours_alone: other packages' ValueError and RuntimeError keep their traceback: they may come
            from a method that is being written.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(128 + signal.SIGINT)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        sys.exit(
            f'error: expected the extra {extra}, got no {error.name}; pip install -e ".[{extra}]"'
        )
    except Exception as error:
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        told = isinstance(error, OSError) or type(error).__name__ == "MisconfigurationException"
        if isinstance(error, RuntimeError | ValueError):
            told = told or not ours_alone or PACKAGE in place.parents
        if not told:
            raise
        sys.exit(f"error: {error}")


def call(*command: str | Path, cwd: str | Path | None = None) -> int:
    """Runs a command to its end and returns its exit status, negative the signal that ended it.

    SIGINT and SIGTERM are handed on to it, once each, and it is waited for; SIGHUP as SIGTERM.
    """
    told: list[int] = []
    child: subprocess.Popen | None = None

    def hand_on(number: int, _: object) -> None:
        told.append(signal.SIGTERM if number == signal.SIGHUP else number)
        if child is not None:
            child.send_signal(told.pop())

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which is nohup
        signals.append(signal.SIGHUP)
    previous = {number: signal.signal(number, hand_on) for number in signals}
    try:  # of its own session, else a terminal would send Ctrl-C a second time
        child = subprocess.Popen([*map(str, command)], cwd=cwd, start_new_session=True)
        for number in told:
            child.send_signal(number)
        return child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

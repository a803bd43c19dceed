"""The demo as a person starts it, in a process of its own, for the tests that talk to it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def demo(folder: Path, *options: str, end: int = signal.SIGTERM) -> Iterator[str]:
    """Its address. All that it writes lies in `folder`, and is gone when it was told to end."""
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "scripts/demo.py", "--port", str(port), *options]
    options = dict(cwd=ROOT, stdout=subprocess.PIPE, stderr=open(folder / "stderr.txt", "w"))
    # who starts tests in the background may ignore SIGINT, and so would the demo
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, text=True, env=environment, **options) as process:
        try:
            address = process.stdout.readline().strip()
            assert address, (folder / "stderr.txt").read_text()
            yield address
        finally:
            process.send_signal(end)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert not list(folder.glob("gen-demo-*")), "its folder was left behind"

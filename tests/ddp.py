"""Runs in two processes, for the tests of methods."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from lightning import Callback

from runs import arguments

ROOT = Path(__file__).resolve().parents[1]


class Witness(Callback):
    """Writes down what each process saw and became; at iteration `term` rank 0 gets a SIGTERM."""

    def __init__(self, term: int = 0) -> None:
        self.term, self.seen = term, []

    def on_train_batch_start(self, trainer, method, batch, index):
        draws = torch.randn(1, generator=method.step_rng(0))
        self.seen.append({k: v.clone() for k, v in batch.items()} | {"draws": draws})
        if trainer.global_step + 1 == self.term and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_end(self, trainer, method):
        path = Path(trainer.default_root_dir, f"rank{trainer.global_rank}.pt")
        strategy = type(trainer.strategy).__name__
        torch.save(dict(state=method.state_dict(), seen=self.seen, strategy=strategy), path)


def run(method: str, out: Path, *more: str, **options) -> subprocess.CompletedProcess:
    witness = "--trainer.callbacks=ddp.Witness"
    command = arguments(method, out, "--trainer.devices=2", witness, *more, **options)
    return subprocess.run(
        [sys.executable, "-m", "gen", *command],
        cwd=ROOT,
        env=os.environ | dict(PYTHONPATH=str(ROOT / "tests"), GLOO_SOCKET_IFNAME="lo"),
        capture_output=True,
        text=True,
        timeout=600,
    )

"""Commands of `gen` besides those of training: `gen NAME ..` calls `main` of the module NAME.

A module is a command, without registration; a module with an underscore at its end has the name
without it, which Python reserves. The first line of its docstring is its line in `gen --help`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Read when torch is loaded, before which `gen` and scripts/*.py both pass here
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads can be 15x slower
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch warns once, at the first

TRAINING = {  # commands of LightningCLI
    "fit": "Trains a method.",
    "validate": "Measures a checkpoint on the validation data of a config.",
    "test": "Measures a checkpoint on the test data of a config.",
    "predict": "Writes what a translator or a classifier makes of the data of a config.",
}
FILES = {path.stem.rstrip("_"): path for path in sorted(Path(__file__).parent.glob("[!_]*.py"))}
EXAMPLES = """
  gen fit -c configs/smooth_i2i/emoji64_cpu.yaml --out runs/mine     train
  gen fit -c ... --ckpt_path runs/mine/last.ckpt                     resume
  gen fit -c ... --model.init_from checkpoints/X.safetensors         fine-tune
  gen validate -c ... --ckpt_path runs/mine/last.ckpt                measure
  gen fit -c ... --print_config                                      every option and its value
  gen fit --model.help SmoothI2I                                     the options of a method
  gen COMMAND --help                                                 all of a command
"""


def summary(path: Path) -> str:
    """First line of the docstring of a module that is not imported."""
    return path.read_text("utf-8").partition("\n")[0].strip('"')


def describe() -> str:
    """Text of `gen --help`: all commands, one line each."""
    lines = TRAINING | {name: summary(path) for name, path in FILES.items()}
    rows = [f" {name:11} {line}" for name, line in lines.items()]
    return "\n".join(["usage: gen COMMAND [options]", "", *rows, EXAMPLES])


def run(words: Sequence[str]) -> bool:
    """Runs the command that the first word names; False if it is one of training.

    Raises:
        SystemExit: there is no such command; the message names the nearest.
    """
    name = words[0]
    if name in FILES:
        importlib.import_module(f"{__name__}.{FILES[name].stem}").main(words[1:])
        return True
    if name in TRAINING or name.startswith("-"):
        return False
    known = [*TRAINING, *FILES]
    near = difflib.get_close_matches(name, known, 3, 0.6)
    way_out = f"did you mean {' or '.join(near)}?" if near else f"they are {' '.join(known)}"
    sys.stderr.write(f"error: expected a command of gen, got {name!r}; {way_out}\n")
    sys.exit(2)

"""The folder of a run: no run is overwritten, lost, or mistaken for another."""

from __future__ import annotations

import functools
import operator
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, get_args

from jsonargparse import Namespace
from lightning import LightningModule

from gen import files, tasks
from gen.checkpoint import find
from gen.files import WeightsError, packaged, read_yaml

# Parsing imports wandb, which would send reports of errors to its makers, even offline.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


def is_used(out: str | Path) -> bool:
    """True if a folder holds a run: a checkpoint. A run that never saved has a config alone."""
    names = os.listdir(out) if os.path.isdir(out) else []
    return any(name.endswith((".ckpt", ".safetensors")) for name in names)


def next_free(out: str | Path) -> Path:
    """`out` with the first free number after it, such as `runs/mine.1`."""
    path, number = Path(os.path.abspath(out)), 1
    while path.with_name(f"{path.name}.{number}").exists():
        number += 1
    return Path(out).parent / f"{path.name}.{number}"


def check_free(c: Any, arguments: Sequence[str]) -> None:
    """Refuses a fit that would overwrite a run, or move its own inputs away.

    Args:
        c: configuration of `gen fit`.
        arguments: words of the command line, to show the command that resumes.

    Raises:
        FileExistsError: `out` holds a run; says how to resume.
        ValueError: `overwrite`, and an option that names a file in `out`.
    """
    if not is_used(c.out):
        return
    if c.overwrite:
        rest = {key: value for key, value in c.items() if key not in ("out", "config")}
        for name in find_words(rest):
            if os.path.exists(name) and is_inside(name, c.out):
                raise ValueError(
                    f"--overwrite: expected nothing to be read from {c.out}, which it moves, got "
                    f"{name}; choose another --out"
                )
        return
    if c.ckpt_path and is_inside(c.ckpt_path, c.out):
        return
    if c.ckpt_path:
        raise FileExistsError(
            f"{c.out}: expected a new folder, or a --ckpt_path of the run that it holds, got that "
            f"of another, {c.ckpt_path}; choose another --out"
        )
    last = Path(c.out, "last.ckpt")
    resume = shlex.join(["gen", *arguments, "--ckpt_path", str(last)])
    raise FileExistsError(
        f"{c.out}: expected a new folder, got one that holds a run; choose another --out, begin "
        f"anew with --overwrite, which moves the run to {next_free(c.out)}"
        + (f", or resume it:\n  {resume}" if last.exists() else "")
    )


def is_inside(file: str | Path, folder: str | Path) -> bool:
    """True if a file or folder is in a folder, or is this folder."""
    file = Path(file).resolve()
    return Path(folder).resolve() in (file, *file.parents)


def find_words(value: Any) -> Iterator[str]:
    """All texts in nested lists, dicts and namespaces."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, list | tuple):
        yield from (word for item in value for word in find_words(item))
    elif isinstance(value, dict | Namespace):
        yield from find_words([*value.values()])


def prepare(c: Any, subcommand: str, arguments: Sequence[str]) -> AbstractContextManager:
    """Resolves `ckpt_path`, and refuses what would harm a run, before anything is built.

    In this context `out` is a temporary folder if `fast_dev_run` is on, which keeps nothing.
    """
    if c.ckpt_path:
        c.ckpt_path = str(find(c.ckpt_path, c.out))
    if c.trainer.fast_dev_run:
        scratch = tempfile.TemporaryDirectory(prefix="gen-")
        c.out = scratch.name
        return scratch
    if subcommand == "fit" and is_first_process():
        check_free(c, arguments)
    return nullcontext()


def find_configs(words: Sequence[str]) -> list[str]:
    """The words, with the package's file in place of a `configs/..` that is not there."""
    found = []
    for word in words:  # FILE, --config=FILE, -cFILE
        start, path = re.fullmatch(r"(--config=|-c)?(.*)", word, re.S).groups(default="")
        found.append(f"{start}{packaged(path)}" if path.startswith("configs/") else word)
    return found


def check_configs(words: Sequence[str]) -> None:
    """Refuses a config file that is not plain YAML, before the parser expands it."""
    for before, word in zip(["", *words], words, strict=False):
        named = before in ("-c", "--config") or word.startswith(("-c", "--config="))
        for path in (word, word.partition("=")[2], word[2:]):  # -c FILE, --config=FILE, -cFILE
            if (named or path.endswith((".yaml", ".yml"))) and os.path.isfile(path):
                read_yaml(path)


class Saved(NamedTuple):
    """The content of a run's config.yaml; missing values are empty."""

    data: str  # path of its class
    root: str
    init_from: str
    precision: str  # value of --trainer.precision
    model: str  # path of its class
    out: str


def read_saved(path: str | Path) -> Saved:
    """Reads the data of a run, and the weights that it started from, from its config.yaml.

    Raises:
        WeightsError: the file is no such config.
    """
    config = read_yaml(path)

    def text(*keys: str, or_number: bool = False) -> str:
        value = config
        try:
            for key in keys:
                value = (value or {}).get(key)
            value = str(value or "") if or_number and isinstance(value, int) else value
            return "" + (value or "")
        except (AttributeError, TypeError) as error:
            raise WeightsError(
                f"{path}: expected the config of a run, with text at {'.'.join(keys)}, got "
                f"{value!r:.100}"
            ) from error

    init = "init_args"
    return Saved(
        text("data", "class_path"),
        text("data", init, "root"),
        text("model", init, "init_from"),
        text("trainer", "precision", or_number=True),
        text("model", "class_path"),
        text("out"),
    )


def is_first_process() -> bool:
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank == 0


@contextmanager
def claim(c: Any, subcommand: str) -> Iterator[None]:
    """Creates the folder `out` of a fit and locks it in this context; `overwrite` empties it.

    A last.ckpt that is not resumed is kept as last.ckpt.1.

    Raises:
        BlockingIOError: another process trains in this folder.
    """
    if subcommand != "fit" or not is_first_process():
        yield
        return
    descriptor = lock(c.out)
    try:
        if c.overwrite and is_used(c.out):
            os.rename(c.out, next_free(c.out))
            os.close(descriptor)
            descriptor = lock(c.out)
        last = Path(c.out, "last.ckpt")
        if last.exists() and not last.samefile(c.ckpt_path):
            shutil.copy2(last, next_free(last))
        yield
    finally:
        os.close(descriptor)


def lock(out: str | Path) -> int:
    """Locks the folder of a run, which it makes; on Windows, that is a file beside it."""
    os.makedirs(out, exist_ok=True)
    path, flags = out, os.O_RDONLY
    if files.WINDOWS:  # which opens no folders
        path, flags = f"{os.path.abspath(out)}.lock", os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags)
    try:
        files.lock(descriptor, wait=False)
    except BlockingIOError:
        os.close(descriptor)
        told = f"{out}: expected a folder of its own, got one that another process trains in now"
        raise BlockingIOError(f"{told}; wait for it, or choose another --out") from None
    return descriptor


def pick_subcommand(known: dict[str, set[str]], words: Sequence[str]) -> dict[str, set[str]]:
    """The subcommand that the words of a command line begin with, or all if they begin otherwise.

    The parser of each one takes a tenth of a second or two to make.
    """
    return {verb: known[verb] for verb in words[:1] if verb in known} or known


def put_integers_first(parser: Any) -> None:
    """Keeps a typed 1 an integer: for `limit_val_batches`, 1 is one batch and 1.0 all batches.

    `typing` keeps the order in which any package first wrote Union[float, int].
    """
    for action in parser._actions:
        kinds = get_args(getattr(action, "_typehint", None))
        if int in kinds and float in kinds:
            rest = (kind for kind in kinds if kind is not int)
            action._typehint = functools.reduce(operator.or_, rest, int)


def judges(c: Any, subcommand: str, method: LightningModule, given: list) -> list:
    """Callbacks, besides those `given`, with which validate and test measure `method`.

    Raises:
        ValueError: these commands, or predict, can do nothing with this method.
    """
    from gen.callbacks import Evaluate, OfImages
    from gen.methods.base import GANMethod

    name, cls = type(method).__name__, type(method)
    if subcommand == "predict" and cls.predict_step is LightningModule.predict_step:
        raise ValueError(
            f"gen predict: expected a translator or a classifier, got {tasks.describe(method)}"
        )
    limit = {"validate": "limit_val_batches", "test": "limit_test_batches"}.get(subcommand)
    if limit is None:
        return []
    if c.trainer[limit] == 0:  # a fit without validation
        c.trainer[limit] = None
    silent = cls.validation_step in (GANMethod.validation_step, LightningModule.validation_step)
    if not silent or any(isinstance(callback, Evaluate) for callback in given):
        return []
    if not OfImages.takes(method):
        raise ValueError(
            f"gen {subcommand}: expected a translator, a generator or a classifier, got {name}; "
            "gen evaluate measures it"
        )
    return [Evaluate()]


def loggers(c: Any, subcommand: str) -> list[Any]:
    """Loggers of a run: always CSV, and those that --logger and --wandb name."""
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

    fit = subcommand == "fit"
    made: list[Any] = [CSVLogger(c.out, name="logs" if fit else subcommand)]
    if c.logger == "tensorboard":
        import tensorboard  # noqa: F401  a missing one is told with the extra that brings it

        part = "" if fit else subcommand
        made.append(TensorBoardLogger(c.out, "tensorboard", part, default_hp_metric=False))
    if c.logger == "wandb" or c.wandb != "off":
        import wandb  # noqa: F401  as above

        made.append(WandbLogger(save_dir=c.out, offline=c.wandb == "offline"))
    return made


def equip(c: Any, subcommand: str, method: LightningModule, data: Any) -> dict[str, Any]:
    """Options of a run's trainer: folder, loggers, callbacks, and the writer of checkpoints."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    from gen.callbacks import Bar, Last, Lines, Predictions
    from gen.checkpoint import AtomicCheckpointIO
    from gen.files import keep_inputs

    for key in ("default_root_dir", "logger", "plugins"):
        if c.trainer[key] is not None:
            raise ValueError(f"--trainer.{key}: expected nothing; --out, --logger set it")
    keep_inputs([getattr(data, "root", None)], [c.out])
    if c.monitor and c.trainer.limit_val_batches == 0:
        raise ValueError(
            "--monitor: expected validation, which saves best.ckpt, got "
            "--trainer.limit_val_batches 0"
        )
    out = Path(c.out)
    given = c.trainer.callbacks or []
    callbacks = [*given] if isinstance(given, list) else [given]
    callbacks += [Last(out / "last.ckpt", c.save_every), Predictions()]
    callbacks += judges(c, subcommand, method, callbacks)
    bar = c.trainer.enable_progress_bar is not False
    if bar:
        callbacks.append(Bar() if sys.stderr.isatty() else Lines())
    if c.monitor:
        best = dict(monitor=c.monitor, mode=c.mode, enable_version_counter=False)
        callbacks.append(ModelCheckpoint(out, "best", **best))
    return dict(
        default_root_dir=out,
        logger=loggers(c, subcommand),
        plugins=AtomicCheckpointIO(),
        callbacks=callbacks,
        enable_progress_bar=bar and sys.stderr.isatty(),
    )

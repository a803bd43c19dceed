"""Callbacks that keep a run safe and visible: checkpoints, stop on a signal, progress bar.

`gen fit` installs all of them except `Samples` and `Evaluate`, which a config adds.
"""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from gen import tasks
from gen.devices import Arrival
from gen.files import parse_yaml, sweep, write_atomic

if TYPE_CHECKING:
    from PIL import Image


class Last(Checkpoint):
    """Saves `last.ckpt` every `every_n_steps` iterations, at the end, and on a signal.

    SIGTERM or one Ctrl-C ends the iteration, saves, and stops; a second Ctrl-C stops at once.
    With several GPUs the run stops one iteration later, so that processes need not wait for each
    other's signals. A run killed during validation repeats this validation on resume.
    """

    def __init__(self, path: str | Path, every_n_steps: int = 500) -> None:
        self.path, self.every_n_steps = Path(path), every_n_steps
        self.signal: int | None = None
        self.saved, self.validating = -1, False
        self.pending: Arrival | None = None  # number of processes asked to stop
        self.previous: dict[int, Any] = {}  # handlers of signals, to restore

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        sweep(self.path)  # leftovers of a killed run
        signals = (signal.SIGINT, signal.SIGTERM)
        self.previous = {s: signal.signal(s, self.request) for s in signals}

    def request(self, number: int, _: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def on_train_batch_end(self, trainer: Trainer, method: LightningModule, *_: Any) -> None:
        stop = self.any_process_stops(trainer)
        if stop:
            trainer.should_stop, trainer.limit_val_batches = True, 0  # otherwise it validates first
        if stop or trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def any_process_stops(self, trainer: Trainer) -> bool:
        """True if any process was asked to stop; then all processes must save."""
        stop = self.signal is not None
        if trainer.world_size == 1:
            return stop
        device = trainer.strategy.root_device
        count = torch.full((), float(stop), device=device)
        before, self.pending = (
            self.pending,
            Arrival(trainer.strategy.reduce(count, reduce_op="sum")),
        )
        answer = self.pending if device.type == "cpu" else before
        return answer is not None and bool(answer.value() > 0)

    def on_validation_start(self, trainer: Trainer, method: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.saved, self.validating = -1, True  # the last file knows no validation
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()  # starts from 0
            self.save(trainer)  # a signal waits for the end of the validation, which may be long

    def on_validation_end(self, trainer: Trainer, method: LightningModule) -> None:
        self.saved, self.validating = -1, False  # the end of the run saves that it is finished

    def on_save_checkpoint(
        self, trainer: Trainer, method: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.validating:  # as inside its first batch; otherwise Lightning takes it for finished
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress["total"] |= dict(ready=1, started=1, processed=0, completed=0)

    def on_train_end(self, trainer: Trainer, method: LightningModule) -> None:
        self.save(trainer)
        self.on_exception()
        if self.signal is not None:
            rank_zero_info(f"Stopped at iteration {trainer.global_step}; {self.path} resumes it.")

    def on_exception(self, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def save(self, trainer: Trainer) -> None:
        if trainer.global_step > self.saved:
            self.saved = trainer.global_step
            trainer.save_checkpoint(self.path, False)


class Config(Callback):
    """Writes `config.yaml` beside each run's first checkpoint: the configuration of its training.

    The checkpoint holds it as plain text, too; on resume, differences are printed.

    Args:
        parser, config: parser and configuration of `gen fit`.
    """

    where = ("out", "ckpt_path", "overwrite", "config", "model")  # the method prints its own

    def __init__(self, parser: Any, config: Any) -> None:
        config = config.clone()
        config.ckpt_path, config.overwrite = None, False  # for a new run
        self.text, self.saved = parser.dump(config, skip_none=False), False

    def options(self) -> dict[str, str]:
        """All options by name, as on the command line."""
        found, rest = {}, [("", parse_yaml(self.text, "config.yaml"))]
        while rest:
            above, value = rest.pop()
            if isinstance(value, dict) and not above.endswith("callbacks"):
                rest += [(f"{above}.{key}".strip("."), value[key]) for key in reversed(value)]
            else:
                found[above.replace(".init_args", "")] = str(value)
        return {key: value for key, value in found.items() if key.split(".")[0] not in self.where}

    def on_save_checkpoint(
        self, trainer: Trainer, method: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit":
            checkpoint["config"] = self.options()
            if trainer.is_global_zero and not self.saved:
                path = Path(trainer.default_root_dir, "config.yaml")
                write_atomic(path, self.text.encode())
                self.saved = True

    def on_load_checkpoint(
        self, trainer: Trainer, method: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint.get("config")
        if trainer.state.fn == "fit" and isinstance(saved, dict):
            for key, now in self.options().items():
                if saved.get(key, now) != now:
                    rank_zero_info(f"resume: {key} was {saved[key]}, is now {now}")


class Predictions(Callback):
    """`gen predict` writes `predictions/<index>_<domain>.png` for every source and domain.

    For a classifier it writes `predictions.csv`: index, class and the probability of each class or
    of each attribute.
    """

    started = False  # writing predictions.csv in this run

    def on_predict_batch_end(
        self, trainer: Trainer, method: LightningModule, outputs: Tensor, batch: Any, *_: Any
    ) -> None:
        from gen import viz

        folder = Path(trainer.default_root_dir, "predictions")
        if outputs.ndim == 2:
            self.write_shares(folder.with_suffix(".csv"), method, outputs, batch["index"])
            return
        folder.mkdir(parents=True, exist_ok=True)
        for index, images in zip(batch["index"].tolist(), outputs, strict=True):
            for domain, image in zip(method.domains, images, strict=True):
                viz.to_pil(image).save(folder / f"{index:05d}_{domain}.png")

    def write_shares(
        self, path: Path, method: LightningModule, shares: Tensor, index: Tensor
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        attributes = getattr(method, "attribute_names", [])
        names = attributes or method.domains
        head = ["index", *names] if attributes else ["index", "class", *names]
        lines = [] if self.started else [head]
        for i, row in zip(index.tolist(), shares.tolist(), strict=True):
            best = [] if attributes else [names[max(range(len(row)), key=row.__getitem__)]]
            lines.append([str(i), *best, *(f"{p:.6f}" for p in row)])
        how = dict(encoding="utf-8", errors="surrogateescape", newline="")
        with open(path, "a" if self.started else "w", **how) as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
        self.started = True


class Bar(TQDMProgressBar):
    """Progress bar over the iterations of the run, or of an epoch, with the main terms."""

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate)

    def on_train_epoch_start(self, trainer: Trainer, method: LightningModule) -> None:
        super().on_train_epoch_start(trainer, method)
        of = f" {trainer.current_epoch + 1}/{trainer.max_epochs}" if trainer.max_steps < 1 else ""
        self.train_progress_bar.set_description(f"train{of}")

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        super().on_train_start(trainer, method)
        if trainer.max_steps > 0:  # on resume, Lightning gives the bar no total
            self.train_progress_bar.reset(trainer.max_steps)
            self.train_progress_bar.initial = trainer.global_step

    def get_metrics(self, trainer: Trainer, method: LightningModule) -> dict[str, str]:
        return headline(trainer)


class Lines(Callback):
    """Replaces the bar if the output is no terminal: a line every tenth of the run, or every 1,000
    iterations of an endless run."""

    def on_train_batch_end(self, trainer: Trainer, method: LightningModule, *_: Any) -> None:
        total, done = trainer.estimated_stepping_batches, trainer.global_step
        ends = total != float("inf")
        part = total / 10 if ends else 1000
        if done // part > (done - 1) // part:
            shown = " ".join(f"{k}={v}" for k, v in headline(trainer).items())
            of = f" of {total:,} ({done / total:.0%})" if ends else ""
            rank_zero_info(f"iteration {done:,}{of} {shown}")


def headline(trainer: Trainer) -> dict[str, str]:
    """The main logged terms."""
    return {
        name.removeprefix("latent/"): f"{value:.2f}"
        for name, value in trainer.callback_metrics.items()
        if name.startswith(("latent/", "d/real", "d/fake", "train/"))
    }


class OfImages(Callback):
    """Refuses, before training, a method that neither translates nor generates images."""

    @staticmethod
    def takes(method: LightningModule) -> bool:
        return tasks.of(method) in ("translator", "generator")

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        if not self.takes(method):
            raise ValueError(
                f"{type(self).__name__}: expected a translator or a generator, got "
                f"{type(method).__name__}; leave the callback out, see gen evaluate"
            )


class Evaluate(OfImages):
    """Measures a translator or a generator whenever Lightning validates or tests.

    Args:
        max_sources: number of validation images used as sources, spread over the domains; for a
            generator the number of paths, and 5 times as many for PPL.
        metrics: groups of `gen.evaluation.translators.evaluate` or of `evaluate_generator`; empty:
            intra, inter and translation for a translator, fidelity for a generator.
        seed: seed of sources, latents and references, equal in every evaluation.
        images: number of images from which fidelity is computed for a generator.
    """

    def __init__(
        self,
        max_sources: int = 32,
        metrics: tuple[str, ...] = (),
        seed: int = 777,
        images: int = 1000,
    ) -> None:
        self.max_sources, self.metrics, self.seed, self.images = max_sources, metrics, seed, images

    def on_fit_start(self, trainer: Trainer, method: LightningModule) -> None:
        """Refuses metrics that cannot be measured, before the first iteration."""
        if trainer.limit_val_batches:
            self.run(method, trainer.datamodule, checked=True)

    def run(self, method: LightningModule, data: Any, checked: bool = False) -> Any:
        """The rows; with `checked`, only a check of the arguments."""
        in_training = tasks.evaluator(method, type(self).__name__).in_training
        counts = self.max_sources, self.images
        return in_training(method, data, self.metrics, counts, self.seed, checked)

    def on_validation_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        rows = self.run(method, trainer.datamodule)
        method.log_dict({f"val/{row['metric']}": row["value"] for row in rows})
        show_table(trainer, "val/rows", rows)

    on_test_epoch_end = on_validation_epoch_end


class Samples(OfImages):
    """Writes `samples/<iteration>.png`, with EMA weights and always the same sources and seeds; the
    loggers of `gen fit --logger` show it, too.

    Args:
        every_n_steps: iterations between two pictures.
        sources: number of validation images shown; a generator shows 8 times as many of its own.
        seeds: number of latents for each domain.
    """

    def __init__(self, every_n_steps: int = 1000, sources: int = 8, seeds: int = 2) -> None:
        self.every_n_steps, self.sources, self.seeds = every_n_steps, sources, seeds

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, method: LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            from gen import viz
            from gen.inference import common, generation, translation

            if tasks.of(method) == "generator":
                picture = viz.grid(
                    generation.generated(method, range(8 * self.sources)), cell_px=96
                )
            else:
                images = trainer.datamodule.val
                chosen = common.pick(images, -(-self.sources // len(images.domains)))
                x, _ = common.batch(method, images, chosen)
                rows, headers = translation.latent_grid(method, x, range(self.seeds))
                picture = viz.grid(rows, headers=headers, lead=(0, 1), cell_px=96)
            path = Path(trainer.default_root_dir, "samples", f"{trainer.global_step:06d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            show_picture(trainer, "samples", picture)


def show_picture(trainer: Trainer, name: str, picture: Image.Image) -> None:
    """Sends a picture to TensorBoard and Weights & Biases, if the run has them."""
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")


def show_table(trainer: Trainer, name: str, rows: list[dict[str, Any]]) -> None:
    """Sends rows of an evaluation to Weights & Biases as a table, if the run has it."""
    from lightning.pytorch.loggers import WandbLogger

    columns = ["metric", "value", "low", "high", "count", "protocol"]
    ends = [row["ci95"] or (None, None) for row in rows]
    data = [
        [row["metric"], row["value"], *end, row["count"], row["protocol"]]
        for row, end in zip(rows, ends, strict=True)
    ]
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(name, columns, data, step=trainer.global_step)

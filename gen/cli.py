"""The `gen` command."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads can be 15x slower
os.environ.setdefault("GOMP_SPINCOUNT", "0")

HELP = """usage: gen {fit,validate,test,predict} -c CONFIG.yaml [--key value ...]

  gen fit -c configs/smooth_i2i/emoji64_cpu.yaml --out runs/mine     train
  gen fit -c ... --ckpt_path runs/mine/last.ckpt                     resume
  gen fit -c ... --model.init_from checkpoints/X.safetensors         fine-tune
  gen validate -c ... --ckpt_path runs/mine/last.ckpt                measure
  gen fit -c ... --print_config                                      every option and its value
  gen fit --model.help SmoothI2I                                     the options of a method
  gen fit --help                                                     all of it
"""


def main(args: list[str] | None = None) -> None:
    if (sys.argv[1:] if args is None else args) in ([], ["-h"], ["--help"]):
        print(HELP, end="")  # without the seconds that importing torch and lightning takes
        return

    from lightning import LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    import gen.data
    import gen.methods
    from gen.callbacks import Bar, Last, Predictions
    from gen.checkpoint import AtomicCheckpointIO
    from gen.files import keep_inputs

    noise = "in eval mode at the start|by the model summary|treespec, LeafSpec"
    warnings.filterwarnings("ignore", f".*({noise})")
    for package in (gen.data, gen.methods):  # so that the parser finds `SmoothI2I`, `Heads`
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)

    class SaveConfig(SaveConfigCallback):
        def save_config(self, trainer: Trainer, *_: Any) -> None:
            path = Path(trainer.default_root_dir, "config.yaml")
            self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)

    class CLI(LightningCLI):
        def init_parser(self, **kwargs: Any) -> Any:
            return super().init_parser(**kwargs, allow_abbrev=False)  # else typos pass for others

        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--out", default="runs/run", help="folder of the run")
            parser.add_argument("--wandb", type=Literal["off", "offline", "online"], default="off")
            parser.add_argument("--save_every", type=int, default=500, help="iterations")
            parser.add_argument("--monitor", type=str, default="", help="metric of best.ckpt")
            parser.add_argument("--mode", type=Literal["min", "max"], default="min")
            for name in ("num_domains", "num_classes"):  # whichever the method has
                target = f"model.init_args.{name}"
                parser.link_arguments("data.num_domains", target, apply_on="instantiate")

        def _parse_ckpt_path(self) -> None:
            """Nothing: a checkpoint neither overrides the command line nor names a class."""

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            c, out = self.config_init[self.subcommand], Path(self.config_init[self.subcommand].out)
            for key in ("default_root_dir", "logger", "plugins"):
                if c.trainer[key] is not None:
                    raise ValueError(f"--trainer.{key}: expected nothing; --out, --wandb set it")
            keep_inputs([getattr(self.datamodule, "root", None)], [out])
            if c.monitor and c.trainer.limit_val_batches == 0:
                raise ValueError(
                    "--monitor: expected validation, got --trainer.limit_val_batches 0"
                )
            weights = c.ckpt_path or self.model.hparams.get("init_from")
            if self.subcommand != "fit" and not weights:
                raise ValueError("expected --ckpt_path or --model.init_from, got random weights")
            loggers: list[Any] = [CSVLogger(out, name="logs")]
            if c.wandb != "off":
                loggers.append(WandbLogger(save_dir=out, offline=c.wandb == "offline"))
            given = c.trainer.callbacks or []
            callbacks = [*given] if isinstance(given, list) else [given]
            callbacks += [Last(out / "last.ckpt", c.save_every), Predictions()]
            callbacks += [Bar()] if c.trainer.enable_progress_bar is not False else []
            if c.monitor:
                best = dict(monitor=c.monitor, mode=c.mode, enable_version_counter=False)
                callbacks.append(ModelCheckpoint(out, "best", **best))
            kwargs |= dict(default_root_dir=out, logger=loggers, plugins=AtomicCheckpointIO())
            trainer = super().instantiate_trainer(callbacks=[*callbacks], **kwargs)
            if c.trainer.strategy == "auto" and trainer.world_size > 1:
                # A step trains some of the networks; plain ddp would wait for the others' gradients
                kwargs["strategy"] = "ddp_find_unused_parameters_true"
                trainer = super().instantiate_trainer(callbacks=[*callbacks], **kwargs)
            return trainer

    cli = CLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,  # it puts the paths of classes into checkpoints
        save_config_callback=SaveConfig,
        save_config_kwargs=dict(save_to_log_dir=False),
        seed_everything_default=777,
        trainer_defaults=dict(
            use_distributed_sampler=False, num_sanity_val_steps=0, check_val_every_n_epoch=None
        ),
        args=args,
    )
    stopped = next(c.signal for c in cli.trainer.callbacks if isinstance(c, Last))
    if stopped and cli.trainer.is_global_zero:  # another rank's code would have rank 0 killed
        sys.exit(128 + stopped)

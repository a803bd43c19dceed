"""The `gen` command."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, Literal, NoReturn

from gen import verbs
from gen.commands import explain, import_modules, plain_errors


def main(args: list[str] | None = None) -> None:
    """Runs `gen`; `args` default to those of the process. Mistakes end in one line of text."""
    words = sys.argv[1:] if args is None else args
    if words in ([], ["-h"], ["--help"]):
        print(verbs.describe(), end="")  # without the seconds of importing torch and lightning
        return
    if verbs.run(words):
        return
    with plain_errors(ours_alone=True) if args is None else nullcontext():
        run(args, words)


def run(args: list[str] | None, words: list[str]) -> None:
    from lightning import LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    import gen.data
    import gen.methods
    from gen import runs
    from gen.callbacks import Config, Last

    sys.path.append(os.getcwd())  # for a method of your own; the script `gen` has its own folder
    noise = "in eval mode at the start|by the model summary|treespec, LeafSpec"
    warnings.filterwarnings("ignore", f".*({noise})")
    import_modules(gen.data, gen.methods)  # so that the parser finds `SmoothI2I`, `Heads`
    parsers: list[LightningArgumentParser] = []

    class Parser(LightningArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            names = {action.dest for parser in parsers for action in parser._actions}
            explained = explain(message, sorted(names), [*dir(gen.methods), *dir(gen.data)], words)
            if explained and self.exit_on_error:
                self.exit(2, f"error: {explained}\n")
            super().error(message, ex)

    class CLI(LightningCLI):
        subcommands = partial(runs.pick_subcommand, LightningCLI.subcommands(), words)

        def init_parser(self, **kwargs: Any) -> Any:
            parsers.append(super().init_parser(**kwargs, allow_abbrev=False))  # would accept typos
            return parsers[-1]

        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--out", default="runs/run", help="folder of the run")
            again = "begin anew in a used --out: its run is moved to OUT.1"
            parser.add_argument("--overwrite", action="store_true", help=again)
            more = "what shows values and pictures besides CSV files; wandb: see --wandb, too"
            kinds = Literal["csv", "tensorboard", "wandb"]
            parser.add_argument("--logger", type=kinds, default="csv", help=more)
            modes = "off is online with --logger wandb; offline sends nothing"
            kinds = Literal["off", "offline", "online"]
            parser.add_argument("--wandb", type=kinds, default="off", help=modes)
            parser.add_argument("--save_every", type=int, default=500, help="iterations")
            parser.add_argument("--monitor", type=str, default="", help="metric of best.ckpt")
            parser.add_argument("--mode", type=Literal["min", "max"], default="min")
            runs.put_integers_first(parser)
            for name in ("num_domains", "num_classes"):  # the one that the method has
                target = f"model.init_args.{name}"
                parser.link_arguments("data.num_domains", target, apply_on="instantiate")

        def _parse_ckpt_path(self) -> None:
            """Does nothing: a checkpoint neither overrides the command line nor names a class."""

        def before_instantiate_classes(self) -> None:
            stack.enter_context(runs.prepare(self.config[self.subcommand], self.subcommand, words))

        def instantiate_trainer(self, **_: Any) -> Trainer:
            c = self.config_init[self.subcommand]
            kwargs = runs.equip(c, self.subcommand, self.model, self.datamodule)
            trainer = super().instantiate_trainer(**kwargs | dict(callbacks=[*kwargs["callbacks"]]))
            if c.trainer.strategy == "auto" and trainer.world_size > 1:
                # A step trains some of the networks; plain ddp would wait for all gradients
                kwargs["strategy"] = "ddp_find_unused_parameters_true"
                trainer = super().instantiate_trainer(**kwargs)
            stack.enter_context(runs.claim(c, self.subcommand))  # after all checks
            return trainer

    runs.check_configs(words := runs.find_configs(words))
    if args is None:
        sys.argv[1:] = words
    with ExitStack() as stack:  # the lock of the run's folder
        cli = CLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # it would put paths of classes into checkpoints
            save_config_callback=Config,
            parser_class=Parser,
            seed_everything_default=777,
            trainer_defaults=dict(
                use_distributed_sampler=False, num_sanity_val_steps=0, check_val_every_n_epoch=None
            ),
            args=args and words,
        )
    stopped = next(c.signal for c in cli.trainer.callbacks if isinstance(c, Last))
    if stopped and cli.trainer.is_global_zero:  # on another rank, this code would get rank 0 killed
        sys.exit(128 + stopped)

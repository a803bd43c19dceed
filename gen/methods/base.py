"""Base classes of methods: checks, randomness, learning rates, NaN stop; steps and EMA of GANs.

Lightning counts every `optimizer.step()` of manual optimisation as a global step. Here only the
last step of an iteration is counted, so `max_steps`, `every_n_train_steps` and `self.global_step`
mean iterations, and a resumed run continues at the right iteration.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

import gen.data
from gen import checkpoint as files
from gen.devices import Arrival, full_precision, slow_bf16
from gen.files import WeightsError
from gen.metrics.checks import check_images
from gen.networks.ada import augment

MORE = 6  # largest ratio of numbers, model in training to file: copies, averages, discriminators


class NonFiniteLoss(RuntimeError):
    """A loss term became NaN or infinite."""


def inference(method: Callable) -> Callable:
    """Runs a method without gradients, in the precision of the weights: no autocast, no TF32."""

    @functools.wraps(method)
    def run(self: Method, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(), full_precision(self.device):
            return method(self, *args, **kwargs)

    return run


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[nn.Module]:
    """Puts the network in eval mode, and afterwards back in its former mode."""
    training = net.training
    try:
        yield net.eval()
    finally:
        net.train(training)


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """sum_k weights[k] * terms[k]."""
    if not terms:
        raise ValueError("expected a weight above 0, got none")
    return sum(weights[name] * term for name, term in terms.items())


def stored(state: dict[str, Tensor], key: str) -> Tensor | None:
    """The tensor `key`; for an average, if it is missing, the tensor of the trained network."""
    return state.get(key, state.get(key.removeprefix("ema.module.")))


class Method(LightningModule):
    """Base of every method. With one optimizer, Lightning does the optimizer steps.

    The constructor of a subclass takes plain scalars, `init_from` among them, and calls
    `save_hyperparameters`. Its `configure_optimizers` returns a list; its `training_step` calls
    `log_terms`.
    """

    ema: ModelEmaV3
    task = ""  # row of `gen.tasks.TASKS`; empty: no task
    learns_from = ""  # `kind` of a DataModule; empty: any
    least_domains = 0  # least number of domains in the training data; codes have none

    def __init__(self) -> None:
        super().__init__()
        self.domains: list[str] = []  # names, from the data or the checkpoint
        self._watched: tuple | None = None
        self._drawn = True  # weights are random: neither trained nor loaded so far

    # ---- one iteration --------------------------------------------------------------------------

    def lr_factor(self, iteration: int) -> float:
        """The factor of all learning rates, a pure function of the iteration."""
        return 1.0

    def on_train_start(self) -> None:
        self._drawn = False
        groups = [g for optimizer in self.trainer.optimizers for g in optimizer.param_groups]
        self._rates = [(group, group["lr"]) for group in groups]

    def on_train_batch_start(self, *_: Any) -> None:
        for group, lr in self._rates:
            group["lr"] = lr * self.lr_factor(self.global_step)

    def step_rng(self, seed: int) -> torch.Generator:
        """The random generator of this iteration, a function of (seed, iteration, rank) only."""
        key = np.random.SeedSequence((seed, self.global_step, self.global_rank))
        return torch.Generator().manual_seed(int(key.generate_state(1)[0]))  # torch keeps 32 bits

    def log_terms(self, terms: dict[str, Tensor], batch: Any) -> None:
        """Logs loss terms and checks them for NaN, on a GPU one iteration later without waiting."""
        terms = {name: value.detach().float() for name, value in terms.items()}
        self.log_dict(terms)
        self.check_finite()  # checks the previous iteration: its numbers have arrived from the GPU
        values = Arrival(torch.stack(list(terms.values())))
        iteration = self.global_step + self.automatic_optimization  # manual: already counted
        self._watched = (iteration, list(terms), values, batch)
        if self.device.type == "cpu":
            self.check_finite()

    def check_finite(self) -> None:
        """Stops the run if a loss term is not finite; names the term and saves its batch."""
        if self._watched is None:
            return
        (iteration, names, values, batch), self._watched = self._watched, None
        found = zip(names, values.value().isfinite().tolist(), strict=True)
        bad = [name for name, ok in found if not ok]
        if bad:
            path = Path(self.trainer.default_root_dir, f"nonfinite_{iteration}.pt").resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(batch, path)
            raise NonFiniteLoss(
                f"iteration {iteration}: expected finite loss terms, got NaN or infinity in "
                f"{', '.join(bad)}. Its batch is in {path}; the last checkpoint is from before. "
                "Look at the batch, or resume with a lower learning rate or in 32-true."
            )

    def on_validation_start(self) -> None:
        """Gives every process the buffers of the first one, such as running statistics."""
        if self.trainer.state.fn != "fit" and not self.trainer.ckpt_path:
            self.load_init()  # not in `setup`: only now a given checkpoint has been loaded
        if self._drawn:
            raise ValueError("expected --ckpt_path or --model.init_from, got random weights")
        if dist.is_available() and dist.is_initialized():
            for buffer in self.buffers():
                dist.broadcast(buffer, 0)

    on_test_start = on_predict_start = on_validation_start

    def make_ema(self, networks: dict[str, nn.Module], decay: float, warmup: bool = False) -> None:
        """Adds the child module `ema` with averages of `networks`: saved, resumed and moved too.

        Parameters are averaged, buffers are copied. With `warmup` the decay of iteration i is at
        most 1 - i^(-2/3), so that short runs also forget the first weights.
        """
        self._averaged, self._warmup = tuple(networks), warmup
        options = dict(use_warmup=warmup, exclude_buffers=True)
        together = nn.ModuleDict(networks)
        if next(together.parameters()).is_meta:  # only names and shapes, see `loading.load`
            self.ema = nn.ModuleDict({"module": together})
            return
        self.ema = ModelEmaV3(together, decay, **options)
        self.ema.requires_grad_(False)

    def average(self) -> None:
        """Updates the averages after an optimizer step."""
        networks = nn.ModuleDict({name: getattr(self, name) for name in self._averaged})
        self.ema.update(networks, self.global_step if self._warmup else None)

    # ---- trainer and processes ------------------------------------------------------------------

    @property
    def trainer_or_none(self) -> Trainer | None:
        """The trainer, or None."""
        return self._trainer  # private, because `trainer` raises if there is none

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.trainer_or_none.world_size if self.trainer_or_none else 1

    def across(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes."""
        return value if self.world == 1 else self.trainer.strategy.reduce(value.clone())

    # ---- checks of inputs for inference ---------------------------------------------------------

    def checked(self, x: Tensor, name: str = "x") -> Tensor:
        """Returns x; ValueError unless images (N, 3, H, H) of the method's size in [-1, 1]."""
        check_images(x, name)
        if tuple(x.shape[2:]) != 2 * (self.img_size,):
            expected, got = 2 * (self.img_size,), tuple(x.shape[2:])
            raise ValueError(
                f"{name}: expected images of {expected} px, got {got}; "
                "gen.inference.common.read resizes a file, gen.data.images.resize a picture"
            )
        return x

    def checked_latents(self, z: Tensor) -> Tensor:
        """Returns z; ValueError unless latents (N, Z)."""
        if not isinstance(z, Tensor) or not z.is_floating_point():
            got = getattr(z, "dtype", type(z).__name__)
            raise ValueError(f"z: expected a float tensor, got {got}")
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z: expected latents (N, {self.latent_dim}), got {tuple(z.shape)}")
        return z

    def domain(self, y: Any, domains: int, count: int) -> Tensor | int:
        """Index of one domain, or `count` indices, from indices or names; else ValueError."""

        def number(one: Any) -> Any:
            return self.domains.index(one) if one in self.domains else one

        try:
            named = [number(one) for one in y] if isinstance(y, list | tuple) else number(y)
            label = torch.as_tensor(y if isinstance(y, Tensor) else named, device=self.device)
            whole = not label.is_floating_point() and label.dtype != torch.bool
            shaped = label.ndim == 0 or label.shape == (count,)
            fits = whole and shaped and ((label >= 0) & (label < domains)).all()
        except (TypeError, ValueError, RuntimeError):  # torch takes neither None nor a name
            fits = False
        if not fits:
            raise ValueError(
                f"y: expected one of 0 .. {domains - 1} or of {self.domains}, or {count} of them, "
                f"got {y!r:.200}"
            )
        return label.long() if label.ndim else int(label)

    # ---- checkpoints and data -------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Method:
        """Lightning's method, on a file that was checked before; `gen.load` is simpler."""
        files.read_trained(checkpoint_path)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def on_fit_start(self) -> None:
        if (batches := self.trainer.accumulate_grad_batches) != 1:
            raise ValueError(
                f"accumulate_grad_batches: expected 1, got {batches}: the number of an iteration "
                "decides its data; raise --data.batch_size"
            )
        if (world := self.trainer.world_size) > 1 and self.trainer.datamodule is not None:
            batch = self.trainer.datamodule.batch_size
            rank_zero_info(
                f"batch: {batch} on each of {world} devices, {batch * world} an iteration; rates "
                "are as given (--trainer.devices 1 takes one device)"
            )
        kind = slow_bf16(self.device)
        if kind and "16" in (precision := str(self.trainer.precision)):
            rank_zero_info(
                f"precision: {precision} takes several times as long as 32-true on this CPU "
                f"({kind}, no AVX512); faster: --trainer.precision 32-true"
            )
        if not self.trainer.ckpt_path:
            self.load_init()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_finite()  # never saves weights after a NaN
        bad = [k for k, v in checkpoint["state_dict"].items() if not v.isfinite().all()]
        if bad:  # a NaN only in a gradient, or on another rank
            raise NonFiniteLoss(
                f"iteration {self.global_step}: expected finite weights, got NaN or infinity in "
                f"{', '.join(bad[:5])}; not saved, the last checkpoint is from before"
            )
        checkpoint["method"] = type(self).__name__
        checkpoint["domains"] = self.domains

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets the command line override the checkpoint, also in optimizers; prints differences."""
        self.check_domains(checkpoint.get("domains"))
        self.check_shapes(checkpoint["state_dict"], "checkpoint")
        saved = checkpoint.get("hyper_parameters", {}) | {"method": checkpoint.get("method")}
        now = dict(self.hparams) | {"method": type(self).__name__}
        for key in now:
            if key in saved and saved[key] != now[key]:
                rank_zero_info(f"resume: {key} was {saved[key]}, is now {now[key]}")
        if self.trainer_or_none is None or self.trainer.state.fn != "fit":
            return
        states, made = checkpoint.get("optimizer_states", []), self.configure_optimizers()
        if len(states) != len(made):
            raise ValueError(
                f"expected a checkpoint of {len(made)} optimizers, got {len(states)}; keep the "
                "weights that were 0 at 0, or begin with --model.init_from"
            )
        for state, optimizer in zip(states, made, strict=True):
            both = (optimizer.param_groups, state["param_groups"])
            expected, got = ([len(group["params"]) for group in groups] for groups in both)
            if expected != got:
                raise ValueError(
                    f"expected a checkpoint with {len(expected)} groups of parameters, as this "
                    f"optimizer has, got {len(got)}{' others' * (len(got) == len(expected))}; keep "
                    "the options that group them (layer_decay), or begin with --model.init_from"
                )
            for old, new in zip(*both[::-1], strict=True):
                old.update({k: v for k, v in new.items() if k != "params"})

    def setup(self, stage: str) -> None:
        """Takes the names of the domains from the data."""
        # DDP would broadcast buffers before each forward pass, also in validation. There a process
        # with fewer batches would let the others wait for ever.
        names = [name for name, _ in self.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)
        if (data := self.trainer.datamodule) is not None:
            names, self.domains = self.domains, list(data.domains)
            self.check_domains(names)
            self.check_data(data, stage)

    def load_init(self) -> None:
        """Loads the weights of `init_from`, if it is given."""
        if path := self.hparams.init_from:
            checkpoint = files.read(path)
            self.check_domains(checkpoint.domains)
            self.load_weights(checkpoint.state, path)
            rank_zero_info(f"init_from: started from {path}")

    def check_data(self, data: Any, stage: str) -> None:
        """Raises ValueError for data of another kind or size, or with too few domains to train on.

        Data of an unknown kind (your own) passes.
        """
        wanted = self.learns_from if stage == "fit" else self.learns_from.partition(" ")[0]
        kind = getattr(data, "kind", wanted)
        if not kind.startswith(wanted):
            fit = [n for n in dir(gen.data) if getattr(gen.data, n).kind.startswith(wanted)]
            fit = fit or ["Domains, Classes or Attributes with --data.alpha true"]
            raise ValueError(
                f"--data: expected {wanted} for {type(self).__name__}, as {' or '.join(fit)} give, "
                f"got {kind}, from {type(data).__name__}"
            )
        expected, got = getattr(self, "img_size", None), getattr(data, "img_size", None)
        if expected and got and expected != got:
            raise ValueError(
                f"--data.img_size: expected {expected} px, as --model.img_size, got {got}; set "
                "both alike"
            )
        if stage == "fit" and len(self.domains) < self.least_domains:
            raise ValueError(
                f"expected data of at least {self.least_domains} domains for "
                f"{type(self).__name__}, got {self.domains}; one folder a domain"
            )

    def check_domains(self, trained: list[str] | None) -> None:
        if trained and self.domains and list(trained) != self.domains:
            raise ValueError(
                f"expected data with the domains of the checkpoint, {list(trained)}, got "
                f"{self.domains}; rename the folders, or train without the checkpoint"
            )

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._drawn = False
        return super().load_state_dict(*args, **kwargs)

    def load_weights(self, state: dict[str, Tensor], source: str | Path) -> None:
        """Loads `state`; trained networks that the file lacks get the averages."""
        full = {k: stored(state, k) for k in self.state_dict()}
        self.check_shapes(full, source)
        self.load_state_dict(full)

    def check_extent(self, state: dict[str, Tensor], source: str | Path) -> None:
        """Raises WeightsError if `state` cannot be weights of this method (on the meta device).

        `state` may lack tensors that only training needs, up to MORE times its own size.
        """
        own = self.state_dict()
        given = {k: stored(state, k) for k in own}
        self.check_shapes({k: own[k] if v is None else v for k, v in given.items()}, source)
        size, most = (sum(v.numel() for v in some.values()) for some in (own, state))
        if size > MORE * most + 2**24:
            raise WeightsError(
                f"{source}: expected options of a model of {most} numbers, got one of {size}; "
                "take the file as it was written"
            )

    def check_shapes(self, state: dict[str, Tensor | None], source: str | Path) -> None:
        """Raises WeightsError at the first tensor that is missing or has another shape."""
        for key, value in self.state_dict().items():
            expected, got = tuple(value.shape), state.get(key)
            if got is None or tuple(got.shape) != expected:
                raise WeightsError(
                    f"{source}: {key}: expected shape {expected}, got "
                    f"{'none' if got is None else tuple(got.shape)}; "
                    "give the model the options that the file was trained with (see its card)"
                )


class GANMethod(Method):
    """Base of methods with several optimizers.

    A subclass calls `make_ema` after it has built its networks. Its `training_step` calls `update`
    for each optimizer step, with `last=True` for the last one of the iteration, then `finish`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.ada_on_host, self._signs = torch.zeros(()), None  # copy of `ada_p`; see `ask_signs`

    def on_train_start(self) -> None:
        super().on_train_start()
        if "ada_p" in self._buffers:
            self.ada_on_host = self.ada_p.cpu()

    def on_fit_start(self) -> None:
        # Private, because the strategy has no public access to the options of DDP.
        options = getattr(self.trainer.strategy, "_ddp_kwargs", None)
        if options is not None and not options.get("find_unused_parameters"):
            raise ValueError(
                "strategy: expected ddp_find_unused_parameters_true (each step of a GAN trains "
                "some of its networks), got ddp"
            )
        if (got := self.trainer.precision) not in ("32-true", "bf16-mixed"):
            raise ValueError(f"precision: expected 32-true or bf16-mixed, got {got}")
        super().on_fit_start()

    @contextmanager
    def frozen(self, *networks: nn.Module) -> Iterator[None]:
        """Context where gradients flow through `networks` but not into their weights."""
        for network in networks:
            network.requires_grad_(False)
        try:
            yield
        finally:
            for network in networks:
                network.requires_grad_(True)

    def update(
        self,
        loss: Tensor,
        *optimizers: LightningOptimizer,
        last: bool = False,
        clip: float = 0.0,
        precise: bool = False,
    ) -> None:
        """Backpropagates `loss`, steps each optimizer and frees gradients; counts if `last`.

        `clip` > 0 is the largest norm of the gradient of each optimizer's parameters. `precise`
        runs backward in full precision, for losses that differentiate twice.
        """
        with full_precision(self.device) if precise else nullcontext():
            self.manual_backward(loss)
        for i, optimizer in enumerate(optimizers, start=1):
            if clip:
                groups = optimizer.param_groups
                clip_grad_norm_([p for group in groups for p in group["params"]], clip)
            counted = last and i == len(optimizers)
            (optimizer if counted else optimizer.optimizer).step()
            optimizer.zero_grad(set_to_none=True)
        # Autocast still has low-precision copies of the old weights.
        torch.clear_autocast_cache()

    def finish(self, terms: dict[str, Tensor], batch: Any) -> None:
        """Ends the iteration: updates the averages and calls `log_terms`."""
        self.average()
        self.log_terms(terms, batch)

    # ---- augmentation of D's images; options ada_target, ada_kimg, augment ----------------------

    ada_p: Tensor  # () probability of each augmentation
    ada_signs: Tensor  # (2,) signs of real logits: sum, count

    def augmented(
        self, x: Tensor, rng: torch.Generator, pixels: torch.Generator | None = None
    ) -> Tensor:
        """Augments images (N, 3, H, W), real or fake, for D; `rng` is on the CPU, `pixels` draws
        noise on the device of the images."""
        h = self.hparams
        return augment(x.float(), self.ada_on_host, rng, h.augment, pixels) if h.ada_target else x

    def ask_signs(self, iteration: int) -> None:
        """Starts copying the signs so far to the CPU, at the start of every 4th iteration."""
        if self.hparams.ada_target and iteration % 4 == 1:
            self._signs = Arrival(self.across(self.ada_signs))
            self.ada_signs.zero_()

    def count_signs(self, logits: Tensor) -> None:
        """Adds the signs of logits of real images, of any shape."""
        signs = logits.detach().sign()
        self.ada_signs += torch.stack([signs.sum(), signs.new_full((), signs.numel())])

    def adapt(self, images: int) -> None:
        """Adapts the probability of augmentation to the signs that `ask_signs` asked for.

        Called at the end of an iteration of `images` images, when the signs have arrived.
        """
        h = self.hparams
        signs, self._signs = self._signs, None
        total, count = (0, 0) if signs is None else signs.value()
        if count:
            step = (total / count - h.ada_target).sign() * images * 4 / (h.ada_kimg * 1000)
            self.ada_on_host = (self.ada_on_host + step).clamp(min=0)
            self.ada_p.fill_(self.ada_on_host.item())

    def validation_step(self, *_: Any) -> None:
        """Does nothing: the callback `Evaluate` measures, through the inference interface."""

    test_step = validation_step

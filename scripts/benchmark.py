"""Measures training, scoring and loading; prints a table and, last, one JSON line.

train        a training step, by phase; --vs literal: with the published step, and our fast step;
             --vs plain --option KEY=VALUE ..: with these options of the method, and without
scoring      interpolations and translations: ours against one PNG folder at a time, pair by pair
entropy      spatial entropy, forward and backward: ours against one map and component at a time
fir          StyleGAN2's resampling: zeros and a whole convolution against ours, 2-D and separable
data         images per second from the loader, by number of workers
floors       the ratios of all the above to the published ways, each with the least that it should
             be; the exit status is 1 if one is below
export       graphs of a checkpoint: eager beside torch.compile and onnxruntime, by threads, and
             what int8 costs
flops        operations and memory of a step at the size of a config; hours of the whole run

and what other files tests/literal_*.py add; --help lists them.

Time: all sides run in turn in one process, so that a busy machine slows all equally; the first
round is a warm-up. Phases: D, G latent and G ref are forward and backward (our D also renders the
latent fake that the generator reuses), update is optimizers and EMA. With lazy R1 a round is one
iteration with R1 and one without, weighted 1 : K - 1. `cpu s` is processor time.

Memory: the peak of two iterations, the first with R1, in a separate process: VmHWM with libraries,
or on a GPU the peak of tensors.
"""

import argparse
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `gen`
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import numpy as np
import torch
from torch import Tensor

import gen
from gen.checkpoint import find
from gen.commands import number, plain_errors
from gen.data import Domains, Heads
from gen.evaluation.results import versions
from gen.files import parse_yaml, read_yaml, sha256
from gen.interpolation import alphas, path
from gen.methods import SmoothI2I, StarGAN
from gen.networks.perceptual import LPIPS

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import export_page
from harness import bare
from literal_fir import fir_rows
from literal_scores import entropy_rows, race, smoothness_ways, translation_ways
from literal_step import LiteralStep

TESTS = Path(__file__).resolve().parents[1] / "tests"
METHODS = {"SmoothI2I": SmoothI2I, "StarGAN": StarGAN}
TINY = "--img-size 32 --base-channels 4 --max-channels 8 --device cpu"
FLOORS = [  # words, number of the row, its ratio, the least; on an idle core there is half to spare
    (f"train --method StarGAN --vs literal --iterations 3 {TINY}", 1, "time x", 1.0),
    (f"scoring --sources 1 {TINY}", 0, "ratio", 1.2),  # a path
    (f"scoring --sources 1 {TINY}", 1, "ratio", 5.0),  # a translation
    ("entropy --device cpu", 0, "ratio", 4.0),  # maps of noise
    ("entropy --device cpu", 1, "ratio", 2.5),  # maps of few components
    ("fir --device cpu --batch-size 2", 1, "x literal", 2.5),
    ("fir --device cpu --batch-size 2", 7, "x literal", 3.5),
]
PHASES = ("D", "G latent", "G ref", "update")
Seconds = dict[str, float]  # of each phase, the sum "s/it", and "cpu s"


class Clock:
    """Seconds of one iteration, by phase."""

    def __init__(self, device: str):
        self.sync = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def start(self) -> None:
        self.sync()
        self.seconds = dict.fromkeys(PHASES, 0.0) | {"cpu s": -time.process_time()}
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        self.sync()
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now

    def stop(self) -> Seconds:
        self.lap("update")
        total = sum(self.seconds[phase] for phase in PHASES)
        self.seconds["cpu s"] += time.process_time()
        return self.seconds | {"s/it": total}


def make_method(base: type, args: argparse.Namespace, **options) -> StarGAN:
    names = "img_size", "base_channels", "max_channels"
    method = base(num_domains=args.domains, **{n: getattr(args, n) for n in names}, **options)
    if isinstance(method, SmoothI2I):
        method._lpips = (LPIPS("alex").to(args.device),)
    method.to(args.device)
    if method.hparams.discriminator != "stargan":
        method.discriminator.attach()
    return method


def make_batch(args: argparse.Namespace) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(3, args.batch_size, 3, args.img_size, args.img_size, generator=rng) * 2 - 1
    y = torch.arange(args.batch_size) % args.domains
    batch = dict(x=x[0], x_ref=x[1], x_ref2=x[2], y=y, y_ref=(y + 1) % args.domains)
    return {name: value.to(args.device) for name, value in batch.items()}


class Side(NamedTuple):
    """One way to make a step; `literal` is the published way."""

    precision: str = "fp32"
    r1_every: int = 1
    single_d_step: bool = False
    literal: bool = False
    options: tuple[str, ...] = ()  # KEY=VALUE options of the method

    @property
    def name(self) -> str:
        lazy = f", R1 every {self.r1_every}" if self.r1_every > 1 else ""
        single = ", one D step" if self.single_d_step else ""
        options = "".join(f", {option}" for option in self.options)
        return "literal, fp32" if self.literal else f"ours, {self.precision}{lazy}{single}{options}"

    def make(self, args: argparse.Namespace) -> Callable[[int], Seconds]:
        """Makes networks and optimizers; returns run(iteration) -> seconds of the phases."""
        return literal(args) if self.literal else ours(args, self)


def ours(args: argparse.Namespace, side: Side) -> Callable[[int], Seconds]:
    clock, batch = Clock(args.device), make_batch(args)

    class Timed(bare(METHODS[args.method])):
        def manual_backward(self, loss: Tensor) -> None:
            super().manual_backward(loss)
            nets = self.discriminator, self.mapping_network  # frozen: none, the first, both
            clock.lap(PHASES[sum(not next(net.parameters()).requires_grad for net in nets)])

        def update(self, *args, **kwargs) -> None:
            super().update(*args, **kwargs)
            clock.lap("update")

    options = dict(r1_every=side.r1_every, single_d_step=side.single_d_step)
    for option in side.options:
        name, _, value = option.partition("=")
        options[name] = parse_yaml(value, option)
    method = make_method(Timed, args, **options)

    def run(iteration: int) -> Seconds:
        method.global_step = iteration
        clock.start()
        with torch.autocast(method.device.type, torch.bfloat16, enabled=side.precision == "bf16"):
            method.training_step(batch)
        return clock.stop()

    return run


def literal(args: argparse.Namespace) -> Callable[[int], Seconds]:
    clock, batch = Clock(args.device), make_batch(args)
    phases = {"d latent": "D", "d ref": "D", "latent": "G latent", "ref": "G ref"}

    class Timed(LiteralStep):
        def record(self, phase: str, stepped: str) -> None:
            clock.lap(phases[phase])

        def step(self, *args) -> None:
            super().step(*args)
            clock.lap("update")

    method = make_method(METHODS[args.method], args)
    step, latent_dim = Timed(method, *getattr(method, "_lpips", ())), method.latent_dim

    def run(iteration: int) -> Seconds:
        step.iteration = iteration
        clock.start()
        step(batch, *torch.randn(2, args.batch_size, latent_dim).to(args.device))
        return clock.stop()

    return run


def train(args: argparse.Namespace) -> list[dict]:
    sides = [Side(args.precision, args.r1_every, args.single_d_step)]
    if args.vs == "plain":
        sides.append(sides[0]._replace(options=tuple(args.option)))
    elif args.vs:
        sides = [Side(literal=True), *sides] + [Side("bf16", 16, True)] * (sides[0] == Side())
    memory = []
    for side in sides:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            memory.append(process.submit(peak_bytes, args, side).result())
    runs = [side.make(args) for side in sides]
    rounds: list[list[Seconds]] = [[] for _ in sides]  # for each side
    for i in range(args.iterations + 1):
        for seconds, run, side in zip(rounds, runs, sides, strict=True):
            seconds.append(one_round(run, side.r1_every, i))
        print("warm" if i == 0 else f"round {i}/{args.iterations}", file=sys.stderr, flush=True)
    rows, literals = [], [s["s/it"] for s in rounds[0][1:]]
    for side, peak, (_, *counted) in zip(sides, memory, rounds, strict=True):
        totals = [s["s/it"] for s in counted]
        low, middle, high = np.quantile(totals, (0.25, 0.5, 0.75)).tolist()
        row = {"side": side.name, "s/it": middle, "q1": low, "q3": high}
        row |= {"images/s": args.batch_size / middle}
        row |= {name: median(s[name] for s in counted) for name in (*PHASES, "cpu s")}
        row["peak MB"] = peak / 1e6
        if args.vs:
            row["time x"] = median(t / t0 for t, t0 in zip(totals, literals, strict=True))
            row["memory x"] = peak / memory[0]
        rows.append(row)
    return rows


def one_round(run: Callable[[int], Seconds], k: int, i: int) -> Seconds:
    """Mean of k iterations from number k i on; only the first has R1."""
    gc.collect()
    first = run(k * i)
    rest = run(k * i + 1) if k > 1 else first
    return {name: (first[name] + (k - 1) * rest[name]) / k for name in first}


def peak_bytes(args: argparse.Namespace, side: Side) -> int:
    """Peak memory of two iterations, to be called in a separate process."""
    run = side.make(args)
    for iteration in range(2):
        run(iteration)
    if args.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(args.device)
    status = Path("/proc/self/status")
    if not status.exists():
        raise ValueError(
            "memory of a CPU: expected Linux, which tells its peak, got another system"
        )
    return int(status.read_text("utf-8").split("VmHWM:")[1].split()[0]) * 1024


def scoring(args: argparse.Namespace) -> list[dict]:
    file = args.checkpoint
    method = gen.load(file, args.device) if file else make_method(StarGAN, args)
    rng, N, size = torch.Generator().manual_seed(0), args.sources, method.img_size
    x, twin = (torch.rand(2, N, 3, size, size, generator=rng) * 2 - 1).to(args.device)
    z = torch.randn(10, N, method.latent_dim, generator=rng).to(args.device)
    content, styles = method.encode(x), [method.map_style(z_k, 1) for z_k in z]
    ends = method.map_style(z[0], 0), styles[0]
    frames = path(lambda s: method.decode(content, s).clamp(-1, 1), *ends, alphas(20))
    outputs = torch.stack([method.decode(content, s) for s in styles], 1).clamp(-1, 1)
    ways = {"path": smoothness_ways(frames), "translation": translation_ways(x, outputs, twin)}
    return [{"scored": name} | race(way) for name, way in ways.items()]


def data(args: argparse.Namespace) -> list[dict]:
    rows = []
    for workers in args.workers:
        common = dict(img_size=args.img_size, batch_size=args.batch_size, num_workers=workers)
        module = Heads(**common) if args.data == "heads" else Domains(args.data, **common)
        module.setup("fit")
        batches = (batch for _ in count() for batch in module.train_dataloader())
        list(islice(batches, 2 * workers + 2))  # workers start and fill their queues
        began = time.perf_counter()
        for _ in islice(batches, args.batches):
            pass
        images = 3 * args.batch_size * args.batches  # per element: source and two references
        rows.append({"workers": workers, "images/s": images / (time.perf_counter() - began)})
    return rows


def flops(args: argparse.Namespace) -> list[dict]:
    from paper_flops import cost

    rows = []
    for config in args.configs:
        trainer, row = read_yaml(config)["trainer"], cost(config)
        steps = trainer.get("max_steps", 0) * row["images"] * trainer.get("devices", 1)
        row["images of the run"] = steps or trainer["max_epochs"] * args.images
        peak = args.tflops or (46.8 if "bf16" in str(trainer.get("precision")) else 5.85)
        row["GPU hours"] = row["images of the run"] * row["GFLOP/image"] / peak / 3.6e6
        rows.append(row)
    return rows


def export(args: argparse.Namespace) -> list[dict]:
    from gen import tasks
    from gen.export import int8, runtimes

    rows, own, path = [], torch.get_num_threads(), find(args.checkpoint)
    args.sha256, args.int8, method = sha256(path), [], gen.load(path)
    with TemporaryDirectory() as folder:
        graphs = runtimes.cut(method)
        for graph in graphs:
            runtimes.save(graph, file := Path(folder, f"{graph.name}.onnx"), "onnx")
            inputs = graph.random(**graph.sizes(args.batch_size))
            compiled = graph._replace(module=torch.compile(graph.module, dynamic=False))
            ways = {"eager": graph.run}
            try:
                compiled.run(inputs)
                ways["compiled"] = compiled.run
            except Exception as error:  # of the compiler of torch, or of the one that it calls
                print(f"{graph.name}: not compiled: {error!s:.80}", file=sys.stderr, flush=True)
            for threads in args.threads:
                torch.set_num_threads(threads)
                ways["onnx"] = runtimes.runner(graph, file, threads)
                clock = time.process_time if threads == 1 else time.perf_counter
                seconds: dict[str, list[float]] = {name: [] for name in ways}
                for _ in range(args.rounds + 1):  # the first round warms up
                    for name, run in ways.items():
                        began = clock()
                        run(inputs)
                        seconds[name].append(clock() - began)
                rows.append({"graph": graph.name, "threads": threads})
                rows[-1]["eager ms"] = 1e3 * median(seconds["eager"][1:])
                for name in ("compiled", "onnx"):  # None: it fails
                    pairs = zip(seconds["eager"][1:], seconds.get(name, [])[1:], strict=False)
                    rows[-1][f"{name} x"] = median([a / b for a, b in pairs] or [None])
            torch.set_num_threads(own)
        if pictures := getattr(tasks.exporter(method, args.checkpoint), "pictures", None):
            args.int8 = int8.write(method, pictures, graphs, Path(folder))
    return rows


def floors(args: argparse.Namespace) -> list[dict]:
    rows, measured = [], {}
    more = [p.get_default("floors") or [] for p in args.commands.values()]
    for words, index, key, floor in sum(more, FLOORS):
        if words not in measured:
            found = args.parse(words.split())
            measured[words] = found.run(found)
        row = measured[words][index]
        ratio = 1 / row[key] if key == "time x" else row[key]
        name = f"{words.split()[0]} {row.get('side') or row.get('scored') or key}"
        rows.append(dict(measured=name, ratio=ratio, floor=floor, holds=ratio >= floor))
    return rows


def show(rows: list[dict]) -> None:
    table = [list(rows[0])]
    table += [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


@plain_errors()
def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--img-size", type=int, default=64)
    common.add_argument("--batch-size", type=int, default=4)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--domains", type=int, default=2)
    model.add_argument("--base-channels", type=int, default=0, help="0: the published widths")
    model.add_argument("--max-channels", type=int, default=512)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ..")
    p = commands.add_parser("train", parents=[common, model])
    p.add_argument("--method", choices=METHODS, default="SmoothI2I")
    p.add_argument(
        "--vs", choices=["literal", "plain"], help="also the published step, or ours with --option"
    )
    p.add_argument("--option", nargs="+", default=[], metavar="KEY=VALUE", help="of the method")
    p.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    p.add_argument("--r1-every", type=int, default=1, metavar="K")
    p.add_argument("--single-d-step", action="store_true")
    p.add_argument("--iterations", type=int, default=5, help="rounds that count")
    p.set_defaults(run=train)
    p = commands.add_parser("scoring", parents=[common, model])
    p.add_argument("--checkpoint", help="default: a generator with random weights")
    p.add_argument("--sources", type=int, default=8)
    p.set_defaults(run=scoring)
    for name, batch_size in {"entropy": 64, "fir": 8}.items():
        p = commands.add_parser(name)
        p.add_argument("--device", default=device)
        p.add_argument("--batch-size", type=int, default=batch_size)
    for found in sorted(TESTS.glob("literal_*.py")):
        if add_command := getattr(importlib.import_module(found.stem), "add_command", None):
            add_command(commands)
    commands.choices["fir"].set_defaults(run=lambda args: fir_rows(args.batch_size, args.device))
    p = commands.choices["entropy"]
    p.add_argument("--step", action="store_true", help="also its share of a ViT-S/16 step")
    p.set_defaults(run=lambda args: entropy_rows(args.batch_size, args.device, args.step))
    p = commands.add_parser("data", parents=[common])
    p.add_argument("--data", required=True, help="a folder, a zip, or `heads`")
    p.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--batches", type=int, default=100)
    p.set_defaults(run=data)
    p = commands.add_parser("export")
    p.add_argument("checkpoint", help="a .safetensors or .ckpt file")
    p.add_argument("--batch-size", type=int, default=1, help="and number of objects")
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--publish", action="store_true", help="write it into docs/export.md, too")
    p.set_defaults(run=export)
    p = commands.add_parser("floors")
    p.set_defaults(run=floors, parse=parser.parse_args, commands=commands.choices)
    p = commands.add_parser("flops")
    p.add_argument("configs", nargs="+", metavar="CONFIG")
    p.add_argument(
        "--tflops", type=number, help="what a GPU reaches; default: 46.8 in bf16, 5.85 in fp32"
    )
    p.add_argument("--images", type=int, default=1281167, help="of an epoch; default: ImageNet")
    p.set_defaults(run=flops)
    args = parser.parse_args()

    show(rows := args.run(args))
    for name in {"run", "parse", "commands", "floors"} & {*vars(args)}:
        delattr(args, name)
    print(json.dumps(line := vars(args) | {"versions": versions(), "rows": rows}))
    if line.pop("publish", False):
        export_page.add(line)
    if not all(row.get("holds", True) for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()

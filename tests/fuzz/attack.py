"""Damaged and hostile files for every door, from seeds: `python attack.py CASES SEED [DOOR ..]`.

It runs in a process of its own, with limits on memory and time, and prints one JSON line a door:
what went wrong. A file is read, or refused in words that name it; within 5 s and 300 MiB; and it
runs nothing.
"""

import io
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data_prep"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from makers import (
    archived,
    change_options,
    chunked,
    configured,
    damage,
    packed,
    pickled,
    pictures,
    rewritten,
    tarred,
    tars,
    told,
    torch_bytes,
    zips,
)
from shards import write_shards

import gen
from gen import checkpoint, fetch
from gen.convert.starganv2 import import_starganv2
from gen.convert.stylegan2 import read_stylegan2
from gen.data.codes import read as read_codes
from gen.data.domains import Domains
from gen.data.images import load_image
from gen.data.shards import Shards
from gen.files import WeightsError
from gen.methods.domain_classifier import DomainClassifier
from gen.methods.linear_directions import LinearDirections
from gen.methods.stargan import StarGAN
from gen.pickles.files import read_pickle, read_state
from gen.report import read_config
from gen.runs import read_saved
from memory import peak_mebibytes, reset_peak
from runs import OPTIONS, rows, ship

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MEBIBYTES = 5, 300  # of a case
WORDS = (WeightsError, ValueError, FileNotFoundError)
WATCHED = ("exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.", "socket.")
ran = []


def watch(event: str, args: tuple) -> None:
    """What runs, but for modules of this machine that are imported for the first time."""
    if ran and event.startswith(WATCHED):
        if event != "exec" or not Path(getattr(args[0], "co_filename", "")).is_file():
            ran.append(event)


# ---- doors --------------------------------------------------------------------------------------


class Door:
    """A way in: files of a name or suffix, made from `seeds` by `makers`, are given to `read`."""

    def __init__(self, name: str, seeds: list[bytes], makers: list[Callable], read: Callable):
        self.name = f"case{name}" if name.startswith(".") else name
        self.seeds, self.makers, self.read = seeds, makers, read


def doors(folder: Path) -> dict[str, Door]:
    torch.manual_seed(0)
    stargan = StarGAN(**OPTIONS["StarGAN"])
    shipped = {
        cls.__name__: ship(cls(**OPTIONS[cls.__name__]), folder / "x.safetensors").read_bytes()
        for cls in (StarGAN, LinearDirections, DomainClassifier)
    }
    trained = dict(
        method="StarGAN", hyper_parameters=dict(stargan.hparams), domains=["a", "b", "c"],
        state_dict=stargan.state_dict(), global_step=3, optimizer_states=[{"state": {0: {}}}],
    )  # fmt: skip
    ckpts = [torch_bytes(trained, new) for new in (True, False)]
    parts = {
        name: {
            k: v[:1].clone() if v.ndim else v
            for k, v in getattr(stargan, name).state_dict().items()
        }
        for name in ("generator", "mapping_network", "style_encoder")
    }
    plain = {"a": torch.ones(3, 2), "b": torch.arange(4), "c": torch.nn.Parameter(torch.ones(2))}
    states = [torch_bytes(plain, new) for new in (True, False)]
    arrays = pickle.dumps({"a": np.ones(3)}, 4)
    codes = io.BytesIO()
    np.save(codes, np.ones((4, 3), np.float32))

    def imported(path: Path) -> None:
        import_starganv2(path, folder / "out.safetensors")

    def imported_config(path: Path) -> None:
        read_saved(path)
        read_config(path.parent)

    def trained_on(path: Path | str) -> None:
        data = Domains(str(path), img_size=8)
        for images in (data.train, data.val):
            images.twin(0, 0)
            for index in range(len(images)):
                images[index]

    (folder / "one.tar").write_bytes(tars()[0])
    pattern = write_shards(Shards(str(folder / "one.tar")), folder / "shards", 3000)
    index = (folder / "shards/index.json").read_bytes()

    def indexed(path: Path) -> None:
        """Errors may name the shards in place of their index."""
        try:
            trained_on(pattern)
        except WORDS as error:
            raise ValueError(str(error).replace(str(path.parent), str(path))) from error

    def load_archive(path: Path) -> None:
        fetch.read_archive(path, ["x/data.pkl"])

    def either(data: bytes, rng: random.Random) -> bytes:
        return archived(data, rng) if data[:2] == b"PK" else damage(data, rng)

    everything = [damage, either]

    saved = "configs/smooth_i2i/emoji64_cpu.yaml", "configs/linear_directions/heads64_cpu.yaml"
    configs = [(ROOT / name).read_bytes() for name in saved]
    rosinality = {"g_ema": plain, "latent_avg": plain["a"]}
    ours, both = [shipped["StarGAN"]], [damage, rewritten]
    return {
        "checkpoint": Door(".ckpt", ckpts, everything, checkpoint.read),
        "safetensors": Door(".safetensors", ours, both, checkpoint.read),
        "options": Door(".safetensors", list(shipped.values()), [change_options], gen.load),
        "starganv2": Door(".ckpt", [torch_bytes(parts)], everything, imported),
        "stylegan2": Door(".pkl", [torch_bytes(rosinality)], everything, read_stylegan2),
        "weights": Door(".pth", states, everything, lambda path: read_state(path, "weights")),
        "arrays": Door(".ckpt", [arrays], [damage, pickled], lambda path: read_pickle(path, "x")),
        "images": Door(".png", pictures(), [damage, chunked], load_image),
        "archives": Door(".zip", states[:1], [damage, archived], load_archive),
        "codes": Door(".npy", [codes.getvalue()], [damage], lambda path: read_codes(str(path))),
        "config": Door("config.yaml", configs, [damage, configured], imported_config),
        "sets": Door(".zip", zips(), [damage, packed], trained_on),
        "tars": Door(".tar", tars(), [damage, tarred], trained_on),
        "shards": Door("shards/index.json", [index], [damage, told], indexed),
    } | {
        name: Door(*import_module(module).parts(name, folder))
        for name, module in rows("DOORS").items()
    }


def slow(path: Path) -> None:
    while True:
        pass


def large(path: Path) -> int:
    return len(bytearray(400 * 2**20))


def rude(path: Path) -> None:
    raise KeyError("x")


def silent(path: Path) -> None:
    raise ValueError("without the path")


def runs(path: Path) -> None:
    os.system("true")


BROKEN = (large, rude, silent, runs, slow)  # the attack must notice


# ---- the attack ---------------------------------------------------------------------------------


def late(*_: object) -> None:
    raise TimeoutError


def begin() -> None:
    """Limits of this process, and the watch over what it runs."""
    repr(torch.ones(2))  # for which torch imports, and that makes named tuples
    sys.addaudithook(watch)
    signal.signal(signal.SIGPROF, late)
    used = 4096 * int(Path("/proc/self/statm").read_text().split()[5])
    resource.setrlimit(resource.RLIMIT_DATA, (used + 2**30, used + 2**30))


def attack(door: Door, name: str, cases: int, seed: int, folder: Path, seconds: float) -> list[str]:
    wrong = []
    for case in range(cases):
        rng = random.Random(f"{seed} {name} {case}")
        path = folder / door.name
        path.write_bytes(rng.choice(door.makers)(rng.choice(door.seeds), rng))
        before = reset_peak()
        ran[:] = ["begin"]
        signal.setitimer(signal.ITIMER_PROF, seconds)
        found = None
        try:
            door.read(path)
        except WORDS as error:
            said = str(error)
            if str(path) not in said or len(said) > 2000 or "allocate" in said:
                found = f"said {said[:300]!r}"
        except BaseException as error:
            found = "".join(traceback.format_exception(error)[-2:])[-600:]
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = peak_mebibytes() - before
        if grown > MEBIBYTES:
            found = f"took {grown} MiB"
        if ran[1:]:
            found = f"ran {ran[1:3]}"
        ran.clear()
        if found:
            wrong.append(f"case {case}: {found}")
    return wrong


def main() -> None:
    cases, seed, *names = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    torch.set_num_threads(1)
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # it says nothing of broken frames
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        known = doors(folder)
        for door in known.values():  # what each imports for the first time is not the file's doing
            for suffix_seed in door.seeds:
                path = folder / door.name
                path.write_bytes(suffix_seed)
                try:
                    door.read(path)
                except WORDS:
                    pass
        begin()
        known |= {read.__name__: Door(".x", [b"abc"], [damage], read) for read in BROKEN}
        for name in names or known:
            began = time.process_time()
            count, limit = (1, 0.5) if known[name].read in BROKEN else (cases, SECONDS)
            wrong = attack(known[name], name, count, seed, folder, limit)
            seconds = time.process_time() - began
            print(json.dumps({"door": name, "wrong": wrong, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()

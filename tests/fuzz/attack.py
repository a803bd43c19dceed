"""Damaged and hostile files for every door, from seeds: `python attack.py CASES SEED [DOOR ..]`.

It runs in a process of its own, with limits on memory and time, and prints one JSON line a door:
what went wrong. A file is read, or refused in words that name it; within 5 s and 300 MiB; and it
runs nothing.
"""

import io
import json
import math
import os
import pickle
import pickletools
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gen
from gen import checkpoint, weights
from gen.data.codes import read as read_codes
from gen.data.images import load_image
from gen.methods.domain_classifier import DomainClassifier
from gen.methods.linear_directions import LinearDirections
from gen.methods.stargan import StarGAN
from gen.official import import_starganv2
from gen.official_stylegan2 import read_stylegan2
from gen.pickle_file import read_pickle, read_state
from gen.weights import WeightsError
from runs import OPTIONS, ship

SECONDS, MEBIBYTES = 5, 300  # of a case
WORDS = (WeightsError, ValueError, FileNotFoundError)
WATCHED = ("exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.", "socket.")
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
NAMES = [b"os\nsystem", b"builtins\neval", b"torch\nFloatStorage", b"builtins\nbytearray", b"a\nb"]
ODD = [
    *(0, -1, 1, 2, 3, 2**16, 2**31, 2**63, 10**18, 10**400, 0.5, -0.0, 1e-320, 1e308, math.inf),
    *(math.nan, True, False, None, "", "x", "\ud800", "\0", "../x", "x" * 5000, [], {}, [[]], [1]),
    *({"a": 1}, [None], "1", "nan", "[" * 5000),
]
ran = []


def watch(event: str, args: tuple) -> None:
    """What runs, but for modules of this machine that are imported for the first time."""
    if ran and event.startswith(WATCHED):
        if event != "exec" or not Path(getattr(args[0], "co_filename", "")).is_file():
            ran.append(event)


# ---- generators ---------------------------------------------------------------------------------


def damage(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, moved, or replaced by numbers at the edges of their range."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 30))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 100, len(data) // 2))
        how = rng.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31 - 1, 2**32, 2**63)))
        elif how == 2:
            data[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1)))
        elif how == 3:
            del data[at : at + size]
        elif how == 4:
            data[at:at] = data[rng.randrange(len(data) + 1) :][:size]
        else:
            data[at : at + size] = rng.randbytes(min(size, 100))
    return bytes(data)


def pickled(data: bytes, rng: random.Random) -> bytes:
    """Opcodes dropped, doubled, swapped, put in, and texts or sizes replaced."""
    places = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    parts = [data[a:b] for a, b in zip(places, places[1:], strict=False)]
    for _ in range(rng.choice((1, 1, 2, 3, 20))):
        at = rng.randrange(len(parts))
        parts[at : at + 1] = rng.choice((
            [],
            [parts[at]] * rng.choice((2, 3, 1000)),
            [rng.choice(parts)],
            [parts[at], rng.choice(OPCODES)],
            [b"c" + rng.choice(NAMES) + b"\n"],
            [b"\x8a\x08" + struct.pack("<q", rng.choice((-1, 0, 2**31, 2**62)))],
            [b"N"], [b"}"], [b"]"], [b")"], [b"X\3\0\0\0abc"], [b"K\7"], [b"G" + b"\x7f" * 8],
        ))  # fmt: skip
        parts = parts or [b"."]
    return b"".join(parts)


def archived(data: bytes, rng: random.Random) -> bytes:
    """The same archive with another pickle, storage, name or kind of member; checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen, how = rng.choice(names), rng.randrange(6)
        for name in names:
            raw = old.read(name)
            if how < 3 and name.endswith("data.pkl"):
                raw = pickled(raw, rng)
            elif name == chosen and how == 3:
                raw = damage(raw, rng) if raw else b"x"
            elif name == chosen and how == 4:
                name = rng.choice(("../x", "/x", name.upper(), f"{name}/data.pkl", "\udcff"))
            kind = zipfile.ZIP_DEFLATED if how == 5 and name == chosen else zipfile.ZIP_STORED
            new.writestr(name.encode("utf-8", "replace").decode(), raw, kind)
    return out.getvalue()


def rewritten(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another entry in its header, or its metadata, or their digest."""
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    key = rng.choice(list(header))
    entry = header[key]
    field = rng.choice(list(entry))
    entry[field] = rng.choice((*ODD[:20], "F32", "I64", "BOOL", [0, 4], [2**40], [0] * 9))
    text = json.dumps(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + rest


def torch_bytes(value: object, new: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=new)
    return out.getvalue()


def pictures() -> list[bytes]:
    rng, out = np.random.default_rng(0), []
    for mode, kind, more in (
        ("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("P", "PNG", {}), ("I;16", "PNG", {}),
        ("RGB", "JPEG", {}), ("RGB", "JPEG", dict(progressive=True)), ("CMYK", "JPEG", {}),
        ("RGB", "WEBP", {}), ("RGBA", "WEBP", dict(save_all=True)), ("RGB", "BMP", {}),
    ):  # fmt: skip
        image = Image.fromarray(rng.integers(0, 255, (24, 20, 3), np.uint8)).convert("RGB")
        image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
        file = io.BytesIO()
        if "save_all" in more:
            more = more | dict(append_images=[image.rotate(90)])
        image.save(file, kind, **more)
        out.append(file.getvalue())
    return out


# ---- doors --------------------------------------------------------------------------------------


class Door:
    """A way in: files of this suffix, made from `seeds` by `makers`, are given to `read`."""

    def __init__(self, suffix: str, seeds: list[bytes], makers: list[Callable], read: Callable):
        self.suffix, self.seeds, self.makers, self.read = suffix, seeds, makers, read


def change_options(data: bytes, rng: random.Random) -> bytes:
    """Options, domains, method or iteration of a .safetensors checkpoint; the tensors stay."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    meta, value = header["__metadata__"], rng.choice(ODD)
    options = json.loads(meta["hparams"])
    what = rng.randrange(10)
    if what < 7:
        options[rng.choice(list(options))] = value
        meta["hparams"] = json.dumps(options)
    elif what == 7:
        meta["domains"] = rng.choice(("", "[", json.dumps(value), json.dumps([value] * 3)))
    elif what == 8:
        meta["iteration"] = rng.choice((*map(str, ODD), "1" * 5000))
    else:
        meta["hparams"] = rng.choice(("", "[" * 5000, json.dumps(value), json.dumps({"x": value})))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


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

    def load_archive(path: Path) -> None:
        weights.read_archive(path, ["x/data.pkl"])

    def either(data: bytes, rng: random.Random) -> bytes:
        return archived(data, rng) if data[:2] == b"PK" else damage(data, rng)

    everything = [damage, either]
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
        "images": Door(".png", pictures(), [damage], load_image),
        "archives": Door(".zip", states[:1], [damage, archived], load_archive),
        "codes": Door(".npy", [codes.getvalue()], [damage], lambda path: read_codes(str(path))),
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
        path = folder / f"case{door.suffix}"
        path.write_bytes(rng.choice(door.makers)(rng.choice(door.seeds), rng))
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # else a higher peak before would hide this one
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) // 1024
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
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        known = doors(folder)
        for door in known.values():  # what each imports for the first time is not the file's doing
            for suffix_seed in door.seeds:
                path = folder / f"case{door.suffix}"
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

"""Damaged and hostile files: each function makes one of a good one, with the draws of `rng`."""

import io
import json
import math
import pickletools
import random
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import torch
from PIL import Image

OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
NAMES = [b"os\nsystem", b"builtins\neval", b"torch\nFloatStorage", b"builtins\nbytearray", b"a\nb"]
ODD = [
    *(0, -1, 1, 2, 3, 2**16, 2**31, 2**63, 10**18, 10**400, 0.5, -0.0, 1e-320, 1e308, math.inf),
    *(math.nan, True, False, None, "", "x", "\ud800", "\0", "../x", "x" * 5000, [], {}, [[]], [1]),
    *({"a": 1}, [None], "1", "nan", "[" * 5000),
]
BOMB = b"x\0\0" + zlib.compress(bytes(2**24))  # text or a profile
CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"gAMA", b"pHYs")
PARTS = [  # of paths
    *("..", ".", "", "/", "C:", "a\\b", "\0", "\n", "\u202e", "\ud800", "train", "TEST", "trainA"),
    *(
        "00000",
        ".hidden",
        "__MACOSX",
        "x" * 5000,
        "a/" * 500,
        "dataset.json",
        "a.png",
        "a.gif",
        "c",
    ),
]
YAMLS = [  # in place of a value
    *("&a [*a]", "*a", "&a {<<: *a}", "!!python/name:os.system", "!!binary aaaa", "!!set {a, b}"),
    *(
        "!!timestamp 2001-01-01",
        "2001-99-99",
        "1" * 5000,
        "0x",
        "1:99:99",
        ".nan",
        "? [a]",
        "[" * 3000,
    ),
    *(
        "{a: " * 200,
        "'" + "x" * 300_000,
        "<<: 3",
        "- a",
        "| ",
        "> x",
        "%TAG",
        "\t",
        "\u2028",
        "---",
    ),
    *(
        "{<<: [[1]]}",
        "{[a]: b}",
        "{{a: b}: c}",
        "!x y",
        "'\\ud800'",
        '"\\ud800"',
        '"\\0"',
        "~",
        "[]",
    ),
]


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


def chunked(data: bytes, rng: random.Random) -> bytes:
    """A PNG with chunks changed, dropped, doubled or put in; checksums fit. Others: damaged."""
    if not data.startswith(b"\x89PNG"):
        return damage(data, rng)
    at, chunks = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(chunks))
        kind, body = chunks[at]
        new = rng.choice(CHUNKS), rng.choice((b"", b"\0", b"x\0y", BOMB, rng.randbytes(30)))
        chunks[at : at + 1] = rng.choice((
            [], [(kind, body)] * 2, [(kind, body), new], [(kind, body), new],
            [(kind, damage(body, rng) if body else b"x")], [(new[0], body)], [rng.choice(chunks)],
        ))  # fmt: skip
        chunks = chunks or [new]
    return data[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in chunks
    )


def packed(data: bytes, rng: random.Random) -> bytes:
    """A zip of images with another name, content, label or kind of member; checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen, how = rng.choice(names), rng.randrange(6)
        for name in names:
            raw, info = old.read(name), zipfile.ZipInfo(name)
            if how == 0 and name == chosen:
                raw = rng.choice((b"", damage(raw, rng), chunked(raw, rng), b"x" * 1000))
            elif how == 1 and name == chosen:
                parts = name.split("/")
                parts[rng.randrange(len(parts))] = rng.choice(PARTS)
                info.filename = "/".join(parts).encode("utf-8", "replace").decode()
            elif how == 2 and name == chosen:
                info.external_attr = rng.choice((0o120777, 0o40777, 0o10777)) << 16
            elif how > 2 and name.endswith(".json"):
                raw = told(raw, rng)
            elif how == 3 and name == chosen:
                continue
            info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            new.writestr(info, raw)
    return out.getvalue()


def tarred(data: bytes, rng: random.Random) -> bytes:
    """A tar of images with another name, size or kind of member; checksums fit."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        members = old.getmembers()
        chosen, how = rng.choice(members), rng.randrange(5)
        for info in members:
            raw = old.extractfile(info).read()
            if how == 0 and info is chosen:
                parts = info.name.split("/")
                parts[rng.randrange(len(parts))] = rng.choice(PARTS)
                info.name = "/".join(parts).encode("utf-8", "replace").decode()
            elif how == 1 and info is chosen:
                info.type = rng.choice(b"1 2 3 4 5 6 7 S L K x g D V Z".split())
            elif how == 2 and info is chosen:
                new.addfile(info, io.BytesIO(raw))  # twice
            elif how == 3 and info is chosen:
                info.size = rng.choice((0, 1, len(raw) + 5, 10**6, 2**33, 2**62))
                info.pax_headers = {"size": ascii(rng.choice(ODD))} if rng.random() < 0.5 else {}
                new.fileobj.write(info.tobuf(tarfile.PAX_FORMAT) + raw)
                continue
            elif how == 4 and info is chosen:
                raw = rng.choice((b"", damage(raw, rng), chunked(raw, rng), b"x" * 1000))
                info.size = len(raw)
            new.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def told(data: bytes, rng: random.Random) -> bytes:
    """JSON in which a value, of any depth, is another."""
    value = root = json.loads(data) or {"": 0}
    while isinstance(value, dict | list) and value:
        inside, keys = value, list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        value = inside[key]
        if rng.random() < 0.3:
            break
    inside[key] = rng.choice(ODD)
    return json.dumps(root).encode()


def configured(data: bytes, rng: random.Random) -> bytes:
    """YAML with values, lines or their depth changed."""
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        key, _, value = lines[at].partition(":")
        odd = rng.choice((*YAMLS, *map(str, ODD)))
        lines[at : at + 1] = rng.choice((
            [], [lines[at]] * rng.choice((2, 2, 2, 2, 2, 2, 2, 2000)), [f"{key}: {odd}"],
            [f"{key}: &a{value}", "b: [" + "*a, " * 9 + "]"], [f"  {lines[at]}"],
            [f"{odd}:{value}"], [f"{key}: {odd}"],
        ))  # fmt: skip
        lines = lines or ["a: b"]
    return "\n".join(lines).encode("utf-8", rng.choice(("replace", "surrogatepass")))


def tars() -> list[bytes]:
    """The data sets of `zips`, as tars."""
    made = []
    for data in zips():
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, tarfile.open(fileobj=file, mode="w") as new:
            for name in old.namelist():
                info = tarfile.TarInfo(name)
                info.size = len(raw := old.read(name))
                new.addfile(info, io.BytesIO(raw))
        made.append(file.getvalue())
    return made


def zips() -> list[bytes]:
    """Data sets: split or not, of two domains as folders or by dataset.json."""
    made, picture = [], pictures()[0]
    labels = [[f"00000/{i}.png", i % 2] for i in range(8)]
    for names, json_name, told in (
        ([f"{s}/{d}/{i}.png" for s in ("train", "val") for d in "ab" for i in range(3)],
         "manifest.json", {"paired": True}),
        ([f"set/{d}/{i}.png" for d in "ab" for i in range(5)], "set/manifest.json", {}),
        ([f"{s}{d}/{i}.png" for s in ("train", "test") for d in "AB" for i in range(3)], "", None),
        ([name for name, _ in labels], "dataset.json", {"labels": labels}),
        ([name for name, _ in labels], "dataset.json", {"labels": None}),
    ):  # fmt: skip
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, picture)
            if json_name:
                archive.writestr(json_name, json.dumps(told))
        made.append(file.getvalue())
    return made

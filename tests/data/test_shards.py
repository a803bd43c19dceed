"""Tar shards: the same data set, run and evaluation as from the folder; what is refused; remote."""

import http.server
import io
import json
import logging
import os
import subprocess
import tarfile
import threading
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import shards as writer
import torch
import verify

from gen.data import Classes, Domains
from gen.data import remote as remote_module
from gen.data.groups import read_groups
from gen.data.images import ImageError
from gen.data.layout import as_root, file_names, find_images, read_file
from gen.data.shards import INDEX, Shards, expand, scan
from gen.evaluation.results import fingerprint
from gen.files import UnavailableError, WeightsError
from pictures import encode, picture, write, zipped
from runs import cut_run, differences, fit, losses, read

NAMES = [f"{s}/{d}/{i}.png" for s in ("train", "val") for d in ("cat", "dog") for i in "abcd"]
LONG = f"train/cat/{'é' * 70}/{'x' * 80}.png"


@pytest.fixture
def root(tmp_path):
    """16 images of two domains and a manifest; one more with a long name that is not ASCII."""
    root = write(tmp_path / "data", [*NAMES, LONG])
    (root / "manifest.json").write_text('{"paired": true}')
    return root


@pytest.fixture
def packed(root, tmp_path):
    """Pattern of its shards; each holds two images."""
    return writer.write_shards(as_root(root), tmp_path / "packed", 4000)


def domains(root):
    return Domains(str(root), img_size=16, batch_size=3, num_workers=0)


# ---- the same data set --------------------------------------------------------------------------


def test_shards_are_the_data_set_of_the_folder(root, packed):
    plain, tars = domains(root), domains(packed)
    assert len(expand(packed)) > 4 and tars.files == plain.files
    for split in ("train", "val"):
        a, b = plain.images(split), tars.images(split)
        assert fingerprint(a) == fingerprint(b) and a.keys == b.keys and a.paired == b.paired
        assert all(torch.equal(a[i]["x"], b[i]["x"]) for i in range(len(a)))
    for p in (0, 7, 10**6):
        assert not differences(plain.draws()[p], tars.draws()[p])
    assert LONG in file_names(as_root(packed))
    classes = [Classes(str(r), img_size=16, num_workers=0).draws()[5]["x"] for r in (root, packed)]
    assert torch.equal(*classes)


def test_any_data_set_becomes_the_same_shards(root, packed, tmp_path, capsys):
    """A zip and shards as the folder; and files beside the images come along."""
    (root / "groups.csv").write_text("path,group\n" + "".join(f"{n},g\n" for n in [*NAMES, LONG]))
    sources = root, zipped(root, tmp_path / "data.zip")
    for k, source in enumerate(sources):
        assert writer.main([str(source), str(tmp_path / f"s{k}"), "--size", "0.004"]) == 0
        pattern = capsys.readouterr().out.split('"')[1]
        assert writer.main([pattern, str(tmp_path / f"t{k}"), "--size", "0.004"]) == 0
    made = [
        {p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("s0", "s1", "t0", "t1")
    ]
    assert made[0] == made[1] == made[2] == made[3] and INDEX in made[0]
    paths = domains(pattern).train.paths
    assert read_groups(as_root(pattern), paths).tolist() == [0] * len(paths)


def test_tars_of_other_programs_need_no_index(root, tmp_path):
    """GNU tar's, with folders, `./` before the names, in any order."""
    order = sorted(NAMES, reverse=True) + [LONG]
    for k in range(2):
        names = [f"./{name}" for name in order[k::2]]
        tar = ["tar", "--no-recursion", "-cf", tmp_path / f"x-{k}.tar", "-C", root]
        subprocess.run([*tar, "./train", *names], check=True)
    (root / "manifest.json").unlink()
    plain, tars = domains(root), domains(tmp_path / "x-{0,1}.tar")
    assert plain.files == tars.files
    assert all(torch.equal(plain.train[i]["x"], tars.train[i]["x"]) for i in range(9))


def test_a_run_from_shards_is_that_from_the_folder_also_resumed(root, packed, tmp_path):
    data = ["--data=Domains", "--data.img_size=32", "--data.batch_size=2", "--save_every=1"]
    folder = cut_run("StarGAN", tmp_path / "a", *data, f"--data.root={root}", first=2, steps=4)
    data.append(f"--data.root={packed}")
    whole = fit("StarGAN", tmp_path / "b", *data, "--data.num_workers=0", steps=4)
    cut = (f"--ckpt_path={folder / 'cut.ckpt'}", "--data.num_workers=2")
    resumed = fit("StarGAN", tmp_path / "c", *data, *cut, steps=4)
    for found in (whole, resumed):
        for part in ("state_dict", "optimizer_states"):
            assert not differences(read(found)[part], read(folder / "last.ckpt")[part])
    rows = losses(folder)
    assert len(rows) == 4 and losses(tmp_path / "b") == rows
    for row, resumed in zip(rows[2:], losses(tmp_path / "c"), strict=True):
        both = {k for k, v in resumed.items() if v}  # D's logits are of the first batch alone
        assert len(both) > 8 and {k: row[k] for k in both} == {k: resumed[k] for k in both}


# ---- names of shards ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["s/{0..3}.tar", "{a,b}/{08..11}-{x,y}.tar", "{1..1}.tar", "x.tar", "{7..10}"]
)
def test_braces_are_those_of_a_shell(pattern):
    echo = ["bash", "-c", rf"printf '%s\n' {pattern}"]
    said = subprocess.run(echo, capture_output=True, text=True).stdout.splitlines()
    assert expand(pattern) == (["1.tar"] if pattern == "{1..1}.tar" else said)


@pytest.mark.parametrize(
    "pattern, told",
    [
        ("x{0..}.tar", "expected braces as"),
        ("x{a}.tar", "expected braces as"),
        ("{{0..1}.tar", "expected braces as"),
        ("{5..2}.tar", "expected a range that counts up.* got {5..2}"),
        ("{0..999999999}.tar", "at most 100000 shards, got {0..999999999}"),
        (f"{'{0..9}' * 6}.tar", "expected at most 100000 shards, got 1000000"),
        ("{0..1}.zip", r"0.zip: expected the path of a .tar file"),
        ("https://127.0.0.1/{0..1}.tar?a=b", "tar.a=b: expected the path of a .tar file"),
        ("http://127.0.0.1/data.zip", "data.zip: expected the path of a .tar file"),
    ],
)
def test_other_patterns_are_refused(pattern, told):
    with pytest.raises(ValueError, match=told):
        domains(pattern).domains  # noqa: B018


# ---- refused in one line ------------------------------------------------------------------------


def refuse(pattern, told, kind=ValueError):
    with pytest.raises(kind, match=told) as error:
        domains(pattern).train[0]
    assert "\n" not in str(error.value)


def test_a_missing_shard_and_a_part_of_the_shards_are_told(packed, tmp_path, caplog):
    first, *_, last = expand(packed)
    refuse(packed.replace("0000..", "0000..1"), "expected a shard of .*, found nothing; correct",
           FileNotFoundError)  # fmt: skip
    os.rename(last, tmp_path / "packed/0099.tar")
    refuse(packed, "found nothing; correct --data.root, or bring", FileNotFoundError)
    refuse(tmp_path / "packed/{0000,0099}.tar", "0099.tar: expected a shard of .*index.json, got")
    with caplog.at_level(logging.WARNING):
        Shards(first).names()
    assert f"only 1 of the {len(expand(packed))} shards in index.json" in caplog.text


@pytest.mark.parametrize("cut", [1, 700, 5000])
@pytest.mark.parametrize("index", [True, False])
def test_a_cut_tar_is_refused(packed, tmp_path, cut, index):
    path = tmp_path / "packed/0001.tar"
    if not index:
        (tmp_path / "packed" / INDEX).unlink()
    size = path.stat().st_size
    end = max(m.offset + m.size for m in scan(path).values())
    os.truncate(path, end - cut + 1 if cut < 5000 else 0)
    told = f"0001.tar: expected {size} bytes as .*index.json says, got .*: cut" if index else "0001"
    refuse(packed, told)


def test_a_tar_that_lost_its_end_is_refused(packed, tmp_path):
    """Between two files, where a reader of tars would stop in silence."""
    path = tmp_path / "packed/0001.tar"
    (tmp_path / "packed" / INDEX).unlink()
    os.truncate(path, sorted(scan(path).values())[-1].offset - 512)
    refuse(packed, "0001.tar: expected a whole, plain tar, got one that is damaged or cut at byte")


def test_another_shard_of_that_size_is_seen_by_its_headers_and_by_verify(packed, tmp_path, capsys):
    first, second = (tmp_path / f"packed/000{n}.tar" for n in (3, 4))
    places = [[(m.offset, m.size) for m in scan(path).values()] for path in (first, second)]
    assert places[0] == places[1]
    name, size = next(iter(scan(first))), places[0][0][1]
    first.write_bytes(second.read_bytes())
    told = f"{first}/{name}: expected a file of {size} bytes at byte 512, got '.*png' of {size}: "
    with pytest.raises(ImageError, match=f"{told}another shard than that of .*index.json; write"):
        Shards(packed).read(name)
    assert verify.main([packed]) == 1
    assert "0003.tar: expected sha256" in capsys.readouterr().out


def test_verify_reads_shards(packed, tmp_path, capsys):
    assert verify.main([packed]) == 0 and "17 of 17 images are usable" in capsys.readouterr().out
    path = tmp_path / "packed/0002.tar"
    data = bytearray(path.read_bytes())
    data[next(iter(scan(path).values())).offset + 60] ^= 255
    path.write_bytes(data)
    assert verify.main([packed]) == 1
    assert "0002.tar: expected sha256" in (said := capsys.readouterr().out)
    assert said.count("damaged") == 2  # the image, too


@pytest.mark.parametrize(
    "name, kind, reason",
    [
        ("../train/cat/9.png", tarfile.REGTYPE, "a path with `..`"),
        ("/train/cat/9.png", tarfile.REGTYPE, "an absolute path"),
        ("train\\cat\\9.png", tarfile.REGTYPE, "a name with an odd character"),
        ("train/cat/9\n.png", tarfile.REGTYPE, "a name with an odd character"),
        ("train/cat/a.png", tarfile.REGTYPE, "there twice"),
        (f"train/{'x' * 1000}/9.png", tarfile.REGTYPE, "too long a name"),
        ("train/cat/9.png", tarfile.SYMTYPE, "no plain file"),
        ("train/cat/9.png", tarfile.LNKTYPE, "no plain file"),
        ("train/cat/9.png", tarfile.FIFOTYPE, "no plain file"),
    ],
)
def test_unsafe_members_are_refused(packed, tmp_path, name, kind, reason):
    path = tmp_path / "packed/0000.tar"
    index = json.loads((tmp_path / "packed" / INDEX).read_text())
    (tmp_path / "packed" / INDEX).unlink()
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/hostname"
        archive.addfile(info, io.BytesIO())
    refuse(packed, f"0000.tar: refused, .* is {reason}; write the tar again")
    if kind == tarfile.REGTYPE:  # an index is believed no more than a tar
        index["shards"][0]["files"].append([name, 512, 0])
        (tmp_path / "packed" / INDEX).write_text(json.dumps(index))
        refuse(packed, "index.json: expected the index of shards that .*; write the shards again")


def test_a_name_in_two_shards_is_refused(packed, tmp_path):
    (tmp_path / "packed" / INDEX).unlink()
    (tmp_path / "packed/0001.tar").write_bytes((tmp_path / "packed/0000.tar").read_bytes())
    refuse(packed, "0001.tar: refused, 'manifest.json' is in two shards")


def change(where, value):
    def work(index):
        *keys, last = where
        at = index
        for key in keys:
            at = at[key]
        at[last] = value

    return work


@pytest.mark.parametrize(
    "damage",
    [
        change(["format"], "2"),
        change(["shards"], 3),
        change(["shards", 0, "sha256"], "x"),
        change(["shards", 0, "sha256"], None),
        change(["shards", 0, "name"], "0001.tar"),
        change(["shards", 0, "files", 0, 1], 0),
        change(["shards", 0, "files", 0, 1], -5000),
        change(["shards", 0, "files", 0, 1], 10**9),
        change(["shards", 0, "files", 0, 2], -1),
        change(["shards", 0, "files", 0, 2], 2**40),
        change(["shards", 0, "files", 0], ["a.png"]),
    ],
)
def test_a_wrong_index_is_refused(packed, tmp_path, damage):
    path = tmp_path / "packed" / INDEX
    damage(index := json.loads(path.read_text()))
    path.write_text(json.dumps(index))
    refuse(packed, f"{path}: expected the index of shards that .* got .*; write the shards again")


def test_what_cannot_be_written_is_refused_before_anything_is(root, tmp_path, capsys):
    out = tmp_path / "out"
    (root / "train/cat/odd\n.png").write_bytes(encode(picture()))
    assert writer.main([str(root), str(out)]) == 1 and not out.exists()
    assert (
        "'train/cat/odd\\n.png' is a name with an odd character; rename" in capsys.readouterr().err
    )
    (root / "train/cat/odd\n.png").unlink()
    write(out, ["mine.png"])
    assert writer.main([str(root), str(out)]) == 1
    assert "expected a new or empty folder, got mine.png" in capsys.readouterr().err
    (out / "mine.png").rename(out / "0000.tar")  # of another program
    assert writer.main([str(root), str(out)]) == 1 and (out / "0000.tar").exists()
    (out / writer.UNFINISHED).touch()  # what a call that was killed leaves
    (out / "0000.tar").rename(out / "0007.part")
    assert writer.main([str(root), str(out)]) == 0 and writer.main([str(root), str(out)]) == 1
    assert "got index.json; choose" in capsys.readouterr().err
    assert not (out / "0007.part").exists() and not (out / writer.UNFINISHED).exists()
    assert writer.main([str(tmp_path / "none"), str(tmp_path / "x")]) == 1
    with pytest.raises(SystemExit):
        writer.main([str(root), str(tmp_path / "x"), "--size", "0"])


# ---- remote -------------------------------------------------------------------------------------


@pytest.fixture
def server(packed, tmp_path, monkeypatch):
    """Serves the folder of the shards; `.seen` lists what was asked for."""
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_module, "PAUSES", (0, 0))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            self.server.seen.append(self.path)
            if self.server.fail > 0:
                self.server.fail -= 1
                return self.send_error(503)
            super().do_GET()

        def log_message(self, *_):
            pass

    handler = partial(Handler, directory=str(tmp_path / "packed"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.seen, server.fail, server.folder = [], 0, tmp_path / "packed"
        server.pattern = f"http://127.0.0.1:{server.server_port}/{Path(packed).name}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_remote_shards_are_fetched_when_read_and_only_once(server, root, tmp_path):
    plain, far = domains(root), domains(server.pattern)
    assert server.seen == []
    assert far.files == plain.files and set(server.seen) == {"/index.json"}
    assert fingerprint(far.train) == fingerprint(plain.train)
    assert torch.equal(far.train[0]["x"], plain.train[0]["x"]) and len(server.seen) == 2
    for split in ("train", "val"):
        a, b = plain.images(split), far.images(split)
        assert all(torch.equal(a[i]["x"], b[i]["x"]) for i in range(len(a)))
    server.shutdown()  # all is in the cache
    server.server_close()
    again = domains(server.pattern)
    assert torch.equal(again.val[7]["x"], plain.val[7]["x"])
    assert len(server.seen) == len(set(server.seen)) == 1 + len(expand(server.pattern))
    [folder] = (tmp_path / "cache/shards").iterdir()
    assert not [p for p in folder.iterdir() if p.suffix == ".part"]


def test_workers_and_processes_fetch_a_shard_once(server, root):
    """Four processes that start together; and two workers of a loader."""
    with get_context("fork").Pool(4) as pool:
        found = pool.map(Shards(server.pattern).read, [NAMES[0]] * 4, chunksize=1)
    assert found == [(root / NAMES[0]).read_bytes()] * 4 and len(server.seen) == 2
    data = Domains(server.pattern, img_size=16, batch_size=3, num_workers=2)
    plain = Domains(str(root), img_size=16, batch_size=3, num_workers=0)
    pairs = zip(data.train_dataloader(), plain.train_dataloader(), strict=True)
    assert all(not differences(a, b) for a, b in pairs)
    assert len(server.seen) == len(set(server.seen))


def test_a_busy_server_is_asked_again_and_one_that_is_gone_is_told(server):
    server.fail = 2
    assert domains(server.pattern).domains == ["cat", "dog"]
    server.fail = 3
    refuse(server.pattern, r"0000.tar: expected a file, got HTTP Error 503.*; check the address",
           UnavailableError)  # fmt: skip
    missing = server.pattern.replace("/{", "/none/{")
    seen = len(server.seen)
    refuse(missing, "none/index.json: expected a file, got HTTP Error 404", UnavailableError)
    assert len(server.seen) == seen + 1
    refuse("http://127.0.0.1:1/{0..1}.tar", "index.json: expected a file, got .*refused",
           UnavailableError)  # fmt: skip


@pytest.mark.parametrize("how", ["other", "longer", "shorter"])
def test_a_remote_shard_that_is_not_that_of_the_index_is_refused(server, how, tmp_path):
    path = server.folder / "0000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes({"other": data, "longer": data + b"x", "shorter": data[:-1]}[how])
    told = "at most" if how == "longer" else r"\d+ bytes with sha256 .*; delete .* and run the same"
    refuse(server.pattern, f"0000.tar: expected {told}", WeightsError)
    assert not list((tmp_path / "cache").rglob("*.tar"))


def test_a_wrong_remote_index_is_not_kept(server):
    path = server.folder / INDEX
    good = path.read_bytes()
    path.write_bytes(b"[1]")
    refuse(server.pattern, "index.json: expected the index of shards")
    path.write_bytes(good)
    assert len(domains(server.pattern).train) == 9


def test_only_web_addresses_are_opened(server, tmp_path):
    """A server cannot send us to a file of this machine."""
    (tmp_path / "secret").write_text("x")

    class Redirect(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"file://{tmp_path}/secret")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Redirect) as other:
        thread = threading.Thread(target=other.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{other.server_port}/x.tar"
        refuse(url, "index.json: expected a file, got HTTP Error 302", UnavailableError)
        other.shutdown()
        thread.join()


def test_a_configuration_opens_no_connection(server):
    """Neither an import nor a DataModule asks the server."""
    Domains(server.pattern)
    Classes(server.pattern)
    assert server.seen == []
    assert find_images(as_root(server.pattern)) and read_file(as_root(server.pattern), NAMES[0])

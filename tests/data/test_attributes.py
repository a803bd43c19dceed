"""Attributes of one's own: what labels.csv and folders say, and what is refused."""

import math
import re
import shutil

import numpy as np
import pytest
import shards
import torch
import verify
from PIL import Image

import gen.data
from gen.data.attributes import Attributes, read_labels

HEAD = "file,kind:cat,kind:dog,spots\n"


def pictures(root, *names, colour="orange"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), colour).save(root / name)


@pytest.fixture
def labelled(tmp_path):
    pictures(tmp_path, *(f"{i:02}.png" for i in range(12)))
    lines = [f"{i:02}.png,{int(i % 2)},,{'' if i % 3 else int(i > 5)}\n" for i in range(12)]
    (tmp_path / "labels.csv").write_text(HEAD + "".join(lines))
    return tmp_path


def same(a, b):
    assert str(a) == str(b)  # nan is not equal to itself


def test_labels_are_one_nothing_or_unknown_and_a_group_excludes(labelled):
    labels = read_labels(labelled)
    assert labels.names == ["cat", "dog", "spots"] and labels.groups == [["cat", "dog"]]
    same(labels.rows["01.png"], [1.0, 0.0, math.nan])  # a cat is no dog
    same(labels.rows["00.png"], [0.0, math.nan, 0.0])
    same(labels.rows["09.png"], [1.0, 0.0, 1.0])


def test_images_are_split_by_a_hash_or_by_their_folders(labelled):
    data = Attributes(str(labelled), img_size=16, batch_size=2, num_workers=0)
    data.setup()
    assert len(data.train) + len(data.val) == 12 and len(data.val) >= 3
    assert data.train.attribute_names == ["cat", "dog", "spots"] and data.domains == ["all"]
    assert not set(data.train.paths) & set(data.val.paths)
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == (2, 3, 16, 16)
    for of in ("", "_ref", "_ref2"):
        assert batch[f"attributes{of}"].shape == (2, 3) and batch[f"factors{of}"].shape == (2, 0)
    names = [f"{split}/{i}.png" for split in ("train", "val") for i in range(2)]
    for name in names:
        pictures(labelled / "two", name)
    (labelled / "two" / "labels.csv").write_text("file,red\n" + "".join(f"{n},1\n" for n in names))
    data = Attributes(str(labelled / "two"), img_size=16)
    assert data.train.paths == names[:2] and data.val.paths == names[2:]


def test_labels_stay_with_their_image(labelled):
    data = Attributes(str(labelled), img_size=16)
    for images in (data.train, data.val):
        for i, path in enumerate(images.paths):
            same(images[i]["attributes"].tolist(), data.labels.rows[path])
    data = Attributes(str(labelled), img_size=16, references=False)
    assert data.kind == "images" and set(data.draws()[0]) == {"x", "y", "attributes", "factors"}


def test_commands_find_them_in_a_folder_or_zip_with_labels(labelled, tmp_path_factory):
    made = shutil.make_archive(str(tmp_path_factory.mktemp("zip") / "x"), "zip", labelled)
    for kind in ("domains", "classes"):
        for source in (labelled, made):
            data = gen.data.open(source, kind, img_size=16, crop_pct=1.0, alpha=kind == "classes")
            assert isinstance(data, Attributes) and data.img_size == 16
            assert data.train[0]["x"].shape == (3 + (kind == "classes"), 16, 16)
    with pytest.raises(ValueError, match="--crop-pct: expected 1, as .* is not cropped, got 0.9"):
        gen.data.open(labelled, "classes", img_size=16, crop_pct=0.9)


def test_labels_of_another_program_are_left_aside(tmp_path, caplog):
    pictures(tmp_path, *(f"{s}/{d}/{i}.png" for s in ("train", "val") for d in "ab" for i in "123"))
    (tmp_path / "labels.csv").write_text("id,label\n1,a\n")
    made = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path)
    for source in (tmp_path, made):
        caplog.clear()
        data = gen.data.open(source, img_size=16)
        assert type(data).__name__ == "Domains" and data.domains == ["a", "b"]
        assert "labels.csv: expected a header that begins with `file,`, got b'id,lab" in caplog.text
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ValueError, match="expected a folder or a zip, got neither"):
        gen.data.open(tmp_path / "text.zip")


def test_transparency_is_kept(tmp_path):
    for name in ("a/0.png", "a/1.png", "b/2.png", "b/3.png"):
        pictures(tmp_path, name)
        Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / name)
    clear, plain = (Attributes(str(tmp_path), img_size=16, alpha=alpha) for alpha in (True, False))
    assert clear.kind == f"transparent {plain.kind} (--data.alpha)"
    assert clear.train[0]["x"].unique().tolist() == [-1] and clear.train[0]["x"].shape[0] == 4
    assert clear.draws()[0]["x"].shape == (4, 16, 16)
    assert plain.train[0]["x"].unique().tolist() == [1] and plain.train[0]["x"].shape[0] == 3


def test_a_zip_of_them_is_read_in_place(labelled, tmp_path_factory):
    made = shutil.make_archive(str(tmp_path_factory.mktemp("zip") / "x"), "zip", labelled)
    same(read_labels(Attributes(made).root), read_labels(labelled))
    assert Attributes(made, img_size=16).train[0]["x"].shape == (3, 16, 16)


def test_shards_of_them_are_found_and_verified(labelled, tmp_path_factory, capsys):
    noise(labelled, *(f"{i:02}.png" for i in range(12)))
    pattern = shards.write_shards(labelled, tmp_path_factory.mktemp("shards") / "x", 10**6)
    data = gen.data.open(pattern, img_size=16)
    same(data.labels, read_labels(labelled))
    assert verify.main([pattern]) == 0 and "12 of 12 images" in capsys.readouterr().out


def test_a_folder_is_an_attribute_and_a_picture_in_two_has_both(tmp_path):
    pictures(tmp_path, *(f"cat/{i}.png" for i in range(4)), *(f"dog/d{i}.png" for i in range(4)))
    labels = read_labels(tmp_path)
    assert labels.names == ["cat", "dog"] and labels.groups == [["cat", "dog"]]
    assert labels.rows["cat/0.png"] == [1, 0] and labels.rows["dog/d0.png"] == [0, 1]
    pictures(tmp_path, "spots/0.png", "spots/d3.png")
    labels = read_labels(tmp_path)
    assert labels.names == ["cat", "dog", "spots"] and labels.groups == []
    assert labels.rows["cat/0.png"] == [1, 0, 1] and labels.rows["dog/d3.png"] == [0, 1, 1]
    assert len(labels.rows) == 8  # each picture once
    pictures(tmp_path, "spots/1.png", colour="teal")
    with pytest.raises(ValueError, match="expected one picture in files of one name.*spots/1.png"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "expected labels.csv of lines in UTF-8, got"),
        ("name,cat\n", "expected a header as file,spots,.* got .name,cat"),
        ("file\n", "expected a header"),
        ("file,cat,cat\n", "each name once"),
        ("file,no-cat\n", "not beginning with no-"),
        ("file,a/b\n", "of letters, digits, _ and -"),
        (HEAD, "expected labels of images in labels.csv, got none"),
        (HEAD + "00.png,1,0\n", "got 2 labels: '00.png', line 2"),
        (HEAD + "00.png,yes,0,\n", "got the label 'yes': '00.png', line 2"),
        (HEAD + "99.png,1,0,\n", "got a file that is not there: '99.png'"),
        (HEAD + "labels.csv,1,0,\n", "got a file that is not there"),
        (HEAD + "00.png,1,0,\n00.png,1,0,\n", "got a file that stands there twice.*line 3"),
        (HEAD + "\n\n00.png,1,0\n", "got 2 labels: '00.png', line 4"),
        (HEAD + "00.png,1,1,\n", "at most one of cat, dog, which exclude each other, got cat and"),
    ],
)
def test_labels_that_say_nothing_clear_are_refused(labelled, text, told):
    (labelled / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_labels(labelled)


@pytest.mark.parametrize(
    "names, told",
    [
        (["a.png"], "expected labels.csv, or one folder an attribute with images, at least 2, got"),
        (["cat/a.png"], "at least 2, got cat"),
        (["my cat/a.png", "dog/b.png"], "got 'my cat'; rename it"),
        (["a/1.png", "b/2.png", "5.png", "4.png"], "of an attribute, got 2 in none, such as 4.png"),
        (["train/a/1.png", "train/b/2.png", "train/3.png"], "got 1 in none, such as train/3.png"),
    ],
)
def test_folders_that_say_nothing_clear_are_refused(tmp_path, names, told):
    pictures(tmp_path, *names)
    with pytest.raises(ValueError, match=told):
        read_labels(tmp_path)


def test_images_in_one_split_alone_are_refused(tmp_path):
    pictures(tmp_path, "train/a.png", "b.png")
    (tmp_path / "labels.csv").write_text("file,red\ntrain/a.png,1\nb.png,0\n")
    with pytest.raises(ValueError, match="got 1 in train/, 0 in val/ and 1 elsewhere"):
        Attributes(str(tmp_path)).train  # noqa: B018
    with pytest.raises(FileNotFoundError, match="expected a folder or zip of images"):
        read_labels(tmp_path / "none")


def test_values_are_floats_with_nan(labelled):
    values = Attributes(str(labelled), img_size=16).train.values
    assert values.dtype == torch.float32 and values.isnan().any() and (values == 1).any()


# ---- gen verify ---------------------------------------------------------------------------------


def noise(root, *names, same=0):
    """Pictures that all differ, or equal ones."""
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(same or k + 1).integers(256, size=(16, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / name)


@pytest.mark.parametrize("zipped", [False, True])
def test_verify_reads_what_attributes_read(labelled, tmp_path_factory, capsys, zipped):
    noise(labelled, *(f"{i:02}.png" for i in range(12)), "more.png")

    def verified():
        made = shutil.make_archive(str(tmp_path_factory.mktemp("zip") / "x"), "zip", labelled)
        return verify.main([made if zipped else str(labelled)]), capsys.readouterr().out

    code, said = verified()
    assert code == 0 and "12 of 12 images are usable" in said
    assert "1 images have no line in labels.csv, such as more.png" in said
    assert "one domain" not in said
    (labelled / "03.png").write_bytes(b"")
    code, said = verified()
    assert code == 1 and "unusable: 03.png: the file is empty" in said
    assert "11 of 12 images are usable" in said
    with open(labelled / "labels.csv", "a") as file:
        file.write("99.png,1,0,\n00.png,1,0,\nmore.png,1,1,\nmore.png,yes,1,\n")
    code, said = verified()
    assert code == 1 and said.count("layout: ") == 4 and "unusable: 03.png: the file" in said
    for told in ("not there: '99.png', line 14", "twice: '00.png', line 15", "got cat and dog of"):
        assert told in said
    assert "got the label 'yes': 'more.png', line 17" in said


def test_verify_reads_folders_of_attributes(tmp_path, capsys):
    """A rare attribute in one split alone, which domains may not be."""
    names = [f"{s}/{a}/{s}{a}{i}.png" for s in ("train", "val") for a in "ab" for i in range(4)]
    noise(tmp_path, *names)
    noise(tmp_path, "train/a/x.png", "train/rare/x.png", same=99)
    assert Attributes(str(tmp_path), img_size=16).train.attribute_names == ["a", "b", "rare"]
    assert verify.main([str(tmp_path)]) == 0
    assert "17 of 17 images are usable" in capsys.readouterr().out
    noise(tmp_path, "train/rare/x.png", same=7)  # another picture of this name
    assert verify.main([str(tmp_path)]) == 1
    assert "layout: " in capsys.readouterr().out


def test_verify_says_which_domains_are_no_attributes(tmp_path, capsys):
    noise(tmp_path, *(f"{a}/{a}{i}.png" for a in "ab" for i in range(6)))
    assert verify.main([str(tmp_path)]) == 0
    assert "attributes" not in capsys.readouterr().out
    noise(tmp_path, "a/x.png", "b/x.png")
    assert verify.main([str(tmp_path)]) == 0
    told = "warning: domains, but no attributes of gen.data.Attributes: .*: expected one picture in"
    assert re.search(told, capsys.readouterr().out)

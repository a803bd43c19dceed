"""Attributes of one's own: what labels.csv and folders say, and what is refused."""

import math
import shutil

import pytest
import torch
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


def test_commands_find_them_in_a_folder_with_labels(labelled):
    for kind in ("domains", "classes"):
        data = gen.data.open(labelled, kind, img_size=16, crop_pct=0.9)
        assert isinstance(data, Attributes) and data.img_size == 16


def test_a_zip_of_them_is_read_in_place(labelled, tmp_path_factory):
    made = shutil.make_archive(str(tmp_path_factory.mktemp("zip") / "x"), "zip", labelled)
    same(read_labels(Attributes(made).root), read_labels(labelled))
    assert Attributes(made, img_size=16).train[0]["x"].shape == (3, 16, 16)


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

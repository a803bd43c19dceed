"""What a folder, or a zip of it, is read as: by training and by gen verify alike."""

import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import verify

import gen
from gen.cli import main
from gen.data import codes
from gen.data.classes import Classes
from gen.data.domains import Domains
from gen.data.layout import file_names, find_images, images_below
from gen.weights import load_safetensors, save_safetensors
from pictures import write, zipped
from runs import arguments, fit


@pytest.fixture(params=["folder", "zip"])
def made(request, tmp_path):
    """A data set of the named images, 3 of each folder, and of other files."""

    def make(*folders: str, **files: str) -> Path:
        root = tmp_path / "data"
        names = [f if f.endswith(".png") else f"{f}/{i}.png" for f in folders for i in "abc"]
        write(root, dict.fromkeys(names))
        for name, text in files.items():
            (root / name.replace("__", "/").replace("_json", ".json")).write_text(text)
        return root if request.param == "folder" else zipped(root, tmp_path / "data.zip")

    return make


def read(root: Path) -> dict[str, dict[str, int]]:
    """Number of images by split and domain, as training and as gen verify read it."""
    splits = find_images(root)
    rows, layout = verify.find(root)
    seen = {s: {d: len(images) for d, images in domains.items()} for s, domains in splits.items()}
    again: dict[str, dict[str, int]] = {split: {} for split in seen}
    for split, domain, _ in rows:
        again[split][domain] = again[split].get(domain, 0) + 1
    assert again == seen and layout == ""
    for kind in (Classes, Domains):
        data = kind(str(root), img_size=8, num_workers=0)
        assert [len(data.train), len(data.val)] == [sum(seen[s].values()) for s in ("train", "val")]
        assert data.val[0]["x"].shape == (3, 8, 8)  # its path is one that can be opened
        assert data.train[len(data.train) - 1]["y"] == len(data.domains) - 1
    return seen


BOTH = {"cat": 3, "dog": 3}


@pytest.mark.parametrize(
    "folders, splits",
    [
        (["trainA", "trainB", "testA", "testB"], "AB"),
        (["h2z/trainA", "h2z/trainB", "h2z/valA", "h2z/valB"], "AB"),
        (["train_a", "train_b", "Test_a", "Test_b"], "AB"),
        (["Train/cat", "Train/dog", "VAL/cat", "VAL/dog"], BOTH),
        (["training/cat", "training/dog", "validation/cat", "validation/dog"], BOTH),
        (["train/cat", "train/dog", "valid/cat", "valid/dog", "valid/.hidden"], BOTH),
        (["train/cat", "train/dog", "Testing/cat", "Testing/dog"], BOTH),
        (["photos/train/cat", "photos/train/dog", "photos/dev/cat", "photos/dev/dog"], BOTH),
        (["__MACOSX/a", ".git/a", "x/train/cat", "x/train/dog", "x/val/cat", "x/val/dog"], BOTH),
    ],
    ids=lambda value: "-".join(value),
)
def test_splits_are_recognised(made, folders, splits):
    one = BOTH if splits is BOTH else {"A": 3, "B": 3}
    assert read(made(*folders)) == {"train": one, "val": one}


def test_test_images_are_never_trained_on(made, caplog):
    seen = read(made("train/cat", "train/dog", "test/cat", "val/cat", "val/dog", "Odd/dog"))
    assert seen == {"train": BOTH, "val": BOTH, "test": {"cat": 3}, "Odd": {"dog": 3}}
    assert "no split for validation" not in caplog.text


def test_a_split_that_lacks_a_domain_keeps_the_labels(made):
    root = made("train/cat", "train/dog", "val/cat", "val/dog", "test/dog")
    for kind in (Classes, Domains):
        images = kind(str(root), img_size=8).images("test")
        assert images.domains == ["cat", "dog"] and images.labels.tolist() == [1] * 3
        with pytest.raises(ValueError, match="split: expected one of train, val, test, got 'odd'"):
            kind(str(root)).images("odd")


def test_a_test_split_stands_in_for_one_for_validation_and_says_so(made, caplog):
    root = made("trainA", "trainB", "testA", "testB")
    find_images(root)
    assert f"{root}: no split for validation: its test split is taken for it" in caplog.text


def test_one_folder_around_the_domains_is_no_domain(made):
    seen = read(made("set/cat", "set/dog/deeper", "set/dog", set__README="words"))
    assert list(seen["train"]) == ["cat", "dog"] and seen["val"] == {"cat": 1, "dog": 3}
    assert any(key == "deeper/a" for s in seen for key, _ in find_images(made())[s]["dog"])


@pytest.mark.parametrize(
    "folders, found",
    [
        (["a/b/cat", "a/b/dog"], r"got b/ \(6 images\), which holds folders alone"),
        (["a/b/train/cat", "a/b/val/cat"], "b/train/, b/val/: is the root too high"),
        (["emoji/train/cat", "emoji/val/cat", "faces/x"], "emoji/train/, emoji/val/: is the root"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "are splits inside of domains"),
        (["A/trainA", "A/trainB", "B/x"], "got A/ .*: A/trainA/, A/trainB/: is the root"),
        (["src/cat", "src/dog", "ref/cat", "ref/dog"], "StarGAN v2's sources and references"),
        (["train2017", "val2017"], r"train2017/ \(3 images\), val2017/ .*, which look like splits"),
        (["cat_train", "cat_test", "dog"], "which look like splits"),
        (["test/cat", "test/dog"], r"train/ is missing.* got test/ \(6 images\)"),
        (["train/cat", "train/dog"], r"val/ is missing.* got train/ \(6 images\)"),
        (["train/cat", "Training/cat", "val/cat"], "one folder a split, got Training and train"),
        (["trainA", "trainB", "testA"], r"expected trainA/.* got testA/ \(3 images\), trainA/"),
        (["trainA", "trainB", "testA", "testB", "cat"], r"got cat/ \(3 images\), testA/"),
        (["trainA", "train_a", "testA", "testB"], "expected trainA/"),
        (
            [f"{s}/{d}" for s in ("setA", "setB") for d in ("cats", "dogs", "deep/er")],
            r"got setA/ \(9 images\), setB/ .*folders cats/, deep/, dogs/: .* Give .*setA; or",
        ),
        (["0/a", "0/b", "1/a", "1/b", "1/c"], "each with the folders a/, b/: is the root too"),
        (["00000", "00001"], r"got 00000/ \(3 images\), 00001/ .* parts of one set; bring its"),
        (["train/00000", "train/00001", "val/00000", "val/00001"], "expected train/<domain>/"),
        (["a.png", "b.png"], "got 2 images in no folder"),
        (["train/a.png", "val/a.png"], "expected train/<domain>/ folders with images, got 1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_is_in_doubt_is_refused_with_what_was_found(made, folders, found, capsys):
    root = made(*folders)
    with pytest.raises(ValueError, match=found) as error:
        find_images(root)
    assert str(error.value).startswith(f"{root}: expected ")
    assert verify.main([str(root)]) == 1
    assert f"layout: {error.value}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "inner", [["cat", "dog", "male", "dog"], ["2019", "2020"] * 2, ["05-1", "a", "05-1", "a"]]
)
def test_folders_in_every_domain_are_remarked(made, caplog, inner):
    """Unless two of their names, which are no counters, are those of all domains."""
    folders = [f"{of}/{name}" for of, name in zip(["afhq"] * 2 + ["faces"] * 2, inner, strict=True)]
    seen = read(made(*folders))
    assert seen["val"] == {"afhq": 3, "faces": 3}
    assert f"all images of afhq/, faces/ lie in folders of these, as {folders[0]}/" in caplog.text


def test_a_domain_may_hold_any_folders(made, caplog):
    """README: photos/<domain>/**, also with images beside folders that all domains have."""
    nested = [f"{d}/{sub}" for d in ("ink", "oil") for sub in ("land/far", "people")]
    assert read(made(*nested, "ink/one.png"))["train"].keys() == {"ink", "oil"}
    assert not caplog.text


def test_images_beside_the_domains_are_named_as_left_out(made, caplog):
    assert read(made("cat", "dog", "one.png", "two.png"))["val"] == {"cat": 1, "dog": 1}
    assert "left out 2 images that lie in no domain's folder" in caplog.text
    assert "not images" not in caplog.text


def test_few_images_are_split_so_that_an_evaluation_works(tmp_path):
    counts = {"a": 2, "b": 3, "c": 5, "d": 6, "e": 20}
    write(tmp_path, [f"{d}/{d}{i:03}.png" for d, n in counts.items() for i in range(n)])
    seen = read(tmp_path)
    assert seen["val"] == {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3}
    assert {d: seen["train"][d] + seen["val"][d] for d in counts} == counts


def test_twins_of_small_domains_are_on_one_side(tmp_path):
    write(tmp_path, [f"{d}/x{i}y.png" for d, n in (("a", 30), ("b", 12)) for i in range(n)])
    splits = find_images(tmp_path)
    train, val = ({key for of in splits[s].values() for key, _ in of} for s in ("train", "val"))
    assert train & val == set() and len(val) >= 3


# ---- NVIDIA's dataset.json ----------------------------------------------------------------------


def shards(made, labels, **files) -> Path:
    text = labels if isinstance(labels, str) else json.dumps({"labels": labels})
    return made("00000", "00001", dataset_json=text, **files)


NAMES = [f"0000{k}/{i}.png" for k in "01" for i in "abc"]


def test_labels_of_dataset_json_are_classes(made):
    labels = [[name, int(name in NAMES[:2])] for name in NAMES]
    root = shards(made, labels)
    seen = read(root)
    assert [seen[s] for s in ("train", "val")] == [{"0": 2, "1": 1}, {"0": 2, "1": 1}]
    paths = {y: {p for s in seen for _, p in find_images(root)[s][y]} for y in "01"}
    assert paths == {"0": set(NAMES[2:]), "1": set(NAMES[:2])}


def test_labels_are_sorted_as_numbers(tmp_path):
    names = [f"0000{k}/{i}.png" for k in range(2) for i in range(12)]
    write(tmp_path, names)
    labels = [[name, i % 12] for i, name in enumerate(names)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert Classes(str(tmp_path)).domains == sorted(f"{y:02}" for y in range(12))


def test_without_labels_all_is_one_class(made):
    root = shards(made, None)
    assert {s: {d: len(of) for d, of in ds.items()} for s, ds in find_images(root).items()} == {
        "train": {"all": 3}, "val": {"all": 3},
    }  # fmt: skip
    assert verify.find(root)[1] == "" and Classes(str(root)).domains == ["all"]


def test_dataset_json_below_one_folder(made):
    root = made("ffhq/00000", "ffhq/00001", ffhq__dataset_json='{"labels": null}')
    assert len(find_images(root)["train"]["all"]) == 3


@pytest.mark.parametrize(
    "labels, got",
    [
        ([[name, 0] for name in NAMES[1:]], "got 00000/a.png in the data set alone"),
        ([[name, 0] for name in [*NAMES, "00002/x.png"]], "got 00002/x.png in it alone"),
        ([[name, 7] for name in NAMES], r"got labels \[7\] of 6 images"),
        ([[name, 0.5] for name in NAMES], r"got labels \[0.5\]"),
        ([[name, -0.0 if i == 5 else i % 2] for i, name in enumerate(NAMES)], r"got labels \["),
        ([[name, False if i == 2 else i % 2] for i, name in enumerate(NAMES)], r"got labels \["),
        ([[name, [1, 0]] for name in NAMES], "got unhashable type"),
        ("labels", "got .*update sequence"),
        ([], r"got labels \[\] of 6"),
    ],
)
def test_labels_that_do_not_fit_are_refused(made, labels, got):
    with pytest.raises(ValueError, match=f"in dataset.json `labels`, null or .*{got}"):
        find_images(shards(made, json.dumps({"labels": labels})))


def test_another_dataset_json_is_left_aside(made):
    root = made("cat", "dog", dataset_json='{"name": "photos"}')
    assert list(read(root)["train"]) == ["cat", "dog"]


# ---- hidden files -------------------------------------------------------------------------------


def test_hidden_files_are_no_images_anywhere(tmp_path, caplog):
    root = write(tmp_path / "data", [f"{d}/{i}.png" for d in ("cat", "dog") for i in range(6)])
    for name in ("cat/._0.png", "__MACOSX/cat/0.png", ".thumbs/0.png", "dog/.x/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no image")
    (root / "cat/7.tif").write_bytes(b"II")
    (root / "cat/8.gif").write_bytes(b"GIF8")
    for source in (root, zipped(root, tmp_path / "data.zip")):
        caplog.clear()
        assert read(source) == {"train": BOTH, "val": BOTH}
        assert "skipped files that are not images: {'.gif': 1, '.tif': 1}" in caplog.text
        assert verify.main([str(source)]) == 0
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(images_below(root)) == 12
    assert "skipped files that are not images: {'.gif': 1, '.tif': 1}" in caplog.text
    assert zipfile.is_zipfile(tmp_path / "data.zip")


def test_folders_are_not_files_that_were_skipped(tmp_path, caplog):
    names = [f"{s}/{d}/deeper/{i}.png" for s in ("train", "val") for d in BOTH for i in range(3)]
    read(write(tmp_path / "data", names))
    assert "skipped" not in caplog.text


# ---- names that are not UTF-8 -------------------------------------------------------------------

ODD = os.fsdecode(b"caf\xe9")


def test_names_that_are_not_utf8(tmp_path):
    names = [f"{ODD}/{d}/{ODD}{i}.png" for d in (ODD, "dog") for i in range(6)]
    root = write(tmp_path, names) / ODD
    assert {d: read(root)["val"][d] for d in (ODD, "dog")} == {ODD: 3, "dog": 3}
    (root / ODD / "empty.png").write_bytes(b"")
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, verify.__file__, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env=strict)
    assert done.returncode == 1 and r"caf\udce9/empty.png: the file is empty" in done.stdout


def test_files_that_are_not_utf8_are_loaded(tmp_path):
    rows = torch.arange(6.0).view(3, 2)
    save_safetensors({"z": rows}, tmp_path / f"{ODD}.safetensors", {"a": "b"})
    tensors, meta = load_safetensors(tmp_path / f"{ODD}.safetensors")
    assert torch.equal(tensors["z"], rows) and meta["a"] == "b"
    assert torch.equal(codes.read(str(tmp_path / f"{ODD}.safetensors")), rows)


def test_a_run_on_names_that_are_not_utf8(tmp_path):
    names = [f"{d}/{ODD}{i}.png" for d in (ODD, "dog") for i in range(4)]
    options = ["--data=Domains", f"--data.root={write(tmp_path / 'data', names)}"]
    last = fit("StarGAN", tmp_path / "run", *options, steps=1)
    assert gen.load(last).domains == [ODD, "dog"]
    again = ["fit", f"--config={last.with_name('config.yaml')}", f"--out={tmp_path / 'again'}"]
    main(again)
    assert gen.load(tmp_path / "again/last.ckpt").domains == [ODD, "dog"]
    predict = arguments("StarGAN", tmp_path / "seen", *options, f"--ckpt_path={last}")
    main(["predict", *predict[1:]])
    assert (tmp_path / f"seen/predictions/00000_{ODD}.png").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("a/1.png", "a/2.png", "b/1.png", "a/1.png"):
            archive.writestr(name, b"x")
    with pytest.raises(ValueError, match="data.zip: refused, 'a/1.png' is there twice"):
        file_names(tmp_path / "data.zip")


def test_a_zip_whose_names_cannot_be_read_is_refused_with_its_path(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("a/\u00e91.png", b"x")
    data = (tmp_path / "data.zip").read_bytes()
    (tmp_path / "data.zip").write_bytes(data.replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(
        ValueError, match="data.zip: expected a folder or a zip, got neither .*utf-8"
    ):
        file_names(tmp_path / "data.zip")

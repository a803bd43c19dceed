"""Evaluation of classifiers: rows, their names and counts, VOC, the scripts."""

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import avg_pool2d

import gen
from cut import check_goes_on
from gen import viz
from gen.data import Classes
from gen.data.classes import plain
from gen.data.groups import read_groups
from gen.data.images import ImageError, load_image
from gen.data.voc import VOC
from gen.evaluation.classifiers import GROUPS, evaluate_classifier
from gen.evaluation.results import to_json
from gen.methods import SpatialEntropy
from gen.metrics.attention import attention, map_variation, mass_on_object, shift_path
from gen.metrics.smoothness import REPORTED
from gen.networks.attention_tap import AttentionTap
from gen.viz import attention as attention_viz
from pictures import with_scans

NAMES = ["disc", "left", "none"]
PX, PATCH = 32, 8


def drawing(name, seed, px=40):
    """An RGBA picture: a disc, the left half, or nothing but noise without transparency."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (px, px, 4), np.uint8)
    r, c = np.mgrid[:px, :px]
    opaque = {"disc": (r - px / 2) ** 2 + (c - px / 2) ** 2 < 150, "left": c < px // 2}
    pixels[..., 3] = 255 * opaque.get(name, np.ones((px, px), bool))
    image = Image.fromarray(pixels)
    return image.convert("RGB") if name == "none" else image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    for split, names, count in (("train", NAMES, 1), ("val", NAMES, 3), ("test", NAMES[:2], 2)):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                drawing(name, k).save(root / split / name / f"{k}.png")
    return Classes(root, img_size=PX, crop_pct=1.0)


@pytest.fixture(scope="module")
def method():
    made = SpatialEntropy("test_vit", img_size=PX, patch_size=PATCH, num_classes=3).eval()
    made.domains = NAMES
    with torch.no_grad():  # clearly apart from the averages, and from initial symmetry
        for p in made.net.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return made


class Knows(nn.Module):
    """Says class 0 but for the image it is told; attends to the left, with two heads."""

    task = "classifier"
    domains, img_size = NAMES, PX

    def __init__(self, told=(), classes=3):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.told, self.classes = told, classes

    def classify(self, x, averaged=True):
        logits = torch.zeros(len(x), self.classes)
        logits[:, 0] = 1
        for known, y in self.told:
            logits[(x == known).flatten(1).all(1), y] = 2
        return logits if averaged else -logits

    def attention(self, x, averaged=True):
        s = torch.zeros(len(x), 2, x.shape[2] // PATCH, x.shape[3] // PATCH)
        s[:, 0, :, : s.shape[3] // 2] = 20
        s[:, 1, 0, 0] = 20
        return s


class Looks(Knows):
    """With these maps (heads, 4, 4) for every image, each times the brightness of the patch."""

    def __init__(self, s, brightness=0.0):
        super().__init__()
        self.s, self.brightness = s, brightness

    def attention(self, x, averaged=True):
        return self.s + self.brightness * avg_pool2d(x.mean(1, keepdim=True), PATCH)


class Plain(nn.Module):
    """A classifier without attention, as `DomainClassifier`."""

    domains, img_size = NAMES, PX

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def classify(self, x):
        return torch.eye(3)[torch.zeros(len(x), dtype=torch.int64)]


def table(rows):
    return {row["metric"]: row["value"] for row in rows}


NO_SHIFT = ["accuracy", "segmentation", "localization", "entropy", "norms"]
JACCARDS = ["jaccard_t60_alpha", "jaccard_t40_alpha", "jaccard_whole_alpha", "auroc_alpha"]
JACCARDS += ["mass_on_object_alpha", "mass_on_object_flat_alpha"]
PLACES = ["corloc", "pointing", "auroc_mean"]
LOCATED = [f"{n}{w}_alpha" for w in ("", "_flat") for n in PLACES]
LOCATED += [f"{n}{w}_alpha" for w in ("_centre", "_untrained") for n in (*PLACES, "mass_on_object")]
NORMS = [f"norm_{n}{w}" for w in ("", "_untrained") for n in ("outliers", "largest")]


def test_rows_of_a_method_of_this_package(method, data, lpips_cache):
    rows = evaluate_classifier(method, data.val, max_images=6, batch_size=4)
    shift = [*(f"{name}_t20_alex_shift" for name in REPORTED), "tv_t20_shift"]
    names = ["top1", "class_mean_top1", "top1_raw", *JACCARDS, *LOCATED]
    names += ["spatial_entropy", "components", *NORMS]
    assert list(table(rows)) == [f"val/{name}" for name in names + shift]
    for line, row in zip(to_json(rows).splitlines(), rows, strict=True):
        assert list(json.loads(line)) == [
            *("metric", "value", "ci95", "protocol", "count", "better", "seed"),
            *("checkpoint_sha256", "versions", "seconds"),
        ]
        assert np.mean(list(row["values"].values())) == pytest.approx(row["value"])
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
        assert row["seconds"] >= 0 and f"{PX} px" in row["protocol"]
    counts = {row["metric"]: row["count"] for row in rows}
    shown = sum(data.val.mask(i) is not None for i in rows[0]["values"])
    assert counts["val/top1"] == counts["val/components"] == 6
    assert counts["val/jaccard_t60_alpha"] == shown < 6


def test_evaluation_twice_and_with_another_batch_size(method, data, monkeypatch):
    images = data.images("val")
    masks = [None, *map(images.mask, range(1, 9))]  # the first image has none
    monkeypatch.setattr(images, "mask", masks.__getitem__)
    once, again, other = (
        table(evaluate_classifier(method, images, metrics=NO_SHIFT, batch_size=size))
        for size in (9, 9, 2)
    )
    assert once == again
    assert other == pytest.approx(once, abs=1e-5)
    few = evaluate_classifier(method, data.val, metrics=["entropy"], max_images=4, seed=1)
    fewer = evaluate_classifier(method, data.val, metrics=["entropy"], max_images=2, seed=1)
    assert fewer[0]["values"].items() <= few[0]["values"].items()


def test_accuracy_by_hand(data):
    images = data.val  # three of each class; said: 0, but one "left" and one "none" are known
    told = [(images[3]["x"], 1), (images[8]["x"], 2)]
    rows = evaluate_classifier(Knows(told), images, metrics=["accuracy"])
    values = table(rows)
    assert values["val/top1"] == pytest.approx(5 / 9)
    assert values["val/class_mean_top1"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert values["val/top1_raw"] == pytest.approx(2 / 9)  # says 1 where it said 0
    assert rows[0]["values"] == {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 0, 6: 0, 7: 0, 8: 1}
    assert rows[1]["values"] == pytest.approx({0: 1, 1: 1 / 3, 2: 1 / 3})
    assert rows[1]["count"] == 9 and "3 classes" in rows[1]["protocol"]
    fewer = evaluate_classifier(Knows(), data.images("test"), "test", metrics=["accuracy"])
    assert table(fewer)["test/class_mean_top1"] == 0.5


def grouped(data, root, rows):
    """The validation images of a copy of `data`, with these lines in its `groups.csv`."""
    shutil.copytree(data.root, root)
    (root / "groups.csv").write_text("\n".join(["path,group", *rows, ""]))
    return Classes(root, img_size=PX).images("val")


def test_intervals_resample_groups(data, tmp_path):
    images = data.images("val")
    rows = [f"{path},{i // 3}" for i, path in enumerate(images.paths)]  # each class is a group
    made = grouped(data, tmp_path / "set", rows)
    plain = evaluate_classifier(Knows(), images, metrics=["accuracy", "segmentation"])
    rows = evaluate_classifier(Knows(), made, metrics=["accuracy", "segmentation"])
    assert table(rows) == table(plain)
    by_name, plain = ({row["metric"]: row for row in some} for some in (rows, plain))
    assert list(by_name) == list(plain)
    for name, row in by_name.items():
        groups = 2 if "alpha" in name else 3  # the third class has no mask
        said = f", {row['count']} images in {groups} groups"
        assert row["protocol"] == plain[name]["protocol"] + said
        assert row["values"] == plain[name]["values"] and row["count"] == plain[name]["count"]
    assert by_name["val/top1"]["ci95"] == [0, 1] != plain["val/top1"]["ci95"]  # 3 draws, not 9
    assert by_name["val/class_mean_top1"]["ci95"] == pytest.approx([1 / 3, 1 / 3])


def test_class_means_resample_the_groups_of_each_class(data, tmp_path):
    images = data.images("val")
    rows = [f"{path},{min(i % 3, 1)}" for i, path in enumerate(images.paths)]  # 0, 1, 1
    made = grouped(data, tmp_path / "set", rows)
    told = [(images[k]["x"], 1) for k in (3, 4)]  # of "left" one of each group, of "none" none
    rows = evaluate_classifier(Knows(told), made, metrics=["accuracy"])
    (row,) = [row for row in rows if row["metric"] == "val/class_mean_top1"]
    assert row["ci95"] == pytest.approx([(1 + 1 / 2) / 3, 2 / 3])  # groups 1, 1 or 0, 0
    alone = [f"{path},{i}" for i, path in enumerate(images.paths)]
    made = grouped(data, tmp_path / "alone", alone)
    alone = evaluate_classifier(Knows(told), made, metrics=["accuracy"])
    plain = evaluate_classifier(Knows(told), images, metrics=["accuracy"])
    assert alone[0]["ci95"] == plain[0]["ci95"]
    assert "9 images in 9 groups" in alone[0]["protocol"] and "group" not in plain[0]["protocol"]


def test_groups_of_a_zip(data, tmp_path):
    rows = [f"{path},{i // 2}" for i, path in enumerate(data.images("val").paths)]
    grouped(data, tmp_path / "set", rows)
    for name, base in (("flat", tmp_path / "set"), ("nested", tmp_path)):
        file = shutil.make_archive(tmp_path / name, "zip", base, "set" if base == tmp_path else ".")
        images = Classes(file, img_size=PX).images("val")
        got = read_groups(images.root, images.paths)
        assert got.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    plain = Classes(shutil.make_archive(tmp_path / "plain", "zip", data.root), img_size=PX)
    assert read_groups(plain.root, plain.images("val").paths) is None


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda rows: rows[1:], "got none of val/disc/0.png"),
        (lambda rows: [*rows, "val/disc/0.png,other"], "two groups of one image"),
        (lambda rows: [*rows, "val/disc/0.png"], r"lines of path,group in groups.csv, got \['val"),
    ],
)
def test_groups_that_do_not_fit(data, tmp_path, change, why):
    rows = change([f"{path},{i}" for i, path in enumerate(data.images("val").paths)])
    with pytest.raises(ValueError, match=why):
        evaluate_classifier(Knows(), grouped(data, tmp_path / "set", rows), metrics=["accuracy"])
    (tmp_path / "set" / "groups.csv").write_text("image;group\n")
    with pytest.raises(ValueError, match="got .'image;group'"):
        read_groups(tmp_path / "set", data.images("val").paths)
    for odd in (b"path,group\ncaf\xe9,1\n", b"path,group\n" + b"x" * 200_000 + b",1\n"):
        (tmp_path / "set" / "groups.csv").write_bytes(odd)
        with pytest.raises(ValueError, match="set: expected groups.csv in UTF-8, got: .*save it"):
            read_groups(tmp_path / "set", data.images("val").paths)


def test_top5_where_there_are_more_classes(data, monkeypatch):
    monkeypatch.setattr(Knows, "classify", lambda self, x, averaged=True: torch.arange(7.0)
                        .flip(0).expand(len(x), 7) * (1 if averaged else -1))  # fmt: skip
    values = table(evaluate_classifier(Knows(), data.val, metrics=["accuracy"]))
    assert values["val/top1"] == pytest.approx(1 / 3) and values["val/top5"] == 1
    assert values["val/top1_raw"] == 0 and values["val/top5_raw"] == pytest.approx(1 / 3)


def test_weights_that_are_averages_alone_have_no_raw_rows(method, data, tmp_path):
    rows = evaluate_classifier(Plain(), data.val)
    names = [row["metric"] for row in rows]
    assert names == ["val/top1", "val/class_mean_top1"] and rows[0]["protocol"] == "32 px"
    same = SpatialEntropy("test_vit", img_size=PX, patch_size=PATCH, num_classes=3).eval()
    same.domains = NAMES
    assert table(evaluate_classifier(same, data.val, metrics=["accuracy"])).keys() == set(names)


def test_jaccard_with_alpha_by_hand(data):
    rows = evaluate_classifier(Knows(), data.val, metrics=["segmentation"])
    by_name = {row["metric"]: row for row in rows}
    t60 = by_name["val/jaccard_t60_alpha"]
    assert t60["count"] == 6 and "without 3 images that show none" in t60["protocol"]
    assert "best head a class, 2 heads, 4 x 4 patches" in t60["protocol"]
    # head 0 looks at the left half, of which 5 patches of 8 are kept at 60 %, 4 at 40 %
    assert [t60["values"][i] for i in (3, 4, 5)] == pytest.approx([5 / 8] * 3)
    t40 = by_name["val/jaccard_t40_alpha"]
    assert [t40["values"][i] for i in (3, 4, 5)] == pytest.approx([4 / 8] * 3)
    whole = by_name["val/jaccard_whole_alpha"]
    share = data.val.mask(0).float().mean().item()
    assert whole["values"][0] == pytest.approx(share) and whole["values"][3] == pytest.approx(0.5)


def test_mass_on_object_by_hand(data):
    s = torch.zeros(2, 4, 4)  # head 0 is flat
    s[1, 2, 0] = np.log(3)  # head 1: 3 of 18 there, at the left
    rows = evaluate_classifier(Looks(s), data.val, metrics=["segmentation"])
    by_name = {row["metric"]: row for row in rows}
    mass, flat = (by_name[f"val/mass_on_object{k}_alpha"] for k in ("", "_flat"))
    assert [mass["values"][i] for i in (3, 4, 5)] == pytest.approx([(1 / 2 + 10 / 18) / 2] * 3)
    assert mass["protocol"].startswith("mean over 2 heads, 4 x 4 patches, 32 px, without 3 images")
    share = data.val.mask(0).float().mean().item()
    assert flat["values"][3] == pytest.approx(0.5) and flat["values"][0] == pytest.approx(share)
    assert flat["protocol"].startswith("every patch alike, 32 px") and flat["count"] == 6


def test_localization_by_hand(data):
    s = torch.full((2, 4, 4), -20.0)
    s[:, :, :2] = 0  # both heads look at the left half
    s[0, 0, 0] = 0.1
    rows = evaluate_classifier(Looks(s), data.val, metrics=["localization"])
    by_name = {row["metric"]: row for row in rows}
    assert list(by_name) == [f"val/{n}" for n in LOCATED if "untrained" not in n]
    left, disc = (3, 4, 5), (0, 1, 2)
    expected = {"corloc": 1, "pointing": 1, "auroc_mean": 1}
    for name, value in expected.items():
        row = by_name[f"val/{name}_alpha"]
        assert [row["values"][i] for i in left] == [value] * 3 and row["better"] == "higher"
        assert row["protocol"].startswith("mean map of 2 heads, 4 x 4 patches, 32 px, without 3 i")
    assert [by_name["val/corloc_alpha"]["values"][i] for i in disc] == [0, 0, 0]
    share = data.val.mask(0).float().mean().item()
    flat = {n: by_name[f"val/{n}_flat_alpha"]["values"] for n in PLACES}
    assert flat["pointing"][0] == pytest.approx(share) and flat["pointing"][3] == 0.5
    assert flat["auroc_mean"][0] == flat["auroc_mean"][3] == 0.5
    assert flat["corloc"][0] == flat["corloc"][3] == 0  # the box of the disc is 0.37 of the image
    centre = {n: by_name[f"val/{n}_centre_alpha"]["values"] for n in PLACES}
    assert centre["corloc"][0] == 1 and centre["corloc"][3] == 0
    assert centre["pointing"][0] > 0.9 and centre["pointing"][3] == 0.5
    assert centre["auroc_mean"][0] > 0.9 and centre["auroc_mean"][3] == pytest.approx(0.5)
    mass = by_name["val/mass_on_object_centre_alpha"]["values"]
    assert mass[0] > share + 0.1 and mass[3] == pytest.approx(0.5)


class Remembers(Looks):
    """Has patches, of which the first is far from the others in the image with index 0."""

    def tokens(self, x, averaged=True):
        t = torch.ones(len(x), 16, 3)
        t[:, 0] = 1 + 9 * (x == self.told).flatten(1).all(1).float()[:, None]
        return t


def test_norms_by_hand_and_first_weights_beside(data):
    class Began(Remembers):
        def untrained(self):
            fresh = Remembers(-self.s)
            fresh.told = torch.zeros_like(self.told)
            return fresh

    s = torch.zeros(1, 4, 4)
    s[:, :, :2] = 1
    made = Began(s)
    made.told = data.val[0]["x"]
    rows = evaluate_classifier(made, data.val, metrics=["localization", "norms"])
    by_name = {row["metric"].removeprefix("val/"): row for row in rows}
    assert [n for n in by_name if n in NORMS] == NORMS
    assert by_name["norm_outliers"]["values"] == {i: (i == 0) / 16 for i in range(9)}
    assert by_name["norm_largest"]["values"] == pytest.approx(
        {i: 1 + 9 * (i == 0) for i in range(9)}
    )
    assert by_name["norm_outliers_untrained"]["value"] == 0
    assert by_name["norm_outliers"]["better"] == by_name["norm_largest"]["better"] == "lower"
    assert by_name["auroc_mean_alpha"]["values"][3] == 1
    assert by_name["auroc_mean_untrained_alpha"]["values"][3] == 0
    assert by_name["corloc_alpha"]["values"][3] == 1
    assert by_name["corloc_untrained_alpha"]["values"][3] == 0


def test_methods_without_tokens_have_no_norms(data):
    with pytest.raises(ValueError, match="norms also a method with tokens"):
        evaluate_classifier(Knows(), data.val, metrics=["norms"])


@pytest.mark.parametrize("registers, rewire_last", [(0, True), (3, False), (3, True)])
def test_registers_and_a_rewired_block_are_evaluated(data, registers, rewire_last):
    options = dict(img_size=PX, patch_size=PATCH, num_classes=3, registers=registers)
    made = SpatialEntropy("test_vit", **options, rewire_last=rewire_last).eval()
    made.domains = NAMES
    rows = table(evaluate_classifier(made, data.val, metrics=NO_SHIFT))
    names = [
        "top1",
        "class_mean_top1",
        *JACCARDS,
        *LOCATED,
        "spatial_entropy",
        "components",
        *NORMS,
    ]
    assert list(rows) == [f"val/{name}" for name in names]
    for name in (*PLACES, "mass_on_object"):  # it has not been trained
        assert rows[f"val/{name}_alpha"] == pytest.approx(rows[f"val/{name}_untrained_alpha"])


def test_mass_on_objects_of_several_classes_leaves_void_out():
    s = torch.tensor([0.0, 2.0, 3.0, 4.0]).log().nan_to_num(neginf=-1e4).view(1, 1, 1, 4)
    truth = torch.tensor([[7, 0, 0, 255, 9, 9, 255, 255]]).expand(3, 1, 8).clone()
    truth[1], truth[2] = 0, 255  # the second and the third show nothing
    values, shown = mass_on_object(s.expand(3, 1, 1, 4), truth)
    assert shown.tolist() == [True, False, False]
    assert values.tolist() == pytest.approx([6 / 8])  # 0 0 | 2 void | 3 3 | void void
    with pytest.raises(ValueError, match="finite"):
        mass_on_object(s.log(), truth[:1])
    with pytest.raises(ValueError, match="expected 1 images"):
        mass_on_object(s, truth)


def test_entropy_is_the_mean_over_heads(data):
    s = torch.zeros(2, 4, 4)
    s[0, 0, 0] = s[0, 3, 3] = s[1, 1, 1] = 5  # two equal parts, and one
    values = table(evaluate_classifier(Looks(s), data.val, metrics=["entropy"]))
    assert values["val/spatial_entropy"] == pytest.approx(np.log(2) / 2, abs=1e-5)
    assert values["val/components"] == 1.5


def test_shift_moves_by_a_whole_patch(data, lpips_cache):
    looks = Looks(torch.zeros(2, 4, 4), brightness=5)
    rows = evaluate_classifier(looks, data.val, metrics=["shift"], max_images=2)
    (row,) = (row for row in rows if row["metric"] == "val/tv_t20_shift")
    for i, value in row["values"].items():
        x = data.val[i]["x"]
        moved = torch.cat([x[..., :1].expand(-1, -1, PATCH), x[..., :-PATCH]], 2)
        maps = attention(looks.attention(moved[None])).mean(1)
        path = shift_path(looks.attention, x[None], PATCH)
        assert torch.allclose(path[:, -1], maps)
        assert value == pytest.approx(map_variation(path).item())
    assert "image moved by 0 .. 8 px" in row["protocol"]


@pytest.mark.parametrize(
    "change, why",
    [
        ({"metrics": ["top1"]}, "metrics: expected some of"),
        ({"metrics": "entropy"}, "metrics: expected some of"),
        ({"metrics": []}, "metrics: expected some of"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_images": 0}, "max_images"),
        ({"method": Plain(), "metrics": ["accuracy", "shift"]}, r"\('accuracy',\), got shift"),
    ],
)
def test_doors(change, why, data):
    with pytest.raises(ValueError, match=why):
        evaluate_classifier(**{"method": Knows(), "images": data.val} | change)


@pytest.mark.parametrize(
    "name, value, why",
    [
        ("img_size", 64, "images of 32 px, got 64"),
        ("domains", ["a", "b", "c"], "classes"),
        ("has_masks", False, "got segmentation"),
    ],
)
def test_images_that_do_not_fit(name, value, why, data):
    images = data.images("val")
    setattr(images, name, value)
    with pytest.raises(ValueError, match=why):
        evaluate_classifier(Knows(), images, metrics=["accuracy", "segmentation"])


def test_only_empty_masks_are_refused(data, monkeypatch):
    images = data.images("val")
    monkeypatch.setattr(images, "mask", lambda i: None)
    with pytest.raises(ValueError, match="masks that show an object, got none"):
        evaluate_classifier(Knows(), images, metrics=["segmentation"])


def test_nan_is_refused(data, monkeypatch):
    monkeypatch.setattr(Knows, "classify", lambda self, x, averaged=True: x.sum() * torch.nan + x)
    with pytest.raises(ValueError, match="finite logits"):
        evaluate_classifier(Knows(), data.val, metrics=["accuracy"])


def test_a_model_without_a_map_has_accuracy_alone(data):
    resnet = SpatialEntropy("test_resnet", img_size=PX, num_classes=3, regularizer="none").eval()
    resnet.domains = NAMES
    names = [row["metric"] for row in evaluate_classifier(resnet, data.val)]
    assert names == ["val/top1", "val/class_mean_top1"]


# ---- VOC ----------------------------------------------------------------------------------------


@pytest.fixture
def voc_root(tmp_path):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\nc\n")
    for k, name in enumerate("abc"):
        rng = np.random.default_rng(k)
        Image.fromarray(rng.integers(0, 256, (30, 20, 3), np.uint8)).save(
            folder / "JPEGImages" / f"{name}.jpg"
        )
        mask = np.zeros((30, 20), np.uint8)
        if name != "c":  # c shows no class
            mask[:, :10] = 15
        if name == "b":
            mask[15:, :10], mask[:, 10:12] = 7, 255
        image = Image.fromarray(mask, "P")
        image.putpalette([c % 256 for c in range(768)])
        image.save(folder / "SegmentationClass" / f"{name}.png")
    return tmp_path


def test_voc_by_hand(voc_root):
    images = VOC(voc_root, img_size=64)
    assert len(images) == 3 and images[1]["x"].shape == (3, 64, 64)
    assert images[1]["x"].min() < -0.5 and images[1]["x"].max() > 0.5
    assert images.mask(1).unique().tolist() == [0, 7, 15, 255]
    # 8 x 8 patches; head 0 keeps 20 of the 32 at the left, head 1 one corner
    rows = evaluate_classifier(Knows(), images, "voc", ["segmentation"], batch_size=2)
    by_name = {row["metric"]: row for row in rows}
    row = by_name["voc/jaccard_t60_voc"]
    assert row["count"] == 2 and "without 1 images" in row["protocol"]
    assert row["values"][0] == pytest.approx(20 / 32)
    keep = evaluate_classifier(Knows(), images, "voc", ["segmentation"], ignore_void=False)
    kept = {row["metric"]: row["value"] for row in keep}
    names = [f"jaccard_{kept}_keepvoid_voc" for kept in ("t60", "t40", "whole")] + ["auroc_voc"]
    names += ["mass_on_object_voc", "mass_on_object_flat_voc"]
    assert list(kept) == [f"voc/{name}" for name in names]
    assert kept["voc/jaccard_whole_keepvoid_voc"] < by_name["voc/jaccard_whole_voc"]["value"]
    assert VOC(voc_root)[0]["x"].shape == (3, 480, 480)


def test_voc_refuses(tmp_path, voc_root):
    with pytest.raises(ValueError, match="expected the folder .*VOC2012, got none"):
        VOC(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"expected some of \('segmentation', .*got accuracy"):
        evaluate_classifier(Knows(), VOC(voc_root), metrics=["accuracy"])
    path = voc_root / "VOCdevkit/VOC2012/JPEGImages/b.jpg"
    path.write_bytes(with_scans(101))
    with pytest.raises(ImageError, match=f"{path}: expected a JPEG of at most 100 scans"):
        VOC(voc_root)[1]


# ---- the scripts --------------------------------------------------------------------------------


def run(monkeypatch, script, line):
    monkeypatch.setattr(sys, "argv", line.split())
    runpy.run_path(f"scripts/{script}.py", run_name="__main__")


@pytest.mark.parametrize(
    "px, why", [(30, "patches of 8 px, got 30 px; take 24 or 32"), (4, "take 8")]
)
def test_attention_of_parts_of_patches_is_refused(method, px, why):
    with pytest.raises(ValueError, match=why):
        method.attention(torch.zeros(1, 3, px, px))


def test_attention_of_models_of_one_size_is_refused_at_others():
    tap = AttentionTap(timm.create_model("cait_xxs24_224", depth=1, img_size=32))
    tap.check_size(32, 32)
    with pytest.raises(ValueError, match="of 32 x 32 px, got 48 x 48; Cait takes no other size"):
        tap.check_size(48, 48)
    AttentionTap(timm.create_model("pvt_v2_b0", depths=(1, 1, 1, 1))).check_size(50, 50)  # any


def test_evaluate_refuses_a_wrong_voc_size_first(data, voc_root, method, monkeypatch):
    monkeypatch.setattr(gen, "load", lambda *_: method)
    line = f"evaluate --checkpoint x --data {data.root} --voc {voc_root} --voc-size 90"
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "evaluate", line)
    assert "patches of 8 px, got 90 px; take 88 or 96" in end.value.code


def test_evaluate_prints_and_writes_json_lines(data, voc_root, tmp_path, monkeypatch, capsys):
    checkpoint, out = tmp_path / "c.safetensors", Path(f"{tmp_path}_new", "rows.jsonl")
    checkpoint.write_bytes(b"weights")
    monkeypatch.setattr(gen, "load", lambda path, device, *_: Knows())
    monkeypatch.setattr(gen.data, "Classes", lambda *_, **__: data)
    line = f"evaluate --checkpoint {checkpoint} --data x --split val test --metrics accuracy"
    run(monkeypatch, "evaluate", f"{line} segmentation --voc {voc_root} --keep-void --out {out}")
    written = [json.loads(line) for line in out.read_text().splitlines()]
    printed = capsys.readouterr().out
    assert [json.loads(line) for line in printed.splitlines() if line[:1] == "{"] == written
    by_name = {row["metric"]: row for row in written}
    assert by_name["test/top1"]["count"] == 4 and "voc/jaccard_t40_keepvoid_voc" in by_name
    assert "val/jaccard_t60_alpha" in by_name and "val/spatial_entropy" not in by_name
    for row in written:
        assert row["data"] == (voc_root.name if row["metric"].startswith("voc/") else "x")
    assert written[0]["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert "val/top1 " in printed.split("95 % interval")[1]


def test_evaluate_crops(data, tmp_path, monkeypatch):
    monkeypatch.setattr(gen, "load", lambda path, device, *_: Knows())
    values = {}
    for crop in (1.0, 0.5):
        out, images = tmp_path / f"{crop}.jsonl", Classes(data.root, img_size=PX, crop_pct=crop).val
        line = f"evaluate --checkpoint {__file__} --data {data.root} --crop-pct {crop} --out {out}"
        run(monkeypatch, "evaluate", f"{line} --metrics segmentation")
        rows = map(json.loads, out.read_text().splitlines())
        (row,) = (row for row in rows if row["metric"] == "val/mass_on_object_flat_alpha")
        shares = [
            mask.float().mean().item() for i in range(6) if (mask := images.mask(i)) is not None
        ]
        assert row["value"] == pytest.approx(np.mean(shares))
        assert ("centre crop 0.5" in row["protocol"]) == (crop == 0.5)
        values[crop] = row["value"]
    assert values[0.5] > values[1.0] + 0.1  # the disc is larger


@pytest.mark.parametrize(
    "options, why",
    [
        ("--data DATA --device foo", "device: expected one of this machine, got foo"),
        ("--data DATA --device cuda:99", "device: expected one of "),
        ("--voc VOC --voc-size 0", "--voc-size: expected at least 1 px, got 0"),
        ("--voc VOC --voc-size -8", "--voc-size: expected at least 1 px, got -8"),
        ("--data DATA --out DATA", "--out: expected a file to write, got the folder"),
        ("--data DATA --out DATA/rows.jsonl", "--out: expected to write elsewhere than to what is"),
        ("--data DATA --out /dev/null/x", r"error: /dev/null: expected a folder, got a file"),
        ("--data heads --split test", r"--split: expected val, which heads"),
        ("--voc VOC --metrics accuracy", "'shift'), got accuracy"),
    ],
)
def test_evaluate_says_what_is_wrong(options, why, data, voc_root, monkeypatch, capsys):
    loads = []
    monkeypatch.setattr(gen, "load", lambda path, device, *_: loads.append(path) or Knows())
    options = options.replace("DATA", str(data.root)).replace("VOC", str(voc_root))
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "evaluate", f"evaluate --checkpoint {__file__} {options}")
    assert why in f"{end.value.code} {capsys.readouterr().err}"
    assert bool(loads) == ("--metrics" in options)  # the others before any work


def test_voc_alone_is_measured_by_metrics(voc_root, monkeypatch, capsys):
    monkeypatch.setattr(gen, "load", lambda path, device, *_: Knows())
    line = f"evaluate --checkpoint {__file__} --voc {voc_root} --voc-size 64"
    names = {}
    for metrics in ("entropy", "all", "segmentation"):
        run(monkeypatch, "evaluate", f"{line} --metrics {metrics}")
        printed = capsys.readouterr().out.splitlines()
        names[metrics] = [json.loads(line)["metric"] for line in printed if line[:1] == "{"]
    assert names["entropy"] == ["voc/spatial_entropy", "voc/components"]
    assert names["all"] == names["segmentation"] and "voc/auroc_voc" in names["all"]


def test_the_recipe_of_voc(voc_root, tmp_path, monkeypatch, capsys):
    text = Path("data_prep/README.md").read_text()
    unpack, evaluate = re.search(r"```bash\n(.*VOCtrainval.*)\n(.*)\n```", text).groups()
    with tarfile.open(tmp_path / "VOCtrainval_11-May-2012.tar", "w") as tar:
        tar.add(voc_root / "VOCdevkit", "VOCdevkit")
    subprocess.run(["bash", "-c", unpack], cwd=tmp_path, check=True)
    monkeypatch.setattr(gen, "load", lambda path, device, *_: Knows())
    line = evaluate.replace("data/voc", str(tmp_path / "data/voc"))
    line = line.replace("runs/mine/last.ckpt", __file__)
    run(monkeypatch, "evaluate", line.removeprefix("gen "))
    assert "480 px" in capsys.readouterr().out and "--keep-void" in text


def test_evaluate_wants_data(monkeypatch):
    monkeypatch.setattr(gen, "load", lambda path, device, *_: Knows())
    with pytest.raises(SystemExit, match="--data: expected"):
        run(monkeypatch, "evaluate", "evaluate --checkpoint x")


def test_groups_have_help(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "evaluate", "evaluate --help")
    shown = capsys.readouterr().out
    assert all(group in shown for group in GROUPS)


def test_attention_draws_a_row_for_each_image_and_checkpoint(method, tmp_path, monkeypatch):
    for k, name in enumerate(NAMES[:2]):
        drawing(name, k).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(gen, "load", lambda path, device, *_: method)
    paths = " ".join(str(tmp_path / f"{name}.png") for name in NAMES[:2])
    sizes = []
    for checkpoints in ("--checkpoint a.ckpt", "--checkpoint a.ckpt --checkpoint b.ckpt"):
        out = tmp_path / "out.png"
        run(monkeypatch, "attention", f"attention {paths} {checkpoints} --out {out} --cell-px 64")
        sizes.append(Image.open(out).size)
    (w1, h1), (w2, h2) = sizes
    assert w1 >= 5 * 64 and w2 > w1 and 1.7 * h1 < h2 < 2.2 * h1  # an image and two of two heads
    out.unlink()
    monkeypatch.setattr(gen, "load", lambda path, device, *_: Plain())
    with pytest.raises(SystemExit, match="a.ckpt: expected a method with attention maps"):
        run(monkeypatch, "attention", f"attention {paths} --checkpoint a.ckpt --out {out}")
    assert not out.exists()


def test_attention_draws_each_checkpoint_and_its_parts(tmp_path, monkeypatch):
    s = torch.zeros(2, 1, 4, 4)  # of two checkpoints
    s[0, 0, 0, 0], s[0, 0, 3, 3] = 3, 5  # two parts, the second is larger
    s[1, 0, :2, 2] = 4
    ids = torch.zeros(2, 4, 4, dtype=torch.int64)  # by hand
    ids[0, 0, 0], ids[0, 3, 3], ids[1, :2, 2] = 1, 2, 1
    made = dict(zip(["a.ckpt", "b.ckpt"], map(Looks, s), strict=True))
    monkeypatch.setattr(gen, "load", lambda path, device, *_: made[path].to(device))
    sheets, image, out = [], tmp_path / "left.png", tmp_path / "out.png"
    grid = viz.grid
    monkeypatch.setattr(viz, "grid", lambda rows, **k: sheets.append((rows, k)) or grid(rows, **k))
    drawing("left", 0).save(image)
    line = f"attention {image} --checkpoint a.ckpt --checkpoint b.ckpt --cell-px 64 --out {out}"
    run(monkeypatch, "attention", f"{line} --crop-pct 0.5")
    ((rows, told),) = sheets
    x = plain(PX, 0.5)(load_image(image))
    for cells, map_, known in zip(rows, s[:, 0], ids, strict=True):
        wanted = [
            viz.enlarge(x, 64),
            attention_viz.heat(x, attention(map_[None, None])[0, 0], 64),
            attention_viz.parts(x, known, (map_ - map_.mean()).clamp(min=0), 64),
        ]
        for cell, picture in zip(cells, wanted, strict=True):
            assert np.array_equal(np.asarray(cell), np.asarray(picture))
    p = (5 - 0.5) / (5 - 0.5 + 3 - 0.5)  # share of the larger part: the mean is 8 / 16
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert told["labels"][0][1:] == [f"entropy {entropy:.2f}", "2 parts"]
    assert told["labels"][1][1:] == ["entropy 0.00", "1 part"] and told["captions"] == ["a", "b"]


@pytest.mark.parametrize("options", ["--cell-px 0", "--cell-px -5", "--crop-pct 0", "--crop-pct 3"])
def test_attention_refuses_numbers_that_are_wrong(options, method, tmp_path, monkeypatch):
    drawing("disc", 0).save(tmp_path / "disc.png")
    monkeypatch.setattr(gen, "load", lambda path, device, *_: method)
    line = f"attention {tmp_path}/disc.png --checkpoint a.ckpt --out {tmp_path}/out.png {options}"
    with pytest.raises(SystemExit, match="error: expected --cell-px >= 1 and --crop-pct in"):
        run(monkeypatch, "attention", line)
    assert not (tmp_path / "out.png").exists()


def test_heat_glows_where_the_map_is_high_and_leaves_the_rest():
    grey = torch.zeros(3, 32, 32)
    share = torch.zeros(4, 4)
    share[0, 3] = 0.25
    pixels = np.asarray(attention_viz.heat(grey, share, 64)).astype(int)
    assert pixels.shape == (64, 64, 3)
    assert pixels[4, 60].sum() > 2 * pixels[60, 4].sum() and len(set(pixels[60, 4])) == 1
    assert np.array_equal(pixels, np.asarray(attention_viz.heat(grey, share * 3, 64)))


def test_parts_have_colours_by_their_mass_and_the_rest_stays_grey():
    ids, mass = torch.zeros(4, 4, dtype=torch.int64), torch.ones(4, 4)
    ids[0], ids[2:, 0] = 1, 2  # 4 patches, and 2 that weigh more
    mass[2:, 0] = 9
    pixels = np.asarray(attention_viz.parts(torch.zeros(3, 32, 32), ids, mass, 64)).astype(int)
    first, second, rest = pixels[48, 8], pixels[8, 32], pixels[40, 40]
    (r1, _, b1), (r2, _, b2) = first, second
    assert r1 > b1 and r2 < b2  # orange, then blue
    assert len(set(rest)) == 1
    assert pixels[15, 32].sum() < second.sum()  # its outline is darker


def test_labels_stand_under_their_cells():
    cell = np.zeros((64, 64, 3), np.uint8)
    bare = np.asarray(viz.grid([[cell, cell]], cell_px=64))
    told = np.asarray(viz.grid([[cell, cell]], cell_px=64, labels=[["", "two"]]))
    assert told.shape[0] > bare.shape[0] and told.shape[1] == bare.shape[1]
    below = told[6 + 64 :] < 128  # the first row of pixels under the cells
    assert below[:, 70:].any() and not below[:, :70].any()
    with pytest.raises(ValueError, match="labels in a row"):
        viz.grid([[cell, cell]], labels=[["one"]])


def test_an_evaluation_that_was_cut_goes_on(method, data, tmp_path, monkeypatch):
    def evaluate(ledger):
        return evaluate_classifier(method, data.val, metrics=NO_SHIFT, batch_size=4, ledger=ledger)

    check_goes_on(evaluate, tmp_path, monkeypatch, after=4)

"""Folders of classes: every image once an epoch, exact resume, augmentation, masks, splits."""

import random
import zipfile

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image, ImageOps

from gen.data import Classes
from gen.data.images import to_tensor
from gen.viz import over_white
from harness import Recorder, equal, trainer
from pictures import encode, picture, sprite, write, zipped

OFF = dict(auto_augment="", color_jitter=0, random_erasing=0, hflip=0, min_scale=1, crop_pct=1)


@pytest.fixture
def root(tmp_path):
    """Three classes: 7 + 5 + 1 training images, 2 each for validation, a test of two of them."""
    counts = {"train": (7, 5, 1), "val": (2, 2, 2), "test": (0, 3, 1)}
    names = [
        f"{split}/{name}/{split}{i}.png"
        for split, numbers in counts.items()
        for name, count in zip(("ant", "bee", "cat"), numbers, strict=True)
        for i in range(count)
    ]
    return write(tmp_path / "data", names)


def classes(root, **kwargs):
    return Classes(str(root), **{"img_size": 16, "batch_size": 4, "num_workers": 0, **kwargs})


def stream(data, key="x"):
    return torch.cat([batch[key] for batch in data.train_dataloader()])


# --- training elements


def test_batches(root):
    data = classes(root, random_erasing=0)
    data.setup("fit")
    (batch, *_) = batches = list(data.train_dataloader())
    assert len(batches) == 3 and batch.keys() == {"x", "y"}
    assert batch["x"].shape == (4, 3, 16, 16) and batch["x"].dtype == torch.float32
    assert -1 <= batch["x"].min() < -0.5 and 0.5 < batch["x"].max() <= 1
    assert batch["y"].dtype == torch.int64
    (batch,) = data.val_dataloader()
    assert batch.keys() == {"x", "y", "index"} and batch["index"].tolist() == list(range(6))
    assert batch["y"].tolist() == [0, 0, 1, 1, 2, 2]


def test_every_image_once_an_epoch_in_an_order_of_seed_and_epoch(root):
    draws = classes(root).draws()
    epochs = [[draws.index(13 * k + j) for j in range(13)] for k in range(3)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = classes(root).draws()
    assert [again.index(p) for p in range(38, 12, -1)] == (epochs[1] + epochs[2])[::-1]
    other = classes(root, seed=778).draws()
    assert [other.index(p) for p in range(13)] != epochs[0]
    labels = classes(root).train.labels
    assert all(draws[p]["y"] == labels[draws.index(p)] for p in range(13))


def test_element_depends_on_seed_and_position_only(root):
    draws = classes(root).draws()
    expected = torch.stack([draws[p]["x"] for p in range(12)])
    for batch_size, workers in ((4, 0), (3, 2), (6, 1)):
        torch.manual_seed(batch_size), random.seed(batch_size)
        data = classes(root, batch_size=batch_size, num_workers=workers)
        assert torch.equal(stream(data), expected)
    assert not torch.equal(stream(classes(root, seed=778)), expected)
    repeated = torch.stack([draws[p]["x"] for p in range(13, 25)])
    assert len({x.sum().item() for x in torch.cat([expected, repeated])}) == 24  # never the same


def test_drawing_leaves_the_global_generators_alone(root):
    def numbers():
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    draws = classes(root).draws()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = numbers()
    random.setstate(states[0]), torch.set_rng_state(states[2])
    np.random.set_state(states[1])  # noqa: NPY002
    for p in range(6):
        draws[p]
    assert numbers() == expected


def test_a_run_is_resumed_exactly_over_the_end_of_an_epoch(root, tmp_path):
    def fit(ckpt_path=None, callbacks=()):
        model = Recorder()
        run = trainer(callbacks, max_steps=7, limit_val_batches=0)
        run.fit(model, classes(root, num_workers=2), ckpt_path=ckpt_path)
        return model.train_seen

    save = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)
    full = fit(callbacks=[save])
    rest = fit(tmp_path / "step=3.ckpt")
    assert len(full) == 7 and len(rest) == 4
    assert all(equal(a, b) for a, b in zip(rest, full[3:], strict=True))


def test_processes_share_each_epoch(root):
    modules = [classes(root, batch_size=2) for _ in range(2)]
    for rank, data in enumerate(modules):
        data.trainer = trainer(strategy="ddp", devices=2, use_distributed_sampler=False)
        data._ranks = lambda rank=rank: (rank, 2)
    data.setup("fit")
    positions = [p for d in modules for b in d.train_dataloader().batch_sampler for p in b]
    assert sorted(positions) == list(range(12))
    seen = [i for d in modules for batch in d.val_dataloader() for i in batch["index"].tolist()]
    assert seen == [0, 2, 4, 1, 3, 5]
    data.batch_size = 7
    with pytest.raises(ValueError, match="at least .* 7 x 2 training images, got 13; lower"):
        data.setup("fit")


# --- share


def test_shares_are_nested_stratified_and_the_same_for_every_seed(root):
    kept = {s: set(classes(root, share=s).train.paths) for s in (0.1, 0.4, 0.7, 1.0)}
    assert kept[0.1] < kept[0.4] < kept[0.7] < kept[1.0] and len(kept[1.0]) == 13
    assert kept[0.4] == set(classes(root, share=0.4, seed=1).train.paths)
    counts = {s: classes(root, share=s).train.labels.bincount().tolist() for s in kept}
    assert counts == {0.1: [1, 1, 1], 0.4: [3, 2, 1], 0.7: [5, 4, 1], 1.0: [7, 5, 1]}
    assert len(classes(root, share=0.1).val) == 6
    with pytest.raises(ValueError, match="at least .* got 3"):
        classes(root, share=0.1).setup("fit")


# --- augmentation


def test_the_recipe_is_deits(root):
    text = str(classes(root).augment)
    assert "scale=(0.08, 1.0), ratio=(0.75, 1.3333), interpolation=bicubic" in text
    assert "RandAugment(n=2" in text and "m=9, mstd=0.5" in text
    assert "RandomErasing(p=0.25, mode=pixel, count=(1, 1))" in text


def test_everything_can_be_switched_off(root):
    data = classes(root, img_size=24, **OFF)  # the size of the files
    draws, images = data.draws(), data.train
    for p in range(13):
        assert torch.allclose(draws[p]["x"], to_tensor(images.read(draws.index(p))), atol=1e-6)


@pytest.mark.parametrize(
    "on",
    [
        dict(hflip=1),
        dict(random_erasing=1),
        dict(min_scale=0.08),
        dict(color_jitter=0.4),
        dict(auto_augment="rand-m9-mstd0.5-inc1-n9"),
    ],
    ids=str,
)
def test_each_part_of_the_augmentation_does_something(root, on):
    plain, data = classes(root, img_size=24, **OFF), classes(root, img_size=24, **OFF | on)
    changed = 0
    for p in range(8):
        a, b = plain.draws()[p]["x"], data.draws()[p]["x"]
        changed += not torch.allclose(a, b, atol=1e-6)
        if "hflip" in on:
            assert torch.allclose(a.flip(2), b, atol=1e-6)
        if "random_erasing" in on:
            assert 0.01 < (a != b).float().mean() < 0.5
    assert changed >= 7


def test_the_highest_magnitude_is_no_error(root):
    """timm would ask Pillow to keep 0 bits of an image, which Pillow refuses since 13."""
    policy = "rand-m10-n4-inc1"
    image = Image.open(root / "train/ant/train0.png").convert("RGB")
    with_posterize = classes(root, auto_augment=policy).augment
    for seed in range(60):
        torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)  # noqa: NPY002
        assert with_posterize(image).isfinite().all()


def test_photos_are_cut_not_squashed(root):
    photo = picture(5, (40, 20))
    (root / "train/ant/train0.png").write_bytes(encode(photo))
    (root / "val/ant/val0.png").write_bytes(encode(photo))
    data = classes(root, img_size=16, crop_pct=0.8)  # 20 px -> 20 px, the middle 16 of them
    assert torch.allclose(data.val[0]["x"], to_tensor(photo.crop((12, 2, 28, 18))), atol=1e-6)
    data = classes(root, img_size=20, **OFF)  # training without a random crop
    x = data.train.draw(0, np.random.default_rng(0))
    assert torch.allclose(x, to_tensor(photo.crop((10, 0, 30, 20))), atol=1e-6)


# --- masks


def test_masks_are_in_the_frame_of_x(root, tmp_path):
    alpha = Image.new("L", (40, 20))
    alpha.paste(255, (14, 2, 30, 9))
    ink = Image.new("RGBA", alpha.size)
    ink.putalpha(alpha)  # black where it is opaque, white elsewhere
    (root / "val/bee/val0.png").write_bytes(encode(ink))
    archive = zipped(root, tmp_path / "d.zip")
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[0:7, 2:] = True  # x is the part (12, 2, 28, 18)
    for source in (root, archive):
        images = classes(source, crop_pct=0.8).val
        mask = images.mask(2)
        assert mask.dtype == torch.bool and torch.equal(mask, expected)
        assert torch.equal(mask, images[2]["x"][0] < 0)
        assert images.mask(0) is None and images.has_masks
    images = classes(root, img_size=11, crop_pct=0.9).val  # resampled: the same frame still
    assert ((images[2]["x"][0] < 0) == images.mask(2)).float().mean() > 0.98
    assert not classes(root).train.has_masks


@pytest.mark.parametrize("zipped_at", ["", "d.zip", "deep.zip"])
def test_masks_of_their_own_folder(root, tmp_path, zipped_at):
    inside = Image.new("L", (40, 20))
    inside.paste(255, (14, 2, 30, 9))
    picture = Image.merge("RGB", [Image.new("L", inside.size, 90)] * 3)
    (root / "val/bee/val0.png").unlink()
    (root / "val/bee/val0.jpg").write_bytes(encode(picture, "JPEG"))
    (root / "masks/val/bee").mkdir(parents=True)
    (root / "masks/val/bee/val0.png").write_bytes(encode(inside))
    transparent = Image.new("RGBA", (40, 20))  # has a mask in its alpha channel, which is not taken
    (root / "val/bee/val1.png").write_bytes(encode(transparent))
    (root / "masks/val/bee/val1.png").write_bytes(encode(inside))
    source = root
    if zipped_at:
        source = tmp_path / zipped_at
        with zipfile.ZipFile(source, "w") as archive:
            for path in root.rglob("*.*"):
                base = root.parent if zipped_at == "deep.zip" else root
                archive.write(path, path.relative_to(base))
    data = classes(source, crop_pct=0.8)
    assert data.splits == ("train", "val", "test")  # masks are no split
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[0:7, 2:] = True  # x is the part (12, 2, 28, 18)
    assert torch.equal(data.val.mask(2), expected) and torch.equal(data.val.mask(3), expected)
    assert data.val.mask(0) is None and data.val.has_masks and not data.train.has_masks


def test_a_mask_of_another_size_is_refused(root):
    (root / "masks/val/ant").mkdir(parents=True)
    (root / "masks/val/ant/val0.png").write_bytes(encode(Image.new("L", (5, 6))))
    with pytest.raises(ValueError, match=r"val0.png: expected equal sizes, got a mask of 5 x 6 px"):
        classes(root).val.mask(0)


def test_alpha_of_half_is_inside(root):
    for value, inside in ((127, False), (128, True)):
        (root / "val/ant/val0.png").write_bytes(encode(Image.new("RGBA", (9, 9), (5, 5, 5, value))))
        assert (classes(root).val.mask(0) == inside).all()


def test_a_key_colour_is_transparent_too(root):
    image = ImageOps.expand(Image.new("RGB", (16, 16), (9, 9, 9)), 4, (1, 2, 3))
    (root / "val/ant/val0.png").write_bytes(encode(image, transparency=(1, 2, 3)))
    mask = classes(root, img_size=24, crop_pct=1).val.mask(0)
    assert mask.sum() == 16 * 16 and mask[4:20, 4:20].all()


# --- splits and mistakes


def test_further_splits_have_the_same_labels(root):
    data = classes(root)
    assert data.splits == ("train", "val", "test") and data.num_domains == 3
    test = data.images("test")
    assert test.domains == data.domains == ["ant", "bee", "cat"]
    assert test.labels.tolist() == [1, 1, 1, 2] and test[3]["y"] == 2
    assert [len(b["y"]) for b in data.test_dataloader()] == [4]
    with pytest.raises(ValueError, match="expected one of train, val, test, got 'tests'"):
        data.images("tests")
    write(root, ["notes/pictures/0.png", "test/readme.txt"])  # no classes: no split
    assert classes(root).splits == ("train", "val", "test")
    archive = zipped(root, root.parent / "d.zip")
    assert classes(archive).splits == data.splits
    assert equal_images(classes(archive).images("test"), test)


def equal_images(a, b):
    return len(a) == len(b) and all(torch.equal(a[i]["x"], b[i]["x"]) for i in range(len(a)))


def test_a_folder_of_classes_is_split_by_hash(tmp_path):
    data = classes(write(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(40)]))
    assert data.splits == ("train", "val") and len(data.train) + len(data.val) == 80
    assert [len(b["y"]) for b in data.test_dataloader()] == [len(data.val)]


def test_mistakes_in_the_data_are_errors(root):
    write(root, ["test/wasp/0.png"])
    with pytest.raises(ValueError, match=r"test/ some of the domains .* got also \['wasp'\]"):
        classes(root).setup("fit")
    (root / "test/wasp/0.png").unlink()
    with pytest.raises(ValueError, match="in test/wasp/, got none; add some or remove"):
        classes(root).setup("fit")
    (root / "test/wasp").rmdir()
    classes(root).setup("fit")
    (root / "val/cat").rename(root / "val/cot")
    with pytest.raises(ValueError, match="same domains in train/ and val/"):
        classes(root).setup("fit")
    with pytest.raises(FileNotFoundError, match="found nothing"):
        classes(root / "missing").setup("fit")


@pytest.mark.parametrize(
    "name, value, interval",
    [
        ("share", 0, r"\(0, 1\]"),
        ("share", 1.1, r"\(0, 1\]"),
        ("min_scale", 0, r"\(0, 1\]"),
        ("crop_pct", 1.5, r"\(0, 1\]"),
        ("random_erasing", -0.1, r"\[0, 1\]"),
        ("hflip", 2, r"\[0, 1\]"),
        ("color_jitter", -1, r"\[0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_errors(root, name, value, interval):
    with pytest.raises(ValueError, match=f"expected {name} in {interval}, got {value}"):
        classes(root, **{name: value})


@pytest.mark.parametrize("policy", ["rnd-m9", "rand-q9"])
def test_an_unknown_policy_is_an_error(root, policy):
    with pytest.raises(ValueError, match=f"auto_augment: expected .* got '{policy}'"):
        classes(root, auto_augment=policy)


def test_transparency_is_kept_on_request(root):
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(encode(sprite()))
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(encode(sprite()))
    clear, plain = (classes(root, **OFF, alpha=alpha) for alpha in (True, False))
    images = [(data.val[0]["x"], data.draws()[5]["x"]) for data in (clear, plain)]
    for a, b in zip(*images, strict=True):
        assert a.shape == (4, 16, 16) and a[3].min() == -1 and a[3].max() == 1
        assert (over_white(a) - b).abs().max() < 4 / 127.5
    assert torch.equal(clear.val.mask(0), plain.val.mask(0)) and clear.val.mask(0).any()


def test_augmentation_that_knows_no_transparency_is_refused(root):
    for option in (dict(auto_augment="rand-m9"), dict(color_jitter=0.4), dict(random_erasing=0.1)):
        data = classes(root, **OFF | option, alpha=True)
        assert data.val[0]["x"].shape[0] == 4  # evaluation does not augment
        with pytest.raises(ValueError, match="alpha: expected augmentation .*--data.auto_augment"):
            data.draws()

"""Training draws are functions of (seed, position): balance, purity, ranks, exact resume."""

import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from gen.data.base import I2IData, LabelledImages, TrainingDraws
from gen.data.images import to_tensor
from gen.data.sampler import PositionBatchSampler
from harness import Recorder, equal, trainer


class Noise(LabelledImages):
    """Image i is 16 x 16 noise; three domains of very different sizes."""

    def __init__(self, counts=(10, 20, 70)):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        super().__init__(["a", "b", "c"], labels, img_size=12)

    def read(self, index, train=False):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)
        return Image.fromarray(pixels)


class NoiseData(I2IData):
    domains = ["a", "b", "c"]

    def images(self, split):
        return Noise()


def data(batch_size=4, num_workers=0, seed=777):
    return NoiseData(12, batch_size, 8, num_workers, seed)


def test_domains_are_balanced_whatever_their_size():
    draws, labels = TrainingDraws(Noise(), seed=0), Noise().labels
    index = torch.tensor([draws.indices(p) for p in range(6000)])  # (6000, 3)
    y, y_ref, y_ref2 = labels[index].T
    for label in (y, y_ref):
        share = label.bincount() / 6000
        assert (share - 1 / 3).abs().max() < 0.025  # 4 standard deviations
    assert torch.equal(y_ref, y_ref2)
    assert abs((y == y_ref).float().mean() - 1 / 3) < 0.025  # source and target are independent
    within = index[y == 2, 0].bincount(minlength=100)[30:] / (y == 2).sum()
    assert (within - 1 / 70).abs().max() < 0.014
    distinct = index[:, 1] != index[:, 2]
    assert abs(distinct.float().mean() - (1 - (1 / 10 + 1 / 20 + 1 / 70) / 3)) < 0.012


def test_element_depends_on_seed_and_position_only():
    reference = TrainingDraws(Noise(), 777)
    for batch_size, workers in ((4, 0), (10, 0), (5, 2)):
        batches = list(data(batch_size, workers).train_dataloader())
        assert len(batches) == 100 // batch_size
        for key in ("x", "y", "x_ref", "x_ref2", "y_ref"):
            stream = torch.cat([b[key] for b in batches])[[0, 7, 39]]
            expected = torch.stack([torch.as_tensor(reference[p][key]) for p in (0, 7, 39)])
            assert torch.equal(stream, expected)
    assert reference.indices(3) == TrainingDraws(Noise(), 777).indices(3)
    other = TrainingDraws(Noise(), 778)
    assert [reference.indices(p) for p in range(9)] != [other.indices(p) for p in range(9)]


def test_the_three_images_are_augmented_independently():
    class One(Noise):
        def read(self, index, train=False):
            return super().read(0)

    elements = [TrainingDraws(One(), 1)[p] for p in range(40)]
    for a, b in (("x", "x_ref"), ("x_ref", "x_ref2"), ("x", "x_ref2")):
        assert (
            sum(torch.equal(e[a], e[b]) for e in elements) < 20
        )  # 1/8 expected: no crop, same flip


def test_without_references_an_element_is_its_source_alone():
    whole, alone = (TrainingDraws(Noise(), 7, references=r) for r in (True, False))
    for p in range(20):  # augmented by the same draws
        assert set(alone[p]) == {"x", "y"} and alone[p]["y"] == whole[p]["y"]
        assert torch.equal(alone[p]["x"], whole[p]["x"])


def test_batch_format_and_range():
    batch = next(iter(data().train_dataloader()))
    for key in ("x", "x_ref", "x_ref2"):
        assert batch[key].shape == (4, 3, 12, 12) and batch[key].dtype == torch.float32
        assert -1 <= batch[key].min() < -0.5 and 0.5 < batch[key].max() <= 1
    assert batch["y"].dtype == batch["y_ref"].dtype == torch.int64


def test_to_tensor_is_exact():
    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    x = to_tensor(grey)
    assert x.shape == (3, 16, 16) and x.is_contiguous()
    assert torch.equal((x + 1).mul(127.5).round().byte().permute(1, 2, 0), torch.from_numpy(grey))


def test_validation_is_sequential_and_complete():
    batches = list(data(num_workers=2).val_dataloader())
    assert torch.equal(torch.cat([b["index"] for b in batches]), torch.arange(100))
    assert torch.equal(torch.cat([b["y"] for b in batches]), Noise().labels)
    assert equal(batches[3], list(data().test_dataloader())[3])


def test_ranks_see_disjoint_positions_that_fill_the_stream():
    ranks = [list(PositionBatchSampler(3, 5, lambda: 2, r, 2)) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == 5
    assert sorted(p for rank in ranks for batch in rank for p in batch) == list(range(12, 42))


@pytest.mark.parametrize("args", [(0, 1), (1, 0), (1, 1, lambda: 0, 2, 2)])
def test_sampler_refuses_nonsense(args):
    with pytest.raises(ValueError, match="expected .* got"):
        PositionBatchSampler(*args)


def fit(workers, ckpt_path=None, callbacks=(), **kwargs):
    model = Recorder()
    run = trainer(callbacks, **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable.*")
        run.fit(model, data(batch_size=20, num_workers=workers), ckpt_path=ckpt_path)
    return model.train_seen, run


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "length",
    [
        dict(max_steps=9, val_check_interval=3, limit_val_batches=1),  # one giant epoch
        dict(max_epochs=2, limit_val_batches=0),  # epochs of 5 batches
        dict(max_epochs=3, limit_train_batches=3, limit_val_batches=0),
    ],
    ids=["max_steps", "max_epochs", "limited"],
)
def test_resume_sees_the_batches_of_the_uninterrupted_run(tmp_path, workers, length):
    save = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=4)
    full, run = fit(workers, callbacks=[save], **length)
    assert len(full) == run.global_step == 9 + (length.get("max_epochs") == 2)
    for done in (4, 8):
        resumed, again = fit(workers, tmp_path / f"step={done}.ckpt", **length)
        assert again.global_step == run.global_step and len(resumed) == len(full) - done
        assert all(equal(a, b) for a, b in zip(resumed, full[done:], strict=True))


def test_a_finished_run_is_extended(tmp_path):
    full, _ = fit(0, max_steps=7, limit_val_batches=0)
    first, run = fit(0, max_steps=4, limit_val_batches=0)
    run.save_checkpoint(tmp_path / "end.ckpt")
    rest, _ = fit(0, tmp_path / "end.ckpt", max_steps=7, limit_val_batches=0)
    assert [b["x"].sum() for b in first + rest] == [b["x"].sum() for b in full]


def test_predict_gives_every_validation_image():
    model = Recorder()
    trainer().predict(model, data())
    assert model.val_seen == list(range(100))


def test_too_few_images_are_an_error():
    with pytest.raises(ValueError, match="at least .* 101 x 1 .* got 100; lower"):
        data(batch_size=101).setup("fit")


def test_several_processes_refuse_lightnings_own_sampler():
    module = data()
    module.trainer = trainer(strategy="ddp", devices=2)
    with pytest.raises(ValueError, match="use_distributed_sampler false"):
        module.train_dataloader()
    module.trainer = trainer(strategy="ddp", devices=2, use_distributed_sampler=False)
    assert module.train_dataloader().batch_sampler.world_size == 2
    shard = [i for b in module.val_dataloader() for i in b["index"].tolist()]
    assert shard == list(range(0, 100, 2))


@pytest.mark.parametrize(
    "name", ["img_size", "batch_size", "val_batch_size", "num_workers", "seed"]
)
def test_numbers_out_of_range_are_errors(name):
    numbers = dict(img_size=8, batch_size=1, val_batch_size=1, num_workers=0, seed=0)
    numbers[name] = -1
    with pytest.raises(ValueError, match=f"expected {name} >= ., got -1"):
        NoiseData(**numbers)

"""Checkpoints of strangers: absurd options, changed or unreadable numbers, odd metadata."""

import json
import struct
import time

import pytest
import torch
from safetensors.torch import save_file

import gen
from gen import checkpoint, weights
from gen.files import WeightsError
from gen.methods import loading
from gen.methods.linear_directions import LinearDirections
from gen.methods.stargan import StarGAN
from gen.methods.stylegan2 import StyleGAN2
from gen.pickles.files import read_state
from gen.weights import load_safetensors, save_safetensors
from memory import peak_mebibytes, reset_peak
from runs import GENERATOR, OPTIONS, ship


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    return ship(StarGAN(**OPTIONS["StarGAN"]), tmp_path_factory.mktemp("x") / "good.safetensors")


def changed(path, shipped, options=(), **meta):
    """The same tensors with other options or metadata."""
    state, old = load_safetensors(shipped)
    hparams = json.dumps(json.loads(old["hparams"]) | dict(options))
    save_safetensors(state, path, old | {"hparams": hparams} | meta)
    return path


# ---- options ------------------------------------------------------------------------------------


ABSURD = {
    "num_domains": 10**9, "style_dim": 2**40, "latent_dim": 10**12, "img_size": 2**40,
    "base_channels": 2**50, "max_channels": 2**62, "w_hpf": 1.0, "lr": "x", "nonsense": 1,
}  # fmt: skip


@pytest.mark.parametrize("option", ABSURD)
def test_absurd_options_of_a_checkpoint_take_no_time_and_no_memory(tmp_path, shipped, option):
    path = changed(tmp_path / "bad.safetensors", shipped, {option: ABSURD[option]})
    before, began = reset_peak(), time.process_time()
    with pytest.raises(WeightsError, match=r"bad.safetensors: .*expected"):
        gen.load(path)
    assert time.process_time() - began < 5
    assert peak_mebibytes() - before < 200


def test_types_are_compared_where_they_are_plain():
    class Foreign(StarGAN):
        def __init__(self, width: int = 3, sizes: list[int] | None = None, rate: float = 1.0):
            pass

    for options in (dict(width=3), dict(sizes=[1], rate=2), dict(sizes=None, other="x")):
        loading.check_types(Foreign, options)
    for options in (dict(width=3.0), dict(width=True), dict(rate="1"), dict(img_size="256")):
        with pytest.raises(TypeError, match="expected (int|float), got"):
            loading.check_types(Foreign, options)


def test_layers_without_end_are_refused(tmp_path):
    cases = [(StyleGAN2(**GENERATOR), "map_layers")]
    cases += [(LinearDirections(**OPTIONS["LinearDirections"]), "map_layers")]
    for method, option in cases:
        good = ship(method, tmp_path / "good.safetensors")
        path = changed(tmp_path / "bad.safetensors", good, {option: 10**7})
        began = time.process_time()
        with pytest.raises(WeightsError, match="bad.safetensors: .*expected"):
            gen.load(path)
        assert time.process_time() - began < 5


def test_a_model_of_far_more_numbers_than_its_file_is_refused(tmp_path, shipped, monkeypatch):
    """Also where no tensor has another shape: only what training adds may be missing."""
    monkeypatch.setattr(StarGAN, "load_weights", lambda *_: pytest.fail("built in full"))
    _, meta = load_safetensors(shipped)
    save_safetensors({"other": torch.zeros(10)}, tmp_path / "few.safetensors", meta)
    options = {"base_channels": 512, "max_channels": 1024}
    path = changed(tmp_path / "bad.safetensors", tmp_path / "few.safetensors", options)
    with pytest.raises(WeightsError, match=r"expected options of a model of 10 numbers, got one"):
        gen.load(path)


# ---- numbers ------------------------------------------------------------------------------------


def flip(path, at: int, bit: int):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_every_changed_bit_of_what_we_write_is_noticed(tmp_path, shipped):
    data = shipped.read_bytes()
    begins = 8 + struct.unpack("<Q", data[:8])[0]
    rng = torch.Generator().manual_seed(0)
    for _ in range(34):
        path = tmp_path / "x.safetensors"
        path.write_bytes(data)
        at = int(torch.randint(begins, len(data), (), generator=rng))
        flip(path, at, int(torch.randint(8, (), generator=rng)))
        with pytest.raises(WeightsError, match="x.safetensors: expected tensors of sha"):
            checkpoint.read(path)


def test_every_changed_bit_of_a_training_checkpoint_is_noticed(tmp_path):
    saved = {"state_dict": {"a": torch.randn(500)}, "optimizer_states": [torch.randn(500)]}
    path = tmp_path / "last.ckpt"
    checkpoint.AtomicCheckpointIO().save_checkpoint(saved, path)
    data = path.read_bytes()
    for tensor in (saved["state_dict"]["a"], saved["optimizer_states"][0]):
        at = data.index(tensor.numpy().tobytes())
        for offset in range(0, 2000, 67):
            path.write_bytes(data)
            flip(path, at + offset, offset % 8)
            with pytest.raises(WeightsError, match="last.ckpt: .*damaged: .*another checksum"):
                checkpoint.AtomicCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize("new", [True, False])
def test_a_changed_number_in_a_training_checkpoint_of_right_checksums_is_noticed(tmp_path, new):
    path, state = tmp_path / "last.ckpt", {"a": torch.randn(5), "b": torch.ones(2, dtype=torch.int)}
    checkpoint.AtomicCheckpointIO().save_checkpoint({"state_dict": state}, path)
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["a"][3] += 1e-6
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    for door in (gen.load, checkpoint.read, checkpoint.AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(WeightsError, match="last.ckpt: expected tensors of sha256 .*damaged"):
            door(path)
    del saved["sha256"]  # of an earlier version
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    loaded = checkpoint.AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["a"]
    assert torch.equal(loaded, saved["state_dict"]["a"])


def test_a_file_without_a_digest_loads(tmp_path, shipped):
    state, meta = load_safetensors(shipped)
    assert "sha256" not in meta
    save_file(state, tmp_path / "old.safetensors", meta)
    assert type(gen.load(tmp_path / "old.safetensors")) is StarGAN
    assert weights.digest(state) != weights.digest(state | {"x": torch.ones(1)})
    assert weights.digest(state) == weights.digest(dict(reversed(state.items())))


BAD = [torch.nan, torch.inf, -torch.inf]


@pytest.mark.parametrize("name", ["x.ckpt", "x.pt", "x", ".safetensors"])
def test_an_export_is_not_written_under_a_name_that_nothing_would_read(tmp_path, name):
    path = ship(StarGAN(**OPTIONS["StarGAN"]), tmp_path / "from.safetensors")
    with pytest.raises(ValueError, match=f"{name}: expected a name that ends in .safetensors"):
        checkpoint.export(path, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["from.safetensors"]


@pytest.mark.parametrize("text", ["hello", "x", "{}", "<html>"])
def test_a_text_file_is_no_checkpoint_in_words(tmp_path, text):
    (tmp_path / "x.png").write_text(text)
    with pytest.raises(WeightsError, match="wrote, got one that is .*(damaged|of another kind)"):
        gen.load(tmp_path / "x.png")


@pytest.mark.parametrize("value", BAD)
def test_weights_that_are_not_finite_are_refused_at_every_load(tmp_path, value):
    method = StarGAN(**OPTIONS["StarGAN"])
    method.generator.from_rgb.bias.data[1] = value
    said = "expected finite numbers, got NaN or infinity in .*from_rgb.bias"
    ship(method, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=f"x.safetensors: {said}"):
        gen.load(tmp_path / "x.safetensors")
    saved = dict(
        method="StarGAN", hyper_parameters=dict(method.hparams), domains=["a", "b", "c"],
        state_dict=method.state_dict(), global_step=3,
    )  # fmt: skip
    torch.save(saved, tmp_path / "x.ckpt")
    for door in (gen.load, checkpoint.read, checkpoint.AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(WeightsError, match=f"x.ckpt: {said}"):
            door(tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match=f"x.ckpt: {said}"):
        checkpoint.export(tmp_path / "x.ckpt", tmp_path / "out.safetensors")
    torch.save(method.generator.state_dict(), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=f"x.pth: {said}"):
        read_state(tmp_path / "x.pth", "weights")


# ---- metadata -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meta",
    [
        dict(hparams="[" * 5000), dict(hparams="[1]"), dict(hparams='{"lr": {}}'),
        dict(hparams='{"lr": null}'), dict(domains="[1, 2, 3]"), dict(domains='"abc"'),
        dict(domains='["a", "a", "b"]'), dict(domains='[["a"]]'), dict(domains="{}"),
        dict(iteration="1" * 5000), dict(iteration="x"), dict(method="__class__"),
        dict(method="Method"), dict(domains='["a"]'),
    ],
    ids=str,
)  # fmt: skip
def test_odd_metadata_are_refused_in_words(tmp_path, shipped, meta):
    path = changed(tmp_path / "bad.safetensors", shipped, **meta)
    with pytest.raises(WeightsError, match=r"bad.safetensors: expected"):
        gen.load(path)


@pytest.mark.parametrize(
    "change",
    [
        None, 3, [1], {}, dict(state_dict=[]), dict(state_dict={"a": 1}), dict(domains=3),
        dict(hyper_parameters=[1]), dict(hyper_parameters={1: 2}), dict(global_step="x"),
        dict(method=["StarGAN"]), dict(domains=["a", 2, "c"]), dict(state_dict={3: torch.ones(1)}),
    ],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_odd_training_files_are_refused_in_words(tmp_path, change):
    saved = dict(
        method="StarGAN", hyper_parameters={}, domains=[], state_dict={"a": torch.ones(1)},
        global_step=1,
    )  # fmt: skip
    whole = saved | change if isinstance(change, dict) and change else change
    torch.save(whole, tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match=r"x.ckpt: expected"):
        gen.load(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        dict(state_dict=[]), dict(state_dict={"a": 1}), dict(domains=3), dict(domains="ab"),
        dict(hyper_parameters=[1]), dict(hyper_parameters=None), dict(method=["StarGAN"]),
    ],
    ids=str,
)  # fmt: skip
def test_odd_training_files_are_not_resumed(tmp_path, change):
    saved = dict(method="StarGAN", hyper_parameters={}, domains=[], state_dict={})
    torch.save(saved | change, tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match=f"x.ckpt: expected .*{next(iter(change))}"):
        checkpoint.AtomicCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")

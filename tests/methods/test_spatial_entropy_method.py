"""A ViT with spatial entropy: its step, its schedules, and the promises that every method keeps."""

import copy
import csv
import functools
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import gen
from ddp import run
from gen.checkpoint import AtomicCheckpointIO, export
from gen.cli import main
from gen.files import WeightsError
from gen.losses.spatial_entropy import head_decorrelation, spatial_entropy, total_variation
from gen.methods import spatial_entropy as module
from gen.methods.base import NonFiniteLoss
from gen.methods.schedules import ramp
from gen.methods.spatial_entropy import SpatialEntropy
from gen.metrics.attention import map_statistics
from gen.networks.attention_tap import AttentionTap
from gen.networks.timm_classifier import LastBlock
from harness import bare
from runs import HEADS, VIT, arguments, cut_run, differences, fit, losses, read

legacy = np.random.seed
NAME, FIRST, MORE = "SpatialEntropy", 3, 4
ALL = ("--trainer.limit_val_batches=1.0", f"--trainer.val_check_interval={FIRST}")
TINY = VIT | dict(num_classes=3)
LOGGED = ("entropy", "components")
PLAIN = TINY | dict(mixup=0.0, cutmix=0.0, drop_path=0.0, label_smoothing=0.0)


class Clocked(bare(SpatialEntropy)):
    """Without a trainer: iteration 0 of 40 in 20 epochs, logging always."""

    total, epochs, device = 40, 20, torch.device("cpu")

    class trainer:
        log_every_n_steps = 1

    def clock(self):
        return self.total, self.epochs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run of FIRST + MORE iterations, and the checkpoint that it wrote in between."""
    return cut_run(NAME, tmp_path_factory.mktemp(NAME), *ALL)


def batch(n=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, 32, 32, generator=rng) * 2 - 1
    return dict(x=x, y=torch.randint(3, (n,), generator=rng))


# ---- the step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spatial_entropy", "total_variation", "head_decorrelation"])
def test_the_loss_is_cross_entropy_plus_the_weighted_regularizer(name):
    method = Clocked(**PLAIN, regularizer=name, lambda_reg=0.3)
    method.global_step = 19  # epoch 9: the whole weight
    loss, images = method.training_step(batch()), batch()
    tap = AttentionTap(method.net)
    logits = method.net((images["x"] + 1) / 2 / 0.5 - 1)  # mean and deviation 0.5
    similarity, heads = tap.pop_with_heads()
    term = {
        "spatial_entropy": lambda: spatial_entropy(similarity),
        "total_variation": lambda: total_variation(similarity),
        "head_decorrelation": lambda: head_decorrelation(heads),
    }[name]()
    ce = F.cross_entropy(logits, images["y"])
    assert loss.item() == pytest.approx((ce + 0.3 * term).item(), abs=1e-5) and term.abs() > 1e-4
    terms = method.terms
    assert set(terms) == {f"train/{k}" for k in ("ce", "lambda_reg", *LOGGED, name)}
    assert terms["train/ce"] == pytest.approx(ce.item(), abs=1e-5)
    assert terms["train/lambda_reg"] == pytest.approx(0.3)
    found = {k: v.double().mean().item() for k, v in map_statistics(similarity).items()}
    assert terms["train/entropy"].item() == pytest.approx(found["spatial_entropy"], abs=1e-5)
    assert terms["train/components"] == found["components"]
    loss.backward()
    assert all(p.grad.isfinite().all() for p in method.net.parameters())


def test_components_are_counted_above_the_mean_of_each_map():
    s = -torch.ones(1, 2, 4, 4)
    s[0, 0, 0, 0] = s[0, 0, 3, 3] = s[0, 0, 0, 3] = 1  # three
    s[0, 1, 0, 0] = s[0, 1, 1, 1] = 1  # one, by its corner
    assert module.statistics(s)["components"] == 2
    assert module.statistics(s)["entropy"].item() == pytest.approx(math.log(3) / 2, abs=1e-6)


def test_weight_zero_is_not_computed(monkeypatch):
    whole, calls = module.losses.spatial_entropy, []
    monkeypatch.setattr(module.losses, "spatial_entropy", lambda s: calls.append(s) or whole(s))
    first = Clocked(**PLAIN)  # epoch 0 of the warm-up
    first.training_step(batch())
    assert first.terms["train/lambda_reg"] == 0 and "train/spatial_entropy" not in first.terms
    logits = []
    for options in (dict(regularizer="none"), dict(lambda_reg=0.0)):
        method = Clocked(**PLAIN, **options)
        method.global_step = 19
        logits.append(method.training_step(batch()).item())
        told = {f"train/{k}" for k in ("ce", "lambda_reg", *LOGGED)}
        assert set(method.terms) == told and method.terms["train/lambda_reg"] == 0
        assert math.isfinite(method.terms["train/entropy"]) and method.terms["train/entropy"] > 0
        method.trainer = SimpleNamespace(log_every_n_steps=3)  # this iteration is not logged
        logits.append(method.training_step(batch()).item())
        assert set(method.terms) == told - {f"train/{k}" for k in LOGGED}
    assert len(set(logits)) == 1
    assert len(calls) == 1 + 2  # of iterations that are logged, for the log alone


def test_the_regularizer_gathers_the_attention():
    method, images = Clocked(**PLAIN, lambda_reg=30.0, lr=3e-3), batch(8)
    method.global_step = 19
    before = spatial_entropy(method.attention(images["x"], averaged=False))
    (optimizer,) = method.configure_optimizers()
    for _ in range(30):
        optimizer.zero_grad()
        method.training_step(images).backward()
        optimizer.step()
    assert spatial_entropy(method.attention(images["x"], averaged=False)) < 0.5 * before
    kept = spatial_entropy(method.attention(images["x"]))  # nobody moved the average
    assert kept == before


@pytest.mark.parametrize("colour", [0.0, -1.0, "same"])
@pytest.mark.parametrize("name", module.REGULARIZERS)
def test_gradients_are_finite_at_the_corners(name, colour):
    method = Clocked(**TINY, regularizer=name, lambda_reg=1.0)
    method.global_step, images = 19, batch()
    images["x"][:] = images["x"][:1].clone() if colour == "same" else colour
    for attention in (1.0, 0.0):  # also a head that attends to nothing in particular
        method.net.blocks[-1].attn.qkv.weight.data.mul_(attention)
        method.net.blocks[-1].attn.qkv.bias.data.mul_(attention)
        loss = method.training_step(images)
        loss.backward()
        assert loss.isfinite() and all(p.grad.isfinite().all() for p in method.net.parameters())


def test_mixed_images_have_mixed_labels_and_the_batch_stays_as_it_was():
    method, images = Clocked(**TINY, label_smoothing=0.0, drop_path=0.0), batch(6)
    kept, seen, forward = copy.deepcopy(images), [], method.logits
    method.logits = lambda net, x: seen.append(x) or forward(net, x)
    loss = method.training_step(images)
    assert not differences(images, kept)
    legacy(method.step_rng(method.hparams.seed).initial_seed())
    x, y = method.mix(images["x"].clone(), images["y"])
    assert torch.equal(seen[0], x) and not torch.equal(x, images["x"]) and y.shape == (6, 3)
    expected = -(y * forward(method.net, x).log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_labels_are_smoothed_mixed_or_not(mixup):
    options = PLAIN | dict(mixup=mixup, label_smoothing=0.1)
    method, images, seen = Clocked(**options, regularizer="none"), batch(), []
    method.net.head.weight.data.mul_(50)  # surer of itself
    images["y"][:] = 1  # so is every mixture
    forward = method.logits
    method.logits = lambda net, x: seen.append(forward(net, x)) or seen[-1]
    loss = method.training_step(images)
    log_p = seen[0].log_softmax(1)
    expected = -(0.9 * log_p[:, 1] + 0.1 * log_p.mean(1)).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(loss + log_p[:, 1].mean()) > 1e-3


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_depth_is_stochastic_at_the_rate_that_is_given(rate):
    method, losses = Clocked(**PLAIN | dict(drop_path=rate), regularizer="none"), set()
    for method.global_step in range(5):
        losses.add(method.training_step(batch()).item())
    assert len(losses) > 1 if rate else len(losses) == 1
    assert getattr(method.net.blocks[-1].drop_path2, "drop_prob", 0.0) == rate


def test_a_step_draws_from_seed_and_iteration_alone():
    method = Clocked(**TINY | dict(drop_path=0.5))
    losses = []
    for iteration, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        legacy(noise)
        method.global_step = iteration
        losses.append(method.training_step(batch()).item())
    assert losses[0] == losses[1] != losses[2]


# ---- schedules ----------------------------------------------------------------------------------


def test_the_weight_rises_and_falls_as_released(specs):
    golden = json.loads((specs / "sar_golden.json").read_text())["lambda_schedule"]
    ours = [0.01 * ramp(e, 100) for e in range(100)]
    np.testing.assert_allclose(ours, golden["epochs_100"], atol=1e-9)


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10, 20, 300])
def test_the_weight_makes_sense_in_short_runs(epochs):
    weights = [ramp(e, epochs) for e in range(epochs)]
    assert max(weights) == 1 and min(weights) >= 0 and weights[-1] > 0
    peak = weights.index(1)
    assert weights[: peak + 1] == sorted(weights[: peak + 1])
    assert weights[peak:] == sorted(weights[peak:], reverse=True)
    assert peak < min(10, max(1, epochs / 2 + 0.5))


def test_schedules_depend_on_the_iteration_alone():
    method = Clocked(**TINY, lr=1e-3, lr_min=1e-5, lr_warmup_epochs=5, lambda_reg=0.5)
    rates = [1e-3 * method.lr_factor(i) for i in range(41)]
    assert rates[:3] == pytest.approx([1e-6, 1e-6 + 999e-6 / 10, 1e-6 + 2 * 999e-6 / 10])
    assert rates[10] == pytest.approx(1e-3) and rates[25] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[40] == pytest.approx(1e-5)
    weights = [method.weight(i) for i in range(40)]
    assert weights[::2] == weights[1::2]  # two iterations an epoch
    assert weights[::2] == pytest.approx([0.5 * ramp(e, 20) for e in range(20)])


def test_epochs_come_from_the_trainer(tmp_path, monkeypatch):
    seen, start = [], SpatialEntropy.on_train_start
    watch = lambda self: seen.append(self.clock()) or start(self)  # noqa: E731
    monkeypatch.setattr(SpatialEntropy, "on_train_start", watch)
    fit(NAME, tmp_path / "steps", steps=2)
    command = arguments(NAME, tmp_path / "epochs", "--trainer.max_epochs=3")
    main([flag for flag in command if "max_steps" not in flag] + ["--data.batch_size=8"])
    assert seen == [(2, 100), (9, 3)]  # 24 images, 8 at once


# ---- the network --------------------------------------------------------------------------------


def test_kernels_decay_and_later_blocks_learn_faster():
    method = Clocked(**TINY, lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    (optimizer,) = method.configure_optimizers()
    group = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    assert set(group) == {id(p) for p in method.net.parameters()}
    of = {name: group[id(p)] for name, p in method.net.named_parameters()}
    assert {n for n, g in of.items() if g["weight_decay"]} == {
        n for n, p in method.net.named_parameters() if p.ndim > 1 and "token" not in n
        and "pos_embed" not in n
    }  # fmt: skip
    depth = len(method.net.blocks)
    assert of["head.weight"]["lr"] == 1e-3
    for i in range(depth):
        rate = 1e-3 * 0.5 ** (depth - i)
        assert of[f"blocks.{i}.attn.qkv.weight"]["lr"] == pytest.approx(rate)
    assert len(Clocked(**TINY).configure_optimizers()[0].param_groups) == 2


def test_colours_become_what_the_model_is_used_to():
    method = SpatialEntropy(model_name="deit_tiny_patch16_224", img_size=32, num_classes=3)
    seen = []
    method.ema.module["net"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = batch()["x"]
    method.classify(x)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    torch.testing.assert_close(seen[0], ((x + 1) / 2 - mean) / std)


@pytest.mark.parametrize(
    "name, options, grid",
    [
        ("deit_tiny_distilled_patch16_224", dict(img_size=32, patch_size=8), (4, 4)),
        ("vit_small_patch14_reg4_dinov2", dict(img_size=56), (4, 4)),
        ("pvt_v2_b0", dict(img_size=64), (2, 2)),
        ("cait_xxs24_224", dict(img_size=64), (4, 4)),
    ],
)
def test_other_families_train(name, options, grid):
    method = Clocked(model_name=name, num_classes=3, lambda_reg=1.0, **options)
    method.global_step, n = 19, method.img_size
    x = torch.rand(2, 3, n, n, generator=torch.Generator().manual_seed(0)) * 2 - 1
    method.training_step(dict(x=x, y=torch.tensor([0, 1]))).backward()
    assert "train/spatial_entropy" in method.terms
    assert method.attention(x).shape[2:] == grid and method.classify(x).shape == (2, 3)


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "test_vit_relpos", "levit_128s"])
def test_other_sizes_than_the_native_one(name):
    served = name.startswith("vit_tiny")
    regularizer = "spatial_entropy" if served else "none"
    method = Clocked(model_name=name, img_size=64, num_classes=3, regularizer=regularizer)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    method.training_step(dict(x=x, y=torch.tensor([0, 1]))).backward()
    assert not served or method.attention(x).shape[2:] == (2, 2)


@pytest.mark.parametrize(
    "options, why",
    [
        (dict(model_name="crossvit_tiny_240", patch_size=0), "got 32, 0, .*size of tensor"),
        (dict(model_name="pvt_v2_b0"), "got 32, 8, .* argument 'patch_size'"),
        (dict(model_name="vgg11", patch_size=0), "got 32, 0, .* argument 'drop_path_rate'"),
        (dict(model_name="pit_ti_224", patch_size=0, registers=4), "got 32, 0, .* 'reg_tokens'"),
        (dict(img_size=30), "got 30, 8, .* should be divisible by patch size"),
    ],
)
def test_sizes_that_a_model_does_not_take_are_told_before_the_first_batch(options, why):
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=f"drop_path and registers as .* takes them, {why}"):
        SpatialEntropy(**TINY | options, regularizer="none")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_convolutions_are_refused_with_the_reason_but_serve_as_a_baseline():
    with pytest.raises(ValueError, match="AttentionTap: expected ViT.*got ResNet"):
        SpatialEntropy(model_name="test_resnet", img_size=32)
    method = Clocked(model_name="test_resnet", img_size=32, num_classes=3, regularizer="none")
    method.training_step(batch())
    assert set(method.terms) == {"train/ce"}  # it has no map
    assert method.classify(batch()["x"]).shape == (4, 3)
    with pytest.raises(ValueError, match="AttentionTap: expected ViT.*got ResNet"):
        method.attention(batch()["x"])


@pytest.mark.parametrize("name", ["vit_nope", "hf-hub:some/model", "local-dir:/tmp", ""])
def test_models_come_from_timm_alone(name):
    with pytest.raises(ValueError, match="expected a model of timm, got"):
        SpatialEntropy(model_name=name)


def test_the_last_block_can_be_rewired():
    method = SpatialEntropy(**TINY, rewire_last=True)
    assert isinstance(method.net.blocks[-1], LastBlock)
    assert isinstance(method.ema.module["net"].blocks[-1], LastBlock)
    assert not [k for k in method.state_dict() if f"blocks.{len(method.net.blocks) - 1}.norm2" in k]


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("rewire_last", [False, True])
@pytest.mark.parametrize("regularizer", ["spatial_entropy", "none"])
def test_loss_last_block_and_registers_are_independent(registers, rewire_last, regularizer):
    options = dict(regularizer=regularizer, rewire_last=rewire_last, registers=registers)
    method, images = Clocked(**PLAIN, **options, lambda_reg=1.0), batch()
    method.global_step = 19
    loss = method.training_step(images)
    loss.backward()
    assert ("train/spatial_entropy" in method.terms) == (regularizer != "none")
    assert isinstance(method.net.blocks[-1], LastBlock) == rewire_last
    assert method.net.num_prefix_tokens == 1 + registers
    if registers:
        assert method.net.reg_token.grad.abs().sum() > 0
    assert method.attention(images["x"]).shape == (4, 2, 4, 4)  # patches alone
    assert method.tokens(images["x"]).shape == (4, 16, 64)
    assert map_statistics(method.attention(images["x"]))["components"].min() >= 1


def test_first_weights_are_those_that_training_started_from():
    method, x = SpatialEntropy(**TINY, registers=2, seed=5), batch()["x"]
    began = method.attention(x), method.classify(x)
    for average in (method.net, method.ema.module):
        for p in average.parameters():
            p.data.add_(0.1)
    fresh = method.untrained()
    assert torch.equal(fresh.attention(x), began[0]) and torch.equal(fresh.classify(x), began[1])
    assert not torch.allclose(method.attention(x), began[0]) and not fresh.training


def another_head(img_size: int) -> nn.Module:
    """Drawn from a seed that no method here has: equal weights would be taken for missing ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        return timm.create_model("test_vit", num_classes=7, img_size=img_size, patch_size=8)


def test_pretrained_weights_of_another_head_and_grid_are_taken_over(tmp_path, monkeypatch):
    source = another_head(64)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    given = dict(pretrained_file=tmp_path / "w.safetensors", lr=1e-12, lr_min=0.0)
    kept = read(fit(NAME, tmp_path / "run", steps=1, **given))["state_dict"]
    for prefix in ("net.", "ema.module.net."):
        for key, value in source.state_dict().items():
            ours = kept[prefix + key]
            if key.startswith("head."):
                assert len(ours) == 3
            elif key == "pos_embed":
                assert ours.shape == (1, 17, value.shape[2]) != value.shape
            else:
                torch.testing.assert_close(ours, value, rtol=0, atol=1e-9)
    # a file of the method itself is read without them
    monkeypatch.setattr(SpatialEntropy, "build", forbid(SpatialEntropy.build))
    assert gen.load(tmp_path / "run/last.ckpt").domains == ["bear", "cat", "dog"]


def test_a_constant_that_training_left_alone_is_not_missing(tmp_path, monkeypatch):
    small = dict(depths=(1, 1, 1, 1), embed_dim=8, num_heads=(1, 1, 2, 2))
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, **small))
    options = dict(model_name="swinv2_tiny_window8_256", img_size=64, num_classes=3)
    source = SpatialEntropy(**options, seed=1).net.state_dict()
    assert len(source["layers.0.blocks.0.attn.logit_scale"].unique()) == 1  # as it began
    method = SpatialEntropy(**options, pretrained_file=str(tmp_path / "w.pth"))
    torch.save(source, tmp_path / "w.pth")
    method.load_init()
    key = "layers.0.blocks.0.mlp.fc1.weight"
    assert torch.equal(method.net.state_dict()[key], source[key])
    monkeypatch.setattr(SpatialEntropy, "build", lambda *_: copy.deepcopy(method.net))
    with pytest.raises(WeightsError, match="got none for .'patch_embed.proj.weight', 'layers.0"):
        method.load_init()


@pytest.mark.parametrize("content", [None, b"junk", "other"])
def test_a_pretrained_file_that_does_not_fit_is_named(tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content == "other":
        save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), path)
    elif content:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="weights of timm's test_vit in .*w.safetensors"):
        fit(NAME, tmp_path / "run", pretrained_file=path)


def test_the_head_of_a_pretrained_model_is_a_function_of_the_seed(tmp_path):
    source = another_head(32)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    heads = []
    for seed, noise in ((1, 1), (1, 2), (2, 1)):
        method = SpatialEntropy(**TINY, seed=seed, pretrained_file=str(tmp_path / "w.safetensors"))
        torch.manual_seed(noise)
        method.load_init()
        assert torch.equal(method.net.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
        heads.append(method.net.head.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_checkpoint_is_measured_without_the_pretrained_file(whole, tmp_path):
    gone = dict(pretrained_file=tmp_path / "gone.safetensors")
    more = (f"--ckpt_path={whole / 'last.ckpt'}", *ALL)
    main(["validate", *arguments(NAME, tmp_path, *more, **gone)[1:]])
    assert any(row["val/top1"] for row in losses(tmp_path))


def test_what_cannot_be_mixed_or_scheduled_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="batch_size: expected an even number .*, got 3"):
        Clocked(**TINY).training_step(batch(3))
    command = arguments(NAME, tmp_path, "--trainer.max_epochs=-1")
    with pytest.raises(ValueError, match="expected --trainer.max_epochs or max_steps"):
        main([flag for flag in command if "max_steps" not in flag])


@pytest.mark.parametrize(
    "option, expected",
    {
        "mixup=-1": "[0, inf)",
        "cutmix=-0.1": "[0, inf)",
        "lr=0": "(0, inf)",
        "lr=-1": "(0, inf)",
        "lr_min=-1e-5": "[0, inf)",
        "lambda_reg=-1": "[0, inf)",
        "lambda_reg=nan": "[0, inf)",
        "lambda_reg=inf": "[0, inf)",
        "lambda_warmup_epochs=-1": "[0, inf)",
        "lr_warmup_epochs=-1": "[0, inf)",
        "weight_decay=-0.1": "[0, inf)",
        "layer_decay=0": "(0, 1]",
        "layer_decay=1.1": "(0, 1]",
        "label_smoothing=2": "[0, 1]",
        "drop_path=2": "[0, 1]",
        "ema_decay=2": "[0, 1]",
        "patch_size=-4": "[0, inf)",
        "img_size=0": "(0, inf)",
        "seed=-1": "[0, inf)",
    }.items(),
)
def test_numbers_outside_their_intervals_are_refused(option, expected):
    name, value = option.split("=")
    with pytest.raises(ValueError, match=re.escape(f"expected {name} in {expected}, got")):
        SpatialEntropy(**TINY | {name: float(value)})


def forbid(build):
    def checked(self, pretrained=None):
        assert pretrained is None, "asked for pretrained weights"
        return build(self, pretrained)

    return checked


# ---- inference ----------------------------------------------------------------------------------


def test_inference_depends_on_the_image_alone():
    method, x = SpatialEntropy(**TINY | dict(drop_path=0.5)), batch(6)["x"]
    for p in method.net.parameters():
        p.data.mul_(1.5)  # the raw weights are others than the averages
    before, kept = copy.deepcopy(method.state_dict()), x.clone()
    for call in (method.classify, method.attention, method.tokens):
        for averaged in (True, False):
            method.eval()
            told = call(x, averaged)
            assert told.is_inference() and told.dtype == torch.float32
            method.train()
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(call(x, averaged), told)
            assert all(part.training for part in method.net.modules())
            alone = torch.cat([call(one, averaged) for one in x.split(1)])
            torch.testing.assert_close(alone, told, atol=1e-5, rtol=0)
        assert not torch.allclose(call(x), call(x, averaged=False))
    assert torch.equal(x, kept) and not differences(method.state_dict(), before)
    hooks = [m for m in method.ema.module.modules() if m._forward_hooks]
    assert not hooks  # the tap of `attention` is gone


def test_attention_also_of_other_sizes():
    method = SpatialEntropy(**TINY)
    heads = method.net.blocks[-1].attn.num_heads
    assert method.attention(torch.zeros(2, 3, 48, 64)).shape == (2, heads, 6, 8)


@pytest.mark.parametrize("registers", [0, 2])
def test_tokens_are_the_patches_of_the_last_block(registers):
    method, seen = SpatialEntropy(**TINY, registers=registers).eval(), []
    net = method.ema.module["net"]
    net.norm.weight.data.mul_(7)  # is not passed
    net.blocks[-1].register_forward_hook(lambda *call: seen.append(call[2]))
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = method.tokens(x)
    assert found.shape == (2, 24, 64) and torch.equal(found, seen[0][:, 1 + registers :])
    with pytest.raises(ValueError, match="expected sides of whole patches of 8 px, got 30 px"):
        method.tokens(torch.zeros(1, 3, 30, 32))
    plain = SpatialEntropy("test_resnet", img_size=32, regularizer="none")
    with pytest.raises(ValueError, match="tokens: expected a Vision Transformer of timm, got ResN"):
        plain.tokens(batch()["x"])


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32)])
def test_what_is_no_image_has_no_attention(shape):
    with pytest.raises(ValueError, match=r"expected images \(N, 3, H, W\), got \([0-9, ]+\)$"):
        SpatialEntropy(**TINY).attention(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 64, 64), (1, 1, 32, 32), (1, 3, 32, 16)])
def test_other_sizes_are_not_classified(shape):
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 32, 32\), got"):
        SpatialEntropy(**TINY).classify(torch.zeros(shape))


# ---- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, workers, tmp_path):
    more = (f"--ckpt_path={whole / 'cut.ckpt'}", f"--data.num_workers={workers}", *ALL)
    a, b = read(whole / "last.ckpt"), read(fit(NAME, tmp_path, *more, steps=FIRST + MORE))
    assert a["global_step"] == b["global_step"] == FIRST + MORE
    assert any(key.startswith("ema.module.net.") for key in a["state_dict"])
    for part in ("state_dict", "optimizer_states", "hyper_parameters"):
        assert not differences(a[part], b[part], part)
    resumed, uncut = ([r for r in losses(o) if r["train/ce"]] for o in (tmp_path, whole))
    assert resumed == [{k: r[k] for k in resumed[0]} for r in uncut[FIRST:]]
    assert "train/spatial_entropy" in resumed[0]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_averaged_and_raw_weights_are_judged_each(whole, tmp_path, monkeypatch, command):
    judged = {}
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    judged[False] = F.one_hot(y, 7).float()  # the raw weights know all
    judged[True] = torch.arange(7.0).flip(0).repeat(6, 1)  # the averaged ones say 0, then 1, 2, ..
    method = SpatialEntropy(**TINY | dict(num_classes=7))
    for name, score in method.scores.items():
        score.update(judged["raw" not in name], y)
        expected = {"top1": 2 / 6, "top1_raw": 1, "top5": 1, "top5_raw": 1}[name]
        assert score.compute() == pytest.approx(expected), name

    monkeypatch.setattr(
        SpatialEntropy, "classify", lambda self, x, averaged=True: judged[averaged][: len(x)]
    )
    judged = {k: v[:, :3] for k, v in judged.items()}
    small = ("--data.val_images=2", "--data.val_batch_size=6", f"--ckpt_path={whole / 'last.ckpt'}")
    main([command, *arguments(NAME, tmp_path, *ALL, *small)[1:]])
    split = {"validate": "val", "test": "test"}[command]
    row = next(row for row in losses(tmp_path) if row[f"{split}/top1"])
    assert float(row[f"{split}/top1"]) == pytest.approx(2 / 6)
    assert float(row[f"{split}/top1_raw"]) == 1
    assert not [name for name in row if "top5" in name]  # of 3 classes


def test_predictions_are_a_table(whole, tmp_path):
    more = (f"--ckpt_path={whole / 'last.ckpt'}", "--data.val_batch_size=5")
    main(["predict", *arguments(NAME, tmp_path, *more)[1:]])
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    images, method = gen.data.Heads(**HEADS).val, gen.load(whole / "last.ckpt")
    assert [int(row["index"]) for row in rows] == list(range(12))
    shares = method.classify(torch.stack([images[i]["x"] for i in range(12)])).softmax(1)
    for row, share in zip(rows, shares, strict=True):
        told = [float(row[name]) for name in method.domains]
        assert told == pytest.approx(share.tolist(), abs=1e-5)
        assert row["class"] == method.domains[int(share.argmax())]


def test_a_nan_is_named_and_its_batch_saved_also_where_maps_are_counted(tmp_path):
    with pytest.raises(NonFiniteLoss, match="got NaN or infinity in train/ce, .*train/entropy"):
        fit(NAME, tmp_path, steps=3, lr=1e30, lr_warmup_epochs=0)  # each iteration is logged
    assert list(tmp_path.glob("nonfinite_*.pt"))


def test_components_are_those_of_the_logged_iteration(tmp_path, monkeypatch):
    at = []
    told = lambda _: at.append(1) or {"components": torch.tensor(float(len(at)))}  # noqa: E731
    monkeypatch.setattr(module, "statistics", told)
    fit(NAME, tmp_path, "--trainer.log_every_n_steps=3", steps=9)
    rows = losses(tmp_path)
    assert [int(row["step"]) for row in rows] == [2, 5, 8]
    assert [float(row["train/components"]) for row in rows] == [1, 2, 3]  # one count a row


def test_max_steps_counts_iterations_and_the_average_follows_each(whole):
    last = read(whole / "last.ckpt")
    assert {float(s["step"]) for s in last["optimizer_states"][0]["state"].values()} == {7.0}
    cut, first = read(whole / "cut.ckpt")["state_dict"], SpatialEntropy(**TINY).state_dict()
    key = "blocks.0.mlp.fc1.weight"
    assert not torch.equal(cut[f"net.{key}"], first[f"net.{key}"])
    assert not torch.equal(cut[f"ema.module.net.{key}"], first[f"ema.module.net.{key}"])
    moved = (cut[f"ema.module.net.{key}"] - first[f"net.{key}"]).norm()
    assert 0 < moved < (cut[f"net.{key}"] - first[f"net.{key}"]).norm()


def test_the_average_of_a_short_run_forgets_its_first_weights():
    method = SpatialEntropy(**TINY | dict(ema_decay=0.9999))
    method._trainer = SimpleNamespace(global_step=0)
    first = method.net.head.weight.detach().clone()
    with torch.no_grad():
        method.net.head.weight.zero_()
    for step in range(1, 301):
        method._trainer.global_step = step
        method.average()
    left = method.ema.module["net"].head.weight.abs().max() / first.abs().max()
    assert left < 1e-3


def test_the_command_line_wins_on_resume_and_the_difference_is_printed(whole, tmp_path, caplog):
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    new = dict(lambda_reg=0.5, regularizer="total_variation")
    out = tmp_path / "run"
    read(fit(NAME, out, f"--ckpt_path={whole / 'cut.ckpt'}", steps=5, **new))
    told = [m for m in caplog.messages if m.startswith("resume:") and "trainer." not in m]
    assert told == [
        "resume: regularizer was spatial_entropy, is now total_variation",
        "resume: lambda_reg was 0.01, is now 0.5",
    ]
    assert all(row["train/total_variation"] for row in losses(out))
    with pytest.raises(WeightsError, match=r"^checkpoint: \S*net\.\S+: expected shape .*, got"):
        fit(NAME, tmp_path, f"--ckpt_path={whole / 'cut.ckpt'}", patch_size=4)


def test_a_shipped_file_judges_as_the_run_did_and_can_be_tuned(whole, tmp_path):
    out = tmp_path / "x.safetensors"
    export(whole / "last.ckpt", out)
    a, b, x = gen.load(whole / "last.ckpt"), gen.load(out), batch()["x"]
    assert type(b) is SpatialEntropy and b.domains == ["bear", "cat", "dog"]
    assert torch.equal(a.classify(x), b.classify(x)) and torch.equal(a.attention(x), b.attention(x))
    assert out.stat().st_size < 0.6 * (whole / "last.ckpt").stat().st_size / 2
    tuned = read(fit(NAME, tmp_path / "tuned", steps=1, init_from=out))
    assert tuned["global_step"] == 1
    main(["validate", *arguments(NAME, tmp_path / "val", *ALL, init_from=out)[1:]])
    assert any(row["val/top1"] for row in losses(tmp_path / "val"))


def test_half_a_file_judges_nearly_the_same_and_refuses_what_it_cannot_hold(whole, tmp_path):
    export(whole / "last.ckpt", tmp_path / "whole.safetensors")
    export(whole / "last.ckpt", tmp_path / "half.safetensors", half=True)
    a, b = (gen.load(tmp_path / f"{name}.safetensors") for name in ("whole", "half"))
    assert all(v.dtype == torch.float32 for v in b.state_dict().values())
    torch.testing.assert_close(
        b.classify(batch()["x"]), a.classify(batch()["x"]), atol=5e-3, rtol=0
    )
    small, large = (tmp_path / f"{name}.safetensors" for name in ("half", "whole"))
    assert small.stat().st_size < 0.7 * large.stat().st_size
    checkpoint = read(whole / "last.ckpt")
    checkpoint["state_dict"]["ema.module.net.head.bias"][0] = 7e4
    AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "big.ckpt")
    with pytest.raises(ValueError, match="range of float16.*net.head.bias"):
        export(tmp_path / "big.ckpt", tmp_path / "x.safetensors", half=True)


def test_it_trains_in_low_precision(tmp_path):
    fit(NAME, tmp_path, "--trainer.precision=bf16-mixed", steps=3)
    rows = losses(tmp_path)
    assert len(rows) == 3 and all(math.isfinite(float(row["train/ce"])) for row in rows)


def test_two_processes_train_as_one(tmp_path):
    done = run(NAME, tmp_path, *ALL, steps=FIRST)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (read(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert a["strategy"] == "DDPStrategy"
    assert any(key.startswith("ema.") for key in a["state"])
    assert not differences(a["state"], b["state"])
    last = read(tmp_path / "last.ckpt")
    assert last["global_step"] == FIRST and not differences(last["state_dict"], a["state"])

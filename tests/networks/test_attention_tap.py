"""The attention tap against timm's own unfused attention, family by family, and the last block."""

import copy
import json

import pytest
import timm
import timm.layers
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gen.networks.attention_tap import AttentionTap, rollout
from gen.networks.timm_classifier import LastBlock, rewire_last_block

SMALL = dict(img_size=(32, 48), patch_size=8, depth=2, embed_dim=32, num_heads=4)  # grid 4 x 6
SHRINKING = dict(depths=(1, 1, 1, 2), num_heads=(1, 1, 2, 4))
SWIN = dict(SHRINKING, img_size=(128, 192), window_size=(4, 6), embed_dim=8)
PVT = dict(SHRINKING, embed_dims=(8, 8, 16, 32))
PIT = dict(img_size=(32, 64), patch_size=8, stride=4, depth=(1, 1, 1), base_dims=(8,) * 3)
TNT = dict(SMALL, inner_dim=8, num_heads_outer=4, num_heads_inner=2)
del TNT["num_heads"]
VIT, EVA = "vit_tiny_patch16_224", "eva02_tiny_patch14_224"
TOKEN = dict(SMALL, global_pool="token")
CASES = {  # name in timm, options, size in pixels, prefix tokens, grid
    "vit": (VIT, SMALL, (32, 48), 1, (4, 6)),
    "vit, norms of q and k": (VIT, dict(SMALL, qk_norm=True), (32, 48), 1, (4, 6)),
    "vit, any size": (VIT, dict(SMALL, dynamic_img_size=True), (40, 56), 1, (5, 7)),
    "vit, padded": (
        VIT, dict(SMALL, dynamic_img_size=True, dynamic_img_pad=True), (36, 50), 1, (5, 7)
    ),
    "vit, registers, no class": (
        VIT, dict(SMALL, class_token=False, reg_tokens=3, global_pool="avg"), (32, 48), 3, (4, 6)
    ),
    "deit3": ("deit3_small_patch16_224", SMALL, (32, 48), 1, (4, 6)),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", SMALL, (32, 48), 2, (4, 6)),
    "dinov2, registers": ("vit_small_patch14_reg4_dinov2", SMALL, (32, 48), 5, (4, 6)),
    "vit, averaged": (VIT, dict(SMALL, global_pool="avg"), (32, 48), 1, (4, 6)),
    "vit, map, averaged": (VIT, dict(SMALL, global_pool="map"), (32, 48), 1, (4, 6)),
    "vit, map of all": (
        VIT, dict(SMALL, global_pool="map", pool_include_prefix=True), (32, 48), 1, (4, 6)
    ),
    "eva02": (EVA, TOKEN, (32, 48), 1, (4, 6)),
    "eva02, averaged": (EVA, SMALL, (32, 48), 1, (4, 6)),
    "eva02, three projections": ("eva02_base_patch14_224", TOKEN, (32, 48), 1, (4, 6)),
    "eva02, no class": (
        EVA, dict(SMALL, class_token=False, global_pool="avg"), (32, 48), 0, (4, 6)
    ),
    "cait": ("cait_xxs24_224", SMALL, (32, 48), 1, (4, 6)),
    "tnt, averaged": (
        "tnt_s_legacy_patch16_224", dict(TNT, global_pool="avg"), (32, 48), 1, (4, 6)
    ),
    "tnt": ("tnt_s_legacy_patch16_224", TNT, (32, 48), 1, (4, 6)),
    "pit": ("pit_ti_224", dict(PIT, heads=(1, 2, 4)), (32, 64), 1, (2, 4)),
    "pit, distilled": ("pit_ti_distilled_224", dict(PIT, heads=(1, 2, 4)), (32, 64), 2, (2, 4)),
    "pvt v2": ("pvt_v2_b0", PVT, (64, 96), 0, (2, 3)),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, (128, 192), 0, (4, 6)),
    "swin v2": ("swinv2_tiny_window8_256", SWIN, (128, 192), 0, (4, 6)),
    "dinov3, averaged": ("vit_small_patch16_dinov3", SMALL, (32, 48), 5, (4, 6)),
    "rope per head": ("vit_small_patch16_rope_mixed_224", SMALL, (32, 48), 1, (4, 6)),
    "pe": ("vit_pe_core_tiny_patch16_384", SMALL, (32, 48), 1, (4, 6)),
    "sapiens2, grouped": (
        "vit_base_patch16_sapiens2", dict(SMALL, num_kv_heads=2), (32, 48), 9, (4, 6)
    ),
}  # fmt: skip


def build(name: str = "vit", **more) -> nn.Module:
    """The model of a case, in eval mode, with weights large enough to tell patches apart."""
    torch.manual_seed(0)
    known, options, *_ = CASES[name]
    model = timm.create_model(known, num_classes=5, **(options | more))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1 or key.endswith("bias"):
                weight.normal_(0, 0.25)
    return model.eval()


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def images(name: str = "vit", count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *CASES[name][2], generator=torch.Generator().manual_seed(1))


def probabilities(model: nn.Module, tap: AttentionTap, x: torch.Tensor) -> torch.Tensor:
    """What timm's slow path hands to its dropout: softmax (B, h, queries, N)."""
    seen, attention = [], tap.attention
    handle = attention.attn_drop.register_forward_hook(lambda *call: seen.append(call[2].clone()))
    fused, attention.fused_attn = getattr(attention, "fused_attn", False), False
    model(x)
    attention.fused_attn = fused
    handle.remove()
    tap.seen = None
    return seen[0]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_row_is_that_of_the_unfused_attention(name):
    _, _, _, prefix, grid = CASES[name]
    model, x = build(name), images(name)
    tap = AttentionTap(model, bias="swin" in name)
    p = probabilities(model, tap, x)
    assert p.shape[-1] == prefix + grid[0] * grid[1]
    cls = not name.endswith(("no class", "averaged")) and not name.startswith(("pvt", "swin"))
    # a mean of logits is known from probabilities up to a constant
    expected = p[:, :, 0] if cls else p[:, :, prefix:].log().mean(2)
    model(x)
    got = tap.pop()
    assert got.shape == (2, 4, *grid) and got.dtype == torch.float32
    row, expected = got.flatten(2).softmax(-1), expected[..., prefix:]
    expected = expected / expected.sum(-1, keepdim=True) if cls else expected.softmax(-1)
    torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)
    assert got.std(dim=(2, 3)).min() > 0.05 and (row[0] - row[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_what_the_query_gathers_reaches_the_output(name):
    model, seen = build(name), []
    for weight in model.parameters():
        weight.data += 0.1  # norms of Swin v2 begin at 0
    tap = AttentionTap(model)
    tap.attention.proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    (grad,) = torch.autograd.grad(model(images(name)).square().sum(), seen)  # (B, N, D)
    asked = grad[:, :1] if tap.plan.cls else grad[:, tap.plan.prefix :]
    assert asked.abs().amax(2).min() > 0


@torch.no_grad()
def test_logits_are_not_only_right_up_to_a_constant():
    model, x, seen = build(), images(), []
    tap = AttentionTap(model)
    tap.attention.qkv.register_forward_hook(lambda *call: seen.append(call[2]))
    model(x)
    q, k, _ = seen[0].unflatten(-1, (3, 4, 8)).double().unbind(2)
    expected = torch.einsum("bhd,bnhd->bhn", q[:, 0], k[:, 1:]) / 8**0.5
    torch.testing.assert_close(tap.pop().flatten(2).double(), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_fused_attention_stays_on_everywhere():
    model, seen = build(), []
    tap = AttentionTap(model)
    for block in model.blocks:
        assert block.attn.fused_attn
        block.attn.attn_drop.register_forward_hook(lambda *call: seen.append(call))
    plain = build()(images())
    assert torch.equal(model(images()), plain) and tap.pop().isfinite().all() and not seen


@pytest.mark.parametrize("name", ["vit", "deit, distilled", "eva02", "cait", "pit", "tnt"])
@torch.no_grad()
def test_outputs_of_the_heads_are_what_the_fused_attention_projects(name):
    model, x, seen = build(name), images(name), []
    tap = AttentionTap(model)
    tap.attention.proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x)
    similarity, heads = tap.pop_with_heads()
    torch.testing.assert_close(heads.flatten(1), seen[0][:, 0], atol=1e-5, rtol=1e-5)
    model(x)
    assert torch.equal(tap.pop(), similarity)


# ---- any blocks, whole attention, rollout --------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_whole_attention_is_that_of_the_unfused_one(name):
    model, x = build(name), images(name)
    tap = AttentionTap(model)
    expected = probabilities(model, tap, x)
    model(x)
    got = tap.pop_attention()
    assert got.dtype == torch.float32 and got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", ["vit", "dinov2, registers", "eva02", "rope per head", "tnt", "swin"]
)
@torch.no_grad()
def test_any_blocks_can_be_read_at_once(name):
    model, x = build(name), images(name)
    count = len(model.layers[-1].blocks if name == "swin" else model.blocks)
    assert count == 2
    alone, whole = [], []
    for k in range(count):
        tap = AttentionTap(model, blocks=k)
        model(x)
        alone.append(tap.pop())
        whole.append(probabilities(model, tap, x))
        tap.remove()
    last = AttentionTap(model)
    several = AttentionTap(model, blocks=[1, 0, -1])
    copied = copy.deepcopy(several)
    model(x)
    maps = several.pop()
    assert torch.equal(last.pop(), alone[1]) and not torch.allclose(alone[0], alone[1])
    assert len(maps) == 3 and all(torch.equal(maps[k], alone[b]) for k, b in enumerate((1, 0, 1)))
    model(x)
    for got, k in zip(several.pop_attention(), (1, 0, 1), strict=True):
        torch.testing.assert_close(got, whole[k], atol=1e-5, rtol=0)
    copied.model(x)
    assert torch.equal(copied.pop()[1], alone[0])
    model(x)
    pairs = several.pop_with_heads()
    assert torch.equal(pairs[1][0], alone[0]) and pairs[1][1].shape[:2] == (2, 4)


def test_gradients_reach_an_earlier_block_and_nothing_after_it():
    model = build().train()
    tap = AttentionTap(model, blocks=0)
    model(images())
    tap.pop().square().mean().backward()
    reached = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert "blocks.0.attn.qkv.weight" in reached and "patch_embed.proj.weight" in reached
    assert not any(key.startswith(("blocks.1", "blocks.0.mlp", "head")) for key in reached)


@pytest.mark.parametrize("blocks", [2, -3, [0, 2]])
def test_blocks_that_are_not_there_are_refused(blocks):
    wrong = blocks if isinstance(blocks, int) else blocks[-1]
    with pytest.raises(ValueError, match=f"from -2 to 1 for the 2 blocks of Vis.*, got {wrong}"):
        AttentionTap(build(), blocks=blocks)
    with pytest.raises(ValueError, match="blocks: expected at least one, got none"):
        AttentionTap(build(), blocks=[])


@torch.no_grad()
def test_rollout_by_hand():
    a = torch.tensor([[0.5, 0.5], [0.0, 1.0]]).view(1, 1, 2, 2)
    b = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    first, second = torch.tensor([[0.75, 0.25], [0.0, 1.0]]), torch.full((2, 2), 0.5)
    assert torch.equal(rollout([a])[0], first) and torch.equal(rollout([b])[0], second)
    # the later block on the left: [[.5, .5], [.5, .5]] @ [[.75, .25], [0, 1]]
    assert torch.equal(rollout([a, b])[0], torch.tensor([[0.375, 0.625], [0.375, 0.625]]))
    assert torch.equal(rollout([b, a])[0], torch.full((2, 2), 0.5))
    swapped = first.flip(0)  # without its skip connection, b only swaps the tokens
    assert torch.equal(rollout([a, b], [True, False])[0], swapped)
    heads = torch.cat([a, b], 1)  # the mean of the heads
    assert torch.equal(
        rollout([heads])[0], (torch.tensor([[0.25, 0.75], [0.5, 0.5]]) + torch.eye(2)) / 2
    )


@pytest.mark.parametrize("n", [1, 2, 7])
def test_rollout_of_uniform_attention_in_closed_form(n):
    N, uniform = 5, torch.full((3, 2, 5, 5), 0.2, dtype=torch.float64)
    found = rollout([uniform] * n)
    expected = 0.5**n * torch.eye(N) + (1 - 0.5**n) / N  # a token keeps half of itself a block
    torch.testing.assert_close(found, expected.double().expand(3, N, N))
    kept = torch.eye(N).expand(3, 2, N, N)
    assert torch.equal(rollout([kept] * n), torch.eye(N).expand(3, N, N))


@torch.no_grad()
def test_rollout_of_a_network_is_a_distribution_of_each_token():
    model, x = build("dinov2, registers"), images("dinov2, registers")
    tap = AttentionTap(model, blocks=range(2))
    model(x)
    found = rollout(tap.pop_attention())
    assert found.shape == (2, 5 + 24, 5 + 24) and found.min() >= 0
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 29))
    rewire_last_block(plain := build())
    tap = AttentionTap(plain, blocks=[0, 1])
    plain(images())
    first, last = tap.pop_attention()
    expected = last.mean(1) @ (first.mean(1) + torch.eye(25)) / 2
    torch.testing.assert_close(rollout([first, last], [True, False]), expected)


@pytest.mark.parametrize(
    "attentions, skips",
    [
        ([], None),
        ([torch.zeros(1, 2, 1, 5)], None),  # CaiT's
        ([torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 5, 5)], None),
        ([torch.zeros(1, 2, 4, 4)], [True, False]),
    ],
)
def test_rollout_refuses_what_is_no_stack_of_blocks(attentions, skips):
    with pytest.raises(
        ValueError, match=r"rollout: expected the attention \(B, h, N, N\) of blocks"
    ):
        rollout(attentions, skips)


@pytest.mark.parametrize("name", ["swin", "swin v2"])
@torch.no_grad()
def test_the_bias_of_swin_is_left_out_by_default(name):
    model = build(name)
    plain, biased = AttentionTap(model), AttentionTap(model, bias=True)
    model(images(name))
    more = biased.pop() - plain.pop()
    assert more.std() > 0.01
    torch.testing.assert_close(more[0], more[1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="bias: expected a Swin, got VisionTransformer"):
        AttentionTap(build(), bias=True)


REFUSALS = {
    "levit_128s": "LevitDistilled: its attention passes no layer",
    "mvitv2_tiny": "MultiScaleVit: queries and keys are pooled",
    "pvt_v2_b2_li": "PyramidVisionTransformerV2: it attends to pooled keys",
    "beit_base_patch16_224": "Beit: it is not known",
    "resnet18": "ResNet: it is not known",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_other_models_are_refused_by_name_with_the_reason(name):
    with pytest.raises(ValueError, match=f"got {REFUSALS[name]}"):
        AttentionTap(on_meta(name))


@pytest.mark.parametrize("name", CASES)
def test_models_of_timm_pass_by_their_names(name):
    AttentionTap(on_meta(CASES[name][0]))


def test_blocks_without_one_softmax_are_refused():
    model = build(block_fn=ParallelScalingBlock)
    with pytest.raises(ValueError, match="VisionTransformer: .* in its last ParallelScaling"):
        AttentionTap(model)
    with pytest.raises(ValueError, match="DistributedDataParallel|DataParallel: .* before DDP"):
        AttentionTap(nn.DataParallel(build()))
    with pytest.raises(ValueError, match="Cait: only its class token asks, and is not used"):
        AttentionTap(build("cait", global_pool="avg"))


def test_windows_that_are_not_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"window of \(4, 6\) on a grid of \(8, 12\)"):
        AttentionTap(build("swin", img_size=(256, 384)))
    model = build("swin", strict_img_size=False)
    tap = AttentionTap(model)
    model(torch.randn(1, 3, 256, 192))
    with pytest.raises(ValueError, match=r"window of \(4, 6\) on a grid of \(8, 6\)"):
        tap.pop()


def test_dropped_patches_are_refused():
    model = build(patch_drop_rate=0.5).train()
    tap = AttentionTap(model)
    model(images())
    with pytest.raises(ValueError, match=r"expected 1 \+ 4 x 6 tokens, got 13"):
        tap.pop()


class Adapted(nn.Module):
    """LoRA around a layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.low = nn.Linear(layer.in_features, 2, bias=False)
        self.high = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.high(self.low(x))


def test_the_pool_that_counts_is_that_of_now():
    model, x = build(), images()
    tap = AttentionTap(model)
    model(x)
    asked = tap.pop()
    model.reset_classifier(3, "avg")
    fresh = AttentionTap(model)
    model(x)
    now = tap.pop()
    assert torch.equal(now, fresh.pop()) and not torch.allclose(asked, now)


def test_a_layer_that_is_wrapped_after_the_tap_is_refused_and_before_it_is_seen():
    model, x = build(), images()
    tap, last = AttentionTap(model), model.blocks[-1].attn
    last.qkv = Adapted(last.qkv)
    model(x)
    with pytest.raises(RuntimeError, match="layers that it was made on, got others as qkv; remove"):
        tap.pop()
    tap.remove()
    tap = AttentionTap(model)
    model(x)
    plain = tap.pop()
    with torch.no_grad():
        last.qkv.high.weight += 1
    model(x)
    adapted = tap.pop()
    assert not torch.allclose(plain, adapted)
    adapted.sum().backward()
    assert last.qkv.low.weight.grad.abs().max() > 0
    model.blocks[-1] = copy.deepcopy(model.blocks[-1])
    model(x)
    with pytest.raises(RuntimeError, match="got others as attention, qkv"):
        tap.pop()


def test_every_pop_needs_a_forward_pass():
    model = build()
    tap = AttentionTap(model)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="expected a forward pass .* got none"):
            tap.pop()
        model(images())
        tap.pop()
    tap.remove()
    model(images())
    with pytest.raises(RuntimeError, match="got none"):
        tap.pop()


def gradients(model: nn.Module, tap: AttentionTap, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the model's loss and a function of the map, together."""
    model.zero_grad()
    loss = F.cross_entropy(model(x), torch.tensor([1, 3])) + tap.pop().square().mean()
    loss.backward()
    return {key: p.grad.clone() for key, p in model.named_parameters()}


@pytest.mark.parametrize("train", [True, False])
def test_gradients_reach_queries_keys_and_all_before_but_nothing_after(train):
    model = build(drop_path_rate=0.5).train(train)
    tap = AttentionTap(model)
    model(images(count=8))
    tap.pop().square().mean().backward()
    grads = {key: p.grad for key, p in model.named_parameters()}
    after = ("attn.proj", "norm2", "mlp")
    for key, grad in grads.items():
        if key.startswith(("norm.", "head.")) or any(f"blocks.1.{part}" in key for part in after):
            assert grad is None, key
        else:
            assert grad.abs().max() > 0, key
    for key in ("weight", "bias"):
        q, k, v = grads[f"blocks.1.attn.qkv.{key}"].chunk(3)
        assert q.abs().max() > 0 and not v.any()
        assert k.abs().max() > 0


def test_activation_checkpointing_changes_nothing_and_leaves_nothing_behind():
    model = build().train()
    tap = AttentionTap(model)
    expected = gradients(model, tap, images())
    model.set_grad_checkpointing()
    for _ in range(2):
        got = gradients(model, tap, images())
        assert tap.seen is None
    for key, grad in expected.items():
        torch.testing.assert_close(got[key], grad, atol=1e-6, rtol=1e-6)


def test_passes_without_gradient_are_refused_in_training():
    model = build().train()
    tap = AttentionTap(model)
    with torch.no_grad():
        model(images())
    with pytest.raises(RuntimeError, match="got one without; .* must not be reentrant"):
        tap.pop()
    model.set_grad_checkpointing()
    timm.layers.set_reentrant_ckpt(True)
    try:
        model(images().requires_grad_())
    finally:
        timm.layers.set_reentrant_ckpt(False)
    with pytest.raises(RuntimeError, match="must not be reentrant"):
        tap.pop()
    with torch.no_grad():
        model(images())
        assert tap.pop().isfinite().all()


def test_autocast_widens_what_the_projection_gave():
    model, x, seen = build(), images(), []
    tap = AttentionTap(model)
    handle = tap.attention.qkv.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
        similarity, heads = tap.pop_with_heads()
    assert seen[0].dtype == torch.bfloat16
    assert similarity.dtype == heads.dtype == torch.float32
    q, k, _ = seen[0].float().unflatten(-1, (3, 4, 8)).unbind(2)
    expected = torch.einsum("bhd,bnhd->bhn", q[:, 0], k[:, 1:]) / 8**0.5
    torch.testing.assert_close(similarity.flatten(2), expected, atol=1e-5, rtol=1e-5)
    handle.remove()
    model(x)
    full = tap.pop()
    assert 0 < (similarity - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize("name", ["vit, norms of q and k", "eva02", "swin v2"])
@torch.no_grad()
def test_half_precision_gives_float32_close_to_the_whole(name):
    model, x = build(name), images(name)
    tap = AttentionTap(model)
    model(x)
    full = tap.pop()
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
        some = tap.pop()
    model.bfloat16()(x.bfloat16())
    half = tap.pop()
    assert some.dtype == half.dtype == torch.float32
    assert (some - full).abs().max() < 0.1 * full.abs().max()
    assert (half - full).abs().max() < 0.2 * full.abs().max()


@torch.no_grad()
def test_an_ema_copy_does_not_touch_the_tap():
    model = build()
    plain = list(model.state_dict())
    tap = AttentionTap(model)
    assert list(model.state_dict()) == plain
    model(images())
    expected = tap.pop()
    model(images())
    ema = ModelEmaV3(model, decay=0.5)
    ema.module(torch.zeros_like(images()))
    assert torch.equal(tap.pop(), expected)
    ema.module(images())
    ema.update(model)
    with pytest.raises(RuntimeError, match="got none"):
        tap.pop()
    hooks = [h for m in ema.module.modules() for h in m._forward_hooks.values()]
    assert len(hooks) == 3 and all(hook.tap is None for hook in hooks)
    assert list(ema.module.state_dict()) == plain


class Method(nn.Module):
    """A model and its tap in one module, as a training method holds them."""

    def __init__(self):
        super().__init__()
        self.model = build()
        self.tap = AttentionTap(self.model)


def test_a_copy_of_model_and_tap_together_works_by_itself():
    method = Method()
    method.model(images())
    expected = method.tap.pop()
    other = copy.deepcopy(method)
    assert other.tap.model is other.model and other.tap is not method.tap
    other.model(images())
    with pytest.raises(RuntimeError, match="got none"):
        method.tap.pop()
    assert torch.equal(other.tap.pop(), expected)
    assert [key for key in method.state_dict() if not key.startswith("model.")] == []


def test_a_saved_state_loads_into_a_model_without_tap(tmp_path):
    model = build()
    AttentionTap(model)
    model(images())
    torch.save(model.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert build().load_state_dict(state, strict=True)


def two_processes(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/init", rank=rank, world_size=2)
    model = build().train()
    tap = AttentionTap(model)
    wrapped = DistributedDataParallel(model)
    for _ in range(2):  # a second pass fails if a gradient of the first stayed out
        wrapped.zero_grad()
        output = wrapped(images(count=4)[rank::2])
        loss = F.cross_entropy(output, torch.tensor([0, 1])) + tap.pop().square().mean()
        loss.backward()
    torch.save([p.grad for p in model.parameters()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path):
    mp.spawn(two_processes, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2))
    model = build().train()
    tap = AttentionTap(model)
    output = model(images(count=4))
    target = torch.tensor([0, 0, 1, 1])
    (F.cross_entropy(output, target) + tap.pop().square().mean()).backward()
    for p, a, b in zip(model.parameters(), first, second, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, p.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["vit", "eva02", "cait", "pvt v2", "swin", "swin v2"])
def test_compiled_models_give_the_same_in_one_graph(name, checkpointing):
    torch._dynamo.reset()
    model, x = build(name, drop_path_rate=0.0).train(), images(name)
    tap = AttentionTap(model)
    expected = gradients(model, tap, x)
    model.set_grad_checkpointing(checkpointing)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    flag = {"skip_fwd_side_effects_in_bwd_under_checkpoint": True}
    with torch._dynamo.config.patch(flag if checkpointing else {"verbose": False}):
        for _ in range(3):
            model.zero_grad()
            loss = F.cross_entropy(compiled(x), torch.tensor([1, 3]))
            (loss + tap.pop().square().mean()).backward()
            assert tap.seen is None
            for key, p in model.named_parameters():
                torch.testing.assert_close(p.grad, expected[key], atol=1e-5, rtol=1e-4)


# the last block


@pytest.fixture
def golden(specs) -> dict:
    return json.loads((specs / "sar_golden.json").read_text())["last_block"]


def by_rule(name: str, weight: torch.Tensor) -> torch.Tensor:
    index = torch.arange(weight.numel(), dtype=torch.float64)
    value = 0.5 * torch.sin(0.13 * index + 0.01 * sum(map(ord, name)))
    value = 1 + 0.1 * value if name.startswith("norm") and name.endswith("weight") else value
    return value.view_as(weight).float()


@pytest.mark.parametrize("wiring", ["standard", "is_last_nosn"])
@torch.no_grad()
def test_both_wirings_give_the_golden_outputs_and_logits(golden, wiring, monkeypatch):
    options = dict(img_size=4, patch_size=2, embed_dim=8, depth=1, num_heads=2, mlp_ratio=2)
    model = timm.create_model(VIT, num_classes=0, **options).eval()
    if wiring == "is_last_nosn":
        rewire_last_block(model)
    block = model.blocks[-1]
    assert set(block.state_dict()) == set(golden[wiring]["keys"])
    for key, weight in block.named_parameters():
        weight.copy_(by_rule(key, weight))
    x = torch.sin(0.31 * torch.arange(40, dtype=torch.float64)).view(1, 5, 8).float()
    monkeypatch.setattr(model, "_pos_embed", lambda patches: x)
    model.norm = nn.Identity()
    tap = AttentionTap(model)
    out = model.forward_features(torch.zeros(1, 3, 4, 4))
    expected = torch.tensor(golden[wiring]["out"])
    torch.testing.assert_close(out[0], expected, atol=5e-6, rtol=0)
    expected = torch.tensor(golden[wiring]["dot_qk_cls"]).view(2, 2, 2)
    torch.testing.assert_close(tap.pop()[0], expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize("name", ["vit", "deit3", "deit, distilled", "dinov2, registers"])
def test_rewiring_keeps_all_weights_but_one_norm(name):
    model = build(name)
    before, parts = model.state_dict(), dict(model.blocks[-1].named_children())
    plain = model(images())
    rewire_last_block(model)
    after = model.state_dict()
    gone = {"blocks.1.norm2.weight", "blocks.1.norm2.bias"}
    assert set(before) - set(after) == gone and not set(after) - set(before)
    assert all(torch.equal(after[key], before[key]) for key in after)
    assert all(part is parts[key] for key, part in model.blocks[-1].named_children())
    assert not torch.allclose(model(images()), plain)
    other = build(name)
    rewire_last_block(other)
    other.load_state_dict(after)
    assert torch.equal(other(images()), copy.deepcopy(model)(images()))


def test_rewiring_drops_the_stochastic_depth_of_the_attention_alone():
    model = build(drop_path_rate=0.9).train()
    rewire_last_block(model)
    last = model.blocks[-1]
    assert isinstance(last, LastBlock) and last.training
    x = torch.randn(64, 25, 32)
    u = last.ls1(last.attn(last.norm1(x)))
    kept = (last(x) - u).flatten(1).abs().amax(1) > 0
    assert 0 < kept.sum() < 32
    torch.testing.assert_close(last.eval()(x), u + last.mlp(u))


def test_taps_and_gradients_work_on_the_rewired_block():
    model = build().train()
    tap = AttentionTap(model)
    rewire_last_block(model)
    model.set_grad_checkpointing()
    assert all(grad.isfinite().all() for grad in gradients(model, tap, images()).values())


def test_only_plain_blocks_of_a_vit_are_rewired():
    with pytest.raises(ValueError, match="got VisionTransformer with ResPostBlock"):
        rewire_last_block(build(block_fn=ResPostBlock))
    with pytest.raises(ValueError, match="got Cait"):
        rewire_last_block(build("cait"))
    model = build()
    rewire_last_block(model)
    with pytest.raises(ValueError, match="got VisionTransformer with LastBlock"):
        rewire_last_block(model)

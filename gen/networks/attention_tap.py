"""Reads attention of a timm model: one row of logits of a block, for losses, or all of it.

Source: Peruzzo et al., "Spatial Entropy as an Inductive Bias for Vision Transformers", Machine
Learning 2024. The model runs unchanged, with fused attention (SDPA) in every block. Hooks keep the
projections of an attention, and `AttentionTap.pop` computes the needed row again.

Letters in shapes: B images, N tokens (prefix + Hg Wg patches), h heads, d width of a head.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, apply_rot_embed_cat
from timm.models import cait, eva, levit, mvitv2, pit, pvt_v2, tnt
from timm.models import swin_transformer as swin
from timm.models import swin_transformer_v2 as swin2
from timm.models import vision_transformer as vit
from torch import Tensor, nn

T = TypeVar("T")
SERVED = "ViT, DeiT, DINOv2 and DINOv3, EVA, CaiT, PVTv2, PiT, TNT or Swin (v1, v2) of timm"
REFUSED = {
    levit.Levit: "its attention passes no layer where a test could compare the map",
    mvitv2.MultiScaleVit: "queries and keys are pooled after projecting, positions enter by them",
}
SWIN = (swin.WindowAttention, swin2.WindowAttention)
ROPE = (eva.EvaAttention, eva.AttentionRope)
PATCHES = ("avg", "avgmax", "max", "map")  # pools: what the class token gathered is not used
PROJECTIONS = {  # names say what is side by side in the output: each (.., heads, width)
    vit.Attention: ("qkv",),
    cait.ClassAttn: ("q", "k", "v"),
    pvt_v2.Attention: ("q", "kv"),
    tnt.Attention: ("qk", "v"),
    swin.WindowAttention: ("qkv",),
}
STAGES = {  # of the models whose grid shrinks; the last one is meant
    pit.PoolingVisionTransformer: "transformers",
    pvt_v2.PyramidVisionTransformerV2: "stages",
    swin.SwinTransformer: "layers",
    swin2.SwinTransformerV2: "layers",
}


class _Plan(NamedTuple):
    block: nn.Module
    attention: nn.Module
    stem: nn.Module
    stage: nn.Module | None  # whose output has the grid of the attention
    prefix: int  # tokens before the patches
    cls: bool  # whether the first one is asked; else all patches on average


def _refused(model: nn.Module, reason: str) -> ValueError:
    return ValueError(f"AttentionTap: expected {SERVED}, got {type(model).__name__}: {reason}")


def _plan(model: nn.Module, index: int = -1) -> _Plan:
    stem, stage = getattr(model, "patch_embed", None), None
    if isinstance(model, vit.VisionTransformer | eva.Eva):
        blocks = model.blocks
    elif isinstance(model, cait.Cait):
        blocks = model.blocks_token_only
    elif isinstance(model, tnt.TNT):
        blocks, stem = model.blocks, model.pixel_embed
    elif isinstance(model, tuple(STAGES)):
        stage = getattr(model, next(v for kind, v in STAGES.items() if isinstance(model, kind)))[-1]
        blocks = stage.blocks
    else:
        unknown = "it is not known; give timm's model itself, before DDP and torch.compile"
        reasons = (why for kind, why in REFUSED.items() if isinstance(model, kind))
        raise _refused(model, next(reasons, unknown))
    if not -len(blocks) <= index < len(blocks):
        raise ValueError(
            f"blocks: expected numbers from {-len(blocks)} to {len(blocks) - 1} for the "
            f"{len(blocks)} blocks of {type(model).__name__}, got {index}"
        )
    block = blocks[index]
    attention = block.attn_out if isinstance(model, tnt.TNT) else getattr(block, "attn", None)
    if isinstance(attention, SWIN):
        _whole(block, block.input_resolution)
    if getattr(attention, "sr", None) is not None:
        raise _refused(model, "it attends to pooled keys; take one without linear_attn (_li)")
    if not isinstance(attention, (*PROJECTIONS, *SWIN, *ROPE)):
        which, kind = "last" if index == -1 else f"block {index}, a", type(attention or block)
        what = f"no single softmax over known queries and keys in its {which} {kind.__name__}"
        raise _refused(model, what)
    token = getattr(model, "cls_token", None)
    prefix = getattr(model, "num_prefix_tokens", 0 if token is None else token.shape[1])  # PiT
    pool = getattr(model, "global_pool", "token")
    whole = pool == "map" and getattr(model, "pool_include_prefix", True)  # the class token, too
    cls = token is not None and (pool not in PATCHES or whole)
    if isinstance(model, cait.Cait) and not cls:
        raise _refused(model, "only its class token asks, and is not used; take global_pool=token")
    return _Plan(block, attention, stem, stage, prefix, cls)


def _whole(block: nn.Module, grid: tuple[int, int]) -> None:
    """Raises ValueError for a Swin block whose window is smaller than its grid."""
    window = tuple(block.window_size)
    if window != tuple(grid) or any(block.shift_size):
        raise ValueError(
            "AttentionTap: expected a Swin whose last window is the whole last grid, unshifted, "
            f"got a window of {window} on a grid of {tuple(grid)}, shift {block.shift_size}; set "
            "img_size and window_size so that they meet (img_size = 32 * window_size)"
        )


Name = tuple[str, int]  # what a hook passes, and of which of the blocks


class _Hook:
    """Passes inputs and outputs of a module to a tap. A deep copy passes nothing: an EMA copy of
    the model never writes into the tap of the original and does not hold its tensors."""

    def __init__(self, tap: "AttentionTap | None", name: Name):
        self.tap, self.name = tap, name

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        if self.tap is not None:
            self.tap.note(self.name, args, kwargs, output)

    def __deepcopy__(self, memo: dict) -> "_Hook":
        return _Hook(None, self.name)


class AttentionTap:
    """Hooks on a model; after each forward pass, `pop` returns the logits of a map of attention.

    Per head, with q after its norm and position encoding, k likewise:

        map_i = scale * q_query . k_i       i: patches in raster order, prefix keys left out

    The query is that of the class token. Models without a class token, or whose head does not use
    it (PVTv2, Swin, ViTs with attention pooling, EVA02, DINOv3), have the mean of all patch
    queries, without registers. Swin v2 has the mean of unit queries times its learned scale.

    The values are float32 also under autocast: what the projections gave, in bfloat16 there, is
    widened before norms, rotation and product. (Swin v2, and EVA where it adds biases by hand,
    have no module to hook behind: their last projection runs again, in float32.)

    Nothing is added to the model's state dict. Construct it on the model itself, before DDP and
    torch.compile, and after its layers are wrapped, as for LoRA; which token is asked is looked up
    at each `pop`. A deep copy of the model carries no working tap, a deep copy of the tap brings
    its own copy of the model. What was seen is held until `pop`, or until the next forward pass.
    Activation checkpointing must be the non-reentrant one, timm's default; compiled, too, it needs
    `torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True` (else some families
    raise in `pop`: torch 2.15 then calls no hooks).

    Args:
        model: model of timm of a family of `SERVED`.
        bias: add Swin's relative position bias, which does not depend on the image.
        blocks: number of the block to read, the last by default; or several, and every `pop`
            returns a list in this order. Of CaiT, the blocks of the class token are counted; of
            models whose grid shrinks, the blocks of the last stage.

    Raises:
        ValueError: a model that cannot be served, with the reason, or no such block.
    """

    def __init__(self, model: nn.Module, bias: bool = False, blocks: int | Sequence[int] = -1):
        self.model, self.bias, self.blocks = model, bias, blocks
        self.plans = self._planned()
        if bias and not isinstance(self.attention, SWIN):
            raise ValueError(f"bias: expected a Swin, got {type(model).__name__}; leave it out")
        self.watched = self._watched()
        self.handles = [
            module.register_forward_hook(_Hook(self, name), with_kwargs=True)
            for name, module in self.watched.items()
        ]
        self.seen = None  # what the hooks noted since the last pop

    @property
    def plan(self) -> _Plan:
        """Plan of the last block in `blocks`."""
        return self.plans[-1]

    @property
    def attention(self) -> nn.Module:
        """Attention of the last block in `blocks`."""
        return self.plan.attention

    def _planned(self) -> list[_Plan]:
        blocks = [self.blocks] if isinstance(self.blocks, int) else [*self.blocks]
        if not blocks:
            raise ValueError("blocks: expected at least one, got none")
        return [_plan(self.model, index) for index in blocks]

    def _watched(self) -> dict[Name, nn.Module]:
        found = {("image", 0): self.plan.stem, ("grid", 0): self.plan.stage}
        for i, plan in enumerate(self.plans):
            found["attention", i] = plan.attention
            found |= {(name, i): getattr(plan.attention, name) for name in _parts(plan.attention)}
        return {name: module for name, module in found.items() if module is not None}

    def _look(self) -> None:
        """Finds the query token of the model; raises if a layer with a hook was replaced."""
        self.plans = self._planned()
        now = self._watched()
        if changed := [name for name in self.watched if now.get(name) is not self.watched[name]]:
            raise RuntimeError(
                f"AttentionTap.pop: expected the layers that it was made on, got others as "
                f"{', '.join(name for name, _ in changed)}; remove() it, and make it after layers "
                "are wrapped"
            )

    def __deepcopy__(self, memo: dict) -> "AttentionTap":
        return AttentionTap(copy.deepcopy(self.model, memo), self.bias, self.blocks)

    def remove(self) -> None:
        """Removes the hooks from the model, for instance before torch.export."""
        for handle in self.handles:
            handle.remove()

    def check_size(self, H: int, W: int) -> None:
        """Raises ValueError for images of a size that the model does not take."""
        stem = self.plan.stem
        own, patch = getattr(stem, "img_size", None), getattr(stem, "patch_size", None)
        if own is not None and getattr(stem, "strict_img_size", True):
            if (H, W) != tuple(own):
                raise ValueError(
                    f"expected images of {own[0]} x {own[1]} px, got {H} x {W}; "
                    f"{type(self.model).__name__} takes no other size"
                )
        elif isinstance(stem, PatchEmbed) and not stem.dynamic_img_pad:
            for px, p in zip((H, W), patch, strict=True):
                if px % p:
                    fit = f"{px // p * p} or " * (px > p) + f"{(px // p + 1) * p}"
                    raise ValueError(
                        f"expected sides of whole patches of {p} px, got {px} px; take {fit}"
                    )

    def note(self, name: Name, args: tuple, kwargs: dict, output: Tensor) -> None:
        """Called by the hooks. A pass begins at the stem and overwrites; after `pop` a block that
        checkpointing runs again in backward finds nothing open and leaves nothing behind."""
        what, i = name
        if what == "image":
            self.seen = {name: args[0].shape[-2:]}
        elif self.seen is None:
            return
        elif what == "grid":
            output = output[0] if isinstance(output, tuple) else output  # PiT: patches, tokens
            last = isinstance(self.attention, SWIN)  # (B, H, W, C), the others (B, C, H, W)
            self.seen[name] = output.shape[1:3] if last else output.shape[-2:]
        elif what == "attention":
            x = None if _parts(self.plans[i].attention) else args[0]
            self.seen[name] = x, kwargs.get("rope"), torch.is_grad_enabled()
        else:
            self.seen[name] = output

    def pop(self) -> Tensor | list[Tensor]:
        """Logits (B, h, Hg, Wg) float32 of the last forward pass; can be read once.

        Raises:
            RuntimeError: no forward pass since the last pop, or one that kept no gradient while
                the model trains; or a layer was replaced.
            ValueError: tokens that are not the whole grid.
        """
        return self._pop(lambda row, map_, v: map_)

    def pop_with_heads(self) -> tuple[Tensor, Tensor] | list[tuple[Tensor, Tensor]]:
        """Returns also the query's output of each head (B, h, d): softmax over all keys times v."""
        return self._pop(_with_heads)

    def pop_attention(self) -> Tensor | list[Tensor]:
        """The whole attention (B, h, queries, N) float32, as the model has it; rows have sum 1.

        All tokens, prefix first; biases of positions are in it. CaiT has one query. It takes
        memory that fused attention saves. Raises as `pop`.
        """
        return self._pop(lambda row, map_, v: row.softmax(-1), every=True)

    def _pop(self, give: Callable[[Tensor, Tensor, Tensor], T], every: bool = False) -> T | list[T]:
        """Results of `give(logits, map, v)` of each block; one alone if one was asked for."""
        seen, self.seen = self.seen, None
        self._look()
        if seen is None or len(seen) < len(self.handles):
            raise RuntimeError(
                "AttentionTap.pop: expected a forward pass of the model since the last pop, got "
                "none; call the model first (if compiled: see AttentionTap's docstring)"
            )
        size = seen["image", 0]
        grid = tuple(seen.get(("grid", 0)) or self.plan.stem.dynamic_feat_size(size))
        found = []
        for i, plan in enumerate(self.plans):
            if isinstance(plan.attention, SWIN):
                _whole(plan.block, grid)
            logits, v = self._logits(seen, i, every)
            if logits.shape[-1] != plan.prefix + grid[0] * grid[1]:
                raise ValueError(
                    f"AttentionTap: expected {plan.prefix} + {grid[0]} x {grid[1]} tokens, got "
                    f"{logits.shape[-1]}; a model that drops patches has no map: patch_drop_rate=0"
                )
            found.append(give(logits, logits[..., plan.prefix :].unflatten(-1, grid), v))
        return found[0] if isinstance(self.blocks, int) else found

    def _logits(self, seen: dict, i: int, every: bool) -> tuple[Tensor, Tensor]:
        """Logits (B, h, N) of the query, or (B, h, queries, N) of all, and v (B, N, h, d)."""
        attention, prefix = self.plans[i].attention, self.plans[i].prefix
        cls = self.plans[i].cls and not every
        x, rope, grad = seen["attention", i]
        weights = list(getattr(attention, (_parts(attention) or ("qkv",))[0]).parameters())
        learns = attention.training and any(weight.requires_grad for weight in weights)  # queries
        if torch.is_grad_enabled() and learns and not grad:
            raise RuntimeError(
                "AttentionTap.pop: expected a forward pass that keeps gradients, got one without; "
                "if it ran under no_grad, pop there, too; checkpointing must not be reentrant"
            )
        with torch.autocast(weights[0].device.type, enabled=False):
            q, k, v = _projected(attention, seen, i, x)  # (B, N, h, d); CaiT has one query
            q = _normed(attention, "q_norm", q[:, :1] if cls else q)
            k = _normed(attention, "k_norm", k)
            if rope is not None:
                k = _rotated(attention, prefix, k, rope)
                q = q if cls else _rotated(attention, prefix, q, rope)  # the class has no place
            if isinstance(attention, swin2.WindowAttention):
                scale = attention.logit_scale.float().clamp(max=math.log(100)).exp()  # (h, 1, 1)
                q, k = F.normalize(q, dim=-1) * scale[..., 0], F.normalize(k, dim=-1)
            else:
                q = q * attention.scale
            if every:
                logits = torch.einsum("bqhd,bnhd->bhqn", q, k)
            else:
                q = q[:, 0] if cls else q[:, prefix:].mean(1)  # (B, h, d)
                logits = torch.einsum("bhd,bnhd->bhn", q, k)  # (B, h, N)
            if isinstance(attention, SWIN) and (self.bias or every):
                bias = _swin_bias(attention)
                logits = logits + (bias if every else bias.mean(1))
        return logits, v


def _with_heads(logits: Tensor, map_: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    with torch.autocast(v.device.type, enabled=False):
        return map_, torch.einsum("bhn,bnhd->bhd", logits.softmax(-1), v.float())


def _parts(attention: nn.Module) -> tuple[str, ...]:
    """Names of the projections of an attention; none if it adds biases by hand: no module gives
    q, k, v."""
    if isinstance(attention, ROPE) and attention.qkv is None:
        return ("q_proj", "k_proj", "v_proj")
    if hasattr(attention, "q_bias"):
        return ()
    return next((v for kind, v in PROJECTIONS.items() if isinstance(attention, kind)), ("qkv",))


def _projected(
    attention: nn.Module, seen: dict, i: int, x: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v, each (B, N, h, d), of the dtype the model computed in."""
    if not (parts := _parts(attention)):
        biases = (attention.q_bias, attention.k_bias, attention.v_bias)
        bias = None if biases[0] is None else torch.cat(biases)
        weight = attention.qkv.weight
        parts, seen = ("qkv",), {("qkv", i): F.linear(x.to(weight.dtype), weight, bias)}
    out = []
    for name in parts:
        heads = attention.num_heads
        if name in ("k_proj", "v_proj"):  # grouped queries: fewer heads of keys
            heads = getattr(attention, "num_kv_heads", heads)
        count = len(name.removesuffix("_proj"))
        out += seen[name, i].unflatten(-1, (count, heads, -1)).unbind(-3)
    q, k, v = out
    if (groups := attention.num_heads // k.shape[-2]) > 1:
        k, v = (t.repeat_interleave(groups, -2) for t in (k, v))
    return q[:, None] if q.ndim == 3 else q, k, v


def _rotated(attention: nn.Module, prefix: int, x: Tensor, rope: Tensor) -> Tensor:
    """(B, N, h, d) with its patches turned as the model turns them, prefix tokens as given."""
    more = {"half": True} if getattr(attention, "rotate_half", False) else {}
    patches = apply_rot_embed_cat(x[:, prefix:].transpose(1, 2), rope.float(), **more)
    return torch.cat([x[:, :prefix], patches.transpose(1, 2)], 1)


def _normed(attention: nn.Module, name: str, x: Tensor) -> Tensor:
    """Float32 x behind the norm of that name, if there is one."""
    norm = getattr(attention, name, nn.Identity())
    weight = next(norm.parameters(), x)
    return norm(x.to(weight.dtype)).float()


def _swin_bias(attention: nn.Module) -> Tensor:
    """(h, queries, N): the bias of positions."""
    if isinstance(attention, swin.WindowAttention):
        table = attention.relative_position_bias_table
    else:
        table = attention.cpb_mlp(attention.relative_coords_table).flatten(0, -2)
        table = 16 * table.sigmoid()
    return table.float()[attention.relative_position_index].permute(2, 0, 1)


def rollout(attentions: Sequence[Tensor], skips: Sequence[bool] | None = None) -> Tensor:
    """Share of each input token in each output token, (B, N, N), rows with sum 1.

    Attention rollout of Abnar and Zuidema (ACL 2020): the product of the blocks' attention, mean
    over heads. A skip connection around it passes on half of a token: (attention + identity) / 2.
    Row 0 is that of the class token; prefix tokens come first.

    Args:
        attentions: attention (B, h, N, N) of each block, the first block first, such as
            `AttentionTap(model, blocks=range(len(model.blocks))).pop_attention()` after a pass.
        skips: for each block, whether its attention has a skip connection; None: all have. A
            rewired last block has none (see `gen.networks.timm_classifier`).

    Raises:
        ValueError: no attention, attention that is not square, or another number of skips.
    """
    skips = [True] * len(attentions) if skips is None else [*skips]
    shapes = {tuple(a.shape) for a in attentions}
    square = len(shapes) == 1 and all(len(s) == 4 and s[2] == s[3] for s in shapes)
    if not square or len(skips) != len(attentions):
        raise ValueError(
            "rollout: expected the attention (B, h, N, N) of blocks of one size and a skip for "
            f"each, got {len(attentions)} of {sorted(shapes)} and {len(skips)} skips"
        )
    one = torch.eye(attentions[0].shape[-1]).to(attentions[0])
    total = one
    for attention, skip in zip(attentions, skips, strict=True):
        mixed = attention.mean(1)  # (B, N, N)
        total = ((mixed + one) / 2 if skip else mixed) @ total
    return total

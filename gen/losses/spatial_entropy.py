"""Losses on attention maps: spatial entropy and the two baselines of its release."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gen.losses import at_least_fp32
from gen.ops.components import Connectivity, component_sums


def spatial_entropy(
    similarity: Tensor,
    connectivity: Connectivity = 8,
    threshold_factor: float = 1.0,
    per_map: bool = False,
) -> Tensor:
    """L_se = mean over maps of H = -sum_j p_j log p_j, in nats, over the components C_j of a map.

    p_j = sum_{i in C_j} w_i / sum_{i: s_i > t} w_i, w_i = max(0, s_i - t) + 1e-9, t =
    `threshold_factor` * mean_i s_i (not detached), C_j: the connected components of s_i > t.
    `similarity` (B, heads, H, W): scaled logits of the CLS query with each patch key; converted to
    fp32. A map with no value above t has H = 0. With `per_map`: H (B, heads).

    dH/ds_i = g_i - (threshold_factor / N) sum_k g_k; g_i = -(log p_j + H) / sum w, i in C_j, else
    0. Peruzzo et al., "Spatial Entropy as an Inductive Bias for Vision Transformers", 2024 (arXiv
    2206.04636), as released. Range [0, log of the count of components].
    """
    if similarity.ndim != 4:
        raise ValueError(f"similarity: expected (B, heads, H, W), got {tuple(similarity.shape)}")
    over = excess(similarity, threshold_factor)  # (B, heads, H, W)
    mass = component_sums(over.relu() + 1e-9, over > 0, connectivity)  # (B, heads, K)
    entropy = _Entropy.apply(mass)  # (B, heads)
    entropy = torch.add(entropy, over.detach()[..., 0, 0], alpha=0)  # NaN where s is not finite
    return entropy if per_map else entropy.mean()


def excess(similarity: Tensor, threshold_factor: float = 1.0) -> Tensor:
    """s - `threshold_factor` * mean(s) of each map (B, heads, H, W), in fp32."""
    s = at_least_fp32(similarity)
    mean = s.sum((-2, -1), keepdim=True) / s[0, 0].numel()  # backward of s.mean is slower
    return torch.sub(s, mean, alpha=threshold_factor)


class _Entropy(torch.autograd.Function):
    """Entropy (...) of masses (..., K) >= 0. The explicit gradient is exactly 0 if one component
    has all the mass, finite if a mass is 0, and faster than autograd."""

    @staticmethod
    def forward(ctx, mass: Tensor) -> Tensor:
        log_p, entropy, total = _log_shares(mass)
        ctx.save_for_backward(mass, log_p, entropy, total)
        return entropy.squeeze(-1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        mass, log_p, entropy, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: a second derivative needs the graph from mass
            log_p, entropy, total = _log_shares(mass)
        return (log_p + entropy) * (grad.unsqueeze(-1) / -total)


def _log_shares(mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p (..., K), the entropy of p and the total mass (..., 1)."""
    total = mass.sum(-1, keepdim=True).clamp(min=1e-9)  # smaller only if no value is above t
    p = mass / total
    log_p = p.clamp(min=torch.finfo(p.dtype).tiny).log()
    return log_p, -(p * log_p).sum(-1, keepdim=True), total


def total_variation(similarity: Tensor) -> Tensor:
    """mean over maps of 0.5 (sum (s[r+1, c] - s[r, c])^2 + sum (s[r, c+1] - s[r, c])^2).

    A local baseline for `spatial_entropy` in its release. `similarity` (B, heads, H, W), converted
    to fp32. Range [0, inf), 0 for constant maps.
    """
    s = at_least_fp32(similarity)
    squares = (s.diff(dim=dim).square().sum((-2, -1)) for dim in (-2, -1))  # (B, heads) each
    return 0.5 * sum(squares).mean()


def head_decorrelation(outputs: Tensor) -> Tensor:
    """mean over images and pairs of heads a != b of cos(o_a, o_b), o_a the output of head a.

    The other baseline in the release. `outputs` (B, heads, D), heads >= 2, converted to fp32. A
    head of zeros has cosine 0. Range [-1 / (heads - 1), 1], lowest if the unit vectors sum to 0.
    """
    B, heads, _ = outputs.shape
    if heads < 2:
        raise ValueError(f"outputs: expected (B, heads, D) with 2 heads or more, got {heads}")
    o = F.normalize(at_least_fp32(outputs), dim=2)
    pairs = o.sum(1).square().sum() - o.square().sum()  # |sum o_a|^2 holds each pair twice
    return pairs / (B * heads * (heads - 1))

"""The object graph: predicts the motion of all objects from the motion that a user gives some.

Source: Ardino et al., "Click to Move: Controlling Video Generation with Sparse Motion", ICCV 2021,
after its abstract: messages between objects carry their features x and their motion y. (In the
released code no object receives the user's motion.) Own choices: attention with edge features
instead of sums of MLPs, LayerNorm instead of BatchNorm, and one set of weights for all steps. So T
is an argument, and every weight learns from every step. Steps differ in the time, the state and the
positions of the objects.

Letters in shapes: N batch, M objects (padded), T steps after frame 0, Z latent, F features of the
image, D width, A heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen.ops.motion import about_centres, identity, move_boxes

PAIR = 12  # numbers that describe a pair of objects
RATES = (1.0, 0.5, 0.25, 0.125)  # rates of the sines that encode time, radians per step
FAR = 4.0  # positions are clamped to this distance, normalised
UNIT = 10.0  # layers see a tenth of half an image as 1, or small motions would be learnt slowly


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LeakyReLU(0.2), nn.Linear(outputs, outputs))


class Attention(nn.Module):
    """Messages along all pairs of present objects, weighted as in GATv2 (Brody et al. 2022).

    m_ij = LReLU(W_l h_j + W_r h_i + W_e e_ij); alpha_ij = softmax over j != i of a . m_ij, with one
    more entry of logit 0 for no message; out_i = W_o sum_j alpha_ij m_ij. Values are the hidden
    m_ij, not W_l h_j, because the effect of j on i depends on both positions.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim: expected a multiple of heads = {heads}, got {dim}")
        self.heads = heads
        self.norm = nn.LayerNorm(2 * dim)
        self.sender, self.receiver = nn.Linear(2 * dim, dim), nn.Linear(2 * dim, dim, bias=False)
        self.edge = nn.Linear(PAIR, dim, bias=False)
        self.score = nn.Parameter(torch.empty(heads, dim // heads))
        self.out = nn.Linear(dim, 2 * dim)
        nn.init.xavier_uniform_(self.score)

    def forward(self, h: Tensor, pairs: Tensor, linked: Tensor) -> Tensor:
        """`h` (N, M, 2 D), `pairs` (N, M, M, 12) i <- j, `linked` (N, M, M) bool: (N, M, 2 D)."""
        h = self.norm(h)
        m = self.sender(h)[:, None] + self.receiver(h)[:, :, None] + self.edge(pairs)
        m = F.leaky_relu(m, 0.2).unflatten(3, (self.heads, -1))  # (N, M, M, A, D / A)
        logits = (m * self.score).sum(4).masked_fill(~linked[..., None], -torch.inf)
        alpha = F.pad(logits, (0, 0, 1, 0)).softmax(2)[:, :, 1:]  # (N, M, M, A); first: no message
        return self.out((alpha[..., None] * m).sum(2).flatten(2))


class ObjectGraph(nn.Module):
    """Boxes, classes, features of the image, a user's motion, latents -> motion of all objects.

    The last layer starts at zero, so untrained graphs move only the user's objects. A pinned object
    is an object that the user moves by the identity.

    Args:
        feature_dim: width F of the code of an object.
        z_dim: width Z of the latent of an object.
        dim: width D of x and of y each.
        heads: number A of attention heads.
        edges: send messages between objects; false is a baseline of separate objects.
        camera: use the motion of the camera if it is known; it moves all objects in the image.
        past: use the motion of objects before the first frame where it is known.
        unsure: take uncertain drags: hints that an object need not follow.
        num_classes: number of trainIds.
    """

    def __init__(
        self,
        feature_dim: int = 128,
        z_dim: int = 1024,
        dim: int = 512,
        heads: int = 4,
        edges: bool = True,
        camera: bool = False,
        past: bool = False,
        unsure: bool = False,
        num_classes: int = 19,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.node = mlp(4 + num_classes + feature_dim, dim)
        self.latent = mlp(z_dim, dim)
        self.user_motion = mlp(8, dim) if edges else None  # only neighbours receive it
        self.camera = mlp(8, dim) if camera else None
        self.past = mlp(2, dim) if past else None
        self.unsure = mlp(9, dim) if unsure else None
        self.time = nn.Linear(2 * len(RATES), 2 * dim)
        self.attention = Attention(dim, heads) if edges else None
        self.norm, self.update = nn.LayerNorm(2 * dim), mlp(2 * dim, 2 * dim)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.LeakyReLU(0.2))
        self.last = nn.Linear(dim, 6)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        boxes: Tensor,
        classes: Tensor,
        features: Tensor,
        present: Tensor,
        user: Tensor,
        theta: Tensor,
        latent: Tensor,
        camera: Tensor | None = None,
        known: Tensor | None = None,
        past: Tensor | None = None,
        confidence: Tensor | None = None,
    ) -> Tensor:
        """The backward motion of each object in each frame, (N, T, M, 2, 3).

        Args:
            boxes: boxes (N, M, 4) of frame 0: x_c, y_c normalised, w / W, h / H.
            classes: classes (N, M) int64, trainIds.
            features: codes (N, M, F) of the objects from the image.
            present: bool (N, M); absent objects get the identity and have no effect.
            user: bool (N, M), true for the objects that the user moves.
            theta: motions (N, T, M, 2, 3) of the user's objects, returned unchanged; others are
                not read.
            latent: latents (N, M, T, Z) ~ N(0, I), read for the objects that the user does not
                move.
            camera: backward motion of the background (N, T, 2, 3), read in scenes where it is
                known.
            known: bool (N,), true for scenes with known camera motion, in a graph with `camera`;
                None: no scene.
            past: steps (N, M, 2) of centres from the frame before to frame 0, normalised; NaN where
                unknown; read by a graph with `past`. None: all unknown.
            confidence: confidence (N, M) in [0, 1] in the user's motion of each object. An object
                follows it exactly at 1; below, it is a hint for a graph with `unsure`. None: all 1.
        """
        N, M, T = *present.shape, theta.shape[1]
        if theta.shape != (N, T, M, 2, 3) or latent.shape[:3] != (N, M, T):
            raise ValueError(
                f"expected theta (N, T, M, 2, 3) and latent (N, M, T, Z) of N, M = {N}, {M}, got "
                f"{tuple(theta.shape)} and {tuple(latent.shape)}"
            )
        still, here = identity(theta), present[..., None]  # here: (N, M, 1)
        hint = None
        if self.unsure is not None and confidence is not None:
            hint, user = user & present & (confidence < 1), user & (confidence >= 1)
        user = (user & present)[..., None]  # (N, M, 1)
        boxes, features = boxes.where(here, 0), features.where(here, 0)
        given = theta.where(user[:, None, ..., None], still)  # (N, T, M, 2, 3)
        taken = move_boxes(boxes, given)  # (N, T, M, 4)
        linked = present[:, None] & present[:, :, None]
        linked = linked & ~torch.eye(M, dtype=torch.bool, device=present.device)  # (N, M, M)

        kinds = F.one_hot(classes.where(present, 0), self.num_classes).to(boxes.dtype)
        turned = boxes.unflatten(2, (2, 2)).flip(3).flatten(2)  # y before x, as the release
        x = self.node(torch.cat([turned, kinds, features], 2))  # (N, M, D)
        motion = self.latent(latent.where(here[..., None], 0)).transpose(1, 2)  # (N, T, M, D)
        if self.user_motion is not None:
            motion = self.user_motion(travel(given, boxes)).where(user[:, None], motion)
        if self.camera is not None and known is not None:
            seen = travel(camera[:, :, None].expand_as(theta), boxes)  # (N, T, M, 8)
            motion = motion + self.camera(seen).where(known[:, None, None, None], 0)
        if self.past is not None and past is not None:
            seen = here & ~past.isnan().any(2, keepdim=True)  # (N, M, 1)
            motion = motion + self.past(UNIT * past.where(seen, 0)).where(seen, 0)[:, None]
        if hint is not None:
            way = theta.where(hint[:, None, :, None, None], still)
            sure = confidence[:, None, :, None].expand(*way.shape[:3], 1)
            told = self.unsure(torch.cat([travel(way, boxes), sure], 3))  # (N, T, M, D)
            motion = motion + told.where(hint[:, None, :, None], 0)
        times = self.time(clock(T, boxes))  # (T, 2 D)

        y, place, moved = torch.zeros_like(x), boxes, still.expand(N, M, 2, 3)
        out = []
        for t in range(T):
            before, place = place, move_boxes(boxes, moved.detach()[:, None])[:, 0]
            place = taken[:, t].where(user, place).clamp(-FAR, FAR)  # of others: a step ago
            y = motion[:, t] + y.where(~user, 0)
            h = torch.cat([x, y], 2)  # (N, M, 2 D)
            if self.attention is not None:
                h = h + self.attention(h, pairs(boxes, before, place), linked)
            h = h + self.update(self.norm(h) + times[t])
            x, y = h.chunk(2, 2)
            moved = centred(self.last(self.head(x)), boxes)  # (N, M, 2, 3)
            moved = given[:, t].where((user | ~here)[..., None], moved)
            out.append(moved)
        return torch.stack(out, 1)


def centred(change: Tensor, boxes: Tensor) -> Tensor:
    """theta (..., 2, 3) = [I + C | d - C c] of `change` (..., 6) = (C by rows, d), c box centres.

    This separates changes of size from the position. Zero change gives exactly the identity.
    """
    C, d = change[..., :4].unflatten(-1, (2, 2)), change[..., 4:, None]
    rest = torch.cat([C, d - C @ boxes[..., :2, None]], -1)
    return identity(rest) + rest


def travel(theta: Tensor, boxes: Tensor) -> Tensor:
    """Motions (N, T, M, 2, 3) as (C, d) of `centred`, and steps of d: (N, T, M, 8), in UNIT."""
    rest = about_centres(theta, boxes) - identity(theta)
    d = rest[..., 2]  # (N, T, M, 2)
    step = d - F.pad(d, (0, 0, 0, 0, 1, 0))[:, :-1]
    return UNIT * torch.cat([rest[..., :2].flatten(-2), d, step], -1)


def clock(steps: int, like: Tensor) -> Tensor:
    """Sines and cosines of the times 1..T: (T, 8)."""
    times = torch.arange(1, steps + 1, dtype=like.dtype, device=like.device)
    angles = torch.stack([times * rate for rate in RATES], 1)
    return torch.cat([angles.sin(), angles.cos()], 1)


def pairs(boxes: Tensor, before: Tensor, place: Tensor) -> Tensor:
    """Edge features (N, M, M, 12) of j for i, from boxes (N, M, 4) in frame 0, a step ago, now.

    Position of j relative to i in frame 0 and now, its change, both sizes, and the gap between the
    boxes along x and y, negative if they overlap. In UNIT.
    """
    start, now, rate = (
        v[:, None, :, :2] - v[:, :, None, :2] for v in (boxes, place, place - before)
    )  # (N, M, M, 2) each
    own, other = place[:, :, None, 2:].expand_as(now), place[:, None, :, 2:].expand_as(now)
    return UNIT * torch.cat([start, now, rate, own, other, now.abs() - own - other], 3)

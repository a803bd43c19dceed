"""The published training step, transcribed from the description and kept as a yardstick.

StarGAN v2 (spec section 2) with the three terms of CVPR 2021 as released (section 3.1): nothing is
shared, nothing is frozen, every phase computes all of its terms, and the networks are taken through
their published forward passes. `tests/test_step.py` holds our gradients against it,
`scripts/benchmark.py train --vs literal` our seconds.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from literal_networks import literal


def bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def gradients(nets: dict[str, nn.Module]) -> dict[str, Tensor | None]:
    """A copy of the gradient of every parameter, by name."""
    return {
        f"{name}.{key}": None if p.grad is None else p.grad.clone()
        for name, net in nets.items()
        for key, p in net.named_parameters()
    }


class LiteralStep:
    """One iteration on the networks of a StarGAN or SmoothI2I `method`, with its weights and rates.

    Takes the networks over: from then on they go their literal way, in `method` too.
    `gradients` holds, after `__call__`, what each of the four phases gave to the networks it steps.
    """

    def __init__(self, method, lpips=None):
        self.h, self.lpips, self.iteration = method.hparams, lpips, 0
        self.nets = {
            "G": literal(method.generator),
            "F": method.mapping_network,
            "E": literal(method.style_encoder),
            "D": literal(method.discriminator),
        }
        adam = dict(betas=(0.0, 0.99), weight_decay=self.h.weight_decay)
        self.optims = {
            name: torch.optim.Adam(
                net.parameters(), self.h.lr_mapping if name == "F" else self.h.lr, **adam
            )
            for name, net in self.nets.items()
        }
        self.ema = {name: copy.deepcopy(self.nets[name]) for name in "GFE"}
        self.gradients = {}

    def step(self, phase: str, loss: Tensor, stepped: str) -> None:
        for optim in self.optims.values():
            optim.zero_grad()
        loss.backward()
        self.record(phase, stepped)
        for name in stepped:
            self.optims[name].step()

    def record(self, phase: str, stepped: str) -> None:
        self.gradients[phase] = gradients({name: self.nets[name] for name in stepped})

    def __call__(self, batch: dict[str, Tensor], z: Tensor, z2: Tensor) -> None:
        x = batch["x"].requires_grad_()  # the official code leaves it on for the whole iteration
        refs = batch["x_ref"], batch["x_ref2"]
        self.step("d latent", self.d_loss(batch, x, z=z), "D")
        self.step("d ref", self.d_loss(batch, x, ref=refs[0]), "D")
        self.step("latent", self.g_loss(batch, x, z=(z, z2)), "GFE")
        self.step("ref", self.g_loss(batch, x, ref=refs), "G")
        for name, average in self.ema.items():
            for p, q in zip(average.parameters(), self.nets[name].parameters(), strict=True):
                p.data.lerp_(q.data, 1 - self.h.ema_decay)
        self.iteration += 1
        batch["x"].requires_grad_(False)

    def d_loss(self, batch, x: Tensor, z=None, ref=None) -> Tensor:
        G, F_, E, D = self.nets.values()
        y, y_trg = batch["y"], batch["y_ref"]
        real = D(x, y)
        (grad,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        r1 = 0.5 * grad.pow(2).reshape(len(x), -1).sum(1).mean()
        with torch.no_grad():
            fake = G(x, F_(z, y_trg) if z is not None else E(ref, y_trg))
        return bce(real, 1.0) + bce(D(fake, y_trg), 0.0) + self.h.lambda_reg * r1

    def g_loss(self, batch, x: Tensor, z=None, ref=None) -> Tensor:
        G, F_, E, D = self.nets.values()
        h, y, y_trg = self.h, batch["y"], batch["y_ref"]
        s, s2 = (F_(i, y_trg) for i in z) if z is not None else (E(i, y_trg) for i in ref)
        fake = G(x, s)
        adv = bce(D(fake, y_trg), 1.0)
        sty = (E(fake, y_trg) - s).abs().mean()
        fake2 = G(x, s2).detach()
        ds = (fake - fake2).abs().mean()
        s_org = E(x, y)
        cyc = (G(fake, s_org) - x).abs().mean()
        lambda_ds = h.lambda_ds * max(0.0, 1 - self.iteration / h.ds_iters)
        loss = adv + h.lambda_sty * sty - lambda_ds * ds + h.lambda_cyc * cyc
        if "lambda_tri" not in h:
            return loss
        # CVPR 2021, in both phases although only the latent one can learn from the first two
        ramp = min(1.0, max(0.0, (self.iteration - h.ramp_start) / h.ramp_iters))
        loss = loss + ramp * h.lambda_sr * ((s**2).mean() + (s_org**2).mean())
        other = y_trg != y
        if h.lambda_tri and other.any():
            s_neg = F_(z[0], y) if z is not None else s_org
            triplet = torch.nn.TripletMarginLoss(margin=h.margin, p=2)
            loss = loss + h.lambda_tri * triplet(s[other], s2[other], s_neg[other])
        if h.lambda_cont:
            loss = loss + h.lambda_cont * self.lpips(x, fake).mean()
        return loss

"""One step of a translator in float64, recorded."""

import torch

from harness import bare
from literal_step import gradients

TINY = dict(img_size=32, num_domains=3, style_dim=8, latent_dim=4, base_channels=4, max_channels=8)


SMOOTH = dict(lambda_tri=0.7, lambda_sr=0.6, ramp_start=-5, ramp_iters=10, lambda_cont=0.0)


PHASES = ("d latent", "d ref", "latent", "ref")


def recording(cls):
    """Keeps the gradients that each update finds in the networks that have any."""

    class Recording(bare(cls)):
        def manual_backward(self, loss):
            super().manual_backward(loss)
            trained = {
                name: net
                for name, net in self.named().items()
                if any(p.grad is not None for p in net.parameters())
            }
            self.recorded.append(gradients(trained))

    return Recording


def make(cls, **options):
    method = recording(cls)(**TINY | options).double()
    method.recorded = []
    return method


def make_batch(n=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(3, n, 3, 32, 32, generator=rng, dtype=torch.float64)
    y = torch.randint(3, (2, n), generator=rng)
    return dict(x=images[0], x_ref=images[1], x_ref2=images[2], y=y[0], y_ref=y[1])


def latents(method, n=6):
    rng = method.step_rng(method.hparams.seed)
    return torch.randn(2, n, method.latent_dim, generator=rng).double()


def sgd(params, lr, betas, weight_decay, fused=False):
    """In Adam's place: Adam's first step is the sign of the gradient, which rounding may turn."""
    return torch.optim.SGD(params, 100 * lr, weight_decay=weight_decay)

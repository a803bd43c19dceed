"""The published forward passes of StarGAN v2's blocks, transcribed from the description (spec 1.1).

Nothing is merged, reordered or done in place. `literal(net)` makes a network of ours take them.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from gen.networks import stargan as ours


def leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class InstanceNorm(ours.InstanceNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=1e-5)


class AdaIN(ours.AdaIN):
    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gamma, beta = self.fc(s)[:, :, None, None].chunk(2, dim=1)  # (N, C, 1, 1)
        return (1 + gamma) * F.instance_norm(x, eps=1e-5) + beta


class ResBlk(ours.ResBlk):
    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(leaky_relu(self.norm1(x)))
        h = F.avg_pool2d(h, 2) if self.down else h
        h = self.conv2(leaky_relu(self.norm2(h)))
        x = self.conv1x1(x)
        return ((F.avg_pool2d(x, 2) if self.down else x) + h) / math.sqrt(2)


class AdainResBlk(ours.AdainResBlk):
    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        h = leaky_relu(self.norm1(x, s))
        h = F.interpolate(h, scale_factor=2, mode="nearest") if self.up else h
        h = self.conv2(leaky_relu(self.norm2(self.conv1(h), s)))
        if not self.skip:
            return h
        x = F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x
        return (h + self.conv1x1(x)) / math.sqrt(2)


LITERAL = {cls.__base__: cls for cls in (InstanceNorm, AdaIN, ResBlk, AdainResBlk)}


def literal(net: nn.Module) -> nn.Module:
    """`net`, changed: the same weights under the same names."""
    for module in net.modules():
        module.__class__ = LITERAL.get(type(module), type(module))
        if isinstance(module, nn.LeakyReLU):
            module.inplace = False
    return net

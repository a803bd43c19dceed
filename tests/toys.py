"""Small stand-ins: images, a translator that is perfect, features that are colours."""

import numpy as np
import torch
import torch.nn.functional as F
import torch_fidelity
from torch import nn

import gen.data

SIZE = 32


def noise(*shape, seed=0, size=SIZE):
    """Smooth random images (*shape, 3, size, size) in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    low = torch.randn((int(np.prod(shape)), 3, 6, 6), generator=g)
    images = F.interpolate(low, (size, size), mode="bilinear")
    return images.tanh().reshape(*shape, 3, size, size)


def frames(n=2, t=5, size=SIZE):
    """n sequences (n, t, 3, size, size) that move evenly from one image to another."""
    a, b = noise(n, 1, size=size), noise(n, 1, seed=1, size=size)
    w = torch.linspace(0, 1, t)[None, :, None, None, None]
    return (1 - w) * a + w * b


class Toy(torch_fidelity.FeatureExtractorBase):
    """Features of an image: its mean colour, 0 .. 255."""

    def __init__(self, name="toy", features_list=("3",), **_):
        super().__init__(name, features_list)
        self.batches = []

    @staticmethod
    def get_provided_features_list():
        return ("3",)

    def forward(self, x):
        assert x.dtype == torch.uint8
        self.batches.append(len(x))
        return (x.float().mean((2, 3)),)


class Images:
    """`count` contents in three tints; `paired` says whether twins are known."""

    domains, img_size = ["blue", "green", "red"], SIZE

    def __init__(self, count=5, paired=True):
        self.labels = torch.arange(3).repeat_interleave(count)
        self.count, self.paired = count, paired

    def __getitem__(self, index):
        y, key = divmod(index, self.count)
        return {"x": tint(noise(seed=key), torch.tensor([y]))[0], "y": y, "index": index}

    def twin(self, index, domain):
        return domain * self.count + index % self.count if self.paired else None


def tint(x, y):
    """Images and domains -> the same content in the domain's tint."""
    tints = torch.eye(3)[:, :, None, None]
    return 0.5 * x + 0.5 * tints[y]


class Translator(nn.Module):
    """Takes the tint off, puts the style's on: perfect where `spread` is 0."""

    task = "translator"
    domains, img_size, latent_dim = Images.domains, SIZE, 4

    def __init__(self, spread=0.0, sharpness=0.0):
        super().__init__()
        self.spread, self.sharpness = spread, sharpness
        self.anchor = nn.Parameter(torch.zeros(()))
        self.encoded = 0

    def encode(self, x):
        self.encoded += len(x)
        tint = x.mean((2, 3), keepdim=True).argmax(1, keepdim=True)
        return 2 * x - F.one_hot(tint[:, 0, 0, 0], 3)[:, :, None, None]

    def decode(self, content, s):
        if self.sharpness:
            s = torch.sigmoid(self.sharpness * (s - 0.5))
        return 0.5 * content + 0.5 * s[:, :, None, None]

    def map_style(self, z, y):
        return torch.eye(3)[y] + self.spread * z[:, :3]

    def encode_style(self, x, y):
        return torch.eye(3)[y] + self.spread * x.mean((2, 3))

    def mean_style(self, y):
        return torch.eye(3)[y][None]


class FewHeads(gen.data.Heads):
    """`Heads` with few images, for `--data toys.FewHeads`."""

    def __init__(self, **options):
        super().__init__(**dict(train_images=6, val_images=4) | options)

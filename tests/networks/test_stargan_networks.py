"""StarGAN v2 networks against golden numbers, published key lists and parameter counts."""

import copy
import json
import math

import numpy as np
import pytest
import torch

from gen.losses.adversarial import bce, r1
from gen.networks.stargan import Discriminator, Generator, MappingNetwork, StyleEncoder
from literal_networks import literal

COUNTS = {  # spec 1.7, two domains
    (64, 0): (32_634_883, 20_327_808, 20_263_170),
    (64, 1): (42_209_283, 20_327_808, 20_263_170),
    (128, 0): (33_632_003, 20_799_744, 20_735_106),
    (256, 0): (33_892_995, 20_916_928, 20_852_290),
    (256, 1): (43_467_395, 20_916_928, 20_852_290),
    (512, 1): (43_538_499, 20_945_824, 20_881_186),
}


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("img_size, w_hpf", COUNTS)
def test_parameter_counts(img_size, w_hpf):
    with torch.device("meta"):
        nets = (Generator(img_size, w_hpf=w_hpf), StyleEncoder(img_size), Discriminator(img_size))
    assert tuple(map(count, nets)) == COUNTS[img_size, w_hpf]


@pytest.mark.parametrize("domains, expected", [(2, 2_438_272), (3, 3_259_072)])
def test_parameter_count_of_the_mapping_network(domains, expected):
    assert count(MappingNetwork(num_domains=domains)) == expected


def published_keys(text):
    """{section title: {key: shape}} of starganv2_state_dict.txt."""
    sections = {}
    for line in text.splitlines():
        if line.startswith("## "):
            keys = sections[line[3:]] = {}
        elif line and not line.startswith("#"):
            key, shape, _ = line.split("\t")
            keys[key] = tuple(json.loads(shape))
    return sections


def test_state_dicts_have_the_published_keys_and_shapes(specs):
    sections = published_keys((specs / "starganv2_state_dict.txt").read_text())
    makers = {
        "generator w_hpf=1": lambda: Generator(256, w_hpf=1),
        "generator w_hpf=0": lambda: Generator(256),
        "mapping_network num_domains=2": lambda: MappingNetwork(num_domains=2),
        "mapping_network num_domains=3": lambda: MappingNetwork(num_domains=3),
        "style_encoder num_domains=2": lambda: StyleEncoder(num_domains=2),
        "style_encoder num_domains=3": lambda: StyleEncoder(num_domains=3),
        "discriminator num_domains=2": lambda: Discriminator(num_domains=2),
    }
    for start, make in makers.items():
        (title,) = [t for t in sections if t.startswith(start)]
        with torch.device("meta"):
            ours = {key: tuple(value.shape) for key, value in make().state_dict().items()}
        assert ours == sections[title], title
        assert list(ours) == list(sections[title]), f"{title}: order"


def wave(function, frequency, *shape):
    values = function(frequency * np.arange(math.prod(shape), dtype=np.float64))
    return torch.from_numpy(values.reshape(shape)).float()


def filled(net):
    """Spec 9: the deterministic fill of every parameter, in the order of the key list."""
    for k, (name, p) in enumerate(net.named_parameters()):
        v = np.sin(0.7 * np.arange(p.numel(), dtype=np.float64) + 1.3 * k).reshape(p.shape)
        if p.ndim >= 2:
            v = 2 * v / math.sqrt(math.prod(p.shape[1:]))
        else:
            v = 0.1 * v if name.endswith("bias") else 1 + 0.1 * v
        p.data = torch.from_numpy(v).float()
    return net


def check(out, golden):
    assert list(out.shape) == golden["shape"]
    assert out.mean().item() == pytest.approx(golden["mean"], rel=1e-3)
    assert out.std().item() == pytest.approx(golden["std"], rel=1e-3)
    assert out.abs().max().item() == pytest.approx(golden["absmax"], rel=1e-3)
    assert out.flatten()[:4].tolist() == pytest.approx(golden["first"], rel=1e-3, abs=1e-4)
    assert out.flatten()[-2:].tolist() == pytest.approx(golden["last"], rel=1e-3, abs=1e-4)


@pytest.fixture
def golden(specs):
    return json.loads((specs / "starganv2_golden.json").read_text())


Y = torch.tensor([0, 1])


def test_mapping_network(golden):
    with torch.no_grad():
        check(filled(MappingNetwork())(wave(np.cos, 0.3, 2, 16), Y), golden["F(z,y)"])


@pytest.mark.parametrize("size", [64, 128])
def test_networks_at_two_sizes(golden, size):
    x = wave(np.sin, 0.037, 2, 3, size, size)
    with torch.no_grad():
        check(filled(StyleEncoder(size))(x, Y), golden[f"E img{size}"])
        check(filled(Discriminator(size))(x, Y), golden[f"D img{size}"])
        out = filled(Generator(size))(x, wave(np.sin, 0.5, 2, 64))
        check(out, golden[f"G hpf0 img{size}"])


def test_generator_256(golden):
    x, s = wave(np.sin, 0.037, 1, 3, 256, 256), wave(np.sin, 0.5, 1, 64)
    masks = [
        (1 + wave(np.sin, 0.05, 1, 1, 256, 256)) / 2,
        (1 + wave(np.cos, 0.03, 1, 1, 256, 256)) / 2,
    ]
    with torch.no_grad():
        check(filled(Generator(256))(x, s), golden["G hpf0 img256"])
        high_pass = filled(Generator(256, w_hpf=1))
        check(high_pass(x, s), golden["G hpf1 img256 nomask"])
        check(high_pass(x, s, masks), golden["G hpf1 img256 masks"])


def test_adversarial_losses_and_r1(golden):
    x = wave(np.sin, 0.037, 2, 3, 64, 64).requires_grad_()
    logits = filled(Discriminator(64))(x, Y)
    assert r1(logits, x).item() == pytest.approx(golden["R1 img64"], rel=1e-3)
    assert bce(logits, real=True).item() == pytest.approx(golden["adv_real img64"], rel=1e-4)
    assert bce(logits, real=False).item() == pytest.approx(golden["adv_fake img64"], rel=1e-4)


def test_a_head_alone_gives_what_all_heads_give():
    net, z, y = MappingNetwork(num_domains=3), torch.randn(6, 16), torch.tensor([2, 0, 1, 1, 2, 0])
    together = net(z, y)
    for k in range(3):
        torch.testing.assert_close(net(z[y == k], k), together[y == k])


@pytest.mark.parametrize("w_hpf", [0, 1])
def test_generator_equals_the_published_forward_pass(w_hpf):
    width = dict(base_channels=4, max_channels=8)
    ours = Generator(64, 8, w_hpf, **width).double()
    x, s = torch.randn(2, 3, 64, 64).double(), torch.randn(2, 8).double()
    masks = [*torch.rand(2, 2, 1, 64, 64).double()] if w_hpf else None
    torch.testing.assert_close(ours(x, s, masks), literal(copy.deepcopy(ours))(x, s, masks))


@pytest.mark.parametrize("cls", [StyleEncoder, Discriminator])
def test_trunk_equals_the_published_forward_pass_twice_differentiated(cls):
    ours = cls(64, num_domains=2, base_channels=4, max_channels=8).double()
    x = torch.randn(2, 3, 64, 64).double().requires_grad_()

    def second_gradients(net):
        out = net(x, Y)
        penalty = r1(out.flatten(1).sum(1) if out.ndim > 1 else out, x) + out.sum()
        return out, torch.autograd.grad(penalty, list(net.parameters()), allow_unused=True)

    for got, want in zip(*map(second_gradients, (ours, literal(copy.deepcopy(ours)))), strict=True):
        torch.testing.assert_close(got, want)


def test_bf16_keeps_the_statistics_of_instance_norm_in_fp32():
    from gen.networks.stargan import instance_norm

    x = 300 + torch.randn(2, 3, 64, 64)  # in bf16 a mean over 4096 such values would be lost
    one, zero = torch.ones(3), torch.zeros(3)
    low = instance_norm(x.bfloat16(), one, zero)
    assert low.dtype == torch.bfloat16
    exact = instance_norm(x.bfloat16().float(), one, zero)
    assert (low.float() - exact).abs().max() < 0.02


def test_width_knobs_and_sizes():
    g = Generator(32, base_channels=4, max_channels=8)
    assert g(torch.randn(2, 3, 32, 32), torch.randn(2, 64)).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="power of two >= 16, got 48"):
        Generator(48)


def test_the_generator_can_be_exported():
    """Tracing compares shapes that the eager kernel of group normalisation does not look at."""
    net = Generator(16, style_dim=8, base_channels=4, max_channels=8)
    given = torch.randn(2, 3, 16, 16), torch.randn(2, 8)
    exported = torch.export.export(net, given).module()
    assert torch.equal(exported(*given), net(*given))

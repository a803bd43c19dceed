"""StyleGAN2 networks against golden numbers, published key lists and parameter counts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gen.losses.adversarial import path_length, path_lengths, r1
from gen.networks import stylegan2
from gen.networks.stylegan2 import Discriminator, Generator, minibatch_std

COUNTS = {  # spec 2.9: resolution, channel_base, channel_max, layers of mapping: rows, G, D
    (1024, 32768, 512, 8): (18, 30_370_060, 29_012_513),
    (512, 32768, 512, 8): (16, 30_276_583, 28_982_849),
    (256, 32768, 512, 8): (14, 30_034_338, 28_864_129),
    (256, 16384, 512, 8): (14, 24_767_458, 24_001_089),
    (256, 16384, 512, 2): (14, 23_191_522, 24_001_089),
    (128, 16384, 512, 2): (12, 22_949_277, 23_882_369),
    (64, 16384, 512, 2): (10, 22_243_608, 23_407_361),
    (64, 16384, 256, 2): (10, 7_682_584, 6_625_281),
    (64, 16384, 128, 2): (10, 2_776_856, 1_657_857),
    (32, 16384, 256, 2): (8, 6_107_667, 5_379_585),
    (32, 16384, 128, 2): (8, 2_284_307, 1_346_305),
}
SMALL = dict(channel_base=512, channel_max=32)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("size, base, most, layers", COUNTS)
def test_parameter_counts(size, base, most, layers):
    width = dict(channel_base=base, channel_max=most)
    with torch.device("meta"):
        g, d = Generator(size, map_layers=layers, **width), Discriminator(size, **width)
    assert (g.mapping.rows, count(g), count(d)) == COUNTS[size, base, most, layers]
    assert count(g.mapping) == {8: 2_101_248, 2: 525_312}[layers]


def test_state_dicts_have_the_published_keys_and_shapes(specs):
    makers = {
        "Generator (G / G_ema)  res=256 channel_base=32768": lambda: Generator(256),
        "Discriminator (D) resnet  res=256 channel_base=32768": lambda: Discriminator(256),
        "Generator (G / G_ema)  res=256 channel_base=16384": lambda: Generator(
            256, channel_base=16384
        ),
        "Discriminator (D) resnet  res=256 channel_base=16384": lambda: Discriminator(
            256, channel_base=16384
        ),
        "CONDITIONAL cifar-style Generator": lambda: Generator(
            32, c_dim=10, map_layers=2, channel_base=16384
        ),
        "CONDITIONAL cifar-style Discriminator": lambda: Discriminator(
            32, c_dim=10, channel_base=16384, residual=False
        ),
    }
    sections, found = (specs / "stylegan2_state_dict.txt").read_text().split("\n## "), 0
    for start, make in makers.items():
        (text,) = [s for s in sections if s.startswith(start)]
        lines = [line.split(maxsplit=2) for line in text.splitlines() if line[:2] in ("P ", "B ")]
        with torch.device("meta"):
            net = make()
        parameters = dict(net.named_parameters())
        ours = [("PB"[k not in parameters], k, [*v.shape]) for k, v in net.state_dict().items()]
        assert ours == [(kind, key, json.loads(shape)) for kind, key, shape in lines], start
        found += len(lines)
    assert found == 2 * (144 + 64) + 77 + 49


def wave(shape, a, k):
    values = np.sin(a * np.arange(math.prod(shape), dtype=np.float64) + k)
    return torch.from_numpy(values.reshape(shape)).float()


def drawn(net):
    return [name for name in net.state_dict() if not name.endswith("resample_filter")]


def filled(net):
    """Spec 7.2: the deterministic fill of all but the filters, in the order of sorted names."""
    state = net.state_dict()
    for k, name in enumerate(sorted(drawn(net))):
        v = wave(state[name].shape, 0.05, k)
        if name.endswith("affine.bias"):
            v = 1 + 0.1 * v
        elif name.startswith("mapping.fc"):
            v = (100 if name.endswith("weight") else 10) * v
        elif name.endswith(("noise_strength", "bias", "w_avg")):
            v = 0.1 * v
        state[name].copy_(v)
    return net


@pytest.fixture(scope="module")
def g():
    return filled(Generator(32, 32, w_dim=32, map_layers=2, **SMALL)).requires_grad_(False)


@pytest.fixture(scope="module")
def d():
    return filled(Discriminator(32, **SMALL))


CPU = Path("/proc/cpuinfo")
Z = wave([4, 32], 0.3, 0.5)
X = wave([4, 3, 32, 32], 0.011, 0.2)


def check(out, mean, std, first, last=None):
    assert out.mean().item() == pytest.approx(mean, abs=1e-4)
    assert out.std(correction=0).item() == pytest.approx(std, abs=1e-4)
    assert out.flatten()[: len(first)].tolist() == pytest.approx(first, abs=1e-4)
    if last is not None:
        assert out.flatten()[-1].item() == pytest.approx(last, abs=1e-4)


def test_generator_golden(g):
    assert (count(g), len(drawn(g)), g.mapping.rows) == (66_723, 64, 8)
    ws = g.mapping(Z)
    check(ws, 0.737920, 1.304875, [-0.40931, -0.51303, 2.45436, 2.67280])
    cut = g.mapping(Z, psi=0.5, cutoff=3)
    assert cut.mean().item() == pytest.approx(0.582778, abs=1e-4)
    assert cut[0, 0, :4].tolist() == pytest.approx([-0.24250, -0.29594, 1.18626, 1.29410], abs=1e-4)
    first, last = [0.55230, 0.67267, 0.65283, 0.64582], -0.56554
    check(g(Z), -0.066417, 0.730954, first, last)
    check(g(Z, noise="none"), -0.072240, 0.694413, [0.35453, 0.41820, 0.37526, 0.35757], -0.42290)


def test_discriminator_golden_and_r1(g, d):
    assert (count(d), len(drawn(d))) == (72_561, 23)
    image = g(Z)
    with torch.no_grad():
        logits = d((image / image.std()).tanh())
    assert logits.tolist() == pytest.approx([-0.71710, -0.70648, -0.69728, -0.67394], abs=1e-4)
    x = X.clone().requires_grad_()
    logits = d(x)
    assert logits.tolist() == pytest.approx([-0.69674, -0.70253, -0.70525, -0.69691], abs=1e-4)
    squares = [1.751756e-6, 9.150714e-6, 8.824773e-6, 3.277373e-6]
    assert r1(logits, x).item() == pytest.approx(sum(squares) / 8, rel=1e-3)
    (grad,) = torch.autograd.grad(logits.sum(), x)
    assert grad.square().sum((1, 2, 3)).tolist() == pytest.approx(squares, rel=1e-3)


def test_path_length_golden(g):
    ws = g.mapping(Z).clone().requires_grad_()
    noise = wave([4, 3, 32, 32], 0.017, 0.1)
    lengths = path_lengths(g.synthesis(ws), ws, noise)
    assert lengths.tolist() == pytest.approx([0.45628, 0.89542, 0.36126, 0.91718], abs=1e-4)


def test_path_length_pulls_lengths_to_their_running_average():
    lengths = torch.tensor([1.0, 3.0], requires_grad=True)
    loss, average = path_length(lengths, torch.tensor(4.0))
    a = 4 + 0.01 * (2 - 4)
    assert average.item() == pytest.approx(a) and not average.requires_grad
    assert loss.item() == pytest.approx(((1 - a) ** 2 + (3 - a) ** 2) / 2)
    (grad,) = torch.autograd.grad(loss, lengths)  # through a, too: spec 2.5
    through = 0.01 / 2 * (-(1 - a) - (3 - a))
    assert grad.tolist() == pytest.approx([1 - a + through, 3 - a + through])


def test_a_length_of_zero_has_finite_gradients():
    ws, scale = torch.randn(2, 4, 3, requires_grad=True), torch.zeros((), requires_grad=True)
    images = (scale * ws).sum(1)[:, :, None, None].expand(-1, -1, 8, 8)
    lengths = path_lengths(images, ws, torch.ones(2, 3, 8, 8))
    assert lengths.tolist() == [0, 0]
    (grad,) = torch.autograd.grad(path_length(lengths, torch.tensor(1.0))[0], scale)
    assert grad.isfinite()


def tiny(cls, **options):
    return cls(8, channel_base=16, channel_max=3, map_layers=1, **options).double()


def literal_layer(layer, x, w, noise):
    """Spec 2.1: weights of its own for each sample, and the zeros written out."""
    s = layer.affine(w)
    weight = layer.weight * s[:, None, :, None, None]  # (N, O, I, 3, 3)
    weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    out = []
    for one, kernel in zip(x, weight, strict=True):
        if layer.up:
            I, H, W = one.shape
            zeros = one.new_zeros(I, 2 * H, 2 * W)
            zeros[:, ::2, ::2] = one
            fir = 4 * layer.resample_filter.expand(len(kernel), 1, 4, 4)
            one = F.conv2d(F.pad(zeros, (2, 2, 2, 2)), kernel.flip(2, 3))
            one = F.conv2d(F.pad(one, (1, 0, 1, 0)), fir, groups=len(kernel))
        else:
            one = F.conv2d(one[None], kernel, padding=1)[0]
        out.append(one)
    x = torch.stack(out) + layer.noise_strength * noise + layer.bias[:, None, None]
    return math.sqrt(2) * F.leaky_relu(x, 0.2)


@pytest.mark.parametrize("up", [False, True])
def test_a_layer_equals_its_literal_form_twice_differentiated(up):
    torch.manual_seed(0)
    layer = stylegan2.SynthesisLayer(2, 3, 4, 8, up, None).double()
    for p in layer.parameters():
        p.data = torch.randn_like(p)
    x = torch.randn(2, 2, 4, 4).double().requires_grad_()
    w, noise = torch.randn(2, 4).double().requires_grad_(), torch.randn(2, 1, 1, 1).double()

    def derivatives(forward):
        out = forward(x, w, noise)
        (grad,) = torch.autograd.grad(out.sin().sum(), w, create_graph=True)
        return out, grad, *torch.autograd.grad(grad.square().sum(), [x, w, *layer.parameters()])

    ours = derivatives(layer)
    for got, want in zip(ours, derivatives(lambda *a: literal_layer(layer, *a)), strict=True):
        torch.testing.assert_close(got, want)


def test_gradients_of_r1_reach_every_weight():
    torch.manual_seed(0)
    d = tiny(Discriminator, c_dim=2, group=2)
    x, c = torch.randn(4, 3, 8, 8).double().requires_grad_(), torch.eye(2).repeat(2, 1).double()
    weights = [d.b8.fromrgb.weight, d.b8.conv1.weight, d.b8.skip.weight, d.b4.conv.weight]

    def penalty(*values):
        names = ["b8.fromrgb.weight", "b8.conv1.weight", "b8.skip.weight", "b4.conv.weight"]
        return r1(torch.func.functional_call(d, dict(zip(names, values, strict=True)), (x, c)), x)

    values = [w.detach().requires_grad_() for w in weights]
    assert torch.autograd.gradcheck(penalty, values, fast_mode=True)


def test_conditions_choose_the_code_and_the_logit():
    torch.manual_seed(0)
    g, d = tiny(Generator, z_dim=4, c_dim=3, w_dim=4), tiny(Discriminator, c_dim=3, group=1)
    z, c, x = torch.randn(1, 4).expand(3, -1), torch.eye(3), torch.randn(3, 3, 8, 8).double()
    ws = g.mapping(z, c)
    assert ws.shape == (3, 4, 4) and (ws[0] - ws[1]).abs().max() > 0.01
    torch.testing.assert_close(g.mapping(z[:1], c[1:2]), ws[1:2])
    logits = d(x, c)
    h = d.b4(d.b8(x))
    embed = stylegan2.normalize(d.mapping.embed(c))
    torch.testing.assert_close(logits, (h * d.mapping.fc0(embed)).sum(1) / math.sqrt(3))
    with pytest.raises(ValueError, match=r"c: expected \(N, 3\), got None"):
        g.mapping(z)
    with pytest.raises(ValueError, match=r"c: expected \(N, 3\), got \(3, 2\)"):
        d(x, c[:, :2])
    with pytest.raises(ValueError, match=r"c: expected None, as c_dim is 0, got \(3, 3\)"):
        tiny(Discriminator)(x, c)


def test_the_running_average_and_full_truncation():
    g = tiny(Generator, z_dim=4, w_dim=4)
    w = g.mapping(torch.randn(6, 4))[:, 0]
    g.mapping.update_average(w, beta=0.75)
    torch.testing.assert_close(g.mapping.w_avg, 0.25 * w.detach().mean(0))
    assert not g.mapping.w_avg.requires_grad
    cut = g.mapping(torch.randn(2, 4), psi=0)
    torch.testing.assert_close(cut, g.mapping.w_avg.expand(2, 4, 4))


def test_noise_is_an_argument():
    g = tiny(Generator, z_dim=4, w_dim=4).requires_grad_(False)
    for layer in (g.synthesis.b4.conv1, g.synthesis.b8.conv0, g.synthesis.b8.conv1):
        layer.noise_strength.fill_(1)
    z, before = torch.randn(2, 4), torch.get_rng_state()

    def drawn(seed):
        return g(z, noise=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(drawn(1), drawn(1), rtol=0, atol=0)
    assert (drawn(1) - drawn(2)).abs().max() > 0.01
    maps = g.synthesis.noise_maps(2, torch.Generator().manual_seed(1))
    assert [tuple(m.shape) for m in maps] == [(2, 1, 4, 4), (2, 1, 8, 8), (2, 1, 8, 8)]
    torch.testing.assert_close(g(z, noise=maps), drawn(1), rtol=0, atol=0)
    torch.testing.assert_close(g(z), g(z, noise=g.synthesis.noise_maps(2, "const")))
    assert (g(z, noise="none") - g(z)).abs().max() > 0.01
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="a generator or 3 maps, got 'random'"):
        g(z, noise="random")
    with pytest.raises(ValueError, match="3 maps, got 2 maps"):
        g(z, noise=maps[:2])
    with pytest.raises(ValueError, match=r"ws: expected \(N, 4, 4\), got \(2, 4\)"):
        g.synthesis(torch.zeros(2, 4))


def test_minibatch_std_by_hand():
    x = torch.randn(6, 2, 4, 4).double()
    out = minibatch_std(x, 3)  # groups: samples 0, 2, 4 and 1, 3, 5
    torch.testing.assert_close(out[:, :2], x)
    for i in range(2):
        std = (x[i::2].var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[i::2, 2], std.expand(3, 4, 4))
    torch.testing.assert_close(minibatch_std(x[:2], 4), minibatch_std(x[:2], None))
    torch.testing.assert_close(minibatch_std(x[:1], 4)[0, 2], torch.full((4, 4), 1e-4).double())
    with pytest.raises(ValueError, match="divisible by its group of 4, got 6; drop the last"):
        minibatch_std(x, 4)


def test_samples_do_not_depend_on_their_batch(g, d):
    torch.testing.assert_close(g(Z)[2:3], g(Z[2:3]), rtol=1e-5, atol=1e-5)
    alone = Discriminator(32, **SMALL, group=1)
    alone.load_state_dict(d.state_dict())
    torch.testing.assert_close(alone(X)[1:2], alone(X[1:2]), rtol=1e-5, atol=1e-5)


def test_bf16_autocast_keeps_codes_images_and_logits_in_fp32(g, d):
    dtypes = []
    hooks = [
        net.register_forward_hook(lambda m, a, out: dtypes.append(out.dtype))
        for net in (d.b32, d.b4.conv)
    ]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        ws, image, logits = g.mapping(Z), g(Z), d(X)
    for hook in hooks:
        hook.remove()
    assert dtypes == [torch.bfloat16, torch.float32]
    assert ws.dtype == image.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(ws, g.mapping(Z), rtol=0, atol=0)
    assert (image - g(Z)).abs().mean() < 0.02 * g(Z).std()
    torch.testing.assert_close(logits, d(X).detach(), rtol=0, atol=0.01)


@pytest.mark.skipif(
    CPU.exists() and "amx_bf16" in CPU.read_text(),
    reason="on CPUs with AMX, second derivatives of some bf16 convolutions are wrong in PyTorch",
)
def test_r1_and_path_length_under_bf16_autocast():
    torch.manual_seed(0)
    width = dict(channel_base=1024, channel_max=32)
    g, d = Generator(32, 32, w_dim=32, map_layers=2, **width), Discriminator(32, **width)
    x = (0.5 * torch.randn(4, 3, 32, 32)).requires_grad_()
    ws, noise = g.mapping(Z).detach().requires_grad_(), wave([4, 3, 32, 32], 0.017, 0.1)

    def both():
        penalty, lengths = r1(d(x), x), path_lengths(g.synthesis(ws), ws, noise)
        grads = torch.autograd.grad(penalty, d.b32.conv0.weight)
        return penalty, lengths, *grads, *torch.autograd.grad(lengths.sum(), g.synthesis.b4.const)

    with torch.autocast("cpu", torch.bfloat16):
        low = both()
    for got, want in zip(low, both(), strict=True):
        assert (got - want).norm() < 0.1 * want.norm()


def test_clamp_limits_activations():
    torch.manual_seed(0)
    for cls, inputs in ((Generator, (2, 512)), (Discriminator, (2, 3, 8, 8))):
        x = 1e4 * torch.randn(inputs).double()
        free = tiny(cls)
        held = tiny(cls, clamp=0.5)
        held.load_state_dict(free.state_dict())
        seen = []
        for name, module in held.named_modules():
            if isinstance(module, stylegan2.Conv | stylegan2.SynthesisLayer | stylegan2.ToRGB):
                limit = 0.5 * math.sqrt(0.5) if name in ("b8.conv1", "b8.skip") else 0.5
                module.register_forward_hook(
                    lambda m, a, out, seen=seen, limit=limit: seen.append(out.abs().max() / limit)
                )
        assert (held(x) - free(x)).abs().max() > 0.01
        assert len(seen) == 5 and max(seen).item() == pytest.approx(1)


def test_another_filter_is_refused():
    g = tiny(Generator, z_dim=4, w_dim=4)
    state = g.state_dict()
    state["synthesis.b8.conv0.resample_filter"] = torch.full((4, 4), 1 / 16)
    with pytest.raises(ValueError, match="b8.conv0.resample_filter: expected the outer product"):
        g.load_state_dict(state)


def test_wrong_shapes_are_refused(g, d):
    with pytest.raises(ValueError, match="power of two >= 8, got 48"):
        Generator(48)
    with pytest.raises(ValueError, match="expected >= 64 and >= 1, got 32 and 512"):
        Discriminator(64, channel_base=32)
    with pytest.raises(ValueError, match=r"z: expected \(N, 32\), got \(4, 31\)"):
        g(Z[:, 1:])
    with pytest.raises(ValueError, match=r"x: expected \(N, 3, 32, 32\), got \(4, 3, 16, 32\)"):
        d(X[:, :, :16])


def test_inference_is_one_graph():
    """Without a break, as torch.compile traces it; no compiler runs here."""
    torch._dynamo.reset()
    g, z = tiny(Generator, z_dim=4, w_dim=4), torch.randn(2, 4)
    with torch.no_grad():
        traced = torch.compile(g, fullgraph=True, backend="eager")
        torch.testing.assert_close(traced(z, psi=0.5), g(z, psi=0.5))


@pytest.mark.slow
def test_compiled_inference(g):
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(g)
        torch.testing.assert_close(compiled(Z), g(Z), rtol=1e-4, atol=1e-4)

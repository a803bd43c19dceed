"""What is documented as float32 is float32 where convolutions and products default to TF32."""

import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gen
from gen.devices import full_precision
from gen.methods.stargan import StarGAN
from gen.methods.style_function import StyleFunction
from gen.methods.stylegan2 import StyleGAN2
from gen.metrics.path_length import perceptual_path_length
from gen.metrics.translation import ssim
from gen.metrics.video import locate
from gen.networks.arcface import IRSE50
from gen.networks.i3d import I3D
from gen.networks.perceptual import LPIPS
from harness import bare
from runs import GENERATOR, STYLE_FUNCTION, WIDTHS, rows
from tf32 import TF32, allowed

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"
SMOOTH = "smooth_i2i_emoji64"
PLAIN = GENERATOR | dict(ada_target=0.0)


@pytest.fixture(autouse=True)
def high():
    """As on a GPU whose user follows Lightning's advice: TF32 for products as well."""
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


def images(n=2, size=32, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, size, size, generator=rng) * 2 - 1


def test_the_emulation_rounds_what_tensor_cores_round():
    x, w = images(), torch.randn(4, 3, 3, 3, requires_grad=True)
    exact = F.conv2d(x, w)
    with TF32() as mode:
        rough = F.conv2d(x, w)
        rough.sum().backward()
        product = torch.randn(8, 8) @ torch.randn(8, 8)
    assert mode.count == 3 and product.isfinite().all()
    assert 1e-5 < (rough - exact).abs().max() < 1e-2
    with TF32() as mode, full_precision("cpu"):
        assert torch.equal(F.conv2d(x, w), exact)
    assert mode.count == 0


def test_settings_come_back_whoever_leaves_first():
    before = [allowed(True), allowed(False), torch.get_float32_matmul_precision()]
    assert before == [True, True, "high"]
    inside, leave = threading.Event(), threading.Event()

    def other():
        with full_precision("cpu"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_precision("cpu"):
        thread.start()
        assert inside.wait(10)
        with full_precision("cpu"):
            pass
        assert not allowed(True) and not allowed(False)
    assert not allowed(True) and not allowed(False)  # the other one is still within
    leave.set()
    thread.join(10)
    with pytest.raises(KeyError), full_precision("cpu"):
        raise KeyError
    assert before == [allowed(True), allowed(False), torch.get_float32_matmul_precision()]


def test_settings_by_the_newer_names_come_back():
    conv = getattr(torch.backends.cudnn, "conv", None)
    if not hasattr(conv, "fp32_precision"):
        pytest.skip("this torch has the older names alone")
    conv.fp32_precision, torch.backends.fp32_precision = "ieee", "tf32"  # of RNNs it stays tf32
    try:
        with full_precision("cpu"):
            assert not allowed(True) and not allowed(False)
        assert conv.fp32_precision == "ieee" and torch.backends.fp32_precision == "tf32"
        conv.fp32_precision = "tf32"
        with full_precision("cpu"):
            assert not allowed(False)
        assert allowed(False) and torch.backends.cudnn.allow_tf32
    finally:
        conv.fp32_precision, torch.backends.fp32_precision = "tf32", "none"


def shipped(name: str):
    return gen.load(SHIPPED / f"{name}.safetensors")


INFERENCE = {
    "translator": lambda: shipped(SMOOTH).translate(images(1, 64), 1, z=torch.ones(1, 16)),
    "reference": lambda: shipped(SMOOTH).encode_style(images(1, 64), 1),
    "generator": lambda: shipped("stylegan2_heads64").generate(torch.ones(1, 128)),
    "classifier": lambda: shipped("domain_classifier_emoji64").classify(images(1, 64)),
    "attention": lambda: shipped("spatial_entropy_emoji64").attention(images(1, 64)),
    "lpips": lambda: LPIPS("alex")(images(), images(seed=1)),
    "arcface": lambda: seeded(IRSE50)(images(1, 112)),
    "i3d": lambda: seeded(I3D)(images(11)[None]),
    "ssim": lambda: ssim(images(), 0.9 * images()),
    "locate": lambda: torch.stack(found()),
} | rows("INFERENCE")


def seeded(network) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network().eval()


def found() -> list[torch.Tensor]:
    """Where a bright object on a bright ground, with little contrast, has gone."""
    first = 0.99 + 1e-4 * images(8)
    mask = torch.zeros(32, 32)
    mask[8:14, 8:14] = 1
    return [locate(x, mask, x.roll((2, 3), (1, 2))) for x in first]


@pytest.mark.parametrize("name", INFERENCE)
def test_inference_and_measures_are_not_rounded(name, lpips_cache):
    exact = INFERENCE[name]()
    with TF32():
        assert torch.equal(INFERENCE[name](), exact)


def test_path_length_takes_steps_that_tf32_cannot_see(lpips_cache):
    model = shipped("stylegan2_heads64")
    net = model.ema.module["generator"]  # as a function of one's own, which is not in fp32

    def measure():
        generate = lambda z: net(z).clamp(-1, 1)  # noqa: E731
        return perceptual_path_length(generate, model.latent_dim, 2, seed=1, batch_size=2)

    exact = measure()
    with TF32():
        assert measure() == exact


def gradients(cls, options: dict, batch: dict, update: int, change=lambda method: None) -> list:
    """What a step's `update`-th backward leaves, where the adversarial losses are 0."""
    kept, module = [], sys.modules[cls.__module__]

    class Recording(bare(cls)):
        def manual_backward(self, loss):
            super().manual_backward(loss)
            kept.append([p.grad.clone() for p in self.parameters() if p.grad is not None])

    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "bce", lambda logits, *_, **__: 0 * logits.float().sum())
        method = Recording(**options)
        change(method)
        method.training_step(batch)
    return kept[update]


def of_fixed_images(method: StyleFunction) -> None:
    """Takes generator and judge, whose rounding is not R1's, out of it."""
    method.generator.synthesis.forward = lambda ws, *_: images() + 0 * ws.float().sum()

    class Judge:
        def logits(self, x):
            return x.mean((2, 3)).repeat(1, 2)  # six attributes

    method._judges = (Judge(), None)


GENERATED = {"x": images(4), "y": torch.zeros(4, dtype=torch.int64)}
TRANSLATED = {name: images(seed=i) for i, name in enumerate(("x", "x_ref", "x_ref2"))}
TRANSLATED |= {"y": torch.tensor([0, 1]), "y_ref": torch.tensor([1, 0])}
EDITED = STYLE_FUNCTION | dict(lambda_lpips=0.0, lambda_lpips_cyc=0.0, lambda_cls=0.0)
TWICE = {
    "R1 of StarGAN": lambda: gradients(StarGAN, WIDTHS, TRANSLATED, 0),
    "R1 of StyleFunction": lambda: gradients(
        StyleFunction, EDITED, {"z": torch.ones(2, 8)}, 0, of_fixed_images
    ),
    "path length": lambda: gradients(StyleGAN2, PLAIN, GENERATED, 1),
    "R1 of StyleGAN2": lambda: gradients(StyleGAN2, PLAIN, GENERATED, 3),
}


@pytest.mark.parametrize("name", TWICE)
def test_what_differentiates_twice_is_in_float32_also_backward(name):
    exact = TWICE[name]()
    assert sum(g.abs().sum() for g in exact) > 0
    with TF32():
        rounded = TWICE[name]()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = TWICE[name]()
    for a, b, c in zip(exact, rounded, mixed, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)

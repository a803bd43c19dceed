"""Files of ISF-GAN under its own names become checkpoints that edit the same way."""

import runpy
import sys

import pytest
import torch

import gen
from conftest import ROOT
from gen.convert.isf import import_isf
from gen.files import WeightsError
from gen.methods.stylegan2 import StyleGAN2
from gen.networks.style_function import AttributeDiscriminator, StyleFunction
from runs import GENERATOR, ship

K, ROWS, WIDTH, NOISE = 2, 8, GENERATOR["w_dim"], 4


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> str:
    return str(ship(StyleGAN2(**GENERATOR), tmp_path_factory.mktemp("g") / "g.safetensors"))


def published(path, prefix="", size=32, rows=ROWS, **form):
    """A file as the release saves it, and the networks in it."""
    torch.manual_seed(0)
    function = StyleFunction(rows, K, WIDTH, NOISE, **form)
    judge = AttributeDiscriminator(size, K, 4, 8)
    heads = {"cls.": "out_cls.", "src.": "out_src."}
    names = {k: heads.get(k[:4], k[:4]) + k[4:] for k in judge.state_dict()}
    parts = dict(
        mapnet={f"{prefix}w_net.{k}": v for k, v in function.state_dict().items()},
        discriminator={f"{prefix}{names[k]}": v for k, v in judge.state_dict().items()},
    )
    torch.save(parts, path)
    return function, judge


def same(method, function, judge=None) -> None:
    w, z, d = torch.randn(3, ROWS, WIDTH), torch.randn(3, NOISE), torch.eye(3)[:, :K]
    with torch.no_grad():
        torch.testing.assert_close(method.edit(w, d, z), function(w, z, d))
    if judge is not None:
        for key, value in judge.state_dict().items():
            assert torch.equal(method.discriminator.state_dict()[key], value)


@pytest.mark.parametrize(
    "prefix, form",
    [
        ("", dict(pre_norm=True)),
        ("module.", dict(pre_norm=False)),
        ("", dict(norm="adain")),
        ("", dict(norm="none", pre_norm=False)),
    ],
)
def test_the_published_names_are_read(tmp_path, generator, prefix, form):
    function, judge = published(tmp_path / "isf.ckpt", prefix, **form)
    out = tmp_path / "isf.safetensors"
    card = import_isf(tmp_path / "isf.ckpt", out, ["smiling", "young"], generator)
    method = gen.load(out)
    assert method.attribute_names == ["smiling", "young"] and method.noise_dim == NOISE
    same(method, function, judge)
    source = gen.load(generator)
    z = torch.randn(1, GENERATOR["z_dim"])
    expected = source.synthesize(source.map_latents(z))
    assert torch.equal(method.synthesize(method.map_latents(z, psi=1.0)), expected)
    assert "isf.ckpt, sha256 " in card.read_text() and "in the file too" in card.read_text()


def test_a_discriminator_of_another_size_is_left_out_and_the_card_says_so(tmp_path, generator):
    function, _ = published(tmp_path / "isf.ckpt", size=64)
    card = import_isf(tmp_path / "isf.ckpt", tmp_path / "x.safetensors", (), generator)
    method = gen.load(tmp_path / "x.safetensors")
    same(method, function)
    assert method.attribute_names == ["attribute_0", "attribute_1"]
    assert "a fresh one: the file's is of 64 px" in card.read_text()


def test_what_does_not_fit_is_named(tmp_path, generator):
    path, out = tmp_path / "isf.ckpt", tmp_path / "x.safetensors"
    published(path, rows=6)
    with pytest.raises(WeightsError, match="expected a StyleGAN2 .* 6 rows, got 8 at 32 px"):
        import_isf(path, out, (), generator)
    published(path)
    with pytest.raises(ValueError, match=r"expected 2 names without commas, got \['a'\]"):
        import_isf(path, out, ["a"], generator)
    file = torch.load(path, weights_only=True)
    file["mapnet"]["w_net.fc.7.bias"] = torch.zeros(3)
    torch.save(file, path)
    with pytest.raises(WeightsError, match=r"fc.7.bias: expected float32 \(8,\), got float32 \(3,"):
        import_isf(path, out, (), generator)
    for part, key, most in (
        ("mapnet", "w_net.z_net.unshared.{}.0.weight", "100 rows, 2 attributes"),
        ("discriminator", "main.{}.conv1.weight", "6 inputs, 100 blocks"),
    ):
        published(path)
        file = torch.load(path, weights_only=True)
        file[part] |= {key.format(k): torch.zeros(1) for k in range(100)}
        torch.save(file, path)
        with pytest.raises(WeightsError, match=f"of usual sizes, got one of .*{most}"):
            import_isf(path, out, (), generator)
    published(path)
    file = torch.load(path, weights_only=True)
    file["mapnet"]["w_net.fc.7.bias"][0] = torch.nan
    torch.save(file, path)
    with pytest.raises(WeightsError, match="isf.ckpt: expected finite numbers, .* fc.7.bias"):
        import_isf(path, out, (), generator)
    torch.save({"mapnet": {}}, path)
    with pytest.raises(WeightsError, match=r"with `mapnet` and `discriminator`, got \['mapnet'\]"):
        import_isf(path, out, (), generator)
    assert not out.exists()


def test_the_command_reads_them(tmp_path, generator, monkeypatch, capsys):
    published(tmp_path / "isf.ckpt")
    script, out = str(ROOT / "scripts/import_weights.py"), tmp_path / "x.safetensors"
    command = [script, "isf", str(tmp_path / "isf.ckpt"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--generator", generator])
    runpy.run_path(script, run_name="__main__")
    assert out.is_file() and "x.safetensors" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "--generator: expected a checkpoint of StyleGAN2" in capsys.readouterr().err

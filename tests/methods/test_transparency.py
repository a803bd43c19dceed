"""A StyleGAN2 that makes images with transparency: from files to files."""

import numpy as np
import pytest
import torch
from PIL import Image

import gen
import runs
from gen import viz
from gen.checkpoint import export
from gen.evaluation.generators import evaluate_generator
from gen.inference import generation
from gen.methods.stylegan2 import StyleGAN2
from gen.verbs import evaluate, generate
from pictures import encode, sprite
from runs import GENERATOR, fit

NAME = "StyleGAN2"


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    """A folder of 8 + 4 discs on nothing."""
    root = tmp_path_factory.mktemp("sprites")
    for i in range(12):
        path = root / ("train" if i < 8 else "val") / "disc" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(sprite(colour=(20 * i, 200, 255 - 20 * i))))
    return root


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def trained(sprites, patch, tmp_path_factory):
    """The checkpoint of a run of 2 iterations on the sprites, which it can be started again on."""
    options = dict(root=sprites, img_size=32, batch_size=4, num_workers=0)
    patch.setitem(runs.DATA, NAME, ("Domains", options))
    out = tmp_path_factory.mktemp("alpha")
    return fit(NAME, out, "--data.alpha=true", alpha="true", augment="bgcfnc", ada_kimg=0.01)


def test_it_trains_and_makes_images_of_four_channels(trained):
    method = gen.load(trained)
    x = method.generate(generation.latents(method, range(3)))
    assert method.alpha and x.shape == (3, 4, 32, 32)
    assert method.discriminator.b32.fromrgb.weight.shape[1] == 4 and method.ada_p > 0
    with pytest.raises(ValueError, match=r"x: expected \(N, 4, 32, 32\), got \(3, 3, 32, 32\)"):
        method.discriminator(x[:, :3])
    with pytest.raises(ValueError, match="expected grey or alpha, got both"):
        StyleGAN2(**GENERATOR, grey=True, alpha=True)


def test_generate_writes_a_sheet_on_white_or_a_transparent_file_a_seed(trained, tmp_path, capsys):
    words = ["--checkpoint", str(trained), "--seeds", "3", "5-6", "--out"]
    generate.main([*words, str(tmp_path / "sheet.png")])
    assert Image.open(tmp_path / "sheet.png").mode == "RGB"
    generate.main([*words, str(tmp_path / "images")])
    assert "images/ 3 images" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == ["3.png", "5.png", "6.png"]
    method, image = gen.load(trained), Image.open(tmp_path / "images/6.png")
    (x,) = method.generate(generation.latents(method, [6]))
    assert image.mode == "RGBA" and image.size == (32, 32)
    assert np.array_equal(np.asarray(image)[..., 3], viz.to_uint8(x[3:].expand(3, -1, -1))[..., 0])
    with pytest.raises(SystemExit, match="--out: expected a picture with --mix or several --psi"):
        generate.main([*words, str(tmp_path / "images"), "--psi", "0", "1"])


def test_files_of_opaque_images_are_a_start_and_the_way_back(trained, tmp_path, caplog):
    opaque = fit(NAME, tmp_path / "opaque", steps=1)
    more = ["--data.alpha=true"]
    with caplog.at_level("INFO"):
        clear = fit(NAME, tmp_path / "a", *more, steps=1, alpha="true", init_from=opaque, lr=1e-9)
    assert "all that fits; new, full at first: opacity" in caplog.text
    z = torch.randn(2, GENERATOR["z_dim"])
    x, y = (gen.load(path).generate(z) for path in (opaque, clear))
    torch.testing.assert_close(y, torch.cat([x, torch.ones(2, 1, 32, 32)], 1), atol=1e-3, rtol=0)
    caplog.clear()
    with caplog.at_level("INFO"):
        back = fit(NAME, tmp_path / "b", steps=1, init_from=clear, lr=1e-9)
    assert "all that fits; left out: opacity" in caplog.text
    torch.testing.assert_close(gen.load(back).generate(z), x, atol=1e-3, rtol=0)


def test_one_side_without_the_other_is_refused(trained, tmp_path):
    want = r"transparent images for StyleGAN2, as .* or Attributes with --data.alpha true give"
    with pytest.raises(ValueError, match=f"--data: expected {want}, got images with references, "):
        fit(NAME, tmp_path / "a", "--model.alpha=true", steps=1)
    want = r"images for StyleGAN2, as .* give, got transparent images .*\(--data.alpha\), from"
    with pytest.raises(ValueError, match=f"--data: expected {want}"):
        fit(NAME, tmp_path / "b", "--data.alpha=true", steps=1)


def test_other_methods_refuse_transparent_data_and_editors_such_a_generator(sprites, trained):
    data = gen.data.Domains(str(sprites), img_size=32, alpha=True)
    method = gen.methods.StarGAN(**runs.WIDTHS)
    wanted = "--data: expected images.* for StarGAN, as .* got transparent images"
    for stage in ("fit", "validate"):
        with pytest.raises(ValueError, match=wanted):
            method.check_data(data, stage)
    data = gen.data.Classes(str(sprites), img_size=32, alpha=True)
    with pytest.raises(ValueError, match="--data: expected images for DomainClassifier"):
        gen.methods.DomainClassifier(**runs.CLASSIFIER).check_data(data, "validate")
    wanted = "classes or transparency, got a StyleGAN2 with transparency; give another .*init_from"
    for editor in (gen.methods.LinearDirections, gen.methods.StyleFunction):
        with pytest.raises(gen.files.WeightsError, match=wanted):
            editor(generator=str(trained), attributes="cat")
    with pytest.raises(gen.files.WeightsError, match=wanted):
        gen.methods.InversionEncoder(generator=str(trained))


def test_an_exported_file_makes_the_same_images(trained, tmp_path):
    export(trained, tmp_path / "a.safetensors")
    a, b = gen.load(trained), gen.load(tmp_path / "a.safetensors")
    z = torch.randn(2, GENERATOR["z_dim"])
    assert torch.equal(a.generate(z), b.generate(z))


# ---- evaluation: both sides on white ------------------------------------------------------------


class Same(torch.nn.Module):
    """A generator that knows images by heart, with their opacity."""

    task, alpha = "generator", True
    latent_dim, classes, img_size = 2, 0, 32

    def __init__(self, images):
        super().__init__()
        self.images, self.given = images, 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def generate(self, z, y):
        first, self.given = self.given, self.given + len(z)
        return torch.stack([self.images[i % 4]["x"] for i in range(first, self.given)])


def test_fidelity_sees_both_sides_on_white(sprites, monkeypatch):
    """Mean colours stand in for a backbone."""
    seen = []

    def means(x):
        seen.append(x)
        return x.mean((2, 3)).double()

    module = "gen.evaluation.generators"
    monkeypatch.setattr(f"{module}.load_backbone", lambda *_: None)
    monkeypatch.setattr(f"{module}.real_features", lambda _, data, *__: means(torch.stack([*data])))
    monkeypatch.setattr(f"{module}.fake_features", lambda _, some, *__: means(torch.cat([*some])))
    data = gen.data.Domains(str(sprites), img_size=32, alpha=True)
    rows = evaluate_generator(Same(data.val), data.train, data.val, ["fidelity"], count=4)
    train, fake, val = seen
    assert train.shape == (8, 3, 32, 32) and torch.equal(fake, val) and val[:, :, 0, 0].min() == 1
    plain = gen.data.Domains(str(sprites), img_size=32)
    want = torch.stack([plain.val[i]["x"] for i in range(4)])
    torch.testing.assert_close(val, want, atol=3 / 127.5, rtol=0)
    found = {row["metric"]: row["value"] for row in rows}
    assert found["fd_effnetlite0"] == found["real/fd_effnetlite0"]
    assert all(row["protocol"].endswith("32 px, transparency on white") for row in rows)


def test_paths_are_of_images_on_white(sprites, trained, monkeypatch, lpips_cache):
    method, seen = gen.load(trained), []

    def length(generate, width, *_):
        seen.append(generate(torch.randn(2, width)))
        return {"ppl": 1.0}

    monkeypatch.setattr("gen.evaluation.generators.perceptual_path_length", length)
    data = gen.data.Domains(str(sprites), img_size=32, alpha=True)
    rows = evaluate_generator(method, data.train, data.val, ["paths", "ppl"], paths=1)
    assert {row["metric"][:2] for row in rows} == {"w/", "z/", "pp"}
    assert all(row["protocol"].endswith("32 px, transparency on white") for row in rows)
    assert seen[0].shape == (2, 3, 32, 32) and seen[0].max() <= 1


def test_evaluate_reads_the_data_with_its_transparency(sprites, trained, monkeypatch):
    def recorded(method, train, val, **_):
        assert train.alpha == val.alpha == method.alpha
        return [dict(metric="x", value=val[0]["x"].shape[0])]

    monkeypatch.setattr("gen.evaluation.generators.evaluate_generator", recorded)
    words = ["--checkpoint", str(trained), "--data"]
    wanted = dict(metric="x", value=4, data=sprites.name)
    assert evaluate.measure([*words, str(sprites)]) == [wanted]
    drawn = [dict(metric="drawn", value=1)]
    monkeypatch.setattr("gen.evaluation.generators.evaluate_generator", lambda *_, **__: drawn)
    wanted = dict(metric="drawn", value=1, data="heads")
    assert evaluate.measure([*words, "heads"]) == [wanted]  # has no transparency to keep

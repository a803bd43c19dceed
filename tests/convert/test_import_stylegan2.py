"""`import_weights.py stylegan2`: from published files to checkpoints that generate and train on."""

import subprocess
import sys

import pytest
import torch

import gen
from conftest import ROOT
from gen.convert.stylegan2 import import_stylegan2
from gen.networks.stylegan2 import Discriminator, Generator
from runs import fit, read
from stylegan2_files import D, G, made, nvidia, rosinality, same, write


def latents():
    return torch.randn(3, G["z_dim"], generator=torch.Generator().manual_seed(0))


def test_the_command_writes_a_checkpoint_and_a_card(tmp_path):
    g, d = made()
    path = write(tmp_path / "ffhq.pkl", nvidia(g, d))
    command = [sys.executable, ROOT / "scripts/import_weights.py", "stylegan2", path]
    command += ["--out", tmp_path / "ours.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not commercial" in done.stdout
    model = gen.load(tmp_path / "ours.safetensors")
    net = Generator(**G)
    net.load_state_dict(g)
    expected = net(latents(), psi=0.7).detach()
    torch.testing.assert_close(model.generate(latents(), psi=0.7), expected, atol=1e-5, rtol=1e-5)
    judge = Discriminator(**D)
    judge.load_state_dict(d)
    x = torch.rand(4, 3, 16, 16)
    assert torch.equal(model.discriminator(x), judge(x))
    card = (tmp_path / "ours.md").read_text()
    assert "ffhq.pkl, sha256 " in card and "not commercial" in card and "in the file too" in card


@pytest.mark.parametrize(
    "layout, options",
    [
        (nvidia, dict(flat=True)),
        (rosinality, dict(new=True)),
        (rosinality, dict(new=False)),
    ],
)
def test_the_discriminator_comes_along_in_every_layout(tmp_path, layout, options):
    g, d = made()
    out = tmp_path / "x.safetensors"
    card = import_stylegan2(write(tmp_path / "x", layout(g, d, **options)), out)
    model = gen.load(out)
    same(model.discriminator.state_dict(), d)
    assert "in the file too" in card.read_text() and model.hparams.group == 4


def test_classes_have_names(tmp_path):
    g_options, d_options = G | dict(c_dim=3), D | dict(c_dim=3)
    path = write(tmp_path / "x.pkl", nvidia(*made(g_options, d_options), g_options, d_options))
    out = tmp_path / "x.safetensors"
    import_stylegan2(path, out, ["bear", "cat", "dog"])
    model = gen.load(out)
    assert model.domains == ["bear", "cat", "dog"] and model.generate(latents(), 1).shape[0] == 3
    import_stylegan2(path, out)
    assert gen.load(out).domains == ["class_0", "class_1", "class_2"]
    with pytest.raises(ValueError, match=r"domains: expected 3 names, got 2: \['a', 'b'\]"):
        import_stylegan2(path, out, ["a", "b"])


def test_a_file_without_a_discriminator_trains_with_a_fresh_one(tmp_path, caplog):
    g, d = made()
    data = rosinality(g, d, more=dict.fromkeys(["g", "d", "g_optim", "d_optim", "args"]))
    out = tmp_path / "x.safetensors"
    card = import_stylegan2(write(tmp_path / "x.pt", data), out)
    assert "fresh" in card.read_text()
    assert gen.load(out).generate(latents()).isfinite().all()
    assert gen.load(out).hparams.group == 4  # as published, where the file does not say
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    options = {k: G[k] for k in G if k != "c_dim"}
    run = fit(
        "StyleGAN2", tmp_path / "run", "--data.img_size=16", steps=1, init_from=out, **options
    )
    assert any("has no discriminator" in message for message in caplog.messages)
    state = read(run)["state_dict"]
    assert (state["generator.synthesis.b4.const"] - g["synthesis.b4.const"]).abs().max() < 0.01


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ends in .safetensors, got x.pt"):
        import_stylegan2(tmp_path / "x.pkl", tmp_path / "x.pt")

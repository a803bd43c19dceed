"""`gen export`: what it writes and says."""

import json
import subprocess
import sys
from zipfile import ZipFile

import onnx
import pytest
import torch

import gen
from gen.export import runtimes
from gen.files import sha256
from gen.methods import AttributeClassifier, StyleGAN2
from gen.verbs.export import main
from runs import CLASSIFIER, GENERATOR, ship


@pytest.fixture
def classifier(tmp_path):
    return ship(AttributeClassifier(**CLASSIFIER), tmp_path / "judge.safetensors")


def test_its_help_imports_neither_torch_nor_lightning():
    code = "import sys; from gen.verbs.export import make_parser; make_parser().format_help(); "
    code += "print([m for m in ('torch', 'lightning', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_onnx(classifier, tmp_path, capsys):
    main([str(classifier), "--to", "onnx", "--out", str(out := tmp_path / "made")])
    assert "classify.onnx" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["classify.onnx", "graphs.json"]
    model = onnx.load(out / "classify.onnx")
    onnx.checker.check_model(model)
    (x,) = model.graph.input
    assert x.type.tensor_type.shape.dim[0].dim_param  # any batch
    assert [d.dim_value for d in x.type.tensor_type.shape.dim][1:] == [3, 32, 32]
    about = json.loads((out / "graphs.json").read_text())
    assert about["method"] == "AttributeClassifier" and about["sha256"] == sha256(classifier)
    (graph,) = about["graphs"]
    assert graph["inputs"] == {"x": ["float32", "N 3 32 32"]}
    assert graph["outputs"]["logits"] == ["float32", "N 6"]
    assert graph["difference"] <= 1e-4
    assert str(tmp_path).encode() not in (out / "classify.onnx").read_bytes()
    assert b".py" not in (out / "classify.onnx").read_bytes()  # no traces of the code


def test_torch_in_a_folder_of_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    method = StyleGAN2(**GENERATOR)
    ship(method, tmp_path / "faces.safetensors")
    main(["faces.safetensors", "--to", "torch"])
    made = torch.export.load(tmp_path / "faces_torch" / "mapping.pt2").module()
    loaded = gen.load("faces.safetensors")
    z, psi = torch.randn(5, 8), torch.ones(loaded.ema.module["generator"].mapping.rows)
    torch.testing.assert_close(made(z, psi), loaded.map_latents(z), rtol=1e-5, atol=1e-5)
    with ZipFile(tmp_path / "faces_torch" / "mapping.pt2") as file:
        [graph] = [name for name in file.namelist() if name.endswith("models/model.json")]
        assert b".py" not in file.read(graph)  # no traces of the code


def test_a_shipped_checkpoint_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["domain_classifier_emoji64", "--to", "torch"])
    made = torch.export.load(tmp_path / "domain_classifier_emoji64_torch/classify.pt2").module()
    x = torch.rand(1, 3, 64, 64)
    want = gen.load("domain_classifier_emoji64").classify(x)
    torch.testing.assert_close(made(x)[0], want, rtol=1e-4, atol=1e-4)


def test_weights_as_before(tmp_path, capsys):
    """The options of scripts/export.py, which was there first."""
    method = StyleGAN2(**GENERATOR)
    state = {k: v for k, v in method.state_dict().items()}
    checkpoint = dict(method="StyleGAN2", hyper_parameters=dict(method.hparams), global_step=3)
    torch.save(checkpoint | dict(state_dict=state, domains=[]), tmp_path / "last.ckpt")
    out = tmp_path / "shared.safetensors"
    main(["--checkpoint", str(tmp_path / "last.ckpt"), "--out", str(out), "--half"])
    assert sha256(out) in capsys.readouterr().out
    assert gen.load(out).hparams.z_dim == 8


@pytest.mark.parametrize("off, told", [(1e-3, "1.0e-03"), (float("nan"), "nan")])
def test_a_graph_that_differs_is_refused(classifier, tmp_path, monkeypatch, off, told):
    """Where the runtime of a file gives other values than eager torch."""
    exact = runtimes.runner

    def runner(graph, path):
        run = exact(graph, path)
        return lambda inputs: {name: value + off for name, value in run(inputs).items()}

    monkeypatch.setattr(runtimes, "runner", runner)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "classify.pt2").write_text("of an earlier export")
    with pytest.raises(SystemExit, match=f"expected values within .* got {told}; nothing"):
        main([str(classifier), "--to", "torch", "--out", str(tmp_path / "made")])
    assert [p.read_text() for p in (tmp_path / "made").iterdir()] == ["of an earlier export"]


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "expected one checkpoint"),
        (["a.ckpt", "--checkpoint", "b.ckpt"], "expected one checkpoint"),
        (["a.ckpt"], "--out: expected a .safetensors file"),
        (["a.ckpt", "--to", "torch", "--int8"], "expected --half with --to safetensors"),
        (["a.ckpt", "--to", "onnx", "--half"], "expected --half with --to safetensors"),
    ],
)
def test_words_that_do_not_fit(words, told, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert told in capsys.readouterr().err

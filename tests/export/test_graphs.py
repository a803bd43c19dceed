"""Graphs of methods: what they give is what the methods give, in every runtime."""

import pytest
import torch

import gen.methods
import gen.tasks
from gen.export import runtimes
from runs import EDITED, OPTIONS

KINDS = {  # method -> its graphs
    "SmoothI2I": ["encode", "map_style", "encode_style", "decode"],
    "StarGAN": ["encode", "map_style", "encode_style", "decode"],
    "StyleGAN2": ["mapping", "synthesis", "synthesis_noise"],
    "StyleFunction": ["mapping", "synthesis", "edit"],
    "LinearDirections": ["mapping", "synthesis", "edit"],
    "StepwiseEditor": ["mapping", "synthesis", "edit"],
    "InversionEncoder": ["mapping", "synthesis", "encode"],
    "SpatialEntropy": ["classify"],
    "DomainClassifier": ["classify"],
    "AttributeClassifier": ["classify"],
}
FAST = {"SmoothI2I": "decode", "StyleGAN2": "mapping", "StyleFunction": "edit",
        "InversionEncoder": "encode", "SpatialEntropy": "classify"}  # fmt: skip
EACH = [
    pytest.param(name, kind, marks=[] if FAST.get(name) == kind else pytest.mark.slow)
    for name, kinds in KINDS.items()
    for kind in kinds
]


@pytest.fixture(scope="module")
def make(edited):
    """A tiny method with random weights, and its graphs; its generator is used to noise."""
    made = {}

    def build(name):
        if name not in made:
            torch.manual_seed(0)
            options = OPTIONS[name] | (edited if EDITED.items() <= OPTIONS[name].items() else {})
            method = getattr(gen.methods, name)(**options)
            for key, value in method.named_parameters():
                if key.endswith("noise_strength") and name == "StyleGAN2":
                    torch.nn.init.constant_(value, 0.1)
            method.eval().requires_grad_(False)
            made[name] = method, {graph.name: graph for graph in runtimes.cut(method)}
        return made[name]

    return build


def same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)


def test_every_task_is_exported():
    known = {getattr(gen.methods, name).task for name in KINDS} | {"animator"}  # in its own file
    assert known >= set(gen.tasks.TASKS)


@pytest.mark.parametrize("name", KINDS)
def test_a_method_has_these_graphs(make, name):
    method, graphs = make(name)
    assert [*graphs] == KINDS[name]
    for graph in graphs.values():
        inputs = graph.random(N=3)
        assert [*inputs][: len(graph.inputs)] == [*graph.inputs]
        for shapes, values in ((graph.inputs, inputs), (graph.outputs, graph.run(inputs))):
            for key, shape in shapes.items():
                want = [3 if word == "N" else int(word) for word in shape.split()]
                assert list(values[key].shape) == want, (graph.name, key)


@pytest.mark.parametrize("options", [{}, {"skip_px": 32, "antialias": True}])
def test_a_translator(options):
    torch.manual_seed(0)
    options |= {"img_size": 64}
    method = gen.methods.StarGAN(**OPTIONS["StarGAN"] | options).eval()
    graphs = {graph.name: graph for graph in runtimes.cut(method)}
    x = graphs["encode"].random(N=3)["x"]
    z, y = torch.randn(3, method.latent_dim), torch.tensor([0, 1, 1])
    style = graphs["map_style"].run({"z": z, "y": y})["style"]
    same(style, method.map_style(z, y))
    content = graphs["encode"].run({"x": x})
    same(graphs["decode"].run(content | {"style": style})["image"], method.translate(x, y, z=z))
    same(graphs["encode_style"].run({"x": x, "y": y})["style"], method.encode_style(x, y))


def test_a_generator(make):
    method, graphs = make("StyleGAN2")
    z, rows = torch.randn(3, method.latent_dim), method.ema.module["generator"].mapping.rows
    psi = torch.ones(rows)
    psi[:2] = 0.6
    ws = graphs["mapping"].run({"z": z, "psi": psi})["ws"]
    same(ws, method.map_latents(z, psi=0.6, cutoff=2))
    same(graphs["synthesis"].run({"ws": ws})["image"], method.synthesize(ws))
    net = method.ema.module["generator"].synthesis
    maps = net.noise_maps(3, torch.Generator().manual_seed(0))
    noise = {f"noise{i}": m for i, m in enumerate(maps)}
    same(graphs["synthesis_noise"].run({"ws": ws} | noise)["image"], net(ws, maps))


def test_a_generator_with_transparency(tmp_path):
    method = gen.methods.StyleGAN2(**OPTIONS["StyleGAN2"] | {"alpha": True})
    synthesis = runtimes.cut(method)[1]
    assert synthesis.outputs == {"image": "N 4 32 32"}
    given = synthesis.random(N=2)
    same(synthesis.run(given)["image"], method.synthesize(given["ws"]))
    runtimes.save(synthesis, tmp_path / "synthesis.pt2", "torch")
    run = runtimes.runner(synthesis, tmp_path / "synthesis.pt2")
    assert runtimes.difference(synthesis, run) < 1e-4


def test_a_generator_of_classes(make):
    method = gen.methods.StyleGAN2(**OPTIONS["StyleGAN2"] | {"conditional": True, "num_domains": 3})
    mapping = runtimes.cut(method)[0]
    z, y = torch.randn(3, method.latent_dim), torch.tensor([2, 0, 1])
    psi = torch.full((method.ema.module["generator"].mapping.rows,), 0.5)
    want = method.map_latents(z, y, psi=0.5)
    same(mapping.run({"z": z, "psi": psi, "y": y})["ws"], want)


@pytest.mark.parametrize("name", ["StyleFunction", "LinearDirections", "StepwiseEditor"])
def test_an_editor(make, name):
    method, graphs = make(name)
    given = graphs["edit"].random(N=3)
    z = given.get("z", torch.zeros(3, 0))
    same(graphs["edit"].run(given)["edited"], method.edit(given["ws"], given["d"], z))


def test_an_encoder(make):
    method, graphs = make("InversionEncoder")
    for row in method.ema.module["encoder"].rows:
        row.weight.normal_()
    x = graphs["encode"].random(N=3)["x"]
    encode = next(g for g in runtimes.cut(method) if g.name == "encode")  # of these weights
    same(encode.run({"x": x})["ws"], method.encode(x))


@pytest.mark.parametrize("name", ["SpatialEntropy", "DomainClassifier", "AttributeClassifier"])
def test_a_classifier(make, name):
    method, graphs = make(name)
    x = graphs["classify"].random(N=3)["x"]
    made = graphs["classify"].run({"x": x})
    same(made["logits"], method.classify(x))
    if name == "SpatialEntropy":
        same(made["attention"], method.attention(x))
    if name == "AttributeClassifier":
        same(made["factors"], method.regress(x))


@pytest.mark.parametrize("name, kind", EACH)
def test_onnx_gives_the_same(make, tmp_path, name, kind):
    graph = make(name)[1][kind]
    runtimes.save(graph, path := tmp_path / "graph.onnx", "onnx")
    run = runtimes.runner(graph, path, threads=1)
    assert runtimes.difference(graph, run) <= 1e-4


@pytest.mark.parametrize("name, kind", EACH)
def test_torch_export_gives_the_same(make, tmp_path, name, kind):
    graph = make(name)[1][kind]
    runtimes.save(graph, path := tmp_path / "graph.pt2", "torch")
    assert runtimes.difference(graph, runtimes.runner(graph, path)) <= 1e-4

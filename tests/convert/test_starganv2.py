"""Published weights: files of exactly their keys, shapes and dtypes become checkpoints of ours."""

import copy
import json
import math
import os
import runpy
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F

import gen
from conftest import ROOT
from gen.checkpoint import export
from gen.convert.starganv2 import LICENCE, import_starganv2
from gen.files import WeightsError, sha256
from gen.methods.stargan import StarGAN
from gen.networks.face_masks import FAN
from gen.networks.stargan import Generator, HighPass, MappingNetwork, StyleEncoder
from gen.weights import load_safetensors, save_safetensors
from literal_step import LiteralStep
from runs import WIDTHS, fit, read
from steps import PHASES, latents, make, make_batch, sgd

CELEBA = dict(w_hpf=1, K=2)
AFHQ = dict(w_hpf=0, K=3)


def networks(w_hpf, K, size=256):
    with torch.device("meta"):
        return dict(
            generator=Generator(size, w_hpf=w_hpf),
            mapping_network=MappingNetwork(num_domains=K),
            style_encoder=StyleEncoder(size, num_domains=K),
            fan=FAN(),
        )


def empty(w_hpf, K, size=256):
    """The parts of a published file, all zeros, each tensor one number in memory and on disk."""
    return {
        part: {
            key: torch.zeros((), dtype=v.dtype).expand(v.shape)
            for key, v in network.state_dict().items()
        }
        for part, network in networks(w_hpf, K, size).items()
    }


def filled(w_hpf, K):
    """The same with numbers of a fresh network's size, so that images come out as images."""
    pool = torch.randn(2**23, generator=torch.Generator().manual_seed(0))
    parts = empty(w_hpf, K)
    for state in parts.values():
        for at, (key, value) in enumerate(state.items()):
            numbers = pool[997 * at :][: value.numel()].reshape(value.shape)
            if value.ndim > 1:
                state[key] = numbers * math.sqrt(2 / math.prod(value.shape[1:]))
            elif value.dtype == torch.int64:
                state[key] = torch.tensor(7)
            else:
                one = 0.0 if key.endswith(("bias", "mean")) else 1.0
                state[key] = one + 0.1 * numbers.clamp(-3, 3)
    if w_hpf:
        parts["generator"]["hpf.filter"] = HighPass(w_hpf).filter
    seen = torch.isin(torch.arange(99), torch.tensor([16, 54]))  # of a chin and of a nose
    parts["fan"]["l0.bias"] = torch.where(seen, 0.0, -1e4)
    return parts


def test_the_files_made_here_are_as_published(specs):
    """Keys, their order, shapes and dtypes, both data sets."""
    published = {}
    for line in (specs / "starganv2_state_dict.txt").read_text().splitlines():
        if line.startswith("## "):
            tensors = published[line[3:].split(" (")[0]] = []
        elif line and line[0] != "#":
            key, shape, dtype = line.split("\t")
            tensors.append((key, json.loads(shape), dtype))
    for options in (CELEBA, AFHQ):
        titles = {
            "generator": f"generator w_hpf={options['w_hpf']}",
            "mapping_network": f"mapping_network num_domains={options['K']}",
            "style_encoder": f"style_encoder num_domains={options['K']}",
            "fan": "fan",
        }
        for part, state in empty(**options).items():
            made = [(k, list(v.shape), str(v.dtype)[6:]) for k, v in state.items()]
            assert made == published[titles[part]], part


# ---- whole files --------------------------------------------------------------------------------


def imported(folder, parts, *domains, **options):
    """Saves a published file and imports it; the path of the .safetensors."""
    file = folder / "100000_nets_ema.ckpt"
    torch.save(parts, file, **options)
    import_starganv2(file, file.with_suffix(".safetensors"), domains)
    return file.with_suffix(".safetensors")


def direct(parts, options, x, z, y):
    """One image through the networks themselves, without method and importer; and its masks."""
    nets = {name: net.to_empty(device="cpu") for name, net in networks(**options).items()}
    for name in nets if options["w_hpf"] else list(nets)[:3]:
        nets[name].load_state_dict(parts[name])
    with torch.no_grad():
        masks = nets["fan"].masks(x) if options["w_hpf"] else None
        return nets["generator"](x, nets["mapping_network"](z, y), masks), masks


X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
Z = torch.randn(1, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """The parts of a file, and the path of what was imported from it."""
    parts = filled(**CELEBA)
    return parts, imported(tmp_path_factory.mktemp("celeba"), parts)


def test_celeba_hq(celeba, caplog):
    parts, path = celeba
    method = gen.load(path)
    assert type(method) is StarGAN and method.domains == ["female", "male"]
    wanted = dict(img_size=256, num_domains=2, style_dim=64, latent_dim=16, w_hpf=1.0)
    assert {k: method.hparams[k] for k in wanted} == wanted
    assert "has no discriminator" not in caplog.text  # which inference does not need
    method.img_size = 64  # G has no layer that fixes the size of its input: a small image will do
    made = method.translate(X, torch.tensor([1]), z=Z)
    image, masks = direct(parts, CELEBA, X, Z, torch.tensor([1]))
    assert torch.equal(made, image) and made.isfinite().all()
    assert 0 < masks[1].mean() < masks[0].mean() < 1
    content, s = method.encode(X), method.map_style(Z, 1)
    assert [c.shape[2] for c in content] == [2, 64, 32]
    without = method.decode(content[:1], s)
    assert (without - made).abs().mean() > 1e-2  # the masks do something
    many = method.decode(content, torch.cat([s, s + 1]))  # and travel with the content
    torch.testing.assert_close(many[:1], made, atol=1e-4, rtol=1e-4)


def test_the_file_says_where_it_is_from_and_its_card_how_to_use_it(celeba):
    _, path = celeba
    source = path.with_suffix(".ckpt")
    _, meta = load_safetensors(path)
    assert meta["licence"] == LICENCE and "CC BY-NC 4.0" in LICENCE
    assert meta["source"] == f"{source.name}, sha256 {sha256(source)}"
    assert meta["iteration"] == "100000"
    card = path.with_suffix(".md").read_text()
    for needed in (LICENCE, sha256(source), "female, male", "w_hpf 1.0", "13.73", "CelebA-HQ"):
        assert needed in card, needed
    (code,) = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    compile(code, "card", "exec")
    assert code.splitlines()[1] == f'model = gen.load("{path.name}")' and "AFHQ" not in card


@pytest.mark.usefixtures("small_files")
def test_afhq_with_a_stray_face_network(tmp_path):
    parts = filled(**AFHQ)
    path = imported(tmp_path, parts, _use_new_zipfile_serialization=False)  # as older torch wrote
    state, _ = load_safetensors(path)
    assert not [key for key in state if key.startswith("fan.")]
    method = gen.load(path)
    assert method.domains == ["cat", "dog", "wild"] and method.hparams.w_hpf == 0
    method.img_size = 64
    image, _ = direct(parts, AFHQ, X, Z, torch.tensor([2]))
    assert torch.equal(method.translate(X, torch.tensor([2]), z=Z), image)
    assert "AFHQ" in path.with_suffix(".md").read_text()


def test_the_kernel_may_be_missing_and_keys_may_begin_with_module(celeba):
    _, path = celeba
    parts = filled(**CELEBA)
    del parts["generator"]["hpf.filter"]
    parts = {
        part: OrderedDict((f"module.{key}", value) for key, value in state.items())
        for part, state in parts.items()
    }
    folder = path.parent / "other"
    folder.mkdir()
    again, _ = load_safetensors(imported(folder, parts))
    for key, value in load_safetensors(path)[0].items():
        assert torch.equal(again.pop(key), value), key
    assert again == {}


# ---- files that are wrong: nothing is written ---------------------------------------------------


def small(options=CELEBA, **parts):
    """A published file in a few kB, with some of its parts replaced."""
    made = empty(**options) | parts
    kernel = made["generator"].get("hpf.filter")
    if kernel is not None and kernel.shape == (3, 3) and not kernel.any():
        made["generator"]["hpf.filter"] = HighPass(1).filter
    return made


def renamed(part, old, new):
    return {part: {new if k == old else k: v for k, v in empty(**CELEBA)[part].items()}}


def replaced(part, key, tensor, options=CELEBA):
    return {part: empty(**options)[part] | {key: tensor}}


@pytest.mark.usefixtures("small_files")
def test_every_kind_of_wrong_file_is_named(tmp_path):
    without = small()
    del without["style_encoder"]
    faceless = small()
    del faceless["fan"]
    key = "encode.0.conv1.weight"
    half = torch.zeros((), dtype=torch.float16).expand(64, 64, 3, 3)
    wrong = [
        ([1, 2], "a dict, got list"),
        (without, r"with style_encoder, got \['generator', 'mapping_network', 'fan'\]"),
        (small(style_encoder=3), "style_encoder: expected a state dict, got int"),
        (small(style_encoder={"a": 3}), r"style_encoder\.a: expected a tensor, got 3"),
        (small(discriminator={}), "got discriminator in it too: .* without averaging"),
        (faceless, "expected the face network `fan` .* as published"),
        (
            small(**renamed("generator", key, "encode.0.conv9.weight")),
            r"generator\.encode\.0\.conv1\.weight: expected float32 \(64, 64, 3, 3\), got none",
        ),
        (
            small(**replaced("fan", "l1.weight", torch.zeros(2))),
            r"fan\.l1\.weight: expected none, got float32 \(2,\)",
        ),
        (
            small(**replaced("mapping_network", "shared.2.bias", torch.zeros(511))),
            r"mapping_network\.shared\.2\.bias: expected float32 \(512,\), got float32 \(511,\)",
        ),
        (
            small(**replaced("generator", key, half)),
            r"encode\.0\.conv1\.weight: expected float32 .*, got float16 \(64, 64, 3, 3\)",
        ),
        (
            small(**replaced("fan", "bn1.num_batches_tracked", torch.tensor(1.0))),
            r"fan\.bn1\.num_batches_tracked: expected int64 \(\), got float32 \(\)",
        ),
        (
            small(style_encoder=empty(**CELEBA, size=128)["style_encoder"]),  # a mixed file
            r"style_encoder\.shared\.0\.weight: expected float32 \(64, .*, got float32 \(128, ",
        ),
        (
            small(style_encoder=empty(**AFHQ)["style_encoder"]),
            r"style_encoder\.unshared\.2\.weight: expected none, got float32 \(64, 512\)",
        ),
        (
            small(AFHQ, mapping_network=empty(**CELEBA)["mapping_network"]),
            r"style_encoder\.unshared\.2\.weight: expected none",
        ),
        (
            small(**replaced("generator", "from_rgb.weight", torch.zeros(48, 3, 3, 3))),
            r"generator\.from_rgb\.weight: expected 2\*\*14 / img_size channels, got 48",
        ),
        (
            small(**replaced("mapping_network", "shared.0.weight", torch.zeros(512))),
            r"mapping_network\.shared\.0\.weight: expected 2 dimensions, got float32 \(512,\)",
        ),
        (
            small(**replaced("mapping_network", "shared.0.bias", torch.full((512,), torch.nan))),
            r"expected finite numbers, got NaN or infinity in mapping_network\.shared\.0\.bias",
        ),
        (
            small(**replaced("generator", "hpf.filter", torch.ones(3, 3))),
            r"generator\.hpf\.filter: expected \[\[-0.125, .*got \[\[1.0",
        ),
    ]
    file, out = tmp_path / "1_nets_ema.ckpt", tmp_path / "out.safetensors"
    for content, message in wrong:
        torch.save(content, file)
        with pytest.raises(WeightsError, match=f"1_nets_ema.ckpt: .*{message}"):
            import_starganv2(file, out)
    assert list(tmp_path.iterdir()) == [file]


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_file_with_a_foreign_global_is_refused_unrun(tmp_path):
    file, marker = tmp_path / "1_nets_ema.ckpt", tmp_path / "ran"
    torch.save(small() | {"args": Bomb(marker)}, file)
    with pytest.raises(
        WeightsError, match="_nets_ema.ckpt that StarGAN v2 .* refused '(posix|nt).system'"
    ):
        import_starganv2(file, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == [file]
    with zipfile.ZipFile(file) as archive:  # the bomb is real
        (name,) = [n for n in archive.namelist() if n.endswith("data.pkl")]
        assert str(marker).encode() in archive.read(name)
    with pytest.raises(FileNotFoundError):
        import_starganv2(tmp_path / "none.ckpt", tmp_path / "out.safetensors")


@pytest.mark.usefixtures("small_files")
def test_domains(tmp_path):
    file, out = tmp_path / "file.ckpt", tmp_path / "out.safetensors"
    torch.save(small(AFHQ), file)
    for names in (["a", "b"], ["a", "b", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(ValueError, match="expected 3 different names, .*--domains"):
            import_starganv2(file, out, names)
    torch.save(small(dict(w_hpf=0, K=2)), file)  # of neither published data set
    with pytest.raises(
        ValueError, match=r"expected 2 different names, .* got \[\]; give --domains"
    ):
        import_starganv2(file, out)
    with pytest.raises(ValueError, match="ends in .safetensors, got out.ckpt"):
        import_starganv2(file, tmp_path / "out.ckpt")
    assert list(tmp_path.iterdir()) == [file]


# ---- the command, and training on ---------------------------------------------------------------


@pytest.mark.usefixtures("small_files")
def test_the_command(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        script = str(ROOT / "scripts/import_weights.py")
        monkeypatch.setattr(sys, "argv", [script, "starganv2", *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")

    file, out = tmp_path / "200_nets_ema.ckpt", tmp_path / "out.safetensors"
    torch.save(small(dict(w_hpf=0, K=2)), file)
    with pytest.raises(SystemExit, match="^error: domains: expected 2"):
        run(file, "--out", out)
    with pytest.raises(SystemExit, match="^error: .*No such file"):
        run(tmp_path / "none.ckpt", "--out", out)
    run(file, "--out", out, "--domains", "day", "night")
    printed = capsys.readouterr().out
    assert sha256(out) in printed and "non-commercial" in printed
    assert json.loads(load_safetensors(out)[1]["domains"]) == ["day", "night"]
    card = out.with_suffix(".md").read_text()
    assert "day, night" in card and "FID" not in card


@pytest.fixture
def quick(monkeypatch):
    """A face network that costs nothing: all maps are the brightness of the image."""

    def maps(self, x):
        return F.avg_pool2d(x.mean(1, keepdim=True), 4).expand(-1, 99, -1, -1)

    monkeypatch.setattr(FAN, "forward", maps)


def test_gradients_with_masks_equal_the_literal_step(monkeypatch, quick):
    """The masks of x for its translations, the masks of the fake for the way back."""
    monkeypatch.setattr(torch.optim, "Adam", sgd)
    ours = make(StarGAN, w_hpf=1.0)
    ours.fan.load_state_dict(ours.fan.state_dict())
    literal, batch = LiteralStep(copy.deepcopy(ours)), make_batch()
    literal.nets["G"].register_forward_pre_hook(lambda _, args: (*args, ours.masks(args[0])))
    literal(batch, *latents(ours))
    ours.training_step(batch)
    for phase, got in zip(PHASES, ours.recorded, strict=True):
        want = {k: g for k, g in literal.gradients[phase].items() if g is not None}
        assert {k for k, g in got.items() if g is not None} == want.keys()
        scale = max(gradient.abs().max() for gradient in want.values())
        for key, gradient in want.items():
            assert (got[key] - gradient).abs().max() < 1e-13 * scale, (phase, key)


def test_training_needs_the_face_network_and_leaves_it_as_it_is(tmp_path, quick, caplog):
    with pytest.raises(WeightsError, match="got none: .*gen import.*--model.init_from"):
        fit("StarGAN", tmp_path / "no", w_hpf=1.0)
    method = StarGAN(**WIDTHS, num_domains=3, w_hpf=1.0)
    method.fan.l0.bias.fill_(3.0)
    state = {k: v for k, v in method.state_dict().items() if not k.startswith(("ema", "discr"))}
    meta = dict(method="StarGAN", hparams="{}", domains="[]", iteration="0")
    save_safetensors(state, tmp_path / "from.safetensors", meta)
    last = fit("StarGAN", tmp_path / "run", w_hpf=1.0, init_from=tmp_path / "from.safetensors")
    assert "from.safetensors: has no discriminator, training starts with a fresh" in caplog.text
    last = fit("StarGAN", tmp_path / "run", f"--ckpt_path={last}", steps=3, w_hpf=1.0)
    saved = read(last)
    assert saved["global_step"] == 3
    for key, value in state.items():
        same = torch.equal(saved["state_dict"][key], value)
        frozen = key.startswith("fan.") or key == "generator.hpf.filter"
        assert same or not frozen, key
    export(last, tmp_path / "out.safetensors")
    x, z = torch.zeros(1, 3, 32, 32), torch.zeros(1, 4)
    a, b = (gen.load(path).translate(x, 1, z=z) for path in (last, tmp_path / "out.safetensors"))
    assert torch.equal(a, b)


def test_a_mask_without_weights_and_a_negative_skip_are_refused():
    method = StarGAN(**WIDTHS, w_hpf=1.0)
    with pytest.raises(WeightsError, match="expected the weights of the face network"):
        method.encode(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="w_hpf: expected >= 0, got -1"):
        StarGAN(**WIDTHS, w_hpf=-1)

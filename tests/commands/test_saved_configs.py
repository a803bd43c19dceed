"""Files that runs wrote before load today: configs as they were saved, checkpoints bit for bit.

tests/configs/saved holds a `config.yaml` of a tiny run of each method, with every option it had;
tests/configs/older the first configs that people copied. An option that goes away, or that is
renamed, makes one of them fail: then take the old name still, or say in the error what to do.
"""

import hashlib
from pathlib import Path

import pytest
import yaml

import gen
import gen.data
import gen.methods
from gen.cli import main
from runs import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
SAVED = sorted((ROOT / "tests/configs/saved").glob("*.yaml"))
OLDER = sorted((ROOT / "tests/configs/older").glob("*.yaml"))
STATES = {  # checkpoint -> sha256 of the names, types, shapes and bytes of what it loads to
    "attribute_classifier_heads64": (
        "f8312b72a80e7ab862e6eb08389b9c4d673f204b508776edb292caca65cc145a"
    ),
    "click_to_move_movers": "e098a0c2bce2fd7da751c4ea30872ea1110ba7fcab43e70e8495f584ac54f938",
    "domain_classifier_emoji64": "b15dcfa40ae363a906ef55bd6cc09d73f89d07f2a72adeb1486d130538c6894f",
    "smooth_i2i_emoji64": "9c9fc69afda17a1cdd553f89c01629bddb2b19efe5089fbe0da074ac2c5cbffa",
    "spatial_entropy_emoji64": "20674fb974d4c7091d09235229e365579d24266c23455ef06066a814dde51ae9",
    "style_function_heads64": "5bf2383329af817043121e111817db10a799a5f074fc7efe512355993073b5a2",
    "stylegan2_heads64": "50bd74262a322998bea8625f91bc6da25295b4bc00d1d0b471d1bd84ac12fa9e",
}


def parsed(path: Path, capsys) -> dict:
    """All options of a config file, as `gen fit` understands them."""
    with pytest.raises(SystemExit) as end:
        main(["fit", "-c", str(path), "--print_config"])
    assert end.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def make(part: dict) -> object:
    """The method or data set of a config; an editor reads the sizes of its generator's file."""
    module, _, name = part["class_path"].rpartition(".")
    return getattr({"gen.methods": gen.methods, "gen.data": gen.data}[module], name)(
        **part["init_args"]
    )


def test_every_method_has_a_saved_config():
    assert {path.stem for path in SAVED} == set(OPTIONS)


@pytest.mark.parametrize("path", SAVED, ids=lambda p: p.stem)
def test_a_saved_config_means_what_it_meant(path, capsys):
    saved, today = yaml.safe_load(path.read_text()), parsed(path, capsys)
    for part in ("model", "data"):
        kept = {k: today[part]["init_args"].get(k) for k in saved[part]["init_args"]}
        assert kept == saved[part]["init_args"]
        made = make(today[part])
        assert type(made).__name__ == saved[part]["class_path"].rpartition(".")[2]
    assert {k: today.get(k) for k in saved if k not in ("model", "data", "trainer")} == {
        k: v for k, v in saved.items() if k not in ("model", "data", "trainer")
    }


@pytest.mark.parametrize("path", OLDER, ids=lambda p: p.stem)
def test_an_older_config_is_read(path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)  # its paths begin there
    older, today = yaml.safe_load(path.read_text()), parsed(path, capsys)
    for part in ("model", "data"):
        kept = {k: today[part]["init_args"].get(k) for k in older[part]["init_args"]}
        assert kept == older[part]["init_args"]
        make(today[part])


def test_every_checkpoint_is_pinned():
    assert {path.stem for path in (ROOT / "checkpoints").glob("*.safetensors")} == set(STATES)


@pytest.mark.parametrize("name", STATES)
def test_a_checkpoint_loads_bit_for_bit(name):
    method, found = gen.load(ROOT / f"checkpoints/{name}.safetensors"), hashlib.sha256()
    for key, value in sorted(method.state_dict().items()):
        found.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().numpy().tobytes())
    assert found.hexdigest() == STATES[name]

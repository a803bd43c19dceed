"""Files that runs wrote before load today: configs as they were saved, checkpoints bit for bit.

tests/configs/saved holds a `config.yaml` of a tiny run of each method, with every option it had,
and one of each other data set, from the commit that brought it;
tests/configs/older the first configs that people copied; tests/configs/states a hash of each
checkpoint. An option that goes away, or that is
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
from gen.evaluation.results import HIGHER, LOWER, NEITHER, from_json
from gen.report.page import metrics_table

ROOT = Path(__file__).resolve().parents[2]
SAVED = sorted((ROOT / "tests/configs/saved").glob("*.yaml"))
OLDER = sorted((ROOT / "tests/configs/older").glob("*.yaml"))
STATES = {  # checkpoint -> sha256 of the names, types, shapes and bytes of what it loads to
    path.stem: path.read_text().strip() for path in (ROOT / "tests/configs/states").iterdir()
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


@pytest.mark.parametrize("part, package", [("model", gen.methods), ("data", gen.data)])
def test_every_method_and_data_set_has_a_saved_config(part, package):
    paths = [yaml.safe_load(path.read_text())[part]["class_path"] for path in SAVED]
    assert set(paths) == {f"{package.__name__}.{name}" for name in dir(package)}


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


@pytest.mark.parametrize("path", sorted(ROOT.glob("checkpoints/*.jsonl")), ids=lambda p: p.stem)
def test_a_shipped_value_says_which_direction_is_better(path):
    rows = from_json(path)
    assert {row["better"] for row in rows} <= {HIGHER, LOWER, NEITHER}
    assert len({line[2] for line in metrics_table(rows).lines}) > 1  # arrows of its report

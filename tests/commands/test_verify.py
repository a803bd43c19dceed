"""`gen verify` of checkpoints and data, and `gen prepare`."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from gen import shipped
from gen.bench import claim
from gen.cli import main
from gen.files import sha256
from gen.methods.stargan import StarGAN
from gen.verbs import prepare
from runs import WIDTHS, ship

NAME = "domain_classifier_emoji64"


def ended(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command that ends the process."""
    with pytest.raises(SystemExit) as end:
        main([*words])
    out, err = capsys.readouterr()
    return end.value.code, out, err


def test_a_checkpoint_is_described(capsys, tmp_path):
    path = ship(StarGAN(**WIDTHS), tmp_path / "x.safetensors", ["cat", "dog"])
    code, out, _ = ended(capsys, "verify", str(path), NAME)
    mine, its = out.splitlines()
    assert code == 0
    assert mine.startswith(
        f"{path}: StarGAN, a translator between domains (cat, dog), iteration 1,"
    )
    assert mine.endswith(f"MiB, sha256 {sha256(path)}")
    assert its.startswith(f"{ROOT}/checkpoints/{NAME}.safetensors: DomainClassifier, a classifier")
    assert its.endswith("as in the manifest")


def test_each_damaged_checkpoint_is_told(capsys, tmp_path):
    path = ship(StarGAN(**WIDTHS), tmp_path / "x.safetensors", ["cat", "dog"])
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\0\0\1\0")
    code, out, err = ended(capsys, "verify", str(path), NAME, "none.ckpt")
    assert code == 1 and len(out.splitlines()) == 1
    first, second = err.splitlines()
    assert first.startswith(f"wrong: {path}: expected tensors of sha256")
    assert second.startswith("wrong: none.ckpt: expected a checkpoint")


def test_a_shipped_checkpoint_must_be_that_of_the_manifest(capsys, tmp_path, monkeypatch):
    entry = shipped.manifest()[NAME]._replace(sha256="0" * 64)
    monkeypatch.setattr(shipped, "manifest", lambda: {NAME: entry})
    code, out, err = ended(capsys, "verify")  # all of the manifest
    assert code == 1 and not out
    assert re.match(rf"wrong: .*/{NAME}.safetensors: expected sha256 0{{64}} of checkpoints/", err)


def test_a_data_set_is_verified(capsys, tmp_path):
    for domain in ("cat", "dog"):
        (tmp_path / "photos" / domain).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{domain}/{i}.png")
    path = [*sys.path]
    code, out, _ = ended(capsys, "verify", str(tmp_path / "photos"))
    assert code == 0 and "8 of 8 images are usable" in out
    (tmp_path / "photos/cat/0.png").write_bytes(b"")
    code, out, _ = ended(capsys, "verify", str(tmp_path / "photos"))
    assert code == 1 and "unusable: cat/0.png" in out and sys.path == path


def test_data_and_checkpoints_are_verified_apart(capsys, tmp_path):
    code, _, err = ended(capsys, "verify", NAME, str(tmp_path))
    assert code == 2 and f"expected checkpoints, or one data set, got {tmp_path}" in err


# ---- prepare ------------------------------------------------------------------------------------


def test_every_recipe_is_listed():
    listed = prepare.recipes()
    assert {"emoji", "mnist", "shards", "own_emoji"} <= set(listed) and "recipe" not in listed
    assert all(len(line) > 20 for line in listed.values())
    for name in listed:
        assert re.search(rf"gen prepare {name} ", (ROOT / f"data_prep/{name}.py").read_text()), name


def test_a_recipe_runs_by_its_name(capsys, tmp_path):
    code, out, _ = ended(capsys, "prepare", "own_emoji", "--out", str(tmp_path / "x"))
    assert code == 0 and len([*(tmp_path / "x").rglob("*.png")]) >= 12


def test_a_recipe_has_its_own_help(capsys):
    code, out, _ = ended(capsys, "prepare", "mnist", "--help")
    assert code == 0 and out.startswith("usage: gen prepare mnist [-h] [--out OUT]")


def test_a_misspelt_recipe_is_told(capsys):
    code, _, err = ended(capsys, "prepare", "emojy")
    assert code == 2 and "invalid choice: 'emojy' (choose from" in err and "emoji" in err


def test_an_unavailable_registry_keeps_its_exit_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gen", "prepare", "emoji", "--out", str(tmp_path / "x")],
        cwd=ROOT,
        env={"PATH": "", "GEN_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 69 and "npm" in done.stderr


def test_claims_name_recipes_that_exist():
    for path in (ROOT / claim.FOLDER).glob("*.yaml"):
        words = claim.command(claim.read(path).data)
        assert words[:3] in ([], ["-m", "gen", "prepare"])
        assert not words or words[3] in prepare.recipes()

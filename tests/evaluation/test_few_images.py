"""Few images: what training accepts is evaluated to the end, and what is left out is said first."""

import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
import verify
from PIL import Image

import gen
import gen.data
from conftest import ROOT
from gen.data.domains import Domains
from gen.evaluation import generators, translators
from gen.evaluation.translators import Scorers, check, evaluate, measure
from runs import GENERATOR, fit
from toys import Images, Toy, Translator


@pytest.fixture(autouse=True)
def said_again():
    translators._notice.cache_clear()


def photos(root, **counts: int):
    for domain, count in counts.items():
        (root / domain).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (32, 32), (5 * i, 90, 200)).save(root / domain / f"{domain}{i}.png")
    return root


def test_41_photos_of_three_domains_can_be_evaluated_as_all_can(tmp_path):
    data = Domains(str(photos(tmp_path, cat=20, dog=13, fox=8)), img_size=32)
    assert data.val.labels.bincount().tolist() == [3, 3, 3]
    method = Translator()
    method.domains = data.domains
    assert check(method, data.val) == (
        ["intra", "inter", "translation"],
        dict(latent=10, reference=2),
    )


@pytest.mark.parametrize("count", [1, 2])
def test_without_references_what_latents_guide_is_evaluated(lpips_cache, caplog, count):
    images, got = Images(count, paired=False), f"got {{'blue': {count}, 'green': {count}, 'red': "
    assert check(Translator(), images) == (["intra", "inter", "translation"], {"latent": 10})
    assert "left out: what references guide, which needs 3 validation images" in caplog.text
    rows = evaluate(Translator(0.3), images, ["intra", "translation"][count - 1 :], max_sources=1)
    names = {row["metric"] for row in rows}
    assert "latent/diversity_k10_alex" in names and not [n for n in names if "reference" in n]
    assert all(torch.tensor(row["value"]).isfinite() for row in rows)
    assert caplog.text.count(got) == 1  # not at every validation


def test_what_needs_sources_of_every_domain_is_left_out_beforehand(caplog):
    judges = Scorers(Images())
    everything = ["intra", "fidelity", "ppl"]
    assert check(Translator(), Images(), everything, judges)[0] == everything
    assert check(Translator(), Images(), everything, judges, max_sources=2)[0] == ["intra"]
    for group in ("fidelity", "ppl"):
        assert f"left out: {group}, which needs" in caplog.text
    few = Scorers(Images(3))  # training images
    assert check(Translator(), Images(), everything, few)[0] == ["intra", "ppl"]
    with pytest.raises(ValueError, match=r"expected images enough for one of \['ppl'\]"):
        evaluate(Translator(), Images(), ["ppl"], max_sources=1)


def test_generator_fidelity_needs_no_validation_images(tmp_path, monkeypatch, caplog):
    from gen.methods.stylegan2 import StyleGAN2

    monkeypatch.setattr(generators, "load_backbone", lambda *_: Toy())
    monkeypatch.setenv("GEN_CACHE", str(tmp_path))
    train = [{"x": torch.full((3, 32, 32), i / 9 - 0.5)} for i in range(9)]
    method = StyleGAN2(**GENERATOR, num_domains=1)
    for val in (train[:1], train[:4]):
        rows = generators.evaluate_generator(method, train, val, ["fidelity"], 5, backbone="toy")
        names = [row["metric"] for row in rows]
        assert ("real/fid_toy" in names) == (len(val) == 4) and "fid_toy" in names
    assert caplog.text.count("left out: real/ rows, which need 4 validation images, got 1") == 1


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("StarGAN", ["metrics=[accuracy]"], r"accuracy \(a classifier\)"),
        ("StyleGAN2", ["metrics=[fidelity]", "images=3"], "4 generated .* got 3 and 24"),
        ("StyleGAN2", ["metrics=[intra]"], "metrics: expected some of"),
    ],
)
def test_evaluate_looks_before_the_first_iteration(tmp_path, method, options, message):
    more = ["--trainer.callbacks=Evaluate", *(f"--trainer.callbacks.{o}" for o in options)]
    with pytest.raises(ValueError, match=message):
        fit(method, tmp_path / "run", *more, "--trainer.limit_val_batches=1")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("group", [*measure.LOOK_AT_TRAINING, "translation"])
def test_evaluate_has_training_images_where_a_group_looks_at_them(monkeypatch, group):
    from gen.callbacks import Evaluate

    data, seen = SimpleNamespace(train=Images(), val=Images()), []
    assert Evaluate(metrics=(group,)).run(Translator(), data, checked=True)[0] == [group]
    monkeypatch.setattr(translators, "evaluate", lambda *args, **_: seen.append(args[3].train))
    Evaluate(metrics=(group,)).run(Translator(), data)
    assert seen == [None if group == "translation" else data.train]


def test_compare_looks_at_all_runs_before_the_first_takes_its_time(tmp_path, monkeypatch, capsys):
    class Data:
        domains, train, val = Images.domains, Images(), Images()

    class Other(Translator):
        domains = ["black", "white", "red"]

    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(b"x")
    monkeypatch.setattr(gen, "load", lambda path, *_: {"a": Translator, "b": Other}[path.stem]())
    monkeypatch.setattr(gen.data, "Domains", lambda *_, **__: Data)
    monkeypatch.setattr(translators, "evaluate", None)
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    command = ["compare", *files, "--data", "x", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "scripts/compare.py"), run_name="__main__")
    told = capsys.readouterr().err
    assert f"{files[1]}: expected the domains ['black', 'white', 'red']" in told
    assert not (tmp_path / "out").exists()


def test_compare_wants_translators_before_it_looks_at_data(tmp_path, monkeypatch):
    monkeypatch.setattr(gen, "load", lambda path, *_: {"a": Translator, "b": object}[path.stem]())
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    monkeypatch.setattr(sys, "argv", ["compare", *files, "--data", "none"])
    with pytest.raises(SystemExit, match="b.safetensors: expected a translator .* got object"):
        runpy.run_path(str(ROOT / "scripts/compare.py"), run_name="__main__")


def test_verify_says_what_few_images_mean(tmp_path, capsys):
    assert verify.main([str(photos(tmp_path / "few", cat=4, dog=9))]) == 0
    told = capsys.readouterr().out
    assert "val/cat: 2 images, expected 3 and more: references are not evaluated" in told
    assert "val/dog:" not in told and "one domain" not in told
    assert verify.main([str(photos(tmp_path / "one", cat=9))]) == 0
    assert "one domain: enough for a generator; a translator" in capsys.readouterr().out


def test_quickstart_looks_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr("gen.commands.call", None)
    script = str(ROOT / "scripts/quickstart.py")
    for counts, message in (
        (dict(cat=9), "expected at least 2 domains with validation images, got {'cat': 3}"),
        (dict(cat=1, dog=9), "expected at least 2 images in cat/, got 1"),
    ):
        root = photos(tmp_path / str(len(counts)), **counts)
        monkeypatch.setattr(
            sys, "argv", [script, "--data", str(root), "--out", str(tmp_path / "o")]
        )
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(script, run_name="__main__")
        assert str(stop.value).startswith("error: ") and message in str(stop.value)

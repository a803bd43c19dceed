"""Runs of the editors of codes: the promises that every method keeps, and files that are whole."""

import json
import math
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import gen
from ddp import run
from gen.checkpoint import export
from gen.cli import main
from gen.files import WeightsError
from gen.methods.stylegan2 import StyleGAN2
from gen.weights import load_safetensors, save_safetensors
from runs import EDITED, GENERATOR, arguments, cut_run, differences, fit, losses, read, ship

FIRST, MORE, K, L, D = 3, 4, 6, 8, 8
SAVE = f"--save_every={FIRST}"


@pytest.fixture(scope="module", params=["StyleFunction", "LinearDirections", "StepwiseEditor"])
def whole(request, tmp_path_factory, edited):
    """One run of FIRST + MORE iterations, and the checkpoint that it wrote in between."""
    out = tmp_path_factory.mktemp(request.param)
    return request.param, cut_run(request.param, out, SAVE, **edited)


def edits(method, psi=None):
    """Edited codes, and images, of a loaded method."""
    rng = torch.Generator().manual_seed(0)
    z, noise = torch.randn(5, 8, generator=rng), torch.randn(5, 4, generator=rng)
    ws = method.map_latents(z, psi)
    d = torch.randint(2, (5, K), generator=rng).float()
    edited = method.edit(ws, d, noise[:, : method.noise_dim])
    return edited, method.synthesize(edited), ws


def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, edited, tmp_path):
    name, out = whole
    more = (f"--ckpt_path={out / 'cut.ckpt'}",)
    a, b = read(out / "last.ckpt"), read(fit(name, tmp_path, *more, steps=FIRST + MORE, **edited))
    assert read(out / "cut.ckpt")["global_step"] == FIRST
    assert a["global_step"] == b["global_step"] == FIRST + MORE
    assert {"exp_avg", "exp_avg_sq"} <= set(a["optimizer_states"][0]["state"][0])
    assert len(a["optimizer_states"]) == (2 if name == "StyleFunction" else 1)
    for part in ("state_dict", "optimizer_states", "hyper_parameters"):
        assert not differences(a[part], b[part], part)
    resumed, uncut = losses(tmp_path), losses(out)[FIRST:]
    assert len(resumed) == len(uncut) == MORE
    for p, q in zip(resumed, uncut, strict=True):  # lazy R1: the log holds its last value
        assert {k: v for k, v in p.items() if v} == {k: v for k, v in q.items() if p.get(k)}


def test_training_moves_what_it_should_and_never_the_generator(whole, edited):
    name, out = whole
    a, b = (read(out / f"{which}.ckpt")["state_dict"] for which in ("cut", "last"))
    moved = {k.split(".")[0] for k in a if not torch.equal(a[k], b[k])}
    assert (
        moved
        == {
            "StyleFunction": {"style_function", "discriminator", "ema"},
            "LinearDirections": {"classifiers", "score_std"},
            "StepwiseEditor": {"stepper", "ema"},
        }[name]
    )
    source = gen.load(edited["generator"]).ema.module["generator"].state_dict()
    assert source and not differences(source, {k: b[f"generator.{k}"] for k in source})


def test_checkpoints_are_whole_without_the_files_they_were_made_with(whole, edited, tmp_path):
    name, _ = whole
    files = {k: shutil.copy(path, tmp_path) for k, path in edited.items()}
    last = fit(name, tmp_path / "run", **files)
    export(last, tmp_path / "x.safetensors")
    before = edits(gen.load(last))
    for path in files.values():
        Path(path).unlink()
    for path in (last, tmp_path / "x.safetensors"):
        method = gen.load(path)
        assert type(method).__name__ == name and len(method.attribute_names) == K
        new, images, ws = edits(method)
        assert not differences((new, images, ws), before) and not torch.equal(new, ws)
        assert new.shape == ws.shape == (5, L, D) and images.shape == (5, 3, 32, 32)
        assert not torch.equal(edits(method, psi=1.0)[2], ws)


def test_it_goes_on_from_a_shipped_file_without_that_of_the_generator(whole, edited, tmp_path):
    name, out = whole
    export(out / "last.ckpt", tmp_path / "x.safetensors")
    options = dict(generator="", judge=edited["judge"], init_from=tmp_path / "x.safetensors")
    tuned = read(fit(name, tmp_path / "tuned", steps=1, **options))
    a, b = tuned["state_dict"], read(out / "last.ckpt")["state_dict"]
    kept = [key for key in a if key.startswith(("generator.", "code_"))]
    assert tuned["global_step"] == 1 and kept and all(torch.equal(a[k], b[k]) for k in kept)
    for key in a.keys() - kept:  # one step away
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0.25)


def test_the_sizes_are_those_of_the_generators_file_and_are_saved(whole, edited):
    name, out = whole
    saved = gen.checkpoint.read(out / "last.ckpt").hparams
    assert {k: saved[k] for k in EDITED} == EDITED
    assert [type(saved[k]) for k in EDITED] == [type(v) for v in EDITED.values()]
    config = yaml.safe_load((out / "config.yaml").read_text())["model"]["init_args"]
    assert config["w_dim"] == 0 and config["clamp"] == -1  # as given, so it runs with other files


def test_sizes_may_be_given_as_in_older_configs(whole, edited, tmp_path):
    name, out = whole
    a = read(fit(name, tmp_path, SAVE, steps=FIRST, **edited | EDITED))
    assert not differences(a["state_dict"], read(out / "cut.ckpt")["state_dict"])


@pytest.mark.parametrize("more", [{}, {k: v for k, v in EDITED.items() if k != "w_dim"}])
def test_sizes_that_contradict_the_file_are_refused(whole, edited, more):
    name, _ = whole
    told = (
        r"generator.safetensors: expected a generator with w_dim 16, as given, got w_dim 8; "
        "leave the option out, or give another generator"
    )
    method = getattr(gen.methods, name)
    with pytest.raises(WeightsError, match=told):
        method(**edited | more | dict(w_dim=16)).load_init()


def test_what_is_no_generator_without_classes_is_refused(whole, edited, tmp_path):
    method = getattr(gen.methods, whole[0])
    of = "of colour images without classes or transparency"
    wanted = f"expected a StyleGAN2 {of}, got a AttributeClassifier; give another generator$"
    with pytest.raises(WeightsError, match=wanted):
        method(**edited | dict(generator=edited["judge"]))
    other = ship(
        StyleGAN2(**GENERATOR, num_domains=3, conditional=True), tmp_path / "c.safetensors"
    )
    with pytest.raises(WeightsError, match=f"{of}, got a StyleGAN2 with classes.*init_from"):
        method(**edited | dict(generator=other))


@pytest.mark.parametrize(
    "change", [dict(map_layers=10**7), dict(img_size=2**40), dict(w_dim="8"), dict(z_dim=None)]
)
def test_a_generators_file_with_other_sizes_than_its_weights_is_refused(
    whole, edited, tmp_path, change
):
    name, _ = whole
    state, meta = load_safetensors(edited["generator"])
    meta["hparams"] = json.dumps(json.loads(meta["hparams"]) | change)
    save_safetensors(state, tmp_path / "bad.safetensors", meta)
    began = time.process_time()
    with pytest.raises(
        WeightsError, match="bad.safetensors: expected sizes of a generator that has its"
    ):
        getattr(gen.methods, name)(generator=str(tmp_path / "bad.safetensors"), attributes="a")
    assert time.process_time() - began < 5


def test_a_checkpoint_cannot_have_another_file_read_for_its_sizes(whole, edited, tmp_path):
    name, out = whole
    export(out / "last.ckpt", tmp_path / "x.safetensors")
    state, meta = load_safetensors(tmp_path / "x.safetensors")
    meta["hparams"] = json.dumps(json.loads(meta["hparams"]) | dict(w_dim=0))
    save_safetensors(state, tmp_path / "bad.safetensors", meta)
    with pytest.raises(WeightsError, match="bad.safetensors: .*w_dim: expected the size in it"):
        gen.load(tmp_path / "bad.safetensors")


def test_images_in_place_of_codes_are_refused(whole, edited, tmp_path):
    name, _ = whole
    words = (
        f"^--data: expected codes for {name}, as Codes give, got images with references, from Heads"
    )
    with pytest.raises(ValueError, match=words):
        fit(name, tmp_path, "--data=Heads", "--data.img_size=32", **edited)


def test_what_is_not_given_is_named(whole, edited, tmp_path, monkeypatch):
    name, _ = whole
    with pytest.raises(ValueError, match="^judge: expected a checkpoint of .*, got none"):
        fit(name, tmp_path / "run", **edited | dict(judge=""))
    words = ["gen", *arguments(name, tmp_path, judge=edited["judge"])]
    monkeypatch.setattr(sys, "argv", words)
    told = "error: generator: expected a checkpoint of StyleGAN2, got none; give its path"
    with pytest.raises(SystemExit, match=f"^{re.escape(told)}$"):
        main()


def test_a_judge_of_other_attributes_is_refused(whole, edited, tmp_path):
    name, _ = whole
    told = r"judge: expected the attributes \['cat'\] at 32 px, got \['bear', .* at 32 px; set --m"
    with pytest.raises(ValueError, match=told):
        fit(name, tmp_path, **edited | dict(attributes="cat"))
    with pytest.raises(ValueError, match=r"judge: expected the attributes .* got None at 32 px"):
        fit(name, tmp_path, **edited | dict(judge=edited["generator"]))


def test_it_trains_in_low_precision(whole, edited, tmp_path):
    name, _ = whole
    fit(name, tmp_path, "--trainer.precision=bf16-mixed", steps=3, **edited)
    rows = losses(tmp_path)
    assert len(rows) == 3
    assert all(math.isfinite(float(value)) for row in rows for value in row.values() if value)


@pytest.mark.parametrize("kind, space", [("ws", "W+"), ("z", "W")])
def test_it_trains_on_codes_or_latents_of_a_file(whole, edited, tmp_path, kind, space, monkeypatch):
    name, _ = whole
    cls, seen = getattr(gen.methods, name), []
    labels, options = cls.labels, edited | {}
    if name != "StepwiseEditor":  # its steps are of all rows: it has no option `space`
        options["space"] = space
    monkeypatch.setattr(cls, "labels", lambda self, x: seen.append(x) or labels(self, x))
    if name == "LinearDirections":
        options["mixing"] = 0.0
    rows = np.random.default_rng(0).standard_normal({"ws": (12, L, D), "z": (12, 8)}[kind])
    np.save(tmp_path / "codes.npy", rows)
    more = (f"--data.latents={tmp_path / 'codes.npy'}", "--data.val_count=4")
    fit(name, tmp_path / "run", *more, steps=1, **options)
    source, ws = gen.load(edited["generator"]), torch.from_numpy(rows[:8]).float()
    if kind == "z":  # truncated, codes are not
        ws = source.map_latents(ws, psi=0.7)
    images = source.synthesize(ws).flatten(1).clone()
    (x,) = seen
    assert (x.flatten(1)[:, None] - images).abs().amax(2).amin(1).max() < 1e-4


def test_codes_of_another_shape_are_refused(whole, edited, tmp_path):
    name, _ = whole
    np.save(tmp_path / "codes.npy", np.random.default_rng(0).standard_normal((12, L + 2, D)))
    more = (f"--data.latents={tmp_path / 'codes.npy'}", "--data.val_count=4")
    with pytest.raises(ValueError, match=r"ws: expected codes \(N, 8, 8\) of .*got \(\d+, 10, 8\)"):
        fit(name, tmp_path, *more, **edited)


def test_two_processes_train_as_one(whole, edited, tmp_path):
    name, _ = whole
    done = run(name, tmp_path, steps=FIRST, **edited)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (read(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert a["strategy"] == "DDPStrategy" and not differences(a["state"], b["state"])
    draws = torch.stack([step["z"] for rank in (a, b) for step in rank["seen"]])
    assert len(draws.flatten(0, 1).unique(dim=0)) == 2 * FIRST * 4
    last = read(tmp_path / "last.ckpt")
    assert last["global_step"] == FIRST and not differences(last["state_dict"], a["state"])

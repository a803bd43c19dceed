"""The `gen` command: help, configs, logs, checkpoints, fine-tuning, and what training shows."""

import http.server
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import gen
from gen import viz
from gen.callbacks import Evaluate
from gen.checkpoint import export
from gen.cli import main
from gen.data import Heads
from gen.evaluation.generators import evaluate_generator
from gen.files import WeightsError
from gen.inference import common, translation
from gen.methods.stargan import StarGAN
from runs import HEADS, arguments, fit, losses, read

ROOT = Path(__file__).resolve().parents[2]


def said(capsys, *args: str) -> str:
    """What a `gen` that only prints has printed."""
    with pytest.raises(SystemExit) as end:
        main([*args])
    assert end.value.code == 0
    return capsys.readouterr().out


# ---- help and configs ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["-m", "gen", "--help"], ["-m", "gen"]])
def test_help_takes_less_than_5_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    assert done.returncode == 0 and "gen fit -c" in done.stdout and not done.stderr


@pytest.mark.parametrize("name", ["SmoothI2I", "gen.methods.StarGAN"])
def test_model_help_shows_the_docs_of_a_method(capsys, name):
    text = " ".join(said(capsys, "fit", f"--model.help={name}").split())
    assert "weight of style reconstruction" in text and "default: 100000" in text
    assert ("weight of the style triplet loss" in text) == (name == "SmoothI2I")


def test_data_help_shows_the_docs_of_a_data_set(capsys):
    text = " ".join(said(capsys, "fit", "--data.help=Heads").split())
    assert "contents in the validation set" in text and "drawn in every domain" in text


def test_print_config_is_a_whole_config_that_can_be_used(capsys, tmp_path):
    text = said(capsys, *arguments("SmoothI2I", tmp_path / "run", steps=1), "--print_config")
    config = yaml.safe_load(text)
    assert config["model"]["class_path"].endswith("SmoothI2I")
    assert config["model"]["init_args"]["lambda_tri"] == 1.0  # a default
    assert config["data"]["init_args"]["val_batch_size"] == 32
    Path(tmp_path, "printed.yaml").write_text(text)
    main(["fit", "-c", str(tmp_path / "printed.yaml")])
    assert read(tmp_path / "run/last.ckpt")["global_step"] == 1


@pytest.mark.parametrize(
    "wrong, where",
    [
        ("--model.lambda_tripplet=1", "lambda_tripplet"),
        ("--data.batchsize=1", "batchsize"),
        ("--trainer.max_step=1", "max_step"),
        ("--save_evry=1", "save_evry"),
        ("--model.lr=quick", "lr"),
        ("--wandb=offfline", "wandb"),
        ("--logger=tensorbord", "logger"),
        ("--model=SmothI2I", "SmothI2I"),
    ],
)
def test_a_misspelt_option_is_an_error(capsys, tmp_path, wrong, where):
    with pytest.raises(SystemExit) as end:
        fit("StarGAN", tmp_path / "run", wrong)
    assert end.value.code == 2 and where in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_misspelt_option_in_a_config_is_an_error(capsys, tmp_path):
    model = dict(class_path="StarGAN", init_args=dict(lamda_sty=1.0))
    Path(tmp_path, "x.yaml").write_text(json.dumps(dict(model=model, data="Heads")))
    with pytest.raises(SystemExit) as end:
        main(["fit", "-c", str(tmp_path / "x.yaml"), f"--out={tmp_path / 'run'}"])
    assert end.value.code == 2 and "lamda_sty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, why",
    [
        ("--trainer.logger=false", "--out, --logger set it"),
        ("--trainer.default_root_dir=x", "--out, --logger set it"),
        ("--monitor=latent/adv", "expected validation.*limit_val_batches 0"),
    ],
)
def test_an_option_that_would_be_ignored_is_an_error(tmp_path, option, why):
    with pytest.raises(ValueError, match=why):
        fit("StarGAN", tmp_path, option)


# ---- a run and its files ------------------------------------------------------------------------


def folder(root: Path, domains: dict[str, int]) -> Path:
    """A data set of noise: domain -> number of images."""
    rng = np.random.default_rng(0)
    for name, count in domains.items():
        Path(root, name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(
                root / name / f"{i}.png"
            )
    return root


def test_best_last_and_csv_are_written_and_nothing_else(tmp_path):
    val = ("--trainer.limit_val_batches=1", "--trainer.val_check_interval=1")
    fit("StarGAN", tmp_path, *val, "--monitor=latent/sty", "--mode=max", steps=4)
    rows = losses(tmp_path)
    values = [float(row["latent/sty"]) for row in rows if row["latent/sty"]]
    assert len(values) == 4 and read(tmp_path / "last.ckpt")["global_step"] == 4
    assert read(tmp_path / "best.ckpt")["global_step"] == values.index(max(values)) + 1
    assert gen.load(tmp_path / "best.ckpt").domains == list(Heads().domains)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.ckpt", "config.yaml", "last.ckpt", "logs",
    ]  # fmt: skip
    assert not list(tmp_path.rglob("checkpoints"))
    assert set(rows[0]) == {"step", "epoch"} | {
        *(f"d/{k}" for k in ("real", "fake", "reg", "logit_train", "logit_val")),
        *(f"{p}/{k}" for p in ("latent", "ref") for k in ("adv", "sty", "ds", "cyc")),
    }


def test_evaluate_gives_the_metric_of_best_and_validate_measures_the_same(tmp_path, lpips_cache):
    measure = [
        "--trainer.callbacks=Evaluate", "--trainer.callbacks.max_sources=2",
        "--trainer.callbacks.metrics=[translation]", "--trainer.limit_val_batches=1",
    ]  # fmt: skip
    name = "val/latent/content_lpips_alex"
    more = (*measure, "--trainer.val_check_interval=2", f"--monitor={name}")
    last = fit("StarGAN", tmp_path, *more, steps=2)
    value = next(row[name] for row in losses(tmp_path) if row.get(name))
    assert read(tmp_path / "best.ckpt")["global_step"] == 2
    command = arguments("StarGAN", tmp_path / "again", *measure, f"--ckpt_path={last}")
    main(["validate", *command[1:]])
    again = next(row[name] for row in losses(tmp_path / "again") if row.get(name))
    assert float(again) == pytest.approx(float(value), abs=1e-6)


def test_evaluate_measures_a_generator(tmp_path, lpips_cache):
    measure = [
        "--trainer.callbacks=Evaluate", "--trainer.callbacks.max_sources=2",
        "--trainer.callbacks.metrics=[paths,ppl]", "--trainer.limit_val_batches=1",
    ]  # fmt: skip
    name = "val/w/ps_t20_alex"
    last = fit("StyleGAN2", tmp_path, *measure, "--trainer.val_check_interval=2", steps=2)
    (row,) = [row for row in losses(tmp_path) if row.get(name)]
    assert {"val/z/ps_t20_alex", "val/w/pir_t20_alex"} < set(row) and "ppl" in str(row)
    again = gen.load(last)
    data = Heads(**HEADS)
    found = evaluate_generator(again, data.train, data.val, ["paths"], paths=2)
    assert float(row[name]) == pytest.approx(found[0]["value"], abs=1e-5)


@pytest.mark.parametrize("callback", ["Evaluate", "Samples"])
def test_callbacks_of_images_refuse_an_editor(tmp_path, edited, callback):
    told = f"{callback}: expected a translator or a generator, got StyleFunction; leave"
    with pytest.raises(ValueError, match=told):
        fit("StyleFunction", tmp_path, f"--trainer.callbacks={callback}", **edited)


def test_the_data_set_decides_the_number_of_domains(tmp_path):
    data = folder(tmp_path / "data", {"ink": 4, "oil": 4, "wax": 4, "zinc": 4})
    last = fit("StarGAN", tmp_path / "run", "--data=Domains", f"--data.root={data}", steps=1)
    method = gen.load(last)
    assert method.hparams.num_domains == 4 and method.domains == ["ink", "oil", "wax", "zinc"]
    assert method.map_style(torch.zeros(1, 4), 3).shape == (1, 8)


def test_bf16_run_works_and_its_checkpoint_holds_full_precision(tmp_path):
    last = fit("SmoothI2I", tmp_path, "--trainer.precision=bf16-mixed", steps=2)
    saved = read(last)
    floats = {v.dtype for v in saved["state_dict"].values() if v.is_floating_point()}
    moments = {s["exp_avg"].dtype for o in saved["optimizer_states"] for s in o["state"].values()}
    assert floats == moments == {torch.float32}
    made = gen.load(last).translate(torch.zeros(1, 3, 32, 32), 1, z=torch.zeros(1, 4))
    assert made.dtype == torch.float32 and made.isfinite().all()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_samples_are_inference_samples_pixel_for_pixel(tmp_path, monkeypatch, precision):
    images = Heads(**HEADS).val
    x, _ = common.batch(StarGAN(), images, [0, 5])
    y, z = torch.tensor([2, 1]), torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    seen = {}

    def show(self):
        seen["latent"] = self.translate(x, y, z=z)
        seen["reference"] = self.translate(x, y, x_ref=x.flip(0))

    monkeypatch.setattr(StarGAN, "on_train_end", show, raising=False)
    samples = ("--trainer.callbacks=Samples", "--trainer.callbacks.every_n_steps=3")
    more = (*samples, f"--trainer.precision={precision}")
    last = fit("StarGAN", tmp_path, *more, steps=3, ema_decay=0.5)
    export(last, tmp_path / "x.safetensors")
    picture = np.asarray(Image.open(tmp_path / "samples/000003.png"))
    for path in (last, tmp_path / "x.safetensors"):
        method = gen.load(path)
        assert torch.equal(method.translate(x, y, z=z), seen["latent"])
        assert torch.equal(method.translate(x, y, x_ref=x.flip(0)), seen["reference"])
        sources, _ = common.batch(method, images, common.pick(images, 3))
        rows, headers = translation.latent_grid(method, sources, range(2))
        again = viz.grid(rows, headers=headers, lead=(0, 1), cell_px=96)
        assert np.array_equal(np.asarray(again), picture)
    averages = method.ema.module["generator"].state_dict()
    assert all(torch.equal(v, averages[k]) for k, v in method.generator.state_dict().items())
    assert Path(tmp_path, "x.safetensors").stat().st_size < last.stat().st_size / 2


# ---- fine-tuning --------------------------------------------------------------------------------


def test_init_from_starts_from_the_file_for_both_formats(tmp_path, monkeypatch):
    last = fit("StarGAN", tmp_path / "a", steps=2, ema_decay=0.5)
    export(last, tmp_path / "x.safetensors")
    x, z, seen = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 4), []

    def look(method):
        seen.append(method.translate(x, 1, z=z))

    monkeypatch.setattr(StarGAN, "on_train_epoch_start", look, raising=False)
    want = gen.load(last).translate(x, 1, z=z)
    for path in (last, tmp_path / "x.safetensors"):
        tuned = fit("StarGAN", tmp_path / path.suffix, steps=1, init_from=path, seed=5)
        assert torch.equal(seen.pop(), want)
        assert read(tuned)["global_step"] == 1  # a new run, with new optimizers
        assert not torch.equal(gen.load(tuned).translate(x, 1, z=z), want)
        assert gen.load(tuned).hparams.init_from == ""  # the file need not be there any more


def test_init_from_other_domains_or_widths_is_an_error_with_expected_and_got(tmp_path):
    last = fit("StarGAN", tmp_path / "a", steps=1)
    data = folder(tmp_path / "data", {"ink": 4, "oil": 4, "wax": 4})
    with pytest.raises(ValueError, match=r"\['bear', 'cat', 'dog'\], got \['ink', 'oil', 'wax'\]"):
        fit("StarGAN", tmp_path / "b", "--data=Domains", f"--data.root={data}", init_from=last)
    with pytest.raises(WeightsError, match=r"last.ckpt: \S+: expected shape \(.+\), got \(.+\); "):
        fit("StarGAN", tmp_path / "c", init_from=last, max_channels=16)


def test_resuming_a_fine_tuned_run_does_not_start_over(tmp_path):
    first = fit("StarGAN", tmp_path / "a", steps=1)
    tuned = fit("StarGAN", tmp_path / "b", steps=1, init_from=first)
    args = dict(init_from=first)
    whole = read(fit("StarGAN", tmp_path / "c", steps=2, **args))
    first.unlink()  # it is not needed any more
    more = read(fit("StarGAN", tmp_path / "b", f"--ckpt_path={tuned}", steps=2, **args))
    assert all(torch.equal(v, whole["state_dict"][k]) for k, v in more["state_dict"].items())


def test_weights_to_measure_come_from_either_kind_of_file_or_it_is_an_error(tmp_path, monkeypatch):
    last = fit("StarGAN", tmp_path / "a", steps=1)
    export(last, tmp_path / "x.safetensors")
    x, z, seen = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 4), []
    monkeypatch.setattr(Evaluate, "on_test_epoch_end", lambda *_: None)
    monkeypatch.setattr(
        StarGAN, "on_test_epoch_start", lambda m: seen.append(m.translate(x, 1, z=z))
    )
    command = ["test", *arguments("StarGAN", tmp_path / "b", seed=5)[1:]]
    main([*command, f"--ckpt_path={last}"])
    main([*command, f"--model.init_from={tmp_path / 'x.safetensors'}"])
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], gen.load(last).translate(x, 1, z=z))
    with pytest.raises(ValueError, match="expected --ckpt_path or --model.init_from, got random"):
        main(command)
    with pytest.raises(WeightsError, match="expected a .ckpt file, .* --model.init_from"):
        main([*command, f"--ckpt_path={tmp_path / 'x.safetensors'}"])


# ---- Weights & Biases ---------------------------------------------------------------------------


class Witness(http.server.BaseHTTPRequestHandler):
    """A proxy that lets nothing through, and remembers who asked."""

    asked: list[str] = []

    def do_CONNECT(self):
        self.asked.append(self.path)
        self.send_error(403)

    do_GET = do_POST = do_CONNECT

    def log_message(self, *_):
        pass


@pytest.fixture
def witness():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Witness)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_wandb_offline_writes_below_out_and_reaches_for_nothing(tmp_path, witness):
    """All of its parts, wandb's own service too, would go through the proxy."""
    names = [f"{name}_{case}" for name in ("http", "https", "all") for case in ("proxy", "PROXY")]
    proxies = {n.upper() if n.endswith("PROXY") else n: witness for n in names}
    home = tmp_path / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    env |= proxies | dict(NO_PROXY="", HOME=str(home), TMPDIR=str(home))
    command = arguments("StarGAN", tmp_path / "run", "--wandb=offline", steps=2)
    done = subprocess.run(
        [sys.executable, "-m", "gen", *command],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert Witness.asked == []
    [run] = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    assert run.stat().st_size > 500
    assert losses(tmp_path / "run")  # the CSV too
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "run"]

"""The quickstart: a run of its own for each data set, and Ctrl-C loses nothing."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from conftest import ROOT
from runs import fit, read

SCRIPT = ROOT / "scripts/quickstart.py"


def photos(root: Path, size: int = 64) -> Path:
    rng = np.random.default_rng(0)
    for domain in ("ink", "oil"):
        (root / domain).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(256, size=(size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / domain / f"{i}.png")
    return root


@pytest.fixture
def quickstart(monkeypatch, tmp_path):
    """Runs it up to the training; the options of `gen fit`, or what it ended with."""
    spec = importlib.util.spec_from_file_location("quickstart_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    asked: list = []
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "fill_cache", lambda _: None)
    monkeypatch.setattr(module, "prepare", lambda: module.Heads(img_size=64))
    monkeypatch.setattr(module, "run", lambda *command: asked.append(command) or 7)

    def start(*options):
        asked.clear()
        monkeypatch.setattr(sys, "argv", ["quickstart.py", *map(str, options)])
        with pytest.raises(SystemExit) as end:
            module.main()
        if end.value.code != 7:
            assert not asked
            return end.value.code
        [command] = asked
        words = [str(word) for word in command]
        return {a: b for a, b in zip(words, words[1:], strict=False) if a.startswith("--")}

    return start


# ---- one run for each data set ------------------------------------------------------------------


def test_the_folder_of_a_run_follows_from_the_data_and_the_start(quickstart, tmp_path):
    a, b = photos(tmp_path / "set_0.1"), photos(tmp_path / "set_0.2")
    outs = [
        quickstart(*options)["--out"]
        for options in (
            ["--data", a],
            ["--data", b],
            [],
            ["--from-scratch"],
            ["--data", a, "--from-scratch"],
        )
    ]
    names = ["set_0.1", "set_0.2", "heads", "heads_from_scratch", "set_0.1_from_scratch"]
    assert outs == [str(tmp_path / f"runs/quickstart_{name}") for name in names]


@pytest.mark.parametrize("what", ["data", "start"])
def test_a_run_of_other_data_or_another_start_is_left_alone(quickstart, tmp_path, what):
    a, b = photos(tmp_path / "a"), photos(tmp_path / "b")
    out = tmp_path / "run"
    fit("StarGAN", out, "--data=Domains", f"--data.root={a}", steps=1)
    if what == "start":
        config = yaml.safe_load((out / "config.yaml").read_text())
        config["model"]["init_args"]["init_from"] = "tuned.ckpt"
        (out / "config.yaml").write_text(yaml.safe_dump(config))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    told = quickstart("--data", b if what == "data" else a, "--out", out)
    same = {"data": f"the same data, {b}, got one of {a}", "start": "start from, none, got one of"}
    assert told.startswith("error: ") and same[what] in told and "--out" in told
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_the_same_data_resume_the_run(quickstart, tmp_path):
    a, out = photos(tmp_path / "a"), tmp_path / "run"
    fit("StarGAN", out, "--data=Domains", f"--data.root={a}", steps=1)
    options = quickstart("--data", a, "--out", out, "--steps", 2)
    assert options["--ckpt_path"] == str(out / "last.ckpt") and options["--out"] == str(out)


@pytest.mark.parametrize("kind, choice", [("AVX2", "32-true"), ("AVX512", None)])
def test_a_new_run_takes_the_precision_that_is_fast(quickstart, monkeypatch, capsys, kind, choice):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kind)
    assert quickstart().get("--trainer.precision") == choice
    assert capsys.readouterr().out.count("precision: 32-true, since") == (choice is not None)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize("kind", ["AVX2", "AVX512"])
def test_a_run_goes_on_in_the_precision_it_began_in(
    quickstart, monkeypatch, tmp_path, kind, precision
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kind)
    a, out = photos(tmp_path / "a"), tmp_path / "run"
    more = ["--data=Domains", f"--data.root={a}", f"--trainer.precision={precision}"]
    fit("StarGAN", out, *more, steps=1)
    options = quickstart("--data", a, "--out", out, "--steps", 2)
    assert options["--trainer.precision"] == precision and "--ckpt_path" in options


def test_a_missing_folder_is_told_in_one_line(quickstart, tmp_path):
    told = quickstart("--data", tmp_path / "none")
    assert told.startswith("error: ") and "none" in told and "\n" not in told


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_are_counted_from_1(quickstart, steps):
    """For Lightning -1 is without end."""
    assert quickstart("--steps", steps) == f"error: --steps: expected at least 1, got {steps}"


# ---- Ctrl-C -------------------------------------------------------------------------------------

CHILD = """
import signal, sys, time
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: got.append(number))
print("ready", flush=True)
while not got: time.sleep(0.01)
time.sleep(0.6)  # it saves
print("got", *got, flush=True)
sys.exit(100 + got[0])
"""
PARENT = f"""
import sys
from gen.commands import call
code = call(sys.executable, "-c", {CHILD!r})
print("waited", flush=True)
sys.exit(code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to", ["all", "parent"])
def test_a_signal_reaches_a_child_once_and_it_is_waited_for(number, to):
    """`all` is Ctrl-C in a terminal, `parent` is kill."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout.readline() == "ready\n"
    (os.killpg if to == "all" else os.kill)(parent.pid, number)
    out, _ = parent.communicate(timeout=60)
    got = signal.SIGTERM if number == signal.SIGHUP else number
    assert out == f"got {int(got)}\nwaited\n" and parent.returncode == 100 + got


def test_the_status_of_a_child_is_that_of_the_call():
    from gen.commands import call

    handlers = signal.getsignal(signal.SIGINT)
    assert call(sys.executable, "-c", "raise SystemExit(3)") == 3
    assert signal.getsignal(signal.SIGINT) == handlers


def test_no_script_starts_another_without_waiting_for_it():
    """`subprocess.run` kills what it started a quarter of a second after Ctrl-C."""
    for path in (*ROOT.glob("scripts/**/*.py"), *ROOT.glob("gen/evaluation/*.py")):
        assert "subprocess" not in path.read_text(), path


@pytest.mark.slow
def test_ctrl_c_in_the_quickstart_saves_the_run(tmp_path):
    """With a config of a tiny model."""
    model = dict(img_size=32, base_channels=4, max_channels=8, style_dim=8, latent_dim=4)
    config = dict(
        model=dict(class_path="StarGAN", init_args=model),
        data=dict(class_path="Domains", init_args=dict(img_size=32, batch_size=2, num_workers=0)),
        trainer=dict(accelerator="cpu", limit_val_batches=0, log_every_n_steps=1),
    )
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    code = f"""
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("quickstart_script", {str(SCRIPT)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.CONFIG, module.SHIPPED = {str(tmp_path / "tiny.yaml")!r}, Path("none")
module.fill_cache = lambda _: None
module.main()
"""
    data, out = photos(tmp_path / "photos", 32), tmp_path / "run"
    words = ["--data", str(data), "--out", str(out), "--steps", str(10**6)]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.time() + 300
    while not list(out.glob("logs/*/metrics.csv")) and time.time() < deadline:
        assert parent.poll() is None, parent.communicate()[0]
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(parent.pid, signal.SIGINT)
    said, _ = parent.communicate(timeout=120)
    assert parent.returncode == 130 and "Traceback" not in said
    step = read(out / "last.ckpt")["global_step"]
    assert step >= 1 and f"Stopped at iteration {step}" in said

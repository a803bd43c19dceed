"""What a file may not do, and what may not happen to a run: promises on safety."""

import ast
import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import gen
from gen.callbacks import Last
from gen.checkpoint import AtomicCheckpointIO, export
from gen.files import WeightsError, write_atomic
from gen.methods.base import GANMethod, NonFiniteLoss, weighted_sum
from gen.methods.stargan import StarGAN
from gen.weights import load_safetensors
from harness import Bomb
from runs import WIDTHS, arguments, fit, read

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [p for top in ("gen", "scripts", "data_prep") for p in (ROOT / top).rglob("*.py")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return fit("StarGAN", tmp_path_factory.mktemp("run"), steps=1)


# ---- files choose no code -----------------------------------------------------------------------


def calls(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def unsafe(source: str) -> list[str]:
    """Calls in `source` that could unpickle or run what a file says."""
    found = []
    for name, options in calls(ast.parse(source)):
        if options.get("weights_only", "True") != "True":
            found.append(f"{name}(weights_only={options['weights_only']})")
        if name == "torch.load" and "weights_only" not in options:
            found.append("torch.load without weights_only")
        if name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"):
            found.append(name)
        if name in ("eval", "exec", "compile", "__import__"):
            found.append(name)
        if options.get("allow_pickle", "False") != "False":
            found.append(f"{name}(allow_pickle)")
        if name.endswith(("yaml.load", "unsafe_load", "add_safe_globals")):
            found.append(name)
        if name in ("os.system", "os.popen") or options.get("shell", "False") != "False":
            found.append(f"{name} through a shell")
    return found


def test_nothing_in_the_tree_unpickles_unknown_globals():
    assert len(SOURCES) > 20
    assert {str(p): bad for p in SOURCES if (bad := unsafe(p.read_text()))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(p, weights_only=False)",
        "torch.load(p)",
        "pickle.load(f)",
        "np.load(p, allow_pickle=True)",
        "yaml.unsafe_load(s)",
        "Trainer().fit(m, weights_only=False)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(line):
    assert unsafe(line)


def test_yaml_is_read_by_the_one_function_that_has_limits():
    readers = {p.name for p in SOURCES for name, _ in calls(ast.parse(p.read_text()))
               if name.startswith("yaml.")}  # fmt: skip
    assert readers == {"files.py"}


def test_a_checkpoint_with_a_global_is_refused_unrun(checkpoint, tmp_path):
    marker, bad = tmp_path / "ran", tmp_path / "bad.ckpt"
    torch.save(read(checkpoint) | {"extra": Bomb(marker)}, bad)
    with pytest.raises(
        WeightsError, match="expected a .safetensors or .ckpt .* refused '(posix|nt).system'"
    ):
        gen.load(bad)
    with pytest.raises(WeightsError, match="refused '(posix|nt).system'"):
        fit("StarGAN", tmp_path / "run", f"--ckpt_path={bad}")
    with pytest.raises(WeightsError, match="refused '(posix|nt).system'"):  # not even when asked to
        fit("StarGAN", tmp_path / "run", f"--ckpt_path={bad}", "--weights_only=false")
    with pytest.raises(WeightsError, match="refused '(posix|nt).system'"):
        fit("StarGAN", tmp_path / "run", init_from=bad)
    assert not marker.exists()
    with zipfile.ZipFile(bad) as file:  # the bomb is real: its pickle calls a global
        (name,) = [n for n in file.namelist() if n.endswith("data.pkl")]
        assert str(marker).encode() in file.read(name)


@pytest.mark.parametrize("name", ["os.system", "GANMethod", "Tensor", "importlib", "__doc__", ""])
def test_a_checkpoint_can_only_name_a_method_of_the_package(checkpoint, tmp_path, name):
    torch.save(read(checkpoint) | {"method": name}, tmp_path / "bad.ckpt")
    refused = f"bad.*expected (a method of gen.methods, got|options of) '?{name}"
    with pytest.raises(WeightsError, match=refused):
        gen.load(tmp_path / "bad.ckpt")
    export(checkpoint, tmp_path / "good.safetensors")
    state, meta = load_safetensors(tmp_path / "good.safetensors")
    save_file(state, tmp_path / "bad.safetensors", meta | {"method": name})
    with pytest.raises(WeightsError, match=refused):
        gen.load(tmp_path / "bad.safetensors")


def test_class_paths_in_a_checkpoint_are_never_imported(checkpoint, tmp_path, monkeypatch):
    Path(tmp_path, "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    saved = read(checkpoint)
    paths = {
        "_class_path": "evil_module.Evil",
        "_instantiator": "evil_module.make",
        "class_path": "evil_module.Evil",
    }
    bad = tmp_path / "bad.ckpt"
    torch.save(saved | {"hyper_parameters": saved["hyper_parameters"] | paths}, bad)
    last = fit("StarGAN", tmp_path / "run", f"--ckpt_path={bad}")
    assert read(last)["global_step"] == 2 and not set(paths) & set(read(last)["hyper_parameters"])
    with pytest.raises(WeightsError, match="expected options of StarGAN, got: .*class_path"):
        gen.load(bad)
    del paths["class_path"]
    torch.save(saved | {"hyper_parameters": saved["hyper_parameters"] | paths}, bad)
    assert type(gen.load(bad)) is StarGAN
    with pytest.raises(ValueError, match="blocked"):
        StarGAN.load_from_checkpoint(bad)
    assert "evil_module" not in sys.modules


def test_our_checkpoints_hold_no_class_path(checkpoint):
    saved = read(checkpoint)
    assert not [key for key in saved["hyper_parameters"] if key.startswith("_")]
    assert saved["method"] == "StarGAN" and saved["domains"] == ["bear", "cat", "dog"]
    plain = (int, float, str, bool)
    assert all(type(value) in plain for value in saved["hyper_parameters"].values())
    assert type(StarGAN.load_from_checkpoint(checkpoint)) is StarGAN


@pytest.mark.parametrize("break_it", ["empty", "half", "text", "no method", "no state"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_damaged_checkpoint_is_an_error_with_the_path(checkpoint, tmp_path, break_it, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".ckpt":
        path.write_bytes(checkpoint.read_bytes())
    else:
        export(checkpoint, path)
    data = path.read_bytes()
    if break_it in ("no method", "no state"):
        if suffix == ".ckpt":
            key = {"no method": "method", "no state": "state_dict"}[break_it]
            torch.save({k: v for k, v in read(path).items() if k != key}, path)
        else:
            state, meta = load_safetensors(path)
            if break_it == "no state":
                state = {k: v for k, v in state.items() if not k.startswith("generator")}
            save_file(state, path, meta if break_it == "no state" else {"hello": "you"})
    else:
        half = data[: len(data) // 2]
        path.write_bytes({"empty": b"", "half": half, "text": b"hello"}[break_it])
    with pytest.raises(WeightsError, match=f"x\\{suffix}.*expected"):
        gen.load(path)


def test_a_missing_checkpoint_is_an_error_with_the_path(tmp_path):
    for name in ("none.ckpt", "none.safetensors"):
        with pytest.raises((FileNotFoundError, WeightsError), match=name):
            gen.load(tmp_path / name)
        with pytest.raises((FileNotFoundError, WeightsError), match=name):
            fit("StarGAN", tmp_path / "run", init_from=tmp_path / name)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_tensor_of_another_shape_is_named_with_expected_and_got(checkpoint, tmp_path, suffix):
    path, key = tmp_path / f"x{suffix}", "generator.from_rgb.weight"
    if suffix == ".ckpt":
        saved = read(checkpoint)
        key = next(k for k in saved["state_dict"] if k.startswith("ema.module.generator"))
        saved["state_dict"][key] = torch.zeros(1, 2, 3)
        AtomicCheckpointIO().save_checkpoint(saved, path)
    else:
        export(checkpoint, path)
        state, meta = load_safetensors(path)
        key = next(k for k in state if k.startswith("generator"))
        save_file(state | {key: torch.zeros(1, 2, 3)}, path, meta)
    with pytest.raises(WeightsError, match=rf"{key}: expected shape \(.*\), got \(1, 2, 3\); give"):
        gen.load(path)


# ---- saving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_kill_9_during_a_save_leaves_the_previous_checkpoint(tmp_path, moment):
    path, started = tmp_path / "last.ckpt", tmp_path / "started"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"global_step": 1, "state_dict": {"w": torch.ones(100_000)}}, path)
    data = path.read_bytes()
    child = os.fork()
    if child == 0:  # hangs in the middle of the next save

        def hang(*_):
            started.touch()
            time.sleep(600)

        setattr(os, moment, hang)
        write_atomic(path, data[::-1])
        os._exit(0)
    deadline = time.time() + 120
    while not started.exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL and started.exists()
    assert len(list(tmp_path.glob(".*.tmp"))) == 1  # so it was in the middle
    saved = io.load_checkpoint(path)
    assert saved["global_step"] == 1 and saved["state_dict"]["w"].eq(1).all()


def test_disk_full_stops_clearly_and_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    full = []
    fsync = os.fsync

    def no_room(file):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    save = Last.save

    def fill_after_two(self, trainer):
        save(self, trainer)
        full.extend([1] * (trainer.global_step == 2))

    monkeypatch.setattr(os, "fsync", no_room)
    monkeypatch.setattr(Last, "save", fill_after_two)
    with pytest.raises(OSError, match=r"(?s)No space left.*intact; make room.*last\.ckpt") as error:
        fit("StarGAN", tmp_path, "--save_every=1", steps=9)
    assert error.value.errno == errno.ENOSPC
    assert read(tmp_path / "last.ckpt")["global_step"] == 2
    assert not list(tmp_path.rglob("*.tmp"))
    full.clear()
    assert read(fit("StarGAN", tmp_path, f"--ckpt_path={tmp_path / 'last.ckpt'}", steps=3))


def test_an_interrupted_export_leaves_the_previous_file(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "x.safetensors"
    write_atomic(out, b"before")

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(OSError, match="No space left"):
        export(checkpoint, out)
    assert out.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == [out.name]


# ---- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_within_one_iteration(tmp_path, monkeypatch, number):
    """The signal comes in the middle of iteration 3, which is the last, without a validation."""
    forward = GANMethod.step_rng

    def interrupted(self, seed):
        if self.global_step == 2:
            os.kill(os.getpid(), number)
        return forward(self, seed)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(GANMethod, "step_rng", interrupted)
    monkeypatch.setattr(GANMethod, "on_validation_start", pytest.fail)
    with pytest.raises(SystemExit) as stop:
        fit("StarGAN", tmp_path, "--trainer.limit_val_batches=1", steps=1000)
    assert stop.value.code == 128 + number
    assert read(tmp_path / "last.ckpt")["global_step"] == 3
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 300) -> None:
    deadline = time.time() + seconds
    while not path.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    assert path.exists(), "the run did not get so far"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_too_with_workers(tmp_path, number):
    """As Ctrl-C in a terminal, or a cluster's SIGTERM: the workers get it as well."""
    more = ("--data.num_workers=2", "--save_every=1")
    command = [sys.executable, "-m", "gen", *arguments("StarGAN", tmp_path, *more, steps=10**6)]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(tmp_path / "last.ckpt", process)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number, said[-2000:]
    assert "Traceback" not in said and "resumes it" in said
    step = read(tmp_path / "last.ckpt")["global_step"]
    assert f"Stopped at iteration {step};" in said


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    forward = GANMethod.step_rng

    def interrupted(self, seed):
        if self.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, seed)

    monkeypatch.setattr(GANMethod, "step_rng", interrupted)
    with pytest.raises(SystemExit) as stop:
        fit("StarGAN", tmp_path, steps=1000)
    assert stop.value.code and not (tmp_path / "last.ckpt").exists()


# ---- NaN ----------------------------------------------------------------------------------------


POISON = {"d/reg": torch.nan, "d/fake": torch.inf, "latent/sty": torch.inf, "ref/cyc": torch.nan}


@pytest.mark.parametrize("term, value", POISON.items())
def test_a_nan_stops_at_that_iteration_and_names_the_term(tmp_path, monkeypatch, term, value):
    phase, name = term.split("/")
    where = "discriminator_terms" if phase == "d" else "generator_terms"
    original = getattr(StarGAN, where)

    def poisoned(self, phases, *args):
        terms = original(self, phases, *args)
        at = phase == "d" or phases.name == phase
        if at and self.global_step == 2:
            terms[name] = terms[name] * value
        return terms

    monkeypatch.setattr(StarGAN, where, poisoned)
    with pytest.raises(NonFiniteLoss, match=rf"^iteration 3: .*{term}.* Its batch is in .*\.pt;"):
        fit("StarGAN", tmp_path, "--save_every=1", steps=1000, r1_every=1)
    saved = read(tmp_path / "last.ckpt")
    assert saved["global_step"] == 2
    assert all(v.isfinite().all() for v in saved["state_dict"].values())
    batch = torch.load(tmp_path / "nonfinite_3.pt", weights_only=True)
    assert {k: tuple(v.shape) for k, v in batch.items()} == {
        **{k: (2, 3, 32, 32) for k in ("x", "x_ref", "x_ref2")},
        **{k: (2,) for k in ("y", "y_ref")},
        **{f"attributes{k}": (2, 6) for k in ("", "_ref", "_ref2")},
        **{f"factors{k}": (2, 22) for k in ("", "_ref", "_ref2")},
    }


def test_weights_that_a_nan_gradient_has_touched_are_never_saved(tmp_path, monkeypatch):
    """All terms are finite, the gradient of the last step of the iteration is not."""
    update = GANMethod.update

    def poisoned(self, loss, *optimizers, last=False, **more):
        if last and self.global_step == 2:
            loss = loss * torch.tensor(1.0).requires_grad_()
            loss = loss + (loss - loss).sqrt()  # 0, with an infinite slope
        update(self, loss, *optimizers, last=last, **more)

    monkeypatch.setattr(GANMethod, "update", poisoned)
    with pytest.raises(NonFiniteLoss, match="iteration 3: expected finite weights.*generator"):
        fit("StarGAN", tmp_path, "--save_every=1", steps=1000)
    assert read(tmp_path / "last.ckpt")["global_step"] == 2
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true", "64-true"])
def test_other_precision_is_refused(precision):
    method = StarGAN(**WIDTHS)
    method._trainer = SimpleNamespace(precision=precision, strategy=None)  # the CPU has not all
    with pytest.raises(ValueError, match=f"expected 32-true or bf16-mixed, got {precision}"):
        method.on_fit_start()


def test_no_weight_at_all_is_refused():
    with pytest.raises(ValueError, match="expected a weight above 0, got none"):
        weighted_sum({}, {})


# ---- hygiene ------------------------------------------------------------------------------------


def test_importing_gen_is_quick_silent_and_light():
    code = """
import socket, sys, time
def blocked(*args, **kwargs): raise SystemExit("a socket was opened")
socket.socket = socket.create_connection = blocked
began = time.process_time()
import gen
from gen import load
took = time.process_time() - began
heavy = {"lightning", "wandb", "timm", "torchvision", "gradio", "matplotlib", "cv2"}
print({"took": took, "heavy": sorted(heavy & set(sys.modules))})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    [line] = done.stdout.splitlines()
    said = json.loads(line.replace("'", '"'))
    assert said["took"] < 1 and said["heavy"] == []

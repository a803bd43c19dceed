"""Mistakes are told in one line, with the way out, by `gen` and by every script."""

import argparse
import ast
import io
import json
import os
import re
import runpy
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import torch

import gen
from conftest import ROOT
from gen import tasks, verbs
from gen.cli import main
from gen.commands import number, plain_errors
from gen.evaluation.results import Results
from gen.files import WeightsError, sha256
from runs import CLASSIFIER, OPTIONS, TRAINER, WIDTHS, arguments, fit, flags, rows, ship

MINE = '''
from gen.methods.stargan import StarGAN


class Mine(StarGAN):
    """A method outside the package.

    Args:
        lambda_mine: weight of nothing.
    """

    def __init__(self, lambda_mine: float = 1.0, **options) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
'''


def told(monkeypatch, capsys, *words) -> str:
    """What the command `gen` writes last, when it fails."""
    monkeypatch.setattr(sys, "argv", ["gen", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code not in (0, None)
    message = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err
    [line] = message.strip().splitlines()
    return line


@pytest.mark.parametrize(
    "option, words",
    [
        ("--data=Domains --data.root=none", "none"),
        (
            "--data=Domains --data.root=caf\udce9",
            r"got '--data.root=caf\udce9'; rename it, or give",
        ),
        ("--ckpt_path=none.ckpt", "none.ckpt: expected a checkpoint"),
        ("--model.init_from=none.ckpt", "none.ckpt: expected a checkpoint"),
        ("--trainer.accelerator=gpu", "No supported gpu backend found"),
        ("--data.batch_size=0", "expected batch_size >= 1, got 0"),
        ("--trainer.logger=false", "--trainer.logger: expected nothing"),
    ],
)
def test_gen_tells_a_mistake_in_one_line(monkeypatch, capsys, tmp_path, option, words):
    if torch.cuda.is_available() and "gpu" in option:
        pytest.skip("this machine has a GPU")
    line = told(monkeypatch, capsys, *arguments("StarGAN", tmp_path), *option.split())
    assert line.startswith("error: ") and words in line


def test_gen_shows_where_other_code_failed(monkeypatch, tmp_path):
    """A mistake in a method that is being written keeps its traceback."""
    monkeypatch.setattr(
        "gen.methods.stargan.StarGAN.training_step", lambda *_: torch.zeros(2) @ torch.zeros(3)
    )
    monkeypatch.setattr(sys, "argv", ["gen", *arguments("StarGAN", tmp_path)])
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        main()


@pytest.mark.parametrize(
    "error, line",
    [
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file", "a.png"), "error: [Errno 2] No such file: 'a.png'"),
        (FileExistsError(17, "File exists", "out"), "error: out: expected a folder, got a file"),
        (FileExistsError("out: expected a new folder"), "error: out: expected a new folder"),
        (
            IsADirectoryError(21, "x", "out", None, "out"),
            "error: out: expected a file, got a folder",
        ),
        (
            OSError(28, "No space left", "a.png"),
            "error: a.png: expected space on the disk, got none;",
        ),
        (OSError(122, "Quota exceeded"), "error: expected space on the disk, got none; free some"),
        (WeightsError("expected a, got b"), "error: expected a, got b"),
        (ModuleNotFoundError("x", name="gradio.blocks"), "error: expected the extra demo, got no"),
    ],
)
def test_scripts_end_with_one_line(error, line):
    with pytest.raises(SystemExit) as end, plain_errors():
        raise error
    code = end.value.code
    assert code == line if isinstance(line, int) else code.startswith(line) and "\n" not in code


def test_an_error_of_a_method_of_your_own_keeps_its_traceback(monkeypatch):
    def fail():
        torch.zeros(2, 3) @ torch.zeros(2, 3)

    with pytest.raises(SystemExit), plain_errors():
        fail()
    for words in (["--method", "mine.Mine"], ["--method=mine.Mine"]):
        monkeypatch.setattr(sys, "argv", ["translate.py", *words])
        with pytest.raises(RuntimeError, match="shapes cannot be mult"), plain_errors():
            fail()
        with pytest.raises(SystemExit, match="error: none: expected a checkpoint"), plain_errors():
            gen.load("none")


def test_a_mistake_in_the_code_keeps_its_traceback():
    with pytest.raises(KeyError), plain_errors():
        {}["a"]
    with pytest.raises(ModuleNotFoundError), plain_errors():
        raise ModuleNotFoundError("x", name="something")


def test_a_command_prints_names_that_are_not_utf8(monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "utf-8", errors="strict"))
    with plain_errors():
        print(os.fsdecode(b"caf\xe9"), flush=True)
    assert printed.getvalue() == b"caf\\udce9\n"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_number_of_a_command_is_finite(value, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--psi", type=number)
    assert parser.parse_args(["--psi", "-0.5"]).psi == -0.5
    with pytest.raises(SystemExit):
        parser.parse_args([f"--psi={value}"])
    assert f"argument --psi: expected a finite number, got {value}" in capsys.readouterr().err


PROGRAMS = [*verbs.FILES.values(), *ROOT.glob("scripts/*.py")]
DOOR = """\"\"\"The same as `gen {}`.\"\"\"

from gen.verbs.{} import main

if __name__ == "__main__":
    main()
"""


def is_door(path: Path) -> bool:
    return "from gen.verbs" in path.read_text() and path.parent.name == "scripts"


def test_no_script_takes_another_kind_of_number():
    for path in PROGRAMS:
        assert "type=float" not in path.read_text() or path.stem == "evaluate", path


def test_every_script_ends_so():
    for path in PROGRAMS:
        assert is_door(path) or "@plain_errors()\ndef main(" in path.read_text(), path


def test_a_script_that_became_a_command_is_a_door_to_it():
    doors = [path for path in PROGRAMS if is_door(path)]
    assert len(doors) >= 12
    for path in doors:
        [stem] = re.findall(r"from gen\.verbs\.(\w+) import main", path.read_text())
        assert path.read_text() == DOOR.format(stem.rstrip("_"), stem), path


SCRIPTS = {
    "attention.py": "a.png --out o.png",
    "compare.py": "none.safetensors --data heads",
    "edit.py": "--classifier none.ckpt --set cat",
    "evaluate.py": "--data heads",
    "export.py": "--out o.safetensors",
    "generate.py": "",
    "interpolate.py": "a.png --domains cat",
    "translate.py": "--input a.png --out o --domain cat",
    "pictures.py": "",
    "make_report.py": "none",
    "quickstart.py": "--data none",
} | rows("SCRIPTS")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_missing_file_is_told_in_one_line(name, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {"compare.py": ["none.ckpt"], "make_report.py": [], "quickstart.py": []}
    words = given.get(name, ["--checkpoint", "none.ckpt"]) + SCRIPTS[name].split()
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    said = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err
    [line] = [one for one in said.splitlines() if "error: " in one]
    assert "none" in line and os.listdir(tmp_path) == []


KINDS = {  # of methods that a script does not take
    "attention.py": ["DomainClassifier", "StarGAN"],
    "edit.py": ["StarGAN", "DomainClassifier"],
    "generate.py": ["StarGAN", "DomainClassifier"],
    **dict.fromkeys(["interpolate.py", "pictures.py", "translate.py"], [
        next(name for name in OPTIONS if getattr(gen.methods, name).task == task)
        for task in tasks.TASKS
        if task not in ("translator", "editor")  # an editor needs files
    ]),
} | rows("KINDS")  # fmt: skip


@pytest.mark.parametrize("name, kind", [(name, kind) for name in KINDS for kind in KINDS[name]])
def test_a_checkpoint_of_another_kind_is_told_in_one_line(name, kind, monkeypatch, tmp_path):
    method, domains = getattr(gen.methods, kind)(**OPTIONS[kind]), ["a", "b"]
    path = ship(method, tmp_path / "x.safetensors", domains[: 2 * (kind != "StyleGAN2")])
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    words = SCRIPTS[name].replace("none.ckpt", str(path)).split()
    monkeypatch.setattr(sys, "argv", [name, "--checkpoint", str(path), *words])
    with pytest.raises(SystemExit, match=f"error: {path}: expected .*, got (a )?{kind}(, .*)?$"):
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    assert os.listdir() == []


@pytest.mark.parametrize(
    "words, told",
    [
        (
            "make_report.py . --checkpoint a.ckpt --data heads --shipped c.ckpt",
            "a translator between",
        ),
        ("compare.py a.ckpt b.ckpt --data heads --classifier a.ckpt", "a classifier of domains"),
    ],
)
def test_a_second_checkpoint_of_another_kind_is_told_in_one_line(
    words, told, monkeypatch, tmp_path
):
    files = dict(a="StarGAN", b="StarGAN", c="DomainClassifier")
    for name, kind in files.items():
        method = getattr(gen.methods, kind)(**OPTIONS[kind])
        ship(method, tmp_path / f"{name}.safetensors", ["a", "b"])
    monkeypatch.chdir(tmp_path)
    words = words.replace(".ckpt", ".safetensors").split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(
        SystemExit, match=rf"error: \w.safetensors: expected {told}.*, got \w+(, .*)?$"
    ):
        runpy.run_path(str(ROOT / "scripts" / words[0]), run_name="__main__")


def test_pictures_wants_rows(monkeypatch, tmp_path):
    words = ["--checkpoint", str(tmp_path / "x.safetensors"), "--sources", "0"]
    monkeypatch.setattr(sys, "argv", ["pictures.py", *words])
    with pytest.raises(SystemExit, match="--sources: expected at least 1, got 0"):
        runpy.run_path(str(ROOT / "scripts/pictures.py"), run_name="__main__")


def test_a_device_that_is_not_there_is_an_error(tmp_path):
    from gen.methods.stargan import StarGAN

    path = ship(StarGAN(**WIDTHS), tmp_path / "x.safetensors")
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(ValueError, match=f"expected one of this machine, got {device}: "):
            gen.load(path, device)


# ---- misspelt options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, near",
    [
        ({"model": {"class_path": "SmoothI2I", "init_args": {"lamda_sty": 1}}}, "lambda_sty"),
        ({"data": {"class_path": "Heads", "init_args": {"batchsize": 2}}}, "batch_size"),
        ({"trainer": {"max_step": 2}}, "trainer.max_steps"),
        ({"trainr": {"max_steps": 2}}, "trainer.max_steps"),
        ({"save_evry": 2}, "save_every"),
        ({"model": {"class_path": "StarGAM"}}, "StarGAN"),
        ({"model": {"clas_path": "StarGAN"}}, "class_path"),
    ],
)
def test_a_misspelt_key_names_the_nearest(capsys, tmp_path, config, near):
    config = {"model": {"class_path": "StarGAN"}, "data": "Heads"} | config
    (tmp_path / "x.yaml").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as end:
        main(["fit", "-c", str(tmp_path / "x.yaml"), f"--out={tmp_path / 'run'}"])
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.endswith(f"; did you mean {near}?")


@pytest.mark.parametrize(
    "option, words",
    [
        ("--model.lambda_stt=1", "did you mean lambda_sty?"),
        ("--trainer.max_step=1", "did you mean trainer.max_steps?"),
        ("--data.img_size=abc", "img_size: expected int, got abc"),
        ("--model.nothing_like_it=1", "--help and --model.help NAME list them"),
    ],
)
def test_a_misspelt_option_names_the_nearest(capsys, tmp_path, option, words):
    with pytest.raises(SystemExit):
        main([*arguments("StarGAN", tmp_path), option])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line


# ---- the folder of a run is a checkpoint --------------------------------------------------------


def test_a_run_folder_is_taken_wherever_a_checkpoint_is(tmp_path):
    run = fit("StarGAN", tmp_path / "run", steps=1).parent
    last, x, z = run / "last.ckpt", torch.zeros(1, 3, 32, 32), torch.ones(1, 4)
    want = gen.load(last).translate(x, 1, z=z)
    assert torch.equal(gen.load(run).translate(x, 1, z=z), want)
    gen.checkpoint.export(run, tmp_path / "x.safetensors")
    assert torch.equal(gen.load(tmp_path / "x.safetensors").translate(x, 1, z=z), want)
    fit("StarGAN", tmp_path / "tuned", steps=1, init_from=run)
    found = Results(None, {}, {"g": ""})
    found.take_set_values("g", [("m", "p", 1.0, 2, "none")])
    [row] = found.rows(["g"], [], "", 1, checkpoint=run)
    assert row["checkpoint_sha256"] == sha256(last)


# ---- a method outside the package ---------------------------------------------------------------


def test_a_method_outside_the_package_trains_loads_and_is_shown(tmp_path, monkeypatch):
    """By the command, from a folder that Python does not know."""
    (tmp_path / "mine.py").write_text(MINE)
    small = [*flags("model", WIDTHS), *flags("trainer", TRAINER | dict(max_steps=1))]
    data = ["--data=Heads", "--data.img_size=32", "--data.num_workers=0", "--data.batch_size=2"]
    command = [str(Path(sys.executable).with_name("gen")), "fit", "--model=mine.Mine"]
    done = subprocess.run(
        [*command, *small, *data, "--out=run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        WeightsError, match="expected a method of gen.methods, got 'Mine'; .*method"
    ):
        gen.load("run")
    assert type(gen.load("run", method="mine.Mine")).__name__ == "Mine"
    mine = sys.modules["mine"].Mine
    assert type(gen.load("run", method=mine)) is mine
    for wrong, why in [
        ("mine.Nobody", "expected package.Class"),
        ("nobody.Mine", "expected packa"),
    ]:
        with pytest.raises(WeightsError, match=why):
            gen.load("run", method=wrong)
    with pytest.raises(WeightsError, match="expected a checkpoint of StarGAN, got one of Mine"):
        gen.load("run", method="gen.methods.StarGAN")
    with pytest.raises(WeightsError, match="expected a class of a method, got .*int"):
        gen.load("run", method=int)
    words = ["--checkpoint", "run", "--input", "a.png", "--out", "o", "--domain", "cat"]
    from gen.data import Heads
    from gen.viz import to_pil

    to_pil(Heads(img_size=32, train_images=2, val_images=1).val[0]["x"]).save("a.png")
    monkeypatch.setattr(sys, "argv", ["translate.py", *words, "--method", "mine.Mine"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts/translate.py"), run_name="__main__")
    assert end.value.code == 0 and Path("o/a.png").exists()
    own = CLASSIFIER | dict(attributes="a,b", factors="c")
    judge = ship(gen.methods.AttributeClassifier(**own), tmp_path / "judge.safetensors")
    words = ["--translator", "run", "--editor", str(judge), "--method", "mine.Mine"]
    monkeypatch.setattr(sys, "argv", ["demo.py", *words])
    with pytest.raises(SystemExit, match="--editor .*editor of codes, got AttributeClassifier"):
        runpy.run_path(str(ROOT / "scripts/demo.py"), run_name="__main__")  # the first is taken


OF_ONE_METHOD = ("quickstart", "benchmark", "own_video")  # they train or measure a given method


def test_every_script_that_loads_a_method_takes_its_class():
    for path in PROGRAMS:
        if "gen.load(" in path.read_text() and path.stem not in OF_ONE_METHOD:
            assert '"--method", **METHOD' in path.read_text(), path
        if "load_any(" in path.read_text():  # one of several checkpoints
            assert '"--method", **' in path.read_text(), path


def test_the_class_is_of_any_checkpoint_that_is_asked_for():
    """`gen evaluate` has it for --checkpoint alone, as README says."""
    for path in PROGRAMS:
        if '"--method", **' in path.read_text() and path.stem != "evaluate":
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            loads = [n for n in calls if ast.unparse(n.func) in ("gen.load", "load_any")]
            assert loads and all(len(n.args) == 3 for n in loads), path
            assert len(loads) == 1 or "gen.load(" not in path.read_text(), path


def test_a_checkpoint_to_show_beside_may_be_of_a_class_of_your_own(tmp_path, monkeypatch):
    from gen.methods.stargan import StarGAN

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    from mine import Mine

    ship(StarGAN(**WIDTHS), tmp_path / "run.safetensors", ["a", "b"])
    ship(Mine(**WIDTHS), tmp_path / "mine.safetensors", ["a", "b"])
    shown = []
    monkeypatch.setattr("gen.report.build", lambda *_, shipped, **__: shown.append(shipped))
    words = ["--checkpoint", "run.safetensors", "--data", "heads", "--shipped", "mine.safetensors"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_report.py", ".", *words, "--method", "mine.Mine"])
    runpy.run_path(str(ROOT / "scripts/make_report.py"), run_name="__main__")
    assert [type(one).__name__ for one in shown] == ["Mine"]


def test_what_ships_is_found_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--help"])
    with suppress(SystemExit):
        runpy.run_path(str(ROOT / "scripts/demo.py"), run_name="__main__")
    assert "usage" in capsys.readouterr().out


def test_no_script_reads_by_default_from_the_folder_it_is_run_in():
    """Defaults that are paths as text are places to write."""
    for path in PROGRAMS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("add_argument", "add")
            ):
                for word in node.keywords:
                    if word.arg == "default" and isinstance(word.value, ast.Constant):
                        assert "/" not in str(word.value.value), (path, ast.unparse(node))


def test_two_classes_of_a_name_are_an_error(tmp_path, monkeypatch):
    """As when stargan.py is copied to mine.py: configs meant the copy, in silence."""
    import gen.methods
    from gen.methods.stargan import StarGAN

    folder = Path(gen.methods.__path__[0])
    for path in folder.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "mine.py").write_text((folder / "stargan.py").read_text())
    monkeypatch.setattr(gen.methods, "__path__", [str(tmp_path)])
    with pytest.raises(ImportError, match="one class StarGAN, got one in each of mine, stargan"):
        _ = gen.methods.StarGAN
    path = ship(StarGAN(**WIDTHS), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=f"{path}: .*one class StarGAN, got one in each of"):
        gen.load(path)


# ---- what is public -----------------------------------------------------------------------------


def test_dir_lists_what_is_public():
    assert {"load", "losses", "methods", "metrics", "data", "interpolation"} <= set(dir(gen))
    assert "importlib" not in dir(gen) and callable(gen.losses.style.shrinkage)
    assert {"adversarial", "style", "spatial_entropy"} <= set(dir(gen.losses))
    assert {"smoothness", "fidelity"} <= set(dir(gen.metrics))
    assert {"Domains", "Heads", "Classes"} <= set(dir(gen.data))
    names = dir(gen.methods)
    assert {"StarGAN", "SmoothI2I", "StyleGAN2"} <= set(names) and "Phase" not in names
    for package in (gen, gen.losses, gen.metrics, gen.networks, gen.data, gen.methods):
        assert all(getattr(package, name) is not None for name in dir(package))
        assert not [name for name in dir(package) if name.startswith("_") or name == "lazy"]
    assert [name for name in dir(gen) if not isinstance(getattr(gen, name), ModuleType)] == ["load"]

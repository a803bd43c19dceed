"""What an installed package brings: configs, names, light imports; a wheel in an empty folder."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import environment
import gen
import readme
from conftest import ROOT
from gen import commands, files, shipped
from gen.bench import claim
from gen.cli import main
from gen.networks.perceptual import cache_path
from gen.runs import find_configs
from runs import HEADS, QUIET, TRAINER, WIDTHS, flags

CONFIG = "configs/smooth_i2i/heads64_cpu.yaml"


def python(code: str, cwd: Path, **environment: str) -> str:
    """Prints of a program that has to end well."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# ---- configs and claims -------------------------------------------------------------------------


def test_a_config_that_is_not_here_is_that_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = files.PACKAGE / CONFIG
    assert own.is_file() and files.packaged(CONFIG) == own
    assert find_configs(["fit", "-c", CONFIG, f"--config={CONFIG}", f"-c{CONFIG}"]) == [
        *("fit", "-c", str(own), f"--config={own}", f"-c{own}")
    ]
    other = ["--data.root=http://a/configs/b", "configs/none.yaml", "my/configs/x.yaml", "-c", "x"]
    assert find_configs(other) == other
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_text("{}")
    assert files.packaged(CONFIG) == Path(CONFIG), "what is here comes first"


def test_the_package_has_all_configs():
    brought = {path.relative_to(files.PACKAGE) for path in (files.PACKAGE / "configs").rglob("*")}
    assert brought == {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*")}


def test_a_fit_with_a_packaged_config_runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [*flags("model", WIDTHS | dict(skip_px=0)), *flags("data", HEADS)]
    trainer = flags("trainer", TRAINER | QUIET | dict(max_steps=1))
    main(["fit", "-c", CONFIG, *small, *trainer, "--out", "run"])
    assert (
        yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]["img_size"] == 32
    )


def test_claims_are_listed_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["bench", "--list"])
    told = capsys.readouterr().out
    for path in (ROOT / claim.FOLDER).glob("*.yaml"):
        assert f"\n{path.stem} " in told


# ---- requirements and names ---------------------------------------------------------------------


def test_what_only_some_use_is_an_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed, extras = setup["options"]["install_requires"], setup["options.extras_require"]
    for name, extra in {"pytest": "test", "wandb": "wandb"}.items():
        assert name not in needed and name in extras[extra]
    for extra in extras:  # the tests need them all
        assert {*extras[extra].split("\n")} <= {*extras["test"].split("\n")}, extra


FIT = """
import sys
sys.modules["wandb"] = None  # as if it were not installed
from gen.cli import main
sys.argv = ["gen", *{words!r}]
main()
"""


def test_a_fit_needs_wandb_for_its_option_alone(tmp_path, monkeypatch):
    words = ["fit", "--model=StarGAN", "--data=Heads", *flags("model", WIDTHS)]
    words += [*flags("data", HEADS), *flags("trainer", TRAINER | QUIET | dict(max_steps=1))]
    python(FIT.format(words=[*words, "--out=run"]), tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(sys, "argv", ["gen", *words, f"--out={tmp_path / 'x'}", "--wandb=offline"])
    with pytest.raises(
        SystemExit, match=r'extra wandb, got no wandb; pip install -e "\.\[wandb\]"'
    ):
        main()
    assert not (tmp_path / "x").exists()


def test_a_function_and_a_class_have_a_name_in_their_package():
    assert gen.losses.shrinkage is gen.losses.style.shrinkage
    assert gen.metrics.InterpolationSmoothness.__module__ == "gen.metrics.smoothness"
    assert {"shrinkage", "style_triplet", "at_least_fp32"} <= {*dir(gen.losses)}
    assert gen.losses.spatial_entropy.__name__ == "gen.losses.spatial_entropy", "a module first"
    with pytest.raises(AttributeError, match="no attribute 'shrinkag'"):
        _ = gen.losses.shrinkag
    with pytest.raises(AttributeError, match="no attribute '_"):
        _ = gen.metrics._private


def test_a_name_that_two_modules_define_is_of_neither(monkeypatch, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f"def same(): pass\ndef {name}_alone(): return 1\n")
    monkeypatch.setattr(gen.losses, "__path__", [str(tmp_path)])
    assert gen.losses.one_alone() == 1 and "same" not in dir(gen.losses)
    with pytest.raises(AttributeError, match="same"):
        _ = gen.losses.same
    for name in ("gen.losses.one", "gen.losses.two"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(gen.losses, "one", raising=False)


def test_the_metric_alone_needs_neither_lightning_nor_timm(tmp_path):
    code = (
        "import sys, gen.metrics.smoothness\n"
        "print(*(m for m in ('lightning', 'timm', 'wandb', 'gradio') if m in sys.modules))"
    )
    assert python(code, tmp_path, PYTHONPATH=str(ROOT)) == "\n"


# ---- a wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The commands of an environment that has a wheel of a copy of the sources; see there."""
    pytest.importorskip("setuptools", reason="pip cannot build a wheel here", minversion="77")
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("environment")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.safetensors", "*.png", "*.gif")
    for name in ("gen", "configs", "data_prep", "checkpoints"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=skipped)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(copy / "dist")]
    subprocess.run([*pip, *build, str(copy)], check=True)
    [wheel] = (copy / "dist").glob("gen-*.whl")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    environment.make(folder, wheel, setup["options"]["install_requires"].split())
    return folder / "bin"


@pytest.fixture(scope="module")
def shipped_cache(tmp_path_factory) -> str:
    """A cache with all shipped checkpoints, which no release has yet, and the LPIPS weights."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "checkpoints").mkdir()
    for path in (ROOT / "checkpoints").glob("*.safetensors"):
        shutil.copy(path, cache / "checkpoints")
    if (weights := cache_path("alex")).exists():
        shutil.copy(weights, cache)
    return str(cache)


@pytest.fixture
def command(installed, tmp_path):
    """Runs a program of the environment, in an empty folder; what it prints."""
    (tmp_path / "empty").mkdir()

    def run(program: str, *words: str, code: int = 0, cache: str = "") -> str:
        own = {"PATH": f"{installed}:{os.defpath}", "HOME": str(tmp_path)}  # nothing of these tests
        done = subprocess.run(
            [installed / program, *words],
            cwd=tmp_path / "empty",
            env=own | {"GEN_CACHE": cache or str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, (done.stdout + done.stderr)[-3000:]
        return done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_a_wheel_has_what_its_commands_need(command, installed):
    [package] = installed.parent.glob("lib/*/site-packages/gen")
    assert command("python", "-c", "import gen; print(*gen.__path__)") == f"{package}\n"
    assert (package / "py.typed").exists()
    assert "\n translate " in command("gen", "--help")
    assert "\nsmooth_i2i " in command("gen", "bench", "--list")
    assert "  emoji  " in command("gen", "prepare", "--help")
    printed = yaml.safe_load(command("gen", "fit", "-c", CONFIG, "--print_config"))
    assert printed["model"]["class_path"].endswith("SmoothI2I")
    told = command("gen", "prepare", "own_emoji", "--out", "x", code=1)
    assert told == "error: expected the package resvg-py, got none: pip install resvg-py\n"
    told = command("gen", "verify", code=1)
    assert told.count("got neither, and no release has it yet") == len(shipped.manifest())


@pytest.mark.slow
def test_the_environment_of_a_wheel_has_no_extras(command):
    extras = {*commands.EXTRAS, "pytest", "ruff", "av"} - {"huggingface_hub"}  # timm requires it
    code = f"from importlib.util import find_spec as f; print([m for m in {extras} if f(m)])"
    assert command("python", "-c", code) == "[]\n"


@pytest.mark.slow
def test_a_wheel_trains_without_the_repository(command, shipped_cache, lpips_cache):
    small = [*flags("model", WIDTHS | dict(skip_px=0)), *flags("data", HEADS)]
    trainer = flags("trainer", TRAINER | QUIET | dict(max_steps=2))
    command("gen", "fit", "-c", CONFIG, *small, *trainer, "--out", "run", cache=shipped_cache)
    told = command("gen", "verify", "run")
    assert told.startswith("run/last.ckpt: SmoothI2I, a translator") and "iteration 2" in told


@pytest.mark.slow
def test_a_wheel_finds_all_checkpoints_by_name_in_the_cache(command, shipped_cache):
    told = command("gen", "verify", cache=shipped_cache)
    assert told.count(f"{shipped_cache}/checkpoints/") == len(shipped.manifest())


@pytest.mark.slow
@pytest.mark.parametrize("line", readme.of_the_package())
def test_commands_of_the_readme_run_with_a_wheel(
    line, command, shipped_cache, tmp_path, lpips_cache
):
    """Checkpoints are found by name; of the repository there is no more than drawn emoji."""
    if (ROOT / "data").exists():
        (tmp_path / "empty/data").symlink_to(ROOT / "data")
    for words in readme.shorten(line, tmp_path / "empty", "runs"):
        command(*words, cache=shipped_cache)


@pytest.mark.slow
def test_code_of_the_readme_runs_with_a_wheel(command, shipped_cache, lpips_cache):
    for code in readme.blocks("python")[:2]:
        command("python", "-c", code, cache=shipped_cache)

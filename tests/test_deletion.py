"""A method is deleted by its files and its row in gen/tasks.py: Click to Move, in a copy.

Whoever moves a file of Click to Move changes `GONE`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GONE = """
checkpoints/click_to_move_*
configs/click_to_move
data_prep/cityscapes_layout.py
data_prep/opencv_vtest.py
data_prep/verify_clips.py
data_prep/video*.py
docs/demo_click_to_move.gif
docs/methods/click_to_move.md
docs/movers.md
docs/notebooks/move.py
gen/data/clips
gen/data/movers
gen/demo/cut.*
gen/demo/move.py
gen/demo/stage.*
gen/evaluation/adaptor.py
gen/evaluation/animators.py
gen/evaluation/reactions.py
gen/export/animators.py
gen/export/web/mo[tv]*.js
gen/inference/cutting.py
gen/inference/dragging.py
gen/inference/past.py
gen/losses/motion.py
gen/inference/scenes.py
gen/inference/tracks.py
gen/methods/click_to_move.py
gen/networks/click_to_move
gen/verbs/cut.py
gen/verbs/move.py
gen/viz/motion.py
configs/claims/click_to_move*.yaml
scripts/click_to_move.py
scripts/own_video.py
scripts/own_video.sh
scripts/cut_out.py
tests/commands/test_benchmark_video.py
tests/commands/test_cut.py
tests/configs/older/click_to_move_*
tests/configs/saved/Cityscapes.yaml
tests/configs/saved/ClickToMove.yaml
tests/configs/saved/KITTI360.yaml
tests/configs/states/click_to_move_*
tests/data/test_cityscapes.py
tests/data/test_decoding.py
tests/data/test_kitti360.py
tests/data/test_movers.py
tests/data_prep/test_own_video.py
tests/data_prep/test_video.py
tests/demo/test_stage.py
tests/demo/test_stage_browser.py
tests/demo/test_stage_requests.py
tests/evaluation/test_adaptor.py
tests/evaluation/test_evaluate_animators.py
tests/export/test_animator_graph.py
tests/fuzz/click_to_move_doors.py
tests/inference/test_cutting.py
tests/inference/test_dragging.py
tests/inference/test_past.py
tests/inference/test_scenes.py
tests/inference/test_tracks.py
tests/literal_video.py
tests/losses/test_motion_losses.py
tests/methods/test_click_to_move.py
tests/methods/test_click_to_move_runs.py
tests/methods/watched/ClickToMove.json
tests/networks/test_click_to_move_networks.py
tests/networks/test_click_to_move_layers.py
tests/networks/test_click_to_move_rolling.py
tests/networks/test_object_graph.py
tests/rows_click_to_move.py
tests/viz/test_motion_viz.py
""".split()
ROW = r'    "animator": Task\((?:\n        .*)+\n    \),\n'  # of gen/tasks.py
SAMPLE = """
tests/commands/test_saved_configs.py
tests/convert/test_starganv2.py
tests/data/test_sampler.py
tests/demo/test_demo.py
tests/evaluation/test_compare.py
tests/files/test_checkpoint.py
tests/inference/test_editing.py
tests/losses/test_losses.py
tests/methods/test_projector.py
tests/metrics/test_smoothness.py
tests/networks/test_stargan_networks.py
tests/ops/test_fir.py
tests/test_architecture.py
tests/test_words.py
tests/viz/test_viz.py
""".split()  # one of each room, of the fast ones

IMPORT_ALL = """
import importlib, os, pkgutil, runpy, sys
from pathlib import Path
import gen
assert Path(gen.__file__).resolve() == Path("gen/__init__.py").resolve(), gen.__file__
for module in sorted(m.name for m in pkgutil.walk_packages(gen.__path__, "gen.")):
    if module != "gen.__main__":
        importlib.import_module(module)
for folder in ("scripts", "data_prep"):
    for path in sorted(Path(folder).glob("*.py")):
        sys.path.insert(0, str(path.parent.resolve()))
        try:
            runpy.run_path(str(path), run_name="imported")
        except Exception as error:
            raise AssertionError(f"{path}: {error}") from error
        sys.path.pop(0)
"""
LOAD_ALL = """
from pathlib import Path
import gen
files = sorted(Path("checkpoints").glob("*.safetensors"))
assert len(files) >= 6, files
for file in files:
    gen.load(file)
"""
ASK_ALL = """
import io, json, sys
from contextlib import redirect_stdout
from gen.cli import main
told = []
config = "configs/smooth_i2i/emoji64_cpu.yaml"
for words in ("--help", "--model.help SmoothI2I", f"-c {config} --print_config"):
    with redirect_stdout(io.StringIO()) as out:
        try:
            main(["fit", *words.split()])
        except SystemExit as end:
            assert not end.code, words
    told.append(out.getvalue())
json.dump(told, sys.stdout)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the list of files comes from git"),
]


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> Path:
    """A copy of the tree without Click to Move."""
    copy = tmp_path_factory.mktemp("without") / "tree"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for pattern in GONE:
        found = list(copy.glob(pattern))
        assert found, f"{pattern}: expected something to delete, got none"
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    table = copy / "gen/tasks.py"
    text, count = re.subn(ROW, "", table.read_text("utf-8"))
    assert count == 1, f"{table}: expected one row {ROW!r}, got {count}"
    table.write_text(text, "utf-8")
    return copy


def python(copy: Path, *words: str) -> str:
    """What a command of the copy prints; it has to end well."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_all_that_is_left_can_be_imported(without):
    python(without, "-c", IMPORT_ALL)


def test_the_other_checkpoints_load(without):
    python(without, "-c", LOAD_ALL)


def test_the_command_knows_the_other_methods_alone(without):
    options, method, config = json.loads(python(without, "-c", ASK_ALL))
    assert "SmoothI2I" in options and "Heads" in options
    assert "ClickToMove" not in options and "Movers" not in options
    assert "--model.lambda_tri" in method and "SmoothI2I" in config


def test_no_other_test_needs_it_to_begin(without):
    told = python(without, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--collect-only")
    assert "tests/methods/test_stylegan2.py" in told


def test_tests_of_every_room_pass(without):
    python(without, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *SAMPLE)

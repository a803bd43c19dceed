"""No command writes to what it has read."""

import ast
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import gen
from gen import files, verbs
from gen.cli import main
from gen.files import checkpoint_names, keep_inputs, only_writer, without_suffix
from gen.verbs import attention
from gen.verbs.evaluate import values_of
from runs import rows

ROOT = Path(__file__).resolve().parents[2]
READ_NOTHING = {
    "avatars",
    "emoji",
    "own_emoji",
    "mnist",
    "opencv_vtest",
    "cityscapes_layout",
}  # but what they fetch
SCRIPTS = [p for top in ("scripts", "data_prep", "gen/verbs") for p in ROOT.glob(f"{top}/*.py")]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder to work in, with photos and files that scripts take, in folders of their own."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/cat/a.png", "photos/dog/a.png", "edits.png", "frames.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "orange").save(name)
    for name in ("c.safetensors", "request.json", "x.md", "00-b.gif"):
        Path(name).write_text("read")
    (tmp_path / "run").mkdir()
    for name in ("last.ckpt", "config.yaml"):
        (tmp_path / "run" / name).write_text("data: {class_path: Domains, init_args: {root: run}}")
    os.symlink("photos/cat", "cats")
    os.link("photos/cat/a.png", "hard.png")
    return tmp_path


def test_a_read_file_is_told_by_its_real_path(photos):
    for read, write in [
        ("photos/cat/a.png", "photos/cat/a.png"),
        ("photos/cat/a.png", "photos/dog/../cat/a.png"),
        ("photos/cat/a.png", "cats/a.png"),
        ("hard.png", "photos/cat/a.png"),
        ("photos", "photos"),
        ("photos", "photos/out/new.png"),
        ("photos/cat", "cats"),
        ("cats", photos / "photos/cat/new.png"),
        ("run", "run/last.ckpt"),
    ]:
        with pytest.raises(ValueError, match=f"--out: expected .* is read, {read}, got {write};"):
            keep_inputs([None, read], ["elsewhere.png", write])
    (photos / "linked").mkdir()
    os.symlink("../photos", "linked/train")
    os.symlink("..", "linked/round")  # for ever
    with pytest.raises(ValueError, match="is read, linked, got photos/dog/b.png"):
        keep_inputs(["linked"], ["photos/dog/b.png"])


def test_looking_at_names_leaves_the_output_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict"))
    keep_inputs([], [])
    assert sys.stdout.errors == "strict"


def test_what_is_not_read_may_be_written(photos):
    keep_inputs(["photos", "missing"], ["photos2/a.png", "missing", "photo", None])
    keep_inputs(["photos/cat/a.png"], ["photos/cat/b.png"])
    keep_inputs(["run"], ["run/metrics.jsonl"])  # of a run only its checkpoints are read


@pytest.mark.parametrize(
    "command",
    [
        "translate --checkpoint c.safetensors --input photos --out photos --domain a",
        "translate --checkpoint c.safetensors --input photos --out photos/new --domain a",
        "translate --checkpoint c.safetensors --input photos/cat/a.png --out cats --domain a",
        "translate --checkpoint c.safetensors --input photos/cat/a.png --out . --domain a"
        " --ref a.png",
        "interpolate --checkpoint c.safetensors photos/cat/a.png --domains a b --out cats",
        "interpolate --checkpoint c.safetensors edits.png --domains a b --via photos/cat/a.png"
        " --out . --refs edits.png",
        "generate --checkpoint c.safetensors --out c.safetensors",
        "attention photos/cat/a.png --checkpoint c.safetensors --out hard.png",
        "edit --checkpoint c.safetensors --classifier c.safetensors edits.png --set a --out .",
        "export --checkpoint c.safetensors --out c.safetensors",
        "import_weights starganv2 c.safetensors --out c.safetensors",
        "import_weights starganv2 x.md --out x.safetensors",
        "make_report photos --data photos",
        "evaluate --checkpoint c.safetensors --data photos --out c.safetensors",
        "evaluate --checkpoint c.safetensors --data photos --out photos/rows.jsonl",
        "evaluate --checkpoint run --data photos --out run/last.ckpt",
        "compare c.safetensors run --data photos --out photos/compare",
        "pictures --checkpoint photos/c.safetensors --data photos",
        "quickstart --data photos --out photos/run",
        *(f"{name} {words}" for name, all_ in rows("WRITES").items() for words in all_),
        "shards photos photos/shards",
        "evaluate --checkpoint c.safetensors --data photos/{cat,cow}/a.png --out photos/cat/a.png",
    ],
)
def test_every_script_refuses_before_it_writes(photos, monkeypatch, capsys, command):
    name, *words = command.split()
    if "--ref" in words and name == "translate":
        os.rename("photos/dog/a.png", "a.png")  # what --input would be written to
    if name == "quickstart":
        monkeypatch.setattr("gen.commands.call", None)
    path = next(p for p in SCRIPTS if p.stem == name)
    before = {p: p.read_bytes() for p in photos.rglob("*") if p.is_file()}
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    monkeypatch.syspath_prepend(str(path.parent))
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().err
    assert "expected to write elsewhere than to what is read" in f"{stop.value} {said}"
    assert stop.value.code
    assert before == {p: p.read_bytes() for p in photos.rglob("*") if p.is_file()}


def test_a_run_does_not_train_into_its_data(photos):
    from gen.cli import main
    from runs import WIDTHS, flags

    for name in ("cat", "dog"):
        os.link("edits.png", f"photos/{name}/b.png")
    words = ["fit", "--model=StarGAN", *flags("model", WIDTHS), "--data=Domains"]
    with pytest.raises(ValueError, match="to what is read, photos, got photos/run"):
        main([*words, "--data.root=photos", "--trainer.accelerator=cpu", "--out=photos/run"])
    assert sorted(os.listdir("photos")) == ["cat", "dog"]


def test_every_script_that_takes_a_place_to_write_looks_first():
    """Also those to come."""
    for path in SCRIPTS:
        text = path.read_text()
        if '"--out"' in text and path.stem not in READ_NOTHING:
            names = {ast.unparse(n.func) for n in ast.walk(ast.parse(text)) if hasattr(n, "func")}
            assert "keep_inputs" in names, path.name


@pytest.mark.parametrize(
    "path, name",
    [("tri_0.1", "tri_0.1"), ("a/x_0.5.safetensors", "x_0.5"), ("0.5.ckpt", "0.5")]
    + [("rows.jsonl", "rows"), ("run.ckpt/", "run.ckpt")],
)
def test_a_dot_in_a_name_is_no_suffix(tmp_path, monkeypatch, path, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.ckpt").mkdir()
    assert without_suffix(path).name == name


def test_runs_whose_names_differ_behind_a_dot_are_compared(tmp_path, monkeypatch):
    """And their evaluations are kept apart."""
    monkeypatch.chdir(tmp_path)
    loaded = []

    def load(path, *_):
        loaded.append(str(path))
        if len(loaded) == 2:
            raise ValueError("both are known")

    monkeypatch.setattr(gen, "load", load)
    for name in ("tri_0.1", "tri_0.5"):
        (tmp_path / name).mkdir()
    script = str(ROOT / "scripts/compare.py")
    monkeypatch.setattr(sys, "argv", [script, "tri_0.1", "tri_0.5", "--data", "x"])
    with pytest.raises((ValueError, SystemExit), match="both are known"):
        runpy.run_path(script, run_name="__main__")
    assert loaded == ["tri_0.1/last.ckpt", "tri_0.5/last.ckpt"]
    names = ["tri_0.1", "tri_0.5", "rows.jsonl"]
    values = [str(values_of(Path(name))) for name in names]
    assert values == ["tri_0.1.values.jsonl", "tri_0.5.values.jsonl", "rows.values.jsonl"]
    assert attention.names(["tri_0.1", "tri_0.5"]) == ["tri_0.1", "tri_0.5"]


def test_the_checkpoint_of_a_run_has_the_name_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for paths, names in [
        (["a/last.ckpt", "b/last.ckpt", "runs/c"], ["a", "b", "c"]),
        (["a/best.ckpt", "b.safetensors", "d/../e/last.ckpt"], ["a", "b", "e"]),
        (["a/last.ckpt", "a/best.ckpt", "b"], ["a_last", "a_best", "b"]),
        (["x/a/last.ckpt", "y/a/last.ckpt"], ["a_last", "a_last"]),
        (["best.ckpt", "x.ckpt"], [tmp_path.name, "x"]),
    ]:
        assert checkpoint_names(paths) == names
    assert attention.names(["a/last.ckpt", "b/last.ckpt"]) == ["a", "b"]


def test_no_name_that_a_user_gives_is_cut_at_a_dot():
    """Beside `with_suffix`, which is for files of a known kind, as images."""
    for path in [*SCRIPTS, *ROOT.glob("gen/official*.py")]:
        cut = [line for line in path.read_text().splitlines() if ".with_suffix(" in line]
        assert len(cut) == (path == verbs.FILES["translate"]), path


# ---- one writer ---------------------------------------------------------------------------------

HOLD = """
import sys
from gen.files import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "words, file",
    [
        ("evaluate --checkpoint x.safetensors --data heads --out o/x.jsonl", "x.values.jsonl"),
        ("compare a.safetensors b.safetensors --data heads --out o", "compare.html"),
    ],
)
def test_two_processes_do_not_measure_into_one_file(words, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe, place = subprocess.PIPE, tmp_path / "o" / f".{file}.lock"
    command = [sys.executable, "-c", HOLD, f"o/{file}"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "held\n"
        told = re.escape(f"o/{file}: expected to write it alone, got another process, {other.pid}")
        with pytest.raises(SystemExit, match=f"^error: {told}, at it; wait for it, or choose ano"):
            main(words.split())
        other.kill()
    assert place.read_text() == str(other.pid)  # as a crash leaves it
    with pytest.raises(SystemExit, match=".safetensors: expected"):  # beyond the lock
        main(words.split())
    assert not place.exists()


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    place, lock, seen = tmp_path / ".x.lock", files.lock, []

    def late(*args, **options):
        lock(*args, **options)
        if not seen:
            place.unlink()  # by the process that had it
        seen.append(place.exists())

    monkeypatch.setattr(files, "lock", late)
    with only_writer(tmp_path / "x"):
        assert seen == [False, True] and place.read_text() == str(os.getpid())
        with pytest.raises(BlockingIOError), only_writer(tmp_path / "x"):
            pass
    assert os.listdir(tmp_path) == []

"""Other systems than Linux: what Windows and macOS lack, and how their files and links differ.

None of them is at hand, so this looks for what would fail there, and takes away what they lack.
"""

import ast
import configparser
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from conftest import ROOT
from gen import commands, files, hub, runs, shipped
from gen.cli import main
from gen.data import base, remote
from gen.files import WeightsError
from runs import HEADS, QUIET, TRAINER, WIDTHS, flags

SOURCES = [p for top in ("gen", "scripts", "data_prep", "docs") for p in (ROOT / top).rglob("*.py")]
LINKS = {"configs": "../configs", "data_prep": "../data_prep"}
LINKS |= {"checkpoints.json": "../checkpoints/manifest.json"}
RESERVED = {"con", "prn", "aux", "nul", *(f"{n}{k}" for n in ("com", "lpt") for k in range(10))}


def is_allowed(name: str) -> bool:
    """True for the name of a file or folder that Windows allows."""
    odd = re.search(r'[<>:"/\\|?*\x00-\x1f]', name) or name[-1:] in (".", " ")
    return bool(name) and not odd and name.partition(".")[0].lower() not in RESERVED


# ---- Windows: names, texts, links ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name, allowed",
    [("a.py", True), ("a:b", False), ("a.", False), ("nul.txt", False), ("a?", False)],
)
def test_names_that_windows_refuses_are_found(name, allowed):
    assert is_allowed(name) is allowed


def test_windows_allows_every_name_of_the_tree():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the list of files comes from git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    names = listed.splitlines()
    assert len(names) > 200
    assert [n for n in names if not all(map(is_allowed, n.split("/")))] == []
    assert len({name.lower() for name in names}) == len(names), "two names differ in case alone"
    assert max(map(len, names)) < 120  # 260 with the folder of a user


def text_calls(source: str) -> list[str]:
    """Calls that read or write text in the encoding of the system: of Windows, not UTF-8."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = ast.unparse(node.func).rpartition(".")[0]
        words = [a.value for a in node.args if isinstance(a, ast.Constant)]
        keys = {k.arg for k in node.keywords}
        if keys & {"encoding", None} or "utf-8" in words or owner in OTHER_OPENERS:
            continue
        words += [getattr(k.value, "value", "") for k in node.keywords if k.arg == "mode"]
        binary = any(isinstance(w, str) and re.fullmatch("[rwax]b[+]?", w) for w in words)
        if name in ("read_text", "write_text") or name == "open" and not binary:
            found.append(f"{node.lineno}: {ast.unparse(node)[:80]}")
    return found


OTHER_OPENERS = {"Image", "gen.data", "gzip", "opener", "tarfile", "av", "os", "zipfile", "data"}


def test_all_texts_are_utf8():
    assert len(SOURCES) > 100
    found = {str(p.relative_to(ROOT)): bad for p in SOURCES if (bad := text_calls(p.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "line, bad",
    [
        ("p.read_text()", 1),
        ("open(p)", 1),
        ("p.open('a')", 1),
        ("p.write_text(x)", 1),
        ("p.read_text('utf-8')", 0),
        ("open(p, 'rb')", 0),
        ("open(p, encoding='utf-8')", 0),
        ("Image.open(p)", 0),
    ],
)
def test_texts_in_the_encoding_of_the_system_are_found(line, bad):
    assert len(text_calls(line)) == bad


@pytest.fixture
def plain_checkout(tmp_path):
    """A clone as git makes it without links: in place of each a file with the text of the link."""
    clone = tmp_path / "clone"
    skip = shutil.ignore_patterns("__pycache__", *LINKS)
    shutil.copytree(ROOT / "gen", clone / "gen", ignore=skip)
    for name in ("configs", "data_prep"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "checkpoints", clone / "checkpoints")
    shutil.copy(ROOT / "setup.cfg", clone)
    for name, target in LINKS.items():
        assert os.readlink(ROOT / "gen" / name) == target
        (clone / "gen" / name).write_text(target)
    return clone


def test_a_checkout_without_links_works(plain_checkout, tmp_path):
    """From a folder elsewhere, where only the package can have the configs."""

    code = (
        "import gen; from gen import shipped, runs, verbs; from gen.verbs import prepare;"
        "print(gen.__file__, shipped.find('domain_classifier_emoji64'), prepare.own('data_prep'),"
        " runs.find_configs(['configs/stargan/emoji64_cpu.yaml']), *prepare.recipes());"
        "verbs.run(['bench', '--list'])"
    )
    own = dict(PYTHONPATH=str(plain_checkout), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | own, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told, *claims = done.stdout.splitlines()
    assert told.count(str(plain_checkout)) == 4 and "emoji64_cpu.yaml" in told and " emoji " in told
    assert [line for line in claims if line.startswith("smooth_i2i ")]


def test_a_package_of_texts_of_links_says_what_to_do(tmp_path, monkeypatch):
    """A wheel that was built there has the text in place of a file, and nothing for a folder."""
    way_out = "git config core.symlinks true, git checkout -- gen"
    monkeypatch.setattr(files, "PACKAGE", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints.json").write_text(LINKS["checkpoints.json"])
    for name in LINKS:
        with pytest.raises(WeightsError, match=f"{name}: expected what .* got none, .*{way_out}"):
            files.own(name)
    for words in ["prepare", "--help"], ["prepare", "mnist"], ["bench", "--list"]:
        with pytest.raises(SystemExit, match=way_out):
            main(words)
    with pytest.raises(WeightsError, match=way_out):
        main(["fit", "-c", "configs/smooth_i2i/emoji64_cpu.yaml"])


def test_own_files_are_found_through_links_and_beside_them():
    for name, target in LINKS.items():
        assert files.own(name).resolve() == (ROOT / "gen" / target).resolve()
    assert files.packaged("configs/none.yaml") == Path("configs/none.yaml")


@pytest.mark.parametrize("name", ["hf://owner/name@v1", "hf://owner/name"])
def test_names_of_the_hub_are_paths_of_windows_too(name):
    path = PureWindowsPath(name)
    assert path.as_posix().startswith(hub.START) and path.drive == ""
    assert hub.parse(path.as_posix()) == hub.parse(name)


def test_names_of_shipped_checkpoints_are_paths_of_windows_too():
    assert PureWindowsPath(r"checkpoints\x.safetensors").as_posix() == "checkpoints/x.safetensors"
    assert shipped.name_of("checkpoints/domain_classifier_emoji64.safetensors")


# ---- Windows: locks, processes, signals ---------------------------------------------------------


@pytest.fixture
def windows(monkeypatch):
    """What Windows has not is gone, and msvcrt is there."""
    import fcntl

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError(errno.EACCES, "Permission denied") from error

    for module in (files, commands):
        monkeypatch.setattr(module, "WINDOWS", True)
    monkeypatch.setattr(commands, "HANGUP", None)
    for module, names in {
        signal: ("SIGHUP", "SIGKILL", "SIGALRM", "sigwaitinfo", "pthread_sigmask"),
        os: ("fork", "killpg", "sysconf"),
    }.items():
        for name in names:
            monkeypatch.delattr(module, name)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("os.kill(.., 0) ends it on Windows"))


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "wb")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def held(tmp_path):
    """Holds a file in another process; the function that it gives lets go."""
    path, pipe = tmp_path / "run.lock", subprocess.PIPE
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout.readline() == "held\n"
        yield path, lambda: print(file=child.stdin, flush=True)
        child.stdin.close()


def test_a_run_that_another_process_trains_is_refused_on_windows(held, windows, tmp_path):
    _, let_go = held
    with pytest.raises(BlockingIOError, match="one that another process trains in now; wait"):
        runs.lock(tmp_path / "run")
    let_go()
    for _ in range(200):
        try:
            os.close(runs.lock(tmp_path / "run"))
            break
        except BlockingIOError:
            time.sleep(0.1)
    assert (tmp_path / "run").is_dir() and [*(tmp_path / "run").iterdir()] == []


def test_a_lock_is_waited_for_on_windows(held, windows, monkeypatch):
    path, let_go = held
    sleep, times = time.sleep, []

    def slept(seconds: float) -> None:
        times.append(seconds)
        if len(times) == 3:
            let_go()
        sleep(seconds)

    monkeypatch.setattr(files.time, "sleep", slept)
    with open(path, "rb+") as file:
        files.lock(file.fileno())
    assert len(times) >= 3


def test_a_fetch_locks_on_windows(windows, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_download", lambda url, part, most: (part.write_bytes(b"x"), "s"))
    assert remote.fetch("http://a/x", 9, to=tmp_path / "x").read_bytes() == b"x"


def test_leftovers_go_after_an_hour_on_windows(windows, tmp_path):
    node = files.platform.node()
    old, new = (tmp_path / f".x.{node}.{pid}.tmp" for pid in (1, 2))
    for path in (old, new):
        path.write_bytes(b"left")
    os.utime(old, (0, 0))
    files.write_atomic(tmp_path / "x", b"whole")
    assert not old.exists() and new.exists() and (tmp_path / "x").read_bytes() == b"whole"


def test_commands_run_without_hangup_and_groups(windows):
    end = [sys.executable, "-c", "import sys; sys.exit(3)"]
    assert commands.call(*end) == 3 and commands.call_each([end, end], 2) == [3, 3]
    before = signal.getsignal(signal.SIGTERM)
    with commands.caught(lambda number: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number, sent", [(signal.SIGINT, []), (signal.SIGTERM, [signal.SIGTERM])])
def test_a_child_gets_no_second_ctrl_c_on_windows(windows, monkeypatch, number, sent):
    """A console gives it to all of its processes; send_signal knows only how to end one."""
    got = []

    class Child:
        def __init__(self, *_, **__):
            pass

        def send_signal(self, number):
            got.append(number)

        def wait(self):
            signal.raise_signal(number)
            return 0

    monkeypatch.setattr(commands.subprocess, "Popen", Child)
    assert commands.call("x") == 0 and got == sent


def test_workers_do_without_signals_that_macos_and_windows_lack(monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.delattr(signal, "sigwaitinfo")
    monkeypatch.setattr(signal, "pthread_sigmask", pytest.fail)
    try:
        base._obey_parent(0)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "posix"}
LACKING = {
    "os": "fork killpg getuid geteuid sysconf waitid mkfifo chown uname",
    "signal": "SIGHUP SIGKILL SIGALRM SIGUSR1 SIGUSR2 sigwaitinfo pthread_sigmask alarm",
}
KNOWN = {  # for a cluster, or behind a question
    ("gen/bench/jobs.py", "os.killpg"), ("gen/bench/jobs.py", "os.waitid"),
    ("gen/bench/jobs.py", "signal.SIGUSR2"), ("gen/commands.py", "os.killpg"),
    ("gen/data/base.py", "signal.sigwaitinfo"), ("gen/data/base.py", "signal.pthread_sigmask"),
    ("gen/data/domains.py", "os.sysconf"), ("gen/files.py", "fcntl"),
}  # fmt: skip


def test_nothing_else_uses_what_windows_lacks():
    lacking = {f"{m}.{name}" for m, names in LACKING.items() for name in names.split()}
    found = set()
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {a.name for a in node.names} | {getattr(node, "module", "")}
                found |= {(name, n) for n in names & POSIX}
            elif isinstance(node, ast.Attribute) and ast.unparse(node) in lacking:
                found.add((name, ast.unparse(node)))
    assert found == KNOWN


def test_free_memory_is_read_from_windows(windows, monkeypatch):
    import ctypes

    from gen.data import domains

    def status(state) -> None:
        assert state[0] == 64
        state[1], state[2] = 16 * 2**30, 5 * 2**30

    kernel = SimpleNamespace(GlobalMemoryStatusEx=status)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(domains, "Path", lambda _: SimpleNamespace(exists=lambda: False))
    assert domains._free_bytes() == 5 * 2**30


# ---- wheels for each system ---------------------------------------------------------------------

UV = """#!/usr/bin/env bash
cat > "$(dirname "$0")/requirements"
echo "$MACOSX_DEPLOYMENT_TARGET $*" >> "$(dirname "$0")/asked"
case "$*" in *x86_64-apple*) echo "no wheels" >&2; exit 1 ;; *) printf 'torch==2\\nx==1\\n' ;; esac
"""


def test_each_system_and_python_is_asked_for(tmp_path):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (tmp_path / "uv").write_text(UV)
    (tmp_path / "uv").chmod(0o755)
    script = ["bash", ROOT / "scripts/resolve.sh"]
    own = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(script, env=own, capture_output=True, text=True, check=True)
    systems = [line.split(" ", 2) for line in done.stdout.splitlines()]
    pythons = set(re.findall(r":: (3\.\d+)$", setup["metadata"]["classifiers"], re.M))
    assert {p for _, p, _ in systems} == pythons and len(systems) == 5 * len(pythons)
    told = {system: answer for system, _, answer in systems}
    assert told.pop("x86_64-apple-darwin").strip() == "no: no wheels"
    assert len(told) == 4 and {*told.values()} == {"2 wheels, torch==2"}
    asked = (tmp_path / "asked").read_text().splitlines()
    assert all(line.startswith("14.0 ") and " --only-binary :all: " in line for line in asked)
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    assert (tmp_path / "requirements").read_text().split() == wanted.split()


def test_without_uv_it_is_asked_for():
    script, own = ROOT / "scripts/resolve.sh", {"PATH": "/bin:/usr/bin"}
    if shutil.which("uv", path=own["PATH"]):
        pytest.skip("uv is installed for all")
    done = subprocess.run(["bash", script], env=own, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "expected uv, got none: pip install uv\n")


# ---- macOS: what MPS lacks ----------------------------------------------------------------------

FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
DOORS = [ROOT / "gen/__main__.py", *sorted(ROOT.glob("scripts/*.py"))]
ON_NO_MPS = {"quickstart.py", "own_video.py"}  # they use a CPU or CUDA, and train by `gen fit`
LOADED = f"""
import os, runpy, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Watch())
try:
    runpy.run_path(sys.argv[1], run_name="door")
except KeyboardInterrupt:
    pass
print(os.environ.get("{FALLBACK}"))
"""


@pytest.mark.parametrize(
    "door", [d for d in DOORS if d.name not in ON_NO_MPS], ids=lambda d: d.name
)
def test_what_mps_lacks_runs_on_the_cpu(door):
    """In `gen` and in scripts: PyTorch looks at this when it is loaded, and never again."""
    own = {k: v for k, v in os.environ.items() if k != FALLBACK} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, door], env=own, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr


MINE = """
import warnings
from gen.methods.stargan import StarGAN

class Mine(StarGAN):
    def weights(self, iteration):
        warnings.warn("The operator 'aten::x' is not currently supported on the MPS backend and "
                      "will fall back to run on the CPU.", stacklevel=1)
        return super().weights(iteration)
"""


def test_that_it_runs_on_the_cpu_is_told_once(tmp_path):
    """By a warning of PyTorch, of which there is one in a process; no filter of ours hides it."""
    (tmp_path / "mine.py").write_text(MINE)
    words = ["fit", "--model=mine.Mine", "--data=Heads", "--out=run", *flags("model", WIDTHS)]
    words += [*flags("data", HEADS), *flags("trainer", TRAINER | QUIET | dict(max_steps=2))]
    done = subprocess.run(
        [sys.executable, "-m", "gen", *words], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if "UserWarning: The operator" in line]
    assert done.returncode == 0 and len(told) == 1, done.stderr[-2000:]

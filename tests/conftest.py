"""Fixtures of all tests, and the rule that no test reaches out: sockets are blocked."""

import os
import shutil
import signal
import socket
from pathlib import Path

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch: spinning threads can be 15x slower
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    # ignored in a job of `nohup` or of `&`, and then in all that tests start and stop by it
    if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Connections beyond this machine fail; loopback and Unix sockets serve DDP and workers."""
    connect = socket.socket.connect

    def guarded(self, address):
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            raise OSError(f"a test may not reach the network, it tried {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def specs() -> Path:
    """The folder of specifications beside a checkout; tests that need it skip without it."""
    path = ROOT.parent / "shared" / "specs"
    if not path.exists():
        pytest.skip("no specifications beside this checkout")
    return path


@pytest.fixture
def small_files(monkeypatch):
    """Files of large networks are of one number a tensor: torch's own reader expands these."""
    from gen.convert import starganv2 as official
    from gen.pickles import files as pickle_file

    def read(path, wanted):
        return torch.load(path, weights_only=True)

    monkeypatch.setattr(official, "read_pickle", read)
    monkeypatch.setattr(pickle_file, "read_pickle", read)


@pytest.fixture(scope="session")
def lpips_cache():
    """The cached LPIPS weights; tests that need them skip without them."""
    from gen.networks.perceptual import cache_path

    if not cache_path("alex").exists():
        pytest.skip("no LPIPS weights in the cache: python -m gen.networks.perceptual fetches them")


@pytest.fixture
def features(monkeypatch):
    """EfficientNet-Lite0 with random weights: its features are as many."""

    from gen.networks.backbones import _timm

    class Random:
        def __init__(self):
            torch.manual_seed(0)
            self.net = _timm(0).to_empty(device="cpu")
            for value in self.net.state_dict().values():
                if value.is_floating_point():
                    value.normal_(0, 0.1).abs_() if value.ndim == 1 else value.normal_(0, 0.1)
            self.net.eval().requires_grad_(False)

    monkeypatch.setattr("gen.networks.feature_discriminator.EfficientNetLite0", Random)


@pytest.fixture(scope="session")
def i3d():
    """I3D with random weights of a size that keeps what it sees."""
    from gen.networks.i3d import I3D

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = I3D().requires_grad_(False).eval()
        for name, value in net.named_parameters():
            if name.endswith("conv3d.weight"):
                torch.nn.init.kaiming_normal_(value)
    return net


@pytest.fixture(scope="session")
def edited(tmp_path_factory) -> dict[str, str]:
    """Options of editors of codes: files of a tiny untrained generator and judge that fit them."""
    from runs import edited_files

    return edited_files(tmp_path_factory.mktemp("edited"))


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True)
def nothing_left_of_ddp():
    """A trainer with plain ddp opens a process group in this process, and metrics would gather from
    it; it also sets LOCAL_RANK, and a `gen fit` started later would wait for a launcher."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def browser():
    """Chromium."""
    from demo_browser import KEPT

    KEPT.mkdir(parents=True, exist_ok=True)
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory, browser):
    """Address of a running demo."""
    from demo_server import demo

    with demo(tmp_path_factory.mktemp("demo")) as address:
        yield address


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A client of a running demo, and the folder in which it writes."""
    from demo_client import Client
    from demo_server import demo

    folder = tmp_path_factory.mktemp("demo")
    Image.new("RGB", (16, 16), "red").save(folder / "canary.png")
    with demo(folder) as address:
        client = Client(address)
        client.before = {path.name for path in folder.iterdir()}
        yield client, folder

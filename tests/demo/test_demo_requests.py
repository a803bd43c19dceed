"""What the demo's server answers to what no browser would send."""

import contextlib
import json
import re
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from demo_client import Client, opened, picture, values
from demo_server import demo
from runs import rows

UNCLEAN = ("Traceback", "object has no attribute", 'File "', "NoneType", "site-packages")
FILE = re.compile(r"passwd|canary|CANARY|file://")  # none of these is ever read
DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]
WRONG = [
    None, "", "x" * 10_000, "../../etc/passwd", "__class__", -1, 1e308, 10**30, True, [], [[]],
    {}, {"path": None}, {"path": "/etc/passwd"}, {"path": "CANARY"}, DEEP,
    {"path": "../../../etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"path": "CANARY", "meta": {"_type": "gradio.FileData"}},
    {"url": "file:///etc/passwd", "path": "a.png", "meta": {"_type": "gradio.FileData"}},
    {"x": 1}, *rows("WRONG").values(),
]  # fmt: skip


def test_valid_first(server):
    """Every handler answers what the page holds when it opens, but for what is not there yet."""
    client, _ = server
    session, refused = opened(client), set()
    click = dict(event_data={"index": 1, "value": "cat", "selected": True})
    for handler, inputs in client.handlers:
        given = [0] if inputs and inputs[0]["type"] == "dataset" else values(inputs)
        message = client.call(handler, given, session_hash=session, **click)
        if not message["success"]:
            refused.add(message["output"]["error"].split(",")[0])
    assert refused <= {"expected a picture to save", "expected a video to save",
                       "expected a photo", "image: expected an uploaded file"}  # fmt: skip


def test_what_was_dropped_is_told(server):
    client, _ = server
    for name in ("predict", "render"):
        ((handler, inputs),) = client.named(name)
        message = client.call(handler, values(inputs))  # of a page that nobody opened
        assert "gone by now; reload the page" in message["output"]["error"]


def test_the_queue_is_the_only_way_and_has_an_end(server):
    client, _ = server
    ((handler, inputs),) = client.named("render")
    body = {"data": values(inputs), "fn_index": handler, "session_hash": "abc"}
    for way in ("/run/predict", "/run/render", "/api/predict"):
        assert client.ask(way, json.dumps(body).encode())[0] in (404, 405, 422), way
    with ThreadPoolExecutor(8) as people:
        join = lambda k: client.ask("/queue/join", json.dumps(body).encode())[0]  # noqa: E731
        answers = list(people.map(join, range(60)))
    assert answers.count(200) >= 32 and answers.count(503) >= 20
    end = time.monotonic() + 60
    while client.call(handler, values(inputs)).get("status") == 503:  # others find room again
        assert time.monotonic() < end
        time.sleep(0.5)


def test_other_names_of_this_machine_are_refused(server):
    client, _ = server
    request = urllib.request.Request(client.api.removesuffix("/gradio_api") + "/config")
    request.add_header("Host", "evil.example")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=20)


def test_two_hundred_wrong_requests(server):
    client, folder = server
    canary, sent, answered, session = str(folder / "canary.png"), 0, set(), opened(client)
    for handler, inputs in client.handlers:
        valid = [part["props"].get("value") for part in inputs]
        wrongs = [json.loads(json.dumps(w).replace("CANARY", canary)) for w in WRONG]
        bodies = [valid[:-1], [*valid, 1], []] if inputs else [[1]]
        for k, part in enumerate(inputs):
            if part["type"] != "state":
                bodies += [[*valid[:k], w, *valid[k + 1 :]] for w in wrongs[sent % 3 :: 3]]
        for body in bodies:
            message = client.call(handler, body, session_hash=session)
            sent += 1
            assert not (message["success"] and FILE.search(json.dumps(body))), body
            if not message["success"]:
                text = message["output"]["error"]
                assert text and not any(word in text for word in UNCLEAN), (body, text)
                assert str(folder) not in text and canary not in text
                answered.add(text)
    assert sent >= 200 and len(answered) > 10


def test_wrong_uploads(server):
    client, folder = server
    whole = picture("PNG")
    contents = [
        b"",
        b"x",
        whole[:40],
        whole,
        b"GIF89a" + b"\0" * 50,
        b"<svg onload='x'/>",
        picture("TIFF"),
    ]
    names = ["a.png", "../../a.png", "/etc/passwd", "..\\a.png", "%2e%2e%2fa.png", ".hidden",
             "a" * 300 + ".png", "a.svg", "a.html", "", "con", "a\tb.png"]  # fmt: skip
    photo = next(
        (handler, inputs, k)
        for handler, inputs in client.handlers
        for k, part in enumerate(inputs)
        if part["type"] == "image" and len(inputs) == 1
    )
    for name in names:
        for content in contents:
            status, text = client.upload(name, content)
            if status != 200:
                assert not any(word in text for word in UNCLEAN), text
                continue
            path = Path(json.loads(text)[0])
            assert path.resolve().is_relative_to(folder), path
            assert path.suffix in (".png",), (name, path)
            if content is whole:
                continue  # projecting it takes long
            given = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
            message = client.call(photo[0], [given])
            assert not message["success"]
            assert not any(word in message["output"]["error"] for word in UNCLEAN)
    assert client.upload("big.png", bytes(11 * 2**20)) == (
        413, "expected at most 10 MB, got more; shrink it"
    )  # fmt: skip
    status, text = client.upload("a.html", whole)
    assert status == 415 and "expected one PNG" in text
    for name in ('filename="b.png"', "filename=b.html", "filename*=utf-8''b.html"):
        for also in (f'form-data; name="files"; {name}', f"form-data;{name}; name=files"):
            status, text = client.upload("a.png", whole, also)
            assert status == 415 and "expected one PNG" in text
    assert client.upload('a.png"; filename="b.html', whole)[0] == 415
    for name in ("a.png", "A.JPEG", "b b.webp"):
        assert client.upload(name, whole)[0] == 200


def test_other_doors_are_closed(server):
    """Whatever else Gradio would answer, some of it by storing or fetching something."""
    client, folder = server
    whole, before = picture("PNG"), set(folder.rglob("*"))
    for way in ("/process_recording", "/component_server", "/upload/../process_recording"):
        assert client.upload("a.png", whole, way=way)[0] == 404
    for way in ("/deep_link?session_hash=abc", "/file=http://127.0.0.1:9/x", "/file=HTTP://a.b",
                "/proxy=http://127.0.0.1:9/x", "/run/show", "/call/show", "/info/x"):  # fmt: skip
        assert client.ask(way)[0] == 404, way
    assert set(folder.rglob("*")) == before


def large_requests(client: Client) -> None:
    """Are refused before they are read, so at once."""
    began, body = time.monotonic(), b'{"data": [' + b"0," * 20 * 2**20 + b"0]}"
    for way in ("/queue/join", "/cancel", "/upload"):
        # the server may close the line on a body of which it has enough
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            status, text = client.ask(way, body)
            assert status == 413 and "expected at most" in text
    assert time.monotonic() - began < 5


def test_large_requests(server):
    client, _ = server
    before = resident_mb(client)
    large_requests(client)
    assert resident_mb(client) < before + 100


def test_no_file_of_this_machine_is_served(server):
    client, folder = server
    for path in (
        "/etc/passwd",
        str(folder / "canary.png"),
        "setup.cfg",
        "../setup.cfg",
        "%2fetc%2fpasswd",
    ):
        for way in ("/file=", "/file/"):
            status, text = client.ask(way + path)
            assert status >= 400 and "root:" not in text and "[metadata]" not in text
    status, text = client.ask("/proxy=http://127.0.0.1:9/x")
    assert status >= 400


def test_it_is_alive_and_has_written_nowhere_else(server):
    client, folder = server
    test_valid_first(server)
    assert {path.name for path in folder.iterdir()} == client.before


def test_who_has_no_password_is_not_let_in(tmp_path):
    with demo(tmp_path, "--auth", "someone:secret") as address:
        for way in ("config", "gradio_api/queue/data?session_hash=a", "gradio_api/file=/a"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address + way, timeout=20)
        login = urllib.request.Request(address + "login", b"username=someone&password=secret")
        with urllib.request.urlopen(login, timeout=20) as answer:
            cookie = answer.headers["set-cookie"].split(";")[0]
        seen = urllib.request.Request(address + "config", headers={"Cookie": cookie})
        assert b"components" in urllib.request.urlopen(seen, timeout=20).read()
        stranger = Client.__new__(Client)
        stranger.api = address.rstrip("/") + "/gradio_api"
        large_requests(stranger)
        assert stranger.upload("a.png", picture("PNG"))[0] == 401


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_its_folder_is_removed_however_it_ends(tmp_path, name):
    with demo(tmp_path, end=getattr(signal, name)):
        assert len(list(tmp_path.glob("gen-demo-*"))) == 1
    assert not list(tmp_path.glob("gen-demo-*"))


def test_strangers_are_not_let_in(server):
    """It listens on this machine alone."""
    client, _ = server
    port = client.api.split(":")[2].split("/")[0]
    addresses = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
                 if line.split()[3] == "0A"]  # fmt: skip
    mine = [a for a in addresses if int(a.split(":")[1], 16) == int(port)]
    assert mine == [f"0100007F:{int(port):04X}"]


def resident_mb(client: Client) -> float:
    """Memory of the process that listens."""
    port = client.api.split(":")[2].split("/")[0]
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"--port\0{port}\0" in (path / "cmdline").read_text():
                return int((path / "statm").read_text().split()[1]) * 4096 / 2**20
    raise AssertionError("no process has this port")


HANDLERS = {"show": ("translate", "edit")} | rows("HANDLERS")  # function -> what it makes


@pytest.mark.slow
def test_eight_people_for_a_minute(server, capsys):
    """No error, memory flat, and how long they wait."""
    client, _ = server
    asked = [one for name in HANDLERS for one in client.named(name)]
    labels = [label for labels in HANDLERS.values() for label in labels]
    waited = {handler: [] for handler, _ in asked}

    sessions = [opened(client) for _ in range(8)]

    def person(session: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for handler, inputs in asked:
                start = time.monotonic()
                message = client.call(
                    handler, [part["props"].get("value") for part in inputs], session_hash=session
                )
                assert message["success"], message["output"]
                waited[handler].append(time.monotonic() - start)

    def everyone(seconds: float) -> float:
        with ThreadPoolExecutor(8) as people:
            list(people.map(person, sessions, [seconds] * 8))
        return resident_mb(client)

    early = everyone(20)
    late = everyone(40)
    for _ in range(50):
        opened(client)
    more = resident_mb(client)
    with capsys.disabled():
        print(f"\nmemory {early:.0f} MB after 20 s, {late:.0f} MB after 60 s, ", end="")
        print(f"{more:.0f} MB after 50 people more")
        for (handler, _), name in zip(asked, labels, strict=True):
            half, most = np.percentile(waited[handler], [50, 95])
            count = len(waited[handler])
            print(f"{name:10} {count:4} times, median {half:.2f} s, 95 % within {most:.2f} s")
    assert late < 1.05 * early + 20 and more < late + 100

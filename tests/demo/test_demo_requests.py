"""What the demo's server answers to what no browser would send."""

import contextlib
import io
import json
import re
import signal
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_server import demo

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
    {"drags": 3}, {"drags": [{"id": 99999, "path": [[0, 0], [5, 5]]}]},
    {"drags": [{"id": 13001, "path": [[0, 0], [1e300, 0]]}], "pins": ["x"]},
    {"drags": [{"path": [[0, 0]]}]}, {"pins": [99999]}, {"camera": [1e9, 0, 0]}, {"x": 1},
]  # fmt: skip


class Client:
    """Speaks to the queue as the page does."""

    def __init__(self, address: str) -> None:
        self.api = address.rstrip("/") + "/gradio_api"
        with urllib.request.urlopen(address.rstrip("/") + "/config", timeout=20) as answer:
            self.config = json.load(answer)
        parts = {part["id"]: part for part in self.config["components"]}
        self.dependencies = [
            (d, [parts[k] for k in d["inputs"]])
            for d in self.config["dependencies"]
            if d["backend_fn"]
        ]
        self.handlers = [(d["id"], inputs) for d, inputs in self.dependencies]

    def named(self, name: str) -> list[tuple[int, list]]:
        """Handlers of one function's name, once for each list of inputs."""
        same = re.compile(rf"{name}(_\d+)?")  # Gradio numbers them
        found = [(d, i) for d, i in self.dependencies if same.fullmatch(str(d["api_name"]))]
        return list({str(d["inputs"]): (d["id"], i) for d, i in found}.values())

    def ask(self, path: str, body: bytes | None = None, kind="application/json", wait=20):
        """Status and text of an answer."""
        headers = {"content-type": kind} if body is not None else {}
        request = urllib.request.Request(self.api + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=wait) as answer:
                return answer.status, answer.read(10**6).decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read(10**6).decode(errors="replace")

    def call(self, handler: int, data: list, **more) -> dict:
        """The last thing that the queue says of a request."""
        body = {"data": data, "fn_index": handler, "session_hash": uuid.uuid4().hex[:11]} | more
        session = body["session_hash"]
        status, text = self.ask("/queue/join", json.dumps(body).encode())
        if status != 200:
            return {"success": False, "output": {"error": text}, "status": status}
        with urllib.request.urlopen(
            f"{self.api}/queue/data?session_hash={session}", timeout=60
        ) as stream:
            for line in stream:
                message = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if message.get("msg") in ("process_completed", "unexpected_error"):
                    return message
        raise AssertionError("the queue ended without an answer")

    def upload(
        self, name: str, content: bytes, also: str = "", way: str = "/upload"
    ) -> tuple[int, str]:
        """`also` is the header of a second file."""
        edge, body = uuid.uuid4().hex, b""
        for head in [f'form-data; name="files"; filename="{name}"', also][: 2 if also else 1]:
            head = f"--{edge}\r\nContent-Disposition: {head}\r\nContent-Type: image/png\r\n\r\n"
            body += head.encode() + content + b"\r\n"
        body += f"--{edge}--".encode()
        return self.ask(way, body, f"multipart/form-data; boundary={edge}")


def picture(kind: str, size=(16, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    Image.new("RGB", (16, 16), "red").save(folder / "canary.png")
    with demo(folder) as address:
        client = Client(address)
        client.before = {path.name for path in folder.iterdir()}
        yield client, folder


def opened(client: Client, session: str = "") -> str:
    """The session of somebody whose page has just opened."""
    session = session or uuid.uuid4().hex[:11]
    after = [d for d, _ in client.dependencies if not d["targets"] or d["targets"][0][1] == "load"]
    for one in after:
        inputs = [part for d, part in client.dependencies if d is one][0]
        assert client.call(one["id"], values(inputs), session_hash=session)["success"]
    return session


def values(inputs: list) -> list:
    return [part["props"].get("value") for part in inputs]


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


@pytest.mark.parametrize("scene", [0, 194])  # in the latter it would lead out of the image
def test_what_is_suggested_is_made_at_any_speed(server, scene):
    client, _ = server
    session, ways = opened(client), []
    (number, _), (suggest, fields), (render, more) = (
        client.named(name)[0] for name in ("of_number", "suggest", "render")
    )

    def call(handler: int, inputs: list, **given) -> dict:
        data = [given.get(part["props"].get("elem_id") or part["props"].get("label"), value)
                for part, value in zip(inputs, values(inputs), strict=True)]  # fmt: skip
        message = client.call(handler, data, session_hash=session)
        assert message["success"], message["output"]
        return message["output"]["data"][0]

    assert client.call(number, [scene], session_hash=session)["success"]
    for speed in (1, 2, 0.25):
        asked = call(suggest, fields, Speed=speed)["value"]
        call(render, more, Speed=speed, stage=asked)
        ways.append(speed * np.array(asked["drags"][0]["path"][1]))
    assert np.allclose(ways, ways[0], atol=0.11)


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


def test_masks_without_objects_are_refused(server):
    client, _ = server
    ((handler, _),) = client.named("of_files")

    def sent(content: bytes) -> dict:
        path = json.loads(client.upload("a.png", content)[1])[0]
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def take(ids: np.ndarray) -> dict:
        file = io.BytesIO()
        Image.fromarray(ids.astype(np.uint16)).save(file, "PNG")
        image = sent(picture("PNG", ids.shape[::-1]))
        return client.call(handler, [image, sent(file.getvalue())], session_hash=session)

    session, ids = opened(client), np.zeros((64, 128))
    message = take(ids)
    assert not message["success"]
    assert "expected objects to drag, got none: things are trainId" in message["output"]["error"]
    ids[20:30, 20:30] = 24001
    assert "24001; a label id, as 24 of persons" in take(ids)["output"]["error"]
    ids[20:30, 20:30] = 11001
    assert take(ids)["success"]


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
    path = [[0, 0]] * 60_000
    handler, inputs = client.named("predict")[0]
    stage = {"drags": [{"id": 13001, "path": path + ["x"]}]}
    given = [stage if part["props"].get("elem_id") == "stage" else v
             for part, v in zip(inputs, values(inputs), strict=True)]  # fmt: skip
    message = client.call(handler, given, session_hash=opened(client))
    assert not message["success"] and len(message["output"]["error"]) < 1000


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


@pytest.mark.slow
def test_eight_people_for_a_minute(server, capsys):
    """No error, memory flat, and how long they wait."""
    client, _ = server
    names = ("show", "predict", "render")  # paths of both tabs, arrows, videos
    asked = [one for name in names for one in client.named(name)]
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

    early = everyone(30)
    late = everyone(60)
    for _ in range(100):
        opened(client)
    more = resident_mb(client)
    with capsys.disabled():
        print(f"\nmemory {early:.0f} MB after 30 s, {late:.0f} MB after 90 s, ", end="")
        print(f"{more:.0f} MB after 100 people more")
        for (handler, _), name in zip(asked, ("translate", "edit", "arrows", "video"), strict=True):
            half, most = np.percentile(waited[handler], [50, 95])
            count = len(waited[handler])
            print(f"{name:10} {count:4} times, median {half:.2f} s, 95 % within {most:.2f} s")
    assert late < 1.05 * early + 20 and more < late + 200

"""Speaks to the demo's server without a browser."""

import io
import json
import re
import urllib.error
import urllib.request
import uuid

from PIL import Image


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

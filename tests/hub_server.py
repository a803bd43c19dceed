"""A Hub on this machine: the routes that huggingface_hub calls to make, fill and read a repository.

Files from 1 kB on are in large file storage, under their sha256; others are in git, under the sha1
of git. A commit is a whole list of files.
"""

import base64
import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes
TOKEN = "hf_" + "t" * 34


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """Repositories: name -> commits in order, each {file: content}; and what was asked for."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.stored: dict[str, bytes] = {}  # large files
        self.seen: list[str] = []
        self.broken: dict[str, int] = {}  # part of a route -> status of the answer
        self.served: dict[str, bytes] = {}  # sha256 -> other bytes than these

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        commits = self.repos.setdefault(repo, {})
        whole = (commits[[*commits][-1]] if commits else {}) | files
        self.stored |= {hashlib.sha256(d).hexdigest(): d for d in files.values()}
        commit = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[commit] = whole
        return commit

    def resolve(self, repo: str, revision: str) -> str | None:
        commits = self.repos[repo]
        if revision == "main":
            return [*commits][-1]
        revision = self.tags.get((repo, revision), revision)
        return revision if revision in commits else None


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers to one request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes | dict = b"", **headers: str) -> None:
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def route(self) -> None:
        self.hub.seen.append(f"{self.command} {self.path}")
        self.sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        for part, status in self.hub.broken.items():
            if part in f"{self.command} {path}":
                if not status:  # a connection that breaks
                    self.close_connection = True
                    return self.connection.close()
                return self.refuse(status, message="broken for a test")
        self.known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        writes = self.command in ("POST", "PUT") and "validate" not in path
        if writes and not self.known and not path.startswith("/lfs/"):
            return self.refuse(401, message="Invalid username or password.")
        words = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self.create(json.loads(self.sent))
        if path == "/api/validate-yaml":
            text = json.loads(self.sent)["content"]
            return self.answer(200 if text.startswith("---\n") else 400, {})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(self.sent)["objects"])
        if words[0] in ("lfs", "cdn"):
            return self.large(words)
        repo = "/".join(words[2:4] if words[0] == "api" else words[:2])
        if repo not in self.hub.repos or (repo in self.hub.private and not self.known):
            return self.refuse(404 if self.known else 401, "RepoNotFound" * self.known)
        if repo in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        self.of_repo(repo, words[4:] if words[0] == "api" else words[2:])

    do_GET = do_HEAD = do_POST = do_PUT = route

    def create(self, asked: dict) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"http://{self.headers['Host']}/{repo}"}
        if repo in self.hub.repos:
            return self.answer(409, url)
        self.hub.commit(repo, {".gitattributes": b""})
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(repo)
        self.answer(200, url)

    def batch(self, objects: list[dict]) -> None:
        host = self.headers["Host"]
        for entry in objects:
            if entry["oid"] not in self.hub.stored:
                entry["actions"] = {"upload": {"href": f"http://{host}/lfs/{entry['oid']}"}}
        self.answer(200, {"objects": objects, "transfer": "basic"})

    def large(self, words: list[str]) -> None:
        oid = words[1]
        if self.command == "PUT":
            assert hashlib.sha256(self.sent).hexdigest() == oid
            self.hub.stored[oid] = self.sent
            return self.answer(200)
        if "Authorization" in self.headers:  # a token is not for other hosts
            return self.refuse(400, message="got a token")
        self.answer(200, self.hub.served.get(oid, self.hub.stored[oid]))

    def of_repo(self, repo: str, words: list[str]) -> None:
        revision = words[1] if words and words[0] in ("revision", "preupload", "commit") else "main"
        revision = words[1] if words and words[0] == "resolve" else revision
        commit = self.hub.resolve(repo, revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        files = self.hub.repos[repo][commit]
        if words and words[0] == "preupload":
            return self.answer(200, {"files": [self.mode(f, files) for f in self.asked()]})
        if words and words[0] == "commit":
            return self.take(repo)
        if words and words[0] == "resolve":
            return self.serve(commit, files, "/".join(words[2:]))
        listed = [self.describe(name, data) for name, data in files.items()]
        self.answer(200, {"id": repo, "modelId": repo, "sha": commit, "siblings": listed})

    def asked(self) -> list[dict]:
        return json.loads(self.sent)["files"]

    def mode(self, file: dict, files: dict[str, bytes]) -> dict:
        large, old = file["size"] >= LARGE, files.get(file["path"])
        oid = None
        if old is not None:
            oid = hashlib.sha256(old).hexdigest() if len(old) >= LARGE else git_id(old)
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def take(self, repo: str) -> None:
        files = {}
        for line in self.sent.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = self.hub.commit(repo, files)
        url = f"http://{self.headers['Host']}/{repo}/commit/{commit}"
        self.answer(200, {"commitUrl": url, "commitOid": commit})

    def describe(self, name: str, data: bytes) -> dict:
        found = {"rfilename": name, "size": len(data), "blobId": git_id(data)}
        if len(data) >= LARGE:
            digest = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
        return found

    def serve(self, commit: str, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            return self.refuse(404, "EntryNotFound")
        data, of = files[name], {"X_Repo_Commit": commit}
        if len(data) < LARGE:
            return self.answer(200, data, ETag=f'"{git_id(data)}"', **of)
        digest = hashlib.sha256(data).hexdigest()
        of |= {"X_Linked_Etag": f'"{digest}"', "X_Linked_Size": str(len(data))}
        other_host = self.headers["Host"].replace("127.0.0.1", "localhost")
        self.answer(302, Location=f"http://{other_host}/cdn/{digest}", **of)


@contextmanager
def serve():
    """A running Hub; `url` is its address, `stop()` ends it."""
    hub = Hub()
    handler = type("OfHub", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def stop() -> None:
        hub.broken[""] = 0  # also connections that are open
        if thread.is_alive():
            server.shutdown()
            thread.join()
            server.server_close()

    hub.url, hub.stop = f"http://127.0.0.1:{server.server_port}", stop
    try:
        yield hub
    finally:
        stop()

"""A stand-in of the Hugging Face Hub's API: what its library asks for to list, download and upload, and no more."""

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator

import pyarrow
import pyarrow.parquet
from PIL import Image

REVISION = "main|refs/convert/parquet|[0-9a-f]{40}"
_serve_forever = http.server.ThreadingHTTPServer.serve_forever  # also where a test keeps other servers from waiting
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by (kind, owner/name, revision): file name -> content; and what was asked."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str, str], dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.created: list[dict] = []
        self.address = ""

    def put(self, repo: str, files: dict[str, bytes], kind: str = "models", revision: str = "main") -> None:
        self.repos[kind, repo, revision] = files


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0].replace("%2F", "/")
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/(.+)", path):
            return self.tree(*match.groups())
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.info(*match.groups())
        if match := re.fullmatch(rf"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/({REVISION})/(.+)", path):
            return self.file(match[1] or "models", *match.groups()[1:], with_body)
        return self.refuse("EntryNotFound", 404)

    def repo(self, kind: str, name: str, revision: str) -> dict[str, bytes] | None:
        if revision == COMMIT:
            found = [files for (k, n, _), files in self.hub.repos.items() if (k, n) == (kind, name)]
            return {key: value for files in found for key, value in files.items()}
        files = self.hub.repos.get((kind, name, revision))
        if files is None:
            known = any((k, n) == (kind, name) for k, n, _ in self.hub.repos)
            self.refuse("RevisionNotFound" if known else "RepoNotFound", 404 if known else 401)
        return files

    def tree(self, kind: str, name: str, revision: str) -> None:
        files = self.repo(kind, name, revision)
        if files is not None:
            self.json([{"type": "file", "path": p, "size": len(c), "oid": oid(c)} for p, c in files.items()])

    def info(self, kind: str, name: str, revision: str | None) -> None:
        files = self.repo(kind, name, revision or "main")
        if files is not None:
            self.json({"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0,
                       "siblings": [{"rfilename": p} for p in files]})  # fmt: skip

    def file(self, kind: str, name: str, revision: str, path: str, with_body: bool) -> None:
        files = self.repo(kind, name, revision)
        if files is None:
            return
        if path not in files:
            return self.refuse("EntryNotFound", 404)
        content = files[path]
        self.send_response(200)
        for key, value in (
            ("ETag", f'"{oid(content)}"'),
            ("X-Repo-Commit", COMMIT),
            ("Content-Length", str(len(content))),
        ):
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"POST {path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.created.append(asked)
            if ("models", repo, "main") in self.hub.repos:
                return self.json({"url": f"{self.hub.address}/{repo}"}, 409)
            self.hub.put(repo, {})
            return self.json({"url": f"{self.hub.address}/{repo}"})
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.json({"files": files})
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.hub.repos["models", match[1], "main"][line["value"]["path"]] = base64.b64decode(
                        line["value"]["content"]
                    )
            return self.json({"commitUrl": f"{self.hub.address}/{match[1]}/commit/{COMMIT}", "commitOid": COMMIT})
        return self.refuse("EntryNotFound", 404)

    def json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code: str, status: int) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The stand-in's address while it runs."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, hub))
    threading.Thread(target=functools.partial(_serve_forever, server, poll_interval=0.01), daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub.address
    finally:
        server.shutdown()
        server.server_close()


def table_of(colours: list[str]) -> bytes:
    """A Parquet table with a picture of each colour, as the Hub stores them."""
    pictures = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"image": pictures, "label": list(range(len(colours)))}), buffer)
    return buffer.getvalue()

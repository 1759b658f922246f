"""A stand-in for the model hub on loopback: repositories in memory, for the real client (huggingface_hub)."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import unquote


class Hub:
    """What was written to the stand-in, and what was asked of it.

    Attributes:
      url: Where it listens.
      repositories: Name -> commit -> file -> content; the last commit is `main`.
      private: Name -> whether it was made private.
      downloads: Files asked for, as `NAME@COMMIT/FILE`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.downloads: list[str] = []

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Adds files to those of the last commit, and returns the new one."""
        commits = self.repositories[name]
        content = dict(next(reversed(commits.values()), {})) | files
        oid = hashlib.sha1(repr(sorted(content.items())).encode()).hexdigest()
        commits[oid] = content
        return oid

    def find(self, name: str, revision: str) -> str | None:
        """The commit of a revision."""
        commits = self.repositories.get(name, {})
        return next(reversed(commits), None) if revision == "main" else revision if revision in commits else None


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """The stand-in, listening until the end of the block."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = unquote(self.path).strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(content)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            is_there = name in self.hub.repositories
            self.hub.repositories.setdefault(name, {})
            self.hub.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
            self._answer(409 if is_there else 200, {"url": f"{self.hub.url}/{name}"})
        elif parts == ["api", "validate-yaml"]:
            self._answer(200, {"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            paths = [file["path"] for file in json.loads(content)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in paths]
            self._answer(200, {"files": files})
        elif parts[4:5] == ["commit"]:
            name, lines = "/".join(parts[2:4]), [json.loads(line) for line in content.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            oid = self.hub.commit(name, {value["path"]: base64.b64decode(value["content"]) for value in values})
            self._answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})
        else:
            self._answer(404, {"error": self.path})

    def do_GET(self) -> None:
        parts = unquote(self.path.partition("?")[0]).strip("/").split("/")
        if parts[:2] == ["api", "models"] and parts[4:5] in (["revision"], ["tree"]):
            name, revision = "/".join(parts[2:4]), "/".join(parts[5:])
            oid = self.hub.find(name, revision)
            missing = "RevisionNotFound" if name in self.hub.repositories else "RepoNotFound"
            if oid is None:
                self._answer(404, {"error": "not found"}, {"X-Error-Code": missing})
                return
            files = self.hub.repositories[name][oid]
            if parts[4] == "tree":
                entry = {"type": "file", "oid": oid}
                self._answer(200, [entry | {"path": file, "size": len(content)} for file, content in files.items()])
                return
            siblings = [{"rfilename": file} for file in files]
            self._answer(200, {"id": name, "sha": oid, "siblings": siblings, "private": False})
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._answer(404, {"error": self.path})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _file(self, name: str, revision: str, file: str) -> None:
        oid = self.hub.find(name, revision)
        content = self.hub.repositories.get(name, {}).get(oid, {}).get(file)
        if content is None:
            self._answer(404, {"error": "no such entry"}, {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.hub.downloads.append(f"{name}@{oid}/{file}")
        etag = hashlib.sha1(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": oid})

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

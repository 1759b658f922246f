"""The server of `launch.demo`: one page, and the answer to one recording at a time. Nothing is kept.

It serves the machine that it runs on. A page of another origin gets nothing: a request must name this server in `Host`,
which that of a foreign name for this machine does not, and in `Origin` where the browser sends one.
"""

import http.server
import json
import os
import sys
import tempfile
import threading
import traceback
import urllib.parse
from pathlib import Path
from typing import Any

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data.audio import AudioError
from seremo_jax.predict import demo_answer
from seremo_jax.predict.predictor import Predictor
from seremo_jax.reports import look, page

MOST_BYTES = 256 * 2**20
"""Largest recording: more than an hour of WAV as phones and recorders write it."""
PATIENCE_S = 60.0
"""A client that sends nothing for so long is gone."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FILES = {
    "/": ("demo.html", "text/html"),
    "/demo.css": ("demo.css", "text/css"),
    "/demo.js": ("demo.js", "text/javascript"),
    "/recorder.js": ("demo_recorder.js", "text/javascript"),
}
_HEADERS = {
    # The recording is played from memory, which is what blob: is.
    "Content-Security-Policy": "default-src 'self'; media-src blob:; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class DemoError(Exception):
    """The server cannot start; the message says why."""


class Server(http.server.ThreadingHTTPServer):
    """Holds its port from the start, so that one that is taken is told before a model is read.

    Args:
      host: Name or address of this machine to be reached at.
      port: The port; 0 for any that is free.

    Raises:
      DemoError: It cannot listen there.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int):
        self.host, self.about, self.predictor, self.hearing = host, {}, None, threading.Lock()
        if host in ("", "0.0.0.0", "::"):
            raise DemoError(
                "--host is one address of this machine, by which the page is then opened; all at once are not"
            )
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise DemoError(
                f"nothing can listen at port {port} of {host} ({error.strerror or error}): give another one with "
                "--port, 0 for any that is free"
            ) from None

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{self.host}:{self.server_address[1]}/"

    def serve(self, predictor: Predictor, name: str) -> None:
        """Answers until `shutdown`, or until an exception ends the main thread.

        Args:
          predictor: The model.
          name: What the page calls it.
        """
        self.predictor = predictor
        self.about = demo_answer.about(predictor, name) | {"most_bytes": MOST_BYTES}
        self.serve_forever()

    def is_own(self, host: str, origin: str | None) -> bool:
        """Whether a request is to this server, and from its own page or from no page at all."""
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        known = {self.host, *(_LOOPBACK if self.host in _LOOPBACK else ())}
        return name in known and origin in (None, f"http://{host}")

    def server_close(self) -> None:
        """Waits for the recording at hand: a process that ends under a compiled program is aborted by its runtime."""
        super().server_close()
        self.hearing.acquire()  # and never released, so that no other one begins

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; all else is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _RefusedError(Exception):
    """A request that is not answered as asked: its status and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version, timeout = "seremo", "", PATIENCE_S

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def log_message(self, *_: Any) -> None:
        """The terminal says nothing of what was heard."""

    def _answered(self, answer: Any) -> None:
        try:
            if not self.server.is_own(self.headers.get("Host", ""), self.headers.get("Origin")):
                raise _RefusedError(403, f"this page is opened as {self.server.address} and by no other name or page")
            status, kind, content = 200, *answer()
        except _RefusedError as refusal:
            status, kind, content = refusal.status, *_json({"error": str(refusal)})
        self.send_response(status)
        headers = _HEADERS | {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))}
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    def _get(self) -> tuple[str, bytes]:
        if self.path == "/about":
            return _json(self.server.about)
        if self.path == "/look.css":
            return "text/css", (page.style() + _colors()).encode()
        if self.path not in _FILES:
            raise _RefusedError(404, "there is nothing of this name here")
        name, kind = _FILES[self.path]
        return kind, Path(__file__).with_name(name).read_bytes()

    def _post(self) -> tuple[str, bytes]:
        asked = urllib.parse.urlsplit(self.path)
        if asked.path != "/hear":
            raise _RefusedError(404, "there is nothing of this name here")
        name = urllib.parse.parse_qs(asked.query).get("name", ["recording"])[0]
        # Of a name only its end is a name of a file here: libsndfile and the words of an error look at the suffix.
        name = os.path.basename(name.replace("\\", "/").replace("\0", "")) or "recording"
        with tempfile.TemporaryDirectory(prefix="seremo_demo_") as folder:
            path = Path(folder) / f"recording{Path(name).suffix[:16]}"
            self._receive(path)
            return _json(self._heard(path, name))

    def _receive(self, path: Path) -> None:
        """Writes the body of the request to a file."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _RefusedError(411, "the request does not say how long the recording is (Content-Length)")
        left = int(length)
        if left > MOST_BYTES:
            most = f"{MOST_BYTES / 2**20:.0f} MB are taken here: cut it, or use python -m launch.predict"
            raise _RefusedError(413, f"the recording has {left / 2**20:.0f} MB, and at most {most}")
        try:
            with path.open("wb") as file:
                while left:
                    piece = self.rfile.read(min(left, 2**20))
                    if not piece:
                        raise _RefusedError(400, "the recording was cut off on its way here: send it again")
                    left -= file.write(piece)
        except TimeoutError:
            raise _RefusedError(408, "the recording did not arrive: send it again") from None

    def _heard(self, path: Path, name: str) -> dict[str, Any]:
        try:
            # One at a time: two would share the cores, and both come later.
            with self.server.hearing:
                return demo_answer.of_file(self.server.predictor, path, name)
        except AudioError as error:
            detail = error.detail.replace(os.fspath(path), name).replace(path.name, name)
            raise _RefusedError(422, f"{name} cannot be used: {error.reason} ({detail})") from None
        except ArtefactError as error:
            raise _RefusedError(422, str(error)) from None
        except Exception as error:
            traceback.print_exc()
            raise _RefusedError(
                500, f"this is a bug: {type(error).__name__}: {error}; the terminal has its trace"
            ) from None


def _json(content: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(content).encode()


def _colors() -> str:
    """The colours of classes, those of `timeline.figure`."""

    def rules(theme: look.Theme) -> str:
        return "".join(f".class-{c} {{ --shade: {color}; }}\n" for c, color in enumerate(theme.targets))

    return f"{rules(look.LIGHT)}@media screen and (prefers-color-scheme: dark) {{\n{rules(look.DARK)}}}\n"

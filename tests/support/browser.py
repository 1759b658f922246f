"""A real Chromium without a window, spoken to through a pipe by its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_PATIENCE_S = 60.0


class Tab:
    """One page of the browser.

    Attributes:
      events: What the browser told of it, (method, parameters).
    """

    def __init__(self, write: int, read: int):
        self._write, self._read, self._rest, self._number, self._session = write, read, b"", 0, None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "DOM", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                piece = os.read(self._read, 2**16)
                assert piece, "the browser ended"
                self._rest += piece
            line, self._rest = self._rest.split(b"\0", 1)
            reply = json.loads(line)
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]
            self.events.append((reply.get("method", ""), reply.get("params", {})))

    def run(self, expression: str) -> Any:
        """The value of an expression in the page, awaited where it is a promise."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        reply = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + _PATIENCE_S
        while not (value := self.run(expression)):
            assert time.monotonic() < end, f"never true: {expression}; {self.run('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def press(self, key: str, code: int) -> None:
        """Presses a key and lets it go."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            options = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **options)

    def drop(self, path: Path, selector: str) -> None:
        """Drops a file on an element."""
        place = self.run(f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect();"
                         "return [r.x + r.width / 2, r.y + 9]; })()")  # fmt: skip
        data = {"items": [], "files": [os.fspath(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=place[0], y=place[1], data=data)

    def screenshot(self, path: Path) -> None:
        """Writes a PNG of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))


@contextlib.contextmanager
def tab(folder: Path, *flags: str, size: str = "1200,900") -> Iterator[Tab]:
    """A browser with one tab, which ends with the context.

    Args:
      folder: For its profile.
      *flags: Further flags of the command.
      size: Width and height of its window.
    """
    their_read, write = os.pipe()
    read, their_write = os.pipe()

    # The protocol is spoken at descriptors 3 and 4. A shell moves them, so that no code of ours runs after a fork.
    def command(*arguments: str) -> list[str]:
        shell = f'exec 3<&{their_read} 4>&{their_write}; exec "$@"'
        return ["bash", "-c", shell, "browser", *arguments]

    chromium = [BROWSER, *FLAGS, f"--window-size={size}", f"--user-data-dir={folder / 'profile'}", *flags]
    process = subprocess.Popen(
        command(*chromium, "--remote-debugging-pipe", "about:blank"),
        pass_fds=(their_read, their_write),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    os.close(their_read)
    os.close(their_write)
    try:
        yield Tab(write, read)
    finally:
        os.close(write)
        os.close(read)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()

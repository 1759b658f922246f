"""Loaded by every Python that has this folder on its path: kills it with SIGKILL at a moment of its file operations.

Environment: `KILLS_ROOT`, the folder whose changes count; `KILLS_COUNT`, a file for the number of changes, written at
the end; `KILLS_CHANGE`, the change before which to kill; `KILLS_AFTER_S`, seconds to wait from there on, or from the
start where no change is given. Nothing of the project is imported here.
"""

import atexit
import os
import signal
import sys
import threading

_ROOT = os.environ.get("KILLS_ROOT")
_CHANGE, _AFTER_S = int(os.environ.get("KILLS_CHANGE", "0")), os.environ.get("KILLS_AFTER_S")
_CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_num_changes = 0


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wait() -> None:
    timer = threading.Timer(float(_AFTER_S or 0), _kill)
    timer.daemon = True
    timer.start()


def _hook(event: str, arguments: tuple) -> None:
    global _num_changes
    is_change = event in _CHANGES or (event == "open" and (arguments[2] or 0) & _WRITES)
    if not is_change or not isinstance(arguments[0], str | bytes):
        return
    if not os.path.abspath(os.fsdecode(arguments[0])).startswith(_ROOT):
        return
    _num_changes += 1
    if _num_changes == _CHANGE:
        if _AFTER_S is None:
            _kill()
        _wait()


def _write_count() -> None:
    with open(os.environ["KILLS_COUNT"], "w") as file:
        file.write(str(_num_changes))


if _ROOT:
    sys.addaudithook(_hook)
    if "KILLS_COUNT" in os.environ:
        atexit.register(_write_count)
    if _AFTER_S is not None and not _CHANGE:
        _wait()

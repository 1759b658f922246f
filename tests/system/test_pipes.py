"""Output that nobody reads: a launcher ends with the code of a broken pipe and no traceback, and says nothing more."""

import contextlib
import os
import subprocess
import sys

import pytest

from launch import pipes
from seremo_jax.core import progress
from tests.support.house import ROOT


@contextlib.contextmanager
def unread(descriptor: int, monkeypatch: pytest.MonkeyPatch):
    """The stream behind a descriptor is a pipe whose reader has gone."""
    kept, (reader, writer) = os.dup(descriptor), os.pipe()
    os.close(reader)
    os.dup2(writer, descriptor)
    name = {1: "stdout", 2: "stderr"}[descriptor]
    monkeypatch.setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115 - it has nothing to close
    try:
        yield
    finally:
        monkeypatch.undo()
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(writer)


def _progress():
    with progress.Progress(2, "ingest", "utterances") as bar:
        bar.update()


def _wrapped():
    try:
        print("x" * 100_000)
    except OSError as error:
        raise ValueError("the corpus cannot be read") from error


def _failing():
    print("a word in the buffer")
    sys.exit("error: another")


@pytest.mark.parametrize(
    ("descriptor", "main", "code"),
    [
        (1, lambda: print("x" * 100_000), 141),
        (1, lambda: print("a word in the buffer"), 141),
        (1, _wrapped, 141),
        (1, _failing, "error: another"),
        (2, _progress, 141),
    ],
)
def test_a_launcher_ends_quietly(monkeypatch, descriptor, main, code):
    with unread(descriptor, monkeypatch), pytest.raises(SystemExit) as end:
        pipes.run(main)
    assert end.value.code == code


def test_another_broken_connection_is_an_error():
    def main():
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        pipes.run(main)


def test_every_launcher_ends_so():
    callers = [path for path in (ROOT / "launch").rglob("*.py") if "app.run(" in path.read_text(encoding="utf-8")]
    assert all("pipes.run(lambda: app.run(" in path.read_text(encoding="utf-8") for path in callers)
    assert {path.name for path in callers} == {"cli.py", "plain.py"}


def test_head_shows_no_traceback():
    # `true` has gone long before the launcher has imported what it needs.
    script = f"exec 3>&1; {{ {sys.executable} -m launch.conditions --help; echo code $? >&3; }} | true"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    # absl swallows what it is told of the pipe in some of its own lines of help, whose code is 1.
    assert done.stdout in ("code 1\n", "code 141\n")
    assert done.stderr == ""

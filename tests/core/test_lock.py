"""One process at a time in a folder: the second is told, the lock goes with its process, a folder may be read-only."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from seremo_jax.core import lock
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.lock import at_work

HOLD = """
import sys, time
from seremo_jax.core.lock import at_work
with at_work(sys.argv[1], "train"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(workdir):
    """A process that is at work in the folder until the block ends."""
    code = textwrap.dedent(HOLD)
    with subprocess.Popen(
        [sys.executable, "-c", code, workdir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.stdin.close()


def test_the_second_process_is_told_who_is_at_it(tmp_path):
    with another_process(tmp_path) as process:
        message = rf"another process is at it in {tmp_path} \(train, process {process.pid} on .*another --workdir"
        with pytest.raises(ArtefactError, match=message), at_work(tmp_path, "extract"):
            pass
        with at_work(tmp_path, "train", is_first=False):
            pass  # another process of the same run
    with at_work(tmp_path, "extract"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    with another_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / lock.FILE).exists()
        with at_work(tmp_path, "extract"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_stage_inside_another_one_takes_no_second_lock_and_leaves_the_first(tmp_path):
    with at_work(tmp_path, "extract"):
        with at_work(tmp_path, "saliency"):
            pass
        assert _is_taken(tmp_path)
    assert not _is_taken(tmp_path)


def _is_taken(folder):
    code = f"from seremo_jax.core.lock import at_work\nwith at_work({str(folder)!r}, 'x'): pass"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode != 0


def test_a_folder_into_which_nothing_was_written_goes_again(tmp_path):
    with at_work(tmp_path / "w", "ingest"):
        pass
    assert not (tmp_path / "w").exists()
    with at_work(tmp_path / "w", "ingest"):
        (tmp_path / "w" / "x").touch()
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["x"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_to_needs_no_lock(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.os, "open", refuse)
    with at_work(tmp_path, "train"):
        assert list(tmp_path.iterdir()) == []


def test_a_bucket_has_no_lock():
    with at_work("s3://bucket/w", "train"):
        pass


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_folder_that_disappears_is_an_error(tmp_path, comes_back):
    folder = tmp_path / "w"
    folder.mkdir()

    def work():
        with at_work(folder, "train"):
            folder.rename(tmp_path / "gone")
            if comes_back:
                folder.mkdir()

    with pytest.raises(ArtefactError, match=f"{folder} was removed or replaced while train was"):
        work()
    with pytest.raises(ZeroDivisionError), at_work(folder, "train"):
        raise ZeroDivisionError  # what went wrong inside is what is told


def test_one_process_at_a_time_writes_a_file_and_removes_what_killed_ones_left_of_it(tmp_path):
    out = tmp_path / "scores[1].csv"
    left = [f".{out.name}.abcdefgh.tmp", f".{out.name}.bad.csv.abcdefgh.tmp"]
    others = [f".{out.name}.v2.abcdefgh.tmp", ".scores1.csv.abcdefgh.tmp"]
    for name in (*left, *others):
        (tmp_path / name).mkdir()
    with lock.writing(out, "predict", ("", ".bad.csv")):
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(others)
        code = f"from seremo_jax.core.lock import writing\nwith writing({str(out)!r}, 'x'): pass"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        message = f"BusyError: another process is at it and writes {out} (predict, process {os.getpid()} on "
        assert message in second.stderr
        assert "or give another place to write to" in second.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_whoever_waits_gets_the_lock_though_its_file_was_removed_in_between(tmp_path):
    path = tmp_path / lock.FILE
    with another_process(tmp_path) as process:
        process.stdin.close()
        with lock.held(path) as (is_ours, _):
            assert is_ours
            assert _is_taken(tmp_path)
    assert not path.exists()

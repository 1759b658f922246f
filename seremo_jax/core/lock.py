"""One process at a time in a folder: an exclusive lock of the system, released however its process ends."""

import contextlib
import errno
import fcntl
import glob
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from seremo_jax.core.artefacts import ArtefactError, beginning_of, in_bucket, remove_leftovers

FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EBADF)
"""What a file system answers that knows no locks."""

_held: dict[Path, int] = {}
"""Folders of this process -> how many blocks of it are at work there: a stage may run another one inside."""
_guard = threading.Lock()


class BusyError(ArtefactError):
    """Another process is at work in this folder."""


@contextlib.contextmanager
def at_work(workdir: str | os.PathLike, stage: str, is_first: bool = True) -> Iterator[None]:
    """Keeps other processes from working in a folder at the same time; blocks may lie in each other.

    A bucket has no lock, and a folder that cannot be written to needs none.

    Args:
      workdir: Folder of the experiment.
      stage: What is done there, for whoever comes second.
      is_first: Whether this is the first process of its run. The others are of the same job and take no lock.

    Raises:
      BusyError: Another process is at work there.
      ArtefactError: The folder was removed or replaced meanwhile, so that what was written is not in it.
    """
    if in_bucket(workdir) or not is_first:
        yield
        return
    with _alone(Path(workdir) / FILE, stage, f"in {workdir}", "give another --workdir"):
        begun_in = _identity(workdir)
        yield
        if begun_in is not None and _identity(workdir) != begun_in:
            raise ArtefactError(
                f"{workdir} was removed or replaced while {stage} was at work there, so what it wrote is not whole: "
                "put the folder back, or begin anew, and run the same command again"
            )


@contextlib.contextmanager
def writing(path: str | os.PathLike, stage: str, suffixes: Sequence[str] = ("",)) -> Iterator[None]:
    """Keeps other processes from writing the same file or folder outside of a workdir at the same time.

    What a killed process left half-written of it is removed first.

    Args:
      path: What is written; the lock lies beside it.
      stage: What is done there, for whoever comes second.
      suffixes: Of the names of what is written there with it.

    Raises:
      BusyError: Another process is writing it.
    """
    if in_bucket(path):
        yield
        return
    path = Path(path)
    lock = path.parent / f".{beginning_of(path.name)}{FILE}"
    with _alone(lock, stage, f"and writes {path}", "give another place to write to"):
        for suffix in suffixes:
            # As many characters as a temporary folder has, so that those of other names are no matches.
            remove_leftovers(path.parent, f"{glob.escape(beginning_of(path.name + suffix))}.{'?' * 8}")
        yield


@contextlib.contextmanager
def _alone(path: Path, stage: str, where: str, remedy: str) -> Iterator[None]:
    with held(path, waits=False, about=stage) as (is_ours, about):
        if not is_ours:
            raise BusyError(
                f"another process is at it {where} ({about or 'it does not say what'}): wait until it has ended, or "
                f"{remedy}"
            )
        yield


def _identity(folder: str | os.PathLike) -> tuple[int, int] | None:
    """What tells a folder from another one of its name; None where there is none."""
    try:
        about = os.stat(folder)
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino


@contextlib.contextmanager
def held(path: Path, waits: bool = True, about: str = "") -> Iterator[tuple[bool, str]]:
    """Holds a lock of the system on a file, which is made for it and removed after it.

    Args:
      path: The file.
      waits: Whether to wait until others let go of it.
      about: What this process does, for the others.

    Yields:
      Whether the lock is this process's, which it always is after waiting, and otherwise what the other one does.
    """
    path = path.absolute()
    with _guard:
        is_inner = path in _held
        _held[path] = _held.get(path, 0) + 1
    file, is_new = None, not path.parent.exists()
    try:
        file = None if is_inner else _locked_file(path, waits)
        if isinstance(file, str):
            yield False, file
            return
        if file is not None:
            os.ftruncate(file, 0)
            os.pwrite(file, f"{about}, process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield True, ""
    finally:
        with _guard:
            _held[path] -= 1
            if not _held[path]:
                del _held[path]
        if isinstance(file, int):
            # Removed while it is still held, so that whoever opens it afterwards makes a new one.
            with contextlib.suppress(OSError):
                path.unlink()
                if is_new:
                    path.parent.rmdir()  # Only where nothing was written into it.
            os.close(file)


def _locked_file(path: Path, waits: bool) -> int | str | None:
    """The file, open and locked; None where there can be no lock; what the holder says where another process has it."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            # Nobody writes into a folder that is read-only. Other errors are for whoever writes first to report.
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
                return None
            raise
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            if _is_still(path, file):
                return file
        except BlockingIOError:
            text = os.pread(file, 1000, 0).decode(errors="replace")
            os.close(file)
            return text
        except OSError as error:
            os.close(file)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(file)  # The one before has removed it in between: there is a new one to lock, or none.


def _is_still(path: Path, file: int) -> bool:
    """Whether the file that was locked is the one at this path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False

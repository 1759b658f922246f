"""All that lies in a folder: linked folders are walked, too, and what cannot be read is listed instead of left out."""

import os
import stat
from pathlib import Path
from typing import NamedTuple


class Unreadable(NamedTuple):
    """Something in a folder that cannot be read.

    Attributes:
      path: Where it is.
      reason: missing or unreadable, as of audio.
      detail: The reason in words.
    """

    path: Path
    reason: str
    detail: str


class Contents(NamedTuple):
    """What lies in a folder and below.

    Attributes:
      files: Regular files, and links to such, in order.
      unreadable: Dangling links, folders that may not be read, pipes and devices, in order.
    """

    files: list[Path]
    unreadable: list[Unreadable]


def walk(root: str | os.PathLike) -> Contents:
    """Walks a folder, its subfolders and those that it links to, each of them once, so that circles of links end.

    A folder that lies in `root` goes by its own name, whatever links to it. Nothing is opened.
    """
    files: list[Path] = []
    unreadable: list[Unreadable] = []
    visited: set[tuple[int, int]] = set()
    # Links wait until every folder that is no link has been visited.
    folders, links = [Path(root)], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            about = folder.stat()
            if (about.st_dev, about.st_ino) in visited:
                continue
            visited.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as entries:
                paths = sorted(folder / entry.name for entry in entries)
        except OSError as error:
            unreadable.append(Unreadable(folder, "unreadable", f"a folder: {error.strerror}"))
            continue
        for path in paths:
            kind = _kind_of(path)
            if isinstance(kind, Unreadable):
                unreadable.append(kind)
            elif stat.S_ISDIR(kind):
                (links if path.is_symlink() else folders).append(path)
            else:
                files.append(path)
    return Contents(sorted(files), sorted(unreadable))


def _kind_of(path: Path) -> int | Unreadable:
    """The mode of a file or a folder, or why it is neither."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Unreadable(path, "missing", "a link to something that is not there")
    except OSError as error:
        return Unreadable(path, "unreadable", error.strerror or str(error))
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        return mode
    return Unreadable(path, "unreadable", "a pipe, a device or a socket, which is not opened")


def printable(name: str) -> str:
    """A name as text that UTF-8 can hold: bytes of a file's name that are none become their numbers."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

"""What the bytes of files are, kept beside them so that one changed bit is noticed: size and SHA-256 by name."""

import contextlib
import errno
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from seremo_jax.core.artefacts import ArtefactError, atomic_path, require_same, sha256_of_file, size_of


def describe_file(path: PurePath) -> dict[str, Any]:
    """Size and hash of a file, as a manifest holds them."""
    return {"num_bytes": size_of(path), "sha256": sha256_of_file(path)}


def describe_folder(folder: PurePath) -> dict[str, dict[str, Any]]:
    """Size and hash of each file of a folder and of the folders in it, by its path below the folder."""
    return {name: describe_file(folder / name) for name in sorted(_names_in(folder))}


def _names_in(folder: PurePath, prefix: str = "") -> Iterator[str]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _names_in(path, f"{prefix}{path.name}/")
        else:
            yield prefix + path.name


def require_files(
    folder: PurePath, files: Mapping[str, Mapping[str, Any]], remedy: str, is_hashed: bool = True, shown: str = ""
) -> None:
    """Checks that files are there and have their sizes, and with `is_hashed` their content, too.

    Args:
      folder: Folder that the files lie in.
      files: What `describe_folder` said of them.
      remedy: What the user can do where one differs.
      is_hashed: Reads all bytes; otherwise sizes alone are compared.
      shown: How errors name the folder, where it is a copy of another; empty for its own path.

    Raises:
      ArtefactError: A file differs; the message names the file and both sides.
    """
    for name, file in files.items():
        path, what = folder / name, f"{shown or folder}/{name}"
        size = size_of(path)
        if size is None:
            raise ArtefactError(f"{what} is missing, though it was written with the others; {remedy}")
        require_same(f"size of {what} in bytes", size, file["num_bytes"], f"It is truncated or foreign: {remedy}")
        if is_hashed:
            require_same(f"SHA-256 of {what}", sha256_of_file(path), file["sha256"], f"It is damaged: {remedy}")


class _SameError(Exception):
    """What was made is there already."""


@contextlib.contextmanager
def renewed(path: PurePath) -> Iterator[Path]:
    """Yields a place for a file or folder that takes that of `path`, whole or not at all, where it is another one.

    What is there and the same is left alone, so that a finished workdir may be read-only; what would change but cannot
    be written to stays, with a warning.
    """
    refused = None
    with contextlib.suppress(_SameError), contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(atomic_path(path))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.exists():
                raise
            refused = error.strerror
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seremo_jax-"))) / path.name
        yield place
        if path.exists() and _described(path) == _described(place):
            raise _SameError
        if refused:
            warnings.warn(f"{path} cannot be written to and stays as it was ({refused})", stacklevel=3)


def _described(path: PurePath) -> dict[str, Any]:
    return describe_folder(path) if path.is_dir() else describe_file(path)

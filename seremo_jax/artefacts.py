"""Files that are whole or absent: atomic writes, content hashes, JSON, and the stamp that says a stage is finished."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class ArtefactError(Exception):
    """An artefact is missing, damaged, or belongs to other settings. The message names both sides and the remedy."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed onto `path`.

    On any exception the temporary file or folder is removed, and `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        inner = temporary / path.name
        yield inner
        if inner.is_file():
            with inner.open("rb") as file:
                os.fsync(file.fileno())
        if inner.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(inner, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike) -> int:
    """Deletes what a killed process left half-written in `folder`; returns how many things it removed."""
    leftovers = [path for path in Path(folder).glob(".*.tmp") if path.is_dir()]
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
    return len(leftovers)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON with sorted keys; dataclasses become objects, NumPy scalars and arrays become numbers and lists."""

    def default(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        if hasattr(item, "tolist"):
            return item.tolist()
        if isinstance(item, os.PathLike):
            return os.fspath(item)
        raise TypeError(f"no JSON form for {type(item).__name__}")

    return json.dumps(value, sort_keys=True, indent=indent, default=default, allow_nan=False)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: str | os.PathLike, remedy: str) -> Any:
    """Reads a JSON file.

    Raises:
      ArtefactError: The file is missing or no JSON; the message ends with `remedy`.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; {remedy}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); {remedy}") from None


def sha256_of_file(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of `value`'s JSON."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()[:16]


def require_same(what: str, found: Any, expected: Any, remedy: str) -> None:
    """Refuses a mismatch by naming both sides.

    Args:
      what: The thing compared, with its file.
      found: Its value in the artefact; for mappings only the keys that differ are shown.
      expected: The value the present settings ask for.
      remedy: What the user can do.

    Raises:
      ArtefactError: `found != expected`.
    """
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        pairs = "; ".join(f"{key}: {found.get(key)!r} there, {expected.get(key)!r} asked for" for key in keys)
    else:
        pairs = f"{found!r} there, {expected!r} asked for"
    raise ArtefactError(f"{what} does not fit: {pairs}. {remedy}")

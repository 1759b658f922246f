"""Files that are whole or absent: atomic writes, content hashes, JSON, arrays, full disks, refusals of a mismatch.

They lie in a folder, or in a bucket: gs://, s3:// or az://, through etils.epath and fsspec. A file is put into a bucket
at once and whole. A folder is put there file by file, so whoever needs all of it waits for a stamp that is written
last.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import operator
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

_BUCKETS = {"gs": "gs", "s3": "s3", "az": "az"}
"""Scheme -> extra of this package that reaches it."""

SEAL, _WRAPPED = "content_fingerprint", "content"
"""Key under which a JSON file holds the fingerprint of the rest of it, and that of content which is no object."""

LFS_POINTER = b"version https://git-lfs"
"""How the small text file begins that a checkout without Git LFS has in the place of a large file."""


class ArtefactError(Exception):
    """An artefact is missing, damaged, or belongs to other settings. The message names both sides and the remedy."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path, beside `path` where that is on disk; on success it is put in place of `path`.

    On any exception the temporary file or folder is removed, and `path` is as it was.
    """
    path = place_of(path)
    if in_bucket(path):
        with tempfile.TemporaryDirectory(prefix="seremo_jax-") as folder:
            inner = Path(folder) / path.name
            yield inner
            upload(inner, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{beginning_of(path.name)}.", suffix=".tmp", dir=path.parent))
    try:
        inner = temporary / path.name
        yield inner
        if inner.is_file():
            with inner.open("rb") as file:
                os.fsync(file.fileno())
        before = temporary / ".before"
        if inner.is_dir() and path.is_dir():
            os.rename(path, before)  # at once, as a kill amid deleting it would leave a part of it
        try:
            os.replace(inner, path)
        except OSError:
            if before.exists():
                os.rename(before, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def beginning_of(name: str) -> str:
    """The beginning of a name, because a long one would have no room for more."""
    return os.fsdecode(os.fsencode(name)[:100])


def place_of(path: str | os.PathLike) -> PurePath:
    """A path on disk, or in a bucket where it is a URL, with the methods of `pathlib.Path` either way.

    Not all of them: `absolute` and `resolve` of the path of a bucket make it one on disk.
    """
    if not in_bucket(path):
        return Path(path)
    from etils import epath

    return epath.Path(os.fspath(path))


def in_bucket(path: str | os.PathLike) -> bool:
    """Whether this is the URL of something in a bucket."""
    return "://" in os.fspath(path)


def require_place(path: str | os.PathLike) -> None:
    """Refuses the URL of a bucket that cannot be reached.

    Raises:
      ArtefactError: Another scheme than those known, its package is not installed, or there is no such bucket.
    """
    if not in_bucket(path):
        return
    scheme = (text := os.fspath(path)).partition("://")[0]
    if scheme not in _BUCKETS:
        known = ", ".join(f"{name}://" for name in _BUCKETS)
        raise ArtefactError(f"{text}: give a folder, or a URL that begins with {known}")
    try:
        is_there = _filesystem(text).exists("/".join(text.split("/")[:3]))
    except ImportError as error:
        raise ArtefactError(f"{text}: pip install 'seremo_jax[{_BUCKETS[scheme]}]' ({error})") from None
    except Exception as error:  # each of the packages has kinds of its own for what goes wrong
        raise ArtefactError(f"{text} cannot be reached ({type(error).__name__}: {error})") from None
    if not is_there:
        raise ArtefactError(f"{text}: there is no such bucket, or it is not yours to read")


def require_disk(path: str | os.PathLike, what: str) -> None:
    """Refuses the URL of a bucket where links or appending are needed.

    Raises:
      ArtefactError: It is one; the message says that `what` needs a disk.
    """
    if in_bucket(path):
        raise ArtefactError(f"{what} needs a workdir on disk, or a mounted bucket, not {os.fspath(path)}")


def _filesystem(text: str) -> Any:
    import fsspec
    from etils.epath import backend

    # Other processes write there, too, so a listing from before must not be used again.
    scheme = text.partition("://")[0]
    fsspec.config.conf.setdefault("gcs" if scheme == "gs" else scheme, {}).setdefault("use_listings_cache", False)
    return backend.fsspec_backend.fs(text)


def upload(source: Path, path: PurePath) -> None:
    """Puts a file, or a folder in place of the one before, into a bucket."""
    files = _filesystem(os.fspath(path))
    if source.is_file():
        files.put_file(os.fspath(source), os.fspath(path))
        return
    remove_tree(path)
    for file in sorted(source.rglob("*")):
        if file.is_file():
            files.put_file(os.fspath(file), os.fspath(path / file.relative_to(source).as_posix()))


def download(path: PurePath, to: Path) -> None:
    """Copies a file or a folder of a bucket to disk."""
    files = _filesystem(os.fspath(path))
    root = files._strip_protocol(os.fspath(path)).rstrip("/")
    for name in files.find(root):
        target = to / name[len(root) + 1 :] if name != root else to
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, os.fspath(target))


def version_of(path: PurePath) -> tuple[int, str]:
    """Bytes of a file of a bucket, and a fingerprint that is another one once the file was written anew."""
    text = os.fspath(path)
    about = _filesystem(text).info(text)
    names = ("size", "ETag", "etag", "generation", "LastModified", "mtime", "created")
    return about["size"], fingerprint_of([text, [str(about[name]) if name in about else None for name in names]])


def readable(path: PurePath) -> Path | io.BytesIO:
    """A small file for libraries that know no buckets: its path on disk, or its bytes."""
    return io.BytesIO(path.read_bytes()) if in_bucket(path) else Path(path)


def size_of(path: PurePath) -> int | None:
    """Bytes of a file; None where there is no such file."""
    if not path.is_file():
        return None
    return path.stat().length if in_bucket(path) else path.stat().st_size


def remove_tree(path: str | os.PathLike) -> None:
    """Deletes a folder and what is in it, where there is one."""
    path = place_of(path)
    if in_bucket(path):
        path.rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike, names: str = "*") -> int:
    """Deletes what a killed process left half-written of `names` in `folder`; returns how many things it removed."""
    if in_bucket(folder):
        return 0
    leftovers = [path for path in Path(folder).glob(f".{names}.tmp") if path.is_dir()]
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


def finite(value: Any) -> Any:
    """A value, or what dicts, lists and tuples hold, with None for each float that JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sealed(value: Any) -> dict[str, Any]:
    """`value` as JSON gives it back, with the fingerprint of it under `SEAL`."""
    content = json.loads(to_json(value))
    if not isinstance(content, dict):
        content = {_WRAPPED: content}
    content.pop(SEAL, None)
    return content | {SEAL: fingerprint_of(content)}


def parsed(text: str | bytes, what: str, remedy: str) -> Any:
    """What a text of JSON holds, without its seal. Earlier versions wrote no seal, so a text without one is accepted.

    Raises:
      ArtefactError: It is no JSON, or not what was sealed; the message names `what` and ends with `remedy`.
    """
    try:
        content = json.loads(text)
        keys = content.keys() if isinstance(content, dict) else ()
        # A key that differs in one letter is the seal itself, hit by a flipped bit.
        seals = [key for key in keys if len(key) == len(SEAL) and sum(map(operator.ne, key, SEAL)) < 2]
        if not seals:
            return content
        stated = content.pop(SEAL, None)
        present = fingerprint_of(content)
    except (ValueError, RecursionError) as error:  # a changed digit may make a number that JSON has no word for
        raise ArtefactError(f"{what} is damaged ({error}); {remedy}") from None
    require_same(f"{SEAL} of {what}", stated, present, f"The file was changed or damaged: {remedy}.")
    return content[_WRAPPED] if content.keys() == {_WRAPPED} else content


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON with its fingerprint in it, atomically."""
    write_text(path, to_json(sealed(value), indent=2) + "\n")


def read_json(path: str | os.PathLike, remedy: str) -> Any:
    """Reads a JSON file; what `write_json` wrote comes back without its fingerprint.

    Raises:
      ArtefactError: The file is missing, no JSON, or changed since it was written; the message ends with `remedy`.
    """
    path = place_of(path)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; {remedy}") from None
    return parsed(text, os.fspath(path), remedy)


@contextlib.contextmanager
def clear_when_full(path: str | os.PathLike) -> Iterator[None]:
    """Turns a full disk below into an error that says what to do.

    Raises:
      ArtefactError: No space is left where `path` lies.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError with the text of errno
        if any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
            raise ArtefactError(
                f"no space left on the disk while writing {path}: free some, or choose a --workdir elsewhere. "
                "What is finished is whole and stays; the same command continues from there"
            ) from error
        raise


def sha256_of_file(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with place_of(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of `value`'s JSON."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()[:16]


def require_same(what: str, present: Any, expected: Any, remedy: str) -> None:
    """Refuses a mismatch by naming both sides.

    Args:
      what: The thing compared, with its file.
      present: Its value in the artefact; for mappings only the keys that differ are shown.
      expected: The value the present settings ask for.
      remedy: What the user can do.

    Raises:
      ArtefactError: `present != expected`.
    """
    if present == expected:
        return
    if isinstance(present, dict) and isinstance(expected, dict):
        keys = sorted(key for key in present.keys() | expected.keys() if present.get(key) != expected.get(key))
        pairs = "; ".join(f"{key}: {present.get(key)!r} there, {expected.get(key)!r} asked for" for key in keys)
    else:
        pairs = f"{present!r} there, {expected!r} asked for"
    raise ArtefactError(f"{what} does not fit: {pairs}. {remedy}")

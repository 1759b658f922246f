"""JSON files of a checkpoint, and checks of kind and range for their fields before anything is made of them."""

import json
import reprlib
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seremo_jax.backbones.hub import CheckpointError

_MOST_BYTES = 1 << 26
"""Longest JSON file that is read; the index of a model of a thousand shards has some megabytes."""


class Check(NamedTuple):
    """What the value of a field may be.

    Attributes:
      is_right: Whether a value of JSON is.
      wanted: The same in words, for errors.
    """

    is_right: Callable[[Any], bool]
    wanted: str


def whole(low: int, high: int) -> Check:
    """A whole number of a range, both ends included."""
    return Check(lambda value: type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")


def real(low: float, high: float) -> Check:
    """A number above `low` and up to `high`."""
    # No NaN lies between two numbers.
    return Check(
        lambda value: type(value) in (int, float) and low < value <= high, f"a number above {low:g}, up to {high:g}"
    )


def wholes(low: int, high: int, most: int) -> Check:
    """A list of one to `most` whole numbers of a range."""

    def is_right(value: Any) -> bool:
        return (
            isinstance(value, list)
            and 0 < len(value) <= most
            and all(type(n) is int and low <= n <= high for n in value)
        )

    return Check(is_right, f"a list of 1 to {most} whole numbers from {low} to {high}")


def one_of(names: Collection[Any]) -> Check:
    """One of some values."""
    return Check(
        lambda value: any(type(value) is type(name) and value == name for name in names),
        " or ".join(map(repr, names)) if len(names) < 3 else f"one of {', '.join(map(str, names))}",
    )


def optional(check: Check) -> Check:
    """The same, or null."""
    return Check(lambda value: value is None or check.is_right(value), f"{check.wanted}, or null")


FLAG = Check(lambda value: isinstance(value, bool), "true or false")
NOTHING = Check(lambda value: not value, "absent: this project does not know it")


def checked(path: str, content: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """The fields that are known and given, each of them right.

    Args:
      path: Shown in errors.
      content: Fields as the file gives them; those without a check are left out.
      checks: By the name of the field.

    Raises:
      CheckpointError: Fields are of another kind or outside their range; all of them are named.
    """
    wrong = [
        f"{name} = {reprlib.repr(content[name]):.80}, should be {check.wanted}"
        for name, check in checks.items()
        if name in content and not check.is_right(content[name])
    ]
    if wrong:
        raise CheckpointError(f"{path}: {'; '.join(wrong)}. Place the published file there again")
    return {name: content[name] for name in checks if name in content}


def require_file(path: Path) -> None:
    """Refuses what is no file that can be read: a folder, a pipe, a link that leads nowhere.

    Raises:
      CheckpointError: It is missing or no file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        kind = "is a link to a file that is missing" if path.is_symlink() else "is missing"
        raise CheckpointError(f"{path} {kind}: place the published file there") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): place the published file there") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no file"
        raise CheckpointError(f"{path} is {kind}: place the published file there")


def is_there(path: Path) -> bool:
    """Whether something has this name, even a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      CheckpointError: It is missing or damaged, or holds something else.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        content = json.loads(text.decode("utf-8"))
    except RecursionError:
        raise CheckpointError(
            f"{path} cannot be read (it is nested too deeply): place the published file there again"
        ) from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): place the published file there again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object: place the published file there again")
    return content

"""Results of files as they are finished: what a run that was cut off need not hear again."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seremo_jax.core.artefacts import (
    SEAL,
    ArtefactError,
    parsed,
    require_same,
    sealed,
    sha256_of_file,
    to_json,
    write_text,
)


class Journal:
    """Finished files, a line each behind a line that says what they were made with; only in memory without a path."""

    def __init__(self, path: Path | None, about: dict[str, Any]):
        self._path, self.entries = path, {}
        if path is None:
            return
        if path.exists():
            self._read(about)
        else:
            write_text(path, to_json(sealed(about)) + "\n")

    def _read(self, about: dict[str, Any]) -> None:
        content = self._path.read_bytes()
        remedy = "Give another --out, or delete this file to start anew."
        try:
            whole = content[: content.rindex(b"\n") + 1]
            first, *lines = (
                parsed(line, f"{self._path}:{number}", remedy.lower().rstrip("."))
                for number, line in enumerate(whole.splitlines(), 1)
            )
        except ValueError as error:
            raise ArtefactError(f"{self._path} is damaged ({error}). {remedy}") from None
        require_same(f"what {self._path} was begun with", first, about, remedy)
        if len(whole) < len(content):  # the line that a killed run was writing
            os.truncate(self._path, len(whole))
        self.entries = {entry["file"]: entry for entry in lines}

    def has(self, name: str, path: Path) -> bool:
        """Whether a file has its result and did not change since."""
        entry = self.entries.get(name, {})
        return "result" in entry and "bad" not in entry and entry["stamp"] == stamp(path)

    def append(self, entries: Sequence[dict[str, Any]]) -> None:
        """Adds finished files; they are on the disk when this returns."""
        self.entries |= {entry["file"]: entry for entry in entries}
        # A result that is changed in the journal would come out as one of the model: each line has its fingerprint.
        if self._path is not None:
            with self._path.open("ab") as file:
                # No key is sorted, so that columns stay in the order of the model.
                file.writelines(f"{json.dumps(entry | {SEAL: sealed(entry)[SEAL]})}\n".encode() for entry in entries)
                file.flush()
                os.fsync(file.fileno())


def stamp(path: Path) -> str | None:
    """Hash of the content of a file; None where it cannot be read.

    Two folders may have files of one name, size and time of change, so that only the content says which was heard.
    """
    try:
        return sha256_of_file(path) if path.is_file() else None
    except (OSError, ValueError):  # not to be read, or a name that no file can have
        return None

"""Text files of a corpus, read line by line, and the report in which a parser accounts for every line.

A line is used, or it is counted and reported with its file and number. Nothing is skipped silently.
"""

import codecs
import collections
import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from seremo_jax.core.artefacts import LFS_POINTER


class CorpusError(Exception):
    """The files of a corpus are not what its parser understands. The message names file, line or column and remedy."""


@dataclasses.dataclass
class Report:
    """What a parser counted, and the lines and values that it could not use.

    Attributes:
      counts: Numbers by name.
      problems: Sentences, each with its file and line where it has one.
      first: The first sentence about each thing counted.
    """

    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    problems: list[str] = dataclasses.field(default_factory=list)
    first: dict[str, str] = dataclasses.field(default_factory=dict)

    def merge(self, other: "Report") -> None:
        """Adds what another report holds."""
        self.counts.update(other.counts)
        self.problems += other.problems
        self.first = {**other.first, **self.first}

    def add(self, what: str, problem: str, number: int = 1) -> None:
        """Counts `what`, and adds the sentence that says where it was, or where the first of `number` was."""
        self.counts[what] += number
        self.problems.append(problem)
        self.first.setdefault(what, problem)


def read_content(path: str | os.PathLike) -> bytes:
    """All of a text file of the corpus; UTF-16, which begins with its byte order mark, becomes UTF-8.

    Raises:
      CorpusError: The file is missing, cut off in UTF-16, or a Git LFS pointer.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    if content.startswith(LFS_POINTER):
        raise CorpusError(f"{path} is a Git LFS pointer: run git lfs pull in the folder of the corpus")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16").encode()
        except UnicodeError as error:
            raise CorpusError(f"{path} cannot be read as UTF-16: {error}; save it as UTF-8") from None
    return content


def text_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file without their ends (LF or CRLF) and byte order mark; UTF-8, else taken for Latin-1.

    Raises:
      CorpusError: The file is missing or a Git LFS pointer.
    """
    content = read_content(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def csv_rows(path: str | os.PathLike, required: Sequence[str], report: Report) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields ("file:line", column -> cell).

    Columns are found by name, in any order. The column of row names that R writes goes by "", whether it has no name,
    was given one by a reader, or is just the first one. Lines are counted as `lines_read`; those with too few or too
    many cells are reported as `lines_not_used`.

    Raises:
      CorpusError: A required column is missing, or the file is a Git LFS pointer, missing or no text.
    """
    path, content = Path(path), read_content(path)
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        header = reader.fieldnames or []
        if missing := [column for column in required if column not in header]:
            raise CorpusError(f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}")
        if not header:
            return
        # R writes row names into a column without a name, which some readers and writers give a name of their own.
        row_names = next((column for column in ("", "Unnamed: 0", "X") if column in header), header[0])
        for row in reader:
            where = f"{path.name}:{reader.line_num}"
            report.counts["lines_read"] += 1
            # A row that is too long has its rest under None, one that is too short has None in its last cells.
            if None in row or None in row.values():
                report.add("lines_not_used", f"{where}: not {len(header)} cells")
                continue
            yield where, {**row, "": row[row_names]}
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None


def json_value(text: str, pairs: Callable[[list], Any] | None = None) -> Any:
    """The value that a text of JSON stands for.

    Args:
      text: The JSON.
      pairs: Makes a value of the keys and values of each object, in the place of a dict.

    Raises:
      ValueError: It is no JSON, is nested too deeply, or has an escape that stands for half a character.
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"an escape stands for half a character: {error}") from None
    return value


def cell_text(value: Any) -> str | None:
    """A value of JSON as the cell of a text table: lists joined by commas, 3.0 as 3, None where there is none."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value if item is not None)
    # A column of whole numbers that lacks some comes out of many writers as 3.0, and must still name who 3 names.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)

"""Text tables of a corpus, read line by line: every line is used or reported."""

import collections
import csv
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


class CorpusError(Exception):
    """The files of a corpus are not what its parser understands. The message names file, line or column and remedy."""


@dataclasses.dataclass
class Report:
    """What a parser counted, and what it could not use.

    Attributes:
      counts: Numbers by name.
      problems: Sentences, each with its file and line where it has one.
    """

    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    problems: list[str] = dataclasses.field(default_factory=list)

    def merge(self, other: "Report") -> None:
        """Adds what another report holds."""
        self.counts.update(other.counts)
        self.problems += other.problems

    def add(self, what: str, problem: str) -> None:
        """Counts `what` and says where."""
        self.counts[what] += 1
        self.problems.append(problem)


def read_content(path: str | os.PathLike) -> bytes:
    """All of a file of the corpus.

    Raises:
      CorpusError: The file is missing or a Git LFS pointer.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    if content.startswith(b"version https://git-lfs"):
        raise CorpusError(f"{path} is a Git LFS pointer: run git lfs pull in the folder of the corpus")
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

    The column of row names that R writes goes by "", whether nameless, renamed by a reader, or just the first one.
    Columns are found by name, in any order. Lines are counted as `lines_read`; those with too few or too many cells are
    reported as `lines_not_used`.

    Raises:
      CorpusError: A required column is missing, or the file is a Git LFS pointer, missing or no text.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            if header and header[0].startswith("version https://git-lfs"):
                raise CorpusError(f"{path} is a Git LFS pointer: run git lfs pull in the folder of the corpus")
            if missing := [column for column in required if column not in header]:
                raise CorpusError(f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}")
            if not header:
                return
            row_names = next((column for column in ("", "Unnamed: 0", "X") if column in header), header[0])
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                report.counts["lines_read"] += 1
                if None in row or None in row.values():
                    report.add("lines_not_used", f"{where}: not {len(header)} cells")
                    continue
                yield where, {**row, "": row[row_names]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None

"""Large text tables as Polars frames: every physical line is used or reported, and no bad one takes others with it.

Lines are cut first and cells second, so that a quotation mark that is never closed costs one line and not the rest of
the file. A quoted cell may still run over several lines.
"""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from seremo_jax.data.text_lines import CorpusError, Report, read_content

LINE = "line of the file"
"""Column of the number of the line a row begins on. No file has a column of this name, and many have a `line`."""

MISSING = ("", "na", "n/a", "n.a.", "<na>", "#n/a", "nan", "-nan", "none", "null", "nil")
"""What a cell says, in lower case, that has no value: the words of spreadsheets, R, Python and databases."""

MOST_COUNTED, MOST_IN_ALL = 10_000, 50_000_000
"""More votes of one class for one utterance, or of all for a whole corpus, are a mistake in a file."""

_PATTERN = re.compile(r"(?s)\*|\^.*\$")
"""Polars takes such a name for a pattern of names: `*` is every column, `^u.*$` is every one that begins with u."""

_NUMBER_REMEDY = ": write digits with a decimal point, no comma between thousands and no percent sign"
_CHUNK_LINES = 200_000
_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_CELL_LINES = 100
"""A quoted cell that runs over more lines than this was never closed."""


_TEXT = "text of the line"


class _Layout(NamedTuple):
    """How a file writes its rows.

    Attributes:
      header: Names of the columns.
      separator: What parts the cells.
    """

    header: list[str]
    separator: str


def read_lines(path: str | os.PathLike) -> pl.Series:
    """The lines of a text file in UTF-8, without byte order mark, line ends (LF, CRLF or CR) and the empty last one.

    Raises:
      CorpusError: The file is missing, no UTF-8 text, or a Git LFS pointer.
    """
    content = read_content(path)
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    offsets = b"".join(number.to_bytes(8, "little") for number in (start, len(content)))
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(content)])
    try:
        split = pc.split_pattern(whole.cast(pa.large_string()), "\n").flatten()
    except pa.ArrowInvalid:
        raise CorpusError(f"{path} cannot be read: it is not UTF-8; convert it first (iconv -t UTF-8)") from None
    lines = pl.Series("text", split).str.strip_suffix("\r")
    return lines[:-1] if len(lines) and lines[-1] == "" else lines


def read_csv(
    path: str | os.PathLike,
    required: Sequence[str],
    report: Report,
    key: tuple[str, str] | None = None,
    what: str = "lines",
) -> pl.DataFrame:
    """All columns of a CSV file as text, by name, and `LINE`, the number of the line a row begins on.

    Cells are parted by commas, semicolons, tabs or vertical bars, whichever makes the columns that the file must have,
    or by what a first line such as `sep=;` names.

    Args:
      path: The file.
      required: Columns it must have, in any order.
      report: Gets `<what>_read` and, for rows that are not as wide as the header, `<what>_not_used` with file and line.
      key: (column, pattern of its cells). A line is known for a row by it, even where a cell above was never closed.
      what: What a row is.

    Raises:
      CorpusError: A column is missing or named twice, or the file cannot be read.
    """
    path = Path(path)
    text = read_lines(path)
    num_above, layout = _layout(text, required, path)
    header = layout.header
    frame = pl.DataFrame({_TEXT: text}).with_row_index(LINE, offset=1)[num_above:]
    plain, left = [_split(frame[:0], layout).drop(_TEXT)], list[int]()
    for start in range(0, frame.height, _CHUNK_LINES):
        chunk = _split(frame[start : start + _CHUNK_LINES], layout)
        is_row = chunk[header[0]].is_not_null()
        if key is not None:
            is_row &= chunk[key[0]].str.contains(key[1]).fill_null(False)
        plain.append(chunk.filter(is_row).drop(_TEXT))
        left += chunk.filter(~is_row)[LINE].to_list()
    joined, inside = _join_lines(text, left, layout, key is not None, path.name, report, what)
    rows = pl.concat(plain)
    if joined:
        schema = {LINE: rows.schema[LINE], **dict.fromkeys(header, pl.String)}
        rows = pl.concat([rows.filter(~pl.col(LINE).is_in(inside)), pl.DataFrame(joined, schema, orient="row")])
        rows = rows.sort(LINE)
    report.counts[f"{what}_read"] += rows.height
    return rows


def _layout(text: pl.Series, required: Sequence[str], path: Path) -> tuple[int, _Layout]:
    """How many lines there are up to the header and with it, and how the file writes its rows."""
    named = re.fullmatch(r'"?sep=([^\w\s"]|\t)"?[\s;,]*', text[0], re.IGNORECASE) if len(text) else None
    place = 1 if named else 0
    separators = (named[1],) if named else _SEPARATORS
    line = text[place] if len(text) > place else ""
    headers = {sign: [cell.strip() for cell in _cells(line, sign)[0] or []] for sign in separators}
    fitting = [sign for sign in separators if set(required) <= set(headers[sign])]
    separator = max(fitting or separators, key=lambda sign: len(headers[sign]))
    header = headers[separator]
    if not fitting:
        missing = [column for column in required if column not in header]
        remedy = "" if len(header) > 1 else "; cells must be parted by commas, semicolons or tabs"
        raise CorpusError(f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}{remedy}")
    if len(set(header)) < len(header):
        raise CorpusError(f"{path}: a column is named twice: {', '.join(header)}; give each a name of its own")
    refuse_names(header, path)
    return place + 1, _Layout(header, separator)


def refuse_names(columns: Sequence[str], path: Path) -> None:
    """Raises where a column of a table has a name that no table can hold, or that this project needs itself.

    Raises:
      CorpusError: Names the column.
    """
    if odd := [name for name in columns if "\0" in name]:
        raise CorpusError(f"{path}: column {odd[0][:80]!r} has a NUL in its name: rename it")
    if patterns := [name for name in columns if _PATTERN.fullmatch(name.strip())]:
        raise CorpusError(
            f"{path}: column {patterns[0][:80]!r} has a name that stands for several columns where tables are read: "
            "rename it"
        )
    if taken := sorted({LINE, _TEXT} & set(columns)):
        raise CorpusError(f"{path}: column {taken[0]!r} has a name that this project needs itself: rename it")


def _split(frame: pl.DataFrame, layout: _Layout) -> pl.DataFrame:
    """Adds a column a cell, null in every one where a line is no plain row of that width."""
    sign = re.escape(layout.separator)
    cell = rf'(?:"((?:[^"]|"")*)"|([^"{sign}]*))'
    pattern = "^" + sign.join([cell] * len(layout.header)) + "$"
    groups = frame[_TEXT].str.extract_groups(pattern).struct.unnest()
    quoted, plain = groups.columns[::2], groups.columns[1::2]
    cells = groups.select(
        pl.coalesce(pl.col(inside).str.replace_all('""', '"', literal=True), pl.col(bare)).alias(name)
        for inside, bare, name in zip(quoted, plain, layout.header, strict=True)
    )
    return pl.concat([frame, cells], how="horizontal")


def _join_lines(
    text: pl.Series, left: list[int], layout: _Layout, has_key: bool, file: str, report: Report, what: str
) -> tuple[list[list], list[int]]:
    """Rows that are no plain ones: cells over several lines, bare quotation marks. What is no row is reported.

    Args:
      text: All lines of the file.
      left: Numbers of the lines that are no plain rows.
      layout: How the file writes its rows.
      has_key: Plain rows are known for certain, so no cell runs over one.
      file: Name to report by.
      report: As of `read_csv`.
      what: As of `read_csv`.

    Returns:
      [line number, *cells] of each row, and the numbers of the further lines of those that have several.
    """
    header, sign = layout
    rows, inside, open_to = list[list](), set[int](), set(left)
    for number in left:
        if number in inside:
            continue
        end = number
        cells, is_open = _cells(text[number - 1], sign)
        while is_open and end < min(len(text), number + _LONGEST_CELL_LINES) and (not has_key or end + 1 in open_to):
            end += 1
            cells, is_open = _cells("\n".join(text[number - 1 : end]), sign)
        if cells is not None and len(cells) == len(header):
            rows.append([number, *cells])
            inside.update(range(number + 1, end + 1))
        elif text[number - 1].strip():
            why = (
                "a quotation mark is never closed" if _cells(text[number - 1], sign)[1] else f"not {len(header)} cells"
            )
            report.counts[f"{what}_read"] += 1
            report.add(f"{what}_not_used", f"{file}:{number}: {why}")
    return rows, sorted(inside)


def to_numbers(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.Series]:
    """The frame with text columns turned into numbers, and of each row the first cell that is no number, in words.

    A cell that says that there is no value (`MISSING`) is null and not wrong.

    Returns:
      The frame, and a sentence for each row that holds something else than numbers; null for the others.
    """
    why = pl.Series("why", [None], dtype=pl.String).new_from_index(0, frame.height)
    for name in columns:
        text = frame[name].str.strip_chars()
        is_missing = text.str.to_lowercase().is_in(list(MISSING)) | text.is_null()
        value = text.cast(pl.Float64, strict=False)
        is_number = value.is_finite().fill_null(False)
        remedy = pl.when(pl.col("text").str.contains("[,%]")).then(pl.lit(_NUMBER_REMEDY)).otherwise(pl.lit(""))
        wrong = pl.format("{} is '{}', which is no number{}", pl.lit(name), pl.col("text"), remedy)
        cells = pl.DataFrame({"text": text, "is_wrong": ~is_missing & ~is_number, "why": why})
        why = cells.select(pl.coalesce("why", pl.when("is_wrong").then(wrong)).alias("why")).to_series()
        frame = frame.with_columns(pl.Series(name, value).set(~is_number, None))
    return frame, why


def refuse_absurd(texts: pl.DataFrame, numbers: pl.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Raises where a count of votes is no count that raters can make, before anything is made of each vote.

    Args:
      texts: The columns as they stand in the file, and `LINE`.
      numbers: The same rows, as numbers.
      columns: Those that hold counts.
      path: The file.

    Raises:
      CorpusError: Names line, column and value.
    """
    for name in columns:
        for line, text in texts.filter(numbers[name].fill_null(0) > MOST_COUNTED).select(LINE, name).iter_rows():
            raise CorpusError(f"{path}:{line}: {name} is {text}, over {MOST_COUNTED:,} votes of an utterance: correct "
                              "the cell, or remove the row")  # fmt: skip
    total = sum(numbers[name].sum() for name in columns)
    if total > MOST_IN_ALL:
        raise CorpusError(f"{path}: {', '.join(columns)} count {total:,.0f} votes in all, over {MOST_IN_ALL:,}: "
                          "correct them, or divide the corpus")  # fmt: skip


def _cells(text: str, separator: str) -> tuple[list[str] | None, bool]:
    """The cells of a row, or None; and whether the row ends inside a quoted cell."""
    try:
        rows = list(csv.reader([text], strict=True, delimiter=separator))
    except csv.Error as error:
        return None, "unexpected end" in str(error)
    return (rows[0] if len(rows) == 1 else None), False

"""Large text tables as Polars frames: every physical line is used or reported, and no bad one takes others with it.

Lines are cut first and cells second, so that a quotation mark that is never closed costs one line and not the rest of
the file. A quoted cell may still run over several lines.
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from seremo_jax.data.text_lines import CorpusError, Report, read_content

LINE_OF_TABLE = "line "
"""What a column is called that a table itself calls `line`; no header has a name that ends in a space."""
_CHUNK_LINES = 200_000
_CELL = r'(?:"((?:[^"]|"")*)"|([^",]*))'
_LONGEST_CELL_LINES = 100
"""A quoted cell that runs over more lines than this was never closed."""


def read_lines(path: str | os.PathLike) -> pl.Series:
    """The lines of a text file in UTF-8, without byte order mark, line ends (LF or CRLF) and the empty last one.

    Raises:
      CorpusError: The file is missing, no UTF-8 text, or a Git LFS pointer.
    """
    content = read_content(path)
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
    """All columns of a CSV file as text, by name, and `line`, the number of the line a row begins on.

    A column that the file itself calls so is `LINE_OF_TABLE`.

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
    header = _cells(text[0])[0] if len(text) else None
    header = [cell.strip() for cell in header or []]
    if missing := [column for column in required if column not in header]:
        raise CorpusError(f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}")
    if len(set(header)) < len(header):
        raise CorpusError(f"{path}: a column is named twice: {', '.join(header)}")
    header = [LINE_OF_TABLE if name == "line" else name for name in header]
    frame = pl.DataFrame({"text": text}).with_row_index("line", offset=1)[1:]
    plain, left = [_split(frame[:0], header)], list[int]()
    for start in range(0, frame.height, _CHUNK_LINES):
        chunk = _split(frame[start : start + _CHUNK_LINES], header)
        is_row = chunk[header[0]].is_not_null()
        if key is not None:
            is_row &= chunk[key[0]].str.contains(key[1]).fill_null(False)
        plain.append(chunk.filter(is_row))
        left += chunk.filter(~is_row)["line"].to_list()
    joined, inside = _join_lines(text, left, header, key is not None, path.name, report, what)
    rows = pl.concat(plain)
    if joined:
        schema = {"line": rows.schema["line"], **dict.fromkeys(header, pl.String)}
        rows = pl.concat([rows.filter(~pl.col("line").is_in(inside)), pl.DataFrame(joined, schema, orient="row")])
        rows = rows.sort("line")
    report.counts[f"{what}_read"] += rows.height
    return rows


def _split(frame: pl.DataFrame, header: Sequence[str]) -> pl.DataFrame:
    """`line` and a column a cell, null in every one where a line is no plain row of that width."""
    pattern = "^" + ",".join([_CELL] * len(header)) + "$"
    groups = frame["text"].str.extract_groups(pattern).struct.unnest()
    quoted, plain = groups.columns[::2], groups.columns[1::2]
    cells = groups.select(
        pl.coalesce(pl.col(inside).str.replace_all('""', '"', literal=True), pl.col(bare)).alias(name)
        for inside, bare, name in zip(quoted, plain, header, strict=True)
    )
    return pl.concat([frame.select("line"), cells], how="horizontal")


def _join_lines(
    text: pl.Series, left: list[int], header: Sequence[str], has_key: bool, file: str, report: Report, what: str
) -> tuple[list[list], list[int]]:
    """Rows that are no plain ones: cells over several lines, bare quotation marks. What is no row is reported.

    Args:
      text: All lines of the file.
      left: Numbers of the lines that are no plain rows.
      header: Names of the columns.
      has_key: Plain rows are known for certain, so no cell runs over one.
      file: Name to report by.
      report: As of `read_csv`.
      what: As of `read_csv`.

    Returns:
      [line number, *cells] of each row, and the numbers of the further lines of those that have several.
    """
    rows, inside, open_to = list[list](), set[int](), set(left)
    for number in left:
        if number in inside:
            continue
        end = number
        cells, is_open = _cells(text[number - 1])
        while is_open and end < min(len(text), number + _LONGEST_CELL_LINES) and (not has_key or end + 1 in open_to):
            end += 1
            cells, is_open = _cells("\n".join(text[number - 1 : end]))
        if cells is not None and len(cells) == len(header):
            rows.append([number, *cells])
            inside.update(range(number + 1, end + 1))
        elif text[number - 1].strip():
            why = "a quotation mark is never closed" if _cells(text[number - 1])[1] else f"not {len(header)} cells"
            report.counts[f"{what}_read"] += 1
            report.add(f"{what}_not_used", f"{file}:{number}: {why}")
    return rows, sorted(inside)


def to_numbers(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.Series]:
    """The frame with text columns turned into numbers, and which rows hold something that is no number.

    A cell that says that there is no value ("", nan, none, na, null) is null and not wrong.
    """
    is_wrong = pl.Series([False]).new_from_index(0, frame.height)
    for name in columns:
        text = frame[name].str.strip_chars()
        is_missing = text.str.to_lowercase().is_in(["", "nan", "none", "na", "null"]) | text.is_null()
        value = text.cast(pl.Float64, strict=False)
        is_number = value.is_finite().fill_null(False)
        is_wrong |= ~is_missing & ~is_number
        frame = frame.with_columns(pl.Series(name, value).set(~is_number, None))
    return frame, is_wrong


def _cells(text: str) -> tuple[list[str] | None, bool]:
    """The cells of a row, or None; and whether the row ends inside a quoted cell."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        return None, "unexpected end" in str(error)
    return (rows[0] if len(rows) == 1 else None), False

"""Tables as CSV, JSON lines or Parquet, all of them read as text and by column name."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.corpora.csv_frames import LINE_OF_TABLE, read_csv
from seremo_jax.data.text_lines import CorpusError, Report, cell_text, text_lines

_SUFFIXES = (".csv", ".jsonl", ".parquet")
_FLAGS = {"": False, "false": False, "0": False, "no": False, "true": True, "1": True, "yes": True}


def find(root: Path, name: str) -> Path | None:
    """The table of that name, or None.

    Raises:
      CorpusError: It is there in two formats.
    """
    paths = [path for suffix in _SUFFIXES if (path := root / f"{name}{suffix}").is_file()]
    if len(paths) > 1:
        raise CorpusError(f"{' and '.join(map(str, paths))} are both there: move one away")
    return paths[0] if paths else None


def read(path: Path, required: Sequence[str], report: Report, what: str) -> pl.DataFrame:
    """Every column as text, lists joined by commas, and `line` (in Parquet, the row). `arousal` becomes `activation`.

    A column that the file itself calls `line` is `LINE_OF_TABLE`.

    Raises:
      CorpusError: A column is missing or there twice, or the file cannot be read.
    """
    if path.suffix == ".csv":
        frame = read_csv(path, required, report, what=what)
    elif path.suffix == ".jsonl":
        frame = _read_jsonl(path, report, what)
    else:
        frame = _read_parquet(path, report, what)
    if missing := [name for name in required if name not in frame.columns]:
        raise CorpusError(f"{path}: no column {', '.join(missing)}; found {', '.join(frame.columns)}")
    for synonym, name in vocab.ATTRIBUTE_SYNONYMS.items():
        if synonym in frame.columns and name in frame.columns:
            raise CorpusError(f"{path}: columns {synonym} and {name} mean the same: keep one")
        frame = frame.rename({synonym: name}, strict=False)
    return frame


def _read_jsonl(path: Path, report: Report, what: str) -> pl.DataFrame:
    rows, names = [], dict[str, None]()
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        report.counts[f"{what}_read"] += 1
        try:
            cells = json.loads(line)
        except ValueError:
            cells = None
        if not isinstance(cells, dict):
            report.add(f"{what}_not_used", f"{path.name}:{number}: no JSON object")
            continue
        cells = {LINE_OF_TABLE if name == "line" else name: value for name, value in cells.items()}
        names.update(dict.fromkeys(cells))
        rows.append({"line": number, **{name: cell_text(value) for name, value in cells.items()}})
    return pl.DataFrame(rows, schema={"line": pl.UInt32, **dict.fromkeys(names, pl.String)})


def _read_parquet(path: Path, report: Report, what: str) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
        lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
        frame = frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(",") for name in lists)
        frame = frame.cast(pl.String).rename({"line": LINE_OF_TABLE}, strict=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    report.counts[f"{what}_read"] += frame.height
    return frame.with_row_index("line", offset=1)


def to_flag(text: pl.Series) -> pl.Series:
    """Truth values of texts, null where a text is none; nothing means False."""
    low = text.str.strip_chars().str.to_lowercase().fill_null("")
    return low.replace_strict(_FLAGS, default=None, return_dtype=pl.Boolean)

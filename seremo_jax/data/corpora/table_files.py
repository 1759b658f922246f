"""Tables as CSV, JSON lines or Parquet, all of them read as text and by column name.

What a cell means does not depend on the format: blanks around it are no part of it, and a word such as `NA` that says
that there is no value leaves the cell empty.
"""

from collections.abc import Container, Sequence
from decimal import Decimal
from pathlib import Path

import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.corpora.csv_frames import LINE, MISSING, read_csv, refuse_names
from seremo_jax.data.text_lines import CorpusError, Report, cell_text, json_value, text_lines

CLASS_COLUMNS = ("primary", "also_primary", "secondary", "released_consensus")
"""Columns of class words."""

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_FLAGS = {"": False, "false": False, "0": False, "no": False, "true": True, "1": True, "yes": True}
_INVISIBLE = "\u200b\u200e\u200f\u2060\ufeff"
_DECIMAL_COMMA = r"^[+-]?\d*,\d+\s*%?$"


def find(root: Path, name: str) -> Path | None:
    """The table of that name, or None.

    Raises:
      CorpusError: It is there in two formats.
    """
    paths = [path for suffix in _SUFFIXES if (path := root / f"{name}{suffix}").is_file()]
    if len(paths) > 1:
        raise CorpusError(f"{' and '.join(map(str, paths))} are both there: move one away")
    return paths[0] if paths else None


def require_any(root: Path, names: Sequence[str]) -> None:
    """Raises where a folder holds none of these tables.

    Raises:
      CorpusError: Names files that may be meant.
    """
    if any(find(root, name) for name in names):
        return
    near = [path.name for path in sorted(root.iterdir()) if path.stem.lower() in names] if root.is_dir() else []
    hint = f" (it holds {', '.join(near)}: save it under such a name, in such a format)" if near else ""
    raise CorpusError(f"{root} holds neither {' nor '.join(names)} as {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
                      f"{hint}: set --config.corpus.root to the folder of the tables")  # fmt: skip


def read(path: Path, required: Sequence[str], report: Report, what: str, words: Container[str] = ()) -> pl.DataFrame:
    """Every column as text, lists joined by commas, and `LINE` (in Parquet, the row). `arousal` becomes `activation`.

    Cells are stripped of blanks, and null where they say that there is no value (`csv_frames.MISSING`).

    Args:
      path: The file.
      required: Columns it must have.
      report: Gets `<what>_read` and `<what>_not_used`.
      what: What a row is.
      words: Class words, in lower case, that mean something although they are in `MISSING`.

    Raises:
      CorpusError: A column is missing or there twice, or the file cannot be read.
    """
    if path.suffix in (".csv", ".tsv"):
        frame = read_csv(path, required, report, what=what)
    elif path.suffix == ".jsonl":
        frame = _read_jsonl(path, report, what)
    else:
        frame = _read_parquet(path, report, what)
    names = [name.strip() for name in frame.columns]
    if len(set(names)) < len(names):
        raise CorpusError(f"{path}: a column is named twice: {', '.join(names[1:])}; give each a name of its own")
    frame.columns = names
    if missing := [name for name in required if name not in names]:
        rejected = f"; {report.first[f'{what}_not_used']}" if f"{what}_not_used" in report.first else ""
        raise CorpusError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(names[1:]) or 'nothing'}{rejected}"
        )
    for synonym, name in vocab.ATTRIBUTE_SYNONYMS.items():
        if synonym in frame.columns and name in frame.columns:
            raise CorpusError(f"{path}: columns {synonym} and {name} mean the same: keep one")
        frame = frame.rename({synonym: name}, strict=False)
    return frame.with_columns(_value(name, words) for name in frame.columns if name != LINE)


def _value(column: str, words: Container[str]) -> pl.Expr:
    text = pl.col(column).str.strip_chars().str.strip_chars(_INVISIBLE).str.strip_chars()
    missing = [word for word in MISSING if column not in CLASS_COLUMNS or word not in words]
    return pl.when(~text.str.to_lowercase().is_in(missing)).then(text).alias(column)


def _read_jsonl(path: Path, report: Report, what: str) -> pl.DataFrame:
    rows, names = [], dict[str, None]()
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        report.counts[f"{what}_read"] += 1
        try:
            cells = json_value(line)
        except ValueError:
            cells = None
        if not isinstance(cells, dict):
            report.add(f"{what}_not_used", f"{path.name}:{number}: no JSON object: {line.strip()[:80]!r}")
            continue
        names.update(dict.fromkeys(cells))
        rows.append({**{name: cell_text(value) for name, value in cells.items()}, LINE: number})
    refuse_names([*names], path)
    return pl.DataFrame(rows, schema={LINE: pl.UInt32, **dict.fromkeys(names, pl.String)})


def _read_parquet(path: Path, report: Report, what: str) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
        refuse_names(frame.columns, path)
        lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
        frame = frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(",") for name in lists)
        frame = frame.with_columns(frame[name].cast(pl.Int64) for name in _whole_columns(frame))
        frame = frame.cast(pl.String)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    report.counts[f"{what}_read"] += frame.height
    return frame.with_row_index(LINE, offset=1)


def _whole_columns(frame: pl.DataFrame) -> list[str]:
    """Columns of whole numbers that pandas has made floating-point ones, because some are missing."""
    names = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    given = {name: frame[name].filter(frame[name].is_not_nan()).drop_nulls() for name in names}
    whole = [name for name in names if ((given[name] % 1 == 0) & (given[name].abs() < 2**53)).all()]
    return [name for name in whole if not frame[name].is_nan().any()]


def plain_numbers(frame: pl.DataFrame, columns: Sequence[str], file: str) -> pl.DataFrame:
    """The frame with decimal commas turned into points in columns of numbers, which are still text.

    Raises:
      CorpusError: Some numbers have commas and some have points, so that a comma may stand between thousands.
    """
    texts = {name: frame[name].fill_null("") for name in columns}
    commas = {name: text.str.contains(_DECIMAL_COMMA) for name, text in texts.items()}
    with_comma = [name for name in columns if commas[name].any()]
    if not with_comma:
        return frame
    for name in columns:
        if (with_point := texts[name].str.contains(".", literal=True)).any():
            comma = frame.filter(commas[with_comma[0]]).select(LINE, with_comma[0]).row(0)
            point = frame.filter(with_point).select(LINE, name).row(0)
            raise CorpusError(f"{file}:{comma[0]}: {with_comma[0]} is {comma[1]!r}, but in line {point[0]} {name} "
                              f"is {point[1]!r}: write all with decimal points, none between thousands")  # fmt: skip
    replaced = (texts[name].str.replace(",", ".", literal=True).alias(name) for name in with_comma)
    return frame.with_columns(replaced)


def plain_shares(frame: pl.DataFrame, columns: Sequence[str], file: str) -> pl.DataFrame:
    """The frame with shares such as `17 %` or, where rows sum to 100, `17` turned into 0.17, which is still text.

    Raises:
      CorpusError: Some shares have a percent sign, and others none.
    """
    texts = {name: frame[name].fill_null("") for name in columns}
    signs = {name: text.str.ends_with("%") for name, text in texts.items()}
    bare = {name: ~signs[name] & (texts[name].cast(pl.Float64, strict=False).fill_null(0) != 0) for name in columns}
    has_signs = any(sign.any() for sign in signs.values())
    if has_signs:
        for name in columns:
            for line, text in frame.filter(bare[name]).select(LINE, name).head(1).iter_rows():
                raise CorpusError(f"{file}:{line}: {name} is {text!r} without a percent sign, which others have: "
                                  "write all shares alike")  # fmt: skip
    elif not _sum_to_hundred(frame, columns):
        return frame
    return frame.with_columns(
        pl.Series(name, [_hundredth(text) for text in text_column], dtype=pl.String)
        for name, text_column in texts.items()
    )


def _sum_to_hundred(frame: pl.DataFrame, columns: Sequence[str]) -> bool:
    """Whether every row with shares sums to 100, up to the rounding of its shares to whole percents."""
    sums = frame.select(pl.sum_horizontal(pl.col(name).cast(pl.Float64, strict=False) for name in columns)).to_series()
    sums = sums.filter(sums != 0)
    return bool(sums.len()) and bool(((sums - 100).abs() <= len(columns) / 2).all())


def _hundredth(text: str) -> str:
    try:
        return format(Decimal(text.removesuffix("%").strip()).scaleb(-2), "f")
    except ArithmeticError:
        return text


def to_flag(text: pl.Series) -> pl.Series:
    """Truth values of texts, null where a text is none; nothing means False."""
    low = text.str.strip_chars().str.to_lowercase().fill_null("")
    return low.replace_strict(_FLAGS, default=None, return_dtype=pl.Boolean)

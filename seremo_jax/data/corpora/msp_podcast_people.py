"""What the files of MSP-Podcast say of each utterance: split, speaker, gender, released consensus, attribute means."""

from pathlib import Path

import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.corpora import class_words
from seremo_jax.data.corpora.csv_frames import LINE, MISSING, read_csv, read_lines, to_numbers
from seremo_jax.data.corpora.msp_podcast_ratings import (
    COLUMN_OF,
    FILE_CELL,
    STEM,
    first_rows,
    read_json_pairs,
    why_no_file,
)
from seremo_jax.data.text_lines import CorpusError, Report

SPLITS = {
    "train": vocab.TRAIN,
    "development": vocab.DEVELOPMENT,
    "validation": vocab.DEVELOPMENT,
    "test1": "test1",
    "test2": "test2",
    "test3": "test3",
}
"""Corpus's name of a split in lower case -> ours."""

_COLUMNS = ("FileName", "EmoClass", *COLUMN_OF.values(), "SpkrID", "Gender", "Split_Set")
FACTS = ("speaker", "gender", "split")


def read_consensus(path: Path, report: Report) -> pl.DataFrame:
    """`labels_consensus.csv` or its JSON twin, one row an utterance, by name.

    Columns: `utterance`, `code`, the attributes (released means, null where there is none), `speaker`, `gender`,
    `split` as the file has it.

    Raises:
      CorpusError: A column is missing, or the file cannot be read.
    """
    if path.suffix == ".json":
        rows = _json_rows(path, report)
    else:
        rows = read_csv(path, _COLUMNS, report, FILE_CELL).rename({LINE: "line"})
    frame = rows.select(
        "line",
        utterance="FileName",
        code="EmoClass",
        **COLUMN_OF,
        speaker="SpkrID",
        gender="Gender",
        split="Split_Set",
    )
    return clean_released(frame, path.name, report).with_columns(
        *(pl.col(name).str.strip_chars() for name in ("gender", "split")), _speaker_id("speaker")
    )


def clean_released(frame: pl.DataFrame, file: str, report: Report) -> pl.DataFrame:
    """Numbers instead of texts, names without `.wav`; rows of no file, odd values and second rows are reported."""
    frame, why_number = to_numbers(frame, vocab.ATTRIBUTES)
    why_name = why_no_file(frame["utterance"], None)
    frame = frame.with_columns(pl.col("utterance").str.strip_suffix(".wav"), pl.col("code").str.strip_chars())
    is_second = pl.when(~pl.col("utterance").is_first_distinct()).then(pl.lit("a second row for this file"))
    frame = frame.with_columns(why=pl.coalesce(why_name, is_second, why_number))
    for line, name, why in frame.drop_nulls("why").select("line", "utterance", "why").iter_rows():
        place = f"{file}:{line}" if line is not None else file
        report.add("lines_not_used", f"{place}: {name}: {why}")
    return frame.filter(pl.col("why").is_null()).drop("line", "why")


def _json_rows(path: Path, report: Report) -> pl.DataFrame:
    rows = []
    for name, cells in read_json_pairs(path):
        report.counts["lines_read"] += 1
        row = {"FileName": name, **dict(cells if isinstance(cells, list) else [])}
        if missing := [key for key in _COLUMNS if key not in row]:
            report.add("lines_not_used", f"{path.name}: {name}: no {', '.join(missing)}")
            continue
        rows.append([None if row[key] is None else str(row[key]) for key in _COLUMNS])
    frame = pl.DataFrame(rows, schema=dict.fromkeys(_COLUMNS, pl.String), orient="row")
    return frame.with_columns(line=pl.lit(None, pl.UInt32))


def read_speakers(path: Path, report: Report) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`Speaker_ids.txt`: (`speaker`, `gender`) from lines on people, (`utterance`, `speaker`) from those on files."""
    frame = _lines(path, report)
    people = frame["text"].str.extract_groups(r"(?i)^\s*Speaker_?(\w+)\s*;\s*(\w+)\s*;?\s*$")
    is_person = frame["text"].str.contains(r"(?i)^\s*speaker")
    files = frame["text"].set(is_person, None).str.extract_groups(rf"^\s*({STEM})\s*;\s*([^;]*?)\s*;?\s*$")
    people = people.struct.rename_fields(["speaker", "gender"]).struct.unnest()
    files = files.struct.rename_fields(["utterance", "speaker"]).struct.unnest()
    is_used = people["speaker"].is_not_null() | files["utterance"].is_not_null()
    _report_lines(frame.filter(~is_used), path.name, report)
    people = people.with_columns(frame["line"], _speaker_id("speaker")).drop_nulls("gender")
    files = files.with_columns(pl.col("utterance").str.strip_suffix(".wav"), frame["line"], _speaker_id("speaker"))
    files = files.drop_nulls("utterance")
    return first_rows(people, "speaker", path.name, report), first_rows(files, "utterance", path.name, report)


def read_partitions(path: Path, report: Report) -> pl.DataFrame:
    """`Partitions.txt`: `utterance`, `split` as the file has it."""
    frame = _lines(path, report)
    pairs = frame["text"].str.extract_groups(rf"^\s*([\w/]*?)\s*;\s*({STEM})\s*;?\s*$")
    pairs = pairs.struct.rename_fields(["split", "utterance"]).struct.unnest()
    pairs = pairs.with_columns(pl.col("utterance").str.strip_suffix(".wav"))
    _report_lines(frame.filter(pairs["utterance"].is_null()), path.name, report)
    return first_rows(pairs.with_columns(frame["line"]).drop_nulls("utterance"), "utterance", path.name, report)


def _lines(path: Path, report: Report) -> pl.DataFrame:
    frame = pl.DataFrame({"text": read_lines(path)}).with_row_index("line", offset=1)
    frame = frame.filter(frame["text"].str.strip_chars() != "")
    report.counts["lines_read"] += frame.height
    return frame


def _report_lines(frame: pl.DataFrame, file: str, report: Report) -> None:
    for line, text in frame.iter_rows():
        report.add("lines_not_used", f"{file}:{line}: {text[:80]!r} is no line of this file")


def _speaker_id(column: str) -> pl.Expr:
    """Numbers without leading zeros, names as they stand; nothing, or a word for that, is an unknown speaker."""
    text = pl.col(column).str.strip_chars()
    number = text.str.extract(r"(?i)^(?:Speaker_?)?0*(\d+)(?:\.0)?$")
    name = pl.when(~text.str.to_lowercase().is_in([*MISSING, vocab.UNKNOWN])).then(text)
    return pl.coalesce(number, name, pl.lit(vocab.UNKNOWN)).alias(column)


def merge(
    released: pl.DataFrame | None,
    people: pl.DataFrame | None,
    files: pl.DataFrame | None,
    partitions: pl.DataFrame | None,
    rated: pl.Series,
    report: Report,
) -> pl.DataFrame:
    """One row an utterance, by id: whatever the consensus file, the partitions or a rating names.

    Where two files say different things of an utterance the consensus file wins, and the difference is counted.

    Returns:
      Columns `utterance`, `speaker`, `gender`, `split`, `released_consensus` and `released_<attribute>`.

    Raises:
      CorpusError: Splits with unknown names.
    """
    names = [frame["utterance"] for frame in (released, partitions) if frame is not None]
    frame = pl.DataFrame({"utterance": pl.concat([*names, rated]).unique().sort()})
    if released is not None:
        frame = frame.join(released, on="utterance", how="left", maintain_order="left")
    absent = [name for name in ("code", *vocab.ATTRIBUTES, *FACTS) if name not in frame.columns]
    is_number = dict.fromkeys(vocab.ATTRIBUTES, pl.Float64)
    frame = frame.with_columns(pl.lit(None, is_number.get(name, pl.String)).alias(name) for name in absent)
    frame = frame.with_columns(_split_words(frame["split"], report))
    if partitions is not None:
        partitions = partitions.with_columns(_split_words(partitions["split"], report))
        frame = _fill(frame, partitions, "utterance", "split", report)
    if files is not None:
        unlisted = files.filter(~files["utterance"].is_in(frame["utterance"].implode())).height
        report.counts["speaker_lines_without_utterance"] += unlisted
        frame = _fill(frame, files, "utterance", "speaker", report)
    frame = frame.with_columns(
        pl.col("speaker").fill_null(vocab.UNKNOWN), class_words.genders(frame["gender"], "the consensus file", report)
    )
    if people is not None:
        people = people.with_columns(class_words.genders(people["gender"], "Speaker_ids.txt", report))
        frame = _fill(frame, people, "speaker", "gender", report)
    frame = frame.with_columns(pl.col("gender").fill_null(vocab.UNKNOWN), pl.col("split").fill_null(""))
    num_without = frame.filter(pl.col("split") == "").height
    if 0 < num_without < frame.height:
        report.counts["utterances_without_split"] = num_without
        report.problems.append(f"{num_without} utterances are in no split: neither the consensus file nor "
                               "Partitions.txt names them")  # fmt: skip
    _report_genders(frame, report)
    return frame.with_columns(_released_words(frame["code"], report)).select(
        "utterance",
        *FACTS,
        "released_consensus",
        *(pl.col(name).alias(f"released_{name}") for name in vocab.ATTRIBUTES),
    )


def _fill(frame: pl.DataFrame, more: pl.DataFrame, key: str, column: str, report: Report) -> pl.DataFrame:
    """Fills `column` where it is null or unknown, and counts where both are known and differ."""
    joined = frame.join(more.select(key, pl.col(column).alias("_more")), on=key, how="left", maintain_order="left")
    present = pl.when(pl.col(column) != vocab.UNKNOWN).then(column)
    other = pl.when(pl.col("_more") != vocab.UNKNOWN).then("_more")
    differing = joined.filter(present != other)
    if differing.height:
        report.counts[f"{column}s_differ"] += differing.height
        some = ", ".join(differing["utterance"].head(5))
        report.problems.append(f"two files give different {column}s for {differing.height} utterances ({some} ...): "
                               "the consensus file was believed")  # fmt: skip
    return joined.with_columns(pl.coalesce(present, other).alias(column)).drop("_more")


def _split_words(column: pl.Series, report: Report) -> pl.Series:
    low = column.str.strip_chars().str.to_lowercase()
    unknown = low.drop_nulls().filter(~low.drop_nulls().is_in([*SPLITS, *MISSING]))
    if unknown.len():
        listed = ", ".join(f"{name!r} x {n}" for name, n in unknown.value_counts(sort=True).iter_rows())
        raise CorpusError(f"unknown splits: {listed}; known are {', '.join(SPLITS)}, and NA where none is given")
    return low.replace_strict(SPLITS, default=None, return_dtype=pl.String).alias("split")


def _report_genders(frame: pl.DataFrame, report: Report) -> None:
    known = frame.filter((pl.col("speaker") != vocab.UNKNOWN) & (pl.col("gender") != vocab.UNKNOWN))
    twice = known.group_by("speaker").agg(pl.col("gender").n_unique()).filter(pl.col("gender") > 1)["speaker"].sort()
    if twice.len():
        report.counts["speakers_of_two_genders"] = twice.len()
        report.problems.append(f"speakers with two genders: {', '.join(twice.head(10))}")


def _released_words(code: pl.Series, report: Report) -> pl.Series:
    words_of_code = code.str.to_uppercase().replace_strict(
        class_words.MSP_LETTERS, default=None, return_dtype=pl.String
    )
    unknown = code.filter(words_of_code.is_null() & ~code.str.to_lowercase().is_in(list(MISSING)))
    if unknown.len():
        report.counts["released_codes_unknown"] += unknown.len()
        listed = ", ".join(f"{name!r} x {n}" for name, n in unknown.value_counts(sort=True).iter_rows())
        report.problems.append(f"EmoClass has unknown codes, taken for no released consensus: {listed}")
    return words_of_code.alias("released_consensus")

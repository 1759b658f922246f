"""The ratings of MSP-Podcast: the layouts of `labels_detailed.csv`, its JSON twin, `labels.txt` and counts of votes.

Each reader returns the same frame of texts as they stand in the file (`RAW`, `file`, `line`), and `finish` turns these
into ratings. Everything is read by name, because the attributes stand in different orders in different files.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.corpora import class_words
from seremo_jax.data.corpora.csv_frames import LINE, read_csv, read_lines, refuse_absurd, to_numbers
from seremo_jax.data.text_lines import CorpusError, Report, cell_text, json_value
from seremo_jax.data.votes import pooled_word

STEM = r'[^\s;,"](?:[^;,"\r\n]*[^\s;,"])?'
"""Name of an utterance, with or without `.wav` behind it. Other corpora use the layout with names of their own."""

RAW = ("utterance", "rater", "primary", "secondary", *vocab.ATTRIBUTES)
COLUMN_OF = {"valence": "EmoVal", "activation": "EmoAct", "dominance": "EmoDom"}
RANGE = (1.0, 7.0)

_NAME = r"MSP-PODCAST_[0-9_]+"
# A continuation line of a quoted cell could be any name, but hardly one of a recording.
FILE_CELL = ("FileName", rf"^({_NAME}(\.wav)?|{STEM}\.wav)$")
"""Column of files, and the cells by which a line is known for a row."""
_RATER_COLUMNS = ("Workers", "Worker", "WorkerID", "Worker_ID")
# The free text of an answer may hold semicolons: the rater comes first, the three attributes last.
_ANSWER = r"(?s)^\s*([^;]*?)\s*;(.*)((?:;\s*[AVD]\s*:[^;]*){3});?\s*$"
_HEAD = rf"({_NAME}(?:\.wav)?|{STEM}\.wav)"
_BLOCK = rf"^\s*{_HEAD}\s*;\s*([A-Z])\s*((?:;\s*[AVD]\s*:[^;]*){{3}});?\s*$"
_COUNT_COLUMNS = dict(
    zip(
        ("Anger", "Sadness", "Happiness", "Surprise", "Fear", "Disgust", "Contempt", "Neutral"),
        vocab.CLASS_SETS["msp8"],
        strict=True,
    )
)
_NUM_OTHER = "num_other_annotations"


def read_detailed_csv(path: Path, report: Report) -> tuple[pl.DataFrame, str]:
    """Raw ratings of `labels_detailed.csv`, and its layout: `answers` (one text a rating) or `columns`.

    Raises:
      CorpusError: The header is that of no known layout.
    """
    rows = read_csv(path, ["FileName"], report, FILE_CELL, "ratings")
    if "EmoDetail" in rows.columns:
        frame = rows.select(line=LINE, utterance="FileName", answer="EmoDetail")
        return _split_answers(frame, path.name, report), "answers"
    wanted = ("EmoClass_Major", "EmoClass_Second", *COLUMN_OF.values())
    if missing := [column for column in wanted if column not in rows.columns]:
        raise CorpusError(
            f"{path}: neither EmoDetail nor {', '.join(missing)} among {', '.join(rows.columns[1:])}; "
            "rename its columns to these"
        )
    rater = next((column for column in _RATER_COLUMNS if column in rows.columns), None)
    if rater is None:
        report.problems.append(f"{path.name} has no column {_RATER_COLUMNS[0]}: raters are anonymous")
        anonymous = pl.format("anon-{}", pl.int_range(pl.len()).over("FileName"))
        rows = rows.with_columns(anonymous.alias(rater := _RATER_COLUMNS[0]))
    return rows.select(
        pl.col(LINE).alias("line"),
        pl.lit(path.name).alias("file"),
        utterance="FileName",
        rater=rater,
        primary="EmoClass_Major",
        secondary="EmoClass_Second",
        **COLUMN_OF,
    ), "columns"


def read_labels_txt(path: Path, report: Report) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Raw ratings of `labels.txt`, and what its headers release: utterance, code, the three means, as text."""
    text = read_lines(path)
    frame = pl.DataFrame({"text": text}).with_row_index("line", offset=1)
    heads = frame["text"].str.extract_groups(_BLOCK).struct.rename_fields(["utterance", "code", "tail"]).struct.unnest()
    heads = heads.with_columns(pl.col("utterance").str.strip_suffix(".wav"))
    frame = pl.concat([frame, heads], how="horizontal")
    is_head, is_blank = pl.col("utterance").is_not_null(), pl.col("text").str.strip_chars() == ""
    is_broken = ~is_head & pl.col("text").str.contains(rf"^\s*({_NAME}|{STEM}\.wav\b)")
    # A blank line and a header that cannot be read end the block above, so that nobody's ratings go to another.
    owner = pl.when(is_head).then("utterance").when(is_blank | is_broken).then(pl.lit("")).forward_fill()
    frame = frame.with_columns(owner.alias("owner"))
    for line in frame.filter(is_broken)["line"]:
        report.counts["lines_read"] += 1
        report.add("lines_not_used", f"{path.name}:{line}: a header that cannot be read")
    released = frame.filter(is_head)
    report.counts["lines_read"] += released.height
    released = released.select("line", "utterance", "code", *_attributes("tail"))
    answers = frame.filter(~is_head & ~is_blank & ~is_broken).select("line", utterance="owner", answer="text")
    report.counts["ratings_read"] += answers.height
    has_owner = pl.col("utterance").fill_null("") != ""
    for line in answers.filter(~has_owner)["line"]:
        report.add("ratings_not_used", f"{path.name}:{line}: a rating below no header")
    return _split_answers(answers.filter(has_owner), path.name, report), released


def read_detailed_json(path: Path, report: Report) -> pl.DataFrame:
    """Raw ratings of `labels_detailed.json`, a rater who stands in a file twice both times.

    Raises:
      CorpusError: The file is no JSON object.
    """
    rows = []
    for name, raters in read_json_pairs(path):
        for rater, answer in raters if isinstance(raters, list) else [("", raters)]:
            report.counts["ratings_read"] += 1
            cells = dict(answer) if isinstance(answer, list) else {}
            wanted = ("EmoClass_Major", "EmoClass_Second", *COLUMN_OF.values())
            if missing := [key for key in wanted if key not in cells]:
                report.add("ratings_not_used", f"{path.name}: {name}, {rater}: no {', '.join(missing)}")
                continue
            texts = [cell_text(cells[key]) for key in wanted[:2]]
            rows.append([name, rater, *texts, *(cell_text(cells[COLUMN_OF[a]]) for a in vocab.ATTRIBUTES)])
    frame = pl.DataFrame(rows, schema=dict.fromkeys(RAW, pl.String), orient="row")
    return frame.with_columns(line=pl.lit(None, pl.UInt32), file=pl.lit(path.name))


def read_json_pairs(path: Path) -> Iterator[tuple[str, Any]]:
    """(key, value) of the outer object; inner objects are lists of pairs, so that no key hides another.

    Raises:
      CorpusError: The file is no JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = json_value(text, _Pairs)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    if not isinstance(pairs, _Pairs):
        raise CorpusError(f"{path}: not an object keyed by file")
    yield from pairs


class _Pairs(list):
    """What stood between braces; a list in JSON stays a plain list."""


def read_aggregated(path: Path, report: Report, named: pl.Series | None) -> pl.DataFrame:
    """Counts of votes: `utterance`, a column for each class of msp8, and `other`.

    Raises:
      CorpusError: A column is missing, the file cannot be read, or a count that no number of raters can make.
    """
    columns = [f"count::{word}" for word in _COUNT_COLUMNS]
    rows = read_csv(path, ["FileName", *columns, _NUM_OTHER], report, FILE_CELL)
    counts, why_number = to_numbers(rows, [*columns, _NUM_OTHER])
    refuse_absurd(rows, counts, [*columns, _NUM_OTHER], path)
    why = pl.coalesce(
        why_no_file(rows["FileName"], named),
        why_number,
        *(
            pl.when(pl.col(name).is_null() | (pl.col(name) < 0) | (pl.col(name) % 1 != 0)).then(
                pl.format("{} is {}, which is no count", pl.lit(name), pl.col(name).cast(pl.String).fill_null("empty"))
            )
            for name in [*columns, _NUM_OTHER]
        ),
    )
    counts = counts.with_columns(line=LINE, why=why)
    for line, reason in counts.filter(pl.col("why").is_not_null()).select("line", "why").iter_rows():
        report.add("lines_not_used", f"{path.name}:{line}: {reason}")
    counts = counts.filter(pl.col("why").is_null()).select(
        "line",
        pl.col("FileName").str.strip_suffix(".wav").alias("utterance"),
        *(pl.col(f"count::{word}").cast(pl.Int64).alias(ours) for word, ours in _COUNT_COLUMNS.items()),
        pl.col(_NUM_OTHER).cast(pl.Int64).alias(vocab.OTHER),
    )
    return first_rows(counts, "utterance", path.name, report)


def first_rows(frame: pl.DataFrame, key: str, file: str, report: Report) -> pl.DataFrame:
    """The first row of each key, without `line`; the others are reported."""
    is_first = frame[key].is_first_distinct()
    for line, name in frame.filter(~is_first).select("line", key).iter_rows():
        report.add("lines_not_used", f"{file}:{line}: a second line for {name}")
    return frame.filter(is_first).drop("line")


def expand_counts(counts: pl.DataFrame, report: Report) -> pl.DataFrame:
    """Anonymous ratings from counts of votes: no attributes, no secondary words."""
    long = counts.unpivot(index="utterance", variable_name="primary", value_name="votes").filter(pl.col("votes") > 0)
    long = long.sort("utterance", "primary").select(pl.exclude("votes").repeat_by("votes").explode())
    report.counts["ratings_read"] += long.height
    return long.with_columns(
        rater=pl.format("anon-{}", pl.int_range(pl.len()).over("utterance")),
        secondary=pl.lit([], pl.List(pl.String)),
        **dict.fromkeys(vocab.ATTRIBUTES, pl.lit(None, pl.Float32)),
    ).select(RAW)


def why_no_file(names: pl.Series, named: pl.Series | None) -> pl.Series:
    """Of each name why it is none of a file of the corpus; null where it is one.

    A name that does not look like MSP-Podcast's must stand in another file of the corpus, too.

    Args:
      names: With or without `.wav`.
      named: Names that the consensus file and the partitions have; None where there are no such files.
    """
    is_name = names.str.contains(rf"^{STEM}$").fill_null(False)
    if named is not None:
        is_listed = names.str.strip_suffix(".wav").is_in(named.implode()).fill_null(False)
        is_name &= is_listed | names.str.contains(rf"^{_NAME}(\.wav)?$").fill_null(False)
    cells = pl.DataFrame({"name": names.fill_null(""), "is_name": is_name})
    reason = pl.format("'{}' is no file of this corpus", "name")
    return cells.select(why=pl.when(~pl.col("is_name")).then(reason)).to_series()


def finish(
    raw: pl.DataFrame, mapped: Mapping[str, str], report: Report, named: pl.Series | None = None
) -> pl.DataFrame:
    """Ratings with our words and numbers from raw ones; those that make no sense are reported, each with its place.

    Args:
      raw: As a reader of this module returns them.
      mapped: Words of the corpus -> ours.
      report: Gets what is not used.
      named: As of `why_no_file`.

    Raises:
      CorpusError: Unknown primary words.
    """
    file = raw["file"][0] if raw.height else ""
    frame, why_number = to_numbers(raw, vocab.ATTRIBUTES)
    has_rater = pl.col("rater").str.strip_chars().fill_null("") != ""
    reasons = (why_no_file(raw["utterance"], named), pl.when(~has_rater).then(pl.lit("no rater")), why_number)
    why = raw.select(why=pl.coalesce(*reasons)).to_series()
    for row in raw.with_columns(why=why).filter(why.is_not_null()).iter_rows(named=True):
        report.add("ratings_not_used", f"{_place(row)}: {row['why']}")
    frame = frame.filter(why.is_null())
    outside = [(pl.col(name) < RANGE[0]) | (pl.col(name) > RANGE[1]) for name in vocab.ATTRIBUTES]
    for row in frame.filter(pl.any_horizontal(outside)).iter_rows(named=True):
        report.add("values_out_of_range", f"{_place(row)}: a value outside {RANGE[0]:g} to {RANGE[1]:g} is left out")
    frame = frame.with_columns(
        pl.when(pl.col(name).is_between(*RANGE)).then(name).cast(pl.Float32).alias(name) for name in vocab.ATTRIBUTES
    )
    frame = frame.with_columns(
        pl.col("utterance").str.strip_suffix(".wav"),
        pl.col("rater").str.strip_chars(),
        class_words.map_primary(frame["primary"], file, mapped),
        class_words.map_secondary(frame["secondary"], file, mapped, report),
    )
    report.counts["ratings_without_class"] += frame["primary"].null_count()
    return frame.select(RAW)


def _place(row: Mapping[str, Any]) -> str:
    """Where a raw rating stands: by line, or by its keys where the file has no lines."""
    if row["line"] is not None:
        return f"{row['file']}:{row['line']}"
    return f"{row['file']}: {row['utterance']}, {row['rater']}"


def _split_answers(frame: pl.DataFrame, file: str, report: Report) -> pl.DataFrame:
    """Raw ratings from answers such as `WORKER1; Happy; Sad,Angry; A:5; V:5; D:4;`."""
    parts = frame["answer"].str.extract_groups(_ANSWER).struct.rename_fields(["rater", "middle", "tail"])
    frame = pl.concat([frame.drop("answer"), parts.struct.unnest()], how="horizontal")
    # Free text of the primary may hold semicolons, so its secondary words come after the last one.
    is_free = pl.col("middle").str.contains(r"(?i)^\s*other")
    frame = frame.with_columns(
        pl.when(is_free)
        .then(pl.col("middle").str.extract_groups(r"(?s)^(.*);([^;]*)$"))
        .otherwise(pl.col("middle").str.extract_groups(r"(?s)^([^;]*);(.*)$"))
        .struct.rename_fields(["primary", "secondary"])
        .struct.unnest(),
        *_attributes("tail"),
    )
    is_whole = pl.all_horizontal(pl.col(name).is_not_null() for name in RAW)
    for line in frame.filter(~is_whole)["line"]:
        report.add("ratings_not_used", f"{file}:{line}: not RATER; PRIMARY; SECONDARY; A:x; V:x; D:x;")
    return frame.filter(is_whole).select("line", pl.lit(file).alias("file"), *RAW)


def _attributes(column: str) -> list[pl.Expr]:
    letters = zip("VAD", vocab.ATTRIBUTES, strict=True)
    return [pl.col(column).str.extract(rf"{letter}\s*:([^;]*)").alias(name) for letter, name in letters]


def glance(path: Path) -> int:
    """How many ratings `labels_detailed.json` or `labels.txt` seem to hold, without reading them."""
    content = path.read_bytes()
    if path.suffix.lower() == ".json":
        return sum(1 for _ in re.finditer(rb'"EmoClass_Major"\s*:', content))
    answers = re.finditer(rb"(?m)^(?!\s*(?:MSP-PODCAST_|[^\s;]+\.wav\b))[^\n]*;\s*[AVD]\s*:", content)
    return sum(1 for _ in answers)


def no_ratings() -> pl.DataFrame:
    """A raw frame without rows."""
    return pl.DataFrame(schema={"line": pl.UInt32, "file": pl.String, **dict.fromkeys(RAW, pl.String)})


def cells_unlike(counted: pl.DataFrame, ratings: pl.DataFrame) -> pl.Series:
    """Ids of the utterances for which `counted` (see `read_aggregated`) has other numbers of votes than the ratings."""
    rated = ratings.with_columns(pooled_word("primary")).drop_nulls("primary").group_by("utterance", "primary")
    of_ratings = rated.agg(pl.len().cast(pl.Int64).alias("of_ratings"))
    of_counts = counted.unpivot(index="utterance", variable_name="primary", value_name="of_counts")
    joined = of_counts.join(of_ratings, on=["utterance", "primary"], how="full", coalesce=True)
    differing = joined.filter(pl.col("of_ratings").fill_null(0) != pl.col("of_counts").fill_null(0))
    return differing["utterance"].unique().sort()

"""Any corpus as tables: `ratings` and `utterances` as CSV, JSON lines or Parquet, and `corpus.json`.

`ratings.csv` (or `.tsv`, `.jsonl`, `.parquet`) has one row a rating: `utterance`, and any of `rater`, `modality`,
`primary`, `also_primary`, `secondary` (words separated by commas, or lists), `is_self_report`, `valence`, `activation`
(or `arousal`), `dominance`.

`utterances.csv` has one row an utterance: `id`, and any of `audio` (relative to the folder), `speaker`, `gender`,
`split`, `session`, `released_consensus`. It may be left out where `ratings` has those columns. Where there is no
`ratings`, it holds the votes: a column `count::<class>` of whole numbers (and `num_other_annotations`), or
`share::<class>`, for each class, and attribute means. Shares may be rounded, or have percent signs; a column
`num_raters` says how many raters are behind them, else the fewest are taken. Other columns are kept as text and
reported.

Cells are parted by commas, semicolons or tabs, and stripped of blanks. `NA`, `nan`, `None`, `N/A`, `null` and nothing
say that there is no value: no speaker known, no split given. Decimal commas are read where no number has a point.

`corpus.json` may be left out: {"corpus": name, "release": text, "class_set": name or ["angry", "boredom", ...],
"attribute_ranges": {"valence": [1, 5]}, "notes": [text]}. It takes ranges where there are attributes, and names the
classes where some are in no named set; `targets.class_set=angry,boredom,...` then trains on them.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data.corpora import class_words
from seremo_jax.data.corpora.csv_frames import LINE, to_numbers
from seremo_jax.data.corpora.table_about import class_set_of, own_classes, ranges_of, read_about
from seremo_jax.data.corpora.table_files import find, plain_numbers, read, require_any, to_flag
from seremo_jax.data.corpora.table_votes import OTHER_COLUMN, RATER_COLUMNS, votes_of
from seremo_jax.data.names import alike_names
from seremo_jax.data.tables import make_table, with_report
from seremo_jax.data.text_lines import CorpusError, Report

RATING_COLUMNS = ("rater", "modality", "primary", "also_primary", "secondary", "is_self_report", *vocab.ATTRIBUTES)
UTTERANCE_COLUMNS = ("audio", "speaker", "gender", "split", "session", "released_consensus")

_SPLITS = {name: name for name in vocab.SPLITS} | {"dev": vocab.DEVELOPMENT, "validation": vocab.DEVELOPMENT}


def parse(
    root: str | os.PathLike, *, smoothed: str = "refuse", word_map: Iterable[str] = (), is_quiet: bool = False
) -> tuple[pa.Table, pa.Table]:
    """Utterances and ratings of a corpus in tables.

    From counts or shares come anonymous votes, and a rating without a class that holds the attribute means. From
    shares come the fewest votes that give them.

    Args:
      root: The folder.
      smoothed: What to do where shares are never 0, so that they have been smoothed: `refuse` the file, or `invert`
        the smoothing, share = (1 - C e) p + e with e the smallest share.
      word_map: Texts `WORD=CLASS` for words that the parser does not know.
      is_quiet: Prints nothing; this parser never does.

    Raises:
      CorpusError: A file is missing or there twice, no column of labels, unknown words, attributes without a range,
        smoothed shares, or counts that no raters can make.
    """
    del is_quiet
    if smoothed not in ("refuse", "invert"):
        raise CorpusError(f"smoothed = {smoothed!r}: choose refuse or invert")
    root, report = Path(root), Report()
    about = read_about(root)
    mapped = class_words.read_word_map(word_map, own_classes(about))
    require_any(root, ("ratings", "utterances"))
    rated, described = find(root, "ratings"), find(root, "utterances")
    notes = list(about.get("notes", ()))
    if rated is None:
        people = _described(described, mapped, report)
        ratings, votes_notes = votes_of(people, described, smoothed, mapped, report)
        notes += votes_notes
    else:
        raw = read(rated, ["utterance"], report, "ratings", mapped)
        _require_labels(raw, rated, described is not None, mapped, report)
        ratings = _finish_ratings(raw, rated.name, mapped, report)
        people = _described(described, mapped, report) if described else _people_of(ratings, report)
    utterances, further = _finish_utterances(people, (described or rated).name, mapped, report)
    ratings = _drop_unknown(ratings, utterances, (rated or described).name, report)
    ranges = ranges_of(about, ratings, root)
    ratings = _in_range(ratings, ranges, (rated or described).name, report)
    class_set = class_set_of(about, ratings["primary"], root)
    release = str(about.get("release", "1"))
    info = CorpusInfo(str(about.get("corpus", "table")), release, class_set, ranges, notes=tuple(map(str, notes)))
    report.counts["ratings_kept"] = ratings.height
    return with_report(_utterance_table(utterances, further, info), report), _rating_table(ratings, info)


def _require_labels(
    raw: pl.DataFrame, path: Path, is_described: bool, mapped: Mapping[str, str], report: Report
) -> None:
    """Raises where the label of the ratings seems to stand in a column of another name; reports what is not used.

    Args:
      raw: The table as it was read.
      path: Its file.
      is_described: Whether there is a table of utterances, so that further columns of this one are not kept.
      mapped: Words of the corpus -> ours.
      report: As of `parse`.

    Raises:
      CorpusError: There is no column of labels, or words of classes stand in an unknown column and in no known one.
    """
    known = (LINE, "utterance", *RATING_COLUMNS)
    further = [name for name in raw.columns if name not in known]
    if "primary" not in raw.columns:
        if wordy := [name for name in further if name not in UTTERANCE_COLUMNS and _holds_words(raw[name], mapped)]:
            raise CorpusError(f"{path}: column {wordy[0]!r} holds class words, and there is no column primary: rename "
                              "it to primary, or, where it is no label, move it to the utterances or add an empty "
                              "column primary")  # fmt: skip
        if not set(vocab.ATTRIBUTES) & set(raw.columns):
            labels = ", ".join(("primary", *vocab.ATTRIBUTES))
            raise CorpusError(f"{path}: none of its columns is a label ({', '.join(raw.columns[1:])}): rename that of "
                              f"the raters' words to primary; known labels are {labels}")  # fmt: skip
    if is_described and further:
        report.problems.append(f"{path.name}: columns of no known name, not used: {', '.join(further)}")


def _holds_words(column: pl.Series, mapped: Mapping[str, str]) -> bool:
    words = column.drop_nulls().unique()
    return bool(words.len()) and all(class_words.word_of(word, mapped) is not None for word in words)


def _finish_ratings(raw: pl.DataFrame, file: str, mapped: Mapping[str, str], report: Report) -> pl.DataFrame:
    absent = [name for name in RATING_COLUMNS if name not in raw.columns]
    frame = raw.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
    frame, why_number = to_numbers(plain_numbers(frame, vocab.ATTRIBUTES, file), vocab.ATTRIBUTES)
    modality, flag = frame["modality"].str.to_lowercase().fill_null("voice"), to_flag(frame["is_self_report"])
    known = ", ".join(vocab.MODALITIES)
    why = pl.coalesce(
        pl.when(pl.col("utterance").is_null()).then(pl.lit("no utterance")),
        pl.when(~modality.is_in(list(vocab.MODALITIES))).then(
            pl.format("modality is '{}', which is none of {}", "modality", pl.lit(known))
        ),
        pl.when(flag.is_null()).then(
            pl.format("is_self_report is '{}', which is neither true nor false", "is_self_report")
        ),
        why_number,
    )
    rejected = frame.select(LINE, why=why).drop_nulls("why")
    for line, reason in rejected.iter_rows():
        report.add("ratings_not_used", f"{file}:{line}: {reason}")
    frame = frame.with_columns(
        _raters(frame),
        modality,
        flag,
        class_words.map_primary(frame["primary"], file, mapped),
        class_words.map_secondary(frame["secondary"], file, mapped, report),
        class_words.map_secondary(frame["also_primary"], file, mapped, report),
    ).filter(~frame[LINE].is_in(rejected[LINE].implode()))
    report.counts["ratings_without_class"] += frame["primary"].null_count()
    repeated = frame.height - frame.select("utterance", "rater", "modality").unique().height
    report.counts["repeated_raters"] += repeated
    return frame.sort("utterance", "modality", "rater", maintain_order=True)


def _raters(frame: pl.DataFrame) -> pl.Series:
    """Raters' names; those without one are numbered within the utterance, by what they said and not by their place."""
    said = ("modality", "primary", *vocab.ATTRIBUTES, "also_primary", "secondary", LINE)
    number = pl.int_range(pl.len()).over("utterance").cast(pl.String).str.zfill(3)
    named = pl.coalesce("rater", pl.format("anon-{}", number)).alias("rater")
    return frame.sort("utterance", *said).with_columns(named).sort(LINE)["rater"]


def _people_of(ratings: pl.DataFrame, report: Report) -> pl.DataFrame:
    """Utterances from the columns of the ratings; where these differ within an utterance, the first row counts."""
    facts = [name for name in ratings.columns if name not in (*RATING_COLUMNS, "utterance", "id", LINE)]
    if "id" in ratings.columns:
        report.problems.append("a column id of ratings names neither utterance nor rater, and is not used")
    people = ratings.sort(LINE).unique("utterance", keep="first", maintain_order=True)
    for name in facts:
        differing = ratings.group_by("utterance").agg(pl.col(name).n_unique()).filter(pl.col(name) > 1).height
        if differing:
            report.counts[f"{name}s_differ"] += differing
            report.problems.append(f"{differing} utterances have ratings of different {name}: the first row counts")
    return people.select(LINE, pl.col("utterance").alias("id"), *facts)


def _described(path: Path, mapped: Mapping[str, str], report: Report) -> pl.DataFrame:
    """The first row of each id of the table of utterances; the others are reported."""
    people = read(path, ["id"], report, "lines", mapped)
    is_second = people["id"].is_not_null() & ~people["id"].is_first_distinct()
    first_line = dict(people.unique("id", keep="first").select("id", LINE).iter_rows())
    for line, name in people.filter(is_second | people["id"].is_null()).select(LINE, "id").iter_rows():
        reason = "no id" if name is None else f"the id {name!r}, which line {first_line[name]} has"
        report.add("lines_not_used", f"{path.name}:{line}: {reason}")
    return people.filter(~is_second & people["id"].is_not_null())


def _finish_utterances(
    people: pl.DataFrame, file: str, mapped: Mapping[str, str], report: Report
) -> tuple[pl.DataFrame, list[str]]:
    """One row an id with our words, sorted by id, and the names of the columns that mean nothing to this project."""
    known = {LINE, "id", *UTTERANCE_COLUMNS, *vocab.ATTRIBUTES, OTHER_COLUMN, *_reserved()}
    if any(name.startswith("share::") for name in people.columns):
        known |= {name for name in people.columns if name.lower() in RATER_COLUMNS}
    further = [name for name in people.columns if name not in known and "::" not in name]
    if unused := [name for name in people.columns if name in _reserved()]:
        report.problems.append(f"{file}: columns that this project fills itself are not used: {', '.join(unused)}")
    if further:
        report.counts["columns_of_its_own"] = len(further)
        report.problems.append(f"{file}: columns of no known name, kept as text: {', '.join(further)}")
    absent = [name for name in UTTERANCE_COLUMNS if name not in people.columns]
    frame = people.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
    split = frame["split"].str.to_lowercase()
    unknown = split.drop_nulls().filter(~split.drop_nulls().is_in(list(_SPLITS)))
    if unknown.len():
        line = frame.filter(split.is_in(unknown.implode()))[LINE][0]
        raise CorpusError(f"{file}: unknown splits {', '.join(unknown.unique().sort())}, the first in line {line}; "
                          f"known are {', '.join(_SPLITS)}, and nothing where none is given")  # fmt: skip
    released = frame["released_consensus"]
    ties = [vocab.NO_AGREEMENT, *(word for word, ours in mapped.items() if ours == vocab.NO_AGREEMENT)]
    is_tie = released.str.to_lowercase().is_in(ties)
    word = class_words.map_primary(released.set(is_tie, None), file, mapped)
    return frame.with_columns(
        pl.col("audio").fill_null(""),
        pl.when(pl.col("speaker").str.to_lowercase() != vocab.UNKNOWN).then("speaker").fill_null(vocab.UNKNOWN),
        class_words.genders(frame["gender"], file, report).fill_null(vocab.UNKNOWN),
        split.replace_strict(_SPLITS, default="", return_dtype=pl.String).fill_null(""),
        pl.when(is_tie).then(pl.lit(vocab.NO_AGREEMENT)).otherwise(word).alias("released_consensus"),
    ).sort("id"), further


def _reserved() -> set[str]:
    """Leading columns that no table may bring along."""
    return set(UTTERANCE_SCHEMA.names) - {"id", *UTTERANCE_COLUMNS}


def _drop_unknown(ratings: pl.DataFrame, utterances: pl.DataFrame, file: str, report: Report) -> pl.DataFrame:
    is_known = ratings["utterance"].is_in(utterances["id"].implode())
    if not is_known.all():
        strange = ratings.filter(~is_known)
        some = ", ".join(strange["utterance"].unique().sort().head(5))
        first = strange.sort(LINE).row(0, named=True)
        alike = alike_names([*strange["utterance"].unique(), *utterances["id"]])
        hint = f"; {alike[0]}" if alike else ""
        place = f"{file}:{first[LINE]}: {first['utterance']!r} is an utterance that no row describes{hint}"
        report.first.setdefault("ratings_not_used", place)
        problem = f"{strange.height} ratings of utterances that no row describes: {some} ...; the first is {file}:" \
                  f"{first[LINE]}: {first['utterance']!r}{hint}"  # fmt: skip
        report.add("ratings_not_used", problem, strange.height)
    return ratings.filter(is_known)


def _in_range(
    ratings: pl.DataFrame, ranges: Mapping[str, tuple[float, float]], file: str, report: Report
) -> pl.DataFrame:
    for name, (low, high) in ranges.items():
        is_outside = (ratings[name] < low) | (ratings[name] > high)
        for line, utterance, value in ratings.filter(is_outside).select(LINE, "utterance", name).iter_rows():
            place = f"{file}:{line}: {utterance}"
            report.add("values_out_of_range", f"{place}: {name} {value:g} is outside {low:g} to {high:g}, left out")
        ratings = ratings.with_columns(ratings[name].set(is_outside.fill_null(False), None))
    return ratings


def _utterance_table(frame: pl.DataFrame, further: list[str], info: CorpusInfo) -> pa.Table:
    columns = {name: frame[name].to_arrow() for name in ("id", *UTTERANCE_COLUMNS, *further)}
    return make_table(columns, UTTERANCE_SCHEMA, info, [pa.field(name, pa.string()) for name in further])


def _rating_table(frame: pl.DataFrame, info: CorpusInfo) -> pa.Table:
    return make_table({name: frame[name].to_arrow() for name in RATING_SCHEMA.names}, RATING_SCHEMA, info)

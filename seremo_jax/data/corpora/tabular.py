"""Any corpus as tables: `ratings` and `utterances` as CSV, JSON lines or Parquet, and `corpus.json`.

`ratings.csv` (or `.jsonl`, `.parquet`) has one row a rating: `utterance`, and any of `rater`, `modality`, `primary`,
`also_primary`, `secondary` (words separated by commas, or lists), `is_self_report`, `valence`, `activation` (or
`arousal`), `dominance`.

`utterances.csv` has one row an utterance: `id`, and any of `audio` (relative to the folder), `speaker`, `gender`,
`split`, `session`, `released_consensus`. It may be left out where `ratings` has those columns. Where there is no
`ratings`, it holds the votes: a column `count::<class>` of whole numbers (and `num_other_annotations`), or
`share::<class>`, for each class, and attribute means. Other columns are kept as text and reported.

`corpus.json` may be left out: {"corpus": name, "release": text, "class_set": name, "attribute_ranges": {"valence":
[1, 5]}, "notes": [text]}. It takes ranges where there are attributes.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data.corpora import class_words
from seremo_jax.data.corpora.csv_frames import LINE_OF_TABLE, to_numbers
from seremo_jax.data.corpora.table_files import find, read, to_flag
from seremo_jax.data.corpora.table_votes import OTHER_COLUMN, votes_of
from seremo_jax.data.tables import make_table, with_report
from seremo_jax.data.text_lines import CorpusError, Report
from seremo_jax.data.votes import is_other

RATING_COLUMNS = ("rater", "modality", "primary", "also_primary", "secondary", "is_self_report", *vocab.ATTRIBUTES)
UTTERANCE_COLUMNS = ("audio", "speaker", "gender", "split", "session", "released_consensus")

_GENDERS = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}
_SPLITS = {name: name for name in vocab.SPLITS} | {"dev": vocab.DEVELOPMENT, "validation": vocab.DEVELOPMENT}
_ABOUT = ("corpus", "release", "class_set", "attribute_ranges", "notes")


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
      CorpusError: A file is missing or there twice, unknown words, attributes without a range, or smoothed shares.
    """
    del is_quiet
    if smoothed not in ("refuse", "invert"):
        raise CorpusError(f"smoothed = {smoothed!r}: choose refuse or invert")
    root, report, mapped = Path(root), Report(), class_words.read_word_map(word_map)
    about = _read_about(root)
    rated, described = find(root, "ratings"), find(root, "utterances")
    if rated is None and described is None:
        raise CorpusError(f"{root} holds neither ratings nor utterances as .csv, .jsonl or .parquet: set "
                          "--config.corpus.root to the folder of the tables")  # fmt: skip
    notes = list(about.get("notes", ()))
    if rated is None:
        people = read(described, ["id"], report, "lines")
        ratings, votes_notes = votes_of(people, described, smoothed, mapped, report)
        notes += votes_notes
    else:
        ratings = _finish_ratings(read(rated, ["utterance"], report, "ratings"), rated.name, mapped, report)
        people = read(described, ["id"], report, "lines") if described else _people_of(ratings, report)
    utterances, further = _finish_utterances(people, (described or rated).name, mapped, report)
    ratings = _drop_unknown(ratings, utterances, report)
    ranges = _ranges(about, ratings, root)
    ratings = _in_range(ratings, ranges, report)
    class_set = _class_set(about, ratings["primary"], root)
    release = str(about.get("release", "1"))
    info = CorpusInfo(str(about.get("corpus", "table")), release, class_set, ranges, notes=tuple(map(str, notes)))
    report.counts["ratings_kept"] = ratings.height
    return with_report(_utterance_table(utterances, further, info), report), _rating_table(ratings, info)


def _read_about(root: Path) -> dict[str, Any]:
    path = root / "corpus.json"
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None
    if not isinstance(about, dict) or not set(about) <= set(_ABOUT):
        raise CorpusError(f"{path}: must be an object with no other keys than {', '.join(_ABOUT)}")
    return about


def _ranges(about: Mapping[str, Any], ratings: pl.DataFrame, root: Path) -> dict[str, tuple[float, float]]:
    given = {vocab.ATTRIBUTE_SYNONYMS.get(name, name): span for name, span in about.get("attribute_ranges", {}).items()}
    rated = [name for name in vocab.ATTRIBUTES if ratings[name].null_count() < ratings.height]
    if lacking := [name for name in rated if name not in given]:
        example = json.dumps({"attribute_ranges": {name: [1, 7] for name in lacking}})
        raise CorpusError(f"{root / 'corpus.json'} gives no range of {', '.join(lacking)}: write e.g. {example}")
    try:
        ranges = {name: (float(low), float(high)) for name, (low, high) in given.items()}
    except (TypeError, ValueError):
        raise CorpusError(f"{root / 'corpus.json'}: attribute_ranges must be NAME: [lowest, highest]") from None
    if wrong := [name for name, (low, high) in ranges.items() if not low < high or name not in vocab.ATTRIBUTES]:
        raise CorpusError(f"{root / 'corpus.json'}: attribute_ranges of {', '.join(wrong)}: not an attribute, or empty")
    return ranges


def _class_set(about: Mapping[str, Any], primary: pl.Series, root: Path) -> str:
    """The one named in `corpus.json`, else the smallest that has every word; ties go to the order of the vocabulary."""
    if named := about.get("class_set"):
        if named not in vocab.CLASS_SETS:
            raise CorpusError(
                f"{root / 'corpus.json'}: class_set {named!r}: choose one of {', '.join(vocab.CLASS_SETS)}"
            )
        return named
    used = {word for word in primary.drop_nulls().unique() if not is_other(word)}
    fitting = [name for name, classes in vocab.CLASS_SETS.items() if used <= set(classes)]
    if not fitting:
        raise CorpusError(f"no class set has all of {', '.join(sorted(used))}: name one in {root / 'corpus.json'} "
                          f"({', '.join(vocab.CLASS_SETS)}); other words then count as other")  # fmt: skip
    return min(fitting, key=lambda name: len(vocab.CLASS_SETS[name]))


def _finish_ratings(raw: pl.DataFrame, file: str, mapped: Mapping[str, str], report: Report) -> pl.DataFrame:
    absent = [name for name in RATING_COLUMNS if name not in raw.columns]
    frame = raw.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
    frame, is_wrong = to_numbers(frame, vocab.ATTRIBUTES)
    flag = to_flag(frame["is_self_report"])
    modality = frame["modality"].str.strip_chars().str.to_lowercase().replace("", None).fill_null("voice")
    is_wrong |= flag.is_null() | ~modality.is_in(list(vocab.MODALITIES))
    is_wrong |= (frame["utterance"].str.strip_chars() == "").fill_null(True)
    for line in frame.filter(is_wrong)["line"]:
        report.add("ratings_not_used", f"{file}:{line}: no utterance, or an unknown modality, number or truth value")
    frame = frame.with_columns(
        _raters(frame),
        modality,
        flag,
        class_words.map_primary(frame["primary"], file, mapped),
        class_words.map_secondary(frame["secondary"], file, mapped, report),
        class_words.map_secondary(frame["also_primary"], file, mapped, report),
    ).filter(~is_wrong)
    report.counts["ratings_without_class"] += frame["primary"].null_count()
    repeated = frame.height - frame.select("utterance", "rater", "modality").unique().height
    report.counts["repeated_raters"] += repeated
    return frame.sort("utterance", "modality", "rater", maintain_order=True)


def _raters(frame: pl.DataFrame) -> pl.Series:
    """Raters' names; those without one are numbered within the utterance, by what they said and not by their place."""
    said = ("modality", "primary", *vocab.ATTRIBUTES, "also_primary", "secondary", "line")
    name = pl.col("rater").str.strip_chars()
    number = pl.int_range(pl.len()).over("utterance").cast(pl.String).str.zfill(3)
    named = pl.when(name != "").then(name).otherwise(pl.format("anon-{}", number)).alias("rater")
    return frame.sort("utterance", *said).with_columns(named).sort("line")["rater"]


def _people_of(ratings: pl.DataFrame, report: Report) -> pl.DataFrame:
    """Utterances from the columns of the ratings; where these differ within an utterance, the first row counts."""
    facts = [name for name in ratings.columns if name not in (*RATING_COLUMNS, "utterance", "line")]
    people = ratings.sort("line").unique("utterance", keep="first", maintain_order=True)
    for name in facts:
        differing = ratings.group_by("utterance").agg(pl.col(name).n_unique()).filter(pl.col(name) > 1).height
        if differing:
            report.counts[f"{name}s_differ"] += differing
            report.problems.append(f"{differing} utterances have ratings of different {name}: the first row counts")
    return people.select("line", pl.col("utterance").alias("id"), *facts)


def _finish_utterances(
    people: pl.DataFrame, file: str, mapped: Mapping[str, str], report: Report
) -> tuple[pl.DataFrame, list[str]]:
    """One row an id with our words, sorted by id, and the names of the columns that mean nothing to this project."""
    known = ("line", "id", *UTTERANCE_COLUMNS, *vocab.ATTRIBUTES, OTHER_COLUMN)
    further = [name for name in people.columns if name not in known and "::" not in name and name not in _reserved()]
    if unused := [name for name in people.columns if name in _reserved()]:
        report.problems.append(f"{file}: columns that this project fills itself are not used: {', '.join(unused)}")
    if further:
        report.counts["columns_of_its_own"] = len(further)
        report.problems.append(f"{file}: columns of no known name, kept as text: {', '.join(map(str.strip, further))}")
    absent = [name for name in UTTERANCE_COLUMNS if name not in people.columns]
    frame = people.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
    frame = frame.with_columns(pl.col("id", *UTTERANCE_COLUMNS).str.strip_chars().replace("", None))
    is_second = ~frame["id"].is_first_distinct()
    for line in frame.filter(is_second | frame["id"].is_null())["line"]:
        report.add("lines_not_used", f"{file}:{line}: no id, or an id that an earlier row has")
    frame = frame.filter(~is_second & frame["id"].is_not_null())
    gender, split = frame["gender"].str.to_lowercase(), frame["split"].str.to_lowercase()
    strange = gender.drop_nulls().filter(~gender.drop_nulls().is_in([*_GENDERS, vocab.UNKNOWN]))
    if strange.len():
        report.counts["genders_unknown"] += strange.len()
        report.problems.append(f"{file}: unknown genders: {', '.join(strange.unique().sort().head(10))}")
    unknown = split.drop_nulls().filter(~split.drop_nulls().is_in(list(_SPLITS)))
    if unknown.len():
        raise CorpusError(
            f"{file}: unknown splits {', '.join(unknown.unique().sort())}; known are {', '.join(_SPLITS)}"
        )
    released = frame["released_consensus"]
    is_tie = released.str.to_lowercase() == vocab.NO_AGREEMENT
    word = class_words.map_primary(released.set(is_tie, None), file, mapped)
    return frame.with_columns(
        pl.col("audio").fill_null(""),
        pl.when(pl.col("speaker").str.to_lowercase() != vocab.UNKNOWN).then("speaker").fill_null(vocab.UNKNOWN),
        gender.replace_strict(_GENDERS, default=vocab.UNKNOWN, return_dtype=pl.String).fill_null(vocab.UNKNOWN),
        split.replace_strict(_SPLITS, default="", return_dtype=pl.String).fill_null(""),
        pl.when(is_tie).then(pl.lit(vocab.NO_AGREEMENT)).otherwise(word).alias("released_consensus"),
    ).sort("id"), further


def _reserved() -> set[str]:
    """Leading columns that no table may bring along."""
    return set(UTTERANCE_SCHEMA.names) - {"id", *UTTERANCE_COLUMNS}


def _drop_unknown(ratings: pl.DataFrame, utterances: pl.DataFrame, report: Report) -> pl.DataFrame:
    is_known = ratings["utterance"].is_in(utterances["id"].implode())
    if not is_known.all():
        strange = ratings.filter(~is_known)
        report.counts["ratings_not_used"] += strange.height
        some = ", ".join(strange["utterance"].unique().sort().head(5))
        report.problems.append(f"{strange.height} ratings of utterances that no row describes: {some} ...")
    return ratings.filter(is_known)


def _in_range(ratings: pl.DataFrame, ranges: Mapping[str, tuple[float, float]], report: Report) -> pl.DataFrame:
    for name, (low, high) in ranges.items():
        is_outside = (ratings[name] < low) | (ratings[name] > high)
        for utterance, value in ratings.filter(is_outside).select("utterance", name).iter_rows():
            report.add("values_out_of_range", f"{utterance}: {name} {value:g} is outside {low:g} to {high:g}, left out")
        ratings = ratings.with_columns(ratings[name].set(is_outside.fill_null(False), None))
    return ratings


def _utterance_table(frame: pl.DataFrame, further: list[str], info: CorpusInfo) -> pa.Table:
    columns = {name: frame[name].to_arrow() for name in ("id", *UTTERANCE_COLUMNS)}
    own = {"line" if name == LINE_OF_TABLE else name: frame[name].to_arrow() for name in further}
    return make_table(columns | own, UTTERANCE_SCHEMA, info, [pa.field(name, pa.string()) for name in own])


def _rating_table(frame: pl.DataFrame, info: CorpusInfo) -> pa.Table:
    return make_table({name: frame[name].to_arrow() for name in RATING_SCHEMA.names}, RATING_SCHEMA, info)

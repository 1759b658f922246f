"""Votes from tables with one row an utterance: counts of votes, or shares of them.

Shares that are never 0 have been smoothed by whoever made the table, which is recognised and refused, or undone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.corpora import class_words
from seremo_jax.data.corpora.csv_frames import LINE, refuse_absurd, to_numbers
from seremo_jax.data.corpora.table_files import plain_numbers, plain_shares
from seremo_jax.data.corpora.table_shares import FEW_VOTES, MOST_VOTES, half_decimal, votes_behind
from seremo_jax.data.text_lines import CorpusError, Report

OTHER_COLUMN = "num_other_annotations"
"""Column of votes outside the classes, as MSP-Podcast 2.0 calls it."""

RATER_COLUMNS = (
    *("num_raters", "n_raters", "number_of_raters", "raters", "num_annotators", "n_annotators", "annotators"),
    *("num_votes", "n_votes", "votes", "num_ratings", "n_ratings"),
)
"""Names, in lower case, of a column that says how many raters are behind the shares of an utterance."""

_LISTED = 3


def votes_of(
    people: pl.DataFrame, path: Path, smoothed: str, mapped: Mapping[str, str], report: Report
) -> tuple[pl.DataFrame, list[str]]:
    """Anonymous ratings of a table with columns `count::<class>` or `share::<class>`, and notes about them.

    Raises:
      CorpusError: No such column, both kinds, unknown classes, or smoothed shares that are to be refused.
    """
    kinds = {kind: [name for name in people.columns if name.startswith(f"{kind}::")] for kind in ("count", "share")}
    if bool(kinds["count"]) == bool(kinds["share"]):
        raise CorpusError(
            f"{path}: without a table of ratings it takes columns count::CLASS or share::CLASS, of one kind"
        )
    kind = "count" if kinds["count"] else "share"
    columns = kinds[kind] + [OTHER_COLUMN] * (kind == "count" and OTHER_COLUMN in people.columns)
    spelt = [vocab.OTHER if name == OTHER_COLUMN else name.split("::")[1] for name in columns]
    ours = [class_words.word_of(word, mapped) for word in spelt]
    unknown = {name: 1 for name, word in zip(columns, ours, strict=True) if word is None}
    class_words.refuse_unknown(unknown, path.name)
    if vocab.NO_AGREEMENT in ours:
        column = columns[ours.index(vocab.NO_AGREEMENT)]
        raise CorpusError(f"{path}: column {column} stands for no agreement, which nobody votes for: remove it")
    if len(set(ours)) < len(ours):
        raise CorpusError(f"{path}: two columns stand for the same class: {', '.join(columns)}")
    means = [name for name in vocab.ATTRIBUTES if name in people.columns]
    raters = [name for name in people.columns if name.lower() in RATER_COLUMNS] if kind == "share" else []
    if len(raters) > 1:
        raise CorpusError(f"{path}: columns {' and '.join(raters)} both say how many raters there are: keep one")
    texts = plain_numbers(people, [*(columns if kind == "share" else []), *means], path.name)
    texts = plain_shares(texts, columns, path.name) if kind == "share" else texts
    frame, why = to_numbers(texts, [*columns, *means, *raters])
    refuse_absurd(texts, frame, raters if kind == "share" else columns, path)
    below = _where(texts, frame, columns, lambda value: value < 0, "below 0")
    below = _first_of(below, _where(texts, frame, raters, lambda value: value < 1, "below 1"))
    broken = _where(texts, frame, raters or columns, _is_broken, "which is no whole number")
    # A row of broken counts keeps its means.
    rows_with_means = frame.filter(_first_of(why, below).is_null())
    why = _first_of(why, below, broken if kind == "count" or raters else why)
    values = frame.select(pl.col(columns).fill_null(0)).to_numpy().astype(np.float64)
    values[why.is_not_null().to_numpy()] = np.nan
    notes = [f"Votes come from {kind}s: raters are anonymous."]
    if kind == "share":
        known = frame[raters[0]].to_numpy().astype(np.float64) if raters else None
        if known is not None:
            known[why.is_not_null().to_numpy()] = np.nan
        values, further = _votes_of_shares(values, texts, columns, known, path, smoothed, report)
        notes += further
        why = _first_of(why, _unsolved(frame, columns, values, raters))
    for line, name, reason in frame.select(LINE, "id", why=why).filter(why.is_not_null()).iter_rows():
        report.add("lines_without_votes", f"{path.name}:{line}: {name}: {reason}")
    votes = np.rint(np.nan_to_num(values)).astype(np.int64)
    ratings = _expand(frame.select(LINE, "id"), votes, [word or "" for word in ours])
    ratings = pl.concat([ratings, _means(rows_with_means, means)])
    report.counts["ratings_read"] += ratings.height
    if means:
        notes.append("Attributes are means: a rating without a class holds them, and their variance is unknown.")
    return ratings.sort("utterance", "rater"), notes


def _first_of(*reasons: pl.Series) -> pl.Series:
    """The first reason of each row, null where there is none."""
    return (
        pl.DataFrame([reason.alias(str(place)) for place, reason in enumerate(reasons)])
        .select(pl.coalesce(pl.all()))
        .to_series()
    )


def _where(
    texts: pl.DataFrame,
    numbers: pl.DataFrame,
    columns: Sequence[str],
    is_wrong: Callable[[pl.Series], pl.Series],
    text: str,
) -> pl.Series:
    """A sentence about the first of the columns whose number is wrong; null in the other rows."""
    whys = [pl.Series("why", [None], dtype=pl.String).new_from_index(0, numbers.height)]
    for name in columns:
        cells = pl.DataFrame({"cell": texts[name], "is_wrong": is_wrong(numbers[name])})
        sentence = pl.format(f"{{}} is {{}}, {text}", pl.lit(name), "cell")
        whys.append(cells.select(why=pl.when("is_wrong").then(sentence)).to_series())
    return _first_of(*whys)


def _is_broken(value: pl.Series) -> pl.Series:
    return (value - value.round()).abs() >= 1e-6


def _unsolved(frame: pl.DataFrame, columns: Sequence[str], votes: np.ndarray, raters: Sequence[str]) -> pl.Series:
    """Why shares gave no votes; null where they did."""
    is_solved = pl.Series(np.isfinite(votes).all(axis=1))
    total = pl.sum_horizontal(pl.col(name).fill_null(0) for name in columns).round(4)
    every = f"of no number of votes up to {MOST_VOTES}"
    behind = (
        pl.format("of no votes of {} raters", pl.col(raters[0]).cast(pl.Int64, strict=False))
        if raters
        else pl.lit(None, pl.String)
    )
    sentence = pl.format("shares {}; they sum to {}", pl.coalesce(behind, pl.lit(every)), total)
    return frame.select(why=pl.when(~is_solved).then(sentence)).to_series()


def _votes_of_shares(
    shares: np.ndarray,
    texts: pl.DataFrame,
    columns: Sequence[str],
    num_raters: np.ndarray | None,
    path: Path,
    smoothed: str,
    report: Report,
) -> tuple[np.ndarray, list[str]]:
    """Votes [N, C] from shares [N, C], NaN in rows without; and notes. Ambiguous rows are counted and reported.

    Args:
      shares: NaN in rows that are not to be used.
      texts: The shares as they stand in the table, and `LINE`.
      columns: Those of the shares.
      num_raters: [N] NaN where that is not known; or None.
      path: The file.
      smoothed: As of `parse`.
      report: As of `parse`.
    """
    half = half_decimal(texts.select(columns))
    shares, half, notes = _plain_shares(shares, half, path, smoothed)
    votes, is_open = votes_behind(shares, half, num_raters)
    if num_raters is None:
        notes.append("The votes behind shares are the fewest that give them: there may have been a multiple of them.")
    if is_open.any():
        rows = texts.filter(pl.Series(is_open))
        some = ", ".join(f"{line} ({name})" for line, name in rows.select(LINE, "id").head(_LISTED).iter_rows())
        report.add(
            "shares_ambiguous",
            f"{path.name}: {rows.height} rows of shares also fit other votes of as many raters, or of up to twenty, "
            f"and the fewest were taken: lines {some}{' ...' if rows.height > _LISTED else ''}; more decimals or a "
            "column num_raters would settle it",
            rows.height,
        )
    return votes, notes


def _plain_shares(shares: np.ndarray, half: float, path: Path, smoothed: str) -> tuple[np.ndarray, float, list[str]]:
    """Shares [N, C] that sum to 1, with smoothing undone where the smallest is above 0; how exact they are; notes.

    Smoothing by e makes (1 - C e) p + e of a share p. Among the shares of a whole table some p is 0, so that the
    smallest share is e itself. Few utterances for which every class got a vote are no smoothed ones.
    """
    smallest = np.nanmin(shares, initial=1.0)
    if smallest <= 0:
        return shares, half, []
    votes, _ = votes_behind(shares[np.isfinite(shares).all(axis=1)], half)
    if (votes.sum(axis=1) <= FEW_VOTES).all():
        return shares, half, []
    if smoothed == "refuse":
        raise CorpusError(f"{path}: the smallest share is {smallest:g}, above 0, so the shares have been smoothed "
                          "already; set smoothed = invert to undo that, or give the votes")  # fmt: skip
    num_classes = shares.shape[1]
    rest = 1 - num_classes * smallest
    plain = (shares - smallest) / rest if rest > 0 else np.nan * shares
    # Both the share and the smallest one have been rounded.
    blurred = half * (2 + num_classes) / rest if rest > 0 else half
    return plain, blurred, [f"Shares were smoothed by {smallest:g} a class; that was undone."]


def _expand(rows: pl.DataFrame, votes: np.ndarray, ours: Sequence[str]) -> pl.DataFrame:
    row, column = np.nonzero(votes)
    times = votes[row, column]
    frame = pl.DataFrame(
        {
            LINE: rows[LINE].gather(np.repeat(row, times)),
            "utterance": rows["id"].gather(np.repeat(row, times)),
            "primary": pl.Series(ours, dtype=pl.String).gather(np.repeat(column, times)),
        }
    )
    frame = frame.sort("utterance", "primary")
    number = pl.int_range(pl.len()).over("utterance").cast(pl.String).str.zfill(3)
    return _filled(frame.with_columns(pl.format("anon-{}", number).alias("rater")))


def _means(frame: pl.DataFrame, means: Sequence[str]) -> pl.DataFrame:
    rated = frame.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in means)) if means else frame.clear()
    rated = rated.select(LINE, pl.col("id").alias("utterance"), pl.lit("anon-mean").alias("rater"), *means)
    return _filled(rated)


def _filled(frame: pl.DataFrame) -> pl.DataFrame:
    """All columns of ratings, in one order."""
    defaults = {
        "modality": pl.lit("voice"),
        "primary": pl.lit(None, pl.String),
        "secondary": pl.lit([], pl.List(pl.String)),
        "also_primary": pl.lit([], pl.List(pl.String)),
        "is_self_report": pl.lit(False),
        **dict.fromkeys(vocab.ATTRIBUTES, pl.lit(None, pl.Float64)),
    }
    frame = frame.with_columns(value.alias(name) for name, value in defaults.items() if name not in frame.columns)
    return frame.select(LINE, "utterance", "rater", *defaults)

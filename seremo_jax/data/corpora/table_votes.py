"""Votes from tables with one row an utterance: counts of votes, or shares of them.

Shares that are never 0 have been smoothed by whoever made the table, which is recognised and refused, or undone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from seremo_jax.core import vocab
from seremo_jax.data.corpora import class_words
from seremo_jax.data.corpora.csv_frames import to_numbers
from seremo_jax.data.text_lines import CorpusError, Report

OTHER_COLUMN = "num_other_annotations"
"""Column of votes outside the classes, as MSP-Podcast 2.0 calls it."""

_TOLERANCE = 0.02
"""How far shares times the number of votes may be from whole numbers: tables round shares to a few decimals."""
_MOST_VOTES = 60
"""Shares that no number of votes up to this one gives are not used."""


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
    if len(set(ours)) < len(ours):
        raise CorpusError(f"{path}: two columns stand for the same class: {', '.join(columns)}")
    means = [name for name in vocab.ATTRIBUTES if name in people.columns]
    frame, is_wrong = to_numbers(people, [*columns, *means])
    is_wrong |= frame.select(pl.any_horizontal(pl.col(name).fill_null(0) < 0 for name in columns)).to_series()
    _report(frame.filter(is_wrong), path, "a value that is no number, or below 0", report)
    frame = frame.filter(~is_wrong)
    values = frame.select(pl.col(columns).fill_null(0)).to_numpy().astype(np.float64)
    notes = [f"Votes come from {kind}s: raters are anonymous."]
    if kind == "share":
        values, extra = _plain_shares(values, path, smoothed)
        values, notes = _fewest_votes(values), notes + extra
    is_whole = np.isfinite(values).all(axis=1) & (np.abs(values - np.rint(values)) < 1e-6).all(axis=1)
    why = "counts that are no whole numbers" if kind == "count" else f"shares of no number of votes up to {_MOST_VOTES}"
    _report(frame.filter(~pl.Series(is_whole)), path, why, report)
    votes = np.rint(np.where(is_whole[:, None], values, 0)).astype(np.int64)
    ratings = pl.concat([_expand(frame["id"], votes, [word or "" for word in ours]), _means(frame, means)])
    report.counts["ratings_read"] += ratings.height
    if means:
        notes.append("Attributes are means: a rating without a class holds them, and their variance is unknown.")
    return ratings.sort("utterance", "rater"), notes


def _report(rows: pl.DataFrame, path: Path, why: str, report: Report) -> None:
    for line, name in rows.select("line", "id").iter_rows():
        report.add("lines_without_votes", f"{path.name}:{line}: {name}: {why}")


def _plain_shares(shares: np.ndarray, path: Path, smoothed: str) -> tuple[np.ndarray, list[str]]:
    """Shares [N, C] that sum to 1, with smoothing undone where the smallest is above 0, and a note about that.

    Smoothing by e makes (1 - C e) p + e of a share p. Among the shares of a whole table some p is 0, so that the
    smallest share is e itself.
    """
    smallest = shares.min(initial=1.0)
    if smallest <= 0:
        return shares, []
    if smoothed == "refuse":
        raise CorpusError(f"{path}: the smallest share is {smallest:g}, above 0, so the shares have been smoothed "
                          "already; set smoothed = invert to undo that, or give the votes")  # fmt: skip
    num_classes = shares.shape[1]
    plain = (shares - smallest) / (1 - num_classes * smallest) if num_classes * smallest < 1 else np.nan * shares
    return plain, [f"Shares were smoothed by {smallest:g} a class; that was undone."]


def _fewest_votes(shares: np.ndarray) -> np.ndarray:
    """The fewest votes [N, C] that give each row of shares, NaN in rows that no number of votes gives."""
    votes = np.full_like(shares, np.nan)
    is_open = np.abs(shares.sum(axis=1) - 1) < _TOLERANCE
    for total in range(1, _MOST_VOTES + 1):
        rounded = np.rint(shares * total)
        is_exact = is_open & (np.abs(rounded - shares * total).max(axis=1, initial=0) < _TOLERANCE)
        is_exact &= rounded.sum(axis=1) == total
        votes[is_exact] = rounded[is_exact]
        is_open &= ~is_exact
    return votes


def _expand(ids: pl.Series, votes: np.ndarray, ours: Sequence[str]) -> pl.DataFrame:
    row, column = np.nonzero(votes)
    times = votes[row, column]
    frame = pl.DataFrame(
        {
            "utterance": ids.gather(np.repeat(row, times)),
            "primary": pl.Series(ours, dtype=pl.String).gather(np.repeat(column, times)),
        }
    )
    frame = frame.sort("utterance", "primary")
    number = pl.int_range(pl.len()).over("utterance").cast(pl.String).str.zfill(3)
    return _filled(frame.with_columns(pl.format("anon-{}", number).alias("rater")))


def _means(frame: pl.DataFrame, means: Sequence[str]) -> pl.DataFrame:
    rated = frame.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in means)) if means else frame.clear()
    rated = rated.select(pl.col("id").alias("utterance"), pl.lit("anon-mean").alias("rater"), *means)
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
    return frame.select("utterance", "rater", *defaults)

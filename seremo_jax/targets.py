"""Ratings -> vote distributions, consensus, attribute means and variances, masks. Every policy is an argument.

Rules: `method.md`, sections 3.1-3.3. No JAX: labels are made on a login node.
"""

import collections
import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Num

from seremo_jax import vocab
from seremo_jax.tables import info_of


class TargetsError(ValueError):
    """The ratings contradict the settings, e.g. a word that no class set knows. The message gives the remedy."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """What the head is trained on and scored against; rows follow the utterance table.

    Attributes:
      ids: [N] utterance ids.
      votes: [N, C] int32 votes of each class, before smoothing and without the votes outside the class set.
      distribution: [N, C] float32 vote shares; rows sum to 1, and are 0 where `has_votes` is False.
      has_votes: [N] bool, at least one kept vote.
      consensus_index: [N] int32 plurality class, the one that metrics use; -1 where a word outside the class set won,
        where the vote is tied (unless `tie_rule` is `first`) and where nobody voted.
      consensus: [N, C] float32 one-hot plurality; equal shares of the tied classes where `tie_rule` is `share`.
      has_consensus: [N] bool, `consensus` can be trained on.
      attributes: [N, A] float32 scaled means of the ratings, 0 where masked.
      has_attribute: [N, A] bool, at least one rating.
      attribute_variance: [N, A] float32 variance of the scaled ratings (divided by R - 1), 0 where masked.
      has_variance: [N, A] bool, at least two ratings.
      class_names: Words of the class set, in order.
      attribute_names: Attributes, in order.
      attribute_ranges: Attribute -> (lowest, highest) of its rating scale, for those the corpus names.
      counts: What the policies kept, pooled and dropped, by name.
    """

    ids: np.ndarray
    votes: np.ndarray
    distribution: np.ndarray
    has_votes: np.ndarray
    consensus_index: np.ndarray
    consensus: np.ndarray
    has_consensus: np.ndarray
    attributes: np.ndarray
    has_attribute: np.ndarray
    attribute_variance: np.ndarray
    has_variance: np.ndarray
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    attribute_ranges: dict[str, tuple[float, float]]
    counts: dict[str, Any]


def vote_distribution(
    counts: Num[np.ndarray, "N C"], smoothing: float = 0.0
) -> tuple[Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    """Shares of the votes.

    Args:
      counts: [N, C] votes of each class, at least 0 (fractions are allowed: spread votes).
      smoothing: Added to every class count before dividing.

    Returns:
      [N, C] float32 shares in [0, 1], rows summing to 1, and [N] bool, True where there is a vote. Rows without a
      vote are masked and 0, whatever the smoothing.

    Raises:
      TargetsError: A count or the smoothing is negative or not finite.

    Source: method.md 3.1 (KNOWN: the vote distribution is the target; INFERRED formula).
    """
    counts = np.asarray(counts, np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise TargetsError("vote counts must be finite and at least 0")
    if not 0 <= smoothing < np.inf:
        raise TargetsError(f"smoothing must be at least 0, is {smoothing}")
    has_votes = counts.sum(axis=1) > 0
    smoothed = np.where(has_votes[:, None], counts + smoothing, 0.0)
    total = np.where(has_votes, smoothed.sum(axis=1), 1.0)
    return (smoothed / total[:, None]).astype(np.float32), has_votes


def plurality(
    votes: Int[np.ndarray, "N C"], other: Int[np.ndarray, " N"], tie_rule: str = "no_agreement"
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    """Consensus by plurality over the full vote vocabulary, votes outside the class set pooled as one word O.

    Args:
      votes: [N, C] votes of each class.
      other: [N] votes for O.
      tie_rule: `no_agreement` leaves a tie without consensus, `first` takes the earliest tied class of the class set,
        `share` gives the tied classes equal shares to train on while metrics see no agreement. O never gets a share.

    Returns:
      consensus_index [N] int32, consensus [N, C] float32 and is_tied [N] bool; see `Targets`.

    Source: method.md 3.2 (KNOWN: the corpus's own rule; OURS: O among the tied under `share` and `first`).
    """
    if tie_rule not in ("no_agreement", "share", "first"):
        raise TargetsError(f"tie_rule = {tie_rule!r}: choose no_agreement, share or first")
    full = np.concatenate([votes, other[:, None]], axis=1)
    largest = full.max(axis=1, keepdims=True)
    is_top = (full == largest) & (largest > 0)
    num_top = is_top.sum(axis=1)
    is_tied = num_top > 1
    in_set = is_top[:, :-1]
    has_class = in_set.any(axis=1) & ((num_top == 1) | (tie_rule == "first"))
    index = np.where(has_class, in_set.argmax(axis=1), -1).astype(np.int32)
    consensus = (np.arange(votes.shape[1])[None, :] == index[:, None]).astype(np.float32)
    if tie_rule == "share":
        shares = in_set / np.maximum(in_set.sum(axis=1, keepdims=True), 1)
        consensus = np.where(is_tied[:, None], shares, consensus).astype(np.float32)
    return index, consensus, is_tied


def build(
    utterances: pa.Table,
    ratings: pa.Table,
    *,
    class_set: str,
    attributes: tuple[str, ...] = vocab.ATTRIBUTES,
    attribute_scale: str = "centered",
    other_votes: str = "drop",
    tie_rule: str = "no_agreement",
    smoothing: float = 0.0,
    modality: str = "voice",
) -> Targets:
    """Applies every label policy.

    Args:
      utterances: Utterance table; the result's rows follow it.
      ratings: Ratings table, one row a rating; its metadata gives the range of each attribute.
      class_set: Name of a class set of `vocab.CLASS_SETS`.
      attributes: Attributes wanted; those that nobody rated are masked. `arousal` is read as `activation`.
      attribute_scale: `centered`: (a - mid) / half in [-1, 1]; `unit`: [0, 1]; `raw`: the corpus's own.
      other_votes: Votes outside the class set: `drop` them, or `spread` each as 1/C on every class.
      tie_rule: See `plurality`.
      smoothing: See `vote_distribution`.
      modality: Only ratings of this modality count: voice, face or both.

    Raises:
      TargetsError: A setting is unknown, a primary word is in no class set, an attribute lies outside its range or has
        none, no rating has the modality, or an utterance id occurs twice.
      ArtefactError: The ratings table says nothing of its corpus.
    """
    _require("class_set", class_set, tuple(vocab.CLASS_SETS))
    _require("attribute_scale", attribute_scale, ("centered", "unit", "raw"))
    _require("other_votes", other_votes, ("drop", "spread"))
    _require("modality", modality, vocab.MODALITIES)
    class_names = vocab.CLASS_SETS[class_set]
    frame, counts = _kept_ratings(utterances, ratings, modality)
    row, num_rows = frame["row"].to_numpy().astype(np.int64), utterances.num_rows
    votes, other = _count_votes(frame["primary"], row, num_rows, class_names, counts)
    spread = other[:, None] / len(class_names) if other_votes == "spread" else 0.0
    distribution, has_votes = vote_distribution(votes + spread, smoothing)
    index, consensus, is_tied = plurality(votes, other, tie_rule)
    names = tuple(vocab.ATTRIBUTE_SYNONYMS.get(name, name) for name in attributes)
    ranges = _attribute_ranges(ratings, names)
    mean, variance, num_ratings = _rated(frame, row, num_rows, ranges, names, attribute_scale)
    has_consensus = consensus.sum(axis=1) > 0
    counts |= {
        "num_ties": int(is_tied.sum()),
        "num_consensus": {name: int((index == c).sum()) for c, name in enumerate(class_names)},
        "num_consensus_other": int((votes.max(axis=1, initial=0) < other).sum()),
        "num_no_votes": int((~has_votes).sum()),
        "num_rated": {name: int((num_ratings[:, i] > 0).sum()) for i, name in enumerate(names)},
    }
    return Targets(
        ids=np.asarray(utterances["id"].to_pylist(), dtype=object),
        votes=votes,
        distribution=distribution,
        has_votes=has_votes,
        consensus_index=index,
        consensus=consensus,
        has_consensus=has_consensus,
        attributes=mean.astype(np.float32),
        has_attribute=num_ratings > 0,
        attribute_variance=variance.astype(np.float32),
        has_variance=num_ratings > 1,
        class_names=class_names,
        attribute_names=names,
        attribute_ranges=ranges,
        counts=counts,
    )


def _rated(
    frame: pl.DataFrame,
    row: np.ndarray,
    num_rows: int,
    ranges: dict[str, tuple[float, float]],
    names: tuple[str, ...],
    scale: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and number of ratings of each attribute, all [N, A], on the scale asked for."""
    if not names:
        return (np.zeros((num_rows, 0)),) * 3
    columns = [_scale(name, _rating_column(frame, name), ranges.get(name), scale) for name in names]
    moments = [_mean_and_variance(column, row, num_rows) for column in columns]
    mean, variance, num_ratings = (np.stack(parts, axis=1) for parts in zip(*moments, strict=True))
    return mean, variance, num_ratings


def _require(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise TargetsError(f"{name} = {value!r}: choose one of {', '.join(choices)}")


def _kept_ratings(utterances: pa.Table, ratings: pa.Table, modality: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Ratings of the modality and of known utterances, with the utterance's `row`, and what was left out."""
    ids = pl.DataFrame({"utterance": pl.Series(utterances["id"].to_pylist(), dtype=pl.String)})
    if ids["utterance"].n_unique() != ids.height:
        twice = ids.filter(ids["utterance"].is_duplicated())["utterance"].unique(maintain_order=True).head(5).to_list()
        raise TargetsError(f"utterance table: ids occur twice ({', '.join(twice)} ...); ingest the corpus again")
    frame = pl.DataFrame(pl.from_arrow(ratings))
    in_modality = frame.filter(pl.col("modality") == modality)
    if frame.height and not in_modality.height:
        there = ", ".join(sorted(frame["modality"].unique().to_list()))
        raise TargetsError(f"ratings table: no rating has modality {modality!r} (there: {there}); set data.modality")
    kept = in_modality.join(ids.with_row_index("row"), on="utterance", how="inner", maintain_order="left")
    return kept, {
        "num_utterances": ids.height,
        "num_ratings": frame.height,
        "num_ratings_used": kept.height,
        "num_ratings_other_modality": frame.height - in_modality.height,
        "num_ratings_no_utterance": in_modality.height - kept.height,
        "num_ratings_no_primary": int(kept["primary"].null_count()),
        "num_no_ratings": ids.height - kept["row"].n_unique(),
    }


def _count_votes(
    primary: pl.Series, row: np.ndarray, num_rows: int, class_names: tuple[str, ...], counts: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """[N, C] votes of each class and [N] pooled votes for every other word; adds to `counts`."""
    words = collections.Counter(primary.drop_nulls().to_list())
    known = {word for words_of_set in vocab.CLASS_SETS.values() for word in words_of_set}
    is_other = {word: word == vocab.OTHER or word.startswith(f"{vocab.OTHER}-") for word in words}
    unknown = {word: n for word, n in words.items() if not is_other[word] and word not in known}
    if unknown:
        listed = ", ".join(f"{word!r} x {n}" for word, n in sorted(unknown.items(), key=lambda item: -item[1]))
        raise TargetsError(
            f"ratings table, column primary: words that no class set knows: {listed}. Map them in the corpus parser to "
            f"a class ({', '.join(class_names)}), to 'other' or to 'other-<text>'"
        )
    num_classes = len(class_names)
    column = {word: class_names.index(word) if word in class_names else num_classes for word in words}
    is_vote = primary.is_not_null().to_numpy()
    cells = row[is_vote] * (num_classes + 1)
    cells = cells + np.asarray([column[word] for word in primary.drop_nulls().to_list()], np.int64)
    full = np.bincount(cells.astype(np.int64), minlength=num_rows * (num_classes + 1)).astype(np.int32)
    full = full.reshape(num_rows, num_classes + 1)
    counts["num_votes"] = {name: int(full[:, c].sum()) for c, name in enumerate(class_names)}
    counts["num_other_votes"] = int(full[:, -1].sum())
    counts["num_votes_of_other_class_sets"] = {
        word: n for word, n in words.items() if word not in class_names and not is_other[word]
    }
    return full[:, :-1], full[:, -1]


def _attribute_ranges(ratings: pa.Table, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    ranges = {
        vocab.ATTRIBUTE_SYNONYMS.get(name, name): bounds for name, bounds in info_of(ratings).attribute_ranges.items()
    }
    return {name: ranges[name] for name in names if name in ranges}


def _rating_column(frame: pl.DataFrame, name: str) -> np.ndarray:
    """[ratings] float64 of one attribute, NaN where not rated, from its column or the column of a synonym."""
    synonyms = [synonym for synonym, written in vocab.ATTRIBUTE_SYNONYMS.items() if written == name]
    columns = [column for column in (name, *synonyms) if column in frame.columns]
    if not columns and name not in vocab.ATTRIBUTES:
        raise TargetsError(f"targets.attributes: the ratings table has no column {name!r}; it has {frame.columns}")
    values = [frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy() for column in columns]
    rated = [i for i, value in enumerate(values) if not np.isnan(value).all()]
    if len(rated) > 1:
        raise TargetsError(f"ratings table: columns {columns} both hold {name}; keep one")
    return values[rated[0]] if rated else np.full(frame.height, np.nan)


def _scale(name: str, values: np.ndarray, bounds: tuple[float, float] | None, scale: str) -> np.ndarray:
    if np.isnan(values).all():
        return values
    if bounds is None:
        if scale == "raw":
            return values
        raise TargetsError(f"attribute {name}: rated, but the table's metadata gives no range; set the parser's "
                           "CorpusInfo.attribute_ranges, or targets.attribute_scale to raw")  # fmt: skip
    low, high = bounds
    outside = (values < low - 1e-6) | (values > high + 1e-6)
    if outside.any():
        raise TargetsError(f"ratings table, column {name}: {outside.sum()} values outside [{low}, {high}], e.g. "
                           f"{values[outside][0]}; correct the ratings or CorpusInfo.attribute_ranges")  # fmt: skip
    if scale == "raw":
        return values
    unit = (values - low) / (high - low)
    return unit if scale == "unit" else 2 * unit - 1


def _mean_and_variance(values: np.ndarray, row: np.ndarray, num_rows: int) -> tuple[np.ndarray, ...]:
    """Mean [N], variance [N] (divided by R - 1) and number of ratings [N] of each utterance; 0 where there is none."""
    is_rated = ~np.isnan(values)
    row, values = row[is_rated], values[is_rated]
    num_ratings = np.bincount(row, minlength=num_rows)
    mean = np.bincount(row, values, minlength=num_rows) / np.maximum(num_ratings, 1)
    squares = np.bincount(row, (values - mean[row]) ** 2, minlength=num_rows)
    return mean, squares / np.maximum(num_ratings - 1, 1), num_ratings

"""Means, variances and step shares of the raters' attributes, on the scale asked for.

The rules are those of METHOD.md, section 3.3.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from seremo_jax.core import vocab
from seremo_jax.data.policies import TargetsError


@dataclasses.dataclass(frozen=True)
class AttributeScale:
    """Which attributes, and on which scale.

    Attributes:
      names: A attributes, in order.
      ranges: Attribute -> (lowest, highest) of its rating scale, for those that have one.
      scale: `centered`, `unit`, `raw` or `minmax`, see `policies.TargetPolicies`.
    """

    names: tuple[str, ...]
    ranges: dict[str, tuple[float, float]]
    scale: str


class AttributeTargets(NamedTuple):
    """What the ratings of N utterances come to; the fields are those of `targets.Targets`."""

    attributes: np.ndarray
    has_attribute: np.ndarray
    attribute_variance: np.ndarray
    has_variance: np.ndarray


def average_repeated(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """One rating for each rater of an utterance: the mean of what they gave to each attribute."""
    columns = [name for name in _columns_of(names) if name in frame.columns]
    return frame.group_by("row", "rater", maintain_order=True).agg(
        # A missing rating is missing, however the corpus writes it: a NaN would take the given ones with it.
        pl.col(name).cast(pl.Float64).fill_nan(None).mean()
        for name in columns
    )


def describe(
    frame: pl.DataFrame, num_rows: int, scale: AttributeScale, is_train: np.ndarray | None
) -> AttributeTargets:
    """Mean and variance of each attribute of each utterance.

    Args:
      frame: Ratings that count, with the `row` of their utterance.
      num_rows: N.
      scale: The attributes and their scale.
      is_train: [N] bool, for `minmax`.

    Raises:
      TargetsError: A value lies outside its range, or the attribute has no range or no column.
    """
    row, shape = frame["row"].to_numpy().astype(np.int64), (num_rows, len(scale.names))
    mean, variance, num_ratings = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64)
    # The range of the training split is known once all means are, so those are taken on the unit scale first.
    first = "unit" if scale.scale == "minmax" else scale.scale
    for i, name in enumerate(scale.names):
        values = _scale(name, _rating_column(frame, name), scale.ranges.get(name), first)
        mean[:, i], variance[:, i], num_ratings[:, i] = _mean_and_variance(values, row, num_rows)
    if scale.scale == "minmax":
        mean, variance = _by_training_range(mean, variance, num_ratings, scale.names, is_train)
    return AttributeTargets(mean.astype(np.float32), num_ratings > 0, variance.astype(np.float32), num_ratings > 1)


def level_shares(
    frame: pl.DataFrame, num_rows: int, scale: AttributeScale
) -> tuple[tuple[float, ...], Float[np.ndarray, "N A L"]]:
    """Steps of the rating scale, L values on the scale asked for, and shares [N, A, L] of the ratings at each, float32.

    A rating between two steps counts in part for both, so that the mean stays what it is. Rows are 0 where not rated.

    Args:
      frame: Ratings that count, with the `row` of their utterance.
      num_rows: N.
      scale: The attributes and their scale, which is not `minmax`.

    Raises:
      TargetsError: The attributes have no range, or not the same one, or its ends are no whole numbers.
    """
    spans = {scale.ranges.get(name) for name in scale.names}
    bounds = spans.pop() if len(spans) == 1 else None
    if bounds is None or any(end % 1 for end in bounds):
        raise TargetsError(
            "loss.attribute_kind = 'emd' needs attributes with one rating scale of whole numbers; the table's metadata "
            f"says {scale.ranges or 'nothing'}: choose targets.attributes of one scale, or loss.attribute_kind = 'ccc'"
        )
    num_levels = int(bounds[1] - bounds[0]) + 1
    row, shares = frame["row"].to_numpy().astype(np.int64), np.zeros((num_rows, len(scale.names), num_levels))
    for a, name in enumerate(scale.names):
        values = _scale(name, _rating_column(frame, name), bounds, "unit") * (num_levels - 1)
        is_rated = ~np.isnan(values)
        # The highest value itself has no step above it: it counts in whole for the upper one of the last two.
        below = np.minimum(values[is_rated].astype(np.int64), num_levels - 2)
        above = values[is_rated] - below
        np.add.at(shares, (row[is_rated], a, below), 1 - above)
        np.add.at(shares, (row[is_rated], a, below + 1), above)
    # Utterances without a rating keep zeros; their mask says so.
    total = shares.sum(axis=2, keepdims=True)
    steps = np.linspace(*{"centered": (-1, 1), "unit": (0, 1)}.get(scale.scale, bounds), num_levels)
    return tuple(steps.tolist()), (shares / np.where(total > 0, total, 1)).astype(np.float32)


def _by_training_range(
    mean: Float[np.ndarray, "N A"],
    variance: Float[np.ndarray, "N A"],
    num_ratings: Int[np.ndarray, "N A"],
    names: tuple[str, ...],
    is_train: np.ndarray,
) -> tuple[Float[np.ndarray, "N A"], Float[np.ndarray, "N A"]]:
    """Means and variances scaled so that the training split's means lie between 0 and 1."""
    mean, variance = mean.copy(), variance.copy()
    for i, name in enumerate(names):
        rated = num_ratings[:, i] > 0
        if not rated.any():
            continue
        train = mean[rated & is_train, i]
        if not len(train) or train.min() == train.max():
            raise TargetsError(f"attribute {name}: targets.attribute_scale = 'minmax' needs training utterances whose "
                               "means differ; choose centered or unit")  # fmt: skip
        mean[rated, i] = (mean[rated, i] - train.min()) / (train.max() - train.min())
        variance[:, i] /= (train.max() - train.min()) ** 2
    return mean, variance


def _columns_of(names: Sequence[str]) -> list[str]:
    """Columns that may hold these attributes: their own names and synonyms."""
    synonyms = [synonym for synonym, written in vocab.ATTRIBUTE_SYNONYMS.items() if written in names]
    return [*names, *synonyms]


def _rating_column(frame: pl.DataFrame, name: str) -> np.ndarray:
    """[ratings] float64 of one attribute, NaN where not rated, from its column or the column of a synonym."""
    columns = [column for column in _columns_of([name]) if column in frame.columns]
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
    # In two passes: a difference of sums of squares would leave rounding where all raters agree.
    squares = np.bincount(row, (values - mean[row]) ** 2, minlength=num_rows)
    return mean, squares / np.maximum(num_ratings - 1, 1), num_ratings

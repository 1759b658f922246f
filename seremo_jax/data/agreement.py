"""How far raters agree: Krippendorff's alpha and the entropy of votes, for the corpus, each split and each class."""

from collections.abc import Sequence
from typing import Any

import krippendorff
import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Float, Num

from seremo_jax.core import vocab
from seremo_jax.data import votes
from seremo_jax.data.policies import RatingPolicies
from seremo_jax.data.targets import Targets

_MOST_VALUES = 64
"""Distinct values of an attribute up to which alpha is computed from counts, exactly; beyond, values are binned."""


def entropy_bits(distribution: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " N"]:
    """Entropy of each vote distribution in bits: 0 where all agree, log2 C at most."""
    p = np.asarray(distribution, np.float64)
    return -np.sum(np.where(p > 0, p * np.log2(np.where(p > 0, p, 1)), 0), axis=1)


def alpha(counts: Num[np.ndarray, "N V"], values: Sequence[float] | None = None) -> float | None:
    """Krippendorff's alpha of units by values, from how often each value was given.

    Args:
      counts: How often each unit was given each value; units of fewer than two ratings take no part.
      values: What the values are, for interval data, ascending; None for nominal data.

    Returns:
      Alpha: 1 for perfect agreement, 0 for chance; None where no two ratings of a unit can be compared, or all are
      the same.
    """
    counts = np.asarray(counts)[np.asarray(counts).sum(axis=1) > 1]
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    is_used = counts.sum(axis=0) > 0
    counts = counts[:, is_used]
    level = "nominal" if values is None else "interval"
    domain = list(range(counts.shape[1])) if values is None else np.asarray(values, float)[is_used].tolist()
    return float(krippendorff.alpha(value_counts=counts, value_domain=domain, level_of_measurement=level))


def describe(utterances: pa.Table, ratings: pa.Table, targets: Targets, policies: RatingPolicies) -> dict[str, Any]:
    """Agreement of the whole corpus, of each split, and of the utterances of each consensus class.

    Args:
      utterances: Utterance table.
      ratings: Ratings table; attributes are read from it.
      targets: Their targets, with whole votes.
      policies: Which ratings count, as in the targets.

    Returns:
      Part (`all`, `split SPLIT`, `class CLASS`) -> `num_utterances`, `alpha` of the classes, `mean_entropy_bits`, and
      `alpha NAME` of each attribute that was rated.
    """
    splits = np.asarray(utterances["split"].to_pylist())
    parts = {"all": np.ones(len(splits), bool)}
    parts |= {f"split {split}": splits == split for split in vocab.SPLITS if (splits == split).any()}
    for c, name in enumerate(targets.class_names):
        parts[f"class {name}"] = targets.consensus_index == c
    entropy, rated = entropy_bits(targets.distribution), _attribute_counts(utterances, ratings, policies)
    described = {}
    for part, rows in parts.items():
        has_votes = rows & targets.has_votes
        entry: dict[str, Any] = {"num_utterances": int(rows.sum())}
        # Among utterances of one consensus alpha's chance level loses its meaning.
        if not part.startswith("class "):
            entry["alpha"] = alpha(np.round(targets.votes[rows]).astype(int))
            entry |= {f"alpha {name}": alpha(counts[rows], values) for name, (counts, values) in rated.items()}
        entry["mean_entropy_bits"] = float(entropy[has_votes].mean()) if has_votes.any() else None
        described[part] = entry
    return described


def _attribute_counts(
    utterances: pa.Table, ratings: pa.Table, policies: RatingPolicies
) -> dict[str, tuple[np.ndarray, list[float]]]:
    """Attribute -> ([N, V] how often each value was given, the values)."""
    ids = pl.DataFrame({"utterance": pl.Series(utterances["id"].to_pylist(), dtype=pl.String)}).with_row_index("row")
    frame = pl.DataFrame(pl.from_arrow(ratings)).filter(pl.col("modality") == policies.modality)
    frame, _ = votes.select(frame.join(ids, on="utterance", how="inner"), policies)
    result = {}
    for name in vocab.ATTRIBUTES:
        rated = (
            frame.select("row", value=pl.col(name).cast(pl.Float64)).drop_nulls().filter(pl.col("value").is_not_nan())
        )
        if not rated.height:
            continue
        # A slider gives hundreds of values, and alpha compares each with every other.
        if rated["value"].n_unique() > _MOST_VALUES:
            low, high = rated["value"].min(), rated["value"].max()
            step = (high - low) / (_MOST_VALUES - 1)
            rated = rated.with_columns(value=low + ((pl.col("value") - low) / step).round() * step)
        values = rated["value"].unique().sort().to_numpy()
        cells = rated["row"].to_numpy().astype(np.int64) * len(values) + np.searchsorted(
            values, rated["value"].to_numpy()
        )
        counts = np.bincount(cells, minlength=ids.height * len(values)).reshape(ids.height, len(values))
        result[name] = counts, values.tolist()
    return result

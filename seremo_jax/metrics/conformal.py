"""Prediction sets by split conformal prediction, calibrated on vote shares or on the consensus.

A set holds every class whose score is at most a threshold. The threshold is the least at which the sets of other
utterances, and one more whose sets hold nothing, hold the given share of their votes, each utterance counting once in
all (or of the consensus: shares of 0 and 1). If utterances are exchangeable, the sets then hold at least that share of
the votes of new ones on average, and at most 2 / (n + 1) more where no scores are equal. Those of one speaker are
alike, so that with few speakers the share moves further than the number of utterances suggests.

The libraries (mapie, crepes) calibrate on one label an utterance and cannot weigh the votes; with one vote an utterance
the sets are theirs.

Source: Angelopoulos et al., Conformal Risk Control (ICLR 2024), theorem 1, the loss being the share of votes outside
the set (KNOWN); with one label an utterance it is split conformal prediction, Angelopoulos and Bates, A Gentle
Introduction to Conformal Prediction (2021), section 1.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float


def scores(distribution: Float[np.ndarray, "B C"]) -> Float[np.ndarray, "B C"]:
    """How odd each class would be, float64: minus its predicted share, so that smaller is more expected.

    Minus a threshold of these scores is the least share of a class in the set.

    Args:
      distribution: [B, C] predicted, rows sum to 1.

    Source: Sadinle et al., Least Ambiguous Set-Valued Classifiers (JASA 2019), without their constant 1; KNOWN.
    """
    return -np.asarray(distribution, np.float64)


def threshold(oddness: Float[np.ndarray, "B C"], shares: Float[np.ndarray, "B C"], level: float) -> float:
    """Score up to which classes are in the set; infinite where there are too few utterances for the level.

    Args:
      oddness: [B, C] `scores` of other utterances than those the sets are for.
      shares: [B, C] vote shares, or the one-hot consensus; rows sum to 1.
      level: Share of the votes that the sets should hold, in (0, 1).

    Raises:
      ValueError: The level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: the share of votes in the sets must lie between 0 and 1")
    # One more utterance than there are, the new one, of which the worst is assumed: a set that holds none of its votes.
    needed = (len(oddness) + 1) * level - 1e-9 * (len(oddness) + 1)  # less rounding
    # Even sets of all classes would not hold enough: then every class is in.
    if needed > len(oddness):
        return math.inf
    weights = np.asarray(shares, np.float64)
    values, weights = oddness.reshape(-1), (weights / weights.sum(axis=1, keepdims=True)).reshape(-1)
    # Scores of classes without a vote move no weight, and the threshold must be that of a vote.
    is_voted = weights > 0
    values, weights = values[is_voted], weights[is_voted]
    order = np.argsort(values)
    place = np.searchsorted(np.cumsum(weights[order]), needed)
    return float(values[order[min(place, len(order) - 1)]])


def thresholds_by_group(
    oddness: Float[np.ndarray, "B C"], shares: Float[np.ndarray, "B C"], groups: Sequence[str], level: float
) -> dict[str, float]:
    """A `threshold` of each group (Mondrian), so that the level holds in each; without groups of too few utterances.

    Source: Vovk et al., Algorithmic Learning in a Random World (2005), section 4.5; KNOWN.
    """
    labels = np.asarray(groups, object)
    thresholds = {}
    for group in sorted(set(groups)):
        is_in = labels == group
        value = threshold(oddness[is_in], shares[is_in], level)
        if math.isfinite(value):
            thresholds[group] = value
    return thresholds


def sets(oddness: Float[np.ndarray, "B C"], at: float | Float[np.ndarray, " B"]) -> Bool[np.ndarray, "B C"]:
    """Which classes are in the set of each utterance; one threshold, or one an utterance. A set may be empty."""
    return oddness <= np.asarray(at, np.float64)[..., None]

"""Curves over layers and shares of variance, each with its interval over speakers, as `saliency.json` records them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seremo_jax.metrics import intervals
from seremo_jax.metrics.moments import Moments
from seremo_jax.saliency import uncertainty
from seremo_jax.saliency.variance_shares import FACTORS


class Curves(NamedTuple):
    """The NumPy arrays behind the intervals, the probe and the multiple correlation.

    Attributes:
      without: [K, G, Y] float64 mean absolute correlation without each group of speakers.
      ridge: [K, Y] float64 strength of the probe that did best; NaN where a target's utterances are of one fold.
      probe: [K, V, Y] float64 CCC of the probe for each strength, likewise.
      held_out: Moments [K, G, Y] of the probe's predictions for held-out speakers.
      multiple: [K, Y] float64 squared multiple correlation. This and all below is None in a file of an older version.
      multiple_without: [K, G, Y] float64 likewise without each group of speakers.
      shrinkage: [K, Y] float64 intensity of Ledoit and Wolf behind it.
      feature_scores: [K, D, Y] float32 `decorrelation.feature_scores`; None for the splits of a fold, too.
      shares: Factor -> [K, 1 + G] float64 share of variance, of all and without each group; see `variance_shares`.
    """

    without: Any
    ridge: Any
    probe: Any
    held_out: Moments
    multiple: Any
    multiple_without: Any
    shrinkage: Any
    feature_scores: Any
    shares: dict[str, Any] | None


def curve(
    layers: list[int], per_layer: Float[np.ndarray, "K Y"], without: Float[np.ndarray, "K G Y"], is_used: np.ndarray
) -> dict[str, Any]:
    """Score, interval and choice of any curve.

    Args:
      layers: Layer numbers.
      per_layer: Value of each layer for each target.
      without: The same without each group of speakers in turn.
      is_used: [Y] targets that the score is the mean over.

    Returns:
      What `ranking.summarise` says of every curve.

    Raises:
      ValueError: A score is not finite.
    """
    score, score_without = per_layer[:, is_used].mean(axis=1), without[..., is_used].mean(axis=2).T
    place = uncertainty.pick_layer(score)
    low, high = uncertainty.jackknife(score, score_without)
    behind = score[place] - score
    behind_low, behind_high = uncertainty.jackknife(behind, score_without[:, [place]] - score_without)
    bounds = {"low": low, "high": high, "behind_low": behind_low, "behind_high": behind_high}
    return {
        "per_layer": per_layer,
        "score": score,
        "behind": behind,
        **{name: _bounds(values) for name, values in bounds.items()},
        "chosen": layers[place],
    }


def dccs_curve(layers: list[int], sums: Curves, is_used: np.ndarray) -> dict[str, Any] | None:
    """The curve of multiple correlations with their shrinkage; None where an older version wrote the sums."""
    if sums.multiple is None:
        return None
    return {**curve(layers, sums.multiple, sums.multiple_without, is_used), "shrinkage": sums.shrinkage}


def probe_curve(layers: list[int], sums: Curves, is_used: np.ndarray) -> dict[str, Any] | None:
    """The curve of the probe with its ridge strengths; None where a target in use has speakers of one fold only."""
    if np.isnan(sums.ridge[:, is_used]).any():
        return None
    by_group = Moments(*(np.swapaxes(leaf, 0, 1) for leaf in sums.held_out))
    sums_of_group, shift = intervals.moment_sums(by_group, "")
    total = {name: values.sum(axis=0, keepdims=True) for name, values in sums_of_group.items()}
    others = {name: total[name] - values for name, values in sums_of_group.items()}
    whole, without = (intervals.moments_of_sums(part, "", shift).compute().ccc for part in (total, others))
    ridge = [[None if np.isnan(value) else value for value in row] for row in sums.ridge.tolist()]
    return {**curve(layers, whole[0], np.swapaxes(without, 0, 1), is_used), "ridge": ridge}


def variance_shares(
    shares: Mapping[str, Float[np.ndarray, "K parts"]] | None, num_values: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """The share of variance of every factor, or why there is none.

    Args:
      shares: `Curves.shares`.
      num_values: How many values of each factor the utterances have.
    """
    answers: dict[str, dict[str, Any]] = {}
    for name, words in FACTORS.items():
        if shares is None:
            answers[name] = {"absent": "saliency.npz was made before there were shares of variance"}
        elif name not in shares:
            answers[name] = {"absent": f"the utterance table has no column {name}"}
        elif np.isnan(shares[name][:, 0]).any():
            answers[name] = {"absent": f"too few known {words}, or one utterance of each"}
        else:
            share, without = shares[name][:, 0], shares[name][:, 1:].T
            low, high = map(_bounds, uncertainty.jackknife(share, without))
            answers[name] = {"num_values": num_values[name], "share": share, "low": low, "high": high}
    return answers


def _bounds(values: np.ndarray) -> list[float | None]:
    """NaN says that there is no interval, and is no JSON."""
    return [None if np.isnan(value) else value for value in values.tolist()]

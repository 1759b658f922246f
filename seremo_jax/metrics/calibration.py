"""Whether predicted shares can be believed: temperature, log loss and calibration error against the raters' votes.

A prediction is calibrated if, of all utterances in which it gives its 1-best class the share x, a share x of the votes
is for that class. Numeric only: NumPy arrays in, numbers or sums over units (speakers) out.
"""

import math

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

NUM_BINS = 15
"""Bins of equal width over [0, 1], as in Guo et al."""
TEMPERATURES = (0.05, 20.0)
"""Lowest and highest temperature that is looked for."""

Sums = dict[str, np.ndarray]


def tempered(
    distribution: Float[np.ndarray, "B C"], temperature: float | Float[np.ndarray, " B"]
) -> Float[np.ndarray, "B C"]:
    """Distributions at a temperature: the softmax of their logarithms divided by it, float64.

    Args:
      distribution: [B, C], rows sum to 1.
      temperature: Above 0; above 1 flattens, below 1 sharpens. One, or one a row.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 4.2; KNOWN.
    """
    logits = np.log(np.maximum(np.asarray(distribution, np.float64), np.finfo(float).tiny))
    logits = logits / np.asarray(temperature, np.float64)[..., None]
    # Shifted so that the largest is 1: at a low temperature the exponential of a logit overflows.
    power = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def log_loss(distribution: Float[np.ndarray, "B C"], shares: Float[np.ndarray, "B C"]) -> Float[np.ndarray, " B"]:
    """[B] mean negative log likelihood of the votes of each utterance, in nats."""
    return -(shares * np.log(np.maximum(distribution, np.finfo(float).tiny))).sum(axis=-1)


def fit_temperature(distribution: Float[np.ndarray, "B C"], shares: Float[np.ndarray, "B C"]) -> float:
    """The temperature in `TEMPERATURES` with the least mean log loss; 1 where no other is better.

    Args:
      distribution: [B, C] predicted, rows sum to 1.
      shares: [B, C] vote shares, rows sum to 1.

    Source: Guo et al. (2017), with vote shares in place of one label; OURS.
    """
    if not len(distribution):
        return 1.0
    shares = np.asarray(shares, np.float64)

    def loss(log_temperature: float) -> float:
        return float(log_loss(tempered(distribution, math.exp(log_temperature)), shares).mean())

    # Convex in 1 / temperature, so there is one minimum.
    bounds = tuple(math.log(bound) for bound in TEMPERATURES)
    # In the logarithm, where half and twice the temperature are equally far.
    best = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return math.exp(best.x) if best.fun < loss(0.0) - 1e-12 else 1.0


def bin_sums(
    confidence: Float[np.ndarray, " B"],
    outcome: Float[np.ndarray, " B"],
    is_in: Bool[np.ndarray, " B"],
    unit: Int[np.ndarray, " B"],
    num_units: int,
) -> Float[np.ndarray, "U bins 3"]:
    """Sums of each unit in each of `NUM_BINS` bins of confidence: utterances, confidence, outcome.

    Args:
      confidence: Predicted share of the 1-best class, in [0, 1].
      outcome: What came of it: share of the votes for that class, or 1 where it is the consensus.
      is_in: Utterances that count.
      unit: Unit (speaker) of each.
      num_units: U.
    """
    # A confidence on an edge belongs to the bin below it.
    place = np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    cell = (unit.astype(np.int64) * NUM_BINS + place)[is_in]
    weights = (np.ones(len(cell)), confidence[is_in], outcome[is_in])
    sums = [np.bincount(cell, weight, num_units * NUM_BINS) for weight in weights]
    return np.stack(sums, axis=-1).reshape(num_units, NUM_BINS, 3).astype(np.float64)  # integers of no utterance


def calibration_error(bins: Float[np.ndarray, "*R bins 3"]) -> Float[np.ndarray, "*R"] | np.float64:
    """ECE of sums of bins: mean over utterances of |mean confidence - mean outcome| of their bin; NaN of no utterance.

    Of few utterances it is above 0 for a calibrated model, too, and resampled more so: compare it at equal numbers.

    Source: Guo et al. (2017), equation 3; KNOWN.
    """
    total = bins[..., 0].sum(axis=-1)
    # |n (mean - mean)| of sums is |sum - sum|: the number of the bin cancels, and empty bins add nothing.
    distance = np.abs(bins[..., 1] - bins[..., 2]).sum(axis=-1)
    return np.where(total > 0, distance / np.maximum(total, 1), np.nan)


def bin_means(bins: Float[np.ndarray, "*R bins 3"]) -> Float[np.ndarray, "*R bins 2"]:
    """Mean confidence and mean outcome of each bin, the points of a reliability diagram; NaN of empty bins."""
    number = bins[..., :1]
    return np.where(number > 0, bins[..., 1:] / np.maximum(number, 1), np.nan)

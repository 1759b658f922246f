"""Answering only where the model is sure: risk by coverage, from sums over units (speakers).

Utterances are put in order of confidence. Risk at coverage x is the mean loss of the share x of utterances that the
model is most sure of; the area under that curve (AURC) is the mean over x. Abstaining at random leaves the risk as it
is, so an AURC below the whole risk says that the model knows when it errs.
"""

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

NUM_STEPS = 50
"""Steps of confidence; of at most so many utterances each is a step of its own, and the AURC is exact."""
COVERAGES = tuple(round(0.05 * i, 2) for i in range(1, 21))
"""Where the curve is drawn."""


def step_sums(
    confidence: Float[np.ndarray, " B"],
    loss: Float[np.ndarray, " B"],
    is_in: Bool[np.ndarray, " B"],
    unit: Int[np.ndarray, " B"],
    num_units: int,
) -> Float[np.ndarray, "U steps 2"]:
    """Utterances and losses of each unit in each step, the surest first; equal confidences are one step.

    Args:
      confidence: Predicted share of the 1-best class.
      loss: What an answer costs, e.g. share of the votes for other classes.
      is_in: Utterances that count.
      unit: Unit (speaker) of each.
      num_units: U.
    """
    confidence, loss, unit = confidence[is_in], loss[is_in], unit[is_in].astype(np.int64)
    _, inverse, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    # By rank and not by confidence: steps of equal width in confidence would hold most utterances in a few of them.
    place = (np.cumsum(counts) - counts)[inverse] * NUM_STEPS // max(len(confidence), NUM_STEPS)
    cell = unit * NUM_STEPS + place
    sums = [np.bincount(cell, weight, num_units * NUM_STEPS) for weight in (np.ones(len(cell)), loss)]
    return np.stack(sums, axis=-1).reshape(num_units, NUM_STEPS, 2).astype(np.float64)  # integers of no utterance


def area(steps: Float[np.ndarray, "*R steps 2"]) -> Float[np.ndarray, "*R"] | np.float64:
    """AURC of sums of steps, the mean of it over all orders of utterances within a step; NaN of no utterance.

    Source: Geifman et al. (ICLR 2019), section 3; the mean over ties in closed form is OURS: with K utterances of loss
    S before a step of m with mean loss r, the sum over j = 1 ... m of (S + j r) / (K + j) is
    m r + (S - K r) (H(K + m) - H(K)), H the harmonic numbers.
    """
    number, loss = steps[..., 0], steps[..., 1]
    before = np.cumsum(number, axis=-1) - number
    lost = np.cumsum(loss, axis=-1) - loss
    mean = loss / np.maximum(number, 1)
    # H(n) is digamma(n + 1) but for a constant that the difference drops: no sum over utterances is left.
    harmonic = scipy.special.digamma(before + number + 1) - scipy.special.digamma(before + 1)
    total = number.sum(axis=-1)
    summed = (loss + (lost - before * mean) * harmonic).sum(axis=-1)
    return np.where(total > 0, summed / np.maximum(total, 1), np.nan)


def curve(steps: Float[np.ndarray, "R steps 2"]) -> Float[np.ndarray, "R coverages"]:
    """Risk at each of `COVERAGES`; utterances of one step come in equal parts. NaN of no utterance."""
    risk = np.full((len(steps), len(COVERAGES)), np.nan)
    for row, steps_of_row in enumerate(steps):
        number, loss = (np.concatenate([[0.0], np.cumsum(column)]) for column in steps_of_row.T)
        if number[-1]:
            # Losses are interpolated and then divided. A mean interpolated between steps would be another curve.
            wanted = np.asarray(COVERAGES) * number[-1]
            risk[row] = np.interp(wanted, number, loss) / wanted
    return risk

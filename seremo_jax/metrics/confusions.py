"""Confusion counts of N-best predictions by unit, and the scores of classes from totals of each class.

    counts = np.asarray(nbest_counts(speaker, distribution, consensus, (1, 2), num_speakers))  # [U, N, C, C]
    right, support = np.einsum("uncc->unc", counts), counts.sum(axis=-1)
    uar_of_speakers = class_scores(right, support, support).uar                                # [U, N]
    whole_uar = class_scores(right.sum(axis=0), support.sum(axis=0), support.sum(axis=0)).uar  # [N]

Counts add up over batches, units and devices, and so do the totals of classes that scores are taken from.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from seremo_jax.metrics.moments import AnyArray


class ClassScores(NamedTuple):
    """Scores from totals of each class, with the leading axes of those totals; 0 where not defined, never NaN.

    Attributes:
      uar: [...] mean recall over the classes that occur.
      accuracy: [...] share of rows predicted as their class.
      macro_f1: [...] mean F1 over classes.
      micro_f1: [...] F1 of all classes counted together.
      weighted_f1: [...] mean F1, each class weighing its rows.
      recall: [..., C].
      precision: [..., C].
      f1: [..., C].
      has_class: [..., C] the class occurs, so its recall is defined.
      has_prediction: [..., C] the class was predicted, so its precision is defined.
      num_rows: [...] rows.
      num_classes: [...] classes that occur.
      is_defined: [...] there is a row.
    """

    uar: np.ndarray
    accuracy: np.ndarray
    macro_f1: np.ndarray
    micro_f1: np.ndarray
    weighted_f1: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    has_class: np.ndarray
    has_prediction: np.ndarray
    num_rows: np.ndarray
    num_classes: np.ndarray
    is_defined: np.ndarray


def class_scores(
    right: Num[np.ndarray, "*#batch C"],
    support: Num[np.ndarray, "*#batch C"],
    predicted: Num[np.ndarray, "*#batch C"],
    f1_classes: str = "present",
) -> ClassScores:
    """UAR, accuracy, macro-, micro- and weighted F1 from totals of each class; leading axes broadcast.

    Args:
      right: [..., C] rows of the class that were predicted as it.
      support: [..., C] rows of the class.
      predicted: [..., C] rows predicted as the class.
      f1_classes: Macro-F1 over the classes `present`, or over `all` of the class set. UAR is over those present.

    Raises:
      ValueError: `f1_classes` is neither.

    Source: METHOD.md, section 8.2. (Micro-F1 equals accuracy where every row has one prediction, and not where rows may
    have several labels.)
    """
    if f1_classes not in ("present", "all"):
        raise ValueError(f"f1_classes = {f1_classes!r}: choose present or all")
    right, support, predicted = (np.asarray(total, np.float64) for total in (right, support, predicted))

    def ratio(numerator: np.ndarray | np.number, denominator: np.ndarray | np.number) -> np.ndarray:
        # Not defined is 0, and never NaN: a NaN would spread through every sum and mean over it.
        return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), 0)

    has_class, num_rows = support > 0, support.sum(axis=-1)
    num_classes = has_class.sum(axis=-1)
    recall, f1 = ratio(right, support), ratio(2 * right, support + predicted)
    in_macro = has_class if f1_classes == "present" else np.ones_like(has_class)
    return ClassScores(
        uar=ratio(recall.sum(axis=-1), num_classes),
        accuracy=ratio(right.sum(axis=-1), num_rows),
        macro_f1=ratio(np.where(in_macro, f1, 0).sum(axis=-1), in_macro.sum(axis=-1)),
        micro_f1=ratio(2 * right.sum(axis=-1), (support + predicted).sum(axis=-1)),
        weighted_f1=ratio((support * f1).sum(axis=-1), num_rows),
        recall=recall,
        precision=ratio(right, predicted),
        f1=f1,
        has_class=has_class,
        has_prediction=predicted > 0,
        num_rows=num_rows,
        num_classes=num_classes,
        is_defined=num_rows > 0,
    )


def nbest_counts(
    unit: Int[AnyArray, " B"],
    distribution: Float[AnyArray, "B C"],
    consensus: Int[AnyArray, " B"],
    nbest: tuple[int, ...],
    num_units: int,
) -> Int[AnyArray, "U N C C"]:
    """Confusion counts of each unit, int32: consensus (rows) against prediction, for each N of N-best.

    The prediction is the consensus where that is among the N most probable classes, the most probable one otherwise.

    Args:
      unit: [B] unit of each row, in 0..U-1 where the row is scored.
      distribution: [B, C] predicted class scores, larger is more probable. Equal ones rank by class order.
      consensus: [B] class of the consensus, -1 where there is none: that row is not scored and may hold anything.
      nbest: The N.
      num_units: U.

    Source: METHOD.md, section 8.3 (idea KNOWN; OURS: the prediction behind N-best F1).
    """
    num_nbest, num_classes = len(nbest), distribution.shape[1]
    is_scored = jnp.asarray(consensus) >= 0
    consensus = jnp.where(is_scored, consensus, 0)
    distribution = jnp.where(is_scored[:, None], distribution, 0)
    own = jnp.take_along_axis(distribution, consensus[:, None], axis=1)
    is_earlier = jnp.arange(num_classes)[None, :] < consensus[:, None]
    # The place of the consensus in the ranking, without sorting: classes above it, and equal ones before it.
    rank = ((distribution > own) | ((distribution == own) & is_earlier)).sum(axis=1)
    best = distribution.argmax(axis=1)
    is_right = rank[:, None] < jnp.asarray(nbest)[None, :]
    prediction = jnp.where(is_right, consensus[:, None], best[:, None])
    # One flat index per row and N, so that a single sum over segments counts everything.
    row = jnp.where(is_scored, unit, 0)[:, None] * num_nbest + jnp.arange(num_nbest)[None, :]
    place = (row * num_classes + consensus[:, None]) * num_classes + prediction
    weight = jnp.broadcast_to(is_scored[:, None], place.shape).astype(jnp.int32)
    counts = jax.ops.segment_sum(weight.reshape(-1), place.reshape(-1), num_units * num_nbest * num_classes**2)
    return counts.reshape(num_units, num_nbest, num_classes, num_classes)

"""Predicted vote distributions against the votes: sums by unit behind divergences, class CCC and multi-label F1.

    sums = distribution_sums(speaker, predicted, votes, has_votes, num_speakers)  # [B], [B, C], [B, C], [B]
    jsd = sums.jsd.sum() / sums.num_rows.sum()

All but the moments add up over batches, units and devices; moments are merged (`moments.Moments`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from seremo_jax.metrics.moments import AnyArray, Moments


class DistributionSums(NamedTuple):
    """Sums behind the scores of predicted vote distributions: [U] float32, per class [U, C].

    Attributes:
      num_rows: [U] rows with votes.
      jsd: [U] summed Jensen-Shannon divergence, base 2.
      kl: [U] summed Kullback-Leibler divergence from the votes to the prediction, in nat.
      total_variation: [U] summed total variation distance, half the sum of absolute differences.
      num_true: [U, C] int32 rows where both shares exceed 1/C.
      num_predicted: [U, C] int32 rows where the predicted share does.
      num_present: [U, C] int32 rows where the share of the votes does.
      entropies: Moments [U] of the entropies of prediction and votes, in nat.
      classes: Moments [U, C] of the shares.
    """

    num_rows: AnyArray
    jsd: AnyArray
    kl: AnyArray
    total_variation: AnyArray
    num_true: AnyArray
    num_predicted: AnyArray
    num_present: AnyArray
    entropies: Moments
    classes: Moments


def distribution_sums(
    unit: Int[AnyArray, " B"],
    prediction: Float[AnyArray, "B C"],
    target: Float[AnyArray, "B C"],
    mask: Bool[AnyArray, " B"],
    num_units: int,
    is_offered: Bool[AnyArray, "B C"] | None = None,
) -> DistributionSums:
    """Sums of each unit over its rows.

    Args:
      unit: [B] unit of each row, in 0..U-1 where the mask is True.
      prediction: [B, C] predicted shares q, rows sum to 1.
      target: [B, C] shares of the votes p, rows sum to 1.
      mask: [B] bool; False leaves the row out, which may then hold anything.
      num_units: U.
      is_offered: [B, C] bool; False leaves the row out of the moments of a class that its raters could not choose.
        None where they could choose all.

    Source: METHOD.md, sections 8.7 and 8.8 (KNOWN: a class is present above 1/C, strictly, on both sides; OURS: total
    variation and entropies).
    """
    num_classes = target.shape[1]
    unit, is_used = jnp.asarray(unit), jnp.broadcast_to(mask[:, None], target.shape)
    # Rows that do not count become 0 before any logarithm: NaN times 0 would be NaN.
    q, p = jnp.where(is_used, prediction, 0), jnp.where(is_used, target, 0)
    middle = (p + q) / 2

    def divergence(a: AnyArray, b: AnyArray) -> AnyArray:
        # a log(a / b) is 0 where a is 0, whatever b: both are replaced by 1 there, so that no NaN arises.
        is_positive = a > 0
        ratio = jnp.where(is_positive, a, 1) / jnp.where(is_positive, b, 1)
        return (a * jnp.log(ratio)).sum(axis=1)

    def entropy(a: AnyArray) -> AnyArray:
        return -(a * jnp.log(jnp.where(a > 0, a, 1))).sum(axis=1)

    def total(values: AnyArray) -> AnyArray:
        return jax.ops.segment_sum(values, unit, num_units)

    of_class = is_used if is_offered is None else is_used & is_offered
    jsd = (divergence(p, middle) + divergence(q, middle)) / (2 * np.log(2.0))
    is_present, is_predicted = p > 1 / num_classes, q > 1 / num_classes
    return DistributionSums(
        num_rows=total(mask.astype(jnp.float32)),
        jsd=total(jsd),
        # A class that was voted for and predicted at 0 would make the divergence of the whole corpus infinite.
        kl=total(divergence(p, jnp.maximum(q, 1e-12))),
        total_variation=total(jnp.abs(p - q).sum(axis=1) / 2),
        num_true=total((is_present & is_predicted).astype(jnp.int32)),
        num_predicted=total(is_predicted.astype(jnp.int32)),
        num_present=total(is_present.astype(jnp.int32)),
        entropies=Moments.empty(num_units).update(unit, entropy(q), entropy(p), mask),
        classes=Moments.empty(num_units, num_classes).update(unit, prediction, target, of_class),
    )


def served_votes(
    unit: Int[AnyArray, " B"],
    prediction: Float[AnyArray, "B C"],
    target: Float[AnyArray, "B C"],
    mask: Bool[AnyArray, " B"],
    nbest: tuple[int, ...],
    num_units: int,
) -> Float[AnyArray, "U N"]:
    """Sum over each unit's rows of the share of the votes that is for one of the N classes predicted most, [U, N].

    Args:
      unit: [B] unit of each row, in 0..U-1 where the mask is True.
      prediction: [B, C] predicted shares; equal ones rank by class order.
      target: [B, C] shares of the votes, rows sum to 1.
      mask: [B] bool; False leaves the row out, which may then hold anything.
      nbest: The N.
      num_units: U.

    Source: METHOD.md, section 8.13 (OURS).
    """
    is_used = mask[:, None]
    q, p = jnp.where(is_used, prediction, 0), jnp.where(is_used, target, 0)
    place = jnp.arange(q.shape[1])
    is_earlier = (place[:, None] < place[None, :])[None]
    # The place of every class in the ranking, without sorting: classes above it, and equal ones before it.
    other, own = q[:, :, None], q[:, None, :]
    rank = ((other > own) | ((other == own) & is_earlier)).sum(axis=1)
    served = jnp.stack([jnp.where(rank < n, p, 0).sum(axis=1) for n in nbest], axis=1)
    return jax.ops.segment_sum(served, unit, num_units)

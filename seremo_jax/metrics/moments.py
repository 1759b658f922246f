"""Centred moments of predictions and targets: the mergeable state behind CCC, Pearson correlation, RMSE and MAE.

    state = Moments.empty(num_speakers, 3)                    # a unit is a speaker, three attributes
    for batch in batches:
        state = state.update(unit, prediction, target, mask)  # [B], [B, 3], [B, 3], [B, 3]
    ccc_of_speakers = state.compute().ccc                     # [num_speakers, 3]

`update` takes batches in any order, and rows under a False mask may hold anything, NaN included. States are merged and
never averaged: the mean of the CCCs of batches is not the CCC of their rows. Of all units together, or of each as often
as a resample draws it, the state is `intervals.moments_of_sums` of weighted `intervals.moment_sums`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from seremo_jax.metrics.comoments import AnyArray, merge_means, namespace_of


class RegressionScores(NamedTuple):
    """Scores of shape [...]; 0 where not defined. `is_defined`: two rows at least and a target that varies."""

    ccc: AnyArray
    pearson: AnyArray
    rmse: AnyArray
    mae: AnyArray
    num_rows: AnyArray
    is_defined: AnyArray


class Moments(NamedTuple):
    """Centred moments of prediction and target, each of shape [U, ...] float32; the state of CCC.

    Attributes:
      num_rows: Rows under the mask.
      mean_prediction: Mean; 0 where there is no row. `mean_target` likewise.
      squares_prediction: Sum of squared deviations from the mean. `squares_target` likewise.
      products: Sum of products of both deviations.
      absolute_error: Sum of |prediction - target|.
      squared_error: Sum of (prediction - target)^2.
    """

    num_rows: AnyArray
    mean_prediction: AnyArray
    mean_target: AnyArray
    squares_prediction: AnyArray
    squares_target: AnyArray
    products: AnyArray
    absolute_error: AnyArray
    squared_error: AnyArray

    @classmethod
    def empty(cls, num_units: int, *shape: int) -> "Moments":
        """State of no rows, [U, *shape]; e.g. `Moments.empty(num_speakers, num_attributes)`."""
        return cls(*(jnp.zeros((num_units, *shape), jnp.float32) for _ in cls._fields))

    def update(
        self,
        unit: Int[AnyArray, " B"],
        prediction: Float[AnyArray, " B *shape"],
        target: Float[AnyArray, " B *shape"],
        mask: Bool[AnyArray, " B *shape"],
    ) -> "Moments":
        """Adds a batch.

        Args:
          unit: [B] unit of each row, in 0..U-1 where the mask is True.
          prediction: [B, ...] predictions, any scale.
          target: [B, ...] targets, on the scale of the predictions.
          mask: [B, ...] bool; False leaves that entry out.
        """
        # A row is a state of its own, with its value as mean and no spread, so that adding a batch is a merge, too.
        prediction = jnp.where(mask, prediction, 0).astype(jnp.float32)
        target = jnp.where(mask, target, 0).astype(jnp.float32)
        error, zero = jnp.abs(prediction - target), jnp.zeros_like(target)
        rows = Moments(mask.astype(jnp.float32), prediction, target, zero, zero, zero, error, error * error)
        return self.merge(_by_unit(rows, jnp.asarray(unit), self.num_rows.shape[0]))

    def merge(self, other: "Moments") -> "Moments":
        """Both states as one. Associative and commutative to rounding."""
        n, m = self.num_rows, other.num_rows
        mean_prediction, step_prediction, factor = merge_means(n, self.mean_prediction, m, other.mean_prediction)
        mean_target, step_target, _ = merge_means(n, self.mean_target, m, other.mean_target)
        return Moments(
            n + m,
            mean_prediction,
            mean_target,
            self.squares_prediction + other.squares_prediction + factor * step_prediction * step_prediction,
            self.squares_target + other.squares_target + factor * step_target * step_target,
            self.products + other.products + factor * step_prediction * step_target,
            self.absolute_error + other.absolute_error,
            self.squared_error + other.squared_error,
        )

    def compute(self) -> RegressionScores:
        """CCC (population moments, eps 0), Pearson correlation, RMSE and MAE of each entry.

        Source: METHOD.md, sections 5.1 and 8.1 (KNOWN: CCC; OURS: 0 and not defined where the target is constant or
        n < 2).
        """
        xp = namespace_of(self.num_rows)
        num_rows = xp.maximum(self.num_rows, 1)
        variance_prediction, variance_target = self.squares_prediction / num_rows, self.squares_target / num_rows
        covariance, shift = self.products / num_rows, self.mean_prediction - self.mean_target
        denominator = variance_prediction + variance_target + shift * shift
        # A constant prediction has CCC 0, for it follows no target; only a constant target leaves nothing to follow.
        is_defined = (self.num_rows >= 2) & (variance_target > 0)
        # The root of each: their product could underflow where both are small.
        spread = xp.sqrt(variance_prediction) * xp.sqrt(variance_target)
        has_pearson = is_defined & (spread > 0)
        return RegressionScores(
            ccc=xp.where(is_defined, 2 * covariance / xp.where(is_defined, denominator, 1), 0),
            pearson=xp.where(has_pearson, covariance / xp.where(has_pearson, spread, 1), 0),
            rmse=xp.sqrt(self.squared_error / num_rows),
            mae=self.absolute_error / num_rows,
            num_rows=self.num_rows,
            is_defined=is_defined,
        )


def _by_unit(rows: Moments, unit: AnyArray, num_units: int) -> Moments:
    """Merges [B, ...] states into [U, ...], two passes: means, then deviations from them."""

    def total(values: AnyArray) -> AnyArray:
        return jax.ops.segment_sum(values, unit, num_units)

    num_rows = total(rows.num_rows)

    def centre(means: AnyArray) -> tuple[AnyArray, AnyArray]:
        # Counting from the lowest value makes the deviations of a constant exactly 0, so that "constant" is exact.
        lowest = jax.ops.segment_min(jnp.where(rows.num_rows > 0, means, jnp.inf), unit, num_units)
        lowest = jnp.where(num_rows > 0, lowest, 0)
        mean = lowest + total(rows.num_rows * (means - lowest[unit])) / jnp.maximum(num_rows, 1)
        return mean, jnp.where(rows.num_rows > 0, means - mean[unit], 0)

    mean_prediction, step_prediction = centre(rows.mean_prediction)
    mean_target, step_target = centre(rows.mean_target)
    return Moments(
        num_rows,
        mean_prediction,
        mean_target,
        total(rows.squares_prediction + rows.num_rows * step_prediction * step_prediction),
        total(rows.squares_target + rows.num_rows * step_target * step_target),
        total(rows.products + rows.num_rows * step_prediction * step_target),
        total(rows.absolute_error),
        total(rows.squared_error),
    )

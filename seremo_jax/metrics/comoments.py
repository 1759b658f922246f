"""The arithmetic that all running means, variances and co-moments of this project share.

A state of n rows keeps their mean and sums of squared deviations from it. Two states merge exactly, whatever was
counted in them, so that data can be split over batches, shards and devices in any way.

Three things keep such sums good in float32. Deviations are taken from a mean, and never as a difference of two large
sums of squares. Means may be kept relative to a shift, a value that the data itself has: float32 resolves 1 part in
10^7 of the largest number it is given, so a feature around 1000 that varies by 0.01 would lose half of its digits,
while its distance from one of its own values has them all; and a feature that never varies is then exactly 0. Sums
over many batches are kept as pairs, the float32 sum and what rounding cut off from it: adding a thousand small numbers
to a large one would otherwise lose a thousand roundings.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

AnyArray = jax.Array | np.ndarray


def namespace_of(array: AnyArray) -> Any:
    """`jax.numpy` or `numpy`, whichever the array belongs to."""
    return array.__array_namespace__()


def merge_means(
    count_a: AnyArray | float, mean_a: AnyArray, count_b: AnyArray | float, mean_b: AnyArray
) -> tuple[AnyArray, AnyArray, AnyArray | float]:
    """The mean of two sets of rows, and what the sums of deviations gain when the sets become one.

    Sums of products of deviations merge as `products_a + products_b + factor * step_x * step_y`, sums of squares
    likewise with one step twice.

    Args:
      count_a: Rows of the first set: a number, or an array of as many axes as the means.
      mean_a: Their mean; any finite number where there are no rows.
      count_b: Rows of the second set.
      mean_b: Their mean, likewise.

    Returns:
      The mean of all rows; `step`, the mean of the second set minus that of the first; and `factor`,
      n_a n_b / (n_a + n_b), of the shape of the counts.

    Source: KNOWN: T. F. Chan, G. H. Golub, R. J. LeVeque, Updating formulae and a pairwise algorithm for computing
    sample variances, 1979.
    """
    step = mean_b - mean_a
    xp = namespace_of(step)
    share = count_b / xp.maximum(count_a + count_b, 1)
    # An empty first set has no mean to start from, and one that is relative to another shift is not even 0.
    mean = xp.where(count_a > 0, mean_a + step * share, mean_b)
    return mean, step, count_a * share


def on_one_shift(
    has_rows_a: Bool[Array, "..."], shift_a: Array, mean_a: Array, shift_b: Array, mean_b: Array
) -> tuple[Array, Array, Array]:
    """The shift of a merged state, and both means relative to it.

    The difference of two shifts, both values of the data, is exact or nearly so in float32. The difference of two
    means would not be.

    Args:
      has_rows_a: Whether the first state has a shift of its own; where not, that of the second is taken.
      shift_a: Value that the means of the first state are relative to.
      mean_a: Means minus shift; may have further axes, of which the last ones are those that the shift lacks or has
        as 1, so give the shifts as many axes as the means.
      shift_b: Likewise.
      mean_b: Likewise.
    """
    shift = jnp.where(has_rows_a, shift_a, shift_b)
    return shift, mean_a + (shift_a - shift), mean_b + (shift_b - shift)


def pair(values: Float[Array, "*shape"]) -> Float[Array, "2 *shape"]:
    """A sum to be kept as two float32: the leading digits, and a rest that is 0 so far."""
    return jnp.stack([values, jnp.zeros_like(values)])


def add_pairs(
    a: Float[Array, "2 *shape"], b: Float[Array, "2 *shape"], more: Float[Array, "*shape"]
) -> Float[Array, "2 *shape"]:
    """The sum of two pairs and of a plain float32, as a pair."""
    high, rest = _two_sum(a[0], b[0])
    high, more_rest = _two_sum(high, more)
    return jnp.stack(_two_sum(high, rest + more_rest + a[1] + b[1]))


def _two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """The rounded sum and exactly what rounding left out. Source: KNOWN: D. E. Knuth, TAOCP vol. 2, section 4.2.2."""
    total = x + y
    y_part = total - x
    return total, (x - (total - y_part)) + (y - y_part)

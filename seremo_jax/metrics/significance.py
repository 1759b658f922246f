"""Whether one system is better than another on the same utterances: paired tests over speakers, corrected by Holm.

Two systems scored on the same utterances are compared by unit (speaker): the bootstrap draws the same speakers for
both, and the permutation test exchanges the two systems' predictions of a speaker, all of them or none, as it could be
if the systems were alike. Both need the sums of each unit only. Plain NumPy, no JAX. Source: METHOD.md, section 8.9;
OURS.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Num

from seremo_jax.metrics.resampling import Columns, Sums, used_units

_CHUNK_BYTES = 32 << 20
"""Bound on the exchanged sums held at a time."""

Key = TypeVar("Key", bound=Hashable)
Compute = Callable[[Sums], Mapping[Hashable, Float[np.ndarray, " R"]]]


def bootstrap_p(difference: Float[np.ndarray, " R"]) -> float | None:
    """Two-sided p of no difference, from the difference in each resample; None where most are not defined (NaN).

    Twice the smaller share of resamples on one side of 0, counting the corpus itself on either side.
    """
    values = difference[np.isfinite(difference)]
    if not len(values) or 2 * len(values) < len(difference):
        return None
    below, above = (values <= 0).sum(), (values >= 0).sum()
    return min(1.0, 2 * (1 + int(min(below, above))) / (1 + len(values)))


def permutation_p(
    first: Mapping[str, Num[np.ndarray, "U ..."]],
    second: Mapping[str, Num[np.ndarray, "U ..."]],
    compute: Compute,
    num_permutations: int,
    seed: int,
) -> dict[Hashable, float | None]:
    """Two-sided p of the difference of two systems in every metric, by exchanging the systems unit by unit.

    Args:
      first: Name -> [U, ...] sums of each unit, of one system; all of them add up over units.
      second: Those of the other, of the same units and shapes.
      compute: Sums [R, ...] -> metric -> value [R] of each, NaN where not defined.
      num_permutations: How many, each by a coin for every unit. Below 2^U of them, all are tried instead.
      seed: Of the coins.

    Returns:
      Metric -> share of exchanges, the observed one among them, whose difference is as large; None where the metric is
      not defined for both systems.
    """
    num_units = next(iter(first.values())).shape[0]
    # One side is half + step, the other half - step: an exchange is a sign on a unit's step, and sums over units are
    # one product of signs and steps.
    half = {name: (np.asarray(first[name], np.float64) + second[name]).sum(axis=0) / 2 for name in first}
    step = {name: (np.asarray(first[name], np.float64) - second[name]) / 2 for name in first}
    # What is the same for both, of every unit, stays as it is under any exchange.
    moving = {name: values for name, values in step.items() if values.any()}
    is_apart = used_units(moving) if moving else np.zeros(num_units, bool)
    columns = Columns(moving, is_apart) if moving else None

    def differences(signs: Float[np.ndarray, "R V"]) -> dict[Hashable, np.ndarray]:
        moved = columns.named(columns.weighted(signs)) if columns else {}
        still = {name: np.broadcast_to(value, (len(signs), *value.shape)) for name, value in half.items()}
        plain, swapped = (
            compute(still | {name: half[name] + side * values for name, values in moved.items()}) for side in (1, -1)
        )
        return {name: plain[name] - swapped[name] for name in plain}

    # Units that are alike for both systems are the same under any exchange: they need no coin.
    num_apart = int(is_apart.sum())
    observed = {name: float(value[0]) for name, value in differences(np.ones((1, num_apart))).items()}
    as_large, count = dict.fromkeys(observed, 0), 0
    width = 8 * max(1, num_apart, 2 * columns.width if columns else 0)
    is_exact = num_apart < 30 and 2**num_apart <= num_permutations
    for signs in _signs(num_apart, num_permutations, seed, max(1, _CHUNK_BYTES // width), is_exact):
        count += len(signs)
        for name, values in differences(signs).items():
            # A tie is as large: rounding must not decide it.
            as_large[name] += int((np.abs(values) >= abs(observed[name]) * (1 - 1e-9) - 1e-12).sum())
    own = 0 if is_exact else 1  # all exchanges hold the observed one already
    return {name: (as_large[name] + own) / (count + own) if np.isfinite(observed[name]) else None for name in observed}


def _signs(num_units: int, number: int, seed: int, chunk: int, is_exact: bool) -> Iterator[Float[np.ndarray, "R U"]]:
    """Yields rows of +1 (as it is) and -1 (exchanged)."""
    if is_exact:
        bits = (np.arange(2**num_units)[:, None] >> np.arange(num_units)[None, :]) & 1
        for first in range(0, len(bits), chunk):
            yield 1.0 - 2 * bits[first : first + chunk]
        return
    generator = np.random.default_rng(seed)
    for first in range(0, number, chunk):
        yield 1.0 - 2 * generator.integers(0, 2, (min(chunk, number - first), num_units))


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Corrects the p values of one table for their number; None stays None and counts for nothing.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
    """
    tested = sorted((key for key, p in p_values.items() if p is not None), key=lambda key: p_values[key])
    corrected, largest = dict.fromkeys(p_values), 0.0
    for rank, key in enumerate(tested):
        # A larger p must not end up below a smaller one that was multiplied by more.
        largest = max(largest, min(1.0, (len(tested) - rank) * p_values[key]))
        corrected[key] = largest
    return corrected

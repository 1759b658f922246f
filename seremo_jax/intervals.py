"""Intervals by resampling speakers, and what a random guesser scores per speaker.

Metrics are functions of sums over units, so a resample is a row of multiplicities W, one a unit, and its sums are
`W @ statistics`: the utterances are never read again. Source: method.md 8.9 (OURS: speakers are the unit, an utterance
of an unknown speaker is a unit of its own; 95 % percentile interval).
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from seremo_jax import metrics

_CHUNK_BYTES = 32 << 20
"""Bound on the weights, and on the weighted sums, held at a time."""

Sums = dict[str, np.ndarray]


def resample_weights(num_units: int, num_resamples: int, seed: int, chunk: int) -> Iterator[Float[np.ndarray, "R U"]]:
    """Yields how often each unit is drawn in each resample, `chunk` resamples at a time.

    Every row sums to `num_units`. The draw depends on the seed and the number of units only, never on `chunk`; a larger
    `num_resamples` begins with the same resamples.
    """
    generator = np.random.default_rng(seed)
    for first in range(0, num_resamples, chunk):
        num_rows = min(chunk, num_resamples - first)
        drawn = generator.integers(0, num_units, (num_rows, num_units))
        cell = drawn + num_units * np.arange(num_rows)[:, None]
        counts = np.bincount(cell.reshape(-1), minlength=num_rows * num_units)
        yield counts.reshape(num_rows, num_units).astype(np.float64)


def weighted_sums(weights: Float[np.ndarray, "R U"], statistics: Mapping[str, np.ndarray]) -> Sums:
    """Sums over units, [U, ...] -> [R, ...] float64, each unit counted `weights` times."""
    sums = {}
    for name, values in statistics.items():
        flat = np.asarray(values, np.float64).reshape(weights.shape[1], math.prod(values.shape[1:]))
        sums[name] = (weights @ flat).reshape(weights.shape[0], *values.shape[1:])
    return sums


def bootstrap(
    statistics: Mapping[str, Num[np.ndarray, "U ..."]],
    compute: Callable[[Sums], Mapping[str, Float[np.ndarray, " R"]]],
    num_resamples: int,
    seed: int,
) -> dict[str, Float[np.ndarray, " num_resamples"]]:
    """Values of every metric under resampling of units with replacement.

    Memory is bounded whatever the number of resamples. Calls with the same seed and the same units see the same
    resamples, so differences between systems or groups are paired. One unit says nothing about others: where a single
    one has anything to add, every value is NaN.

    Args:
      statistics: Name -> [U, ...] sums of each unit; all of them add up over units.
      compute: Sums [R, ...] of R resamples -> name -> value [R] of each, NaN where a metric is not defined.
      num_resamples: How many.
      seed: Of the draw.
    """
    num_units = next(iter(statistics.values())).shape[0]
    is_used = np.zeros(num_units, bool)
    for values in statistics.values():
        is_used |= values.reshape(num_units, -1).any(axis=1)
    if is_used.sum() == 1:
        names = compute(weighted_sums(np.ones((1, num_units)), statistics))
        return {name: np.full(num_resamples, np.nan) for name in names}
    used = {name: np.asarray(values[is_used], np.float64) for name, values in statistics.items()}
    row_bytes = 8 * max(num_units, sum(math.prod(values.shape[1:]) for values in used.values()))
    chunk = int(np.clip(_CHUNK_BYTES // row_bytes, 1, num_resamples))
    parts = [
        compute(weighted_sums(weights[:, is_used], used))
        for weights in resample_weights(num_units, num_resamples, seed, chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Float[np.ndarray, " R"], level: float = 0.95) -> tuple[float, float] | tuple[None, None]:
    """Percentile interval of resampled values; None twice where more than half of them are not defined (NaN)."""
    values = values[np.isfinite(values)] if np.isfinite(values).sum() * 2 >= len(values) else values[:0]
    if not len(values):
        return None, None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def moment_sums(moments: metrics.Moments, prefix: str, shift: np.ndarray | None = None) -> tuple[Sums, np.ndarray]:
    """Moments of units [U, ...] as sums that add up over units, and the shift around which they are taken.

    Args:
      moments: State with NumPy leaves.
      prefix: Put before the names of the sums.
      shift: [2, ...] origin for prediction and target; their overall means by default, so that nothing cancels.

    Returns:
      Name -> [U, ...] float64 sums, and the shift for `moments_of_sums`.
    """
    m = metrics.Moments(*(np.asarray(leaf, np.float64) for leaf in moments))
    means = np.stack([m.mean_prediction, m.mean_target])
    if shift is None:
        shift = (means * m.num_rows).sum(axis=1) / np.maximum(m.num_rows.sum(axis=0), 1)
    x, y = means - shift[:, None]
    sums = {
        "num_rows": m.num_rows,
        "x": m.num_rows * x,
        "y": m.num_rows * y,
        "xx": m.squares_prediction + m.num_rows * x * x,
        "yy": m.squares_target + m.num_rows * y * y,
        "xy": m.products + m.num_rows * x * y,
        "absolute_error": m.absolute_error,
        "squared_error": m.squared_error,
    }
    return {f"{prefix}{name}": values for name, values in sums.items()}, shift


def moments_of_sums(sums: Mapping[str, np.ndarray], prefix: str, shift: np.ndarray) -> metrics.Moments:
    """The state whose `moment_sums` are `sums` [R, ...], with NumPy float64 leaves. Inverse of `moment_sums`."""
    num_rows = sums[f"{prefix}num_rows"]
    safe = np.maximum(num_rows, 1)
    x, y = sums[f"{prefix}x"] / safe, sums[f"{prefix}y"] / safe

    def squares(total: np.ndarray, mean: np.ndarray) -> np.ndarray:
        centred = total - num_rows * mean * mean
        # What is left of a constant is rounding, and a constant target must stay one.
        return np.where(centred > 1e-12 * total, centred, 0.0)

    return metrics.Moments(
        num_rows=num_rows,
        mean_prediction=x + shift[0],
        mean_target=y + shift[1],
        squares_prediction=squares(sums[f"{prefix}xx"], x),
        squares_target=squares(sums[f"{prefix}yy"], y),
        products=sums[f"{prefix}xy"] - num_rows * x * y,
        absolute_error=sums[f"{prefix}absolute_error"],
        squared_error=sums[f"{prefix}squared_error"],
    )


def chance_pa_uar(
    support: Num[np.ndarray, "U C"],
    is_eligible: Bool[np.ndarray, " U"],
    nbest: tuple[int, ...],
    thresholds: tuple[int, ...],
    seed: int,
    num_draws: int = 200,
) -> Float[np.ndarray, "N T"]:
    """The paUAR-T, in percent, of guessing with the same speakers, by simulation.

    A random ranking is right with probability N / C on every utterance. Speakers with few utterances pass by luck, so
    chance is not 0 and depends on the speakers.

    Args:
      support: [U, C] scored utterances of each unit and class.
      is_eligible: [U] bool, units that pass the speaker filter.
      nbest: The N.
      thresholds: The T, in percent.
      seed: Of the simulation.
      num_draws: Guessers to average over.

    Source: OURS; what a random ranking scores is method.md 8.3.
    """
    support = np.asarray(support)[is_eligible].astype(np.int64)
    generator = np.random.default_rng(seed)
    chance = np.zeros((len(nbest), len(thresholds)))
    if not len(support):
        return chance
    chunk = int(np.clip(_CHUNK_BYTES // (8 * support.size), 1, num_draws))
    for i, n in enumerate(nbest):
        for first in range(0, num_draws, chunk):
            drawn = np.broadcast_to(support, (min(chunk, num_draws - first), *support.shape))
            right = generator.binomial(drawn, min(n / support.shape[1], 1.0))
            uar = metrics.class_scores(right, drawn, drawn).uar
            chance[i] += 100 * metrics.passes(uar, thresholds).mean(axis=1).sum(axis=0)
    return chance / num_draws


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric in R resamples of the speakers.

    Attributes:
      values: [R, E] value of each member.
      is_defined: [R] bool, the same for all members: it depends on the targets only.
      count: [R] number of things the metric is over.
      chance: What a random guesser scores, where known.
    """

    values: np.ndarray
    is_defined: np.ndarray
    count: np.ndarray
    chance: float | None = None

    def mean(self) -> np.ndarray:
        """[R] mean over members, NaN where not defined."""
        return np.where(self.is_defined, self.values.mean(axis=1), np.nan)


def entry(point: Score, resampled: Float[np.ndarray, " R"]) -> dict[str, Any]:
    """JSON entry of one metric, as in `schema.ResultRecord.metrics`.

    Args:
      point: The metric on all units, counted once each: R = 1.
      resampled: Its mean over members in each resample, NaN where not defined.
    """
    is_defined = bool(point.is_defined[0])
    members = point.values[0]
    low, high = interval(resampled) if is_defined else (None, None)
    fields = {
        "value": float(members.mean()) if is_defined else None,
        "low": low,
        "high": high,
        "members": [float(value) if is_defined else None for value in members],
        "sd": float(members.std(ddof=1)) if is_defined and len(members) > 1 else None,
        "count": int(point.count[0]),
        "defined": is_defined,
    }
    return fields if point.chance is None else {**fields, "chance": float(point.chance)}


def gap_entry(
    first: Score, second: Score, resampled: Float[np.ndarray, " R"], names: tuple[str, str]
) -> dict[str, Any]:
    """Entry of first - second, paired by member and resample, with the `values` and `counts` of both sides."""
    is_defined = first.is_defined & second.is_defined
    difference = Score(first.values - second.values, is_defined, first.count + second.count)
    sides = [entry(side, resampled) for side in (first, second)]
    return {
        **entry(difference, resampled),
        "values": {name: side["value"] for name, side in zip(names, sides, strict=True)},
        "counts": {name: side["count"] for name, side in zip(names, sides, strict=True)},
    }

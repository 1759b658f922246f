"""Intervals of metrics from their values in resamples of speakers, and moments as sums that resamples can weight.

Resamples are those of `resampling`. Source: METHOD.md, section 8.9 (OURS). The 95 % interval is the expanded percentile
interval: of few speakers the plain one is too narrow, and covers the truth 92 times in 100 with 16 of them
(`percentiles.interval`).
"""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seremo_jax.metrics.moments import Moments
from seremo_jax.metrics.percentiles import interval
from seremo_jax.metrics.resampling import Sums

_ERRORS = ("absolute_error", "squared_error")


class MomentSum(NamedTuple):
    """Which of the sums that `moment_sums` makes.

    Attributes:
      quantity: What the moments are of, e.g. `attributes`.
      what: `num_rows`; `x` and `y`, sums of prediction and target; `xx`, `yy` and `xy`, of their products;
        `absolute_error` and `squared_error`.
    """

    quantity: str
    what: str


def moment_names(quantity: str, has_errors: bool = True) -> tuple[MomentSum, ...]:
    """Keys of the sums that `moment_sums` makes."""
    names = ("num_rows", "x", "y", "xx", "yy", "xy", *(_ERRORS if has_errors else ()))
    return tuple(MomentSum(quantity, name) for name in names)


def moment_sums(
    moments: Moments, quantity: str, shift: np.ndarray | None = None, has_errors: bool = True
) -> tuple[Sums, np.ndarray]:
    """Moments of units [U, ...] as sums that add up over units, and the shift around which they are taken.

    Args:
      moments: State with NumPy leaves.
      quantity: What they are of, for the keys of the sums.
      shift: [2, ...] origin for prediction and target; the target's overall mean by default, so that the sums of
        different systems on the same targets share it.
      has_errors: Whether the sums behind RMSE and MAE are among them.

    Returns:
      Key -> [U, ...] float64 sums, and the shift for `moments_of_sums`.
    """
    m = Moments(*(np.asarray(leaf, np.float64) for leaf in moments))
    if shift is None:
        # Centred moments do not add up, and plain sums of squares of values far from 0 lose the variance in rounding.
        # Sums around one origin that all units share add up, and near the mean of the target little cancels in them.
        origin = (m.mean_target * m.num_rows).sum(axis=0) / np.maximum(m.num_rows.sum(axis=0), 1)
        shift = np.stack([origin, origin])
    x, y = np.stack([m.mean_prediction, m.mean_target]) - shift[:, None]
    sums = {
        "num_rows": m.num_rows,
        "x": m.num_rows * x,
        "y": m.num_rows * y,
        "xx": m.squares_prediction + m.num_rows * x * x,
        "yy": m.squares_target + m.num_rows * y * y,
        "xy": m.products + m.num_rows * x * y,
    }
    if has_errors:
        sums |= {name: getattr(m, name) for name in _ERRORS}
    return {MomentSum(quantity, name): values for name, values in sums.items()}, shift


def moments_of_sums(sums: Mapping[Hashable, np.ndarray], quantity: str, shift: np.ndarray) -> Moments:
    """The state whose `moment_sums` are `sums` [R, ...], with NumPy float64 leaves. Inverse of `moment_sums`.

    Sums of the target may be of shape [R, 1, ...], once for all members. Errors that were left out are NaN.
    """
    num_rows, sum_x, sum_y, sum_xx, sum_yy, sum_xy = (sums[key] for key in moment_names(quantity, has_errors=False))
    errors = {name: sums.get(MomentSum(quantity, name), np.asarray(np.nan)) for name in _ERRORS}
    safe = np.maximum(num_rows, 1)
    x, y = sum_x / safe, sum_y / safe

    def squares(total: np.ndarray, mean: np.ndarray) -> np.ndarray:
        centred = total - num_rows * mean * mean
        # What is left of a constant is rounding, and a constant target must stay one.
        return np.where(centred > 1e-12 * total, centred, 0.0)

    return Moments(
        num_rows=num_rows,
        mean_prediction=x + shift[0],
        mean_target=y + shift[1],
        squares_prediction=squares(sum_xx, x),
        squares_target=squares(sum_yy, y),
        products=sum_xy - num_rows * x * y,
        **errors,
    )


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric in R resamples of the speakers.

    Attributes:
      values: [R, E] value of each member.
      is_defined: [R] bool, the same for all members: it depends on the targets only.
      count: [R] number of things the metric is over.
      chance: What a random guesser scores, where known.
      is_share: Whether the metric is the share, in percent, of `count` speakers.
      num_units: Units that it hangs on, where these are fewer than were resampled, e.g. the worst fifth of them.
    """

    values: np.ndarray
    is_defined: np.ndarray
    count: np.ndarray
    chance: float | None = None
    is_share: bool = False
    num_units: int | None = None

    def means(self, member_weights: Float[np.ndarray, "R E"]) -> Float[np.ndarray, "R 2"]:
        """[R, 2] mean over members, each once and each as often as drawn; NaN where not defined."""
        drawn = (self.values * member_weights).sum(axis=1) / member_weights.sum(axis=1)
        return np.where(self.is_defined[:, None], np.stack([self.values.mean(axis=1), drawn], axis=1), np.nan)


def entry(point: Score, resampled: Float[np.ndarray, "R 2"], num_units: int | None = None) -> dict[str, Any]:
    """JSON entry of one metric, as in `schema.ResultRecord.metrics`.

    `low` and `high` say how far other speakers could move the mean over these members, `sd_speakers` is the spread
    behind them. `sd` is the spread of members (seeds); `low_members` and `high_members` draw members, too.

    Args:
      point: The metric on all units, counted once each: R = 1.
      resampled: Its `Score.means` in each resample.
      num_units: Units that were resampled.
    """
    is_defined = bool(point.is_defined[0])
    members = point.values[0]
    value, count = (float(members.mean()) if is_defined else None), int(point.count[0])
    num_units = count if point.is_share else point.num_units or num_units
    bounds = [interval(column, num_units) if is_defined else (None, None) for column in resampled.T]
    if point.is_share and is_defined:
        bounds = [_widened(pair, value, count) for pair in bounds]
    (low, high), (low_members, high_members) = bounds
    fields = {
        "value": value,
        "low": low,
        "high": high,
        "low_members": low_members,
        "high_members": high_members,
        "members": [float(value) if is_defined else None for value in members],
        "sd": float(members.std(ddof=1)) if is_defined and len(members) > 1 else None,
        "sd_speakers": None if low is None else float(np.nanstd(resampled[:, 0], ddof=1)),
        "count": count,
        "defined": is_defined,
    }
    return fields if point.chance is None else {**fields, "chance": float(point.chance)}


def _widened(
    bounds: tuple[float, float] | tuple[None, None], value: float, count: int
) -> tuple[float, float] | tuple[None, None]:
    """Where none or all of the speakers pass no resample differs: the bound of Clopper and Pearson (1934) instead."""
    if bounds[0] is None or 0 < value < 100:
        return bounds
    reach = 100 * 0.025 ** (1 / count)
    return (0.0, 100 - reach) if value == 0 else (reach, 100.0)


def gap_entry(
    first: Score,
    second: Score,
    resampled: Float[np.ndarray, "R 2"],
    names: tuple[str, str],
    num_units: int | None = None,
) -> dict[str, Any]:
    """Entry of first - second, paired by member and resample, with the `values` and `counts` of both sides."""
    is_defined = first.is_defined & second.is_defined
    difference = Score(first.values - second.values, is_defined, first.count + second.count)
    sides = dict(zip(names, (first, second), strict=True))
    return {
        **entry(difference, resampled, num_units),
        "values": {name: float(side.values[0].mean()) if side.is_defined[0] else None for name, side in sides.items()},
        "counts": {name: int(side.count[0]) for name, side in sides.items()},
    }

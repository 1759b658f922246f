"""Systems of one table against each other: differences with intervals, two paired tests, and Holm's correction."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from seremo_jax.metrics import intervals, percentiles, resampling, significance
from seremo_jax.metrics.catalogue import Metric

MOST_PAIRED = 3
"""Systems up to which each is compared with every other; more of them are compared with the first."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """One system on the utterances that all systems of the table are scored on.

    Attributes:
      sums: Name -> [U, ...] sums of each unit; moments among them have the same shift in all systems.
      means: Sums [R, ...] -> metric -> mean over members [R], NaN where not defined: the metrics to compare.
      points: Metric -> score on all units.
      resampled: Metric -> [R, 2] means in each resample, of the same resamples in all systems.
      num_units: Units behind them.
    """

    sums: resampling.Sums
    means: Callable[[resampling.Sums], Mapping[Metric, Float[np.ndarray, " R"]]]
    points: Mapping[Metric, intervals.Score]
    resampled: Mapping[Metric, Float[np.ndarray, "R 2"]]
    num_units: int


def default_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each system with those before it, and of more than `MOST_PAIRED` each with the first.

    Pairs grow with the square of the systems, and so does what Holm's correction asks of each.
    """
    return [(a, b) for i, b in enumerate(names) for a in names[:i] if len(names) <= MOST_PAIRED or a == names[0]]


def differences(
    systems: Mapping[str, Compared],
    num_permutations: int,
    seed: int,
    pairs: Sequence[tuple[str, str]],
) -> dict[str, list[dict[str, Any]]]:
    """System -> its differences from other systems, one entry a metric.

    `value` is this system minus `than`. `p_holm` corrects, over all entries of all systems of one family of metrics
    (`Kind.family`), the p of the permutation test. For it the two systems of a pair must have as many members, or one
    of them a single one, which is then exchanged with each member of the other; the bootstrap's p stands in elsewhere.
    Intervals hold for these members; whether other seeds would agree is what `sd` of each system's metric says.

    Args:
      systems: In the order of the table.
      num_permutations: Exchanges of two systems, speaker by speaker.
      seed: Of the exchanges.
      pairs: (`than`, system) to compare, see `default_pairs`.

    Raises:
      ValueError: `means` of a system lacks one of its `points`.
    """
    rows: dict[tuple[str, str, Metric], dict[str, Any]] = {}
    for before, after in pairs:
        first, second = systems[after], systems[before]
        p_permutation: dict[Metric, float | None] = {}
        sides = _exchangeable(first, second)
        if sides is not None:
            many, own_sums, other_sums = sides
            p_permutation = significance.permutation_p(own_sums, other_sums, many.means, num_permutations, seed)
            if missing := [metric.name for metric in first.points if metric not in p_permutation]:
                raise ValueError(f"systems are compared by {', '.join(missing)}, but `means` does not compute it")
        for metric, here in first.points.items():
            there, is_defined = second.points[metric], bool(here.is_defined[0])
            # Both systems were resampled with the same speakers, so subtracting resample by resample pairs them.
            drawn = first.resampled[metric][:, 0] - second.resampled[metric][:, 0]
            low, high = percentiles.interval(drawn, here.num_units or first.num_units) if is_defined else (None, None)
            rows[after, before, metric] = {
                "than": before,
                "metric": metric.name,
                "about": metric.to_json(),
                "value": float(here.values.mean() - there.values.mean()) if is_defined else None,
                "low": low,
                "high": high,
                "p_bootstrap": significance.bootstrap_p(drawn) if is_defined else None,
                "p_permutation": p_permutation.get(metric) if is_defined else None,
            }
    # All tests of one table are one family, whatever the metric: a reader looks at all of them.
    corrected: dict[tuple[str, str, Metric], float | None] = {}
    for family in {metric.about.family for _, _, metric in rows}:
        corrected |= significance.holm(
            {key: row["p_bootstrap"] if row["p_permutation"] is None else row["p_permutation"]
             for key, row in rows.items() if key[2].about.family == family}
        )  # fmt: skip
    by_system: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for key, row in rows.items():
        by_system[key[0]].append(row | {"p_holm": corrected[key]})
    return by_system


def _exchangeable(first: Compared, second: Compared) -> tuple[Compared, resampling.Sums, resampling.Sums] | None:
    """Sums of two systems in equal shapes, and first the one with more members; None where there are none."""
    many, few = sorted((first, second), key=_num_members, reverse=True)
    if _num_members(few) not in (1, _num_members(many)):
        return None
    # The member axis is the second one of what has any, and that of sums of targets is 1 on both sides.
    widened = {
        name: values if values.shape == many.sums[name].shape else np.repeat(values, _num_members(many), axis=1)
        for name, values in few.sums.items()
    }
    return many, many.sums, widened


def _num_members(system: Compared) -> int:
    return next(iter(system.points.values())).values.shape[1]

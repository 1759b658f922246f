"""Groups of speakers side by side: the worst one, the gap to the best, and their ratio, with intervals.

The pair is chosen anew in every resample, so that an interval knows that the worst group might have been another.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from seremo_jax.core import vocab
from seremo_jax.metrics import intervals, percentiles
from seremo_jax.metrics.catalogue import Metric, compared

Points = Mapping[Metric, intervals.Score]
Resampled = Mapping[Metric, Float[np.ndarray, "R 2"]]


@runtime_checkable
class ByGroup(Protocol):
    """Scores of one system by group; arguments of `worst_best`."""

    points: Mapping[str, Points]
    resampled: Mapping[str, Resampled]
    num_units: Mapping[str, int]


def gender_gap(
    points: Mapping[str, Points], resampled: Mapping[str, Resampled], num_units: Mapping[str, int]
) -> dict[Metric, dict[str, Any]]:
    """Entries of female - male, for every metric that both have; arguments as in `worst_best`."""
    both = num_units["female"] + num_units["male"]
    return {
        metric: intervals.gap_entry(
            points["female"][metric],
            points["male"][metric],
            resampled["female"][metric] - resampled["male"][metric],
            ("female", "male"),
            both,
        )
        for metric in points["female"]
        if metric in points["male"]
    }


def gap_changes(systems: Mapping[str, ByGroup], pairs: Sequence[tuple[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """System -> how its gap between genders differs from that of others, paired by speaker.

    Args:
      systems: Scores by group. All were resampled with the same speakers.
      pairs: (`than`, system) to compare.

    Returns:
      An entry a metric by which systems are compared and that both genders have: `value` is (female - male) of the
      system minus (female - male) of `than`, with an interval. None where a gender is not there.
    """
    changes: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for before, after in pairs:
        sides = systems[after], systems[before]
        if not all({"female", "male"} <= side.points.keys() for side in sides):
            continue
        groups = [(side.points[name], side.resampled[name]) for side in sides for name in ("female", "male")]
        both = sides[0].num_units["female"] + sides[0].num_units["male"]
        for metric in compared(sides[0].points["female"]):
            if not all(metric in points and points[metric].is_defined[0] for points, _ in groups):
                continue
            values = [float(points[metric].values.mean()) for points, _ in groups]
            drawn = [resampled[metric][:, 0] for _, resampled in groups]
            change, resamples = ((a - b) - (c - d) for a, b, c, d in (values, drawn))
            low, high = percentiles.interval(resamples, both)
            about = {"than": before, "metric": metric.name, "about": metric.to_json()}
            changes[after].append(about | {"value": change, "low": low, "high": high})
    return changes


def worst_best(
    points: Mapping[str, Points], resampled: Mapping[str, Resampled], num_units: Mapping[str, int]
) -> dict[str, dict[Metric, dict[str, Any]]]:
    """Entries of the worst group, of the gap best - worst and of the ratio smaller / larger value.

    Args:
      points: Group -> metric -> score on all units. The unknown group and `all` take no part.
      resampled: Group -> metric -> [R, 2] means in each resample.
      num_units: Group -> units of it.

    Returns:
      `worst`, `gap` and `ratio` -> metric -> entry, which names the groups; empty with fewer than two groups.
    """
    groups = [group for group in points if group not in ("all", vocab.UNKNOWN)]
    gaps: dict[str, dict[Metric, dict[str, Any]]] = {"worst": {}, "gap": {}, "ratio": {}}
    if len(groups) < 2:
        return {}
    for metric in points[groups[0]]:
        here = [group for group in groups if metric in points[group] and points[group][metric].is_defined[0]]
        if len(here) < 2:
            continue
        sign = -1 if metric.about.direction < 0 else 1
        # Metrics of which less is better change their sign, so that the worst group is the smallest number in any case.
        means = [sign * points[group][metric].values[0].mean() for group in here]
        worst, best = here[int(np.argmin(means))], here[int(np.argmax(means))]
        # Best and worst are looked for anew in each resample. To keep the groups of the point estimate would make the
        # interval of a gap too narrow, as the largest of several differences is picked.
        drawn = sign * np.stack([resampled[group][metric] for group in here])
        is_drawn = np.isfinite(drawn).sum(axis=0) > 1
        low = np.where(is_drawn, np.where(np.isfinite(drawn), drawn, np.inf).min(axis=0), np.nan)
        high = np.where(is_drawn, np.where(np.isfinite(drawn), drawn, -np.inf).max(axis=0), np.nan)
        low, high = (sign * low, sign * high)
        first, second, number = points[best][metric], points[worst][metric], sum(num_units[group] for group in here)
        gaps["worst"][metric] = intervals.entry(second, low, num_units[worst]) | {"groups": [worst]}
        # Groups have their own seeds' values, member by member, so the gap has members, too.
        gap = intervals.Score(first.values - second.values, first.is_defined, first.count + second.count)
        gaps["gap"][metric] = intervals.entry(gap, high - low, number) | {"groups": [best, worst]}
        smaller, larger = (second, first) if sign > 0 else (first, second)
        gaps["ratio"][metric] = intervals.entry(
            intervals.Score(
                _ratio(smaller.values, larger.values),
                (larger.values > 0).all(axis=1),
                first.count + second.count,
            ),
            _ratio(*((low, high) if sign > 0 else (high, low))),
            number,
        ) | {"groups": [worst, best] if sign > 0 else [best, worst]}
    return gaps


def _ratio(smaller: Float[np.ndarray, "..."], larger: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """NaN where the larger value is not above 0."""
    is_positive = larger > 0
    return np.where(is_positive, smaller / np.where(is_positive, larger, 1), np.nan)

"""Resampling of units (speakers) as one product of weights with what each unit adds to the sums behind the metrics.

Metrics are functions of sums over units, so a resample is a row of multiplicities W, one a unit, and its sums are
`W @ statistics`: the utterances are never read again. Plain NumPy, no JAX. Source: METHOD.md, section 8.9 (OURS:
speakers are the unit, an utterance of an unknown speaker is a unit of its own).
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

_CHUNK_BYTES = 32 << 20
"""Bound on the weights, and on the weighted sums of a group, held at a time."""

Sums = dict[Hashable, np.ndarray]


def resample_weights(num_units: int, num_resamples: int, seed: int, chunk: int) -> Iterator[Float[np.ndarray, "R U"]]:
    """Yields how often each unit is drawn in each resample, `chunk` resamples at a time.

    Every row sums to `num_units`. The draw depends on the seed and the number of units only, never on `chunk`; a larger
    `num_resamples` begins with the same resamples.
    """
    generator = np.random.default_rng(seed)
    for first in range(0, num_resamples, chunk):
        num_rows = min(chunk, num_resamples - first)
        drawn = generator.integers(0, num_units, (num_rows, num_units))
        # Every resample counts in bins of its own, so that one bincount serves all of them.
        drawn += num_units * np.arange(num_rows)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=num_rows * num_units)
        yield counts.reshape(num_rows, num_units).astype(np.float64)


class Columns:
    """Statistics [U, ...] side by side in one matrix, so that all their weighted sums are one product."""

    def __init__(
        self, statistics: Mapping[Hashable, Shaped[np.ndarray, "U ..."]], rows: Bool[np.ndarray, " U"] | None = None
    ):
        """Copies the statistics, those of some units only where `rows` says which."""
        kept = slice(None) if rows is None or rows.all() else rows
        values = {name: np.asarray(value)[kept] for name, value in statistics.items()}
        self._shapes = {name: value.shape[1:] for name, value in values.items()}
        self.num_units = len(next(iter(values.values())))
        self._matrix = np.concatenate(
            [value.reshape(self.num_units, math.prod(value.shape[1:])) for value in values.values()], axis=1
        ).astype(np.float64, copy=False)

    @property
    def width(self) -> int:
        """Numbers of each unit."""
        return self._matrix.shape[1]

    def weighted(self, weights: Float[np.ndarray, "R U"]) -> Float[np.ndarray, "R V"]:
        """Sums over units, each counted `weights` times, side by side."""
        return weights @ self._matrix

    def named(self, sums: Float[np.ndarray, "R V"]) -> Sums:
        """Name -> [R, ...]: views of what is side by side."""
        views, first = {}, 0
        for name, shape in self._shapes.items():
            last = first + math.prod(shape)
            views[name] = sums[:, first:last].reshape(len(sums), *shape)
            first = last
        return views


def weighted_sums(weights: Float[np.ndarray, "R U"], statistics: Mapping[Hashable, np.ndarray]) -> Sums:
    """Sums over units, [U, ...] -> [R, ...] float64, each unit counted `weights` times."""
    columns = Columns(statistics)
    return columns.named(columns.weighted(weights))


def used_units(statistics: Mapping[Hashable, Shaped[np.ndarray, "U ..."]]) -> Bool[np.ndarray, " U"]:
    """Units that have anything to add."""
    num_units = next(iter(statistics.values())).shape[0]
    is_used = np.zeros(num_units, bool)
    for values in statistics.values():
        is_used |= values.reshape(num_units, -1).any(axis=1)
    return is_used


@dataclasses.dataclass(frozen=True)
class Group:
    """Units whose metrics are resampled together.

    Attributes:
      statistics: Name -> [V, ...] sums of each of its units; all of them add up over units.
      compute: Sums [R, ...] of R resamples -> metric -> value [R, ...] of each, NaN where it is not defined. Where
        members are drawn, too, it is given a second argument: [R, num_members], how often each is.
      places: [V] place of its units among all, ascending.
      parts: Groups that this one is made of, e.g. the genders.
      summed: Names of sums that it has no statistics of, for they are those of its parts added up.
    """

    statistics: Mapping[Hashable, Shaped[np.ndarray, "V ..."]]
    compute: Callable[..., Mapping[Hashable, Float[np.ndarray, "R ..."]]]
    places: Int[np.ndarray, " V"]
    parts: tuple[str, ...] = ()
    summed: tuple[Hashable, ...] = ()


def bootstrap_groups(
    groups: Mapping[str, Group], num_units: int, num_resamples: int, seed: int, num_members: int = 0
) -> dict[str, dict[Hashable, Float[np.ndarray, "num_resamples ..."]]]:
    """Values of every metric of every group under resampling of all units with replacement.

    Memory is bounded whatever the number of resamples. Calls with the same seed and number of units see the same
    resamples, so differences between systems or groups are paired. One unit says nothing about others: where a single
    one of a group has anything to add, every value is NaN.

    Args:
      groups: Name -> group.
      num_units: Units that are drawn from.
      num_resamples: How many.
      seed: Of the draw.
      num_members: With some, members are drawn, too.

    Returns:
      Group -> metric -> values.

    Raises:
      ValueError: A sum that a group takes from its parts is among its own statistics, or a part lacks it.
    """
    _check_parts(groups)
    # Units of another group add zeros to every sum, so they are left out of the product.
    used = {name: used_units(group.statistics) for name, group in groups.items()}
    columns = {name: Columns(group.statistics, used[name]) for name, group in groups.items()}
    places = {name: group.places[used[name]] for name, group in groups.items()}
    row_bytes = 8 * max(num_units, *(matrix.width for matrix in columns.values()))
    chunk = int(np.clip(_CHUNK_BYTES // row_bytes, 1, num_resamples))
    draws = [resample_weights(num_units, num_resamples, seed, chunk)]
    if num_members:
        # From a seed of its own: whether members are drawn must not change which speakers are.
        draws.append(resample_weights(num_members, num_resamples, seed + 1, chunk))
    chunks: dict[str, list[Mapping[Hashable, np.ndarray]]] = {name: [] for name in groups}
    for weights, *member_weights in zip(*draws, strict=True):
        from_parts: dict[str, Sums] = {name: {} for name in groups}
        # Parts come before what they make up, whose sums are then added and not multiplied out once more.
        for name in sorted(groups, key=lambda name: bool(groups[name].parts)):
            is_everyone = len(places[name]) == num_units
            # All resamples of the chunk at once: multiplicities [R, V] times statistics [V, columns].
            drawn = columns[name].weighted(weights if is_everyone else weights[:, places[name]])
            sums = from_parts.pop(name) | columns[name].named(drawn)
            for whole in (whole for whole in from_parts if name in groups[whole].parts):
                for key in groups[whole].summed:
                    from_parts[whole][key] = from_parts[whole].get(key, 0) + sums[key]
            chunks[name].append(groups[name].compute(sums, *member_weights))
    result = {}
    for name, group in groups.items():
        values = {key: np.concatenate([chunk[key] for chunk in chunks[name]]) for key in chunks[name][0]}
        num_used = len(set().union(places[name].tolist(), *(places[part].tolist() for part in group.parts)))
        if num_used == 1:
            values = {key: np.full(resampled.shape, np.nan) for key, resampled in values.items()}
        result[name] = values
    return result


def _check_parts(groups: Mapping[str, Group]) -> None:
    for name, group in groups.items():
        for key in group.summed:
            if key in group.statistics:
                raise ValueError(f"group {name!r}: the sum {key!r} is both its own and that of its parts")
            if not group.parts:
                raise ValueError(f"group {name!r}: it has no parts to take the sum {key!r} from")
            if lacking := [part for part in group.parts if key not in groups[part].statistics]:
                raise ValueError(f"group {name!r}: the parts {lacking} lack the sum {key!r}")


def bootstrap(
    statistics: Mapping[Hashable, Shaped[np.ndarray, "U ..."]],
    compute: Callable[..., Mapping[Hashable, Float[np.ndarray, "R ..."]]],
    num_resamples: int,
    seed: int,
    num_members: int = 0,
    among: tuple[Int[np.ndarray, " U"], int] | None = None,
) -> dict[Hashable, Float[np.ndarray, "num_resamples ..."]]:
    """The `bootstrap_groups` of a single group; `among`: places of its units among all, and how many these are."""
    num_units = next(iter(statistics.values())).shape[0]
    places, num_units = among or (np.arange(num_units), num_units)
    group = Group(statistics, compute, places)
    return bootstrap_groups({"all": group}, num_units, num_resamples, seed, num_members)["all"]

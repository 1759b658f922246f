"""Sums of one system that add up over units: states of members -> sums of cells -> sums of the units of a group.

A cell is what one unit (speaker) says in one group, the finest set that any unit or group is made of. The members'
states are computed once over cells; groups, resamples and exchanges of systems are sums over them. So a score is always
that of merged sums, and never a mean of scores.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.evaluation import strata
from seremo_jax.evaluation.alignment import Cells
from seremo_jax.evaluation.states import Settings, States
from seremo_jax.metrics import class_distances, intervals, resampling
from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.passing import passes

ATTRIBUTES, CLASSES, ENTROPIES = "attributes", "classes", "entropies"
"""What moments are of, in the keys of their sums (`intervals.MomentSum`)."""

ROW_SUMS = ("num_rows", "jsd", "kl", "total_variation", "num_true", "num_predicted", "num_present")
"""Sums over rows with votes, by their names in `DistributionSums`."""


class RowSum(NamedTuple):
    """Key of one of `ROW_SUMS`."""

    what: str


TARGET_SUMS = {
    *(
        intervals.MomentSum(quantity, what)
        for quantity in (ATTRIBUTES, CLASSES, ENTROPIES)
        for what in ("num_rows", "y", "yy")
    ),
    *(RowSum("num_rows"), RowSum("num_present")),
}
"""Sums of targets only, the same for all members: they are kept once."""

PANEL_RIGHT, PANEL_SUPPORT, PANEL_ANSWERS = "panel right", "panel support", "panel answers"
"""Keys of expected sums against the consensus of a few raters: right answers of the system, utterances of each class,
and right answers of panels of raters of every size."""

RATERS_SERVED = "raters served"
"""Key of the summed share of the votes that is for one of the N-best, [cells, E, N]."""

SPEAKERS, EQUAL, HALVES, TRUE, MATCHED, LARGE = SERVED_SUMS = tuple(
    f"speakers {what}" for what in ("as they are", "if equal", "by halves", "without noise", "of equal size", "large")
)
"""Keys of the sums of `served`, over all speakers only: histograms of UAR [V, E, 2, bins], three of them; number, UAR,
its square and its noise [V, E, 4]; who passes at each size [V, E, sizes, T]; who has so many utterances [V, sizes]."""

WHOLE_SUMS = ("support", "passing", "eligible", *SERVED_SUMS)
"""Statistics of a unit's utterances as a whole, which those of its cells do not add up to."""


@dataclasses.dataclass(frozen=True)
class GroupTargets:
    """What is known of a group of utterances before any prediction.

    Attributes:
      support: [U, C] scored utterances of each unit and class, of human raters their expected number.
      eligible: [U, filters] bool, units that each speaker filter counts.
      chance: [filters, N, T] paUAR of a random guesser.
    """

    support: Num[np.ndarray, "U C"]
    eligible: Bool[np.ndarray, "U filters"]
    chance: Float[np.ndarray, "filters N T"]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What the metrics of one system and group are computed from.

    Attributes:
      units: [V] units of the group, ascending.
      sums: Key -> [V, E, ...] sums of each of them, of targets only [V, 1, ...]; `WHOLE_SUMS` have their member axis,
        if any, where `unit_statistics` puts it.
      shifts: What moments are of -> the origin they are taken around.
      uar: [V, E, N] UAR of each.
      confusion: [E, N, C, C] confusion counts.
      chance: [filters, N, T] paUAR of a random guesser.
    """

    units: np.ndarray
    sums: resampling.Sums
    shifts: dict[str, np.ndarray]
    uar: np.ndarray
    confusion: np.ndarray
    chance: np.ndarray


@dataclasses.dataclass(frozen=True)
class CellSums:
    """Sums of one system over cells.

    Attributes:
      sums: Key -> [cells, E, ...], of targets only [cells, 1, ...].
      shifts: What moments are of -> the origin they are taken around.
      confusion: [groups, E, N, C, C] confusion counts of the cells of each group.
    """

    sums: resampling.Sums
    shifts: dict[str, np.ndarray]
    confusion: np.ndarray


def cell_sums(states: Iterable[States], num_members: int, cells: Cells, settings: Settings) -> CellSums:
    """Sums over cells, from the states of the members, one at a time, for they are large.

    Args:
      states: Of each member, [cells or more, ...].
      num_members: How many there are.
      cells: Of the split.
      settings: Of the split.
    """
    num_cells = len(cells.unit)
    sums: resampling.Sums = {}
    shifts: dict[str, np.ndarray] = {}
    confusions = []
    for e, state in enumerate(states):
        # States are made for a rounded number of cells, so that few programs are compiled; the rest is padding.
        state = jax.tree.map(lambda leaf: np.asarray(leaf)[:num_cells], state)
        confusion = np.zeros((len(cells.groups), *state.counts.shape[1:]), np.int64)
        # The figure of confusions needs counts by group only, so the large counts of every cell are let go here.
        np.add.at(confusion, cells.group, state.counts)
        confusions.append(confusion)
        # What is left of a member is a few numbers a cell. The sums of all members then fit in memory side by side.
        own = _count_sums(state.counts, settings)
        own |= {PANEL_RIGHT: state.panel_right, strata.RIGHT: state.strata_right, RATERS_SERVED: state.raters_served}
        own |= {RowSum(name): getattr(state.distribution, name) for name in ROW_SUMS}
        for quantity, moments in (
            (ATTRIBUTES, state.attributes),
            (CLASSES, state.distribution.classes),
            (ENTROPIES, state.distribution.entropies),
        ):
            # The targets are the same for all members, and so must be the shift, or their sums could not be compared.
            part, shifts[quantity] = intervals.moment_sums(
                moments, quantity, shifts.get(quantity), has_errors=quantity == ATTRIBUTES
            )
            own |= part
        for name, values in own.items():
            is_of_targets = name in TARGET_SUMS
            # The arrays are made at the first member, whose sums say which metrics this split has.
            if name not in sums:
                sums[name] = np.zeros((num_cells, 1 if is_of_targets else num_members, *values.shape[1:]))
            if e == 0 or not is_of_targets:
                sums[name][:, e] = values
    return CellSums(
        sums, {quantity: shift[:, None] for quantity, shift in shifts.items()}, np.stack(confusions, axis=1)
    )


def _count_sums(counts: Int[np.ndarray, "cells N C C"], settings: Settings) -> resampling.Sums:
    """What scores need of confusion counts: far fewer numbers than the counts themselves."""
    sums = {"right": np.einsum("unii->uni", counts), "predicted": counts.sum(axis=2)}
    one_best = counts[:, settings.nbest.index(1)]
    if settings.ground:
        sums["cost"] = (one_best * settings.ground.distance).sum(axis=(1, 2))
    if settings.groups_of_classes:
        # Only the diagonal is kept: recall of merged classes needs what was right and how often each was true.
        merged = class_distances.merge_classes(one_best, settings.groups_of_classes)
        sums["merged right"] = np.einsum("uii->ui", merged)
    return sums


def unit_statistics(sums: CellSums, cells: Cells, group: str, targets: GroupTargets, settings: Settings) -> Statistics:
    """Sums of the units that have cells in a group, over those cells.

    Args:
      sums: Of a system.
      cells: Of the split.
      group: Name of the group.
      targets: Of the group.
      settings: Of the split.
    """
    is_in = cells.is_in(group)
    unit = cells.unit[is_in]
    # Cells are sorted by unit, so those of one unit are neighbours and one pass adds them up.
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    units = unit[starts]
    support, eligible = targets.support[units], targets.eligible[units]
    of_units = {}
    for name, values in sums.sums.items():
        kept = values if is_in.all() else values[is_in]
        of_units[name] = kept if len(starts) == len(kept) else np.add.reduceat(kept, starts, axis=0)
    # UAR is not additive. It is computed from the sums of each unit, and only its comparison with T is added up.
    totals = support[:, None, None]
    uar = class_scores(of_units["right"], totals, totals).uar
    # Whether a unit passes is decided by all its utterances of the group, so it is a statistic of the unit.
    passing = passes(uar, settings.thresholds)[:, :, None] & eligible[:, None, :, None, None]
    of_units |= {"support": support, "passing": passing, "eligible": eligible}
    confusion = sums.confusion[list(cells.numbers(group))].sum(axis=0)
    return Statistics(units, of_units, sums.shifts, uar, confusion, targets.chance)


def main_sums(statistics: Statistics) -> resampling.Sums:
    """The statistics that `system_scores.main_scores` reads."""
    wanted = {
        *("right", "predicted", RATERS_SERVED, RowSum("num_rows"), strata.RIGHT, strata.SUPPORT),
        *("support", "passing", "eligible", *SERVED_SUMS),
        *intervals.moment_names(ATTRIBUTES),
        *intervals.moment_names(CLASSES, has_errors=False),
    }
    return {name: values for name, values in statistics.sums.items() if name in wanted and name != EQUAL}

"""Every metric of one system from sums that add up over units: states of members -> sums of cells -> scores.

A cell is what one unit (speaker) says in one group, the finest set that any unit or group is made of. The members'
states are computed once over cells; groups, resamples and exchanges of systems are sums over them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from seremo_jax.evaluation.states import Settings, States
from seremo_jax.metrics import class_distances, distributions, intervals, resampling
from seremo_jax.metrics.catalogue import Metric, metric
from seremo_jax.metrics.confusions import class_scores

_ROW_SCORES = ("num_rows", "jsd", "kl", "total_variation", "num_true", "num_predicted", "num_present")
_MOMENTS = ("attribute ", "class ", "entropy ")

OF_TARGETS = {
    *(f"{prefix}{name}" for prefix in _MOMENTS for name in ("num_rows", "y", "yy")),
    *("distribution num_rows", "distribution num_present"),
}
"""Sums of targets only, the same for all members: they are kept once."""

OF_GROUP = ("support", "passing", "eligible")
"""Statistics of a unit's utterances as a whole, which those of its cells do not add up to."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What the metrics of one system and group are computed from.

    Attributes:
      units: [V] units of the group, ascending.
      sums: Name -> [V, E, ...] sums of each of them, of targets only [V, 1, ...]; `OF_GROUP` without a member axis
        before their own.
      shifts: Origins of the moments among them.
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
      sums: Name -> [cells, E, ...], of targets only [cells, 1, ...].
      shifts: Origins of the moments among them.
      confusion: [groups, E, N, C, C] confusion counts of the cells of each group.
    """

    sums: resampling.Sums
    shifts: dict[str, np.ndarray]
    confusion: np.ndarray


def cell_sums(
    states: Iterable[States],
    num_members: int,
    group_of_cell: Int[np.ndarray, " cells"],
    num_groups: int,
    settings: Settings,
) -> CellSums:
    """Sums over cells, from the states of the members, one at a time: [cells or more, ...], the rest is padding."""
    num_cells, one_best = len(group_of_cell), settings.nbest.index(1)
    sums: resampling.Sums = {}
    shifts: dict[str, np.ndarray] = {}
    confusions = []
    for e, state in enumerate(states):
        nbest, attributes, distribution = jax.tree.map(lambda leaf: np.asarray(leaf)[:num_cells], state)
        counts = nbest.counts
        confusion = np.zeros((num_groups, *counts.shape[1:]), np.int64)
        np.add.at(confusion, group_of_cell, counts)
        confusions.append(confusion)
        part = {"right": np.einsum("unii->uni", counts), "predicted": counts.sum(axis=2)}
        if settings.ground:
            part["cost"] = (counts[:, one_best] * settings.ground.distance).sum(axis=(1, 2))
        if settings.groups_of_classes:
            merged = class_distances.merge_classes(counts[:, one_best], settings.groups_of_classes)
            part["merged right"] = np.einsum("uii->ui", merged)
        for name in _ROW_SCORES:
            part[f"distribution {name}"] = getattr(distribution, name)
        moments = attributes, distribution.classes, distribution.entropies
        for name, one in zip(_MOMENTS, moments, strict=True):
            # Targets, and so the shift, are those of the first member.
            found, shifts[name] = intervals.moment_sums(one, name, shifts.get(name), has_errors=name == "attribute ")
            part |= found
        for name, values in part.items():
            if name not in sums:
                sums[name] = np.zeros((num_cells, 1 if name in OF_TARGETS else num_members, *values.shape[1:]))
            if e == 0 or name not in OF_TARGETS:
                sums[name][:, e] = values
    shifts = {name: shift[:, None] for name, shift in shifts.items()}
    return CellSums(sums, shifts, np.stack(confusions, axis=1))


def unit_statistics(
    cells: CellSums,
    unit_of_cell: Int[np.ndarray, " cells"],
    is_in: Bool[np.ndarray, " cells"],
    groups: Sequence[int],
    support: Int[np.ndarray, "U C"],
    eligible: Bool[np.ndarray, "U filters"],
    chance: Float[np.ndarray, "filters N T"],
    settings: Settings,
) -> Statistics:
    """Sums of the units that have cells in a group, over those cells.

    Args:
      cells: Of a system.
      unit_of_cell: [cells] unit of each, ascending; every unit has a cell.
      is_in: [cells] bool.
      groups: Rows of `cells.confusion` that are in.
      support: [U, C] scored utterances of each unit and class.
      eligible: [U, filters] bool, units that each speaker filter counts.
      chance: [filters, N, T] paUAR of a random guesser.
      settings: Of the split.
    """
    unit = unit_of_cell[is_in]
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    units = unit[starts]
    support, eligible = support[units], eligible[units]
    sums = {}
    for name, values in cells.sums.items():
        kept = values if is_in.all() else values[is_in]
        sums[name] = kept if len(starts) == len(kept) else np.add.reduceat(kept, starts, axis=0)
    totals = support[:, None, None]
    uar = class_scores(sums["right"], totals, totals).uar
    passing = distributions.passes(uar, settings.thresholds)[:, :, None] & eligible[:, None, :, None, None]
    sums |= {"support": support, "passing": passing, "eligible": eligible}
    return Statistics(units, sums, cells.shifts, uar, cells.confusion[list(groups)].sum(axis=0), chance)


Scores = dict[Metric, intervals.Score]


def scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    """Every metric, from sums [R, ...]."""
    found: Scores = {}
    for part in (_class_scores, _speaker_scores, _attribute_scores, _distribution_scores, _semantic_scores):
        found |= part(sums, statistics, settings)
    return found


def main_sums(statistics: Statistics) -> resampling.Sums:
    """The statistics that `main_scores` reads."""
    wanted = ("right", "predicted", *OF_GROUP)
    return {
        name: values
        for name, values in statistics.sums.items()
        if name in wanted or name.startswith(("attribute ", "class "))
    }


def main_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    """The metrics by which systems are compared: UAR and F1, the highest paUAR-T of all speakers, mean CCCs."""
    found: Scores = {}
    for part in (_class_scores, _speaker_scores, _attribute_scores):
        found |= part(sums, statistics, settings)
    mean = metric("class_ccc_mean")
    found[mean] = _class_ccc_scores(sums, statistics, settings)[mean]
    return {one: found[one] for one in main_metrics(settings, found)}


def main_metrics(settings: Settings, available: Iterable[Metric]) -> list[Metric]:
    """The metrics by which systems are compared, those of them that are available."""
    wanted = [
        *(metric("uar", n) for n in settings.nbest),
        metric("macro_f1", classes=settings.f1_classes),
        metric("weighted_f1"),
        metric("class_ccc_mean"),
        metric("ccc_mean"),
        *(metric("pa_uar", n, threshold=max(settings.thresholds, default=0), speakers="all") for n in settings.nbest),
    ]
    available = set(available)
    return [one for one in wanted if one in available]


def point(statistics: Statistics, settings: Settings, part: Callable[..., Scores] = scores) -> Scores:
    """Every metric on all units, R = 1."""
    return part(
        {name: values.sum(axis=0, keepdims=True) for name, values in statistics.sums.items()}, statistics, settings
    )


def _class_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    right = sums["right"]
    support = sums["support"][:, None, None]
    found = class_scores(right, support, sums["predicted"], settings.f1_classes)
    is_defined, num_rows = found.is_defined[:, 0, 0], found.num_rows[:, 0, 0]
    num_classes = found.num_classes[:, 0, 0]
    num_averaged = num_classes if settings.f1_classes == "present" else np.full_like(num_classes, right.shape[-1])
    made: Scores = {}
    for i, n in enumerate(settings.nbest):
        chance = n / len(settings.class_names)
        made[metric("uar", n)] = intervals.Score(found.uar[..., i], is_defined, num_classes, chance)
        made[metric("macro_f1", n, classes=settings.f1_classes)] = intervals.Score(
            found.macro_f1[..., i], is_defined, num_averaged
        )
        made[metric("micro_f1", n)] = intervals.Score(found.micro_f1[..., i], is_defined, num_rows)
        if n == 1:
            made[metric("weighted_f1")] = intervals.Score(found.weighted_f1[..., i], is_defined, num_rows)
            made[metric("accuracy")] = intervals.Score(found.accuracy[..., i], is_defined, num_rows)
            for c, name in enumerate(settings.class_names):
                has_class = found.has_class[:, 0, 0, c]
                for score in ("recall", "precision", "f1"):
                    made[metric(score, label=name)] = intervals.Score(
                        getattr(found, score)[:, :, i, c], has_class, support[:, 0, 0, c]
                    )
    return made


def _speaker_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    made: Scores = {}
    for f, name in enumerate(distributions.SPEAKER_FILTERS):
        num_speakers = sums["eligible"][:, f]
        share = 100 * sums["passing"][:, :, f] / np.maximum(num_speakers, 1)[:, None, None, None]
        for t, threshold in enumerate(settings.thresholds):
            for i, n in enumerate(settings.nbest):
                made[metric("pa_uar", n, threshold=threshold, speakers=name)] = intervals.Score(
                    share[:, :, i, t], num_speakers > 0, num_speakers, float(statistics.chance[f, i, t]), is_share=True
                )
    return made


def _attribute_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    found = intervals.moments_of_sums(sums, "attribute ", statistics.shifts["attribute "]).compute()
    has_rating = statistics.sums["attribute num_rows"].any(axis=(0, 1))
    # Targets, and so what is defined, are the same for all members.
    is_defined, num_rows = found.is_defined[:, 0], found.num_rows[:, 0]
    made: Scores = {}
    for kind, values, has_value in (
        ("ccc", found.ccc, is_defined), ("pearson", found.pearson, is_defined),
        ("rmse", found.rmse, num_rows > 0), ("mae", found.mae, num_rows > 0),
    ):  # fmt: skip
        for i, name in enumerate(settings.attribute_names):
            if has_rating[i]:
                made[metric(kind, attribute=name)] = intervals.Score(values[..., i], has_value[:, i], num_rows[:, i])
        if kind == "ccc" and made:
            num_defined = is_defined.sum(axis=1)
            mean = values.sum(axis=-1) / np.maximum(num_defined, 1)[:, None]
            made[metric("ccc_mean")] = intervals.Score(mean, num_defined > 0, num_defined)
    return made


def _class_ccc_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    found = intervals.moments_of_sums(sums, "class ", statistics.shifts["class "]).compute()
    is_defined = found.is_defined[:, 0]
    num_defined = is_defined.sum(axis=1)
    mean = found.ccc.sum(axis=-1) / np.maximum(num_defined, 1)[:, None]
    made = {metric("class_ccc_mean"): intervals.Score(mean, num_defined > 0, num_defined)}
    for c, name in enumerate(settings.class_names):
        made[metric("class_ccc", label=name)] = intervals.Score(
            found.ccc[..., c], is_defined[:, c], found.num_rows[:, 0, c]
        )
    return made


def _distribution_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    made = _class_ccc_scores(sums, statistics, settings)
    rows = {name: sums[f"distribution {name}"] for name in _ROW_SCORES}
    num_rows = rows["num_rows"][:, 0]
    has_rows, count = num_rows > 0, np.maximum(rows["num_rows"], 1)
    for name in ("jsd", "kl", "total_variation"):
        made[metric(name)] = intervals.Score(rows[name] / count, has_rows, num_rows)
    entropy = intervals.moments_of_sums(sums, "entropy ", statistics.shifts["entropy "]).compute()
    made[metric("entropy_correlation")] = intervals.Score(entropy.pearson, entropy.is_defined[:, 0], num_rows)
    label = class_scores(rows["num_true"], rows["num_present"], rows["num_predicted"], f1_classes="all")
    num_classes = len(settings.class_names)
    made[metric("multi_label_f1", num_classes=num_classes)] = intervals.Score(
        label.macro_f1, has_rows, np.full_like(num_rows, num_classes)
    )
    return made


def _semantic_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    """Named by what the distance was read from; absent where the corpus does not say how far classes are apart."""
    ground, made = settings.ground, {}
    if ground is None:
        return made
    num_rows = sums["support"].sum(axis=-1)
    share = statistics.sums["support"].sum(axis=0) / max(statistics.sums["support"].sum(), 1)
    guess = float(share @ ground.distance.mean(axis=1))
    cost = sums["cost"] / np.maximum(num_rows, 1)[:, None]
    made[metric("expected_cost", source=ground.source)] = intervals.Score(cost, num_rows > 0, num_rows, guess)
    if ground.groups:
        number = max(ground.groups) + 1
        support = sums["support"] @ (np.asarray(ground.groups)[:, None] == np.arange(number))
        right = sums["merged right"]
        found = class_scores(right, support[:, None], support[:, None])
        made[metric("merged_uar", num_groups=number)] = intervals.Score(
            found.uar, found.is_defined[:, 0], found.num_classes[:, 0], 1 / number
        )
    return made


def states_of(statistics: Statistics, settings: Settings) -> dict[str, Any]:
    """The sums behind the metrics, for a record: JSON only."""
    whole = {name: values.sum(axis=0) for name, values in statistics.sums.items()}
    moments = intervals.moments_of_sums(whole, "attribute ", statistics.shifts["attribute "])
    leaves = zip(moments._fields, np.broadcast_arrays(*moments), strict=True)
    one_best = settings.nbest.index(1)
    states = {
        "class_names": list(settings.class_names),
        "confusion": statistics.confusion[:, one_best].sum(axis=0).tolist(),
        "confusion_members": statistics.confusion[:, one_best].tolist(),
        "confusion_nbest": {str(n): statistics.confusion[:, i].sum(axis=0).tolist()
                            for i, n in enumerate(settings.nbest)},
        "attribute_names": list(settings.attribute_names),
        "moments": {name: leaf.tolist() for name, leaf in leaves},
    }  # fmt: skip
    if settings.ground:
        states["class_distance"] = {"source": settings.ground.source, "matrix": settings.ground.distance.tolist()}
        states["class_groups"] = list(settings.groups_of_classes)
    return states

"""Predictions and targets -> result records: every metric with its members, interval, count and chance.

The value of a metric is its mean over the members of a system, which differ only in seed; so is its value in every
resample. All members, systems and groups see the same resampled speakers, so that differences are paired.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.targets import Targets
from seremo_jax.evaluation import group_gaps, speakers
from seremo_jax.evaluation import system_scores as of_system
from seremo_jax.evaluation.alignment import Aligned, align
from seremo_jax.evaluation.differences import Compared, differences
from seremo_jax.evaluation.states import Settings, States, member_states
from seremo_jax.evaluation.system_scores import Statistics
from seremo_jax.metrics import class_distances, intervals, resampling
from seremo_jax.metrics.catalogue import Metric, entries_by_name

GAP_GROUP = "gap:female-male"

_PADDED_CELLS = 64
"""States are made for a multiple of so many cells, so that splits of about the same size compile once."""


@dataclasses.dataclass(frozen=True)
class _Draw:
    """How often what is drawn again."""

    num_resamples: int
    num_permutations: int
    seed: int


@dataclasses.dataclass(frozen=True)
class _Scored:
    """A system's numbers by group: states, scores, their means in every resample, and units behind them.

    The statistics are kept over all speakers only: they are large.
    """

    whole: Statistics
    states: dict[str, dict[str, Any]]
    points: dict[str, of_system.Scores]
    resampled: dict[str, dict[Metric, np.ndarray]]
    num_units: dict[str, int]


def score(
    predictions: Predictions,
    targets: Targets,
    utterances: pa.Table,
    *,
    systems: Sequence[tuple[list[int], dict[str, Any]]],
    split: str,
    condition: str = vocab.CLEAN,
    nbest: tuple[int, ...] = (1, 2, 3),
    pa_uar_thresholds: tuple[int, ...] = (50, 75),
    f1_classes: str = "present",
    group_by: str = "gender",
    num_resamples: int = 1_000,
    num_permutations: int = 1_000,
    seed: int = 0,
    protocol: Mapping[str, Any],
    states: Callable[..., States] = member_states,
) -> list[ResultRecord]:
    """Scores the predictions of one split in one condition.

    Args:
      predictions: Of every utterance of the split, in any order.
      targets: Of the split or of more; rows are found by id, and all of them say how far classes are apart.
      utterances: Utterance table of the split or of more.
      systems: Of each system its members, as rows of the predictions, and what its records say of it: `system`,
        `layer`, `seeds`, `axes` (see `core.members.systems`).
      split: Name of the split.
      condition: Acoustic condition of the predictions.
      nbest: The N of N-best; 1 must be among them.
      pa_uar_thresholds: The T of paUAR-T, in percent.
      f1_classes: Macro-F1 over the classes `present`, or `all`.
      group_by: Column of the utterance table whose values are scored apart, too; empty for none.
      num_resamples: Bootstrap resamples of speakers.
      num_permutations: Exchanges of two systems' predictions, speaker by speaker; 0 for no tests.
      seed: Of all draws.
      protocol: Goes into every record.
      states: `member_states` or its compiled form, which saves seconds:
        `jax.jit(member_states, static_argnames=("num_units", "nbest"))`.

    Returns:
      For each system a record of the group `all`, one of each value of `group_by`, for genders one of their gap
      (`GAP_GROUP`), and one each of the worst group, the gap and the ratio between best and worst (`worst:gender` ...).
      Attributes that nobody rated are absent from the metrics; what is not defined is None.

    Raises:
      AlignmentError: See `alignment.align`.
      ValueError: `nbest` lacks 1.
    """
    if 1 not in nbest:
        raise ValueError(f"nbest = {nbest}: 1 must be among them")
    num_members = sum(len(rows) for rows, _ in systems)
    aligned = align(predictions, targets, utterances, num_members=num_members, split=split, group_by=group_by)
    settings = Settings(
        aligned.class_names, aligned.attribute_names, tuple(nbest), tuple(pa_uar_thresholds), f1_classes,
        _ground(targets),
    )  # fmt: skip
    draw = _Draw(num_resamples, num_permutations, seed)
    chances = _chances(aligned, settings, seed)
    shared = {"split": split, "condition": condition, "protocol": dict(protocol)}
    records, of_systems = [], {}
    for rows, named in systems:
        scored = _score_system(aligned, rows, settings, draw, chances, states)
        records += _records(aligned, scored, settings, draw, chances, shared | named, group_by)
        of_systems[named["system"]] = scored
    if num_permutations:
        _add_differences(records, of_systems, settings, draw)
    return records


def _ground(targets: Targets) -> class_distances.Ground | None:
    return class_distances.ground_of(targets.votes, targets.consensus_index, targets.attributes, targets.has_attribute)


@dataclasses.dataclass(frozen=True)
class _Chances:
    """What a random guesser scores: of each unit at every T of the curve, of each group at the T of the metrics."""

    of_unit: np.ndarray  # [U, N, curve]
    of_unit_thresholds: np.ndarray  # [U, N, T]
    of_group: dict[str, np.ndarray]  # [filters, N, T]


def _chances(aligned: Aligned, settings: Settings, seed: int) -> _Chances:
    """Simulated once where every speaker is in one group only, else for each group."""
    wanted = (*speakers.CURVE, *settings.thresholds)

    def of(is_in: np.ndarray, thresholds: tuple[int, ...]) -> np.ndarray:
        support = aligned.support(is_in) * aligned.is_known[:, None]
        return intervals.chance_passing(support, settings.nbest, thresholds, seed)

    whole = of(aligned.groups["all"], wanted)
    of_unit, of_thresholds = np.split(whole, [len(speakers.CURVE)], axis=2)
    _, unit, _ = aligned.cells()
    is_nested = len(unit) == len(aligned.speakers)
    of_group = {}
    for group, is_in in aligned.groups.items():
        chance = of_thresholds if is_nested or group == "all" else of(is_in, settings.thresholds)
        eligible = aligned.eligible(is_in)
        number = np.maximum(eligible.sum(axis=0), 1)
        of_group[group] = 100 * np.einsum("uf,unt->fnt", eligible, chance) / number[:, None, None]
    return _Chances(of_unit, of_thresholds, of_group)


def _statistics(
    aligned: Aligned,
    rows: list[int],
    settings: Settings,
    of_group: Mapping[str, np.ndarray],
    states: Callable[..., States],
) -> Iterator[tuple[str, Statistics]]:
    """Yields the groups and their sums of each unit, [U, E, ...], `all` first."""
    cell, unit_of_cell, group_of_cell = aligned.cells()
    padded = -(-len(unit_of_cell) // _PADDED_CELLS) * _PADDED_CELLS
    of_members = (
        states(
            aligned.predictions_attributes[row], aligned.predictions_distribution[row], cell,
            aligned.attributes, aligned.has_attribute, aligned.distribution, aligned.has_votes, aligned.consensus,
            num_units=padded, nbest=settings.nbest,
        )
        for row in rows
    )  # fmt: skip
    cells = of_system.cell_sums(of_members, len(rows), group_of_cell, len(aligned.groups), settings)
    for number, (group, is_in) in enumerate(aligned.groups.items()):
        is_all = group == "all"
        yield (
            group,
            of_system.unit_statistics(
                cells,
                unit_of_cell,
                np.ones(len(unit_of_cell), bool) if is_all else group_of_cell == number,
                range(len(aligned.groups)) if is_all else [number],
                aligned.support(is_in),
                aligned.eligible(is_in),
                of_group[group],
                settings,
            ),
        )


def _score_system(
    aligned: Aligned,
    rows: list[int],
    settings: Settings,
    draw: _Draw,
    chances: _Chances,
    states: Callable[..., States],
) -> _Scored:
    made, drawn = None, {}
    names = tuple(group for group in aligned.groups if group != "all")
    for group, statistics in _statistics(aligned, rows, settings, chances.of_group, states):
        made = made or _Scored(statistics, {}, {}, {}, {})
        made.states[group] = of_system.states_of(statistics, settings)

        def means(sums: resampling.Sums, weights: np.ndarray, statistics: Statistics = statistics) -> dict:
            return {name: one.means(weights) for name, one in of_system.scores(sums, statistics, settings).items()}

        made.points[group] = of_system.point(statistics, settings)
        made.num_units[group] = int(resampling.used_units(statistics.sums).sum())
        # What the other groups add up to need not be drawn again.
        parts = names if group == "all" else ()
        own = {name: statistics.sums[name] for name in (of_system.OF_GROUP if parts else statistics.sums)}
        drawn[group] = resampling.Group(own, means, statistics.units, parts)
    made.resampled.update(
        resampling.bootstrap_groups(drawn, len(aligned.speakers), draw.num_resamples, draw.seed, len(rows))
    )
    return made


def _records(
    aligned: Aligned,
    scored: _Scored,
    settings: Settings,
    draw: _Draw,
    chances: _Chances,
    common: Mapping[str, Any],
    group_by: str,
) -> list[ResultRecord]:
    records = []
    for group, states in scored.states.items():
        entries = {}
        for name, one in scored.points[group].items():
            entries[name] = intervals.entry(one, scored.resampled[group][name], scored.num_units[group])
        records.append(ResultRecord(
            **common, **aligned.numbers(aligned.groups[group]), group=group, metrics=entries_by_name(entries),
            states=states | (_speaker_states(aligned, scored.whole, settings, draw, chances) if group == "all" else {}),
            speakers=_speakers(aligned, scored.whole) if group == "all" else [],
        ))  # fmt: skip
    empty = {"states": {}, "speakers": []}
    if group_by == "gender" and {"female", "male"} <= scored.points.keys():
        sizes = aligned.numbers(aligned.groups["female"] | aligned.groups["male"])
        number = scored.num_units["female"] + scored.num_units["male"]
        gaps = {}
        for name in (name for name in scored.points["female"] if name in scored.points["male"]):
            sides = scored.points["female"][name], scored.points["male"][name]
            difference = scored.resampled["female"][name] - scored.resampled["male"][name]
            gaps[name] = intervals.gap_entry(*sides, difference, ("female", "male"), number)
        records.append(
            ResultRecord(
                **common,
                **sizes,
                group=GAP_GROUP,
                metrics=entries_by_name(gaps),
                comparison={"kind": "gap", "column": group_by, "groups": ["female", "male"]},
                **empty,
            )
        )
    pairs = group_gaps.worst_best(scored.points, scored.resampled, scored.num_units)
    known = [is_in for group, is_in in aligned.groups.items() if group not in ("all", vocab.UNKNOWN)]
    for kind, entries in pairs.items():
        if kind != "gap" or group_by != "gender":  # the gap of genders has a sign
            sizes = aligned.numbers(np.any(known, axis=0))
            records.append(
                ResultRecord(
                    **common,
                    **sizes,
                    group=f"{kind}:{group_by}",
                    metrics=entries_by_name(entries),
                    comparison={"kind": kind, "column": group_by},
                    **empty,
                )
            )
    return records


def _speakers(aligned: Aligned, statistics: Statistics) -> list[dict[str, Any]]:
    moments = intervals.moments_of_sums(statistics.sums, "attribute ", statistics.shifts["attribute "])
    return speakers.entries(aligned.speakers, aligned.genders, statistics.sums["support"], statistics.uar, moments)


def _speaker_states(
    aligned: Aligned, statistics: Statistics, settings: Settings, draw: _Draw, chances: _Chances
) -> dict[str, Any]:
    one_best = settings.nbest.index(1)
    support = statistics.sums["support"] * aligned.is_known[:, None]
    return {
        "pa_uar_curve": speakers.curve(
            statistics.uar, statistics.sums["eligible"], chances.of_unit, settings.nbest, draw.num_resamples, draw.seed
        ),
        "speaker_sizes": speakers.sizes(
            support, statistics.uar, chances.of_unit_thresholds, settings.thresholds, settings.nbest
        ),
        "speaker_dependence": speakers.dependence(
            support, statistics.sums["right"][:, :, one_best], statistics.uar[:, :, one_best]
        ),
    }


def _add_differences(
    records: Sequence[ResultRecord], systems: Mapping[str, _Scored], settings: Settings, draw: _Draw
) -> None:
    """Of the main metrics, over all speakers."""
    compared = {}
    for system, scored in systems.items():
        statistics = scored.whole

        def means(sums: resampling.Sums, statistics: Statistics = statistics) -> dict[Metric, np.ndarray]:
            scores = of_system.main_scores(sums, statistics, settings)
            return {name: np.where(one.is_defined, one.values.mean(axis=1), np.nan) for name, one in scores.items()}

        names = of_system.main_metrics(settings, scored.points["all"])
        compared[system] = Compared(
            of_system.main_sums(statistics),
            means,
            {name: scored.points["all"][name] for name in names},
            scored.resampled["all"],
            scored.num_units["all"],
        )
    found = differences(compared, draw.num_permutations, draw.seed)
    for record in records:
        if record.group == "all":
            record.states["differences"] = found[record.system]

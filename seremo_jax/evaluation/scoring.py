"""Aligned predictions -> result records: every metric with its members, interval, count and chance.

The value of a metric is its mean over the members of a system, which differ only in seed; so is its value in every
resample. All members, systems and groups see the same resampled speakers, so that differences are paired.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from seremo_jax.core import vocab
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.core.schema import ResultRecord, System
from seremo_jax.evaluation import group_gaps, served, speakers, strata, system_scores, system_sums
from seremo_jax.evaluation.alignment import Aligned, Cells
from seremo_jax.evaluation.differences import Compared, default_pairs, differences
from seremo_jax.evaluation.raters import GAP_GROUP, Raters
from seremo_jax.evaluation.states import RowTargets, Settings, States, member_states
from seremo_jax.evaluation.system_sums import GroupTargets, Statistics
from seremo_jax.metrics import intervals, resampling
from seremo_jax.metrics.catalogue import Metric, entries_by_name
from seremo_jax.metrics.catalogue import compared as compared_metrics
from seremo_jax.metrics.passing import chance_passing

_PADDED_CELLS = 64
"""States are made for a multiple of so many cells, so that splits of about the same size compile once."""


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """What to score, how, and what every record carries.

    Attributes:
      systems: Of each system its members, as rows of the predictions, and what its records say of it: `system`,
        `layer`, `seeds`, `axes` (see `core.ensemble.systems`).
      split: Name of the split.
      section: N of N-best (1 among them), thresholds, classes of macro-F1, grouping column, resamples of speakers,
        exchanges of systems (0 for no tests) and the seed of all draws.
      protocol: The protocol card.
      condition: Acoustic condition of the predictions.
      adapted: System -> the system that it is an adaptation of, which it is compared with and with no other.
    """

    systems: Sequence[System]
    split: str
    section: EvalConfig
    protocol: Mapping[str, Any]
    condition: str = vocab.CLEAN
    adapted: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Split:
    """What all systems of a split share.

    Attributes:
      aligned: Predictions, targets and groups.
      cells: Its cells.
      settings: Names, thresholds and distances.
      section: How often what is drawn again.
      chance_curve: [U, N, curve] how likely each unit passes each T of the curve by guessing.
      chance: [U, N, T] how likely each unit passes each T of the metrics by guessing.
      groups: Group -> what is known of it before any prediction, `all` first.
      raters: What human raters score on the same utterances.
      strata: [B, kinds] strata of each utterance.
    """

    aligned: Aligned
    cells: Cells
    settings: Settings
    section: EvalConfig
    chance_curve: np.ndarray
    chance: np.ndarray
    groups: dict[str, GroupTargets]
    raters: Raters
    strata: np.ndarray

    @classmethod
    def of(cls, aligned: Aligned, section: EvalConfig, condition: str) -> "_Split":
        """Guessers are simulated once where every speaker is in one group only, else for each group."""
        settings = Settings(
            class_names=aligned.class_names,
            attribute_names=aligned.attribute_names,
            nbest=tuple(section.nbest),
            thresholds=tuple(section.pa_uar_thresholds),
            f1_classes=section.f1_classes,
            ground=aligned.ground,
        )

        def unit_chance(is_in: Bool[np.ndarray, " B"], thresholds: tuple[int, ...]) -> Float[np.ndarray, "U N T"]:
            support = aligned.support(is_in) * aligned.is_known[:, None]
            return chance_passing(support, settings.nbest, thresholds, section.seed)

        # The curve and the metrics ask for different T of the same guessers, so both are simulated at once.
        cells = aligned.cells()
        whole = unit_chance(aligned.groups["all"], (*speakers.CURVE, *settings.thresholds))
        chance_curve, chance = np.split(whole, [len(speakers.CURVE)], axis=2)
        # As many cells as units: no speaker is in two groups, and a speaker's chance is the same in each.
        is_nested = len(cells.unit) == len(aligned.speakers)
        groups = {}
        for group, is_in in aligned.groups.items():
            eligible = aligned.eligible(is_in)
            own = chance if is_nested or group == "all" else unit_chance(is_in, settings.thresholds)
            share = 100 * np.einsum("uf,unt->fnt", eligible, own) / np.maximum(eligible.sum(axis=0), 1)[:, None, None]
            groups[group] = GroupTargets(aligned.support(is_in), eligible, share)
        raters = Raters.of(aligned, cells, groups, settings, section, condition)
        settings = dataclasses.replace(settings, num_others=raters.num_others)
        return cls(aligned, cells, settings, section, chance_curve, chance, groups, raters, strata.strata_of(aligned))


@dataclasses.dataclass(frozen=True)
class _Scored:
    """A system's numbers by group: states, scores, their means in every resample, and units behind them.

    The statistics are kept over all speakers only: they are large.
    """

    whole: Statistics
    states: dict[str, dict[str, Any]]
    points: dict[str, system_scores.Scores]
    resampled: dict[str, dict[Metric, np.ndarray]]
    num_units: dict[str, int]


def score(aligned: Aligned, request: ScoreRequest, states: Callable[..., States] = member_states) -> list[ResultRecord]:
    """Scores the predictions of one split in one condition.

    Args:
      aligned: Predictions and targets, grouped by `request.section.group_by`.
      request: What to score.
      states: `member_states` or its compiled form, which saves seconds:
        `jax.jit(member_states, static_argnames=("num_cells", "nbest"))`.

    Returns:
      For each system a record of the group `all`, one of each value of the grouping column, for genders one of their
      gap (`GAP_GROUP`), and one each of the worst group, the gap and the ratio between best and worst (`worst:gender`
      ...). Attributes that nobody rated are absent from the metrics; what is not defined is None.

    Raises:
      ValueError: `nbest` lacks 1.
    """
    if 1 not in request.section.nbest:
        raise ValueError(f"nbest = {request.section.nbest}: 1 must be among them")
    split = _Split.of(aligned, request.section, request.condition)
    shared = {"split": request.split, "condition": request.condition, "protocol": dict(request.protocol)}
    # Systems are scored one after the other with the same seed, so all of them see the same resampled speakers.
    records, by_system = [], {}
    for rows, about in request.systems:
        scored = _score_system(split, rows, states)
        records += _group_records(split, scored, shared | about)
        records += _comparison_records(split, scored, shared | about)
        by_system[about["system"]] = scored
    if request.section.num_permutations:
        _add_differences(split, records, by_system, request.adapted)
    # Raters are the same for all systems, so only the records of the first one say what they score.
    for record in records:
        if record.system == records[0].system and record.group in split.raters.states:
            record.states["raters"] = split.raters.states[record.group]
    return records


def _statistics(split: _Split, rows: Sequence[int], states: Callable[..., States]) -> Iterator[tuple[str, Statistics]]:
    """Yields the groups and their sums of each unit, `all` first."""
    aligned, cells, settings = split.aligned, split.cells, split.settings
    targets = RowTargets(
        cells.cell, aligned.consensus, aligned.distribution, aligned.has_votes, aligned.attributes,
        aligned.has_attribute, split.raters.panel, split.strata, aligned.is_offered,
    )  # fmt: skip
    num_cells = -(-len(cells.unit) // _PADDED_CELLS) * _PADDED_CELLS
    # A generator: states of one member at a time are on the device and in memory.
    by_member = (
        states(
            aligned.predictions_attributes[row], aligned.predictions_distribution[row], targets, num_cells=num_cells,
            nbest=settings.nbest,
        )
        for row in rows
    )  # fmt: skip
    sums = system_sums.cell_sums(by_member, len(rows), cells, settings)
    sums.sums.update(split.raters.sums | {strata.SUPPORT: strata.support_sums(aligned, cells, split.strata)})
    for group, group_targets in split.groups.items():
        statistics = system_sums.unit_statistics(sums, cells, group, group_targets, settings)
        yield group, served.with_sums(statistics, settings, split.section.seed) if group == "all" else statistics


def _score_system(split: _Split, rows: Sequence[int], states: Callable[..., States]) -> _Scored:
    settings, section = split.settings, split.section
    scored: _Scored | None = None
    drawn: dict[str, resampling.Group] = {}
    for group, statistics in _statistics(split, rows, states):
        # `all` comes first, so these are the statistics over all speakers, which the differences of systems need.
        scored = scored or _Scored(statistics, {}, {}, {}, {})
        scored.states[group] = system_scores.record_states(statistics, settings)

        # The bootstrap calls this with the sums of many resamples at once. `weights` draws members, too: the interval
        # is that of speakers and of seeds.
        def means(
            sums: resampling.Sums, weights: Float[np.ndarray, "R E"], statistics: Statistics = statistics
        ) -> dict[Metric, Float[np.ndarray, "R 2"]]:
            scores = system_scores.scores(sums, statistics, settings)
            return {key: value.means(weights) for key, value in scores.items()}

        scored.points[group] = system_scores.point(statistics, settings)
        scored.num_units[group] = int(resampling.used_units(statistics.sums).sum())
        own, parts, summed = statistics.sums, (), ()
        if group == "all" and len(split.groups) > 1:
            # Every utterance is in exactly one other group, so most sums over all are those of the groups added up.
            parts = tuple(name for name in split.groups if name != "all")
            own = {name: statistics.sums[name] for name in system_sums.WHOLE_SUMS if name in statistics.sums}
            summed = tuple(name for name in statistics.sums if name not in own)
        drawn[group] = resampling.Group(own, means, statistics.units, parts, summed)
    # One draw serves all groups. A gap between groups is thus taken within a resample, and its interval is paired.
    scored.resampled.update(
        resampling.bootstrap_groups(drawn, len(split.aligned.speakers), section.num_resamples, section.seed, len(rows))
    )
    return scored


def _group_records(split: _Split, scored: _Scored, common: Mapping[str, Any]) -> list[ResultRecord]:
    """A record of each group, `all` first, which has the speakers, too."""
    aligned, records = split.aligned, []
    for group, states in scored.states.items():
        entries = {
            key: intervals.entry(value, scored.resampled[group][key], scored.num_units[group])
            for key, value in scored.points[group].items()
        }
        is_all = group == "all"
        record = ResultRecord(
            **common,
            **aligned.numbers(aligned.groups[group]),
            group=group,
            metrics=entries_by_name(entries),
            states=states | (_speaker_states(split, scored.whole) if is_all else {}),
            speakers=_speakers(aligned, scored.whole) if is_all else [],
        )
        records.append(record)
    return records


def _comparison_records(split: _Split, scored: _Scored, common: Mapping[str, Any]) -> list[ResultRecord]:
    """Records of groups side by side: of genders their gap, of any groups the worst one, gap and ratio."""
    aligned, column = split.aligned, split.section.group_by

    def record(
        group: str, kind: str, is_in: Bool[np.ndarray, " B"], entries: Mapping[Metric, dict[str, Any]], **sides: Any
    ) -> ResultRecord:
        return ResultRecord(
            **common,
            **aligned.numbers(is_in),
            group=group,
            metrics=entries_by_name(entries),
            states={},
            speakers=[],
            comparison={"kind": kind, "column": column, **sides},
        )

    records = []
    if column == "gender" and {"female", "male"} <= scored.points.keys():
        is_in = aligned.groups["female"] | aligned.groups["male"]
        gaps = group_gaps.gender_gap(scored.points, scored.resampled, scored.num_units)
        records.append(record(GAP_GROUP, "gap", is_in, gaps, groups=["female", "male"]))
    known = [is_in for group, is_in in aligned.groups.items() if group not in ("all", vocab.UNKNOWN)]
    for kind, entries in group_gaps.worst_best(scored.points, scored.resampled, scored.num_units).items():
        if kind != "gap" or column != "gender":  # the gap of genders stands above, with a sign
            records.append(record(f"{kind}:{column}", kind, np.any(known, axis=0), entries))
    return records


def _speakers(aligned: Aligned, statistics: Statistics) -> list[dict[str, Any]]:
    shift = statistics.shifts[system_sums.ATTRIBUTES]
    moments = intervals.moments_of_sums(statistics.sums, system_sums.ATTRIBUTES, shift)
    return speakers.entries(aligned.speakers, aligned.genders, statistics.sums["support"], statistics.uar, moments)


def _speaker_states(split: _Split, statistics: Statistics) -> dict[str, Any]:
    settings, section = split.settings, split.section
    one_best = settings.nbest.index(1)
    support = statistics.sums["support"] * split.aligned.is_known[:, None]
    return {
        "pa_uar_curve": speakers.curve(
            statistics.uar,
            statistics.sums["eligible"],
            split.chance_curve,
            settings.nbest,
            section.num_resamples,
            section.seed,
        ),
        "speaker_sizes": speakers.sizes(support, statistics.uar, split.chance, settings.thresholds, settings.nbest),
        "speaker_dependence": speakers.dependence(
            support, statistics.sums["right"][:, :, one_best], statistics.uar[:, :, one_best]
        ),
    }


def paired_differences(
    aligned: Aligned, request: ScoreRequest, pairs: Sequence[tuple[str, str]],
    states: Callable[..., States] = member_states,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Differences of pairs of systems over all speakers, without their records.

    Args:
      aligned: Predictions and targets of all systems.
      request: The systems, and how often what is drawn again.
      pairs: (before, after) names of systems; values are those of `after` minus those of `before`.
      states: See `score`.

    Returns:
      See `differences.differences`.
    """
    split = _Split.of(aligned, request.section, request.condition)
    split = dataclasses.replace(split, groups={"all": split.groups["all"]})
    by_system = {about["system"]: _score_system(split, rows, states) for rows, about in request.systems}
    return _differences(split, by_system, pairs)


def _add_differences(
    split: _Split, records: Sequence[ResultRecord], by_system: Mapping[str, _Scored], adapted: Mapping[str, str]
) -> None:
    """Of the metrics by which systems are compared, over all speakers."""
    pairs = default_pairs([system for system in by_system if system not in adapted])
    pairs += [(before, after) for after, before in adapted.items()]
    rows_of, gaps_of = _differences(split, by_system, pairs), group_gaps.gap_changes(by_system, pairs)
    for record in records:
        if record.group == "all":
            record.states.update(differences=rows_of[record.system], gap_changes=gaps_of[record.system])


def _differences(
    split: _Split, by_system: Mapping[str, _Scored], pairs: Sequence[tuple[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    settings, section = split.settings, split.section
    by_name = {}
    for system, scored in by_system.items():
        statistics = scored.whole

        def means(sums: resampling.Sums, statistics: Statistics = statistics) -> dict[Metric, np.ndarray]:
            scores = system_scores.main_scores(sums, statistics, settings)
            return {key: np.where(value.is_defined, value.values.mean(axis=1), np.nan) for key, value in scores.items()}

        points = scored.points["all"]
        by_name[system] = Compared(
            sums=system_sums.main_sums(statistics),
            means=means,
            points={key: points[key] for key in compared_metrics(points)},
            resampled=scored.resampled["all"],
            num_units=scored.num_units["all"],
        )
    return differences(by_name, section.num_permutations, section.seed, pairs)

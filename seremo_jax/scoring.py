"""Predictions and targets -> result records: every metric with its members, interval, count and chance.

The value of a metric is its mean over the members of a system, which differ only in seed; so is its value in every
resample. All members, systems and groups see the same resampled speakers, so that differences are paired.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from seremo_jax import intervals, metrics, vocab
from seremo_jax.alignment import Aligned, align
from seremo_jax.moments import AnyArray
from seremo_jax.schema import Predictions, ResultRecord
from seremo_jax.targets import Targets

GAP_GROUP = "gap:female-male"

States = tuple[metrics.NBest, metrics.Moments, metrics.Distribution]


def member_states(
    predicted_attributes: Float[AnyArray, "B A"],
    predicted_distribution: Float[AnyArray, "B C"],
    unit: Int[AnyArray, " B"],
    attributes: Float[AnyArray, "B A"],
    has_attribute: Bool[AnyArray, "B A"],
    distribution: Float[AnyArray, "B C"],
    has_votes: Bool[AnyArray, " B"],
    consensus: Int[AnyArray, " B"],
    *,
    num_units: int,
    nbest: tuple[int, ...],
) -> States:
    """Metric states [U, ...] of one member. Pure JAX: `evaluate` compiles it, the last two arguments static."""
    num_attributes, num_classes = attributes.shape[1], distribution.shape[1]
    return (
        metrics.NBest.empty(num_units, len(nbest), num_classes).update(unit, predicted_distribution, consensus, nbest),
        metrics.Moments.empty(num_units, num_attributes).update(unit, predicted_attributes, attributes, has_attribute),
        metrics.Distribution.empty(num_units, num_classes).update(
            unit, predicted_distribution, distribution, has_votes
        ),
    )


@dataclasses.dataclass(frozen=True)
class _Settings:
    nbest: tuple[int, ...]
    thresholds: tuple[int, ...]
    f1_classes: str
    num_resamples: int
    seed: int
    states: Callable[..., States]


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """What the metrics of one system and group are computed from.

    Attributes:
      sums: Name -> [U, ...] sums of each unit.
      shifts: Origins of the moments among them.
      uar: [U, E, N] UAR of each unit.
      confusion: [E, C, C] 1-best confusion counts.
      chance: [filters, N, T] paUAR of a random guesser.
    """

    sums: intervals.Sums
    shifts: dict[str, np.ndarray]
    uar: np.ndarray
    confusion: np.ndarray
    chance: np.ndarray


def score(
    predictions: Predictions,
    targets: Targets,
    utterances: pa.Table,
    *,
    members: Sequence[Mapping[str, Any]],
    split: str,
    condition: str = vocab.CLEAN,
    nbest: tuple[int, ...] = (1, 2, 3),
    pa_uar_thresholds: tuple[int, ...] = (50, 75),
    f1_classes: str = "present",
    group_by: str = "gender",
    num_resamples: int = 1_000,
    seed: int = 0,
    protocol: Mapping[str, Any],
    states: Callable[..., States] = member_states,
) -> list[ResultRecord]:
    """Scores the predictions of one split in one condition.

    Args:
      predictions: Of every utterance of the split, in any order.
      targets: Of the split or of more; rows are found by id.
      utterances: Utterance table of the split or of more.
      members: {layer, seed, class_target} of each member of the predictions.
      split: Name of the split.
      condition: Acoustic condition of the predictions.
      nbest: The N of N-best; 1 must be among them.
      pa_uar_thresholds: The T of paUAR-T, in percent.
      f1_classes: Macro-F1 over the classes `present`, or `all`.
      group_by: Column of the utterance table whose values are scored apart, too; empty for none.
      num_resamples: Bootstrap resamples of speakers.
      seed: Of the bootstrap and of the random guesser.
      protocol: Goes into every record.
      states: `member_states` or its compiled form, which saves seconds:
        `jax.jit(member_states, static_argnames=("num_units", "nbest"))`.

    Returns:
      For each system a record of the group `all`, one of each value of `group_by` and, for genders, one of their gap
      (`GAP_GROUP`). Attributes that nobody rated are absent from the metrics; what is not defined is None.

    Raises:
      AlignmentError: See `alignment.align`.
      ValueError: `nbest` lacks 1.
    """
    if 1 not in nbest:
        raise ValueError(f"nbest = {nbest}: 1 must be among them")
    aligned = align(predictions, targets, utterances, members=members, split=split, group_by=group_by)
    settings = _Settings(tuple(nbest), tuple(pa_uar_thresholds), f1_classes, num_resamples, seed, states)
    chance = {group: _chance(aligned, is_in, settings) for group, is_in in aligned.groups.items()}
    shared = {"split": split, "condition": condition, "protocol": dict(protocol)}
    records = []
    for rows, named in _systems(members):
        records += _score_system(aligned, rows, settings, chance, shared | named, has_gap=group_by == "gender")
    return records


def _systems(members: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], dict[str, Any]]]:
    """Members that differ only in seeds, and what a record says of them, in order of first appearance."""
    systems: dict[tuple, list[int]] = {}
    for i, member in enumerate(members):
        same = tuple((k, v) for k, v in member.items() if k not in ("seed", "data_seed", "fold"))
        systems.setdefault(same, []).append(i)
    fields = [dict(key) for key in systems]
    told = [name for name in fields[0] if len({one[name] for one in fields}) > 1 and name != "class_target"]
    named = []
    for one, rows in zip(fields, systems.values(), strict=True):
        words = [f"{name.replace('_', ' ')} {one[name]}" for name in told]
        system = ", ".join([*words, one["class_target"]])
        seeds = tuple(members[i]["seed"] for i in rows)
        named.append((rows, {"system": system, "layer": one["layer"], "seeds": seeds}))
    return named


def _score_system(
    aligned: Aligned,
    rows: list[int],
    settings: _Settings,
    chance: Mapping[str, np.ndarray],
    common: Mapping[str, Any],
    has_gap: bool,
) -> list[ResultRecord]:
    records, points, resampled = {}, {}, {}
    for group, is_in in aligned.groups.items():
        statistics = _statistics(aligned, rows, is_in, settings, chance[group])

        def means(sums: intervals.Sums, statistics: _Statistics = statistics) -> dict[str, np.ndarray]:
            return {name: one.mean() for name, one in _scores(aligned, sums, statistics, settings).items()}

        whole = {name: values.sum(axis=0, keepdims=True) for name, values in statistics.sums.items()}
        points[group] = _scores(aligned, whole, statistics, settings)
        resampled[group] = intervals.bootstrap(statistics.sums, means, settings.num_resamples, settings.seed)
        records[group] = ResultRecord(
            **common,
            **aligned.numbers(is_in),
            group=group,
            metrics={name: intervals.entry(one, resampled[group][name]) for name, one in points[group].items()},
            states=_states(aligned, statistics),
            speakers=_speakers(aligned, statistics) if group == "all" else [],
        )
    if has_gap and {"female", "male"} <= records.keys():
        sizes = aligned.numbers(aligned.groups["female"] | aligned.groups["male"])
        gaps = {}
        for name in (name for name in points["female"] if name in points["male"]):
            difference = resampled["female"][name] - resampled["male"][name]
            sides = points["female"][name], points["male"][name]
            gaps[name] = intervals.gap_entry(*sides, difference, ("female", "male"))
        records[GAP_GROUP] = ResultRecord(**common, **sizes, group=GAP_GROUP, metrics=gaps, states={}, speakers=[])
    return list(records.values())


def _chance(aligned: Aligned, is_in: np.ndarray, settings: _Settings) -> np.ndarray:
    support = aligned.support(is_in)
    eligible = aligned.eligible(is_in).T
    return np.stack(
        [intervals.chance_pa_uar(support, one, settings.nbest, settings.thresholds, settings.seed) for one in eligible]
    )


def _statistics(
    aligned: Aligned, rows: list[int], is_in: np.ndarray, settings: _Settings, chance: np.ndarray
) -> _Statistics:
    """Sums of each unit, [U, E, ...]: one member at a time, so that memory does not grow with their number twice."""
    num_units = len(aligned.speakers)
    consensus = np.where(is_in, aligned.consensus, -1).astype(np.int32)
    has_votes, has_attribute = aligned.has_votes & is_in, aligned.has_attribute & is_in[:, None]
    parts, attributes, confusion, distributions = [], [], [], []
    for row in rows:
        nbest, moments, distribution = settings.states(
            aligned.predictions_attributes[row], aligned.predictions_distribution[row], aligned.unit,
            aligned.attributes, has_attribute, aligned.distribution, has_votes, consensus,
            num_units=num_units, nbest=settings.nbest,
        )  # fmt: skip
        counts = np.asarray(nbest.counts)
        confusion.append(counts[:, settings.nbest.index(1)].sum(axis=0))
        parts.append((np.einsum("unii->uni", counts), counts.sum(axis=2), metrics.uar_per_unit(counts)))
        attributes.append(moments)
        distributions.append(distribution)
    right, predicted, uar = (np.stack(part, axis=1) for part in zip(*parts, strict=True))
    eligible = aligned.eligible(is_in)
    is_passing = metrics.passes(uar, settings.thresholds)[:, :, None] & eligible[:, None, :, None, None]
    attribute_sums, attribute_shift = intervals.moment_sums(_stack(attributes), "attribute ")
    class_sums, class_shift = intervals.moment_sums(_stack([one.classes for one in distributions]), "class ")
    sums = {
        "right": right,
        "predicted": predicted,
        "support": aligned.support(is_in),
        "passing": is_passing,
        "eligible": eligible,
        **attribute_sums,
        **class_sums,
    }
    for name in ("num_rows", "jsd", "kl", "num_true", "num_predicted", "num_present"):
        sums[f"distribution {name}"] = np.stack([np.asarray(getattr(one, name)) for one in distributions], axis=1)
    shifts = {"attribute ": attribute_shift, "class ": class_shift}
    return _Statistics(sums, shifts, uar, np.stack(confusion), chance)


def _stack(states: Sequence[metrics.Moments]) -> metrics.Moments:
    """States [U, ...] of E members -> [U, E, ...], with NumPy leaves."""
    return metrics.Moments(
        *(np.stack([np.asarray(leaf) for leaf in leaves], axis=1) for leaves in zip(*states, strict=True))
    )


def _scores(
    aligned: Aligned, sums: intervals.Sums, statistics: _Statistics, settings: _Settings
) -> dict[str, intervals.Score]:
    """Every metric, from sums [R, ...]."""
    return (
        _class_scores(aligned, sums, settings)
        | _speaker_scores(sums, statistics, settings)
        | _attribute_scores(aligned, sums, statistics)
        | _distribution_scores(aligned, sums, statistics)
    )


def _class_scores(aligned: Aligned, sums: intervals.Sums, settings: _Settings) -> dict[str, intervals.Score]:
    right = sums["right"]
    support = np.broadcast_to(sums["support"][:, None, None], right.shape)
    found = metrics.class_scores(right, support, sums["predicted"], settings.f1_classes)
    is_defined, num_rows = found.is_defined[:, 0, 0], found.num_rows[:, 0, 0]
    num_classes = found.num_classes[:, 0, 0]
    num_averaged = num_classes if settings.f1_classes == "present" else np.full_like(num_classes, right.shape[-1])
    scores = {}
    for i, n in enumerate(settings.nbest):
        prefix = "" if n == 1 else f"{n}-best "
        chance = n / len(aligned.class_names)
        scores[f"{prefix}UAR"] = intervals.Score(found.uar[..., i], is_defined, num_classes, chance)
        scores[f"{prefix}macro-F1 ({settings.f1_classes})"] = intervals.Score(
            found.macro_f1[..., i], is_defined, num_averaged
        )
        if n == 1:
            scores["weighted-F1"] = intervals.Score(found.weighted_f1[..., i], is_defined, num_rows)
            scores["accuracy"] = intervals.Score(found.accuracy[..., i], is_defined, num_rows)
    return scores


def _speaker_scores(sums: intervals.Sums, statistics: _Statistics, settings: _Settings) -> dict[str, intervals.Score]:
    scores = {}
    for f, name in enumerate(metrics.SPEAKER_FILTERS):
        num_speakers = sums["eligible"][:, f]
        share = 100 * sums["passing"][:, :, f] / np.maximum(num_speakers, 1)[:, None, None, None]
        for t, threshold in enumerate(settings.thresholds):
            for i, n in enumerate(settings.nbest):
                scores[f"paUAR-{threshold} ({n}-best, {name})"] = intervals.Score(
                    share[:, :, i, t], num_speakers > 0, num_speakers, float(statistics.chance[f, i, t])
                )
    return scores


def _attribute_scores(aligned: Aligned, sums: intervals.Sums, statistics: _Statistics) -> dict[str, intervals.Score]:
    found = intervals.moments_of_sums(sums, "attribute ", statistics.shifts["attribute "]).compute()
    has_rating = statistics.sums["attribute num_rows"].any(axis=(0, 1))
    # Targets, and so what is defined, are the same for all members.
    is_defined, num_rows = found.is_defined[:, 0], found.num_rows[:, 0]
    scores = {
        f"CCC {name}": intervals.Score(found.ccc[..., i], is_defined[:, i], num_rows[:, i])
        for i, name in enumerate(aligned.attribute_names)
        if has_rating[i]
    }
    if scores:
        num_defined = is_defined.sum(axis=1)
        mean = found.ccc.sum(axis=-1) / np.maximum(num_defined, 1)[:, None]
        scores["CCC mean"] = intervals.Score(mean, num_defined > 0, num_defined)
    return scores


def _distribution_scores(aligned: Aligned, sums: intervals.Sums, statistics: _Statistics) -> dict[str, intervals.Score]:
    classes = intervals.moments_of_sums(sums, "class ", statistics.shifts["class "])
    names = ("num_rows", "jsd", "kl", "num_true", "num_predicted", "num_present")
    state = metrics.Distribution(classes=classes, **{name: sums[f"distribution {name}"] for name in names})
    found = state.compute()
    is_defined, num_rows, has_class = found.is_defined[:, 0], found.num_rows[:, 0], found.has_class_ccc[:, 0]
    num_classes = len(aligned.class_names)
    num_class_ccc = found.num_class_ccc[:, 0]
    scores = {"class CCC mean": intervals.Score(found.class_ccc_mean, num_class_ccc > 0, num_class_ccc)}
    for c, name in enumerate(aligned.class_names):
        scores[f"class CCC {name}"] = intervals.Score(found.class_ccc[..., c], has_class[:, c], num_rows)
    scores["JSD"] = intervals.Score(found.jsd, is_defined, num_rows)
    scores["KL"] = intervals.Score(found.kl, is_defined, num_rows)
    scores[f"multi-label macro-F1 (1/{num_classes})"] = intervals.Score(
        found.multi_label_macro_f1, is_defined, np.full_like(num_rows, num_classes)
    )
    return scores


def _states(aligned: Aligned, statistics: _Statistics) -> dict[str, Any]:
    whole = {name: values.sum(axis=0) for name, values in statistics.sums.items()}
    moments = intervals.moments_of_sums(whole, "attribute ", statistics.shifts["attribute "])
    return {
        "class_names": list(aligned.class_names),
        "confusion": statistics.confusion.sum(axis=0).tolist(),
        "confusion_members": statistics.confusion.tolist(),
        "attribute_names": list(aligned.attribute_names),
        "moments": {name: leaf.tolist() for name, leaf in moments._asdict().items()},
    }


def _speakers(aligned: Aligned, statistics: _Statistics) -> list[dict[str, Any]]:
    """Known speakers with at least one scored utterance."""
    support = statistics.sums["support"]
    return [
        {
            "speaker": aligned.speakers[u],
            "gender": aligned.genders[u],
            "num_scored": int(support[u].sum()),
            "num_classes": int((support[u] > 0).sum()),
            "uar": statistics.uar[u].mean(axis=0).tolist(),
        }
        for u in np.flatnonzero(aligned.is_known & (support.sum(axis=1) > 0))
    ]

"""What a condition does to the decisions of a system: utterance by utterance against the clean rendering, by speaker.

Both renderings are of the same utterances, so differences are paired: a resample draws the same speakers for both.
Source: METHOD.md, section 9 (OURS).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from seremo_jax.core.schema import ResultRecord
from seremo_jax.evaluation.alignment import Aligned, AlignmentError
from seremo_jax.metrics import intervals, resampling
from seremo_jax.metrics.catalogue import Metric, entries_by_name, metric
from seremo_jax.metrics.confusions import class_scores

STABLE_SHARE, UAR_CHANGE, UAR_DROP = metric("stable_share"), metric("uar_change"), metric("uar_drop")
LOWEST_CLEAN = 0.05
"""Below this clean score a relative drop says nothing."""


def compare(
    clean: Float[np.ndarray, "E B C"],
    heard: Float[np.ndarray, "E B C"],
    consensus: Int[np.ndarray, " B"],
    unit: Int[np.ndarray, " B"],
    is_in: Bool[np.ndarray, " B"],
    num_resamples: int,
    seed: int,
) -> dict[Metric, dict[str, Any]]:
    """Entries for `ResultRecord.metrics` of one system.

    Args:
      clean: Predicted distributions of its members in the clean condition.
      heard: The same in another one.
      consensus: Class of each utterance, -1 where there is none.
      unit: Unit that is resampled (speaker) of each utterance.
      is_in: The utterances that count.
      num_resamples: Bootstrap resamples of units.
      seed: Of the bootstrap; the same as of other metrics, so that all see the same resamples.

    Returns:
      `stable share`: share of all utterances whose 1-best class is that of the clean rendering. `UAR change`: UAR minus
      clean UAR. `UAR relative drop (%)`: 100 (clean - UAR) / clean, not defined below a clean UAR of 0.05.
    """
    if clean.shape != heard.shape:
        raise ValueError(f"predictions of {clean.shape} and {heard.shape} are not of the same utterances and members")
    num_members, num_units, num_classes = len(clean), int(unit.max()) + 1, clean.shape[2]
    best = [distribution.argmax(axis=-1) for distribution in (clean, heard)]
    is_scored = is_in & (consensus >= 0)

    def per_class(counted: Bool[np.ndarray, " B"]) -> Int[np.ndarray, "U C"]:
        cell = unit[counted].astype(np.int64) * num_classes + consensus[counted]
        return np.bincount(cell, minlength=num_units * num_classes).reshape(num_units, num_classes)

    # Counted over all utterances, also those without a consensus: whether an answer is stable needs no truth.
    same = [np.bincount(unit[is_in & is_same], minlength=num_units) for is_same in best[0] == best[1]]
    statistics = {
        "num": np.bincount(unit[is_in], minlength=num_units),
        "same": np.stack(same, axis=1),
        "support": per_class(is_scored),
        "clean": np.stack([per_class(is_scored & (classes == consensus)) for classes in best[0]], axis=1),
        "heard": np.stack([per_class(is_scored & (classes == consensus)) for classes in best[1]], axis=1),
    }
    point = _scores({name: values.sum(axis=0, keepdims=True) for name, values in statistics.items()})
    # Both conditions are sums of the same resampled speakers, so the change has a paired interval.
    resampled = resampling.bootstrap(
        statistics,
        lambda sums, weights: {key: score.means(weights) for key, score in _scores(sums).items()},
        num_resamples,
        seed,
        num_members,
    )
    return {key: intervals.entry(score, resampled[key], num_units) for key, score in point.items()}


def _scores(sums: resampling.Sums) -> dict[Metric, intervals.Score]:
    """The metrics of R resamples."""
    support = sums["support"][:, None]
    clean, heard = (class_scores(sums[side], support, support).uar for side in ("clean", "heard"))
    num, num_scored = sums["num"], sums["support"].sum(axis=1)
    # Of means over members: one member near 0 must not decide.
    reference = clean.mean(axis=1, keepdims=True)
    has_reference = reference[:, 0] >= LOWEST_CLEAN
    drop = 100 * (clean - heard) / np.where(has_reference[:, None], reference, 1)
    return {
        STABLE_SHARE: intervals.Score(sums["same"] / np.maximum(num, 1)[:, None], num > 0, num),
        UAR_CHANGE: intervals.Score(heard - clean, num_scored > 0, num_scored),
        UAR_DROP: intervals.Score(drop, has_reference, num_scored),
    }


def with_stability(
    records: Sequence[ResultRecord],
    clean: Aligned,
    heard: Aligned,
    systems: Mapping[str, Sequence[int]],
    num_resamples: int,
    seed: int,
) -> list[ResultRecord]:
    """Records of a condition with the metrics of `compare` added; records of gaps between groups stay as they are.

    Args:
      records: Of one split in one condition.
      clean: Predictions of the split in the clean condition.
      heard: Predictions in the condition, of the same utterances and members.
      systems: System of the records -> its members, as rows of the predictions.
      num_resamples: Bootstrap resamples of speakers.
      seed: Of the bootstrap.

    Raises:
      AlignmentError: The two are not of the same utterances.
    """
    if not (np.array_equal(clean.unit, heard.unit) and np.array_equal(clean.consensus, heard.consensus)):
        raise AlignmentError("predictions in clean and in a condition are of other utterances: evaluate both again")
    added = []
    for record in records:
        if record.group not in heard.groups:
            added.append(record)
            continue
        rows = list(systems[record.system])
        predicted = (side.predictions_distribution[rows] for side in (clean, heard))
        metrics = compare(*predicted, heard.consensus, heard.unit, heard.groups[record.group], num_resamples, seed)
        added.append(dataclasses.replace(record, metrics=record.metrics | entries_by_name(metrics)))
    return added

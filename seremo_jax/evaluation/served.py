"""How every speaker is served by a system, 1-best: sums of speakers, and the metrics they give in any resample.

Sums are made over all speakers only, for a score of each speaker needs all of its utterances.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Num

from seremo_jax.evaluation.states import Settings
from seremo_jax.evaluation.system_sums import EQUAL, HALVES, LARGE, MATCHED, SPEAKERS, TRUE, Statistics
from seremo_jax.metrics import intervals, resampling, served
from seremo_jax.metrics.catalogue import Metric, metric

WORST = 20
"""Share of the speakers, in percent, who are the worst served."""

QUANTILES = (10, 50, 90)
SIZES = (10, 20, 40, 80)
"""Utterances a speaker at which paUAR is given, where half of the speakers have as many."""

_MATCHED_DRAWS = 50
"""Draws of a speaker's utterances, of all members together."""


def sizes_of(statistics: Statistics) -> tuple[int, ...]:
    """Those of `SIZES` that half of the counted speakers have."""
    number = statistics.sums["support"].sum(axis=1)[_is_counted(statistics)]
    return tuple(size for size in SIZES if len(number) and 2 * (number >= size).sum() >= len(number))


def _is_counted(statistics: Statistics) -> Bool[np.ndarray, " V"]:
    """Known speakers with a scored utterance."""
    return statistics.sums["eligible"][:, 0].astype(bool)


def with_sums(statistics: Statistics, settings: Settings, seed: int) -> Statistics:
    """The statistics of all speakers with the sums of this module among them."""
    one_best = settings.nbest.index(1)
    # Counts are whole numbers in float64.
    right = np.rint(statistics.sums["right"][:, :, one_best]).astype(np.int64)
    support, uar = statistics.sums["support"], statistics.uar[:, :, one_best]
    is_in = _is_counted(statistics)
    recall = right[is_in].sum(axis=0) / np.maximum(support[is_in].sum(axis=0), 1)
    noise = served.noise_variance(right, support, recall)
    true = np.stack([np.ones_like(uar), uar, uar**2, noise], axis=-1) * is_in[:, None, None]
    sizes, num_draws = sizes_of(statistics), max(_MATCHED_DRAWS // right.shape[1], 10)
    is_large = (support.sum(axis=1)[:, None] >= np.asarray(sizes, np.int64)) & is_in[:, None]
    matched = served.matched_passing(right, support, sizes, settings.thresholds, seed, num_draws)
    own = {
        SPEAKERS: served.histogram(uar[None], uar[None], is_in[:, None]),
        EQUAL: served.equal_speakers(recall, support, is_in, seed),
        HALVES: served.half_histograms(right, support, is_in, seed),
        TRUE: true,
        MATCHED: matched * is_large[:, None, :, None],
        LARGE: is_large,
    }
    return dataclasses.replace(statistics, sums=statistics.sums | own)


def _score(
    values: Float[np.ndarray, "R E"], number: Num[np.ndarray, " R"], num_units: int | None = None
) -> intervals.Score:
    return intervals.Score(values, number > 0, number, num_units=num_units)


def scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> dict[Metric, intervals.Score]:
    """Metrics of all speakers, from sums [R, ...]; nothing where the sums are not there.

    What equal speakers would show is left out where its own sums are not there: systems are not compared by it.
    """
    if SPEAKERS not in sums:
        return {}
    number, total, squares, noise = np.moveaxis(sums[TRUE], -1, 0)
    num_speakers, num_halved = number[:, 0], sums[HALVES][:, 0, 0].sum(axis=-1)
    result = {metric("gini"): _score(served.gini(sums[SPEAKERS]), num_speakers)}
    # A mean of so few speakers: intervals by the number of all would cover the truth 89 times in 100 with 60 of them.
    num_worst = max(round(WORST / 100 * statistics.sums[TRUE][:, 0, 0].sum()), 2)
    for name, key, count in (
        ("worst_speakers", SPEAKERS, num_speakers),
        ("worst_speakers_by_halves", HALVES, num_halved),
        ("worst_speakers_if_equal", EQUAL, num_speakers),
    ):
        if key in sums:
            result[metric(name, percent=WORST)] = _score(served.tail_mean(sums[key], WORST / 100), count, num_worst)
    for percent in QUANTILES:
        values = served.quantile(sums[SPEAKERS], percent / 100)
        result[metric("speaker_quantile", percent=percent)] = _score(values, num_speakers)
    if EQUAL in sums:
        # A speaker is 0 apart from itself, so S of them show less than the population that they are drawn from.
        fewer = np.maximum(num_speakers - 1, 0) / np.maximum(num_speakers, 1)
        result[metric("gini_if_equal")] = _score(served.gini(sums[EQUAL]) * fewer[:, None], num_speakers)
    true = served.share_above(number, total, squares, noise, settings.thresholds)
    for t, threshold in enumerate(settings.thresholds):
        result[metric("pa_uar_true", threshold=threshold)] = _score(100 * true[..., t], num_speakers)
        for s, size in enumerate(sizes_of(statistics)):
            num_large = sums[LARGE][:, s]
            passed = 100 * sums[MATCHED][:, :, s, t] / np.maximum(num_large, 1)[:, None]
            result[metric("pa_uar_matched", threshold=threshold, size=size)] = intervals.Score(
                passed, num_large > 0, num_large, is_share=True
            )
    return result

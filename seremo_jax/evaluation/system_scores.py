"""Every metric of one system from sums over units, as `system_sums` makes them, in R resamples at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from seremo_jax.evaluation import served, strata
from seremo_jax.evaluation.states import Settings
from seremo_jax.evaluation.system_sums import (
    ATTRIBUTES,
    CLASSES,
    ENTROPIES,
    PANEL_ANSWERS,
    PANEL_RIGHT,
    PANEL_SUPPORT,
    RATERS_SERVED,
    ROW_SUMS,
    RowSum,
    Statistics,
)
from seremo_jax.metrics import intervals, resampling
from seremo_jax.metrics.catalogue import SPEAKER_FILTERS, Metric, compared, metric
from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.moments import RegressionScores
from seremo_jax.metrics.raters import worth

Scores = dict[Metric, intervals.Score]


def scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    """Every metric, from sums [R, ...]."""
    return (
        _class_scores(sums, statistics, settings)
        | _speaker_scores(sums, statistics, settings)
        | _attribute_scores(sums, statistics, settings)
        | _distribution_scores(sums, statistics, settings)
        | _semantic_scores(sums, statistics, settings)
        | _panel_scores(sums, settings)
        | _served_votes(sums, settings)
        | strata.scores(sums, statistics.sums)
        | served.scores(sums, statistics, settings)
    )


def rater_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    """The metrics of human raters, whose answers are classes and shares, from sums under the keys of a system's."""
    return (
        _class_scores(sums, statistics, settings)
        | _speaker_scores(sums, statistics, settings)
        | _class_ccc_scores(sums, statistics, settings)
    )


def main_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    """The metrics by which systems are compared, from the sums of `system_sums.main_sums`."""
    available = (
        _class_scores(sums, statistics, settings)
        | _speaker_scores(sums, statistics, settings)
        | _attribute_scores(sums, statistics, settings)
        | _class_ccc_scores(sums, statistics, settings)
        | _served_votes(sums, settings)
        | strata.scores(sums, statistics.sums)
        | served.scores(sums, statistics, settings)
    )
    return {key: available[key] for key in compared(available)}


def point(statistics: Statistics, settings: Settings, make: Callable[..., Scores] = scores) -> Scores:
    """Every metric on all units, R = 1, as `make` makes them of sums."""
    # All units once: the same function that serves resamples, so that value and interval are of one definition.
    whole = {name: values.sum(axis=0, keepdims=True) for name, values in statistics.sums.items()}
    return make(whole, statistics, settings)


def _class_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    right = sums["right"]
    support = sums["support"][:, None, None]
    values = class_scores(right, support, sums["predicted"], settings.f1_classes)
    # What is defined and counted depends on the targets only, so the first member and N speak for all.
    is_defined, num_rows = values.is_defined[:, 0, 0], values.num_rows[:, 0, 0]
    num_classes = values.num_classes[:, 0, 0]
    num_averaged = num_classes if settings.f1_classes == "present" else np.full_like(num_classes, right.shape[-1])
    result: Scores = {}
    for i, n in enumerate(settings.nbest):
        chance = n / len(settings.class_names)
        result[metric("uar", n)] = intervals.Score(values.uar[..., i], is_defined, num_classes, chance)
        result[metric("macro_f1", n, classes=settings.f1_classes)] = intervals.Score(
            values.macro_f1[..., i], is_defined, num_averaged
        )
        result[metric("micro_f1", n)] = intervals.Score(values.micro_f1[..., i], is_defined, num_rows)
        if n == 1:
            result[metric("weighted_f1")] = intervals.Score(values.weighted_f1[..., i], is_defined, num_rows)
            result[metric("accuracy")] = intervals.Score(values.accuracy[..., i], is_defined, num_rows)
            for c, label in enumerate(settings.class_names):
                has_class = values.has_class[:, 0, 0, c]
                for kind in ("recall", "precision", "f1"):
                    result[metric(kind, label=label)] = intervals.Score(
                        getattr(values, kind)[:, :, i, c], has_class, support[:, 0, 0, c]
                    )
    return result


def _speaker_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    result: Scores = {}
    for f, name in enumerate(SPEAKER_FILTERS):
        num_speakers = sums["eligible"][:, f]
        # `passing` holds whether a speaker passes, so a speaker drawn twice counts twice in both sums.
        share = 100 * sums["passing"][:, :, f] / np.maximum(num_speakers, 1)[:, None, None, None]
        for t, threshold in enumerate(settings.thresholds):
            for i, n in enumerate(settings.nbest):
                result[metric("pa_uar", n, threshold=threshold, speakers=name)] = intervals.Score(
                    share[:, :, i, t], num_speakers > 0, num_speakers, float(statistics.chance[f, i, t]), is_share=True
                )
    return result


def _regression_scores(sums: resampling.Sums, statistics: Statistics, quantity: str) -> RegressionScores:
    return intervals.moments_of_sums(sums, quantity, statistics.shifts[quantity]).compute()


def _mean_over_defined(values: Float[np.ndarray, "R E K"], is_defined: Bool[np.ndarray, "R K"]) -> intervals.Score:
    """Mean over those of K things that are defined; what is not defined is 0 and adds nothing."""
    num_defined = is_defined.sum(axis=1)
    mean = values.sum(axis=-1) / np.maximum(num_defined, 1)[:, None]
    return intervals.Score(mean, num_defined > 0, num_defined)


def _attribute_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    values = _regression_scores(sums, statistics, ATTRIBUTES)
    has_rating = statistics.sums[intervals.MomentSum(ATTRIBUTES, "num_rows")].any(axis=(0, 1))
    # Targets, and so what is defined, are the same for all members.
    # Errors are defined of a single row, concordance and correlation only where the target varies.
    is_defined, num_rows = values.is_defined[:, 0], values.num_rows[:, 0]
    result: Scores = {}
    for kind in ("ccc", "pearson", "rmse", "mae"):
        has_value = is_defined if kind in ("ccc", "pearson") else num_rows > 0
        for a, name in enumerate(settings.attribute_names):
            if has_rating[a]:
                result[metric(kind, attribute=name)] = intervals.Score(
                    getattr(values, kind)[..., a], has_value[:, a], num_rows[:, a]
                )
        if kind == "ccc" and result:
            result[metric("ccc_mean")] = _mean_over_defined(values.ccc, is_defined)
    return result


def _class_ccc_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    values = _regression_scores(sums, statistics, CLASSES)
    is_defined = values.is_defined[:, 0]
    result = {metric("class_ccc_mean"): _mean_over_defined(values.ccc, is_defined)}
    for c, label in enumerate(settings.class_names):
        result[metric("class_ccc", label=label)] = intervals.Score(
            values.ccc[..., c], is_defined[:, c], values.num_rows[:, 0, c]
        )
    return result


def _distribution_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    result = _class_ccc_scores(sums, statistics, settings)
    totals = {name: sums[RowSum(name)] for name in ROW_SUMS}
    num_rows = totals["num_rows"][:, 0]
    has_rows, count = num_rows > 0, np.maximum(totals["num_rows"], 1)
    for kind in ("jsd", "kl", "total_variation"):
        result[metric(kind)] = intervals.Score(totals[kind] / count, has_rows, num_rows)
    entropy = _regression_scores(sums, statistics, ENTROPIES)
    result[metric("entropy_correlation")] = intervals.Score(entropy.pearson, entropy.is_defined[:, 0], num_rows)
    # A class of an utterance is true where its share of votes exceeds 1 / C, so several may be.
    labels = class_scores(totals["num_true"], totals["num_present"], totals["num_predicted"], f1_classes="all")
    num_classes = len(settings.class_names)
    result[metric("multi_label_f1", num_classes=num_classes)] = intervals.Score(
        labels.macro_f1, has_rows, np.full_like(num_rows, num_classes)
    )
    return result


def _served_votes(sums: resampling.Sums, settings: Settings) -> Scores:
    """Share of the raters whose vote is among the N-best."""
    num_rows = sums[RowSum("num_rows")][:, 0]
    share = 100 * sums[RATERS_SERVED] / np.maximum(num_rows, 1)[:, None, None]
    return {
        metric("raters_served", n): intervals.Score(
            share[..., i], num_rows > 0, num_rows, 100 * n / len(settings.class_names)
        )
        for i, n in enumerate(settings.nbest)
    }


def _semantic_scores(sums: resampling.Sums, statistics: Statistics, settings: Settings) -> Scores:
    """Named by what the distance was read from; absent where the corpus does not say how far classes are apart."""
    ground, result = settings.ground, {}
    if ground is None:
        return result
    num_rows = sums["support"].sum(axis=-1)
    # A guesser's cost: the mean distance of each class to all others, weighted by how often the class is the truth.
    share = statistics.sums["support"].sum(axis=0) / max(statistics.sums["support"].sum(), 1)
    guess = float(share @ ground.distance.mean(axis=1))
    cost = sums["cost"] / np.maximum(num_rows, 1)[:, None]
    result[metric("expected_cost", source=ground.source)] = intervals.Score(cost, num_rows > 0, num_rows, guess)
    if ground.groups:
        number = max(ground.groups) + 1
        # The product with a 0/1 matrix adds up the classes of each group.
        support = sums["support"] @ (np.asarray(ground.groups)[:, None] == np.arange(number))
        merged = class_scores(sums["merged right"], support[:, None], support[:, None])
        result[metric("merged_uar", num_groups=number)] = intervals.Score(
            merged.uar, merged.is_defined[:, 0], merged.num_classes[:, 0], 1 / number
        )
    return result


def _panel_scores(sums: resampling.Sums, settings: Settings) -> Scores:
    """UAR against the consensus of a few raters, and the panel of raters whose UAR is the same."""
    if not settings.num_others:
        return {}
    support, answers = sums[PANEL_SUPPORT], sums[PANEL_ANSWERS]
    own = class_scores(sums[PANEL_RIGHT], support, support)
    panels = class_scores(answers, support[:, :, None], support[:, :, None]).uar
    is_defined, num_classes, chance = own.is_defined[:, 0], own.num_classes[:, 0], 1 / len(settings.class_names)
    size = worth(own.uar, panels, chance)
    return {
        metric("panel_uar", raters=settings.num_others): intervals.Score(own.uar, is_defined, num_classes, chance),
        metric("raters_worth", most=panels.shape[-1]): intervals.Score(size, is_defined, num_classes, 0.0),
    }


def record_states(statistics: Statistics, settings: Settings) -> dict[str, Any]:
    """The sums behind the metrics, for a record: JSON only."""
    whole = {name: values.sum(axis=0) for name, values in statistics.sums.items()}
    moments = intervals.moments_of_sums(whole, ATTRIBUTES, statistics.shifts[ATTRIBUTES])
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

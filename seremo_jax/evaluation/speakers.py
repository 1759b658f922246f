"""What a record says of speakers: each one's scores, the curve paUAR(T), who passes by luck, what a UAR depends on."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.metrics import percentiles, resampling
from seremo_jax.metrics.catalogue import SPEAKER_FILTERS
from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.moments import Moments
from seremo_jax.metrics.passing import passes

CURVE = tuple(range(100))
"""The T of the curve, in percent. A UAR is at most 100 %."""

SIZES = ((1, 4), (5, 9), (10, 19), (20, 49), (50, None))
"""Scored utterances of a speaker, from and to: small speakers pass by luck."""


def entries(
    speakers: Sequence[str],
    genders: Sequence[str],
    support: Int[np.ndarray, "U C"],
    uar: Float[np.ndarray, "U E N"],
    attributes: Moments,
) -> list[dict[str, Any]]:
    """Known speakers with at least one scored or rated utterance; scores are means over members.

    Args:
      speakers: [U] name of each unit, empty where unknown.
      genders: [U] gender of each.
      support: [U, C] scored utterances by class.
      uar: [U, E, N] UAR of each member, for every N.
      attributes: Moments [U, E, A].
    """
    scores = attributes.compute()
    is_known = np.asarray([speaker != "" for speaker in speakers], bool)
    has_scored = support.sum(axis=1) > 0
    return [
        {
            "speaker": speakers[u],
            "gender": genders[u],
            "num_scored": int(support[u].sum()),
            "num_classes": int((support[u] > 0).sum()),
            "support": support[u].tolist(),
            "uar": uar[u].mean(axis=0).tolist(),
            "ccc": [
                float(values.mean()) if is_defined.all() else None
                for values, is_defined in zip(scores.ccc[u].T, scores.is_defined[u].T, strict=True)
            ],
        }
        for u in np.flatnonzero(is_known & has_scored)
    ]


def curve(
    uar: Float[np.ndarray, "U E N"],
    eligible: Bool[np.ndarray, "U filters"],
    chance: Float[np.ndarray, "U N T"],
    nbest: Sequence[int],
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    """paUAR(T) for every T of `CURVE`, in percent, with intervals over speakers; by speaker filter and N.

    Args:
      uar: [U, E, N] UAR of each unit.
      eligible: [U, filters] bool.
      chance: [U, N, T] how likely each unit passes by guessing.
      nbest: The N.
      num_resamples: Of speakers, the same as those of the metrics.
      seed: Of the draw.
    """
    # The share of members with which a speaker passes; the mean over speakers is then the mean over members, too.
    passing = passes(uar, CURVE).mean(axis=1)  # [U, N, T], mean over members
    result: dict[str, Any] = {"thresholds": list(CURVE), "filters": {}}
    groups = {}
    for f, name in enumerate(SPEAKER_FILTERS):
        if eligible[:, f].any():
            # Both sums of a ratio are resampled: how many speakers a filter counts changes from draw to draw.
            statistics = {"passing": passing * eligible[:, f, None, None], "num": eligible[:, f].astype(np.float64)}
            groups[name] = resampling.Group(statistics, _share, np.arange(len(eligible)))
    drawn = resampling.bootstrap_groups(groups, len(eligible), num_resamples, seed) if groups else {}
    for f, name in enumerate(SPEAKER_FILTERS):
        if name not in drawn:
            continue
        is_in = eligible[:, f]
        number = int(is_in.sum())
        low, high = percentiles.interval_bounds(drawn[name]["share"], number)
        result["filters"][name] = {
            "num_speakers": number,
            **{
                str(n): {
                    "value": _rounded(100 * passing[is_in, i].mean(axis=0)),
                    "low": _rounded(low[i]),
                    "high": _rounded(high[i]),
                    "chance": _rounded(100 * chance[is_in, i].mean(axis=0)),
                }
                for i, n in enumerate(nbest)
            },
        }
    return result


def _share(sums: resampling.Sums) -> dict[str, np.ndarray]:
    number = sums["num"][:, None, None]
    return {"share": np.where(number > 0, 100 * sums["passing"] / np.maximum(number, 1), np.nan)}


def _rounded(values: Float[np.ndarray, " T"]) -> list[float | None]:
    return [round(float(value), 3) if np.isfinite(value) else None for value in values]


def sizes(
    support: Int[np.ndarray, "U C"],
    uar: Float[np.ndarray, "U E N"],
    chance: Float[np.ndarray, "U N T"],
    thresholds: Sequence[int],
    nbest: Sequence[int],
) -> list[dict[str, Any]]:
    """Speakers by their number of scored utterances: how many pass, and how many a random guesser would pass.

    Args:
      support: [U, C] scored utterances of the known speakers; 0 for all else.
      uar: [U, E, N] UAR of each unit.
      chance: [U, N, T] how likely each unit passes by guessing.
      thresholds: The T.
      nbest: The N.
    """
    number = support.sum(axis=1)
    passing = passes(uar, tuple(thresholds)).mean(axis=1)
    bands = []
    for least, most in SIZES:
        is_in = (number >= least) & (number <= (most or np.inf))
        if not is_in.any():
            continue
        bands.append(
            {
                "from": least,
                "to": most,
                "num_speakers": int(is_in.sum()),
                "above": [
                    {
                        "threshold": int(threshold),
                        "nbest": int(n),
                        "num_passing": float(passing[is_in, i, t].sum()),
                        "num_by_luck": float(chance[is_in, i, t].sum()),
                    }
                    for t, threshold in enumerate(thresholds)
                    for i, n in enumerate(nbest)
                ],
            }
        )
    return bands


def dependence(
    support: Int[np.ndarray, "U C"], right: Num[np.ndarray, "U E C"], uar: Float[np.ndarray, "U E"]
) -> dict[str, Any]:
    """Spearman's correlation of a speaker's 1-best UAR with what it may merely reflect.

    `num_scored` and `num_classes` are the speaker's; `class_mix` is the UAR that the speaker would have if each class
    were recalled as it is over all speakers, so that a high correlation says: the mix of classes made the difference.

    Args:
      support: [U, C] scored utterances of the known speakers; 0 for all else.
      right: [U, E, C] those that each member got right.
      uar: [U, E] 1-best UAR of each member.
    """
    is_in = support.any(axis=1)
    counts = support[is_in]
    # Recalls over all speakers, merged. Applied to the classes that a speaker has, they give the UAR of somebody with
    # average skill and this mix.
    totals = counts.sum(axis=0, keepdims=True)
    recall = class_scores(right[is_in].mean(axis=1).sum(axis=0, keepdims=True), totals, totals).recall
    has_class = counts > 0
    own = uar[is_in].mean(axis=1)
    causes = {
        "num_scored": counts.sum(axis=1),
        "num_classes": has_class.sum(axis=1),
        "class_mix": (has_class * recall).sum(axis=1) / np.maximum(has_class.sum(axis=1), 1),
    }
    return {"num_speakers": int(is_in.sum())} | {name: _spearman(cause, own) for name, cause in causes.items()}


def _spearman(x: Num[np.ndarray, " n"], y: Num[np.ndarray, " n"]) -> dict[str, float] | None:
    """Correlation and its p; None where either is constant or there are fewer than three speakers."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # p of three speakers in perfect order divides by zero
        correlation = scipy.stats.spearmanr(x, y)
    return {"rho": float(correlation.statistic), "p": float(correlation.pvalue)}

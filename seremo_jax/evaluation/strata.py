"""UAR where raters agree and where they do not, and by duration: strata of utterances, whose sums add up.

Strata are told by the votes and the recording alone, the same for every system.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from seremo_jax.evaluation.alignment import Aligned, Cells
from seremo_jax.metrics import intervals, resampling
from seremo_jax.metrics.catalogue import Metric, metric
from seremo_jax.metrics.confusions import class_scores

RIGHT, SUPPORT = "right by stratum", "support by stratum"
"""Keys of sums [V, E, strata, C] and [V, 1, strata, C]."""

_BOUNDS: dict[str, tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...]] = {
    "entropy": (
        ("raters agree", lambda bits: bits < 1e-6),
        ("under 1 bit", lambda bits: (bits >= 1e-6) & (bits < 1)),
        ("1 bit or more", lambda bits: bits >= 1),
    ),
    "duration": (
        ("under 2 s", lambda seconds: (seconds > 0) & (seconds < 2)),
        ("2 to 4 s", lambda seconds: (seconds >= 2) & (seconds <= 4)),
        ("over 4 s", lambda seconds: seconds > 4),
    ),
}
"""What utterances are told apart by -> words and condition of each stratum."""

NAMES = tuple((by, words) for by, strata in _BOUNDS.items() for words, _ in strata)
"""The strata in order."""


def strata_of(aligned: Aligned) -> Int[np.ndarray, "B kinds"]:
    """[B, 2] int32 stratum of each utterance by the entropy of its votes and by its duration; -1 in none."""
    p = aligned.distribution.astype(np.float64)
    bits = -np.sum(np.where(p > 0, p * np.log2(np.where(p > 0, p, 1)), 0), axis=1)
    values = {"entropy": np.where(aligned.has_votes, bits, np.nan), "duration": aligned.durations}
    result, first = np.full((len(p), len(_BOUNDS)), -1, np.int32), 0
    for kind, (by, strata) in enumerate(_BOUNDS.items()):
        for place, (_, is_in) in enumerate(strata, first):
            result[is_in(values[by]), kind] = place
        first += len(strata)
    return result


def support_sums(
    aligned: Aligned, cells: Cells, strata: Int[np.ndarray, "B kinds"]
) -> Float[np.ndarray, "cells 1 S C"]:
    """Scored utterances of each cell, stratum and class."""
    sums = np.zeros((len(cells.unit), 1, len(NAMES), len(aligned.class_names)))
    for stratum in strata.T:
        is_in = (stratum >= 0) & (aligned.consensus >= 0)
        np.add.at(sums, (cells.cell[is_in], 0, stratum[is_in], aligned.consensus[is_in]), 1)
    return sums


def scores(sums: resampling.Sums, whole: resampling.Sums) -> dict[Metric, intervals.Score]:
    """UAR of each stratum that has scored utterances, from sums [R, ...]; `whole`: those of each unit.

    Nothing where the sums are not there.
    """
    if SUPPORT not in whole:
        return {}
    has_rows = whole[SUPPORT].any(axis=(0, 1, 3))
    right, support = sums[RIGHT], sums[SUPPORT]
    values = class_scores(right, support, support)
    result = {}
    for s, (by, words) in enumerate(NAMES):
        if has_rows[s]:
            number = support[:, 0, s].sum(axis=-1)
            result[metric("stratum_uar", by=by, place=s, stratum=words)] = intervals.Score(
                values.uar[..., s], number > 0, number, 1 / right.shape[-1]
            )
    return result

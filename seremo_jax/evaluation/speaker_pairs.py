"""Two systems of different evaluations speaker by speaker, from what their records keep of each speaker.

The systems need no common evaluation, but the same speakers with the same utterances. Scores are means over speakers of
each one's own UAR, and not those of all utterances together. Source: METHOD.md, section 9.2 (OURS).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seremo_jax.core.schema import ResultRecord
from seremo_jax.metrics import percentiles, resampling, significance


def uar_by_speaker(record: ResultRecord, place: int) -> dict[str, float]:
    """Speaker -> UAR, mean over members; speakers without any are left out.

    Args:
      record: Over all speakers.
      place: Of the N asked for among the entries of `speakers[...]["uar"]`.
    """
    values = {entry["speaker"]: entry["uar"][place] for entry in record.speakers if entry.get("uar")}
    return {speaker: float(value) for speaker, value in values.items() if value is not None}


def entry_of(
    terms: Sequence[tuple[float, dict[str, float]]], num_resamples: int, num_permutations: int, seed: int
) -> dict[str, Any] | None:
    """A sum of scores with signs, such as a difference or a difference of falls, as records have an entry.

    Args:
      terms: Sign and speaker -> score of each.
      num_resamples: Resamples of speakers behind the interval.
      num_permutations: Changes of sign, speaker by speaker, behind the p of no difference; 0 for none.
      seed: Of both, which are the same for every sum over the same speakers.

    Returns:
      `value` (mean over the speakers that all terms have), `low` and `high` (95 % interval), `p_permutation`
      (two-sided, exact where speakers are few), `count` (speakers); None where the terms have no common speaker.
    """
    speakers = sorted(set.intersection(*(set(scores) for _, scores in terms)))
    if not speakers:
        return None
    values = sum(sign * np.array([scores[speaker] for speaker in speakers]) for sign, scores in terms)
    weights = resampling.resample_weights(len(values), num_resamples, seed, num_resamples)
    drawn = np.concatenate([part @ values / len(values) for part in weights])
    low, high = percentiles.interval(drawn, len(speakers))
    # A bootstrap of few speakers finds differences too often; exchanges of two systems change signs of differences.
    p = significance.permutation_p(
        {"sum": values}, {"sum": np.zeros_like(values)}, lambda sums: {"sum": sums["sum"]}, num_permutations, seed
    )
    return {
        "value": float(values.mean()),
        "low": low,
        "high": high,
        "p_permutation": p["sum"] if num_permutations else None,
        "count": len(speakers),
    }

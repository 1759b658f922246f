"""Sentences that stand beside results when a number deceives: failure signs of METHOD.md, section 1.2, and two of ours.

The thresholds are OURS and say nothing about the paper. A sign marks a number to check.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from seremo_jax.metrics.catalogue import Metric, metric
from seremo_jax.reports import rater_rows
from seremo_jax.reports.blocks import Block, value_of
from seremo_jax.reports.score_tables import HIGH_THRESHOLD, SPEAKER_SHARE, UAR

HIGH_UAR_OVER_CHANCE = 1.5
LOW_PA_UAR_PERCENT = 25.0
WIDE_ATTRIBUTE_GAP = 0.15
WIDE_GENDER_GAP = 0.05
FEW_SPEAKERS = 12
_VALENCE, _ACTIVATION = metric("ccc", attribute="valence"), metric("ccc", attribute="activation")

CONFUSED_GROUP = ("angry", "contempt", "disgust")
CONFUSED_OVER_CHANCE = 1.5


def of_scores(block: Block) -> list[str]:
    """Signs in the scores of one split and condition, a sentence each, with the numbers of the systems that show it."""
    signs = []
    num_speakers = block.whole(block.systems[0]).num_speakers
    if num_speakers < FEW_SPEAKERS:
        signs.append(
            f"Few speakers ({num_speakers}): intervals resampled by speaker are rough, and one speaker makes up "
            f"{100 / max(num_speakers, 1):.0f} % of paUAR."
        )
    for headline, facts_of in _SIGNS.items():
        facts = {system: fact for system in block.systems if (fact := facts_of(block, system))}
        if facts:
            signs.append(f"{headline}: " + "; ".join(f"{system}, {fact}" for system, fact in facts.items()) + ".")
    return signs + _raters(block)


def _raters(block: Block) -> list[str]:
    """How many speakers one human rater serves, without which no share of speakers can be read."""
    share, uar = rater_rows.entry(block, SPEAKER_SHARE), rater_rows.entry(block, UAR)
    if value_of(share) is None or value_of(uar) is None:
        return []
    ranks = [system for system in block.systems if (value := block.value(system, SPEAKER_SHARE)) is not None
             and value > share["value"]]  # fmt: skip
    return [
        "Human raters disagree, too: one of them, judged like a model against the consensus of the others, has a UAR "
        f"above {HIGH_THRESHOLD / 100:.2f} for {share['value']:.1f} % of the speakers "
        f"(UAR {uar['value']:.3f} over all). {len(ranks)} of {len(block.systems)} systems exceed that share."
    ]


def of_saliency(layers: Sequence[int], chosen: int) -> list[str]:
    """The sign that saliency picked the last layer."""
    if len(layers) > 1 and chosen == layers[-1]:
        return [
            f"Saliency picked the last layer ({chosen}). The paper is said to pick an intermediate one, never the "
            "last: look at the curve, and at whether the last state went through a final norm."
        ]
    return []


def _defined(block: Block, system: str, metric: Metric, group: str = "all") -> Mapping[str, Any] | None:
    entry = block.entry(system, metric, group)
    return None if value_of(entry) is None else entry


def _near_chance(block: Block, system: str) -> str | None:
    uar, chance = _defined(block, system, UAR), block.chance(UAR)
    if uar and chance is not None and uar.get("low") is not None and uar["low"] <= chance:
        return f"UAR {uar['value']:.3f} with its interval from {uar['low']:.3f}, chance {chance:.3f}"
    return None


def _few_served(block: Block, system: str) -> str | None:
    uar, chance = _defined(block, system, UAR), block.chance(UAR)
    share = _defined(block, system, SPEAKER_SHARE)
    if not (uar and share and chance):
        return None
    if uar["value"] >= HIGH_UAR_OVER_CHANCE * chance and share["value"] < LOW_PA_UAR_PERCENT:
        times = uar["value"] / chance
        return f"UAR {uar['value']:.3f} ({times:.1f} times chance), but {share['value']:.1f} % of speakers above 0.75"
    return None


def _low_valence(block: Block, system: str) -> str | None:
    valence, activation = _defined(block, system, _VALENCE), _defined(block, system, _ACTIVATION)
    if valence and activation and activation["value"] - valence["value"] > WIDE_ATTRIBUTE_GAP:
        return f"CCC {valence['value']:.3f} for valence, {activation['value']:.3f} for activation"
    return None


def _wide_gap(block: Block, system: str) -> str | None:
    for group in block.groups:
        gap = _defined(block, system, UAR, group) if block.is_gap(group) else None
        if gap and abs(gap["value"]) >= WIDE_GENDER_GAP:
            low, high = gap.get("low"), gap.get("high")
            if low is None or high is None:
                verdict = "no interval"
            else:
                verdict = (
                    f"95 % interval {low:+z.3f} to {high:+z.3f}, {'includes' if low <= 0 <= high else 'excludes'} 0"
                )
            return f"UAR {gap['value']:+z.3f} ({block.group_label(group)}; {verdict})"
    return None


def _confused_group(block: Block, system: str) -> str | None:
    """Share of errors that stay inside the group, against an even spread over wrong classes.

    Source: METHOD.md, section 8.6.
    """
    members = [c for c, name in enumerate(block.class_names) if name in CONFUSED_GROUP]
    counts = block.confusion(system)
    if counts is None or len(members) < 2:
        return None
    inside, errors = errors_inside(counts, members)
    even = (len(members) - 1) / (len(block.class_names) - 1)
    if errors > 0 and inside / errors > CONFUSED_OVER_CHANCE * even:
        names = ", ".join(block.class_names[c] for c in members)
        return (
            f"{100 * inside / errors:.0f} % of the errors on {names} stay inside ({100 * even:.0f} % if spread evenly)"
        )
    return None


_SIGNS = {
    "Not shown to beat chance": _near_chance,
    "The overall score hides how few speakers are served well": _few_served,
    "Valence is far below activation, which can mean a wrong layer": _low_valence,
    "Large gap between genders": _wide_gap,
    "Confusion among anger, contempt and disgust": _confused_group,
}


def errors_inside(counts: Num[np.ndarray, "C C"], members: Sequence[int]) -> tuple[float, float]:
    """Errors on classes of a group that stay inside it, and all errors on them.

    Args:
      counts: [C, C] utterances, consensus in rows.
      members: Indices of the group's classes.
    """
    rows = counts[list(members)]
    right = sum(float(counts[c, c]) for c in members)
    return float(rows[:, list(members)].sum()) - right, float(rows.sum()) - right

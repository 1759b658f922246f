"""The mean prediction of several heads as a member of its own: what a user who keeps them all gets."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from seremo_jax.core import ensemble
from seremo_jax.core.schema import Predictions

MEANS = {
    "seeds": (),
    "class_kinds": ("class_kind",),
    "layers": ("layer",),
    "layers_and_class_kinds": ("layer", "class_kind"),
}
"""What a mean of heads may be over (`eval.means`) -> the fields that its heads differ in beside their seeds."""


def with_means(
    predictions: Predictions, members: Sequence[ensemble.Member], over: Sequence[str]
) -> tuple[Predictions, list[ensemble.Member]]:
    """Predictions with further members: means over seeds, and over seeds, class losses and layers.

    Args:
      predictions: Of the members, [E, N, ...].
      members: The members.
      over: What means are over, of `MEANS`. `seeds`: a mean for each system of several seeds. `class_kinds`,
        `layers`: a mean for all systems that differ in nothing but that. Each head weighs the same.

    Returns:
      Predictions [E + M, N, ...] and the E + M members, the means last; see `ensemble.MEAN`. The mean of distributions
      is one; a number that some head lacks is NaN.

    Source: OURS.
    """
    means = means_of(members, over)
    parts = [(predictions.attributes, predictions.distribution)]
    for rows, _ in means:
        # In float64: a mean of ten float32 would otherwise depend on the order of the heads.
        wide = (values[rows].mean(axis=0, keepdims=True, dtype=np.float64) for values in parts[0])
        parts.append(tuple(values.astype(np.float32) for values in wide))
    attributes, distribution = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Predictions(predictions.utterances, attributes, distribution), [*members, *(member for _, member in means)]


def means_of(members: Sequence[ensemble.Member], over: Sequence[str]) -> list[tuple[list[int], ensemble.Member]]:
    """Of each mean the members that it is over, as `with_means` says, and the member that it is."""
    means = []
    for axis in over:
        for rows in behind_means(members, axis):
            kinds = tuple(dict.fromkeys(members[row].class_kind for row in rows))
            mean = dataclasses.replace(
                members[rows[0]], seed=ensemble.MEAN, class_kind=kinds if len(kinds) > 1 else kinds[0]
            )
            if "layer" in MEANS[axis]:
                mean = dataclasses.replace(mean, layer=ensemble.EVERY_LAYER)
            means.append((rows, mean))
    return means


def behind_means(members: Sequence[ensemble.Member], over: str) -> list[list[int]]:
    """Members that one mean is over.

    Args:
      members: With or without folds, which do not tell them apart.
      over: One of `MEANS`. `seeds`: the members of each system of several. Another: the members of all systems that
        differ in nothing but its fields, where they differ in each of them.
    """
    by_system = [rows for rows, _ in ensemble.systems([vars(member) for member in members])]
    fields = MEANS[over]
    if not fields:
        return [rows for rows in by_system if len(rows) > 1]
    groups: dict[ensemble.Member, list[int]] = {}
    for rows in by_system:
        groups.setdefault(ensemble.without(members[rows[0]], fields), []).extend(rows)

    def differ(rows: list[int]) -> bool:
        behind = [ensemble.without_fold(members[row]) for row in rows]
        return all(len({getattr(member, field) for member in behind}) > 1 for field in fields)

    return [rows for rows in groups.values() if differ(rows)]

"""The mean prediction of each system's seeds, as a member of its own: what a user who keeps all heads gets."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from seremo_jax import ensemble
from seremo_jax.schema import Predictions


def with_means(
    predictions: Predictions, members: Sequence[ensemble.Member]
) -> tuple[Predictions, list[ensemble.Member]]:
    """Predictions with one more member for each system of several seeds: the mean over these, seed `ensemble.MEAN`.

    Args:
      predictions: Of the members, [E, N, ...].
      members: The members.

    Returns:
      Predictions [E + M, N, ...] and the E + M members, the means last, in the order of their systems. The mean of
      distributions is one; a number that some seed lacks is NaN.

    Source: OURS.
    """
    parts = [(predictions.attributes, predictions.distribution)]
    averaged = []
    for rows, _ in ensemble.systems([vars(member) for member in members]):
        if len(rows) > 1:
            averaged.append(dataclasses.replace(members[rows[0]], seed=ensemble.MEAN))
            wide = (values[rows].mean(axis=0, keepdims=True, dtype=np.float64) for values in parts[0])
            parts.append(tuple(values.astype(np.float32) for values in wide))
    attributes, distribution = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Predictions(predictions.utterances, attributes, distribution), [*members, *averaged]

"""Which speakers a system serves: who is counted, whose UAR exceeds a threshold, and how often a guesser's would.

paUAR-T is the share of the counted speakers whose UAR exceeds T percent. Speakers with few utterances pass by luck, so
each share stands beside that of a random guesser. Plain NumPy, no JAX.

Source: METHOD.md, section 8.4 (name KNOWN, definition INFERRED).
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.metrics.catalogue import is_counted
from seremo_jax.metrics.confusions import class_scores

_CHUNK_BYTES = 32 << 20
"""Bound on the guesses held at a time."""


def is_eligible(support: Num[np.ndarray, "U C"], speaker_filter: str) -> Bool[np.ndarray, " U"]:
    """Whether a unit has enough scored rows [U, C] and classes for a filter of `catalogue.SPEAKER_FILTERS`."""
    return is_counted(support.sum(axis=-1), (support > 0).sum(axis=-1), speaker_filter)


def passes(uar: Float[np.ndarray, "*batch"], thresholds: tuple[int, ...]) -> Bool[np.ndarray, "*batch thresholds"]:
    """Whether the UAR strictly exceeds T / 100, for each T.

    Args:
      uar: [...] float64, in [0, 1].
      thresholds: The T, in percent.
    """
    # A mean of recalls that is exactly T / 100 may come out just above it in binary; it must not pass by rounding.
    return np.stack([uar > threshold / 100 + 1e-9 for threshold in thresholds], axis=-1)


def chance_passing(
    support: Int[np.ndarray, "U C"],
    nbest: tuple[int, ...],
    thresholds: tuple[int, ...],
    seed: int,
    num_draws: int = 200,
) -> Float[np.ndarray, "U N T"]:
    """How likely each speaker exceeds T by guessing, by simulation; their mean is the paUAR-T of a guesser.

    A random ranking is right with probability N / C on every utterance. Speakers with few utterances pass by luck, so
    chance is not 0 and depends on the speakers.

    Args:
      support: [U, C] scored utterances of each speaker and class; without any, a speaker never passes.
      nbest: The N.
      thresholds: The T, in percent.
      seed: Of the simulation.
      num_draws: Guessers to average over.

    Source: OURS; what a random ranking scores is METHOD.md, section 8.3.
    """
    generator = np.random.default_rng(seed)
    chance = np.zeros((len(support), len(nbest), len(thresholds)))
    is_scored = support.any(axis=1)
    scored = support[is_scored].astype(np.int64)
    if not len(scored):
        return chance
    chunk = int(np.clip(_CHUNK_BYTES // (8 * scored.size), 1, num_draws))
    for i, n in enumerate(nbest):
        passing = np.zeros((len(scored), len(thresholds)))
        for first in range(0, num_draws, chunk):
            drawn = np.broadcast_to(scored, (min(chunk, num_draws - first), *scored.shape))
            # A guesser is right on each utterance independently, so what counts is how many of each class were right.
            right = generator.binomial(drawn, min(n / support.shape[1], 1.0))
            uar = class_scores(right, drawn, drawn).uar
            # One threshold at a time: a curve has a hundred, and all at once would multiply the memory by it.
            for t, threshold in enumerate(thresholds):
                passing[:, t] += passes(uar, (threshold,))[..., 0].sum(axis=0)
        chance[is_scored, i] = passing / num_draws
    return chance

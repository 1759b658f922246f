"""How speakers are served, from sums over speakers: quantiles, the worst, inequality, and their UAR without its noise.

    counts = histogram(uar[None], uar[None], is_in[None])     # [U, 2, BINS]: sums that add up over speakers
    tail_mean(counts.sum(axis=0), 0.2)                        # mean UAR of the fifth of the speakers served worst
    share_above(num, total, squares, noise, (50, 75))         # share of speakers whose true UAR is above T

A speaker's UAR of few utterances is its true UAR plus noise of known size. Order statistics and Gini's coefficient of
such values are inflated: `equal_speakers` says what speakers who are all alike would show, `half_histograms` picks the
worst on one half of each speaker's utterances and scores them on the other, `share_above` takes the noise out, and
`matched_passing` gives each speaker as many utterances. Everything is read from counts of right answers by speaker and
class. Plain NumPy, no JAX.

Source: METHOD.md, section 8.13 (OURS, but Gini's coefficient of speakers: KNOWN, arXiv 2406.06665).
"""

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.passing import passes

BINS = 100
"""Bins of a score in [0, 1]. Means are exact, as bins keep the sum of their values; only which of two speakers in one
bin is the worse is not told."""

_LEAST_VARIANCE = 1e-6
"""Of the true UAR over speakers."""

_TINY = 1e-12
"""Instead of a number of speakers that is 0."""


def histogram(
    score: Float[np.ndarray, "D *batch"], value: Float[np.ndarray, "D *batch"], is_in: Bool[np.ndarray, "..."]
) -> Float[np.ndarray, "*batch 2 bins"]:
    """How often each bin of a score occurs and the sum of a value there, for single speakers: these add up.

    Args:
      score: [D, ...] by which speakers are ranked, in [0, 1], in each of D draws, over which the mean is taken.
      value: [D, ...] that is averaged over ranked speakers: the score itself, or another one.
      is_in: Which speakers count; its shape broadcasts to [D, ...].
    """
    shape, is_in = score.shape[1:], np.broadcast_to(is_in, score.shape)
    number = int(np.prod(shape))
    place = np.minimum((score * BINS + 1e-9).astype(np.int64), BINS - 1).reshape(len(score), number)
    cell = (place + BINS * np.arange(number))[is_in.reshape(place.shape)]
    parts = (np.bincount(cell, weights, number * BINS) for weights in (None, value[is_in]))
    return np.stack([part.reshape(*shape, BINS) for part in parts], axis=-2) / len(score)


def tail_mean(counts: Float[np.ndarray, "*batch 2 bins"], share: float) -> Float[np.ndarray, "*batch"] | np.float64:
    """Mean value of the share of the speakers with the lowest score (CVaR); 0 without speakers."""
    number, total = counts[..., 0, :], counts[..., 1, :]
    wanted = share * number.sum(axis=-1, keepdims=True)
    before = np.cumsum(number, axis=-1) - number
    # A bin that the limit goes through counts in part.
    part = np.clip((wanted - before) / np.maximum(number, _TINY), 0, 1)
    return (part * total).sum(axis=-1) / np.maximum(wanted[..., 0], _TINY)


def quantile(counts: Float[np.ndarray, "*batch 2 bins"], share: float) -> Float[np.ndarray, "*batch"] | np.float64:
    """Value of the speaker below or at whom a share of the speakers is (inverted distribution function)."""
    number, total = counts[..., 0, :], counts[..., 1, :]
    reached = np.cumsum(number, axis=-1) >= share * number.sum(axis=-1, keepdims=True) - 1e-9
    first = (reached & (number > 0)).argmax(axis=-1)[..., None]
    number, total = (np.take_along_axis(part, first, axis=-1)[..., 0] for part in (number, total))
    return total / np.maximum(number, _TINY)


def gini(counts: Float[np.ndarray, "*batch 2 bins"]) -> Float[np.ndarray, "*batch"] | np.float64:
    """Gini's coefficient, sum_s sum_t |x_s - x_t| / (2 S^2 mean): 0 where all speakers are alike."""
    number, total = counts[..., 0, :], counts[..., 1, :]
    before, total_before = np.moveaxis(np.cumsum(counts, axis=-1) - counts, -2, 0)
    # Each bin against all lower ones: its values minus theirs, pair by pair.
    apart = (total * before - number * total_before).sum(axis=-1)
    return apart / np.maximum(number.sum(axis=-1) * total.sum(axis=-1), _TINY)


def equal_speakers(
    recall: Float[np.ndarray, "E C"],
    support: Int[np.ndarray, "U C"],
    is_in: Bool[np.ndarray, " U"],
    seed: int,
    num_draws: int = 100,
) -> Float[np.ndarray, "U E 2 bins"]:
    """Expected `histogram` of speakers who are all alike: each utterance is right as often as its class is over all.

    Args:
      recall: [E, C] recall of each class over all speakers, by member.
      support: [U, C] scored utterances.
      is_in: [U] which speakers count.
      seed: Of the simulation.
      num_draws: Corpora to average over.
    """
    generator, shape = np.random.default_rng(seed), (num_draws, len(support), *recall.shape)
    number = support[:, None]
    uar = class_scores(generator.binomial(number, np.clip(recall, 0, 1), shape), number, number).uar
    return histogram(uar, uar, is_in[:, None])


def half_histograms(
    right: Int[np.ndarray, "U E C"],
    support: Int[np.ndarray, "U C"],
    is_in: Bool[np.ndarray, " U"],
    seed: int,
    num_draws: int = 20,
) -> Float[np.ndarray, "U E 2 bins"]:
    """Mean `histogram` of random halves: ranked by the UAR of one half of the utterances, valued by that of the other.

    Halves are drawn class by class. Speakers without an utterance in either half take no part in that draw.
    """
    generator, shape = np.random.default_rng(seed), (num_draws, *right.shape)
    number = np.broadcast_to(support[:, None], right.shape)
    # Of an odd number the middle one goes to either half, the same for all members.
    coin = generator.integers(0, 2, (num_draws, len(support), 1, support.shape[1]))
    size = np.broadcast_to((number + coin) // 2, shape)
    own = generator.hypergeometric(right, number - right, size)
    picked = class_scores(own, size, size)
    judged = class_scores(right - own, number - size, number - size)
    return histogram(picked.uar, judged.uar, is_in[:, None] & picked.is_defined & judged.is_defined)


def matched_passing(
    right: Int[np.ndarray, "U E C"],
    support: Int[np.ndarray, "U C"],
    sizes: tuple[int, ...],
    thresholds: tuple[int, ...],
    seed: int,
    num_draws: int = 50,
) -> Float[np.ndarray, "U E sizes T"]:
    """How likely a speaker's UAR exceeds T / 100 on so many of its utterances, drawn without replacement.

    Args:
      right: [U, E, C] right answers.
      support: [U, C] scored utterances; a speaker with fewer than a size never passes there.
      sizes: Utterances a speaker.
      thresholds: The T, in percent.
      seed: Of the draws.
      num_draws: How many.
    """
    generator, num_classes = np.random.default_rng(seed), right.shape[-1]
    wide = np.broadcast_to(support[:, None], right.shape)
    # What an utterance is: of a class, and right or wrong.
    kinds = np.concatenate([right, wide - right], axis=-1)
    passing = np.zeros((*right.shape[:2], len(sizes), len(thresholds)))
    for s, size in enumerate(sizes):
        is_large = support.sum(axis=1) >= size
        there = np.broadcast_to(kinds[is_large], (num_draws, *kinds[is_large].shape))
        left, drawn = there.sum(axis=-1), np.zeros(there.shape, np.int64)
        wanted = np.full(left.shape, size)
        # One kind after the other: how many of it are among those still to be drawn.
        for kind in range(2 * num_classes):
            left = left - there[..., kind]
            drawn[..., kind] = generator.hypergeometric(there[..., kind], left, wanted)
            wanted = wanted - drawn[..., kind]
        hits, total = drawn[..., :num_classes], drawn[..., :num_classes] + drawn[..., num_classes:]
        passing[is_large, :, s] = passes(class_scores(hits, total, total).uar, thresholds).mean(axis=0)
    return passing


def noise_variance(
    right: Num[np.ndarray, "U E C"], support: Int[np.ndarray, "U C"], recall: Float[np.ndarray, "E C"]
) -> Float[np.ndarray, "U E"]:
    """Variance of each speaker's UAR that its number of utterances explains, unbiased: recalls are binomial.

    `sum_c r_c (1 - r_c) / (n_c - 1) / C^2` over the speaker's C classes; a class with one utterance takes the recall of
    all speakers.
    """
    number = support[:, None]
    own = right / np.maximum(number, 1)
    spread = np.where(number > 1, own * (1 - own) / np.maximum(number - 1, 1), recall * (1 - recall))
    has_class = number > 0
    return np.where(has_class, spread, 0).sum(axis=-1) / np.maximum(has_class.sum(axis=-1), 1) ** 2


def share_above(
    number: Num[np.ndarray, "*batch"],
    total: Float[np.ndarray, "*batch"],
    squares: Float[np.ndarray, "*batch"],
    noise: Float[np.ndarray, "*batch"],
    thresholds: tuple[int, ...],
) -> Float[np.ndarray, "*batch T"]:
    """Share of speakers whose true UAR exceeds T / 100: the noise of few utterances is taken out.

    The true UAR of speakers is taken as Beta distributed, with the mean of the observed ones and their variance less
    that of the noise. Of few speakers this difference is uncertain and often below 0. So the variance is the positive
    part that is expected of it under a normal error of `observed sqrt(2 / (S - 1))`; for many speakers it is the
    difference itself. METHOD.md, section 8.13, has errors and coverage in simulated corpora.

    Args:
      number: [...] speakers.
      total: [...] sum of their observed UAR.
      squares: [...] sum of its squares.
      noise: [...] sum of its `noise_variance`.
      thresholds: The T, in percent.
    """
    safe = np.maximum(number, 1)
    mean = np.clip(total / safe, 1e-6, 1 - 1e-6)
    # The observed variance around the speakers' own mean is too small by one speaker.
    observed = (squares / safe - (total / safe) ** 2) * safe / np.maximum(safe - 1, 1)
    error = np.maximum(observed, _TINY) * np.sqrt(2 / np.maximum(safe - 1, 1))
    z = (observed - noise / safe) / error
    expected = error * (z * scipy.special.ndtr(z) + np.exp(-z * z / 2) / np.sqrt(2 * np.pi))
    variance = np.clip(expected, _LEAST_VARIANCE, 0.99 * mean * (1 - mean))
    strength = mean * (1 - mean) / variance - 1
    a, b = mean * strength, (1 - mean) * strength
    at = np.asarray(thresholds) / 100
    return scipy.special.betaincc(a[..., None], b[..., None], at)

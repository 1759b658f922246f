"""What human raters would score, from counts of votes alone: a rater's answer against what the others say.

    joint = leave_one_out(votes)                    # [N, C, C + 1]: the others' consensus, and the one rater's answer
    joint = panel_answers(votes, size, num_others)  # the plurality of some raters against that of others
    right, support, predicted = class_sums(joint)   # expected sums of each utterance; they add up over utterances

A rater is drawn from the votes of an utterance and judged like a model, against the consensus of other raters. Expected
sums are exact, so no rater is simulated for UAR, F1 or class CCC. Whether a speaker is above a threshold depends on
which raters answer: `passing_by_draw` draws them. Votes outside the class set are the last column of the counts; they
are answers that are never right, and a target that is not scored. Plain NumPy, no JAX.

Source: METHOD.md, section 8.12 (OURS).
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.passing import passes

_CHUNK_BYTES = 32 << 20
"""Bound on the answers drawn at a time."""


def leave_one_out(votes: Int[np.ndarray, "N C1"]) -> Float[np.ndarray, "N C C1"]:
    """Probability of each pair of target and answer, where one vote is drawn and the others' plurality is the target.

    Args:
      votes: [N, C + 1] votes of each class and, last, outside the class set.

    Returns:
      [N, C, C + 1] probability that the others' plurality is class c and the vote is for a. What is missing to 1 is not
      scored: the others are tied, agree on no class of the set, or there are none.
    """
    num_rows, width = votes.shape
    joint = np.zeros((num_rows, width - 1, width))
    share = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    for answer in range(width):
        rows = np.flatnonzero(votes[:, answer] > 0)
        rest = votes[rows].copy()
        rest[:, answer] -= 1
        top = rest.max(axis=1)
        target = rest.argmax(axis=1)
        is_scored = (top > 0) & ((rest == top[:, None]).sum(axis=1) == 1) & (target < width - 1)
        rows, target = rows[is_scored], target[is_scored]
        joint[rows, target, answer] = share[rows, answer]
    return joint


def panel_answers(votes: Int[np.ndarray, "N C1"], size: int, num_others: int) -> Float[np.ndarray, "N C C1"]:
    """Probability of each pair of target and answer, both the plurality of raters drawn without replacement.

    Args:
      votes: [N, C + 1] votes of each class and, last, outside the class set.
      size: Raters on the panel; where their votes are tied, each of the tied answers is as likely.
      num_others: Other raters whose plurality is the target; where they are tied, the utterance is not scored.

    Returns:
      As of `leave_one_out`; 0 for utterances with fewer than `size + num_others` votes. The distribution of the
      targets, its sum over answers, is the same for every size.
    """
    num_rows, width = votes.shape
    joint = np.zeros((num_rows, width - 1, width))
    # Classes by falling votes: utterances whose votes differ only in which class has how many share one computation.
    order = np.argsort(-votes[:, :-1], axis=1, kind="stable")
    ranked = np.concatenate([np.take_along_axis(votes[:, :-1], order, axis=1), votes[:, -1:]], axis=1)
    patterns, pattern_of = np.unique(ranked, axis=0, return_inverse=True)
    is_large = patterns.sum(axis=1) >= size + num_others
    by_pattern = np.zeros((len(patterns), width - 1, width))
    for place in np.flatnonzero(is_large):
        by_pattern[place] = _panel_answers_of(tuple(map(int, patterns[place])), size, num_others)
    answers = np.concatenate([order, np.full((num_rows, 1), width - 1)], axis=1)
    rows = np.arange(num_rows)[:, None, None]
    joint[rows, order[:, :, None], answers[:, None, :]] = by_pattern[pattern_of.reshape(-1)]
    return joint


def _panel_answers_of(votes: tuple[int, ...], size: int, num_others: int) -> Float[np.ndarray, "C C1"]:
    """`panel_answers` of one utterance."""
    joint = np.zeros((len(votes) - 1, len(votes)))
    num_ways = math.comb(sum(votes), num_others)
    for others in _draws(votes, num_others):
        target = int(np.argmax(others))
        if others.count(others[target]) > 1 or target == len(votes) - 1:
            continue
        probability = math.prod(map(math.comb, votes, others)) / num_ways
        joint[target] += probability * _plurality(tuple(n - m for n, m in zip(votes, others, strict=True)), size)
    return joint


@functools.lru_cache(maxsize=1 << 16)
def _plurality(votes: tuple[int, ...], size: int) -> Float[np.ndarray, " C1"]:
    """Probability of each plurality of `size` votes drawn without replacement, ties shared."""
    answers, num_ways = np.zeros(len(votes)), math.comb(sum(votes), size)
    for drawn in _draws(votes, size):
        is_top = np.asarray(drawn) == max(drawn)
        answers += math.prod(map(math.comb, votes, drawn)) / num_ways * is_top / is_top.sum()
    return answers


def _draws(votes: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    """Yields the counts that `size` of the votes may have."""
    if len(votes) == 1:
        if size <= votes[0]:
            yield (size,)
        return
    for first in range(min(votes[0], size) + 1):
        if size - first <= sum(votes[1:]):
            for rest in _draws(votes[1:], size - first):
                yield (first, *rest)


def class_sums(
    joint: Float[np.ndarray, "N C C1"],
) -> tuple[Float[np.ndarray, "N C"], Float[np.ndarray, "N C"], Float[np.ndarray, "N C"]]:
    """Expected right answers, targets and answers of each class, [N, C] each; answers where the target is scored."""
    num_classes = joint.shape[1]
    return np.einsum("ncc->nc", joint[:, :, :num_classes]), joint.sum(axis=2), joint.sum(axis=1)[:, :num_classes]


def share_sums(
    votes: Int[np.ndarray, "N C"], size: Int[np.ndarray, " N"], num_others: Int[np.ndarray, " N"]
) -> dict[str, Float[np.ndarray, "N *C"]]:
    """Expected sums behind the CCC of the shares that some raters and others give each class.

    Both are drawn without replacement, so that with p the share of all N votes: E[x] = E[y] = p,
    Var[x] = p (1 - p) / size (N - size) / (N - 1), likewise y, and Cov[x, y] = -p (1 - p) / (N - 1).

    Args:
      votes: [N, C] votes of each class of the set.
      size: [N] raters whose shares are the prediction x.
      num_others: [N] other raters whose shares are the target y. Utterances where either is below 1, or where there are
        fewer votes than both together, take no part.

    Returns:
      `num_rows`, `x`, `y`, `xx`, `yy` and `xy`, as of `intervals.MomentSum`, [N, C] each.
    """
    total = votes.sum(axis=1)
    is_used = (size >= 1) & (num_others >= 1) & (size + num_others <= total)
    used, n = is_used[:, None].astype(np.float64), np.maximum(total, 2)[:, None]
    p = votes / np.maximum(total, 1)[:, None]
    spread = p * (1 - p) / (n - 1)

    def square(drawn: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N C"]:
        number = np.maximum(drawn, 1)[:, None]
        return used * (p * p + spread * (n - number) / number)

    return {
        "num_rows": np.broadcast_to(used, p.shape),
        "x": used * p,
        "y": used * p,
        "xx": square(size),
        "yy": square(num_others),
        "xy": used * (p * p - spread),
    }


def passing_by_draw(
    joint: Float[np.ndarray, "N C C1"],
    unit: Int[np.ndarray, " N"],
    num_units: int,
    thresholds: tuple[int, ...],
    seed: int,
    num_draws: int = 1_000,
) -> Float[np.ndarray, "U T"]:
    """How likely each unit's UAR exceeds T / 100, by drawing the answer to each of its utterances.

    Args:
      joint: From `leave_one_out` or `panel_answers`.
      unit: [N] unit of each utterance, in 0..U-1.
      num_units: U. A unit without a scored utterance in a draw does not pass in it.
      thresholds: The T, in percent.
      seed: Of the draws.
      num_draws: How many.
    """
    right, support, _ = class_sums(joint)
    num_rows, num_classes = right.shape
    # What matters of an answer is the target, and whether it is hit: one of 2 C outcomes, or not scored.
    edges = np.concatenate([right, support - right], axis=1).cumsum(axis=1).astype(np.float32)
    width = 2 * num_classes + 1
    generator, passing = np.random.default_rng(seed), np.zeros((num_units, len(thresholds)))
    chunk = int(np.clip(_CHUNK_BYTES // (8 * max(num_rows, num_units * width)), 1, num_draws))
    for first in range(0, num_draws, chunk):
        drawn = generator.random((min(chunk, num_draws - first), num_rows), np.float32)
        outcome = np.zeros(drawn.shape, np.uint8)
        for edge in edges.T:
            outcome += drawn >= edge
        place = (np.arange(len(drawn))[:, None] * num_units + unit) * width + outcome
        counts = np.bincount(place.reshape(-1), minlength=len(drawn) * num_units * width)
        counts = counts.reshape(len(drawn), num_units, width)
        hits, misses = counts[..., :num_classes], counts[..., num_classes:-1]
        uar = class_scores(hits, hits + misses, hits + misses).uar
        for t, threshold in enumerate(thresholds):
            passing[:, t] += passes(uar, (threshold,))[..., 0].sum(axis=0)
    return passing / num_draws


def worth(
    score: Float[np.ndarray, "*batch"], panels: Float[np.ndarray, "*#batch K"], chance: float
) -> Float[np.ndarray, "*batch"]:
    """How many raters a score is worth: the panel size at which the panels' scores reach it, between sizes linearly.

    Args:
      score: [...] of a system.
      panels: [..., K] of panels of 1 to K raters, against the same targets.
      chance: Score of a guesser, which is worth 0 raters.

    Returns:
      [...] in 0..K: 0 stands for chance or less, K for K raters or more.
    """
    curve = np.concatenate([np.full((*panels.shape[:-1], 1), chance), panels], axis=-1)
    # Even sizes may score less than the odd ones before them, for they tie: what counts is the best size so far.
    curve = np.maximum.accumulate(curve, axis=-1)
    step = np.diff(curve, axis=-1)
    share = (np.asarray(score)[..., None] - curve[..., :-1]) / np.where(step > 0, step, 1)
    share = np.where(step > 0, np.clip(share, 0, 1), np.asarray(score)[..., None] > curve[..., 1:])
    return share.sum(axis=-1)

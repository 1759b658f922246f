"""From the utterance means that extraction left in its shards to the curves of every layer, one layer at a time.

Only one layer's means are in memory, 4 N D bytes (123 MB for 30,000 utterances of 1024 features), and its sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from seremo_jax.core.progress import track
from seremo_jax.metrics.moments import Moments
from seremo_jax.saliency import correlation, decorrelation, probe, variance_shares
from seremo_jax.saliency.curve_records import Curves
from seremo_jax.saliency.question import Question

_BLOCK_ROWS = 2_048
_ROWS = "rows"


def part(means: np.ndarray, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """The arrays that a shard keeps: the means [K, n, D] of its utterances, one array a layer, and their table rows."""
    return {_ROWS: np.array(rows, np.int32), **{_name(k): layer for k, layer in enumerate(means)}}


# Decompositions of a few hundred rows take twice as long on two threads as on one, and far longer where these wait for
# a core that another job has.
@threadpool_limits.wrap(limits=1, user_api="blas")
def measure(
    num_shards: int,
    read: Callable[[int, tuple[str, ...]], Mapping[str, np.ndarray]],
    question: Question,
    num_layers: int,
    is_quiet: bool = False,
) -> tuple[correlation.State, Curves]:
    """Reads the parts of all shards, in their order.

    Args:
      num_shards: How many there are.
      read: Shard, names -> those arrays of its `part`.
      question: What is asked.
      num_layers: K.
      is_quiet: Shows no progress.

    Returns:
      Co-moments of every layer, and what the intervals and the probe need.
    """
    parts = [read(shard, (_ROWS,))[_ROWS] for shard in range(num_shards)]
    rows = np.concatenate(parts)
    # Where several questions are asked, the parts have the utterances of them all.
    is_asked = question.is_drawn[rows]
    rows = rows[is_asked]
    values, mask = question.values[rows], question.mask[rows]
    fold, group = question.fold[rows], question.group[rows]
    factors = {name: value[rows] for name, value in question.factors.items()}
    # Features are chosen by the splits of the table only.
    scores_features = question.split_fold is None
    measured = []
    for k in track(range(num_layers), num_layers, "compare layers", "layers", is_quiet):
        means = np.concatenate([read(s, (_name(k),))[_name(k)] for s, part_rows in enumerate(parts) if len(part_rows)])
        means = means[is_asked]
        measured.append(
            (
                *_measure_layer(means, values, mask, fold, group),
                *_measure_together(means, values, mask, group, scores_features),
                {name: variance_shares.share(means, value, group) for name, value in factors.items()},
            )
        )
    states, without, ridge, ccc, moments, multiple, multiple_without, shrinkage, scores, shares = zip(
        *measured, strict=True
    )
    return concatenate(states), Curves(
        without=np.stack(without),
        ridge=np.stack(ridge),
        probe=np.stack(ccc),
        held_out=Moments(*(np.stack(leaf) for leaf in zip(*moments, strict=True))),
        multiple=np.stack(multiple),
        multiple_without=np.stack(multiple_without),
        shrinkage=np.stack(shrinkage),
        feature_scores=np.stack(scores) if scores_features else None,
        shares={name: np.stack([by_factor[name] for by_factor in shares]) for name in factors},
    )


def _name(k: int) -> str:
    return f"means.{k:02d}"


_update_saliency, _update_probe, _update_moments = map(jax.jit, (correlation.update, probe.update, Moments.update))


def _measure_layer(
    means: np.ndarray, values: np.ndarray, mask: np.ndarray, fold: np.ndarray, group: np.ndarray
) -> tuple:
    """One layer's means [N, D] -> co-moments; per group without it [G, Y]; ridge [Y]; CCC [V, Y]; moments [G, Y]."""
    (N, D), Y, G = means.shape, values.shape[1], int(group.max()) + 1
    state = correlation.empty(1, D, Y)
    for block in _blocks(means, values, mask):
        state = _update_saliency(state, block[0][None], *block[1:])
    without = correlation.without_each(means, values, mask, group, G)
    ridge, ccc = np.full(Y, np.nan), np.full((len(probe.RIDGES), Y), np.nan)
    prediction, is_predicted = np.zeros((N, Y), np.float32), np.zeros((N, Y), bool)
    # Targets that the same utterances have share the features' products, the costly part of the probe.
    for targets in probe.same_utterances(mask):
        has = mask[:, targets[0]]
        if len(np.unique(fold[has])) < 2:
            continue  # one fold to train on and one to look at are needed
        sums = probe.empty(1, int(fold.max()) + 1, D, len(targets))
        for block in _blocks(means, values[:, targets], np.where(has, fold, -1)):
            sums = _update_probe(sums, block[0][None], *block[1:])
        fitted = probe.solve(sums)
        ridge[targets], ccc[:, targets] = fitted.ridge[0], fitted.ccc[0]
        prediction[:, targets] = probe.predict(fitted, means[None], fold)[0]
        is_predicted[:, targets] = has[:, None]
    held_out = _update_moments(Moments.empty(G, Y), group, prediction, values, is_predicted)
    return state, without, ridge, ccc, held_out


def _measure_together(
    means: np.ndarray, values: np.ndarray, mask: np.ndarray, group: np.ndarray, scores_features: bool
) -> tuple:
    """One layer's means [N, D] -> multiple [Y]; per group without it [G, Y]; shrinkage [Y]; feature scores [D, Y]."""
    Y, G = values.shape[1], int(group.max()) + 1
    multiple, without, shrinkage = np.zeros(Y), np.zeros((G, Y)), np.zeros(Y)
    scores = np.zeros((means.shape[1], Y), np.float32)
    for targets in probe.same_utterances(mask):
        has = mask[:, targets[0]]
        features, asked = decorrelation.standardised(means[has]), values[has][:, targets]
        rows = decorrelation.coordinates(features)
        state = decorrelation.empty(1, rows.shape[1], len(targets))
        for first in range(0, len(rows), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            state = decorrelation.update(state, rows[None, block], asked[block])
        answer = decorrelation.compute(state)
        multiple[targets], shrinkage[targets] = answer.multiple[0], answer.shrinkage[0]
        without[:, targets] = decorrelation.without_each(state, rows, asked, group[has], G)
        if scores_features:
            scores[:, targets] = decorrelation.feature_scores(features, asked)
    return multiple, without, shrinkage, scores


def _blocks(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Rows of all arrays, `_BLOCK_ROWS` at a time, filled up to one shape with rows that nobody counts."""
    size = min(_BLOCK_ROWS, len(arrays[0]))
    for first in range(0, len(arrays[0]), size):
        rows = [array[first : first + size] for array in arrays]
        # Only the last block is shorter. Filled up, it needs no program of its own.
        missing = size - len(rows[0])
        # Folds are the only integers, and -1 is none of them.
        fill = [-1 if array.dtype.kind == "i" else 0 for array in rows]
        yield [
            np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1), constant_values=value)
            for array, value in zip(rows, fill, strict=True)
        ]


def concatenate(states: Sequence[correlation.State]) -> correlation.State:
    """States of different layers of the same utterances as one."""
    axis = {"feature_shift": 0, "feature_mean": 0, "feature_moment": 1, "comoment": 1}
    joined = {name: np.concatenate([getattr(state, name) for state in states], at) for name, at in axis.items()}
    return states[0]._replace(**joined)

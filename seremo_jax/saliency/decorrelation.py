"""How much of a target all features of a layer account for together, from co-moments that merge.

    state = empty(num_layers, num_coordinates, num_targets)
    for rows, targets in batches:                                             # [K, N, M], [N, Y]
        state = update(state, rows, targets)
    decorrelated = compute(state)                                             # multiple [K, Y]

A mean of single correlations counts a thing as often as features hold a copy of it. The squared multiple correlation
counts it once: it is the share of the target's variance that goes with the best linear function of all features. Its
covariance is shrunk, and what chance gives is taken out, so that few utterances do not favour any layer.

Rows are `coordinates`, features of mean 0 and sd 1, so float64 sums of products keep their digits, and two states merge
by addition. Above `MOST_COORDINATES` features, a fixed random projection takes their place. A state takes about
8 K M (M + Y) bytes, 14 MB for 25 layers of 256 coordinates and 9 targets; the pipeline holds one layer at a time.
"""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from seremo_jax.saliency.correlation import RESOLUTION

MOST_COORDINATES = 256
"""Layers of more features are projected to so many coordinates."""

_PROJECTION_SEED = 0

_LEAST_FREEDOM = 1.0
"""Degrees of freedom that must be left: with fewer, features explain any target, and nothing can be said of it."""


class State(NamedTuple):
    """Mergeable sums over utterances, NumPy float64. Targets of a state share its utterances.

    Attributes:
      count: Utterances.
      total: [K, M] sum of each coordinate.
      gram: [K, M, M] sum of products of two coordinates.
      cubic: [K, M] sum of each coordinate times the squared length of its row.
      quartic: [K] sum of the squares of the squared lengths.
      target_total: [Y] sum of each target.
      target_square: [Y] sum of its squares.
      cross: [K, M, Y] sum of products of coordinate and target.
    """

    count: int
    total: np.ndarray
    gram: np.ndarray
    cubic: np.ndarray
    quartic: np.ndarray
    target_total: np.ndarray
    target_square: np.ndarray
    cross: np.ndarray


class Decorrelated(NamedTuple):
    """What `compute` returns, float64.

    Attributes:
      multiple: [K, Y] squared multiple correlation. It is 0 on average where nothing but chance links target and
        features, and so may be below 0; with fewer utterances than coordinates it may be above 1. It is 0 where the
        target or every coordinate is constant, or the utterances are too few to leave a degree of freedom.
      shrinkage: [K] Ledoit-Wolf's intensity in [0, 1]: 0 keeps the covariance, 1 leaves only its mean variance.
      freedom: [K] effective degrees of freedom, the trace of the hat matrix, at most M.
    """

    multiple: np.ndarray
    shrinkage: np.ndarray
    freedom: np.ndarray


def standardised(means: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Features of mean 0 and population sd 1 over these utterances, float64; one that never varies becomes 0.

    Args:
      means: Means over valid frames of each utterance.
    """
    rows = means.astype(np.float64)
    # Relative to a value of its own, so that a constant feature is exactly 0 and a large mean costs no digits.
    rows -= rows[:1].copy()
    mean = rows.mean(axis=0)
    rows -= mean
    sd = np.sqrt(np.square(rows).mean(axis=0))
    is_constant = sd <= RESOLUTION * np.sqrt(np.square(sd) + np.square(mean))
    rows *= np.where(is_constant, 0, 1 / np.where(is_constant, 1, sd))
    return rows


def coordinates(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N M"]:
    """`standardised` features, or their `MOST_COORDINATES` random projections where they are more than that."""
    return rows if rows.shape[1] <= MOST_COORDINATES else rows @ projection(rows.shape[1])


def projection(num_features: int) -> Float[np.ndarray, "D M"]:
    """`MOST_COORDINATES` orthonormal directions of a space of more features, the same ones in every run.

    Source: KNOWN: W. B. Johnson, J. Lindenstrauss, Contemporary Mathematics 26, 1984; METHOD.md has the error measured.
    """
    shape = num_features, MOST_COORDINATES
    return np.linalg.qr(np.random.default_rng(_PROJECTION_SEED).standard_normal(shape))[0]


def empty(num_layers: int, num_coordinates: int, num_targets: int) -> State:
    """State of no utterances; neutral under `merge`."""
    K, M, Y = num_layers, num_coordinates, num_targets
    return State(0, *(np.zeros(shape) for shape in ((K, M), (K, M, M), (K, M), (K,), (Y,), (Y,), (K, M, Y))))


def update(state: State, rows: Float[np.ndarray, "K N M"], targets: Float[np.ndarray, "N Y"]) -> State:
    """Adds utterances: their `coordinates` on every layer, and their targets."""
    rows, targets = rows.astype(np.float64), targets.astype(np.float64)
    length = np.square(rows).sum(axis=2)
    across = np.swapaxes(rows, 1, 2)
    batch = State(
        count=rows.shape[1],
        total=rows.sum(axis=1),
        gram=across @ rows,
        cubic=(across @ length[..., None])[..., 0],
        quartic=np.square(length).sum(axis=1),
        target_total=targets.sum(axis=0),
        target_square=np.square(targets).sum(axis=0),
        cross=across @ targets,
    )
    return merge(state, batch)


def merge(a: State, b: State) -> State:
    """Both states as one; associative and commutative to rounding."""
    return State(*(x + y for x, y in zip(a, b, strict=True)))


def remove(whole: State, part: State) -> State:
    """The state of all utterances of `whole` but those of `part`."""
    return State(*(x - y for x, y in zip(whole, part, strict=True)))


def compute(state: State) -> Decorrelated:
    """Squared multiple correlations by the covariance that Ledoit and Wolf shrink, less what chance gives.

    Source: METHOD.md, section 7 (OURS); KNOWN: O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional
    covariance matrices, J. Multivariate Analysis 88(2), 2004; adjustment after M. Ezekiel, 1930.
    """
    n, (K, _, Y) = state.count, state.cross.shape
    multiple, shrinkage, freedom = np.zeros((K, Y)), np.zeros(K), np.zeros(K)
    for k in range(K):
        layer = _directions(state, k)
        shrinkage[k], kept = layer.shrinkage, layer.variances / layer.shrunk
        freedom[k] = kept.sum()
        # Of a target that nothing links to the features, the hat matrix keeps freedom / (n - 1) of the variance.
        rest = n - 1 - freedom[k]
        if rest > _LEAST_FREEDOM:
            explained = (np.square(layer.with_target) / layer.shrunk[:, None]).sum(axis=0) / layer.target_variance
            multiple[k] = np.where(layer.is_varying, 1 - (1 - explained) * (n - 1) / rest, 0)
    return Decorrelated(multiple, shrinkage, freedom)


def feature_scores(rows: Float[np.ndarray, "N D"], targets: Float[np.ndarray, "N Y"]) -> Float[np.ndarray, "D Y"]:
    """Absolute correlation of every feature with every target, the correlations among features taken out.

    Their squares sum over the features to the share of the target's variance that all of them together go with, before
    `compute` takes chance out, and copies of a feature share what one of them alone would have.

    Args:
      rows: `standardised` features of one layer, not projected: this takes D^3 operations, once.
      targets: Targets.

    Source: KNOWN: V. Zuber, K. Strimmer, High-dimensional regression and variable selection using CAR scores,
    Statistical Applications in Genetics and Molecular Biology 10(1), 2011.
    """
    layer = _directions(update(empty(1, rows.shape[1], targets.shape[1]), rows[None], targets), 0)
    scores = layer.vectors @ (layer.with_target / np.sqrt(layer.shrunk)[:, None])
    return np.where(layer.is_varying, np.abs(scores) / np.sqrt(layer.target_variance), 0)


class _Directions(NamedTuple):
    """One layer's covariance in its principal directions.

    Attributes:
      shrinkage: Ledoit-Wolf's intensity.
      vectors: [M, M] directions, one a column.
      variances: [M] variance along each, at least 0.
      shrunk: [M] the same, shrunk towards their mean; 1 where nothing varies.
      with_target: [M, Y] covariance of each direction with each target.
      target_variance: [Y] variance of each target, 1 of one that is constant.
      is_varying: [Y] whether a target is not.
    """

    shrinkage: float
    vectors: np.ndarray
    variances: np.ndarray
    shrunk: np.ndarray
    with_target: np.ndarray
    target_variance: np.ndarray
    is_varying: np.ndarray


def _directions(state: State, k: int) -> _Directions:
    n, M = max(state.count, 1), state.cross.shape[1]
    target_mean, square = state.target_total / n, state.target_square / n
    target_variance = square - np.square(target_mean)
    # The variance of a constant is rounding only.
    is_varying = (state.count >= 2) & (target_variance > RESOLUTION**2 * square)
    mean = state.total[k] / n
    covariance = state.gram[k] / n - np.outer(mean, mean)
    size = np.trace(covariance) / M
    a = _ledoit_wolf(n, mean, covariance, state.cubic[k] / n, state.quartic[k] / n) if size > 0 else 0.0
    variances, vectors = scipy.linalg.eigh(covariance)
    variances = np.maximum(variances, 0)
    # Copies of one feature may need no shrinkage, and have no inverse; the smallest ridge gives them one.
    shrunk = (1 - a) * variances + (a + RESOLUTION**2) * size if size > 0 else np.ones(M)
    with_target = vectors.T @ (state.cross[k] / n - np.outer(mean, target_mean))
    return _Directions(a, vectors, variances, shrunk, with_target, np.where(is_varying, target_variance, 1), is_varying)


def _ledoit_wolf(
    n: int,
    mean: Float[np.ndarray, " M"],
    covariance: Float[np.ndarray, "M M"],
    cubic: Float[np.ndarray, " M"],
    quartic: float,
) -> float:
    """Intensity of shrinkage from means of powers about 0: of length squared times coordinate, of length^4."""
    M, trace = len(mean), np.trace(covariance)
    distance = mean @ mean
    # Both powers are moved from 0 to the mean, about which d = x - mean sums to 0: |x|^2 = |d|^2 + 2 d'mean + |mean|^2.
    moved = covariance @ mean
    cubic = cubic - trace * mean - 2 * moved - distance * mean
    quartic = quartic - 4 * mean @ moved - distance**2 - 4 * cubic @ mean - 2 * trace * distance
    squares = np.square(covariance).sum()
    noise = (quartic - squares) / (M * n)
    spread = (squares - trace**2 / M) / M
    return float(np.clip(noise / spread, 0, 1)) if spread > RESOLUTION**2 * squares / M else 0.0


def without_each(
    whole: State,
    rows: Float[np.ndarray, "N M"],
    targets: Float[np.ndarray, "N Y"],
    group: Int[np.ndarray, " N"],
    num_groups: int,
) -> Float[np.ndarray, "G Y"]:
    """`multiple` of one layer without each group of speakers in turn, for `uncertainty.jackknife`.

    Args:
      whole: State of all these utterances.
      rows: `coordinates` of each utterance, those of all utterances together.
      targets: Targets.
      group: Group of each utterance, 0..G-1.
      num_groups: G.
    """
    nothing, without = empty(1, rows.shape[1], targets.shape[1]), []
    for g in range(num_groups):
        is_in = group == g
        without.append(compute(remove(whole, update(nothing, rows[None, is_in], targets[is_in]))).multiple)
    return np.concatenate(without)

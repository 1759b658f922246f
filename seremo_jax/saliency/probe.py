"""The ridge probe of a layer: how well a linear function of its mean features predicts the targets of new speakers.

    state = empty(num_layers, num_folds, num_features, num_targets)
    for means, targets, fold in batches:                                      # [K, N, D], [N, Y], [N]
        state = update(state, means, targets, fold)
    fitted = solve(state)                                                     # ccc [K, V, Y] of every ridge strength
    prediction = predict(fitted, means, fold)                                 # by the weights that never saw that fold

Targets of one state share their utterances. Targets with another mask get a state of their own (`same_utterances`), so
that every target is exact. Sums are kept by fold: the sums of all folds but one, merged, are the training set of that
fold, and so cross-validation needs no second pass over the data. They are sums of deviations from means, means are
relative to a value of the data itself, and sums are pairs of float32 (`metrics.comoments`). A state takes
8 K F D (D + Y) bytes: 1.05 GB for 25 layers, 5 folds and 1024 features, half of it the second halves of the pairs.
Layers are independent, and one layer takes 42 MB.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.metrics.comoments import add_pairs, merge_means, on_one_shift, pair
from seremo_jax.metrics.moments import Moments
from seremo_jax.saliency.correlation import HIGHEST, RESOLUTION

RIDGES = tuple(float(value) for value in 10.0 ** np.arange(2, -3.25, -0.5))
"""Ridge strengths tried, strongest first, as multiples of the number of training utterances (features have sd 1).

Float32 products leave errors of about 1e-7 in correlations; the weakest ridge keeps them from growing into the curve.
"""


class State(NamedTuple):
    """Mergeable co-moments of the utterances of each fold.

    Attributes:
      count: [F] int32 utterances.
      feature_shift: [K, D] value that feature means are relative to.
      feature_mean: [K, F, D] mean minus shift.
      gram: [2, K, F, D, D] sum of products of two features' deviations from the mean, leading digits and the rest.
      target_shift: [Y] value that target means are relative to.
      target_mean: [F, Y] mean minus shift.
      target_moment: [2, F, Y] sum of squared deviations from the mean, likewise.
      cross: [2, K, F, D, Y] sum of products of the deviations of feature and target, likewise.
    """

    count: Array
    feature_shift: Array
    feature_mean: Array
    gram: Array
    target_shift: Array
    target_mean: Array
    target_moment: Array
    cross: Array


class Probe(NamedTuple):
    """What `solve` returns, float64 NumPy arrays. Fold f's weights come from all folds but f.

    Attributes:
      ccc: [K, V, Y] CCC of the held-out predictions of all folds together, for each ridge strength.
      ridge: [K, Y] the strength of largest CCC, the strongest of equal ones.
      weights: [K, F, D, Y] of the raw features, at that strength.
      bias: [K, F, Y] likewise.
      held_out: Moments [K, Y] of the held-out predictions at that strength; `absolute_error` is NaN: sums lack it.
    """

    ccc: np.ndarray
    ridge: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    held_out: Moments


def same_utterances(mask: Bool[np.ndarray, "N Y"]) -> list[np.ndarray]:
    """Targets in groups of one and the same mask; those without any utterance are in none."""
    groups: dict[bytes, list[int]] = {}
    for y in range(mask.shape[1]):
        if mask[:, y].any():
            groups.setdefault(np.packbits(mask[:, y]).tobytes(), []).append(y)
    return [np.array(group) for group in groups.values()]


def empty(num_layers: int, num_folds: int, num_features: int, num_targets: int) -> State:
    """State of no utterances; neutral under `merge`."""
    K, F, D, Y = num_layers, num_folds, num_features, num_targets
    shapes = ((K, D), (K, F, D), (2, K, F, D, D), (Y,), (F, Y), (2, F, Y), (2, K, F, D, Y))
    return State(jnp.zeros(F, jnp.int32), *(jnp.zeros(shape, jnp.float32) for shape in shapes))


def update(state: State, means: Float[Array, "K N D"], targets: Float[Array, "N Y"], fold: Int[Array, " N"]) -> State:
    """Adds a batch of utterances.

    Args:
      state: State so far.
      means: Means over valid frames of each utterance.
      targets: Targets.
      fold: Fold of each utterance's speaker; any number outside 0..F-1 leaves the utterance out, and its row may hold
        anything.
    """
    if means.shape[1] == 0:
        return state
    is_in = fold[None, :] == jnp.arange(state.count.shape[0])[:, None]
    is_row, weight, count = is_in.any(axis=0), is_in.astype(jnp.float32), is_in.sum(axis=1, dtype=jnp.int32)
    num_rows = jnp.maximum(count, 1).astype(jnp.float32)
    has_begun, first = (state.count > 0).any(), jnp.argmax(is_row)

    def shifted(values: Array, shift: Array) -> tuple[Array, Array]:
        """Values [N, ...] minus the shift, which is that of the state or the first row."""
        shift = jnp.where(has_begun, shift, jnp.where(is_row.any(), values[first], 0)).astype(jnp.float32)
        return jnp.where(is_row[:, None], values.astype(jnp.float32) - shift[None, :], 0), shift

    def mean_of(values: Array) -> Array:
        return jnp.matmul(weight, values, precision=HIGHEST) / num_rows[:, None]

    targets, target_shift = shifted(targets, state.target_shift)
    target_mean = mean_of(targets)
    targets = targets - jnp.matmul(weight.T, target_mean, precision=HIGHEST)

    def of_layer(inputs: tuple[Array, Array]) -> tuple[Array, ...]:
        features, shift = shifted(*inputs)
        mean = mean_of(features)

        # Each fold multiplies all rows, with zeros for those of other folds. This is F times the least work, but the
        # shapes do not depend on who is in which fold, so that it compiles once.
        def of_fold(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            rows, centre = inputs
            deviations = jnp.where(rows[:, None], features - centre[None, :], 0)
            both = jnp.concatenate([deviations, targets], axis=1)
            return tuple(jnp.split(jnp.matmul(deviations.T, both, precision=HIGHEST), [features.shape[1]], axis=1))

        return shift, mean, *jax.lax.map(of_fold, (is_in, mean))

    feature_shift, feature_mean, gram, cross = jax.lax.map(of_layer, (means, state.feature_shift))
    moment = jnp.matmul(weight, jnp.square(targets), precision=HIGHEST)
    means = feature_mean, pair(gram), target_shift, target_mean
    batch = State(count, feature_shift, *means, pair(moment), pair(cross))
    return merge(state, batch)


def merge(a: State, b: State) -> State:
    """Both states as one; associative and commutative to rounding. Source: as `comoments.merge_means`."""
    # All targets of a state have the same utterances, so both shifts come from the first utterance of any fold.
    has_rows = (a.count > 0).any()
    feature_shift, feature_a, feature_b = on_one_shift(
        has_rows, a.feature_shift[:, None, :], a.feature_mean, b.feature_shift[:, None, :], b.feature_mean
    )
    target_shift, target_a, target_b = on_one_shift(
        has_rows, a.target_shift[None, :], a.target_mean, b.target_shift[None, :], b.target_mean
    )
    counts = a.count[None, :, None], b.count[None, :, None]
    feature_mean, step, factor = merge_means(counts[0], feature_a, counts[1], feature_b)
    target_mean, target_step, target_factor = merge_means(counts[0][0], target_a, counts[1][0], target_b)
    scaled = step * factor
    return State(
        count=a.count + b.count,
        feature_shift=feature_shift[:, 0],
        feature_mean=feature_mean,
        gram=add_pairs(a.gram, b.gram, scaled[..., :, None] * step[..., None, :]),
        target_shift=target_shift[0],
        target_mean=target_mean,
        target_moment=add_pairs(a.target_moment, b.target_moment, jnp.square(target_step) * target_factor),
        cross=add_pairs(a.cross, b.cross, scaled[..., :, None] * target_step[None, :, None, :]),
    )


class _Sums(NamedTuple):
    """One layer's sums in float64, of one fold or of several merged.

    Attributes:
      n: Utterances.
      x: [D] means of the features.
      xx: [D, D] sums of products of two features' deviations.
      y: [Y] means of the targets.
      yy: [Y] sums of squared deviations of the targets.
      xy: [D, Y] sums of products of a feature's and a target's deviations.
    """

    n: float
    x: np.ndarray
    xx: np.ndarray
    y: np.ndarray
    yy: np.ndarray
    xy: np.ndarray

    def merge(self, other: "_Sums") -> "_Sums":
        x, step_x, factor = merge_means(self.n, self.x, other.n, other.x)
        y, step_y, _ = merge_means(self.n, self.y, other.n, other.y)
        return _Sums(
            self.n + other.n,
            x,
            self.xx + other.xx + factor * np.outer(step_x, step_x),
            y,
            self.yy + other.yy + factor * step_y * step_y,
            self.xy + other.xy + factor * np.outer(step_x, step_y),
        )


def solve(state: State, ridges: tuple[float, ...] = RIDGES) -> Probe:
    """Cross-validates the probes over the folds, from the sums alone, on the host in float64.

    For each fold the weights are those of the other folds, features standardised by the other folds' mean and sd, and
    the moments of its held-out predictions follow from its own sums. The folds' moments are merged before CCC is taken,
    because a mean of CCCs is not the CCC of all. The strength is chosen by that same CCC, layer by layer and target by
    target. As the best of V strengths it is slightly too high, for every layer alike.

    Args:
      state: Of two folds or more; features that are constant over the training folds get no weight.
      ridges: Strengths, as multiples of the number of training utterances.

    Raises:
      ValueError: Fewer than two folds have utterances.

    Source: OURS; ridge regression is KNOWN: A. E. Hoerl, R. W. Kennard, Technometrics 12(1), 1970.
    """
    if (np.asarray(state.count) > 0).sum() < 2:
        raise ValueError("a probe needs utterances in two folds or more: one to train on, one to look at")
    layers = [_solve_layer(_sums_of(state, k), ridges) for k in range(state.feature_mean.shape[0])]
    ccc, ridge, weights, bias, held_out = zip(*layers, strict=True)
    # Predictions are of features relative to their shift, and give targets relative to theirs.
    shift = np.asarray(state.feature_shift, np.float64)
    target_shift = np.asarray(state.target_shift, np.float64)
    weights = np.stack(weights)
    bias = np.stack(bias) + target_shift - np.einsum("kd,kfdy->kfy", shift, weights)
    moments = Moments(*map(np.stack, zip(*held_out, strict=True)))
    moments = moments._replace(
        mean_prediction=moments.mean_prediction + target_shift, mean_target=moments.mean_target + target_shift
    )
    return Probe(np.stack(ccc), np.stack(ridge), weights, bias, moments)


def _sums_of(state: State, k: int) -> list[_Sums]:
    gram, cross, moment = (
        pair[0].astype(np.float64) + pair[1].astype(np.float64)
        for pair in (np.asarray(state.gram)[:, k], np.asarray(state.cross)[:, k], np.asarray(state.target_moment))
    )
    means = np.asarray(state.feature_mean)[k], np.asarray(state.target_mean), np.asarray(state.count)
    x, y, count = (values.astype(np.float64) for values in means)
    return [_Sums(count[f], x[f], gram[f], y[f], moment[f], cross[f]) for f in range(len(count))]


def _solve_layer(folds: list[_Sums], ridges: tuple[float, ...]) -> tuple:
    D, Y = folds[0].xy.shape
    total = Moments(*(np.zeros((len(ridges), Y)) for _ in Moments._fields))
    weights, bias = np.zeros((len(folds), len(ridges), D, Y)), np.zeros((len(folds), len(ridges), Y))
    for f, held_out_sums in enumerate(folds):
        others = [fold for g, fold in enumerate(folds) if g != f and fold.n > 0]
        train = others[0]
        for fold in others[1:]:
            train = train.merge(fold)
        weights[f] = _weights(train, ridges)
        bias[f] = train.y - np.einsum("d,vdy->vy", train.x, weights[f])
        if held_out_sums.n > 0:
            total = total.merge(_held_out(held_out_sums, weights[f], bias[f]))
    ccc = total.compute().ccc
    best, columns = ccc.argmax(axis=0), np.arange(Y)
    # The strength of each target is picked by its CCC over all held-out folds together, not fold by fold.
    held_out = Moments(*(leaf[best, columns] for leaf in total))
    picked = np.moveaxis(weights, 1, 0)[best, :, :, columns], np.moveaxis(bias, 1, 0)[best, :, columns]
    return ccc, np.array(ridges)[best], np.moveaxis(picked[0], 0, -1), np.moveaxis(picked[1], 0, -1), held_out


def _weights(train: _Sums, ridges: tuple[float, ...]) -> Float[np.ndarray, "V D Y"]:
    """Weights of the raw features; a Cholesky factor a strength, together faster than one eigendecomposition."""
    variance = np.diagonal(train.xx) / train.n
    is_constant = variance <= RESOLUTION**2 * (variance + train.x**2)
    scale = np.where(is_constant, 0, 1 / np.sqrt(np.where(is_constant, 1, variance)))
    correlation = train.xx / train.n * scale[:, None] * scale[None, :]
    products = train.xy / train.n * scale[:, None]
    weights = np.empty((len(ridges), *products.shape))
    # Features are scaled to sd 1 first, so that one strength means the same for all of them, whatever their units.
    for v, ridge in enumerate(ridges):
        factor = scipy.linalg.cho_factor(correlation + ridge * np.eye(len(scale)), overwrite_a=True)
        weights[v] = scipy.linalg.cho_solve(factor, products)
    return scale[None, :, None] * weights


def _held_out(fold: _Sums, weights: Float[np.ndarray, "V D Y"], bias: Float[np.ndarray, "V Y"]) -> Moments:
    """Moments [V, Y] of the predictions for a fold, without making a prediction.

    A prediction is w'x + b, so its mean is w' mean(x) + b, its squared deviations sum to w' XX w and their products
    with those of the target to w' XY.
    """
    prediction = np.einsum("d,vdy->vy", fold.x, weights) + bias
    squares = np.maximum(np.einsum("vdy,vdy->vy", weights, fold.xx @ weights), 0)
    products = np.einsum("vdy,dy->vy", weights, fold.xy)
    shape = prediction.shape
    target, moment = np.broadcast_to(fold.y, shape), np.broadcast_to(fold.yy, shape)
    error = squares + moment - 2 * products + fold.n * (prediction - target) ** 2
    return Moments(np.full(shape, fold.n), prediction, target, squares, moment, products, np.full(shape, np.nan), error)


def predict(probe: Probe, means: Float[np.ndarray, "K N D"], fold: Int[np.ndarray, " N"]) -> Float[np.ndarray, "K N Y"]:
    """Held-out predictions in float64: each utterance by the weights of the folds that its speaker is not in."""
    prediction = np.zeros((*means.shape[:2], probe.ridge.shape[1]))
    for f in range(probe.weights.shape[1]):
        rows = fold == f
        prediction[:, rows] = means[:, rows].astype(np.float64) @ probe.weights[:, f] + probe.bias[:, f, None]
    return prediction

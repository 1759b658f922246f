"""How strongly every feature of every layer correlates with a target, from co-moments of all layers that merge.

    state = empty(num_layers, num_features, num_targets)
    for hidden, num_frames, targets, mask in batches:
        state = update(state, mean_over_frames(hidden, num_frames), targets, mask)
    saliency = compute(state)                                                 # correlation [K, D, Y]

Targets `Y` are attributes, then vote shares. Each has its own mask, and its correlation is over exactly the utterances
that have it. Means are kept relative to a value of the data itself (`*_shift`), so float32 loses nothing where a mean
is hundreds of standard deviations from 0, and a constant feature has a second moment of exactly 0. Sums are pairs of
float32, so a thousand small batches lose no more than one large one. `metrics.comoments` has the arithmetic.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.metrics.comoments import add_pairs, merge_means, on_one_shift, pair

HIGHEST = jax.lax.Precision.HIGHEST
"""Precision of matrix products: accelerators would otherwise round their factors."""

RESOLUTION = 2e-5
"""Share of a sum that rounding may leave where the sum of equal numbers is subtracted from another in float32.

A second moment below it is that of a constant. Without this rule rounding noise would be divided by rounding noise, and
a constant feature could correlate perfectly.
"""

_NUM_CENTRE_ROWS = 32
"""Rows of a batch from which its centre is taken. The centre need only be near the mean."""


class State(NamedTuple):
    """Mergeable co-moments, of the utterances under each target's mask.

    Attributes:
      count: [Y] int32 utterances that have the target.
      feature_shift: [K, D] value that feature means are relative to.
      feature_mean: [K, D, Y] mean minus shift.
      feature_moment: [2, K, D, Y] sum of squared deviations from the mean, its leading digits and the rest.
      target_shift: [Y] value that target means are relative to.
      target_mean: [Y] mean minus shift.
      target_moment: [2, Y] sum of squared deviations from the mean, likewise.
      comoment: [2, K, D, Y] sum of products of both deviations, likewise.
    """

    count: Array
    feature_shift: Array
    feature_mean: Array
    feature_moment: Array
    target_shift: Array
    target_mean: Array
    target_moment: Array
    comoment: Array


class Saliency(NamedTuple):
    """What `compute` returns, float32.

    Attributes:
      correlation: [K, D, Y] absolute Pearson correlation in [0, 1]; 0 where feature or target is constant.
      per_layer: [K, Y] mean of `correlation` over features, constant ones included.
      num_constant: [K] int32 features that are constant over the utterances of every target that varies.
      is_varying: [Y] bool, the target has two utterances or more and varies over them.
      count: [Y] int32 utterances that have the target.
    """

    correlation: Array
    per_layer: Array
    num_constant: Array
    is_varying: Array
    count: Array


def mean_over_frames(hidden: Float[Array, "K B T D"], num_frames: Int[Array, " B"]) -> Float[Array, "K B D"]:
    """Mean of each feature over an utterance's valid frames, float32; 0 for an utterance without frames."""
    is_valid = jnp.arange(hidden.shape[2])[None, :] < num_frames[:, None]
    share = is_valid / jnp.maximum(num_frames, 1)[:, None].astype(jnp.float32)

    def of_layer(frames: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        frames = jnp.where(is_valid[..., None], frames.astype(jnp.float32), 0)
        return jnp.einsum("btd,bt->bd", frames, share, precision=HIGHEST)

    return jax.lax.map(of_layer, hidden)


def empty(num_layers: int, num_features: int, num_targets: int) -> State:
    """State of no utterances; neutral under `merge`."""
    of_feature = jnp.zeros((num_layers, num_features), jnp.float32)
    of_target = jnp.zeros(num_targets, jnp.float32)
    of_pair = jnp.zeros((num_layers, num_features, num_targets), jnp.float32)
    count = jnp.zeros(num_targets, jnp.int32)
    return State(count, of_feature, of_pair, pair(of_pair), of_target, of_target, pair(of_target), pair(of_pair))


def update(state: State, means: Float[Array, "K N D"], targets: Float[Array, "N Y"], mask: Bool[Array, "N Y"]) -> State:
    """Adds a batch of utterances.

    Args:
      state: State so far.
      means: Means over valid frames of each utterance; rows without any target may hold anything.
      targets: Targets; entries outside the mask may hold anything.
      mask: False leaves an utterance out of that target.
    """
    if means.shape[1] == 0:
        return state
    count = mask.sum(axis=0, dtype=jnp.int32)
    num_rows = jnp.maximum(count, 1).astype(jnp.float32)
    weight, is_row = mask.astype(jnp.float32), mask.any(axis=1)

    targets = jnp.where(mask, targets.astype(jnp.float32), 0)
    first = jnp.take_along_axis(targets, jnp.argmax(mask, axis=0)[None, :], axis=0)[0]
    target_shift = jnp.where(state.count > 0, state.target_shift, first)
    targets = jnp.where(mask, targets - target_shift[None, :], 0)
    target_mean = targets.sum(axis=0) / num_rows
    targets = jnp.where(mask, targets - target_mean[None, :], 0)

    first_row = jnp.where(is_row.any(), means[:, jnp.argmax(is_row)], 0).astype(jnp.float32)
    feature_shift = jnp.where((state.count > 0).any(), state.feature_shift, first_row)
    has_rows, step = (count > 0).astype(jnp.float32), max(1, means.shape[1] // _NUM_CENTRE_ROWS)
    # Mostly every target has either all the rows with any target or none of them. Then the sums over features do not
    # depend on the target and are taken once.
    is_same = (mask == (is_row[:, None] & (count > 0)[None, :])).all()
    in_any = is_row.astype(jnp.float32)[:, None]

    def centred(features: Array, shift: Array) -> tuple[Array, Array]:
        some, is_some = features[::step].astype(jnp.float32), is_row[::step, None]
        some = jnp.where(is_some, some - shift[None, :], 0).sum(axis=0) / jnp.maximum(is_some.sum(), 1)
        centre = shift + some
        # The centre is near the mean of the rows with any target, and so near that under each target's own mask. One
        # product then serves every mask, and the rest of the mean is small enough to be subtracted in float32. Only
        # where a target's own utterances differ from the others by over 200 times their spread does a feature count as
        # constant there. The rounded centre was subtracted, so its distance from the shift, which is exact, is returned
        # and not the unrounded mean.
        return centre - shift, jnp.where(is_row[:, None], features.astype(jnp.float32) - centre[None, :], 0)

    def for_all(inputs: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
        beyond, features = centred(*inputs)
        sums = _product(jnp.concatenate([targets, in_any], axis=1), features)
        squares = jnp.square(features).sum(axis=0)
        return beyond, sums[:-1], has_rows[:, None] * sums[-1:], has_rows[:, None] * squares[None, :]

    def for_each(inputs: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
        beyond, features = centred(*inputs)
        products, totals = jnp.split(_product(jnp.concatenate([targets, weight], axis=1), features), 2)
        return beyond, products, totals, _product(weight, jnp.square(features))

    # Layer by layer: temporaries of one layer stay in cache, and those of all layers need not fit in memory.
    ways = (functools.partial(jax.lax.map, way) for way in (for_all, for_each))
    centre, *sums = jax.lax.cond(is_same, *ways, (means, feature_shift))
    # The axes are swapped here, outside the map. Inside it XLA would fold the swap into the products, which makes them
    # many times slower.
    products, totals, squares = (jnp.swapaxes(value, 1, 2) for value in sums)
    moment = squares - jnp.square(totals) / num_rows[None, None, :]
    batch = State(
        count=count,
        feature_shift=feature_shift,
        feature_mean=centre[:, :, None] * has_rows[None, None, :] + totals / num_rows[None, None, :],
        feature_moment=pair(jnp.where(moment <= RESOLUTION * squares, 0, moment)),
        target_shift=target_shift,
        target_mean=target_mean,
        target_moment=pair(jnp.square(targets).sum(axis=0)),
        comoment=pair(products),
    )
    return merge(state, batch)


def _product(columns: Float[Array, "N M"], features: Float[Array, "N D"]) -> Float[Array, "M D"]:
    return jnp.matmul(columns.T, features, precision=HIGHEST)


def merge(a: State, b: State) -> State:
    """Both states as one; associative and commutative to rounding. Source: as `comoments.merge_means`."""
    # The features have one shift, which the first rows of any target set. Each target has a shift of its own: its first
    # row may come batches later than those of the others.
    has_rows = a.count > 0
    feature_shift, mean_a, mean_b = on_one_shift(
        has_rows.any(), a.feature_shift[..., None], a.feature_mean, b.feature_shift[..., None], b.feature_mean
    )
    target_shift, target_a, target_b = on_one_shift(
        has_rows, a.target_shift, a.target_mean, b.target_shift, b.target_mean
    )
    target_mean, target_step, factor = merge_means(a.count, target_a, b.count, target_b)
    feature_mean, step, factors = merge_means(a.count[None, None, :], mean_a, b.count[None, None, :], mean_b)
    return State(
        count=a.count + b.count,
        feature_shift=feature_shift[..., 0],
        feature_mean=feature_mean,
        feature_moment=add_pairs(a.feature_moment, b.feature_moment, jnp.square(step) * factors),
        target_shift=target_shift,
        target_mean=target_mean,
        target_moment=add_pairs(a.target_moment, b.target_moment, jnp.square(target_step) * factor),
        comoment=add_pairs(a.comoment, b.comoment, step * target_step[None, None, :] * factors),
    )


def compute(state: State) -> Saliency:
    """Absolute Pearson correlations, and their mean over features for each layer and target.

    Source: METHOD.md, section 7 (INFERRED: absolute Pearson correlation of means over frames; OURS: constants count 0).
    """
    count = jnp.maximum(state.count, 1).astype(jnp.float32)
    feature_moment, target_moment = state.feature_moment[0], state.target_moment[0]
    is_varying = (state.count >= 2) & (target_moment > 0)
    variance = feature_moment / count[None, None, :]
    # All targets share products, so rounding is as coarse as the largest values that any target's sums were taken with.
    scale = jnp.max(variance + jnp.square(state.feature_mean), axis=2, keepdims=True)
    is_constant = variance <= RESOLUTION**2 * scale
    is_zero = is_constant | ~is_varying[None, None, :]
    # The root of each, since the product of two sums over a corpus may overflow float32.
    spread = jnp.sqrt(feature_moment) * jnp.sqrt(target_moment)[None, None, :]
    correlation = jnp.abs(state.comoment[0]) / jnp.where(is_zero, 1, spread)
    # Rounding may leave a correlation just above 1.
    correlation = jnp.where(is_zero, 0, jnp.minimum(correlation, 1))
    num_constant = is_zero.all(axis=2).sum(axis=1, dtype=jnp.int32)
    return Saliency(correlation, correlation.mean(axis=1), num_constant, is_varying, state.count)


def targets_in_use(
    saliency: Saliency, target_names: Sequence[str], attribute_names: Sequence[str], use: str
) -> Bool[np.ndarray, " Y"]:
    """The targets that the score of a layer is the mean over: those in use that vary.

    Args:
      saliency: From `compute`.
      target_names: Names of all targets, in their order.
      attribute_names: Those that are attributes; the others are vote shares.
      use: `attributes` or `votes`.

    Raises:
      ValueError: Unknown `use`, names that do not fit, or none of these targets varies (the corpus lacks them).

    Source: METHOD.md, section 7.
    """
    if use not in ("attributes", "votes"):
        raise ValueError(f"saliency.targets = {use!r}: choose attributes or votes")
    is_varying = np.asarray(saliency.is_varying)
    if len(target_names) != len(is_varying):
        raise ValueError(f"{len(target_names)} target names for saliency against {len(is_varying)} targets")
    is_attribute = np.array([name in attribute_names for name in target_names], bool)
    is_used = is_varying & (is_attribute if use == "attributes" else ~is_attribute)
    if not is_used.any():
        other = "votes" if use == "attributes" else "attributes"
        raise ValueError(f"none of the {use} varies over the utterances seen: set saliency.targets={other} if it fits")
    return is_used


def without_each(
    means: Float[np.ndarray, "N D"],
    targets: Float[np.ndarray, "N Y"],
    mask: Bool[np.ndarray, "N Y"],
    group: Int[np.ndarray, " N"],
    num_groups: int,
) -> Float[np.ndarray, "G Y"]:
    """`per_layer` of one layer without each group of speakers in turn, float64, for `uncertainty.jackknife`.

    Args:
      means: Means over valid frames of each utterance.
      targets: Targets.
      mask: False leaves an utterance out of that target.
      group: Group of each utterance, 0..G-1.
      num_groups: G.
    """
    G, D, Y = num_groups, means.shape[1], targets.shape[1]
    features = means.astype(np.float64) - means[:1].astype(np.float64)
    features -= features.mean(axis=0)
    weight, count = mask.astype(np.float64), mask.sum(axis=0)
    values = np.where(mask, targets, 0).astype(np.float64)
    values = np.where(mask, values - values.sum(axis=0) / np.maximum(count, 1), 0)
    sums = np.zeros((3, G, Y, D))
    target_sums = np.zeros((3, G, Y, 1))
    for g in range(G):
        rows = group == g
        x, w, y = features[rows], weight[rows], values[rows]
        sums[:, g] = w.T @ x, w.T @ (x * x), y.T @ x
        target_sums[:, g, :, 0] = w.sum(axis=0), y.sum(axis=0), (y * y).sum(axis=0)
    # Everything without a group is the whole less that group: G results from one pass over the utterances.
    x, xx, xy = sums.sum(axis=1, keepdims=True) - sums
    n, y, yy = target_sums.sum(axis=1, keepdims=True) - target_sums
    n = np.maximum(n, 1)
    x_moment, y_moment, comoment = xx - x * x / n, yy - y * y / n, xy - x * y / n
    # The second moment of a constant is rounding only.
    is_zero = (x_moment <= RESOLUTION**2 * xx) | (y_moment <= RESOLUTION**2 * yy)
    spread = np.sqrt(np.where(is_zero, 1, x_moment * y_moment))
    return np.where(is_zero, 0, np.minimum(np.abs(comoment) / spread, 1)).mean(axis=2)


def to_arrays(state: State) -> dict[str, np.ndarray]:
    """The state as named NumPy arrays, for `np.savez`."""
    return {name: np.asarray(value) for name, value in state._asdict().items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> State:
    """The state that `to_arrays` wrote; further entries are ignored.

    Raises:
      ArtefactError: Entries are missing, or their shapes do not fit together.
    """
    missing = [name for name in State._fields if name not in arrays]
    if missing:
        raise ArtefactError(f"saliency state lacks {', '.join(missing)}; compute the saliency again")
    state = State(*(jnp.asarray(arrays[name]) for name in State._fields))
    shapes = [value.shape for value in state]
    if state.comoment.ndim != 4 or shapes != [value.shape for value in empty(*state.comoment.shape[1:])]:
        shapes = ", ".join(f"{name} {shape}" for name, shape in zip(State._fields, shapes, strict=True))
        raise ArtefactError(f"shapes of the saliency state do not fit together ({shapes}); compute the saliency again")
    return state

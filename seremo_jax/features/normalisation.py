"""Mean and standard deviation of every feature of every layer over all valid frames, for the head's z-score.

The moments are mergeable, so that one pass over the data in any order and any split gives the same statistics.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.metrics.comoments import merge_means, on_one_shift

_HIGHEST = jax.lax.Precision.HIGHEST
MIN_SD = 1e-6
"""A standard deviation below this counts as 1."""


class State(NamedTuple):
    """Mergeable moments over frames.

    Attributes:
      count: [] int32 number of frames (2^31 frames are 11,900 hours at 50 frames/s).
      shift: [K, D] value that means are relative to. It is a frame of the data: features far from zero would otherwise
        lose the digits of what varies in float32.
      mean: [K, D] mean minus shift.
      moment: [K, D] sum of squared deviations from the mean.
    """

    count: Array
    shift: Array
    mean: Array
    moment: Array


def empty(num_layers: int, num_features: int) -> State:
    """State of no frames. To merge it with another state gives the other state."""
    zeros = jnp.zeros((num_layers, num_features), jnp.float32)
    return State(jnp.zeros((), jnp.int32), zeros, zeros, zeros)


def update(
    state: State, hidden: Float[Array, "K B T D"], num_frames: Int[Array, " B"], is_counted: Bool[Array, " B"]
) -> State:
    """Adds the valid frames of a batch.

    Args:
      state: State so far.
      hidden: Hidden states, with any finite values beyond the length of each utterance.
      num_frames: Valid frames of each utterance.
      is_counted: False leaves an utterance out.
    """
    if hidden.shape[1] == 0 or hidden.shape[2] == 0:
        return state
    is_valid = (jnp.arange(hidden.shape[2])[None, :] < num_frames[:, None]) & is_counted[:, None]
    count = is_valid.sum(dtype=jnp.int32)
    weight, divisor = is_valid.astype(jnp.float32), jnp.maximum(count, 1).astype(jnp.float32)
    row = jnp.argmax(is_valid.any(axis=1))
    # The first frame of the first utterance that is counted becomes the shift, unless there is one already.
    first = jnp.where(count > 0, hidden[:, row, 0], 0).astype(jnp.float32)
    shift = jnp.where(state.count > 0, state.shift, first)

    def layer_moments(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        frames, start = inputs

        def total(values: Array) -> Array:
            # The frames of each utterance are added up first, then the utterances, as shorter sums round less.
            return jnp.einsum("btd,bt->bd", values, weight, precision=_HIGHEST).sum(axis=0)

        frames = jnp.where(is_valid[..., None], frames.astype(jnp.float32) - start[None, None, :], 0)
        # Two passes over the batch: deviations from its own mean keep the digits that a mean of squares would lose.
        mean = total(frames) / divisor
        frames = jnp.where(is_valid[..., None], frames - mean[None, None, :], 0)
        return mean, total(jnp.square(frames))

    # Layer by layer, so that temporaries are those of one layer. On CPU that is 4 to 10 times as fast as all at once.
    mean, moment = jax.lax.map(layer_moments, (hidden, shift))
    return merge(state, State(count, shift, mean, moment))


def merge(a: State, b: State) -> State:
    """Both states as one. Associative and commutative to rounding.

    Source: as `comoments.merge_means`.
    """
    # Deviations in each state are from its own mean. Around the common mean, each sum of squares grows by the square of
    # its distance from there times its count, which together is the square of the step between both means times a
    # factor.
    shift, mean_a, mean_b = on_one_shift(a.count > 0, a.shift, a.mean, b.shift, b.mean)
    mean, step, factor = merge_means(a.count, mean_a, b.count, mean_b)
    return State(a.count + b.count, shift, mean, a.moment + b.moment + jnp.square(step) * factor)


def compute(state: State) -> tuple[Float[Array, "K D"], Float[Array, "K D"]]:
    """Mean and population standard deviation of each feature, float32; one below 1e-6 is returned as 1.

    Source: METHOD.md, section 4.2, step 1.
    """
    sd = jnp.sqrt(state.moment / jnp.maximum(state.count, 1).astype(jnp.float32))
    return jnp.asarray(state.shift) + state.mean, jnp.where(sd < MIN_SD, 1.0, sd)

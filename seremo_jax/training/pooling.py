"""Summaries of the states of each utterance, wherever it lies in the rows."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def pool(
    states: Float[Array, "T R H"], slot: Int[Array, "T R"], last_frame: Int[Array, "B"], kind: str
) -> Float[Array, "B P"]:
    """Summary of each utterance's states, see `vocab.POOLINGS`; any finite values in slots without an utterance here.

    Raises:
      ValueError: No pooling of this name.
    """
    # Frames and rows in one axis, so that one gather or one sum by segments serves utterances anywhere in the rows.
    return known(POOLINGS, kind, "pooling").compute(states.reshape(-1, states.shape[-1]), slot.reshape(-1), last_frame)


def num_widths(kind: str) -> int:
    """Width of a summary in widths of a state.

    Raises:
      ValueError: No pooling of this name.
    """
    return known(POOLINGS, kind, "pooling").num_widths


def known(table: Mapping[str, Any], name: str, what: str) -> Any:
    """What a head computes under a name.

    Raises:
      ValueError: Nothing; the message has the names there are.
    """
    if name not in table:
        raise ValueError(f"heads compute no {what} {name!r}; they have {', '.join(table)}")
    return table[name]


def first_frames(slot: Int[Array, "T R"], last_frame: Int[Array, "B"]) -> Int[Array, "B"]:
    """Index `t * R + r` of the first frame of the utterance in each slot; any frame where it has none here.

    Args:
      slot: Slot of the utterance each frame belongs to, -1 in gaps and padding.
      last_frame: Index of the last frame of the utterance in each slot.
    """
    length = _num_frames(_segment(slot.reshape(-1), last_frame), last_frame)[:-1]
    return last_frame - (jnp.maximum(length, 1) - 1) * slot.shape[1]


class _Pooling(NamedTuple):
    """How a summary is computed, from the states [T * R, H] and slots of all frames and the last frame of each slot.

    Its width is `num_widths` times H.
    """

    compute: Callable[[Array, Array, Array], Array]
    num_widths: int


def _last_valid(states: Array, slot: Array, last_frame: Array) -> Array:
    return states[last_frame]


def _mean(states: Array, slot: Array, last_frame: Array) -> Array:
    return _mean_by_slot(states, _segment(slot, last_frame), last_frame)[:-1]


def _mean_sd(states: Array, slot: Array, last_frame: Array) -> Array:
    segment = _segment(slot, last_frame)
    centre = _mean_by_slot(states, segment, last_frame)
    variance = _mean_by_slot(jnp.square(states - centre[segment]), segment, last_frame)
    # The variance of an utterance of one frame is 0, where the slope of the root is infinite.
    sd = jnp.sqrt(jnp.maximum(variance, 1e-10))
    return jnp.concatenate([centre, sd], axis=1)[:-1]


def _segment(slot: Array, last_frame: Array) -> Array:
    # Gaps and padding go to one segment more than there are slots, which is cut off at the end.
    return jnp.where(slot < 0, last_frame.shape[0], slot)


def _num_frames(segment: Array, last_frame: Array) -> Array:
    # Not by `jnp.bincount`, which takes no number of slots that is known only when an exported head is called.
    return jnp.zeros(last_frame.shape[0] + 1, jnp.int32).at[segment].add(1)


def _mean_by_slot(values: Array, segment: Array, last_frame: Array) -> Array:
    share = 1 / jnp.maximum(_num_frames(segment, last_frame), 1)
    total = jnp.zeros((last_frame.shape[0] + 1, values.shape[1]), values.dtype).at[segment].add(values)
    return total * share[:, None]


POOLINGS = {
    "last_valid": _Pooling(_last_valid, 1),
    "mean": _Pooling(_mean, 1),
    "mean_sd": _Pooling(_mean_sd, 2),
}
"""Pooling by its name in `vocab.POOLINGS`."""

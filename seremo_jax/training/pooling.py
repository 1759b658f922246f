"""Summaries of the states of each utterance, wherever it lies in the rows."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
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
    num_slots, num_rows = last_frame.shape[0], slot.shape[1]
    length = jnp.bincount(_segment(slot.reshape(-1), num_slots), length=num_slots + 1)[:num_slots]
    return last_frame - (jnp.maximum(length, 1) - 1) * num_rows


class _Pooling(NamedTuple):
    """How a summary is computed, from the states [T * R, H] and slots of all frames and the last frame of each slot.

    Its width is `num_widths` times H.
    """

    compute: Callable[[Array, Array, Array], Array]
    num_widths: int


def _last_valid(states: Array, slot: Array, last_frame: Array) -> Array:
    return states[last_frame]


def _mean(states: Array, slot: Array, last_frame: Array) -> Array:
    num_slots = last_frame.shape[0]
    return _mean_by_slot(states, _segment(slot, num_slots), num_slots)[:num_slots]


def _mean_sd(states: Array, slot: Array, last_frame: Array) -> Array:
    num_slots = last_frame.shape[0]
    segment = _segment(slot, num_slots)
    centre = _mean_by_slot(states, segment, num_slots)
    variance = _mean_by_slot(jnp.square(states - centre[segment]), segment, num_slots)
    # The variance of an utterance of one frame is 0, where the slope of the root is infinite.
    sd = jnp.sqrt(jnp.maximum(variance, 1e-10))
    return jnp.concatenate([centre, sd], axis=1)[:num_slots]


def _segment(slot: Array, num_slots: int) -> Array:
    # Gaps and padding go to one segment more, which is cut off at the end.
    return jnp.where(slot < 0, num_slots, slot)


def _mean_by_slot(values: Array, segment: Array, num_slots: int) -> Array:
    share = 1 / jnp.maximum(jnp.bincount(segment, length=num_slots + 1), 1)
    return jax.ops.segment_sum(values, segment, num_slots + 1) * share[:, None]


POOLINGS = {
    "last_valid": _Pooling(_last_valid, 1),
    "mean": _Pooling(_mean, 1),
    "mean_sd": _Pooling(_mean_sd, 2),
}
"""Pooling by its name in `vocab.POOLINGS`."""

"""Mixup across speakers: the pooled states and the labels of an utterance, mixed with those of another speaker.

All draws depend on the member's key of the step and on the row of an utterance in the table. Where an utterance lies in
the batch, and on which device or in which part its states are computed, changes none of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_FARTHEST = np.uint32(2**32 - 1)


def partners(
    key: Array, utterance: Int[Array, " B"], speaker: Int[Array, " B"]
) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """A slot with an utterance of another speaker for each slot, and whether there is any.

    Every utterance draws a place on a circle and takes the next one ahead whose speaker is known and another.

    Args:
      key: Random key of the step.
      utterance: Row of the table of each slot, -1 where the slot is not used.
      speaker: Speaker of each slot, -1 where it is not known.
    """
    places = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(key, row)))(utterance)
    is_known = (utterance >= 0) & (speaker >= 0)
    may_mix = is_known[:, None] & is_known[None, :] & (speaker[:, None] != speaker[None, :])
    # Differences of unsigned numbers wrap round, as those of places on a circle do.
    ahead = jnp.where(may_mix, places[None, :] - places[:, None], _FARTHEST)
    return ahead.argmin(axis=1), may_mix.any(axis=1)


def shares(key: Array, utterance: Int[Array, " B"], concentration: Float[Array, ""]) -> Float[Array, " B"]:
    """Share of its own that each utterance keeps: the larger part of a draw from Beta(a, a); 1 where a is 0.

    Args:
      key: Random key of the step, another one than that of `partners`.
      utterance: Row of the table of each slot.
      concentration: a.
    """

    def draw(concentration: Array) -> Array:
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(utterance)
        drawn = jax.vmap(lambda key: jax.random.beta(key, concentration, concentration))(keys)
        return jnp.maximum(drawn, 1 - drawn)

    # Where members run one after the other, a member without mixup draws no numbers.
    return jax.lax.cond(concentration > 0, draw, lambda _: jnp.ones(utterance.shape), concentration)


def mixed(tree: Any, partner: Int[Array, " B"], share: Float[Array, " B"]) -> Any:
    """Numbers [B, ...] mixed as `share x_i + (1 - share) x_partner`; masks that are True where both are.

    Source: KNOWN: H. Zhang et al., mixup, ICLR 2018; KNOWN/2nd: MEDUSA trains with it. OURS: across speakers.
    """

    def mix(values: Array) -> Array:
        own = share.reshape(-1, *[1] * (values.ndim - 1))
        if values.dtype == bool:
            return values & (values[partner] | (own >= 1))
        # An utterance that mixes with nobody keeps its numbers, whatever those of the slot it points to are.
        return jnp.where(own >= 1, values, own * values + (1 - own) * values[partner])

    return jax.tree.map(mix, tree)

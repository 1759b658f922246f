"""A function of one member over all of them: at once, or one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def over_members(member_map: str, one: Callable[[Any], Any], items: Any) -> Any:
    """What `one` gives for each member, stacked.

    Args:
      member_map: `vmap`, or `map` for one member after the other.
      one: Function of what one member has.
      items: The same for all members, with a leading axis.
    """
    return _one_after_the_other(one, items) if member_map == "map" else jax.vmap(one)(items)


def _one_after_the_other(one: Callable, items: Any) -> Any:
    """`lax.map`, but with a trip count XLA cannot see.

    A loop of one would be inlined, fused with its surroundings, and rounded differently from the member in company.
    """
    num = jax.tree.leaves(items)[0].shape[0]

    def pick(i: Array) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), items)

    def body(i: Array, outputs: Any) -> Any:
        return jax.tree.map(lambda all_, new: all_.at[i].set(new), outputs, one(pick(i)))

    shapes = jax.eval_shape(one, jax.eval_shape(pick, jnp.int32(0)))
    outputs = jax.tree.map(lambda shape: jnp.zeros((num, *shape.shape), shape.dtype), shapes)
    return jax.lax.fori_loop(0, jax.lax.optimization_barrier(jnp.int32(num)), body, outputs)

"""Initial values of all parameters of a module, drawn at once."""

import itertools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jaxtyping import Array

Module = TypeVar("Module")
Draw = Callable[[tuple[int, ...], float], Array]
"""(shape, bound) -> initial values, float32 of this shape, uniform between -bound and bound."""


def zeros(shape: tuple[int, ...], bound: float) -> Array:
    """The `Draw` of a module of which only the shapes are read."""
    del bound
    return jnp.zeros(shape)


def drawn(build: Callable[[Draw], Module], key: Array) -> Module:
    """A module with initial parameters.

    The values of call number i of `Draw` are those of `jax.random.uniform(fold_in(key, i), shape, minval=-bound,
    maxval=bound)`, up to the rounding of the compiler. They are drawn for all calls at once, because a program that
    draws array after array takes several times as long to compile.

    Args:
      build: Makes the module. It is called twice and must ask for the same arrays each time.
      key: Random key of the kind `threefry2x32`, JAX's default.
    """
    asked: list[tuple[tuple[int, ...], float]] = []

    def note(shape: tuple[int, ...], bound: float) -> Array:
        asked.append((shape, bound))
        return zeros(shape, bound)

    build(note)
    lengths = [math.prod(shape) for shape, _ in asked]
    keys = jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(asked))))
    # The bits of an element depend on the key of its array and on its place there, a number of 64 bits in two parts.
    of_array = [jnp.broadcast_to(key[:, None], (2, length)) for key, length in zip(keys, lengths, strict=True)]
    place = jnp.concatenate([jnp.arange(length, dtype=jnp.uint32) for length in lengths])
    high, low = threefry2x32_p.bind(*jnp.concatenate(of_array, axis=1), jnp.zeros_like(place), place)
    # The 23 highest bits are the mantissa of a number in [1, 2).
    unit = jax.lax.bitcast_convert_type(((high ^ low) >> 9) | jnp.uint32(0x3F800000), jnp.float32) - 1
    values = iter(jnp.split(unit, list(itertools.accumulate(lengths))[:-1]))

    def take(shape: tuple[int, ...], bound: float) -> Array:
        least, most = jnp.float32(-bound), jnp.float32(bound)
        return jnp.maximum(least, next(values) * (most - least) + least).reshape(shape)

    return build(take)

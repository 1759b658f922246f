"""How much of the hardware a training uses: operations of the head, and the peak of matrix products at hand."""

import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_ROUNDS = 3


def head_flops(sizes: dict) -> int:
    """Floating-point operations of the matrix products of one training step, per frame.

    Forward, gradient of the weights, and gradient of every input that parameters lie below: not of the features.

    Args:
      sizes: Arguments of `model.TCGRU`.

    Source: OURS; heads and convolution are left out (under 1 %).
    """
    units, width = sizes["gru_units"], sizes["num_features"]
    convolved = width if sizes["conv_kernel"] else 0
    total, gradient_of = 0, convolved
    width += convolved
    for _ in range(sizes["gru_layers"]):
        total += 2 * 3 * units * (2 * (width + units) + gradient_of + units)
        width = gradient_of = units
    return total


def peak_flops_per_s(mesh: Mesh, dtype: str) -> float:
    """Operations per second of large square matrix products on all devices of the mesh at once, the best of three."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    where = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    make = jax.jit(lambda: jnp.ones((mesh.size, size, size), dtype), out_shardings=where)
    product = jax.jit(lambda a: jnp.einsum("nij,njk->nik", a, a), out_shardings=where)
    matrices = make()
    jax.block_until_ready(product(matrices))
    best_s = float("inf")
    for _ in range(_ROUNDS):
        began_s = time.perf_counter()
        jax.block_until_ready(product(matrices))
        best_s = min(best_s, time.perf_counter() - began_s)
    return mesh.size * 2 * size**3 / best_s

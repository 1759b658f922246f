"""How much of the hardware a training uses: operations and memory of the head, and the peak of products at hand."""

import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_ROUNDS = 3
_FLOATS_OF_FEATURES, _FLOATS_OF_UNITS = 6.75, 17.0
"""What the compiled step keeps of a frame: so many numbers a feature, and a unit of each GRU."""


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


def head_bytes(sizes: dict, num_frames: int) -> int:
    """Bytes that one training step of one member takes besides its state, gradients included, in float32.

    Args:
      sizes: Arguments of `model.TCGRU`.
      num_frames: Frames of a batch, `T * R` of its rows; where it is computed in parts, of a part.

    Source: OURS, fitted to XLA's buffers (CPU) of steps of 64 to 1,024 features and 16 to 256 units: within
      12 % there. bfloat16 takes up to a sixth less.
    """
    units = sizes["gru_layers"] * sizes["gru_units"]
    return int(4 * num_frames * (_FLOATS_OF_FEATURES * sizes["num_features"] + _FLOATS_OF_UNITS * units))


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

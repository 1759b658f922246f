"""How much of the hardware a training uses: operations and memory of the head, and the measured peak of products."""

import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seremo_jax.training.model import Sizes

_ROUNDS = 3
_FLOATS_PER_FEATURE, _FLOATS_PER_UNIT = 6.75, 17.0
"""Numbers that the compiled step keeps of each frame, for each feature and for each unit of a GRU."""


def head_flops(sizes: Sizes) -> int:
    """Floating-point operations of the matrix products of one training step, per frame.

    They are those of the forward pass, of the gradient of the weights, and of the gradient of inputs that depend on
    parameters. The features do not, so no gradient of them is computed.

    Args:
      sizes: Sizes of the head.

    Source: OURS; heads and convolution are left out (under 1 %).
    """
    units, width = sizes.gru_units, sizes.num_features
    convolved = sizes.convolved
    # The first GRU reads features and convolved features side by side; only the latter have a gradient.
    total, width_with_gradient = 0, convolved
    if sizes.conv_kernel and sizes.conv_kind == "dense":
        total = 2 * 2 * sizes.conv_kernel * width * convolved
    width += convolved
    num_directions = 2 if sizes.bidirectional else 1
    for _ in range(sizes.gru_layers):
        # A product of [., n] and [n, 3H] takes 2 * 3H * n operations a row. Forward pass and gradient of the weights
        # have n = width + H each; the gradient of inputs and state is the third product.
        total += num_directions * 2 * 3 * units * (2 * (width + units) + width_with_gradient + units)
        width = width_with_gradient = num_directions * units
    return total


def head_bytes(sizes: Sizes, num_frames: int, is_relative: bool = False) -> int:
    """Bytes that one training step of one member takes besides its state, with gradients, in float32.

    Args:
      sizes: Sizes of the head.
      num_frames: Frames of a batch, `T * R` of its rows. Where it is computed in parts, those of a part.
      is_relative: Whether features are relative to the speaker, which takes one more number for each of them.

    Source: OURS, fitted to XLA's buffers (CPU) of steps with 64 to 1,024 features and 16 to 256 units, and within 12 %
      of them, with a depthwise convolution and one direction. bfloat16 takes up to a sixth less.
    """
    units = sizes.gru_layers * sizes.gru_units * (2 if sizes.bidirectional else 1)
    per_feature = _FLOATS_PER_FEATURE + is_relative
    return int(4 * num_frames * (per_feature * sizes.num_features + _FLOATS_PER_UNIT * units))


def peak_flops_per_s(mesh: Mesh, dtype: str) -> float:
    """Operations per second of large matrix products on all devices of the mesh at once, the best of three runs."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    where = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    make = jax.jit(lambda: jnp.ones((mesh.size, size, size), dtype), out_shardings=where)
    product = jax.jit(lambda a: jnp.einsum("nij,njk->nik", a, a), out_shardings=where)
    matrices = make()
    # The first call compiles and is not timed.
    jax.block_until_ready(product(matrices))
    best_s = float("inf")
    for _ in range(_ROUNDS):
        began_s = time.perf_counter()
        jax.block_until_ready(product(matrices))
        best_s = min(best_s, time.perf_counter() - began_s)
    return mesh.size * 2 * size**3 / best_s

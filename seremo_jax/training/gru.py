"""A fast GRU: one matrix product projects all inputs, one scan runs over time, the backward pass is written by hand.

The cell is PyTorch's, with all six biases: the hidden bias of the candidate gate stands inside the product with the
reset gate. Rows are packed: `reset` marks the first frame of each utterance, where the state starts from zero again.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Params = Mapping[str, Array]
"""w_i [D, 3H], w_h [H, 3H], b_i [3H], b_h [3H]. The gates stand in the order reset, update, candidate."""

_FRAMES_A_TRIP_ON_GPU = 8
"""Frames that one trip of a loop takes on a GPU, which waits for the launch of every kernel and hardly for its work.
What is kept of the frames is written once a trip, and the kernel that computes a state clears it, too. On a CPU a loop
of one frame a trip is faster, and compiles sooner. `loader.plan_shape` makes T a multiple of 8.
"""


def gru(params: Params, x: Float[Array, "T R D"], reset: Bool[Array, "T R"]) -> Float[Array, "T R H"]:
    """Runs one unidirectional GRU layer over packed rows, time first.

    Matrix products take their inputs in the dtype of `x` and accumulate in float32 or wider. Gates and state are kept
    in that wider dtype.

    Args:
      params: Weights and biases, see `Params`.
      x: Input frames.
      reset: True on the first frame of each utterance, where the state before counts as zero. The state before the
        first frame of a row is zero in any case.

    Returns:
      The state after every frame, in the dtype of `x`.

    Source: KNOWN, METHOD.md, section 4.2 (the cell of torch.nn.GRU).
    """
    return gru_beside(params, (x,), reset)


def gru_beside(
    params: Params, parts: Sequence[Float[Array, "T R _"]], reset: Bool[Array, "T R"], is_reverse: bool = False
) -> Float[Array, "T R H"]:
    """Runs `gru` over frames whose features come in parts, as if the parts stood side by side.

    The parts are not copied together. No gradient is computed for a part that does not depend on parameters, such as
    the features themselves.

    Args:
      params: See `gru`.
      parts: Features of all frames, in the order of the rows of `w_i`; of one dtype.
      reset: See `gru`.
      is_reverse: Frames are read from the last one of the row to the first one. `reset` then marks the last frame of
        each utterance, which is read first, and nothing of the gap behind it comes in.
    """
    num_frames, num_rows, _ = parts[0].shape
    dtype, start, projected = parts[0].dtype, 0, None
    # The projection of the inputs does not depend on the state, so it is computed for all frames in one product.
    for part in parts:
        stop = start + part.shape[2]
        product = dot(part.reshape(num_frames * num_rows, -1), params["w_i"][start:stop].astype(dtype))
        projected, start = product if projected is None else projected + product, stop
    projected = projected.reshape(num_frames, num_rows, -1)
    biases = (params[name].astype(projected.dtype) for name in ("b_i", "b_h"))
    return _recurrence(is_reverse, projected, params["w_h"].astype(dtype), *biases, reset).astype(dtype)


def _accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def dot(a: Float[Array, "N I"], b: Float[Array, "I O"]) -> Float[Array, "N O"]:
    """The product of two matrices of the dtype of `b`, accumulated and returned in float32 or wider.

    The products of the gradient take operands of that dtype, too. Automatic differentiation would take them in the
    dtype of the result, which is many times slower on accelerators where `b` is in bfloat16.
    """
    return _dot(a.astype(b.dtype), b)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=_accumulation_dtype(b.dtype))


_dot = jax.custom_vjp(_product)


def _dot_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    a, b = saved
    return _product(g, b.T).astype(a.dtype), _product(a.T, g.astype(b.dtype)).astype(b.dtype)


_dot.defvjp(lambda a, b: (_product(a, b), (a, b)), _dot_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(is_reverse: bool, projected: Array, w_h: Array, b_i: Array, b_h: Array, reset: Array) -> Array:
    """States [T, R, H] from projected inputs [T, R, 3H], weights [H, 3H], biases [3H] and `reset` [T, R]."""
    return _forward(is_reverse, projected, w_h, b_i, b_h, reset)[0]


def _forward(
    is_reverse: bool, projected: Array, w_h: Array, b_i: Array, b_h: Array, reset: Array
) -> tuple[Array, tuple[Array, ...]]:
    # The loop itself runs backwards, so that no frame is copied to another place.
    states, *saved = _as_the_device_likes(functools.partial(_states, is_reverse), (projected, reset), w_h, b_i, b_h)
    return states, (w_h, reset, *saved)


def _as_the_device_likes(function: Callable, frames: tuple[Array, ...], *others: Array) -> tuple[Array, ...]:
    """`function` of the number of frames a trip of its loop, of arrays with T frames, and of other arrays.

    The device is the one that the program is compiled for, which need not be here.
    """
    num_frames = frames[0].shape[0]
    # An exported model has a T that is not known yet.
    num_together = math.gcd(num_frames, _FRAMES_A_TRIP_ON_GPU) if isinstance(num_frames, int) else 1
    on_gpu = functools.partial(function, num_together)
    return jax.lax.platform_dependent(frames, *others, cuda=on_gpu, rocm=on_gpu, default=functools.partial(function, 1))


def _scan(step: Callable, carry: Array, frames: Any, num_together: int, reverse: bool = False) -> Any:
    """What `jax.lax.scan` stacks, from a loop that takes `num_together` frames a trip."""
    if num_together == 1:
        return jax.lax.scan(step, carry, frames, reverse=reverse)[1]

    def trip(carry: Array, frames: Any) -> tuple[Array, Any]:
        outputs: list[Any] = [None] * num_together
        for k in range(num_together)[:: -1 if reverse else 1]:
            carry, outputs[k] = step(carry, jax.tree.map(lambda x, k=k: x[k], frames))
        return carry, jax.tree.map(lambda *x: jnp.stack(x), *outputs)

    trips = jax.tree.map(lambda x: x.reshape(-1, num_together, *x.shape[1:]), frames)
    _, outputs = jax.lax.scan(trip, carry, trips, reverse=reverse)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)


def _states(
    is_reverse: bool, num_together: int, frames: tuple[Array, Array], w_h: Array, b_i: Array, b_h: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """States, and everything else that the backward pass reads, of all frames."""
    projected, _ = frames
    units = w_h.shape[0]
    # Input and hidden bias only ever appear as a sum in the reset and the update gate. In the candidate they do not.
    b_gates, b_i_n, b_h_n = (b_i + b_h)[None, : 2 * units], b_i[None, 2 * units :], b_h[None, 2 * units :]

    def step(state, inputs):
        frame, starts = inputs
        # A new utterance starts from zero, whatever state its neighbour in the row has left.
        before = jnp.where(starts[:, None], 0, state)
        hidden = _product(before, w_h)
        gates = jax.nn.sigmoid(frame[:, : 2 * units] + hidden[:, : 2 * units] + b_gates)
        r, z = gates[:, :units], gates[:, units:]
        hidden_n = hidden[:, 2 * units :] + b_h_n
        n = jnp.tanh(frame[:, 2 * units :] + b_i_n + r * hidden_n)
        after = n + z * (before - n)
        # Everything that the backward pass reads is kept: computing it again would take another product per frame.
        return after, (after, before, gates, n, hidden_n)

    zero = jnp.zeros((projected.shape[1], units), projected.dtype)
    return _scan(step, zero, frames, num_together, is_reverse)


def _backward(is_reverse: bool, saved: tuple[Array, ...], g_states: Array) -> tuple[Array, Array, Array, Array, None]:
    """Gradients of the inputs of `_recurrence`, by hand.

    `h` is the state before a frame, `c = h W_n + b_n` the hidden part of the candidate. `a_r`, `a_z` and `a_n` are the
    other sums that the gates are functions of. `g` is the gradient of the state after the frame, `n + z (h - n)`. Then

        n = tanh(a_n + r c)    has the gradient g_n = g (1 - z),          and its argument d_n = g_n (1 - n^2)
        z = sigmoid(a_z)       has the gradient g_z = g (h - n),          and its argument d_z = g_z z (1 - z)
        r = sigmoid(a_r)       has the gradient g_r = d_n c,              and its argument d_r = g_r r (1 - r)
        h                      has the gradient g z + (d_r, d_z, d_n r) W_h^T

    Source: OURS. Automatic differentiation of the scan gives the same numbers to rounding, but computes the gradient of
      `w_h` by a small product in every step.
    """
    w_h, reset, before, gates, candidates, hidden_n = saved
    units = w_h.shape[0]
    frames = (g_states.astype(before.dtype), reset, before, gates, candidates, hidden_n)
    g_projected, g_hidden = _as_the_device_likes(functools.partial(_gradients, is_reverse), frames, w_h)
    g_hidden = g_hidden.reshape(-1, 3 * units)
    # One product over all frames after the scan. Inside the scan it would be T small ones, at a fraction of peak speed.
    g_w_h = _product(before.reshape(-1, units).T, g_hidden.astype(w_h.dtype))
    return g_projected, g_w_h.astype(w_h.dtype), g_projected.sum((0, 1)), g_hidden.sum(0), None


def _gradients(is_reverse: bool, num_together: int, frames: tuple[Array, ...], w_h: Array) -> tuple[Array, Array]:
    """Gradients [T, R, 3H] with respect to the projected inputs and to the hidden product; see `_backward`."""
    units = w_h.shape[0]
    # On a GPU the product reads the gradient of the state, too, and multiplies it by zero. What the product reads and
    # what is added to it are then one array, which one kernel writes.
    is_joined = num_together > 1
    weights = (jnp.pad(w_h, ((0, 0), (0, units))) if is_joined else w_h).T

    def step(g_after, inputs):
        g_state, starts, state, gate, n, hidden = inputs
        r, z = gate[:, :units], gate[:, units:]
        # A state is read twice: as the output of its frame, and by the next frame.
        g = g_state + g_after
        g_candidate = g * (1 - z) * (1 - n * n)
        g_update = g * (state - n) * z * (1 - z)
        g_reset = g_candidate * hidden * r * (1 - r)
        # They are joined here, while they are in cache, so that the products after the scan read contiguous memory. The
        # candidate's gradient with respect to the hidden part has the reset gate as a factor.
        g_hidden = operand = jnp.concatenate([g_reset, g_update, g_candidate * r], axis=-1)
        if is_joined:
            # Without the barrier the compiler sees through the array, and computes its parts in kernels of their own.
            operand = jax.lax.optimization_barrier(jnp.concatenate([g_hidden, g], axis=-1))
            g_reset, g_update, _, g = jnp.split(operand, 4, axis=-1)
            g_hidden, g_candidate = operand[:, : 3 * units], g * (1 - z) * (1 - n * n)
        g_projected = jnp.concatenate([g_reset, g_update, g_candidate], axis=-1)
        g_before = g * z + _product(operand, weights)
        # An utterance started from zero and not from a state, so nothing flows back to its neighbour in the row.
        return jnp.where(starts[:, None], 0, g_before), (g_projected, g_hidden)

    return _scan(step, jnp.zeros_like(frames[0][0]), frames, num_together, reverse=not is_reverse)


_recurrence.defvjp(_forward, _backward)

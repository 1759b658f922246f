"""The fast GRU: input projection in one GEMM, one scan over time, a hand-written backward pass.

PyTorch's cell with all six biases (the candidate gate's hidden bias sits inside the product with the reset gate).
Rows are packed: `reset` marks the first frame of each utterance, where the state starts from zero again.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Params = Mapping[str, Array]
"""w_i [D, 3H], w_h [H, 3H], b_i [3H], b_h [3H]; gates in the order reset, update, candidate."""


def gru(params: Params, x: Float[Array, "T R D"], reset: Bool[Array, "T R"]) -> Float[Array, "T R H"]:
    """Runs one unidirectional GRU layer over packed rows, time first.

    Matrix products take their inputs in the dtype of `x` and accumulate in float32 or wider; gates and state are kept
    in that wider dtype.

    Args:
      params: Weights and biases, see `Params`.
      x: Input frames.
      reset: True on the first frame of each utterance; the state before it counts as zero. The state is zero before
        the first frame in any case.

    Returns:
      The state after every frame, in the dtype of `x`.

    Source: KNOWN, method.md section 4.2 (the cell of torch.nn.GRU).
    """
    return gru_beside(params, (x,), reset)


def gru_beside(
    params: Params, parts: Sequence[Float[Array, "T R _"]], reset: Bool[Array, "T R"]
) -> Float[Array, "T R H"]:
    """`gru` over frames whose features come in parts, as if these stood side by side.

    Nothing is copied together, and a part that no parameter lies below costs no gradient.

    Args:
      params: See `gru`.
      parts: Features of all frames, in the order of the rows of `w_i`; of one dtype.
      reset: See `gru`.
    """
    num_frames, num_rows, _ = parts[0].shape
    dtype, start, projected = parts[0].dtype, 0, None
    for part in parts:
        stop = start + part.shape[2]
        product = _dot(part.reshape(num_frames * num_rows, -1), params["w_i"][start:stop].astype(dtype))
        projected, start = product if projected is None else projected + product, stop
    projected = projected.reshape(num_frames, num_rows, -1)
    biases = (params[name].astype(projected.dtype) for name in ("b_i", "b_h"))
    return _recurrence(projected, params["w_h"].astype(dtype), *biases, reset).astype(dtype)


def _accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=_accumulation_dtype(b.dtype))


@jax.custom_vjp
def _recurrence(projected: Array, w_h: Array, b_i: Array, b_h: Array, reset: Array) -> Array:
    return _forward(projected, w_h, b_i, b_h, reset)[0]


def _forward(projected: Array, w_h: Array, b_i: Array, b_h: Array, reset: Array) -> tuple[Array, tuple[Array, ...]]:
    units = w_h.shape[0]
    b_gates, b_i_n, b_h_n = (b_i + b_h)[None, : 2 * units], b_i[None, 2 * units :], b_h[None, 2 * units :]

    def step(state, inputs):
        frame, starts = inputs
        before = jnp.where(starts[:, None], 0, state)
        hidden = _dot(before, w_h)
        gates = jax.nn.sigmoid(frame[:, : 2 * units] + hidden[:, : 2 * units] + b_gates)
        r, z = gates[:, :units], gates[:, units:]
        hidden_n = hidden[:, 2 * units :] + b_h_n
        n = jnp.tanh(frame[:, 2 * units :] + b_i_n + r * hidden_n)
        after = n + z * (before - n)
        return after, (after, before, gates, n, hidden_n)

    zero = jnp.zeros((projected.shape[1], units), projected.dtype)
    _, (states, *saved) = jax.lax.scan(step, zero, (projected, reset))
    return states, (w_h, reset, *saved)


def _backward(saved: tuple[Array, ...], g_states: Array) -> tuple[Array, Array, Array, Array, None]:
    w_h, reset, before, gates, candidates, hidden_n = saved
    units = w_h.shape[0]
    w_h_transposed = w_h.T

    def step(g_after, inputs):
        g_state, starts, state, gate, n, hidden = inputs
        r, z = gate[:, :units], gate[:, units:]
        g = g_state + g_after
        g_candidate = g * (1 - z) * (1 - n * n)
        g_update = g * (state - n) * z * (1 - z)
        g_reset = g_candidate * hidden * r * (1 - r)
        # Joined here, while they are in cache: the products after the scan then read plain memory.
        g_projected = jnp.concatenate([g_reset, g_update, g_candidate], axis=-1)
        g_hidden = jnp.concatenate([g_reset, g_update, g_candidate * r], axis=-1)
        g_before = g * z + _dot(g_hidden, w_h_transposed)
        return jnp.where(starts[:, None], 0, g_before), (g_projected, g_hidden)

    inputs = (g_states.astype(before.dtype), reset, before, gates, candidates, hidden_n)
    _, (g_projected, g_hidden) = jax.lax.scan(step, jnp.zeros_like(before[0]), inputs, reverse=True)
    g_hidden = g_hidden.reshape(-1, 3 * units)
    # One GEMM over all frames, after the scan: inside it, this product would be repeated T times at a fraction of peak.
    g_w_h = jnp.matmul(
        before.reshape(-1, units).T.astype(w_h.dtype), g_hidden.astype(w_h.dtype), preferred_element_type=before.dtype
    )
    return g_projected, g_w_h.astype(w_h.dtype), g_projected.sum((0, 1)), g_hidden.sum(0), None


_recurrence.defvjp(_forward, _backward)

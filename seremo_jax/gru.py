"""The fast GRU: input projection in one GEMM, one scan over time, a hand-written backward pass.

PyTorch's cell with all six biases (the candidate gate's hidden bias sits inside the product with the reset gate).
Rows are packed: `reset` marks the first frame of each utterance, where the state starts from zero again.
"""

from collections.abc import Mapping

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
    num_frames, num_rows, num_features = x.shape
    accumulated = _accumulation_dtype(x.dtype)
    projected = jnp.matmul(
        x.reshape(num_frames * num_rows, num_features),
        params["w_i"].astype(x.dtype),
        preferred_element_type=accumulated,
    )
    projected = projected + params["b_i"].astype(accumulated)[None, :]
    projected = projected.reshape(num_frames, num_rows, -1)
    w_h = params["w_h"].astype(x.dtype)
    return _recurrence(projected, w_h, params["b_h"].astype(accumulated), reset).astype(x.dtype)


def _accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=_accumulation_dtype(b.dtype))


@jax.custom_vjp
def _recurrence(projected: Array, w_h: Array, b_h: Array, reset: Array) -> Array:
    return _forward(projected, w_h, b_h, reset)[0]


def _forward(projected: Array, w_h: Array, b_h: Array, reset: Array) -> tuple[Array, tuple[Array, ...]]:
    units = w_h.shape[0]

    def step(state, inputs):
        frame, starts = inputs
        before = jnp.where(starts[:, None], 0, state)
        hidden = _dot(before, w_h) + b_h[None, :]
        gates = jax.nn.sigmoid(frame[:, : 2 * units] + hidden[:, : 2 * units])
        r, z = gates[:, :units], gates[:, units:]
        n = jnp.tanh(frame[:, 2 * units :] + r * hidden[:, 2 * units :])
        after = n + z * (before - n)
        return after, (after, gates, n, hidden[:, 2 * units :])

    zero = jnp.zeros((projected.shape[1], units), projected.dtype)
    _, (states, gates, candidates, hidden_n) = jax.lax.scan(step, zero, (projected, reset))
    return states, (w_h, b_h, reset, states, gates, candidates, hidden_n)


def _backward(saved: tuple[Array, ...], g_states: Array) -> tuple[Array, Array, Array, None]:
    w_h, b_h, reset, states, gates, candidates, hidden_n = saved
    units = w_h.shape[0]
    before = jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])
    before = jnp.where(reset[:, :, None], 0, before)
    w_h_transposed = w_h.T

    def step(g_after, inputs):
        g_state, starts, state, gate, n, hidden = inputs
        r, z = gate[:, :units], gate[:, units:]
        g = g_state + g_after
        g_candidate = g * (1 - z) * (1 - n * n)
        g_update = g * (state - n) * z * (1 - z)
        g_reset = g_candidate * hidden * r * (1 - r)
        g_hidden = jnp.concatenate([g_reset, g_update, g_candidate * r], axis=-1)
        g_before = g * z + _dot(g_hidden, w_h_transposed)
        return jnp.where(starts[:, None], 0, g_before), (g_reset, g_update, g_candidate, g_hidden[:, 2 * units :])

    inputs = (g_states.astype(states.dtype), reset, before, gates, candidates, hidden_n)
    _, (g_reset, g_update, g_candidate, g_hidden_n) = jax.lax.scan(
        step, jnp.zeros_like(states[0]), inputs, reverse=True
    )
    g_projected = jnp.concatenate([g_reset, g_update, g_candidate], axis=-1)
    g_hidden = jnp.concatenate([g_reset, g_update, g_hidden_n], axis=-1).reshape(-1, 3 * units)
    # One GEMM over all frames, after the scan: inside it, this product would be repeated T times at a fraction of peak.
    g_w_h = jnp.matmul(
        before.reshape(-1, units).T.astype(w_h.dtype), g_hidden.astype(w_h.dtype), preferred_element_type=states.dtype
    )
    return g_projected, g_w_h.astype(w_h.dtype), g_hidden.sum(0).astype(b_h.dtype), None


_recurrence.defvjp(_forward, _backward)

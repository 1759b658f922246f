"""Moments over frames against two passes of NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.features import normalisation

K, B, T, D = 2, 24, 11, 5

update, merge = jax.jit(normalisation.update), jax.jit(normalisation.merge)


def data(offset, seed=0):
    """Hidden states [K, B, T, D] with NaN as padding, frames [B], counted [B], and the counted frames [K, F, D]."""
    rng = np.random.default_rng(seed)
    num_frames, is_counted = rng.integers(0, T + 1, B).astype(np.int32), rng.random(B) < 0.7
    is_valid = np.arange(T)[None, :] < num_frames[:, None]
    hidden = (offset + rng.standard_normal((K, B, T, D)) * np.array([1, 3, 0.1, 1, 1])).astype(np.float32)
    hidden[..., 4] = offset / 3
    hidden[:, ~is_valid] = np.nan
    return hidden, num_frames, is_counted, hidden[:, is_valid & is_counted[:, None]].astype(np.float64)


def state_of(hidden, num_frames, is_counted):
    return update(normalisation.empty(K, D), jnp.asarray(hidden), jnp.asarray(num_frames), jnp.asarray(is_counted))


@pytest.mark.parametrize("offset", [0, 1, -500])
def test_mean_and_sd_equal_two_passes_for_any_split_of_the_data(offset):
    hidden, num_frames, is_counted, frames = data(offset)
    whole = state_of(hidden, num_frames, is_counted)
    pieces = [state_of(hidden[:, i : i + 6], num_frames[i : i + 6], is_counted[i : i + 6]) for i in range(0, B, 6)]
    in_order = normalisation.empty(K, D)
    for i in range(0, B, 6):
        in_order = update(
            in_order, *map(jnp.asarray, (hidden[:, i : i + 6], num_frames[i : i + 6], is_counted[i : i + 6]))
        )
    for state in (whole, in_order, merge(merge(pieces[3], pieces[0]), merge(pieces[2], pieces[1]))):
        mean, sd = normalisation.compute(state)
        assert int(state.count) == frames.shape[1]
        np.testing.assert_allclose(mean, frames.mean(axis=1), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(sd[:, :4], frames.std(axis=1)[:, :4], rtol=2e-6)
        np.testing.assert_array_equal(sd[:, 4], 1)


def test_empty_is_neutral_to_the_bit():
    hidden, num_frames, is_counted, _ = data(500)
    state, empty = state_of(hidden, num_frames, is_counted), normalisation.empty(K, D)
    for merged in (merge(state, empty), merge(empty, state)):
        jax.tree.map(np.testing.assert_array_equal, merged, state)
    jax.tree.map(np.testing.assert_array_equal, state_of(hidden, num_frames, np.zeros(B, bool)), empty)
    jax.tree.map(np.testing.assert_array_equal, state_of(hidden[:, :0], num_frames[:0], is_counted[:0]), empty)
    mean, sd = normalisation.compute(empty)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(sd, 1)


def test_an_utterance_left_out_changes_nothing():
    hidden, num_frames, is_counted, _ = data(1)
    changed = np.where(is_counted[None, :, None, None], hidden, np.float32(1e6))
    jax.tree.map(
        np.testing.assert_array_equal,
        state_of(changed, num_frames, is_counted),
        state_of(hidden, num_frames, is_counted),
    )

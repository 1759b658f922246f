"""Moments over frames against two passes of NumPy in float64, and to the bit in whatever order they come."""

import jax
import numpy as np
import pytest

from seremo_jax.features import normalisation
from seremo_jax.features.normalisation import InTableOrder

K, N, D = 2, 27, 5


def data(offset, seed=0):
    """Frames [K, T, D] of N utterances, the last feature constant, and the order in which they come."""
    rng = np.random.default_rng(seed)
    frames = [offset + rng.standard_normal((K, T, D)) * np.array([1, 3, 0.1, 1, 1]) for T in rng.integers(1, 12, N)]
    for utterance in frames:
        utterance[..., 4] = offset / 3
    return [utterance.astype(np.float32) for utterance in frames], rng.permutation(N)


def gathered(frames, rows):
    moments = InTableOrder()
    for row in rows:
        moments.add(int(row), normalisation.of_utterance(frames[row]))
    return moments


@pytest.mark.parametrize("offset", [0, 1, -500])
def test_mean_and_sd_equal_two_passes(offset):
    frames, order = data(offset)
    state = gathered(frames, order).total()
    mean, sd = normalisation.compute(state)
    together = np.concatenate(frames, axis=1).astype(np.float64)
    assert state.count == together.shape[1]
    np.testing.assert_array_equal(mean, together.mean(axis=1).astype(np.float32))
    np.testing.assert_allclose(sd[:, :4], together.std(axis=1)[:, :4], rtol=1e-7)
    np.testing.assert_array_equal(sd[:, 4], 1)
    np.testing.assert_array_equal(state.moment[:, 4], 0)


def test_order_and_shards_change_no_bit():
    frames, order = data(500)
    whole = gathered(frames, range(N)).total()
    jax.tree.map(np.testing.assert_array_equal, gathered(frames, order).total(), whole)
    for size in (1, 5, 8):
        joined = InTableOrder()
        for start in reversed(range(0, N, size)):
            joined.join(gathered(frames, order[(order >= start) & (order < start + size)]).arrays())
        jax.tree.map(np.testing.assert_array_equal, joined.total(), whole)
    # Adding them up one after the other is another order, and gives other digits: the test could see a difference.
    chain = normalisation.empty(K, D)
    for utterance in frames:
        chain = normalisation.merge(chain, normalisation.of_utterance(utterance))
    assert (chain.moment != whole.moment).any()
    np.testing.assert_allclose(chain.moment, whole.moment, rtol=1e-12)


def test_the_place_of_frames_in_a_batch_changes_no_bit():
    frames, _ = data(1)
    batch = np.full((K, 3, 40, D), np.nan, np.float32)
    batch[:, 1, : frames[0].shape[1]] = frames[0]
    jax.tree.map(
        np.testing.assert_array_equal,
        normalisation.of_utterance(batch[:, 1, : frames[0].shape[1]]),
        normalisation.of_utterance(frames[0]),
    )


def test_an_utterance_left_out_is_as_one_that_never_came():
    frames, order = data(500)
    kept, empty = set(range(0, N, 3)), normalisation.empty(K, D)
    moments = InTableOrder()
    for row in order:
        moments.add(int(row), normalisation.of_utterance(frames[row]) if row in kept else empty)
    jax.tree.map(np.testing.assert_array_equal, moments.total(), gathered(frames, sorted(kept)).total())
    mean, sd = normalisation.compute(empty)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(sd, 1)
    with pytest.raises(ValueError, match="no utterance"):
        InTableOrder().total()

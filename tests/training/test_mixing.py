"""Mixup across speakers: who mixes with whom, the law of the shares, and that places in the batch change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from seremo_jax.training import mixing

ROWS = jnp.array([4, 17, 2, -1, 30, 8, 9, -1, 12], jnp.int32)
SPEAKER = jnp.array([0, 0, 1, 1, 2, -1, 0, 2, 1], jnp.int32)
KEY = jax.random.key(3)


def test_partners_are_of_another_known_speaker():
    counts = np.zeros((9, 9))
    for step in range(60):
        partner, has = mixing.partners(jax.random.fold_in(KEY, step), ROWS, SPEAKER)
        # Slots without an utterance, and one of an unknown speaker, mix with nobody.
        assert has.tolist() == [True, True, True, False, True, False, True, False, True]
        for slot in np.flatnonzero(has):
            assert SPEAKER[partner[slot]] not in (-1, SPEAKER[slot])
            assert ROWS[partner[slot]] >= 0
            counts[slot, partner[slot]] += 1
    # Every utterance of another speaker is drawn: 60 draws from three, or from four or five.
    assert (counts[0][[2, 4, 8]] > 5).all()
    assert not mixing.partners(KEY, ROWS[:2], SPEAKER[:2])[1].any()


def test_draws_follow_the_utterance_and_not_its_slot():
    order = jnp.array([5, 2, 0, 8, 1, 7, 6, 4, 3])
    partner, _ = mixing.partners(KEY, ROWS, SPEAKER)
    moved, has = mixing.partners(KEY, ROWS[order], SPEAKER[order])
    for slot in np.flatnonzero(has):
        assert ROWS[order][moved[slot]] == ROWS[partner[order[slot]]]
    share = mixing.shares(KEY, ROWS, jnp.float32(0.4))
    np.testing.assert_array_equal(mixing.shares(KEY, ROWS[order], jnp.float32(0.4)), share[order])
    other = mixing.partners(jax.random.fold_in(KEY, 1), ROWS, SPEAKER)[0]
    assert not np.array_equal(other, partner)


@pytest.mark.parametrize("concentration", [0.4, 2.0])
def test_shares_are_the_larger_part_of_a_beta_draw(concentration):
    drawn = np.asarray(mixing.shares(KEY, jnp.arange(2_000), jnp.float32(concentration)), np.float64)
    beta = scipy.stats.beta(concentration, concentration)
    assert scipy.stats.kstest(drawn, lambda x: 2 * beta.cdf(x) - 1).pvalue > 0.01
    np.testing.assert_array_equal(mixing.shares(KEY, jnp.arange(4), jnp.float32(0)), 1)


def test_numbers_are_mixed_and_masks_hold_where_both_do():
    rng = np.random.default_rng(0)
    values, is_there = rng.normal(size=(4, 3)).astype(np.float32), np.array([True, True, False, True])
    partner, share = np.array([1, 2, 3, 2]), np.array([0.7, 0.6, 0.9, 1.0], np.float32)
    values[2] = np.nan
    tree = tuple(map(jnp.asarray, (values, is_there)))
    numbers, mask = mixing.mixed(tree, jnp.asarray(partner), jnp.asarray(share))
    np.testing.assert_allclose(numbers[0], 0.7 * values[0] + 0.3 * values[1], rtol=1e-6)
    np.testing.assert_array_equal(numbers[3], values[3])
    assert mask.tolist() == [True, False, False, True]

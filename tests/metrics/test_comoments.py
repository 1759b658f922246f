"""The arithmetic of merged means and sums, against NumPy in float64 on all rows at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax.metrics.comoments import add_pairs, merge_means, on_one_shift, pair


@pytest.mark.parametrize("sizes", [(3, 5), (0, 4), (4, 0), (1, 1), (0, 0)])
def test_merged_means_and_sums_are_those_of_all_rows(sizes):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(3, 2, (size, 4)) for size in sizes)
    # The mean of no rows means nothing, so whatever stands there must not get into the result.
    means = [rows.mean(axis=0) if len(rows) else np.full(4, 7.0) for rows in (a, b)]
    squares = [np.square(rows - rows.mean(axis=0)).sum(axis=0) if len(rows) else np.zeros(4) for rows in (a, b)]
    mean, step, factor = merge_means(float(len(a)), means[0], float(len(b)), means[1])
    rows = np.concatenate([a, b])
    if len(rows):
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
        expected = np.square(rows - rows.mean(axis=0)).sum(axis=0)
        np.testing.assert_allclose(squares[0] + squares[1] + factor * step * step, expected, rtol=1e-12)


def test_a_pair_keeps_what_float32_rounds_away():
    many = np.full(20_000, 1e-5, np.float32)
    total, plain = pair(jnp.ones(1)), np.float32(1)
    for chunk in np.array_split(many, 2_000):
        total = add_pairs(total, pair(jnp.asarray(chunk[:1] * 5)), jnp.asarray(chunk[:1] * 5))
        plain = np.float32(plain + chunk.sum(dtype=np.float32))
    exact = 1 + many.astype(np.float64).sum()
    assert abs(np.float64(total[0, 0]) + np.float64(total[1, 0]) - exact) < 1e-9
    assert abs(np.float64(plain) - exact) > 1e-7


def test_means_move_to_the_shift_of_the_first_state_that_has_one():
    shift_a, shift_b = jnp.array([1000.0, 1000.0]), jnp.array([1002.0, 1002.0])
    mean = jnp.array([0.5, 0.25])
    shift, mean_a, mean_b = on_one_shift(jnp.array([True, False]), shift_a, mean, shift_b, mean)
    np.testing.assert_array_equal(shift, [1000, 1002])
    np.testing.assert_array_equal(mean_a, [0.5, -1.75])
    np.testing.assert_array_equal(mean_b, [2.5, 0.25])

"""Intervals over speakers and what heads say of a curve, against scipy and plain loops."""

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from seremo_jax.saliency import uncertainty

numbers = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12)


def test_jackknife_of_a_mean_is_the_t_interval():
    """For a mean over groups of equal size the jackknife is exactly Student's interval."""
    values = np.random.default_rng(0).normal(3, 2, (20, 4))
    without = np.stack([np.delete(values, g, axis=0).mean(axis=0) for g in range(20)])
    low, high = uncertainty.jackknife(values.mean(axis=0), without)
    wanted = scipy.stats.t.interval(0.95, 19, values.mean(axis=0), scipy.stats.sem(values, axis=0))
    np.testing.assert_allclose([low, high], wanted, rtol=1e-12)


def test_jackknife_holds_the_truth_as_often_as_it_says():
    """A correlation of 0.625 over 25 speakers of 8 utterances, who differ from each other."""

    def correlation(sums):
        n, x, y, xx, yy, xy = sums
        return (xy - x * y / n) / np.sqrt((xx - x * x / n) * (yy - y * y / n))

    rng, hits = np.random.default_rng(1), 0
    for _ in range(300):
        pairs = rng.normal(0, 0.5, (25, 1, 2)) + rng.multivariate_normal(
            [0, 0], [[0.75, 0.625], [0.625, 0.75]], (25, 8)
        )
        x, y = np.moveaxis(pairs, -1, 0)
        sums = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y]).sum(axis=2)
        total = sums.sum(axis=1, keepdims=True)
        low, high = uncertainty.jackknife(correlation(total), correlation(total - sums)[:, None])
        hits += low[0] < 0.625 < high[0]
    assert 0.90 <= hits / 300 <= 0.985


def test_one_group_has_no_interval():
    low, high = uncertainty.jackknife(np.ones(3), np.ones((1, 3)))
    assert np.isnan([low, high]).all()


@given(numbers)
@settings(deadline=None, max_examples=50)
def test_regret_against_scipy(pairs):
    curve, scores = np.array(pairs, np.float64).T
    actual = uncertainty.regret(curve, scores)
    assert actual.picked == list(curve).index(max(curve))
    assert actual.best == list(scores).index(max(scores))
    assert actual.regret == max(scores) - scores[actual.picked] >= 0
    if len(set(curve)) == 1 or len(set(scores)) == 1:
        assert np.isnan(actual.rank_correlation)
    else:
        wanted = scipy.stats.spearmanr(curve, scores).statistic
        assert actual.rank_correlation == pytest.approx(wanted, abs=1e-12)


def test_layers_without_a_head_are_left_out():
    actual = uncertainty.regret(np.array([0.1, 0.9, 0.3, 0.2]), np.array([0.5, np.nan, 0.6, 0.7]))
    assert actual == (2, 3, pytest.approx(0.1), pytest.approx(0.5))
    with pytest.raises(ValueError, match="one layer with a head"):
        uncertainty.regret(np.array([0.1, 0.2]), np.array([np.nan, np.nan]))
    with pytest.raises(ValueError, match="a number for every such layer"):
        uncertainty.regret(np.array([np.nan, 0.2]), np.array([0.1, np.nan]))


def test_pick_layer_takes_the_lowest_of_equals_and_refuses_nan():
    assert uncertainty.pick_layer(np.array([0.1, 0.3, 0.2, 0.3])) == 1
    with pytest.raises(ValueError, match=r"not finite at index \[2\]"):
        uncertainty.pick_layer(np.array([0.1, 0.3, np.nan]))

"""The share of variance between the values of a factor: against an analysis of variance by SciPy, and chance."""

import numpy as np
import pytest
from scipy import stats

from seremo_jax.saliency import variance_shares


def _layer(num: int = 120, num_features: int = 7, num_values: int = 4, effect: float = 1.0):
    rng = np.random.default_rng(0)
    value = rng.integers(0, num_values, num)
    shift = effect * rng.standard_normal((num_values, num_features))
    means = 300 + shift[value] + rng.standard_normal((num, num_features))
    return means.astype(np.float32), value.astype(np.int32), (np.arange(num) % 6).astype(np.int32)


def _by_scipy(means: np.ndarray, value: np.ndarray) -> float:
    """Mean over features of (F - 1) dfb / (F dfb + dfw), which is epsilon squared."""
    groups = [means[value == v].astype(np.float64) for v in np.unique(value)]
    f = stats.f_oneway(*groups, axis=0).statistic
    between, within = len(groups) - 1, len(means) - len(groups)
    return float(np.mean((f - 1) * between / (f * between + within)))


def test_equals_an_analysis_of_variance():
    means, value, group = _layer()
    found = variance_shares.share(means, value, group)
    assert found[0] == pytest.approx(_by_scipy(means, value), rel=1e-9)
    for g in range(6):
        assert found[1 + g] == pytest.approx(_by_scipy(means[group != g], value[group != g]), rel=1e-9)


def test_where_nothing_differs_many_values_have_no_share():
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        means, value = rng.standard_normal((200, 20)), rng.integers(0, 50, 200)
        shares.append(variance_shares.share(means, value, np.zeros(200, np.int32))[0])
    assert abs(np.mean(shares)) < 3 * np.std(shares) / np.sqrt(40)


def test_a_feature_that_is_the_factor_has_a_share_of_1_and_a_constant_one_0():
    value = (np.arange(30) % 3).astype(np.int32)
    means = np.stack([value * 2.0 + 5, np.full(30, 0.1)], axis=1)
    assert variance_shares.share(means, value, np.zeros(30, np.int32))[0] == pytest.approx(0.5)


def test_unknown_values_are_left_out():
    means, value, group = _layer()
    hidden = np.where(np.arange(120) % 3 == 0, -1, value).astype(np.int32)
    means[hidden < 0] = 1e6
    known = hidden >= 0
    found = variance_shares.share(means, hidden, group)[0]
    assert found == pytest.approx(_by_scipy(means[known], hidden[known]), rel=1e-9)


@pytest.mark.parametrize("value", [np.full(8, -1), np.zeros(8), np.arange(8)])
def test_one_value_or_one_utterance_of_each_has_no_share(value):
    means = np.random.default_rng(0).standard_normal((8, 3))
    assert np.isnan(variance_shares.share(means, value.astype(np.int32), np.arange(8, dtype=np.int32) // 2)).all()

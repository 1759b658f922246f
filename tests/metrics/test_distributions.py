"""Sums behind the scores of vote distributions, against scipy, scikit-learn and audmetric."""

import audmetric
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics

from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.distributions import DistributionSums, distribution_sums
from seremo_jax.metrics.moments import Moments

NUM_CLASSES = 4


def random_shares(num_rows, seed=0):
    rng = np.random.default_rng(seed)
    votes = rng.multinomial(6, [0.4, 0.3, 0.2, 0.1], num_rows)
    q = rng.dirichlet(np.ones(NUM_CLASSES), num_rows)
    return q.astype(np.float32), (votes / 6).astype(np.float32)


_sums_of = jax.jit(distribution_sums, static_argnums=4)


def sums_of(q, p, mask=None, unit=None, num_units=1):
    mask = np.ones(len(q), bool) if mask is None else mask
    unit = np.zeros(len(q), np.int32) if unit is None else unit
    return jax.tree.map(np.asarray, _sums_of(unit, q, p, mask, num_units))


def merged(item, other):
    return DistributionSums(
        *(a.merge(b) if isinstance(a, Moments) else a + b for a, b in zip(item, other, strict=True))
    )


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.permutations(range(12)), st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_sums_do_not_depend_on_order_or_batches(order, batch):
    q, p = random_shares(12)
    rng = np.random.default_rng(1)
    mask, unit = rng.random(12) < 0.8, rng.integers(0, 5, 12).astype(np.int32)
    # Batches as masks: one shape compiles once.
    first, second, third = (
        sums_of(q[order], p[order], mask[order] & (np.asarray(batch) == i), unit[order], 5) for i in range(3)
    )
    whole = sums_of(q, p, mask, unit, 5)
    for parts in (merged(merged(first, second), third), merged(third, merged(second, first))):
        for x, y in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing():
    q, p = random_shares(10)
    unit = np.random.default_rng(1).integers(0, 5, 10).astype(np.int32)
    junk = np.full((3, NUM_CLASSES), np.nan, np.float32)
    longer = np.concatenate([unit, np.full(3, -1, np.int32)])
    padded = sums_of(np.concatenate([q, junk]), np.concatenate([p, junk]), np.arange(13) < 10, longer, 5)
    for x, y in zip(jax.tree.leaves(padded), jax.tree.leaves(sums_of(q, p, None, unit, 5)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


def test_divergences_agree_with_scipy():
    q, p = random_shares(80)
    q[0], p[0] = (0, 0, 1, 0), (1, 0, 0, 0)
    actual = sums_of(q, p)
    assert actual.num_rows[0] == 80
    jsd = scipy.spatial.distance.jensenshannon(p.astype(float), q.astype(float), base=2, axis=1) ** 2
    np.testing.assert_allclose(actual.jsd[0] / 80, jsd.mean(), rtol=1e-5)
    kl = scipy.stats.entropy(p[1:].astype(float), q[1:].astype(float), axis=1)
    np.testing.assert_allclose(actual.kl[0] / 80, (kl.sum() + np.log(1e12)) / 80, rtol=1e-5)


def test_total_variation_and_entropies_agree_with_scipy():
    q, p = random_shares(80)
    q[0], p[0] = (0, 0, 1, 0), (1, 0, 0, 0)
    actual = sums_of(q, p)
    np.testing.assert_allclose(actual.total_variation[0] / 80, np.abs(q - p).sum(axis=1).mean() / 2, rtol=1e-6)
    entropies = scipy.stats.entropy(q.astype(float), axis=1), scipy.stats.entropy(p.astype(float), axis=1)
    correlation = actual.entropies.compute()
    np.testing.assert_allclose(correlation.pearson[0], scipy.stats.pearsonr(*entropies).statistic, atol=1e-6)
    assert correlation.is_defined[0]
    certain = np.eye(NUM_CLASSES, dtype=np.float32)[np.arange(80) % 4]
    for sums in (sums_of(q, certain), sums_of(q, p, np.zeros(80, bool))):
        correlation = sums.entropies.compute()
        assert not correlation.is_defined[0]
        assert correlation.pearson[0] == 0


def test_jsd_is_the_divergence_in_bits():
    item, two = np.asarray([[1, 0, 0, 0]], np.float32), np.asarray([[0, 1, 0, 0]], np.float32)
    half = np.asarray([[0.5, 0.5, 0, 0]], np.float32)
    assert sums_of(item, two).jsd[0] == pytest.approx(1)
    assert sums_of(item, item).jsd[0] == pytest.approx(0)
    # m = (3/4, 1/4): KL(one||m) = log2(4/3), KL(half||m) = (log2(2/3) + log2(2)) / 2.
    expected = (np.log2(4 / 3) + (np.log2(2 / 3) + 1) / 2) / 2
    assert sums_of(item, half).jsd[0] == pytest.approx(expected)


def test_class_ccc_of_classes_that_vary():
    q, p = random_shares(40)
    p = np.stack([p[:, 0] + p[:, 3], p[:, 1], p[:, 2], 0 * p[:, 3]], axis=1)
    actual = sums_of(q, p).classes.compute()
    expected = [audmetric.concordance_cc(p[:, c], q[:, c]) for c in range(3)]
    np.testing.assert_allclose(actual.ccc[0], [*expected, 0], rtol=1e-5)
    assert actual.is_defined[0].tolist() == [True, True, True, False]


def test_class_ccc_is_over_the_rows_whose_raters_could_choose_the_class():
    q, p = random_shares(40)
    is_offered = np.ones(p.shape, bool)
    is_offered[:25, 3] = is_offered[30:, 1] = False
    p = np.where(is_offered, p + 0.01, 0)
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    actual = distribution_sums(np.zeros(40, np.int32), q, p, np.ones(40, bool), 1, is_offered)
    expected = [audmetric.concordance_cc(p[own, c], q[own, c]) for c, own in enumerate(is_offered.T)]
    np.testing.assert_allclose(actual.classes.compute().ccc[0], expected, rtol=1e-5)
    for name in ("num_rows", "jsd", "kl", "num_predicted"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(sums_of(q, p), name))


def test_multi_label_f1_is_strict_at_one_over_c_on_both_sides():
    q, p = random_shares(40)
    p[0], q[0] = 0.25, 0.25
    actual = sums_of(q, p)
    scores = class_scores(actual.num_true[0], actual.num_present[0], actual.num_predicted[0], f1_classes="all")
    expected = sklearn.metrics.f1_score(p > 0.25, q > 0.25, average=None)
    np.testing.assert_allclose(scores.f1, expected, rtol=1e-6)
    np.testing.assert_allclose(scores.macro_f1, expected.mean(), rtol=1e-6)
    # 1/3 and 2/6 are not exact in binary: neither exceeds 1/C of three classes.
    shares = np.asarray([[1, 1, 1], [2, 2, 2]]) / np.asarray([[3], [6]])
    assert not sums_of(shares.astype(np.float32), shares.astype(np.float32)).num_present.any()

"""Paired tests between two systems, against scipy and exhaustive enumeration; Holm's correction."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats

from seremo_jax.metrics import significance


def means(sums):
    return {"mean": sums["x"] / sums["n"]}


def sums_of(values):
    return {"x": np.asarray(values, np.float64), "n": np.ones(len(values))}


def test_all_exchanges_of_few_speakers_are_tried():
    a, b = np.asarray([0.9, 0.7, 0.6, 0.8, 0.5]), np.asarray([0.5, 0.6, 0.65, 0.3, 0.5])
    difference = a - b
    observed = abs(difference.mean())
    as_large = [abs(np.mean(signs * difference)) >= observed - 1e-12 for signs in itertools.product((1, -1), repeat=5)]
    actual = significance.permutation_p(sums_of(a), sums_of(b), means, 1_000, seed=0)["mean"]
    assert actual == pytest.approx(np.mean(as_large))


def test_many_speakers_agree_with_scipy():
    rng = np.random.default_rng(0)
    a = rng.normal(size=60)
    b = a + rng.normal(0.18, 0.6, size=60)
    expected = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=20_000, rng=1,
    ).pvalue  # fmt: skip
    actual = significance.permutation_p(sums_of(a), sums_of(b), means, 20_000, seed=0)["mean"]
    assert 0.005 < expected < 0.3
    assert actual == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_a_score_that_is_no_mean_equals_swapping_the_speakers(seed):
    """UAR and CCC-like ratios: the systems' own rows of a speaker change sides; what both share is left alone."""
    rng = np.random.default_rng(seed)
    support = rng.integers(1, 9, (6, 3))
    sides = [rng.binomial(support, rate) for rate in (0.55, 0.4)]
    sides[1][2] = sides[0][2]  # one speaker without a difference

    def compute(sums):
        recall = sums["right"] / sums["support"]
        return {"uar": recall.mean(axis=1), "odd": recall[:, 0] / (1 + recall[:, 1] * recall[:, 2])}

    def one(right):
        return {name: value[0] for name, value in compute(
            {"right": right.sum(axis=0, keepdims=True), "support": support.sum(axis=0, keepdims=True)}
        ).items()}  # fmt: skip

    differences = []
    for swaps in itertools.product((False, True), repeat=6):
        swapped = np.asarray(swaps)[:, None]
        first, second = (one(np.where(swapped, sides[1 - i], sides[i])) for i in (0, 1))
        differences.append({name: first[name] - second[name] for name in first})
    actual = significance.permutation_p(
        *({"right": right, "support": support} for right in sides), compute, num_permutations=64, seed=0
    )
    for name, p in actual.items():
        values = np.abs([difference[name] for difference in differences])
        assert p == pytest.approx(np.mean(values >= values[0] - 1e-12)), name


def test_no_chunk_changes_p(monkeypatch):
    rng = np.random.default_rng(0)
    first, second = sums_of(rng.normal(size=40)), sums_of(rng.normal(size=40))
    whole = significance.permutation_p(first, second, means, 500, seed=3)
    monkeypatch.setattr(significance, "_CHUNK_BYTES", 4_000)
    assert significance.permutation_p(first, second, means, 500, seed=3) == whole


def test_without_a_difference_p_is_uniform():
    rng = np.random.default_rng(0)
    actual = []
    for i in range(300):
        first, second = sums_of(rng.normal(size=25)), sums_of(rng.normal(size=25))
        actual.append(significance.permutation_p(first, second, means, 199, seed=i)["mean"])
    assert scipy.stats.kstest(actual, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.asarray(actual) <= 0.05) < 0.09


def test_same_systems_and_undefined_metrics():
    item = sums_of(np.arange(5.0))
    assert significance.permutation_p(item, item, means, 100, seed=0) == {"mean": 1.0}

    def undefined(sums):
        return {"mean": np.full(len(sums["x"]), np.nan)}

    assert significance.permutation_p(item, sums_of(np.zeros(5)), undefined, 100, seed=0) == {"mean": None}


def test_p_of_the_bootstrap():
    assert significance.bootstrap_p(np.full(99, 0.2)) == pytest.approx(0.02)
    assert significance.bootstrap_p(np.full(99, -0.2)) == pytest.approx(0.02)
    assert significance.bootstrap_p(np.linspace(-1, 1, 99)) == 1
    assert significance.bootstrap_p(np.zeros(99)) == 1
    assert significance.bootstrap_p(np.concatenate([np.full(99, 0.2), np.full(100, np.nan)])) is None
    normal = np.random.default_rng(0).normal(2.2, 1, 100_000)
    assert significance.bootstrap_p(normal) == pytest.approx(2 * scipy.stats.norm.sf(2.2), rel=0.05)


def test_holm_by_hand():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives 0.03 0.06 0.06 0.02.
    actual = significance.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": None})
    assert actual.pop("e") is None
    assert actual == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert significance.holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert significance.holm({}) == {}


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_step_by_step(p_values):
    actual = significance.holm(dict(enumerate(p_values)))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    is_rejecting = True
    for rank, i in enumerate(order):
        is_rejecting &= p_values[i] * (len(order) - rank) < 0.05
        assert (actual[i] < 0.05) == is_rejecting
        assert actual[i] >= p_values[i]

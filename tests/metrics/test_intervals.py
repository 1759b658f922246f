import audmetric
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from seremo_jax.metrics import intervals, percentiles, resampling
from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.moments import Moments
from tests.metrics.test_resampling import all_weights, mean_of_sums


def unit_moments(prediction, target, unit, num_units) -> Moments:
    """Per-unit moments in plain float64."""
    leaves = []
    for u in range(num_units):
        x, y = prediction[unit == u].astype(np.float64), target[unit == u].astype(np.float64)
        mx, my = (x.mean(), y.mean()) if len(x) else (0.0, 0.0)
        centred = ((x - mx) ** 2).sum(), ((y - my) ** 2).sum(), ((x - mx) * (y - my)).sum()
        leaves.append((len(x), mx, my, *centred, np.abs(x - y).sum(), ((x - y) ** 2).sum()))
    return Moments(*np.asarray(leaves, np.float64).T)


def test_weighting_units_equals_drawing_their_utterances():
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 6, 50)
    y, prediction = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    target = rng.normal(size=50) + 20
    value = 0.5 * target + rng.normal(size=50)
    confusion = np.stack([sklearn.metrics.confusion_matrix(y[unit == u], prediction[unit == u], labels=range(3))
                          for u in range(6)])  # fmt: skip
    sums, shift = intervals.moment_sums(unit_moments(value, target, unit, 6), "a ")

    def compute(actual):
        moments = intervals.moments_of_sums(actual, "a ", shift).compute()
        counts = actual["confusion"]
        uar = class_scores(np.einsum("rcc->rc", counts), counts.sum(axis=2), counts.sum(axis=1)).uar
        return {"uar": uar, "ccc": moments.ccc, "rmse": moments.rmse}

    actual = resampling.bootstrap({"confusion": confusion, **sums}, compute, num_resamples=30, seed=5)
    for r, times in enumerate(all_weights(6, 30, seed=5).astype(int)):
        rows = np.concatenate([np.tile(np.flatnonzero(unit == u), times[u]) for u in range(6)])
        uar = sklearn.metrics.recall_score(y[rows], prediction[rows], average="macro")
        np.testing.assert_allclose(actual["uar"][r], uar, rtol=1e-12)
        np.testing.assert_allclose(actual["ccc"][r], audmetric.concordance_cc(target[rows], value[rows]), rtol=1e-9)
        np.testing.assert_allclose(actual["rmse"][r], np.sqrt(np.mean((value - target)[rows] ** 2)), rtol=1e-12)


def test_moments_survive_the_sums():
    rng = np.random.default_rng(0)
    unit, target = rng.integers(0, 4, 40), rng.normal(size=40) + 1e4
    prediction = target + rng.normal(size=40)
    moments = unit_moments(prediction, target, unit, 4)
    sums, shift = intervals.moment_sums(moments, "")
    assert tuple(sums) == intervals.moment_names("")
    assert tuple(intervals.moment_sums(moments, "a ", has_errors=False)[0]) == intervals.moment_names("a ", False)
    whole = intervals.moments_of_sums(
        {name: values.sum(axis=0, keepdims=True) for name, values in sums.items()}, "", shift
    )
    expected = unit_moments(prediction, target, 0 * unit, 1)
    for name, actual, value in zip(whole._fields, whole, expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-9, err_msg=name)
    back = intervals.moments_of_sums(sums, "", shift)
    for name, actual, value in zip(back._fields, back, moments, strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_a_target_constant_in_a_resample_is_not_defined_there(seed):
    # Units 0 and 1 hold the same constant, unit 2 another one: only resamples that mix them are defined.
    constant, another = np.random.default_rng(seed).normal(size=2)
    target, unit = np.asarray([constant] * 3 + [another] * 2), np.asarray([0, 0, 1, 2, 2])
    sums, shift = intervals.moment_sums(unit_moments(np.arange(5.0), target, unit, 3), "")
    weights = np.asarray([[3.0, 0, 0], [1, 2, 0], [0, 0, 3], [2, 0, 1]])
    actual = intervals.moments_of_sums(resampling.weighted_sums(weights, sums), "", shift).compute()
    assert actual.is_defined.tolist() == [False, False, False, True]
    assert actual.ccc[:3].tolist() == [0, 0, 0]


def test_few_units_take_the_percentiles_further_out():
    values = np.arange(100_001.0)
    for num_units in (5, 15, 100):
        tail = scipy.stats.norm.cdf(scipy.stats.t.ppf(0.025, num_units - 1) * np.sqrt(num_units / (num_units - 1)))
        expected = (1e5 * tail, 1e5 * (1 - tail))
        assert intervals.interval(values, num_units) == pytest.approx(expected, rel=1e-9)
        # Of a normal distribution, that is Student's interval with the unbiased standard deviation.
        normal = scipy.stats.norm.ppf((np.arange(100_001) + 0.5) / 100_001)
        half = scipy.stats.t.ppf(0.975, num_units - 1) / np.sqrt((num_units - 1) / num_units)
        assert intervals.interval(normal, num_units)[1] == pytest.approx(half, rel=1e-2)
    columns = np.stack([values, -values], axis=1)
    low, high = percentiles.interval_bounds(columns, 15)
    np.testing.assert_allclose([low[0], high[0]], intervals.interval(values, 15))
    np.testing.assert_allclose([low[1], high[1]], intervals.interval(-values, 15))


def test_percentile_interval_and_undefined_resamples():
    values = np.arange(1001.0)
    assert intervals.interval(values) == pytest.approx((25, 975))
    assert intervals.interval(values, level=0.5) == pytest.approx((250, 750))
    assert intervals.interval(np.concatenate([values, np.full(1001, np.nan)])) == pytest.approx((25, 975))
    assert intervals.interval(np.concatenate([values, np.full(1002, np.nan)])) == (None, None)
    assert intervals.interval(np.full(5, np.nan)) == (None, None)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    # Speakers differ (their hit rate is Beta(4, 4)), so resampling utterances would be far too narrow.
    rng = np.random.default_rng(1)
    num_covered = {"speakers": 0, "utterances": 0}
    for i in range(300):
        right = rng.binomial(20, rng.beta(4, 4, 50))
        low, high = intervals.interval(
            resampling.bootstrap({"total": right, "num": np.full(50, 20)}, mean_of_sums, 300, seed=i)["mean"], 50
        )
        num_covered["speakers"] += low <= 0.5 <= high
        half = 1.96 * 0.5 / np.sqrt(50 * 20)
        num_covered["utterances"] += abs(right.sum() / 1000 - 0.5) <= half
    assert 0.91 <= num_covered["speakers"] / 300 <= 0.98
    assert num_covered["utterances"] / 300 < 0.8


def score(values, is_defined=True, count=3, chance=None):
    return intervals.Score(np.asarray([values]), np.asarray([is_defined]), np.asarray([count]), chance)


def test_entries_are_means_over_members_or_none():
    resampled = np.stack([np.linspace(0, 1, 101), np.linspace(-1, 2, 101)], axis=1)
    actual = intervals.entry(score([0.2, 0.4], chance=0.25), resampled)
    assert actual == {
        "value": pytest.approx(0.3), "low": pytest.approx(0.025), "high": pytest.approx(0.975), "members": [0.2, 0.4],
        "low_members": pytest.approx(-0.925), "high_members": pytest.approx(1.925),
        "sd": pytest.approx(0.02**0.5), "sd_speakers": pytest.approx(np.std(resampled[:, 0], ddof=1)),
        "count": 3, "defined": True, "chance": 0.25,
    }  # fmt: skip
    assert intervals.entry(score([0.2]), resampled)["sd"] is None
    actual = intervals.entry(score([0.0, 0.0], is_defined=False, count=0), resampled)
    names = ("value", "low", "high", "low_members", "high_members", "sd", "sd_speakers")
    assert actual == dict.fromkeys(names) | {
        "members": [None] * 2,
        "count": 0,
        "defined": False,
    }


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0, 100 * (1 - 0.025**0.1)), (100.0, 100 * 0.025**0.1, 100)])
def test_a_share_of_none_or_all_speakers_is_not_certain(value, low, high):
    point = intervals.Score(np.asarray([[value, value]]), np.asarray([True]), np.asarray([10]), is_share=True)
    actual = intervals.entry(point, np.full((50, 2), value))
    assert (actual["low"], actual["high"]) == pytest.approx((low, high))
    expected = scipy.stats.binomtest(int(value / 10), 10).proportion_ci(0.95, "exact")
    assert (actual["low_members"], actual["high_members"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    half = intervals.Score(np.asarray([[50.0]]), np.asarray([True]), np.asarray([10]), is_share=True)
    assert intervals.entry(half, np.full((50, 2), 50.0))["low"] == 50


def test_a_gap_needs_both_sides():
    resampled = np.stack([np.linspace(-0.2, 0.2, 41)] * 2, axis=1)
    actual = intervals.gap_entry(score([0.6, 0.8]), score([0.5, 0.4], count=4, chance=0.1), resampled, ("f", "m"))
    assert actual["value"] == pytest.approx(0.25)
    assert actual["members"] == pytest.approx([0.1, 0.4])
    assert (actual["count"], actual["counts"]) == (7, {"f": 3, "m": 4})
    assert actual["values"] == {"f": pytest.approx(0.7), "m": pytest.approx(0.45)}
    assert "chance" not in actual
    actual = intervals.gap_entry(score([0.6]), score([0.0], is_defined=False), resampled, ("f", "m"))
    assert (actual["value"], actual["low"], actual["defined"]) == (None, None, False)
    assert actual["values"] == {"f": 0.6, "m": None}


def test_a_single_unit_gives_no_interval():
    statistics = {"x": np.array([[0.0], [3.0], [0.0]])}
    values = resampling.bootstrap(statistics, lambda sums: {"mean": sums["x"][:, 0]}, 50, seed=0)
    assert values["mean"].shape == (50,)
    assert intervals.interval(values["mean"]) == (None, None)


def test_bounds_of_what_no_resample_defines_are_not_defined():
    low, high = percentiles.interval_bounds(np.full((7, 2, 3), np.nan), 4)
    assert low.shape == high.shape == (2, 3)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_what_hangs_on_few_of_the_units_has_the_interval_of_so_few():
    resampled = np.random.default_rng(0).normal(size=(500, 2))
    ones = np.ones(1, bool)
    few = intervals.Score(np.zeros((1, 2)), ones, np.full(1, 40), num_units=8)
    entry = intervals.entry(few, resampled, 40)
    assert (entry["low"], entry["high"]) == intervals.interval(resampled[:, 0], 8)
    assert entry["count"] == 40
    assert entry["low"] < intervals.interval(resampled[:, 0], 40)[0]

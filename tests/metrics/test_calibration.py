"""Temperature, calibration error, conformal sets and abstention against independent code and simulated truth."""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from crepes import ConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from seremo_jax.metrics import abstention, calibration, conformal

C = 4


def said(number, seed=0, sure=2.0, raters=5):
    """Predictions that are too sure, and shares of the votes of raters who follow a flatter distribution."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(number, C))
    true = scipy.special.softmax(logits, axis=1)
    votes = rng.multinomial(raters, true)
    return scipy.special.softmax(sure * logits, axis=1), votes / raters


class Given(ClassifierMixin, BaseEstimator):
    """A fitted model whose features are its predictions."""

    def fit(self, X, y):
        self.classes_ = np.arange(C)
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(1)


def test_the_temperature_is_that_of_another_minimiser():
    p, shares = said(400)
    logits = np.log(p)
    result = scipy.optimize.minimize(
        lambda b: -(shares * scipy.special.log_softmax(b[0] * logits, axis=1)).sum(1).mean(), [1.0], method="BFGS"
    )
    actual = calibration.fit_temperature(p, shares)
    assert actual == pytest.approx(1 / result.x[0], rel=1e-4)
    assert actual == pytest.approx(2.0, rel=0.15)
    np.testing.assert_allclose(
        calibration.tempered(p, actual), scipy.special.softmax(logits / actual, axis=1), atol=1e-12
    )


def test_with_one_vote_the_temperature_is_scikit_learns():
    p, shares = said(300, seed=1, raters=1)
    y = shares.argmax(1)
    model = CalibratedClassifierCV(FrozenEstimator(Given().fit(p, y)), method="temperature").fit(p, y)
    actual = calibration.tempered(p, calibration.fit_temperature(p, shares))
    np.testing.assert_allclose(actual, model.predict_proba(p), atol=1e-5)
    assert calibration.log_loss(actual, shares).mean() == pytest.approx(log_loss(y, actual), abs=1e-12)


def test_temperatures_of_degenerate_predictions():
    p, shares = said(50)
    assert calibration.fit_temperature(p[:0], shares[:0]) == 1.0
    assert calibration.fit_temperature(np.ones((5, 1)), np.ones((5, 1))) == 1.0  # one class
    uniform = np.full((5, C), 1 / C)
    assert calibration.fit_temperature(uniform, shares[:5]) == 1.0  # no temperature changes it
    right = np.eye(C)[[0, 1, 2]] * 0.6 + 0.1
    _, high = calibration.TEMPERATURES
    assert calibration.fit_temperature(right, np.eye(C)[[0, 1, 2]]) < 0.1  # always right: as sure as may be
    assert calibration.fit_temperature(right, np.eye(C)[[1, 2, 0]]) > 0.9 * high
    assert np.isfinite(calibration.tempered(np.eye(C), high)).all()  # shares of 0 stay finite


def ece(confidence, outcome):
    """As written by Guo et al.: bin by bin, (lower, upper]."""
    total, edges = 0.0, np.linspace(0, 1, calibration.NUM_BINS + 1)
    for low, high in itertools.pairwise(edges):
        here = (confidence > low) & (confidence <= high)
        if here.any():
            total += here.mean() * abs(confidence[here].mean() - outcome[here].mean())
    return total


def test_calibration_error_against_a_loop_and_bins_against_scikit_learn():
    p, shares = said(500, seed=2)
    best, sure = p.argmax(1), p.max(1)
    unit, is_in = np.arange(500) % 7, np.arange(500) % 5 > 0
    for outcome in (shares[np.arange(500), best], (shares.argmax(1) == best).astype(float)):
        bins = calibration.bin_sums(sure, outcome, is_in, unit, 9)
        assert bins.shape == (9, calibration.NUM_BINS, 3)
        assert not bins[7:].any()
        actual = calibration.calibration_error(bins.sum(0))
        assert actual == pytest.approx(ece(sure[is_in], outcome[is_in]), abs=1e-12)
        item = unit == 3
        assert calibration.calibration_error(bins)[3] == pytest.approx(
            ece(sure[is_in & item], outcome[is_in & item]), abs=1e-12
        )
    true, predicted = calibration_curve(outcome[is_in], sure[is_in], n_bins=calibration.NUM_BINS, strategy="uniform")
    means = calibration.bin_means(bins.sum(0))
    used = np.isfinite(means[:, 0])
    np.testing.assert_allclose(means[used], np.stack([predicted, true], 1), atol=1e-12)
    assert np.isnan(calibration.calibration_error(np.zeros((calibration.NUM_BINS, 3))))


def test_a_confidence_on_an_edge_counts_below_it():
    edges = np.array([1 / 3, 0.2, 1.0, 0.0])
    bins = calibration.bin_sums(edges, np.ones(4), np.ones(4, bool), np.zeros(4, np.int64), 1)[0, :, 0]
    assert np.flatnonzero(bins).tolist() == [0, 2, 4, 14]


@pytest.mark.parametrize("level", [0.52, 0.8, 0.9, 0.97])
def test_with_one_vote_the_sets_are_those_of_crepes(level):
    p, shares = said(80, seed=3, raters=1)
    gender = np.where(np.arange(80) % 3 > 0, "female", "male")
    ours, new = np.arange(50), np.arange(50, 80)
    actual, y = conformal.scores(p), shares.argmax(1)
    alphas = actual[ours, y[ours]]
    sets = conformal.sets(actual[new], conformal.threshold(actual[ours], shares[ours], level))
    other = ConformalClassifier().fit(alphas, seed=0)
    np.testing.assert_array_equal(sets, other.predict_set(actual[new], confidence=level, smoothing=False))
    if level < 0.97:  # a third of 50 is enough for it
        by = conformal.thresholds_by_group(actual[ours], shares[ours], gender[ours].tolist(), level)
        sets = conformal.sets(actual[new], np.array([by[item] for item in gender[new]]))
        other = ConformalClassifier().fit(alphas, bins=gender[ours], seed=0)
        wanted = other.predict_set(actual[new], bins=gender[new], confidence=level, smoothing=False)
        np.testing.assert_array_equal(sets, wanted)


def test_the_threshold_of_votes_is_the_least_that_controls_the_risk():
    p, shares = said(37, seed=4)
    actual, n = conformal.scores(p), 37
    for level in (0.3, 0.75, 0.9):
        at = conformal.threshold(actual, shares.astype(np.float32), level)
        risk = [((actual > item) * shares).sum(1).mean() for item in np.sort(actual.ravel())]
        fits = [n / (n + 1) * item + 1 / (n + 1) <= 1 - level + 1e-9 for item in risk]  # Conformal Risk Control, (4)
        assert at == np.sort(actual.ravel())[fits.index(True)]


def test_too_few_utterances_put_every_class_in():
    p, shares = said(8)
    actual = conformal.scores(p)
    assert conformal.threshold(actual, shares, 0.9) == math.inf  # 9 would be enough
    assert math.isfinite(conformal.threshold(*(np.concatenate([x, x[:1]]) for x in (actual, shares)), 0.9))
    assert conformal.threshold(actual[:0], shares[:0], 0.5) == math.inf
    assert conformal.sets(actual, math.inf).all()
    by = conformal.thresholds_by_group(actual, shares, ["female"] * 6 + ["male"] * 2, 0.8)
    assert by.keys() == {"female"}
    item = np.ones((20, 1))
    assert conformal.sets(conformal.scores(item), conformal.threshold(conformal.scores(item), item, 0.9)).all()
    for level in (0.0, 1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"level = .*must lie between 0 and 1"):
            conformal.threshold(actual, shares, level)


levels = st.floats(0.01, 0.99)


@hypothesis.given(st.integers(1, 60), st.integers(0, 2**31), levels, levels)
def test_sets_grow_with_the_level_and_hold_it_where_they_were_made(number, seed, low, high):
    p, shares = said(number, seed)
    actual, levels = conformal.scores(p), sorted((low, high))
    small, large = (conformal.sets(actual, conformal.threshold(actual, shares, level)) for level in levels)
    assert (small <= large).all()
    for sets, level in zip((small, large), levels, strict=True):
        assert (sets * shares).sum(1).mean() >= level - 1e-9


@pytest.mark.parametrize("raters", [1, 5])
def test_sets_hold_the_level_of_the_votes_of_new_utterances(raters):
    """On average over 3,000 calibrations on 29 utterances: at least the level, and at most 2 / 30 more."""
    level, n, number = 0.8, 29, 3000
    p, shares = said(number * (n + 1), seed=5, raters=raters)
    actual = conformal.scores(p).reshape(number, n + 1, C)
    shares = shares.reshape(number, n + 1, C)
    held = np.empty(number)
    for i in range(number):
        at = conformal.threshold(actual[i, :n], shares[i, :n], level)
        held[i] = (conformal.sets(actual[i, n:], at) * shares[i, n:]).sum()
    error = held.std() / math.sqrt(number)
    assert held.mean() >= level - 3 * error
    assert held.mean() <= level + 2 / (n + 1) + 3 * error


def aurc(confidence, loss):
    """Mean over coverages of the mean loss of the surest, over every order of equal confidences."""
    values = []
    for order in itertools.permutations(range(len(loss))):
        c = confidence[list(order)]
        if (np.diff(c) <= 0).all():
            values.append((np.cumsum(loss[list(order)]) / np.arange(1, len(loss) + 1)).mean())
    return np.mean(values)


@pytest.mark.parametrize("distinct", [False, True])
def test_the_area_under_risk_and_coverage_is_the_mean_over_orders_of_ties(distinct):
    rng = np.random.default_rng(6)
    confidence = rng.permutation(7) / 7 if distinct else np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.2, 0.9])
    loss = rng.random(7)
    rest = (np.ones(7, bool), np.arange(7) % 2, 2)
    steps = abstention.step_sums(confidence, loss, *rest).sum(0)
    assert abstention.area(steps) == pytest.approx(aurc(confidence, loss), abs=1e-12)


def test_risk_and_coverage_of_many_utterances():
    rng = np.random.default_rng(7)
    confidence, loss, number = rng.random(2000), rng.random(2000), 2000
    loss = np.clip(loss - 0.5 * confidence, 0, 1)
    unit, is_in = rng.integers(0, 5, number), np.ones(number, bool)
    steps = abstention.step_sums(confidence, loss, is_in, unit, 5)
    ordered = loss[np.argsort(-confidence)]
    exact = np.cumsum(ordered) / np.arange(1, number + 1)
    assert abstention.area(steps.sum(0)) == pytest.approx(exact.mean(), abs=1e-3)
    (curve,) = abstention.curve(steps.sum(0, keepdims=True))
    at = (np.array(abstention.COVERAGES) * number).round().astype(int) - 1
    np.testing.assert_allclose(curve, exact[at], atol=0.01)
    assert curve[-1] == pytest.approx(loss.mean())
    # Who answers at random gains nothing: one step of equal confidences.
    flat = abstention.step_sums(np.ones(number), loss, is_in, unit, 5).sum(0)
    assert abstention.area(flat) == pytest.approx(loss.mean(), abs=1e-12)
    np.testing.assert_allclose(abstention.curve(flat[None])[0], loss.mean())


def test_nothing_to_abstain_from_is_not_defined():
    steps = abstention.step_sums(np.ones(3), np.ones(3), np.zeros(3, bool), np.zeros(3, np.int64), 2)
    assert not steps.any()
    assert np.isnan(abstention.area(steps)).all()
    assert np.isnan(abstention.curve(steps)).all()

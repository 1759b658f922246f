"""Priors of speakers: against the maximum that another method finds, and what must not change them."""

import numpy as np
import pytest
import scipy.optimize

from seremo_jax.metrics import class_priors
from seremo_jax.metrics.calibration import tempered

E, N, C, KAPPA = 2, 9, 4, 3.0


@pytest.fixture(scope="module")
def said():
    """Predictions of two members, their priors, one of which lacks a class, and their temperatures."""
    rng = np.random.default_rng(0)
    distribution = rng.dirichlet(np.full(C, 0.4), (E, N)).astype(np.float32)
    prior = rng.dirichlet(np.full(C, 3.0), E)
    prior[1, 2] = 0
    return distribution, prior / prior.sum(axis=1, keepdims=True), np.array([0.7, 1.6])


def by_hand(q, prior, kappa):
    """The prior of one speaker for one member, in plain loops."""
    own = list(prior)
    for _ in range(5_000):
        total = [kappa * share for share in prior]
        for row in q:
            parts = [q_c * o / p if p else 0.0 for q_c, o, p in zip(row, own, prior, strict=True)]
            total = [t + part / sum(parts) for t, part in zip(total, parts, strict=True)]
        own = [t / (len(q) + kappa) for t in total]
    return np.array(own)


def test_the_prior_of_a_speaker_is_that_of_loops_and_of_another_optimiser(said):
    q, prior, _ = said
    actual = class_priors.fit(q, prior, KAPPA)
    for e in range(E):
        np.testing.assert_allclose(actual[e], by_hand(q[e].astype(float), prior[e], KAPPA), rtol=0, atol=1e-8)
        has = prior[e] > 0
        ratio, share = q[e].astype(float)[:, has] / prior[e][has], prior[e][has]

        def loss(logits, ratio=ratio, share=share):
            own = np.exp(logits - scipy.special.logsumexp(logits))
            return -np.log(ratio @ own).sum() - KAPPA * (share * np.log(own)).sum()

        best = scipy.optimize.minimize(loss, np.zeros(has.sum()), method="BFGS", options={"gtol": 1e-9}).x
        np.testing.assert_allclose(actual[e][has], scipy.special.softmax(best), rtol=0, atol=1e-6)
    assert actual[1, 2] == 0


def test_what_the_prior_depends_on(said):
    q, prior, _ = said
    actual = class_priors.fit(q, prior, KAPPA)
    np.testing.assert_allclose(class_priors.fit(q[:, ::-1], prior, KAPPA), actual, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        class_priors.fit(q, prior, KAPPA, start=actual[::-1] + 0.01 * (prior > 0)), actual, atol=1e-8
    )
    for e in range(E):
        # Alone as beside another member, to the bit.
        np.testing.assert_array_equal(class_priors.fit(q[e : e + 1], prior[e : e + 1], KAPPA)[0], actual[e])
    np.testing.assert_array_equal(class_priors.fit(q[:, :0], prior, KAPPA), prior)
    np.testing.assert_allclose(class_priors.fit(q, prior, 1e9), prior, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="must count as more than no utterance"):
        class_priors.fit(q, prior, 0.0)


def test_corrected_predictions_are_bayes_rule_on_calibrated_ones(said):
    q, prior, temperature = said
    after, own = class_priors.transductive(q, prior, KAPPA, temperature)
    np.testing.assert_allclose(after.sum(-1), 1, rtol=1e-6)
    for e in range(E):
        calibrated = q[e].astype(float) ** (1 / temperature[e])
        calibrated /= calibrated.sum(1, keepdims=True)
        np.testing.assert_allclose(own[e], by_hand(calibrated, prior[e], KAPPA), rtol=0, atol=1e-8)
    expected = q[0].astype(float) ** (1 / temperature[0]) * own[0] / prior[0]
    np.testing.assert_allclose(tempered(after[0], temperature[0]), expected / expected.sum(1, keepdims=True), rtol=1e-9)
    # Of the member without a class in its prior, that class keeps its share and the others share the rest.
    others = [0, 1, 3]
    np.testing.assert_array_equal(after[1, :, 2], q[1, :, 2].astype(float))
    expected = q[1][:, others].astype(float) * (own[1] / np.where(prior[1] > 0, prior[1], 1))[others] ** temperature[1]
    expected *= (1 - q[1, :, 2].astype(float)[:, None]) / expected.sum(1, keepdims=True)
    np.testing.assert_allclose(after[1][:, others], expected, rtol=1e-6)
    same, _ = class_priors.transductive(q, prior, 1e12, temperature)
    np.testing.assert_allclose(same, q, rtol=0, atol=1e-7)


def test_online_knows_the_past_and_nothing_else(said):
    q, prior, temperature = said
    after = class_priors.online(q, prior, KAPPA, temperature)
    np.testing.assert_allclose(after[:, 0], q[:, 0], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(class_priors.online(q[:, :5], prior, KAPPA, temperature), after[:, :5])
    for i in (1, 4, 8):
        own = class_priors.transductive(q[:, :i], prior, KAPPA, temperature)[1]
        expected = class_priors.corrected(q[:, i : i + 1], prior, own[:, None], temperature)
        np.testing.assert_allclose(after[:, i : i + 1], expected, rtol=0, atol=1e-7)


def test_a_speaker_of_few_classes_is_found():
    """Of a speaker who shows two of four classes, told apart badly, more answers are right than before."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 60)
    prior = np.full((1, C), 1 / C)
    logits = 1.5 * np.eye(C)[truth] + rng.normal(size=(60, C))
    q = np.exp(1.5 * logits)[None] / np.exp(1.5 * logits).sum(1)[None, :, None]
    after, own = class_priors.transductive(q, prior, 5.0, np.ones(1))
    assert own[0, :2].sum() > 0.85
    right = [(p[0].argmax(1) == truth).mean() for p in (q, after)]
    assert right[1] > right[0] + 0.1

"""Means of classes and what enrolment makes of them, against loops and SciPy's normal densities in float64."""

import numpy as np
import pytest
import scipy.stats

from seremo_jax.metrics import prototypes

N, C, SIZE, KAPPA = 40, 4, 3, 2.5


@pytest.fixture(scope="module")
def known():
    """Embeddings, classes of which the last never occurs, and what is known of them."""
    rng = np.random.default_rng(0)
    label = rng.integers(-1, C - 1, N)
    embedding = (rng.normal(size=(N, SIZE)) + 2 * label[:, None]).astype(np.float32)
    shares = np.eye(C)[label] * (label >= 0)[:, None]
    return embedding.astype(float), label, prototypes.class_means(embedding, shares)


def test_means_and_the_shrunk_covariance_are_those_of_loops(known):
    embedding, label, actual = known
    scatter, number = np.zeros((SIZE, SIZE)), 0
    for c in range(C - 1):
        rows = embedding[label == c]
        np.testing.assert_allclose(actual.mean[c], rows.mean(0), rtol=1e-12)
        scatter, number = scatter + (len(rows) - 1) * np.cov(rows.T), number + len(rows)
    np.testing.assert_array_equal(actual.count, [(label == c).sum() for c in range(C)])
    within, a = scatter / number, SIZE / (SIZE + number)
    expected = (1 - a) * within + a * np.trace(within) / SIZE * np.eye(SIZE)
    np.testing.assert_allclose(np.linalg.inv(actual.precision), expected, rtol=1e-9)


def test_an_enrolled_speaker_is_scored_by_the_ratio_of_two_normal_densities(known):
    embedding, _, means = known
    rng = np.random.default_rng(1)
    heard, label = rng.normal(size=(5, SIZE)) + 1, np.array([0, 2, 0, 3, 0])
    own = prototypes.enrolled(means, heard, label, KAPPA)
    for c, rows in ((0, [0, 2, 4]), (2, [1])):
        expected = (heard[rows].sum(0) + KAPPA * means.mean[c]) / (len(rows) + KAPPA)
        np.testing.assert_allclose(own[c], expected, rtol=1e-12)
    # Nothing was learned of the last class in training, and nobody enrolled the second.
    np.testing.assert_array_equal(own[[1, 3]], means.mean[[1, 3]])
    order = [4, 3, 2, 1, 0]
    np.testing.assert_allclose(prototypes.enrolled(means, heard[order], label[order], KAPPA), own, rtol=1e-12)
    actual = prototypes.evidence(embedding, means, own)
    covariance = np.linalg.inv(means.precision)
    for c in range(C):
        densities = [
            scipy.stats.multivariate_normal(mean[c], covariance).logpdf(embedding) for mean in (own, means.mean)
        ]
        np.testing.assert_allclose(actual[:, c], densities[0] - densities[1], rtol=0, atol=1e-9)
    q = rng.dirichlet(np.ones(C), N).astype(np.float32)
    expected = q.astype(float) * np.exp(0.7 * actual)
    np.testing.assert_allclose(prototypes.mixed(q, actual, 0.7), expected / expected.sum(1, keepdims=True), rtol=1e-9)


def test_without_enrolment_the_head_speaks_alone(known):
    embedding, _, means = known
    nothing = prototypes.enrolled(means, np.zeros((0, SIZE)), np.zeros(0, int), KAPPA)
    step = prototypes.evidence(embedding, means, nothing)
    np.testing.assert_array_equal(step, 0)
    q = np.random.default_rng(2).dirichlet(np.ones(C), N)
    np.testing.assert_allclose(prototypes.mixed(q, step, 1.0), q, rtol=1e-12)
    far = prototypes.enrolled(means, np.ones((1, SIZE)), np.zeros(1, int), 1e12)
    assert np.abs(prototypes.evidence(embedding, means, far)).max() < 1e-9

"""Distances of classes, transport between distributions, cost and merged classes, against scipy and plain loops."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics

from seremo_jax.metrics import class_distances as semantic
from seremo_jax.metrics.confusions import NBest, confusion_scores

LINE = np.abs(np.arange(8.0)[:, None] - np.arange(8.0)[None, :])


def distance_of(num_classes, kind, seed=0):
    if kind == "uniform":
        return 1 - np.eye(num_classes)
    if kind == "line":
        return LINE[:num_classes, :num_classes] / (num_classes - 1)
    points = np.random.default_rng(seed).normal(size=(num_classes, 3))
    distance = scipy.spatial.distance.cdist(points, points)
    return distance / distance.max()


def transport(q, p, distance):
    """The cheapest plan by linear programming."""
    C = len(q)
    sums = np.concatenate([np.kron(np.eye(C), np.ones(C)), np.kron(np.ones(C), np.eye(C))])
    return scipy.optimize.linprog(distance.ravel(), A_eq=sums, b_eq=np.concatenate([q, p])).fun


def shares_of(num_rows, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(num_classes, 0.5), num_rows)
    p = rng.multinomial(5, np.full(num_classes, 1 / num_classes), num_rows) / 5
    q[0], p[0] = np.eye(num_classes)[[0, -1]]  # all of it must move
    return q, p


@pytest.mark.parametrize("kind", ["random", "line", "uniform"])
@pytest.mark.parametrize("num_classes", [2, 3, 4, 6, 8])
def test_transport_equals_linear_programming(num_classes, kind):
    distance = distance_of(num_classes, kind, seed=num_classes)
    q, p = shares_of(12, num_classes)
    potentials = semantic.potentials_of(distance)
    found = semantic.wasserstein(q.astype(np.float32), p.astype(np.float32), potentials)
    np.testing.assert_allclose(found, [transport(*both, distance) for both in zip(q, p, strict=True)], atol=1e-6)
    np.testing.assert_allclose(semantic.wasserstein(p, p, potentials), 0, atol=1e-6)
    if kind == "uniform":  # every move costs the same: total variation
        np.testing.assert_allclose(found, np.abs(q - p).sum(axis=1) / 2, atol=1e-6)
    if kind == "line":
        places = np.arange(num_classes) / (num_classes - 1)
        expected = [scipy.stats.wasserstein_distance(places, places, *both) for both in zip(q, p, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ten_classes_have_potentials_and_eleven_do_not():
    distance = distance_of(10, "random")
    q, p = shares_of(3, 10)
    found = semantic.wasserstein(q.astype(np.float32), p.astype(np.float32), semantic.potentials_of(distance))
    np.testing.assert_allclose(found, [transport(*both, distance) for both in zip(q, p, strict=True)], atol=1e-6)
    assert semantic.potentials_of(distance_of(11, "random")).shape == (0, 11)


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.lists(st.integers(0, 3), min_size=14, max_size=14), st.permutations(range(14)))
def test_transport_is_merged_in_any_order(batch, order):
    q, p = (values.astype(np.float32)[list(order)] for values in shares_of(14, 4))
    unit = (np.arange(14, dtype=np.int32) % 3)[list(order)]
    potentials = semantic.potentials_of(distance_of(4, "random"))
    parts = [_transport_of(unit, q, p, np.asarray(batch) == i, potentials) for i in range(4)]
    one = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))
    other = parts[3].merge(parts[2].merge(parts[1].merge(parts[0])))
    whole = _transport_of(unit, q, p, np.ones(14, bool), potentials)
    for merged in (one, other):
        np.testing.assert_array_equal(merged.num_rows, whole.num_rows)
        np.testing.assert_allclose(merged.distance, whole.distance, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(whole.pool().compute(), semantic.wasserstein(q, p, potentials).mean(), rtol=1e-6)


@jax.jit
def _transport_of(unit, q, p, mask, potentials):
    return semantic.Transport.empty(3).update(unit, q, p, mask, potentials)


def test_what_is_masked_or_has_no_distance_is_not_counted():
    q, p = (values.astype(np.float32) for values in shares_of(6, 4))
    junk = np.full((2, 4), np.nan, np.float32)
    unit = np.asarray([0, 1, 2, 0, 1, 2, -1, -1], np.int32)
    potentials = semantic.potentials_of(distance_of(4, "random"))
    padded = _transport_of(unit, np.concatenate([q, junk]), np.concatenate([p, junk]), np.arange(8) < 6, potentials)
    for x, y in zip(padded, _transport_of(unit[:6], q, p, np.ones(6, bool), potentials), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    nothing = _transport_of(unit[:6], q, p, np.ones(6, bool), potentials[:0])
    assert not np.asarray(nothing.num_rows).any()
    assert not np.asarray(nothing.compute()).any()


def test_centroids_use_what_is_rated_only():
    rng = np.random.default_rng(0)
    consensus = np.asarray([0, 1, 2, 0, 1, 2, -1, 2])
    attributes = rng.normal(size=(8, 3)).astype(np.float32)
    has_attribute = np.ones((8, 3), bool)
    has_attribute[:, 2] = False
    has_attribute[7] = (True, False, False)
    rows = [[0, 3], [1, 4], [2, 5]]
    centroids = np.stack([attributes[row, :2].astype(float).mean(axis=0) for row in rows])
    expected = scipy.spatial.distance.cdist(centroids, centroids)
    found = semantic.attribute_distance(attributes, has_attribute, consensus, 3)
    np.testing.assert_allclose(found, expected / expected.max(), rtol=1e-12)
    assert semantic.attribute_distance(attributes, has_attribute, consensus, 4) is None  # nowhere to put the fourth
    has_attribute[:, 1] = False
    assert semantic.attribute_distance(attributes, has_attribute, consensus, 3) is None  # one attribute only


def test_co_votes_equal_a_loop_over_pairs_of_raters():
    votes = np.random.default_rng(1).multinomial(4, [0.4, 0.3, 0.2, 0.1], 50)
    pairs = np.zeros((4, 4))
    for row in votes:
        raters = np.repeat(np.arange(4), row)
        for i, j in np.ndindex(4, 4):
            if i != j:
                pairs[raters[i], raters[j]] += 1
    own = np.sqrt(np.outer(pairs.diagonal(), pairs.diagonal()))
    raw = 1 - np.minimum(pairs / own, 1)
    np.fill_diagonal(raw, 0)
    # Raters who draw independently confuse everything: almost no distance is left before it is scaled.
    assert raw.max() < 0.35
    found = semantic.co_vote_distance(votes)
    shortest = np.maximum(raw, 1e-3 * raw.max() * (1 - np.eye(4)))
    for k in range(4):
        shortest = np.minimum(shortest, shortest[:, k, None] + shortest[None, k])
    np.testing.assert_allclose(found, shortest / shortest.max(), atol=1e-12)
    assert semantic.co_vote_distance(np.eye(4, dtype=int)) is None  # one rater each
    agreeing = semantic.co_vote_distance(3 * np.eye(4, dtype=int))
    np.testing.assert_array_equal(agreeing, 1 - np.eye(4))


def test_raters_mix_up_classes_and_these_are_merged():
    # 0 with 3, 1 with 2; 4 stands alone.
    votes = np.asarray(
        [[3, 0, 0, 2, 0], [2, 0, 0, 3, 0], [0, 4, 1, 0, 0], [0, 2, 3, 0, 0], [0, 0, 0, 0, 5], [4, 0, 0, 0, 1]]
    )
    distance = semantic.co_vote_distance(votes)
    assert semantic.co_vote_groups(distance) == (0, 1, 1, 0, 2)
    counts = np.random.default_rng(0).integers(0, 9, (3, 5, 5))
    groups = np.asarray([0, 1, 1, 0, 2])
    merged = semantic.merge_classes(counts, (0, 1, 1, 0, 2))
    uar = confusion_scores(merged).uar
    for i, (one, many) in enumerate(zip(merged, counts, strict=True)):
        y, prediction = np.repeat(np.argwhere(many >= 0), many.ravel(), axis=0).T
        np.testing.assert_array_equal(one, sklearn.metrics.confusion_matrix(groups[y], groups[prediction]))
        expected = sklearn.metrics.balanced_accuracy_score(groups[y], groups[prediction])
        np.testing.assert_allclose(uar[i], expected)
        np.testing.assert_allclose(semantic.expected_cost(counts, distance)[i], distance[y, prediction].mean())
    assert not semantic.expected_cost(np.zeros((2, 5, 5)), distance).any()
    pooled = NBest(jax.numpy.asarray(counts[:, None])).pool().counts
    found = semantic.expected_cost(pooled, jax.numpy.asarray(distance[None], np.float32))
    np.testing.assert_allclose(found, semantic.expected_cost(counts.sum(axis=0)[None], distance), rtol=1e-6)


def test_the_ground_of_a_corpus():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(5, np.full(3, 1 / 3), 40)
    consensus = np.where(np.sort(votes, axis=1)[:, -1] > np.sort(votes, axis=1)[:, -2], votes.argmax(axis=1), -1)
    attributes = rng.normal(size=(40, 3)).astype(np.float32)
    rated, unrated = np.ones((40, 3), bool), np.zeros((40, 3), bool)
    by_attributes = semantic.ground_of(votes, consensus, attributes, rated)
    by_votes = semantic.ground_of(votes, consensus, attributes, unrated)
    assert (by_attributes.source, by_votes.source) == ("attributes", "co-votes")
    assert by_attributes.groups == by_votes.groups
    for ground in (by_attributes, by_votes):
        assert ground.distance.max() == 1
        assert (ground.distance == ground.distance.T).all()
    alone = np.eye(3, dtype=int)[rng.integers(0, 3, 40)]
    assert semantic.ground_of(alone, consensus, attributes, unrated) is None
    assert semantic.ground_of(alone, consensus, attributes, rated).groups == ()

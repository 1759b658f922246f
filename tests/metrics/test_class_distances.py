"""Distances of classes and merged classes, against scipy, scikit-learn and plain loops."""

import jaxtyping
import numpy as np
import pytest
import scipy.spatial.distance
import sklearn.metrics

from seremo_jax.metrics import class_distances as semantic
from seremo_jax.metrics.confusions import class_scores


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
    actual = semantic.attribute_distance(attributes, has_attribute, consensus, 3)
    np.testing.assert_allclose(actual, expected / expected.max(), rtol=1e-12)
    assert semantic.attribute_distance(attributes, has_attribute, consensus, 4) is None  # nowhere to put the fourth
    has_attribute[:, 1] = False
    assert semantic.attribute_distance(attributes, has_attribute, consensus, 3) is None  # one attribute only


def test_annotations_are_checked_at_every_call():
    """Of shape and dtype, of the whole package, while the tests run; here of one function."""
    for _ in range(2):
        with pytest.raises(jaxtyping.TypeCheckError, match="attribute_distance"):
            semantic.attribute_distance(np.ones((8, 3)), np.ones((7, 3), bool), np.zeros(8, int), 3)


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
    actual = semantic.co_vote_distance(votes)
    shortest = np.maximum(raw, 1e-3 * raw.max() * (1 - np.eye(4)))
    for k in range(4):
        shortest = np.minimum(shortest, shortest[:, k, None] + shortest[None, k])
    np.testing.assert_allclose(actual, shortest / shortest.max(), atol=1e-12)
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
    uar = class_scores(np.einsum("igg->ig", merged), merged.sum(axis=2), merged.sum(axis=1)).uar
    for i, (item, many) in enumerate(zip(merged, counts, strict=True)):
        y, prediction = np.repeat(np.argwhere(many >= 0), many.ravel(), axis=0).T
        np.testing.assert_array_equal(item, sklearn.metrics.confusion_matrix(groups[y], groups[prediction]))
        expected = sklearn.metrics.balanced_accuracy_score(groups[y], groups[prediction])
        np.testing.assert_allclose(uar[i], expected)


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

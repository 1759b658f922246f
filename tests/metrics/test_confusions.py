"""Confusion counts of N-best and scores of classes, against scikit-learn, audmetric and plain loops."""

import audmetric
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import sklearn.metrics

from seremo_jax.metrics.confusions import class_scores, nbest_counts

NUM_CLASSES = 4
ALL_N = (1, 2, 3, 4)


def random_rows(num_rows=60, seed=0, num_levels=5):
    """Scores on a coarse grid, so that ties are common; a fifth of the rows has no consensus."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, num_levels, (num_rows, NUM_CLASSES)).astype(np.float32)
    consensus = np.where(rng.random(num_rows) < 0.2, -1, rng.integers(0, NUM_CLASSES, num_rows)).astype(np.int32)
    return scores, consensus, rng.integers(0, 5, num_rows).astype(np.int32)


def ranking(row):
    """Classes from most to least probable; equal ones in class order."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


_counts_of = jax.jit(nbest_counts, static_argnums=(3, 4))


def counts_of(scores, consensus, unit=None, num_units=5, nbest=ALL_N):
    unit = np.zeros(len(scores), np.int32) if unit is None else unit
    return np.asarray(_counts_of(unit, scores, consensus, nbest, num_units))


def scores_of(counts, f1_classes="present"):
    """Class scores of confusion counts [..., C, C] from totals of each class, as scoring takes them."""
    return class_scores(np.einsum("...cc->...c", counts), counts.sum(axis=-1), counts.sum(axis=-2), f1_classes)


@pytest.mark.parametrize("seed", range(3))
def test_one_best_agrees_with_scikit_learn_and_audmetric(seed):
    scores, consensus, _ = random_rows(seed=seed)
    whole = counts_of(scores, consensus).sum(axis=0)
    actual = scores_of(whole)
    y, prediction = consensus[consensus >= 0], scores.argmax(axis=1)[consensus >= 0]
    everything = {"labels": range(NUM_CLASSES), "zero_division": 0}
    counts = sklearn.metrics.confusion_matrix(y, prediction, labels=range(NUM_CLASSES))
    np.testing.assert_array_equal(whole[0], counts)
    for name, score in (("recall", "recall_score"), ("precision", "precision_score"), ("f1", "f1_score")):
        expected = getattr(sklearn.metrics, score)(y, prediction, average=None, **everything)
        np.testing.assert_allclose(getattr(actual, name)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(actual.uar[0], sklearn.metrics.balanced_accuracy_score(y, prediction), rtol=1e-6)
    np.testing.assert_allclose(actual.uar[0], audmetric.unweighted_average_recall(y, prediction), rtol=1e-6)
    np.testing.assert_allclose(actual.accuracy[0], sklearn.metrics.accuracy_score(y, prediction), rtol=1e-6)
    for name, average in (("macro_f1", "macro"), ("weighted_f1", "weighted"), ("micro_f1", "micro")):
        expected = sklearn.metrics.f1_score(y, prediction, average=average, **everything)
        np.testing.assert_allclose(getattr(actual, name)[0], expected, rtol=1e-6)


def test_absent_classes_take_no_part_and_nothing_is_nan():
    consensus = np.asarray([0, 0, 2, 2, 2], np.int32)
    prediction = np.asarray([0, 1, 2, 2, 0])
    counts = counts_of(np.eye(NUM_CLASSES, dtype=np.float32)[prediction], consensus, nbest=(1,)).sum(axis=0)
    present, everything = scores_of(counts, "present"), scores_of(counts, "all")
    present_f1 = sklearn.metrics.f1_score(consensus, prediction, average="macro", labels=[0, 2])
    all_f1 = sklearn.metrics.f1_score(consensus, prediction, average="macro", labels=range(4), zero_division=0)
    np.testing.assert_allclose((present.macro_f1[0], everything.macro_f1[0]), (present_f1, all_f1), rtol=1e-6)
    np.testing.assert_allclose((present.uar[0], everything.uar[0]), (1 / 2 + 2 / 3) / 2, rtol=1e-6)
    assert present.num_classes[0] == 2
    assert present.has_class[0].tolist() == [True, False, True, False]
    assert present.has_prediction[0].tolist() == [True, True, True, False]
    empty = scores_of(np.zeros((1, NUM_CLASSES, NUM_CLASSES), np.int32))
    assert not empty.is_defined[0]
    for leaf in (*empty, *present):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()
    with pytest.raises(ValueError, match="present or all"):
        scores_of(counts, "some")


@pytest.mark.parametrize("seed", range(3))
def test_nbest_equals_a_plain_loop(seed):
    scores, consensus, unit = random_rows(seed=seed, num_levels=3)
    expected = np.zeros((5, len(ALL_N), NUM_CLASSES, NUM_CLASSES), np.int64)
    for row, y, u in zip(scores, consensus, unit, strict=True):
        ranked = ranking(row)
        for i, n in enumerate(ALL_N):
            if y >= 0:
                expected[u, i, y, y if y in ranked[:n] else ranked[0]] += 1
    counts = counts_of(scores, consensus, unit)
    assert counts.dtype == np.int32
    np.testing.assert_array_equal(counts, expected)
    uar = scores_of(counts.sum(axis=0)).uar
    assert (np.diff(uar) >= 0).all()
    np.testing.assert_allclose(uar[-1], 1)


def test_equal_probabilities_rank_by_class_order():
    uniform = np.full((4, NUM_CLASSES), 0.25, np.float32)
    counts = counts_of(uniform, np.arange(4, dtype=np.int32)).sum(axis=0)
    np.testing.assert_array_equal(scores_of(counts).recall, np.tril(np.ones((4, 4))))


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.permutations(range(12)), st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_counts_of_batches_add_up_in_any_order(order, batch):
    scores, consensus, unit = random_rows(12)
    # Batches as masks: one shape compiles once.
    parts = [
        counts_of(scores[order], np.where(np.asarray(batch) == i, consensus[order], -1).astype(np.int32), unit[order])
        for i in range(3)
    ]
    np.testing.assert_array_equal(sum(parts), counts_of(scores, consensus, unit))


def test_padding_changes_no_count():
    scores, consensus, unit = random_rows(10)
    junk, none = np.full((3, NUM_CLASSES), np.nan, np.float32), np.full(3, -1, np.int32)
    padded = counts_of(np.concatenate([scores, junk]), np.concatenate([consensus, none]), np.concatenate([unit, none]))
    np.testing.assert_array_equal(padded, counts_of(scores, consensus, unit))


def test_scores_of_weighted_sums():
    scores, consensus, unit = random_rows()
    counts = counts_of(scores, consensus, unit)
    times = np.asarray([[1, 1, 1, 1, 1], [0, 3, 1, 0, 1]])
    actual = scores_of(np.einsum("ru,unij->rnij", times, counts))
    for r, row in enumerate(times):
        rows = np.repeat(np.arange(len(unit)), row[unit])
        again = scores_of(counts_of(scores[rows], consensus[rows]).sum(axis=0))
        for name in ("uar", "accuracy", "macro_f1", "weighted_f1"):
            assert getattr(actual, name).dtype == np.float64
            np.testing.assert_allclose(getattr(actual, name)[r], getattr(again, name), rtol=1e-6)

import functools

import audmetric
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics

from seremo_jax.metrics import distributions

NUM_CLASSES = 4
ALL_N = (1, 2, 3, 4)


def random_rows(num_rows=60, seed=0, num_levels=5):
    """Scores on a coarse grid, so that ties are common; a fifth of the rows has no consensus."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, num_levels, (num_rows, NUM_CLASSES)).astype(np.float32)
    consensus = np.where(rng.random(num_rows) < 0.2, -1, rng.integers(0, NUM_CLASSES, num_rows)).astype(np.int32)
    return scores, consensus, rng.integers(0, 5, num_rows).astype(np.int32)


def random_shares(num_rows, seed=0):
    rng = np.random.default_rng(seed)
    votes = rng.multinomial(6, [0.4, 0.3, 0.2, 0.1], num_rows)
    q = rng.dirichlet(np.ones(NUM_CLASSES), num_rows)
    return q.astype(np.float32), (votes / 6).astype(np.float32)


def ranking(row):
    """Classes from most to least probable; equal ones in class order."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _state_of(scores, consensus, unit, num_units, nbest):
    return distributions.NBest.empty(num_units, len(nbest), scores.shape[1]).update(unit, scores, consensus, nbest)


def state_of(scores, consensus, unit=None, num_units=5, nbest=ALL_N):
    unit = np.zeros(len(scores), np.int32) if unit is None else unit
    return _state_of(scores, consensus, unit, num_units, nbest)


@functools.partial(jax.jit, static_argnums=4)
def _distribution_of(q, p, mask, unit, num_units):
    return distributions.Distribution.empty(num_units, q.shape[1]).update(unit, q, p, mask)


scores_of = jax.jit(lambda state: state.pool().compute())


def distribution_of(q, p, mask=None, unit=None, num_units=1):
    mask = np.ones(len(q), bool) if mask is None else mask
    unit = np.zeros(len(q), np.int32) if unit is None else unit
    return _distribution_of(q, p, mask, unit, num_units)


@pytest.mark.parametrize("seed", range(3))
def test_one_best_agrees_with_scikit_learn_and_audmetric(seed):
    scores, consensus, _ = random_rows(seed=seed)
    found = scores_of(state_of(scores, consensus))
    y, prediction = consensus[consensus >= 0], scores.argmax(axis=1)[consensus >= 0]
    everything = {"labels": range(NUM_CLASSES), "zero_division": 0}
    counts = sklearn.metrics.confusion_matrix(y, prediction, labels=range(NUM_CLASSES))
    np.testing.assert_array_equal(state_of(scores, consensus).pool().counts[0], counts)
    for name, score in (("recall", "recall_score"), ("precision", "precision_score"), ("f1", "f1_score")):
        expected = getattr(sklearn.metrics, score)(y, prediction, average=None, **everything)
        np.testing.assert_allclose(getattr(found, name)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.uar[0], sklearn.metrics.balanced_accuracy_score(y, prediction), rtol=1e-6)
    np.testing.assert_allclose(found.uar[0], audmetric.unweighted_average_recall(y, prediction), rtol=1e-6)
    np.testing.assert_allclose(found.accuracy[0], sklearn.metrics.accuracy_score(y, prediction), rtol=1e-6)
    for name, average in (("macro_f1", "macro"), ("weighted_f1", "weighted"), ("micro_f1", "micro")):
        expected = sklearn.metrics.f1_score(y, prediction, average=average, **everything)
        np.testing.assert_allclose(getattr(found, name)[0], expected, rtol=1e-6)


def test_absent_classes_take_no_part_and_nothing_is_nan():
    consensus = np.asarray([0, 0, 2, 2, 2], np.int32)
    prediction = np.asarray([0, 1, 2, 2, 0])
    state = state_of(np.eye(NUM_CLASSES, dtype=np.float32)[prediction], consensus, nbest=(1,)).pool()
    present, everything = state.compute("present"), state.compute("all")
    present_f1 = sklearn.metrics.f1_score(consensus, prediction, average="macro", labels=[0, 2])
    all_f1 = sklearn.metrics.f1_score(consensus, prediction, average="macro", labels=range(4), zero_division=0)
    np.testing.assert_allclose((present.macro_f1[0], everything.macro_f1[0]), (present_f1, all_f1), rtol=1e-6)
    np.testing.assert_allclose((present.uar[0], everything.uar[0]), (1 / 2 + 2 / 3) / 2, rtol=1e-6)
    assert present.num_classes[0] == 2
    assert present.has_class[0].tolist() == [True, False, True, False]
    assert present.has_prediction[0].tolist() == [True, True, True, False]
    empty = distributions.NBest.empty(1, 1, NUM_CLASSES).pool().compute()
    assert not empty.is_defined[0]
    for leaf in (*empty, *present):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()
    with pytest.raises(ValueError, match="present or all"):
        state.compute("some")


@pytest.mark.parametrize("seed", range(3))
def test_nbest_equals_a_plain_loop(seed):
    scores, consensus, unit = random_rows(seed=seed, num_levels=3)
    expected = np.zeros((5, len(ALL_N), NUM_CLASSES, NUM_CLASSES), np.int64)
    for row, y, u in zip(scores, consensus, unit, strict=True):
        ranked = ranking(row)
        for i, n in enumerate(ALL_N):
            if y >= 0:
                expected[u, i, y, y if y in ranked[:n] else ranked[0]] += 1
    state = state_of(scores, consensus, unit)
    np.testing.assert_array_equal(state.counts, expected)
    uar = np.asarray(state.pool().compute().uar)
    assert (np.diff(uar) >= 0).all()
    np.testing.assert_allclose(uar[-1], 1)


def test_equal_probabilities_rank_by_class_order():
    uniform = np.full((4, NUM_CLASSES), 0.25, np.float32)
    found = scores_of(state_of(uniform, np.arange(4, dtype=np.int32)))
    np.testing.assert_array_equal(found.recall, np.tril(np.ones((4, 4))))
    with pytest.raises(ValueError, match="counts 4 of them"):
        distributions.NBest.empty(1, 4, 4).update(np.zeros(4, np.int32), uniform, np.arange(4, dtype=np.int32), (1, 2))


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.permutations(range(12)), st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_states_do_not_depend_on_order_or_batches(order, batch):
    scores, consensus, unit = random_rows(12)
    q, p = random_shares(12)
    mask = consensus >= 0
    nbest, distribution = distributions.NBest.empty(5, 4, NUM_CLASSES), distributions.Distribution.empty(5, NUM_CLASSES)
    for i in range(3):
        # Batches as masks: one shape compiles once.
        is_in = np.asarray(batch) == i
        nbest = nbest.merge(
            state_of(scores[order], np.where(is_in, consensus[order], -1).astype(np.int32), unit[order])
        )
        distribution = distribution_of(q[order], p[order], mask[order] & is_in, unit[order], 5).merge(distribution)
    np.testing.assert_array_equal(nbest.counts, state_of(scores, consensus, unit).counts)
    whole = distribution_of(q, p, mask, unit, 5)
    for x, y in zip(jax.tree.leaves(distribution), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing():
    scores, consensus, unit = random_rows(10)
    q, p = random_shares(10)
    junk = np.full((3, NUM_CLASSES), np.nan, np.float32)
    longer, none = np.concatenate([unit, np.full(3, -1, np.int32)]), np.full(3, -1, np.int32)
    padded = state_of(np.concatenate([scores, junk]), np.concatenate([consensus, none]), longer)
    np.testing.assert_array_equal(padded.counts, state_of(scores, consensus, unit).counts)
    mask = np.arange(13) < 10
    padded = distribution_of(np.concatenate([q, junk]), np.concatenate([p, junk]), mask, longer, 5)
    for x, y in zip(jax.tree.leaves(padded), jax.tree.leaves(distribution_of(q, p, None, unit, 5)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


def test_scores_of_weighted_sums_in_numpy():
    scores, consensus, unit = random_rows()
    counts = np.asarray(state_of(scores, consensus, unit).counts)
    times = np.asarray([[1, 1, 1, 1, 1], [0, 3, 1, 0, 1]])
    found = distributions.confusion_scores(np.einsum("ru,unij->rnij", times, counts))
    for r, row in enumerate(times):
        rows = np.repeat(np.arange(len(unit)), row[unit])
        again = scores_of(state_of(scores[rows], consensus[rows]))
        for name in ("uar", "accuracy", "macro_f1", "weighted_f1"):
            assert getattr(found, name).dtype == np.float64
            np.testing.assert_allclose(getattr(found, name)[r], getattr(again, name), rtol=1e-6)


def test_pa_uar_equals_a_plain_loop_under_both_filters():
    rng = np.random.default_rng(0)
    num_speakers, num_rows = 12, 150
    unit = np.minimum(rng.geometric(0.12, num_rows) - 1, num_speakers - 1).astype(np.int32)
    consensus = np.where(unit == 3, 1, rng.integers(0, NUM_CLASSES, num_rows)).astype(np.int32)
    scores = (rng.random((num_rows, NUM_CLASSES)) + 0.6 * np.eye(NUM_CLASSES)[consensus]).astype(np.float32)
    counts = np.asarray(state_of(scores, consensus, unit, num_speakers, (1, 2)).counts)
    support = counts[:, 0].sum(axis=-1)
    for name, least in (("all", (1, 1)), ("min10c2", (10, 2))):
        for i, n in enumerate((1, 2)):
            num_passing = {50: 0, 75: 0}
            num_counted = 0
            for s in range(num_speakers):
                y = consensus[unit == s]
                if len(y) < least[0] or len(set(y)) < least[1]:
                    continue
                num_counted += 1
                right = np.asarray([c in ranking(row)[:n] for c, row in zip(y, scores[unit == s], strict=True)])
                uar = np.mean([right[y == c].mean() for c in set(y)])
                np.testing.assert_allclose(distributions.uar_per_unit(counts)[s, i], uar)
                for threshold in num_passing:
                    num_passing[threshold] += uar > threshold / 100
            eligible = distributions.is_eligible(support, name)
            assert eligible.sum() == num_counted
            assert (num_counted < num_speakers) == (name == "min10c2")
            found = distributions.pa_uar(distributions.uar_per_unit(counts)[:, i], eligible, (50, 75))
            np.testing.assert_allclose(found, [100 * num_passing[t] / num_counted for t in (50, 75)])


@pytest.mark.parametrize("namespace", [np, jax.numpy])
def test_a_speaker_exactly_at_the_threshold_does_not_pass(namespace):
    # Recalls whose mean is exactly 3/4, some of them not exact in binary; then one just above.
    right = [[3, 3, 0, 0], [2, 5, 0, 0], [7, 2, 4, 0], [2, 3, 0, 0]]
    support = [[4, 4, 0, 0], [3, 6, 0, 0], [10, 3, 4, 0], [2, 5, 0, 0]]
    exact = [0.75, 0.75, (0.7 + 2 / 3 + 1) / 3, 0.8]
    right, support = namespace.asarray(right), namespace.asarray(support)
    uar = distributions.class_scores(right, support, support).uar
    np.testing.assert_allclose(uar, exact, rtol=1e-6)
    assert distributions.passes(uar, (75,))[:, 0].tolist() == [False, False, True, True]
    everyone = namespace.ones(4, bool)
    np.testing.assert_allclose(distributions.pa_uar(uar, everyone, (75, 79, 80)), [50, 25, 0])
    np.testing.assert_allclose(distributions.pa_uar(uar, ~everyone, (75,)), [0])


def test_divergences_agree_with_scipy():
    q, p = random_shares(80)
    q[0], p[0] = (0, 0, 1, 0), (1, 0, 0, 0)
    found = scores_of(distribution_of(q, p))
    jsd = scipy.spatial.distance.jensenshannon(p.astype(float), q.astype(float), base=2, axis=1) ** 2
    np.testing.assert_allclose(found.jsd, jsd.mean(), rtol=1e-5)
    kl = scipy.stats.entropy(p[1:].astype(float), q[1:].astype(float), axis=1)
    np.testing.assert_allclose(found.kl, (kl.sum() + np.log(1e12)) / 80, rtol=1e-5)


def test_total_variation_and_entropies_agree_with_scipy():
    q, p = random_shares(80)
    q[0], p[0] = (0, 0, 1, 0), (1, 0, 0, 0)
    found = scores_of(distribution_of(q, p))
    np.testing.assert_allclose(found.total_variation, np.abs(q - p).sum(axis=1).mean() / 2, rtol=1e-6)
    entropies = scipy.stats.entropy(q.astype(float), axis=1), scipy.stats.entropy(p.astype(float), axis=1)
    np.testing.assert_allclose(found.entropy_correlation, scipy.stats.pearsonr(*entropies).statistic, atol=1e-6)
    assert found.has_entropy_correlation
    certain = np.eye(NUM_CLASSES, dtype=np.float32)[np.arange(80) % 4]
    for one in (
        scores_of(distribution_of(q, certain)),
        distributions.Distribution.empty(1, NUM_CLASSES).pool().compute(),
    ):
        assert not one.has_entropy_correlation
        assert one.entropy_correlation == 0


def test_jsd_is_the_divergence_in_bits():
    one, two = np.asarray([[1, 0, 0, 0]], np.float32), np.asarray([[0, 1, 0, 0]], np.float32)
    half = np.asarray([[0.5, 0.5, 0, 0]], np.float32)
    assert distribution_of(one, two).compute().jsd[0] == pytest.approx(1)
    assert distribution_of(one, one).compute().jsd[0] == pytest.approx(0)
    # m = (3/4, 1/4): KL(one||m) = log2(4/3), KL(half||m) = (log2(2/3) + log2(2)) / 2.
    expected = (np.log2(4 / 3) + (np.log2(2 / 3) + 1) / 2) / 2
    assert distribution_of(one, half).compute().jsd[0] == pytest.approx(expected)


def test_class_ccc_and_its_mean_over_classes_that_vary():
    q, p = random_shares(40)
    p = np.stack([p[:, 0] + p[:, 3], p[:, 1], p[:, 2], 0 * p[:, 3]], axis=1)
    found = scores_of(distribution_of(q, p))
    expected = [audmetric.concordance_cc(p[:, c], q[:, c]) for c in range(3)]
    np.testing.assert_allclose(found.class_ccc, [*expected, 0], rtol=1e-5)
    assert found.has_class_ccc.tolist() == [True, True, True, False]
    assert found.num_class_ccc == 3
    np.testing.assert_allclose(found.class_ccc_mean, np.mean(expected), rtol=1e-5)


def test_multi_label_f1_is_strict_at_one_over_c_on_both_sides():
    q, p = random_shares(40)
    p[0], q[0] = 0.25, 0.25
    found = scores_of(distribution_of(q, p))
    expected = sklearn.metrics.f1_score(p > 0.25, q > 0.25, average=None)
    np.testing.assert_allclose(found.multi_label_f1, expected, rtol=1e-6)
    np.testing.assert_allclose(found.multi_label_macro_f1, expected.mean(), rtol=1e-6)
    # 1/3 and 2/6 are not exact in binary: neither exceeds 1/C of three classes.
    shares = np.asarray([[1, 1, 1], [2, 2, 2]]) / np.asarray([[3], [6]])
    assert not distribution_of(shares.astype(np.float32), shares.astype(np.float32)).num_present.any()

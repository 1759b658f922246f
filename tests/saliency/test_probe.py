"""The ridge probe from its sums, against scikit-learn in float64, under merging, masks and bad features."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from seremo_jax.metrics.moments import Moments
from seremo_jax.saliency import probe

K, N, D, Y, F = 3, 240, 12, 3, 4
PLANTED_LAYER = 1
RIDGES = (10.0, 0.1, 1e-3)

update, merge = jax.jit(probe.update), jax.jit(probe.merge)


def data(offset=0.0, scale=1.0, seed=0):
    """Features [K, N, D] of which one layer carries the targets [N, Y] spread thinly; folds of unequal size [N]."""
    rng = np.random.default_rng(seed)
    fold = rng.choice(F, N, p=[0.1, 0.2, 0.3, 0.4]).astype(np.int32)
    targets = rng.standard_normal((N, Y)) + 0.3 * fold[:, None]
    means = rng.standard_normal((K, N, D)) @ rng.standard_normal((K, D, D))
    means[PLANTED_LAYER] += 0.8 * targets @ rng.standard_normal((Y, D))
    means /= means.std(axis=1, keepdims=True)
    return (offset + scale * means).astype(np.float32), (0.2 * targets + 0.3).astype(np.float32), fold


def add(state, means, targets, fold):
    return update(state, jnp.asarray(means), jnp.asarray(targets), jnp.asarray(fold))


def state_of(means, targets, fold):
    return add(probe.empty(means.shape[0], F, means.shape[2], targets.shape[1]), means, targets, fold)


def cross_validated(features, targets, fold, ridge):
    """[N, Y] held-out predictions of scikit-learn in float64."""
    x, y, prediction = features.astype(np.float64), targets.astype(np.float64), np.zeros(targets.shape)
    for f in np.unique(fold[fold >= 0]):
        train, held_out = (fold != f) & (fold >= 0), fold == f
        scaler = StandardScaler().fit(x[train])
        model = Ridge(alpha=ridge * train.sum()).fit(scaler.transform(x[train]), y[train])
        prediction[held_out] = model.predict(scaler.transform(x[held_out]))
    return prediction


def ccc(prediction, target):
    covariance = np.cov(prediction, target.astype(np.float64), bias=True)
    return 2 * covariance[0, 1] / (np.trace(covariance) + (prediction.mean() - target.mean(dtype=np.float64)) ** 2)


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (500, 1), (-500, 1), (5, 0.01), (0, 1e-5), (0, 1e5)])
def test_equal_to_scikit_learn(offset, scale):
    """CCC and predictions to 1e-5, mean/sd up to 500."""
    means, targets, fold = data(offset, scale)
    state = probe.empty(K, F, D, Y)
    for rows in np.array_split(np.arange(N), 5):
        state = add(state, means[:, rows], targets[rows], fold[rows])
    for v, ridge in enumerate(RIDGES):
        fitted = probe.solve(state, RIDGES)
        alone = probe.solve(state, (ridge,))
        np.testing.assert_array_equal(alone.ccc[:, 0], fitted.ccc[:, v])
        prediction = probe.predict(alone, means, fold)
        for k in range(K):
            wanted = cross_validated(means[k], targets, fold, ridge)
            np.testing.assert_allclose(prediction[k], wanted, atol=1e-5 * targets.std())
            for y in range(Y):
                assert fitted.ccc[k, v, y] == pytest.approx(ccc(wanted[:, y], targets[:, y]), abs=1e-5)


def test_wide_features_of_few_utterances():
    """More features than utterances, nearly collinear, far from 0: the weakest ridge in use gives the curve to 1e-5."""
    rng = np.random.default_rng(3)
    means = (rng.standard_normal((1, 80, 4)) @ rng.standard_normal((4, 120))).astype(np.float32)
    means += 0.1 * rng.standard_normal(means.shape).astype(np.float32) + 20
    targets, fold = means[0, :, :2] + rng.standard_normal((80, 2)).astype(np.float32), np.arange(80, dtype=np.int32) % F
    fitted = probe.solve(state_of(means, targets, fold), probe.RIDGES[-1:])
    wanted = cross_validated(means[0], targets, fold, probe.RIDGES[-1])
    np.testing.assert_allclose(probe.predict(fitted, means, fold)[0], wanted, atol=2e-4 * targets.std())
    np.testing.assert_allclose(fitted.ccc[0, 0], [ccc(wanted[:, y], targets[:, y]) for y in range(2)], atol=1e-5)


def test_sums_say_what_the_utterances_say():
    """One pass = two passes: moments of held-out predictions from the sums, and from the predictions themselves."""
    means, targets, fold = data(seed=1)
    fitted = probe.solve(state_of(means, targets, fold))
    prediction = probe.predict(fitted, means, fold)
    for k in range(K):
        unit = np.zeros(N, np.int32)
        two = Moments.empty(1, Y).update(unit, prediction[k].astype(np.float32), targets, np.ones((N, Y), bool))
        for name in set(Moments._fields) - {"absolute_error"}:
            np.testing.assert_allclose(
                getattr(fitted.held_out, name)[k], getattr(two, name)[0], rtol=5e-5, err_msg=name
            )
        np.testing.assert_allclose(fitted.ccc[k].max(axis=0), two.compute().ccc[0], atol=1e-6)


def test_the_planted_layer_and_its_ridge():
    means, targets, fold = data()
    fitted = probe.solve(state_of(means, targets, fold))
    best = fitted.ccc.max(axis=1)
    assert (best.argmax(axis=0) == PLANTED_LAYER).all()
    assert (best[PLANTED_LAYER] > best[[0, 2]].max(axis=0) + 0.3).all()
    for k, y in np.ndindex(K, Y):
        assert fitted.ridge[k, y] == probe.RIDGES[fitted.ccc[k, :, y].argmax()]


def test_no_speaker_is_seen_twice():
    """Targets that only the speaker tells cannot be predicted for other speakers, only for the same ones."""
    rng = np.random.default_rng(5)
    speaker = np.repeat(np.arange(40), 6)
    means = np.eye(40, dtype=np.float32)[speaker][None] + 0.01 * rng.standard_normal((1, N, 40)).astype(np.float32)
    targets = rng.standard_normal(40).astype(np.float32)[speaker][:, None]
    by_speaker = probe.solve(state_of(means, targets, (speaker % F).astype(np.int32)), RIDGES)
    by_utterance = probe.solve(state_of(means, targets, (np.arange(N) % F).astype(np.int32)), RIDGES)
    assert by_speaker.ccc.max() < 0.3
    assert by_utterance.ccc.max() > 0.95


@given(st.permutations(range(6)), st.integers(1, 5))
@settings(deadline=None, max_examples=15)
def test_merge_is_associative_and_knows_no_order(order, cut):
    means, targets, fold = data(offset=20)
    rows = np.array_split(np.arange(N), 6)
    parts = [state_of(means[:, rows[i]], targets[rows[i]], fold[rows[i]]) for i in order]
    tree = merge(functools.reduce(merge, parts[:cut]), functools.reduce(merge, parts[cut:]))
    tree = merge(probe.empty(K, F, D, Y), merge(tree, probe.empty(K, F, D, Y)))
    whole = state_of(means, targets, fold)
    np.testing.assert_array_equal(tree.count, whole.count)
    a, b = probe.solve(tree, RIDGES), probe.solve(whole, RIDGES)
    np.testing.assert_allclose(a.ccc, b.ccc, atol=2e-6)
    np.testing.assert_allclose(a.weights, b.weights, atol=2e-5)


def test_many_small_batches_lose_nothing():
    means, targets, fold = data(offset=100)
    state = probe.empty(K, F, D, Y)
    for first in range(0, N, 3):
        state = add(state, means[:, first : first + 3], targets[first : first + 3], fold[first : first + 3])
    x = means.astype(np.float64)
    for f in range(F):
        own = x[:, fold == f] - x[:, fold == f].mean(axis=1, keepdims=True)
        wanted = np.einsum("knd,kne->kde", own, own)
        actual = np.asarray(state.gram[:, :, f], np.float64).sum(axis=0)
        np.testing.assert_allclose(actual, wanted, atol=2e-6 * np.abs(wanted).max())


def test_a_thousand_merges_lose_nothing():
    means, targets, fold = data()
    part = state_of(means[:1, :40], targets[:40], fold[:40])
    state = part
    for _ in range(999):
        state = merge(state, part)
    for actual, wanted in (
        (state.gram, part.gram),
        (state.cross, part.cross),
        (state.target_moment, part.target_moment),
    ):
        exact = 1000 * np.asarray(wanted, np.float64).sum(axis=0)
        np.testing.assert_allclose(np.asarray(actual, np.float64).sum(axis=0), exact, rtol=1e-9)


def test_rows_of_no_fold_may_hold_anything():
    means, targets, fold = data()
    fold[::7] = -1
    has = fold >= 0
    bad = means.copy()
    bad[:, ~has], targets = np.nan, np.where(has[:, None], targets, np.inf)
    actual = probe.solve(state_of(bad, targets, fold), RIDGES)
    wanted = probe.solve(state_of(means[:, has], targets[has], fold[has]), RIDGES)
    np.testing.assert_allclose(actual.ccc, wanted.ccc, atol=1e-6)
    assert state_of(bad[:, :0], targets[:0], fold[:0]).count.sum() == 0


def test_constant_features_get_no_weight():
    means, targets, fold = data(offset=500)
    means[0, :, 3] = 500.1
    means[1, fold != 2, 5] = 7.0  # constant wherever fold 2 is held out
    fitted = probe.solve(state_of(means, targets, fold))
    assert not fitted.weights[0, :, 3].any()
    assert not fitted.weights[1, 2, 5].any()
    assert fitted.weights[1, 0, 5].all()
    rest = probe.solve(state_of(np.delete(means[:1], 3, axis=2), targets, fold))
    np.testing.assert_allclose(fitted.ccc[:1], rest.ccc, atol=1e-6)


def test_targets_of_one_mask_go_together():
    mask = np.ones((5, 4), bool)
    mask[2, 1] = mask[2, 3] = False
    mask[:, 2] = False
    assert [group.tolist() for group in probe.same_utterances(mask)] == [[0], [1, 3]]


def test_one_fold_is_refused():
    means, targets, fold = data()
    with pytest.raises(ValueError, match="two folds or more"):
        probe.solve(state_of(means, targets, np.zeros_like(fold)))

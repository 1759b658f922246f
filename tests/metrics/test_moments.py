import functools

import audmetric
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from seremo_jax.metrics import intervals
from seremo_jax.metrics.moments import Moments


def random_rows(num_rows, num_attributes=2, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(num_rows, num_attributes)) + offset
    prediction = 0.6 * target + 0.5 * rng.normal(size=target.shape) + 0.3
    return prediction.astype(np.float32), target.astype(np.float32), rng.random(target.shape) < 0.8


@functools.partial(jax.jit, static_argnums=4)
def _state_of(prediction, target, mask, unit, num_units):
    return Moments.empty(num_units, *target.shape[1:]).update(unit, prediction, target, mask)


def state_of(prediction, target, mask=None, unit=None, num_units=1):
    mask = np.ones(target.shape, bool) if mask is None else mask
    unit = np.zeros(len(target), np.int32) if unit is None else unit
    return _state_of(prediction, target, mask, unit, num_units)


def scores_of(state):
    """Scores of all units together: of moments as sums, added up, as scoring takes them."""
    sums, shift = intervals.moment_sums(state, "")
    whole = {name: values.sum(axis=0, keepdims=True) for name, values in sums.items()}
    return jax.tree.map(lambda leaf: leaf[0], intervals.moments_of_sums(whole, "", shift).compute())


def assert_same(a, b, **tolerance):
    for name, x, y in zip(a._fields, a, b, strict=True):
        np.testing.assert_allclose(x, y, err_msg=name, **({"rtol": 1e-5, "atol": 1e-5} | tolerance))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_scores_agree_with_audmetric_scipy_and_numpy(offset):
    prediction, target, mask = random_rows(300, offset=offset)
    actual = scores_of(state_of(prediction, target, mask))
    for a in range(2):
        x, y = prediction[mask[:, a], a].astype(np.float64), target[mask[:, a], a].astype(np.float64)
        np.testing.assert_allclose(actual.ccc[a], audmetric.concordance_cc(y, x), rtol=2e-6)
        np.testing.assert_allclose(actual.pearson[a], scipy.stats.pearsonr(x, y).statistic, rtol=2e-6)
        np.testing.assert_allclose(actual.rmse[a], np.sqrt(np.mean((x - y) ** 2)), rtol=2e-6)
        np.testing.assert_allclose(actual.mae[a], np.abs(x - y).mean(), rtol=2e-6)
        assert actual.num_rows[a] == len(x)
    assert actual.is_defined.all()


def test_ccc_of_itself_and_under_affine_maps():
    prediction, target, _ = random_rows(50)

    def ccc(x, y):
        return np.asarray(scores_of(state_of(x, y)).ccc)

    np.testing.assert_allclose(ccc(target, target), 1, rtol=1e-6)
    np.testing.assert_allclose(ccc(3 * prediction - 2, 3 * target - 2), ccc(prediction, target), rtol=1e-5)
    centred = target - target.mean(axis=0)
    np.testing.assert_allclose(ccc(-centred, centred), -1, rtol=1e-5)


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.permutations(range(12)), st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_merging_is_free_of_order_and_batching(order, batch):
    prediction, target, mask = random_rows(12)
    unit = np.arange(12, dtype=np.int32) % 3
    order, batch = np.asarray(order), np.asarray(batch)[:, None]
    shuffled = prediction[order], target[order], mask[order], unit[order]
    # Batches as masks: one shape compiles once.
    parts = [state_of(*shuffled[:2], shuffled[2] & (batch == i), shuffled[3], 3) for i in range(4)]
    whole = state_of(prediction, target, mask, unit, 3)
    item, two, three, four = parts
    assert_same(item.merge(two).merge(three).merge(four), whole)
    assert_same(four.merge(two).merge(three.merge(item)), whole)


@pytest.mark.parametrize("batch_size", [1, 7, 203])
def test_no_batch_size_changes_the_score_of_the_split(batch_size):
    prediction, target, mask = random_rows(203, offset=3.0)
    state, update = Moments.empty(1, 2), jax.jit(Moments.update)
    batch_values = []
    for first in range(0, 203, batch_size):
        rows = slice(first, first + batch_size)
        state = update(state, np.zeros(len(target[rows]), np.int32), prediction[rows], target[rows], mask[rows])
        if batch_size == 7:
            batch_values.append(scores_of(state_of(prediction[rows], target[rows], mask[rows])).ccc)
    expected = [audmetric.concordance_cc(target[mask[:, a], a], prediction[mask[:, a], a]) for a in range(2)]
    np.testing.assert_allclose(scores_of(state).ccc, expected, rtol=2e-5)
    if batch_size == 7:
        assert np.abs(np.mean(np.stack(batch_values), axis=0) - expected).min() > 0.01


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_what_lies_under_the_mask_changes_nothing(junk):
    prediction, target, mask = random_rows(20)
    unit = np.arange(20, dtype=np.int32) % 2
    clean = state_of(np.where(mask, prediction, 0), np.where(mask, target, 0), mask, unit, 2)
    dirty = state_of(
        np.where(mask, prediction, junk).astype(np.float32),
        np.where(mask, target, junk).astype(np.float32),
        mask,
        unit,
        2,
    )
    for x, y in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(x, y)
    padded = state_of(
        *(np.concatenate([rows, np.full((5, 2), junk, np.float32)]) for rows in (prediction, target)),
        np.concatenate([mask, np.zeros((5, 2), bool)]),
        np.concatenate([unit, np.full(5, -1, np.int32)]),
        2,
    )
    assert_same(padded, clean, rtol=1e-6, atol=1e-6)


def test_constant_target_is_not_defined_and_constant_prediction_is_zero():
    # 0.1 summed in float32 is not 10 x 0.1: a constant must be seen as one all the same.
    varying = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
    constant = np.full((10, 1), 0.1, np.float32)
    for unit in (np.zeros(10, np.int32), np.arange(10, dtype=np.int32) // 3):
        state = state_of(varying, constant, unit=unit, num_units=4)
        for both in (state, state.merge(state)):
            actual = scores_of(both)
            assert (actual.ccc[0], actual.pearson[0], bool(actual.is_defined[0])) == (0, 0, False)
    actual = scores_of(state_of(constant, varying))
    np.testing.assert_allclose((actual.ccc[0], actual.pearson[0]), 0, atol=1e-7)
    assert actual.is_defined[0]


def test_fewer_than_two_rows_are_not_defined():
    for num_rows in (0, 1):
        actual = scores_of(state_of(np.ones((num_rows, 1), np.float32), np.zeros((num_rows, 1), np.float32)))
        assert not actual.is_defined[0]
        assert actual.ccc[0] == 0
        assert actual.rmse[0] == num_rows


def test_sums_of_units_are_those_of_one_unit_and_units_do_not_mix():
    prediction, target, mask = random_rows(30)
    unit = np.arange(30, dtype=np.int32) % 4
    state = state_of(prediction, target, mask, unit, 5)
    sums, shift = intervals.moment_sums(state, "")
    whole = intervals.moments_of_sums({name: values.sum(axis=0) for name, values in sums.items()}, "", shift)
    assert_same(whole, jax.tree.map(lambda leaf: leaf[0], state_of(prediction, target, mask)))
    for u in range(5):
        alone = state_of(prediction, target, mask & (unit == u)[:, None])
        assert_same(jax.tree.map(lambda leaf, u=u: leaf[u : u + 1], state), alone, rtol=1e-6, atol=1e-6)


def test_numpy_leaves_vmap_and_jit_give_the_same():
    prediction, target, mask = random_rows(30)
    unit = np.zeros(30, np.int32)
    state = state_of(prediction, target, mask)
    in_numpy = Moments(*(np.asarray(leaf, np.float64) for leaf in state))
    scores = in_numpy.compute()
    assert scores.ccc.dtype == np.float64
    assert_same(scores, state.compute())
    assert_same(in_numpy.merge(in_numpy), state.merge(state))

    def ccc(prediction):
        return Moments.empty(1, 2).update(unit, prediction, target, mask).compute().ccc[0]

    both = jax.jit(jax.vmap(ccc))(jnp.stack([prediction, target]))
    np.testing.assert_allclose(both, [ccc(prediction), ccc(target)], rtol=1e-6)

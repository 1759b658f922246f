"""Saliency against two passes of NumPy in float64, under merging, masks and bad features."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.saliency import correlation as saliency
from seremo_jax.saliency import curves
from tests.support.compiler import LOOPS_AS_IN_PRODUCTION

K, N, D, Y = 3, 240, 10, 4
PLANTED_LAYER, PLANTED_FEATURES = 1, (2, 7)

update = jax.jit(saliency.update, compiler_options=LOOPS_AS_IN_PRODUCTION)
merge = jax.jit(saliency.merge, compiler_options=LOOPS_AS_IN_PRODUCTION)


def data(offset=0.0, scale=1.0, num_rows=N, seed=0):
    """Features [K, N, D] of which some of one layer carry the targets [N, Y], under a mask [N, Y]."""
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((num_rows, Y))
    means = rng.standard_normal((K, num_rows, D)) + 0.3 * targets[None, :, :1]
    means[PLANTED_LAYER][:, PLANTED_FEATURES] += 3 * targets.mean(axis=1, keepdims=True)
    mask = rng.random((num_rows, Y)) < np.array([1.0, 0.9, 0.5, 0.2])
    return (offset + scale * means).astype(np.float32), (0.2 * targets + 0.3).astype(np.float32), mask


def two_passes(means, targets, mask):
    """[K, D, Y] absolute Pearson correlations, feature by feature in float64."""
    result = np.zeros((means.shape[0], means.shape[2], targets.shape[1]))
    for k, d, y in np.ndindex(*result.shape):
        rows = mask[:, y]
        result[k, d, y] = abs(
            np.corrcoef(means[k, rows, d].astype(np.float64), targets[rows, y].astype(np.float64))[0, 1]
        )
    return result


def add(state, means, targets, mask):
    return update(state, jnp.asarray(means), jnp.asarray(targets), jnp.asarray(mask))


def state_of(means, targets, mask):
    return add(saliency.empty(means.shape[0], means.shape[2], targets.shape[1]), means, targets, mask)


def parts(rows_of_parts, means, targets, mask):
    return [state_of(means[:, rows], targets[rows], mask[rows]) for rows in rows_of_parts]


def correlation_of(state):
    return np.asarray(saliency.compute(state).correlation)


@pytest.mark.stack
@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (500, 1), (-500, 1), (5, 0.01), (0, 1e-6), (0, 1e6)])
def test_one_pass_equals_two_passes(offset, scale):
    """To 1e-5 relative, and 1e-7 where the correlation itself is near 0; mean/sd is up to 500."""
    inputs = data(offset, scale)
    expected = two_passes(*inputs)
    result = saliency.compute(state_of(*inputs))
    np.testing.assert_allclose(result.correlation, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(result.per_layer, expected.mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(result.count, inputs[2].sum(axis=0))
    assert not np.asarray(result.num_constant).any()
    assert np.asarray(result.is_varying).all()


def test_targets_that_all_have_the_same_utterances_share_their_sums():
    """The short way for the usual case: one mask for all, rows without any target, and a target nobody has."""
    means, targets, mask = data(offset=500)
    mask[:] = mask[:, 1:2]
    mask[:, 3] = False
    assert 0 < mask[:, 0].sum() < N
    means[:, ~mask[:, 0]] = np.nan
    halves = parts([slice(0, N // 2), slice(N // 2, N)], means, targets, mask)
    result = saliency.compute(merge(*halves))
    np.testing.assert_allclose(
        result.correlation[:, :, :3], two_passes(means, targets[:, :3], mask[:, :3]), rtol=1e-5, atol=1e-7
    )
    assert not np.asarray(result.correlation)[:, :, 3].any()
    np.testing.assert_array_equal(result.count, mask.sum(axis=0))


@pytest.mark.stack
@settings(max_examples=10)
@given(st.lists(st.sampled_from([0, 1, 7, 40]), max_size=8), st.randoms(use_true_random=False))
def test_any_split_order_and_tree_of_the_data_gives_the_same(sizes, random):
    """Batches of few lengths (each compiles once), one row and no row among them; offset 500 standard deviations."""
    means, targets, mask = data(offset=500)
    rows, batches = list(range(N)), []
    random.shuffle(rows)
    for size in sizes:
        if size <= len(rows):
            batches.append(rows[:size])
            rows = rows[size:]
    batches += [rows[i : i + 40] for i in range(0, len(rows) // 40 * 40, 40)] + [
        [row] for row in rows[len(rows) // 40 * 40 :]
    ]
    expected = correlation_of(state_of(means, targets, mask))
    one_after_another = saliency.empty(K, D, Y)
    for batch in batches:
        one_after_another = add(one_after_another, means[:, batch], targets[batch], mask[batch])
    np.testing.assert_allclose(correlation_of(one_after_another), expected, rtol=0, atol=1e-6)
    states = parts(batches, means, targets, mask)
    while len(states) > 1:
        a, b = (states.pop(random.randrange(len(states))) for _ in range(2))
        states.append(merge(a, b))
    np.testing.assert_allclose(correlation_of(states[0]), expected, rtol=0, atol=1e-6)


def test_a_thousand_small_batches_lose_nothing():
    means, targets, mask = data(offset=500, num_rows=4_000)
    state = saliency.empty(K, D, Y)
    for start in range(0, 4_000, 4):
        rows = slice(start, start + 4)
        state = add(state, means[:, rows], targets[rows], mask[rows])
    np.testing.assert_allclose(correlation_of(state), two_passes(means, targets, mask), rtol=0, atol=2e-7)


def test_empty_is_neutral_to_the_bit():
    state = state_of(*data(offset=500))
    for merged in (merge(state, saliency.empty(K, D, Y)), merge(saliency.empty(K, D, Y), state)):
        jax.tree.map(np.testing.assert_array_equal, merged, state)
    nothing = saliency.compute(saliency.empty(K, D, Y))
    assert not np.asarray(nothing.correlation).any()
    assert not np.asarray(nothing.is_varying).any()


def test_what_is_masked_changes_nothing_not_even_nan():
    means, targets, mask = data()
    expected = correlation_of(state_of(means, targets, mask))
    mask_more = np.concatenate([np.zeros((5, Y), bool), mask])
    means_more = np.concatenate([np.full((K, 5, D), np.nan, np.float32), means], axis=1)
    targets_more = np.where(mask_more, np.concatenate([np.zeros((5, Y), np.float32), targets]), np.float32(np.nan))
    np.testing.assert_allclose(
        correlation_of(state_of(means_more, targets_more, mask_more)), expected, rtol=0, atol=3e-7
    )
    only_masked = state_of(means_more[:, :5], targets_more[:5], mask_more[:5])
    jax.tree.map(np.testing.assert_array_equal, only_masked, saliency.empty(K, D, Y))


def test_a_target_seen_only_in_late_batches_counts_in_full():
    means, targets, mask = data(offset=500)
    mask[: N // 2, 2] = False
    halves = parts([slice(0, N // 2), slice(N // 2, N)], means, targets, mask)
    for state in (merge(*halves), merge(*halves[::-1])):
        np.testing.assert_allclose(correlation_of(state), two_passes(means, targets, mask), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 / 3])
def test_constant_features_and_targets_score_0_and_are_counted(value):
    means, targets, mask = data()
    means[0, :, 3] = means[2, :, (1, 2)] = value
    targets[:, 1] = value
    result = saliency.compute(functools.reduce(merge, parts(np.array_split(np.arange(N), 6), means, targets, mask)))
    correlation = np.asarray(result.correlation)
    assert not correlation[0, 3].any()
    assert not correlation[2, 1:3].any()
    assert not correlation[:, :, 1].any()
    assert np.count_nonzero(correlation == 0) == 3 * Y + K * D - 3
    assert np.asarray(result.num_constant).tolist() == [1, 0, 2]
    assert np.asarray(result.is_varying).tolist() == [True, False, True, True]
    np.testing.assert_allclose(result.per_layer, correlation.mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("num_parts", [1, 6])
def test_features_constant_over_the_utterances_of_one_target_score_0_there(num_parts):
    means, targets, mask = data()
    for y, scale in ((2, 0.1), (3, 30)):
        rows = mask[:, y] & (mask[:, 2] ^ mask[:, 3])
        mask[:, y] = rows
        means[y - 2, rows] = scale * np.random.default_rng(y).standard_normal(D)
    result = saliency.compute(
        functools.reduce(merge, parts(np.array_split(np.arange(N), num_parts), means, targets, mask))
    )
    is_zero = np.zeros((K, D, Y), bool)
    is_zero[0, :, 2] = is_zero[1, :, 3] = True
    np.testing.assert_array_equal(np.asarray(result.correlation) == 0, is_zero)
    assert not np.asarray(result.num_constant).any()


def test_one_utterance_is_no_correlation():
    means, targets, _ = data(num_rows=2)
    mask = np.array([[True, True, False, False], [True, False, False, True]])
    result = saliency.compute(state_of(means, targets, mask))
    assert np.asarray(result.is_varying).tolist() == [True, False, False, False]
    np.testing.assert_allclose(result.correlation[:, :, 0], 1, atol=1e-6)
    assert not np.asarray(result.correlation[:, :, 1:]).any()


@pytest.mark.stack
def test_the_planted_layer_and_features_are_found():
    result = saliency.compute(state_of(*data(offset=3)))
    names = ("valence", "activation", "angry", "sad")
    for use in ("attributes", "votes"):
        is_used = saliency.targets_in_use(result, names, ("valence", "activation"), use)
        assert np.asarray(result.per_layer)[:, is_used].mean(axis=1).argmax() == PLANTED_LAYER
    scores = np.asarray(result.correlation)[PLANTED_LAYER].mean(axis=1)
    assert set(np.argsort(scores)[-2:]) == set(PLANTED_FEATURES)


def test_the_targets_in_use_are_those_that_vary():
    per_layer = jnp.asarray([[0.1, 0.2, 0.3, 0.0], [0.4, 0.1, 0.1, 0.0]], jnp.float32)
    result = saliency.Saliency(None, per_layer, None, jnp.asarray([True, True, True, False]), None)
    names, attributes = ("valence", "activation", "angry", "sad"), ("valence", "activation")
    assert saliency.targets_in_use(result, names, attributes, "attributes").tolist() == [True, True, False, False]
    assert saliency.targets_in_use(result, names, attributes, "votes").tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match=r"none of the attributes varies .* set saliency.targets=votes"):
        saliency.targets_in_use(result, names, ("sad",), "attributes")
    with pytest.raises(ValueError, match="choose attributes or votes"):
        saliency.targets_in_use(result, names, attributes, "both")
    with pytest.raises(ValueError, match=r"3 target names .* 4 targets"):
        saliency.targets_in_use(result, names[:3], attributes, "attributes")


def test_a_layer_with_a_feature_that_is_not_finite_shows_in_its_curve():
    means, targets, mask = data()
    means[2, 0, 0] = np.nan
    per_layer = np.asarray(saliency.compute(state_of(means, targets, mask)).per_layer)
    assert np.isfinite(per_layer[:, 0]).tolist() == [True, True, False]


@pytest.mark.stack
def test_a_state_survives_a_file(tmp_path):
    state = state_of(*data(offset=500))
    np.savez(tmp_path / "saliency.npz", split="train", **saliency.to_arrays(state))
    with np.load(tmp_path / "saliency.npz") as arrays:
        jax.tree.map(np.testing.assert_array_equal, saliency.from_arrays(arrays), state)
    arrays = saliency.to_arrays(state)
    with pytest.raises(ArtefactError, match="lacks comoment"):
        saliency.from_arrays({name: value for name, value in arrays.items() if name != "comoment"})
    with pytest.raises(ArtefactError, match=r"do not fit together \(count \(3,\)"):
        saliency.from_arrays(arrays | {"count": arrays["count"][:3]})


@pytest.mark.stack
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mean_over_frames_never_sees_padding(dtype):
    hidden = np.random.default_rng(0).standard_normal((K, 4, 9, D)).astype(np.float32)
    num_frames = np.array([9, 4, 1, 0])
    padded = np.where(np.arange(9)[None, None, :, None] < num_frames[None, :, None, None], hidden, np.nan)
    padded = jnp.asarray(padded, dtype)
    result = saliency.mean_over_frames(padded, jnp.asarray(num_frames))
    assert result.dtype == jnp.float32
    for row, frames in enumerate(num_frames[:3]):
        expected = np.asarray(padded, np.float64)[:, row, :frames].mean(axis=1)
        np.testing.assert_allclose(result[:, row], expected, rtol=0, atol=1e-6)
    assert not np.asarray(result[:, 3]).any()


def test_without_each_group_is_what_the_others_say():
    """Leaving a group out of the sums = computing without its rows, masks and constant features included."""
    means, targets, mask = data(offset=100)
    means[0, :, 4] = 3.5  # constant
    group = np.random.default_rng(1).integers(0, 7, N)
    mask[group != 3, 3] = False  # without group 3 nobody has this target
    actual = saliency.without_each(means[0], targets, mask, group, 7)
    for g in range(7):
        rows = group != g
        wanted = saliency.compute(state_of(means[:1, rows], targets[rows], mask[rows])).per_layer[0]
        np.testing.assert_allclose(actual[g], wanted, atol=2e-6)
    assert actual[3, 3] == 0


def test_layers_one_by_one_are_all_at_once():
    means, targets, mask = data(offset=20)
    joined = curves.concatenate([state_of(means[k : k + 1], targets, mask) for k in range(K)])
    whole = state_of(means, targets, mask)
    np.testing.assert_allclose(correlation_of(joined), correlation_of(whole), atol=1e-7)
    assert [leaf.shape for leaf in joined] == [leaf.shape for leaf in whole]

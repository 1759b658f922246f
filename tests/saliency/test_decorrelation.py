"""The multiple correlation: against two passes of scikit-learn, over any split of the data, where `ccs` is misled."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler

from seremo_jax.saliency import decorrelation, uncertainty


def _speech(num: int = 90, num_features: int = 12, num_targets: int = 3, seed: int = 0):
    """Features that share a few causes, far from 0 and of unlike units; targets that some causes drive."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((num, 5))
    means = causes @ rng.standard_normal((5, num_features)) + 0.5 * rng.standard_normal((num, num_features))
    means = means * np.geomspace(0.01, 100, num_features) + 1000
    targets = causes[:, :num_targets] + rng.standard_normal((num, num_targets))
    return means.astype(np.float32), targets


def _coordinates(means: np.ndarray) -> np.ndarray:
    return decorrelation.coordinates(decorrelation.standardised(means))


def _two_passes(means: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
    """Adjusted shares of the targets' variance by the hat matrix of all rows, and scikit-learn's shrinkage."""
    rows = StandardScaler().fit_transform(means.astype(np.float64))
    if rows.shape[1] > decorrelation.MOST_COORDINATES:
        rows = StandardScaler(with_std=False).fit_transform(rows @ decorrelation.projection(rows.shape[1]))
    n, fitted = len(rows), LedoitWolf().fit(rows)
    hat = rows @ np.linalg.solve(fitted.covariance_, rows.T) / n
    centred = targets - targets.mean(axis=0)
    share = np.einsum("ny,nm,my->y", centred, hat, centred) / np.square(centred).sum(axis=0)
    return 1 - (1 - share) * (n - 1) / (n - 1 - np.trace(hat)), fitted.shrinkage_


def _state(rows: np.ndarray, targets: np.ndarray, num_parts: int = 1) -> decorrelation.State:
    state = decorrelation.empty(1, rows.shape[1], targets.shape[1])
    for part in np.array_split(np.arange(len(rows)), num_parts):
        state = decorrelation.update(state, rows[None, part], targets[part])
    return state


@pytest.mark.parametrize(("num", "num_features"), [(90, 12), (30, 40), (50, 300)])
def test_equals_two_passes_of_scikit_learn(num, num_features):
    means, targets = _speech(num, num_features)
    wanted, shrinkage = _two_passes(means, targets)
    found = decorrelation.compute(_state(_coordinates(means), targets, 4))
    np.testing.assert_allclose(found.multiple[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(found.shrinkage[0], shrinkage, rtol=1e-6)


def test_powers_are_moved_to_the_mean_of_the_utterances_at_hand():
    """Utterances of some speakers have another mean than all of them, from which the coordinates were taken."""
    means, targets = _speech()
    rows = _coordinates(means)
    some = rows[:, 0] > 0.5
    found = decorrelation.compute(_state(rows[some], targets[some]))
    fitted = LedoitWolf().fit(rows[some])
    assert abs(rows[some].mean(axis=0)).max() > 0.5
    np.testing.assert_allclose(found.shrinkage[0], fitted.shrinkage_, rtol=1e-9)


def test_no_split_and_no_order_of_the_utterances_changes_it():
    means, targets = _speech()
    rows = _coordinates(means)
    whole, back = _state(rows, targets), _state(rows[::-1], targets[::-1], 7)
    parts = [_state(rows[at : at + 30], targets[at : at + 30]) for at in (0, 30, 60)]
    merged = decorrelation.merge(parts[2], decorrelation.merge(parts[0], parts[1]))
    for state in (back, merged, decorrelation.merge(decorrelation.empty(1, 12, 3), whole)):
        for value, wanted in zip(decorrelation.compute(state), decorrelation.compute(whole), strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-10)
    rest = decorrelation.remove(merged, parts[1])
    assert rest.count == 60
    np.testing.assert_allclose(rest.gram, _state(np.delete(rows, slice(30, 60), 0), targets[:60]).gram, atol=1e-10)


def test_one_feature_has_its_squared_correlation_less_chance():
    means, targets = _speech(num_features=1)
    found = decorrelation.compute(_state(_coordinates(means), targets)).multiple[0]
    r = np.array([np.corrcoef(means[:, 0].astype(np.float64), targets[:, y])[0, 1] for y in range(3)])
    np.testing.assert_allclose(found, 1 - (1 - r**2) * 89 / 88, rtol=1e-6, atol=1e-9)


def test_chance_gives_0_on_average_however_few_the_utterances():
    rng = np.random.default_rng(3)
    for num in (30, 80):
        found = [
            decorrelation.compute(_state(_coordinates(layer), targets)).multiple
            for layer, targets in (
                (rng.standard_normal((num, 5)) @ rng.standard_normal((5, 40)), rng.standard_normal((num, 2)))
                for _ in range(60)
            )
        ]
        assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(120)


def test_too_few_utterances_say_nothing():
    means, targets = _speech(50, 300)
    for num in (0, 1, 2, 3):
        few = decorrelation.compute(_state(_coordinates(means[:3])[:num], targets[:num]))
        assert not few.multiple.any()


def test_units_and_copies_of_a_feature_change_little_where_utterances_are_many():
    means, targets = _speech(4_000, 6)
    plain = decorrelation.compute(_state(_coordinates(means), targets)).multiple
    scaled = decorrelation.compute(_state(_coordinates(means * 2.0**-7), targets)).multiple
    np.testing.assert_allclose(scaled, plain, rtol=1e-9)
    rng = np.random.default_rng(1)
    copies = means[:, :1] + (rng.standard_normal((4_000, 30)) * 1e-5).astype(np.float32)
    copied = decorrelation.compute(_state(_coordinates(np.hstack([means, copies])), targets)).multiple
    assert abs(copied - plain).max() < 0.02


def test_a_layer_of_copies_misleads_single_correlations_only():
    """Layer 0: thirty copies of one weak cue; layer 1: six different cues, each weaker."""
    rng = np.random.default_rng(2)
    cues = rng.standard_normal((2_000, 6))
    target = cues.sum(axis=1, keepdims=True) + rng.standard_normal((2_000, 1))
    copies = cues[:, :1] + 0.3 * rng.standard_normal((2_000, 30))
    spread = np.hstack([cues, rng.standard_normal((2_000, 24))])
    single = [np.mean([abs(np.corrcoef(x, target[:, 0])[0, 1]) for x in layer.T]) for layer in (copies, spread)]
    together = [decorrelation.compute(_state(_coordinates(layer), target)).multiple[0, 0] for layer in (copies, spread)]
    assert single[0] > 2 * single[1]
    assert together[1] > 2 * together[0]


def test_constant_features_targets_and_no_utterance_count_as_0():
    means, targets = _speech()
    means[:, 3] = 7.1
    targets[:, 1] = 0.1
    rows = _coordinates(means)
    assert not rows[:, 3].any()
    found = decorrelation.compute(_state(rows, targets))
    wanted = _two_passes(means, targets[:, [0, 2]])[0]
    np.testing.assert_allclose(found.multiple[0, [0, 2]], wanted, rtol=1e-6)
    assert found.multiple[0, 1] == 0
    assert not decorrelation.compute(_state(_coordinates(means[:, 3:4]), targets)).multiple.any()
    assert not decorrelation.compute(decorrelation.empty(2, 4, 3)).multiple.any()


def test_the_projection_is_fixed_and_keeps_lengths():
    directions = decorrelation.projection(700)
    np.testing.assert_allclose(directions.T @ directions, np.eye(decorrelation.MOST_COORDINATES), atol=1e-12)
    np.testing.assert_array_equal(directions, decorrelation.projection(700))


def test_without_each_group_is_the_rest_alone():
    means, targets = _speech()
    rows, group = _coordinates(means), np.arange(90) % 5
    found = decorrelation.without_each(_state(rows, targets), rows, targets, group, 5)
    for g in range(5):
        alone = decorrelation.compute(_state(rows[group != g], targets[group != g]))
        np.testing.assert_allclose(found[g], alone.multiple[0], rtol=1e-9)
    low, high = uncertainty.jackknife(decorrelation.compute(_state(rows, targets)).multiple[0], found)
    assert (low < high).all()


def test_scores_of_features_split_what_all_explain_and_copies_share_it():
    means, targets = _speech(400, 8)
    rows = decorrelation.standardised(means)
    scores = decorrelation.feature_scores(rows, targets)
    covariance = LedoitWolf().fit(rows).covariance_
    with_target = rows.T @ (targets - targets.mean(axis=0)) / len(rows) / targets.std(axis=0)
    variances, directions = np.linalg.eigh(covariance)
    wanted = (directions / np.sqrt(variances)) @ directions.T @ with_target
    np.testing.assert_allclose(scores, abs(wanted), rtol=1e-6, atol=1e-9)
    found = decorrelation.compute(_state(rows, targets))
    explained = 1 - (1 - found.multiple[0]) * (399 - found.freedom[0]) / 399
    np.testing.assert_allclose(np.square(scores).sum(axis=0), explained, rtol=1e-9)
    rng = np.random.default_rng(4)
    cue, other, noise = rng.standard_normal((3, 5_000, 1))
    layer = np.hstack([cue + 0.1 * rng.standard_normal((5_000, 4)), other, noise])
    target = cue + 0.8 * other
    by_feature = decorrelation.feature_scores(decorrelation.standardised(layer), target)[:, 0]
    single = [abs(np.corrcoef(feature, target[:, 0])[0, 1]) for feature in layer.T]
    assert np.argmax(single) < 4 == np.argmax(by_feature)
    assert by_feature[5] < 0.05 < by_feature[:4].min()


def test_features_that_never_vary_have_no_score():
    rows = np.zeros((9, 3))
    assert not decorrelation.feature_scores(rows, np.arange(18.0).reshape(9, 2)).any()

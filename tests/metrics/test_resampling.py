"""Draws of units and members, and weighted sums of groups, against plain repetition of what was drawn."""

import numpy as np
import pytest

from seremo_jax.metrics import intervals, resampling


def all_weights(num_units, num_resamples, seed, chunk=1000):
    return np.concatenate(list(resampling.resample_weights(num_units, num_resamples, seed, chunk)))


def mean_of_sums(sums):
    return {"mean": sums["total"] / np.where(sums["num"] > 0, sums["num"], np.nan)}


def test_weights_are_whole_draws_whatever_the_chunk():
    weights = all_weights(7, 50, seed=3)
    assert weights.shape == (50, 7)
    np.testing.assert_array_equal(weights.sum(axis=1), 7)
    np.testing.assert_array_equal(weights, weights.round())
    np.testing.assert_array_equal(weights, all_weights(7, 50, seed=3, chunk=8))
    np.testing.assert_array_equal(weights[:20], all_weights(7, 20, seed=3))
    assert (weights != all_weights(7, 50, seed=4)).any()
    # A unit is drawn Binomial(7, 1/7) times.
    many = all_weights(7, 4000, seed=0)
    np.testing.assert_allclose(many.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(many.var(axis=0), 6 / 7, atol=0.08)


def test_no_chunk_size_changes_a_value(monkeypatch):
    rng = np.random.default_rng(0)
    statistics = {"total": rng.integers(0, 9, 20), "num": np.full(20, 10)}
    whole = resampling.bootstrap(statistics, mean_of_sums, 100, seed=0)["mean"]
    monkeypatch.setattr(resampling, "_CHUNK_BYTES", 1000)
    np.testing.assert_array_equal(resampling.bootstrap(statistics, mean_of_sums, 100, seed=0)["mean"], whole)


def test_units_of_another_group_take_part_in_the_draw_only():
    statistics = {"total": np.asarray([1.0, 0, 0, 3]), "num": np.asarray([1.0, 0, 0, 1])}
    actual = resampling.bootstrap(statistics, mean_of_sums, 40, seed=1)["mean"]
    for weights, value in zip(all_weights(4, 40, seed=1), actual, strict=True):
        drawn = [1.0] * int(weights[0]) + [3.0] * int(weights[3])
        np.testing.assert_array_equal(value, np.mean(drawn) if drawn else np.nan)
    nobody = {name: 0 * values for name, values in statistics.items()}
    assert np.isnan(resampling.bootstrap(nobody, mean_of_sums, 40, seed=1)["mean"]).all()


def test_members_are_drawn_after_speakers():
    statistics = {"total": np.arange(12.0).reshape(4, 3), "num": np.ones(4)}
    members_of = []

    def compute(sums, members):
        members_of.append(members)
        is_drawn = sums["num"] > 0
        values = sums["total"] / np.where(is_drawn, sums["num"], 1)[:, None]
        return {"mean": intervals.Score(values, is_drawn, sums["num"]).means(members)}

    actual = resampling.bootstrap(statistics, compute, 40, seed=2, num_members=3)["mean"]
    np.testing.assert_array_equal(np.concatenate(members_of), all_weights(3, 40, seed=3))
    for r, (speakers, members) in enumerate(zip(all_weights(4, 40, seed=2), np.concatenate(members_of), strict=True)):
        drawn = np.repeat(statistics["total"], speakers.astype(int), axis=0)
        np.testing.assert_allclose(actual[r, 0], drawn.mean())
        np.testing.assert_allclose(actual[r, 1], np.repeat(drawn, members.astype(int), axis=1).mean())
    places = np.asarray([1, 2, 5, 6])
    alone = resampling.bootstrap(statistics, compute, 40, seed=2, num_members=3, among=(places, 9))
    wide = {name: np.zeros((9, *values.shape[1:])) for name, values in statistics.items()}
    for name, values in statistics.items():
        wide[name][places] = values
    again = resampling.bootstrap(wide, compute, 40, seed=2, num_members=3)
    np.testing.assert_array_equal(alone["mean"], again["mean"])


def test_what_a_group_is_made_of_is_drawn_once(monkeypatch):
    """Speakers in one part, in both, in none: sums that add up come from the parts, the rest from the whole."""
    rng = np.random.default_rng(0)
    first, second = np.asarray([0, 1, 3]), np.asarray([1, 2, 4, 5])
    sums = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=(4, 2))}
    whole = np.zeros((7, 2))
    for places, part in zip((first, second), sums.values(), strict=True):
        whole[places] += part
    is_large = whole.max(axis=1) > 0.5

    def compute(actual):
        large = {"large": actual["large"]} if "large" in actual else {}
        return {"x": actual["x"], **large}

    groups = {
        "all": resampling.Group({"large": is_large}, compute, np.arange(7), ("a", "b"), ("x",)),
        "a": resampling.Group({"x": sums["a"]}, compute, first),
        "b": resampling.Group({"x": sums["b"]}, compute, second),
    }
    actual = resampling.bootstrap_groups(groups, 7, 60, seed=4)
    weights = all_weights(7, 60, seed=4)
    assert list(actual) == ["all", "a", "b"]
    np.testing.assert_allclose(actual["all"]["x"], weights @ whole)
    np.testing.assert_allclose(actual["all"]["large"], weights @ is_large)
    np.testing.assert_allclose(actual["a"]["x"], weights[:, first] @ sums["a"])
    np.testing.assert_allclose(actual["b"]["x"], weights[:, second] @ sums["b"])
    alone = resampling.bootstrap({"x": whole, "large": is_large}, compute, 60, seed=4)
    for name, values in alone.items():
        np.testing.assert_allclose(actual["all"][name], values)
    monkeypatch.setattr(resampling, "_CHUNK_BYTES", 400)
    chunked = resampling.bootstrap_groups(groups, 7, 60, seed=4)
    np.testing.assert_allclose(chunked["all"]["x"], actual["all"]["x"])


def test_a_whole_of_one_speaker_gives_nothing():
    def compute(actual):
        return {"x": actual["x"]}

    groups = {
        "all": resampling.Group({"large": np.asarray([False, True])}, compute, np.arange(2), ("a",), ("x",)),
        "a": resampling.Group({"x": np.asarray([0.0, 2.0])}, compute, np.arange(2)),
    }
    for values in resampling.bootstrap_groups(groups, 2, 9, seed=0).values():
        assert np.isnan(values["x"]).all()
    groups["all"] = resampling.Group({"large": np.asarray([True, True])}, compute, np.arange(2), ("a",), ("x",))
    actual = resampling.bootstrap_groups(groups, 2, 9, seed=0)
    assert np.isfinite(actual["all"]["x"]).all()
    assert np.isnan(actual["a"]["x"]).all()


def test_a_sum_has_one_source():
    def compute(actual):
        return {"x": actual["x"]}

    part = resampling.Group({"x": np.asarray([1.0, 2.0])}, compute, np.arange(2))
    own = {"y": np.asarray([1.0, 2.0])}
    for statistics, parts, summed, message in (
        ({"x": np.asarray([1.0, 2.0])}, ("a",), ("x",), "the sum 'x' is both its own and that of its parts"),
        (own, ("a",), ("z",), r"the parts \['a'\] lack the sum 'z'"),
        (own, (), ("x",), "it has no parts to take the sum 'x' from"),
    ):
        whole = resampling.Group(statistics, compute, np.arange(2), parts, summed)
        with pytest.raises(ValueError, match=f"group 'all': {message}"):
            resampling.bootstrap_groups({"all": whole, "a": part}, 2, 9, seed=0)


def test_memory_does_not_grow_with_resamples(monkeypatch):
    """What is held at a time: rows of weights, and of weighted sums, within the bound."""
    monkeypatch.setattr(resampling, "_CHUNK_BYTES", 80_000)
    sizes = []

    def compute(actual):
        sizes.append(actual["x"].nbytes)
        return {"mean": actual["x"].mean(axis=1)}

    statistics = {"x": np.random.default_rng(0).normal(size=(20, 50))}
    for number in (100, 1_000):
        assert resampling.bootstrap(statistics, compute, number, seed=0)["mean"].shape == (number,)
        assert max(sizes) <= 80_000
    assert len(sizes) == 1 + 5

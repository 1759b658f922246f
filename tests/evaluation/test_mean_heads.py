"""Mean predictions of several heads: values, order, names, what is missing."""

import dataclasses

import numpy as np

from seremo_jax.core import ensemble
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import Predictions
from seremo_jax.evaluation import mean_heads


def _predictions(attributes, distribution):
    return Predictions(np.arange(distribution.shape[1]).astype(str), attributes, distribution)


def test_means_of_systems_with_several_seeds():
    axes = {"class_targets": ("votes", "consensus"), "seeds": (0, 1, 2)}
    members = ensemble.members(from_config_dict({"model": {"layer": 2}, "ensemble": axes}), None)
    members.append(dataclasses.replace(members[0], layer=3))
    rng = np.random.default_rng(0)
    distribution = rng.dirichlet(np.ones(4), (7, 5)).astype(np.float32)
    attributes = rng.normal(size=(7, 5, 3)).astype(np.float32)
    attributes[1, 2, 0] = np.nan
    actual, named = mean_heads.with_means(_predictions(attributes, distribution), members, ("seeds",))
    assert named[:7] == members
    assert [(m.seed, m.class_target, m.layer) for m in named[7:]] == [(-1, "votes", 2), (-1, "consensus", 2)]
    np.testing.assert_array_equal(actual.distribution[:7], distribution)
    np.testing.assert_allclose(actual.distribution[7], np.mean([distribution[i] for i in (0, 1, 2)], 0), rtol=1e-6)
    np.testing.assert_allclose(actual.distribution[8], np.mean([distribution[i] for i in (3, 4, 5)], 0), rtol=1e-6)
    np.testing.assert_allclose(actual.distribution[7:].sum(-1), 1, rtol=1e-6)
    assert np.isnan(actual.attributes[7, 2, 0])
    assert np.isnan(actual.attributes[7:]).sum() == 1


def test_a_mean_over_class_losses_and_seeds():
    axes = {"class_kinds": ("ccc", "kl"), "dropouts": (0.1, 0.2), "seeds": (0, 1)}
    members = ensemble.members(from_config_dict({"model": {"layer": 2}, "ensemble": axes}), None)
    distribution = np.random.default_rng(0).dirichlet(np.ones(4), (8, 5)).astype(np.float32)
    given = _predictions(np.zeros((8, 5, 0), np.float32), distribution)
    actual, named = mean_heads.with_means(given, members, ("seeds", "class_kinds"))
    assert len(named) == 8 + 4 + 2
    low, high = ([i for i, m in enumerate(members) if m.dropout == rate] for rate in (0.1, 0.2))
    np.testing.assert_allclose(actual.distribution[12], distribution[low].mean(0), rtol=1e-6)
    np.testing.assert_allclose(actual.distribution[13], distribution[high].mean(0), rtol=1e-6)
    systems = [about for _, about in ensemble.systems([vars(member) for member in named])]
    assert systems[-1]["system"] == "class kind ccc + kl, dropout 0.2, mean of 4 heads, votes"
    assert systems[-3]["system"] == "class kind kl, dropout 0.2, mean of 2 heads, votes"
    assert systems[-1]["seeds"] == (0, 1)


def test_means_over_layers_with_and_without_class_losses():
    axes = {"layers": (2, 4), "class_kinds": ("ccc", "kl"), "seeds": (0, 1)}
    members = ensemble.members(from_config_dict({"extract": {"layers": "all"}, "ensemble": axes}), None)
    distribution = np.random.default_rng(0).dirichlet(np.ones(4), (8, 5)).astype(np.float32)
    given = _predictions(np.zeros((8, 5, 0), np.float32), distribution)
    actual, named = mean_heads.with_means(given, members, ("layers", "layers_and_class_kinds"))
    assert [(m.layer, m.class_kind, m.seed) for m in named[8:]] == [
        (ensemble.EVERY_LAYER, "ccc", ensemble.MEAN),
        (ensemble.EVERY_LAYER, "kl", ensemble.MEAN),
        (ensemble.EVERY_LAYER, ("ccc", "kl"), ensemble.MEAN),
    ]
    ccc, kl = ([i for i, m in enumerate(members) if m.class_kind == kind] for kind in ("ccc", "kl"))
    for row, behind in ((8, ccc), (9, kl), (10, range(8))):
        np.testing.assert_allclose(actual.distribution[row], distribution[list(behind)].mean(0), rtol=1e-6)
        assert [m for m in members if ensemble.stands_for(named[row], m)] == [members[i] for i in behind]
    systems = [about for _, about in ensemble.systems([vars(member) for member in named])]
    assert systems[-1]["system"] == "several layers, class kind ccc + kl, mean of 8 heads, votes"
    assert systems[-3]["system"] == "several layers, class kind ccc, mean of 4 heads, votes"
    assert [about["axes"]["num_heads"] for about in systems] == [2, 2, 2, 2, 4, 4, 8]
    assert ensemble.layer_word(systems[-1]["layer"]) == "several"


def test_no_means_of_what_stands_alone():
    members = ensemble.members(from_config_dict({"model": {"layer": 2}}), None)
    given = _predictions(np.zeros((1, 2, 0), np.float32), np.full((1, 2, 4), 0.25, np.float32))
    actual, named = mean_heads.with_means(given, members, tuple(mean_heads.MEANS))
    assert named == members
    np.testing.assert_array_equal(actual.distribution, given.distribution)

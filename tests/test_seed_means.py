"""The mean prediction of a system's seeds: values, order, what is missing, and its way through an evaluation."""

import dataclasses

import numpy as np

from seremo_jax import ensemble, seed_means
from seremo_jax.config import from_config_dict
from seremo_jax.schema import Predictions


def test_means_of_systems_with_several_seeds():
    axes = {"class_targets": ("votes", "consensus"), "seeds": (0, 1, 2)}
    members = ensemble.members(from_config_dict({"model": {"layer": 2}, "ensemble": axes}), None)
    members.append(dataclasses.replace(members[0], layer=3))
    rng = np.random.default_rng(0)
    distribution = rng.dirichlet(np.ones(4), (7, 5)).astype(np.float32)
    attributes = rng.normal(size=(7, 5, 3)).astype(np.float32)
    attributes[1, 2, 0] = np.nan
    found, named = seed_means.with_means(Predictions(np.arange(5).astype(str), attributes, distribution), members)
    assert named[:7] == members
    assert [(m.seed, m.class_target, m.layer) for m in named[7:]] == [(-1, "votes", 2), (-1, "consensus", 2)]
    np.testing.assert_array_equal(found.distribution[:7], distribution)
    np.testing.assert_allclose(found.distribution[7], np.mean([distribution[i] for i in (0, 1, 2)], 0), rtol=1e-6)
    np.testing.assert_allclose(found.distribution[8], np.mean([distribution[i] for i in (3, 4, 5)], 0), rtol=1e-6)
    np.testing.assert_allclose(found.distribution[7:].sum(-1), 1, rtol=1e-6)
    assert np.isnan(found.attributes[7, 2, 0])
    assert np.isnan(found.attributes[7:]).sum() == 1

"""Steps of the ensemble: a member equals itself alone, on any mesh and mapping; stopping, best parameters, learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seremo_jax import ensemble, sharding, steps
from seremo_jax.config import from_config_dict
from seremo_jax.schema import Batch

LAYERS, FRAMES, ROWS, FEATURES, UTTERANCES, CLASSES, ATTRIBUTES = 2, 12, 4, 3, 10, 4, 3
MEMBERS = [
    ensemble.Member(layer, target, seed) for layer in (2, 5) for target in ("votes", "consensus") for seed in (0, 1)
]


def _batch(seed=0):
    rng = np.random.default_rng(seed)
    reset = np.zeros((FRAMES, ROWS), bool)
    reset[[0, 7]] = True
    valid = np.ones((FRAMES, ROWS), bool)
    valid[6] = False
    features = rng.normal(size=(LAYERS, FRAMES, ROWS, FEATURES)).astype(np.float16)
    features[:, ~valid] = 0
    used = np.arange(UTTERANCES) < 8
    last = np.array([(5 if i < ROWS else FRAMES - 1) * ROWS + i % ROWS for i in range(8)] + [0, 0], np.int32)
    p = rng.dirichlet(np.ones(CLASSES), UTTERANCES).astype(np.float32)
    return Batch(
        features=features,
        reset=reset,
        is_valid=valid,
        last_frame=last,
        is_used=used,
        utterance=np.where(used, np.arange(UTTERANCES), -1).astype(np.int32),
        distribution=p,
        has_votes=used,
        consensus=np.eye(CLASSES, dtype=np.float32)[p.argmax(1)],
        has_consensus=used & (np.arange(UTTERANCES) != 3),
        attributes=rng.normal(size=(UTTERANCES, ATTRIBUTES)).astype(np.float32),
        has_attribute=np.repeat(used[:, None], ATTRIBUTES, axis=1),
    )


NORM = steps.Normalisation(np.zeros((LAYERS, FEATURES), np.float32), np.ones((LAYERS, FEATURES), np.float32))


def _settings(member_map="map", **model):
    config = from_config_dict(
        {
            "model": {"gru_units": 6, "embedding_size": 5} | model,
            "optim": {"learning_rate": 0.02},
            "train": {"member_map": member_map},
        }
    )
    return steps.Settings.of(config, FEATURES, CLASSES)


@functools.cache
def _compiled(settings, mesh, patience=1):
    """One compilation for all tests of the same program."""
    return steps.compile_steps(settings, mesh, patience)


def _run(members, member_map="map", num_steps=3, mesh=None, **model):
    """State and loss curve [steps, E] after some steps."""
    settings = _settings(member_map, **model)
    mesh = mesh or sharding.make_mesh(len(members))
    arrays = steps.Members.of(members)
    # A member alone reads the same slot of the batch as in company.
    arrays = arrays._replace(layer_slot=np.array([(2, 5).index(m.layer) for m in members], np.int32))
    state = jax.device_put(steps.init(settings, arrays), sharding.by_member(mesh))
    compiled = _compiled(settings, mesh)
    curve = []
    for step in range(num_steps):
        state, terms = compiled.train(state, arrays, _batch(step), NORM)
        curve.append(np.asarray(terms["loss"]))
    return state, np.array(curve), compiled, arrays


def _leaf(tree, member):
    return [np.asarray(leaf)[member] for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def company():
    return _run(MEMBERS)


def _mesh(num_member, num_data=1):
    devices = np.array(jax.devices()[: num_member * num_data]).reshape(num_member, num_data)
    return jax.sharding.Mesh(devices, ("member", "data"))


@pytest.fixture(scope="module")
def on_one_device():
    return _run(MEMBERS, mesh=_mesh(1))


@pytest.mark.parametrize("number", [0, 5])
def test_member_equals_itself_alone_bit_by_bit(on_one_device, number):
    state, curve, _, _ = on_one_device
    alone, alone_curve, _, _ = _run([MEMBERS[number]], mesh=_mesh(1))
    np.testing.assert_array_equal(curve[:, number], alone_curve[:, 0])
    for got, expected in zip(_leaf(state.params, number), _leaf(alone.params, 0), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_vmap_equals_map(company):
    _, curve, _, _ = _run(MEMBERS, "vmap")
    np.testing.assert_allclose(curve, company[1], atol=2e-6)


@pytest.mark.parametrize("shape", [(2, 1), (2, 2)])
def test_meshes_of_several_devices_agree_bit_by_bit(company, shape):
    state, curve, _, _ = _run(MEMBERS, mesh=_mesh(*shape))
    np.testing.assert_array_equal(curve, company[1])
    for got, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(company[0].params), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_one_device_agrees_with_several(company, on_one_device):
    # XLA compiles a partitioned program through another pipeline, which may round the last bit otherwise.
    np.testing.assert_allclose(on_one_device[1], company[1], atol=1e-6)


def test_members_differ_where_they_should(company):
    _, curve, _, _ = company
    assert len(np.unique(curve[0])) == len(MEMBERS)


def test_initial_parameters_depend_on_the_seed_alone():
    settings = _settings()
    state = steps.init(settings, steps.Members.of(MEMBERS))
    for one, same_seed in ((0, 2), (1, 7)):
        for a, b in zip(_leaf(state.params, one), _leaf(state.params, same_seed), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(_leaf(state.params, 0)[0], _leaf(state.params, 1)[0])


def test_loss_falls_on_a_repeated_batch():
    settings = _settings()
    arrays = steps.Members.of(MEMBERS[:2])
    mesh = sharding.make_mesh(2)
    state = jax.device_put(steps.init(settings, arrays), sharding.by_member(mesh))
    compiled = _compiled(settings, mesh)
    first = last = None
    before = compiled.train._cache_size()
    for _ in range(60):
        state, terms = compiled.train(state, arrays, _batch(), NORM)
        last = np.asarray(terms["loss"])
        first = last if first is None else first
    assert np.all(last < 0.4 * first)
    assert compiled.train._cache_size() <= before + 1


def test_loss_is_the_sum_of_its_terms_on_independent_arithmetic(company):
    settings, batch = _settings(), _batch()
    state = steps.init(settings, steps.Members.of(MEMBERS[:1]))
    compiled = _compiled(settings, sharding.make_mesh(1))
    attributes, q = (
        np.asarray(x)[0] for x in compiled.predict(state.params, steps.Members.of(MEMBERS[:1]), batch, NORM)
    )

    def ccc(x, y):
        return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)

    used = batch.is_used
    attribute = 1 - np.mean([ccc(attributes[used, d], batch.attributes[used, d]) for d in range(ATTRIBUTES)])
    class_ = 1 - np.mean([ccc(q[used, c], batch.distribution[used, c]) for c in range(CLASSES)])
    np.testing.assert_allclose(company[1][0, 0], attribute + class_, atol=1e-5)


def test_consensus_member_learns_from_the_consensus_alone():
    batch = jax.tree.map(jnp.asarray, _batch())
    target, mask = steps.class_targets(batch, jnp.int32(1))
    np.testing.assert_array_equal(target, batch.consensus)
    assert not mask[3]
    assert mask.sum() == 7
    target, mask = steps.class_targets(batch, jnp.int32(steps.VOTES))
    np.testing.assert_array_equal(target, batch.distribution)
    assert mask.sum() == 8


def test_stopped_member_rests_and_keeps_its_best():
    settings = _settings()
    arrays = steps.Members.of(MEMBERS[:2])
    mesh = sharding.make_mesh(2)
    state = jax.device_put(steps.init(settings, arrays), sharding.by_member(mesh))
    compiled = _compiled(settings, mesh)
    state = compiled.finish_epoch(state, np.array([0.5, 0.5], np.float32), np.int32(1))
    best = _leaf(state.best_params, 0)
    state, _ = compiled.train(state, arrays, _batch(), NORM)
    state = compiled.finish_epoch(state, np.array([0.4, 0.6], np.float32), np.int32(2))
    assert np.asarray(state.is_active).tolist() == [False, True]
    assert np.asarray(state.best_epoch).tolist() == [1, 2]
    np.testing.assert_allclose(state.best_score, [0.5, 0.6])
    before = [_leaf(state.params, member) for member in (0, 1)]
    state, terms = compiled.train(state, arrays, _batch(), NORM)
    assert np.isnan(terms["loss"][0])
    assert np.isfinite(terms["loss"][1])
    for a, b in zip(before[0], _leaf(state.params, 0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(before[1][0], _leaf(state.params, 1)[0])
    for a, b in zip(best, _leaf(state.best_params, 0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_score_is_never_best():
    settings = _settings()
    mesh = sharding.make_mesh(1)
    state = jax.device_put(steps.init(settings, steps.Members.of(MEMBERS[:1])), sharding.by_member(mesh))
    state = _compiled(settings, mesh).finish_epoch(state, np.array([np.nan], np.float32), np.int32(1))
    assert np.asarray(state.best_epoch)[0] == 0
    assert np.isneginf(np.asarray(state.best_score)[0])


def test_member_sharding_compiles_to_no_collective():
    settings = _settings()
    arrays = steps.Members.of(MEMBERS)
    mesh = sharding.make_mesh(len(MEMBERS))
    assert mesh.shape["member"] == 8
    state = jax.device_put(steps.init(settings, arrays), sharding.by_member(mesh))
    text = _compiled(settings, mesh).train.lower(state, arrays, _batch(), NORM).compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text


def test_z_score_leaves_padding_at_zero():
    batch = _batch()
    mean, sd = jnp.full(FEATURES, 2.0), jnp.full(FEATURES, 0.5)
    got = steps.normalise(jnp.asarray(batch.features[0]), jnp.asarray(batch.is_valid), mean, sd)
    expected = (batch.features[0].astype(np.float32) - 2) / 0.5 * batch.is_valid[:, :, None]
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["soft_ce", "kl", "jsd", "balanced_soft_ce"])
def test_every_class_loss_learns_and_treats_members_alone(kind):
    """The loss falls on one batch; class weights follow the member's own kind of target."""
    config = from_config_dict(
        {
            "model": {"gru_units": 6, "embedding_size": 5},
            "optim": {"learning_rate": 0.02},
            "loss": {"class_kind": kind, "attribute_task_weight": 0.0},
            "train": {"member_map": "map"},
        }
    )
    settings = steps.Settings.of(config, FEATURES, CLASSES)
    weights = {"votes": np.ones(CLASSES, np.float32), "consensus": np.array([3, 1, 0, 0], np.float32)}
    arrays = steps.Members.of(MEMBERS[:4], weights if kind == "balanced_soft_ce" else None)
    mesh = sharding.make_mesh(4)
    state = jax.device_put(steps.init(settings, arrays), sharding.by_member(mesh))
    compiled = steps.compile_steps(settings, mesh)
    curve = []
    for _ in range(30):
        state, terms = compiled.train(state, arrays, _batch(), NORM)
        curve.append(np.asarray(terms["class_loss"]))
    assert np.isfinite(curve).all()
    assert (curve[-1] < 0.95 * curve[0]).all()
    if kind == "balanced_soft_ce":
        assert (curve[0][:2] != curve[0][2:]).all()


@pytest.mark.parametrize("member_map", ["map", "vmap"])
def test_a_member_that_is_not_finite_is_frozen_and_the_others_go_on(member_map):
    """NaN in one layer's features: its members keep their parameters, the others' bits do not change."""
    settings, mesh = _settings(member_map), sharding.make_mesh(len(MEMBERS))
    arrays = steps.Members.of(MEMBERS)
    compiled = _compiled(settings, mesh)

    def train(is_poisoned):
        state = jax.device_put(steps.init(settings, arrays), sharding.by_member(mesh))
        for number in range(3):
            batch = _batch(number)
            if is_poisoned and number == 1:
                batch.features[1, 0, 0, 0] = np.nan
            state, _ = compiled.train(state, arrays, batch, NORM)
        return jax.tree.map(np.asarray, state)

    whole, poisoned = train(False), train(True)
    is_hit = np.asarray(arrays.layer_slot) == 1
    np.testing.assert_array_equal(poisoned.has_failed, is_hit)
    np.testing.assert_array_equal(poisoned.is_active, ~is_hit)
    np.testing.assert_array_equal(poisoned.step, np.where(is_hit, 1, 3))
    for ours, theirs in zip(jax.tree.leaves(poisoned.params), jax.tree.leaves(whole.params), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours[~is_hit], theirs[~is_hit])
    assert not whole.has_failed.any()

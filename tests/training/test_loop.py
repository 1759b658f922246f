"""The ensemble: the same numbers on any mesh, mapping, cache and split of the batch; stopping, going on."""

import functools
import os
import re
import signal

import jax
import numpy as np
import pytest

from seremo_jax.core import ensemble, sharding
from seremo_jax.core.preemption import SIGNALS, Notice, PreemptedError
from seremo_jax.core.progress import Progress
from seremo_jax.training import model
from seremo_jax.training.checkpoint import Checkpoints, Position
from tests.support import toy_training as toy

ONE = {"ensemble": {"layers": (), "class_targets": (), "seeds": ()}}


@pytest.fixture(scope="module")
def company():
    """All eight members on one device."""
    return toy.run(toy.config(), toy.mesh(1), 2)


def _same(ours, theirs, **tolerance):
    for a, b in zip(toy.params_of(ours), toy.params_of(theirs), strict=True):
        if tolerance:
            np.testing.assert_allclose(a, b, **tolerance)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "axes", [{"model": {"feature_norm": "none"}}, {"ensemble": {"speaker_kappas_s": ("inf", 0.3, 0.0)}}]
)
def test_what_a_packed_utterance_is_predicted_is_what_it_is_alone(axes):
    """Also where its features are relative to its speaker, whose z-score is computed here in float64."""
    wide = {"conv_kernel": 9} | axes.get("model", {})
    options = {"model": wide, "ensemble": ONE["ensemble"] | axes.get("ensemble", {})}
    loop = toy.loop(toy.config(train={"frames_per_row": 40}, **options), toy.mesh(1))
    (predicted,) = loop.predicted_development()
    store, apply = toy.ToyStore(toy.targets()), jax.jit(functools.partial(model.apply, loop.settings.sizes))
    for number, member in enumerate(loop.members):
        params = jax.tree.map(lambda x: x[number], loop.canonical_state().params)  # noqa: B023
        for row, distribution in zip(predicted.rows, predicted.distribution[number], strict=True):
            frames = store.read(toy.LAYERS[0], [row])[0].astype(np.float64)
            if "ensemble" in axes:
                mean, sd = toy.relative_statistics(store, toy.LAYERS[0], row, float(member.speaker_kappa_s))
                frames = (frames - mean) / sd
            num = len(frames)
            layout = np.arange(num)[:, None] == 0, np.zeros((num, 1), np.int32), np.array([num - 1])
            alone = apply(params, frames.astype(np.float32)[:, None], *layout)
            np.testing.assert_allclose(distribution, alone.distribution[0], atol=2e-6)


def test_single_values_and_axes_of_one_are_the_same_member():
    axis = toy.config(ensemble={"layers": (5,), "seeds": (3,), "learning_rates": (0.5,), "class_targets": ("votes",)})
    ensemble_ = {"layers": (), "class_targets": (), "seeds": ()}
    single = toy.config(model={"layer": 5}, train={"seed": 3}, optim={"learning_rate": 0.5}, ensemble=ensemble_)
    assert ensemble.members(axis, None) == ensemble.members(single, None)


def test_vmap_equals_map(company):
    together, _ = toy.run(toy.config(train={"member_map": "vmap"}), toy.mesh(1), 2)
    _same(together, company[0], atol=1e-6)


MESHES = [(3, 1, "off"), (2, 4, "on")]
"""Shards of members and of the batch, and whether frames live in device memory."""


@pytest.mark.parametrize(("num_member", "num_data", "device_cache"), MESHES)
def test_every_mesh_agrees(company, num_member, num_data, device_cache):
    """Three shards of eight members hold an inactive copy; four data shards leave some without a row."""
    together, lines = toy.run(toy.config(train={"device_cache": device_cache}), toy.mesh(num_member, num_data), 2)
    _same(together, company[0], atol=1e-6)
    np.testing.assert_allclose(lines[-1]["train_loss"], company[1][-1]["train_loss"], atol=1e-6)


def _compiled_text(num_member, num_data, device_cache):
    loop = toy.loop(toy.config(train={"device_cache": device_cache}), toy.mesh(num_member, num_data))
    batch = next(loop._train.batches(1))
    return loop._steps.train.lower(loop._state, loop._train.members, batch, loop._train.inputs).compile().as_text()


def test_members_alone_need_no_collective():
    """Of the two programs that the test above compiles, which the compiler's cache has."""
    collective = re.compile(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter")
    assert [bool(collective.search(_compiled_text(*mesh))) for mesh in MESHES] == [False, True]


def _folds():
    fold = np.arange(toy.NUM) % 3
    return {f: np.where(fold == f, "test", np.where(fold == (f + 1) % 3, "development", "train")) for f in range(3)}


def test_folds_in_one_program_equal_folds_alone():
    """Each fold has its own splits, feature statistics and length of training, which the learning rate falls over."""
    config = toy.config(
        model={"speaker_kappa_s": 0.3},
        optim={"schedule": "cosine", "warmup_steps": 2},
        data={"split_kind": "kfold", "num_folds": 3},
        ensemble={"layers": (2, 5), "class_targets": ("votes",), "seeds": (0,), "folds": (0, 1, 2)},
        train={"device_cache": "on"},
    )
    members, splits = ensemble.members(config, None), _folds()
    together, _ = toy.run(config, toy.mesh(1), 2, splits=splits)
    member = members[4]
    assert (member.layer, member.fold) == (5, 1)
    alone, _ = toy.run(config, toy.mesh(1), 2, members=[member], splits={member.fold: splits[member.fold]})
    for in_company, by_itself in zip(toy.params_of(together), toy.params_of(alone), strict=True):
        np.testing.assert_allclose(in_company[4], by_itself[0], atol=1e-6)


def test_initial_parameters_depend_on_the_seed_alone():
    first, *_ = toy.params_of(toy.loop(toy.config(), toy.mesh(1)))
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], first[7])
    assert not np.array_equal(first[0], first[1])


def test_every_member_learns_and_one_program_does(company):
    loop, lines = toy.run(toy.config(optim={"learning_rate": 0.02}), toy.mesh(1), 12)
    assert np.all(np.array(lines[-1]["train_class_loss"]) < 0.8 * np.array(lines[0]["train_class_loss"]))
    assert loop._steps.train._cache_size() == 1


def test_best_parameters_are_those_of_the_best_epoch():
    loop, lines, params = toy.loop(toy.config(optim={"learning_rate": 0.1}), toy.mesh(1)), [], []
    for number in range(6):
        lines += toy.run(None, None, first=number, loop=loop)[1]
        params.append(toy.params_of(loop))
    best = [np.asarray(x) for x in jax.tree.leaves(loop.canonical_state().best_params)]
    assert min(loop.values("best_epoch")) < 6
    for member, (score, epoch) in enumerate(zip(loop.values("best_score"), loop.values("best_epoch"), strict=True)):
        curve = [line["development_score"][member] for line in lines]
        assert score == np.float32(max(curve))
        assert epoch == 1 + int(np.argmax(curve))
        for ours, of_epoch in zip(best, params[epoch - 1], strict=True):
            np.testing.assert_array_equal(ours[member], of_epoch[member])


def test_a_member_that_is_not_finite_is_frozen_and_the_others_go_on(company):
    whole, _ = company
    store = toy.ToyStore(toy.targets())
    store.arrays = toy.ToyStore(toy.targets()).arrays
    store.poison(5)
    poisoned, lines = toy.run(toy.config(), toy.mesh(1), 2, store=store)
    is_hit = np.array([member.layer == 5 for member in poisoned.members])
    np.testing.assert_array_equal(poisoned.values("has_failed"), is_hit)
    np.testing.assert_array_equal(poisoned.is_active, ~is_hit)
    for ours, theirs in zip(toy.params_of(poisoned), toy.params_of(whole), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours[~is_hit], theirs[~is_hit])
    assert np.isfinite(np.array(lines[0]["train_loss"])[~is_hit]).all()


OPTIONS = {
    "variances, learned task weights, balanced classes; sum of layers, two GRUs, both directions, dense convolution": {
        "targets": {"predict_variance": True},
        "model": {
            "layer": "sum",
            "gru_layers": 2,
            "bidirectional": True,
            "conv_kind": "dense",
            "conv_filters": 4,
            "dropout": 0.3,
            "pooling": "mean_sd",
        },
        "loss": {"task_weighting": "uncertainty", "class_kind": "balanced_soft_ce"},
        "train": {"selection": "loss"},
        **ONE,
    },
    "bfloat16": {"model": {"dtype": "bfloat16"}},
    "every speaker, earth mover, Jensen-Shannon, mean": {
        "ensemble": {
            "layers": (2,),
            "class_targets": ("votes",),
            "seeds": (0,),
            "class_kinds": ("ccc", "jsd"),
            "speaker_balances": (0.0, 1.0),
            "group_balances": (0.0, 1.0),
            "closeness_weights": (0.0, 0.5),
            "objectives": ("mean", "group_dro", "cvar", "vrex"),
            "objective_groups": ("speaker", "group"),
            "mixups": (0.0, 0.4),
            "speaker_kappas_s": ("inf", 0.3),
            "only": (0, 7, 74, 117, 142, 205, 310, 381, 428, 511),
        },
        "loss": {"attribute_kind": "emd"},
        "model": {"pooling": "mean", "dropout": 0.1, "embedding_activation": "tanh"},
        "train": {"selection": "loss"},
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_learns_and_is_exact_on_a_split_batch(name):
    whole, lines = toy.run(toy.config(**OPTIONS[name], optim={"learning_rate": 0.02}), toy.mesh(1), 12)
    first, last = (np.array(lines[i]["train_loss"]) for i in (0, -1))
    assert (last < first).all()
    train = OPTIONS[name].get("train", {})
    # A loss is above 0, and the score that it selects by is minus the loss.
    scores = np.array([line["development_score"] for line in lines])
    assert (scores < (0 if train else np.inf)).all()
    options = {**OPTIONS[name], "train": {"micro_batches": 3} | train, "optim": {"learning_rate": 0.02}}
    split, split_lines = toy.run(toy.config(**options), toy.mesh(1, 2), 1)
    assert split.members == whole.members
    tolerance = 1e-2 if name == "bfloat16" else 5e-6
    for term in ("train_loss", "train_attribute_loss", "train_class_loss"):
        np.testing.assert_allclose(split_lines[0][term], lines[0][term], atol=tolerance)
    norms = (run[0]["train_gradient_norm"] for run in (split_lines, lines))
    np.testing.assert_allclose(*norms, rtol=1e-5, atol=tolerance)


class _Asked(Notice):
    """A notice that comes after some batches."""

    def __init__(self, after):
        self.after, self.number = after, None

    def has_come(self):
        """True from that batch on."""
        self.after -= 1
        return self.after < 0


@pytest.mark.parametrize("mesh", [(1, 1), (2, 1)])
def test_stopped_inside_an_epoch_and_restored_equals_undisturbed(tmp_path, mesh):
    """4 epochs = 2 and a part, saved, restored by another loop (also on another mesh), and the rest."""
    falls = {"schedule": "cosine", "warmup_steps": 5}
    axes = {"layers": (2,), "class_targets": ("votes",), "speaker_balances": (1.0,), "mixups": (0.4,)}
    axes |= {"objectives": ("group_dro", "cvar"), "objective_groups": ("speaker", "group"), "seeds": (0,)}
    train = {"device_cache": "on", "max_epochs": 4, "group_by": "kmeans:3"}
    config = toy.config(model={"speaker_kappa_s": 0.3}, train=train, optim=falls, ensemble=axes)
    whole, lines = toy.run(config, toy.mesh(1), 4)
    first, _ = toy.run(config, toy.mesh(1), 2)
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        save = lambda position: checkpoints.save(position, first.canonical_state())  # noqa: E731
        with (
            pytest.raises(PreemptedError, match="in epoch 3, after batch 2"),
            Progress(9, "", "", is_quiet=True) as bar,
        ):
            first.epoch(Position(2), _Asked(1), save, bar)
    with Checkpoints(tmp_path / "c", {}) as checkpoints:
        second = toy.loop(config, toy.mesh(*mesh))
        position, state = checkpoints.restore(second.like)
        assert position == (2, 2)
        second.take_over(state)
        with Notice() as notice, Progress(9, "", "", is_quiet=True) as bar:
            line = second.epoch(position, notice, lambda position: None, bar)
        toy.run(None, None, 1, first=3, loop=second)
    tolerance = {} if mesh == (1, 1) else {"atol": 1e-6}
    np.testing.assert_allclose(line["train_loss"], lines[2]["train_loss"], rtol=0, atol=tolerance.get("atol", 0))
    _same(second, whole, **tolerance)
    assert second.values("best_epoch").tolist() == whole.values("best_epoch").tolist()


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_are_heard_and_handlers_put_back(number):
    before = signal.getsignal(number)
    with Notice() as notice:
        assert not notice.has_come()
        os.kill(os.getpid(), number)
        assert notice.has_come()
    assert signal.getsignal(number) is before


def test_fetching_brings_every_position_to_the_host(company):
    state = company[0].canonical_state()
    np.testing.assert_array_equal(sharding.fetch(state.step), np.asarray(jax.device_get(state.step)))

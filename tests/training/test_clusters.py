"""K-means against scikit-learn, and the groups of training speakers that members train by."""

import dataclasses

import numpy as np
import pytest

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.training import balance, clusters
from tests.support import toy_training as toy


@pytest.mark.parametrize("num", [2, 3, 5])
def test_clusters_are_as_tight_as_those_of_another_library(num):
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(40, 6)) + 3 * rng.normal(size=(num, 6))[rng.integers(0, num, 40)]
        label, inertia = clusters.kmeans(points, num)
        theirs = cluster.KMeans(num, n_init=50, random_state=0).fit(points)
        assert inertia <= theirs.inertia_ * (1 + 1e-9)
        np.testing.assert_array_equal(clusters.kmeans(points, num)[0], label)
        spread = sum(np.square(points[label == c] - points[label == c].mean(0)).sum() for c in range(num))
        assert inertia == pytest.approx(spread)
        assert list(dict.fromkeys(label.tolist())) == list(range(num))


def test_equal_points_are_one_cluster():
    label, inertia = clusters.kmeans(np.ones((6, 2)), 3)
    assert (label.tolist(), inertia) == ([0] * 6, 0)


def _data(**sections):
    fold = np.arange(toy.NUM) % 3
    splits = {f: np.where(fold == f, "test", np.where(fold == (f + 1) % 3, "development", "train")) for f in (0, 1)}
    axes = {"layers": (2, 5), "class_targets": ("votes",), "seeds": (0,), "folds": (0, 1), "group_balances": (0.0, 0.5)}
    kfold = {"split_kind": "kfold", "num_folds": 3}
    config = toy.config(data=kfold, ensemble=axes, train={"group_by": "kmeans:3"}, **sections)
    data = toy.data_of(config, splits=splits)
    # As `groups_of` has them: which group is whose depends on the member.
    nobody = np.full(toy.NUM, -1, np.int32)
    return dataclasses.replace(data, groups=toy.GROUPS._replace(group=nobody)), ensemble.members(config, None)


def test_groups_are_of_training_speakers_alone_by_the_fold_and_layer_of_each_member():
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn")
    data, members = _data()
    groups = clusters.tables(data, members)
    assert groups.groups.shape == (4, toy.NUM)
    for number, member in enumerate(members):
        speaker, code = groups.of_member(number)[:2]
        is_known = (data.splits[member.fold] == "train") & (speaker >= 0)
        np.testing.assert_array_equal(code >= 0, is_known)
        rows = np.flatnonzero(is_known)
        frames = [np.asarray(f, np.float64) for f in data.store.read(member.layer, rows)]
        who = np.repeat(speaker[rows], [len(f) for f in frames])
        together = np.concatenate(frames)
        together = (together - together.mean(0)) / together.std(0)
        people = np.unique(who)
        theirs = cluster.KMeans(3, n_init=50, random_state=0).fit_predict([together[who == s].mean(0) for s in people])
        ours = [set(code[is_known & (speaker == s)].tolist()) for s in people]
        assert all(len(own) == 1 for own in ours)
        ours = np.array([own.pop() for own in ours])
        np.testing.assert_array_equal(ours[:, None] == ours, theirs[:, None] == theirs)
    weights = data.weights(members, groups)
    for number, member in enumerate(members):
        rows = data.labelled_rows(member.fold, "train")
        own, t = balance.Groups(*(codes[rows] for codes in groups.of_member(number))), data.training_targets
        expected = balance.tempered(own, t.distribution[rows], t.has_votes[rows], 0.0, member.group_balance)
        np.testing.assert_allclose(weights.table[weights.slot[number], rows], expected, rtol=1e-6)


def test_members_that_read_no_groups_need_none_and_too_few_speakers_are_refused():
    data, members = _data()
    plain = [member for member in members if not member.group_balance]
    np.testing.assert_array_equal(clusters.tables(data, plain).groups, data.groups.group[None])
    few = dataclasses.replace(data, groups=data.groups._replace(speaker=np.arange(toy.NUM, dtype=np.int32) % 2))
    with pytest.raises(
        ArtefactError, match=r"train\.group_by = kmeans:3: the training split of fold 0 names 2 speakers"
    ):
        clusters.tables(few, members)


def test_words_of_groups():
    assert [vocab.num_clusters(word) for word in ("gender", "kmeans:2", "kmeans:12")] == [None, 2, 12]
    for word in ("kmeans", "kmeans:", "kmeans:1", "kmeans:x"):
        with pytest.raises(ValueError, match="write kmeans:K"):
            vocab.num_clusters(word)

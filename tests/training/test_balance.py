"""Weights of utterances, against counts in plain loops; who is not known; what is refused."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.metrics import class_distances
from seremo_jax.training import balance
from tests.support import toy_training as toy

SPEAKERS, GROUPS, CORPORA = "aaaabbc?cdd?", "ffffmmmm??ff", "xxxxxxxxyyxz"


def _drawn():
    shares = np.random.default_rng(0).dirichlet(np.ones(3), len(SPEAKERS))
    has_shares = np.arange(len(SPEAKERS)) != 6
    texts = (SPEAKERS, GROUPS, CORPORA)
    codes = (np.array([-1 if c == "?" else ord(c) - ord("a") for c in text], np.int32) for text in texts)
    return balance.Groups(*codes), np.where(has_shares[:, None], shares, 0), has_shares


@pytest.mark.parametrize(
    ("alpha", "gamma", "delta"),
    [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 2.0, 0.7)],
)
def test_weights_equal_counts_in_loops(alpha, gamma, delta):
    groups, p, has = _drawn()
    by_corpus = {i: CORPORA.count(where) ** -delta for i, where in enumerate(CORPORA)}
    by_speaker = {i: SPEAKERS.count(who) ** -alpha for i, who in enumerate(SPEAKERS) if who != "?"}
    known, by_group = [i for i, g in enumerate(GROUPS) if g != "?" and has[i]], {}
    total = sum(p[i, c] for i in known for c in range(3))
    for i in known:
        by_group[i] = 0
        for c in range(3):
            n_g = sum(p[j, k] for j in known for k in range(3) if GROUPS[j] == GROUPS[i])
            n_c, n_gc = sum(p[j, c] for j in known), sum(p[j, c] for j in known if GROUPS[j] == GROUPS[i])
            by_group[i] += p[i, c] * (n_g * n_c / (total * n_gc)) ** gamma
    expected = np.ones(len(SPEAKERS))
    for factors in (by_speaker, by_group, by_corpus):
        for i, factor in factors.items():
            expected[i] *= factor / np.mean(list(factors.values()))
    ours = balance.tempered(groups, p, has, alpha, gamma, delta)
    np.testing.assert_allclose(ours, expected / expected.mean(), rtol=1e-12)
    assert ours.mean() == pytest.approx(1)


def test_whole_weights_make_speakers_equal_and_classes_independent_of_groups():
    """With one class an utterance, as then the weights of cells are those of utterances."""
    rng = np.random.default_rng(1)
    speaker, group = rng.integers(0, 5, 400), rng.integers(0, 2, 400)
    label = np.where(rng.random(400) < 0.7, group, rng.integers(0, 3, 400))
    groups, p = balance.Groups(speaker, group, speaker), np.eye(3)[label]
    by_speaker = np.bincount(speaker, balance.tempered(groups, p, np.ones(400, bool), 1.0, 0.0))
    np.testing.assert_allclose(by_speaker, 80)
    by_corpus = np.bincount(speaker, balance.tempered(groups, p, np.ones(400, bool), 0.0, 0.0, 1.0))
    np.testing.assert_allclose(by_corpus, 80)
    joint = np.zeros((2, 3))
    np.add.at(joint, (group, label), balance.tempered(groups, p, np.ones(400, bool), 0.0, 1.0))
    np.testing.assert_allclose(joint, np.outer(joint.sum(1), joint.sum(0)) / 400, rtol=1e-10)


def test_weights_are_of_the_training_split_of_each_fold_alone():
    axes = {"layers": (2,), "class_targets": ("votes",), "seeds": (0,), "speaker_balances": (0.0, 1.0)}
    kfold = {"data": {"split_kind": "kfold", "num_folds": 3}, "ensemble": axes | {"folds": (0, 1)}}
    config, fold = toy.config(**kfold), np.arange(toy.NUM) % 3
    splits = {f: np.where(fold == f, "test", np.where(fold == (f + 1) % 3, "development", "train")) for f in (0, 1)}
    members = ensemble.members(config, None)
    weights = toy.data_of(config, splits=splits).weights(members)
    assert weights.table.shape == (4, toy.NUM)
    for member, slot in zip(members, weights.slot, strict=True):
        is_trained, row = splits[member.fold] == "train", weights.table[slot]
        np.testing.assert_array_equal(row[~is_trained], 1)
        if not member.speaker_balance:
            np.testing.assert_array_equal(row, 1)
            continue
        known = is_trained & (toy.GROUPS.speaker >= 0)
        by_speaker = np.bincount(toy.GROUPS.speaker[known], row[known])
        np.testing.assert_allclose(by_speaker[by_speaker > 0], by_speaker.max(), rtol=1e-5)
    plain = toy.config(ensemble={"seeds": (0,)})
    distances, votes = toy.data_of(config, splits=splits).class_distances(members), toy.targets().votes
    for member, distance in zip(members, distances, strict=True):
        own = votes[splits[member.fold] == "train"]
        np.testing.assert_array_equal(distance, class_distances.co_vote_distance(own))
    assert toy.data_of(plain).weights(ensemble.members(plain, None)).table is None


def test_speakers_of_two_corpora_are_two_and_unknown_ones_are_none():
    columns = {"corpus": ["x", "x", "y", "y"], "speaker": ["1", "unknown", "1", "2"], "age": [30, None, 30, 60]}
    groups = balance.groups_of(pa.table(columns), "age", [])
    assert groups.speaker.tolist() == [0, -1, 1, 2]
    assert groups.group.tolist() == [0, -1, 0, 1]
    assert groups.corpus.tolist() == [0, 0, 1, 1]


def test_what_cannot_be_balanced_is_refused():
    table = pa.table({"corpus": ["x"], "speaker": ["unknown"]})
    (plain, member) = ensemble.members(toy.config(ensemble={"layers": (2,), "class_targets": (), "seeds": (0,),
                                                            "group_balances": (0.0, 0.5)}), None)  # fmt: skip
    nobody = balance.groups_of(table, "gender", [plain])
    with pytest.raises(ArtefactError, match=r"train\.group_by = 'gender' is no column .*need one of corpus, speaker"):
        balance.groups_of(table, "gender", [member])
    with pytest.raises(ArtefactError, match="is no column"):
        balance.groups_of(table, "gender", [dataclasses.replace(plain, objective="cvar", objective_group="group")])
    data = toy.data_of(toy.config())
    alone = dataclasses.replace(data, groups=toy.GROUPS._replace(speaker=np.full(toy.NUM, 3)))
    data.require_groups([plain])
    for changes, words in (({"mixup": 0.2}, r"train\.mixup"), ({"objective": "vrex"}, r"loss\.objective = 'vrex'")):
        member = dataclasses.replace(plain, **changes)
        data.require_groups([member])
        with pytest.raises(ArtefactError, match=f"{words}: the training split names 1 speakers"):
            alone.require_groups([member])
    one, voted = np.ones((1, 2)) / 2, np.ones(1, bool)
    with pytest.raises(ArtefactError, match=r"loss\.speaker_balance: no utterance .* has a known speaker"):
        balance.tempered(nobody, one, voted, 0.5, 0.0)
    with pytest.raises(ArtefactError, match=r"loss\.group_balance: no utterance .* a known group"):
        balance.tempered(nobody, one, voted, 0.0, 0.5)

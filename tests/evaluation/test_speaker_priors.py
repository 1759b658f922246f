"""Systems that are corrected for each test speaker: by loops, in any order, beside the same systems as before."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.core.schema import Predictions
from seremo_jax.evaluation import evaluate, records, speaker_priors
from seremo_jax.evaluation.alignment import align
from seremo_jax.metrics import class_priors
from seremo_jax.reports import blocks
from seremo_jax.training import balance, clusters
from tests.evaluation.test_scoring import NUM_ROWS, parts
from tests.support import prepared, toy_training

__all__ = ["parts"]

SECTION = EvalConfig(speaker_prior=("transductive", "online"), speaker_prior_kappa=4.0)
FOLDED = ensemble.members(
    from_config_dict({
        "model": {"layer": 2}, "data": {"split_kind": "kfold"},
        "ensemble": {"seeds": (0, 1), "class_targets": ("votes", "consensus"), "folds": (0, 1)},
    }), None,
)  # fmt: skip
POOLED = list(dict.fromkeys(map(ensemble.without_fold, FOLDED)))


def corrections(table, section=SECTION):
    """Priors that differ from fold to fold; speakers s0 to s4 are of the first."""
    shares = np.random.default_rng(3).dirichlet(np.full(6, 4.0), len(FOLDED))
    in_first = np.array([name in ("s0", "s1", "s2", "s3", "s4") for name in table["speaker"].to_pylist()])
    rows = {0: np.flatnonzero(in_first), 1: np.flatnonzero(~in_first)}
    priors = speaker_priors.TrainingPriors(tuple(FOLDED), shares)
    return speaker_priors.Corrections(priors, None, section, rows, table)


def added(predictions, targets, table, section=SECTION):
    aligned = align(predictions, targets, table, num_members=4, split="test", group_by="gender")
    systems = ensemble.systems([*map(vars, POOLED)])
    return corrections(table, section).added(aligned, systems, POOLED)


def test_rows_of_corrected_systems_are_those_of_loops_over_folds_and_speakers(parts):
    predictions, _, table = parts
    aligned, systems, members, adapted = added(*parts)
    assert [about["system"] for _, about in systems] == [
        "votes", "consensus", "prior of each speaker (transductive), votes",
        "prior of each speaker (transductive), consensus", "prior of each speaker (online), votes",
        "prior of each speaker (online), consensus",
    ]  # fmt: skip
    assert adapted["prior of each speaker (online), consensus"] == "consensus"
    assert [rows for rows, _ in systems] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert members == POOLED * 3
    q, after = predictions.distribution, aligned.predictions_distribution
    names, own = table["speaker"].to_pylist(), corrections(table)
    np.testing.assert_array_equal(after[:4], q)
    for e, member in enumerate(POOLED):
        for speaker in set(names):
            rows = [i for i, name in enumerate(names) if name == speaker]
            if speaker == "unknown":
                np.testing.assert_array_equal(after[4 + e][rows], q[e][rows])
                continue
            fold = int(speaker not in ("s0", "s1", "s2", "s3", "s4"))
            (prior,) = (own.priors.shares[i] for i, other in enumerate(FOLDED)
                        if other.fold == fold and ensemble.without_fold(other) == member)  # fmt: skip
            for block, correct in ((4, class_priors.transductive), (8, class_priors.online)):
                expected = correct(q[e : e + 1, rows], prior[None], 4.0, np.ones(1))
                expected = (expected[0] if isinstance(expected, tuple) else expected)[0]
                np.testing.assert_allclose(after[block + e][rows], expected, rtol=0, atol=1e-6)


def test_the_order_of_predictions_never_matters_and_that_of_the_corpus_only_online(parts):
    predictions, targets, table = parts
    before = added(*parts)[0].predictions_distribution
    order = np.random.default_rng(0).permutation(NUM_ROWS)
    shuffled = Predictions([predictions.utterances[i] for i in order], *(x[:, order] for x in predictions[1:]))
    np.testing.assert_array_equal(added(shuffled, targets, table)[0].predictions_distribution, before)
    reordered = added(predictions, targets, table.take(pa.array(np.arange(NUM_ROWS)[::-1])))[0].predictions_distribution
    np.testing.assert_array_equal(reordered[4:8], before[4:8])
    assert np.abs(reordered[8:] - before[8:]).max() > 0.01


def test_a_prior_of_a_group_is_that_of_its_column_and_takes_a_flag(parts):
    with pytest.raises(ConfigError, match=r"speaker_prior_by = 'gender': .* treats people by their group"):
        from_config_dict({"eval": {"speaker_prior_by": "gender"}})
    assert from_config_dict({"eval": {"speaker_prior_by": "gender", "treats_groups_apart": True}})
    section = dataclasses.replace(SECTION, speaker_prior=("transductive",), speaker_prior_by="gender")
    aligned, systems, *_ = added(*parts, section)
    assert systems[-1][1]["system"] == "prior of each gender (transductive), consensus"
    names, genders = (np.array(parts[2][name].to_pylist()) for name in ("speaker", "gender"))
    rows = (genders == "male") & np.isin(names, ["s1", "s3"])
    prior = corrections(parts[2]).priors.shares[[FOLDED.index(dataclasses.replace(POOLED[0], fold=0))]]
    expected = class_priors.transductive(parts[0].distribution[:1, rows], prior, 4.0, np.ones(1))[0]
    np.testing.assert_allclose(aligned.predictions_distribution[4:5, rows], expected, rtol=0, atol=1e-6)
    with pytest.raises(ArtefactError, match=r"eval\.speaker_prior_by = 'age': the utterance table has no such column"):
        added(*parts, dataclasses.replace(section, speaker_prior_by="age"))


def test_the_training_prior_is_the_mean_target_of_each_members_own_loss():
    config = toy_training.config(ensemble={"layers": (2,), "class_kinds": ("ccc", "balanced_soft_ce"), "seeds": (0,)},
                                 loss={"label_smoothing": 0.1, "speaker_balance": 1.0})  # fmt: skip
    members = ensemble.members(config, None)
    data = toy_training.data_of(config)
    actual = speaker_priors.TrainingPriors.of(data, members)
    rows = [i for i in range(toy_training.NUM) if i % 4]
    speaker = toy_training.GROUPS.speaker
    counts = {s: sum(speaker[i] == s for i in rows) for s in set(speaker[rows].tolist())}
    for shares, member in zip(actual.shares, members, strict=True):
        p = data.targets.distribution if member.class_target == "votes" else data.targets.consensus
        total = np.zeros(4)
        mean = np.mean([1 / counts[speaker[i]] for i in rows if speaker[i] >= 0])
        for i in rows:
            weight = 1 / counts[speaker[i]] / mean if speaker[i] >= 0 else 1.0
            if member.class_target == "votes" or data.targets.has_consensus[i]:
                total += weight * (0.9 * p[i].astype(float) + 0.1 / 4)
        if member.class_kind == "balanced_soft_ce":
            n = p[rows].sum(0).astype(float)
            b = (n.sum() - 1) / n.sum()
            total *= (1 - b) / (1 - b**n)
        np.testing.assert_allclose(shares, total / total.sum(), rtol=1e-5)


def test_a_class_that_no_rater_could_choose_has_no_share_of_the_smoothing():
    config = toy_training.config(ensemble={"layers": (2,), "seeds": (0,)}, loss={"label_smoothing": 0.1})
    data, members = toy_training.data_of(config), ensemble.members(config, None)
    offered = np.arange(4) < np.where(np.arange(toy_training.NUM) % 3, 2, 3)[:, None]
    p = data.targets.distribution * offered
    learned = dataclasses.replace(data.targets, distribution=p / p.sum(1, keepdims=True), is_offered=offered)
    actual = speaker_priors.TrainingPriors.of(dataclasses.replace(data, training_targets=learned), members)
    (votes,) = (shares for shares, member in zip(actual.shares, members, strict=True) if member.class_target == "votes")
    rows = [i for i in range(toy_training.NUM) if i % 4]
    expected = np.mean([0.9 * learned.distribution[i] + 0.1 * offered[i] / offered[i].sum() for i in rows], axis=0)
    assert votes[3] == 0
    np.testing.assert_allclose(votes, expected, rtol=1e-5)


def test_the_training_prior_weighs_utterances_by_groups_that_no_column_has():
    config = toy_training.config(
        ensemble={"layers": (2,), "class_targets": ("votes",), "seeds": (0,)},
        loss={"group_balance": 1.0}, train={"group_by": "kmeans:3"},
    )  # fmt: skip
    nobody = np.full(toy_training.NUM, -1, np.int32)
    data = toy_training.data_of(config)
    data, members = dataclasses.replace(data, groups=data.groups._replace(group=nobody)), ensemble.members(config, None)
    rows = np.array([i for i in range(toy_training.NUM) if i % 4])
    own = balance.Groups(*(codes[rows] for codes in clusters.tables(data, members).of_member(0)))
    p = data.targets.distribution[rows]
    weight = balance.tempered(own, p, np.ones(len(rows), bool), 0.0, 1.0)
    actual = speaker_priors.TrainingPriors.of(data, members).shares[0]
    np.testing.assert_allclose(actual, weight @ p / weight.sum(), rtol=1e-5)
    assert np.abs(actual - p.mean(0)).max() > 0.003


def test_an_evaluation_shows_both_side_by_side(tmp_path_factory, tmp_path, monkeypatch):
    workdir = Path(shutil.copytree(prepared.finished(tmp_path_factory) / "workdir", tmp_path / "w"))
    before = {(r.system, r.group): r for r in records.read(workdir / records.FILE)}
    config = prepared.smallest()
    section = dataclasses.replace(config.eval, speaker_prior=("transductive",), splits=("development", "test"))
    config, computed, of = dataclasses.replace(config, eval=section), [], speaker_priors.TrainingPriors.of
    monkeypatch.setattr(speaker_priors.TrainingPriors, "of", lambda *given: computed.append(of(*given)) or computed[-1])
    found = records.read(evaluate.run(config, workdir, is_quiet=True))
    assert len(computed) == 1
    after = {(r.system, r.group): r for r in found if r.split == "test"}
    for key, record in before.items():
        assert after[key].metrics == record.metrics
        assert {**after[key].states, "differences": 0} == {**record.states, "differences": 0}
    record = after["prior of each speaker (transductive), votes", "all"]
    assert record.axes["adapted_by"]["kappa"] == 160
    assert np.sum(record.axes["adapted_by"]["training_prior"]) == pytest.approx(1)
    assert {row["than"] for row in record.states["differences"]} == {"votes"}
    assert not after["votes", "all"].states["differences"]
    assert "calibration" in record.states
    assert "Transductive: also those that are scored." in record.protocol["notes"][-1]
    assert record.protocol["settings"]["eval.speaker_prior"] == ["transductive"]
    assert "eval.speaker_prior" not in before["votes", "all"].protocol["settings"]
    assert len(blocks.blocks([*after.values()], is_simulated=True)[0].systems) == 2
    section = dataclasses.replace(config.eval, enrolment=(1,))
    with pytest.raises(
        ArtefactError, match=r"eval\.enrolment asks for 1 labelled utterances of a speaker, and of 0 test"
    ):
        evaluate.run(dataclasses.replace(config, eval=section), workdir, is_quiet=True)

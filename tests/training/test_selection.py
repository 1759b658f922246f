"""The scores that select epochs and penalties, against audmetric, scikit-learn and NumPy in float64."""

import audmetric
import jax
import numpy as np
import pytest
from sklearn import metrics

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.vocab import CLASS_TARGETS
from seremo_jax.evaluation import regression
from seremo_jax.metrics.kinds import KINDS
from seremo_jax.training import objectives, selection
from seremo_jax.training.state import values_of
from tests.support import toy_training
from tests.training.test_loader import _targets

NOBODY = np.full(toy_training.NUM, -1)


def _scores(score, attributes, distribution, rows, targets, kinds):
    predicted = selection.Predicted(np.arange(len(kinds)), rows, attributes, distribution)
    speaker = np.arange(len(targets.ids)) % 5 - 1
    return selection.development_scores(score, [predicted], targets, [CLASS_TARGETS[kind] for kind in kinds], speaker)


@pytest.mark.parametrize("score", ["ccc", "class_ccc"])
def test_score_is_mean_ccc_of_attributes_plus_classes_or_that_of_classes(score):
    targets = _targets(7)
    rng = np.random.default_rng(1)
    attributes = rng.normal(size=(2, 6, 2)).astype(np.float32)
    q = rng.dirichlet(np.ones(3), (2, 6)).astype(np.float32)
    rows = np.arange(1, 7)
    got = _scores(score, attributes, q, rows, targets, [0, 1])
    for e, wanted in enumerate((targets.distribution, targets.consensus)):
        kept = np.ones(6, bool) if e == 0 else targets.has_consensus[rows]
        ccc = audmetric.concordance_cc
        by_attribute = [ccc(targets.attributes[rows, a], attributes[e, :, a]) for a in range(2)]
        defined = [c for c in range(3) if np.ptp(wanted[rows][kept, c]) > 0]
        by_class = [ccc(wanted[rows][kept, c], q[e, kept, c]) for c in defined]
        expected = np.mean(by_class) + (np.mean(by_attribute) if score == "ccc" else 0)
        np.testing.assert_allclose(got[e], expected, atol=1e-5)


def test_a_task_the_corpus_does_not_label_drops_out():
    targets = _targets(7)
    rated = _scores("ccc", *_draw(), np.arange(7), targets, [0])
    targets.has_attribute[:] = False
    unrated = _scores("ccc", *_draw(), np.arange(7), targets, [0])
    q = _draw()[1][0]
    by_class = [audmetric.concordance_cc(targets.distribution[:, c], q[:, c]) for c in range(3)]
    np.testing.assert_allclose(unrated, np.mean(by_class), atol=1e-5)
    assert abs(rated - unrated) > 1e-3


def _draw():
    rng = np.random.default_rng(2)
    return rng.normal(size=(1, 7, 2)).astype(np.float32), rng.dirichlet(np.ones(3), (1, 7)).astype(np.float32)


def _said(targets, num_members, seed=3):
    """Predictions for every second utterance that are right more often than not."""
    rng, rows = np.random.default_rng(seed), np.arange(0, len(targets.ids), 2)
    q = rng.dirichlet(np.ones(toy_training.CLASSES), (num_members, len(rows))) + 0.7 * targets.distribution[rows]
    attributes = rng.normal(size=(num_members, len(rows), toy_training.ATTRIBUTES)) + targets.attributes[rows]
    return rows, attributes.astype(np.float32), (q / q.sum(-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("score", ["uar", "macro_f1"])
def test_uar_and_f1_are_those_of_scikit_learn(score):
    targets = toy_training.targets()
    rows, attributes, q = _said(targets, 2)
    got = _scores(score, attributes, q, rows, targets, [0, 1])
    consensus = targets.consensus_index[rows]
    scored = consensus >= 0
    assert 0 < scored.sum() < len(rows)
    for e in range(2):
        said, true = q[e, scored].argmax(-1), consensus[scored]
        expected = {
            "uar": metrics.balanced_accuracy_score(true, said),
            "macro_f1": metrics.f1_score(true, said, labels=np.unique(true), average="macro"),
        }[score]
        assert got[e] == pytest.approx(expected, abs=1e-6)


def test_the_worst_speakers_are_the_fifth_with_the_lowest_uar():
    targets = toy_training.targets()
    rows, attributes, q = _said(targets, 2, seed=7)
    speaker = np.where(np.arange(toy_training.NUM) == 6, -1, np.arange(toy_training.NUM) // 2 % 6)
    predicted = selection.Predicted(np.arange(2), rows, attributes, q)
    got = selection.development_scores("worst_speakers", [predicted], targets, ["votes", "consensus"], speaker)
    for e in range(2):
        by_speaker = []
        for who in range(speaker.max() + 1):
            own = (speaker[rows] == who) & (targets.consensus_index[rows] >= 0)
            if own.any():
                true, said = targets.consensus_index[rows][own], q[e, own].argmax(-1)
                by_speaker.append(metrics.recall_score(true, said, labels=np.unique(true), average="macro"))
        assert len(by_speaker) == 6
        lowest, second, *_ = sorted(by_speaker)
        assert second > lowest
        # A fifth of six is one, and a fifth of the next.
        assert got[e] == pytest.approx((lowest + 0.2 * second) / 1.2, abs=1e-6)


def test_the_loss_of_a_member_is_its_own_over_the_whole_split():
    axes = {"layers": (2,), "class_kinds": ("soft_ce", "balanced_soft_ce"), "seeds": (0,), "class_targets": ("votes",)}
    config = toy_training.config(ensemble=axes | {"label_smoothings": (0.1,), "class_task_weights": (0.5,)})
    members, weights = ensemble.members(config, None), [np.ones(4), np.array([0.5, 1, 2, 0.5])]
    fixed = objectives.Fixed((), "ccc", 1.0, 1e-8, ("balanced_soft_ce", "soft_ce"))
    data = toy_training.data_of(config)
    targets = data.targets
    rows, attributes, q = _said(targets, 2)
    predicted = selection.Predicted(np.arange(2), rows, attributes, q)
    got = selection.development_losses(fixed, [predicted], data.labels(targets), values_of(members, weights))
    smoothed = 0.9 * targets.distribution[rows].astype(np.float64) + 0.1 / 4
    for e, weight in enumerate(weights):
        by_attribute = []
        for a in range(toy_training.ATTRIBUTES):
            rated = targets.has_attribute[rows, a]
            by_attribute.append(audmetric.concordance_cc(targets.attributes[rows[rated], a], attributes[e, rated, a]))
        cross_entropy = -(smoothed * weight[None] * np.log(q[e].astype(np.float64))).sum(axis=1).mean()
        assert got[e] == pytest.approx(1 - np.mean(by_attribute) + 0.5 * cross_entropy, abs=1e-5)
    assert jax.tree.leaves(got)[0].dtype == np.float32


@pytest.mark.parametrize("class_target", CLASS_TARGETS)
@pytest.mark.parametrize("is_balanced", [False, True])
def test_the_penalty_of_a_regression_is_picked_by_its_cross_entropy_where_the_loss_selects(class_target, is_balanced):
    targets = toy_training.targets()
    rows, attributes, q = _said(targets, 3)
    best, scores = regression.best_for_classes(
        q, rows, targets, class_target, is_balanced=is_balanced, score="loss", speaker=NOBODY
    )
    is_votes = class_target == "votes"
    shares = (targets.distribution if is_votes else targets.consensus)[rows]
    row, label = np.nonzero(shares)
    weight = shares[row, label].astype(np.float64)
    if is_balanced:
        weight /= np.bincount(label, weight, minlength=toy_training.CLASSES)[label]
    expected = [-metrics.log_loss(label, said[row], sample_weight=weight, labels=np.arange(4)) for said in q]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert best == int(np.argmax(expected))
    by_error = []
    for said in attributes:
        rated = targets.has_attribute[rows]
        errors = [
            metrics.mean_squared_error(targets.attributes[rows[rated[:, a]], a], said[rated[:, a], a]) for a in range(3)
        ]
        by_error.append(np.mean(errors))
    assert regression.best_for_attributes(attributes, rows, targets, "loss") == int(np.argmin(by_error))


def test_the_penalty_of_a_regression_is_picked_by_the_score_that_selects():
    targets = toy_training.targets()
    rows, attributes, q = _said(targets, 5)
    for score in ("class_ccc", "uar", "macro_f1"):
        best, scores = regression.best_for_classes(
            q, rows, targets, "votes", is_balanced=False, score=score, speaker=NOBODY
        )
        np.testing.assert_array_equal(scores, _scores(score, attributes, q, rows, targets, [0] * 5))
        assert best == int(np.argmax(scores))
    by_ccc = selection.score_of_attributes(attributes, rows, targets)
    assert regression.best_for_attributes(attributes, rows, targets, "uar") == int(np.argmax(by_ccc))


@pytest.mark.parametrize(("score", "missing"), [("uar", "a consensus"), ("class_ccc", "votes")])
def test_a_split_without_the_labels_of_the_score_is_refused(score, missing):
    targets = toy_training.targets()
    rows = {0: np.arange(5), 1: np.arange(5, 9)}
    selection.require_labels(score, targets, rows, NOBODY)
    if score == "uar":
        with pytest.raises(
            ArtefactError, match=r"= 'worst_speakers': no scored .* split of fold 0 has a known speaker"
        ):
            selection.require_labels("worst_speakers", targets, rows, NOBODY)
    targets.consensus_index[5:9], targets.has_votes[5:9] = -1, False
    with pytest.raises(ArtefactError, match=rf"selection = '{score}': no utterance .* of fold 1 has {missing} to"):
        selection.require_labels(score, targets, rows, NOBODY)
    selection.require_labels("ccc", targets, rows, NOBODY)


def test_names_of_scores_are_those_of_the_metrics():
    assert {"uar", "macro_f1", "class_ccc", "worst_speakers"} <= set(KINDS)
    assert set(vocab.SELECTION_SCORES) - set(KINDS) == {"loss"}

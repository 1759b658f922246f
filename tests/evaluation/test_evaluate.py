"""Development score against scikit-style arithmetic; batches cover a split once."""

import audmetric
import numpy as np

from seremo_jax.core import members as ensemble
from seremo_jax.core.vocab import CLASS_TARGETS
from seremo_jax.evaluation import evaluate
from tests.support import toy_training
from tests.training.test_loader import _targets


def _scores(attributes, distribution, rows, targets, kinds):
    members = np.arange(len(kinds))
    return evaluate.development_scores(
        [evaluate.Predicted(members, rows, attributes, distribution)], targets, [CLASS_TARGETS[kind] for kind in kinds]
    )


def test_development_score_is_mean_ccc_of_attributes_plus_classes():
    targets = _targets(7)
    rng = np.random.default_rng(1)
    attributes = rng.normal(size=(2, 6, 2)).astype(np.float32)
    q = rng.dirichlet(np.ones(3), (2, 6)).astype(np.float32)
    rows = np.arange(1, 7)
    got = _scores(attributes, q, rows, targets, [0, 1])
    for e, wanted in enumerate((targets.distribution, targets.consensus)):
        kept = np.ones(6, bool) if e == 0 else targets.has_consensus[rows]
        ccc = audmetric.concordance_cc
        by_attribute = [ccc(targets.attributes[rows, a], attributes[e, :, a]) for a in range(2)]
        defined = [c for c in range(3) if np.ptp(wanted[rows][kept, c]) > 0]
        by_class = [ccc(wanted[rows][kept, c], q[e, kept, c]) for c in defined]
        np.testing.assert_allclose(got[e], np.mean(by_attribute) + np.mean(by_class), atol=1e-5)


def test_a_task_the_corpus_does_not_label_drops_out():
    targets = _targets(7)
    rated = _scores(*_draw(), np.arange(7), targets, [0])
    targets.has_attribute[:] = False
    unrated = _scores(*_draw(), np.arange(7), targets, [0])
    q = _draw()[1][0]
    by_class = [audmetric.concordance_cc(targets.distribution[:, c], q[:, c]) for c in range(3)]
    np.testing.assert_allclose(unrated, np.mean(by_class), atol=1e-5)
    assert abs(rated - unrated) > 1e-3


def _draw():
    rng = np.random.default_rng(2)
    return rng.normal(size=(1, 7, 2)).astype(np.float32), rng.dirichlet(np.ones(3), (1, 7)).astype(np.float32)


def test_members_of_folds_are_pooled_into_one_that_covers_every_utterance():
    config = toy_training.config(
        data={"split_kind": "kfold"}, ensemble={"layers": (2,), "class_targets": ("votes",), "folds": (0, 1)}
    )
    members = ensemble.members(config, None)
    assert [(m.fold, m.seed) for m in members] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    ids = np.array([f"u{i}" for i in range(6)], dtype=object)
    parts = [(np.array([0, 1]), np.array([4, 0])), (np.array([2, 3]), np.array([1, 3, 2]))]
    predicted = []
    for mine, rows in parts:
        rows = np.sort(rows)
        value = (10 * mine[:, None] + rows)[..., None].astype(np.float32)
        predicted.append(evaluate.Predicted(mine, rows, value, value))
    predictions, pooled = evaluate.pool_folds(predicted, members, ids)
    assert [(m.fold, m.seed) for m in pooled] == [(None, 0), (None, 1)]
    assert predictions.utterances.tolist() == ["u0", "u1", "u2", "u3", "u4"]
    np.testing.assert_array_equal(predictions.attributes[0, :, 0], [0, 21, 22, 23, 4])
    np.testing.assert_array_equal(predictions.attributes[1, :, 0], [10, 31, 32, 33, 14])

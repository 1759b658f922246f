"""Development score against scikit-style arithmetic; batches cover a split once."""

import audmetric
import numpy as np

from seremo_jax import evaluate, steps
from tests.test_loader import _targets


def _members(codes):
    zeros = np.zeros(len(codes), np.int32)
    return steps.Members(zeros, np.array(codes, np.int32), zeros.astype(np.uint32))


def test_development_score_is_mean_ccc_of_attributes_plus_classes():
    targets = _targets(7)
    rng = np.random.default_rng(1)
    attributes = rng.normal(size=(2, 6, 2)).astype(np.float32)
    q = rng.dirichlet(np.ones(3), (2, 6)).astype(np.float32)
    rows = np.arange(1, 7)
    got = evaluate.development_scores(attributes, q, rows, targets, _members([0, 1]))
    for e, wanted in enumerate((targets.distribution, targets.consensus)):
        kept = np.ones(6, bool) if e == 0 else targets.has_consensus[rows]
        ccc = audmetric.concordance_cc
        by_attribute = [ccc(targets.attributes[rows, a], attributes[e, :, a]) for a in range(2)]
        defined = [c for c in range(3) if np.ptp(wanted[rows][kept, c]) > 0]
        by_class = [ccc(wanted[rows][kept, c], q[e, kept, c]) for c in defined]
        np.testing.assert_allclose(got[e], np.mean(by_attribute) + np.mean(by_class), atol=1e-5)


def test_a_task_the_corpus_does_not_label_drops_out():
    targets = _targets(7)
    rated = evaluate.development_scores(*_draw(), np.arange(7), targets, _members([0]))
    targets.has_attribute[:] = False
    unrated = evaluate.development_scores(*_draw(), np.arange(7), targets, _members([0]))
    q = _draw()[1][0]
    by_class = [audmetric.concordance_cc(targets.distribution[:, c], q[:, c]) for c in range(3)]
    np.testing.assert_allclose(unrated, np.mean(by_class), atol=1e-5)
    assert abs(rated - unrated) > 1e-3


def _draw():
    rng = np.random.default_rng(2)
    return rng.normal(size=(1, 7, 2)).astype(np.float32), rng.dirichlet(np.ones(3), (1, 7)).astype(np.float32)

"""The score that selects epochs, against audmetric."""

import audmetric
import numpy as np

from seremo_jax.core.vocab import CLASS_TARGETS
from seremo_jax.training import predictions
from tests.training.test_loader import _targets


def _scores(attributes, distribution, rows, targets, kinds):
    members = np.arange(len(kinds))
    return predictions.development_scores(
        [predictions.Predicted(members, rows, attributes, distribution)],
        targets,
        [CLASS_TARGETS[kind] for kind in kinds],
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

"""Speakers above a threshold, who is counted, and what guessing gives, against plain loops and closed forms."""

import numpy as np

from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.passing import chance_passing, is_eligible, passes
from tests.metrics.test_confusions import NUM_CLASSES, counts_of, ranking, scores_of


def test_pa_uar_equals_a_plain_loop_under_both_filters():
    rng = np.random.default_rng(0)
    num_speakers, num_rows = 12, 150
    unit = np.minimum(rng.geometric(0.12, num_rows) - 1, num_speakers - 1).astype(np.int32)
    consensus = np.where(unit == 3, 1, rng.integers(0, NUM_CLASSES, num_rows)).astype(np.int32)
    scores = (rng.random((num_rows, NUM_CLASSES)) + 0.6 * np.eye(NUM_CLASSES)[consensus]).astype(np.float32)
    counts = counts_of(scores, consensus, unit, num_speakers, (1, 2))
    speaker_uar = scores_of(counts).uar
    support = counts[:, 0].sum(axis=-1)
    for name, least in (("all", (1, 1)), ("min10c2", (10, 2))):
        for i, n in enumerate((1, 2)):
            num_passing = {50: 0, 75: 0}
            num_counted = 0
            for s in range(num_speakers):
                y = consensus[unit == s]
                if len(y) < least[0] or len(set(y)) < least[1]:
                    continue
                num_counted += 1
                right = np.asarray([c in ranking(row)[:n] for c, row in zip(y, scores[unit == s], strict=True)])
                uar = np.mean([right[y == c].mean() for c in set(y)])
                np.testing.assert_allclose(speaker_uar[s, i], uar)
                for threshold in num_passing:
                    num_passing[threshold] += uar > threshold / 100
            eligible = is_eligible(support, name)
            assert eligible.sum() == num_counted
            assert (num_counted < num_speakers) == (name == "min10c2")
            passing = (passes(speaker_uar[:, i], (50, 75)) & eligible[:, None]).sum(axis=0)
            assert passing.tolist() == [num_passing[t] for t in (50, 75)]


def test_a_speaker_exactly_at_the_threshold_does_not_pass():
    # Recalls whose mean is exactly 3/4, some of them not exact in binary; then one just above.
    right = np.asarray([[3, 3, 0, 0], [2, 5, 0, 0], [7, 2, 4, 0], [2, 3, 0, 0]])
    support = np.asarray([[4, 4, 0, 0], [3, 6, 0, 0], [10, 3, 4, 0], [2, 5, 0, 0]])
    uar = class_scores(right, support, support).uar
    np.testing.assert_allclose(uar, [0.75, 0.75, (0.7 + 2 / 3 + 1) / 3, 0.8], rtol=1e-6)
    assert passes(uar, (75,))[:, 0].tolist() == [False, False, True, True]
    assert passes(uar, (75, 79, 80)).sum(axis=0).tolist() == [2, 1, 0]


def test_chance_of_speakers_in_closed_form():
    # One utterance: right with N / 4. Two of different classes: both must be right to exceed 50 %, one for 40 %.
    support = np.repeat([[1, 0, 0, 0], [0, 1, 1, 0]], 50, axis=0)
    is_one = np.arange(100) < 50
    item = chance_passing(support, (1, 2, 4), (50, 75), seed=0)
    np.testing.assert_allclose(item[is_one].mean(axis=0), [[0.25, 0.25], [0.5, 0.5], [1, 1]], atol=0.02)
    two = chance_passing(support, (1, 2), (40, 50), seed=0)
    np.testing.assert_allclose(two[~is_one].mean(axis=0), [[7 / 16, 1 / 16], [0.75, 0.25]], atol=0.02)
    np.testing.assert_array_equal(two, chance_passing(support, (1, 2), (40, 50), seed=0))
    empty = support * is_one[:, None]
    assert not chance_passing(empty, (1,), (0,), seed=0)[~is_one].any()
    assert not chance_passing(0 * support, (1,), (0,), seed=0).any()

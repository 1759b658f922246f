"""Agreement of raters against a hand-made table, brute force and textbook values."""

import itertools

import numpy as np
import pytest

from seremo_jax.data import agreement, targets
from seremo_jax.data.policies import RatingPolicies, TargetPolicies
from tests.data.test_targets import rating_table, utterance_table


def brute_force_alpha(counts, distance):
    """Observed over expected disagreement, pair by pair."""
    units = [np.repeat(np.arange(counts.shape[1]), row) for row in counts if row.sum() > 1]
    total = sum(len(unit) for unit in units)
    observed = sum(sum(distance(a, b) for a, b in itertools.permutations(u, 2)) / (len(u) - 1) for u in units) / total
    pooled = np.concatenate(units)
    expected = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (total * (total - 1))
    return 1 - observed / expected


@pytest.mark.parametrize("is_interval", [False, True])
def test_alpha_equals_brute_force(is_interval):
    counts = np.random.default_rng(0).integers(0, 3, (12, 4))
    values = [1.0, 2.0, 4.0, 7.0]
    distance = (lambda a, b: (values[a] - values[b]) ** 2) if is_interval else (lambda a, b: float(a != b))
    ours = agreement.alpha(counts, values if is_interval else None)
    assert ours == pytest.approx(brute_force_alpha(counts, distance))


def test_alpha_of_perfect_agreement_is_one_and_of_nothing_is_none():
    assert agreement.alpha(np.array([[3, 0], [0, 4]])) == 1
    assert agreement.alpha(np.array([[1, 0], [0, 1]])) is None
    assert agreement.alpha(np.array([[3, 0], [2, 0]])) is None


def test_entropy_in_bits():
    np.testing.assert_allclose(
        agreement.entropy_bits(np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])), [0, 1, 2]
    )


def test_description_by_split_and_class():
    rows = [("a", "sad", 1), ("a", "sad", 2), ("b", "sad", 5), ("b", "happy", 7), ("c", "happy", 4), ("c", "happy", 4)]
    utterances = utterance_table(["a", "b", "c"]).append_column("split", [["train", "train", "test"]])
    ratings = rating_table(rows)
    result = targets.build(utterances, ratings, TargetPolicies("iemocap4", attributes=()))
    described = agreement.describe(utterances, ratings, result, RatingPolicies())
    assert described["all"]["num_utterances"] == 3
    assert described["split train"]["num_utterances"] == 2
    assert described["class sad"] == {"num_utterances": 1, "mean_entropy_bits": 0.0}
    assert described["split train"]["mean_entropy_bits"] == pytest.approx(0.5)
    counts = np.array([[2, 0], [1, 1], [0, 2]])
    assert described["all"]["alpha"] == pytest.approx(brute_force_alpha(counts, lambda a, b: float(a != b)))
    assert described["all"]["alpha valence"] > 0.5
    assert "alpha activation" not in described["all"]

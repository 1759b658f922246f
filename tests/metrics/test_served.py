"""Scores that see each speaker: against loops over speakers and draws written out, and against known truth."""

import collections
import itertools

import numpy as np
import pytest
import scipy.stats

from seremo_jax.metrics import intervals, resampling, served
from seremo_jax.metrics.confusions import class_scores

NUM_SPEAKERS = 23


def histogram_of(values, scores=None):
    """Of speakers who all count, in one draw."""
    scores = values if scores is None else scores
    return served.histogram(scores[None], values[None], np.ones((1, *values.shape), bool))


@pytest.fixture(scope="module")
def values():
    """No two different values share a bin, so that their order is told; some are equal."""
    rng = np.random.default_rng(0)
    return (rng.choice(served.BINS, NUM_SPEAKERS) + rng.random()) / served.BINS


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_the_worst(values, share):
    left, total = share * NUM_SPEAKERS, 0.0
    for value in sorted(values):
        part = min(left, 1.0)
        total, left = total + part * value, left - part
    actual = served.tail_mean(histogram_of(values).sum(axis=0), share)
    assert actual == pytest.approx(total / (share * NUM_SPEAKERS))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9, 1.0])
def test_quantiles(values, share):
    actual = served.quantile(histogram_of(values).sum(axis=0), share)
    assert actual == pytest.approx(np.quantile(values, share, method="inverted_cdf"))


def test_gini(values):
    expected = sum(abs(x - y) for x in values for y in values) / (2 * NUM_SPEAKERS**2 * values.mean())
    assert served.gini(histogram_of(values).sum(axis=0)) == pytest.approx(expected)
    assert served.gini(histogram_of(np.full(9, 0.4)).sum(axis=0)) == pytest.approx(0, abs=1e-12)
    assert served.gini(histogram_of(np.zeros(9)).sum(axis=0)) == 0


def test_speakers_count_as_often_as_they_are_drawn(values):
    weights = np.random.default_rng(1).integers(0, 4, NUM_SPEAKERS)
    drawn, counts = np.repeat(values, weights), histogram_of(values)
    merged = np.einsum("u,u...->...", weights.astype(float), counts)
    for function in (served.gini, lambda c: served.tail_mean(c, 0.3), lambda c: served.quantile(c, 0.3)):
        assert function(merged) == pytest.approx(function(histogram_of(drawn).sum(axis=0)))


def test_who_does_not_count_adds_nothing():
    scores = np.asarray([[0.2, 0.9], [0.4, 1.0]])
    is_in = np.asarray([[True, False], [True, False]])
    counts = served.histogram(scores, scores, is_in)
    assert not counts[1].any()
    assert counts[0, 0].sum() == 1
    assert counts[0, 1].sum() == pytest.approx(0.3)


def test_equal_speakers():
    """Four utterances of one class that is recalled half of the time, and none at all."""
    support = np.asarray([[4, 0], [0, 0]])
    counts = served.equal_speakers(np.asarray([[0.5, 0.9]]), support, np.asarray([True, False]), 0, 40_000)
    shares = counts[0, 0, 0][[0, served.BINS // 4, served.BINS // 2, 3 * served.BINS // 4, served.BINS - 1]]
    np.testing.assert_allclose(shares, scipy.stats.binom.pmf(range(5), 4, 0.5), atol=0.01)
    assert not counts[1].any()


def test_halves_by_every_split():
    """Every way to cut three utterances of one class and two of another, the odd one on either side."""
    is_right = (np.asarray([1, 0, 1]), np.asarray([0, 1]))
    expected = collections.Counter()
    for size in (1, 2):
        for first in itertools.combinations(range(3), size):
            for second in itertools.combinations(range(2), 1):
                drawn = list(zip(is_right, (list(first), list(second)), strict=True))
                picked = np.mean([right[own].mean() for right, own in drawn])
                judged = np.mean([np.delete(right, own).mean() for right, own in drawn])
                expected[picked, judged] += 1 / 12
    support = np.asarray([[3, 2], [1, 0]])
    right = np.asarray([[2, 1], [1, 0]])[:, None]
    counts = served.half_histograms(right, support, np.ones(2, bool), 0, 40_000)
    for picked in {picked for picked, _ in expected}:
        place = min(int(picked * served.BINS + 1e-9), served.BINS - 1)
        own = {judged: p for (other, judged), p in expected.items() if other == picked}
        assert counts[0, 0, 0, place] == pytest.approx(sum(own.values()), abs=0.01)
        assert counts[0, 0, 1, place] == pytest.approx(sum(v * p for v, p in own.items()), abs=0.01)
    assert not counts[1].any(), "one utterance is in one half only"


def test_so_many_utterances_by_every_draw():
    kinds = [(0, True), (0, True), (0, False), (1, True), (1, False), (1, False), (2, True)]
    support, right = np.asarray([[3, 3, 1], [1, 0, 0]]), np.asarray([[2, 1, 1], [1, 0, 0]])[:, None]
    passing = served.matched_passing(right, support, (3, 7), (50, 60), 0, 20_000)
    for s, size in enumerate((3, 7)):
        uars = []
        for drawn in itertools.combinations(kinds, size):
            classes = {c for c, _ in drawn}
            uars.append(np.mean([np.mean([hit for c, hit in drawn if c == own]) for own in classes]))
        for t, threshold in enumerate((0.5, 0.6)):
            expected = np.mean(np.asarray(uars) > threshold + 1e-9)
            assert passing[0, 0, s, t] == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(20_000))
    assert not passing[1].any()


def test_noise_is_that_of_the_binomials():
    rng, recall, support = np.random.default_rng(0), np.asarray([0.8, 0.5, 0.3]), np.asarray([[5, 9, 2]])
    right = rng.binomial(support, recall, (40_000, 3))
    wide = np.broadcast_to(support, right.shape)
    estimates = served.noise_variance(right[:, None], wide, recall[None])
    uar = class_scores(right, wide, wide).uar
    assert estimates.mean() == pytest.approx(uar.var(), rel=0.03)
    single = served.noise_variance(np.asarray([[[1, 0]]]), np.asarray([[1, 0]]), np.asarray([[0.7, 0.2]]))
    assert single == pytest.approx(0.7 * 0.3)


def test_share_above_without_noise():
    rng = np.random.default_rng(0)
    true = rng.beta(9, 6, 100_000)
    seen = true + rng.normal(0, 0.1, len(true))
    sums = [np.asarray(part, float) for part in (len(true), seen.sum(), (seen**2).sum(), 0.01 * len(true))]
    actual = served.share_above(*sums, (50, 75))
    np.testing.assert_allclose(actual, scipy.stats.beta(9, 6).sf([0.5, 0.75]), atol=0.01)
    blind = served.share_above(*(sums[:3]), np.asarray(0.0), (50, 75))
    assert blind[1] > actual[1] + 0.02


def test_speakers_who_differ_by_noise_only():
    """Where the noise explains all, many speakers all have the mean; what few of them say is not as sure."""
    sums = np.asarray([[1.0], [0.6], [0.36 + 0.01], [0.01]])
    (many,) = served.share_above(*(10**8 * sums), (50, 75))
    np.testing.assert_allclose(many, [1, 0], atol=1e-6)
    (few,) = served.share_above(*(9 * sums), (50, 75))
    assert 0.9 < few[0] < 0.99
    assert 1e-3 < few[1] < 0.1


def test_the_variance_is_what_is_expected_of_its_positive_part():
    """Against the mean over draws: 20 speakers of mean 0.6, an observed variance of 0.01, and one of noise of 0.012."""
    number, mean, observed, noise = 20, 0.6, 0.01, 0.012
    drawn = observed + observed * np.sqrt(2 / 19) * np.random.default_rng(0).normal(size=10**6) - noise
    strength = mean * (1 - mean) / np.maximum(drawn, 0).mean() - 1
    expected = scipy.stats.beta(mean * strength, (1 - mean) * strength).sf([0.5, 0.75])
    sums = (number, number * mean, 19 * observed + number * mean**2, number * noise)
    np.testing.assert_allclose(served.share_above(*map(np.asarray, sums), (50, 75)), expected, atol=2e-4)


NUM_CORPORA, PRIOR, SIZE = 200, np.asarray([0.4, 0.3, 0.2, 0.1]), 40
EASE, SPREAD = np.asarray([0.9, 0.5, 0.1, -0.2]), 0.6  # log-odds of being right, and their spread over speakers


def corpus(rng, number):
    """True recalls, supports and right answers of so many speakers."""
    recall = 1 / (1 + np.exp(-(EASE + SPREAD * rng.normal(size=(number, 1)))))
    support = rng.multinomial(SIZE, PRIOR, number)
    return recall, support, rng.binomial(support, recall)


def true_uar(recall, support):
    has_class = support > 0
    return np.where(has_class, recall, 0).sum(axis=1) / has_class.sum(axis=1)


@pytest.mark.statistical
def test_known_truth_is_found_and_covered():
    """200 corpora of 60 speakers of 40 utterances each: estimates are the truth of very many speakers, or near it."""
    rng, number = np.random.default_rng(10**6), 40_000
    recall, support, right = corpus(rng, number)
    true, seen = true_uar(recall, support), class_scores(right, support, support).uar
    everyone = np.ones(number, bool)
    halves = served.half_histograms(right[:, None], support, everyone, 0, 2).sum(axis=(0, 1))
    known = {f"true {t}": 100 * np.mean(true > t / 100) for t in (50, 75)}
    known |= {"worst": np.sort(seen)[: number // 5].mean(), "halves": served.tail_mean(halves, 0.2)}
    ranked = np.sort(seen)
    known["gini"] = (2 * np.arange(1, number + 1) - number - 1) @ ranked / (number * ranked.sum())
    covered, estimates = collections.Counter(), collections.defaultdict(list)
    for i in range(NUM_CORPORA):
        _, support, right = corpus(np.random.default_rng(20_000 + i), 60)
        sums = sums_of(support, right, i)
        resampled = resampling.bootstrap(sums, scores_of, 300, i)
        for name, value in scores_of({key: part.sum(axis=0)[None] for key, part in sums.items()}).items():
            low, high = intervals.interval(resampled[name], 12 if name in ("worst", "halves") else 60)
            covered[name] += low <= known[name] <= high
            estimates[name].append(value[0])
    shares = {name: number / NUM_CORPORA for name, number in covered.items()}
    biases = {name: (np.mean(part) - known[name]) / np.std(part) for name, part in estimates.items()}
    for name, share in shares.items():
        assert 0.91 <= share <= 0.98, (shares, biases)
        assert abs(biases[name]) < 0.4, (shares, biases)


def sums_of(support, right, seed):
    everyone, wide = np.ones(len(support), bool), right[:, None]
    uar = class_scores(right, support, support).uar
    recall = right.sum(axis=0) / support.sum(axis=0)
    noise = served.noise_variance(wide, support, recall[None])[:, 0]
    return {
        "speakers": histogram_of(uar),
        "halves": served.half_histograms(wide, support, everyone, seed)[:, 0],
        "true": np.stack([np.ones_like(uar), uar, uar**2, noise], axis=1),
    }


def scores_of(sums):
    share = served.share_above(*np.moveaxis(sums["true"], 1, 0), (50, 75))
    return {
        "true 50": 100 * share[:, 0],
        "true 75": 100 * share[:, 1],
        "worst": served.tail_mean(sums["speakers"], 0.2),
        "halves": served.tail_mean(sums["halves"], 0.2),
        "gini": served.gini(sums["speakers"]),
    }

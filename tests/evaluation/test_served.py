"""Scores that see each speaker, from records: loops over speakers and draws of another generator."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from seremo_jax.evaluation import served, strata
from seremo_jax.metrics.catalogue import entries_by_metric, metric
from seremo_jax.metrics.served import BINS
from tests.evaluation.test_scoring import NUM_CLASSES, parts, score

__all__ = ["parts"]

SIZES = (4, 60)
BIN = 1 / BINS
"""Speakers whose UAR is closer than this may be taken in either order."""


@pytest.fixture(scope="module")
def found(parts):
    """Of one member: entries by metric, and each known speaker's consensus and whether it is right."""
    predictions, targets, table = parts
    one = predictions._replace(attributes=predictions.attributes[:1], distribution=predictions.distribution[:1])
    members = [{"layer": 0, "seed": 0, "class_target": "votes"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served, "SIZES", SIZES)  # half of these few speakers have four utterances
        (record, *_) = score(one, targets, table, members, num_permutations=0)
    names, y = np.asarray(table["speaker"].to_pylist()), targets.consensus_index
    is_right = predictions.distribution[0].argmax(axis=1) == y
    rows = [np.flatnonzero((names == name) & (y >= 0)) for name in sorted(set(names) - {"unknown"})]
    return entries_by_metric(record.metrics), [(y[own], is_right[own]) for own in rows if len(own)]


def uar_of(y, is_right):
    return np.mean([is_right[y == c].mean() for c in np.unique(y)])


def test_the_worst_quantiles_and_gini(found):
    entries, speakers = found
    uar = np.sort([uar_of(*speaker) for speaker in speakers])
    number, fifth = len(uar), len(uar) / 5
    worst = (uar[: int(fifth)].sum() + (fifth - int(fifth)) * uar[int(fifth)]) / fifth
    apart = sum(abs(a - b) for a in uar for b in uar) / (2 * number**2 * uar.mean())
    assert entries[metric("worst_speakers", percent=20)]["value"] == pytest.approx(worst, abs=BIN)
    assert entries[metric("gini")]["value"] == pytest.approx(apart, abs=BIN)
    for percent in served.QUANTILES:
        expected = np.quantile(uar, percent / 100, method="inverted_cdf")
        assert entries[metric("speaker_quantile", percent=percent)]["value"] == pytest.approx(expected, abs=BIN)
    assert {entry["count"] for key, entry in entries.items() if key.kind in ("gini", "worst_speakers")} == {number}


def test_the_true_share_is_the_formula(found):
    """METHOD.md, section 8.13, speaker by speaker."""
    entries, speakers = found
    everything = [np.concatenate(part) for part in zip(*speakers, strict=True)]
    recall = {c: everything[1][everything[0] == c].mean() for c in np.unique(everything[0])}
    uar, noise = [], []
    for y, is_right in speakers:
        spread = []
        for c in np.unique(y):
            r, n = is_right[y == c].mean(), (y == c).sum()
            spread.append(r * (1 - r) / (n - 1) if n > 1 else recall[c] * (1 - recall[c]))
        uar.append(uar_of(y, is_right))
        noise.append(np.sum(spread) / len(spread) ** 2)
    observed, number = np.var(uar, ddof=1), len(uar)
    error = scipy.stats.norm(observed - np.mean(noise), observed * np.sqrt(2 / (number - 1)))
    mean, variance = np.mean(uar), error.expect(lambda v: v, lb=0)
    strength = mean * (1 - mean) / variance - 1
    for threshold in (50, 75):
        expected = 100 * scipy.stats.beta(mean * strength, (1 - mean) * strength).sf(threshold / 100)
        entry = entries[metric("pa_uar_true", threshold=threshold)]
        assert entry["value"] == pytest.approx(expected, abs=1e-6)
        assert entry["low"] <= entry["value"] <= entry["high"]


def test_shares_at_one_size(found):
    entries, speakers = found
    rng = np.random.default_rng(1)
    large = [speaker for speaker in speakers if len(speaker[0]) >= 4]
    shares = []
    for _ in range(400):
        drawn = [rng.choice(len(y), 4, replace=False) for y, _ in large]
        uar = [uar_of(y[own], is_right[own]) for (y, is_right), own in zip(large, drawn, strict=True)]
        shares.append(100 * np.mean(np.asarray(uar) > 0.5 + 1e-9))
    entry = entries[metric("pa_uar_matched", threshold=50, size=4)]
    assert entry["count"] == len(large) >= len(speakers) / 2
    # Ours are 50 draws, these 400.
    assert entry["value"] == pytest.approx(np.mean(shares), abs=4 * np.std(shares) * np.sqrt(1 / 50 + 1 / 400))
    assert {key.field("size") for key in entries if key.kind == "pa_uar_matched"} == {4}, "few have 60"


def test_the_worst_picked_on_other_utterances(found):
    entries, speakers = found
    rng, pairs = np.random.default_rng(1), []
    for _ in range(400):
        for y, is_right in speakers:
            first = np.zeros(len(y), bool)
            for c in np.unique(y):
                own = rng.permutation(np.flatnonzero(y == c))
                first[own[: (len(own) + rng.integers(0, 2)) // 2]] = True
            if first.any() and not first.all():
                pairs.append((uar_of(y[first], is_right[first]), uar_of(y[~first], is_right[~first])))
    picked, judged = np.asarray(pairs).T
    # Speakers of one bin, many of them here, are taken in part together.
    order = np.floor(picked * BINS + 1e-9)
    left, total = len(pairs) / 5, 0.0
    for value in np.unique(order):
        here = judged[order == value]
        total, left = total + min(len(here), left) * here.mean(), max(left - len(here), 0)
    entry = entries[metric("worst_speakers_by_halves", percent=20)]
    assert entry["value"] == pytest.approx(total / (len(pairs) / 5), abs=0.04)
    assert entry["value"] > entries[metric("worst_speakers", percent=20)]["value"]


def test_equal_speakers_are_less_unequal(found):
    entries, speakers = found
    everything = [np.concatenate(part) for part in zip(*speakers, strict=True)]
    recall = {c: everything[1][everything[0] == c].mean() for c in np.unique(everything[0])}
    rng, ginis = np.random.default_rng(1), []
    for _ in range(300):
        uar = [uar_of(y, rng.random(len(y)) < [recall[c] for c in y]) for y, _ in speakers]
        ginis.append(sum(abs(a - b) for a in uar for b in uar) / (2 * len(uar) ** 2 * np.mean(uar)))
    entry = entries[metric("gini_if_equal")]
    assert entry["value"] == pytest.approx(np.mean(ginis), abs=0.012)
    assert entries[metric("worst_speakers_if_equal", percent=20)]["value"] < np.mean([uar_of(*s) for s in speakers])


@pytest.mark.parametrize("group", ["all", "female"])
def test_strata_and_raters_served(parts, group):
    predictions, targets, table = parts
    rng = np.random.default_rng(0)
    seconds = rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], len(targets.ids))
    # Exactly 1 bit: raters in two halves.
    distribution = targets.distribution.copy()
    distribution[20:40] = np.eye(NUM_CLASSES)[0] / 2 + np.eye(NUM_CLASSES)[1] / 2
    targets = dataclasses.replace(targets, distribution=distribution)
    table = table.append_column("duration_s", pa.array(seconds))
    records = {record.group: record for record in score(predictions, targets, table, num_permutations=0)
               if record.system == "votes"}  # fmt: skip
    entries = entries_by_metric(records[group].metrics)
    is_in = np.asarray([group in ("all", gender) for gender in table["gender"].to_pylist()])
    y, bits = targets.consensus_index, scipy.stats.entropy(targets.distribution, axis=1, base=2)
    rows = {
        ("entropy", "raters agree"): bits < 1e-6, ("entropy", "under 1 bit"): (bits >= 1e-6) & (bits < 1),
        ("entropy", "1 bit or more"): bits >= 1, ("duration", "under 2 s"): seconds < 2,
        ("duration", "2 to 4 s"): (seconds >= 2) & (seconds <= 4), ("duration", "over 4 s"): seconds > 4,
    }  # fmt: skip
    assert tuple(rows) == strata.NAMES
    for place, ((by, words), own) in enumerate(rows.items()):
        own = own & is_in & (y >= 0)
        entry = entries[metric("stratum_uar", by=by, place=place, stratum=words)]
        expected = [uar_of(y[own], q[own].argmax(axis=1) == y[own]) for q in predictions.distribution[:2]]
        np.testing.assert_allclose(entry["members"], expected)
        assert entry["count"] == own.sum()
    voted = is_in & targets.has_votes
    for n in (1, 2, 3):
        top = np.argsort(-predictions.distribution[:2, voted], axis=2, kind="stable")[:, :, :n]
        mass = [np.take_along_axis(targets.distribution[voted], own, axis=1).sum(axis=1).mean() for own in top]
        entry = entries[metric("raters_served", n)]
        np.testing.assert_allclose(entry["members"], 100 * np.asarray(mass), rtol=1e-5)
        assert entry["chance"] == pytest.approx(100 * n / NUM_CLASSES)

"""Raters as rows of a split: every leave-one-out choice with other people's code, groups, absence, worth."""

import dataclasses
import random

import numpy as np
import pytest
import sklearn.metrics

from seremo_jax.data.targets import plurality
from seremo_jax.evaluation import raters
from seremo_jax.metrics.catalogue import entries_by_metric, metric
from tests.evaluation.test_scoring import CLASSES, parts, score

__all__ = ["parts"]


@pytest.fixture(scope="module")
def found(parts):
    """Group -> what the records say of raters."""
    records = score(*parts, num_permutations=0)
    return {record.group: record.states["raters"] for record in records if "raters" in record.states}


def one_rater(found, group):
    (row,) = (row for row in found[group]["rows"] if row["others"] == "all")
    return entries_by_metric(row["metrics"])


@pytest.mark.parametrize("group", ["all", "female", "male"])
def test_one_rater_by_every_choice(parts, found, group):
    _, targets, table = parts
    genders = np.asarray(table["gender"].to_pylist())
    rows = []
    for i in np.flatnonzero((genders == group) | (group == "all")):
        for answer in np.flatnonzero(targets.votes[i]):
            rest = targets.votes[i : i + 1].copy()
            rest[0, answer] -= 1
            target = plurality(rest, np.zeros(1))[0][0]
            if target >= 0:
                rows.append((target, answer, targets.votes[i, answer] / targets.votes[i].sum()))
    target, answer, weight = map(np.asarray, zip(*rows, strict=True))
    entries, pair = one_rater(found, group), {"y_true": target, "y_pred": answer, "sample_weight": weight}
    expected = {
        metric("uar"): sklearn.metrics.balanced_accuracy_score(target, answer, sample_weight=weight),
        metric("macro_f1", classes="present"): sklearn.metrics.f1_score(
            **pair, average="macro", labels=np.unique(target)
        ),
        metric("accuracy"): sklearn.metrics.accuracy_score(**pair),
    }
    for c, name in enumerate(CLASSES):
        expected[metric("recall", label=name)] = sklearn.metrics.recall_score(**pair, labels=[c], average="macro")
    for key, value in expected.items():
        assert entries[key]["value"] == pytest.approx(value, abs=1e-9), key.name
        assert entries[key]["low"] <= value <= entries[key]["high"]


def test_share_of_speakers_of_drawn_raters(parts, found):
    """Raters drawn with another generator; loops over speakers."""
    _, targets, table = parts
    names, rng = np.asarray(table["speaker"].to_pylist()), random.Random(1)
    shares = []
    for _ in range(300):
        passing = []
        for speaker in sorted(set(names) - {"unknown"}):
            pairs = []
            for row in targets.votes[names == speaker].tolist():
                if sum(row) < 2:
                    continue
                answer = rng.choices(range(len(row)), row)[0]
                row[answer] -= 1
                pairs += [(row.index(max(row)), answer)] if row.count(max(row)) == 1 else []
            own = [[a == t for t, a in pairs if t == c] for c in {t for t, _ in pairs}]
            passing.append(np.mean([np.mean(hits) for hits in own]) > 0.5 if own else False)
        shares.append(100 * np.mean(passing))
    entry = one_rater(found, "all")[metric("pa_uar", threshold=50, speakers="all")]
    assert entry["value"] == pytest.approx(np.mean(shares), abs=4 * np.std(shares) / np.sqrt(300))
    assert entry["count"] == len(set(names)) - 1


def test_gap_is_that_of_the_groups(found):
    gap, women, men = (one_rater(found, group) for group in (raters.GAP_GROUP, "female", "male"))
    key = metric("uar")
    assert gap[key]["value"] == pytest.approx(women[key]["value"] - men[key]["value"])
    assert gap[key]["low"] < gap[key]["value"] < gap[key]["high"]


def test_every_row_says_who_and_against_whom(found):
    rows = found["all"]["rows"]
    about = [(row["raters"], row["others"]) for row in rows]
    # Nine in ten utterances have five votes: three are the target, and panels are of one and two.
    assert about == [(1, "all"), ("half", "half"), (1, 3), (2, 3)]
    half = entries_by_metric(rows[1]["metrics"])
    assert {key.kind for key in half} == {"class_ccc", "class_ccc_mean"}
    assert found["all"]["curve"]["value"][50] == pytest.approx(
        one_rater(found, "all")[metric("pa_uar", threshold=50, speakers="all")]["value"], abs=1e-3
    )


def test_systems_are_worth_raters(parts):
    """A system that says what one rater said is worth about one; one that guesses, none; the whole vote, all."""
    predictions, targets, table = parts
    rng = np.random.default_rng(0)
    votes = targets.votes
    drawn = np.stack([rng.multinomial(1, row / max(row.sum(), 1)) if row.sum() else np.eye(6)[0] for row in votes])
    said = {"rater": drawn, "guess": np.eye(6)[rng.integers(0, 6, len(votes))], "all": targets.distribution}
    distribution = np.stack([np.where(part.sum(1, keepdims=True) > 0, part, 1 / 6) for part in said.values()])
    members = [{"layer": layer, "seed": 0, "class_target": "votes"} for layer in range(3)]
    told = predictions._replace(attributes=predictions.attributes[:3], distribution=distribution.astype(np.float32))
    records = [record for record in score(told, targets, table, members, num_permutations=0) if record.group == "all"]
    size = metric("raters_worth", most=2)
    entries = [entries_by_metric(record.metrics) for record in records]
    values = [own[size]["value"] for own in entries]
    assert values[1] < 0.4 < 0.7 < values[0] <= values[2] == 2
    assert all(own[size]["low"] <= own[size]["value"] <= own[size]["high"] for own in entries)


def test_where_there_is_nothing_to_say(parts):
    predictions, targets, table = parts
    single = dataclasses.replace(targets, votes=np.eye(6, dtype=np.int32)[targets.votes.argmax(1)])
    parted = dataclasses.replace(targets, votes=targets.votes / 2)
    for changed, word in ((single, "two raters"), (parted, "parts of votes")):
        records = score(predictions, changed, table, num_permutations=0)
        assert word in records[0].states["raters"]["absent"]
        assert not any(key.startswith("worth in raters") for record in records for key in record.metrics)
    assert "heard" in raters.absent_for(targets.votes, "noise_white_10")


def test_votes_outside_the_class_set_are_answers_and_targets(parts):
    """A rater who chose another word is never right, and others who did so leave no target."""
    predictions, targets, table = parts
    changed = dataclasses.replace(targets, votes_outside=np.full(len(targets.votes), 9))
    records = score(predictions, changed, table, num_permutations=0)
    (row,) = (row for row in records[0].states["raters"]["rows"] if row["others"] == "all")
    assert not row["metrics"]["UAR"]["defined"]

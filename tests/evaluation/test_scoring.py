import dataclasses
import itertools
import json
import statistics

import audmetric
import jax
import numpy as np
import pyarrow as pa
import pytest
import scipy.cluster.hierarchy
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import to_json
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.core.schema import Predictions
from seremo_jax.data.targets import Targets, plurality, vote_distribution
from seremo_jax.evaluation import scoring
from seremo_jax.evaluation.alignment import align
from seremo_jax.evaluation.states import member_states
from seremo_jax.metrics import catalogue
from seremo_jax.metrics.passing import chance_passing

NUM_ROWS, NUM_CLASSES = 160, 6
CLASSES = vocab.CLASS_SETS["crema6"]
SEEN_ELSEWHERE = ("served", "strata")
"""Tables whose metrics are checked in test_served.py."""
MEMBERS = [{"layer": 2, "seed": seed, "class_target": kind} for kind in vocab.CLASS_TARGETS for seed in (0, 1)]
# Compiled once for all tests; evaluate does the same.
STATES = jax.jit(member_states, static_argnames=("num_cells", "nbest"))


def score(predictions, targets, table, members=MEMBERS, protocol=(("corpus", "made"),), **settings):
    section = dataclasses.replace(EvalConfig(), **({"num_resamples": 40} | settings))
    aligned = align(predictions, targets, table, num_members=len(members), split="test", group_by=section.group_by)
    request = scoring.ScoreRequest(ensemble.systems(members), "test", section, dict(protocol))
    return scoring.score(aligned, request, STATES)


@pytest.fixture(scope="module")
def parts():
    """Nine known speakers and some utterances of unknown ones; valence and activation are rated, dominance is not."""
    rng = np.random.default_rng(0)
    ids = [f"u{i:03}" for i in range(NUM_ROWS)]
    speaker = np.minimum(rng.geometric(0.15, NUM_ROWS) - 1, 8)
    speakers = [f"s{s}" if i % 15 else "unknown" for i, s in enumerate(speaker)]
    genders = [("female", "male")[int(name[1:]) % 2] if name != "unknown" else name for name in speakers]
    table = pa.table({"id": ids, "corpus": ["x"] * NUM_ROWS, "split": ["test"] * NUM_ROWS, "speaker": speakers,
                      "gender": genders})  # fmt: skip
    shares = rng.dirichlet(np.full(NUM_CLASSES, 0.6), NUM_ROWS)
    votes = np.stack([rng.multinomial(5, share) for share in shares])
    votes[7] = 0
    other = np.where(np.arange(NUM_ROWS) % 20 == 3, 6, 0)
    index, consensus, _ = plurality(votes, other)
    distribution, has_votes = vote_distribution(votes)
    attributes = rng.normal(size=(NUM_ROWS, 3)).astype(np.float32)
    has_attribute = np.stack([rng.random(NUM_ROWS) < 0.9, np.ones(NUM_ROWS, bool), np.zeros(NUM_ROWS, bool)], axis=1)
    targets = Targets(
        np.asarray(ids, object), votes.astype(np.int32), distribution, has_votes, index, consensus,
        consensus.sum(1) > 0, attributes, has_attribute, 0 * attributes, has_attribute, CLASSES, vocab.ATTRIBUTES,
        {}, {},
    )  # fmt: skip
    q = 0.7 * shares + 0.3 * rng.dirichlet(np.full(NUM_CLASSES, 0.5), (4, NUM_ROWS))
    predicted = attributes + rng.normal(size=(4, NUM_ROWS, 3))
    predicted[:, :, 2] = np.nan
    return Predictions(ids, predicted.astype(np.float32), q.astype(np.float32)), targets, table


@pytest.fixture(scope="module")
def records(parts):
    return {(record.system, record.group): record for record in score(*parts)}


def expected_metrics(predictions, targets, table, is_in, member):
    """Everything again, with other people's code and plain loops."""
    q, p = predictions.distribution[member].astype(float), targets.distribution.astype(float)
    y, has_votes = targets.consensus_index, targets.has_votes & is_in
    is_scored = (y >= 0) & is_in
    order = np.argsort(-q, axis=1, kind="stable")
    expected = {}
    rights = {n: (order[:, :n] == y[:, None]).any(axis=1) for n in (1, 2, 3)}
    speakers = np.asarray(table["speaker"].to_pylist())
    for n, right in rights.items():
        prefix = "" if n == 1 else f"{n}-best "
        replaced = np.where(right, y, order[:, 0])
        pair = y[is_scored], replaced[is_scored]
        expected[f"{prefix}UAR"] = sklearn.metrics.recall_score(*pair, average="macro", labels=np.unique(pair[0]))
        expected[f"{prefix}macro-F1 (present)"] = sklearn.metrics.f1_score(
            *pair, average="macro", labels=np.unique(pair[0])
        )
        expected[f"{prefix}micro-F1"] = sklearn.metrics.f1_score(*pair, average="micro")
        if n == 1:
            for score_, name_ in (("recall", "recall"), ("precision", "precision"), ("f1", "F1")):
                function = getattr(sklearn.metrics, f"{score_}_score")
                values = function(*pair, average=None, labels=range(NUM_CLASSES), zero_division=0)
                expected |= {f"{name_} {word}": value for word, value in zip(CLASSES, values, strict=True)}
            expected["accuracy"] = sklearn.metrics.accuracy_score(*pair)
            expected["weighted-F1"] = sklearn.metrics.f1_score(*pair, average="weighted")
        for name, least in (("all", (1, 1)), ("min10c2", (10, 2))):
            uars = []
            for s in sorted(set(speakers) - {"unknown"}):
                rows = is_scored & (speakers == s)
                if rows.sum() >= least[0] and len(set(y[rows])) >= least[1]:
                    uars.append(np.mean([right[rows & (y == c)].mean() for c in set(y[rows])]))
            for t in (50, 75) if uars else ():
                expected[f"paUAR-{t} ({n}-best, {name})"] = 100 * np.mean([uar > t / 100 + 1e-9 for uar in uars])
    for a, name in enumerate(("valence", "activation")):
        rows = targets.has_attribute[:, a] & is_in
        both = targets.attributes[rows, a].astype(float), predictions.attributes[member, rows, a].astype(float)
        expected[f"CCC {name}"] = audmetric.concordance_cc(*both)
        expected[f"Pearson {name}"] = scipy.stats.pearsonr(*both).statistic
        expected[f"RMSE {name}"] = sklearn.metrics.root_mean_squared_error(*both)
        expected[f"MAE {name}"] = audmetric.mean_absolute_error(*both)
    expected["CCC mean"] = (expected["CCC valence"] + expected["CCC activation"]) / 2
    for c, name in enumerate(CLASSES):
        expected[f"class CCC {name}"] = audmetric.concordance_cc(p[has_votes, c], q[has_votes, c])
    expected["class CCC mean"] = np.mean([expected[f"class CCC {name}"] for name in CLASSES])
    jsd = scipy.spatial.distance.jensenshannon(p[has_votes], q[has_votes], base=2, axis=1) ** 2
    expected["JSD"] = jsd.mean()
    ratio = np.where(p > 0, p, 1) / np.where(p > 0, q, 1)
    expected["KL"] = (p * np.log(ratio)).sum(axis=1)[has_votes].mean()
    expected["total variation"] = scipy.spatial.distance.cdist(p, q, "cityblock").diagonal()[has_votes].mean() / 2
    entropies = scipy.stats.entropy(q, axis=1)[has_votes], scipy.stats.entropy(p[has_votes], axis=1)
    expected["entropy correlation"] = scipy.stats.pearsonr(*entropies).statistic
    expected |= expected_by_distance(targets, q, y, is_scored) | expected_by_panels(targets, order[:, 0], is_in)
    flags = p[has_votes] > 1 / 6 + 1e-7, q[has_votes] > 1 / 6
    expected["multi-label macro-F1 (1/6)"] = sklearn.metrics.f1_score(*flags, average="macro")
    return expected


def expected_by_panels(targets, best, is_in):
    """UAR against three raters, and the panel of one or two who have the same, by every choice of the raters."""
    rows = []
    for i in np.flatnonzero(is_in & targets.has_votes & (targets.votes.sum(axis=1) >= 5)):
        raters = np.repeat(np.arange(NUM_CLASSES), targets.votes[i]).tolist()
        for others in itertools.combinations(range(5), 3):
            target = statistics.multimode([raters[j] for j in others])
            if len(target) == 1:
                left = [raters[j] for j in range(5) if j not in others]
                # Two raters who do not agree are as likely to give the answer of either: one drawn of the two.
                rows += [(target[0], best[i], answer) for answer in left]
    target, own, answer = np.asarray(rows).T
    uar, one = (sklearn.metrics.balanced_accuracy_score(target, said) for said in (own, answer))
    worth = 2 if uar > one else np.clip((uar - 1 / 6) / (one - 1 / 6), 0, 1)
    return {"UAR (against 3 raters)": uar, "worth in raters (up to 2)": worth}


def expected_by_distance(targets, q, y, is_scored):
    """Cost and merged UAR once more, centroids and pairs of raters by loops."""
    is_rated = targets.has_attribute[:, :2].all(axis=1)
    centroids = [targets.attributes[is_rated & (targets.consensus_index == c), :2].astype(float).mean(axis=0)
                 for c in range(NUM_CLASSES)]  # fmt: skip
    distance = scipy.spatial.distance.cdist(centroids, centroids)
    distance /= distance.max()
    pairs = np.zeros((NUM_CLASSES, NUM_CLASSES))
    for votes in targets.votes:
        raters = np.repeat(np.arange(NUM_CLASSES), votes)
        for i, a in enumerate(raters):
            for j, b in enumerate(raters):
                pairs[a, b] += i != j
    unlike = 1 - np.minimum(pairs / np.sqrt(np.outer(pairs.diagonal(), pairs.diagonal())), 1)
    tree = scipy.cluster.hierarchy.average(scipy.spatial.distance.squareform(unlike, checks=False))
    group = scipy.cluster.hierarchy.fcluster(tree, 3, "maxclust")
    best = q.argmax(axis=1)
    merged = sklearn.metrics.balanced_accuracy_score(group[y[is_scored]], group[best[is_scored]])
    return {
        "expected cost (attributes)": distance[y[is_scored], best[is_scored]].mean(),
        "merged UAR (3 groups)": merged,
    }


@pytest.mark.stack
@pytest.mark.parametrize("group", ["all", "female", "male"])
def test_every_metric_agrees_with_other_code(parts, records, group):
    predictions, targets, table = parts
    is_in = np.asarray([group in ("all", gender) for gender in table["gender"].to_pylist()])
    for system, members in (("votes", (0, 1)), ("consensus", (2, 3))):
        actual = {name: entry for name, entry in records[system, group].metrics.items()
                  if catalogue.KINDS[entry["metric"]["kind"]].table not in SEEN_ELSEWHERE}  # fmt: skip
        expected = [expected_metrics(predictions, targets, table, is_in, member) for member in members]
        assert actual.keys() == expected[0].keys()
        for name, entry in actual.items():
            values = [item[name] for item in expected]
            np.testing.assert_allclose(entry["members"], values, rtol=1e-6, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(entry["value"], np.mean(values), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(entry["sd"], np.std(values, ddof=1), rtol=1e-4, atol=1e-6)
            assert entry["low"] <= entry["high"]
            assert entry["low_members"] <= entry["high_members"]
            assert entry["defined"]
        is_scored = (targets.consensus_index >= 0) & is_in
        confusion = [
            sklearn.metrics.confusion_matrix(targets.consensus_index[is_scored], q, labels=range(NUM_CLASSES))
            for q in predictions.distribution[list(members)][:, is_scored].argmax(axis=2)
        ]
        assert records[system, group].states["confusion_members"] == [item.tolist() for item in confusion]


def test_records_say_what_they_are_of(parts, records):
    assert list(records) == [
        (system, group)
        for system in ("votes", "consensus")
        for group in ("all", "female", "male", "unknown", "gap:female-male", "worst:gender", "ratio:gender")
    ]
    whole = records["votes", "all"]
    assert (whole.layer, whole.seeds, whole.split, whole.condition) == (2, (0, 1), "test", "clean")
    assert whole.protocol == {"corpus": "made"}
    targets = parts[1]
    assert (whole.num_utterances, whole.num_scored) == (NUM_ROWS, (targets.consensus_index >= 0).sum())
    assert whole.num_scored < NUM_ROWS
    for name in ("num_utterances", "num_scored", "num_speakers"):
        values = {group: getattr(records["votes", group], name) for _, group in list(records)[:5]}
        assert values["all"] == values["female"] + values["male"] + values["unknown"]
        assert values["gap:female-male"] == values["female"] + values["male"]
    metrics = whole.metrics
    assert metrics["UAR"]["count"] == 6
    assert metrics["accuracy"]["count"] == whole.num_scored
    assert metrics["JSD"]["count"] == targets.has_votes.sum()
    assert metrics["CCC valence"]["count"] == targets.has_attribute[:, 0].sum()
    assert metrics["CCC mean"]["count"] == 2
    assert metrics["paUAR-75 (1-best, all)"]["count"] == whole.num_speakers > 0
    assert 0 < metrics["paUAR-75 (1-best, min10c2)"]["count"] < whole.num_speakers
    assert [metrics[f"{n}UAR"]["chance"] for n in ("", "2-best ", "3-best ")] == [1 / 6, 2 / 6, 3 / 6]
    chance = [metrics[f"paUAR-50 ({n}-best, all)"]["chance"] for n in (1, 2, 3)]
    assert 0 < chance[0] < chance[1] < chance[2] < 100


def test_speakers_and_states(parts, records):
    predictions, targets, table = parts
    whole = records["votes", "all"]
    speakers = np.asarray(table["speaker"].to_pylist())
    assert len(whole.speakers) == whole.num_speakers
    assert not records["votes", "female"].speakers
    for entry in whole.speakers:
        rows = (speakers == entry["speaker"]) & (targets.consensus_index >= 0)
        y = targets.consensus_index[rows]
        assert (entry["num_scored"], entry["num_classes"]) == (len(y), len(set(y)))
        assert entry["gender"] == ("female", "male")[int(entry["speaker"][1:]) % 2]
        uar = [
            sklearn.metrics.recall_score(
                y, predictions.distribution[e, rows].argmax(1), average="macro", labels=np.unique(y)
            )
            for e in (0, 1)
        ]
        assert entry["uar"][0] == pytest.approx(np.mean(uar))
        assert entry["uar"] == sorted(entry["uar"])
        assert entry["support"] == np.bincount(y, minlength=NUM_CLASSES).tolist()
        rated = (speakers == entry["speaker"]) & targets.has_attribute[:, 0]
        valence = predictions.attributes[:2, rated, 0]
        ccc = [audmetric.concordance_cc(targets.attributes[rated, 0], item) for item in valence]
        assert entry["ccc"] == [pytest.approx(np.mean(ccc), abs=1e-6), pytest.approx(entry["ccc"][1]), None]
    is_scored = targets.consensus_index >= 0
    confusion = [
        sklearn.metrics.confusion_matrix(targets.consensus_index[is_scored], q[is_scored].argmax(1), labels=range(6))
        for q in predictions.distribution[:2]
    ]
    assert whole.states["confusion_members"] == [item.tolist() for item in confusion]
    assert whole.states["confusion"] == sum(confusion).tolist()
    assert whole.states["confusion_nbest"]["1"] == sum(confusion).tolist()
    order = np.argsort(-predictions.distribution[:2], axis=2, kind="stable")[:, is_scored]
    y = np.stack([targets.consensus_index[is_scored]] * 2)
    replaced = np.where((order[:, :, :2] == y[:, :, None]).any(axis=2), y, order[:, :, 0])
    two_best = sklearn.metrics.confusion_matrix(y.ravel(), replaced.ravel(), labels=range(6))
    assert whole.states["confusion_nbest"]["2"] == two_best.tolist()
    rows = targets.has_attribute[:, 0]
    assert whole.states["moments"]["num_rows"][0] == [rows.sum(), NUM_ROWS, 0]
    actual = np.asarray(whole.states["moments"]["mean_prediction"])[:, 0]
    np.testing.assert_allclose(actual, predictions.attributes[:2, rows, 0].mean(axis=1), rtol=1e-5)


def test_the_gap_is_paired(records):
    for name, entry in records["votes", "gap:female-male"].metrics.items():
        female, male = (records["votes", group].metrics[name] for group in ("female", "male"))
        np.testing.assert_allclose(entry["value"], female["value"] - male["value"], atol=1e-12)
        np.testing.assert_allclose(entry["members"], np.subtract(female["members"], male["members"]), atol=1e-12)
        assert entry["values"] == {"female": female["value"], "male": male["value"]}
        assert entry["counts"] == {"female": female["count"], "male": male["count"]}
        assert entry["low"] <= entry["high"]


def test_the_worst_group_and_its_ratio(records):
    for system in ("votes", "consensus"):
        for name, entry in records[system, "worst:gender"].metrics.items():
            sides = {group: records[system, group].metrics[name] for group in ("female", "male")}
            values = {group: side["value"] for group, side in sides.items()}
            is_error = name.startswith(("JSD", "KL", "RMSE", "MAE", "total", "expected"))
            worst = (max if is_error else min)(values, key=values.get)
            assert (entry["groups"], entry["value"]) == ([worst], values[worst])
            assert entry["members"] == sides[worst]["members"]
            ratio = records[system, "ratio:gender"].metrics[name]
            if ratio["defined"]:
                members = sorted((side["members"] for side in sides.values()), key=np.mean)
                np.testing.assert_allclose(ratio["members"], np.divide(*members))
                assert ratio["low"] <= ratio["high"] <= 1


def test_groups_of_any_column_and_of_ages(parts):
    predictions, targets, table = parts
    sentence = [("a", "b", None)[i % 3] for i in range(NUM_ROWS)]
    ages = [20 + i % 31 if i % 7 else None for i in range(NUM_ROWS)]
    table = table.append_column("sentence", pa.array(sentence)).append_column("age", pa.array(ages))
    decades = ["20-29", "30-39", "40-49", "50-59"]
    for column, groups in (("sentence", ["unknown", "a", "b"]), ("age", ["unknown", *decades])):
        records = {record.group: record for record in score(predictions, targets, table, group_by=column)
                   if record.system == "votes"}  # fmt: skip
        assert list(records) == ["all", *groups, f"worst:{column}", f"gap:{column}", f"ratio:{column}"]
        gap = records[f"gap:{column}"].metrics["UAR"]
        best, worst = (records[group].metrics["UAR"]["value"] for group in gap["groups"])
        values = [records[group].metrics["UAR"]["value"] for group in groups if group != "unknown"]
        assert gap["value"] == pytest.approx(max(values) - min(values)) == pytest.approx(best - worst)
        assert 0 <= gap["low"] <= gap["high"]
        label = groups[2]
        labels = sentence if column == "sentence" else [age and decades[age // 10 - 2] for age in ages]
        # Speakers are in several groups, so that a group's guesser is another one.
        support = np.zeros((9, NUM_CLASSES), int)
        for name, y, by_name in zip(table["speaker"].to_pylist(), targets.consensus_index, labels, strict=True):
            if name != "unknown" and y >= 0 and by_name == label:
                support[int(name[1:]), y] += 1
        guess = chance_passing(support, (1,), (50,), seed=1, num_draws=2_000)[support.any(axis=1), 0, 0]
        assert records[label].metrics["paUAR-50 (1-best, all)"]["chance"] == pytest.approx(100 * guess.mean(), abs=2)
        is_in = np.asarray([value == label for value in labels])
        for member in (0, 1):
            expected = expected_metrics(*parts, is_in, member)
            for name in ("UAR", "CCC valence", "JSD", "paUAR-50 (1-best, all)", "2-best macro-F1 (present)"):
                np.testing.assert_allclose(records[label].metrics[name]["members"][member], expected[name], atol=1e-6)


def test_states_of_speakers(parts, records):
    whole = records["votes", "all"]
    curve = whole.states["pa_uar_curve"]
    for speaker_filter in ("all", "min10c2"):
        actual = curve["filters"][speaker_filter]
        assert actual["num_speakers"] == whole.metrics[f"paUAR-75 (1-best, {speaker_filter})"]["count"]
        for n in (1, 2, 3):
            for threshold in (50, 75):
                entry = whole.metrics[f"paUAR-{threshold} ({n}-best, {speaker_filter})"]
                at = curve["thresholds"].index(threshold)
                assert actual[str(n)]["value"][at] == pytest.approx(entry["value"], abs=1e-3)
                assert actual[str(n)]["chance"][at] == pytest.approx(entry["chance"], abs=1e-3)
                if 0 < entry["value"] < 100:
                    assert actual[str(n)]["low"][at] == pytest.approx(entry["low"], abs=1e-3)
            assert actual[str(n)]["value"] == sorted(actual[str(n)]["value"], reverse=True)
    sizes = whole.states["speaker_sizes"]
    assert sum(size["num_speakers"] for size in sizes) == whole.num_speakers
    for i, item in enumerate(sizes[0]["above"]):
        name = f"paUAR-{item['threshold']} ({item['nbest']}-best, all)"
        passing = sum(size["above"][i]["num_passing"] for size in sizes)
        by_luck = sum(size["above"][i]["num_by_luck"] for size in sizes)
        assert 100 * passing / whole.num_speakers == pytest.approx(whole.metrics[name]["value"])
        assert 100 * by_luck / whole.num_speakers == pytest.approx(whole.metrics[name]["chance"])
    entries = whole.speakers
    actual = whole.states["speaker_dependence"]
    uar = [entry["uar"][0] for entry in entries]
    expected = scipy.stats.spearmanr([entry["num_scored"] for entry in entries], uar)
    assert actual["num_scored"] == {"rho": pytest.approx(expected.statistic), "p": pytest.approx(expected.pvalue)}
    predictions, targets, table = parts
    is_in = (targets.consensus_index >= 0) & (np.asarray(table["speaker"].to_pylist()) != "unknown")
    y, best = targets.consensus_index[is_in], predictions.distribution[:2, is_in].argmax(axis=2)
    recall = [(best[:, y == c] == c).mean() for c in range(NUM_CLASSES)]
    mix = [np.mean([r for r, s in zip(recall, entry["support"], strict=True) if s]) for entry in entries]
    assert actual["class_mix"]["rho"] == pytest.approx(scipy.stats.spearmanr(mix, uar).statistic)


def _family(row):
    return catalogue.KINDS[row["about"]["kind"]].family


def _members(parts, rows):
    """Some members' predictions, some of them twice."""
    predictions, targets, table = parts
    chosen = Predictions(predictions.utterances, predictions.attributes[rows], predictions.distribution[rows])
    return chosen, targets, table


@pytest.mark.stack
def test_differences_of_systems(parts, records):
    assert records["votes", "all"].states["differences"] == []
    rows = {row["metric"]: row for row in records["consensus", "all"].states["differences"]}
    assert {"UAR", "3-best UAR", "macro-F1 (present)", "CCC mean", "class CCC mean"} <= rows.keys()
    assert "paUAR-75 (2-best, all)" in rows
    there = catalogue.entries_by_metric(records["consensus", "all"].metrics)
    assert list(rows) == [key.name for key in catalogue.compared(there)]
    for name, row in rows.items():
        values = [records[system, "all"].metrics[name]["value"] for system in ("votes", "consensus")]
        assert row["than"] == "votes"
        assert row["value"] == pytest.approx(values[1] - values[0])
        assert row["low"] <= row["high"]
        assert 0 < row["p_permutation"] <= row["p_holm"] <= 1
        assert 0 < row["p_bootstrap"] <= 1
    assert not any("differences" in record.states for record in score(*parts, num_permutations=0))
    # A system against itself and against one that is always wrong.
    predictions, targets, table = parts
    twice = [0, 1, 0, 1]
    same = Predictions(predictions.utterances, predictions.attributes[twice], predictions.distribution[twice])
    row = score(same, targets, table, group_by="")[1].states["differences"][0]
    assert (row["value"], row["p_permutation"], row["p_holm"], row["p_bootstrap"]) == (0, 1, 1, 1)
    # A single member is exchanged with each of several: two that are alike make of it what one alone does.
    few = score(*_members(parts, [0, 2]), members=(MEMBERS[0], MEMBERS[2]), group_by="")[1]
    more = score(*_members(parts, [0, 2, 2]), members=(MEMBERS[0], MEMBERS[2], MEMBERS[3]), group_by="")[1]
    alone, twice = (
        {row["metric"]: row for row in side.states["differences"] if _family(row) == "main"} for side in (few, more)
    )
    assert any(row["p_permutation"] < 1 for row in alone.values())
    for name, row in alone.items():
        assert twice[name]["p_permutation"] == row["p_permutation"], name
    wrong = predictions.distribution.copy()
    wrong[2:] = np.where(targets.consensus > 0, 0, 1 / 5)
    wrong[2:] /= wrong[2:].sum(axis=2, keepdims=True)
    record = score(Predictions(predictions.utterances, predictions.attributes, wrong), targets, table, group_by="")[1]
    row = record.states["differences"][0]
    assert row["metric"] == "UAR"
    assert row["high"] < 0
    assert row["p_holm"] < 0.05
    # Holm multiplies the smallest p by the number of tests of its family that there are.
    for family in ("main", "served"):
        own = [row for row in record.states["differences"] if row["p_permutation"] is not None
               and _family(row) == family]  # fmt: skip
        least = min(own, key=lambda row: row["p_permutation"])
        assert least["p_holm"] == pytest.approx(len(own) * least["p_permutation"])
        assert least["p_holm"] < 1


def test_a_metric_to_compare_systems_by_that_no_test_computes_is_refused(parts, monkeypatch):
    monkeypatch.setitem(catalogue.KINDS, "jsd", dataclasses.replace(catalogue.KINDS["jsd"], compared="first"))
    with pytest.raises(ValueError, match="systems are compared by JSD, but `means` does not compute it"):
        score(*parts)


@pytest.mark.stack
def test_no_order_of_predictions_or_tables_changes_a_byte(parts, records):
    predictions, targets, table = parts
    order = np.random.default_rng(3).permutation(NUM_ROWS)
    moved = Predictions([predictions.utterances[i] for i in order], predictions.attributes[:, order],
                        predictions.distribution[:, order])  # fmt: skip
    again = score(moved, targets, table.take(order[::-1]))
    assert [to_json(record) for record in again] == [to_json(record) for record in records.values()]


def test_members_of_several_layers_and_other_settings(parts, records):
    predictions, targets, table = parts
    members = [{"layer": layer, "seed": seed, "class_target": "votes"} for seed in (0, 1) for layer in (0, 5)]
    actual = score(predictions, targets, table, members=members, group_by="", nbest=(2, 1), f1_classes="all",
                  pa_uar_thresholds=(60,))  # fmt: skip
    assert [(record.system, record.layer, record.seeds, record.group) for record in actual] == [
        ("layer 0, votes", 0, (0, 1), "all"),
        ("layer 5, votes", 5, (0, 1), "all"),
    ]
    members_ = actual[0].metrics["UAR"]["members"]
    whole = [records[system, "all"].metrics for system in ("votes", "consensus")]
    assert members_ == [item["UAR"]["members"][0] for item in whole]
    assert actual[0].metrics["2-best UAR"]["members"] == [item["2-best UAR"]["members"][0] for item in whole]
    assert {"macro-F1 (all)", "paUAR-60 (2-best, min10c2)"} <= actual[0].metrics.keys()
    assert "3-best UAR" not in actual[0].metrics
    with pytest.raises(ValueError, match="1 must be among them"):
        score(*parts, nbest=(2, 3))


def test_nothing_to_score_is_none_and_still_json(parts):
    predictions, targets, table = parts
    nothing = Targets(**{
        **vars(targets),
        "consensus_index": np.full(NUM_ROWS, -1, np.int32),
        "has_votes": np.zeros(NUM_ROWS, bool),
        "has_attribute": np.zeros((NUM_ROWS, 3), bool),
    })  # fmt: skip
    actual = [record for record in score(predictions, nothing, table) if ":" not in record.group]
    whole = actual[0]
    assert "expected cost (co-votes)" in whole.metrics
    assert (whole.num_scored, whole.num_speakers, whole.speakers) == (0, 0, [])
    assert not any(name.startswith("CCC") for name in whole.metrics)
    for record in actual:
        for name, entry in json.loads(to_json(record))["metrics"].items():
            assert not entry["defined"], name
            assert (entry["value"], entry["low"], entry["high"], entry["sd"], entry["members"]) == (
                *[None] * 4,
                [None] * 2,
            )


def test_perfect_predictions_and_uniform_ones(parts):
    _, targets, table = parts
    is_certain = targets.consensus.sum(axis=1, keepdims=True) > 0
    perfect = np.where(is_certain, targets.consensus, np.where(targets.has_votes[:, None], targets.distribution, 1 / 6))
    uniform = np.full_like(perfect, 1 / 6)
    predictions = Predictions(list(targets.ids), np.stack([targets.attributes] * 2), np.stack([perfect, uniform]))
    members = [{"layer": 0, "seed": 0, "class_target": kind} for kind in vocab.CLASS_TARGETS]
    actual = score(predictions, targets, table, members=members, group_by="")
    best, level = (record.metrics for record in actual)
    for name in ("UAR", "3-best UAR", "macro-F1 (present)", "accuracy", "CCC valence", "CCC mean"):
        assert best[name]["value"] == pytest.approx(1, abs=1e-6)
        assert best[name]["sd"] is None
    assert best["paUAR-75 (1-best, all)"]["value"] == 100
    # Equal probabilities fall to the first classes of the class set: one class right, then two, then three.
    for n, name in enumerate(("UAR", "2-best UAR", "3-best UAR"), start=1):
        assert level[name]["value"] == pytest.approx(n / 6)
    assert level["class CCC mean"]["value"] == pytest.approx(0, abs=1e-6)

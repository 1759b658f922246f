import functools
import json

import audmetric
import jax
import numpy as np
import pyarrow as pa
import pytest
import scipy.spatial.distance
import sklearn.metrics

from seremo_jax import scoring, vocab
from seremo_jax.artefacts import to_json
from seremo_jax.schema import Predictions
from seremo_jax.targets import Targets, plurality, vote_distribution

NUM_ROWS, NUM_CLASSES = 160, 6
CLASSES = vocab.CLASS_SETS["crema6"]
MEMBERS = [{"layer": 2, "seed": seed, "class_target": kind} for kind in vocab.CLASS_TARGETS for seed in (0, 1)]
# Compiled once for all tests; evaluate does the same.
STATES = jax.jit(scoring.member_states, static_argnames=("num_units", "nbest"))
score = functools.partial(
    scoring.score, members=MEMBERS, split="test", num_resamples=40, protocol={"corpus": "made"}, states=STATES
)


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
        if n == 1:
            expected["accuracy"] = sklearn.metrics.accuracy_score(*pair)
            expected["weighted-F1"] = sklearn.metrics.f1_score(*pair, average="weighted")
        for name, least in (("all", (1, 1)), ("min10c2", (10, 2))):
            uars = []
            for s in sorted(set(speakers) - {"unknown"}):
                rows = is_scored & (speakers == s)
                if rows.sum() >= least[0] and len(set(y[rows])) >= least[1]:
                    uars.append(np.mean([right[rows & (y == c)].mean() for c in set(y[rows])]))
            for t in (50, 75):
                expected[f"paUAR-{t} ({n}-best, {name})"] = 100 * np.mean([uar > t / 100 + 1e-9 for uar in uars])
    for a, name in enumerate(("valence", "activation")):
        rows = targets.has_attribute[:, a] & is_in
        expected[f"CCC {name}"] = audmetric.concordance_cc(
            targets.attributes[rows, a], predictions.attributes[member, rows, a]
        )
    expected["CCC mean"] = (expected["CCC valence"] + expected["CCC activation"]) / 2
    for c, name in enumerate(CLASSES):
        expected[f"class CCC {name}"] = audmetric.concordance_cc(p[has_votes, c], q[has_votes, c])
    expected["class CCC mean"] = np.mean([expected[f"class CCC {name}"] for name in CLASSES])
    jsd = scipy.spatial.distance.jensenshannon(p[has_votes], q[has_votes], base=2, axis=1) ** 2
    expected["JSD"] = jsd.mean()
    ratio = np.where(p > 0, p, 1) / np.where(p > 0, q, 1)
    expected["KL"] = (p * np.log(ratio)).sum(axis=1)[has_votes].mean()
    flags = p[has_votes] > 1 / 6 + 1e-7, q[has_votes] > 1 / 6
    expected["multi-label macro-F1 (1/6)"] = sklearn.metrics.f1_score(*flags, average="macro")
    return expected


@pytest.mark.parametrize("group", ["all", "female", "male"])
def test_every_metric_agrees_with_other_code(parts, records, group):
    predictions, targets, table = parts
    is_in = np.asarray([group in ("all", gender) for gender in table["gender"].to_pylist()])
    for system, members in (("votes", (0, 1)), ("consensus", (2, 3))):
        found = records[system, group].metrics
        expected = [expected_metrics(predictions, targets, table, is_in, member) for member in members]
        assert found.keys() == expected[0].keys()
        for name, entry in found.items():
            values = [one[name] for one in expected]
            np.testing.assert_allclose(entry["members"], values, rtol=1e-5, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(entry["value"], np.mean(values), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(entry["sd"], np.std(values, ddof=1), rtol=1e-4, atol=1e-6)
            assert entry["low"] <= entry["high"]
            assert entry["defined"]


def test_records_say_what_they_are_of(parts, records):
    assert list(records) == [
        (system, group)
        for system in ("votes", "consensus")
        for group in ("all", "female", "male", "unknown", "gap:female-male")
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
    is_scored = targets.consensus_index >= 0
    confusion = [
        sklearn.metrics.confusion_matrix(targets.consensus_index[is_scored], q[is_scored].argmax(1), labels=range(6))
        for q in predictions.distribution[:2]
    ]
    assert whole.states["confusion_members"] == [one.tolist() for one in confusion]
    assert whole.states["confusion"] == sum(confusion).tolist()
    rows = targets.has_attribute[:, 0]
    assert whole.states["moments"]["num_rows"][0] == [rows.sum(), NUM_ROWS, 0]
    found = np.asarray(whole.states["moments"]["mean_prediction"])[:, 0]
    np.testing.assert_allclose(found, predictions.attributes[:2, rows, 0].mean(axis=1), rtol=1e-5)


def test_the_gap_is_paired(records):
    for name, entry in records["votes", "gap:female-male"].metrics.items():
        female, male = (records["votes", group].metrics[name] for group in ("female", "male"))
        np.testing.assert_allclose(entry["value"], female["value"] - male["value"], atol=1e-12)
        np.testing.assert_allclose(entry["members"], np.subtract(female["members"], male["members"]), atol=1e-12)
        assert entry["values"] == {"female": female["value"], "male": male["value"]}
        assert entry["counts"] == {"female": female["count"], "male": male["count"]}
        assert entry["low"] <= entry["high"]


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
    found = score(predictions, targets, table, members=members, group_by="", nbest=(2, 1), f1_classes="all",
                  pa_uar_thresholds=(60,))  # fmt: skip
    assert [(record.system, record.layer, record.seeds, record.group) for record in found] == [
        ("layer 0, votes", 0, (0, 1), "all"),
        ("layer 5, votes", 5, (0, 1), "all"),
    ]
    members_ = found[0].metrics["UAR"]["members"]
    whole = [records[system, "all"].metrics for system in ("votes", "consensus")]
    assert members_ == [one["UAR"]["members"][0] for one in whole]
    assert found[0].metrics["2-best UAR"]["members"] == [one["2-best UAR"]["members"][0] for one in whole]
    assert {"macro-F1 (all)", "paUAR-60 (2-best, min10c2)"} <= found[0].metrics.keys()
    assert "3-best UAR" not in found[0].metrics
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
    found = score(predictions, nothing, table)
    whole = found[0]
    assert (whole.num_scored, whole.num_speakers, whole.speakers) == (0, 0, [])
    assert not any(name.startswith("CCC") for name in whole.metrics)
    for record in found:
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
    found = score(predictions, targets, table, members=members, group_by="")
    best, level = (record.metrics for record in found)
    for name in ("UAR", "3-best UAR", "macro-F1 (present)", "accuracy", "CCC valence", "CCC mean"):
        assert best[name]["value"] == pytest.approx(1, abs=1e-6)
        assert best[name]["sd"] is None
    assert best["paUAR-75 (1-best, all)"]["value"] == 100
    # Equal probabilities fall to the first classes of the class set: one class right, then two, then three.
    for n, name in enumerate(("UAR", "2-best UAR", "3-best UAR"), start=1):
        assert level[name]["value"] == pytest.approx(n / 6)
    assert level["class CCC mean"]["value"] == pytest.approx(0, abs=1e-6)

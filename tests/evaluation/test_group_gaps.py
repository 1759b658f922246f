"""Groups side by side against fairlearn: values by group, worst group, gap and ratio between groups."""

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics

from seremo_jax.core import vocab
from seremo_jax.core.schema import Predictions
from tests.evaluation.test_scoring import CLASSES, MEMBERS, NUM_ROWS, parts, score

fairlearn = pytest.importorskip("fairlearn.metrics", reason="pip install -e '.[test]'")

__all__ = ["parts"]

LABELS = ("bright", "calm", "dark", "odd", None)


@pytest.fixture(scope="module")
def grouped(parts):
    """Four groups of a made-up column, and some rows of an unknown one; one system of one seed."""
    predictions, targets, table = parts
    labels = [LABELS[(i * i + i // 3) % 5] for i in range(NUM_ROWS)]
    item = Predictions(predictions.utterances, predictions.attributes[:1], predictions.distribution[:1])
    table = table.append_column("voice", pa.array(labels))
    records = score(item, targets, table, members=MEMBERS[:1], group_by="voice")
    return {record.group: record.metrics for record in records}, np.asarray(labels, object)


def frame_of(function, true, actual, labels):
    is_in = np.asarray([label is not None for label in labels])
    return fairlearn.MetricFrame(
        metrics=function, y_true=true[is_in], y_pred=actual[is_in], sensitive_features=labels[is_in].astype(str)
    )


def frames(parts, labels):
    """Metric -> fairlearn's MetricFrame, with scikit-learn's scores of each group."""
    predictions, targets, _ = parts
    is_scored = targets.consensus_index >= 0
    y, best = targets.consensus_index[is_scored], predictions.distribution[0].argmax(axis=1)[is_scored]
    scores = {
        "UAR": lambda y, best: sklearn.metrics.recall_score(y, best, average="macro", zero_division=np.nan),
        "accuracy": sklearn.metrics.accuracy_score,
        "weighted-F1": lambda y, best: sklearn.metrics.f1_score(y, best, average="weighted", zero_division=0),
        f"recall {CLASSES[0]}": lambda y, best: sklearn.metrics.recall_score(y == 0, best == 0),
    }
    actual = {name: frame_of(function, y, best, labels[is_scored]) for name, function in scores.items()}
    for a, name in enumerate(vocab.ATTRIBUTES[:2]):
        rows = targets.has_attribute[:, a]
        true, value = (values[rows, a].astype(float) for values in (targets.attributes, predictions.attributes[0]))
        for label, function in (("MAE", sklearn.metrics.mean_absolute_error),
                                ("RMSE", sklearn.metrics.root_mean_squared_error)):  # fmt: skip
            actual[f"{label} {name}"] = frame_of(function, true, value, labels[rows])
    return actual


def test_groups_are_those_of_fairlearn(parts, grouped):
    records, labels = grouped
    compared = frames(parts, labels)
    assert len(compared) == 8
    for name, frame in compared.items():
        by_group = {label: float(value) for label, value in frame.by_group.items()}
        assert set(by_group) == {label for label in LABELS if label}
        for label, value in by_group.items():
            assert records[label][name]["value"] == pytest.approx(value, rel=1e-6), (name, label)
        smallest, largest = frame.group_min(), frame.group_max()
        worst, is_error = records["worst:voice"][name], name.startswith(("MAE", "RMSE"))
        assert worst["value"] == pytest.approx(largest if is_error else smallest, rel=1e-6)
        assert by_group[worst["groups"][0]] == pytest.approx(worst["value"], rel=1e-6)
        # Errors: the best group minus the worst one is never positive, fairlearn's difference never negative.
        difference = frame.difference(method="between_groups")
        gap = records["gap:voice"][name]
        assert gap["value"] == pytest.approx(-difference if is_error else difference, rel=1e-5), name
        ratio = frame.ratio(method="between_groups")
        assert records["ratio:voice"][name]["value"] == pytest.approx(ratio, rel=1e-5), name


def test_the_change_of_the_gap_is_paired_by_speaker(parts):
    predictions, targets, table = parts
    # The second system says what the first one does, and the third something else.
    own, other = predictions.distribution[:1], predictions.distribution[1:2]
    joined = Predictions(
        predictions.utterances,
        np.concatenate([predictions.attributes[:1]] * 3),
        np.concatenate([own, own, other]),
    )
    members = [MEMBERS[0] | {"mixup": mixup} for mixup in (0.0, 0.1, 0.2)]
    records = score(joined, targets, table, members=members, num_permutations=10)
    first, same, third = (record for record in records if record.group == "all")
    gaps = {record.system: record.metrics for record in records if record.group == "gap:female-male"}
    assert first.states["gap_changes"] == []
    # Of three systems each is held against every other.
    assert [entry["than"] for entry in third.states["gap_changes"]].count(first.system) >= 3
    for entry in same.states["gap_changes"]:
        assert (entry["value"], entry["low"], entry["high"]) == (0, 0, 0), entry["metric"]
    for entry in third.states["gap_changes"]:
        before, after = (gaps[name][entry["metric"]]["value"] for name in (entry["than"], third.system))
        assert entry["value"] == pytest.approx(after - before, abs=1e-12)
        assert entry["low"] <= entry["high"]
    assert next(e["high"] - e["low"] for e in third.states["gap_changes"] if e["metric"] == "UAR") > 0.01

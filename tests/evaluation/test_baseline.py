"""The regression every user would pick instead: against scipy's own optimum, by hand, and as records."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.optimize
import scipy.special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score

from seremo_jax import backbones
from seremo_jax.core import artefacts, ensemble
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import Predictions
from seremo_jax.data import tables
from seremo_jax.data.screening import with_words
from seremo_jax.evaluation import baseline, mean_heads, records, regression, scoring
from seremo_jax.evaluation.alignment import align
from seremo_jax.features import store
from seremo_jax.reports import benchmark
from seremo_jax.training import protocol
from seremo_jax.training.dataset import targets_by_role
from tests.support import toy_corpus, toy_training


def _data(num=60, features=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(classes), num).astype(np.float32)
    shares[:10, 0] = 0
    shares /= shares.sum(1, keepdims=True)
    x = (shares @ rng.normal(size=(classes, features)) + 0.3 * rng.normal(size=(num, features))).astype(np.float32)
    return x, shares


def _optimum(x, weights, heard, strength, is_offered=None):
    """Minimises strength * weighted cross-entropy + |W|^2 / 2 over W and a free intercept, among offered classes."""
    C, F = weights.shape[1], x.shape[1]

    def loss(flat):
        W, b = flat[: C * F].reshape(C, F), flat[C * F :]
        logits = x @ W.T + b[None, :]
        log_p = scipy.special.log_softmax(logits, axis=1)
        if is_offered is not None:
            log_p = logits - scipy.special.logsumexp(logits, axis=1, b=is_offered, keepdims=True)
        return -strength * (weights * log_p).sum() + 0.5 * (W**2).sum()

    best = scipy.optimize.minimize(loss, np.zeros(C * F + C), method="BFGS", options={"gtol": 1e-7}).x
    return scipy.special.softmax(heard @ best[: C * F].reshape(C, F).T + best[C * F :][None, :], axis=1)


@pytest.mark.parametrize("is_balanced", [False, True])
def test_the_regression_is_the_optimum_of_shares_as_weights(is_balanced):
    x, shares = _data()
    heard = _data(seed=1)[0]
    weights = shares.astype(float)
    if is_balanced:
        weights *= weights.sum() / shares.shape[1] / weights.sum(0)
    strengths = (0.0003, 0.003, 0.1)
    got = regression.fit_classes(x * 10, shares, is_balanced, heard * 10, strengths)
    assert np.ptp(got[-1]) > 0.3
    for of_strength, strength in zip(got, strengths, strict=True):
        expected = _optimum(x * 10.0, weights, heard * 10.0, strength)
        np.testing.assert_allclose(of_strength, expected, atol=1e-3)


def test_the_regression_learns_among_the_classes_that_raters_could_choose():
    x, shares = _data()
    is_offered = np.ones(shares.shape, bool)
    is_offered[: len(x) // 2, 0] = False
    shares = np.where(is_offered, shares + 0.01, 0).astype(np.float32)
    (got,) = regression.fit_classes(x * 10, shares, False, x * 10, (0.003,), is_offered)
    np.testing.assert_allclose(got, _optimum(x * 10.0, shares.astype(float), x * 10.0, 0.003, is_offered), atol=1e-3)
    (naive,) = regression.fit_classes(x * 10, shares, False, x * 10, (0.003,))
    assert naive[:, 0].mean() < got[:, 0].mean() - 0.02


@pytest.mark.parametrize("is_balanced", [False, True])
def test_the_regression_is_that_of_scikit_learn(is_balanced):
    """Of one label a row: an utterance of several classes is several rows there, each weighing its share."""
    x, shares = _data(num=120, features=40)
    heard = _data(features=40, seed=1)[0]
    row, label = np.nonzero(shares)
    weight = shares[row, label].astype(float)
    if is_balanced:
        weight *= weight.sum() / shares.shape[1] / np.bincount(label, weight)[label]
    strengths = (0.001, 0.1, 1.0)
    got = regression.fit_classes(x, shares, is_balanced, heard, strengths)
    for of_strength, strength in zip(got, strengths, strict=True):
        model = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
        expected = model.fit(x[row].astype(float), label, sample_weight=weight).predict_proba(heard.astype(float))
        np.testing.assert_allclose(of_strength, expected, atol=1e-3)


def test_a_class_nobody_chose_gets_nothing_and_one_class_alone_is_refused():
    x, shares = _data()
    wider = np.insert(shares, 1, 0, axis=1)
    got = regression.fit_classes(x, wider, True, x)
    assert (got[..., 1] == 0).all()
    np.testing.assert_allclose(got.sum(axis=-1), 1, atol=1e-6)
    with pytest.raises(artefacts.ArtefactError, match="1 class"):
        regression.fit_classes(x, np.eye(3, dtype=np.float32)[np.zeros(60, int)], False, x)


def test_pooled_is_mean_and_sd_of_the_frames_of_each_utterance():
    store = toy_training.ToyStore(toy_training.targets())
    got = regression.pooled_frames(store, 5, [7, 3])
    for row, item in zip((7, 3), got, strict=True):
        frames = store.read(5, [row])[0].astype(np.float64)
        np.testing.assert_allclose(item, [*frames.mean(0), *frames.std(0)], atol=1e-3)


def _mean_ccc(x, y):
    """Mean over the columns of the concordance by its definition, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    covariance = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    return np.mean(2 * covariance / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2))


@pytest.mark.parametrize("class_target", ["votes", "consensus"])
def test_the_strength_is_that_of_the_best_development_score(class_target):
    """Fitted anew at every strength on the training utterances, and scored on the development ones, by hand."""
    rng, targets = np.random.default_rng(0), toy_training.targets()
    learned, judged, _ = np.split(rng.permutation(len(targets.ids)), [len(targets.ids) // 2, -8])
    splits = np.full(len(targets.ids), "test", dtype="U11")
    splits[learned], splits[judged] = "train", "development"
    features = (targets.distribution @ rng.normal(size=(targets.distribution.shape[1], 5))).astype(np.float32)
    features += rng.normal(size=features.shape).astype(np.float32)
    source = baseline._Source(targets, targets, "keep", {None: splits}, {None: 5}, np.zeros(len(splits), int))
    member = dataclasses.replace(
        ensemble.members(toy_training.config(), 5)[0], class_target=class_target, class_kind="soft_ce"
    )
    (_, got), (chosen,) = baseline._of_fold(source, features, None, "test", [member])

    shares, is_there = {
        "votes": (targets.distribution, targets.has_votes),
        "consensus": (targets.consensus, targets.has_consensus),
    }[class_target]
    learned, judged = np.sort(learned[is_there[learned]]), np.sort(judged[is_there[judged]])
    every = np.flatnonzero(splits == "train")
    scaled = (features - features[every].mean(0)[None]) / features[every].std(0)[None]
    scores = []
    for strength in regression.STRENGTHS:
        (said,) = regression.fit_classes(scaled[learned], shares[learned], False, scaled, (strength,))
        scores.append(_mean_ccc(said[judged], shares[judged]))
    np.testing.assert_allclose(chosen["development_scores"], scores, atol=1e-3)
    assert chosen["strength"] == regression.STRENGTHS[int(np.argmax(scores))]
    (expected,) = regression.fit_classes(scaled[learned], shares[learned], False, scaled, (chosen["strength"],))
    np.testing.assert_allclose(got[0], expected[splits == "test"], atol=1e-3)


def test_no_development_utterance_is_refused():
    targets = toy_training.targets()
    splits = np.full(len(targets.ids), "train", dtype="U11")
    source = baseline._Source(targets, targets, "keep", {3: splits}, {3: 5}, np.zeros(len(splits), int))
    with pytest.raises(artefacts.ArtefactError, match="development split of fold 3 has 0 labelled utterances"):
        baseline._of_fold(source, np.zeros((len(splits), 2), np.float32), 3, "train", [])


FOLDS = {"data__split_kind": "kfold", "ensemble__folds": tuple(range(5)), "model__layer": 2}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A toy corpus with a store, as extraction leaves it; regressions have three strengths to choose from."""
    toy_corpus.install_toy()
    corpus = toy_corpus.make_corpus(tmp_path_factory.mktemp("corpus"))
    workdir = corpus / "workdir"
    stamp = artefacts.read_json(workdir / "ingest.json", "")
    settings = toy_corpus.config_of(corpus, **FOLDS).results_fields("corpus", "data")
    artefacts.write_json(workdir / "ingest.json", stamp | {"settings": settings})
    toy_corpus.extracted(corpus, workdir, **FOLDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "STRENGTHS", baseline.STRENGTHS[::3])
        yield corpus, workdir
    del backbones.LOADERS["toy"]


def test_regressions_on_several_layers_are_told_apart_by_them():
    """Whatever heads learn from, the row to beat is the mean of regressions on votes and on the consensus."""
    config = from_config_dict(
        {"extract": {"layers": "all"}, "ensemble": {"layers": (1, 5), "class_targets": ("votes",)}}
    )
    actual = baseline.systems(baseline.members_of(config, ensemble.members(config, None), ()))
    expected = [
        (f"logistic regression, layer {layer}, {words}{target}", layer, bool(words))
        for layer in (1, 5) for target in ("votes", "consensus") for words in ("", "classes balanced, ")
    ]  # fmt: skip
    assert [(about["system"], about["layer"], about["axes"]["is_balanced"]) for _, about in actual[:8]] == expected
    assert [about["system"] for _, about in actual[8:]] == [
        *(f"logistic regression, layer {layer}, mean of 3, both" for layer in (1, 5)),
        "logistic regression, several layers, mean of 6, both",
    ]
    assert [rows for rows, _ in actual] == [[row] for row in range(11)]


def test_records_of_all_folds_stand_in_a_table(workdir):
    corpus, folder = workdir
    config = toy_corpus.config_of(corpus, **FOLDS, eval__num_resamples=20, eval__num_permutations=20)
    results = baseline.run(config, folder, is_quiet=True)
    assert results == folder / "baseline" / "results.jsonl"
    records = [json.loads(line) for line in results.read_text().splitlines()]
    systems = [record["system"] for record in records if record["group"] == "all"]
    single = [f"{balanced}{target}" for target in ("votes", "consensus") for balanced in ("", "classes balanced, ")]
    assert systems == [f"logistic regression, {words}" for words in (*single, "mean of 3, both")]
    assert {record["layer"] for record in records} == {2}
    for record in records:
        axes = record["axes"]
        assert (axes["model"], axes["layer"]) == ("regression", 2)
        assert record["system"].endswith(f", {axes['class_target']}")
        if axes["num_heads"] == 1:
            assert axes["is_balanced"] == ("classes balanced" in record["system"])
    assert {r["num_utterances"] for r in records if r["group"] == "all"} == {toy_corpus.NUM_UTTERANCES}
    than = {entry["than"] for record in records for entry in record["states"].get("differences", ())}
    assert than <= set(systems)
    assert than
    table = benchmark.build("targets", [folder])
    rows = [line.labels[:4] for line in table.parts[0].rows if not line.is_reference]
    unbalanced, balanced = (
        [("logistic regression", target, "log loss", word) for target in ("vote distribution", "consensus")]
        for word in ("no", "yes")
    )
    assert rows == [*unbalanced, ("logistic regression, mean of 3", "both", "log loss", "in part"), *balanced]
    table = pq.read_table(folder / "baseline" / "predictions" / "test_clean.parquet")
    classes = [name for name in table.column_names if name.startswith("p_")]
    says = np.stack([table[name].to_numpy() for name in classes], axis=1).reshape(5, -1, len(classes))
    # Votes, votes with classes balanced, and the consensus with classes balanced.
    np.testing.assert_allclose(says[4], says[[0, 1, 3]].mean(axis=0), atol=1e-6)
    assert np.ptp(says[[0, 1, 3]], axis=0).max() > 0.01
    chosen = json.loads((folder / "baseline" / "chosen.json").read_text())["splits"]["test"]
    assert [entry["fold"] for entry in chosen] == [fold for fold in range(5) for _ in range(4)]
    before = results.stat().st_mtime_ns
    baseline.run(config, folder, is_quiet=True)
    assert results.stat().st_mtime_ns == before


def _evaluated(config, folder, seed=0):
    """Records and predictions of two seeds and of their mean, as an evaluation leaves them, of random predictions."""
    utterances, ratings, _ = tables.read_for(config, folder)
    targets = targets_by_role(config, utterances, ratings)[0]
    members = ensemble.members_in(folder, config)
    pooled = list(dict.fromkeys(map(ensemble.without_fold, members)))
    rng = np.random.default_rng(seed)
    noise = rng.dirichlet(np.ones(len(targets.class_names)), (len(pooled), len(targets.ids)))
    heard = Predictions(
        targets.ids,
        rng.normal(size=(len(pooled), len(targets.ids), len(targets.attribute_names))).astype(np.float32),
        (0.5 * noise + 0.5 * targets.consensus[None]).astype(np.float32)
        / (0.5 + 0.5 * targets.consensus.sum(axis=1)[None, :, None]).astype(np.float32),
    )
    heard, pooled = mean_heads.with_means(heard, pooled, config.eval.means)
    card = protocol.card(
        config, folder, utterances, store.Reader(folder / "store"),
        {"checkpoint_id": "heads", "members": list(map(vars, members))},
    )  # fmt: skip
    table = with_words(utterances, {"test": np.arange(len(targets.ids))})
    aligned = align(heard, targets, table, num_members=len(pooled), split="test", group_by=config.eval.group_by)
    systems = ensemble.systems(list(map(vars, pooled)))
    scored = scoring.score(aligned, scoring.ScoreRequest(systems, "test", config.eval, card))
    origin = records.write_predictions(folder / "predictions" / "test_clean.parquet", heard, pooled, targets, "heads")
    records.write(folder / "results.jsonl", [dataclasses.replace(record, predictions=origin) for record in scored])
    return targets, aligned


def test_heads_are_compared_with_the_mean_of_regressions_by_speaker(workdir, tmp_path, capsys):
    corpus, folder = workdir
    settings = FOLDS | {"eval__num_resamples": 60, "eval__num_permutations": 60, "eval__means": ("seeds",)}
    config = toy_corpus.config_of(corpus, **settings, ensemble__seeds=(0, 1))
    folder = Path(shutil.copytree(folder, tmp_path / "w"))
    baseline.run(config, folder)
    assert "no heads were evaluated" in capsys.readouterr().out
    assert records.read_differences(folder, "test") == []
    targets, aligned = _evaluated(config, folder)
    baseline.run(config, folder)
    rows = records.read_differences(folder, "test")
    heads, mean = "votes", "mean of 2 heads, votes"
    assert {row["system"] for row in rows} == {heads, mean}
    assert {row["than"] for row in rows} == {"logistic regression, mean of 3, both"}
    for system in (heads, mean):
        (there,) = [r for r in records.read(folder / "results.jsonl") if (r.system, r.group) == (system, "all")]
        (other,) = [
            r for r in records.read(folder / "baseline" / "results.jsonl")
            if (r.system, r.group) == ("logistic regression, mean of 3, both", "all")
        ]  # fmt: skip
        own = {row["metric"]: row for row in rows if row["system"] == system}
        assert {"UAR", "class CCC mean", "paUAR-75 (1-best, all)"} <= own.keys()
        for name, row in own.items():
            sides = [record.metrics[name]["value"] for record in (there, other)]
            if None not in sides:
                assert row["value"] == pytest.approx(sides[0] - sides[1], abs=1e-6)
                assert row["low"] <= row["value"] <= row["high"]
                assert 0 < row["p_permutation"] <= row["p_holm"] <= 1
    (against,) = [
        part for part in benchmark.build("targets", [folder]).parts if part.title == "Heads minus regressions"
    ]
    assert ("UAR", heads, "logistic regression, mean of 3, both") in [line.labels[-3:] for line in against.rows]
    # The interval of UAR, by scikit-learn, speakers drawn with replacement.
    table = pq.read_table(folder / "baseline" / "predictions" / "test_clean.parquet")
    said = np.stack([table[f"p_{name}"].to_numpy() for name in targets.class_names], axis=1)
    regression_says = said.reshape(5, len(targets.ids), -1)[4].argmax(axis=1)
    place = {utterance: i for i, utterance in enumerate(table["utterance"].to_pylist()[: len(targets.ids)])}
    order = np.argsort(np.array([str(name) for name in targets.ids]))
    regression_says = regression_says[[place[targets.ids[i]] for i in order]]
    head_says = aligned.predictions_distribution[:2].argmax(axis=2)
    drawn, rng = [], np.random.default_rng(5)
    for _ in range(400):
        units = rng.integers(0, len(aligned.speakers), len(aligned.speakers))
        at = np.concatenate([np.flatnonzero((aligned.unit == u) & (aligned.consensus >= 0)) for u in units])
        truth = aligned.consensus[at]
        uar = [
            recall_score(truth, says[at], labels=np.unique(truth), average="macro", zero_division=0)
            for says in (*head_says, regression_says)
        ]
        drawn.append(np.mean(uar[:2]) - uar[2])
    (row,) = [row for row in rows if (row["system"], row["metric"]) == (heads, "UAR")]
    spread = np.std(drawn)
    assert (row["high"] - row["low"]) / 4 == pytest.approx(spread, rel=0.4)
    # Evaluated anew, they are compared anew; under other settings they are not.
    path = folder / "baseline" / "differences.json"
    baseline.run(config, folder)
    assert f"{path} is up to date" in capsys.readouterr().out
    _evaluated(config, folder, seed=1)
    with pytest.raises(artefacts.ArtefactError, match=r"heads in .*results.jsonl"):
        records.read_differences(folder, "test")
    baseline.run(config, folder)
    assert records.read_differences(folder, "test") != rows
    _evaluated(dataclasses.replace(config, eval=dataclasses.replace(config.eval, seed=3)), folder)
    baseline.run(config, folder)
    assert "was evaluated under other settings (eval.seed)" in capsys.readouterr().out
    assert records.read_differences(folder, "test") == []


def test_heads_on_several_layers_are_compared_with_regressions_on_these(workdir, tmp_path):
    """The mean over layers has its counterpart, and every other system that of its own layer."""
    corpus, folder = workdir
    settings = FOLDS | {"eval__num_resamples": 20, "eval__num_permutations": 5, "eval__means": ("layers",)}
    config = toy_corpus.config_of(corpus, **settings, ensemble__layers=(0, 1), extract__layers="all")
    folder = Path(shutil.copytree(folder, tmp_path / "w"))
    _evaluated(config, folder)
    baseline.run(config, folder, is_quiet=True)
    regressions = [record for record in records.read(folder / "baseline" / "results.jsonl") if record.group == "all"]
    (every,) = [record for record in regressions if record.layer == ensemble.EVERY_LAYER]
    assert (every.system, every.axes["num_heads"]) == ("logistic regression, several layers, mean of 6, both", 6)
    table = pq.read_table(folder / "baseline" / "predictions" / "test_clean.parquet")
    classes = [name for name in table.column_names if name.startswith("p_")]
    says = np.stack([table[name].to_numpy() for name in classes], axis=1).reshape(11, -1, len(classes))
    assert set(table["layer"].to_pylist()) == {0, 1, ensemble.EVERY_LAYER}
    # Four regressions a layer, of which the second on the consensus is in no mean; then the means.
    np.testing.assert_allclose(says[10], says[[0, 1, 3, 4, 5, 7]].mean(axis=0), atol=1e-6)
    pairs = {(row["system"], row["than"]) for row in records.read_differences(folder, "test")}
    means = [f"logistic regression, layer {layer}, mean of 3, both" for layer in (0, 1)]
    own = {(f"layer {layer}, votes", mean) for layer, mean in enumerate(means)}
    assert pairs == own | {("several layers, mean of 2 heads, votes", than) for than in (*means, every.system)}

"""Two corpora in one training, from files to results: scores by corpus against independent code; what is refused."""

import collections
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs import transfer
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import ingest
from seremo_jax.evaluation import evaluate, records
from seremo_jax.features import extract
from seremo_jax.metrics.catalogue import entries_by_metric, metric
from seremo_jax.predict import cross_corpus, model_folder
from seremo_jax.training import train
from tests.support.own_words import WORDS, write_tables

pytestmark = pytest.mark.long

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise", "contempt")
OFFERED = {"simulated": set(CLASSES[:6]), "mine": set(WORDS)}


def _config(root):
    tree = transfer.get_config("simulated+crema_d").to_dict()
    changes = {
        "corpus": {
            "num_speakers": 6, "utterances_per_speaker": 1, "also": ("table; modality=both",),
            "also_roots": (os.fspath(root),),
        },
        "targets": {"class_set": "crema6+msp8"},
        "extract": {"layers": (0,)},
        "model": {"layer": 0, "gru_units": 8, "embedding_size": 8},
        "train": {"max_epochs": 1},
        "ensemble": {"seeds": (0,)},
        "eval": {"num_resamples": 20, "num_permutations": 20},
    }  # fmt: skip
    return from_config_dict({section: values | changes.get(section, {}) for section, values in tree.items()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The config and a workdir whose evaluation is finished."""
    root, workdir = tmp_path_factory.mktemp("mine"), tmp_path_factory.mktemp("several") / "w"
    write_tables(root, 18, of_a_speaker=3)
    config = _config(root)
    for stage in (ingest, extract, train, evaluate):
        stage.run(config, workdir, is_quiet=True)
    return config, root, workdir


def _ccc(x, y):
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_class_ccc_is_over_the_utterances_that_were_offered_the_class(trained):
    _, _, workdir = trained
    votes = collections.defaultdict(collections.Counter)
    for row in pq.read_table(workdir / "ratings.parquet").to_pylist():
        votes[row["utterance"]][row["primary"]] += 1
    said = pq.read_table(workdir / "predictions" / "test_clean.parquet").to_pylist()
    by_group = {record.group: record for record in records.read(workdir / "results.jsonl")}
    for group in ("all", "simulated", "mine"):
        expected = {}
        here = [row for row in said if group in ("all", row["utterance"].partition("/")[0])]
        for name in CLASSES:
            rows = [row for row in here if name in OFFERED[row["utterance"].partition("/")[0]]]
            own = [votes[row["utterance"]] for row in rows]
            share = np.array([counts[name] / sum(counts[c] for c in CLASSES) for counts in own])
            if len(rows) > 1 and share.std() > 0:
                expected[name] = _ccc(np.array([row[f"p_{name}"] for row in rows]), share)
        entries = entries_by_metric(by_group[group].metrics)
        values = {name: entries[metric("class_ccc", label=name)]["value"] for name in CLASSES}
        assert {name for name, value in values.items() if value is not None} == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(values[name], value, atol=1e-5, err_msg=f"{group} {name}")
        assert "surprise" not in expected if group == "simulated" else "surprise" in expected


def test_results_name_each_corpus_and_what_it_did_not_offer(trained):
    _, _, workdir = trained
    card = records.read(workdir / "results.jsonl")[0].protocol
    assert card["corpus"] == "simulated+mine"
    not_offered = {entry["corpus"]: set(entry["not_offered"]) for entry in card["corpora"]}
    assert not_offered == {name: set(CLASSES) - there for name, there in OFFERED.items()}
    assert card["settings"]["corpus.also"] == ["table; modality=both"]


def test_a_corpus_that_the_model_was_trained_on_is_refused_elsewhere(trained, tmp_path):
    _, root, workdir = trained
    model_folder.export(workdir, tmp_path / "model")
    alone = from_config_dict({"corpus": {"name": "table", "root": os.fspath(root)}, "data": {"modality": "both"}})
    with pytest.raises(ArtefactError, match=r"trained on simulated\+mine, and --config names mine \(1\), too"):
        cross_corpus.run(alone, tmp_path / "model", tmp_path / "on", is_quiet=True)
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    assert about["classes"] == list(CLASSES)


def test_the_same_commands_again_find_everything_up_to_date(trained):
    config, _, workdir = trained
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("*.*")}
    for stage in (ingest, extract, train, evaluate):
        stage.run(config, workdir, is_quiet=True)
    assert {path: path.stat().st_mtime_ns for path in workdir.glob("*.*")} == before

"""Heads that are relative to speakers, from training to prediction, in a condition and on a corpus."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
from jax import export as jax_export

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.condition_names import parse
from seremo_jax.data import ingest
from seremo_jax.evaluation import evaluate, records
from seremo_jax.evaluation.split_records import predictions_file
from seremo_jax.features import extract
from seremo_jax.predict import cross_corpus, export, model_folder, predictor
from seremo_jax.training import train
from tests.support import prepared

CONDITIONS = ("clean", "gain:-6db")


def _config():
    config = prepared.smallest()
    replace = dataclasses.replace
    return replace(
        config,
        corpus=replace(config.corpus, utterances_per_speaker=3),
        ensemble=replace(config.ensemble, seeds=(0,), speaker_kappas_s=("inf", 0.0)),
        train=replace(config.train, max_epochs=1),
        eval=replace(config.eval, conditions=CONDITIONS, calibrate=False),
    ).validate()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A plain member and one by its speakers alone, on log-mel bands: `workdir`, and `model` of the second."""

    def fill(folder):
        config, workdir = _config(), folder / "workdir"
        ingest.run(config, workdir, is_quiet=True)
        extract.run(config, workdir, is_quiet=True)
        train.run(config, workdir, is_quiet=True)
        evaluate.run(config, workdir, is_quiet=True)
        model_folder.export(workdir, folder / "model", ["*speaker_kappa_s0.0*"])

    return prepared.once(tmp_path_factory, "transductive", fill)


@pytest.fixture(scope="module")
def workdir(made):
    return made / "workdir"


@pytest.fixture(scope="module")
def model(made):
    return made / "model"


def _predicted(workdir, condition):
    """Member -> utterance -> distribution of the test split."""
    table = pq.read_table(workdir / "predictions" / predictions_file("test", parse(condition)))
    names = [name for name in table.column_names if name.startswith("p_")]
    by_member = {}
    for row in table.to_pylist():
        by_member.setdefault(row["member"], {})[row["utterance"]] = np.array([row[name] for name in names])
    return by_member


def _apart(ours, theirs):
    return max(np.abs(ours[utterance] - theirs[utterance]).max() for utterance in ours)


def test_what_all_audio_of_a_speaker_has_changes_only_members_that_are_not_relative(workdir):
    """The statistics are of the condition: with those of clean speech the level would come back."""
    clean, quiet = (_predicted(workdir, name) for name in CONDITIONS)
    assert _apart(clean[1], quiet[1]) < 0.1 * _apart(clean[0], quiet[0])


def test_records_say_transductive(workdir):
    found = records.read(workdir / "results.jsonl")
    assert {record.system for record in found} == {
        "speaker kappa s inf, votes", "transductive, speaker kappa s 0.0, votes",
    }  # fmt: skip
    for record in found:
        assert record.protocol["transductive"] == [0.0]
        assert any(note.startswith("Systems called transductive hear") for note in record.protocol["notes"])


def test_a_model_on_a_corpus_hears_its_speakers_as_evaluation_does(workdir, model, tmp_path):
    config = dataclasses.replace(_config(), ensemble=dataclasses.replace(_config().ensemble, speaker_kappas_s=()))
    cross_corpus.run(config, model, tmp_path / "on", asked=("eval.splits",), is_quiet=True)
    for name in CONDITIONS:
        assert _apart(_predicted(tmp_path / "on", name)[0], _predicted(workdir, name)[1]) < 1e-4
    (record, *_) = records.read(tmp_path / "on" / "results.jsonl")
    assert (record.system, record.protocol["transductive"]) == ("transductive, votes", [0.0])


def test_prediction_which_judges_one_recording_at_a_time_refuses(workdir, model):
    for place, members in ((model, ()), (workdir, ["*speaker_kappa_s0.0*"])):
        with pytest.raises(ArtefactError, match=r"relative to the speaker .*launch\.evaluate .*head\.stablehlo"):
            predictor.load(place, members=members)
    assert predictor.load(workdir, members=["*speaker_kappa_sinf*"]).members


def test_the_exported_module_takes_who_speaks(model):
    about, heads, _ = model_folder.read(model)
    module = jax_export.deserialize(bytearray((model / model_folder.STABLEHLO_FILE).read_bytes()))
    rng, width = np.random.default_rng(0), about["backbone"]["num_features"]
    hidden = rng.normal(size=(1, 2, 9, width)).astype(np.float32)
    spoken = [rng.uniform(0.5, 2, (1, 2, width)).astype(np.float32) for _ in range(2)]
    seconds, lengths = np.array([3.0, 0.0], np.float32), np.array([9, 4], np.int32)
    exported = module.call(hidden, lengths, *spoken, seconds)["distribution"]
    speakers = export.Speakers(*spoken, seconds)
    _, distribution, _ = predictor.judge(about["head"], "float32", "map", heads, hidden, lengths, speakers)
    np.testing.assert_allclose(exported, distribution, atol=1e-5)

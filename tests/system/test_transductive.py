"""Heads that are relative to speakers, from training to prediction, in a condition and on a corpus."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from jax import export as jax_export

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.condition_names import parse
from seremo_jax.data import ingest, tables
from seremo_jax.evaluation import evaluate, records
from seremo_jax.evaluation.prototypes import Prototypes
from seremo_jax.evaluation.split_records import predictions_file
from seremo_jax.features import extract
from seremo_jax.metrics import class_priors
from seremo_jax.predict import cross_corpus, export, files, model_card, model_folder, passes, predictor, result, voices
from seremo_jax.predict import speakers as adaptation
from seremo_jax.training import train
from tests.support import launchers, prepared

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


def _recordings(workdir):
    """Id, path and speaker of every test utterance."""
    rows = [row for row in tables.read_utterances(workdir).to_pylist() if row["split"] == "test"]
    return [(row["id"], workdir / "audio" / row["audio"], row["speaker"]) for row in rows]


def test_prediction_with_all_recordings_of_a_speaker_is_evaluation(workdir, model, tmp_path):
    evaluated, heads = _predicted(workdir, "clean")[1], predictor.load(model)
    recordings = _recordings(workdir)
    names = [name for name, _, _ in recordings]
    lines = [f"{name},{speaker}" for name, _, speaker in recordings]
    (tmp_path / "speakers.csv").write_text("\n".join(["file,speaker", *lines]) + "\n")
    speakers = voices.speakers_of(names, tmp_path / "speakers.csv")
    given = files.AudioFiles([path for _, path, _ in recordings], names, {}, speakers=speakers)
    outcome = files.run(heads, given, tmp_path / "out.csv", "csv", is_quiet=True)
    for record in outcome.records:
        ours = np.array(list(record["distribution"].values()))
        np.testing.assert_allclose(ours, evaluated[record["file"]], atol=1e-4)
        assert (record["speaker_s"] > 0, record["adapted"]) == (True, result.RELATIVE)
    assert {"adapted", "speaker_s"} <= {*files.to_table(outcome).column_names}
    # What is not known is told, and other recordings of a speaker are another run.
    other = given._replace(speakers=[None, *speakers[1:]])
    alone = files.run(heads, other, is_quiet=True).records[0]
    assert alone["speaker_s"] == 0
    assert any("its speaker is not known" in text for text in alone["warnings"])
    assert np.abs(np.array(list(alone["distribution"].values())) - evaluated[names[0]]).max() > 1e-3
    with pytest.raises(ArtefactError, match=r"what .*journal\.jsonl was begun with"):
        files.run(heads, other, tmp_path / "out.csv", "csv", is_quiet=True)


def test_long_recordings_of_a_speaker_count_frame_by_frame(workdir, model, tmp_path, monkeypatch):
    heads = predictor.load(model)
    waves = [soundfile.read(path, dtype="float32")[0] for _, path, _ in _recordings(workdir)[:3]]
    together = np.concatenate(waves)
    for number, wave in enumerate([*waves, together]):
        soundfile.write(tmp_path / f"{number}.wav", wave, 16_000, subtype="FLOAT")
    (tmp_path / "empty.wav").touch()
    paths = [tmp_path / f"{number}.wav" for number in range(4)]
    whole = heads.voice([paths[3]])
    monkeypatch.setattr(heads, "_whole", len(together) - 1)
    streamed = heads.voice([paths[3], tmp_path / "empty.wav"])
    assert streamed.seconds == pytest.approx(whole.seconds) == pytest.approx(len(together) / 16_000, abs=0.05)
    np.testing.assert_allclose(streamed.mean, whole.mean, atol=1e-3)
    np.testing.assert_allclose(streamed.variance, whole.variance, rtol=1e-2)
    cut = heads(together, 16_000, voice=streamed)
    assert cut.speaker_s == pytest.approx(whole.seconds)
    in_order, backwards = heads.voice(paths[:3]), heads.voice(paths[2::-1])
    np.testing.assert_allclose(in_order.mean, backwards.mean, rtol=1e-6)
    assert sum(heads.voice([path]).seconds for path in paths[:3]) == pytest.approx(in_order.seconds)


def test_who_speaks_must_be_said(workdir, model, tmp_path):
    heads = predictor.load(model)
    (_, path, _), *_ = _recordings(workdir)
    with pytest.raises(ArtefactError, match=r"relative to the speaker .*give --speakers=one, or --speakers=FILE\.csv"):
        heads.file(path)
    voice = heads.voice([path])
    assert heads.file(path, voice=voice).speaker_s == pytest.approx(voice.seconds)
    plain = predictor.load(workdir, members=["*speaker_kappa_sinf*"])
    with pytest.raises(ArtefactError, match="does not hear features relative to the speaker"):
        plain.file(path, voice=voice)
    table = tmp_path / "s.csv"
    for text, words in (
        ("file,who\na,b\n", "has no column 'speaker'"),
        ("file,speaker\na,b\na,c\n", "gives 'a' two speakers, 'b' and 'c'"),
        ("file,speaker\nb,b\n", "has no row for 1 of the recordings, 'a' first"),
    ):
        table.write_text(text)
        with pytest.raises(ArtefactError, match=words):
            voices.speakers_of(["a"], table)
    table.write_text("file,speaker\na,\n")
    assert voices.speakers_of(["a"], table) == [None]
    assert voices.speakers_of(["a"], "one") == ["one"]
    assert voices.speakers_of(["a"], None) is None


def test_the_launcher_predicts_with_its_recordings_as_one_speakers(workdir, model, tmp_path):
    paths = [path for _, path, _ in _recordings(workdir)[:2]]
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    code, text = launchers.run("predict", f"--model={model}", "--speakers=one", tmp_path / "list.txt")
    assert code == 0, text
    said = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    expected = predictor.load(model).voice(paths).seconds
    assert [record["speaker_s"] for record in said] == [pytest.approx(expected, abs=0.01)] * 2


def test_a_speaker_is_enrolled_relative_to_all_recordings_of_the_folder(workdir, model, tmp_path):
    heads = predictor.load(model)
    heads.prototypes = Prototypes(np.full((1, 6), 1 / 6), ())
    for number, (_, path, _) in enumerate(_recordings(workdir)[:3]):
        shutil.copy(path, tmp_path / f"{number}{path.suffix}")
    paths = sorted(tmp_path.iterdir())
    said = heads.files(paths, voices=[heads.voice(paths)] * 3)
    shares = np.array([[*own.distribution.values()] for own in said])
    expected = class_priors.fit(shares[None], np.full((1, 6), 1 / 6), adaptation.PRIOR_KAPPA)[0]
    speaker = adaptation.enrol(heads, tmp_path)
    np.testing.assert_allclose(speaker.prior, expected, atol=1e-6)
    after = heads.for_speaker(speaker).file(paths[0], voice=heads.voice(paths))
    assert after.adapted == f"{result.RELATIVE}; prior of the speaker, from 3 recordings"
    several = files.AudioFiles(paths, ["a", "b", "c"], {}, speakers=["anna", "bob", None])
    with pytest.raises(ArtefactError, match="--speakers names 3 speakers, and a model is adapted to one"):
        files.run(heads.for_speaker(speaker), several, is_quiet=True)


def test_the_card_of_a_published_model_says_how_it_is_called(workdir, model):
    text = model_card.card("org/emotion", model_folder.read(model).about, "", None)
    assert "voice = model.voice(paths)" in text
    assert "--model=hf://org/emotion --speakers=one recordings/" in text
    assert "It is transductive" in text
    plain = model_folder.read(workdir, ["*speaker_kappa_sinf*"]).about
    assert "--speakers" not in model_card.card("org/emotion", plain, "", None)


def test_the_exported_module_takes_who_speaks(model):
    about, heads, _ = model_folder.read(model)
    module = jax_export.deserialize(bytearray((model / model_folder.STABLEHLO_FILE).read_bytes()))
    rng, width = np.random.default_rng(0), about["backbone"]["num_features"]
    hidden = rng.normal(size=(1, 2, 9, width)).astype(np.float32)
    spoken = [rng.uniform(0.5, 2, (1, 2, width)).astype(np.float32) for _ in range(2)]
    seconds, lengths = np.array([3.0, 0.0], np.float32), np.array([9, 4], np.int32)
    exported = module.call(hidden, lengths, *spoken, seconds)["distribution"]
    speakers = export.Speakers(*spoken, seconds)
    _, distribution, _ = passes.judge(about["head"], "float32", "map", heads, hidden, lengths, speakers)
    np.testing.assert_allclose(exported, distribution, atol=1e-5)

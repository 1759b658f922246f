"""A model on another corpus, through the launchers: scores by independent code, masked votes, refusals, resuming."""

import collections
import dataclasses
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score, recall_score

from seremo_jax import predict
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import audio, ingest
from seremo_jax.evaluation import records
from seremo_jax.features import condition_frames
from seremo_jax.metrics.catalogue import entries_by_metric, metric
from seremo_jax.predict import cross_checks, cross_corpus, model_backbone
from seremo_jax.reports import benchmark, report, validation
from seremo_jax.reports.blocks import ReportError
from tests.support import launchers, prepared

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad")
FEW = ("--config.eval.num_resamples=20", "--config.eval.num_permutations=20")


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """`workdir`, trained on a few simulated speakers, and `model`, exported from it."""
    return prepared.finished(tmp_path_factory)


@pytest.fixture(scope="module")
def crema_d(shared):
    return (f"--config={ROOT}/configs/crema_d.py", f"--config.corpus.root={shared / 'data' / 'crema_d'}")


def _evaluate(model, corpus, workdir, *others):
    return launchers.run("evaluate", f"--model={model}", *corpus, *FEW, f"--workdir={workdir}", *others)


@pytest.fixture(scope="module")
def heard(finished, crema_d, tmp_path_factory):
    """The exported model on three speakers of CREMA-D, and what was printed."""
    workdir = tmp_path_factory.mktemp("cross") / "on"
    status, said = _evaluate(finished / "model", crema_d, workdir, "--config.data.max_speakers=3")
    assert status == 0, said
    return workdir, said


def _votes(workdir):
    """Utterance -> votes of each class, counted by hand."""
    counts = collections.defaultdict(collections.Counter)
    for row in pq.read_table(workdir / "ratings.parquet").to_pylist():
        if row["modality"] == "voice":
            counts[row["utterance"]][row["primary"]] += 1
    return counts


def _consensus(votes):
    """The class of the plurality in the class set; None where it is tied or lies outside."""
    outside = sum(number for word, number in votes.items() if word not in CLASSES)
    by_word = {name: votes[name] for name in CLASSES} | {None: outside}
    most = max(by_word.values())
    top = [word for word, number in by_word.items() if number == most]
    return top[0] if len(top) == 1 else None


def _predicted(model, members, workdir, root):
    """[E, N, C] what `predict.load` says of every utterance, without calibration."""
    table, result = pq.read_table(workdir / "utterances.parquet").to_pylist(), []
    for name in members:
        loaded = predict.load(model, members=[name])
        loaded.about["calibration"]["temperature"] = None
        own = loaded.files([root / row["audio"] for row in table])
        result.append([[one.distribution[c] for c in CLASSES] for one in own])
    return table, np.array(result)


def _ccc(x, y):
    return 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_scores_are_those_of_the_models_own_predictions(finished, heard, shared):
    workdir, said = heard
    everyone = [record for record in records.read(workdir / "results.jsonl") if record.group == "all"]
    assert [record.system for record in everyone] == ["votes"]
    table, predicted = _predicted(
        finished / "workdir", ["layer00-votes-seed0", "layer00-votes-seed1"], workdir, shared / "data" / "crema_d"
    )
    votes = _votes(workdir)
    consensus = np.array([_consensus(votes[row["id"]]) for row in table], object)
    is_scored = np.array([name is not None for name in consensus])
    truth = [CLASSES.index(name) for name in consensus[is_scored]]
    shares = np.array([[votes[row["id"]][c] for c in CLASSES] for row in table], float)
    shares /= shares.sum(axis=1, keepdims=True)
    speakers = np.array([row["speaker"] for row in table])
    expected = collections.defaultdict(list)
    for distribution in predicted:
        best = distribution.argmax(axis=1)[is_scored]
        expected["uar"].append(recall_score(truth, best, average="macro", labels=sorted(set(truth))))
        present = sorted({*truth, *best})
        expected["macro_f1"].append(f1_score(truth, best, average="macro", labels=present, zero_division=0))
        expected["class_ccc_mean"].append(np.mean([_ccc(distribution[:, c], shares[:, c]) for c in range(6)]))
        own = [
            recall_score(np.array(truth)[here], best[here], average="macro", labels=sorted(set(np.array(truth)[here])))
            for here in (speakers[is_scored] == speaker for speaker in sorted(set(speakers)))
        ]
        expected["pa_uar"].append(100 * np.mean(np.array(own) > 0.5))
    entries = entries_by_metric(everyone[0].metrics)
    share = metric("pa_uar", threshold=50, speakers="all")
    for key in (metric("uar"), metric("macro_f1", classes="present"), metric("class_ccc_mean"), share):
        np.testing.assert_allclose(entries[key]["members"], expected[key.kind], rtol=0, atol=1e-6, err_msg=key.name)
    assert everyone[0].num_utterances == len(table)
    assert everyone[0].num_scored == is_scored.sum()
    assert everyone[0].num_speakers == 3
    assert "0 votes (0.0 %) lie outside" in said


def test_records_have_all_that_a_test_split_gets_and_both_corpora(finished, heard):
    workdir, _ = heard
    own = {record.group: record for record in records.read(finished / "workdir" / "results.jsonl")}
    others = {record.group: record for record in records.read(workdir / "results.jsonl")}
    assert others["all"].states.keys() == own["all"].states.keys()
    # CREMA-D has no attributes, and all else is there: calibration, sets, panels of raters, strata.
    left_out = {name for name in own["all"].metrics.keys() - others["all"].metrics.keys() if "raters" not in name}
    assert {name.split()[0] for name in left_out} == {"CCC", "MAE", "Pearson", "RMSE"}
    assert {"female", "male"} <= others.keys()
    assert "rows" in others["all"].states["raters"]
    card = others["all"].protocol
    assert (card["corpus"], card["trained_on"]["corpus"]) == ("crema_d", "simulated")
    assert card["settings"]["corpus.name"] == "crema_d"
    assert card["trained_on"]["settings"]["corpus.name"] == "simulated"
    assert card["settings"]["model.gru_units"] == 8
    assert card["checkpoint"] == own["all"].protocol["checkpoint"]
    assert card["heard"] == "every utterance"


def test_the_same_command_again_finds_it_up_to_date(finished, crema_d, heard):
    workdir, _ = heard
    before = (workdir / "results.jsonl").read_bytes()
    status, said = _evaluate(finished / "model", crema_d, workdir, "--config.data.max_speakers=3")
    assert (status, "results.jsonl is up to date" in said) == (0, True), said
    assert (workdir / "results.jsonl").read_bytes() == before
    status, said = launchers.run("evaluate", *crema_d, *FEW, "--config.data.max_speakers=3", f"--workdir={workdir}")
    assert status == 1
    assert "holds the scores on crema_d of a model that was trained on simulated" in said
    assert "The model was trained on simulated" in report.markdown_summary(workdir)


def test_scores_of_another_model_are_not_overwritten(finished, crema_d, heard, tmp_path):
    workdir = Path(shutil.copytree(heard[0], tmp_path / "on"))
    before = (workdir / "results.jsonl").read_bytes()
    few = "--config.data.max_speakers=3"
    status, said = _evaluate(finished / "workdir", crema_d, workdir, few, "--member=layer00-votes-seed0")
    assert status == 1
    members = "layer00-votes-seed0, layer00-votes-seed1"
    assert f"has the scores of another model, or of other members: {members}, trained on simulated, " in said
    assert "name another --workdir, or delete that file" in said
    assert (workdir / "results.jsonl").read_bytes() == before


def test_the_table_transfer_has_models_by_corpora(finished, heard):
    workdirs = finished / "workdir", heard[0]
    table = benchmark.build("transfer", workdirs)
    uar, behind = table.parts[0], table.parts[-1]
    assert (uar.title, uar.columns) == ("UAR, scored on", ("simulated", "crema_d"))
    assert [row.labels[0] for row in uar.rows] == ["simulated", "one human rater", "chance"]
    everyone = [next(r for r in records.read(w / "results.jsonl") if r.group == "all") for w in workdirs]
    for cell, human, record in zip(uar.rows[0].cells, uar.rows[1].cells, everyone, strict=True):
        assert dict(cell.numbers) == record.metrics["UAR"]
        assert dict(human.numbers) == record.states["raters"]["rows"][0]["metrics"]["UAR"]
    assert [row.labels[2:4] for row in behind.rows] == [("simulated", "test split"), ("crema_d", "every utterance")]
    assert [part.title.partition(",")[0] for part in table.parts[:-1]] == [
        "UAR", "macro-F1 (present)", "class CCC mean", "paUAR-75 (1-best"
    ]  # fmt: skip
    twice = shutil.copytree(heard[0], heard[0].parent / "twice", dirs_exist_ok=True)
    with pytest.raises(ReportError, match="both have scores of one model"):
        benchmark.build("transfer", [*workdirs, twice])


WORDS = ("angry", "sad", "happy", "surprise", "contempt")


@pytest.fixture(scope="module")
def tables(shared, tmp_path_factory):
    """A corpus in tables: twelve recordings of four speakers, some votes for words that the model does not know."""
    root = tmp_path_factory.mktemp("tables")
    files = sorted((shared / "data" / "crema_d" / "audio").rglob("*.*"))
    by_speaker = itertools.groupby(files, lambda path: path.name.partition("_")[0])
    chosen = [path for _, own in itertools.islice(by_speaker, 4) for path in itertools.islice(own, 3)]
    utterances, ratings = ["id,audio,speaker,gender"], ["utterance,rater,primary"]
    for i, path in enumerate(chosen):
        shutil.copy(path, root / path.name)
        utterances.append(f"u{i:02d},{path.name},s{i // 3},{'female' if i // 3 % 2 else 'male'}")
        words = [WORDS[i % 5]] * 2 + [WORDS[(i + 1) % 5]]
        ratings += [f"u{i:02d},r{n},{word}" for n, word in enumerate(words)]
    (root / "utterances.csv").write_text("\n".join(utterances) + "\n")
    (root / "ratings.csv").write_text("\n".join(ratings) + "\n")
    (root / "corpus.json").write_text(json.dumps({"corpus": "twelve"}))
    return root


def _of(root):
    return f"--config={ROOT}/configs/table.py", f"--config.corpus.root={root}"


@pytest.fixture(scope="module")
def ingested(tables, tmp_path_factory):
    """A workdir with its tables and their page, which an evaluation makes where it is not there, as in `heard`."""
    workdir = tmp_path_factory.mktemp("ingested") / "w"
    status, said = launchers.run("ingest", *_of(tables), f"--workdir={workdir}")
    assert status == 0, said
    validation.write_page(workdir)
    return workdir


@pytest.fixture
def workdir(ingested, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(ingested, tmp_path / "on"))


CONDITIONS = "--config.eval.conditions=('clean','noise:white:0db')"


@pytest.fixture(scope="module")
def twelve(finished, tables, ingested, tmp_path_factory):
    """The exported model on the twelve recordings in two conditions, and what was printed."""
    workdir = Path(shutil.copytree(ingested, tmp_path_factory.mktemp("twelve") / "on"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(condition_frames, "BLOCK_BYTES", 1)  # an utterance a block
        status, said = _evaluate(finished / "model", _of(tables), workdir, CONDITIONS)
    assert status == 0, said
    return workdir, said


def test_votes_outside_the_models_classes_are_masked_and_counted(twelve):
    workdir, said = twelve
    everyone = next(record for record in records.read(workdir / "results.jsonl") if record.group == "all")
    votes = _votes(workdir)
    outside = {word: sum(own[word] for own in votes.values()) for word in ("surprise", "contempt")}
    consensus = [_consensus(own) for own in votes.values()]
    found = everyone.protocol["class_map"]["test"]
    assert found["masked_votes"] == sum(outside.values()) > 0
    assert found["of_the_corpus_only"] == [f"{word} ({outside[word]} votes)" for word in sorted(outside)]
    assert found["common"] == ["angry", "happy", "sad"]
    assert found["of_the_model_only"] == ["disgust", "fear", "neutral"]
    assert everyone.num_utterances == 12
    assert everyone.num_scored == sum(name is not None for name in consensus) < 12
    assert f"{sum(outside.values())} votes" in said
    # The recipe of tables asks for eight classes; the model has six.
    assert "targets.class_set is the model's, 'crema6', and not the recipe's, 'msp8'" in said


def test_splits_are_heard_where_they_are_asked_for_and_settings_of_the_model_may_be_typed(finished, tables, workdir):
    typed = (
        "--config.backbone.level=none",
        "--config.targets.class_set=crema6",
        "--config.backbone.shards_params=True",
    )
    status, said = _evaluate(finished / "model", _of(tables), workdir, *typed, "--config.eval.splits=('test',)")
    assert status == 0, said
    everyone = next(record for record in records.read(workdir / "results.jsonl") if record.group == "all")
    table = pq.read_table(workdir / "utterances.parquet")
    assert everyone.num_utterances == table["split"].to_pylist().count("test") < 12
    assert everyone.protocol["heard"] == "test"


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--config.optim.learning_rate=0.1"], "--config.optim.learning_rate=0.1 cannot be asked of a model"),
        (["--config.backbone.level=rms"], "--config.backbone.level='rms' cannot be asked of a model that is trained"),
        (["--config.targets.class_set=msp8"], "--config.targets.class_set='msp8' cannot be asked of a model"),
        (["--config.backbone.name=elsewhere"], "where its backbone lies is said by --backbone"),
        (["--config.train.tracker=wandb"], "it is a setting of training"),
        (["--member=best"], "export the members wanted from its workdir instead"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(finished, tables, workdir, others, message):
    status, said = _evaluate(finished / "model", _of(tables), workdir, *others)
    assert (status, message in said) == (1, True), said
    assert "Traceback" not in said
    assert not (workdir / "results.jsonl").exists()


@pytest.mark.parametrize("stage", ["evaluate", "baseline", "saliency", "report"])
def test_a_config_of_another_corpus_is_refused_on_a_trained_workdir(finished, crema_d, stage):
    status, said = launchers.run(stage, *crema_d, f"--workdir={finished / 'workdir'}")
    assert status == 1
    assert "holds the corpus simulated, and --config asks for crema_d" in said
    assert f"python -m launch.evaluate --model={finished / 'workdir'}" in said


def test_the_folder_of_another_corpus_of_the_same_parser_is_refused(tables, workdir, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tables, other)
    for i, path in enumerate(sorted(other.glob("*.*"))):
        if path.suffix not in (".csv", ".json"):
            path.rename(other / f"renamed{i}{path.suffix}")
    for stage in ("ingest", "validate", "report", "saliency", "extract"):
        status, said = launchers.run(stage, *_of(other), f"--workdir={workdir}")
        assert (status, "holds the corpus twelve" in said, f"root={other} holds other" in said) == (1, True, True), said
    # A corpus that has moved is the same one.
    moved = tmp_path / "moved"
    shutil.copytree(tables, moved)
    status, said = launchers.run("ingest", *_of(moved), f"--workdir={workdir}")
    assert (status, "are up to date" in said) == (0, True), said


def _same_corpus(finished, folder, tables):
    return finished / "model", (f"--config={ROOT}/configs/simulated.py:tiny",), folder / "w"


def _own_workdir(finished, folder, tables):
    return finished / "workdir", _of(tables), finished / "workdir"


def _damaged(finished, folder, tables):
    shutil.copytree(finished / "model", folder / "model")
    (folder / "model" / "weights.safetensors").write_bytes(b"no weights")
    return folder / "model", _of(tables), folder / "w"


def _no_audio(finished, folder, tables):
    shutil.copytree(tables, folder / "labels")
    text = (folder / "labels" / "utterances.csv").read_text().splitlines()
    lines = [",".join(cell for n, cell in enumerate(line.split(",")) if n != 1) for line in text]
    (folder / "labels" / "utterances.csv").write_text("\n".join(lines) + "\n")
    return finished / "model", _of(folder / "labels"), folder / "w"


def _no_common_class(finished, folder, tables):
    shutil.copytree(tables, folder / "others")
    text = (folder / "others" / "ratings.csv").read_text()
    for word in ("angry", "happy"):
        text = text.replace(word, "contempt")
    (folder / "others" / "ratings.csv").write_text(text)
    return finished / "model", _of(folder / "others"), folder / "w"


def _no_model(finished, folder, tables):
    return folder, _of(tables), folder / "w"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_same_corpus, "--config names the same corpus"),
        (_own_workdir, "the workdir of the model itself, whose own scores would be overwritten"),
        (_damaged, "weights.safetensors in bytes does not fit"),
        (_no_audio, "no utterance has audio"),
        (_no_model, "is no model"),
        (_no_common_class, "votes of twelve that are heard are for sad of them"),
    ],
)
def test_wrong_models_and_corpora_are_told_in_one_line(finished, tables, tmp_path, make, message):
    model, corpus, workdir = make(finished, tmp_path, tables)
    others = ("--config.corpus.num_speakers=6", "--config.corpus.utterances_per_speaker=1") * (make is _same_corpus)
    status, said = _evaluate(model, corpus, workdir, *others)
    assert (status, message in said) == (1, True), said
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1


def test_member_and_backbone_belong_to_a_model(crema_d, tmp_path):
    status, said = launchers.run("evaluate", *crema_d, f"--workdir={tmp_path}", "--member=best")
    assert status != 0
    assert "--member and --backbone belong to --model" in said


def test_a_run_that_was_cut_off_goes_on_where_it_was(finished, tables, twelve, workdir, monkeypatch):
    monkeypatch.setattr(condition_frames, "BLOCK_BYTES", 1)
    decode, decoded = audio.decode, []

    def limited(path, **options):
        decoded.append(Path(path).name)
        if len(decoded) == 18:  # twelve clean ones, and some of those in noise
            raise KeyboardInterrupt
        return decode(path, **options)

    monkeypatch.setattr(audio, "decode", limited)
    status, said = _evaluate(finished / "model", _of(tables), workdir, CONDITIONS)
    assert (status != 0, "the same command goes on from here" in said) == (True, True), said
    assert not (workdir / "results.jsonl").exists()
    parts = list((workdir / "predictions" / "parts").glob("*.npz"))
    parts[0].write_bytes(b"damaged")
    monkeypatch.setattr(audio, "decode", lambda path, **options: decoded.append(path) or decode(path, **options))
    decoded.clear()
    status, said = _evaluate(finished / "model", _of(tables), workdir, CONDITIONS)
    assert status == 0, said
    assert 0 < len(decoded) <= 24 - len(parts) + 1
    whole, again = (records.read(folder / "results.jsonl") for folder in (twelve[0], workdir))
    assert [dataclasses.replace(r, predictions={}) for r in again] == [
        dataclasses.replace(r, predictions={}) for r in whole
    ]
    assert {record.condition for record in again} == {"clean", "noise:white:0db"}
    assert not (workdir / "predictions" / "parts").exists()


def test_recordings_that_the_model_was_trained_on_are_refused(finished, tmp_path):
    source, root = finished / "workdir", tmp_path / "tables"
    root.mkdir()
    lines, ratings = ["id,audio,speaker,gender"], ["utterance,rater,primary"]
    for row in pq.read_table(source / "utterances.parquet").to_pylist():
        shutil.copy(source / "audio" / row["audio"], root / Path(row["audio"]).name)
        lines.append(f"{row['id']},{Path(row['audio']).name},{row['speaker']},{row['gender']}")
        ratings += [f"{row['id']},r1,{'angry' if len(lines) % 2 else 'sad'}"]
    (root / "utterances.csv").write_text("\n".join(lines) + "\n")
    (root / "ratings.csv").write_text("\n".join(ratings) + "\n")
    config = from_config_dict({"corpus": {"name": "table", "root": os.fspath(root)}})
    with pytest.raises(ArtefactError, match=r"are among those that the model of .* was trained on"):
        cross_corpus.run(config, source, tmp_path / "w", is_quiet=True)


def test_a_corpus_of_several_that_the_model_was_trained_on_is_refused():
    trained = {"corpus": "a+b", "release": "1+2", "split_hash": "s"}
    trained["corpora"] = [{"corpus": "a", "release": "1"}, {"corpus": "b", "release": "2"}]
    about = {"members": [{"fold": None}]}
    for corpus, message in (
        ({"corpus": {"corpus": "b", "release": "2"}}, r"trained on a\+b, and --config names b \(2\), too"),
        (
            {"corpus": {"corpus": "c+a", "release": "3+1"}, "corpora": [{"corpus": "a", "release": "1"}]},
            r"names a \(1\)",
        ),
        ({"corpus": {"corpus": "a+b", "release": "1+2"}, "corpora": trained["corpora"]}, "names the same corpus"),
    ):
        with pytest.raises(ArtefactError, match=message):
            cross_checks.require_other(corpus | {"split_hash": "s"}, about, trained, None)
    cross_checks.require_other({"corpus": {"corpus": "b", "release": "9"}}, about, trained, None)


def test_a_corpus_of_two_speakers_is_scored_without_splits(finished, tables, tmp_path):
    root = Path(shutil.copytree(tables, tmp_path / "two"))
    text = (root / "utterances.csv").read_text().replace(",s2,male", ",s1,female").replace(",s3,", ",s1,")
    (root / "utterances.csv").write_text(text)
    status, said = _evaluate(finished / "model", _of(root), tmp_path / "on")
    assert status == 1
    assert "at least three known speakers; a corpus that a trained model is only scored on takes" in said
    config = from_config_dict(
        {"corpus": {"name": "table", "root": os.fspath(root)}, "data": {"split_kind": "all_test"}}
    )
    ingest.run(config, tmp_path / "on", is_quiet=True)
    assert set(pq.read_table(tmp_path / "on" / "utterances.parquet")["split"].to_pylist()) == {"test"}


def test_a_backbone_that_is_not_here_is_told_before_the_corpus_is_read(finished, tables, tmp_path):
    config = from_config_dict({"corpus": {"name": "table", "root": os.fspath(tables)}})
    with pytest.raises(ArtefactError, match=r"/nowhere/wavlm is no folder here, .*say where it is \(--backbone"):
        cross_corpus.run(config, finished / "model", tmp_path / "on", backbone="/nowhere/wavlm", is_quiet=True)
    assert not (tmp_path / "on" / "utterances.parquet").exists()
    with pytest.raises(ArtefactError, match=r"which is not on this machine: .*--backbone=nobody/wavlm"):
        model_backbone.require_here("model", {"backbone": {"location": "nobody/wavlm"}})

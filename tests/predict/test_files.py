"""Folders, lists and single files through a model: cut off and resumed, bad files told, every format."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.predict import files as predict_files
from seremo_jax.predict import model_folder, predictor, timeline
from seremo_jax.reports import look
from tests.predict.test_predictor import write_bad
from tests.support.small_heads import CLASSES, make

ROOT = Path(__file__).resolve().parents[2]
NUM_FILES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model on log-mel bands."""
    folder = tmp_path_factory.mktemp("models") / "logmel"
    model_folder.write(make(num_members=2, threshold=0.3), folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return predictor.load(folder)


@pytest.fixture
def speech(shared, tmp_path):
    """A folder of 40 links to real speech, some in a subfolder, and notes beside it."""
    paths = sorted((shared / "data" / "crema_d" / "audio").rglob("*.flac"))[:: 2_000 // NUM_FILES][:NUM_FILES]
    assert len(paths) == NUM_FILES
    target = tmp_path / "speech"
    (target / "more").mkdir(parents=True)
    for number, path in enumerate(paths):
        (target / ("more" if number % 4 == 0 else "") / path.name).symlink_to(path)
    (target / "notes.md").write_text("not audio")
    return target


def run(model, source, out=None, form="json", **options):
    return predict_files.run(model, predict_files.find(source), out, form, is_quiet=True, **options)


KILLED = """
import os, signal, sys
from seremo_jax import predict
from seremo_jax.predict import files as predict_files
predict_files._MOST_FILES = 8
model, turns, files = predict.load(sys.argv[1]), [], predict.Predictor.files
def killed(self, paths, **options):
    turns.append(None)
    if len(turns) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return files(self, paths, **options)
predict.Predictor.files = killed
predict_files.run(model, predict_files.find(sys.argv[2]), sys.argv[3])
"""


def test_a_folder_cut_off_goes_on_where_it_was(folder, model, speech, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", KILLED, folder, speech, out]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    journal = tmp_path / "out.jsonl.journal.jsonl"
    assert not out.exists()
    assert len(journal.read_text().splitlines()) == 1 + 16
    with journal.open("a") as file:
        file.write('{"file": "half of a li')
    heard, files = [], predictor.Predictor.files
    with monkeypatch.context() as patch:
        patch.setattr(
            predictor.Predictor,
            "files",
            lambda self, paths, **options: heard.extend(paths) or files(self, paths, **options),
        )
        outcome = run(model, speech, out)
        assert len(heard) == NUM_FILES - 16
        run(model, speech, out)
        assert len(heard) == NUM_FILES - 16
    undisturbed = run(model, speech, tmp_path / "other.jsonl")
    assert [record["file"] for record in outcome.records] == [record["file"] for record in undisturbed.records]
    assert len(outcome.records) == NUM_FILES
    for ours, theirs in zip(outcome.records, undisturbed.records, strict=True):
        assert ours["distribution"] == pytest.approx(theirs["distribution"], abs=2e-6)
    assert [json.loads(line) for line in out.read_text().splitlines()] == outcome.records


def test_bad_files_are_listed_and_the_rest_goes_on(model, speech, tmp_path):
    bad = speech / "bad"
    bad.mkdir()
    reasons = write_bad(bad)
    out = tmp_path / "out.csv"
    outcome = run(model, speech, out, "csv")
    assert {file: reason for file, reason, _ in outcome.bad} == {f"bad/{name}": why for name, why in reasons.items()}
    assert len(outcome.records) == NUM_FILES
    with (tmp_path / "out.csv.bad.csv").open() as file:
        assert {row["file"]: row["reason"] for row in csv.DictReader(file)} == {
            f"bad/{name}": why for name, why in reasons.items()
        }
    good = next(path for path in speech.iterdir() if path.suffix == ".flac")
    for name in reasons:
        (bad / name).unlink()
        (bad / name).symlink_to(good)
    mended = run(model, speech, out, "csv")
    assert not mended.bad
    assert len(mended.records) == NUM_FILES + len(reasons)
    assert not (tmp_path / "out.csv.bad.csv").exists()


def test_every_format_says_the_same(model, speech, tmp_path):
    outs = {form: tmp_path / f"out.{form}" for form in predict_files.FORMATS}
    for form, out in outs.items():
        outcome = run(model, speech / "more", out, form)
    records = [json.loads(line) for line in outs["json"].read_text().splitlines()]
    assert records == outcome.records
    with outs["csv"].open() as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(outs["parquet"]).to_pylist()
    assert len(records) == len(rows) == len(table) == NUM_FILES // 4
    for record, row, other in zip(records, rows, table, strict=True):
        assert row["file"] == other["file"] == record["file"]
        assert row["best_2"] == other["best_2"] == record["best"][1]
        assert row["conformal_set"].split() == other["conformal_set"].split() == record["conformal_set"]
        for name in CLASSES:
            assert float(row[f"p_{name}"]) == other[f"p_{name}"] == record["distribution"][name]
            assert float(row[f"sd_p_{name}"]) == other[f"sd_p_{name}"] == record["distribution_sd"][name]
        assert float(row["valence"]) == other["valence"] == record["attributes"]["valence"]
        assert sum(record["distribution"].values()) == pytest.approx(1, abs=1e-5)


def test_embeddings_on_request(model, speech, tmp_path):
    outcome = run(model, speech / "more", tmp_path / "out.parquet", "parquet", with_embedding=True)
    (first, *_) = pq.read_table(tmp_path / "out.parquet")["embedding"].to_pylist()
    assert np.shape(first) == (2, 5)
    assert first == outcome.records[0]["embedding"]
    with pytest.raises(ArtefactError, match="do not fit csv"):
        run(model, speech, tmp_path / "out.csv", "csv", with_embedding=True)


def test_a_changed_file_is_heard_anew_and_another_model_refused(model, tmp_path):
    rng = np.random.default_rng(0)
    path, out = tmp_path / "a.wav", tmp_path / "out.jsonl"
    soundfile.write(path, 0.1 * rng.standard_normal(16_000), 16_000)
    first = run(model, path, out)
    soundfile.write(path, 0.1 * rng.standard_normal(20_000), 16_000)
    assert run(model, path, out).records != first.records
    model_folder.write(make(num_members=1), tmp_path / "other")
    with pytest.raises(ArtefactError, match=r"journal\.jsonl was begun with does not fit: model: '\w+' there"):
        run(predictor.load(tmp_path / "other"), path, out)
    (tmp_path / "out.jsonl.journal.jsonl").write_text("nonsense\n")
    with pytest.raises(ArtefactError, match=r"journal\.jsonl:1 is damaged"):
        run(model, path, out)


def test_files_of_one_name_size_and_time_are_told_apart_by_their_content(model, tmp_path):
    rng, out = np.random.default_rng(1), tmp_path / "out.jsonl"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "x.wav", 0.1 * rng.standard_normal(16_000), 16_000)
        os.utime(tmp_path / name / "x.wav", ns=(10**18, 10**18))
    first, second = (run(model, tmp_path / name, out).records for name in ("a", "b"))
    assert first != second
    assert second == run(model, tmp_path / "b", tmp_path / "alone.jsonl").records


def test_what_comes_out_of_the_journal_has_its_columns_in_the_order_of_the_model(model, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16_000), 16_000)
    out = tmp_path / "out.csv"
    run(model, tmp_path / "a.wav", out, "csv")
    first = out.read_text()
    run(model, tmp_path / "a.wav", out, "csv")
    assert out.read_text() == first
    names = first.splitlines()[0].replace('"', "").split(",")
    assert [name for name in names if name.startswith("p_")] == [f"p_{name}" for name in CLASSES]
    assert names.index("valence") < names.index("activation")


def test_a_changed_score_in_the_journal_is_refused(model, speech, tmp_path):
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal.jsonl"
    (share, *_) = run(model, next(speech.glob("*.flac")), out).records[0]["distribution"].values()
    text = journal.read_text()
    assert str(share) in text
    journal.write_text(text.replace(str(share), str(round(share + 0.01, 6))))
    with pytest.raises(ArtefactError, match=r"journal\.jsonl:2 does not fit"):
        run(model, next(speech.glob("*.flac")), out)


def test_lists_and_what_is_none(model, speech, tmp_path):
    names = [f"speech/{path.name}" for path in sorted(speech.glob("*.flac"))[:3]]
    (tmp_path / "some.txt").write_text("\n".join([*names, "", names[0], "speech/absent.wav"]))
    outcome = run(model, tmp_path / "some.txt")
    assert [record["file"] for record in outcome.records] == names
    assert [(file, reason) for file, reason, _ in outcome.bad] == [("speech/absent.wav", "missing")]
    assert predict_files.find(speech).num_ignored == {".md": 1}
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("\n")
    for source, message in (("empty", "has no audio file"), ("none.txt", "is empty"), ("gone.txt", "cannot be read")):
        with pytest.raises(ArtefactError, match=message):
            predict_files.find(tmp_path / source)


def test_long_recordings_leave_a_timeline(model, speech, tmp_path):
    waves = [soundfile.read(path)[0] for path in sorted(speech.glob("*.flac"))[:16]]
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "talk.flac", np.concatenate(waves), 16_000)
    soundfile.write(tmp_path / "in" / "word.flac", waves[0], 16_000)
    out = tmp_path / "out.jsonl"
    outcome = run(model, tmp_path / "in", out, with_timeline=True)
    folder = tmp_path / "out.jsonl.timeline"
    assert sorted(path.name for path in folder.iterdir()) == ["talk.flac.csv", "talk.flac.png"]
    with (folder / "talk.flac.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["start_s", "end_s", *(f"p_{name}" for name in CLASSES), "valence", "activation"]
    assert float(rows[-1]["end_s"]) == pytest.approx(outcome.records[0]["duration_s"], abs=1e-3)
    spans = np.array([float(row["end_s"]) - float(row["start_s"]) for row in rows])
    mean = np.average([float(row["p_sad"]) for row in rows], weights=spans)
    assert mean == pytest.approx(outcome.records[0]["distribution"]["sad"], abs=1e-4)
    assert (folder / "talk.flac.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArtefactError, match="beside --out"):
        run(model, tmp_path / "in", with_timeline=True)


def test_the_figure_shows_every_class_and_attribute(model, speech):
    waves = [soundfile.read(path)[0] for path in sorted(speech.glob("*.flac"))[:16]]
    result = model(np.concatenate(waves), 16_000)
    figure = timeline.figure(look.LIGHT, "talk.flac", result)
    labels = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert labels == [*CLASSES, "valence", "activation"]
    heights = [area.get_paths()[0].get_extents().y1 for area in figure.axes[0].collections]
    assert heights[-1] == pytest.approx(1, abs=1e-6)


def launch(name, *arguments):
    command = [sys.executable, "-m", f"launch.{name}", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr
    return done


def test_the_launcher_prints_results_and_tells_bad_files_by_its_exit_code(folder, speech, tmp_path):
    (speech / "more" / "text.wav").write_text("no audio")
    done = launch("predict", "--model", folder, speech / "more")
    assert done.returncode == 2
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == NUM_FILES // 4
    assert "cannot be used: text.wav: unreadable" in done.stderr
    assert f"{NUM_FILES // 4} files predicted, 1 cannot be used" in done.stderr
    path = next(speech.glob("*.flac"))
    done = launch("predict", f"--model={folder}", path, "--format=csv", f"--out={tmp_path / 'out.csv'}")
    assert done.returncode == 0
    assert (tmp_path / "out.csv").read_text().startswith('"file","duration_s","p_angry"')


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("predict", ["--help"], "goes on where it was"),
        ("predict", ["--model=nowhere", "a.wav"], "error: nowhere is no model"),
        ("predict", ["--model=nowhere"], "give one file, folder or list"),
        ("export", ["--help"], "a pattern"),
        ("export", ["--workdir=nowhere", "--to=x"], "error: nowhere/train/finished.json is missing"),
    ],
)
def test_wrong_input_is_told_plainly(name, arguments, message):
    done = launch(name, *arguments)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr

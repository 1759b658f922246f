"""`validation/` as ingest and the launcher write it: page, Markdown, JSON, exit codes; splits as the settings ask."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from seremo_jax.core import artefacts
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.data import corpora, ingest, splits, tables
from seremo_jax.reports import page, validation
from tests.data.test_ingest import BAD_AUDIO, config_of, run, toy
from tests.support import iemocap_files, msp_podcast_files

__all__ = ["toy"]

ROOT = Path(__file__).resolve().parents[2]


def validate(toy, workdir, **data):
    return {finding.name: finding for finding in validation.run(config_of(toy, **data), workdir, is_quiet=True)}


def found(findings):
    return {name: finding.cases for name, finding in findings.items() if finding.count}


def test_ingest_and_validate_find_the_same(toy, tmp_path):
    BAD_AUDIO["lfs_pointer"](toy.root / "m1-2.wav")
    run(toy, tmp_path / "w")
    findings = validate(toy, tmp_path / "v")
    assert found(findings)["audio_lfs_pointer"] == ("m1-2: m1-2.wav",)
    ingested, validated = (
        json.loads((tmp_path / folder / "validation/validation.json").read_text(encoding="utf-8")) for folder in "wv"
    )
    assert ingested == validated
    assert not (tmp_path / "v/utterances.parquet").exists()
    assert {path.name for path in (tmp_path / "w/validation").iterdir()} == {"validation.json"}


def test_a_copy_stands_in_the_split_of_its_speaker_though_it_is_left_out(toy, tmp_path):
    run(toy, tmp_path / "w")
    utterances, _, _ = tables.read_tables(tmp_path / "w")
    split_of = dict(zip(utterances["speaker"].to_pylist(), utterances["split"].to_pylist(), strict=True))
    other = next(speaker for speaker, split in split_of.items() if split != split_of["f0"] and speaker[0] == "m")
    BAD_AUDIO["duplicate_audio"](toy.root / f"{other}-1.wav")
    findings = validate(toy, tmp_path / "v")
    case = f"f0-0 ({split_of['f0']}) = {other}-1 ({split_of[other]})"
    assert found(findings) == {"duplicate_audio_across_splits": (case,)}


def test_what_is_fatal_in_ingest_is_a_finding_here(toy, tmp_path):
    """S3: no fallback path; ingest stops, validate lists every speaker and says what to do."""
    for row in toy.rows:
        row["split"] = "train"
    toy.row("m2-3")["split"] = toy.row("f1-1")["split"] = "test"
    with pytest.raises(splits.SplitError, match="speaker f1 is in the splits"):
        run(toy, tmp_path / "w")
    findings = validate(toy, tmp_path / "v")
    assert findings["speaker_in_two_splits"].cases == ("f1: test and train", "m2: test and train")
    assert findings["splits"].is_error
    assert "f1: test and train" in (tmp_path / "v/validation/index.html").read_text(encoding="utf-8")
    toy.ratings.append(("f0-0", "grumpy"))
    assert validate(toy, tmp_path / "v")["unknown_words"].cases == ("'grumpy': 1 votes",)


def test_a_corpus_without_one_usable_utterance_is_described_too(toy, tmp_path):
    for path in toy.root.iterdir():
        BAD_AUDIO["empty"](path)
    findings = validate(toy, tmp_path / "v")
    assert findings["audio_empty"].count == 48
    assert findings["missing_split"].cases == ("train", "development", "test")
    assert "audio empty (48)" in (tmp_path / "v/validation/validation.md").read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_says_everything(toy, tmp_path):
    BAD_AUDIO["missing"](toy.root / "m1-2.wav")
    validate(toy, tmp_path / "v")
    folder = tmp_path / "v/validation"
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href|srcset)="(?!data:|#)', text)
    assert "http" not in re.sub(r"data:image/svg\+xml;base64,[\w+/=]+", "", text)
    assert "Error: audio missing (1)" in text
    assert "m1-2: m1-2.wav" in text
    assert text.count("<figure") == 5
    lines = (folder / "validation.md").read_text(encoding="utf-8")
    assert "**Error: audio missing (1)**" in lines
    for name in re.findall(r"\]\((\w+\.png)\)", lines):
        assert (folder / name).stat().st_size > 1_000
    assert "error, audio_missing (no such file): 1: m1-2" in validation.describe(validation.read(tmp_path / "v"))
    assert not [path for path in (tmp_path / "v").iterdir() if path.name.startswith(".")]


def test_the_numbers_behind_the_plots(toy, tmp_path):
    toy.ratings += [("f0-0", "sad"), ("f0-0", "other-x")]
    validate(toy, tmp_path / "v", max_seconds=3.0)
    numbers = json.loads((tmp_path / "v/validation/validation.json").read_text(encoding="utf-8"))["numbers"]
    assert numbers["splits"] == ["train", "development", "test"]
    assert numbers["words"] == ["angry", "disgust", "fear", "happy", "neutral", "sad", "other"]
    assert np.sum(numbers["votes_by_class"], axis=0).tolist() == [16, 16, 16, 16, 16, 17, 1]
    assert numbers["votes_per_utterance"] == [[2, 47], [4, 1]]
    assert sum(numbers["entropy_bits"]["counts"]) == sum(numbers["duration_s"]["counts"]) == 48
    # Two angry votes, one sad, one other: 1.5 bits, in one of 48 utterances.
    assert numbers["entropy_bits"]["mean"] == pytest.approx(1.5 / 48, abs=1e-6)
    assert numbers["duration_s"]["median"] == pytest.approx(0.3)
    assert {gender: sum(n) for gender, n in numbers["speakers"].items()} == {"female": 4, "male": 4}


def test_what_an_ingest_found_is_read_again_until_it_is_deleted(toy, tmp_path, capsys):
    run(toy, tmp_path / "w")
    (toy.root / "m1-2.wav").unlink()
    assert not found(validate(toy, tmp_path / "w"))
    validation.run(config_of(toy), tmp_path / "w")
    assert "delete it to check anew" in capsys.readouterr().out
    with pytest.raises(artefacts.ArtefactError, match=r"data\.split_seed: 0 there, 1 asked for"):
        validate(toy, tmp_path / "w", split_seed=1)
    (tmp_path / "w/validation/validation.json").unlink()
    assert list(found(validate(toy, tmp_path / "w"))) == ["audio_missing"]


def test_findings_of_other_tables_are_not_taken_for_these(toy, tmp_path):
    run(toy, tmp_path / "w")
    path = tmp_path / "w/validation/validation.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    artefacts.write_json(path, record | {"fingerprint": "0" * 16})
    (toy.root / "m1-2.wav").unlink()
    assert list(found(validate(toy, tmp_path / "w"))) == ["audio_missing"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(toy, tmp_path, monkeypatch):
    validate(toy, tmp_path / "v")
    before = {path.name: path.read_bytes() for path in (tmp_path / "v/validation").iterdir()}

    def fail(content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "markdown", fail)
    with pytest.raises(OSError, match="No space"):
        validation.write_page(tmp_path / "v")
    assert {path.name: path.read_bytes() for path in (tmp_path / "v/validation").iterdir()} == before
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["validation"]


def test_no_findings_to_show_is_an_error_with_its_remedy(tmp_path):
    with pytest.raises(artefacts.ArtefactError, match=r"validation\.json is missing; run python -m launch\.validate"):
        validation.write_page(tmp_path)


def write_table_corpus(root):
    root.mkdir()
    lines = ["utterance,audio,speaker,gender,rater,primary"]
    for seed, speaker in enumerate("abcdef"):
        for word in ("angry", "happy", "neutral", "sad"):
            name = f"{speaker}-{word}"
            gender = ("female", "male")[seed % 2]
            lines += [f"{name},{name}.wav,{speaker},{gender},{rater},{word}" for rater in ("r1", "r2")]
            soundfile.write(root / f"{name}.wav", np.random.default_rng(len(lines)).uniform(-0.1, 0.1, 4_000), 16_000)
    (root / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_launcher_tells_errors_by_its_exit_code(tmp_path):
    """T8: failure is passed on."""
    write_table_corpus(tmp_path / "corpus")

    def launch():
        command = [sys.executable, "-m", "launch.validate", "--config=configs/table.py",
                   f"--config.corpus.root={tmp_path / 'corpus'}", f"--workdir={tmp_path / 'w'}"]  # fmt: skip
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)

    done = launch()
    assert done.returncode == 0, done.stderr
    assert "31 checks: errors in 0, warnings in 0" in done.stdout
    assert "<b>48</b>" in (tmp_path / "w/validation/index.html").read_text(encoding="utf-8")
    (tmp_path / "corpus/a-sad.wav").unlink()
    done = launch()
    assert done.returncode == 1
    assert "error, audio_missing" in done.stdout
    assert "a-sad.wav" in (tmp_path / "w/validation/validation.md").read_text(encoding="utf-8")


def test_validate_needs_no_jax():
    code = "import sys, seremo_jax.reports.validation; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def with_audio(name, root, **policies):
    utterances, _ = corpora.parse(name, root, **policies)
    for seed, path in enumerate(utterances["audio"].to_pylist()):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, np.random.default_rng(seed).uniform(-0.1, 0.1, 3_200), 16_000)


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory):
    root = tmp_path_factory.mktemp("iemocap")
    iemocap_files.write_iemocap(root, iemocap_files.simulate(num_sessions=5, turns_each=2))
    with_audio("iemocap", root)
    return root


def iemocap_splits(root, workdir, **data):
    config = from_config_dict({"corpus": {"name": "iemocap", "root": str(root)}, "data": {"modality": "both"} | data})
    record = ingest.run(config, workdir, is_quiet=True)
    utterances, _, _ = tables.read_tables(workdir)
    rows = list(zip(*(utterances[name].to_pylist() for name in ("split", "session")), strict=True))
    assert len(set(utterances["speaker"].to_pylist())) == 10
    return record, {split: {row[1] for row in rows if row[0] == split} for split in record["splits"]}


def test_iemocap_by_session_and_by_the_published_folds(iemocap, tmp_path):
    """S1, S3, S5: ten people, one session a split, and the hash tells one split from another."""
    record, sessions = iemocap_splits(iemocap, tmp_path / "a", split_kind="session", fold=4)
    assert (sessions["test"], sessions["development"], len(sessions["train"])) == ({"5"}, {"1"}, 3)
    assert record["splits"]["train"]["utterances"] > record["splits"]["test"]["utterances"] > 0
    again, sessions = iemocap_splits(iemocap, tmp_path / "b", split_kind="published", fold=4)
    assert (sessions["test"], sessions["development"]) == ({"5"}, {"1"})
    assert again["split_hash"] == record["split_hash"]
    other, sessions = iemocap_splits(iemocap, tmp_path / "c", split_kind="published", fold=3)
    assert (sessions["test"], sessions["development"]) == ({"1"}, {"2"})
    assert other["split_hash"] != record["split_hash"]


def test_a_session_that_is_not_there_stops_ingest_and_is_a_finding(iemocap, tmp_path):
    data = {"modality": "both", "split_kind": "session", "fold": 5}
    config = from_config_dict({"corpus": {"name": "iemocap", "root": str(iemocap)}, "data": data})
    with pytest.raises(splits.SplitError, match=r"data\.fold = 5: there are 5 sessions, 0 to 4"):
        ingest.run(config, tmp_path / "w", is_quiet=True)
    findings = {finding.name: finding for finding in validation.run(config, tmp_path / "v", is_quiet=True)}
    assert findings["splits"].is_error


def test_k_folds_through_ingest_cover_everyone_once(toy, tmp_path):
    tested = []
    for fold in range(4):
        run(toy, tmp_path / f"w{fold}", split_kind="kfold", num_folds=4, fold=fold)
        utterances, _, _ = tables.read_tables(tmp_path / f"w{fold}")
        rows = zip(utterances["split"].to_pylist(), utterances["speaker"].to_pylist(), strict=True)
        tested += sorted({speaker for split, speaker in rows if split == "test"})
    assert sorted(tested) == sorted({row["speaker"] for row in toy.rows})


def test_splits_by_class_are_made_from_the_votes(toy, tmp_path):
    """Two speakers of each gender are always sad: at most one of each is in train with 50 % of the speakers."""
    sad = ("f0", "f1", "m0", "m1")
    toy.ratings = [(name, "sad" if name[:2] in sad else "happy") for name, _ in toy.ratings]
    for seed in range(5):
        data = {"split_seed": seed, "split_shares": (0.5, 0.25, 0.25)}
        record = run(toy, tmp_path / f"w{seed}", split_kind="derived_by_class", **data)
        assert record["splits"]["train"]["by_class"]["sad"] == record["splits"]["train"]["by_class"]["happy"] == 12


def test_a_fold_that_means_nothing_is_refused():
    for data, message in (
        ({"fold": 1}, r"data\.fold = 1 means nothing for data\.split_kind = auto"),
        ({"split_kind": "kfold", "fold": 5}, r"data\.fold = 5: the folds are 0 to 4"),
        ({"split_kind": "kfolds"}, "choose one of auto, derived_by_class, session, kfold, published"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_config_dict({"data": data})


def unknown(toy):
    for name in ("f0-0", "m0-0", "m1-0"):
        toy.row(name).update(speaker="unknown", gender="unknown")
    return toy


def test_what_becomes_of_unknown_speakers(toy, tmp_path):
    """S6: kept in training, dropped and counted, or each a speaker of its own."""
    kept = run(unknown(toy), tmp_path / "train")
    utterances, _, _ = tables.read_tables(tmp_path / "train")
    rows = zip(utterances["speaker"].to_pylist(), utterances["split"].to_pylist(), strict=True)
    assert [split for speaker, split in rows if speaker == "unknown"] == ["train"] * 3
    dropped = run(toy, tmp_path / "drop", unknown_speakers="drop")
    assert dropped["excluded"] == {"unknown_speaker": ["f0-0", "m0-0", "m1-0"]}
    assert dropped["ratings"]["dropped"] == {"unknown_speaker": 6}
    each = run(toy, tmp_path / "each", unknown_speakers="each")
    assert each["utterances"] == kept["utterances"]
    num = [sum(split["speakers"] for split in record["splits"].values()) for record in (kept, dropped, each)]
    assert num == [8, 8, 11]
    assert "unknown_speaker" in found(validate(toy, tmp_path / "v"))
    assert "unknown_speaker" not in found(validate(toy, tmp_path / "v", unknown_speakers="each"))


def test_msp_podcast_test_sets_and_withheld_labels(tmp_path):
    """S3, S6: Test1 and Test2 may share speakers, and Test3, whose labels are withheld, is counted."""
    turns = msp_podcast_files.simulate(seed=3, num_utterances=28, has_test3=True)
    shared = next(turn.speaker for turn in turns if turn.split == "Test1")
    shared_gender = next(turn.gender for turn in turns if turn.split == "Test1")
    turns = [
        turn._replace(speaker=shared, gender=shared_gender) if turn.split in ("Test1", "Test2") else turn
        for turn in turns
    ]
    msp_podcast_files.write_release(tmp_path, turns, "1.11")
    with_audio("msp_podcast", tmp_path)
    config = from_config_dict({"corpus": {"name": "msp_podcast", "root": str(tmp_path)},
                               "targets": {"class_set": "msp8"}})  # fmt: skip
    findings = {finding.name: finding for finding in validation.run(config, tmp_path / "w", is_quiet=True)}
    assert not [finding for finding in findings.values() if finding.is_error]
    withheld = {turn.name for turn in turns if turn.split == "Test3"}
    assert set(findings["withheld_labels"].cases) == withheld
    assert findings["released_consensus"].count == findings["no_ratings"].count == 0


def test_small_inputs_that_failed_are_findings(toy, tmp_path, shared):
    for name, path in (("f0-0", "cut.aiff"), ("f0-1", "cut.w64"), ("f0-2", "phone.m4a"), ("f0-3", "riff_plus1.wav")):
        toy.row(name)["audio"] = str(shared / "cases" / "audio" / path)
    cases = found(validate(toy, tmp_path / "v"))["audio_unreadable"]
    assert [case.split(":")[0] for case in cases] == ["f0-0", "f0-1", "f0-2"]
    assert "cut off" in cases[0]
    assert "cut off" in cases[1]
    assert "ffmpeg -i phone.m4a phone.wav" in cases[2]

"""Ingest: every kind of bad input is an error or a counted exclusion, totals close, nothing half-written is left."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from seremo_jax.core import artefacts, schema
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import corpora, ingest, roots, screening, splits, tables
from seremo_jax.data.text_lines import Report

RATE_HZ = 16_000
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad")
SPEAKERS = [f"{gender[0]}{i}" for gender in ("female", "male") for i in range(4)]


def noise(seed, duration_s=0.3, rate_hz=RATE_HZ):
    return np.random.default_rng(seed).uniform(-0.2, 0.2, int(duration_s * rate_hz))


class Toy:
    """A corpus in memory with audio in a folder: eight speakers who say each class once."""

    def __init__(self, root):
        self.root = root
        self.rows = []
        self.ratings = []
        for s, speaker in enumerate(SPEAKERS):
            for c, word in enumerate(CLASSES):
                self.add(f"{speaker}-{c}", speaker, word, noise(100 * s + c))

    def add(self, name, speaker, word, samples, rate_hz=RATE_HZ, split="", **options):
        gender = {"f": "female", "m": "male"}.get(speaker[0], "unknown")
        self.rows.append({"id": name, "audio": f"{name}.wav", "speaker": speaker, "gender": gender, "split": split})
        self.ratings += [(name, word)] * 2
        soundfile.write(self.root / f"{name}.wav", samples, rate_hz, **options)

    def parse(self, root, *, is_quiet=False):
        info = schema.CorpusInfo("toy", "1", "crema6", {}, notes=("a toy",))
        columns = {name: [row[name] for row in self.rows] for name in ("id", "audio", "speaker", "gender", "split")}
        n, r = len(self.rows), len(self.ratings)
        columns |= {"corpus": ["toy"] * n, "release": ["1"] * n, "duration_s": [0.0] * n, "audio_sha256": [""] * n}
        rated = {"utterance": [name for name, _ in self.ratings], "primary": [word for _, word in self.ratings]}
        rated |= {"rater": [f"r{i}" for i in range(r)], "modality": ["voice"] * r, "secondary": [[]] * r}
        rated |= {name: [None] * r for name in ("valence", "activation", "dominance")}
        utterances = tables.make_table(columns, schema.UTTERANCE_SCHEMA, info)
        return tables.with_report(utterances, Report()), tables.make_table(rated, schema.RATING_SCHEMA, info)

    def row(self, name):
        return next(row for row in self.rows if row["id"] == name)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    root = tmp_path / "corpus"
    root.mkdir()
    corpus = Toy(root)
    monkeypatch.setitem(corpora.PARSERS, "toy", corpus.parse)
    return corpus


def config_of(toy, **data):
    return from_config_dict({"corpus": {"name": "toy", "root": str(toy.root)}, "data": data})


def run(toy, workdir, **data):
    return ingest.run(config_of(toy, **data), workdir, is_quiet=True)


def totals_close(record):
    for what in ("utterances", "ratings"):
        part = record[what]
        left_out = part["excluded" if what == "utterances" else "dropped"]
        assert part["found"] == part["kept"] + sum(left_out.values())
    assert {reason: len(names) for reason, names in record["excluded"].items()} == record["utterances"]["excluded"]
    assert record["utterances"]["kept"] == sum(split["utterances"] for split in record["splits"].values())
    for split in record["splits"].values():
        assert split["utterances"] == sum(part["utterances"] for part in split["by_gender"].values())
        assert split["utterances"] == sum(split["by_class"].values())


def test_a_good_corpus_gives_tables_split_by_speaker(toy, tmp_path):
    record = run(toy, tmp_path / "w")
    totals_close(record)
    assert record["utterances"] == {"found": 48, "kept": 48, "excluded": {}}
    assert record["warnings"] == []
    assert record == artefacts.read_json(tmp_path / "w/ingest.json", "")
    utterances, ratings, fingerprint = tables.read_tables(tmp_path / "w")
    assert fingerprint == record["fingerprint"]
    assert utterances["duration_s"].to_pylist() == [0.3] * 48
    assert len(set(utterances["audio_sha256"].to_pylist())) == 48
    assert ratings.num_rows == 96
    assert utterances["id"].to_pylist() == sorted(utterances["id"].to_pylist())
    rows = list(zip(utterances["speaker"].to_pylist(), utterances["split"].to_pylist(), strict=True))
    assert len(set(rows)) == 8
    assert {name: split["speakers"] for name, split in record["splits"].items()} == {
        "train": 4, "development": 2, "test": 2,
    }  # fmt: skip
    assert all(split["by_gender"].keys() == {"female", "male"} for split in record["splits"].values())
    assert record["splits"]["test"]["by_class"] == dict.fromkeys(CLASSES, 2) | {"no_agreement": 0}


BAD_AUDIO = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "unreadable": lambda path: path.write_text("no audio"),
    "lfs_pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "nan": lambda path: soundfile.write(path, np.full(4800, np.nan), RATE_HZ, subtype="FLOAT"),
    "unscaled": lambda path: soundfile.write(path, 3e4 * noise(0), RATE_HZ, subtype="FLOAT"),
    "silent": lambda path: soundfile.write(path, np.zeros(4800), RATE_HZ),
    "too_short": lambda path: soundfile.write(path, noise(0, 0.05), RATE_HZ),
    "too_long": lambda path: soundfile.write(path, noise(0, 3.1), RATE_HZ),
    "duplicate_audio": lambda path: path.write_bytes((path.parent / "f0-0.wav").read_bytes()),
}


@pytest.mark.parametrize("reason", BAD_AUDIO)
def test_bad_audio_is_counted_and_left_out_or_an_error(toy, tmp_path, reason):
    BAD_AUDIO[reason](toy.root / "m1-2.wav")
    record = run(toy, tmp_path / "w", max_seconds=3.0)
    totals_close(record)
    assert record["utterances"]["excluded"] == {reason: 1}
    assert record["ratings"]["dropped"] == {reason: 2}
    assert record["excluded"] == {reason: ["m1-2"]}
    assert record["details"]["m1-2"]
    assert str(tmp_path) not in json.dumps(record["details"])
    utterances, ratings, _ = tables.read_tables(tmp_path / "w")
    assert "m1-2" not in utterances["id"].to_pylist() + ratings["utterance"].to_pylist()
    with pytest.raises(ingest.IngestError, match=f"m1-2: {reason}"):
        run(toy, tmp_path / "strict", max_seconds=3.0, on_bad_audio="error")
    assert not (tmp_path / "strict").exists()


def test_every_reason_of_the_audio_reader_is_tested():
    assert set(BAD_AUDIO) == set(screening.BAD_AUDIO)


def test_audio_that_needs_conversion_is_used_and_said_so(toy, tmp_path):
    for i, rate_hz in enumerate((8_000, 44_100, 48_000)):
        soundfile.write(toy.root / f"f{i}-0.wav", noise(i, rate_hz=rate_hz), rate_hz)
    soundfile.write(toy.root / "f3-0.wav", noise(7).reshape(-1, 2), RATE_HZ)
    soundfile.write(toy.root / "m0-0.wav", noise(8), RATE_HZ, subtype="ULAW")
    record = run(toy, tmp_path / "w", min_seconds=0.1)
    totals_close(record)
    assert record["utterances"]["kept"] == 48
    assert (record["audio"]["resampled"], record["audio"]["mixed_down"]) == (3, 1)
    assert record["audio"]["by_rate_hz"] == {"8000": 1, "16000": 45, "44100": 1, "48000": 1}
    assert any("3 utterances are resampled" in warning for warning in record["warnings"])
    assert any("1 utterances have several channels" in warning for warning in record["warnings"])


def test_ratings_without_audio_and_audio_without_ratings(toy, tmp_path):
    toy.row("f0-1")["audio"] = ""
    toy.ratings = [rating for rating in toy.ratings if rating[0] != "f0-2"]
    toy.ratings.append(("nobody", "sad"))
    record = run(toy, tmp_path / "w", on_bad_audio="error")
    totals_close(record)
    assert record["excluded"] == {"no_audio": ["f0-1"], "no_ratings": ["f0-2"]}
    assert record["ratings"]["dropped"] == {"no_audio": 2, "no_utterance": 1}


def test_duplicate_ids_keep_the_first_row_and_the_ratings(toy, tmp_path):
    toy.rows.append(toy.row("f0-1") | {"audio": "m0-0.wav"})
    record = run(toy, tmp_path / "w")
    totals_close(record)
    assert record["excluded"] == {"duplicate_id": ["f0-1"]}
    assert record["ratings"]["kept"] == 96
    utterances, _, _ = tables.read_tables(tmp_path / "w")
    audio = dict(zip(utterances["id"].to_pylist(), utterances["audio"].to_pylist(), strict=True))
    assert audio["f0-1"] == "f0-1.wav"


def test_of_duplicate_audio_the_first_id_stays_whatever_the_order(toy, tmp_path):
    BAD_AUDIO["duplicate_audio"](toy.root / "m1-2.wav")
    toy.rows.reverse()
    record = run(toy, tmp_path / "w")
    assert record["excluded"] == {"duplicate_audio": ["m1-2"]}
    assert record["details"]["m1-2"] == "the same samples as f0-0"


def test_order_of_rows_changes_no_table(toy, tmp_path):
    record = run(toy, tmp_path / "a")
    np.random.default_rng(0).shuffle(toy.rows)
    again = run(toy, tmp_path / "b")
    assert (again["split_hash"], again["fingerprint"]) == (record["split_hash"], record["fingerprint"])
    assert run(toy, tmp_path / "c", split_seed=1)["split_hash"] != record["split_hash"]


def test_max_speakers_keeps_a_balanced_draw_and_reads_no_other_audio(toy, tmp_path):
    for c in range(6):
        (toy.root / f"f0-{c}.wav").write_text("would be unreadable")
    records = [run(toy, tmp_path / f"w{seed}", max_speakers=6, split_seed=seed) for seed in range(8)]
    for record in records:
        totals_close(record)
        assert record["utterances"]["excluded"]["not_drawn"] == 12
        speakers = [split["by_gender"].values() for split in record["splits"].values()]
        assert sum(part["speakers"] for parts in speakers for part in parts) in (5, 6)
    assert {record["utterances"]["excluded"].get("unreadable", 0) for record in records} == {0, 6}


def test_nothing_usable_is_an_error_that_says_how_to_fetch(toy, tmp_path):
    for path in toy.root.iterdir():
        BAD_AUDIO["lfs_pointer"](path)
    with pytest.raises(ingest.IngestError, match=r"lfs_pointer 48\nFetch .*git lfs pull"):
        run(toy, tmp_path / "w")
    for row in toy.rows:
        row["audio"] = ""
    for max_speakers in (0, 6):
        with pytest.raises(ingest.IngestError, match=r"no utterance has audio.*launch\.ingest --explain"):
            run(toy, tmp_path / "w", max_speakers=max_speakers)
    assert not (tmp_path / "w").exists()


def test_some_pointers_leave_a_note(toy, tmp_path):
    BAD_AUDIO["lfs_pointer"](toy.root / "m1-2.wav")
    assert any("1 audio files are Git LFS pointers" in warning for warning in run(toy, tmp_path / "w")["warnings"])


def test_a_split_without_a_gender_or_a_class_is_noted(toy, tmp_path):
    for row in toy.rows:
        row["split"] = "train" if row["speaker"][1] in "01" else "development"
        if row["speaker"] == "f3":
            row["split"] = "test"
    toy.ratings = [(name, "sad" if name == "f3-0" else word) for name, word in toy.ratings]
    record = run(toy, tmp_path / "w")
    assert [warning.split(":")[0] for warning in record["warnings"]] == [
        "split test has no male speaker",
        "split test has no utterance with consensus angry",
    ]
    toy.rows = [row for row in toy.rows if row["split"] == "train"]
    record = run(toy, tmp_path / "v")
    assert record["warnings"] == ["there is no split development", "there is no split test"]


def test_a_speaker_in_two_splits_is_fatal(toy, tmp_path):
    for row in toy.rows:
        row["split"] = "train"
    toy.row("m2-3")["split"] = "test"
    with pytest.raises(splits.SplitError, match="speaker m2 is in the splits test and train"):
        run(toy, tmp_path / "w")
    toy.row("m2-3")["split"] = ""
    with pytest.raises(splits.SplitError, match="1 utterances are in no split"):
        run(toy, tmp_path / "w")


def test_a_finished_ingest_is_not_repeated(toy, tmp_path, monkeypatch, capsys):
    record = run(toy, tmp_path / "w")
    monkeypatch.setitem(corpora.PARSERS, "toy", None)
    toy.root.rename(tmp_path / "gone")
    assert ingest.run(config_of(toy), tmp_path / "w") == record
    assert "up to date" in capsys.readouterr().out


def test_other_settings_are_refused_by_naming_both_sides(toy, tmp_path):
    run(toy, tmp_path / "w")
    with pytest.raises(artefacts.ArtefactError, match=r"data\.split_seed: 0 there, 5 asked for.*another --workdir"):
        run(toy, tmp_path / "w", split_seed=5)


def test_changed_tables_are_refused_and_missing_ones_made_anew(toy, tmp_path):
    record = run(toy, tmp_path / "w")
    (tmp_path / "w/ratings.parquet").unlink()
    assert run(toy, tmp_path / "w") == record
    tables.write_table(tmp_path / "w/ratings.parquet", tables.read_ratings(tmp_path / "w").slice(1))
    with pytest.raises(artefacts.ArtefactError, match=r"of \S+ratings\.parquet .*launch\.ingest"):
        run(toy, tmp_path / "w")


@pytest.mark.parametrize("name", ["utterances.parquet", "ratings.parquet"])
def test_a_flipped_bit_in_a_table_is_noticed_wherever_it_lies(toy, tmp_path, name):
    run(toy, tmp_path / "w")
    path = tmp_path / "w" / name
    whole = path.read_bytes()
    for place in np.random.default_rng(0).choice(len(whole), 60, replace=False):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(artefacts.ArtefactError, match=rf"SHA-256 of \S+{name} .*is damaged.*launch\.ingest"):
            tables.read_tables(tmp_path / "w")


def test_an_old_stamp_does_not_vouch_for_new_tables(toy, tmp_path, monkeypatch):
    run(toy, tmp_path / "w")
    (tmp_path / "w/ratings.parquet").unlink()

    def die(path, table):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "write_table", die)
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "w")
    assert not (tmp_path / "w/ingest.json").exists()


def test_an_ingest_that_was_killed_leaves_nothing_that_is_read(toy, tmp_path, monkeypatch):
    whole = run(toy, tmp_path / "whole")

    def die(path, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "write_json", die)
        with pytest.raises(KeyboardInterrupt):
            run(toy, tmp_path / "w")
    (tmp_path / "w/.ratings.parquet.x.tmp").mkdir()
    with pytest.raises(artefacts.ArtefactError, match="did not finish"):
        tables.read_tables(tmp_path / "w")
    assert run(toy, tmp_path / "w") == whole
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [
        "ingest.json", "ratings.parquet", "utterances.parquet", "validation",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", ["utterances.parquet", "ratings.parquet", "validation.json", "ingest.json"])
def test_a_full_disk_leaves_nothing_and_says_so(toy, tmp_path, monkeypatch, stage):
    real_table, real_json = tables.write_table, ingest.write_json

    def write(real):
        def fail_at_stage(path, value):
            if path.name == stage:
                with artefacts.atomic_path(path) as temporary:
                    temporary.write_bytes(b"half")
                    raise OSError(28, "No space left on device")
            real(path, value)

        return fail_at_stage

    with monkeypatch.context() as patch:
        patch.setattr(tables, "write_table", write(real_table))
        patch.setattr(ingest, "write_json", write(real_json))
        with pytest.raises(ingest.IngestError, match=r"No space left on device.*Free some space"):
            run(toy, tmp_path / "w")
    assert not list((tmp_path / "w").glob("*"))
    assert run(toy, tmp_path / "w")["utterances"]["kept"] == 48


def test_a_root_that_is_not_there_is_an_error_that_names_the_flag(toy, tmp_path):
    for root, message in (("", "not part of this project"), (str(tmp_path / "nowhere"), "is no folder")):
        config = from_config_dict({"corpus": {"name": "toy", "root": root}})
        with pytest.raises(ingest.IngestError, match=rf"{message}|--config\.corpus\.root") as error:
            ingest.run(config, tmp_path / "w", is_quiet=True)
        assert "--config.corpus.root" in str(error.value)
        assert message in str(error.value)


def test_settings_that_mean_nothing_for_a_corpus_are_errors(toy, tmp_path):
    with pytest.raises(ingest.IngestError, match=r"data\.modality = 'face'.*it has: voice"):
        run(toy, tmp_path / "w", modality="face")
    with pytest.raises(ingest.IngestError, match=r"data\.slow_clicks = 'in' means nothing for corpus toy"):
        run(toy, tmp_path / "w", slow_clicks="in")


def test_the_summary_names_what_is_left_out(toy, tmp_path, capsys):
    BAD_AUDIO["silent"](toy.root / "m1-2.wav")
    ingest.run(config_of(toy), tmp_path / "w")
    out = capsys.readouterr().out
    assert "kept 47 of 48 utterances" in out
    assert "left out, silent (nothing above -80 dBFS): 1: m1-2" in out
    assert "test: 12 utterances of 2 speakers (1 female, 1 male)" in out


def test_the_simulated_corpus_lands_in_the_workdir(tmp_path):
    config = from_config_dict({"corpus": {"num_speakers": 6, "utterances_per_speaker": 1}})
    record = ingest.run(config, tmp_path, is_quiet=True)
    totals_close(record)
    utterances, _, _ = tables.read_tables(tmp_path)
    assert roots.audio_root(config, tmp_path) == tmp_path / "audio"
    assert all((tmp_path / "audio" / path).is_file() for path in utterances["audio"].to_pylist())
    assert record["corpus"]["is_simulated"]
    assert record["utterances"]["excluded"] == {}
    assert min(utterances["duration_s"].to_pylist()) > 1.0


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("crema_d")
    config = from_config_dict({"corpus": {"name": "crema_d", "root": str(shared / "data/crema_d")}})
    return workdir, ingest.run(config, workdir, is_quiet=True)


def test_crema_d_keeps_all_but_the_silent_recording(real):
    workdir, record = real
    totals_close(record)
    assert record["utterances"] == {"found": 6_212, "kept": 3_192, "excluded": {"no_audio": 3_019, "silent": 1}}
    assert record["excluded"]["silent"] == ["1076_MTI_SAD_XX"]
    assert record["ratings"]["kept_voice"] == 29_527 - 9
    assert record["warnings"] == []
    by_gender = [split["by_gender"] for split in record["splits"].values()]
    assert sum(part["male"]["speakers"] for part in by_gender) == 40
    assert sum(part["female"]["speakers"] for part in by_gender) == 36
    assert sum(split["by_class"]["no_agreement"] for split in record["splits"].values()) == 255
    utterances, _, _ = tables.read_tables(workdir)
    lengths = np.asarray(utterances["duration_s"])
    np.testing.assert_allclose([lengths.min(), np.median(lengths), lengths.max()], [1.33, 2.44, 4.97], atol=0.005)
    assert sum(record["splits"][name]["utterances"] for name in ("development", "test")) < 1_300


TEST_SPEAKERS = "1005 1012 1016 1021 1024 1028 1036 1043 1048 1049 1051 1059 1066 1072 1090"
DEVELOPMENT_SPEAKERS = "1002 1006 1008 1019 1020 1032 1046 1057 1062 1069 1075 1076 1077 1085 1086"


def test_the_split_that_published_results_of_crema_d_stand_on(real):
    """Frozen: another default split would make every result of this project another one (S5)."""
    workdir, record = real
    assert record["split_hash"] == "20d9167f7e8cbd8e"
    utterances, _, _ = tables.read_tables(workdir)
    pairs = set(zip(utterances["split"].to_pylist(), utterances["speaker"].to_pylist(), strict=True))
    assert sorted(speaker for split, speaker in pairs if split == "test") == TEST_SPEAKERS.split()
    assert sorted(speaker for split, speaker in pairs if split == "development") == DEVELOPMENT_SPEAKERS.split()


def test_what_the_checks_find_in_crema_d(real):
    """The silent recording, and the utterances whose audio is not shared; every released consensus is the plurality."""
    workdir, _ = real
    findings = artefacts.read_json(workdir / ingest.VALIDATION_FILE, "ingest")["findings"]
    actual = {finding["name"]: finding["count"] for finding in findings if finding["count"]}
    assert actual == {"audio_silent": 1, "audio_not_given": 3_019}


def test_ingest_needs_no_jax():
    code = "import sys, seremo_jax.data.ingest; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_small_inputs_that_failed_are_kept_or_left_out_by_reason(toy, tmp_path, shared):
    cases = shared / "cases" / "audio"
    for place, path in enumerate(sorted(cases.iterdir())):
        toy.row(f"f0-{place % 6}" if place < 6 else f"f1-{place % 6}")["audio"] = str(path)
    toy.row("m0-0")["audio"] = "a\0b.wav"
    toy.row("m0-1")["audio"] = "."
    record = run(toy, tmp_path / "w")
    totals_close(record)
    # In the order of names: cbr_noinfo, cut.aiff, cut.w64, gsm610, phone, riff_plus1, stream_zero_data, vbr.
    assert record["excluded"] == {"missing": ["m0-0"], "unreadable": ["f0-1", "f0-2", "f0-4", "f1-0", "m0-1"]}
    assert record["details"]["f0-1"].startswith("cut off")
    assert record["details"]["f0-2"].startswith("cut off")
    assert "ffmpeg -i phone.m4a phone.wav" in record["details"]["f0-4"]
    assert record["details"]["f1-0"].startswith("never finished")

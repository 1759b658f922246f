"""Several corpora in one training: names, splits, classes and scales are those of each; what does not fit is told."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data import corpora, ingest, roots, screening, splits, tables, targets
from seremo_jax.data.audio_batches import Recordings
from seremo_jax.data.policies import TargetsError, target_policies
from seremo_jax.data.text_lines import Report

NUM_SPEAKERS, NUM_UTTERANCES = 6, 12


@dataclasses.dataclass
class Corpus:
    """Twelve short sounds of six speakers and one of nobody known, three raters each; ids as in every other corpus."""

    info: CorpusInfo
    words: tuple[str, ...]
    modality: str
    seed: int
    same: tuple[int, ...] = ()

    def write(self, folder):
        folder.mkdir()
        for i in range(NUM_UTTERANCES + 1):
            rng = np.random.default_rng(i if i in self.same else 100 * self.seed + i)
            soundfile.write(folder / f"u{i}.wav", rng.uniform(-0.2, 0.2, 4_000), 16_000)
        return folder

    def parse(self, root, *, is_quiet=False):
        numbers = range(NUM_UTTERANCES + 1)
        speakers = [f"s{i % NUM_SPEAKERS}" for i in range(NUM_UTTERANCES)] + ["unknown"]
        columns = {
            "id": [f"u{i}" for i in numbers],
            "audio": [f"u{i}.wav" for i in numbers],
            "speaker": speakers,
            "gender": ["unknown" if who == "unknown" else "fm"[int(who[1]) % 2] for who in speakers],
            "session": [None if who == "unknown" else str(int(who[1]) % 3) for who in speakers],
        }
        columns["gender"] = [{"f": "female", "m": "male"}.get(g, g) for g in columns["gender"]]
        rated = [(i, r) for i in numbers for r in range(3)]
        low, high = self.info.attribute_ranges.get("valence", (0, 0))
        ratings = {
            "utterance": [f"u{i}" for i, _ in rated],
            "rater": [f"r{r}" for _, r in rated],
            "modality": [self.modality] * len(rated),
            "primary": [self.words[(i + (r == 2)) % len(self.words)] if self.words else None for i, r in rated],
            "secondary": [[]] * len(rated),
            "valence": [low + (i + r) % (high - low + 1) if high else None for i, r in rated],
            "activation": [None] * len(rated),
            "dominance": [None] * len(rated),
        }
        utterances = tables.make_table(columns, UTTERANCE_SCHEMA, self.info)
        return tables.with_report(utterances, Report()), tables.make_table(ratings, RATING_SCHEMA, self.info)


A = Corpus(
    CorpusInfo("aa", "1", "crema6", {"valence": (1.0, 5.0)}), ("angry", "happy", "sad", "other-calm"), "voice", 1
)
B = Corpus(CorpusInfo("bb", "2", "angry,awe,sad", {"valence": (1.0, 7.0)}, notes=("b",)), ("awe", "angry"), "both", 2)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Folders of both corpora, and a config of both."""
    monkeypatch.setattr(corpora, "PARSERS", {"aa": A.parse, "bb": B.parse, **corpora.PARSERS})
    return A.write(tmp_path / "a"), B.write(tmp_path / "b")


def config_of(two, entry="bb; modality=both", **sections):
    corpus = {"name": "aa", "root": str(two[0]), "also": (entry,), "also_roots": (str(two[1]),)}
    sections["targets"] = {"class_set": "crema6+angry,awe,sad"} | sections.get("targets", {})
    return from_config_dict({"corpus": corpus | sections.pop("corpus", {}), **sections})


def alone(two, which, **sections):
    name, modality = (("aa", "voice"), ("bb", "both"))[which]
    data = {"modality": modality} | sections.pop("data", {})
    return from_config_dict({"corpus": {"name": name, "root": str(two[which])}, "data": data, **sections})


def ingested(config, workdir):
    ingest.run(config, workdir, is_quiet=True)
    return tables.read_for(config, workdir)


def test_each_corpus_is_split_as_alone_and_names_never_collide(two, tmp_path):
    utterances, ratings, fingerprint = ingested(config_of(two), tmp_path / "w")
    rows = {row["id"]: row for row in utterances.to_pylist()}
    assert len(rows) == 2 * (NUM_UTTERANCES + 1)
    for which, corpus in enumerate(("aa", "bb")):
        own, rated, _ = ingested(alone(two, which), tmp_path / corpus)
        for row in own.to_pylist():
            joint = rows[f"{corpus}/{row['id']}"]
            assert (joint["split"], joint["corpus"], joint["gender"]) == (row["split"], corpus, row["gender"])
            is_known = row["speaker"] != "unknown"
            assert joint["speaker"] == (f"{corpus}/{row['speaker']}" if is_known else "unknown")
            assert joint["session"] == (f"{corpus}/{row['session']}" if is_known else None)
            assert joint["audio_sha256"] == row["audio_sha256"]
        here = [row for row in ratings.to_pylist() if row["utterance"].startswith(f"{corpus}/")]
        assert [(r["utterance"], r["rater"], r["primary"]) for r in here] == [
            (f"{corpus}/{r['utterance']}", f"{corpus}/{r['rater']}", r["primary"]) for r in rated.to_pylist()
        ]
        assert {r["modality"] for r in here} == {("voice", "both")[which]}
    info = tables.info_of(utterances)
    assert (info.corpus, info.release, info.class_set) == ("aa+bb", "1+2", "crema6+angry,awe,sad")
    assert info.notes == ("bb: b",)
    again = tables.read_for(config_of(two), tmp_path / "w")
    assert again[2] == fingerprint


def test_audio_is_found_in_the_folder_of_each_corpus_wherever_that_is(two, tmp_path):
    config, workdir = config_of(two), tmp_path / "w"
    utterances, _, fingerprint = ingested(config, workdir)
    root = roots.audio_root(config, workdir)
    recordings = Recordings.of(utterances, root)
    for row in range(len(recordings.ids)):
        recordings.decode(row)  # refuses other samples than those that ingest heard
    moved = two[1].rename(tmp_path / "moved")
    with pytest.raises(roots.IngestError, match="b is no folder"):
        roots.audio_root(config, workdir)
    there = config_of((two[0], moved))
    utterances, _, same = tables.read_for(there, workdir)
    assert same == fingerprint
    assert Recordings.of(utterances, root).paths[-1] == str(moved / "u9.wav")
    B.write(two[1])
    soundfile.write(two[1] / "u0.wav", np.full(4_000, 0.1), 16_000)
    swapped = config_of((two[0], two[0]))
    with pytest.raises(ArtefactError, match=r"holds the corpus bb \(2\), and --config.corpus.root=.*a holds other"):
        tables.read_for(swapped, workdir)
    with pytest.raises(roots.IngestError, match=r"corpus bb is not part .*corpus\.also_roots"):
        roots.audio_root(config_of(two, corpus={"also_roots": ()}), workdir)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_votes_are_on_the_classes_of_their_own_corpus_and_attributes_on_its_scale(two, tmp_path, smoothing):
    config = config_of(two, targets={"smoothing": smoothing, "other_votes": "spread"})
    utterances, ratings, _ = ingested(config, tmp_path / "w")
    built = targets.build(utterances, ratings, target_policies(config))
    assert built.class_names == ("angry", "disgust", "fear", "happy", "neutral", "sad", "awe")
    own_classes = {"aa": (0, 1, 2, 3, 4, 5), "bb": (0, 5, 6)}
    by_utterance = {}
    for row in ratings.to_pylist():
        by_utterance.setdefault(row["utterance"], []).append(row)
    for i, name in enumerate(built.ids):
        corpus, own = name[:2], own_classes[name[:2]]
        assert np.flatnonzero(built.is_offered[i]).tolist() == list(own)
        counts = np.zeros(7)
        for row in by_utterance[name]:
            if row["primary"].startswith("other"):
                counts[list(own)] += 1 / len(own)
            else:
                counts[built.class_names.index(row["primary"])] += 1
        counts[list(own)] += smoothing
        np.testing.assert_allclose(built.distribution[i], counts / counts.sum(), atol=1e-6, err_msg=name)
        middle, half = {"aa": (3, 2), "bb": (4, 3)}[corpus]
        valence = np.mean([row["valence"] for row in by_utterance[name]])
        np.testing.assert_allclose(built.attributes[i, 0], (valence - middle) / half, atol=1e-6)
    assert built.counts["num_votes"]["awe"] == sum(row["primary"] == "awe" for row in ratings.to_pylist())
    for which, corpus in enumerate(("aa", "bb")):
        lonely = alone(two, which, targets={"class_set": ",".join(built.class_names[c] for c in own_classes[corpus])})
        single = targets.build(*ingested(lonely, tmp_path / corpus)[:2], target_policies(lonely))
        rows = [i for i, name in enumerate(built.ids) if name.startswith(corpus)]
        expected = [own_classes[corpus][c] if c >= 0 else -1 for c in single.consensus_index]
        assert built.consensus_index[rows].tolist() == expected


def test_a_class_is_masked_nowhere_if_all_raters_could_choose_it(two, tmp_path):
    config = config_of(two, targets={"class_set": "angry,sad"}, eval={"nbest": (1,)})
    utterances, ratings, _ = ingested(config, tmp_path / "w")
    assert targets.build(utterances, ratings, target_policies(config)).is_offered is None


def test_folds_are_those_of_each_corpus_alone(two, tmp_path):
    kfold = {"data": {"split_kind": "kfold", "num_folds": 3}, "ensemble": {"folds": (0, 1, 2)}}
    config = config_of(two, **kfold)
    utterances, _, _ = ingested(config, tmp_path / "w")
    own = [ingested(alone(two, which, data=dict(kfold["data"])), tmp_path / f"{which}")[0] for which in (0, 1)]
    for fold in range(3):
        joint = screening.in_fold(utterances, config.data, fold)["split"].to_pylist()
        singles = [screening.in_fold(table, config.data, fold)["split"].to_pylist() for table in own]
        assert joint == [*singles[0], *singles[1]]


def test_the_record_says_what_each_corpus_offers_and_the_same_command_is_up_to_date(two, tmp_path, capsys):
    record = ingest.run(config_of(two), tmp_path / "w")
    said = capsys.readouterr().out
    assert [entry["corpus"] for entry in record["corpora"]] == ["aa", "bb"]
    assert [entry["not_offered"] for entry in record["corpora"]] == [["awe"], ["disgust", "fear", "happy", "neutral"]]
    assert record["ratings"] == {"found": 78, "kept": 78, "dropped": {}, "kept_voice": 78}
    assert record["settings"]["corpus.also"] == ["bb; modality=both"]
    assert "could not choose them: awe" in said
    assert "--config.targets.class_set=crema6+angry,awe,sad" in said
    assert sum(entry["utterances"] for entry in record["splits"].values()) == 26
    before = (tmp_path / "w" / "utterances.parquet").read_bytes()
    ingest.run(config_of(two), tmp_path / "w")
    assert "up to date" in capsys.readouterr().out
    assert (tmp_path / "w" / "utterances.parquet").read_bytes() == before
    with pytest.raises(ArtefactError, match=r"corpus\.also"):
        ingest.run(alone(two, 0), tmp_path / "w", is_quiet=True)


def test_a_recording_that_both_have_counts_once(two, tmp_path, monkeypatch):
    twin = dataclasses.replace(B, same=(3,))
    for i in (3,):
        (two[1] / f"u{i}.wav").write_bytes((two[0] / f"u{i}.wav").read_bytes())
    monkeypatch.setitem(corpora.PARSERS, "bb", twin.parse)
    record = ingest.run(config_of(two), tmp_path / "w", is_quiet=True)
    assert record["excluded"] == {"duplicate_audio": ["bb/u3"]}
    assert record["details"] == {"bb/u3": "the same samples as aa/u3"}


def test_what_does_not_fit_is_told(two, tmp_path, monkeypatch):
    def refused(error, message, entry="bb; modality=both", corpus=None, **sections):
        with pytest.raises(error, match=message):
            ingest.run(config_of(two, entry, corpus=corpus or {}, **sections), tmp_path / "w", is_quiet=True)
        assert not (tmp_path / "w" / "utterances.parquet").exists()

    refused(ConfigError, "aa is named twice", "aa")
    refused(ConfigError, r"corpus\.also_roots has 2 folders and corpus\.also 1", corpus={"also_roots": ("x", "y")})
    refused(ConfigError, "'colour=red' must read FIELD=VALUE, with a field of seed", "bb; colour=red")
    refused(ConfigError, r"corpus\.also, bb: data\.modality = 'smell': choose one of", "bb; modality=smell")
    refused(ConfigError, "max_speakers must be a whole number, is 'x'", "bb; max_speakers=x")
    refused(ConfigError, "reverse_activation must be true or false", "bb; reverse_activation=1")
    refused(ConfigError, "is a scale of one corpus", targets={"attribute_scale": "raw"})
    folds = {"data": {"split_kind": "kfold"}, "ensemble": {"folds": (0, 1)}}
    refused(ConfigError, "every corpus must have the same folds", "bb; modality=both; num_folds=3", **folds)
    refused(roots.IngestError, "nowhere is no folder", corpus={"also_roots": ("nowhere",)})
    refused(roots.IngestError, r"data\.modality = 'voice': the corpus has no such ratings", "bb")
    refused(roots.IngestError, r"corpus\.also, bb: .*word_map.* means nothing for corpus bb", "bb; word_map=X=other")
    refused(splits.SplitError, r"bb: data\.num_folds = 9", "bb; modality=both; split_kind=kfold; num_folds=9")
    refused(corpora.CorpusError, r"known are .*did you mean", "cremad")
    monkeypatch.setitem(corpora.PARSERS, "bb", dataclasses.replace(B, words=()).parse)
    refused(roots.IngestError, r"corpus\.also: bb has no votes for classes in data\.modality = 'both'")
    monkeypatch.setitem(corpora.PARSERS, "bb", dataclasses.replace(B, info=A.info).parse)
    refused(roots.IngestError, "two corpora are called aa")


def test_label_kinds_that_do_not_fit_are_told(two, tmp_path):
    config = config_of(two)
    utterances, ratings, _ = ingested(config, tmp_path / "w")
    asked = target_policies(config)
    with pytest.raises(TargetsError, match=r"raters of bb could choose sad of its classes, .*e\.g\. happy,sad\+angry"):
        targets.build(utterances, ratings, dataclasses.replace(asked, class_set="happy,sad"))
    levels = dataclasses.replace(asked, has_levels=True, attributes=("valence",))
    with pytest.raises(TargetsError, match="one number of steps of the rating scale, and there are 5 in aa, 7 in bb"):
        targets.build(utterances, ratings, levels)


def test_tables_of_one_corpus_stay_what_they_are(two, tmp_path):
    record = ingest.run(alone(two, 0), tmp_path / "w", is_quiet=True)
    text = (tmp_path / "w" / "ingest.json").read_text()
    assert "corpora" not in record
    assert "also" not in json.dumps(record["settings"])
    assert "aa/" not in text
    utterances, ratings, _ = tables.read_for(alone(two, 0), tmp_path / "w")
    assert tables.parts_of(utterances) == ()
    assert targets.build(utterances, ratings, target_policies(alone(two, 0))).is_offered is None

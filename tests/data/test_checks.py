"""Each check finds what was planted for it in a small corpus, and nothing in a good one."""

import pytest

from seremo_jax.core import schema
from seremo_jax.data import audio, checks, tables

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad")
SPLIT_OF = dict(zip("abcdefgh", ["train"] * 4 + ["development"] * 2 + ["test"] * 2, strict=True))


class Planted:
    """Eight speakers (a, c, e, g are women) who say each class once; each utterance has three equal votes."""

    def __init__(self):
        self.rows, self.votes, self.problems, self.split_problem = [], [], [], ""
        for speaker, split in SPLIT_OF.items():
            for word in CLASSES:
                name = f"{speaker}-{word}"
                fact = audio.AudioFacts(1.0, f"hash of {name}", 16_000, 1)
                self.rows.append(
                    {"id": name, "audio": f"{name}.wav", "speaker": speaker, "split": split, "official": split,
                     "gender": "female" if speaker in "aceg" else "male", "released": word, "fact": fact}
                )  # fmt: skip
                self.votes += [{"utterance": name, "primary": word} for _ in range(3)]

    def row(self, name):
        return next(row for row in self.rows if row["id"] == name)

    def hear(self, name, **facts):
        row = self.row(name)
        fields = {**vars(row["fact"]), **facts}
        row["fact"] = audio.AudioFacts(**fields)

    def drop_votes(self, *names):
        self.votes = [vote for vote in self.votes if vote["utterance"] not in names]

    def findings(self):
        n, r = len(self.rows), len(self.votes)
        info = schema.CorpusInfo("planted", "1", "crema6", {})
        columns = {name: [row[name] for row in self.rows] for name in ("id", "audio", "speaker", "gender")}
        columns |= {"corpus": ["planted"] * n, "release": ["1"] * n, "duration_s": [0.0] * n, "audio_sha256": [""] * n}
        columns |= {"split": [row["official"] for row in self.rows]}
        columns |= {"released_consensus": [row["released"] for row in self.rows]}
        rated = {name: [vote.get(name) for vote in self.votes] for name in ("utterance", "primary")}
        rated |= {"also_primary": [vote.get("also", ()) for vote in self.votes]}
        rated |= {"is_self_report": [vote.get("is_self", False) for vote in self.votes]}
        rated |= {"modality": [vote.get("modality", "voice") for vote in self.votes]}
        rated |= {"rater": [f"r{i}" for i in range(r)], "secondary": [()] * r}
        rated |= {name: [None] * r for name in ("valence", "activation", "dominance")}
        evidence = checks.Evidence(
            tables.make_table(columns, schema.UTTERANCE_SCHEMA, info),
            tables.make_table(rated, schema.RATING_SCHEMA, info),
            [row["fact"] for row in self.rows],
            [row["split"] for row in self.rows],
            [row["fact"] is not None and not row["fact"].reason for row in self.rows],
            "voice",
            self.problems,
            self.split_problem,
        )
        return {finding.name: finding for finding in checks.run(evidence)}


@pytest.fixture
def corpus():
    return Planted()


def only(corpus, name, severity, *cases, count=None):
    """The finding, after making sure that no other check found anything."""
    findings = corpus.findings()
    actual = {key: finding.cases for key, finding in findings.items() if finding.count}
    assert actual == {name: cases}
    assert findings[name].count == (len(cases) if count is None else count)
    assert findings[name].severity == severity
    assert findings[name].is_error == (severity == "error")
    assert findings[name].remedy
    return findings[name]


def test_a_good_corpus_passes_every_check(corpus):
    findings = corpus.findings()
    assert not any(finding.count or finding.is_error for finding in findings.values())
    assert {f"audio_{reason}" for reason in audio.REASONS} < set(findings)


@pytest.mark.parametrize("reason", audio.REASONS)
def test_unusable_audio(corpus, reason):
    """F6: such files are named, each with its reason."""
    corpus.hear("a-sad", reason=reason, detail="in words", sha256="")
    severity = "warning" if reason in ("silent", "too_short", "too_long") else "error"
    only(corpus, f"audio_{reason}", severity, "a-sad: a-sad.wav (in words)")


def test_every_reason_of_the_audio_reader_has_a_check(corpus):
    names = {name.removeprefix("audio_") for name in corpus.findings() if name.startswith("audio_")}
    assert names == {*audio.REASONS, "not_given"}


def test_audio_that_the_corpus_does_not_give(corpus):
    corpus.row("a-sad").update(audio="", fact=None)
    only(corpus, "audio_not_given", "warning", "a-sad")


def test_odd_rates_and_channels_are_counted(corpus):
    """F5: one stereo file at 44.1 kHz among mono ones at 16 kHz."""
    corpus.hear("a-sad", source_rate_hz=44_100)
    corpus.hear("b-sad", source_rate_hz=8_000)
    only(corpus, "sampling_rate", "warning", "a-sad: 44100 Hz", "b-sad: 8000 Hz")
    for name in ("a-sad", "b-sad"):
        corpus.hear(name, source_rate_hz=16_000)
    corpus.hear("c-sad", num_channels=2)
    only(corpus, "channels", "warning", "c-sad: 2 channels")


def test_equal_audio_is_worse_across_splits(corpus):
    for name in ("a-sad", "b-fear", "a-fear"):
        corpus.hear(name, sha256="the same")
    only(corpus, "duplicate_audio", "warning", "a-fear (train) = a-sad (train) = b-fear (train)")
    corpus.hear("c-fear", sha256="another")
    corpus.hear("c-sad", sha256="another")
    corpus.row("c-sad")["split"] = ""
    findings = corpus.findings()
    assert findings["duplicate_audio"].cases[1] == "c-fear (train) = c-sad (in no split)"
    assert findings["duplicate_audio_across_splits"].count == 0
    corpus.row("c-sad")["split"] = "train"
    corpus.hear("c-sad", sha256="its own")
    corpus.hear("g-fear", sha256="the same")
    case = "a-fear (train) = a-sad (train) = b-fear (train) = g-fear (test)"
    only(corpus, "duplicate_audio_across_splits", "error", case)


def test_silence_is_no_duplicate(corpus):
    for name in ("a-sad", "g-sad"):
        corpus.hear(name, sha256="zeros", reason="silent", detail="quiet")
    only(corpus, "audio_silent", "warning", "a-sad: a-sad.wav (quiet)", "g-sad: g-sad.wav (quiet)")


def test_an_id_of_two_rows(corpus):
    corpus.rows.append(dict(corpus.row("a-sad")))
    only(corpus, "duplicate_id", "error", "a-sad: 2 rows")


def test_words_that_no_class_set_knows_are_counted(corpus):
    """L9: an unseen word is an error that lists it with its count; `other-...` is none."""
    corpus.votes += [
        {"utterance": "a-sad", "primary": word} for word in ("sad", "bored", "bored", "other-x; y", "other")
    ]
    corpus.votes.append({"utterance": "a-sad", "primary": "sad", "also": ("grumpy", "frustrated")})
    only(corpus, "unknown_words", "error", "'bored': 2 votes", "'grumpy': 1 votes", count=3)


def test_ratings_of_nothing(corpus):
    corpus.votes += [{"utterance": "nobody", "primary": "sad"}] * 2
    only(corpus, "ratings_of_no_utterance", "warning", "nobody: 2 ratings", count=2)


def test_withheld_labels_are_no_missing_ratings(corpus):
    corpus.drop_votes("a-sad")
    for row in corpus.rows:
        if row["speaker"] == "h":
            row["official"] = row["split"] = "test3"
            row["released"] = None
    corpus.drop_votes(*(row["id"] for row in corpus.rows if row["speaker"] == "h"))
    findings = corpus.findings()
    assert findings["no_ratings"].cases == ("a-sad",)
    assert findings["withheld_labels"].cases == tuple(f"h-{word}" for word in CLASSES)


def test_ratings_of_another_modality_do_not_count(corpus):
    corpus.drop_votes("a-sad")
    corpus.votes.append({"utterance": "a-sad", "primary": "sad", "modality": "face"})
    only(corpus, "no_ratings", "warning", "a-sad")


def test_a_released_consensus_that_the_votes_do_not_give(corpus):
    corpus.row("a-sad")["released"] = "happy"
    corpus.row("b-sad")["released"] = "no_agreement"
    corpus.row("c-sad")["released"] = None
    only(corpus, "released_consensus", "warning", "a-sad: released happy, votes say sad",
         "b-sad: released no_agreement, votes say sad")  # fmt: skip


def votes(name, *answers):
    return [{"utterance": name, "primary": word, "also": also} for word, *also in answers]


@pytest.mark.parametrize(
    ("answers", "released"),
    [
        ([["sad"], ["sad"], ["happy"]], "sad"),
        ([["sad"], ["happy"]], "no_agreement"),
        ([["other-a, b"], ['other-"c"'], ["other"], ["sad"], ["sad"]], "other"),
        ([["sad", "happy"], ["happy"]], "happy"),
        ([["sad", "happy"], ["fear"]], "no_agreement"),
        ([["frustrated"], ["frustrated"], ["sad"]], "frustrated"),
    ],
)  # fmt: skip
def test_the_plurality_is_recomputed_as_the_corpora_do(corpus, answers, released):
    """L6, L7: free text pools first, ties are no agreement, words outside the class set win, too."""
    corpus.drop_votes("a-sad")
    corpus.votes += [*votes("a-sad", *answers), {"utterance": "a-sad", "primary": "fear", "is_self": True}]
    corpus.row("a-sad")["released"] = released
    assert corpus.findings()["released_consensus"].count == 0
    corpus.row("a-sad")["released"] = "disgust"
    assert corpus.findings()["released_consensus"].cases == (f"a-sad: released disgust, votes say {released}",)


def test_problems_of_the_parser_are_listed(corpus):
    corpus.problems = ["labels.txt:3: not 5 cells", "labels.txt:9: no number"]
    only(corpus, "parser", "warning", *corpus.problems)


def test_a_speaker_in_two_splits(corpus):
    """S3: an error, but for test sets that share speakers among themselves; nobody is called unknown."""
    corpus.row("a-sad")["split"] = "development"
    only(corpus, "speaker_in_two_splits", "error", "a: development and train")
    corpus = Planted()
    for row in corpus.rows:
        if row["split"] == "test":
            row["split"] = "test1"
    corpus.row("g-sad")["split"] = "test2"
    corpus.row("h-sad")["split"] = "test2"
    findings = corpus.findings()
    assert findings["speaker_in_two_splits"].count == findings["missing_split"].count == 0


def test_a_speaker_of_two_genders(corpus):
    """S1: an id never carries two genders."""
    corpus.row("a-sad")["gender"] = "male"
    only(corpus, "two_genders", "error", "a: female and male")


def test_unknown_speakers_are_counted_and_nobody(corpus):
    """S6."""
    corpus.row("a-sad").update(speaker="unknown", gender="unknown")
    corpus.row("g-sad").update(speaker="unknown", gender="male")
    only(corpus, "unknown_speaker", "warning", "a-sad", "g-sad")


def test_a_split_that_cannot_be_made(corpus):
    corpus.split_problem = "three speaker-disjoint splits need at least three known speakers"
    only(corpus, "splits", "error", corpus.split_problem)


def test_what_a_split_lacks(corpus):
    corpus.rows = [row for row in corpus.rows if row["speaker"] != "g" and row["id"] != "h-happy"]
    corpus.drop_votes(*(f"g-{word}" for word in CLASSES), "h-happy")
    findings = corpus.findings()
    assert findings["missing_gender"].cases == ("test: female",)
    assert findings["missing_class"].cases == ("test: happy",)
    assert not findings["missing_class"].is_error
    corpus.rows = [row for row in corpus.rows if row["split"] != "development"]
    assert corpus.findings()["missing_split"].cases == ("development",)


def test_what_an_ingest_leaves_out_fills_no_split(corpus):
    for name in ("g-happy", "h-happy"):
        corpus.hear(name, reason="missing", detail="no such file", sha256="")
    assert corpus.findings()["missing_class"].cases == ("test: happy",)


def test_names_that_look_alike(corpus):
    for speaker, name in (("a", "S00"), ("b", "s00")):
        for row in corpus.rows:
            row["speaker"] = name if row["speaker"] == speaker else row["speaker"]
            row["gender"] = "female" if row["speaker"] in ("S00", "s00") else row["gender"]
    only(corpus, "names_alike", "warning", "speaker: 'S00' and 's00' are taken for 2 different names")


def test_ratings_without_any_label(corpus):
    for row in corpus.rows:
        row["released"] = None
    for vote in corpus.votes:
        vote["primary"] = None
    finding = corpus.findings()["empty_ratings"]
    assert (finding.is_error, finding.cases) == (True, ("none of 144 ratings has a word or a value",))

"""Any corpus as tables: three formats, ratings or counts or shares, and whatever else a table can hold."""

import json
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest

from seremo_jax.core import vocab
from seremo_jax.data import tables, targets, text_lines
from seremo_jax.data.corpora import tabular
from seremo_jax.data.policies import TargetPolicies
from tests.support import corpus_writers, msp_podcast_files

RANGES = {"attribute_ranges": {"valence": [1, 5], "arousal": [1, 5], "dominance": [1, 5]}}


def parse(root: Path, **policies):
    utterances, ratings = tabular.parse(root, **policies)
    return utterances.to_pylist(), ratings.to_pylist(), tables.report_of(utterances)


def write(root: Path, about: dict | None = None, **texts: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (root / f"{name}.csv").write_text(text, encoding="utf-8")
    if about is not None:
        (root / "corpus.json").write_text(json.dumps(about))
    return root


def test_formats_say_the_same(tmp_path):
    turns = msp_podcast_files.simulate()
    actual = []
    for suffix in (".csv", ".jsonl", ".parquet"):
        corpus_writers.write_table_corpus(tmp_path / suffix, turns, suffix)
        actual.append(tabular.parse(tmp_path / suffix))
    assert len({tables.tables_fingerprint(*pair) for pair in actual}) == 1
    corpus_writers.write_table_corpus(tmp_path / "one", turns, ".csv", with_people=False)
    assert tables.tables_fingerprint(*tabular.parse(tmp_path / "one")) == tables.tables_fingerprint(*actual[0])
    info = tables.info_of(actual[0][0])
    assert (info.corpus, info.release, info.class_set) == ("mine", "3", "msp8")


def test_every_column_is_read_by_its_name(tmp_path):
    write(
        tmp_path,
        RANGES,
        utterances="split,gender,id,speaker,audio,session,released_consensus\n"
        "Validation,F,u1,ann,a/u1.wav,2,Anger\ntest2,man,u2,bob,b.wav,3,no_agreement\ntrain,,u3,,,,\n",
        ratings="dominance,arousal,utterance,valence,rater,primary,also_primary,secondary,is_self_report,modality\n"
        '1,2,u1,3,r1,Happiness,"Sad, Fear",Excited,yes,both\n,,u2,,r1,,,,,\n',
    )
    utterances, ratings, _ = parse(tmp_path)
    columns = ("id", "audio", "split", "speaker", "gender", "session", "released_consensus")
    assert [[row[name] for name in columns] for row in utterances] == [
        ["u1", "a/u1.wav", "development", "ann", "female", "2", "angry"],
        ["u2", "b.wav", "test2", "bob", "male", "3", "no_agreement"],
        ["u3", "", "train", "unknown", "unknown", None, None],
    ]
    assert ratings == [
        {"utterance": "u1", "rater": "r1", "modality": "both", "primary": "happy", "secondary": ["excited"],
         "also_primary": ["sad", "fear"], "is_self_report": True, "valence": 3, "activation": 2, "dominance": 1},
        {"utterance": "u2", "rater": "r1", "modality": "voice", "primary": None, "secondary": [], "also_primary": [],
         "is_self_report": False, "valence": None, "activation": None, "dominance": None},
    ]  # fmt: skip


def test_columns_of_its_own_are_kept_and_reported(tmp_path):
    write(tmp_path, utterances="id,age,speeker\nu1,30,ann\n", ratings="utterance,primary\nu1,sad\n")
    [row], _, report = parse(tmp_path)
    assert (row["age"], row["speeker"], row["speaker"]) == ("30", "ann", "unknown")
    assert "utterances.csv: columns of no known name, kept as text: age, speeker" in report.problems
    write(tmp_path, utterances="id,duration_s\nu1,30\n")
    [row], _, report = parse(tmp_path)
    assert row["duration_s"] == 0
    assert any("not used: duration_s" in problem for problem in report.problems)


def test_facts_that_differ_within_an_utterance_are_reported(tmp_path):
    write(tmp_path, ratings="utterance,primary,speaker\nu1,sad,ann\nu1,happy,bob\n")
    [row], _, report = parse(tmp_path)
    assert row["speaker"] == "ann"
    assert report.counts["speakers_differ"] == 1


def test_raters_without_a_name_are_numbered_by_what_they_said(tmp_path):
    rows = ["u1,sad,", "u1,happy,", "u2,sad,", "u1,angry,r1"]
    first = parse(write(tmp_path / "a", ratings="\n".join(["utterance,primary,rater", *rows])))[1]
    again = parse(write(tmp_path / "b", ratings="\n".join(["utterance,primary,rater", *rows[::-1]])))[1]
    assert first == again
    assert [row["rater"] for row in first if row["utterance"] == "u1"] == ["anon-001", "anon-002", "r1"]
    assert len({row["rater"] for row in first if row["utterance"] == "u1"}) == 3


def test_malformed_rows_are_reported_with_their_line(tmp_path):
    write(
        tmp_path,
        RANGES,
        ratings="utterance,primary,valence,modality,is_self_report\nu1,sad,one,,\n,sad,1,,\nu1,sad,1,smell,\n"
        "u1,sad,1,,perhaps\nu9,sad,1,,\nu1,sad,6,,\nu1,sad\n",
        utterances="id,speaker,gender\nu1,ann,f\nu1,bob,m\n,cem,m\nu2,dan,x\n",
    )
    utterances, ratings, report = parse(tmp_path)
    assert [(row["utterance"], row["valence"]) for row in ratings] == [("u1", None)]
    assert [(row["speaker"], row["gender"]) for row in utterances] == [("ann", "female"), ("dan", "unknown")]
    places = [problem.split(": ")[0] for problem in report.problems]
    assert places[:7] == ["ratings.csv:8", *(f"ratings.csv:{n}" for n in (2, 3, 4, 5)),
                          "utterances.csv:3", "utterances.csv:4"]  # fmt: skip
    counts = report.counts
    assert (counts["ratings_read"], counts["ratings_kept"], counts["ratings_not_used"]) == (7, 1, 6)
    assert (counts["values_out_of_range"], counts["genders_unknown"], counts["lines_not_used"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("words", "about", "class_set"),
    [
        ("sad angry", {}, "iemocap4"),
        ("sad excited", {}, "iemocap5"),
        ("frustrated other-x", {}, "iemocap6"),
        ("disgust", {}, "crema6"),
        ("contempt sad", {}, "msp8"),
        ("sad angry", {"class_set": "msp8"}, "msp8"),
        ("sad contempt", {"class_set": "crema6"}, "crema6"),
    ],
)
def test_the_class_set_is_named_or_found(tmp_path, words, about, class_set):
    rows = "".join(f"u{i},{word}\n" for i, word in enumerate(words.split()))
    write(tmp_path, about, ratings=f"utterance,primary\n{rows}")
    assert tables.info_of(tabular.parse(tmp_path)[0]).class_set == class_set


@pytest.mark.parametrize(
    ("about", "texts", "message"),
    [
        (None, {}, r"neither ratings nor utterances"),
        (None, {"ratings": "utterance,primary\nu,bored\nu,bored\n"}, r"ratings\.csv: .*'bored' x 2"),
        (None, {"ratings": "utterance,primary\nu,contempt\nv,excited\n"}, r"no class set has all of contempt, excited"),
        (None, {"ratings": "utterance,valence\nu,3\n"}, r'no range of valence: .*"valence": \[1, 7\]'),
        (None, {"ratings": "name,primary\nu,sad\n"}, r"no column utterance; found name, primary"),
        (RANGES, {"ratings": "utterance,arousal,activation\nu,3,3\n"}, r"arousal and activation mean the same"),
        (None, {"ratings": "utterance,primary,split\nu,sad,holdout\n"}, r"unknown splits holdout"),
        ({"clas_set": "msp8"}, {"ratings": "utterance,primary\nu,sad\n"}, r"corpus\.json: must be an object"),
        ({"class_set": "nine"}, {"ratings": "utterance,primary\nu,sad\n"}, r"class_set 'nine': choose one of msp8"),
        ({"attribute_ranges": {"valence": [5, 1]}}, {"ratings": "utterance,primary\nu,sad\n"}, r"valence: not an attr"),
        ({"attribute_ranges": {"valence": 3}}, {"ratings": "utterance,primary\nu,sad\n"}, r"must be NAME: \[lowest"),
        (None, {"utterances": "id,speaker\nu,ann\n"}, r"takes columns count::CLASS or share::CLASS"),
        (None, {"utterances": "id,count::sad,share::sad\nu,1,1\n"}, r"of one kind"),
        (None, {"utterances": "id,count::bored\nu,1\n"}, r"'count::bored' x 1"),
        (None, {"utterances": "id,count::Sad,count::Sadness\nu,1,1\n"}, r"two columns stand for the same class"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, about, texts, message):
    write(tmp_path, about, **texts)
    with pytest.raises(text_lines.CorpusError, match=message):
        parse(tmp_path)


OWN = {"class_set": ["Anger", "boredom", "calm"]}
LETTERS = ["A", "S", "H", "U", "F", "D", "C", "N", "O", "X"]


def test_a_corpus_has_classes_of_its_own(tmp_path):
    rows = "\n".join(f"u{i},{word}" for i, word in enumerate(["Boredom", "anger", "calm", "X", "sleepy", "sad"]))
    root = write(tmp_path, OWN, ratings=f"utterance,primary\n{rows}\n")
    with pytest.raises(text_lines.CorpusError, match=r"'X' x 1, 'sleepy' x 1.*WORD=no_agreement.*corpus.json"):
        tabular.parse(root)
    pair = tabular.parse(root, word_map=("X=no_agreement", "sleepy=boredom"))
    assert tables.info_of(pair[0]).class_set == "angry,boredom,calm"
    words = dict(zip(pair[1]["utterance"].to_pylist(), pair[1]["primary"].to_pylist(), strict=True))
    assert words == {"u0": "boredom", "u1": "angry", "u2": "calm", "u3": None, "u4": "boredom", "u5": "sad"}
    own = targets.build(*pair, TargetPolicies(class_set="anger, boredom, calm", attributes=()))
    assert own.class_names == ("angry", "boredom", "calm")
    assert own.votes.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    other = targets.build(*pair, TargetPolicies(class_set="iemocap4", attributes=()))
    assert other.counts["num_other_votes"] == 3, "words of the corpus's own set are known to others"


def test_letters_of_msp_podcast_are_read_where_asked_for(tmp_path):
    rows = "\n".join(f"u{i},{letter},{letter.lower()}" for i, letter in enumerate(LETTERS))
    root = write(tmp_path, ratings=f"utterance,primary,released_consensus\n{rows}\n")
    with pytest.raises(text_lines.CorpusError, match="all letters of MSP-Podcast with msp_letters"):
        tabular.parse(root)
    utterances, ratings, report = parse(root, word_map=("msp_letters",))
    assert [row["primary"] for row in ratings] == [*vocab.CLASS_SETS["msp8"], "other", None]
    assert [row["released_consensus"] for row in utterances] == [*vocab.CLASS_SETS["msp8"], "other", "no_agreement"]
    assert report.counts["ratings_without_class"] == 1


def test_nobody_votes_for_no_agreement(tmp_path):
    root = write(tmp_path, utterances="id,count::angry,count::X\nu1,2,1\n")
    with pytest.raises(text_lines.CorpusError, match="count::X stands for no agreement, which nobody votes for"):
        tabular.parse(root, word_map=("X=no_agreement",))


def test_two_formats_of_one_table_and_broken_files_are_refused(tmp_path):
    write(tmp_path, ratings="utterance,primary\nu,sad\n")
    (tmp_path / "ratings.jsonl").write_text("{}")
    with pytest.raises(text_lines.CorpusError, match="are both there"):
        parse(tmp_path)
    (tmp_path / "ratings.csv").unlink()
    (tmp_path / "ratings.jsonl").unlink()
    (tmp_path / "ratings.parquet").write_bytes(b"PAR1")
    with pytest.raises(text_lines.CorpusError, match=r"ratings\.parquet cannot be read"):
        parse(tmp_path)
    with pytest.raises(text_lines.CorpusError, match="choose refuse or invert"):
        parse(tmp_path, smoothed="maybe")


def test_counts_give_votes_and_means_a_rating_without_a_class(tmp_path):
    header = "id,count::Anger,count::Sadness,num_other_annotations,valence,arousal"
    root = write(tmp_path, RANGES, utterances=f"{header}\nu1,2,1,1,2.5,4\nu2,0,0,0,,\nu3,1.5,0,0,1,1\nu4,-1,0,0,1,1\n")
    utterances, ratings, report = parse(root)
    assert [row["id"] for row in utterances] == ["u1", "u2", "u3", "u4"]
    assert [(row["utterance"], row["rater"], row["primary"], row["valence"]) for row in ratings] == [
        ("u1", "anon-000", "angry", None), ("u1", "anon-001", "angry", None), ("u1", "anon-002", "other", None),
        ("u1", "anon-003", "sad", None), ("u1", "anon-mean", None, 2.5), ("u3", "anon-mean", None, 1.0),
    ]  # fmt: skip
    assert [problem for problem in report.problems if problem.startswith("utterances.csv:")] == [
        "utterances.csv:4: u3: count::Anger is 1.5, which is no whole number",
        "utterances.csv:5: u4: count::Anger is -1, below 0",
    ]
    result = targets.build(*tabular.parse(root), TargetPolicies("iemocap4"))
    assert result.attributes[0].tolist() == [-0.25, 0.5, 0.0]
    assert result.has_variance.tolist() == [[False] * 3] * 4


shares_of_votes = st.lists(
    st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(lambda row: sum(row) > 0), min_size=1, max_size=8
)


def write_shares(root: Path, shares: np.ndarray) -> Path:
    header = ",".join(["id", *(f"share::{word}" for word in vocab.CLASS_SETS["iemocap4"])])
    rows = [f"u{i}," + ",".join(f"{value:.6f}" for value in row) for i, row in enumerate(shares)]
    return write(root, {"class_set": "iemocap4"}, utterances="\n".join([header, *rows]))


def distribution_of(root: Path, **policies) -> np.ndarray:
    return targets.build(*tabular.parse(root, **policies), TargetPolicies("iemocap4")).distribution


@hypothesis.given(shares_of_votes)
def test_shares_and_smoothed_shares_give_back_the_shares(tmp_path_factory, rows):
    rows = [[1, 0, 0, 0], *rows]  # somebody got no vote, so that 0 is 0
    votes = np.array(rows, float)
    shares = votes / votes.sum(axis=1, keepdims=True)
    root = tmp_path_factory.mktemp("shares")
    np.testing.assert_allclose(distribution_of(write_shares(root, shares)), shares, atol=1e-6)
    smoothing = 0.05 / 3
    smooth = (1 - 4 * smoothing) * shares + smoothing
    write_shares(root, smooth)
    with pytest.raises(text_lines.CorpusError, match="have been smoothed already; set smoothed = invert"):
        tabular.parse(root)
    np.testing.assert_allclose(distribution_of(root, smoothed="invert"), shares, atol=1e-6)


def test_shares_of_no_number_of_votes_are_reported(tmp_path):
    root = write_shares(
        tmp_path, np.array([[1, 0, 0, 0], [0.5, 0.1, 0, 0], [0.3141, 0.2718, 0.4141, 0], [0.25, 0.75, 0, 0]])
    )
    utterances, ratings, report = parse(root)
    assert len(utterances) == 4
    assert {row["utterance"] for row in ratings} == {"u0", "u3"}
    assert report.counts["lines_without_votes"] == 2
    assert any(problem.startswith("utterances.csv:3: u1: shares of no number") for problem in report.problems)
    assert any("smoothed by" in note for note in tables.info_of(tabular.parse(write_shares(
        tmp_path / "s", np.array([[0.95, 0.05 / 3, 0.05 / 3, 0.05 / 3]])), smoothed="invert")[0]).notes)  # fmt: skip


def test_lists_of_words_survive_parquet(tmp_path):
    tmp_path.mkdir(exist_ok=True)
    frame = {"utterance": ["u"], "primary": ["Other-a, b"], "secondary": [["Sad", "Other-x"]], "is_self_report": [True]}
    pl.DataFrame(frame).write_parquet(tmp_path / "ratings.parquet")
    write(tmp_path, {"class_set": "msp8"})
    _, [row], _ = parse(tmp_path)
    assert (row["primary"], row["secondary"], row["is_self_report"]) == ("other-a, b", ["sad", "other-x"], True)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["line", "text"])
def test_a_column_of_any_name_is_kept(tmp_path, suffix, name):
    rows = [{"id": "u1", name: "one"}, {"id": "u2", name: "two"}]
    if suffix == ".csv":
        write(tmp_path, utterances=f'{name},id\none,u1\n"two",u2\nbad\n')
    elif suffix == ".jsonl":
        (tmp_path / "utterances.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pl.DataFrame(rows).write_parquet(tmp_path / "utterances.parquet")
    write(tmp_path, ratings=f"utterance,primary,{name}\nu1,sad,x\nu2,sad,y\n")
    utterances, ratings, report = parse(tmp_path)
    assert [row[name] for row in utterances] == ["one", "two"]
    assert len(ratings) == 2
    assert f"utterances{suffix}: columns of no known name, kept as text: {name}" in report.problems
    if suffix == ".csv":
        assert "utterances.csv:4: not 2 cells" in report.problems
    (tmp_path / f"utterances{suffix}").unlink()
    assert [row[name] for row in parse(tmp_path)[0]] == ["x", "y"]

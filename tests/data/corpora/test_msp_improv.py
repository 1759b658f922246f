"""MSP-IMPROV: activation turned round once, the actor is the speaker, NaN is missing, nothing lost without a line."""

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seremo_jax.data import tables, text_lines
from seremo_jax.data.corpora import msp_improv
from tests.support import msp_improv_files as files

NAMED = "UTD-IMPROV-S01A-F01-S-FM01.avi"
HEAD = f"{NAMED}; N; A:3.000000; V:3.500000; D:NaN ; N:2.000000;"


def parse(root: Path, **policies):
    utterances, ratings = msp_improv.parse(root, **policies)
    return utterances.to_pylist(), ratings.to_pylist(), tables.report_of(utterances)


def write(root: Path, *rows: str, file: str = "Evalution.txt") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text("\n".join(rows), encoding="utf-8")
    return root


def test_activation_is_turned_round_once_in_ratings_and_means(tmp_path):
    turns = files.simulate()
    files.write_improv(tmp_path, turns)
    utterances, ratings, _ = parse(tmp_path)
    raw_utterances, raw, _ = parse(tmp_path, reverse_activation=False)
    assert [row["activation"] for row in ratings] == [6 - row["activation"] for row in raw]
    assert {1.0, 5.0} <= {row["activation"] for row in ratings}
    for name in ("valence", "dominance", "naturalness", "primary", "rater"):
        assert [row[name] for row in ratings] == [row[name] for row in raw]
    assert [row["activation"] for row in parse(tmp_path)[1]] == [row["activation"] for row in ratings]
    for row, raw_row in zip(utterances, raw_utterances, strict=True):
        own = [rating["activation"] for rating in ratings if rating["utterance"] == row["id"]]
        # The mean of what was turned round is the mean turned round.
        assert row["released_activation"] == pytest.approx(np.mean(own), abs=1e-5)
        assert raw_row["released_activation"] == pytest.approx(6 - np.mean(own), abs=1e-5)
        assert row["released_valence"] == raw_row["released_valence"]
    [_, rows] = msp_improv.parse(write(tmp_path / "one", HEAD, "1; Sad; ; A:1.0; V:2.0; D:3.0; N:4.0;"))
    assert rows["activation"].to_pylist() == [5.0]
    assert any("reversed" in note for note in tables.info_of(rows).notes)


def test_the_speaker_is_the_actor_field_and_gender_follows_it(tmp_path):
    row = HEAD.replace("F01-S-FM01", "M06-T-FM11")
    [turn], _, _ = parse(write(tmp_path, row, "1; Sad; ; A:1.0; V:2.0; D:3.0; N:4.0;"))
    assert {name: turn[name] for name in ("id", "speaker", "gender", "session", "scenario", "sentence",
                                          "intended_class", "audio")} == {
        "id": "MSP-IMPROV-S01A-M06-T-FM11", "speaker": "M06", "gender": "male", "session": "6", "scenario": "T",
        "sentence": "S01", "intended_class": "angry",
        "audio": "Audio/session6/S01A/T/MSP-IMPROV-S01A-M06-T-FM11.wav",
    }  # fmt: skip


def test_audio_is_found_with_and_without_its_outer_folder(tmp_path):
    turns = files.simulate()
    files.write_improv(tmp_path, turns)
    (tmp_path / "session1").mkdir()
    assert parse(tmp_path)[0][0]["audio"].startswith("session1/S01")
    (tmp_path / "Audio").mkdir()
    assert parse(tmp_path)[0][0]["audio"].startswith("Audio/session1/S01")


def test_nan_is_missing_and_naturalness_an_attribute_of_its_own(tmp_path):
    root = write(tmp_path, HEAD, "1; Sad; ; A:NaN; V:2.0; D:nan; N:NaN;", "2; ; ; A:2.0; V:3.0; D:4.0; N:5.0;")
    [turn], ratings, report = parse(root)
    assert [[row[name] for name in ("valence", "activation", "dominance", "naturalness")] for row in ratings] == [
        [2, None, None, None],
        [3, 4, 4, 5],
    ]
    assert (turn["released_dominance"], turn["released_naturalness"]) == (None, 2)
    assert [row["primary"] for row in ratings] == ["sad", None]
    assert report.counts["ratings_without_class"] == 1
    assert tables.info_of(msp_improv.parse(root)[1]).attribute_ranges["naturalness"] == (1.0, 5.0)


def test_a_rater_who_answers_twice_is_kept_both_times_in_order(tmp_path):
    root = write(tmp_path, HEAD, "7; Sad; ; A:1.0; V:2.0; D:3.0; N:4.0;", "3; Sad; ; A:1.0; V:2.0; D:3.0; N:4.0;",
                 "7; Angry; ; A:1.0; V:5.0; D:3.0; N:4.0;")  # fmt: skip
    _, ratings, report = parse(root)
    assert [(row["rater"], row["primary"], row["valence"]) for row in ratings] == [
        ("3", "sad", 2), ("7", "sad", 2), ("7", "angry", 5),
    ]  # fmt: skip
    assert report.counts["repeated_raters"] == 1


def test_every_line_is_used_or_reported(tmp_path):
    good = "1; Sad; ; A:1.0; V:2.0; D:3.0; N:4.0;"
    root = write(
        tmp_path,
        good,
        HEAD,
        good,
        "2; Sad; A:1.0; V:2.0; D:3.0; N:4.0;",
        "3; Sad; ; A:1.0; V:two; D:3.0; N:4.0;",
        "4; Sad; ; A:1.0; A:2.0; D:3.0; N:4.0;",
        "; Sad; ; A:1.0; V:2.0; D:3.0; N:4.0;",
        "5; Sad; ; A:1.0; V:9.0; D:3.0; N:4.0;",
        "",
        HEAD.replace("F01", "G01"),
        good,
        HEAD,
        good,
    )
    utterances, ratings, report = parse(root)
    assert len(utterances) == 1
    assert [(row["rater"], row["valence"]) for row in ratings] == [("1", 2), ("5", None)]
    places = [int(problem.split(":")[1]) for problem in report.problems if problem.startswith("Evalution.txt:")]
    assert places == [1, 4, 5, 6, 7, 8, 10, 11, 12, 13]
    assert (report.counts["lines_read"], report.counts["lines_not_used"]) == (3, 2)
    assert (report.counts["ratings_read"], report.counts["ratings_not_used"], report.counts["ratings_kept"]) == (
        9,
        7,
        2,
    )


@hypothesis.given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30) | st.just("; A:1; V:1; D:1; N:1;")
)
def test_free_text_comes_through_whole(tmp_path_factory, text):
    root = write(tmp_path_factory.mktemp("free"), HEAD, f"1; Other-{text}; Sad,Excited; A:1.0; V:2.0; D:3.0; N:4.0;")
    _, [row], _ = parse(root)
    assert row["primary"] == (f"other-{text.strip()}" if text.strip() else "other")
    assert row["secondary"] == ["sad", "excited"]
    assert (row["valence"], row["naturalness"]) == (2, 4)


def test_the_full_release_is_told_by_its_number(tmp_path, monkeypatch):
    turns = files.simulate()
    files.write_improv(tmp_path, turns)
    utterances, _ = msp_improv.parse(tmp_path)
    assert tables.info_of(utterances).release == "subset of 4 speakers"
    assert "16 utterances are not the 8,438 of the full release" in tables.report_of(utterances).problems
    monkeypatch.setattr(msp_improv, "NUM_UTTERANCES", 16)
    utterances, _ = msp_improv.parse(tmp_path)
    assert tables.info_of(utterances).release == "full"
    assert tables.report_of(utterances).problems == []


def test_the_file_must_be_there_once(tmp_path):
    with pytest.raises(text_lines.CorpusError, match=r"no Evalution\.txt nor Evaluation\.txt.*corpus\.root"):
        parse(tmp_path)
    write(tmp_path, HEAD)
    assert len(parse(tmp_path)[0]) == 1
    write(tmp_path / "labels", HEAD, file="Evaluation.txt")
    with pytest.raises(text_lines.CorpusError, match="are both there"):
        parse(tmp_path)


def test_unknown_words_are_an_error_unless_mapped(tmp_path):
    write(tmp_path, HEAD, "1; Bored; ; A:1.0; V:2.0; D:3.0; N:4.0;")
    with pytest.raises(text_lines.CorpusError, match=r"Evalution\.txt: .*'Bored' x 1"):
        parse(tmp_path)
    _, [row], _ = parse(tmp_path, word_map=("bored=other-bored",))
    assert row["primary"] == "other-bored"

"""IEMOCAP: who speaks, what each rater said, self-reports apart; nothing lost without a line number."""

from pathlib import Path

import pytest

from seremo_jax.data import tables, text_lines
from seremo_jax.data.corpora import iemocap
from tests.support import iemocap_files as files

DIALOGUE = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"


def parse(root: Path, **policies):
    utterances, ratings = iemocap.parse(root, **policies)
    return utterances.to_pylist(), ratings.to_pylist(), tables.report_of(utterances)


def write_dialogue(root: Path, text: str) -> Path:
    (root / DIALOGUE).parent.mkdir(parents=True, exist_ok=True)
    (root / DIALOGUE).write_text(text, encoding="utf-8")
    return root


def turn_text(*answers: str, name: str = "Ses01F_impro01_M003", code: str = "fru") -> str:
    head = f"[6.2901 - 8.2357]\t{name}\t{code}\t[2.5000, 3.5000, 4.0000]"
    return "\n".join([head, *answers]) + "\n\n"


def test_the_speaker_is_who_speaks_and_not_who_wears_the_markers(tmp_path):
    utterances, _, _ = parse(files.write_iemocap(tmp_path, files.simulate()))
    speakers = {row["id"]: (row["speaker"], row["gender"], row["session"]) for row in utterances}
    assert speakers["Ses01F_impro01_M000"] == ("01M", "male", "1")
    assert speakers["Ses02M_script02_1b_F001"] == ("02F", "female", "2")
    assert {row["speaker"] for row in utterances} == {"01F", "01M", "02F", "02M"}


def test_turns_carry_dialogue_kind_times_and_what_was_released(tmp_path):
    [turn], _, _ = parse(write_dialogue(tmp_path, turn_text("C-E1:\tAnger;\t()")))
    assert {name: turn[name] for name in ("dialogue", "kind", "start_s", "end_s", "released_consensus")} == {
        "dialogue": "Ses01F_impro01", "kind": "impro", "start_s": 6.2901, "end_s": 8.2357,
        "released_consensus": "frustrated",
    }  # fmt: skip
    # The order in the file is valence, activation, dominance.
    assert (turn["released_valence"], turn["released_activation"], turn["released_dominance"]) == (2.5, 3.5, 4.0)
    assert turn["audio"] == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav"
    utterances, _, _ = parse(files.write_iemocap(tmp_path / "more", files.simulate()))
    assert {row["dialogue"]: row["kind"] for row in utterances}["Ses01M_script02_1b"] == "script"


def test_several_categories_are_kept_in_their_order(tmp_path):
    text = turn_text("C-E1:\tFrustration; Anger; Sadness;\t(so; (so))", "C-E2:\tNeutral state;\t()")
    _, ratings, report = parse(write_dialogue(tmp_path, text))
    assert [(row["rater"], row["primary"], row["also_primary"]) for row in ratings] == [
        ("E1", "frustrated", ["angry", "sad"]),
        ("E2", "neutral", []),
    ]
    assert report.counts["ratings_of_several_classes"] == 1


def test_self_reports_are_marked_and_nobody_else(tmp_path):
    text = turn_text("C-E1:\tAnger;\t()", "C-M1:\tSadness;\t()", "A-M1:\tval 2; act 4; dom  5;\t()", "C-F1:\tFear;\t()")
    _, ratings, _ = parse(write_dialogue(tmp_path, text))
    assert [(row["rater"], row["is_self_report"]) for row in ratings] == [("E1", False), ("F1", True), ("M1", True)]
    assert (ratings[2]["primary"], ratings[2]["dominance"]) == ("sad", 5)


def test_values_go_by_name_and_a_missing_one_is_missing(tmp_path):
    given = ("val 2; act 4; dom  5;", "dom  1; act 3; val 2;", "val 1; act 2; ", "val 9; act 2; dom ;")
    text = turn_text(*(f"A-E{rater}:\t{values}\t()" for rater, values in enumerate(given, start=3)))
    _, ratings, report = parse(write_dialogue(tmp_path, text))
    assert [(row["valence"], row["activation"], row["dominance"]) for row in ratings] == [
        (2, 4, 5), (2, 3, 1), (1, 2, None), (None, 2, None),
    ]  # fmt: skip
    assert {row["primary"] for row in ratings} == {None}
    assert report.problems[0].startswith("Ses01F_impro01.txt:5: 'val 9' is outside 1 to 5")


def test_a_rater_who_answers_twice_makes_two_ratings(tmp_path):
    text = turn_text("C-E1:\tAnger;\t()", "C-E1:\tFear;\t()", "A-E1:\tval 2; act 4; dom  5;\t()")
    _, ratings, report = parse(write_dialogue(tmp_path, text))
    assert [(row["primary"], row["valence"]) for row in ratings] == [("angry", 2), ("fear", None)]
    assert report.counts["repeated_raters"] == 1
    assert (report.counts["ratings_read"], report.counts["ratings_joined"], report.counts["ratings_kept"]) == (3, 1, 2)


def test_every_line_is_used_or_reported(tmp_path):
    text = (
        "% header\n\nC-E1:\tAnger;\t()\n"
        "[6.29 - x]\tSes01F_impro01_M001\tneu\t[2.5, 2.5, 2.5]\nC-E1:\tAnger;\t()\n\n"
        "[6.29 - 7.00]\tM001\tneu\t[2.5, 2.5, 2.5]\n\n"
        "[6.29 - 7.00]\tSes01F_impro01_M002\tneu\t[2.5, 2.5]\n\n"
    )
    text += turn_text("C-E1:\tAnger;\t()", "what is this", "A-E2:\tval two; act 1;\t()", "A-E3:\tval 2; val 3;\t()")
    text += turn_text("C-E2:\tSadness;\t()")
    _, ratings, report = parse(write_dialogue(tmp_path, text))
    assert [row["primary"] for row in ratings] == ["angry"]
    places = [int(problem.split(":")[1]) for problem in report.problems if problem.startswith("Ses01F_impro01.txt:")]
    assert places == [3, 4, 5, 7, 9, 13, 14, 15, 17, 18]
    assert (report.counts["lines_read"], report.counts["lines_not_used"]) == (6, 5)
    assert (report.counts["ratings_read"], report.counts["ratings_not_used"]) == (6, 5)


def test_copies_by_rater_stand_instead_of_the_lines(tmp_path):
    turns = files.simulate()
    lined = parse(files.write_iemocap(tmp_path / "lines", turns))
    root = files.write_iemocap(tmp_path / "copies", turns, copies=True)
    copied = parse(root)
    assert copied[:2] == lined[:2]
    assert copied[2].counts["copies_that_differ"] == 0
    path = root / "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt"
    rows = path.read_text().split("\n")
    rows[0] = "Ses01F_impro01_F000 :Surprise; Fear; ()"
    rows[1:2] = ["Ses01F_impro01_F099 :Anger; ()", "no turn"]
    path.write_text("\n".join(rows))
    (path.parent / "notes.txt").write_text("Ses01F_impro01_F000 :Anger; ()\n")
    _, ratings, report = parse(root)
    own = {(row["utterance"], row["rater"]): [row["primary"], *row["also_primary"]] for row in ratings}
    assert own["Ses01F_impro01_F000", "E2"] == ["surprise", "fear"]
    before = {(row["utterance"], row["rater"]): [row["primary"], *row["also_primary"]] for row in lined[1]}
    assert {key for key in own if own[key] != before[key]} == {("Ses01F_impro01_F000", "E2")}
    assert report.counts["copies_that_differ"] == 1
    assert "Categorical/Ses01F_impro01_e2_cat.txt:3: not TURN :ANSWER; ()" in report.problems
    assert "copies by rater E2: no dialogue has the turn Ses01F_impro01_F099" in report.problems
    assert any(problem.startswith("Categorical/notes.txt: its name") for problem in report.problems)
    assert report.counts["ratings_read"] == sum(
        report.counts[f"ratings_{reason}"] for reason in ("kept", "not_used", "joined", "replaced_by_copies")
    )


def test_unknown_categories_are_an_error_unless_mapped(tmp_path):
    write_dialogue(tmp_path, turn_text("C-E1:\tBoredom; Anger;\t()", "C-E2:\tBoredom;\t()"))
    with pytest.raises(text_lines.CorpusError, match="'Boredom' x 2"):
        parse(tmp_path)
    _, ratings, _ = parse(tmp_path, word_map=("boredom=other-bored",))
    assert ratings[0]["primary"] == "other-bored"


def test_unknown_codes_are_reported(tmp_path):
    [turn], _, report = parse(write_dialogue(tmp_path, turn_text("C-E1:\tAnger;\t()", code="bor")))
    assert turn["released_consensus"] is None
    assert report.counts["released_codes_unknown"] == 1


def test_the_full_release_is_told_by_its_turns(tmp_path, monkeypatch):
    turns = files.simulate()
    files.write_iemocap(tmp_path, turns)
    utterances, ratings = iemocap.parse(tmp_path)
    assert tables.info_of(ratings).release == "subset of 2 sessions"
    assert any("12 in session 1 (full: 1,819)" in problem for problem in tables.report_of(utterances).problems)
    monkeypatch.setattr(iemocap, "TURNS_OF_SESSION", {"1": 12, "2": 12})
    utterances, _ = iemocap.parse(tmp_path)
    assert tables.info_of(utterances).release == "full"
    assert tables.report_of(utterances).problems == []


def test_sessions_may_lie_one_folder_down_and_must_be_there(tmp_path):
    turns = files.simulate(num_sessions=1)
    files.write_iemocap(tmp_path / "IEMOCAP_full_release", turns)
    utterances, _, _ = parse(tmp_path)
    assert utterances[0]["audio"].startswith("IEMOCAP_full_release/Session1/sentences/wav/")
    with pytest.raises(text_lines.CorpusError, match=r"Session1/.*corpus\.root"):
        parse(tmp_path / "nowhere")
    (tmp_path / "empty/Session1").mkdir(parents=True)
    with pytest.raises(text_lines.CorpusError, match="no turns in Session"):
        parse(tmp_path / "empty")

"""CREMA-D: both layouts, both sources of votes, and the counts of the shared subset."""

import collections
import csv
import os

import numpy as np
import polars as pl
import pytest
import soundfile

from seremo_jax.core import schema
from seremo_jax.data import corpora, tables, text_lines
from seremo_jax.data.corpora import crema_d, crema_d_votes

MEANS = ("meanAngerResp", "meanDisgustResp", "meanFearResp", "meanHappyResp", "meanNeutralResp", "meanSadResp")
RESPONSES = ("", "localid", "pos", "ans", "ttr", "queryType", "numTries", "clipNum", "questNum", "subType", "clipName",
             "sessionNums", "respEmo", "respLevel", "dispEmo", "dispVal", "dispLevel")  # fmt: skip
CLICKS = ("", "localid", "sessionNums", "queryType", "questNum", "pos", "ttr", "numTries", "clipNum", "clipName")
ACTORS = (("1001", "51", "Male"), ("1002", "21", "Female"), ("1040", "42", "Female"))
VOICE = {
    "1001_DFA_ANG_XX": "AAADN",
    "1001_IEO_NEU_XX": "NNNN",
    "1002_IEO_HAP_LO": "HHN",
    "1040_ITH_SAD_XX": "SNSF",
}
"""Votes from the voice; from the face each has two for N, from both one for H."""


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(header)
        writer.writerows(rows)


def cells():
    """(utterance, query type, letters of the votes) of every cell."""
    for name, votes in VOICE.items():
        yield from ((name, 1, votes), (name, 2, "NN"), (name, 3, "H"))


def tabulated_rows(names=VOICE):
    rows = []
    for number, (name, query, votes) in enumerate(cells()):
        if name not in names:
            continue
        counts = [votes.count(letter) for letter in "ADFHNS"]
        means = [10.0 * (i + 1) if count else -1 for i, count in enumerate(counts)]
        rows.append([f"{query}{number:05d}", *counts, name, len(votes), *means])
    return rows


def response_rows(slow=()):
    """One row a vote, and one more for each cell in `slow`, an S by a rater whose first click was slow."""
    rows, clicks = [], []
    for number, (name, query, votes) in enumerate(cells()):
        quest = number // 3  # the same in each modality, as in the release
        for rater, letter in enumerate(votes + ("S" if (name, query) in slow else "")):
            is_slow = rater == len(votes)
            # The whole response is slow for the first rater, too, whose first click was not.
            ttr = 12_000 if is_slow or rater == 0 else 4_000
            level = 10 * ("ADFHNS".index(letter) + 1)
            row = [len(rows), f"R{rater}", 7, f"{letter}_{level}", ttr, query, 0, number, quest, 4, name, rater + 1]
            rows.append([*row, letter, level, "A", 50.0, "X"])
            click_ms = 11_000 if is_slow else 3_000
            clicks.append([len(clicks), f"R{rater}", rater + 1, query, quest, 6, click_ms, 0, number, name])
    return rows, clicks


def write_audio(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.1, 0.1, 3200), 16_000)


def make_corpus(root, layout="official", slow=(), with_responses=False, with_clicks=True, with_tabulated=True):
    labels = {"official": root, "subset": root / "labels"}[layout]
    tabulated = {"official": root / "processedResults", "subset": root / "labels"}[layout]
    people = [[*actor, "Caucasian", "Not Hispanic"] for actor in ACTORS]
    write_csv(labels / "VideoDemographics.csv", ("ActorID", "Age", "Sex", "Race", "Ethnicity"), people)
    if with_tabulated:
        header = ("", *"ADFHNS", "fileName", "numResponses", *MEANS)
        write_csv(tabulated / "tabulatedVotes.csv", header, tabulated_rows())
    if with_responses:
        rows, clicks = response_rows(slow)
        write_csv(labels / "finishedResponses.csv", RESPONSES, rows)
        if with_clicks:
            write_csv(labels / "finishedEmoResponses.csv", CLICKS, clicks)
    for name in VOICE:
        path = {"official": f"AudioWAV/{name}.wav", "subset": f"audio/{name[:4]}/{name}.flac"}[layout]
        write_audio(root / path)
    return root


def votes_of(ratings, modality="voice"):
    votes = collections.defaultdict(collections.Counter)
    for row in ratings.to_pylist():
        if row["modality"] == modality:
            votes[row["utterance"]][row["primary"]] += 1
    return dict(votes)


def expected_votes():
    return {
        name: collections.Counter(crema_d_votes.CLASS_OF_LETTER[letter] for letter in votes)
        for name, votes in VOICE.items()
    }


def test_both_layouts_say_the_same(tmp_path):
    official = corpora.parse("crema_d", make_corpus(tmp_path / "official"))
    subset = corpora.parse("crema_d", make_corpus(tmp_path / "subset", "subset"))
    for table, like in zip((*official, *subset), (schema.UTTERANCE_SCHEMA, schema.RATING_SCHEMA) * 2, strict=True):
        tables.require_schema(table, like, "crema_d")
    assert tables.tables_fingerprint(*official) == tables.tables_fingerprint(*subset)
    assert official[0]["audio"].to_pylist()[0] == "AudioWAV/1001_DFA_ANG_XX.wav"
    assert subset[0]["audio"].to_pylist()[0] == "audio/1001/1001_DFA_ANG_XX.flac"
    assert votes_of(official[1]) == expected_votes()
    assert set(official[1]["modality"].to_pylist()) == {"voice", "face", "both"}


def test_utterances_carry_who_speaks_and_what_was_acted(tmp_path):
    utterances, ratings = crema_d.parse(make_corpus(tmp_path))
    row = utterances.to_pylist()[2]
    assert {key: row[key] for key in ("id", "speaker", "gender", "age", "race", "ethnicity", "split")} == {
        "id": "1002_IEO_HAP_LO", "speaker": "1002", "gender": "female", "age": 21, "race": "Caucasian",
        "ethnicity": "Not Hispanic", "split": "",
    }  # fmt: skip
    assert (row["acted_class"], row["acted_level"], row["sentence"]) == ("happy", "low", "IEO")
    info = tables.info_of(ratings)
    assert (info.corpus, info.class_set, info.is_simulated) == ("crema_d", "crema6", False)
    assert info.release == "subset of 3 speakers, tabulatedVotes"
    assert info.attribute_ranges == {"intensity": (0.0, 100.0)}


def test_the_released_consensus_is_told_apart_by_modality(tmp_path):
    make_corpus(tmp_path)
    utterances, _ = crema_d.parse(tmp_path)
    assert utterances["released_consensus"].null_count == 4
    header = ("", "MultiModalVote", "FaceVote", "VoiceVote", "FileName")
    rows = [(1, "H", "N", "A", "1001_DFA_ANG_XX"), (2, "H", "N:F", "H:S", "1002_IEO_HAP_LO"),
            (3, "H", "N", "A:X", "1001_IEO_NEU_XX"), (4, "D", "D", "D", "1001_DFA_ANG_XX")]  # fmt: skip
    write_csv(tmp_path / "processedResults/summaryTable.csv", header, rows)
    utterances, _ = crema_d.parse(tmp_path)
    columns = ("released_consensus", "released_consensus_face", "released_consensus_both")
    assert [[row[name] for name in columns] for row in utterances.to_pylist()] == [
        ["angry", "neutral", "happy"],
        [None, None, None],
        ["no_agreement", "no_agreement", "happy"],
        [None, None, None],
    ]
    problems = tables.report_of(utterances).problems
    assert problems == [
        "summaryTable.csv:4: 1001_IEO_NEU_XX: a letter that stands for no class",
        "summaryTable.csv:5: 1001_DFA_ANG_XX: a second line for this utterance",
    ]


def test_there_is_intensity_and_no_attribute(tmp_path):
    _, ratings = crema_d.parse(make_corpus(tmp_path))
    for name in ("valence", "activation", "dominance"):
        assert ratings[name].null_count == ratings.num_rows
    levels = {row["primary"]: row["intensity"] for row in ratings.to_pylist()}
    assert levels == {"angry": 10, "disgust": 20, "fear": 30, "happy": 40, "neutral": 50, "sad": 60}


def test_a_count_with_a_level_of_minus_one_is_not_rated_and_reported(tmp_path):
    make_corpus(tmp_path)
    path = tmp_path / "processedResults/tabulatedVotes.csv"
    path.write_text(path.read_text().replace("10.0,20.0,-1,-1,50.0,-1", "-1,20.0,-1,-1,50.0,-1"))
    utterances, ratings = crema_d.parse(tmp_path)
    angry = [row["intensity"] for row in ratings.to_pylist() if row["primary"] == "angry"]
    assert angry == [None, None, None]
    assert tables.report_of(utterances).counts["intensities_not_used"] == 1


def test_single_responses_keep_raters_and_leave_out_slow_first_clicks(tmp_path):
    slow = [("1001_DFA_ANG_XX", 1), ("1040_ITH_SAD_XX", 3)]
    make_corpus(tmp_path, slow=slow, with_responses=True)
    utterances, ratings = crema_d.parse(tmp_path)
    report, info = tables.report_of(utterances), tables.info_of(utterances)
    assert info.release.endswith("finishedResponses")
    assert votes_of(ratings) == expected_votes()
    assert set(ratings["rater"].to_pylist()) == {"R0", "R1", "R2", "R3", "R4"}
    assert (report.counts["slow_clicks_left_out"], report.counts["cells_unlike_tabulated"]) == (2, 0)
    assert report.counts["lines_read"] == 12 + 3 + 2 * (ratings.num_rows + 2)

    utterances, ratings = crema_d.parse(tmp_path, slow_clicks="in")
    assert votes_of(ratings)["1001_DFA_ANG_XX"]["sad"] == 1
    assert tables.report_of(utterances).counts["cells_unlike_tabulated"] == 2
    assert "slow_clicks_left_out" not in tables.report_of(utterances).counts


def test_responses_and_counts_agree_on_everything_but_raters(tmp_path):
    single = crema_d.parse(make_corpus(tmp_path / "a", with_responses=True))
    counted = crema_d.parse(make_corpus(tmp_path / "b"))
    for modality in ("voice", "face", "both"):
        assert votes_of(single[1], modality) == votes_of(counted[1], modality)
    assert sorted(single[1]["intensity"].to_pylist()) == sorted(counted[1]["intensity"].to_pylist())


def test_without_first_clicks_the_counts_are_used_and_said_so(tmp_path):
    utterances, ratings = crema_d.parse(make_corpus(tmp_path, with_responses=True, with_clicks=False))
    assert ratings["rater"].to_pylist()[0].startswith("anon-")
    assert any("finishedEmoResponses.csv" in problem for problem in tables.report_of(utterances).problems)
    assert "slow_clicks_left_out" not in tables.report_of(utterances).counts


def test_without_first_clicks_and_counts_the_whole_time_stands_in(tmp_path):
    make_corpus(tmp_path, with_responses=True, with_clicks=False, with_tabulated=False)
    utterances, ratings = crema_d.parse(tmp_path)
    assert "R0" not in ratings["rater"].to_pylist()
    assert tables.report_of(utterances).counts["slow_clicks_left_out"] == 12
    assert any("leaves out more" in problem for problem in tables.report_of(utterances).problems)


def test_incomplete_responses_give_way_to_counts(tmp_path):
    make_corpus(tmp_path, with_responses=True)
    path = tmp_path / "finishedResponses.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "1040" not in line))
    utterances, ratings = crema_d.parse(tmp_path)
    assert votes_of(ratings) == expected_votes()
    [problem] = tables.report_of(utterances).problems
    assert problem.startswith("finishedResponses.csv is not used: it lacks 3 utterances in a modality")
    with pytest.raises(text_lines.CorpusError, match="lacks slow clicks"):
        crema_d.parse(tmp_path, slow_clicks="in")


def test_a_rater_who_answers_twice_is_counted_and_kept(tmp_path):
    make_corpus(tmp_path, with_responses=True, with_tabulated=False)
    path = tmp_path / "finishedResponses.csv"
    path.write_text(path.read_text().replace('"R1"', '"R0"'))
    utterances, ratings = crema_d.parse(tmp_path)
    assert tables.report_of(utterances).counts["repeated_raters"] == 8
    assert votes_of(ratings) == expected_votes()


def test_columns_may_stand_in_any_order(tmp_path):
    make_corpus(tmp_path / "a", with_responses=True)
    make_corpus(tmp_path / "b", with_responses=True)
    for path in (tmp_path / "b").rglob("*.csv"):
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        order = np.random.default_rng(1).permutation(len(rows[0]))
        write_csv(path, [rows[0][i] for i in order], [[row[i] for i in order] for row in rows[1:]])
    for slow_clicks in ("in", "out"):
        both = [crema_d.parse(tmp_path / folder, slow_clicks=slow_clicks) for folder in "ab"]
        assert tables.tables_fingerprint(*both[0]) == tables.tables_fingerprint(*both[1])


def test_every_line_is_used_or_reported_with_its_number(tmp_path):
    make_corpus(tmp_path)
    path = tmp_path / "processedResults/tabulatedVotes.csv"
    bad = [
        '"100900",1,0,0,0,0,0,"1001_XXX_ODD",1,9,-1,-1,-1,-1,-1',
        '"100901",1,0,0,0,0,0,"1001_IEO_SAD_HI",2,9,-1,-1,-1,-1,-1',
        '"100902",one,0,0,0,0,0,"1001_IEO_SAD_HI",1,9,-1,-1,-1,-1,-1',
        '"700903",1,0,0,0,0,0,"1001_IEO_SAD_HI",1,9,-1,-1,-1,-1,-1',
        '"100904",1,0,0',
        tabulated_line(path, "1001_DFA_ANG_XX"),
    ]
    path.write_text(path.read_text() + "\n".join(bad) + "\n")
    utterances, ratings = crema_d.parse(tmp_path)
    report = tables.report_of(utterances)
    assert votes_of(ratings) == expected_votes()
    assert (report.counts["lines_read"], report.counts["lines_not_used"]) == (12 + 3 + 6, 6)
    assert [problem.split(":")[1] for problem in report.problems] == ["14", "15", "16", "17", "18", "19"]
    assert "a second line for this cell" in report.problems[-1]


def tabulated_line(path, name):
    return next(line for line in path.read_text().splitlines() if name in line)


def test_letters_without_a_class_are_an_error_with_their_counts(tmp_path):
    make_corpus(tmp_path, with_responses=True)
    path = tmp_path / "finishedResponses.csv"
    path.write_text(path.read_text().replace('"F",30', '"Q",30'))
    with pytest.raises(text_lines.CorpusError, match=r"finishedResponses\.csv: respEmo .*\{'Q': 1\}"):
        crema_d.parse(tmp_path)


def test_audio_without_ratings_and_ratings_without_audio_are_both_rows(tmp_path):
    make_corpus(tmp_path)
    write_audio(tmp_path / "AudioWAV/1001_TIE_FEA_XX.wav")
    write_audio(tmp_path / "AudioWAV/notes.wav")
    (tmp_path / "AudioWAV/1002_IEO_HAP_LO.wav").unlink()
    utterances, ratings = crema_d.parse(tmp_path)
    audio = dict(zip(utterances["id"].to_pylist(), utterances["audio"].to_pylist(), strict=True))
    assert audio["1002_IEO_HAP_LO"] == ""
    assert audio["1001_TIE_FEA_XX"] == "AudioWAV/1001_TIE_FEA_XX.wav"
    assert "1001_TIE_FEA_XX" not in ratings["utterance"].to_pylist()
    assert tables.report_of(utterances).counts["files_not_used"] == 1


def test_files_that_the_list_promises_keep_their_path(tmp_path):
    make_corpus(tmp_path, "subset")
    promised = "audio/1002/1002_IEO_HAP_LO.flac"
    (tmp_path / promised).unlink()
    write_csv(tmp_path / "clips.csv", ("clip", "path"), [("1002_IEO_HAP_LO", promised)])
    utterances, _ = crema_d.parse(tmp_path)
    assert promised in utterances["audio"].to_pylist()


def test_the_misspelt_name_is_mended_and_counted(tmp_path):
    make_corpus(tmp_path)
    wrong = tmp_path / "AudioWAV/1040_ITH_SAD_X.wav"
    (tmp_path / "AudioWAV/1040_ITH_SAD_XX.wav").rename(wrong)
    utterances, _ = crema_d.parse(tmp_path)
    assert utterances.to_pylist()[-1]["id"] == "1040_ITH_SAD_XX"
    assert utterances.to_pylist()[-1]["audio"] == "AudioWAV/1040_ITH_SAD_X.wav"
    assert tables.report_of(utterances).counts["misspelt_names"] == 1
    write_audio(tmp_path / "AudioWAV/1040_ITH_SAD_XX.wav")
    utterances, _ = crema_d.parse(tmp_path)
    assert utterances.num_rows == 4
    assert tables.report_of(utterances).counts["second_audio_files"] == 1


def test_actors_without_demographics_are_reported(tmp_path):
    make_corpus(tmp_path)
    path = tmp_path / "VideoDemographics.csv"
    path.write_text(
        "\n".join(line for line in path.read_text().replace("Male", "m").splitlines() if "1040" not in line)
    )
    utterances, _ = crema_d.parse(tmp_path)
    rows = {row["speaker"]: (row["gender"], row["age"]) for row in utterances.to_pylist()}
    assert rows == {"1001": ("unknown", 51), "1002": ("female", 21), "1040": ("unknown", None)}
    counts = tables.report_of(utterances).counts
    assert (counts["genders_unknown"], counts["actors_not_described"]) == (1, 1)


def test_a_folder_that_is_not_the_corpus_is_an_error(tmp_path):
    with pytest.raises(text_lines.CorpusError, match=r"--config\.corpus\.root"):
        crema_d.parse(tmp_path)
    make_corpus(tmp_path)
    (tmp_path / "VideoDemographics.csv").unlink()
    with pytest.raises(text_lines.CorpusError, match=r"no VideoDemographics\.csv"):
        crema_d.parse(tmp_path)


def test_unknown_names_and_policies_are_errors():
    with pytest.raises(text_lines.CorpusError, match="did you mean crema_d"):
        corpora.parse("crema-d", ".")
    with pytest.raises(text_lines.CorpusError, match="knows no policy slow_click"):
        corpora.parse("crema_d", ".", slow_click="in")
    assert corpora.policies_of("crema_d") == {"slow_clicks"}


@pytest.fixture(scope="module")
def subset(shared):
    utterances, ratings = crema_d.parse(shared / "data/crema_d")
    return pl.DataFrame(pl.from_arrow(utterances)), pl.DataFrame(pl.from_arrow(ratings)), tables.report_of(utterances)


@pytest.fixture(scope="module")
def counts(subset):
    """[utterances, 6] votes and utterance names, by modality."""
    _, ratings, _ = subset
    words = list(crema_d_votes.CLASS_OF_LETTER.values())
    result = {}
    for modality in ("voice", "face", "both"):
        pivoted = (
            ratings.filter(pl.col("modality") == modality)
            .pivot("primary", index="utterance", values="rater", aggregate_function=pl.len())
            .fill_null(0)
            .sort("utterance")
        )
        result[modality] = pivoted["utterance"].to_list(), pivoted.select(words).to_numpy().astype(int)
    return result


@pytest.mark.parametrize(
    ("modality", "total", "votes", "tie_sizes", "pluralities", "num_acted"),
    [
        ("voice", 57_223, (8_348, 7_546, 6_724, 3_900, 25_020, 5_685), {2: 484, 3: 48, 4: 10, 5: 1},
         (832, 475, 521, 303, 3_224, 314), 2_587),
        ("face", 59_781, (8_306, 10_526, 7_478, 10_153, 15_593, 7_725), {2: 355, 3: 40, 4: 8},
         (795, 899, 676, 1_056, 1_732, 651), 4_091),
        ("both", 59_881, (8_509, 10_360, 9_666, 9_266, 15_627, 6_453), {2: 322, 3: 36, 4: 2},
         (843, 962, 877, 1_010, 1_654, 506), 4_443),
    ],
)  # fmt: skip
def test_published_counts_of_the_subset(subset, counts, modality, total, votes, tie_sizes, pluralities, num_acted):
    utterances, _, _ = subset
    names, table = counts[modality]
    assert (len(names), table.sum()) == (6_212, total)
    assert tuple(table.sum(axis=0)) == votes
    is_top = table == table.max(axis=1, keepdims=True)
    num_top = is_top.sum(axis=1)
    assert {size: (num_top == size).sum() for size in set(num_top) - {1}} == tie_sizes
    winner = np.where(num_top == 1, table.argmax(axis=1), -1)
    assert tuple(np.bincount(winner[winner >= 0], minlength=6)) == pluralities
    words = list(crema_d_votes.CLASS_OF_LETTER.values())
    acted = dict(zip(utterances["id"], utterances["acted_class"], strict=True))
    assert (
        sum(index >= 0 and words[index] == acted[name] for name, index in zip(names, winner, strict=True)) == num_acted
    )


def test_voice_and_both_agree_where_published(counts):
    tops = [counts[m][1] == counts[m][1].max(axis=1, keepdims=True) for m in ("voice", "both")]
    assert (tops[0] == tops[1]).all(axis=1).sum() == 3_173


def test_votes_equal_those_of_the_summary_table(shared, counts):
    with (shared / "data/crema_d/labels/summaryTable.csv").open(newline="") as file:
        rows = {row["FileName"]: row for row in csv.DictReader(file)}
    for modality, column in (("voice", "VoiceVote"), ("face", "FaceVote"), ("both", "MultiModalVote")):
        names, table = counts[modality]
        for name, row in zip(names, table, strict=True):
            top = ":".join(letter for letter, n in zip("ADFHNS", row, strict=True) if n == row.max())
            assert top == rows[name][column]


def test_utterances_with_audio_are_those_of_the_readme(subset, counts):
    utterances, ratings, report = subset
    heard = utterances.filter(pl.col("audio") != "")
    assert (utterances.height, heard.height, heard["speaker"].n_unique()) == (6_212, 3_193, 76)
    assert dict(heard.group_by("gender").len().iter_rows()) == {"male": 1_680, "female": 1_513}
    assert dict(heard.group_by("acted_level").len().iter_rows()) == {
        "low": 380, "medium": 380, "high": 380, "unspecified": 2_053,
    }  # fmt: skip
    is_heard = np.isin(counts["voice"][0], heard["id"].to_list())
    table = counts["voice"][1][is_heard]
    assert tuple(table.sum(axis=0)) == (4_186, 3_850, 3_218, 2_069, 13_354, 2_850)
    assert (table.sum(), table.sum(axis=1).min(), table.sum(axis=1).max()) == (29_527, 5, 12)
    is_tied = (table == table.max(axis=1, keepdims=True)).sum(axis=1) > 1
    assert is_tied.sum() == 255
    assert (table.max(axis=1) == table.sum(axis=1)).sum() == 194
    assert report.problems == []
    assert report.counts["heard_faulty"] == 4
    assert report.counts["lines_read"] == 18_636 + 76 + 3_193 + 6_212
    assert ratings["intensity"].null_count() == 0


def test_people_and_acted_emotions_of_the_subset(subset):
    utterances, _, _ = subset
    people = utterances.unique("speaker")
    assert dict(people.group_by("gender").len().iter_rows()) == {"male": 40, "female": 36}
    assert dict(utterances.group_by("gender").len().iter_rows()) == {"male": 3_274, "female": 2_938}
    acted = dict(utterances.group_by("acted_class").len().iter_rows())
    assert acted == {"neutral": 907} | dict.fromkeys(("angry", "disgust", "fear", "happy", "sad"), 1_061)
    assert utterances["age"].null_count() == 0


def test_the_example_of_the_format_notes(subset):
    _, ratings, _ = subset
    own = ratings.filter(pl.col("utterance") == "1001_DFA_ANG_XX")
    for modality, votes in (("voice", (6, 2, 0, 0, 1, 0)), ("face", (5, 2, 0, 0, 3, 0)), ("both", (8, 1, 0, 0, 0, 0))):
        given = own.filter(pl.col("modality") == modality)["primary"].to_list()
        assert tuple(given.count(word) for word in crema_d_votes.CLASS_OF_LETTER.values()) == votes


# (utterance, modality, class): single responses, votes in the table, single responses of over 10 s.
UNLIKE_TABULATED = {
    ("1001_DFA_ANG_XX", "voice", "disgust"): (3, 2, 2),
    ("1001_DFA_ANG_XX", "both", "neutral"): (1, 0, 1),
    ("1001_DFA_FEA_XX", "voice", "neutral"): (3, 2, 1),
    ("1001_DFA_FEA_XX", "both", "happy"): (2, 1, 1),
    ("1001_DFA_HAP_XX", "voice", "neutral"): (6, 4, 4),
    ("1001_DFA_NEU_XX", "voice", "neutral"): (6, 5, 1),
    ("1001_DFA_SAD_XX", "voice", "neutral"): (6, 5, 2),
    ("1001_IEO_ANG_HI", "voice", "disgust"): (7, 6, 1),
    ("1001_IEO_ANG_LO", "both", "disgust"): (3, 2, 1),
    ("1001_IEO_DIS_HI", "both", "neutral"): (3, 2, 2),
}


def test_single_responses_of_the_excerpt_are_the_table_but_for_slow_clicks(shared, counts):
    """Each of the 180 cells: equal, or more by responses the authors left out, each of which took over 10 s in all.

    The times of first clicks, by which they went, are not in the excerpt; a first click is never later than the whole
    response, so there must be as many slow responses as were left out, at least.
    """
    path = shared / "data/crema_d/labels/finishedResponses_excerpt.csv"
    report = text_lines.Report()
    single = crema_d_votes.read_responses(path, report)
    assert (len(single), report.counts["lines_read"], report.problems) == (301, 301, [])
    assert (report.counts["ratings_read"], report.counts["repeated_raters"]) == (301, 0)
    actual = collections.Counter((vote.utterance, vote.modality, vote.primary) for vote in single)
    with path.open(newline="") as file:
        slow = collections.Counter(
            (row["clipName"], crema_d_votes.MODALITY_OF_QUERY[row["queryType"]],
             crema_d_votes.CLASS_OF_LETTER[row["respEmo"]])
            for row in csv.DictReader(file) if float(row["ttr"]) > crema_d_votes.SLOW_CLICK_MS
        )  # fmt: skip
    unlike, num_cells = {}, 0
    for modality, (names, table) in counts.items():
        for name in sorted({vote.utterance for vote in single}):
            for word, number in zip(crema_d_votes.CLASS_OF_LETTER.values(), table[names.index(name)], strict=True):
                cell = name, modality, word
                num_cells += 1
                assert 0 <= actual[cell] - number <= slow[cell]
                if actual[cell] != number:
                    unlike[cell] = actual[cell], int(number), slow[cell]
    assert num_cells == 180
    assert unlike == UNLIKE_TABULATED
    assert sum(single - counted for single, counted, _ in unlike.values()) == 11


def test_the_released_consensus_is_the_plurality_of_the_votes(subset, counts):
    utterances, _, _ = subset
    words = list(crema_d_votes.CLASS_OF_LETTER.values())
    for modality, column in (
        ("voice", "released_consensus"), ("face", "released_consensus_face"), ("both", "released_consensus_both"),
    ):  # fmt: skip
        released = dict(utterances.select("id", column).iter_rows())
        names, table = counts[modality]
        for name, row in zip(names, table, strict=True):
            top = np.flatnonzero(row == row.max())
            assert released[name] == (words[top[0]] if len(top) == 1 else "no_agreement")


def test_the_table_of_votes_closes_in_every_row(shared):
    with (shared / "data/crema_d/labels/tabulatedVotes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 6_212
    for row in rows:
        votes = {letter: int(row[letter]) for letter in "ADFHNS"}
        assert sum(votes.values()) == int(row["numResponses"])
        assert {letter for letter, number in votes.items() if number == max(votes.values())} == set(
            row["emoVote"].split(":")
        )


def test_utterances_of_speakers_and_levels_of_the_subset(subset):
    utterances, _, _ = subset
    assert dict(utterances.group_by("acted_level").len().iter_rows()) == {
        "low": 380, "medium": 380, "high": 380, "unspecified": 5_072,
    }  # fmt: skip
    own = dict(utterances.group_by("speaker").len().iter_rows())
    unlike = {speaker: number for speaker, number in own.items() if number != 82}
    assert len(own) == 76
    published = {"1008": 76, "1009": 76, "1019": 76, "1002": 81, "1076": 81}
    assert unlike == {speaker: number for speaker, number in published.items() if speaker in own}


def test_recordings_that_cannot_be_read_stay_utterances_and_linked_folders_are_walked(tmp_path):
    root = make_corpus(tmp_path / "corpus")
    names = sorted((root / "AudioWAV").iterdir())
    (tmp_path / "elsewhere").mkdir()
    names[0].rename(tmp_path / "elsewhere" / names[0].name)
    (root / "AudioWAV" / "more").symlink_to(tmp_path / "elsewhere")
    names[1].unlink()
    names[1].symlink_to(tmp_path / "nowhere.wav")
    names[2].rename(names[2].with_suffix(".m4a"))
    (root / "AudioWAV" / "gone").symlink_to(tmp_path / "unmounted")
    (root / "AudioWAV" / "up").symlink_to(root)
    utterances, _ = crema_d.parse(root)
    assert dict(zip(utterances["id"].to_pylist(), utterances["audio"].to_pylist(), strict=True)) == {
        names[0].stem: f"AudioWAV/more/{names[0].name}",
        names[1].stem: f"AudioWAV/{names[1].name}",
        names[2].stem: f"AudioWAV/{names[2].stem}.m4a",
        **{path.stem: f"AudioWAV/{path.name}" for path in names[3:]},
    }
    report = tables.report_of(utterances)
    assert report.counts["not_readable"] == 1
    assert "AudioWAV/gone: a link to something that is not there" in report.problems
    write_audio(names[2])  # beside the recording to convert: the one that can be read counts
    utterances, _ = crema_d.parse(root)
    assert f"AudioWAV/{names[2].name}" in utterances["audio"].to_pylist()


def test_names_that_are_no_utf8_are_reported(tmp_path):
    root = make_corpus(tmp_path)
    first = next((root / "AudioWAV").iterdir())
    (root / "AudioWAV" / os.fsdecode(b"gr\xfc\xdfe")).mkdir()
    first.rename(root / "AudioWAV" / os.fsdecode(b"gr\xfc\xdfe") / first.name)
    utterances, _ = crema_d.parse(root)
    [problem] = [text for text in tables.report_of(utterances).problems if "UTF-8" in text]
    assert problem == rf"AudioWAV/gr\xfc\xdfe/{first.name}: its name is no UTF-8: rename it"

"""MSP-Podcast: every layout gives the same records, releases are told apart, nothing is lost without a line number."""

import collections
import re
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from seremo_jax.core import vocab
from seremo_jax.data import corpora, tables, text_lines
from seremo_jax.data.corpora import msp_podcast, msp_podcast_release
from tests.support import msp_podcast_files as files

LAYOUTS = ("columns", "answers")
RELEASE_OF = {"columns": "1.6", "answers": "1.7"}


def parse(root: Path, **policies):
    utterances, ratings = msp_podcast.parse(root, **policies)
    return utterances, ratings, tables.report_of(utterances)


def our_word(word: str) -> str:
    low = word.lower()
    return {"dissapointed": "disappointed"}.get(low, f"other-{word[6:]}" if word.startswith("Other-") else low)


def expected_ratings(turns) -> list[tuple]:
    rows = [
        (turn.name, a.rater, our_word(a.primary), [our_word(word) for word in a.secondary],
         a.valence, a.activation, a.dominance)
        for turn in turns for a in turn.answers
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row[:2])


def found_ratings(ratings) -> list[tuple]:
    columns = ("utterance", "rater", "primary", "secondary", *vocab.ATTRIBUTES)
    return [tuple(row[name] for name in columns) for row in ratings.to_pylist()]


SOURCES = [
    (release, source)
    for release, how in files.RELEASES.items()
    for source in ("csv", "json", *(["txt"] if how.labels_txt else []))
]


@pytest.mark.parametrize("consensus", ["csv", "json"])
@pytest.mark.parametrize(("release", "source"), SOURCES)
def test_every_layout_and_spelling_gives_the_same_records(tmp_path, release, source, consensus):
    turns = files.simulate()
    files.write_release(tmp_path, turns, release, (source,), (consensus,))
    utterances, ratings, report = parse(tmp_path)
    assert found_ratings(ratings) == expected_ratings(turns)
    rows = [{name: row[name] for name in ("id", "split", "speaker", "gender")} for row in utterances.to_pylist()]
    assert rows == [
        {"id": turn.name, "split": turn.split.lower(), "speaker": turn.speaker.replace("Unknown", "unknown"),
         "gender": turn.gender.lower()}
        for turn in turns
    ]  # fmt: skip
    assert report.counts["ratings_read"] == report.counts["ratings_kept"] == ratings.num_rows
    assert not [problem for problem in report.problems if not problem.startswith("release unknown")]


def test_the_released_consensus_and_means_are_read_by_name(tmp_path):
    turns = files.simulate(num_utterances=40)
    files.write_release(tmp_path, turns, "1.10")
    utterances, ratings, report = parse(tmp_path)
    words = {code: our_word(word) for word, code in files.CODES.items()} | {"O": "other", "X": "no_agreement"}
    released = dict(zip(utterances["id"].to_pylist(), utterances["released_consensus"].to_pylist(), strict=True))
    assert released == {turn.name: words[files.consensus_of(turn)] for turn in turns}
    assert {"no_agreement", "other"} < set(released.values())
    votes = collections.defaultdict(collections.Counter)
    for row in ratings.to_pylist():
        votes[row["utterance"]]["other" if row["primary"].startswith("other") else row["primary"]] += 1
    for name, counted in votes.items():
        best = [word for word, number in counted.items() if number == max(counted.values())]
        assert released[name] == (best[0] if len(best) == 1 else "no_agreement")
    for row, turn in zip(utterances.to_pylist(), turns, strict=True):
        assert {name: row[f"released_{name}"] for name in vocab.ATTRIBUTES} == pytest.approx(files.means_of(turn))
    assert not any(name.startswith("means_unlike") for name in report.counts)


def test_swapped_attributes_do_not_go_unseen(tmp_path):
    files.write_release(tmp_path, files.simulate(), "1.6")
    path = tmp_path / "label/labels_detailed.csv"
    path.write_text(path.read_text().replace("EmoAct,EmoVal", "EmoVal,EmoAct"))
    _, _, report = parse(tmp_path)
    assert report.counts["means_unlike_released_valence"] > 10
    assert report.counts["means_unlike_released_activation"] > 10
    assert "means_unlike_released_dominance" not in report.counts


@pytest.mark.parametrize("release", ["1.6", "1.7", "2.0"])
def test_order_of_columns_keys_and_rows_changes_nothing(tmp_path, release):
    turns = files.simulate()
    plain = parse(files.write_release(tmp_path / "plain", turns, release))
    for seed, sources in enumerate((("csv",), ("csv", "json"), ("json",))):
        root = tmp_path / f"{seed}"
        shuffled = parse(
            files.write_release(root, turns, release, sources, pen=files.Pen(rng=np.random.default_rng(seed)))
        )
        for name in plain[0].drop_columns("release").column_names:
            assert shuffled[0][name].to_pylist() == plain[0][name].to_pylist()
        assert found_ratings(shuffled[1]) == found_ratings(plain[1])


def test_withheld_labels_leave_rows_without_ratings(tmp_path):
    turns = files.simulate(has_test3=True)
    utterances, ratings, _ = parse(files.write_release(tmp_path, turns, "1.11"))
    withheld = [row for row in utterances.to_pylist() if row["split"] == "test3"]
    assert len(withheld) == sum(turn.split == "Test3" for turn in turns) > 0
    assert {row["released_consensus"] for row in withheld} == {None}
    assert {row["gender"] for row in withheld} <= {"female", "male"}
    assert not {row["id"] for row in withheld} & set(ratings["utterance"].to_pylist())


def test_speakers_and_splits_come_from_the_lists_where_the_consensus_file_is_missing(tmp_path):
    turns = files.simulate()
    whole = parse(files.write_release(tmp_path / "whole", turns, "1.9"))[0]
    lists = parse(files.write_release(tmp_path / "lists", turns, "1.9", consensus=()))[0]
    alone = parse(files.write_release(tmp_path / "alone", turns, "1.9", with_lists=False))[0]
    for name in ("id", "speaker", "gender", "split", "audio"):
        assert whole[name].to_pylist() == lists[name].to_pylist() == alone[name].to_pylist()
    assert lists["released_consensus"].null_count == len(turns)


def test_blocks_hold_what_was_released(tmp_path):
    turns = files.simulate()
    whole = parse(files.write_release(tmp_path / "whole", turns, "1.8"))[0].to_pylist()
    utterances, ratings, _ = parse(files.write_release(tmp_path / "txt", turns, "1.8", ("txt",), consensus=()))
    assert found_ratings(ratings) == expected_ratings(turns)
    for row, other in zip(utterances.to_pylist(), whole, strict=True):
        assert row["released_consensus"] == other["released_consensus"]
        assert (row["split"], row["gender"]) == (other["split"], other["gender"])
        for name in vocab.ATTRIBUTES:
            assert row[f"released_{name}"] == pytest.approx(other[f"released_{name}"], abs=0.0501)


def test_second_and_odd_lines_of_the_lists_are_reported(tmp_path):
    turns = files.simulate(num_utterances=6)
    files.write_release(tmp_path, turns, "2.0")
    for path, text in (
        ("Partitions.txt", f"Test2; {turns[0].name}.wav\nTrain {turns[0].name}.wav\n"),
        ("Speaker_ids.txt", f"{turns[0].name}.wav; 77\nSpeaker_{turns[1].speaker}; Female\nSpeaker 1\n"),
    ):
        with (tmp_path / path).open("a") as file:
            file.write(text)
    path = tmp_path / "Labels/labels_detailed_aggregated.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\nclip,1,1,1,1,1,1,1,1,1\n")
    utterances, _, report = parse(tmp_path)
    assert utterances.to_pylist()[0]["split"] == "train"
    people = len({turn.speaker for turn in turns} - {"Unknown"})
    places = [problem.split(": ")[0] for problem in report.problems if not problem.startswith("release unknown")]
    assert sorted(places) == [
        "Partitions.txt:7", "Partitions.txt:8", *(f"Speaker_ids.txt:{6 + people + i}" for i in (1, 2, 3)),
        "labels_detailed_aggregated.csv:8", "labels_detailed_aggregated.csv:9",
    ]  # fmt: skip
    assert report.counts["lines_not_used"] == 7


def test_files_that_disagree_are_reported(tmp_path):
    turns = files.simulate()
    files.write_release(tmp_path, turns, "2.0")
    third = next(turn for turn in turns if turn.speaker not in ("Unknown", turns[1].speaker))
    for path, old, new in (
        ("Partitions.txt", f"Train; {turns[1].name}", f"Test1; {turns[1].name}"),
        ("Speaker_ids.txt", f"{turns[1].name}.wav; {turns[1].speaker}", f"{turns[1].name}.wav; 99"),
        ("Speaker_ids.txt", f"Speaker_{turns[1].speaker}; {turns[1].gender}", f"Speaker_{turns[1].speaker}; Unknown"),
        ("Speaker_ids.txt", f"Speaker_{third.speaker}; {third.gender}", f"Speaker_{third.speaker}; Fmale"),
        ("Labels/labels_detailed.json", '"EmoClass_Major": ', '"EmoClass": '),
    ):
        text = (tmp_path / path).read_text()
        assert old in text
        (tmp_path / path).write_text(text.replace(old, new, 1))
    path = tmp_path / "Labels/labels_detailed_aggregated.csv"
    path.write_text(re.sub(r"(?m)^(MSP\S+\.wav),\d+", r"\1,77", path.read_text(), count=2))
    utterances, _, report = parse(tmp_path)
    assert (report.counts["splits_differ"], report.counts["speakers_differ"]) == (1, 1)
    assert (report.counts["sources_differ"], report.counts["utterances_unlike_aggregated"]) == (1, 2)
    assert utterances.to_pylist()[1]["split"] == "train"
    assert report.counts["genders_unknown"] == 1
    assert "Speaker_ids.txt: unknown genders: 'Fmale'" in report.problems
    num_ratings = report.counts["ratings_read"]
    assert f"labels_detailed.json holds {num_ratings - 1} ratings, labels_detailed.csv {num_ratings}" in report.problems


def test_counts_alone_become_anonymous_votes(tmp_path):
    turns = files.simulate()
    whole = parse(files.write_release(tmp_path / "a", turns, "2.0"))[1]
    _, counted, report = parse(files.write_release(tmp_path / "b", turns, "2.0", sources=()))

    def votes(ratings):
        return collections.Counter((row["utterance"], row["primary"].split("-")[0]) for row in ratings.to_pylist())

    assert votes(counted) == votes(whole)
    assert counted["valence"].null_count == counted.num_rows == report.counts["ratings_kept"]
    assert {rater.split("-")[0] for rater in counted["rater"].to_pylist()} == {"anon"}


def test_repeated_raters_are_kept_in_their_order_and_counted(tmp_path):
    turns = files.simulate()
    _, ratings, report = parse(files.write_release(tmp_path, turns))
    twice = [turn for turn in turns if turn.answers[0].rater == turn.answers[-1].rater]
    assert report.counts["repeated_raters"] >= len(twice) > 0
    for turn in twice:
        own = [
            row for row in ratings.to_pylist() if (row["utterance"], row["rater"]) == (turn.name, turn.answers[0][0])
        ]
        assert own[-1]["primary"] == "neutral"
        assert own[-1]["valence"] == turn.answers[-1].valence


def test_audio_is_looked_for_where_releases_put_it(tmp_path):
    turns = files.simulate(num_utterances=6)
    files.write_release(tmp_path, turns)
    assert parse(tmp_path)[0]["audio"].to_pylist()[0] == f"Audios/{turns[0].name}.wav"
    (tmp_path / "Audio").mkdir()
    (tmp_path / f"Audio/{turns[0].name}.wav").touch()
    (tmp_path / "Audio/MSP-PODCAST_9999_0001_0002.wav").touch()
    utterances, _, report = parse(tmp_path)
    assert utterances["audio"].to_pylist()[0] == f"Audio/{turns[0].name}.wav"
    assert report.counts["audio_files_without_labels"] == 1


MALFORMED = {
    "columns": [
        ("MSP-PODCAST_0001_0001.wav,WORKER1,Happy,Sad,1,2", "not 7 cells"),
        ("MSP-PODCAST_0001_0001.wav,WORKER1,Happy,Sad,1,2,3,4", "not 7 cells"),
        ("MSP-PODCAST_0001_0001.wav,WORKER1,Happy,Sad,one,2,3", "no number"),
        ("MSP-PODCAST_0001_0001.wav,,Happy,Sad,1,2,3", "no rater"),
        ("clip.wav,WORKER1,Happy,Sad,1,2,3", "no file"),
        ('MSP-PODCAST_0001_0001.wav,WORKER1,"Other-never closed,Sad,1,2,3', "never closed"),
    ],
    "answers": [
        ("MSP-PODCAST_0001_0001.wav", "not 2 cells"),
        ("MSP-PODCAST_0001_0001.wav,WORKER1; Happy; ; A:1; V:2;", "not RATER"),
        ("MSP-PODCAST_0001_0001.wav,WORKER1; Happy; A:1; V:2; D:3;", "not RATER"),
        ("MSP-PODCAST_0001_0001.wav,WORKER1; Happy; ; A:1; V:x; D:3;", "no number"),
        ("MSP-PODCAST_0001_0001.wav,; Happy; ; A:1; V:2; D:3;", "no rater"),
        ('MSP-PODCAST_0001_0001.wav,"WORKER1; Other-never closed, ; A:1; V:2; D:3;', "never closed"),
    ],
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_malformed_row_is_reported_with_its_line_and_takes_no_other_along(tmp_path, layout, line_end):
    turns = files.simulate()
    files.write_release(tmp_path, turns, RELEASE_OF[layout], ("csv",), pen=files.Pen(line_end, True))
    [path] = tmp_path.rglob("labels_detailed.csv")
    rows = path.read_bytes().decode().split(line_end)
    places = [2 + 3 * i for i in range(len(MALFORMED[layout]))]
    for place, (row, _) in zip(places, MALFORMED[layout], strict=True):
        rows.insert(place - 1, row)
    path.write_bytes(line_end.join(rows).encode())
    _, ratings, report = parse(tmp_path)
    assert found_ratings(ratings) == expected_ratings(turns)
    actual = {int(problem.split(":")[1]): problem for problem in report.problems if problem.startswith(path.name)}
    assert sorted(actual) == places
    for place, (_, why) in zip(places, MALFORMED[layout], strict=True):
        assert why in actual[place]
    counts = report.counts
    assert counts["ratings_not_used"] == len(places)
    assert counts["ratings_read"] == counts["ratings_kept"] + counts["ratings_not_used"] == len(rows) - 2


def test_malformed_blocks_and_json_entries_are_reported(tmp_path):
    turns = files.simulate()
    files.write_release(tmp_path / "txt", turns, sources=("txt",))
    path = tmp_path / "txt/Labels/labels.txt"
    rows = path.read_text().split("\n")
    first = turns[0].answers
    rows[0] = rows[0].replace("V:", "W:")
    rows[-2] = "WORKER9; Happy; A:1;"
    path.write_text("\n".join(rows))
    _, ratings, report = parse(tmp_path / "txt")
    assert [problem.split(":")[:2] for problem in report.problems if "labels.txt:" in problem] == [
        ["labels.txt", "1"],
        *[["labels.txt", str(2 + i)] for i in range(len(first))],
        ["labels.txt", str(len(rows) - 1)],
    ]
    lost = {(turns[0].name, answer.rater) for answer in first} | {(turns[-1].name, turns[-1].answers[-1].rater)}
    assert ratings.num_rows == len(expected_ratings(turns)) - len(first) - 1
    assert {row[:2] for row in expected_ratings(turns)} - {row[:2] for row in found_ratings(ratings)} == lost
    assert report.counts["ratings_read"] == ratings.num_rows + report.counts["ratings_not_used"]

    files.write_release(tmp_path / "json", turns, sources=("json",))
    path = tmp_path / "json/Labels/labels_detailed.json"
    path.write_text(path.read_text().replace('"EmoVal"', '"Val"', 1).replace('"EmoAct": ', '"EmoAct": "?", "x": ', 1))
    _, ratings, report = parse(tmp_path / "json")
    assert report.counts["ratings_read"] == ratings.num_rows + report.counts["ratings_not_used"]
    assert f"labels_detailed.json: {turns[0].name}.wav, {first[0].rater}: no EmoVal" in report.problems


def test_ratings_below_a_broken_header_go_to_no_other_utterance(tmp_path):
    turns = files.simulate(num_utterances=6)
    files.write_release(tmp_path, turns, sources=("txt",))
    path = tmp_path / "Labels/labels.txt"
    # No blank line stands above the second header.
    path.write_text(path.read_text().replace(f"\n\n{turns[1].name}.wav; ", f"\n{turns[1].name}.wav "))
    _, ratings, report = parse(tmp_path)
    assert found_ratings(ratings) == expected_ratings([turns[0], *turns[2:]])
    assert report.counts["ratings_not_used"] == len(turns[1].answers)
    assert report.counts["lines_not_used"] == 1


def test_values_outside_the_scale_are_missing_and_reported(tmp_path):
    turns = files.simulate(num_utterances=6)
    turns[1] = turns[1]._replace(answers=(turns[1].answers[0]._replace(valence=0, dominance=8), *turns[1].answers[1:]))
    _, ratings, report = parse(files.write_release(tmp_path, turns, "1.6", ("csv",)))
    own = [row for row in ratings.to_pylist() if row["utterance"] == turns[1].name]
    assert sum(row["valence"] is None for row in own) == sum(row["dominance"] is None for row in own) == 1
    assert report.counts["values_out_of_range"] == 1
    assert report.counts["ratings_kept"] == report.counts["ratings_read"]


def test_missing_values_are_missing(tmp_path):
    turns = files.simulate(num_utterances=6)
    files.write_release(tmp_path, turns, "1.7", ("csv",))
    path = tmp_path / "Labels/labels_detailed.csv"
    path.write_text(path.read_text().replace(f"V:{turns[0].answers[0].valence};", "V:NaN;", 1))
    _, ratings, _ = parse(tmp_path)
    assert ratings["valence"].null_count == 1
    assert ratings["activation"].null_count == 0


# Any text that fits on a line. The words before and after are what a text could be taken for.
free_text = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30),
    st.lists(
        st.sampled_from(
            [";", ",", '"', "'", "/", "(", ")", " ", "; A:5; V:3; D:2;", "Happy", "Sad,", "\\", "–", "WORKER"]
        ),
        max_size=8,
    ).map("".join),
)


@hypothesis.given(
    st.lists(free_text, min_size=1, max_size=6), st.sampled_from(["columns", "answers", "json", "txt"]),
    st.booleans(), st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
def test_free_text_comes_through_whole(tmp_path_factory, texts, source, bom, line_end):
    root = tmp_path_factory.mktemp("free")
    answers = tuple(
        files.Answer(f"WORKER{i}", f"Other-{text}", ("Happy", "Other"), 1, 2, 3) for i, text in enumerate(texts)
    )
    turns = [files.Turn("MSP-PODCAST_0001_0001", "1", "Male", "Train", answers)]
    sources = ("csv",) if source in LAYOUTS else (source,)
    files.write_release(root, turns, RELEASE_OF.get(source, "1.7"), sources, pen=files.Pen(line_end, bom))
    _, ratings, report = parse(root)
    expected = [f"other-{text.strip()}" if text.strip() else "other" for text in texts]
    assert ratings["primary"].to_pylist() == expected
    assert ratings["secondary"].to_pylist() == [["happy", "other"]] * len(texts)
    assert ratings["dominance"].to_pylist() == [3] * len(texts)
    assert report.counts["ratings_kept"] == len(texts)


def test_a_quoted_answer_may_run_over_lines(tmp_path):
    answers = tuple(files.Answer(f"WORKER{i}", "Other-one\n\ntwo, three\n", (), 1, 2, 3) for i in range(3))
    turns = [files.Turn("MSP-PODCAST_0001_0001", "1", "Male", "Train", answers)]
    files.write_release(tmp_path, turns, "1.6", ("csv",))
    path = tmp_path / "label/labels_detailed.csv"
    path.write_text(path.read_text() + "MSP-PODCAST_0001_0001.wav,short\n")
    _, ratings, report = parse(tmp_path)
    assert ratings["primary"].to_pylist() == ["other-one\n\ntwo, three"] * 3
    assert "labels_detailed.csv:14: not 7 cells" in report.problems


def test_secondary_words_are_mapped_and_unknown_ones_kept_and_reported(tmp_path):
    also = ("Dissapointed", "Other-so, so", "Sad", "Bored")
    turns = [files.Turn("MSP-PODCAST_0001_0001", "1", "Male", "Train", (files.Answer("W", "Happy", also, 1, 2, 3),))]
    _, ratings, report = parse(files.write_release(tmp_path, turns))
    assert ratings["secondary"].to_pylist() == [["disappointed", "other-so, so", "sad", "other-Bored"]]
    assert report.counts["secondary_words_unknown"] == 1
    assert any("'Bored' x 1" in problem for problem in report.problems)


def test_unknown_words_are_an_error_unless_mapped(tmp_path):
    turns = files.simulate()
    strange = [turn._replace(answers=(turn.answers[0]._replace(primary="Bored"), *turn.answers[1:])) for turn in turns]
    files.write_release(tmp_path, strange)
    with pytest.raises(text_lines.CorpusError, match=f"labels_detailed.csv: .*'Bored' x {len(turns)}.*word_map"):
        parse(tmp_path)
    _, ratings, _ = parse(tmp_path, word_map=("bored=other-bored",))
    assert ratings["primary"].to_pylist().count("other-bored") == len(turns)
    _, ratings = corpora.parse("msp_podcast", tmp_path, word_map=("Bored=Neutral",))
    assert ratings["primary"].to_pylist().count("neutral") >= len(turns)
    for wrong in ("bored", "bored=weary", "=sad"):
        with pytest.raises(text_lines.CorpusError, match="must read WORD=CLASS"):
            parse(tmp_path, word_map=(wrong,))


def test_two_spellings_or_copies_at_once_are_refused(tmp_path):
    files.write_release(tmp_path, files.simulate())
    other = tmp_path / "Labels/labels_consensus.json"
    other.write_text("{}")
    with pytest.raises(text_lines.CorpusError, match="both spellings"):
        parse(tmp_path)
    other.unlink()
    copy = tmp_path / "Partition.txt"
    copy.write_text("")
    with pytest.raises(text_lines.CorpusError, match=r"Partitions\.txt and .*Partition\.txt are both there"):
        parse(tmp_path)
    copy.unlink()
    (tmp_path / "labels_detailed.csv").write_text("FileName,EmoDetail\n")
    with pytest.raises(text_lines.CorpusError, match="are both there"):
        parse(tmp_path)


def test_what_is_no_such_corpus_is_refused(tmp_path):
    with pytest.raises(text_lines.CorpusError, match=r"holds no labels of MSP-Podcast.*corpus\.root"):
        parse(tmp_path / "nowhere")
    files.write_release(tmp_path, files.simulate())
    path = tmp_path / "Labels/labels_detailed.csv"
    path.write_text("FileName,EmoClass_Major,Mood\n")
    with pytest.raises(text_lines.CorpusError, match="neither EmoDetail nor EmoClass_Second, EmoVal"):
        parse(tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(text_lines.CorpusError, match="git lfs pull"):
        parse(tmp_path)
    path.write_bytes(b"FileName,EmoDetail\n\xff\xfe,x\n")
    with pytest.raises(text_lines.CorpusError, match="not UTF-8"):
        parse(tmp_path)
    path.unlink()
    (tmp_path / "Labels/labels_detailed.json").write_text("{broken")
    with pytest.raises(text_lines.CorpusError, match=r"labels_detailed\.json cannot be read"):
        parse(tmp_path)


def test_unknown_splits_are_refused(tmp_path):
    turns = [turn._replace(split="Test4") if turn.split == "Test1" else turn for turn in files.simulate()]
    with pytest.raises(text_lines.CorpusError, match=r"unknown splits: 'test4' x 4"):
        parse(files.write_release(tmp_path, turns))


def signs(release: str, **changes) -> msp_podcast_release.Signs:
    how = files.RELEASES[release]
    num_in = {"train": 30, "development": 10, "test1": 10, "test2": 5} | ({"test3": 4} if how.has_test3 else {})
    own = {
        "spelling": how.spelling, "layout": how.layout, "label_folder": how.folder, "labels_txt": how.labels_txt,
        "has_aggregated": how.has_aggregated, "development": how.development.lower(), "num_in": num_in,
        "num_labelled_in": {split: number for split, number in num_in.items() if split != "test3"},
    }  # fmt: skip
    return msp_podcast_release.Signs(**(own | changes))


FULL = {
    "1.11": {"train": 84_030, "development": 19_815, "test1": 30_647, "test2": 14_815, "test3": 2_347},
    "2.0": {"train": 169_190, "development": 34_399, "test1": 46_294, "test2": 14_822, "test3": 3_200},
    "1.8": {"train": 73_042 - 12_000, "test1": 12_000},
    "1.12": {"train": 207_136 - 50_000, "test1": 50_000},
}


@pytest.mark.parametrize("release", ["1.6", "1.7", "1.9", "1.10"])
def test_releases_without_published_counts_are_told_by_their_names(release):
    assert msp_podcast_release.detect(signs(release)) == (release, "")


@pytest.mark.parametrize("release", FULL)
def test_releases_with_published_counts_need_them(release):
    full = FULL[release]
    assert msp_podcast_release.detect(signs(release, num_in=full)) == (release, "")
    one_less = full | {"train": full["train"] - 1}
    actual, why = msp_podcast_release.detect(signs(release, num_in=one_less))
    assert actual.startswith("unknown")
    assert release in why
    assert f"{sum(one_less.values()):,} utterances" in why


def test_counts_outrank_names():
    without_test3 = {split: number for split, number in FULL["2.0"].items() if split != "test3"}
    actual, why = msp_podcast_release.detect(signs("1.9", num_in=without_test3))
    assert actual == "2.0"
    assert "names of files and columns of 1.9" in why


def test_test3_may_be_missing_and_a_wrong_test3_is_another_release():
    without = {split: number for split, number in FULL["1.11"].items() if split != "test3"}
    assert msp_podcast_release.detect(signs("1.11", num_in=without))[0] == "1.11"
    assert msp_podcast_release.detect(signs("1.11", num_in=FULL["1.11"] | {"test3": 3_200}))[0] == "unknown"


def test_the_challenge_copy_is_told_by_its_labelled_counts():
    labelled = {"train": 84_260, "development": 31_961}
    num_in = labelled | {"test3": 3_200}
    assert msp_podcast_release.detect(signs("1.12", num_in=num_in, num_labelled_in=labelled))[0] == "2025 challenge"


def test_contradicting_names_are_unknown_with_a_reason():
    actual, why = msp_podcast_release.detect(signs("1.6", spelling="consensus"))
    assert actual == "unknown"
    assert "none has these names" in why


def test_the_release_is_named_in_both_tables(tmp_path):
    utterances, ratings, _ = parse(files.write_release(tmp_path / "a", files.simulate(), "1.6"))
    assert tables.info_of(utterances) == tables.info_of(ratings)
    assert tables.info_of(ratings).release == "1.6"
    utterances, _, report = parse(files.write_release(tmp_path / "b", files.simulate(has_test3=True), "2.0"))
    info = tables.info_of(utterances)
    assert info.release == "unknown (like 2.0)" == utterances["release"].to_pylist()[0]
    assert any("24 utterances settle on none" in note for note in info.notes)
    assert any("24 utterances settle on none" in problem for problem in report.problems)
    assert info.class_set == "msp8"
    assert info.attribute_ranges == dict.fromkeys(vocab.ATTRIBUTES, (1.0, 7.0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_corpora_of_the_bench_parse_whole(tmp_path, layout):
    number = files.write_msp_podcast(tmp_path, 300, layout)
    utterances, ratings, report = parse(tmp_path)
    assert (utterances.num_rows, ratings.num_rows) == (300, number)
    assert not [problem for problem in report.problems if not problem.startswith("release unknown")]


STEMS = ("talk-{}", "BIIC-PODCAST_{}", "corpus.v2_{}", "part1/clip {}", "{}")


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(("release", "source"), SOURCES)
def test_files_of_any_name_keep_their_ratings(tmp_path, release, source, stem):
    turns = files.simulate()
    turns = [turn._replace(name=stem.format(turn.name.removeprefix("MSP-PODCAST_"))) for turn in turns]
    files.write_release(tmp_path, turns, release, (source,))
    utterances, ratings, report = parse(tmp_path)
    assert found_ratings(ratings) == expected_ratings(turns)
    assert utterances["id"].to_pylist() == sorted(turn.name for turn in turns)
    assert {row["id"]: row["speaker"] for row in utterances.to_pylist()} == {
        turn.name: turn.speaker.replace("Unknown", "unknown") for turn in turns
    }
    assert not [problem for problem in report.problems if not problem.startswith("release unknown")]


@pytest.mark.parametrize("stem", STEMS[:2])
def test_one_file_of_another_name_keeps_its_ratings_and_a_name_of_no_list_does_not(tmp_path, stem):
    turns = files.simulate(num_utterances=6)
    turns[2] = turns[2]._replace(name=stem.format(7))
    files.write_release(tmp_path, turns, "1.6", ("csv",))
    [path] = tmp_path.rglob("labels_detailed.csv")
    path.write_text(path.read_text() + "clip.wav,WORKER1,Happy,Sad,1,2,3\n")
    _, ratings, report = parse(tmp_path)
    assert found_ratings(ratings) == expected_ratings(turns)
    [problem] = [problem for problem in report.problems if problem.startswith("labels_detailed")]
    assert problem.endswith("'clip.wav' is no file of this corpus")


@pytest.mark.parametrize("text", ["NA", "nan", "None", "N/A", "null", "", " "])
def test_words_for_no_value_are_no_split_speaker_gender_and_class(tmp_path, text):
    turns = files.simulate(num_utterances=6)
    files.write_release(tmp_path, turns, "1.6", ("csv",))
    for path in (*tmp_path.rglob("Partition*.txt"), *tmp_path.rglob("Speaker_ids.txt"), *tmp_path.rglob("*.json")):
        path.unlink()
    path = tmp_path / "label/labels_concensus.csv"
    header = path.read_text().splitlines()[0].split(",")
    cells = dict.fromkeys(header, text) | {"EmoAct": "2"}
    rows = [",".join(f"{turn.name}.wav" if name == "FileName" else cells[name] for name in header) for turn in turns]
    path.write_text("\n".join([",".join(header), *rows]))
    utterances, ratings, report = parse(tmp_path)
    for row in utterances.to_pylist():
        assert (row["split"], row["speaker"], row["gender"]) == ("", "unknown", "unknown")
        assert (row["released_consensus"], row["released_valence"]) == (None, None)
    assert found_ratings(ratings) == expected_ratings(turns)
    assert report.counts["released_codes_unknown"] == 0
    assert report.counts["genders_unknown"] == 0


def test_speakers_may_have_names(tmp_path):
    turns = [turn._replace(speaker=f"S0{turn.speaker}") for turn in files.simulate(num_utterances=6)]
    utterances, _, _ = parse(files.write_release(tmp_path, turns, "1.6", ("csv",)))
    assert utterances["speaker"].to_pylist() == [turn.speaker for turn in sorted(turns)]


@pytest.mark.parametrize("count", ["1e12", "1e300", "20000"])
def test_absurd_counts_are_refused(tmp_path, count):
    turns = files.simulate(num_utterances=6)
    files.write_release(tmp_path, turns, "2.0", ("aggregated",))
    path = tmp_path / "Labels/labels_detailed_aggregated.csv"
    lines = path.read_text().splitlines()
    lines[2] = ",".join([lines[2].split(",")[0], count, *lines[2].split(",")[2:]])
    path.write_text("\n".join(lines))
    column = lines[0].split(",")[1]
    with pytest.raises(text_lines.CorpusError, match=rf"aggregated\.csv:3: {column} is {count}, over 10,000 votes"):
        parse(tmp_path)

"""What a cell of a table means, in every format: no value, blanks around it, separators, names of columns."""

import json
import re
import tracemalloc
from pathlib import Path

import polars as pl
import pytest

from seremo_jax.data import tables, text_lines
from seremo_jax.data.corpora import tabular

MISSING = ["NA", "nan", "NaN", "None", "N/A", "null", "NULL", "", "  ", " na ", "<NA>", "#N/A"]


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


def write_rows(root: Path, name: str, rows: list[dict], suffix: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{name}{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        pl.DataFrame(rows).write_csv(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("text", MISSING)
def test_words_for_no_value_are_no_value_in_every_column(tmp_path, text, suffix):
    facts = ("audio", "speaker", "gender", "split", "session", "released_consensus", "age")
    rows = [{"id": name, **dict.fromkeys(facts, text)} for name in ("u1", "u2")]
    labels = ("rater", "modality", "also_primary", "secondary", "is_self_report")
    rated = [{"utterance": "u1", "primary": word, **dict.fromkeys(labels, text)} for word in ("sad", text)]
    write_rows(tmp_path, "utterances", rows, suffix)
    write_rows(tmp_path, "ratings", [*rated, {**rated[0], "utterance": text}], suffix)
    utterances, ratings, report = parse(tmp_path)
    for row in utterances:
        assert (row["speaker"], row["gender"], row["split"], row["audio"]) == ("unknown", "unknown", "", "")
        assert (row["session"], row["released_consensus"], row["age"]) == (None, None, None)
    assert sorted((row["rater"], row["primary"] or "") for row in ratings) in (
        [("anon-000", ""), ("anon-001", "sad")], [("anon-000", "sad"), ("anon-001", "")])  # fmt: skip
    assert all((row["modality"], row["also_primary"], row["secondary"]) == ("voice", [], []) for row in ratings)
    assert report.counts["genders_unknown"] == 0
    [problem] = [problem for problem in report.problems if "no utterance" in problem]
    assert problem.endswith(":4: no utterance" if suffix == ".csv" else ":3: no utterance")


def test_the_shared_case_of_unknown_speakers(tmp_path, shared):
    text = (shared / "cases" / "tables" / "na_speaker.csv").read_text()
    write(tmp_path, utterances=text, ratings="utterance,primary\nu1,sad\n")
    utterances, _, _ = parse(tmp_path)
    assert [row["speaker"] for row in utterances] == ["unknown"] * 3


def test_a_mapped_word_is_a_word_although_it_looks_like_no_value(tmp_path):
    write(tmp_path, ratings="utterance,primary,speaker\nu1,None,none\n")
    assert parse(tmp_path)[1][0]["primary"] is None
    [utterance], [rating], _ = parse(tmp_path, word_map=["none=neutral"])
    assert (rating["primary"], utterance["speaker"]) == ("neutral", "unknown")


def test_json_has_numbers_and_no_numbers(tmp_path):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "utterances.jsonl").write_text(
        '{"id": 1, "speaker": NaN, "session": 2.0, "age": 30.5}\n{"id": "2", "speaker": 7.0, "session": null}\n'
    )
    (tmp_path / "ratings.jsonl").write_text(
        '{"utterance": 1.0, "primary": "sad", "secondary": ["angry", null]}\n{"utterance": 2, "primary": NaN}\n'
    )
    utterances, ratings, _ = parse(tmp_path)
    assert [(row["id"], row["speaker"], row["session"], row["age"]) for row in utterances] == [
        ("1", "unknown", "2", "30.5"),
        ("2", "7", None, None),
    ]
    assert [(row["utterance"], row["primary"], row["secondary"]) for row in ratings] == [
        ("1", "sad", ["angry"]),
        ("2", None, []),
    ]


def test_numbers_that_a_column_made_floating_point_are_whole_in_parquet(tmp_path):
    pl.DataFrame({"id": [1, 2], "speaker": [3.0, None], "age": [1.5, 2.0]}).write_parquet(
        tmp_path / "utterances.parquet"
    )
    pl.DataFrame({"utterance": [1.0, 2.0], "primary": ["sad", "sad"]}).write_parquet(tmp_path / "ratings.parquet")
    utterances, ratings, _ = parse(tmp_path)
    assert [(row["id"], row["speaker"], row["age"]) for row in utterances] == [
        ("1", "3", "1.5"),
        ("2", "unknown", "2.0"),
    ]
    assert [row["utterance"] for row in ratings] == ["1", "2"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("pad", ["{} ", " {}", "\t{}\t", "\u00a0{}", "\ufeff{}", "{}\u200b"])
def test_blanks_around_an_id_are_no_part_of_it(tmp_path, pad, suffix):
    padded = pad.format("u1")
    write_rows(
        tmp_path, "utterances", [{"id": padded, "speaker": pad.format("ann")}, {"id": "u2", "speaker": "ann"}], suffix
    )
    raters = [
        {"utterance": name, "rater": pad.format("r1"), "primary": pad.format("sad")} for name in (padded, "u1", "u2")
    ]
    write_rows(tmp_path, "ratings", raters, suffix)
    utterances, ratings, report = parse(tmp_path)
    assert [(row["id"], row["speaker"]) for row in utterances] == [("u1", "ann"), ("u2", "ann")]
    assert [(row["utterance"], row["rater"]) for row in ratings] == [("u1", "r1"), ("u1", "r1"), ("u2", "r1")]
    assert report.counts["repeated_raters"] == 1


def test_the_shared_case_of_padded_ratings(tmp_path, shared):
    text = (shared / "cases" / "tables" / "padded_ratings.csv").read_text()
    write(tmp_path, ratings=text, utterances="id,speaker\nu1,ann\n")
    assert [(row["utterance"], row["primary"]) for row in parse(tmp_path)[1]] == [("u1", "angry"), ("u1", "sad")]


def test_ratings_of_ids_that_only_look_alike_are_named(tmp_path):
    write(tmp_path, ratings="utterance,primary\nU1,sad\nu1,sad\n", utterances="id\nu1\n")
    _, ratings, report = parse(tmp_path)
    assert len(ratings) == 1
    [problem] = report.problems
    assert "the first is ratings.csv:2: 'U1'; 'U1' and 'u1' are taken for 2 different names" in problem


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["line", "text", "why", "len", "cell", "count", "_more", "word", "literal", "index"])
def test_any_name_of_a_column_is_a_column(tmp_path, name, suffix):
    write_rows(tmp_path / "two", "utterances", [{"id": "u1", name: "7"}], suffix)
    write_rows(tmp_path / "two", "ratings", [{"utterance": "u1", "primary": "sad", name: "8"}], suffix)
    assert parse(tmp_path / "two")[0][0][name] == "7"
    write_rows(tmp_path / "one", "ratings", [{"utterance": "u1", "primary": "sad", name: "8"}], suffix)
    assert parse(tmp_path / "one")[0][0][name] == "8"
    write_rows(tmp_path / "votes", "utterances", [{"id": "u1", "count::sad": "2", name: "9"}], suffix)
    utterances, ratings, _ = parse(tmp_path / "votes")
    assert (utterances[0][name], len(ratings)) == ("9", 2)


def test_an_id_of_a_rating_is_no_utterance(tmp_path):
    write(tmp_path, ratings="id,utterance,primary\n1,u1,sad\n2,u1,sad\n")
    utterances, ratings, report = parse(tmp_path)
    assert ([row["id"] for row in utterances], len(ratings)) == (["u1"], 2)
    assert any("a column id of ratings" in problem for problem in report.problems)


def test_a_second_row_of_an_id_brings_no_votes(tmp_path):
    write(tmp_path, utterances="id,count::sad\nu1,2\nu1,3\n,4\n")
    _, ratings, report = parse(tmp_path)
    assert len(ratings) == 2
    assert report.problems == ["utterances.csv:3: the id 'u1', which line 2 has", "utterances.csv:4: no id"]


@pytest.mark.parametrize("count", ["1e12", "1000000000000", "10001", "1e300"])
@pytest.mark.parametrize("column", ["count::angry", "num_other_annotations"])
def test_an_absurd_count_is_refused_before_anything_is_made_of_it(tmp_path, column, count):
    other = {"count::angry": "count::sad", "num_other_annotations": "count::angry"}[column]
    write(tmp_path, utterances=f"id,{other},{column}\nu1,1,1\nu2,1,{count}\n")
    tracemalloc.start()
    with pytest.raises(
        text_lines.CorpusError, match=rf"utterances\.csv:3: {column} is {re.escape(count)}, over 10,000"
    ):
        parse(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_too_many_votes_in_all_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("seremo_jax.data.corpora.csv_frames.MOST_IN_ALL", 5)
    write(tmp_path, utterances="id,count::sad\nu1,3\nu2,3\n")
    with pytest.raises(text_lines.CorpusError, match="count 6 votes in all, over 5"):
        parse(tmp_path)


@pytest.mark.parametrize("span", ["15", ["1", "5"], 15, None, [1, 5, 7], [1], {"1": 5}, [True, 5], [1, "x"]])
def test_a_range_must_be_two_numbers(tmp_path, span):
    write(tmp_path, {"attribute_ranges": {"valence": span}}, ratings="utterance,valence\nu,3\n")
    with pytest.raises(text_lines.CorpusError, match=r"valence is .*: it must be NAME: \[lowest, highest\].*\[1, 5\]"):
        parse(tmp_path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ('{"attribute_ranges": "15"}', r'attribute_ranges is "15": it must be NAME: \[lowest, highest\]'),
        ('{"attribute_ranges": [1, 5]}', r"attribute_ranges is \[1, 5\]: it must be NAME"),
        ('{"attribute_ranges": {"valence": [1, Infinity]}}', r".*must be NAME: \[lowest, highest\]"),
        ('{"attribute_ranges": {"arousal": [1, 5], "activation": [1, 7]}}', "attribute_ranges has activation twice"),
        ('{"notes": "recorded in a car"}', r"notes is .*: write a list of texts"),
        ('{"class_set": ["msp8"]}', r"class_set is .*: write a text"),
        ('{"class_set": ["angry", 3]}', r"class_set is .*: write a text"),
        ('{"class_set": 5}', r"class_set '5': choose one of msp8, .*or write your own classes"),
        ('{"class_set": ["angry", "other"]}', r"class_set 'angry,other': 'other' cannot be a class"),
        ('{"release": {}}', r"release is \{\}: write a text"),
        ('{"corpus": " "}', r"corpus is .*: write a text"),
    ],
)
def test_what_the_description_says_must_have_its_type(tmp_path, about, message):
    write(tmp_path, ratings="utterance,primary\nu,sad\n")
    (tmp_path / "corpus.json").write_text(about)
    with pytest.raises(text_lines.CorpusError, match=rf"corpus\.json: {message}"):
        parse(tmp_path)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (
            "utterance,rater,emotion\nu,r,sad\n",
            r"ratings\.csv: column 'emotion' holds class words.*rename it to primary",
        ),
        ("utterance,valence,label\nu,3,Anger\n", r"ratings\.csv: column 'label' holds class words"),
        ("utterance,rater,code\nu,r,3\n", r"ratings\.csv: none of its columns is a label \(utterance, rater, code\)"),
        ("utterance\nu\n", r"none of its columns is a label"),
    ],
)
def test_labels_in_a_column_of_another_name_are_no_silence(tmp_path, ratings, message):
    write(tmp_path, {"attribute_ranges": {"valence": [1, 5]}}, ratings=ratings, utterances="id\nu\n")
    with pytest.raises(text_lines.CorpusError, match=message):
        parse(tmp_path)


def test_columns_of_ratings_that_are_not_used_are_reported(tmp_path):
    write(tmp_path, ratings="utterance,primary,mood\nu,sad,x\n", utterances="id\nu\n")
    assert parse(tmp_path)[2].problems == ["ratings.csv: columns of no known name, not used: mood"]


@pytest.mark.parametrize("first", ["", "sep=;\n", '"sep=;"\r\n'])
@pytest.mark.parametrize("sign", [";", "\t", ",", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_marks_of_spreadsheets(tmp_path, sign, first, encoding):
    first = first.replace(";", sign)
    text = f'{first}utterance;rater;primary;valence\nu1;"r;1";sad;2\nu2;r"2;angry;3\nu3;ré;happy\n'.replace(";", sign)
    (tmp_path / "ratings.csv").write_bytes(text.encode(encoding))
    write(tmp_path, {"attribute_ranges": {"valence": [1, 5]}})
    _, ratings, report = parse(tmp_path)
    assert [(row["utterance"], row["rater"], row["primary"], row["valence"]) for row in ratings] == [
        ("u1", f"r{sign}1", "sad", 2.0),
        ("u2", 'r"2', "angry", 3.0),
    ]
    assert report.problems == [f"ratings.csv:{4 + bool(first)}: not 4 cells"]


def test_tables_parted_by_tabs_may_be_called_so(tmp_path):
    (tmp_path / "ratings.tsv").write_text("utterance\tprimary\rU\tsad\r")
    assert [row["primary"] for row in parse(tmp_path)[1]] == ["sad"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("utterance primary\nu sad\n", "no column utterance; found utterance primary; cells must be parted by commas"),
        ("sep=;\nutterance,primary\nu,sad\n", "no column utterance; found utterance,primary; cells must"),
        ("utterance,line of the file,primary\nu,1,sad\n", "a name that this project needs itself: rename it"),
    ],
)
def test_what_separators_cannot_mean_is_refused(tmp_path, text, message):
    write(tmp_path, ratings=text)
    with pytest.raises(text_lines.CorpusError, match=message):
        parse(tmp_path)


def test_files_that_may_be_meant_are_named(tmp_path):
    (tmp_path / "Ratings.xlsx").write_bytes(b"")
    with pytest.raises(text_lines.CorpusError, match=r"it holds Ratings\.xlsx: save it"):
        parse(tmp_path)


def test_decimal_commas_of_attributes(tmp_path):
    about = {"attribute_ranges": {"valence": [1, 5], "dominance": [1, 5]}}
    write(tmp_path, about, ratings="utterance;primary;valence;dominance\nu1;sad;2,5;3\nu2;sad;NA;1,25\n")
    assert [(row["valence"], row["dominance"]) for row in parse(tmp_path)[1]] == [(2.5, 3.0), (None, 1.25)]
    write(tmp_path, about, ratings="utterance;primary;valence;dominance\nu1;sad;3;3\nu2;sad;2,5;1.25\n")
    with pytest.raises(
        text_lines.CorpusError, match=r"ratings\.csv:3: valence is '2,5', but in line 3 dominance is '1"
    ):
        parse(tmp_path)
    write(tmp_path, utterances='id,count::sad\nu1,"1,000"\n')
    (tmp_path / "ratings.csv").unlink()
    [problem] = parse(tmp_path)[2].problems
    assert problem.startswith("utterances.csv:2: u1: count::sad is '1,000', which is no number: write digits")


def test_each_row_says_its_own_cause(tmp_path):
    write(
        tmp_path,
        {"attribute_ranges": {"valence": [1, 5]}},
        ratings="utterance,primary,valence,modality,is_self_report\n,sad,1,,\nu1,sad,one,,\nu1,sad,1,smell,\n"
        "u1,sad,1,,perhaps\nu1,sad,inf,,\nu1,sad,9,,\n",
    )
    assert parse(tmp_path)[2].problems == [
        "ratings.csv:2: no utterance",
        "ratings.csv:3: valence is 'one', which is no number",
        "ratings.csv:4: modality is 'smell', which is none of voice, face, both",
        "ratings.csv:5: is_self_report is 'perhaps', which is neither true nor false",
        "ratings.csv:6: valence is 'inf', which is no number",
        "ratings.csv:7: u1: valence 9 is outside 1 to 5, left out",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0b", "has a NUL in its name"),
        ("*", "has a name that stands for several columns"),
        ("^primary$", "has a name that stands for several columns"),
        ("^.*$", "has a name that stands for several columns"),
    ],
)
def test_names_that_no_column_can_have_are_said_so(suffix, name, reason, tmp_path):
    frame = pl.DataFrame({"utterance": ["u0"], "primary": ["sad"], name: ["x"]})
    path = tmp_path / f"ratings{suffix}"
    path.write_text(frame.write_csv() if suffix == ".csv" else json.dumps(frame.row(0, named=True)))
    with pytest.raises(text_lines.CorpusError) as caught:
        parse(tmp_path)
    assert f"ratings{suffix}: column {name!r} {reason}" in str(caught.value)
    assert str(caught.value).endswith("rename it")


@pytest.mark.parametrize("line", ["[" * 100_000, '{"utterance": "\\ud800"}', '{"\\udfff": 1}', "9" * 5_000])
def test_a_line_of_json_that_no_table_can_hold_is_counted_and_named(line, tmp_path):
    (tmp_path / "ratings.jsonl").write_text(f'{{"utterance": "u0", "primary": "sad"}}\n{line}\n')
    _, ratings, report = parse(tmp_path)
    assert len(ratings) == 1
    assert report.counts["ratings_not_used"] == 1
    assert "ratings.jsonl:2: no JSON object" in report.first["ratings_not_used"]


@pytest.mark.parametrize("about", ["[" * 100_000, '{"corpus": "\\ud800"}', '{"release": ' + "9" * 5_000 + "}"])
def test_corpus_json_that_cannot_be_is_refused(about, tmp_path):
    (tmp_path / "corpus.json").write_text(about)
    with pytest.raises(text_lines.CorpusError, match=r"corpus\.json cannot be read"):
        parse(tmp_path)


@pytest.mark.parametrize("end", [10**400, 1e300])
def test_no_scale_ends_beyond_all_numbers(end, tmp_path):
    write(tmp_path, {"attribute_ranges": {"valence": [1, end]}}, ratings="utterance,valence\nu0,3\n")
    with pytest.raises(text_lines.CorpusError, match=r"corpus\.json: attribute_ranges of valence is \[1, 1"):
        parse(tmp_path)

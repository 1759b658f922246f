"""The line reader that parsers share: every line is used or reported."""

import pytest

from seremo_jax.data import text_lines


def test_csv_rows_use_or_report_every_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\ufeff"",b,a\n1,"x, y",2\n2,only\n3,"p\nq",4\n4,1,2,3\n', encoding="utf-8")
    report = text_lines.Report()
    rows = list(text_lines.csv_rows(path, ["a", "b"], report))
    assert [(where, row["a"], row["b"], row[""]) for where, row in rows] == [
        ("x.csv:2", "2", "x, y", "1"),
        ("x.csv:5", "4", "p\nq", "3"),
    ]
    assert report.counts == {"lines_read": 4, "lines_not_used": 2}
    assert report.problems == ["x.csv:3: not 3 cells", "x.csv:6: not 3 cells"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"a,c\n1,2\n", "no column b; found a, c"),
        (b"", "no column a, b; found nothing"),
        (b"a,b\n\xff\xfe,2\n", "cannot be read"),
    ],
)
def test_csv_rows_refuse_what_is_no_such_table(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_bytes(text)
    with pytest.raises(text_lines.CorpusError, match=message):
        list(text_lines.csv_rows(path, ["a", "b"], text_lines.Report()))


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\ufeffa,b\n1,2\n", encoding="utf-8")
    [(_, row)] = text_lines.csv_rows(path, ["a"], text_lines.Report())
    assert row["a"] == "1"


def test_text_lines_know_line_ends_marks_and_encodings(tmp_path):
    path = tmp_path / "x.txt"
    for content, expected in (
        (b"", []),
        (b"\xef\xbb\xbfa\r\n\r\nb\r\n", ["a", "", "b"]),
        ("é\n\x85".encode(), ["é", "\x85"]),
        (b"\xe9\n", ["é"]),
    ):
        path.write_bytes(content)
        assert text_lines.text_lines(path) == expected
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(text_lines.CorpusError, match="git lfs pull"):
        text_lines.text_lines(path)
    with pytest.raises(text_lines.CorpusError, match=r"y\.txt cannot be read"):
        text_lines.text_lines(tmp_path / "y.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"\\udfff": 1}', "half a character"),
        ("9" * 5_000, "4300"),
        ("{", "Expecting"),
    ],
)
def test_json_that_no_table_can_hold_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        text_lines.json_value(text)


def test_json_is_read_as_it_stands():
    assert text_lines.json_value('{"a": ["\\ud83d\\ude00", 1e400, null]}') == {"a": ["\U0001f600", float("inf"), None]}
    assert text_lines.json_value('{"a": 1, "a": {"b": 2}}', list) == [("a", 1), ("a", [("b", 2)])]

"""Large CSV files as frames: every physical line is used or reported, whatever a cell holds."""

import csv
import io

import hypothesis
import hypothesis.strategies as st
import pytest

from seremo_jax.data import text_lines
from seremo_jax.data.corpora import csv_frames

cells = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=8) | st.sampled_from(
    ['"', '""', ",", "a,b,c", "\n", "x\n1,2,3\ny", '"\n"', " ", ""]
)


def write(path, rows, line_end="\n", bom=False):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.write_bytes(("\ufeff" * bom + text.getvalue().replace("\n", line_end)).encode())


@hypothesis.given(st.lists(st.tuples(cells, cells, cells), max_size=12), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_whatever_was_written_is_read(tmp_path_factory, rows, bom, line_end):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    write(path, [("a", "b", "c"), *rows], line_end, bom)
    report = text_lines.Report()
    frame = csv_frames.read_csv(path, ["c", "a"], report)
    assert frame.drop(csv_frames.LINE).rows() == rows
    assert report.counts["lines_read"] == len(rows)
    assert report.problems == []
    numbers = [2]
    for row in rows:
        numbers.append(numbers[-1] + 1 + sum(cell.count("\n") for cell in row))
    assert frame[csv_frames.LINE].to_list() == numbers[:-1]


@pytest.mark.parametrize("key", [None, ("a", r"^k\d$")])
@pytest.mark.parametrize("chunk", [1, 3, 200_000])
def test_a_bad_line_costs_itself_only(tmp_path, monkeypatch, chunk, key):
    monkeypatch.setattr(csv_frames, "_CHUNK_LINES", chunk)
    path = tmp_path / "x.csv"
    path.write_text(
        'a,b\nk1,"never closed\nk2,"fine, too"\nk3,x,y\n\nk4,bare "quotes" here\nk5,"two\nlines"\n   \nk6,"a"b\nk7,\n'
    )
    report = text_lines.Report()
    frame = csv_frames.read_csv(path, ["b"], report, key)
    assert frame.rows() == [
        (3, "k2", "fine, too"),
        (6, "k4", 'bare "quotes" here'),
        (7, "k5", "two\nlines"),
        (11, "k7", ""),
    ]
    assert report.problems == [
        "x.csv:2: a quotation mark is never closed",
        "x.csv:4: not 2 cells",
        "x.csv:10: not 2 cells",
    ]
    assert report.counts == {"lines_read": 7, "lines_not_used": 3}


def test_a_cell_that_never_closes_leaves_the_rows_below_alone(tmp_path):
    path = tmp_path / "x.csv"
    rows = [(f"k{i}", "text") for i in range(300)]
    write(path, [("a", "b"), *rows])
    path.write_text(path.read_text().replace("k7,text", 'k7,"text'))
    report = text_lines.Report()
    assert csv_frames.read_csv(path, ["a"], report)["a"].to_list() == [a for a, _ in rows if a != "k7"]
    assert report.problems == ["x.csv:9: a quotation mark is never closed"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"a,c\n1,2\n", "no column b; found a, c"),
        (b"", "no column b; found nothing"),
        (b"b,a,b\n1,2,3\n", "a column is named twice: b, a, b"),
        (b"b\n\xff\xfe\n", "not UTF-8"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(text_lines.CorpusError, match=message):
        csv_frames.read_csv(path, ["b"], text_lines.Report())
    with pytest.raises(text_lines.CorpusError, match="cannot be read"):
        csv_frames.read_lines(tmp_path / "missing.csv")

"""Shares back to votes: every vote of a few raters survives rounding, and what is ambiguous is said to be."""

import itertools
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from seremo_jax.core import vocab
from seremo_jax.data import tables, text_lines
from seremo_jax.data.corpora import table_shares, tabular

WORDS = vocab.CLASS_SETS["iemocap4"]


def patterns(num_raters: int, num_classes: int):
    for bars in itertools.combinations(range(num_raters + num_classes - 1), num_classes - 1):
        ends = (-1, *bars, num_raters + num_classes - 1)
        yield tuple(high - low - 1 for low, high in itertools.pairwise(ends))


def rounded(votes, decimals: int, rounding: str) -> list[str]:
    unit = Decimal(1).scaleb(-decimals)
    return [f"{(Decimal(n) / sum(votes)).quantize(unit, rounding):g}" for n in votes]


def read(root: Path, rows: list[list[str]], further: dict[str, list[str]] | None = None, **policies):
    """[Votes of each class] of each row, None where it was not used; and the report."""
    further = further or {}
    names = WORDS[: len(rows[0])]
    lines = [",".join(["id", *(f"share::{word}" for word in names), *further])]
    lines += [",".join([f"u{i}", *row, *(values[i] for values in further.values())]) for i, row in enumerate(rows)]
    root.mkdir(exist_ok=True)
    (root / "utterances.csv").write_text("\n".join(lines))
    utterances, ratings = tabular.parse(root, **policies)
    votes = {f"u{i}": dict.fromkeys(names, 0) for i in range(len(rows))}
    for name, word in zip(ratings["utterance"].to_pylist(), ratings["primary"].to_pylist(), strict=True):
        votes[name][word] += 1
    actual = [list(counts.values()) if sum(counts.values()) else None for counts in votes.values()]
    return actual, tables.report_of(utterances), tables.info_of(utterances).notes


@pytest.mark.parametrize("rounding", [ROUND_HALF_EVEN, ROUND_HALF_UP])
@pytest.mark.parametrize("decimals", [2, 3])
def test_every_vote_of_two_to_twelve_raters_survives_rounding(decimals, rounding):
    for num_classes in (2, 3, 4):
        votes = [v for n in range(2, 13) for v in patterns(n, num_classes)]
        shares = np.array([[float(text) for text in rounded(v, decimals, rounding)] for v in votes])
        actual, _ = table_shares.votes_behind(shares, 0.5 * 10.0**-decimals)
        expected = np.array(votes) / np.array(votes).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(actual / actual.sum(axis=1, keepdims=True), expected, atol=1e-12)
        numbers = np.array(votes).sum(axis=1).astype(float)
        actual, is_open = table_shares.votes_behind(shares, 0.5 * 10.0**-decimals, numbers)
        np.testing.assert_array_equal(actual, votes)
        assert not is_open.any()


@pytest.mark.parametrize("decimals", [2, 3])
@pytest.mark.parametrize("num_raters", [2, 3, 5, 6, 10, 12])
def test_a_table_of_one_number_of_raters_is_read_whole(tmp_path, num_raters, decimals):
    votes = list(patterns(num_raters, 3))
    actual, report, _ = read(tmp_path, [rounded(v, decimals, ROUND_HALF_EVEN) for v in votes])
    for row, expected in zip(actual, votes, strict=True):
        assert [Fraction(n, sum(row)) for n in row] == [Fraction(n, num_raters) for n in expected]
    assert report.counts["lines_without_votes"] == 0
    again, _, notes = read(
        tmp_path, [rounded(v, decimals, ROUND_HALF_EVEN) for v in votes], {"num_raters": [str(num_raters)] * len(votes)}
    )
    assert again == [list(v) for v in votes]
    assert not any("multiple" in note for note in notes)


def test_the_six_raters_of_the_shared_case(tmp_path, shared):
    text = (shared / "cases" / "tables" / "rounded_shares_six_raters.csv").read_text()
    (tmp_path / "utterances.csv").write_text(text.replace("utterance,", "id,"))
    utterances, ratings = tabular.parse(tmp_path)
    words = [(row["utterance"], row["primary"]) for row in ratings.to_pylist()]
    counts = [[words.count((name, word)) for word in ("angry", "happy", "sad")] for name in ("u1", "u2", "u3")]
    assert counts == [[1, 1, 4], [2, 1, 3], [5, 1, 0]]
    assert tables.report_of(utterances).counts["lines_without_votes"] == 0


def test_tenths_are_exact_where_they_can_be(tmp_path):
    assert read(tmp_path, [["0.2", "0.8"], ["0.4", "0.6"]])[0] == [[1, 4], [2, 3]]
    assert read(tmp_path, [["0.3", "0.7"], ["0.10", "0.90"]])[0] == [[3, 7], [1, 9]]
    assert read(tmp_path, [["0.3", "0.3", "0.3"], ["0.7", "0.3", "0"]])[0] == [[1, 1, 1], [2, 1, 0]]


def test_ambiguous_shares_are_said_to_be_so(tmp_path):
    rows = [["0.08", "0.92"], ["0.5", "0.5"], ["1", "0"]]
    actual, report, _ = read(tmp_path, rows)
    assert actual == [[1, 11], [1, 1], [1, 0]]
    [problem] = report.problems
    assert problem.startswith("utterances.csv: 1 rows of shares also fit other votes")
    assert "lines 2 (u0);" in problem
    assert report.counts["shares_ambiguous"] == 1
    actual, report, _ = read(tmp_path, rows, {"num_raters": ["13", "4", "6"]})
    assert (actual, report.problems) == ([[1, 12], [2, 2], [6, 0]], [])
    # One of 150 raters or two: both are one hundredth.
    _, report, _ = read(tmp_path, [["0.01", "0.99"], ["0", "1"]], {"num_raters": ["150", "150"]})
    assert report.counts["shares_ambiguous"] == 1


def test_a_number_of_raters_that_does_not_fit_is_reported(tmp_path):
    rows = [["0.17", "0.83"], ["0.17", "0.83"], ["0.17", "0.83"], ["0", "1"], ["0.5", "0.5"]]
    actual, report, _ = read(tmp_path, rows, {"n_raters": ["5", "six", "", "0", "2.5"]})
    assert actual == [None, None, [1, 5], None, None]
    assert report.problems == [
        "utterances.csv:2: u0: shares of no votes of 5 raters; they sum to 1.0",
        "utterances.csv:3: u1: n_raters is 'six', which is no number",
        "utterances.csv:5: u3: n_raters is 0, below 1",
        "utterances.csv:6: u4: n_raters is 2.5, which is no whole number",
    ]
    with pytest.raises(text_lines.CorpusError, match="raters and votes both say how many raters"):
        read(tmp_path, rows[:1], {"raters": ["5"], "votes": ["5"]})
    with pytest.raises(text_lines.CorpusError, match=r"utterances\.csv:2: raters is 1e12, over 10,000"):
        read(tmp_path, rows[:1], {"raters": ["1e12"]})


def test_shares_that_are_not_rounded_need_no_decimals(tmp_path):
    rows = [[repr(n / 7), repr(1 - n / 7)] for n in range(8)]
    assert read(tmp_path, rows)[0][1:7] == [[n, 7 - n] for n in range(1, 7)]
    rows = [[str(np.float32(n / 7)), str(np.float32(1 - n / 7)), "0"] for n in range(1, 7)]
    assert read(tmp_path, rows)[0] == [[n, 7 - n, 0] for n in range(1, 7)]
    assert read(tmp_path, [["0.170000", "0.830000"], ["1.000000", "0"]])[0] == [[1, 5], [1, 0]]
    assert read(tmp_path, [["1.7e-1", "8.3E-1"], ["1", "0"]])[0] == [[1, 5], [1, 0]]


def test_few_utterances_with_votes_in_every_class_are_not_smoothed(tmp_path):
    assert read(tmp_path, [["0.17", "0.17", "0.67"]])[0] == [[1, 1, 4]]
    with pytest.raises(text_lines.CorpusError, match="have been smoothed already"):
        read(tmp_path, [["0.95", "0.02", "0.03"]])


@pytest.mark.parametrize(
    "rows",
    [
        [["17%", "83 %"], ["0", "100%"]],
        [["17", "83"], ["0", "100"]],
        [['"17,0"', '"83,0"'], ['"0,0"', '"100,0"']],
        [['"0,17"', '"0,83"'], ["0", "1"]],
        [['"17,0 %"', '"83,0 %"'], ["0%", "100%"]],
    ],
)
def test_percent_signs_and_decimal_commas(tmp_path, rows):
    assert read(tmp_path, rows)[0] == [[1, 5], [0, 1]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["17%", "0.83"]], r"utterances\.csv:2: share::happy is '0\.83' without a percent sign"),
        ([['"0,17"', "0.83"]], r"utterances\.csv:2: share::angry is '0,17', but in line 2 share::happy is '0\.83'"),
    ],
)
def test_mixed_ways_of_writing_shares_are_refused(tmp_path, rows, message):
    with pytest.raises(text_lines.CorpusError, match=message):
        read(tmp_path, rows)

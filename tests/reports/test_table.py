"""The one model of a table: what a cell prints and keeps, and its forms say the same."""

import csv
import io
import re

import pytest

from seremo_jax.metrics import catalogue
from seremo_jax.reports import table as forms
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, plain

UAR, SHARE = catalogue.metric("uar"), catalogue.metric("pa_uar", threshold=75, speakers="all")
ENTRY = {"value": 0.51234, "low": 0.4, "high": 0.6, "sd": 0.0123, "members": [0.5, 0.52], "count": 6, "defined": True}
TABLE = Table(
    "Scores", ("system", "of_speech"), ("UAR", "speakers"),
    (
        Row(("a|b & c", "x"), (measured(ENTRY, UAR), *plain(12)), marks="a"),
        Row(("chance", ""), (measured({"value": 1 / 6}, UAR), Cell(NOTHING)), is_reference=True),
    ),
    "50 % of all",
)  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "metric", "is_difference", "text"),
    [
        (ENTRY, UAR, False, "0.512 ± 0.012 [0.400, 0.600]"),
        (ENTRY, None, True, "+0.512 ± 0.012 [0.400, 0.600]"),
        (ENTRY | {"value": -0.0001, "members": [1], "low": -0.0002}, UAR, True, "+0.000 [0.000, 0.600]"),
        (ENTRY | {"value": 51.26, "members": [1], "low": None}, SHARE, False, "51.3"),
        (ENTRY | {"defined": False}, UAR, False, NOTHING),
        (ENTRY | {"value": float("nan")}, UAR, False, NOTHING),
        (None, UAR, False, NOTHING),
    ],
)
def test_a_cell_has_the_decimals_of_its_metric_and_keeps_its_numbers(entry, metric, is_difference, text):
    cell = measured(entry, metric, is_difference)
    assert (str(cell), cell.metric, cell.numbers) == (text, metric, entry or {})


def test_markdown_aligns_and_escapes():
    lines = forms.markdown(TABLE).splitlines()
    assert lines[0] == "**Scores**"
    assert lines[3] == "| ------------ | --------- | ---------------------------: | -------: |"
    assert [len(line) for line in lines[2:6]] == [len(lines[2])] * 4
    assert lines[4].startswith(r"| a\|b & c (a) | x ")
    assert lines[4].endswith("| 0.512 ± 0.012 [0.400, 0.600] |       12 |")
    assert lines[-1] == TABLE.caption


def test_csv_has_a_row_a_number_or_a_row_a_row():
    header = (*TABLE.labels, "score", "metric", "text", *forms.NUMBERS)
    long = list(csv.DictReader(io.StringIO(forms.csv_text(header, forms.rows_by_number(TABLE)))))
    assert [(row["system"], row["score"], row["metric"], row["value"]) for row in long] == [
        ("a|b & c", "UAR", "UAR", "0.51234"), ("a|b & c", "speakers", "", ""), ("chance", "UAR", "UAR", repr(1 / 6)),
        ("chance", "speakers", "", ""),
    ]  # fmt: skip
    wide = list(csv.DictReader(io.StringIO(forms.csv_text(*forms.rows_of_numbers(TABLE, ("value", "low"))))))
    assert [(row["system"], row["UAR value"], row["UAR low"]) for row in wide] == [
        ("a|b & c", "0.51234", "0.4"), ("chance", repr(1 / 6), ""),
    ]  # fmt: skip


def test_names_from_outside_do_nothing_in_other_programs():
    named = Table("<b>", ("=who",), ("@UAR",), (Row(("=1+1",), (measured(ENTRY | {"value": -0.5}, UAR),)),), "<i>")
    header, rows = forms.rows_of_numbers(named, ("value",))
    assert forms.csv_text(header, rows).splitlines() == ["'=who,'@UAR value", "'=1+1,-0.5"]
    text = forms.markdown(named)
    assert text.startswith("**&lt;b>**")
    assert text.endswith("&lt;i>")


def test_latex_escapes_and_sets_references_apart():
    text = "\n".join(forms.latex(TABLE))
    assert text.startswith("\\begin{tabular}{llrr}\n\\toprule\nsystem & of\\_speech & UAR & speakers \\\\")
    assert r"a|b \& c (a) & x & 0.512 $\pm$ 0.012 [0.400, 0.600] & 12 \\" in text
    assert re.search(r"\\midrule\nchance &  & 0.167 & -- \\\\\n\\bottomrule", text)
    alone = Table("", ("interval",), (), (Row(("[0, 1]",)),))
    assert "{}[0, 1] \\\\" in "\n".join(forms.latex(alone))

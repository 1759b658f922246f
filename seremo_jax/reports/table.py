"""The one model of a table: rows of words and of numbers with their metric. Its forms: HTML, Markdown, CSV and LaTeX.

`page.html.j2` is the HTML form. A cell keeps the unrounded numbers beside what is printed, so that CSV needs no other
source.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from seremo_jax.core.cells import disarmed, one_line
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports.blocks import is_number, value_of

NOTHING = "–"
"""Stands in a cell for a value that is not defined."""

DIGITS = 3
"""Decimals of a number that is no metric's."""

NUMBERS = ("value", "low", "high", "sd", "chance")
"""What a CSV file has of a cell."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number as it is printed, and what stands behind it.

    Attributes:
      text: As it is printed, without its interval.
      interval: `[low, high]` as it is printed; empty where there is none.
      metric: What it is a value of; None where it is no metric's.
      numbers: Unrounded, under the names of a record's entry (`value`, `low`, ...); empty for words.
    """

    text: str
    interval: str = ""
    metric: Metric | None = None
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.text} {self.interval}" if self.interval else self.text


def measured(entry: Mapping[str, Any] | None, metric: Metric | None = None, is_difference: bool = False) -> Cell:
    """`mean ± sd [low, high]` of an entry of a record, with the decimals of its metric; a difference has a sign."""
    value = value_of(entry)
    if value is None:
        return Cell(NOTHING, metric=metric, numbers=entry or {})
    digits = metric.about.digits if metric else DIGITS
    # `z`: what rounds to zero has no minus.
    text, interval = f"{value:{'+' if is_difference else ''}z.{digits}f}", ""
    if len(entry.get("members") or ()) > 1 and is_number(entry.get("sd")):
        text += f" ± {entry['sd']:.{digits}f}"
    if is_number(entry.get("low")) and is_number(entry.get("high")):
        interval = f"[{entry['low']:z.{digits}f}, {entry['high']:z.{digits}f}]"
    return Cell(text, interval, metric, entry)


def plain(*texts: object) -> tuple[Cell, ...]:
    """Cells of what is printed as it is: counts, ranges."""
    return tuple(Cell(str(text)) for text in texts)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
      labels: Words that say what it is.
      cells: Its numbers.
      is_reference: Whether it is set apart, as chance is.
      marks: Of its footnotes, e.g. `a`; empty for none.
    """

    labels: tuple[str, ...]
    cells: tuple[Cell, ...] = ()
    is_reference: bool = False
    marks: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The labels, the first with the marks of its footnotes."""
        if not self.marks:
            return self.labels
        return (f"{self.labels[0]} ({self.marks})", *self.labels[1:])

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is printed, column by column."""
        return (*self.words, *map(str, self.cells))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, its title above and its caption below.

    Attributes:
      title: What stands above.
      labels: Heads of the columns of words, which come first.
      columns: Heads of the columns of numbers.
      rows: The rows.
      caption: What stands below; empty for none.
      is_folded: Whether a page shows it only when it is asked to.
      is_published: Whether these are others' numbers.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    is_folded: bool = False
    is_published: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        """Heads of all columns."""
        return (*self.labels, *self.columns)


def names(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """Heads of columns of metrics."""
    return tuple(metric.name for metric in metrics)


def markdown(table: Table) -> str:
    """As Markdown, its columns padded so that it reads well as plain text."""
    lines = [[escaped(text) for text in line] for line in (table.header, *(row.texts for row in table.rows))]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(table.header))]
    num_labels = len(table.labels)
    rule = ["-" * width if i < num_labels else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = (_padded(line, widths, num_labels) for line in (lines[0], rule, *lines[1:]))
    below = ["", one_line(table.caption)] if table.caption else []
    return "\n".join([f"**{one_line(table.title)}**", "", *padded, *below])


def _padded(texts: Iterable[str], widths: Sequence[int], num_labels: int) -> str:
    pairs = enumerate(zip(texts, widths, strict=True))
    return "| " + " | ".join(t.ljust(w) if i < num_labels else t.rjust(w) for i, (t, w) in pairs) + " |"


def escaped(text: str) -> str:
    """Text that breaks no Markdown table."""
    return one_line(text).replace("|", "\\|")


def csv_text(header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of values as CSV, unrounded; None and what a row lacks are empty cells, and no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(disarmed, header))
    writer.writerows([disarmed(row.get(name, "")) for name in header] for row in rows)
    return out.getvalue()


def rows_by_number(table: Table) -> Iterator[dict[str, Any]]:
    """For CSV: a row a number, with the labels of its row, the head of its column, its metric and all of `NUMBERS`."""
    for row in table.rows:
        labels = dict(zip(table.labels, row.labels, strict=True))
        for column, cell in zip(table.columns, row.cells, strict=True):
            metric = cell.metric.name if cell.metric else ""
            numbers = {name: cell.numbers.get(name) for name in NUMBERS}
            yield {**labels, "score": column, "metric": metric, "text": str(cell), **numbers}


def rows_of_numbers(table: Table, numbers: Sequence[str]) -> tuple[tuple[str, ...], Iterator[dict[str, Any]]]:
    """For CSV: the table's own rows, each column once for each of these names of numbers; and their header."""
    header = (*table.labels, *(f"{column} {name}" for column in table.columns for name in numbers))
    values = ((*row.labels, *(cell.numbers.get(name) for cell in row.cells for name in numbers)) for row in table.rows)
    return header, (dict(zip(header, line, strict=True)) for line in values)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "<": "$<$", ">": "$>$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text for LaTeX."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(table: Table) -> Iterator[str]:
    """Lines of a tabular for `\\usepackage{booktabs}`; title and caption are left to what is around it."""
    yield rf"\begin{{tabular}}{{{'l' * len(table.labels)}{'r' * len(table.columns)}}}"
    yield r"\toprule"
    yield _latex_row(table.header)
    yield r"\midrule"
    was_reference = False
    for row in table.rows:
        if row.is_reference and not was_reference:
            yield r"\midrule"
        was_reference = row.is_reference
        yield _latex_row(row.texts)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _latex_row(texts: Iterable[str]) -> str:
    # A bracket at the start of a cell would be read as the argument of the row end before it.
    cells = (latex_text(text) for text in texts)
    return " & ".join("{}" + cell if cell.startswith("[") else cell for cell in cells) + r" \\"

"""A benchmark table as Markdown, CSV and LaTeX (booktabs). Words and formats only."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping
from typing import Any

from seremo_jax.reports.page import NOTHING, Row, Table, table_markdown


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number as it's printed, and unrounded with its interval and spread where it has them."""

    text: str
    metric: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Line:
    """One row: words that say what it is, its numbers, and the marks of its footnotes."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    marks: str = ""
    is_reference: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows under one header; a table has one or more, each below a rule.

    Attributes:
      title: What stands above.
      labels: Header of the words.
      scores: Header of the numbers.
      lines: The rows.
      is_published: Whether these are others' numbers.
    """

    title: str
    labels: tuple[str, ...]
    scores: tuple[str, ...]
    lines: tuple[Line, ...]
    is_published: bool = False


@dataclasses.dataclass(frozen=True)
class BenchmarkTable:
    """A table that carries its protocol.

    Attributes:
      name: What it's called on the command line.
      title: Its heading.
      parts: Ours first, then what's set apart.
      caption: Split, counts, how to read a cell, commits.
      footnotes: Mark -> what differs in the rows that bear it.
      reading: What the table shows and what it doesn't.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    caption: str
    footnotes: Mapping[str, str]
    reading: str


def markdown(table: BenchmarkTable) -> str:
    """The table as Markdown."""
    blocks = [f"## {table.title}"]
    for i, part in enumerate(table.parts):
        rows = tuple(
            Row((*_marked(line), *(cell.text for cell in line.cells)), line.is_reference) for line in part.lines
        )
        made = Table(part.title, (*part.labels, *part.scores), rows, "" if i else table.caption, len(part.labels))
        blocks += [*(["---"] if i else []), table_markdown(made).rstrip()]
        if not i and table.footnotes:
            blocks.append("\n".join(f"- ({mark}) {words}" for mark, words in table.footnotes.items()))
    return "\n\n".join([*blocks, table.reading]) + "\n"


def _marked(line: Line) -> tuple[str, ...]:
    return (f"{line.labels[0]} ({line.marks})" if line.marks else line.labels[0], *line.labels[1:])


def csv_text(table: BenchmarkTable) -> str:
    """The table as CSV: one line a number, unrounded where ours; `differs` says what stands in the footnotes."""
    names = list(dict.fromkeys(name for part in table.parts for name in part.labels))
    numbers = ("value", "low", "high", "sd", "chance")
    fields = ["table", "part", "is_published", *names, "score", "text", *numbers, "differs"]
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for part in table.parts:
        for line in part.lines:
            differs = "; ".join(table.footnotes[mark] for mark in line.marks.split(", ") if mark)
            labels = dict(zip(part.labels, line.labels, strict=True))
            for score, cell in zip(part.scores, line.cells, strict=True):
                writer.writerow({
                    "table": table.name, "part": part.title, "is_published": part.is_published, **labels,
                    "score": score, "text": cell.text, **{key: cell.metric.get(key) for key in numbers},
                    "differs": differs,
                })  # fmt: skip
    return out.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "<": "$<$", ">": "$>$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(table: BenchmarkTable) -> str:
    """The table as LaTeX for `\\usepackage{booktabs}`: a float with one tabular a part."""
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table*}", r"\centering", r"\scriptsize"]
    for i, part in enumerate(table.parts):
        if i:
            lines += ["", r"\medskip\hrule\medskip", rf"\textbf{{{_tex(part.title)}}}", "", r"\smallskip"]
        lines += _tabular(part)
    notes = [f"({mark}) {words}." for mark, words in table.footnotes.items()]
    words = " ".join([f"{table.title}.", table.caption, *notes, table.reading])
    lines += [rf"\caption{{{_tex(words)}}}", rf"\label{{tab:{table.name}}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def _tabular(part: Part) -> Iterable[str]:
    yield rf"\begin{{tabular}}{{{'l' * len(part.labels)}{'r' * len(part.scores)}}}"
    yield r"\toprule"
    yield _tex_row((*part.labels, *part.scores))
    yield r"\midrule"
    was_reference = False
    for line in part.lines:
        if line.is_reference and not was_reference:
            yield r"\midrule"
        was_reference = line.is_reference
        yield _tex_row((*_marked(line), *(cell.text for cell in line.cells)))
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _tex_row(cells: Iterable[str]) -> str:
    # A bracket at the start of a cell would be read as the argument of the row end before it.
    made = [_tex(cell) for cell in cells]
    return " & ".join("{}" + cell if cell.startswith("[") else cell for cell in made) + r" \\"


__all__ = ["NOTHING", "BenchmarkTable", "Cell", "Line", "Part", "csv_text", "latex", "markdown"]

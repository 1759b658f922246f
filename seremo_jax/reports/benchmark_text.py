"""A benchmark table as Markdown, CSV and LaTeX (booktabs): its parts below each other, with caption and footnotes."""

import dataclasses
from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from seremo_jax.core.cells import one_line
from seremo_jax.reports import table as forms
from seremo_jax.reports.look import Theme
from seremo_jax.reports.table import Table


@dataclasses.dataclass(frozen=True)
class BenchmarkTable:
    """A table that carries its protocol.

    Attributes:
      name: What it's called on the command line.
      title: Its heading.
      parts: Ours first, then what's set apart; each stands below a rule.
      caption: Split, counts, how to read a cell, commits.
      footnotes: Mark -> what differs in the rows that bear it.
      reading: What the table shows and what it doesn't.
      figure: Draws it in a theme; None for a table without a figure.
    """

    name: str
    title: str
    parts: tuple[Table, ...]
    caption: str
    footnotes: Mapping[str, str]
    reading: str
    figure: Callable[[Theme], Figure] | None = None


def markdown(benchmark: BenchmarkTable) -> str:
    """The table as Markdown."""
    first, *others = benchmark.parts
    blocks = [f"## {one_line(benchmark.title)}", forms.markdown(dataclasses.replace(first, caption=benchmark.caption))]
    if benchmark.footnotes:
        blocks.append("\n".join(f"- ({mark}) {one_line(words)}" for mark, words in benchmark.footnotes.items()))
    for part in others:
        blocks += ["---", forms.markdown(part)]
    return "\n\n".join([*blocks, one_line(benchmark.reading)]) + "\n"


def csv_text(benchmark: BenchmarkTable) -> str:
    """The table as CSV: one line a number, unrounded where ours; `differs` says what stands in the footnotes."""
    labels = dict.fromkeys(label for part in benchmark.parts for label in part.labels)
    start = ("table", "part", "is_published", *labels)
    rows = []
    for part in benchmark.parts:
        about = {"table": benchmark.name, "part": part.title, "is_published": part.is_published}
        for row in part.rows:
            differs = benchmark.footnotes.get(row.marks, "")
            alone = dataclasses.replace(part, rows=(row,))
            rows += [about | number | {"differs": differs} for number in forms.rows_by_number(alone)]
    return forms.csv_text((*start, "score", "metric", "text", *forms.NUMBERS, "differs"), rows)


def latex(benchmark: BenchmarkTable) -> str:
    """The table as LaTeX for `\\usepackage{booktabs}`: a float with one tabular a part."""
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table*}", r"\centering", r"\scriptsize"]
    for i, part in enumerate(benchmark.parts):
        if i:
            lines += ["", r"\medskip\hrule\medskip", rf"\textbf{{{forms.latex_text(part.title)}}}", "", r"\smallskip"]
        lines += forms.latex(part)
    notes = [f"({mark}) {words}." for mark, words in benchmark.footnotes.items()]
    words = " ".join([f"{benchmark.title}.", benchmark.caption, *notes, benchmark.reading])
    label = rf"\label{{tab:{benchmark.name}}}"
    lines += [rf"\caption{{{forms.latex_text(words)}}}", label, r"\end{table*}"]
    return "\n".join(lines) + "\n"

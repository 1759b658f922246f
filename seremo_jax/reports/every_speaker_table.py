"""The table `every_speaker`: systems by how they serve the worst served speakers, against the first; and its figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from seremo_jax.core import ensemble, vocab
from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import metric
from seremo_jax.reports import score_tables
from seremo_jax.reports.benchmark_parts import cell, run_label
from seremo_jax.reports.benchmark_rows import Entry
from seremo_jax.reports.look import Look, Theme, canvas, legend_below
from seremo_jax.reports.table import Row, Table, measured, names, plain

WORST, UAR = metric("worst_speakers", percent=20), metric("uar", 1)
METRICS = (
    *(WORST, UAR, metric("class_ccc_mean")),
    *(metric("pa_uar", 1, speakers="all", threshold=75), metric("pa_uar_true", threshold=75)),
)
"""How well a system does, the primary score first."""

PLAIN = "plain head"

READING = (
    "It shows how systems serve the fifth of the speakers whom each serves worst, and what that costs on average. Who "
    "is worst served is picked by the scores shown, so that all values of that column lean downwards; differences "
    "between systems do so alike. Every system is held against the first row, paired by speaker, and Holm's correction "
    "is over all comparisons of the evaluation, those of the report included. A gap is that of female minus male "
    "speakers; its change has an interval and no test."
)


def _gap_groups(rows: Sequence[Entry]) -> list[str]:
    """The group of the gap between genders, or between groups of another column, if the rows have one."""
    return [group for _, group in rows[0].block.by_key if rows[0].block.is_gap(group)][:1]


def label(row: Entry) -> str:
    """What a system does that a plain head does not; settings as they are by default go without saying."""
    axes = row.record.axes
    by_default = [name for name in axes["varying"] if axes[name] == ensemble.SINCE.get(name)]
    return ", ".join(ensemble.words(axes, by_default)) or PLAIN


def parts(rows: Sequence[Entry], flags: Mapping[int, str]) -> list[Table]:
    """Scores, the best first by the primary score; differences from the first system; changes of the gap.

    Args:
      rows: Systems of finished evaluations, those that `is_defined` takes.
      flags: Identity of a row -> mark of its footnote.
    """
    conditions = list(dict.fromkeys(
        block.condition for row in rows for block in row.run.blocks
        if block.split == row.block.split and block.condition != vocab.CLEAN
    ))  # fmt: skip
    gaps = _gap_groups(rows)
    columns = (
        *names(METRICS),
        *(f"{UAR.name}, {rows[0].block.group_label(group)}" for group in gaps),
        *(f"{UAR.name}, {condition}" for condition in conditions),
    )
    lines, run = [], run_label(rows)
    for row in sorted(rows, key=_rank):
        cells = [cell(row, score) for score in METRICS] + [cell(row, UAR, group) for group in gaps]
        for condition in conditions:
            block = row.run.block(row.block.split, condition)
            cells.append(measured(None if block is None else block.entry(row.system, UAR), UAR))
        labels = (label(row), *(row.run.name for _ in run), str(len(row.record.seeds)), row.commit)
        lines.append(Row(labels, tuple(cells), marks=flags[id(row)]))
    labels = ("system", *run, "seeds", "commit")
    tables = [Table("Every speaker", labels, columns, tuple(lines))]
    differences = _differences(rows)
    if differences:
        tables.append(Table("Differences", score_tables.DIFFERENCE_LABELS, score_tables.DIFFERENCE_COLUMNS,
                            tuple(differences), score_tables.DIFFERENCE_READING))  # fmt: skip
    return tables


def is_defined(row: Entry) -> bool:
    """Whether a row is one of heads, and has what the table is about."""
    return not row.is_baseline and None not in (row.block.value(row.system, score) for score in (WORST, UAR))


def _rank(row: Entry) -> float:
    return -row.block.value(row.system, WORST)


def _differences(rows: Sequence[Entry]) -> list[Row]:
    """Of the metrics of this table, then changes of the gap in UAR and class CCC."""
    lines, changes = [], []
    label_of = {(row.run.name, row.record.system): label(row) for row in rows}
    for row in rows:
        system = label(row)
        for entry in row.record.states.get("differences", ()):
            score = catalogue.from_json(entry["about"])
            if score in METRICS:
                named = entry | {"system": system, "than": label_of[row.run.name, entry["than"]]}
                lines += score_tables.difference_rows([named], score.about.family)
        for entry in row.record.states.get("gap_changes", ()):
            score = catalogue.from_json(entry["about"])
            if score in METRICS:
                labels = (f"{score.name}, female - male", system, label_of[row.run.name, entry["than"]])
                changes.append(Row(labels, (measured(entry, score, is_difference=True), *plain("", "", ""))))
    order = [score.name for score in METRICS]
    return [*sorted(lines, key=lambda line: order.index(line.labels[0])), *changes]


def figure(theme: Theme, rows: Sequence[Entry]) -> Figure:
    """Mean UAR against that of the worst served fifth: small a head, large their mean with 95 % intervals."""
    # What adapts a head to a speaker after training is in the table; drawn, it would hide the heads.
    rows = [row for row in rows if "adaptation" not in row.record.axes] or rows
    systems = tuple(row.system for row in rows)
    origin = f"{rows[0].block.protocol.get('corpus', '?')}, {rows[0].block.split} split"
    look = Look(theme, origin, systems)
    subtitle = "small: heads · large: their mean, bars: 95 % interval over speakers"
    drawing, axes = canvas(look, "Does it serve the worst served?", subtitle, (9.0, 6.4 + 0.25 * len(rows)), (1, 1))
    ax, shapes = axes[0, 0], "osD^vP*X"
    for number, row in enumerate(rows):
        here, there = (row.block.entry(row.system, score) for score in (UAR, WORST))
        color, shape = look.color(row.system), shapes[number // len(theme.systems) % len(shapes)]
        heads = (np.array(entry["members"], float) for entry in (here, there))
        ax.plot(*heads, shape, color=color, ms=4, alpha=0.45, ls="none")
        # Of a single speaker there is no interval, and no bar.
        bounds = (np.array([[entry["low"]], [entry["high"]]], float) for entry in (here, there))
        xerr, yerr = (
            np.abs(np.nan_to_num(bound, nan=entry["value"]) - entry["value"])
            for bound, entry in zip(bounds, (here, there), strict=True)
        )
        ax.errorbar(here["value"], there["value"], yerr, xerr, fmt="none", color=color, lw=1, alpha=0.7)
        ax.plot(here["value"], there["value"], shape, color=color, ms=10, ls="none", label=label(row))
    ax.set(xlabel=UAR.name, ylabel=WORST.name)
    legend_below(drawing, ax.get_legend_handles_labels()[0], 3)
    return drawing

"""The human row: raters judged like a model, as reference rows of tables of systems, as a table, and as a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports.blocks import Block, value_of
from seremo_jax.reports.table import Cell, Row, Table, measured, plain

ONE, HALF = "one human rater", "half of the human raters"
"""Labels of the reference rows."""

READING = (
    "One human rater: a vote drawn from each utterance, judged like a model against the consensus of the other raters, "
    "ties left out."
)
"""Sentence for captions of tables that have the row."""


def recorded(block: Block, group: str = "all") -> Sequence[Mapping[str, Any]]:
    """What records say of raters: one, half of them, panels; empty where they say nothing."""
    return _states(block, group).get("rows", ())


def absent(block: Block) -> str:
    """Why there is no row of raters, a sentence; empty where there is one, and in records of earlier versions."""
    reason = _states(block, "all").get("absent", "")
    return f"No row of human raters: {reason}." if reason else ""


def _states(block: Block, group: str) -> Mapping[str, Any]:
    for system in block.systems:
        record = block.by_key.get((system, group))
        if record and "raters" in record.states:
            return record.states["raters"]
    return {}


def entry(block: Block, metric: Metric, group: str = "all", others: str = "all") -> Mapping[str, Any] | None:
    """Entry of one rater against all others, or of `half` of them against the other half; None where there is none."""
    return _entries(recorded(block, group), others).get(metric)


def _entries(rows_: Sequence[Mapping[str, Any]], others: str) -> Mapping[Metric, Mapping[str, Any]]:
    """Metric -> entry of the first row judged against these others; empty where there is none."""
    for row in rows_:
        if row["others"] == others:
            return catalogue.entries_by_metric(row["metrics"])
    return {}


def rows(block: Block, metrics: Sequence[Metric], num_labels: int = 1, group: str = "all") -> list[Row]:
    """Reference rows of a table of these metrics: those of one rater and of half of them that have any number."""
    lines = []
    for label, others in ((ONE, "all"), (HALF, "half")):
        cells = cells_of(block, metrics, group, others)
        if any(cell.numbers for cell in cells):
            lines.append(Row((label, *[""] * (num_labels - 1)), cells, is_reference=True))
    return lines


def row_of(states: Mapping[str, Any], metrics: Sequence[Metric], before: int, behind: int, labels: int) -> list[Row]:
    """One rater as the reference row of a table that is of no block; none where nothing is known of raters.

    Args:
      states: Of a record over all speakers.
      metrics: Columns that have scores.
      before: Empty columns before them.
      behind: Empty columns behind them.
      labels: Labels of a row.
    """
    entries = _entries(states.get("raters", {}).get("rows", ()), "all")
    if not entries:
        return []
    cells = (*plain(*[""] * before), *(measured(entries.get(metric), metric) for metric in metrics))
    names = (ONE, *[""] * (labels - 1)) if labels else ()
    return [Row(names, (*cells, *plain(*[""] * behind)), is_reference=True)]


def cells_of(block: Block, metrics: Sequence[Metric], group: str = "all", others: str = "all") -> tuple[Cell, ...]:
    """Numbers of raters, in the order of the metrics."""
    is_gap = group != "all" and block.is_gap(group)
    return tuple(measured(entry(block, metric, group, others), metric, is_gap) for metric in metrics)


def panel_table(block: Block, caption: str) -> Table:
    """What panels of raters score against a few others, and how many raters each system is worth."""
    lines, rows_ = [], recorded(block)
    metrics = [catalogue.metric("uar"), catalogue.metric("macro_f1", classes=_f1_classes(block))]
    metrics += [catalogue.metric("class_ccc_mean")]
    metrics += [metric for metric in block.metrics if _is_share(metric)]
    for row in rows_:
        entries = catalogue.entries_by_metric(row["metrics"])
        lines.append(Row(_words(row), tuple(measured(entries.get(metric), metric) for metric in metrics)))
    columns = [metric.name + (f" ({metric.about.unit})" if metric.about.unit else "") for metric in metrics]
    text = (
        "Expected scores, ties of the target left out, those of a panel drawn. Class CCC: the share of the votes of "
        "these raters against that of the others. A system's worth in raters is in the table of scores."
    )
    return Table("What human raters score", ("raters", "judged against"), tuple(columns), tuple(lines),
                 f"{caption} {text}")  # fmt: skip


def _is_share(metric: Metric) -> bool:
    return metric.kind == "pa_uar" and metric.n == 1 and metric.field("speakers") == "all"


def _f1_classes(block: Block) -> str:
    return next((metric.field("classes") for metric in block.metrics if metric.kind == "macro_f1"), "present")


def _words(row: Mapping[str, Any]) -> tuple[str, str]:
    number = row["raters"]
    who = "half of them" if number == "half" else "1" if number == 1 else f"{number} together"
    against = {"all": "all others", "half": "the other half"}.get(row["others"], f"{row['others']} others")
    return who, against


def shares(block: Block) -> dict[tuple[int, str, int], float]:
    """For figures: (T, speaker filter, 1) -> share of speakers, in %, above T by one rater."""
    metrics = [metric for metric in block.metrics if metric.kind == "pa_uar" and metric.n == 1]
    values = {metric: value_of(entry(block, metric)) for metric in metrics}
    return {(metric.field("threshold"), metric.field("speakers"), 1): value
            for metric, value in values.items() if value is not None}  # fmt: skip


def curve(block: Block) -> tuple[Sequence[int], Sequence[float]] | None:
    """T of the curve and share of speakers, in %, above each by one rater; None where there are no raters."""
    found_curve = _states(block, "all").get("curve")
    return (found_curve["thresholds"], found_curve["value"]) if found_curve else None

"""Tables of scores that see each speaker, and of utterances by the agreement of their raters and by duration."""

from collections.abc import Callable, Sequence

import numpy as np

from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.score_tables import HIGH_THRESHOLD, SPEAKER_SHARE, caption
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, names, plain

TRUE_SHARE = catalogue.metric("pa_uar_true", threshold=HIGH_THRESHOLD)
"""The share of speakers whose true UAR is above the high threshold."""

FEW_UTTERANCES = 100
"""Scored utterances of the median speaker below which the share of speakers by true UAR is named first."""


def main_share(block: Block) -> Metric:
    """The share of speakers to name first: by true UAR where speakers are small and the records have it."""
    if TRUE_SHARE in block.metrics and (number := _median_size(block)) is not None and number < FEW_UTTERANCES:
        return TRUE_SHARE
    return SPEAKER_SHARE


def _median_size(block: Block) -> float | None:
    """Scored utterances of the median speaker; None without speakers."""
    sizes = [speaker["num_scored"] for speaker in block.whole(block.systems[0]).speakers]
    return float(np.median(sizes)) if sizes else None


def served_table(block: Block) -> Table:
    """The true share of speakers, the worst served, inequality, quantiles, and raters served, of every system."""
    metrics = _of(block, lambda metric: metric.about.table == "served" and metric.kind != "pa_uar_matched")
    text = (
        "True UAR: without the noise of a speaker's few utterances. Worst 20 %: mean of these speakers; picked on one "
        "half of each speaker's utterances and scored on the other, they show less bad luck. If all were equal: what "
        "speakers show who are all alike, with as many utterances; what a system shows beyond that is a difference of "
        "speakers. Quantile: the UAR that so many of the speakers do not exceed."
    )
    heads = [metric.name + (f" ({metric.about.unit})" if metric.about.unit else "") for metric in metrics]
    rows = [Row((system,), _cells(block, system, metrics)) for system in block.systems if metrics]
    return Table("How speakers are served", ("system",), tuple(heads), tuple(rows), f"{caption(block)} {text}")


def size_curve_table(block: Block) -> Table:
    """PaUAR by utterances a speaker: as many of each one's drawn, as observed, and without noise."""
    matched = _of(block, lambda metric: metric.kind == "pa_uar_matched")
    sizes = sorted({metric.field("size") for metric in matched})
    rows = []
    for threshold in sorted({metric.field("threshold") for metric in matched}, reverse=True):
        drawn = [catalogue.metric("pa_uar_matched", threshold=threshold, size=size) for size in sizes]
        metrics = [*drawn, catalogue.metric("pa_uar", threshold=threshold, speakers="all"),
                   catalogue.metric("pa_uar_true", threshold=threshold)]  # fmt: skip
        for system in block.systems:
            rows.append(Row((f"above {threshold / 100:.2f}", system), _cells(block, system, metrics)))
        counts = (_count(block, metric) for metric in metrics)
        rows.append(Row((f"above {threshold / 100:.2f}", "speakers"), plain(*counts), is_reference=True))
    size = _median_size(block)
    observed = "all (observed)" if size is None else f"all, median {size:.0f} (observed)"
    columns = (*(f"{size} utterances" for size in sizes), observed, "without noise (true UAR)")
    text = (
        "Share of speakers (%) whose own 1-best UAR is above the threshold, on so many of each speaker's utterances, "
        "drawn without replacement; speakers with fewer are left out. Fewer utterances scatter a UAR, so more speakers "
        "pass a high threshold by luck: compare corpora at one size, or by the last column."
    )
    return Table("Speakers above a threshold, by utterances a speaker", ("UAR of the speaker", "system"), columns,
                 tuple(rows), f"{caption(block)} {text}")  # fmt: skip


def _count(block: Block, metric: Metric) -> str:
    counts = {(block.entry(system, metric) or {}).get("count") for system in block.systems} - {None}
    return " / ".join(sorted(map(str, counts))) or NOTHING


def strata_table(block: Block) -> Table:
    """UAR by how far raters agree and by duration."""
    metrics = _of(block, lambda metric: metric.about.table == "strata")
    rows = [Row((system,), _cells(block, system, metrics)) for system in block.systems if metrics]
    if metrics:
        rows.append(Row(("utterances",), plain(*(_count(block, metric) for metric in metrics)), is_reference=True))
    text = "Scored utterances, by the entropy of their votes and by their duration; UAR over the classes there."
    return Table("UAR by agreement of raters and by duration", ("system",), names(metrics), tuple(rows),
                 f"{caption(block)} {text}")  # fmt: skip


def _of(block: Block, is_wanted: Callable[[Metric], bool]) -> list[Metric]:
    return [metric for metric in block.metrics if is_wanted(metric)]


def _cells(block: Block, system: str, metrics: Sequence[Metric]) -> tuple[Cell, ...]:
    return tuple(measured(block.entry(system, metric), metric) for metric in metrics)

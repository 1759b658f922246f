"""Tables of scores that see each speaker, and of utterances by the agreement of their raters and by duration."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.score_tables import HIGH_THRESHOLD, SPEAKER_SHARE, caption
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, plain

TRUE_SHARE = catalogue.metric("pa_uar_true", threshold=HIGH_THRESHOLD)
"""The share of speakers whose true UAR is above the high threshold."""

FEW_UTTERANCES = 100
"""Scored utterances of the median speaker below which the share of speakers by true UAR is named first."""


ENOUGH_SPEAKERS = 12
"""Speakers from which on the intervals of that share were simulated (METHOD.md, section 8.13)."""


def main_share(block: Block) -> Metric:
    """The share of speakers to name first: by true UAR where speakers are small, enough, and the records have it."""
    sizes = _sizes(block)
    is_sure = len(sizes) >= ENOUGH_SPEAKERS and np.median(sizes) < FEW_UTTERANCES
    return TRUE_SHARE if is_sure and TRUE_SHARE in block.metrics else SPEAKER_SHARE


def _sizes(block: Block) -> list[int]:
    """Scored utterances of each speaker."""
    return [speaker["num_scored"] for speaker in block.whole(block.systems[0]).speakers]


def size_curve_table(block: Block) -> Table:
    """PaUAR by utterances a speaker: as many of each one's drawn, as observed, and without noise."""
    true = _of(block, lambda metric: metric.kind == "pa_uar_true")
    sizes = sorted({metric.field("size") for metric in block.metrics if metric.kind == "pa_uar_matched"})
    rows = []
    for threshold in (metric.field("threshold") for metric in true):
        drawn = [catalogue.metric("pa_uar_matched", threshold=threshold, size=size) for size in sizes]
        metrics = [*drawn, catalogue.metric("pa_uar", threshold=threshold, speakers="all"),
                   catalogue.metric("pa_uar_true", threshold=threshold)]  # fmt: skip
        for system in block.systems:
            rows.append(Row((f"above {threshold / 100:.2f}", system), _cells(block, system, metrics)))
        counts = (_count(block, metric) for metric in metrics)
        rows.append(Row((f"above {threshold / 100:.2f}", "speakers"), plain(*counts), is_reference=True))
    observed = f"all, median {np.median(own):.0f} (observed)" if (own := _sizes(block)) else "all (observed)"
    columns = (*(f"{size} utterances" for size in sizes), observed, "very many (true UAR)")
    text = (
        "Share of speakers (%) whose own 1-best UAR is above the threshold, on so many of each speaker's utterances, "
        "drawn at random; speakers with fewer are left out. Fewer utterances scatter a UAR more, so more speakers pass "
        "a high threshold by luck: compare corpora at one size, or by the last column. It takes that luck out, and "
        "assumes that the true UAR of speakers is Beta distributed; of fewer than "
        f"{ENOUGH_SPEAKERS} speakers its intervals may be far too narrow."
    )
    return Table("Speakers above a threshold, by utterances a speaker", ("UAR of the speaker", "system"), columns,
                 tuple(rows), f"{caption(block)} {text}")  # fmt: skip


def served_table(block: Block) -> Table:
    """Raters served, and quantiles of speakers, of every system."""
    text = (
        "Raters served: share of the votes that are for one of the 1, 2 or 3 classes that a system thinks likeliest. "
        "Quantile: the UAR that so many percent of the speakers do not exceed."
    )
    return _table(block, "How raters and speakers are served", ("raters_served", "speaker_quantile"), text)


def worst_table(block: Block) -> Table:
    """The worst served and inequality, each beside what luck alone would show, of every system."""
    text = (
        "Worst 20 %: mean UAR of the fifth of the speakers whom a system serves worst. Some are among them by bad luck "
        "alone. Picked on one half of each speaker's utterances and scored on the other half, they have no more bad "
        "luck than others. If all were equal: what luck alone would show, speakers who are all alike, with as many "
        "utterances; what a system shows beyond that is a difference of speakers. Gini: 0 where the UAR of all is the "
        "same."
    )
    kinds = ("worst_speakers", "worst_speakers_if_equal", "worst_speakers_by_halves", "gini", "gini_if_equal")
    return _table(block, "The worst served, and what luck alone would show", kinds, text)


def _table(block: Block, title: str, kinds: Sequence[str], text: str) -> Table:
    """Of every system, the metrics of some kinds in this order."""
    metrics = sorted(_of(block, lambda metric: metric.kind in kinds), key=lambda metric: kinds.index(metric.kind))
    heads = [metric.name + (f" ({metric.about.unit})" if metric.about.unit else "") for metric in metrics]
    rows = [Row((system,), _cells(block, system, metrics)) for system in block.systems if metrics]
    return Table(title, ("system",), tuple(heads), tuple(rows), f"{caption(block)} {text}")


def _count(block: Block, metric: Metric) -> str:
    counts = {(block.entry(system, metric) or {}).get("count") for system in block.systems} - {None}
    return " / ".join(sorted(map(str, counts))) or NOTHING


def strata_table(block: Block) -> Table:
    """UAR by how far raters agree and by duration."""
    text = (
        "Scored utterances by the entropy of their votes (0 where all raters agree, 1 bit where they are split in two "
        "halves) and by their duration; UAR over the classes that occur there."
    )
    table = _table(block, "UAR by agreement of raters and by duration", ("stratum_uar",), text)
    metrics = _of(block, lambda metric: metric.kind == "stratum_uar")
    counts = Row(("utterances",), plain(*(_count(block, metric) for metric in metrics)), is_reference=True)
    return dataclasses.replace(table, rows=(*table.rows, counts)) if table.rows else table


def _of(block: Block, is_wanted: Callable[[Metric], bool]) -> list[Metric]:
    return [metric for metric in block.metrics if is_wanted(metric)]


def _cells(block: Block, system: str, metrics: Sequence[Metric]) -> tuple[Cell, ...]:
    return tuple(measured(block.entry(system, metric), metric) for metric in metrics)

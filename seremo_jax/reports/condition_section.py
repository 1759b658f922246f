"""The report's section on unseen acoustic conditions: every one in a table, ranges, curves, unchanged decisions."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seremo_jax.core.condition_names import Condition
from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports import page, rater_rows, score_tables
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.condition_scores import Conditions, Point, Range, gather
from seremo_jax.reports.figures import MARKERS
from seremo_jax.reports.look import Look, canvas, legend_below, panel_title
from seremo_jax.reports.score_tables import SPEAKER_SHARE, UAR
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, names, plain

STABLE_SHARE, DROP, DROP_LABEL = (
    catalogue.metric("stable_share"),
    catalogue.metric("uar_drop"),
    f"drop of {UAR.name} (%)",
)
MOST_SYSTEMS = 4
"""Systems a figure shows; all are in the tables."""

Draw = Callable[[str, tuple[str, str], Callable[[Look], Figure]], page.Picture]
"""(File name, what a figure shows and how to read it, its drawing) -> the picture."""


def sections_of(blocks: Sequence[Block], draw: Draw) -> list[page.Section]:
    """One section a split that was heard in other conditions than clean; none where there are none.

    Args:
      blocks: All blocks of the report.
      draw: Draws a figure and names its file.

    Raises:
      ReportError: See `condition_scores.gather`.
    """
    splits = gather(blocks)
    return [_section(conditions, draw, f"_{conditions.split}" if len(splits) > 1 else "") for conditions in splits]


def _section(conditions: Conditions, draw: Draw, suffix: str) -> page.Section:
    tables = (condition_table(conditions), noise_table(conditions), set_table(conditions))
    trained = "in which nothing was trained: heads, layer and feature statistics are those of clean speech"
    if conditions.clean.protocol.get("copies"):
        trained = (
            "of recordings that nothing was trained on, beside heads that heard copies of the training utterances in "
            "other noises and rooms; layer and feature statistics are those of clean speech"
        )
    text = (
        f"{len(conditions.heard)} conditions {trained}. Every system hears the same rendering of an utterance, and an "
        "utterance keeps its noise at all SNRs, so that rows are paired."
    )
    key = f"conditions{suffix.replace('_', '-')}"
    title = f"Unseen acoustic conditions{f': {conditions.split}' if suffix else ''}"
    items = (*(table for table in tables if table is not None), *_pictures(conditions, draw, suffix))
    terms = (*GLOSSARY, *catalogue.glossary({STABLE_SHARE.about.table}))
    return page.Section(key, title, (text,), tuple(_signs(conditions)), items, terms)


def _pictures(conditions: Conditions, draw: Draw, suffix: str) -> Iterator[page.Picture]:
    shown = conditions.systems[:MOST_SYSTEMS]
    left = (
        f" The first {len(shown)} of {len(conditions.systems)} systems." if len(shown) < len(conditions.systems) else ""
    )
    clean = {system: conditions.point(Condition(), system, UAR) for system in shown}
    chance = conditions.clean.chance(UAR)
    panels = (
        ("snr", "Does it hold in noise?", "SNR (dB)", "noise", {s: conditions.snr_curves(s, UAR) for s in shown}),
        ("rt60", "Does it hold in a room?", "reverberation time RT60 (s)", "room",
         {s: conditions.rt60_curves(s, UAR) for s in shown}),
    )  # fmt: skip
    for name, title, axis, what, lines in panels:
        if any(lines.values()) and all(clean.values()):
            bounds = {system: tuple(point[1:]) for system, point in clean.items()}
            yield draw(
                f"conditions_{name}{suffix}", (f"{UAR.name} by {what}", f"Lines: kinds of {what}.{left}"),
                lambda style, title=title, axis=axis, lines=lines, bounds=bounds, is_falling=name == "snr": curves(
                    style, title, (axis, UAR.name), lines, bounds, chance, is_falling
                ),
            )  # fmt: skip
    shares = {s: [conditions.point(condition, s, STABLE_SHARE) for condition in conditions.heard] for s in shown}
    if any(point for points in shares.values() for point in points):
        names = [condition.id for condition in conditions.heard]
        yield draw(
            f"conditions_stable{suffix}", ("Share of unchanged decisions in every condition", f"Against clean.{left}"),
            lambda style: stable_shares(style, names, shares),
        )  # fmt: skip


def condition_table(conditions: Conditions) -> Table:
    """Every condition and system: scores, relative drop of UAR, share of unchanged decisions."""
    metrics = _scores(conditions)
    rows = []
    for condition in (Condition(), *conditions.heard):
        for system in conditions.systems:
            cells = _cells(conditions, condition, system, [*metrics, DROP, STABLE_SHARE])
            rows.append(Row((condition.id, system), cells, is_reference=not condition.effects))
        # Raters heard the recordings as they are.
        for row in rater_rows.rows(conditions.clean, metrics) if not condition.effects else ():
            rows.append(Row((condition.id, *row.labels), (*row.cells, *plain("", "")), is_reference=True))
    columns = (*names(metrics), DROP_LABEL, STABLE_SHARE.name)
    text = f"{score_tables.caption(conditions.clean)} paUAR in %. Drop: 100 (clean - here) / clean."
    return Table("Scores in every condition", ("condition", "system"), columns, tuple(rows), text)


def _scores(conditions: Conditions) -> list[Metric]:
    """The scores of a condition: the 1-best ones, and of shares of speakers the main one."""
    wanted = [metric for metric in conditions.clean.metrics if "conditions" in metric.about.also_in and metric.n == 1]
    return [metric for metric in wanted if metric.kind != SPEAKER_SHARE.kind or metric == SPEAKER_SHARE]


def _cells(conditions: Conditions, condition: Condition, system: str, metrics: Sequence[Metric]) -> tuple[Cell, ...]:
    return tuple(measured(conditions.entry(condition, system, metric), metric) for metric in metrics)


def _is_of_sets(metric: Metric) -> bool:
    """Whether a metric tells what calibration and conformal sets, made for clean speech, are worth elsewhere."""
    return "sets" in metric.about.also_in and metric.field("outcome") in (None, "votes")


def set_table(conditions: Conditions) -> Table | None:
    """What calibration and conformal sets, made for clean speech, are worth in every condition; None without them."""
    metrics = [metric for metric in conditions.clean.metrics if _is_of_sets(metric)]
    rows = []
    for condition in (Condition(), *conditions.heard) if metrics else ():
        for system in conditions.systems:
            cells = _cells(conditions, condition, system, metrics)
            rows.append(Row((condition.id, system), cells, is_reference=not condition.effects))
    if not rows:
        return None
    caption = score_tables.caption(conditions.clean)
    text = "Fitted on the clean development split: nothing promises the share here."
    return Table("Conformal sets in every condition", ("condition", "system"), names(metrics), tuple(rows),
                 f"{caption} {text}")  # fmt: skip


def noise_table(conditions: Conditions) -> Table | None:
    """Mean and range over the kinds of noise at each SNR, without a room and in each; None without noise."""
    metrics = [
        metric
        for metric in (*_scores(conditions), STABLE_SHARE)
        if any(conditions.over_noises(s, metric) for s in conditions.systems)
    ]
    ranges = {(s, metric): conditions.over_noises(s, metric) for s in conditions.systems for metric in metrics}
    places = list(dict.fromkeys(place for by_place in ranges.values() for place in by_place))
    rows = []
    for room, snr_db in places:
        for system in conditions.systems:
            here = [ranges[system, metric].get((room, snr_db)) for metric in metrics]
            nums = sorted({over.num for over in here if over})
            texts = (_range(metric, over) for metric, over in zip(metrics, here, strict=True))
            labels = (f"{snr_db:g} dB", room.words if room else "none", system)
            rows.append(Row(labels, plain(" / ".join(map(str, nums)), *texts)))
    if not rows:
        return None
    text = "Mean (lowest to highest) over kinds of noise; the kinds are apart in the table above and in the figure."
    columns = ("kinds", *names(metrics))
    return Table("Noise: mean and range over kinds", ("SNR", "room", "system"), columns, tuple(rows), text)


def _range(metric: Metric, over: Range | None) -> str:
    if over is None:
        return NOTHING
    digits = metric.about.digits
    return f"{over.mean:.{digits}f} ({over.lowest:.{digits}f} to {over.highest:.{digits}f})"


def _signs(conditions: Conditions) -> list[str]:
    """The worst condition of each system, and conditions no better than guessing."""
    signs, chance = [], conditions.clean.chance(UAR)
    for system in conditions.systems:
        drops = {c: d for c in conditions.heard if (d := conditions.value(c, system, DROP)) is not None}
        if drops:
            worst = max(drops, key=drops.__getitem__)
            signs.append(f"{system}: {UAR.name} drops most in {worst.id}, by {drops[worst]:.0f} % of clean.")
        lost = [c.id for c in conditions.heard if chance is not None and (point := conditions.point(c, system, UAR))
                and point.low <= chance]  # fmt: skip
        if lost:
            signs.append(f"{system}: no better than chance (interval reaches it) in {', '.join(lost)}.")
    return signs


GLOSSARY = (
    ("noise:KIND:10db", "noise at this ratio of active speech level to noise level; steady and events are recordings"),
    ("babble", "six other utterances of other speakers of the split at once"),
    ("reverb:ROOM:0.6s", "a synthetic room of this reverberation time, or a measured one within 25 % of it"),
    ("A+B", "A first, then B: the SNR is that of the reverberant speech"),
)
"""Words of this section that are no metrics."""


def curves(
    look: Look,
    title: str,
    axis: tuple[str, str],
    lines: Mapping[str, Mapping[str, Sequence[Point]]],
    clean: Mapping[str, tuple[float, float, float]],
    chance: float | None,
    is_falling: bool,
) -> Figure:
    """A score over the SNR or the RT60: one panel a system, one line a kind, the clean score as a band.

    Args:
      look: Theme and words.
      title: Title.
      axis: Words of the horizontal axis and of the vertical one.
      lines: System -> kind of noise or room -> points.
      clean: System -> value, low, high of the clean condition.
      chance: Score of a random guesser, None where not known.
      is_falling: Whether the horizontal axis falls to the right, as an SNR does.
    """
    theme = look.theme
    columns = min(len(lines), 2)
    rows = -(-len(lines) // columns)
    figure, axes = canvas(
        look, title, "bars: 95 % interval over speakers · band: clean", (5.2 * columns + 0.4, 3.9 * rows + 1.1),
        (rows, columns), sharex=True, sharey=True,
    )  # fmt: skip
    kinds = list(dict.fromkeys(kind for by_kind in lines.values() for kind in by_kind))
    places = sorted({point.at for by_kind in lines.values() for points in by_kind.values() for point in points})
    step = min(np.diff(places), default=1.0) * 0.3 / max(len(kinds), 1)
    for ax in axes.flat[len(lines) :]:
        ax.set_visible(False)
    for ax, (system, by_kind) in zip(axes.flat, lines.items(), strict=False):
        value, low, high = clean[system]
        ax.axhspan(low, high, color=theme.muted, alpha=0.16, lw=0)
        ax.axhline(value, color=theme.muted, lw=1.6)
        if chance is not None:
            ax.axhline(chance, color=theme.muted, lw=1.2, ls=(0, (2, 3)))
        for kind, points in by_kind.items():
            lane = kinds.index(kind)
            color = theme.targets[lane % len(theme.targets)]
            x = np.array([point.at for point in points]) + (lane - (len(kinds) - 1) / 2) * step
            y = np.array([point.value for point in points])
            ax.vlines(x, [point.low for point in points], [point.high for point in points], color=color, lw=1.4,
                      alpha=0.55)  # fmt: skip
            ax.plot(x, y, color=color, lw=2, marker=MARKERS[lane % len(MARKERS)], ms=6, mec=theme.paper, mew=0.6)
        panel_title(ax, system, look.color(system))
        ax.set_xticks(places, [f"{place:g}" for place in places])
        ax.grid(axis="x", visible=False)
    if is_falling:
        axes[0, 0].invert_xaxis()
    for ax in axes[-1]:
        ax.set_xlabel(axis[0])
    for ax in axes[:, 0]:
        ax.set_ylabel(axis[1])
    handles = [
        Line2D([], [], color=theme.targets[i % len(theme.targets)], marker=MARKERS[i % len(MARKERS)], ms=6, lw=2,
               label=kind) for i, kind in enumerate(kinds)
    ]  # fmt: skip
    handles.append(Line2D([], [], color=theme.muted, lw=1.6, label="clean"))
    if chance is not None:
        handles.append(Line2D([], [], color=theme.muted, lw=1.2, ls=(0, (2, 3)), label="chance"))
    legend_below(figure, handles, 5)
    return figure


def stable_shares(look: Look, names: Sequence[str], shares: Mapping[str, Sequence[Point | None]]) -> Figure:
    """Share of unchanged decisions in every condition, one lane a condition, one marker a system.

    Args:
      look: Theme and words.
      names: The conditions.
      shares: System -> share of each condition in [0, 1], None where not known.
    """
    theme = look.theme
    figure, axes = canvas(
        look, "How many decisions stay?", "share of utterances with the same 1-best class as in clean · bars: 95 %",
        (8.6, 0.32 * len(names) + 1.9), (1, 1),
    )  # fmt: skip
    ax = axes[0, 0]
    step = 0.7 / max(len(shares), 1)
    for lane, (system, points) in enumerate(shares.items()):
        color = look.color(system)
        for place, point in enumerate(points):
            if point is not None:
                y = place + (lane - (len(shares) - 1) / 2) * step
                ax.plot([point.low, point.high], [y, y], color=color, lw=1.6, alpha=0.6)
                ax.plot([point.value], [y], "o", ms=6, color=color, mec=theme.paper, mew=0.6)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.6), xlabel="stable share")
    ax.grid(axis="y", visible=False)
    handles = [Line2D([], [], color=look.color(system), marker="o", ms=6, lw=2, label=system) for system in shares]
    legend_below(figure, handles, 3)
    return figure

"""The report's section on unseen acoustic conditions: every one in a table, ranges, curves, unchanged decisions."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seremo_jax.core.condition_names import Condition
from seremo_jax.reports import page, score_tables
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.condition_scores import Conditions, Point, gather
from seremo_jax.reports.figures import MARKERS
from seremo_jax.reports.look import Look, canvas, legend_below, panel_title

STABLE_SHARE = "stable share"
DRAWN_SCORE, SCORES = "UAR", ("UAR", "class CCC mean", "CCC mean", "paUAR-75 (1-best, all)")
SURE = re.compile(r"^(?:ECE \(votes, calibrated\)|(?:votes in set|set size) \([\d.]+ %\))$")
"""Metrics of calibration and conformal sets that this section shows."""
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
    return [_section(found, draw, f"_{found.split}" if len(splits) > 1 else "") for found in splits]


def _section(found: Conditions, draw: Draw, suffix: str) -> page.Section:
    items: list[page.Table | page.Picture] = [condition_table(found)]
    if noises := noise_table(found):
        items.append(noises)
    if sets := set_table(found):
        items.append(sets)
    shown = found.systems[:MOST_SYSTEMS]
    left = f" The first {len(shown)} of {len(found.systems)} systems." if len(shown) < len(found.systems) else ""
    clean = {system: _bounds(found, Condition(), system, DRAWN_SCORE) for system in shown}
    chance = found.clean.chance(DRAWN_SCORE)
    panels = (
        ("snr", "Does it hold in noise?", "SNR (dB)", "noise",
         {system: found.snr_curves(system, DRAWN_SCORE) for system in shown}),
        ("rt60", "Does it hold in a room?", "reverberation time RT60 (s)", "room",
         {system: found.rt60_curves(system, DRAWN_SCORE) for system in shown}),
    )  # fmt: skip
    for name, title, axis, what, curves in panels:
        if any(curves.values()) and all(clean.values()):
            bounds = {system: tuple(point[1:]) for system, point in clean.items()}
            items.append(draw(
                f"conditions_{name}{suffix}", (f"{DRAWN_SCORE} by {what}", f"Lines: kinds of {what}.{left}"),
                lambda style, title=title, axis=axis, curves=curves, bounds=bounds: curves(
                    style, title, (axis, DRAWN_SCORE), curves, bounds, chance
                ),
            ))  # fmt: skip
    shares = {s: [_bounds(found, condition, s, STABLE_SHARE) for condition in found.heard] for s in shown}
    if any(point for points in shares.values() for point in points):
        names = [condition.id for condition in found.heard]
        items.append(draw(
            f"conditions_stable{suffix}", ("Share of unchanged decisions in every condition", f"Against clean.{left}"),
            lambda style: stable_shares(style, names, shares),
        ))  # fmt: skip
    text = (
        f"{len(found.heard)} conditions in which nothing was trained: heads, layer and feature statistics are those of "
        "clean speech. Every system hears the same rendering of an utterance, and an utterance keeps its noise at all "
        "SNRs, so that rows are paired."
    )
    key = f"conditions{suffix.replace('_', '-')}"
    title = f"Unseen acoustic conditions{f': {found.split}' if suffix else ''}"
    return page.Section(key, title, (text,), tuple(_signs(found)), tuple(items), GLOSSARY)


def condition_table(found: Conditions) -> page.Table:
    """Every condition and system: scores, relative drop of the first, share of unchanged decisions."""
    names = [name for name in SCORES if name in found.clean.metric_names()]
    rows = []
    for condition in (Condition(), *found.heard):
        for system in found.systems:
            cells = [score_tables.cell(name, found.metric(condition, system, name)) for name in names]
            drop = found.relative_drop(condition, system, DRAWN_SCORE) if condition.effects else None
            cells.append(page.NOTHING if drop is None else f"{drop:.1f}")
            cells.append(score_tables.cell(STABLE_SHARE, found.metric(condition, system, STABLE_SHARE)))
            rows.append(page.Row((condition.id, system, *cells), is_reference=not condition.effects))
    header = ("condition", "system", *names, f"drop of {DRAWN_SCORE} (%)", STABLE_SHARE)
    text = f"{score_tables.caption(found.clean)} paUAR in %. Drop: 100 (clean - here) / clean."
    return page.Table("Scores in every condition", header, tuple(rows), text, num_labels=2)


def set_table(found: Conditions) -> page.Table | None:
    """What calibration and conformal sets, made for clean speech, are worth in every condition; None without them."""
    names = [name for name in found.clean.metric_names() if SURE.match(name)]
    rows = []
    for condition in (Condition(), *found.heard) if names else ():
        for system in found.systems:
            cells = (score_tables.cell(name, found.metric(condition, system, name)) for name in names)
            rows.append(page.Row((condition.id, system, *cells), is_reference=not condition.effects))
    if not rows:
        return None
    text = (
        f"{score_tables.caption(found.clean)} Fitted on the clean development split: nothing promises the share here."
    )
    return page.Table("Conformal sets in every condition", ("condition", "system", *names), tuple(rows), text, 2)


def noise_table(found: Conditions) -> page.Table | None:
    """Mean and range over the kinds of noise at each SNR, without a room and in each; None without noise."""
    names = [name for name in (*SCORES, STABLE_SHARE) if any(found.over_noises(s, name) for s in found.systems)]
    ranges = {(s, name): found.over_noises(s, name) for s in found.systems for name in names}
    places = list(dict.fromkeys(place for one in ranges.values() for place in one))
    rows = []
    for room, snr_db in places:
        for system in found.systems:
            here = [ranges[system, name].get((room, snr_db)) for name in names]
            nums = sorted({one.num for one in here if one})
            cells = (_range(name, one) for name, one in zip(names, here, strict=True))
            labels = (f"{snr_db:g} dB", room.removeprefix("reverb:") or "none", system)
            rows.append(page.Row((*labels, " / ".join(map(str, nums)), *cells)))
    if not rows:
        return None
    text = "Mean (lowest to highest) over kinds of noise; the kinds are apart in the table above and in the figure."
    header = ("SNR", "room", "system", "kinds", *names)
    return page.Table("Noise: mean and range over kinds", header, tuple(rows), text, num_labels=3)


def _range(name: str, one: object) -> str:
    if one is None:
        return page.NOTHING
    digits = 1 if name.startswith("paUAR") else 3
    return f"{one.mean:.{digits}f} ({one.lowest:.{digits}f} to {one.highest:.{digits}f})"


def _bounds(found: Conditions, condition: Condition, system: str, name: str) -> Point | None:
    value = found.value(condition, system, name)
    if value is None:
        return None
    low, high = (found.metric(condition, system, name).get(side) for side in ("low", "high"))
    return Point(0.0, value, value if low is None else low, value if high is None else high)


def _signs(found: Conditions) -> list[str]:
    """The worst condition of each system, and conditions no better than guessing."""
    signs, chance = [], found.clean.chance(DRAWN_SCORE)
    for system in found.systems:
        drops = {c: d for c in found.heard if (d := found.relative_drop(c, system, DRAWN_SCORE)) is not None}
        if drops:
            worst = max(drops, key=drops.__getitem__)
            signs.append(f"{system}: {DRAWN_SCORE} drops most in {worst.id}, by {drops[worst]:.0f} % of clean.")
        lost = [c.id for c in found.heard if chance is not None and (p := _bounds(found, c, system, DRAWN_SCORE))
                and p.low <= chance]  # fmt: skip
        if lost:
            signs.append(f"{system}: no better than chance (interval reaches it) in {', '.join(lost)}.")
    return signs


GLOSSARY = (
    ("noise:KIND:10db", "noise at this ratio of active speech level to noise level; steady and events are recordings"),
    ("babble", "six other utterances of other speakers of the split at once"),
    ("reverb:ROOM:0.6s", "a synthetic room of this reverberation time, or a measured one within 25 % of it"),
    ("A+B", "A first, then B: the SNR is that of the reverberant speech"),
    ("stable share", "share of utterances whose 1-best class is that of the clean rendering"),
)
"""Words of this section."""


def curves(
    look: Look,
    title: str,
    axis: tuple[str, str],
    found: Mapping[str, Mapping[str, Sequence[Point]]],
    clean: Mapping[str, tuple[float, float, float]],
    chance: float | None,
) -> Figure:
    """A score over the SNR or the RT60: one panel a system, one line a kind, the clean score as a band.

    Args:
      look: Theme and words.
      title: Title.
      axis: Words of the horizontal axis and of the vertical one. An SNR in dB falls to the right.
      found: System -> kind of noise or room -> points.
      clean: System -> value, low, high of the clean condition.
      chance: Score of a random guesser, None where not known.
    """
    theme = look.theme
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    figure, axes = canvas(
        look, title, "bars: 95 % interval over speakers · band: clean", (5.2 * columns + 0.4, 3.9 * rows + 1.1),
        (rows, columns), sharex=True, sharey=True,
    )  # fmt: skip
    kinds = list(dict.fromkeys(kind for lines in found.values() for kind in lines))
    places = sorted({point.at for lines in found.values() for points in lines.values() for point in points})
    step = min(np.diff(places), default=1.0) * 0.3 / max(len(kinds), 1)
    for ax in axes.flat[len(found) :]:
        ax.set_visible(False)
    for ax, (system, lines) in zip(axes.flat, found.items(), strict=False):
        value, low, high = clean[system]
        ax.axhspan(low, high, color=theme.muted, alpha=0.16, lw=0)
        ax.axhline(value, color=theme.muted, lw=1.6)
        if chance is not None:
            ax.axhline(chance, color=theme.muted, lw=1.2, ls=(0, (2, 3)))
        for kind, points in lines.items():
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
    if axis[0].endswith("(dB)"):
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


def stable_shares(look: Look, names: Sequence[str], found: Mapping[str, Sequence[Point | None]]) -> Figure:
    """Share of unchanged decisions in every condition, one lane a condition, one marker a system.

    Args:
      look: Theme and words.
      names: The conditions.
      found: System -> share of each condition in [0, 1], None where not known.
    """
    theme = look.theme
    figure, axes = canvas(
        look, "How many decisions stay?", "share of utterances with the same 1-best class as in clean · bars: 95 %",
        (8.6, 0.32 * len(names) + 1.9), (1, 1),
    )  # fmt: skip
    ax = axes[0, 0]
    step = 0.7 / max(len(found), 1)
    for lane, (system, points) in enumerate(found.items()):
        color = look.color(system)
        for place, point in enumerate(points):
            if point is not None:
                y = place + (lane - (len(found) - 1) / 2) * step
                ax.plot([point.low, point.high], [y, y], color=color, lw=1.6, alpha=0.6)
                ax.plot([point.value], [y], "o", ms=6, color=color, mec=theme.paper, mew=0.6)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.6), xlabel="stable share")
    ax.grid(axis="y", visible=False)
    handles = [Line2D([], [], color=look.color(system), marker="o", ms=6, lw=2, label=system) for system in found]
    legend_below(figure, handles, 3)
    return figure

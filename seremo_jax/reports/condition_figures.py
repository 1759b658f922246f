"""Figures of scores by acoustic condition."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seremo_jax.reports.condition_scores import Point
from seremo_jax.reports.figures import MARKERS
from seremo_jax.reports.look import Look, canvas, legend_below, panel_title


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

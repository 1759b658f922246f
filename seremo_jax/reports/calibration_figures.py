"""Figures of calibration, conformal sets and abstention."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seremo_jax.reports.look import Look, canvas, legend_below, panel_title


def reliability(look: Look, found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Share of votes over predicted share, before and after the temperature; a panel a system.

    Args:
      look: Theme and words.
      found: System -> `states["calibration"]` of its record.
    """
    theme, columns = look.theme, min(len(found), 3)
    rows = -(-len(found) // columns)
    figure, axes = canvas(
        look, "Can a predicted share be believed?", "open: as predicted · filled: at the temperature",
        (4.3 * columns + 0.8, 4.1 * rows + 1.2), (rows, columns), sharex=True, sharey=True,
    )  # fmt: skip
    for ax in axes.flat[len(found) :]:
        ax.set_visible(False)
    for ax, (system, states) in zip(axes.flat, found.items(), strict=False):
        color = look.color(system)
        ax.plot([0, 1], [0, 1], color=theme.muted, lw=1.2, ls=(0, (4, 3)), zorder=1)
        for name, face, ink in (("plain", theme.paper, theme.muted), ("calibrated", color, color)):
            curve = {key: np.array(values, np.float64) for key, values in states["curves"][f"{name} votes"].items()}
            used = curve["num"] > 0
            x, y, num = (curve[key][used] for key in ("confidence", "value", "num"))
            ax.vlines(x, curve["low"][used], curve["high"][used], color=ink, lw=1.6, alpha=0.6)
            ax.plot(x, y, color=ink, lw=1.2, alpha=0.6)
            area = 18 + 160 * num / num.max()
            ax.scatter(x, y, s=area, facecolor=face, edgecolor=ink, linewidth=1.4, zorder=3)
        panel_title(ax, system, color)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for ax in axes[-1]:
        ax.set_xlabel("predicted share of the 1-best class")
    for ax in axes[:, 0]:
        ax.set_ylabel("share of votes for it")
    return figure


def risk_coverage(look: Look, found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Risk over the share of utterances answered, against votes and against the consensus.

    Args:
      look: Theme and words.
      found: System -> `states["calibration"]` of its record.
    """
    theme = look.theme
    figure, axes = canvas(
        look, "What if it answers only where it is sure?", "line and band: value and 95 % interval over speakers",
        (10.6, 4.8), (1, 2), sharey=True,
    )  # fmt: skip
    words = (
        ("votes", "share of votes for other classes"),
        ("consensus", "share of answers that are not the consensus"),
    )
    for ax, (outcome, title) in zip(axes[0], words, strict=True):
        for system, states in found.items():
            curve, color = states["curves"][f"risk {outcome}"], look.color(system)
            value, low, high = (np.array(curve[name], np.float64) for name in ("value", "low", "high"))
            ax.fill_between(states["coverages"], low, high, color=color, alpha=0.18, lw=0)
            ax.plot(states["coverages"], value, color=color, lw=2.4)
            ax.axhline(value[-1], color=color, lw=1.2, ls=(0, (2, 3)))
        ax.set(title=title, xlim=(0, 1.02), ylim=(0, None), xlabel="share of utterances answered, the surest first")
    axes[0, 0].set_ylabel("risk")
    handles = [Line2D([], [], color=look.color(system), lw=2.4, label=system) for system in found]
    handles.append(Line2D([], [], color=theme.muted, lw=1.2, ls=(0, (2, 3)), label="abstaining at random"))
    legend_below(figure, handles, 4)
    return figure


def set_sizes(
    look: Look,
    found: Mapping[str, Mapping[str, Any]],
    held: Mapping[str, Mapping[str, Mapping[str, Any]]],
    groups: Sequence[str],
    num_classes: int,
) -> Figure:
    """Share of votes in the conformal sets by group, and size of the sets by the raters' entropy.

    Args:
      look: Theme and words.
      found: System -> `states["calibration"]` of its record.
      held: System -> group -> entry of the share of votes in its sets.
      groups: Groups in order, `all` first.
      num_classes: C.
    """
    theme, (level, *_) = look.theme, (states["level"] for states in found.values())
    figure, axes = canvas(
        look, "Do the sets hold what they should, and grow where raters disagree?",
        "marker and bar: value and 95 % interval over speakers", (10.6, 5.0), (1, 2),
    )  # fmt: skip
    by_group, by_entropy = axes[0]
    by_group.axhline(level, color=theme.ink, lw=1.2, ls=(0, (4, 3)), zorder=1)
    for lane, (system, states) in enumerate(found.items()):
        color, shift = look.color(system), (lane - (len(found) - 1) / 2) * 0.7 / len(found)
        here = [(place, held[system][group]) for place, group in enumerate(groups) if group in held[system]]
        _bars(by_group, [place + shift for place, _ in here], [one for _, one in here], color)
        curve = states["curves"]["size by entropy"]
        bins = [(n, dict(zip(("value", "low", "high"), one, strict=True)))
                for n, one in enumerate(zip(curve["value"], curve["low"], curve["high"], strict=True))]  # fmt: skip
        bins = [(n, one) for n, one in bins if one["value"] is not None]
        places = [(n + 0.5 + shift) / len(curve["value"]) for n, _ in bins]
        _bars(by_entropy, places, [one for _, one in bins], color)
        by_entropy.plot(places, [one["value"] for _, one in bins], color=color, lw=1.6, alpha=0.7)
    by_group.set_xticks(range(len(groups)), groups)
    by_group.grid(axis="x", visible=False)
    by_group.set(title=f"by group, asked for {100 * level:g} %", ylabel="share of votes in the sets")
    edges = np.linspace(0, 1, len(curve["value"]) + 1)
    by_entropy.set_xticks(edges, [f"{edge:g}" for edge in edges])
    by_entropy.set(title="by disagreement", ylabel="mean number of classes in the set", ylim=(0, num_classes),
                   xlim=(0, 1), xlabel="entropy of the votes (1: all classes equally)")  # fmt: skip
    handles = [Line2D([], [], color=look.color(system), lw=2.4, marker="o", label=system) for system in found]
    legend_below(figure, handles, 3)
    return figure


def _bars(ax: Any, x: Sequence[float], entries: Sequence[Mapping[str, Any]], color: str) -> None:
    for place, one in zip(x, entries, strict=True):
        if one["low"] is not None:
            ax.vlines(place, one["low"], one["high"], color=color, lw=2, alpha=0.6)
    ax.plot(x, [one["value"] for one in entries], "o", color=color, ms=6, mec=ax.get_facecolor(), mew=0.6)

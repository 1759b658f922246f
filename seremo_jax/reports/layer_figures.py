"""Figures over the layers of a backbone. Every function takes a `Look` and plain arrays and returns a `Figure`."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seremo_jax.reports.figures import MARKERS
from seremo_jax.reports.look import Look, canvas


def _spread(positions: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Moves label positions apart until neighbours are at least `gap` apart, keeping their order and their middle."""
    order = np.argsort(positions, kind="stable")
    groups = [[float(positions[i]), 1] for i in order]
    merged: list[list[float]] = []
    for middle, count in groups:
        merged.append([middle, count])
        while len(merged) > 1 and merged[-1][0] - merged[-2][0] < gap * (merged[-1][1] + merged[-2][1]) / 2:
            (m2, n2), (m1, n1) = merged.pop(), merged.pop()
            merged.append([(m1 * n1 + m2 * n2) / (n1 + n2), n1 + n2])
    placed = np.concatenate([middle + gap * (np.arange(count) - (count - 1) / 2) for middle, count in merged])
    result = np.empty_like(positions)
    result[order] = placed
    return result


def saliency(
    look: Look,
    layers: Sequence[int],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, " K"]]],
    score: Float[np.ndarray, " K"],
    chosen: int,
    used_panel: str,
    num_utterances: int,
) -> Figure:
    """Saliency curves, one line a target, the chosen layer marked.

    Args:
      look: Theme and words.
      layers: Layer numbers.
      panels: Panel title -> target -> mean absolute correlation per layer, in [0, 1].
      score: The curve that decides, [K].
      chosen: Layer number picked.
      used_panel: Panel whose mean is `score`.
      num_utterances: Utterances behind the curves.
    """
    theme = look.theme
    subtitle = f"{num_utterances:,} training utterances · layer 0 enters the first block"
    figure, axes = canvas(
        look, "Which layer carries emotion?", subtitle, (5.2 * len(panels) + 1.4, 4.9), (1, len(panels)), sharey=True
    )
    top = 1.12 * max(max(np.nanmax(curve) for curve in curves.values()) for curves in panels.values())
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        lines = [
            (name, curve, theme.targets[i % len(theme.targets)], 1.8) for i, (name, curve) in enumerate(curves.items())
        ]
        if title == used_panel and len(curves) > 1:
            lines.append(("mean", score, theme.ink, 3.2))
        for i, (_, curve, color, width) in enumerate(lines):
            marker = MARKERS[i % len(MARKERS)] if width < 3 else None
            ax.plot(layers, curve, color=color, lw=width, marker=marker, ms=5, mec=theme.paper, mew=0.6)
        ends = np.array([curve[-1] for _, curve, _, _ in lines], np.float64)
        for (name, _, color, width), y, end in zip(lines, _spread(ends, top * 0.058), ends, strict=True):
            weight = "bold" if width > 3 else "normal"
            ax.annotate(
                name, (layers[-1], end), (1.045, y / top), textcoords="axes fraction", color=color, weight=weight,
                va="center", size=10.5, arrowprops={"arrowstyle": "-", "color": color, "lw": 0.7, "alpha": 0.6},
            )  # fmt: skip
        ax.axvline(chosen, color=theme.muted, lw=1.2, ls=(0, (4, 3)), zorder=1)
        if title == used_panel:
            ax.plot([chosen], [score[list(layers).index(chosen)]], "o", ms=12, mfc="none", mec=theme.ink, mew=2)
            is_right = chosen > (layers[0] + layers[-1]) / 2
            ax.annotate(
                f"chosen: layer {chosen}", (chosen, 0.04 * top), (-7 if is_right else 7, 0), weight="bold", size=10.5,
                textcoords="offset points", ha="right" if is_right else "left", va="center",
            )  # fmt: skip
        ax.set(title=title, xlabel="layer of the backbone", ylim=(0, top))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=13))
    axes[0, 0].set_ylabel("saliency: mean |Pearson r| over features")
    return figure


def layer_curves(
    look: Look,
    layers: Sequence[int],
    curves: Mapping[str, Mapping[str, Sequence[float | None]]],
    chosen_by: str,
) -> Figure:
    """Each kind of curve over layers with its interval over speakers, a panel each, the largest value ringed.

    Args:
      look: Theme and words.
      layers: Layer numbers.
      curves: Title -> `score`, `low` and `high` [K]; None where there is no interval.
      chosen_by: Title of the curve in use.
    """
    theme = look.theme
    figure, axes = canvas(
        look, "Ways to ask a layer", "line: mean over targets · band: 95 % interval over speakers · ring: largest",
        (5.2 * len(curves) + 0.4, 4.6), (1, len(curves)),
    )  # fmt: skip
    for i, (ax, (title, curve)) in enumerate(zip(axes[0], curves.items(), strict=True)):
        color = theme.systems[i % len(theme.systems)]
        score, low, high = (np.array(curve[name], np.float64) for name in ("score", "low", "high"))
        ax.fill_between(layers, low, high, color=color, alpha=0.2, lw=0)
        ax.plot(layers, score, color=color, lw=2.6, marker=MARKERS[i], ms=5.5, mec=theme.paper, mew=0.6)
        place = int(score.argmax())
        ax.plot([layers[place]], [score[place]], "o", ms=13, mfc="none", mec=theme.ink, mew=2)
        is_used = title == chosen_by
        ax.set_title(f"{title}: layer {layers[place]}{' (in use)' if is_used else ''}", color=color)
        ax.set(xlabel="layer of the backbone", ylim=(min(0, np.nanmin([score, low])), None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=13))
    axes[0, 0].set_ylabel("score")
    return figure


def variance_shares(
    look: Look, layers: Sequence[int], shares: Mapping[str, Mapping[str, Sequence[float | None]]], chosen: int
) -> Figure:
    """Share of variance between genders, speakers and sentences over layers, with intervals over speakers.

    Args:
      look: Theme and words.
      layers: Layer numbers.
      shares: Label of a factor -> `share`, `low` and `high` [K]; None where there is no interval.
      chosen: Layer number picked.
    """
    theme = look.theme
    subtitle = "mean over features, chance taken out · band: 95 % interval over speakers · dashed: chosen layer"
    figure, axes = canvas(look, "What else a layer holds", subtitle, (8.6, 4.6), (1, 1))
    ax = axes[0, 0]
    ends = []
    for i, curve in enumerate(shares.values()):
        color = theme.targets[i % len(theme.targets)]
        share, low, high = (np.array(curve[name], np.float64) for name in ("share", "low", "high"))
        ax.fill_between(layers, low, high, color=color, alpha=0.16, lw=0)
        ax.plot(layers, share, color=color, lw=2.4, marker=MARKERS[i], ms=5.5, mec=theme.paper, mew=0.6)
        ends.append(share[-1])
    ax.axvline(chosen, color=theme.muted, lw=1.2, ls=(0, (4, 3)), zorder=1)
    ax.axhline(0, color=theme.muted, lw=0.8, zorder=1)
    bottom, top = ax.get_ylim()
    for i, (name, y) in enumerate(zip(shares, _spread(np.array(ends), (top - bottom) * 0.06), strict=True)):
        color = theme.targets[i % len(theme.targets)]
        ax.annotate(
            name, (layers[-1], ends[i]), (1.03, (y - bottom) / (top - bottom)), textcoords="axes fraction", color=color,
            va="center", size=10.5, arrowprops={"arrowstyle": "-", "color": color, "lw": 0.7, "alpha": 0.6},
        )  # fmt: skip
    ax.set(xlabel="layer of the backbone", ylabel="share of variance", ylim=(bottom, top))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=13))
    return figure

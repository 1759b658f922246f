"""Figures of the report. Every function takes a `Look` and plain arrays and returns a `Figure` for `look.render`."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from seremo_jax.metrics.catalogue import SPEAKER_FILTERS, is_counted
from seremo_jax.reports.look import Look, canvas, legend_below, panel_title

MARKERS = ("o", "s", "^", "D", "v", "p", "<", ">", "h", "*")
_FIRM = "min10c2"
"""Speaker filter of the speakers whose UAR is no matter of luck."""


def training(
    look: Look, curves: Mapping[str, tuple[np.ndarray, Float[np.ndarray, "n E"], Float[np.ndarray, "n E"]]]
) -> Figure:
    """Training loss and development score of each system over epochs, with the band of its seeds.

    Args:
      look: Theme and words.
      curves: System -> epochs [n], training loss [n, E], development score [n, E]; NaN where a member has stopped.
    """
    figure, axes = canvas(
        look, "Training", "line and band: mean and range of the seeds still training · dots: best epoch of each seed",
        (10.6, 4.6), (1, 2),
    )  # fmt: skip
    panels = ((axes[0, 0], 1, "training loss"), (axes[0, 1], 2, "development score (higher is better)"))
    for system, series in curves.items():
        color, epochs = look.color(system), series[0]
        for ax, which, _ in panels:
            values = np.ma.masked_invalid(series[which])
            ax.fill_between(epochs, values.min(1), values.max(1), color=color, alpha=0.18, lw=0)
            ax.plot(epochs, values.mean(1), color=color, lw=2.4, label=system)
        score = np.where(np.isfinite(series[2]), series[2], -np.inf)
        best = score.argmax(0)
        is_scored = np.isfinite(score.max(0))
        axes[0, 1].plot(
            epochs[best[is_scored]], score.max(0)[is_scored], "o", ms=6, mfc=color, mec=look.theme.ink, mew=1, ls="none"
        )
    for ax, _, title in panels:
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylim(bottom=min(0.0, axes[0, 0].get_ylim()[0]))
    legend_below(figure, axes[0, 1].get_legend_handles_labels()[0], 3)
    return figure


def confusion(
    look: Look, class_names: Sequence[str], counts: Mapping[str, Float[np.ndarray, "C C"]], is_mean: bool
) -> Figure:
    """Row-normalised confusion matrices with their counts, one panel a system.

    Args:
      look: Theme and words.
      class_names: The class set, in order.
      counts: System -> utterances [C, C], rows the consensus, columns the 1-best class.
      is_mean: Whether the counts are means over seeds.
    """
    theme, C = look.theme, len(class_names)
    columns = min(len(counts), 2)
    rows = -(-len(counts) // columns)
    side = max(3.6, 0.62 * C)
    figure, axes = canvas(
        look, "Confusions", f"% of each row (consensus), below it utterances{' (mean over seeds)' if is_mean else ''}",
        ((side + 0.35) * columns + 1.25, (side + 1.55) * rows + 0.75), (rows, columns), sharey=True,
    )  # fmt: skip
    heat = LinearSegmentedColormap.from_list("heat", theme.heat)
    for ax in axes.flat[len(counts) :]:
        ax.set_visible(False)
    for ax, (system, matrix) in zip(axes.flat, counts.items(), strict=False):
        totals = matrix.sum(1, keepdims=True)
        share = np.divide(matrix, totals, out=np.zeros((C, C)), where=totals > 0)
        ax.imshow(share, cmap=heat, vmin=0, vmax=1, aspect="equal")
        for i, j in np.ndindex(C, C):
            if totals[i, 0] == 0:
                continue
            red, green, blue, _ = heat(share[i, j])
            ink = "#ffffff" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.55 else "#1b1f24"
            weight = "bold" if i == j else "normal"
            ax.text(
                j, i - 0.14, f"{100 * share[i, j]:.0f}", color=ink, ha="center", va="center", size=11, weight=weight
            )
            ax.text(j, i + 0.24, f"{matrix[i, j]:,.0f}", color=ink, ha="center", va="center", size=7.5, alpha=0.85)
        panel_title(ax, system, look.color(system))
        ax.set_xticks(range(C), class_names, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(C), class_names)
        ax.set_xlabel("1-best class")
        ax.grid(False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("consensus")
    return figure


def _swarm(values: Float[np.ndarray, " n"], room: float) -> Float[np.ndarray, " n"]:
    """Vertical offsets in [-room, room] that keep points of similar value apart, the same for the same values."""
    cells = np.round(values / 0.025).astype(int)
    ranks = np.empty(len(values))
    for cell in np.unique(cells):
        here = np.flatnonzero(cells == cell)
        steps = np.arange(len(here))
        ranks[here] = np.where(steps % 2 == 1, 1, -1) * ((steps + 1) // 2)
    return ranks * min(0.15, room / max(np.abs(ranks).max(), 1))


def speakers(
    look: Look,
    entries: Mapping[str, Sequence[Mapping[str, object]]],
    shares: Mapping[str, Mapping[int, float]],
    raters: Mapping[int, float],
) -> Figure:
    """Every speaker's UAR, by gender, with the thresholds of paUAR; one panel a system.

    Args:
      look: Theme and words.
      entries: System -> speakers {gender, num_scored, num_classes, uar}, `uar` the 1-best UAR in [0, 1].
      shares: System -> T -> paUAR-T (1-best, all) in %, as in the table.
      raters: T -> that of one human rater, where known.
    """
    theme = look.theme
    least_scored, least_classes = SPEAKER_FILTERS[_FIRM]
    present = {str(speaker["gender"]) for speakers in entries.values() for speaker in speakers}
    genders = [gender for gender in ("unknown", "male", "female") if gender in present]
    genders = sorted(present - set(genders)) + genders
    columns = min(len(entries), 2)
    rows = -(-len(entries) // columns)
    size = (5.2 * columns + 0.6, (0.95 * len(genders) + 1.6) * rows + 0.8)
    figure, axes = canvas(
        look, "How well is each speaker served?",
        f"dot: a speaker, mean over seeds (open: under {least_scored} scored utterances or {least_classes} classes) · "
        "bar: mean",
        size, (rows, columns), sharex=True, sharey=True,
    )  # fmt: skip
    for ax in axes.flat[len(entries) :]:
        ax.set_visible(False)
    for ax, (system, speakers_) in zip(axes.flat, entries.items(), strict=False):
        color = look.color(system)
        for lane, gender in enumerate(genders):
            chosen = [speaker for speaker in speakers_ if speaker["gender"] == gender]
            uar = np.array([speaker["uar"] for speaker in chosen], np.float64)
            if not len(uar):
                continue
            is_firm = np.array([is_counted(s["num_scored"], s["num_classes"], _FIRM) for s in chosen])
            y = lane + _swarm(uar, 0.36)
            for mask, face in ((is_firm, color), (~is_firm, theme.paper)):
                ax.scatter(
                    uar[mask], y[mask], s=38, facecolor=face, edgecolor=color, linewidth=1.3, alpha=0.9, zorder=3
                )
            ax.plot([uar.mean()] * 2, [lane - 0.42, lane + 0.42], color=theme.muted, lw=3, zorder=1.5)
        for threshold, share in sorted(shares[system].items()):
            human = f"\n rater {raters[threshold]:.1f} %" if threshold in raters else ""
            ax.axvline(threshold / 100, color=theme.ink, lw=1.2, ls=(0, (4, 3)), zorder=1)
            ax.text(
                threshold / 100, len(genders) - 0.02, f" paUAR-{threshold}\n {share:.1f} %{human}", size=9.5, va="top",
                ha="left", color=theme.ink, linespacing=1.25,
            )  # fmt: skip
        counts = [sum(s["gender"] == gender for s in speakers_) for gender in genders]
        ax.set_yticks(range(len(genders)), [f"{g}\n(n = {n})" for g, n in zip(genders, counts, strict=True)])
        panel_title(ax, system, color)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.55, len(genders) + 0.02), xlabel="UAR of the speaker (1-best)")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    return figure


def speaker_shares(
    look: Look,
    points: Mapping[str, Mapping[tuple[int, str, int], tuple[float, float, float]]],
    chance: Mapping[tuple[int, str, int], float],
    raters: Mapping[tuple[int, str, int], float],
) -> Figure:
    """paUAR-T over N with 95 % intervals: one panel a threshold, filled and open markers for the speaker filters.

    Args:
      look: Theme and words.
      points: System -> (T, filter, N) -> value, low, high, all in %.
      chance: (T, filter, N) -> % for a random guesser, where known.
      raters: (T, filter, 1) -> % for one human rater, where known.
    """
    keys = sorted({key for values in points.values() for key in values})
    thresholds = sorted({key[0] for key in keys}, reverse=True)
    filters = sorted({key[1] for key in keys})
    numbers = sorted({key[2] for key in keys})
    note = "bars: 95 % interval over speakers" + (" · grey bars: random guesser" if chance else "")
    note += " · dashes: one human rater" if raters else ""
    figure, axes = canvas(
        look, "For how many speakers does it hold?", note, (5.2 * len(thresholds) + 0.4, 4.7), (1, len(thresholds)),
        sharey=True,
    )  # fmt: skip
    lanes = [(system, name) for system in points for name in filters]
    step = min(0.16, 0.7 / len(lanes))
    for ax, threshold in zip(axes[0], thresholds, strict=True):
        for lane, (system, name) in enumerate(lanes):
            color = look.color(system)
            for position, n in enumerate(numbers):
                if (threshold, name, n) not in points[system]:
                    continue
                value, low, high = points[system][threshold, name, n]
                x = position + (lane - (len(lanes) - 1) / 2) * step
                face = color if name == filters[0] else look.theme.paper
                ax.plot([x, x], [low, high], color=color, lw=2, alpha=0.75)
                ax.plot([x], [value], "o", ms=8, mfc=face, mec=color, mew=1.8)
                if (threshold, name, n) in chance:
                    guess = [chance[threshold, name, n]] * 2
                    ax.plot(
                        [x - step / 2, x + step / 2],
                        guess,
                        color=look.theme.muted,
                        lw=3,
                        alpha=0.7,
                        zorder=1.5,
                        solid_capstyle="butt",
                    )
        if (human := raters.get((threshold, filters[0], 1))) is not None:
            ax.plot([-0.5, 0.5], [human] * 2, color=look.theme.ink, lw=1.8, ls=(0, (2, 1.5)), zorder=4)
        ax.set(title=f"UAR above {threshold / 100:.2f}", ylim=(-3, 103), xlim=(-0.6, len(numbers) - 0.4))
        ax.set_xticks(range(len(numbers)), [f"{n}-best" for n in numbers])
        ax.grid(axis="x", visible=False)
    axes[0, 0].set_ylabel("speakers (%)")
    handles = [Line2D([], [], color=look.color(s), marker="o", ms=8, lw=2, label=s) for s in points]
    handles += [
        Line2D([], [], color=look.theme.muted, marker="o", ms=8, lw=0, mew=1.8, label=f"speakers: {name}",
               mfc=look.theme.muted if name == filters[0] else look.theme.paper) for name in filters
    ]  # fmt: skip
    legend_below(figure, handles, 4)
    return figure

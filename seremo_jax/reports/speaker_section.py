"""What the report says of speakers beyond paUAR: the curve over T, the worst and the best, luck, and dependence."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from seremo_jax.reports import rater_rows, served_tables
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.look import Look, canvas, legend_below
from seremo_jax.reports.page import Picture
from seremo_jax.reports.score_tables import caption, difference_table
from seremo_jax.reports.table import NOTHING, Row, Table, measured, plain

NUM_SHOWN = 5
"""Speakers named at either end."""

Draw = Callable[[Look], Figure]


def items(
    block: Block, shown: Sequence[str], picture: Callable[[str, str, str, Draw], Picture]
) -> list[Table | Picture]:
    """Tables and the figure of one split and condition; those without anything to show are left out.

    Args:
      block: Records.
      shown: Systems that figures show.
      picture: Makes a picture of a name, what it shows, how to read it, and what draws it.
    """
    pictures: list[Table | Picture] = []
    curves = {system: curve for system in shown if (curve := block.whole(system).states["pa_uar_curve"])["filters"]}
    if curves:
        pictures.append(picture(
            "pa_uar_curve", "Share of speakers above every threshold T",
            "Line and band: value and 95 % interval resampled by speaker; all speakers with a scored utterance. "
            "Dotted: a random guesser with the same speakers. Dashed: one human rater against the consensus of the "
            "others.",
            lambda style: pa_uar_curve(style, curves, rater_rows.curve(block)),
        ))  # fmt: skip
    tables = (
        served_tables.size_curve_table(block),
        served_tables.served_table(block),
        served_tables.worst_table(block),
        difference_table(block, "served"),
        rater_rows.panel_table(block, caption(block)),
        extreme_table(block),
        size_table(block),
        dependence_table(block),
    )
    return pictures + [table for table in tables if table.rows]


def pa_uar_curve(
    look: Look,
    curves: Mapping[str, Mapping[str, Any]],
    raters: tuple[Sequence[int], Sequence[float]] | None = None,
) -> Figure:
    """paUAR(T) with its band, one panel for each N.

    Args:
      look: Theme and words.
      curves: System -> `states["pa_uar_curve"]` of its record.
      raters: T, in percent, and share of speakers above each by one human rater; None where not known.
    """
    first = next(iter(curves.values()))["filters"]["all"]
    numbers = sorted(first.keys() - {"num_speakers"}, key=int)
    figure, axes = canvas(
        look, "For how many speakers does it hold, at any threshold?",
        f"{first['num_speakers']} speakers · line and band: value and 95 % interval over speakers",
        (4.4 * len(numbers) + 0.6, 4.7), (1, len(numbers)), sharey=True,
    )  # fmt: skip
    for ax, n in zip(axes[0], numbers, strict=True):
        for system, curve in curves.items():
            shares, thresholds = curve["filters"]["all"][n], np.asarray(curve["thresholds"]) / 100
            value, low, high, chance = (
                np.asarray(shares[name], np.float64) for name in ("value", "low", "high", "chance")
            )
            color = look.color(system)
            ax.fill_between(thresholds, low, high, step="post", color=color, alpha=0.18, lw=0)
            ax.step(thresholds, value, where="post", color=color, lw=2.2, label=system)
        ax.step(thresholds, chance, where="post", color=look.theme.muted, lw=1.6, ls=":", label="random guesser")
        if raters and n == "1":
            at, value = np.asarray(raters[0]) / 100, np.asarray(raters[1])
            ax.step(at, value, where="post", color=look.theme.ink, lw=1.8, ls=(0, (4, 1.5)), label=rater_rows.ONE)
        for threshold in (0.5, 0.75):
            ax.axvline(threshold, color=look.theme.ink, lw=1, ls=(0, (4, 3)), alpha=0.6, zorder=1)
        ax.set(title=f"{n}-best", xlim=(0, 1), ylim=(-2, 102), xlabel="threshold T of the speaker's UAR")
    axes[0, 0].set_ylabel("speakers above T (%)")
    legend_below(figure, axes[0, 0].get_legend_handles_labels()[0], 4)
    return figure


def extreme_table(block: Block) -> Table:
    """The speakers served worst and best by each system."""
    first, rows = block.nbest.index(1), []
    for system in block.systems:
        speakers = sorted(block.whole(system).speakers, key=lambda speaker: (speaker["uar"][first], speaker["speaker"]))
        number = min(NUM_SHOWN, len(speakers) // 2)
        for place, ends in (("worst", speakers[:number]), ("best", speakers[len(speakers) - number :][::-1])):
            for speaker in ends:
                scores = (measured({"value": value}) for value in speaker["uar"])
                labels = (system, place, speaker["speaker"], speaker["gender"])
                rows.append(Row(labels, (*plain(speaker["num_scored"], speaker["num_classes"]), *scores)))
    labels = ("system", "served", "speaker", "gender")
    columns = ("scored", "classes", *(f"{n}-best UAR" for n in block.nbest))
    text = "By 1-best UAR, mean over seeds. Of few utterances a UAR is mostly luck."
    return Table("Speakers served worst and best", labels, columns, tuple(rows), f"{caption(block)} {text}",
                 is_folded=True)  # fmt: skip


def size_table(block: Block) -> Table:
    """Speakers by number of scored utterances: how many pass, and how many would by luck."""
    rows, thresholds = [], []
    for system in block.systems:
        for size in block.whole(system).states["speaker_sizes"]:
            span = f"{size['from']} or more" if size["to"] is None else f"{size['from']} to {size['to']}"
            above = [passing for passing in size["above"] if passing["nbest"] == 1]
            numbers = (f"{passing['num_passing']:.1f} ({passing['num_by_luck']:.1f})" for passing in above)
            rows.append(Row((system, span), plain(size["num_speakers"], *numbers)))
            thresholds = [passing["threshold"] for passing in above]
    columns = ("speakers", *(f"above {threshold / 100:.2f}" for threshold in thresholds))
    text = (
        "Number of speakers whose 1-best UAR is above the threshold, mean over seeds; in brackets the number of these "
        "speakers that a random guesser would pass."
    )
    return Table("Small speakers pass by luck", ("system", "scored utterances"), columns, tuple(rows),
                 f"{caption(block)} {text}")  # fmt: skip


def dependence_table(block: Block) -> Table:
    """Whether a speaker's UAR follows its number of utterances, of classes, or its mix of classes."""
    causes = {
        "num_scored": "scored utterances",
        "num_classes": "number of classes",
        "class_mix": "UAR expected of the class mix",
    }
    rows = []
    for system in block.systems:
        dependence = block.whole(system).states["speaker_dependence"]
        if dependence["num_speakers"]:
            correlations = (dependence[cause] for cause in causes)
            texts = (NOTHING if c is None else f"{c['rho']:+z.3f} (p {c['p']:.3f})" for c in correlations)
            rows.append(Row((system,), plain(dependence["num_speakers"], *texts)))
    columns = ("speakers", *causes.values())
    text = (
        "Spearman's correlation with the speaker's 1-best UAR. Expected of the class mix: the mean, over the speaker's "
        "classes, of the recall that each has over all speakers."
    )
    return Table("What a speaker's UAR goes with", ("system",), columns, tuple(rows), f"{caption(block)} {text}")

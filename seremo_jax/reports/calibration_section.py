"""What the report says of knowing when not to answer: calibration, conformal sets, abstention."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seremo_jax.core import vocab
from seremo_jax.core.schema import ResultRecord
from seremo_jax.evaluation.records import CALIBRATION
from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric, metric
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.look import Look, canvas, legend_below, panel_title
from seremo_jax.reports.page import Picture, Section
from seremo_jax.reports.score_tables import caption
from seremo_jax.reports.table import NOTHING, Row, Table, measured, names, plain

MOST_ROWS = 20
"""Rows of a table that is not folded."""

Draw = Callable[[Look], Figure]
_KINDS = (("one threshold", "held", "set_size"), ("a threshold a gender", "held_by_gender", "set_size_by_gender"))
"""Kinds of sets in words, their shares of votes or consensus classes, and their sizes."""
_NLL, _NLL_CALIBRATED = metric("nll"), metric("nll_calibrated")
_ERRORS = (
    *(metric(kind, outcome=outcome) for outcome in ("votes", "consensus") for kind in ("ece", "ece_calibrated")),
    _NLL,
    _NLL_CALIBRATED,
)
_COSTS = (
    *(metric(kind, outcome=outcome) for outcome in ("votes", "consensus") for kind in ("risk", "aurc")),
    metric("set_size_entropy"),
)

Entries = Mapping[Metric, Mapping[str, Any]]
"""Metric -> its entry."""


def section(
    block: Block, title: str, key: str, shown: Sequence[str], picture: Callable[[str, str, str, Draw], Picture]
) -> Section:
    """The section of one split and condition, or why there are no numbers for it.

    Args:
      block: Records.
      title: Of the section.
      key: Of the section, for links.
      shown: Systems that figures show.
      picture: Makes a picture of a name, what it shows, how to read it, and what draws it.
    """
    by_system = _states(block)
    if not by_system:
        return Section(key, title, (_why_not(block),))
    drawn = {system: states for system, states in by_system.items() if system in shown}
    level = next(iter(by_system.values()))["level"]
    pictures = list(_pictures(block, drawn, level, picture)) if drawn else []
    items = (calibration_table(block), *pictures[:1], set_table(block), *pictures[1:2], abstention_table(block),
             *pictures[2:])  # fmt: skip
    text = (
        f"Temperature and thresholds were fitted on the development split, on the raters' votes: conformal sets should "
        f"hold {100 * level:g} % of the votes of new utterances. That promise is for utterances like those of the "
        "development split: its few speakers and other acoustic conditions break it, so the share is measured here."
    )
    terms = (*GLOSSARY, *catalogue.glossary({_NLL.about.table}))
    return Section(key, title, (text,), tuple(_signs(by_system, level)), items, terms)


def _why_not(block: Block) -> str:
    asked = block.protocol.get("settings.eval.calibrate")
    if not asked:
        return "Not calibrated: eval.calibrate is off. Shares are as predicted, and there are no conformal sets."
    if block.split == vocab.DEVELOPMENT:
        return "Not scored here: temperature and conformal sets are fitted on this split."
    return (
        "Not calibrated: the development split, or that of some fold, holds no utterance with votes. Shares are as "
        "predicted, and there are no conformal sets."
    )


def _pictures(
    block: Block, drawn: Mapping[str, Mapping[str, Any]], level: float,
    picture: Callable[[str, str, str, Draw], Picture],
) -> Iterator[Picture]:  # fmt: skip
    yield picture(
        "reliability", "Predicted share of the 1-best class against the share of votes for it",
        "Mean distribution of the seeds. Bars: 95 % interval over speakers; area: utterances in the bin. On the "
        "diagonal a predicted share is the share of votes.",
        lambda style: reliability(style, drawn),
    )  # fmt: skip
    groups = ("all", *(group for group in block.groups if any(_of_mean(block, system, group) for system in drawn)))
    share = _held_votes(level)
    held = {system: {group: entries[share] for group in groups if (entries := _of_mean(block, system, group))}
            for system in drawn}  # fmt: skip
    num_classes = len(block.class_names)
    yield picture(
        "set_sizes", "Share of votes in the conformal sets by group, and their size by the raters' entropy",
        "Mean distribution of the seeds, one threshold for all. Broken line: what was asked for.",
        lambda style: set_sizes(style, drawn, held, groups, num_classes),
    )  # fmt: skip
    yield picture(
        "risk_coverage", "What an answer costs if only the surest are given",
        "Mean distribution of the seeds, at its temperature. Line and band: value and 95 % interval over speakers.",
        lambda style: risk_coverage(style, drawn),
    )  # fmt: skip


def _of_mean(block: Block, system: str, group: str = "all") -> Entries:
    """Entries of the mean distribution of a system's seeds in a group; none where they are not recorded."""
    record = block.by_key.get((system, group))
    return catalogue.entries_by_metric(record.states.get(CALIBRATION, {}).get("ensemble", {})) if record else {}


def _held_votes(level: float) -> Metric:
    """Share of votes in the sets of one threshold that should hold a share `level` of them."""
    return metric("held", outcome="votes", level=100 * level)


def numbers(record: ResultRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Entries beside the metrics of a record: those of the mean of its seeds, where there are several."""
    if _num_members(catalogue.entries_by_metric(record.metrics)) > 1:
        entries = record.states.get(CALIBRATION, {}).get("ensemble", {})
        yield from ((f"{name}, mean of seeds", entry) for name, entry in entries.items())


def _num_members(entries: Entries) -> int:
    """Members behind the entries of calibration; 0 where there are none."""
    return len(entries.get(_NLL, {}).get("members", ()))


def _states(block: Block) -> dict[str, Mapping[str, Any]]:
    """What each system's record holds of calibration; systems without it are left out."""
    by_system = {system: block.whole(system).states.get(CALIBRATION) for system in block.systems}
    return {system: states for system, states in by_system.items() if states}


def _signs(by_system: Mapping[str, Mapping[str, Any]], level: float) -> Iterator[str]:
    """Sets that hold fewer votes than they should, and temperatures that make it worse."""
    for system, states in by_system.items():
        entries = catalogue.entries_by_metric(states["ensemble"])
        few = sorted({fit["num_utterances"] for fit in states["fitted"] if fit["lac"] is None})
        if few:
            yield (f"{system}: {' and '.join(map(str, few))} development utterances are too few for {100 * level:g} %: "
                   "the sets hold every class.")  # fmt: skip
        held = entries[_held_votes(level)]
        if held["high"] is not None and held["high"] < level:
            yield (f"{system}: the sets hold {100 * held['value']:.0f} % of the votes, and {100 * level:g} % is above "
                   "the interval.")  # fmt: skip
        before, after = (entries[loss]["value"] for loss in (_NLL, _NLL_CALIBRATED))
        if before is not None and after > before + 1e-3:
            yield f"{system}: the temperature of the development split makes the log loss worse here."


def _models(block: Block) -> Iterator[tuple[str, str, Entries, Mapping[str, Any]]]:
    """System, which model of it, its entries, its states."""
    for system, states in _states(block).items():
        record = block.whole(system)
        of_each = catalogue.entries_by_metric(record.metrics)
        if _num_members(of_each) > 1:
            yield system, "each seed", of_each, states
        yield system, "mean of seeds" if len(record.seeds) > 1 else "the seed", _of_mean(block, system), states


def calibration_table(block: Block) -> Table:
    """Calibration error and log loss before and after the temperature."""
    rows = []
    for system, model, entries, states in _models(block):
        temperatures = [fit["temperature"] for fit in states["fitted"]]
        lowest, highest = (f"{end(temperatures):.2f}" for end in (min, max))
        at = NOTHING if model == "each seed" else lowest if lowest == highest else f"{lowest} to {highest}"
        cells = (*plain(at), *(measured(entries.get(error), error) for error in _ERRORS))
        rows.append(Row((system, model), cells))
    text = "Lower is better. Before and after the temperature; with folds, that of each fold."
    columns = ("temperature", *names(_ERRORS))
    return Table("Calibration", ("system", "model"), columns, tuple(rows), f"{caption(block)} {text}")


def set_table(block: Block) -> Table:
    """Share of votes and of consensus classes in the conformal sets, and their size, by group."""
    rows = []
    for group in ("all", *block.groups):
        for system, states in _states(block).items():
            entries, percent = _of_mean(block, system, group), 100 * states["level"]
            for words, share, size in _KINDS if entries else ():
                metrics = (
                    *(metric(share, outcome=outcome, level=percent) for outcome in ("votes", "consensus")),
                    metric(size, level=percent),
                )
                cells = (*plain(entries[metrics[0]]["count"]), *(measured(entries[shown], shown) for shown in metrics))
                rows.append(Row((block.group_label(group), system, words), cells))
    columns = ("utterances with votes", "votes in set", "consensus in set", "mean size")
    text = "Of the mean distribution of the seeds."
    return Table(
        "Conformal sets", ("group", "system", "sets"), columns, tuple(rows), f"{caption(block)} {text}",
        is_folded=len(rows) > MOST_ROWS,
    )  # fmt: skip


def abstention_table(block: Block) -> Table:
    """Risk, area under the risk-coverage curve, and whether sets grow with the raters' disagreement."""
    rows = [
        Row((system, model), tuple(measured(entries.get(cost), cost) for cost in _COSTS))
        for system, model, entries, _ in _models(block)
    ]
    text = "Lower is better, but for the correlation. An AURC below the risk: the model knows when it errs."
    return Table("Abstention", ("system", "model"), names(_COSTS), tuple(rows), f"{caption(block)} {text}")


GLOSSARY = (("temperature", "what logits are divided by: above 1 the model was too sure, below 1 not sure enough"),)
"""Words of this section that are no metrics."""


def reliability(look: Look, by_system: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Share of votes over predicted share, before and after the temperature; a panel a system.

    Args:
      look: Theme and words.
      by_system: System -> `states["calibration"]` of its record.
    """
    theme, columns = look.theme, min(len(by_system), 3)
    rows = -(-len(by_system) // columns)
    figure, axes = canvas(
        look, "Can a predicted share be believed?", "open: as predicted · filled: at the temperature",
        (4.3 * columns + 0.8, 4.1 * rows + 1.2), (rows, columns), sharex=True, sharey=True,
    )  # fmt: skip
    for ax in axes.flat[len(by_system) :]:
        ax.set_visible(False)
    for ax, (system, states) in zip(axes.flat, by_system.items(), strict=False):
        color = look.color(system)
        ax.plot([0, 1], [0, 1], color=theme.muted, lw=1.2, ls=(0, (4, 3)), zorder=1)
        for name, face, ink in (("plain", theme.paper, theme.muted), ("calibrated", color, color)):
            curve = {key: np.array(values, np.float64) for key, values in states["curves"][name]["votes"].items()}
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


def risk_coverage(look: Look, by_system: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Risk over the share of utterances answered, against votes and against the consensus.

    Args:
      look: Theme and words.
      by_system: System -> `states["calibration"]` of its record.
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
        for system, states in by_system.items():
            curve, color = states["curves"]["risk"][outcome], look.color(system)
            value, low, high = (np.array(curve[name], np.float64) for name in ("value", "low", "high"))
            ax.fill_between(states["coverages"], low, high, color=color, alpha=0.18, lw=0)
            ax.plot(states["coverages"], value, color=color, lw=2.4)
            ax.axhline(value[-1], color=color, lw=1.2, ls=(0, (2, 3)))
        ax.set(title=title, xlim=(0, 1.02), ylim=(0, None), xlabel="share of utterances answered, the surest first")
    axes[0, 0].set_ylabel("risk")
    handles = [Line2D([], [], color=look.color(system), lw=2.4, label=system) for system in by_system]
    handles.append(Line2D([], [], color=theme.muted, lw=1.2, ls=(0, (2, 3)), label="abstaining at random"))
    legend_below(figure, handles, 4)
    return figure


def set_sizes(
    look: Look,
    by_system: Mapping[str, Mapping[str, Any]],
    held: Mapping[str, Mapping[str, Mapping[str, Any]]],
    groups: Sequence[str],
    num_classes: int,
) -> Figure:
    """Share of votes in the conformal sets by group, and size of the sets by the raters' entropy.

    Args:
      look: Theme and words.
      by_system: System -> `states["calibration"]` of its record.
      held: System -> group -> entry of the share of votes in its sets.
      groups: Groups in order, `all` first.
      num_classes: C.
    """
    theme, (level, *_) = look.theme, (states["level"] for states in by_system.values())
    figure, axes = canvas(
        look, "Do the sets hold what they should, and grow where raters disagree?",
        "marker and bar: value and 95 % interval over speakers", (10.6, 5.0), (1, 2),
    )  # fmt: skip
    by_group, by_entropy = axes[0]
    by_group.axhline(level, color=theme.ink, lw=1.2, ls=(0, (4, 3)), zorder=1)
    for lane, (system, states) in enumerate(by_system.items()):
        color, shift = look.color(system), (lane - (len(by_system) - 1) / 2) * 0.7 / len(by_system)
        here = [(place, held[system][group]) for place, group in enumerate(groups) if group in held[system]]
        _bars(by_group, [place + shift for place, _ in here], [entry for _, entry in here], color)
        curve = states["curves"]["sizes_by_entropy"]["votes"]
        bounds = zip(curve["value"], curve["low"], curve["high"], strict=True)
        bins = [(n, dict(zip(("value", "low", "high"), numbers, strict=True))) for n, numbers in enumerate(bounds)]
        bins = [(n, entry) for n, entry in bins if entry["value"] is not None]
        places = [(n + 0.5 + shift) / len(curve["value"]) for n, _ in bins]
        _bars(by_entropy, places, [entry for _, entry in bins], color)
        by_entropy.plot(places, [entry["value"] for _, entry in bins], color=color, lw=1.6, alpha=0.7)
    by_group.set_xticks(range(len(groups)), groups)
    by_group.grid(axis="x", visible=False)
    by_group.set(title=f"by group, asked for {100 * level:g} %", ylabel="share of votes in the sets")
    edges = np.linspace(0, 1, len(curve["value"]) + 1)
    by_entropy.set_xticks(edges, [f"{edge:g}" for edge in edges])
    by_entropy.set(title="by disagreement", ylabel="mean number of classes in the set", ylim=(0, num_classes),
                   xlim=(0, 1), xlabel="entropy of the votes (1: all classes equally)")  # fmt: skip
    handles = [Line2D([], [], color=look.color(system), lw=2.4, marker="o", label=system) for system in by_system]
    legend_below(figure, handles, 3)
    return figure


def _bars(ax: Any, x: Sequence[float], entries: Sequence[Mapping[str, Any]], color: str) -> None:
    for place, entry in zip(x, entries, strict=True):
        if entry["low"] is not None:
            ax.vlines(place, entry["low"], entry["high"], color=color, lw=2, alpha=0.6)
    ax.plot(x, [entry["value"] for entry in entries], "o", color=color, ms=6, mec=ax.get_facecolor(), mew=0.6)

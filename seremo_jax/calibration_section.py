"""What the report says of knowing when not to answer: calibration, conformal sets, abstention."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seremo_jax.comparison import Block
from seremo_jax.look import Look, canvas
from seremo_jax.page import NOTHING, Picture, Row, Section, Table
from seremo_jax.score_tables import caption, cell, group_label

STATES = "calibration"
"""Where a record's states hold what this section shows."""

Draw = Callable[[Look], Figure]
_KINDS = (("one threshold", ""), ("a threshold a gender", ", by gender"), ("adaptive (APS)", ", APS"))


def section(
    block: Block, title: str, key: str, shown: Sequence[str], picture: Callable[[str, str, str, Draw], Picture]
) -> Section | None:
    """The section of one split and condition; None where nothing was calibrated.

    Args:
      block: Records.
      title: Of the section.
      key: Of the section, for links.
      shown: Systems that figures show.
      picture: Makes a picture of a name, what it shows, how to read it, and what draws it.
    """
    found = _found(block)
    if not found:
        return None
    drawn = {system: states for system, states in found.items() if system in shown}
    level = next(iter(found.values()))["level"]
    items: list[Table | Picture] = [calibration_table(block)]
    if drawn:
        items.append(picture(
            "reliability", "Predicted share of the 1-best class against the share of votes for it",
            "Mean distribution of the seeds. Bars: 95 % interval over speakers; area: utterances in the bin. On the "
            "diagonal a predicted share is the share of votes.",
            lambda style: reliability(style, drawn),
        ))  # fmt: skip
    items.append(set_table(block))
    items += [table for table in (size_table(block),) if table.rows]
    items.append(abstention_table(block))
    if drawn:
        items.append(picture(
            "risk_coverage", "What an answer costs if only the surest are given",
            "Mean distribution of the seeds, at its temperature. Line and band: value and 95 % interval over speakers.",
            lambda style: risk_coverage(style, drawn),
        ))  # fmt: skip
    text = (
        f"Temperature and thresholds were fitted on the development split, on the raters' votes: conformal sets should "
        f"hold {100 * level:g} % of the votes of new utterances. That promise is for utterances like those of the "
        "development split: its few speakers and other acoustic conditions break it, so the share is measured here."
    )
    return Section(key, title, (text,), tuple(_signs(found, level)), tuple(items), GLOSSARY)


def _found(block: Block) -> dict[str, Mapping[str, Any]]:
    states = {system: block.whole(system).states.get(STATES) for system in block.systems}
    return {system: one for system, one in states.items() if one}


def _signs(found: Mapping[str, Mapping[str, Any]], level: float) -> Iterator[str]:
    """Sets that hold fewer votes than they should, and temperatures that make it worse."""
    for system, states in found.items():
        metrics = states["ensemble"]
        held = metrics[f"votes in set ({100 * level:g} %)"]
        if held["high"] is not None and held["high"] < level:
            yield (f"{system}: the sets hold {100 * held['value']:.0f} % of the votes, and {100 * level:g} % is above "
                   "the interval.")  # fmt: skip
        before, after = (metrics[name]["value"] for name in ("NLL", "NLL (calibrated)"))
        if before is not None and after > before + 1e-3:
            yield f"{system}: the temperature of the development split makes the log loss worse here."


def _models(block: Block) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """System, which model of it, its metrics, its states."""
    for system, states in _found(block).items():
        members = block.whole(system).metrics
        if len(block.whole(system).seeds) > 1:
            yield system, "each seed", members, states
        yield system, "mean of seeds" if len(block.whole(system).seeds) > 1 else "the seed", states["ensemble"], states


def calibration_table(block: Block) -> Table:
    """Calibration error and log loss before and after the temperature."""
    names = ("ECE (votes)", "ECE (votes, calibrated)", "ECE (consensus)", "ECE (consensus, calibrated)",
             "NLL", "NLL (calibrated)")  # fmt: skip
    rows = []
    for system, model, metrics, states in _models(block):
        temperatures = [one["temperature"] for one in states["fitted"]]
        lowest, highest = (f"{end(temperatures):.2f}" for end in (min, max))
        at = NOTHING if model == "each seed" else lowest if lowest == highest else f"{lowest} to {highest}"
        rows.append(Row((system, model, at, *(cell(name, metrics.get(name)) for name in names))))
    text = "Lower is better. Before and after the temperature; with folds, that of each fold."
    header = ("system", "model", "temperature", *names)
    return Table("Calibration", header, tuple(rows), f"{caption(block)} {text}", num_labels=2)


def set_table(block: Block) -> Table:
    """Share of votes and of consensus classes in the conformal sets, and their size, by group."""
    rows = []
    for group in ("all", *block.groups):
        for system, whole in _found(block).items():
            states = block.by_key[system, group].states.get(STATES) if (system, group) in block.by_key else None
            for words, suffix in _KINDS if states else ():
                percent = f"({100 * whole['level']:g} %{suffix})"
                names = (f"votes in set {percent}", f"consensus in set {percent}", f"set size {percent}")
                metrics = states["ensemble"]
                count = str(metrics[names[0]]["count"])
                rows.append(
                    Row((group_label(group), system, words, count, *(cell(name, metrics[name]) for name in names)))
                )
    header = ("group", "system", "sets", "utterances with votes", "votes in set", "consensus in set", "mean size")
    text = "Of the mean distribution of the seeds."
    return Table("Conformal sets", header, tuple(rows), f"{caption(block)} {text}", num_labels=3)


def size_table(block: Block) -> Table:
    """N-best and conformal sets of the same mean size."""
    rows = []
    for system, states in _found(block).items():
        sizes = states["equal sizes"]
        for n in (name.split()[0] for name in sizes if name.endswith(" size")):
            cells = [cell("", sizes[f"{n} size"])]
            for outcome in ("votes", "consensus"):
                cells += [cell("", sizes[f"{n} {outcome} {kind}"], kind == "gain") for kind in ("best", "sets", "gain")]
            rows.append(Row((system, n, *cells)))
    columns = (
        f"{outcome} in {kind}" for outcome in ("votes", "consensus") for kind in ("N-best", "sets", "difference")
    )
    header = ("system", "N", "mean size of sets", *(name.replace("in difference", "difference") for name in columns))
    text = "Sets whose threshold gave mean size N on the development split, against the N-best of every utterance."
    return Table("N-best and conformal sets of equal mean size", header, tuple(rows), f"{caption(block)} {text}", 2)


def abstention_table(block: Block) -> Table:
    """Risk, area under the risk-coverage curve, and whether sets grow with the raters' disagreement."""
    names = ("risk (votes)", "AURC (votes)", "risk (consensus)", "AURC (consensus)", "set size-entropy correlation")
    rows = [
        Row((system, model, *(cell(name, metrics.get(name)) for name in names)))
        for system, model, metrics, _ in _models(block)
    ]
    text = "Lower is better, but for the correlation. An AURC below the risk: the model knows when it errs."
    return Table("Abstention", ("system", "model", *names), tuple(rows), f"{caption(block)} {text}", num_labels=2)


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
        ax.set_title(system, color=color)
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
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
    return figure


GLOSSARY = (
    ("ECE (votes)", "mean distance, over 15 bins, of the predicted share of the 1-best class and the votes for it. Of "
     "few utterances above 0 for a perfect model, too, and above its own value in resamples"),
    ("ECE (consensus)", "the same against whether the 1-best class is the consensus"),
    ("NLL", "mean negative log likelihood of a vote, in nats: the KL plus the entropy of the votes"),
    ("temperature", "what logits are divided by: above 1 the model was too sure, below 1 not sure enough"),
    ("votes in set", "share of the votes that are for a class of the conformal set"),
    ("risk", "share of votes for other classes than the 1-best, or of utterances whose consensus is another"),
    ("AURC", "mean risk over all shares of utterances answered, the surest first"),
)  # fmt: skip
"""Words of this section."""

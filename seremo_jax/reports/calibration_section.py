"""What the report says of knowing when not to answer: calibration, conformal sets, abstention."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from seremo_jax.core import vocab
from seremo_jax.core.schema import ResultRecord
from seremo_jax.reports import calibration_figures
from seremo_jax.reports.blocks import Block
from seremo_jax.reports.look import Look
from seremo_jax.reports.page import NOTHING, Picture, Row, Section, Table
from seremo_jax.reports.score_tables import caption, cell, group_label

STATES = "calibration"
"""Where a record's states hold what this section shows."""

MOST_ROWS = 20
"""Rows of a table that is not folded."""

Draw = Callable[[Look], Figure]
_KINDS = (("one threshold", ""), ("a threshold a gender", ", by gender"))


def section(
    block: Block, title: str, key: str, shown: Sequence[str], picture: Callable[[str, str, str, Draw], Picture]
) -> Section | None:
    """The section of one split and condition; None for records that know nothing of calibration.

    Args:
      block: Records.
      title: Of the section.
      key: Of the section, for links.
      shown: Systems that figures show.
      picture: Makes a picture of a name, what it shows, how to read it, and what draws it.
    """
    found = _found(block)
    if not found:
        why = _why_not(block)
        return None if why is None else Section(key, title, (why,))
    drawn = {system: states for system, states in found.items() if system in shown}
    level = next(iter(found.values()))["level"]
    pictures = list(_pictures(block, drawn, level, picture)) if drawn else []
    items = (calibration_table(block), *pictures[:1], set_table(block), *pictures[1:2], abstention_table(block),
             *pictures[2:])  # fmt: skip
    text = (
        f"Temperature and thresholds were fitted on the development split, on the raters' votes: conformal sets should "
        f"hold {100 * level:g} % of the votes of new utterances. That promise is for utterances like those of the "
        "development split: its few speakers and other acoustic conditions break it, so the share is measured here."
    )
    return Section(key, title, (text,), tuple(_signs(found, level)), items, GLOSSARY)


def _why_not(block: Block) -> str | None:
    asked = block.protocol.get("settings.eval.calibrate")
    if asked is None:  # results of before there was such a field
        return None
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
        lambda style: calibration_figures.reliability(style, drawn),
    )  # fmt: skip
    groups = ("all", *(group for group in block.groups if any(_of_group(block, system, group) for system in drawn)))
    held = {system: {group: states["ensemble"][f"votes in set ({100 * level:g} %)"] for group in groups
                     if (states := _of_group(block, system, group))} for system in drawn}  # fmt: skip
    num_classes = len(block.class_names)
    yield picture(
        "set_sizes", "Share of votes in the conformal sets by group, and their size by the raters' entropy",
        "Mean distribution of the seeds, one threshold for all. Broken line: what was asked for.",
        lambda style: calibration_figures.set_sizes(style, drawn, held, groups, num_classes),
    )  # fmt: skip
    yield picture(
        "risk_coverage", "What an answer costs if only the surest are given",
        "Mean distribution of the seeds, at its temperature. Line and band: value and 95 % interval over speakers.",
        lambda style: calibration_figures.risk_coverage(style, drawn),
    )  # fmt: skip


def _of_group(block: Block, system: str, group: str) -> Mapping[str, Any] | None:
    record = block.by_key.get((system, group))
    return record.states.get(STATES) if record else None


def numbers(record: ResultRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Entries beside the metrics of a record: those of the mean of its seeds."""
    states = record.states.get(STATES, {})
    if len(record.metrics.get("NLL", {}).get("members", ())) > 1:
        yield from ((f"{name}, mean of seeds", entry) for name, entry in states.get("ensemble", {}).items())


def _found(block: Block) -> dict[str, Mapping[str, Any]]:
    states = {system: block.whole(system).states.get(STATES) for system in block.systems}
    return {system: one for system, one in states.items() if one}


def _signs(found: Mapping[str, Mapping[str, Any]], level: float) -> Iterator[str]:
    """Sets that hold fewer votes than they should, and temperatures that make it worse."""
    for system, states in found.items():
        metrics = states["ensemble"]
        few = sorted({one["num_utterances"] for one in states["fitted"] if one["lac"] is None})
        if few:
            yield (f"{system}: {' and '.join(map(str, few))} development utterances are too few for {100 * level:g} %: "
                   "the sets hold every class.")  # fmt: skip
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
        record = block.whole(system)
        if len(record.metrics["NLL"]["members"]) > 1:
            yield system, "each seed", record.metrics, states
        yield system, "mean of seeds" if len(record.seeds) > 1 else "the seed", states["ensemble"], states


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
            states = _of_group(block, system, group)
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
    return Table(
        "Conformal sets", header, tuple(rows), f"{caption(block)} {text}", num_labels=3,
        is_folded=len(rows) > MOST_ROWS,
    )  # fmt: skip


def abstention_table(block: Block) -> Table:
    """Risk, area under the risk-coverage curve, and whether sets grow with the raters' disagreement."""
    names = ("risk (votes)", "AURC (votes)", "risk (consensus)", "AURC (consensus)", "set size-entropy correlation")
    rows = [
        Row((system, model, *(cell(name, metrics.get(name)) for name in names)))
        for system, model, metrics, _ in _models(block)
    ]
    text = "Lower is better, but for the correlation. An AURC below the risk: the model knows when it errs."
    return Table("Abstention", ("system", "model", *names), tuple(rows), f"{caption(block)} {text}", num_labels=2)


GLOSSARY = (
    ("ECE (votes)", "mean distance, over 15 bins, of the predicted share of the 1-best class and the votes for it. Of "
     "few utterances it is above 0 for a perfect model, too: its interval reaches further down for that"),
    ("ECE (consensus)", "the same against whether the 1-best class is the consensus"),
    ("NLL", "mean negative log likelihood of a vote, in nats: the KL plus the entropy of the votes"),
    ("temperature", "what logits are divided by: above 1 the model was too sure, below 1 not sure enough"),
    ("votes in set", "share of the votes that are for a class of the conformal set"),
    ("risk", "share of votes for other classes than the 1-best, or of utterances whose consensus is another"),
    ("AURC", "mean risk over all shares of utterances answered, the surest first"),
)  # fmt: skip
"""Words of this section."""

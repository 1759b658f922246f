"""Comparable result records -> tables. Words and formats only: no number is computed anew."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seremo_jax.core import vocab
from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports import rater_rows
from seremo_jax.reports.blocks import Block, is_number, ordered
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, names, plain

HIGH_THRESHOLD = 75
"""The T of paUAR-T that short tables show."""
UAR = catalogue.metric("uar")
SPEAKER_SHARE = catalogue.metric("pa_uar", threshold=HIGH_THRESHOLD, speakers="all")
"""The main share of speakers."""

DIFFERENCE_LABELS = ("score", "system", "minus")
DIFFERENCE_COLUMNS = ("difference", "p, permutation", "p, bootstrap", "p, Holm")
DIFFERENCE_READING = (
    "Tests by speaker, on the same utterances; Holm corrects for all rows of this table. They hold for the members "
    "trained: whether other seeds would agree is the ± of the scores."
)


def score_table(block: Block) -> Table:
    """UAR, N-best UAR, F1 and CCC of every system, and the chance row."""
    metrics = _columns(block, is_main)
    rows = [_row(block, system, metrics) for system in block.systems]
    rows += rater_rows.rows(block, metrics)
    rows.append(Row(("chance (random ranking)",), _chance_cells(block, metrics), is_reference=True))
    return Table("Scores of every system", ("system",), names(metrics), tuple(rows), _with_raters(block))


def is_main(metric: Metric) -> bool:
    """Whether the table of scores shows a metric: the 1-best of its kinds, and every N that systems are compared by."""
    about = metric.about
    return "scores" in (about.table, *about.also_in) and (metric.n == 1 or about.compared == "every")


def _is_share_of_speakers(metric: Metric) -> bool:
    return metric.about.table == "speakers"


def spread_table(block: Block) -> Table:
    """Spread over seeds beside the spread over speakers; a row a score and system of several seeds."""
    rows = []
    for metric in _columns(block, lambda metric: is_main(metric) or _is_share_of_speakers(metric)):
        for system in block.systems:
            entry, digits = block.entry(system, metric) or {}, metric.about.digits
            if all(is_number(entry.get(key)) for key in ("value", "sd", "sd_speakers")):
                numbers = (f"{entry[key]:.{digits}f}" for key in ("value", "sd", "sd_speakers"))
                intervals = (
                    f"{entry[low]:.{digits}f} to {entry[high]:.{digits}f}" if is_number(entry.get(low)) else NOTHING
                    for low, high in (("low", "high"), ("low_members", "high_members"))
                )
                rows.append(Row((metric.name, system), plain(*numbers, *intervals)))
    columns = ("mean", "± seeds", "± speakers", "95 %, speakers", "95 %, speakers and seeds")
    text = (
        "± seeds: how far one training is from another on these speakers. ± speakers: how far other speakers would "
        "move the mean over these seeds. The last column draws speakers and seeds."
    )
    return Table("Spread over seeds and over speakers", ("score", "system"), columns, tuple(rows),
                 f"{caption(block)} {text}")  # fmt: skip


def speaker_table(block: Block) -> Table:
    """paUAR-T for every threshold, speaker filter and N; rows of the same threshold and filter stand together."""
    rows, lines = [], share_lines(block.metrics)
    for (threshold, speakers), metrics in lines.items():
        labels = (f"above {threshold / 100:.2f}", speakers)
        for system in block.systems:
            counts = {(block.entry(system, metric) or {}).get("count") for metric in metrics} - {None}
            count = " / ".join(sorted(map(str, counts))) or NOTHING
            cells = (*plain(count), *_cells(block, system, "all", metrics))
            rows.append(Row((system, *labels), cells))
        if rater_rows.rows(block, metrics):
            cells = (*plain(count), *rater_rows.cells_of(block, metrics))
            rows.append(Row((rater_rows.ONE, *labels), cells, is_reference=True))
        if any(block.chance(metric) is not None for metric in metrics):
            cells = (*plain(""), *_chance_cells(block, metrics))
            rows.append(Row(("chance", *labels), cells, is_reference=True))
    labels, columns = ("system", "UAR of the speaker", "counted"), ("speakers", *share_columns(lines))
    text = "Share of speakers (%) whose own UAR is above the threshold (paUAR-75 and so on; strictly above)."
    return Table("Speakers above a threshold (paUAR)", labels, columns, tuple(rows), f"{_with_raters(block)} {text}")


def share_lines(metrics: Sequence[Metric]) -> dict[tuple[int, str], list[Metric]]:
    """(T, speaker filter) -> paUAR-T by rising N, the highest T first."""
    lines: dict[tuple[int, str], list[Metric]] = {}
    for metric in ordered(metrics):
        if _is_share_of_speakers(metric):
            lines.setdefault((metric.field("threshold"), metric.field("speakers")), []).append(metric)
    return lines


def share_columns(lines: Mapping[Any, Sequence[Metric]]) -> tuple[str, ...]:
    """Heads of the columns of such lines."""
    first = next(iter(lines.values()), ())
    return tuple(f"{metric.n}-best ({metric.about.unit})" for metric in first)


def group_table(block: Block) -> Table:
    """The same scores by group of speakers, and the gap."""
    metrics = _columns(block, _is_of_groups)
    rows = []
    for group in block.groups:
        for system in block.systems:
            if (system, group) in block.by_key:
                record = block.by_key[system, group]
                counts = plain(record.num_speakers, record.num_scored)
                labels = (block.group_label(group), system)
                rows.append(Row(labels, (*counts, *_cells(block, system, group, metrics))))
        for row in rater_rows.rows(block, metrics, group=group):
            labels = (block.group_label(group), *row.labels)
            rows.append(Row(labels, (*plain("", ""), *row.cells), is_reference=True))
    columns = ("speakers", "scored utterances", *names(metrics))
    text = (
        "paUAR in %. Gap: first group minus second; an interval without 0 speaks for a gap. (Of other columns the best "
        "minus the worst, which is never negative.) Worst group and ratio: metric by metric, without unknown speakers, "
        "chosen anew in every resample."
    )
    return Table(
        "Scores by group of speakers", ("group", "system"), columns, tuple(rows), f"{_with_raters(block)} {text}"
    )


def _is_of_groups(metric: Metric) -> bool:
    return "groups" in metric.about.also_in and metric.n <= (2 if metric.kind == UAR.kind else 1)


def class_table(block: Block) -> Table:
    """CCC of predicted and voted share, class by class."""
    metrics = [catalogue.metric("class_ccc", label=name) for name in block.class_names]
    rows = [*(_row(block, system, metrics) for system in block.systems), *rater_rows.rows(block, metrics)]
    text = "CCC between the predicted and the voted share of a class, over all utterances with votes."
    return Table(
        "CCC of the share of each class", ("system",), block.class_names, tuple(rows), f"{_with_raters(block)} {text}"
    )


def recall_table(block: Block) -> Table:
    """Recall, precision and F1 of every class."""
    kinds = {"recall": "recall", "precision": "precision", "f1": "F1"}
    return _grid(block, "Recall, precision and F1 of each class", kinds, ("label", block.class_names),
                 "Of the 1-best class.")  # fmt: skip


def attribute_table(block: Block) -> Table:
    """CCC, Pearson's correlation, RMSE and MAE of every attribute."""
    kinds = {"ccc": "CCC", "pearson": "Pearson", "rmse": "RMSE", "mae": "MAE"}
    return _grid(block, "Attributes", kinds, ("attribute", vocab.ATTRIBUTES),
                 "RMSE and MAE on the scale of the targets, lower is better.")  # fmt: skip


def _grid(block: Block, title: str, kinds: Mapping[str, str], parameter: tuple[str, Sequence[str]], text: str) -> Table:
    """A row a system and kind of metric, a column a value of its parameter; values that no record has are left out.

    Args:
      block: Records.
      title: Of the table.
      kinds: Kind of metric -> its words.
      parameter: Name of the parameter of these kinds, and its values in order.
      text: Last sentence of the caption.
    """
    name, values = parameter
    there = {metric.field(name) for metric in block.metrics if metric.kind in kinds}
    words = [word for word in values if word in there]
    rows = [
        Row((system, label), _cells(block, system, "all", [catalogue.metric(kind, **{name: word}) for word in words]))
        for system in block.systems
        for kind, label in kinds.items()
        if words
    ]
    for kind, label in kinds.items():
        metrics = [catalogue.metric(kind, **{name: word}) for word in words]
        rows += [Row((row.labels[0], label), row.cells, is_reference=True) for row in rater_rows.rows(block, metrics)]
    return Table(title, ("system", "score"), tuple(words), tuple(rows), f"{caption(block)} {text}")


def difference_table(block: Block, family: str = "main") -> Table:
    """Every system against those before it: difference, interval, p of the paired tests, Holm's correction.

    Args:
      block: The records.
      family: Of the metrics (`metrics.kinds.Kind.family`).
    """
    rows, labels = [], {block.whole(system).system: system for system in block.systems}
    for system in block.systems:
        entries = [entry | {"system": system, "than": labels[entry["than"]]}
                   for entry in block.whole(system).states.get("differences", ())]  # fmt: skip
        rows += difference_rows(entries, family)
    title = {"main": "Differences between systems", "served": "Differences in how speakers are served"}[family]
    return Table(title, DIFFERENCE_LABELS, DIFFERENCE_COLUMNS, tuple(rows),
                 f"{caption(block)} {DIFFERENCE_READING}")  # fmt: skip


def difference_rows(entries: Sequence[Mapping[str, Any]], family: str = "main") -> list[Row]:
    """Rows of the columns `DIFFERENCE_COLUMNS`, from entries of `evaluation.differences` with their `system`."""
    rows = []
    for entry in entries:
        metric = catalogue.from_json(entry["about"])
        if metric.about.family == family:
            tests = plain(*(_p(entry[name]) for name in ("p_permutation", "p_bootstrap", "p_holm")))
            cells = (measured(entry, metric, is_difference=True), *tests)
            rows.append(Row((metric.name, entry["system"], entry["than"]), cells))
    return rows


def _p(value: float | None) -> str:
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def other_table(block: Block) -> Table:
    """Every metric that no other table shows: those made for this one, and N-best F1."""
    tables = ("further", "scores")
    metrics = _columns(block, lambda metric: metric.about.table in tables and not is_main(metric))
    rows = [*(_row(block, system, metrics) for system in block.systems), *rater_rows.rows(block, metrics)]
    return Table("Further scores", ("system",), names(metrics), tuple(rows), caption(block))


def summary_table(block: Block) -> Table:
    """The main numbers with systems side by side, narrow enough for a terminal."""
    rows, has_raters = [], bool(rater_rows.recorded(block))
    for metric in _columns(block, lambda metric: is_main(metric) or metric.field("threshold") == HIGH_THRESHOLD):
        label = metric.name + (f" ({metric.about.unit})" if metric.about.unit else "")
        by_system = (measured(block.entry(system, metric), metric) for system in block.systems)
        reference = rater_rows.cells_of(block, [metric]) if has_raters else ()
        rows.append(Row((label,), (*by_system, *reference, *_chance_cells(block, [metric]))))
    title = f"Scores, {block.split} split, {block.condition}"
    columns = (*block.systems, *([rater_rows.ONE] if has_raters else []), "chance")
    return Table(title, ("",), columns, tuple(rows), _with_raters(block))


def speaker_points(
    block: Block, systems: Sequence[str]
) -> tuple[dict[str, dict[tuple[int, str, int], tuple[float, float, float]]], dict[tuple[int, str, int], float]]:
    """For a figure of paUAR: system -> (T, filter, N) -> value, low, high in %; and the same for a random guesser."""
    points: dict[str, dict[tuple[int, str, int], tuple[float, float, float]]] = {system: {} for system in systems}
    chance = {}
    for metric in _columns(block, _is_share_of_speakers):
        key = (metric.field("threshold"), metric.field("speakers"), metric.n)
        for system in systems:
            value = block.value(system, metric)
            if value is not None:
                low, high = (block.entry(system, metric).get(side) for side in ("low", "high"))
                points[system][key] = (value, low if is_number(low) else value, high if is_number(high) else value)
        if (guess := block.chance(metric)) is not None:
            chance[key] = guess
    return points, chance


def caption(block: Block, over: str = "") -> str:
    """Which speech, how many speakers and utterances, how to read a cell, and what the corpus says of itself.

    Args:
      block: The records.
      over: What the spread in a cell is over; empty for the seeds.
    """
    record = block.whole(block.systems[0])
    num_seeds = sorted({len(block.whole(system).seeds) for system in block.systems})
    resamples = block.protocol.get("settings.eval.num_resamples")
    speech = "Simulated speech. " if block.is_simulated else ""
    seeds = " or ".join(map(str, num_seeds)) + (" seed" if num_seeds == [1] else " seeds")
    spread = f"mean ± standard deviation over {over or seeds}" if over or num_seeds != [1] else "one seed"
    drawn = f", {resamples:,} resamples" if isinstance(resamples, int) else ""
    return (
        f"{speech}{block.split.capitalize()} split, {block.condition}: {record.num_speakers} speakers, "
        f"{record.num_utterances:,} utterances, {record.num_scored:,} of them with a consensus in the class set. "
        f"Cells: {spread} [95 % interval, resampled by speaker{drawn}]."
        + "".join(f" {note}" for note in block.protocol.get("notes", ()))
    )


def _with_raters(block: Block) -> str:
    """The caption of a table with the row of human raters, or why there is none."""
    return " ".join(filter(None, (caption(block), rater_rows.READING if rater_rows.recorded(block) else
                                  rater_rows.absent(block))))  # fmt: skip


def _columns(block: Block, is_wanted: Callable[[Metric], bool]) -> list[Metric]:
    return [metric for metric in block.metrics if is_wanted(metric)]


def _cells(block: Block, system: str, group: str, metrics: Sequence[Metric]) -> tuple[Cell, ...]:
    is_gap = block.is_gap(group)
    return tuple(measured(block.entry(system, metric, group), metric, is_gap) for metric in metrics)


def _row(block: Block, system: str, metrics: Sequence[Metric]) -> Row:
    """Numbers of a system over all speakers."""
    return Row((system,), _cells(block, system, "all", metrics))


def _chance_cells(block: Block, metrics: Sequence[Metric]) -> tuple[Cell, ...]:
    return tuple(measured({"value": block.chance(metric)}, metric) for metric in metrics)

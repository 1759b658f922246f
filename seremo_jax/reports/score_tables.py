"""Comparable result records -> tables. Words and formats only: no number is computed anew."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seremo_jax.core import vocab
from seremo_jax.reports.blocks import CALIBRATION, PA_UAR, UAR, Block, system_label
from seremo_jax.reports.page import NOTHING, Row, Table


def cell(name: str, metric: Mapping[str, Any] | None, is_difference: bool = False) -> str:
    """`mean ± sd [low, high]` of a metric; paUAR in % with one decimal, all else with three."""
    if metric is None or not metric.get("defined", True) or not _is_number(metric.get("value")):
        return NOTHING
    digits = 1 if name.startswith("paUAR") else 3
    text = f"{metric['value']:{'+' if is_difference else ''}.{digits}f}"
    if len(metric.get("members") or ()) > 1 and _is_number(metric.get("sd")):
        text += f" ± {metric['sd']:.{digits}f}"
    if _is_number(metric.get("low")) and _is_number(metric.get("high")):
        text += f" [{metric['low']:.{digits}f}, {metric['high']:.{digits}f}]"
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def score_table(block: Block) -> Table:
    """UAR, N-best UAR, F1 and CCC of every system, and the chance row."""
    names = _columns(block, lambda name: UAR.match(name) or _is_main(name))
    rows = [Row((system, *_cells(block, system, "all", names))) for system in block.systems]
    rows.append(_chance_row(block, names))
    return Table("Scores of every system", ("system", *names), tuple(rows), caption(block))


def _is_main(name: str) -> bool:
    return name.startswith(("macro-F1", "weighted-F1", "CCC ")) or name == "class CCC mean"


def spread_table(block: Block) -> Table:
    """Spread over seeds beside the spread over speakers; a row a score and system of several seeds."""
    rows = []
    for name in _columns(block, lambda name: UAR.match(name) or _is_main(name) or PA_UAR.match(name)):
        for system in block.systems:
            metric = block.whole(system).metrics.get(name, {})
            if all(_is_number(metric.get(key)) for key in ("value", "sd", "sd_speakers")):
                digits = 1 if name.startswith("paUAR") else 3
                numbers = (f"{metric[key]:.{digits}f}" for key in ("value", "sd", "sd_speakers"))
                rows.append(Row((name, system, *numbers, *(
                    f"{metric[low]:.{digits}f} to {metric[high]:.{digits}f}" if _is_number(metric.get(low)) else NOTHING
                    for low, high in (("low", "high"), ("low_members", "high_members"))
                ))))  # fmt: skip
    header = ("score", "system", "mean", "± seeds", "± speakers", "95 %, speakers", "95 %, speakers and seeds")
    text = (
        "± seeds: how far one training is from another on these speakers. ± speakers: how far other speakers would "
        "move the mean over these seeds. The last column draws speakers and seeds."
    )
    return Table("Spread over seeds and over speakers", header, tuple(rows), f"{caption(block)} {text}", num_labels=2)


def speaker_table(block: Block) -> Table:
    """paUAR-T for every threshold, speaker filter and N; rows of the same threshold and filter stand together."""
    found = {name: match for name in block.metric_names() if (match := PA_UAR.match(name))}
    numbers = sorted({int(match[2]) for match in found.values()})
    rows = []
    for threshold in sorted({int(match[1]) for match in found.values()}, reverse=True):
        for speakers in dict.fromkeys(match[3] for match in found.values()):
            names = [f"paUAR-{threshold} ({n}-best, {speakers})" for n in numbers]
            labels = (f"above {threshold / 100:.2f}", speakers)
            for system in block.systems:
                metrics = block.whole(system).metrics
                counts = {
                    str(metrics[name]["count"]) for name in names if metrics.get(name, {}).get("count") is not None
                }
                count = " / ".join(sorted(counts)) or NOTHING
                rows.append(Row((system, *labels, count, *_cells(block, system, "all", names))))
            if any(block.chance(name) is not None for name in names):
                rows.append(Row(("chance", *labels, "", *_chance_cells(block, names)), is_reference=True))
    header = ("system", "UAR of the speaker", "counted", "speakers", *(f"{n}-best (%)" for n in numbers))
    text = "Share of speakers (%) whose own UAR is above the threshold (paUAR-75 and so on; strictly above)."
    return Table("Speakers above a threshold (paUAR)", header, tuple(rows), f"{caption(block)} {text}", num_labels=3)


def group_table(block: Block) -> Table:
    """The same scores by group of speakers, and the gap."""
    share = [f"paUAR-{t} (1-best, {f})" for t in (75, 50) for f in ("all", "min10c2")]
    kept = ("UAR", "2-best UAR", *share)
    names = _columns(block, lambda name: name in kept or (_is_main(name) and not name.startswith("weighted")))
    rows = []
    for group in block.groups:
        for system in block.systems:
            if (system, group) in block.by_key:
                record = block.by_key[system, group]
                counts = (str(record.num_speakers), str(record.num_scored))
                rows.append(Row((group_label(group), system, *counts, *_cells(block, system, group, names))))
    header = ("group", "system", "speakers", "scored utterances", *names)
    text = (
        "paUAR in %. Gap: first group minus second; an interval without 0 speaks for a gap. (Of other columns the best "
        "minus the worst, which is never negative.) Worst group and ratio: metric by metric, without unknown speakers, "
        "chosen anew in every resample."
    )
    return Table("Scores by group of speakers", header, tuple(rows), f"{caption(block)} {text}", num_labels=2)


def group_label(group: str) -> str:
    """A group's words."""
    kind, _, column = group.partition(":")
    if kind in ("worst", "ratio"):
        return f"{'worst group' if kind == 'worst' else 'ratio, smaller / larger'}: {column}"
    return group.replace("gap:", "gap: ").replace("-", " - ") if kind == "gap" else group


def class_table(block: Block) -> Table:
    """CCC of predicted and voted share, class by class."""
    names = [f"class CCC {name}" for name in block.class_names]
    rows = [Row((system, *_cells(block, system, "all", names))) for system in block.systems]
    text = "CCC between the predicted and the voted share of a class, over all utterances with votes."
    return Table(
        "CCC of the share of each class", ("system", *block.class_names), tuple(rows), f"{caption(block)} {text}"
    )


def recall_table(block: Block) -> Table:
    """Recall, precision and F1 of every class."""
    return _grid(block, "Recall, precision and F1 of each class", ("recall", "precision", "F1"), block.class_names,
                 "Of the 1-best class.")  # fmt: skip


def attribute_table(block: Block) -> Table:
    """CCC, Pearson's correlation, RMSE and MAE of every attribute."""
    return _grid(block, "Attributes", ("CCC", "Pearson", "RMSE", "MAE"), vocab.ATTRIBUTES,
                 "RMSE and MAE on the scale of the targets, lower is better.")  # fmt: skip


def _grid(block: Block, title: str, kinds: Sequence[str], words: Sequence[str], text: str) -> Table:
    """A row a system and score, a column a class or attribute; columns that no record has are left out."""
    found = set(block.metric_names())
    words = [word for word in words if any(f"{kind} {word}" in found for kind in kinds)]
    rows = [
        Row((system, kind, *_cells(block, system, "all", [f"{kind} {word}" for word in words])))
        for system in block.systems
        for kind in kinds
        if words
    ]
    return Table(title, ("system", "score", *words), tuple(rows), f"{caption(block)} {text}", num_labels=2)


def difference_table(block: Block) -> Table:
    """Every system against those before it: difference, interval, p of the paired tests, Holm's correction."""
    rows = []
    for system in block.systems:
        for entry in block.whole(system).states.get("differences", ()):
            row = (entry["metric"], system, system_label(entry["than"]), cell(entry["metric"], entry, True))
            rows.append(Row((*row, *(_p(entry[name]) for name in ("p_permutation", "p_bootstrap", "p_holm")))))
    header = ("score", "system", "minus", "difference", "p, permutation", "p, bootstrap", "p, Holm")
    text = (
        "Tests by speaker, on the same utterances; Holm corrects for all rows of this table. They hold for the members "
        "trained: whether other seeds would agree is the ± of the scores."
    )
    return Table("Differences between systems", header, tuple(rows), f"{caption(block)} {text}", num_labels=3)


def _p(value: float | None) -> str:
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def other_table(block: Block) -> Table:
    """Every metric that no other table shows."""
    grids = (
        *itertools.product(("recall", "precision", "F1", "class CCC"), block.class_names),
        *itertools.product(("CCC", "Pearson", "RMSE", "MAE"), vocab.ATTRIBUTES),
    )
    shown = (*score_table(block).header, *group_table(block).header, *(f"{kind} {word}" for kind, word in grids))
    names = _columns(block, lambda name: name not in shown and not (PA_UAR.match(name) or CALIBRATION.match(name)))
    rows = [Row((system, *_cells(block, system, "all", names))) for system in block.systems]
    return Table("Further scores", ("system", *names), tuple(rows), caption(block))


def summary_table(block: Block) -> Table:
    """The main numbers with systems side by side, narrow enough for a terminal."""
    names = _columns(block, lambda name: UAR.match(name) or _is_main(name))
    names += [name for name in block.metric_names() if (m := PA_UAR.match(name)) and m[1] == "75"]
    rows = []
    for name in names:
        chance = _chance_cells(block, [name])[0]
        label = name + (" (%)" if name.startswith("paUAR") else "")
        rows.append(Row((label, *(_cells(block, system, "all", [name])[0] for system in block.systems), chance)))
    return Table(
        f"Scores, {block.split} split, {block.condition}", ("", *block.systems, "chance"), tuple(rows), caption(block)
    )


def speaker_points(
    block: Block, systems: Sequence[str]
) -> tuple[dict[str, dict[tuple[int, str, int], tuple[float, float, float]]], dict[tuple[int, str, int], float]]:
    """For a figure of paUAR: system -> (T, filter, N) -> value, low, high in %; and the same for a random guesser."""
    points: dict[str, dict[tuple[int, str, int], tuple[float, float, float]]] = {system: {} for system in systems}
    chance = {}
    for name in block.metric_names():
        if not (found := PA_UAR.match(name)):
            continue
        key = (int(found[1]), found[3], int(found[2]))
        for system in systems:
            metric = block.whole(system).metrics.get(name, {})
            if metric.get("defined", True) and _is_number(value := metric.get("value")):
                low, high = metric.get("low"), metric.get("high")
                points[system][key] = (value, low if _is_number(low) else value, high if _is_number(high) else value)
        if (guess := block.chance(name)) is not None:
            chance[key] = guess
    return points, chance


def caption(block: Block) -> str:
    """Which speech, how many speakers and utterances, how to read a cell, and what the corpus says of itself."""
    record = block.whole(block.systems[0])
    num_seeds = sorted({len(block.whole(system).seeds) for system in block.systems})
    resamples = block.protocol.get("settings.eval.num_resamples")
    speech = "Simulated speech. " if block.is_simulated else ""
    seeds = " or ".join(map(str, num_seeds)) + (" seed" if num_seeds == [1] else " seeds")
    spread = f"mean ± standard deviation over {seeds}" if num_seeds != [1] else "one seed"
    drawn = f", {resamples:,} resamples" if isinstance(resamples, int) else ""
    return (
        f"{speech}{block.split.capitalize()} split, {block.condition}: {record.num_speakers} speakers, "
        f"{record.num_utterances:,} utterances, {record.num_scored:,} of them with a consensus in the class set. "
        f"Cells: {spread} [95 % interval, resampled by speaker{drawn}]."
        + "".join(f" {note}" for note in block.protocol.get("notes", ()))
    )


def _columns(block: Block, is_wanted: Callable[[str], Any]) -> list[str]:
    return [name for name in block.metric_names() if is_wanted(name)]


def _cells(block: Block, system: str, group: str, names: Sequence[str]) -> tuple[str, ...]:
    metrics = block.by_key[system, group].metrics
    return tuple(cell(name, metrics.get(name), group.startswith("gap")) for name in names)


def _chance_cells(block: Block, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell(name, {"value": block.chance(name)}) for name in names)


def _chance_row(block: Block, names: Sequence[str]) -> Row:
    return Row(("chance (random ranking)", *_chance_cells(block, names)), is_reference=True)

"""Parts of benchmark tables: scores, curves over layers beside heads, conditions, speakers, published numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from seremo_jax.core.condition_names import Condition
from seremo_jax.reports import blocks, published, score_tables
from seremo_jax.reports.benchmark_rows import Entry, Run
from seremo_jax.reports.benchmark_text import NOTHING, Cell, Line, Part
from seremo_jax.reports.blocks import PA_UAR, UAR
from seremo_jax.reports.condition_scores import Conditions, gather
from seremo_jax.saliency import uncertainty

CURVES = {"ccs": "saliency (ccs)", "probe": "ridge probe"}
HEAD_SCORES = ("UAR", "macro-F1 (present)", "macro-F1 (all)", "class CCC mean", "CCC mean")
"""Scores that layers are judged by."""

STABLE, DROP = "stable share", "UAR relative drop (%)"


def target_words(row: Entry) -> str:
    """The class target in words."""
    return blocks.SYSTEM_LABELS.get(row.class_target, row.class_target)


def backbone_words(row: Entry) -> str:
    """Name of a backbone, of its folder alone where it is one."""
    name = str(row.block.protocol.get("backbone", "?"))
    return Path(name).name if Path(name).is_absolute() else name


def _cell(row: Entry, name: str, group: str = "all") -> Cell:
    record = row.block.by_key.get((row.system, group))
    metric = record.metrics.get(name) if record else None
    return Cell(score_tables.cell(name, metric, group.startswith("gap")), metric or {})


def _main_names(rows: Sequence[Entry]) -> list[str]:
    """UAR for each N, macro-F1, class CCC, CCC, paUAR-75: those that any row has, in the order of tables."""
    found = [name for row in rows for name in row.block.metric_names()]
    wanted = ("macro-F1", "weighted-F1", "CCC ", "class CCC mean", "paUAR-75")
    return [
        name for name in sorted(dict.fromkeys(found), key=blocks.place)
        if UAR.match(name) or (name.startswith(wanted) and not name.endswith("min10c2)"))
    ]  # fmt: skip


def _run_label(rows: Sequence[Entry]) -> tuple[str, ...]:
    return ("run",) if len({row.run.name for row in rows}) > 1 else ()


def _chance_line(rows: Sequence[Entry], names: Sequence[str], num_labels: int) -> Line:
    block = rows[0].block
    cells = tuple(_number(name, block.chance(name)) for name in names)
    return Line(("chance (random ranking)", *([""] * (num_labels - 1))), cells, is_reference=True)


def _number(name: str, value: float | None) -> Cell:
    return Cell(NOTHING) if value is None else Cell(score_tables.cell(name, {"value": value}), {"value": value})


def scores_part(
    rows: Sequence[Entry], flags: Sequence[str], labels: Sequence[str], words: Callable[[Entry], tuple[str, ...]]
) -> Part:
    """One row a system with the main scores, the number of its seeds and its commit; the chance row last."""
    names, run = _main_names(rows), _run_label(rows)
    lines = []
    for row, flag in zip(rows, flags, strict=True):
        told = (*words(row), *([row.run.name] if run else []), str(len(row.record.seeds)), row.commit)
        lines.append(Line(told, tuple(_cell(row, name) for name in names), flag))
    header = (*labels, *run, "seeds", "commit")
    return Part("Our records", header, tuple(names), (*lines, _chance_line(rows, names, len(header))))


def layers_part(rows: Sequence[Entry], flags: Sequence[str]) -> Part:
    """One row a system and layer: both curves there, and the head's scores."""
    run, names = _run_label(rows), _head_names(rows)
    lines = []
    for row, flag in zip(rows, flags, strict=True):
        told = (row.family, *([row.run.name] if run else []), str(row.record.layer), str(len(row.record.seeds)),
                row.commit)  # fmt: skip
        cells = (*(_curve_cell(row, kind) for kind in CURVES), *(_cell(row, name) for name in names))
        lines.append(Line(told, cells, flag))
    scores = (*CURVES.values(), *names)
    return Part("Our records", ("system", *run, "layer", "seeds", "commit"), scores, tuple(lines))


def _head_names(rows: Sequence[Entry]) -> list[str]:
    return [name for name in HEAD_SCORES if any(name in row.record.metrics for row in rows)]


def _curve_cell(row: Entry, kind: str) -> Cell:
    curve, layers = row.run.saliency["curves"].get(kind), list(row.run.saliency["layers"])
    if curve is None or row.record.layer not in layers:
        return Cell(NOTHING)
    k = layers.index(row.record.layer)
    metric = {"value": curve["score"][k], "low": curve["low"][k], "high": curve["high"][k]}
    return Cell(score_tables.cell(kind, metric), metric)


def regret_part(rows: Sequence[Entry]) -> Part:
    """What each curve's pick lacks to the best head, and the rank correlation, for each score."""
    run, lines = _run_label(rows), []
    for family in dict.fromkeys((row.run.name, row.family, row.is_baseline) for row in rows):
        mine = [row for row in rows if (row.run.name, row.family, row.is_baseline) == family]
        layers, curves = list(mine[0].run.saliency["layers"]), mine[0].run.saliency["curves"]
        for kind, curve in curves.items():
            for name in _head_names(mine) if curve is not None else ():
                heads = np.full(len(layers), np.nan)
                for row in mine:
                    value = row.record.metrics.get(name, {}).get("value")
                    if row.record.layer in layers and value is not None:
                        heads[layers.index(row.record.layer)] = value
                if np.isfinite(heads).sum() < 2:
                    continue  # one layer is no choice
                found = uncertainty.regret(np.array(curve["score"], float), heads)
                correlation = found.rank_correlation
                told = (family[1], *([family[0]] if run else []), CURVES.get(kind, kind), name,
                        str(np.isfinite(heads).sum()))  # fmt: skip
                lines.append(Line(told, (
                    Cell(str(layers[found.picked])), Cell(str(layers[found.best])), _number("", found.regret),
                    Cell(NOTHING) if math.isnan(correlation) else Cell(f"{correlation:+.3f}", {"value": correlation}),
                )))  # fmt: skip
    header = ("system", *run, "curve", "score of heads", "layers with heads")
    return Part("Does the curve pick the best head?", header,
                ("picked", "best head", "regret", "rank correlation"), tuple(lines))  # fmt: skip


def heard(runs: Sequence[Run], split: str) -> list[tuple[Run, Conditions]]:
    """Runs that have a split in other conditions than clean, with these."""
    found = []
    for run in runs:
        found += [(run, one) for one in gather([block for block in run.blocks if block.split == split])]
    return found


def conditions_part(made: Sequence[tuple[Run, Conditions]], flags: Mapping[tuple[str, str], str]) -> Part:
    """One row a condition, run and system: scores, relative drop of UAR, share of unchanged decisions."""
    rows = [Entry(run, found.clean, system) for run, found in made for system in found.systems]
    names, run_label, lines = _main_names(rows), _run_label(rows), []
    for condition in dict.fromkeys(c for _, found in made for c in (Condition(), *found.heard)):
        for run, found in made:
            if condition.effects and condition not in found.heard:
                continue
            for system in found.systems:
                row = Entry(run, found.heard[condition] if condition.effects else found.clean, system)
                told = (condition.id, system, *([run.name] if run_label else []), str(len(row.record.seeds)),
                        row.commit)  # fmt: skip
                cells = (*(_cell(row, name) for name in names), _drop(found, row, condition), _cell(row, STABLE))
                lines.append(Line(told, cells, flags[run.name, system]))
    header = ("condition", "system", *run_label, "seeds", "commit")
    return Part("Our records", header, (*names, "drop of UAR (%)", STABLE), tuple(lines))


def _drop(found: Conditions, row: Entry, condition: Condition) -> Cell:
    if DROP in row.record.metrics or not condition.effects:
        cell = _cell(row, DROP)
        return Cell(score_tables.cell("paUAR", cell.metric), cell.metric) if cell.metric else cell
    return _number("paUAR", found.relative_drop(condition, row.system, "UAR"))


def speakers_part(rows: Sequence[Entry], flags: Sequence[str]) -> Part:
    """paUAR-T by threshold, filter and N, of all speakers, of each group and of their gap; chance below each."""
    found = {name: match for row in rows for name in row.block.metric_names() if (match := PA_UAR.match(name))}
    numbers, run, lines = sorted({int(match[2]) for match in found.values()}), _run_label(rows), []
    groups = ("all", *dict.fromkeys(group for row in rows for group in row.block.groups))
    for threshold in sorted({int(match[1]) for match in found.values()}, reverse=True):
        for speakers in dict.fromkeys(match[3] for match in found.values()):
            names = [f"paUAR-{threshold} ({n}-best, {speakers})" for n in numbers]
            for group in groups:
                mine = [(row, flag) for row, flag in zip(rows, flags, strict=True)
                        if (row.system, group) in row.block.by_key]  # fmt: skip
                place = (f"above {threshold / 100:.2f}", speakers, score_tables.group_label(group))
                for row, flag in mine:
                    cells = tuple(_cell(row, name, group) for name in names)
                    counts = {str(cell.metric["count"]) for cell in cells if cell.metric.get("count") is not None}
                    told = (row.system, *([row.run.name] if run else []), *place, " / ".join(sorted(counts)),
                            str(len(row.record.seeds)), row.commit)  # fmt: skip
                    lines.append(Line(told, cells, flag))
                guess = tuple(_number(name, mine[0][0].block.by_key[mine[0][0].system, group].metrics.get(name, {})
                                      .get("chance")) for name in names)  # fmt: skip
                if any(cell.metric for cell in guess):
                    blank = [""] * len(run)
                    lines.append(Line(("chance", *blank, *place, "", "", ""), guess, is_reference=True))
    header = ("system", *run, "UAR of the speaker", "counted", "group", "speakers", "seeds", "commit")
    return Part("Our records", header, tuple(f"{n}-best (%)" for n in numbers), tuple(lines))


def published_parts(
    rows: Sequence[Entry], kinds: Sequence[str] = ("attributes", "classes", "multilabel", "paper")
) -> list[Part]:
    """Published rows by kind, with why each isn't comparable; of attributes only where ours were rated for these."""
    block, made = rows[0].block, []
    for kind in kinds:
        if kind == "attributes" and not any(name.startswith("CCC ") for name in block.metric_names()):
            continue
        scores = published.SCORES[kind]
        for is_apart in (False, True):
            lines = []
            for one in published.rows():
                reasons = published.differing(one, block.protocol, block.split) if one["kind"] == kind else None
                if reasons is not None and bool(reasons) == is_apart:
                    told = (one["system"], one["id"], one["release"] or "?", one["set"] or "?", one["source"],
                            ", ".join(reasons) or NOTHING)  # fmt: skip
                    lines.append(Line(told, tuple(Cell(one[column] or NOTHING) for column in scores)))
            if lines:
                here = ", ".join(published.ours(block.protocol, block.split).values())
                words = f"not comparable with ours ({here})" if is_apart else "of our corpus, release, set and classes"
                header = ("system", "id", "release", "set", "source", "differs in")
                title = f"Published, {words}: {published.TITLES[kind]} on MSP-Podcast"
                made.append(Part(title, header, tuple(scores.values()), tuple(lines), True))
    return made

"""Parts of benchmark tables: scores, curves over layers beside heads, conditions, speakers, published numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from seremo_jax.core.condition_names import Condition
from seremo_jax.core.ensemble import layer_word
from seremo_jax.evaluation import records
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports import published, rater_rows, score_tables
from seremo_jax.reports.benchmark_rows import Entry, Run
from seremo_jax.reports.blocks import ordered
from seremo_jax.reports.condition_scores import Conditions, gather
from seremo_jax.reports.condition_section import DROP, DROP_LABEL, STABLE_SHARE
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, names, plain
from seremo_jax.saliency import uncertainty

CURVES = {"ccs": "saliency (ccs)", "dccs": "saliency (dccs)", "probe": "ridge probe"}


def backbone_words(row: Entry) -> str:
    """Name of a backbone, of its folder alone where it is one."""
    name = str(row.block.protocol.get("backbone", "?"))
    return Path(name).name if Path(name).is_absolute() else name


def cell(row: Entry, metric: Metric, group: str = "all") -> Cell:
    """A score of a row, over all speakers or of a group."""
    return measured(row.block.entry(row.system, metric, group), metric, row.block.is_gap(group))


def _main_metrics(rows: Sequence[Entry]) -> list[Metric]:
    """UAR for each N, macro-F1, class CCC, CCC, paUAR-75: those that any row has, in the order of tables."""
    there = ordered([metric for row in rows for metric in row.block.metrics])
    return [metric for metric in there if score_tables.is_main(metric) or _is_main_share(metric)]


def _is_main_share(metric: Metric) -> bool:
    return metric.field("threshold") == score_tables.HIGH_THRESHOLD and metric.field("speakers") == "all"


def run_label(rows: Sequence[Entry]) -> tuple[str, ...]:
    """The label of a column that names the run, where rows are of several."""
    return ("run",) if len({row.run.name for row in rows}) > 1 else ()


def _reference_rows(rows: Sequence[Entry], metrics: Sequence[Metric], num_labels: int) -> list[Row]:
    """Human raters and chance."""
    block = rows[0].block
    cells = tuple(measured({"value": block.chance(metric)}, metric) for metric in metrics)
    chance = Row(("chance (random ranking)", *([""] * (num_labels - 1))), cells, is_reference=True)
    return [*rater_rows.rows(block, metrics, num_labels), chance]


def scores_part(
    rows: Sequence[Entry], flags: Sequence[str], labels: Sequence[str], words: Callable[[Entry], tuple[str, ...]]
) -> Table:
    """One row a system with the main scores, the number of its seeds and its commit; human raters and chance last."""
    metrics, run = _main_metrics(rows), run_label(rows)
    lines = []
    for row, flag in zip(rows, flags, strict=True):
        own = (*words(row), *([row.run.name] if run else []), str(len(row.record.seeds)), row.commit)
        lines.append(Row(own, tuple(cell(row, metric) for metric in metrics), marks=flag))
    header = (*labels, *run, "seeds", "commit")
    return Table("Our records", header, names(metrics), (*lines, *_reference_rows(rows, metrics, len(header))))


def against_regression_part(rows: Sequence[Entry], split: str) -> list[Table]:
    """Heads minus regressions with intervals and paired tests; no table where `launch.baseline` compared none."""
    runs = {row.run.name: row.run for row in rows if row.is_baseline}
    run, lines = run_label(rows), []
    for name, held in runs.items():
        for line in score_tables.difference_rows(records.read_differences(held.workdir, split)):
            lines.append(Row((line.labels[0], *([name] if run else []), *line.labels[1:]), line.cells))
    first, *others = score_tables.DIFFERENCE_LABELS
    table = Table("Heads minus regressions", (first, *run, *others), score_tables.DIFFERENCE_COLUMNS, tuple(lines),
                  score_tables.DIFFERENCE_READING)  # fmt: skip
    return [table] if lines else []


def layers_part(rows: Sequence[Entry], flags: Sequence[str]) -> Table:
    """One row a system and layer: all curves there, and the head's scores."""
    run, metrics = run_label(rows), _head_metrics(rows)
    lines = []
    for row, flag in zip(rows, flags, strict=True):
        own = (row.family, *([row.run.name] if run else []), layer_word(row.record.layer), str(len(row.record.seeds)),
               row.commit)  # fmt: skip
        cells = (*(_curve_cell(row, kind) for kind in CURVES), *(cell(row, metric) for metric in metrics))
        lines.append(Row(own, cells, marks=flag))
    scores = (*CURVES.values(), *names(metrics))
    return Table("Our records", ("system", *run, "layer", "seeds", "commit"), scores, tuple(lines))


def _head_metrics(rows: Sequence[Entry]) -> list[Metric]:
    """Scores that layers are judged by."""
    there = ordered([metric for row in rows for metric in row.block.metrics])
    return [metric for metric in there if "layers" in metric.about.also_in and metric.n == 1]


def _curve_cell(row: Entry, kind: str) -> Cell:
    curve, layers = row.run.saliency["curves"].get(kind), list(row.run.saliency["layers"])
    if curve is None or row.record.layer not in layers:
        return Cell(NOTHING)
    k = layers.index(row.record.layer)
    return measured({"value": curve["score"][k], "low": curve["low"][k], "high": curve["high"][k]})


def regret_part(rows: Sequence[Entry]) -> Table:
    """What each curve's pick lacks to the best head, and the rank correlation, for each score."""
    run, lines = run_label(rows), []
    for family in dict.fromkeys((row.run.name, row.family, row.is_baseline) for row in rows):
        members = [row for row in rows if (row.run.name, row.family, row.is_baseline) == family]
        layers, curves = list(members[0].run.saliency["layers"]), members[0].run.saliency["curves"]
        for kind, curve in curves.items():
            for metric in _head_metrics(members) if curve is not None else ():
                heads = np.full(len(layers), np.nan)
                for row in members:
                    value = row.block.value(row.system, metric)
                    if row.record.layer in layers and value is not None:
                        heads[layers.index(row.record.layer)] = value
                if np.isfinite(heads).sum() < 2:
                    continue  # one layer is no choice
                choice = uncertainty.regret(np.array(curve["score"], float), heads)
                correlation = choice.rank_correlation
                labels = (family[1], *([family[0]] if run else []), CURVES.get(kind, kind), metric.name,
                          str(np.isfinite(heads).sum()))  # fmt: skip
                lines.append(Row(labels, (
                    *plain(layers[choice.picked], layers[choice.best]), measured({"value": choice.regret}),
                    Cell(NOTHING) if math.isnan(correlation) else measured({"value": correlation}, is_difference=True),
                )))  # fmt: skip
    header = ("system", *run, "curve", "score of heads", "layers with heads")
    return Table("Does the curve pick the best head?", header,
                ("picked", "best head", "regret", "rank correlation"), tuple(lines))  # fmt: skip


def heard(runs: Sequence[Run], split: str) -> list[tuple[Run, Conditions]]:
    """Runs that have a split in other conditions than clean, with these."""
    pairs = []
    for run in runs:
        blocks = [block for block in run.blocks if block.split == split]
        pairs += [(run, conditions) for conditions in gather(blocks)]
    return pairs


def conditions_part(pairs: Sequence[tuple[Run, Conditions]], flags: Mapping[tuple[str, str], str]) -> Table:
    """One row a condition, run and system: scores, relative drop of UAR, share of unchanged decisions.

    Args:
      pairs: Runs with the conditions they were heard in.
      flags: (name of the run, system) -> mark of its footnote.
    """
    rows = [Entry(run, conditions.clean, system) for run, conditions in pairs for system in conditions.systems]
    metrics, label, lines = _main_metrics(rows), run_label(rows), []
    for condition in dict.fromkeys(c for _, conditions in pairs for c in (Condition(), *conditions.heard)):
        for run, conditions in pairs:
            if condition.effects and condition not in conditions.heard:
                continue
            for system in conditions.systems:
                row = Entry(run, conditions.block(condition), system)
                labels = (condition.id, system, *([run.name] if label else []), str(len(row.record.seeds)),
                          row.commit)  # fmt: skip
                cells = tuple(cell(row, metric) for metric in (*metrics, DROP, STABLE_SHARE))
                lines.append(Row(labels, cells, marks=flags[run.name, system]))
    header = ("condition", "system", *label, "seeds", "commit")
    return Table("Our records", header, (*names(metrics), DROP_LABEL, STABLE_SHARE.name), tuple(lines))


def speakers_part(rows: Sequence[Entry], flags: Sequence[str]) -> Table:
    """paUAR-T by threshold, filter and N, of all speakers, each group and their gap; raters and chance below each."""
    shares = score_tables.share_lines([metric for row in rows for metric in row.block.metrics])
    run, lines = run_label(rows), []
    groups = ("all", *dict.fromkeys(group for row in rows for group in row.block.groups))
    for (threshold, speakers), metrics in shares.items():
        for group in groups:
            here = [(row, flag) for row, flag in zip(rows, flags, strict=True)
                    if (row.system, group) in row.block.by_key]  # fmt: skip
            first = here[0][0]
            place = (f"above {threshold / 100:.2f}", speakers, first.block.group_label(group))
            for row, flag in here:
                cells = tuple(cell(row, metric, group) for metric in metrics)
                counts = {str(cell.numbers["count"]) for cell in cells if cell.numbers.get("count") is not None}
                labels = (row.system, *([row.run.name] if run else []), *place, " / ".join(sorted(counts)),
                          str(len(row.record.seeds)), row.commit)  # fmt: skip
                lines.append(Row(labels, cells, marks=flag))
            blank = [""] * len(run)
            human = rater_rows.cells_of(first.block, metrics, group)
            if any(cell.numbers for cell in human):
                lines.append(Row((rater_rows.ONE, *blank, *place, "", "", ""), human, is_reference=True))
            guess = [(first.block.entry(first.system, metric, group) or {}).get("chance") for metric in metrics]
            if any(chance is not None for chance in guess):
                cells = tuple(
                    measured({"value": chance}, metric) for metric, chance in zip(metrics, guess, strict=True)
                )
                lines.append(Row(("chance", *blank, *place, "", "", ""), cells, is_reference=True))
    header = ("system", *run, "UAR of the speaker", "counted", "group", "speakers", "seeds", "commit")
    return Table("Our records", header, score_tables.share_columns(shares), tuple(lines))


def published_parts(
    rows: Sequence[Entry], kinds: Sequence[str] = ("attributes", "classes", "multilabel", "paper")
) -> list[Table]:
    """Published rows by kind, with why each isn't comparable; of attributes only where ours were rated for these."""
    block, tables = rows[0].block, []
    for kind in kinds:
        if kind == "attributes" and not any(metric.kind == "ccc" for metric in block.metrics):
            continue
        scores = published.SCORES[kind]
        for is_apart in (False, True):
            lines = []
            for row in published.rows():
                reasons = published.differing(row, block.protocol, block.split) if row["kind"] == kind else None
                if reasons is not None and bool(reasons) == is_apart:
                    labels = (row["system"], row["id"], row["release"] or "?", row["set"] or "?", row["source"],
                              ", ".join(reasons) or NOTHING)  # fmt: skip
                    lines.append(Row(labels, plain(*(row[column] or NOTHING for column in scores))))
            if lines:
                here = ", ".join(published.ours(block.protocol, block.split).values())
                words = f"not comparable with ours ({here})" if is_apart else "of our corpus, release, set and classes"
                header = ("system", "id", "release", "set", "source", "differs in")
                title = f"Published, {words}: {published.TITLES[kind]} on MSP-Podcast"
                tables.append(Table(title, header, tuple(scores.values()), tuple(lines), is_published=True))
    return tables

"""Benchmark tables from result records alone: targets, layers, backbones, conditions, speakers, transfer, and others.

A table carries its protocol: rows of another one are refused, or flagged by footnotes. Published numbers stand apart.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from seremo_jax.core.artefacts import atomic_path
from seremo_jax.core.ensemble import layer_word
from seremo_jax.evaluation.records import ENROLMENT_FOLDER
from seremo_jax.features.manifest import OF_COPIES
from seremo_jax.reports import benchmark_parts as parts
from seremo_jax.reports import (
    benchmark_text,
    condition_pairs,
    enrolment_table,
    every_speaker_table,
    look,
    score_tables,
    transfer_table,
)
from seremo_jax.reports.benchmark_rows import Entry, Run, entries, load, load_below, marks
from seremo_jax.reports.benchmark_text import BenchmarkTable
from seremo_jax.reports.blocks import ReportError, flat, target_label
from seremo_jax.reports.table import Table

_OF_CONDITIONS = ("settings.eval.conditions",)
_OF_COPIES = ("copies", *(f"settings.{field}" for field in OF_COPIES))
_CLEAN = (*_OF_CONDITIONS, "condition_sources", "settings.eval.condition_seed")
"""Clean speech has nothing to do with what else was heard; rows in a condition heard the same noises and rooms."""
_OF_LAYERS = (*_CLEAN, "store", "settings.extract.*", "settings.saliency.*")
_OF_BACKBONES = (*_OF_LAYERS, "backbone", "backbone_revision", "final_norm", "settings.backbone.*")


def build(
    name: str, workdirs: Sequence[str | os.PathLike], split: str = "test", is_mixed: bool = False
) -> BenchmarkTable:
    """One table from the result records of the workdirs.

    Args:
      name: One of `NAMES`.
      workdirs: Of finished evaluations.
      split: Split of the rows.
      is_mixed: Whether rows of different protocol may stand in it, flagged by footnotes.

    Raises:
      ArtefactError: Records are missing or damaged.
      ReportError: Rows differ in protocol, or there are none of what the table is about.
    """
    if name == ENROLMENT:
        return _enrolment(load_below(workdirs, ENROLMENT_FOLDER), split, is_mixed)
    return _BUILDERS[name](load(workdirs), split, is_mixed)


def write(table: BenchmarkTable, folder: str | os.PathLike) -> list[Path]:
    """Writes `NAME.md`, `NAME.csv`, `NAME.tex`, and `NAME.png` of a table with a figure, each whole or not at all."""
    forms = {"md": benchmark_text.markdown, "csv": benchmark_text.csv_text, "tex": benchmark_text.latex}
    paths = [Path(folder) / f"{table.name}.{suffix}" for suffix in forms]
    for path, render in zip(paths, forms.values(), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(render(table), encoding="utf-8")
    if table.figure is not None:
        paths.append(Path(folder) / f"{table.name}.png")
        with atomic_path(paths[-1]) as temporary:
            look.render(table.figure, temporary)
    return paths


def _finished(name: str, title: str, tables: Sequence[Table], rows: Sequence[Entry], notes: dict[str, str],
              reading: str) -> BenchmarkTable:  # fmt: skip
    counts = "Counts are those of the first row. " if notes else ""
    commits = ", ".join(dict.fromkeys(row.commit for row in rows))
    caption = f"{score_tables.caption(rows[0].block)} {counts}paUAR in %. Commit: {commits}."
    return BenchmarkTable(name, title, tuple(tables), caption, notes, reading)


def _targets(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    rows = sorted(entries(runs, split), key=lambda row: (row.is_baseline, row.is_balanced, row.class_target != "votes"))
    flags, notes = marks(rows, _CLEAN, ("class_target", "class_kind"), is_mixed)
    labels = ("system", "class target", "class loss", "classes balanced", "layer")

    def words(row: Entry) -> tuple[str, ...]:
        is_balanced = "yes" if row.is_balanced else "in part" if row.is_balanced_in_part else "no"
        return row.kind, target_label(row.class_target), row.class_loss, is_balanced, layer_word(row.record.layer)

    own = parts.scores_part(rows, flags, labels, words)
    there = {(row.class_target, row.is_balanced) for row in rows if not row.is_baseline}
    absent = [f"{target} {'with' if is_balanced else 'without'} class balancing"
              for is_balanced in (False, True) for target in ("votes", "consensus")
              if (target, is_balanced) not in there]  # fmt: skip
    reading = (
        "It shows what the class target does where class balancing is the same: balancing by itself moves UAR, so the "
        "vote distribution with it doesn't compare with the consensus without. It doesn't show which target is better "
        "for other losses, backbones or corpora, nor that a difference is more than chance: see the paired tests of "
        "the report."
    )
    if absent:
        reading += f" Not trained, so that the comparison is not complete: {'; '.join(absent)}."
    tables = [own, *parts.against_regression_part(rows, split), *parts.published_parts(rows)]
    return _finished("targets", "Vote distribution against consensus", tables, rows, notes, reading)


def _layers(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    rows = [row for row in entries(runs, split) if row.record.layer >= 0]
    with_curves = [row for row in rows if "curves" in (row.run.saliency or {})]
    if not with_curves:
        raise ReportError("no workdir has saliency.json with the curves over layers: run python -m launch.saliency, "
                          "also where an older version wrote it")  # fmt: skip
    left_out = dict.fromkeys(row.run.name for row in rows if row not in with_curves)
    rows = sorted(with_curves, key=lambda row: (row.is_baseline, row.run.name, row.family, row.record.layer))
    flags, notes = marks(rows, _OF_LAYERS, (), is_mixed)
    tables = [parts.layers_part(rows, flags), parts.regret_part(rows)]
    reading = (
        "It shows whether the layer that a curve picks is one whose head scores well: "
        "regret is the best head's score minus that of the picked layer's head. Only layers with a head count, and the "
        "best one is picked on the split shown, so that regret leans upwards; from few layers a rank correlation says "
        "little. It doesn't show what layers without a head would score."
    )
    if any(flat(row.record.protocol).get("settings.ensemble.folds") for row in rows):
        reading += " Heads are of folds, so that the curves, of the tables' training split, saw speakers tested here."
    if left_out:
        reading += f" Left out, without curves: {', '.join(left_out)} ({len(left_out)})."
    return _finished("layers", "Curves over layers against head scores", tables, rows, notes, reading)


def _backbones(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    rows = entries(runs, split)
    flags, notes = marks(rows, _OF_BACKBONES, (), is_mixed)
    own = parts.scores_part(rows, flags, ("backbone", "windows", "layer", "system"), lambda row: (
        parts.backbone_words(row), str(row.block.protocol.get("settings.backbone.window", "?")),
        layer_word(row.record.layer), row.family))  # fmt: skip
    reading = (
        "It shows what heads of the same kind reach on each backbone's layer named. It doesn't rank backbones as such: "
        "their sizes, training data and numbers of layers differ, and another layer may serve each better (table "
        "layers)."
    )
    return _finished("backbones", "Backbones", [own, *parts.published_parts(rows)], rows, notes, reading)


def _conditions(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    heard = parts.heard(runs, split)
    if not heard:
        raise ReportError(f"no workdir has {split!r} in other conditions than clean: evaluate it with "
                          "--config.eval.conditions, see launch/README.md")  # fmt: skip
    rows = [Entry(run, conditions.clean, system) for run, conditions in heard for system in conditions.systems]
    flags, notes = marks(rows, (*_OF_CONDITIONS, *_OF_COPIES), ("copy_share",), is_mixed)
    left_out = [run.name for run in runs if not any(run is other for other, _ in heard)]
    own = parts.conditions_part(heard, dict(zip(((row.run.name, row.system) for row in rows), flags, strict=True)))
    paired = condition_pairs.pairs_part(heard)
    reading = (
        "It shows how much of the clean score is left where nothing was trained, and the share of utterances that keep "
        "their 1-best class. The conditions are rendered, not recorded in such places: it doesn't show how much people "
        "change their speech there. Drop is relative to the same system's clean score, so that a low clean score drops "
        "little."
    )
    if paired:
        reading += (
            " Heads that heard copies in noise and rooms (copy share above 0) were trained in conditions, but never on "
            "the recordings of this table."
        )
    if left_out:
        reading += f" Left out, heard in clean only: {', '.join(left_out)} ({len(left_out)})."
    return _finished("conditions", "Unseen acoustic conditions", [own, *paired], rows, notes, reading)


def _speakers(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    rows = entries(runs, split)
    flags, notes = marks(rows, _CLEAN, (), is_mixed)
    reading = (
        "It shows for what share of speakers the N-best UAR is above the threshold, by both filters, and by gender. A "
        "speaker with few utterances passes or fails by luck: compare with the chance row, which has the same speaker "
        "sizes. It doesn't show why speakers differ; a difference between genders is confounded with who was recorded."
    )
    tables = [parts.speakers_part(rows, flags), *parts.published_parts(rows, kinds=("paper",))]
    return _finished("speakers", "Speakers above a threshold", tables, rows, notes, reading)


def _transfer(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    rows = [row for row in entries(runs, split) if not row.is_baseline]
    if not rows:
        raise ReportError("no workdir has records of heads: run python -m launch.evaluate")
    cells = transfer_table.Cells.of(rows)
    flags, notes = marks(rows, (*_CLEAN, *transfer_table.OF_CORPORA), (), is_mixed)
    tables = transfer_table.parts(cells, dict(zip(map(id, rows), flags, strict=True)))
    resamples = rows[0].block.protocol.get("settings.eval.num_resamples")
    drawn = f", {resamples:,} resamples" if isinstance(resamples, int) else ""
    caption = (
        f"Rows: what a model was trained on; columns: what it is scored on, clean. Cells: mean ± standard deviation "
        f"over seeds [95 % interval, resampled by speaker of the corpus in the column{drawn}]. Human raters and chance "
        "are of all utterances of the column's largest cell."
    )
    reading = (
        "It shows what is left of a model's scores on a corpus that it was not trained on. A cell of a model's own "
        "corpus is of speakers held out of its training, another one of every utterance unless splits were asked for, "
        "so that cells of one column may be of other utterances (last part). Votes for words that a model does not "
        "know are masked, and a class that only the model knows counts as wrong wherever it is said. Columns differ in "
        "raters, recording and elicitation, so that a score of one does not compare with that of another: compare "
        "within a column, with the row of a human rater."
    )
    return BenchmarkTable(
        "transfer", "Trained on one corpus, scored on another", tuple(tables), caption, notes, reading
    )


def _enrolment(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    rows = entries(runs, split)
    flags, notes = marks(rows, _CLEAN, (), is_mixed)
    tables = enrolment_table.parts(rows, dict(zip(map(id, rows), flags, strict=True)))
    title = "Adapted to each test speaker"
    table = _finished(ENROLMENT, title, tables, rows, notes, enrolment_table.READING)
    caption = f"{score_tables.caption(rows[0].block, enrolment_table.draws(rows))} Commit: {rows[0].commit}."
    figure = functools.partial(enrolment_table.figure, rows=rows)
    return dataclasses.replace(table, caption=caption, figure=figure)


def _every_speaker(runs: list[Run], split: str, is_mixed: bool) -> BenchmarkTable:
    rows = [row for row in entries(runs, split) if every_speaker_table.is_defined(row)]
    if not rows:
        raise ReportError(
            "no workdir has records of heads with the UAR of the worst served speakers: run python -m launch.evaluate "
            "again, with several speakers in the split"
        )
    flags, notes = marks(rows, (*_CLEAN, *_OF_COPIES), ("copy_share",), is_mixed)
    tables = every_speaker_table.parts(rows, dict(zip(map(id, rows), flags, strict=True)))
    reading = every_speaker_table.READING
    table = _finished("every_speaker", "Who is served worst", tables, rows, notes, reading)
    return dataclasses.replace(table, figure=functools.partial(every_speaker_table.figure, rows=rows))


_BUILDERS: dict[str, Callable[[list[Run], str, bool], BenchmarkTable]] = {
    "targets": _targets,
    "layers": _layers,
    "backbones": _backbones,
    "conditions": _conditions,
    "speakers": _speakers,
    "transfer": _transfer,
    "every_speaker": _every_speaker,
}
ENROLMENT = "enrolment"
NAMES = (*_BUILDERS, ENROLMENT)
"""The tables there are."""

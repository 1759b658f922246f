"""The table `enrolment`: what a few utterances of a test speaker change, with labels and without; and its figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import metric
from seremo_jax.reports import score_tables
from seremo_jax.reports.benchmark_rows import Entry
from seremo_jax.reports.blocks import ReportError
from seremo_jax.reports.look import Look, Theme, canvas, legend_below
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, names

METRICS = (
    *(metric("uar", 1), metric("class_ccc_mean"), metric("worst_speakers", percent=20)),
    *(metric("worst_speakers_by_halves", percent=20), metric("gini")),
)
_DRAWN = (METRICS[0], METRICS[1], METRICS[2], METRICS[4])
_WORST = "UAR of the worst speaker"
_TITLES = {"enrolled": "Enrolled with labels", "prior": "Prior of the speaker, without labels (transductive)"}
_NUMBERS = {"enrolled": "labelled utterances", "prior": "utterances given together"}

READING = (
    "It shows what adapting a trained model to each test speaker changes. A row is the mean of a system's heads, the ± "
    "is over draws of the speaker's utterances, the interval over speakers. All rows are scored on the same "
    "utterances, one half of each speaker's; enrolled ones are of the other half. The worst speaker has no interval, "
    "for who it is changes from row to row. It doesn't show what adaptation brings where microphones and rooms change. "
    "Where all speakers acted the same classes, as in CREMA-D, a prior has little to find, and a gain or none says "
    "little of speech outside."
)


def _point(row: Entry) -> Mapping[str, Any] | None:
    """What a row was adapted by; None of a model as it was trained."""
    return row.record.axes.get("adapted_by")


def curves(rows: Sequence[Entry]) -> dict[tuple[str, str], list[tuple[int | None, Entry]]]:
    """(model, kind of adaptation) -> size and row of each point, with the model as it was trained as size 0.

    Raises:
      ReportError: No row is adapted.
    """
    runs = {row.run.name for row in rows}
    as_trained = {(row.run.name, row.system): row for row in rows if _point(row) is None}
    result: dict[tuple[str, str], list[tuple[int | None, Entry]]] = {}
    for row in rows:
        if (point := _point(row)) is None:
            continue
        # Tests are optional, so the name of the model is read from what tells it from its adaptations.
        axes = {name: value for name, value in row.record.axes.items() if name not in ("adaptation", "adapted_by")}
        base = next((other for (run, _), other in as_trained.items()
                     if run == row.run.name and dict(other.record.axes) == axes), None)  # fmt: skip
        if base is None:
            raise ReportError(f"{row.run.name} has {row.system}, and not the same model as it was trained")
        name = base.system if len(runs) == 1 else f"{base.system}, {base.run.name}"
        result.setdefault((name, point["kind"]), [(0, base)]).append((point["size"], row))
    if not result:
        raise ReportError("there is no curve of enrolment: evaluate with --config.eval.enrolment, e.g. (1,2,4,8)")
    return result


def draws(rows: Sequence[Entry]) -> str:
    """How many draws stand behind each row, in words."""
    numbers = sorted({point["draws"] for row in rows if (point := _point(row)) is not None})
    return f"{' or '.join(map(str, numbers))} draws of utterances"


def _size(size: int | None) -> str:
    return "all" if size is None else str(size)


def _worst(row: Entry) -> Cell:
    """The lowest UAR of a speaker, a mean over draws."""
    place = row.block.nbest.index(1)
    values = [speaker["uar"][place] for speaker in row.record.speakers]
    return measured({"value": min(values)}, METRICS[0]) if values else Cell(NOTHING)


def parts(rows: Sequence[Entry], flags: Mapping[int, str]) -> list[Table]:
    """Scores by kind of adaptation, and paired differences from the models as they were trained.

    Args:
      rows: Of one table.
      flags: Identity of a row -> mark of its footnote.
    """
    by_kind: dict[str, list[Row]] = {}
    for (model, kind), points in curves(rows).items():
        for size, row in points:
            scores = (measured(row.block.entry(row.system, score), score) for score in METRICS)
            words = (model, "none" if size == 0 else _size(size), row.commit)
            by_kind.setdefault(kind, []).append(Row(words, (*scores, _worst(row)), marks=flags[id(row)]))
    columns = (*names(METRICS), _WORST)
    tables = [Table(_TITLES[kind], ("model", _NUMBERS[kind], "commit"), columns, tuple(lines))
              for kind, lines in by_kind.items()]  # fmt: skip
    lines = []
    for row in rows:
        for entry in row.record.states.get("differences", ()):
            # Models as they were trained are compared with each other elsewhere, on all utterances.
            if _point(row) is not None and catalogue.from_json(entry["about"]) in METRICS:
                family = catalogue.from_json(entry["about"]).about.family
                lines += score_tables.difference_rows([entry | {"system": row.system}], family)
    if lines:
        tables.append(Table("Adapted minus as trained", score_tables.DIFFERENCE_LABELS, score_tables.DIFFERENCE_COLUMNS,
                            tuple(lines), score_tables.DIFFERENCE_READING))  # fmt: skip
    return tables


def figure(theme: Theme, rows: Sequence[Entry]) -> Figure:
    """Scores over the number of utterances, a row of panels a kind of adaptation; bars: 95 % interval over speakers."""
    drawn = curves(rows)
    models = tuple(dict.fromkeys(model for model, _ in drawn))
    kinds = tuple(dict.fromkeys(kind for _, kind in drawn))
    origin = f"{rows[0].block.protocol.get('corpus', '?')}, {rows[0].block.split} split"
    look = Look(theme, origin, models)
    title = "What do a few utterances of the speaker change?"
    subtitle = "mean of heads · bars: 95 % interval over speakers · the same utterances are scored at every point"
    size = (3.6 * len(_DRAWN) + 0.4, 3.3 * len(kinds) + 1.2)
    drawing, axes = canvas(look, title, subtitle, size, (len(kinds), len(_DRAWN)))
    for row_of_axes, kind in zip(axes, kinds, strict=True):
        for ax, score in zip(row_of_axes, _DRAWN, strict=True):
            for number, model in enumerate(models):
                points = drawn[model, kind]
                entries = [row.block.entry(row.system, score) for _, row in points]
                # Not to scale: what happens, happens from none to a few.
                x = np.arange(len(points)) + 0.08 * (number - (len(models) - 1) / 2)
                value, low, high = (
                    np.array([np.nan if (entry or {}).get(name) is None else entry[name] for entry in entries], float)
                    for name in ("value", "low", "high")
                )
                ax.vlines(x, low, high, color=look.color(model), lw=2, alpha=0.6)
                ax.plot(x, value, "o-", color=look.color(model), lw=1.8, ms=6, label=model)
            labels = ["none" if size == 0 else _size(size) for size, _ in drawn[models[0], kind]]
            ax.set_xticks(range(len(labels)), labels)
            ax.set(title=score.name, xlabel=_NUMBERS[kind])
    legend_below(drawing, axes[0, 0].get_legend_handles_labels()[0], 3)
    return drawing

"""The table `transfer`: models, by the corpus they were trained on, against the corpora that they were scored on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from seremo_jax.reports import rater_rows, score_tables
from seremo_jax.reports.benchmark_rows import Entry
from seremo_jax.reports.blocks import Block, ReportError, ordered
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, plain

OF_CORPORA = (
    *("corpus", "release", "is_simulated", "notes", "split_hash", "store", "heard", "members", "trained_on.*"),
    *("class_map.*", "num_utterances", "num_scored", "num_speakers", "settings.eval.splits"),
    *("settings.corpus.*", "settings.data.*", "settings.extract.*", "settings.saliency.*"),
    *(f"settings.targets.{name}" for name in ("other_map", "secondary_weight", "repeated_rater", "multi_primary")),
    *("settings.targets.min_raters", "settings.targets.distribution_of"),
)
"""Protocol fields in which two cells may differ: which corpora they are of, and how their ratings became votes."""

_KINDS = ("uar", "macro_f1", "class_ccc_mean")
"""Kinds of metric that have a part of the table, beside the main share of speakers."""


@dataclasses.dataclass(frozen=True, order=True)
class Corpus:
    """A corpus as cards name it."""

    name: str
    release: str

    def label(self, others: Sequence["Corpus"]) -> str:
        """Its name, with the release where another one has the same name."""
        has_namesake = any(other.name == self.name and other != self for other in others)
        return f"{self.name} ({self.release})" if has_namesake else self.name


def heard_on(row: Entry) -> Corpus:
    """The corpus that a row is scored on."""
    card = row.record.protocol
    return Corpus(str(card.get("corpus", "?")), str(card.get("release", "")))


def trained_on(row: Entry) -> Corpus:
    """The corpus that its model was trained on: that of its workdir, where the card names no other."""
    card = row.record.protocol.get("trained_on") or row.record.protocol
    return Corpus(str(card.get("corpus", "?")), str(card.get("release", "")))


@dataclasses.dataclass(frozen=True)
class Cells:
    """Rows of models and columns of corpora.

    Attributes:
      models: Key of each model -> its first row: a checkpoint, and the system and seeds of it that are scored.
      corpora: Corpora that are scored on.
      by_key: (model, corpus) -> what was scored.
      trained: Corpora that models were trained on.
    """

    models: Mapping[tuple, Entry]
    corpora: tuple[Corpus, ...]
    by_key: Mapping[tuple[tuple, Corpus], Entry]
    trained: tuple[Corpus, ...]

    @classmethod
    def of(cls, rows: Sequence[Entry]) -> "Cells":
        """Sorts the rows into cells.

        Raises:
          ReportError: Two runs fill one cell.
        """
        models: dict[tuple, Entry] = {}
        by_key: dict[tuple[tuple, Corpus], Entry] = {}
        for row in rows:
            # A model that was exported keeps the checkpoint of its training, so both are one row.
            model = (row.record.protocol.get("checkpoint"), row.system, row.record.seeds)
            models.setdefault(model, row)
            before = by_key.setdefault((model, heard_on(row)), row)
            if before is not row:
                raise ReportError(
                    f"{before.run.name} and {row.run.name} both have scores of one model ({row.system}) on "
                    f"{heard_on(row).name}: leave one of them out of --workdirs"
                )
        corpora = tuple(dict.fromkeys(corpus for _, corpus in by_key))
        # Corpora stand in the order of rows, so that the diagonal is one.
        trained = tuple(dict.fromkeys(trained_on(row) for row in models.values()))
        ranked = sorted(corpora, key=lambda c: trained.index(c) if c in trained else len(trained))
        return cls(models, tuple(ranked), by_key, trained)

    def labels(self, model: tuple) -> tuple[str, ...]:
        """Words of a row: what it was trained on, its system and the number of its seeds."""
        row = self.models[model]
        return trained_on(row).label(self.trained), row.system, str(len(row.record.seeds))

    def largest(self, corpus: Corpus) -> Block:
        """Records of the most utterances of a corpus."""
        here = [row.block for (_, heard), row in self.by_key.items() if heard == corpus]
        return max(here, key=lambda block: block.whole(block.systems[0]).num_utterances)


def parts(cells: Cells, flags: Mapping[int, str]) -> list[Table]:
    """A part for each score, and one that says what is behind each cell.

    Args:
      cells: Models and corpora.
      flags: Identity of a row -> mark of its footnote.
    """
    there = ordered([metric for row in cells.by_key.values() for metric in row.block.metrics])
    shown = [metric for metric in there if metric.n == 1 and metric.kind in _KINDS]
    shown += [metric for metric in there if metric == score_tables.SPEAKER_SHARE]
    columns, tables = tuple(corpus.label(cells.corpora) for corpus in cells.corpora), []
    for metric in shown:
        lines = []
        for model in cells.models:
            rows = [cells.by_key.get((model, corpus)) for corpus in cells.corpora]
            values = tuple(
                Cell(NOTHING, metric=metric) if row is None else measured(row.block.entry(row.system, metric), metric)
                for row in rows
            )
            marks = ",".join(dict.fromkeys(flags[id(row)] for row in rows if row is not None and flags[id(row)]))
            lines.append(Row(cells.labels(model), values, marks=marks))
        blocks = [cells.largest(corpus) for corpus in cells.corpora]
        human = tuple(rater_rows.cells_of(block, [metric])[0] for block in blocks)
        if any(cell.numbers for cell in human):
            lines.append(Row((rater_rows.ONE, "", ""), human, is_reference=True))
        if any(block.chance(metric) is not None for block in blocks):
            chance = tuple(measured({"value": block.chance(metric)}, metric) for block in blocks)
            lines.append(Row(("chance", "", ""), chance, is_reference=True))
        unit = f" ({metric.about.unit})" if metric.about.unit else ""
        tables.append(
            Table(f"{metric.name}{unit}, scored on", ("trained on", "system", "seeds"), columns, tuple(lines))
        )
    return [*tables, _behind(cells)]


def _behind(cells: Cells) -> Table:
    """What each cell is: how many are scored, which utterances and classes, from which run."""
    lines = []
    for (model, corpus), row in cells.by_key.items():
        record, heard = row.record, row.record.protocol.get("heard")
        what = f"{row.block.split} split" if heard in (None, row.block.split) else str(heard)
        numbers = (f"{record.num_utterances:,}", f"{record.num_scored:,}", record.num_speakers)
        mapped = record.protocol.get("class_map", {}).get(row.block.split)
        words = (*cells.labels(model)[:2], corpus.label(cells.corpora), what, row.run.name, row.commit)
        lines.append(Row(words, plain(*numbers, *_classes(record.protocol, mapped))))
    labels = ("trained on", "system", "scored on", "heard", "run", "commit")
    columns = ("utterances", "scored", "speakers", "classes of both", "votes masked")
    return Table("Behind each cell", labels, columns, tuple(lines))


def _classes(card: Mapping[str, Any], mapped: Mapping[str, Any] | None) -> tuple[str, str]:
    number = len(card.get("classes", ()))
    if mapped is None:
        return f"{number} of {number}", NOTHING
    share = 100 * mapped["masked_votes"] / max(mapped["masked_votes"] + mapped["votes"], 1)
    return f"{len(mapped['common'])} of {number}", f"{mapped['masked_votes']:,} ({share:.1f} %)"

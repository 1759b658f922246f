"""Every metric as one record: how it is written, its unit, digits, direction, table, and its sentence in the glossary.

A `Metric` is a kind with its parameters, e.g. `pa_uar` with threshold 75 of 1-best over all speakers. Scores, result
records, tables, figures, the glossary, CSV files and leaderboards read a metric's properties here and never take its
name apart. A new metric is one entry in `kinds.KINDS`.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from seremo_jax.metrics.kinds import KINDS, Kind

TABLES = frozenset(kind.table for kind in KINDS.values())
"""The tables that show metrics."""

SPEAKER_FILTERS = {"all": (1, 1), "min10c2": (10, 2)}
"""Speaker filter of a share of speakers -> least scored utterances and least classes among them. Both are always
printed."""


def is_counted(num_scored: Any, num_classes: Any, speaker_filter: str) -> Any:
    """Whether a speaker with so many scored utterances, of so many classes, passes a filter; of numbers or arrays."""
    least_scored, least_classes = SPEAKER_FILTERS[speaker_filter]
    return (num_scored >= least_scored) & (num_classes >= least_classes)


_PLACES = {key: place for place, key in enumerate(KINDS)}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A kind with its parameters.

    Attributes:
      kind: Key of the kind.
      n: N of N-best, where the kind has one.
      fields: The other parameters, by their names in order: (name, value).
    """

    kind: str
    n: int = 1
    fields: tuple[tuple[str, Any], ...] = ()

    @property
    def about(self) -> Kind:
        """Its kind."""
        return KINDS[self.kind]

    @property
    def name(self) -> str:
        """As it is written in tables and files."""
        best = "" if self.n == 1 else f"{self.n}-best "
        return KINDS[self.kind].template.format(n=self.n, best=best, **dict(self.fields))

    def place(self, words: Sequence[str] = ()) -> tuple:
        """Sort key for tables: the order of kinds, higher thresholds first, then N, then the other parameters.

        Args:
          words: Order of parameters that are words, e.g. the attributes and then the classes; others follow the
            alphabet, and whole numbers their size.
        """
        threshold = self.field("threshold")
        first = -threshold if isinstance(threshold, int) else 0
        named = [words.index(value) if value in words else value if isinstance(value, int) else len(words)
                 for _, value in self.fields]  # fmt: skip
        return _PLACES[self.kind], first, self.n, named, self.name

    def field(self, name: str) -> Any:
        """One parameter; None where the kind has no such one."""
        return dict(self.fields).get(name)

    def to_json(self) -> dict[str, Any]:
        """For a result record; `from_json` reads it."""
        return {"kind": self.kind, "n": self.n, **dict(self.fields)}


def metric(kind: str, n: int = 1, **fields: Any) -> Metric:
    """A metric by its kind's key and parameters.

    Raises:
      KeyError: No such kind, or a parameter of its template is missing.
    """
    complete = Metric(kind, n, tuple(sorted(fields.items())))
    _ = complete.name
    return complete


def from_json(entry: Mapping[str, Any]) -> Metric:
    """Reads what `Metric.to_json` wrote.

    Raises:
      KeyError: No such kind, or a parameter of its template is missing.
    """
    return metric(**entry)


def entries_by_name(entries: Mapping[Metric, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries as a result record holds them: by written name, each with its metric under `metric`."""
    return {key.name: {**entry, "metric": key.to_json()} for key, entry in entries.items()}


def entries_by_metric(entries: Mapping[str, Mapping[str, Any]]) -> dict[Metric, Mapping[str, Any]]:
    """Entries of a result record by metric; each has one under `metric`, as `entries_by_name` writes it.

    Raises:
      KeyError: An entry names no metric, or one of a kind that is not known.
    """
    return {from_json(entry["metric"]): entry for entry in entries.values()}


def compared(metrics: Iterable[Metric]) -> list[Metric]:
    """Those by which systems are compared, in the order of tables.

    Of a kind with a threshold this is the highest one, and of a kind that counts speakers the one that counts them all.
    """
    wanted = [key for key in metrics if key.n in {"every": (key.n,), "first": (1,), "": ()}[key.about.compared]]
    wanted = [key for key in wanted if key.field("speakers") in (None, "all")]
    highest = {key.kind: max(other.field("threshold") or 0 for other in wanted if other.kind == key.kind)
               for key in wanted}  # fmt: skip
    return sorted((key for key in wanted if (key.field("threshold") or 0) == highest[key.kind]), key=Metric.place)


def glossary(tables: Collection[str] | None = None) -> tuple[tuple[str, str], ...]:
    """(word, sentence) of every kind that has one, in the order of tables; of some tables' kinds, or of all."""
    return tuple(
        (kind.word, kind.sentence) for kind in KINDS.values() if kind.word and (tables is None or kind.table in tables)
    )

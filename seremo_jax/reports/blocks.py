"""Result records that may stand side by side: same split, same condition, same protocol but for what is compared."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.config_head_fields import EnsembleConfig
from seremo_jax.core.schema import ResultRecord
from seremo_jax.metrics import catalogue
from seremo_jax.metrics.catalogue import Metric

COMPARED_FIELDS = frozenset(
    {
        *("system", "layer", "layers", "seed", "seeds", "class_target", "members", "checkpoint", "fingerprint"),
        *(f"settings.{path}" for path in ensemble.MEMBER_FIELDS.values()),
        *(f"settings.ensemble.{field.name}" for field in dataclasses.fields(EnsembleConfig)),
        *("commit", "metrics"),
    }
)
"""Protocol fields in which the rows of one table may differ: they say what is compared. (`fingerprint` hashes all
settings, which are compared one by one; `code_version` names the commit, too; `metrics` says which there are.)"""

COUNTS = ("num_utterances", "num_scored", "num_speakers")
"""Fields of a record that two systems scored on the same utterances share."""

CLASS_TARGET_LABELS = {"votes": "vote distribution", "consensus": "consensus", vocab.BOTH_TARGETS: "both"}


class ReportError(ValueError):
    """Result records cannot stand in one table. The message names what differs."""


@dataclasses.dataclass(frozen=True)
class Block:
    """All records of one split and condition, of one protocol.

    Attributes:
      split: Split evaluated.
      condition: Acoustic condition.
      systems: Labels of the systems, in the order of the records.
      by_key: (system label, group) -> record.
      groups: Groups other than `all`, in the order of the records.
      protocol: Flat protocol fields common to all records.
      is_simulated: Whether the speech is simulated.
    """

    split: str
    condition: str
    systems: tuple[str, ...]
    by_key: Mapping[tuple[str, str], ResultRecord]
    groups: tuple[str, ...]
    protocol: Mapping[str, Any]
    is_simulated: bool

    def whole(self, system: str) -> ResultRecord:
        """Record of a system over all speakers."""
        return self.by_key[system, "all"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class set in order; empty where the records do not name one."""
        return tuple(self.whole(self.systems[0]).states.get("class_names", ()))

    @property
    def nbest(self) -> tuple[int, ...]:
        """The N of each entry of a speaker's `uar`."""
        named = self.protocol.get("settings.eval.nbest")
        return tuple(named or (metric.n for metric in self.metrics if metric.kind == "uar"))

    @functools.cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics over all speakers, in the order of tables."""
        return ordered([metric for system in self.systems for metric in self._entries[system, "all"]], self.class_names)

    @functools.cached_property
    def _entries(self) -> dict[tuple[str, str], dict[Metric, Mapping[str, Any]]]:
        return {key: catalogue.entries_by_metric(record.metrics) for key, record in self.by_key.items()}

    def entry(self, system: str, metric: Metric, group: str = "all") -> Mapping[str, Any] | None:
        """Entry of a metric; None where there is none."""
        return self._entries.get((system, group), {}).get(metric)

    def value(self, system: str, metric: Metric, group: str = "all") -> float | None:
        """Value of a metric; None where it is not there or not defined."""
        return value_of(self.entry(system, metric, group))

    def confusion(self, system: str) -> np.ndarray | None:
        """[C, C] utterances by consensus (rows) and 1-best class, mean over members; None where not recorded."""
        record = self.whole(system)
        counts = record.states.get("confusion")
        num_members = max((len(entry.get("members") or ()) for entry in record.metrics.values()), default=0)
        return None if counts is None else np.asarray(counts, np.float64) / max(num_members, 1)

    def chance(self, metric: Metric, group: str = "all") -> float | None:
        """What a random guesser scores; None where the records do not say."""
        for system in self.systems:
            chance = (self.entry(system, metric, group) or {}).get("chance")
            if chance is not None:
                return float(chance)
        return None

    def comparison(self, group: str) -> Mapping[str, Any]:
        """What a group compares, see `ResultRecord.comparison`; empty for a group by itself."""
        return next(record.comparison for (_, name), record in self.by_key.items() if name == group)

    def is_gap(self, group: str) -> bool:
        """Whether a group's numbers are differences between two groups."""
        return self.comparison(group).get("kind") == "gap"

    def group_label(self, group: str) -> str:
        """A group's words."""
        comparison = self.comparison(group)
        if not comparison:
            return group
        column = comparison["column"]
        sides = " - ".join(comparison.get("groups") or (column,))
        return {"gap": f"gap: {sides}", "worst": f"worst group: {column}",
                "ratio": f"ratio, smaller / larger: {column}"}[comparison["kind"]]  # fmt: skip


def ordered(metrics: Sequence[Metric], class_names: Sequence[str] = ()) -> tuple[Metric, ...]:
    """Each of the metrics once, in the order of tables: attributes in their order, classes in that of the class set."""
    words = (*vocab.ATTRIBUTES, *class_names)
    return tuple(sorted(dict.fromkeys(metrics), key=lambda metric: metric.place(words)))


def value_of(entry: Mapping[str, Any] | None) -> float | None:
    """Value of an entry of a record; None where there is none or it is not defined."""
    if entry is None or not entry.get("defined", True) or not is_number(entry.get("value")):
        return None
    return float(entry["value"])


def is_number(value: Any) -> bool:
    """Whether a value of a record is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def flat(protocol: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested protocol fields as `section.name` -> value."""
    fields: dict[str, Any] = {}
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            fields |= flat(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields


def system_label(axes: Mapping[str, Any], hidden: Sequence[str] = ()) -> str:
    """A system's words, its class target last.

    Args:
      axes: What tells it from others, see `ResultRecord`.
      hidden: Names of axes that are left out.
    """
    return ", ".join([*ensemble.words(axes, hidden), target_label(axes["class_target"])])


def target_label(class_target: str) -> str:
    """A class target's words."""
    return CLASS_TARGET_LABELS.get(class_target, class_target)


def blocks(records: Sequence[ResultRecord], is_simulated: bool) -> list[Block]:
    """Groups the records by split and condition.

    Raises:
      ReportError: Two records say the same thing twice, a system has no record over all speakers, or the records of
        one split and condition differ in protocol.
    """
    result = []
    for split, condition in dict.fromkeys((record.split, record.condition) for record in records):
        here = [record for record in records if (record.split, record.condition) == (split, condition)]
        by_key: dict[tuple[str, str], ResultRecord] = {}
        for record in here:
            key = (system_label(record.axes), record.group)
            if key in by_key:
                raise ReportError(
                    f"two records for system {key[0]!r}, group {key[1]!r}, split {split!r}, condition {condition!r}: "
                    "delete results.jsonl and run python -m launch.evaluate again"
                )
            by_key[key] = record
        systems = tuple(dict.fromkeys(system for system, _ in by_key))
        for system in systems:
            if (system, "all") not in by_key:
                raise ReportError(f"system {system!r} has no record of group 'all' on {split!r}, {condition!r}")
        groups = tuple(dict.fromkeys(group for _, group in by_key if group != "all"))
        common = _common_protocol(by_key)
        result.append(Block(split, condition, systems, by_key, groups, common, is_simulated))
    return result


def _common_protocol(by_key: Mapping[tuple[str, str], ResultRecord]) -> dict[str, Any]:
    """Protocol fields of all records without the compared ones, or ReportError with the fields that differ."""
    (first_key, first), *others = by_key.items()
    for key, record in others:
        here, there = _fixed_fields(first, key[1]), _fixed_fields(record, key[1])
        differing = sorted(field for field in here.keys() | there.keys() if here.get(field) != there.get(field))
        if differing:
            pairs = "; ".join(f"{field}: {here.get(field)!r} against {there.get(field)!r}" for field in differing)
            raise ReportError(
                f"{first_key[0]!r} and {key[0]!r} differ in protocol and cannot stand in one table ({pairs}). "
                "Evaluate both under one protocol: python -m launch.evaluate, one workdir a protocol"
            )
    return _fixed_fields(first, "")


def _fixed_fields(record: ResultRecord, group: str) -> dict[str, Any]:
    """What two rows must share: the protocol and, over all speakers, the utterances scored."""
    fields = {field: value for field, value in flat(record.protocol).items() if field not in COMPARED_FIELDS}
    if group == "all":
        fields |= {name: getattr(record, name) for name in COUNTS}
    return fields

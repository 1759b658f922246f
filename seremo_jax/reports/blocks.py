"""Result records that may stand side by side: same split, same condition, same protocol but for what is compared."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seremo_jax.core import vocab
from seremo_jax.core.config_fields import EnsembleConfig
from seremo_jax.core.members import MEMBER_FIELDS
from seremo_jax.core.schema import ResultRecord

COMPARED_FIELDS = frozenset(
    {
        *("system", "layer", "layers", "seed", "seeds", "class_target", "members", "checkpoint", "fingerprint"),
        *(f"settings.{path}" for path in MEMBER_FIELDS.values()),
        *(f"settings.ensemble.{field.name}" for field in dataclasses.fields(EnsembleConfig)),
    }
)
"""Protocol fields in which the rows of one table may differ: they say what is compared. (`fingerprint` hashes all
settings, which are compared one by one.)"""

COUNTS = ("num_utterances", "num_scored", "num_speakers")
"""Fields of a record that two systems scored on the same utterances share."""

SYSTEM_LABELS = {"votes": "vote distribution", "consensus": "consensus"}
UAR = re.compile(r"^(?:(\d+)-best )?UAR$")
PA_UAR = re.compile(r"^paUAR-(\d+) \((\d+)-best, (\w+)\)$")
"""Names of metrics: N of the N-best UAR; T, N and speaker filter of paUAR."""
CALIBRATION = re.compile(r"^(?:ECE|NLL|AURC|risk|set size|votes in set|consensus in set)\b")
"""Names of metrics that a section of their own shows."""


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
        return tuple(named or sorted(int(m[1] or 1) for name in self.metric_names() if (m := UAR.match(name))))

    def metric_names(self) -> list[str]:
        """Names of all metrics over all speakers, in the order of tables."""
        return sorted({name for system in self.systems for name in self.whole(system).metrics}, key=place)

    def confusion(self, system: str) -> np.ndarray | None:
        """[C, C] utterances by consensus (rows) and 1-best class, mean over members; None where not recorded."""
        record = self.whole(system)
        counts = record.states.get("confusion")
        num_members = max((len(entry.get("members") or ()) for entry in record.metrics.values()), default=0)
        return None if counts is None else np.asarray(counts, np.float64) / max(num_members, 1)

    def chance(self, name: str) -> float | None:
        """What a random guesser scores, from the records, or N / C for UAR."""
        for system in self.systems:
            given = self.whole(system).metrics.get(name, {}).get("chance")
            if given is not None:
                return float(given)
        found = UAR.match(name)
        return int(found[1] or 1) / len(self.class_names) if found and self.class_names else None


def place(name: str) -> tuple[int, str]:
    """Sort key: UAR and N-best UAR, F1, class CCC, CCC by attribute and their mean, then the alphabet."""
    if found := UAR.match(name):
        return (int(found[1] or 1), name)
    if found := PA_UAR.match(name):
        return (200 - int(found[1]), name)  # the higher threshold first
    order = ("macro-F1", "weighted-F1", "class CCC mean", *(f"CCC {name}" for name in (*vocab.ATTRIBUTES, "mean")))
    return (next((100 + i for i, start in enumerate(order) if name.startswith(start)), 200), name)


def flat(protocol: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested protocol fields as `section.name` -> value."""
    fields: dict[str, Any] = {}
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            fields |= flat(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields


def system_label(system: str) -> str:
    """A system's words: `votes` is the vote distribution, also behind a layer (`layer 3, votes`)."""
    *before, target = system.split(", ")
    return ", ".join([*before, SYSTEM_LABELS.get(target, target)])


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
            key = (system_label(record.system), record.group)
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

"""Scores by acoustic condition, from result records: drop against clean, curves over the SNR, ranges over noises.

Reads records and computes no score anew. Source: METHOD.md, section 9 (OURS).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from seremo_jax.core import condition_names, vocab
from seremo_jax.core.condition_names import Condition, Effect
from seremo_jax.metrics.catalogue import Metric
from seremo_jax.reports.blocks import COUNTS, Block, ReportError


class Point(NamedTuple):
    """A score at one SNR or RT60, with its 95 % interval; without one, both bounds are the value."""

    at: float
    value: float
    low: float
    high: float


class Range(NamedTuple):
    """A score over several kinds of noise or room: mean, lowest and highest, and how many."""

    mean: float
    lowest: float
    highest: float
    num: int


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The records of one split in every condition it was heard in.

    Attributes:
      split: The split.
      clean: Its clean block.
      heard: The other conditions, in the order of the records.
    """

    split: str
    clean: Block
    heard: Mapping[Condition, Block]

    @property
    def systems(self) -> tuple[str, ...]:
        """Labels of the systems."""
        return self.clean.systems

    def block(self, condition: Condition) -> Block:
        """The records in a condition."""
        return self.heard[condition] if condition.effects else self.clean

    def entry(self, condition: Condition, system: str, metric: Metric) -> Mapping[str, Any] | None:
        """Entry of a metric over all speakers, None where it is not there."""
        return self.block(condition).entry(system, metric)

    def value(self, condition: Condition, system: str, metric: Metric) -> float | None:
        """Value of a metric over all speakers, None where it is not defined."""
        return self.block(condition).value(system, metric)

    def point(self, condition: Condition, system: str, metric: Metric, at: float = 0.0) -> Point | None:
        """Value of a metric with its interval, None where it is not defined; `at` is its place on a curve."""
        value = self.value(condition, system, metric)
        if value is None:
            return None
        low, high = (self.entry(condition, system, metric).get(side) for side in ("low", "high"))
        return Point(at, value, value if low is None else low, value if high is None else high)

    def snr_curves(self, system: str, metric: Metric) -> dict[str, list[Point]]:
        """Kind of noise -> points by falling SNR, of the conditions that are noise and nothing else."""
        return self._curves(system, metric, "noise")

    def rt60_curves(self, system: str, metric: Metric) -> dict[str, list[Point]]:
        """Kind of room -> points by rising RT60, of the conditions that are reverberation and nothing else."""
        return self._curves(system, metric, "reverb")

    def _curves(self, system: str, metric: Metric, family: str) -> dict[str, list[Point]]:
        curves: dict[str, list[Point]] = {}
        for condition in self.heard:
            if condition.family == family:
                effect = condition.noise or condition.room
                if (point := self.point(condition, system, metric, effect.value)) is not None:
                    curves.setdefault(effect.name, []).append(point)
        is_falling = family == "noise"
        return {kind: sorted(points, reverse=is_falling) for kind, points in curves.items()}

    def over_noises(self, system: str, metric: Metric) -> dict[tuple[Effect | None, float], Range]:
        """(room, SNR) -> mean and range over the kinds of noise; the room is None where there is none."""
        values: dict[tuple[Effect | None, float], list[float]] = {}
        for condition in self.heard:
            value = self.value(condition, system, metric)
            if condition.noise is not None and condition.family in ("noise", "combined") and value is not None:
                values.setdefault((condition.room, condition.noise.value), []).append(value)
        places = sorted(values, key=lambda place: (str(place[0] or ""), -place[1]))
        return {
            place: Range(sum(kinds) / len(kinds), min(kinds), max(kinds), len(kinds))
            for place, kinds in ((place, values[place]) for place in places)
        }


def gather(blocks: Sequence[Block]) -> list[Conditions]:
    """The splits that were heard in conditions besides the clean one.

    Raises:
      ReportError: A split was not heard clean, or a condition differs from clean in protocol or in utterances.
    """
    splits = []
    for split in dict.fromkeys(block.split for block in blocks):
        here = {block.condition: block for block in blocks if block.split == split}
        clean = here.pop(vocab.CLEAN, None)
        if not here:
            continue
        if clean is None:
            raise ReportError(
                f"split {split!r} has records in {', '.join(here)}, but none in clean to compare them with: run "
                "python -m launch.evaluate again"
            )
        for name, block in here.items():
            _require_comparable(clean, block, f"{split}, {name}")
        splits.append(Conditions(split, clean, {condition_names.parse(name): block for name, block in here.items()}))
    return splits


def _require_comparable(clean: Block, block: Block, what: str) -> None:
    fields = sorted(field for field in {*clean.protocol, *block.protocol} if field not in COUNTS)
    differing = [field for field in fields if clean.protocol.get(field) != block.protocol.get(field)]
    if clean.systems != block.systems:
        differing.append("systems")
    else:
        differing += [
            name for name in COUNTS
            if any(getattr(clean.whole(s), name) != getattr(block.whole(s), name) for s in clean.systems)
        ]  # fmt: skip
    if differing:
        raise ReportError(
            f"records of {what} and of clean differ in {', '.join(differing)}: run python -m launch.evaluate again"
        )

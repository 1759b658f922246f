"""The human row: what raters score on the utterances of a split, judged like a model against the consensus of others.

Sums of raters have the keys of a system's, so that scores, resamples and intervals are made by the same functions. All
resamples draw the same speakers as those of systems.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from seremo_jax.core import vocab
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.evaluation import system_scores, system_sums
from seremo_jax.evaluation.alignment import Aligned, Cells
from seremo_jax.evaluation.speakers import CURVE
from seremo_jax.evaluation.states import Settings
from seremo_jax.evaluation.system_sums import CLASSES, CellSums, GroupTargets
from seremo_jax.metrics import intervals, raters, resampling
from seremo_jax.metrics.catalogue import Metric, entries_by_name

GAP_GROUP = "gap:female-male"

MOST_OTHERS, MOST_ON_PANEL = 4, 8
"""Raters whose plurality panels are judged against, and raters on a panel, at most."""

ENOUGH = 0.9
"""Share of the voted utterances that should have votes enough for the largest panel and its target."""

_OF_SHARES = ("class_ccc_mean", "class_ccc")
"""Kinds of metric of half of the raters, whose answer is the share of each class and no class."""

_OF_PANELS = ("uar", "macro_f1", "class_ccc_mean", "pa_uar")
"""Kinds of metric that are recorded of panels; of one rater all are."""


@dataclasses.dataclass(frozen=True)
class Raters:
    """What raters score, and what systems need to be held against them.

    Attributes:
      num_others: Raters whose plurality panels are judged against; 0 where there are no panels.
      panel: [B, C] float32 probability of each such plurality; 0 where an utterance has too few votes.
      sums: Sums of cells [cells, 1, ...] that are the same for every system, for `system_scores`.
      states: Group -> what the record of the first system says of raters, also of the gap between genders; of `all`
        `absent` says why there is nothing.
    """

    num_others: int
    panel: Float[np.ndarray, "B C"]
    sums: resampling.Sums
    states: dict[str, dict[str, Any]]

    @classmethod
    def of(
        cls, aligned: Aligned, cells: Cells, groups: Mapping[str, GroupTargets], settings: Settings,
        section: EvalConfig, condition: str,
    ) -> "Raters":  # fmt: skip
        """Of the votes of a split; see `absent_for` for when there is nothing to say."""
        nothing = np.zeros((len(aligned.unit), len(aligned.class_names)), np.float32)
        if reason := absent_for(aligned.votes, condition):
            return cls(0, nothing, {}, {"all": {"absent": reason}})
        largest, num_others = panel_sizes(aligned.votes)
        bench = _Bench(aligned, cells, groups, dataclasses.replace(settings, nbest=(1,), ground=None), section)
        panelled = np.where(aligned.votes.sum(axis=1, keepdims=True) >= largest + num_others, aligned.votes, 0)
        panels = [raters.panel_answers(panelled, size, num_others) for size in range(1, largest + 1)]
        target = panels[0].sum(axis=2)
        answers = np.stack([raters.class_sums(joint)[0] for joint in panels], axis=1)
        sums = {
            system_sums.PANEL_SUPPORT: bench.by_cell(target)[:, None],
            system_sums.PANEL_ANSWERS: bench.by_cell(answers)[:, None],
        }
        return cls(num_others, target.astype(np.float32), sums, bench.states(panels, panelled, num_others))


def absent_for(votes: Num[np.ndarray, "B C1"], condition: str) -> str:
    """Why raters cannot be scored; empty where they can."""
    if condition != vocab.CLEAN:
        return "raters heard the recordings as they are, not in this condition"
    if not np.issubdtype(votes.dtype, np.integer):
        return "label policies make parts of votes, and a rater cannot be drawn from these"
    if not (votes.sum(axis=1) > 1).any():
        return "no utterance has votes of two raters"
    return ""


def panel_sizes(votes: Int[np.ndarray, "B C1"]) -> tuple[int, int]:
    """Raters on the largest panel, and other raters that panels are judged against, for these votes.

    Half of the raters that most voted utterances have are the target, at most `MOST_OTHERS`, and the rest the panel.
    """
    number = votes.sum(axis=1)
    usual = max(int(np.quantile(number[number > 1], 1 - ENOUGH, method="lower")), 2)
    num_others = min(MOST_OTHERS, -(-usual // 2))
    return min(MOST_ON_PANEL, usual - num_others), num_others


Entries = dict[str, dict[Metric, dict[str, Any]]]
"""Group -> metric -> entry of a record."""


def _only(kinds: Sequence[str], entries: Entries) -> Entries:
    """The entries of metrics of some kinds."""
    return {group: {key: entry for key, entry in own.items() if key.kind in kinds} for group, own in entries.items()}


@dataclasses.dataclass(frozen=True)
class _Bench:
    """Where raters are judged: the utterances, cells, groups and settings of a split, those of 1-best only."""

    aligned: Aligned
    cells: Cells
    groups: Mapping[str, GroupTargets]
    settings: Settings
    section: EvalConfig

    def by_cell(self, values: Num[np.ndarray, "B *shape"]) -> Float[np.ndarray, "cells *shape"]:
        """Sums of utterances over cells."""
        sums = np.zeros((len(self.cells.unit), *values.shape[1:]))
        np.add.at(sums, self.cells.cell, values)
        return sums

    def states(
        self, panels: Sequence[np.ndarray], panelled: Int[np.ndarray, "B C1"], num_others: int
    ) -> dict[str, dict[str, Any]]:
        """`Raters.states`: rows of one rater, of half of them, and of panels of every size."""
        votes = self.aligned.votes[:, :-1]
        number, single = votes.sum(axis=1), np.ones(len(votes), np.int64)
        joint = raters.leave_one_out(self.aligned.votes)
        whole = self.aligned.groups["all"]
        chances, curve = np.split(self._passing(joint, whole, (*self.settings.thresholds, *CURVE)),
                                  [len(self.settings.thresholds)], axis=1)  # fmt: skip
        halves = self._entries(None, raters.share_sums(votes, number // 2, number - number // 2), None)
        alone = self._entries(joint, raters.share_sums(votes, single, number - 1), chances)
        rows = [
            ({"raters": 1, "others": "all"}, alone),
            ({"raters": "half", "others": "half"}, _only(_OF_SHARES, halves)),
        ]
        for size, answers in enumerate(panels, 1):
            shares = raters.share_sums(panelled[:, :-1], size * single, num_others * single)
            about = {"raters": size, "others": num_others}
            own = self._entries(answers, shares, self._passing(answers, whole, self.settings.thresholds))
            rows.append((about, _only(_OF_PANELS, own)))
        states: dict[str, dict[str, Any]] = {}
        for group in rows[0][1]:
            states[group] = {"rows": [about | {"metrics": entries_by_name(by[group])} for about, by in rows]}
        states["all"]["curve"] = self._curve(curve)
        return states

    def _passing(self, joint: np.ndarray, is_in: np.ndarray, thresholds: tuple[int, ...]) -> np.ndarray:
        """[U, T] how likely each unit passes each T by those of its utterances that are in."""
        unit, num_units = self.aligned.unit[is_in], len(self.aligned.speakers)
        return raters.passing_by_draw(joint[is_in], unit, num_units, thresholds, self.section.seed)

    def _entries(
        self, joint: np.ndarray | None, shares: Mapping[str, np.ndarray], passing: np.ndarray | None
    ) -> Entries:
        """Of every metric; `joint` and `passing` (over all utterances) of answers that are classes."""
        sums, support = self._cell_sums(joint, shares)
        statistics, drawn = {}, {}
        for group, is_in in self.aligned.groups.items():
            known, rows = self.groups[group], self.cells.is_in(group)
            targets = GroupTargets(self._by_unit(support, rows), known.eligible, known.chance[:, :1])
            own = system_sums.unit_statistics(sums, self.cells, group, targets, self.settings)
            if joint is None:
                share = np.zeros((len(own.units), len(self.settings.thresholds)))
            elif group == "all" or len(self.cells.unit) == len(self.aligned.speakers):
                share = passing[own.units]
            else:
                share = self._passing(joint, is_in, self.settings.thresholds)[own.units]
            # Which raters answer decides whether a speaker passes: the probability stands where a system has 0 or 1.
            passed = share[:, None, None, None, :] * known.eligible[own.units][:, None, :, None, None]
            statistics[group] = dataclasses.replace(own, sums=own.sums | {"passing": passed})
            drawn[group] = resampling.Group(statistics[group].sums, self._means(statistics[group]), own.units)
        return self._resampled(statistics, drawn)

    def _cell_sums(self, joint: np.ndarray | None, shares: Mapping[str, np.ndarray]) -> tuple[CellSums, np.ndarray]:
        """Sums of cells as one member and one N, and utterances of each cell and class."""
        num_classes = len(self.settings.class_names)
        if joint is None:
            joint = np.zeros((len(self.aligned.unit), num_classes, num_classes + 1))
        right, support, predicted = (self.by_cell(part) for part in raters.class_sums(joint))
        sums = {"right": right[:, None, None], "predicted": predicted[:, None, None]}
        if self.aligned.is_offered is not None:
            # As for systems: a class that raters could not choose has no share of theirs.
            shares = {what: part * self.aligned.is_offered for what, part in shares.items()}
        sums |= {intervals.MomentSum(CLASSES, what): self.by_cell(part)[:, None] for what, part in shares.items()}
        empty = np.zeros((len(self.cells.groups), 1, 1, num_classes, num_classes))
        return CellSums(sums, {CLASSES: np.zeros((2, 1, num_classes))}, empty), support

    def _by_unit(self, values: Float[np.ndarray, "cells C"], rows: np.ndarray) -> Float[np.ndarray, "U C"]:
        sums = np.zeros((len(self.aligned.speakers), values.shape[1]))
        np.add.at(sums, self.cells.unit[rows], values[rows])
        return sums

    def _means(self, statistics: system_sums.Statistics) -> Any:
        def means(sums: resampling.Sums) -> dict[Metric, np.ndarray]:
            scores = system_scores.rater_scores(sums, statistics, self.settings)
            return {key: value.means(np.ones((len(value.values), 1))) for key, value in scores.items()}

        return means

    def _resampled(
        self, statistics: Mapping[str, system_sums.Statistics], drawn: Mapping[str, resampling.Group]
    ) -> Entries:
        """Entries with intervals, of the same resamples as those of systems."""
        num_units, section = len(self.aligned.speakers), self.section
        resampled = resampling.bootstrap_groups(drawn, num_units, section.num_resamples, section.seed)
        number = {group: int(resampling.used_units(own.sums).sum()) for group, own in statistics.items()}
        points = {
            group: system_scores.point(own, self.settings, system_scores.rater_scores)
            for group, own in statistics.items()
        }
        entries = {
            group: {key: intervals.entry(value, resampled[group][key], number[group]) for key, value in scores.items()}
            for group, scores in points.items()
        }
        if self.section.group_by == "gender" and {"female", "male"} <= points.keys():
            women, men = points["female"], points["male"]
            entries[GAP_GROUP] = {
                key: intervals.gap_entry(
                    women[key], men[key], resampled["female"][key] - resampled["male"][key], ("female", "male"),
                    number["female"] + number["male"],
                )
                for key in women
            }  # fmt: skip
        return entries

    def _curve(self, passing: Float[np.ndarray, "U T"]) -> dict[str, list[Any]]:
        """paUAR(T) of one rater at every T of the curve, all known speakers with a scored utterance."""
        eligible = self.groups["all"].eligible[:, 0]
        share = 100 * passing[eligible].mean(axis=0) if eligible.any() else np.zeros(len(CURVE))
        return {"thresholds": list(CURVE), "value": [round(float(value), 3) for value in share]}

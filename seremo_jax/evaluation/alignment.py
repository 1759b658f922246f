"""Predictions, targets and utterance table of one split, joined by utterance id and checked."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.core import vocab
from seremo_jax.core.schema import Predictions
from seremo_jax.data.tables import in_split
from seremo_jax.data.targets import Targets
from seremo_jax.metrics.catalogue import SPEAKER_FILTERS
from seremo_jax.metrics.class_distances import Ground, ground_of
from seremo_jax.metrics.passing import is_eligible

MOST_NUMBERS = 10
"""Different numbers up to which each makes a group; more of them (ages) are grouped by decade."""


class AlignmentError(ValueError):
    """Predictions, targets and utterance table do not belong together. The message names what is missing."""


@dataclasses.dataclass(frozen=True)
class Cells:
    """Finest sets of utterances that units and groups are made of: those of one unit in one group.

    Attributes:
      cell: [B] int32 cell of each utterance.
      unit: [cells] unit of each cell, ascending; every unit has one.
      group: [cells] number of the group of each cell. Each utterance is in `all`, number 0, and in one more group, if
        there are any: its cell has the number of that one.
      groups: Names of the groups, `all` first.
    """

    cell: np.ndarray
    unit: np.ndarray
    group: np.ndarray
    groups: tuple[str, ...]

    def numbers(self, group: str) -> list[int]:
        """Numbers of the groups that this one is made of: `all` of all, another of itself."""
        return list(range(len(self.groups))) if group == "all" else [self.groups.index(group)]

    def is_in(self, group: str) -> Bool[np.ndarray, " cells"]:
        """Whether each cell is in the group."""
        return np.isin(self.group, self.numbers(group))


@dataclasses.dataclass(frozen=True)
class Aligned:
    """A split ready to be scored; rows [B] are sorted by utterance id, so that no result depends on their order.

    Attributes:
      predictions_attributes: [E, B, A] float32.
      predictions_distribution: [E, B, C] float32.
      unit: [B] int32 unit that is resampled: the speaker, or the utterance where the speaker is unknown.
      speakers: [U] speaker of each unit, empty text where unknown.
      genders: [U] gender of each unit.
      groups: `all` and each value of the grouping column -> [B] bool, the utterances in it.
      consensus: [B] int32 class, -1 where the utterance is not scored.
      distribution: [B, C] float32 vote shares.
      has_votes: [B] bool.
      attributes: [B, A] float32.
      has_attribute: [B, A] bool.
      class_names: Class set in order.
      attribute_names: Attributes in order.
      ground: How far classes are apart, read from all targets that were given; None where they do not say.
      votes: [B, C + 1] votes of each class and, last, outside the class set; int64, or float64 where policies make
        parts of votes.
      durations: [B] seconds; NaN where the table does not say.
      is_offered: [B, C] bool, raters could choose the class; None where they could choose all.
    """

    predictions_attributes: np.ndarray
    predictions_distribution: np.ndarray
    unit: np.ndarray
    speakers: tuple[str, ...]
    genders: tuple[str, ...]
    groups: dict[str, np.ndarray]
    consensus: np.ndarray
    distribution: np.ndarray
    has_votes: np.ndarray
    attributes: np.ndarray
    has_attribute: np.ndarray
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    ground: Ground | None
    votes: np.ndarray
    durations: np.ndarray
    is_offered: np.ndarray | None = None

    @property
    def is_known(self) -> np.ndarray:
        """[U] bool, the unit is a known speaker."""
        return np.asarray([speaker != "" for speaker in self.speakers], bool)

    def cells(self) -> Cells:
        """Cells of the split; groups are numbered in the order of `groups`."""
        group = np.zeros(len(self.unit), np.int64)
        for number, is_in in enumerate(self.groups.values()):
            group[is_in] = number
        num_groups = len(self.groups)
        # One number for each pair of unit and group; sorted, so that cells of one unit are neighbours.
        keys, cell = np.unique(self.unit.astype(np.int64) * num_groups + group, return_inverse=True)
        return Cells(cell.astype(np.int32), keys // num_groups, keys % num_groups, tuple(self.groups))

    def support(self, is_in: Bool[np.ndarray, " B"]) -> Int[np.ndarray, "U C"]:
        """[U, C] scored utterances of each unit and class, of those that are in."""
        num_units, num_classes = len(self.speakers), len(self.class_names)
        is_scored = is_in & (self.consensus >= 0)
        cell = self.unit[is_scored].astype(np.int64) * num_classes + self.consensus[is_scored]
        return np.bincount(cell, minlength=num_units * num_classes).reshape(num_units, num_classes)

    def eligible(self, is_in: Bool[np.ndarray, " B"]) -> Bool[np.ndarray, "U filters"]:
        """[U, filters] bool, known speakers that pass each of `SPEAKER_FILTERS`."""
        support = self.support(is_in)
        passes = [is_eligible(support, name) for name in SPEAKER_FILTERS]
        return np.stack(passes, axis=1) & self.is_known[:, None]

    def numbers(self, is_in: Bool[np.ndarray, " B"]) -> dict[str, int]:
        """Counts for a result record: utterances, scored ones, and known speakers among the scored."""
        num_scored = self.support(is_in).sum(axis=1)
        return {
            "num_utterances": int(is_in.sum()),
            "num_scored": int(num_scored.sum()),
            "num_speakers": int((self.is_known & (num_scored > 0)).sum()),
        }


def align(
    predictions: Predictions,
    targets: Targets,
    utterances: pa.Table,
    *,
    num_members: int,
    split: str,
    group_by: str,
) -> Aligned:
    """Joins by utterance id.

    Args:
      predictions: Of every utterance of the split, in any order.
      targets: Of the split or of more.
      utterances: Utterance table of the split or of more.
      num_members: Members that the predictions should be of.
      split: Name of the split.
      group_by: Column of the utterance table that makes groups; empty for none.

    Raises:
      AlignmentError: An id is missing, occurs twice or belongs to another split; shapes do not fit; a prediction that
        would be scored is not finite, or a predicted distribution does not sum to 1.
    """
    ids = [str(name) for name in predictions.utterances]
    _require_same_ids(ids, targets, utterances, split)
    columns = ("corpus", "speaker", "gender", *([group_by] if group_by else []))
    missing = [name for name in columns if name not in utterances.column_names]
    if missing:
        raise AlignmentError(f"utterance table: no column {', '.join(missing)}; it has {utterances.column_names}")
    # By id, so that neither the order of the table nor that of the predictions can change a draw.
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = [ids[i] for i in order]
    row_of = {name: i for i, name in enumerate(utterances["id"].to_pylist())}
    rows = pa.array([row_of[name] for name in names], pa.int64())
    table = {name: utterances[name].take(rows).to_pylist() for name in columns}
    unit, speakers, genders = _units(names, table)
    target_of = {name: i for i, name in enumerate(targets.ids)}
    of_target = np.asarray([target_of[name] for name in names])
    aligned = Aligned(
        predictions_attributes=np.asarray(predictions.attributes, np.float32)[:, order],
        predictions_distribution=np.asarray(predictions.distribution, np.float32)[:, order],
        unit=unit,
        speakers=speakers,
        genders=genders,
        groups=_groups(table[group_by] if group_by else [], len(names)),
        consensus=targets.consensus_index[of_target],
        distribution=targets.distribution[of_target],
        has_votes=targets.has_votes[of_target],
        attributes=targets.attributes[of_target],
        has_attribute=targets.has_attribute[of_target],
        class_names=targets.class_names,
        attribute_names=targets.attribute_names,
        ground=ground_of(targets.votes, targets.consensus_index, targets.attributes, targets.has_attribute),
        votes=_all_votes(targets)[of_target],
        durations=_durations(utterances)[rows.to_numpy()],
        is_offered=None if targets.is_offered is None else targets.is_offered[of_target],
    )
    _check_predictions(aligned, num_members)
    return aligned


def _all_votes(targets: Targets) -> Num[np.ndarray, "N C1"]:
    """[N, C + 1] votes, those outside the class set last; whole numbers where all of them are.

    Utterances whose votes a policy leaves out have none.
    """
    outside = np.zeros(len(targets.votes)) if targets.votes_outside is None else targets.votes_outside
    votes = np.concatenate([targets.votes, outside[:, None]], axis=1) * targets.has_votes[:, None]
    return votes.astype(np.int64) if (votes % 1 == 0).all() else votes


def _durations(utterances: pa.Table) -> Float[np.ndarray, " N"]:
    """[N] seconds of each utterance of the table; NaN where it has no such column."""
    if "duration_s" not in utterances.column_names:
        return np.full(utterances.num_rows, np.nan)
    return utterances["duration_s"].to_numpy().astype(np.float64)


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")


def _require_same_ids(ids: Sequence[str], targets: Targets, utterances: pa.Table, split: str) -> None:
    remedy = "predictions, targets and tables must come from one ingest: run python -m launch.evaluate again"
    if len(set(ids)) != len(ids):
        raise AlignmentError(f"predictions: {len(ids) - len(set(ids))} utterances occur twice; {remedy}")
    if not ids:
        raise AlignmentError(f"predictions of split {split!r} hold no utterance; choose another of eval.splits")
    wanted = set(np.asarray(utterances["id"].to_pylist(), object)[in_split(utterances, split)])
    for what, absent in (
        (f"predictions lack {{}} utterances of split {split!r}", wanted - set(ids)),
        (f"{{}} predicted utterances are not in split {split!r} of the utterance table", set(ids) - wanted),
        ("targets lack {} predicted utterances", set(ids) - set(targets.ids)),
    ):
        if absent:
            raise AlignmentError(f"{what.format(len(absent))} ({_some(list(absent))}); {remedy}")


def _units(names: Sequence[str], table: Mapping[str, list[str]]) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Unit of each utterance, and speaker and gender of each unit: a speaker is a person of one corpus."""
    has_corpora = len(set(table["corpus"])) > 1
    keys = []
    for name, corpus, speaker in zip(names, table["corpus"], table["speaker"], strict=True):
        # An utterance of an unknown speaker is a unit by itself. To count all of them as one person would make the
        # intervals too wide, and their UAR is no speaker's.
        is_known = speaker not in (None, "", vocab.UNKNOWN)
        keys.append((0, corpus, speaker) if is_known else (1, corpus, name))
    place = {key: i for i, key in enumerate(sorted(set(keys)))}
    unit = np.asarray([place[key] for key in keys], np.int32)
    genders = dict(zip(keys, table["gender"], strict=True))
    speakers = [(f"{corpus}/{name}" if has_corpora else name) if kind == 0 else "" for kind, corpus, name in place]
    return unit, tuple(speakers), tuple(genders[key] for key in place)


def _groups(values: Sequence[Any], num_rows: int) -> dict[str, np.ndarray]:
    """`all`, then genders in their order, then other values in theirs. No value is the unknown one.

    Numbers stay in their order; many different ones (ages) are grouped by decade.
    """
    rank = {name: i for i, name in enumerate(vocab.GENDERS)}
    numbers = sorted({value for value in values if isinstance(value, int | float) and not isinstance(value, bool)})
    if len(numbers) > MOST_NUMBERS:
        names = {n: f"{int(n // 10) * 10}-{int(n // 10) * 10 + 9}" for n in numbers}
    else:
        names = {n: str(n) for n in numbers}
    place = {name: i for i, name in enumerate(dict.fromkeys(names.values()))}
    labels = np.asarray([vocab.UNKNOWN if value is None else names.get(value, str(value)) for value in values], object)
    ordered = sorted(set(labels), key=lambda label: (rank.get(label, len(rank)), place.get(label, 0), label))
    return {"all": np.ones(num_rows, bool), **{label: labels == label for label in ordered}}


def _check_predictions(aligned: Aligned, num_members: int) -> None:
    num_rows = len(aligned.unit)
    for name, values, width in (
        ("attributes", aligned.predictions_attributes, len(aligned.attribute_names)),
        ("distribution", aligned.predictions_distribution, len(aligned.class_names)),
    ):
        if values.shape != (num_members, num_rows, width):
            raise AlignmentError(
                f"predictions.{name} has shape {values.shape}; {num_members} members, {num_rows} utterances and "
                f"{width} columns of the targets make {(num_members, num_rows, width)}"
            )
    # Attributes that nobody rated may be anything: no score reads them.
    is_bad = ~np.isfinite(aligned.predictions_attributes) & aligned.has_attribute[None]
    sums = aligned.predictions_distribution.sum(axis=-1)
    # `not close` and not `far`, so that NaN counts as wrong, too.
    is_off = ~((np.abs(sums - 1) < 1e-3) & (aligned.predictions_distribution >= 0).all(axis=-1))
    for what, bad in (("attributes that are not finite", is_bad.any(-1)), ("shares that do not sum to 1", is_off)):
        if bad.any():
            member = int(bad.any(axis=1).argmax())
            raise AlignmentError(f"predictions: member {member} has {what}, for {bad[member].sum()} utterances; "
                                 "training may have diverged: look at train/log.jsonl")  # fmt: skip

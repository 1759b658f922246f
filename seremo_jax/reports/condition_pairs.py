"""Heads that heard copies in noise and rooms against heads that heard none, by condition, paired by speaker."""

from collections.abc import Mapping, Sequence
from typing import Any

from seremo_jax.core import condition_ranges, ensemble
from seremo_jax.core.condition_names import Condition
from seremo_jax.evaluation import speaker_pairs
from seremo_jax.reports.benchmark_rows import Run
from seremo_jax.reports.condition_scores import Conditions
from seremo_jax.reports.score_tables import UAR
from seremo_jax.reports.table import NOTHING, Cell, Row, Table, measured, plain

TITLE = "Copies heard in training against none, paired by speaker"
_READING = (
    "Scores are means over speakers of each one's UAR. A fall is what a speaker loses from clean speech to the "
    "condition, so that a fall that is halved shows as half of it. Kinds are those of noises and rooms as conditions "
    "name them: `other recordings` of a kind were heard in training, `none` of it, or only `some` of a chain."
)
_NOT_COMPARED = ("copy_share", "varying", "num_heads")


def heard_kinds(protocol: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Kind and name of every effect that copies of a training were heard in."""
    ranges = [condition_ranges.parse(text) for text in protocol.get("settings.extract.conditions") or ()]
    return {(effect.kind, effect.name) for item in ranges for effect in item.lowest.effects}


def pairs_part(heard: Sequence[tuple[Run, Conditions]]) -> list[Table]:
    """A row for each condition and pair of systems that differ in nothing but the copies; no table without pairs.

    Args:
      heard: Runs with a split in its conditions.
    """
    systems = [
        (run, conditions, name, ensemble.SINCE | dict(conditions.clean.whole(name).axes))
        for run, conditions in heard for name in conditions.systems
    ]  # fmt: skip
    pairs = [
        (before, after) for after in systems if after[3].get("copy_share")
        for before in systems if not before[3].get("copy_share") and _same(before[3], after[3])
    ]  # fmt: skip
    rows = [
        row
        for condition in dict.fromkeys(c for _, conditions in heard for c in (Condition(), *conditions.heard))
        for before, after in pairs
        if (row := _row(condition, before, after)) is not None
    ]
    labels = ("condition", "kind in training", "without copies", "with copies")
    columns = ("speakers", f"{UAR.name} without", f"{UAR.name} with", "difference", "p (permutation)",
               "fall without", "fall with", "difference of falls", "p (permutation) of it")  # fmt: skip
    return [Table(TITLE, labels, columns, tuple(rows), _READING)] if rows else []


def _same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(before.get(name) == after.get(name) for name in {*before, *after} if name not in _NOT_COMPARED)


def _row(condition: Condition, before: tuple, after: tuple) -> Row | None:
    sides = (before, after)
    if any(condition.effects and condition not in conditions.heard for _, conditions, *_ in sides):
        return None
    protocol = before[1].clean.protocol
    place = before[1].clean.nbest.index(1)
    drawn = tuple(
        protocol.get(f"settings.eval.{name}", default)
        for name, default in (("num_resamples", 1_000), ("num_permutations", 1_000), ("seed", 0))
    )
    clean, here = (
        [speaker_pairs.uar_by_speaker(conditions.block(at).whole(name), place) for (_, conditions, name, _) in sides]
        for at in (Condition(), condition)
    )
    scores = [speaker_pairs.entry_of([(1.0, scores)], *drawn) for scores in here]
    difference = speaker_pairs.entry_of([(1.0, here[1]), (-1.0, here[0])], *drawn)
    if difference is None:
        return None
    cells = (*plain(difference["count"]), *(measured(score, UAR) for score in scores), *_compared(difference))
    if condition.effects:
        terms = [[(1.0, clean[i]), (-1.0, here[i])] for i in range(2)]
        falls = [speaker_pairs.entry_of(each, *drawn) for each in terms]
        less = speaker_pairs.entry_of([*terms[1], *((-sign, scores) for sign, scores in terms[0])], *drawn)
        cells += (*(measured(fall, UAR) for fall in falls), *_compared(less))
    else:
        cells += (Cell(NOTHING),) * 4
    names = [f"{name} ({run.name})" if before[0] is not after[0] else name for run, _, name, _ in sides]
    return Row((condition.id, _kind(condition, heard_kinds(after[1].clean.protocol)), *names), cells)


def _compared(entry: dict[str, Any]) -> tuple[Cell, Cell]:
    p = entry["p_permutation"]
    return measured(entry, UAR, is_difference=True), Cell(NOTHING if p is None else f"{p:.3f}")


def _kind(condition: Condition, heard: set[tuple[str, str]]) -> str:
    if not condition.effects:
        return NOTHING
    is_heard = [(effect.kind, effect.name) in heard for effect in condition.effects]
    return "other recordings" if all(is_heard) else "some" if any(is_heard) else "none"

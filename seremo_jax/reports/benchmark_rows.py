"""Result records of one or several workdirs as rows of one table: what each is, and what keeps two of them apart."""

import dataclasses
import fnmatch
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError, in_bucket, place_of, read_json
from seremo_jax.core.schema import ResultRecord
from seremo_jax.evaluation import records as result_records
from seremo_jax.reports import blocks as comparison
from seremo_jax.reports.blocks import Block, ReportError

_NO_SETTING = ("layer", "fold", "seed", "data_seed", "class_target")
_OF_HEADS = tuple(f"settings.{section}.*" for section in ("model", "loss", "optim", "train", "ensemble"))


@dataclasses.dataclass(frozen=True)
class Run:
    """What an evaluation left, the curves over layers of its workdir (None where there are none), and the workdir."""

    name: str
    blocks: tuple[Block, ...]
    saliency: Mapping[str, Any] | None
    workdir: PurePath

    def block(self, split: str, condition: str = vocab.CLEAN) -> Block | None:
        """Records of a split in a condition; None where there are none."""
        return next((block for block in self.blocks if (block.split, block.condition) == (split, condition)), None)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One system of one run."""

    run: Run
    block: Block
    system: str

    @property
    def record(self) -> ResultRecord:
        """Over all speakers."""
        return self.block.whole(self.system)

    @property
    def commit(self) -> str:
        """Commit of the evaluation, or the version where there is none."""
        return str(self.record.protocol.get("commit") or self.record.protocol.get("code_version", "?"))

    @property
    def is_baseline(self) -> bool:
        """Whether this is no head but the regression."""
        return self.record.axes["model"] == "regression"

    @property
    def class_target(self) -> str:
        """`votes` or `consensus`."""
        return self.record.axes["class_target"]

    @property
    def class_loss(self) -> str:
        """Class loss of the head, or of the heads behind a mean."""
        return "log loss" if self.is_baseline else ensemble.class_loss_words(self.record.axes)

    @property
    def is_balanced(self) -> bool:
        """Whether classes weigh the same in training, in that of every head."""
        return all(self._heads_balanced)

    @property
    def is_balanced_in_part(self) -> bool:
        """Whether classes weigh the same in the training of some of the heads behind a mean, and not of all."""
        return not self.is_balanced and any(self._heads_balanced)

    @property
    def _heads_balanced(self) -> list[bool]:
        if self.is_baseline:
            balanced = self.record.axes["is_balanced"]
            return balanced if isinstance(balanced, list) else [balanced]
        return [vocab.CLASS_LOSSES[kind].is_balanced for kind in ensemble.class_losses(self.record.axes)]

    @property
    def family(self) -> str:
        """The system's words without its layer."""
        return comparison.system_label(self.record.axes, ("layer",))

    @property
    def kind(self) -> str:
        """The system's words without what has columns of its own: layer, class loss, class target."""
        return ", ".join(ensemble.words(self.record.axes, ("layer", "class_kind", "is_balanced"))) or "head"


def load(workdirs: Sequence[str | os.PathLike]) -> list[Run]:
    """Records of the workdirs, heads first, each workdir's regression after all heads.

    Raises:
      ArtefactError: A workdir is named twice, or a file is missing or damaged.
      ReportError: Records of one evaluation cannot stand in one table.
    """
    paths = [place_of(workdir) for workdir in workdirs]
    whole = [path if in_bucket(path) else path.resolve() for path in paths]
    if len(set(whole)) < len(paths):
        raise ArtefactError(f"--workdirs={','.join(map(str, paths))} names a workdir twice")
    names = [path.name for path in whole]
    heads, baselines = [], []
    for path, name in zip(paths, names, strict=True):
        name = name if names.count(name) == 1 else str(path)
        saliency = path / "saliency.json"
        curves = read_json(saliency, "run python -m launch.saliency") if saliency.exists() else None
        own, beside = path / result_records.FILE, path / result_records.BASELINE_FOLDER / result_records.FILE
        if own.exists() or not beside.exists():
            heads.append(_run(name, own, curves, path))
        if beside.exists():
            baselines.append(_run(name, beside, curves, path))
    return heads + baselines


def load_below(workdirs: Sequence[str | os.PathLike], folder: str) -> list[Run]:
    """Records that an evaluation left in a folder of each workdir.

    Raises:
      ArtefactError: A workdir is named twice, or a file is missing or damaged.
    """
    runs = load(workdirs)
    names = {os.fspath(run.workdir): run.name for run in runs}
    return [
        _run(name, place_of(workdir) / folder / result_records.FILE, None, place_of(workdir))
        for workdir, name in names.items()
    ]


def _run(name: str, path: PurePath, curves: Mapping[str, Any] | None, workdir: PurePath) -> Run:
    records = result_records.read(path)
    is_simulated = any(record.protocol.get("is_simulated") for record in records)
    return Run(name, tuple(comparison.blocks(records, is_simulated)), curves, workdir)


def entries(runs: Sequence[Run], split: str) -> list[Entry]:
    """Every system of every run on a split in the clean condition.

    Raises:
      ReportError: A run was not evaluated on the split.
    """
    rows = []
    for run in runs:
        block = run.block(split)
        if block is None:
            there = ", ".join(sorted({other.split for other in run.blocks if other.condition == vocab.CLEAN})) or "none"
            raise ReportError(
                f"{run.name} has no clean records of the split {split!r}; it has those of: {there}. Give --split, or "
                "evaluate it with --config.eval.splits"
            )
        rows += [Entry(run, block, system) for system in block.systems]
    return rows


def marks(
    rows: Sequence[Entry], allowed: Sequence[str], shown: Sequence[str], is_mixed: bool
) -> tuple[list[str], dict[str, str]]:
    """Footnote marks of every row, and what each says: in what the row's protocol differs from the first row's.

    Args:
      rows: Rows of one table.
      allowed: Patterns of protocol fields in which they may differ: what the table compares.
      shown: Fields of members that have a column of their own.
      is_mixed: Whether rows of different protocol may stand in the table at all.

    Raises:
      ReportError: They differ, and may not.
    """
    notes: dict[str, str] = {}
    flags = []
    for row in rows:
        is_of_data = row.is_baseline != rows[0].is_baseline
        first, here = (_fixed(other, allowed, shown, is_of_data) for other in (rows[0], row))
        differing = sorted(field for field in {*first, *here} if first.get(field) != here.get(field))
        words = "; ".join(f"{field}: {here.get(field)!r} against {first.get(field)!r}" for field in differing)
        if words and not is_mixed:
            raise ReportError(
                f"{row.run.name} ({row.system}) differs in protocol from {rows[0].run.name} ({rows[0].system}) and "
                f"cannot stand in one table with it: {words}. Evaluate both under one protocol, or add --mixed, which "
                "says so in footnotes"
            )
        if words and words not in notes:
            notes[words] = _name_of(len(notes))
        flags.append(notes.get(words, ""))
    return flags, {mark: f"differs from the first row in {words}" for words, mark in notes.items()}


def _fixed(row: Entry, allowed: Sequence[str], shown: Sequence[str], is_of_data: bool) -> dict[str, Any]:
    """What a row must share with others; of data and scores alone where one is a head and the other is none."""
    fields = row.block.protocol | {"split": row.block.split}
    if not row.is_baseline:
        # Axes that tell this run's systems apart are in their names; others are not, and another run may differ there.
        named = {*row.record.axes["varying"], *shown, *_NO_SETTING}
        axes = ensemble.SINCE | dict(row.record.axes)
        fields |= {f"settings.{ensemble.MEMBER_FIELDS[name]}": value for name, value in axes.items()
                   if name in ensemble.MEMBER_FIELDS and name not in named}  # fmt: skip
    left_out = (*allowed, *(_OF_HEADS if is_of_data else ()))
    return {
        name: value for name, value in fields.items() if not any(fnmatch.fnmatch(name, pattern) for pattern in left_out)
    }


def _name_of(number: int) -> str:
    """a, b, ... z, aa, ab ..."""
    letters = string.ascii_lowercase
    return letters[number] if number < len(letters) else _name_of(number // 26 - 1) + letters[number % 26]

"""A training from its beginning, or from its newest checkpoint, to its end.

Each epoch takes its steps, scores the development split, appends a line to the log and saves a checkpoint, in this
order. One compiled program trains all members, and each of them stops early by itself.
"""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from seremo_jax.core import ensemble, goodput, sharding
from seremo_jax.core.artefacts import (
    ArtefactError,
    fingerprint_of,
    place_of,
    read_json,
    remove_tree,
    write_json,
)
from seremo_jax.core.config import Config, write_config
from seremo_jax.core.hashed import describe_file
from seremo_jax.core.lock import at_work
from seremo_jax.core.preemption import Notice, PreemptedError
from seremo_jax.core.progress import Progress
from seremo_jax.core.sharding import is_first_process, wait_for_all
from seremo_jax.data import tables
from seremo_jax.features.manifest import require_config
from seremo_jax.features.store import Reader
from seremo_jax.training import checkpoint, fitting, log, predictions, protocol, timing
from seremo_jax.training import copies as copies_lib
from seremo_jax.training.checkpoint import Checkpoints, Position
from seremo_jax.training.copies import Copies
from seremo_jax.training.dataset import Data
from seremo_jax.training.log import Writer
from seremo_jax.training.loop import Loop
from seremo_jax.training.state import TASK_SCALES
from seremo_jax.training.timing import StepTrace


class NothingToKeepError(ArtefactError):
    """Some members never had a development score, so there are no best parameters of theirs.

    Attributes:
      members: Numbers of these members.
    """

    def __init__(self, message: str, members: Sequence[int]):
        super().__init__(message)
        self.members = tuple(members)


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False, is_profiled: bool = False) -> PurePath:
    """Trains the config's members on the tables and the store of a workdir, over all devices. See `train`.

    Raises:
      ArtefactError: The tables or the store are missing, or do not belong to each other; or see `train`.
    """
    utterances, ratings, fingerprint = tables.read_for(config, workdir)
    store = Reader(place_of(workdir) / "store")
    store.require(tables_fingerprint=fingerprint)
    require_config(store.path, store.manifest, config)
    members = ensemble.members_in(workdir, config)
    mesh = sharding.make_mesh(len(members), config.train.data_shards)
    return train(
        config, store, (utterances, ratings), mesh,
        members=members, workdir=workdir, is_quiet=is_quiet, is_profiled=is_profiled,
    )  # fmt: skip


def train(
    config: Config,
    store: Reader,
    tables: tuple[pa.Table, pa.Table],
    mesh: Mesh,
    *,
    members: Sequence[ensemble.Member] | None = None,
    workdir: str | os.PathLike | None = None,
    is_quiet: bool = False,
    is_profiled: bool = False,
) -> PurePath:
    """Trains all members and keeps the parameters of each one's best epoch on the development split.

    It resumes from the newest checkpoint, also on another mesh or with another number of processes. A finished training
    is left as it is. On SIGTERM and SIGUSR1 it saves a checkpoint and stops.

    Args:
      config: The experiment.
      store: Hidden states of the layers that the members read.
      tables: Utterances and ratings.
      mesh: Mesh with the axes `("member", "data")`.
      members: The members; None means those of the config.
      workdir: Folder under which `train/` is written; None means the store's.
      is_quiet: Shows no progress.
      is_profiled: Traces a few steps of this process into `train/profile/` (`timing`).

    Returns:
      The folder `train/`, with `best/` (parameters), `log.jsonl`, `members.json` and, last, `finished.json`.

    Raises:
      ArtefactError: The folder holds another run, another process is at work there, or a split lacks labelled
        utterances.
      ConfigError: Devices do not hold the members.
      NothingToKeepError: The loss of a member was not finite before its first epoch had ended.
      PreemptedError: A signal asked to stop; the state is saved.
    """
    workdir = place_of(store.path.parent if workdir is None else workdir)
    members = list(members or ensemble.members_in(workdir, config))
    is_quiet = is_quiet or not is_first_process()
    with at_work(workdir, "train", is_first_process()):
        return _train(
            config, store, tables, mesh, members=members, folder=workdir / "train", is_quiet=is_quiet,
            is_profiled=is_profiled,
        )  # fmt: skip


def _train(
    config: Config,
    store: Reader,
    tables: tuple[pa.Table, pa.Table],
    mesh: Mesh,
    *,
    members: list[ensemble.Member],
    folder: PurePath,
    is_quiet: bool,
    is_profiled: bool,
) -> PurePath:
    if is_first_process():
        checkpoint.remove_leftovers(folder)
    fields = [vars(member) for member in members]
    copies = copies_lib.read_for(config, store, members)
    run = protocol.run_identity(config, store, fields, copies and copies.fingerprint)
    if (folder / predictions.STAMP_FILE).exists():
        stamp = read_json(folder / predictions.STAMP_FILE, "delete this folder to train anew")
        remedy = "Use another --workdir, or delete this folder."
        protocol.require_run(f"the training in {folder}", stamp["run"], run, store, remedy)
        if not is_quiet:
            print(f"{folder} is up to date" + ", so no step was traced" * is_profiled)
        return folder
    with contextlib.ExitStack() as stack:
        clock = stack.enter_context(contextlib.closing(goodput.Clock(timing.PHASES)))
        is_traced = is_profiled and is_first_process()
        trace = stack.enter_context(contextlib.closing(StepTrace(folder / "profile" if is_traced else None)))
        data = Data.of(config, store, tables, members, copies)
        judge, platform = fitting.judge_here(folder.parent), jax.default_backend()
        is_cached = fitting.keeps_frames(data, members, mesh, platform, judge)
        if judge is not None:
            fitting.require_room(data, members, mesh, platform, judge, is_cached)
        loop = Loop(config, data, members, mesh, is_cached, clock=clock, trace=trace)
        with Checkpoints(folder / checkpoint.CHECKPOINTS_FOLDER, run, config.train.keep_checkpoints) as checkpoints:
            _run(loop, checkpoints, folder, is_quiet)
        _require_some_whole(folder, loop)
        with clock.phase("checkpoint"):
            _finish(folder, run, fields, loop, copies)
        if not is_quiet:
            print(goodput.sentence(clock.seconds()))
    return folder


def _run(loop: Loop, checkpoints: Checkpoints, folder: PurePath, is_quiet: bool) -> None:
    """Runs epochs from the newest checkpoint on, until every member has stopped."""
    position = Position()
    if (restored := checkpoints.restore(loop.like)) is not None:
        position = restored[0]
        loop.take_over(restored[1])
    names, most, writer = ensemble.names(loop.members), loop.config.train.max_epochs, None
    if is_first_process():
        write_json(folder / "members.json", [vars(member) for member in loop.members])
        write_config(folder, loop.config)
        train = loop.config.train
        tracker = log.start(train.tracker, train.tracker_project, folder, dataclasses.asdict(loop.config))
        writer = Writer(folder, position.epoch, names, tracker)

    def save(position: Position) -> None:
        with loop.clock.phase("checkpoint"):
            checkpoints.save(position, loop.canonical_state())

    label, logged_s = f"train {len(names)} members", dict.fromkeys(loop.clock.seconds(), 0.0)
    try:
        with Notice() as notice, Progress(most, label, "epochs", done=position.epoch, is_quiet=is_quiet) as progress:
            while position.epoch < most and loop.is_active.any():
                try:
                    line = loop.epoch(position, notice, save, progress)
                except PreemptedError:
                    # The checkpoint is still being written in the background.
                    checkpoints.wait()
                    raise
                position = Position(position.epoch + 1)
                seconds = loop.clock.seconds()
                since_s = {name: seconds[name] - logged_s[name] for name in seconds}
                logged_s = seconds
                # The line comes before the checkpoint. A run that is cut off between the two drops the line and
                # computes the epoch again; in the other order the line would be lost.
                if writer is not None:
                    writer.write(position.epoch, line | goodput.entries(since_s))
                save(position)
                progress.update(note=_summary(line, loop))
                if notice.has_come():
                    checkpoints.wait()
                    raise PreemptedError(f"asked to stop after epoch {position.epoch}")
    finally:
        if writer is not None:
            writer.close()


def _require_some_whole(folder: PurePath, loop: Loop) -> None:
    """Warns of members whose loss was not finite, and raises where a member never finished an epoch."""
    advice, names = "lower optim.learning_rate or set optim.clip_norm", ensemble.names(loop.members)
    if failed := [name for name, has_failed in zip(names, loop.values("has_failed"), strict=True) if has_failed]:
        warnings.warn(
            f"the loss of {', '.join(failed)} was not finite: stopped there, the best epoch before is kept; {advice}",
            stacklevel=3,
        )
    if never := [i for i, epoch in enumerate(loop.values("best_epoch")) if epoch == 0]:
        raise NothingToKeepError(
            f"{folder}: {', '.join(names[i] for i in never)} never had a development score, so there is nothing to "
            f"keep: {advice}, or leave these members out, and train into another --workdir",
            never,
        )


def _summary(line: dict[str, Any], loop: Loop) -> str:
    best = np.sort(loop.values("best_score"))
    return (
        f"best development score {best[-1]:.3f} / median {np.median(best):.3f} / worst {best[0]:.3f}, "
        f"{int(loop.is_active.sum())} members active, {line['examples_per_s']:.0f} utterances/s, "
        f"{100 * line['share_of_peak']:.0f} % of peak, {100 * line['input_wait_s'] / line['epoch_s']:.0f} % input wait"
    )


def _finish(
    folder: PurePath, run: dict[str, Any], members: list[dict[str, Any]], loop: Loop, copies: Copies | None
) -> None:
    """Writes the best parameters and, last of all, the stamp that says that the training is finished."""
    best = folder / predictions.BEST_FOLDER
    # An earlier attempt may have been cut off here, and Orbax writes to a new folder only.
    if is_first_process():
        remove_tree(best)
    wait_for_all("train: best folder")
    params = loop.best_params()
    params.pop(TASK_SCALES, None)
    files = checkpoint.save_params(best, params)
    content = {
        "run": run,
        "best_score": loop.values("best_score").tolist(),
        "best_epoch": loop.values("best_epoch").tolist(),
    }
    if is_first_process():
        write_json(
            folder / predictions.STAMP_FILE,
            {
                **content,
                "members": members,
                "checkpoint_id": fingerprint_of(content),
                "files": files,
                # Evaluation must not draw from the noises that were heard here, and the copies may be gone by then.
                **({} if copies is None else {"copies": copies.about}),
                "beside": {name: describe_file(folder / name) for name in ("members.json", "log.jsonl")},
            },
        )
    wait_for_all("train: finished")
    jax.block_until_ready(params)

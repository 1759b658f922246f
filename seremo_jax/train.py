"""The loop: evaluate, save, step. One compiled program trains every member; each stops early by itself."""

import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from seremo_jax import checkpoint, ensemble, evaluate, loader, losses, protocol, sharding, steps, vocab
from seremo_jax.artefacts import ArtefactError, fingerprint_of, read_json, require_same, write_json
from seremo_jax.config import Config
from seremo_jax.progress import Progress
from seremo_jax.store import Reader
from seremo_jax.targets import Targets
from seremo_jax.writer import Writer


def train(
    config: Config,
    store: Reader,
    tables: tuple[pa.Table, pa.Table],
    mesh: Mesh,
    *,
    members: Sequence[ensemble.Member],
    workdir: str | os.PathLike,
    is_quiet: bool = False,
) -> Path:
    """Trains all members and keeps the parameters of each one's best epoch on the development split.

    Resumes from the newest checkpoint; a finished training is left as it is.

    Args:
      config: The experiment.
      store: Hidden states of the layers the members read.
      tables: Utterances and ratings.
      mesh: Mesh with the axes `("member", "data")`.
      members: The members, see `ensemble.members`.
      workdir: Folder under which `train/` is written.
      is_quiet: Shows no progress.

    Returns:
      The folder `train/`, with `best/` (parameters), `log.jsonl`, `members.json` and, last, `finished.json`.

    Raises:
      ArtefactError: The folder holds another run, or a split lacks labelled utterances.
    """
    folder = Path(workdir) / "train"
    named = [vars(member) for member in members]
    run = protocol.run_identity(config, store, named)
    if (folder / evaluate.STAMP_FILE).exists():
        found = read_json(folder / evaluate.STAMP_FILE, "delete this folder to train anew")
        require_same(f"the training in {folder}", found["run"], run, "Use another --workdir, or delete this folder.")
        if not is_quiet:
            print(f"{folder} is up to date")
        return folder
    targets = protocol.build_targets(config, *tables)
    train_rows = _labelled(config, targets, evaluate.split_rows(tables[0], vocab.TRAIN), vocab.TRAIN)
    development_rows = _labelled(config, targets, evaluate.split_rows(tables[0], vocab.DEVELOPMENT), vocab.DEVELOPMENT)
    loop = _Loop(config, store, targets, members, mesh, train_rows, development_rows)
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", run, config.train.keep_checkpoints)
    state, done = loop.initial_state(), 0
    restored = checkpoints.restore(state)
    if restored is not None:
        done, state = restored
    write_json(folder / "members.json", named)
    writer = Writer(folder, done, [member.name for member in members])
    most = config.train.max_epochs
    try:
        with Progress(most, f"train {len(members)} members", "epochs", done=done, is_quiet=is_quiet) as progress:
            while done < most and bool(np.asarray(state.is_active).any()):
                done += 1
                state, line = loop.epoch(state, done)
                writer.write(done, line)
                checkpoints.save(done, state)
                progress.update(note=_summary(line, state))
    finally:
        writer.close()
        checkpoints.close()
    _require_some_whole(folder, members, state)
    return _finish(folder, run, named, state)


def _require_some_whole(folder: Path, members: Sequence[ensemble.Member], state: steps.TrainState) -> None:
    """Warns of members whose loss was not finite; refuses to go on where one never finished an epoch."""
    failed, best_epochs = np.asarray(state.has_failed), np.asarray(state.best_epoch)
    advice = "lower optim.learning_rate or set optim.clip_norm"
    if names := [m.name for m, has_failed in zip(members, failed, strict=True) if has_failed]:
        warnings.warn(
            f"the loss of {', '.join(names)} was not finite: stopped there, the best epoch before is kept; {advice}",
            stacklevel=3,
        )
    if names := [m.name for m, epoch in zip(members, best_epochs, strict=True) if epoch == 0]:
        raise ArtefactError(
            f"{folder}: {', '.join(names)} never had a development score, so there is nothing to keep: {advice}, or "
            "leave these members out, and train into another --workdir"
        )


def _labelled(config: Config, targets: Targets, rows: np.ndarray, split: str) -> np.ndarray:
    """Rows with something to learn from, or ArtefactError if none is left."""
    kept = rows[(targets.has_votes | targets.has_attribute.any(1))[rows]]
    if len(kept) < 2:
        raise ArtefactError(
            f"the {split} split has {len(rows)} utterances, {len(kept)} of them labelled: at least 2 are needed. "
            "Check the splits in ingest.json, data.split_shares and data.max_speakers"
        )
    return kept


class _Loop:
    """What one epoch needs, compiled once."""

    def __init__(
        self,
        config: Config,
        store: Reader,
        targets: Targets,
        members: Sequence[ensemble.Member],
        mesh: Mesh,
        train_rows: np.ndarray,
        development_rows: np.ndarray,
    ):
        self._config, self._store, self._targets, self._mesh = config, store, targets, mesh
        self._layers = ensemble.layers(members)
        self._train_rows = train_rows
        self._store_rows = evaluate.store_rows_of(store, targets.ids[train_rows])
        self._lengths = store.num_frames[self._store_rows]
        development = store.num_frames[evaluate.store_rows_of(store, targets.ids[development_rows])]
        longest = max(self._lengths.max(), development.max()) if not config.train.frames_per_row else 0
        t = config.train
        self._shape = loader.plan_shape(self._lengths, t.batch_size, t.frames_per_row, t.data_seed)
        # The same shape serves both splits, so that the longest development utterance must fit, too.
        if longest > self._shape.num_frames:
            self._shape = loader.plan_shape(self._lengths, t.batch_size, int(longest), t.data_seed)
        self._development = evaluate.split_source(store, self._layers, targets, development_rows, self._shape)
        self._settings = steps.Settings.of(config, store.manifest["num_features"], len(targets.class_names))
        where = sharding.by_member(mesh)
        self._members = jax.device_put(steps.Members.of(members, self._class_weights()), where)
        self._norm = jax.device_put(evaluate.normalisation(config, store, self._layers), sharding.replicated(mesh))
        self._steps = steps.compile_steps(self._settings, mesh, t.patience, t.min_delta)

    def _class_weights(self) -> dict[str, np.ndarray] | None:
        """Weights of the classes by class target, from the training split alone; None where the loss has none."""
        if self._config.loss.class_kind != "balanced_soft_ce":
            return None
        shares = {"votes": self._targets.distribution, "consensus": self._targets.consensus}
        return {name: losses.balanced_weights(p[self._train_rows].sum(0)) for name, p in shares.items()}

    def initial_state(self) -> steps.TrainState:
        """State before the first step, spread over the mesh."""
        return jax.device_put(steps.init(self._settings, self._members), sharding.by_member(self._mesh))

    def epoch(self, state: steps.TrainState, number: int) -> tuple[steps.TrainState, dict[str, Any]]:
        """One pass over the training split, then the development split; returns the state and a line for the log."""
        began_s = time.monotonic()
        plan = loader.plan_epoch(self._lengths, self._shape, self._config.train.data_seed, number)
        source = loader.BatchSource(
            self._store, self._layers, self._store_rows, self._train_rows, self._targets, plan, self._shape
        )
        terms: list[dict[str, np.ndarray]] = []
        running: dict[str, jax.Array] | None = None
        for batch in loader.batches(source):
            state, new = self._steps.train(state, self._members, batch, self._norm)
            # Fetched after the next step is dispatched: the device never waits for the host.
            if running is not None:
                terms.append(jax.device_get(running))
            running = new
        terms.append(jax.device_get(running))
        trained_s = time.monotonic() - began_s
        attributes, distribution, rows = evaluate.predict(
            self._steps.predict, state.params, self._members, self._norm, self._development
        )
        scores = evaluate.development_scores(attributes, distribution, rows, self._targets, self._members)
        was_active = np.asarray(state.is_active)
        state = self._steps.finish_epoch(state, scores, np.int32(number))
        line = {f"train_{name}": np.mean([term[name] for term in terms], axis=0).tolist() for name in terms[0]}
        line |= {
            "step": int(np.asarray(state.step).max()),
            "development_score": np.where(was_active, scores, np.nan).tolist(),
            "best_score": np.asarray(state.best_score).tolist(),
            "is_active": np.asarray(state.is_active).tolist(),
            "has_failed": np.asarray(state.has_failed).tolist(),
            "examples_per_s": len(self._train_rows) / trained_s,
            "epoch_s": time.monotonic() - began_s,
        }
        return state, line


def _summary(line: dict[str, Any], state: steps.TrainState) -> str:
    best = np.sort(np.asarray(state.best_score))
    num_active = int(np.asarray(state.is_active).sum())
    return (
        f"best development score {best[-1]:.3f} / median {np.median(best):.3f} / worst {best[0]:.3f}, "
        f"{num_active} members active, {line['examples_per_s']:.0f} utterances/s"
    )


def _finish(folder: Path, run: dict[str, Any], members: list[dict[str, Any]], state: steps.TrainState) -> Path:
    """Writes the best parameters and, last, the stamp that says the training is finished."""
    best = folder / evaluate.BEST_FOLDER
    shutil.rmtree(best, ignore_errors=True)
    checkpoint.save_params(best, state.best_params)
    scores = np.asarray(state.best_score).tolist()
    epochs = np.asarray(state.best_epoch).tolist()
    content = {"run": run, "best_score": scores, "best_epoch": epochs}
    write_json(
        folder / evaluate.STAMP_FILE,
        {**content, "members": members, "checkpoint_id": fingerprint_of(content)},
    )
    return folder

"""Predictions of whole splits by every member, and the stage that turns them into result records."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.sharding import Mesh
from jaxtyping import Array, Float

from seremo_jax import checkpoint, ensemble, loader, losses, model, protocol, scoring, sharding, steps, vocab
from seremo_jax.artefacts import ArtefactError, atomic_path, read_json, require_same, to_json, write_text
from seremo_jax.config import Config
from seremo_jax.progress import Progress
from seremo_jax.schema import Batch, Predictions
from seremo_jax.store import Reader
from seremo_jax.tables import read_tables
from seremo_jax.targets import Targets

STAMP_FILE = "finished.json"
BEST_FOLDER = "best"


def split_rows(utterances: pa.Table, split: str) -> np.ndarray:
    """Rows of the utterance table that are in the split."""
    return np.flatnonzero(np.array(utterances["split"].to_pylist()) == split)


def split_source(
    store: Reader, layers: Sequence[int], targets: Targets, rows: np.ndarray, shape: loader.Shape
) -> loader.BatchSource:
    """Batches over some utterances in the order of the table, joined to the store by utterance id."""
    store_rows = store_rows_of(store, targets.ids[rows])
    plan = loader.plan_epoch(store.num_frames[store_rows], shape, data_seed=0, epoch=None)
    return loader.BatchSource(store, layers, store_rows, rows, targets, plan, shape)


def store_rows_of(store: Reader, ids: Iterable[str]) -> np.ndarray:
    """Rows of the store that hold these utterances.

    Raises:
      ArtefactError: An utterance is not in the store.
    """
    position = {utterance: row for row, utterance in enumerate(store.utterances)}
    ids = list(ids)
    absent = [utterance for utterance in ids if utterance not in position]
    if absent:
        raise ArtefactError(
            f"{len(absent)} utterances of the table, {absent[0]!r} first, are not in the store {store.path}: "
            "delete its folder and run python -m launch.extract again"
        )
    return np.array([position[utterance] for utterance in ids], np.int64)


def predict(
    predict_step: Callable, params: Any, members: steps.Members, norm: steps.Normalisation, source: loader.BatchSource
) -> tuple[Float[np.ndarray, "E N A"], Float[np.ndarray, "E N C"], np.ndarray]:
    """Predictions of every member for the utterances of `source`.

    Args:
      predict_step: `steps.Steps.predict`.
      params: Parameters [E, ...].
      members: The members.
      norm: Feature statistics of the training split.
      source: Batches of the split.

    Returns:
      Attributes, distributions, and the row of the utterance table behind each of the N utterances, ascending.
    """
    outputs = []
    pending: tuple[Batch, Any] | None = None
    for batch in loader.batches(source):
        running = predict_step(params, members, batch, norm)
        # One batch late, so that the device computes this one while the host copies the last.
        if pending is not None:
            outputs.append(_to_host(*pending))
        pending = (batch, running)
    outputs.append(_to_host(*pending))
    attributes, distribution, rows = (
        np.concatenate(parts, axis=-2 % parts[0].ndim) for parts in zip(*outputs, strict=True)
    )
    order = np.argsort(rows)
    return attributes[:, order], distribution[:, order], rows[order]


def _to_host(batch: Batch, outputs: tuple[Array, Array]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    attributes, distribution = jax.device_get(outputs)
    return attributes[:, batch.is_used], distribution[:, batch.is_used], batch.utterance[batch.is_used]


def development_scores(
    attributes: Float[np.ndarray, "E N A"],
    distribution: Float[np.ndarray, "E N C"],
    rows: np.ndarray,
    targets: Targets,
    members: steps.Members,
) -> Float[np.ndarray, "E"]:
    """Score that selects epochs: mean CCC of attributes plus mean CCC of classes, over the whole split at once.

    Each mean is over the members of it that are defined; a task the corpus does not label drops out. The class CCC is
    against what the member is trained on: vote shares, or the one-hot consensus.

    Source: OURS, method.md section 6.
    """
    scores = np.zeros(len(attributes), np.float32)
    for e, class_target in enumerate(np.asarray(members.class_target)):
        is_votes = class_target == steps.VOTES
        classes = (targets.distribution if is_votes else targets.consensus)[rows]
        has_class = (targets.has_votes if is_votes else targets.has_consensus)[rows]
        tasks = (
            (attributes[e], targets.attributes[rows], targets.has_attribute[rows]),
            (distribution[e], classes, np.broadcast_to(has_class[:, None], classes.shape)),
        )
        for pred, target, mask in tasks:
            is_defined = np.asarray(losses.varies(jnp.asarray(target), jnp.asarray(mask)))
            if is_defined.any():
                ccc = np.asarray(losses.ccc(jnp.asarray(pred), jnp.asarray(target), jnp.asarray(mask), eps=0.0))
                scores[e] += ccc[is_defined].mean()
    return scores


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> Path:
    """Evaluates the trained members on `eval.splits`; writes `predictions/` and, last, `results.jsonl`.

    Raises:
      ArtefactError: An artefact of an earlier stage is missing or belongs to other settings.
    """
    workdir = Path(workdir)
    utterances, ratings, fingerprint = read_tables(workdir)
    store = Reader(workdir / "store")
    store.require(tables_fingerprint=fingerprint)
    trained = read_json(workdir / "train" / STAMP_FILE, "run python -m launch.train with this --workdir")
    require_same(
        f"the training in {workdir / 'train'}",
        trained["run"],
        protocol.run_identity(config, store, trained["members"]),
        "Give the --config it was trained with, or another --workdir.",
    )
    results = workdir / "results.jsonl"
    card = protocol.card(config, workdir, utterances, store, trained)
    if protocol.is_card_of(card, results):
        if not is_quiet:
            print(f"{results} is up to date")
        return results
    members = [ensemble.Member(**member) for member in trained["members"]]
    targets = protocol.build_targets(config, utterances, ratings)
    settings = steps.Settings.of(config, store.manifest["num_features"], len(targets.class_names))
    mesh = sharding.make_mesh(len(members))
    params = load_members(workdir / "train", settings, members, mesh)
    norm = normalisation(config, store, ensemble.layers(members))
    predict_step = steps.compile_steps(settings, mesh).predict
    member_states = jax.jit(scoring.member_states, static_argnames=("num_units", "nbest"))
    records = []
    with Progress(len(config.eval.splits), "evaluate", "splits", is_quiet=is_quiet) as progress:
        for split in config.eval.splits:
            rows = split_rows(utterances, split)
            if not rows.size:
                raise ArtefactError(f"eval.splits names {split!r}, but no utterance of {workdir} is in it")
            shape = loader.plan_shape(
                store.num_frames[store_rows_of(store, targets.ids[rows])], config.train.batch_size
            )
            source = split_source(store, ensemble.layers(members), targets, rows, shape)
            attributes, distribution, rows = predict(predict_step, params, steps.Members.of(members), norm, source)
            predictions = Predictions(targets.ids[rows], attributes, distribution)
            path = workdir / "predictions" / f"{split}_{vocab.CLEAN}.parquet"
            write_predictions(path, predictions, members, targets, trained["checkpoint_id"])
            records += scoring.score(
                predictions,
                targets,
                utterances,
                members=trained["members"],
                split=split,
                condition=vocab.CLEAN,
                nbest=config.eval.nbest,
                pa_uar_thresholds=config.eval.pa_uar_thresholds,
                f1_classes=config.eval.f1_classes,
                group_by=config.eval.group_by,
                num_resamples=config.eval.num_resamples,
                seed=config.eval.seed,
                protocol=card,
                states=member_states,
            )
            progress.update(note=split)
    write_text(results, "".join(to_json(record) + "\n" for record in records))
    return results


def load_members(folder: Path, settings: steps.Settings, members: Sequence[ensemble.Member], mesh: Mesh) -> Any:
    """Best parameters [E, ...] of a finished training, spread over the mesh's member axis."""
    one = jax.eval_shape(lambda: model.init(dict(settings.sizes), jax.random.key(0)))
    where = sharding.by_member(mesh)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(members), *x.shape), x.dtype, sharding=where), one)
    return checkpoint.load_params(Path(folder) / BEST_FOLDER, like)


def normalisation(config: Config, store: Reader, layers: Sequence[int]) -> steps.Normalisation:
    """Feature statistics of the training split for these layers: zero and one where `model.feature_norm` is none."""
    if config.model.feature_norm == "none":
        shape = (len(layers), store.manifest["num_features"])
        return steps.Normalisation(np.zeros(shape, np.float32), np.ones(shape, np.float32))
    arrays = store.arrays("norm")
    slots = [store.layers.index(layer) for layer in layers]
    return steps.Normalisation(arrays["mean"][slots].astype(np.float32), arrays["sd"][slots].astype(np.float32))


def write_predictions(
    path: str | os.PathLike,
    predictions: Predictions,
    members: Sequence[ensemble.Member],
    targets: Targets,
    checkpoint_id: str,
) -> None:
    """Writes one row an utterance and member: rated attributes by name, a `p_<class>` column a class."""
    num_members, num_utterances = predictions.distribution.shape[:2]
    columns: dict[str, Any] = {
        "utterance": pa.array(list(predictions.utterances) * num_members),
        "member": pa.array(np.repeat(np.arange(num_members, dtype=np.int32), num_utterances)),
        "layer": pa.array(np.repeat(np.array([m.layer for m in members], np.int32), num_utterances)),
        "class_target": pa.array(np.repeat([m.class_target for m in members], num_utterances).tolist()),
        "seed": pa.array(np.repeat(np.array([m.seed for m in members], np.int64), num_utterances)),
    }
    for a in np.flatnonzero(targets.has_attribute.any(0)):
        name = targets.attribute_names[a]
        columns[name] = pa.array(predictions.attributes[:, :, a].ravel())
    for c, name in enumerate(targets.class_names):
        columns[f"p_{name}"] = pa.array(predictions.distribution[:, :, c].ravel())
    table = pa.table(columns).replace_schema_metadata({b"checkpoint_id": checkpoint_id.encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)

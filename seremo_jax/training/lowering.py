"""The compiled steps of a training, and shapes of all that they are called with, so that they compile elsewhere, too.

`Loop` calls the steps with arrays, and this module calls the same steps with shapes. Members, streams, views,
batches and the choice of frames in device memory come from the functions that the loop and its feeds ask, too.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from seremo_jax.core import ensemble, sharding
from seremo_jax.core.schema import Batch
from seremo_jax.training import balance, clusters, loader, predictions, speakers, steps
from seremo_jax.training.arrangement import Arrangement, arrange
from seremo_jax.training.cache import Cache, cache_of
from seremo_jax.training.dataset import Data, Fold
from seremo_jax.training.feed import Layout, num_rows_of, rows_of, shape_of
from seremo_jax.training.state import (
    Inputs,
    Members,
    Normalisation,
    Relative,
    Settings,
    SpeakerMoments,
    Spoken,
    TrainState,
    init,
    values_of,
)

_PLANNED = 20_000
"""Utterances that the number of batches is planned from at most."""


class Arguments(NamedTuple):
    """Shapes of what `Steps.train` and `Steps.predict` are called with; see there."""

    state: TrainState
    members: Members
    batch: Batch
    inputs: Inputs


@dataclasses.dataclass(frozen=True)
class Training:
    """A training on a mesh, before any array of it is made.

    Attributes:
      steps: The compiled steps, which `Loop` calls.
      settings: Static settings of the steps.
      mesh: The mesh.
      train: What a training step is called with.
      development: What a prediction of the development split is called with.
      shape: Shape of the batches.
      num_batches, num_development_batches: Batches of an epoch, and of the development split.
      cache: Frames in device memory; None where batches bring theirs.
    """

    steps: steps.Steps
    settings: Settings
    mesh: Mesh
    train: Arguments
    development: Arguments
    shape: loader.Shape
    num_batches: int
    num_development_batches: int
    cache: Cache | None

    @property
    def batch_bytes(self) -> int:
        """Bytes of a batch of the training on each device."""
        return _device_bytes(self.mesh, steps.batch_specs(self.cache is not None), self.train.batch)

    @property
    def state_bytes(self) -> int:
        """Bytes of the state on each device."""
        return (
            sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.train.state))
            // self.mesh.shape[sharding.MEMBER]
        )

    def lower(self) -> dict[str, Any]:
        """Name -> function that gives the lowered program: `train`, `predict` and `finish`."""
        state, members, batch, inputs = self.train
        num_positions = state.step.shape[0]
        scores, epoch = jax.ShapeDtypeStruct((num_positions,), np.float32), jax.ShapeDtypeStruct((), np.int32)
        return {
            "train": lambda: self.steps.train.lower(state, members, batch, inputs),
            "predict": lambda: self.steps.predict.lower(self.development.state.params, *self.development[1:]),
            "finish": lambda: self.steps.finish_epoch.lower(state, scores, epoch),
        }


def training_on(data: Data, members: Sequence[ensemble.Member], mesh: Mesh, platform: str, is_cached: bool) -> Training:
    """The training of these members on a mesh, whose devices need not be here.

    Args:
      data: The data. Its store needs no frames.
      members: The members.
      mesh: Mesh with the axes `("member", "data")`.
      platform: `cpu`, `gpu` or `tpu`, that of the mesh.
      is_cached: Frames live in device memory.

    Raises:
      ArtefactError: A split lacks labelled utterances.
    """
    rows, development = rows_of(data)
    shape = shape_of(data, rows, development)
    settings = predictions.settings_of(data.config, data, platform)
    current = arrange(len(members), mesh.shape[sharding.MEMBER])
    cache = cache_of(data, (rows, development)) if is_cached else None
    t = data.config.train
    compiled = steps.compile_steps(
        settings, mesh, t.patience, t.min_delta, num_running=current.num_running, is_cached=is_cached
    )
    called_with = functools.partial(_arguments, data, members, mesh, settings, current, shape, cache)
    num_batches = [_num_batches(data, split, shape) for split in (rows, development)]
    return Training(compiled, settings, mesh, called_with(True), called_with(False), shape, *num_batches, cache)


def _arguments(
    data: Data,
    members: Sequence[ensemble.Member],
    mesh: Mesh,
    settings: Settings,
    current: Arrangement,
    shape: loader.Shape,
    cache: Cache | None,
    has_own_order: bool,
) -> Arguments:
    is_cached = cache is not None
    layout = Layout.of(data, members, current, has_own_order=has_own_order, is_cached=is_cached)
    weights = [np.ones(len(data.targets.class_names), np.float32)] * len(members)
    values = values_of([members[m] for m in current.member], [weights[m] for m in current.member])
    relative, voices = _relative(data, members, current)
    placed = _shapes(Members(values, layout.stream, layout.view_slot, layout.norm_slot, relative))
    width, dtype = data.num_features, np.dtype(data.store.manifest["dtype"])
    num_views, num_norms = (sum(map(len, entries)) for entries in (layout.views, layout.norms))
    statistics = jax.ShapeDtypeStruct((num_norms, width), np.float32)
    rows = num_rows_of(shape, mesh, data.config.train.micro_batches)
    layouts = (len(layout.streams), shape.num_frames, rows)
    slots = jax.ShapeDtypeStruct((len(layout.streams), shape.num_utterances), np.int32)
    batch = Batch(
        features=None if is_cached else jax.ShapeDtypeStruct((num_views, *layouts[1:], width), dtype),
        frame=jax.ShapeDtypeStruct(layouts, np.int32) if is_cached else None,
        reset=jax.ShapeDtypeStruct(layouts, np.bool_),
        slot=jax.ShapeDtypeStruct(layouts, np.int32),
        last_frame=slots,
        utterance=slots,
    )
    frames = jax.ShapeDtypeStruct((num_views, cache.num_frames, width), dtype) if is_cached else None
    (ways, group_slot), table = clusters.ways(data, members), None
    if balance.is_asked_for(data.config):
        num_rows = len(balance.combinations(members, group_slot)[0])
        table = jax.ShapeDtypeStruct((num_rows, len(data.targets.ids)), np.float32)
    groups = (1 + max(len(ways), 1), len(data.targets.ids))
    groups = jax.ShapeDtypeStruct(groups, np.int32) if settings.reads_groups else None
    inputs = Inputs(Normalisation(statistics, statistics), _shapes(data.labels()), frames, table, groups, *voices)
    state = jax.eval_shape(functools.partial(init, settings), placed.values)
    return Arguments(state, placed, batch, inputs)


def _relative(
    data: Data, members: Sequence[ensemble.Member], current: Arrangement
) -> tuple[Relative | None, tuple[SpeakerMoments | None, Spoken | None]]:
    """How members read features relative to speakers, and shapes of the statistics."""
    found = speakers.layout(data, members, current)
    if found is None:
        return None, (None, None)
    num_entries, num_voices = sum(map(len, found[0])), len(speakers.voices_of(data, speakers.OF_TRAINING).rows)
    moments = jax.ShapeDtypeStruct((num_entries, num_voices, data.num_features), np.float32)
    voice = jax.ShapeDtypeStruct((len(data.splits), len(data.targets.ids)), np.int32)
    spoken = Spoken(jax.ShapeDtypeStruct((num_voices,), np.float32), voice)
    return found[1], (SpeakerMoments(moments, moments), spoken)


def _num_batches(data: Data, rows: dict[Fold, np.ndarray], shape: loader.Shape) -> int:
    """Batches of the largest stream, planned in the order of the table; of a large corpus from a part of it."""
    longest = max(rows.values(), key=len)
    lengths = data.num_frames[data.store_rows[longest]]
    sample = lengths[:: -(-len(lengths) // _PLANNED)]
    return round(len(loader.plan_epoch(sample, shape, data.config.train.data_seed, None)) * len(lengths) / len(sample))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), tree)


def _device_bytes(mesh: Mesh, specs: Any, shapes: Any) -> int:
    """Bytes on each device of arrays that lie on a mesh by these specs; None stands for no array."""
    held = [
        math.prod(NamedSharding(mesh, spec).shard_shape(array.shape)) * array.dtype.itemsize
        for spec, array in zip(specs, shapes, strict=True)
        if array is not None
    ]
    return sum(held)

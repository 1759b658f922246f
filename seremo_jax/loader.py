"""Seeded plan of packed batches, and the Grain pipeline that turns the plan into ready batches.

Utterances are packed, not padded: the shuffle of an epoch fills rows first-fit until the next utterance fits nowhere,
one zero frame between neighbours. Every utterance is used once an epoch and one shape compiles once. The plan is a
pure function of (data seed, epoch, lengths), so a position in it is one integer, whatever the number of processes.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int

from seremo_jax.artefacts import ArtefactError
from seremo_jax.schema import Batch
from seremo_jax.targets import Targets

_SHORTEST_ROWS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
_WANTED_FILL = 0.92
_PLANNED_FOR_SHAPE = 20_000
_ROW_REMEDY = "raise train.frames_per_row, or set it to 0 to derive it"


Lengths = Sequence[int] | Int[np.ndarray, "N"]


@runtime_checkable
class FrameSource(Protocol):
    """What the loader needs of a store."""

    def read(self, layer: int, rows: Lengths) -> list[np.ndarray]:
        """Frames [T, D] of the given rows of the store's index."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Static shape of every batch of a run.

    Attributes:
      num_frames: T, frames in a row.
      num_rows: R.
      num_utterances: B, the most utterances a batch can hold.
    """

    num_frames: int
    num_rows: int
    num_utterances: int


class Placed(NamedTuple):
    """Utterances of one batch: position in the list of lengths, row, and first frame of each."""

    item: Int[np.ndarray, "n"]
    row: Int[np.ndarray, "n"]
    start: Int[np.ndarray, "n"]


def plan_shape(lengths: Lengths, batch_size: int, frames_per_row: int = 0, data_seed: int = 0) -> Shape:
    """Chooses rows and frames so that a batch holds `batch_size` utterances on average.

    Args:
      lengths: Frames of each utterance.
      batch_size: Utterances wanted in a batch, on average.
      frames_per_row: T; 0 takes the shortest row that is more than 90 % full (short rows keep the GEMMs large).
      data_seed: Seed of the plan.

    Raises:
      ArtefactError: No utterance, or one longer than `frames_per_row`.
    """
    lengths = np.asarray(lengths)
    if not lengths.size:
        raise ArtefactError("no utterance to plan batches for")
    longest, mean = int(lengths.max()), float(lengths.mean()) + 1
    sample = lengths[:: max(1, lengths.size // _PLANNED_FOR_SHAPE)]
    if frames_per_row and frames_per_row < longest:
        raise ArtefactError(f"an utterance has {longest} frames, a row only {frames_per_row}: {_ROW_REMEDY}")
    candidates = [frames_per_row] if frames_per_row else [_round_up(longest * f, 8) for f in _SHORTEST_ROWS]
    wanted = min(batch_size, lengths.size)
    best: tuple[float, Shape] | None = None
    for num_frames in candidates:
        fill = 0.9
        for _ in range(2):
            num_rows = max(1, round(wanted * mean / ((num_frames + 1) * fill)))
            shape = Shape(num_frames, num_rows, max(2, round(1.5 * wanted)))
            batches = plan_epoch(sample, shape, data_seed, epoch=0)
            # The last batch is a remainder and says nothing about how well rows fill.
            whole = batches[:-1] or batches
            fill = sum(int(sample[b.item].sum()) for b in whole) / (len(whole) * num_rows * num_frames)
        if best is None or fill > best[0]:
            best = (fill, shape)
        if fill >= _WANTED_FILL:
            break
    return best[1]


def plan_epoch(lengths: Lengths, shape: Shape, data_seed: int, epoch: int | None) -> list[Placed]:
    """Places every utterance once.

    Args:
      lengths: Frames of each utterance.
      shape: Shape of the batches.
      data_seed: Seed of the shuffle.
      epoch: Number of the epoch; None keeps the order of `lengths` (evaluation).

    Raises:
      ArtefactError: An utterance is longer than a row.
    """
    lengths = np.asarray(lengths)
    if lengths.max() > shape.num_frames:
        raise ArtefactError(f"an utterance has {lengths.max()} frames, a row only {shape.num_frames}: {_ROW_REMEDY}")
    order = np.arange(lengths.size)
    if epoch is not None:
        order = np.random.default_rng([data_seed, epoch]).permutation(order)
    batches: list[Placed] = []
    items: list[tuple[int, int, int]] = []
    free_from = np.zeros(shape.num_rows, int)
    for item in order:
        rows = np.flatnonzero(free_from + lengths[item] <= shape.num_frames)
        if items and (not rows.size or len(items) == shape.num_utterances):
            batches.append(Placed(*np.array(items).T))
            items, free_from = [], np.zeros(shape.num_rows, int)
            rows = np.arange(1)
        items.append((int(item), int(rows[0]), int(free_from[rows[0]])))
        free_from[rows[0]] += lengths[item] + 1
    batches.append(Placed(*np.array(items).T))
    return batches


class BatchSource:
    """Random access to the ready batches of one epoch; item i is batch i of the plan.

    Args:
      store: Where frames are read from.
      layers: Layers to read, the leading axis of `Batch.features`.
      store_rows: Row of the store's index for each utterance planned.
      target_rows: Row of `targets` for each utterance planned.
      targets: Targets of the utterance table.
      plan: Batches of the epoch.
      shape: Shape of the batches.
    """

    def __init__(
        self,
        store: FrameSource,
        layers: Sequence[int],
        store_rows: np.ndarray,
        target_rows: np.ndarray,
        targets: Targets,
        plan: Sequence[Placed],
        shape: Shape,
    ):
        self._store, self._layers, self._targets = store, tuple(layers), targets
        self._store_rows, self._target_rows = np.asarray(store_rows), np.asarray(target_rows)
        self._plan, self._shape = plan, shape

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Batch:
        placed, shape = self._plan[index], self._shape
        num_frames, num_rows, num = shape.num_frames, shape.num_rows, len(placed.item)
        reset, is_valid = np.zeros((num_frames, num_rows), bool), np.zeros((num_frames, num_rows), bool)
        last_frame, is_used = np.zeros(shape.num_utterances, np.int32), np.arange(shape.num_utterances) < num
        features = None
        for k, layer in enumerate(self._layers):
            frames = self._store.read(layer, self._store_rows[placed.item].tolist())
            if features is None:
                kind = frames[0]
                features = np.zeros((len(self._layers), num_frames, num_rows, kind.shape[1]), kind.dtype)
            for i, (row, start) in enumerate(zip(placed.row, placed.start, strict=True)):
                stop = start + len(frames[i])
                features[k, start:stop, row] = frames[i]
                if k == 0:
                    reset[start, row] = True
                    is_valid[start:stop, row] = True
                    last_frame[i] = (stop - 1) * num_rows + row
        return Batch(features, reset, is_valid, last_frame, is_used, *self._labels(placed.item))

    def _labels(self, items: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = self._target_rows[items]

        def fill(values: np.ndarray) -> np.ndarray:
            filled = np.zeros((self._shape.num_utterances, *values.shape[1:]), values.dtype)
            filled[: len(rows)] = values[rows]
            return filled

        utterance = np.full(self._shape.num_utterances, -1, np.int32)
        utterance[: len(rows)] = rows
        t = self._targets
        fields = (t.distribution, t.has_votes, t.consensus, t.has_consensus, t.attributes, t.has_attribute)
        return (utterance, *(fill(field) for field in fields))


def batches(source: BatchSource, start: int = 0, num_threads: int = 2) -> Iterator[Batch]:
    """Yields batches `start`, `start + 1`, … of the source, read ahead by threads."""
    if start >= len(source):
        return
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    yield from grain.MapDataset.source(source)[start:].to_iter_dataset(options)


def _round_up(value: float, multiple: int) -> int:
    return -(-int(np.ceil(value)) // multiple) * multiple

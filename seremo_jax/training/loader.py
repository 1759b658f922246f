"""Seeded plan of packed batches, and the Grain pipeline that turns the plan into ready batches.

CCC is a statistic of the batch, so a batch must be a fair draw of utterances. Buckets of like length would tie it to
their length, and padding to the longest utterance would waste about half of the work. Utterances are therefore packed:
those of a shuffled epoch fill rows of frames first-fit, until the next one fits nowhere. Between neighbours stand as
many zero frames as the convolution of the head reaches. Every utterance is used once an epoch, and all batches have one
shape, which compiles once.

The plan is a pure function of data seed, epoch and lengths. A position in it is one integer, a resumed run sees exactly
the batches that it would have seen, and every process takes its part of the same batches.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.schema import Batch

_ROW_LENGTHS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Lengths of a row that are tried, in multiples of the longest utterance."""
_WANTED_FILL = 0.92
"""Share of the frames of a row that hold speech, at which no longer row is tried."""
_PLANNED_FOR_SHAPE = 20_000
"""Utterances that the shape is planned from at most, evenly spaced; more change it by little and take long."""
_ROW_REMEDY = "raise train.frames_per_row, or set it to 0 to derive it"

Lengths = Sequence[int] | Int[np.ndarray, "N"]


@runtime_checkable
class FrameSource(Protocol):
    """The part of a store that the loader uses."""

    def read(self, layer: int, rows: Lengths) -> list[np.ndarray]:
        """Frames [T, D] of the given rows of the store's index."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Static shape of every batch of a run.

    Attributes:
      num_frames: T, frames in a row.
      num_rows: R.
      num_utterances: B, the most utterances that a batch can hold. Batches hold fewer, under a mask.
      gap: Zero frames between neighbours in a row, see `gap_of`.
    """

    num_frames: int
    num_rows: int
    num_utterances: int
    gap: int = 1


def gap_of(conv_kernel: int) -> int:
    """Zero frames that keep neighbours in a row apart, for a centred convolution of so many frames.

    The convolution of the last frame of an utterance reaches half a kernel beyond it. All of that must be zeros, as it
    is beyond the row, or packing would change a number.
    """
    return max(1, conv_kernel // 2)


class Placed(NamedTuple):
    """Where the n utterances of one batch lie.

    Attributes:
      item: Position of each utterance in the list of lengths that was planned.
      row: Its row.
      start: Its first frame in the row.
      length: Its number of frames.
    """

    item: Int[np.ndarray, "n"]
    row: Int[np.ndarray, "n"]
    start: Int[np.ndarray, "n"]
    length: Int[np.ndarray, "n"]


def plan_shape(lengths: Lengths, batch_size: int, frames_per_row: int = 0, data_seed: int = 0, gap: int = 1) -> Shape:
    """Chooses rows and frames so that a batch holds `batch_size` utterances on average.

    Args:
      lengths: Frames of each utterance.
      batch_size: Utterances wanted in a batch, on average.
      frames_per_row: T. 0 takes the shortest row that is full enough: a batch of short rows has many of them, and the
        recurrence multiplies matrices of as many rows.
      data_seed: Seed of the plan.
      gap: Zero frames between neighbours, see `gap_of`.

    Raises:
      ArtefactError: There is no utterance, or one is longer than `frames_per_row`.
    """
    lengths = np.asarray(lengths)
    if not lengths.size:
        raise ArtefactError("no utterance to plan batches for")
    # Each utterance takes the zero frames behind it, too.
    longest, mean = int(lengths.max()), float(lengths.mean()) + gap
    sample = lengths[:: max(1, lengths.size // _PLANNED_FOR_SHAPE)]
    if frames_per_row and frames_per_row < longest:
        raise ArtefactError(f"an utterance has {longest} frames, a row only {frames_per_row}: {_ROW_REMEDY}")
    candidates = [frames_per_row] if frames_per_row else [_round_up(longest * f, 8) for f in _ROW_LENGTHS]
    wanted = min(batch_size, lengths.size)
    best: tuple[float, Shape] | None = None
    for num_frames in candidates:
        # How full rows get depends on their number, and the number that is needed on how full they get. Two rounds from
        # a guess settle both.
        fill = 0.9
        for _ in range(2):
            num_rows = max(1, round(wanted * mean / ((num_frames + gap) * fill)))
            shape = Shape(num_frames, num_rows, max(2, round(1.5 * wanted)), gap)
            batches = plan_epoch(sample, shape, data_seed, epoch=0)
            # The last batch holds what is left over and says nothing about how full rows get.
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
      epoch: Number of the epoch. None keeps the order of `lengths`, for evaluation.

    Raises:
      ArtefactError: An utterance is longer than a row.
    """
    lengths = np.asarray(lengths)
    if not lengths.size:
        return []
    if lengths.max() > shape.num_frames:
        raise ArtefactError(f"an utterance has {lengths.max()} frames, a row only {shape.num_frames}: {_ROW_REMEDY}")
    order = np.arange(lengths.size)
    if epoch is not None:
        order = np.random.default_rng([data_seed, epoch]).permutation(order)
    batches: list[Placed] = []
    items: list[tuple[int, int, int, int]] = []
    free_from = np.zeros(shape.num_rows, int)
    for item in order:
        rows = np.flatnonzero(free_from + lengths[item] <= shape.num_frames)
        # The batch ends with the first utterance that fits nowhere. To take a later, shorter one instead would draw
        # short utterances more often into some batches than into others.
        if items and (not rows.size or len(items) == shape.num_utterances):
            batches.append(Placed(*np.array(items).T))
            items, free_from = [], np.zeros(shape.num_rows, int)
            rows = np.arange(1)
        items.append((int(item), int(rows[0]), int(free_from[rows[0]]), int(lengths[item])))
        # Zero frames stay free behind the utterance: the convolution then sees at both ends what it would see if the
        # utterance were alone.
        free_from[rows[0]] += lengths[item] + shape.gap
    batches.append(Placed(*np.array(items).T))
    return batches


class Order(NamedTuple):
    """What decides the batches that a member sees: members of one order share them.

    Attributes:
      fold: Its fold; None for the splits of the utterance table.
      data_seed: Seed of the order of utterances; None for that of the table.
      copy_share: Share of the utterances that are heard as copies.
    """

    fold: int | None
    data_seed: int | None
    copy_share: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stream:
    """An order of batches over some utterances.

    Attributes:
      plan: The batches.
      store_rows: Row of the store's index for each utterance that was planned.
      label_rows: Row of the labels for each utterance that was planned.
    """

    plan: Sequence[Placed]
    store_rows: Int[np.ndarray, " n"]
    label_rows: Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """Random access to the ready batches of one epoch. Item i is batch i of every stream.

    Once a stream has run out, its batches hold no utterance.

    Attributes:
      streams: The streams.
      shape: Shape of the batches.
      num_rows: R of the arrays, at least that of `shape`. Rows beyond that of `shape` stay empty.
      store: Source of the frames; None where they live in device memory.
      num_features: D of the features.
      dtype: Dtype of the features.
      views: (stream, layer) of each view to read.
      rows: Rows whose frames the devices of this process need; None means all.
      columns: Layer -> features to keep, ascending. Layers left out keep all of them.
      first_frames: [store rows] place of each utterance's first frame in device memory; None where frames are read.
    """

    streams: Sequence[Stream]
    shape: Shape
    num_rows: int
    store: FrameSource | None = None
    num_features: int = 0
    dtype: str = "float32"
    views: Sequence[tuple[int, int]] = ()
    rows: range | None = None
    columns: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    first_frames: Int[np.ndarray, " M"] | None = None

    def __len__(self) -> int:
        return max(len(stream.plan) for stream in self.streams)

    def __getitem__(self, index: int) -> Batch:
        layouts = [self._layout(stream, index) for stream in self.streams]
        names = ("frame", "reset", "slot", "last_frame", "utterance")
        frame, *others = (np.stack([layout[name] for layout in layouts]) for name in names)
        features = np.stack([self._features(*view, index) for view in self.views]) if self.views else None
        return Batch(features, None if self.first_frames is None else frame, *others)

    def _layout(self, stream: Stream, index: int) -> dict[str, np.ndarray]:
        num_frames, num_slots = self.shape.num_frames, self.shape.num_utterances
        frame = np.zeros((num_frames, self.num_rows), np.int32)
        slot = np.full((num_frames, self.num_rows), -1, np.int32)
        reset = np.zeros((num_frames, self.num_rows), bool)
        last_frame, utterance = np.zeros(num_slots, np.int32), np.full(num_slots, -1, np.int32)
        if index < len(stream.plan):
            placed = stream.plan[index]
            store_rows = stream.store_rows[placed.item]
            utterance[: len(placed.item)] = stream.label_rows[placed.item]
            for i, (_, row, start, length) in enumerate(zip(*placed, strict=True)):
                stop = start + length
                reset[start, row], slot[start:stop, row] = True, i
                # The summary of an utterance is the state after its last valid frame. Frames and rows lie in one axis
                # there, so that a single gather finds the states of all utterances.
                last_frame[i] = (stop - 1) * self.num_rows + row
                if self.first_frames is not None:
                    first = self.first_frames[store_rows[i]]
                    frame[start:stop, row] = np.arange(first, first + length)
        return {"frame": frame, "slot": slot, "reset": reset, "last_frame": last_frame, "utterance": utterance}

    def _features(self, stream: int, layer: int, index: int) -> np.ndarray:
        rows, columns = self.rows if self.rows is not None else range(self.num_rows), self.columns.get(layer)
        features = np.zeros((self.shape.num_frames, len(rows), self.num_features), self.dtype)
        if index >= len(self.streams[stream].plan):
            return features
        placed = self.streams[stream].plan[index]
        in_rows = np.flatnonzero(np.isin(placed.row, rows))
        frames = self.store.read(layer, self.streams[stream].store_rows[placed.item[in_rows]].tolist())
        for part, row, start in zip(frames, placed.row[in_rows], placed.start[in_rows], strict=True):
            features[start : start + len(part), row - rows.start] = part if columns is None else part[:, columns]
        return features


def batches(source: BatchSource, start: int = 0, num_threads: int = 2) -> Iterator[Batch]:
    """Yields batches `start`, `start + 1`, … of the source, read ahead by threads."""
    if start >= len(source):
        return
    # Threads and not worker processes: one item is a whole batch, which would have to be copied between processes.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    yield from grain.MapDataset.source(source)[start:].to_iter_dataset(options)


def _round_up(value: float, multiple: int) -> int:
    return -(-int(np.ceil(value)) // multiple) * multiple

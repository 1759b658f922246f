"""Audio on its way to a backbone: batches of few padded shapes, decoded ahead by threads.

No statistic is taken over a batch here, so utterances of similar length may share one, which saves padding. A batch
never reaches across shards, so that a shard can be written, and skipped when work goes on, by itself.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from seremo_jax.core.artefacts import ArtefactError, in_bucket, place_of
from seremo_jax.data import audio
from seremo_jax.data.level import NO_LEVEL, Hearing

_BATCHES_AHEAD = 2
_BATCH_COST, _BATCH_COST_S, _SHAPE_COST_S = 1 / 4, 5.0, 60.0
"""What starting a batch costs, as a share of a full one and at most as seconds of audio, and compiling a shape.

They only steer how batches are filled. A shape of Whisper base takes two cores about 4 s, in which they hear 60 s.
"""
_FRACTIONS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)
_SLACK_SAMPLES = 2
"""How far a resampled length may be from the rounded duration of the table."""
_REMEDY = "ingest accepted it, so it has changed since: put it back, or ingest and extract into another --workdir"


@dataclasses.dataclass(frozen=True)
class Recordings:
    """The audio of a table of utterances.

    Attributes:
      ids: Utterance ids.
      paths: Audio file of each.
      num_samples: [N] int64, most samples each may have at 16 kHz.
      sha256: Hash of what ingest heard in each (see `audio.content_hash`); empty where that is not known.
    """

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    num_samples: np.ndarray
    sha256: tuple[str, ...]

    @classmethod
    def of(cls, utterances: pa.Table, root: str | os.PathLike) -> "Recordings":
        """The audio of the utterance table whose paths are relative to `root`, or whole ones."""
        seconds = utterances["duration_s"].to_numpy()
        num_samples = np.round(seconds * audio.SAMPLE_RATE_HZ).astype(np.int64) + _SLACK_SAMPLES
        written = utterances["audio"].to_pylist()
        paths = tuple(path if in_bucket(path) else os.fspath(place_of(root) / path) for path in written)
        hashes = tuple(utterances["audio_sha256"].to_pylist())
        return cls(tuple(utterances["id"].to_pylist()), paths, num_samples, hashes)

    def decode(self, row: int) -> Float[np.ndarray, " S"]:
        """Waveform of one utterance, float32 in [-1, 1] at 16 kHz.

        Raises:
          ArtefactError: The file is not what ingest saw.
        """
        try:
            decoded = audio.decode(self.paths[row], is_hashed=bool(self.sha256[row]))
        except audio.AudioError as error:
            raise ArtefactError(f"utterance {self.ids[row]!r}: {error}; {_REMEDY}") from error
        waveform, expected = decoded.waveform, int(self.num_samples[row]) - _SLACK_SAMPLES
        if abs(len(waveform) - expected) > _SLACK_SAMPLES:
            raise ArtefactError(
                f"utterance {self.ids[row]!r}: {self.paths[row]} has {len(waveform)} samples at 16 kHz, the table says "
                f"{expected}; {_REMEDY}"
            )
        # A file of the same length may hold other speech, or other samples of the same.
        if self.sha256[row] and decoded.sha256 != self.sha256[row]:
            there, stated = decoded.sha256[:16], self.sha256[row][:16]
            raise ArtefactError(
                f"utterance {self.ids[row]!r}: the samples of {self.paths[row]} have the hash {there}, the table says "
                f"{stated}; {_REMEDY}"
            )
        return waveform


class Planned(NamedTuple):
    """A batch to be.

    Attributes:
      rows: Rows of the table, in the order of the batch.
      num_slots: B, at least as many.
      num_samples: S, padded length.
    """

    rows: tuple[int, ...]
    num_slots: int
    num_samples: int


class Batch(NamedTuple):
    """A batch of audio.

    Attributes:
      rows: Rows of the table.
      waveforms: [B, S] float32, 0 beyond each length.
      num_samples: [B] int32, 0 in slots without an utterance.
      dbfs: [B] float64 active level of each utterance before it was brought to another, NaN likewise.
    """

    rows: tuple[int, ...]
    waveforms: np.ndarray
    num_samples: np.ndarray
    dbfs: np.ndarray


def plan(
    shards: Sequence[Sequence[int]],
    num_samples: Int[np.ndarray, " N"],
    bucketings: Sequence[Sequence[int]],
    batch_samples: int,
    least_samples: int = 0,
    multiple: int = 1,
) -> list[list[Planned]]:
    """Batches of each shard, its longest utterances first; a shape per bucket at most, over all shards.

    Every batch has about the same padded length, chosen below `batch_samples` where that leaves less of the last batch
    of a shard empty. A pure function of its arguments.

    Args:
      shards: Rows of each shard.
      num_samples: Samples of each row.
      bucketings: Sets of padded lengths to choose from, each ascending and ending at the longest row or beyond: few
        buckets compile fast, many pad little.
      batch_samples: Padded samples of a batch at most, but room for one utterance a device at least.
      least_samples: What a shorter utterance costs at least (`Backbone.least_samples`).
      multiple: Slots of every batch are a multiple of this: the devices that share it.
    """
    batch_cost = min(_BATCH_COST * batch_samples, _BATCH_COST_S * audio.SAMPLE_RATE_HZ)
    orders = [sorted(shard, key=lambda row: (-num_samples[row], row)) for shard in shards]
    best_cost, best = np.inf, []
    for bucketing in bucketings:
        buckets = np.asarray(bucketing)
        padded = [buckets[np.searchsorted(buckets, num_samples[order])].tolist() for order in orders]
        for fraction in _FRACTIONS:
            fills = [_fill(lengths, int(batch_samples * fraction), least_samples, multiple) for lengths in padded]
            batches = [batch for fill in fills for batch in fill]
            num_shapes = len({length for _, _, length in batches})
            cost = (
                sum(num_slots * max(length, least_samples) for _, num_slots, length in batches)
                + batch_cost * len(batches)
                + _SHAPE_COST_S * audio.SAMPLE_RATE_HZ * num_shapes
            )
            if cost < best_cost:
                best_cost, best = cost, fills
    return [
        [Planned(tuple(order[start : start + num_slots]), num_slots, length) for start, num_slots, length in fill]
        for order, fill in zip(orders, best, strict=True)
    ]


def _fill(lengths: Sequence[int], batch_samples: int, least_samples: int, multiple: int) -> list[tuple[int, int, int]]:
    """(First, slots, padded length) of the fewest batches: each takes as many of the next longest as it has room."""
    batches, start = [], 0
    while start < len(lengths):
        num_slots = max(1, batch_samples // max(lengths[start], least_samples) // multiple) * multiple
        batches.append((start, num_slots, lengths[start]))
        start += num_slots
    return batches


def stream(
    planned: Sequence[Planned], recordings: Recordings, num_threads: int, hearing: Hearing = NO_LEVEL
) -> Iterator[Batch]:
    """Yields the planned batches in order; threads decode the next ones meanwhile, a bounded number ahead.

    Args:
      planned: The batches.
      recordings: The audio.
      num_threads: Threads that decode.
      hearing: At which level the utterances are heard.

    Raises:
      ArtefactError: See `Recordings.decode`.
    """
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    waiting: collections.deque[tuple[Batch, list[Future[None]]]] = collections.deque()

    def fill(batch: Batch, slot: int) -> None:
        waveform, batch.dbfs[slot] = hearing.heard(recordings.decode(batch.rows[slot]), audio.SAMPLE_RATE_HZ)
        batch.waveforms[slot, : len(waveform)] = waveform
        batch.num_samples[slot] = len(waveform)

    try:
        for item in [*planned, *[None] * _BATCHES_AHEAD]:
            if item is not None:
                waveforms = np.zeros((item.num_slots, item.num_samples), np.float32)
                batch = Batch(item.rows, waveforms, np.zeros(item.num_slots, np.int32), np.full(item.num_slots, np.nan))
                waiting.append((batch, [pool.submit(fill, batch, slot) for slot in range(len(item.rows))]))
            if waiting and (item is None or len(waiting) > _BATCHES_AHEAD):
                ready, futures = waiting.popleft()
                for future in futures:
                    future.result()
                yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

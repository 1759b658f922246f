"""Frames of utterances in a condition, in memory and block by block.

A store takes many gigabytes, and every condition would take another one. So each condition is heard anew, its frames go
to the heads at once, and only predictions are kept.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jax.sharding import Mesh
from jaxtyping import Float, Int

from seremo_jax import backbones
from seremo_jax.conditions import render
from seremo_jax.conditions import sources as condition_sources
from seremo_jax.conditions.rendered import in_condition
from seremo_jax.core.artefacts import place_of
from seremo_jax.core.condition_names import Condition
from seremo_jax.core.config import Config
from seremo_jax.core.progress import Progress
from seremo_jax.data import audio, audio_batches
from seremo_jax.data.roots import audio_root
from seremo_jax.data.tables import read_for
from seremo_jax.features import forward
from seremo_jax.features.manifest import DTYPES

BLOCK_BYTES = 256 << 20
"""Bytes of frames that are held in memory at a time."""

Predict = Callable[["BlockFrames", np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Frames of a block, number of frames of each utterance, and its row of the utterance table -> attributes [E, n, A] and
distribution [E, n, C], in the same order."""


@runtime_checkable
class Kept(Protocol):
    """Predictions of blocks of one condition that outlive the process, so that a run goes on where it was cut off."""

    def read(self, number: int, num_rows: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Attributes [E, n, A] and distributions [E, n, C] of a block of n rows; None where it was not heard yet."""

    def write(self, number: int, attributes: np.ndarray, distribution: np.ndarray) -> None:
        """Keeps those of a block."""


class BlockFrames:
    """Frames of a block of utterances, which are read as those of a store are. Rows are places in the block.

    Args:
      layers: Layers of the frames.
      frames: Frames [K, T, D] of each utterance.
    """

    def __init__(self, layers: Sequence[int], frames: Sequence[np.ndarray]):
        self.layers = tuple(layers)
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def num_frames(self) -> Int[np.ndarray, " n"]:
        """[n] int32 number of frames of each utterance."""
        return np.array([frames.shape[1] for frames in self._frames], np.int32)

    def read(self, layer: int, rows: Sequence[int] | Int[np.ndarray, " m"]) -> list[Float[np.ndarray, "T D"]]:
        """Frames of some utterances, each [T, D], in the order of `rows`."""
        slot = self.layers.index(layer)
        return [self._frames[row][slot] for row in rows]


@dataclasses.dataclass(frozen=True)
class Listener:
    """The utterances of an experiment, the sources of its conditions, and the backbone that hears them.

    Attributes:
      config: The experiment.
      utterances: Its utterance table. Babble for an utterance is drawn from those of the same word in column `split`.
      recordings: The clean audio of the table.
      sources: Recorded noises and rooms.
      backbone: The backbone, which computes `layers` and none above the highest of them.
      layers: Layers that are read.
      mesh: Devices that share a batch; None means the default device.
    """

    config: Config
    utterances: pa.Table
    recordings: audio_batches.Recordings
    sources: render.Sources
    backbone: backbones.Backbone
    layers: tuple[int, ...]
    mesh: Mesh | None = None

    @classmethod
    def of(
        cls, config: Config, workdir: str | os.PathLike, layers: Sequence[int], sources: render.Sources
    ) -> "Listener":
        """A listener for the utterances of a workdir and frames of `layers`, on the default device.

        Raises:
          ArtefactError: The workdir has no tables.
          ConfigError: The backbone or a layer of it does not exist.
        """
        utterances, _, _ = read_for(config, workdir)
        recordings = audio_batches.Recordings.of(utterances, audio_root(config, place_of(workdir)))
        layers = tuple(sorted(set(layers)))
        backbone = forward.load_backbone(config, layers)
        return cls(config, utterances, recordings, sources, backbone, layers)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of `eval.conditions`, the clean one first."""
        return condition_sources.asked(self.config, self.sources)

    def blocks(
        self, condition: Condition, rows: Int[np.ndarray, " N"], left_out: Collection[int] = ()
    ) -> Iterator[tuple[Int[np.ndarray, " n"], BlockFrames]]:
        """Yields rows of the utterance table with their frames, as many as fit `BLOCK_BYTES`, in the order of `rows`.

        Args:
          condition: The condition.
          rows: Rows of the utterances.
          left_out: Numbers of blocks of `rows_of_blocks` that are not heard.

        Raises:
          ArtefactError: Audio is not what ingest saw, or the backbone's output is unusable.
          ConditionError: See `rendered.Rendered.rendering`.
        """
        recordings = in_condition(
            self.recordings, self.utterances, condition, self.config.eval.condition_seed, self.sources
        )
        hearing = forward.BackbonePass(self.config, self.backbone, self.layers, keeps_means=False, mesh=self.mesh)
        blocks = self.rows_of_blocks(rows)
        # All blocks are planned together, so that they share their few shapes, and those left out as well, so that the
        # batches of the others do not depend on them.
        planned = hearing.plan(blocks, recordings.num_samples)
        pairs = [pair for number, pair in enumerate(zip(blocks, planned, strict=True)) if number not in left_out]
        batches = [batch for _, block_batches in pairs for batch in block_batches]
        with contextlib.closing(hearing.stream(batches, recordings)) as outputs:
            for block, block_batches in pairs:
                frames = {}
                for _ in block_batches:
                    batch, output = next(outputs)
                    frames |= hearing.frames(batch, output, recordings)
                # Copied, since a slice would keep the padded frames of its whole batch in memory.
                yield np.array(block, np.int64), BlockFrames(self.layers, [frames[row].copy() for row in block])

    def rows_of_blocks(self, rows: Int[np.ndarray, " N"]) -> list[list[int]]:
        """Rows of each block, which depend on the lengths of the utterances and the bytes of a frame alone."""
        itemsize = np.dtype(DTYPES[self.config.extract.dtype]).itemsize
        second_bytes = self.backbone.frame_rate_hz * self.backbone.num_features * len(self.layers) * itemsize
        size = self.recordings.num_samples[rows] / audio.SAMPLE_RATE_HZ * second_bytes
        # An utterance belongs to the block in which its first byte would lie if all frames lay in one row.
        place = (np.cumsum(size) - size) // BLOCK_BYTES
        return [rows[place == number].tolist() for number in np.unique(place)]


def each(
    listener: Listener, condition: Condition, rows: Int[np.ndarray, " N"], layers: Sequence[int]
) -> Iterator[tuple[int, Float[np.ndarray, "K _ D"]]]:
    """Yields the row of each utterance and its frames of some layers in a condition, with the memory of one block.

    Raises:
      ArtefactError: See `Listener.blocks`.
      ConditionError: See `Listener.blocks`.
    """
    for block, frames in listener.blocks(condition, rows):
        for place, row in enumerate(block.tolist()):
            yield row, np.stack([frames.read(layer, [place])[0] for layer in layers])


def predict_condition(
    listener: Listener,
    condition: Condition,
    rows: Int[np.ndarray, " N"],
    predict: Predict,
    is_quiet: bool = False,
    kept: Kept | None = None,
) -> tuple[Float[np.ndarray, "E N A"], Float[np.ndarray, "E N C"], Int[np.ndarray, " N"]]:
    """Predictions for utterances in a condition.

    Args:
      listener: The listener. The same one serves all conditions, so that nothing is compiled twice.
      condition: The condition.
      rows: Rows of the utterance table, ascending.
      predict: Called once for each block.
      is_quiet: Shows no progress.
      kept: Where predictions of blocks are kept, and read instead of hearing them again; None keeps none.

    Returns:
      Attributes, distributions, and the rows of the utterance table, ascending.

    Raises:
      ArtefactError: See `Listener.blocks`.
      ConditionError: See `Listener.blocks`.
    """
    blocks = listener.rows_of_blocks(rows)
    parts = {number: kept and kept.read(number, len(block)) for number, block in enumerate(blocks)}
    pending = [number for number, part in parts.items() if part is None]
    num_done = sum(len(block) for number, block in enumerate(blocks) if parts[number] is not None)
    with Progress(len(rows), condition.id, "utterances", done=num_done, is_quiet=is_quiet) as progress:
        heard = listener.blocks(condition, rows, parts.keys() - pending) if pending else ()
        for number, (block, frames) in zip(pending, heard, strict=True):
            parts[number] = predict(frames, frames.num_frames, block)
            if kept is not None:
                kept.write(number, *parts[number])
            progress.update(len(block))
    attributes, distribution = zip(*(parts[number] for number in sorted(parts)), strict=True)
    return np.concatenate(attributes, axis=1), np.concatenate(distribution, axis=1), np.concatenate(blocks)

"""Audio -> condition -> backbone -> frames in memory, block by block: conditions are heard anew and never stored."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from jax.sharding import Mesh
from jaxtyping import Float, Int

from seremo_jax import backbones
from seremo_jax.conditions import render
from seremo_jax.conditions import sources as condition_sources
from seremo_jax.core.artefacts import place_of
from seremo_jax.core.condition_names import Condition
from seremo_jax.core.config import Config
from seremo_jax.core.progress import Progress
from seremo_jax.data import audio, audio_batches
from seremo_jax.data.tables import audio_root, read_tables
from seremo_jax.features import forward
from seremo_jax.features.manifest import DTYPES

BLOCK_BYTES = 256 << 20
"""Frames held at a time."""

Predict = Callable[["BlockFrames", np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Frames of a block, frames of each utterance, and its row of the utterance table -> attributes [E, n, A] and
distribution [E, n, C], in the same order."""


@dataclasses.dataclass(frozen=True)
class Rendered(audio_batches.Recordings):
    """The audio of a table of utterances, heard in a condition."""

    condition: Condition
    seed: int
    sources: render.Sources

    def decode(self, row: int) -> Float[np.ndarray, " S"]:
        """Waveform of one utterance in the condition; see `Recordings.decode` and `render.render`."""
        waveform = super().decode(row)
        return render.render(
            waveform, audio.SAMPLE_RATE_HZ, self.condition, self.ids[row], self.seed, self.sources
        ).waveform


class BlockFrames:
    """Frames of a block of utterances, read like a store; rows are places in the block.

    Args:
      layers: Layers held.
      frames: [K, T, D] of each utterance.
    """

    def __init__(self, layers: Sequence[int], frames: Sequence[np.ndarray]):
        self.layers = tuple(layers)
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def num_frames(self) -> Int[np.ndarray, " n"]:
        """Frames of each utterance, int32."""
        return np.array([frames.shape[1] for frames in self._frames], np.int32)

    def read(self, layer: int, rows: Sequence[int] | Int[np.ndarray, " m"]) -> list[Float[np.ndarray, "T D"]]:
        """Frames of some utterances, each [T, D], in the order asked for."""
        slot = self.layers.index(layer)
        return [self._frames[row][slot] for row in rows]


@dataclasses.dataclass(frozen=True)
class Listener:
    """The utterances of an experiment, what conditions draw from, and the backbone that hears them.

    Attributes:
      config: The experiment.
      utterances: Its utterance table.
      recordings: The audio of the table.
      sources: Recorded noises and rooms.
      backbone: Computes `layers` and none above.
      layers: Layers that are read.
      mesh: Devices that share a batch; None means the default one.
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
        cls, config: Config, workdir: str | os.PathLike, layers: Sequence[int], mesh: Mesh | None = None
    ) -> "Listener":
        """What hears the utterances of a workdir, for frames of `layers`.

        Raises:
          ArtefactError: There are no tables.
          ConfigError: The backbone or a layer of it does not exist.
          ConditionError: See `sources.load`.
        """
        utterances, _, _ = read_tables(workdir)
        recordings = audio_batches.Recordings.of(utterances, audio_root(config, place_of(workdir)))
        layers = tuple(sorted(set(layers)))
        backbone = forward.load_backbone(config, layers)
        return cls(config, utterances, recordings, condition_sources.load_for(config), backbone, layers, mesh)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Those of `eval.conditions`, the clean one first."""
        return condition_sources.asked(self.config, self.sources)

    def blocks(
        self, condition: Condition, rows: Int[np.ndarray, " N"], split: str
    ) -> Iterator[tuple[Int[np.ndarray, " n"], BlockFrames]]:
        """Yields rows of the utterance table and their frames, as many as fit `BLOCK_BYTES`, in the order of `rows`.

        Args:
          condition: What to hear them in.
          rows: Utterances wanted.
          split: The split babble is drawn from.

        Raises:
          ArtefactError: Audio is not what ingest saw, or the backbone's output is unusable.
          ConditionError: See `render.rendering`.
        """
        extract, num_samples = self.config.extract, self.recordings.num_samples
        voices = condition_sources.voices_of(self.utterances, split, self.recordings.decode)
        sources = dataclasses.replace(self.sources, voices=voices)
        fields = {field.name: getattr(self.recordings, field.name) for field in dataclasses.fields(self.recordings)}
        rendered = Rendered(**fields, condition=condition, seed=self.config.eval.condition_seed, sources=sources)
        blocks = self._blocks(rows)
        planned = audio_batches.plan(
            blocks,
            num_samples,
            [backbones.bucket_lengths(num_samples[rows], n + 1) for n in range(extract.num_buckets)],
            int(extract.batch_seconds * audio.SAMPLE_RATE_HZ),
            self.backbone.least_samples,
            1 if self.mesh is None else self.mesh.size,
        )
        outputs = forward.stream(
            self.backbone,
            audio_batches.stream([batch for block in planned for batch in block], rendered, extract.num_threads),
            np.zeros(len(num_samples), bool),
            self.layers,
            extract.dtype,
            has_ranked=True,
            mesh=self.mesh,
            shards_params=self.config.backbone.shards_params,
        )
        try:
            for block, batches in zip(blocks, planned, strict=True):
                found = {}
                for _ in batches:
                    batch, output, _ = next(outputs)
                    found |= forward.frames_of(batch, output, self.backbone, self.layers, extract.dtype, rendered)
                yield np.array(block, np.int64), BlockFrames(self.layers, [found[row].copy() for row in block])
        finally:
            outputs.close()

    def _blocks(self, rows: Int[np.ndarray, " N"]) -> list[list[int]]:
        """Rows of each block: a function of their lengths and of what a frame takes."""
        itemsize = np.dtype(DTYPES[self.config.extract.dtype]).itemsize
        second_bytes = self.backbone.frame_rate_hz * self.backbone.num_features * len(self.layers) * itemsize
        size = self.recordings.num_samples[rows] / audio.SAMPLE_RATE_HZ * second_bytes
        place = (np.cumsum(size) - size) // BLOCK_BYTES
        return [rows[place == number].tolist() for number in np.unique(place)]


def predict_condition(
    listener: Listener,
    condition: Condition,
    rows: Int[np.ndarray, " N"],
    split: str,
    predict: Predict,
    is_quiet: bool = False,
) -> tuple[Float[np.ndarray, "E N A"], Float[np.ndarray, "E N C"], Int[np.ndarray, " N"]]:
    """Predictions for utterances heard in a condition; nothing is stored on the way.

    Args:
      listener: What hears it. One listener serves all conditions: nothing is compiled twice.
      condition: What to hear it in.
      rows: Rows of the utterance table, ascending.
      split: The split babble is drawn from.
      predict: Called once a block.
      is_quiet: Shows no progress.

    Returns:
      Attributes, distributions, and the rows of the utterance table, ascending.

    Raises:
      ArtefactError: See `Listener.blocks`.
      ConditionError: See `Listener.blocks`.
    """
    parts = []
    with Progress(len(rows), condition.id, "utterances", is_quiet=is_quiet) as progress:
        for block, frames in listener.blocks(condition, rows, split):
            attributes, distribution = predict(frames, frames.num_frames, block)
            parts.append((attributes, distribution, block))
            progress.update(len(block))
    attributes, distribution, found = zip(*parts, strict=True)
    return np.concatenate(attributes, axis=1), np.concatenate(distribution, axis=1), np.concatenate(found)

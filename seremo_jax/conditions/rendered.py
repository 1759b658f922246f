"""Recordings as they are heard in a condition: every waveform is rendered as soon as it is decoded."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from seremo_jax.conditions import render
from seremo_jax.conditions.sources import voices_of
from seremo_jax.core.condition_names import Condition
from seremo_jax.data import audio
from seremo_jax.data.audio_batches import Recordings


@dataclasses.dataclass(frozen=True)
class Rendered(Recordings):
    """The audio of a table of utterances in a condition, in place of the clean audio.

    Attributes:
      condition: The condition.
      seed: Seed of everything that is drawn.
      sources: Noises and rooms that the condition draws from.
      voices: Part of the table -> its clean utterances, which babble is drawn from.
      part_of: [N] part of each utterance.
    """

    condition: Condition
    seed: int
    sources: render.Sources
    voices: Mapping[str, render.Voices]
    part_of: Sequence[str]

    def rendering(self, row: int) -> render.Rendering:
        """One utterance in the condition, with what was drawn for it.

        Raises:
          ArtefactError: The file is not what ingest saw.
          ConditionError: See `render.render`.
        """
        waveform = super().decode(row)
        sources = dataclasses.replace(self.sources, voices=self.voices[self.part_of[row]])
        return render.render(waveform, audio.SAMPLE_RATE_HZ, self.condition, self.ids[row], self.seed, sources)

    def decode(self, row: int) -> Float[np.ndarray, " S"]:
        """Waveform of one utterance in the condition, float32 at 16 kHz; see `rendering`."""
        return self.rendering(row).waveform


def in_condition(
    recordings: Recordings,
    utterances: pa.Table,
    condition: Condition,
    seed: int,
    sources: render.Sources,
) -> Rendered:
    """The recordings of a table as they are heard in a condition.

    Args:
      recordings: The clean audio.
      utterances: Utterance table of the recordings. Its column `split` may have other words than those of splits, such
        as one for the test part of each fold.
      condition: The condition.
      seed: Seed of everything that is drawn.
      sources: Recorded noises and rooms.
    """
    # Babble is drawn from the clean utterances of the same split, so that no voice of another split is heard.
    part_of = utterances["split"].to_pylist()
    rows_of: dict[str, list[int]] = {}
    for row, part in enumerate(part_of):
        rows_of.setdefault(part, []).append(row)
    voices = {part: voices_of(utterances, rows, recordings.decode) for part, rows in rows_of.items()}
    return Rendered(
        ids=recordings.ids,
        paths=recordings.paths,
        num_samples=recordings.num_samples,
        sha256=recordings.sha256,
        condition=condition,
        seed=seed,
        sources=sources,
        voices=voices,
        part_of=part_of,
    )

"""Recordings as they are heard in a condition: every waveform is rendered as soon as it is decoded."""

import dataclasses

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
      sources: Noises, rooms and voices that the condition draws from.
    """

    condition: Condition
    seed: int
    sources: render.Sources

    def rendering(self, row: int) -> render.Rendering:
        """One utterance in the condition, with what was drawn for it.

        Raises:
          ArtefactError: The file is not what ingest saw.
          ConditionError: See `render.render`.
        """
        waveform = super().decode(row)
        return render.render(waveform, audio.SAMPLE_RATE_HZ, self.condition, self.ids[row], self.seed, self.sources)

    def decode(self, row: int) -> Float[np.ndarray, " S"]:
        """Waveform of one utterance in the condition, float32 at 16 kHz; see `rendering`."""
        return self.rendering(row).waveform


def in_condition(
    recordings: Recordings,
    utterances: pa.Table,
    split: str,
    condition: Condition,
    seed: int,
    sources: render.Sources,
) -> Rendered:
    """The recordings of a table as they are heard in a condition.

    Args:
      recordings: The clean audio.
      utterances: Utterance table of the recordings.
      split: Split whose utterances babble is drawn from.
      condition: The condition.
      seed: Seed of everything that is drawn.
      sources: Recorded noises and rooms.
    """
    # Babble is drawn from the clean utterances of the same split, so that no voice of another split is heard.
    voices = voices_of(utterances, split, recordings.decode)
    return Rendered(
        recordings.ids,
        recordings.paths,
        recordings.num_samples,
        recordings.sha256,
        condition,
        seed,
        dataclasses.replace(sources, voices=voices),
    )

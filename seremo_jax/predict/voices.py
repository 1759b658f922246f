"""How a speaker sounds: statistics that heads read whose features are relative to the speaker."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seremo_jax.features import normalisation
from seremo_jax.predict.export import Speakers


class Voice(NamedTuple):
    """Features of a speaker over all recordings that are known.

    Attributes:
      mean: [K, D] float32 mean over all frames, of the layers of the model.
      variance: [K, D] float32 likewise.
      seconds: Speech that they are of; 0 where the speaker is not known.
    """

    mean: Float[np.ndarray, "K D"]
    variance: Float[np.ndarray, "K D"]
    seconds: float


def of_state(state: normalisation.State, frame_rate_hz: float | int) -> Voice:
    """The voice that moments of frames are of; one of no frames is that of an unknown speaker."""
    variance = state.moment / max(state.count, 1)
    return Voice(state.mean.astype(np.float32), variance.astype(np.float32), state.count / frame_rate_hz)


def together(voices: Sequence[Voice], num_slots: int) -> Speakers:
    """Voices of the utterances of a batch; slots beyond them have an unknown one."""
    first = voices[0]
    seconds = np.zeros(num_slots, np.float32)
    seconds[: len(voices)] = [voice.seconds for voice in voices]
    tables = [np.zeros((len(first.mean), num_slots, first.mean.shape[1]), np.float32) for _ in range(2)]
    for slot, voice in enumerate(voices):
        tables[0][:, slot], tables[1][:, slot] = voice.mean, voice.variance
    return Speakers(*tables, seconds)

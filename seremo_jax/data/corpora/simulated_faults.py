"""Faults of known size that the simulated corpus can have, for methods which claim to mend such faults.

Real corpora have both, of a size that nobody knows. Source: OURS.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from seremo_jax.core import vocab
from seremo_jax.data.text_lines import CorpusError

SELDOM = {"angry": "disgust", "happy": "neutral", "fear": "sad"}
"""Emotions that women seldom intend in training under `class_by_gender` -> what they intend in its place."""


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is wrong with the corpus.

    Attributes:
      class_by_gender: Share of the women's utterances of `SELDOM` in the training split that intend another emotion.
        The development and the test split have every emotion as often of women as of men.
      speaker_shift: How far speakers sound apart in all that they say: the standard deviation of what a speaker adds to
        the sound of every emotion, in units of what speakers differ by without it, emotion by emotion.

    Raises:
      CorpusError: A size that cannot be.
    """

    class_by_gender: float = 0.0
    speaker_shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.class_by_gender <= 1:
            raise CorpusError(f"simulated corpus: class_by_gender = {self.class_by_gender:g} is a share, from 0 to 1")
        if not (self.speaker_shift >= 0 and math.isfinite(self.speaker_shift)):
            raise CorpusError(f"simulated corpus: speaker_shift = {self.speaker_shift:g} must be a number from 0 on")

    @property
    def in_name(self) -> str:
        """What they add to the name of the release, which also names the folder of the audio; empty without any."""
        sizes = {"bygender": self.class_by_gender, "shift": self.speaker_shift}
        return "".join(f"-{word}{size:g}" for word, size in sizes.items() if size)

    def replaced(self, gender: str, split: str, rng: np.random.Generator) -> Mapping[str, str]:
        """Of one utterance: emotion drawn -> emotion intended in its place."""
        is_other = gender == "female" and split == vocab.TRAIN and rng.random() < self.class_by_gender
        return SELDOM if is_other else {}

    def shift(self, spread: Float[np.ndarray, " P"], rng: np.random.Generator) -> Float[np.ndarray, " P"]:
        """What one speaker adds to the sound of every emotion, `spread` being what speakers differ by without it."""
        return self.speaker_shift * spread * rng.standard_normal(len(spread))


NONE = Faults()

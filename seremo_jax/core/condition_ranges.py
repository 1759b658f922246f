"""Conditions whose values are drawn, for the copies of training utterances: ids in which a value may be a range.

noise:steady:0..20db                            an SNR between both, each as likely
reverb:synthetic:0.2..0.9s+babble:5..20db       a room first, then voices
reverb:measured:0.2..1s                         a reverberation time that some measured room between both has
gain:-20..0db                                   louder or softer
telephone+codec:gsm                             nothing to draw

What stands for a single value stands for a range as well; see `core.condition_names`.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from seremo_jax.core import condition_names
from seremo_jax.core.condition_names import Condition, ConditionError, Effect

_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")
_DECIMALS = {"db": 2, "s": 3}
"""Digits that a drawn value keeps, so that its id says all of it."""


@dataclasses.dataclass(frozen=True)
class ConditionRange:
    """A chain of effects, each between two values.

    Attributes:
      id: As it is written.
      lowest: The chain with the lowest value of every effect.
      highest: With the highest.
    """

    id: str
    lowest: Condition
    highest: Condition

    def draw(self, generator: np.random.Generator, rt60_s: Sequence[float] = ()) -> Condition:
        """A condition between both. Times of measured rooms are those that there are, each as likely.

        Args:
          generator: Gives one number for each effect that has a range.
          rt60_s: Reverberation times of the measured rooms, in s.

        Raises:
          ConditionError: No measured room is between both.
        """
        pairs = zip(self.lowest.effects, self.highest.effects, strict=True)
        return Condition(tuple(self._drawn(low, high, generator, rt60_s) for low, high in pairs))

    def _drawn(self, low: Effect, high: Effect, generator: np.random.Generator, rt60_s: Sequence[float]) -> Effect:
        if low.value == high.value:
            return low
        if low.name == "measured":
            # Between the times of two rooms there may be none, so a time is drawn that some room has.
            fitting = sorted(rt60 for rt60 in rt60_s if low.value <= rt60 <= high.value)
            if not fitting:
                known = ", ".join(f"{rt60:.2f}" for rt60 in sorted(rt60_s)) or "none"
                raise ConditionError(f"condition {self.id!r}: no measured response has an RT60 in it; in s: {known}")
            value = fitting[int(generator.integers(len(fitting)))]
        else:
            value = generator.uniform(low.value, high.value)
        return low._replace(value=round(float(value), _DECIMALS[condition_names.EFFECTS[low.kind].unit]))


def parse(text: str) -> ConditionRange:
    """Reads an id in which values may be ranges.

    Raises:
      ConditionError: No such condition, a range runs downwards, or it is the clean condition.
    """
    lowest, highest = (condition_names.parse(_RANGE.sub(side, text)) for side in (r"\1", r"\2"))
    if not lowest.effects:
        raise ConditionError("copies in it are the clean utterances: how often these are heard says train.copy_share")
    for low, high in zip(lowest.effects, highest.effects, strict=True):
        if low.value > high.value:
            raise ConditionError(f"condition {text!r}: the range {low.value:g}..{high.value:g} runs downwards")
    return ConditionRange(text, lowest, highest)

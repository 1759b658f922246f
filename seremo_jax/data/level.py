"""The level of speech: how loud it is where somebody speaks, and speech brought to a level.

A backbone that hears absolute level, as log-mel bands do, takes the distance to a microphone for emotion. Whether all
audio is brought to one level is a setting, `backbone.level`, and this is the one place that does it.

Source: METHOD.md, section 9 (OURS).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

FRAME_S, ACTIVE_DB = 0.025, 40.0
"""A frame of speech is active within this many dB of the loudest frame."""


class Level:
    """The active level of audio that comes piece by piece, in pieces of any length.

    Frames lie side by side from the first sample on, the last one as long as is left.

    Args:
      rate_hz: Sampling rate.
    """

    def __init__(self, rate_hz: int):
        self._size, self._rest = round(FRAME_S * rate_hz), np.zeros(0)
        self._energies: list[np.ndarray] = []

    def add(self, piece: Float[np.ndarray, " S"]) -> None:
        """Adds a piece."""
        squares = np.concatenate([self._rest, np.square(piece, dtype=np.float64)])
        whole = len(squares) // self._size * self._size
        self._energies.append(squares[:whole].reshape(-1, self._size).sum(axis=1))
        self._rest = squares[whole:]

    @property
    def power(self) -> float:
        """Mean square over the active frames, those within 40 dB of the loudest; 0 for silence."""
        energies = np.concatenate([*self._energies, self._rest.sum(keepdims=True)])
        sizes = np.full(len(energies), self._size)
        sizes[-1] = len(self._rest)
        powers = energies / np.maximum(sizes, 1)
        # In digital silence every frame is as loud as the loudest one, but none is active.
        is_active = (powers > 0) & (powers >= powers.max() * 10 ** (-ACTIVE_DB / 10))
        return float(energies[is_active].sum() / max(sizes[is_active].sum(), 1))

    @property
    def dbfs(self) -> float:
        """Root mean square over the active frames in dB, 0 of a full-scale square wave; minus infinity for silence."""
        power = self.power
        return 10 * float(np.log10(power)) if power else -np.inf


def active_power(waveform: Float[np.ndarray, " S"], rate_hz: int) -> float:
    """`Level.power` of a whole waveform."""
    return _level_of(waveform, rate_hz).power


def active_dbfs(waveform: Float[np.ndarray, " S"], rate_hz: int) -> float:
    """`Level.dbfs` of a whole waveform."""
    return _level_of(waveform, rate_hz).dbfs


@dataclasses.dataclass(frozen=True)
class Hearing:
    """At which level a backbone hears speech: `backbone.level` and `backbone.level_dbfs`.

    Attributes:
      level: `none` leaves audio as it was recorded. `rms` brings its active speech to `target_dbfs`.
      target_dbfs: Root mean square in dB of full scale.
    """

    level: str = "none"
    target_dbfs: float = 0.0

    def gain(self, dbfs: float) -> float:
        """The factor on a waveform of this active level. Silence stays silence."""
        return 10 ** ((self.target_dbfs - dbfs) / 20) if self.level == "rms" and np.isfinite(dbfs) else 1.0

    def heard(self, waveform: Float[np.ndarray, " S"], rate_hz: int) -> tuple[Float[np.ndarray, " S"], float]:
        """A waveform as the backbone hears it, and its active level before, in dB of full scale.

        Nothing is clipped: peaks of a waveform that was brought to a level may lie beyond 1.
        """
        dbfs = active_dbfs(waveform, rate_hz)
        gain = self.gain(dbfs)
        return waveform if gain == 1 else waveform * np.float32(gain), dbfs


NO_LEVEL = Hearing()
"""Audio as it was recorded."""


def outside(dbfs: float, range_dbfs: Sequence[float]) -> str:
    """A sentence on a level outside a range of levels, in dB of full scale; empty where it lies inside."""
    low, high = range_dbfs
    if low <= dbfs <= high:
        return ""
    what = "quieter" if dbfs < low else "louder"
    return (
        f"its active speech at {dbfs:.1f} dBFS is {what} than all that the model was trained on, {low:.1f} to "
        f"{high:.1f} dBFS: bring it to a level in between, or train with backbone.level=rms"
    )


def _level_of(waveform: np.ndarray, rate_hz: int) -> Level:
    level = Level(rate_hz)
    level.add(waveform)
    return level

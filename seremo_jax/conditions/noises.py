"""Noises: noise of a falling spectrum, segments of recordings, babble, and mixing.

Source: METHOD.md, section 9 (OURS).
"""

from collections.abc import Sequence

import numpy as np
import scipy
from jaxtyping import Float

from seremo_jax.data.level import active_power

_LOWEST_HZ = 20.0
_MOST_DRAWS, _QUIET_DB = 32, 20.0


def colored(generator: np.random.Generator, num_samples: int, rate_hz: int, exponent: int) -> Float[np.ndarray, " S"]:
    """Noise whose power falls with frequency to the power `exponent`: 0 white, 1 pink, 2 brown.

    Nothing below 20 Hz where it falls: most of a brown noise would lie there, and nobody would hear it.
    """
    white = generator.standard_normal(num_samples)
    if exponent == 0:
        return white
    # The product of two spectra wraps round. Noise has no ends that could meet, so it needs no padding against that.
    size = scipy.fft.next_fast_len(num_samples, real=True)
    frequency = np.fft.rfftfreq(size, 1 / rate_hz)
    # Amplitude is the root of power, hence half the exponent.
    gain = np.where(frequency >= _LOWEST_HZ, np.maximum(frequency, _LOWEST_HZ) ** (-exponent / 2), 0.0)
    return scipy.fft.irfft(scipy.fft.rfft(white, size) * gain, size)[:num_samples]


def segment(
    generator: np.random.Generator, recording: Float[np.ndarray, " L"], num_samples: int
) -> Float[np.ndarray, " S"]:
    """A stretch of a recording from a drawn place on: cut where it is longer, looped where it is shorter.

    A stretch more than 20 dB below the whole recording (the silence between events) is drawn again, at most 32 times;
    then the loudest of them is taken.
    """
    whole = np.mean(np.asarray(recording, np.float64) ** 2)
    best, best_power = np.zeros(0), -1.0
    for _ in range(_MOST_DRAWS):
        if len(recording) > num_samples:
            start = int(generator.integers(0, len(recording) - num_samples + 1))
            stretch = recording[start : start + num_samples]
        else:
            # Begun at a drawn place, too: utterances would else all start with the same moment of a short recording.
            start = int(generator.integers(0, len(recording)))
            stretch = np.resize(np.roll(recording, -start), num_samples)
        stretch = stretch.astype(np.float64)
        power = float(np.mean(stretch**2))
        # The loudest so far is kept, for a recording may be nearly silent wherever it is cut.
        if power > best_power:
            best, best_power = stretch, power
        if power > 0 and power >= whole * 10 ** (-_QUIET_DB / 10):
            break
    return best


def babble(
    generator: np.random.Generator, voices: Sequence[Float[np.ndarray, " _"]], num_samples: int, rate_hz: int
) -> Float[np.ndarray, " S"]:
    """Several utterances at once, each at the same active level, looped or cut from a drawn place on."""
    total = np.zeros(num_samples)
    for voice in voices:
        # Each voice at one active level: a loud speaker would else be the only one that is heard.
        total += segment(generator, voice, num_samples) / np.sqrt(active_power(voice, rate_hz))
    return total


def gain_for_snr(speech: Float[np.ndarray, " S"], noise: Float[np.ndarray, " S"], snr_db: float, rate_hz: int) -> float:
    """The factor on the noise for an SNR: active level of the speech over mean level of the noise, in dB.

    The speech is measured where it is active, so that pauses do not make the noise quieter.
    """
    noise_power = float(np.mean(np.asarray(noise, np.float64) ** 2))
    return float(np.sqrt(active_power(speech, rate_hz) / (noise_power * 10 ** (snr_db / 10))))

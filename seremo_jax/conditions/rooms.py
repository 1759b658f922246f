"""Rooms as impulse responses, synthetic, measured or simulated: their reverberation time, and speech heard in them.

Source: METHOD.md, section 9 (OURS).
"""

import numpy as np
import scipy
from jaxtyping import Float

_ONSET_SHARE = 0.1
"""A response begins with its first sample above this share of the peak."""
_NOISE_SHARE = 0.1
"""The last share of a response, where only noise is left."""
_FIT_DB = (-5.0, -35.0)
_LEAST_OVER_NOISE_DB = 20.0
_MOST_TRIES, _WANTED_ERROR = 8, 0.03


def synthetic(
    generator: np.random.Generator, rt60_s: float, rate_hz: int, direct_to_tail_db: float = 0.0
) -> Float[np.ndarray, " L"]:
    """Response of an imagined room: the direct path first, then noise that decays by 60 dB in `rt60_s`.

    Args:
      generator: Draws the tail.
      rt60_s: Reverberation time, in s.
      rate_hz: Sampling rate.
      direct_to_tail_db: Energy of the direct path over that of the tail, in dB.
    """
    n = np.arange(1, int(rt60_s * rate_hz) + 1)
    # 60 dB are a factor of 1000 in amplitude.
    tail = generator.standard_normal(len(n)) * np.exp(-np.log(1000) * n / (rt60_s * rate_hz))
    # The direct path has energy 1, so this is the energy of the whole tail.
    tail *= np.sqrt(10 ** (-direct_to_tail_db / 10) / np.sum(tail**2))
    return np.concatenate([[1.0], tail])


def from_direct_path(response: Float[np.ndarray, " L"]) -> Float[np.ndarray, " M"]:
    """A measured response without what comes before its first sample above a tenth of the peak.

    Not before the peak: the first arrival need not be the loudest.
    """
    size = np.abs(response)
    return response[int(np.argmax(size > _ONSET_SHARE * size.max())) :].astype(np.float64)


def rt60_s(response: Float[np.ndarray, " L"], rate_hz: int) -> float:
    """Reverberation time of a response that begins with its direct path, in s.

    Schroeder's backward integration, less the noise of the last tenth, gives the level of what is still to come. A line
    through it from -5 to -35 dB, extended to 60 dB, is the time. It is NaN where the response does not decay that far,
    or has less than 20 dB above its noise.
    """
    power = np.asarray(response, np.float64) ** 2
    num = int(len(power) * (1 - _NOISE_SHARE))
    noise = power[num:].mean()
    # In a noisy measurement the end of the decay is that of the noise, and a line through it would be too flat.
    if noise * num > power[:num].sum() * 10 ** (-_LEAST_OVER_NOISE_DB / 10):
        return float("nan")
    # Energy that is still to come, from the back: smooth, where the power itself jumps from sample to sample.
    decay = np.cumsum((power - noise)[:num][::-1])[::-1]
    level = 10 * np.log10(np.maximum(decay / decay[0], 1e-12))
    first, last = (int(np.argmax(level < bound)) for bound in _FIT_DB)
    if not level.min() < _FIT_DB[1] or last - first < 2:
        return float("nan")
    # From -5 dB on, since the first drop is that of the direct path and not of the room.
    slope, _ = np.polyfit(np.arange(first, last) / rate_hz, level[first:last], 1)
    return float(-60 / slope)


def reverberate(waveform: Float[np.ndarray, " S"], response: Float[np.ndarray, " L"]) -> Float[np.ndarray, " S"]:
    """The waveform heard in the room, float64, cut to its old length. The caller restores its level."""
    return scipy.signal.oaconvolve(np.asarray(waveform, np.float64), response)[: len(waveform)]


def shoebox(generator: np.random.Generator, wanted_s: float, rate_hz: int) -> Float[np.ndarray, " L"]:
    """Response of a drawn shoebox room by pyroomacoustics, its walls set so that `rt60_s` measures what is wanted.

    Sabine's formula alone is off by a fifth and more; a few rounds of measuring and correcting bring it within 3 %.

    Raises:
      ImportError: pyroomacoustics is not installed.
      ValueError: No walls give the reverberation wanted.
    """
    try:
        import pyroomacoustics as pra
    except ImportError:
        raise ImportError(
            "reverb:shoebox needs pyroomacoustics: pip install 'seremo_jax[rooms]', or write reverb:synthetic"
        ) from None
    side = generator.uniform((3.0, 3.0, 2.4), (8.0, 6.0, 3.5))
    # Away from the walls, where a first reflection would arrive together with the direct path.
    mouth, ear = (side * generator.uniform(0.2, 0.8, 3) for _ in range(2))
    asked, best = wanted_s, (np.inf, np.zeros(1))
    for _ in range(_MOST_TRIES):
        try:
            absorption, order = pra.inverse_sabine(asked, side)
        except ValueError:
            break
        room = pra.ShoeBox(side, fs=rate_hz, materials=pra.Material(absorption), max_order=order)
        room.add_source(mouth)
        room.add_microphone(ear)
        room.compute_rir()
        response = from_direct_path(np.asarray(room.rir[0][0]))
        measured_s = rt60_s(response, rate_hz)
        error = abs(measured_s / wanted_s - 1)
        if error < best[0]:
            best = (error, response)
        if error < _WANTED_ERROR or not np.isfinite(measured_s):
            break
        # Measured time goes nearly in proportion to the time that the walls are made for.
        asked *= wanted_s / measured_s
    if best[0] > _WANTED_ERROR:
        raise ValueError(f"no shoebox room of {' x '.join(f'{s:.1f}' for s in side)} m has an RT60 of {wanted_s:g} s")
    return best[1]

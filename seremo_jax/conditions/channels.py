"""What a telephone line does to speech: its band, codecs, clipping. Nothing here is drawn at random."""

import io

import numpy as np
import scipy
import soundfile
import soxr
from jaxtyping import Float

TELEPHONE_RATE_HZ = 8_000
TELEPHONE_BAND_HZ = (300.0, 3400.0)
_ORDER = 6
_SUBTYPES = {"mulaw": "ULAW", "gsm": "GSM610"}


def telephone(waveform: Float[np.ndarray, " S"], rate_hz: int) -> Float[np.ndarray, " S"]:
    """300 to 3400 Hz, sampled at 8 kHz and back; no delay (Butterworth of order 6, forwards and backwards)."""
    band = scipy.signal.butter(_ORDER, TELEPHONE_BAND_HZ, "bandpass", fs=rate_hz, output="sos")
    # The filter extends the signal at both ends before it runs, by fewer samples than the signal has.
    num_padded = min(len(waveform) - 1, rate_hz // 10)
    narrow = scipy.signal.sosfiltfilt(band, np.asarray(waveform, np.float64), padlen=num_padded)
    return _from_telephone(_to_telephone(narrow, rate_hz), rate_hz, len(waveform))


def codec(waveform: Float[np.ndarray, " S"], rate_hz: int, name: str) -> Float[np.ndarray, " S"]:
    """Through 8 kHz and a codec of libsndfile, and back: `mulaw` (G.711, 64 kbit/s) or `gsm` (06.10, 13 kbit/s).

    Args:
      waveform: In [-1, 1].
      rate_hz: Sampling rate.
      name: mulaw or gsm.
    """
    # Resampling may overshoot, and integers of a codec would wrap round instead of clipping.
    narrow, coded = np.clip(_to_telephone(waveform, rate_hz), -1, 1), io.BytesIO()
    soundfile.write(coded, narrow, TELEPHONE_RATE_HZ, format="WAV", subtype=_SUBTYPES[name])
    # Written and read back at once: what counts is what the codec loses.
    coded.seek(0)
    decoded, _ = soundfile.read(coded, dtype="float64")
    return _from_telephone(decoded, rate_hz, len(waveform))


def clipped(waveform: Float[np.ndarray, " S"], depth_db: float) -> Float[np.ndarray, " S"]:
    """Everything beyond the peak lowered by `depth_db` is cut off there."""
    bound = np.abs(waveform).max() * 10 ** (-depth_db / 20)
    return np.clip(waveform, -bound, bound)


def _to_telephone(waveform: Float[np.ndarray, " S"], rate_hz: int) -> Float[np.ndarray, " N"]:
    return soxr.resample(np.asarray(waveform, np.float64), rate_hz, TELEPHONE_RATE_HZ)


def _from_telephone(narrow: Float[np.ndarray, " N"], rate_hz: int, num_samples: int) -> Float[np.ndarray, " S"]:
    """Back to the old rate and length: resampling and codecs work in blocks."""
    wide = soxr.resample(narrow, TELEPHONE_RATE_HZ, rate_hz)[:num_samples]
    return np.pad(wide, (0, num_samples - len(wide)))

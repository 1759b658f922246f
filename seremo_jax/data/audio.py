"""Audio files: what is wrong with them, and their samples as float32 mono at 16 kHz in [-1, 1]."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator

import numpy as np
import soxr
from jaxtyping import Float

from seremo_jax.data.audio_open import REASONS, AudioError, clear, opened

SAMPLE_RATE_HZ = 16_000
"""Rate at which every backbone hears an utterance."""

SILENCE_PEAK = 1e-4
"""Largest deviation from the mean (-80 dBFS) below which an utterance counts as silent; a constant offset is silent."""

_SCALED_PEAK = 10.0
"""Above this peak, floating-point samples were written on the scale of integers and not merely too loud."""
_BLOCK_S = 60.0


@dataclasses.dataclass(frozen=True)
class Decoded:
    """An utterance's audio.

    Attributes:
      waveform: [S] float32 in [-1, 1], mono, 16 kHz.
      source_rate_hz: Sampling rate of the file.
      num_channels: Channels of the file.
      sha256: Hash of the decoded content (see `content_hash`), empty where it was not asked for.
    """

    waveform: np.ndarray
    source_rate_hz: int
    num_channels: int
    sha256: str = ""


@dataclasses.dataclass(frozen=True)
class AudioFacts:
    """What ingest notes of a file.

    Attributes:
      duration_s: Length, 0 where the file could not be read.
      sha256: Hash of the decoded content (see `content_hash`), empty where the file could not be read.
      source_rate_hz: Sampling rate of the file, 0 where it could not be read.
      num_channels: Channels of the file, 0 where it could not be read.
      reason: Why it cannot be used, a key of `REASONS`, or None.
      detail: The reason in words, for messages.
    """

    duration_s: float
    sha256: str
    source_rate_hz: int
    num_channels: int
    reason: str | None = None
    detail: str = ""


def decode(path: str | os.PathLike, max_s: float | None = None, is_hashed: bool = False) -> Decoded:
    """Reads any format libsndfile knows; averages channels, resamples to 16 kHz, clips overshoot to [-1, 1].

    Args:
      path: Audio file.
      max_s: Longest audio to load, in seconds; nothing is ever cut to fit.
      is_hashed: Hashes the content, too.

    Raises:
      AudioError: Reason missing, lfs_pointer, empty, unreadable, nan, unscaled, or too_long (longer than `max_s`).
    """
    samples, rate_hz = _read(path, max_s)
    waveform = samples.mean(axis=1, dtype=np.float32)
    if rate_hz != SAMPLE_RATE_HZ:
        with clear(path):
            waveform = soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ)
    sha256 = content_hash(samples, rate_hz) if is_hashed else ""
    return Decoded(np.clip(waveform, -1.0, 1.0), rate_hz, samples.shape[1], sha256)


def check(path: str | os.PathLike, min_s: float, max_s: float) -> AudioFacts:
    """Reads a file once and notes what it is, without raising.

    Args:
      path: Audio file.
      min_s: Shorter audio gets reason too_short, in seconds.
      max_s: Longer audio gets reason too_long and is not loaded, in seconds.
    """
    try:
        samples, rate_hz = _read(path, max_s)
    except AudioError as error:
        return AudioFacts(0.0, "", 0, 0, error.reason, error.detail)
    duration_s = len(samples) / rate_hz
    reason, detail = None, ""
    mono = samples.mean(axis=1)
    if duration_s < min_s:
        reason, detail = "too_short", f"{duration_s:.3f} s, data.min_seconds = {min_s:g}"
    elif np.abs(mono - mono.mean()).max() < SILENCE_PEAK:
        reason, detail = "silent", REASONS["silent"]
    return AudioFacts(duration_s, content_hash(samples, rate_hz), rate_hz, samples.shape[1], reason, detail)


def content_hash(samples: Float[np.ndarray, "num_samples num_channels"], rate_hz: int) -> str:
    """SHA-256 of the decoded samples before mixing and resampling, of their rate and number of channels.

    The same recording as WAV and as FLAC has one hash, whatever its tags; libraries that resample have no part in it.

    Args:
      samples: [num_samples, num_channels] float32 as decoded.
      rate_hz: Sampling rate of the file.
    """
    digest = hashlib.sha256(f"{rate_hz} Hz, {samples.shape[1]} channels;".encode())
    digest.update(np.ascontiguousarray(samples, dtype="<f4").data)
    return digest.hexdigest()


def length_s(path: str | os.PathLike) -> float:
    """Length of a file in seconds; only a file that does not say it is decoded.

    Raises:
      AudioError: Reason missing, lfs_pointer, empty or unreadable.
    """
    with opened(path) as file:
        num_samples = file.num_samples
        if num_samples is None:
            num_samples = sum(len(piece) for piece in file.pieces(_BLOCK_S))
        return num_samples / file.rate_hz


def blocks(path: str | os.PathLike, block_s: float = 10.0) -> Iterator[Float[np.ndarray, " S"]]:
    """What `decode` gives, piece by piece: memory of one piece, whatever the length of the file.

    Args:
      path: Audio file.
      block_s: Length of what is read at once, in seconds.

    Raises:
      AudioError: Reason missing, lfs_pointer, empty, unreadable, nan or unscaled, once the piece concerned is read.
    """
    with opened(path) as file:
        rate_hz = file.rate_hz
        resampler = None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1)
        pieces = file.pieces(block_s)
        following = next(pieces)
        while following is not None:
            samples, following = following, next(pieces, None)
            _require_samples(path, samples)
            waveform = samples.mean(axis=1, dtype=np.float32)
            if resampler is not None:
                waveform = resampler.resample_chunk(waveform, last=following is None)
            yield np.clip(waveform, -1.0, 1.0)


def from_samples(samples: np.ndarray, rate_hz: float | int, name: str = "the waveform") -> Float[np.ndarray, " S"]:
    """What `decode` gives for samples that are in memory already.

    Args:
      samples: [S], or [S, channels] or [channels, S], of which the longer axis is time. Floating-point samples are in
        [-1, 1], those of int16 and int32 use the range of their type.
      rate_hz: Their sampling rate.
      name: What messages call them.

    Raises:
      AudioError: Reason empty, nan or unscaled.
      ValueError: They are no samples of audio.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or rate_hz <= 0:
        raise ValueError(f"audio is [S] or [S, channels] at a rate above 0, not {samples.shape} at {rate_hz} Hz")
    if samples.dtype in (np.int16, np.int32):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples are floating-point numbers, int16 or int32, not {samples.dtype}")
    if not samples.size:
        raise AudioError(name, "empty", "0 samples")
    if samples.ndim == 2:
        samples = samples.mean(axis=int(samples.shape[0] >= samples.shape[1]))
    samples = samples.astype(np.float32)
    _require_samples(name, samples[:, None])
    if rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
    return np.clip(samples, -1.0, 1.0)


def require_sound(
    path: str | os.PathLike, lowest: float, highest: float, mean: float, seconds: float, min_s: float
) -> None:
    """Refuses audio in which nothing can be heard, by statistics that add up over `blocks`.

    Args:
      path: The file, or what to call the audio.
      lowest: Least sample.
      highest: Largest sample.
      mean: Mean of the samples.
      seconds: Length.
      min_s: Least length.

    Raises:
      AudioError: Reason too_short or silent.
    """
    if seconds < min_s:
        raise AudioError(path, "too_short", f"{seconds:.3f} s, at least {min_s:g} s needed")
    if max(highest - mean, mean - lowest) < SILENCE_PEAK:
        raise AudioError(path, "silent")


def _read(path: str | os.PathLike, max_s: float | None) -> tuple[Float[np.ndarray, "num_samples num_channels"], int]:
    """Samples as decoded and their rate, after every check that needs no policy but the longest length."""
    with opened(path) as file:
        rate_hz, num_samples, pieces = file.rate_hz, file.num_samples or 0, []
        most = None if max_s is None else max_s * rate_hz
        if most is not None and num_samples > most:
            raise AudioError(path, "too_long", f"{num_samples / rate_hz:.1f} s, at most {max_s:g} s allowed")
        num_samples = 0
        for piece in file.pieces(_BLOCK_S):
            pieces.append(piece)
            num_samples += len(piece)
            if most is not None and num_samples > most:
                raise AudioError(path, "too_long", f"at most {max_s:g} s allowed")
        samples = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
    _require_samples(path, samples)
    return samples, rate_hz


def _require_samples(path: str | os.PathLike, samples: Float[np.ndarray, "num_samples num_channels"]) -> None:
    peak = np.abs(samples).max()
    if not np.isfinite(peak):
        raise AudioError(path, "nan")
    if peak > _SCALED_PEAK:
        raise AudioError(path, "unscaled", f"peak {peak:.4g}")

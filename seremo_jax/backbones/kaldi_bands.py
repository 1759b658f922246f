"""Log-mel bands as Kaldi computes them, which w2v-BERT 2.0 hears; normalised over each utterance.

Source: KNOWN: compute-fbank-feats of Kaldi, with its defaults at 16 kHz but for 80 bands and no dither.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seremo_jax.backbones.logmel import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES

_SIZE = 512
"""Points of the Fourier transform."""
_LOWEST_HZ = 20.0
_FULL_SCALE = 32_768.0
"""Kaldi's samples are whole numbers of 16 bits."""
_PRE_EMPHASIS = 0.97
_FLOOR = float(np.finfo(np.float32).eps)
"""Least power of a band."""
_VARIANCE_FLOOR = 1e-7


def num_windows(num_samples: Any) -> Any:
    """Windows of 25 ms every 10 ms that lie inside the audio, 0 or less for none; integers or integer arrays."""
    return (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1


def log_bands(waveforms: Float[Array, "B S"], num_bands: int) -> Float[Array, "B F M"]:
    """Natural log of the power in each band, float32; `F = num_windows(S)`.

    Of each window of 25 ms the mean is taken away, each sample loses 0.97 of the one before, and a Povey window (Hann
    to the power of 0.85) is applied. 512-point DFT; mel bands from 20 Hz to 8 kHz; floor 1.2e-7.

    Args:
      waveforms: 16 kHz, in [-1, 1], float32, at least 400 samples.
      num_bands: M.
    """
    starts = np.arange(num_windows(waveforms.shape[1])) * HOP_SAMPLES
    frames = waveforms[:, starts[:, None] + np.arange(WINDOW_SAMPLES)[None, :]] * _FULL_SCALE
    frames = frames - frames.mean(axis=-1, keepdims=True)
    # The first sample of a window has none before it, and loses 0.97 of itself.
    before = jnp.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / (WINDOW_SAMPLES - 1))
    povey = (hann**0.85).astype(np.float32)
    spectrum = jnp.fft.rfft((frames - _PRE_EMPHASIS * before) * povey[None, None, :], _SIZE)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    bands = jnp.einsum("btf,df->btd", power, _filters(num_bands), precision=jax.lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(bands, _FLOOR))


@functools.cache
def _filters(num_bands: int) -> Float[np.ndarray, "M bins"]:
    """Filters [M, 257] that are triangles on the mel scale 1127 ln(1 + f / 700), with peaks of 1, float32."""

    def to_mel(hz: Any) -> Any:
        return 1127.0 * np.log1p(hz / 700.0)

    edges = np.linspace(to_mel(_LOWEST_HZ), to_mel(SAMPLE_RATE_HZ / 2), num_bands + 2)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = to_mel(np.fft.rfftfreq(_SIZE, 1 / SAMPLE_RATE_HZ))[None, :]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.maximum(triangles, 0.0).astype(np.float32)


def normalised(bands: Float[Array, "B F M"], num_frames: Int[Array, " B"]) -> Float[Array, "B F M"]:
    """Each band brought to zero mean and unit variance over the valid frames of its row, 0 beyond.

    The variance is that of a sample (divided by F - 1), and 1e-7 is added to it.

    Args:
      bands: Finite everywhere.
      num_frames: At least 2 for rows that count.
    """
    is_valid = (jnp.arange(bands.shape[1])[None, :] < num_frames[:, None])[..., None]
    count = jnp.maximum(num_frames, 2).astype(jnp.float32)[:, None, None]
    # From the first frame on: a band that never moves, as in digital silence, then has no rounding to be blown up.
    moved = jnp.where(is_valid, bands - bands[:, :1], 0.0)
    centred = jnp.where(is_valid, moved - moved.sum(axis=1, keepdims=True) / count, 0.0)
    variance = jnp.square(centred).sum(axis=1, keepdims=True) / (count - 1.0)
    return centred * jax.lax.rsqrt(variance + _VARIANCE_FLOOR)

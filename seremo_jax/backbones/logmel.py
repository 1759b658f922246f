"""The backbone without weights: 80 log-mel bands, and their modulation depth at six growing time scales.

Layer 0 is the log-mel spectrogram. Layers 1 to 6 say how strongly the level of each band moves around a moment, at one
time scale each. The trajectory of the log energy of a band is filtered with the first and the second derivative of a
Gaussian, as in multi-resolution RASTA, at standard deviations of 15 ms (syllable onsets, about 10-15 Hz) to 480 ms
(the melody of loudness of a phrase, about 0.3-0.5 Hz). The two filters are an approximate quadrature pair, so the root
of their summed squares is the local amplitude of the modulation. Saliency takes means over frames, which this amplitude
survives, while the output of a band-pass filter has a mean of zero. Both filters have a peak gain of 1, so that the
numbers are nepers of log energy.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seremo_jax.backbones.base import pick_layers
from seremo_jax.core.artefacts import fingerprint_of

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
NUM_BANDS = 80
POWER_FLOOR = 1e-10
"""Just under what the rounding of 16-bit audio leaves in a band, so digital silence is the only thing it hides."""
SCALES_S = (0.015, 0.030, 0.060, 0.120, 0.240, 0.480)
"""Standard deviation of the Gaussian behind layers 1, 2, ..."""
TRUNCATION_SD = 4
"""Filters end this many standard deviations from their centre."""
_BLOCK_FRAMES = 64


def load(path_or_id: str, layers: Iterable[int] | None, dtype: str) -> "LogMel":
    """The `logmel` backbone; it computes in float32 whatever `dtype` says, as its whole cost is small."""
    del dtype
    return LogMel(name=path_or_id, layers=pick_layers(layers, 1 + len(SCALES_S)))


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["layers", "name"])
@dataclasses.dataclass(frozen=True)
class LogMel:
    """Log-mel bands (layer 0) and their modulation depth (layers 1 to 6), 50 frames/s. A `Backbone`."""

    layers: tuple[int, ...] = tuple(range(1 + len(SCALES_S)))
    name: str = "logmel"
    num_layers: int = dataclasses.field(default=1 + len(SCALES_S), init=False)
    num_features: int = dataclasses.field(default=NUM_BANDS, init=False)
    sample_rate_hz: int = dataclasses.field(default=SAMPLE_RATE_HZ, init=False)
    frame_rate_hz: float = dataclasses.field(default=SAMPLE_RATE_HZ / (2 * HOP_SAMPLES), init=False)
    dtype: str = dataclasses.field(default="float32", init=False)
    final_norm: bool = dataclasses.field(default=False, init=False)
    least_samples: int = dataclasses.field(default=0, init=False)

    @property
    def revision(self) -> str:
        """Hash of every setting that changes a number."""
        settings = ["slaney", "hann", "gaussian-derivatives", 1, SAMPLE_RATE_HZ, WINDOW_SAMPLES, HOP_SAMPLES, NUM_BANDS]
        return fingerprint_of([*settings, POWER_FLOOR, SCALES_S, TRUNCATION_SD])

    def num_frames(self, num_samples: Any) -> Any:
        """floor((n - 400) / 320) + 1, as for wav2vec 2.0; 1 for 1 <= n < 400 (padded with zeros), 0 for 0."""
        return _num_frames(num_samples, 2 * HOP_SAMPLES)

    def __call__(
        self, waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]
    ) -> tuple[Float[Array, "K B T D"], Int[Array, " B"]]:
        """Hidden states of a batch of waveforms in [-1, 1]; see `Backbone`."""
        num_frames = self.num_frames(num_samples).astype(jnp.int32)
        bands = log_mel(waveforms, num_samples)
        is_valid = jnp.arange(self.num_frames(waveforms.shape[1]))[None, :] < num_frames[:, None]
        # The level just before the first frame and just after the last valid one is taken to stay as it is: filters
        # never see padding, so an utterance gets what it gets alone.
        num_fine = _num_frames(num_samples, HOP_SAMPLES)
        last = jnp.take_along_axis(bands, jnp.maximum(num_fine - 1, 0)[:, None, None], axis=1)
        held = jnp.where((jnp.arange(bands.shape[1])[None, :] < num_fine[:, None])[..., None], bands, last)
        # 100 frames/s inside, so that the shortest filter is sampled well; 50 outside, as all other backbones have.
        states = [held[:, ::2] if layer == 0 else modulation_depth(held, SCALES_S[layer - 1]) for layer in self.layers]
        return jnp.where(is_valid[None, :, :, None], jnp.stack(states), 0.0), num_frames


def _num_frames(num_samples: Any, hop_samples: int) -> Any:
    return (num_samples >= WINDOW_SAMPLES) * ((num_samples - WINDOW_SAMPLES) // hop_samples) + (num_samples > 0)


def log_mel(waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]) -> Float[Array, "B F D"]:
    """Natural log of 80 mel bands' power, 100 frames/s, frame f over samples 160 f .. 160 f + 399.

    Periodic Hann window of 25 ms, hop 10 ms, no centring, 400-point DFT, Slaney mel bands from 0 to 8 kHz, floor 1e-10.
    `F = floor((S - 400) / 160) + 1`, at least 1, is their number. Beyond `num_samples` a frame sees zeros.

    Args:
      waveforms: Audio in [-1, 1], 16 kHz, float32; anything beyond each length.
      num_samples: Valid samples of each row.
    """
    is_valid = jnp.arange(waveforms.shape[1])[None, :] < num_samples[:, None]
    waveforms = jnp.where(is_valid, waveforms.astype(jnp.float32), 0.0)
    waveforms = jnp.pad(waveforms, ((0, 0), (0, max(0, WINDOW_SAMPLES - waveforms.shape[1]))))
    # Samples beyond an utterance are 0 before frames are cut, so that padding of a batch changes no frame.
    starts = np.arange(_num_frames(waveforms.shape[1], HOP_SAMPLES)) * HOP_SAMPLES
    frames = waveforms[:, starts[:, None] + np.arange(WINDOW_SAMPLES)[None, :]]
    return jnp.log(jnp.maximum(mel_power(frames, NUM_BANDS), POWER_FLOOR))


def mel_power(frames: Float[Array, "B F W"], num_bands: int) -> Float[Array, "B F D"]:
    """Power of each mel band in frames of 400 samples at 16 kHz, under a periodic Hann window."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)
    spectrum = jnp.fft.rfft(frames * hann.astype(np.float32)[None, None, :])
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.einsum("btf,df->btd", power, mel_filters(num_bands), precision=jax.lax.Precision.HIGHEST)


@functools.cache
def mel_filters(num_bands: int) -> Float[np.ndarray, "D bins"]:
    """Triangular filters [D, 201] over the bins of a 400-point DFT at 16 kHz, each of unit area in Hz, float32.

    Source: KNOWN: M. Slaney, Auditory Toolbox, 1998 (linear below 1 kHz, logarithmic above), as librosa's default and
    Whisper's `mel_80` and `mel_128`.
    """
    step_hz, corner_hz, log_step = 200 / 3, 1_000.0, np.log(6.4) / 27
    corner = corner_hz / step_hz
    top = corner + np.log(SAMPLE_RATE_HZ / 2 / corner_hz) / log_step
    mels = np.linspace(0.0, top, num_bands + 2)
    edges_hz = np.where(mels < corner, mels * step_hz, corner_hz * np.exp(log_step * (mels - corner)))
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    bins_hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ)[None, :]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return (np.maximum(triangles, 0.0) * 2 / (high - low)).astype(np.float32)


def modulation_filters(scale_s: float) -> Float[np.ndarray, "2 taps"]:
    """First and second derivative of a Gaussian at 100 frames/s, zero response to a constant, unit peak gain, float64.

    Args:
      scale_s: Standard deviation of the Gaussian, in seconds. The gains peak at 1 / (2 pi scale) Hz and, for the
        second derivative, at sqrt(2) times that.

    Source: KNOWN: H. Hermansky and P. Fousek, Multi-resolution RASTA filtering for TANDEM-based ASR, Interspeech 2005,
    after H. Hermansky and N. Morgan, RASTA processing of speech, IEEE Trans. SAP 2(4), 1994. OURS: scales, gain.
    """
    sd_frames = scale_s * SAMPLE_RATE_HZ / HOP_SAMPLES
    reach = int(np.ceil(TRUNCATION_SD * sd_frames))
    z = np.arange(-reach, reach + 1) / sd_frames
    filters = np.stack([-z, z**2 - 1]) * np.exp(-(z**2) / 2)
    # Cut off at the ends, the second derivative no longer sums to 0, and a loud band would pass as modulated.
    filters -= filters.mean(axis=1, keepdims=True)
    return filters / np.abs(np.fft.rfft(filters, 8_192)).max(axis=1, keepdims=True)


def modulation_depth(bands: Float[Array, "B F D"], scale_s: float) -> Float[Array, "B T D"]:
    """sqrt(g1^2 + g2^2) of the two filtered trajectories, every second frame, edges repeated; nepers, >= 0.

    OURS. Compressed further (square root, log(1 + x), log(eps + x)) it tells no more of CREMA-D's votes: means over
    frames correlate as much or less with them, and a linear probe does no better.

    Args:
      bands: Log-mel bands, 100 frames/s, float32, held at their last valid value beyond an utterance's end.
      scale_s: Standard deviation of the Gaussian, in seconds.
    """
    filters = modulation_filters(scale_s)
    num_taps, num_frames = filters.shape[1], -(-bands.shape[1] // 2)
    num_blocks = -(-num_frames // _BLOCK_FRAMES)
    # Blocks of output frames as one matrix product (a banded Toeplitz matrix): on CPU
    # 5-70 times as fast as XLA's convolution.
    num_seen = 2 * (_BLOCK_FRAMES - 1) + num_taps
    toeplitz = np.zeros((2, _BLOCK_FRAMES, num_seen), np.float32)
    for frame in range(_BLOCK_FRAMES):
        toeplitz[:, frame, 2 * frame : 2 * frame + num_taps] = filters
    steps = np.arange(num_blocks)[:, None] * 2 * _BLOCK_FRAMES + np.arange(num_seen)[None, :] - num_taps // 2
    blocks = bands[:, np.clip(steps, 0, bands.shape[1] - 1)]
    filtered = jnp.einsum("pow,bnwd->pbnod", toeplitz, blocks, precision=jax.lax.Precision.HIGHEST)
    depth = jnp.sqrt(jnp.square(filtered[0]) + jnp.square(filtered[1]))
    return depth.reshape(bands.shape[0], -1, bands.shape[2])[:, :num_frames]

"""Encoders of Whisper and Qwen2-Audio: log-mel bands, two convolutions, pre-norm Transformer blocks; 50 frames/s.

Source: KNOWN: A. Radford et al., Robust speech recognition via large-scale weak supervision, ICML 2023; Y. Chu et al.,
Qwen2-Audio, arXiv:2407.10759.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from seremo_jax.backbones.base import pick_layers
from seremo_jax.backbones.blocks import Block, BlockSpec, hidden_states, is_above
from seremo_jax.backbones.filling import fill, published_shapes
from seremo_jax.backbones.layers import ACTIVATIONS, Conv, LayerNorm, Stack, Table
from seremo_jax.backbones.logmel import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES, mel_power
from seremo_jax.backbones.transformer import Transformer, register, require_no_window
from seremo_jax.backbones.weights import Checkpoint, CheckpointError, read_tensors
from seremo_jax.core.artefacts import fingerprint_of

FRAME_SAMPLES = 2 * HOP_SAMPLES
POWER_FLOOR, RANGE_LOG10 = 1e-10, 8.0
"""Least power of a band, and how far below an utterance's loudest a band is heard, in powers of ten."""

SILENCE_FRAMES = 100
"""Silence that `cut` windows hear after the audio, 2 s. OURS: from a middle layer on, Whisper parks large activations
on some frame of silence; where it finds none it takes frames of speech, and their states are lost. Correlation with the
published states of Whisper base at layer 4, 16 utterances of CREMA-D: median 0.95 with 2 s, about 0.3 with none."""
QWEN2_AUDIO, QWEN2_AUDIO_ENCODER = "qwen2_audio", "qwen2_audio_encoder"
_TOWERS = {"whisper": "encoder.", QWEN2_AUDIO: "audio_tower.", QWEN2_AUDIO_ENCODER: ""}
"""`model_type` -> what stands before the names of the encoder's tensors."""
MODEL_TYPES = tuple(_TOWERS)
REACH_FRAMES = 2
"""Frames beyond a cut window that the two convolutions of the last frame reach."""

_PARTS = ("conv1.", "conv2.", "embed_positions.", "layers.", "layer_norm.")
"""How names begin in a file of the encoder alone."""

_gelu = ACTIVATIONS["gelu"]
"""Behind both convolutions. `activation_function` of the config is that of the blocks, as in the published code."""

_RENAMED = {
    r"\.attention\.qkv\.": ".self_attn.",
    r"\.attention\.": ".self_attn.",
    r"^(layers\.\d+)\.layer_norm": r"\1.self_attn_layer_norm",
    r"\.feed_forward\.intermediate_dense": ".fc1",
    r"\.feed_forward\.output_dense": ".fc2",
}


class Encoder(nnx.Module):
    """Parameters of the encoder, up to the block behind the highest layer wanted."""

    def __init__(self, spec: BlockSpec, depth: int, num_bands: int, num_positions: int, has_final_norm: bool):
        self.conv1 = Conv(num_bands, spec.width, 3, padding=1)
        self.conv2 = Conv(spec.width, spec.width, 3, stride=2, padding=1)
        self.embed_positions = Table(num_positions, spec.width)
        self.layers = Stack(Block(spec), depth) if depth else None
        self.layer_norm = LayerNorm(spec.width, spec.norm_eps) if has_final_norm else None


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Whisper(Transformer):
    """Whisper's encoder; see `Transformer`.

    Attributes:
      num_bands: Mel bands.
      window_samples: Samples it hears at once.
      is_padded: Whether audio is padded with silence to the whole window, all of which is attended to, as Whisper was
        published; else frames beyond each utterance and its silence are not attended to, nor computed.
      silence_frames: Frames of silence that are attended to where the window is not padded.
    """

    num_bands: int
    window_samples: int
    is_padded: bool
    silence_frames: int = SILENCE_FRAMES

    def num_frames(self, num_samples: Any) -> Any:
        """ceil(n / 320)."""
        return (num_samples + FRAME_SAMPLES - 1) // FRAME_SAMPLES

    def __call__(
        self, waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]
    ) -> tuple[Float[Array, "K B T D"], Int[Array, " B"]]:
        """Hidden states of a batch of waveforms in [-1, 1] of up to `window_samples`; see `Backbone`.

        Raises:
          ValueError: The waveforms are longer than the window.
        """
        length = waveforms.shape[1]
        if length > self.window_samples:
            raise ValueError(f"{self.name} hears {self.window_samples} samples at once, not {length}")
        num_frames, kept = self.num_frames(num_samples).astype(jnp.int32), self.num_frames(length)
        num_positions = self.window_samples // FRAME_SAMPLES
        t = num_positions if self.is_padded else min(kept + self.silence_frames, num_positions)
        # A window that is cut short goes on as silence, not as an edge, for what the last frame's convolutions reach.
        heard = t if self.is_padded else t + REACH_FRAMES
        is_sample = jnp.arange(length)[None, :] < num_samples[:, None]
        waveforms = jnp.pad(jnp.where(is_sample, waveforms, 0.0), ((0, 0), (0, heard * FRAME_SAMPLES - length)))
        model, frame = self.module(), jnp.arange(t)[None, :]
        x = _gelu(model.conv1(log_mel(waveforms, self.num_bands)))
        x = _gelu(model.conv2(x))[:, :t]
        # A window that is cut keeps the positions from the beginning of the table on: positions are absolute here.
        x = x + model.embed_positions.table[...][None, :t]
        attended = None if self.is_padded else frame < num_frames[:, None] + self.silence_frames
        is_valid = frame < num_frames[:, None]
        hidden = hidden_states(model.layers, x, self.layers, is_valid, attended, num_kept_frames=kept)
        return self._normed(hidden, model.layer_norm, is_valid[:, :kept]), num_frames


def log_mel(waveforms: Float[Array, "B S"], num_bands: int) -> Float[Array, "B F M"]:
    """Log-mel bands as Whisper hears them: F = S / 160 frames, each row scaled by its loudest band.

    Periodic Hann window of 400 samples, centred with reflection, power, Slaney mel bands, log10 with a floor of 1e-10,
    cut at 8 below the row's maximum, (x + 4) / 4.

    Args:
      waveforms: 16 kHz, in [-1, 1], a multiple of 160 samples, 0 beyond each utterance.
      num_bands: M, 80 or 128.
    """
    reach = WINDOW_SAMPLES // 2
    padded = jnp.pad(waveforms.astype(jnp.float32), ((0, 0), (reach, reach)), mode="reflect")
    blocks = padded.reshape(len(padded), -1, HOP_SAMPLES // 2)
    # Frame f starts at sample 160 f: five blocks of 80 samples from block 2 f on.
    num_frames = waveforms.shape[1] // HOP_SAMPLES
    frames = jnp.concatenate(
        [blocks[:, i : i + 2 * num_frames : 2] for i in range(WINDOW_SAMPLES * 2 // HOP_SAMPLES)], 2
    )
    log = jnp.log10(jnp.maximum(mel_power(frames, num_bands), POWER_FLOOR))
    # Silence is never the loudest, so padding needs no mask here.
    log = jnp.maximum(log, log.max(axis=(1, 2), keepdims=True) - RANGE_LOG10)
    return (log + 4.0) / 4.0


def load(checkpoint: Checkpoint, layers: Iterable[int] | None, dtype: str, *, final_norm: bool, window: str) -> Whisper:
    """The encoder of a checkpoint of Whisper or Qwen2-Audio, whole or encoder only.

    Args:
      checkpoint: Its files.
      layers: Layers to return; nothing above the highest is read.
      dtype: Compute dtype.
      final_norm: Takes the last layer after the final layer norm.
      window: `padded` hears what is published: Whisper 30 s padded with silence, Qwen2-Audio the audio, to which it
        never adds silence that is attended to. `cut` ends Whisper's windows 2 s after the audio.

    Raises:
      CheckpointError: Tensors are missing or unexpected, or the config or preprocessor is not Whisper's.
      ValueError: There is no such layer, or the setting is not one of this model.
    """
    config = checkpoint.config
    is_whisper = config.model_type == "whisper"
    if not is_whisper:
        _require_settings_of_qwen2(checkpoint.name, window, final_norm)
    num_layers, num_positions = config.encoder_layers + 1, config.max_source_positions
    _require_heard(checkpoint)
    picked = pick_layers(layers, num_layers)
    spec = BlockSpec(
        width=config.d_model,
        num_heads=config.encoder_attention_heads,
        hidden_width=config.encoder_ffn_dim,
        activation=config.activation_function,
        has_key_bias=False,
    )
    has_final_norm = final_norm and num_layers - 1 in picked
    model = Encoder(spec, max(picked), config.num_mel_bins, num_positions, has_final_norm)

    tower = _TOWERS[config.model_type]

    def canonical(name: str) -> str | None:
        if not name.startswith(tower or _PARTS):
            return None
        name = "encoder." + name.removeprefix(tower)
        is_unused = is_above(name, max(picked)) or (name.startswith("encoder.layer_norm.") and not has_final_norm)
        return None if is_unused else name

    tensors = read_tensors(checkpoint, published_shapes(model, published_name), canonical)
    fill(model, tensors, published_name, dtype)
    definition, params = nnx.split(model)
    is_padded = window == "padded" and is_whisper
    window_samples = num_positions * FRAME_SAMPLES
    silence_frames = SILENCE_FRAMES if is_whisper else 0
    kind = "whisper" if is_whisper else QWEN2_AUDIO
    return Whisper(
        params=params,
        definition=definition,
        name=checkpoint.name,
        revision=fingerprint_of([checkpoint.revision, kind, window, silence_frames, POWER_FLOOR, RANGE_LOG10]),
        layers=picked,
        num_layers=num_layers,
        num_features=config.d_model,
        sample_rate_hz=SAMPLE_RATE_HZ,
        frame_rate_hz=SAMPLE_RATE_HZ / FRAME_SAMPLES,
        dtype=dtype,
        final_norm=final_norm,
        least_samples=window_samples if is_padded else 0,
        num_bands=config.num_mel_bins,
        window_samples=window_samples,
        is_padded=is_padded,
        silence_frames=silence_frames,
    )


def published_name(path: str) -> str:
    """Path of a tensor in `Encoder` -> its name in Whisper, by which all of them are known here."""
    for pattern, name in _RENAMED.items():
        path = re.sub(pattern, name, path)
    return f"encoder.{path}"


def _require_settings_of_qwen2(name: str, window: str, final_norm: bool) -> None:
    """Refuses settings that Whisper has, and Qwen2-Audio has not."""
    require_no_window(window, name)
    if final_norm:
        raise ValueError(
            f"final_norm: the final norm of {name} follows a mean of two frames, 25 a second, and its layers have 50 "
            "frames a second"
        )


def _require_heard(checkpoint: Checkpoint) -> None:
    """Refuses a preprocessor that gives other bands, or another window, than the model takes."""
    config, preprocessor = checkpoint.config, checkpoint.preprocessor
    if preprocessor is None:
        return
    path = checkpoint.settings[-1]
    if preprocessor.feature_size != config.num_mel_bins:
        raise CheckpointError(
            f"{path}: feature_size = {preprocessor.feature_size}, but {checkpoint.settings[0]} says num_mel_bins = "
            f"{config.num_mel_bins}"
        )
    num_frames = preprocessor.chunk_length * SAMPLE_RATE_HZ // FRAME_SAMPLES
    if num_frames != config.max_source_positions:
        raise CheckpointError(
            f"{path}: chunk_length = {preprocessor.chunk_length} s gives {num_frames} frames, but "
            f"{checkpoint.settings[0]} says max_source_positions = {config.max_source_positions}"
        )

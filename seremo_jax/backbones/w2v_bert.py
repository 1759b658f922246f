"""w2v-BERT 2.0: Kaldi's log-mel bands, two frames stacked to one, Conformer blocks; 50 frames/s.

Source: KNOWN: L. Barrault et al., Seamless, 2023, section 3.2.1; Y.-A. Chung et al., w2v-BERT, ASRU 2021.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from seremo_jax.backbones import kaldi_bands
from seremo_jax.backbones.base import pick_layers
from seremo_jax.backbones.blocks import hidden_states, is_above
from seremo_jax.backbones.conformer import ConformerBlock, ConformerSpec
from seremo_jax.backbones.filling import fill, published_shapes
from seremo_jax.backbones.layers import Stack
from seremo_jax.backbones.logmel import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from seremo_jax.backbones.preprocessors import SeamlessFeatureExtractor
from seremo_jax.backbones.transformer import Transformer, register, require_no_window
from seremo_jax.backbones.wav2vec2_front import FeatureProjection
from seremo_jax.backbones.weights import Checkpoint, CheckpointError, read_tensors
from seremo_jax.core.artefacts import fingerprint_of

MODEL_TYPE = "wav2vec2-bert"
_HIDDEN_STATES = ("feature_projection.", "encoder.layers.")
"""Prefixes of the tensors that hidden states depend on. The others belong to a head, an adapter or a mask."""


class Encoder(nnx.Module):
    """Parameters of the model, up to the block behind the highest layer wanted."""

    def __init__(self, config: Any, depth: int):
        spec = block_spec(config)
        num_in = config.feature_projection_input_dim
        self.feature_projection = FeatureProjection(num_in, spec.width, spec.norm_eps, has_norm=True)
        self.layers = Stack(ConformerBlock(spec), depth) if depth else None
        self.positions = spec.positions


def block_spec(config: Any) -> ConformerSpec:
    """The blocks of a published config."""
    return ConformerSpec(
        width=config.hidden_size,
        num_heads=config.num_attention_heads,
        hidden_width=config.intermediate_size,
        activation=config.hidden_act,
        norm_eps=config.layer_norm_eps,
        kernel=config.conv_depthwise_kernel_size,
        distances=config.position_embeddings_type or "none",
        reach=(config.left_max_position_embeddings, config.right_max_position_embeddings),
        rotary_base=config.rotary_embedding_base,
        is_causal=True,
    )


@register
@dataclasses.dataclass(frozen=True, eq=False)
class W2vBert(Transformer):
    """w2v-BERT 2.0; see `Transformer`.

    Attributes:
      num_bands: Mel bands.
      num_stacked: Windows of 10 ms that make one frame.
    """

    num_bands: int
    num_stacked: int

    @property
    def _shortest(self) -> int:
        """Samples of the shortest audio that is not filled up: a frame, and two windows that a variance is of."""
        return WINDOW_SAMPLES + (max(self.num_stacked, 2) - 1) * HOP_SAMPLES

    def num_frames(self, num_samples: Any) -> Any:
        """Whole stacks of windows inside the audio; 1 for audio too short for one, 0 for 0 samples."""
        stacks = kaldi_bands.num_windows(num_samples) // self.num_stacked
        return (num_samples >= self._shortest) * (stacks - 1) + (num_samples > 0)

    def __call__(
        self, waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]
    ) -> tuple[Float[Array, "K B T D"], Int[Array, " B"]]:
        """Hidden states of a batch of waveforms in [-1, 1]; see `Backbone`."""
        is_sample = jnp.arange(waveforms.shape[1])[None, :] < num_samples[:, None]
        waveforms = jnp.where(is_sample, waveforms.astype(jnp.float32), 0.0)
        # Shorter audio is filled up with zeros to one frame, which then counts as valid.
        waveforms = jnp.pad(waveforms, ((0, 0), (0, max(0, self._shortest - waveforms.shape[1]))))
        num_windows = kaldi_bands.num_windows(jnp.maximum(num_samples, self._shortest))
        bands = kaldi_bands.normalised(kaldi_bands.log_bands(waveforms, self.num_bands), num_windows)
        t = bands.shape[1] // self.num_stacked
        stacked = bands[:, : t * self.num_stacked].reshape(len(bands), t, -1)
        num_frames = self.num_frames(num_samples).astype(jnp.int32)
        is_valid = jnp.arange(t)[None, :] < num_frames[:, None]
        model = self.module()
        x = model.feature_projection(stacked)
        x = jnp.where(is_valid[..., None], x, jnp.zeros((), x.dtype))
        return hidden_states(model.layers, x, self.layers, is_valid, is_valid, model.positions(t)), num_frames


def load(checkpoint: Checkpoint, layers: Iterable[int] | None, dtype: str, *, final_norm: bool, window: str) -> W2vBert:
    """The model of a w2v-BERT 2.0 checkpoint, whatever head it carries.

    Args:
      checkpoint: Its files.
      layers: Layers to return; no block above the highest is read.
      dtype: Compute dtype.
      final_norm: Changes nothing: every block ends with its own norm, and none follows the last one.
      window: Must be `padded`, the default.

    Raises:
      CheckpointError: Tensors are missing or unexpected, or config and preprocessor do not fit together.
      ValueError: There is no such layer, or `window` is something else.
    """
    del final_norm
    require_no_window(window, checkpoint.name)
    config, preprocessor = checkpoint.config, checkpoint.preprocessor or SeamlessFeatureExtractor()
    num_in = preprocessor.num_mel_bins * preprocessor.stride
    if num_in != config.feature_projection_input_dim:
        raise CheckpointError(
            f"{checkpoint.settings[-1]}: num_mel_bins = {preprocessor.num_mel_bins} and stride = {preprocessor.stride} "
            f"give {num_in} features, but {checkpoint.settings[0]} says feature_projection_input_dim = "
            f"{config.feature_projection_input_dim}"
        )
    num_layers = config.num_hidden_layers + 1
    picked = pick_layers(layers, num_layers)
    model = Encoder(config, max(picked))

    def canonical(name: str) -> str | None:
        return name if name.startswith(_HIDDEN_STATES) and not is_above(name, max(picked)) else None

    tensors = read_tensors(checkpoint, published_shapes(model, published_name), canonical)
    fill(model, tensors, published_name, dtype)
    definition, params = nnx.split(model)
    return W2vBert(
        params=params,
        definition=definition,
        name=checkpoint.name,
        revision=fingerprint_of([checkpoint.revision, "w2v-bert", preprocessor.num_mel_bins, preprocessor.stride]),
        layers=picked,
        num_layers=num_layers,
        num_features=config.hidden_size,
        sample_rate_hz=SAMPLE_RATE_HZ,
        frame_rate_hz=SAMPLE_RATE_HZ / HOP_SAMPLES / preprocessor.stride,
        dtype=dtype,
        final_norm=False,
        least_samples=0,
        num_bands=preprocessor.num_mel_bins,
        num_stacked=preprocessor.stride,
    )


def published_name(path: str) -> str:
    """Path of a tensor in `Encoder` -> its published name."""
    if path.startswith("feature_projection."):
        return path
    return "encoder." + path.replace(".qk.", ".").replace(".pos_bias.", ".")

"""The wav2vec 2.0 family: XLS-R, MMS, HuBERT, WavLM, UniSpeech(-SAT), data2vec-audio, wav2vec2-conformer and others.

There is one implementation: a convolutional feature encoder, a projection, a convolution from which blocks know
positions, and Transformer blocks. Conformer blocks know positions themselves. What differs between the models is read
from the published config.

Source: KNOWN: A. Baevski et al., wav2vec 2.0, NeurIPS 2020; W.-N. Hsu et al., HuBERT, IEEE/ACM TASLP 29, 2021;
S. Chen et al., WavLM, IEEE JSTSP 16(6), 2022.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from seremo_jax.backbones.base import pick_layers
from seremo_jax.backbones.blocks import Block, BlockSpec, hidden_states, is_above
from seremo_jax.backbones.conformer import ConformerBlock, ConformerSpec
from seremo_jax.backbones.filling import fill, published_shapes
from seremo_jax.backbones.layers import LayerNorm, Stack, row_by_row
from seremo_jax.backbones.preprocessors import PREPROCESSOR, PROCESSOR, Wav2Vec2FeatureExtractor
from seremo_jax.backbones.published_config import receptive_samples
from seremo_jax.backbones.transformer import Transformer, register, require_no_window
from seremo_jax.backbones.wav2vec2_front import ConvLayer, FeatureProjection, PositionalConv, RelativeBias, normalised
from seremo_jax.backbones.weights import Checkpoint, read_tensors
from seremo_jax.core.artefacts import fingerprint_of

CONFORMER, SEW = "wav2vec2-conformer", "sew"
MODEL_TYPES = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "unispeech",
    "unispeech-sat",
    "data2vec-audio",
    "mert_model",
    CONFORMER,
    SEW,
)
"""Published `model_type`s of the family."""

_HIDDEN_STATES = ("feature_extractor.conv_layers.", "feature_projection.", "encoder.")
"""Prefixes of the tensors that hidden states depend on. The others belong to a head, a quantiser or a mask."""
_SEW_NORM = "layer_norm."
"""Where SEW keeps the norm in front of its projection."""

_BIAS_TABLE = "encoder.layers.0.attention.rel_attn_embed.weight"


class Encoder(nnx.Module):
    """Parameters of the model, up to the block behind the highest layer wanted."""

    def __init__(self, config: Any, depth: int, has_final_norm: bool):
        spec, widths = block_spec(config), (1, *config.conv_dim)
        is_conformer = isinstance(spec, ConformerSpec)
        norms = ["group", *["none"] * (len(config.conv_dim) - 1)]
        if config.model_type == "data2vec-audio" or config.feat_extract_norm == "layer":
            norms = ["layer"] * len(config.conv_dim)
        self.is_pre_norm = spec.is_pre_norm
        self.feature_extractor = nnx.List(
            ConvLayer(widths[i], widths[i + 1], kernel, stride, config.conv_bias, norm, config.feat_extract_activation)
            for i, (kernel, stride, norm) in enumerate(zip(config.conv_kernel, config.conv_stride, norms, strict=True))
        )
        has_norm = getattr(config, "feat_proj_layer_norm", True)
        has_map = config.model_type != SEW or widths[-1] != spec.width
        self.feature_projection = FeatureProjection(widths[-1], spec.width, config.layer_norm_eps, has_norm, has_map)
        self.num_squeezed = getattr(config, "squeeze_factor", 1)
        # Published wav2vec2-conformers hold such a convolution, and never ask it.
        self.pos_conv_embed = None if is_conformer else _positional_conv(config)
        has_bias = config.model_type == "wavlm" and depth > 0
        buckets = (config.num_buckets, config.max_bucket_distance) if has_bias else ()
        self.relative_bias = RelativeBias(*buckets, spec.num_heads) if has_bias else None
        self.layer_norm = (
            LayerNorm(spec.width, config.layer_norm_eps) if has_final_norm or not spec.is_pre_norm else None
        )
        self.layers = Stack((ConformerBlock if is_conformer else Block)(spec), depth) if depth else None
        self.constants = spec.positions if is_conformer else None

    def positions(self, num_frames: int) -> Any:
        """What all blocks are told of the distances between frames."""
        if self.constants is not None:
            return self.constants(num_frames)
        return None if self.relative_bias is None else self.relative_bias(num_frames)


def block_spec(config: Any) -> BlockSpec | ConformerSpec:
    """The blocks of a published config."""
    if config.model_type == CONFORMER:
        return ConformerSpec(
            width=config.hidden_size,
            num_heads=config.num_attention_heads,
            hidden_width=config.intermediate_size,
            activation=config.hidden_act,
            norm_eps=1e-5,  # the published blocks leave that of the config to the other norms
            kernel=config.conv_depthwise_kernel_size,
            distances=config.position_embeddings_type or "none",
            rotary_base=config.rotary_embedding_base,
        )
    is_pre_norm = getattr(config, "do_stable_layer_norm", False)
    return BlockSpec(
        width=config.hidden_size,
        num_heads=config.num_attention_heads,
        hidden_width=config.intermediate_size,
        activation=config.hidden_act,
        norm_eps=config.layer_norm_eps,
        is_pre_norm=is_pre_norm,
        has_gate=config.model_type == "wavlm",
        # The published blocks with norms behind have no adapter, whatever the config says.
        adapter_width=(is_pre_norm and getattr(config, "adapter_attn_dim", None)) or 0,
    )


def _positional_conv(config: Any) -> PositionalConv:
    kernel, norm, num_layers = config.num_conv_pos_embeddings, "weight", 1
    if config.model_type == "data2vec-audio":
        kernel, norm, num_layers = config.conv_pos_kernel_size, "layer", config.num_conv_pos_embeddings
    elif getattr(config, "conv_pos_batch_norm", False):
        norm = "batch"
    groups, activation = config.num_conv_pos_embedding_groups, config.feat_extract_activation
    return PositionalConv(config.hidden_size, kernel, groups, norm, activation, num_layers, 1e-5)


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Wav2Vec2(Transformer):
    """A model of the family; see `Transformer`.

    Attributes:
      kernels, strides: Of the feature encoder's convolutions, and of the mean that squeezes its frames (SEW).
      is_normalised: Whether waveforms are brought to zero mean and unit variance first.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    is_normalised: bool

    def num_frames(self, num_samples: Any) -> Any:
        """Frames whose convolutions lie inside the audio; 1 for audio too short for one, 0 for 0 samples."""
        return self._frames_by_layer(num_samples)[-1]

    def _frames_by_layer(self, num_samples: Any) -> list[Any]:
        """Valid frames behind each convolution."""
        frames, counts = num_samples, []
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            frames = (frames >= kernel) * ((frames - kernel) // stride) + (num_samples > 0)
            counts.append(frames)
        return counts

    def __call__(
        self, waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]
    ) -> tuple[Float[Array, "K B T D"], Int[Array, " B"]]:
        """Hidden states of a batch of waveforms in [-1, 1]; see `Backbone`."""
        is_sample = jnp.arange(waveforms.shape[1])[None, :] < num_samples[:, None]
        waveforms = jnp.where(is_sample, waveforms, 0.0)
        if self.is_normalised:
            waveforms = normalised(waveforms, num_samples)
        # Shorter audio is filled up with zeros to one frame, which then counts as valid.
        least = receptive_samples(self.kernels, self.strides)
        waveforms = jnp.pad(waveforms, ((0, 0), (0, max(0, least - waveforms.shape[1]))))
        counts = self._frames_by_layer(jnp.where(num_samples > 0, jnp.maximum(num_samples, least), 0))
        model, num_frames = self.module(), counts[-1].astype(jnp.int32)

        def features(waveforms: Array, counts: Array) -> Array:
            x = waveforms[..., None].astype(self.dtype)
            for number, layer in enumerate(model.feature_extractor):
                x = layer(x, counts[:, number])
            return x

        x = row_by_row(features, waveforms, jnp.stack(counts, axis=1))
        is_valid = jnp.arange(x.shape[1])[None, :] < counts[len(model.feature_extractor) - 1][:, None]
        x = jnp.where(is_valid[..., None], model.feature_projection(x), jnp.zeros((), x.dtype))
        places = None if model.pos_conv_embed is None else model.pos_conv_embed(x, is_valid)
        if (squeezed := model.num_squeezed) > 1:
            t = x.shape[1] // squeezed
            x = x[:, : t * squeezed].reshape(len(x), t, squeezed, -1).mean(axis=2)
            places, is_valid = places[:, : t * squeezed : squeezed], jnp.arange(t)[None, :] < num_frames[:, None]
        x = x if places is None else x + places
        if not model.is_pre_norm:
            x = model.layer_norm(x)
        hidden = hidden_states(model.layers, x, self.layers, is_valid, is_valid, model.positions(x.shape[1]))
        return self._normed(hidden, model.layer_norm if model.is_pre_norm else None, is_valid), num_frames


def load(
    checkpoint: Checkpoint, layers: Iterable[int] | None, dtype: str, *, final_norm: bool, window: str
) -> Wav2Vec2:
    """The model of a published checkpoint of the family, whatever head it carries.

    Args:
      checkpoint: Its files.
      layers: Layers to return; no block above the highest is read.
      dtype: Compute dtype.
      final_norm: Takes the last layer after the final layer norm, where blocks are pre-norm; elsewhere each state has
        been normed already, and this changes nothing.
      window: Must be `padded`, the default: only Whisper pads audio to a window.

    Raises:
      CheckpointError: Tensors are missing or unexpected, or the config asks for what this project does not know.
      ValueError: There is no such layer, or `window` is something else.
    """
    require_no_window(window, checkpoint.name)
    config = checkpoint.config
    num_layers = config.num_hidden_layers + 1
    picked = pick_layers(layers, num_layers)
    final_norm = final_norm and block_spec(config).is_pre_norm
    model = Encoder(config, max(picked), final_norm and num_layers - 1 in picked)
    published = functools.partial(published_name, model_type=config.model_type)

    def canonical(name: str) -> str | None:
        name = name.replace("conv.parametrizations.weight.original0", "conv.weight_g")
        name = name.replace("conv.parametrizations.weight.original1", "conv.weight_v")
        is_unused = is_above(name, max(picked))
        is_unused |= name.startswith("encoder.layer_norm.") and model.layer_norm is None
        is_unused |= name.startswith("encoder.pos_conv_embed.") and model.pos_conv_embed is None
        is_unused |= name.startswith("encoder.embed_positions.")  # angles that older versions of transformers saved
        is_unused |= name == _BIAS_TABLE and model.relative_bias is None
        is_unused |= name.startswith("encoder.upsample.")
        parts = (*_HIDDEN_STATES, _SEW_NORM) if config.model_type == SEW else _HIDDEN_STATES
        is_foreign = not name.startswith(parts) or name.endswith(".num_batches_tracked")
        return "" if is_unused else None if is_foreign else name

    tensors = read_tensors(checkpoint, published_shapes(model, published), canonical)
    fill(model, tensors, published, dtype)
    definition, params = nnx.split(model)
    if (preprocessor := checkpoint.preprocessor) is None:
        preprocessor = Wav2Vec2FeatureExtractor()
        warnings.warn(
            f"{checkpoint.folder} has no {PREPROCESSOR} and no {PROCESSOR}: waveforms are normalised, which is wrong "
            "for some models; place the published file there",
            stacklevel=2,
        )
    squeezed = (config.squeeze_factor,) if config.model_type == SEW and config.squeeze_factor > 1 else ()
    strides = (*config.conv_stride, *squeezed)
    is_normalised, rate_hz = preprocessor.do_normalize, preprocessor.sampling_rate
    return Wav2Vec2(
        params=params,
        definition=definition,
        name=checkpoint.name,
        revision=fingerprint_of([checkpoint.revision, "wav2vec2", is_normalised]),
        layers=picked,
        num_layers=num_layers,
        num_features=config.hidden_size,
        sample_rate_hz=rate_hz,
        frame_rate_hz=rate_hz / math.prod(strides),
        dtype=dtype,
        final_norm=final_norm,
        least_samples=0,
        kernels=(*config.conv_kernel, *squeezed),
        strides=strides,
        is_normalised=is_normalised,
    )


def published_name(path: str, model_type: str) -> str:
    """Path of a tensor in `Encoder` -> its published name."""
    if path.startswith("feature_extractor."):
        return path.replace("feature_extractor.", "feature_extractor.conv_layers.")
    if path.startswith("feature_projection."):
        if model_type == SEW:
            path = path.replace("feature_projection.layer_norm.", _SEW_NORM).replace(".projection.", ".")
        return path
    if path.startswith("relative_bias."):
        return _BIAS_TABLE
    if model_type != "data2vec-audio":
        path = path.replace("pos_conv_embed.layers.0.", "pos_conv_embed.")
    path = path.replace(".qk.", ".").replace(".pos_bias.", ".")
    return "encoder." + path.replace("attention.qkv.", "attention.").replace(".gate.", ".attention.")

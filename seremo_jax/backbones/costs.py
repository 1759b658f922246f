"""Operations of a forward pass, computed from a published config: no weights are read, nothing is run."""

from typing import Any

import numpy as np

from seremo_jax.backbones.logmel import HOP_SAMPLES, WINDOW_SAMPLES

_WHISPERS = ("whisper", "qwen2_audio", "qwen2_audio_encoder")
_CONFORMERS = ("wav2vec2-conformer", "wav2vec2-bert")
_LARGE = {
    "hidden_size": 1_024,
    "num_attention_heads": 16,
    "intermediate_size": 4_096,
    "num_hidden_layers": 24,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
_CONFORMER = {name: value for name, value in _LARGE.items() if name != "do_stable_layer_norm"}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "facebook/wav2vec2-base": ("wav2vec2", {}),
    "facebook/hubert-large-ll60k": ("hubert", _LARGE),
    "microsoft/wavlm-base-plus": ("wavlm", {}),
    "microsoft/wavlm-large": ("wavlm", _LARGE),
    "facebook/wav2vec2-xls-r-1b": (
        "wav2vec2",
        {**_LARGE, "hidden_size": 1_280, "intermediate_size": 5_120, "num_hidden_layers": 48},
    ),
    "facebook/wav2vec2-conformer-rel-pos-large": ("wav2vec2-conformer", {**_CONFORMER, "hidden_act": "swish"}),
    "facebook/wav2vec2-conformer-rope-large": (
        "wav2vec2-conformer",
        {**_CONFORMER, "hidden_act": "swish", "position_embeddings_type": "rotary"},
    ),
    "facebook/w2v-bert-2.0": ("wav2vec2-bert", {}),
}
"""Hub id -> `model_type`, and what its config says besides that type's defaults."""


def published_config(name: str) -> Any:
    """The config of one of `PUBLISHED`, without a network."""
    import transformers

    kind, settings = PUBLISHED[name]
    return transformers.AutoConfig.for_model(kind, **settings)


def forward_flops(config: Any, num_samples: Any, is_direct: bool = False) -> Any:
    """Operations of all products and convolutions of an utterance, every block; element-wise work is left out.

    Args:
      config: Published config of the wav2vec 2.0 family, of w2v-BERT 2.0, of Whisper or Qwen2-Audio.
      num_samples: Integers or integer arrays, at the length that is computed, padding and all.
      is_direct: Counts the convolution over positions directly, as PyTorch does it; ours goes over spectra.

    Returns:
      Two operations a multiply-add, of the shape of `num_samples`, float64. Attention counts at these lengths.
    """
    frames, total = _front(config, np.asarray(num_samples, np.int64))
    d, hidden = config.hidden_size, _inner_width(config)
    if config.model_type in _CONFORMERS:
        # Two feed-forward parts; four maps of attention, and three as wide in the convolution.
        per_block = 2.0 * frames * (7 * d * d + 4 * d * hidden) + 4.0 * frames * frames * d
        per_block = per_block + 2.0 * frames * config.conv_depthwise_kernel_size * d
        per_block = per_block + _distances(config, frames)
    else:
        per_block = 2.0 * frames * (4 * d * d + 2 * d * hidden) + 4.0 * frames * frames * d
        if config.model_type not in _WHISPERS:
            squeezed = getattr(config, "squeeze_factor", 1)
            if is_direct:
                total = total + _direct_positions(config, frames)
            else:
                total = total + _spectral_positions(config, frames * squeezed)
    return total + config.num_hidden_layers * per_block


def _front(config: Any, num_samples: Any) -> tuple[Any, Any]:
    """Frames, and operations up to where they enter the blocks but for the convolution over positions."""
    if config.model_type in _WHISPERS:
        windows = num_samples // HOP_SAMPLES
        frames = windows // 2
        bands = _bands(windows, config.num_mel_bins, WINDOW_SAMPLES)
        return frames, bands + 2.0 * 3 * (windows * config.num_mel_bins + frames * config.d_model) * config.d_model
    if config.model_type == "wav2vec2-bert":
        windows = np.maximum((num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1, 2)
        frames = windows // 2
        num_in = config.feature_projection_input_dim
        return frames, _bands(windows, num_in // 2, 512) + 2.0 * frames * num_in * config.hidden_size
    frames, total, width_in = num_samples, 0.0, 1
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        frames = np.maximum((frames - kernel) // stride + 1, 1)
        total = total + 2.0 * frames * kernel * width_in * width
        width_in = width
    return frames // getattr(config, "squeeze_factor", 1), total + 2.0 * frames * width_in * config.hidden_size


def _bands(windows: Any, num_bands: int, num_points: int) -> Any:
    return 2.0 * windows * (num_points // 2 + 1) * num_bands


def _inner_width(config: Any) -> int:
    return config.encoder_ffn_dim if config.model_type in _WHISPERS else config.intermediate_size


def _distances(config: Any, frames: Any) -> Any:
    """What a Conformer block computes of the distances between frames."""
    d = config.hidden_size
    if config.position_embeddings_type == "relative":
        return 2.0 * (2 * frames - 1) * d * (frames + d)
    if config.position_embeddings_type == "relative_key":
        return 2.0 * frames * (config.left_max_position_embeddings + config.right_max_position_embeddings + 1) * d
    return 0.0


def _positions(config: Any) -> tuple[int, int]:
    """Kernel and number of the convolutions over positions."""
    if config.model_type == "data2vec-audio":
        return config.conv_pos_kernel_size, config.num_conv_pos_embeddings
    return config.num_conv_pos_embeddings, 1


def _direct_positions(config: Any, frames: Any) -> Any:
    kernel, number = _positions(config)
    return number * 2.0 * frames * kernel * config.hidden_size**2 / config.num_conv_pos_embedding_groups


def _spectral_positions(config: Any, frames: Any) -> Any:
    """As `wav2vec2_front.SpectralConv` does it: complex products of blocks; the transforms themselves are left out."""
    kernel, number = _positions(config)
    size = 1 << (2 * kernel - 1).bit_length()
    num_blocks = -(-frames // (size - kernel + 1))
    return number * 8.0 * num_blocks * (size // 2 + 1) * config.hidden_size**2 / config.num_conv_pos_embedding_groups

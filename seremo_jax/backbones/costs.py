"""Operations of a forward pass, computed from a published config: no weights are read, nothing is run."""

from typing import Any

import numpy as np

_LARGE = {
    "hidden_size": 1_024,
    "num_attention_heads": 16,
    "intermediate_size": 4_096,
    "num_hidden_layers": 24,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "facebook/wav2vec2-base": ("wav2vec2", {}),
    "facebook/hubert-large-ll60k": ("hubert", _LARGE),
    "microsoft/wavlm-base-plus": ("wavlm", {}),
    "microsoft/wavlm-large": ("wavlm", _LARGE),
    "facebook/wav2vec2-xls-r-1b": (
        "wav2vec2",
        {**_LARGE, "hidden_size": 1_280, "intermediate_size": 5_120, "num_hidden_layers": 48},
    ),
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
      config: Published config of the wav2vec 2.0 family.
      num_samples: Integers or integer arrays, at the length that is computed, padding and all.
      is_direct: Counts the convolution over positions directly, as PyTorch does it; ours goes over spectra.

    Returns:
      Two operations a multiply-add, of the shape of `num_samples`, float64. Attention counts at these lengths.
    """
    frames, total, width_in = np.asarray(num_samples, np.int64), 0.0, 1
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        frames = np.maximum((frames - kernel) // stride + 1, 1)
        total = total + 2.0 * frames * kernel * width_in * width
        width_in = width
    d, hidden = config.hidden_size, config.intermediate_size
    total = total + 2.0 * frames * width_in * d
    total = total + (_direct_positions(config, frames) if is_direct else _spectral_positions(config, frames))
    per_block = 2.0 * frames * (4 * d * d + 2 * d * hidden) + 4.0 * frames * frames * d
    return total + config.num_hidden_layers * per_block


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

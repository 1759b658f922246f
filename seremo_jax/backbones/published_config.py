"""`config.json` of the models known here: kind and range of every field that hidden states depend on.

Fields that no hidden state depends on (heads, dropout, tokens) are not read at all. A field that is not given has the
default of its model in transformers.
"""

import contextlib
import logging
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.layers import ACTIVATIONS
from seremo_jax.backbones.settings import (
    FLAG,
    NOTHING,
    Check,
    checked,
    one_of,
    optional,
    read_object,
    real,
    whole,
    wholes,
)

CONFIG = "config.json"
_WIDTH, _DEPTH, _ACTIVATION = whole(1, 1 << 16), whole(1, 1_000), one_of(tuple(ACTIVATIONS))
"""Many times those of the largest model known: what is compared with the shapes of tensors need not be listed first."""
_MOST_RECEPTIVE_SAMPLES = 1 << 20
"""Samples that one frame may see: a minute at 16 kHz."""

_WAV2VEC2: dict[str, Check] = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _DEPTH,
    "num_attention_heads": _WIDTH,
    "intermediate_size": _WIDTH,
    "hidden_act": _ACTIVATION,
    "layer_norm_eps": real(0.0, 1.0),
    "feat_extract_activation": _ACTIVATION,
    "conv_dim": wholes(1, 1 << 16, 32),
    "conv_kernel": wholes(1, 1 << 16, 32),
    "conv_stride": wholes(1, 1 << 16, 32),
    "conv_bias": FLAG,
    "num_conv_pos_embeddings": _WIDTH,
    "num_conv_pos_embedding_groups": _WIDTH,
    "per_layer_config": NOTHING,
}
_CONFORMER: dict[str, Check] = {
    "position_embeddings_type": optional(one_of(("relative", "rotary"))),
    "rotary_embedding_base": whole(2, 1 << 30),
    "conv_depthwise_kernel_size": whole(1, 1 << 10),
}
_BLOCKS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
    "per_layer_config",
)  # fmt: skip
_FRONT_NORM = {"feat_extract_norm": one_of(("group", "layer")), "do_stable_layer_norm": FLAG}
_ADAPTER = {"adapter_attn_dim": optional(_WIDTH)}
_HUBERT = {"feat_proj_layer_norm": FLAG, "conv_pos_batch_norm": FLAG}
_MERT = {
    "feature_extractor_cqt": Check(
        lambda value: value is False,
        "false: the constant-Q transform that MERT-v1 hears beside the waveform is not computed here; MERT-v0 has none",
    ),
    "deepnorm": one_of((False,)),
    "attention_relax": one_of((-1, -1.0)),
}
_BUCKETS = {"num_buckets": whole(4, 1 << 16), "max_bucket_distance": whole(2, 1 << 20)}

_WHISPER: dict[str, Check] = {
    "d_model": _WIDTH,
    "encoder_layers": _DEPTH,
    "encoder_attention_heads": _WIDTH,
    "encoder_ffn_dim": _WIDTH,
    "activation_function": _ACTIVATION,
    "num_mel_bins": whole(1, 201),
    "max_source_positions": whole(1, 1 << 20),
    "scale_embedding": one_of((False,)),
    "per_layer_config": NOTHING,
}

FIELDS: dict[str, dict[str, Check]] = {
    "wav2vec2": _WAV2VEC2 | _FRONT_NORM | _ADAPTER,
    "hubert": _WAV2VEC2 | _FRONT_NORM | _ADAPTER | _HUBERT,
    "wavlm": _WAV2VEC2 | _FRONT_NORM | _BUCKETS,
    "unispeech": _WAV2VEC2 | _FRONT_NORM | _ADAPTER,
    "unispeech-sat": _WAV2VEC2 | _FRONT_NORM | _ADAPTER,
    "mert_model": _WAV2VEC2 | _FRONT_NORM | _HUBERT | _MERT,
    "sew": _WAV2VEC2 | {"feat_extract_norm": _FRONT_NORM["feat_extract_norm"], "squeeze_factor": whole(1, 64)},
    "data2vec-audio": _WAV2VEC2 | {"conv_pos_kernel_size": _WIDTH, "num_conv_pos_embeddings": whole(1, 100)},
    "wav2vec2-conformer": {name: check for name, check in _WAV2VEC2.items() if "conv_pos" not in name}
    | _CONFORMER
    | {"feat_extract_norm": one_of(("group", "layer"))},
    "wav2vec2-bert": {
        **{name: _WAV2VEC2[name] for name in _BLOCKS},
        **_CONFORMER,
        "position_embeddings_type": optional(one_of(("relative", "rotary", "relative_key"))),
        "left_max_position_embeddings": whole(0, 1 << 16),
        "right_max_position_embeddings": whole(0, 1 << 16),
        "feature_projection_input_dim": _WIDTH,
    },
    **dict.fromkeys(("whisper", "qwen2_audio", "qwen2_audio_encoder"), _WHISPER),
}
"""`model_type` -> its fields."""

_NESTED = {"qwen2_audio": "audio_config"}
"""`model_type` of a larger model -> where the config of its encoder stands."""
_LIKE = {"qwen2_audio": "qwen2_audio_encoder", "mert_model": "hubert"}
"""`model_type` without a config of its own in transformers -> the one whose fields it has."""


def read_config(folder: Path) -> Any:
    """The published config in a folder, as transformers names its fields, each of them checked.

    Raises:
      CheckpointError: It is missing, damaged, of an unknown kind, or says what no model can be made of.
    """
    path = folder / CONFIG
    content = read_object(path)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise CheckpointError(f"{path}: model_type {kind!r:.80} is not known here; known: {', '.join(sorted(FIELDS))}")
    if kind in _NESTED and not isinstance(content := content.get(_NESTED[kind]) or {}, dict):
        raise CheckpointError(f"{path}: {_NESTED[kind]} holds no JSON object: place the published file there again")
    with _without_advice():
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[_LIKE.get(kind, kind)]
    # Transformers reads some fields under a second, general name, too.
    names = config_class.attribute_map
    fields = checked(str(path), {names.get(name, name): value for name, value in content.items()}, FIELDS[kind])
    if problems := _problems(types.SimpleNamespace(**vars(config_class()) | fields, model_type=kind)):
        raise CheckpointError(f"{path}: {'; '.join(problems)}")
    config = config_class(**fields)
    config.model_type = kind
    return config


def _problems(config: Any) -> list[str]:
    """What does not fit together."""
    if FIELDS[config.model_type] is _WHISPER:
        return _no_multiple(config, "d_model", "encoder_attention_heads")
    problems = _no_multiple(config, "hidden_size", "num_attention_heads")
    if config.model_type in ("wav2vec2-conformer", "wav2vec2-bert"):
        problems += _conformer_problems(config)
    else:
        problems += _no_multiple(config, "hidden_size", "num_conv_pos_embedding_groups")
    if config.model_type == "wav2vec2-bert":
        return problems
    if not len(config.conv_dim) == len(config.conv_kernel) == len(config.conv_stride):
        problems.append("conv_dim, conv_kernel and conv_stride differ in length")
    elif receptive_samples(config.conv_kernel, config.conv_stride) > _MOST_RECEPTIVE_SAMPLES:
        problems.append(f"conv_kernel and conv_stride: a frame sees more than {_MOST_RECEPTIVE_SAMPLES} samples")
    if config.model_type == "wavlm" and config.max_bucket_distance <= config.num_buckets // 4:
        problems.append("max_bucket_distance is not above a quarter of num_buckets")
    return problems


def _conformer_problems(config: Any) -> list[str]:
    problems = []
    if config.conv_depthwise_kernel_size % 2 == 0:
        problems.append(f"conv_depthwise_kernel_size = {config.conv_depthwise_kernel_size} is no odd number")
    # Sines and cosines stand side by side, and a rotation turns pairs of features.
    if config.position_embeddings_type == "relative" and config.hidden_size % 2:
        problems.append(f"hidden_size = {config.hidden_size} is odd, and position_embeddings_type is relative")
    if config.position_embeddings_type == "rotary" and config.hidden_size // config.num_attention_heads % 2:
        problems.append("hidden_size / num_attention_heads is odd, and position_embeddings_type is rotary")
    return problems


def _no_multiple(config: Any, whole_field: str, part_field: str) -> list[str]:
    is_multiple = getattr(config, whole_field) % getattr(config, part_field) == 0
    return [] if is_multiple else [f"{whole_field} = {getattr(config, whole_field)} is no multiple of {part_field}"]


def receptive_samples(kernels: tuple[int, ...] | list[int], strides: tuple[int, ...] | list[int]) -> int:
    """Samples that one frame behind convolutions sees: fewer make no frame."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps transformers from saying at its import that PyTorch had better be there."""

    def is_kept(record: logging.LogRecord) -> bool:
        return "PyTorch was not found" not in record.getMessage()

    logger = logging.getLogger("transformers")
    logger.addFilter(is_kept)
    try:
        yield
    finally:
        logger.removeFilter(is_kept)

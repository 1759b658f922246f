"""The config of a model from the names and shapes of its tensors, where no `config.json` came with them.

Shapes do not say everything. What they leave open is taken from the published models of the same kind (INFERRED): the
strides of the feature encoder, the number of heads at each width, and that blocks have their norms in front exactly
where each convolution has a layer norm. A model unlike these is refused, and needs its own `config.json`.
"""

import re
from collections.abc import Mapping
from typing import Any

from seremo_jax.backbones.hub import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

LANDMARKS = {
    "whisper": "encoder.embed_positions.weight",
    **dict.fromkeys(
        ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat"), "feature_projection.projection.weight"
    ),
}
"""`model_type` that can be made out by shapes -> a tensor that each model of it has once."""

_KERNELS, _STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
_HEADS = {768: 12, 1_024: 16, 1_280: 16, 1_920: 16}
"""Width of the published models of wav2vec 2.0's family -> heads."""
_WHISPER_HEAD_WIDTH = 64


def config_of(kind: str, shapes: Shapes, place: str) -> dict[str, Any]:
    """What `config.json` would say.

    Args:
      kind: A key of `LANDMARKS`.
      shapes: Published name, without what a wrapper put before it, -> shape.
      place: Shown in errors.

    Raises:
      CheckpointError: Tensors are missing, or the model is unlike the published ones.
    """
    try:
        return {"model_type": kind} | (_whisper(shapes) if kind == "whisper" else _wav2vec2(kind, shapes))
    except KeyError as error:
        raise CheckpointError(
            f"{place} has no tensor {error.args[0]}, which every {kind} has: is the prefix right?"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{place}: {error}. Place the config.json of the model beside its weights") from None


def depth_of(shapes: Shapes) -> int:
    """Number of blocks.

    Raises:
      ValueError: Numbers are left out.
    """
    numbers = {int(match[1]) for name in shapes if (match := re.match(r"encoder\.layers\.(\d{1,6})\.", name))}
    if numbers != set(range(len(numbers))):
        raise ValueError(f"its blocks have the numbers {sorted(numbers)[:40]}")
    return len(numbers)


def _whisper(shapes: Shapes) -> dict[str, Any]:
    width, num_bands, _ = shapes["encoder.conv1.weight"]
    num_positions = shapes["encoder.embed_positions.weight"][0]
    return {
        "d_model": width,
        "num_mel_bins": num_bands,
        "max_source_positions": num_positions,
        "encoder_layers": depth_of(shapes),
        "encoder_attention_heads": width // _WHISPER_HEAD_WIDTH,
        "encoder_ffn_dim": shapes["encoder.layers.0.fc1.weight"][0],
    }


def _wav2vec2(kind: str, shapes: Shapes) -> dict[str, Any]:
    width = shapes["feature_projection.projection.weight"][0]
    convs = [shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(len(_KERNELS))]
    if (kernels := tuple(conv[-1] for conv in convs)) != _KERNELS:
        raise ValueError(
            f"its feature encoder has kernels {kernels}, unlike any published one, and strides no shape says"
        )
    has_layer_norm = "feature_extractor.conv_layers.1.layer_norm.weight" in shapes
    directions = "encoder.pos_conv_embed.conv.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
    _, per_group, kernel = next((shapes[name] for name in directions if name in shapes), None) or shapes[directions[0]]
    config = {
        "hidden_size": width,
        "num_hidden_layers": depth_of(shapes),
        "num_attention_heads": _heads(kind, width, shapes),
        "intermediate_size": shapes["encoder.layers.0.feed_forward.intermediate_dense.weight"][0],
        "conv_dim": [conv[0] for conv in convs],
        "conv_kernel": list(_KERNELS),
        "conv_stride": list(_STRIDES),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in shapes,
        "feat_extract_norm": "layer" if has_layer_norm else "group",
        "do_stable_layer_norm": has_layer_norm,
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": width // per_group,
    }
    if kind == "wavlm":
        config |= {
            "num_buckets": shapes["encoder.layers.0.attention.rel_attn_embed.weight"][0],
            "max_bucket_distance": 800,
        }
    elif (adapter := shapes.get("encoder.layers.0.adapter_layer.linear_1.weight")) is not None:
        config["adapter_attn_dim"] = adapter[0]
    return config


def _heads(kind: str, width: int, shapes: Shapes) -> int:
    if kind == "wavlm":
        return shapes["encoder.layers.0.attention.rel_attn_embed.weight"][1]
    if width not in _HEADS:
        raise ValueError(f"no published {kind} is {width} wide, and how many heads attend no shape says")
    return _HEADS[width]

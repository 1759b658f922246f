"""Frozen models from audio to hidden states.

In: a published checkpoint, or a name without weights. Out: a `Backbone`, from waveforms to the hidden states of chosen
layers, in Flax. A new architecture is one module here, one entry in a dict below and its fields in `published_config`;
no experiment is known here.
"""

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from seremo_jax.backbones import costs, logmel, w2v_bert, wav2vec2, whisper
from seremo_jax.backbones.base import Backbone, bucket_lengths, pick_layers
from seremo_jax.backbones.hub import Place, is_here, may_be_asked_for
from seremo_jax.backbones.preprocessors import EXTRACTORS, Wav2Vec2FeatureExtractor
from seremo_jax.backbones.transformer import Transformer
from seremo_jax.backbones.weights import Checkpoint, CheckpointError, open_checkpoint
from seremo_jax.backbones.windows import Windowed, Windows

__all__ = [
    "ARCHITECTURES",
    "LOADERS",
    "Backbone",
    "CheckpointError",
    "bucket_lengths",
    "is_here",
    "load",
    "may_be_asked_for",
    "outline",
    "pick_layers",
    "windowed",
]

LOADERS: dict[str, Callable[[str, Iterable[int] | None, str], Backbone]] = {"logmel": logmel.load}
"""Name of a backbone without weights -> function of (name, layers, dtype) that makes it."""

ARCHITECTURES: dict[str, Callable[..., Backbone]] = {
    **dict.fromkeys(whisper.MODEL_TYPES, whisper.load),
    w2v_bert.MODEL_TYPE: w2v_bert.load,
    **dict.fromkeys(wav2vec2.MODEL_TYPES, wav2vec2.load),
}
"""`model_type` of a published config -> function of (checkpoint, layers, dtype, final_norm, window) that makes it."""

WINDOWS = ("padded", "cut")


def load(
    path_or_id: str | os.PathLike,
    layers: Iterable[int] | None = None,
    dtype: str = "float32",
    *,
    final_norm: bool = False,
    window: str = "padded",
) -> Backbone:
    """Makes a backbone ready to call.

    Args:
      path_or_id: Folder of a published checkpoint, its id on the model hub (`org/name`, `org/name@revision`), or the
        name of a backbone without weights (`logmel`).
      layers: Layers to return, in this order; None returns all. Nothing above the highest is read or computed.
      dtype: Compute dtype, `float32` or `bfloat16`; `logmel` computes in float32 whatever this says.
      final_norm: Takes the last layer after the final layer norm of pre-norm models, as the published hidden states
        have it; by default every layer is the plain output of its block.
      window: `padded`: Whisper hears 30 s padded with silence, as it was trained. `cut`: its windows end 2 s
        after the audio, which is faster. The others hear audio at its own length.

    Raises:
      CheckpointError: No such checkpoint, or it cannot be used; the message says why and what to do.
      ValueError: Unknown name, dtype, window or layer.
    """
    return _load(open_checkpoint, os.fspath(path_or_id), layers, dtype, final_norm, window)


def outline(
    path_or_id: str | os.PathLike,
    layers: Iterable[int] | None = None,
    dtype: str = "float32",
    *,
    final_norm: bool = False,
    window: str = "padded",
) -> Backbone:
    """The backbone of `load` with shapes (`jax.ShapeDtypeStruct`) in place of its weights, to compile programs with.

    No weights are read or fetched. `costs.PUBLISHED` names models that need no file either.

    Raises:
      CheckpointError: No such checkpoint, or its settings cannot be used.
      ValueError: Unknown name, dtype, window or layer.
    """
    return _load(_open_outline, os.fspath(path_or_id), layers, dtype, final_norm, window)


def _load(
    opened: Callable[[str], Checkpoint],
    name: str,
    layers: Iterable[int] | None,
    dtype: str,
    final_norm: bool,
    window: str,
) -> Backbone:
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"unknown dtype {dtype!r} for backbone {name!r}: choose float32 or bfloat16")
    if window not in WINDOWS:
        raise ValueError(f"unknown window {window!r} for backbone {name!r}: choose {' or '.join(WINDOWS)}")
    if name in LOADERS:
        return LOADERS[name](name, layers, dtype)
    if "/" not in name and not os.path.isdir(name):
        near = difflib.get_close_matches(name.lower(), LOADERS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown backbone {name!r}: known are {', '.join(sorted(LOADERS))}, the folder of a published checkpoint, "
            f"and ids on the model hub such as microsoft/wavlm-large{hint}"
        )
    checkpoint = opened(name)
    return ARCHITECTURES[checkpoint.config.model_type](checkpoint, layers, dtype, final_norm=final_norm, window=window)


def _open_outline(name: str) -> Checkpoint:
    """A checkpoint whose settings alone are read."""
    if name in costs.PUBLISHED:
        config = costs.published_config(name)
        extractor = EXTRACTORS.get(config.model_type, Wav2Vec2FeatureExtractor)
        return Checkpoint(Place(name, Path(), None), config, extractor(), (), True)
    return dataclasses.replace(open_checkpoint(name), is_outline=True)


def windowed(backbone: Backbone, window_s: float, overlap_s: float) -> Backbone:
    """The backbone, hearing audio longer than a window in overlapping windows joined frame by frame.

    Backbones without attention are returned as they are: they hear any length at linear cost.

    Args:
      backbone: From `load`.
      window_s: Length of a window in seconds.
      overlap_s: How much of it the next one hears again, in seconds.

    Raises:
      ValueError: The overlap does not fit the window, or the window is longer than the backbone hears.
    """
    if not isinstance(backbone, Transformer):
        return backbone
    windows = Windows.of(backbone, window_s, overlap_s)
    if windows.window_samples > (most := getattr(backbone, "window_samples", windows.window_samples)):
        raise ValueError(
            f"windows of {window_s} s are too long: it hears {most / backbone.sample_rate_hz:g} s at once "
            "(backbone.window_seconds)"
        )
    return Windowed(backbone, windows)

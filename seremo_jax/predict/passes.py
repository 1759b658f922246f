"""The compiled passes of prediction: waveforms to frames, and on to what every head says of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from seremo_jax.data.level import Hearing
from seremo_jax.predict import export


def static_of(about: dict[str, Any]) -> tuple[Any, str, str]:
    """First three arguments of `judge` for a model: sizes of its heads, dtype of its store, how members are mapped."""
    return about["head"], about["backbone"]["stored_dtype"], "map" if jax.default_backend() == "cpu" else "vmap"


def hearing_of(about: dict[str, Any]) -> Hearing:
    """At which level a model hears speech. Models of earlier versions heard everything as it was recorded."""
    return Hearing(about["backbone"].get("level", "none"), about["backbone"].get("level_dbfs", 0.0))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def hear(
    sizes: Any, dtype: str, member_map: str, backbone: Any, heads: Any, waveforms: Any, num_samples: Any, speakers: Any
) -> Any:
    """Waveforms [B, S] of [B] samples -> attributes, distribution, embedding, each [E, B, ...]; see `judge`."""
    hidden, num_frames = backbone(waveforms, num_samples)
    return _outputs(sizes, dtype, member_map, heads, hidden, num_frames, speakers)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def judge(
    sizes: Any, dtype: str, member_map: str, heads: Any, hidden: Any, num_frames: Any, speakers: Any = None
) -> Any:
    """Frames [K, B, T, D] of some utterances -> attributes, distribution, embedding, each [E, B, ...].

    Args:
      sizes: Sizes of the heads.
      dtype: That of the store they were trained on.
      member_map: See `export.apply`.
      heads: The heads.
      hidden: Frames of the layers that the model reads, anything beyond each length.
      num_frames: [B] valid frames.
      speakers: `export.Speakers` of the utterances, where the heads are relative to speakers.
    """
    return _outputs(sizes, dtype, member_map, heads, hidden, num_frames, speakers)


def _outputs(sizes: Any, dtype: str, member_map: str, heads: Any, hidden: Any, num_frames: Any, speakers: Any) -> Any:
    # Rounded as in the store: those are the numbers that the head was trained on.
    out = export.apply(sizes, heads, hidden.astype(jnp.dtype(dtype)), num_frames, member_map, speakers)
    return out.attributes, out.distribution, out.embedding


@jax.jit
def frames(backbone: Any, waveforms: Any, num_samples: Any) -> Any:
    """Frames [K, B, T, D] of waveforms [B, S] of [B] samples, and how many each has."""
    return backbone(waveforms, num_samples)

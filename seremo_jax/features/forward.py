"""The compiled pass: batches of audio through the backbone, over the devices of this process, fetched one behind."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seremo_jax import backbones
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.mesh import by_utterance, replicated, spread
from seremo_jax.data import audio, audio_batches
from seremo_jax.features import normalisation
from seremo_jax.features.manifest import DTYPES
from seremo_jax.saliency import correlation


class Outputs(NamedTuple):
    """What a batch leaves on the host.

    Attributes:
      means: [K, B, D] mean of each feature over an utterance's frames; without rows where layers are ranked already.
      frames: [K', B, T, D] frames of the layers to store.
      num_frames: [B] frames of each utterance.
      peak: [K, B] largest absolute value.
    """

    means: Any
    frames: Any
    num_frames: Any
    peak: Any


def load_backbone(config: Config, layers: Sequence[int] | None = None) -> backbones.Backbone:
    """The backbone of the config, returning `layers` (None: all); long audio in windows.

    Raises:
      ConfigError: There is none such, it cannot be used, or it wants another sampling rate.
    """
    section = config.backbone
    dtype = section.dtype
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    try:
        backbone = backbones.load(section.name, layers, dtype, final_norm=section.final_norm, window=section.window)
        backbone = backbones.windowed(backbone, section.window_seconds, section.overlap_seconds)
    except ValueError as error:
        raise ConfigError(f"backbone.name = {section.name!r}: {error}") from error
    if backbone.sample_rate_hz != audio.SAMPLE_RATE_HZ:
        raise ConfigError(
            f"backbone.name = {section.name!r} hears {backbone.sample_rate_hz} Hz, audio is decoded to "
            f"{audio.SAMPLE_RATE_HZ} Hz"
        )
    return backbone


def stream(
    backbone: backbones.Backbone,
    batches: Iterator[audio_batches.Batch],
    is_counted: Any,
    layers: Sequence[int],
    dtype: str,
    has_ranked: bool,
    mesh: Mesh | None = None,
    shards_params: bool = False,
) -> Iterator[tuple[audio_batches.Batch, Outputs, normalisation.State]]:
    """Outputs batch by batch, each fetched after the next is dispatched: the device never waits for the host.

    Args:
      backbone: What hears the batches.
      batches: Audio; closed at the end.
      is_counted: [N] bool by row of the table, utterances whose frames count for the moments.
      layers: Layers whose frames are wanted.
      dtype: Of these frames.
      has_ranked: Leaves out the means.
      mesh: Devices that share each batch; None means the default device.
      shards_params: Spreads the weights over the mesh, too; each device gathers what it needs block by block.

    Yields:
      Batch, outputs, and the frame moments of the utterances counted.
    """
    compiled = functools.partial(_compiled, tuple(layers), dtype, has_ranked)
    place = jnp.asarray
    if mesh is not None:
        backbone = spread(mesh, backbone) if shards_params else jax.device_put(backbone, replicated(mesh))
        place = functools.partial(jax.device_put, device=by_utterance(mesh))
    running = None
    try:
        for batch in batches:
            counted = np.zeros(len(batch.num_samples), bool)
            counted[: len(batch.rows)] = is_counted[list(batch.rows)]
            dispatched = compiled(backbone, *map(place, (batch.waveforms, batch.num_samples, counted)))
            if running is not None:
                yield running[0], *jax.device_get(running[1])
            running = batch, dispatched
        if running is not None:
            yield running[0], *jax.device_get(running[1])
    finally:
        batches.close()


def frames_of(
    batch: audio_batches.Batch, output: Outputs, backbone: backbones.Backbone, layers: Sequence[int], dtype: str,
    recordings: audio_batches.Recordings,
) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """Row and frames [K', T, D] of each utterance of a batch, after a look at what the backbone gave.

    Raises:
      ArtefactError: Numbers that are not finite, or too large for `dtype`.
    """
    slots = [backbone.layers.index(layer) for layer in layers]
    for slot, row in enumerate(batch.rows):
        utterance, peak = recordings.ids[row], output.peak[:, slot]
        if not np.isfinite(peak).all():
            raise ArtefactError(
                f"backbone {backbone.name!r} gives numbers that are not finite for utterance {utterance!r} "
                f"({recordings.paths[row]}): try --config.backbone.dtype=float32"
            )
        if (peak[slots] > np.finfo(DTYPES[dtype]).max).any():
            raise ArtefactError(
                f"utterance {utterance!r} has features up to {peak[slots].max():.4g}, too large for extract.dtype "
                f"= {dtype!r}: set --config.extract.dtype=float32"
            )
        yield row, output.frames[:, slot, : output.num_frames[slot]]


def one_batch(
    layers: tuple[int, ...],
    dtype: str,
    has_ranked: bool,
    backbone: backbones.Backbone,
    waveforms: jax.Array,
    num_samples: jax.Array,
    is_counted: jax.Array,
) -> tuple[Outputs, normalisation.State]:
    """The compiled part: waveforms [B, S] -> outputs, and the frame moments of the utterances counted."""
    hidden, num_frames = backbone(waveforms, num_samples)
    means = hidden[:0, :, 0] if has_ranked else correlation.mean_over_frames(hidden, num_frames)
    peak = jax.lax.map(lambda frames: jnp.abs(frames.astype(jnp.float32)).max(axis=(1, 2)), hidden)
    slots = [backbone.layers.index(layer) for layer in layers]
    frames = (hidden if slots == list(range(len(hidden))) else hidden[np.array(slots, int)]).astype(dtype)
    # Of the numbers as stored: those are what the head sees.
    norm = normalisation.update(normalisation.empty(len(slots), hidden.shape[3]), frames, num_frames, is_counted)
    return Outputs(means, frames, num_frames, peak), norm


_compiled = jax.jit(one_batch, static_argnums=(0, 1, 2))

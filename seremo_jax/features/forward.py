"""The compiled pass: batches of audio through the backbone, over the devices of this process.

Accelerators share every batch. The cores of a processor each take whole batches, as they gain nothing by waiting for
one another: on 2 cores that is a third faster than to share each batch, with Whisper base.

There is one path from recordings to frames. Extraction takes it shard by shard, and evaluation in conditions takes it
block by block.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from seremo_jax import backbones
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.config_fields import ExtractConfig
from seremo_jax.core.goodput import Clock
from seremo_jax.core.sharding import by_utterance, replicated, shardings
from seremo_jax.data import audio, audio_batches
from seremo_jax.data.level import Hearing
from seremo_jax.features.manifest import DTYPES
from seremo_jax.saliency import correlation

PHASES = ("audio", "forward", "fetch", "sums", "store")
"""Where the time of the thread that drives a pass goes; see `core.goodput`.

It waits for decoded audio, and for the program with everything between waveforms and means in it. It copies outputs,
adds up, and writes. Threads that decode, and devices that compute while it does something else, are not counted.
"""
CPU_BATCH_SECONDS, BATCH_SECONDS = 10.0, 160.0
"""Audio in a batch for each device that shares it, where `extract.batch_seconds` is `auto`: on a processor, and on
accelerators.

Behind 10 s of audio a core finds the states of a block in its caches; larger batches are up to a fifth slower.
"""


class Outputs(NamedTuple):
    """Outputs of a batch.

    Attributes:
      means: [K, B, D] mean of each feature over the frames of an utterance, for every layer of the backbone; K is 0
        where means are not wanted.
      frames: [K', B, T, D] frames of the layers wanted.
      num_frames: [B] number of frames of each utterance.
      peak: [K, B] largest absolute value in the frames of an utterance, for every layer of the backbone.
    """

    means: Any
    frames: Any
    num_frames: Any
    peak: Any


def load_backbone(
    config: Config, layers: Sequence[int] | None = None, outlined_for: str | None = None
) -> backbones.Backbone:
    """The backbone of the config, which hears long audio in windows.

    Args:
      config: The experiment.
      layers: Layers that it gives; None means all. It computes none above the highest of them.
      outlined_for: Platform to compile for: shapes stand in place of weights. None reads weights, for these devices.

    Raises:
      ConfigError: The backbone does not exist, cannot be used, or hears another sampling rate.
    """
    section = config.backbone
    dtype = section.dtype
    # bfloat16 is what accelerators are fast at. Processors emulate it.
    if dtype == "auto":
        dtype = "float32" if (outlined_for or jax.default_backend()) == "cpu" else "bfloat16"
    load = backbones.load if outlined_for is None else backbones.outline
    try:
        backbone = load(section.name, layers, dtype, final_norm=section.final_norm, window=section.window)
        backbone = backbones.windowed(backbone, section.window_seconds, section.overlap_seconds)
    except ValueError as error:
        raise ConfigError(f"backbone.name = {section.name!r}: {error}") from error
    if backbone.sample_rate_hz != audio.SAMPLE_RATE_HZ:
        raise ConfigError(
            f"backbone.name = {section.name!r} hears {backbone.sample_rate_hz} Hz, audio is decoded to "
            f"{audio.SAMPLE_RATE_HZ} Hz"
        )
    return backbone


def plan_batches(
    extract: ExtractConfig,
    groups: Sequence[Sequence[int]],
    num_samples: Int[np.ndarray, " N"],
    least_samples: int = 0,
    num_devices: int = 1,
    is_cpu: bool = False,
) -> list[list[audio_batches.Planned]]:
    """Batches of each group of utterances, as the settings of an extraction ask for; see `audio_batches.plan`.

    Args:
      extract: Numbers of buckets and seconds of a batch.
      groups: Rows of each group: a shard of the store, or a block that is held in memory.
      num_samples: Samples of each row of the table.
      least_samples: Samples that a shorter utterance costs at least (`Backbone.least_samples`).
      num_devices: Devices that share each batch.
      is_cpu: Whether they are those of a processor.
    """
    lengths = num_samples[np.concatenate([np.asarray(group, np.int64) for group in groups])]
    # Many buckets pad little, few buckets compile fast. The plan tries every number up to the one that is allowed.
    bucketings = [backbones.bucket_lengths(lengths, n + 1) for n in range(extract.num_buckets)]
    seconds = extract.batch_seconds
    if isinstance(seconds, str):
        seconds = num_devices * (CPU_BATCH_SECONDS if is_cpu else BATCH_SECONDS)
    batch_samples = int(seconds * audio.SAMPLE_RATE_HZ)
    return audio_batches.plan(groups, num_samples, bucketings, batch_samples, least_samples, num_devices)


@dataclasses.dataclass(frozen=True)
class BackbonePass:
    """The way of audio through a backbone: which outputs are kept, and which devices share the work.

    Attributes:
      config: The experiment, whose sections `extract` and `backbone` are read.
      backbone: The backbone.
      layers: Layers whose frames are wanted.
      keeps_means: Whether means over frames of every layer are wanted, too.
      mesh: Devices that share the work; None means the default device. Of a processor it says how many threads hear a
        batch each, unless weights are spread over its devices.
    """

    config: Config
    backbone: backbones.Backbone
    layers: tuple[int, ...]
    keeps_means: bool
    mesh: Mesh | None = None

    def plan(
        self, groups: Sequence[Sequence[int]], num_samples: Int[np.ndarray, " N"]
    ) -> list[list[audio_batches.Planned]]:
        """Batches of each group of utterances; see `plan_batches`."""
        num_devices = 1 if self._num_threads > 1 else len(self._devices)
        is_cpu, least = self._devices[0].platform == "cpu", self.backbone.least_samples
        return plan_batches(self.config.extract, groups, num_samples, least, num_devices, is_cpu)

    @property
    def _devices(self) -> list[Any]:
        """Those of the mesh, which may be of another kind than those that are here; see `lower`."""
        return jax.devices()[:1] if self.mesh is None else list(self.mesh.devices.ravel())

    @property
    def _num_threads(self) -> int:
        """Threads that hear a batch each."""
        is_cpu = self._devices[0].platform == "cpu"
        return len(self._devices) if is_cpu and not self.config.backbone.shards_params else 1

    def stream(
        self,
        planned: Sequence[audio_batches.Planned],
        recordings: audio_batches.Recordings,
        clock: Clock | None = None,
    ) -> Iterator[tuple[audio_batches.Batch, Outputs]]:
        """Batches with their outputs, on the host.

        Args:
          planned: The batches.
          recordings: The audio.
          clock: Counts its time among `PHASES`.
        """
        phase = _untimed if clock is None else clock.phase
        section = self.config.backbone
        hearing = Hearing(section.level, section.level_dbfs)
        batches = audio_batches.stream(planned, recordings, self.config.extract.num_threads, hearing)
        # Outputs are fetched late: a device computes the next batch while the host copies these. Threads have one batch
        # each and another one that waits for them.
        running: deque[tuple[audio_batches.Batch, Callable[[], Outputs]]] = deque()
        most_running = 2 * self._num_threads - 1
        try:
            with self._begun() as begin:
                while True:
                    with phase("audio"):
                        batch = next(batches, None)
                    if batch is not None:
                        with phase("forward"):
                            running.append((batch, begin(batch.waveforms, batch.num_samples)))
                    while running and (batch is None or len(running) > most_running):
                        heard, result = running.popleft()
                        with phase("forward"):
                            outputs = result()
                        with phase("fetch"):
                            outputs = jax.device_get(outputs)
                        yield heard, outputs
                    if batch is None:
                        return
        finally:
            batches.close()

    @contextlib.contextmanager
    def _begun(self) -> Iterator[Callable[[np.ndarray, np.ndarray], Callable[[], Outputs]]]:
        """Yields what begins to compute a batch, and gives what waits for its outputs."""
        compiled = functools.partial(_compiled, self.layers, self.config.extract.dtype, self.keeps_means)
        backbone, place = self.backbone, jnp.asarray
        if self._num_threads > 1:
            # One device for all threads, so that there is one program to compile.
            backbone = jax.device_put(backbone, self._devices[0])
            place = functools.partial(jax.device_put, device=self._devices[0])
        elif self.mesh is not None:
            backbone = jax.device_put(backbone, self._shardings())
            place = functools.partial(jax.device_put, device=by_utterance(self.mesh))

        def call(waveforms: np.ndarray, num_samples: np.ndarray) -> Outputs:
            return compiled(backbone, place(waveforms), place(num_samples))

        if self._num_threads == 1:
            yield lambda *arrays: functools.partial(jax.block_until_ready, call(*arrays))
            return
        pool = concurrent.futures.ThreadPoolExecutor(self._num_threads, "forward")
        try:
            yield lambda *arrays: pool.submit(lambda: jax.block_until_ready(call(*arrays))).result
        finally:
            pool.shutdown(cancel_futures=True)

    def _shardings(self) -> Any:
        """How the weights lie on the mesh: whole on every device, or spread, and gathered when a block needs them."""
        if self.config.backbone.shards_params:
            return shardings(self.mesh, self.backbone)
        return jax.tree.map(lambda _: replicated(self.mesh), self.backbone)

    def lower(self, num_slots: int, num_samples: int) -> jax.stages.Lowered:
        """The program of `stream` for batches [num_slots, num_samples], to be compiled for the devices of the mesh.

        Nothing is placed or run, so the devices may be those of a topology that is not here, and the backbone an
        outline.
        """
        where = by_utterance(self.mesh)
        weights = jax.tree.map(
            lambda array, lies: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=lies),
            self.backbone, self._shardings(),
        )  # fmt: skip
        waveforms = jax.ShapeDtypeStruct((num_slots, num_samples), np.float32, sharding=where)
        counts = jax.ShapeDtypeStruct((num_slots,), np.int32, sharding=where)
        return _compiled.lower(self.layers, self.config.extract.dtype, self.keeps_means, weights, waveforms, counts)

    def frames(
        self, batch: audio_batches.Batch, output: Outputs, recordings: audio_batches.Recordings
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Row and frames [K', T, D] of each utterance of a batch, checked for numbers that cannot be stored.

        Raises:
          ArtefactError: Numbers are not finite, or too large for `extract.dtype`.
        """
        slots, dtype = [self.backbone.layers.index(layer) for layer in self.layers], self.config.extract.dtype
        for slot, row in enumerate(batch.rows):
            utterance, peak = recordings.ids[row], output.peak[:, slot]
            if not np.isfinite(peak).all():
                raise ArtefactError(
                    f"backbone {self.backbone.name!r} gives numbers that are not finite for utterance {utterance!r} "
                    f"({recordings.paths[row]}): try --config.backbone.dtype=float32"
                )
            if (peak[slots] > np.finfo(DTYPES[dtype]).max).any():
                raise ArtefactError(
                    f"utterance {utterance!r} has features up to {peak[slots].max():.4g}, too large for extract.dtype "
                    f"= {dtype!r}: set --config.extract.dtype=float32"
                )
            yield row, output.frames[:, slot, : output.num_frames[slot]]


def _untimed(_: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def one_batch(
    layers: tuple[int, ...],
    dtype: str,
    keeps_means: bool,
    backbone: backbones.Backbone,
    waveforms: jax.Array,
    num_samples: jax.Array,
) -> Outputs:
    """The compiled part: waveforms [B, S] -> outputs."""
    hidden, num_frames = backbone(waveforms, num_samples)
    # An array of no layers stands for means that nobody asked for, so that the program has one kind of output.
    means = correlation.mean_over_frames(hidden, num_frames) if keeps_means else hidden[:0, :, 0]
    # Layer by layer, so that the float32 copy is that of one layer. One number a layer and utterance goes to the host,
    # which is all that it needs to refuse what cannot be stored.
    peak = jax.lax.map(lambda frames: jnp.abs(frames.astype(jnp.float32)).max(axis=(1, 2)), hidden)
    slots = [backbone.layers.index(layer) for layer in layers]
    # Rounded here to the dtype of the store, so that half as many bytes go to the host; all layers need no gather.
    frames = (hidden if slots == list(range(len(hidden))) else hidden[np.array(slots, int)]).astype(dtype)
    return Outputs(means, frames, num_frames, peak)


_compiled = jax.jit(one_batch, static_argnums=(0, 1, 2))

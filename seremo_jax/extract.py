"""One pass over the audio: the backbone, saliency sums of every layer, the chosen layers to the store.

Where the layers to store are known beforehand (`extract.layers` is `all` or a list, or `model.layer` is a number) one
pass does it all. With `saliency` a first pass over the drawn training utterances stores nothing but sums, and a second
one stores the layer of largest saliency, computing no layer above it.
"""

import dataclasses
import functools
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seremo_jax import audio, audio_batches, backbones, feature_norm, ranking, saliency, store, vocab
from seremo_jax.artefacts import ArtefactError
from seremo_jax.config import Config, ConfigError
from seremo_jax.ingest import audio_root
from seremo_jax.manifest import DTYPES, MANIFEST_FILE, Settings
from seremo_jax.progress import Progress
from seremo_jax.tables import read_tables

STORE_FOLDER, RANKING_FOLDER = "store", "ranking"


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> Path:
    """Writes `WORKDIR/store/`, `saliency.npz` and `saliency.json`; continues or skips what is there already.

    Args:
      config: The experiment.
      workdir: Its folder, with the tables of `ingest`.
      is_quiet: Shows no progress.

    Returns:
      The folder of the store.

    Raises:
      ArtefactError: The folder holds artefacts of other settings, audio is not what ingest saw, a backbone's output
        is not finite, or the disk is full.
      ConfigError: The backbone or a layer of it does not exist, or the corpus lacks the targets asked for.
    """
    workdir = Path(workdir)
    utterances, ratings, fingerprint = read_tables(workdir)
    question = ranking.ask(config, utterances, ratings, fingerprint)
    recordings = audio_batches.Recordings.of(utterances, audio_root(config, workdir))
    is_train = np.array(utterances["split"].to_pylist()) == vocab.TRAIN
    job = _Job(config, workdir, recordings, is_train, question, load_backbone(config), fingerprint, is_quiet)
    layers, path = _known_layers(config, job.backbone), workdir / STORE_FOLDER
    has_sums, has_store = (workdir / ranking.SUMS_FILE).exists(), (path / MANIFEST_FILE).exists()
    if has_sums and (layers is None or has_store):
        ranking.require(workdir, question, job.backbone_about)
    elif layers is None or has_store:
        job.rank()
    shutil.rmtree(workdir / RANKING_FOLDER, ignore_errors=True)
    if layers is None:
        layers = (ranking.summarise(workdir, config)["chosen"],)
        job = dataclasses.replace(job, backbone=load_backbone(config, layers), has_ranked=True)
    if has_store:
        job.require_store(layers)
    else:
        job.fill_store(layers)
    summary = ranking.summarise(workdir, config)
    warnings = list(summary["warnings"])
    if config.model.layer == "saliency" and not config.ensemble.layers and summary["chosen"] not in layers:
        warnings.append(f"layer {summary['chosen']} was chosen, but extract.layers leaves it out of the store")
    if not is_quiet:
        print(f"{path}: layers {', '.join(map(str, layers))}; saliency is largest in layer {summary['chosen']}")
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return path


def load_backbone(config: Config, layers: Sequence[int] | None = None) -> backbones.Backbone:
    """The backbone of the config, returning `layers` (None: all).

    Raises:
      ConfigError: There is none such, or it wants another sampling rate.
    """
    try:
        backbone = backbones.load(config.backbone.name, layers, config.backbone.dtype)
    except ValueError as error:
        raise ConfigError(f"backbone.name = {config.backbone.name!r}: {error}") from error
    if backbone.sample_rate_hz != audio.SAMPLE_RATE_HZ:
        raise ConfigError(
            f"backbone.name = {config.backbone.name!r} hears {backbone.sample_rate_hz} Hz, audio is decoded to "
            f"{audio.SAMPLE_RATE_HZ} Hz"
        )
    return backbone


def _known_layers(config: Config, backbone: backbones.Backbone) -> tuple[int, ...] | None:
    """Layers to store, ascending, or None where saliency is to choose."""
    if config.extract.layers == "all":
        return tuple(range(backbone.num_layers))
    name, layers = "extract.layers", config.extract.layers
    if layers == "saliency":
        if config.model.layer == "saliency":
            return None
        name, layers = "model.layer", (config.model.layer,)
    try:
        return tuple(sorted(backbones.pick_layers(layers, backbone.num_layers)))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


class _Outputs(NamedTuple):
    """What a batch leaves on the host: means [K, B, D], frames [K', B, T, D] stored, num_frames [B], peak [K, B]."""

    means: Any
    frames: Any
    num_frames: Any
    peak: Any


@dataclasses.dataclass(frozen=True)
class _Job:
    """An extraction: what is heard, by which backbone, and where the results go."""

    config: Config
    workdir: Path
    recordings: audio_batches.Recordings
    is_train: np.ndarray
    question: ranking.Question
    backbone: backbones.Backbone
    fingerprint: str
    is_quiet: bool
    has_ranked: bool = False

    @property
    def backbone_about(self) -> dict[str, Any]:
        """What saliency sums of every layer are made with."""
        b = self.backbone
        about = {"name": b.name, "revision": b.revision, "dtype": self.config.backbone.dtype}
        return {**about, "final_norm": b.final_norm, "layers": list(range(b.num_layers))}

    def rank(self) -> None:
        """Saliency sums of every layer over the drawn utterances, nothing stored: writes `saliency.npz`."""
        folder, ids = self.workdir / RANKING_FOLDER, [self.recordings.ids[row] for row in self.question.rows]
        writer = store.Writer(folder, ids, self._settings(()), self.question.about)
        self._pass(writer, self.question.rows, "rank layers")
        ranking.write(self.workdir, _merged_saliency(writer), self.question, self.backbone_about)

    def fill_store(self, layers: tuple[int, ...]) -> None:
        """Stores layers of every utterance; with the saliency sums too unless `has_ranked`."""
        sums_of = {} if self.has_ranked else self.question.about
        writer = store.Writer(
            self.workdir / STORE_FOLDER, list(self.recordings.ids), self._settings(layers), {"saliency": sums_of}
        )
        self._pass(writer, np.arange(len(self.recordings.ids)), "extract")
        if not self.has_ranked:
            ranking.write(self.workdir, _merged_saliency(writer), self.question, self.backbone_about)
        states = (feature_norm.State(**_part_of(writer.sums(s), "norm")) for s in range(len(writer.shards)))
        norm = functools.reduce(_merge_norms, states)
        mean, sd = feature_norm.compute(norm)
        writer.finalise(norm={"layers": np.array(layers), "num_frames": norm.count, "mean": mean, "sd": sd})

    def require_store(self, layers: tuple[int, ...]) -> None:
        """Refuses the finished store if it was made from other settings; more layers than asked for are fine."""
        reader, expected = store.Reader(self.workdir / STORE_FOLDER), self._settings(layers).to_dict()
        if set(layers) <= set(reader.layers):
            del expected["layers"]
        reader.require(**expected)
        store.sweep(reader.path)

    def _settings(self, layers: tuple[int, ...]) -> Settings:
        extract, b = self.config.extract, self.backbone
        fields = self.config.results_fields("backbone", "extract")
        for name in ("backbone.name", "extract.layers", "extract.dtype", "extract.shard_utterances"):
            del fields[name]
        return Settings(
            tables_fingerprint=self.fingerprint,
            backbone=b.name,
            backbone_revision=b.revision,
            final_norm=b.final_norm,
            layers=layers,
            num_features=b.num_features,
            frame_rate_hz=b.frame_rate_hz,
            dtype=extract.dtype,
            condition=vocab.CLEAN,
            shard_utterances=extract.shard_utterances,
            config=fields,
        )

    def _pass(self, writer: store.Writer, rows: np.ndarray, label: str) -> None:
        """Every shard that is not finished: position p of the writer is row `rows[p]` of the table."""
        extract, num_samples = self.config.extract, self.recordings.num_samples
        shards = [rows[shard.start : shard.stop].tolist() for shard in writer.shards]
        bucketings = [backbones.bucket_lengths(num_samples[rows], n + 1) for n in range(extract.num_buckets)]
        batch_samples = int(extract.batch_seconds * audio.SAMPLE_RATE_HZ)
        planned = audio_batches.plan(shards, num_samples, bucketings, batch_samples)
        todo = [shard for shard in range(len(shards)) if not writer.is_finished(shard)]
        done = len(rows) - sum(len(shards[shard]) for shard in todo)
        outputs = self._forward([batch for shard in todo for batch in planned[shard]], writer.settings.layers)
        began_s, heard_s = time.monotonic(), 0.0
        try:
            with Progress(len(rows), label, "utterances", done=done, is_quiet=self.is_quiet) as progress:
                for shard in todo:
                    with writer.shard(shard) as writing:
                        sums = _Sums(self, shards[shard], len(writer.settings.layers))
                        for _ in planned[shard]:
                            batch, output, norm = next(outputs)
                            self._add(writing, writer.settings.layers, batch, output)
                            sums.add(batch, output, norm)
                            heard_s += float(batch.num_samples.sum()) / audio.SAMPLE_RATE_HZ
                            speed = heard_s / (time.monotonic() - began_s)
                            progress.update(
                                len(batch.rows), f"{heard_s / 3600:.2f} h of audio, {speed:.0f} x real time"
                            )
                        writing.sums = sums.arrays()
        finally:
            outputs.close()

    def _forward(
        self, planned: Sequence[audio_batches.Planned], layers: Sequence[int]
    ) -> Iterator[tuple[audio_batches.Batch, _Outputs, feature_norm.State]]:
        """Outputs batch by batch, each fetched after the next is dispatched: the device never waits for the host."""
        one_batch = jax.jit(
            functools.partial(_one_batch, self.backbone, layers, self.config.extract.dtype, self.has_ranked)
        )
        batches = audio_batches.stream(planned, self.recordings, self.config.extract.num_threads)
        running = None
        try:
            for batch in batches:
                is_counted = np.zeros(len(batch.num_samples), bool)
                is_counted[: len(batch.rows)] = self.is_train[list(batch.rows)]
                dispatched = one_batch(batch.waveforms, batch.num_samples, is_counted)
                if running is not None:
                    yield running[0], *jax.device_get(running[1])
                running = batch, dispatched
            if running is not None:
                yield running[0], *jax.device_get(running[1])
        finally:
            batches.close()

    def _add(self, writing: Any, layers: Sequence[int], batch: audio_batches.Batch, output: _Outputs) -> None:
        """Hands each utterance's stored frames to the shard, after a look at what the backbone gave."""
        dtype, slots = self.config.extract.dtype, [self.backbone.layers.index(layer) for layer in layers]
        for slot, row in enumerate(batch.rows):
            utterance, peak = self.recordings.ids[row], output.peak[:, slot]
            if not np.isfinite(peak).all():
                raise ArtefactError(
                    f"backbone {self.backbone.name!r} gives numbers that are not finite for utterance {utterance!r} "
                    f"({self.recordings.paths[row]}): try --config.backbone.dtype=float32"
                )
            if (peak[slots] > np.finfo(DTYPES[dtype]).max).any():
                raise ArtefactError(
                    f"utterance {utterance!r} has features up to {peak[slots].max():.4g}, too large for extract.dtype "
                    f"= {dtype!r}: set --config.extract.dtype=float32"
                )
            writing.add(utterance, output.frames[:, slot, : output.num_frames[slot]])


def _one_batch(
    backbone: backbones.Backbone,
    layers: Sequence[int],
    dtype: str,
    has_ranked: bool,
    waveforms: jax.Array,
    num_samples: jax.Array,
    is_counted: jax.Array,
) -> tuple[_Outputs, feature_norm.State]:
    """The compiled part: waveforms [B, S] -> outputs, and the frame moments of the utterances counted."""
    hidden, num_frames = backbone(waveforms, num_samples)
    means = hidden[:0, :, 0] if has_ranked else saliency.mean_over_frames(hidden, num_frames)
    peak = jax.lax.map(lambda frames: jnp.abs(frames.astype(jnp.float32)).max(axis=(1, 2)), hidden)
    slots = [backbone.layers.index(layer) for layer in layers]
    frames = (hidden if slots == list(range(len(hidden))) else hidden[np.array(slots, int)]).astype(dtype)
    # Of the numbers as stored: those are what the head sees.
    norm = feature_norm.update(feature_norm.empty(len(slots), hidden.shape[3]), frames, num_frames, is_counted)
    return _Outputs(means, frames, num_frames, peak), norm


class _Sums:
    """Sums of one shard, a function of its utterances alone."""

    def __init__(self, job: _Job, rows: Sequence[int], num_stored: int):
        self._question, self._size = job.question, job.config.extract.shard_utterances
        self._place = {row: place for place, row in enumerate(rows)}
        shape = (0 if job.has_ranked else job.backbone.num_layers, self._size, job.backbone.num_features)
        self._means = np.zeros(shape, np.float32)
        self._norm = feature_norm.empty(num_stored, job.backbone.num_features)

    def add(self, batch: audio_batches.Batch, output: _Outputs, norm: feature_norm.State) -> None:
        """Adds a batch."""
        places = [self._place[row] for row in batch.rows]
        self._means[:, places] = output.means[:, : len(places)]
        self._norm = _merge_norms(self._norm, norm)

    def arrays(self) -> dict[str, np.ndarray]:
        """The sums, for the shard to keep."""
        arrays = {f"norm.{name}": np.asarray(value) for name, value in self._norm._asdict().items()}
        if len(self._means):
            rows = list(self._place)
            values, mask = (np.zeros((self._size, self._question.values.shape[1]), kind) for kind in (np.float32, bool))
            values[: len(rows)], mask[: len(rows)] = self._question.values[rows], self._question.mask[rows]
            state = _saliency_of(self._means, values, mask)
            arrays |= {f"saliency.{name}": value for name, value in saliency.to_arrays(state).items()}
        return arrays


_merge_norms, _merge_saliency = jax.jit(feature_norm.merge), jax.jit(saliency.merge)


@jax.jit
def _saliency_of(means: jax.Array, values: jax.Array, mask: jax.Array) -> saliency.State:
    empty = saliency.empty(means.shape[0], means.shape[2], values.shape[1])
    return saliency.update(empty, means, values, mask)


def _merged_saliency(writer: store.Writer) -> saliency.State:
    """Sums of all shards, merged in their order, so that an interruption changes no bit."""
    parts = (_part_of(writer.sums(shard), "saliency") for shard in range(len(writer.shards)))
    return functools.reduce(_merge_saliency, (saliency.from_arrays(part) for part in parts))


def _part_of(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{prefix}."): array for name, array in arrays.items() if name.startswith(f"{prefix}.")}

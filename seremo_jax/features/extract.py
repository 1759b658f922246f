"""Extraction: audio through the backbone, saliency sums of every layer, frames of the chosen layers to the store.

Where the layers to store are known beforehand (`extract.layers` is `all` or a list, or `model.layer` is a number), one
pass over the audio does all of it. Where saliency chooses the layer, a first pass over the drawn training utterances
keeps sums only. A second pass stores the layer of largest saliency and computes no layer above it. With
`ensemble.folds`, the same means answer for each fold, from its training speakers, and what any fold chose is stored.
Copies of training utterances in noise and rooms are heard in a last pass, each at the cost of the clean utterance.
"""

import dataclasses
import os
import sys
from pathlib import PurePath
from typing import Any

import numpy as np
from jax.sharding import Mesh

from seremo_jax import backbones
from seremo_jax.core import vocab
from seremo_jax.core.artefacts import place_of, remove_leftovers, remove_tree, require_same
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.ensemble import needs_chosen_layer
from seremo_jax.core.lock import at_work
from seremo_jax.core.sharding import is_first_process, wait_for_all
from seremo_jax.data import audio_batches
from seremo_jax.data.roots import audio_root
from seremo_jax.data.tables import in_split, read_for
from seremo_jax.features import copies, normalisation, store
from seremo_jax.features.forward import load_backbone
from seremo_jax.features.into_shards import IntoShards
from seremo_jax.features.manifest import MANIFEST_FILE, OF_COPIES, REMEDY, Settings, identity
from seremo_jax.features.sums import DBFS
from seremo_jax.saliency import curves as layer_curves
from seremo_jax.saliency import ranking
from seremo_jax.saliency.question import Question, ask_all

STORE_FOLDER, RANKING_FOLDER = "store", "ranking"


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False, mesh: Mesh | None = None) -> PurePath:
    """Writes `WORKDIR/store/`, `saliency.npz` and `saliency.json`. It goes on from a part, and skips what is finished.

    Args:
      config: The experiment.
      workdir: Its folder, with the tables of `ingest`.
      is_quiet: Shows no progress.
      mesh: Devices of this process that share every batch; None means the first device. Where JAX runs on several
        processes (`jax.distributed`), each process writes its own shards, and the first one writes the manifest.

    Returns:
      The folder of the store.

    Raises:
      ArtefactError: The folder holds artefacts of other settings, another process is at work there, audio is not what
        ingest saw, a backbone's output is not finite, or the disk is full.
      ConfigError: The backbone or a layer of it does not exist, or the corpus lacks the targets asked for.
    """
    workdir, is_quiet = place_of(workdir), is_quiet or not is_first_process()
    with at_work(workdir, "extract", is_first_process()):
        return _run(config, workdir, is_quiet, mesh)


def _run(config: Config, workdir: PurePath, is_quiet: bool, mesh: Mesh | None) -> PurePath:
    if is_first_process():
        remove_leftovers(workdir, "saliency*.npz.*")
        for folder in (STORE_FOLDER, copies.FOLDER):
            remove_leftovers(workdir / folder)
    utterances, ratings, fingerprint = read_for(config, workdir)
    questions = tuple(ask_all(config, utterances, ratings, fingerprint))
    recordings = audio_batches.Recordings.of(utterances, audio_root(config, workdir))
    is_train = in_split(utterances, vocab.TRAIN)
    # Drawn before the first pass begins, since what cannot be rendered must not be told after hours.
    heard = copies.Plan.of(config, recordings, utterances) if config.extract.conditions else None
    job = _Job(
        config=config,
        workdir=workdir,
        recordings=recordings,
        is_train=is_train,
        questions=questions,
        backbone=load_backbone(config),
        fingerprint=fingerprint,
        is_quiet=is_quiet,
        mesh=mesh,
    )
    layers, path = known_layers(config, job.backbone), workdir / STORE_FOLDER
    answered = [asked for asked in questions if (workdir / ranking.sums_file(asked.split_fold)).exists()]
    has_store = (path / MANIFEST_FILE).exists()
    # The sums of every layer are needed to choose a layer, and to explain the choice beside a store. A pass that stores
    # gathers them on the way. One that only chooses, or that makes up for a lost file, gathers nothing else.
    if layers is None or has_store:
        for question in answered:
            ranking.require(workdir, question, job.backbone_about)
        if len(answered) < len(questions):
            job.rank()
    if is_first_process():
        remove_tree(workdir / RANKING_FOLDER)
    if layers is None:
        layers = ranking.chosen_layers(ranking.summarise(workdir, config))
        # Loaded again: this one computes nothing above the highest layer that was chosen.
        job = dataclasses.replace(job, backbone=load_backbone(config, layers), has_ranked=True)
    if has_store:
        job.require_store(layers)
    else:
        job.fill_store(layers)
    if heard is not None:
        job.add_copies(heard, layers)
    summary = ranking.summarise(workdir, config)
    warnings = list(summary["warnings"])
    for chosen in ranking.chosen_layers(summary) if needs_chosen_layer(config) else ():
        if chosen not in layers:
            warnings.append(f"layer {chosen} was chosen, but extract.layers leaves it out of the store")
    if not is_quiet:
        listed, state = ", ".join(map(str, layers)), "up to date, " if has_store else ""
        print(f"{path}: {state}layers {listed}; {summary['kind']} is largest in layer {summary['chosen']}")
        for entry in summary.get("folds", ()):
            print(f"  fold {entry['fold']}: largest in layer {entry['chosen']}")
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return path


def known_layers(config: Config, backbone: backbones.Backbone) -> tuple[int, ...] | None:
    """Layers to store, ascending; None where saliency is to choose."""
    if config.extract.layers == "all":
        return tuple(range(backbone.num_layers))
    name, layers = "extract.layers", config.extract.layers
    if layers == "saliency":
        if needs_chosen_layer(config):
            return None
        name, layers = "model.layer", (config.model.layer,)
    try:
        return tuple(sorted(backbones.pick_layers(layers, backbone.num_layers)))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


@dataclasses.dataclass(frozen=True)
class _Job:
    """An extraction: the audio, the backbone, the questions that its sums answer, and the workdir of the results."""

    config: Config
    workdir: PurePath
    recordings: audio_batches.Recordings
    is_train: np.ndarray
    questions: tuple[Question, ...]
    backbone: backbones.Backbone
    fingerprint: str
    is_quiet: bool
    mesh: Mesh | None
    has_ranked: bool = False

    @property
    def backbone_about(self) -> dict[str, Any]:
        """The backbone behind the saliency sums of every layer, for their file."""
        b = self.backbone
        about = {"name": b.name, "revision": b.revision, "dtype": b.dtype}
        return {**about, "final_norm": b.final_norm, "layers": list(range(b.num_layers))}

    @property
    def is_drawn(self) -> np.ndarray:
        """[N] bool, the utterances that any of the questions is about."""
        return np.any([question.is_drawn for question in self.questions], axis=0)

    @property
    def asked(self) -> dict[str, Any]:
        """What all questions are about."""
        first, *others = self.questions
        return first.about | ({"folds": [question.about for question in others]} if others else {})

    def _into(self, label: str) -> IntoShards:
        return IntoShards(
            config=self.config,
            recordings=self.recordings,
            backbone=self.backbone,
            label=label,
            is_drawn=None if self.has_ranked else self.is_drawn,
            is_train=self.is_train,
            is_quiet=self.is_quiet,
            mesh=self.mesh,
        )

    def rank(self) -> None:
        """Writes the saliency sums of every layer over the drawn utterances of each question. No frame is stored."""
        rows = np.flatnonzero(self.is_drawn)
        into = self._into("rank layers")
        writer = into.begin(self.workdir / RANKING_FOLDER, rows, self._settings(()), self.asked)
        into.fill(writer, rows)
        if is_first_process():
            self._write_curves(writer)
        wait_for_all("rank layers: written")

    def fill_store(self, layers: tuple[int, ...]) -> None:
        """Stores layers of every utterance, and gathers the saliency sums on the way unless `has_ranked`."""
        sums_of = {} if self.has_ranked else self.asked
        into, rows = self._into("extract"), np.arange(len(self.recordings.ids))
        writer = into.begin(self.workdir / STORE_FOLDER, rows, self._settings(layers), {"saliency": sums_of})
        into.fill(writer, rows)
        if is_first_process():
            self._finalise(writer, layers)
        wait_for_all("extract: written")

    def _finalise(self, writer: store.Writer, layers: tuple[int, ...]) -> None:
        """Merges the sums of all shards, whichever process wrote them, and finishes the store."""
        if not self.has_ranked:
            self._write_curves(writer)
        moments = normalisation.InTableOrder()
        for shard in range(len(writer.shards)):
            moments.join(writer.sums(shard, normalisation.ARRAYS))
        norm = moments.total()
        mean, sd = normalisation.compute(norm)
        dbfs = [writer.sums(shard, (DBFS,))[DBFS] for shard in range(len(writer.shards))]
        writer.finalise(
            norm={"layers": np.array(layers), "num_frames": norm.count, "mean": mean, "sd": sd},
            level={"dbfs": np.concatenate(dbfs)},
        )

    def _write_curves(self, writer: store.Writer) -> None:
        """Writes the answers from the sums of the shards, in their order, so that an interruption changes no bit."""
        about = self.backbone_about
        for question in self.questions:
            state, curves = layer_curves.measure(
                len(writer.shards), writer.sums, question, len(about["layers"]), self.is_quiet
            )
            ranking.write(self.workdir, state, curves, question, about)

    def add_copies(self, heard: copies.Plan, layers: tuple[int, ...]) -> None:
        """Stores the same layers of the copies, which neither saliency nor feature statistics read."""
        settings = heard.settings(self._settings(layers))
        path = self.workdir / copies.FOLDER
        if (path / MANIFEST_FILE).exists():
            heard.require(store.Reader(path), settings)
            if is_first_process():
                store.sweep(path)
            return
        rows = np.arange(len(heard.copies.ids))
        # A backbone that computes no layer above those stored, since nothing else is asked of copies.
        into = dataclasses.replace(
            self._into("extract copies"),
            recordings=heard.copies,
            backbone=load_backbone(self.config, layers),
            is_drawn=None,
            is_train=np.zeros(len(rows), bool),
        )
        writer = into.begin(path, rows, settings, {})
        into.fill(writer, rows)
        if is_first_process():
            writer.finalise(**{copies.DRAWN: heard.drawn()})
        wait_for_all("extract copies: written")

    def require_store(self, layers: tuple[int, ...]) -> None:
        """Refuses a finished store of other settings. It may have more layers than are asked for."""
        reader = store.Reader(self.workdir / STORE_FOLDER)
        there, asked = identity(reader.manifest), identity(self._settings(layers).to_dict())
        if set(layers) <= set(reader.layers):
            # Layers are read one by one, so that further ones do no harm.
            asked["layers"] = there["layers"]
        require_same(f"the store {reader.path}", there, asked, f"Use another --workdir, or {REMEDY}.")
        if is_first_process():
            store.sweep(reader.path)

    def _settings(self, layers: tuple[int, ...]) -> Settings:
        extract, b = self.config.extract, self.backbone
        # These fields stand in the manifest under names of their own, or with the value that `auto` has become.
        fields = self.config.results_fields("backbone", "extract")
        for name in ("backbone.name", "extract.layers", "extract.dtype", *OF_COPIES):
            fields.pop(name, None)
        fields["backbone.dtype"] = b.dtype
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

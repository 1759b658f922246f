"""What a config works on, without its frames: lengths and labels of a workdir's utterances, or a drawn corpus.

Programs depend on numbers and lengths of utterances, splits, classes and layers, and on no frame. A workload has these,
and the functions of extraction and training make their plans of it as they do of a workdir.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from seremo_jax import backbones
from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import place_of
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.data import audio, audio_batches, tables
from seremo_jax.data.policies import target_policies
from seremo_jax.data.targets import Targets
from seremo_jax.features import copies as copies_store
from seremo_jax.features import forward
from seremo_jax.features.extract import known_layers
from seremo_jax.features.store import Reader
from seremo_jax.training import copies as copies_lib
from seremo_jax.training.balance import Groups, groups_of
from seremo_jax.training.dataset import Data, split_of, targets_by_role

_LENGTH_SPREAD = 4.0
_LEVELS = 7
_OF_A_SPEAKER = 50
"""Utterances of a speaker of a drawn corpus, as many as in MSP-Podcast."""


class OutlinedStore(Reader):
    """A store that is to be: layers, number and lengths of utterances, and no frame."""

    def __init__(self, layers: Sequence[int], num_frames: Int[np.ndarray, " N"], num_features: int, dtype: str):
        self.path, self.layers, self.num_frames = place_of("store"), tuple(layers), num_frames
        self.utterances = range(len(num_frames))
        self.manifest = {"num_features": num_features, "dtype": dtype}


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """A config and the utterances that it is to work on.

    Attributes:
      config: The experiment.
      about: The utterances in words.
      num_samples: [N] most samples of each utterance at 16 kHz.
      members: The members that train.
      notes: What stands for something that is not known yet.
      utterances, ratings: The tables of the workdir; None for a drawn corpus.
    """

    config: Config
    about: str
    num_samples: np.ndarray
    members: tuple[ensemble.Member, ...]
    notes: tuple[str, ...] = ()
    utterances: pa.Table | None = None
    ratings: pa.Table | None = None

    def backbone(self, platform: str, layers: Sequence[int] | None = None) -> backbones.Backbone:
        """The backbone with shapes for weights, as it computes on a platform."""
        return forward.load_backbone(self.config, layers, outlined_for=platform)

    def stored_layers(self, backbone: backbones.Backbone) -> tuple[int, ...]:
        """Layers that the extraction stores: those of the config, or those that the members read."""
        layers = known_layers(self.config, backbone)
        return ensemble.layers(self.members) if layers is None else layers

    @functools.lru_cache(maxsize=4)  # noqa: B019 (a few workloads live as long as the process)
    def data(self, platform: str) -> Data:
        """What the training reads, frames apart.

        Raises:
          ArtefactError: The members read a layer that the extraction does not store.
        """
        backbone = self.backbone(platform)
        num_frames = np.asarray(backbone.num_frames(self.num_samples), np.int32)
        store, copies = self._store(backbone, num_frames), self._copies(backbone, num_frames)
        frames = store if copies is None else copies_lib.Frames(store, copies)
        folds = dict.fromkeys(member.fold for member in self.members)
        if self.utterances is not None:
            scored, learned = targets_by_role(self.config, self.utterances, self.ratings)
            splits = {fold: split_of(self.config, self.utterances, fold) for fold in folds}
            groups = groups_of(self.utterances, self.config.train.group_by, self.members)
        else:
            scored = learned = _targets(self.config, len(self.num_samples))
            splits = {fold: _split(self.config, len(self.num_samples), fold) for fold in folds}
            groups = Groups(*[_speakers(self.config, len(self.num_samples))] * 3)
        rows = np.arange(len(self.num_samples))
        return Data(
            self.config, store, scored, learned, splits, frames, frames.num_frames, rows, {}, groups, copies
        )  # fmt: skip

    def _store(self, backbone: backbones.Backbone, num_frames: Int[np.ndarray, " n"]) -> OutlinedStore:
        return OutlinedStore(self.stored_layers(backbone), num_frames, backbone.num_features, self.config.extract.dtype)

    def _copies(self, backbone: backbones.Backbone, num_frames: Int[np.ndarray, " N"]) -> copies_lib.Copies | None:
        """The copies that the extraction makes, utterance by utterance; None where no member hears any."""
        if not any(member.copy_share for member in self.members):
            return None
        rows = np.full((len(num_frames), self.config.extract.num_copies), -1, np.int64)
        heard = self.heard_as_copies()
        rows[heard] = len(num_frames) + np.arange(rows[heard].size).reshape(-1, rows.shape[1])
        return copies_lib.Copies(self._store(backbone, np.repeat(num_frames[heard], rows.shape[1])), rows)

    def heard_as_copies(self) -> Int[np.ndarray, " n"]:
        """Rows of the utterances that have copies: those of the training split of some fold."""
        if self.utterances is not None:
            return np.flatnonzero([part is not None for part in copies_store.parts_of(self.config, self.utterances)])
        folds = self.config.ensemble.folds or (None,)
        splits = [_split(self.config, len(self.num_samples), fold) for fold in folds]
        return np.flatnonzero(np.any([split == vocab.TRAIN for split in splits], axis=0))


def of_workdir(config: Config, workdir: str | os.PathLike) -> Workload:
    """The workload of a workdir, of which the tables are enough.

    Raises:
      ArtefactError: There are no tables, or they are of other settings.
    """
    utterances, ratings, _ = tables.read_for(config, workdir)
    num_samples = audio_batches.Recordings.of(utterances, "").num_samples
    members, notes = _members(config, place_of(workdir))
    about = f"{len(num_samples):,} utterances of {os.fspath(workdir)}, {_hours(num_samples)}"
    return _with_copies(Workload(config, about, num_samples, members, notes, utterances, ratings))


def drawn(config: Config, num_utterances: int, mean_s: float, shortest_s: float, longest_s: float) -> Workload:
    """The workload of a corpus of which nothing but numbers and lengths is known.

    Every utterance has labels of every kind, and `data.split_shares` of them are in each split.

    Args:
      config: The experiment.
      num_utterances: N.
      mean_s: Their mean length.
      shortest_s: Shortest length.
      longest_s: Longest length.

    Raises:
      ConfigError: The mean is not between the two, or there are too few utterances to split.
    """
    num_samples = draw_lengths(num_utterances, mean_s, shortest_s, longest_s)
    members, notes = _members(config, None)
    about = (
        f"{num_utterances:,} drawn utterances of {shortest_s:g} to {longest_s:g} s, {mean_s:g} s on average, "
        f"{_hours(num_samples)}"
    )
    return _with_copies(Workload(config, about, num_samples, members, notes))


def _with_copies(work: Workload) -> Workload:
    """With a note where extraction hears more than its program is counted for."""
    section = work.config.extract
    if not section.conditions:
        return work
    num = len(work.heard_as_copies()) * section.num_copies
    note = f"{num:,} copies (extract.conditions) are heard in a pass of their own, which extract does not count"
    return dataclasses.replace(work, notes=(*work.notes, note))


def draw_lengths(
    num_utterances: int, mean_s: float, shortest_s: float, longest_s: float, seed: int = 0
) -> Int[np.ndarray, " N"]:
    """Samples of utterances between two lengths with a given mean, a seeded draw.

    Raises:
      ConfigError: The mean is not between the two.
    """
    if not (num_utterances > 9 and 0 < shortest_s < mean_s < longest_s):
        raise ConfigError(
            f"{num_utterances} utterances of {mean_s:g} s on average, {shortest_s:g} to {longest_s:g} s: "
            "give at least 10 utterances, and a mean between the shortest and the longest"
        )
    place = (mean_s - shortest_s) / (longest_s - shortest_s)
    draw = np.random.default_rng(seed).beta(_LENGTH_SPREAD * place, _LENGTH_SPREAD * (1 - place), num_utterances)
    return np.round((shortest_s + draw * (longest_s - shortest_s)) * audio.SAMPLE_RATE_HZ).astype(np.int64)


def _members(config: Config, workdir: Any) -> tuple[tuple[ensemble.Member, ...], tuple[str, ...]]:
    """The members, and a note where saliency has not chosen their layer yet: the highest one stands for it."""
    chosen, notes = None, ()
    if ensemble.needs_chosen_layer(config):
        chosen = None if workdir is None else ensemble.chosen_layer(workdir, config)
        if chosen is None:
            highest = forward.load_backbone(config, outlined_for="cpu").num_layers - 1
            chosen = dict.fromkeys(config.ensemble.folds, highest) or highest
            notes = (f"saliency has chosen no layer yet: layer {highest}, the highest, stands for it",)
    return tuple(ensemble.members(config, chosen)), notes


def _parts(config: Config, num: int, has_folds: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of N utterances the part, of three in the shares that the config says or of equal folds, and a place in it."""
    draw = np.random.default_rng(config.data.split_seed).permutation(num)
    if has_folds:
        return draw % config.data.num_folds, draw // config.data.num_folds
    ends = (np.cumsum(config.data.split_shares) * num).round().astype(int)
    part = np.searchsorted(ends, draw, side="right").clip(max=2)
    return part, draw - np.array([0, *ends[:2]])[part]


def _split(config: Config, num: int, fold: int | None) -> np.ndarray:
    """[N] words: shares as the config says; with folds the next one is development."""
    part, _ = _parts(config, num, fold is not None)
    if fold is None:
        return np.array([vocab.TRAIN, vocab.DEVELOPMENT, vocab.TEST], object)[part]
    own = (part - fold) % config.data.num_folds
    return np.select([own == 0, own == 1], [vocab.TEST, vocab.DEVELOPMENT], vocab.TRAIN).astype(object)


def _speakers(config: Config, num: int) -> np.ndarray:
    """[N] int32 speakers, each in one split, whatever the fold."""
    part, place = _parts(config, num, bool(config.ensemble.folds))
    _, speaker = np.unique(np.stack([part, place // _OF_A_SPEAKER]), axis=1, return_inverse=True)
    return speaker.ravel().astype(np.int32)


def _targets(config: Config, num: int) -> Targets:
    """Labels of the shapes that the config asks for."""
    names = vocab.classes_of(config.targets.class_set)
    names = (*names, "other") if config.targets.other_votes == "class" else tuple(names)
    attributes = tuple(config.targets.attributes)
    by_class, by_attribute = (np.zeros((num, len(axis)), np.float32) for axis in (names, attributes))
    everyone, rated = np.ones(num, bool), np.ones(by_attribute.shape, bool)
    num_levels = _LEVELS if target_policies(config).has_levels else 0
    # Raters of several corpora seldom have the same choices.
    offered = np.ones(by_class.shape, bool) if config.corpus.also else None
    return Targets(
        ids=np.arange(num), votes=by_class, distribution=by_class, has_votes=everyone,
        consensus_index=np.zeros(num, np.int32), consensus=by_class, has_consensus=everyone,
        attributes=by_attribute, has_attribute=rated, attribute_variance=by_attribute, has_variance=rated,
        class_names=names, attribute_names=attributes, attribute_ranges={}, counts={},
        levels=tuple(np.linspace(-1, 1, num_levels).tolist()) if num_levels else (),
        attribute_shares=np.zeros((*by_attribute.shape, num_levels), np.float32) if num_levels else None,
        is_offered=offered,
    )  # fmt: skip


def _hours(num_samples: np.ndarray) -> str:
    return f"{num_samples.sum() / audio.SAMPLE_RATE_HZ / 3_600:,.1f} h"

"""Our training engine as the suites call it: the one file of the benchmark that knows the engine's signatures."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from seremo_jax.core import ensemble, sharding
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.core.schema import Batch, Labels
from seremo_jax.data.targets import Targets
from seremo_jax.features.store import Reader
from seremo_jax.sweeps import plan
from seremo_jax.sweeps.algebra import Point
from seremo_jax.training import balance, loader, speakers, steps
from seremo_jax.training.arrangement import arrange, share_out
from seremo_jax.training.state import (
    Inputs,
    Members,
    Normalisation,
    Relative,
    Settings,
    SpeakerMoments,
    Spoken,
    values_of,
)

CLASS_NAMES = tuple("abcdefgh")
ATTRIBUTE_NAMES = ("valence", "activation", "dominance")
FRAME_RATE_HZ = 50
NUM_SPEAKERS = 8


class Frames:
    """Utterances in memory, float32, the same at every layer; reads like a store."""

    def __init__(self, lengths: Sequence[int], num_features: int):
        rng = np.random.default_rng(0)
        bank = rng.standard_normal((max(lengths) + 997, num_features), np.float32)
        starts = rng.integers(0, 997, len(lengths))
        self.lengths = np.asarray(lengths)
        self.frames = [bank[start : start + length] for start, length in zip(starts, lengths, strict=True)]

    def read(self, layer: int, rows: Sequence[int]) -> list[np.ndarray]:
        """Frames [T, D] of the given rows."""
        return [self.frames[row] for row in rows]


def podcast_lengths(num: int, seed: int = 0) -> np.ndarray:
    """[num] frames of utterances of 1.9 to 11.9 s, 5.7 s on average: about what MSP-Podcast has."""
    seconds = np.clip(np.random.default_rng(seed).gamma((5.7 / 2.35) ** 2, 2.35**2 / 5.7, num), 1.9, 11.9)
    return (seconds * FRAME_RATE_HZ).astype(int)


def random_targets(num: int) -> Targets:
    """Vote distributions and attributes of `num` utterances, all labelled."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(len(CLASS_NAMES)), num).astype(np.float32)
    shape = (num, len(ATTRIBUTE_NAMES))
    return Targets(
        ids=np.array([f"u{row}" for row in range(num)]),
        votes=np.ones(p.shape, np.int32),
        distribution=p,
        has_votes=np.ones(num, bool),
        consensus_index=p.argmax(1).astype(np.int32),
        consensus=np.eye(len(CLASS_NAMES), dtype=np.float32)[p.argmax(1)],
        has_consensus=np.ones(num, bool),
        attributes=rng.uniform(-1, 1, shape).astype(np.float32),
        has_attribute=np.ones(shape, bool),
        attribute_variance=np.zeros(shape, np.float32),
        has_variance=np.zeros(shape, bool),
        class_names=CLASS_NAMES,
        attribute_names=ATTRIBUTE_NAMES,
        attribute_ranges={},
        counts={},
    )


def packed_plan(lengths: np.ndarray, batch_size: int) -> tuple[list[loader.Placed], loader.Shape]:
    """Our batches of an epoch, and their shape."""
    shape = loader.plan_shape(lengths, batch_size)
    return loader.plan_epoch(lengths, shape, 0, 1), shape


def padded_plan(lengths: np.ndarray, batch_size: int) -> tuple[list[loader.Placed], loader.Shape]:
    """Batches of the same shuffle with one utterance a row, whole ones only; every row as long as the longest."""
    order = np.random.default_rng([0, 1]).permutation(len(lengths))
    rows = np.arange(batch_size)
    starts = range(0, len(order) - batch_size + 1, batch_size)
    items = [order[start : start + batch_size] for start in starts]
    plan = [loader.Placed(item, rows, 0 * rows, np.asarray(lengths)[item]) for item in items]
    return plan, loader.Shape(int(max(lengths)), batch_size, batch_size)


class Ready(NamedTuple):
    """A batch of one stream, with the labels of its slots.

    Attributes:
      batch: The batch, on the host.
      targets: Targets that `batch.utterance` points into.
    """

    batch: Batch
    targets: Targets

    @property
    def features(self) -> np.ndarray:
        """[K, T, R, D] frames of each layer."""
        return self.batch.features

    @property
    def is_valid(self) -> np.ndarray:
        """[T, R] bool, False in gaps and padding."""
        return self.batch.slot[0] >= 0

    @property
    def is_used(self) -> np.ndarray:
        """[B] bool, slots with an utterance."""
        return self.batch.utterance[0] >= 0

    @property
    def attributes(self) -> np.ndarray:
        """[B, A] targets of the slots."""
        return self.targets.attributes[self.batch.utterance[0]]

    @property
    def distribution(self) -> np.ndarray:
        """[B, C] targets of the slots."""
        return self.targets.distribution[self.batch.utterance[0]]


class Source:
    """Ready batches of an epoch by number."""

    def __init__(self, batches: loader.BatchSource, targets: Targets):
        self.batches, self._targets = batches, targets

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Ready:
        return Ready(self.batches[number], self._targets)


def source(
    store: Any,
    layers: Sequence[int],
    targets: Targets,
    plan: Sequence[loader.Placed],
    shape: loader.Shape,
    dtype: str = "float32",
) -> Source:
    """Batches of an epoch over every utterance of a store, whose rows are those of the targets."""
    rows = np.arange(len(targets.ids))
    batches = loader.BatchSource(
        [loader.Stream(plan, rows, rows)],
        shape,
        shape.num_rows,
        store=store,
        num_features=store.read(layers[0], [0])[0].shape[1],
        dtype=dtype,
        views=[(0, layer) for layer in layers],
    )
    return Source(batches, targets)


def epoch(reader: Reader, targets: Targets, batch_size: int, number: int) -> Iterator[Ready]:
    """The batches of one epoch as training reads them: through Grain, from the store."""
    shape = loader.plan_shape(reader.num_frames, batch_size)
    plan = loader.plan_epoch(reader.num_frames, shape, 0, number)
    batches = source(reader, reader.layers, targets, plan, shape, reader.manifest["dtype"]).batches
    for batch in loader.batches(batches):
        yield Ready(batch, targets)


def _config(num_members: int, sizes: dict[str, Any], points: Sequence[Point] | None) -> Config:
    """Settings of members that differ in their seed, or that are the points of a sweep."""
    seeds = {"seeds": tuple(range(num_members))} if points is None else {}
    config = from_config_dict({"model": {"layer": 0, **sizes}, "ensemble": seeds})
    return config if points is None else plan.plan(config, points).programs[0].config


class Trainer:
    """Members of the published head, trained in one program.

    Args:
      num_members: E.
      num_features: D.
      num_layers: Layers they read, as evenly as it goes.
      sizes: Fields of `model`, other than the published ones.
      points: Points of a sweep that they are of, as many as there are members; None for seeds.
    """

    def __init__(
        self,
        num_members: int,
        num_features: int,
        num_layers: int = 1,
        sizes: dict[str, Any] | None = None,
        points: Sequence[Point] | None = None,
    ):
        self._config = config = _config(num_members, sizes or {}, points)
        members = [
            dataclasses.replace(member, layer=number % num_layers)
            for number, member in enumerate(ensemble.members(config, None))
        ]
        # Members of one layer side by side, as an ensemble has them.
        members = sorted(members, key=lambda member: member.layer)
        settings = Settings.of(config, num_features, len(CLASS_NAMES), num_groups=NUM_SPEAKERS)
        self._mesh = mesh = sharding.make_mesh(num_members)
        current = arrange(num_members, mesh.shape[sharding.MEMBER])
        self._views, slot = share_out(current, [(member.layer,) for member in members])
        here = [members[m] for m in current.member]
        different, weight_slot = balance.combinations(here)
        self._num_weights = len(different) if balance.is_asked_for(config) else 0
        values = values_of(here, [np.ones(len(CLASS_NAMES), np.float32)] * len(here), None, weight_slot)
        by_member, relative = sharding.by_member(mesh), None
        shape = sum(map(len, self._views)), num_features
        if speakers.is_asked_for(config):
            kappa_s = np.array([float(member.speaker_kappa_s) for member in here], np.float32)
            relative = Relative(kappa_s, slot, np.zeros_like(slot))
        self._members = jax.device_put(Members(values, np.zeros_like(slot), slot, slot, relative), by_member)
        norm = Normalisation(np.zeros(shape, np.float32), np.ones(shape, np.float32))
        self._norm, self._reads_groups = jax.device_put(norm, by_member), settings.reads_groups
        self._compiled = steps.compile_steps(settings, mesh, num_running=current.num_running)
        state = self._compiled.init(self._members.values)
        is_member = np.arange(len(current.order)) < num_members
        self._state = state._replace(is_active=jax.device_put(is_member, by_member))
        self._places, self._seen = current.places[:num_members], 0.0

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the first member."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], self._state.params)

    def place(self, ready: Ready) -> tuple[Batch, Inputs]:
        """The batch on the devices, as a training finds it ready."""
        t = ready.targets
        shares = np.zeros((*t.attributes.shape, 0), np.float32)
        labels = Labels(
            t.distribution, t.has_votes, t.consensus, t.has_consensus, t.attributes, t.has_attribute,
            t.attribute_variance, t.has_variance, shares,
        )  # fmt: skip
        views = [layer for shard in self._views for layer in shard]
        batch = ready.batch._replace(features=ready.batch.features[views])
        specs = steps.batch_specs(is_cached=False)
        placed = Batch(
            *(None if a is None else sharding.place(self._mesh, spec, a) for a, spec in zip(batch, specs, strict=True))
        )
        return placed, Inputs(self._norm, self._whole(labels), None, *self._of_speakers(len(t.ids)))

    def _of_speakers(self, num: int) -> tuple[Any, ...]:
        """Weights, groups, statistics of speakers and who speaks, of N utterances: None where no member reads them."""
        speaker, table, groups = np.arange(num, dtype=np.int32) % NUM_SPEAKERS, None, None
        if self._num_weights:
            table = self._whole(np.ones((self._num_weights, num), np.float32))
        if self._reads_groups:
            groups = self._whole(np.stack([speaker, speaker % 2]))
        if self._members.relative is None:
            return table, groups
        moments = np.ones((len(self._norm.mean), NUM_SPEAKERS, self._norm.mean.shape[1]), np.float32)
        statistics = jax.device_put(SpeakerMoments(0 * moments, moments), sharding.by_member(self._mesh))
        return table, groups, statistics, self._whole(Spoken(np.full(NUM_SPEAKERS, 60, np.float32), speaker[None]))

    def _whole(self, tree: Any) -> Any:
        return jax.device_put(tree, sharding.replicated(self._mesh))

    def step(self, placed: tuple[Batch, Inputs]) -> np.ndarray:
        """One update of every member, waited for; the loss of each."""
        batch, inputs = placed
        self._state, total = self._compiled.train(self._state, self._members, batch, inputs)
        total = np.asarray(jax.block_until_ready(total))[self._places]
        before, self._seen = self._seen, total
        return total - before

"""From the data to the mesh: batches of one split, and the other inputs of the steps, for an arrangement of members."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from seremo_jax.core import ensemble, sharding, vocab
from seremo_jax.core.schema import Batch
from seremo_jax.training import loader, speakers, steps
from seremo_jax.training.arrangement import Arrangement, share_out
from seremo_jax.training.balance import GroupTables, Weights
from seremo_jax.training.cache import Cache
from seremo_jax.training.dataset import Data, Fold
from seremo_jax.training.speakers import Statistics
from seremo_jax.training.state import Inputs, Members, Normalisation, Relative, SpeakerMoments, Spoken, values_of

STEPS_AHEAD = 2
"""Steps that may wait on the device while the host prepares the next batch."""
_MEMBER, _SAME = PartitionSpec(sharding.MEMBER), PartitionSpec()


@dataclasses.dataclass(frozen=True)
class Layout:
    """What each shard of the member axis holds for its members, and where each member finds its own.

    Attributes:
      streams: Order of each stream. Members of one order share it: a batch then has one layout for all of them.
      stream: [P] int32, stream of the member at each position.
      views: Of each shard, (stream, layer) of the frames that it holds.
      view_slot: [P] int32, first view of each member in its shard.
      norms: Of each shard, (fold, layer) of the feature statistics that it holds.
      norm_slot: [P] int32, likewise.
    """

    streams: list[loader.Order]
    stream: np.ndarray
    views: list[list[tuple[int, int]]]
    view_slot: np.ndarray
    norms: list[list[tuple[Fold, int]]]
    norm_slot: np.ndarray

    @classmethod
    def of(
        cls,
        data: Data,
        members: Sequence[ensemble.Member],
        current: Arrangement,
        *,
        has_own_order: bool,
        is_cached: bool,
    ) -> "Layout":
        """The layout of members at their positions; see `Feed` for the arguments."""
        keys = [
            loader.Order(m.fold, m.data_seed, m.copy_share) if has_own_order else loader.Order(m.fold, None)
            for m in members
        ]
        streams = list(dict.fromkeys(keys))
        stream = np.array([streams.index(keys[m]) for m in current.member], np.int32)
        layers = [data.layers_of(member) for member in members]
        # Frames in device memory are in the order of the cache, so that all streams point into one view of a layer.
        of_member = [0 if is_cached else streams.index(key) for key in keys]
        views, view_slot = share_out(
            current, [tuple((s, layer) for layer in own) for s, own in zip(of_member, layers, strict=True)]
        )
        norms, norm_slot = share_out(
            current, [tuple((m.fold, layer) for layer in own) for m, own in zip(members, layers, strict=True)]
        )
        return cls(streams, stream, views, view_slot, norms, norm_slot)


def num_rows_of(shape: loader.Shape, mesh: Mesh, micro_batches: int) -> int:
    """Rows of a batch on a mesh: split over the devices of the data axis, and there into parts, empty ones at the end.

    The parts are computed one after the other and have equal numbers of rows.
    """
    num_parts = mesh.shape[sharding.DATA] * micro_batches
    return -(-shape.num_rows // num_parts) * num_parts


@dataclasses.dataclass(frozen=True)
class Placement:
    """Members at their positions on a mesh, with the values that each of them reads.

    Attributes:
      members: The members.
      mesh: Mesh with the axes `("member", "data")`.
      arrangement: Which member sits at which position.
      statistics: (fold, layer) -> mean and sd of the features, see `Data.normalisation`.
      class_weights: [C] weights of the classes for each member; None where no loss is computed.
      num_steps: Updates over which the learning rate of each member falls, see `Data.planned_steps`.
      weights: Weights of the utterances, see `Data.weights`; None where no loss is computed.
      class_distances: [C, C] distance between classes for each member; None where no loss reads it.
      groups: Groups that the members train by; None where no step reads who speaks.
      speakers: Statistics of the voices of the utterances; None where no member reads features relative to speakers.
    """

    members: Sequence[ensemble.Member]
    mesh: Mesh
    arrangement: Arrangement
    statistics: dict[tuple[Fold, int], tuple[np.ndarray, np.ndarray]]
    class_weights: Sequence[np.ndarray] | None = None
    num_steps: Sequence[int] | None = None
    weights: Weights | None = None
    class_distances: Sequence[np.ndarray] | None = None
    groups: GroupTables | None = None
    speakers: Statistics | None = None


class Feed:
    """Batches of one split for members at their places.

    Args:
      data: The data.
      placement: The members and where they sit.
      shape: Shape of the batches.
      rows: Fold -> rows of the utterance table.
      has_own_order: Members of another `data_seed` see the utterances in another order, which is shuffled each epoch.
        Otherwise all members see the order of the table.
      cache: Frames that live in device memory; None where each batch brings its frames.
      frames: The frames of the cache, where another feed of the same placement has put them on the devices already.

    Attributes:
      members: Members by position, on the mesh.
      inputs: What the steps read besides state and batch, on the mesh.
      stream: [P] int32, stream of the member at each position.
    """

    def __init__(
        self,
        data: Data,
        placement: Placement,
        shape: loader.Shape,
        rows: dict[Fold, np.ndarray],
        *,
        has_own_order: bool,
        cache: Cache | None = None,
        frames: jax.Array | None = None,
    ):
        members, current = placement.members, placement.arrangement
        self._data, self._mesh, self._shape, self._rows, self._cache = data, placement.mesh, shape, rows, cache
        layout = Layout.of(data, members, current, has_own_order=has_own_order, is_cached=cache is not None)
        self._streams, self.stream, self._views = layout.streams, layout.stream, layout.views
        weights = placement.class_weights or [np.ones(len(data.targets.class_names), np.float32)] * len(members)
        num_steps, distances = (
            items and [items[m] for m in current.member] for items in (placement.num_steps, placement.class_distances)
        )
        of_utterances = placement.weights or Weights(None, np.zeros(len(members), np.int32))
        values = values_of(
            [members[m] for m in current.member],
            [weights[m] for m in current.member],
            num_steps,
            of_utterances.slot[current.member],
            distances,
            placement.groups and placement.groups.slot[current.member],
        )
        voices, relative = self._relative(placement)
        self.members = self._by_member(Members(values, layout.stream, layout.view_slot, layout.norm_slot, relative))
        tables = [np.stack([placement.statistics[key][i] for shard in layout.norms for key in shard]) for i in range(2)]
        labels = jax.tree.map(lambda table: sharding.place(placement.mesh, _SAME, table), data.labels())
        if cache is not None and frames is None:
            frames = cache.frames(placement.mesh, [[layer for _, layer in shard] for shard in self._views])
        table, groups = (
            None if table is None else sharding.place(placement.mesh, _SAME, table)
            for table in (
                of_utterances.table,
                placement.groups and np.stack([placement.groups.table.speaker, *placement.groups.groups]),
            )
        )
        norm = Normalisation(*map(self.whole_by_member, tables))
        self.inputs = Inputs(norm, labels, frames, table, groups, *voices)

    def _relative(self, placement: Placement) -> tuple[tuple[SpeakerMoments | None, Spoken | None], Relative | None]:
        """Statistics of the voices on the mesh, whose each utterance is, and where each member finds its own."""
        found = speakers.layout(self._data, placement.members, placement.arrangement)
        if found is None:
            return (None, None), None
        layers, relative = found
        moments, seconds, voice = speakers.tables(placement.speakers, layers, self._data.splits)
        spoken = Spoken(*(sharding.place(self._mesh, _SAME, table) for table in (seconds, voice)))
        return (SpeakerMoments(*map(self.whole_by_member, moments)), spoken), relative

    @property
    def num_examples(self) -> int:
        """Utterances of the largest stream."""
        return max(map(len, self._rows.values()))

    def num_frames_of(self, current: Arrangement) -> int:
        """Frames that the trained members read in an epoch, added up over the members."""
        num_frames = self._data.num_frames
        by_stream = [int(num_frames[self._data.store_rows[self._rows[s.fold]]].sum()) for s in self._streams]
        is_member = current.order[current.running] < current.num_members
        return sum(by_stream[s] for s in self.stream[current.running][is_member])

    def _plans(self, epoch: int | None) -> list[loader.Stream]:
        data, streams = self._data, []
        for order in self._streams:
            rows = self._rows[order.fold]
            # Copies are as long as their utterances, so they change nothing of the plan.
            plan = loader.plan_epoch(data.num_frames[data.store_rows[rows]], self._shape, order.data_seed or 0, epoch)
            streams.append(loader.Stream(plan, data.heard_rows(rows, order, epoch), rows))
        return streams

    def num_batches(self, epoch: int | None = None) -> int:
        """Batches of an epoch."""
        return max(len(stream.plan) for stream in self._plans(epoch))

    def batches(self, epoch: int | None = None, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from number `start` on, on the devices; `epoch` None keeps the order of the table."""
        data = self._data
        num_rows = num_rows_of(self._shape, self._mesh, data.config.train.micro_batches)
        specs = steps.batch_specs(self._cache is not None)
        # Each process reads only the rows and the shards of members that its own devices hold.
        rows = sharding.local_part(self._mesh, specs.slot, 2, num_rows)
        shards = sharding.local_part(self._mesh, _MEMBER, 0, self._mesh.shape[sharding.MEMBER])
        source = loader.BatchSource(
            streams=self._plans(epoch),
            shape=self._shape,
            num_rows=num_rows,
            store=data.frames,
            num_features=data.num_features,
            dtype=data.store.manifest["dtype"],
            views=() if self._cache else [view for shard in shards for view in self._views[shard]],
            rows=rows,
            columns=data.columns,
            first_frames=self._cache.first_frames if self._cache else None,
        )
        if self._cache is not None:
            yield from self._from_memory(source, specs, rows, start)
            return
        num_views = sum(map(len, self._views))
        for batch in loader.batches(source, start):
            yield self._placed(batch, specs, rows, num_rows, num_views)

    def _placed(self, batch: Batch, specs: Batch, rows: range, num_rows: int, num_views: int) -> Batch:
        """A batch on the mesh. Every process has the layouts whole, but only its own part of the frames."""
        shape = (num_views, self._shape.num_frames, num_rows, batch.features.shape[-1])
        return Batch(
            features=sharding.place(self._mesh, specs.features, batch.features, shape),
            frame=None,
            **self._layouts(batch, specs, rows),
        )

    def _layouts(self, batch: Batch, specs: Batch, rows: range) -> dict[str, jax.Array]:
        layouts = {}
        for name in ("reset", "slot", "last_frame", "utterance"):
            array, spec = getattr(batch, name), getattr(specs, name)
            local = array[:, :, rows.start : rows.stop] if name in ("reset", "slot") else array
            layouts[name] = sharding.place(self._mesh, spec, local, array.shape)
        return layouts

    def _from_memory(self, source: loader.BatchSource, specs: Batch, rows: range, start: int) -> Iterator[Batch]:
        """Batches whose layouts all go to the devices at the beginning of the epoch.

        Layouts are small where frames are in device memory, and a step then waits for nothing from the host.
        """
        layouts = [source[i] for i in range(len(source))]

        def placed(name: str) -> jax.Array | None:
            if name == "features":
                return None
            array, spec = np.stack([getattr(layout, name) for layout in layouts]), getattr(specs, name)
            local = array[..., rows.start : rows.stop] if name in ("frame", "reset", "slot") else array
            return sharding.place(self._mesh, PartitionSpec(None, *spec), local, array.shape)

        epoch = Batch(*map(placed, Batch._fields))
        for index in range(start, len(source)):
            yield steps.batch_of(epoch, np.int32(index))

    def _by_member(self, tree: Members) -> Members:
        return jax.tree.map(self.whole_by_member, tree)

    def whole_by_member(self, whole: np.ndarray) -> jax.Array:
        """An array [P, ...] that every process has whole, laid over the member axis."""
        local = sharding.local_part(self._mesh, _MEMBER, 0, len(whole))
        return sharding.place(self._mesh, _MEMBER, whole[local.start : local.stop], whole.shape)


def rows_of(data: Data) -> tuple[dict[Fold, np.ndarray], dict[Fold, np.ndarray]]:
    """Fold -> labelled rows of the utterance table, of the training and of the development split.

    Raises:
      ArtefactError: A split lacks labelled utterances.
    """
    train, development = (
        {fold: data.labelled_rows(fold, split) for fold in data.splits} for split in (vocab.TRAIN, vocab.DEVELOPMENT)
    )
    return train, development


def shape_of(data: Data, rows: dict[Fold, np.ndarray], others: dict[Fold, np.ndarray]) -> loader.Shape:
    """Shape of the batches over `rows`, whose rows of frames are long enough for the utterances of `others`, too.

    With one shape for both splits, predictions of the second one compile nothing more.
    """
    t, num_frames, gap = data.config.train, data.num_frames, loader.gap_of(data.config.model.conv_kernel)

    def lengths_of(rows_of_folds: dict[Fold, np.ndarray]) -> np.ndarray:
        return num_frames[data.store_rows[np.unique(np.concatenate(list(rows_of_folds.values())))]]

    lengths, longest = lengths_of(rows), int(lengths_of(others).max())
    if None not in rows:
        # The batches of a fold must not depend on which folds are trained beside it, so all utterances count.
        lengths = num_frames[data.store_rows[data.store_rows >= 0]]
        longest = int(lengths.max())
    shape = loader.plan_shape(lengths, t.batch_size, t.frames_per_row, t.data_seed, gap)
    if not t.frames_per_row and longest > shape.num_frames:
        shape = loader.plan_shape(lengths, t.batch_size, longest, t.data_seed, gap)
    return shape
